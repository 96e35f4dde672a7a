//! What `pillarbox check-store --repair` changes.
//!
//! Each op sets what the repair found, but for the references: those it changes by an amount,
//! because the sweep counts references down outside the journal.

use redb::ReadableTable;

use super::{Op, change_mailbox, existing, log_vanished, use_space};
use crate::store::blob::BlobRecord;
use crate::store::error::Trouble;
use crate::store::record::{MessageRecord, Record, StructureRecord, Tally};
use crate::store::table::{Tables, load};

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
            use_space(tables, *mailbox, &after, &before)
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
            use_space(tables, *mailbox, &Tally::default(), &tally)
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
        _ => Ok(()),
    }
}

fn change_body(tables: &mut Tables<'_>, id: u64, change: impl FnOnce(&mut BlobRecord)) -> Result<(), Trouble> {
    let Ok(Some(mut record)) = load::<BlobRecord, _>(tables.blob()?, id) else { return Ok(()) };
    change(&mut record);
    tables.blob()?.insert(id, record.encode(id)?.as_slice())?;
    Ok(())
}
