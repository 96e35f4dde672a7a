//! Reads the words of a command: atoms, numbers, strings, literals, lists (RFC 9051 section 9).
//!
//! A [`Cursor`] walks over one whole command as [`super::intake`] gathered it: text in which each
//! literal stands right behind its header `{n}` CRLF, and no line end after the last word. CR, LF
//! and NUL can therefore only occur inside literals; anywhere else they are refused.

use std::borrow::Cow;

/// Longest tag in bytes; a command with a longer one is answered without a tag.
pub(super) const TAG_MAX: usize = 128;

/// Why a command is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// `BAD` with the command's usage: a word is missing, misspelled or too many.
    Usage,
    /// `BAD` with this text.
    Bad(&'static str),
    /// `NO` with this text, which may begin with a response code.
    No(&'static str),
}

/// What reading a word came to.
pub(super) type Parsed<T> = Result<T, Refusal>;

/// A literal's header (RFC 9051 `literal` and `literal8`, RFC 7888).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LiteralHeader {
    /// Bytes that follow.
    pub(super) size: u64,
    /// The client waits for a continuation request.
    pub(super) synchronizing: bool,
}

/// A place in a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

/// RFC 9051 `ATOM-CHAR`.
pub(super) fn is_atom_char(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
}

/// RFC 9051 `ASTRING-CHAR`, and UTF-8 beyond ASCII, which the RFC wants quoted.
fn is_astring_char(byte: u8) -> bool {
    is_atom_char(byte) || byte == b']' || !byte.is_ascii()
}

impl<'a> Cursor<'a> {
    /// Begins at the front of `text`.
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// The byte ahead.
    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Steps over `byte` if it is ahead.
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let rest = self.rest.split_first().filter(|(first, _)| **first == byte).map(|(_, rest)| rest);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Steps over `byte`, which must be ahead.
    pub(super) fn need(&mut self, byte: u8) -> Parsed<()> {
        self.eat(byte).then_some(()).ok_or(Refusal::Usage)
    }

    /// Steps over the one space between two words.
    pub(super) fn space(&mut self) -> Parsed<()> {
        self.need(b' ')
    }

    /// The command must end here. Spaces before the line's end are forgiven.
    pub(super) fn end(&self) -> Parsed<()> {
        self.rest.iter().all(|byte| *byte == b' ').then_some(()).ok_or(Refusal::Usage)
    }

    /// Tells whether nothing is left at all.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes bytes as long as they are wanted; maybe none.
    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().position(|byte| !wanted(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    /// A run of wanted ASCII bytes, at least one.
    fn ascii(&mut self, wanted: impl Fn(u8) -> bool) -> Parsed<&'a str> {
        let taken = self.take_while(|byte| byte.is_ascii() && wanted(byte));
        std::str::from_utf8(taken).ok().filter(|text| !text.is_empty()).ok_or(Refusal::Usage)
    }

    /// A command's tag: at most [`TAG_MAX`] bytes of `ASTRING-CHAR` other than `+`.
    pub(super) fn tag(&mut self) -> Parsed<&'a str> {
        let tag = self.ascii(|byte| is_astring_char(byte) && byte != b'+')?;
        (tag.len() <= TAG_MAX && matches!(self.peek(), None | Some(b' '))).then_some(tag).ok_or(Refusal::Usage)
    }

    /// An atom.
    pub(super) fn atom(&mut self) -> Parsed<&'a str> {
        self.ascii(is_atom_char)
    }

    /// A word of letters, digits, dots and hyphens in upper case; empty when there is none. Stops
    /// before the bracket of `BODY[`, which an atom would take in.
    pub(super) fn word(&mut self) -> String {
        let taken = self.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
        String::from_utf8_lossy(taken).to_ascii_uppercase()
    }

    /// Steps over `word`, in any case, if it is ahead as a whole word.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let mut ahead = *self;
        let found = ahead.word() == word;
        if found {
            *self = ahead;
        }
        found
    }

    /// A number of at most 63 bits (RFC 9051 `number64`).
    pub(super) fn number64(&mut self) -> Parsed<u64> {
        let digits = self.ascii(|byte| byte.is_ascii_digit())?;
        let number = digits.parse::<u64>().ok().filter(|number| i64::try_from(*number).is_ok());
        number.ok_or(Refusal::Bad("a number is too large"))
    }

    /// A number of at most 32 bits (RFC 9051 `number`).
    pub(super) fn number(&mut self) -> Parsed<u32> {
        u32::try_from(self.number64()?).map_err(|_| Refusal::Bad("a number is too large"))
    }

    /// A number of at most 32 bits other than zero (RFC 9051 `nz-number`).
    pub(super) fn nz_number(&mut self) -> Parsed<u32> {
        self.number().and_then(|number| if number == 0 { Err(Refusal::Usage) } else { Ok(number) })
    }

    /// A quoted string. UTF-8 is welcome (RFC 9051 `quoted`), its validity is looked at later.
    pub(super) fn quoted(&mut self) -> Parsed<Cow<'a, [u8]>> {
        self.need(b'"')?;
        let plain = self.take_while(|byte| !matches!(byte, b'"' | b'\\' | b'\r' | b'\n' | 0));
        if self.eat(b'"') {
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_vec();
        while !self.eat(b'"') {
            if self.eat(b'\\') {
                let quoted = self.peek().filter(|byte| matches!(byte, b'"' | b'\\'));
                let quoted =
                    quoted.ok_or(Refusal::Bad("a backslash in a quoted string stands before \" or \\ only"))?;
                self.eat(quoted);
                text.push(quoted);
            }
            let plain = self.take_while(|byte| !matches!(byte, b'"' | b'\\' | b'\r' | b'\n' | 0));
            if plain.is_empty() && !matches!(self.peek(), Some(b'"' | b'\\')) {
                return Err(Refusal::Bad("a quoted string does not end, or holds a control character"));
            }
            text.extend_from_slice(plain);
        }
        Ok(Cow::Owned(text))
    }

    /// The header of a literal with the CRLF behind it, `~` before it or not.
    pub(super) fn literal_header(&mut self) -> Parsed<LiteralHeader> {
        self.eat(b'~');
        self.need(b'{')?;
        let size = self.number64()?;
        let synchronizing = !self.eat(b'+');
        self.need(b'}')?;
        self.need(b'\r')?;
        self.need(b'\n')?;
        Ok(LiteralHeader { size, synchronizing })
    }

    /// Tells whether a literal's header is ahead that nothing follows: its bytes are still to come.
    pub(super) fn is_at_open_literal(&self) -> bool {
        let mut ahead = *self;
        ahead.literal_header().is_ok() && ahead.is_at_end()
    }

    /// A literal (RFC 9051 `literal`).
    fn literal(&mut self) -> Parsed<&'a [u8]> {
        let header = self.literal_header()?;
        let size = usize::try_from(header.size).map_err(|_| Refusal::Usage)?;
        let (literal, rest) = self.rest.split_at_checked(size).ok_or(Refusal::Usage)?;
        self.rest = rest;
        Ok(literal)
    }

    /// A quoted string or a literal.
    pub(super) fn string(&mut self) -> Parsed<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{' | b'~') => self.literal().map(Cow::Borrowed),
            _ => Err(Refusal::Usage),
        }
    }

    /// An atom that may hold `]`, or a string.
    pub(super) fn astring(&mut self) -> Parsed<Cow<'a, [u8]>> {
        match self.peek() {
            Some(byte) if is_astring_char(byte) && !self.is_at_literal8() => {
                Ok(Cow::Borrowed(self.take_while(is_astring_char)))
            }
            _ => self.string(),
        }
    }

    /// A mailbox pattern: like an astring, and `%` and `*` need no quotes (RFC 9051 `list-mailbox`).
    pub(super) fn list_mailbox(&mut self) -> Parsed<Cow<'a, [u8]>> {
        let is_list_char = |byte: u8| is_astring_char(byte) || matches!(byte, b'%' | b'*');
        match self.peek() {
            Some(byte) if is_list_char(byte) && !self.is_at_literal8() => {
                Ok(Cow::Borrowed(self.take_while(is_list_char)))
            }
            _ => self.string(),
        }
    }

    /// An astring that is UTF-8 without NUL.
    pub(super) fn text(&mut self) -> Parsed<String> {
        utf8(&self.astring()?)
    }

    /// A string or NIL, UTF-8 without NUL.
    pub(super) fn nstring(&mut self) -> Parsed<Option<String>> {
        if self.eat_word("NIL") { Ok(None) } else { utf8(&self.string()?).map(Some) }
    }

    /// `(item item ...)`; `()` is none.
    pub(super) fn list(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<()>) -> Parsed<()> {
        self.need(b'(')?;
        if self.eat(b')') {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.eat(b')') {
                return Ok(());
            }
            self.space()?;
        }
    }

    /// `~{` begins a literal, `~` alone an atom.
    fn is_at_literal8(&self) -> bool {
        self.rest.starts_with(b"~{")
    }
}

/// UTF-8 without NUL.
fn utf8(bytes: &[u8]) -> Parsed<String> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refusal::Bad("a string is not UTF-8"))?;
    if text.contains('\0') { Err(Refusal::Bad("a string holds NUL")) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_quoted_string_loses_its_backslashes() {
        let mut cursor = Cursor::new(br#""a \"b\" \\c" rest"#);
        assert_eq!(cursor.quoted().unwrap().as_ref(), br#"a "b" \c"#);
        assert!(cursor.eat(b' '));
    }

    #[test]
    fn a_string_that_breaks_the_grammar_is_refused() {
        for text in [&b"\"abc"[..], b"\"a\\b\"", b"\"a\rb\"", b"\"a\0b\"", b"\"a\\", b"{5}\r\nabc", b"{x}\r\n", b""] {
            assert!(Cursor::new(text).string().is_err(), "{text:?}");
        }
    }

    #[test]
    fn literals_of_every_kind_are_strings() {
        for text in [&b"{3}\r\na\0c"[..], b"{3+}\r\na\0c", b"~{3}\r\na\0c", b"~{3+}\r\na\0c"] {
            assert_eq!(Cursor::new(text).astring().unwrap().as_ref(), b"a\0c");
        }
        assert_eq!(Cursor::new(b"~ann").astring().unwrap().as_ref(), b"~ann");
        assert_eq!(Cursor::new(b"{0}\r\n").text().unwrap(), "");
    }

    #[test]
    fn numbers_have_bounds() {
        assert_eq!(Cursor::new(b"4294967295").number(), Ok(u32::MAX));
        assert!(Cursor::new(b"4294967296").number().is_err());
        assert_eq!(Cursor::new(b"9223372036854775807").number64(), Ok(1 << 63).map(|limit: u64| limit - 1));
        assert!(Cursor::new(b"9223372036854775808").number64().is_err());
        assert!(Cursor::new(b"99999999999999999999999").number64().is_err());
        assert!(Cursor::new(b"0").nz_number().is_err());
    }

    proptest! {
        #[test]
        fn a_quoted_string_reads_back(text in "[^\\r\\n\\x00]{0,40}") {
            let quoted = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
            let mut cursor = Cursor::new(quoted.as_bytes());
            prop_assert_eq!(cursor.text(), Ok(text));
            prop_assert!(cursor.is_at_end());
        }
    }
}
