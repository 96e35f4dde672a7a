//! Grams: runs of a few characters, by which it is told that a text is *not* in another.
//!
//! A text that stands in another brings all its grams along. So a message whose grams are known
//! (as places in a [`super::Sheet`]) need not be read when one gram of what is looked for is not
//! among them. Grams are of the characters that [`super::Finder`] compares, so case and accents do
//! not matter here either: three and four characters in a row, and two where they are of a script
//! that writes words with so few.

use super::each_folded;

/// Places that grams are thrown into. A power of two.
pub const ROWS: u16 = 8192;

/// Characters of a text looked for whose grams count; more would tell little more.
pub const LOOK_MAX: usize = 64;

/// From here on (CJK radicals, kana, ideographs) two characters may be a word.
const DENSE_FROM: char = '\u{2e80}';

/// The last characters of a text that goes by.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    last: [char; 4],
    length: usize,
}

impl Window {
    /// Takes the next folded character and hands out the places of the grams that it ends.
    pub(super) fn push(&mut self, c: char, mut take: impl FnMut(u16)) {
        let [_, a, b, before] = self.last;
        self.last = [a, b, before, c];
        self.length = (self.length + 1).min(4);
        if self.length >= 4 {
            take(place(&self.last));
        }
        if self.length >= 3 {
            take(place(&[b, before, c]));
        }
        if self.length >= 2 && before >= DENSE_FROM && c >= DENSE_FROM {
            take(place(&[before, c]));
        }
    }

    /// Ends the text: no gram reaches into the next.
    pub(super) fn clear(&mut self) {
        self.length = 0;
    }
}

/// Where a gram is thrown. Sheets on disk depend on it: another function is another
/// [`super::SHEET_VERSION`].
fn place(gram: &[char]) -> u16 {
    let mixed = gram.iter().fold(gram.len() as u64, |hash, &c| {
        (hash.rotate_left(5) ^ u64::from(u32::from(c))).wrapping_mul(0x517c_c1b7_2722_0a95)
    });
    // The upper bits of a product depend on all of its factor.
    u16::try_from(mixed >> (64 - ROWS.trailing_zeros())).unwrap_or(0)
}

/// The places of all grams of a text that is looked for, without doubles, the most telling first;
/// none when it is too short to have any.
pub fn places_of(needle: &str) -> Vec<u16> {
    let (mut window, mut taken) = (Window::default(), 0);
    let (mut long, mut short) = (Vec::new(), Vec::new());
    each_folded(needle, |c| {
        taken += 1;
        if taken <= LOOK_MAX {
            let mut first = window.length >= 3;
            window.push(c, |place| if std::mem::take(&mut first) { long.push(place) } else { short.push(place) });
        }
    });
    let mut places = Vec::new();
    for place in long.into_iter().chain(short) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_accents_make_no_difference_and_short_texts_have_no_grams() {
        assert_eq!(places_of("Grün"), places_of("gRU\u{308}N"));
        assert!(places_of("ab").is_empty());
        assert_eq!(places_of("abc").len(), 1);
        assert_eq!(places_of("abcd").len(), 3);
        assert_eq!(places_of("郵便").len(), 1);
        assert_eq!(places_of("aaaaaaaa").len(), 2);
        assert_eq!(places_of(&"abcdefghij".repeat(100)), places_of(&"abcdefghij".repeat(7)));
    }

    #[test]
    fn grams_spread_over_all_places() {
        let mut hit = vec![false; ROWS.into()];
        let letters: Vec<char> = ('a'..='z').collect();
        for &a in &letters {
            for &b in &letters {
                for &c in &letters {
                    hit[usize::from(place(&[a, b, c]))] = true;
                }
            }
        }
        // 17,576 grams at random would leave an eighth of the places empty.
        let filled = hit.iter().filter(|hit| **hit).count();
        assert!(filled > usize::from(ROWS) * 3 / 4, "{filled}");
    }
}
