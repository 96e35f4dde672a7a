//! One flipped bit in each region of each file: what is served is what was stored, or an error says
//! what is damaged.
//!
//! redb may panic over a page that makes no sense, so the damaged stores are opened in a process of
//! its own, which this one starts anew after each such end. A panic counts as found when the sentence
//! beside it names the file.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU64;

use super::*;
use crate::store::disk::Disk;

/// Where the child finds the files, and with which flip it begins.
const FOLDER: &str = "PILLARBOX_FLIPS_FOLDER";
const FIRST: &str = "PILLARBOX_FLIPS_FIRST";

/// A trial that takes longer hangs.
const TRIAL_MAX: Duration = Duration::from_secs(60);

const BLOCK: usize = 4096;

fn small() -> StoreConfig {
    StoreConfig { cache_bytes: 256 << 10, journal_bytes: 256 << 10, ..config() }
}

/// Everything a reader can be served: what it is called, and what it is.
type Served = BTreeMap<String, String>;

/// Reads everything; an error stands beside what it took the place of.
fn read_all(store: &Store) -> Served {
    let mut served = Served::new();
    let mut put = |name: String, value: Result<String, ReadError>| {
        served.insert(name, value.unwrap_or_else(|error| format!("error: {error}")));
    };
    let reader = match store.reader() {
        Ok(reader) => reader,
        Err(error) => {
            put("reader".to_owned(), Err(error));
            return served;
        }
    };
    for login in ["ann", "bob"] {
        let found = reader.login(&format!("{login}@pillar.test"));
        put(format!("login {login}"), found.map(|found| format!("{:?}", found.map(|(account, _)| account))));
        let route = reader.route(&address(&format!("{login}@pillar.test")));
        put(format!("route {login}"), route.map(|route| format!("{route:?}")));
    }
    put("accounts".to_owned(), reader.accounts().map(|accounts| format!("{accounts:?}")));
    for account in [AccountId(0), AccountId(1)] {
        let mailboxes = match reader.mailboxes(account) {
            Ok(mailboxes) => mailboxes,
            Err(error) => {
                put(format!("{account:?}"), Err(error));
                continue;
            }
        };
        for mut mailbox in mailboxes {
            // Which names are subscribed is no mail, and stands in keys alone.
            mailbox.subscribed = true;
            let place = format!("{account:?} {}", mailbox.name.as_str());
            let named = reader.mailbox_named(account, &mailbox.name);
            put(format!("{place} by name"), named.map(|named| format!("{:?}", named.map(|named| named.id))));
            put(place.clone(), Ok(format!("{mailbox:?}")));
            put(format!("{place} uids"), reader.uids(mailbox.id).map(|uids| format!("{uids:?}")));
            let messages = match reader.messages(mailbox.id, Uid::MIN, Uid::MAX) {
                Ok(messages) => messages,
                Err(error) => {
                    put(format!("{place} messages"), Err(error));
                    continue;
                }
            };
            for (number, message) in messages.enumerate() {
                let message = match message {
                    Ok(message) => message,
                    Err(error) => {
                        put(format!("{place} message at {number}"), Err(error));
                        continue;
                    }
                };
                let name = format!("{place} {}", message.uid.get());
                put(name.clone(), Ok(format!("{message:?}")));
                let structure = reader.structure(mailbox.id, message.uid);
                put(format!("{name} structure"), structure.map(|structure| format!("{structure:?}")));
                let body = || {
                    let (mut body, mut bytes) = (store.body(message.blob)?, Vec::new());
                    while (bytes.len() as u64) < body.len() {
                        bytes.extend_from_slice(body.read(bytes.len() as u64, 65_536)?);
                    }
                    Ok(format!("{} bytes, {:08x}", bytes.len(), crc32c::crc32c(&bytes)))
                };
                put(format!("{name} body"), body());
            }
        }
    }
    served
}

/// The bits to be flipped: many in the first blocks, some in every block that holds anything, and a
/// few where there is nothing.
fn flips(site: &MemorySite) -> Vec<(&'static str, usize)> {
    let mut dice = Dice(11);
    let mut flips = Vec::new();
    for name in [INDEX_FILE, JOURNAL_FILE] {
        for (number, block) in site.disk(name).bytes().chunks(BLOCK).enumerate() {
            let count = match block.iter().any(|byte| *byte != 0) {
                true if number < 2 => 60,
                true => 3,
                false => usize::from(number % 16 == 0),
            };
            let at = number * BLOCK * 8;
            // The front of a block is where its header is; what is filled matters more than padding.
            let filled = block.iter().rposition(|byte| *byte != 0).map_or(BLOCK, |last| last + 1) * 8;
            flips.extend((0..count).map(|turn| {
                let within = if turn % 3 == 0 { 64 * 8 } else { filled };
                (name, at + dice.roll(within as u64) as usize)
            }));
        }
    }
    flips
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A store as a kill leaves it: part of the mail in the index, part in the journal alone. And as it
/// was before the last change.
fn base() -> [MemorySite; 2] {
    let rig = Rig::with(small());
    let (ann, inbox) = rig.account("ann");
    let (bob, _) = rig.account("bob");
    for number in 0..14_u64 {
        let size = [300, 3000, 9000, 40_000][number as usize % 4];
        rig.deliver(&noise(size, number), [ann, bob].get(..1 + usize::from(number % 3 == 0)).unwrap());
    }
    rig.deliver(&noise(250_000, 50), &[bob]);
    rig.store.remove(inbox, uids(&[4, 5])).wait().unwrap();
    rig.swept();
    rig.store.flag(inbox, uids(&[1, 7]), FlagMode::Add, names(SystemFlags::SEEN, &["$Work"]), None).wait().unwrap();
    for number in 0..3_u64 {
        rig.deliver(&noise(2500, 100 + number), &[ann]);
    }
    let earlier = rig.site.each(&mut MemoryDisk::fork);
    rig.deliver(&noise(2500, 103), &[ann]);
    [rig.site.each(&mut MemoryDisk::fork), earlier]
}

fn load(folder: &Path) -> MemorySite {
    let site = MemorySite::new(folder);
    for name in [INDEX_FILE, JOURNAL_FILE] {
        let disk = site.disk(name);
        disk.write_at(0, &std::fs::read(folder.join(name)).unwrap()).unwrap();
        disk.sync().unwrap();
    }
    site
}

/// What redb's own checksums say of an index: for damage that hides a row without an error.
fn is_found_by_a_check(site: &MemorySite) -> bool {
    let Ok(guard) = crate::store::backend::Guard::open(Arc::new(site.disk(INDEX_FILE))) else { return true };
    let backend = crate::store::backend::IndexBackend(Arc::new(guard));
    let opened = redb::Database::builder().set_check_integrity_on_open(true).create_with_backend(backend);
    opened.map_or(true, |mut index| !index.check_integrity().unwrap_or(false))
}

/// The child's part: opens one damaged store after the other. Does nothing in the parent.
#[test]
fn damaged_stores_are_opened_by_a_process_of_their_own() {
    static TRIAL: AtomicU64 = AtomicU64::new(0);
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let first = std::env::var(FIRST).unwrap().parse::<usize>().unwrap();
    std::panic::set_hook(Box::new(|panic| {
        let trial = TRIAL.load(Ordering::Relaxed);
        match crate::store::damage::sentence(panic) {
            Some(sentence) => println!("\ntrial {trial} panic {sentence}"),
            None => println!("\ntrial {trial} wrong {}", panic.to_string().replace('\n', " ")),
        }
        std::process::exit(101);
    }));
    std::thread::spawn(|| {
        let mut before = u64::MAX;
        loop {
            std::thread::sleep(TRIAL_MAX);
            let trial = TRIAL.load(Ordering::Relaxed);
            if std::mem::replace(&mut before, trial) == trial {
                println!("\ntrial {trial} wrong it hangs");
                std::process::exit(102);
            }
        }
    });
    let site = load(&folder);
    let read = |site: &MemorySite| {
        let store = Store::open_on(Arc::new(site.each(&mut MemoryDisk::fork)), &small()).unwrap();
        read_all(&store)
    };
    let (whole, earlier) = (read(&site), read(&load(&folder.join("earlier"))));
    assert_ne!(whole, earlier);
    assert!(whole.values().all(|value| !value.starts_with("error")), "{whole:#?}");
    assert!(whole.len() > 80, "{}", whole.len());
    for (trial, (name, bit)) in flips(&site).into_iter().enumerate().skip(first) {
        TRIAL.store(trial as u64, Ordering::Relaxed);
        let ruined = site.each(&mut MemoryDisk::fork);
        let mut byte = [0];
        ruined.disk(name).read_at(bit as u64 / 8, &mut byte).unwrap();
        byte[0] ^= 1 << (bit % 8);
        ruined.disk(name).write_at(bit as u64 / 8, &byte).unwrap();
        ruined.disk(name).sync().unwrap();
        let before = ruined.each(&mut MemoryDisk::fork);
        let outcome = match Store::open_on(Arc::new(ruined), &small()) {
            Err(error) => format!("refused {error}"),
            Ok(store) => {
                let served = read_all(&store);
                drop(store);
                let is_error = |value: &String| value.starts_with("error");
                let wrong = served.iter().find(|(name, value)| !is_error(value) && whole.get(*name) != Some(*value));
                let missing = whole.keys().find(|name| !served.contains_key(*name));
                match (wrong, missing) {
                    // The last group cannot be told from one whose writing a cut ended.
                    (Some(_), _) if name == JOURNAL_FILE && served == earlier => "last".to_owned(),
                    (Some((name, value)), _) => format!("wrong {name}: {value}, not {:?}", whole.get(name)),
                    (None, _) if served.values().any(is_error) => "named".to_owned(),
                    (None, None) => "whole".to_owned(),
                    (None, Some(_)) if is_found_by_a_check(&before) => "hidden".to_owned(),
                    (None, Some(missing)) => format!("wrong {missing} is gone, and nobody says so"),
                }
            }
        };
        println!("\ntrial {trial} {}", outcome.replace('\n', " "));
    }
    println!("\ntrial {} end", u64::MAX);
}

#[test]
fn a_flipped_bit_anywhere_is_never_served_as_mail() {
    let [site, earlier] = base();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("earlier")).unwrap();
    for name in [INDEX_FILE, JOURNAL_FILE] {
        std::fs::write(folder.path().join(name), site.disk(name).bytes()).unwrap();
        std::fs::write(folder.path().join("earlier").join(name), earlier.disk(name).bytes()).unwrap();
    }
    let flips = flips(&site);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut first = 0;
    while first < flips.len() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "store::tests::flips::damaged_stores_are_opened_by_a_process_of_their_own",
                "--nocapture",
            ])
            .env(FOLDER, folder.path())
            .env(FIRST, first.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let before = first;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some((trial, said)) = line.strip_prefix("trial ").and_then(|line| line.split_once(' ')) else {
                continue;
            };
            if said == "end" {
                first = flips.len();
                break;
            }
            first = trial.parse::<usize>().unwrap() + 1;
            let kind = said.split(' ').next().unwrap().to_owned();
            if kind == "wrong" || kind == "panic" && !said.contains(INDEX_FILE) {
                wrong.push(format!("{:?}: {said}", flips[first - 1]));
            }
            *counts.entry(format!("{} {kind}", flips[first - 1].0)).or_default() += 1;
        }
        child.wait().unwrap();
        assert!(first > before, "the child ends at flip {before} of {}", flips.len());
    }
    println!("{} flips: {counts:?}", flips.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), flips.len(), wrong.join("\n"));
    assert!(flips.len() > 300, "{}", flips.len());
    // Both files were met where it matters.
    for kind in
        ["mail.redb named", "mail.redb whole", "mail.journal refused", "mail.journal last", "mail.journal whole"]
    {
        assert!(counts.contains_key(kind), "{kind}: {counts:?}");
    }
}
