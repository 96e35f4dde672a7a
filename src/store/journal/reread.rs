//! Reads again what a crash would need of the ring: the newest header block and every group above
//! the last checkpoint. Changes nothing.

use super::header::header_blocks;
use super::{BLOCK, GROUP_HEADER, Journal, JournalError, State, group_is_whole, group_length};

impl Journal {
    /// Reads the header and every group above the last checkpoint again, and compares them with
    /// what was written. For the thread that writes the ring. [`Journal::verify`] in contrast looks
    /// for what a replay has missed.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] when something is not what was written, [`JournalError::Disk`] when
    /// it can't be read.
    pub fn reread(&self) -> Result<(), JournalError> {
        if self.state != State::Ready {
            return Err(JournalError::Disk(std::io::Error::other("it failed before")));
        }
        let found = header_blocks(&*self.disk, self.disk.len()?)?;
        if !found.contains(&Some(self.header)) {
            return Err(JournalError::Damaged("its header is not what was written"));
        }
        let mut payload = Vec::new();
        for group in &self.waiting {
            let mut header = [0; GROUP_HEADER];
            self.disk.read_at(group.mark.offset, &mut header)?;
            let length = group_length(&header).filter(|length| {
                let bytes = (GROUP_HEADER as u64).saturating_add(*length as u64).checked_next_multiple_of(BLOCK);
                bytes == Some(group.bytes)
            });
            let mut whole = false;
            if let Some(length) = length {
                payload.resize(length, 0);
                self.disk.read_at(group.mark.offset + GROUP_HEADER as u64, &mut payload)?;
                let (_, named) = header.split_at(8);
                let place =
                    [&self.header.store[..], &group.mark.number.to_le_bytes(), &group.mark.previous.to_le_bytes()];
                whole = named.starts_with(&place.concat()) && group_is_whole(&header, &payload);
            }
            if !whole {
                return Err(JournalError::Damaged("a change above the last checkpoint is not what was written"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::DATA;
    use super::*;
    use crate::store::disk::{Disk, MemoryDisk};
    use std::sync::Arc;

    #[test]
    fn a_flipped_bit_in_header_or_group_is_found() {
        let disk = MemoryDisk::default();
        let mut journal = Journal::open(Arc::new(disk.clone()), [7; 16], 1 << 20).unwrap();
        journal.replay(0, &mut |_, _, _| Ok(())).unwrap();
        journal.append(1, 1, b"old").unwrap();
        journal.checkpointed(1);
        for seq in 2..5 {
            journal.append(seq, seq, &[7; 9000]).unwrap();
        }
        journal.reread().unwrap();
        let flip = |at: u64| {
            let mut byte = [0];
            disk.read_at(at, &mut byte).unwrap();
            disk.write_at(at, &[byte[0] ^ 1]).unwrap();
        };
        // The group before the checkpoint is needed no more.
        flip(DATA + 60);
        journal.reread().unwrap();
        // Of the header blocks the newest alone is needed.
        let mut noticed = 0;
        for at in [30, BLOCK + 30] {
            flip(at);
            noticed += u32::from(journal.reread().is_err());
            flip(at);
        }
        assert_eq!(noticed, 1);
        for at in [DATA + BLOCK + 100, DATA + 4 * BLOCK + 5000] {
            flip(at);
            assert!(matches!(journal.reread(), Err(JournalError::Damaged(_))), "{at}");
            flip(at);
        }
        journal.reread().unwrap();
    }
}
