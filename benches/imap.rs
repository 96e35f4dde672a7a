//! One mailbox of 100,000 messages: how long SELECT and FETCH 1:* (UID FLAGS) take, from the
//! client's bytes to the last byte of the answer, on a real store and without a socket.
//!
//! `cargo bench --bench imap` prints the figures; `-- 20000` takes another number of messages.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a bench that panics has failed")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use pillarbox::daemon::login::Doorway;
use pillarbox::daemon::serve_imap::ImapAnswers;
use pillarbox::daemon::teacher::Teacher;
use pillarbox::flow::access::lockout::LoginConfig;
use pillarbox::flow::judge::{Filter, SpamConfig};
use pillarbox::mail::address::Address;
use pillarbox::mail::date::{Timestamp, ZonedTime};
use pillarbox::mail::mailbox::MailboxName;
use pillarbox::mail::message::FlagNames;
use pillarbox::mail::secret::{Password, ScramVerifier};
use pillarbox::mail::structure::Walker;
use pillarbox::net::drive::Answers as _;
use pillarbox::protocol::imap::{ImapConfig, Session, Site};
use pillarbox::protocol::{Session as _, Step};
use pillarbox::store::{NewMessage, Quota, Store, StoreConfig};

const LETTER: &[u8] =
    b"From: Bob <bob@pillarbox.test>\r\nSubject: a letter of some length\r\nDate: Wed, 17 Jul 1996 02:23:25 -0700\r\n\r\ntext\r\n";

/// Messages appended in one write.
const BATCH: u32 = 500;

fn main() {
    let count = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(100_000);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(folder.path(), &StoreConfig::default()).expect("a store");
    fill(&store, count);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let doorway = Doorway::new(store.clone(), LoginConfig::default()).expect("a door");
    let site = Site { host: "pillarbox.test".into(), starttls: false, clear_login: true, names: Arc::default() };
    let (teacher, _) = Teacher::new(store.clone(), Filter::new(store.clone(), SpamConfig::default()));
    let mut client = Client {
        session: Session::new(Arc::new(ImapConfig::default()), site),
        answers: ImapAnswers::new(store.clone(), teacher, &doorway, IpAddr::from([127, 0, 0, 1])),
        runtime,
    };
    client.command("a LOGIN ann ann-secret\r\n");
    println!("{count} messages");
    for command in [
        "SELECT INBOX",
        "EXAMINE INBOX",
        "FETCH 1:* (UID FLAGS)",
        "UID FETCH 1:* (FLAGS) (CHANGEDSINCE 999999999)",
        "UID SEARCH UNSEEN",
        "UID SEARCH SUBJECT letter",
        "FETCH 1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)",
        "FETCH 1:1000 BODY.PEEK[]",
        "FETCH 1:1000 BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)]",
        "NOOP",
    ] {
        let start = Instant::now();
        let bytes = client.command(&format!("b {command}\r\n"));
        println!("{:>9.1} ms {bytes:>11} bytes  {command}", start.elapsed().as_secs_f64() * 1000.0);
    }
    store.close().expect("a closed store");
}

/// Makes an account with so many messages in its INBOX, every third of them seen.
fn fill(store: &Store, count: u32) {
    let address = Address::parse("ann@pillarbox.test").expect("an address");
    let password = Password::new("ann-secret".to_owned()).expect("a password");
    let verifier = ScramVerifier::derive(&password, [7; 16], 4096);
    let account = store.add_account(address, verifier, Quota::default()).wait().expect("an account");
    let reader = store.reader().expect("a reader");
    let inbox = reader.mailbox_named(account, &MailboxName::inbox()).expect("a read").expect("an INBOX").id;
    drop(reader);
    let mut left = count;
    while left > 0 {
        let batch = left.min(BATCH);
        let letters = (0..batch).map(|_| {
            let mut spool = store.spool().expect("a spool");
            spool.write(LETTER).expect("room");
            let mut walker = Walker::new();
            walker.feed(LETTER);
            NewMessage {
                body: spool.finish().expect("a body"),
                structure: walker.finish(),
                internal_date: ZonedTime::utc(Timestamp(837_500_000)),
                flags: FlagNames::default(),
            }
        });
        store.append(inbox, letters.collect()).wait().expect("an append");
        left -= batch;
    }
}

/// A client without a socket.
struct Client {
    session: Session,
    answers: ImapAnswers,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// Sends a command and counts the bytes of the answer.
    fn command(&mut self, line: &str) -> usize {
        let mut input = line.as_bytes();
        let mut output = 0;
        loop {
            match self.session.next() {
                Step::Read if input.is_empty() => return output,
                Step::Read => {
                    let taken = self.session.receive(input);
                    input = input.get(taken..).unwrap_or_default();
                }
                Step::Write(bytes) => {
                    if bytes.windows(4).any(|word| word == b" NO " || word == b"BAD ") {
                        println!("{}", String::from_utf8_lossy(bytes));
                    }
                    output += bytes.len();
                }
                Step::Ask(request) => {
                    let answer = self.runtime.block_on(self.answers.answer(request));
                    self.session.resume(answer);
                }
                Step::StartTls | Step::Close => return output,
            }
        }
    }
}
