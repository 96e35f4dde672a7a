//! The course of a check: beside deliveries, killed in a repair, in slices.

use super::check::{FULL, REPAIR, body_of, flip, house, meddled, reseal};
use super::*;
use crate::store::record::MailboxRecord;
use crate::store::table::MBOX;

#[test]
fn a_check_beside_deliveries_and_removals_raises_no_false_alarm() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let stop = CheckStop::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0_u32;
            while !stop.is_stopped() {
                number += 1;
                let size = if number.is_multiple_of(9) { 300_000 } else { 3000 };
                rig.deliver(&noise(size, number.into()), &[ann, ann]);
                if number.is_multiple_of(3) {
                    rig.store.remove(inbox, span(number.saturating_sub(40).max(1), number)).wait().unwrap();
                }
                if number.is_multiple_of(20) {
                    let name = mailbox_name("Old");
                    rig.store.rename_mailbox(ann, mailbox_name("INBOX"), name.clone()).wait().unwrap();
                    rig.store.delete_mailbox(ann, name).wait().unwrap();
                }
            }
        });
        // Taking apart finds another structure in these letters, so the check is not a deep one.
        let options = CheckOptions { deep: false, shared: true, ..FULL };
        for round in 0..25 {
            let (report, found) = examine(&rig.store, &options);
            assert!(report.is_sound(), "round {round}: {report:?} {found:#?}");
        }
        // Nor has a repair anything to do.
        let (report, done) = examine(&rig.store, &CheckOptions { repair: true, ..options });
        assert!(report.is_sound() && report.repaired == 0, "{report:?} {done:#?}");
        stop.stop();
    });
    assert!(examine(&rig.store, &CheckOptions { deep: false, ..FULL }).0.is_sound());
}

/// Stops the check after so many repairs.
struct Impatient(u32, CheckStop);
impl CheckWatch for Impatient {
    fn progress(&mut self, _: &CheckProgress) {}
    fn found(&mut self, _: &Finding) {}
    fn repaired(&mut self, _: &Finding, _: &str) {
        self.0 = self.0.saturating_sub(1);
        if self.0 == 0 {
            self.1.stop();
        }
    }
}

#[test]
fn a_repair_that_is_killed_goes_on_at_the_next() {
    let (rig, inbox) = house();
    let wrong = meddled(&rig, |transaction| {
        flip(transaction, MSG, (inbox.0, 1), 9);
        flip(transaction, MSG, (inbox.0, 3), 9);
        reseal::<MailboxRecord>(transaction, MBOX, inbox.0, |record| record.unseen = 77);
    });
    wrong.store.close().unwrap();
    for patience in 1..8 {
        let begun = wrong.killed();
        let stop = CheckStop::default();
        begun.store.check(&REPAIR, &stop, &mut Impatient(patience, stop.clone())).unwrap();
        let after = begun.killed();
        let (report, done) = examine(&after.store, &REPAIR);
        assert!(report.is_sound(), "{patience}: {report:?} {done:#?}");
        let accounts = after.reader().accounts().unwrap();
        assert_eq!(accounts.iter().map(|account| account.used.messages).sum::<u64>(), 4);
        assert_eq!(examine(&after.store, &FULL).1, [""; 0]);
    }
}

#[test]
fn bodies_are_read_in_slices_that_go_on_where_the_last_ended() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    for number in 0..20 {
        rig.deliver(&noise(20_000, number), &[ann]);
    }
    let ninth = body_of(&rig, inbox, 9);
    let rig = meddled(&rig, |transaction| flip(transaction, PIECE, (ninth, 0), 100));
    let (mut from, mut slices, mut read) = (BlobId(0), 0, 0);
    let mut seen = Seen::default();
    loop {
        slices += 1;
        let (report, next) = rig.store.check_bodies(from, 100_000, 1 << 30, &CheckStop::default(), &mut seen).unwrap();
        read += report.bodies;
        let Some(next) = next else { break };
        assert!(next > from && report.bytes < 130_000);
        from = next;
    }
    assert_eq!((read, seen.found.len()), (20, 1));
    assert!((4..7).contains(&slices), "{slices}");
}

#[test]
fn a_note_is_written_along_without_a_sync() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let before = rig.store.figures();
    rig.store.put_note_along("scrub", b"5".to_vec()).wait().unwrap();
    // redb may have made the file longer, with a sync; nothing is written into it.
    let after = rig.store.figures();
    assert_eq!((after.journal_written, after.index_written), (before.journal_written, before.index_written));
    assert_eq!(rig.reader().note("scrub").unwrap().as_deref(), Some(&b"5"[..]));
    // A kill loses it, a clean end does not.
    assert_eq!(rig.killed().reader().note("scrub").unwrap(), None);
    rig.deliver(b"x", &[ann]);
    rig.store.close().unwrap();
    assert_eq!(rig.killed().reader().note("scrub").unwrap().as_deref(), Some(&b"5"[..]));
}
