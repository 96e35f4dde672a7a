//! The store as a whole: each test drives the facade and looks at what is left after a kill.

#![allow(clippy::cast_possible_truncation, reason = "sizes in tests are small")]

mod accounts; //  accounts, aliases, domains, logins
mod acl; //       rights of others on mailboxes
mod annotations; // annotations of mailboxes and accounts
mod certificates; // certificates that people log in with
mod check; //     what a check finds, and what repair does about it
mod check_course; // a check beside deliveries, killed, in slices
mod clock; //     a clock that jumps
mod compaction; // the index without its holes
mod delivery; //  messages: deliver, append, flag, copy, move, expunge, quotas
mod dump; //      all rows, and a store made of them
mod failure; //   kills, power cuts, failing and full disks
mod faults; //    disks that fill, fail, turn read-only, at every operation
mod faulty; //    a medium that goes wrong
mod flips; //     one flipped bit in each region of each file
mod gram; //      the gram index
mod learned; //   the spam filter's learned state
mod mailboxes; // create, rename, delete, subscribe
mod medium; //    the two files: cut while they are made, failed syncs, flipped bits, a missing journal
mod model; //     random commands against a plain model
mod queue; //     queued mail
mod scanned; //   what the scan left behind, recent mail
mod wear; //      the wear meter

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::ReadableTable;
use tempfile::TempDir;

use super::check::{CheckOptions, CheckProgress, CheckStop, CheckWatch, Finding, Report};
use super::disk::MemoryDisk;
use super::site::MemorySite;
use super::table::{MSG, PIECE, SWEEP, TAIL};
use super::*;
use crate::mail::date::Timestamp;
use crate::mail::message::{Flags, Keyword, SystemFlags};

/// A store in memory.
pub(in crate::store) struct Rig {
    pub(in crate::store) store: Store,
    pub(in crate::store) site: MemorySite,
    folder: TempDir,
    config: StoreConfig,
}

pub(in crate::store) fn config() -> StoreConfig {
    StoreConfig { cache_bytes: 1 << 20, journal_bytes: 1 << 20, reserve_bytes: 0, ..StoreConfig::default() }
}

impl Rig {
    pub(in crate::store) fn new() -> Self {
        Self::with(config())
    }

    pub(in crate::store) fn with(config: StoreConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::start(MemorySite::new(folder.path()), folder, config)
    }

    fn start(site: MemorySite, folder: TempDir, config: StoreConfig) -> Self {
        let store = Store::open_on(Arc::new(site.clone()), &config).unwrap();
        Self { store, site, folder, config }
    }

    /// A store on the files that `change` makes of these.
    fn on(&self, change: &mut dyn FnMut(&MemoryDisk) -> MemoryDisk) -> Self {
        Self::start(self.site.each(change), tempfile::tempdir().unwrap(), self.config.clone())
    }

    /// What a new process finds after this one was killed.
    fn killed(&self) -> Self {
        self.on(&mut MemoryDisk::fork)
    }

    fn reader(&self) -> Reader {
        self.store.reader().unwrap()
    }

    /// An account `name@pillar.test` and its INBOX.
    pub(in crate::store) fn account(&self, name: &str) -> (AccountId, MailboxId) {
        let added = self.store.add_account(address(&format!("{name}@pillar.test")), verifier(), Quota::default());
        let id = added.wait().unwrap();
        (id, self.mailbox(id, "INBOX"))
    }

    fn mailbox(&self, account: AccountId, name: &str) -> MailboxId {
        self.reader().mailbox_named(account, &mailbox_name(name)).unwrap().unwrap().id
    }

    fn facts(&self, mailbox: MailboxId) -> Mailbox {
        self.reader().mailbox(mailbox).unwrap().unwrap()
    }

    fn letter(&self, body: &[u8]) -> NewMessage {
        letter(self.folder.path(), body)
    }

    /// Delivers to INBOX.
    pub(in crate::store) fn deliver(&self, body: &[u8], to: &[AccountId]) -> Vec<(MailboxId, Uid)> {
        let to = to.iter().map(|id| (*id, Folder::Inbox)).collect();
        self.store.deliver(self.letter(body), to).wait().unwrap()
    }

    fn body(&self, mailbox: MailboxId, number: u32) -> Vec<u8> {
        let message = self.reader().message(mailbox, uid(number)).unwrap().unwrap();
        let bytes = read_body(&self.store, message.blob);
        assert_eq!(bytes.len(), message.size as usize);
        bytes
    }

    fn flags(&self, mailbox: MailboxId, number: u32) -> Vec<String> {
        let keywords = self.facts(mailbox).keywords;
        let flags = self.reader().message(mailbox, uid(number)).unwrap().unwrap().flags;
        flag_words(flags, &keywords)
    }

    /// Waits until nothing is left to be removed.
    fn swept(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.reader().table(SWEEP).unwrap().first().unwrap().is_some() {
            assert!(Instant::now() < until, "the sweep does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The index of a closed store, below everything.
fn open_index(disk: &MemoryDisk) -> redb::Database {
    let guard = super::backend::Guard::open(Arc::new(disk.clone())).unwrap();
    super::engine::open_index(Arc::new(guard), 1 << 20).unwrap()
}

fn letter(folder: &Path, body: &[u8]) -> NewMessage {
    let mut spool = Spool::new(folder.into());
    spool.write(body).unwrap();
    NewMessage {
        body: spool.finish().unwrap(),
        structure: Structure::default(),
        internal_date: ZonedTime { at: Timestamp(1_000_000), offset_mins: 60 },
        flags: FlagNames::default(),
    }
}

fn read_body(store: &Store, blob: BlobId) -> Vec<u8> {
    let mut body = store.body(blob).unwrap();
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < body.len() {
        bytes.extend_from_slice(body.read(bytes.len() as u64, 65_536).unwrap());
    }
    bytes
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn mailbox_name(name: &str) -> MailboxName {
    MailboxName::new(name).unwrap()
}

fn uid(number: u32) -> Uid {
    Uid::new(number).unwrap()
}

fn uids(numbers: &[u32]) -> UidSet {
    numbers.iter().map(|number| uid(*number)).collect()
}

fn span(first: u32, last: u32) -> UidSet {
    let mut set = UidSet::new();
    set.insert_range(uid(first), uid(last));
    set
}

fn names(system: SystemFlags, keywords: &[&str]) -> FlagNames {
    FlagNames { system, keywords: keywords.iter().map(|name| Keyword::new(name).unwrap()).collect() }
}

fn flag_words(flags: Flags, keywords: &crate::mail::message::Keywords) -> Vec<String> {
    let system = ["Answered", "Flagged", "Deleted", "Seen", "Draft"].into_iter().enumerate();
    let system = system.filter(|(bit, _)| flags.system.0 >> bit & 1 == 1).map(|(_, name)| name.to_owned());
    let mut words =
        system.chain(keywords.names(flags.keywords).map(|name| name.as_str().to_owned())).collect::<Vec<_>>();
    words.sort();
    words
}

fn verifier() -> ScramVerifier {
    ScramVerifier { salt: [1; 16], iterations: 4096, stored_key: [2; 32], server_key: [3; 32] }
}

/// Bytes that do not compress.
pub(in crate::store) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Everything is as a check finds it; redb's pages, which want a checkpoint, are left to others.
fn check(store: &Store) {
    let (report, findings) = examine(store, &CheckOptions { bodies: true, ..CheckOptions::quick() });
    assert!(report.is_sound(), "{report:?}: {findings:#?}");
}

/// What a check came to and what it found; what it repaired is in the end.
fn examine(store: &Store, options: &CheckOptions) -> (Report, Vec<String>) {
    let mut seen = Seen::default();
    let report = store.check(options, &CheckStop::default(), &mut seen).unwrap();
    seen.found.extend(seen.repaired);
    (report, seen.found)
}

/// What a check told.
#[derive(Default)]
struct Seen {
    found: Vec<String>,
    repaired: Vec<String>,
}

impl CheckWatch for Seen {
    fn progress(&mut self, progress: &CheckProgress) {
        assert!(progress.bytes <= progress.bytes_total);
    }

    fn found(&mut self, finding: &Finding) {
        self.found.push(finding.to_string());
    }

    fn repaired(&mut self, finding: &Finding, what: &str) {
        self.repaired.push(format!("{finding} -> {what}"));
    }
}
