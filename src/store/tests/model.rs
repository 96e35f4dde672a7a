//! Random commands against a plain model, with kills and closes in between.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::mail::mailbox::UidValidity;

#[derive(Clone, Debug)]
enum Step {
    Deliver { to: Vec<(usize, usize)>, body: u8, large: bool },
    Append { to: usize, count: usize, words: Vec<usize> },
    Flag { at: usize, first: u32, last: u32, mode: u8, words: Vec<usize>, guarded: bool },
    Transfer { from: usize, first: u32, last: u32, to: usize, remove: bool },
    Expunge { at: usize, range: Option<(u32, u32)> },
    Remove { at: usize, first: u32, last: u32 },
    Create { name: usize },
    Delete { name: usize },
    Rename { from: usize, to: usize },
    Subscribe { name: usize, on: bool },
    Claim { at: usize },
    Compact { wait: bool },
    Kill,
    Close,
}

const NAMES: [&str; 8] = ["INBOX", "Junk", "a", "a/b", "a/b/c", "b", "b/x", "INBOX/in"];
const WORDS: [&str; 6] = ["Seen", "Deleted", "Flagged", "$k", "l", "m"];

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    let words = prop::collection::vec(0..WORDS.len(), 0..3);
    let (first, last) = (1_u32..12, 1_u32..12);
    prop_oneof![
        6 => (prop::collection::vec((0_usize..2, name.clone()), 1..4), any::<u8>(), prop::bool::weighted(0.1))
            .prop_map(|(to, body, large)| Step::Deliver { to, body, large }),
        3 => (name.clone(), 1_usize..4, words.clone()).prop_map(|(to, count, words)| Step::Append { to, count, words }),
        4 => (name.clone(), first.clone(), last.clone(), 0_u8..3, words, any::<bool>())
            .prop_map(|(at, first, last, mode, words, guarded)| Step::Flag { at, first, last, mode, words, guarded }),
        4 => (name.clone(), first.clone(), last.clone(), name.clone(), any::<bool>())
            .prop_map(|(from, first, last, to, remove)| Step::Transfer { from, first, last, to, remove }),
        1 => (name.clone(), prop::option::of((first.clone(), last.clone()))).prop_map(|(at, range)| Step::Expunge { at, range }),
        2 => (name.clone(), first, last).prop_map(|(at, first, last)| Step::Remove { at, first, last }),
        3 => name.clone().prop_map(|name| Step::Create { name }),
        1 => name.clone().prop_map(|name| Step::Delete { name }),
        2 => (name.clone(), name.clone()).prop_map(|(from, to)| Step::Rename { from, to }),
        1 => (name.clone(), any::<bool>()).prop_map(|(name, on)| Step::Subscribe { name, on }),
        1 => name.prop_map(|at| Step::Claim { at }),
        1 => any::<bool>().prop_map(|wait| Step::Compact { wait }),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
    ]
}

type Words = BTreeSet<&'static str>;

#[derive(Clone, Debug, Default)]
struct Shelf {
    next: u32,
    messages: BTreeMap<u32, (Vec<u8>, Words)>,
}

/// What the account `ann` has; `bob` only gets mail into his INBOX.
#[derive(Clone, Debug)]
struct Model {
    boxes: BTreeMap<&'static str, Shelf>,
    subscribed: BTreeSet<&'static str>,
    bob: Vec<Vec<u8>>,
}

fn parents(name: &'static str) -> Vec<&'static str> {
    name.match_indices('/').map(|(at, _)| &name[..at]).collect()
}

fn range(first: u32, last: u32) -> std::ops::RangeInclusive<u32> {
    first.min(last)..=first.max(last)
}

impl Model {
    fn new() -> Self {
        let standard = ["INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"];
        let fresh = Shelf { next: 1, ..Shelf::default() };
        Self {
            boxes: standard.iter().map(|name| (*name, fresh.clone())).collect(),
            subscribed: standard.into_iter().collect(),
            bob: Vec::new(),
        }
    }

    fn create(&mut self, name: &'static str) {
        for name in parents(name).into_iter().chain([name]) {
            self.boxes.entry(name).or_insert_with(|| Shelf { next: 1, ..Shelf::default() });
        }
    }

    fn put(&mut self, name: &str, body: Vec<u8>, words: Words) -> u32 {
        let mailbox = self.boxes.get_mut(name).unwrap();
        let uid = mailbox.next;
        mailbox.next += 1;
        mailbox.messages.insert(uid, (body, words));
        uid
    }

    fn within(&self, name: &str, first: u32, last: u32) -> Vec<u32> {
        self.boxes[name].messages.range(range(first, last)).map(|(uid, _)| *uid).collect()
    }
}

fn to_names(words: &[usize]) -> (FlagNames, Words) {
    let words = words.iter().map(|word| WORDS[*word]).collect::<Words>();
    let bits = [("Seen", SystemFlags::SEEN), ("Deleted", SystemFlags::DELETED), ("Flagged", SystemFlags::FLAGGED)];
    let mut system = SystemFlags::default();
    for (word, bit) in bits {
        if words.contains(word) {
            system = system.union(bit);
        }
    }
    let keywords =
        words.iter().filter(|word| !["Seen", "Deleted", "Flagged"].contains(*word)).copied().collect::<Vec<_>>();
    (names(system, &keywords), words)
}

struct Pair {
    rig: Rig,
    model: Model,
    ann: AccountId,
    bob: AccountId,
    bob_inbox: MailboxId,
    highest: ModSeq,
    validities: BTreeSet<(MailboxId, UidValidity)>,
}

impl Pair {
    fn id(&self, name: &str) -> Option<MailboxId> {
        self.rig.reader().mailbox_named(self.ann, &mailbox_name(name)).unwrap().map(|mailbox| mailbox.id)
    }

    /// After a change: its number is above all before it.
    fn rises(&mut self, now: ModSeq) {
        assert!(now > self.highest, "{now:?} after {:?}", self.highest);
        self.highest = now;
    }

    #[allow(clippy::too_many_lines)]
    fn step(&mut self, step: Step) {
        let store = self.rig.store.clone();
        match step {
            Step::Deliver { to, body, large } => {
                let body = noise(if large { 150_000 } else { usize::from(body) * 20 }, body.into());
                let folder = |(who, name): &(usize, usize)| match who {
                    0 => (self.ann, Folder::Named(mailbox_name(NAMES[*name]))),
                    _ => (self.bob, Folder::Inbox),
                };
                let placed = store.deliver(self.rig.letter(&body), to.iter().map(folder).collect()).wait().unwrap();
                for ((who, name), (mailbox, uid)) in to.into_iter().zip(placed) {
                    if who == 1 {
                        self.model.bob.push(body.clone());
                        assert_eq!((mailbox, uid.get() as usize), (self.bob_inbox, self.model.bob.len()));
                        continue;
                    }
                    let name = if self.model.boxes.contains_key(NAMES[name]) { NAMES[name] } else { "INBOX" };
                    assert_eq!(Some(mailbox), self.id(name));
                    assert_eq!(uid.get(), self.model.put(name, body.clone(), Words::new()));
                }
            }
            Step::Append { to, count, words } => {
                let Some(id) = self.id(NAMES[to]) else { return };
                let (flags, words) = to_names(&words);
                let bodies = (1..=count).map(|length| vec![b'x'; length]).collect::<Vec<_>>();
                let messages = bodies.iter().map(|body| NewMessage { flags: flags.clone(), ..self.rig.letter(body) });
                let placed = store.append(id, messages.collect()).wait().unwrap();
                let expected = bodies.into_iter().map(|body| self.model.put(NAMES[to], body, words.clone()));
                assert_eq!(placed.to, uids(&expected.collect::<Vec<_>>()));
                self.rises(self.rig.facts(id).highest_modseq);
            }
            Step::Flag { at, first, last, mode, words, guarded } => {
                let Some(id) = self.id(NAMES[at]) else { return };
                let (flags, words) = to_names(&words);
                let mode = [FlagMode::Add, FlagMode::Remove, FlagMode::Replace][usize::from(mode)];
                let middle = self.rig.reader().message(id, uid(first)).unwrap().map(|message| message.modseq);
                let guard = middle.filter(|_| guarded);
                let rows = self.rig.reader().messages(id, Uid::MIN, Uid::MAX).unwrap();
                let newer = rows.map(Result::unwrap).filter(|row| guard.is_some_and(|guard| row.modseq > guard));
                let newer = newer.map(|row| row.uid.get()).collect::<BTreeSet<_>>();
                let (mut changed, mut modified) = (Vec::new(), Vec::new());
                for uid in self.model.within(NAMES[at], first, last) {
                    if newer.contains(&uid) {
                        modified.push(uid);
                        continue;
                    }
                    let mailbox = self.model.boxes.get_mut(NAMES[at]).unwrap();
                    let has = &mut mailbox.messages.get_mut(&uid).unwrap().1;
                    let before = has.clone();
                    match mode {
                        FlagMode::Add => has.extend(&words),
                        FlagMode::Remove => has.retain(|word| !words.contains(word)),
                        FlagMode::Replace => *has = words.clone(),
                    }
                    if *has != before {
                        changed.push(uid);
                    }
                }
                let set = span(first.min(last), first.max(last));
                let flagged = store.flag(id, set, mode, flags, guard).wait().unwrap();
                assert_eq!((flagged.changed, flagged.modified), (uids(&changed), uids(&modified)));
                assert_eq!(flagged.modseq, self.rig.facts(id).highest_modseq);
                if !changed.is_empty() {
                    self.rises(flagged.modseq);
                }
            }
            Step::Transfer { from, first, last, to, remove } => {
                let (Some(source), Some(target)) = (self.id(NAMES[from]), self.id(NAMES[to])) else { return };
                let found = self.model.within(NAMES[from], first, last);
                let set = span(first.min(last), first.max(last));
                let since = self.rig.facts(source).highest_modseq;
                let done = if remove { store.relocate(source, set, target) } else { store.copy(source, set, target) };
                let placed = done.wait().unwrap();
                let mut there = Vec::new();
                for uid in &found {
                    let (body, words) = self.model.boxes[NAMES[from]].messages[uid].clone();
                    there.push(self.model.put(NAMES[to], body, words));
                }
                if remove {
                    self.model.boxes.get_mut(NAMES[from]).unwrap().messages.retain(|uid, _| !found.contains(uid));
                    assert_eq!(self.rig.reader().vanished(source, since).unwrap(), uids(&found));
                }
                assert_eq!((placed.from, placed.to), (uids(&found), uids(&there)));
                if !found.is_empty() {
                    self.rises(self.rig.facts(target).highest_modseq);
                }
            }
            Step::Expunge { at, range } => {
                let Some(id) = self.id(NAMES[at]) else { return };
                let (first, last) = range.unwrap_or((1, u32::MAX));
                let marked = |uid: &u32| self.model.boxes[NAMES[at]].messages[uid].1.contains("Deleted");
                let mut found = self.model.within(NAMES[at], first, last);
                found.retain(marked);
                let set = range.map(|(first, last)| span(first.min(last), first.max(last)));
                assert_eq!(store.expunge(id, set).wait(), Ok(uids(&found)));
                self.model.boxes.get_mut(NAMES[at]).unwrap().messages.retain(|uid, _| !found.contains(uid));
            }
            Step::Remove { at, first, last } => {
                let Some(id) = self.id(NAMES[at]) else { return };
                let found = self.model.within(NAMES[at], first, last);
                assert_eq!(store.remove(id, span(first.min(last), first.max(last))).wait(), Ok(uids(&found)));
                self.model.boxes.get_mut(NAMES[at]).unwrap().messages.retain(|uid, _| !found.contains(uid));
            }
            Step::Create { name } => {
                let made = store.create_mailbox(self.ann, mailbox_name(NAMES[name]), None).wait();
                assert_eq!(made.is_err(), self.model.boxes.contains_key(NAMES[name]));
                self.model.create(NAMES[name]);
            }
            Step::Delete { name } => {
                let name = NAMES[name];
                let parent = self.model.boxes.keys().any(|other| parents(other).contains(&name));
                let refused = name == "INBOX" || parent || !self.model.boxes.contains_key(name);
                assert_eq!(store.delete_mailbox(self.ann, mailbox_name(name)).wait().is_err(), refused);
                if !refused {
                    self.model.boxes.remove(name);
                }
            }
            Step::Rename { from, to } => self.rename(NAMES[from], NAMES[to]),
            Step::Subscribe { name, on } => {
                store.subscribe(self.ann, mailbox_name(NAMES[name]), on).wait().unwrap();
                if on {
                    self.model.subscribed.insert(NAMES[name]);
                } else {
                    self.model.subscribed.remove(NAMES[name]);
                }
            }
            Step::Claim { at } => {
                let Some(id) = self.id(NAMES[at]) else { return };
                // The mark goes past the journal: a compaction that ends now has the index of before it.
                let settled = !store.compaction().running;
                store.claim_recent(id).wait().unwrap();
                let marked = store.claim_recent(id).wait().unwrap();
                assert!(!settled || marked == self.rig.facts(id).uid_next, "{marked:?}");
            }
            // What comes next meets it half done, or done.
            Step::Compact { wait } => {
                store.compact(true).wait().unwrap();
                while wait && store.compaction().running {
                    std::thread::yield_now();
                }
            }
            Step::Kill => self.rig = self.rig.killed(),
            Step::Close => {
                self.rig.store.close().unwrap();
                self.rig = self.rig.killed();
            }
        }
    }

    fn rename(&mut self, from: &'static str, to: &'static str) {
        let renamed = self.rig.store.rename_mailbox(self.ann, mailbox_name(from), mailbox_name(to)).wait();
        let inbox = from == "INBOX";
        let below = !inbox && parents(to).contains(&from);
        let boxes = &self.model.boxes;
        let refused = !boxes.contains_key(from) || boxes.contains_key(to) || below;
        assert_eq!(renamed.is_err(), refused, "{from} to {to}: {renamed:?}");
        if refused {
            return;
        }
        self.model.create(to);
        if inbox {
            let messages = std::mem::take(&mut self.model.boxes.get_mut("INBOX").unwrap().messages);
            for (body, words) in messages.into_values() {
                self.model.put(to, body, words);
            }
            return;
        }
        let moved = self.model.boxes.keys().copied().filter(|name| *name == from || parents(name).contains(&from));
        for name in moved.collect::<Vec<_>>() {
            let mailbox = self.model.boxes.remove(name).unwrap();
            // Test names are static; the few that a rename makes up are leaked.
            let name = Box::leak(format!("{to}{}", &name[from.len()..]).into_boxed_str());
            self.model.boxes.insert(name, mailbox);
        }
    }

    fn compare(&mut self) {
        let reader = self.rig.reader();
        let mailboxes = reader.mailboxes(self.ann).unwrap();
        let there = mailboxes.iter().map(|mailbox| mailbox.name.as_str()).collect::<BTreeSet<_>>();
        assert_eq!(there, self.model.boxes.keys().copied().collect());
        let subscribed = reader.subscriptions(self.ann).unwrap();
        assert!(subscribed.iter().map(MailboxName::as_str).eq(self.model.subscribed.iter().copied()));
        for mailbox in mailboxes {
            let expected = &self.model.boxes[mailbox.name.as_str()];
            assert_eq!(mailbox.uid_next.get(), expected.next);
            self.validities.insert((mailbox.id, mailbox.uid_validity));
            let rows = reader.messages(mailbox.id, Uid::MIN, Uid::MAX).unwrap().map(Result::unwrap).collect::<Vec<_>>();
            assert!(rows.iter().map(|row| row.uid.get()).eq(expected.messages.keys().copied()));
            for (row, (body, words)) in rows.iter().zip(expected.messages.values()) {
                assert!(read_body(&self.rig.store, row.blob) == *body);
                let words = words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
                assert_eq!(flag_words(row.flags, &mailbox.keywords), words);
            }
        }
        let ids = self.validities.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len();
        let validities = self.validities.iter().map(|(_, validity)| validity).collect::<BTreeSet<_>>().len();
        assert_eq!((ids, validities), (self.validities.len(), self.validities.len()));
        let rows = reader.messages(self.bob_inbox, Uid::MIN, Uid::MAX).unwrap().map(Result::unwrap);
        assert!(rows.map(|row| read_body(&self.rig.store, row.blob)).eq(self.model.bob.iter().cloned()));
        drop(reader);
        self.rig.swept();
        check(&self.rig.store);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_store_does_what_a_plain_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let rig = Rig::new();
        let (ann, bob) = (rig.account("ann").0, rig.account("bob"));
        let (bob, bob_inbox) = bob;
        let model = Model::new();
        let mut pair = Pair { rig, model, ann, bob, bob_inbox, highest: ModSeq(0), validities: BTreeSet::new() };
        for step in steps {
            let reopened = matches!(step, Step::Kill | Step::Close);
            pair.step(step);
            if reopened {
                pair.compare();
            }
        }
        pair.compare();
        pair.step(Step::Kill);
        pair.compare();
    }
}
