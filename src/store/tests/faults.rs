//! Faults that are not power cuts, beginning at each operation of a journey in turn: a disk that
//! others fill, writes and reads that fail, a device that turns read-only and comes back.

use super::faulty::{Fault, Medium};
use std::collections::BTreeMap;

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
    large: usize,
    ann: AccountId,
    inbox: MailboxId,
    /// Messages by uid: what must be there, and `None` where a removal was refused halfway known.
    kept: BTreeMap<u32, Vec<u8>>,
    /// Uids whose fate a refused removal leaves open.
    open: Vec<u32>,
    refused: Vec<WriteError>,
}

impl Trip {
    /// Begins on a copy of `base`, which must be closed, with large mail of `large` bytes.
    fn on(base: &Rig, ann: AccountId, inbox: MailboxId, large: usize) -> Self {
        let medium = Medium::new(base.site.each(&mut MemoryDisk::fork), CAPACITY);
        let store = Store::open_on(Arc::new(medium.clone()), &base.config).unwrap();
        let mut trip = Self {
            medium,
            store,
            folder: tempfile::tempdir().unwrap(),
            large,
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
        for round in 0..2_u32 {
            for number in 0..4_u64 {
                self.deliver(noise(4000, u64::from(round) * 100 + number));
                self.look(false);
            }
            self.flag(1 + round);
            self.deliver(noise(self.large, 7 + u64::from(round)));
            let made = self.store.create_mailbox(self.ann, mailbox_name(&format!("Box{round}")), None).wait();
            self.note(made);
            let all = self.kept.keys().copied().collect::<Vec<_>>();
            self.remove(&all[..3.min(all.len())]);
            self.look(false);
        }
    }

    /// Everything acknowledged can be read: the newest message, or all of it. A read that is under
    /// way when the store is opened anew breaks off, and is answered when it is asked again.
    fn look(&self, all: bool) {
        for _ in 0..5 {
            if self.read(all).is_ok() {
                return;
            }
        }
        self.read(all).unwrap();
    }

    fn read(&self, all: bool) -> Result<(), ReadError> {
        let reader = self.store.reader()?;
        let there = reader.uids(self.inbox)?;
        assert!(self.kept.keys().all(|number| there.contains(uid(*number))));
        let known = |number: Uid| self.kept.contains_key(&number.get()) || self.open.contains(&number.get());
        assert!(there.iter().all(known), "more is there than was acknowledged");
        for (number, body) in self.kept.iter().rev().take(if all { usize::MAX } else { 1 }) {
            let message = reader.message(self.inbox, uid(*number))?.unwrap();
            let (mut open, mut bytes) = (self.store.body(message.blob)?, Vec::new());
            while (bytes.len() as u64) < open.len() {
                bytes.extend_from_slice(open.read(bytes.len() as u64, 65_536)?);
            }
            assert!(bytes == *body, "message {number}");
        }
        Ok(())
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

/// Large mail that goes through the staging.
const LARGE: usize = 250_000;

/// A store with twelve messages of `size` bytes, closed.
fn base(size: usize) -> (Rig, AccountId, MailboxId) {
    let base = Rig::with(small());
    let (ann, inbox) = base.account("ann");
    for number in 0..12 {
        base.deliver(&noise(size, 1000 + number), &[ann]);
    }
    base.store.close().unwrap();
    (base, ann, inbox)
}

/// How many operations and reads the journey has.
fn length(base: &Rig, ann: AccountId, inbox: MailboxId, large: usize) -> (u64, u64) {
    let mut trip = Trip::on(base, ann, inbox, large);
    let before = trip.medium.counts();
    trip.go();
    assert_eq!(trip.refused, []);
    let after = trip.medium.counts();
    trip.reopened();
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn a_disk_that_others_fill_at_any_operation_keeps_its_mail_and_lets_delete() {
    let (base, ann, inbox) = base(300_000);
    let (operations, _) = length(&base, ann, inbox, LARGE);
    assert!(operations > 100, "{operations}");
    let mut refusals = 0;
    for at in 0..operations {
        let mut trip = Trip::on(&base, ann, inbox, LARGE);
        trip.medium.fail_after(at, Fault::Fill);
        trip.go();
        assert!(trip.refused.iter().all(|error| *error == WriteError::DiskFull), "at {at}: {:?}", trip.refused);
        refusals += trip.refused.len();
        // Flags and removals work on the full disk, and make room again.
        trip.refused.clear();
        let all = trip.kept.keys().copied().collect::<Vec<_>>();
        for some in all.chunks(2).take(2) {
            assert!(trip.remove(some), "at {at}: {:?}", trip.refused);
        }
        let left = *trip.kept.keys().next().unwrap();
        assert!(trip.flag(left), "at {at}: {:?}", trip.refused);
        trip.look(false);
        assert!(trip.deliver(noise(4000, 5)), "at {at}: no room after removals: {:?}", trip.refused);
        // So does room from outside, and then large mail.
        trip.medium.heal();
        assert!(trip.deliver(noise(300_000, 6)), "at {at}: {:?}", trip.refused);
        assert_eq!(trip.store.shared.ballast.missing(), 0);
        trip.look(true);
        if at % 4 == 0 {
            trip.reopened();
        }
    }
    assert!(refusals as u64 > operations, "{refusals} refusals: the disk was hardly full");
}

#[test]
fn a_disk_that_others_fill_faster_than_we_give_keeps_what_was_acknowledged_readable() {
    let (base, ann, inbox) = base(5000);
    let (operations, _) = length(&base, ann, inbox, LARGE);
    let mut refusals = 0;
    for at in 0..operations {
        let mut trip = Trip::on(&base, ann, inbox, LARGE);
        trip.medium.fail_after(at, Fault::FillOn);
        trip.go();
        assert!(trip.refused.iter().all(|error| *error == WriteError::DiskFull), "at {at}: {:?}", trip.refused);
        refusals += trip.refused.len();
        trip.look(true);
        trip.medium.heal();
        recovered(&mut trip, at);
        trip.look(true);
        assert!(trip.deliver(noise(300_000, 6)), "at {at}: {:?}", trip.refused);
        assert_eq!(trip.store.shared.ballast.missing(), 0);
        check(&trip.store);
        trip.reopened();
    }
    assert!(refusals as u64 > operations, "{refusals} refusals: the disk was hardly full");
}

/// Waits until a write works again: an attempt that failed is not repeated at once.
fn recovered(trip: &mut Trip, at: u64) {
    let until = Instant::now() + Duration::from_secs(20);
    while !trip.flag(*trip.kept.keys().next().unwrap()) {
        assert!(Instant::now() < until, "at {at}: {:?}", trip.refused);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn one_failed_write_anywhere_costs_at_most_one_answer() {
    let (base, ann, inbox) = base(5000);
    let (operations, _) = length(&base, ann, inbox, LARGE);
    for at in 0..operations {
        let mut trip = Trip::on(&base, ann, inbox, LARGE);
        trip.medium.fail_after(at, Fault::ErrorOnce);
        trip.go();
        // The store was open again before anybody was answered.
        assert!(trip.refused.len() <= 1, "at {at}: {:?}", trip.refused);
        assert!(trip.refused.iter().all(|error| matches!(error, WriteError::Storage(_))), "at {at}");
        trip.look(true);
        check(&trip.store);
        trip.reopened();
    }
}

#[test]
fn one_failed_read_anywhere_is_over_with_the_next() {
    let (base, ann, inbox) = base(5000);
    let (_, reads) = length(&base, ann, inbox, LARGE);
    assert!(reads > 50, "{reads}");
    for at in 0..reads {
        let mut trip = Trip::on(&base, ann, inbox, LARGE);
        trip.medium.fail_read_after(at);
        let mut refused = 0;
        for number in 0..6 {
            refused += u32::from(!trip.deliver(noise(4000, number)));
            let store = trip.store.clone();
            let all = move || {
                let reader = store.reader()?;
                let found = reader.messages(inbox, Uid::MIN, Uid::MAX)?.collect::<Result<Vec<_>, _>>()?;
                found.iter().try_for_each(|found| store.body(found.blob)?.read(0, 65_536).map(drop))
            };
            refused += u32::from(all().is_err());
        }
        assert!(refused <= 1, "at {at}");
        trip.look(true);
        trip.reopened();
    }
}

#[test]
fn a_device_that_turns_read_only_can_be_read_and_goes_on_when_it_is_back() {
    let (base, ann, inbox) = base(5000);
    let (operations, _) = length(&base, ann, inbox, LARGE);
    for at in (0..operations).step_by(3) {
        let mut trip = Trip::on(&base, ann, inbox, LARGE);
        trip.medium.fail_after(at, Fault::ReadOnly);
        trip.go();
        assert!(trip.medium.has_failed());
        assert!(
            trip.refused.iter().all(|error| matches!(error, WriteError::Storage(_))),
            "at {at}: {:?}",
            trip.refused
        );
        trip.look(true);
        trip.medium.heal();
        recovered(&mut trip, at);
        trip.look(true);
        assert!(trip.deliver(noise(4000, 5)), "at {at}: {:?}", trip.refused);
        check(&trip.store);
        trip.reopened();
    }
}

#[test]
fn a_disk_that_goes_away_and_comes_back_keeps_what_was_acknowledged() {
    let (base, ann, inbox) = base(5000);
    let (operations, _) = length(&base, ann, inbox, LARGE);
    for at in (1..operations).step_by(7) {
        let mut trip = Trip::on(&base, ann, inbox, LARGE);
        trip.medium.fail_after(at, Fault::Gone);
        for number in 0..30 {
            trip.deliver(noise(6000, number));
            if trip.medium.has_failed() {
                break;
            }
        }
        let begun = Instant::now();
        if trip.medium.has_failed() {
            trip.deliver(noise(4000, 77));
            assert!(matches!(trip.store.reader().err(), Some(ReadError::Storage(_))), "at {at}");
            assert!(begun.elapsed() < Duration::from_secs(4), "nobody waits between attempts");
        }
        trip.medium.heal();
        recovered(&mut trip, at);
        trip.look(true);
        check(&trip.store);
        trip.reopened();
    }
}

#[test]
fn a_refused_group_is_left_out_of_every_later_replay() {
    let (base, ann, inbox) = base(5000);
    let mut trip = Trip::on(&base, ann, inbox, LARGE);
    assert!(trip.deliver(noise(3000, 1)));
    // The group is written, its sync fails, and so does the first attempt to open.
    trip.medium.fail_after(1, Fault::Error);
    assert!(!trip.deliver(noise(3000, 2)));
    // It is read all the same, without what was refused.
    trip.look(true);
    trip.medium.heal();
    recovered(&mut trip, 0);
    trip.look(true);
    assert!(trip.deliver(noise(3000, 3)));
    trip.look(true);
    let count = trip.kept.len();
    let found = trip.medium.site().each(&mut MemoryDisk::fork);
    let rig = Rig::start(found, tempfile::tempdir().unwrap(), small());
    assert_eq!(rig.facts(inbox).messages as usize, count);
    trip.reopened();
}

#[test]
fn readers_wait_while_the_store_is_opened_anew() {
    let (base, ann, inbox) = base(5000);
    let mut trip = Trip::on(&base, ann, inbox, LARGE);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let reading = {
        let (store, stop) = (trip.store.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut done = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                // Beginning a read never fails; one that is under way may be broken off.
                let reader = store.reader().unwrap();
                done += u32::from(reader.mailbox(inbox).is_ok());
            }
            done
        })
    };
    for number in 0..20 {
        trip.medium.fail_after(number % 3, Fault::ErrorOnce);
        trip.deliver(noise(3000, number));
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reading.join().unwrap() > 20);
    trip.look(true);
    trip.reopened();
}
