//! Reads: one redb read transaction for one command.
//!
//! Nothing here borrows: an iterator keeps the transaction alive by itself and goes when the
//! command is answered. Only short bodies are read in it ([`Bodies`]); others are read elsewhere
//! (`shelf`), because a slow client must not pin a transaction's pages.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use redb::{AccessGuard, Key, Range, ReadOnlyTable, TableDefinition, Value};

use crate::mail::mailbox::{AccountId, Mailbox, MailboxId, MailboxName, ModSeq, Uid, UidValidity};
use crate::mail::message::{BlobId, Message, UidSet};
use crate::mail::rights::Rights;
use crate::mail::structure::Structure;

use super::blob;
use super::engine::Shared;
use super::error::{ReadError, Trouble};
use super::gate::View;
use super::record::{MailboxRecord, MessageRecord, Record, StructureRecord, VanishRecord};
use super::shelf::Shelf;
use super::table::{MBOX, MBOXNAME, MSG, NOTE, STRUCTURE, SUBSCRIPTION, VANISH, load};

/// One read transaction: the store as it is now, for one command.
pub struct Reader {
    transaction: View,
    shared: Arc<Shared>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Reader")
    }
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, ReadError> {
        Ok(Self { transaction: shared.begin_read()?, shared })
    }

    /// Opens a table.
    pub(super) fn table<K: Key, V: Value>(
        &self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<ReadOnlyTable<K, V>, Trouble> {
        Ok(self.transaction.open_table(table)?)
    }

    /// Whom troubles are told, and what keeps the index open, for rows that outlive this reader.
    pub(super) fn keep(&self) -> (Arc<Shared>, Arc<()>) {
        (self.shared.clone(), self.transaction.token())
    }

    /// What callers see of a result.
    pub(super) fn told<T>(&self, result: Result<T, Trouble>) -> Result<T, ReadError> {
        result.map_err(|trouble| self.shared.failed(trouble))
    }

    /// An account's mailboxes, sorted by name, INBOX first.
    pub fn mailboxes(&self, account: AccountId) -> Result<Vec<Mailbox>, ReadError> {
        self.told(self.list(account.0))
    }

    fn list(&self, account: u32) -> Result<Vec<Mailbox>, Trouble> {
        let (mailboxes, subscribed) = (self.table(MBOX)?, self.table(SUBSCRIPTION)?);
        let mut found = Vec::new();
        for row in self.table(MBOXNAME)?.range((account, "")..(account.saturating_add(1), ""))? {
            let (key, id) = row?;
            let record = load(&mailboxes, id.value())?.ok_or_else(|| Trouble::damaged("mailbox"))?;
            is_named(&record, key.value())?;
            let subscribed = subscribed.get(key.value())?.is_some();
            found.push(told_mailbox(id.value(), record, subscribed)?);
        }
        // Stable: the others stay sorted as the table has them.
        found.sort_by_key(|mailbox| !mailbox.name.is_inbox());
        Ok(found)
    }

    /// One mailbox.
    pub fn mailbox(&self, id: MailboxId) -> Result<Option<Mailbox>, ReadError> {
        self.told(self.find(id.0))
    }

    fn find(&self, id: u32) -> Result<Option<Mailbox>, Trouble> {
        let Some(record) = load::<MailboxRecord, _>(&self.table(MBOX)?, id)? else { return Ok(None) };
        let subscribed = self.table(SUBSCRIPTION)?.get((record.account, record.name.as_str()))?.is_some();
        told_mailbox(id, record, subscribed).map(Some)
    }

    /// One mailbox by name.
    pub fn mailbox_named(&self, account: AccountId, name: &MailboxName) -> Result<Option<Mailbox>, ReadError> {
        let find = || {
            let key = (account.0, name.as_str());
            let Some(id) = self.table(MBOXNAME)?.get(key)?.map(|id| id.value()) else { return Ok(None) };
            let record = load(&self.table(MBOX)?, id)?.ok_or_else(|| Trouble::damaged("mailbox"))?;
            is_named(&record, key)?;
            self.find(id)
        };
        self.told(find())
    }

    /// Whose a mailbox is.
    pub fn owner(&self, id: MailboxId) -> Result<Option<AccountId>, ReadError> {
        let read = || Ok(load::<MailboxRecord, _>(&self.table(MBOX)?, id.0)?.map(|record| AccountId(record.account)));
        self.told(read())
    }

    /// Tells whether an account is subscribed to a name.
    pub fn is_subscribed(&self, account: AccountId, name: &MailboxName) -> Result<bool, ReadError> {
        let read = || Ok(self.table(SUBSCRIPTION)?.get((account.0, name.as_str()))?.is_some());
        self.told(read())
    }

    /// Subscribed names, sorted; some may be no mailbox.
    pub fn subscriptions(&self, account: AccountId) -> Result<Vec<MailboxName>, ReadError> {
        let read = || {
            let rows = self.table(SUBSCRIPTION)?.range((account.0, "")..(account.0.saturating_add(1), ""))?;
            let names =
                rows.map(|row| MailboxName::new(row?.0.value().1).ok_or_else(|| Trouble::damaged("subscribed name")));
            names.collect()
        };
        self.told(read())
    }

    /// Every uid of a mailbox.
    pub fn uids(&self, mailbox: MailboxId) -> Result<UidSet, ReadError> {
        self.told(self.every_uid(mailbox.0))
    }

    fn every_uid(&self, mailbox: u32) -> Result<UidSet, Trouble> {
        let mut set = UidSet::new();
        let mut run: Option<(Uid, Uid)> = None;
        for row in self.table(MSG)?.range((mailbox, 0)..=(mailbox, u32::MAX))? {
            let Some(uid) = Uid::new(row?.0.value().1) else { continue };
            run = match run {
                Some((first, last)) if last.successor() == Some(uid) => Some((first, uid)),
                ended => {
                    if let Some((first, last)) = ended {
                        set.insert_range(first, last);
                    }
                    Some((uid, uid))
                }
            };
        }
        if let Some((first, last)) = run {
            set.insert_range(first, last);
        }
        Ok(set)
    }

    /// One message.
    pub fn message(&self, mailbox: MailboxId, uid: Uid) -> Result<Option<Message>, ReadError> {
        self.told(self.row(mailbox, uid)).map(|row| row.map(|row| told_message(uid, &row)))
    }

    fn row(&self, mailbox: MailboxId, uid: Uid) -> Result<Option<MessageRecord>, Trouble> {
        load(&self.table(MSG)?, (mailbox.0, uid.get()))
    }

    /// Messages from `first` to `last`, ascending.
    pub fn messages(
        &self,
        mailbox: MailboxId,
        first: Uid,
        last: Uid,
    ) -> Result<impl Iterator<Item = Result<Message, ReadError>> + use<>, ReadError> {
        // A reversed range would be an error of the caller's; it holds nothing.
        let end = last.get().max(first.get());
        let rows = self.table(MSG).and_then(|table| Ok(table.range((mailbox.0, first.get())..=(mailbox.0, end))?));
        let (rows, shared, token) = (self.told(rows)?, self.shared.clone(), self.transaction.token());
        Ok(rows.take_while(move |_| first <= last).filter_map(move |row| {
            // Rows need their index open, even if another takes its place.
            let _ = &token;
            let read = || {
                let (key, value) = row?;
                Ok(Uid::new(key.value().1).zip(Some(MessageRecord::decode(key.value(), value.value())?)))
            };
            match read() {
                Ok(found) => found.map(|(uid, row)| Ok(told_message(uid, &row))),
                Err(trouble) => Some(Err(shared.failed(trouble))),
            }
        }))
    }

    /// What the part walker found in a message.
    pub fn structure(&self, mailbox: MailboxId, uid: Uid) -> Result<Option<Structure>, ReadError> {
        let read = || {
            let Some(row) = self.row(mailbox, uid)? else { return Ok(None) };
            let structure = self.table(STRUCTURE)?.get(row.blob)?.ok_or_else(|| Trouble::damaged("structure"))?;
            StructureRecord::structure(row.blob, structure.value()).map(Some)
        };
        self.told(read())
    }

    /// Bodies and their structures, for many of them.
    pub fn bodies(&self) -> Result<Bodies, ReadError> {
        let open = || Ok((self.table(STRUCTURE)?, Shelf::new(&self.transaction, self.shared.clone())?));
        let (structures, pieces) = self.told(open())?;
        let (shared, token) = self.keep();
        Ok(Bodies { structures, ahead: RefCell::default(), pieces, shared, _token: token })
    }

    /// Uids that were removed after `since`. Where that is no longer known exactly, more uids than
    /// were removed, none of which is there (RFC 7162 section 3.2.5.2 allows that).
    pub fn vanished(&self, mailbox: MailboxId, since: ModSeq) -> Result<UidSet, ReadError> {
        self.told(self.removed(mailbox.0, since.0))
    }

    fn removed(&self, mailbox: u32, since: u64) -> Result<UidSet, Trouble> {
        let Some(record) = load::<MailboxRecord, _>(&self.table(MBOX)?, mailbox)? else { return Ok(UidSet::new()) };
        if since < record.vanish_from {
            return Ok(gaps(&self.every_uid(mailbox)?, record.uid_next));
        }
        let mut removed = UidSet::new();
        for row in self.table(VANISH)?.range((mailbox, since.saturating_add(1))..=(mailbox, u64::MAX))? {
            let (key, value) = row?;
            let VanishRecord(uids) = VanishRecord::decode(key.value(), value.value())?;
            for (first, last) in uids.ranges() {
                removed.insert_range(*first, *last);
            }
        }
        Ok(removed)
    }

    /// A note put by [`super::Store::put_note`].
    pub fn note(&self, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let read = || Ok(self.table(NOTE)?.get(name)?.map(|value| value.value().to_vec()));
        self.told(read())
    }
}

/// How far a body may lie behind the one asked for before, in numbers, to be come to row by row.
const NEAR: u64 = 8;

/// Where the row of the next body is, if it is asked for after the one before: a mailbox's bodies mostly
/// have numbers that rise with its uids, and the next row costs a fraction of looking one up.
#[derive(Default)]
struct Ahead {
    last: u64,
    rows: Option<Range<'static, u64, &'static [u8]>>,
}

impl Ahead {
    fn get(
        &mut self,
        table: &ReadOnlyTable<u64, &'static [u8]>,
        key: u64,
    ) -> Result<Option<AccessGuard<'static, &'static [u8]>>, Trouble> {
        let is_near = key.checked_sub(self.last).is_some_and(|gap| (1..=NEAR).contains(&gap));
        self.last = key;
        let mut rows = match self.rows.take() {
            Some(rows) if is_near => rows,
            None if is_near => table.range(key..)?,
            _ => return Ok(table.get(key)?),
        };
        while let Some(row) = rows.next().transpose()? {
            let (found, value) = row;
            if found.value() >= key {
                let value = (found.value() == key).then_some(value);
                // What was come to too early is passed now.
                self.rows = value.is_some().then_some(rows);
                return Ok(value);
            }
        }
        Ok(None)
    }
}

/// Bodies and their structures, as of one reader's moment.
pub struct Bodies {
    structures: ReadOnlyTable<u64, &'static [u8]>,
    ahead: RefCell<Ahead>,
    pieces: Shelf,
    shared: Arc<Shared>,
    /// Rows need their index open, even if another takes its place.
    _token: Arc<()>,
}

impl Bodies {
    /// What the part walker found in a body; `None` when there is no such body.
    pub fn structure(&self, blob: BlobId) -> Result<Option<Structure>, ReadError> {
        let read = || {
            let Some(row) = self.ahead.borrow_mut().get(&self.structures, blob.0)? else { return Ok(None) };
            StructureRecord::structure(blob.0, row.value()).map(Some)
        };
        read().map_err(|trouble| self.shared.failed(trouble))
    }

    /// The first `wanted` bytes of a body, or all where it has fewer; `None` when that is more than
    /// `most`, or more than 64 KiB.
    pub fn beginning(&self, blob: BlobId, wanted: u64, most: usize) -> Result<Option<Vec<u8>>, ReadError> {
        blob::beginning(&self.pieces, blob, wanted, most)
    }
}

impl fmt::Debug for Bodies {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Bodies")
    }
}

/// The list of names has no checksum of its own: what it leads to must agree.
fn is_named(record: &MailboxRecord, (account, name): (u32, &str)) -> Result<(), Trouble> {
    let agrees = record.account == account && record.name.as_str() == name;
    agrees.then_some(()).ok_or_else(|| Trouble::damaged("mailbox name"))
}

/// The uids below `next` that are not in `there`.
fn gaps(there: &UidSet, next: u32) -> UidSet {
    let mut gaps = UidSet::new();
    let mut from = 1;
    let end = (next, next);
    for (first, last) in there.ranges().iter().map(|(first, last)| (first.get(), last.get())).chain([end]) {
        if let (true, Some(low), Some(high)) = (from < first, Uid::new(from), Uid::new(first.saturating_sub(1))) {
            gaps.insert_range(low, high);
        }
        from = last.saturating_add(1);
    }
    gaps
}

fn told_mailbox(id: u32, record: MailboxRecord, subscribed: bool) -> Result<Mailbox, Trouble> {
    let uid = |number| Uid::new(number).ok_or_else(|| Trouble::damaged("mailbox"));
    Ok(Mailbox {
        id: MailboxId(id),
        account: AccountId(record.account),
        name: record.name,
        special_use: record.special_use,
        subscribed,
        uid_validity: UidValidity(uid(record.uid_validity)?.0),
        uid_next: uid(record.uid_next)?,
        highest_modseq: ModSeq(record.highest_modseq),
        flags_modseq: ModSeq(record.flags_modseq),
        messages: record.messages,
        unseen: record.unseen,
        deleted: record.deleted,
        size: record.size,
        deleted_size: record.deleted_size,
        keywords: record.keywords,
        recent_from: uid(record.recent_from)?,
        rights: Rights::ALL,
    })
}

fn told_message(uid: Uid, row: &MessageRecord) -> Message {
    Message {
        uid,
        flags: row.flags,
        modseq: ModSeq(row.modseq),
        internal_date: row.internal_date,
        saved: row.saved,
        size: row.size,
        blob: BlobId(row.blob),
    }
}

#[cfg(test)]
mod tests {
    use redb::{Database, ReadableDatabase};

    use super::*;

    #[test]
    fn gaps_are_what_is_not_there() {
        let uids = |numbers: &[u32]| numbers.iter().filter_map(|number| Uid::new(*number)).collect::<UidSet>();
        assert_eq!(gaps(&uids(&[2, 3, 6]), 9), uids(&[1, 4, 5, 7, 8]));
        assert_eq!(gaps(&uids(&[1, 2]), 3), uids(&[]));
        assert_eq!(gaps(&uids(&[]), 3), uids(&[1, 2]));
        assert_eq!(gaps(&uids(&[]), 1), uids(&[]));
    }

    #[test]
    fn a_row_is_found_in_whatever_order_rows_are_asked_for() {
        let index = Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap();
        let transaction = index.begin_write().unwrap();
        let there: Vec<u64> = (0..2000).filter(|key| key % 7 != 3 && !(500..600).contains(key)).collect();
        for key in &there {
            transaction.open_table(STRUCTURE).unwrap().insert(key, key.to_le_bytes().as_slice()).unwrap();
        }
        transaction.commit().unwrap();
        let table = index.begin_read().unwrap().open_table(STRUCTURE).unwrap();
        let mut ahead = Ahead::default();
        let up = 0..2010_u64;
        let jumps = (0..4000_u64).map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 53);
        let steps = (0..700_u64).map(|number| number * 3 - number % 2);
        for key in up.clone().chain(up.rev()).chain(jumps).chain(steps).chain([7, 7, 8, 8, 9, 11, 10, 3, 4]) {
            let found = ahead.get(&table, key).unwrap().map(|row| row.value().to_vec());
            let wanted = there.contains(&key).then(|| key.to_le_bytes().to_vec());
            assert_eq!(found, wanted, "{key}");
        }
    }
}
