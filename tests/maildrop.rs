//! A maildrop of 100,000 messages by POP3: it lists in constant memory, a huge message streams, UIDL
//! says the same in every session and after a restart, and a second session is refused.
//!
//! One test in a process of its own, because it watches the memory of the process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use pillarbox::daemon::login::Doorway;
use pillarbox::daemon::serve_pop3::Pop3Answers;
use pillarbox::flow::access::lockout::LoginConfig;
use pillarbox::flow::access::pop3::Locks;
use pillarbox::mail::address::Address;
use pillarbox::mail::date::{Timestamp, ZonedTime};
use pillarbox::mail::mailbox::{AccountId, MailboxId, MailboxName};
use pillarbox::mail::message::{FlagNames, UidSet};
use pillarbox::mail::secret::{Password, ScramVerifier};
use pillarbox::mail::structure::Walker;
use pillarbox::net::drive::Answers as _;
use pillarbox::protocol::pop3::{Pop3Config, Session};
use pillarbox::protocol::{Session as _, Step};
use pillarbox::store::{NewMessage, Quota, Store, StoreConfig};

/// Letters that are appended; copies of them fill the maildrop.
const LETTERS: u32 = 100;
/// How often the number of messages is doubled.
const DOUBLED: u32 = 10;
const MESSAGES: u32 = LETTERS << DOUBLED;

/// Bytes of the huge message.
const HUGE: usize = 24 << 20;

/// What a session may take, in KiB; measured: 1,160 to 1,630, of the store's cache, pieces of a body and what an
/// allocator does with them. The huge message alone would be 24,576.
const GROWTH_MAX_KIB: u64 = 4096;

fn config() -> StoreConfig {
    StoreConfig { cache_bytes: 1 << 20, reserve_bytes: 0, ..StoreConfig::default() }
}

#[test]
fn a_hundred_thousand_messages_list_in_constant_memory_and_keep_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = filled(folder.path());
    let doorway = Doorway::new(store.clone(), LoginConfig::default()).unwrap();
    let mut names = runtime.block_on(a_day(&store, &doorway));
    drop(doorway);
    store.close().unwrap();

    // After a restart every message that is left has its name, whatever number it has now.
    let store = Store::open(folder.path(), &config()).unwrap();
    let doorway = Doorway::new(store.clone(), LoginConfig::default()).unwrap();
    let left = runtime.block_on(async {
        let mut client = Client::new(&store, &Locks::default(), &doorway);
        client.log_in().await;
        client.names().await
    });
    names.remove(6);
    assert!(names == left);
    store.close().unwrap();
}

/// Lists all, fetches the last, deletes the seventh; what UIDL said at first.
async fn a_day(store: &Store, doorway: &Doorway) -> Vec<String> {
    let locks = Locks::default();
    // Whatever a first look costs once: tables opened, the cache filled.
    let mut client = Client::new(store, &locks, doorway);
    client.log_in().await;
    let names = client.names().await;
    client.command("LIST", &mut |_| ()).await;
    client.command("QUIT", &mut |_| ()).await;

    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = memory("VmRSS:");
    let mut client = Client::new(store, &locks, doorway);
    client.log_in().await;
    let mut rows = 0;
    client.command("LIST", &mut |line| rows += u32::from(line.starts_with(|c: char| c.is_ascii_digit()))).await;
    assert_eq!(rows, MESSAGES + 1);
    rows = 0;
    client.command("UIDL", &mut |line| rows += u32::from(line.contains('-'))).await;
    assert_eq!(rows, MESSAGES + 1);
    let huge = MESSAGES + 1;
    let (mut lines, mut bytes) = (0, 0);
    client.command(&format!("TOP {huge} 2"), &mut |_| lines += 1).await;
    // The status, the header's line and the empty one, two of the body, the dot.
    assert_eq!(lines, 6);
    client.command(&format!("RETR {huge}"), &mut |line| bytes += line.len() + 2).await;
    assert!(bytes > HUGE, "{bytes}");
    let growth = memory("VmHWM:").saturating_sub(before);
    println!("{MESSAGES} messages listed and {HUGE} bytes fetched: {growth} KiB");
    assert!(growth < GROWTH_MAX_KIB, "{growth} KiB");

    // One maildrop, one session.
    let mut second = Client::new(store, &locks, doorway);
    let refused = second.log_in().await;
    assert!(refused.starts_with("-ERR [IN-USE] "), "{refused}");
    client.command("QUIT", &mut |_| ()).await;
    let mut second = Client::new(store, &locks, doorway);
    assert!(second.log_in().await.starts_with("+OK"));
    second.command("DELE 7", &mut |_| ()).await;
    second.command("QUIT", &mut |_| ()).await;
    names
}

/// A store with an account whose INBOX is full.
fn filled(folder: &Path) -> Store {
    let store = Store::open(folder, &config()).unwrap();
    let password = Password::new("secret".to_owned()).unwrap();
    let verifier = ScramVerifier::derive(&password, [7; 16], 4096);
    let ann = Address::parse("ann@pillarbox.test").unwrap();
    let account: AccountId = store.add_account(ann, verifier, Quota::default()).wait().unwrap();
    let inbox = store.reader().unwrap().mailbox_named(account, &MailboxName::inbox()).unwrap().unwrap().id;
    let letters = (0..LETTERS).map(|number| message(&store, &format!("Subject: {number}\r\n\r\n"), 10));
    store.append(inbox, letters.collect()).wait().unwrap();
    for _ in 0..DOUBLED {
        store.copy(inbox, uids(&store, inbox), inbox).wait().unwrap();
    }
    assert_eq!(uids(&store, inbox).count(), MESSAGES);
    store.append(inbox, vec![message(&store, "Subject: huge\r\n\r\n", HUGE)]).wait().unwrap();
    // Opened anew, so that nothing is left of the making.
    store.close().unwrap();
    Store::open(folder, &config()).unwrap()
}

fn uids(store: &Store, mailbox: MailboxId) -> UidSet {
    store.reader().unwrap().uids(mailbox).unwrap()
}

fn message(store: &Store, head: &str, length: usize) -> NewMessage {
    let (mut spool, mut walker) = (store.spool().unwrap(), Walker::new());
    let mut feed = |bytes: &[u8]| {
        spool.write(bytes).unwrap();
        walker.feed(bytes);
    };
    feed(head.as_bytes());
    let mut state = 1_u64;
    for number in 0..=length / 64 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(number as u64);
        feed(format!("{state:062x}\r\n").as_bytes());
    }
    NewMessage {
        body: spool.finish().unwrap(),
        structure: walker.finish(),
        internal_date: ZonedTime::utc(Timestamp(1_000_000)),
        flags: FlagNames::default(),
    }
}

/// A figure of this process in KiB.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A client without a socket.
struct Client {
    session: Session,
    answers: Pop3Answers,
}

impl Client {
    fn new(store: &Store, locks: &Locks, doorway: &Doorway) -> Self {
        Self {
            session: Session::new(Arc::new(Pop3Config::default()), "pillarbox.test", true),
            answers: Pop3Answers::new(store.clone(), locks.clone(), doorway, IpAddr::from([127, 0, 0, 1])),
        }
    }

    /// Logs in; the last line of the answer.
    async fn log_in(&mut self) -> String {
        let mut last = String::new();
        self.command("USER ann@pillarbox.test\r\nPASS secret", &mut |line| line.clone_into(&mut last)).await;
        last
    }

    /// What UIDL says, in order.
    async fn names(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        self.command("UIDL", &mut |line| {
            if let Some((_, name)) = line.split_once(' ').filter(|(number, _)| number.parse::<u32>().is_ok()) {
                names.push(name.to_owned());
            }
        })
        .await;
        assert_eq!(names.len(), names.iter().collect::<std::collections::BTreeSet<_>>().len());
        names
    }

    /// Sends a command and shows every line of the answer to `see`.
    async fn command(&mut self, command: &str, see: &mut dyn FnMut(&str)) {
        let input = format!("{command}\r\n");
        let (mut input, mut rest) = (input.as_bytes(), String::new());
        loop {
            match self.session.next() {
                Step::Read if input.is_empty() => return,
                Step::Read => {
                    let taken = self.session.receive(input);
                    input = &input[taken..];
                }
                Step::Write(bytes) => {
                    rest.push_str(std::str::from_utf8(bytes).unwrap());
                    let end = rest.rfind('\n').map_or(0, |at| at + 1);
                    rest[..end].lines().for_each(&mut *see);
                    rest.drain(..end);
                }
                Step::Ask(request) => {
                    let answer = self.answers.answer(request).await;
                    self.session.resume(answer);
                }
                Step::Close => return,
                Step::StartTls => panic!("TLS was not asked for"),
            }
        }
    }
}
