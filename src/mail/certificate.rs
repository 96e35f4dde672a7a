//! Client certificates (RFC 5280): what is kept of one, so that whoever has its key may log in with it
//! (SASL EXTERNAL, RFC 4422 appendix A).
//!
//! A certificate is known by the SHA-256 of all of it, as `openssl x509 -fingerprint -sha256` shows it.
//! So it does not matter who signed it: who may come in is what was registered, and nothing else.

use std::fmt;

use ring::digest;
use serde::{Deserialize, Serialize};

use super::date::{Timestamp, ZonedTime};
use super::der::{Der, FIRST, GENERALIZED_TIME, INTEGER, SEQUENCE, UTC_TIME};
use super::mailbox::AccountId;

/// Most certificates of one account.
pub const CERTIFICATES_MAX: usize = 32;

/// Longest name of a certificate, in bytes.
pub const CERTIFICATE_NAME_MAX: usize = 64;

/// The SHA-256 of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate in DER.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, certificate);
        Self(digest.as_ref().try_into().unwrap_or_default())
    }

    /// Reads 64 hexadecimal digits, of either case and with or without colons between them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut digits = text.chars().filter(|c| *c != ':');
        let mut bytes = [0; 32];
        for byte in &mut bytes {
            let (high, low) = (digits.next()?.to_digit(16)?, digits.next()?.to_digit(16)?);
            *byte = u8::try_from(high << 4 | low).ok()?;
        }
        digits.next().is_none().then_some(Self(bytes))
    }
}

/// 64 hexadecimal digits in lower case.
impl fmt::Display for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Fingerprint({self})")
    }
}

/// A certificate that somebody may log in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Which.
    pub fingerprint: Fingerprint,
    /// Whose.
    pub account: AccountId,
    /// What it is called among those of its account.
    pub name: String,
    /// When it was registered.
    pub added: Timestamp,
    /// Its last second.
    pub expires: Timestamp,
}

impl ClientCertificate {
    /// Tells whether its time is over. A clock that was never set is before every end: it makes nothing
    /// expire.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.expires < now
    }
}

/// Tells whether a certificate can be called so: printable, at most [`CERTIFICATE_NAME_MAX`] bytes, no
/// space at its ends.
#[must_use]
pub fn is_certificate_name(name: &str) -> bool {
    let fits = !name.is_empty() && name.len() <= CERTIFICATE_NAME_MAX;
    fits && name.trim() == name && !name.chars().any(char::is_control)
}

/// The last second of a certificate in DER (`notAfter`, RFC 5280 section 4.1.2.5); `None` for what is no
/// certificate.
#[must_use]
pub fn expiry(certificate: &[u8]) -> Option<Timestamp> {
    let mut fields = Der(Der(Der(certificate).take(SEQUENCE)?).take(SEQUENCE)?);
    if fields.next() == Some(FIRST) {
        fields.skip()?; // version
    }
    fields.take(INTEGER)?; // serial number
    fields.take(SEQUENCE)?; // algorithm
    fields.take(SEQUENCE)?; // issuer
    let mut validity = Der(fields.take(SEQUENCE)?);
    validity.skip()?;
    let (tag, text) = (validity.next()?, std::str::from_utf8(validity.take_any()?.1).ok()?);
    let century = match (tag, text.get(..2)?.parse::<u8>().ok()?) {
        (GENERALIZED_TIME, _) => "",
        (UTC_TIME, 0..50) => "20",
        (UTC_TIME, _) => "19",
        _ => return None,
    };
    let text = format!("{century}{text}");
    let digits = text.strip_suffix('Z').filter(|digits| digits.len() == 14)?;
    let part = |from: usize, to: usize| digits.get(from..to);
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    ZonedTime::parse_rfc3339(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z")).map(|end| end.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::der::OCTETS;

    /// What a certificate begins with, with this end.
    fn certificate(version: bool, tag: u8, end: &str) -> Vec<u8> {
        let value = |tag: u8, content: &[u8]| [&[tag, u8::try_from(content.len()).unwrap()], content].concat();
        let validity = [value(UTC_TIME, b"200101000000Z"), value(tag, end.as_bytes())].concat();
        let mut fields = if version { value(FIRST, &value(INTEGER, &[2])) } else { Vec::new() };
        fields.extend([value(INTEGER, &[1]), value(SEQUENCE, &[]), value(SEQUENCE, &[])].concat());
        fields.extend([value(SEQUENCE, &validity), value(SEQUENCE, &[])].concat());
        value(SEQUENCE, &value(SEQUENCE, &fields))
    }

    #[test]
    fn the_end_is_read_in_either_spelling() {
        let end = |version, tag, end| expiry(&certificate(version, tag, end)).map(|end| end.0);
        assert_eq!(end(true, UTC_TIME, "261124000000Z"), Some(1_795_478_400));
        assert_eq!(end(false, UTC_TIME, "700101000001Z"), Some(1));
        assert_eq!(end(true, GENERALIZED_TIME, "20261124000000Z"), Some(1_795_478_400));
        assert_eq!(end(true, GENERALIZED_TIME, "99991231235959Z"), Some(253_402_300_799));
        for (tag, text) in [
            (UTC_TIME, "2611240000Z"),
            (UTC_TIME, "261324000000Z"),
            (UTC_TIME, "261124000000"),
            (GENERALIZED_TIME, "261124000000Z"),
            (GENERALIZED_TIME, "2026112400000\u{e9}Z"),
            (OCTETS, "261124000000Z"),
        ] {
            assert_eq!(end(true, tag, text), None, "{text}");
        }
        let whole = certificate(true, UTC_TIME, "261124000000Z");
        for length in 0..whole.len() {
            assert_eq!(expiry(whole.get(..length).unwrap()), None, "{length}");
        }
    }

    #[test]
    fn a_fingerprint_is_read_as_openssl_shows_it() {
        let fingerprint = Fingerprint::of(b"");
        let text = fingerprint.to_string();
        assert!(text.starts_with("e3b0c44298fc1c14") && text.len() == 64);
        assert_eq!(Fingerprint::parse(&text), Some(fingerprint));
        let colons: Vec<String> = fingerprint.0.iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(Fingerprint::parse(&colons.join(":")), Some(fingerprint));
        for text in ["", "e3", &format!("{text}0"), &text.replace('e', "x")] {
            assert_eq!(Fingerprint::parse(text), None);
        }
    }

    #[test]
    fn a_name_can_stand_in_a_table() {
        assert!(is_certificate_name("Ann's laptop"));
        for name in ["", " x", "x\ny", "x\u{1b}[2J", &"x".repeat(CERTIFICATE_NAME_MAX + 1)] {
            assert!(!is_certificate_name(name), "{name:?}");
        }
    }
}
