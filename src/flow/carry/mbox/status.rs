//! Flags of a message in an mbox file: header fields that mail programs keep there.
//!
//! `Status: RO` (read, old), `X-Status: AFDT` (answered, flagged, deleted, draft) and `X-Keywords`
//! are custom since Pine; Thunderbird keeps `X-Mozilla-Status` (bits in hex) and `X-Mozilla-Keys`.
//! Where they stand at the very front they belong to the file and are taken out of the message, so
//! that what we write comes back byte for byte; further down they are read and left alone, since
//! nobody can tell whether they came with the mail.

use crate::mail::message::{FlagNames, Keyword, SystemFlags};

/// Bits of `X-Mozilla-Status`.
const MOZILLA: [(u16, SystemFlags); 3] =
    [(1, SystemFlags::SEEN), (2, SystemFlags::ANSWERED), (4, SystemFlags::FLAGGED)];
/// Deleted for good, but the file was not compacted yet.
const MOZILLA_EXPUNGED: u16 = 8;
/// The keyword that says a message was passed on.
const FORWARDED: &str = "$Forwarded";
const MOZILLA_FORWARDED: u16 = 0x1000;

/// Most keywords taken from one field.
const FIELD_KEYWORDS_MAX: usize = 64;

/// What the fields say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) flags: FlagNames,
    pub(super) expunged: bool,
}

/// A field that mail programs keep in mbox files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Status,
    XStatus,
    Keywords,
    MozillaStatus,
    MozillaStatus2,
    MozillaKeys,
}

impl Field {
    /// The field in this header line and its body.
    pub(super) fn of(line: &[u8]) -> Option<(Self, &str)> {
        let (name, body) = std::str::from_utf8(line).ok()?.split_once(':')?;
        let field = match name.to_ascii_lowercase().as_str() {
            "status" => Self::Status,
            "x-status" => Self::XStatus,
            "x-keywords" => Self::Keywords,
            "x-mozilla-status" => Self::MozillaStatus,
            "x-mozilla-status2" => Self::MozillaStatus2,
            "x-mozilla-keys" => Self::MozillaKeys,
            _ => return None,
        };
        Some((field, body.trim()))
    }

    /// Its bit in a set of fields.
    pub(super) fn bit(self) -> u8 {
        1 << self as u8
    }

    fn is_mozillas(self) -> bool {
        matches!(self, Self::MozillaStatus | Self::MozillaStatus2 | Self::MozillaKeys)
    }

    /// Tells whether the field may follow those of `seen` at the front of a message: each comes
    /// once, and programs do not mix.
    pub(super) fn may_follow(self, seen: u8) -> bool {
        let mozillas = Self::MozillaStatus.bit() | Self::MozillaStatus2.bit() | Self::MozillaKeys.bit();
        seen & self.bit() == 0 && (seen == 0 || (seen & mozillas != 0) == self.is_mozillas())
    }
}

impl Marks {
    /// Adds what a field says.
    pub(super) fn add(&mut self, field: Field, body: &str) {
        let letters = |pairs: &[(char, SystemFlags)]| {
            let set = pairs.iter().filter(|(letter, _)| body.contains(*letter));
            set.fold(SystemFlags::default(), |flags, (_, flag)| flags.union(*flag))
        };
        let system = match field {
            Field::Status => letters(&[('R', SystemFlags::SEEN)]),
            Field::XStatus => letters(&[
                ('A', SystemFlags::ANSWERED),
                ('F', SystemFlags::FLAGGED),
                ('D', SystemFlags::DELETED),
                ('T', SystemFlags::DRAFT),
            ]),
            Field::MozillaStatus => {
                let bits = u16::from_str_radix(body, 16).unwrap_or(0);
                self.expunged |= bits & MOZILLA_EXPUNGED != 0;
                if bits & MOZILLA_FORWARDED != 0 {
                    self.add(Field::Keywords, FORWARDED);
                }
                let set = MOZILLA.iter().filter(|(bit, _)| bits & bit != 0);
                set.fold(SystemFlags::default(), |flags, (_, flag)| flags.union(*flag))
            }
            Field::MozillaStatus2 => SystemFlags::default(),
            Field::Keywords | Field::MozillaKeys => {
                let keywords = &mut self.flags.keywords;
                for keyword in body.split_ascii_whitespace().take(FIELD_KEYWORDS_MAX).filter_map(Keyword::new) {
                    if keywords.len() < FIELD_KEYWORDS_MAX && !keywords.contains(&keyword) {
                        keywords.push(keyword);
                    }
                }
                SystemFlags::default()
            }
        };
        self.flags.system = self.flags.system.union(system);
    }
}

/// Writes the fields, all three, each line ending in LF.
pub(super) fn fields(flags: &FlagNames) -> String {
    let letter = |flag: SystemFlags, letter: &'static str| if flags.system.contains(flag) { letter } else { "" };
    let seen = letter(SystemFlags::SEEN, "R");
    let answered = letter(SystemFlags::ANSWERED, "A");
    let flagged = letter(SystemFlags::FLAGGED, "F");
    let deleted = letter(SystemFlags::DELETED, "D");
    let draft = letter(SystemFlags::DRAFT, "T");
    let keywords: String = flags.keywords.iter().flat_map(|keyword| [" ", keyword.as_str()]).collect();
    format!("Status: {seen}O\nX-Status: {answered}{flagged}{deleted}{draft}\nX-Keywords:{keywords}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_written_are_flags_read() {
        for bits in 0..32 {
            let keywords = ["$Label1", "Later"].into_iter().filter_map(Keyword::new).take(bits as usize % 3).collect();
            let flags = FlagNames { system: SystemFlags(bits), keywords };
            let (mut marks, mut seen) = (Marks::default(), 0);
            for line in fields(&flags).lines() {
                let (field, body) = Field::of(line.as_bytes()).unwrap();
                assert!(field.may_follow(seen));
                seen |= field.bit();
                marks.add(field, body);
            }
            assert_eq!(marks, Marks { flags, expunged: false });
        }
    }

    #[test]
    fn thunderbirds_bits_are_read() {
        let marks = |body| {
            let mut marks = Marks::default();
            marks.add(Field::MozillaStatus, body);
            marks
        };
        assert_eq!(
            marks("0007").flags.system,
            SystemFlags(SystemFlags::SEEN.0 | SystemFlags::ANSWERED.0 | SystemFlags::FLAGGED.0)
        );
        assert!(marks("0009").expunged);
        assert_eq!(marks("1000").flags.keywords, [Keyword::new("$Forwarded").unwrap()]);
        assert_eq!(marks("garbage"), Marks::default());
    }

    #[test]
    fn a_field_of_the_message_is_not_taken_for_a_second_of_the_file() {
        assert!(!Field::Status.may_follow(Field::Status.bit()));
        assert!(!Field::MozillaStatus.may_follow(Field::Status.bit()));
        assert!(Field::MozillaKeys.may_follow(Field::MozillaStatus.bit()));
        assert_eq!(Field::of(b"Subject: Status: R"), None);
    }
}
