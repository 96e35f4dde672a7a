//! Queued mail: submission, states, what is due when, removal, kills.

use std::collections::BTreeMap;

use super::failure::{Dice, Fuse, fused};
use super::*;
use crate::mail::envelope::{BodyType, Envelope, ForwardPath, Notify, Recipient, ReturnContent, ReversePath};
use crate::mail::queue::{
    Answer, Delivery, Due, NewQueued, QueueId, QueueOrder, Queued, QueuedRecipient, Scheduled, Stage, Submitter,
};
use crate::store::change::Op;

fn recipient(to: &str) -> Recipient {
    let notify = Notify { given: true, failure: true, ..Notify::default() };
    Recipient { path: ForwardPath::Address(address(to)), notify, original: Some(format!("rfc822;{to}")) }
}

pub(super) fn queued(to: &[&str], due: u64) -> NewQueued {
    NewQueued {
        envelope: Envelope {
            from: ReversePath::Address(address("ann@pillar.test")),
            recipients: to.iter().map(|to| recipient(to)).collect(),
            body: BodyType::EightBitMime,
            utf8: true,
            ret: Some(ReturnContent::Headers),
            envelope_id: Some("QQ314159".to_owned()),
        },
        require_tls: true,
        by: Submitter::Account(AccountId(0)),
        due: Due(due),
    }
}

fn state(stage: Stage) -> Delivery {
    let answer = Some(Answer::new("mx.far.test", "450 4.2.0 later"));
    Delivery { stage, attempts: 1, tried: Some(Timestamp(9)), lapsed_secs: 60, delay_told: true, answer }
}

const DELIVERED: Stage = Stage::Delivered(None);

impl Rig {
    pub(super) fn queue(&self, body: &[u8], to: &[&str], due: u64) -> QueueId {
        let submitted = self.store.submit(self.letter(body), Vec::new(), Some(queued(to, due))).wait().unwrap();
        submitted.queued.unwrap()
    }

    fn queued(&self, id: QueueId) -> Option<Queued> {
        self.reader().queued(id).unwrap()
    }

    fn recipients(&self, id: QueueId) -> Vec<QueuedRecipient> {
        self.reader().recipients(id, 0, 9999).unwrap()
    }

    fn update(&self, id: QueueId, number: u32, stage: Stage) -> u32 {
        self.store.update_queued(id, vec![(number, state(stage))]).wait().unwrap()
    }

    fn due(&self, up_to: u64) -> Vec<(QueueId, u32)> {
        self.reader().due(Due(up_to), 999).unwrap().iter().map(|found| (found.id, found.recipient)).collect()
    }
}

#[test]
fn a_queued_message_is_there_with_its_envelope_after_a_kill() {
    let rig = Rig::new();
    let id = rig.queue(b"far away", &["bob@far.test", "eve@near.test"], 5000);
    let rig = rig.killed();
    let found = rig.queued(id).unwrap();
    let asked = queued(&["bob@far.test", "eve@near.test"], 5000);
    let told = (found.from, found.body, found.utf8, found.ret, found.envelope_id, found.require_tls, found.by);
    let Envelope { from, body, utf8, ret, envelope_id, recipients } = asked.envelope;
    assert_eq!(told, (from, body, utf8, ret, envelope_id, true, Submitter::Account(AccountId(0))));
    assert_eq!((found.size, found.recipients, found.unsettled), (8, 2, 2));
    assert!(found.accepted > Timestamp(1_700_000_000));
    assert_eq!(read_body(&rig.store, found.blob), b"far away");
    for (number, (there, recipient)) in (0..).zip(rig.recipients(id).into_iter().zip(recipients)) {
        assert_eq!(there, QueuedRecipient { number, recipient, delivery: Delivery::waiting(Due(5000)) });
    }
    assert_eq!(rig.reader().recipients(id, 1, 5).unwrap().len(), 1);
    assert_eq!(rig.reader().next_due(), Ok(Some(Due(5000))));
    assert_eq!(rig.reader().next_due_after(Due(4999)), Ok(Some(Due(5000))));
    assert_eq!(rig.reader().next_due_after(Due(5000)), Ok(None));
    check(&rig.store);
}

#[test]
fn a_submission_is_delivered_and_queued_as_one_and_its_body_is_kept_once() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let to = || vec![(ann, Folder::Inbox)];
    for (number, size) in [(1, 3000), (2, 400_000)] {
        let body = noise(size, 5);
        let submitted = rig.store.submit(rig.letter(&body), to(), Some(queued(&["bob@far.test"], 1))).wait().unwrap();
        assert_eq!(submitted.placed, [(inbox, uid(number))]);
        let id = submitted.queued.unwrap();
        let blob = rig.reader().message(inbox, uid(number)).unwrap().unwrap().blob;
        assert_eq!(rig.queued(id).unwrap().blob, blob);
        check(&rig.store);
        let rig = rig.killed();
        rig.store.remove(inbox, uids(&[number])).wait().unwrap();
        assert!(read_body(&rig.store, blob) == body, "the queue keeps the body");
        assert_eq!(rig.update(id, 0, DELIVERED), 0);
        assert_eq!(rig.queued(id), None);
        rig.swept();
        check(&rig.store);
        assert!(rig.store.body(blob).is_err());
    }
    // The other way round: the account's copy outlives the queue's.
    let blob = rig.reader().message(inbox, uid(1)).unwrap().unwrap().blob;
    let first = rig.reader().queued_list(None, 1).unwrap().remove(0);
    rig.store.remove_queued(first.id).wait().unwrap();
    assert_eq!(read_body(&rig.store, blob).len(), 3000);
    check(&rig.store);
}

#[test]
fn a_submission_is_for_all_or_for_none() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    rig.store.set_quota(ann, Quota { bytes: Some(10), messages: None }).wait().unwrap();
    let submit = |size, to: u32, new| {
        let to = vec![(AccountId(to), Folder::Inbox)];
        rig.store.submit(rig.letter(&noise(size, 1)), to, Some(new)).wait()
    };
    let far = || queued(&["bob@far.test"], 1);
    assert_eq!(submit(5, 99, far()), Err(WriteError::NoSuchAccount));
    assert_eq!(submit(20, ann.0, far()), Err(WriteError::OverQuota));
    assert_eq!(submit(400_000, ann.0, far()), Err(WriteError::OverQuota));
    assert!(matches!(submit(5, ann.0, queued(&[], 1)), Err(WriteError::NotAllowed(_))));
    let mut postmaster = far();
    postmaster.envelope.recipients[0].path = ForwardPath::Postmaster;
    assert!(matches!(submit(5, ann.0, postmaster), Err(WriteError::NotAllowed(_))));
    let many = vec!["bob@far.test"; QUEUED_RECIPIENTS_MAX + 1];
    assert!(matches!(submit(5, ann.0, queued(&many, 1)), Err(WriteError::Limit(_))));
    assert_eq!(rig.facts(inbox).messages, 0);
    assert_eq!(rig.reader().queued_list(None, 9), Ok(vec![]));
    check(&rig.store);
    // The queue is charged to nobody.
    let alone = rig.store.submit(rig.letter(&noise(2000, 1)), Vec::new(), Some(far())).wait().unwrap();
    assert_eq!(alone.placed, []);
    // The large one was refused before any of it was staged: this is the first body.
    assert_eq!(rig.queued(alone.queued.unwrap()).unwrap().blob, BlobId(0));
    let nothing = rig.store.submit(rig.letter(b"x"), Vec::new(), None).wait().unwrap();
    assert_eq!((nothing.placed.len(), nothing.queued), (0, None));
    check(&rig.store);
}

#[test]
fn one_message_with_several_envelopes_is_kept_once() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let mut other = queued(&["eve@far.test", "sam@far.test"], 2);
    other.envelope.from = ReversePath::Null;
    let to = vec![(ann, Folder::Inbox)];
    let both = rig.store.submit(rig.letter(b"x"), to, [queued(&["bob@far.test"], 1), other]).wait().unwrap();
    let later = rig.queue(b"y", &["kim@far.test"], 3);
    let [one, two] = both.all_queued[..] else { panic!("{both:?}") };
    assert!(one < two && two < later && both.queued == Some(one), "{both:?} {later}");
    let rig = rig.killed();
    let (first, second) = (rig.queued(one).unwrap(), rig.queued(two).unwrap());
    assert_eq!((first.blob, first.recipients, second.recipients), (second.blob, 1, 2));
    assert_eq!((second.from, rig.facts(inbox).messages), (ReversePath::Null, 1));
    check(&rig.store);
    rig.store.remove_queued(one).wait().unwrap();
    check(&rig.store);
    assert_eq!(rig.due(9), [(two, 0), (two, 1), (later, 0)]);
}

/// A message for ann and bob, a list's copy of it for bob and for others' servers, and what tells ann of it.
fn group(rig: &Rig, sizes: [usize; 3], ann: AccountId, bob: AccountId) -> Vec<Parcel> {
    let parcel = |seed, size, to: &[AccountId], queued: Vec<NewQueued>| Parcel {
        message: rig.letter(&noise(size, seed)),
        local: to.iter().map(|account| (*account, Folder::Inbox)).collect(),
        queued,
        held: seed == 2,
    };
    let [first, second, third] = sizes;
    vec![
        parcel(1, first, &[ann, bob], vec![queued(&["eve@far.test"], 1)]),
        parcel(2, second, &[bob], vec![queued(&["sam@far.test", "kim@near.test"], 2)]),
        parcel(3, third, &[], Vec::new()),
        parcel(4, third, &[ann], Vec::new()),
    ]
}

/// Bodies that take the journal, that are staged, and both.
const SIZES: [[usize; 3]; 3] = [[3000, 2000, 800], [300_000, 300_000, 800], [2000, 600_000, 200_000]];

#[test]
fn several_messages_of_a_submission_are_one_change() {
    for sizes in SIZES {
        let rig = Rig::new();
        let ((ann, for_ann), (bob, for_bob)) = (rig.account("ann"), rig.account("bob"));
        let before = rig.facts(for_ann).highest_modseq;
        let kept = rig.store.submit_all(group(&rig, sizes, ann, bob)).wait().unwrap();
        assert_eq!(kept.placed, [(for_ann, uid(1)), (for_bob, uid(1)), (for_bob, uid(2)), (for_ann, uid(2))]);
        let [one, two] = kept.all_queued[..] else { panic!("{kept:?}") };
        let rig = rig.killed();
        assert_eq!(rig.facts(for_ann).highest_modseq, rig.facts(for_bob).highest_modseq);
        assert!(rig.facts(for_ann).highest_modseq > before && two.0 == one.0 + 1);
        assert!(rig.body(for_bob, 2) == noise(sizes[1], 2) && rig.body(for_ann, 2) == noise(sizes[2], 4));
        assert!(read_body(&rig.store, rig.queued(two).unwrap().blob) == noise(sizes[1], 2));
        // The second was to be held.
        assert_eq!(rig.due(99), [(one, 0)]);
        assert_eq!(rig.store.order_queued(two, QueueOrder::Release(Due(7))).wait(), Ok(2));
        rig.store.remove_queued(one).wait().unwrap();
        rig.store.remove_queued(two).wait().unwrap();
        rig.swept();
        check(&rig.store);
    }
}

#[test]
fn where_one_message_of_a_submission_has_no_room_none_is_kept() {
    for sizes in SIZES {
        let rig = Rig::new();
        let ((ann, for_ann), (bob, for_bob)) = (rig.account("ann"), rig.account("bob"));
        // Room for what is for ann alone, and not for what tells her of it as well.
        let most = Some((sizes[0] + sizes[2] - 1) as u64);
        rig.store.set_quota(ann, Quota { bytes: most, messages: None }).wait().unwrap();
        assert_eq!(rig.store.submit_all(group(&rig, sizes, ann, bob)).wait(), Err(WriteError::OverQuota));
        assert_eq!((rig.facts(for_ann).messages, rig.facts(for_bob).messages), (0, 0));
        assert_eq!(rig.reader().queued_list(None, 9), Ok(vec![]));
        rig.swept();
        check(&rig.store);
    }
}

#[test]
fn a_power_cut_at_any_write_leaves_all_messages_of_a_submission_or_none() {
    let base = Rig::new();
    let ((ann, for_ann), (bob, for_bob)) = (base.account("ann"), base.account("bob"));
    base.store.close().unwrap();
    let mut dice = Dice(9);
    let (mut none, mut all) = (0, 0);
    for sizes in SIZES {
        for writes in 0..40 {
            let site = base.site.each(&mut MemoryDisk::fork);
            let fuse = Fuse::new(writes);
            let mut acknowledged = false;
            if let Ok(store) = Store::open_on(fused(&site, &fuse), &config()) {
                acknowledged = store.submit_all(group(&base, sizes, ann, bob)).wait().is_ok();
                let _ = store.close();
            }
            let kept = dice.roll(5);
            let found = site.each(&mut |disk| disk.power_cut(&mut || dice.roll(4) < kept));
            let rig = Rig::start(found, tempfile::tempdir().unwrap(), config());
            rig.swept();
            check(&rig.store);
            let there = (rig.facts(for_ann).messages, rig.facts(for_bob).messages, rig.due(99).len());
            let queued = rig.reader().queued_list(None, 9).unwrap().len();
            match there {
                (0, 0, 0) => assert!(!acknowledged && queued == 0, "lost after {writes} writes"),
                (2, 2, 1) => assert_eq!(queued, 2),
                part => panic!("{part:?} after {writes} writes"),
            }
            none += u32::from(queued == 0);
            all += u32::from(queued == 2);
        }
    }
    assert!(none > 10 && all > 10, "{none} and {all}: the cuts fell beside");
}

#[test]
fn a_full_disk_refuses_mail_for_the_queue_but_not_its_progress() {
    let rig = Rig::new();
    let id = rig.queue(b"x", &["bob@far.test", "eve@far.test"], 1);
    rig.store.close().unwrap();
    let full = StoreConfig { reserve_bytes: u64::MAX, ..config() };
    let store = Store::open_on(Arc::new(rig.site.clone()), &full).unwrap();
    let more = store.submit(rig.letter(b"y"), Vec::new(), Some(queued(&["bob@far.test"], 1)));
    assert_eq!(more.wait(), Err(WriteError::DiskFull));
    assert_eq!(store.update_queued(id, vec![(0, state(DELIVERED))]).wait(), Ok(1));
    store.remove_queued(id).wait().unwrap();
    check(&store);
}

#[test]
fn states_are_kept_over_a_kill_and_the_last_settled_recipient_ends_the_message() {
    let rig = Rig::new();
    let id = rig.queue(b"x", &["a@far.test", "b@far.test", "c@far.test", "d@far.test"], 10);
    assert_eq!(rig.update(id, 0, Stage::Waiting(Due(900))), 4);
    assert_eq!(rig.update(id, 1, DELIVERED), 3);
    assert_eq!(rig.update(id, 2, Stage::Failed(Some(Due(20)))), 3);
    assert_eq!(rig.store.order_queued(id, QueueOrder::Hold).wait(), Ok(2));
    assert_eq!(rig.due(u64::MAX), [(id, 2)]);
    check(&rig.store);

    let rig = rig.killed();
    let stages = rig.recipients(id).into_iter().map(|there| there.delivery.stage).collect::<Vec<_>>();
    assert_eq!(stages, [Stage::Held, DELIVERED, Stage::Failed(Some(Due(20))), Stage::Held]);
    assert_eq!(rig.recipients(id)[0].delivery, state(Stage::Held));
    assert_eq!(rig.queued(id).unwrap().unsettled, 3);
    // An attempt that was under way leaves a held recipient held, and who has the message has it.
    assert_eq!(rig.update(id, 3, Stage::Waiting(Due(5))), 3);
    assert_eq!(rig.update(id, 1, Stage::Waiting(Due(5))), 3);
    assert_eq!(rig.due(u64::MAX), [(id, 2)]);

    assert_eq!(rig.store.order_queued(id, QueueOrder::Release(Due(30))).wait(), Ok(2));
    assert_eq!(rig.store.order_queued(id, QueueOrder::Retry(Due(15))).wait(), Ok(2));
    assert_eq!(rig.store.order_queued(id, QueueOrder::Retry(Due(15))).wait(), Ok(0));
    assert_eq!(rig.due(u64::MAX), [(id, 0), (id, 3), (id, 2)]);
    check(&rig.store);
    assert_eq!(rig.store.update_queued(id, vec![(4, state(DELIVERED))]).wait(), Err(WriteError::NoSuchQueued));

    let failed = state(Stage::Failed(None));
    let last = vec![(0, state(DELIVERED)), (3, state(DELIVERED)), (2, failed)];
    assert_eq!(rig.store.update_queued(id, last).wait(), Ok(0));
    assert_eq!((rig.queued(id), rig.recipients(id)), (None, vec![]));
    assert_eq!(rig.reader().next_due(), Ok(None));
    assert_eq!(rig.store.update_queued(id, Vec::new()).wait(), Err(WriteError::NoSuchQueued));
    assert_eq!(rig.store.order_queued(id, QueueOrder::Hold).wait(), Err(WriteError::NoSuchQueued));
    assert_eq!(rig.store.remove_queued(id).wait(), Err(WriteError::NoSuchQueued));
    check(&rig.killed().store);
}

#[test]
fn a_change_of_nothing_costs_no_sync() {
    let rig = Rig::new();
    let id = rig.queue(b"x", &["a@far.test"], 10);
    rig.update(id, 0, Stage::Waiting(Due(20)));
    let syncs = rig.store.figures().syncs;
    assert_eq!(rig.update(id, 0, Stage::Waiting(Due(20))), 1);
    assert_eq!(rig.store.order_queued(id, QueueOrder::Release(Due(1))).wait(), Ok(0));
    assert_eq!(rig.store.figures().syncs, syncs);
}

#[test]
fn a_report_and_what_it_settles_are_one_change() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let id = rig.queue(b"x", &["a@far.test", "b@far.test"], 10);
    rig.update(id, 0, Stage::Failed(Some(Due(20))));
    let told = |number| {
        let states = vec![(number, state(Stage::Failed(None)))];
        rig.store.report(rig.letter(b"it failed"), vec![(ann, Folder::Inbox)], None, id, states).wait()
    };
    assert_eq!(told(0).unwrap().placed, [(inbox, uid(1))]);
    assert_eq!(rig.queued(id).unwrap().unsettled, 1);
    check(&rig.killed().store);
    rig.store.remove_queued(id).wait().unwrap();
    assert_eq!(told(1), Err(WriteError::NoSuchQueued));
    assert_eq!(rig.facts(inbox).messages, 1);
    check(&rig.store);
}

#[test]
fn what_is_due_comes_by_time_and_by_destination() {
    let rig = Rig::new();
    let first = rig.queue(b"1", &["a@slow.test", "a@far.test"], 50);
    let second = rig.queue(b"2", &["b@far.test", "b@[192.0.2.1]", "b@slow.test"], 20);
    let third = rig.queue(b"3", &["c@far.test"], 70);
    assert!(first < second && second < third);
    assert_eq!(rig.reader().next_due(), Ok(Some(Due(20))));
    assert_eq!(rig.due(19), []);
    assert_eq!(rig.due(50), [(second, 0), (second, 1), (second, 2), (first, 0), (first, 1)]);
    assert_eq!(rig.reader().due(Due(99), 2).unwrap().len(), 2);
    let far = Domain::parse("far.test").unwrap();
    let at = |due, id, recipient| Scheduled { due: Due(due), id, recipient };
    assert_eq!(rig.reader().due_at(&far, Due(60), 9), Ok(vec![at(20, second, 0), at(50, first, 1)]));
    assert_eq!(rig.reader().due_at(&far, Due(99), 1), Ok(vec![at(20, second, 0)]));
    let named = |after: Option<&Domain>, max| {
        let found = rig.reader().destinations(after, max).unwrap();
        found.iter().map(|found| format!("{} {}", found.domain, found.first.due.0)).collect::<Vec<_>>()
    };
    assert_eq!(named(None, 9), ["[192.0.2.1] 20", "far.test 20", "slow.test 20"]);
    assert_eq!(
        (named(None, 1), named(Some(&far), 9)),
        (vec!["[192.0.2.1] 20".to_owned()], named(None, 9)[2..].to_vec())
    );
    rig.update(second, 0, Stage::Waiting(Due(60)));
    assert_eq!(named(None, 2)[1], "far.test 50");
    let listed =
        |after, max| rig.reader().queued_list(after, max).unwrap().iter().map(|found| found.id).collect::<Vec<_>>();
    assert_eq!((listed(None, 2), listed(Some(second), 9)), (vec![first, second], vec![third]));
    check(&rig.store);
}

#[test]
fn a_change_of_the_queue_wakes_who_waits_for_it_and_a_delivery_does_not() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let mut watch = rig.store.watch_queue();
    // A change is answered a moment before it wakes; the next one's answer comes after that.
    let mut woken = |rig: &Rig| {
        rig.deliver(b"x", &[ann]);
        let woken = watch.has_changed().unwrap();
        watch.mark_unchanged();
        woken
    };
    assert!(!woken(&rig));
    let id = rig.queue(b"x", &["a@far.test", "b@far.test"], 10);
    assert!(woken(&rig));
    rig.update(id, 0, DELIVERED);
    assert!(woken(&rig));
    rig.store.order_queued(id, QueueOrder::Hold).wait().unwrap();
    assert!(woken(&rig));
    rig.store.remove_queued(id).wait().unwrap();
    assert!(woken(&rig));
    assert!(!woken(&rig));
    rig.store.close().unwrap();
    assert!(rig.store.watch_queue().has_changed().is_err());
}

#[test]
fn what_a_removed_account_submitted_still_goes_out() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let body = noise(300_000, 3);
    let both = rig.store.submit(rig.letter(&body), vec![(ann, Folder::Inbox)], Some(queued(&["a@far.test"], 1)));
    let id = both.wait().unwrap().queued.unwrap();
    rig.store.remove_account(ann).wait().unwrap();
    rig.swept();
    check(&rig.store);
    let found = rig.queued(id).unwrap();
    assert_eq!(found.by, Submitter::Account(ann));
    assert!(read_body(&rig.store, found.blob) == body);
    assert_eq!(rig.update(id, 0, DELIVERED), 0);
    rig.swept();
    check(&rig.store);
    assert!(rig.store.body(found.blob).is_err());
}

#[test]
fn numbers_rise_over_kills_and_removals() {
    let mut rig = Rig::new();
    let mut highest = QueueId(0);
    for _ in 0..4 {
        for _ in 0..3 {
            let id = rig.queue(b"x", &["a@far.test"], 1);
            assert!(id > highest);
            highest = id;
            rig.store.remove_queued(id).wait().unwrap();
        }
        rig = rig.killed();
    }
}

#[test]
fn a_message_of_many_recipients_is_held_released_and_removed_as_a_whole() {
    let rig = Rig::new();
    let to = (0..1500).map(|number| format!("r{number}@d{}.test", number % 7)).collect::<Vec<_>>();
    let kept = |rig: &Rig| rig.store.shared.space.kept.load(Ordering::Relaxed);
    let before = kept(&rig);
    let id = rig.queue(b"list", &to.iter().map(String::as_str).collect::<Vec<_>>(), 10);
    assert_eq!(rig.store.order_queued(id, QueueOrder::Hold).wait(), Ok(1500));
    assert_eq!(rig.reader().next_due(), Ok(None));
    let rig = rig.killed();
    assert_eq!(rig.store.order_queued(id, QueueOrder::Release(Due(20))).wait(), Ok(1500));
    assert_eq!(rig.reader().destinations(None, 99).unwrap().len(), 7);
    check(&rig.store);
    rig.store.remove_queued(id).wait().unwrap();
    assert_eq!(rig.reader().next_due(), Ok(None));
    assert_eq!(kept(&rig), before);
    check(&rig.killed().store);
}

#[test]
fn random_progress_with_power_cuts_agrees_with_a_plain_model() {
    let mut random = 7_u64;
    let mut roll = move |sides: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % sides
    };
    let mut rig = Rig::new();
    let mut model: BTreeMap<QueueId, (u64, Vec<Stage>)> = BTreeMap::new();
    for round in 0..400 {
        let nth = usize::try_from(roll(1 + model.len() as u64)).unwrap();
        let chosen = model.keys().nth(nth).copied();
        match (roll(10), chosen) {
            (9, _) => {
                let kept = roll(4);
                rig = rig.on(&mut |disk| disk.power_cut(&mut || roll(4) < kept));
            }
            (0..=2, _) | (_, None) => {
                let count = 1 + usize::try_from(roll(4)).unwrap();
                let size = if roll(9) == 0 { 250_000 } else { 900 };
                let to = ["a@a.test", "b@b.test", "c@a.test", "d@d.test"];
                let id = rig.queue(&noise(size, round), &to[..count], round);
                model.insert(id, (round, vec![Stage::Waiting(Due(round)); count]));
            }
            (3, Some(id)) => {
                rig.store.remove_queued(id).wait().unwrap();
                model.remove(&id);
            }
            (4, Some(id)) => {
                rig.store.order_queued(id, QueueOrder::Hold).wait().unwrap();
                for stage in &mut model.get_mut(&id).unwrap().1 {
                    *stage = if matches!(stage, Stage::Waiting(_)) { Stage::Held } else { *stage };
                }
            }
            (_, Some(id)) => {
                let stages = &mut model.get_mut(&id).unwrap().1;
                let number = usize::try_from(roll(stages.len() as u64)).unwrap();
                let next = match roll(4) {
                    0 => Stage::Waiting(Due(round)),
                    1 => Stage::Failed(Some(Due(round))),
                    _ => DELIVERED,
                };
                rig.update(id, u32::try_from(number).unwrap(), next);
                stages[number] = match (stages[number], next) {
                    (Stage::Waiting(_), _)
                    | (Stage::Failed(Some(_)), Stage::Failed(_))
                    | (Stage::Held, Stage::Failed(_) | Stage::Delivered(_)) => next,
                    (before, _) => before,
                };
                if stages.iter().all(|stage| stage.is_settled()) {
                    model.remove(&id);
                }
            }
        }
        let listed = rig.reader().queued_list(None, 9999).unwrap();
        assert!(listed.iter().map(|found| found.id).eq(model.keys().copied()), "round {round}");
        for (id, (_, stages)) in &model {
            assert!(rig.recipients(*id).iter().map(|there| there.delivery.stage).eq(stages.iter().copied()));
        }
    }
    rig.swept();
    check(&rig.store);
    for found in rig.reader().queued_list(None, 9999).unwrap() {
        let size = usize::try_from(found.size).unwrap();
        assert!(read_body(&rig.store, found.blob) == noise(size, model[&found.id].0));
    }
}

/// Run with `--nocapture` for the figures.
#[test]
fn a_submission_of_4_kb_costs_one_sync_and_at_most_three_blocks_of_journal() {
    const COUNT: u32 = 300;
    let rig = Rig::with(StoreConfig { cache_bytes: 2 << 20, journal_bytes: 16 << 20, ..config() });
    let (ann, inbox) = rig.account("ann");
    let cost = |what: &str, done: &mut dyn FnMut(u64)| {
        let before = rig.store.figures();
        (0..u64::from(COUNT)).for_each(&mut *done);
        let after = rig.store.figures();
        let each = |before: u64, after: u64| f64::from(u32::try_from(after - before).unwrap()) / f64::from(COUNT);
        let journal = each(before.journal_written, after.journal_written);
        let index = each(before.index_written, after.index_written);
        let syncs = each(before.syncs, after.syncs);
        println!("{what}: journal {journal:.0} B, index {index:.0} B, syncs {syncs:.3}");
        (journal, syncs)
    };
    cost("delivery", &mut |number| drop(rig.deliver(&noise(4000, number), &[ann])));
    cost("message removed", &mut |number| {
        let number = u32::try_from(number + 1).unwrap();
        drop(rig.store.remove(inbox, uids(&[number])).wait().unwrap());
    });
    // Text compresses to about half.
    let text = |number| [noise(2000, number), vec![b' '; 2000]].concat();
    cost("submission of text", &mut |number| {
        rig.queue(&text(number), &["someone@host.example"], number);
    });
    let mut ids = Vec::new();
    let submission = cost("submission to one remote recipient", &mut |number| {
        ids.push(rig.queue(&noise(4000, number), &[&format!("someone@host{}.example", number % 20)], number));
    });
    let mut left = ids.iter();
    let retry = cost("attempt put off", &mut |number| {
        rig.update(*left.next().unwrap(), 0, Stage::Waiting(Due(1_000_000 + number)));
    });
    let mut left = ids.iter();
    cost("delivered and removed", &mut |_| assert_eq!(rig.update(*left.next().unwrap(), 0, DELIVERED), 0));
    assert!(submission.0 <= 3.0 * 4096.0 && submission.1 < 1.1);
    assert!(retry.0 <= 4096.0 + 64.0 && retry.1 < 1.1);
}

/// Run with `--nocapture` for the figures.
#[test]
fn a_hundred_thousand_queued_messages_are_opened_without_being_read() {
    const BATCHES: u64 = 100;
    const BATCH: u32 = 1000;
    let rig = Rig::with(StoreConfig { journal_bytes: 16 << 20, cache_bytes: 2 << 20, ..config() });
    let begun = Instant::now();
    // A thousand messages a change, on one body: the tables are those of as many submissions.
    for batch in 0..BATCHES {
        let letter = Incoming::new(rig.letter(b"short")).unwrap();
        let many = rig.store.plan(move |tables| {
            let mut placing = message::Placing::new(tables);
            let (blob, _) = placing.take(tables, &letter, &[], BATCH)?;
            for number in 0..BATCH {
                let to = format!("someone@host{}.example", number % 200);
                let new = queued(&[&to], batch);
                let id = batch * u64::from(BATCH) + u64::from(number);
                let record = crate::store::queue::record(&new, blob, 5, tables.now, 1);
                placing.ops.push(Op::Enqueue { id, record, recipients: new.envelope.recipients, due: new.due });
            }
            Ok(((), placing.ops))
        });
        many.wait().unwrap();
    }
    println!("queued in {:?}, {} bytes", begun.elapsed(), rig.store.figures().store_bytes);
    let begun = Instant::now();
    let rig = rig.killed();
    println!("opened after a kill in {:?}, the copying of the files included", begun.elapsed());
    let begun = Instant::now();
    let reader = rig.reader();
    assert_eq!(reader.next_due(), Ok(Some(Due(0))));
    println!("next due in {:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(reader.destinations(None, 999).unwrap().len(), 200);
    println!("200 destinations in {:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(reader.due(Due(u64::MAX), 1000).unwrap().len(), 1000);
    println!("1,000 due in {:?}", begun.elapsed());
}
