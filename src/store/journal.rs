//! The ring file that makes a 250 durable (DESIGN section 4, STORAGE section 6).
//!
//! Two header blocks of 4 KiB stand at the front and are written in turn; each says whose ring it
//! is, how large, and where the first group above the last checkpoint begins. Groups follow: a
//! header {magic, crc32c, store, number, crc of the group before, length, first seq, last seq} and
//! the payload, padded to 4 KiB so that an acknowledged block is never rewritten before its reuse.
//! The file is written with zeros once and never truncated: only blocks already written cost no
//! file-system journal.
//!
//! A group that does not fit at the end starts again at the first data block. A reader needs no
//! mark for that: group n + 1 is the one that names n's checksum, after it or at the first data
//! block. So neither a group of an earlier lap nor one that was lost and written anew is ever
//! taken for it; and as every group names its store's secret number, no mail can pose as a group.
//!
//! After a failed sync the system's cache may show blocks that are not on the disk. So whoever
//! opens the ring makes what the replay finds durable elsewhere before the first append, and a
//! header block that may be in the cache only is written anew before the other one is. Against bits
//! that flip, a header block that is durable is written into the other place too, with the next
//! group, and groups that a replay should have reached are looked for ([`Journal::verify`]).

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::Disk;

mod header; // the blocks that say where to begin

pub use header::{Contents, contents};
use header::{Fields, Header, copy, create, header_blocks, is_zeros};

/// Unit of the ring in bytes: a flash page and a file-system block.
const BLOCK: u64 = 4096;
const BLOCK_LEN: usize = 4096;
/// Where the groups begin: after the two header blocks.
const DATA: u64 = 2 * BLOCK;
const GROUP_MAGIC: [u8; 4] = *b"pbxG";
/// How much is read at a time when the ring is looked through.
const WINDOW: usize = 16 * BLOCK_LEN;
/// Bytes of a group's header.
pub(super) const GROUP_HEADER: usize = 56;

/// Why the journal could not do something.
#[derive(Debug)]
pub enum JournalError {
    /// The group would overwrite groups above the last checkpoint: checkpoint first.
    Full,
    /// The group is larger than half the ring can ever hold.
    TooLarge,
    /// The file belongs to another store.
    Foreign,
    /// The file is no journal of ours; the text says what is wrong.
    Damaged(&'static str),
    /// The disk failed.
    Disk(io::Error),
}

impl fmt::Display for JournalError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => out.write_str("the journal is full until the next checkpoint"),
            Self::TooLarge => out.write_str("the change is larger than the journal takes"),
            Self::Foreign => out.write_str("the journal belongs to another store"),
            Self::Damaged(what) => write!(out, "the journal is damaged: {what}"),
            Self::Disk(error) => write!(out, "the journal's disk failed: {error}"),
        }
    }
}

impl std::error::Error for JournalError {}

impl From<io::Error> for JournalError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// Which header block is known to be durable, over all openings of a ring within one process: its
/// place, generation and a bit that is set, or zero. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<AtomicU64>);

/// Takes a group in a replay: its first and last sequence number, and its payload.
pub type TakeGroup<'t> = dyn FnMut(u64, u64, &[u8]) -> Result<(), JournalError> + 't;

/// The place of a group in the ring and in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    /// Where it begins, or, while it is not written yet, where the group before it ends.
    offset: u64,
    /// Counts groups since the ring was made; never reused for two groups that both came to be.
    number: u64,
    /// Checksum of the group before it.
    previous: u32,
}

/// A group above the last checkpoint.
#[derive(Clone, Copy, Debug)]
struct Group {
    mark: Mark,
    last_seq: u64,
    /// With header and padding.
    bytes: u64,
}

/// The ring. One thread writes it.
#[derive(Debug)]
pub struct Journal {
    disk: Arc<dyn Disk>,
    /// The newest header block on the disk. Groups from its tail on are never overwritten.
    header: Header,
    /// Which of the two places the next header block goes to.
    spare: u64,
    doubt: Doubt,
    /// Nothing was appended yet.
    fresh: bool,
    /// There is a header there that leads elsewhere, or none.
    unmirrored: bool,
    known: Known,
    /// The group to be written next.
    head: Mark,
    /// The highest sequence number in the ring or below it.
    last_seq: u64,
    /// Everything up to here is durable in the index.
    checkpoint: u64,
    /// Groups above the checkpoint, oldest first: at most one a block.
    waiting: VecDeque<Group>,
    volume: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Where the last group ends is not known before the replay.
    Opened,
    Ready,
    /// A write or sync failed: nobody knows what is on the disk until it is read again.
    Failed,
}

/// Whether the newest header block may be in the system's cache and not on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    No,
    /// It is not the one this process knows to be durable: a write or sync failed.
    Failed,
    /// An earlier process wrote it, and nobody can tell how that ended.
    Unknown,
}

impl Journal {
    /// Opens the ring of the store with this identity, or writes a new one of `bytes` when the file
    /// is empty (zeros, then a header block, each synced). `bytes` is rounded down to 4 KiB and is
    /// at least 64 KiB; an existing ring keeps its size. The identity must be random and stay
    /// within the store: it is what mail cannot guess.
    pub fn open(disk: Arc<dyn Disk>, store: [u8; 16], bytes: u64) -> Result<Self, JournalError> {
        Self::reopen(disk, store, bytes, &Known::default())
    }

    /// As [`Journal::open`], where this process may have had the ring open before, until it failed.
    pub fn reopen(disk: Arc<dyn Disk>, store: [u8; 16], bytes: u64, known: &Known) -> Result<Self, JournalError> {
        let len = disk.len()?;
        let found = header_blocks(&*disk, len)?;
        let newest = found.into_iter().flatten().max_by_key(|header| header.generation);
        let header = match newest {
            Some(header) if header.store != store => return Err(JournalError::Foreign),
            Some(header) if header.ring > len => return Err(JournalError::Damaged("it was cut short")),
            Some(header) => header,
            // A power cut while the ring was made leaves zeros and nothing else.
            None if is_zeros(&*disk, len)? => {
                let header = create(&*disk, store, bytes)?;
                known.is(&header, 0);
                header
            }
            None => return Err(JournalError::Damaged("both its header blocks are unreadable")),
        };
        let at = |place: u64, generation| {
            let found = if place == 0 { &found[0] } else { &found[1] };
            found.is_some_and(|found| found.generation == generation)
        };
        let newest = u64::from(at(1, header.generation));
        let (durable, doubt) = match known.block() {
            Some((place, generation)) if at(place, generation) => {
                (place, if generation == header.generation { Doubt::No } else { Doubt::Failed })
            }
            _ if found.iter().all(Option::is_some) => (newest, Doubt::Unknown),
            _ => (newest, Doubt::No),
        };
        Ok(Self {
            disk,
            header,
            spare: 1 - durable,
            doubt,
            fresh: true,
            unmirrored: found[0].map(|header| header.tail) != found[1].map(|header| header.tail),
            known: known.clone(),
            head: header.tail,
            last_seq: header.checkpoint,
            checkpoint: header.checkpoint,
            waiting: VecDeque::new(),
            volume: 0,
            state: State::Opened,
        })
    }

    /// Hands every group with a `last_seq` above `applied` to `take`, in order, and stands ready to
    /// append after the last. Stops at the first group that is torn, foreign or out of order.
    /// Call once, before the first append. `applied` is what is durable in the index.
    ///
    /// What was taken must be durable in the index, and [`Journal::checkpointed`] be told, before
    /// the first append: a group that only the cache shows may be missing from the chain later.
    pub fn replay(&mut self, applied: u64, take: &mut TakeGroup<'_>) -> Result<(), JournalError> {
        if self.state != State::Opened {
            return Err(JournalError::Damaged("it was read a second time"));
        }
        if applied < self.header.checkpoint {
            return Err(JournalError::Damaged("the index is older than the journal's last checkpoint"));
        }
        self.checkpoint = applied;
        let mut payload = Vec::new();
        while let Some((group, first_seq, crc)) = self.next_group(&mut payload)? {
            if group.last_seq > applied {
                take(first_seq, group.last_seq, &payload)?;
                self.waiting.push_back(group);
                self.volume += group.bytes;
            }
            if group.mark.number == self.header.tail.number {
                self.header.tail = group.mark;
            }
            self.step_past(group, crc);
        }
        self.last_seq = self.last_seq.max(applied);
        if self.doubt == Doubt::Failed {
            let next = Header { generation: self.header.generation + 1, ..self.header };
            self.disk.write_at(self.spare * BLOCK, &next.block())?;
            self.disk.sync()?;
            self.settle(next);
        } else {
            // What was read may still be on its way to the disk, if only our process was killed.
            self.disk.sync()?;
        }
        self.state = State::Ready;
        Ok(())
    }

    /// Hands every group above the last checkpoint to `take` again, in order.
    pub fn each(&self, take: &mut TakeGroup<'_>) -> Result<(), JournalError> {
        let mut payload = Vec::new();
        for group in &self.waiting {
            let found = self.read_group(group.mark, 0, &mut payload)?;
            let (group, first_seq, _) = found.ok_or(JournalError::Damaged("a group can't be read back"))?;
            take(first_seq, group.last_seq, &payload)?;
        }
        Ok(())
    }

    /// Looks through the whole ring for a group that the replay should have reached and has not,
    /// because one before it, or the header block that leads to it, is damaged. There is none after
    /// a power cut, at whatever write it came: at most one group is on its way at any time, and
    /// where a new header block must lead to it, that is durable before.
    pub fn verify(&self) -> Result<(), JournalError> {
        let mut payload = Vec::new();
        let mut window = vec![0; WINDOW];
        let mut at = DATA;
        while at < self.header.ring {
            let part = usize::try_from(self.header.ring - at).map_or(WINDOW, |rest| rest.min(WINDOW));
            let part = window.get_mut(..part).unwrap_or_default();
            self.disk.read_at(at, part)?;
            for (offset, block) in (at..).step_by(BLOCK_LEN).zip(part.chunks(BLOCK_LEN)) {
                let mut fields = Fields(block);
                let ours = fields.take() == GROUP_MAGIC;
                let _crc: [u8; 4] = fields.take();
                if ours && fields.take() == self.header.store {
                    let number = u64::from_le_bytes(fields.take());
                    let mark = Mark { offset, number, previous: u32::from_le_bytes(fields.take()) };
                    if self.read_group(mark, self.last_seq, &mut payload)?.is_some() {
                        return Err(JournalError::Damaged("changes in it can't be read though later ones can"));
                    }
                }
            }
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Writes one group and syncs. On return it is durable. After a failure of the disk it refuses
    /// everything until the ring is opened and read again.
    pub fn append(&mut self, first_seq: u64, last_seq: u64, payload: &[u8]) -> Result<(), JournalError> {
        match self.state {
            State::Ready => {}
            State::Opened => return Err(JournalError::Damaged("it was not read before it was written")),
            State::Failed => return Err(JournalError::Disk(io::Error::other("it failed before"))),
        }
        if first_seq <= self.last_seq || last_seq < first_seq {
            return Err(JournalError::Damaged("sequence numbers must rise"));
        }
        let length = u32::try_from(payload.len()).map_err(|_| JournalError::TooLarge)?;
        if u64::from(length) > self.payload_max() {
            return Err(JournalError::TooLarge);
        }
        let bytes = padded(length);
        let tail = self.waiting.front().map_or(self.head, |group| group.mark);
        let offset = self.place(tail, bytes).ok_or(JournalError::Full)?;
        let mark = Mark { offset, ..self.head };
        let tail = if self.waiting.is_empty() { mark } else { tail };

        let group = Group { mark, last_seq, bytes };
        let crc = self.write(group, first_seq, tail, payload).inspect_err(|_| self.state = State::Failed)?;
        self.waiting.push_back(group);
        self.volume += bytes;
        self.step_past(group, crc);
        Ok(())
    }

    /// Everything up to `seq` is durable in the index: its groups may be overwritten.
    pub fn checkpointed(&mut self, seq: u64) {
        self.checkpoint = self.checkpoint.max(seq);
        while let Some(group) = self.waiting.pop_front_if(|group| group.last_seq <= seq) {
            self.volume -= group.bytes;
        }
    }

    /// Bytes of groups above the last checkpoint, padding included.
    pub fn volume(&self) -> u64 {
        self.volume
    }

    /// Length of the ring in bytes; the file may be longer.
    pub fn ring(&self) -> u64 {
        self.header.ring
    }

    /// Largest payload [`Journal::append`] takes, in bytes.
    pub fn payload_max(&self) -> u64 {
        (self.header.ring - DATA) / 2 / BLOCK * BLOCK - GROUP_HEADER as u64
    }

    /// Where a group of `bytes` can go without touching what lies from `tail` to the head.
    fn place(&self, tail: Mark, bytes: u64) -> Option<u64> {
        let head = self.head.offset;
        let fits_ahead = head + bytes <= self.header.ring;
        if tail.number == self.head.number {
            // Nothing is kept. A group of at most half the ring fits at one of both places.
            return Some(if fits_ahead { head } else { DATA });
        }
        if head <= tail.offset {
            return (head + bytes <= tail.offset).then_some(head);
        }
        if fits_ahead {
            return Some(head);
        }
        (DATA + bytes <= tail.offset).then_some(DATA)
    }

    /// Writes and syncs a group, and the header when a checkpoint has moved the tail.
    fn write(&mut self, group: Group, first_seq: u64, tail: Mark, payload: &[u8]) -> Result<u32, JournalError> {
        let old = self.header.tail;
        let next = Header { generation: self.header.generation + 1, tail, checkpoint: self.checkpoint, ..self.header };
        // Nothing in the ring is needed now, so of two header blocks the one that may be in the
        // cache only is written over, and the other one keeps the file a ring meanwhile.
        let renew = self.doubt == Doubt::Unknown && self.waiting.is_empty();
        if renew {
            self.spare = 1 - self.spare;
        } else {
            self.doubt = Doubt::No;
        }
        let fresh = std::mem::take(&mut self.fresh);
        let mut unsettled = old != tail || renew || self.unmirrored;
        if unsettled {
            self.disk.write_at(self.spare * BLOCK, &next.block())?;
            // Normally the group's sync takes the header along: until then the other header block is
            // the newest, and what it points at is untouched and leads to this group. If it would
            // not, or is not known to, the new header must be durable first.
            if fresh || self.place(old, group.bytes) != Some(group.mark.offset) {
                self.disk.sync()?;
                self.settle(next);
                unsettled = false;
            }
        }

        let mut first = [0; BLOCK_LEN];
        let (head, rest) = payload.split_at_checked(BLOCK_LEN - GROUP_HEADER).unwrap_or((payload, &[]));
        let crc = group_header(&mut first, self.header.store, group, first_seq, payload);
        copy(&mut first, GROUP_HEADER, head);
        self.disk.write_at(group.mark.offset, &first)?;
        let (blocks, last) = rest.split_at(rest.len() / BLOCK_LEN * BLOCK_LEN);
        if !blocks.is_empty() {
            self.disk.write_at(group.mark.offset + BLOCK, blocks)?;
        }
        if !last.is_empty() {
            let mut block = [0; BLOCK_LEN];
            copy(&mut block, 0, last);
            self.disk.write_at(group.mark.offset + BLOCK + blocks.len() as u64, &block)?;
        }
        self.disk.sync()?;
        if unsettled {
            self.settle(next);
        }
        Ok(crc)
    }

    /// A header block is durable.
    fn settle(&mut self, header: Header) {
        self.known.is(&header, self.spare);
        // In doubt it was not the header before this one that stayed in the other place.
        self.unmirrored = self.doubt != Doubt::No || self.header.tail != header.tail;
        self.doubt = Doubt::No;
        self.header = header;
        self.spare = 1 - self.spare;
    }

    /// Reads the group at the head, if there is a whole one that follows the last; gives the group,
    /// its first sequence number and its checksum.
    fn next_group(&self, payload: &mut Vec<u8>) -> Result<Option<(Group, u64, u32)>, JournalError> {
        for offset in [self.head.offset, DATA] {
            let mark = Mark { offset, ..self.head };
            if let Some(found) = self.read_group(mark, self.last_seq, payload)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Reads the group at `mark`, if it is whole and begins above `last_seq`.
    fn read_group(
        &self,
        mark: Mark,
        last_seq: u64,
        payload: &mut Vec<u8>,
    ) -> Result<Option<(Group, u64, u32)>, JournalError> {
        if mark.offset + BLOCK > self.header.ring {
            return Ok(None);
        }
        let mut block = [0; BLOCK_LEN];
        self.disk.read_at(mark.offset, &mut block)?;
        let mut fields = Fields(&block);
        let ours = fields.take() == GROUP_MAGIC;
        let crc = u32::from_le_bytes(fields.take());
        let ours = ours && fields.take() == self.header.store && u64::from_le_bytes(fields.take()) == mark.number;
        let follows = u32::from_le_bytes(fields.take()) == mark.previous;
        let length = u32::from_le_bytes(fields.take());
        let (first_seq, ends) = (u64::from_le_bytes(fields.take()), u64::from_le_bytes(fields.take()));
        let group = Group { mark, last_seq: ends, bytes: padded(length) };
        let fits = u64::from(length) <= self.payload_max() && mark.offset + group.bytes <= self.header.ring;
        let rises = last_seq < first_seq && first_seq <= ends;
        if !(ours && follows && fits && rises) {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| JournalError::TooLarge)?;
        payload.clear();
        payload.extend_from_slice(fields.0.get(..length).unwrap_or(fields.0));
        let read = payload.len();
        payload.resize(length, 0);
        if let Some(rest) = payload.get_mut(read..).filter(|rest| !rest.is_empty()) {
            self.disk.read_at(mark.offset + BLOCK, rest)?;
        }
        let mut again = [0; BLOCK_LEN];
        let whole = group_header(&mut again, self.header.store, group, first_seq, payload) == crc;
        Ok(whole.then_some((group, first_seq, crc)))
    }

    fn step_past(&mut self, group: Group, crc: u32) {
        self.head = Mark { offset: group.mark.offset + group.bytes, number: group.mark.number + 1, previous: crc };
        self.last_seq = group.last_seq;
    }
}

impl Known {
    fn is(&self, header: &Header, place: u64) {
        self.0.store(header.generation << 2 | place << 1 | 1, Ordering::Relaxed);
    }

    /// Place and generation.
    fn block(&self) -> Option<(u64, u64)> {
        let known = self.0.load(Ordering::Relaxed);
        (known != 0).then_some((known >> 1 & 1, known >> 2))
    }
}

/// Size of a group in the ring.
fn padded(length: u32) -> u64 {
    (GROUP_HEADER as u64 + u64::from(length)).next_multiple_of(BLOCK)
}

/// Writes a group's header to the front of `block` and returns the checksum over it and the payload.
fn group_header(block: &mut [u8; BLOCK_LEN], store: [u8; 16], group: Group, first_seq: u64, payload: &[u8]) -> u32 {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    copy(block, 0, &GROUP_MAGIC);
    let mut at = copy(block, 8, &store);
    at = copy(block, at, &group.mark.number.to_le_bytes());
    at = copy(block, at, &group.mark.previous.to_le_bytes());
    at = copy(block, at, &length.to_le_bytes());
    at = copy(block, at, &first_seq.to_le_bytes());
    at = copy(block, at, &group.last_seq.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(block.get(8..at).unwrap_or_default()), payload);
    copy(block, 4, &crc.to_le_bytes());
    crc
}

/// Payload bytes of the group that begins so, whosever ring it is in; `None` where it has not the mark.
pub(super) fn group_length(header: &[u8; GROUP_HEADER]) -> Option<usize> {
    let length = header.get(36..40)?.first_chunk()?;
    header.starts_with(&GROUP_MAGIC).then(|| usize::try_from(u32::from_le_bytes(*length)).ok())?
}

/// Tells whether a group's checksum is that of its header and payload.
pub(super) fn group_is_whole(header: &[u8; GROUP_HEADER], payload: &[u8]) -> bool {
    let (before, named) = header.split_at(8);
    before.ends_with(&crc32c::crc32c_append(crc32c::crc32c(named), payload).to_le_bytes())
}

mod reread; // is what a crash would need still there?

#[cfg(test)]
mod tests;
