//! What `pillarbox check-store --repair` changes.
//!
//! Each op sets what the repair found, but for the references: those it changes by an amount,
//! because the sweep counts references down outside the journal.

use std::collections::BTreeMap;

use redb::ReadableTable;

use super::{Op, change_mailbox, existing, log_vanished, use_space};
use crate::mail::address::Address;
use crate::mail::envelope::{ForwardPath, Notify, Recipient};
use crate::mail::queue::{Delivery, Due, Stage};
use crate::store::blob::BlobRecord;
use crate::store::error::Trouble;
use crate::store::gram;
use crate::store::learned::PIECE_SPACE;
use crate::store::notify::QUEUE_WATCH;
use crate::store::queue::{QUEUED_RECIPIENTS_MAX, QueuedRecord, RecipientRecord};
use crate::store::record::{MessageRecord, Record, StructureRecord, Tally};
use crate::store::table::{Tables, load};

/// Recipients of a queued message at most.
#[allow(clippy::cast_possible_truncation, reason = "a constant far below")]
const RECIPIENTS_MAX: u32 = QUEUED_RECIPIENTS_MAX as u32;

pub(super) fn apply(tables: &mut Tables<'_>, seq: u64, op: &Op) -> Result<(), Trouble> {
    match op {
        Op::Numbers { blob, account, mailbox, uid_validity } => {
            let progress = &mut tables.progress;
            progress.blob = progress.blob.max(*blob);
            progress.account = progress.account.max(*account);
            progress.mailbox = progress.mailbox.max(*mailbox);
            progress.uid_validity = progress.uid_validity.max(*uid_validity);
            Ok(())
        }
        Op::Mailbox { id, record } => {
            tables.progress.mailbox = tables.progress.mailbox.max(id.saturating_add(1));
            tables.progress.uid_validity = tables.progress.uid_validity.max(record.uid_validity);
            tables.wake(record.account);
            tables.save_mailbox(*id, record)
        }
        Op::ListMailbox { account, name, id } => {
            tables.wake(*account);
            let key = (*account, name.as_str());
            match id {
                Some(id) => tables.mboxname()?.insert(key, *id)?,
                None => tables.mboxname()?.remove(key)?,
            };
            Ok(())
        }
        Op::Message { mailbox, uid, record } => {
            let key = (*mailbox, *uid);
            let row = MessageRecord { modseq: seq, ..*record };
            let (mut before, mut after) = (Tally::default(), Tally::default());
            if let Some(kept) = load::<MessageRecord, _>(tables.msg()?, key)? {
                before.add(kept.flags, kept.size);
            }
            after.add(row.flags, row.size);
            tables.msg()?.insert(key, row.encode(key)?.as_slice())?;
            let mut record = existing(tables, *mailbox)?;
            record.count_out(&before);
            record.count_in(&after);
            change_mailbox(tables, seq, *mailbox, record)?;
            charge(tables, *mailbox, &after, &before)
        }
        Op::Forget { mailbox, uids } => {
            let mut tally = Tally::default();
            for uid in uids.iter() {
                let key = (*mailbox, uid.get());
                // What a record that can't be read has added to the counters nobody knows; they are
                // counted anew after this.
                if let Some(row) = tables.msg()?.remove(key)?
                    && let Ok(row) = MessageRecord::decode(key, row.value())
                {
                    tally.add(row.flags, row.size);
                }
            }
            let Ok(Some(mut record)) = tables.load_mailbox(*mailbox) else { return Ok(()) };
            record.uid_next = record.uid_next.max(uids.last().map_or(1, |last| last.get().saturating_add(1)));
            record.count_out(&tally);
            log_vanished(tables, seq, *mailbox, &mut record, uids)?;
            change_mailbox(tables, seq, *mailbox, record)?;
            charge(tables, *mailbox, &Tally::default(), &tally)
        }
        Op::ForgetVanished { mailbox } => {
            let table = tables.vanish()?;
            let logged = table.range((*mailbox, 0)..=(*mailbox, u64::MAX))?.map(|row| Ok(row?.0.value().1));
            for at in logged.collect::<Result<Vec<_>, Trouble>>()? {
                table.remove((*mailbox, at))?;
            }
            let Ok(Some(mut record)) = tables.load_mailbox(*mailbox) else { return Ok(()) };
            (record.vanish_from, record.vanish_bytes) = (seq, 0);
            change_mailbox(tables, seq, *mailbox, record)
        }
        Op::Refer { id, by } => change_body(tables, *id, |record| {
            let refs = i64::from(record.refs).saturating_add(*by).clamp(0, u32::MAX.into());
            record.refs = u32::try_from(refs).unwrap_or(u32::MAX);
        }),
        Op::Hash { id, hash } => change_body(tables, *id, |record| record.hash = Some(*hash)),
        Op::Structure { id, structure } => {
            if tables.blob()?.get(*id)?.is_none() {
                return Ok(());
            }
            let row = StructureRecord(structure.clone()).encode(*id)?;
            let before = tables.structure()?.insert(*id, row.as_slice())?.map_or(0, |kept| kept.value().len());
            // As `shelf` reckons the room a structure takes.
            let kept = tables.progress.kept.saturating_add(2 * row.len() as u64);
            tables.progress.kept = kept.saturating_sub(2 * before as u64);
            Ok(())
        }
        Op::List { kind, id, listed: true } => tables.leave_to_sweep(*kind, *id),
        Op::List { kind, id, listed: false } => {
            tables.sweep()?.remove((*kind, *id))?;
            Ok(())
        }
        Op::Requeue { id } => requeue(tables, *id),
        Op::ForgetSheet { first } => gram::forget(tables, *first, *first),
        Op::ForgetLearnedPiece { learner, piece } => {
            if tables.learned()?.remove((*learner, *piece))?.is_some() {
                tables.progress.kept = tables.progress.kept.saturating_sub(PIECE_SPACE);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What stands for a recipient whose record was lost: settled, so that nothing is sent.
fn lost_recipient() -> Result<RecipientRecord, Trouble> {
    let address = Address::parse("lost@invalid").map_err(|_| Trouble::damaged("address"))?;
    let recipient = Recipient { path: ForwardPath::Address(address), notify: Notify::default(), original: None };
    let delivery = Delivery { stage: Stage::Failed(None), ..Delivery::waiting(Due(0)) };
    Ok(RecipientRecord { recipient, delivery })
}

/// Makes a queued message's counters and schedule anew from its recipients. Without a record or a
/// body it goes, and so it does when nobody waits for it; its body is left to whoever looks for
/// bodies that nobody refers to.
fn requeue(tables: &mut Tables<'_>, id: u64) -> Result<(), Trouble> {
    for key in rows_of(tables.qsched()?.iter()?.map(|row| Ok(row?.0.value())), |key: &(u64, u64, u32)| key.1 == id)? {
        tables.qsched()?.remove(key)?;
    }
    let destinations = tables.qdest()?.iter()?.map(|row| {
        let (key, _) = row?;
        let (domain, due, id, number) = key.value();
        Ok((domain.to_owned(), due, id, number))
    });
    for (domain, due, id, number) in rows_of(destinations, |key: &(String, u64, u64, u32)| key.2 == id)? {
        tables.qdest()?.remove((domain.as_str(), due, id, number))?;
    }
    let found = tables.qrcpt()?.range((id, 0)..=(id, u32::MAX))?.map(|row| {
        let (key, value) = row?;
        Ok((key.value().1, RecipientRecord::decode(key.value(), value.value()).ok()))
    });
    let mut found = found.collect::<Result<BTreeMap<_, _>, Trouble>>()?;

    let mut stays = false;
    let mut record = load::<QueuedRecord, _>(tables.queue()?, id).ok().flatten();
    let body = match &record {
        Some(record) => tables.blob()?.get(record.blob)?.map(|value| BlobRecord::decode(record.blob, value.value())),
        None => None,
    };
    if let Some(record) = record.as_mut().filter(|_| body.is_some()) {
        let numbers = found.last_key_value().map_or(0, |(last, _)| last.saturating_add(1));
        record.recipients = record.recipients.min(RECIPIENTS_MAX).max(numbers);
        for number in 0..record.recipients {
            let row = found.entry(number).or_default();
            if row.is_none() {
                *row = Some(lost_recipient()?);
            }
        }
        let unsettled = found.values().flatten().filter(|row| !row.delivery.stage.is_settled()).count();
        record.unsettled = u32::try_from(unsettled).unwrap_or(u32::MAX);
        stays = unsettled > 0;
        if let Some(Ok(body)) = body {
            record.size = u32::try_from(body.size).unwrap_or(u32::MAX);
        }
    }
    tables.wake(QUEUE_WATCH);
    let Some(record) = record.filter(|_| stays) else {
        for number in found.into_keys() {
            tables.qrcpt()?.remove((id, number))?;
        }
        tables.queue()?.remove(id)?;
        return Ok(());
    };
    for (number, row) in found {
        let Some(row) = row else { continue };
        tables.qrcpt()?.insert((id, number), row.encode((id, number))?.as_slice())?;
        if let Some((domain, Due(due))) = row.scheduled() {
            tables.qsched()?.insert((due, id, number), ())?;
            tables.qdest()?.insert((domain, due, id, number), ())?;
        }
    }
    tables.queue()?.insert(id, record.encode(id)?.as_slice())?;
    Ok(())
}

/// The rows that belong to one message.
fn rows_of<K>(rows: impl Iterator<Item = Result<K, Trouble>>, belongs: impl Fn(&K) -> bool) -> Result<Vec<K>, Trouble> {
    rows.filter(|row| row.as_ref().map_or(true, &belongs)).collect()
}

/// Counts in and out of the account's usage; an account that can't be read is counted anew later.
fn charge(tables: &mut Tables<'_>, mailbox: u32, more: &Tally, less: &Tally) -> Result<(), Trouble> {
    let owner = existing(tables, mailbox)?.account;
    match tables.load_account(owner) {
        Ok(Some(_)) => use_space(tables, mailbox, more, less),
        Err(trouble) if trouble.is_of_disk() => Err(trouble),
        _ => Ok(()),
    }
}

fn change_body(tables: &mut Tables<'_>, id: u64, change: impl FnOnce(&mut BlobRecord)) -> Result<(), Trouble> {
    let Ok(Some(mut record)) = load::<BlobRecord, _>(tables.blob()?, id) else { return Ok(()) };
    change(&mut record);
    tables.blob()?.insert(id, record.encode(id)?.as_slice())?;
    Ok(())
}
