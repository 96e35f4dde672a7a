//! The spam filter's learned state: a fixed table of its own, saved here in numbered pieces.
//!
//! Only what changed is given, at most hourly and at stop, so a save costs no sync and no journal:
//! readers see it at once, the next checkpoint makes it durable, and closing the store makes one.
//! All pieces of one save are written in one transaction, so after a power cut all of them are
//! there or none; what a cut takes is the saves since the last checkpoint, which the filter learns
//! again or does without. To forget is the user's wish, and durable like any other change. Each
//! piece is sealed: a flipped bit, or a piece under another's number, is an error.

use redb::ReadableTable;

use crate::mail::mailbox::AccountId;

use super::change::Op;
use super::error::{ReadError, Trouble, WriteError};
use super::message::Plan;
use super::table::{LEARNED, Tables};
use super::{Pending, Reader, Store, seal};

/// Largest piece in bytes: sealed and with its key it fits a page of 16 KiB (STORAGE section 2).
pub const LEARNED_PIECE_MAX: usize = 16_320;

/// Most pieces of one learner: 4 MiB of them.
pub const LEARNED_PIECES_MAX: u16 = 258;

/// Bytes of the index that a piece takes up: a page.
pub(super) const PIECE_SPACE: u64 = 16 << 10;

/// The table's name in its seals.
pub(super) const NAME: &str = "learned";

/// A learner's number in the table: 0 is the box, an account's is one above its own, which is never
/// the highest.
pub(super) fn number(learner: Option<AccountId>) -> u32 {
    learner.map_or(0, |account| account.0.saturating_add(1))
}

/// Writes pieces, without the journal.
fn save(tables: &mut Tables<'_>, learner: Option<AccountId>, pieces: &[(u16, Vec<u8>)]) -> Plan<()> {
    if let Some(account) = learner {
        tables.load_account(account.0)?.ok_or(WriteError::NoSuchAccount)?;
    }
    if pieces.iter().any(|(piece, bytes)| *piece >= LEARNED_PIECES_MAX || bytes.len() > LEARNED_PIECE_MAX) {
        return Err(WriteError::Limit("size of the learned state").into());
    }
    for (piece, bytes) in pieces {
        let key = (number(learner), *piece);
        let mut value = seal::begin();
        value.extend_from_slice(bytes);
        let new = tables.learned()?.insert(key, seal::seal(NAME, key, value).as_slice())?.is_none();
        tables.progress.kept = tables.progress.kept.saturating_add(if new { PIECE_SPACE } else { 0 });
        tables.touched = true;
    }
    Ok(((), Vec::new()))
}

/// Plans to forget.
fn plan_forget(tables: &mut Tables<'_>, learner: Option<AccountId>) -> Plan<()> {
    let learner = number(learner);
    let none = tables.learned()?.range((learner, 0)..=(learner, u16::MAX))?.next().is_none();
    Ok(((), if none { Vec::new() } else { vec![Op::ForgetLearned { learner }] }))
}

/// Removes all pieces of a learner.
pub(super) fn forget(tables: &mut Tables<'_>, learner: u32) -> Result<(), Trouble> {
    let pieces = tables.learned()?.range((learner, 0)..=(learner, u16::MAX))?.map(|row| Ok(row?.0.value()));
    for key in pieces.collect::<Result<Vec<_>, Trouble>>()? {
        tables.learned()?.remove(key)?;
        tables.progress.kept = tables.progress.kept.saturating_sub(PIECE_SPACE);
    }
    Ok(())
}

impl Store {
    /// Saves pieces of what an account, or with `None` the box, has learnt; the others stay. Resolves
    /// when readers see them: they are durable with the next checkpoint, all or none.
    pub fn save_learned(&self, learner: Option<AccountId>, pieces: Vec<(u16, Vec<u8>)>) -> Pending<()> {
        self.plan_mail(move |tables| save(tables, learner, &pieces))
    }

    /// Forgets all that a learner has learnt; durable when it resolves.
    pub fn forget_learned(&self, learner: Option<AccountId>) -> Pending<()> {
        self.plan(move |tables| plan_forget(tables, learner))
    }
}

impl Reader {
    /// A piece as it was saved last; `None` where none was.
    ///
    /// # Errors
    /// [`ReadError::Storage`] naming `learned` also when the piece is not what was saved: then it
    /// counts as never learnt, and the filter starts it anew.
    pub fn learned(&self, learner: Option<AccountId>, piece: u16) -> Result<Option<Vec<u8>>, ReadError> {
        let key = (number(learner), piece);
        let read = || {
            let value = self.table(LEARNED)?.get(key)?;
            value.map(|value| Ok(seal::open(NAME, key, value.value())?.to_vec())).transpose()
        };
        self.told(read())
    }
}
