//! Gathers the fields of one header that are kept, unfolded, while its lines go by.

use crate::mail::text::CharsetDecoder;

use super::content;
use super::field::Field;
use super::{ESSENTIALS_MAX, HEADER_MAX, TEXT_MAX, TEXT_RESERVE, TransferEncoding};

/// Longest field name in bytes; no field that is kept comes near.
const NAME_MAX: usize = 256;

/// Longest media type and longest encoding word taken from the reserve, in bytes.
const MEDIA_MAX: usize = 64;
const TOKEN_MAX: usize = 32;

/// The header that is being read.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// It is a message's, not just a part's.
    of_message: bool,
    /// Bytes of lines seen.
    seen: u32,
    fields: Vec<(Field, Vec<u8>)>,
    /// The field that a continuation line would go on with: one of `fields`.
    current: Option<usize>,
    /// Something was left out.
    cut: bool,
}

/// What the header says about the body below it.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Type, subtype and parameters, if it is valid.
    pub(super) media: Option<Media>,
    /// The body is coded.
    pub(super) coded: bool,
}

/// A media type, as far as the walker needs it.
#[derive(Debug)]
pub(super) struct Media {
    pub(super) kind: String,
    pub(super) subtype: String,
    pub(super) boundary: Option<String>,
}

impl Gather {
    /// Begins a header.
    pub(super) fn new(of_message: bool) -> Self {
        Self { of_message, ..Self::default() }
    }

    /// Takes a line (without its newline, maybe not all of it) of `length` bytes. Tells whether the
    /// header goes on: a block that does not begin with a field is none, and its first line is body.
    pub(super) fn take(&mut self, line: &[u8], whole: bool, length: u32) -> bool {
        let first = self.seen == 0;
        // Editors on some systems begin every file with this mark.
        let line = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| first).unwrap_or(line);
        let folded = line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t'));
        let field = if folded { None } else { split(line) };
        // The line that a Unix mailbox puts before a message is passed over.
        if first && field.is_none() && !line.starts_with(b"From ") && !line.starts_with(b">From ") {
            return false;
        }
        self.seen = self.seen.saturating_add(length);
        if self.seen > HEADER_MAX {
            self.cut = true;
            self.current = None;
        } else if folded {
            if let Some(index) = self.current {
                self.extend(index, line, whole);
            }
        } else {
            self.current = field.and_then(|(name, body)| self.begin(name, body, whole));
        }
        true
    }

    /// Bytes held.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.fields.iter().map(|(_, body)| body.capacity() + 32).sum()
    }

    fn begin(&mut self, name: &[u8], body: &[u8], whole: bool) -> Option<usize> {
        let field = Field::named(std::str::from_utf8(name).ok()?)?;
        if field.is_of_messages() && !self.of_message {
            return None;
        }
        let index = match self.fields.iter().position(|(known, _)| *known == field) {
            None => {
                self.fields.push((field, Vec::new()));
                self.fields.len() - 1
            }
            Some(index) if field.holds_addresses() => {
                self.extend(index, b", ", true);
                index
            }
            Some(_) => {
                self.cut = true;
                return None;
            }
        };
        self.extend(index, body, whole);
        Some(index)
    }

    /// Adds to a field what fits.
    fn extend(&mut self, index: usize, bytes: &[u8], whole: bool) {
        let Some((field, body)) = self.fields.get_mut(index) else { return };
        let room = field.bytes_max().saturating_sub(body.len());
        if bytes.len() > room || !whole {
            self.cut = true;
        }
        body.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    /// Ends the header: writes its fields to `text` and says what the body is. Sets `cut` when
    /// something of it was left out.
    pub(super) fn finish(mut self, text: &mut String, cut: &mut bool) -> Content {
        let bodies = self.decoded();
        let of = |wanted: Field| bodies.iter().find(|(field, _)| *field == wanted).map(|(_, body)| body.as_str());
        let declared = of(Field::ContentType).and_then(content::media);
        let token = of(Field::ContentTransferEncoding).map(content::encoding_token);
        // What the parts are comes first, so that it is there when the room runs out.
        let (essential, other): (Vec<_>, Vec<_>) =
            bodies.iter().partition(|(field, _)| matches!(field, Field::ContentType | Field::ContentTransferEncoding));
        for (field, body) in essential.into_iter().chain(other) {
            if push(text, *field, body, TEXT_MAX - TEXT_RESERVE) {
                continue;
            }
            self.cut = true;
            match (field, declared) {
                (Field::ContentType, Some((kind, subtype, _))) if kind.len() + subtype.len() < MEDIA_MAX => {
                    push(text, *field, &format!("{kind}/{subtype}"), TEXT_MAX);
                }
                (Field::ContentTransferEncoding, _) => {
                    let word = token.filter(|word| word.len() <= TOKEN_MAX).unwrap_or("x-unknown");
                    push(text, *field, word, TEXT_MAX);
                }
                _ => {}
            }
        }
        *cut |= self.cut;
        let media = declared.map(|(kind, subtype, rest)| Media {
            kind: kind.to_owned(),
            subtype: subtype.to_owned(),
            boundary: content::find(&content::parameters(rest), "boundary").map(str::to_owned),
        });
        let coded = token.is_some_and(|token| TransferEncoding::parse(token) != TransferEncoding::Identity);
        Content { media, coded }
    }

    /// The fields as UTF-8. Bytes that are none are read by the charset the part names, because who
    /// writes raw bytes into a header writes them in the charset of his text.
    fn decoded(&mut self) -> Vec<(Field, String)> {
        let fields = std::mem::take(&mut self.fields);
        let kind = fields.iter().find(|(field, _)| *field == Field::ContentType);
        let charset = kind.and_then(|(_, body)| {
            let body = String::from_utf8_lossy(body);
            let (_, _, rest) = content::media(&body)?;
            content::find(&content::parameters(rest), "charset").map(str::to_owned)
        });
        let decode = |(field, body): (Field, Vec<u8>)| {
            let overfull = body.len() >= field.bytes_max();
            let body = match String::from_utf8(body) {
                Ok(body) => body,
                Err(error) => CharsetDecoder::decode_all(charset.as_deref(), error.as_bytes()),
            };
            // No line may break within the record, and NUL may not stand on the wire (RFC 9051
            // section 4.3).
            let mut body = body.replace(['\r', '\n', '\0'], " ");
            if overfull && field.holds_addresses() {
                // The last address is probably not all there.
                body.truncate(body.rfind(',').unwrap_or(0));
            }
            body.truncate(body.floor_char_boundary(field.bytes_max()));
            (field, body.trim_matches([' ', '\t']).to_owned())
        };
        fields.into_iter().map(decode).collect()
    }
}

/// Writes a field as a line of the record, if `text` stays within `room`.
fn push(text: &mut String, field: Field, body: &str, room: usize) -> bool {
    if text.len() + body.len() + 2 > room {
        return false;
    }
    text.push(char::from(field.letter()));
    text.push_str(body);
    text.push('\n');
    true
}

/// Splits a field into its name and its body, or returns `None` when the line is no field
/// (RFC 5322 section 2.2; white space before the colon is section 4.5's).
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().take(NAME_MAX).position(|&byte| byte == b':')?;
    let (name, body) = line.split_at_checked(colon)?;
    let name = name.trim_ascii_end();
    let good = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    good.then(|| (name, body.get(1..).unwrap_or_default()))
}

const _: () = assert!(MEDIA_MAX + TOKEN_MAX + 4 <= ESSENTIALS_MAX);
