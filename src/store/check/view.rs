//! The tables as a check reads them, and the names it calls things by.

use redb::{ReadOnlyTable, ReadableTable};

use super::finding::{Place, short};
use crate::mail::structure::{Field, Structure};
use crate::mail::text::decode_words;
use crate::store::Reader;
use crate::store::error::Trouble;
use crate::store::queue::QueuedRecord;
use crate::store::record::{AccountRecord, Bytes, MailboxRecord, MessageRecord, Record, StructureRecord};
use crate::store::table::{
    ACCOUNT, ACL, ADDRESS, ANNOTATION, BLOB, CERTIFICATE, DOMAIN, GRAM, LEARNED, MBOX, MBOXNAME, MSG, PIECE, QDEST,
    QRCPT, QSCHED, QUEUE, SHARED, STATE, STRUCTURE, SUBSCRIPTION, SWEEP, SWEEP_BODY, SWEEP_MAILBOX, SWEEP_STAGED, TAIL,
    VANISH, load,
};

type Rows<K> = ReadOnlyTable<K, &'static [u8]>;

/// Every table, in one read transaction.
pub(super) struct View {
    pub(super) state: Rows<&'static str>,
    pub(super) domains: ReadOnlyTable<&'static str, ()>,
    pub(super) accounts: Rows<u32>,
    pub(super) addresses: Rows<&'static str>,
    pub(super) mailboxes: Rows<u32>,
    pub(super) names: ReadOnlyTable<(u32, &'static str), u32>,
    pub(super) subscriptions: ReadOnlyTable<(u32, &'static str), ()>,
    pub(super) messages: Rows<(u32, u32)>,
    pub(super) vanished: Rows<(u32, u64)>,
    pub(super) bodies: Rows<u64>,
    pub(super) structures: Rows<u64>,
    pub(super) pieces: Rows<(u64, u32)>,
    pub(super) tails: Rows<u64>,
    pub(super) sweep: ReadOnlyTable<(u8, u64), ()>,
    pub(super) queue: Rows<u64>,
    pub(super) recipients: Rows<(u64, u32)>,
    pub(super) schedule: ReadOnlyTable<(u64, u64, u32), ()>,
    pub(super) destinations: ReadOnlyTable<(&'static str, u64, u64, u32), ()>,
    pub(super) learned: Rows<(u32, u16)>,
    pub(super) grams: Rows<(u64, u32)>,
    pub(super) annotations: Rows<(u32, u32, &'static str)>,
    pub(super) certificates: Rows<&'static str>,
    pub(super) grants: Rows<(u32, u32)>,
    pub(super) shared: ReadOnlyTable<(u32, u32), ()>,
}

/// What a row holds.
pub(super) enum Row<R> {
    /// There is none.
    Missing,
    /// It is not what was written.
    Damaged,
    /// This.
    There(R),
}

impl<R> Row<R> {
    pub(super) fn there(self) -> Option<R> {
        if let Self::There(record) = self { Some(record) } else { None }
    }
}

/// Tells a damaged record from a disk that fails.
pub(super) fn row<R>(read: Result<Option<R>, Trouble>) -> Result<Row<R>, Trouble> {
    match read {
        Ok(Some(record)) => Ok(Row::There(record)),
        Ok(None) => Ok(Row::Missing),
        Err(trouble) if trouble.is_of_disk() => Err(trouble),
        Err(_) => Ok(Row::Damaged),
    }
}

impl View {
    pub(super) fn open(reader: &Reader) -> Result<Self, Trouble> {
        Ok(Self {
            state: reader.table(STATE)?,
            domains: reader.table(DOMAIN)?,
            accounts: reader.table(ACCOUNT)?,
            addresses: reader.table(ADDRESS)?,
            mailboxes: reader.table(MBOX)?,
            names: reader.table(MBOXNAME)?,
            subscriptions: reader.table(SUBSCRIPTION)?,
            messages: reader.table(MSG)?,
            vanished: reader.table(VANISH)?,
            bodies: reader.table(BLOB)?,
            structures: reader.table(STRUCTURE)?,
            pieces: reader.table(PIECE)?,
            tails: reader.table(TAIL)?,
            sweep: reader.table(SWEEP)?,
            queue: reader.table(QUEUE)?,
            recipients: reader.table(QRCPT)?,
            schedule: reader.table(QSCHED)?,
            destinations: reader.table(QDEST)?,
            learned: reader.table(LEARNED)?,
            grams: reader.table(GRAM)?,
            annotations: reader.table(ANNOTATION)?,
            certificates: reader.table(CERTIFICATE)?,
            grants: reader.table(ACL)?,
            shared: reader.table(SHARED)?,
        })
    }

    /// Tells whether a body is being removed, or staged.
    pub(super) fn is_passing(&self, body: u64) -> Result<bool, Trouble> {
        Ok(self.sweep.get((SWEEP_BODY, body))?.is_some() || self.sweep.get((SWEEP_STAGED, body))?.is_some())
    }

    /// Tells whether a mailbox was deleted and its messages are being removed.
    pub(super) fn is_dropped(&self, mailbox: u32) -> Result<bool, Trouble> {
        Ok(self.sweep.get((SWEEP_MAILBOX, mailbox.into()))?.is_some())
    }

    /// An account's address, or its number where that can't be read.
    pub(super) fn account(&self, id: u32) -> Result<Place, Trouble> {
        let record = row::<AccountRecord>(load(&self.accounts, id))?.there();
        let address = record.map_or_else(|| format!("number {id}"), |record| record.address.to_string());
        Ok(Place::Account { id, address })
    }

    /// What a mailbox is called.
    pub(super) fn mailbox(&self, id: u32) -> Result<Place, Trouble> {
        Ok(Place::Mailbox { id, name: self.mailbox_name(id)? })
    }

    fn mailbox_name(&self, id: u32) -> Result<String, Trouble> {
        let known = match row::<MailboxRecord>(load(&self.mailboxes, id))?.there() {
            Some(record) => Some((record.account, record.name.as_str().to_owned())),
            None => self.named(id)?,
        };
        let Some((account, name)) = known else { return Ok(format!("number {id}")) };
        Ok(match self.account(account)? {
            Place::Account { address, .. } => format!("{name} of {address}"),
            _ => name,
        })
    }

    /// Account and name under which a mailbox is listed. Goes through the whole list.
    fn named(&self, id: u32) -> Result<Option<(u32, String)>, Trouble> {
        for entry in self.names.iter()? {
            let (key, found) = entry?;
            if found.value() == id {
                let (account, name) = key.value();
                return Ok(Some((account, name.to_owned())));
            }
        }
        Ok(None)
    }

    /// What a message is called, with its day and subject where they can be read.
    pub(super) fn message(&self, mailbox: u32, uid: u32) -> Result<Place, Trouble> {
        let record = row::<MessageRecord>(load(&self.messages, (mailbox, uid)))?.there();
        let subject = match &record {
            Some(record) => self.subject(record.blob)?,
            None => None,
        };
        let date = record.map(|record| record.internal_date);
        Ok(Place::Message { mailbox, name: self.mailbox_name(mailbox)?, uid, date, subject })
    }

    /// What a queued message is called.
    pub(super) fn queued(&self, id: u64) -> Result<Place, Trouble> {
        let record = row::<QueuedRecord>(load(&self.queue, id))?.there();
        let subject = match &record {
            Some(record) => self.subject(record.blob)?,
            None => None,
        };
        Ok(Place::Queued { id, from: record.map(|record| record.from.to_string()), subject })
    }

    /// The subject of a body, where its structure can be read.
    pub(super) fn subject(&self, body: u64) -> Result<Option<String>, Trouble> {
        let kept = row::<StructureRecord>(load(&self.structures, body))?.there();
        let structure = kept.and_then(|StructureRecord(Bytes(bytes))| postcard::from_bytes::<Structure>(&bytes).ok());
        let subject = structure.as_ref().and_then(|structure| structure.field(Field::Subject));
        Ok(subject.map(|subject| short(&decode_words(subject))))
    }

    /// A piece of a body, header included, as [`crate::store::blob::read_whole`] asks for it; `last`
    /// is the number of the last one.
    pub(super) fn piece(&self, body: u64, index: u32, last: bool, take: &mut dyn FnMut(&[u8])) -> Result<(), Trouble> {
        let tail = if last { self.tails.get(body)? } else { None };
        let piece = match tail {
            Some(piece) => Some(piece),
            None => self.pieces.get((body, index))?,
        };
        if let Some(piece) = piece {
            take(piece.value());
        }
        Ok(())
    }

    /// Tells whether there are pieces of a body.
    pub(super) fn has_pieces(&self, body: u64) -> Result<bool, Trouble> {
        let tail = self.tails.get(body)?.is_some();
        Ok(tail || self.pieces.range((body, 0)..=(body, u32::MAX))?.next().is_some())
    }

    /// The bodies that messages refer to: a message's mailbox, uid, body and size, while `take` says
    /// true. Records that can't be read are passed over.
    pub(super) fn each_reference(
        &self,
        take: &mut dyn FnMut(Reference) -> Result<(), super::Halt>,
    ) -> Result<(), super::Halt> {
        SOURCES.iter().try_for_each(|source| source(self, take))
    }
}

/// Who refers to a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reference {
    /// The body.
    pub(super) body: u64,
    /// Size that the referrer knows, in bytes.
    pub(super) size: u32,
    pub(super) by: Referrer,
}

/// What refers to a body.
#[derive(Clone, Copy, Debug)]
pub(super) enum Referrer {
    /// The message of this mailbox and uid.
    Message(u32, u32),
    /// The queued message of this number.
    Queued(u64),
}

impl Referrer {
    pub(super) fn place(self, view: &View) -> Result<Place, Trouble> {
        match self {
            Self::Message(mailbox, uid) => view.message(mailbox, uid),
            Self::Queued(id) => view.queued(id),
        }
    }
}

type Source = fn(&View, &mut dyn FnMut(Reference) -> Result<(), super::Halt>) -> Result<(), super::Halt>;

/// Everything that counts as a reference to a body. A table whose rows hold on to bodies is added
/// here and in [`Referrer`], and nowhere else.
const SOURCES: &[Source] = &[messages, queued];

fn messages(view: &View, take: &mut dyn FnMut(Reference) -> Result<(), super::Halt>) -> Result<(), super::Halt> {
    for entry in view.messages.iter().map_err(Trouble::from)? {
        let (key, value) = entry.map_err(Trouble::from)?;
        let (mailbox, uid) = key.value();
        let Ok(record) = MessageRecord::decode(key.value(), value.value()) else { continue };
        take(Reference { body: record.blob, size: record.size, by: Referrer::Message(mailbox, uid) })?;
    }
    Ok(())
}

fn queued(view: &View, take: &mut dyn FnMut(Reference) -> Result<(), super::Halt>) -> Result<(), super::Halt> {
    for entry in view.queue.iter().map_err(Trouble::from)? {
        let (key, value) = entry.map_err(Trouble::from)?;
        let id = key.value();
        let Ok(record) = QueuedRecord::decode(id, value.value()) else { continue };
        take(Reference { body: record.blob, size: record.size, by: Referrer::Queued(id) })?;
    }
    Ok(())
}
