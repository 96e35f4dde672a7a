//! Regular expressions of signatures, looked for in an object a window at a time.
//!
//! They are looked for when the patterns before them were found, which is seldom, so each is compiled then;
//! the last few are kept. A match that is longer than two windows' overlap may be missed.

use std::io;

use regex_automata::meta::Regex;
use regex_automata::{Anchored, Input};

use crate::filter::scan::signature::{RegexSub, regex};
use crate::filter::scan::unpack::pe::Pe;
use crate::filter::scan::{ReadAt, read_vec};

/// Compiled expressions that are kept.
const KEPT_MAX: usize = 4;

/// Bytes looked at in one go.
const WINDOW: usize = 256 << 10;

/// Bytes of a window that the next one has as well: a match that begins there is the next one's.
const OVERLAP: usize = 64 << 10;

/// Most matches that are counted.
const COUNT_MAX: u32 = 10_000;

/// Expressions that were compiled, by signature and subsignature, the newest last.
#[derive(Debug, Default)]
pub(super) struct Expressions(Vec<((u32, u16), Regex)>);

impl Expressions {
    /// How often an expression is in an object; one match is enough where it does not count them. `None`
    /// when the time is over.
    ///
    /// # Errors
    /// Those of the object's medium.
    pub(super) fn count(
        &mut self,
        signature: u32,
        sub: &RegexSub,
        object: &dyn ReadAt,
        pe: Option<&Pe>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> io::Result<Option<u32>> {
        let size = object.size();
        let Some((from, last)) = sub.place.range(size, pe).filter(|(from, _)| *from <= size) else {
            return Ok(Some(0));
        };
        // One that was read when the set was made is one here.
        let Some(regex) = self.compiled((signature, sub.sub), &sub.text) else { return Ok(Some(0)) };
        let hunt = Hunt {
            regex,
            from,
            end: if sub.encompass && !sub.place.is_anywhere() { last.min(size) } else { size },
            last_start: if sub.rolling { u64::MAX } else { last },
            anchored: sub.anchored || sub.place.is_point() && !sub.rolling,
            most: if sub.global { COUNT_MAX } else { 1 },
        };
        hunt.count(object, goes_on)
    }

    fn compiled(&mut self, key: (u32, u16), text: &str) -> Option<&Regex> {
        if let Some(at) = self.0.iter().position(|(known, _)| *known == key) {
            let found = self.0.remove(at);
            self.0.push(found);
        } else {
            let regex = regex::compile(text).ok()?;
            if self.0.len() >= KEPT_MAX {
                self.0.remove(0);
            }
            self.0.push((key, regex));
        }
        self.0.last().map(|(_, regex)| regex)
    }
}

/// A stretch of an object in which an expression is looked for.
struct Hunt<'h> {
    regex: &'h Regex,
    from: u64,
    end: u64,
    /// The last place at which a match may begin.
    last_start: u64,
    /// A match begins at `from`.
    anchored: bool,
    most: u32,
}

impl Hunt<'_> {
    fn count(&self, object: &dyn ReadAt, goes_on: &mut dyn FnMut() -> bool) -> io::Result<Option<u32>> {
        let (mut base, mut count) = (self.from, 0);
        loop {
            if !goes_on() {
                return Ok(None);
            }
            // A byte before shows that the stretch does not begin here.
            let before = u64::from(base > self.from);
            let wanted = usize::try_from(self.end.saturating_sub(base)).unwrap_or(usize::MAX).min(WINDOW);
            let bytes = read_vec(object, base - before, wanted + usize::from(before > 0))?;
            let is_last = base + wanted as u64 >= self.end;
            let upto = if is_last { bytes.len() } else { bytes.len().saturating_sub(OVERLAP) };
            let mut at = usize::from(before > 0);
            while count < self.most {
                let anchored = if self.anchored { Anchored::Yes } else { Anchored::No };
                let input = Input::new(&bytes).range(at..).anchored(anchored);
                let Some(found) = self.regex.find(input).filter(|found| is_last || found.start() < upto) else { break };
                if base - before + found.start() as u64 > self.last_start {
                    return Ok(Some(count));
                }
                count += 1;
                at = found.end().max(found.start() + 1);
                if self.anchored || at > bytes.len() {
                    return Ok(Some(count));
                }
            }
            let next = base - before + upto.max(at.min(bytes.len())) as u64;
            if is_last || count >= self.most || self.anchored || next > self.last_start || next <= base {
                return Ok(Some(count));
            }
            base = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::scan::signature::{Expression, Place};

    fn count(place: &str, flags: &str, text: &str, bytes: &[u8]) -> u32 {
        let sub = RegexSub {
            sub: 1,
            trigger: Expression::Sub(0),
            place: Place::parse(place).unwrap(),
            global: flags.contains('g'),
            rolling: flags.contains('r'),
            encompass: flags.contains('e'),
            anchored: flags.contains('A'),
            text: text.to_owned(),
        };
        Expressions::default().count(7, &sub, &bytes.to_vec(), None, &mut || true).unwrap().unwrap()
    }

    #[test]
    fn matches_are_counted_where_they_may_begin() {
        let bytes = b"..ab..ab..ab";
        assert_eq!(count("*", "", "ab", bytes), 1);
        assert_eq!(count("*", "g", "ab", bytes), 3);
        assert_eq!(count("2", "g", "ab", bytes), 1);
        assert_eq!(count("3", "", "ab", bytes), 0);
        assert_eq!(count("3", "rg", "ab", bytes), 2);
        assert_eq!(count("1,3", "g", "ab", bytes), 1);
        assert_eq!(count("1,5", "g", "ab", bytes), 2);
        assert_eq!(count("1,6", "ge", "ab", bytes), 1);
        assert_eq!(count("EOF-2", "", "ab", bytes), 1);
        assert_eq!(count("*", "A", "ab", bytes), 0);
        assert_eq!(count("*", "A", "..ab", bytes), 1);
        assert_eq!(count("99", "", "ab", bytes), 0);
        assert_eq!(count("*", "g", "x*", b"aaa"), 4);
    }

    #[test]
    fn a_match_across_windows_is_found_once() {
        for at in [WINDOW - OVERLAP - 3, WINDOW - OVERLAP, WINDOW - 5, WINDOW, 3 * WINDOW - 2] {
            let mut bytes = vec![b'.'; 4 * WINDOW];
            bytes[at..at + 10].copy_from_slice(b"needle1234");
            assert_eq!(count("*", "g", "needle[0-9]+", &bytes), 1, "{at}");
            // Neither does a stretch begin or end where a window does.
            assert_eq!(count("*", "g", "(?:^|x)needle", &bytes), 0, "{at}");
            assert_eq!(count("*", "g", r"\.{5}\z", &bytes), 1);
        }
    }

    #[test]
    fn a_hunt_ends_when_its_time_is_over() {
        let sub = RegexSub {
            sub: 1,
            trigger: Expression::Sub(0),
            place: Place::default(),
            global: true,
            rolling: false,
            encompass: false,
            anchored: false,
            text: "never".to_owned(),
        };
        let mut looks = 0;
        let mut goes_on = || {
            looks += 1;
            looks < 3
        };
        let bytes = vec![0; 9 * WINDOW];
        assert_eq!(Expressions::default().count(7, &sub, &bytes, None, &mut goes_on).unwrap(), None);
    }
}
