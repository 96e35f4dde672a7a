//! Large stores on a small cache: memory is the cache and a constant, whatever the store holds.
//!
//! Each step runs in a process of its own, so that its peak memory is its own. The store of 5 GiB
//! takes minutes and as much disk: it is made where `PILLARBOX_LARGE_GIB` says how large (CI says 5).

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that panics is a test that fails")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use pillarbox::mail::address::Address;
use pillarbox::mail::date::{Timestamp, ZonedTime};
use pillarbox::mail::mailbox::{AccountId, MailboxId, Uid};
use pillarbox::mail::message::{FlagMode, FlagNames, SystemFlags, UidSet};
use pillarbox::mail::secret::{Password, ScramVerifier};
use pillarbox::mail::structure::Walker;
use pillarbox::store::{Folder, NewMessage, Quota, Route, Store, StoreConfig};

/// redb's cache in every test here.
const CACHE: u32 = 1 << 20;

/// What the store may take beside its cache, in bytes, with the senders' own buffers: measured
/// about half of it, the rest is for allocators and for code that is read from the disk.
const CONSTANT: u64 = 10 << 20;

/// Bytes an opening may read after a kill, whatever the store holds.
const READ_AT_OPENING_MAX: u64 = 64 << 20;

/// Messages of the large mailbox; as many bodies as one in five of them.
const MESSAGES: u32 = 100_000;

/// Threads that deliver.
const SENDERS: u64 = 8;

#[test]
fn a_mailbox_of_100_000_messages_takes_no_more_memory_than_one_of_1_000() {
    let folder = folder("mailbox");
    let growth = |messages: u32| {
        let folder = folder.join(messages.to_string());
        let filled = finish(start("fill", &folder, messages.into()));
        let read = finish(start("read", &folder, messages.into()));
        println!("{messages} messages: {filled} KiB to fill, {read} KiB to read, cache {} KiB", CACHE >> 10);
        [filled, read].map(|kib| kib << 10)
    };
    let [small, large] = [1000, MESSAGES].map(growth);
    for (small, large) in small.into_iter().zip(large) {
        assert!(large < u64::from(CACHE) + CONSTANT, "{large} bytes");
        // The small one may not fill the cache.
        assert!(large < small + u64::from(CACHE) + (2 << 20), "{small} and {large} bytes");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_store_of_5_gib_opens_after_a_kill_without_being_read() {
    let Some(gib) = std::env::var("PILLARBOX_LARGE_GIB").ok().and_then(|gib| gib.parse::<u64>().ok()) else {
        println!("not made: PILLARBOX_LARGE_GIB is not set");
        return;
    };
    let folder = folder("store");
    let mut child = start("pour", &folder, gib << 30);
    let mut acknowledged = 0;
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    for line in lines.filter_map(|line| line.strip_prefix("figure ").map(str::to_owned)) {
        if line == "full" {
            break;
        }
        acknowledged = line.parse().unwrap();
    }
    // SIGKILL, while the senders go on.
    child.kill().unwrap();
    child.wait().unwrap();
    let growth = finish(start("reopen", &folder, acknowledged));
    println!("{gib} GiB, {acknowledged} messages acknowledged: {growth} KiB to open and read");
    assert!(growth << 10 < u64::from(CACHE) + CONSTANT, "{growth} KiB");
    std::fs::remove_dir_all(folder).unwrap();
}

/// Not a test of its own: the steps of the two above, each in a process that they start.
#[test]
fn step() {
    let Ok(step) = std::env::var("PILLARBOX_LARGE_STEP") else { return };
    let folder = PathBuf::from(std::env::var("PILLARBOX_LARGE_FOLDER").unwrap());
    let number = std::env::var("PILLARBOX_LARGE_NUMBER").unwrap().parse().unwrap();
    let before = memory("VmRSS:");
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    match step.as_str() {
        "fill" => fill(&folder, u32::try_from(number).unwrap()),
        "read" => read(&folder, u32::try_from(number).unwrap()),
        "pour" => pour(&folder, number),
        "reopen" => reopen(&folder, number),
        _ => panic!("no such step"),
    }
    println!("figure {}", memory("VmHWM:").saturating_sub(before));
}

fn start(step: &str, folder: &Path, number: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "step", "--nocapture"])
        .env("PILLARBOX_LARGE_STEP", step)
        .env("PILLARBOX_LARGE_FOLDER", folder)
        .env("PILLARBOX_LARGE_NUMBER", number.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for a step; gives the memory in KiB that it took beside what it began with.
fn finish(child: Child) -> u64 {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    text.lines().find_map(|line| line.strip_prefix("figure ")).unwrap().parse().unwrap()
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("large-{name}"));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    folder
}

/// A figure of this process in KiB.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Bytes this process has read from files so far.
fn bytes_read() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

struct Place {
    store: Store,
    account: AccountId,
    inbox: MailboxId,
}

fn open(folder: &Path) -> Place {
    let store = Store::open(folder, &StoreConfig { cache_bytes: CACHE, ..StoreConfig::default() }).unwrap();
    let address = Address::parse("bob@pillar.test").unwrap();
    let known = store.reader().unwrap().route(&address).unwrap();
    let account = if let Route::Local(accounts) = known {
        *accounts.first().unwrap()
    } else {
        let verifier = ScramVerifier::derive(&Password::new("large".to_owned()).unwrap(), [7; 16], 4096);
        store.add_account(address, verifier, Quota::default()).wait().unwrap()
    };
    let mailboxes = store.reader().unwrap().mailboxes(account).unwrap();
    let inbox = mailboxes.iter().find(|mailbox| mailbox.name.is_inbox()).unwrap().id;
    Place { store, account, inbox }
}

impl Place {
    /// Delivers a letter with a body of `size` bytes that nothing can compress.
    fn deliver(&self, number: u64, size: usize) {
        let header = format!(
            "From: Ann <ann{number}@pillar.test>\r\nTo: bob@pillar.test\r\nSubject: letter {number}\r\n\
             Message-ID: <{number}@pillar.test>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n\r\n"
        );
        let mut spool = self.store.spool().unwrap();
        let mut walker = Walker::new();
        let mut put = |bytes: &[u8]| {
            spool.write(bytes).unwrap();
            walker.feed(bytes);
        };
        put(header.as_bytes());
        let mut state = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut chunk = Vec::with_capacity(16 << 10);
        let mut left = size;
        while left > 0 {
            chunk.clear();
            while chunk.len() < left.min(16 << 10) {
                state = (state ^ (state >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9).wrapping_add(number);
                chunk.extend_from_slice(&(state ^ (state >> 32)).to_le_bytes());
            }
            chunk.truncate(left);
            left -= chunk.len();
            put(&chunk);
        }
        let message = NewMessage {
            body: spool.finish().unwrap(),
            structure: walker.finish(),
            internal_date: ZonedTime::utc(Timestamp(1_767_225_600)),
            flags: FlagNames::default(),
        };
        self.store.deliver(message, vec![(self.account, Folder::Inbox)]).wait().unwrap();
    }

    /// The flags of all messages, as SELECT and FETCH 1:* FLAGS read them; gives how many are seen.
    fn seen(&self, messages: u32) -> usize {
        let reader = self.store.reader().unwrap();
        let uids = reader.uids(self.inbox).unwrap();
        assert_eq!(uids.count(), messages);
        let (first, last) = (Uid::MIN, Uid::new(u32::MAX).unwrap());
        let rows = reader.messages(self.inbox, first, last).unwrap();
        rows.filter(|row| row.as_ref().unwrap().flags.system.contains(SystemFlags::SEEN)).count()
    }

    /// The size of a message's body, all of it read.
    fn body(&self, uid: Uid) -> u64 {
        let message = self.store.reader().unwrap().message(self.inbox, uid).unwrap().unwrap();
        let mut body = self.store.body(message.blob).unwrap();
        let mut read = 0;
        loop {
            let part = body.read(read, 64 << 10).unwrap().len();
            if part == 0 {
                return read;
            }
            read += part as u64;
        }
    }
}

fn fill(folder: &Path, messages: u32) {
    let place = open(folder);
    let bodies = u64::from(messages / 5);
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= bodies {
                        break;
                    }
                    place.deliver(number, 100);
                }
            });
        }
    });
    let (first, last) = (Uid::MIN, Uid::new(messages / 5).unwrap());
    for _ in 0..4 {
        let mut uids = UidSet::new();
        uids.insert_range(first, last);
        place.store.copy(place.inbox, uids, place.inbox).wait().unwrap();
    }
    place.store.close().unwrap();
}

fn read(folder: &Path, messages: u32) {
    let place = open(folder);
    assert_eq!(place.seen(messages), 0);
    let mut uids = UidSet::new();
    uids.insert_range(Uid::MIN, Uid::new(messages).unwrap());
    let flags = FlagNames { system: SystemFlags::SEEN, keywords: Vec::new() };
    place.store.flag(place.inbox, uids, FlagMode::Add, flags, None).wait().unwrap();
    assert_eq!(place.seen(messages), usize::try_from(messages).unwrap());
    let reader = place.store.reader().unwrap();
    for uid in (1..=messages).step_by(97) {
        assert!(reader.structure(place.inbox, Uid::new(uid).unwrap()).unwrap().is_some());
    }
    assert!(place.body(Uid::new(messages).unwrap()) > 100);
    drop(reader);
    place.store.close().unwrap();
}

/// Delivers until the files take `bytes`, says so, and goes on until it is killed.
fn pour(folder: &Path, bytes: u64) {
    let place = open(folder);
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    place.deliver(number, [2_000, 20_000, 200_000, 4_000_000][usize::try_from(number % 4).unwrap()]);
                    let count = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if count % 64 == 0 {
                        println!("figure {count}");
                        let file = std::fs::metadata(folder.join("mail.redb")).unwrap();
                        if file.blocks() * 512 >= bytes {
                            println!("figure full");
                        }
                    }
                }
            });
        }
    });
}

fn reopen(folder: &Path, acknowledged: u64) {
    let (since, before) = (Instant::now(), bytes_read());
    let place = open(folder);
    let read = bytes_read() - before;
    println!("opened in {:?}, {read} bytes read", since.elapsed());
    // The journal, and of the index what the replay changes: not the store.
    assert!(read < READ_AT_OPENING_MAX, "{read} bytes");
    let found = place.store.reader().unwrap().uids(place.inbox).unwrap().count();
    assert!(u64::from(found) >= acknowledged, "{found} messages");
    assert_eq!(place.seen(found), 0);
    let sizes: u64 = (found - 8..found).map(|uid| place.body(Uid::new(uid).unwrap())).sum();
    assert!(sizes > 4_000_000, "{sizes} bytes");
    place.store.close().unwrap();
}
