//! The approximate filter: tells for most digests that they are not in the set, without the disk.
//!
//! A Bloom filter in blocks of a cache line, eight bits a key; some 3 of 100 digests that are not in
//! the set are looked for on the disk for nothing. It is built key by key in memory. A look-up takes one
//! block, so it may as well stay on the disk.

/// Bytes of a block.
pub const BLOCK: usize = 64;

/// Bits set for a key.
const PROBES: u32 = 5;

/// A filter that is being built.
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

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Adds a key.
    pub fn add(&mut self, key: u64) {
        let place = Place::of(key, self.bytes.len() as u64);
        let start = usize::try_from(place.start).unwrap_or(usize::MAX);
        for bit in place.bits {
            if let Some(byte) = self.bytes.get_mut(start.saturating_add(bit / 8)) {
                *byte |= 1 << (bit % 8);
            }
        }
    }
}

/// Where a key's bits are.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Where its block starts.
    pub start: u64,
    bits: [usize; PROBES as usize],
}

impl Place {
    /// Of a key in a filter of so many bytes.
    pub fn of(key: u64, bytes: u64) -> Self {
        let mixed = mix(key);
        let block = (u128::from(mixed) * u128::from(bytes / BLOCK as u64)) >> 64;
        let (mut more, mut bits) = (mix(mixed), [0; PROBES as usize]);
        for bit in &mut bits {
            *bit = usize::try_from(more & 511).unwrap_or(0);
            more >>= 9;
        }
        Self { start: u64::try_from(block).unwrap_or(0) * BLOCK as u64, bits }
    }

    /// Tells of the block whether the key may be there.
    pub fn is_in(&self, block: &[u8]) -> bool {
        self.bits.iter().all(|bit| block.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1))
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

    fn may_have(filter: &Filter, key: u64) -> bool {
        let place = Place::of(key, filter.bytes().len() as u64);
        let start = usize::try_from(place.start).unwrap();
        filter.bytes().get(start..start + BLOCK).is_some_and(|block| place.is_in(block))
    }

    #[test]
    fn every_key_that_was_added_is_found_and_few_others() {
        let mut filter = Filter::with_keys(100_000);
        (0..100_000).for_each(|key| filter.add(key));
        assert!((0..100_000).all(|key| may_have(&filter, key)));
        let false_ones = (1_000_000..2_000_000_u64).filter(|&key| may_have(&filter, key)).count();
        assert!(false_ones < 40_000, "{false_ones} of a million");
    }

    #[test]
    fn an_empty_filter_has_nothing() {
        assert!(!may_have(&Filter::with_keys(0), 1));
    }
}
