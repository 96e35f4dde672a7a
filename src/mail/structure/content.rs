//! Content-Type and Content-Disposition with their parameters (RFC 2045 section 5.1, RFC 2183,
//! RFC 2231).
//!
//! Parameters are given as IMAP's BODYSTRUCTURE wants them. Continuations (`name*0`, `name*1`) are
//! joined. A value in the extended form (`name*`) that comes to plain ASCII is given decoded under
//! the plain name; any other stays in the extended form, joined into one, because that is ASCII,
//! says its charset and is what IMAP clients read already. So nothing that was ASCII in the message
//! becomes anything else on the wire.

use std::fmt::Write as _;

use crate::mail::text::{CharsetDecoder, hex_value};

use super::scan;

/// Most parameters read from one field; the others are passed over.
pub const PARAMETERS_MAX: usize = 64;

/// A parameter. Names keep their spelling and are compared without regard to ASCII case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name; with a final `*` when the value is in the extended form.
    pub name: String,
    /// Its value without quotes.
    pub value: String,
}

/// A Content-Disposition field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContentDisposition {
    /// `inline`, `attachment` or another word, as it was spelled.
    pub kind: String,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
}

/// Reads type and subtype off the front of a Content-Type field, and what follows. `None` when
/// they are not both there.
pub(super) fn media(text: &str) -> Option<(&str, &str, &str)> {
    let (kind, rest) = scan::token(scan::skip_comments(text));
    let rest = scan::skip_comments(rest).strip_prefix('/')?;
    let (subtype, rest) = scan::token(scan::skip_comments(rest));
    (!kind.is_empty() && !subtype.is_empty()).then_some((kind, subtype, rest))
}

/// Reads a Content-Disposition field; `None` when it does not say what to do.
pub(super) fn disposition(text: &str) -> Option<ContentDisposition> {
    let (kind, rest) = scan::token(scan::skip_comments(text));
    (!kind.is_empty()).then(|| ContentDisposition { kind: kind.to_owned(), parameters: parameters(rest) })
}

/// Reads the parameters that follow a type or a disposition, each after a semicolon; the first one
/// also where its semicolon was forgotten.
pub(super) fn parameters(text: &str) -> Vec<Parameter> {
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let mut rest = scan::skip_comments(text);
    if !scan::token(rest).0.is_empty() {
        let (first, after) = piece(rest);
        pieces.extend(first);
        rest = after;
    }
    while let Some((_, after)) = rest.split_once(';')
        && pieces.len() < PARAMETERS_MAX
    {
        let (piece, after) = piece(after);
        pieces.extend(piece);
        rest = after;
    }
    let mut found = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let of_same = |other: &&Piece<'_>| other.base.eq_ignore_ascii_case(piece.base);
        if pieces.iter().take(index).any(|other| of_same(&other)) {
            continue;
        }
        found.push(joined(piece.base, &pieces.iter().filter(of_same).collect::<Vec<_>>()));
    }
    found
}

/// One parameter as it stands in the field.
struct Piece<'t> {
    /// The name up to its first `*`.
    base: &'t str,
    /// The number of a continuation (RFC 2231 section 3).
    number: Option<u16>,
    /// The name ends with `*`: the value is percent-encoded.
    extended: bool,
    value: String,
}

/// Reads one parameter off the front, and says what follows it.
fn piece(text: &str) -> (Option<Piece<'_>>, &str) {
    let text = scan::skip_comments(text);
    let end = text.find(['=', ';']).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    let Some(rest) = rest.strip_prefix('=') else { return (None, rest) };
    let name = name.trim();
    let (base, stars) = name.split_once('*').unwrap_or((name, ""));
    let plain = !name.contains('*');
    let (number, extended) = match stars.strip_suffix('*') {
        _ if plain => (None, false),
        Some(number) => (number.parse().ok(), true),
        None if stars.is_empty() => (None, true),
        None => (stars.parse().ok(), false),
    };
    let (value, rest) = value(base, scan::skip_comments(rest));
    let good = !base.is_empty() && base.chars().all(|c| !c.is_whitespace());
    (good.then_some(Piece { base, number, extended, value }), rest)
}

/// Reads a value off the front. What is not quoted ends at white space, but in a file name: senders
/// who leave the quotes out mean the spaces.
fn value<'t>(name: &str, text: &'t str) -> (String, &'t str) {
    if text.starts_with('"') {
        return scan::quoted(text);
    }
    let (all, rest) = text.split_at_checked(text.find(';').unwrap_or(text.len())).unwrap_or((text, ""));
    let spaced = name.eq_ignore_ascii_case("name") || name.eq_ignore_ascii_case("filename");
    let end = if spaced { all.find(" (") } else { all.find([' ', '\t', '(']) };
    (all.get(..end.unwrap_or(all.len())).unwrap_or(all).trim().to_owned(), rest)
}

/// Makes one parameter of all pieces with one name, of which there is at least one.
fn joined(base: &str, pieces: &[&Piece<'_>]) -> Parameter {
    let plain = |value: &str| Parameter { name: base.to_owned(), value: value.to_owned() };
    // The extended form says more than a plain value beside it; of two, the first counts.
    if let Some(whole) = pieces.iter().find(|piece| piece.extended && piece.number.is_none()) {
        return extended(base, &whole.value);
    }
    let numbered = |number: u16| pieces.iter().find(|piece| piece.number == Some(number));
    let Some(first) = numbered(0) else {
        let value = pieces.iter().find(|piece| piece.number.is_none()).or(pieces.first());
        return plain(value.map_or("", |piece| &piece.value));
    };
    let sections = || (0..).map_while(numbered);
    if !sections().any(|piece| piece.extended) {
        return plain(&sections().map(|piece| piece.value.as_str()).collect::<String>());
    }
    let mut value = String::new();
    if !first.extended {
        // The charset stands in the first piece or nowhere.
        value.push_str("''");
    }
    for piece in sections() {
        if piece.extended { value.push_str(&piece.value) } else { percent_encode(&piece.value, &mut value) }
    }
    extended(base, &value)
}

/// Makes a parameter of a value `charset'language'percent-encoded` (RFC 2231 section 4).
fn extended(base: &str, value: &str) -> Parameter {
    let mut quotes = value.splitn(3, '\'');
    let (Some(charset), Some(_), Some(coded)) = (quotes.next(), quotes.next(), quotes.next()) else {
        // No charset is given where one must be: the value is what it says.
        return Parameter { name: base.to_owned(), value: value.to_owned() };
    };
    let decoded = CharsetDecoder::decode_all(Some(charset), &percent_decode(coded));
    if decoded.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Parameter { name: base.to_owned(), value: decoded };
    }
    Parameter { name: format!("{base}*"), value: value.to_owned() }
}

fn percent_decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [first, second, after @ ..]) if first.is_ascii_hexdigit() && second.is_ascii_hexdigit() => {
                out.push(hex_value(*first) << 4 | hex_value(*second));
                rest = after;
            }
            _ => out.push(byte),
        }
    }
    out
}

/// Encodes all but RFC 2231's `attribute-char`.
fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`{|}~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// The value of a parameter, in any case of its name.
pub(super) fn find<'p>(parameters: &'p [Parameter], name: &str) -> Option<&'p str> {
    parameters.iter().find(|found| found.name.eq_ignore_ascii_case(name)).map(|found| found.value.as_str())
}

/// The first word of a Content-Transfer-Encoding field, without comments.
pub(super) fn encoding_token(text: &str) -> &str {
    let text = scan::skip_comments(text);
    let end = text.find(|c: char| c == ';' || c == '(' || c.is_whitespace()).unwrap_or(text.len());
    text.get(..end).unwrap_or(text).trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spell(text: &str) -> String {
        let all = parameters(text).into_iter().map(|parameter| format!("{}={}|", parameter.name, parameter.value));
        all.collect()
    }

    #[test]
    fn media_types_are_read_and_what_is_none_is_none() {
        assert_eq!(media("text/plain; charset=x"), Some(("text", "plain", "; charset=x")));
        assert_eq!(media("(a) Text / (b) HTML (c)"), Some(("Text", "HTML", " (c)")));
        for text in ["", "text", "text/", "/plain", "text plain", ";charset=x", "(text/plain)"] {
            assert_eq!(media(text), None, "{text:?}");
        }
    }

    #[test]
    fn parameters_are_read_whether_quoted_or_not() {
        let cases = [
            ("; charset=us-ascii (Plain text)", "charset=us-ascii|"),
            (";charset=\"us-ascii\";Format = flowed ", "charset=us-ascii|Format=flowed|"),
            ("; boundary=----=_Part_1.2/3:4", "boundary=----=_Part_1.2/3:4|"),
            ("; boundary=\"a;b \\\" c\"; x=y", "boundary=a;b \" c|x=y|"),
            ("; name=my file.pdf; x=", "name=my file.pdf|x=|"),
            ("; boundary=\"open", "boundary=open|"),
            ("; charset=utf-8 format=flowed", "charset=utf-8|"),
            (";;; a=1;; b;c=2;", "a=1|c=2|"),
            ("; a=1; A=2", "a=1|"),
            ("garbage; a=1", "a=1|"),
            (" a=1; b=2", "a=1|b=2|"),
        ];
        for (text, expected) in cases {
            assert_eq!(spell(text), expected, "{text}");
        }
    }

    #[test]
    fn continuations_are_joined_and_extended_values_stay_ascii() {
        let cases = [
            ("; url*0=\"ftp://\"; url*1=\"cs.utk.test/x\"", "url=ftp://cs.utk.test/x|"),
            ("; title*=us-ascii'en-us'This%20is%20fun", "title=This is fun|"),
            ("; name*=utf-8''%E2%82%AC.txt", "name*=utf-8''%E2%82%AC.txt|"),
            ("; n*0*=utf-8'de'%C3%A4; n*1=\"b c\"; n*2*=%20d", "n*=utf-8'de'%C3%A4b%20c%20d|"),
            ("; n*1=b; n*0=a; n*3=lost", "n=ab|"),
            ("; n*0=a; n*1*=%41", "n=aA|"),
            ("; filename=plain.txt; filename*=utf-8''%C3%A4.txt", "filename*=utf-8''%C3%A4.txt|"),
            ("; filename*=utf-8''a.txt; filename=b.txt", "filename=a.txt|"),
            ("; name*=%41", "name=%41|"),
            ("; name*7=x", "name=x|"),
            ("; name*=iso-2022-jp''%1B$B$3%1B(B", "name*=iso-2022-jp''%1B$B$3%1B(B|"),
        ];
        for (text, expected) in cases {
            assert_eq!(spell(text), expected, "{text}");
        }
    }

    #[test]
    fn a_disposition_without_a_word_is_none() {
        assert_eq!(disposition(" ; filename=x"), None);
        let found = disposition("attachment; filename=\"a b.txt\"; size=3").unwrap();
        assert_eq!((found.kind.as_str(), find(&found.parameters, "FileName")), ("attachment", Some("a b.txt")));
    }

    #[test]
    fn parameters_have_a_bound() {
        let text = (0..10_000).map(|number| format!(";a{number}=x")).collect::<Vec<_>>().concat();
        assert_eq!(parameters(&text).len(), PARAMETERS_MAX);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[an*01='%4;\"\\\\ ()é/]{0,50}") {
            let found = parameters(&text);
            prop_assert!(found.len() <= PARAMETERS_MAX);
            let _ = (media(&text), disposition(&text), encoding_token(&text));
        }
    }
}
