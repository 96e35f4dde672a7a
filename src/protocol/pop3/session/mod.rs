//! The server's side of one POP3 connection: AUTHORIZATION, TRANSACTION and UPDATE (RFC 1939).
//!
//! A command at a time: input waits while an answer is awaited or a long reply is under way, so
//! pipelined commands (RFC 2449 section 6.6) need no memory. Long replies are made piece by piece
//! as the socket takes them.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroize as _;

use super::body::BodyWriter;
use super::command::{Command, CommandError};
use super::maildrop::{Cursor, NumberError, View};
use super::{Answer, COMMAND_LINE_MAX, Finding, Inquiry, OpenError, Pop3Config, Request, SIZES_MAX};
use crate::mail::mailbox::Uid;
use crate::protocol::sasl::{self, Exchange, RESPONSE_LINE_MAX, Refusal};
use crate::protocol::{Channel, Notice, Step, TlsFacts};

mod authorization;
mod transaction;

/// A listing pauses for the socket once it holds this many bytes.
const LISTING_CHUNK: usize = 8 << 10;

/// One POP3 connection.
#[derive(Debug)]
pub struct Session {
    config: Arc<Pop3Config>,
    tls: bool,
    /// What a login can be bound to, until there is one.
    channel: Option<Box<Channel>>,
    /// Logging in without TLS is allowed here.
    clear_login: bool,
    state: State,
    task: Task,
    /// What there is of a line.
    line: Vec<u8>,
    /// The line is too long: the rest of it is dropped.
    overlong: bool,
    out: Vec<u8>,
    /// `out` was given to the driver.
    given: bool,
    ask: Option<Request>,
    bad_commands: u16,
    login_failures: u16,
}

/// The states of RFC 1939 section 3; UPDATE is the task that ends a transaction.
#[derive(Debug)]
enum State {
    Authorization {
        /// The argument of USER.
        user: Option<String>,
        /// UTF8 was given.
        utf8: bool,
    },
    Transaction(Box<View>),
}

/// What is being done.
#[derive(Debug)]
enum Task {
    /// Nothing: the next line is a command.
    Command,
    /// The next line is a response in this exchange.
    Response(Box<Exchange>),
    /// A question of this exchange is asked; none: that of PASS.
    LoggingIn(Option<Box<Exchange>>),
    /// The maildrop is being opened.
    Opening,
    /// The size of one message is asked, for LIST.
    Sizing { number: u32, uid: Uid },
    /// The size of one message is asked, for DELE.
    Deleting { number: u32, uid: Uid },
    /// A reply of many lines.
    Listing(Listing),
    /// A message on its way: RETR or TOP.
    Sending(Sending),
    /// The UPDATE state.
    Updating { left: u32 },
    /// After the reply to STLS.
    StartingTls,
    /// What is to be said is said; then the connection closes.
    Leaving,
}

/// LIST or UIDL of all messages.
#[derive(Debug)]
struct Listing {
    cursor: Cursor,
    rows: Rows,
}

#[derive(Debug)]
enum Rows {
    /// UIDL needs no question.
    UniqueIds,
    /// LIST: sizes that were told and are not yet listed; `all` when no more are to come.
    Sizes { told: std::iter::Peekable<std::vec::IntoIter<(Uid, u32)>>, all: bool },
}

#[derive(Debug)]
struct Sending {
    uid: Uid,
    writer: BodyWriter,
    /// Bytes of the message so far.
    offset: u64,
    top: bool,
    begun: bool,
    /// More bytes are wanted once `out` is taken.
    more: bool,
}

impl Session {
    /// Begins a connection. `name` is the server's, for the greeting; `clear_login` says whether
    /// USER, PASS and AUTH work without TLS (off but for a setting for loopback).
    #[must_use]
    pub fn new(config: Arc<Pop3Config>, name: &str, clear_login: bool) -> Self {
        Self {
            config,
            tls: false,
            channel: None,
            clear_login,
            state: State::Authorization { user: None, utf8: false },
            task: Task::Command,
            line: Vec::new(),
            overlong: false,
            // No angle brackets: an APOP timestamp would look so (RFC 1939 section 7).
            out: format!("+OK {name} POP3 server ready\r\n").into_bytes(),
            given: false,
            ask: None,
            bad_commands: 0,
            login_failures: 0,
        }
    }

    fn say(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    fn may_log_in(&self) -> bool {
        self.tls || self.clear_login
    }

    /// Answers a line that is no command.
    fn bad(&mut self, why: &str) {
        self.bad_commands += 1;
        if self.bad_commands > self.config.bad_commands_max {
            self.say("-ERR too many bad commands");
            self.task = Task::Leaving;
        } else {
            self.say(&format!("-ERR {why}"));
        }
    }

    fn ask(&mut self, inquiry: Inquiry, task: Task) {
        self.ask = Some(Request::Maildrop(inquiry));
        self.task = task;
    }

    fn line_max(&self) -> usize {
        let is_auth = self.line.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"AUTH "));
        if is_auth || matches!(self.task, Task::Response(_)) { RESPONSE_LINE_MAX } else { COMMAND_LINE_MAX }
    }

    /// Takes a whole line, its end included.
    fn take_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        let overlong = std::mem::take(&mut self.overlong);
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        match std::mem::replace(&mut self.task, Task::Command) {
            Task::Response(_) if overlong => self.refuse(Refusal::Malformed),
            Task::Response(mut exchange) => match sasl::decode_response(text) {
                Ok(response) => {
                    let next = exchange.respond(&response);
                    self.go_on(exchange, next);
                }
                Err(refusal) => self.refuse(refusal),
            },
            _ if overlong => self.bad("line too long"),
            _ => match Command::parse(text) {
                Ok(command) => self.obey(command),
                // A web browser: every line of its request would be one more bad command.
                Err(_) if text.windows(6).any(|word| word == b" HTTP/") => self.task = Task::Leaving,
                Err(CommandError::Unknown) => self.bad("unknown command"),
                Err(CommandError::Arguments(usage)) => self.bad(usage),
            },
        }
        // It may have held a password.
        line.zeroize();
    }

    fn obey(&mut self, command: Command) {
        match (command, &mut self.state) {
            (Command::Capa, _) => self.capabilities(),
            (Command::Quit, State::Authorization { .. }) => {
                self.say("+OK goodbye");
                self.task = Task::Leaving;
            }
            (Command::Quit, State::Transaction(_)) => self.update(),
            (command, State::Authorization { .. }) => self.authorize(command),
            (Command::Noop, State::Transaction(_)) => self.say("+OK"),
            (Command::Rset, State::Transaction(view)) => {
                view.reset();
                let (messages, octets) = view.left();
                self.say(&format!("+OK maildrop has {messages} messages ({octets} octets)"));
            }
            (Command::Stat, State::Transaction(view)) => {
                let (messages, octets) = view.left();
                self.say(&format!("+OK {messages} {octets}"));
            }
            (Command::List(None), State::Transaction(view)) => {
                let (messages, octets) = view.left();
                self.say(&format!("+OK {messages} messages ({octets} octets)"));
                let rows = Rows::Sizes { told: Vec::new().into_iter().peekable(), all: false };
                self.task = Task::Listing(Listing { cursor: Cursor::default(), rows });
            }
            (Command::Uidl(None), State::Transaction(_)) => {
                self.say("+OK unique ids follow");
                self.task = Task::Listing(Listing { cursor: Cursor::default(), rows: Rows::UniqueIds });
            }
            (Command::Uidl(Some(number)), State::Transaction(view)) => {
                let reply = match view.uid(number) {
                    Ok(uid) => format!("+OK {number} {}", view.unique_id(uid)),
                    Err(error) => no_message(error),
                };
                self.say(&reply);
            }
            (Command::List(Some(number)), State::Transaction(_)) => {
                self.size_of(number, |number, uid| Task::Sizing { number, uid });
            }
            (Command::Dele(number), State::Transaction(_)) => {
                self.size_of(number, |number, uid| Task::Deleting { number, uid });
            }
            (Command::Retr(number), State::Transaction(_)) => self.send(number, None),
            (Command::Top(number, lines), State::Transaction(_)) => self.send(number, Some(lines)),
            (
                Command::Stls
                | Command::Utf8
                | Command::User(_)
                | Command::Pass(_)
                | Command::AuthList
                | Command::Auth(..),
                State::Transaction(_),
            ) => self.say("-ERR only before login"),
        }
    }

    fn view(&mut self) -> Option<&mut View> {
        match &mut self.state {
            State::Transaction(view) => Some(view),
            State::Authorization { .. } => None,
        }
    }
}

/// `-ERR` for a number that names no message.
fn no_message(error: NumberError) -> String {
    match error {
        NumberError::None => "-ERR no such message".to_owned(),
        NumberError::Deleted => "-ERR the message is deleted".to_owned(),
    }
}

impl crate::protocol::Session for Session {
    type Request = Request;
    type Answer = Answer;

    fn next(&mut self) -> Step<'_, Request> {
        loop {
            if std::mem::take(&mut self.given) {
                self.out.clear();
            }
            if !self.out.is_empty() {
                self.given = true;
                return Step::Write(&self.out);
            }
            if let Some(request) = self.ask.take() {
                return Step::Ask(request);
            }
            if self.continue_long_reply() {
                continue;
            }
            return match self.task {
                Task::StartingTls => Step::StartTls,
                Task::Leaving => Step::Close,
                _ => {
                    // Idle connections hold no buffer.
                    self.out = Vec::new();
                    Step::Read
                }
            };
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> usize {
        if bytes.is_empty() {
            // A connection that is lost removes nothing (RFC 1939 section 6).
            self.out = Vec::new();
            self.ask = None;
            self.task = Task::Leaving;
            return 0;
        }
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(bytes.len(), |end| end + 1);
        let part = bytes.get(..taken).unwrap_or(bytes);
        let max = RESPONSE_LINE_MAX.max(COMMAND_LINE_MAX);
        if !self.overlong && self.line.len() + part.len() <= max {
            self.line.extend_from_slice(part);
            self.overlong = self.line.len() > self.line_max();
        } else {
            self.overlong = true;
        }
        if self.overlong {
            self.line.zeroize();
            self.line = Vec::new();
        }
        if end.is_some() {
            self.take_line();
        }
        taken
    }

    fn resume(&mut self, answer: Answer) {
        match (std::mem::replace(&mut self.task, Task::Command), answer) {
            (Task::LoggingIn(Some(mut exchange)), Answer::Sasl(answer)) => {
                let next = exchange.resume(answer);
                self.go_on(exchange, next);
            }
            (Task::LoggingIn(None), Answer::Sasl(sasl::Answer::Login(Ok(identity)))) => self.open(identity.account),
            (Task::LoggingIn(None), Answer::Sasl(sasl::Answer::Login(Err(refusal)))) => self.refuse(refusal),
            (Task::Opening, Answer::Maildrop(Finding::Open(Ok(maildrop)))) => {
                let view = View::new(maildrop);
                let (messages, octets) = view.left();
                self.state = State::Transaction(Box::new(view));
                self.say(&format!("+OK maildrop has {messages} messages ({octets} octets)"));
            }
            (Task::Opening, Answer::Maildrop(Finding::Open(Err(OpenError::InUse)))) => {
                self.say("-ERR [IN-USE] another session has the maildrop");
            }
            (Task::Sizing { number, uid }, Answer::Maildrop(Finding::Sizes(Ok(rows)))) => {
                self.say(&format!("+OK {number} {}", size_in(&rows, uid)));
            }
            (Task::Deleting { number, uid }, Answer::Maildrop(Finding::Sizes(Ok(rows)))) => {
                if let Some(view) = self.view() {
                    view.delete(uid, size_in(&rows, uid));
                }
                self.say(&format!("+OK message {number} deleted"));
            }
            (Task::Listing(mut listing), Answer::Maildrop(Finding::Sizes(Ok(rows)))) => {
                let all = rows.len() < SIZES_MAX;
                listing.rows = Rows::Sizes { told: rows.into_iter().peekable(), all };
                self.task = Task::Listing(listing);
            }
            // The listing has begun: only a closed connection can still say that it is not whole.
            (Task::Listing(_), _) => self.task = Task::Leaving,
            (Task::Sending(sending), Answer::Maildrop(Finding::Piece(found))) => self.send_piece(sending, found),
            (Task::Updating { left }, Answer::Maildrop(Finding::Update(Ok(())))) => {
                self.say(&format!("+OK goodbye, {left} messages left"));
                self.task = Task::Leaving;
            }
            (Task::Updating { .. }, _) => {
                self.say("-ERR [SYS/TEMP] some deleted messages not removed");
                self.task = Task::Leaving;
            }
            _ => self.say("-ERR [SYS/TEMP] try again later"),
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Changed => {}
            // RFC 1939 section 3: no response, nothing removed.
            Notice::Silence => self.task = Task::Leaving,
            Notice::Stopping => {
                self.say("-ERR [SYS/TEMP] the server stops");
                self.task = Task::Leaving;
            }
        }
    }

    fn tls_started(&mut self, tls: TlsFacts) {
        self.tls = true;
        self.channel = tls.channel.kept();
        self.line.clear();
        self.overlong = false;
        if matches!(self.task, Task::StartingTls) {
            self.task = Task::Command;
        }
    }

    fn patience(&self) -> Duration {
        let secs = match self.state {
            State::Authorization { .. } => self.config.login_max_secs,
            State::Transaction(_) => self.config.idle_max_secs,
        };
        Duration::from_secs(secs.into())
    }
}

/// The size of `uid` among the rows; 0 when another program has removed it.
fn size_in(rows: &[(Uid, u32)], uid: Uid) -> u32 {
    rows.iter().find(|row| row.0 == uid).map_or(0, |row| row.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::Address;
    use crate::mail::mailbox::{AccountId, UidValidity};
    use crate::mail::secret::{ScramVerifier, tests::password};
    use crate::protocol::Session as _;
    use crate::protocol::pop3::{Maildrop, Piece, PieceError, Unavailable};
    use crate::protocol::sasl::Identity;
    use proptest::prelude::*;
    use std::num::NonZeroU32;

    /// A maildrop in memory: what a desk would say.
    struct World {
        messages: Vec<(u32, &'static str)>,
        /// Pieces of so many bytes.
        piece: usize,
        /// Offset from which reading fails.
        broken_at: Option<u64>,
        /// What was removed, once it was.
        removed: Option<Vec<u32>>,
        inquiries: usize,
    }

    impl World {
        fn new(messages: &[(u32, &'static str)]) -> Self {
            Self { messages: messages.to_vec(), piece: 5, broken_at: None, removed: None, inquiries: 0 }
        }

        fn answer(&mut self, request: Request) -> Answer {
            let identity = Identity { account: AccountId(1), address: Address::parse("ann@pillarbox.test").unwrap() };
            let inquiry = match request {
                Request::Sasl(sasl::Request::CheckPassword { login, password }) => {
                    let right = login == "ann" && password.reveal() == "secret";
                    return Answer::Sasl(sasl::Answer::Login(right.then_some(identity).ok_or(Refusal::Credentials)));
                }
                Request::Sasl(sasl::Request::Verifier { .. }) => {
                    let verifier = ScramVerifier::derive(&password("secret"), [1; 16], 2);
                    return Answer::Sasl(sasl::Answer::Verifier { verifier, nonce: [2; 18] });
                }
                Request::Sasl(sasl::Request::Certificate { .. }) => {
                    return Answer::Sasl(sasl::Answer::Login(Ok(identity)));
                }
                Request::Sasl(sasl::Request::Concluded { .. }) => {
                    return Answer::Sasl(sasl::Answer::Login(Err(Refusal::LockedOut {
                        retry: Duration::from_secs(9),
                    })));
                }
                Request::Maildrop(inquiry) => inquiry,
            };
            self.inquiries += 1;
            Answer::Maildrop(match inquiry {
                Inquiry::Open { .. } => Finding::Open(Ok(Maildrop {
                    uid_validity: UidValidity(NonZeroU32::new(7).unwrap()),
                    uids: self.messages.iter().filter_map(|message| Uid::new(message.0)).collect(),
                    octets: self.messages.iter().map(|message| message.1.len() as u64).sum(),
                })),
                Inquiry::Sizes { first, last } => {
                    let wanted = |message: &&(u32, &str)| (first.get()..=last.get()).contains(&message.0);
                    let row =
                        |message: &(u32, &str)| (Uid::new(message.0).unwrap(), u32::try_from(message.1.len()).unwrap());
                    Finding::Sizes(Ok(self.messages.iter().filter(wanted).take(SIZES_MAX).map(row).collect()))
                }
                Inquiry::Piece { uid, offset } => {
                    let body = self.messages.iter().find(|message| message.0 == uid.get());
                    Finding::Piece(match body {
                        _ if self.broken_at.is_some_and(|at| offset >= at) => Err(PieceError::Unavailable),
                        None => Err(PieceError::Gone),
                        Some((_, body)) => {
                            let rest = &body.as_bytes()[usize::try_from(offset).unwrap()..];
                            let bytes = rest[..rest.len().min(self.piece)].to_vec();
                            let end = bytes.len() == rest.len();
                            Ok(Piece { bytes, size: body.len() as u64, end })
                        }
                    })
                }
                Inquiry::Update { remove } => {
                    self.removed = Some(remove.iter().map(Uid::get).collect());
                    Finding::Update(if self.broken_at.is_some() { Err(Unavailable) } else { Ok(()) })
                }
            })
        }
    }

    /// Runs a session over `input` to its end; tells what it said and whether it closed by itself.
    fn talk(session: &mut Session, world: &mut World, mut input: &[u8], cut: usize) -> (String, bool) {
        let (mut said, mut asked) = (Vec::new(), None);
        loop {
            match session.next() {
                Step::Write(bytes) => said.extend_from_slice(bytes),
                Step::Ask(request) => asked = Some(request),
                Step::Read if input.is_empty() => return (String::from_utf8(said).unwrap(), false),
                Step::Read => {
                    assert!(session.line.len() <= RESPONSE_LINE_MAX && session.out.capacity() == 0);
                    let taken = session.receive(&input[..input.len().min(cut)]);
                    assert!(taken > 0);
                    input = &input[taken..];
                }
                Step::StartTls => session.tls_started(TlsFacts::default()),
                Step::Close => return (String::from_utf8(said).unwrap(), true),
            }
            if let Some(request) = asked.take() {
                session.resume(world.answer(request));
            }
        }
    }

    fn fresh() -> Session {
        Session::new(Arc::default(), "pillarbox.test", true)
    }

    /// What is said to `commands` after a login.
    fn replies(world: &mut World, commands: &str) -> (String, bool) {
        let input = format!("USER ann\r\nPASS secret\r\n{commands}");
        let (said, closed) = talk(&mut fresh(), world, input.as_bytes(), 1000);
        (said.splitn(4, "\r\n").nth(3).unwrap().to_owned(), closed)
    }

    #[test]
    fn a_long_listing_is_asked_for_in_batches_and_told_whole() {
        let messages: Vec<_> = (1..=3000).map(|number| (number * 2, "hello")).collect();
        let mut world = World::new(&messages);
        let (said, _) = replies(&mut world, "DELE 2\r\nLIST\r\n");
        let rows = (1..=3000).filter(|n| *n != 2).map(|number| format!("{number} 5\r\n")).collect::<Vec<_>>().concat();
        assert_eq!(said, format!("+OK message 2 deleted\r\n+OK 2999 messages (14995 octets)\r\n{rows}.\r\n"));
        assert_eq!(world.inquiries, 2 + 3000 / SIZES_MAX + 1);
        let (said, _) = replies(&mut world, "UIDL\r\n");
        let rows = (1..=3000).map(|number| format!("{number} 7-{}\r\n", number * 2)).collect::<Vec<_>>().concat();
        assert_eq!(said, format!("+OK unique ids follow\r\n{rows}.\r\n"));
    }

    #[test]
    fn a_listing_holds_no_more_than_a_chunk() {
        let messages: Vec<_> = (1..=100_000).map(|number| (number, "hello")).collect();
        let (mut session, mut world) = (fresh(), World::new(&messages));
        talk(&mut session, &mut world, b"USER ann\r\nPASS secret\r\n", 1000);
        session.receive(b"LIST\r\n");
        let mut asked = None;
        loop {
            match session.next() {
                Step::Write(bytes) => assert!(bytes.len() < LISTING_CHUNK + 64),
                Step::Ask(request) => asked = Some(request),
                _ => break,
            }
            if let Some(request) = asked.take() {
                session.resume(world.answer(request));
            }
        }
    }

    #[test]
    fn a_message_that_vanishes_keeps_its_number() {
        let (mut session, mut world) = (fresh(), World::new(&[(3, "one"), (5, "two"), (9, "three")]));
        talk(&mut session, &mut world, b"USER ann\r\nPASS secret\r\n", 1000);
        world.messages.remove(1);
        let (said, _) =
            talk(&mut session, &mut world, b"LIST\r\nLIST 2\r\nRETR 2\r\nRETR 3\r\nDELE 2\r\nSTAT\r\n", 1000);
        assert_eq!(
            said,
            "+OK 3 messages (11 octets)\r\n1 3\r\n2 0\r\n3 5\r\n.\r\n+OK 2 0\r\n\
             -ERR the message was removed by another program\r\n+OK 5 octets\r\nthree\r\n.\r\n\
             +OK message 2 deleted\r\n+OK 2 11\r\n"
        );
    }

    #[test]
    fn top_asks_for_no_more_of_a_message_than_it_sends() {
        let mut world = World::new(&[(1, "A: b\r\n\r\none\r\ntwo\r\nthree\r\nfour\r\nfive\r\n")]);
        let (said, _) = replies(&mut world, "TOP 1 1\r\n");
        assert_eq!(said, "+OK top of message follows\r\nA: b\r\n\r\none\r\n.\r\n");
        assert_eq!(world.inquiries, 1 + 3);
    }

    #[test]
    fn a_body_that_breaks_off_ends_the_connection_without_the_lone_dot() {
        let mut world = World::new(&[(1, "0123456789")]);
        world.broken_at = Some(5);
        assert_eq!(replies(&mut world, "RETR 1\r\nNOOP\r\n"), ("+OK 10 octets\r\n01234".to_owned(), true));
        world.broken_at = Some(0);
        let (said, closed) = replies(&mut world, "RETR 1\r\n");
        assert_eq!((said.as_str(), closed), ("-ERR [SYS/TEMP] try again later\r\n", false));
    }

    #[test]
    fn only_quit_removes_and_a_failed_removal_is_told() {
        for lost in ["", "QUI"] {
            let (mut session, mut world) = (fresh(), World::new(&[(3, "one"), (5, "two")]));
            let input = format!("USER ann\r\nPASS secret\r\nDELE 2\r\n{lost}");
            talk(&mut session, &mut world, input.as_bytes(), 1000);
            assert_eq!(session.receive(b""), 0);
            assert!(matches!(session.next(), Step::Close) && world.removed.is_none());
        }
        let mut world = World::new(&[(3, "one"), (5, "two")]);
        let (said, closed) = replies(&mut world, "DELE 2\r\nQUIT\r\n");
        assert_eq!((said.as_str(), closed), ("+OK message 2 deleted\r\n+OK goodbye, 1 messages left\r\n", true));
        assert_eq!(world.removed, Some(vec![5]));
        world.broken_at = Some(0);
        let (said, _) = replies(&mut world, "DELE 1\r\nQUIT\r\n");
        assert!(said.ends_with("-ERR [SYS/TEMP] some deleted messages not removed\r\n"), "{said}");
    }

    #[test]
    fn silence_says_nothing_and_a_stop_says_so() {
        let (mut session, mut world) = (fresh(), World::new(&[]));
        talk(&mut session, &mut world, b"", 1);
        assert_eq!(session.patience(), Duration::from_mins(2));
        talk(&mut session, &mut world, b"USER ann\r\nPASS secret\r\n", 1000);
        assert_eq!(session.patience(), Duration::from_mins(10));
        session.notice(Notice::Silence);
        assert!(matches!(session.next(), Step::Close) && world.removed.is_none());

        let (mut session, mut world) = (fresh(), World::new(&[]));
        talk(&mut session, &mut world, b"", 1);
        session.notice(Notice::Stopping);
        assert_eq!(talk(&mut session, &mut world, b"", 1), ("-ERR [SYS/TEMP] the server stops\r\n".to_owned(), true));
    }

    #[test]
    fn a_line_of_any_length_is_answered_once_and_not_kept() {
        for (start, max) in [("NOOP ", COMMAND_LINE_MAX), ("AUTH PLAIN ", RESPONSE_LINE_MAX)] {
            for length in [max - 1, max, max + 1, 100_000] {
                let line = format!("{start}{}\r\n", "A".repeat(length - start.len() - 2));
                for cut in [7, 100_000] {
                    let (said, _) = talk(&mut fresh(), &mut World::new(&[]), line.as_bytes(), cut);
                    let replies: Vec<_> = said.lines().skip(1).collect();
                    assert_eq!(replies.len(), 1, "{start}{length}");
                    assert_eq!(replies[0] == "-ERR line too long", length > max, "{start}{length} {replies:?}");
                }
            }
        }
    }

    #[test]
    fn what_a_lockout_says_ends_the_connection() {
        let input = b"AUTH SCRAM-SHA-256 biwsbj1hbm4scj1hYmM=\r\n";
        let (mut session, mut world) = (fresh(), World::new(&[]));
        let (said, _) = talk(&mut session, &mut world, input, 1000);
        let nonce = said.rsplit_once("+ ").unwrap().1.trim_end();
        let challenge = String::from_utf8(sasl::decode_response(nonce.as_bytes()).unwrap().to_vec()).unwrap();
        let nonce = challenge.split(',').next().unwrap();
        let response = sasl::encode_challenge(format!("c=biws,{nonce},p={}", "A".repeat(43) + "=").as_bytes());
        let (said, closed) = talk(&mut session, &mut world, format!("{response}\r\n").as_bytes(), 1000);
        assert_eq!((said.as_str(), closed), ("-ERR [SYS/TEMP] too many failures, try again in 9 seconds\r\n", true));
    }

    proptest! {
        #[test]
        fn commands_mean_the_same_however_they_are_cut(
            commands in proptest::collection::vec(
                proptest::sample::select(vec![
                    "CAPA", "STLS", "UTF8", "USER ann", "PASS secret", "PASS x", "AUTH", "AUTH PLAIN", "*", "=", "AGFubgBzZWNyZXQ=",
                    "AUTH SCRAM-SHA-256 biwsbj1hbm4scj1hYmM=", "STAT", "LIST", "LIST 2", "UIDL", "UIDL 1", "RETR 1", "RETR 3",
                    "TOP 2 1", "DELE 1", "DELE 2", "RSET", "NOOP", "QUIT", "", "\0", "RETR 0", "GET / HTTP/1.1",
                ]),
                0..30,
            ),
            cut in 1_usize..9,
        ) {
            let messages = [(2, "A: b\r\n\r\n.\r\nx"), (3, ""), (8, "three\n")];
            let input = commands.iter().map(|command| format!("{command}\r\n")).collect::<Vec<_>>().concat();
            let whole = talk(&mut fresh(), &mut World::new(&messages), input.as_bytes(), 10_000);
            let pieces = talk(&mut fresh(), &mut World::new(&messages), input.as_bytes(), cut);
            prop_assert_eq!(whole, pieces);
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(input in proptest::collection::vec(any::<u8>(), 0..200), cut in 1_usize..50) {
            let mut session = fresh();
            let (mut world, mut rest) = (World::new(&[(1, "x")]), input.as_slice());
            talk(&mut session, &mut world, b"USER ann\r\nPASS secret\r\n", 100);
            while let Step::Read = session.next() {
                if rest.is_empty() {
                    break;
                }
                let taken = session.receive(&rest[..rest.len().min(cut)]);
                rest = &rest[taken..];
                while let Step::Write(_) = session.next() {}
            }
        }
    }
}
