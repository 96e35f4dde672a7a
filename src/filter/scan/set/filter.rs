//! The approximate filter: tells for most digests that they are not in the set, without the disk.
//!
//! A Bloom filter in blocks of a cache line, eight bits a key; some 3 of 100 digests that are not in
//! the set are looked for on the disk for nothing. It is built key by key in its own memory.

/// Bytes of a block.
const BLOCK: usize = 64;

/// Bits set for a key.
const PROBES: u32 = 5;

/// Tells of most keys that are not in the set that they are not.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    bytes: Vec<u8>,
}

impl Filter {
    /// Makes room for `keys` keys.
    pub fn with_keys(keys: u64) -> Self {
        let blocks = usize::try_from(keys).unwrap_or(usize::MAX).div_ceil(BLOCK);
        Self { bytes: vec![0; blocks * BLOCK] }
    }

    /// Takes one that was built before.
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        bytes.len().is_multiple_of(BLOCK).then_some(Self { bytes })
    }

    /// What [`Filter::from_bytes`] takes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds a key.
    pub fn add(&mut self, key: u64) {
        let (start, bits) = self.place(key);
        for bit in bits {
            if let Some(byte) = self.bytes.get_mut(start + bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
    }

    /// Tells whether the key may be there.
    pub fn may_have(&self, key: u64) -> bool {
        let (start, mut bits) = self.place(key);
        bits.all(|bit| self.bytes.get(start + bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1))
    }

    /// Where the key's block starts, and its bits in the block.
    fn place(&self, key: u64) -> (usize, impl Iterator<Item = usize> + use<>) {
        let mixed = mix(key);
        let blocks = (self.bytes.len() / BLOCK) as u64;
        let block = (u128::from(mixed) * u128::from(blocks)) >> 64;
        let more = mix(mixed);
        let bits = (0..PROBES).map(move |probe| usize::try_from(more >> (probe * 9) & 511).unwrap_or(0));
        (usize::try_from(block).unwrap_or(0) * BLOCK, bits)
    }
}

/// Spreads a key over all 64 bits (the finalizer of `SplitMix64`).
fn mix(key: u64) -> u64 {
    let mut mixed = key.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_was_added_is_found_and_few_others() {
        let mut filter = Filter::with_keys(100_000);
        (0..100_000).for_each(|key| filter.add(key));
        assert!((0..100_000).all(|key| filter.may_have(key)));
        let false_ones = (1_000_000..2_000_000_u64).filter(|&key| filter.may_have(key)).count();
        assert!(false_ones < 40_000, "{false_ones} of a million");
    }

    #[test]
    fn an_empty_filter_has_nothing() {
        let filter = Filter::with_keys(0);
        assert!(!filter.may_have(1));
        assert!(Filter::from_bytes(vec![0; 63]).is_none());
    }
}
