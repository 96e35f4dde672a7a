//! SPF records and their macros (RFC 7208 sections 4.6, 5 to 7 and 12), as text: nothing is asked here.
//!
//! Strict, as the RFC wants it: whatever breaks the grammar makes the whole record void. mail-auth's reader takes
//! prefix lengths of 33, names without a top label and modifiers without a name, and refuses some that are right, so
//! it differs from 37 of the 203 tests of the RFC's suite.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::mail::authentication::Verdict;

/// Most terms of a record.
const TERMS_MAX: usize = 512;

/// A record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// What matches, in order, and what follows.
    pub(super) directives: Vec<(Verdict, Mechanism)>,
    /// Where to go on if nothing matches.
    pub(super) redirect: Option<Pattern>,
    /// Where the explanation of a failure is.
    pub(super) explanation: Option<Pattern>,
}

/// What an address is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    All,
    Include(Pattern),
    A(Option<Pattern>, Bits),
    Mx(Option<Pattern>, Bits),
    Ptr(Option<Pattern>),
    Ip4(Ipv4Addr, u8),
    Ip6(Ipv6Addr, u8),
    Exists(Pattern),
}

/// How many bits count, of IPv4 and of IPv6 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bits {
    pub four: u8,
    pub six: u8,
}

/// A text with macros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Macro { letter: char, escaped: bool, count: usize, reversed: bool, delimiters: String },
}

/// What macros stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a> {
    pub ip: IpAddr,
    pub sender: &'a str,
    pub domain: &'a str,
    pub helo: &'a str,
    pub host: &'a str,
    /// The client's validated name.
    pub validated: &'a str,
    /// Seconds since 1970.
    pub now: u64,
}

impl Record {
    /// Reads a record, `v=spf1` included. `None` where anything in it is wrong.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut record = Self::default();
        for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
            let end = term.find([':', '/', '=']).unwrap_or(term.len());
            let (name, rest) = term.split_at(end);
            if let Some(value) = rest.strip_prefix('=') {
                record.modifier(&name.to_ascii_lowercase(), value)?;
                continue;
            }
            let (verdict, name) = match name.strip_prefix(['+', '-', '~', '?']) {
                Some(bare) if name.starts_with('-') => (Verdict::Fail, bare),
                Some(bare) if name.starts_with('~') => (Verdict::SoftFail, bare),
                Some(bare) if name.starts_with('?') => (Verdict::Neutral, bare),
                Some(bare) => (Verdict::Pass, bare),
                None => (Verdict::Pass, name),
            };
            record.directives.push((verdict, mechanism(&name.to_ascii_lowercase(), rest)?));
            if record.directives.len() > TERMS_MAX {
                return None;
            }
        }
        Some(record)
    }

    fn modifier(&mut self, name: &str, value: &str) -> Option<()> {
        let place = match name {
            "redirect" => &mut self.redirect,
            "exp" => &mut self.explanation,
            _ => {
                let mut letters = name.bytes();
                let first = letters.next()?.is_ascii_alphabetic();
                let good = first && letters.all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
                return (good && pieces(value, false).is_some()).then_some(());
            }
        };
        let pattern = domain(value)?;
        place.replace(pattern).is_none().then_some(())
    }
}

fn mechanism(name: &str, rest: &str) -> Option<Mechanism> {
    let required = || domain(rest.strip_prefix(':')?);
    Some(match name {
        "all" if rest.is_empty() => Mechanism::All,
        "include" => Mechanism::Include(required()?),
        "exists" => Mechanism::Exists(required()?),
        "ptr" if rest.is_empty() => Mechanism::Ptr(None),
        "ptr" => Mechanism::Ptr(Some(required()?)),
        "ip4" => {
            let (address, bits) = network(rest.strip_prefix(':')?, 32)?;
            Mechanism::Ip4(address.parse().ok()?, bits)
        }
        "ip6" => {
            let (address, bits) = network(rest.strip_prefix(':')?, 128)?;
            Mechanism::Ip6(address.parse().ok()?, bits)
        }
        "a" | "mx" => {
            // A name may have slashes in it, so the lengths are what is at the end.
            let (rest, six) = length(rest, "//", 128)?;
            let (rest, four) = length(rest, "/", 32)?;
            let target = match rest {
                "" => None,
                rest => Some(domain(rest.strip_prefix(':')?)?),
            };
            let bits = Bits { four, six };
            if name == "a" { Mechanism::A(target, bits) } else { Mechanism::Mx(target, bits) }
        }
        _ => return None,
    })
}

/// Splits a prefix length off the end, where there is one.
fn length<'t>(text: &'t str, slash: &str, most: u8) -> Option<(&'t str, u8)> {
    match text.rsplit_once(slash) {
        Some((rest, digits)) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some((rest, bits(digits, most)?))
        }
        _ => Some((text, most)),
    }
}

fn network(text: &str, most: u8) -> Option<(&str, u8)> {
    match text.split_once('/') {
        Some((address, digits)) => Some((address, bits(digits, most)?)),
        None => Some((text, most)),
    }
}

/// A prefix length, without zeros before it.
fn bits(digits: &str, most: u8) -> Option<u8> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|bits| plain && *bits <= most)
}

/// A name with macros, which ends in a top label or a macro (`domain-spec`).
fn domain(text: &str) -> Option<Pattern> {
    let pattern = pieces(text, false)?;
    if let Some(Piece::Macro { .. }) = pattern.0.last() {
        return Some(pattern);
    }
    // `%%` and the like are macros too.
    if ["%%", "%_", "%-"].iter().any(|end| text.ends_with(end)) {
        return Some(pattern);
    }
    let Some(Piece::Text(last)) = pattern.0.last() else { return None };
    let (_, label) = last.strip_suffix('.').unwrap_or(last).rsplit_once('.')?;
    let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let good = inner && !label.starts_with('-') && !label.ends_with('-') && !label.bytes().all(|b| b.is_ascii_digit());
    (good && !label.is_empty()).then_some(pattern)
}

/// A text with macros (`macro-string`); in an `explanation` blanks and more letters may stand.
fn pieces(text: &str, explanation: bool) -> Option<Pattern> {
    let (mut pieces, mut plain) = (Vec::new(), String::new());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..)?;
        if c != '%' {
            if !(c.is_ascii_graphic() || explanation && c == ' ') {
                return None;
            }
            plain.push(c);
            continue;
        }
        let kind = rest.chars().next()?;
        rest = rest.get(kind.len_utf8()..)?;
        match kind {
            '%' => plain.push('%'),
            '_' => plain.push(' '),
            '-' => plain.push_str("%20"),
            '{' => {
                let (inside, after) = rest.split_once('}')?;
                rest = after;
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(macro_of(inside, explanation)?);
            }
            _ => return None,
        }
    }
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Some(Pattern(pieces))
}

/// What stands between the braces of a macro (section 7.1).
fn macro_of(inside: &str, explanation: bool) -> Option<Piece> {
    let first = inside.chars().next()?;
    let letter = first.to_ascii_lowercase();
    let known = "slodiphv".contains(letter) || explanation && "crt".contains(letter);
    if !known {
        return None;
    }
    let rest = inside.get(1..)?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, rest) = rest.split_at(digits);
    // More parts than a name can have are all.
    let count = if digits.is_empty() { usize::MAX } else { digits.parse().unwrap_or(usize::MAX) };
    let reversed = rest.starts_with(['r', 'R']);
    let delimiters = if reversed { rest.get(1..)? } else { rest };
    let good = count > 0 && delimiters.chars().all(|c| ".-+,/_=".contains(c));
    let delimiters = if delimiters.is_empty() { ".".to_owned() } else { delimiters.to_owned() };
    good.then_some(Piece::Macro { letter, escaped: first.is_ascii_uppercase(), count, reversed, delimiters })
}

impl Pattern {
    /// Reads the text of an explanation.
    pub(super) fn explanation(text: &str) -> Option<Self> {
        pieces(text, true)
    }

    /// Tells whether the client's validated name is in it.
    pub(super) fn needs_validated(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Macro { letter: 'p', .. }))
    }

    /// Fills the macros in (section 7.3), for at most `most` bytes or so.
    pub(super) fn fill(&self, values: &Values<'_>, most: usize) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(plain) => text.push_str(plain),
                Piece::Macro { letter, escaped, count, reversed, delimiters } => {
                    let value = values.of(*letter);
                    let mut parts: Vec<&str> = value.split(|c| delimiters.contains(c)).collect();
                    if *reversed {
                        parts.reverse();
                    }
                    let last = parts.get(parts.len().saturating_sub(*count)..).unwrap_or_default().join(".");
                    if *escaped { escape(&last, &mut text) } else { text.push_str(&last) }
                }
            }
            if text.len() > most {
                break;
            }
        }
        text
    }
}

impl Values<'_> {
    fn of(&self, letter: char) -> String {
        let parts = self.sender.rsplit_once('@');
        match letter {
            's' => self.sender.to_owned(),
            'l' => parts.map_or("postmaster", |(local, _)| local).to_owned(),
            'o' => parts.map_or(self.sender, |(_, domain)| domain).to_owned(),
            'd' => self.domain.to_owned(),
            'i' => match self.ip {
                IpAddr::V4(four) => four.to_string(),
                IpAddr::V6(six) => {
                    let digits = six.octets().into_iter().flat_map(|octet| [octet >> 4, octet & 15]);
                    digits.map(|digit| format!("{digit:X}")).collect::<Vec<_>>().join(".")
                }
            },
            'p' => self.validated.to_owned(),
            'v' => if self.ip.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
            'h' => self.helo.to_owned(),
            'c' => self.ip.to_string(),
            'r' => self.host.to_owned(),
            't' => self.now.to_string(),
            _ => String::new(),
        }
    }
}

/// Percent-encodes what is not unreserved (RFC 3986 section 2.3).
fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            for digit in [byte >> 4, byte & 15] {
                out.extend(char::from_digit(u32::from(digit), 16).map(|c| c.to_ascii_uppercase()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values() -> Values<'static> {
        Values {
            ip: "192.0.2.3".parse().unwrap(),
            sender: "strong-bad@email.example.com",
            domain: "email.example.com",
            helo: "mx.example.com",
            host: "here.test",
            validated: "mx.example.org",
            now: 99,
        }
    }

    fn filled(text: &str) -> String {
        Pattern::explanation(text).unwrap().fill(&values(), 1000)
    }

    #[test]
    fn the_rfcs_examples_are_filled_in() {
        // RFC 7208 section 7.4.
        for (text, wanted) in [
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l-}", "strong.bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{L} %{t} %{r} %{p}%%%_%-", "strong-bad 99 here.test mx.example.org% %20"),
        ] {
            assert_eq!(filled(text), wanted, "{text}");
        }
        let six = Values { ip: "2001:db8::cb01".parse().unwrap(), ..values() };
        let wanted = "1.0.B.C.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.D.0.1.0.0.2.ip6";
        assert_eq!(Pattern::explanation("%{ir}.%{v}").unwrap().fill(&six, 1000), wanted);
    }

    #[test]
    fn what_breaks_the_grammar_voids_the_record() {
        for good in ["v=spf1", "v=spf1  ", "v=spf1 a/24//64 mx:x.test//0 ?all", "v=spf1 exists:%{i}.x.test x-y=%%"] {
            assert!(Record::parse(good).is_some(), "{good}");
        }
        for bad in [
            "a/33",
            "a//129",
            "a/024",
            "a:",
            "a:x",
            "a:x.1",
            "a:x.-y",
            "all:x.test",
            "ip4:192.0.2.1/33",
            "ip4:1.2.3",
            "ip6:1::2/129",
            "include:",
            "exists:%{c}.test",
            "redirect=x.test redirect=y.test",
            "=x",
            "1=x",
            "x=%{",
            "-exp=x.test",
            "a:%{d0}.x.test",
            "a:%x.test",
            "nonsense",
            "ptr:",
            "ip4:192.0.2.1/",
            "a:%{d}/x",
        ] {
            assert_eq!(Record::parse(&format!("v=spf1 {bad} -all")), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "v=spf1 [ -~]{0,80}", value in "[ -~]{0,40}") {
            let _ = Record::parse(&text);
            if let Some(pattern) = Pattern::explanation(&value) {
                pattern.fill(&values(), 100);
            }
        }
    }
}
