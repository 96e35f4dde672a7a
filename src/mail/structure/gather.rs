//! Gathers the fields of one header that are kept, unfolded, while its lines go by.

use crate::mail::lines::Line;
use crate::mail::text::CharsetDecoder;

use super::content;
use super::field::Field;
use super::layout::{Layout, Spelling};
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
    fields: Vec<Gathered>,
    /// How the fields are written, of the outermost message and while that can be told.
    layout: Option<Layout>,
    /// The field that a continuation line would go on with: one of `fields`.
    current: Option<usize>,
    /// Something was left out.
    cut: bool,
}

/// A field that is kept.
#[derive(Debug)]
struct Gathered {
    field: Field,
    body: Vec<u8>,
    spelling: Spelling,
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
    pub(super) fn new(of_message: bool, outermost: bool) -> Self {
        Self { of_message, layout: outermost.then(Layout::default), ..Self::default() }
    }

    /// Takes a line. Tells whether the header goes on: a block that does not begin with a field is
    /// none, and its first line is body.
    pub(super) fn take(&mut self, line: &Line<'_>) -> bool {
        let Line { kept, whole, length, newline } = *line;
        let first = self.seen == 0;
        // Editors on some systems begin every file with this mark.
        let marked = kept.strip_prefix(b"\xef\xbb\xbf").filter(|_| first);
        let line = marked.unwrap_or(kept);
        if marked.is_some() || newline != 2 {
            self.layout = None;
        }
        let folded = line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t'));
        let field = if folded { None } else { split(line) };
        // The line that a Unix mailbox puts before a message is passed over.
        if first && field.is_none() && !line.starts_with(b"From ") && !line.starts_with(b">From ") {
            return false;
        }
        self.seen = self.seen.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
        if self.seen > HEADER_MAX {
            self.cut = true;
            self.current = None;
        } else if folded {
            if let Some(index) = self.current {
                self.fold(index);
                self.extend(index, line, whole);
            }
        } else {
            // White space before the colon is not kept.
            if field.is_some_and(|(name, body)| name.len() + 1 + body.len() < line.len()) {
                self.layout = None;
            }
            self.current = field.and_then(|(name, body)| self.begin(name, body, whole));
        }
        true
    }

    /// Bytes held.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.fields.iter().map(|one| one.body.capacity() + one.spelling.capacity() + size_of::<Gathered>()).sum()
    }

    fn begin(&mut self, name: &[u8], body: &[u8], whole: bool) -> Option<usize> {
        let text = std::str::from_utf8(name).ok()?;
        let Some(field) = Field::named(text) else {
            if let Some(layout) = &mut self.layout {
                layout.pass(text);
            }
            return None;
        };
        if field.is_of_messages() && !self.of_message {
            return None;
        }
        let index = match self.fields.iter().position(|known| known.field == field) {
            None => {
                self.fields.push(Gathered { field, body: Vec::new(), spelling: Spelling::begin(field, name) });
                self.fields.len() - 1
            }
            Some(index) if field.holds_addresses() => {
                self.layout = None;
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

    /// A field goes on in another line.
    fn fold(&mut self, index: usize) {
        let told = self.fields.get_mut(index).is_some_and(|known| known.spelling.fold(known.body.len()));
        if !told {
            self.layout = None;
        }
    }

    /// Adds to a field what fits.
    fn extend(&mut self, index: usize, bytes: &[u8], whole: bool) {
        let Some(Gathered { field, body, .. }) = self.fields.get_mut(index) else { return };
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
        let fields = self.fields.iter().zip(&bodies);
        let written = fields.map(|(one, (_, kept))| (one.field, &one.spelling, one.body.as_slice(), kept.as_str()));
        let layout = self.layout.as_ref().and_then(|layout| layout.line(written));
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
        if let Some(line) = layout.filter(|line| !self.cut && text.len() + line.len() < TEXT_MAX - TEXT_RESERVE) {
            text.push_str(&line);
            text.push('\n');
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
    fn decoded(&self) -> Vec<(Field, String)> {
        let kind = self.fields.iter().find(|known| known.field == Field::ContentType);
        let charset = kind.and_then(|known| {
            let body = String::from_utf8_lossy(&known.body);
            let (_, _, rest) = content::media(&body)?;
            content::find(&content::parameters(rest), "charset").map(str::to_owned)
        });
        let decode = |Gathered { field, body, .. }: &Gathered| {
            let (field, overfull) = (*field, body.len() >= field.bytes_max());
            let body = match std::str::from_utf8(body) {
                Ok(body) => body.to_owned(),
                Err(_) => CharsetDecoder::decode_all(charset.as_deref(), body),
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
        self.fields.iter().map(decode).collect()
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
