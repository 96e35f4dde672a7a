//! SEARCH BODY in a mailbox of real letters, before and after the gram index was made: how long it
//! takes, what the index costs to make and how much of the disk it takes.
//!
//! `cargo bench --bench search -- FOLDER COUNT` reads every file below FOLDER as a letter, again and
//! again until there are COUNT messages, each with a word of its own. Without arguments it makes
//! letters up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a bench that panics has failed")]
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "figures to be looked at")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use pillarbox::daemon::guard::work_time;
use pillarbox::flow::access::search::{Budget, Question, search};
use pillarbox::flow::sheets::{make_sheet, next_gap};
use pillarbox::mail::address::Address;
use pillarbox::mail::date::{Timestamp, ZonedTime};
use pillarbox::mail::mailbox::{MailboxId, MailboxName};
use pillarbox::mail::message::{FlagNames, UidSet};
use pillarbox::mail::secret::{Password, ScramVerifier};
use pillarbox::mail::structure::Walker;
use pillarbox::protocol::imap::search::SearchKey;
use pillarbox::store::{NewMessage, Quota, Store, StoreConfig};

/// Messages appended in one write.
const BATCH: usize = 200;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let count = words.iter().find_map(|word| word.parse().ok()).unwrap_or(10_000);
    let letters = words.iter().map(Path::new).find(|path| path.is_dir()).map(files).unwrap_or_default();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = Store::open(folder.path(), &StoreConfig::default()).expect("a store");
    let inbox = fill(&store, &letters, count);
    let bytes = store.reader().and_then(|reader| reader.mailbox(inbox)).expect("a read").map_or(0, |inbox| inbox.size);
    println!("{count} messages, {} MiB", bytes >> 20);
    let needles = [
        format!("word{}of", count / 2),
        "mailing list".to_owned(),
        "serialization".to_owned(),
        "kubernetes".to_owned(),
        "xyz".to_owned(),
    ];
    let before: Vec<_> = needles.iter().map(|needle| find(&store, inbox, needle)).collect();

    let (figures, start, cpu) = (store.figures(), Instant::now(), work_time());
    let mut sheets = 0;
    while let Some(gap) = next_gap(&store).expect("a read") {
        make_sheet(&store, gap, &mut || true).expect("a sheet");
        sheets += 1;
    }
    let (wall, cpu) = (start.elapsed(), work_time().saturating_sub(cpu));
    store.settled().wait().expect("a store");
    let written = store.figures().index_written - figures.index_written;
    let each = |what: u64| what as f64 / count as f64;
    println!(
        "{sheets} sheets in {:.1} s: {:.0} us of CPU and {:.0} bytes written for each message",
        wall.as_secs_f64(),
        each(u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX)),
        each(written),
    );
    for (needle, (found, first)) in needles.iter().zip(before) {
        let (again, second) = find(&store, inbox, needle);
        assert_eq!(found, again, "{needle}");
        println!("{:>9.1} ms before, {:>7.1} ms after: {found:>6} with {needle:?}", first * 1000.0, second * 1000.0);
    }
    store.close().expect("a closed store");
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() { folders.push(entry) } else { found.push(entry) }
        }
    }
    found.sort();
    found
}

fn fill(store: &Store, letters: &[PathBuf], count: usize) -> MailboxId {
    let address = Address::parse("ann@pillarbox.test").expect("an address");
    let password = Password::new("ann-secret".to_owned()).expect("a password");
    let verifier = ScramVerifier::derive(&password, [7; 16], 4096);
    let account = store.add_account(address, verifier, Quota::default()).wait().expect("an account");
    let reader = store.reader().expect("a reader");
    let inbox = reader.mailbox_named(account, &MailboxName::inbox()).expect("a read").expect("an INBOX").id;
    drop(reader);
    let numbers: Vec<usize> = (0..count).collect();
    for batch in numbers.chunks(BATCH) {
        let messages = batch.iter().map(|number| {
            let letter = match letters.get(number % letters.len().max(1)) {
                Some(path) => std::fs::read(path).expect("a letter"),
                None => format!("Subject: made up\r\n\r\n{}", made_up(*number)).into_bytes(),
            };
            let own = format!("X-Own: word{number}of\r\n");
            let (mut spool, mut walker) = (store.spool().expect("a spool"), Walker::new());
            for bytes in [own.as_bytes(), &letter, format!("\r\nword{number}of\r\n").as_bytes()] {
                spool.write(bytes).expect("room");
                walker.feed(bytes);
            }
            NewMessage {
                body: spool.finish().expect("a body"),
                structure: walker.finish(),
                internal_date: ZonedTime::utc(Timestamp(837_500_000)),
                flags: FlagNames::default(),
            }
        });
        store.append(inbox, messages.collect()).wait().expect("an append");
    }
    inbox
}

/// Some 4 KB of words that are alike from letter to letter.
fn made_up(number: usize) -> String {
    let mut state = number as u64;
    let words = (0..600).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = state >> 52;
        format!("{}{} ", ["mail", "ing ", "list", "er", "tion", "work", "the ", "of"][word as usize % 8], word / 8)
    });
    words.collect()
}

/// How many messages hold a text, and how many seconds it took to tell.
fn find(store: &Store, inbox: MailboxId, needle: &str) -> (u32, f64) {
    let (key, recent) = (SearchKey::Body(needle.to_owned()), UidSet::new());
    let mut rest = store.reader().and_then(|reader| reader.uids(inbox)).expect("uids");
    let (start, mut found) = (Instant::now(), 0);
    loop {
        let question = Question { mailbox: inbox, uids: &rest, key: &key, recent: &recent, now: Timestamp(0) };
        let slice = search(store, question, Budget::default()).expect("a search");
        found += slice.hits.count();
        let Some(next) = slice.next else { return (found, start.elapsed().as_secs_f64()) };
        drop(rest.split_first(rest.count_below(next)));
    }
}
