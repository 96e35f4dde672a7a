//! `pillarbox salvage` as a person uses it whose card was ruined.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics is a test that fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn pillarbox(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pillarbox")).args(arguments).output().unwrap()
}

fn said(arguments: &[&str]) -> String {
    let output = pillarbox(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Every message of the corpus, with the line ends it has in a Maildir.
fn letters() -> BTreeSet<Vec<u8>> {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let files = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path());
    let letters = files.filter(|path| path.extension().is_some_and(|kind| kind == "eml"));
    letters.map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).replace("\r\n", "\n").into_bytes()).collect()
}

/// A Maildir of the corpus, imported into a new store.
fn store(folder: &Path) -> String {
    let maildir = folder.join("maildir");
    for name in ["cur", "new", "tmp"] {
        fs::create_dir_all(maildir.join(name)).unwrap();
    }
    for (number, letter) in letters().into_iter().enumerate() {
        fs::write(maildir.join(format!("cur/{number}.x:2,S")), letter).unwrap();
    }
    let data = folder.join("data").display().to_string();
    fs::create_dir(folder.join("data")).unwrap();
    said(&["account", "add", "ann@pillar.test", "--data", &data]);
    said(&["import", "--account", "ann@pillar.test", "--data", &data, &maildir.display().to_string()]);
    data
}

fn in_maildir(folder: &Path) -> BTreeSet<Vec<u8>> {
    let read = |name| fs::read_dir(folder.join(name)).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    read("cur").chain(read("new")).collect()
}

#[test]
fn mail_comes_out_of_an_index_without_its_first_pages() {
    let folder = tempfile::tempdir().unwrap();
    let data = store(folder.path());
    let index = format!("{data}/mail.redb");
    let mut bytes = fs::read(&index).unwrap();
    bytes[..32 << 10].fill(0);
    fs::write(&index, &bytes).unwrap();
    let target = folder.path().join("saved");
    let text = said(&["salvage", &index, "--to", &target.display().to_string()]);
    let count = letters().len();
    assert!(text.contains(&format!("{count} messages are whole")), "{text}");
    assert_eq!(in_maildir(&target), letters());
    assert_eq!(fs::read(&index).unwrap(), bytes, "the ruin is left as it is");
    assert!(fs::read_to_string(target.join("salvage-report.txt")).unwrap().contains("messages are whole"));
    // A second run does not mix with the first.
    let output = pillarbox(&["salvage", &index, "--to", &target.display().to_string()]);
    assert!(!output.status.success(), "{output:?}");
}

#[test]
fn an_mbox_and_json_are_written_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let data = store(folder.path());
    let target = folder.path().join("saved");
    let text = said(&[
        "salvage",
        &format!("{data}/mail.redb"),
        "--to",
        &target.display().to_string(),
        "--format",
        "mbox",
        "--json",
    ]);
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["proven"].as_u64(), Some(letters().len() as u64));
    assert_eq!(told["incomplete"].as_u64(), Some(0));
    let mbox = fs::read_to_string(target.join("INBOX.mbox")).or_else(|_| fs::read_to_string(target.join("INBOX")));
    assert!(mbox.unwrap().starts_with("From "));
}

#[test]
fn a_file_without_mail_is_said_to_have_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("empty");
    fs::write(&file, vec![7; 100_000]).unwrap();
    for file in [file.as_path(), &folder.path().join("nowhere")] {
        let target = folder.path().join("saved");
        let output = pillarbox(&["salvage", &file.display().to_string(), "--to", &target.display().to_string()]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && (text.contains("no whole message") || text.contains("cannot read")),
            "{text}"
        );
        assert!(!target.exists());
    }
}
