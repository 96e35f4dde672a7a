//! Mail with malware as its sender and its recipient meet it: refused with a reply that names it, while clean
//! attachments arrive byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[path = "support/server.rs"]
mod server;

use std::fs;
use std::process::Command;

use server::{Server, fail, installed, succeed};

/// A zip archive with a stored file `a.txt`: what it needs to be found in, and no more.
fn zip(content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len()).unwrap().to_le_bytes();
    let mut out = b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    out.extend([size, size].concat());
    out.extend_from_slice(b"\x05\0\0\0a.txt");
    out.extend_from_slice(content);
    out
}

fn letter(attachment: &[u8], name: &str) -> String {
    use base64::Engine as _;
    let coded = base64::engine::general_purpose::STANDARD.encode(attachment);
    let lines: Vec<&str> = coded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!(
        "From: Ann <ann@elsewhere.test>\r\nTo: you\r\nSubject: {name}\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=q\r\n\r\n--q\r\n\r\nsee there\r\n--q\r\n\
         Content-Type: application/zip; name={name}\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n--q--\r\n",
        lines.join("\r\n")
    )
}

fn send(server: &Server, name: &str) -> Command {
    let url = format!("smtp://localhost:{}", server.port("smtp"));
    let mut curl = Command::new("curl");
    curl.args(["-sSv", "--max-time", "30", "--mail-from", "ann@elsewhere.test", "--mail-rcpt", server.account(0).0]);
    curl.args(["--upload-file", "-", &url]);
    assert!(!name.is_empty());
    curl
}

fn search(server: &Server, mailbox: &str, criteria: &str) -> String {
    let (address, password) = server.account(0);
    let url = format!("imaps://localhost:{}/{mailbox}", server.port("imaps"));
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "20", "--cacert", server.ca(), "--user", &format!("{address}:{password}")]);
    curl.args([&url, "-X", &format!("UID SEARCH {criteria}")]);
    succeed(&mut curl, b"").trim().trim_start_matches("* SEARCH").trim().to_owned()
}

#[test]
fn malware_is_refused_by_name_and_clean_mail_arrives_as_it_was_sent() {
    if !installed(&["curl"], "curl") {
        return;
    }
    let server = Server::start();
    let evil = b"this is what the signature below knows, and nothing else has";
    let clean = b"the minutes of the meeting";

    // Without signatures it comes in.
    succeed(&mut send(&server, "early.zip"), letter(&zip(evil), "early.zip").as_bytes());
    assert_eq!(search(&server, "INBOX", "SUBJECT early.zip"), "2", "behind the welcome message");

    let rules = server.data().join("../own.rules");
    fs::write(&rules, "Test.Evil ; any ; * ; text \"what the signature below knows\"\n").unwrap();
    let mut add = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    let told = succeed(add.args(["signatures", "add"]).arg(&rules).arg("--data").arg(server.data()), b"");
    assert!(told.contains("own.rules: 1 taken"), "{told}");

    // The running server has them with the next message.
    let said = fail(&mut send(&server, "evil.zip"), letter(&zip(evil), "evil.zip").as_bytes());
    assert!(said.contains("554 5.7.1 not taken: it has Test.Evil"), "{said}");
    assert_eq!(search(&server, "INBOX", "SUBJECT evil.zip"), "");

    let sent = letter(&zip(clean), "clean.zip");
    succeed(&mut send(&server, "clean.zip"), sent.as_bytes());
    let uid = search(&server, "INBOX", "SUBJECT clean.zip");
    let (address, password) = server.account(0);
    let url = format!("imaps://localhost:{}/INBOX;UID={uid};SECTION=TEXT", server.port("imaps"));
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "20", "--cacert", server.ca(), "--user", &format!("{address}:{password}"), &url]);
    let body = succeed(&mut curl, b"");
    assert_eq!(body, sent.split_once("\r\n\r\n").unwrap().1);

    // A name that lies is refused by the settings as they ship; a plain program is marked.
    let said = fail(&mut send(&server, "x"), letter(clean, "invoice.pdf.exe").as_bytes());
    assert!(said.contains("554 5.7.1 not taken: it has Attachment.DoubleExtension:invoice.pdf.exe"), "{said}");
    succeed(&mut send(&server, "x"), letter(clean, "setup.exe").as_bytes());
    assert_eq!(search(&server, "INBOX", "KEYWORD $Suspicious"), search(&server, "INBOX", "SUBJECT setup.exe"));

    // Taken back, they count no more; a file that is no set is refused.
    let mut remove = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    succeed(remove.args(["signatures", "remove", "own.rules", "--data"]).arg(server.data()), b"");
    succeed(&mut send(&server, "late.zip"), letter(&zip(evil), "late.zip").as_bytes());
    assert_eq!(search(&server, "INBOX", "SUBJECT late.zip").split(' ').count(), 1);
}

#[test]
fn the_scan_command_tells_as_clamavs_does() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("in")).unwrap();
    fs::write(at("in/evil.zip"), zip(b"some evil text here")).unwrap();
    fs::write(at("in/fine.txt"), "fine").unwrap();
    std::os::unix::fs::symlink(at("in/evil.zip"), at("in/link")).unwrap();
    fs::write(at("own.rules"), "Test.Evil ; any ; * ; text \"some evil text\"\n").unwrap();
    let scan = |paths: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        command.arg("scan").arg("--db").arg(at("own.rules")).args(paths.iter().map(|path| at(path)));
        let output = command.output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status.code())
    };
    let place = |name: &str| at(name).display().to_string();
    let expected = format!("{}: Test.Evil FOUND\n{}: OK\n", place("in/evil.zip"), place("in/fine.txt"));
    assert_eq!(scan(&["in"]), (expected, Some(1)));
    assert_eq!(scan(&["in/fine.txt"]), (format!("{}: OK\n", place("in/fine.txt")), Some(0)));
    let (told, code) = scan(&["missing"]);
    assert!(told.ends_with(" ERROR\n") && code == Some(2), "{told} {code:?}");
}

#[test]
fn signatures_come_and_go_and_what_is_refused_changes_nothing() {
    const GOOD: &str = "44d88612fea8a8f36de82e1278abb02f:68:Test.Digest\n";
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["data", "stick", "other"] {
        fs::create_dir(at(name)).unwrap();
    }
    let signatures = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        command.arg("signatures").args(words).arg("--data").arg(at("data")).current_dir(folder.path());
        command
    };
    let sources = || {
        let entries = fs::read_dir(at("data/signatures")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert!(succeed(&mut signatures(&["info"]), b"").contains("there are no signatures"));
    assert!(fail(&mut signatures(&["verify"]), b"").contains("signatures.set"));

    fs::write(at("a.hdb"), format!("{GOOD}nonsense:1:Test.None\n")).unwrap();
    let told = succeed(&mut signatures(&["add", "a.hdb"]), b"");
    for line in ["1 digests, 0 patterns", "a.hdb: 1 taken", "  1 not taken: digests that are not hexadecimal"] {
        assert!(told.contains(line), "{line:?} in {told}");
    }
    // A whole stick of them: what is no signature file by its name is passed over.
    fs::write(at("stick/b.ndb"), "Test.Pattern:0:*:aabbccddeeff\n").unwrap();
    fs::write(at("stick/c.ldb"), "Test.Both;Target:0;0&1;aabbccdd;00112233\nTest.Macro;Target:0;0;${1-2}3$\n").unwrap();
    fs::write(at("stick/readme.txt"), "read me").unwrap();
    succeed(&mut signatures(&["update", "stick"]), b"");
    assert_eq!(sources(), ["a.hdb", "b.ndb", "c.ldb"]);
    let listed = succeed(&mut signatures(&["list"]), b"");
    let rows: Vec<Vec<&str>> = listed.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows, [["a.hdb", "1", "1"], ["b.ndb", "1", "0"], ["c.ldb", "1", "1"]]);
    assert_eq!(succeed(&mut signatures(&["verify"]), b"").trim(), "the signature set is whole");

    // A file of the same name takes the place of the one before.
    fs::write(at("other/b.ndb"), "Test.One:0:*:aabbccddeeff\nTest.Two:0:*:ffeeddccbbaa\n").unwrap();
    assert!(succeed(&mut signatures(&["add", "other/b.ndb"]), b"").contains("b.ndb: 2 taken"));

    // What can't be taken changes nothing, and nothing of it is left behind.
    let (before, set) = (sources(), fs::read(at("data/signatures.set")).unwrap());
    fs::write(at("broken.cvd"), "no container").unwrap();
    fs::write(at("d.hdb"), GOOD).unwrap();
    let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let refused: [(&[&str], &str); 6] = [
        (&["add", "d.hdb", "stick/readme.txt"], "this is no signature file"),
        (&["add", "d.hdb", "broken.cvd"], "this is not a container of ClamAV's"),
        (&["add", "d.hdb", "missing.hdb"], "missing.hdb: No such file"),
        (&["add", "d.hdb", "--key", key], "d.hdb.minisig: No such file"),
        (&["add", "stick/b.ndb", "other/b.ndb"], "two of these files have this name"),
        (&["remove", "d.hdb"], "there is no signature file d.hdb"),
    ];
    for (words, why) in refused {
        let said = fail(&mut signatures(words), b"");
        assert!(said.contains(why), "{words:?}: {said}");
        assert_eq!(sources(), before, "{words:?}");
    }
    assert_eq!(fs::read(at("data/signatures.set")).unwrap(), set);

    let mut altered = set.clone();
    *altered.last_mut().unwrap() ^= 1;
    fs::write(at("data/signatures.set"), altered).unwrap();
    assert!(fail(&mut signatures(&["verify"]), b"").contains("damaged"));
    succeed(&mut signatures(&["remove", "a.hdb", "c.ldb"]), b"");
    assert_eq!(sources(), ["b.ndb"]);
    assert!(succeed(&mut signatures(&["verify"]), b"").contains("whole"));
    succeed(&mut signatures(&["remove", "b.ndb"]), b"");
    assert!(!at("data/signatures.set").exists());
}
