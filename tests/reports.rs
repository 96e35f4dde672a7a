//! Reports about DMARC to other domains: mail comes in their names, the operator has the day told of, and the report
//! arrives where the DNS says, in a form that our own reader takes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[path = "support/dns.rs"]
mod dns;
#[path = "support/exchange.rs"]
mod exchange;
#[path = "support/sink.rs"]
mod sink;

use dns::{Dns, Trouble};
use exchange::{Server, pillarbox};
use serde_json::Value;
use sink::{Sink, Taken};

/// A world in which `sender.test` wants reports at its own address, at two of others, of which one agreed, and at one
/// of its own that takes little.
fn world() -> Dns {
    let dns = Dns::start();
    dns.txt(
        "_dmarc.sender.test",
        "v=DMARC1; p=reject; sp=none; aspf=s; rua=mailto:r@sender.test!1m, mailto:hired@third.test, \
         mailto:flood@victim.test, mailto:small@sender.test!100",
    );
    dns.txt("sender.test._report._dmarc.third.test", "v=DMARC1;");
    dns.txt("sender.test", "v=spf1 ip4:127.0.0.1 -all").txt("other.test", "v=spf1 ip4:127.0.0.1 -all");
    dns.txt("_dmarc.here.test", "v=DMARC1; p=none; rua=mailto:ann@here.test");
    dns
}

fn settings(dns: &Dns, sinks: &[(&str, &Sink)]) -> String {
    format!(
        "[dns]\nservers = [\"{}\"]\ntimeout-secs = 1\n[senders]\ntrusted = []\n[dmarc-report]\nsend = true\n\
         from = \"postmaster@here.test\"\n{}",
        dns.address(),
        sink::routes(sinks)
    )
}

fn order(server: &Server, words: &[&str]) -> String {
    let said = pillarbox(&server.folder).args(words).arg("--data").arg(server.folder.join("data")).output().unwrap();
    assert!(said.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

fn report(server: &Server, words: &[&str]) -> Value {
    serde_json::from_str(&order(server, &[&["dmarc", "report", "--json"], words].concat())).unwrap()
}

/// Has another server bring a message; the reply to its last line.
fn bring(server: &Server, envelope: &str, from: &str, subject: &str) -> String {
    let mut wire = server.connect("smtp");
    wire.expect("220");
    wire.say("EHLO mx.sender.test", "250");
    wire.say(&format!("MAIL FROM:<{envelope}>"), "250");
    wire.say("RCPT TO:<ann@here.test>", "250");
    wire.say("DATA", "354");
    wire.say(&format!("From: <{from}>\r\nSubject: {subject}\r\n\r\nhello\r\n."), "")
}

fn path(line: &str) -> &str {
    line.split(['<', '>']).nth(1).unwrap()
}

/// What `pillarbox dmarc summary` makes of a report.
fn summary(server: &Server, taken: &Taken) -> Value {
    let file = server.folder.join("report.eml");
    std::fs::write(&file, &taken.content).unwrap();
    let said = pillarbox(&server.folder).args(["dmarc", "summary", "--json"]).arg(&file).output().unwrap();
    serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{said:?}\n{}", taken.content))
}

#[test]
fn a_domain_is_told_what_came_in_its_name() {
    let (dns, own, third, victim) = (world(), Sink::start(), Sink::start(), Sink::start());
    let sinks = [("sender.test", &own), ("third.test", &third), ("victim.test", &victim)];
    let server = Server::start(&settings(&dns, &sinks));
    order(&server, &["dkim", "list", "here.test"]);
    for _ in 0..3 {
        assert!(bring(&server, "a@sender.test", "a@sender.test", "hello").starts_with("250"));
    }
    assert!(bring(&server, "a@other.test", "ceo@sender.test", "pay me").starts_with("550 5.7.1"));
    // Below the domain another policy holds, and SPF has to name the very domain.
    assert!(bring(&server, "a@sender.test", "a@news.sender.test", "hello").starts_with("250"));
    // Who asks for nothing is told nothing, and what comes in our own name we know.
    assert!(bring(&server, "a@other.test", "a@other.test", "hello").starts_with("250"));
    assert!(bring(&server, "a@other.test", "bob@here.test", "hello").starts_with("250"));
    let waiting = report(&server, &[]);
    assert_eq!(waiting["owed"], Value::Array(Vec::new()));
    let growing: Vec<_> = waiting["growing"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["domain"].clone(), row["count"].clone()))
        .collect();
    assert_eq!(growing, [("here.test".into(), 1.into()), ("sender.test".into(), 5.into())]);
    assert!(order(&server, &["dmarc", "report"]).contains("sender.test  5"));

    assert_eq!(report(&server, &["--now"])["sent"], 2);
    let taken = &own.wait_for(1)[0];
    assert_eq!((path(&taken.mail), path(&taken.rcpt[0])), ("", "r@sender.test"));
    let content = taken.content.replace("\r\n ", " ");
    for part in [
        "Subject: Report Domain: sender.test Submitter: here.test Report-ID: <dmarc.",
        "From: <postmaster@here.test>",
        "DKIM-Signature: v=1; a=rsa-sha256;",
        "\td=here.test;",
        "Content-Type: application/gzip; name=\"here.test!sender.test!",
        ".xml.gz\"",
    ] {
        assert!(content.contains(part), "{part} is not in {content}");
    }
    let told = summary(&server, taken);
    assert_eq!((&told["reports"], &told["reporters"]["here.test"]), (&1.into(), &1.into()));
    let domains = &told["domains"];
    let good = &domains["sender.test"]["127.0.0.1"];
    assert_eq!([&good["messages"], &good["spf"], &good["failed"], &good["refused"]], [4, 3, 1, 1], "{told}");
    let below = &domains["news.sender.test"]["127.0.0.1"];
    assert_eq!([&below["messages"], &below["spf"], &below["failed"], &below["refused"]], [1, 0, 1, 0], "{told}");
    assert_eq!(path(&third.wait_for(1)[0].rcpt[0]), "hired@third.test");
    server.wait_until_sent();
    assert_eq!((own.taken().len(), victim.taken().len()), (1, 0), "who takes little or never agreed gets nothing");
    let after = report(&server, &["--now"]);
    assert_eq!(
        [&after["owed"], &after["growing"], &after["sent"]],
        [&Value::Array(Vec::new()), &Value::Array(Vec::new()), &0.into()]
    );
}

#[test]
fn counts_outlive_a_restart_and_reports_wait_for_the_dns() {
    let (dns, own, third) = (world(), Sink::start(), Sink::start());
    let settings = settings(&dns, &[("sender.test", &own), ("third.test", &third)]);
    let mut server = Server::start(&settings);
    assert!(bring(&server, "a@sender.test", "a@sender.test", "hello").starts_with("250"));
    let folder = server.folder.clone();
    server.stop();
    let again = Server::start_in(&folder, &settings);
    assert!(bring(&again, "a@sender.test", "a@sender.test", "hello").starts_with("250"));
    assert_eq!(report(&again, &[])["growing"][0]["count"], 2);
    let name = "sender.test._report._dmarc.third.test";
    dns.trouble(name, None, Trouble::Silence);
    let waits = report(&again, &["--now"]);
    assert_eq!((&waits["sent"], &waits["owed"][0]["domain"]), (&0.into(), &"sender.test".into()));
    dns.clear(name).txt(name, "v=DMARC1");
    assert_eq!(report(&again, &["--now"])["sent"], 2);
    assert_eq!(summary(&again, &own.wait_for(1)[0])["domains"]["sender.test"]["127.0.0.1"]["messages"], 2);
}

#[test]
fn reports_about_reports_are_not_written_and_forged_ones_are_told_of() {
    let dns = world();
    let server = Server::start(&settings(&dns, &[]));
    let subject = "Report Domain: here.test Submitter: sender.test Report-ID: <1>";
    assert!(bring(&server, "a@sender.test", "a@sender.test", subject).starts_with("250"));
    assert_eq!(report(&server, &[])["growing"], Value::Array(Vec::new()));
    assert!(bring(&server, "a@other.test", "a@sender.test", subject).starts_with("550"));
    assert_eq!(report(&server, &[])["growing"][0]["count"], 1);
}

#[test]
fn without_the_setting_nothing_is_counted_and_the_command_says_why() {
    let dns = world();
    let mut server = Server::start(&settings(&dns, &[]).replace("send = true", "send = false"));
    assert!(bring(&server, "a@sender.test", "a@sender.test", "hello").starts_with("250"));
    let data = server.folder.join("data");
    let said = pillarbox(&server.folder).args(["dmarc", "report", "--data"]).arg(&data).output().unwrap();
    assert!(!said.status.success() && String::from_utf8_lossy(&said.stderr).contains("[dmarc-report]"), "{said:?}");
    server.stop();
    assert!(!data.join("reports.json").exists());
}
