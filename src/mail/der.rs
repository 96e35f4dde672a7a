//! DER (ITU-T X.690) as certificates and signatures are spelled in it: a reader, one value after the other.
//!
//! It knows tags and lengths and no ASN.1: who reads says which tag comes next. What is not there, or
//! longer than what holds it, is `None`. Nothing is copied.

/// SEQUENCE
pub const SEQUENCE: u8 = 0x30;
/// SET
pub const SET: u8 = 0x31;
/// OBJECT IDENTIFIER
pub const OID: u8 = 0x06;
/// OCTET STRING
pub const OCTETS: u8 = 0x04;
/// INTEGER
pub const INTEGER: u8 = 0x02;
/// `UTCTime`
pub const UTC_TIME: u8 = 0x17;
/// `GeneralizedTime`
pub const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, constructed; `[1]` is one more.
pub const FIRST: u8 = 0xA0;

/// What is left of some DER.
#[derive(Clone, Copy, Debug)]
pub struct Der<'d>(pub &'d [u8]);

impl<'d> Der<'d> {
    /// The next tag.
    #[must_use]
    pub fn next(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// Takes a value: as a whole, and its content without tag and length.
    pub fn take_any(&mut self) -> Option<(&'d [u8], &'d [u8])> {
        let (length, head) = match *self.0.get(1)? {
            short @ 0..=0x7F => (usize::from(short), 2),
            long @ 0x81..=0x84 => {
                let count = usize::from(long & 0x7F);
                let digits = self.0.get(2..2 + count)?;
                (digits.iter().fold(0_usize, |length, digit| length << 8 | usize::from(*digit)), 2 + count)
            }
            _ => return None,
        };
        let whole = self.0.get(..head.checked_add(length)?)?;
        self.0 = self.0.get(whole.len()..)?;
        Some((whole, whole.get(head..)?))
    }

    /// Takes the content of a value with this tag.
    pub fn take(&mut self, tag: u8) -> Option<&'d [u8]> {
        if self.next() == Some(tag) { self.take_any().map(|(_, content)| content) } else { None }
    }

    /// The same with tag and length.
    pub fn take_whole(&mut self, tag: u8) -> Option<&'d [u8]> {
        if self.next() == Some(tag) { self.take_any().map(|(whole, _)| whole) } else { None }
    }

    /// Passes over a value.
    pub fn skip(&mut self) -> Option<()> {
        self.take_any().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_taken_by_their_tags() {
        let mut der = Der(&[INTEGER, 1, 7, OCTETS, 0x81, 2, 8, 9]);
        assert_eq!(der.take(OCTETS), None);
        assert_eq!(der.take(INTEGER), Some(&[7][..]));
        assert_eq!(der.take_whole(OCTETS), Some(&[OCTETS, 0x81, 2, 8, 9][..]));
        assert_eq!((der.next(), der.skip()), (None, None));
    }

    #[test]
    fn a_length_beyond_the_end_is_nothing() {
        for der in [&[SEQUENCE][..], &[SEQUENCE, 1], &[SEQUENCE, 0x80], &[SEQUENCE, 0x84, 255, 255, 255, 255, 1]] {
            assert_eq!(Der(der).take(SEQUENCE), None, "{der:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_there(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut der = Der(&bytes);
            while let Some((whole, content)) = der.take_any() {
                prop_assert!(whole.len() >= content.len() + 2);
            }
        }
    }
}
