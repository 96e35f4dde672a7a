//! A running server that sends mail out, with two accounts, and its clients: they submit, read and look
//! at its queue.

#![allow(dead_code, reason = "each test binary uses its part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::sink::Sink;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running server with the accounts `ann@here.test` and `bob@here.test`; it ends with this.
pub(crate) struct Server {
    pub(crate) child: Child,
    pub(crate) folder: PathBuf,
    pub(crate) own: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts one with these further settings, as sections of the config file.
    pub(crate) fn start(settings: &str) -> Self {
        let own = tempfile::tempdir().unwrap();
        std::fs::create_dir(own.path().join("data")).unwrap();
        for account in ["ann", "bob"] {
            let mut add = pillarbox(own.path());
            add.args(["account", "add", &format!("{account}@here.test"), "--password-stdin", "--data"]);
            let mut child =
                add.arg(own.path().join("data")).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(b"secret\n").unwrap();
            assert!(child.wait().unwrap().success());
        }
        let mut server = Self::start_in(own.path(), settings);
        server.own = Some(own);
        server
    }

    pub(crate) fn start_in(folder: &Path, settings: &str) -> Self {
        let at = |name: &str| format!("{name} = [\"127.0.0.1:0\"]\n");
        let off = |name: &str| format!("{name} = []\n");
        let text = format!(
            "data = \"{}\"\nhostname = \"here.test\"\nallow-root = true\nauth-in-clear-on-loopback = true\n\
             [listen]\n{}{}{}{}{}{}{}[store]\nallow-ram = true\n[spam]\nenabled = false\n{settings}\n",
            folder.join("data").display(),
            at("smtp"),
            at("submission"),
            at("pop3"),
            off("submissions"),
            off("imap"),
            off("imaps"),
            off("pop3s"),
        );
        std::fs::write(folder.join("pillarbox.toml"), text).unwrap();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
        let child = pillarbox(folder)
            .args(["serve", "--log-level", "info", "--config"])
            .arg(folder.join("pillarbox.toml"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self { child, folder: folder.to_owned(), own: None };
        until("the server starts", || server.try_status().is_some());
        server
    }

    pub(crate) fn try_status(&self) -> Option<Value> {
        let said = pillarbox(&self.folder).args(["status", "--json", "--data"]).arg(self.folder.join("data")).output();
        serde_json::from_slice(&said.unwrap().stdout).ok()
    }

    pub(crate) fn status(&self) -> Value {
        self.try_status().unwrap()
    }

    pub(crate) fn connect(&self, service: &str) -> Wire {
        let status = self.status();
        let listener = status["listeners"].as_array().unwrap().iter().find(|found| found["name"] == service);
        Wire::open(listener.unwrap()["address"].as_str().unwrap())
    }

    /// Sends a message as an account; the addresses may be followed by their parameters.
    pub(crate) fn submit(&self, from: &str, to: &[&str], text: &str) {
        let mut wire = self.connect("submission");
        wire.expect("220");
        wire.say("EHLO laptop.test", "250");
        let login = from.split(' ').next().unwrap();
        wire.say(&format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{login}\0secret"))), "235");
        wire.message(from, to, text);
    }

    /// The messages in an account's INBOX.
    pub(crate) fn inbox(&self, account: &str) -> Vec<String> {
        let mut wire = self.connect("pop3");
        wire.expect("+OK");
        wire.say(&format!("USER {account}@here.test"), "+OK");
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

    pub(crate) fn wait_for_mail(&self, account: &str, count: usize) -> Vec<String> {
        until(&format!("{count} messages for {account}"), || self.inbox(account).len() >= count);
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

    pub(crate) fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
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
            eprintln!("server log:\n{}", self.log());
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
pub(crate) struct Wire(BufReader<TcpStream>);

impl Wire {
    pub(crate) fn open(address: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(socket))
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
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
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
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
        self.0.get_mut().write_all(format!("{}.\r\n", text.replace('\n', "\r\n")).as_bytes()).unwrap();
    }

    pub(crate) fn lines_to_dot(&mut self) -> String {
        let mut text = String::new();
        loop {
            let line = self.line();
            if line == "." {
                return text;
            }
            writeln!(text, "{}", line.strip_prefix('.').unwrap_or(&line)).unwrap();
        }
    }
}

pub(crate) fn routes(list: &[(&str, &Sink)]) -> String {
    let lines = list.iter().map(|(domain, sink)| format!("\"{domain}\" = \"{}\"\n", sink.address()));
    format!("[route]\n{}", lines.collect::<String>())
}

pub(crate) const QUICK: &str = "[queue]\nretry-min-secs = 1\nretry-max-secs = 2\n";

pub(crate) const LETTER: &str = "Subject: hello\n\nhow are you\n..\n";
