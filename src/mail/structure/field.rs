//! The header fields that are kept (RFC 5322 section 3.6, RFC 2045, RFC 2183, RFC 1864, RFC 3282,
//! RFC 2557).

/// A header field the walker keeps. The first ten are those of ENVELOPE (RFC 9051 section 7.5.2)
/// and are kept, with References, of messages; the others of every part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the fields'")]
pub enum Field {
    Date,
    Subject,
    From,
    Sender,
    ReplyTo,
    To,
    Cc,
    Bcc,
    InReplyTo,
    MessageId,
    References,
    ContentType,
    ContentTransferEncoding,
    ContentId,
    ContentDescription,
    ContentDisposition,
    ContentMd5,
    ContentLanguage,
    ContentLocation,
}

/// A field with its letter in `Structure::text` and its name as most programs spell it.
struct Entry {
    field: Field,
    letter: u8,
    name: &'static str,
}

const fn entry(field: Field, letter: u8, name: &'static str) -> Entry {
    Entry { field, letter, name }
}

// In the order of the enum. The letters, and how the names are spelled, are part of the kept
// record: they never change.
const TABLE: [Entry; 19] = [
    entry(Field::Date, b'd', "Date"),
    entry(Field::Subject, b's', "Subject"),
    entry(Field::From, b'f', "From"),
    entry(Field::Sender, b'n', "Sender"),
    entry(Field::ReplyTo, b'r', "Reply-To"),
    entry(Field::To, b't', "To"),
    entry(Field::Cc, b'c', "Cc"),
    entry(Field::Bcc, b'b', "Bcc"),
    entry(Field::InReplyTo, b'i', "In-Reply-To"),
    entry(Field::MessageId, b'm', "Message-ID"),
    entry(Field::References, b'R', "References"),
    entry(Field::ContentType, b'T', "Content-Type"),
    entry(Field::ContentTransferEncoding, b'E', "Content-Transfer-Encoding"),
    entry(Field::ContentId, b'I', "Content-ID"),
    entry(Field::ContentDescription, b'D', "Content-Description"),
    entry(Field::ContentDisposition, b'P', "Content-Disposition"),
    entry(Field::ContentMd5, b'5', "Content-MD5"),
    entry(Field::ContentLanguage, b'L', "Content-Language"),
    entry(Field::ContentLocation, b'O', "Content-Location"),
];

/// Longest list of addresses kept, in bytes: some 250 recipients.
const ADDRESSES_BYTES: usize = 12 * 1024;

impl Field {
    /// The field of this name in any case, if it is one that is kept.
    pub fn named(name: &str) -> Option<Self> {
        TABLE.iter().find(|entry| entry.name.eq_ignore_ascii_case(name)).map(|entry| entry.field)
    }

    /// The letter that stands for the field in the record.
    pub(super) fn letter(self) -> u8 {
        TABLE.iter().find(|entry| entry.field == self).map_or(b'?', |entry| entry.letter)
    }

    /// The field with this letter.
    pub(super) fn lettered(letter: u8) -> Option<Self> {
        TABLE.iter().find(|entry| entry.letter == letter).map(|entry| entry.field)
    }

    /// The field's name as most programs spell it.
    pub(super) fn name(self) -> &'static str {
        TABLE.iter().find(|entry| entry.field == self).map_or("", |entry| entry.name)
    }

    /// A bit of its own.
    pub(super) fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Tells whether the field is kept of messages only.
    pub(super) fn is_of_messages(self) -> bool {
        self.holds_addresses()
            || matches!(self, Self::Date | Self::Subject | Self::InReplyTo | Self::MessageId | Self::References)
    }

    /// Tells whether the field's body is a list of addresses. Such a field may stand there several
    /// times, as RFC 822 had it; of any other the first is taken.
    pub(super) fn holds_addresses(self) -> bool {
        matches!(self, Self::From | Self::Sender | Self::ReplyTo | Self::To | Self::Cc | Self::Bcc)
    }

    /// Most bytes kept of the field.
    pub(super) fn bytes_max(self) -> usize {
        match self {
            Self::ContentType | Self::ContentDisposition => 4096,
            Self::Subject => 2048,
            field if field.holds_addresses() => ADDRESSES_BYTES,
            _ => 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_letter_of_its_own() {
        for (index, entry) in TABLE.iter().enumerate() {
            assert_eq!(Field::named(entry.name), Some(entry.field));
            assert_eq!(entry.field.letter(), entry.letter);
            assert_eq!(Field::lettered(entry.letter), Some(entry.field));
            assert_eq!((entry.field.bit(), entry.field.name()), (1 << index, entry.name));
            assert!(TABLE.iter().skip(index + 1).all(|other| other.letter != entry.letter));
        }
        assert_eq!(Field::named("x-subject"), None);
    }
}
