//! The running program: `try --json` as a child process, spoken to over its seven ports.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics is a test that fails")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

const SERVICES: [(&str, u16); 7] = [
    ("smtp", 25),
    ("submission", 587),
    ("submissions", 465),
    ("imap", 143),
    ("imaps", 993),
    ("pop3", 110),
    ("pop3s", 995),
];

/// A server under test; killed when dropped.
struct Server {
    child: Child,
    facts: Value,
    base: u16,
}

impl Server {
    fn start(data: &Path) -> Self {
        Self::start_with(data, free_base(), &[])
    }

    fn start_with(data: &Path, base: u16, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pillarbox"))
            .args(["try", "--json", "--data", data.to_str().unwrap(), "--ports", &base.to_string()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let facts = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        Self { child, facts, base }
    }

    /// `serve` with a config file; ready when its first service answers.
    fn serve(folder: &Path, base: u16, config: &str) -> Self {
        let file = folder.join("pillarbox.toml");
        let off = SERVICES.iter().filter(|(name, _)| !config.contains(&format!("{name} = ")));
        let off: Vec<String> = off.map(|(name, _)| format!("{name} = []\n")).collect();
        let off = off.concat();
        let data = folder.join("data");
        let text = format!(
            "data = \"{}\"\nallow-root = true\n[store]\nallow-ram = true\n[listen]\n{off}{config}",
            data.display()
        );
        fs::write(&file, text).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_pillarbox"))
            .args(["serve", "--log-level", "warn", "--config", file.to_str().unwrap()])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let listeners: serde_json::Map<String, Value> = SERVICES
            .iter()
            .map(|(name, port)| ((*name).to_owned(), format!("127.0.0.1:{}", base + port).into()))
            .collect();
        let server = Self { child, facts: serde_json::json!({ "listeners": listeners }), base };
        let first = SERVICES.iter().find(|(name, _)| config.contains(&format!("{name} = "))).unwrap().0;
        let started = Instant::now();
        while TcpStream::connect(server.address(first)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "the server does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    fn address(&self, service: &str) -> String {
        self.facts["listeners"][service].as_str().unwrap().to_owned()
    }

    fn connect(&self, service: &str) -> TcpStream {
        let socket = TcpStream::connect(self.address(service)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    fn secure(&self, socket: TcpStream) -> Secure {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.facts["ca"].as_str().unwrap()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("pillarbox.local").unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
    }

    /// Asks it to stop and waits; fails when that takes long.
    fn stop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        self.wait_for_end();
    }

    fn wait_for_end(&mut self) {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(15) {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server does not stop");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Secure = StreamOwned<ClientConnection, TcpStream>;

/// A base from which all seven ports are free; each test gets another.
fn free_base() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + u16::try_from(std::process::id() % 200).unwrap() * 100;
    loop {
        let base = start + NEXT.fetch_add(1, Ordering::Relaxed);
        if SERVICES.iter().all(|(_, port)| TcpListener::bind(("127.0.0.1", base + port)).is_ok()) {
            return base;
        }
    }
}

fn line(stream: &mut impl Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\n") && stream.read(&mut byte).unwrap() == 1 {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Sends a command and reads lines up to one that begins with `end`.
fn say(stream: &mut (impl Read + Write), command: &str, end: &str) -> String {
    stream.write_all(command.as_bytes()).unwrap();
    stream.flush().unwrap();
    loop {
        let answer = line(stream);
        assert!(!answer.is_empty(), "the server closed after {command:?}");
        if answer.starts_with(end) {
            return answer;
        }
    }
}

fn greeting_of(service: &str) -> &'static str {
    match service {
        "imap" | "imaps" => "* OK ",
        "pop3" | "pop3s" => "+OK ",
        _ => "220 ",
    }
}

fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

#[test]
fn all_seven_ports_greet_and_tls_is_trusted_through_the_ca() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    for (service, port) in SERVICES {
        assert_eq!(server.address(service), format!("127.0.0.1:{}", server.base + port));
        let mut socket = server.connect(service);
        let greeting = if service.ends_with('s') { line(&mut server.secure(socket)) } else { line(&mut socket) };
        assert!(greeting.starts_with(greeting_of(service)), "{service}: {greeting:?}");
    }
    let threads = fs::read_dir(format!("/proc/{}/task", server.child.id())).unwrap().count();
    assert!(threads <= 5, "{threads} threads");
}

#[test]
fn tls_starts_on_the_clear_ports_and_drops_what_was_injected() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());

    let mut socket = server.connect("submission");
    line(&mut socket);
    say(&mut socket, "EHLO client.test\r\n", "250 ");
    say(&mut socket, "STARTTLS\r\nHELP injected\r\n", "220 ");
    let mut secure = server.secure(socket);
    // Had HELP survived, its 214 would come first.
    let answer = say(&mut secure, "NOOP\r\n", "2");
    assert!(answer.starts_with("250"), "{answer}");

    let mut socket = server.connect("pop3");
    line(&mut socket);
    say(&mut socket, "STLS\r\n", "+OK");
    say(&mut server.secure(socket), "CAPA\r\n", ".");

    let mut socket = server.connect("imap");
    line(&mut socket);
    say(&mut socket, "a STARTTLS\r\n", "a OK");
    say(&mut server.secure(socket), "b CAPABILITY\r\n", "b OK");
}

#[test]
fn a_stop_is_told_to_everyone_and_is_clean() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let mut smtp = server.connect("smtp");
    let mut imap = server.connect("imap");
    let mut pop3 = server.connect("pop3");
    for stream in [&mut smtp, &mut imap, &mut pop3] {
        line(stream);
    }
    server.stop();
    assert!(line(&mut smtp).starts_with("421 "));
    assert!(line(&mut imap).starts_with("* BYE"));
    // POP3 has no word for it.
    assert!(!line(&mut pop3).starts_with("+OK"));
    assert!(TcpStream::connect(server.address("smtp")).is_err());
    assert!(!folder.path().join("control.sock").exists());
}

#[test]
fn a_second_start_finds_the_same_accounts_ca_and_mail() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Server::start(folder.path());
    let ca = fs::read(first.facts["ca"].as_str().unwrap()).unwrap();
    first.stop();
    let second = Server::start(folder.path());
    assert_eq!(second.facts["accounts"], first.facts["accounts"]);
    assert_eq!(fs::read(second.facts["ca"].as_str().unwrap()).unwrap(), ca);

    let bob = &second.facts["accounts"][1];
    let mut pop3 = second.secure(second.connect("pop3s"));
    line(&mut pop3);
    say(&mut pop3, &format!("USER {}\r\n", bob["address"].as_str().unwrap()), "+OK");
    say(&mut pop3, &format!("PASS {}\r\n", bob["password"].as_str().unwrap()), "+OK");
    let status = say(&mut pop3, "STAT\r\n", "+OK");
    assert!(status.starts_with("+OK 1 "), "one welcome, and only one: {status}");
}

#[test]
fn logins_in_clear_are_refused_unless_they_were_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let mut pop3 = server.connect("pop3");
    line(&mut pop3);
    say(&mut pop3, "USER ann@pillarbox.local\r\n", "-ERR");
    server.stop();

    let server = Server::start_with(folder.path(), server.base, &["--allow-clear-auth"]);
    let mut pop3 = server.connect("pop3");
    line(&mut pop3);
    say(&mut pop3, "USER ann@pillarbox.local\r\n", "+OK");
}

#[test]
fn a_port_or_a_folder_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let again = |data: &Path, base: u16| {
        let output = Command::new(env!("CARGO_BIN_EXE_pillarbox"))
            .args(["try", "--json", "--data", data.to_str().unwrap(), "--ports", &base.to_string()])
            .output()
            .unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        String::from_utf8(output.stderr).unwrap()
    };
    let text = again(other.path(), server.base);
    assert!(text.contains(&format!("port {} on 127.0.0.1 is in use", server.base + 25)), "{text}");
    assert!(text.contains("--ports "), "{text}");
    let text = again(folder.path(), free_base());
    assert!(text.contains(folder.path().to_str().unwrap()) && text.lines().count() == 1, "{text}");
}

#[test]
fn status_and_accounts_speak_to_the_running_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let _imap = server.connect("imap");
    let ask = |arguments: &[&str]| -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_pillarbox"))
            .args(arguments)
            .args(["--json", "--data", folder.path().to_str().unwrap()])
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };
    let status = ask(&["status"]);
    assert_eq!(status["pid"], server.child.id());
    assert_eq!(status["sessions"], 1);
    assert!(status["memory-bytes"].as_u64().unwrap() > 0, "{status}");
    assert_eq!(status["listeners"].as_array().unwrap().len(), 7);
    assert_eq!(ask(&["account", "list"]).as_array().unwrap().len(), 2);
}

#[test]
fn the_store_is_compacted_while_it_serves_and_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let run = |arguments: &[&str]| {
        let data = folder.path().to_str().unwrap();
        let output =
            Command::new(env!("CARGO_BIN_EXE_pillarbox")).args(arguments).args(["--data", data]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let mut imap = server.connect("imap");
    line(&mut imap);
    assert!(run(&["compact"]).starts_with("nothing to do: about "));
    assert!(run(&["compact", "--force"]).starts_with("the index took "));
    say(&mut imap, "a NOOP\r\n", "a OK");
    let text = run(&["status"]);
    for name in ["Compacted", "Written", "A day", "In all", "Device", "Card life"] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} in {text}");
    }
    let metrics = run(&["status", "--metrics"]);
    assert!(metrics.contains("\npillarbox_store_lifetime_messages_total 1\n"), "{metrics}");
    server.stop();
    let done: Value = serde_json::from_str(&run(&["compact", "--force", "--json"])).unwrap();
    assert!(done["done"] == "compacted" && done["after"].as_u64() > Some(0), "{done}");
    assert!(!folder.path().join("mail.redb.new").exists());
}

#[test]
fn a_certificate_is_replaced_on_hangup_while_connections_stay() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["pillarbox.local".to_owned()].into();
    let issue = |name: &str| pillarbox::net::authority::ensure(&folder.path().join(name), &names).unwrap();
    let (old, new) = (issue("old"), issue("new"));
    let base = free_base();
    let config = format!(
        "imaps = [\"127.0.0.1:{}\"]\n[tls]\ncertificate = \"{}\"\nkey = \"{}\"\n",
        base + 993,
        old.certificate.display(),
        old.key.display()
    );
    let mut server = Server::serve(folder.path(), base, &config);
    server.facts["ca"] = old.ca.to_str().unwrap().into();
    let mut before = server.secure(server.connect("imaps"));
    line(&mut before);

    fs::copy(&new.certificate, &old.certificate).unwrap();
    fs::copy(&new.key, &old.key).unwrap();
    server.signal(rustix::process::Signal::HUP);
    say(&mut before, "a NOOP\r\n", "a OK");
    server.facts["ca"] = new.ca.to_str().unwrap().into();
    let mut after = server.secure(server.connect("imaps"));
    assert!(line(&mut after).starts_with("* OK"));
    say(&mut before, "b NOOP\r\n", "b OK");
    server.stop();
}

#[test]
fn one_connection_too_many_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let base = free_base();
    let config = format!(
        "smtp = [\"127.0.0.1:{}\"]\nimap = [\"127.0.0.1:{}\"]\npop3 = [\"127.0.0.1:{}\"]\n[net]\nsessions-per-address-max = 1\n",
        base + 25,
        base + 143,
        base + 110
    );
    let server = Server::serve(folder.path(), base, &config);
    // The connection that found the server ready may still be counted.
    let started = Instant::now();
    let only = loop {
        let mut socket = server.connect("smtp");
        if line(&mut socket).starts_with("220 ") {
            break socket;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "no room for one");
    };
    for (service, refusal) in [("smtp", "421 4.7.0 "), ("imap", "* BYE "), ("pop3", "-ERR ")] {
        let mut socket = server.connect(service);
        assert!(line(&mut socket).starts_with(refusal), "{service}");
        assert_eq!(socket.read(&mut [0]).unwrap_or(0), 0, "{service} closes");
    }
    drop(only);
}

#[test]
fn openssl_verifies_every_port() {
    if !is_installed("openssl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    for (service, _) in SERVICES {
        let address = server.address(service);
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &address, "-CAfile", server.facts["ca"].as_str().unwrap()]);
        command.args(["-verify_return_error", "-verify_hostname", "localhost", "-brief"]);
        match service {
            "smtp" | "submission" => drop(command.args(["-starttls", "smtp"])),
            "imap" => drop(command.args(["-starttls", "imap"])),
            "pop3" => drop(command.args(["-starttls", "pop3"])),
            _ => {}
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && text.contains("Verification: OK"), "{service}: {text}");
    }
}

#[test]
fn curl_sends_and_reads_with_the_lines_that_try_prints() {
    if !is_installed("curl") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let (ann, bob) = (&server.facts["accounts"][0], &server.facts["accounts"][1]);
    let user =
        |account: &Value| format!("{}:{}", account["address"].as_str().unwrap(), account["password"].as_str().unwrap());
    let curl = |arguments: &[&str], input: &str| {
        let mut child = Command::new("curl")
            .args(["-sS", "--ssl-reqd", "--max-time", "30", "--cacert", server.facts["ca"].as_str().unwrap()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for (scheme, service) in [("smtps", "submissions"), ("smtp", "submission")] {
        let url = format!("{scheme}://localhost:{}", server.address(service).rsplit_once(':').unwrap().1);
        let letter = format!("From: ann@pillarbox.local\nSubject: by {scheme}\n\nHello Bob.\n");
        let from = ["--mail-from", "ann@pillarbox.local", "--mail-rcpt", "bob@pillarbox.local", "--crlf"];
        let user = user(ann);
        curl(&[&from[..], &["--user", &user, "--upload-file", "-", &url]].concat(), &letter);
    }
    let user = user(bob);
    for (scheme, service, path) in [
        ("pop3s", "pop3s", "3"),
        ("pop3", "pop3", "3"),
        ("imaps", "imaps", "INBOX;MAILINDEX=*"),
        ("imap", "imap", "INBOX;UID=3"),
    ] {
        let port = server.address(service).rsplit_once(':').unwrap().1.to_owned();
        let url = format!("{scheme}://localhost:{port}/{path}");
        let text = curl(&["--user", &user, &url], "");
        assert!(text.contains("Subject: by smtp\r\n") && text.contains("\r\n\r\nHello Bob.\r\n"), "{url}: {text}");
    }
}

#[test]
fn a_second_server_on_a_folder_says_so_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let base = free_base();
    let imap = |port: u16| format!("imap = [\"127.0.0.1:{port}\"]\n");
    let mut first = Server::serve(folder.path(), base, &imap(base + 143));
    let file = folder.path().join("second.toml");
    let text = fs::read_to_string(folder.path().join("pillarbox.toml")).unwrap();
    fs::write(&file, text.replace(&imap(base + 143), &imap(base + 144))).unwrap();
    let second = Command::new(env!("CARGO_BIN_EXE_pillarbox"))
        .args(["serve", "--log-level", "off", "--config", file.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("another process has the store in") && said.lines().count() == 1, "{said}");
    assert!(said.contains(folder.path().join("data").to_str().unwrap()), "{said}");
    // The first one has not noticed.
    assert!(line(&mut first.connect("imap")).starts_with("* OK "));
    first.stop();
}
