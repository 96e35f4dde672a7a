//! Two Pillarboxes that mail each other, through a DNS server and over real sockets: with MTA-STS policies as
//! `pillarbox dns` prints them, with DANE, and with mail that demands TLS all the way (RFC 8461, RFC 7672, RFC 8689).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[path = "support/dns.rs"]
mod dns;
#[path = "support/exchange.rs"]
mod exchange;
#[path = "support/policies.rs"]
mod policies;
#[path = "support/sink.rs"]
mod sink;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dns::Dns;
use exchange::{LETTER, Server, Setup, pillarbox, until};
use policies::Policies;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustix::process::Signal;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use sink::{Does, Manner, Sink, SinkTls};

/// An authority that both trust, and its file.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { issuer: Issuer::new(params, key), folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Writes a certificate for a server and its key, good until the end of a year.
    fn certify(&self, name: &str, until: i32) -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 12, 31));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let [file, secret] = ["crt", "key"].map(|end| self.folder.path().join(format!("{name}.{end}")));
        std::fs::write(&file, certificate.pem()).unwrap();
        std::fs::write(&secret, key.serialize_pem()).unwrap();
        (file, secret)
    }

    /// The settings of a server with a certificate for these names.
    fn config(&self, names: &[&str]) -> Arc<ServerConfig> {
        let names = names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key);
        Arc::new(config.unwrap())
    }
}

/// Where all servers of these tests take others' mail, each at an address of its own.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap().port()
}

/// A box for `a.test` or `b.test`, at 127.0.0.2 or 127.0.0.3, with `tls` and `policy` in the sections of these names.
fn twin(name: &str, dns: &Dns, port: u16, tls: &str, policy: &str) -> Server {
    let anchors = dns.trust_anchors();
    let anchors = if anchors.exists() { format!("trust-anchors = \"{}\"\n", anchors.display()) } else { String::new() };
    let settings = format!(
        "[dns]\nservers = [\"{}\"]\ntimeout-secs = 2\n{anchors}[tls]\n{tls}[tls-policy]\n{policy}\
         [queue]\nport = {port}\nretry-min-secs = 1\nretry-max-secs = 1\nconnections-per-destination-max = 1\n",
        dns.address()
    );
    let address = if name == "a" { "127.0.0.2" } else { "127.0.0.3" };
    let (domain, host) = (format!("{name}.test"), format!("mail.{name}.test"));
    dns.mx(&domain, 10, &host).a(&host, address);
    Server::set_up(&Setup::of(&domain, &host, &format!("{address}:{port}"), &settings))
}

/// What `pillarbox dns` has a domain publish.
fn published(server: &Server, domain: &str) -> Value {
    let said = pillarbox(&server.folder).args(["dns", domain, "--json", "--data"]).arg(server.data()).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    serde_json::from_slice(&said.stdout).unwrap()
}

/// The data of what is published for one purpose.
fn data<'v>(told: &'v Value, purpose: &str, kind: &str) -> &'v Value {
    let record = told["records"].as_array().unwrap().iter().find(|record| record["purpose"] == purpose);
    &record.unwrap_or_else(|| panic!("no {purpose} in {told}"))["data"][kind]
}

/// Waits until mail for `to` is held up by something that sounds like `why`.
fn wait_for_reason(server: &Server, to: &str, why: &str) {
    let waits = |row: &Value| {
        let said = row.to_string();
        said.contains(to) && said.contains(why)
    };
    until(&format!("{to}: {why}"), || server.queued().iter().any(waits));
}

fn order(server: &Server, words: &[&str]) {
    let said = pillarbox(&server.folder).args(words).arg("--data").arg(server.data()).output().unwrap();
    assert!(said.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said.stderr));
}

/// Tells whether the box that wrote the uppermost trace field took a message over TLS.
fn came_over_tls(message: &str) -> bool {
    let trace = message.split("Received: ").nth(1).unwrap();
    trace.split("\n\t").any(|line| line.contains("with ESMTPS")) && trace.contains("TLSv1.3")
}

#[test]
fn with_mta_sts_mail_goes_both_ways_over_verified_tls_and_never_otherwise() {
    let (dns, port, authority) = (Dns::start(), free_port(), Authority::new());
    let domains = ["a.test", "b.test", "stray.test"];
    let names = domains.map(|domain| format!("mta-sts.{domain}"));
    let policies = Policies::start(authority.config(&names.each_ref().map(String::as_str)));
    let start = |name: &str| {
        let (certificate, key) = authority.certify(&format!("mail.{name}.test"), 2099);
        let tls = format!(
            "certificate = \"{}\"\nkey = \"{}\"\nauthorities = \"{}\"\n",
            certificate.display(),
            key.display(),
            authority.file().display()
        );
        twin(name, &dns, port, &tls, &format!("mta-sts-port = {}\n", policies.address.port()))
    };
    let (one, other) = (start("a"), start("b"));
    for (server, domain) in [(&one, "a.test"), (&other, "b.test")] {
        let told = published(server, domain);
        let policy = told["mta-sts-policy"].as_str().unwrap();
        assert!(policy.contains("mode: testing\n"), "{policy}");
        policies.says(domain, &policy.replace("mode: testing", "mode: enforce"));
        dns.txt(&format!("_mta-sts.{domain}"), data(&told, "mta-sts", "txt").as_str().unwrap());
    }
    // A domain whose policy names another server than its MX.
    policies.says("stray.test", "version: STSv1\nmode: enforce\nmx: mail.elsewhere.test\nmax_age: 86400\n");
    dns.mx("stray.test", 10, "mail.b.test").txt("_mta-sts.stray.test", "v=STSv1; id=1;");
    order(&other, &["domain", "add", "stray.test"]);
    order(&other, &["alias", "add", "bob@stray.test", "bob@b.test"]);
    for domain in domains {
        dns.a(&format!("mta-sts.{domain}"), "127.0.0.1");
    }

    one.submit("ann@a.test", &["bob@b.test"], LETTER);
    other.submit("ann@b.test", &["bob@a.test"], LETTER);
    for (server, peer) in [(&one, "b.test"), (&other, "a.test")] {
        let came = &server.wait_for_mail("bob", 1)[0];
        assert!(came_over_tls(came), "{came}");
        assert!(server.log().contains(&format!("an MTA-STS policy was fetched domain=\"{peer}\" mode=Enforce")));
        server.wait_until_sent();
    }
    one.submit("ann@a.test", &["bob@stray.test"], LETTER);
    wait_for_reason(&one, "bob@stray.test", "mail.b.test is not among the servers that the MTA-STS policy of");

    authority.certify("mail.b.test", 2021);
    other.signal(Signal::HUP);
    until("the certificate is read", || other.log().matches("certificate loaded").count() >= 1);
    one.submit("ann@a.test", &["bob@b.test"], "Subject: second\n\nx\n");
    wait_for_reason(&one, "bob@b.test", "4.7.5 no TLS with mail.b.test: the server's certificate has expired");
    assert_eq!(other.inbox("bob").len(), 1, "mail went all the same");
    authority.certify("mail.b.test", 2099);
    other.signal(Signal::HUP);
    let came = &other.wait_for_mail("bob", 2)[1];
    assert!(came.contains("Subject: second") && came_over_tls(came), "{came}");
    assert_eq!(other.inbox("bob").len(), 2, "the other one waits yet");
}

/// Two boxes in a signed zone, each with the certificate that it made itself. They trust the sinks' authority.
fn twins_in_a_signed_zone(port: u16) -> (Dns, [Server; 2]) {
    let dns = Dns::signed();
    let trust = format!("authorities = \"{}\"\n", sink::authority().display());
    let servers = ["a", "b"].map(|name| twin(name, &dns, port, &trust, ""));
    for (server, name) in servers.iter().zip(["a", "b"]) {
        let told = published(server, &format!("{name}.test"));
        record(&dns, port, &format!("mail.{name}.test"), data(&told, "tlsa", "tlsa"), 0);
    }
    (dns, servers)
}

/// Puts what is printed for port 25 into the zone for the port of these tests, each byte with `flip`.
fn record(dns: &Dns, port: u16, host: &str, tlsa: &Value, flip: u8) {
    let number = |at: usize| u8::try_from(tlsa[at].as_u64().unwrap()).unwrap();
    let hex = tlsa[3].as_str().unwrap();
    let digest: Vec<u8> =
        (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap() ^ flip).collect();
    dns.tlsa(&format!("_{port}._tcp.{host}"), number(0), number(1), number(2), &digest);
}

#[test]
fn with_dane_the_record_that_is_printed_is_right_and_a_wrong_one_keeps_mail_waiting() {
    let port = free_port();
    let (dns, [one, other]) = twins_in_a_signed_zone(port);
    // The same server by another name, of whose key the zone says something else.
    dns.mx("wrong.test", 10, "mail.wrong.test").a("mail.wrong.test", "127.0.0.3");
    record(&dns, port, "mail.wrong.test", data(&published(&other, "b.test"), "tlsa", "tlsa"), 1);
    order(&other, &["domain", "add", "wrong.test"]);
    order(&other, &["alias", "add", "bob@wrong.test", "bob@b.test"]);

    one.submit("ann@a.test", &["bob@b.test"], LETTER);
    other.submit("ann@b.test", &["bob@a.test"], LETTER);
    one.submit("ann@a.test", &["bob@wrong.test"], "Subject: second\n\nx\n");
    for server in [&one, &other] {
        let came = &server.wait_for_mail("bob", 1)[0];
        assert!(came.contains("Subject: hello") && came_over_tls(came), "{came}");
    }
    wait_for_reason(&one, "bob@wrong.test", "the server's certificate is not the one that the DNS tells (DANE)");
    assert_eq!(other.inbox("bob").len(), 1, "mail went all the same");
    other.wait_until_sent();
}

/// A sink in the signed zone that proves its name, and speaks of REQUIRETLS or not.
fn proved_sink(dns: &Dns, domain: &str, address: &str, port: u16, extensions: Vec<&'static str>) -> Sink {
    let host = format!("mx.{domain}");
    dns.mx(domain, 10, &host).a(&host, address);
    dns.tlsa(&format!("_{port}._tcp.{host}"), 3, 0, 0, &sink::certificate());
    Sink::at(&format!("{address}:{port}"), Manner { tls: SinkTls::Good, extensions, ..Manner::default() })
}

#[test]
fn mail_that_demands_tls_all_the_way_demands_it_of_every_server_and_comes_back_from_where_it_is_not_promised() {
    let port = free_port();
    let (dns, [one, other]) = twins_in_a_signed_zone(port);
    let far = proved_sink(&dns, "far.test", "127.0.0.4", port, vec!["REQUIRETLS"]);
    let poor = proved_sink(&dns, "poor.test", "127.0.0.5", port, Vec::new());
    // One that proves its name, and then has no TLS.
    let bare = proved_sink(&dns, "bare.test", "127.0.0.7", port, vec!["REQUIRETLS"]);
    bare.behave(|manner| manner.tls = SinkTls::None);
    // Anybody could name the server of this one, which has a good certificate.
    dns.insecure("open.test").mx("open.test", 10, "mx.sts.test").a("mx.sts.test", "127.0.0.6");
    let open = Sink::at(
        &format!("127.0.0.6:{port}"),
        Manner { tls: SinkTls::Good, extensions: vec!["REQUIRETLS"], ..Manner::default() },
    );
    order(&other, &["alias", "add", "eve@b.test", "eve@far.test"]);
    order(&other, &["list", "add", "crew@b.test", "--owner", "ann@b.test", "--post", "anyone", "sam@far.test"]);

    // In clear it cannot be asked for.
    let mut wire = one.connect("submission");
    wire.expect("220");
    wire.say("EHLO laptop.test", "250");
    wire.log_in("ann@a.test");
    wire.say("MAIL FROM:<ann@a.test> REQUIRETLS", "530 5.7.10");

    one.submit_over_tls("ann@a.test REQUIRETLS", &["bob@b.test", "eve@b.test", "crew@b.test"], LETTER);
    assert!(came_over_tls(&other.wait_for_mail("bob", 1)[0]));
    let taken = far.wait_for(2);
    for (to, from) in [("eve@far.test", "SRS0="), ("sam@far.test", "crew-bounces@b.test")] {
        let taken = taken.iter().find(|taken| taken.rcpt[0].contains(to)).unwrap_or_else(|| panic!("{taken:?}"));
        assert!(taken.tls && taken.mail.contains(from) && taken.mail.ends_with(" REQUIRETLS"), "{taken:?}");
    }

    // What the next server cannot promise is told at once, and other mail to it goes.
    for to in ["sam@poor.test", "sam@open.test", "sam@bare.test"] {
        one.submit_over_tls("ann@a.test REQUIRETLS", &[to], LETTER);
    }
    one.submit("ann@a.test", &["eve@poor.test", "eve@open.test"], LETTER);
    for sink in [&poor, &open] {
        sink.wait_for(1);
    }
    // Nor does it go over a connection that is there for other mail.
    open.does(".", Does::Waits(Duration::from_secs(1)));
    one.submit("ann@a.test", &["eve@open.test"], LETTER);
    until("it is on its way", || open.connections() == 2);
    one.submit_over_tls("ann@a.test REQUIRETLS", &["kim@open.test"], LETTER);
    let told = one.wait_for_mail("ann", 4).concat();
    for (to, status) in [
        ("sam@poor.test", "5.7.30"),
        ("sam@open.test", "5.7.30"),
        ("kim@open.test", "5.7.30"),
        ("sam@bare.test", "5.7.10"),
    ] {
        let row = told.split("\n\n").find(|part| part.contains(&format!("Final-Recipient: rfc822; {to}\n")));
        assert!(row.is_some_and(|row| row.contains(&format!("Action: failed\nStatus: {status}\n"))), "{to}: {told}");
    }
    assert_eq!(bare.taken().len(), 0);
    one.wait_until_sent();
    for taken in poor.taken().iter().chain(&open.taken()) {
        assert!(taken.rcpt[0].contains("eve@"), "{taken:?}");
    }

    // A notification about such mail is no less confidential: it may be lost, and goes to nobody in clear.
    let mut wire = one.connect("smtp");
    wire.expect("220");
    wire.say("EHLO mx.far.test", "250");
    let mut wire = wire.start_tls(&one.ca());
    wire.say("EHLO mx.far.test", "250");
    order(&one, &["alias", "add", "sam@a.test", "sam@poor.test"]);
    wire.message("pat@far.test REQUIRETLS", &["sam@a.test"], LETTER);
    let back = &far.wait_for(3)[2];
    assert!(back.tls && back.mail.starts_with("MAIL FROM:<>") && back.mail.ends_with(" REQUIRETLS"), "{back:?}");
    wire.message("pat@poor.test REQUIRETLS", &["sam@a.test"], LETTER);
    one.wait_until_sent();
    assert_eq!(poor.taken().len(), 1, "{:?}", poor.taken());
}
