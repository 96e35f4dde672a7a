//! What a delivery costs at the file layer: bytes, syncs, and how many deliveries share a sync.
//!
//! `cargo bench --bench store` prints the figures; nothing here is a timed test. Counts are exact
//! and the same on every machine, times are only for comparison within one run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::path::Path;
use std::time::Instant;

use pillarbox::mail::address::Address;
use pillarbox::mail::date::{Timestamp, ZonedTime};
use pillarbox::mail::mailbox::{AccountId, Uid};
use pillarbox::mail::message::{FlagMode, FlagNames, SystemFlags, UidSet};
use pillarbox::mail::secret::{Password, ScramVerifier};
use pillarbox::mail::structure::Walker;
use pillarbox::store::{Figures, Folder, NewMessage, Quota, Store, StoreConfig};

/// A 4 KB letter of words that repeat as little as real text does.
fn letter(number: u64, size: usize) -> Vec<u8> {
    let mut text = format!(
        "Received: from relay.example.net (relay.example.net [192.0.2.7])\r\n\tby mx.example.org with ESMTPS id {number:x}\r\n\
         From: \"Ann Example\" <ann@example.org>\r\nTo: <bob@example.org>\r\nSubject: letter number {number}\r\n\
         Message-ID: <{number}.bench@example.org>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    )
    .into_bytes();
    // A linear congruential generator (Knuth's MMIX constants): the same letters in every run.
    let mut state = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    while text.len() + 2 < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = usize::try_from(state >> 58).unwrap_or(0);
        text.push(*b"etaoinshrdlu etaoin cmfwypvbgkjqxz etaonrish ETAOIN .,ee tt aa 0".get(pick).unwrap_or(&b' '));
        if text.len() % 74 == 0 {
            text.extend_from_slice(b"\r\n");
        }
    }
    text.extend_from_slice(b"\r\n");
    text
}

fn message(store: &Store, bytes: &[u8]) -> NewMessage {
    let mut spool = store.spool().unwrap();
    let mut walker = Walker::new();
    spool.write(bytes).unwrap();
    walker.feed(bytes);
    NewMessage {
        body: spool.finish().unwrap(),
        structure: walker.finish(),
        internal_date: ZonedTime::utc(Timestamp(1_767_225_600)),
        flags: FlagNames::default(),
    }
}

fn open(folder: &Path) -> (Store, AccountId) {
    let store = Store::open(folder, &StoreConfig::default()).unwrap();
    let verifier = ScramVerifier::derive(&Password::new("bench".to_owned()).unwrap(), [7; 16], 4096);
    let account = store.add_account(Address::parse("bob@example.org").unwrap(), verifier, Quota::default());
    (store.clone(), account.wait().unwrap())
}

/// Prints what `count` operations cost between two readings.
fn say(what: &str, count: u64, before: &Figures, after: &Figures, since: Instant, goal: &str) {
    let each = |bytes: u64| bytes / count;
    let journal = each(after.journal_written - before.journal_written);
    let index = each(after.index_written - before.index_written);
    let syncs = after.syncs - before.syncs;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let (per_sync, rate) = (count as f64 / syncs.max(1) as f64, count as f64 / since.elapsed().as_secs_f64());
    println!(
        "{what:46} {:>7} B each (journal {journal:>6}, index {index:>7})  {per_sync:>6.2} to a sync  {rate:>7.0}/s  {:>3} checkpoints  {goal}",
        journal + index,
        after.checkpoints - before.checkpoints,
    );
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let (store, account) = open(folder.path());
    let inbox = || vec![(account, Folder::Inbox)];

    let (before, since) = (store.figures(), Instant::now());
    for number in 0..1000 {
        store.deliver(message(&store, &letter(number, 4096)), inbox()).wait().unwrap();
    }
    say("1,000 single deliveries of 4 KB", 1000, &before, &store.figures(), since, "goal: at most 12,288 B each");

    let (before, since) = (store.figures(), Instant::now());
    std::thread::scope(|scope| {
        for sender in 0..20_u64 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..100 {
                    let letter = letter(10_000 + sender * 1000 + number, 4096);
                    store.deliver(message(store, &letter), vec![(account, Folder::Inbox)]).wait().unwrap();
                }
            });
        }
    });
    say("2,000 deliveries of 4 KB by 20 senders", 2000, &before, &store.figures(), since, "goal: at least 4 to a sync");

    for (name, size, count) in [("40 KB", 40_000, 200), ("400 KB", 400_000, 40), ("4 MB", 4_000_000, 8)] {
        let (before, since) = (store.figures(), Instant::now());
        for number in 0..count {
            store.deliver(message(&store, &letter(50_000 + number, size)), inbox()).wait().unwrap();
        }
        say(&format!("{count} single deliveries of {name}"), count, &before, &store.figures(), since, "");
    }

    let mailbox = store.reader().unwrap().mailboxes(account).unwrap().first().unwrap().id;
    let (before, since) = (store.figures(), Instant::now());
    for number in 1..=500 {
        let uids = [Uid::new(number * 5).unwrap()].into_iter().collect::<UidSet>();
        let seen = FlagNames { system: SystemFlags::SEEN, keywords: Vec::new() };
        store.flag(mailbox, uids, FlagMode::Add, seen, None).wait().unwrap();
    }
    say("500 single flag changes", 500, &before, &store.figures(), since, "");

    let since = Instant::now();
    let uids = store.reader().unwrap().uids(mailbox).unwrap();
    println!("uids of {} messages: {:.2} ms", uids.count(), since.elapsed().as_secs_f64() * 1000.0);
    store.close().unwrap();
}
