//! A connection as the player sees it, and the one without a socket: a session driven straight.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use pillarbox::net::drive::Answers;
use pillarbox::protocol::{Channel, ChannelBinding, Notice, Session, Step, TlsFacts};
use tokio::runtime::Runtime;

use super::Pace;
use super::network::{Network, certificate};
use super::script::Script;
use super::world::World;

/// How long a line may take that comes by itself (a change pushed to an idling client).
const PUSH_MAX: Duration = Duration::from_secs(5);

/// What both ends of a connection without a socket agree on in their handshake.
const BINDING: [u8; 32] = [7; 32];

/// What came from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A line, its CRLF taken off.
    Line(Vec<u8>),
    /// Bytes that end in no CRLF.
    Part(Vec<u8>),
    /// Nothing, and it waits for us.
    Nothing,
    /// Nothing, and it has closed.
    Closed,
}

impl fmt::Display for Heard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(out, "{:?}", String::from_utf8_lossy(line)),
            Self::Part(bytes) => write!(out, "{:?} without CRLF", String::from_utf8_lossy(bytes)),
            Self::Nothing => out.write_str("nothing"),
            Self::Closed => out.write_str("the end of the connection"),
        }
    }
}

/// A connection to a server.
pub(crate) trait Wire {
    /// Sends bytes in one piece.
    fn send(&mut self, bytes: &[u8]) -> Result<(), String>;

    /// The next line from the server. With `wait` a line is expected; without, only what it has
    /// said by now counts.
    fn hear(&mut self, wait: bool) -> Heard;

    /// Starts TLS as the client.
    fn start_tls(&mut self) -> Result<(), String>;

    /// Ends the client's side.
    fn hang_up(&mut self) -> Result<(), String>;

    /// Lets the session believe that the client was silent for too long.
    fn silence(&mut self) -> Result<(), String>;

    /// Lets the session believe that the server stops.
    fn stop(&mut self) -> Result<(), String>;

    /// What the client binds its login to; only under TLS.
    fn binding(&self) -> [u8; 32];

    /// The session's patience, where it can be asked.
    fn patience(&self) -> Option<Duration>;
}

/// Opens a connection to a session at this pace.
pub(crate) fn open<S, A>(
    session: S,
    answers: A,
    script: &Script,
    world: &World,
    pace: Pace,
) -> Result<Box<dyn Wire>, String>
where
    S: Session + Send + 'static,
    A: Answers<S> + Send + 'static,
{
    match pace {
        Pace::Network => Ok(Box::new(Network::open(session, answers, script.tls)?)),
        _ => Ok(Box::new(Straight::new(session, answers, world.runtime.clone(), pace, script.tls))),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Reading,
    BeforeTls,
    Closed,
}

/// A session without a socket.
pub(crate) struct Straight<S: Session, A: Answers<S>> {
    session: S,
    answers: A,
    runtime: Rc<Runtime>,
    pace: Pace,
    input: Vec<u8>,
    /// Bytes of `input` that were taken.
    taken: usize,
    output: Vec<u8>,
    place: Place,
}

impl<S: Session, A: Answers<S>> Straight<S, A> {
    /// Opens a connection; with `tls` it begins with a handshake.
    pub(crate) fn new(mut session: S, answers: A, runtime: Rc<Runtime>, pace: Pace, tls: bool) -> Self {
        if tls {
            session.tls_started(answers.tls_started(facts()));
        }
        let (input, output) = (Vec::new(), Vec::new());
        let mut wire = Self { session, answers, runtime, pace, input, taken: 0, output, place: Place::Reading };
        wire.drive();
        wire
    }

    /// Goes on until the session waits for the client, for TLS, or has closed.
    fn drive(&mut self) {
        while self.place == Place::Reading {
            match self.session.next() {
                Step::Read if self.taken == self.input.len() => {
                    self.input.clear();
                    self.taken = 0;
                    return;
                }
                Step::Read => {
                    let offered = &self.input[self.taken..];
                    let offered = if self.pace == Pace::ByteByByte { &offered[..1] } else { offered };
                    let taken = self.session.receive(offered);
                    assert!((1..=offered.len()).contains(&taken), "receive took {taken} of {} bytes", offered.len());
                    self.taken += taken;
                }
                Step::Write(bytes) => self.output.extend_from_slice(bytes),
                Step::Ask(request) => {
                    let answer = self.runtime.block_on(self.answers.answer(request));
                    self.session.resume(answer);
                }
                Step::StartTls => {
                    self.input.clear();
                    self.taken = 0;
                    self.place = Place::BeforeTls;
                }
                Step::Close => self.place = Place::Closed,
            }
        }
    }

    fn note(&mut self, notice: Notice) -> Result<(), String> {
        if self.place != Place::Reading {
            return Err("the session does not read".into());
        }
        self.session.notice(notice);
        self.drive();
        Ok(())
    }

    /// Waits for changes while the session wants them.
    fn await_change(&mut self, most: Duration) -> bool {
        if self.place != Place::Reading || !self.session.wants_changes() {
            return false;
        }
        let answers = &mut self.answers;
        let woken = self.runtime.block_on(async { tokio::time::timeout(most, answers.changed()).await.is_ok() });
        if woken {
            self.session.notice(Notice::Changed);
            self.drive();
        }
        woken
    }
}

impl<S: Session, A: Answers<S>> Wire for Straight<S, A> {
    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self.place {
            Place::Closed => Err("the server has closed".into()),
            Place::BeforeTls => Err("the server waits for TLS".into()),
            Place::Reading => {
                self.input.extend_from_slice(bytes);
                self.drive();
                Ok(())
            }
        }
    }

    fn hear(&mut self, wait: bool) -> Heard {
        loop {
            if let Some(end) = self.output.windows(2).position(|pair| pair == b"\r\n") {
                let mut line: Vec<u8> = self.output.drain(..end + 2).collect();
                line.truncate(end);
                return Heard::Line(line);
            }
            if self.await_change(if wait { PUSH_MAX } else { Duration::ZERO }) {
                continue;
            }
            return match self.place {
                _ if !self.output.is_empty() => Heard::Part(std::mem::take(&mut self.output)),
                Place::Closed => Heard::Closed,
                _ => Heard::Nothing,
            };
        }
    }

    fn start_tls(&mut self) -> Result<(), String> {
        if self.place != Place::BeforeTls {
            return Err("the session did not ask for TLS".into());
        }
        self.place = Place::Reading;
        self.session.tls_started(self.answers.tls_started(facts()));
        self.drive();
        Ok(())
    }

    fn hang_up(&mut self) -> Result<(), String> {
        if self.place == Place::Reading {
            self.session.receive(&[]);
            self.drive();
        }
        if self.place == Place::Reading { Err("the session goes on without its client".into()) } else { Ok(()) }
    }

    fn silence(&mut self) -> Result<(), String> {
        self.note(Notice::Silence)
    }

    fn stop(&mut self) -> Result<(), String> {
        if self.place == Place::Reading { self.note(Notice::Stopping) } else { Ok(()) }
    }

    fn binding(&self) -> [u8; 32] {
        BINDING
    }

    fn patience(&self) -> Option<Duration> {
        Some(self.session.patience())
    }
}

fn facts() -> TlsFacts {
    let channel = Channel { binding: Some(ChannelBinding(BINDING)), certificate: Some(certificate()) };
    TlsFacts { description: "TLSv1.3 TLS_AES_128_GCM_SHA256".into(), verified: false, channel }
}
