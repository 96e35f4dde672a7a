//! The sender against our own receiver, and against peers that say anything.

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::mail::address::Address;
use crate::mail::envelope::{BodyType, ForwardPath, Notify, Recipient, ReversePath};
use crate::mail::secret::Password;
use crate::protocol::smtp::{self, Receiver, Role, Setup, SmtpConfig};
use crate::protocol::{Notice, Session, Step};

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn mail(text: &[u8], recipients: usize) -> Mail {
    let mut nature = NatureReader::default();
    nature.feed(text);
    let nature = nature.finish(false);
    let recipient = |number: usize| Recipient {
        path: ForwardPath::Address(address(&format!("r{number}@elsewhere.test"))),
        notify: Notify::default(),
        original: None,
    };
    Mail {
        envelope: Envelope {
            from: ReversePath::Address(address("ann@pillarbox.test")),
            recipients: (0..recipients).map(recipient).collect(),
            body: if nature.binary { BodyType::BinaryMime } else { BodyType::EightBitMime },
            utf8: false,
            ret: None,
            envelope_id: None,
        },
        size: text.len() as u64,
        nature,
        require_tls: false,
    }
}

/// The world behind a sender: messages that wait, and what became of them.
struct World {
    waiting: Vec<(Vec<u8>, usize)>,
    current: Option<(Vec<u8>, usize)>,
    piece: usize,
    done: Vec<Done>,
}

impl World {
    fn new(waiting: &[(&[u8], usize)], piece: usize) -> Self {
        let waiting = waiting.iter().rev().map(|(text, count)| (text.to_vec(), *count)).collect();
        Self { waiting, current: None, piece, done: Vec::new() }
    }

    fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Mail => {
                assert!(self.current.is_none(), "the message before was not done");
                self.current = self.waiting.pop();
                Answer::Mail(self.current.as_ref().map(|(text, count)| Box::new(mail(text, *count))))
            }
            Request::Body => {
                let (text, _) = self.current.as_mut().unwrap();
                let rest = text.split_off(self.piece.min(text.len()));
                Answer::Body(std::mem::replace(text, rest))
            }
            Request::Done(done) => {
                let (_, count) = self.current.take().unwrap();
                assert_eq!(done.recipients.len(), count);
                self.done.push(*done);
                Answer::Noted
            }
            Request::Derive(mut derive) => {
                derive.run();
                Answer::Derived(derive)
            }
        }
    }
}

fn sender() -> Sender {
    Sender::new(SenderSetup { helo: "pillarbox.test".to_owned(), tls: TlsWish::IfOffered, credentials: None })
}

/// The next bytes to be heard: so many, or a line.
fn next_piece(rest: &[u8], cut: Option<usize>) -> &[u8] {
    let line = || rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| at + 1);
    &rest[..cut.unwrap_or_else(line).min(rest.len())]
}

/// Lets a sender hear these bytes, cut so or line by line, and then that the peer has gone. What it said comes back.
fn hear(sender: &mut Sender, world: &mut World, input: &[u8], cut: Option<usize>) -> Vec<u8> {
    let (mut rest, mut said) = (input, Vec::new());
    loop {
        match sender.next() {
            Step::Write(bytes) => said.extend_from_slice(bytes),
            Step::Ask(request) => {
                let answer = world.answer(request);
                sender.resume(answer);
            }
            Step::Read => {
                let taken = sender.receive(next_piece(rest, cut));
                rest = &rest[taken..];
            }
            Step::StartTls => sender.tls_started(TlsFacts { description: "TLSv1.3".into(), ..TlsFacts::default() }),
            Step::Close => return said,
        }
    }
}

/// Lets a sender hear these lines and stops when it has taken them.
fn until(sender: &mut Sender, world: &mut World, mut lines: &[u8]) {
    while !lines.is_empty() {
        match sender.next() {
            Step::Read => lines = &lines[sender.receive(next_piece(lines, None))..],
            Step::Ask(request) => {
                let answer = world.answer(request);
                sender.resume(answer);
            }
            Step::Close => panic!("closed before {:?}", String::from_utf8_lossy(lines)),
            Step::Write(_) | Step::StartTls => {}
        }
    }
}

/// Both ends of our own, tied together. What the receiver kept comes back.
fn to_ourselves(world: &mut World, cut: usize) -> Vec<Vec<u8>> {
    let mut receiver = Receiver::new(Setup {
        role: Role::Exchange,
        name: "box.test".into(),
        config: Arc::new(SmtpConfig::default()),
        peer: IpAddr::from([192, 0, 2, 1]),
        starttls: true,
        login_in_clear: false,
        open: false,
    });
    let mut sender = sender();
    let (mut up, mut down): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    let (mut letter, mut kept) = (Vec::new(), Vec::new());
    loop {
        let moved = match receiver.next() {
            Step::Write(bytes) => {
                down.extend_from_slice(bytes);
                true
            }
            Step::Ask(request) => {
                match request {
                    smtp::Request::Body(piece) => letter.extend(piece),
                    smtp::Request::Finish => kept.push(std::mem::take(&mut letter)),
                    _ => {}
                }
                receiver.resume(smtp::Answer::Accepted);
                true
            }
            Step::Read if !up.is_empty() => {
                let taken = receiver.receive(up.get(..cut).unwrap_or(&up));
                up.drain(..taken);
                true
            }
            Step::StartTls => {
                up.clear();
                receiver.tls_started(TlsFacts { description: "TLSv1.3".into(), ..TlsFacts::default() });
                true
            }
            _ => false,
        };
        let step = match sender.next() {
            Step::Write(bytes) => {
                up.extend_from_slice(bytes);
                true
            }
            Step::Ask(request) => {
                let answer = world.answer(request);
                sender.resume(answer);
                true
            }
            Step::Read if !down.is_empty() => {
                // Replies are heard whole: what is cut off here would be more than was asked for.
                let taken = sender.receive(&down);
                down.drain(..taken);
                true
            }
            Step::StartTls => {
                sender.tls_started(TlsFacts { description: "TLSv1.3".into(), ..TlsFacts::default() });
                true
            }
            Step::Close => {
                assert_eq!(sender.end().how, How::Fine);
                return kept;
            }
            Step::Read => false,
        };
        assert!(moved || step, "both ends wait for one another");
    }
}

#[test]
fn more_replies_than_commands_end_the_connection() {
    let mut world = World::new(&[(b"text\r\n", 1)], 99);
    let mut sender = sender();
    let said = hear(&mut sender, &mut world, b"220 a\r\n220 b\r\n", Some(99));
    assert_eq!(said, b"");
    let How::Failed(heard) = sender.end().how else { panic!("no failure") };
    assert_eq!(heard.to_string(), "451 4.5.0 not understood at the greeting: more replies than commands");
    assert!(world.done.is_empty());
}

#[test]
fn an_acknowledged_message_stays_so_when_the_peer_talks_on() {
    let mut world = World::new(&[(b"text\r\n", 1), (b"text\r\n", 1)], 99);
    let mut sender = sender();
    until(&mut sender, &mut world, b"220 a\r\n250 a\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    hear(&mut sender, &mut world, b"250 kept\r\n250 what\r\n", Some(99));
    assert!(
        matches!(world.done.as_slice(), [Done { recipients, .. }, ..] if matches!(recipients[0], Outcome::Taken(_)))
    );
    assert!(matches!(sender.end().how, How::Failed(_)));
}

#[test]
fn what_a_peer_says_before_it_breaks_off_within_the_content_is_its_reason() {
    for (word, refused) in [("552 5.3.4 too big", true), ("421 4.3.2 closing", false)] {
        let mut world = World::new(&[(b"text\r\n", 1)], 2);
        let mut sender = sender();
        until(&mut sender, &mut world, b"220 a\r\n250 a\r\n250 ok\r\n250 ok\r\n354 go\r\n");
        // The driver could not write the next piece.
        assert!(matches!(sender.next(), Step::Ask(Request::Body)));
        sender.resume(Answer::Body(b"te".to_vec()));
        assert!(matches!(sender.next(), Step::Write(_)));
        sender.receive(format!("{word}\r\n").as_bytes());
        sender.receive(&[]);
        let said = hear(&mut sender, &mut world, b"", None);
        assert_eq!(said, b"");
        let outcome = &world.done[0].recipients[0];
        assert_eq!((matches!(outcome, Outcome::Refused(_)), outcome.heard().to_string().as_str()), (refused, word));
        assert!(!outcome.heard().unsure);
    }
}

#[test]
fn a_handshake_that_fails_is_the_connections_end() {
    let mut sender = sender();
    until(&mut sender, &mut World::new(&[], 1), b"220 a\r\n250-a\r\n250 STARTTLS\r\n220 go\r\n");
    assert!(matches!(sender.next(), Step::StartTls));
    sender.receive(&[]);
    assert!(matches!(sender.next(), Step::Close));
    assert!(matches!(sender.end().how, How::Failed(heard) if heard.at == Point::StartTls));
}

#[test]
fn a_login_under_way_ends_with_the_connection() {
    let credentials = Credentials {
        login: "ann".to_owned(),
        password: Password::new("secret".to_owned()).unwrap(),
        in_clear: true,
        nonce: [7; NONCE_BYTES],
    };
    let setup = sender().setup;
    let mut sender = Sender::new(SenderSetup { credentials: Some(credentials), ..setup });
    let mut world = World::new(&[], 1);
    hear(&mut sender, &mut world, b"220 a\r\n250-a\r\n250 AUTH LOGIN\r\n334 x\r\n", None);
    assert!(matches!(sender.end().how, How::Failed(heard) if heard.at == Point::Login));
    assert!(!format!("{sender:?}").contains("secret"));
}

/// Lines as peers say them, good and bad.
fn reply() -> impl Strategy<Value = String> {
    let code = prop::sample::select(vec!["220", "235", "250", "250", "250", "354", "354", "421", "450", "503", "550"]);
    let text =
        prop::sample::select(vec!["", " ok", "-ok", " 4.5.3 many", "-PIPELINING", "-CHUNKING", "-STARTTLS", "x"]);
    (code, text).prop_map(|(code, text)| format!("{code}{text}\r\n"))
}

proptest! {
    #[test]
    fn whatever_a_peer_says_every_recipient_has_an_outcome(
        replies in prop::collection::vec(reply(), 0..30), cut in 1_usize..40, stop in any::<bool>(),
    ) {
        let mut world = World::new(&[(b"text\r\n.\r\n", 2), (b"", 1), (b"\xff\r\n", 3)], 4);
        let mut sender = sender();
        if stop {
            sender.notice(Notice::Silence);
        }
        hear(&mut sender, &mut world, replies.concat().as_bytes(), Some(cut));
        prop_assert!(world.current.is_none());
        prop_assert!(!stop || world.done.is_empty());
        for outcome in world.done.iter().flat_map(|done| &done.recipients) {
            prop_assert!(!outcome.heard().text.contains('\n'));
            let code = outcome.heard().code;
            prop_assert!(!matches!(outcome, Outcome::Taken(_)) || (200..300).contains(&code));
            prop_assert!(!matches!(outcome, Outcome::Refused(_)) || code >= 500);
        }
    }

    #[test]
    fn what_is_sent_to_ourselves_arrives_as_it_was(
        lines in prop::collection::vec("[a.]{0,5}", 1..12), piece in 1_usize..9, cut in 1_usize..30,
    ) {
        let text: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
        let mut world = World::new(&[(text.as_bytes(), 3), (b"second\r\n", 60)], piece);
        let kept = to_ourselves(&mut world, cut);
        prop_assert_eq!(kept, [text.into_bytes(), b"second\r\n".to_vec()]);
        let taken = world.done.iter().flat_map(|done| &done.recipients).filter(|one| matches!(one, Outcome::Taken(_)));
        prop_assert_eq!(taken.count(), 63);
    }
}
