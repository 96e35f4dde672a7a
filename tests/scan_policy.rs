//! What becomes of mail in which something is found, by each answer that the settings have, on its way in,
//! on its way out, and when signatures come after the mail.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[path = "support/exchange.rs"]
mod exchange;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use exchange::{Server, Setup, free_ports};

const EVIL: &[u8] = b"MZ this is what the signature below knows, and nothing else has";

/// EICAR's test file, in two halves for the sake of scanners on this repository's users' machines.
const EICAR: [&[u8]; 2] = [b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR", b"-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"];

/// A server with SMTP, submission and IMAP.
struct House {
    server: Server,
    setup: Setup,
    smtp: u16,
    submission: u16,
    imap: u16,
}

impl House {
    fn start(scan: &str) -> Self {
        let [smtp, submission, imap] = free_ports();
        let place = |port: u16| format!("127.0.0.1:{port}");
        // Nobody answers there, so that no recipient's domain is known not to exist.
        let settings = format!("[dns]\nservers = [\"127.0.0.1:9\"]\n[scan]\n{scan}");
        let mut setup = Setup::of("pillarbox.test", "mail.pillarbox.test", &place(smtp), &settings);
        setup.listen = vec![("smtp", place(smtp)), ("submission", place(submission)), ("imap", place(imap))];
        Self { server: Server::set_up(&setup), setup, smtp, submission, imap }
    }

    /// Pulls the plug and starts the server anew.
    fn power_cut(&mut self) {
        self.server.kill();
        let own = self.server.own.take();
        self.server = Server::run(&self.server.folder.clone(), &self.setup);
        self.server.own = own;
    }

    /// Takes signatures; the names of files say their format.
    fn signatures(&self, files: &[(&str, &str)]) {
        let mut add = self.command(&["signatures", "add"]);
        for (name, text) in files {
            let path = self.server.data().join("..").join(name);
            fs::write(&path, text).unwrap();
            add.arg(path);
        }
        let said = add.output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        command.args(words).arg("--data").arg(self.server.data());
        command
    }

    fn status(&self) -> serde_json::Value {
        self.server.status()
    }

    /// Waits until the round of the set with this number is over.
    fn rescanned(&self, set: u64) -> serde_json::Value {
        let since = Instant::now();
        loop {
            let rescan = self.status()["rescan"].clone();
            if rescan["set"] == set && rescan["stage"] == "done" {
                return rescan;
            }
            assert!(since.elapsed() < Duration::from_mins(1), "{rescan}\n{}", self.server.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Sends a letter to ann as another server does and returns the reply to its end.
    fn send(&self, letter: &str) -> String {
        smtp(self.smtp, None, "out@elsewhere.test", "ann@pillarbox.test", letter)
    }

    /// What an account says to IMAP, and what comes back.
    fn imap(&self, who: &str, commands: &[&str]) -> String {
        let stream = TcpStream::connect(("127.0.0.1", self.imap)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let login = format!("LOGIN {who}@pillarbox.test secret");
        for command in [login.as_str()].iter().chain(commands).chain(&["LOGOUT"]) {
            (&stream).write_all(format!("a {command}\r\n").as_bytes()).unwrap();
        }
        let mut heard = String::new();
        BufReader::new(stream).read_to_string(&mut heard).unwrap();
        heard
    }

    /// Subjects and flags in a mailbox; empty when there is no such mailbox.
    fn subjects(&self, who: &str, mailbox: &str) -> Vec<String> {
        let heard =
            self.imap(who, &[&format!("EXAMINE {mailbox}"), "FETCH 1:* (FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])"]);
        let mut flags = "";
        let mut found = Vec::new();
        for line in heard.lines() {
            if line.starts_with("* ") && line.contains(" FETCH ") {
                flags = if line.contains("$Suspicious") { "!" } else { "" };
            }
            if let Some(subject) = line.strip_prefix("Subject: ") {
                found.push(format!("{flags}{subject}"));
            }
        }
        found
    }
}

/// Sends a letter and returns the reply to its end, or the first refusal.
fn smtp(port: u16, login: Option<&str>, from: &str, to: &str, letter: &str) -> String {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut reply = || {
        let mut line = String::new();
        loop {
            line.clear();
            lines.read_line(&mut line).unwrap();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.trim_end().to_owned();
            }
        }
    };
    let say = |line: &str| (&stream).write_all(format!("{line}\r\n").as_bytes()).unwrap();
    reply();
    say("EHLO client.test");
    reply();
    if let Some(who) = login {
        let plain = format!("\0{who}@pillarbox.test\0secret");
        say(&format!("AUTH PLAIN {}", STANDARD.encode(plain)));
        assert!(reply().starts_with("235"));
    }
    for line in [format!("MAIL FROM:<{from}>"), format!("RCPT TO:<{to}>"), "DATA".into()] {
        say(&line);
        let said = reply();
        if !said.starts_with(['2', '3']) {
            return said;
        }
    }
    say(&format!("{letter}\r\n."));
    reply()
}

/// A zip archive with one stored file.
fn zip(name: &str, content: &[u8], flags: u16) -> Vec<u8> {
    let size = u32::try_from(content.len()).unwrap().to_le_bytes();
    let mut out = b"PK\x03\x04\x14\0".to_vec();
    out.extend(flags.to_le_bytes());
    out.extend([0; 10]);
    out.extend([size, size].concat());
    out.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
    out.extend([0, 0]);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(content);
    out
}

fn letter(subject: &str, name: &str, attachment: &[u8]) -> String {
    let coded = STANDARD.encode(attachment);
    let lines: Vec<&str> = coded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!(
        "From: Out <out@elsewhere.test>\r\nTo: you\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=q\r\n\r\n--q\r\n\r\nsee there\r\n--q\r\n\
         Content-Type: application/octet-stream; name={name}\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n--q--",
        lines.join("\r\n")
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn each_finding_has_the_answer_of_its_own_that_the_settings_give_it() {
    let server = House::start(
        "infected = \"quarantine\"\nquarantine-account = \"bob@pillarbox.test\"\ndangerous-names = \"reject\"\n\
         double-extensions = \"junk\"\nencrypted = \"tag\"\nmacros = \"junk\"\nlimits = \"reject\"\ndepth-max = 3\n\
         notify-recipients = true",
    );
    server.signatures(&[("own.rules", "Test.Evil ; any ; * ; text \"what the signature below knows\"\n")]);

    // Malware is put aside: its sender learns nothing, its recipient a little, the administrator has it.
    assert!(server.send(&letter("infected", "a.zip", &zip("a.bin", EVIL, 0))).starts_with("250 "));
    assert_eq!(server.subjects("bob", "Quarantine"), ["infected"]);
    assert_eq!(server.subjects("ann", "INBOX"), ["Mail for you was put aside"]);
    let told = server.imap("ann", &["EXAMINE INBOX", "FETCH 1 BODY.PEEK[]"]);
    for line in ["Return-Path: <>", "Found:   Test.Evil", "Subject: infected", "write to bob@pillarbox.test"] {
        assert!(told.contains(line), "{line:?} in {told}");
    }

    // A program is refused by its name, and its recipient is told that too.
    let reply = server.send(&letter("program", "setup.exe", b"x"));
    assert_eq!(reply, "554 5.7.1 not taken: it has Attachment.Program:setup.exe");
    assert_eq!(server.subjects("ann", "INBOX").last().unwrap(), "Mail for you was refused");

    assert!(server.send(&letter("double", "invoice.pdf.exe", b"x")).starts_with("250 "));
    assert_eq!(server.subjects("ann", "Junk"), ["double"]);
    assert!(server.send(&letter("encrypted", "b.zip", &zip("b.doc", b"0123456789abcdef", 1))).starts_with("250 "));
    assert_eq!(server.subjects("ann", "INBOX").last().unwrap(), "!encrypted");
    let macros = zip("Basic/Standard/Module1.xml", b"<script/>", 0);
    assert!(server.send(&letter("macros", "c.odt", &macros)).starts_with("250 "));
    assert_eq!(server.subjects("ann", "Junk"), ["double", "macros"]);
    let deep = (0..9).fold(b"deep".to_vec(), |inner, _| zip("d.zip", &inner, 0));
    assert_eq!(server.send(&letter("deep", "d.zip", &deep)), "554 5.7.1 not taken: it has Limits.Exceeded.Depth");

    // Nobody can fill a mailbox with notices.
    for _ in 0..8 {
        assert!(server.send(&letter("again", "setup.exe", b"x")).starts_with("554 "));
    }
    let notices = server.subjects("ann", "INBOX").iter().filter(|subject| subject.starts_with("Mail for you")).count();
    assert_eq!(notices, 5);
}

#[test]
fn eicar_in_a_zip_in_a_message_in_a_message_is_refused_on_every_way_in() {
    let server = House::start("");
    let eicar = EICAR.concat();
    let [smtp_port, submission] = [server.smtp, server.submission];
    server.signatures(&[("e.ndb", &format!("Eicar-Test:0:0:{}\n", hex(&eicar)))]);
    let inner = letter("inner", "eicar.zip", &zip("eicar.com", &eicar, 0));
    let outer = format!(
        "From: Out <out@elsewhere.test>\r\nSubject: outer\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n\r\nforwarded\r\n--o\r\n\
         Content-Type: message/rfc822\r\n\r\n{inner}\r\n--o--"
    );
    assert_eq!(server.send(&outer), "554 5.7.1 not taken: it has Eicar-Test");
    // A user's own mail too, to others here and elsewhere.
    for to in ["bob@pillarbox.test", "who@elsewhere.test"] {
        let reply = smtp(submission, Some("ann"), "ann@pillarbox.test", to, &outer);
        assert_eq!(reply, "554 5.7.1 not taken: it has Eicar-Test");
    }
    // Cut apart it is nothing, and comes as it was sent.
    let clean = letter("clean", "clean.zip", &zip("eicar.com", EICAR[0], 0));
    assert!(smtp(smtp_port, None, "out@elsewhere.test", "ann@pillarbox.test", &clean).starts_with("250 "));
    let heard = server.imap("ann", &["EXAMINE INBOX", "FETCH 1 BODY.PEEK[TEXT]"]);
    let (_, body) = clean.split_once("\r\n\r\n").unwrap();
    assert!(heard.contains(&format!("BODY[TEXT] {{{}}}\r\n{body}\r\n)", body.len() + 2)), "{heard}");
    assert_eq!(server.subjects("bob", "INBOX"), [""; 0]);
}

#[test]
fn signatures_that_come_later_find_mail_that_was_taken() {
    let server = House::start("quarantine-account = \"bob@pillarbox.test\"\nnotify-recipients = true");
    server.signatures(&[("first.rules", "Test.Other ; any ; * ; text \"something that nothing here has\"\n")]);
    server.rescanned(1);
    assert!(server.send(&letter("evil", "a.zip", &zip("a.bin", EVIL, 0))).starts_with("250 "));
    assert!(server.send(&letter("harmless", "b.zip", &zip("b.bin", b"MZ quite harmless", 0))).starts_with("250 "));
    assert!(
        smtp(server.smtp, None, "out@elsewhere.test", "ann@pillarbox.test", "Subject: words\r\n\r\nonly")
            .starts_with("250 ")
    );
    assert_eq!(server.subjects("ann", "INBOX"), ["evil", "harmless", "words"]);

    // By its digest it is found among the prints, which reads one body and no other before that.
    let digest = ring::digest::digest(&ring::digest::SHA256, EVIL);
    let listed = format!("{}:{}:Test.Late\n", hex(digest.as_ref()), EVIL.len());
    server.signatures(&[("late.hsb", &listed)]);
    let rescan = server.rescanned(2);
    assert_eq!(rescan["found"], 1, "{rescan}");
    assert_eq!(rescan["named"][0], "Test.Late in mail of ann@pillarbox.test, put aside");
    assert_eq!(server.subjects("bob", "Quarantine"), ["evil"]);
    assert_eq!(server.subjects("ann", "INBOX"), ["harmless", "words", "Mail was taken out of your mailbox"]);
    let shown = server.command(&["status"]).output().unwrap().stdout;
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("found later: Test.Late in mail of ann@pillarbox.test, put aside"), "{shown}");

    // A pattern has no print, so that bodies are read: two letters, and the notices about two others. What
    // was put aside stays where it is.
    server.signatures(&[("late.rules", "Test.Pattern ; any ; * ; text \"quite harmless\"\n")]);
    let rescan = server.rescanned(3);
    assert_eq!((&rescan["found"], &rescan["read"]), (&1.into(), &4.into()), "{rescan}");
    assert_eq!(server.subjects("bob", "Quarantine"), ["evil", "harmless"]);

    // With nothing left to do nothing is written, and after a power cut nothing is done again.
    let written = |status: &serde_json::Value| {
        (status["store"]["journal-written"].clone(), status["store"]["index-written"].clone())
    };
    let before = written(&server.status());
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(written(&server.status()), before);
    let mut server = server;
    server.power_cut();
    assert_eq!(server.rescanned(3)["set"], 3);
    assert_eq!(server.subjects("bob", "Quarantine"), ["evil", "harmless"]);
}

#[test]
fn where_nobody_has_the_quarantine_late_findings_go_to_junk_once() {
    let server = House::start("");
    assert!(server.send(&letter("evil", "a.bin", EVIL)).starts_with("250 "));
    // Nothing scanned this message when it came: there were no signatures.
    server.signatures(&[("own.rules", "Test.Evil ; any ; * ; text \"what the signature below knows\"\n")]);
    assert_eq!(server.rescanned(1)["found"], 1);
    assert_eq!(server.subjects("ann", "Junk"), ["!evil"]);
    assert_eq!(server.subjects("ann", "INBOX"), [""; 0]);
    server.signatures(&[("more.rules", "Test.More ; any ; * ; text \"what the signature below knows\"\n")]);
    assert_eq!(server.rescanned(2)["found"], 0, "it is known already");
    assert_eq!(server.subjects("ann", "Junk"), ["!evil"]);
}

#[test]
fn mail_is_not_scanned_again_where_that_is_turned_off() {
    let server = House::start("rescan-days = 0");
    assert!(server.send(&letter("evil", "a.bin", EVIL)).starts_with("250 "));
    server.signatures(&[("own.rules", "Test.Evil ; any ; * ; text \"what the signature below knows\"\n")]);
    assert!(server.send(&letter("evil", "a.bin", EVIL)).starts_with("554 "));
    assert_eq!(server.status()["rescan"], serde_json::Value::Null);
    assert_eq!(server.subjects("ann", "INBOX"), ["evil"]);
}

#[test]
fn malware_may_be_marked_and_what_cannot_be_unpacked_refused() {
    let server = House::start("infected = \"tag\"\nunreadable = \"reject\"");
    server.signatures(&[("own.rules", "Test.Evil ; any ; * ; text \"what the signature below knows\"\n")]);
    assert!(server.send(&letter("evil", "a.zip", &zip("a.bin", EVIL, 0))).starts_with("250 "));
    assert_eq!(server.subjects("ann", "INBOX"), ["!evil"]);
    // Packed by a method that is not known here.
    let mut odd = zip("odd.bin", b"packed somehow", 0);
    odd[8] = 97;
    assert_eq!(server.send(&letter("odd", "b.zip", &odd)), "554 5.7.1 not taken: it has Attachment.Unreadable:odd.bin");
    // The user's own mail is held to the same.
    let reply =
        smtp(server.submission, Some("ann"), "ann@pillarbox.test", "bob@pillarbox.test", &letter("odd", "b.zip", &odd));
    assert_eq!(reply, "554 5.7.1 not taken: it has Attachment.Unreadable:odd.bin");
    assert_eq!(server.subjects("bob", "INBOX"), [""; 0]);
}

#[test]
fn a_quarantine_that_is_full_keeps_mail_with_its_sender_and_loses_none() {
    let server = House::start("infected = \"quarantine\"\nquarantine-account = \"bob@pillarbox.test\"");
    assert!(server.send(&letter("early", "a.bin", EVIL)).starts_with("250 "));
    server.signatures(&[("own.rules", "Test.Evil ; any ; * ; text \"what the signature below knows\"\n")]);
    assert_eq!(server.rescanned(1)["found"], 1);
    assert_eq!(server.subjects("bob", "Quarantine"), ["early"]);
    let quota = |messages: &str| {
        let said =
            server.command(&["account", "quota", "bob@pillarbox.test", "--messages", messages]).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    };
    quota("1");
    let evil = letter("evil", "a.bin", EVIL);
    for _ in 0..2 {
        assert_eq!(server.send(&evil), "452 4.2.2 mailbox is full");
    }
    assert!(server.server.log().contains("make room in the mailbox Quarantine"), "{}", server.server.log());
    assert_eq!(server.subjects("bob", "Quarantine"), ["early"]);
    assert_eq!(server.subjects("ann", "INBOX"), [""; 0], "it goes nowhere else");
    // Clean mail is not concerned, and what is found late is taken out all the same.
    assert!(server.send(&letter("late", "b.bin", b"MZ quite harmless")).starts_with("250 "));
    server.signatures(&[("late.rules", "Test.Late ; any ; * ; text \"quite harmless\"\n")]);
    assert_eq!(server.rescanned(2)["found"], 1);
    assert_eq!(server.subjects("ann", "Junk"), ["!late"]);
    // The sender tries again when there is room.
    quota("none");
    assert!(server.send(&evil).starts_with("250 "));
    assert_eq!(server.subjects("bob", "Quarantine"), ["early", "evil"]);
}

#[test]
fn old_mail_that_is_brought_in_is_not_scanned_again() {
    let server = House::start("");
    let stream = |date: &str, subject: &str| {
        let text = letter(subject, "a.bin", EVIL);
        format!("APPEND INBOX \"{date} 12:00:00 +0000\" {{{}+}}\r\n{text}", text.len())
    };
    let heard = server.imap("ann", &[&stream("01-Jan-2020", "old")]);
    assert!(heard.contains("a OK"), "{heard}");
    assert!(server.send(&letter("new", "a.bin", EVIL)).starts_with("250 "));
    server.signatures(&[("own.rules", "Test.Evil ; any ; * ; text \"what the signature below knows\"\n")]);
    let rescan = server.rescanned(1);
    assert_eq!((&rescan["found"], &rescan["read"]), (&1.into(), &1.into()), "{rescan}");
    assert_eq!(server.subjects("ann", "INBOX"), ["old"]);
    assert_eq!(server.subjects("ann", "Junk"), ["!new"]);
}
