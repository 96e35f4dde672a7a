//! Import and export against a real store: there and back again, cut off, and with broken mail.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::*;
use crate::mail::address::Address;
use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::mailbox::{AccountId, MailboxId, MailboxName, Uid};
use crate::mail::message::{BlobId, FlagNames, Keyword, Message, SystemFlags};
use crate::mail::secret::{Password, ScramVerifier};
use crate::mail::structure::Walker;
use crate::store::{NewMessage, Quota, Spool, Spooled, Store, StoreConfig};

#[derive(Default)]
struct Listener {
    troubles: Vec<String>,
    last: Progress,
}

impl Observer for Listener {
    fn progress(&mut self, progress: &Progress) {
        assert!(progress.messages >= self.last.messages && progress.bytes >= self.last.bytes);
        self.last = *progress;
    }

    fn trouble(&mut self, place: &str, why: &str) {
        self.troubles.push(format!("{place}: {why}"));
    }
}

struct World {
    folder: tempfile::TempDir,
    store: Store,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.store.close();
    }
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = StoreConfig { journal_bytes: 4 << 20, reserve_bytes: 0, ..StoreConfig::default() };
        let store = Store::open(folder.path(), &config).unwrap();
        Self { folder, store }
    }

    /// A new account, as import and export see it.
    fn account(&self, name: &str) -> Exchange {
        let address = Address::parse(&format!("{name}@example.org")).unwrap();
        let verifier = ScramVerifier::derive(&Password::new("secret".to_owned()).unwrap(), [1; 16], 4096);
        let id = self.store.add_account(address, verifier, Quota::default()).wait().unwrap();
        Exchange::new(self.store.clone(), id)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("files").join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> std::path::PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

/// A message as it can be compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    folder: String,
    date: i64,
    system: u8,
    keywords: Vec<String>,
    text: Vec<u8>,
}

fn contents(exchange: &mut Exchange) -> Vec<Seen> {
    let mut all = Vec::new();
    for mailbox in Giver::mailboxes(exchange).unwrap() {
        for message in exchange.messages(mailbox.id, Uid::MIN, usize::MAX).unwrap() {
            let mut body = Giver::body(exchange, message.blob).unwrap();
            let mut text = Vec::new();
            while (text.len() as u64) < body.size() {
                let at = text.len() as u64;
                text.extend_from_slice(body.read(at, 1 << 20).unwrap());
            }
            let names = mailbox.keywords.names(message.flags.keywords);
            let mut keywords: Vec<_> = names.map(|name| name.as_str().to_owned()).collect();
            keywords.sort();
            all.push(Seen {
                folder: mailbox.name.as_str().to_owned(),
                date: message.internal_date.at.0,
                system: message.flags.system.0,
                keywords,
                text,
            });
        }
    }
    all.sort();
    all
}

fn put(exchange: &mut Exchange, folder: &str, date: i64, flags: FlagNames, text: &[u8]) {
    let target = exchange.target(&MailboxName::new(folder).unwrap()).unwrap();
    let (mut spool, mut walker) = (Keeper::spool(exchange).unwrap(), Walker::new());
    spool.write(text).unwrap();
    walker.feed(text);
    let internal_date = ZonedTime::utc(Timestamp(date));
    let message = NewMessage { body: spool.finish().unwrap(), structure: walker.finish(), internal_date, flags };
    exchange.append(target.id, vec![message], None).unwrap();
}

fn run_import(keeper: &mut dyn Keeper, source: &Path) -> (Summary, Listener) {
    let mut listener = Listener::default();
    let request = ImportRequest { source, folder: None, again: false };
    let summary = import(keeper, &mut listener, &request).unwrap();
    assert_eq!(listener.last.bytes, listener.last.bytes_total);
    (summary, listener)
}

fn run_export(exchange: &mut Exchange, format: Format, folder: &Path) -> Summary {
    let mut listener = Listener::default();
    let summary = export(exchange, &mut listener, format, folder, None).unwrap();
    assert_eq!(listener.troubles, [""; 0]);
    summary
}

const DAY: i64 = 1_600_000_000;

fn fill(exchange: &mut Exchange) {
    let keywords = ["$Label1", "Later"].map(|name| Keyword::new(name).unwrap());
    let folders = ["INBOX", "Sent", "Lists/rust", "Lists/a.b", "Entwürfe & mehr/日本", ".hidden", "x.mbox"];
    for (number, folder) in (0_u8..).zip(folders.iter().cycle().take(60)) {
        let flags = FlagNames {
            system: SystemFlags(number % 32),
            keywords: keywords.iter().take(usize::from(number) % 3).cloned().collect(),
        };
        let text =
            format!("Return-Path: <ann@example.org>\r\nSubject: {number}\r\n\r\nFrom me\r\n>From you\r\n\r\n\r\n");
        put(exchange, folder, DAY + i64::from(number) * 3600, flags, text.as_bytes());
    }
    let large = (0..40_000).fold(b"Subject: large\r\n\r\n".to_vec(), |text, line: u32| {
        [text, format!("{:08x}{:08x}\r\n", line.wrapping_mul(2_654_435_761), line.wrapping_mul(40_503)).into_bytes()]
            .concat()
    });
    put(exchange, "INBOX", DAY, FlagNames::default(), &large);
}

#[test]
fn mail_comes_back_from_both_formats_with_flags_folders_and_dates() {
    let world = World::new();
    let mut from = world.account("ann");
    fill(&mut from);
    let expected = contents(&mut from);
    assert_eq!(expected.len(), 61);
    for (format, name) in [(Format::Mbox, "mbox"), (Format::Maildir, "maildir")] {
        let summary = run_export(&mut from, format, &world.path(name));
        assert_eq!((summary.carried, summary.broken), (61, 0));
        let mut to = world.account(name);
        let (summary, listener) = run_import(&mut to, &world.path(name));
        assert_eq!((summary.carried, summary.broken, listener.troubles), (61, 0, Vec::new()));
        let found = contents(&mut to);
        assert_eq!(found.len(), 61);
        for (found, expected) in found.iter().zip(&expected) {
            assert!(found == expected, "{name}: {:?}\n{:?}", Brief(found), Brief(expected));
        }
    }
}

struct Brief<'s>(&'s Seen);

impl std::fmt::Debug for Brief<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Seen { folder, date, system, keywords, text } = self.0;
        let text = String::from_utf8_lossy(&text[..text.len().min(200)]);
        write!(out, "{folder} {date} {system} {keywords:?} {} {text:?}", self.0.text.len())
    }
}

#[test]
fn a_second_run_carries_only_what_came_since() {
    let world = World::new();
    let mut ann = world.account("ann");
    fill(&mut ann);
    for (format, name) in [(Format::Mbox, "mbox"), (Format::Maildir, "maildir")] {
        let before = contents(&mut ann).len() as u64;
        let mut to = world.account(name);
        assert_eq!(run_export(&mut ann, format, &world.path(name)).carried, before);
        assert_eq!(run_import(&mut to, &world.path(name)).0.carried, before);
        assert_eq!(run_export(&mut ann, format, &world.path(name)).carried, 0);
        assert_eq!(run_import(&mut to, &world.path(name)).0.carried, 0);
        put(&mut ann, "Sent", DAY * 2, FlagNames::default(), b"Subject: new\r\n\r\n");
        assert_eq!(run_export(&mut ann, format, &world.path(name)).carried, 1);
        assert_eq!(run_import(&mut to, &world.path(name)).0.carried, 1);
        assert_eq!(contents(&mut to), contents(&mut ann));
        let mut listener = Listener::default();
        let request = ImportRequest { source: &world.path(name), folder: None, again: true };
        assert_eq!(import(&mut to, &mut listener, &request).unwrap().carried, before + 1);
    }
}

#[test]
fn an_mbox_file_that_was_cut_since_is_not_filled_with_zeros() {
    let world = World::new();
    let mut ann = world.account("ann");
    put(&mut ann, "INBOX", DAY, FlagNames::default(), b"Subject: a\r\n\r\nb\r\n");
    let folder = world.path("mbox");
    run_export(&mut ann, Format::Mbox, &folder);
    std::fs::write(folder.join("INBOX.mbox"), "").unwrap();
    let refused = export(&mut ann, &mut Listener::default(), Format::Mbox, &folder, None);
    assert!(matches!(refused, Err(CarryError::Occupied(_))), "{refused:?}");
    assert!(std::fs::read(folder.join("INBOX.mbox")).unwrap().is_empty());
}

/// Fails as a process does that is killed: after so many calls that write, with or without the
/// last of them done.
struct Killed<'k> {
    keeper: &'k mut Exchange,
    calls: usize,
    done: bool,
}

impl Killed<'_> {
    fn dies(&mut self) -> bool {
        self.calls = self.calls.saturating_sub(1);
        self.calls == 0
    }
}

fn dead<T>() -> Result<T, CarryError> {
    Err(CarryError::Write(WriteError::Closed))
}

impl Keeper for Killed<'_> {
    fn target(&mut self, name: &MailboxName) -> Result<Target, CarryError> {
        self.keeper.target(name)
    }
    fn spool(&mut self) -> Result<Spool, CarryError> {
        Keeper::spool(self.keeper)
    }
    fn append(&mut self, mailbox: MailboxId, messages: Vec<NewMessage>, note: Option<Note>) -> Result<Uid, CarryError> {
        if !self.dies() {
            return self.keeper.append(mailbox, messages, note);
        }
        if self.done {
            self.keeper.append(mailbox, messages, note)?;
        } else if let Some(note) = note {
            self.keeper.put_note(note)?;
        }
        dead()
    }
    fn find(&mut self, mailbox: MailboxId, since: Uid, body: &Spooled) -> Result<Option<Uid>, CarryError> {
        self.keeper.find(mailbox, since, body)
    }
    fn note(&mut self, name: &str) -> Result<Option<Vec<u8>>, CarryError> {
        self.keeper.note(name)
    }
    fn put_note(&mut self, note: Note) -> Result<(), CarryError> {
        if !self.dies() {
            return self.keeper.put_note(note);
        }
        if self.done {
            self.keeper.put_note(note)?;
        }
        dead()
    }
    fn account(&self) -> AccountId {
        Keeper::account(self.keeper)
    }
}

#[test]
fn an_import_cut_off_anywhere_goes_on_and_keeps_every_message_once() {
    let world = World::new();
    let mut text = String::new();
    for number in 0..100 {
        let from = "From ann@example.org Wed Jul 17 02:44:25 1996";
        writeln!(text, "{from}\nSubject: {}\n\ntext\n", number / 2).unwrap();
        let flags = if number % 2 == 0 { "cur" } else { "new" };
        world.write(&format!("maildir/{flags}/{}.x:2,S", 1000 + number), format!("Subject: {}\n\ntext\n", number / 2));
    }
    let mbox = world.write("mbox", text);
    for source in [mbox, world.path("maildir")] {
        for calls in 1..7 {
            for done in [false, true] {
                // Killed twice, then left to finish. Two letters of each kind are alike.
                let mut ann = world.account(&format!("ann{calls}{done}{}", source.is_dir()));
                let mut carried = 0;
                for _ in 0..2 {
                    let mut killed = Killed { keeper: &mut ann, calls, done };
                    let request = ImportRequest { source: &source, folder: None, again: false };
                    if let Ok(summary) = import(&mut killed, &mut Listener::default(), &request) {
                        carried += summary.carried;
                    }
                }
                assert!(calls > 4 || carried < 100, "not killed");
                run_import(&mut ann, &source);
                let found = contents(&mut ann);
                assert_eq!(found.len(), 100, "{} {calls} {done}", source.display());
                let mut subjects: Vec<_> = found.iter().map(|seen| seen.text.clone()).collect();
                subjects.dedup();
                assert_eq!(subjects.len(), 50);
            }
        }
    }
}

#[test]
fn a_broken_message_is_reported_and_the_rest_is_kept() {
    let world = World::new();
    world.write("maildir/cur/1.a:2,S", "Subject: one\n\nok\n");
    world.write("maildir/cur/2.b:2,S", "");
    fs::create_dir_all(world.path("maildir/cur/3.c")).unwrap();
    world.write("maildir/cur/4.d", "Subject: four\n");
    fs::File::create(world.path("maildir/cur/5.e")).unwrap().set_len(MESSAGE_MAX + 1).unwrap();
    world.write("maildir/new/6.f", b"\xff\xfe\x00 no mail at all");
    let mut ann = world.account("ann");
    let (summary, listener) = run_import(&mut ann, &world.path("maildir"));
    assert_eq!((summary.carried, summary.broken), (3, 3));
    assert!(listener.troubles[0].contains("2.b") && listener.troubles[0].contains("empty"));
    assert!(listener.troubles[1].contains("3.c"));
    assert!(listener.troubles[2].contains("5.e") && listener.troubles[2].contains("67108865"));

    let mut bob = world.account("bob");
    let mut text = b"From a Wed Jul 17 02:44:25 1996\nSubject: a\n\n".to_vec();
    text.resize(text.len() + usize::try_from(MESSAGE_MAX).unwrap(), b'x');
    text.extend_from_slice(b"\n\nFrom a Wed Jul 17 02:44:25 1996\nSubject: b\n\nFrom a Wed Jul 17 02:44:25 1996\n\n");
    let (summary, _) = run_import(&mut bob, &world.write("mbox", text));
    assert_eq!((summary.carried, summary.broken), (1, 2));
    assert_eq!(contents(&mut bob)[0].text, b"Subject: b\r\n");
}

#[test]
fn a_rewritten_mbox_file_is_read_anew_and_said_so() {
    let world = World::new();
    let mut ann = world.account("ann");
    let letter = |subject| format!("From a Wed Jul 17 02:44:25 1996\nSubject: {subject}\n\n\n");
    let path = world.write("mbox", letter("one") + &letter("two"));
    assert_eq!(run_import(&mut ann, &path).0.carried, 2);
    world.write("mbox", letter("two") + &letter("three"));
    let (summary, listener) = run_import(&mut ann, &path);
    assert_eq!(summary.carried, 2);
    assert!(listener.troubles[0].contains("rewritten"));
}

#[test]
fn an_export_never_writes_over_files_that_it_did_not_write() {
    let world = World::new();
    let mut ann = world.account("ann");
    fill(&mut ann);
    world.write("one/INBOX.mbox", "mine");
    world.write("two/cur/1.a", "mine");
    for (format, name) in [(Format::Mbox, "one"), (Format::Maildir, "two")] {
        let error = export(&mut ann, &mut Listener::default(), format, &world.path(name), None).unwrap_err();
        assert!(matches!(error, CarryError::Occupied(_)), "{error}");
    }
    assert_eq!(fs::read(world.path("one/INBOX.mbox")).unwrap(), b"mine");
}

/// A giver whose body number so and so cannot be read.
struct Ruined<'r>(&'r mut Exchange, BlobId);

impl Giver for Ruined<'_> {
    fn mailboxes(&mut self) -> Result<Vec<crate::mail::mailbox::Mailbox>, CarryError> {
        Giver::mailboxes(self.0)
    }
    fn messages(&mut self, mailbox: MailboxId, first: Uid, max: usize) -> Result<Vec<Message>, CarryError> {
        // Small pages, so that several are needed.
        self.0.messages(mailbox, first, max.min(2))
    }
    fn body(&mut self, blob: BlobId) -> Result<Box<dyn Content + '_>, ReadError> {
        if blob == self.1 { Err(ReadError::Storage("checksum is wrong".to_owned())) } else { self.0.body(blob) }
    }
}

#[test]
fn a_message_that_cannot_be_read_is_left_out_of_the_export() {
    let world = World::new();
    let mut ann = world.account("ann");
    fill(&mut ann);
    let inbox = Giver::mailboxes(&mut ann).unwrap()[0].id;
    let ruined = ann.messages(inbox, Uid::MIN, 3).unwrap()[2].blob;
    let mut listener = Listener::default();
    let folder = world.path("maildir");
    let summary = export(&mut Ruined(&mut ann, ruined), &mut listener, Format::Maildir, &folder, None).unwrap();
    assert_eq!((summary.carried, summary.broken), (60, 1));
    assert_eq!(listener.troubles, ["INBOX uid 3: checksum is wrong"]);
    assert_eq!(listener.last.messages, 61);
    let mut bob = world.account("bob");
    assert_eq!(run_import(&mut bob, &folder).0.carried, 60);
}

#[test]
fn both_journeys_go_over_a_stream_as_they_go_in_one_process() {
    let world = World::new();
    let (mut ann, bob) = (world.account("ann"), world.account("bob"));
    fill(&mut ann);
    let folder: std::sync::Arc<Path> = std::sync::Arc::from(world.folder.path());
    let connect = |exchange: &Exchange| {
        let (here, mut there) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut exchange = exchange.clone();
        let server = std::thread::spawn(move || serve(&mut there, &mut exchange));
        (Remote::new(here, folder.clone()).unwrap(), server)
    };
    let (mut remote, server) = connect(&ann);
    let mut listener = Listener::default();
    let summary = export(&mut remote, &mut listener, Format::Maildir, &world.path("maildir"), None).unwrap();
    assert_eq!((summary.carried, listener.troubles.len()), (61, 0));
    drop(remote);
    server.join().unwrap().unwrap();

    let (mut remote, server) = connect(&bob);
    assert_eq!(run_import(&mut remote, &world.path("maildir")).0.carried, 61);
    assert_eq!(run_import(&mut remote, &world.path("maildir")).0.carried, 0);
    assert_eq!(contents(&mut bob.clone()), contents(&mut ann));

    // The same message is found by its bytes, and not twice.
    let inbox = remote.target(&MailboxName::inbox()).unwrap();
    let mut spool = Keeper::spool(&mut remote).unwrap();
    let letter = contents(&mut ann).into_iter().find(|seen| seen.folder == "INBOX").unwrap();
    spool.write(&letter.text).unwrap();
    let body = spool.finish().unwrap();
    let found = remote.find(inbox.id, Uid::MIN, &body).unwrap().unwrap();
    assert_eq!(remote.find(inbox.id, found.successor().unwrap(), &body).unwrap(), None);

    world.store.remove_account(Keeper::account(&bob)).wait().unwrap();
    let error = remote.target(&MailboxName::new("New").unwrap()).unwrap_err();
    assert!(matches!(error, CarryError::Refused(why) if why == "the account is gone"));
    drop(remote);
    server.join().unwrap().unwrap();
}

#[test]
fn what_is_no_ask_ends_the_connection() {
    let world = World::new();
    let mut ann = world.account("ann");
    for bytes in [&b"\xff\xff\xff\xff"[..], b"\x01\0\0\0\x63", b"\x05\0\0\0", b"\x01\0\0"] {
        let mut stream = std::io::Cursor::new(bytes.to_vec());
        assert!(serve(&mut stream, &mut ann).is_err(), "{bytes:?}");
    }
    assert!(serve(&mut std::io::Cursor::new(Vec::new()), &mut ann).is_ok());
}
