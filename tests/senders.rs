//! Checks on senders as other servers meet them: SMTP to a running server whose DNS is the test's.
//!
//! The messages are signed here, by the library's signer; those of `shared/vectors/dkim` are somebody's letters, so
//! they are read from beside the repository where they are, and are not in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use mail_auth::arc::ArcSealer;
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter as _;
use mail_auth::common::parse::TxtRecordParser as _;
use mail_auth::common::verify::DomainKey;
use mail_auth::dkim::{Canonicalization, DkimSigner};
use mail_auth::dmarc::Dmarc as Record;
use mail_auth::{ArcOutput, AuthenticatedMessage, AuthenticationResults};
use pillarbox::mail::authentication::{Findings, Policy, Verdict};
use pillarbox::mail::signed::SignedReader;
use pillarbox::net::authenticate::{Authenticator, SIGNATURES_MAX};
use pillarbox::net::resolver::{DnsConfig, Resolver};
use proptest::prelude::*;
use ring::signature::KeyPair as _;

#[path = "support/dns.rs"]
mod dns;

use dns::{Dns, Trouble};

/// A key, published for a domain.
struct Signer {
    seed: [u8; 32],
    domain: String,
}

impl Signer {
    fn publish(dns: &Dns, domain: &str) -> Self {
        let seed = [7; 32];
        let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let public = base64::engine::general_purpose::STANDARD.encode(pair.public_key().as_ref());
        dns.txt(&format!("s1._domainkey.{domain}"), &format!("v=DKIM1; k=ed25519; p={public}"));
        Self { seed, domain: domain.to_owned() }
    }

    /// The message with a signature before it.
    fn sign(&self, message: &str, body: Canonicalization) -> String {
        let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&self.seed).unwrap();
        let key = Ed25519Key::from_seed_and_public_key(&self.seed, pair.public_key().as_ref()).unwrap();
        let signer = DkimSigner::from_key(key)
            .domain(self.domain.clone())
            .selector("s1")
            .headers(["From", "To", "Subject"])
            .body_canonicalization(body);
        format!("{}{message}", signer.sign(message.as_bytes()).unwrap().to_header())
    }

    /// The message as a mailing list passes it on, sealed.
    fn seal(&self, message: &str) -> String {
        let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&self.seed).unwrap();
        let key = Ed25519Key::from_seed_and_public_key(&self.seed, pair.public_key().as_ref()).unwrap();
        let read = AuthenticatedMessage::parse(message.as_bytes()).unwrap();
        let results = AuthenticationResults::new("list.test");
        let sealer = ArcSealer::from_key(key).domain(self.domain.clone()).selector("s1").headers(["From", "Subject"]);
        format!("{}{message}", sealer.seal(&read, &results, &ArcOutput::default()).unwrap().to_header())
    }
}

fn letter(from: &str, body: &str) -> String {
    format!("From: Someone <{from}>\r\nTo: ann@here.test\r\nSubject: hello\r\n\r\n{body}")
}

fn findings(dns: &Dns, ip: &str, from: &str, message: &str) -> Findings {
    let config = DnsConfig { servers: vec![dns.address()], timeout_secs: 1, ..DnsConfig::default() };
    let checks = Authenticator::new(Resolver::new(&config).unwrap(), Arc::from("here.test")).unwrap();
    let mut reader = SignedReader::default();
    for piece in message.as_bytes().chunks(1000) {
        reader.feed(piece);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(checks.findings(ip.parse().unwrap(), "mx.sender.test", from, &reader.finish()))
}

fn dkim(dns: &Dns, message: &str) -> Vec<Verdict> {
    findings(dns, "192.0.2.1", "", message).dkim.into_iter().map(|one| one.verdict).collect()
}

/// Runs a command of the program's on a data folder.
fn pillarbox(data: &Path, args: &[&str], input: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pillarbox"))
        .args(args)
        .arg("--data")
        .arg(data)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// A running server with accounts ann@here.test and bob@here.test, which checks everybody.
struct Post {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
    /// Where users submit.
    submission: u16,
}

impl Post {
    fn start(dns: Option<&Dns>, senders: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (port, submission) = (free(), free());
        let servers = dns.map_or_else(|| "127.0.0.1:1".to_owned(), |dns| dns.address().to_string());
        let text = format!(
            "data = \"{0}/data\"\nhostname = \"here.test\"\nallow-root = true\n\
             auth-in-clear-on-loopback = true\n[listen]\nsmtp = [\"127.0.0.1:{port}\"]\n\
             submission = [\"127.0.0.1:{submission}\"]\nsubmissions = []\nimap = []\nimaps = []\npop3 = []\npop3s = []\n[dns]\nservers = \
             [\"{servers}\"]\ntimeout-secs = 1\n[store]\nallow-ram = true\n[senders]\ntrusted = []\n{senders}",
            folder.path().display()
        );
        std::fs::write(folder.path().join("box.toml"), text).unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        pillarbox(&data, &["account", "add", "ann@here.test", "--password-stdin"], "correct horse battery\n");
        pillarbox(&data, &["alias", "add", "postmaster@here.test", "ann@here.test"], "");
        Self { child: Self::serve(folder.path(), port), folder, port, submission }
    }

    fn serve(folder: &Path, port: u16) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_pillarbox"))
            .args(["--log-level", "debug", "serve", "--config"])
            .arg(folder.join("box.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(since.elapsed() < Duration::from_secs(20), "does not listen: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        child
    }

    fn restart(&mut self) {
        self.stop();
        self.child = Self::serve(self.folder.path(), self.port);
    }

    fn stop(&mut self) {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        self.child.wait().unwrap();
    }

    /// Has ann write to somebody.
    fn write_to(&self, to: &str) {
        let login = base64::engine::general_purpose::STANDARD.encode("\0ann@here.test\0correct horse battery");
        let stream = TcpStream::connect(("127.0.0.1", self.submission)).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut said = String::new();
        reader.read_line(&mut said).unwrap();
        let lines = ["EHLO laptop".to_owned(), format!("AUTH PLAIN {login}"), "MAIL FROM:<ann@here.test>".to_owned()];
        let rest = [format!("RCPT TO:<{to}>"), "DATA".to_owned(), "Subject: hello\r\n\r\nhow are you\r\n.".to_owned()];
        for line in lines.iter().chain(&rest) {
            (&stream).write_all(format!("{line}\r\n").as_bytes()).unwrap();
            said.clear();
            while said.get(3..4) != Some(" ") {
                said.clear();
                reader.read_line(&mut said).unwrap();
            }
            assert!(said.starts_with(['2', '3']), "{line}: {said}");
        }
    }

    /// Sends a message; the reply that refuses it, or the last.
    fn send(&self, helo: &str, from: &str, message: &str) -> String {
        self.send_to("ann@here.test", helo, from, message)
    }

    fn send_to(&self, to: &str, helo: &str, from: &str, message: &str) -> String {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        let mut reply = || loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if line.get(3..4) != Some("-") {
                return line.trim_end().to_owned();
            }
        };
        assert!(reply().starts_with("220 "));
        for command in
            [format!("EHLO {helo}"), format!("MAIL FROM:<{from}>"), format!("RCPT TO:<{to}>"), "DATA".to_owned()]
        {
            writer.write_all(format!("{command}\r\n").as_bytes()).unwrap();
            let said = reply();
            if !said.starts_with(['2', '3']) {
                return said;
            }
        }
        writer.write_all(message.replace("\r\n.", "\r\n..").as_bytes()).unwrap();
        writer.write_all(b"\r\n.\r\n").unwrap();
        reply()
    }

    /// What is in a mailbox of ann's, whole. The server is stopped for that and started again.
    fn kept(&mut self, mailbox: &str) -> Vec<String> {
        self.stop();
        let out = self.folder.path().join(format!("out-{}", std::fs::read_dir(self.folder.path()).unwrap().count()));
        let data = self.folder.path().join("data");
        pillarbox(&data, &["export", "--account", "ann@here.test", "--format", "maildir", out.to_str().unwrap()], "");
        self.child = Self::serve(self.folder.path(), self.port);
        let folder = if mailbox == "INBOX" { out } else { out.join(format!(".{mailbox}")) };
        let mut letters = Vec::new();
        for place in ["cur", "new"] {
            let Ok(entries) = std::fs::read_dir(folder.join(place)) else { continue };
            letters.extend(entries.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()));
        }
        letters
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("log:\n{}", std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
        }
    }
}

/// The Authentication-Results of a letter, unfolded.
fn results(letter: &str) -> String {
    let header = letter.replace("\r\n", "\n").split("\n\n").next().unwrap().replace("\n\t", " ").replace("\n ", " ");
    let fields: Vec<&str> = header.lines().filter(|line| line.starts_with("Authentication-Results:")).collect();
    assert!(fields.len() <= 1, "{fields:?}");
    fields.first().map_or(String::new(), |field| field.split_whitespace().collect::<Vec<_>>().join(" "))
}

#[test]
fn a_signature_stands_until_something_is_changed() {
    let dns = Dns::start();
    let signer = Signer::publish(&dns, "sender.test");
    let plain = letter("a@sender.test", "Hello  Ann, \r\n\r\n.\r\n \t\r\n\r\n");
    for form in [Canonicalization::Simple, Canonicalization::Relaxed] {
        // The library's own signer keeps blank lines at the end of relaxed bodies, which is wrong (its issue 62).
        let plain = if form == Canonicalization::Relaxed { plain.replace(" \t\r\n\r\n", "") } else { plain.clone() };
        let message = signer.sign(&plain, form);
        assert_eq!(dkim(&dns, &message), [Verdict::Pass], "{form:?}");
        assert_eq!(dkim(&dns, &message.replace("Ann,", "Bob,")), [Verdict::Fail], "the body, {form:?}");
        assert_eq!(dkim(&dns, &message.replace("Subject: hello", "Subject: hullo")), [Verdict::Fail], "{form:?}");
        assert_eq!(dkim(&dns, &message.replace("s=s1", "s=s2")), [Verdict::PermError], "no key, {form:?}");
        let more_lines = format!("{message}\r\n\r\n");
        assert_eq!(dkim(&dns, &more_lines), [Verdict::Pass], "empty lines at the end, {form:?}");
    }
    let relaxed = signer.sign(&letter("a@sender.test", "Hello Ann\r\n"), Canonicalization::Relaxed);
    assert_eq!(dkim(&dns, &relaxed.replace("Hello Ann", "Hello \t Ann \t")), [Verdict::Pass]);
    assert_eq!(dkim(&dns, &format!("{relaxed} \t\r\n\t\r\n")), [Verdict::Pass], "lines of blanks do not count");
    assert_eq!(dkim(&dns, &letter("a@sender.test", "x")), []);
}

#[test]
fn what_proves_nothing_is_named() {
    let dns = Dns::start();
    let signer = Signer::publish(&dns, "sender.test");
    let good = signer.sign(&letter("a@sender.test", "Hello\r\n"), Canonicalization::Relaxed);
    let reason = |message: &str| {
        let found = findings(&dns, "192.0.2.1", "", message);
        assert_eq!(found.dkim.len(), 1, "{:?}", found.dkim);
        (found.dkim[0].verdict, found.dkim[0].reason.clone())
    };
    let old = reason(&good.replace("a=ed25519-sha256", "a=rsa-sha1"));
    assert!(old.0 == Verdict::PermError && old.1.contains("SHA-1"), "{old:?}");
    let part = reason(&good.replace("s=s1;", "s=s1; l=3;"));
    assert!(part.0 == Verdict::PermError && part.1.contains("l="), "{part:?}");
    let bare = reason(&good.replace("To:From;", "To:Date;"));
    assert!(bare.0 == Verdict::PermError && bare.1.contains("From"), "{bare:?}");
    let expired = reason(&good.replace("s=s1;", "s=s1; t=100; x=200;"));
    assert!(expired.0 == Verdict::Fail && expired.1.contains("expired"), "{expired:?}");
}

#[test]
fn a_thousand_signatures_cost_what_eight_do() {
    let dns = Dns::start();
    let signer = Signer::publish(&dns, "sender.test");
    let plain = letter("a@sender.test", "Hello\r\n");
    let good = signer.sign(&plain, Canonicalization::Relaxed);
    let one = good.strip_suffix(&plain).unwrap();
    let mut many = String::new();
    for number in 0..1000 {
        many.push_str(&one.replace("sender.test", &format!("d{number}.other.test")));
        if many.len() > 50_000 {
            break;
        }
    }
    // Signatures of From's own domain are looked at first, wherever they stand.
    let found = findings(&dns, "192.0.2.1", "", &format!("{many}{good}"));
    assert!(found.dkim.len() <= 2 * SIGNATURES_MAX, "{}", found.dkim.len());
    assert!(found.dkim.iter().any(|one| one.verdict == Verdict::Pass));
    assert!(dns.asked().len() < 40, "{}", dns.asked().len());
    // And a header that never ends is not looked at.
    let endless = format!("{}{good}", "X: y\r\n".repeat(20_000));
    let found = findings(&dns, "192.0.2.1", "", &endless);
    assert!(found.dkim.is_empty() && found.dmarc.verdict == Verdict::PermError);
}

#[test]
fn broken_and_enormous_answers_are_no_proof() {
    let dns = Dns::start();
    let signer = Signer::publish(&dns, "sender.test");
    let good = signer.sign(&letter("a@sender.test", "Hello\r\n"), Canonicalization::Relaxed);
    let name = "s1._domainkey.sender.test";
    for text in
        ["", "v=DKIM1; p=", "v=DKIM1; k=rsa; p=AAAA", "v=DKIM1; k=ed25519; p=////", "p=MIIB; p=MIIB", "v=DKIM1; p=MP8="]
    {
        dns.clear(name).txt(name, text);
        let found = dkim(&dns, &good);
        assert!(matches!(found[..], [Verdict::PermError | Verdict::Fail]), "{text}: {found:?}");
    }
    for der in 0..200_u8 {
        // Lengths and tags that lie.
        let bytes: Vec<u8> =
            (0..der % 17).map(|at| der.wrapping_mul(31).wrapping_add(at.wrapping_mul(97)) | 0x20).collect();
        let key = base64::engine::general_purpose::STANDARD.encode([&[0x30, der][..], &bytes].concat());
        dns.clear(name).txt(name, &format!("v=DKIM1; k=rsa; p={key}"));
        assert!(!dkim(&dns, &good.replace("a=ed25519-sha256", "a=rsa-sha256")).contains(&Verdict::Pass));
    }
    dns.clear(name).txt(name, &format!("v=DKIM1; k=rsa; p={}", "A".repeat(60_000)));
    assert_eq!(dkim(&dns, &good), [Verdict::PermError]);
    dns.clear(name).trouble(name, None, Trouble::Garbage(vec![0xc0; 200]));
    assert_eq!(dkim(&dns, &good), [Verdict::TempError]);
}

#[test]
fn dmarc_looks_for_alignment_and_the_policy_that_holds() {
    let dns = Dns::start();
    let signer = Signer::publish(&dns, "mail.sender.test");
    dns.txt("_dmarc.sender.test", "v=DMARC1; p=reject; sp=quarantine; rua=mailto:reports@sender.test");
    dns.txt("bounce.sender.test", "v=spf1 ip4:192.0.2.1 -all").txt("other.test", "v=spf1 ip4:192.0.2.1 -all");
    dns.a("news.sender.test", "192.0.2.9");
    let of = |from: &str, ip: &str, mail_from: &str| findings(&dns, ip, mail_from, &letter(from, "x\r\n")).dmarc;
    let pass = of("a@sender.test", "192.0.2.1", "x@bounce.sender.test");
    assert_eq!((pass.verdict, pass.by_spf, pass.by_dkim), (Verdict::Pass, true, false));
    let published = pass.published.unwrap();
    assert_eq!(
        (published.domain.as_str(), published.policy, published.below),
        ("sender.test", Policy::Reject, Policy::Quarantine)
    );
    assert_eq!(published.reports_to[0].address, "reports@sender.test");
    let fail = of("a@sender.test", "192.0.2.1", "x@other.test");
    assert_eq!((fail.verdict, fail.policy.word()), (Verdict::Fail, "reject"));
    let below = of("a@news.sender.test", "192.0.2.1", "x@other.test");
    assert_eq!((below.verdict, below.policy.word()), (Verdict::Fail, "quarantine"));
    assert_eq!(of("a@nowhere.test", "192.0.2.1", "x@other.test").verdict, Verdict::None);
    let message = signer.sign(&letter("a@sender.test", "x\r\n"), Canonicalization::Relaxed);
    let found = findings(&dns, "192.0.2.7", "x@other.test", &message);
    assert_eq!((found.dmarc.verdict, found.dmarc.by_dkim), (Verdict::Pass, true));
    // Two From fields, of which every reader shows another one, and none.
    let two = format!("From: b@other.test\r\n{}", letter("a@sender.test", "x\r\n"));
    assert_eq!(findings(&dns, "192.0.2.1", "", &two).dmarc.verdict, Verdict::PermError);
    assert_eq!(findings(&dns, "192.0.2.1", "", "To: x@y.test\r\n\r\nx\r\n").dmarc.verdict, Verdict::PermError);
    // A name that does not exist has a policy of its own.
    dns.clear("_dmarc.sender.test").txt("_dmarc.sender.test", "v=DMARC1; p=none; sp=none; np=reject");
    assert_eq!(of("a@ghost.sender.test", "192.0.2.1", "x@other.test").policy.word(), "reject");
    assert_eq!(of("a@news.sender.test", "192.0.2.1", "x@other.test").policy.word(), "none");
    // Two records are none.
    dns.txt("_dmarc.sender.test", "v=DMARC1; p=reject");
    assert_eq!(of("a@sender.test", "192.0.2.1", "x@other.test").verdict, Verdict::None);
    dns.trouble("_dmarc.sender.test", None, Trouble::Silence);
    assert_eq!(of("a@sender.test", "192.0.2.1", "x@other.test").verdict, Verdict::TempError);
}

#[test]
fn a_seal_holds_until_something_is_changed_and_chains_have_a_bound() {
    let dns = Dns::start();
    let list = Signer::publish(&dns, "list.test");
    let sealed = list.seal(&letter("a@sender.test", "Hello\r\n"));
    let arc = |message: &str| findings(&dns, "192.0.2.1", "", message).arc;
    let good = arc(&sealed);
    assert_eq!((good.verdict, good.domain.as_str(), good.sets), (Verdict::Pass, "list.test", 1), "{}", good.reason);
    assert_eq!(arc(&sealed.replace("Hello", "Hullo")).verdict, Verdict::Fail);
    assert_eq!(arc(&sealed.replace("Subject: hello", "Subject: hullo")).verdict, Verdict::Fail);
    assert_eq!(arc(&letter("a@sender.test", "x")).verdict, Verdict::None);
    let many = sealed.strip_suffix(&letter("a@sender.test", "Hello\r\n")).unwrap().repeat(40);
    let asked = dns.asked().len();
    assert_eq!(arc(&format!("{many}{sealed}")).verdict, Verdict::PermError);
    assert!(dns.asked().len() - asked < 10);
    let half = &sealed[sealed.find("ARC-Message-Signature").unwrap()..];
    assert!(matches!(arc(half).verdict, Verdict::Fail | Verdict::PermError));
}

#[test]
fn mail_through_a_list_that_is_trusted_is_taken() {
    let dns = Dns::start();
    let (list, bank) = (Signer::publish(&dns, "list.test"), Signer::publish(&dns, "bank.test"));
    dns.txt("_dmarc.bank.test", "v=DMARC1; p=reject");
    let original = bank.sign(&letter("a@bank.test", "Hello\r\n"), Canonicalization::Relaxed);
    let passed_on = list.seal(&original.replace("Subject: hello", "Subject: [list] hello"));
    let server = Post::start(Some(&dns), "");
    assert!(server.send("mx.list.test", "list@list.test", &passed_on).starts_with("550 5.7.1 "));
    let mut server = Post::start(Some(&dns), "arc-trusted = [\"list.test\"]\n");
    assert!(server.send("mx.list.test", "list@list.test", &passed_on).starts_with("250 "));
    let kept = results(&server.kept("INBOX")[0]);
    assert!(kept.contains("dmarc=fail") && kept.contains("arc=pass (sealed by list.test)"), "{kept}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    // The library reads what strangers publish and send, and a panic would end the server.
    #[test]
    fn no_record_makes_the_library_panic(
        tags in prop::collection::vec("(v|k|p|h|s|t|n|g|fo|rua|ruf|pct|sp|np|psd|adkim|aspf)=[ -~]{0,30}", 0..6),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        for head in ["v=DKIM1; ", "v=DMARC1; ", "v=DMARC1; p=reject; ", ""] {
            let text = format!("{head}{}", tags.join("; "));
            let _ = DomainKey::parse(text.as_bytes());
            let _ = Record::parse(text.as_bytes());
        }
        let _ = DomainKey::parse(&bytes);
        let _ = Record::parse(&bytes);
        let der = base64::engine::general_purpose::STANDARD.encode([&[0x30][..], &bytes].concat());
        for kind in ["rsa", "ed25519"] {
            if let Ok(key) = DomainKey::parse(format!("v=DKIM1; k={kind}; p={der}").as_bytes()) {
                let _ = key.p.public_key_bits();
                let fields = vec![(&b"From"[..], &b" a@b\r\n"[..])];
                let _ = key.p.verify(&mut fields.into_iter(), &bytes, Canonicalization::Relaxed, mail_auth::common::crypto::Algorithm::RsaSha256);
            }
        }
    }

    #[test]
    fn no_header_makes_the_checks_panic(
        tags in prop::collection::vec("(v|a|b|bh|c|d|h|i|l|s|t|x|z|cv|q)=(1|rsa-sha256|relaxed/simple|[ -~]{0,20}|99999999999999999999)", 0..9),
        names in prop::collection::vec(prop::sample::select(vec!["DKIM-Signature", "ARC-Seal", "ARC-Message-Signature", "ARC-Authentication-Results", "From", "Message-Instance", "DKIM2-Signature"]), 1..6),
        noise in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut message = Vec::new();
        for name in &names {
            message.extend_from_slice(format!("{name}: {}\r\n", tags.join("; ")).as_bytes());
        }
        message.extend_from_slice(&noise);
        message.extend_from_slice(b"\r\n\r\nbody\r\n");
        QUIET.with(|(runtime, checks)| {
            let mut reader = SignedReader::default();
            reader.feed(&message);
            runtime.block_on(checks.findings("192.0.2.1".parse().unwrap(), "x.test", "", &reader.finish()));
        });
    }
}

thread_local! {
    /// Checks whose DNS is nowhere, so that nothing is waited for.
    static QUIET: (tokio::runtime::Runtime, Authenticator) = {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let config = DnsConfig { servers: vec!["127.0.0.1:1".parse().unwrap()], timeout_secs: 1, ..DnsConfig::default() };
        let checks = Authenticator::new(Resolver::new(&config).unwrap(), Arc::from("here.test")).unwrap();
        (runtime, checks)
    };
}

#[test]
fn the_shared_messages_are_judged_as_they_should() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|up| up.join("shared/vectors/dkim"));
    let Some(folder) = folder.into_iter().find(|folder| folder.join("keys.yml").exists()) else {
        let _ = writeln!(std::io::stderr(), "SKIPPED the shared DKIM messages: shared/vectors/dkim is not there");
        return;
    };
    let keys = std::fs::read_to_string(folder.join("keys.yml")).unwrap();
    let dns = Dns::start();
    let mut name = String::new();
    let (mut key, mut allowed) = (String::new(), std::collections::BTreeMap::<String, Vec<String>>::new());
    let mut part = "";
    // Two levels of a mapping, values folded or in a list: all that the file has.
    for line in keys.lines().chain(["  end: end"]) {
        match line {
            "dns:" | "messages:" => part = line,
            _ if line.starts_with("  - ") => allowed.get_mut(&name).unwrap().push(line[4..].trim().to_owned()),
            _ if line.starts_with("    ") => key.push_str(line.trim()),
            _ => {
                if part == "dns:" || !key.is_empty() {
                    if !key.is_empty() {
                        dns.txt(&name, &key);
                    }
                    key.clear();
                }
                let (left, right) = line.trim().split_once(':').unwrap();
                left.clone_into(&mut name);
                if part == "dns:" {
                    right.trim().clone_into(&mut key);
                } else {
                    let right = right.trim();
                    allowed.insert(
                        name.clone(),
                        Some(right.to_owned()).filter(|one| !one.is_empty()).into_iter().collect(),
                    );
                }
            }
        }
    }
    allowed.remove("end");
    let mut wrong = Vec::new();
    for (file, allowed) in &allowed {
        let (number, change) = file.strip_suffix(".eml").unwrap().split_once('-').unwrap();
        let original = std::fs::read_to_string(folder.join(format!("{number}-ok.eml"))).unwrap();
        let (header, body) = original.split_once("\r\n\r\n").unwrap();
        let silent = Dns::start();
        let (message, dns) = match change {
            "ok" => (original.clone(), &dns),
            "body-changed" => (format!("{header}\r\n\r\nX{body}"), &dns),
            "subject-changed" => (original.replacen("\r\nSubject: ", "\r\nSubject: changed ", 1), &dns),
            "extra-from" => (format!("From: else@where.test\r\n{original}"), &dns),
            "folded-again" => (original.replacen("Subject: ", "Subject:\r\n ", 1), &dns),
            "no-key" => (original.clone(), &silent),
            "sig-octet" => {
                let at = original
                    .find("b=")
                    .map(|at| original[at..].find("bh=").map_or(at, |_| original.rfind(" b=").unwrap_or(at) + 1))
                    .unwrap();
                let mut bytes = original.clone().into_bytes();
                bytes[at + 4] = if bytes[at + 4] == b'A' { b'B' } else { b'A' };
                (String::from_utf8(bytes).unwrap(), &dns)
            }
            other => panic!("{other}"),
        };
        let found = findings(dns, "192.0.2.1", "", &message).dkim;
        let best = ["pass", "fail", "permerror", "neutral"].into_iter();
        let best = best.clone().find(|word| found.iter().any(|one| one.verdict.word() == *word)).unwrap_or("none");
        // Of two signatures one may stand whatever happens to the other.
        if !allowed.iter().any(|word| word == best) && change != "sig-octet" {
            wrong.push(format!("{file}: {best}, wanted {allowed:?}: {found:?}"));
        }
    }
    assert!(allowed.len() > 30 && wrong.is_empty(), "{} messages, wrong: {wrong:#?}", allowed.len());
}

#[test]
fn mail_is_kept_with_one_field_that_says_what_was_found() {
    let dns = Dns::start();
    let signer = Signer::publish(&dns, "sender.test");
    dns.txt("sender.test", "v=spf1 ip4:127.0.0.1 -all").txt("_dmarc.sender.test", "v=DMARC1; p=reject");
    let mut server = Post::start(Some(&dns), "");
    let forged = "Authentication-Results: here.test; dmarc=pass\r\nAuthentication-Results: HERE.test\r\n ; spf=pass\r\n\
                  Authentication-Results: other.test; spf=pass\r\n";
    let message =
        format!("{forged}{}", signer.sign(&letter("a@sender.test", "Hello Ann\r\n"), Canonicalization::Relaxed));
    assert!(server.send("mx.sender.test", "a@sender.test", &message).starts_with("250 "));
    let kept = server.kept("INBOX");
    assert_eq!(kept.len(), 1);
    let others = kept[0].matches("other.test; spf=pass").count();
    let found = results(&kept[0].replace("Authentication-Results: other.test", "X-Other"));
    assert_eq!(others, 1, "{}", kept[0]);
    assert!(
        found.starts_with("Authentication-Results: here.test; spf=pass smtp.mailfrom=sender.test; dkim=pass"),
        "{found}"
    );
    assert!(found.contains("dmarc=pass (p=reject) header.from=sender.test"), "{found}");
    assert!(kept[0].contains("From is authenticated"), "the spam filter's reasons: {}", kept[0]);
}

#[test]
fn forged_mail_is_refused_or_junk_as_its_domain_wants() {
    let dns = Dns::start();
    let signer = Signer::publish(&dns, "bank.test");
    dns.txt("_dmarc.bank.test", "v=DMARC1; p=reject").txt("_dmarc.shop.test", "v=DMARC1; p=quarantine");
    dns.txt("strict.test", "v=spf1 -all").txt("evil.test", "v=spf1 ip4:127.0.0.1 -all");
    let mut server = Post::start(Some(&dns), "spf-fail = \"reject\"\n");
    let refused = server.send("mx.evil.test", "a@evil.test", &letter("a@bank.test", "Hello\r\n"));
    assert!(refused.starts_with("550 5.7.1 ") && refused.contains("DMARC p=reject"), "{refused}");
    let altered = signer.sign(&letter("a@bank.test", "Hello\r\n"), Canonicalization::Relaxed).replace("Hello", "Hullo");
    let refused = server.send("mx.evil.test", "a@evil.test", &altered);
    assert!(refused.starts_with("550 5.7.1 "), "{refused}");
    assert!(server.send("mx.evil.test", "a@evil.test", &letter("a@shop.test", "Hello\r\n")).starts_with("250 "));
    let refused = server.send("mx.evil.test", "a@strict.test", &letter("a@strict.test", "Hello\r\n"));
    assert!(refused.starts_with("550 5.7.1 ") && refused.contains("SPF"), "{refused}");
    assert_eq!((server.kept("INBOX").len(), server.kept("Junk").len()), (0, 1));
    assert!(results(&server.kept("Junk")[0]).contains("dmarc=fail (p=quarantine)"));
}

#[test]
fn a_long_body_is_compared_at_its_end() {
    let dns = Dns::start();
    let signer = Signer::publish(&dns, "sender.test");
    dns.txt("evil.test", "v=spf1 ip4:127.0.0.1 -all").txt("_dmarc.sender.test", "v=DMARC1; p=none");
    let mut server = Post::start(Some(&dns), "");
    let long = "All work and no play makes Jack a dull boy.\r\n".repeat(40_000);
    let good = signer.sign(&letter("a@sender.test", &long), Canonicalization::Relaxed);
    assert!(server.send("mx.evil.test", "a@evil.test", &good).starts_with("250 "));
    let kept = server.kept("INBOX").remove(0);
    assert!(results(&kept).contains("dkim=pass") && results(&kept).contains("dmarc=pass"), "{}", results(&kept));
    // The field was written before the end was there, and is written anew.
    let altered = format!("{good}and more\r\n");
    assert!(server.send("mx.evil.test", "a@evil.test", &altered).starts_with("250 "));
    let all = server.kept("INBOX");
    let kept = all.iter().find(|letter| letter.contains("and more")).unwrap();
    assert!(results(kept).contains("dkim=fail") && results(kept).contains("dmarc=fail"), "{}", results(kept));
    assert!(kept.contains("X-Spam-Status:") && kept.len() > long.len() - 40_000);
    dns.clear("_dmarc.sender.test").txt("_dmarc.sender.test", "v=DMARC1; p=reject");
    let server = Post::start(Some(&dns), "");
    assert!(server.send("mx.evil.test", "a@evil.test", &good).starts_with("250 "));
    assert!(server.send("mx.evil.test", "a@evil.test", &altered).starts_with("550 5.7.1 "));
}

#[test]
fn without_dns_mail_is_taken_as_if_nobody_had_looked() {
    let mut server = Post::start(None, "spf-fail = \"reject\"\nblock-lists = [\"bl.test\"]\n");
    let since = Instant::now();
    for number in 0..20 {
        let said = server.send("friend", &format!("a@bank{number}.test"), &letter("a@bank.test", "Hello\r\n"));
        assert!(said.starts_with("250 "), "{said}");
    }
    // One time-out for the first, none for the others.
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    let kept = server.kept("INBOX");
    assert_eq!(kept.len(), 20);
    for letter in &kept {
        assert_eq!(results(letter), "Authentication-Results: here.test; none");
        assert!(!letter.contains("(SPF)") && !letter.contains("(DMARC)"), "{letter}");
    }
}

#[test]
fn lists_are_asked_once_for_a_connection_and_postmaster_hears_all() {
    let dns = Dns::start();
    dns.a("1.0.0.127.bl.test", "127.0.0.2").a("1.0.0.127.odd.test", "127.255.255.254");
    let server = Post::start(Some(&dns), "block-lists = [\"odd.test\", \"bl.test\"]\n");
    let refused = server.send("mx.sender.test", "a@sender.test", &letter("a@sender.test", "Hello\r\n"));
    assert!(refused.starts_with("550 5.7.1 ") && refused.contains("bl.test"), "{refused}");
    let letter_to_us = letter("a@sender.test", "why am I listed?\r\n");
    let said = server.send_to("postmaster@here.test", "mx.sender.test", "a@sender.test", &letter_to_us);
    assert!(said.starts_with("250 "), "{said}");
    let server = Post::start(Some(&dns), "block-lists = [\"odd.test\"]\n");
    assert!(server.send("mx.sender.test", "a@sender.test", &letter("a@sender.test", "x\r\n")).starts_with("250 "));
    dns.a("1.0.0.127.wl.test", "127.0.0.1");
    let server = Post::start(Some(&dns), "block-lists = [\"bl.test\"]\nallow-lists = [\"wl.test\"]\n");
    assert!(server.send("mx.sender.test", "a@sender.test", &letter("a@sender.test", "x\r\n")).starts_with("250 "));
}

#[test]
fn greylisting_and_rates_ask_to_come_again() {
    let dns = Dns::start();
    let mut server = Post::start(Some(&dns), "greylist-secs = 1\naddress-messages-per-hour = 6\n");
    let send = |server: &Post, from: &str| server.send("mx.sender.test", from, &letter("a@sender.test", "Hello\r\n"));
    let said = send(&server, "a@sender.test");
    assert!(said.starts_with("451 4.7.1 ") && said.contains("greylisting"), "{said}");
    std::thread::sleep(Duration::from_millis(2100));
    assert!(send(&server, "a@sender.test").starts_with("250 "));
    server.restart();
    assert!(send(&server, "a@sender.test").starts_with("250 "), "known after a restart");
    assert!(send(&server, "b@sender.test").starts_with("451 "));
    for _ in 0..4 {
        assert!(send(&server, "a@sender.test").starts_with("250 "));
    }
    let said = send(&server, "a@sender.test");
    assert!(said.starts_with("450 4.7.1 "), "{said}");
}

#[test]
fn whoever_a_user_has_written_to_need_not_come_again_unless_he_is_posed_as() {
    let dns = Dns::start();
    dns.txt("friend.test", "v=spf1 ip4:127.0.0.1 -all").txt("posed.test", "v=spf1 -all");
    let server = Post::start(Some(&dns), "greylist-secs = 300\n");
    let send = |server: &Post, from: &str| server.send("mx.friend.test", from, &letter(from, "Hello\r\n"));
    assert!(send(&server, "pal@friend.test").starts_with("451 4.7.1 "));
    server.write_to("Pal@friend.test");
    server.write_to("boss@posed.test");
    // It is learnt behind the connection's back.
    let since = Instant::now();
    while !send(&server, "pal@friend.test").starts_with("250 ") {
        assert!(since.elapsed() < Duration::from_secs(20), "still not known");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(send(&server, "other@friend.test").starts_with("451 "), "whom nobody wrote to");
    assert!(send(&server, "boss@posed.test").starts_with("451 "), "SPF says that it is not he");
    let said = server.send_to("postmaster@here.test", "mx.friend.test", "pal@friend.test", "Subject: x\r\n\r\nx\r\n");
    assert!(said.starts_with("250 "), "{said}");
}

#[test]
fn the_command_line_says_one_word_and_why() {
    let dns = Dns::start();
    let signer = Signer::publish(&dns, "sender.test");
    dns.txt("sender.test", "v=spf1 ip4:192.0.2.0/24 -all").txt("_dmarc.sender.test", "v=DMARC1; p=reject");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letter.eml");
    // With a file's line ends.
    let message = signer.sign(&letter("a@sender.test", "Hello\r\n"), Canonicalization::Relaxed).replace("\r\n", "\n");
    std::fs::write(&file, message).unwrap();
    let server = dns.address().to_string();
    let test = |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_pillarbox")).arg("test").args(args).args(["--dns", &server]).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.lines().count() > 1, "{said}");
        said.lines().next().unwrap().to_owned()
    };
    let spf = |ip: &str, from: &str| test(&["spf", "--ip", ip, "--helo", "mx.sender.test", "--from", from]);
    assert_eq!(spf("192.0.2.1", "a@sender.test"), "pass");
    assert_eq!(spf("198.51.100.1", "a@sender.test"), "fail");
    assert_eq!(spf("198.51.100.1", ""), "none");
    let file = file.to_str().unwrap();
    assert_eq!(test(&["dkim", file]), "pass");
    assert_eq!(test(&["arc", file]), "none");
    assert_eq!(test(&["dmarc", file]), "pass");
    dns.clear("s1._domainkey.sender.test");
    assert_eq!(test(&["dmarc", file]), "fail");
    assert_eq!(test(&["dmarc", file, "--ip", "192.0.2.1", "--from", "a@sender.test"]), "pass");
    dns.silence(true);
    assert_eq!(spf("192.0.2.1", "a@sender.test"), "not-checkable");
    assert_eq!(test(&["dmarc", file]), "not-checkable");
}
