//! The ring under test: laps, torn groups, foreign files, and power cuts at any write.
#![allow(clippy::cast_possible_truncation, reason = "lengths are small, and noise is cut on purpose")]

use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::store::disk::{Fate, MemoryDisk, SECTOR};

const STORE: [u8; 16] = *b"0123456789abcdef";
const RING: u64 = 20 * BLOCK;

type Groups = Vec<(u64, u64, Vec<u8>)>;

fn open(disk: &MemoryDisk, applied: u64) -> (Journal, Groups) {
    let mut journal = Journal::open(Arc::new(disk.clone()), STORE, RING).unwrap();
    let mut found = Groups::new();
    journal
        .replay(applied, &mut |first, last, payload| {
            found.push((first, last, payload.to_vec()));
            Ok(())
        })
        .unwrap();
    journal.verify().unwrap();
    (journal, found)
}

fn payload(salt: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|index| ((index ^ salt << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as u8).collect()
}

#[test]
fn what_was_appended_is_replayed_in_order() {
    let disk = MemoryDisk::default();
    let (mut journal, found) = open(&disk, 0);
    assert!(found.is_empty());
    let groups: Groups = [(1, 3, 10), (4, 4, 0), (9, 12, 4040), (13, 13, 4041), (20, 21, 20_000)]
        .map(|(first, last, length)| (first, last, payload(first, length)))
        .to_vec();
    for (first, last, payload) in &groups {
        journal.append(*first, *last, payload).unwrap();
    }
    assert_eq!(journal.volume(), (1 + 1 + 1 + 2 + 5) * BLOCK);
    assert_eq!(open(&disk, 0).1, groups);
    assert_eq!(open(&disk, 12).1, groups[3..]);
    let (mut journal, found) = open(&disk, 21);
    assert!(found.is_empty());
    assert_eq!(journal.volume(), 0);
    journal.append(22, 22, b"next").unwrap();
    assert_eq!(open(&disk, 21).1, [(22, 22, b"next".to_vec())]);
}

#[test]
fn the_file_is_made_whole_and_never_grows() {
    let disk = MemoryDisk::default();
    let (mut journal, _) = open(&disk, 0);
    assert_eq!(disk.len().unwrap(), RING);
    for seq in 1..200 {
        journal.append(seq, seq, &payload(seq, seq as usize * 37)).unwrap();
        journal.checkpointed(seq);
    }
    assert_eq!(disk.len().unwrap(), RING);
}

#[test]
fn many_laps_replay_exactly_what_lies_above_the_checkpoint() {
    let disk = MemoryDisk::default();
    let (mut journal, _) = open(&disk, 0);
    let mut kept = Groups::new();
    let mut applied = 0;
    for seq in 1..1000 {
        let body = payload(seq, (seq * 977 % 13_000) as usize);
        if matches!(journal.append(seq, seq, &body), Err(JournalError::Full)) {
            applied = seq - 1;
            journal.checkpointed(applied);
            kept.clear();
            journal.append(seq, seq, &body).unwrap();
        }
        kept.push((seq, seq, body));
        let mut again = Groups::new();
        let mut take = |first, last, payload: &[u8]| {
            again.push((first, last, payload.to_vec()));
            Ok(())
        };
        journal.each(&mut take).unwrap();
        assert_eq!(again, kept, "{seq}");
        assert_eq!(open(&disk, applied).1, kept, "{seq}");
    }
}

#[test]
fn groups_above_the_checkpoint_are_never_overwritten() {
    let disk = MemoryDisk::default();
    let (mut journal, _) = open(&disk, 0);
    let max = journal.payload_max() as usize;
    assert!(matches!(journal.append(1, 1, &payload(1, max + 1)), Err(JournalError::TooLarge)));
    journal.append(1, 1, &payload(1, max)).unwrap();
    journal.append(2, 2, &payload(2, max)).unwrap();
    assert!(matches!(journal.append(3, 3, b""), Err(JournalError::Full)));
    journal.checkpointed(1);
    journal.append(3, 3, &payload(3, max)).unwrap();
    assert!(matches!(journal.append(4, 4, b""), Err(JournalError::Full)));
    assert_eq!(open(&disk, 1).1, [(2, 2, payload(2, max)), (3, 3, payload(3, max))]);
}

#[test]
fn a_group_torn_anywhere_ends_the_replay_and_its_place_is_used_again() {
    let disk = MemoryDisk::default();
    let (mut journal, _) = open(&disk, 0);
    journal.append(1, 1, &payload(1, 9000)).unwrap();
    let before = disk.bytes();
    journal.append(2, 2, &payload(2, 9000)).unwrap();
    let after = disk.bytes();
    let sectors: Vec<_> = (0..before.len() / SECTOR)
        .map(|sector| sector * SECTOR..(sector + 1) * SECTOR)
        .filter(|range| before[range.clone()] != after[range.clone()])
        .collect();
    assert!(sectors.len() > 15);
    for torn in &sectors {
        let mut image = after.clone();
        image[torn.clone()].copy_from_slice(&before[torn.clone()]);
        let disk = MemoryDisk::holding(image);
        let (mut journal, found) = open(&disk, 0);
        assert_eq!(found, [(1, 1, payload(1, 9000))]);
        journal.append(2, 2, b"anew").unwrap();
        assert_eq!(open(&disk, 0).1[1..], [(2, 2, b"anew".to_vec())]);
    }
}

#[test]
fn a_whole_group_behind_a_lost_one_is_not_resurrected() {
    let disk = MemoryDisk::default();
    let (mut journal, _) = open(&disk, 0);
    for seq in 1..=3 {
        journal.append(seq, seq, &payload(seq, 100)).unwrap();
    }
    // Group 2 rots away; a new group 2 takes its place, of the same size. Group 3 is still whole.
    let mut image = disk.bytes();
    image[(DATA + BLOCK) as usize + 60] ^= 1;
    let disk = MemoryDisk::holding(image);
    let (mut journal, mut found) = (Journal::open(Arc::new(disk.clone()), STORE, RING).unwrap(), 0);
    let count = &mut |_, _, _: &[u8]| {
        found += 1;
        Ok(())
    };
    journal.replay(0, count).unwrap();
    assert_eq!(found, 1);
    // It is noticed; whoever goes on all the same is not misled.
    assert!(matches!(journal.verify(), Err(JournalError::Damaged(_))));
    journal.append(5, 5, &payload(9, 100)).unwrap();
    assert_eq!(open(&disk, 0).1, [(1, 1, payload(1, 100)), (5, 5, payload(9, 100))]);
}

#[test]
fn a_flipped_bit_anywhere_is_noticed_or_harms_nothing_but_the_last_group() {
    let disk = MemoryDisk::default();
    let (mut journal, _) = open(&disk, 0);
    let mut kept = Groups::new();
    // Several laps, so that an old header block leads nowhere.
    for seq in 1..80 {
        if seq % 9 == 0 {
            journal.checkpointed(seq - 1);
            kept.clear();
        }
        let body = payload(seq, (seq * 977 % 5000) as usize);
        journal.append(seq, seq, &body).unwrap();
        kept.push((seq, seq, body));
    }
    let applied = kept[0].0 - 1;
    assert!(kept.len() > 5);
    assert_eq!(open(&disk, applied).1, kept);
    let (image, mut noticed) = (disk.bytes(), 0);
    for bit in (0..image.len() * 8).step_by(509) {
        let mut image = image.clone();
        image[bit / 8] ^= 1 << (bit % 8);
        let mut found = Groups::new();
        let mut journal = Journal::open(Arc::new(MemoryDisk::holding(image)), STORE, RING).unwrap();
        let take = &mut |first, last, payload: &[u8]| {
            found.push((first, last, payload.to_vec()));
            Ok(())
        };
        journal.replay(applied, take).unwrap();
        if journal.verify().is_err() {
            noticed += 1;
            assert!(found.len() < kept.len() - 1 && kept.starts_with(&found), "{bit}");
        } else {
            assert!(found == kept || found == kept[..kept.len() - 1], "{bit}");
        }
    }
    assert!(noticed > 50, "{noticed}");
}

#[test]
fn another_stores_ring_is_refused() {
    let disk = MemoryDisk::default();
    open(&disk, 0).0.append(1, 1, b"mail").unwrap();
    let other = Journal::open(Arc::new(disk), [9; 16], RING);
    assert!(matches!(other, Err(JournalError::Foreign)));
}

#[test]
fn garbage_is_damage_and_zeros_are_a_ring_that_was_not_finished() {
    let opened = |image: Vec<u8>| Journal::open(Arc::new(MemoryDisk::holding(image)), STORE, RING);
    assert!(matches!(opened(vec![7; 100_000]), Err(JournalError::Damaged(_))));
    assert!(matches!(opened(vec![7; 3]), Err(JournalError::Damaged(_))));
    assert!(opened(vec![0; 3]).is_ok());
    assert!(opened(vec![0; 50_000]).is_ok());

    let disk = MemoryDisk::default();
    open(&disk, 0).0.append(1, 1, b"mail").unwrap();
    let mut image = disk.bytes();
    image[..DATA as usize].fill(0);
    assert!(matches!(opened(image), Err(JournalError::Damaged(_))));
    let mut image = disk.bytes();
    image.truncate(RING as usize - 1);
    assert!(matches!(opened(image), Err(JournalError::Damaged(_))));
}

#[test]
fn an_index_older_than_the_checkpoint_is_refused() {
    let disk = MemoryDisk::default();
    let (mut journal, _) = open(&disk, 0);
    journal.append(1, 5, b"one").unwrap();
    journal.checkpointed(5);
    journal.append(6, 6, b"two").unwrap();
    let mut journal = Journal::open(Arc::new(disk), STORE, RING).unwrap();
    assert!(matches!(journal.replay(4, &mut |_, _, _| Ok(())), Err(JournalError::Damaged(_))));
}

/// Fails every write and sync while told to.
#[derive(Debug)]
struct Failing(MemoryDisk, std::sync::atomic::AtomicBool);

impl Disk for Failing {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        if self.1.load(std::sync::atomic::Ordering::Relaxed) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            self.0.sync()
        }
    }
    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn after_a_failed_sync_nothing_is_taken_until_the_ring_is_read_again() {
    let disk = Arc::new(Failing(MemoryDisk::default(), false.into()));
    let mut journal = Journal::open(disk.clone(), STORE, RING).unwrap();
    assert!(matches!(journal.append(1, 1, b"early"), Err(JournalError::Damaged(_))));
    journal.replay(0, &mut |_, _, _| Ok(())).unwrap();
    disk.1.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(journal.append(1, 1, b"lost?"), Err(JournalError::Disk(_))));
    disk.1.store(false, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(journal.append(1, 1, &payload(1, 9000)), Err(JournalError::Disk(_))));
    let (mut journal, found) = open(&disk.0, 0);
    assert_eq!(found, [(1, 1, b"lost?".to_vec())]);
    journal.append(2, 2, b"kept").unwrap();
    assert_eq!(open(&disk.0, 0).1.len(), 2);
}

/// A ring whose syncs fail now and then, so that the cache shows what the disk has not.
fn reopen(disk: &MemoryDisk, applied: u64, known: &Known) -> (Journal, u64) {
    let mut journal = Journal::reopen(Arc::new(disk.clone()), STORE, RING, known).unwrap();
    let mut last = applied;
    journal
        .replay(applied, &mut |_, seq, _| {
            last = seq;
            Ok(())
        })
        .unwrap();
    journal.verify().unwrap();
    // What an index does that has made it durable.
    journal.checkpointed(last);
    (journal, last)
}

#[test]
fn a_header_block_that_the_cache_alone_has_is_written_anew_before_the_other_one_is() {
    let mut random = 1_u64;
    let mut next = |sides: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % sides
    };
    for round in 0..150 {
        let (disk, mut known) = (MemoryDisk::default(), Known::default());
        let (mut journal, _) = reopen(&disk, 0, &known);
        let (mut seq, mut acknowledged, mut applied) = (0, 0, 0);
        for _ in 0..40 {
            seq += 1;
            if next(3) == 0 {
                applied = acknowledged;
                journal.checkpointed(applied);
            }
            let body = payload(round << 20 | seq, next(12_000) as usize);
            let fails = next(5) == 0;
            journal.disk =
                if fails { Arc::new(Forgetful(disk.clone(), next(1 << 30))) } else { Arc::new(disk.clone()) };
            match journal.append(seq, seq, &body) {
                Ok(()) => acknowledged = seq,
                Err(JournalError::Full) => {}
                Err(JournalError::Disk(_)) => {
                    // The way back may be that of this process, or of one that knows nothing.
                    if next(3) == 0 {
                        known = Known::default();
                    }
                    (journal, applied) = reopen(&disk, applied, &known);
                    acknowledged = acknowledged.max(applied);
                    assert!(applied >= acknowledged);
                    seq = seq.max(applied);
                }
                Err(error) => panic!("{error}"),
            }
            // A cut now: it is a ring still, and leads to all that was acknowledged and isn't applied.
            let mut fates = Forgetful::fates(next(1 << 30));
            let found = disk.crash(&mut fates);
            let mut last = applied;
            let mut cut = Journal::open(Arc::new(found), STORE, RING).unwrap();
            cut.replay(applied, &mut |_, seq, _| {
                last = seq;
                Ok(())
            })
            .unwrap();
            cut.verify().unwrap();
            assert!(last >= acknowledged, "{last} of {acknowledged}, applied {applied}, round {round}");
        }
    }
}

/// Fails every sync, and the disk forgets in part what was written.
#[derive(Debug)]
struct Forgetful(MemoryDisk, u64);

impl Forgetful {
    fn fates(seed: u64) -> impl FnMut() -> Fate {
        let mut random = seed;
        move || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            [Fate::Kept, Fate::Lost, Fate::Garbage][(random >> 40) as usize % 3]
        }
    }
}

impl Disk for Forgetful {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.forget_unsynced(&mut Self::fates(self.1));
        Err(io::ErrorKind::Other.into())
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
    Append {
        length: usize,
        count: u64,
    },
    /// Everything but the last few groups is durable in the index.
    Checkpoint {
        but: usize,
    },
    Reopen,
    /// The power fails during an append; the number seeds which sectors of it are there.
    Cut {
        length: usize,
        seed: u64,
    },
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => (0_usize..18_000, 1_u64..4).prop_map(|(length, count)| Deed::Append { length, count }),
        2 => (0_usize..3).prop_map(|but| Deed::Checkpoint { but }),
        1 => Just(Deed::Reopen),
        3 => (0_usize..30_000, any::<u64>()).prop_map(|(length, seed)| Deed::Cut { length, seed }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_survives_any_power_cut(deeds in prop::collection::vec(deed(), 1..60)) {
        let mut disk = MemoryDisk::default();
        let (mut journal, _) = open(&disk, 0);
        // Groups above the checkpoint, and the checkpoint.
        let (mut model, mut applied, mut seq) = (Groups::new(), 0, 0);
        // No two payloads share sectors, or a lost group could be made whole by its successor.
        for (salt, deed) in (1000..).zip(deeds) {
            match deed {
                Deed::Append { length, count } => {
                    let body = payload(salt, length);
                    match journal.append(seq + 1, seq + count, &body) {
                        Ok(()) => {
                            model.push((seq + 1, seq + count, body));
                            seq += count;
                        }
                        Err(JournalError::Full) => {}
                        Err(error) => prop_assert!(false, "{error}"),
                    }
                }
                Deed::Checkpoint { but } => {
                    let rest = model.split_off(model.len().saturating_sub(but));
                    if let Some((_, last, _)) = model.last() {
                        applied = *last;
                        journal.checkpointed(applied);
                    }
                    model = rest;
                }
                Deed::Reopen => {
                    let (again, found) = open(&disk, applied);
                    prop_assert_eq!(&found, &model);
                    prop_assert_eq!(again.volume(), journal.volume());
                    journal = again;
                }
                Deed::Cut { length, seed } => {
                    let body = payload(salt, length);
                    let seen = Arc::new(Plug(disk.clone(), Mutex::new(Vec::new())));
                    journal.disk = seen.clone();
                    let appended = journal.append(seq + 1, seq + 1, &body).is_ok();
                    let snapshots = std::mem::take(&mut *seen.1.lock().unwrap());
                    if !appended {
                        prop_assert!(snapshots.is_empty());
                        journal.disk = Arc::new(disk.clone());
                        continue;
                    }
                    // The cut comes before one of the syncs returns.
                    let mut random = seed;
                    let mut next = || {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        random >> 33
                    };
                    let (pick, share) = (next() as usize % snapshots.len(), next() % 5);
                    disk = snapshots[pick].power_cut(&mut || next() % 4 < share);
                    let (again, found) = open(&disk, applied);
                    journal = again;
                    if found.len() > model.len() {
                        model.push((seq + 1, seq + 1, body));
                        seq += 1;
                    }
                    prop_assert_eq!(&found, &model);
                }
            }
        }
        prop_assert_eq!(&open(&disk, applied).1, &model);
    }
}

/// Keeps a copy of the disk as it is just before each sync.
#[derive(Debug)]
struct Plug(MemoryDisk, Mutex<Vec<MemoryDisk>>);

impl Disk for Plug {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.lock().unwrap().push(self.0.fork());
        self.0.sync()
    }
    fn try_lock(&self) -> io::Result<bool> {
        Ok(true)
    }
    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}
