//! Seals: a table's value with a checksum that is bound to its table and key.
//!
//! A card flips bits, and redb does not look at a page's checksum when it reads one. So each value
//! of ours is sealed: a version byte, the fields, and a crc32c (little-endian) over the table's name,
//! the key, the version and the fields. A changed value, and a value that a damaged tree finds
//! under another key or in another table, is an error and never mail.

use super::error::Trouble;

/// The first byte of a sealed value. Rows of schema 1 began with 1 and had no checksum.
pub(super) const SEALED: u8 = 2;

/// Bytes of the checksum at the end.
const SUM: usize = 4;

/// A key as it goes into the checksum: its integers little-endian, its text as it is.
pub(super) trait RowKey: Copy {
    /// Hands the key's bytes over.
    fn feed(self, take: &mut dyn FnMut(&[u8]));
}

impl RowKey for u16 {
    fn feed(self, take: &mut dyn FnMut(&[u8])) {
        take(&self.to_le_bytes());
    }
}

impl RowKey for u32 {
    fn feed(self, take: &mut dyn FnMut(&[u8])) {
        take(&self.to_le_bytes());
    }
}

impl RowKey for u64 {
    fn feed(self, take: &mut dyn FnMut(&[u8])) {
        take(&self.to_le_bytes());
    }
}

impl RowKey for &str {
    fn feed(self, take: &mut dyn FnMut(&[u8])) {
        take(self.as_bytes());
    }
}

impl<A: RowKey, B: RowKey> RowKey for (A, B) {
    fn feed(self, take: &mut dyn FnMut(&[u8])) {
        self.0.feed(take);
        self.1.feed(take);
    }
}

/// Begins a value.
pub(super) fn begin() -> Vec<u8> {
    vec![SEALED]
}

/// Ends a value that [`begin`] began.
pub(super) fn seal(table: &str, key: impl RowKey, mut value: Vec<u8>) -> Vec<u8> {
    let sum = sum(table, key, &value);
    value.extend_from_slice(&sum.to_le_bytes());
    value
}

/// The fields of a sealed value.
pub(super) fn open<'v>(table: &'static str, key: impl RowKey, value: &'v [u8]) -> Result<&'v [u8], Trouble> {
    let (sealed, found) = value.split_last_chunk::<SUM>().ok_or_else(|| Trouble::damaged(table))?;
    let fields = match sealed.split_first() {
        Some((&SEALED, fields)) if u32::from_le_bytes(*found) == sum(table, key, sealed) => Some(fields),
        _ => None,
    };
    fields.ok_or_else(|| Trouble::damaged(table))
}

fn sum(table: &str, key: impl RowKey, value: &[u8]) -> u32 {
    let mut crc = crc32c::crc32c(table.as_bytes());
    key.feed(&mut |bytes| crc = crc32c::crc32c_append(crc, bytes));
    crc32c::crc32c_append(crc, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_opens_under_its_own_key_and_table_alone() {
        let mut value = begin();
        value.extend_from_slice(b"fields");
        let value = seal("msg", (7_u32, 9_u32), value);
        assert_eq!(open("msg", (7_u32, 9_u32), &value).unwrap(), b"fields");
        assert!(open("msg", (7_u32, 8_u32), &value).is_err());
        assert!(open("mbox", (7_u32, 9_u32), &value).is_err());
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_found() {
        let value = seal("account", 3_u32, begin().into_iter().chain(*b"verifier").collect());
        for bit in 0..value.len() * 8 {
            let mut flipped = value.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open("account", 3_u32, &flipped).is_err(), "bit {bit}");
        }
        for length in 0..value.len() {
            assert!(open("account", 3_u32, &value[..length]).is_err());
        }
    }
}
