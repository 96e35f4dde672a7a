//! Removes in steps what nobody refers to any more: bodies, and the messages of deleted mailboxes.
//!
//! A step is small, so a mailbox of 100,000 messages or a body of 50 MB never makes one long
//! transaction. Steps bypass the journal: what they remove is listed in SWEEP, and a step that a
//! crash takes back is done again. Reference counts and sums commute with every op, so it does not
//! matter where among the changes of a replay a step stood.

use redb::ReadableTable;

use super::blob::BlobRecord;
use super::error::Trouble;
use super::record::{MessageRecord, Record};
use super::shelf::{erase, release};
use super::table::{SWEEP_BODY, SWEEP_MAILBOX, SWEEP_STAGED, Tables, load};

/// What one step removes: a piece, or a message with its row and structure, counts one. Pieces are
/// 16 KiB at most, so a step is 4 MiB at most.
const STEP_MAX: usize = 256;

/// Does one step; tells whether it found anything to do.
pub(super) fn step(tables: &mut Tables<'_>) -> Result<bool, Trouble> {
    let mut left = STEP_MAX;
    tables.pieces_left = u32::try_from(STEP_MAX).unwrap_or(u32::MAX);
    while left > 0 {
        let first = tables.sweep()?.range((SWEEP_BODY, 0)..(SWEEP_STAGED, 0))?.next().transpose()?;
        let Some((kind, id)) = first.map(|(key, _)| key.value()) else { break };
        tables.touched = true;
        let (removed, emptied) = match kind {
            SWEEP_BODY => sweep_body(tables, id, left)?,
            _ => sweep_mailbox(tables, id, left)?,
        };
        if emptied {
            tables.sweep()?.remove((kind, id))?;
        }
        left = left.saturating_sub(removed.max(1));
    }
    Ok(tables.touched)
}

/// Removes up to `most` pieces; tells how many, and whether the body is gone.
fn sweep_body(tables: &mut Tables<'_>, id: u64, most: usize) -> Result<(usize, bool), Trouble> {
    // The list of what is to go has no checksum: a flipped bit in it must not take live mail.
    if load::<BlobRecord, _>(tables.blob()?, id)?.is_some_and(|record| record.refs > 0) {
        tracing::error!(body = id, "a body that messages refer to was listed for removal; it stays");
        return Ok((0, true));
    }
    let table = tables.piece()?;
    let found = table.range((id, 0)..=(id, u32::MAX))?.take(most);
    let found = found.map(|row| Ok(row?.0.value().1)).collect::<Result<Vec<_>, Trouble>>()?;
    for index in &found {
        table.remove((id, *index))?;
    }
    if found.len() == most {
        return Ok((most, false));
    }
    tables.tail()?.remove(id)?;
    erase(tables, id)?;
    Ok((found.len(), true))
}

/// Removes up to `most` messages; tells how many, and whether the mailbox is gone.
fn sweep_mailbox(tables: &mut Tables<'_>, id: u64, most: usize) -> Result<(usize, bool), Trouble> {
    let mailbox = u32::try_from(id).map_err(|_| Trouble::damaged("mailbox to be removed"))?;
    if tables.load_mailbox(mailbox)?.is_some() {
        tracing::error!(mailbox, "a mailbox that is there was listed for removal; it stays");
        return Ok((0, true));
    }
    let table = tables.msg()?;
    let found = table.range((mailbox, 0)..=(mailbox, u32::MAX))?.take(most).map(|row| {
        let (key, value) = row?;
        Ok((key.value().1, MessageRecord::decode(key.value(), value.value())?.blob))
    });
    let found = found.collect::<Result<Vec<_>, Trouble>>()?;
    for (uid, blob) in &found {
        tables.msg()?.remove((mailbox, *uid))?;
        release(tables, *blob)?;
    }
    if found.len() == most {
        return Ok((most, false));
    }
    // The log of removals is bounded (`change::VANISH_BYTES_MAX`), so it goes at once.
    let table = tables.vanish()?;
    let logged = table.range((mailbox, 0)..=(mailbox, u64::MAX))?.map(|row| Ok(row?.0.value().1));
    for seq in logged.collect::<Result<Vec<_>, Trouble>>()? {
        table.remove((mailbox, seq))?;
    }
    Ok((found.len(), true))
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
