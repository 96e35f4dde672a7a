//! A POP3 session fed any bytes and any answers: no panic, every command answered in bounded memory,
//! nothing removed but at QUIT.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use pillarbox::mail::address::Address;
use pillarbox::mail::mailbox::{AccountId, Uid, UidValidity};
use pillarbox::mail::secret::ScramVerifier;
use pillarbox::protocol::pop3::{
    Answer, Finding, Inquiry, Maildrop, OpenError, Piece, PieceError, Request, SIZES_MAX, Session, Unavailable,
};
use pillarbox::protocol::sasl::{self, Identity, Refusal};
use pillarbox::protocol::{Notice, Session as _, Step, TlsFacts};

/// Most output between two readings, in bytes: nothing here is longer than the bytes that made it.
const OUTPUT_MAX: usize = 1 << 20;

/// What the highest bytes stand for, so that commands are found without spelling them.
const WORDS: [&str; 24] = [
    "\r\n",
    "\r\n",
    "USER ann\r\nPASS x\r\n",
    "AUTH PLAIN AGFubgB4\r\n",
    "AUTH PLAIN\r\n",
    "AGFubgB4\r\n",
    "*\r\n",
    "AUTH SCRAM-SHA-256 biwsbj1hbm4scj1hYmM=\r\n",
    "STAT\r\n",
    "LIST\r\n",
    "LIST 2\r\n",
    "UIDL\r\n",
    "UIDL 1\r\n",
    "RETR 1\r\n",
    "RETR 2\r\n",
    "TOP 1 1\r\n",
    "DELE 1\r\n",
    "DELE 3\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "CAPA\r\n",
    "STLS\r\n",
    "UTF8\r\n",
    "QUIT\r\n",
];

fuzz_target!(|data: (u8, Vec<u8>, Vec<u8>)| {
    let (cut, written, answers) = data;
    let mut input = Vec::new();
    for byte in written {
        match WORDS.get(usize::from(byte).wrapping_sub(256 - WORDS.len())) {
            Some(word) => input.extend_from_slice(word.as_bytes()),
            None => input.push(byte),
        }
    }
    let mut session = Session::new(Arc::default(), "fuzz", true);
    let may_quit = input.windows(4).any(|word| word.eq_ignore_ascii_case(b"QUIT"));
    let mut world = World { answers: &answers, may_quit };
    let (mut rest, mut asked, mut output) = (input.as_slice(), None, 0);
    loop {
        match session.next() {
            Step::Write(bytes) => {
                output += bytes.len();
                assert!(!bytes.is_empty() && output < OUTPUT_MAX);
            }
            Step::Ask(request) => asked = Some(request),
            Step::StartTls => session.tls_started(TlsFacts::default()),
            Step::Close => return,
            Step::Read => {
                output = 0;
                let piece = rest.get(..usize::from(cut).max(1)).unwrap_or(rest);
                if piece.is_empty() && cut % 2 == 0 {
                    session.notice(if cut % 4 == 0 { Notice::Silence } else { Notice::Stopping });
                    continue;
                }
                let taken = session.receive(piece);
                assert!(taken <= piece.len() && (taken > 0 || piece.is_empty()));
                rest = &rest[taken..];
            }
        }
        if let Some(request) = asked.take() {
            session.resume(world.answer(request));
        }
    }
});

/// Answers as its bytes say.
struct World<'a> {
    answers: &'a [u8],
    may_quit: bool,
}

impl World<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.answers.split_first().unwrap_or((&1, &[]));
        self.answers = rest;
        *first
    }

    fn answer(&mut self, request: Request) -> Answer {
        let fails = self.byte() % 8 == 0;
        let inquiry = match request {
            Request::Sasl(request) => return Answer::Sasl(self.sasl(request, fails)),
            Request::Maildrop(inquiry) => inquiry,
        };
        Answer::Maildrop(match inquiry {
            Inquiry::Open { .. } if fails => Finding::Open(Err(OpenError::InUse)),
            Inquiry::Open { .. } => {
                let uids = (0..self.byte()).filter_map(|number| Uid::new(u32::from(number) * 3 / 2)).collect();
                Finding::Open(Ok(Maildrop { uid_validity: UidValidity(std::num::NonZeroU32::MIN), uids, octets: 9 }))
            }
            Inquiry::Sizes { .. } if fails => Finding::Sizes(Err(Unavailable)),
            Inquiry::Sizes { first, last } => {
                let step = usize::from(self.byte()).max(1);
                let uids = (first.get()..=last.get()).step_by(step).take(SIZES_MAX).filter_map(Uid::new);
                Finding::Sizes(Ok(uids.map(|uid| (uid, uid.get())).collect()))
            }
            Inquiry::Piece { .. } if fails => Finding::Piece(Err(PieceError::Gone)),
            Inquiry::Piece { .. } => {
                let bytes = self.answers.get(..usize::from(self.byte())).unwrap_or(b".\r\n\r\n.").to_vec();
                self.answers = self.answers.get(bytes.len()..).unwrap_or_default();
                Finding::Piece(Ok(Piece { bytes, size: 7, end: self.answers.is_empty() }))
            }
            Inquiry::Update { .. } => {
                assert!(self.may_quit, "an update without QUIT");
                Finding::Update(if fails { Err(Unavailable) } else { Ok(()) })
            }
        })
    }

    fn sasl(&mut self, request: sasl::Request, fails: bool) -> sasl::Answer {
        let Ok(address) = Address::parse("ann@fuzz") else { return sasl::Answer::Login(Err(Refusal::Unavailable)) };
        match request {
            _ if fails => sasl::Answer::Login(Err(Refusal::Credentials)),
            sasl::Request::Verifier { login } => {
                sasl::Answer::Verifier { verifier: ScramVerifier::made_up(&[0; 32], &login, 1), nonce: [0; 18] }
            }
            _ => sasl::Answer::Login(Ok(Identity { account: AccountId(1), address })),
        }
    }
}
