//! `pillarbox dns` and `pillarbox dkim`: what is printed is what DNS must say, and differences are told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::process::{Command, Output};

use serde_json::Value;

#[path = "support/dns.rs"]
mod dns;
#[path = "support/server.rs"]
mod server;

use dns::Dns;
use server::{Server, fail, run, succeed};

const DOMAIN: &str = "pillarbox.local";

fn pillarbox(server: &Server, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    command.args(words).arg("--data").arg(server.data());
    command
}

fn json(server: &Server, words: &[&str]) -> Value {
    serde_json::from_str(&succeed(pillarbox(server, words).arg("--json"), b"")).unwrap()
}

/// Puts what was printed into a DNS server.
fn serve(told: &Value, dns: &Dns) {
    for record in told["records"].as_array().unwrap() {
        let (name, data) = (record["name"].as_str().unwrap(), &record["data"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let number = |value: &Value| u8::try_from(value.as_u64().unwrap()).unwrap();
        if let Some(mx) = data["mx"].as_array() {
            dns.mx(name, 10, &text(&mx[1]));
        } else if let Some(address) = data["address"].as_str() {
            dns.a(name, address).ptr(address, name);
        } else if let Some(txt) = data["txt"].as_str() {
            dns.txt(name, txt);
        } else if let Some(tlsa) = data["tlsa"].as_array() {
            let digest = text(&tlsa[3]);
            let digest: Vec<u8> =
                (0..32).map(|at| u8::from_str_radix(&digest[2 * at..2 * at + 2], 16).unwrap()).collect();
            dns.tlsa(name, number(&tlsa[0]), number(&tlsa[1]), number(&tlsa[2]), &digest);
        }
    }
}

fn check(server: &Server, dns: &Dns) -> (Output, Value) {
    let address = dns.address().to_string();
    let output =
        run(pillarbox(server, &["dns", DOMAIN, "--check", "--json", "--dns", &address]).args([] as [&str; 0]), b"");
    let said = serde_json::from_slice(&output.stdout).unwrap();
    (output, said)
}

fn finding<'v>(said: &'v Value, purpose: &str) -> &'v Value {
    said["findings"].as_array().unwrap().iter().find(|finding| finding["purpose"] == purpose).unwrap()
}

#[test]
fn what_is_printed_is_good_once_it_is_published_and_each_difference_is_told() {
    let server = Server::start();
    let told = json(&server, &["dns", DOMAIN]);
    let dns = Dns::start();
    serve(&told, &dns);
    let (output, said) = check(&server, &dns);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for purpose in ["mx", "address", "spf", "dkim", "dmarc", "tls-reports", "tlsa"] {
        assert_eq!(finding(&said, purpose)["state"], "good", "{said}");
    }
    assert_eq!(finding(&said, "service")["state"], "missing", "nobody needs it");

    // Another server's zone: mail goes elsewhere, and there is no key.
    let other = Dns::start();
    other.mx(DOMAIN, 5, "mx.isp.test").txt(DOMAIN, "v=spf1 include:isp.test -all");
    let (output, said) = check(&server, &other);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(finding(&said, "mx")["state"], "different");
    assert!(finding(&said, "mx")["text"].as_str().unwrap().contains("goes to mx.isp.test (5)"), "{said}");
    assert_eq!(finding(&said, "dkim")["state"], "missing");
    assert_eq!(finding(&said, "spf")["state"], "good");

    // A DNS server that is not there makes nothing wrong.
    drop(dns);
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    let said = succeed(&mut pillarbox(&server, &["dns", DOMAIN, "--check", "--dns", &address]), b"");
    assert!(said.contains("not checkable: ") && said.contains("nothing is known"), "{said}");
}

#[test]
fn new_keys_sign_when_dns_shows_them() {
    let server = Server::start();
    let states = |keys: &Value| -> Vec<String> {
        keys.as_array().unwrap().iter().map(|key| key["turn"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(states(&json(&server, &["dkim", "list", DOMAIN])), ["signs", "signs"]);
    let rotated = json(&server, &["dkim", "rotate", DOMAIN]);
    assert_eq!(states(&rotated["keys"]), ["signs", "signs", "waits", "waits"]);
    let again = fail(&mut pillarbox(&server, &["dkim", "rotate", DOMAIN]), b"");
    assert!(again.contains("pb2") && again.contains("waits already"), "{again}");

    let dns = Dns::start();
    let (_, said) = check(&server, &dns);
    assert_eq!(said["signing"].as_array().unwrap().len(), 0);
    serve(&json(&server, &["dns", DOMAIN]), &dns);
    let (output, said) = check(&server, &dns);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(said["signing"], serde_json::json!(["pb2-rsa", "pb2-ed25519"]));
    assert_eq!(states(&json(&server, &["dkim", "list", DOMAIN])), ["kept", "kept", "signs", "signs"]);
    let refused = fail(&mut pillarbox(&server, &["dkim", "remove", DOMAIN, "pb2-rsa"]), b"");
    assert!(refused.contains("signs the mail of"), "{refused}");
    let removed = succeed(&mut pillarbox(&server, &["dkim", "remove", DOMAIN, "pb1-rsa"]), b"");
    assert!(removed.contains("pb1-ed25519._domainkey.pillarbox.local"), "{removed}");
}

#[test]
fn a_zone_file_and_the_files_for_a_web_server_are_printed() {
    let server = Server::start();
    let zone = succeed(&mut pillarbox(&server, &["dns", DOMAIN]), b"");
    assert!(zone.contains("\npillarbox.local. 3600 IN MX 10 pillarbox.local.\n"), "{zone}");
    assert!(zone.contains("\npb1-rsa._domainkey.pillarbox.local. 3600 IN TXT \"v=DKIM1; k=rsa; p="), "{zone}");
    assert!(zone.contains("_submissions._tcp.pillarbox.local. 3600 IN SRV 0 1 "), "{zone}");
    let policy = succeed(&mut pillarbox(&server, &["dns", DOMAIN, "--file", "mta-sts"]), b"");
    assert_eq!(policy, "version: STSv1\nmode: testing\nmx: pillarbox.local\nmax_age: 604800\n");
    let config = succeed(&mut pillarbox(&server, &["dns", DOMAIN, "--file", "autoconfig"]), b"");
    assert!(config.contains(&format!("<port>{}</port>", server.port("imaps"))), "{config}");
    let foreign = fail(&mut pillarbox(&server, &["dns", "elsewhere.test"]), b"");
    assert!(foreign.contains("no domain of this box"), "{foreign}");
}
