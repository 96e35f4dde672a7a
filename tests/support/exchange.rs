//! A running server with its own settings and two accounts, and its clients: they submit, read and look at its
//! queue.

#![allow(dead_code, reason = "each test binary uses its part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How a server is set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The domain of its accounts `ann` and `bob`, both with the password `secret`.
    pub(crate) domain: String,
    /// What it calls itself.
    pub(crate) host: String,
    /// Its listeners and their places; all others are off.
    pub(crate) listen: Vec<(&'static str, String)>,
    /// Further settings, as sections of the config file.
    pub(crate) settings: String,
}

impl Setup {
    /// One that takes mail, mail to be sent and POP3 at free ports, for `here.test`.
    pub(crate) fn new(settings: &str) -> Self {
        Self::of("here.test", "here.test", "127.0.0.1:0", settings)
    }

    /// The same for another domain, which takes others' mail at `place`.
    pub(crate) fn of(domain: &str, host: &str, place: &str, settings: &str) -> Self {
        let free = || "127.0.0.1:0".to_owned();
        let listen = vec![("smtp", place.to_owned()), ("submission", free()), ("pop3", free())];
        Self { domain: domain.to_owned(), host: host.to_owned(), listen, settings: settings.to_owned() }
    }

    fn text(&self, folder: &Path) -> String {
        let Self { host, listen, settings, .. } = self;
        let services = ["smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s"];
        let listeners = services.map(|service| {
            let place = listen.iter().find(|(name, _)| *name == service);
            place.map_or(format!("{service} = []\n"), |(_, place)| format!("{service} = [\"{place}\"]\n"))
        });
        format!(
            "data = \"{}\"\nhostname = \"{host}\"\nallow-root = true\nauth-in-clear-on-loopback = true\n\
             [listen]\n{}[store]\nallow-ram = true\n[spam]\nenabled = false\n{settings}\n",
            folder.join("data").display(),
            listeners.concat()
        )
    }
}

/// A running server; it ends with this.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) folder: PathBuf,
    pub(crate) own: Option<tempfile::TempDir>,
    domain: String,
}

impl Server {
    /// Starts one for `here.test` with these further settings.
    pub(crate) fn start(settings: &str) -> Self {
        Self::set_up(&Setup::new(settings))
    }

    /// Starts it again.
    pub(crate) fn start_in(folder: &Path, settings: &str) -> Self {
        Self::run(folder, &Setup::new(settings))
    }

    /// Makes the accounts and starts a server.
    pub(crate) fn set_up(setup: &Setup) -> Self {
        let own = tempfile::tempdir().unwrap();
        std::fs::create_dir(own.path().join("data")).unwrap();
        for account in ["ann", "bob"] {
            let mut add = pillarbox(own.path());
            add.args(["account", "add", &format!("{account}@{}", setup.domain), "--password-stdin", "--data"]);
            let mut child =
                add.arg(own.path().join("data")).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(b"secret\n").unwrap();
            assert!(child.wait().unwrap().success());
        }
        let mut server = Self::run(own.path(), setup);
        server.own = Some(own);
        server
    }

    /// Starts a server in a folder that has its accounts.
    pub(crate) fn run(folder: &Path, setup: &Setup) -> Self {
        std::fs::write(folder.join("pillarbox.toml"), setup.text(folder)).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
        let child = pillarbox(folder)
            .args(["serve", "--log-level", "info", "--config"])
            .arg(folder.join("pillarbox.toml"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { child, folder: folder.to_owned(), own: None, domain: setup.domain.clone() };
        until("the server starts", || server.try_status().is_some());
        server
    }

    /// The data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The certificate of its own authority.
    pub(crate) fn ca(&self) -> PathBuf {
        self.data().join("tls/ca.crt")
    }

    pub(crate) fn try_status(&self) -> Option<Value> {
        let said = pillarbox(&self.folder).args(["status", "--json", "--data"]).arg(self.folder.join("data")).output();
        serde_json::from_slice(&said.unwrap().stdout).ok()
    }

    pub(crate) fn status(&self) -> Value {
        self.try_status().unwrap()
    }

    /// `ADDRESS:PORT` of a listener.
    pub(crate) fn place(&self, service: &str) -> String {
        let status = self.status();
        let listener = status["listeners"].as_array().unwrap().iter().find(|found| found["name"] == service);
        listener.unwrap()["address"].as_str().unwrap().to_owned()
    }

    pub(crate) fn connect(&self, service: &str) -> Wire {
        Wire::open(&self.place(service))
    }

    /// Sends a message as an account; the addresses may be followed by their parameters.
    pub(crate) fn submit(&self, from: &str, to: &[&str], text: &str) {
        let mut wire = self.connect("submission");
        wire.expect("220");
        wire.say("EHLO laptop.test", "250");
        wire.log_in(from.split(' ').next().unwrap());
        wire.message(from, to, text);
    }

    /// The same over TLS.
    pub(crate) fn submit_over_tls(&self, from: &str, to: &[&str], text: &str) {
        let mut wire = self.connect("submission");
        wire.expect("220");
        wire.say("EHLO laptop.test", "250");
        let mut wire = wire.start_tls(&self.ca());
        wire.say("EHLO laptop.test", "250");
        wire.log_in(from.split(' ').next().unwrap());
        wire.message(from, to, text);
    }

    /// The messages in an account's INBOX.
    pub(crate) fn inbox(&self, account: &str) -> Vec<String> {
        let mut wire = self.connect("pop3");
        wire.expect("+OK");
        wire.say(&format!("USER {account}@{}", self.domain), "+OK");
        wire.say("PASS secret", "+OK");
        let count: usize = wire.say("STAT", "+OK").split(' ').nth(1).unwrap().parse().unwrap();
        let messages = (1..=count).map(|number| {
            wire.say(&format!("RETR {number}"), "+OK");
            wire.lines_to_dot()
        });
        let messages = messages.collect();
        wire.say("QUIT", "+OK");
        messages
    }

    /// How many there are.
    pub(crate) fn mails(&self, account: &str) -> usize {
        let mut wire = self.connect("pop3");
        wire.expect("+OK");
        wire.say(&format!("USER {account}@{}", self.domain), "+OK");
        wire.say("PASS secret", "+OK");
        wire.say("STAT", "+OK").split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn wait_for_mail(&self, account: &str, count: usize) -> Vec<String> {
        until(&format!("{count} messages for {account}"), || self.mails(account) >= count);
        self.inbox(account)
    }

    pub(crate) fn queue(&self, words: &[&str]) -> Value {
        self.try_queue(words).unwrap_or_else(|said| panic!("{said}"))
    }

    pub(crate) fn try_queue(&self, words: &[&str]) -> Result<Value, String> {
        let mut command = pillarbox(&self.folder);
        let said = command.arg("queue").args(words).args(["--json", "--data"]).arg(self.folder.join("data")).output();
        let said = said.unwrap();
        if !said.status.success() {
            return Err(String::from_utf8_lossy(&said.stderr).into_owned());
        }
        Ok(serde_json::from_slice(&said.stdout).unwrap_or(Value::Null))
    }

    pub(crate) fn queued(&self) -> Vec<Value> {
        self.queue(&["list"]).as_array().unwrap().clone()
    }

    pub(crate) fn wait_until_sent(&self) {
        until("the queue is empty", || self.queued().is_empty());
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let started = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < PATIENCE, "the server does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            // Every look into a mailbox logs in.
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let told = log.lines().filter(|line| !line.contains("logged in client="));
            eprintln!("server log:\n{}", told.collect::<Vec<_>>().join("\n"));
        }
    }
}

pub(crate) fn pillarbox(_folder: &Path) -> Command {
    Command::new(env!("CARGO_BIN_EXE_pillarbox"))
}

pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// A client's connection.
pub(crate) struct Wire {
    stream: BufReader<Box<dyn Both>>,
    socket: TcpStream,
}

pub(crate) trait Both: Read + Write {}
impl<T: Read + Write> Both for T {}

impl Wire {
    pub(crate) fn open(address: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(Box::new(socket.try_clone().unwrap())), socket }
    }

    /// Goes on over TLS with a server whose certificate this authority made for `localhost`.
    pub(crate) fn start_tls(mut self, authority: &Path) -> Self {
        self.say("STARTTLS", "220");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let stream: Box<dyn Both> = Box::new(StreamOwned::new(client, self.socket.try_clone().unwrap()));
        Self { stream: BufReader::new(stream), socket: self.socket }
    }

    fn send(&mut self, text: &str) {
        self.raw(text.as_bytes());
    }

    /// Sends these bytes.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
        self.stream.get_mut().flush().unwrap();
    }

    pub(crate) fn log_in(&mut self, address: &str) {
        self.say(&format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{address}\0secret"))), "235");
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line.trim_end_matches("\r\n").to_owned()
    }

    pub(crate) fn expect(&mut self, beginning: &str) -> String {
        loop {
            let line = self.line();
            assert!(line.starts_with(beginning), "expected {beginning}, got {line:?}");
            if line.as_bytes().get(3) != Some(&b'-') {
                return line;
            }
        }
    }

    pub(crate) fn say(&mut self, line: &str, beginning: &str) -> String {
        self.send(&format!("{line}\r\n"));
        self.expect(beginning)
    }

    /// One message after EHLO.
    pub(crate) fn message(&mut self, from: &str, to: &[&str], text: &str) {
        self.begin(from, to, text);
        self.expect("250");
    }

    /// The same, without waiting for what is said in the end.
    pub(crate) fn begin(&mut self, from: &str, to: &[&str], text: &str) {
        let path = |word: &str| {
            let (address, more) = word.split_once(' ').unwrap_or((word, ""));
            format!("<{address}> {more}").trim_end().to_owned()
        };
        self.say(&format!("MAIL FROM:{}", path(from)), "250");
        for to in to {
            self.say(&format!("RCPT TO:{}", path(to)), "250");
        }
        self.say("DATA", "354");
        self.send(&format!("{}.\r\n", text.replace('\n', "\r\n")));
    }

    pub(crate) fn lines_to_dot(&mut self) -> String {
        let mut text = String::new();
        loop {
            let line = self.line();
            if line == "." {
                return text;
            }
            text.push_str(line.strip_prefix('.').unwrap_or(&line));
            text.push('\n');
        }
    }
}

/// Loopback ports that are free now.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

pub(crate) const QUICK: &str = "[queue]\nretry-min-secs = 1\nretry-max-secs = 2\n";

pub(crate) const LETTER: &str = "Subject: hello\n\nhow are you\n..\n";
