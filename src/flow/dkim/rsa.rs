//! Makes RSA keys, which ring uses but does not make (RFC 8017).
//!
//! The primes come from `crypto-primes`; what follows from them is four lines of arithmetic, and ring
//! proves each key when it is loaded. Randomness comes in as a seed: it is drawn out by SHA-256 over
//! seed and counter, so the same seed makes the same key.

use std::convert::Infallible;

use crypto_bigint::{NonZero, Odd, U1024, U2048};
use crypto_primes::hazmat::{SetBits, SmallFactorsSieveFactory};
use crypto_primes::{Flavor, is_prime, sieve_and_find};
use rand_core::{TryCryptoRng, TryRng};
use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::der::{INTEGER, OCTET_STRING, RSA_ENCRYPTION, SEQUENCE, element, unsigned};

/// Bits of the modulus (RFC 8301 section 3.2: at least 1024, should be 2048).
const RSA_BITS: u32 = 2048;

/// Bytes of randomness that a key is made of.
pub(super) const SEED: usize = 32;

/// The public exponent.
const EXPONENT: u32 = 65_537;

/// Primes looked at before giving up; the second already does but for one time in 65,537.
const TRIES: usize = 16;

/// Makes a key of [`RSA_BITS`] bits as PKCS #8 in DER. Takes from a fraction of a second to half a
/// minute, by machine and luck. `None` only when luck beggars belief.
pub(super) fn generate(seed: &[u8; SEED]) -> Option<Zeroizing<Vec<u8>>> {
    let mut stream = Stream { seed: Zeroizing::new(*seed), counter: 0 };
    for _ in 0..TRIES {
        let (p, q) = (prime(&mut stream)?, prime(&mut stream)?);
        // Primes that are this close together can be found by Fermat's method (FIPS 186-5 A.1.1).
        let apart = if p > q { p.wrapping_sub(&q) } else { q.wrapping_sub(&p) };
        if apart.bit_width() > RSA_BITS / 2 - 100
            && let Some(key) = assemble(if p > q { (p, q) } else { (q, p) })
        {
            return Some(key);
        }
    }
    None
}

/// A prime with both highest bits set, so that a product of two has all its bits.
fn prime(stream: &mut Stream) -> Option<U1024> {
    let factory = SmallFactorsSieveFactory::new(Flavor::Any, RSA_BITS / 2, SetBits::TwoMsb).ok()?;
    sieve_and_find(stream, factory, |_, candidate| is_prime(Flavor::Any, candidate)).ok()?
}

/// The private key (RFC 8017 appendix A.1.2) with what speeds it up; `None` when the exponent has no
/// inverse with these primes.
fn assemble((p, q): (U1024, U1024)) -> Option<Zeroizing<Vec<u8>>> {
    let (p1, q1) = (p.wrapping_sub(&U1024::ONE), q.wrapping_sub(&U1024::ONE));
    let modulus: U2048 = p.concatenating_mul(&q);
    let phi: U2048 = p1.concatenating_mul(&q1);
    let inverse = |of: &U1024| -> Option<U1024> {
        let modulus: NonZero<U1024> = Option::from(NonZero::new(*of))?;
        Option::from(U1024::from_u32(EXPONENT).invert_mod(&modulus))
    };
    let whole: NonZero<U2048> = Option::from(NonZero::new(phi))?;
    let d: U2048 = Option::from(U2048::from_u32(EXPONENT).invert_mod(&whole))?;
    let odd: Odd<U1024> = Option::from(Odd::new(p))?;
    let coefficient: U1024 = Option::from(q.invert_odd_mod(&odd))?;

    let short = |number: &U1024| Zeroizing::new(unsigned(number.to_be_bytes().as_ref()));
    let long = |number: &U2048| Zeroizing::new(unsigned(number.to_be_bytes().as_ref()));
    let numbers = [
        Zeroizing::new(unsigned(&[0])),
        long(&modulus),
        Zeroizing::new(unsigned(&EXPONENT.to_be_bytes())),
        long(&d),
        short(&p),
        short(&q),
        short(&inverse(&p1)?),
        short(&inverse(&q1)?),
        short(&coefficient),
    ];
    let numbers = Zeroizing::new(numbers.iter().flat_map(|number| number.iter().copied()).collect::<Vec<u8>>());
    let key = Zeroizing::new(element(OCTET_STRING, &element(SEQUENCE, &numbers)));
    let version = element(INTEGER, &[0]);
    Some(Zeroizing::new(element(SEQUENCE, &[version.as_slice(), RSA_ENCRYPTION, key.as_slice()].concat())))
}

/// Randomness without end out of a seed.
struct Stream {
    seed: Zeroizing<[u8; SEED]>,
    counter: u64,
}

impl TryRng for Stream {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for piece in out.chunks_mut(SHA256.output_len()) {
            let input = Zeroizing::new([self.seed.as_slice(), &self.counter.to_le_bytes()].concat());
            self.counter = self.counter.wrapping_add(1);
            piece.iter_mut().zip(digest(&SHA256, &input).as_ref()).for_each(|(byte, random)| *byte = *random);
        }
        Ok(())
    }
}

impl TryCryptoRng for Stream {}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey};

    #[test]
    fn ring_takes_the_key_and_its_signatures_verify() {
        for seed in [[1; SEED], [2; SEED]] {
            let der = generate(&seed).unwrap();
            let key = RsaKeyPair::from_pkcs8(&der).unwrap();
            assert_eq!(key.public().modulus_len() * 8, RSA_BITS as usize);
            let mut signature = vec![0; key.public().modulus_len()];
            key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), b"letter", &mut signature).unwrap();
            let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public().as_ref());
            assert!(public.verify(b"letter", &signature).is_ok() && public.verify(b"other", &signature).is_err());
        }
    }

    #[test]
    fn a_seed_makes_one_key_and_another_seed_another() {
        assert_eq!(generate(&[7; SEED]), generate(&[7; SEED]));
        assert_ne!(generate(&[7; SEED]), generate(&[8; SEED]));
    }
}
