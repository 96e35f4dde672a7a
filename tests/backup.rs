//! `pillarbox backup` and `restore` with the real program: while it serves, in chains, with damaged
//! files, killed in the middle, and read by the standard tools.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

mod backup {
    pub(crate) mod imap;
}
#[path = "support/server.rs"]
mod server;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use age::secrecy::ExposeSecret as _;
use backup::imap::{Client, View};
use pillarbox::flow::backup::{Keys, Place, identities, restore, verify};
use server::{Server, fail, free_base, installed, run, succeed};
use tempfile::TempDir;

/// A folder with a key pair and a passphrase.
struct Desk {
    folder: TempDir,
    recipient: String,
    secret: String,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identity = age::x25519::Identity::generate();
        let secret = identity.to_string().expose_secret().to_owned();
        fs::write(folder.path().join("key.txt"), format!("# a key\n{secret}\n")).unwrap();
        fs::write(folder.path().join("word"), "correct horse\n").unwrap();
        Self { folder, recipient: identity.to_public().to_string(), secret }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        command.args(words).current_dir(self.folder.path());
        command
    }

    /// The program with these words, which must succeed.
    fn run(&self, words: &[&str]) -> String {
        succeed(&mut self.command(words), b"")
    }

    /// The program with these words, which must fail; its one sentence.
    fn fail(&self, words: &[&str]) -> String {
        let said = fail(&mut self.command(words), b"");
        assert_eq!(said.lines().count(), 1, "{words:?}: {said}");
        said
    }

    fn backup(&self, data: &str, target: &str, more: &[&str]) -> serde_json::Value {
        let words = [&["backup", target, "--data", data, "--json", "--recipient", &self.recipient], more].concat();
        serde_json::from_str(&self.run(&words)).unwrap()
    }

    fn restore(&self, files: &[&str], data: &str) -> String {
        self.run(&[&["restore", "--identity", "key.txt", "--data", data], files].concat())
    }

    fn keys(&self) -> Keys {
        Keys { identities: identities(&self.secret, "key").unwrap(), ..Keys::default() }
    }

    /// A data folder with ann@x.test.
    fn house(&self, data: &str) {
        fs::create_dir(self.path(data)).unwrap();
        succeed(&mut self.command(&["account", "add", "ann@x.test", "--password-stdin", "--data", data]), b"pencil\n");
    }

    /// Imports messages numbered like this into ann's INBOX, each of about so many bytes.
    fn import(&self, data: &str, account: &str, numbers: std::ops::Range<usize>, bytes: usize) {
        let mut mbox = String::new();
        for number in numbers.clone() {
            let _ = write!(mbox, "From x@y Thu Jan  1 00:00:00 2026\nSubject: message {number}\n\n");
            let (mut seed, end) = (number as u64 + 1, mbox.len() + bytes);
            while mbox.len() < end {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let _ = writeln!(mbox, "{seed:016x}");
            }
            mbox.push('\n');
        }
        let file = format!("{}-{bytes}.mbox", numbers.start);
        fs::write(self.path(&file), mbox).unwrap();
        self.run(&["import", "--account", account, "--data", data, &file]);
    }

    /// All mail of ann's as mbox files: name and content.
    fn mail(&self, data: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let to = tempfile::tempdir().unwrap();
        let target = to.path().to_str().unwrap();
        self.run(&["export", "--account", "ann@x.test", "--format", "mbox", "--data", data, target]);
        let mut files: Vec<_> = fs::read_dir(to.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "mbox"));
        files.sort();
        files.iter().map(|path| (path.file_name().unwrap().into(), fs::read(path).unwrap())).collect()
    }
}

fn view(server: &Server, account: usize, mailbox: &str) -> View {
    let (address, password) = server.account(account);
    Client::login(server.listener("imap"), address, password).view(mailbox)
}

#[test]
fn what_is_backed_up_while_the_server_is_written_to_is_the_same_mail_to_every_client() {
    let desk = Desk::new();
    let start = |data: &str| Server::start_in(&desk.path(data), free_base(), &["--allow-clear-auth"]);
    let server = start("data");
    let (ann, bob) = (server.account(0).0.to_owned(), server.account(1).0.to_owned());
    desk.import("data", &ann, 0..60, 3_000);
    // Large enough to be staged in pieces.
    desk.import("data", &ann, 100..103, 900_000);
    {
        let (address, password) = server.account(0);
        let mut client = Client::login(server.listener("imap"), address, password);
        client.ok("CREATE Old/Mail");
        client.ok("SELECT INBOX");
        client.ok("UID STORE 3:9 +FLAGS (\\Seen $Important)");
        client.ok("COPY 5:20 Old/Mail");
        client.ok("UID STORE 11:13 +FLAGS (\\Deleted)");
        client.ok("EXPUNGE");
    }
    let before = ["INBOX", "Old/Mail", "Sent"].map(|mailbox| view(&server, 0, mailbox));
    assert!(before[0].messages.len() > 50 && before[1].messages.len() == 16);

    // Bob is written to all the while; what was acknowledged before must be there.
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let writer = std::thread::spawn({
        let (stop, count, bob) = (stop.clone(), count.clone(), bob.clone());
        let (address, password) = server.account(1);
        let (imap, login) = (server.listener("imap").to_owned(), (address.to_owned(), password.to_owned()));
        move || {
            let mut client = Client::login(&imap, &login.0, &login.1);
            while !stop.load(Ordering::SeqCst) {
                let number = count.load(Ordering::SeqCst);
                client.append("INBOX", &format!("To: {bob}\r\nSubject: {number}\r\n\r\n{}", "x".repeat(5000)));
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    while count.load(Ordering::SeqCst) < 20 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let acknowledged = count.load(Ordering::SeqCst);
    let made = desk.backup("data", "box.age", &[]);
    let later = count.load(Ordering::SeqCst);
    stop.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    let status = desk.run(&["status", "--data", "data"]);
    assert!(status.contains(made["id"].as_str().unwrap()), "{status}");
    let more = desk.backup("data", "more.age", &["--since", "last"]);
    assert_eq!(more["base"], made["id"]);
    let verified = desk.run(&["restore", "--verify", "box.age", "more.age", "--identity", "key.txt", "--json"]);
    assert!(verified.contains("\"damaged\":0,\"incomplete\":0"), "{verified}");
    let words = ["backup", "x.age", "--data", "data", "--since", "feedfeedfeed", "--recipient", &desk.recipient];
    assert!(desk.fail(&words).contains("`feedfeedfeed`"));
    let last = view(&server, 0, "INBOX").highest_modseq;
    assert!(server.stop());

    let said = desk.restore(&["box.age"], "new");
    assert!(said.contains("2 accounts"), "{said}");
    let server = start("new");
    assert_eq!(server.account(0).0, ann);
    let after = ["INBOX", "Old/Mail", "Sent"].map(|mailbox| view(&server, 0, mailbox));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.uid_validity, after.uid_validity);
        assert_eq!(before.messages, after.messages);
        assert!(after.uid_next > before.uid_next, "uids that the old box gave out since are not given again");
        assert_eq!(before.highest_modseq, after.highest_modseq);
    }
    let kept = view(&server, 1, "INBOX").messages.len() as u64;
    // The welcome letter was there before.
    assert!((acknowledged + 1..=later + 2).contains(&kept), "{acknowledged} {kept} {later}");

    // A client that saw more than the backup has is told everything; one that did not, nothing.
    let (address, password) = server.account(0);
    let mut client = Client::login(server.listener("imap"), address, password);
    client.ok("SELECT INBOX (CONDSTORE)");
    let told = |client: &mut Client, since: u64| {
        let answer = client.ok(&format!("UID FETCH 1:* (FLAGS) (CHANGEDSINCE {since})"));
        answer.iter().filter(|line| line.contains(" FETCH (")).count()
    };
    assert_eq!(told(&mut client, last), 0);
    // The last change of all was bob's, whose number ann's client can't know; one above it was lost.
    assert_eq!(told(&mut client, last + (1 << 31)), after[0].messages.len());
    client.ok("UID STORE 3 +FLAGS (\\Flagged)");
    client.append("INBOX", "Subject: new\r\n\r\nnew");
    let now = client.view("INBOX");
    assert!(now.highest_modseq > last + (1 << 32));
    assert!(now.messages.last().unwrap().uid >= after[0].uid_next);
    assert!(server.stop());
}

#[test]
fn a_chain_of_backups_is_the_last_one_and_goes_on_after_a_restore() {
    let desk = Desk::new();
    desk.house("data");
    desk.import("data", "ann@x.test", 0..20, 20_000);
    let full = desk.backup("data", "0.age", &[]);
    desk.import("data", "ann@x.test", 20..25, 20_000);
    let first = desk.backup("data", "1.age", &["--since", "last"]);
    assert_eq!(first["base"], full["id"]);
    // Mail that is gone and mail that came.
    desk.run(&["account", "remove", "ann@x.test", "--yes", "--data", "data"]);
    succeed(&mut desk.command(&["account", "add", "ann@x.test", "--password-stdin", "--data", "data"]), b"pen\n");
    desk.import("data", "ann@x.test", 30..33, 20_000);
    let second = desk.backup("data", "2.age", &["--since", "last"]);
    assert_eq!(second["base"], first["id"]);
    let other = desk.backup("data", "other.age", &["--since", "full"]);
    assert_eq!(other["base"], full["id"]);
    let named = desk.backup("data", "named.age", &["--since", first["id"].as_str().unwrap()]);
    assert_eq!(named["base"], first["id"]);
    assert!(first["bytes"].as_u64().unwrap() < full["bytes"].as_u64().unwrap() / 2);

    let mail = desk.mail("data");
    assert!(mail.iter().any(|(_, content)| content.len() > 60_000));
    for chain in [&["0.age", "1.age", "2.age"][..], &["0.age", "other.age"], &["0.age", "1.age", "named.age"]] {
        let verified = desk.run(&[&["restore", "--verify", "--identity", "key.txt"], chain].concat());
        assert!(verified.contains("3 messages"), "{verified}");
        let data = chain.join("-");
        desk.restore(chain, &data);
        assert_eq!(desk.mail(&data), mail, "{chain:?}");
    }

    // Chains that are none.
    for (chain, words) in [
        (&["1.age"][..], "builds on"),
        (&["0.age", "2.age"], "none left out"),
        (&["0.age", "2.age", "1.age"], "none left out"),
        (&["1.age", "0.age"], "name that file before it"),
        (&["0.age", "0.age"], "builds on nothing"),
    ] {
        let said = desk.fail(&[&["restore", "--identity", "key.txt", "--data", "none"], chain].concat());
        assert!(said.contains(words), "{chain:?}: {said}");
        assert!(!desk.path("none").exists());
    }

    // The restored box builds on what it was made of.
    let data = "0.age-1.age-2.age";
    desk.import(data, "ann@x.test", 40..44, 20_000);
    let third = desk.backup(data, "3.age", &["--since", "last"]);
    assert_eq!(third["base"], second["id"]);
    desk.restore(&["0.age", "1.age", "2.age", "3.age"], "again");
    assert_eq!(desk.mail("again"), desk.mail(data));
    let said =
        desk.fail(&["backup", "x.age", "--since", "0123456789ab", "--data", data, "--recipient", &desk.recipient]);
    assert!(said.contains("`0123456789ab`") && said.contains("full one"), "{said}");
}

#[test]
fn a_file_that_is_cut_or_changed_anywhere_is_refused_and_changes_nothing() {
    let desk = Desk::new();
    desk.house("data");
    desk.import("data", "ann@x.test", 0..16, 30_000);
    desk.backup("data", "box.age", &[]);
    let whole = fs::read(desk.path("box.age")).unwrap();
    assert!(whole.len() > 3 * (64 << 10), "more than a few chunks of age: {}", whole.len());
    let (keys, read) = (desk.keys(), Arc::new(AtomicU64::new(0)));
    verify(&[desk.path("box.age")], &keys, &read, &mut || {}).unwrap();

    let step = whole.len() / 150;
    let spread = (0..whole.len()).filter(|at| at % step == 0 || *at < 300 || *at + 80 > whole.len());
    let edges = (1..4).flat_map(|chunk| [chunk * 65_552, chunk * 65_552 + 1]);
    let place = Place { data: desk.path("new"), config: None, force: false, owner: None };
    let broken = desk.path("broken.age");
    let mut refused = 0;
    for at in spread.chain(edges) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        for bytes in [&whole[..at], &flipped] {
            fs::write(&broken, bytes).unwrap();
            let done = restore(std::slice::from_ref(&broken), &keys, &place, &read, &mut || {});
            let sentence = done.expect_err(&format!("at {at} of {}", whole.len())).to_string();
            assert!(sentence.contains("broken.age"), "{at}: {sentence}");
            assert!(!place.data.exists(), "{at}");
            refused += 1;
        }
    }
    assert!(refused > 700, "{refused}");
    // Two files in one, and something behind.
    for more in [&whole[..], b"x"] {
        fs::write(&broken, [&whole[..], more].concat()).unwrap();
        assert!(restore(std::slice::from_ref(&broken), &keys, &place, &read, &mut || {}).is_err());
    }
    restore(&[desk.path("box.age")], &keys, &place, &read, &mut || {}).unwrap();
    assert_eq!(desk.mail("new"), desk.mail("data"));
}

#[test]
fn a_passphrase_opens_it_and_another_does_not() {
    let desk = Desk::new();
    desk.house("data");
    desk.import("data", "ann@x.test", 0..3, 2_000);
    let said = desk.fail(&["backup", "box.age", "--data", "data"]);
    assert!(said.contains("always encrypted"), "{said}");
    fs::write(desk.path("short"), "short\n").unwrap();
    let said = desk.fail(&["backup", "box.age", "--data", "data", "--passphrase-file", "short"]);
    assert!(said.contains("fewer than 8"), "{said}");
    desk.run(&["backup", "box.age", "--data", "data", "--passphrase-file", "word"]);
    let said = desk.fail(&["backup", "box.age", "--data", "data", "--passphrase-file", "word"]);
    assert!(said.contains("is there already"), "{said}");
    desk.run(&["backup", "box.age", "--data", "data", "--passphrase-file", "word", "--force"]);

    fs::write(desk.path("wrong"), "battery staple\n").unwrap();
    let said = desk.fail(&["restore", "box.age", "--data", "new", "--passphrase-file", "wrong"]);
    assert!(said.contains("the passphrase does not open box.age"), "{said}");
    let said = desk.fail(&["restore", "box.age", "--data", "new"]);
    assert!(said.contains("--passphrase-file"), "{said}");
    assert!(!desk.path("new").exists());
    desk.run(&["restore", "box.age", "--data", "new", "--passphrase-file", "word"]);
    assert_eq!(desk.mail("new"), desk.mail("data"));

    desk.backup("data", "keyed.age", &[]);
    let said = desk.fail(&["restore", "keyed.age", "--data", "none"]);
    assert!(said.contains("--identity"), "{said}");
    let other = age::x25519::Identity::generate();
    fs::write(desk.path("other.txt"), other.to_string().expose_secret()).unwrap();
    let said = desk.fail(&["restore", "keyed.age", "--data", "none", "--identity", "other.txt"]);
    assert!(said.contains("none of the given keys opens keyed.age"), "{said}");
    let said = desk.fail(&["restore", "word", "--data", "none"]);
    assert!(said.contains("word is no backup of Pillarbox"), "{said}");
}

#[test]
fn a_target_that_is_full_leaves_nothing_behind() {
    let desk = Desk::new();
    desk.house("data");
    desk.import("data", "ann@x.test", 0..30, 20_000);
    let words = ["backup", "/dev/full", "--data", "data", "--recipient", &desk.recipient];
    let said = desk.fail(&words);
    assert!(said.contains("/dev/full") && said.contains("make room"), "{said}");
    let said = desk.fail(&["backup", "no/such/box.age", "--data", "data", "--recipient", &desk.recipient]);
    assert!(said.contains("no/such"), "{said}");
    assert!(
        desk.fail(&["backup", "x.age", "--since", "last", "--data", "data", "--recipient", &desk.recipient])
            .contains("make a full one")
    );
    desk.backup("data", ".", &[]);
    let names = fs::read_dir(desk.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.starts_with("pillarbox-2") && name.contains("-full-")), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("partial")), "{names:?}");
}

#[test]
fn files_come_along_and_what_is_there_is_never_written_over() {
    let desk = Desk::new();
    desk.house("data");
    fs::create_dir(desk.path("data/tls")).unwrap();
    fs::write(desk.path("data/tls/ca.key"), "a secret key").unwrap();
    let (certificate, key) = (desk.path("mail.crt"), desk.path("mail.key"));
    fs::write(&certificate, "certificate").unwrap();
    fs::write(&key, "key").unwrap();
    let config = format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    fs::write(desk.path("box.toml"), &config).unwrap();
    fs::write(desk.path("data/pillarbox.toml"), "# another\n").unwrap();
    desk.backup("data", "box.age", &["--config", "box.toml"]);

    let said = desk.restore(&["box.age"], "new");
    assert!(said.contains("new/pillarbox.toml"), "{said}");
    assert_eq!(fs::read_to_string(desk.path("new/pillarbox.toml")).unwrap(), config);
    assert_eq!(fs::read_to_string(desk.path("new/tls/ca.key")).unwrap(), "a secret key");
    assert_eq!(fs::read_to_string(desk.path("new/pillarbox.toml.restored")).unwrap(), "# another\n");
    let outside = desk.path("new/restored").join(key.strip_prefix("/").unwrap());
    assert_eq!(fs::read_to_string(outside).unwrap(), "key");
    assert_eq!(fs::read_to_string(&key).unwrap(), "key");

    // There is a store now, and its config was changed.
    fs::write(desk.path("new/pillarbox.toml"), "# mine\n").unwrap();
    let said = desk.fail(&["restore", "box.age", "--identity", "key.txt", "--data", "new"]);
    assert!(said.contains("is not empty") && said.contains("--force"), "{said}");
    let said = desk.run(&["restore", "box.age", "--identity", "key.txt", "--data", "new", "--force"]);
    assert!(said.contains(".before-restore-") && said.contains("pillarbox.toml.restored"), "{said}");
    assert_eq!(fs::read_to_string(desk.path("new/pillarbox.toml")).unwrap(), "# mine\n");
    assert_eq!(fs::read_to_string(desk.path("new/pillarbox.toml.restored")).unwrap(), config);
    assert_eq!(fs::read_to_string(desk.path("new/pillarbox.toml.restored.restored")).unwrap(), "# another\n");
    let aside = fs::read_dir(desk.path("new")).unwrap().map(|entry| entry.unwrap().path());
    let aside = aside.into_iter().find(|path| path.to_string_lossy().contains(".before-restore-")).unwrap();
    assert!(aside.join("mail.redb").exists() && aside.join("tls/ca.key").exists());

    // A store that is in use stays.
    let server = Server::start_in(&desk.path("served"), free_base(), &[]);
    let words = ["restore", "box.age", "--identity", "key.txt", "--data", "served", "--force"];
    assert!(desk.fail(&words).contains("a server runs on"));
    assert!(server.stop());
}

#[test]
fn a_restore_that_is_killed_leaves_no_store_and_the_next_one_works() {
    let desk = Desk::new();
    desk.house("data");
    desk.import("data", "ann@x.test", 0..150, 60_000);
    desk.backup("data", "box.age", &[]);
    let mail = desk.mail("data");
    let (mut cut, mut whole) = (0, 0);
    for wait in (0..20).map(|step| step * step) {
        let data = desk.path("new");
        let mut child = desk
            .command(&["restore", "box.age", "--identity", "key.txt", "--data", "new"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        child.wait().unwrap();
        if data.join("mail.redb").exists() {
            whole += 1;
        } else {
            let left = fs::read_dir(&data).map(|entries| entries.map(|entry| entry.unwrap().file_name()));
            let left: Vec<_> = left.map(Iterator::collect).unwrap_or_default();
            if left.iter().any(|name| name == ".restoring") {
                cut += 1;
                let said = desk.fail(&["account", "list", "--data", "new"]);
                assert!(said.contains("was cut off"), "{said}");
            }
            assert!(left.len() <= 2, "{left:?}");
            desk.restore(&["box.age"], "new");
        }
        assert_eq!(desk.mail("new"), mail, "after {wait} ms");
        assert!(!data.join(".restoring/mail.redb").exists());
        fs::remove_dir_all(&data).unwrap();
    }
    assert!(cut > 0, "{cut} cut, {whole} whole");

    // Killed while things are moved into place: the index, which comes last, is not there yet.
    fs::write(desk.path("data/some-file"), "some").unwrap();
    desk.backup("data", "more.age", &[]);
    desk.restore(&["more.age"], "new");
    let half = desk.path("new/.restoring");
    fs::create_dir(&half).unwrap();
    fs::rename(desk.path("new/mail.redb"), half.join("mail.redb")).unwrap();
    fs::rename(desk.path("new/mail.journal"), half.join("mail.journal")).unwrap();
    fs::write(half.join(".moving"), "mail.journal\nsome-file\n").unwrap();
    assert!(desk.fail(&["account", "list", "--data", "new"]).contains("was cut off"));
    desk.restore(&["box.age"], "new");
    assert_eq!(desk.mail("new"), mail);
    assert!(!desk.path("new/some-file").exists() && !half.exists());
}

#[test]
fn the_standard_tools_read_it() {
    if !installed(&["age", "zstd"], "a backup read by age and zstd") {
        return;
    }
    let desk = Desk::new();
    desk.house("data");
    desk.import("data", "ann@x.test", 0..5, 50_000);
    let streamed = run(&mut desk.command(&["backup", "-", "--data", "data", "--recipient", &desk.recipient]), b"");
    assert!(streamed.status.success(), "{}", String::from_utf8_lossy(&streamed.stderr));
    fs::write(desk.path("box.age"), &streamed.stdout).unwrap();
    let plain = run(
        Command::new("sh").args(["-c", "age -d -i key.txt box.age | zstd -dc"]).current_dir(desk.folder.path()),
        b"",
    );
    assert!(plain.status.success(), "{}", String::from_utf8_lossy(&plain.stderr));
    let (first, _) = plain.stdout.split_at(b"pillarbox backup 1\nH".len());
    assert_eq!(first, b"pillarbox backup 1\nH");
    // And it reads what they made.
    succeed(
        Command::new("sh")
            .args(["-c", "age -d -i key.txt box.age | zstd -dc | zstd -9 | age -a -r $0 | age -d -i key.txt | age -r $0 > again.age"])
            .arg(&desk.recipient)
            .current_dir(desk.folder.path()),
        b"",
    );
    desk.restore(&["again.age"], "new");
    assert_eq!(desk.mail("new"), desk.mail("data"));
}

#[test]
fn a_server_that_stops_ends_a_backup_with_a_sentence() {
    let desk = Desk::new();
    let server = Server::start_in(&desk.path("data"), free_base(), &[]);
    let ann = server.account(0).0.to_owned();
    desk.import("data", &ann, 0..40, 200_000);
    let fifo = desk.path("pipe");
    succeed(Command::new("mkfifo").arg(&fifo), b"");
    let backup = desk
        .command(&["backup", "pipe", "--data", "data", "--recipient", &desk.recipient])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // The pipe is opened and not read, so the backup stands still in the middle.
    let reader = fs::File::open(&fifo).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(server.stop());
    std::thread::spawn(move || std::io::copy(&mut &reader, &mut std::io::sink()));
    let output = backup.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("the server broke the connection off") || said.contains("closed"), "{said}");
    assert!(Path::new(&desk.path("data/mail.redb")).exists());
    let server = Server::start_in(&desk.path("data"), free_base(), &[]);
    assert!(server.stop());
}
