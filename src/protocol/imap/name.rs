//! Mailbox names as clients spell them (RFC 3501 section 5.1.3, RFC 9051 section 5.1) and LIST
//! patterns (RFC 9051 section 6.3.9).
//!
//! Inside, names are UTF-8. Old clients write and read modified UTF-7; new ones, after `ENABLE
//! IMAP4rev2` or `UTF8=ACCEPT`, UTF-8. What comes in is decoded only when it is exactly what the
//! encoder would write, so no two spellings name one mailbox.

use crate::mail::mailbox::{MailboxName, OTHERS_NAME_MAX};

/// The 64 digits of modified UTF-7: those of base64 with `,` for `/`.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

/// Writes `name` in modified UTF-7.
pub fn encode_utf7(out: &mut Vec<u8>, name: &str) {
    let mut rest = name;
    while !rest.is_empty() {
        let plain = rest.find(|c: char| !is_printable(c)).unwrap_or(rest.len());
        let (direct, shifted) = rest.split_at(plain);
        for byte in direct.bytes() {
            out.extend_from_slice(if byte == b'&' { b"&-" } else { std::slice::from_ref(&byte) });
        }
        let end = shifted.find(is_printable).unwrap_or(shifted.len());
        let (shifted, after) = shifted.split_at(end);
        if !shifted.is_empty() {
            encode_shift(out, shifted);
        }
        rest = after;
    }
}

/// Reads modified UTF-7; `None` when [`encode_utf7`] would not have written `name`.
#[must_use]
pub fn decode_utf7(name: &str) -> Option<String> {
    let mut decoded = String::new();
    let mut rest = name;
    while let Some((direct, shift)) = rest.split_once('&') {
        let (digits, after) = shift.split_once('-')?;
        decoded.push_str(direct);
        if digits.is_empty() {
            decoded.push('&');
        } else {
            decode_shift(&mut decoded, digits)?;
        }
        rest = after;
    }
    decoded.push_str(rest);
    let mut again = Vec::new();
    encode_utf7(&mut again, &decoded);
    (again == name.as_bytes()).then_some(decoded)
}

/// Reads a name or pattern as a client sent it: UTF-8, or unless `utf8` modified UTF-7 where it is
/// that. `None` when it is not even UTF-8.
#[must_use]
pub fn decode(name: &[u8], utf8: bool) -> Option<String> {
    let text = std::str::from_utf8(name).ok()?;
    let shifted = (!utf8 && text.is_ascii() && text.contains('&')).then(|| decode_utf7(text)).flatten();
    Some(shifted.unwrap_or_else(|| text.to_owned()))
}

/// Written as itself in modified UTF-7.
fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~')
}

fn encode_shift(out: &mut Vec<u8>, text: &str) {
    out.push(b'&');
    let (mut bits, mut held) = (0_u32, 0_u32);
    let digit = |bits: u32| DIGITS.get((bits & 63) as usize).copied().unwrap_or(b'A');
    for unit in text.encode_utf16() {
        bits = bits << 16 | u32::from(unit);
        held += 16;
        while held >= 6 {
            held -= 6;
            out.push(digit(bits >> held));
        }
        bits &= (1 << held) - 1;
    }
    if held > 0 {
        out.push(digit(bits << (6 - held)));
    }
    out.push(b'-');
}

fn decode_shift(out: &mut String, digits: &str) -> Option<()> {
    let mut units = Vec::with_capacity(digits.len() / 2);
    let (mut bits, mut held) = (0_u32, 0_u32);
    for byte in digits.bytes() {
        let value = DIGITS.iter().position(|digit| *digit == byte)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        held += 6;
        if held >= 16 {
            held -= 16;
            units.push(u16::try_from(bits >> held).ok()?);
            bits &= (1 << held) - 1;
        }
    }
    for unit in char::decode_utf16(units) {
        out.push(unit.ok()?);
    }
    Some(())
}

/// A LIST or LSUB pattern with its reference before it.
///
/// `*` stands for anything and `%` for anything within one level. `INBOX` at the front is matched
/// without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Wildcards side by side are one. Longer than any name could need: empty, matches nothing.
    bytes: Vec<u8>,
}

impl Pattern {
    /// Puts a reference and a pattern together, both decoded.
    #[must_use]
    pub fn new(reference: &str, pattern: &str) -> Self {
        let mut bytes: Vec<u8> = Vec::new();
        let mut literals = 0;
        for byte in reference.bytes().chain(pattern.bytes()) {
            match (bytes.last_mut(), byte) {
                (Some(last @ (b'*' | b'%')), b'*') => *last = b'*',
                (Some(b'*' | b'%'), b'%') => {}
                _ => {
                    literals += usize::from(!matches!(byte, b'*' | b'%'));
                    bytes.push(byte);
                }
            }
            if literals > OTHERS_NAME_MAX {
                return Self { bytes: Vec::new() };
            }
        }
        Self { bytes }
    }

    /// Tells whether a name fits the pattern. Time is bounded by the lengths' product, because
    /// all places a wildcard may end at are carried along together.
    #[must_use]
    pub fn matches(&self, name: &MailboxName) -> bool {
        let name = name.as_str();
        let inbox = name == "INBOX" || name.starts_with("INBOX/");
        let name = name.as_bytes();
        // `reached[i]`: what was read of the pattern so far fits the first `i` bytes of the name.
        let mut reached = vec![false; name.len() + 1];
        if let Some(start) = reached.first_mut() {
            *start = true;
        }
        for wanted in &self.bytes {
            let mut before = false;
            let mut any = false;
            for (index, place) in reached.iter_mut().enumerate() {
                let byte = index.checked_sub(1).and_then(|index| name.get(index)).copied();
                let here = *place;
                *place = match wanted {
                    b'*' => here || before,
                    b'%' => here || (before && byte != Some(b'/')),
                    wanted => before && byte.is_some_and(|byte| same(byte, *wanted, inbox && index <= 5)),
                };
                // A wildcard goes on from where it has just got to, a letter from where we were.
                before = if matches!(wanted, b'*' | b'%') { *place } else { here };
                any |= *place;
            }
            if !any {
                return false;
            }
        }
        !self.bytes.is_empty() && reached.last().copied().unwrap_or(false)
    }
}

fn same(byte: u8, wanted: u8, any_case: bool) -> bool {
    byte == wanted || (any_case && byte.eq_ignore_ascii_case(&wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(name: &str) -> String {
        let mut out = Vec::new();
        encode_utf7(&mut out, name);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_are_shifted_as_rfc_3501_shows() {
        assert_eq!(encoded("~peter/mail/台北/日本語"), "~peter/mail/&U,BTFw-/&ZeVnLIqe-");
        assert_eq!(decode_utf7("~peter/mail/&U,BTFw-/&ZeVnLIqe-").unwrap(), "~peter/mail/台北/日本語");
        assert_eq!(encoded("Entwürfe & mehr"), "Entw&APw-rfe &- mehr");
        assert_eq!(encoded("📬"), "&2D3c7A-");
    }

    #[test]
    fn what_is_not_exactly_modified_utf7_stays_as_it_is() {
        // Letters that need no shift, no end, half a pair, odd bits, two shifts that should be one.
        for name in ["&AGEAYg-", "a&b", "&2D0-", "&AA-", "&U,B-", "&U,BTF2-x&", "&U,A-&ZeU-", "&Jjo!-"] {
            assert_eq!(decode_utf7(name), None, "{name}");
            assert_eq!(decode(name.as_bytes(), false).unwrap(), name);
        }
        assert_eq!(decode(b"&U,BTFw-", true).unwrap(), "&U,BTFw-");
        assert_eq!(decode("é&-".as_bytes(), false).unwrap(), "é&-");
        assert_eq!(decode(b"\xff", false), None);
    }

    fn fits(pattern: &str, name: &str) -> bool {
        Pattern::new("", pattern).matches(&MailboxName::new(name).unwrap())
    }

    #[test]
    fn wildcards_stop_at_the_hierarchy_or_not() {
        assert!(fits("*", "a/b/c") && fits("%", "a") && fits("a/%", "a/b") && fits("%/%/c", "a/b/c"));
        assert!(!fits("%", "a/b") && !fits("a/%", "a") && !fits("a/%", "a/b/c") && !fits("", "a"));
        assert!(fits("*b%", "a/b/abc") && fits("a*c", "a/b/c") && fits("*%*", "x") && fits("a%", "a"));
        assert!(Pattern::new("lists/", "%").matches(&MailboxName::new("lists/rust").unwrap()));
    }

    #[test]
    fn inbox_fits_in_any_case_and_others_do_not() {
        assert!(fits("inbox", "INBOX") && fits("In%", "INBOX") && fits("inbox/%", "INBOX/x"));
        assert!(!fits("inbox/X", "INBOX/x") && !fits("A", "a"));
    }

    #[test]
    fn a_pattern_of_many_wildcards_takes_no_more_than_the_product() {
        let pattern = "a*%".repeat(20_000);
        assert!(!fits(&pattern, &"a".repeat(400)));
        assert!(!fits(&"*a%a".repeat(100), &"a".repeat(199)));
        assert!(fits(&"*a".repeat(200), &"a".repeat(400)));
    }

    fn slow(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, rest) => rest.is_none(),
            (Some((b'*', after)), None) | (Some((b'%', after)), None | Some((b'/', _))) => slow(after, name),
            (Some((b'*' | b'%', after)), Some((_, rest))) => slow(after, name) || slow(pattern, rest),
            (Some((wanted, after)), Some((byte, rest))) => wanted == byte && slow(after, rest),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(pattern in "[ab/*%]{1,10}", name in "[ab](/?[ab]){0,8}") {
            prop_assert_eq!(fits(&pattern, &name), slow(pattern.as_bytes(), name.as_bytes()), "{} {}", pattern, name);
        }

        #[test]
        fn every_name_survives_modified_utf7(name in "\\PC{0,40}") {
            prop_assert!(encoded(&name).bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(decode_utf7(&encoded(&name)), Some(name));
        }

        #[test]
        fn what_decodes_encodes_to_the_same(name in "[&a-zA,+-]{0,20}") {
            if let Some(decoded) = decode_utf7(&name) {
                prop_assert_eq!(encoded(&decoded), name);
            }
        }
    }
}
