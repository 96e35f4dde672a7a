//! What the queue costs: 1,000 messages for 200 destinations of which a tenth hangs and a tenth says
//! "later", and a queue of 100,000 messages that waits.
//!
//! `cargo build --release && cargo run --release --example queue-bench` prints a table; the server is the
//! program beside this one, or the one that `--server FILE` names. Everything happens on loopback and in
//! a temporary folder, `--folder DIR` if that should be on a certain disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a bench that panics has failed")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pillarbox::mail::address::Address;
use pillarbox::mail::date::{Timestamp, ZonedTime};
use pillarbox::mail::envelope::{BodyType, Envelope, ForwardPath, Notify, Recipient, ReversePath};
use pillarbox::mail::message::FlagNames;
use pillarbox::mail::queue::{Due, NewQueued, Submitter};
use pillarbox::mail::structure::Walker;
use pillarbox::store::{NewMessage, Store, StoreConfig};

const MESSAGES: usize = 1_000;
const DESTINATIONS: usize = 200;
const LARGE: usize = 100_000;

/// Bytes of a message's body.
const BODY: usize = 4_000;

/// How long the idle queue is watched.
const IDLE: Duration = Duration::from_secs(20);

/// How a destination behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    Good,
    Hangs,
    Later,
}

fn manner(destination: usize) -> Manner {
    match destination % 10 {
        3 => Manner::Hangs,
        7 => Manner::Later,
        _ => Manner::Good,
    }
}

fn main() {
    let mut folder = std::env::temp_dir();
    let mut server = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("pillarbox");
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--folder" => folder = words.next().expect("a folder").into(),
            "--server" => server = words.next().expect("a file").into(),
            other => panic!("{other}? There are --folder DIR and --server FILE"),
        }
    }
    many_destinations(&server, tempfile::tempdir_in(&folder).unwrap().path());
    large_queue(&server, tempfile::tempdir_in(&folder).unwrap().path());
}

fn many_destinations(server: &Path, folder: &Path) {
    let taken = Arc::new(AtomicUsize::new(0));
    let sinks: Vec<SocketAddr> = (0..DESTINATIONS).map(|number| sink(manner(number), &taken)).collect();
    fill(folder, MESSAGES, now_ms(), |number| format!("u{number}@d{}.test", number % DESTINATIONS));
    let mut routes = String::from("[route]\n");
    for (number, address) in sinks.iter().enumerate() {
        writeln!(routes, "\"d{number}.test\" = \"{address}\"").unwrap();
    }
    let healthy = (0..MESSAGES).filter(|number| manner(number % DESTINATIONS) == Manner::Good).count();
    let begun = Instant::now();
    let running = Running::start(server, folder, &routes);
    let mut most = 0;
    while taken.load(Ordering::SeqCst) < healthy {
        most = most.max(running.pss());
        assert!(begun.elapsed() < Duration::from_mins(5), "{} of {healthy}", taken.load(Ordering::SeqCst));
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = begun.elapsed();
    most = most.max(running.pss());
    println!(
        "{MESSAGES} messages of {BODY} bytes, {DESTINATIONS} destinations, a tenth hangs, a tenth says \"later\":"
    );
    println!(
        "  {healthy} healthy ones delivered  {:.2} s after the server's start (wanted: under 60 s)",
        took.as_secs_f64()
    );
    println!("  memory (PSS) at most         {} (wanted: at most 32)", mib(most));
}

fn large_queue(server: &Path, folder: &Path) {
    let later = now_ms() + 3_600_000;
    let begun = Instant::now();
    fill(folder, LARGE, later, |number| format!("u{number}@d{}.test", number % 5_000));
    let filled = begun.elapsed();
    let running = Running::start(server, folder, "");
    let started = running.started;
    std::thread::sleep(Duration::from_secs(6));
    let before = running.switches();
    let written = running.written();
    std::thread::sleep(IDLE);
    // Threads that ended meanwhile slept no more.
    let after = running.switches();
    let woken: u64 = after.iter().map(|(thread, count)| count - before.get(thread).copied().unwrap_or(0)).sum();
    println!("{LARGE} messages that wait, for 5000 destinations (filled in {:.0} s):", filled.as_secs_f64());
    println!("  start                        {:.2} s until it answers (wanted: under 2 s)", started.as_secs_f64());
    println!("  wake-ups in {} s idle        {woken} (wanted: none)", IDLE.as_secs());
    println!("  bytes written meanwhile      {}", running.written() - written);
    println!("  memory (PSS)                 {}", mib(running.pss()));
}

/// Puts messages straight into a store.
fn fill(folder: &Path, count: usize, due: u64, to: impl Fn(usize) -> String) {
    let data = folder.join("data");
    let store = Store::open(&data, &StoreConfig::default()).unwrap();
    let mut pending = Vec::new();
    for number in 0..count {
        let text = format!("Return-Path: <ann@here.test>\r\nSubject: number {number}\r\n\r\n{}\r\n", words(number));
        let mut spool = store.spool().unwrap();
        spool.write(text.as_bytes()).unwrap();
        let mut walker = Walker::new();
        walker.feed(text.as_bytes());
        let message = NewMessage {
            body: spool.finish().unwrap(),
            structure: walker.finish(),
            internal_date: ZonedTime::utc(Timestamp(1_700_000_000)),
            flags: FlagNames::default(),
        };
        let path = ForwardPath::Address(Address::parse(&to(number)).unwrap());
        let envelope = Envelope {
            from: ReversePath::Address(Address::parse("ann@here.test").unwrap()),
            recipients: vec![Recipient { path, notify: Notify::default(), original: None }],
            body: BodyType::SevenBit,
            utf8: false,
            ret: None,
            envelope_id: None,
        };
        let queued = NewQueued { envelope, require_tls: false, by: Submitter::Nobody, due: Due(due) };
        pending.push(store.submit(message, Vec::new(), Some(queued)));
        if pending.len() >= 500 {
            pending.drain(..).for_each(|pending| drop(pending.wait().unwrap()));
        }
    }
    pending.drain(..).for_each(|pending| drop(pending.wait().unwrap()));
    store.close().unwrap();
}

/// A body that compresses as text does.
fn words(seed: usize) -> String {
    const WORDS: [&str; 16] = [
        "post", "office", "letter", "reaches", "every", "house", "by", "night", "and", "rain", "the", "pillar", "box",
        "stands", "at", "roadside",
    ];
    let mut state = seed as u64 + 1;
    let mut text = String::new();
    while text.len() < BODY {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text += WORDS[(state >> 60) as usize];
        text += if text.len() % 70 < 8 { "\r\n" } else { " " };
    }
    text
}

/// A server elsewhere; counts the messages it takes.
fn sink(manner: Manner, taken: &Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let taken = Arc::clone(taken);
    let serve = move || {
        for socket in listener.incoming().flatten() {
            let taken = Arc::clone(&taken);
            let talk = move || {
                // Whoever breaks off is no failure of the bench's.
                let _ = converse(socket, manner, &taken);
            };
            std::thread::Builder::new().stack_size(128 << 10).spawn(talk).unwrap();
        }
    };
    std::thread::Builder::new().stack_size(64 << 10).spawn(serve).unwrap();
    address
}

fn converse(socket: TcpStream, manner: Manner, taken: &AtomicUsize) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut wire = BufReader::new(socket);
    if manner == Manner::Hangs {
        wire.read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    wire.get_mut().write_all(b"220 sink\r\n")?;
    let mut line = String::new();
    let mut content = false;
    loop {
        line.clear();
        if wire.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if content {
            if line == ".\r\n" {
                content = false;
                taken.fetch_add(1, Ordering::SeqCst);
                wire.get_mut().write_all(b"250 taken\r\n")?;
            }
            continue;
        }
        let answer: &[u8] = match line.get(..4).unwrap_or_default() {
            "EHLO" => b"250-sink\r\n250 PIPELINING\r\n",
            "MAIL" if manner == Manner::Later => b"451 4.3.0 later\r\n",
            "RCPT" if manner == Manner::Later => b"503 no sender\r\n",
            "DATA" if manner == Manner::Later => b"503 no recipient\r\n",
            "DATA" => {
                content = true;
                b"354 go ahead\r\n"
            }
            "QUIT" => {
                return wire.get_mut().write_all(b"221 bye\r\n");
            }
            _ => b"250 ok\r\n",
        };
        wire.get_mut().write_all(answer)?;
    }
}

/// A running server.
struct Running {
    child: Child,
    started: Duration,
}

impl Running {
    fn start(server: &Path, folder: &Path, routes: &str) -> Self {
        let services = ["smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s"];
        let off = services[1..].join(" = []\n") + " = []\n";
        let data = folder.join("data");
        let text = format!(
            "data = \"{}\"\nhostname = \"here.test\"\nallow-root = true\n[listen]\nsmtp = [\"127.0.0.1:0\"]\n{off}\
             [store]\nallow-ram = true\nscrub-days = 0\n{routes}",
            data.display()
        );
        let config = folder.join("pillarbox.toml");
        std::fs::write(&config, text).unwrap();
        let begun = Instant::now();
        let mut command = Command::new(server);
        command.args(["serve", "--log-level", "error", "--config"]).arg(&config).stdin(Stdio::null());
        let child = command.spawn().expect("the server; build it first");
        while std::os::unix::net::UnixStream::connect(data.join("control.sock")).is_err() {
            assert!(begun.elapsed() < Duration::from_mins(1), "the server does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { child, started: begun.elapsed() }
    }

    fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.child.id()))
    }

    /// Memory in KiB.
    fn pss(&self) -> u64 {
        let text = std::fs::read_to_string(self.proc("smaps_rollup")).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("Pss:"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
    }

    /// How often each of its threads went to sleep.
    fn switches(&self) -> BTreeMap<PathBuf, u64> {
        let threads = std::fs::read_dir(self.proc("task")).unwrap().flatten();
        let of = |path: PathBuf| {
            let text = std::fs::read_to_string(path.join("status")).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with("voluntary_ctxt_switches:"));
            let count = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0);
            (path, count)
        };
        threads.map(|thread| of(thread.path())).collect()
    }

    /// Bytes it had written.
    fn written(&self) -> u64 {
        let text = std::fs::read_to_string(self.proc("io")).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("write_bytes:"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// KiB as MiB with one decimal.
fn mib(kib: u64) -> String {
    format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024)
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}
