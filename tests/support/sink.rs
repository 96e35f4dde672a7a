//! An SMTP server for tests that takes mail and can be as bad as any: slow, silent, refusing at each step,
//! breaking off, speaking no TLS where it says so. On loopback, a thread for each connection.

#![allow(dead_code, reason = "each test binary uses its part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use pillarbox::net::tls::{TlsConfig, TlsServer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

/// What a sink does at a step instead of saying yes.
#[derive(Clone, Debug)]
pub(crate) enum Does {
    /// Says this, CRLF not included.
    Says(String),
    /// Says it so many times, and yes from then on.
    SaysFirst(usize, String),
    /// Says nothing any more.
    Hangs,
    /// Closes the connection.
    Drops,
    /// Waits, then says yes.
    Waits(Duration),
}

/// What TLS a sink speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SinkTls {
    #[default]
    None,
    Good,
    /// It is offered, and what comes is no TLS.
    Broken,
    /// From the first byte.
    Implicit,
}

/// How a sink behaves. Steps: `connect`, `EHLO`, `AUTH`, `MAIL`, `RCPT`, `DATA`, `.` and, for one recipient,
/// `RCPT ` with its address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    pub(crate) steps: BTreeMap<String, Does>,
    pub(crate) extensions: Vec<&'static str>,
    pub(crate) tls: SinkTls,
    /// Login and password that AUTH PLAIN must bring.
    pub(crate) login: Option<(String, String)>,
}

/// A message that a sink took.
#[derive(Clone, Debug, Default)]
pub(crate) struct Taken {
    /// The line of MAIL.
    pub(crate) mail: String,
    /// The lines of RCPT that were accepted.
    pub(crate) rcpt: Vec<String>,
    pub(crate) content: String,
    pub(crate) login: bool,
    pub(crate) tls: bool,
    /// Which connection it came over.
    pub(crate) connection: usize,
    /// The client has gone on after the last reply, so it has heard it.
    pub(crate) heard: bool,
}

#[derive(Default)]
struct State {
    manner: Mutex<Manner>,
    taken: Mutex<Vec<Taken>>,
    said: Mutex<BTreeMap<String, usize>>,
    connections: AtomicUsize,
    over: AtomicBool,
}

/// A sink that listens until it is dropped.
pub(crate) struct Sink {
    address: SocketAddr,
    state: Arc<State>,
}

struct Keys {
    config: Arc<ServerConfig>,
    ca: PathBuf,
    folder: TempDir,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let names = NAMES.iter().map(|&name| name.to_owned()).collect();
        let server = TlsServer::new(&TlsConfig { names, ..TlsConfig::default() }, "localhost", folder.path()).unwrap();
        Keys { config: server.config(), ca: server.ca().unwrap(), folder }
    })
}

/// The servers that the sinks' certificate is for, beside `localhost` and 127.0.0.1.
const NAMES: &[&str] =
    &["mx.sts.test", "mx.stray.test", "mta-sts.sts.test", "mta-sts.plain.test", "mta-sts.stray.test"];

/// The settings of a server with the sinks' certificate.
pub(crate) fn config() -> Arc<ServerConfig> {
    Arc::clone(&keys().config)
}

/// The sinks' certificate, as it goes over the wire.
pub(crate) fn certificate() -> Vec<u8> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    CertificateDer::from_pem_file(keys().folder.path().join("server.crt")).unwrap().to_vec()
}

/// The authority that signed the sinks' certificate.
pub(crate) fn authority() -> PathBuf {
    keys().ca.clone()
}

impl Sink {
    /// A sink at a free port that takes everything.
    pub(crate) fn start() -> Self {
        Self::at("127.0.0.1:0", Manner::default())
    }

    /// A sink at this place with these manners.
    pub(crate) fn at(place: &str, manner: Manner) -> Self {
        let listener = TcpListener::bind(place).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { manner: Mutex::new(manner), ..State::default() });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                if shared.over.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(socket), shared) = (socket, Arc::clone(&shared)) else { continue };
                std::thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn(move || {
                        let number = shared.connections.fetch_add(1, Ordering::SeqCst);
                        // A client that breaks off is no failure of the sink's.
                        let _ = Conversation::hold(&shared, number, &socket);
                    })
                    .unwrap();
            }
        });
        Self { address, state }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how it behaves.
    pub(crate) fn behave(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.state.manner.lock().unwrap());
    }

    /// Does something at a step from now on.
    pub(crate) fn does(&self, step: &str, does: Does) {
        self.behave(|manner| drop(manner.steps.insert(step.to_owned(), does)));
    }

    /// Says yes to everything again.
    pub(crate) fn is_good(&self) {
        self.behave(|manner| manner.steps.clear());
    }

    /// What it has taken.
    pub(crate) fn taken(&self) -> Vec<Taken> {
        self.state.taken.lock().unwrap().clone()
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Waits until it has taken so many messages.
    pub(crate) fn wait_for(&self, messages: usize) -> Vec<Taken> {
        let started = Instant::now();
        loop {
            let taken = self.taken();
            if taken.len() >= messages {
                return taken;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "{} of {messages} messages came", taken.len());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Static routes to sinks.
pub(crate) fn routes(list: &[(&str, &Sink)]) -> String {
    let lines = list.iter().map(|(domain, sink)| format!("\"{domain}\" = \"{}\"\n", sink.address()));
    format!("[route]\n{}", lines.collect::<String>())
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        // Wakes whoever waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

trait Both: Read + Write + Send {}
impl<T: Read + Write + Send> Both for T {}

struct Conversation<'a> {
    state: &'a State,
    wire: BufReader<Box<dyn Both>>,
    message: Taken,
    tls: bool,
    login: bool,
    number: usize,
    /// The message whose last reply the client may not have heard.
    unheard: Option<usize>,
}

fn over_tls(socket: TcpStream) -> Box<dyn Both> {
    Box::new(StreamOwned::new(ServerConnection::new(Arc::clone(&keys().config)).unwrap(), socket))
}

impl<'a> Conversation<'a> {
    fn hold(state: &'a State, number: usize, socket: &TcpStream) -> std::io::Result<()> {
        socket.set_nodelay(true)?;
        let manner = state.manner.lock().unwrap().clone();
        let tls = manner.tls == SinkTls::Implicit;
        let wire: Box<dyn Both> = if tls { over_tls(socket.try_clone()?) } else { Box::new(socket.try_clone()?) };
        let (message, login) = (Taken::default(), false);
        let mut talk = Conversation { state, wire: BufReader::new(wire), message, tls, login, number, unheard: None };
        if talk.step("connect", "220 sink.test ESMTP")? {
            talk.go_on(socket)?;
        }
        let _ = socket.shutdown(std::net::Shutdown::Both);
        Ok(())
    }

    fn say(&mut self, text: &str) -> std::io::Result<()> {
        let wire = self.wire.get_mut();
        wire.write_all(format!("{text}\r\n").as_bytes())?;
        wire.flush()
    }

    /// Answers a step; false when the connection is over.
    fn step(&mut self, step: &str, yes: &str) -> std::io::Result<bool> {
        let does = self.state.manner.lock().unwrap().steps.get(step).cloned();
        let said = match does {
            None => yes.to_owned(),
            Some(Does::Says(text)) => text,
            Some(Does::SaysFirst(times, text)) => {
                let mut said = self.state.said.lock().unwrap();
                let count = said.entry(step.to_owned()).or_default();
                *count += 1;
                if *count <= times { text } else { yes.to_owned() }
            }
            Some(Does::Drops) => return Ok(false),
            Some(Does::Waits(wait)) => {
                std::thread::sleep(wait);
                yes.to_owned()
            }
            Some(Does::Hangs) => {
                // Until the client goes, or the sink does.
                while !self.state.over.load(Ordering::SeqCst)
                    && self.wire.fill_buf().is_ok_and(|bytes| !bytes.is_empty())
                {
                    let count = self.wire.buffer().len();
                    self.wire.consume(count);
                }
                return Ok(false);
            }
        };
        let goes_on = !said.starts_with("421") && (step != "connect" || said.starts_with('2'));
        self.say(&said)?;
        Ok(goes_on)
    }

    /// Whether a step says yes, after it was answered.
    fn is_yes(&self, step: &str) -> bool {
        match self.state.manner.lock().unwrap().steps.get(step) {
            Some(Does::Says(text)) => text.starts_with('2') || text.starts_with('3'),
            Some(Does::SaysFirst(times, _)) => {
                self.state.said.lock().unwrap().get(step).is_none_or(|said| said > times)
            }
            _ => true,
        }
    }

    fn go_on(&mut self, socket: &TcpStream) -> std::io::Result<()> {
        loop {
            let mut line = String::new();
            if self.wire.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(heard) = self.unheard.take() {
                self.state.taken.lock().unwrap()[heard].heard = true;
            }
            let line = line.trim_end().to_owned();
            let word = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let goes_on = match word.as_str() {
                "EHLO" => {
                    let manner = self.state.manner.lock().unwrap().clone();
                    let mut words: Vec<&str> = manner.extensions.clone();
                    if !self.tls && matches!(manner.tls, SinkTls::Good | SinkTls::Broken) {
                        words.push("STARTTLS");
                    }
                    if manner.login.is_some() {
                        words.push("AUTH PLAIN");
                    }
                    let mut text = String::new();
                    for (index, line) in ["sink.test"].into_iter().chain(words.iter().copied()).enumerate() {
                        let mark = if index == words.len() { ' ' } else { '-' };
                        write!(text, "250{mark}{line}\r\n").unwrap();
                    }
                    self.step("EHLO", text.trim_end())?
                }
                "STARTTLS" => {
                    self.say("220 go ahead")?;
                    if self.state.manner.lock().unwrap().tls == SinkTls::Broken {
                        self.say("this is no TLS at all, whatever was said before")?;
                        return Ok(());
                    }
                    self.wire = BufReader::new(over_tls(socket.try_clone()?));
                    self.tls = true;
                    true
                }
                "AUTH" => {
                    let wanted = self.state.manner.lock().unwrap().login.clone();
                    let fits = wanted.is_some_and(|(login, password)| {
                        let plain = format!("\0{login}\0{password}");
                        line == format!("AUTH PLAIN {}", base64::engine::general_purpose::STANDARD.encode(plain))
                    });
                    self.login |= fits;
                    self.step("AUTH", if fits { "235 2.7.0 welcome" } else { "535 5.7.8 who are you" })?
                }
                "MAIL" => {
                    self.message = Taken {
                        mail: line.clone(),
                        tls: self.tls,
                        login: self.login,
                        connection: self.number,
                        ..Taken::default()
                    };
                    self.step("MAIL", "250 2.1.0 ok")?
                }
                "RCPT" => {
                    let address = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                    let own = format!("RCPT {address}");
                    let step =
                        if self.state.manner.lock().unwrap().steps.contains_key(&own) { own } else { "RCPT".into() };
                    let goes_on = self.step(&step, "250 2.1.5 ok")?;
                    if self.is_yes(&step) {
                        self.message.rcpt.push(line.clone());
                    }
                    goes_on
                }
                "DATA" => {
                    if !self.step("DATA", "354 go ahead")? {
                        return Ok(());
                    }
                    if self.is_yes("DATA") {
                        self.content()?;
                        if !self.dot()? {
                            return Ok(());
                        }
                    }
                    true
                }
                "BDAT" => {
                    let mut words = line.split(' ').skip(1);
                    let size: usize = words.next().unwrap().parse().unwrap();
                    let mut chunk = vec![0; size];
                    self.wire.read_exact(&mut chunk)?;
                    self.message.content += &String::from_utf8_lossy(&chunk);
                    if words.next().is_some() { self.dot()? } else { self.step("BDAT", "250 2.0.0 more")? }
                }
                "RSET" => {
                    self.message = Taken::default();
                    self.step("RSET", "250 2.0.0 ok")?
                }
                "QUIT" => {
                    self.say("221 2.0.0 bye")?;
                    false
                }
                _ => self.step("other", "500 5.5.1 what")?,
            };
            if !goes_on {
                return Ok(());
            }
        }
    }

    fn content(&mut self) -> std::io::Result<()> {
        let mut content = Vec::new();
        loop {
            let mut line = Vec::new();
            if self.wire.read_until(b'\n', &mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line == b".\r\n" {
                break;
            }
            content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        self.message.content = String::from_utf8_lossy(&content).into_owned();
        Ok(())
    }

    fn dot(&mut self) -> std::io::Result<bool> {
        let message = std::mem::take(&mut self.message);
        let said = self.step(".", "250 2.0.0 taken");
        // Who goes before he hears it has given the message all the same.
        if said.as_ref().map_or(true, |goes_on| *goes_on) && self.is_yes(".") {
            let mut taken = self.state.taken.lock().unwrap();
            self.unheard = Some(taken.len());
            taken.push(message);
        }
        said
    }
}
