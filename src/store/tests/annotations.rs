//! Annotations: what is set is found, bounded, and goes with what it is about.

use super::*;
use crate::mail::annotation::{ANNOTATION_MAX, ANNOTATIONS_MAX, EntryName};
use crate::store::table::ANNOTATION;

fn entry(name: &str) -> EntryName {
    EntryName::new(name).unwrap()
}

fn set(rig: &Rig, account: AccountId, mailbox: Option<MailboxId>, name: &str, value: &str) -> Result<(), WriteError> {
    rig.store.annotate(account, mailbox, vec![(entry(name), Some(value.as_bytes().to_vec()))]).wait()
}

fn found(rig: &Rig, account: AccountId, mailbox: Option<MailboxId>) -> Vec<(String, String)> {
    let all = rig.reader().annotations(account, mailbox).unwrap();
    all.into_iter().map(|one| (one.entry.as_str().to_owned(), String::from_utf8(one.value).unwrap())).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn annotations_are_found_where_they_were_set_and_survive_a_kill() {
    let rig = Rig::new();
    let ((ann, inbox), (bob, _)) = (rig.account("ann"), rig.account("bob"));
    set(&rig, ann, Some(inbox), "/shared/comment", "ours").unwrap();
    set(&rig, ann, Some(inbox), "/private/comment", "mine").unwrap();
    set(&rig, ann, None, "/private/comment", "of all").unwrap();
    assert_eq!(set(&rig, bob, Some(inbox), "/private/comment", "not his"), Err(WriteError::NoSuchMailbox));
    let killed = rig.killed();
    for rig in [&rig, &killed] {
        let wanted = pairs(&[("/private/comment", "mine"), ("/shared/comment", "ours")]);
        assert_eq!(found(rig, ann, Some(inbox)), wanted);
        assert_eq!(found(rig, ann, None), pairs(&[("/private/comment", "of all")]));
        assert_eq!(found(rig, bob, None), []);
        check(&rig.store);
    }
    rig.store.annotate(ann, Some(inbox), vec![(entry("/private/comment"), None)]).wait().unwrap();
    assert_eq!(found(&rig, ann, Some(inbox)), pairs(&[("/shared/comment", "ours")]));
}

#[test]
fn they_go_with_their_mailbox_and_their_account() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let work = rig.store.create_mailbox(ann, mailbox_name("work"), None).wait().unwrap();
    set(&rig, ann, Some(work), "/private/comment", "gone soon").unwrap();
    set(&rig, ann, Some(inbox), "/private/comment", "stays").unwrap();
    set(&rig, ann, None, "/private/comment", "stays").unwrap();
    rig.store.rename_mailbox(ann, mailbox_name("work"), mailbox_name("job")).wait().unwrap();
    assert_eq!(found(&rig, ann, Some(work)).len(), 1);
    rig.store.rename_mailbox(ann, mailbox_name("INBOX"), mailbox_name("old")).wait().unwrap();
    assert_eq!(found(&rig, ann, Some(inbox)), found(&rig, ann, Some(rig.mailbox(ann, "old"))));
    rig.store.delete_mailbox(ann, mailbox_name("job")).wait().unwrap();
    assert_eq!(rig.reader().table(ANNOTATION).unwrap().iter().unwrap().count(), 3);
    rig.store.remove_account(ann).wait().unwrap();
    assert_eq!(rig.reader().table(ANNOTATION).unwrap().iter().unwrap().count(), 0);
    rig.swept();
    check(&rig.store);
}

#[test]
fn an_account_has_room_for_so_many_and_no_more() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let large = "x".repeat(ANNOTATION_MAX);
    assert!(matches!(set(&rig, ann, None, "/private/x", &format!("{large}x")), Err(WriteError::Limit(_))));
    let fit =
        (0..1000).find(|number| set(&rig, ann, Some(inbox), &format!("/private/{number}"), &large).is_err()).unwrap();
    assert!(fit * ANNOTATION_MAX < ANNOTATIONS_MAX && (fit + 2) * ANNOTATION_MAX > ANNOTATIONS_MAX, "{fit}");
    // One in the place of another fits, and so does less.
    set(&rig, ann, Some(inbox), "/private/0", &"y".repeat(ANNOTATION_MAX)).unwrap();
    rig.store.annotate(ann, Some(inbox), vec![(entry("/private/1"), None)]).wait().unwrap();
    set(&rig, ann, None, "/private/more", &large).unwrap();
    // All or none.
    let both = vec![(entry("/private/a"), Some(b"small".to_vec())), (entry("/private/b"), Some(large.into_bytes()))];
    assert!(rig.store.annotate(ann, None, both).wait().is_err());
    assert_eq!(found(&rig, ann, None).len(), 1);
}

#[test]
fn a_damaged_annotation_is_found_and_removed() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    set(&rig, ann, Some(inbox), "/private/comment", "mine").unwrap();
    let key = (ann.0, inbox.0, "/private/comment");
    let damaged = super::check::meddled(&rig, |transaction| {
        let mut table = transaction.open_table(ANNOTATION).unwrap();
        let mut value = table.get(key).unwrap().unwrap().value().to_vec();
        value[2] ^= 1;
        table.insert(key, value.as_slice()).unwrap();
        table.insert((ann.0, 999, "/private/comment"), value.as_slice()).unwrap();
    });
    let report = examine(&damaged.store, &super::check::FULL);
    assert_eq!(report.1.len(), 2, "{report:?}");
    assert_eq!(examine(&damaged.store, &super::check::REPAIR).0.repaired, 2);
    assert_eq!(found(&damaged, ann, Some(inbox)), []);
    assert_eq!(examine(&damaged.store, &super::check::FULL).1, [""; 0]);
}

#[test]
fn a_store_of_schema_3_gets_the_table_when_it_is_opened() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let older = super::check::meddled(&rig, |transaction| {
        transaction.delete_table(ANNOTATION).unwrap();
        let mut state = transaction.open_table(crate::store::table::STATE).unwrap();
        state.insert("schema", 3_u32.to_le_bytes().as_slice()).unwrap();
    });
    set(&older, ann, Some(inbox), "/private/comment", "mine").unwrap();
    assert_eq!(found(&older, ann, Some(inbox)).len(), 1);
    check(&older.store);
}
