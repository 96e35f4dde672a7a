//! Reads again what a crash would need of the ring: the newest header block and every group above
//! the last checkpoint. Changes nothing.

use super::{BLOCK, BLOCK_LEN, Header, Journal, JournalError, State};

impl Journal {
    /// Reads the header and every group above the last checkpoint again, and compares them with
    /// what was written. For the thread that writes the ring.
    ///
    /// # Errors
    /// [`JournalError::Damaged`] when something is not what was written, [`JournalError::Disk`] when
    /// it can't be read.
    pub fn verify(&self) -> Result<(), JournalError> {
        if self.state != State::Ready {
            return Err(JournalError::Disk(std::io::Error::other("it failed before")));
        }
        let mut newest: Option<Header> = None;
        for at in [0, BLOCK] {
            let mut block = [0; BLOCK_LEN];
            self.disk.read_at(at, &mut block)?;
            if let Some(header) = Header::parse(&block)?
                && newest.is_none_or(|known| known.generation < header.generation)
            {
                newest = Some(header);
            }
        }
        if newest != Some(self.header) {
            return Err(JournalError::Damaged("its header is not what was written"));
        }
        let Some(first) = self.waiting.front() else { return Ok(()) };
        let mut reading = Self {
            disk: self.disk.clone(),
            header: self.header,
            head: first.mark,
            last_seq: self.checkpoint,
            checkpoint: self.checkpoint,
            waiting: std::collections::VecDeque::new(),
            volume: 0,
            state: State::Opened,
        };
        let mut payload = Vec::new();
        for group in &self.waiting {
            let found = reading.read_group(group.mark, &mut payload)?;
            let (found, _, crc) = found
                .filter(|(found, ..)| found.last_seq == group.last_seq)
                .ok_or(JournalError::Damaged("a change above the last checkpoint is not what was written"))?;
            reading.step_past(found, crc);
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
        journal.verify().unwrap();
        let flip = |at: u64| {
            let mut byte = [0];
            disk.read_at(at, &mut byte).unwrap();
            disk.write_at(at, &[byte[0] ^ 1]).unwrap();
        };
        // The group before the checkpoint is needed no more.
        flip(DATA + 60);
        journal.verify().unwrap();
        for at in [BLOCK + 30, DATA + BLOCK + 100, DATA + 4 * BLOCK + 5000] {
            flip(at);
            assert!(matches!(journal.verify(), Err(JournalError::Damaged(_))), "{at}");
            flip(at);
        }
        journal.verify().unwrap();
    }
}
