//! COMPRESS=DEFLATE (RFC 4978): both directions of a connection in raw deflate (RFC 1951).
//!
//! What the client sends may refer to the 32 KiB before it, so a connection keeps what is needed to
//! undo that: some 48 KiB. What we send refers to nothing before its own piece: each is packed by a
//! compressor of a small pool that everybody shares, and between pieces a connection keeps nothing of
//! it. That costs some of the gain and makes a connection in IDLE affordable. How many connections may
//! compress at a time is a setting; the others go on without.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Bytes that are unpacked at a time.
const UNPACKED_MAX: usize = 4 * 1024;

/// Level of compression: most of the gain for a third of the work of the usual 6.
const LEVEL: u32 = 3;

/// Compressors kept between uses, 300 KiB each.
const IDLE_MAX: usize = 1;

/// Room in the output of a compressor beyond the input: an end of block and a byte for each 16 KiB.
const ROOM: usize = 64;

/// Connections that compress.
static OPEN: AtomicU32 = AtomicU32::new(0);

static PACKERS: Mutex<Vec<Compress>> = Mutex::new(Vec::new());

/// The stream is not deflate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// A connection's compression.
#[derive(Debug)]
pub(crate) struct Channel {
    inflate: Decompress,
    /// Unpacked, and not taken by the session.
    plain: Vec<u8>,
    /// So many bytes of it are taken.
    used: usize,
    /// Nothing more fitted into `plain`: there may be more without further input.
    more: bool,
    /// What is being sent.
    packed: Vec<u8>,
}

impl Channel {
    /// Begins, unless so many connections compress already.
    pub(crate) fn open(most: u32) -> Option<Box<Self>> {
        let one_more = |open: u32| (open < most).then(|| open + 1);
        OPEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        let inflate = Decompress::new(false);
        Some(Box::new(Self { inflate, plain: Vec::new(), used: 0, more: false, packed: Vec::new() }))
    }

    /// Unpacks some of `bytes` and says how many it took. What was unpacked before must be taken.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        self.plain.clear();
        self.used = 0;
        self.plain.reserve_exact(UNPACKED_MAX);
        let before = self.inflate.total_in();
        let status = self.inflate.decompress_vec(bytes, &mut self.plain, FlushDecompress::Sync);
        let taken = usize::try_from(self.inflate.total_in() - before).unwrap_or(bytes.len());
        self.more = self.plain.len() == self.plain.capacity();
        match status {
            Ok(Status::Ok | Status::BufError) => Ok(taken),
            // A client ends the connection and not the stream.
            Ok(Status::StreamEnd) | Err(_) => Err(Broken),
        }
    }

    /// What is unpacked and not taken.
    pub(crate) fn rest(&self) -> &[u8] {
        self.plain.get(self.used..).unwrap_or_default()
    }

    /// So many bytes of it were taken.
    pub(crate) fn consume(&mut self, count: usize) {
        self.used += count;
    }

    /// Tells whether unpacking may go on without further input.
    pub(crate) fn has_more(&self) -> bool {
        self.more
    }

    /// Packs what is to be sent.
    pub(crate) fn pack(&mut self, plain: &[u8]) -> Result<&[u8], Broken> {
        let idle = PACKERS.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut packer = idle.unwrap_or_else(|| Compress::new(Compression::new(LEVEL), false));
        let mut rest = plain;
        self.packed.clear();
        self.packed.reserve(plain.len() / 2 + ROOM);
        loop {
            let before = packer.total_in();
            packer.compress_vec(rest, &mut self.packed, FlushCompress::Sync).map_err(|_| Broken)?;
            let taken = usize::try_from(packer.total_in() - before).unwrap_or(rest.len());
            rest = rest.get(taken..).unwrap_or_default();
            // A flush is complete when it leaves room.
            if rest.is_empty() && self.packed.len() < self.packed.capacity() {
                break;
            }
            self.packed.reserve(rest.len() / 2 + ROOM);
        }
        packer.reset();
        let mut idle = PACKERS.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(packer);
        }
        Ok(&self.packed)
    }

    /// Gives back the memory that waiting needs not.
    pub(crate) fn relax(&mut self) {
        self.packed = Vec::new();
        if self.rest().is_empty() {
            self.plain = Vec::new();
            self.used = 0;
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn inflated(inflate: &mut Decompress, packed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::with_capacity(1 << 20);
        inflate.decompress_vec(packed, &mut plain, FlushDecompress::Sync).unwrap();
        plain
    }

    #[test]
    fn pieces_packed_by_themselves_are_one_stream() {
        let mut channel = Channel::open(u32::MAX).unwrap();
        let mut client = Decompress::new(false);
        for piece in [b"* OK done\r\n".repeat(2000), b"* 1 EXISTS\r\n".to_vec(), vec![7], b"x".repeat(100_000)] {
            let packed = channel.pack(&piece).unwrap().to_vec();
            assert!(packed.len() < piece.len().max(20));
            assert_eq!(inflated(&mut client, &packed), piece);
        }
    }

    #[test]
    fn a_stream_that_is_none_is_told() {
        let mut channel = Channel::open(u32::MAX).unwrap();
        assert_eq!(channel.take(&[0xff; 40]), Err(Broken));
    }

    #[test]
    fn no_more_compress_than_may() {
        assert!(Channel::open(0).is_none());
    }

    proptest! {
        #[test]
        fn what_a_client_packs_is_unpacked_however_it_is_cut(
            pieces in prop::collection::vec(prop::collection::vec(0_u8..4, 0..9000), 1..5),
            cut in 1_usize..300,
        ) {
            let mut packer = Compress::new(Compression::best(), false);
            let mut packed = Vec::with_capacity(1 << 20);
            for piece in &pieces {
                packer.compress_vec(piece, &mut packed, FlushCompress::Sync).unwrap();
            }
            let mut channel = Channel::open(u32::MAX).unwrap();
            let mut plain = Vec::new();
            for bytes in packed.chunks(cut) {
                let mut bytes = bytes;
                while !bytes.is_empty() || channel.has_more() {
                    let taken = channel.take(bytes).unwrap();
                    bytes = &bytes[taken..];
                    prop_assert!(channel.rest().len() <= UNPACKED_MAX);
                    plain.extend_from_slice(channel.rest());
                }
            }
            prop_assert_eq!(plain, pieces.concat());
        }
    }
}
