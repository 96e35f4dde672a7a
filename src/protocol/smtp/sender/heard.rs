//! What a peer said, or what we came to ourselves, in words that go into logs and notifications.

use std::fmt;

use super::Point;

/// Longest text kept of a reply in bytes: that of one line (RFC 5321 section 4.5.3.1.5).
pub(super) const TEXT_MAX: usize = 512;

/// An enhanced status code (RFC 3463).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enhanced {
    /// 2, 4 or 5.
    pub class: u8,
    /// Up to three digits.
    pub subject: u16,
    /// Up to three digits.
    pub detail: u16,
}

impl Enhanced {
    /// Puts a code together.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }

    /// Reads a code at the beginning of a reply's text and returns what follows it.
    pub fn parse(text: &str) -> Option<(Self, &str)> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut numbers = word.split('.');
        let mut number = || {
            let digits = numbers.next()?;
            let fits = (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
            fits.then(|| digits.parse::<u16>().ok())?
        };
        let (class, subject, detail) = (number()?, number()?, number()?);
        let class = u8::try_from(class).ok().filter(|class| matches!(class, 2 | 4 | 5))?;
        numbers.next().is_none().then_some((Self { class, subject, detail }, rest))
    }
}

impl fmt::Display for Enhanced {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// Whose words they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The peer's reply.
    Peer,
    /// We came to it ourselves.
    Ourselves,
}

/// What was heard. One line of text within its bound, without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// What it was about.
    pub at: Point,
    /// Whose words they are.
    pub origin: Origin,
    /// The reply's code, or the one that fits what we came to.
    pub code: u16,
    /// The enhanced status code, where there was one.
    pub enhanced: Option<Enhanced>,
    /// The text behind the codes, lines joined by a space, at most 512 bytes.
    pub text: String,
    /// The whole message was sent and its reply did not come: it may have been taken.
    pub unsure: bool,
    /// The peer speaks DSN and was given the sender's wishes (RFC 3461 section 5.2): it is the one
    /// to tell of success.
    pub dsn: bool,
}

impl Heard {
    /// What we came to ourselves.
    pub(super) fn ours(at: Point, code: u16, enhanced: Enhanced, text: impl AsRef<str>) -> Self {
        let mut kept = String::new();
        keep(&mut kept, text.as_ref());
        let enhanced = Some(enhanced);
        Self { at, origin: Origin::Ourselves, code, enhanced, text: kept, unsure: false, dsn: false }
    }

    /// Tells whether it is "no" for good (RFC 5321 section 4.2.1).
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }
}

impl fmt::Display for Heard {
    /// One line, such as `550 5.1.1 no such user`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(out, " {enhanced}")?;
        }
        if !self.text.is_empty() {
            write!(out, " {}", self.text)?;
        }
        Ok(())
    }
}

/// Adds text to what is kept, within the bound, control characters turned into spaces.
pub(super) fn keep(kept: &mut String, text: &str) {
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if kept.len() + c.len_utf8() > TEXT_MAX {
            return;
        }
        kept.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enhanced_code_is_three_short_numbers_and_nothing_else() {
        assert_eq!(Enhanced::parse("5.1.1 no such user"), Some((Enhanced::new(5, 1, 1), "no such user")));
        assert_eq!(Enhanced::parse("4.7.105"), Some((Enhanced::new(4, 7, 105), "")));
        for text in ["", "5.1", "5.1.1.1 x", "3.1.1 x", "5.1234.1 x", "5..1", "five", "192.0.2.1 x", "+5.1.1 x"] {
            assert_eq!(Enhanced::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_we_say_ourselves_is_one_line_within_its_bound() {
        let heard = Heard::ours(Point::Mail, 451, Enhanced::new(4, 3, 0), format!("a\r\nb{}", "é".repeat(600)));
        assert!(heard.to_string().starts_with("451 4.3.0 a  bé") && heard.text.len() <= TEXT_MAX);
    }
}
