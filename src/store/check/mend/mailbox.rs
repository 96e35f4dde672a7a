//! Repair of mailboxes and their messages.

use redb::ReadableTable;

use super::super::finding::Damage;
use super::super::mailboxes::{Count, known_keywords};
use super::super::recover::MAILBOX;
use super::super::view::{Row, row};
use super::body::has_pieces;
use super::{Mend, NOTHING, did, first_account};
use crate::mail::mailbox::{MailboxName, Uid};
use crate::mail::message::{Flags, SystemFlags, UidSet};
use crate::store::blob::BlobRecord;
use crate::store::change::Op;
use crate::store::error::{Fault, Trouble};
use crate::store::record::{MailboxRecord, MessageRecord, Record};
use crate::store::table::{SWEEP_MAILBOX, Tables, load};

/// Records, counters, name and account of a mailbox.
pub(super) fn whole(tables: &mut Tables<'_>, id: u32) -> Mend {
    if tables.sweep()?.get((SWEEP_MAILBOX, id.into())).map_err(Fault::from)?.is_some() {
        return NOTHING;
    }
    let kept = row(tables.load_mailbox(id))?;
    let count = count(tables, id)?;
    if matches!(kept, Row::Missing) && count.next_uid == 0 {
        return NOTHING;
    }
    let kept = kept.there();
    let mut record = match &kept {
        Some(record) => record.clone(),
        None => match lost(tables, id)? {
            Some(record) => record,
            None => return NOTHING,
        },
    };
    let mut ops = Vec::new();
    if tables.account()?.get(record.account).map_err(Fault::from)?.is_none() {
        let Some(first) = first_account(tables)? else { return NOTHING };
        record.account = first;
    }
    let listed = tables.mboxname()?.get((record.account, record.name.as_str())).map_err(Fault::from)?;
    let listed = listed.map(|listed| listed.value());
    if listed != Some(id) {
        if let Some(other) = listed
            && match row(tables.load_mailbox(other))? {
                Row::There(other) => (other.account, &other.name) == (record.account, &record.name),
                // Its name is all that is known of it.
                Row::Damaged => true,
                Row::Missing => false,
            }
        {
            record.name = free_name(tables, record.account, id)?;
        }
        let (account, name) = (record.account, record.name.as_str().to_owned());
        ops.push(Op::ListMailbox { account, name, id: Some(id) });
    }
    let unknown = count.keywords & !known_keywords(&record);
    set_counts(&mut record, &count, tables.seq);
    if kept.as_ref() == Some(&record) && ops.is_empty() && unknown == 0 {
        return NOTHING;
    }
    record.highest_modseq = tables.seq;
    let what = match &kept {
        Some(_) => "it was counted anew".to_owned(),
        None => format!("its record was made anew as {}, and clients read it afresh", record.name.as_str()),
    };
    ops.push(Op::Mailbox { id, record });
    if unknown != 0 {
        let uids = with_keywords(tables, id, unknown)?;
        let clear = Flags { system: SystemFlags(0), keywords: unknown };
        ops.push(Op::Flag { mailbox: id, uids, clear, set: Flags::default() });
    }
    did(what, ops)
}

fn count(tables: &mut Tables<'_>, id: u32) -> Result<Count, Trouble> {
    let mut count = Count::default();
    for entry in tables.msg()?.range((id, 0)..=(id, u32::MAX))? {
        let (key, value) = entry?;
        let uid = key.value().1;
        match MessageRecord::decode(key.value(), value.value()) {
            Ok(row) => count.add(uid, &row),
            Err(_) => count.next_uid = uid.saturating_add(1),
        }
    }
    Ok(count)
}

fn set_counts(record: &mut MailboxRecord, count: &Count, seq: u64) {
    let tally = count.tally;
    (record.messages, record.unseen, record.deleted) = (tally.messages, tally.unseen, tally.deleted);
    (record.size, record.deleted_size) = (tally.size, tally.deleted_size);
    record.uid_next = record.uid_next.max(count.next_uid).max(1);
    record.recent_from = record.recent_from.clamp(1, record.uid_next);
    record.uid_validity = record.uid_validity.max(1);
    record.highest_modseq = record.highest_modseq.max(count.highest_modseq).max(record.flags_modseq).min(seq);
}

/// The messages that have one of these keywords.
fn with_keywords(tables: &mut Tables<'_>, id: u32, keywords: u64) -> Result<UidSet, Trouble> {
    let mut uids = UidSet::new();
    for entry in tables.msg()?.range((id, 0)..=(id, u32::MAX))? {
        let (key, value) = entry?;
        let Ok(row) = MessageRecord::decode(key.value(), value.value()) else { continue };
        if row.flags.keywords & keywords != 0
            && let Some(uid) = Uid::new(key.value().1)
        {
            uids.insert(uid);
        }
    }
    Ok(uids)
}

/// A mailbox whose record is lost: under the name that leads to it, else under a new one. Its
/// UIDVALIDITY is new, because nobody knows the old one.
fn lost(tables: &mut Tables<'_>, id: u32) -> Result<Option<MailboxRecord>, Trouble> {
    let mut found = None;
    for entry in tables.mboxname()?.iter()? {
        let (key, listed) = entry?;
        if listed.value() == id {
            let (account, name) = key.value();
            found = MailboxName::new(name).map(|name| (account, name));
            break;
        }
    }
    let (account, name) = if let Some(found) = found {
        found
    } else {
        let Some(account) = first_account(tables)? else { return Ok(None) };
        (account, free_name(tables, account, id)?)
    };
    let clock = u32::try_from(tables.now.0).unwrap_or(0);
    let seq = tables.seq;
    let uid_validity = tables.progress.uid_validity.max(clock).saturating_add(1);
    Ok(Some(MailboxRecord { vanish_from: seq, ..MailboxRecord::empty(account, name, uid_validity, seq) }))
}

/// A name for a mailbox that has none, or one that another has.
fn free_name(tables: &mut Tables<'_>, account: u32, id: u32) -> Result<MailboxName, Trouble> {
    for attempt in 0_u32.. {
        let text = if attempt == 0 { format!("{MAILBOX} {id}") } else { format!("{MAILBOX} {id}-{attempt}") };
        let Some(name) = MailboxName::new(&text) else { break };
        if tables.mboxname()?.get((account, name.as_str()))?.is_none() {
            return Ok(name);
        }
    }
    Err(Trouble::damaged("no name is free"))
}

/// A mailbox's log of removed messages: it begins anew.
pub(super) fn vanished(tables: &mut Tables<'_>, id: u32) -> Mend {
    if tables.sweep()?.get((SWEEP_MAILBOX, id.into())).map_err(Fault::from)?.is_some() {
        return NOTHING;
    }
    did("the log begins anew", vec![Op::ForgetVanished { mailbox: id }])
}

/// A message whose record or body is lost, or that has a wrong size.
pub(super) fn message(tables: &mut Tables<'_>, mailbox: u32, uid: u32, damage: &Damage) -> Mend {
    let Some(number) = Uid::new(uid) else { return NOTHING };
    let record = match row::<MessageRecord>(load(tables.msg()?, (mailbox, uid)))? {
        Row::Missing => return NOTHING,
        Row::Damaged => None,
        Row::There(record) => Some(record),
    };
    let mut uids = UidSet::new();
    uids.insert(number);
    let forget = vec![Op::Forget { mailbox, uids }];
    match (record, damage) {
        (None, Damage::Unreadable) => did("it was removed; if its body is whole, it is recovered", forget),
        (Some(record), Damage::NoBody) => match row::<BlobRecord>(load(tables.blob()?, record.blob))? {
            Row::Missing if !has_pieces(tables, record.blob)? => did("it was removed, nothing was left of it", forget),
            _ => NOTHING,
        },
        (Some(record), Damage::Size { .. }) if row(tables.load_mailbox(mailbox))?.there().is_some() => {
            let Some(body) = row::<BlobRecord>(load(tables.blob()?, record.blob))?.there() else { return NOTHING };
            let size = u32::try_from(body.size).unwrap_or(u32::MAX);
            if size == record.size {
                return NOTHING;
            }
            let record = MessageRecord { size, ..record };
            did("its size was set right", vec![Op::Message { mailbox, uid, record }])
        }
        _ => NOTHING,
    }
}

/// A name that leads to no mailbox, or a subscription of nobody's.
pub(super) fn name(tables: &mut Tables<'_>, account: u32, name: &str, listed: bool) -> Mend {
    if listed {
        let id = tables.mboxname()?.get((account, name)).map_err(Fault::from)?.map(|id| id.value());
        let Some(id) = id else { return NOTHING };
        let leads = match row(tables.load_mailbox(id))? {
            Row::There(record) => record.account == account && record.name.as_str() == name,
            Row::Missing => false,
            Row::Damaged => true,
        };
        if leads {
            return NOTHING;
        }
        return did("it was removed", vec![Op::ListMailbox { account, name: name.to_owned(), id: None }]);
    }
    let Some(name) = MailboxName::new(name) else { return NOTHING };
    did("it was removed", vec![Op::Subscribe { account, name, subscribed: false }])
}
