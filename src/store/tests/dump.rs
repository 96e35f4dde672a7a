//! A dump of all rows, and a store that is made of it.

use super::*;
use crate::store::blob::BlobRecord;
use crate::store::dump::{About, Row, rows};
use crate::store::load::{Load, MODSEQ_GAP, UID_GAP};
use crate::store::proof::{Findings, Proof};
use crate::store::record::Record;
use crate::store::table::BLOB;
use crate::store::table::SWEEP_STAGED;

/// A dump, as batches.
struct Dumped {
    about: About,
    batches: Vec<Vec<u8>>,
    damaged: u64,
}

impl Dumped {
    fn of(store: &Store, from: u64) -> Self {
        let dump = store.dump().unwrap();
        let mut batches = Vec::new();
        let damaged = dump.run(from, &mut |batch, count| {
            assert_eq!(rows(batch).count(), count as usize);
            batches.push(batch.to_vec());
            Ok(())
        });
        Self { about: dump.about().clone(), batches, damaged: damaged.unwrap() }
    }

    fn each(&self, take: &mut dyn FnMut(&str, &Row<'_>)) {
        for row in self.batches.iter().flat_map(|batch| rows(batch)).map(Option::unwrap) {
            take(&self.about.tables[usize::from(row.table)], &row);
        }
    }

    /// The rows of some tables.
    fn rows(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<(String, Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        self.each(&mut |name, row| {
            if wanted(name) {
                found.push((name.to_owned(), row.key.to_vec(), row.value.to_vec()));
            }
        });
        found
    }

    fn proved(&self) -> Findings {
        let mut proof = Proof::default();
        self.each(&mut |name, row| {
            if name == "blob" {
                proof.list(row);
            }
            proof.see(name, row);
            proof.see_body(name, row);
        });
        proof.finish()
    }

    fn load(&self) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let site = MemorySite::new(folder.path());
        let mut load = Load::begin(Arc::new(site.clone())).unwrap();
        for batch in &self.batches {
            let batch: Vec<Row<'_>> = rows(batch).map(Option::unwrap).collect();
            for (number, name) in (0..).zip(&self.about.tables) {
                load.put(name, number, &batch).unwrap();
            }
        }
        load.finish().unwrap();
        Rig::start(site, folder, config())
    }
}

/// A store with something in every table.
fn full_rig() -> (Rig, AccountId, MailboxId) {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let (bob, _) = rig.account("bob");
    for (number, seed) in (0..40).zip(0..) {
        rig.deliver(&noise(500 * number, seed), &[ann, bob]);
    }
    rig.deliver(&noise(300_000, 7), &[bob]);
    rig.store.remove(inbox, span(3, 5)).wait().unwrap();
    rig.store.flag(inbox, span(7, 9), FlagMode::Add, names(SystemFlags::SEEN, &["$Work"]), None).wait().unwrap();
    rig.store.subscribe(ann, mailbox_name("Nowhere"), true).wait().unwrap();
    rig.store.put_note("some", b"note".to_vec()).wait().unwrap();
    rig.store.save_learned(None, vec![(0, noise(9000, 1)), (7, noise(90, 2))]).wait().unwrap();
    rig.queue(b"far away", &["zoe@far.test", "yan@near.test"], 5000);
    (rig, ann, inbox)
}

#[test]
fn a_loaded_dump_is_the_same_store_with_a_gap_behind_it() {
    let (rig, ann, inbox) = full_rig();
    rig.swept();
    let dumped = Dumped::of(&rig.store, 0);
    assert_eq!(dumped.damaged, 0);
    assert!(dumped.batches.iter().all(|batch| batch.len() <= crate::store::dump::BATCH_BYTES));
    let proved = dumped.proved();
    assert_eq!((proved.accounts, proved.messages, proved.damaged, proved.incomplete), (2, 78, 0, 0));

    let other = dumped.load();
    check(&other.store);
    let unchanged = |name: &str| !matches!(name, "state" | "mbox");
    assert_eq!(Dumped::of(&other.store, 0).rows(&unchanged), dumped.rows(&unchanged));
    let (before, after) = (rig.facts(inbox), other.facts(inbox));
    assert_eq!(after.uid_next.get(), before.uid_next.get() + UID_GAP);
    assert_eq!((after.uid_validity, after.highest_modseq), (before.uid_validity, before.highest_modseq));

    // What comes next has numbers that the old store never gave out.
    let seen = ModSeq(rig.store.shared.applied.load(Ordering::Acquire));
    let (_, uid) = other.deliver(b"next", &[ann])[0];
    assert_eq!(uid, after.uid_next);
    let now = other.facts(inbox).highest_modseq;
    assert!(now.0 > seen.0 + MODSEQ_GAP);
    let known = |since: u64| other.reader().known_since(ModSeq(since)).unwrap().0;
    assert_eq!(known(seen.0), seen.0);
    assert_eq!([seen.0 + 1, seen.0 + MODSEQ_GAP].map(known), [0, 0]);
    assert_eq!([now.0, seen.0 + MODSEQ_GAP + 1].map(known), [now.0, seen.0 + MODSEQ_GAP + 1]);
    assert_eq!(rig.reader().known_since(ModSeq(u64::MAX)).unwrap(), ModSeq(u64::MAX));
    // As any store: a kill takes nothing.
    let again = other.killed();
    check(&again.store);
    assert_eq!(again.facts(inbox).uid_next, other.facts(inbox).uid_next);
}

#[test]
fn a_dump_is_of_one_moment() {
    let (rig, ann, inbox) = full_rig();
    let dump = rig.store.dump().unwrap();
    rig.deliver(b"later", &[ann]);
    rig.store.remove(inbox, span(10, 12)).wait().unwrap();
    let mut messages = 0;
    dump.run(0, &mut |batch, _| {
        let of_messages = |row: &Row<'_>| dump.about().tables[usize::from(row.table)] == "msg";
        messages += rows(batch).map(Option::unwrap).filter(of_messages).count();
        Ok(())
    })
    .unwrap();
    assert_eq!(messages, 78);
}

#[test]
fn a_later_dump_leaves_out_the_bodies_that_are_there_and_not_one_that_was_being_staged() {
    let (rig, ann, _) = full_rig();
    let first = Dumped::of(&rig.store, 0);
    let next = rig.deliver(&noise(20_000, 99), &[ann])[0];
    let later = Dumped::of(&rig.store, first.about.watermark);
    let is_piece = |name: &str| matches!(name, "piece" | "tail" | "structure");
    let bodies = |dumped: &Dumped| {
        let ids = dumped.rows(&is_piece).into_iter().map(|(_, key, _)| u64::from_le_bytes(*key.first_chunk().unwrap()));
        ids.collect::<std::collections::BTreeSet<u64>>()
    };
    let blob = rig.reader().message(next.0, next.1).unwrap().unwrap().blob;
    assert_eq!(bodies(&later).into_iter().collect::<Vec<_>>(), [blob.0]);
    assert_eq!(later.rows(&|name| name == "blob").len(), first.rows(&|name| name == "blob").len() + 1);
    let bytes = |from| rig.store.dump().unwrap().bytes(from).unwrap();
    assert_eq!(bytes(0) - bytes(blob.0), first_bytes(&rig, blob));

    let staged = blob.0 - 3;
    let transaction = rig.store.shared.begin_write().unwrap();
    transaction.open_table(SWEEP).unwrap().insert((SWEEP_STAGED, staged), ()).unwrap();
    transaction.commit().unwrap();
    assert_eq!(rig.store.dump().unwrap().about().watermark, staged);
}

/// Stored bytes of all bodies below this one.
fn first_bytes(rig: &Rig, blob: BlobId) -> u64 {
    let reader = rig.reader();
    let table = reader.table(BLOB).unwrap();
    let rows = table.range(..blob.0).unwrap().map(Result::unwrap);
    rows.map(|(id, value)| BlobRecord::decode(id.value(), value.value()).unwrap().stored).sum()
}

#[test]
fn a_damaged_body_is_counted_and_comes_along_as_it_is() {
    let (rig, ..) = full_rig();
    let transaction = rig.store.shared.begin_write().unwrap();
    {
        let mut pieces = transaction.open_table(PIECE).unwrap();
        let (key, mut value) = {
            let (key, value) = pieces.first().unwrap().unwrap();
            (key.value(), value.value().to_vec())
        };
        value[100] ^= 1;
        pieces.insert(key, value.as_slice()).unwrap();
        let mut tails = transaction.open_table(TAIL).unwrap();
        let last = tails.last().unwrap().unwrap().0.value();
        tails.remove(last).unwrap();
    }
    transaction.commit().unwrap();
    let dumped = Dumped::of(&rig.store, 0);
    assert_eq!(dumped.damaged, 2);
    let proved = dumped.proved();
    assert_eq!((proved.damaged, proved.incomplete), (1, 2));
    let other = dumped.load();
    assert_eq!(Dumped::of(&other.store, 0).damaged, 2);
}

#[test]
fn rows_that_are_no_store_make_none() {
    let folder = tempfile::tempdir().unwrap();
    let site = MemorySite::new(folder.path());
    let load = Load::begin(Arc::new(site.clone())).unwrap();
    assert!(load.finish().unwrap_err().to_string().contains("holds no store"));
    assert!(Load::begin(Arc::new(site)).is_err(), "there is a file already");
    let mut load = Load::begin(Arc::new(MemorySite::new(folder.path()))).unwrap();
    let row = Row { table: 0, key: b"abc", value: b"" };
    assert!(load.put("account", 0, &[row]).is_err());
    let mut load = Load::begin(Arc::new(MemorySite::new(folder.path()))).unwrap();
    assert!(load.put("nothing", 0, &[row]).is_err());
}
