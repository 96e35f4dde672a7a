//! Going through a file once: marks, and what proves itself behind them.
//!
//! What is found is passed over as a whole, so that something that poses as a piece inside of a mail
//! is not looked at. A group of the journal counts with all its bodies.

use std::collections::BTreeMap;

use crate::mail::date::ZonedTime;
use crate::mail::message::BlobId;

use super::super::blob::{BlobRecord, PIECE_HEADER, PIECE_MAX, PieceHeader, piece_payload, read_header};
use super::super::change::{Change, Op};
use super::super::journal::{GROUP_HEADER, group_is_whole, group_length};
use super::super::record::{BLOB_MARK, Record};
use super::super::seal::SEALED;
use super::{Medium, Watch};

/// Bytes looked through at a time.
const WINDOW: usize = 1 << 20;

/// Bytes behind the window that are there too: the largest piece, and the row of a body of 1 GiB.
const REACH: usize = 128 << 10;

/// The longest group: half of the largest ring, 4 GiB, would never be written; this is far above
/// what a group takes (512 KiB and one command).
const GROUP_MAX: usize = 32 << 20;

/// All marks begin so.
const MARKS: [u8; 3] = *b"pbx";

/// A piece in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Piece {
    pub(super) blob: u64,
    pub(super) index: u32,
    /// Bytes of its payload.
    pub(super) length: u32,
    /// Its checksum: a page that was copied on write leaves the same piece at two places.
    sum: [u8; 4],
    /// It says that it is the body's last.
    pub(super) last: bool,
    /// Where its header begins.
    pub(super) at: u64,
}

/// A body whose whole compressed stream is in a group of the journal.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub(super) blob: u64,
    pub(super) record: BlobRecord,
    /// The group's payload.
    pub(super) at: u64,
    pub(super) length: usize,
}

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Finds {
    /// By body and index.
    pub(super) pieces: Vec<Piece>,
    /// By body, each shape once.
    pub(super) rows: Vec<(u64, BlobRecord)>,
    pub(super) streams: Vec<Stream>,
    /// When a body's message came.
    pub(super) dates: BTreeMap<u64, ZonedTime>,
    pub(super) unreadable: u64,
}

/// Reads the file through.
pub(super) fn scan(medium: &Medium, watch: &mut Watch<'_>) -> Finds {
    let mut finds = Finds::default();
    let mut bytes = Vec::new();
    let (mut base, mut skip) = (0_u64, 0_usize);
    while base < medium.length {
        watch(base, medium.length);
        let left = usize::try_from(medium.length - base).unwrap_or(usize::MAX);
        bytes.resize(left.min(WINDOW + REACH), 0);
        let end = bytes.len().min(WINDOW);
        let (window, reach) = bytes.split_at_mut(end);
        finds.unreadable += medium.read_through(base, window);
        // What is beyond is read again with its own window, and counted there.
        medium.read_through(base + WINDOW as u64, reach);
        while let Some(at) = next_mark(&bytes, skip, end) {
            skip = at + finds.look(medium, &bytes, base, at);
        }
        skip = skip.saturating_sub(WINDOW);
        base += WINDOW as u64;
    }
    watch(medium.length, medium.length);
    finds.pieces.sort_unstable();
    finds.pieces.dedup_by_key(|piece| (piece.blob, piece.index, piece.length, piece.sum));
    finds.rows.sort_by(|one, other| (one.0, one.1.size, &one.1.hash).cmp(&(other.0, other.1.size, &other.1.hash)));
    finds.rows.dedup_by(|one, other| one.0 == other.0 && same_body(&one.1, &other.1));
    finds
}

/// Tells whether two rows are of the same bytes.
pub(super) fn same_body(one: &BlobRecord, other: &BlobRecord) -> bool {
    (one.size, one.stored, &one.hash, &one.blocks) == (other.size, other.stored, &other.hash, &other.blocks)
}

/// The next mark that begins in `from..end`.
fn next_mark(bytes: &[u8], from: usize, end: usize) -> Option<usize> {
    let within = bytes.get(from..bytes.len().min(end + MARKS.len() - 1))?;
    within.windows(MARKS.len()).position(|window| window == MARKS).map(|at| from + at)
}

impl Finds {
    /// Looks at the mark at `at`; tells how many bytes from there are dealt with.
    fn look(&mut self, medium: &Medium, bytes: &[u8], base: u64, at: usize) -> usize {
        let found = match bytes.get(at + MARKS.len()) {
            Some(b'P') => self.piece(bytes, base, at),
            Some(b'B') => self.row(bytes, at),
            Some(b'G') => self.group(medium, bytes, base, at),
            _ => None,
        };
        found.unwrap_or(1)
    }

    fn piece(&mut self, bytes: &[u8], base: u64, at: usize) -> Option<usize> {
        let header = bytes.get(at..)?.first_chunk::<PIECE_HEADER>()?;
        let PieceHeader { blob, index, last, length } =
            read_header(header).filter(|named| named.length <= PIECE_MAX - PIECE_HEADER)?;
        let whole = bytes.get(at..at + PIECE_HEADER + length)?;
        piece_payload(BlobId(blob), index, whole).ok()?;
        let length = u32::try_from(length).ok()?;
        let sum = *header.last_chunk()?;
        self.pieces.push(Piece { blob, index, length, sum, last, at: base + at as u64 });
        Some(whole.len())
    }

    fn row(&mut self, bytes: &[u8], at: usize) -> Option<usize> {
        // The version stands before the mark.
        let value = bytes.get(at.checked_sub(1)?..).filter(|value| value.first() == Some(&SEALED))?;
        let (number, fields) = value.get(1 + BLOB_MARK.len()..)?.split_first_chunk()?;
        let blob = u64::from_le_bytes(*number);
        let (_, rest) = postcard::take_from_bytes::<BlobRecord>(fields).ok()?;
        let value = value.get(..value.len() - rest.len() + size_of::<u32>())?;
        let record = BlobRecord::decode(blob, value).ok().filter(BlobRecord::is_sound)?;
        self.rows.push((blob, record));
        Some(value.len() - 1)
    }

    fn group(&mut self, medium: &Medium, bytes: &[u8], base: u64, at: usize) -> Option<usize> {
        let header = bytes.get(at..)?.first_chunk::<GROUP_HEADER>()?;
        let length = group_length(header).filter(|length| *length <= GROUP_MAX)?;
        let start = base + (at + GROUP_HEADER) as u64;
        if start + length as u64 > medium.length {
            return None;
        }
        let mut payload = vec![0; length];
        medium.read_through(start, &mut payload);
        if !group_is_whole(header, &payload) {
            return None;
        }
        let each = Change::each(&payload, &mut |change| {
            for op in change.ops {
                self.op(op, start, length);
            }
            Ok(())
        });
        // A group of a newer Pillarbox is passed over all the same.
        drop(each);
        Some(GROUP_HEADER + length)
    }

    fn op(&mut self, op: Op, at: u64, length: usize) {
        let (blob, record, stored) = match op {
            Op::Body { id, record, stored, .. } => (id, record, stored),
            Op::UnhashedBody { id, record, stored, .. } => (id, record.into(), stored),
            Op::Place { blob, internal_date, .. } => {
                self.dates.insert(blob, internal_date);
                return;
            }
            _ => return,
        };
        if !record.is_sound() {
        } else if stored.is_some_and(|stored| stored.0.len() as u64 == record.stored) {
            self.streams.push(Stream { blob, record, at, length });
        } else {
            // Its pieces are in the index.
            self.rows.push((blob, record));
        }
    }
}
