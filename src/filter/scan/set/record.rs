//! What stands in a set, as bytes: digests, grams, patterns.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::filter::scan::Target;
use crate::filter::scan::signature::logical::Terms;
use crate::filter::scan::signature::{
    Anchor, DigestKind, Expression, HashRole, HashSignature, Place, RegexSub, Segment,
};

/// Bytes of a digest's record: key (16), role and kind (1), size (4), place of the name (5).
pub const HASH_BYTES: usize = 26;

/// Bytes of a digest's record before the place of the name.
pub const SOUGHT_BYTES: usize = 21;

/// Bytes of a digest that are kept: all of an MD5, the first half of a SHA-256. A file that has
/// another's 128 bits by chance does not come up.
pub const KEY_BYTES: usize = 16;

/// Bytes of a gram's record: hash (4), what follows it (4), place of the segment and how many bytes
/// follow (4).
pub const GRAM_BYTES: usize = 12;

/// Pattern records begin at multiples of this.
pub const ALIGNMENT: u64 = 8;

/// Longest pattern record in bytes.
pub const RECORD_MAX: usize = 1 << 20;

/// What a digest's record stands for besides the digest: the tag of a name that counts for nothing.
pub const IGNORED_TAG: u8 = 0xFF;

/// The size of a digest's record that stands for any.
const ANY_SIZE: u32 = u32::MAX;

/// A digest's record, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashRecord {
    /// The digest's first bytes.
    pub key: [u8; KEY_BYTES],
    /// Role and kind.
    pub tag: u8,
    /// Where the name is.
    pub name: u64,
    /// Of how many bytes it is the digest, if that counts.
    pub size: Option<u32>,
}

/// The tag of a role and a kind.
pub fn tag(role: HashRole, kind: DigestKind) -> u8 {
    (role as u8) << 2 | kind as u8
}

/// The first bytes of a digest, or of anything.
pub fn key(digest: &[u8]) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    for (into, from) in key.iter_mut().zip(digest) {
        *into = *from;
    }
    key
}

/// What the filter knows a record by.
pub fn filter_key(key: &[u8; KEY_BYTES], tag: u8) -> u64 {
    let (low, _) = key.split_at(8);
    u64::from_be_bytes(low.try_into().unwrap_or_default()) ^ u64::from(tag).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

impl HashRecord {
    /// Of a signature whose name is at `name`.
    pub fn of(signature: &HashSignature, name: u64) -> Self {
        let tag = tag(signature.role, signature.kind);
        Self { key: key(&signature.digest), tag, name, size: signature.size.filter(|&size| size != ANY_SIZE) }
    }

    /// As bytes, which sort by key, role and size.
    pub fn bytes(&self) -> [u8; HASH_BYTES] {
        let mut bytes = [0; HASH_BYTES];
        let head = sought(&self.key, self.tag, self.size);
        let place = self.name.to_be_bytes().into_iter().skip(3);
        for (into, from) in bytes.iter_mut().zip(head.into_iter().chain(place)) {
            *into = from;
        }
        bytes
    }

    /// Of bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk::<KEY_BYTES>()?;
        let (tag, rest) = rest.split_first()?;
        let (size, rest) = rest.split_first_chunk::<4>()?;
        let name = rest.get(..5)?.iter().fold(0, |place, &byte| place << 8 | u64::from(byte));
        let size = Some(u32::from_be_bytes(*size)).filter(|&size| size != ANY_SIZE);
        Some(Self { key: *key, tag: *tag, name, size })
    }
}

/// What a record begins with, all but the place of the name.
pub fn sought(key: &[u8; KEY_BYTES], tag: u8, size: Option<u32>) -> [u8; SOUGHT_BYTES] {
    let mut bytes = [0; SOUGHT_BYTES];
    let parts = key.iter().copied().chain([tag]).chain(size.unwrap_or(ANY_SIZE).to_be_bytes());
    for (into, from) in bytes.iter_mut().zip(parts) {
        *into = from;
    }
    bytes
}

/// One segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentRecord {
    /// Where the signature's record is, in units of [`ALIGNMENT`].
    pub signature: u32,
    /// Which of the signature's bodies it belongs to, and for which subsignature that counts.
    pub body: u16,
    /// See `body`.
    pub sub: u16,
    /// Its number in the body.
    pub index: u8,
    /// No segment comes behind it.
    pub last: bool,
    /// Letters count without case.
    pub fold: bool,
    /// The body's ends must be those of words.
    pub word: bool,
    /// The signature has only this body, and finding it is enough.
    pub simple: bool,
    /// What the file must be.
    pub target: Target,
    /// Where the body must begin; of the first segment.
    pub place: Place,
    /// What was looked for.
    pub anchor: Anchor,
    /// What it is made of.
    pub segment: Segment,
}

/// A signature with patterns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PatternRecord {
    /// Its name.
    pub name: String,
    /// What must be true of the file.
    pub terms: Terms,
    /// What must be true of the patterns.
    pub expression: Expression,
    /// Regular expressions that count as patterns.
    pub regexes: Vec<RegexSub>,
}

/// A record with its frame: length (4), CRC-32C (4), the record, zeros up to [`ALIGNMENT`].
pub fn framed<T: Serialize>(record: &T) -> Option<Vec<u8>> {
    let body = postcard::to_allocvec(record).ok()?;
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= RECORD_MAX)?;
    let mut bytes = Vec::with_capacity(body.len() + 16);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    Some(bytes)
}

/// Length and checksum out of a frame's first 8 bytes.
pub fn frame(bytes: &[u8]) -> Option<(usize, u32)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= RECORD_MAX)?;
    Some((length, u32::from_le_bytes(*rest.first_chunk::<4>()?)))
}

/// A record out of its bytes, or `None` when they are not what was written.
pub fn unframed<T: DeserializeOwned>(body: &[u8], checksum: u32) -> Option<T> {
    if crc32c::crc32c(body) == checksum { postcard::from_bytes(body).ok() } else { None }
}

/// A gram: four bytes that are looked for, with what follows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gram {
    /// [`gram_hash`] of the four bytes, or for shorter anchors of two.
    pub hash: u32,
    /// The bytes behind them, the first lowest.
    pub next: u32,
    /// How many of them count.
    pub next_length: u8,
    /// Where the segment's record is, in units of [`ALIGNMENT`]; below 2^29.
    pub place: u32,
}

/// Spreads four bytes over 32 bits; no two have the same.
pub const fn gram_hash(gram: u32) -> u32 {
    gram.wrapping_mul(0x9E37_79B1)
}

impl Gram {
    /// Of an anchor's bytes: four and what follows, or of two where there are no four.
    pub fn of(anchored: &[u8], place: u32) -> (Self, bool) {
        let folded: Vec<u8> = anchored.iter().map(u8::to_ascii_lowercase).collect();
        let long = folded.len() >= 4;
        let (first, next) = folded.split_at(if long { 4 } else { 2.min(folded.len()) });
        let next = next.get(..next.len().min(4)).unwrap_or_default();
        let next_length = u8::try_from(next.len()).unwrap_or(0);
        (Self { hash: gram_hash(number(first)), next: number(next), next_length, place }, long)
    }

    /// As bytes, which sort by hash.
    pub fn bytes(&self) -> [u8; GRAM_BYTES] {
        let packed = self.place << 3 | u32::from(self.next_length);
        let mut bytes = [0; GRAM_BYTES];
        let parts = [self.hash, self.next, packed].into_iter().flat_map(u32::to_be_bytes);
        for (into, from) in bytes.iter_mut().zip(parts) {
            *into = from;
        }
        bytes
    }

    /// Of bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (hash, rest) = bytes.split_first_chunk::<4>()?;
        let (next, rest) = rest.split_first_chunk::<4>()?;
        let packed = u32::from_be_bytes(*rest.first_chunk::<4>()?);
        let next_length = u8::try_from(packed & 7).unwrap_or(0);
        let (hash, next) = (u32::from_be_bytes(*hash), u32::from_be_bytes(*next));
        Some(Self { hash, next, next_length, place: packed >> 3 })
    }
}

/// Up to four bytes as a number, the first lowest.
pub fn number(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).rev().fold(0, |number, &byte| number << 8 | u32::from(byte))
}
