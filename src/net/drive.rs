//! The one loop that drives SMTP, IMAP and POP3 sessions alike (STYLE section 2).
//!
//! It gathers what a session writes and sends it in one piece, offers input that was left over
//! before it reads again, and while the session waits for its peer it waits for everything else too:
//! changes, the end of patience, the server's stop. What it keeps of an idle connection is a few
//! hundred bytes: buffers are borrowed, and every future that is only needed while something
//! happens lives in a box of its own.

use std::future::{Future, pending};
use std::io;
use std::time::Duration;

use tokio::select;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::buffer::Buffer;
use crate::protocol::{Notice, Session, Step, TlsFacts};

/// Output is gathered up to this many bytes: what fits one TLS record.
const GATHER_BYTES: usize = 16_384;

/// When an answer takes longer than this, output gathered so far is sent meanwhile. Shorter waits
/// keep the replies to pipelined commands in one packet (RFC 2920 section 3.2).
const LINGER: Duration = Duration::from_millis(50);

/// How many reads of what a peer had said before it broke off are heard.
const LAST_WORDS: usize = 4;

/// Stands for "never" where a session names a patience no clock can hold.
const FOREVER: Duration = Duration::from_hours(30 * 365 * 24);

/// The world behind a session: answers its requests and tells it when something changed.
/// One value for each connection.
pub trait Answers<S: Session> {
    /// Answers one request. Anything that may touch the disk or cost CPU goes to the blocking threads.
    fn answer(&mut self, request: S::Request) -> impl Future<Output = S::Answer>;

    /// What the session is told of a connection whose TLS has started: a certificate that lets nobody in
    /// is taken out here.
    fn tls_started(&self, facts: TlsFacts) -> TlsFacts {
        facts
    }

    /// Resolves when a mailbox of the logged-in account changed; never, when nobody is logged in.
    /// Dropped and called again freely. Polled only while the session wants changes.
    fn changed(&mut self) -> impl Future<Output = ()>;
}

/// The other end of a connection.
pub trait Peer {
    /// Takes what has arrived, without waiting.
    ///
    /// # Errors
    /// The connection broke; nothing more can be read or written.
    fn read(&mut self) -> io::Result<Arrival>;

    /// Waits until [`Peer::read`] may have something. Holds no buffer while it waits, may be dropped
    /// and called again, and may return early.
    fn readable(&mut self) -> impl Future<Output = io::Result<()>>;

    /// Sends all of `bytes`. Fails when the peer takes nothing for long.
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>>;

    /// Starts TLS in the role the connection has, within a time limit of its own.
    fn start_tls(&mut self) -> impl Future<Output = io::Result<TlsFacts>>;

    /// Says goodbye as the transport wants it and closes.
    fn close(&mut self) -> impl Future<Output = ()>;
}

/// What [`Peer::read`] found.
#[derive(Debug)]
pub enum Arrival {
    /// These bytes, at least one.
    Bytes(Buffer),
    /// Nothing yet.
    Nothing,
    /// The peer has closed its side.
    Gone,
}

/// The server's stop, as every connection hears of it.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// A stop and the handle that triggers it: send `true`, or drop it.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Tells whether the server stops.
    pub fn is_set(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits for the stop.
    pub async fn wait(&mut self) {
        // An error says that the sender is gone, and with it the server.
        let _ = self.0.wait_for(|stopping| *stopping).await;
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The session closed it.
    Closed,
    /// The peer went first.
    Gone,
}

/// Bytes that went over a connection, TLS not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From the peer.
    pub received: u64,
    /// To the peer.
    pub sent: u64,
}

/// A session, the world behind it and the peer before it.
///
/// Kept in a box: an async function that took the three by value would hold each of them twice.
#[derive(Debug)]
pub struct Driver<S, A, P> {
    session: S,
    answers: A,
    peer: P,
    stop: Stop,
    inbox: Option<Buffer>,
    outbox: Option<Buffer>,
    traffic: Traffic,
    /// When the peer was last heard, or last owed something by us.
    since: Instant,
    heard: bool,
    told_to_stop: bool,
}

/// What ended a wait at [`Step::Read`].
enum Woken {
    Input(Buffer),
    Gone,
    Notice(Notice),
}

impl<S: Session, A: Answers<S>, P: Peer> Driver<S, A, P> {
    /// Brings the three together. The session starts with [`Driver::run`].
    pub fn new(session: S, answers: A, peer: P, stop: Stop) -> Box<Self> {
        Box::new(Self {
            session,
            answers,
            peer,
            stop,
            inbox: None,
            outbox: None,
            traffic: Traffic::default(),
            since: Instant::now(),
            heard: false,
            told_to_stop: false,
        })
    }

    /// Bytes received and sent so far.
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Starts TLS before the greeting, for ports with implicit TLS (RFC 8314).
    ///
    /// # Errors
    /// The handshake failed; the connection is of no more use.
    pub async fn secure(&mut self) -> io::Result<()> {
        let facts = Box::pin(self.peer.start_tls()).await?;
        self.since = Instant::now();
        self.session.tls_started(self.answers.tls_started(facts));
        Ok(())
    }

    /// Runs the session to its end.
    ///
    /// # Errors
    /// The connection broke, the peer did not take our output, or a TLS handshake failed.
    pub async fn run(&mut self) -> io::Result<End> {
        loop {
            match self.session.next() {
                Step::Write(bytes) => {
                    let outbox = self.outbox.get_or_insert_with(Buffer::take);
                    if outbox.len() + bytes.len() <= GATHER_BYTES {
                        outbox.push(bytes);
                    } else {
                        self.peer.write(outbox.filled()).await?;
                        self.traffic.sent += outbox.len() as u64;
                        outbox.consume(outbox.len());
                        if bytes.len() < GATHER_BYTES {
                            outbox.push(bytes);
                        } else {
                            self.peer.write(bytes).await?;
                            self.traffic.sent += bytes.len() as u64;
                        }
                    }
                }
                Step::Read => {
                    if self.stop.is_set() && !self.told_to_stop {
                        self.told_to_stop = true;
                        self.session.notice(Notice::Stopping);
                        continue;
                    }
                    if self.offer()? {
                        continue;
                    }
                    self.flush().await?;
                    match self.wait().await? {
                        Woken::Input(buffer) => {
                            self.traffic.received += buffer.len() as u64;
                            self.inbox = Some(buffer);
                            self.heard = true;
                            // A peer that never pauses must not keep the others waiting.
                            tokio::task::coop::consume_budget().await;
                        }
                        Woken::Notice(notice) => self.session.notice(notice),
                        Woken::Gone => {
                            self.session.receive(&[]);
                            return self.wind_up().await;
                        }
                    }
                }
                Step::Ask(request) => {
                    let answer = self.ask(request).await?;
                    self.session.resume(answer);
                }
                Step::StartTls => {
                    self.flush().await?;
                    // RFC 3207 section 4.2: nothing that was said in clear outlives the handshake.
                    self.inbox = None;
                    self.secure().await?;
                }
                Step::Close => {
                    self.flush().await?;
                    self.inbox = None;
                    self.peer.close().await;
                    return Ok(End::Closed);
                }
            }
        }
    }

    /// Runs the session of a client to its end. When the connection breaks, what the peer had said
    /// before is heard all the same, and the session is told that it has gone, so that every
    /// question it still has is asked: what became of a message is known in any case.
    ///
    /// # Errors
    /// As [`Driver::run`], after that.
    pub async fn run_out(&mut self) -> io::Result<End> {
        let end = self.run().await;
        if end.is_err() {
            self.outbox = None;
            while let Ok(true) = self.offer() {}
            for _ in 0..LAST_WORDS {
                let Ok(Arrival::Bytes(buffer)) = self.peer.read() else { break };
                self.traffic.received += buffer.len() as u64;
                self.inbox = Some(buffer);
                while let Ok(true) = self.offer() {}
            }
            self.session.receive(&[]);
            self.wind_up().await?;
        }
        end
    }

    /// The session and the world behind it, when the connection is over.
    #[expect(clippy::boxed_local, reason = "a driver is never out of its box, see above")]
    pub fn into_parts(self: Box<Self>) -> (S, A) {
        (self.session, self.answers)
    }

    /// Lets a session whose peer has gone finish what it began, such as a delivery that was asked
    /// for: questions are still answered, nothing is read or written any more.
    async fn wind_up(&mut self) -> io::Result<End> {
        loop {
            match self.session.next() {
                Step::Write(_) => {}
                Step::Ask(request) => {
                    let answer = Box::pin(self.answers.answer(request)).await;
                    self.session.resume(answer);
                }
                Step::Read | Step::StartTls | Step::Close => break,
            }
        }
        self.outbox = None;
        self.peer.close().await;
        Ok(End::Gone)
    }

    /// Offers left-over input. Tells whether there was any.
    fn offer(&mut self) -> io::Result<bool> {
        let Some(inbox) = self.inbox.as_mut().filter(|inbox| !inbox.is_empty()) else {
            self.inbox = None;
            return Ok(false);
        };
        let taken = self.session.receive(inbox.filled());
        if taken == 0 {
            return Err(io::Error::other("the session takes no input"));
        }
        inbox.consume(taken);
        if inbox.is_empty() {
            self.inbox = None;
        }
        Ok(true)
    }

    async fn flush(&mut self) -> io::Result<()> {
        if let Some(outbox) = self.outbox.take().filter(|outbox| !outbox.is_empty()) {
            self.peer.write(outbox.filled()).await?;
            self.traffic.sent += outbox.len() as u64;
        }
        Ok(())
    }

    async fn ask(&mut self, request: S::Request) -> io::Result<S::Answer> {
        let Self { answers, peer, outbox, traffic, .. } = self;
        let mut answer = Box::pin(answers.answer(request));
        if outbox.as_ref().is_some_and(|outbox| !outbox.is_empty()) {
            select! {
                biased;
                answer = &mut answer => return Ok(answer),
                () = sleep(LINGER) => {}
            }
            if let Some(outbox) = outbox.take() {
                peer.write(outbox.filled()).await?;
                traffic.sent += outbox.len() as u64;
            }
        }
        Ok(answer.await)
    }

    /// Waits for the peer, a change, the end of patience or the server's stop.
    async fn wait(&mut self) -> io::Result<Woken> {
        if std::mem::take(&mut self.heard) {
            self.since = Instant::now();
        }
        let patience = self.session.patience().min(FOREVER);
        let deadline = self.since + patience;
        let wants_changes = self.session.wants_changes();
        let told_to_stop = self.told_to_stop;
        let Self { peer, answers, stop, .. } = self;
        let changed = async {
            if wants_changes {
                Box::pin(answers.changed()).await;
            } else {
                pending::<()>().await;
            }
        };
        let stopped = async {
            if told_to_stop {
                pending::<()>().await;
            } else {
                stop.wait().await;
            }
        };
        let (mut changed, mut stopped) = (std::pin::pin!(changed), std::pin::pin!(stopped));
        loop {
            match peer.read()? {
                Arrival::Bytes(buffer) => return Ok(Woken::Input(buffer)),
                Arrival::Gone => return Ok(Woken::Gone),
                Arrival::Nothing => {}
            }
            select! {
                biased;
                readable = peer.readable() => readable?,
                () = &mut stopped => {
                    self.told_to_stop = true;
                    return Ok(Woken::Notice(Notice::Stopping));
                }
                () = &mut changed => return Ok(Woken::Notice(Notice::Changed)),
                () = sleep_until(deadline) => {
                    // A session that goes on after this gets another stretch of patience.
                    self.since = Instant::now();
                    return Ok(Woken::Notice(Notice::Silence));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    /// Answers each line with `> line`, and knows a few words:
    /// `ask`, `tls`, `idle`, `quit`, `big`.
    #[derive(Default)]
    struct Echo {
        line: Vec<u8>,
        steps: VecDeque<Planned>,
        shown: Vec<u8>,
        idle: bool,
        closed: bool,
        secure: bool,
    }

    enum Planned {
        Write(Vec<u8>),
        Ask(u32),
        StartTls,
        Close,
    }

    impl Echo {
        fn say(&mut self, text: &str) {
            self.steps.push_back(Planned::Write(text.as_bytes().to_vec()));
        }
    }

    impl Session for Echo {
        type Request = u32;
        type Answer = u32;

        fn next(&mut self) -> Step<'_, u32> {
            match self.steps.pop_front() {
                Some(Planned::Write(bytes)) => {
                    self.shown = bytes;
                    Step::Write(&self.shown)
                }
                Some(Planned::Ask(number)) => Step::Ask(number),
                Some(Planned::StartTls) => Step::StartTls,
                Some(Planned::Close) => Step::Close,
                None if self.closed => Step::Close,
                None => Step::Read,
            }
        }

        /// Takes a line at most, so that pipelined lines are left over.
        fn receive(&mut self, bytes: &[u8]) -> usize {
            if bytes.is_empty() {
                self.steps.push_back(Planned::Ask(99));
                self.closed = true;
                return 0;
            }
            let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            self.line.extend_from_slice(&bytes[..end]);
            if self.line.ends_with(b"\n") {
                let line = String::from_utf8(std::mem::take(&mut self.line)).unwrap();
                match line.trim() {
                    "ask" => self.steps.push_back(Planned::Ask(1)),
                    "tls" => {
                        self.say("ready\n");
                        self.steps.push_back(Planned::StartTls);
                    }
                    "idle" => self.idle = true,
                    "quit" => {
                        self.say("bye\n");
                        self.closed = true;
                    }
                    "big" => self.say(&"x".repeat(40_000)),
                    other => self.say(&format!("> {other}\n")),
                }
            }
            end
        }

        fn resume(&mut self, answer: u32) {
            self.say(&format!("answer {answer}\n"));
        }

        fn notice(&mut self, notice: Notice) {
            self.say(&format!("{notice:?}\n"));
            if notice != Notice::Changed {
                self.steps.push_back(Planned::Close);
            }
        }

        fn tls_started(&mut self, tls: TlsFacts) {
            self.secure = true;
            self.say(&format!("{}\n", tls.description));
        }

        fn patience(&self) -> Duration {
            Duration::from_millis(200)
        }

        fn wants_changes(&self) -> bool {
            self.idle
        }
    }

    #[derive(Default)]
    struct World {
        asked: Rc<RefCell<Vec<u32>>>,
        changes: u32,
        slow: bool,
    }

    impl Answers<Echo> for World {
        async fn answer(&mut self, request: u32) -> u32 {
            self.asked.borrow_mut().push(request);
            if self.slow {
                sleep(2 * LINGER).await;
            }
            request * 10
        }

        async fn changed(&mut self) {
            if self.changes == 0 {
                pending::<()>().await;
            }
            self.changes -= 1;
        }
    }

    /// What the peer sends, piece by piece, and what it got, write by write.
    #[derive(Default)]
    struct Script {
        sends: VecDeque<&'static str>,
        stays: bool,
        got: Rc<RefCell<Vec<String>>>,
        arrived: bool,
    }

    impl Peer for Script {
        fn read(&mut self) -> io::Result<Arrival> {
            // Every piece has to be waited for once.
            if !std::mem::take(&mut self.arrived) {
                return Ok(Arrival::Nothing);
            }
            Ok(self.sends.pop_front().map_or(Arrival::Gone, |piece| {
                let mut buffer = Buffer::take();
                buffer.push(piece.as_bytes());
                Arrival::Bytes(buffer)
            }))
        }

        async fn readable(&mut self) -> io::Result<()> {
            if self.sends.is_empty() && self.stays {
                pending::<()>().await;
            }
            self.arrived = true;
            Ok(())
        }

        async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.got.borrow_mut().push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(())
        }

        async fn start_tls(&mut self) -> io::Result<TlsFacts> {
            Ok(TlsFacts { description: "secure".to_owned(), ..TlsFacts::default() })
        }

        async fn close(&mut self) {
            self.got.borrow_mut().push("(closed)".to_owned());
        }
    }

    struct Played {
        end: End,
        got: Vec<String>,
        asked: Vec<u32>,
        traffic: Traffic,
    }

    fn play(sends: &[&'static str], stays: bool, world: World, stop: Option<Duration>) -> Played {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let peer = Script { sends: sends.iter().copied().collect(), stays, ..Script::default() };
            let (got, asked) = (Rc::clone(&peer.got), Rc::clone(&world.asked));
            let (trigger, handle) = Stop::new();
            let mut driver = Driver::new(Echo::default(), world, peer, handle);
            let stopper = async {
                sleep(stop.unwrap_or(Duration::from_hours(24))).await;
                trigger.send(true).unwrap();
                pending::<End>().await
            };
            let end = select! { end = driver.run() => end.unwrap(), end = stopper => end };
            let traffic = driver.traffic();
            Played { end, got: got.take(), asked: asked.take(), traffic }
        })
    }

    #[test]
    fn replies_to_pipelined_lines_leave_in_one_piece() {
        let played = play(&["a\nb\nas", "k\nquit\n"], true, World::default(), None);
        assert_eq!(played.got, ["> a\n> b\n", "answer 10\nbye\n", "(closed)"]);
        assert_eq!((played.end, played.asked), (End::Closed, vec![1]));
        assert_eq!(played.traffic, Traffic { received: 13, sent: 22 });
    }

    #[test]
    fn more_than_a_record_is_sent_without_gathering_all_of_it() {
        let played = play(&["a\nbig\nquit\n"], true, World::default(), None);
        let sizes: Vec<usize> = played.got.iter().map(String::len).collect();
        assert_eq!(sizes, [4, 40_000, 4, 8]);
    }

    #[test]
    fn what_was_gathered_does_not_wait_for_a_slow_answer() {
        let played = play(&["a\nask\nquit\n"], true, World { slow: true, ..World::default() }, None);
        assert_eq!(played.got, ["> a\n", "answer 10\nbye\n", "(closed)"]);
    }

    #[test]
    fn clear_input_behind_starttls_is_dropped() {
        let played = play(&["tls\ninjected\n", "a\nquit\n"], true, World::default(), None);
        assert_eq!(played.got, ["ready\n", "secure\n", "> a\nbye\n", "(closed)"]);
    }

    #[test]
    fn silence_ends_patience_and_changes_do_not_prolong_it() {
        let played = play(&["idle\n"], true, World { changes: 2, ..World::default() }, None);
        assert_eq!(played.got, ["Changed\n", "Changed\n", "Silence\n", "(closed)"]);
    }

    #[test]
    fn changes_are_told_only_to_a_session_that_wants_them() {
        let played = play(&["a\n"], true, World { changes: 2, ..World::default() }, None);
        assert_eq!(played.got, ["> a\n", "Silence\n", "(closed)"]);
    }

    #[test]
    fn a_stop_is_told_while_waiting_and_before_reading() {
        let played = play(&["a\n"], true, World::default(), Some(Duration::from_millis(20)));
        assert_eq!(played.got, ["> a\n", "Stopping\n", "(closed)"]);
        let played =
            play(&["ask\nb\n"], true, World { slow: true, ..World::default() }, Some(Duration::from_millis(1)));
        assert_eq!(played.got, ["answer 10\nStopping\n", "(closed)"]);
    }

    #[test]
    fn a_session_whose_peer_has_gone_may_still_ask() {
        let played = play(&["a\n"], false, World::default(), None);
        assert_eq!((played.end, played.asked), (End::Gone, vec![99]));
        assert_eq!(played.got, ["> a\n", "(closed)"]);
    }
}
