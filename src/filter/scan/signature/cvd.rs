//! ClamAV's containers: a header of 512 bytes, then a tar file, mostly packed with gzip.
//!
//! A `.cvd` is signed: the header names the MD5 of what follows it and holds that digest under a
//! 1,024-bit RSA signature, in digits of its own. A `.cld` is what freshclam makes of one on its own
//! machine and has no signature that fits.

/// Bytes of the header.
pub const HEADER_SIZE: usize = 512;

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CvdHeader {
    /// When it was made, as the header spells it.
    pub made: String,
    /// Its version.
    pub version: u32,
    /// How many signatures it says it has.
    pub signatures: u64,
    /// Least level of the engine.
    pub level: u32,
    /// MD5 of what follows.
    pub md5: [u8; 16],
    /// The signature of that.
    pub signature: String,
}

impl CvdHeader {
    /// Reads a header: `ClamAV-VDB:TIME:VERSION:COUNT:LEVEL:MD5:SIGNATURE:BUILDER:SECONDS`.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes.get(..HEADER_SIZE)?).ok()?;
        let fields: Vec<&str> = text.trim_end().split(':').collect();
        let &["ClamAV-VDB", made, version, signatures, level, md5, signature, ..] = fields.as_slice() else {
            return None;
        };
        Some(Self {
            made: made.to_owned(),
            version: version.parse().ok()?,
            signatures: signatures.parse().ok()?,
            level: level.parse().ok()?,
            md5: super::hash::bytes_of_hex(md5)?.try_into().ok()?,
            signature: signature.to_owned(),
        })
    }

    /// Tells whether ClamAV's key signed the digest in this header.
    pub fn is_signed(&self) -> bool {
        opened(&self.signature).is_some_and(|digest| digest == self.md5)
    }
}

/// Limbs of a number: 1,024 bits, the lowest first.
const LIMBS: usize = 32;
type Number = [u32; LIMBS];

/// ClamAV's public modulus (`CLI_NSTR` in its sources).
#[rustfmt::skip]
const MODULUS: Number = [
    0x4A61_30AD, 0xB69A_5E57, 0x8F2D_4778, 0x352B_7504, 0x4926_3171, 0x3B86_A0E0, 0x79BC_FCE4, 0x5AB6_28DF,
    0xFA72_2AB2, 0xC989_D399, 0xD2E2_5256, 0x6290_9D56, 0x2586_930F, 0xC84F_AB2E, 0xE1E2_3ACB, 0x0173_BB07,
    0x2A45_2DD8, 0x2403_A3DB, 0xA8A8_9597, 0x1491_428C, 0x2085_ECDD, 0xEED1_FF34, 0x48BA_8CB7, 0x90C6_08BB,
    0x6DDF_C53A, 0x917A_9854, 0x9CD4_60E1, 0x3753_70C0, 0xEC44_C024, 0x1E60_8CFC, 0x2BAE_902E, 0xA8F3_4C7B,
];

/// Its public exponent.
const EXPONENT: u32 = 100_001_027;

/// What a signature holds, if it is one: its digits are base 64, the lowest first, in an order of
/// their own, and the digest stands in the number's lowest 16 bytes with nothing above it.
fn opened(signature: &str) -> Option<[u8; 16]> {
    let mut number = [0; LIMBS];
    for digit in signature.bytes().rev() {
        let value = match digit {
            b'a'..=b'z' => digit - b'a',
            b'A'..=b'Z' => digit - b'A' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        if shift_up(&mut number, 6) != 0 {
            return None;
        }
        *number.first_mut()? |= u32::from(value);
    }
    if !is_less(&number, &MODULUS) {
        return None;
    }
    let mut power = [0; LIMBS];
    *power.first_mut()? = 1;
    for bit in (0..u32::BITS - EXPONENT.leading_zeros()).rev() {
        power = times(&power, &power);
        if EXPONENT >> bit & 1 == 1 {
            power = times(&power, &number);
        }
    }
    let (low, high) = power.split_at(4);
    if high.iter().any(|&limb| limb != 0) {
        return None;
    }
    let mut digest = [0; 16];
    for (into, limb) in digest.rchunks_mut(4).zip(low) {
        into.copy_from_slice(&limb.to_be_bytes());
    }
    Some(digest)
}

/// The product of two numbers below the modulus, below it again.
fn times(left: &Number, right: &Number) -> Number {
    let mut product = [0; LIMBS];
    for limb in left.iter().rev() {
        for bit in (0..32).rev() {
            let over = shift_up(&mut product, 1);
            if over != 0 || !is_less(&product, &MODULUS) {
                subtract(&mut product, &MODULUS);
            }
            if limb >> bit & 1 == 1 && (add(&mut product, right) || !is_less(&product, &MODULUS)) {
                subtract(&mut product, &MODULUS);
            }
        }
    }
    product
}

/// Shifts by less than a limb and returns what fell out at the top.
fn shift_up(number: &mut Number, bits: u32) -> u32 {
    let mut over = 0;
    for limb in number {
        let next = *limb >> (32 - bits);
        *limb = *limb << bits | over;
        over = next;
    }
    over
}

fn is_less(left: &Number, right: &Number) -> bool {
    left.iter().rev().lt(right.iter().rev())
}

/// Adds and tells whether something fell out at the top.
fn add(to: &mut Number, what: &Number) -> bool {
    let mut carry = false;
    for (limb, more) in to.iter_mut().zip(what) {
        let (sum, first) = limb.overflowing_add(*more);
        let (sum, second) = sum.overflowing_add(u32::from(carry));
        (*limb, carry) = (sum, first || second);
    }
    carry
}

fn subtract(from: &mut Number, what: &Number) {
    let mut borrow = false;
    for (limb, less) in from.iter_mut().zip(what) {
        let (rest, first) = limb.overflowing_sub(*less);
        let (rest, second) = rest.overflowing_sub(u32::from(borrow));
        (*limb, borrow) = (rest, first || second);
    }
}
