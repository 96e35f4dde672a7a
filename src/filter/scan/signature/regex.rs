//! Regular expressions as subsignatures: `[OFFSET:]TRIGGER/EXPRESSION/FLAGS`, written for PCRE.
//!
//! They are matched by an engine that takes time by what it reads and memory with a bound, so it can do no
//! back-references and does not look around; expressions with those are not taken, each for its reason.
//! The rest is translated where the two dialects differ: escapes, `$`, sets.

use std::fmt::Write as _;

use regex_automata::meta;
use regex_automata::util::syntax;
use serde::{Deserialize, Serialize};

use super::logical::Expression;
use super::{Place, Reason};

/// Most bytes of a compiled expression.
const COMPILED_MAX: usize = 128 << 10;

/// Most bytes of what an expression's matching remembers, each way.
const CACHE_MAX: usize = 256 << 10;

/// A byte that ends a line but nothing else.
const LINE_ENDS: &str = r"\n\x0B\x0C\r";

const BAD: Reason = Reason("regular expressions that can't be read");
const AROUND: Reason = Reason("regular expressions that look around");
const BACK: Reason = Reason("regular expressions with back-references");
const ATOMIC: Reason = Reason("regular expressions with atomic groups or possessive repetition");
const PROGRAM: Reason = Reason("regular expressions with recursion, conditions or verbs");
const LARGE: Reason = Reason("regular expressions that are too large");
const FLAGS: Reason = Reason("regular expressions with flags that are not known");

/// A regular expression, and when and where it is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegexSub {
    /// The subsignature that it is.
    pub sub: u16,
    /// What must be true of the subsignatures before it, or it is not looked for.
    pub trigger: Expression,
    /// Where a match must begin.
    pub place: Place,
    /// Its matches are counted; else one is enough.
    pub global: bool,
    /// A match may begin anywhere from the place on.
    pub rolling: bool,
    /// A match must end within the place, too.
    pub encompass: bool,
    /// A match begins where the place begins.
    pub anchored: bool,
    /// The expression, as our engine reads it.
    pub text: String,
}

/// Compiles an expression that was read before.
///
/// # Errors
/// It is too large, or not one.
pub fn compile(text: &str) -> Result<meta::Regex, Reason> {
    let config = meta::Config::new()
        .utf8_empty(false)
        .nfa_size_limit(Some(COMPILED_MAX))
        .hybrid_cache_capacity(CACHE_MAX)
        .which_captures(regex_automata::nfa::thompson::WhichCaptures::Implicit);
    let syntax = syntax::Config::new().unicode(false).utf8(false).nest_limit(60);
    let built = meta::Builder::new().configure(config).syntax(syntax).build(text);
    built.map_err(|error| if error.size_limit().is_some() { LARGE } else { BAD })
}

/// Reads subsignature `number`.
///
/// # Errors
/// Why it is not taken.
pub(super) fn sub(number: u16, text: &str) -> Result<RegexSub, Reason> {
    let (before, rest) = text.split_once('/').ok_or(BAD)?;
    let (expression, flags) = rest.rsplit_once('/').ok_or(BAD)?;
    let (place, trigger) = match before.rsplit_once(':') {
        Some((place, trigger)) => (Place::parse(place)?, trigger),
        None => (Place::default(), before),
    };
    let trigger = Expression::parse(trigger, usize::from(number))?;
    let mut found = RegexSub {
        sub: number,
        trigger,
        place,
        global: false,
        rolling: false,
        encompass: false,
        anchored: false,
        text: String::new(),
    };
    let (mut options, mut dialect) = (String::new(), Dialect::default());
    for flag in flags.chars() {
        match flag {
            'g' => found.global = true,
            'r' => found.rolling = true,
            'e' => found.encompass = true,
            'A' => found.anchored = true,
            'E' => dialect.end_only = true,
            'i' | 's' | 'U' => options.push(flag),
            'm' => {
                dialect.lines = true;
                options.push(flag);
            }
            'x' => {
                dialect.spaced = true;
                options.push(flag);
            }
            _ => return Err(FLAGS),
        }
    }
    let text = translate(expression, dialect)?;
    // The newline ends a comment that the expression may end with.
    let newline = if dialect.spaced { "\n" } else { "" };
    found.text = if options.is_empty() { text } else { format!("(?{options}:{text}{newline})") };
    compile(&found.text)?;
    Ok(found)
}

/// What of the flags changes the letters' meaning.
#[derive(Clone, Copy, Default)]
struct Dialect {
    /// `$` is the end of each line.
    lines: bool,
    /// `$` is the very end, not before a last newline as well.
    end_only: bool,
    /// Blanks mean nothing.
    spaced: bool,
}

/// Spells PCRE's expression for our engine.
fn translate(expression: &str, dialect: Dialect) -> Result<String, Reason> {
    let mut reader = Reader { rest: expression, out: String::with_capacity(expression.len() + 16), dialect };
    // Something that can be repeated has just been.
    let mut repeated = false;
    while let Some(letter) = reader.next() {
        let was_repeated = std::mem::take(&mut repeated);
        match letter {
            '\\' => reader.escape()?,
            '[' => reader.set()?,
            '(' => reader.group()?,
            '$' if dialect.lines => reader.out.push('$'),
            '$' if dialect.end_only => reader.out.push_str(r"\z"),
            '$' => reader.out.push_str(r"(?:\n?\z)"),
            '+' if was_repeated => return Err(ATOMIC),
            // Behind another one it makes that one lazy.
            '?' if was_repeated => reader.out.push('?'),
            '*' | '+' | '?' => {
                reader.out.push(letter);
                repeated = true;
            }
            '{' => match reader.count() {
                Some(count) => {
                    reader.out.push_str(&count);
                    repeated = true;
                }
                None => reader.out.push_str(r"\{"),
            },
            letter => reader.out.push(letter),
        }
    }
    Ok(reader.out)
}

struct Reader<'t> {
    rest: &'t str,
    out: String,
    dialect: Dialect,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Option<char> {
        let letter = self.rest.chars().next()?;
        self.rest = self.rest.get(letter.len_utf8()..).unwrap_or_default();
        Some(letter)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn skip(&mut self, prefix: &str) -> bool {
        let rest = self.rest.strip_prefix(prefix);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Takes letters that are digits of this base, `most` at most.
    fn digits(&mut self, base: u32, most: usize) -> &'t str {
        let end = self.rest.char_indices().take(most).take_while(|(_, letter)| letter.is_digit(base)).count();
        let (digits, rest) = self.rest.split_at_checked(end).unwrap_or(("", self.rest));
        self.rest = rest;
        digits
    }

    fn byte(&mut self, byte: u32) -> Result<(), Reason> {
        if byte > 0xFF {
            return Err(BAD);
        }
        // Writing to a String cannot fail.
        let _ = write!(self.out, "\\x{byte:02X}");
        Ok(())
    }

    /// What stands behind an opening bracket.
    fn group(&mut self) -> Result<(), Reason> {
        if self.rest.starts_with('*') {
            return Err(PROGRAM);
        }
        if self.skip("?#") {
            self.rest = self.rest.split_once(')').ok_or(BAD)?.1;
            return Ok(());
        }
        for (prefix, reason) in [
            ("?=", AROUND),
            ("?!", AROUND),
            ("?<=", AROUND),
            ("?<!", AROUND),
            ("?>", ATOMIC),
            ("?P=", BACK),
            ("?P>", PROGRAM),
            ("?R", PROGRAM),
            ("?(", PROGRAM),
            ("?&", PROGRAM),
            ("?C", PROGRAM),
            ("?|", BAD),
        ] {
            if self.rest.starts_with(prefix) {
                return Err(reason);
            }
        }
        let numbered = self.rest.strip_prefix('?').map(|rest| rest.trim_start_matches(['+', '-']));
        if numbered.is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit())) {
            return Err(PROGRAM);
        }
        self.out.push('(');
        if self.skip("?") {
            self.out.push('?');
        }
        Ok(())
    }

    /// `{n}`, `{n,}` or `{n,m}` without its first letter; anything else is no count.
    fn count(&mut self) -> Option<String> {
        let (inner, rest) = self.rest.split_once('}')?;
        let (least, most) = inner.split_once(',').unwrap_or((inner, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if least.is_empty() || !digits(least) || !digits(most) {
            return None;
        }
        self.rest = rest;
        Some(format!("{{{inner}}}"))
    }

    /// An escape outside of sets, without its backslash.
    fn escape(&mut self) -> Result<(), Reason> {
        let letter = self.next().ok_or(BAD)?;
        match letter {
            '1'..='9' => {
                let more = self.digits(8, 2);
                let first = letter.to_digit(8);
                let Some(first) = first.filter(|_| more.len() == 2) else { return Err(BACK) };
                self.byte(first * 64 + u32::from_str_radix(more, 8).unwrap_or(0))?;
            }
            'k' | 'g' => return Err(BACK),
            'K' | 'G' => return Err(PROGRAM),
            'Z' => self.out.push_str(r"(?:\n?\z)"),
            'h' => self.out.push_str(r"[\t\x20]"),
            'H' => self.out.push_str(r"[^\t\x20]"),
            'v' => self.out.extend(["[", LINE_ENDS, "]"]),
            'V' => self.out.extend(["[^", LINE_ENDS, "]"]),
            'R' => self.out.extend([r"(?:\r\n|[", LINE_ENDS, "])"]),
            'N' => self.out.push_str(r"[^\n]"),
            'b' | 'B' | 'A' | 'z' => self.out.extend(['\\', letter]),
            'Q' => {
                let (quoted, rest) = self.rest.split_once(r"\E").unwrap_or((self.rest, ""));
                self.rest = rest;
                for byte in quoted.bytes() {
                    self.byte(byte.into())?;
                }
            }
            'E' => {}
            letter => self.common(letter)?,
        }
        Ok(())
    }

    /// An escape that means the same in sets.
    fn common(&mut self, letter: char) -> Result<(), Reason> {
        match letter {
            'd' | 'D' | 's' | 'S' | 'w' | 'W' | 'n' | 'r' | 't' | 'f' | 'a' => self.out.extend(['\\', letter]),
            'e' => self.byte(0x1B)?,
            '0' => {
                let digits = self.digits(8, 2);
                self.byte(u32::from_str_radix(digits, 8).unwrap_or(0))?;
            }
            'c' => {
                let control = self.next().filter(char::is_ascii).ok_or(BAD)?;
                self.byte(u32::from(control.to_ascii_uppercase()) ^ 0x40)?;
            }
            'x' => {
                let digits = if self.skip("{") {
                    let digits = self.digits(16, 8);
                    if !self.skip("}") {
                        return Err(BAD);
                    }
                    digits
                } else {
                    self.digits(16, 2)
                };
                self.byte(u32::from_str_radix(digits, 16).unwrap_or(0))?;
            }
            letter if letter.is_ascii_alphanumeric() => return Err(BAD),
            letter if letter.is_ascii() => self.byte(letter.into())?,
            letter => self.out.push(letter),
        }
        Ok(())
    }

    /// A set of bytes, without its opening bracket.
    fn set(&mut self) -> Result<(), Reason> {
        self.out.push('[');
        if self.skip("^") {
            self.out.push('^');
        }
        if self.skip("]") {
            self.out.push_str(r"\]");
        }
        // A hyphen behind something that is a set itself is a hyphen.
        let mut behind_set = false;
        loop {
            let letter = self.next().ok_or(BAD)?;
            let was_set = std::mem::take(&mut behind_set);
            match letter {
                ']' => break,
                '[' if self.rest.starts_with(':') => {
                    let (name, rest) = self.rest.split_once(":]").ok_or(BAD)?;
                    self.out.extend(["[", name, ":]"]);
                    self.rest = rest;
                    behind_set = true;
                }
                '\\' => match self.next().ok_or(BAD)? {
                    'b' => self.byte(0x08)?,
                    'h' => self.out.push_str(r"\t\x20"),
                    'v' => self.out.push_str(LINE_ENDS),
                    'E' => {}
                    digit @ '1'..='7' => {
                        let more = self.digits(8, 2);
                        let number = format!("{digit}{more}");
                        self.byte(u32::from_str_radix(&number, 8).unwrap_or(u32::MAX))?;
                    }
                    'H' | 'V' | 'R' | 'N' | 'Q' => return Err(BAD),
                    letter => {
                        behind_set = matches!(letter, 'd' | 'D' | 's' | 'S' | 'w' | 'W');
                        self.common(letter)?;
                    }
                },
                '-' if was_set || self.peek() == Some('-') => self.out.push_str(r"\-"),
                // Our engine has operations on sets, and blanks mean nothing to it where the flag says so.
                '[' | '&' | '~' | '#' => self.byte(letter.into())?,
                letter if letter.is_ascii_whitespace() && self.dialect.spaced => self.byte(letter.into())?,
                letter => self.out.push(letter),
            }
        }
        self.out.push(']');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RegexSub, Reason> {
        sub(3, text)
    }

    fn matches(text: &str, bytes: &[u8]) -> bool {
        compile(&read(text).unwrap().text).unwrap().is_match(bytes)
    }

    #[test]
    fn a_subsignature_has_a_place_a_trigger_and_flags() {
        let found = read("EOF-100,50:0&(1|2)>1/a[/]b/gresi").unwrap();
        assert_eq!(found.place, Place::parse("EOF-100,50").unwrap());
        assert!(found.global && found.rolling && found.encompass && !found.anchored);
        assert_eq!(found.text, "(?si:a[/]b)");
        assert!(read("0/a/A").unwrap().anchored);
        // What comes behind it can't trigger it.
        assert_eq!(read("3/a/").unwrap_err(), Reason("logical expressions that name a pattern they do not have"));
        assert_eq!(read("0/a/q").unwrap_err(), FLAGS);
        assert_eq!(read("0").unwrap_err(), BAD);
    }

    #[test]
    fn what_the_engine_cannot_do_is_told_by_its_reason() {
        for (text, reason) in [
            ("a(?=b)", AROUND),
            ("(?<!a)b", AROUND),
            (r"(a)\1", BACK),
            (r"(?P<n>a)(?P=n)", BACK),
            ("(?>a+)b", ATOMIC),
            ("a++b", ATOMIC),
            ("a{2,3}+b", ATOMIC),
            ("(?R)", PROGRAM),
            ("(a(?1)?b)", PROGRAM),
            ("(*ACCEPT)", PROGRAM),
            (r"a\Kb", PROGRAM),
            ("((((((((a{90}){90}){90}){90}){90}){90}){90}){90})", LARGE),
            ("(a", BAD),
            (r"\p{Greek}", BAD),
        ] {
            assert_eq!(read(&format!("0/{text}/")), Err(reason), "{text}");
        }
    }

    #[test]
    fn the_dialects_differences_are_translated() {
        for (text, yes, no) in [
            (r"0/^a$/", b"a\n".as_slice(), b"a\n\n".as_slice()),
            (r"0/^a$/E", b"a", b"a\n"),
            (r"0/^a$/m", b"x\na\nx", b"xa"),
            (r"0/a.b/", b"a\xFFb", b"a\nb"),
            (r"0/a.b/s", b"a\nb", b"ab"),
            (r"0/A\x2fB/i", b"a/b", b"ab"),
            (r"0/[[]x/", b"[x", b"xx"),
            (r"0/[a&&b]c/", b"&c", b"xc"),
            (r"0/[\w-.]+!/", b"-.!", b" !"),
            (r"0/[]a]b/", b"]b", b"xb"),
            (r"0/a{,3}b/", b"a{,3}b", b"aab"),
            (r"0/\Qa.b\E+/", b"a.bb", b"axb"),
            (r"0/\/\<\-\#/", b"/<-#", b"/<"),
            (r"0/a\hb\Rc/", b"a\tb\r\nc", b"abc"),
            (r"0/\0\x{41}\101\e/", b"\0AA\x1B", b"A"),
            ("0/a b [ ]c # not this/x", b"ab c", b"a b  c"),
            (r"0/(?i:AB)c(?#note)d/", b"abcd", b"abCd"),
            (r"0/a+?b??c/", b"aac", b"bc"),
            (r"0/[^\x00-\x7f]{2}/", b"\xC3\xA9", b"ab"),
        ] {
            assert!(matches(text, yes), "{text} {yes:?}: {}", read(text).unwrap().text);
            assert!(!matches(text, no), "{text} {no:?}: {}", read(text).unwrap().text);
        }
    }
}
