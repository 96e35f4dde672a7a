//! Faults that are not power cuts, beginning at each operation of a journey in turn: a disk that
//! others fill, writes and reads that fail, a device that turns read-only and comes back.

use super::medium::{Fault, Medium};
use super::*;
use crate::mail::message::FlagMode;

/// Bytes of the medium: enough for the journey and the ballast.
const CAPACITY: u64 = 24 << 20;

fn small() -> StoreConfig {
    StoreConfig { cache_bytes: 256 << 10, journal_bytes: 256 << 10, ..config() }
}

/// A store with an account, on a medium, and what it promised.
struct Trip {
    medium: Medium,
    store: Store,
    folder: TempDir,
    ann: AccountId,
    inbox: MailboxId,
    /// Messages by uid: what must be there, and `None` where a removal was refused halfway known.
    kept: BTreeMap<u32, Vec<u8>>,
    /// Uids whose fate a refused removal leaves open.
    open: Vec<u32>,
    refused: Vec<WriteError>,
}

impl Trip {
    /// Begins on a copy of `base`, which must be closed.
    fn on(base: &Rig, ann: AccountId, inbox: MailboxId) -> Self {
        let medium = Medium::new(base.site.each(&mut MemoryDisk::fork), CAPACITY);
        let store = Store::open_on(Arc::new(medium.clone()), &base.config).unwrap();
        let mut trip = Self {
            medium,
            store,
            folder: tempfile::tempdir().unwrap(),
            ann,
            inbox,
            kept: BTreeMap::new(),
            open: Vec::new(),
            refused: Vec::new(),
        };
        for message in trip.store.reader().unwrap().messages(inbox, Uid::MIN, Uid::MAX).unwrap() {
            let message = message.unwrap();
            trip.kept.insert(message.uid.get(), read_body(&trip.store, message.blob));
        }
        trip
    }

    fn note<T>(&mut self, result: Result<T, WriteError>) -> Option<T> {
        result.map_err(|error| self.refused.push(error)).ok()
    }

    fn deliver(&mut self, body: Vec<u8>) -> bool {
        let to = vec![(self.ann, Folder::Inbox)];
        let done = self.store.deliver(letter(self.folder.path(), &body), to).wait();
        let done = self.note(done);
        if let Some(placed) = &done {
            let before = self.kept.insert(placed[0].1.get(), body);
            assert!(before.is_none(), "uid {:?} was given twice", placed[0].1);
        }
        done.is_some()
    }

    fn flag(&mut self, number: u32) -> bool {
        let flags = names(SystemFlags::FLAGGED, &[]);
        let done = self.store.flag(self.inbox, uids(&[number]), FlagMode::Add, flags, None).wait();
        self.note(done).is_some()
    }

    fn remove(&mut self, numbers: &[u32]) -> bool {
        let done = self.store.remove(self.inbox, uids(numbers)).wait();
        let done = self.note(done);
        for number in numbers {
            self.kept.remove(number).filter(|_| done.is_none()).map(|_| self.open.push(*number));
        }
        done.is_some()
    }

    /// The journey: small and large mail, flags, a copy, a mailbox, removals.
    fn go(&mut self) {
        for round in 0..4_u32 {
            for number in 0..6_u64 {
                self.deliver(noise(4000, u64::from(round) * 100 + number));
                self.look(false);
            }
            self.flag(1 + round);
            self.deliver(noise(250_000, 7 + u64::from(round)));
            let made = self.store.create_mailbox(self.ann, mailbox_name(&format!("Box{round}")), None).wait();
            self.note(made);
            let all = self.kept.keys().copied().collect::<Vec<_>>();
            self.remove(&all[..3.min(all.len())]);
            self.look(true);
        }
    }

    /// Everything acknowledged can be read: the newest message, or all of it.
    fn look(&self, all: bool) {
        let reader = self.store.reader().unwrap();
        let there = reader.uids(self.inbox).unwrap();
        assert!(self.kept.keys().all(|number| there.contains(uid(*number))));
        let known = |number: Uid| self.kept.contains_key(&number.get()) || self.open.contains(&number.get());
        assert!(there.iter().all(known), "more is there than was acknowledged");
        for (number, body) in self.kept.iter().rev().take(if all { usize::MAX } else { 1 }) {
            let message = reader.message(self.inbox, uid(*number)).unwrap().unwrap();
            assert!(read_body(&self.store, message.blob) == *body, "message {number}");
        }
    }

    /// What a new process finds.
    fn reopened(self) {
        let found = self.medium.site().each(&mut MemoryDisk::fork);
        let rig = Rig::start(found, tempfile::tempdir().unwrap(), small());
        rig.swept();
        check(&rig.store);
        for (number, body) in &self.kept {
            assert!(rig.body(self.inbox, *number) == *body, "message {number}");
        }
    }
}

/// A store with a dozen messages, closed.
fn base() -> (Rig, AccountId, MailboxId) {
    let base = Rig::with(small());
    let (ann, inbox) = base.account("ann");
    for number in 0..12 {
        base.deliver(&noise(5000, 1000 + number), &[ann]);
    }
    base.store.close().unwrap();
    (base, ann, inbox)
}

/// How many operations and reads the journey has.
fn length(base: &Rig, ann: AccountId, inbox: MailboxId) -> (u64, u64) {
    let mut trip = Trip::on(base, ann, inbox);
    let before = trip.medium.counts();
    trip.go();
    assert_eq!(trip.refused, []);
    let after = trip.medium.counts();
    trip.reopened();
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn a_disk_that_others_fill_at_any_operation_keeps_its_mail_and_lets_delete() {
    let (base, ann, inbox) = base();
    let (operations, _) = length(&base, ann, inbox);
    assert!(operations > 100, "{operations}");
    for at in 0..operations {
        let mut trip = Trip::on(&base, ann, inbox);
        trip.medium.fail_after(at, Fault::Fill);
        trip.go();
        assert!(trip.refused.iter().all(|error| *error == WriteError::DiskFull), "at {at}: {:?}", trip.refused);
        // Flags and removals work on the full disk, and make room again.
        trip.refused.clear();
        let all = trip.kept.keys().copied().collect::<Vec<_>>();
        for pair in all.chunks(4).take(5) {
            assert!(trip.remove(pair), "at {at}: {:?}", trip.refused);
        }
        let left = *trip.kept.keys().next().unwrap();
        assert!(trip.flag(left), "at {at}: {:?}", trip.refused);
        trip.look(true);
        assert!(trip.deliver(noise(4000, 5)), "at {at}: no room after removals: {:?}", trip.refused);
        // So does room from outside, and then large mail.
        trip.medium.heal();
        assert!(trip.deliver(noise(300_000, 6)), "at {at}: {:?}", trip.refused);
        assert_eq!(trip.store.shared.ballast.missing(), 0);
        trip.look(true);
        trip.reopened();
    }
}
