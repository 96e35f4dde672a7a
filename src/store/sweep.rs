//! Removes in steps what nobody refers to any more: bodies, and the messages of deleted mailboxes.
//!
//! A step is small, so a mailbox of 100,000 messages or a body of 50 MB never makes one long
//! transaction. Steps bypass the journal: what they remove is listed in SWEEP, and a step that a
//! crash takes back is done again. Reference counts and sums commute with every op, so it does not
//! matter where among the changes of a replay a step stood.

use redb::ReadableTable;

use super::error::Trouble;
use super::record::{MessageRecord, Record};
use super::shelf::{erase, release};
use super::table::{SWEEP_BODY, SWEEP_MAILBOX, SWEEP_STAGED, Tables};

/// Pieces one step removes: about 2 MiB.
const PIECES_AT_ONCE: usize = 128;

/// Messages of a deleted mailbox one step removes.
const MESSAGES_AT_ONCE: usize = 256;

/// Does one step; tells whether there is more to do.
pub(super) fn step(tables: &mut Tables<'_>) -> Result<bool, Trouble> {
    let first = tables.sweep()?.range((SWEEP_BODY, 0)..(SWEEP_STAGED, 0))?.next().transpose()?;
    let Some((kind, id)) = first.map(|(key, _)| key.value()) else { return Ok(false) };
    tables.touched = true;
    let emptied = if kind == SWEEP_BODY { sweep_body(tables, id)? } else { sweep_mailbox(tables, id)? };
    if emptied {
        tables.sweep()?.remove((kind, id))?;
    }
    Ok(true)
}

fn sweep_body(tables: &mut Tables<'_>, id: u64) -> Result<bool, Trouble> {
    let table = tables.piece()?;
    let found = table.range((id, 0)..=(id, u32::MAX))?.take(PIECES_AT_ONCE);
    let found = found.map(|row| Ok(row?.0.value().1)).collect::<Result<Vec<_>, Trouble>>()?;
    for index in &found {
        table.remove((id, *index))?;
    }
    if found.len() == PIECES_AT_ONCE {
        return Ok(false);
    }
    tables.tail()?.remove(id)?;
    erase(tables, id)?;
    Ok(true)
}

fn sweep_mailbox(tables: &mut Tables<'_>, id: u64) -> Result<bool, Trouble> {
    let mailbox = u32::try_from(id).map_err(|_| Trouble::damaged("mailbox to be removed"))?;
    let table = tables.msg()?;
    let found = table.range((mailbox, 0)..=(mailbox, u32::MAX))?.take(MESSAGES_AT_ONCE).map(|row| {
        let (key, value) = row?;
        Ok((key.value().1, MessageRecord::decode(value.value())?.blob))
    });
    let found = found.collect::<Result<Vec<_>, Trouble>>()?;
    for (uid, blob) in &found {
        tables.msg()?.remove((mailbox, *uid))?;
        release(tables, *blob)?;
    }
    if found.len() == MESSAGES_AT_ONCE {
        return Ok(false);
    }
    // The log of removals is bounded (`change::VANISH_BYTES_MAX`), so it goes at once.
    let table = tables.vanish()?;
    let found = table.range((mailbox, 0)..=(mailbox, u64::MAX))?.map(|row| Ok(row?.0.value().1));
    for seq in found.collect::<Result<Vec<_>, Trouble>>()? {
        table.remove((mailbox, seq))?;
    }
    Ok(true)
}

/// Gives up a body whose staging was not finished.
pub(super) fn abandon(tables: &mut Tables<'_>, id: u64) -> Result<(), Trouble> {
    tables.touched = true;
    tables.sweep()?.remove((SWEEP_STAGED, id))?;
    tables.leave_to_sweep(SWEEP_BODY, id)
}

/// When the store opens: gives up every body whose staging a crash cut short, and tells whether
/// there is anything to sweep.
pub(super) fn begin(tables: &mut Tables<'_>) -> Result<bool, Trouble> {
    let staged = tables.sweep()?.range((SWEEP_STAGED, 0)..=(SWEEP_STAGED, u64::MAX))?;
    let staged = staged.map(|row| Ok(row?.0.value().1)).collect::<Result<Vec<_>, Trouble>>()?;
    for id in staged {
        abandon(tables, id)?;
    }
    let first = tables.sweep()?.range((SWEEP_BODY, 0)..=(SWEEP_MAILBOX, u64::MAX))?.next().transpose()?;
    Ok(first.is_some())
}
