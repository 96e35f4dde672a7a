//! What the scan left behind, and recent mail, as the store keeps them.

use super::check::FULL;
use super::*;
use crate::mail::mailbox::MailboxId;
use crate::mail::scanned::{Print, Scanned};
use crate::mail::structure::Walker;
use crate::store::check::{CheckProgress, CheckStop, CheckWatch, Finding};

#[test]
fn what_the_scan_left_behind_survives_a_pulled_plug_and_a_deep_check() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let bytes = b"Subject: x\r\n\r\nhello\r\n";
    let mut walker = Walker::new();
    walker.feed(bytes);
    let mut message = NewMessage { structure: walker.finish(), ..rig.letter(bytes) };
    let scanned = Scanned { set: 9, whole: true, prints: vec![Print { size: 5, md5: [1; 8], sha256: [2; 8] }] };
    message.body.set_scanned(scanned.clone());
    rig.store.deliver(message, vec![(ann, Folder::Inbox)]).wait().unwrap();
    rig.deliver(b"never scanned", &[ann]);

    let rig = rig.killed();
    let blob = |number| rig.reader().message(inbox, uid(number)).unwrap().unwrap().blob;
    assert_eq!(rig.reader().scanned(blob(1)).unwrap(), Some(scanned));
    assert_eq!(rig.reader().scanned(blob(2)).unwrap(), None);
    assert_eq!(rig.reader().scanned(BlobId(99)).unwrap(), None);
    assert_eq!(rig.reader().structure(inbox, uid(1)).unwrap().unwrap().size(), bytes.len() as u64);
    rig.store.remove(inbox, UidSet::of_range(uid(2), uid(2))).wait().unwrap();
    let report = rig.store.check(&FULL, &CheckStop::default(), &mut Nobody).unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[test]
fn recent_bodies_come_in_order_whatever_mailbox_they_stand_in() {
    let rig = Rig::new();
    let ((ann, inbox), (bob, _)) = (rig.account("ann"), rig.account("bob"));
    let places: Vec<(MailboxId, Uid)> = (0..6).flat_map(|_| rig.deliver(b"x", &[ann])).collect();
    let shared = rig.deliver(b"both", &[ann, bob]);
    rig.store.relocate(inbox, UidSet::of_range(uid(2), uid(3)), rig.mailbox(ann, "Archive")).wait().unwrap();
    let all = rig.reader().recent_bodies(Timestamp(0), BlobId(0), 99, None).unwrap();
    assert_eq!(all.len(), places.len() + 1);
    assert!(all.is_sorted());
    assert_eq!(rig.reader().recent_bodies(Timestamp(0), all[2], 3, None).unwrap(), all[2..5]);
    let without = rig.mailbox(ann, "Archive");
    assert_eq!(rig.reader().recent_bodies(Timestamp(0), BlobId(0), 99, Some(without)).unwrap().len(), 5);
    // The rig's letters say when they came.
    assert_eq!(rig.reader().recent_bodies(Timestamp(1_000_001), BlobId(0), 99, None).unwrap(), []);
    let found = rig.reader().whereabouts(all[6], Timestamp(0), None).unwrap();
    let found: Vec<_> = found.iter().map(|place| (place.mailbox, place.uid)).collect();
    assert_eq!(found, shared);
}

/// Watches a check without a word.
struct Nobody;

impl CheckWatch for Nobody {
    fn progress(&mut self, _: &CheckProgress) {}

    fn found(&mut self, _: &Finding) {}

    fn repaired(&mut self, _: &Finding, _: &str) {}
}
