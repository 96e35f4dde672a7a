//! Replies (RFC 5321 section 4.2, RFC 2034, RFC 3463).
//!
//! A [`Reply`] is a code, an enhanced status code where there is one, and text of one or more lines.
//! Its text is ours alone: nothing a peer said is ever repeated in it.

use std::borrow::Cow;
use std::fmt;

/// What we say to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Three digits (RFC 5321 section 4.2.1): 2yz is yes, 3yz is "go on", 4yz "not now", 5yz "no".
    pub code: u16,
    /// `class.subject.detail` (RFC 3463); empty in replies that carry none (RFC 2034 section 4).
    pub enhanced: &'static str,
    /// Printable text; lines are separated by LF.
    pub text: Cow<'static, str>,
}

impl Reply {
    /// A reply with an enhanced status code.
    pub fn new(code: u16, enhanced: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        Self { code, enhanced, text: text.into() }
    }

    /// A reply without one: greetings, answers to EHLO and HELO, 354 and 334.
    pub fn plain(code: u16, text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(code, "", text)
    }

    /// Tells whether this is a "no", for now or for good.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.code >= 400
    }

    /// Appends the reply as it goes over the wire (RFC 5321 section 4.2.1).
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut lines = self.text.split('\n').peekable();
        while let Some(line) = lines.next() {
            let mark = if lines.peek().is_some() { '-' } else { ' ' };
            out.extend_from_slice(format!("{}{mark}", self.code).as_bytes());
            if !self.enhanced.is_empty() {
                out.extend_from_slice(self.enhanced.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

impl fmt::Display for Reply {
    /// One line, for the log.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.code)?;
        if !self.enhanced.is_empty() {
            write!(out, " {}", self.enhanced)?;
        }
        write!(out, " {}", self.text.replace('\n', " / "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_line_but_the_last_has_a_hyphen() {
        assert_eq!(wire(&Reply::plain(250, "box\nSIZE 1\nDSN")), "250-box\r\n250-SIZE 1\r\n250 DSN\r\n");
        assert_eq!(wire(&Reply::new(214, "2.0.0", "a\nb")), "214-2.0.0 a\r\n214 2.0.0 b\r\n");
        assert_eq!(wire(&Reply::plain(334, "")), "334 \r\n");
    }
}
