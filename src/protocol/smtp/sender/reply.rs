//! Reads replies, whatever comes (RFC 5321 section 4.2).
//!
//! A peer may send a thousand lines, bytes that are no text, or no reply at all. What is kept of a
//! reply is bounded; what is longer than any reply can be, and what is none, is told as
//! [`Nonsense`], after which nothing this peer says can be trusted.

use super::Point;
use super::heard::{Enhanced, Heard, Origin, keep};

/// Longest reply in bytes, all its lines together.
const REPLY_BYTES_MAX: usize = 65_536;

/// Most lines of a reply.
const REPLY_LINES_MAX: usize = 1_000;

/// Bytes kept of a line: more than RFC 5321 section 4.5.3.1.5 allows, because AUTH's are longer.
const LINE_MAX: usize = 1_400;

/// Bytes kept of a reply's lines for who wants more than its text.
const LINES_MAX: usize = 8_192;

/// A whole reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// 200 to 599.
    pub(super) code: u16,
    /// The enhanced status code, where there is one that fits the code.
    pub(super) enhanced: Option<Enhanced>,
    /// The text behind the codes, within its bound.
    pub(super) text: String,
    /// The lines behind the code, within their bound.
    pub(super) lines: Vec<String>,
}

impl Said {
    /// The reply as what was heard at `at`.
    pub(super) fn heard(self, at: Point) -> Heard {
        let Self { code, enhanced, text, .. } = self;
        Heard { at, origin: Origin::Peer, code, enhanced, text, unsure: false, dsn: false }
    }

    /// The code's first digit.
    pub(super) fn class(&self) -> u16 {
        self.code / 100
    }
}

/// What came is no reply; the text shows its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nonsense(pub(super) String);

/// A reply on its way in.
#[derive(Debug, Default)]
pub(super) struct ReplyReader {
    line: Vec<u8>,
    /// Bytes of the whole reply so far.
    bytes: usize,
    /// Bytes of the lines that were kept.
    kept: usize,
    count: usize,
    said: Option<Said>,
}

impl ReplyReader {
    /// Takes bytes up to the end of a reply at most. Says how many, and the reply when it is whole.
    pub(super) fn take(&mut self, input: &[u8]) -> (usize, Option<Result<Said, Nonsense>>) {
        let mut taken = 0;
        for piece in input.split_inclusive(|&byte| byte == b'\n') {
            taken += piece.len();
            self.bytes += piece.len();
            let room = LINE_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(piece.get(..room).unwrap_or(piece));
            if self.bytes > REPLY_BYTES_MAX {
                return (taken, Some(Err(self.nonsense("a reply without end"))));
            }
            if piece.last() == Some(&b'\n')
                && let Some(came) = self.line()
            {
                *self = Self::default();
                return (taken, Some(came));
            }
        }
        (taken, None)
    }

    /// Takes the line that has come; says what the reply is when it was its last.
    fn line(&mut self) -> Option<Result<Said, Nonsense>> {
        let line = std::mem::take(&mut self.line);
        let line = line.trim_ascii_end();
        self.count += 1;
        if self.count > REPLY_LINES_MAX {
            return Some(Err(self.nonsense("a reply without end")));
        }
        let Some((code, last, text)) = split(line) else {
            return Some(Err(Nonsense(shown(line))));
        };
        let text = String::from_utf8_lossy(text);
        let (enhanced, plain) = match Enhanced::parse(&text) {
            Some((enhanced, rest)) if u16::from(enhanced.class) == code / 100 => (Some(enhanced), rest),
            _ => (None, &*text),
        };
        let said = self.said.get_or_insert_with(|| Said { code, enhanced, text: String::new(), lines: Vec::new() });
        if said.code != code {
            return Some(Err(Nonsense(format!("a reply with two codes, {} and {code}", said.code))));
        }
        said.enhanced = said.enhanced.or(enhanced);
        if !said.text.is_empty() {
            keep(&mut said.text, " ");
        }
        keep(&mut said.text, plain);
        self.kept += text.len();
        if self.kept <= LINES_MAX {
            said.lines.push(text.into_owned());
        }
        if last { self.said.take().map(Ok) } else { None }
    }

    fn nonsense(&mut self, text: &str) -> Nonsense {
        *self = Self::default();
        Nonsense(text.to_owned())
    }
}

/// Code, whether it is the last line, and text.
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    let code = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    let code = code.parse().ok().filter(|code| (200..600).contains(code))?;
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', text)) => Some((code, true, text)),
        Some((b'-', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

/// The beginning of a line that is no reply, to be shown.
fn shown(line: &[u8]) -> String {
    let start = line.get(..60).unwrap_or(line);
    format!("no SMTP reply: \"{}\"", String::from_utf8_lossy(start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::smtp::sender::heard::TEXT_MAX;
    use proptest::prelude::*;

    fn read(input: &[u8], cut: usize) -> Vec<Result<Said, Nonsense>> {
        let (mut reader, mut came) = (ReplyReader::default(), Vec::new());
        for mut piece in input.chunks(cut) {
            while !piece.is_empty() {
                let (taken, reply) = reader.take(piece);
                assert!(taken > 0 && reader.line.len() <= LINE_MAX);
                piece = &piece[taken..];
                came.extend(reply);
            }
        }
        came
    }

    fn one(input: &[u8]) -> Result<Said, Nonsense> {
        let mut came = read(input, 4096);
        assert_eq!(came.len(), 1, "{came:?}");
        came.remove(0)
    }

    #[test]
    fn the_lines_of_a_reply_become_one_text() {
        let said = one(b"550-5.1.1 no such user\r\n550 5.1.1 here\r\n").unwrap();
        assert_eq!((said.code, said.text.as_str()), (550, "no such user here"));
        assert_eq!(said.enhanced, Some(Enhanced::new(5, 1, 1)));
        assert_eq!(said.heard(Point::Recipient).to_string(), "550 5.1.1 no such user here");
    }

    #[test]
    fn a_code_alone_and_a_bare_line_feed_are_understood() {
        assert_eq!(one(b"250\r\n").unwrap().text, "");
        assert_eq!(one(b"250-a\n250 b\n").unwrap().lines, ["a", "b"]);
    }

    #[test]
    fn an_enhanced_code_of_another_class_is_text() {
        let said = one(b"250 5.0.0 fine\r\n").unwrap();
        assert_eq!((said.enhanced, said.text.as_str()), (None, "5.0.0 fine"));
    }

    #[test]
    fn bytes_that_are_no_text_become_one_line_of_text() {
        let said = one(b"554 \xff\xfe\x1b[2J\0 go\r\n").unwrap();
        assert_eq!(said.text, "\u{fffd}\u{fffd} [2J  go");
    }

    #[test]
    fn what_is_no_reply_is_told() {
        for text in
            [&b"SSH-2.0-OpenSSH\r\n"[..], b"\r\n", b"25\r\n", b"250ok\r\n", b"150 x\r\n", b"650 x\r\n", b"\xff\n"]
        {
            assert!(one(text).is_err(), "{text:?}");
        }
        assert!(one(b"250-a\r\n550 b\r\n").is_err());
    }

    #[test]
    fn a_thousand_lines_are_read_within_bounds_and_more_are_too_many() {
        let mut many = b"250-0123456789012345678901234567890123456789\r\n".repeat(999);
        let mut whole = many.clone();
        whole.extend_from_slice(b"250 end\r\n");
        let said = one(&whole).unwrap();
        assert!(said.text.len() <= TEXT_MAX && said.lines.iter().map(String::len).sum::<usize>() <= LINES_MAX);
        many.extend_from_slice(b"250-a\r\n250-b\r\n");
        assert!(read(&many, 4096).iter().any(Result::is_err));
        assert!(read(&b"2".repeat(70_000), 4096).iter().any(Result::is_err));
        let long = [b"250 ".as_slice(), &b"x".repeat(60_000), b"\r\n"].concat();
        assert_eq!(one(&long).unwrap().text.len(), TEXT_MAX);
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_changes_nothing(
            input in prop::collection::vec(prop::sample::select(b"2350- .a\r\n\xff".to_vec()), 0..80), cut in 1_usize..9,
        ) {
            prop_assert_eq!(read(&input, cut), read(&input, 1000));
        }
    }
}
