//! What a medium does to the two files: cuts while they are made, syncs that fail and lose what
//! the cache still shows, flipped bits, a journal that is gone.
#![allow(clippy::cast_possible_truncation, reason = "numbers are small")]

use std::io;
use std::sync::Mutex;
use std::sync::atomic::AtomicI64;

use super::*;
use crate::store::backend::Guard;
use crate::store::disk::{Disk, Fate};
use crate::store::opening::JOURNAL_ASIDE;
use crate::store::site::Room;

/// A random choice, the same in every run.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// What becomes of the sectors of one disk; how much is kept differs from call to call.
    fn fates(&mut self) -> impl FnMut() -> Fate {
        let (mut dice, kept, garbage) = (Self(self.roll(1 << 30)), self.roll(5), self.roll(3));
        move || match (dice.roll(4) < kept, dice.roll(4) < garbage) {
            (true, _) => Fate::Kept,
            (false, true) => Fate::Garbage,
            (false, false) => Fate::Lost,
        }
    }
}

/// A site on whose disks something happens at each write and sync.
#[derive(Debug)]
struct Medium {
    site: MemorySite,
    faults: Arc<Faults>,
}

#[derive(Debug, Default)]
struct Faults {
    /// How many syncs succeed before one fails; none fails while it is below zero.
    syncs: AtomicI64,
    dice: Mutex<Option<Dice>>,
    /// The site before each write and sync, if they are to be kept.
    seen: Mutex<Option<Vec<MemorySite>>>,
}

impl Faults {
    fn none() -> Arc<Self> {
        Arc::new(Self { syncs: AtomicI64::new(-1), dice: Mutex::new(Some(Dice(1))), seen: Mutex::default() })
    }
}

impl Medium {
    fn store(site: &MemorySite, faults: &Arc<Faults>, config: &StoreConfig) -> Result<Store, OpenError> {
        Store::open_on(Arc::new(Self { site: site.clone(), faults: faults.clone() }), config)
    }

    fn file(&self, disk: MemoryDisk) -> Arc<dyn Disk> {
        Arc::new(File { disk, site: self.site.clone(), faults: self.faults.clone() })
    }

    /// The site of every moment while a new store is made and an account added.
    fn birth(config: &StoreConfig) -> (Vec<MemorySite>, TempDir) {
        let (folder, faults) = (tempfile::tempdir().unwrap(), Faults::none());
        *faults.seen.lock().unwrap() = Some(Vec::new());
        let store = Self::store(&MemorySite::new(folder.path()), &faults, config).unwrap();
        store.add_account(address("ann@pillar.test"), verifier(), Quota::default()).wait().unwrap();
        let seen = faults.seen.lock().unwrap().take().unwrap();
        store.close().unwrap();
        (seen, folder)
    }
}

impl Site for Medium {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        Ok(self.site.open(name)?.map(|_| self.file(self.site.disk(name))))
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        self.site.create(name).map(|_| self.file(self.site.disk(name)))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.site.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.site.remove(name)
    }
    fn room(&self) -> io::Result<Room> {
        self.site.room()
    }
    fn now(&self) -> Timestamp {
        self.site.now()
    }
    fn path(&self) -> &Path {
        self.site.path()
    }
}

#[derive(Debug)]
struct File {
    disk: MemoryDisk,
    site: MemorySite,
    faults: Arc<Faults>,
}

impl File {
    fn see(&self) {
        if let Some(seen) = self.faults.seen.lock().unwrap().as_mut() {
            seen.push(self.site.each(&mut MemoryDisk::fork));
        }
    }
}

impl Disk for File {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.see();
        self.disk.set_len(len)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.see();
        self.disk.write_at(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.see();
        if self.faults.syncs.load(Ordering::Relaxed) >= 0 && self.faults.syncs.fetch_sub(1, Ordering::Relaxed) == 0 {
            let mut dice = self.faults.dice.lock().unwrap();
            self.disk.forget_unsynced(&mut dice.as_mut().unwrap().fates());
            return Err(io::Error::other("the sync failed"));
        }
        self.disk.sync()
    }
    fn try_lock(&self) -> io::Result<bool> {
        self.disk.try_lock()
    }
    fn unlock(&self) -> io::Result<()> {
        self.disk.unlock()
    }
}

fn small() -> StoreConfig {
    StoreConfig { cache_bytes: 256 << 10, journal_bytes: 128 << 10, reserve_bytes: 0, ..config() }
}

fn complete(site: &MemorySite) -> bool {
    let disk = site.disk(INDEX_FILE).power_cut(&mut || false);
    Guard::open(Arc::new(disk)).unwrap().is_complete()
}

#[test]
fn a_cut_at_any_write_of_a_new_store_leaves_one_that_opens() {
    let (seen, folder) = Medium::birth(&small());
    assert!(seen.len() > 25, "{}", seen.len());
    let mut dice = Dice(7);
    for (at, site) in seen.iter().enumerate() {
        for _ in 0..12 {
            let mut found = site.each(&mut |disk| disk.crash(&mut dice.fates()));
            if dice.roll(2) == 0 {
                // A second cut while that is recovered from.
                let faults = Faults::none();
                *faults.seen.lock().unwrap() = Some(Vec::new());
                let store = Medium::store(&found, &faults, &small()).unwrap();
                let seen = faults.seen.lock().unwrap().take().unwrap();
                drop(store);
                let pick = dice.roll(seen.len() as u64) as usize;
                found = seen[pick].each(&mut |disk| disk.crash(&mut dice.fates()));
            }
            let store = Store::open_on(Arc::new(found), &small()).unwrap_or_else(|error| panic!("cut {at}: {error}"));
            let accounts = store.reader().unwrap().accounts().unwrap().len();
            // The last moment is before the account's own sync.
            assert!(accounts <= 1, "{accounts}");
            store.add_account(address("bob@pillar.test"), verifier(), Quota::default()).wait().unwrap();
            let letter = letter(folder.path(), b"letter");
            let bob = store.reader().unwrap().accounts().unwrap().last().unwrap().id;
            store.deliver(letter, vec![(bob, Folder::Inbox)]).wait().unwrap();
            check(&store);
        }
    }
}

#[test]
fn acknowledged_mail_survives_failed_syncs_and_then_a_cut() {
    let base = Rig::with(small());
    let (ann, inbox) = base.account("ann");
    base.store.close().unwrap();
    let mut failures = 0;
    for seed in 0..25 {
        let mut dice = Dice(seed);
        let site = base.site.each(&mut MemoryDisk::fork);
        let faults = Faults::none();
        *faults.dice.lock().unwrap() = Some(Dice(seed + 1000));
        let store = Medium::store(&site, &faults, &small()).unwrap();
        let mut acknowledged = Vec::new();
        for number in 0..40_u64 {
            if dice.roll(4) == 0 {
                // Any sync from the next on: of a group, of a checkpoint, of the way back.
                faults.syncs.store(i64::try_from(dice.roll(5)).unwrap(), Ordering::Relaxed);
            }
            // Some go through the staging, and so by a checkpoint.
            let length = if dice.roll(12) == 0 { 200_000 } else { 500 + dice.roll(9000) as usize };
            let body = noise(length, seed * 1000 + number);
            let deliver = || store.deliver(letter(base.folder.path(), &body), vec![(ann, Folder::Inbox)]).wait();
            match deliver() {
                Ok(placed) => acknowledged.push((placed[0].1, body)),
                Err(error) => {
                    failures += 1;
                    assert!(matches!(error, WriteError::Storage(_)), "{error}");
                    // When the way back failed too, the store tries again after a second.
                    let until = Instant::now() + Duration::from_secs(8);
                    while store.reader().is_err() {
                        assert!(Instant::now() < until, "the store does not come back");
                        drop(store.deliver(letter(base.folder.path(), b"again"), vec![(ann, Folder::Inbox)]).wait());
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            }
            if dice.roll(10) != 0 {
                continue;
            }
            let found = site.each(&mut |disk| disk.crash(&mut dice.fates()));
            let rig = Rig::start(found, tempfile::tempdir().unwrap(), small());
            rig.swept();
            check(&rig.store);
            for (uid, body) in &acknowledged {
                assert!(rig.body(inbox, uid.get()) == *body, "lost {uid:?}, seed {seed}, after {number}");
            }
        }
        // Nothing of it is missing for those who read on, either.
        faults.syncs.store(-1, Ordering::Relaxed);
        let until = Instant::now() + Duration::from_secs(8);
        while store.deliver(letter(base.folder.path(), b"last"), vec![(ann, Folder::Inbox)]).wait().is_err() {
            assert!(Instant::now() < until, "the store does not come back");
            std::thread::sleep(Duration::from_millis(20));
        }
        for (uid, body) in &acknowledged {
            let message = store.reader().unwrap().message(inbox, *uid).unwrap().unwrap();
            assert!(read_body(&store, message.blob) == *body);
        }
    }
    // Most are found by the way back, and so are none.
    assert!(failures > 30, "{failures}");
}

#[test]
fn a_bit_flipped_in_either_header_of_the_index_loses_nothing() {
    let rig = Rig::with(small());
    let (ann, inbox) = rig.account("ann");
    let bodies = (0..60).map(|number| noise(3000, number)).collect::<Vec<_>>();
    for body in &bodies {
        rig.deliver(body, &[ann]);
    }
    assert!(rig.store.figures().checkpoints > 1);
    let running = rig.killed();
    rig.store.close().unwrap();
    for site in [&running.site, &rig.site] {
        for bit in [5, 9 * 8 + 1, 100 * 8, 300 * 8 + 7, 2000 * 8, 4032 * 8, 4048 * 8, 4095 * 8 + 7] {
            for copy in 0..2 {
                let flipped = site.each(&mut MemoryDisk::fork);
                let index = flipped.disk(INDEX_FILE);
                let place = copy * 4096 + bit / 8;
                let mut byte = [0];
                index.read_at(place, &mut byte).unwrap();
                index.write_at(place, &[byte[0] ^ 1 << (bit % 8)]).unwrap();
                let found = Rig::start(flipped, tempfile::tempdir().unwrap(), small());
                assert_eq!(found.facts(inbox).messages, 60);
                assert!((0..60_u32).all(|number| found.body(inbox, number + 1) == bodies[number as usize]));
            }
        }
    }
}

#[test]
fn an_index_is_complete_from_a_clean_close_to_the_next_opening() {
    let rig = Rig::with(small());
    assert!(!complete(&rig.site));
    rig.account("ann");
    rig.store.close().unwrap();
    assert!(complete(&rig.site));
    // Before anything can be acknowledged, with the sync redb makes when it opens: the others are
    // of each file before it is believed.
    let rig = Rig::start(rig.site.clone(), tempfile::tempdir().unwrap(), small());
    assert!(!complete(&rig.site));
    assert_eq!(rig.store.figures().syncs, 3);
    // A store nobody closes closes itself.
    let site = rig.site.clone();
    drop(rig);
    let until = Instant::now() + Duration::from_secs(5);
    while !complete(&site) {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_journal_that_is_needed_and_not_there_is_missed() {
    let rig = Rig::with(small());
    let (ann, inbox) = rig.account("ann");
    rig.deliver(b"in the journal alone", &[ann]);
    let killed = rig.site.each(&mut MemoryDisk::fork);
    let without = |change: &dyn Fn(&MemorySite)| {
        let site = killed.each(&mut MemoryDisk::fork);
        change(&site);
        site
    };
    let ruins = [
        without(&|site| site.remove(JOURNAL_FILE).unwrap()),
        without(&|site| site.disk(JOURNAL_FILE).set_len(0).unwrap()),
        without(&|site| site.disk(JOURNAL_FILE).write_at(0, &vec![0; 128 << 10]).unwrap()),
        without(&|site| site.disk(JOURNAL_FILE).write_at(0, &[7; 8192]).unwrap()),
    ];
    for site in ruins {
        let open = || Store::open_on(Arc::new(site.clone()), &small());
        for _ in 0..2 {
            let refused = open().err();
            assert_eq!(refused, Some(OpenError::JournalMissing(rig.folder.path().to_owned())));
            assert!(refused.unwrap().to_string().contains("check-store --repair"));
        }
        // Putting it back is all it takes.
        let back = site.each(&mut MemoryDisk::fork);
        let journal = back.disk(JOURNAL_FILE);
        journal.set_len(0).unwrap();
        journal.write_at(0, &killed.disk(JOURNAL_FILE).bytes()).unwrap();
        assert_eq!(Rig::start(back, tempfile::tempdir().unwrap(), small()).facts(inbox).messages, 1);
        // Or the mail in it is given up.
        let before = site.open(JOURNAL_FILE).unwrap().map_or(0, |disk| disk.len().unwrap());
        let store = Store::open_without_journal(Arc::new(site.clone()), &small()).unwrap();
        let aside = site.open(JOURNAL_ASIDE).unwrap();
        assert_eq!(aside.is_some(), site.disk(JOURNAL_ASIDE).bytes().starts_with(&[7; 8192]), "{before}");
        let reader = store.reader().unwrap();
        let there = reader.mailbox(inbox).unwrap().map_or(0, |mailbox| mailbox.messages);
        assert_eq!(there, 0);
        drop(reader);
        store.close().unwrap();
        open().unwrap().close().unwrap();
    }
}

#[test]
fn damage_in_the_journal_is_noticed_and_can_be_gone_on_from() {
    let rig = Rig::with(small());
    let (ann, inbox) = rig.account("ann");
    (0..5).for_each(|number| drop(rig.deliver(&noise(1000, number), &[ann])));
    let killed = rig.site.each(&mut MemoryDisk::fork);
    assert_eq!(
        Rig::start(killed.each(&mut MemoryDisk::fork), tempfile::tempdir().unwrap(), small()).facts(inbox).messages,
        5
    );
    let journal = killed.disk(JOURNAL_FILE);
    // Each delivery is a block; the one in the middle rots.
    let groups = journal.bytes().chunks(4096).filter(|block| block.starts_with(b"pbxG")).count() as u64;
    journal.write_at((2 + groups - 3) * 4096 + 100, b"rot").unwrap();
    let site = Arc::new(killed);
    let refused = Store::open_on(site.clone(), &small()).err().unwrap();
    assert!(matches!(refused, OpenError::JournalDamaged(..)), "{refused}");
    assert!(refused.to_string().contains("check-store --repair"));
    // What is before the damage is kept.
    let store = Store::open_without_journal(site.clone(), &small()).unwrap();
    assert_eq!(store.reader().unwrap().mailbox(inbox).unwrap().unwrap().messages, 2);
    let deliver = || store.deliver(letter(rig.folder.path(), b"new"), vec![(ann, Folder::Inbox)]).wait().unwrap();
    deliver();
    check(&store);
    let killed = site.each(&mut MemoryDisk::fork);
    let found = Rig::start(killed, tempfile::tempdir().unwrap(), small());
    assert_eq!(found.facts(inbox).messages, 3);
}

#[test]
fn a_store_that_was_closed_cleanly_needs_no_journal() {
    let rig = Rig::with(small());
    let (ann, inbox) = rig.account("ann");
    rig.deliver(b"letter", &[ann]);
    rig.store.close().unwrap();
    for ruin in 0..3 {
        let site = rig.site.each(&mut MemoryDisk::fork);
        let journal = site.disk(JOURNAL_FILE);
        match ruin {
            0 => site.remove(JOURNAL_FILE).unwrap(),
            1 => journal.set_len(0).unwrap(),
            _ => journal.write_at(0, &[7; 8192]).unwrap(),
        }
        let found = Rig::start(site, tempfile::tempdir().unwrap(), small());
        assert_eq!(found.facts(inbox).messages, 1);
        found.deliver(b"another", &[ann]);
        // From then on the new one is needed.
        let killed = found.killed();
        assert_eq!(killed.facts(inbox).messages, 2);
        killed.site.remove(JOURNAL_FILE).unwrap();
        let refused = Store::open_on(Arc::new(killed.site.each(&mut MemoryDisk::fork)), &small()).err();
        assert!(matches!(refused, Some(OpenError::JournalMissing(_))));
    }
}

#[test]
fn an_opening_that_fails_leaves_a_complete_index_complete() {
    let (rig, other) = (Rig::with(small()), Rig::with(small()));
    rig.account("ann");
    rig.store.close().unwrap();
    other.account("bob");
    other.store.close().unwrap();
    let foreign = other.site.disk(JOURNAL_FILE).bytes();
    let site = rig.site.each(&mut MemoryDisk::fork);
    site.disk(JOURNAL_FILE).write_at(0, &foreign).unwrap();
    let refused = Store::open_on(Arc::new(site.clone()), &small()).err();
    assert!(matches!(refused, Some(OpenError::ForeignJournal(_))), "{refused:?}");
    assert!(complete(&site));
    // So that moving the foreign one away is enough, as the sentence says; or that is done for us.
    let forced = site.each(&mut MemoryDisk::fork);
    let store = Store::open_without_journal(Arc::new(forced.clone()), &small()).unwrap();
    assert_eq!(store.reader().unwrap().accounts().unwrap().len(), 1);
    assert!(forced.disk(JOURNAL_ASIDE).bytes() == foreign);
    assert!(!forced.disk(INDEX_FILE).try_lock().unwrap());
    site.remove(JOURNAL_FILE).unwrap();
    let found = Rig::start(site, tempfile::tempdir().unwrap(), small());
    assert_eq!(found.reader().accounts().unwrap().len(), 1);
}
