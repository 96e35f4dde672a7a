//! Encoded words of header fields (RFC 2047, RFC 2231 section 5).

use crate::mail::structure::TransferEncoding;

use super::{CharsetDecoder, TransferDecoder, transfer::hex_value};

/// Longest encoded word that is looked for, in bytes. RFC 2047 section 2 allows 75; many senders
/// fold badly. The bound keeps the work in proportion to the text.
const WORD_MAX: usize = 2048;

/// Decodes every encoded word in an unfolded field value; other text stays as it is.
///
/// White space between two encoded words is dropped (RFC 2047 section 6.2). Neighbours in the same
/// charset are decoded together, because many senders cut characters in two between them.
pub fn decode_words(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut words = Words::default();
    let mut rest = text;
    while let Some(start) = rest.find("=?") {
        let (before, from_here) = rest.split_at_checked(start).unwrap_or((rest, ""));
        let Some((word, after)) = EncodedWord::parse(from_here) else {
            // No encoded word begins here: the two characters are text.
            let (mark, after) = from_here.split_at_checked(2).unwrap_or((from_here, ""));
            words.flush(&mut out);
            out.push_str(before);
            out.push_str(mark);
            rest = after;
            continue;
        };
        let between = !words.label.is_empty() && before.chars().all(|c| c.is_ascii_whitespace());
        if !between || !words.label.eq_ignore_ascii_case(word.charset) {
            words.flush(&mut out);
        }
        if !between {
            out.push_str(before);
        }
        word.charset.clone_into(&mut words.label);
        word.decode(&mut words.bytes);
        rest = after;
    }
    words.flush(&mut out);
    out.push_str(rest);
    out
}

/// Decoded bytes of neighbouring words in one charset.
#[derive(Default)]
struct Words {
    label: String,
    bytes: Vec<u8>,
}

impl Words {
    fn flush(&mut self, out: &mut String) {
        if !self.label.is_empty() {
            CharsetDecoder::new(Some(&self.label)).decode(&self.bytes, true, out);
            self.label.clear();
            self.bytes.clear();
        }
    }
}

struct EncodedWord<'t> {
    charset: &'t str,
    base64: bool,
    text: &'t str,
}

impl<'t> EncodedWord<'t> {
    /// Reads `=?charset?encoding?text?=` off the front (RFC 2047 section 2).
    fn parse(text: &'t str) -> Option<(Self, &'t str)> {
        let near = text.get(..text.floor_char_boundary(WORD_MAX))?;
        let (charset, rest) = near.strip_prefix("=?")?.split_once('?')?;
        let (encoding, rest) = rest.split_once('?')?;
        let (coded, rest) = rest.split_once("?=")?;
        let after = text.get(near.len() - rest.len()..)?;
        let base64 = encoding.eq_ignore_ascii_case("b");
        let fits = !charset.is_empty()
            && charset.bytes().all(|byte| byte.is_ascii_graphic())
            && (base64 || encoding.eq_ignore_ascii_case("q"));
        fits.then_some((Self { charset, base64, text: coded }, after))
    }

    fn decode(&self, out: &mut Vec<u8>) {
        if self.base64 {
            let mut decoder = TransferDecoder::new(TransferEncoding::Base64);
            decoder.decode(self.text.as_bytes(), out);
            decoder.finish(out);
            return;
        }
        // The Q encoding (RFC 2047 section 4.2).
        let mut rest = self.text.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match (byte, after) {
                (b'_', _) => out.push(b' '),
                (b'=', [first, second, after @ ..]) if first.is_ascii_hexdigit() && second.is_ascii_hexdigit() => {
                    out.push(hex_value(*first) << 4 | hex_value(*second));
                    rest = after;
                }
                _ => out.push(byte),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn encoded_words_are_decoded_as_rfc_2047_shows() {
        let cases = [
            ("=?ISO-8859-1?Q?a?=", "a"),
            ("=?ISO-8859-1?Q?a?= b", "a b"),
            ("=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=", "ab"),
            ("=?ISO-8859-1?Q?a?=   =?ISO-8859-2?Q?b?=", "ab"),
            ("=?ISO-8859-1?Q?a_b?=", "a b"),
            ("=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=", "a b"),
            ("(=?iso-8859-1?q?Andr=E9?=)", "(André)"),
            ("=?utf-8?B?w7w=?=", "ü"),
            ("=?utf-8?B?ww==?= =?utf-8?B?vA==?=", "ü"),
            ("=?utf-8*de?Q?=C3=BC?=", "ü"),
            ("a =? b ?= =?x", "a =? b ?= =?x"),
            ("=?utf-8?X?a?=", "=?utf-8?X?a?="),
            ("=?utf-8?Q?a", "=?utf-8?Q?a"),
            ("", ""),
        ];
        for (coded, plain) in cases {
            assert_eq!(decode_words(coded), plain, "{coded:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_decoded_in_bounded_room(text in "(=\\?|utf-8|\\?[qQbB]\\?|\\?=|[a-zA-Z=_ ?é]){0,40}") {
            prop_assert!(decode_words(&text).len() <= 3 * text.len());
        }

        #[test]
        fn text_without_encoded_words_stays(text in "[a-z ,.é]{0,40}") {
            prop_assert_eq!(decode_words(&text), text);
        }
    }
}
