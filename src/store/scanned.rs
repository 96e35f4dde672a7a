//! What the scan leaves behind of a message, and recent mail for whoever scans it again.
//!
//! It stands behind the structure in the structure's row: such a row is written with every body anyway, so
//! it costs its own bytes and no table, and goes with the body. Whoever wants the structure reads up to its
//! end and no further, as postcard does; an older program does not see it.

use std::collections::BTreeSet;

use crate::mail::date::Timestamp;
use crate::mail::mailbox::{AccountId, MailboxId, Uid};
use crate::mail::message::BlobId;
use crate::mail::scanned::Scanned;
use crate::mail::structure::Structure;

use super::error::{Trouble, WriteError};
use super::record::{Bytes, MailboxRecord, MessageRecord, Record, StructureRecord};
use super::table::{MBOX, MSG, STRUCTURE, load};
use super::{ReadError, Reader};

/// The bytes of a structure's row: the structure, and what the scan leaves behind.
pub(super) fn structure_bytes(structure: &Structure, scanned: Option<&Scanned>) -> Result<Vec<u8>, WriteError> {
    let too_large = |_| WriteError::Limit("structure of a message");
    let bytes = postcard::to_allocvec(structure).map_err(too_large)?;
    match scanned {
        Some(scanned) => postcard::to_extend(scanned, bytes).map_err(too_large),
        None => Ok(bytes),
    }
}

/// The bytes of the structure alone; `None` when they are none.
pub(super) fn walked(bytes: &[u8]) -> Option<&[u8]> {
    let (_, rest) = postcard::take_from_bytes::<Structure>(bytes).ok()?;
    bytes.get(..bytes.len() - rest.len())
}

/// Where a body stands as a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// Whose it is.
    pub account: AccountId,
    /// In which mailbox.
    pub mailbox: MailboxId,
    /// Its uid there.
    pub uid: Uid,
}

impl Reader {
    /// What the scan left behind of a body; `None` when it was never scanned, or is not there any more.
    pub fn scanned(&self, blob: BlobId) -> Result<Option<Scanned>, ReadError> {
        let read = || {
            let Some(record) = load(&self.table(STRUCTURE)?, blob.0)? else { return Ok(None) };
            let StructureRecord(Bytes(bytes)) = record;
            let (_, rest) =
                postcard::take_from_bytes::<Structure>(&bytes).map_err(|_| Trouble::damaged("structure"))?;
            // One that can't be read is as good as none: the message is looked at anew.
            Ok(postcard::from_bytes(rest).ok())
        };
        self.told(read())
    }

    /// The bodies, from `from` on and `most` at most, of messages that came at `since` or later, by number,
    /// which is the order in which they came. Mail in the mailbox `without` does not count.
    pub fn recent_bodies(
        &self,
        since: Timestamp,
        from: BlobId,
        most: usize,
        without: Option<MailboxId>,
    ) -> Result<Vec<BlobId>, ReadError> {
        let mut found = BTreeSet::new();
        let done = self.each_recent(since, without, &mut |_, row| {
            if row.blob >= from.0 {
                found.insert(row.blob);
                if found.len() > most {
                    found.pop_last();
                }
            }
        });
        self.told(done.map(|()| found.into_iter().map(BlobId).collect()))
    }

    /// Where a body that came at `since` or later stands, but for the mailbox `without`.
    pub fn whereabouts(
        &self,
        blob: BlobId,
        since: Timestamp,
        without: Option<MailboxId>,
    ) -> Result<Vec<Whereabouts>, ReadError> {
        let mut found = Vec::new();
        let done = self.each_recent(since, without, &mut |place, row| {
            if row.blob == blob.0 {
                found.push(place);
            }
        });
        self.told(done.map(|()| found))
    }

    /// Goes through the messages that came at `since` or later, of each mailbox the newest first. Uids rise
    /// with the time at which messages came into their mailbox, so only its end is read; where the clock was
    /// set back meanwhile that may be less than it should be.
    fn each_recent(
        &self,
        since: Timestamp,
        without: Option<MailboxId>,
        visit: &mut dyn FnMut(Whereabouts, &MessageRecord),
    ) -> Result<(), Trouble> {
        let messages = self.table(MSG)?;
        for row in self.table(MBOX)?.range::<u32>(..)? {
            let (key, value) = row?;
            let mailbox = key.value();
            if without == Some(MailboxId(mailbox)) {
                continue;
            }
            let account = AccountId(MailboxRecord::decode(mailbox, value.value())?.account);
            for row in messages.range((mailbox, 0)..=(mailbox, u32::MAX))?.rev() {
                let (key, value) = row?;
                let record = MessageRecord::decode(key.value(), value.value())?;
                if record.saved < since {
                    break;
                }
                let Some(uid) = Uid::new(key.value().1).filter(|_| record.internal_date.at >= since) else { continue };
                let place = Whereabouts { account, mailbox: MailboxId(mailbox), uid };
                visit(place, &record);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::scanned::Print;
    use crate::mail::structure::Walker;

    #[test]
    fn what_the_scan_leaves_stands_behind_the_structure_and_is_not_part_of_it() {
        let mut walker = Walker::new();
        walker.feed(b"Subject: x\r\n\r\nhello\r\n");
        let structure = walker.finish();
        let bare = structure_bytes(&structure, None).unwrap();
        let scanned = Scanned { set: 3, whole: true, prints: vec![Print { size: 7, ..Print::default() }] };
        let bytes = structure_bytes(&structure, Some(&scanned)).unwrap();
        assert_eq!(walked(&bytes), Some(bare.as_slice()));
        assert_eq!(walked(&bare), Some(bare.as_slice()));
        assert_eq!(walked(&[0xFF; 3]), None);
        // As programs read it that know nothing of scans.
        assert_eq!(postcard::from_bytes::<Structure>(&bytes).unwrap(), structure);
    }
}
