//! Each question with exactly the rights it needs, without any one of them, and with none: then it is
//! answered as if there were no such mailbox.

use std::sync::Arc;

use super::*;
use crate::mail::address::Address;
use crate::mail::annotation::EntryName;
use crate::mail::mailbox::{ModSeq, SpecialUse, Uid};
use crate::mail::message::{FlagNames, Keyword, SystemFlags, UidSet};
use crate::mail::rights::{Identifier, RightsMode};
use crate::mail::secret::{ScramVerifier, tests::password};
use crate::protocol::imap::metadata::MetadataQuery;
use crate::protocol::imap::request::Search;
use crate::protocol::imap::search::{SearchKey, Threading};
use crate::store::{Quota, StoreConfig};

/// A store where ann has the mailboxes Work, Work/Below and Target.
struct House {
    _folder: tempfile::TempDir,
    store: Store,
    ann: AccountId,
    bob: AccountId,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = StoreConfig { journal_bytes: 1 << 20, reserve_bytes: 0, ..StoreConfig::default() };
        let store = Store::open(folder.path(), &config).unwrap();
        let account = |name: &str| {
            let verifier = ScramVerifier::derive(&password("pencil"), [1; 16], 2);
            store.add_account(Address::parse(name).unwrap(), verifier, Quota::default()).wait().unwrap()
        };
        let (ann, bob) = (account("ann@x.test"), account("bob@x.test"));
        for name in ["Work", "Work/Below", "Target"] {
            store.create_mailbox(ann, named(name), None).wait().unwrap();
        }
        Self { _folder: folder, store, ann, bob }
    }

    fn id(&self, owner: AccountId, name: &str) -> MailboxId {
        self.store.reader().unwrap().mailbox_named(owner, &named(name)).unwrap().unwrap().id
    }

    fn give(&self, name: &str, rights: Rights) {
        let to = Identifier::Account(self.bob);
        let mailbox = self.id(self.ann, name);
        self.store.grant(mailbox, to, false, RightsMode::Replace, rights).wait().unwrap();
    }

    /// What becomes of bob's question: nothing where it is admitted.
    fn ask(&self, request: Request) -> Option<String> {
        admit(&self.store, self.bob, request).err().map(|answer| format!("{answer:?}"))
    }
}

fn named(name: &str) -> MailboxName {
    MailboxName::new(name).unwrap()
}

fn flags(system: SystemFlags, keyword: bool) -> FlagNames {
    FlagNames { system, keywords: keyword.then(|| Keyword::new("later").unwrap()).into_iter().collect() }
}

/// Every question about a mailbox, with the letters it needs there. `work` and `target` are what is asked
/// about, by name and by number; `own` is a mailbox of who asks.
fn questions(work: (&str, MailboxId), target: (&str, MailboxId), own: MailboxId) -> Vec<(&'static str, Request)> {
    let (name, mailbox) = (named(work.0), work.1);
    let uids = || UidSet::of_range(Uid::MIN, Uid::MAX);
    let flag = |mode, flags| Request::Flag { mailbox, uids: uids(), mode, flags, unchanged_since: None };
    let search = || Arc::new(Search { key: SearchKey::All, recent: UidSet::new() });
    let entry = || vec![(EntryName::new("/shared/comment").unwrap(), None)];
    let below = |name: &str| named(&format!("{name}/new"));
    let since = ModSeq(0);
    vec![
        ("r", Request::Open(name.clone())),
        ("r", Request::Mailbox { name: name.clone(), wanted: Rights::READ }),
        ("i", Request::Mailbox { name: name.clone(), wanted: Rights::INSERT }),
        ("rw", Request::ClaimRecent(mailbox)),
        ("r", Request::CountFrom { mailbox, from: Uid::MIN }),
        ("r", Request::Changes { mailbox, since, uid_next: Uid::MIN, rights: Rights::ALL }),
        ("r", Request::Vanished { mailbox, since }),
        ("r", Request::Sort { mailbox, uids: uids(), order: Arc::from(Vec::new()) }),
        ("r", Request::Thread { mailbox, uids: uids(), threading: Threading::References }),
        ("r", Request::Rows { mailbox, uids: uids(), changed_since: since }),
        ("r", Request::Search { mailbox, uids: uids(), search: search() }),
        ("lp", Request::Annotations { mailbox: Some(mailbox), query: Arc::new(MetadataQuery::default()) }),
        ("lw", Request::Annotate { mailbox: Some(mailbox), changes: entry() }),
        ("rs", flag(FlagMode::Add, flags(SystemFlags::SEEN, false))),
        ("rt", flag(FlagMode::Add, flags(SystemFlags::DELETED, false))),
        ("rw", flag(FlagMode::Remove, flags(SystemFlags::FLAGGED, false))),
        ("rw", flag(FlagMode::Add, flags(SystemFlags(0), true))),
        ("rs", flag(FlagMode::Replace, flags(SystemFlags(0), false))),
        ("r", Request::Copy { from: mailbox, uids: uids(), to: own }),
        ("i", Request::Copy { from: own, uids: uids(), to: mailbox }),
        ("rte", Request::Move { from: mailbox, uids: uids(), to: own }),
        ("i", Request::Move { from: own, uids: uids(), to: mailbox }),
        ("re", Request::Expunge { mailbox, uids: None }),
        ("x", Request::Delete(name.clone())),
        ("a", Request::Acl(name.clone())),
        (
            "a",
            Request::SetAcl {
                mailbox: name.clone(),
                identifier: "bob@x.test".to_owned(),
                mode: RightsMode::Add,
                rights: Rights::ALL,
            },
        ),
        ("a", Request::ListRights { mailbox: name.clone(), identifier: "anyone".to_owned() }),
        ("i", Request::AppendBegin { mailbox: name.clone(), size: 1, replaced: None }),
        ("rte", Request::AppendBegin { mailbox: named("INBOX"), size: 1, replaced: Some((mailbox, Uid::MIN)) }),
        ("rte", Request::AppendEnd { flags: FlagNames::default(), date: None, replaced: Some((mailbox, Uid::MIN)) }),
        ("k", Request::Create { name: below(work.0), special_use: None }),
        ("x", Request::Rename { from: name, to: below(target.0) }),
    ]
}

/// CREATE and RENAME tell nothing else of where a mailbox would come: it is only ever "no right".
fn is_made(request: &Request) -> bool {
    matches!(request, Request::Create { .. })
}

fn ann(house: &House) -> Vec<(&'static str, Request)> {
    let own = house.id(house.bob, "INBOX");
    let work = ("Other Users/ann@x.test/Work", house.id(house.ann, "Work"));
    questions(work, ("Other Users/ann@x.test/Target", house.id(house.ann, "Target")), own)
}

#[test]
fn each_question_needs_its_rights_and_no_other() {
    let house = House::new();
    house.give("Target", Rights::CREATE);
    let count = ann(&house).len();
    for index in 0..count {
        let request = || ann(&house).swap_remove(index);
        let (letters, asked) = request();
        let needed = Rights::parse(letters).unwrap();
        let what = format!("{letters} {asked:?}");
        house.give("Work", needed);
        assert_eq!(house.ask(asked), None, "with {what}");
        house.give("Work", Rights::ALL);
        assert_eq!(house.ask(request().1), None, "with all rights: {what}");
        for letter in letters.chars().filter(|letter| *letter != 'l') {
            let lacking = Rights::parse(&letter.to_string()).unwrap();
            let (rest, looks) = (needed.without(lacking), needed.without(lacking).and(Rights::LOOKUP));
            house.give("Work", rest);
            assert!(house.ask(request().1).is_some(), "without {letter} of {what}");
            house.give("Work", looks);
            let refused = house.ask(request().1).unwrap();
            // What can't be read any more is gone for whoever has it selected.
            let gone = matches!(request().1, Request::Changes { .. });
            assert!(gone || refused.contains("NoRight"), "without {letter} of {what}: {refused}");
        }
    }
}

#[test]
fn what_may_not_be_seen_is_answered_like_what_is_not_there() {
    let house = House::new();
    let own = house.id(house.bob, "INBOX");
    let hidden = ann(&house);
    let target = "Other Users/ann@x.test/Missing2";
    let missing = questions(("Other Users/ann@x.test/Missing", MailboxId(77)), (target, MailboxId(78)), own);
    let nobodys = questions(("Other Users/nobody@x.test/Work", MailboxId(79)), (target, MailboxId(78)), own);
    for (((_, hidden), (_, missing)), (_, nobodys)) in hidden.into_iter().zip(missing).zip(nobodys) {
        let (what, made) = (format!("{hidden:?}"), is_made(&hidden));
        let answer = house.ask(hidden).unwrap_or_else(|| panic!("{what} is admitted"));
        assert_eq!(Some(&answer), house.ask(missing).as_ref(), "{what}");
        assert_eq!(Some(&answer), house.ask(nobodys).as_ref(), "{what}");
        assert_eq!(answer.contains("NoRight"), made, "{what}: {answer}");
    }
    let seen = mailboxes(&house.store.reader().unwrap(), house.bob).unwrap();
    assert!(seen.iter().all(|mailbox| mailbox.account == house.bob));
}

#[test]
fn the_owner_may_do_everything_whatever_is_said() {
    let house = House::new();
    let anyone = Identifier::Anyone;
    let work = house.id(house.ann, "Work");
    house.store.grant(work, anyone, true, RightsMode::Replace, Rights::ALL).wait().unwrap();
    let own = house.id(house.ann, "INBOX");
    for (_, request) in questions(("Work", work), ("Target", house.id(house.ann, "Target")), own) {
        let what = format!("{request:?}");
        let admitted = admit(&house.store, house.ann, request).unwrap_or_else(|answer| panic!("{what}: {answer:?}"));
        assert_eq!(admitted.owner, house.ann, "{what}");
    }
}

#[test]
fn a_question_about_anothers_mailbox_is_put_in_his_words() {
    let house = House::new();
    house.give("Work", Rights::ALL);
    let admitted = admit(&house.store, house.bob, Request::Delete(named("Other Users/ANN@x.test/Work"))).unwrap();
    assert!(matches!(&admitted.request, Request::Delete(name) if name.as_str() == "Work"));
    assert_eq!((admitted.owner, admitted.account, admitted.rights), (house.ann, house.bob, Rights::ALL));
    // One's own mailboxes have one name.
    let own = Request::Open(named("Other Users/bob@x.test/INBOX"));
    assert_eq!(house.ask(own).as_deref(), Some("Opened(None)"));
}

#[test]
fn others_mailboxes_are_told_with_their_rights_and_without_their_use() {
    let house = House::new();
    let sent = house.id(house.ann, "Sent");
    let rights = Rights::parse("lr").unwrap();
    house.store.grant(sent, Identifier::Anyone, false, RightsMode::Replace, rights).wait().unwrap();
    house.give("Work/Below", Rights::parse("r").unwrap());
    let seen = mailboxes(&house.store.reader().unwrap(), house.bob).unwrap();
    let others: Vec<&Mailbox> = seen.iter().filter(|mailbox| mailbox.account != house.bob).collect();
    let [only] = others.as_slice() else { panic!("{others:?}") };
    assert_eq!(only.name.as_str(), "Other Users/ann@x.test/Sent");
    assert_eq!((only.rights, only.special_use), (rights, None));
    // The owner, who is one of all, has it once and with its use.
    let hers = mailboxes(&house.store.reader().unwrap(), house.ann).unwrap();
    let hers: Vec<_> = hers.iter().filter(|mailbox| mailbox.id == sent).collect();
    assert_eq!(hers.len(), 1);
    assert_eq!((hers[0].rights, hers[0].special_use), (Rights::ALL, Some(SpecialUse::Sent)));
}
