//! A block: up to 64 KiB of a body, compressed by itself with zstd where that makes it shorter.
//!
//! zstd's contexts are large beside a small message (STORAGE section 2 chose level 1), so a few of
//! them are kept for whoever comes next instead of one for each body.

use std::io;
use std::sync::{Mutex, PoisonError};

use zstd::bulk::{Compressor, Decompressor};

use super::BlobRecord;
use crate::store::ReadError;

/// Most bytes of a body that are compressed together.
pub const BLOCK_MAX: usize = 64 << 10;

/// zstd's level: 24 to 26 % off base64 for a fifth of deflate's work.
const LEVEL: i32 = 1;

/// log2 of [`BLOCK_MAX`]: looking further back than a block is memory for nothing.
const WINDOW_LOG: u32 = 16;

/// Contexts kept between uses, of each kind. The reactor and one blocking thread seldom compress
/// at the same moment; who finds none makes one and gives it back to the allocator.
const IDLE_MAX: usize = 2;

/// Something to compress with, and room for what comes of it.
pub(super) struct Packer {
    zstd: Compressor<'static>,
    packed: Vec<u8>,
}

static PACKERS: Mutex<Vec<Packer>> = Mutex::new(Vec::new());
static UNPACKERS: Mutex<Vec<Decompressor<'static>>> = Mutex::new(Vec::new());

impl Packer {
    fn new() -> io::Result<Self> {
        let mut zstd = Compressor::new(LEVEL)?;
        zstd.set_parameter(zstd::zstd_safe::CParameter::WindowLog(WINDOW_LOG))?;
        Ok(Self { zstd, packed: Vec::with_capacity(zstd::zstd_safe::compress_bound(BLOCK_MAX)) })
    }
}

/// Compresses a block of at most [`BLOCK_MAX`] bytes and hands what is to be kept to `take`: the
/// block itself when compressing does not make it shorter.
pub(super) fn pack<T>(raw: &[u8], take: impl FnOnce(&[u8]) -> io::Result<T>) -> io::Result<T> {
    let idle = PACKERS.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut packer = idle.map_or_else(Packer::new, Ok)?;
    packer.packed.clear();
    packer.zstd.compress_to_buffer(raw, &mut packer.packed)?;
    let taken = take(if packer.packed.len() < raw.len() { &packer.packed } else { raw });
    let mut idle = PACKERS.lock().unwrap_or_else(PoisonError::into_inner);
    if idle.len() < IDLE_MAX {
        idle.push(packer);
    }
    taken
}

/// Fills `raw` with the `length` bytes of a block from what was kept of it.
pub(super) fn unpack(packed: &[u8], raw: &mut Vec<u8>, length: usize) -> io::Result<()> {
    raw.clear();
    raw.reserve_exact(length);
    if packed.len() == length {
        raw.extend_from_slice(packed);
        return Ok(());
    }
    let idle = UNPACKERS.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut zstd = idle.map_or_else(Decompressor::new, Ok)?;
    let found = zstd.decompress_to_buffer(packed, raw)?;
    let mut idle = UNPACKERS.lock().unwrap_or_else(PoisonError::into_inner);
    if idle.len() < IDLE_MAX {
        idle.push(zstd);
    }
    if found == length { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

impl BlobRecord {
    /// Tells whether the numbers of a record agree with each other.
    pub(in crate::store) fn is_sound(&self) -> bool {
        let sum: u64 = self.blocks.iter().map(|length| u64::from(*length)).sum();
        let fits = |(index, length): (u64, &u32)| *length > 0 && *length as usize <= self.raw_length(index);
        self.blocks.len() as u64 == self.size.div_ceil(BLOCK_MAX as u64)
            && sum == self.stored
            && (0..).zip(&self.blocks).all(fits)
    }

    /// How many bytes of the body block `index` holds.
    pub(super) fn raw_length(&self, index: u64) -> usize {
        let left = self.size.saturating_sub(index.saturating_mul(BLOCK_MAX as u64));
        usize::try_from(left).unwrap_or(BLOCK_MAX).min(BLOCK_MAX)
    }
}

/// The block that was unpacked last.
#[derive(Debug, Default)]
pub(super) struct Window {
    index: Option<u64>,
    raw: Vec<u8>,
}

impl Window {
    /// Bytes of a body from `offset`: at most `max`, at most to the end of their block. `fetch` adds
    /// bytes of the compressed stream, from an offset and so many, to a buffer.
    pub(super) fn read(
        &mut self,
        record: &BlobRecord,
        offset: u64,
        max: usize,
        fetch: impl FnOnce(u64, usize, &mut Vec<u8>) -> Result<(), ReadError>,
    ) -> Result<&[u8], ReadError> {
        if offset >= record.size {
            return Ok(&[]);
        }
        let index = offset / BLOCK_MAX as u64;
        if self.index != Some(index) {
            // Whatever goes wrong now, the old block is gone.
            self.index = None;
            let at = usize::try_from(index).unwrap_or(usize::MAX);
            let lengths = record.blocks.get(..at).unwrap_or_default();
            let start = lengths.iter().map(|length| u64::from(*length)).sum();
            let length = record.blocks.get(at).map_or(0, |length| *length as usize);
            let mut packed = Vec::with_capacity(length);
            fetch(start, length, &mut packed)?;
            unpack(&packed, &mut self.raw, record.raw_length(index))
                .map_err(|error| ReadError::Storage(format!("block {index}: {error}")))?;
            self.index = Some(index);
        }
        let start = usize::try_from(offset % BLOCK_MAX as u64).unwrap_or(BLOCK_MAX);
        let rest = self.raw.get(start..).unwrap_or_default();
        Ok(rest.get(..max).unwrap_or(rest))
    }

    /// The block.
    pub(super) fn into_block(self) -> Vec<u8> {
        self.raw
    }

    /// Gives the block's memory back.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "noise is cut on purpose")]
mod tests {
    use super::*;

    fn packed(raw: &[u8]) -> Vec<u8> {
        pack(raw, |packed| Ok(packed.to_vec())).unwrap()
    }

    #[test]
    fn a_block_comes_back_and_never_grows() {
        let text = b"To whom it may concern.\r\n".repeat(2600);
        let noise: Vec<u8> = (0..60_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
        for raw in [&b"x"[..], b"", &text, &noise, &vec![0; BLOCK_MAX]] {
            let packed = packed(raw);
            assert!(packed.len() <= raw.len());
            let mut again = Vec::new();
            unpack(&packed, &mut again, raw.len()).unwrap();
            assert_eq!(again, raw);
        }
        assert!(packed(&text).len() * 10 < text.len());
    }

    #[test]
    fn a_block_of_another_length_or_of_garbage_is_an_error() {
        let packed = packed(&[7; 1000]);
        for (packed, length) in [(&packed[..], 999), (&packed, 1001), (&packed[..9], 1000), (&b"garbage"[..], 1000)] {
            assert!(unpack(packed, &mut Vec::new(), length).is_err());
        }
    }

    #[test]
    fn the_contexts_stay_small() {
        let mut packer = Packer::new().unwrap();
        let raw: Vec<u8> =
            (0..BLOCK_MAX as u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 22) as u8 & 63).collect();
        packer.zstd.compress_to_buffer(&raw, &mut packer.packed).unwrap();
        let size = packer.zstd.context_mut().sizeof();
        assert!(size < 400 << 10, "{size}");
    }
}
