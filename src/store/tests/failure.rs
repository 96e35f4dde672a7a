//! Kills, power cuts, failing and full disks.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64};

use super::*;
use crate::store::disk::Disk;
use crate::store::site::Room;

/// A disk that fails every write and sync once its fuse has burnt down.
#[derive(Debug)]
struct Fused {
    disk: Arc<dyn Disk>,
    fuse: Arc<Fuse>,
}

#[derive(Debug)]
pub(super) struct Fuse {
    pub(super) left: AtomicI64,
    /// It fails one operation and no more.
    once: AtomicBool,
    /// Reads fail as well.
    reads: AtomicBool,
}

impl Fuse {
    pub(super) fn new(left: i64) -> Arc<Self> {
        Arc::new(Self { left: left.into(), once: false.into(), reads: false.into() })
    }

    fn burn(&self) -> io::Result<()> {
        let left = self.left.fetch_sub(1, Ordering::Relaxed);
        let alive = left > 0 || left < 0 && self.once.load(Ordering::Relaxed);
        if alive { Ok(()) } else { Err(io::Error::other("the disk is gone")) }
    }
}

impl Disk for Fused {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fuse.burn()?;
        self.disk.set_len(len)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.fuse.reads.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk can't be read"));
        }
        self.disk.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.fuse.burn()?;
        self.disk.write_at(offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.fuse.burn()?;
        self.disk.sync()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.disk.try_lock()
    }

    fn unlock(&self) -> io::Result<()> {
        self.disk.unlock()
    }
}

/// A site all of whose disks share a fuse.
#[derive(Debug)]
struct FusedSite {
    site: MemorySite,
    fuse: Arc<Fuse>,
}

impl FusedSite {
    fn disk(&self, disk: Arc<dyn Disk>) -> Arc<dyn Disk> {
        Arc::new(Fused { disk, fuse: self.fuse.clone() })
    }
}

impl Site for FusedSite {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        Ok(self.site.open(name)?.map(|disk| self.disk(disk)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        self.fuse.burn()?;
        self.site.create(name).map(|disk| self.disk(disk))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.fuse.burn()?;
        self.site.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.fuse.burn()?;
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

pub(super) fn fused(site: &MemorySite, fuse: &Arc<Fuse>) -> Arc<dyn Site> {
    Arc::new(FusedSite { site: site.clone(), fuse: fuse.clone() })
}

/// A random choice, the same in every run.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[test]
fn an_acknowledged_message_survives_a_power_cut_at_any_write() {
    let base = Rig::new();
    let (ann, inbox) = base.account("ann");
    base.store.close().unwrap();
    let mut dice = Dice(5);
    for writes in (0..60).chain([80, 120, 200, 300, 500, 800]) {
        let site = base.site.each(&mut MemoryDisk::fork);
        let fuse = Fuse::new(writes);
        let mut acknowledged = Vec::new();
        if let Ok(store) = Store::open_on(fused(&site, &fuse), &config()) {
            for number in 0..20_usize {
                // Now and then a message that goes through the staging.
                let length = if number % 7 == 6 { 200_000 } else { 2000 };
                let body = noise(length, number as u64 + 1);
                let to = vec![(ann, Folder::Inbox)];
                if let Ok(placed) = store.deliver(letter(base.folder.path(), &body), to).wait() {
                    acknowledged.push((placed[0].1, body));
                }
            }
            let _ = store.close();
        }
        // What was not synced is lost in part.
        let kept = dice.roll(5);
        let mut keep = || dice.roll(4) < kept;
        let found = site.each(&mut |disk| disk.power_cut(&mut keep));
        let rig = Rig::start(found, tempfile::tempdir().unwrap(), config());
        rig.swept();
        check(&rig.store);
        for (uid, body) in &acknowledged {
            assert!(rig.body(inbox, uid.get()) == *body, "lost {uid:?} after {writes} writes");
        }
        let there = rig.facts(inbox).messages as usize;
        assert!((acknowledged.len()..=20).contains(&there), "{there} after {writes} writes");
    }
}

#[test]
fn modseqs_rise_over_kills_and_are_never_given_twice() {
    let mut rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let mut highest = ModSeq(0);
    for round in 0..6_u32 {
        for _ in 0..5 {
            rig.deliver(b"x", &[ann]);
            let now = rig.facts(inbox).highest_modseq;
            assert!(now > highest);
            highest = now;
        }
        rig = rig.killed();
        assert_eq!(rig.facts(inbox).messages, (round + 1) * 5);
        assert_eq!(rig.facts(inbox).highest_modseq, highest);
    }
}

#[test]
fn a_journal_of_many_laps_is_checkpointed_and_replayed() {
    let rig = Rig::with(StoreConfig { journal_bytes: 128 << 10, ..config() });
    let (ann, inbox) = rig.account("ann");
    for number in 0..200_u64 {
        rig.deliver(&noise(3000, number), &[ann]);
    }
    // Larger than the ring ever takes, but small enough not to be staged: goes by a checkpoint.
    rig.deliver(&noise(100_000, 1000), &[ann]);
    assert!(rig.store.figures().checkpoints > 5);
    let rig = rig.killed();
    assert_eq!(rig.reader().uids(inbox).unwrap(), span(1, 201));
    assert!((0..200_u32).all(|number| rig.body(inbox, number + 1) == noise(3000, number.into())));
    check(&rig.store);
}

#[test]
fn a_store_whose_disk_fails_and_recovers_goes_on_without_a_restart() {
    let base = Rig::new();
    let (ann, inbox) = base.account("ann");
    base.store.close().unwrap();
    let site = base.site.each(&mut MemoryDisk::fork);
    let fuse = Fuse::new(i64::MAX);
    let store = Store::open_on(fused(&site, &fuse), &config()).unwrap();
    let deliver = || {
        let letter = letter(base.folder.path(), b"letter");
        store.deliver(letter, vec![(ann, Folder::Inbox)]).wait()
    };
    let mut kept = 0;
    // The first write fails, then the journal's sync.
    for round in 0..2 {
        kept += u32::from(deliver().is_ok());
        fuse.left.store(round, Ordering::Relaxed);
        assert!(matches!(deliver(), Err(WriteError::Storage(_))));
        fuse.left.store(i64::MAX, Ordering::Relaxed);
        // An attempt to reopen that failed is not repeated at once.
        let until = Instant::now() + Duration::from_secs(5);
        let mut again = deliver();
        while again.is_err() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
            again = deliver();
        }
        again.unwrap();
        kept += 1;
        check(&store);
        // What was refused may have reached the journal all the same.
        let there = store.reader().unwrap().mailbox(inbox).unwrap().unwrap().messages;
        assert!(there >= kept);
        kept = there;
    }
}

#[test]
fn a_message_whose_sync_failed_and_that_is_found_is_acknowledged_and_wakes_who_waits() {
    let base = Rig::new();
    let (ann, inbox) = base.account("ann");
    base.store.close().unwrap();
    let mut found = 0;
    // One operation fails: a write of the journal's, its sync.
    for left in 0..4 {
        let fuse = Fuse::new(i64::MAX);
        let site = base.site.each(&mut MemoryDisk::fork);
        let store = Store::open_on(fused(&site, &fuse), &config()).unwrap();
        let deliver = || store.deliver(letter(base.folder.path(), b"letter"), vec![(ann, Folder::Inbox)]).wait();
        // A few, so that the index need not grow in the next: that is a write as well.
        (0..4).for_each(|_| drop(deliver().unwrap()));
        // Who waits is woken after the answer, and before the next command.
        assert!(store.expunge(inbox, None).wait().unwrap().is_empty());
        let mut watch = store.watch(ann);
        fuse.left.store(left, Ordering::Relaxed);
        fuse.once.store(true, Ordering::Relaxed);
        let kept = u32::from(deliver().is_ok());
        let failed = fuse.left.load(Ordering::Relaxed) < 0;
        assert!(store.expunge(inbox, None).wait().unwrap().is_empty());
        let there = store.reader().unwrap().mailbox(inbox).unwrap().unwrap();
        assert_eq!(there.messages, 4 + kept);
        assert_eq!(watch.has_changed().unwrap(), kept == 1);
        assert!(kept == 0 || *watch.borrow_and_update() == there.highest_modseq);
        found += kept * u32::from(failed);
    }
    assert!(found > 0, "the sync is one of them");
}

#[test]
fn a_reader_of_a_failed_disk_brings_the_store_back() {
    let base = Rig::with(StoreConfig { cache_bytes: 0, ..config() });
    let (ann, inbox) = base.account("ann");
    base.deliver(&noise(100_000, 1), &[ann]);
    base.store.close().unwrap();
    let site = base.site.each(&mut MemoryDisk::fork);
    let fuse = Fuse::new(i64::MAX);
    let store = Store::open_on(fused(&site, &fuse), &base.config).unwrap();
    let look = || {
        store
            .reader()
            .and_then(|reader| reader.message(inbox, uid(1)))
            .and_then(|found| store.body(found.unwrap().blob))
            .and_then(|mut body| body.read(0, 9).map(<[u8]>::to_vec))
    };
    look().unwrap();
    fuse.reads.store(true, Ordering::Relaxed);
    assert!(matches!(look(), Err(ReadError::Storage(_))));
    fuse.reads.store(false, Ordering::Relaxed);
    let until = Instant::now() + Duration::from_secs(5);
    while look().is_err() {
        assert!(Instant::now() < until, "{:?}", look());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_full_disk_refuses_mail_and_still_lets_delete() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    rig.deliver(b"x", &[ann]);
    rig.store.close().unwrap();
    let site = rig.site.each(&mut MemoryDisk::fork);
    let full = Rig::start(site, tempfile::tempdir().unwrap(), StoreConfig { reserve_bytes: u64::MAX, ..config() });
    assert!(matches!(full.store.spool(), Err(WriteError::DiskFull)));
    let refused = full.store.deliver(full.letter(b"y"), vec![(ann, Folder::Inbox)]).wait();
    assert_eq!(refused, Err(WriteError::DiskFull));
    assert_eq!(full.store.append(inbox, vec![full.letter(&noise(300_000, 1))]).wait(), Err(WriteError::DiskFull));
    assert_eq!(full.store.copy(inbox, uids(&[1]), inbox).wait(), Err(WriteError::DiskFull));
    full.store.flag(inbox, uids(&[1]), FlagMode::Add, names(SystemFlags::SEEN, &[]), None).wait().unwrap();
    assert_eq!(full.store.remove(inbox, uids(&[1])).wait(), Ok(uids(&[1])));
    check(&full.store);
}

#[test]
fn a_body_left_half_staged_is_removed_at_the_next_start() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let waiting = rig.store.deliver(rig.letter(&noise(20 << 20, 1)), vec![(ann, Folder::Inbox)]);
    let until = Instant::now() + Duration::from_secs(20);
    while rig.reader().table(PIECE).unwrap().first().unwrap().is_none() && Instant::now() < until {
        std::thread::yield_now();
    }
    // A clean close publishes what is staged, without the message.
    rig.store.close().unwrap();
    assert_eq!(waiting.wait(), Err(WriteError::Closed));
    let rig = rig.killed();
    rig.swept();
    assert_eq!(rig.facts(inbox).messages, 0);
    assert!(rig.reader().table(PIECE).unwrap().first().unwrap().is_none());
    assert!(rig.reader().table(TAIL).unwrap().first().unwrap().is_none());
    check(&rig.store);
}

#[test]
fn a_closed_store_says_so_and_opens_again_with_nothing_to_replay() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    rig.deliver(b"x", &[ann]);
    let reader = rig.reader();
    rig.store.close().unwrap();
    assert_eq!(rig.store.close(), Err(WriteError::Closed));
    assert_eq!(rig.store.deliver(rig.letter(b"y"), vec![(ann, Folder::Inbox)]).wait(), Err(WriteError::Closed));
    assert_eq!(rig.store.reader().err(), Some(ReadError::Closed));
    assert!(matches!(rig.store.spool(), Err(WriteError::Closed)));
    assert!(rig.store.watch(ann).has_changed().is_err());
    drop(reader);
    let again = Rig::start(rig.site.clone(), tempfile::tempdir().unwrap(), config());
    assert_eq!(again.facts(inbox).messages, 1);
    assert_eq!(again.store.figures().checkpoints, 0);
}

#[test]
fn real_files_are_private_and_belong_to_one_process_at_a_time() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let store = Store::open(&data, &config()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join(INDEX_FILE)), 0o600);
    assert_eq!(mode(&data.join(JOURNAL_FILE)), 0o600);
    let refused = Store::open(&data, &config()).err();
    assert_eq!(refused, Some(OpenError::InUse(data.clone())));
    assert!(refused.unwrap().to_string().contains("another process"));
    store.add_account(address("ann@pillar.test"), verifier(), Quota::default()).wait().unwrap();
    assert!(store.figures().store_bytes > 1 << 20);
    store.close().unwrap();
    let store = Store::open(&data, &config()).unwrap();
    assert_eq!(store.reader().unwrap().accounts().unwrap().len(), 1);
    store.close().unwrap();

    // Another store's journal is not replayed into this one.
    let other = folder.path().join("other");
    Store::open(&other, &config()).unwrap().close().unwrap();
    std::fs::copy(other.join(JOURNAL_FILE), data.join(JOURNAL_FILE)).unwrap();
    let refused = Store::open(&data, &config()).err();
    assert_eq!(refused, Some(OpenError::ForeignJournal(data.clone())));
    // A failed opening leaves no lock behind.
    assert_eq!(Store::open(&data, &config()).err(), refused);
}

#[test]
fn a_store_of_a_newer_schema_is_left_alone() {
    let rig = Rig::new();
    rig.store.close().unwrap();
    meddle(&rig, |transaction| {
        let newer = (SCHEMA + 1).to_le_bytes();
        transaction.open_table(super::super::table::STATE).unwrap().insert("schema", newer.as_slice()).unwrap();
    });
    let refused = Store::open_on(Arc::new(rig.site.clone()), &config()).err();
    assert_eq!(refused, Some(OpenError::NewerSchema { found: SCHEMA + 1, known: SCHEMA }));
}

/// Changes tables behind the store's back.
fn meddle(rig: &Rig, change: impl FnOnce(&redb::WriteTransaction)) {
    let guard = crate::store::backend::Guard::open(Arc::new(rig.site.disk(INDEX_FILE))).unwrap();
    let backend = crate::store::backend::IndexBackend(Arc::new(guard));
    let index = redb::Database::builder().create_with_backend(backend).unwrap();
    let transaction = index.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
}

#[test]
fn a_changed_row_is_an_error_and_never_mail() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    rig.deliver(b"for ann", &[ann]);
    rig.deliver(b"second", &[ann]);
    rig.store.close().unwrap();
    for bit in [0, 9, 17, 40, 70] {
        meddle(&rig, |transaction| {
            let mut table = transaction.open_table(MSG).unwrap();
            let mut row = table.get((inbox.0, 1)).unwrap().unwrap().value().to_vec();
            row[bit / 8] ^= 1 << (bit % 8);
            table.insert((inbox.0, 1), row.as_slice()).unwrap();
        });
        let ruined = rig.killed();
        let damaged = ReadError::Storage("damaged record: msg".to_owned());
        assert_eq!(ruined.reader().message(inbox, uid(1)), Err(damaged));
        assert_eq!(ruined.body(inbox, 2), b"second");
        ruined.store.close().unwrap();
        meddle(&rig, |transaction| {
            let mut table = transaction.open_table(MSG).unwrap();
            let mut row = table.get((inbox.0, 1)).unwrap().unwrap().value().to_vec();
            row[bit / 8] ^= 1 << (bit % 8);
            table.insert((inbox.0, 1), row.as_slice()).unwrap();
        });
    }
    // A whole row under another's key is none.
    meddle(&rig, |transaction| {
        let mut table = transaction.open_table(MSG).unwrap();
        let row = table.get((inbox.0, 2)).unwrap().unwrap().value().to_vec();
        table.insert((inbox.0, 1), row.as_slice()).unwrap();
    });
    assert!(rig.killed().reader().message(inbox, uid(1)).is_err());
}

#[test]
fn what_is_there_is_not_removed_though_the_list_says_so() {
    use crate::store::table::{SWEEP_BODY, SWEEP_MAILBOX};
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    rig.deliver(b"letter", &[ann]);
    let blob = rig.reader().message(inbox, uid(1)).unwrap().unwrap().blob;
    rig.store.close().unwrap();
    meddle(&rig, |transaction| {
        let mut table = transaction.open_table(SWEEP).unwrap();
        table.insert((SWEEP_BODY, blob.0), ()).unwrap();
        table.insert((SWEEP_MAILBOX, inbox.0.into()), ()).unwrap();
    });
    let rig = rig.killed();
    rig.swept();
    assert_eq!(rig.body(inbox, 1), b"letter");
    check(&rig.store);
}
