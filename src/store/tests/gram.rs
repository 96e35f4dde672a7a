//! The gram index's rows: past the journal, in no backup, and never believed when they are damaged.

use super::*;
use crate::mail::text::{SheetMaker, places_of};

/// Writes a sheet of one body, 1, that holds `text`.
fn put(store: &Store, text: &str) {
    let mut maker = SheetMaker::new(1);
    assert!(maker.begin());
    maker.feed(text);
    assert!(maker.end(1));
    let sheet = maker.finish();
    store.put_sheet(BlobId(1), (1..).zip(sheet.blocks()).collect()).wait().unwrap();
    store.put_sheet(BlobId(1), vec![(0, sheet.head_bytes())]).wait().unwrap();
}

/// Whether the sheet says that body 1 may hold `text`; `None` without a sheet.
fn may_hold(store: &Store, text: &str) -> Option<bool> {
    let grams = store.reader().unwrap().grams().unwrap();
    let (first, head) = grams.sheet_of(BlobId(1)).unwrap()?;
    let mut may = true;
    for place in places_of(text) {
        let (block, range) = head.find_row(place);
        grams.block(first, block, &mut |rows| may &= rows[range.clone()].iter().any(|byte| *byte != 0)).unwrap();
    }
    Some(may)
}

#[test]
fn a_sheet_costs_no_journal_survives_a_clean_close_and_is_forgotten_whole() {
    let rig = Rig::new();
    let before = rig.store.figures();
    put(&rig.store, "a letter about ships");
    let after = rig.store.figures();
    assert_eq!((after.journal_written, after.checkpoints), (before.journal_written, before.checkpoints));
    rig.store.close().unwrap();
    let rig = rig.killed();
    assert_eq!(may_hold(&rig.store, "LETTER"), Some(true));
    assert_eq!(may_hold(&rig.store, "boats"), Some(false));
    check(&rig.store);
    rig.store.forget_sheets(BlobId(0), BlobId(9)).wait().unwrap();
    assert_eq!(may_hold(&rig.store, "letter"), None);
    assert!(rig.reader().grams().unwrap().next_sheet(BlobId(0)).unwrap().is_none());
}

#[test]
fn after_a_power_cut_a_sheet_is_there_as_a_whole_or_not() {
    for kept in 0..4_u64 {
        let rig = Rig::new();
        let (ann, _) = rig.account("ann");
        let mut random = kept;
        put(&rig.store, "a letter about ships");
        (0..20 * kept).for_each(|number| drop(rig.deliver(&noise(9000, number), &[ann])));
        let rig = rig.on(&mut |disk| {
            disk.power_cut(&mut || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % 4 < kept
            })
        });
        assert_ne!(may_hold(&rig.store, "letter"), Some(false));
        assert_ne!(may_hold(&rig.store, "boats"), Some(true));
        check(&rig.store);
    }
}

#[test]
fn no_backup_has_the_index() {
    let rig = Rig::new();
    put(&rig.store, "a letter about ships");
    let dump = rig.store.dump().unwrap();
    let place = dump.about().tables.iter().position(|name| name == "gram").unwrap();
    let mut rows = 0;
    let mut take = |batch: &[u8], _: u32| {
        rows += crate::store::dump::rows(batch).filter(|row| usize::from(row.unwrap().table) == place).count();
        Ok(())
    };
    dump.run(0, &mut take).unwrap();
    assert_eq!(rows, 0);
}
