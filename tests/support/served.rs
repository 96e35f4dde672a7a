//! A running `pillarbox serve` for tests that need their own settings: config file, data and log in a temporary folder,
//! the accounts `ann@pillarbox.test` and `bob@pillarbox.test` (passwords `ann-secret`, `bob-secret`).

#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const SERVICES: [&str; 7] = ["smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s"];

/// A server that ends when it is dropped.
pub(crate) struct Served {
    folder: TempDir,
    child: Child,
    first: u16,
}

/// Loopback ports that are free now.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

impl Served {
    /// Makes the accounts and starts a server with these listeners and what `more` says: keys at the top level, then
    /// sections.
    pub(crate) fn start(listeners: &[(&str, u16)], more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        for name in ["ann", "bob"] {
            let mut add = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
            add.args(["account", "add", "--password-stdin", &format!("{name}@pillarbox.test"), "--data"]);
            let mut child =
                add.arg(folder.path().join("data")).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            writeln!(child.stdin.take().unwrap(), "{name}-secret").unwrap();
            assert!(child.wait().unwrap().success(), "account add {name}");
        }
        let off = SERVICES.iter().filter(|name| listeners.iter().all(|(on, _)| on != *name));
        let off = off.fold(String::new(), |text, name| text + name + " = []\n");
        let on = listeners.iter().map(|(name, port)| format!("{name} = [\"127.0.0.1:{port}\"]\n"));
        let on = on.collect::<Vec<_>>().concat();
        let data = folder.path().join("data");
        let text = format!(
            "data = \"{}\"\nallow-root = true\nhostname = \"mail.pillarbox.test\"\n{more}\n[listen]\n{on}{off}",
            data.display()
        );
        fs::write(folder.path().join("pillarbox.toml"), text).unwrap();
        let child = launch(folder.path());
        let served = Self { folder, child, first: listeners[0].1 };
        served.wait();
        served
    }

    /// Pulls the plug (SIGKILL) and starts the server anew.
    pub(crate) fn kill_and_start(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = launch(self.folder.path());
        self.wait();
    }

    fn wait(&self) {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.first)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "the server does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The certificate of its own authority.
    pub(crate) fn ca(&self) -> PathBuf {
        self.data().join("tls/ca.crt")
    }

    /// What the server logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

fn launch(folder: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut serve = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    serve.arg("serve").arg("--config").arg(folder.join("pillarbox.toml"));
    serve.stdin(Stdio::null()).stderr(log).spawn().unwrap()
}

impl Drop for Served {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("server log:\n{}", self.log());
        }
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}
