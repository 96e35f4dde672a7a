//! A pair of keys: RSA for everybody, Ed25519 for those who know it (RFC 8301, RFC 8463).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::rand::SecureRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::der::{ED25519_PRIVATE, rsa_public};
use super::rsa;

/// Bytes of randomness that a pair is made of: half for each key.
pub const SEEDS: usize = 2 * rsa::SEED;

/// How a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// `rsa-sha256`
    Rsa,
    /// `ed25519-sha256`
    Ed25519,
}

impl Algorithm {
    /// Both, in the order in which they sign.
    pub const ALL: [Self; 2] = [Self::Rsa, Self::Ed25519];

    /// As `k=` and our selectors have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::Ed25519 => "ed25519",
        }
    }

    /// As `a=` has it.
    pub fn tag(self) -> &'static str {
        match self {
            Self::Rsa => "rsa-sha256",
            Self::Ed25519 => "ed25519-sha256",
        }
    }
}

/// Two private keys, ready to sign.
pub struct Pair {
    rsa: RsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl fmt::Debug for Pair {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Pair(hidden)")
    }
}

impl Pair {
    /// Makes the two keys, each as PKCS #8 in DER, in the order of [`Algorithm::ALL`]. Takes long.
    pub(super) fn generate(seeds: &[u8; SEEDS]) -> Option<[Zeroizing<Vec<u8>>; 2]> {
        let (first, second) = seeds.split_first_chunk::<{ rsa::SEED }>()?;
        let ed25519 = Zeroizing::new([ED25519_PRIVATE, second].concat());
        Some([rsa::generate(first)?, ed25519])
    }

    /// Takes two keys as PKCS #8 in DER; `None` when they are none.
    pub(super) fn load(rsa: &[u8], ed25519: &[u8]) -> Option<Self> {
        let rsa = RsaKeyPair::from_pkcs8(rsa).ok()?;
        let ed25519 = Ed25519KeyPair::from_pkcs8_maybe_unchecked(ed25519).ok()?;
        Some(Self { rsa, ed25519 })
    }

    /// The text of the TXT record that publishes a key (RFC 6376 section 3.6.1, RFC 8463 section 4).
    pub fn record(&self, algorithm: Algorithm) -> String {
        let key = match algorithm {
            Algorithm::Rsa => STANDARD.encode(rsa_public(self.rsa.public_key().as_ref())),
            Algorithm::Ed25519 => STANDARD.encode(self.ed25519.public_key()),
        };
        format!("v=DKIM1; k={}; p={key}", algorithm.name())
    }

    /// Signs (RFC 6376 section 3.3.1, RFC 8463 section 3). `None` only when ring fails, which it has
    /// no reason for.
    pub fn sign(&self, algorithm: Algorithm, random: &dyn SecureRandom, data: &[u8]) -> Option<String> {
        match algorithm {
            Algorithm::Rsa => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, random, data, &mut signature).ok()?;
                Some(STANDARD.encode(signature))
            }
            // What Ed25519 signs is the hash, and not the text.
            Algorithm::Ed25519 => Some(STANDARD.encode(self.ed25519.sign(digest(&SHA256, data).as_ref()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_rfc_8463_is_published_as_there() {
        // RFC 8463 appendix A.2
        let private = STANDARD.decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=").unwrap();
        let rsa = rsa::generate(&[3; rsa::SEED]).unwrap();
        let pair = Pair::load(&rsa, &[ED25519_PRIVATE, &private].concat()).unwrap();
        let record = pair.record(Algorithm::Ed25519);
        assert_eq!(record, "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        let record = pair.record(Algorithm::Rsa);
        // A 2048-bit key with the exponent 65,537 always begins and ends so.
        assert!(record.starts_with("v=DKIM1; k=rsa; p=MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA"), "{record}");
        assert!(record.ends_with("IDAQAB"), "{record}");
        assert_eq!(format!("{pair:?}"), "Pair(hidden)");
    }
}
