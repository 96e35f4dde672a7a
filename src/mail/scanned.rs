//! What the scan of a message leaves behind, so that signatures which come later can be held against it
//! without its body: which set looked at it, and prints of what was in it.

use serde::{Deserialize, Serialize};

/// Most prints that are kept of a message: 19 bytes each.
pub const PRINTS_MAX: usize = 32;

/// A file in a message, as lists of digests know it: the first half of an MD5 and the first quarter of a
/// SHA-256. Two files share 64 bits by chance so rarely that a look at the body, which follows, costs
/// nothing; and a look at the body is all that a print is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Print {
    /// Its bytes; `u32::MAX` for more than that.
    pub size: u32,
    /// The MD5's first eight bytes.
    pub md5: [u8; 8],
    /// The SHA-256's first eight bytes.
    pub sha256: [u8; 8],
}

/// What the scan of a message leaves behind. A message of plain text has three bytes of it
/// (five from the 128th set on, as numbers take their bytes).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scanned {
    /// The number of the signature set that looked at it; each set of a store has the next.
    pub set: u32,
    /// All that prints are kept of has one here.
    pub whole: bool,
    /// At most [`PRINTS_MAX`].
    pub prints: Vec<Print>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_without_attachments_costs_next_to_nothing() {
        let bytes = |scanned: &Scanned| postcard::to_allocvec(scanned).unwrap();
        let plain = Scanned { set: 100, whole: true, prints: Vec::new() };
        assert_eq!(bytes(&plain).len(), 3);
        let one = Scanned { prints: vec![Print { size: 40_000, ..Print::default() }], ..plain.clone() };
        assert_eq!(bytes(&one).len(), 3 + 19);
        assert_eq!(postcard::from_bytes::<Scanned>(&bytes(&one)).unwrap(), one);
    }
}
