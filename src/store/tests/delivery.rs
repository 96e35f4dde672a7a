//! Messages: deliver, append, flag, copy, move, expunge, quotas.

use super::*;

#[test]
fn a_delivered_message_is_there_with_its_facts_after_a_kill() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let placed = rig.deliver(b"Subject: hello\r\n\r\nletter\r\n", &[ann]);
    assert_eq!(placed, [(inbox, uid(1))]);
    let rig = rig.killed();
    let message = rig.reader().message(inbox, uid(1)).unwrap().unwrap();
    assert_eq!((message.size, message.internal_date.offset_mins), (26, 60));
    assert_eq!(rig.body(inbox, 1), b"Subject: hello\r\n\r\nletter\r\n");
    assert_eq!(rig.reader().structure(inbox, uid(1)).unwrap(), Some(Structure::default()));
    assert_eq!(rig.facts(inbox).uid_next, uid(2));
    check(&rig.store);
}

#[test]
fn several_accounts_share_one_body_and_the_last_removal_removes_it() {
    let rig = Rig::new();
    let (ann, ann_inbox) = rig.account("ann");
    let (bob, bob_inbox) = rig.account("bob");
    let to =
        vec![(ann, Folder::Inbox), (bob, Folder::Special(SpecialUse::Junk)), (bob, Folder::Named(mailbox_name("no")))];
    let placed = rig.store.deliver(rig.letter(b"to both"), to).wait().unwrap();
    assert_eq!(placed, [(ann_inbox, uid(1)), (rig.mailbox(bob, "Junk"), uid(1)), (bob_inbox, uid(1))]);
    let number = |mailbox| rig.reader().message(mailbox, uid(1)).unwrap().unwrap().blob;
    assert_eq!(number(ann_inbox), number(bob_inbox));
    check(&rig.store);
    let shared = number(ann_inbox);
    for (mailbox, _) in placed {
        assert_eq!(read_body(&rig.store, shared), b"to both");
        assert_eq!(rig.store.remove(mailbox, uids(&[1])).wait(), Ok(uids(&[1])));
        check(&rig.store);
    }
    assert!(rig.store.body(shared).is_err());
}

#[test]
fn a_delivery_is_for_all_or_for_none() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let to = vec![(ann, Folder::Inbox), (AccountId(99), Folder::Inbox)];
    let refused = rig.store.deliver(rig.letter(b"x"), to).wait();
    assert_eq!(refused, Err(WriteError::NoSuchAccount));
    assert_eq!(rig.facts(inbox).messages, 0);
    check(&rig.store);
}

#[test]
fn a_quota_counts_bytes_and_messages() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    rig.store.set_quota(ann, Quota { bytes: Some(10), messages: Some(2) }).wait().unwrap();
    let to = || vec![(ann, Folder::Inbox)];
    assert_eq!(rig.store.deliver(rig.letter(b"12345678901"), to()).wait(), Err(WriteError::OverQuota));
    rig.deliver(b"123456", &[ann]);
    assert_eq!(rig.store.deliver(rig.letter(b"12345"), to()).wait(), Err(WriteError::OverQuota));
    assert_eq!(rig.store.copy(inbox, uids(&[1]), inbox).wait(), Err(WriteError::OverQuota));
    rig.deliver(b"1234", &[ann]);
    assert_eq!(rig.store.append(inbox, vec![rig.letter(b"")]).wait(), Err(WriteError::OverQuota));
    // Moving within the account needs no room.
    let trash = rig.mailbox(ann, "Trash");
    rig.store.relocate(inbox, uids(&[1, 2]), trash).wait().unwrap();
    assert_eq!(rig.reader().account(ann).unwrap().unwrap().used, Usage { bytes: 10, messages: 2 });
    rig.store.remove(trash, uids(&[1])).wait().unwrap();
    rig.deliver(b"123456", &[ann]);
    check(&rig.store);
}

#[test]
fn an_append_of_several_is_one_change() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let drafts = rig.mailbox(ann, "Drafts");
    let mut messages = vec![rig.letter(b"one"), rig.letter(b"two"), rig.letter(b"three")];
    messages[1].flags = names(SystemFlags::DRAFT, &["$Work"]);
    let placed = rig.store.append(drafts, messages).wait().unwrap();
    assert_eq!((placed.to, placed.from), (span(1, 3), UidSet::new()));
    assert_eq!(placed.uid_validity, rig.facts(drafts).uid_validity);
    assert_eq!(rig.flags(drafts, 2), ["$Work", "Draft"]);
    let modseqs = rig.reader().messages(drafts, Uid::MIN, Uid::MAX).unwrap().map(|row| row.unwrap().modseq);
    assert_eq!(modseqs.collect::<std::collections::BTreeSet<_>>().len(), 1);
    assert_eq!(rig.store.append(MailboxId(99), vec![]).wait(), Err(WriteError::NoSuchMailbox));
}

#[test]
fn flags_are_added_removed_and_replaced_and_only_changes_count() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    for _ in 0..3 {
        rig.deliver(b"x", &[ann]);
    }
    let flag = |set: UidSet, mode, names, since| rig.store.flag(inbox, set, mode, names, since).wait().unwrap();
    let first = flag(span(1, 9), FlagMode::Add, names(SystemFlags::SEEN, &["$A", "b"]), None);
    assert_eq!(first.changed, span(1, 3));
    assert_eq!(rig.flags(inbox, 1), ["$A", "Seen", "b"]);
    assert_eq!(rig.facts(inbox).unseen, 0);

    let syncs = rig.store.figures().syncs;
    let again = flag(span(1, 3), FlagMode::Add, names(SystemFlags::SEEN, &["B"]), None);
    assert_eq!((again.changed, again.modseq), (UidSet::new(), first.modseq));
    assert_eq!(rig.store.figures().syncs, syncs, "a change of nothing costs no sync");

    let second = flag(uids(&[2]), FlagMode::Replace, names(SystemFlags::DELETED, &["c"]), None);
    assert!(second.modseq > first.modseq);
    assert_eq!(rig.flags(inbox, 2), ["Deleted", "c"]);
    assert_eq!((rig.facts(inbox).deleted, rig.facts(inbox).unseen), (1, 1));

    let third =
        flag(span(1, 3), FlagMode::Remove, names(SystemFlags::default(), &["$a", "nobody"]), Some(first.modseq));
    assert_eq!((third.changed, third.modified), (uids(&[1, 3]), uids(&[2])));
    assert_eq!(rig.flags(inbox, 3), ["Seen", "b"]);
    check(&rig.store);
    check(&rig.killed().store);
}

#[test]
fn a_mailbox_knows_64_keywords() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    rig.deliver(b"x", &[ann]);
    let words = (0..64).map(|number| format!("k{number}")).collect::<Vec<_>>();
    let all = names(SystemFlags::default(), &words.iter().map(String::as_str).collect::<Vec<_>>());
    rig.store.flag(inbox, uids(&[1]), FlagMode::Add, all, None).wait().unwrap();
    let one_more = names(SystemFlags::default(), &["k64"]);
    let refused = rig.store.flag(inbox, uids(&[1]), FlagMode::Add, one_more, None).wait();
    assert_eq!(refused, Err(WriteError::Limit("keywords of the mailbox")));
    let trash = rig.mailbox(ann, "Trash");
    let own = names(SystemFlags::default(), &["own"]);
    rig.store.append(trash, vec![NewMessage { flags: own, ..rig.letter(b"y") }]).wait().unwrap();
    // A copy keeps what there is room for.
    rig.store.copy(inbox, uids(&[1]), trash).wait().unwrap();
    assert_eq!(rig.flags(trash, 2).len(), 63);
}

#[test]
fn a_copy_keeps_flags_by_name_and_a_move_takes_the_messages_away() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let (_, other) = rig.account("bob");
    let archive = rig.mailbox(ann, "Archive");
    for number in 0..4 {
        rig.deliver(format!("letter {number}").as_bytes(), &[ann]);
    }
    rig.store
        .append(archive, vec![NewMessage { flags: names(SystemFlags::SEEN, &["x", "y"]), ..rig.letter(b"old") }])
        .wait()
        .unwrap();
    rig.store.flag(inbox, uids(&[2, 3]), FlagMode::Add, names(SystemFlags::FLAGGED, &["z", "y"]), None).wait().unwrap();

    let copied = rig.store.copy(inbox, uids(&[2, 4, 9]), archive).wait().unwrap();
    assert_eq!((copied.from, copied.to), (uids(&[2, 4]), uids(&[2, 3])));
    assert_eq!(rig.flags(archive, 2), ["Flagged", "y", "z"]);
    assert_eq!(rig.flags(archive, 3), Vec::<String>::new());
    assert_eq!(rig.body(archive, 2), b"letter 1");
    assert_eq!(rig.reader().uids(inbox).unwrap(), span(1, 4));
    check(&rig.store);

    let before = rig.facts(inbox).highest_modseq;
    let moved = rig.store.relocate(inbox, span(2, 3), other).wait().unwrap();
    assert_eq!((moved.from, moved.to), (span(2, 3), span(1, 2)));
    assert_eq!(rig.reader().uids(inbox).unwrap(), uids(&[1, 4]));
    assert_eq!(rig.reader().vanished(inbox, before).unwrap(), span(2, 3));
    assert_eq!(rig.flags(other, 1), ["Flagged", "y", "z"]);
    check(&rig.store);

    // Onto itself: COPY doubles, MOVE gives new uids.
    assert_eq!(rig.store.copy(inbox, uids(&[1]), inbox).wait().unwrap().to, uids(&[5]));
    assert_eq!(rig.store.relocate(inbox, span(1, 5), inbox).wait().unwrap().to, span(6, 8));
    assert_eq!(rig.reader().uids(inbox).unwrap(), span(6, 8));
    assert_eq!(rig.store.copy(inbox, uids(&[1]), archive).wait().unwrap().from, UidSet::new());
    check(&rig.store);
    check(&rig.killed().store);
}

#[test]
fn expunge_removes_what_is_marked_and_of_the_given_uids_only() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    for _ in 0..5 {
        rig.deliver(b"x", &[ann]);
    }
    let syncs = rig.store.figures().syncs;
    assert_eq!(rig.store.expunge(inbox, None).wait(), Ok(UidSet::new()));
    assert_eq!(rig.store.figures().syncs, syncs);
    rig.store.flag(inbox, uids(&[1, 3, 4]), FlagMode::Add, names(SystemFlags::DELETED, &[]), None).wait().unwrap();
    let since = rig.facts(inbox).highest_modseq;
    assert_eq!(rig.store.expunge(inbox, Some(span(2, 3))).wait(), Ok(uids(&[3])));
    assert_eq!(rig.store.expunge(inbox, None).wait(), Ok(uids(&[1, 4])));
    assert_eq!(rig.reader().uids(inbox).unwrap(), uids(&[2, 5]));
    assert_eq!(rig.reader().vanished(inbox, since).unwrap(), uids(&[1, 3, 4]));
    assert_eq!(rig.reader().vanished(inbox, rig.facts(inbox).highest_modseq).unwrap(), UidSet::new());
    rig.swept();
    check(&rig.store);
}

#[test]
fn the_log_of_removals_is_bounded_and_then_answers_with_every_gap() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    rig.deliver(b"x", &[ann]);
    let start = rig.facts(inbox).highest_modseq;
    let mut seqs = Vec::new();
    for number in 0..900_u32 {
        rig.store.append(inbox, vec![rig.letter(b"y")]).wait().unwrap();
        rig.store.remove(inbox, uids(&[number + 2])).wait().unwrap();
        seqs.push(rig.facts(inbox).highest_modseq);
    }
    let reader = rig.reader();
    assert!(reader.table(crate::store::table::VANISH).unwrap().iter().unwrap().count() < 900);
    assert_eq!(reader.vanished(inbox, start).unwrap(), span(2, 901));
    assert_eq!(reader.vanished(inbox, seqs[890]).unwrap(), span(893, 901));
}

#[test]
fn recent_is_claimed_once_and_costs_no_sync() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    rig.deliver(b"x", &[ann]);
    let syncs = rig.store.figures().syncs;
    assert_eq!(rig.store.claim_recent(inbox).wait(), Ok(uid(1)));
    assert_eq!(rig.store.claim_recent(inbox).wait(), Ok(uid(2)));
    assert_eq!(rig.facts(inbox).recent_from, uid(2));
    assert_eq!(rig.store.figures().syncs, syncs);
    rig.deliver(b"x", &[ann]);
    assert_eq!(rig.facts(inbox).recent_from, uid(2));
    rig.store.close().unwrap();
    assert_eq!(rig.killed().facts(inbox).recent_from, uid(2));
}

#[test]
fn a_large_body_is_staged_and_comes_back() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let (bob, _) = rig.account("bob");
    let large = noise(5 << 20, 7);
    rig.deliver(&large, &[ann, bob]);
    let small = rig.deliver(b"after", &[ann]);
    assert_eq!(small, [(inbox, uid(2))]);
    let rig = rig.killed();
    assert!(rig.body(inbox, 1) == large);
    assert_eq!(rig.body(inbox, 2), b"after");
    check(&rig.store);
    let mixed = vec![rig.letter(b"small"), rig.letter(&large[..300_000]), rig.letter(&large[..700_000])];
    rig.store.append(inbox, mixed).wait().unwrap();
    assert!(rig.body(inbox, 5) == large[..700_000]);
    check(&rig.store);
    rig.store.remove_account(bob).wait().unwrap();
    rig.store.remove(inbox, span(1, 5)).wait().unwrap();
    rig.swept();
    check(&rig.store);
    assert!(rig.reader().table(PIECE).unwrap().first().unwrap().is_none());
    assert!(rig.reader().table(TAIL).unwrap().first().unwrap().is_none());
}

#[test]
fn small_messages_overtake_a_large_one() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let large = rig.store.deliver(rig.letter(&noise(8 << 20, 3)), vec![(ann, Folder::Inbox)]);
    let small = rig.store.deliver(rig.letter(b"small"), vec![(ann, Folder::Inbox)]);
    assert_eq!(small.wait().unwrap(), [(inbox, uid(1))]);
    assert_eq!(large.wait().unwrap(), [(inbox, uid(2))]);
}

#[test]
fn large_bodies_that_come_together_share_a_checkpoint() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let letters = (0..8).map(|number| rig.letter(&noise(300_000, number))).collect::<Vec<_>>();
    let checkpoints = rig.store.figures().checkpoints;
    let waiting = letters.into_iter().map(|letter| rig.store.deliver(letter, vec![(ann, Folder::Inbox)]));
    let waiting = waiting.collect::<Vec<_>>();
    for pending in waiting {
        pending.wait().unwrap();
    }
    assert!(rig.store.figures().checkpoints - checkpoints <= 4);
    let rig = rig.killed();
    assert_eq!(rig.reader().uids(inbox).unwrap(), span(1, 8));
    check(&rig.store);
}

#[test]
fn bodies_that_are_smaller_than_a_checkpoint_take_the_journal() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let before = rig.store.figures();
    rig.deliver(&noise(100_000, 1), &[ann]);
    let letters = (0..5).map(|number| rig.letter(&noise(10_000, number))).collect::<Vec<_>>();
    let waiting = letters.into_iter().map(|letter| rig.store.deliver(letter, vec![(ann, Folder::Inbox)]));
    let waiting = waiting.collect::<Vec<_>>();
    for pending in waiting {
        pending.wait().unwrap();
    }
    assert_eq!(rig.store.figures().checkpoints, before.checkpoints);
    let rig = rig.killed();
    assert_eq!(rig.reader().uids(inbox).unwrap(), span(1, 6));
    check(&rig.store);
}

#[test]
fn a_large_message_nobody_can_take_is_refused_before_it_is_staged() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    rig.store.set_quota(ann, Quota { bytes: Some(1 << 20), messages: None }).wait().unwrap();
    let refused = rig.store.deliver(rig.letter(&noise(2 << 20, 3)), vec![(ann, Folder::Inbox)]).wait();
    assert_eq!(refused, Err(WriteError::OverQuota));
    // Two that fit one at a time: the second finds out when it is staged, and is swept.
    let one = rig.store.deliver(rig.letter(&noise(700_000, 1)), vec![(ann, Folder::Inbox)]);
    let two = rig.store.deliver(rig.letter(&noise(700_000, 2)), vec![(ann, Folder::Inbox)]);
    assert_eq!(one.wait().unwrap(), [(inbox, uid(1))]);
    assert_eq!(two.wait(), Err(WriteError::OverQuota));
    rig.swept();
    check(&rig.store);
}

#[test]
fn a_change_wakes_those_who_wait_for_that_account() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let (bob, _) = rig.account("bob");
    // Wakes follow the answers: this one follows those of the accounts' making.
    rig.store.claim_recent(inbox).wait().unwrap();
    let (mut for_ann, for_bob) = (rig.store.watch(ann), rig.store.watch(bob));
    rig.deliver(b"x", &[ann]);
    // The wake follows the answer.
    let until = Instant::now() + Duration::from_secs(5);
    while !for_ann.has_changed().unwrap() && Instant::now() < until {
        std::thread::yield_now();
    }
    assert_eq!(*for_ann.borrow_and_update(), rig.facts(inbox).highest_modseq);
    assert!(!for_bob.has_changed().unwrap());
    rig.store.close().unwrap();
    assert!(for_ann.has_changed().is_err());
}

#[test]
fn a_small_delivery_writes_at_most_12_kib_checkpoints_included() {
    const DELIVERIES: u64 = 2000;
    let rig = Rig::with(StoreConfig { reserve_bytes: 0, ..StoreConfig::default() });
    let (ann, _) = rig.account("ann");
    let before = rig.store.figures();
    for number in 0..DELIVERIES {
        rig.deliver(&noise(3000, number), &[ann]);
    }
    let after = rig.store.figures();
    let bytes = after.journal_written + after.index_written - before.journal_written - before.index_written;
    let (syncs, checkpoints) = (after.syncs - before.syncs, after.checkpoints - before.checkpoints);
    println!("{} bytes a delivery, {syncs} syncs, {checkpoints} checkpoints", bytes / DELIVERIES);
    assert!(checkpoints >= 3);
    assert!(bytes / DELIVERIES <= 12 << 10);
    assert!(syncs <= DELIVERIES * 21 / 20);
}

#[test]
fn a_hundred_waiting_deliveries_share_few_syncs() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let syncs = rig.store.figures().syncs;
    let letters = (0..100).map(|_| rig.letter(b"x")).collect::<Vec<_>>();
    let waiting = letters.into_iter().map(|letter| rig.store.deliver(letter, vec![(ann, Folder::Inbox)]));
    let waiting = waiting.collect::<Vec<_>>();
    for pending in waiting {
        pending.wait().unwrap();
    }
    assert_eq!(rig.reader().uids(inbox).unwrap(), span(1, 100));
    assert!(rig.store.figures().syncs - syncs < 60);
    assert_eq!(rig.store.figures().messages, 100);
}
