//! Rights: what is given is found by mailbox and by whom, bounded, inherited, and goes with either of them.

use super::check::{flip, meddled, repairs};
use super::*;
use crate::mail::rights::{Grant, Identifier, Rights, RightsMode};
use crate::store::change::Op;
use crate::store::table::{ACL, SHARED};
use crate::store::{ACL_ENTRIES_MAX, SHARED_MAX};

fn rights(letters: &str) -> Rights {
    Rights::parse(letters).unwrap()
}

fn give(rig: &Rig, mailbox: MailboxId, to: Identifier, letters: &str) -> Result<(), WriteError> {
    rig.store.grant(mailbox, to, false, RightsMode::Replace, rights(letters)).wait()
}

fn rows(rig: &Rig) -> (usize, usize) {
    let reader = rig.reader();
    (reader.table(ACL).unwrap().iter().unwrap().count(), reader.table(SHARED).unwrap().iter().unwrap().count())
}

#[test]
fn rights_are_found_both_ways_and_survive_a_kill() {
    let rig = Rig::new();
    let ((ann, inbox), (bob, _), (carol, _)) = (rig.account("ann"), rig.account("bob"), rig.account("carol"));
    let work = rig.store.create_mailbox(ann, mailbox_name("work"), None).wait().unwrap();
    give(&rig, work, Identifier::Account(bob), "lrs").unwrap();
    give(&rig, inbox, Identifier::Anyone, "lr").unwrap();
    rig.store.grant(inbox, Identifier::Account(carol), true, RightsMode::Add, rights("r")).wait().unwrap();
    rig.store.grant(work, Identifier::Account(bob), false, RightsMode::Add, rights("w")).wait().unwrap();
    let killed = rig.killed();
    for rig in [&rig, &killed] {
        let reader = rig.reader();
        assert_eq!(reader.rights(work, bob).unwrap(), rights("lrsw"));
        assert_eq!(reader.rights(work, carol).unwrap(), Rights::NONE);
        assert_eq!(reader.rights(inbox, bob).unwrap(), rights("lr"));
        assert_eq!(reader.rights(inbox, carol).unwrap(), rights("l"), "what is denied is taken away");
        assert_eq!(reader.shared_with(bob).unwrap(), [inbox, work]);
        assert_eq!(reader.shared_with(carol).unwrap(), [inbox]);
        let denied = Grant { given: Rights::NONE, denied: rights("r") };
        let anyone = Grant { given: rights("lr"), denied: Rights::NONE };
        let wanted = [(Identifier::Account(carol), denied), (Identifier::Anyone, anyone)];
        assert_eq!(reader.grants(inbox).unwrap(), wanted);
        check(&rig.store);
    }
    give(&rig, work, Identifier::Account(bob), "").unwrap();
    assert_eq!(rig.reader().shared_with(bob).unwrap(), [inbox]);
    assert_eq!(rows(&rig), (2, 2));
}

#[test]
fn the_owner_is_given_nothing_and_denied_nothing() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    assert!(matches!(give(&rig, inbox, Identifier::Account(ann), "l"), Err(WriteError::NotAllowed(_))));
    assert_eq!(give(&rig, inbox, Identifier::Account(AccountId(77)), "l"), Err(WriteError::NoSuchAccount));
    assert_eq!(give(&rig, MailboxId(77), Identifier::Anyone, "l"), Err(WriteError::NoSuchMailbox));
}

#[test]
fn rights_go_with_their_mailbox_and_with_who_has_them() {
    let rig = Rig::new();
    let ((ann, inbox), (bob, _)) = (rig.account("ann"), rig.account("bob"));
    let work = rig.store.create_mailbox(ann, mailbox_name("work"), None).wait().unwrap();
    for mailbox in [inbox, work] {
        give(&rig, mailbox, Identifier::Account(bob), "lr").unwrap();
        give(&rig, mailbox, Identifier::Anyone, "l").unwrap();
    }
    rig.store.rename_mailbox(ann, mailbox_name("work"), mailbox_name("job")).wait().unwrap();
    assert_eq!(rig.reader().rights(work, bob).unwrap(), rights("lr"));
    rig.store.delete_mailbox(ann, mailbox_name("job")).wait().unwrap();
    assert_eq!(rows(&rig), (2, 2));
    rig.store.remove_account(bob).wait().unwrap();
    assert_eq!(rows(&rig), (1, 1));
    rig.store.remove_account(ann).wait().unwrap();
    assert_eq!(rows(&rig), (0, 0));
    rig.swept();
    check(&rig.store);
}

#[test]
fn what_is_made_below_a_mailbox_has_its_rights() {
    let rig = Rig::new();
    let ((ann, _), (bob, _)) = (rig.account("ann"), rig.account("bob"));
    let work = rig.store.create_mailbox(ann, mailbox_name("work"), None).wait().unwrap();
    give(&rig, work, Identifier::Account(bob), "lrk").unwrap();
    let deep = rig.store.create_mailbox(ann, mailbox_name("work/a/b"), None).wait().unwrap();
    for mailbox in [deep, rig.mailbox(ann, "work/a")] {
        assert_eq!(rig.reader().rights(mailbox, bob).unwrap(), rights("lrk"));
    }
    let other = rig.store.create_mailbox(ann, mailbox_name("other"), None).wait().unwrap();
    assert_eq!(rig.reader().rights(other, bob).unwrap(), Rights::NONE);
    // A mailbox that comes there by RENAME keeps its own.
    rig.store.rename_mailbox(ann, mailbox_name("other"), mailbox_name("work/other")).wait().unwrap();
    assert_eq!(rig.reader().rights(other, bob).unwrap(), Rights::NONE);
    check(&rig.killed().store);
}

#[test]
fn nothing_of_ones_own_is_called_like_what_others_share() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    for name in ["Other Users", "Other Users/bob@pillarbox.test/x"] {
        let made = rig.store.create_mailbox(ann, mailbox_name(name), None).wait();
        assert!(matches!(made, Err(WriteError::NotAllowed(_))), "{made:?}");
        let renamed = rig.store.rename_mailbox(ann, mailbox_name("Archive"), mailbox_name(name)).wait();
        assert!(matches!(renamed, Err(WriteError::NotAllowed(_))), "{renamed:?}");
    }
    rig.store.create_mailbox(ann, mailbox_name("Other Users2"), None).wait().unwrap();
}

#[test]
fn identifiers_of_a_mailbox_and_mailboxes_of_an_identifier_have_bounds() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    for number in 1..ACL_ENTRIES_MAX {
        let (id, _) = rig.account(&format!("a{number}"));
        give(&rig, inbox, Identifier::Account(id), "l").unwrap();
    }
    give(&rig, inbox, Identifier::Anyone, "l").unwrap();
    let (late, _) = rig.account("late");
    assert!(matches!(give(&rig, inbox, Identifier::Account(late), "l"), Err(WriteError::Limit(_))));
    give(&rig, inbox, Identifier::Anyone, "").unwrap();
    give(&rig, inbox, Identifier::Account(late), "l").unwrap();

    // As many rows as there may be, but one, put there as the journal would.
    let ops = (1..SHARED_MAX).map(|number| {
        let mailbox = u32::try_from(1_000_000 + number).unwrap();
        Op::Grant { mailbox, identifier: late.0, grant: Grant { given: rights("l"), denied: Rights::NONE } }
    });
    let ops: Vec<Op> = ops.collect();
    rig.store.plan(move |_| Ok(((), ops))).wait().unwrap();
    let archive = rig.mailbox(ann, "Archive");
    assert!(matches!(give(&rig, archive, Identifier::Account(late), "l"), Err(WriteError::Limit(_))));
}

#[test]
fn what_is_damaged_or_stands_in_one_table_alone_is_found_and_set_right() {
    let rig = Rig::new();
    let ((_, inbox), (bob, _), (carol, _)) = (rig.account("ann"), rig.account("bob"), rig.account("carol"));
    for who in [bob, carol] {
        give(&rig, inbox, Identifier::Account(who), "lr").unwrap();
    }
    give(&rig, inbox, Identifier::Anyone, "l").unwrap();
    let rig = meddled(&rig, |transaction| {
        flip(transaction, ACL, (inbox.0, bob.0), 1);
        let mut shared = transaction.open_table(SHARED).unwrap();
        shared.remove((carol.0, inbox.0)).unwrap();
        shared.insert((carol.0, 999), ()).unwrap();
    });
    let found = [(1, 0, "its record is damaged"), (2, 0, "one of two tables does not know of it")];
    let found = [found[0], found[1], (2, 999, found[1].2)];
    let found =
        found.map(|(who, mailbox, what)| format!("rights of account number {who} on mailbox number {mailbox}: {what}"));
    repairs(
        &rig,
        &found.each_ref().map(String::as_str),
        &found.each_ref().map(|found| format!("{found} -> it was set right")).each_ref().map(String::as_str),
    );
    let reader = rig.reader();
    assert_eq!(reader.rights(inbox, bob).unwrap(), rights("l"), "what can't be read is taken back");
    assert_eq!(reader.rights(inbox, carol).unwrap(), rights("lr"));
    assert_eq!(reader.shared_with(carol).unwrap(), [inbox]);
    assert_eq!(rows(&rig), (2, 2));
}
