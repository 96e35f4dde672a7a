//! Everything a store shows, read through its public reader: what a user would find after a cut.

use std::collections::HashMap;
use std::sync::Arc;

use pillarbox::mail::mailbox::{Mailbox, ModSeq, Uid};
use pillarbox::mail::message::{BlobId, Keyword, SystemFlags, UidSet};
use pillarbox::store::{ReadError, Reader, Store};

use super::letter::{Marks, Print, Printer};
use super::outgoing::{self, Waiting};

/// A store's contents.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) domains: Vec<String>,
    pub(crate) people: Vec<Person>,
    pub(crate) aliases: Vec<(String, Vec<String>)>,
    pub(crate) folders: Vec<Arc<Folder>>,
    /// (account, name)
    pub(crate) subscribed: Vec<(u32, String)>,
    pub(crate) notes: Vec<(String, Vec<u8>)>,
    /// (number, body, message)
    pub(crate) queue: Vec<(u64, u64, Waiting)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Person {
    pub(crate) id: u32,
    pub(crate) address: String,
    pub(crate) salt: u8,
    pub(crate) quota: (Option<u64>, Option<u64>),
    pub(crate) used: (u64, u64),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    pub(crate) head: Head,
    pub(crate) rows: Vec<Row>,
    /// Removed since ever.
    pub(crate) vanished: Vec<(u32, u32)>,
}

/// A mailbox without its messages. Its `highest` rises with any change of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) id: u32,
    pub(crate) account: u32,
    pub(crate) name: String,
    pub(crate) special: Option<&'static str>,
    pub(crate) validity: u32,
    pub(crate) next: u32,
    pub(crate) highest: u64,
    flags_modseq: u64,
    messages: u32,
    unseen: u32,
    deleted: u32,
    size: u64,
    deleted_size: u64,
    keywords: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) uid: u32,
    pub(crate) marks: Marks,
    pub(crate) modseq: u64,
    pub(crate) date: i64,
    saved: i64,
    size: u32,
    pub(crate) blob: u64,
    pub(crate) print: Print,
    /// Bytes of the message by the kept structure.
    structured: u64,
}

/// What was read of bodies: print, and size by the structure.
pub(crate) type Bodies = HashMap<u64, (Print, u64)>;

/// Reads everything; `notes` are the names of notes to look for. Given an earlier look, bodies and
/// mailboxes are passed over that have not changed since.
pub(crate) fn view<'n>(
    store: &Store,
    notes: impl Iterator<Item = &'n str>,
    earlier: Option<(&View, &mut Bodies)>,
) -> Result<View, String> {
    let mut own = Bodies::new();
    let (before, bodies) = earlier.map_or((None, &mut own), |(view, bodies)| (Some(view), bodies));
    let reader = store.reader().map_err(told)?;
    let mut folders = Vec::new();
    let mut people = Vec::new();
    let mut subscribed = Vec::new();
    for account in reader.accounts().map_err(told)? {
        let login = reader.login(&account.address.to_string()).map_err(told)?;
        let (_, verifier) = login.ok_or_else(|| format!("{} can't log in", account.address))?;
        people.push(Person {
            id: account.id.0,
            address: account.address.to_string(),
            salt: verifier.salt[0],
            quota: (account.quota.bytes, account.quota.messages),
            used: (account.used.bytes, account.used.messages),
        });
        for mailbox in reader.mailboxes(account.id).map_err(told)? {
            let head = head(&mailbox);
            let known = before.and_then(|view| view.folders.iter().find(|known| known.head == head));
            folders.push(match known {
                Some(known) => known.clone(),
                None => Arc::new(folder(store, &reader, &mailbox, head, bodies)?),
            });
        }
        let names = reader.subscriptions(account.id).map_err(told)?;
        subscribed.extend(names.into_iter().map(|name| (account.id.0, name.as_str().to_owned())));
    }
    let aliases = reader
        .aliases()
        .map_err(told)?
        .into_iter()
        .map(|alias| (alias.address.to_string(), alias.targets.iter().map(ToString::to_string).collect()));
    let mut found = Vec::new();
    for name in notes {
        found.extend(reader.note(name).map_err(told)?.map(|value| (name.to_owned(), value)));
    }
    let queue = outgoing::shown(&reader, &mut |blob| match bodies.get(&blob) {
        Some((print, _)) => Ok(*print),
        None => body(store, BlobId(blob)),
    })?;
    Ok(View {
        domains: reader.domains().map_err(told)?.iter().map(|domain| domain.as_str().to_owned()).collect(),
        people,
        aliases: aliases.collect(),
        folders,
        subscribed,
        notes: found,
        queue,
    })
}

fn told(error: ReadError) -> String {
    format!("a read fails: {error}")
}

fn folder(
    store: &Store,
    reader: &Reader,
    mailbox: &Mailbox,
    head: Head,
    bodies: &mut Bodies,
) -> Result<Folder, String> {
    let mut rows = Vec::new();
    for message in reader.messages(mailbox.id, Uid::MIN, Uid::MAX).map_err(told)? {
        let message = message.map_err(told)?;
        // Copies share body and structure, so those are read once.
        let (print, structured) = match bodies.get(&message.blob.0) {
            Some(known) => *known,
            None => {
                let structure = reader.structure(mailbox.id, message.uid).map_err(told)?;
                (body(store, message.blob)?, structure.ok_or("a message without structure")?.size())
            }
        };
        bodies.insert(message.blob.0, (print, structured));
        let names = mailbox.keywords.names(message.flags.keywords).map(Keyword::as_str);
        rows.push(Row {
            uid: message.uid.get(),
            marks: Marks::of(message.flags.system.0, names).ok_or("a keyword nobody gave")?,
            modseq: message.modseq.0,
            date: message.internal_date.at.0,
            saved: message.saved.0,
            size: message.size,
            blob: message.blob.0,
            print,
            structured,
        });
    }
    let uids = reader.uids(mailbox.id).map_err(told)?;
    if !uids.iter().map(Uid::get).eq(rows.iter().map(|row| row.uid)) {
        return Err(format!("the uids of {} are not those of its messages", mailbox.name.as_str()));
    }
    let vanished = reader.vanished(mailbox.id, ModSeq(0)).map_err(told)?;
    Ok(Folder { head, rows, vanished: ranges(&vanished) })
}

fn head(mailbox: &Mailbox) -> Head {
    Head {
        id: mailbox.id.0,
        account: mailbox.account.0,
        name: mailbox.name.as_str().to_owned(),
        special: mailbox.special_use.map(pillarbox::mail::mailbox::SpecialUse::attribute),
        validity: mailbox.uid_validity.0.get(),
        next: mailbox.uid_next.get(),
        highest: mailbox.highest_modseq.0,
        flags_modseq: mailbox.flags_modseq.0,
        messages: mailbox.messages,
        unseen: mailbox.unseen,
        deleted: mailbox.deleted,
        size: mailbox.size,
        deleted_size: mailbox.deleted_size,
        keywords: mailbox.keywords.0.iter().map(|name| name.as_str().to_owned()).collect(),
    }
}

fn ranges(set: &UidSet) -> Vec<(u32, u32)> {
    set.ranges().iter().map(|(first, last)| (first.get(), last.get())).collect()
}

fn body(store: &Store, blob: BlobId) -> Result<Print, String> {
    let mut body = store.body(blob).map_err(told)?;
    let mut printer = Printer::default();
    let mut at = 0;
    while at < body.len() {
        let part = body.read(at, usize::MAX).map_err(told)?;
        if part.is_empty() {
            return Err(format!("body {} ends early", blob.0));
        }
        printer.add(part);
        at += part.len() as u64;
    }
    Ok(printer.finish())
}

impl View {
    /// Compares every counter with a recount; tells the first that is wrong.
    pub(crate) fn recount(&self) -> Result<(), String> {
        for folder in &self.folders {
            folder
                .recount()
                .map_err(|what| format!("mailbox {} of {}: {what}", folder.head.name, folder.head.account))?;
        }
        for person in &self.people {
            let theirs = self.folders.iter().filter(|folder| folder.head.account == person.id);
            let rows = theirs.flat_map(|folder| &folder.rows);
            let used = rows.fold((0, 0), |(bytes, count), row| (bytes + u64::from(row.size), count + 1));
            if used != person.used {
                return Err(format!("{} uses {used:?} by recount, {:?} by the counter", person.address, person.used));
            }
        }
        Ok(())
    }

    /// Every body that is shown, by number.
    pub(crate) fn bodies(&self) -> impl Iterator<Item = (u64, Print)> {
        let rows = self.folders.iter().flat_map(|folder| &folder.rows).map(|row| (row.blob, row.print));
        rows.chain(self.queue.iter().map(|(_, blob, waiting)| (*blob, waiting.print)))
    }

    /// The highest modification sequence of anything.
    pub(crate) fn highest(&self) -> u64 {
        // Queued messages are numbered likewise.
        let queued = self.queue.iter().map(|(id, ..)| *id);
        self.folders.iter().map(|folder| folder.head.highest).chain(queued).max().unwrap_or(0)
    }
}

impl Folder {
    fn recount(&self) -> Result<(), String> {
        let has = |flag: SystemFlags| move |row: &&Row| SystemFlags(row.marks.system).contains(flag);
        let deleted = || self.rows.iter().filter(has(SystemFlags::DELETED));
        let size = |row: &Row| u64::from(row.size);
        let counted = [
            ("messages", self.rows.len() as u64, self.head.messages.into()),
            (
                "seen",
                self.rows.iter().filter(has(SystemFlags::SEEN)).count() as u64,
                (self.head.messages - self.head.unseen).into(),
            ),
            ("deleted", deleted().count() as u64, self.head.deleted.into()),
            ("bytes", self.rows.iter().map(size).sum(), self.head.size),
            ("bytes deleted", deleted().map(size).sum(), self.head.deleted_size),
        ];
        for (what, recount, counter) in counted {
            if recount != counter {
                return Err(format!("{recount} {what} by recount, {counter} by the counter"));
            }
        }
        let highest = self.rows.iter().map(|row| row.modseq).max().unwrap_or(0);
        if highest > self.head.highest || self.head.flags_modseq > self.head.highest {
            return Err(format!(
                "HIGHESTMODSEQ {} is below {highest} or {}",
                self.head.highest, self.head.flags_modseq
            ));
        }
        for row in &self.rows {
            if row.uid >= self.head.next {
                return Err(format!("uid {} is not below UIDNEXT {}", row.uid, self.head.next));
            }
            if row.print.length as u64 != u64::from(row.size) || row.structured != u64::from(row.size) {
                return Err(format!("uid {}: body, structure and size disagree", row.uid));
            }
        }
        Ok(())
    }
}
