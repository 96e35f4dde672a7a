//! What transcripts cannot show: how a receiver behaves whatever the bytes and however they are cut.

use proptest::prelude::*;

use super::*;
use crate::mail::envelope::ReversePath;
use crate::mail::mailbox::AccountId;
use crate::protocol::smtp::content::{FETCH_MAX, PIECE_MAX};

/// A world that knows everybody but `n...`, and keeps what it is given.
#[derive(Debug, Default, PartialEq, Eq)]
struct World {
    said: Vec<u8>,
    letter: Vec<u8>,
    kept: Vec<Vec<u8>>,
    /// Pieces that are left of what a URL names, and how many were fetched.
    fetched: (usize, usize),
    tls_asked: bool,
    closed: bool,
}

impl World {
    fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Sasl(_) => return Answer::Sasl(sasl::Answer::Login(Err(sasl::Refusal::Credentials))),
            Request::Recipient(recipient) => {
                if recipient.path.address().is_some_and(|address| address.local().starts_with('n')) {
                    return Answer::Refused(Reply::new(550, "5.1.1", "unknown"));
                }
            }
            Request::Begin(_) | Request::Discard(_) => self.letter.clear(),
            Request::Fetch(pieces) => {
                let Ok(pieces) = pieces.parse() else {
                    return Answer::Refused(Reply::new(554, "5.6.6", "no such URL"));
                };
                self.fetched.0 = pieces;
                return self.answer(Request::FetchMore);
            }
            Request::FetchMore if self.fetched.0 == 0 => return Answer::Fetched(Vec::new()),
            Request::FetchMore => {
                self.fetched = (self.fetched.0 - 1, self.fetched.1 + 1);
                return Answer::Fetched("fetched\n".repeat(FETCH_MAX / 8).into_bytes());
            }
            Request::Body(piece) => {
                assert!(!piece.is_empty() && piece.len() <= PIECE_MAX, "{} bytes", piece.len());
                self.letter.extend(piece);
            }
            Request::Finish => self.kept.push(std::mem::take(&mut self.letter)),
            Request::Sender(sender) => assert!(sender.from != ReversePath::Null || sender.role == Role::Exchange),
        }
        Answer::Accepted
    }
}

fn receiver(role: Role) -> Receiver {
    let config = SmtpConfig { message_max_bytes: 100_000, ..SmtpConfig::default() };
    Receiver::new(Setup {
        role,
        name: "box.test".into(),
        config: Arc::new(config),
        peer: IpAddr::from([127, 0, 0, 1]),
        starttls: true,
        login_in_clear: true,
        open: false,
    })
}

/// Plays a client that sends `input` in pieces of `cut` bytes.
fn play(role: Role, input: &[u8], cut: usize) -> World {
    play_with(receiver(role), input, cut)
}

fn play_with(mut receiver: Receiver, input: &[u8], cut: usize) -> World {
    let (mut world, mut rest) = (World::default(), input);
    loop {
        match receiver.next() {
            Step::Write(bytes) => world.said.extend_from_slice(bytes),
            Step::Ask(request) => {
                let answer = world.answer(request);
                receiver.resume(answer);
            }
            Step::Read => {
                let offered = rest.get(..cut).unwrap_or(rest);
                let taken = receiver.receive(offered);
                assert!(taken <= offered.len() && (taken > 0 || offered.is_empty()));
                rest = &rest[taken..];
            }
            Step::StartTls => {
                world.tls_asked = true;
                return world;
            }
            Step::Close => {
                world.closed = true;
                return world;
            }
        }
    }
}

fn said(world: &World) -> Vec<&str> {
    std::str::from_utf8(&world.said).unwrap().lines().collect()
}

#[test]
fn a_large_message_passes_in_bounded_pieces() {
    let line = "0123456789012345678901234567890123456789\r\n";
    let body = line.repeat(2_000);
    let input = format!("EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<b@c>\r\nDATA\r\n{body}.\r\nQUIT\r\n");
    let world = play(Role::Exchange, input.as_bytes(), 1_000_000);
    assert_eq!(world.kept, [body.into_bytes()]);
}

#[test]
fn a_message_in_more_chunks_than_commands_are_allowed_is_kept() {
    let mut input = "EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<b@c>\r\n".to_owned();
    input.push_str(&"BDAT 6\r\nline\r\n".repeat(300));
    input.push_str("BDAT 0 LAST\r\nQUIT\r\n");
    let world = play(Role::Exchange, input.as_bytes(), 1_000_000);
    assert_eq!(world.kept, ["line\r\n".repeat(300).into_bytes()]);
    // Chunks without content lead nowhere and are counted.
    let input = "EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<b@c>\r\n".to_owned() + &"BDAT 0\r\n".repeat(300);
    assert!(said(&play(Role::Exchange, input.as_bytes(), 99)).last().unwrap().starts_with("421 4.7.0"));
}

/// What becomes of a message that somebody who has logged in sends by these commands.
fn submitted(commands: &str) -> World {
    let mut receiver = receiver(Role::Submission);
    receiver.login = Some(sasl::Identity { account: AccountId(1), address: Address::parse("a@b").unwrap() });
    let input = format!("EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<b@c>\r\n{commands}QUIT\r\n");
    play_with(receiver, input.as_bytes(), 1_000_000)
}

#[test]
fn what_a_url_names_passes_in_bounded_pieces_and_its_line_ends_are_repaired() {
    let world = submitted("BURL 2\r\nBDAT 3\r\nx\r\nBURL 0\r\nBURL 1 LAST\r\n");
    let lines = |pieces: usize| "fetched\r\n".repeat(pieces * FETCH_MAX / 8);
    assert_eq!(world.kept, [format!("{}x\r\n{}", lines(2), lines(1)).into_bytes()]);
}

#[test]
fn a_url_larger_than_a_message_may_be_is_fetched_no_further() {
    let world = submitted("BURL 1000 LAST\r\nNOOP\r\n");
    assert!(world.kept.is_empty() && world.letter.is_empty());
    assert!(world.fetched.1 <= 100_000 / FETCH_MAX + 1, "{} pieces", world.fetched.1);
    let said = said(&world);
    assert_eq!(said[said.len() - 3..said.len() - 1], ["552 5.3.4 message too big", "250 2.0.0 ok"]);
    let world = submitted("BURL 1\r\nBURL none LAST\r\nBDAT 1 LAST\r\nx");
    assert!(world.kept.is_empty() && world.letter.is_empty());
}

#[test]
fn a_message_that_comes_too_slowly_ends_the_connection() {
    let mut receiver = receiver(Role::Exchange);
    let (mut world, mut out) = (World::default(), Vec::new());
    let mut rest: &[u8] = b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<b@c>\r\nDATA\r\nSubject: a";
    loop {
        match receiver.next() {
            Step::Read if rest.is_empty() => {
                assert!(receiver.wants_changes());
                receiver.notice(Notice::Changed);
            }
            Step::Read => {
                assert!(!receiver.wants_changes() || matches!(receiver.state, State::Receiving { .. }));
                rest = &rest[receiver.receive(rest)..];
            }
            Step::Write(bytes) => out.extend_from_slice(bytes),
            Step::Ask(request) => {
                let answer = world.answer(request);
                receiver.resume(answer);
            }
            Step::Close => break,
            Step::StartTls => panic!("nobody asked for TLS"),
        }
    }
    assert!(String::from_utf8(out).unwrap().ends_with("\r\n421 4.4.2 the message comes too slowly\r\n"));
    assert!(world.kept.is_empty());
}

#[test]
fn a_message_of_bare_returns_stays_within_the_size_that_was_announced() {
    let mut input = b"EHLO c\r\nAUTH PLAIN\r\n".to_vec();
    assert!(said(&play(Role::Submission, &input, 99)).last().unwrap().starts_with("334"));
    input = b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<b@c>\r\nDATA\r\n".to_vec();
    input.extend(std::iter::repeat_n(b'\n', 60_000));
    input.extend(b"\r\n.\r\n");
    let mut receiver = receiver(Role::Submission);
    receiver.login =
        Some(sasl::Identity { account: crate::mail::mailbox::AccountId(1), address: Address::parse("a@b").unwrap() });
    let (mut world, mut rest, mut out) = (World::default(), input.as_slice(), Vec::new());
    while !rest.is_empty() {
        match receiver.next() {
            Step::Read => rest = &rest[receiver.receive(rest)..],
            Step::Write(bytes) => out.extend_from_slice(bytes),
            Step::Ask(request) => {
                let answer = world.answer(request);
                receiver.resume(answer);
            }
            step => panic!("{step:?}"),
        }
    }
    while let Step::Write(bytes) = receiver.next() {
        out.extend_from_slice(bytes);
    }
    assert!(String::from_utf8(out).unwrap().ends_with("552 5.3.4 message too big\r\n"));
    assert!(world.kept.is_empty() && world.letter.is_empty());
}

#[test]
fn an_idle_receiver_holds_no_buffers() {
    let mut receiver = receiver(Role::Exchange);
    for line in ["EHLO client.test\r\n", "MAIL FROM:<a@b>\r\n", "RSET\r\n"] {
        loop {
            match receiver.next() {
                Step::Write(_) => {}
                Step::Ask(_) => receiver.resume(Answer::Accepted),
                _ => break,
            }
        }
        assert_eq!((receiver.out.capacity(), receiver.line.is_empty()), (0, true));
        receiver.receive(line.as_bytes());
    }
}

/// Pieces of sessions, put together at random.
fn words() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&'static [u8]> = vec![
        b"EHLO c\r\n",
        b"HELO c\r\n",
        b"MAIL FROM:<a@b>\r\n",
        b"MAIL FROM:<a@b> BODY=BINARYMIME\r\n",
        b"RCPT TO:<b@c>\r\n",
        b"RCPT TO:<nobody@c>\r\n",
        b"DATA\r\n",
        b"text\r\n",
        b"..\r\n",
        b".\r\n",
        b".\n",
        b"\n",
        b"\r",
        b"\r\n",
        b"BDAT 5\r\n",
        b"BDAT 7 LAST\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT 999999999\r\n",
        b"BURL 1\r\n",
        b"BURL 1 LAST\r\n",
        b"RSET\r\n",
        b"AUTH LOGIN\r\n",
        b"AUTH PLAIN AHUAcA==\r\n",
        b"*\r\n",
        b"NOOP\r\n",
        b"STARTTLS\r\n",
        b"QUIT\r\n",
        b"GET / HTTP/1.1\r\n",
        b"\x16",
        b"\0",
    ];
    prop::collection::vec(prop::sample::select(words), 0..40).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn how_the_bytes_are_cut_changes_nothing(input in words(), cut in 1_usize..30, submission in any::<bool>()) {
        let role = if submission { Role::Submission } else { Role::Exchange };
        prop_assert_eq!(play(role, &input, cut), play(role, &input, 100_000));
    }

    #[test]
    fn nothing_kept_on_port_25_has_a_bare_cr_or_lf(input in words(), data in any::<bool>()) {
        let start: &[u8] = if data { b"DATA\r\n" } else { b"BDAT 5\r\ntext\r" };
        let input = [b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<b@c>\r\n", start, input.as_slice()].concat();
        if !input.windows(10).any(|ten| ten == b"BINARYMIME") {
            for kept in play(Role::Exchange, &input, 1000).kept {
                let text = String::from_utf8(kept).unwrap().replace("\r\n", "");
                prop_assert!(!text.contains(['\r', '\n']));
            }
        }
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic(input in prop::collection::vec(any::<u8>(), 0..300), cut in 1_usize..30) {
        prop_assert!(play(Role::Submission, &input, cut).closed);
    }
}
