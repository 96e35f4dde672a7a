//! Mailboxes: create, rename, delete, subscribe.

use super::*;

fn listed(rig: &Rig, account: AccountId) -> Vec<String> {
    rig.reader().mailboxes(account).unwrap().into_iter().map(|mailbox| mailbox.name.as_str().to_owned()).collect()
}

#[test]
fn an_account_begins_with_standard_mailboxes() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    assert_eq!(listed(&rig, ann), ["INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"]);
    let mailboxes = rig.reader().mailboxes(ann).unwrap();
    assert!(mailboxes.iter().all(|mailbox| mailbox.subscribed));
    assert_eq!(mailboxes[4].special_use, Some(SpecialUse::Sent));
    assert_eq!(mailboxes[0].special_use, None);
}

#[test]
fn create_makes_missing_parents_and_refuses_a_taken_name() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let create = |name| rig.store.create_mailbox(ann, mailbox_name(name), None).wait();
    create("a/b/c").unwrap();
    assert_eq!(listed(&rig, ann)[6..], ["a", "a/b", "a/b/c"]);
    assert_eq!(create("a/b"), Err(WriteError::Exists));
    assert_eq!(create("inbox"), Err(WriteError::Exists));
    let nobody = rig.store.create_mailbox(AccountId(9), mailbox_name("x"), None).wait();
    assert_eq!(nobody, Err(WriteError::NoSuchAccount));
}

#[test]
fn delete_refuses_inbox_and_parents_and_removes_all_messages() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let delete = |name| rig.store.delete_mailbox(ann, mailbox_name(name)).wait();
    let work = rig.store.create_mailbox(ann, mailbox_name("work"), None).wait().unwrap();
    rig.store.create_mailbox(ann, mailbox_name("work/sub"), None).wait().unwrap();
    rig.store.create_mailbox(ann, mailbox_name("workshop"), None).wait().unwrap();
    for number in 0..600_u32 {
        rig.store.append(work, vec![rig.letter(&number.to_le_bytes())]).wait().unwrap();
    }
    rig.deliver(b"stays", &[ann]);
    rig.store.copy(work, uids(&[3]), inbox).wait().unwrap();
    assert!(matches!(delete("INBOX"), Err(WriteError::NotAllowed(_))));
    assert!(matches!(delete("work"), Err(WriteError::NotAllowed(_))));
    assert_eq!(delete("none"), Err(WriteError::NoSuchMailbox));
    delete("work/sub").unwrap();
    delete("work").unwrap();
    assert!(rig.reader().mailbox(work).unwrap().is_none());
    assert_eq!(rig.reader().account(ann).unwrap().unwrap().used, Usage { bytes: 9, messages: 2 });
    let killed = rig.killed();
    for rig in [rig, killed] {
        rig.swept();
        check(&rig.store);
        assert_eq!(rig.reader().table(MSG).unwrap().iter().unwrap().count(), 2);
        assert_eq!(rig.body(inbox, 2), 2_u32.to_le_bytes());
    }
}

#[test]
fn a_name_made_again_has_another_uidvalidity() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..5 {
        let id = rig.store.create_mailbox(ann, mailbox_name("again"), None).wait().unwrap();
        assert!(seen.insert(rig.facts(id).uid_validity));
        assert_eq!(seen.last(), Some(&rig.facts(id).uid_validity));
        rig.store.delete_mailbox(ann, mailbox_name("again")).wait().unwrap();
    }
}

#[test]
fn rename_takes_children_along_and_makes_parents() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let rename = |from, to| rig.store.rename_mailbox(ann, mailbox_name(from), mailbox_name(to)).wait();
    let leaf = rig.store.create_mailbox(ann, mailbox_name("a/b/c"), None).wait().unwrap();
    rig.store.create_mailbox(ann, mailbox_name("ab"), None).wait().unwrap();
    rig.store.append(leaf, vec![rig.letter(b"x")]).wait().unwrap();
    let validity = rig.facts(leaf).uid_validity;
    assert!(matches!(rename("a", "a/b/d"), Err(WriteError::NotAllowed(_))));
    assert_eq!(rename("a", "ab"), Err(WriteError::Exists));
    assert_eq!(rename("zz", "yy"), Err(WriteError::NoSuchMailbox));
    rename("a", "x/y").unwrap();
    let rig = rig.killed();
    assert_eq!(listed(&rig, ann)[6..], ["ab", "x", "x/y", "x/y/b", "x/y/b/c"]);
    assert_eq!(rig.facts(leaf).name, mailbox_name("x/y/b/c"));
    assert_eq!(rig.facts(leaf).uid_validity, validity);
    assert_eq!(rig.body(leaf, 1), b"x");
}

#[test]
fn renaming_inbox_moves_its_messages_and_leaves_it_there() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    rig.store.create_mailbox(ann, mailbox_name("INBOX/sub"), None).wait().unwrap();
    rig.deliver(b"one", &[ann]);
    rig.deliver(b"two", &[ann]);
    rig.store.flag(inbox, uids(&[2]), FlagMode::Add, names(SystemFlags::SEEN, &["k"]), None).wait().unwrap();
    rig.store.remove(inbox, uids(&[1])).wait().unwrap();
    rig.store.rename_mailbox(ann, mailbox_name("INBOX"), mailbox_name("old/mail")).wait().unwrap();
    let old = rig.mailbox(ann, "old/mail");
    assert_eq!(rig.mailbox(ann, "INBOX"), inbox);
    assert_eq!((rig.facts(inbox).messages, rig.facts(inbox).uid_next), (0, uid(3)));
    assert_eq!((rig.body(old, 1), rig.flags(old, 1)), (b"two".to_vec(), vec!["Seen".to_owned(), "k".to_owned()]));
    rig.mailbox(ann, "INBOX/sub");
    check(&rig.store);
}

#[test]
fn a_name_may_be_subscribed_that_is_no_mailbox() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    rig.store.subscribe(ann, mailbox_name("ghost"), true).wait().unwrap();
    rig.store.subscribe(ann, mailbox_name("Trash"), false).wait().unwrap();
    rig.store.subscribe(ann, mailbox_name("Trash"), false).wait().unwrap();
    rig.store.delete_mailbox(ann, mailbox_name("Sent")).wait().unwrap();
    let subscribed = rig.reader().subscriptions(ann).unwrap();
    let subscribed = subscribed.iter().map(MailboxName::as_str).collect::<Vec<_>>();
    assert_eq!(subscribed, ["Archive", "Drafts", "INBOX", "Junk", "Sent", "ghost"]);
    let trash = rig.mailbox(ann, "Trash");
    assert!(!rig.facts(trash).subscribed);
}
