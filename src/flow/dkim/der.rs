//! The few words of DER that keys are written in (X.690, RFC 8017 appendix A, RFC 8410, RFC 7468).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const SEQUENCE: u8 = 0x30;

/// The algorithm `rsaEncryption` with its empty parameters.
pub(super) const RSA_ENCRYPTION: &[u8] =
    &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// A private key of Ed25519 up to its 32 bytes (RFC 8410 section 7).
pub(super) const ED25519_PRIVATE: &[u8] =
    &[0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// An element: tag, length, content.
pub(super) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 5);
    out.push(tag);
    let length = content.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    match (content.len(), u8::try_from(length.len())) {
        (0..128, _) => out.extend(length.last().or(Some(&0))),
        (_, count) => {
            out.push(0x80 | count.unwrap_or(0));
            out.extend(length);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A whole number that is not negative, from its big-endian bytes.
pub(super) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len().saturating_sub(1));
    let digits = bytes.get(first..).unwrap_or_default();
    let sign: &[u8] = if digits.first().is_some_and(|byte| *byte >= 0x80) { &[0] } else { &[] };
    element(INTEGER, &Zeroizing::new([sign, digits].concat()))
}

/// A public RSA key as DKIM publishes it (RFC 6376 section 3.6.1): the key in a `SubjectPublicKeyInfo`.
pub(super) fn rsa_public(key: &[u8]) -> Vec<u8> {
    let key = element(BIT_STRING, &[&[0], key].concat());
    element(SEQUENCE, &[RSA_ENCRYPTION, &key].concat())
}

/// A PKCS #8 private key as text.
pub(super) fn to_pem(der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(format!("{BEGIN}\n"));
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(END);
    text.push('\n');
    text
}

/// Reads what [`to_pem`] wrote, or another program.
pub(super) fn from_pem(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, after) = text.split_once(BEGIN)?;
    let (base64, _) = after.split_once(END)?;
    let base64: Zeroizing<String> = Zeroizing::new(base64.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    STANDARD.decode(base64.as_bytes()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_signs_are_as_der_has_them() {
        assert_eq!(element(SEQUENCE, &[]), [0x30, 0]);
        assert_eq!(element(SEQUENCE, &[7; 127])[..2], [0x30, 127]);
        assert_eq!(element(SEQUENCE, &[7; 128])[..3], [0x30, 0x81, 128]);
        assert_eq!(element(SEQUENCE, &[7; 300])[..4], [0x30, 0x82, 1, 44]);
        assert_eq!(unsigned(&[0]), [2, 1, 0]);
        assert_eq!(unsigned(&[0, 0, 1]), [2, 1, 1]);
        assert_eq!(unsigned(&[0, 0x80]), [2, 2, 0, 0x80]);
    }

    #[test]
    fn a_key_comes_back_from_its_text() {
        let der: Vec<u8> = (0..200).collect();
        let text = to_pem(&der);
        assert!(text.lines().all(|line| line.len() <= 64));
        assert_eq!(from_pem(&text).unwrap().as_slice(), der);
        assert_eq!(from_pem(&text.replace('\n', "\r\n")).unwrap().as_slice(), der);
        assert!(from_pem("nothing").is_none());
    }
}
