//! The compiled set: many signatures in one read-only file of which little is in memory.
//!
//! A block of 4,096 bytes says where its [`Section`]s are and what they sum up to. In memory are two bit
//! maps over the patterns' grams, a MiB each at most, and as far as there is room for them the grams
//! (some 15 bytes each) and the approximate filter over the digests (a byte each). All else is read where
//! it is wanted, and the system's page cache keeps what is wanted often. Every read from the disk is
//! checked: filter and grams by their sum at opening, pattern records by their own, digests by being the
//! digest that was looked for.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::io;

use serde::{Deserialize, Serialize};

pub mod filter;
mod part;
pub mod record;

use self::filter::{BLOCK, Place};
use self::part::Part;
use self::record::{
    ALIGNMENT, GRAM_BYTES, Gram, HASH_BYTES, HashRecord, IGNORED_TAG, PatternRecord, SOUGHT_BYTES, SegmentRecord,
    filter_key, frame, key, sought, tag, unframed,
};
use super::signature::{DigestKind, HashRole, Member, NAME_MAX};
use super::{ReadAt, read_vec};

/// How a set begins.
pub const MAGIC: &[u8; 8] = b"pboxscan";

/// The version of the layout.
pub const VERSION: u32 = 2;

/// Bytes of the first block.
pub const HEADER_BYTES: usize = 4096;

/// Average digests in a bucket of the directory.
pub const BUCKET: u64 = 64;

/// Most signatures for what stands in archives; they are in memory.
pub const MEMBERS_MAX: usize = 20_000;

/// Most bytes of a section that is read into memory: 64 million digests.
const RESIDENT_MAX: u64 = 64 << 20;

/// The parts of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Section {
    /// The approximate filter; in memory if there is room.
    Filter = 0,
    /// Where each bucket of digests begins, a number of four bytes each.
    Directory = 1,
    /// The digests, sorted.
    Hashes = 2,
    /// The names of digests, each a byte of length and its letters.
    Names = 3,
    /// A bit for each hash of a gram that there may be; in memory.
    GramMap = 4,
    /// Where each bucket of grams begins; in memory if there is room.
    GramDirectory = 5,
    /// The grams, sorted; in memory if there is room.
    Grams = 6,
    /// Anchors of two and three bytes, sorted; in memory.
    Shorts = 7,
    /// Segments and signatures.
    Records = 8,
    /// What stands in archives; in memory.
    Members = 9,
    /// Where it all came from, as [`Origin`]s.
    Origins = 10,
}

/// How many sections there are.
pub const SECTIONS: usize = 11;

/// Where a section is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Its first byte.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
    /// Its CRC-32C.
    pub checksum: u32,
}

/// What a set has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Digests.
    pub hashes: u64,
    /// Signatures with patterns.
    pub patterns: u64,
    /// Segments of those.
    pub segments: u64,
    /// What stands in archives.
    pub members: u64,
    /// Names that count for nothing.
    pub ignored: u64,
}

/// A file that signatures came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Its name.
    pub name: String,
    /// What it says of itself: a container's version and date.
    pub about: String,
    /// Lines that were taken.
    pub taken: u64,
    /// Lines that were not, by reason.
    pub left: Vec<(String, u64)>,
}

/// What the first block says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// When it was made, in seconds since 1970.
    pub made: i64,
    /// Where what is.
    pub sections: [Extent; SECTIONS],
    /// What it has.
    pub counts: Counts,
    /// Bits of the bucket's number in [`Section::Directory`].
    pub hash_bits: u8,
    /// Bits of a place in [`Section::GramMap`].
    pub map_bits: u8,
    /// Bits of the bucket's number in [`Section::GramDirectory`].
    pub gram_bits: u8,
}

impl Header {
    /// The first block: magic, version, length, CRC-32C, and the header in postcard.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let body = postcard::to_allocvec(self).ok()?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(body.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes.resize(HEADER_BYTES, 0);
        Some(bytes)
    }

    /// What a set is known by: a number over its first block, which has the sums of all others.
    pub fn mark(first_block: &[u8]) -> u64 {
        let digest = ring::digest::digest(&ring::digest::SHA256, first_block);
        digest.as_ref().first_chunk::<8>().map_or(0, |head| u64::from_be_bytes(*head))
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, SetError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(SetError::NotASet)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or(SetError::Damaged("its header"))?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(SetError::Version);
        }
        let (length, checksum) = frame(rest).ok_or(SetError::Damaged("its header"))?;
        let body = rest.get(8..8 + length).ok_or(SetError::Damaged("its header"))?;
        unframed(body, checksum).ok_or(SetError::Damaged("its header"))
    }
}

/// Why a set can't be used.
#[derive(Debug)]
pub enum SetError {
    /// It is something else.
    NotASet,
    /// Another version of this program made it.
    Version,
    /// It is not what was written: what of it.
    Damaged(&'static str),
    /// It can't be read.
    Unreadable(io::Error),
}

impl std::fmt::Display for SetError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotASet => out.write_str("this is no compiled signature set"),
            Self::Version => {
                out.write_str("another version of pillarbox compiled these signatures; compile them again")
            }
            Self::Damaged(what) => write!(out, "the signature set is damaged ({what}); compile it again"),
            Self::Unreadable(error) => write!(out, "the signature set cannot be read: {error}"),
        }
    }
}

impl std::error::Error for SetError {}

impl From<io::Error> for SetError {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// A set, open.
pub struct Set {
    medium: Box<dyn ReadAt + Send + Sync>,
    header: Header,
    mark: u64,
    filter: Part,
    /// See [`Section::GramMap`].
    pub(super) map: Vec<u8>,
    /// A bit for each hash of a gram and the four bytes behind it that there may be, of [`Gram::hash`]
    /// alone where fewer count: what passes one map and not the other needs no look at the grams.
    next_map: Vec<u8>,
    gram_directory: Part,
    grams: Part,
    shorts: Vec<u8>,
    /// A bit for each pair of bytes that a short anchor begins with; empty when there are none.
    pub(super) short_map: Vec<u8>,
    members: Vec<Member>,
    /// Which digests the set asks for of whole files.
    wanted: [bool; 3],
}

impl std::fmt::Debug for Set {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Set").field("counts", &self.header.counts).finish_non_exhaustive()
    }
}

impl Set {
    /// Opens a set, with as much of it in memory as is of use there.
    ///
    /// # Errors
    /// Why it can't be used.
    pub fn open(medium: Box<dyn ReadAt + Send + Sync>) -> Result<Self, SetError> {
        Self::open_within(medium, u64::MAX)
    }

    /// Opens a set of which `room` bytes may be in memory: what is looked at for each byte that is scanned
    /// always is (2 MiB at most), then the grams, then the filter, as far as they fit.
    ///
    /// # Errors
    /// Why it can't be used.
    pub fn open_within(medium: Box<dyn ReadAt + Send + Sync>, room: u64) -> Result<Self, SetError> {
        let first_block = read_vec(&*medium, 0, HEADER_BYTES)?;
        let (header, mark) = (Header::from_bytes(&first_block)?, Header::mark(&first_block));
        let end = header.sections.iter().map(|extent| extent.offset.saturating_add(extent.length)).max().unwrap_or(0);
        if end > medium.size() {
            return Err(SetError::Damaged("its end is missing"));
        }
        let resident = |section: Section, what: &'static str| -> Result<Vec<u8>, SetError> {
            let extent = extent(&header, section);
            if extent.length > RESIDENT_MAX {
                return Err(SetError::Damaged(what));
            }
            let length = usize::try_from(extent.length).map_err(|_| SetError::Damaged(what))?;
            let bytes = read_vec(&*medium, extent.offset, length)?;
            let whole = bytes.len() == length && crc32c::crc32c(&bytes) == extent.checksum;
            if whole { Ok(bytes) } else { Err(SetError::Damaged(what)) }
        };
        let (map, shorts) = (resident(Section::GramMap, "map")?, resident(Section::Shorts, "grams")?);
        let members = postcard::from_bytes(&resident(Section::Members, "members")?);
        let members: Vec<Member> = members.map_err(|_| SetError::Damaged("members"))?;
        let lengths = [Section::GramDirectory, Section::Filter].map(|section| extent(&header, section).length);
        let fits = (map.is_empty() || (map.len() as u64) * 8 == 1_u64.checked_shl(header.map_bits.into()).unwrap_or(0))
            && header.gram_bits <= 24
            && header.hash_bits <= 32
            && (lengths[0] == 0 || lengths[0] == 4 * ((1 << header.gram_bits) + 1))
            && lengths[1].is_multiple_of(BLOCK as u64);
        if !fits {
            return Err(SetError::Damaged("its header"));
        }
        let mut short_map = if shorts.is_empty() { Vec::new() } else { vec![0; 1 << 13] };
        for gram in shorts.chunks_exact(GRAM_BYTES).filter_map(Gram::from_bytes) {
            set_bit(&mut short_map, short_bit(gram.hash));
        }
        let mut room = room.saturating_sub(2 * map.len() as u64 + shorts.len() as u64);
        let mut next_map = vec![0; map.len()];
        let mut part = |section: Section, what: &'static str, see: &mut dyn FnMut(&[u8])| {
            Part::open(&*medium, extent(&header, section), &mut room, what, see)
        };
        let grams = part(Section::Grams, "grams", &mut |piece| {
            for gram in piece.chunks_exact(GRAM_BYTES).filter_map(Gram::from_bytes) {
                let next = (gram.next_length == 4).then_some(gram.next);
                let bit = next_bit(gram.hash, next, next_map.len());
                set_bit(&mut next_map, bit);
            }
        })?;
        let gram_directory = part(Section::GramDirectory, "directory", &mut |_| {})?;
        let filter = part(Section::Filter, "filter", &mut |_| {})?;
        let mut set = Self {
            medium,
            header,
            mark,
            filter,
            map,
            next_map,
            gram_directory,
            grams,
            shorts,
            short_map,
            members,
            wanted: [true, false, false],
        };
        set.wanted = set.kinds()?;
        Ok(set)
    }

    /// What the first block says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What it is known by; see [`Header::mark`].
    pub fn mark(&self) -> u64 {
        self.mark
    }

    /// Bytes it holds in memory.
    pub fn resident(&self) -> usize {
        let parts = [&self.filter, &self.gram_directory, &self.grams].map(Part::resident);
        parts.iter().sum::<usize>() + 2 * self.map.len() + self.shorts.len() + self.short_map.len()
    }

    /// Where it came from.
    ///
    /// # Errors
    /// As [`Set::open`].
    pub fn origins(&self) -> Result<Vec<Origin>, SetError> {
        let extent = extent(&self.header, Section::Origins);
        let length = usize::try_from(extent.length.min(RESIDENT_MAX)).unwrap_or(0);
        let bytes = read_vec(&*self.medium, extent.offset, length)?;
        if crc32c::crc32c(&bytes) != extent.checksum {
            return Err(SetError::Damaged("its origins"));
        }
        let origins: (Vec<Origin>, [bool; 3]) =
            postcard::from_bytes(&bytes).map_err(|_| SetError::Damaged("its origins"))?;
        Ok(origins.0)
    }

    fn kinds(&self) -> Result<[bool; 3], SetError> {
        let extent = extent(&self.header, Section::Origins);
        let length = usize::try_from(extent.length.min(RESIDENT_MAX)).unwrap_or(0);
        let bytes = read_vec(&*self.medium, extent.offset, length)?;
        let origins: (Vec<Origin>, [bool; 3]) =
            postcard::from_bytes(&bytes).map_err(|_| SetError::Damaged("its origins"))?;
        Ok(origins.1)
    }

    /// Reads the whole file and compares every sum.
    ///
    /// # Errors
    /// What is not as it was written.
    pub fn verify(&self) -> Result<(), SetError> {
        for extent in self.header.sections {
            let (mut checksum, mut at, end) = (0, extent.offset, extent.offset + extent.length);
            while at < end {
                let piece = read_vec(&*self.medium, at, usize::try_from((end - at).min(64 << 10)).unwrap_or(0))?;
                if piece.is_empty() {
                    return Err(SetError::Damaged("its end is missing"));
                }
                checksum = crc32c::crc32c_append(checksum, &piece);
                at += piece.len() as u64;
            }
            if checksum != extent.checksum {
                return Err(SetError::Damaged("a section is not what was written"));
            }
        }
        Ok(())
    }

    /// Tells whether digests of this kind are of any use.
    pub fn wants(&self, kind: DigestKind) -> bool {
        self.wanted.get(kind as usize).copied().unwrap_or(true)
    }

    /// The name of the signature with this digest of `size` bytes.
    ///
    /// # Errors
    /// Those of the medium.
    pub fn look_up(&self, role: HashRole, kind: DigestKind, digest: &[u8], size: u64) -> io::Result<Option<String>> {
        self.find(&key(digest), tag(role, kind), size)
    }

    /// Tells whether a whole file of `size` bytes whose digest begins like this may be known; the file itself
    /// has to be looked at then.
    ///
    /// # Errors
    /// Those of the medium.
    pub fn may_know(&self, kind: DigestKind, beginning: [u8; 8], size: u32) -> io::Result<bool> {
        let (key, tag) = (key(&beginning), tag(HashRole::File, kind));
        let place = Place::of(filter_key(&key, tag), self.filter.length());
        if !place.is_in(&self.filter.bytes(&*self.medium, place.start, BLOCK)?) {
            return Ok(false);
        }
        let (hashes, (mut low, mut high)) = (extent(&self.header, Section::Hashes), self.bucket_of(&key)?);
        let record_at = |number: u64| {
            let mut record = [0; HASH_BYTES];
            self.medium.read_at(hashes.offset + number * HASH_BYTES as u64, &mut record)?;
            io::Result::Ok(record)
        };
        let end = high;
        while low < high {
            let middle = low + (high - low) / 2;
            if record_at(middle)?.first_chunk::<8>().is_some_and(|head| *head < beginning) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        while low < end {
            let record = record_at(low)?;
            if !record.starts_with(&beginning) {
                break;
            }
            let fits = |found: HashRecord| found.tag == tag && found.size.is_none_or(|wanted| wanted == size);
            if HashRecord::from_bytes(&record).is_some_and(fits) {
                return Ok(true);
            }
            low += 1;
        }
        Ok(false)
    }

    /// Tells whether signatures of this name count for nothing.
    ///
    /// # Errors
    /// Those of the medium.
    pub fn ignores(&self, name: &str) -> io::Result<bool> {
        if self.header.counts.ignored == 0 {
            return Ok(false);
        }
        Ok(self.find(&name_key(name), IGNORED_TAG, 0)?.is_some())
    }

    /// What stands in archives.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    fn find(&self, key: &[u8; 16], tag: u8, size: u64) -> io::Result<Option<String>> {
        let place = Place::of(filter_key(key, tag), self.filter.length());
        if !place.is_in(&self.filter.bytes(&*self.medium, place.start, BLOCK)?) {
            return Ok(None);
        }
        let (hashes, (low, high)) = (extent(&self.header, Section::Hashes), self.bucket_of(key)?);
        let exact = u32::try_from(size).ok();
        for wanted in [exact.map(Some), Some(None)].into_iter().flatten() {
            let sought = sought(key, tag, wanted);
            let (mut low, mut high) = (low, high);
            while low < high {
                let middle = low + (high - low) / 2;
                let mut record = [0; HASH_BYTES];
                self.medium.read_at(hashes.offset + middle * HASH_BYTES as u64, &mut record)?;
                let order = record.first_chunk::<SOUGHT_BYTES>().map_or(Ordering::Less, |head| head.cmp(&sought));
                match order {
                    Ordering::Less => low = middle + 1,
                    Ordering::Greater => high = middle,
                    Ordering::Equal => {
                        let found = HashRecord::from_bytes(&record);
                        return found.map(|found| self.name(found.name)).transpose();
                    }
                }
            }
        }
        Ok(None)
    }

    /// From which to which digest a key's bucket goes.
    fn bucket_of(&self, key: &[u8; 16]) -> io::Result<(u64, u64)> {
        let (directory, hashes) = (extent(&self.header, Section::Directory), extent(&self.header, Section::Hashes));
        let bucket = bucket(key, self.header.hash_bits);
        let mut bounds = [0; 8];
        if self.medium.read_at(directory.offset + bucket * 4, &mut bounds)? < bounds.len() {
            return Ok((0, 0));
        }
        let (first, second) = bounds.split_at(4);
        let end = hashes.length / HASH_BYTES as u64;
        let low = u64::from(record::number(first)).min(end);
        Ok((low, u64::from(record::number(second)).clamp(low, end)))
    }

    fn name(&self, at: u64) -> io::Result<String> {
        let names = extent(&self.header, Section::Names);
        let bytes = read_vec(&*self.medium, names.offset + at.min(names.length), NAME_MAX + 1)?;
        let name = bytes.split_first().and_then(|(length, rest)| rest.get(..usize::from(*length)));
        Ok(name.map_or_else(|| "unnamed".to_owned(), |name| String::from_utf8_lossy(name).into_owned()))
    }

    /// Tells whether there may be a gram of this hash before these bytes, letters in lower case.
    pub(super) fn may_follow(&self, hash: u32, next: Option<u32>) -> bool {
        let there = |next| get_bit(&self.next_map, next_bit(hash, next, self.next_map.len()));
        there(None) || next.is_some() && there(next)
    }

    /// Records of grams, among them those with this hash.
    ///
    /// # Errors
    /// Those of the medium.
    pub(super) fn grams(&self, hash: u32) -> io::Result<Cow<'_, [u8]>> {
        let bucket = u64::from(hash >> (32 - u32::from(self.header.gram_bits).clamp(1, 24)));
        let bounds = self.gram_directory.bytes(&*self.medium, bucket * 4, 8)?;
        let Some((first, second)) = bounds.split_at_checked(4) else { return Ok(Cow::Borrowed(&[])) };
        let (first, second) = (u64::from(record::number(first)), u64::from(record::number(second)));
        let count = usize::try_from(second.saturating_sub(first)).unwrap_or(0).saturating_mul(GRAM_BYTES);
        self.grams.bytes(&*self.medium, first * GRAM_BYTES as u64, count)
    }

    /// Records of short anchors, beginning with those with this hash.
    pub(super) fn shorts(&self, hash: u32) -> &[u8] {
        let (rows, _) = self.shorts.as_chunks::<GRAM_BYTES>();
        let wanted = hash.to_be_bytes();
        let from = rows.partition_point(|row| row.first_chunk::<4>().is_some_and(|hash| *hash < wanted));
        let rest = rows.get(from..).unwrap_or_default();
        rest.get(..rest.partition_point(|row| row.starts_with(&wanted))).unwrap_or_default().as_flattened()
    }

    /// A segment's record; `None` when it is damaged.
    pub(super) fn segment(&self, place: u32) -> io::Result<Option<SegmentRecord>> {
        self.record(place)
    }

    /// A signature's record; `None` when it is damaged.
    pub(super) fn pattern(&self, place: u32) -> io::Result<Option<PatternRecord>> {
        self.record(place)
    }

    fn record<T: serde::de::DeserializeOwned>(&self, place: u32) -> io::Result<Option<T>> {
        /// Most records are shorter, so one read is enough.
        const GUESS: usize = 504;
        let records = extent(&self.header, Section::Records);
        let at = records.offset + u64::from(place) * ALIGNMENT;
        let first = read_vec(&*self.medium, at, GUESS + 8)?;
        let Some((length, checksum)) = frame(&first) else { return Ok(None) };
        if let Some(body) = first.get(8..8 + length) {
            return Ok(unframed(body, checksum));
        }
        let body = read_vec(&*self.medium, at + 8, length)?;
        Ok(unframed(&body, checksum))
    }
}

/// Where a section is.
fn extent(header: &Header, section: Section) -> Extent {
    header.sections.get(section as usize).copied().unwrap_or_default()
}

/// The bucket of a key.
pub fn bucket(key: &[u8; 16], bits: u8) -> u64 {
    let [a, b, c, d, ..] = *key;
    u64::from(u32::from_be_bytes([a, b, c, d])) >> (32 - u32::from(bits.min(32)))
}

/// How many bits number the buckets of so many digests.
pub fn bucket_bits(hashes: u64) -> u8 {
    let buckets = (hashes / BUCKET).max(1).next_power_of_two();
    u8::try_from(buckets.ilog2().clamp(1, 24)).unwrap_or(24)
}

/// What a signature's name is known by among those that count for nothing.
pub fn name_key(name: &str) -> [u8; 16] {
    key(ring::digest::digest(&ring::digest::SHA256, name.as_bytes()).as_ref())
}

/// The bit of a short anchor's hash in the short map.
pub(super) fn short_bit(hash: u32) -> usize {
    usize::try_from(hash >> 16).unwrap_or(0)
}

/// The bit of a gram with what is behind it, or of one of which less than eight bytes are known.
fn next_bit(hash: u32, next: Option<u32>, bytes: usize) -> usize {
    let mixed = next.map_or(hash ^ 0x5BD1_E995, |next| hash.rotate_left(15) ^ next.wrapping_mul(0x85EB_CA6B));
    let bits = (bytes * 8).max(1).ilog2();
    usize::try_from(record::gram_hash(mixed ^ mixed >> 15).unbounded_shr(32 - bits)).unwrap_or(0)
}

fn set_bit(map: &mut [u8], bit: usize) {
    if let Some(byte) = map.get_mut(bit / 8) {
        *byte |= 1 << (bit % 8);
    }
}

fn get_bit(map: &[u8], bit: usize) -> bool {
    map.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
}
