//! Annotations of mailboxes and accounts (RFC 5464): plans, changes, reads.
//!
//! They are few and small: all of an account's together are bounded ([`ANNOTATIONS_MAX`]), so they are
//! read, counted and removed at once.

use std::ops::RangeInclusive;

use redb::ReadableTable;

use super::change::Op;
use super::error::{ReadError, Trouble, WriteError};
use super::message::Plan;
use super::record::{AnnotationRecord, Bytes, Record};
use super::table::{ANNOTATION, OF_ACCOUNT, Tables};
use super::{Pending, Reader, Store};
use crate::mail::annotation::{ANNOTATION_COST, ANNOTATION_MAX, ANNOTATIONS_MAX, Annotation, EntryName};
use crate::mail::mailbox::{AccountId, MailboxId};

/// A row's key: account, mailbox or [`OF_ACCOUNT`], entry.
type Key<'k> = (u32, u32, &'k str);

/// Sets annotations of a mailbox, or of the account; without a value one is removed. All or none.
fn annotate(
    tables: &mut Tables<'_>,
    account: AccountId,
    mailbox: Option<MailboxId>,
    changes: Vec<(EntryName, Option<Vec<u8>>)>,
) -> Plan<()> {
    let account = account.0;
    tables.load_account(account)?.ok_or(WriteError::NoSuchAccount)?;
    if let Some(id) = mailbox {
        let owned = tables.load_mailbox(id.0)?.is_some_and(|record| record.account == account);
        owned.then_some(()).ok_or(WriteError::NoSuchMailbox)?;
    }
    let mailbox = mailbox.map_or(OF_ACCOUNT, |id| id.0);
    let adds = changes.iter().any(|(_, value)| value.is_some());
    if changes.iter().any(|(_, value)| value.as_ref().is_some_and(|value| value.len() > ANNOTATION_MAX)) {
        return Err(WriteError::Limit("size of an annotation").into());
    }
    let mut used = 0;
    let table = tables.annotation()?;
    for row in table.range((account, 0, "")..(account.saturating_add(1), 0, ""))? {
        let (key, value) = row.map_err(Trouble::from)?;
        let (_, of, entry) = key.value();
        if of != mailbox || !changes.iter().any(|(changed, _)| changed.as_str() == entry) {
            used += entry.len() + value.value().len() + ANNOTATION_COST;
        }
    }
    let mut ops: Vec<Op> = Vec::new();
    for (entry, value) in changes {
        used += value.as_ref().map_or(0, |value| entry.as_str().len() + value.len() + ANNOTATION_COST);
        let there = tables.annotation()?.get((account, mailbox, entry.as_str())).map_err(Trouble::from)?.is_some();
        if there || value.is_some() {
            ops.push(Op::Annotate { account, mailbox, entry: entry.as_str().to_owned(), value: value.map(Bytes) });
        }
    }
    if adds && used > ANNOTATIONS_MAX {
        return Err(WriteError::Limit("annotations of the account").into());
    }
    Ok(((), ops))
}

/// The ops by which what is said of `from` is said of `to` as well.
pub(super) fn copied(tables: &mut Tables<'_>, account: u32, from: u32, to: u32) -> Result<Vec<Op>, Trouble> {
    let rows = tables.annotation()?.range((account, from, "")..(account, from.saturating_add(1), ""))?;
    let op = |row: Result<(redb::AccessGuard<'_, Key<'static>>, redb::AccessGuard<'_, &'static [u8]>), _>| {
        let (key, value) = row?;
        let AnnotationRecord(value) = decode(key.value(), value.value())?;
        Ok(Op::Annotate { account, mailbox: to, entry: key.value().2.to_owned(), value: Some(value) })
    };
    rows.map(op).collect()
}

/// Does [`Op::Annotate`].
pub(super) fn put(
    tables: &mut Tables<'_>,
    (account, mailbox): (u32, u32),
    entry: &str,
    value: Option<&Bytes>,
) -> Result<(), Trouble> {
    let table = tables.annotation()?;
    match value {
        Some(value) => {
            let record = AnnotationRecord(value.clone()).encode(((account, mailbox), entry))?;
            table.insert((account, mailbox, entry), record.as_slice())?;
        }
        None => drop(table.remove((account, mailbox, entry))?),
    }
    Ok(())
}

/// Removes what is said of these mailboxes of an account.
pub(super) fn forget(tables: &mut Tables<'_>, account: u32, mailboxes: RangeInclusive<u32>) -> Result<(), Trouble> {
    let table = tables.annotation()?;
    let from = (account, *mailboxes.start(), "");
    let rows = match mailboxes.end().checked_add(1) {
        Some(end) => table.range(from..(account, end, ""))?,
        None => table.range(from..(account.saturating_add(1), 0, ""))?,
    };
    let keys = rows.map(|row| row.map(|(key, _)| (key.value().1, key.value().2.to_owned())));
    for (mailbox, entry) in keys.collect::<Result<Vec<_>, _>>()? {
        table.remove((account, mailbox, entry.as_str()))?;
    }
    Ok(())
}

/// Tells whether a row is what was written.
pub(super) fn is_whole(key: Key<'_>, value: &[u8]) -> bool {
    decode(key, value).is_ok() && EntryName::new(key.2).is_some()
}

fn decode((account, mailbox, entry): Key<'_>, value: &[u8]) -> Result<AnnotationRecord, Trouble> {
    AnnotationRecord::decode(((account, mailbox), entry), value)
}

impl Reader {
    /// What is said of a mailbox, or of the account, sorted by entry.
    pub fn annotations(&self, account: AccountId, mailbox: Option<MailboxId>) -> Result<Vec<Annotation>, ReadError> {
        let mailbox = mailbox.map_or(OF_ACCOUNT, |id| id.0);
        let read = || {
            let mut found = Vec::new();
            for row in self.table(ANNOTATION)?.range((account.0, mailbox, "")..)? {
                let (key, value) = row?;
                if (key.value().0, key.value().1) != (account.0, mailbox) {
                    break;
                }
                let AnnotationRecord(Bytes(value)) = decode(key.value(), value.value())?;
                let entry = EntryName::new(key.value().2).ok_or_else(|| Trouble::damaged(AnnotationRecord::TABLE))?;
                found.push(Annotation { entry, value });
            }
            Ok(found)
        };
        self.told(read())
    }
}

impl Store {
    /// Sets annotations of a mailbox, or of the account; without a value one is removed. All or none.
    pub fn annotate(
        &self,
        account: AccountId,
        mailbox: Option<MailboxId>,
        changes: Vec<(EntryName, Option<Vec<u8>>)>,
    ) -> Pending<()> {
        self.plan(move |tables| annotate(tables, account, mailbox, changes))
    }
}
