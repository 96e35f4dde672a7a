//! Repair of what belongs to a body: references, structure, hash, and mail that nobody refers to;
//! and of the queue, whose messages refer to bodies too.

use redb::ReadableTable;

use super::super::finding::{Counter, Miscount};
use super::super::recover::MAILBOX;
use super::super::view::{Row, row};
use super::{Mend, NOTHING, did, first_account};
use crate::mail::date::ZonedTime;
use crate::mail::mailbox::{AccountId, MailboxName};
use crate::mail::message::Flags;
use crate::store::blob::{BlobRecord, BodyHash};
use crate::store::change::Op;
use crate::store::error::{Fault, Trouble};
use crate::store::mailbox;
use crate::store::queue::{QueuedRecord, RecipientRecord};
use crate::store::record::{AccountRecord, Bytes, MailboxRecord, Record};
use crate::store::table::{SWEEP_BODY, SWEEP_STAGED, Tables, load};

/// A body's references: what they differ by is what they are changed by, for what changed since the
/// count changed both.
pub(super) fn references(tables: &mut Tables<'_>, id: u64, counts: &[Miscount]) -> Mend {
    let Some(count) = counts.iter().find(|count| count.of == Counter::References) else { return NOTHING };
    if row::<BlobRecord>(load(tables.blob()?, id))?.there().is_none() {
        return NOTHING;
    }
    let by = i64::try_from(count.found).unwrap_or(i64::MAX) - i64::try_from(count.kept).unwrap_or(i64::MAX);
    did("they were counted anew", vec![Op::Refer { id, by }, Op::List { kind: SWEEP_BODY, id, listed: false }])
}

/// A structure without a body, when there are no pieces either: it goes with the sweep.
pub(super) fn lone_structure(tables: &mut Tables<'_>, id: u64) -> Mend {
    let body = tables.blob()?.get(id).map_err(Fault::from)?.is_some();
    let staged = tables.sweep()?.get((SWEEP_STAGED, id)).map_err(Fault::from)?.is_some();
    if body || staged || has_pieces(tables, id)? {
        return NOTHING;
    }
    did("it is removed", vec![Op::List { kind: SWEEP_BODY, id, listed: true }])
}

/// A queued message: what can be read of it stays, its counters and schedule are made anew.
pub(super) fn queued(tables: &mut Tables<'_>, id: u64) -> Mend {
    let record = row::<QueuedRecord>(load(tables.queue()?, id))?.there();
    let body = match &record {
        Some(record) => tables.blob()?.get(record.blob).map_err(Fault::from)?.is_some(),
        None => false,
    };
    let what = if body {
        "its recipients were counted anew; one whose record was damaged gets nothing".to_owned()
    } else {
        let mut waiting = Vec::new();
        for entry in tables.qrcpt()?.range((id, 0)..=(id, u32::MAX))? {
            let (key, value) = entry.map_err(Fault::from)?;
            if let Ok(row) = RecipientRecord::decode(key.value(), value.value())
                && !row.delivery.stage.is_settled()
            {
                waiting.push(row.recipient.path.to_string());
            }
        }
        let waiting = if waiting.is_empty() { "nobody who is known".to_owned() } else { waiting.join(", ") };
        format!("it was removed; it was for {waiting}")
    };
    did(what, vec![Op::Requeue { id }])
}

/// A body that nobody refers to becomes a message of the mailbox `Recovered`.
pub(in super::super) fn recover(
    tables: &mut Tables<'_>,
    id: u64,
    account: Option<u32>,
    date: Option<ZonedTime>,
) -> Mend {
    let listed = tables.sweep()?.get((SWEEP_BODY, id)).map_err(Fault::from)?.is_some();
    let Some(body) = row::<BlobRecord>(load(tables.blob()?, id))?.there().filter(|_| !listed) else { return NOTHING };
    let size = u32::try_from(body.size).map_err(|_| Trouble::damaged("size of a body"))?;
    let account = match account {
        Some(account) => account,
        None => match first_account(tables)? {
            Some(first) => first,
            None => return NOTHING,
        },
    };
    let Row::There(owner) = row::<AccountRecord>(tables.load_account(account))? else { return NOTHING };
    let Some((target, uid, mut ops)) = recovered(tables, account)? else { return NOTHING };
    ops.push(Op::Refer { id, by: 1 - i64::from(body.refs) });
    ops.push(Op::Place {
        mailbox: target,
        uid,
        blob: id,
        size,
        internal_date: date.unwrap_or(ZonedTime::utc(tables.now)),
        saved: tables.now,
        flags: Flags::default(),
    });
    did(format!("it is message {uid} in {MAILBOX} of {} now", owner.address), ops)
}

/// The mailbox for recovered mail, its next uid, and what makes it; none while its record is damaged.
fn recovered(tables: &mut Tables<'_>, account: u32) -> Result<Option<(u32, u32, Vec<Op>)>, Fault> {
    let known = tables.mboxname()?.get((account, MAILBOX))?.map(|id| id.value());
    if let Some(id) = known {
        let record = row::<MailboxRecord>(tables.load_mailbox(id))?.there();
        return Ok(record.map(|record| (id, record.uid_next.max(1), Vec::new())));
    }
    let Some(name) = MailboxName::new(MAILBOX) else { return Ok(None) };
    let (id, mut ops) = mailbox::create(tables, AccountId(account), &name, None)?;
    ops.push(Op::Subscribe { account, name, subscribed: true });
    Ok(Some((id.0, 1, ops)))
}

/// A body's structure, made anew from it.
pub(in super::super) fn structure(tables: &mut Tables<'_>, id: u64, structure: Vec<u8>) -> Mend {
    if tables.blob()?.get(id).map_err(Fault::from)?.is_none() {
        return NOTHING;
    }
    did("it was made anew from the body", vec![Op::Structure { id, structure: Bytes(structure) }])
}

/// Hashes of bodies that had none.
pub(in super::super) fn hashes(tables: &mut Tables<'_>, hashes: Vec<(u64, BodyHash)>) -> Mend {
    let mut ops = Vec::new();
    for (id, hash) in hashes {
        let record = row::<BlobRecord>(load(tables.blob()?, id))?.there();
        if record.is_some_and(|record| record.hash.is_none()) {
            ops.push(Op::Hash { id, hash });
        }
    }
    did("", ops)
}

/// Tells whether there are pieces of a body.
pub(super) fn has_pieces(tables: &mut Tables<'_>, id: u64) -> Result<bool, Trouble> {
    let tail = tables.tail()?.get(id)?.is_some();
    Ok(tail || tables.piece()?.range((id, 0)..=(id, u32::MAX))?.next().is_some())
}
