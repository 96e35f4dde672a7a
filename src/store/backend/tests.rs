//! The guard under test: cuts at any write, garbage, failed syncs, flipped bits, plain files.
#![allow(clippy::cast_possible_truncation, reason = "numbers are small")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::header::{REDB_MAGIC, ROOM};
use super::*;
use crate::store::disk::{Fate, MemoryDisk, SECTOR};

const ROWS: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("rows");

type Rows = BTreeMap<u64, Vec<u8>>;

/// A random choice, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// Decides about a sector; how much is kept differs from dice to dice.
    fn fates(seed: u64) -> impl FnMut() -> Fate {
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (kept, garbage) = (dice.roll(5), dice.roll(3));
        move || match (dice.roll(4) < kept, dice.roll(4) < garbage) {
            (true, _) => Fate::Kept,
            (false, true) => Fate::Garbage,
            (false, false) => Fate::Lost,
        }
    }
}

fn guard(disk: &MemoryDisk) -> Arc<Guard> {
    Arc::new(Guard::open(Arc::new(disk.clone())).unwrap())
}

/// A database with little memory, so that pages are written before they are committed.
fn database(guard: &Arc<Guard>) -> Database {
    try_database(guard).unwrap()
}

fn try_database(guard: &Arc<Guard>) -> Result<Database, redb::DatabaseError> {
    Database::builder().set_cache_size(64 << 10).create_with_backend(IndexBackend(guard.clone()))
}

fn rows(index: &Database) -> Rows {
    let table = match index.begin_read().unwrap().open_table(ROWS) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Rows::new(),
        Err(error) => panic!("{error}"),
    };
    let row = |row: Result<(redb::AccessGuard<'_, u64>, redb::AccessGuard<'_, &[u8]>), _>| {
        let (key, value) = row.unwrap();
        (key.value(), value.value().to_vec())
    };
    table.iter().unwrap().map(row).collect()
}

/// Changes some rows and commits.
fn change(index: &Database, dice: &mut Dice, model: &mut Rows, durable: bool) -> Result<(), redb::Error> {
    let mut transaction = index.begin_write()?;
    {
        let mut table = transaction.open_table(ROWS)?;
        for _ in 0..=dice.roll(12) {
            let key = dice.roll(60);
            if dice.roll(3) == 0 {
                table.remove(key)?;
                model.remove(&key);
            } else {
                let value = vec![dice.roll(256) as u8; dice.roll(20_000) as usize];
                table.insert(key, value.as_slice())?;
                model.insert(key, value);
            }
        }
    }
    transaction.set_durability(if durable { Durability::Immediate } else { Durability::None })?;
    transaction.set_quick_repair(durable);
    Ok(transaction.commit()?)
}

/// Keeps a copy of the disk as it is before each write, change of length and sync.
#[derive(Debug)]
struct Watched(MemoryDisk, Mutex<Vec<MemoryDisk>>);

impl Watched {
    fn new(disk: MemoryDisk) -> Arc<Self> {
        Arc::new(Self(disk, Mutex::default()))
    }

    fn seen(&self) -> Vec<MemoryDisk> {
        std::mem::take(&mut *self.1.lock().unwrap())
    }

    fn see(&self) {
        self.1.lock().unwrap().push(self.0.fork());
    }
}

impl Disk for Watched {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.see();
        self.0.set_len(len)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.see();
        self.0.write_at(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.see();
        self.0.sync()
    }
    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}

/// redb on a plain file, as schema 1 had it.
#[derive(Debug)]
struct Plain(MemoryDisk);

impl StorageBackend for Plain {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
}

/// A plain file, closed or as a kill leaves it, and what is in it.
fn plain(seed: u64, closed: bool) -> (MemoryDisk, Rows) {
    let (disk, mut model, mut dice) = (MemoryDisk::default(), Rows::new(), Dice(seed));
    let index = Database::builder().set_cache_size(64 << 10).create_with_backend(Plain(disk.clone())).unwrap();
    for _ in 0..6 {
        change(&index, &mut dice, &mut model, true).unwrap();
    }
    let killed = disk.fork();
    if closed {
        index.close().unwrap();
        return (disk, model);
    }
    (killed.power_cut(&mut || true), model)
}

#[test]
fn a_cut_at_any_write_of_a_new_file_leaves_one_that_opens() {
    let watched = Watched::new(MemoryDisk::default());
    let guard = Arc::new(Guard::open(watched.clone()).unwrap());
    let index = database(&guard);
    let mut model = Rows::new();
    change(&index, &mut Dice(1), &mut model, true).unwrap();
    let seen = watched.seen();
    assert!(seen.len() > 15, "{}", seen.len());
    for (at, disk) in seen.iter().enumerate() {
        for seed in 0..20 {
            let found = disk.crash(&mut Dice::fates(seed * 1000 + at as u64));
            // A second cut while the first is recovered from.
            let again = Watched::new(found.clone());
            let index = database(&Arc::new(Guard::open(again.clone()).unwrap()));
            let there = rows(&index);
            assert!(there.is_empty() || there == model, "cut {at}, seed {seed}");
            let seen = again.seen();
            let second = seen[seed as usize % seen.len()].crash(&mut Dice::fates(seed + 77));
            let index = database(&Arc::new(Guard::open(Arc::new(second)).unwrap()));
            let later = rows(&index);
            assert!(later == there || later == model, "second cut after {at}, seed {seed}");
            change(&index, &mut Dice(2), &mut Rows::new(), true).unwrap();
        }
    }
}

#[test]
fn a_plain_file_is_taken_over_in_place_whatever_write_a_cut_comes_at() {
    for (seed, closed) in [(1, true), (2, false), (3, true), (4, false)] {
        let (disk, model) = plain(seed, closed);
        let watched = Watched::new(disk.clone());
        assert_eq!(rows(&database(&Arc::new(Guard::open(watched.clone()).unwrap()))), model);
        let seen = watched.seen();
        assert!(seen.len() > 8, "{}", seen.len());
        for (at, disk) in seen.iter().enumerate() {
            for seed in 0..12 {
                let found = disk.crash(&mut Dice::fates(seed * 1000 + at as u64));
                let again = Watched::new(found);
                let index = database(&Arc::new(Guard::open(again.clone()).unwrap()));
                assert_eq!(rows(&index), model, "cut {at}, seed {seed}");
                drop(index);
                let seen = again.seen();
                let second = seen[seed as usize % seen.len()].crash(&mut Dice::fates(seed + 77));
                let index = database(&guard(&second));
                assert_eq!(rows(&index), model, "second cut after {at}, seed {seed}");
                let (mut dice, mut model) = (Dice(seed), model.clone());
                change(&index, &mut dice, &mut model, true).unwrap();
                assert_eq!(rows(&index), model);
            }
        }
    }
}

#[test]
fn a_file_that_was_plain_shrinks_below_its_moved_block_and_grows_again() {
    let (disk, mut model) = plain(5, true);
    let before = disk.len().unwrap();
    for round in 0..4 {
        let guard = guard(&disk);
        let mut index = database(&guard);
        assert_eq!(rows(&index), model);
        assert!(index.check_integrity().unwrap());
        if round % 2 == 0 {
            let transaction = index.begin_write().unwrap();
            transaction.delete_table(ROWS).unwrap();
            transaction.commit().unwrap();
            model.clear();
        } else {
            for step in 0..20 {
                change(&index, &mut Dice(step), &mut model, step % 3 == 0).unwrap();
            }
        }
        index.close().unwrap();
        // What redb has may be less than where its second block was moved to; the file is not.
        assert!(disk.len().unwrap() >= before + BLOCK);
        assert!(round > 0 || guard.len.load(Ordering::Relaxed) < before);
    }
    assert_eq!(rows(&database(&guard(&disk))), model);
}

#[test]
fn a_flipped_bit_in_either_copy_harms_nothing() {
    let (disk, mut model) = (MemoryDisk::default(), Rows::new());
    let guard_of_it = guard(&disk);
    let index = database(&guard_of_it);
    let mut images = Vec::new();
    for seed in 0..4 {
        change(&index, &mut Dice(seed), &mut model, true).unwrap();
        guard_of_it.mirror();
    }
    images.push(disk.bytes());
    index.close().unwrap();
    images.push(disk.power_cut(&mut || false).bytes());
    for image in images {
        assert_eq!(Header::parse(image[..4096].try_into().unwrap()).unwrap().unwrap().redb[..], image[4096..][..ROOM]);
        for bit in (0..2 * 4096 * 8).step_by(1009) {
            let mut flipped = image.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(rows(&database(&guard(&MemoryDisk::holding(flipped)))), model, "{bit}");
        }
    }
}

#[test]
fn a_file_that_is_no_index_is_said_so_and_left_alone() {
    let (plain, _) = plain(1, true);
    let mut both = MemoryDisk::default();
    drop(database(&guard(&both)));
    let whole = both.bytes();
    let mut damaged = whole.clone();
    damaged[100] ^= 1;
    damaged[4096 + 100] ^= 1;
    let mut short = whole.clone();
    short.truncate(8192);
    let mut foreign = plain.bytes();
    foreign[0] = b'x';
    // A damaged copy in a file that never was plain.
    let mut half = plain.bytes();
    half[4092] = 1;
    for image in [damaged, short, foreign, half, vec![0; 100_000]] {
        both = MemoryDisk::holding(image.clone());
        let error = Guard::open(Arc::new(both.clone())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(both.bytes(), image);
    }
}

#[test]
fn an_index_is_complete_only_when_it_was_told_so() {
    let disk = MemoryDisk::default();
    let on_disk = |disk: &MemoryDisk| guard(&disk.power_cut(&mut || false)).is_complete();
    let first = guard(&disk);
    assert!(first.is_blank() && first.is_complete() && on_disk(&disk));
    let index = database(&first);
    assert!(!first.is_blank() && on_disk(&disk));
    first.make_complete(false).unwrap();
    assert!(!on_disk(&disk));
    first.set_complete(true);
    assert!(!on_disk(&disk));
    index.close().unwrap();
    assert!(on_disk(&disk));
    // Opening makes it durable that it isn't any more, with the writes redb does anyway.
    let second = guard(&disk);
    second.set_complete(false);
    let _index = database(&second);
    assert!(!on_disk(&disk));
}

/// redb's promise that the guard builds upon: pages of the last durable commit are not written to
/// before the next durable commit has succeeded, though pages of commits without durability, or of
/// none, are written meanwhile for want of memory.
#[test]
fn going_back_to_the_durable_header_finds_the_durable_rows() {
    for seed in 0..30 {
        let mut dice = Dice(seed);
        let (disk, mut model) = (MemoryDisk::default(), Rows::new());
        let guarded = guard(&disk);
        let index = database(&guarded);
        let mut durable = model.clone();
        let mut spilled = 0;
        for _ in 0..40 {
            let sync = dice.roll(5) == 0;
            let before = disk.bytes();
            change(&index, &mut dice, &mut model, sync).unwrap();
            if sync {
                durable.clone_from(&model);
            } else {
                spilled += u32::from(disk.bytes() != before);
            }
            // Everything that was ever written, and the header that is known to be durable.
            let mut image = disk.bytes();
            let header = guarded.kept().durable.block();
            image[..4096].copy_from_slice(&header);
            image[4096..8192].copy_from_slice(&header);
            let back = database(&guard(&MemoryDisk::holding(image)));
            assert_eq!(rows(&back), durable, "seed {seed}");
        }
        assert!(spilled > 5, "{spilled}");
    }
}

#[test]
fn after_a_failed_sync_the_durable_rows_are_there_and_what_follows_survives_a_cut() {
    let mut reopened = 0;
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let disk = MemoryDisk::default();
        let failing = Arc::new(Failing { disk: disk.clone(), after: AtomicU64::new(u64::MAX), seed });
        let guarded = Arc::new(Guard::open(failing.clone()).unwrap());
        let mut durable = Rows::new();
        let mut index = Some(database(&guarded));
        for _ in 0..30 {
            let Some(open) = &index else {
                // What the store does: back to what is known to be durable.
                reopened += 1;
                failing.after.store(dice.roll(8), Ordering::Relaxed);
                if guarded.go_back().is_err() {
                    continue;
                }
                let Ok(opened) = try_database(&guarded) else { continue };
                assert_eq!(rows(&opened), durable, "seed {seed}");
                index = Some(opened);
                continue;
            };
            let mut model = durable.clone();
            if dice.roll(3) == 0 {
                failing.after.store(dice.roll(4), Ordering::Relaxed);
            }
            let mut done = Ok(());
            for _ in 0..dice.roll(4) {
                done = done.and_then(|()| change(open, &mut dice, &mut model, false));
            }
            match done.and_then(|()| change(open, &mut dice, &mut model, true)) {
                Ok(()) => {
                    guarded.mirror();
                    durable = model;
                }
                Err(_) => index = None,
            }
            // Only as long as the failed commit isn't written over is it allowed to be found.
            let found = rows(&database(&guard(&disk.crash(&mut Dice::fates(dice.roll(1 << 30))))));
            assert!(found == durable || index.is_none(), "seed {seed}");
        }
    }
    assert!(reopened > 100, "{reopened}");
}

/// A disk on which a sync fails now and then: what it should have written is lost in part, and the
/// cache shows it all the same.
#[derive(Debug)]
struct Failing {
    disk: MemoryDisk,
    /// How many syncs succeed before one fails.
    after: AtomicU64,
    seed: u64,
}

impl Disk for Failing {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.set_len(len)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.disk.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        if self.after.load(Ordering::Relaxed) == 0 {
            self.after.store(u64::MAX, Ordering::Relaxed);
            self.disk.forget_unsynced(&mut Dice::fates(self.seed));
            return Err(io::Error::other("the sync failed"));
        }
        self.after.fetch_sub(1, Ordering::Relaxed);
        self.disk.sync()
    }
    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Deed {
    /// redb's header.
    Header,
    /// Some sectors of anything behind the first block.
    Write {
        sector: u64,
        count: usize,
    },
    Sync,
    /// A sync that fails, and the way back.
    FailedSync(u64),
    Mirror,
    Resize(u64),
    /// The process is killed and started anew.
    Kill,
    /// The power fails.
    Cut(u64),
}

/// Sectors of the file under test, as redb sees it.
const SECTORS: u64 = 20 * 8;

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => Just(Deed::Header),
        5 => (8..SECTORS, 1..30_usize).prop_map(|(sector, count)| Deed::Write { sector, count }),
        4 => Just(Deed::Sync),
        2 => any::<u64>().prop_map(Deed::FailedSync),
        2 => Just(Deed::Mirror),
        1 => (2..30_u64).prop_map(Deed::Resize),
        1 => Just(Deed::Kill),
        2 => any::<u64>().prop_map(Deed::Cut),
    ]
}

/// What redb's first bytes are at the given step.
fn head(step: u64) -> [u8; 320] {
    let mut head = [step as u8; 320];
    head[..9].copy_from_slice(&REDB_MAGIC);
    head[16..24].copy_from_slice(&step.to_le_bytes());
    head
}

/// A plain file, or one that the guard made, with the header of step 0 and nothing else in it.
fn image(plain: bool) -> MemoryDisk {
    if plain {
        let mut bytes = vec![0; (SECTORS / 2) as usize * SECTOR];
        bytes[..320].copy_from_slice(&head(0));
        return MemoryDisk::holding(bytes);
    }
    let disk = MemoryDisk::default();
    let backend = IndexBackend(guard(&disk));
    backend.set_len(SECTORS * SECTOR as u64).unwrap();
    backend.write(0, &head(0)).unwrap();
    backend.sync_data().unwrap();
    disk
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_was_synced_is_found_whatever_happens(plain in any::<bool>(), deeds in prop::collection::vec(deed(), 1..80)) {
        let mut disk = image(plain);
        let mut backend = IndexBackend(guard(&disk));
        backend.set_len(SECTORS * SECTOR as u64).unwrap();
        backend.sync_data().unwrap();
        let mut long = SECTORS;
        // The header that is durable, those written since; sectors known, and those nobody knows.
        let (mut synced, mut written) = (0, BTreeSet::new());
        // Headers written before a cut and not found after it. A torn copy may yet be made whole by
        // the next one, whose sectors are the same in part, until that is synced: and redb does that
        // before it writes anything else.
        let mut torn = BTreeSet::new();
        let (mut known, mut pending) = (BTreeMap::<u64, u64>::new(), BTreeMap::<u64, u64>::new());
        let mut lost = BTreeSet::new();
        for (step, deed) in (1..).zip(deeds) {
            match deed {
                Deed::Header => {
                    backend.write(0, &head(step)).unwrap();
                    written.insert(step);
                }
                Deed::Write { sector, count } => {
                    let count = count.min((long.saturating_sub(sector)) as usize);
                    let bytes: Vec<u8> = [step; SECTOR / 8].map(u64::to_le_bytes).concat().repeat(count);
                    backend.write(sector * SECTOR as u64, &bytes).unwrap();
                    pending.extend((sector..).take(count).map(|sector| (sector, step)));
                }
                Deed::Sync => {
                    backend.sync_data().unwrap();
                    if let Some(step) = written.pop_last() {
                        synced = step;
                        written.clear();
                        torn.clear();
                    }
                    for (sector, step) in std::mem::take(&mut pending) {
                        known.insert(sector, step);
                        lost.remove(&sector);
                    }
                }
                Deed::FailedSync(seed) => {
                    disk.forget_unsynced(&mut Dice::fates(seed));
                    backend.0.kept().state = State::Failed;
                    prop_assert!(backend.sync_data().is_err());
                    prop_assert!(backend.write(0, &head(step)).is_err());
                    backend.0.go_back().unwrap();
                    let mut found = [0; 320];
                    backend.read(0, &mut found).unwrap();
                    prop_assert_eq!(found, head(synced));
                    written.clear();
                    lost.extend(std::mem::take(&mut pending).into_keys());
                    // From here on only a cut right now could have brought the failed one back.
                    let after = guard(&disk.crash(&mut Dice::fates(seed))).kept().durable;
                    prop_assert_eq!(&after.redb[..320], &head(synced));
                }
                Deed::Mirror => backend.0.mirror(),
                Deed::Resize(blocks) => {
                    backend.set_len(blocks * BLOCK).unwrap();
                    // As redb does before anything else.
                    backend.sync_data().unwrap();
                    if let Some(step) = written.pop_last() {
                        synced = step;
                        written.clear();
                        torn.clear();
                    }
                    for (sector, step) in std::mem::take(&mut pending) {
                        known.insert(sector, step);
                        lost.remove(&sector);
                    }
                    long = blocks * 8;
                    known.retain(|sector, _| *sector < long);
                    lost.retain(|sector| *sector < long);
                }
                Deed::Kill | Deed::Cut(_) => {
                    if let Deed::Cut(seed) = deed {
                        disk = disk.crash(&mut Dice::fates(seed));
                    }
                    backend = IndexBackend(guard(&disk));
                    let mut found = [0; 320];
                    backend.read(0, &mut found).unwrap();
                    let found = u64::from_le_bytes(found[16..24].try_into().unwrap());
                    torn.append(&mut written);
                    prop_assert!(found == synced || torn.contains(&found), "{found}, not {synced} nor {torn:?}");
                    synced = found;
                    if matches!(deed, Deed::Kill) {
                        known.extend(std::mem::take(&mut pending));
                    }
                    lost.extend(std::mem::take(&mut pending).into_keys());
                    // A file that was plain may be longer than redb left it.
                    let len = backend.len().unwrap() / SECTOR as u64;
                    prop_assert!(len == long || (len > long && plain));
                    backend.set_len(long * SECTOR as u64).unwrap();
                }
            }
            for (sector, step) in known.iter().filter(|(sector, _)| !lost.contains(sector) && !pending.contains_key(sector)) {
                let mut found = [0; SECTOR];
                backend.read(*sector * SECTOR as u64, &mut found).unwrap();
                prop_assert_eq!(&found[..8], step.to_le_bytes());
            }
        }
    }
}
