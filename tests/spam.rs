//! The spam filter as its users meet it: mail comes, is moved with curl, and the next is judged by that.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[path = "support/server.rs"]
mod server;

use std::process::Command;
use std::time::{Duration, Instant};

use server::{Server, fail, installed, succeed};

const WATCHES: &str = "The gentlemen of our club wear fine watches, and so can you.\r\nhttp://watches.example/club\r\n";
const MEETING: &str = "Dear all, here are the minutes of the meeting on Thursday. Best regards, Ann\r\n";

/// Tells whether one of the reasons is a word that only this letter has.
fn names_a_word(told: &str) -> bool {
    ["\"fine\"", "watches\"", "\"wear", "gentlemen", "club\""].iter().any(|word| told.contains(word))
}

/// Mail from another server to an account.
fn deliver(server: &Server, to: usize, subject: &str, text: &str) {
    let letter = format!(
        "From: Someone <someone@elsewhere.test>\r\nTo: {}\r\nSubject: {subject}\r\nX-Spam-Status: No, forged\r\n\r\n{text}",
        server.account(to).0
    );
    let url = format!("smtp://localhost:{}", server.port("smtp"));
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "20", "--mail-from", "someone@elsewhere.test"]);
    curl.args(["--mail-rcpt", server.account(to).0, "--upload-file", "-", &url]);
    succeed(&mut curl, letter.as_bytes());
}

/// An IMAP command of an account in a mailbox; what the server says to it.
fn imap(server: &Server, account: usize, mailbox: &str, command: &str) -> String {
    let (address, password) = server.account(account);
    let url = format!("imaps://localhost:{}/{mailbox}", server.port("imaps"));
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "20", "--cacert", server.ca(), "--user", &format!("{address}:{password}")]);
    curl.args([&url, "-X", command]);
    succeed(&mut curl, b"")
}

/// Uids of the messages in a mailbox with this subject.
fn uids(server: &Server, account: usize, mailbox: &str, subject: &str) -> Vec<String> {
    let found = imap(server, account, mailbox, &format!("UID SEARCH SUBJECT \"{subject}\""));
    found.trim_start_matches("* SEARCH").split_whitespace().map(ToOwned::to_owned).collect()
}

fn header(server: &Server, account: usize, mailbox: &str, subject: &str) -> String {
    let uid = uids(server, account, mailbox, subject).remove(0);
    let (address, password) = server.account(account);
    let url = format!("imaps://localhost:{}/{mailbox};UID={uid};SECTION=HEADER", server.port("imaps"));
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "20", "--cacert", server.ca(), "--user", &format!("{address}:{password}"), &url]);
    succeed(&mut curl, b"")
}

fn spam(server: &Server, args: &[&str], input: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    command.arg("spam").args(args).arg("--data").arg(server.data());
    succeed(&mut command, input.as_bytes())
}

/// Waits until the filter was taught so many wanted and spam messages, which happens behind the
/// connection's back.
fn taught(server: &Server, ham: u32, spam: u32) {
    let expected = format!("was taught {ham} wanted and {spam} spam");
    let since = Instant::now();
    loop {
        let mut status = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        let told = succeed(status.arg("status").arg("--data").arg(server.data()), b"");
        if told.contains(&expected) {
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "no `{expected}` in {told}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn moving_a_message_to_junk_and_back_judges_its_siblings() {
    if !installed(&["curl"], "curl") {
        return;
    }
    let server = Server::start();
    deliver(&server, 0, "Fine watches for you", WATCHES);
    deliver(&server, 0, "Minutes", MEETING);
    assert_eq!(uids(&server, 0, "INBOX", "watches").len(), 1, "nothing was taught yet");

    let uid = uids(&server, 0, "INBOX", "watches").remove(0);
    imap(&server, 0, "INBOX", &format!("UID MOVE {uid} Junk"));
    taught(&server, 0, 1);
    deliver(&server, 0, "Fine watches for your friend", WATCHES);
    deliver(&server, 0, "Lunch on Friday", "Dear Bob, shall we have lunch on Friday after the meeting? Ann\r\n");
    assert_eq!(uids(&server, 0, "Junk", "friend").len(), 1, "the sibling is junk");
    assert_eq!(uids(&server, 0, "INBOX", "Lunch").len(), 1, "and nothing else is");
    let told = header(&server, 0, "Junk", "friend");
    assert!(told.contains("X-Spam-Status: Yes, probability=") && names_a_word(&told), "{told}");
    assert!(!told.contains("forged"), "{told}");

    // Explained in the same words by the command.
    let letter = format!("From: a@b.test\r\nSubject: Fine watches\r\n\r\n{WATCHES}");
    let told = spam(&server, &["explain", "-"], &letter);
    assert!(told.starts_with("-: 0.") && told.contains(" junk\n") && names_a_word(&told), "{told}");

    for subject in ["for you", "for your friend"] {
        let uid = uids(&server, 0, "Junk", subject).remove(0);
        imap(&server, 0, "Junk", &format!("UID MOVE {uid} INBOX"));
    }
    taught(&server, 2, 0);
    deliver(&server, 0, "Fine watches for all", WATCHES);
    assert_eq!(uids(&server, 0, "INBOX", "for all").len(), 1, "watches are wanted here");
}

#[test]
fn copies_keywords_and_appends_teach_and_reading_teaches_until_somebody_says_otherwise() {
    if !installed(&["curl"], "curl") {
        return;
    }
    let server = Server::start();
    for subject in ["one", "two", "three"] {
        deliver(&server, 0, subject, &format!("{subject} {WATCHES}"));
    }
    let uid = |subject| uids(&server, 0, "INBOX", subject).remove(0);
    imap(&server, 0, "INBOX", &format!("UID COPY {} Junk", uid("one")));
    taught(&server, 0, 1);
    imap(&server, 0, "INBOX", &format!("UID STORE {} +FLAGS ($Junk)", uid("two")));
    taught(&server, 0, 2);
    imap(&server, 0, "INBOX", &format!("UID STORE {} +FLAGS ($NotJunk)", uid("two")));
    taught(&server, 1, 1);
    imap(&server, 0, "INBOX", &format!("UID STORE {} +FLAGS (\\Seen)", uid("three")));
    taught(&server, 2, 1);
    imap(&server, 0, "INBOX", &format!("UID MOVE {} Junk", uid("three")));
    taught(&server, 1, 2);
    // What was said is not taken back by reading.
    imap(&server, 0, "Junk", "UID STORE 1:* +FLAGS (\\Seen)");
    let gone = uids(&server, 0, "Junk", "three").remove(0);
    imap(&server, 0, "Junk", &format!("UID MOVE {gone} Trash"));
    let (address, password) = server.account(0);
    let url = format!("imaps://localhost:{}/Junk", server.port("imaps"));
    let mut append = Command::new("curl");
    append.args(["-sS", "--max-time", "20", "--cacert", server.ca(), "--user", &format!("{address}:{password}")]);
    let file = server.data().with_extension("eml");
    std::fs::write(&file, "Subject: four\r\n\r\nan offer\r\n").unwrap();
    succeed(append.arg("--upload-file").arg(&file).arg(&url), b"");
    taught(&server, 1, 3);
}

#[test]
fn what_was_taught_lasts_over_a_restart_and_can_be_taken_back_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let letter = format!("Subject: Fine watches\r\n\r\n{WATCHES}");
    let server = Server::start_in(&data, server::free_base(), &[]);
    let before = spam(&server, &["score", "-"], &letter);
    assert!(before.ends_with(" accept\n"), "{before}");
    assert!(spam(&server, &["train", "--spam", "-"], &letter).starts_with("1 message taught"));
    assert!(spam(&server, &["train", "--spam", "-"], &letter).starts_with("0 messages taught"), "only once");
    let after = spam(&server, &["score", "-"], &letter);
    assert!(after.ends_with(" junk\n"), "{after}");
    assert!(server.stop());

    let server = Server::start_in(&data, server::free_base(), &[]);
    assert_eq!(spam(&server, &["score", "-"], &letter), after);
    spam(&server, &["untrain", "-"], &letter);
    assert_eq!(spam(&server, &["score", "-"], &letter), before);
    spam(&server, &["train", "--ham", "--account", server.account(0).0, "-"], &letter);
    let own = spam(&server, &["explain", "--account", server.account(0).0, "-"], &letter);
    assert!(own.contains("it was taught as wanted") && own.contains("what this account has learnt"), "{own}");
    spam(&server, &["reset", "--yes"], "");
    assert_eq!(spam(&server, &["score", "-"], &letter), before);
    let mut wrong = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    let told = fail(wrong.args(["spam", "score", "/nonexistent", "--data"]).arg(server.data()), b"");
    assert!(told.contains("/nonexistent"), "{told}");
    assert!(server.stop());
    // The same without a server.
    let mut offline = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    let told = succeed(offline.args(["spam", "score", "-", "--data"]).arg(&data), letter.as_bytes());
    assert_eq!(told, before);
}

#[test]
fn a_correspondent_is_known_and_a_message_made_to_poison_is_still_judged() {
    if !installed(&["curl"], "curl") {
        return;
    }
    let server = Server::start();
    let words: String = (0..300_000).map(|number| "word".to_owned() + &number.to_string() + " ").collect();
    deliver(&server, 0, "dictionary", &words);
    let html = format!("<div>{}</div>", "<p style='display:none'>x".repeat(100_000));
    deliver(&server, 0, "html", &html);
    for subject in ["dictionary", "html"] {
        assert!(header(&server, 0, "INBOX", subject).contains("X-Spam-Status: No"));
    }
    // Ann writes to Bob, who is known to her from then on.
    let (ann, password) = server.account(0);
    let (bob, _) = server.account(1);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "20", "--cacert", server.ca(), "--user", &format!("{ann}:{password}")]);
    curl.args(["--mail-from", ann, "--mail-rcpt", bob, "--upload-file", "-"]);
    let url = format!("smtps://localhost:{}", server.port("submissions"));
    succeed(curl.arg(url), b"Subject: hello\r\n\r\nhello\r\n");
    let letter = format!("Return-Path: <{bob}>\r\nSubject: re: hello\r\n\r\nhello\r\n");
    let since = Instant::now();
    while !spam(&server, &["explain", "--account", ann, "-"], &letter).contains("you have written to the sender") {
        assert!(since.elapsed() < Duration::from_secs(20), "Bob is not known");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!spam(&server, &["explain", "--account", bob, "-"], &letter).contains("you have written"));
}

#[test]
fn a_seed_is_taken_when_its_signature_is_right_and_given_back() {
    let server = Server::start();
    let command = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        command.args(["spam", "seed"]).args(args).arg("--data").arg(server.data());
        command
    };
    let (file, key) = ("tests/spam/seed.bin", "tests/spam/seed.pub");
    let shipped = spam(&server, &["score", "-"], MEETING);
    assert!(fail(&mut command(&[file]), b"").contains("--key KEY"));
    let other = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    assert!(fail(&mut command(&[file, "--key", other]), b"").contains("not made with this key"));
    let changed = server.data().with_extension("seed");
    let mut bytes = std::fs::read(file).unwrap();
    bytes.push(0);
    std::fs::write(&changed, &bytes).unwrap();
    assert!(fail(&mut command(&[changed.to_str().unwrap(), "--unsigned"]), b"").contains("damaged"));
    assert_eq!(spam(&server, &["score", "-"], MEETING), shipped, "nothing was changed");

    succeed(&mut command(&[file, "--key", key]), b"");
    let other = spam(&server, &["explain", "-"], MEETING);
    assert!(other.contains("-0.22  what Pillarbox came with"), "the bias of the new one: {other}");
    succeed(&mut command(&["--shipped"]), b"");
    assert_eq!(spam(&server, &["score", "-"], MEETING), shipped);
}
