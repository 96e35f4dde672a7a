//! A running Pillarbox for tests: `pillarbox try --json` in a folder of its own, ended by its
//! process id, and the words about programs that are not installed.

#![allow(dead_code, reason = "each test binary uses its part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// The program under test: ours, or one that was built for another processor (`board/qemu-user.sh`).
pub(crate) fn program() -> PathBuf {
    std::env::var_os("PILLARBOX_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_pillarbox").into(), PathBuf::from)
}

/// A server that ends when it is dropped.
pub(crate) struct Server {
    child: Child,
    data: PathBuf,
    said: serde_json::Value,
    own_folder: Option<TempDir>,
}

impl Server {
    /// Starts a server on an empty folder.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self::start_in(&folder.path().join("data"), free_base(), &[]);
        server.own_folder = Some(folder);
        server
    }

    /// Starts a server on `data` with ports counted from `base`, and waits for its first line.
    pub(crate) fn start_in(data: &Path, base: u16, more: &[&str]) -> Self {
        let mut child = Command::new(program())
            .args(["try", "--json", "--data"])
            .arg(data)
            .args(["--ports", &base.to_string()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(std::fs::File::create(data.with_extension("log")).unwrap()))
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let log = || std::fs::read_to_string(data.with_extension("log")).unwrap_or_default();
        let said = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}; log:\n{}", log()));
        Self { child, data: data.to_owned(), said, own_folder: None }
    }

    /// `127.0.0.1:PORT` of a listener.
    pub(crate) fn listener(&self, name: &str) -> &str {
        self.said["listeners"][name].as_str().unwrap_or_else(|| panic!("no listener {name} in {}", self.said))
    }

    /// The port of a listener.
    pub(crate) fn port(&self, name: &str) -> &str {
        self.listener(name).rsplit_once(':').unwrap().1
    }

    /// Address and password of account 0 or 1.
    pub(crate) fn account(&self, index: usize) -> (&str, &str) {
        let account = &self.said["accounts"][index];
        (account["address"].as_str().unwrap(), account["password"].as_str().unwrap())
    }

    /// The certificate authority's certificate.
    pub(crate) fn ca(&self) -> &str {
        self.said["ca"].as_str().unwrap()
    }

    /// The data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the server logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }

    /// Pulls the plug: SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the server to stop and tells whether it ended well.
    pub(crate) fn stop(mut self) -> bool {
        self.signal("-TERM");
        let ended = self.child.wait().unwrap().success();
        self.check_store();
        ended
    }

    /// What was done to the store has left it whole.
    fn check_store(&self) {
        if self.data.join("mail.redb").exists() {
            let mut check = Command::new(program());
            let said = succeed(check.args(["check-store", "--deep", "--data"]).arg(&self.data), b"");
            assert!(said.ends_with("all is well\n"), "{said}");
        }
    }

    fn signal(&self, signal: &str) {
        Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal("-TERM");
            let ended = self.child.wait();
            if !std::thread::panicking() && ended.is_ok() {
                self.check_store();
            }
        }
        if std::thread::panicking() {
            eprintln!("server log:\n{}", self.log());
        }
    }
}

/// A port base whose seven `try` ports are free now.
pub(crate) fn free_base() -> u16 {
    let seed = std::process::id() as usize * 7919 + std::ptr::from_ref(&()).addr();
    (0..400)
        .map(|step| 11_000 + u16::try_from((seed + step * 1009) % 40 * 1200).unwrap())
        .map(|base| base + u16::try_from(std::thread::current().name().map_or(0, |name| name.len() * 3 % 90)).unwrap())
        .find(|base| {
            [25, 587, 465, 143, 993, 110, 995].iter().all(|role| TcpListener::bind(("127.0.0.1", base + role)).is_ok())
        })
        .expect("no free ports")
}

/// Tells whether every program is installed; says in one visible line what is skipped when not,
/// and fails where `PILLARBOX_REQUIRE_CLIENTS` is set.
pub(crate) fn installed(programs: &[&str], what: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&&str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    let missing: Vec<_> = programs.iter().filter(|program| !is_there(program)).collect();
    if missing.is_empty() {
        return true;
    }
    // Written to the stream itself, which the test runner does not capture.
    let _ = writeln!(std::io::stderr(), "SKIPPED {what}: {missing:?} not installed");
    assert!(std::env::var_os("PILLARBOX_REQUIRE_CLIENTS").is_none(), "{what} needs {missing:?}");
    false
}

/// Runs a program with `input` and returns what it said.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Runs a program that has to end well and returns its standard output.
pub(crate) fn succeed(command: &mut Command, input: &[u8]) -> String {
    let output = run(command, input);
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        said(&output.stdout),
        said(&output.stderr)
    );
    said(&output.stdout)
}

/// Runs a program that has to fail and returns all it said.
pub(crate) fn fail(command: &mut Command, input: &[u8]) -> String {
    let output = run(command, input);
    let all = [output.stdout, output.stderr].concat();
    let all = String::from_utf8_lossy(&all).into_owned();
    assert!(!output.status.success(), "{command:?} did not fail:\n{all}");
    all
}
