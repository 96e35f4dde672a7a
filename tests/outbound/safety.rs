//! TLS with other domains' servers: MTA-STS, DANE, and what was seen before.

use std::io::Read as _;
use std::net::TcpListener;
use std::sync::atomic::Ordering;

use super::policies::Policies;
use super::sink::{certificate, config};
use super::*;

/// A server that gives this policy for these domains.
fn policies(domains: &[&str], policy: &str) -> Policies {
    let server = Policies::start(config());
    for domain in domains {
        server.says(domain, policy);
    }
    server
}

/// Settings for servers at `port`, with the sinks' authority trusted and `more` in `[tls-policy]`.
fn settings(dns: &dns::Dns, port: u16, more: &str) -> String {
    let anchors = dns.trust_anchors();
    let anchors = if anchors.exists() { format!("trust-anchors = \"{}\"\n", anchors.display()) } else { String::new() };
    format!(
        "[dns]\nservers = [\"{}\"]\ntimeout-secs = 2\n{anchors}[tls]\nauthorities = \"{}\"\n\
         [queue]\nport = {port}\nretry-min-secs = 1\nretry-max-secs = 1\n[tls-policy]\n{more}",
        dns.address(),
        authority().display()
    )
}

fn sink(place: &str, port: u16, tls: SinkTls) -> Sink {
    Sink::at(&format!("{place}:{port}"), Manner { tls, ..Manner::default() })
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap().port()
}

/// Waits until the mail in the queue is held up by something that sounds like `why`.
fn wait_for_reason(server: &Server, why: &str) {
    until(why, || server.queued().iter().any(|queued| queued.to_string().contains(why)));
}

#[test]
fn an_mta_sts_policy_is_fetched_kept_to_and_remembered() {
    let dns = dns::Dns::start();
    let port = free_port();
    let domains = ["sts.test", "plain.test", "stray.test"];
    let policies = policies(&domains, "version: STSv1\nmode: enforce\nmx: mx.sts.test\nmax_age: 86400\n");
    for domain in domains {
        dns.txt(&format!("_mta-sts.{domain}"), "v=STSv1; id=1;").a(&format!("mta-sts.{domain}"), "127.0.0.1");
    }
    dns.mx("sts.test", 10, "mx.sts.test").a("mx.sts.test", "127.0.0.2");
    // Its server is one that the policy names, and speaks no TLS.
    dns.mx("plain.test", 10, "mx.sts.test").mx("stray.test", 10, "mx.stray.test").a("mx.stray.test", "127.0.0.4");
    let good = sink("127.0.0.2", port, SinkTls::Good);
    let stray = sink("127.0.0.4", port, SinkTls::Good);
    let more = format!("mta-sts-port = {}\n", policies.address.port());
    let mut server = Server::start(&settings(&dns, port, &more));
    server.submit("ann@here.test", &["you@sts.test"], LETTER);
    assert!(good.wait_for(1)[0].tls);
    server.submit("ann@here.test", &["you@stray.test"], LETTER);
    wait_for_reason(&server, "mx.stray.test is not among the servers that the MTA-STS policy of stray.test names");
    assert!(stray.taken().is_empty());
    good.behave(|manner| manner.tls = SinkTls::None);
    server.submit("ann@here.test", &["you@plain.test"], LETTER);
    wait_for_reason(&server, "offers no TLS, and this mail may not go without");
    // The policy outlives the server that gave it, and ours.
    policies.silent.store(true, Ordering::SeqCst);
    let folder = server.folder.clone();
    server.stop();
    let again = Server::start_in(&folder, &settings(&dns, port, &more));
    again.submit("ann@here.test", &["again@sts.test"], LETTER);
    until("the mail waits", || again.queued().iter().any(|queued| queued.to_string().contains("again@sts.test")));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(good.taken().len(), 1, "mail went in clear");
    good.behave(|manner| manner.tls = SinkTls::Good);
    let taken = good.wait_for(2);
    assert!(taken.iter().all(|taken| taken.tls));
}

#[test]
fn a_policy_on_trial_is_no_hindrance() {
    let dns = dns::Dns::start();
    let port = free_port();
    let policies = policies(&["sts.test"], "version: STSv1\nmode: testing\nmx: other.test\nmax_age: 86400\n");
    dns.txt("_mta-sts.sts.test", "v=STSv1; id=1;").a("mta-sts.sts.test", "127.0.0.1");
    dns.mx("sts.test", 10, "mx.sts.test").a("mx.sts.test", "127.0.0.2");
    let sink = sink("127.0.0.2", port, SinkTls::None);
    let more = format!("mta-sts-port = {}\n", policies.address.port());
    let mut server = Server::start(&settings(&dns, port, &(more + REPORTS)));
    server.submit("ann@here.test", &["you@sts.test"], LETTER);
    assert!(!sink.wait_for(1)[0].tls);
    server.wait_until_sent();
    server.stop();
    let kept = std::fs::read_to_string(server.folder.join("data/reports.json")).unwrap();
    let kept: Value = serde_json::from_str(&kept).unwrap();
    let counted = &kept["present"]["tls"]["domains"]["sts.test"][0];
    assert_eq!(counted["policy"]["kind"], "sts");
    assert_eq!(counted["bad"][0][0], "starttls-not-supported");
}

#[test]
fn the_dns_tells_which_certificate_a_server_has() {
    let dns = dns::Dns::signed();
    let port = free_port();
    let tlsa = |host: &str, data: &[u8]| {
        dns.tlsa(&format!("_{port}._tcp.{host}"), 3, 0, 0, data);
    };
    for (domain, address) in [("good.test", "127.0.0.2"), ("wrong.test", "127.0.0.3"), ("clear.test", "127.0.0.4")] {
        dns.mx(domain, 10, &format!("mx.{domain}")).a(&format!("mx.{domain}"), address);
    }
    dns.mx("forged.test", 10, "mx.good.test").trouble("forged.test", None, dns::Trouble::Forged);
    dns.mx("free.test", 10, "mx.free.test").a("mx.free.test", "127.0.0.5");
    tlsa("mx.good.test", &certificate());
    tlsa("mx.wrong.test", b"another");
    tlsa("mx.clear.test", &certificate());
    let good = sink("127.0.0.2", port, SinkTls::Good);
    let wrong = sink("127.0.0.3", port, SinkTls::Good);
    let clear = sink("127.0.0.4", port, SinkTls::None);
    let free = sink("127.0.0.5", port, SinkTls::None);
    let server = Server::start(&settings(&dns, port, ""));
    for domain in ["good.test", "wrong.test", "clear.test", "forged.test", "free.test"] {
        server.submit("ann@here.test", &[&format!("you@{domain}")], LETTER);
    }
    assert!(good.wait_for(1)[0].tls);
    assert!(!free.wait_for(1)[0].tls, "no record, no demand");
    wait_for_reason(&server, "the server's certificate is not the one that the DNS tells (DANE)");
    wait_for_reason(&server, "offers no TLS, and this mail may not go without");
    wait_for_reason(&server, "what the DNS says of the certificate of mx.good.test (DANE) is forged or cannot be had");
    assert_eq!((good.taken().len(), wrong.taken().len(), clear.taken().len()), (1, 0, 0));
}

#[test]
fn where_dnssec_cannot_be_checked_mail_goes_all_the_same() {
    // This server signs nothing, and the anchors are the world's.
    let dns = dns::Dns::start();
    let port = free_port();
    dns.mx("good.test", 10, "mx.good.test").a("mx.good.test", "127.0.0.2");
    let sink = sink("127.0.0.2", port, SinkTls::Good);
    let server = Server::start(&settings(&dns, port, ""));
    server.submit("ann@here.test", &["you@good.test"], LETTER);
    assert!(sink.wait_for(1)[0].tls);
}

#[test]
fn a_server_that_gives_up_tls_finds_that_mail_waits() {
    let dns = dns::Dns::start();
    let port = free_port();
    dns.mx("fallen.test", 10, "mx.fallen.test").a("mx.fallen.test", "127.0.0.2");
    let sink = sink("127.0.0.2", port, SinkTls::Good);
    let mut server = Server::start(&settings(&dns, port, "dane = false\n"));
    server.submit("ann@here.test", &["you@fallen.test"], LETTER);
    assert!(sink.wait_for(1)[0].tls);
    sink.behave(|manner| manner.tls = SinkTls::None);
    server.submit("ann@here.test", &["you@fallen.test"], LETTER);
    wait_for_reason(&server, "offers no TLS, and this mail may not go without");
    assert!(server.log().contains("a server is less safe than it was"));
    assert_eq!(sink.taken().len(), 1);
    // The operator who does not want that waits for nothing.
    let folder = server.folder.clone();
    server.stop();
    let again = Server::start_in(&folder, &settings(&dns, port, "dane = false\ndowngrade-delay-hours = 0\n"));
    let taken = sink.wait_for(2);
    assert!(!taken[1].tls);
    again.wait_until_sent();
}

/// What a command about reports says.
fn report(server: &Server, words: &[&str]) -> Value {
    let data = server.folder.join("data");
    let said =
        pillarbox(&server.folder).args(["dmarc", "report", "--json"]).args(words).arg("--data").arg(data).output();
    let said = said.unwrap();
    serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"))
}

const REPORTS: &str = "[tls-report]\nsend = true\nfrom = \"postmaster@here.test\"\n";

#[test]
fn a_report_about_tls_gets_through_where_tls_does_not() {
    let dns = dns::Dns::start();
    let port = free_port();
    let policies = policies(&["sts.test"], "version: STSv1\nmode: enforce\nmx: mx.sts.test\nmax_age: 86400\n");
    dns.txt("_mta-sts.sts.test", "v=STSv1; id=1;").a("mta-sts.sts.test", "127.0.0.1");
    dns.mx("sts.test", 10, "mx.sts.test").a("mx.sts.test", "127.0.0.2");
    dns.txt("_smtp._tls.sts.test", "v=TLSRPTv1; rua=mailto:tls@sts.test");
    let sink = sink("127.0.0.2", port, SinkTls::None);
    let more = format!("mta-sts-port = {}\n{REPORTS}", policies.address.port());
    let server = Server::start(&settings(&dns, port, &more));
    let keys = pillarbox(&server.folder)
        .args(["dkim", "list", "here.test", "--data"])
        .arg(server.folder.join("data"))
        .output();
    assert!(keys.unwrap().status.success());
    server.submit("ann@here.test", &["you@sts.test"], LETTER);
    wait_for_reason(&server, "offers no TLS, and this mail may not go without");
    assert_eq!(report(&server, &["--now"])["sent"], 1);
    let taken = &sink.wait_for(1)[0];
    assert_eq!((taken.rcpt[0].as_str(), taken.tls), ("RCPT TO:<tls@sts.test>", false));
    assert!(taken.content.contains("DKIM-Signature: v=1; a=rsa-sha256;"), "{}", taken.content);
    let body = taken.content.split("\r\n\r\n").nth(3).unwrap().split("\r\n--").next().unwrap().replace("\r\n", "");
    let mut told = String::new();
    flate2::read::GzDecoder::new(&STANDARD.decode(body).unwrap()[..]).read_to_string(&mut told).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    let policy = &told["policies"][0];
    assert_eq!(
        (&policy["policy"]["policy-type"], &policy["policy"]["policy-domain"]),
        (&"sts".into(), &"sts.test".into())
    );
    assert_eq!(policy["failure-details"][0]["result-type"], "starttls-not-supported");
    assert!(policy["summary"]["total-failure-session-count"].as_u64().unwrap() > 0, "{told}");
    // The letter waits as before.
    assert!(server.queued().iter().any(|queued| queued.to_string().contains("you@sts.test")));
    assert_eq!(sink.taken().len(), 1);
}

#[test]
fn a_session_that_brings_a_report_about_tls_is_not_reported_about() {
    let dns = dns::Dns::start();
    let port = free_port();
    dns.mx("good.test", 10, "mx.good.test").a("mx.good.test", "127.0.0.2");
    dns.txt("_smtp._tls.good.test", "v=TLSRPTv1; rua=mailto:tls@good.test");
    let sink = sink("127.0.0.2", port, SinkTls::Good);
    let server = Server::start(&settings(&dns, port, REPORTS));
    server.submit("ann@here.test", &["you@good.test"], LETTER);
    sink.wait_for(1);
    server.wait_until_sent();
    until("the session is counted", || report(&server, &[])["growing"][0]["count"] == 1);
    assert_eq!(report(&server, &["--now"])["sent"], 1);
    let taken = &sink.wait_for(2)[1];
    assert!(taken.tls && taken.content.contains("TLS-Report-Domain: good.test"), "{taken:?}");
    server.wait_until_sent();
    assert_eq!(report(&server, &[])["growing"], Value::Array(Vec::new()));
}
