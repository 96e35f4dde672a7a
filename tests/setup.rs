//! A card's first set-up, as the image calls it: `pillarbox setup` on files of a boot and a data partition.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const TEMPLATE: &str = include_str!("../image/pillarbox-setup.toml");

/// A boot and a data partition, as folders.
struct Card {
    folder: TempDir,
}

impl Card {
    fn new(setup: impl AsRef<[u8]>) -> Self {
        let card = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(card.path("config")).unwrap();
        fs::create_dir(card.path("mail")).unwrap();
        card.write(setup);
        card
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, setup: impl AsRef<[u8]>) {
        fs::write(self.path("setup.toml"), setup).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// A start of the box.
    fn start(&self) -> Output {
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        command.arg("setup").arg("--user").arg(String::from_utf8(user).unwrap().trim());
        for (option, name) in [
            ("--file", "setup.toml"),
            ("--report", "report.txt"),
            ("--config", "config/pillarbox.toml"),
            ("--wifi", "config/wifi.conf"),
            ("--data", "mail"),
        ] {
            command.arg(option).arg(self.path(name));
        }
        command.args(["--mount", "/"]).output().unwrap()
    }

    fn accounts(&self) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        let output = command.args(["account", "list", "--data"]).arg(self.path("mail")).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn is_good_config(path: &Path) -> bool {
    let mut check = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    check.args(["check", "--file-only", "--config"]).arg(path).output().unwrap().status.success()
}

#[test]
fn a_box_that_is_told_nothing_has_two_accounts_and_shows_their_codes_once() {
    let card = Card::new(TEMPLATE);
    let first = card.start();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert_eq!(said(&first).matches("Setup code: account ").count(), 2, "{}", said(&first));
    assert!(card.accounts().contains("ann@pillarbox.local") && card.accounts().contains("bob@pillarbox.local"));
    assert!(is_good_config(&card.path("config/pillarbox.toml")));
    assert!(!card.read("report.txt").contains("Setup code"), "a password in the report");
    let second = card.start();
    assert!(second.status.success() && second.stdout.is_empty(), "{}", said(&second));
}

#[test]
fn what_is_asked_for_is_done_and_its_secrets_are_gone() {
    let setup = "hostname = \"mail.x.test\"\ndomain = \"y.test\"\n[account]\naddress = \"eve@x.test\"\n\
                 password = \"correct horse\"\n[wifi]\nname = \"net\"\npassword = \"battery staple\"\n";
    let card = Card::new(setup);
    let output = card.start();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(card.accounts().contains("eve@x.test") && !card.accounts().contains("ann@"), "{}", card.accounts());
    assert!(card.read("config/pillarbox.toml").contains("hostname = \"mail.x.test\""));
    assert!(card.read("config/wifi.conf").contains("psk=\"battery staple\""));
    assert_eq!(card.read("setup.toml"), TEMPLATE);
    let report = card.read("report.txt");
    assert!(
        report.contains("The account eve@x.test was added.\r\n") && report.contains("y.test stays here"),
        "{report}"
    );
    assert!(!report.contains("correct horse") && !report.contains("battery staple"), "{report}");
    // A new password for the same account.
    card.write("[account]\naddress = \"eve@x.test\"\npassword = \"another horse\"\n");
    assert!(said(&card.start()).contains("eve@x.test has a new password"));
    assert!(card.read("config/pillarbox.toml").contains("hostname = \"mail.x.test\""));
}

#[test]
fn a_wrong_file_is_explained_and_the_box_runs_all_the_same() {
    let wrong = "hostnam = \"mail.x.test\"\n[account]\naddress = \"eve@x.test\"\npassword = \"correct horse\"\n";
    let card = Card::new(wrong);
    let output = card.start();
    assert!(!output.status.success());
    let sentence = "setup.toml line 1: there is no section or setting `hostnam`; did you mean `hostname`?";
    assert!(said(&output).contains(sentence) && card.read("report.txt").contains(sentence), "{}", said(&output));
    assert!(is_good_config(&card.path("config/pillarbox.toml")));
    assert!(card.accounts().contains("ann@pillarbox.local") && !card.accounts().contains("eve@"));
    // It is there to be set right.
    assert_eq!(card.read("setup.toml"), wrong);
}

#[test]
fn what_an_editor_makes_of_the_text_is_read_or_explained() {
    let card = Card::new("\u{feff}hostname = \"mail.x.test\"\r\n[account]\r\naddress = \"eve@x.test\"\r\n");
    let output = card.start();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said(&output).contains("Setup code: account eve@x.test, password "), "{}", said(&output));
    let utf16: Vec<u8> = "hostname = \"\u{e4}.test\"".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let card = Card::new(utf16);
    assert!(!card.start().status.success());
    assert!(card.read("report.txt").contains("is not UTF-8 text: save it as such"), "{}", card.read("report.txt"));
    assert!(is_good_config(&card.path("config/pillarbox.toml")));
}
