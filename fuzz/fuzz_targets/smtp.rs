//! Any bytes are a client: both roles answer them the same however they are cut, hand on bounded
//! pieces, and keep nothing with a bare CR or LF that port 25 should have refused.

#![no_main]

use std::net::IpAddr;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use pillarbox::mail::address::Address;
use pillarbox::mail::envelope::BodyType;
use pillarbox::mail::mailbox::AccountId;
use pillarbox::protocol::sasl::{self, Identity, Refusal};
use pillarbox::protocol::smtp::content::PIECE_MAX;
use pillarbox::protocol::smtp::{Answer, Receiver, Reply, Request, Role, Setup, SmtpConfig};
use pillarbox::protocol::{Session, Step, TlsFacts};

#[derive(Debug, Default, PartialEq, Eq)]
struct World {
    said: Vec<u8>,
    letter: Vec<u8>,
    kept: Vec<Vec<u8>>,
    binary: bool,
}

impl World {
    fn answer(&mut self, request: Request, role: Role) -> Answer {
        match request {
            Request::Sasl(sasl::Request::CheckPassword { .. }) => {
                let identity = Address::parse("a@b").map(|address| Identity { account: AccountId(1), address });
                return Answer::Sasl(sasl::Answer::Login(identity.map_err(|_| Refusal::Unavailable)));
            }
            Request::Sasl(_) => return Answer::Sasl(sasl::Answer::Login(Err(Refusal::Credentials))),
            Request::Sender(sender) => {
                assert_eq!(sender.login.is_some(), role == Role::Submission);
                self.binary = sender.body == BodyType::BinaryMime;
            }
            Request::Recipient(recipient) if recipient.original.is_some() => {
                return Answer::Refused(Reply::new(550, "5.1.1", "unknown"));
            }
            Request::Recipient(_) => {}
            Request::Begin(_) | Request::Discard(_) => self.letter.clear(),
            Request::Fetch(_) => return Answer::Fetched(b"Subject: x\r\n\r\nbare\nend\r".to_vec()),
            Request::FetchMore => return Answer::Fetched(Vec::new()),
            Request::Body(piece) => {
                assert!(piece.len() <= PIECE_MAX);
                self.letter.extend(piece);
            }
            Request::Finish => {
                let letter = std::mem::take(&mut self.letter);
                let mut before = 0;
                for &byte in letter.iter().filter(|_| !self.binary) {
                    assert_eq!(before == b'\r', byte == b'\n', "a bare CR or LF was kept");
                    before = byte;
                }
                assert!(self.binary || before != b'\r', "a bare CR was kept at the end");
                self.kept.push(letter);
            }
        }
        Answer::Accepted
    }
}

fn play(role: Role, input: &[u8], cut: usize) -> World {
    let config = SmtpConfig { message_max_bytes: 2_000, recipients_max: 3, errors_max: 200, ..SmtpConfig::default() };
    let mut session = Receiver::new(Setup {
        role,
        name: "box.test".into(),
        config: Arc::new(config),
        peer: IpAddr::from([127, 0, 0, 1]),
        starttls: true,
        login_in_clear: true,
    });
    let (mut world, mut rest) = (World::default(), input);
    loop {
        match session.next() {
            Step::Write(bytes) => world.said.extend_from_slice(bytes),
            Step::Ask(request) => {
                let answer = world.answer(request, role);
                session.resume(answer);
            }
            Step::Read => {
                let taken = session.receive(rest.get(..cut).unwrap_or(rest));
                rest = &rest[taken..];
            }
            Step::StartTls => session.tls_started(TlsFacts { description: "TLSv1.3".into(), ..TlsFacts::default() }),
            Step::Close => return world,
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let (cut, input) = input.split_first().unwrap_or((&1, &[]));
    for role in [Role::Exchange, Role::Submission] {
        assert_eq!(play(role, input, usize::from(*cut).max(1)), play(role, input, input.len().max(1)));
    }
});
