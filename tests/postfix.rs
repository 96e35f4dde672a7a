//! Postfix as a peer: mail goes out to it and comes in from it, in clear and over TLS, with SMTPUTF8 and
//! notifications asked for both ways.
//!
//! Each test has a Postfix of its own on loopback ports, with its configuration, queue and mailboxes in a
//! temporary folder; only root can start one. Nothing of a Postfix that the machine runs is touched.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[path = "support/exchange.rs"]
mod exchange;
#[path = "support/postfix.rs"]
mod postfix;
#[path = "support/server.rs"]
mod server;

use std::process::Command;

use exchange::{Setup, free_ports};
use postfix::Postfix;
use server::{installed, succeed};

fn mail_goes_both_ways(tls: bool) {
    if !installed(&["postfix", "postconf", "openssl", "python3"], "Postfix as a peer") || !postfix::may_start() {
        return;
    }
    let [port] = free_ports();
    let route = format!("[route]\n\"postfix.test\" = \"127.0.0.1:{port}\"\n");
    let mut setup = Setup::of("pillarbox.test", "mail.pillarbox.test", "127.0.0.1:0", &route);
    setup.listen.push(("imaps", "127.0.0.1:0".to_owned()));
    let server = exchange::Server::set_up(&setup);
    let [smtp, submission, imaps] = ["smtp", "submission", "imaps"]
        .map(|service| server.place(service).rsplit(':').next().unwrap().parse::<u16>().unwrap());
    let postfix = Postfix::start(port, smtp, tls);
    let mut python = Command::new("python3");
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/postfix.py")).arg(server.ca());
    python.args([smtp, submission, imaps, port].map(|port| port.to_string()));
    python.arg(postfix.boxes()).arg(if tls { "tls" } else { "clear" });
    python.arg(env!("CARGO_BIN_EXE_pillarbox")).arg("--data").arg(server.data());
    let said = succeed(&mut python, b"");
    assert!(said.ends_with("all well\n"), "{said}");
}

#[test]
fn mail_goes_to_postfix_and_comes_from_it_in_clear() {
    mail_goes_both_ways(false);
}

#[test]
fn mail_goes_to_postfix_and_comes_from_it_over_tls() {
    mail_goes_both_ways(true);
}
