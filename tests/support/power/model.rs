//! What must be in a store after some commands: plain maps, and nothing of how the store does it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pillarbox::mail::message::FlagMode;
use pillarbox::mail::queue::QueueOrder;

use super::command::{Command, Into, Place, Reply};
use super::letter::{Letter, Marks, Print};
use super::outgoing::{self, Queue, Waiting};

/// A store's contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) people: BTreeMap<u32, Person>,
    pub(crate) folders: BTreeMap<(u32, String), Arc<Folder>>,
    pub(crate) subscribed: BTreeSet<(u32, String)>,
    pub(crate) domains: BTreeSet<String>,
    /// Name to accounts.
    pub(crate) aliases: BTreeMap<String, Vec<u32>>,
    pub(crate) notes: BTreeMap<String, Vec<u8>>,
    pub(crate) queue: Queue,
    /// Mailboxes ever made.
    pub(crate) births: u32,
    /// The highest number of any account.
    pub(crate) last_account: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    /// The local part of the address.
    pub(crate) name: String,
    pub(crate) salt: u8,
    pub(crate) quota: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    pub(crate) birth: u32,
    pub(crate) next: u32,
    pub(crate) special: Option<&'static str>,
    pub(crate) rows: BTreeMap<u32, Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) print: Print,
    pub(crate) marks: Marks,
    pub(crate) date: i64,
}

/// Number and UIDVALIDITY of mailboxes by birth, as far as they were seen.
pub(crate) type Facts = BTreeMap<u32, (u32, u32)>;

/// What an account begins with.
pub(crate) const STANDARD: [(&str, Option<&str>); 6] = [
    ("INBOX", None),
    ("Archive", Some("\\Archive")),
    ("Drafts", Some("\\Drafts")),
    ("Junk", Some("\\Junk")),
    ("Sent", Some("\\Sent")),
    ("Trash", Some("\\Trash")),
];

fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}

impl State {
    /// What there is once `command` was answered with `reply`; an error when that can't be.
    pub(crate) fn after(&self, command: &Command, reply: &Reply, facts: &Facts) -> Result<Self, String> {
        let mut state = self.clone();
        state
            .apply(command, reply, facts)
            .map_err(|what| format!("{what}: {command:?} was answered with {reply:?}"))?;
        Ok(state)
    }

    fn apply(&mut self, command: &Command, reply: &Reply, facts: &Facts) -> Result<(), String> {
        match (command, reply) {
            (Command::AddAccount { name, salt, quota }, Reply::Account(id)) => {
                if *id <= self.last_account && self.last_account > 0 {
                    return Err("the number of an account came again".to_owned());
                }
                self.last_account = *id;
                self.domains.insert("pillar.test".to_owned());
                self.people.insert(*id, Person { name: name.clone(), salt: *salt, quota: *quota });
                for (name, special) in STANDARD {
                    self.make(*id, name, special);
                    self.subscribed.insert((*id, name.to_owned()));
                }
            }
            (Command::RemoveAccount { account }, Reply::Done) => {
                self.people.remove(account).ok_or("there was no such account")?;
                self.folders.retain(|(owner, _), _| owner != account);
                self.subscribed.retain(|(owner, _)| owner != account);
                for targets in self.aliases.values_mut() {
                    targets.retain(|target| target != account);
                }
                self.aliases.retain(|_, targets| !targets.is_empty());
            }
            (Command::SetVerifier { account, salt }, Reply::Done) => self.person(*account)?.salt = *salt,
            (Command::SetQuota { account, messages }, Reply::Done) => self.person(*account)?.quota = *messages,
            (Command::PutAlias { name, targets }, Reply::Done) => {
                self.aliases.insert(name.clone(), targets.iter().map(|(account, _)| *account).collect());
            }
            (Command::RemoveAlias { name }, Reply::Done) => {
                self.aliases.remove(name).ok_or("there was no such alias")?;
            }
            (Command::Deliver { letter, to }, Reply::Delivered(kept)) => self.deliver(letter, to, kept, facts)?,
            (Command::Submit { parts, about }, Reply::Submitted { kept, queued }) => {
                let (mut kept, mut queued) = (kept.as_slice(), queued.iter());
                for part in parts {
                    let here = kept.split_off(..part.local.len()).ok_or("not every recipient has it")?;
                    self.deliver(&part.letter, &part.local, here, facts)?;
                    if part.to.is_empty() {
                        continue;
                    }
                    let id = *queued.next().ok_or("it is not queued")?;
                    let waiting = Waiting::new(part.letter.print, part.by, &part.to, part.due);
                    if self.queue.insert(id, waiting).is_some() {
                        return Err("the number of a queued message came again".to_owned());
                    }
                    if part.held {
                        outgoing::order(&mut self.queue, id, QueueOrder::Hold)?;
                    }
                }
                if !kept.is_empty() || queued.next().is_some() {
                    return Err("more was kept than asked for".to_owned());
                }
                if let Some((id, states)) = about {
                    outgoing::update(&mut self.queue, *id, states)?;
                }
            }
            (Command::Update { id, states }, Reply::Recipients(unsettled)) => {
                if outgoing::update(&mut self.queue, *id, states)? != *unsettled {
                    return Err("others are unsettled".to_owned());
                }
            }
            (Command::Order { id, order }, Reply::Recipients(concerned)) => {
                if outgoing::order(&mut self.queue, *id, *order)? != *concerned {
                    return Err("it concerned others".to_owned());
                }
            }
            (Command::Cancel { id }, Reply::Done) => {
                self.queue.remove(id).ok_or("there was no such queued message")?;
            }
            // Kept apart (`learning.rs`): it has its own promise.
            (Command::Learn { .. } | Command::Forget { .. }, Reply::Done) => {}
            (Command::Append { place, letters }, Reply::Appended(uids)) => {
                let folder = self.at(*place)?;
                if uids.len() != letters.len() {
                    return Err("not every message is there".to_owned());
                }
                letters.iter().zip(uids).try_for_each(|(letter, uid)| folder.put(letter, *uid))?;
            }
            (Command::Flag { place, uids, mode, marks, .. }, Reply::Flagged { modified }) => {
                let rows = &mut self.at(*place)?.rows;
                for uid in uids.iter().filter(|uid| !modified.contains(uid)) {
                    let Some(row) = rows.get_mut(uid) else { continue };
                    row.marks = match mode {
                        FlagMode::Replace => *marks,
                        FlagMode::Add => {
                            Marks { system: row.marks.system | marks.system, words: row.marks.words | marks.words }
                        }
                        FlagMode::Remove => {
                            Marks { system: row.marks.system & !marks.system, words: row.marks.words & !marks.words }
                        }
                    };
                }
            }
            (Command::Transfer { from, uids, to, remove }, Reply::Transferred { from: old, to: new }) => {
                let source = self.at(*from)?;
                let found = uids.iter().filter_map(|uid| Some((*uid, *source.rows.get(uid)?))).collect::<Vec<_>>();
                if !found.iter().map(|(uid, _)| uid).eq(old) || old.len() != new.len() {
                    return Err("not every message went along".to_owned());
                }
                if *remove {
                    source.rows.retain(|uid, _| !old.contains(uid));
                }
                let target = self.at(*to)?;
                found.iter().zip(new).try_for_each(|((_, row), uid)| target.add(*row, *uid))?;
            }
            (Command::Expunge { place, uids }, Reply::Removed(gone)) => {
                let marked = |uid: u32, row: &Row| {
                    row.marks.system & 4 != 0 && uids.as_ref().is_none_or(|uids| uids.contains(&uid))
                };
                self.at(*place)?.lose(gone, marked)?;
            }
            (Command::Remove { place, uids }, Reply::Removed(gone)) => {
                self.at(*place)?.lose(gone, |uid, _| uids.contains(&uid))?;
            }
            (Command::Create { account, name }, Reply::Created) => self.create(*account, name)?,
            (Command::Delete { account, name }, Reply::Done) => {
                self.folders.remove(&(*account, name.clone())).ok_or("there was no such mailbox")?;
            }
            (Command::Rename { account, from, to }, Reply::Done) => self.rename(*account, from, to)?,
            (Command::Subscribe { account, name, on }, Reply::Done) => {
                let key = (*account, name.clone());
                let _ = if *on { self.subscribed.insert(key) } else { self.subscribed.remove(&key) };
            }
            (Command::Note { name, value }, Reply::Done) => {
                self.notes.insert(name.clone(), value.clone());
            }
            _ => return Err("that is no answer".to_owned()),
        }
        Ok(())
    }

    fn deliver(
        &mut self,
        letter: &Letter,
        to: &[(u32, Into)],
        kept: &[(u32, u32)],
        facts: &Facts,
    ) -> Result<(), String> {
        if kept.len() != to.len() {
            return Err("not every recipient has it".to_owned());
        }
        for ((account, into), (mailbox, uid)) in to.iter().zip(kept) {
            let folder = self.target(*account, into)?;
            if facts.get(&folder.birth).is_some_and(|(id, _)| id != mailbox) {
                return Err("it went to another mailbox".to_owned());
            }
            folder.put(letter, *uid)?;
        }
        Ok(())
    }

    fn person(&mut self, account: u32) -> Result<&mut Person, String> {
        self.people.get_mut(&account).ok_or_else(|| "there was no such account".to_owned())
    }

    fn make(&mut self, account: u32, name: &str, special: Option<&'static str>) {
        self.births += 1;
        let folder = Folder { birth: self.births, next: 1, special, rows: BTreeMap::new() };
        self.folders.insert((account, name.to_owned()), Arc::new(folder));
    }

    fn create(&mut self, account: u32, name: &str) -> Result<(), String> {
        if self.folders.contains_key(&(account, name.to_owned())) {
            return Err("the mailbox was there".to_owned());
        }
        for name in parents(name).chain([name]) {
            if !self.folders.contains_key(&(account, name.to_owned())) {
                self.make(account, name, None);
            }
        }
        Ok(())
    }

    fn rename(&mut self, account: u32, from: &str, to: &str) -> Result<(), String> {
        if from == "INBOX" {
            self.create(account, to)?;
            let inbox = self.folders.get_mut(&(account, from.to_owned())).ok_or("there was no INBOX")?;
            let rows = std::mem::take(&mut Arc::make_mut(inbox).rows);
            let target = self.folders.get_mut(&(account, to.to_owned())).ok_or("there was no target")?;
            let target = Arc::make_mut(target);
            return rows.into_values().try_for_each(|row| target.add(row, target.next));
        }
        for name in parents(to) {
            if !self.folders.contains_key(&(account, name.to_owned())) {
                self.make(account, name, None);
            }
        }
        let below = format!("{from}/");
        let moved =
            self.folders.keys().filter(|(owner, name)| *owner == account && (name == from || name.starts_with(&below)));
        let moved = moved.cloned().collect::<Vec<_>>();
        if moved.is_empty() {
            return Err("there was no such mailbox".to_owned());
        }
        for key in moved {
            let folder = self.folders.remove(&key).ok_or("there was no such mailbox")?;
            self.folders.insert((account, format!("{to}{}", &key.1[from.len()..])), folder);
        }
        Ok(())
    }

    /// Where a delivery goes.
    fn target(&mut self, account: u32, into: &Into) -> Result<&mut Folder, String> {
        let theirs = || self.folders.iter().filter(|((owner, _), _)| *owner == account);
        let found = match into {
            Into::Inbox => None,
            Into::Named(name) => theirs().find(|((_, known), _)| known == name),
            Into::Special(special) => theirs().find(|(_, folder)| folder.special == Some(special.attribute())),
        };
        let key = found.map_or_else(|| (account, "INBOX".to_owned()), |(key, _)| key.clone());
        self.folders.get_mut(&key).map(Arc::make_mut).ok_or_else(|| "there was no such account".to_owned())
    }

    fn at(&mut self, place: Place) -> Result<&mut Folder, String> {
        let found = self.folders.values_mut().find(|folder| folder.birth == place.birth);
        found.map(Arc::make_mut).ok_or_else(|| "there was no such mailbox".to_owned())
    }
}

impl Folder {
    fn put(&mut self, letter: &Letter, uid: u32) -> Result<(), String> {
        self.add(Row { print: letter.print, marks: letter.marks, date: letter.date }, uid)
    }

    fn add(&mut self, row: Row, uid: u32) -> Result<(), String> {
        if uid != self.next {
            return Err(format!("uid {uid} where {} comes next", self.next));
        }
        self.rows.insert(uid, row);
        self.next += 1;
        Ok(())
    }

    fn lose(&mut self, gone: &[u32], wanted: impl Fn(u32, &Row) -> bool) -> Result<(), String> {
        let found = self.rows.iter().filter(|(uid, row)| wanted(**uid, row)).map(|(uid, _)| uid);
        if !found.eq(gone) {
            return Err("other messages were to go".to_owned());
        }
        self.rows.retain(|uid, _| !gone.contains(uid));
        Ok(())
    }
}
