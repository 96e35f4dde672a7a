//! Finds words in streams of text without regard to case.
//!
//! Characters are compared by their simple case mappings and decomposed, after the manner of
//! i;unicode-casemap (RFC 5051, which RFC 9051 section 6.4.4 and I18NLEVEL=1 of RFC 5255 ask for): a
//! letter with an accent is the same letter followed by a combining accent.

use unicode_normalization::char::decompose_compatible;

/// Longest text that is searched for, in characters; a longer one is nowhere.
pub const NEEDLE_MAX: usize = 4096;

/// The character that stands for all its cases.
fn fold(c: char) -> char {
    if c.is_ascii() {
        return c.to_ascii_lowercase();
    }
    // By way of the upper case, so that both small sigmas meet; a mapping to several characters
    // (such as that of ß) is none.
    let upper = only(c.to_uppercase()).unwrap_or(c);
    only(upper.to_lowercase()).unwrap_or(upper)
}

/// Hands out the characters by which a text is compared.
pub fn each_folded(text: &str, mut take: impl FnMut(char)) {
    for c in text.chars() {
        let folded = fold(c);
        if folded.is_ascii() {
            take(folded);
        } else {
            decompose_compatible(folded, &mut take);
        }
    }
}

fn only(mut characters: impl Iterator<Item = char>) -> Option<char> {
    let first = characters.next()?;
    characters.next().is_none().then_some(first)
}

/// Looks for one text in a stream of others.
#[derive(Clone, Debug)]
pub struct Finder {
    needle: Vec<char>,
    /// For each length of a match, the longest shorter one that ends the same (Knuth, Morris, Pratt).
    /// So the characters that went by need not be kept.
    fallback: Vec<usize>,
    matched: usize,
    found: bool,
}

impl Finder {
    /// Looks for `needle`; the empty one is everywhere (RFC 9051 section 6.4.4).
    pub fn new(needle: &str) -> Self {
        let mut folded = Vec::new();
        each_folded(needle, |c| {
            if folded.len() <= NEEDLE_MAX {
                folded.push(c);
            }
        });
        let needle = folded;
        let mut fallback = vec![0; needle.len()];
        let mut matched = 0;
        for (index, &c) in needle.iter().enumerate().skip(1) {
            matched = advance(&needle, &fallback, matched, c);
            if let Some(entry) = fallback.get_mut(index) {
                *entry = matched;
            }
        }
        let found = needle.is_empty();
        Self { needle, fallback, matched: 0, found }
    }

    /// Takes the next piece of the present text.
    pub fn feed(&mut self, text: &str) {
        if self.found || self.needle.len() > NEEDLE_MAX {
            return;
        }
        let Self { needle, fallback, matched, found } = self;
        each_folded(text, |c| {
            if !*found {
                *matched = advance(needle, fallback, *matched, c);
                *found = *matched == needle.len();
            }
        });
    }

    /// Ends the present text: a match does not reach into the next.
    pub fn end(&mut self) {
        self.matched = 0;
    }

    /// Tells whether the text has been found so far.
    pub fn found(&self) -> bool {
        self.found
    }
}

/// How much of the needle matches after one more character.
fn advance(needle: &[char], fallback: &[usize], mut matched: usize, c: char) -> usize {
    loop {
        if needle.get(matched) == Some(&c) {
            return matched + 1;
        }
        let Some(shorter) = matched.checked_sub(1).and_then(|last| fallback.get(last)) else { return 0 };
        matched = *shorter;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn finds(needle: &str, pieces: &[&str]) -> bool {
        let mut finder = Finder::new(needle);
        for piece in pieces {
            finder.feed(piece);
        }
        finder.found()
    }

    #[test]
    fn a_text_is_found_whatever_its_case() {
        for (needle, text) in [
            ("über", "die ÜBERfahrt"),
            ("ΣΟΦΟΣ", "σοφος"),
            ("σοφος", "σοφός σοφος"),
            ("k", "\u{212a}"),
            ("ä", "a\u{308}"),
            ("a\u{308}b", "ÄB"),
            ("fi", "\u{fb01}"),
        ] {
            assert!(finds(needle, &[text]), "{needle}");
        }
        assert!(!finds("straße", &["strasse"]));
        assert!(finds("", &[]));
        assert!(!finds(&"a".repeat(NEEDLE_MAX + 1), &[&"a".repeat(NEEDLE_MAX + 2)]));
    }

    #[test]
    fn a_match_does_not_reach_from_one_text_into_the_next() {
        let mut finder = Finder::new("Grüße");
        finder.feed("grü");
        finder.end();
        finder.feed("ße");
        assert!(!finder.found());
        finder.feed(" GRÜßE");
        assert!(finder.found());
    }

    proptest! {
        #[test]
        fn the_finder_agrees_with_a_plain_search(text in "[abA]{0,30}", needle in "[abB]{0,5}", cut in 0_usize..30) {
            let (front, back) = text.split_at(cut.min(text.len()));
            let expected = text.to_lowercase().contains(&needle.to_lowercase());
            prop_assert_eq!(finds(&needle, &[front, back]), expected);
        }
    }

    #[test]
    fn all_cases_of_a_character_fold_to_one() {
        for c in '\0'..=char::MAX {
            assert_eq!(fold(fold(c)), fold(c), "{c:?}");
            assert_eq!(fold(only(c.to_uppercase()).unwrap_or(c)), fold(c), "{c:?}");
        }
    }
}
