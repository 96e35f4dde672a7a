//! `pillarbox check-store` as its user meets it: on files with flipped bits, beside a running
//! server, on a large store in little memory, and its exit codes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics is a test that fails")]

#[path = "support/server.rs"]
mod server;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pillarbox::mail::address::Address;
use pillarbox::mail::date::{Timestamp, ZonedTime};
use pillarbox::mail::mailbox::{AccountId, MailboxName};
use pillarbox::mail::message::{FlagNames, UidSet};
use pillarbox::mail::secret::ScramVerifier;
use pillarbox::mail::structure::Walker;
use pillarbox::store::{Folder, NewMessage, Quota, Store, StoreConfig};
use server::Server;

fn pillarbox(words: &[&str], data: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pillarbox")).args(words).arg("--data").arg(data).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn letter(store: &Store, subject: &str, rest: &[u8]) -> NewMessage {
    let bytes = [format!("Subject: {subject}\r\n\r\n").as_bytes(), rest].concat();
    let (mut spool, mut walker) = (store.spool().unwrap(), Walker::new());
    spool.write(&bytes).unwrap();
    walker.feed(&bytes);
    NewMessage {
        body: spool.finish().unwrap(),
        structure: walker.finish(),
        internal_date: ZonedTime::utc(Timestamp(1_773_310_272)),
        flags: FlagNames::default(),
    }
}

fn open(data: &Path) -> (Store, AccountId) {
    let config = StoreConfig { journal_bytes: 4 << 20, reserve_bytes: 0, ..StoreConfig::default() };
    let store = Store::open(data, &config).unwrap();
    let verifier = ScramVerifier { salt: [1; 16], iterations: 2, stored_key: [2; 32], server_key: [3; 32] };
    let ann = Address::parse("ann@pillar.test").unwrap();
    let ann = store.add_account(ann, verifier, Quota::default()).wait().unwrap();
    (store, ann)
}

/// Bytes that do not compress.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[7]
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn a_flipped_bit_is_named_and_changes_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (store, ann) = open(&data);
    for number in 0..3 {
        let letter = letter(&store, &format!("Invoice {number}"), &noise(40_000, number));
        store.deliver(letter, vec![(ann, Folder::Inbox)]).wait().unwrap();
    }
    store.close().unwrap();
    let sound = pillarbox(&["check-store", "--deep"], &data);
    assert_eq!(sound.status.code(), Some(0), "{}", text(&sound.stderr));
    assert!(text(&sound.stdout).ends_with("all is well\n"), "{}", text(&sound.stdout));

    // A byte of the second message's first piece, which begins with its mark and its body's number.
    let file = data.join("mail.redb");
    let mut bytes = fs::read(&file).unwrap();
    let mark = [&b"pbxP"[..], &1_u64.to_le_bytes(), &0_u32.to_le_bytes()].concat();
    let at = bytes.windows(mark.len()).rposition(|window| window == mark).unwrap();
    bytes[at + 9000] ^= 8;
    fs::write(&file, &bytes).unwrap();
    let damaged = pillarbox(&["check-store"], &data);
    let said = text(&damaged.stdout);
    assert_eq!(damaged.status.code(), Some(1), "{said}");
    assert!(said.starts_with("mail.redb: damaged pages (a checksum is wrong near byte "), "{said}");
    let named = "message 2 in INBOX of ann@pillar.test (12 Mar 2026, \"Invoice 1\"): piece 1 of its body is damaged\n";
    assert!(said.contains(named), "{said}");
    assert!(said.contains("pillarbox salvage "), "{said}");
    // A repair does not make it worse, nor better.
    let repaired = pillarbox(&["check-store", "--repair", "--json"], &data);
    let said = text(&repaired.stdout);
    assert_eq!(repaired.status.code(), Some(1), "{said}");
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["report"]["damaged"]), (&"done".into(), &2.into()), "{said}");
    // What is counted and linked is well, and so says a quick check.
    assert_eq!(pillarbox(&["check-store", "--quick"], &data).status.code(), Some(0));
}

#[test]
fn a_store_that_cannot_be_checked_is_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let missing = pillarbox(&["check-store"], &folder.path().join("nowhere"));
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("there is no data folder"), "{}", text(&missing.stderr));
    let (store, _) = open(&folder.path().join("data"));
    let busy = pillarbox(&["check-store"], &folder.path().join("data"));
    assert_eq!(busy.status.code(), Some(2));
    assert!(text(&busy.stderr).contains("another process"), "{}", text(&busy.stderr));
    store.close().unwrap();
    assert_eq!(pillarbox(&["check-store", "--deep", "--quick"], folder.path()).status.code(), Some(2));
}

#[test]
fn a_store_whose_journal_is_lost_is_opened_by_a_repair_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start_in(&data, server::free_base(), &[]);
    server.kill();
    fs::remove_file(data.join("mail.journal")).unwrap();
    let refused = pillarbox(&["check-store"], &data);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stdout));
    assert!(text(&refused.stderr).contains("check-store --repair"), "{}", text(&refused.stderr));
    let repaired = pillarbox(&["check-store", "--repair"], &data);
    assert_eq!(repaired.status.code(), Some(0), "{}", text(&repaired.stdout));
    assert!(text(&repaired.stderr).contains("is given up"), "{}", text(&repaired.stderr));
    assert_eq!(pillarbox(&["check-store"], &data).status.code(), Some(0));
}

#[test]
fn a_running_server_is_checked_while_mail_comes_in() {
    let server = Server::start();
    let mbox = server.data().with_extension("mbox");
    let mut mail = Vec::new();
    for number in 0..40_u64 {
        let body: Vec<u8> = noise(9000, number).iter().map(|byte| b'a' + byte % 26).collect();
        mail.extend_from_slice(format!("From x@y.test Thu Mar 12 10:11:12 2026\nSubject: {number}\n\n").as_bytes());
        mail.extend(body.chunks(70).flat_map(|line| [line, b"\n"].concat()));
        mail.push(b'\n');
    }
    fs::write(&mbox, mail).unwrap();
    let (address, done) = (server.account(0).0.to_owned(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3 {
                let words = ["import", "--again", "--account", &address, mbox.to_str().unwrap()];
                let import = pillarbox(&words, server.data());
                assert!(import.status.success(), "{}", text(&import.stderr));
            }
            done.store(true, Ordering::Release);
        });
        let mut checks = 0;
        while checks < 2 || !done.load(Ordering::Acquire) {
            checks += 1;
            let check = pillarbox(&["check-store", "--deep"], server.data());
            let said = text(&check.stdout);
            assert_eq!(check.status.code(), Some(0), "{said}{}", text(&check.stderr));
            assert!(said.ends_with("all is well\n"), "{said}");
        }
    });
    let repair = pillarbox(&["check-store", "--repair"], server.data());
    assert_eq!(repair.status.code(), Some(0), "{}{}", text(&repair.stdout), text(&repair.stderr));
    let status = pillarbox(&["status"], server.data());
    assert!(text(&status.stdout).contains("Scrub       not finished for the first time"), "{}", text(&status.stdout));
    assert!(server.stop());
}

#[test]
fn a_hundred_thousand_messages_are_checked_in_a_few_mebibytes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (store, ann) = open(&data);
    let name = MailboxName::new("INBOX").unwrap();
    let inbox = store.reader().unwrap().mailbox_named(ann, &name).unwrap().unwrap().id;
    for start in (0..10_000).step_by(250) {
        let letters = (start..start + 250).map(|number| letter(&store, &number.to_string(), &noise(600, number)));
        store.append(inbox, letters.collect()).wait().unwrap();
    }
    let uids: UidSet = store.reader().unwrap().uids(inbox).unwrap();
    for _ in 0..9 {
        store.copy(inbox, uids.clone(), inbox).wait().unwrap();
    }
    store.close().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_pillarbox"))
        .args(["check-store", "--json", "--data"])
        .arg(&data)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = loop {
        let now = fs::read_to_string(&status).unwrap_or_default();
        let line = now.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let line = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = line.unwrap_or(0).max(peak);
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let said = std::io::read_to_string(child.stdout.take().unwrap()).unwrap();
    assert!(ended.success(), "{said}");
    let last: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!((&last["report"]["messages"], &last["report"]["bodies"]), (&100_000.into(), &10_000.into()), "{said}");
    // The program itself, unoptimized, is most of it; redb's cache is 2 MiB.
    assert!(peak > 0 && peak < 40 << 10, "{peak} KiB");
    println!("checked 100,000 messages with {peak} KiB resident at most");
}
