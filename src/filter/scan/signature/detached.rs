//! Detached signatures on ClamAV's containers, as its 1.5 and later make them: `FILE.sign` beside the file.
//!
//! The first line is `#clamsign-1.0`; each other one `MIN:MAX:pkcs7-pem:...:BASE64`, of which the last field
//! is a CMS `SignedData` (RFC 5652) in DER without the content. It is believed when the digest of the file
//! stands in its signed attributes, a certificate in it made the signature over those, and that certificate
//! goes back to one that the operator named. What of ASN.1 that takes is read here; certificates and
//! signatures are `rustls-webpki`'s.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};

use super::LEVEL;
use crate::mail::der::{Der, FIRST, INTEGER, OCTETS, OID, SEQUENCE, SET};

/// Most bytes of a signature file.
pub const FILE_MAX: usize = 256 << 10;

/// Most certificates of one signature that are looked at.
const CERTIFICATES_MAX: usize = 8;

/// 1.2.840.113549.1.7.2
const SIGNED_DATA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 7, 2];
/// 1.2.840.113549.1.9.4
const MESSAGE_DIGEST: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 9, 4];
/// 2.16.840.1.101.3.4.2, with 1, 2 or 3 behind it for SHA-256, SHA-384 and SHA-512.
const SHA2: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2];

/// A detached signature.
#[derive(Clone, Debug)]
pub struct Detached {
    algorithm: &'static digest::Algorithm,
    /// What it says the file's digest is.
    digest: Vec<u8>,
    /// What is signed, as it is signed.
    attributes: Vec<u8>,
    signature: Vec<u8>,
    certificates: Vec<CertificateDer<'static>>,
}

/// Reads a signature file: every signature in it that is for us and can be read.
pub fn read(text: &str) -> Vec<Detached> {
    let mut lines = text.lines();
    if lines.next().map(str::trim) != Some("#clamsign-1.0") {
        return Vec::new();
    }
    lines.filter_map(|line| line_of(line.trim())).collect()
}

fn line_of(line: &str) -> Option<Detached> {
    let fields: Vec<&str> = line.split(':').collect();
    let [least, most, "pkcs7-pem", .., coded] = fields.as_slice() else { return None };
    let bound = |text: &str, default| if text.is_empty() { Some(default) } else { text.parse::<u32>().ok() };
    // Signatures for the engine levels from that of ClamAV 1.5 on are meant for us, too.
    if bound(most, u32::MAX)? < LEVEL.max(bound(least, 0)?) {
        return None;
    }
    Detached::from_der(&STANDARD.decode(coded).ok()?)
}

impl Detached {
    /// Reads a `SignedData` with one signer and signed attributes.
    pub fn from_der(bytes: &[u8]) -> Option<Self> {
        let mut info = Der(Der(bytes).take(SEQUENCE)?);
        if info.take(OID)? != SIGNED_DATA {
            return None;
        }
        let mut data = Der(Der(info.take(FIRST)?).take(SEQUENCE)?);
        data.take(INTEGER)?;
        data.take(SET)?;
        data.take(SEQUENCE)?;
        let mut certificates = Vec::new();
        if data.next() == Some(FIRST) {
            let mut set = Der(data.take(FIRST)?);
            while set.next() == Some(SEQUENCE) && certificates.len() < CERTIFICATES_MAX {
                certificates.push(CertificateDer::from(set.take_whole(SEQUENCE)?.to_vec()));
            }
        }
        if data.next() == Some(FIRST + 1) {
            data.take(FIRST + 1)?;
        }
        let mut signer = Der(Der(data.take(SET)?).take(SEQUENCE)?);
        signer.take(INTEGER)?;
        // Who it was is known by whose key fits.
        signer.skip()?;
        let kind = Der(signer.take(SEQUENCE)?).take(OID)?.strip_prefix(SHA2)?;
        let algorithm = match kind {
            [1] => &digest::SHA256,
            [2] => &digest::SHA384,
            [3] => &digest::SHA512,
            _ => return None,
        };
        let implicit = signer.take_whole(FIRST)?;
        // Signed as the set that they are, whatever they are tagged as here (RFC 5652 section 5.4).
        let attributes = [&[SET], implicit.get(1..)?].concat();
        let digest = message_digest(Der(implicit).take(FIRST)?)?.to_vec();
        signer.take(SEQUENCE)?;
        let signature = signer.take(OCTETS)?.to_vec();
        Some(Self { algorithm, digest, attributes, signature, certificates })
    }

    /// The digest of the file that it wants to see.
    pub fn algorithm(&self) -> &'static digest::Algorithm {
        self.algorithm
    }

    /// Tells whether a file with this digest was signed by somebody whom one of `trusted` vouches for at
    /// `now`, in seconds since 1970.
    pub fn holds(&self, digest: &[u8], trusted: &[CertificateDer<'_>], now: u64) -> bool {
        if digest != self.digest {
            return false;
        }
        let anchors: Vec<TrustAnchor<'_>> =
            trusted.iter().filter_map(|known| webpki::anchor_from_trusted_cert(known).ok()).collect();
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        self.certificates.iter().any(|own| {
            let Ok(signer) = EndEntityCert::try_from(own) else { return false };
            let fits = |algorithm: &&dyn rustls_pki_types::SignatureVerificationAlgorithm| {
                signer.verify_signature(*algorithm, &self.attributes, &self.signature).is_ok()
            };
            algorithms.iter().any(fits)
                && (trusted.contains(own)
                    || signer
                        .verify_for_usage(algorithms, &anchors, &self.certificates, now, AnyUse, None, None)
                        .is_ok())
        })
    }
}

/// The operator named the authority for this one use, so it does not matter which others a certificate names.
struct AnyUse;

impl ExtendedKeyUsageValidator for AnyUse {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

fn message_digest(attributes: &[u8]) -> Option<&[u8]> {
    let mut attributes = Der(attributes);
    while attributes.next().is_some() {
        let mut attribute = Der(attributes.take(SEQUENCE)?);
        if attribute.take(OID)? == MESSAGE_DIGEST {
            return Der(attribute.take(SET)?).take(OCTETS);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::pem::PemObject as _;

    /// Made with OpenSSL: an authority, one that it vouches for, and a signer whom that vouches for.
    const SIGNED: &str = include_str!("../../../../tests/scan/detached.sign");
    const ROOT: &[u8] = include_bytes!("../../../../tests/scan/detached-root.pem");
    const OTHER: &[u8] = include_bytes!("../../../../tests/scan/detached-other.pem");
    const CONTENT: &[u8] = b"a database to be signed\n";
    /// In the year 2030.
    const NOW: u64 = 1_900_000_000;

    fn trusted(pem: &[u8]) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem).map(Result::unwrap).collect()
    }

    fn holds(content: &[u8], signature: &Detached, pem: &[u8], now: u64) -> bool {
        signature.holds(digest::digest(signature.algorithm(), content).as_ref(), &trusted(pem), now)
    }

    #[test]
    fn a_signature_holds_for_its_file_and_whoever_is_trusted() {
        let found = read(SIGNED);
        let [signature] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((signature.certificates.len(), signature.algorithm()), (2, &digest::SHA256));
        assert!(holds(CONTENT, signature, ROOT, NOW));
        assert!(!holds(b"another", signature, ROOT, NOW));
        assert!(!holds(CONTENT, signature, OTHER, NOW));
        assert!(!holds(CONTENT, signature, b"", NOW));
        assert!(!holds(CONTENT, signature, ROOT, 1_000_000_000), "before it was made");
        // The signer's own certificate does as well.
        let own = signature.certificates.clone();
        assert!(signature.holds(digest::digest(&digest::SHA256, CONTENT).as_ref(), &own, NOW));
    }

    #[test]
    fn a_signature_that_was_changed_anywhere_does_not_hold() {
        let whole = STANDARD.decode(SIGNED.trim().rsplit_once(':').unwrap().1).unwrap();
        let original = Detached::from_der(&whole).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x01;
            if let Some(signature) = Detached::from_der(&changed).filter(|changed| {
                // Some bytes say who signed, and with what: neither is believed, the key tells.
                (&changed.attributes, &changed.signature, &changed.certificates)
                    != (&original.attributes, &original.signature, &original.certificates)
            }) {
                assert!(!holds(CONTENT, &signature, ROOT, NOW), "{at}");
            }
            assert!(Detached::from_der(&whole[..at]).is_none(), "{at}");
        }
    }

    #[test]
    fn lines_that_are_for_others_are_passed_over() {
        let line = SIGNED.lines().nth(1).unwrap();
        assert_eq!(read(&format!("#clamsign-1.0\n# note\n\n{line}\n")).len(), 1);
        assert_eq!(read(&format!("#clamsign-2.0\n{line}\n")).len(), 0);
        assert_eq!(read(&format!("#clamsign-1.0\n{}\n", line.replace("220::", "10:20:"))).len(), 0);
        assert_eq!(read(&format!("#clamsign-1.0\n{}\n", line.replace("pkcs7-pem", "other"))).len(), 0);
        assert_eq!(read("#clamsign-1.0\n220::pkcs7-pem:x:!!!\n220::pkcs7-pem:x:MAA=\n").len(), 0);
    }
}
