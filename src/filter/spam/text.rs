//! Words, pairs of neighbours, and runs of letters, of a text as a person reads it.

use super::confusable::{read as read_char, unmask};
use super::features::{About, Collector};

/// Most words of a text that are looked at.
const WORDS_MAX: usize = 1500;

/// Words of a text whose pairs are looked at.
const PAIRS_MAX: usize = 600;

/// Longest word in bytes; what is longer is cut.
const WORD_MAX: usize = 24;

/// Characters of a text whose runs of letters are looked at.
const LETTERS_MAX: usize = 1000;

/// Length of such a run.
const RUN: usize = 4;

/// Most links of a text.
const LINKS_MAX: usize = 60;

/// Where a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    Subject,
    Body,
}

/// Reads a text.
pub(super) fn read(text: &str, place: Where, out: &mut Collector) {
    let (word_about, letters_about) = match place {
        Where::Subject => (About::SubjectWord, About::SubjectLetters),
        Where::Body => (About::Word, About::Letters),
    };
    let mut words = Words { out, about: word_about, word: String::new(), before: String::new(), count: 0 };
    let mut letters = Vec::new();
    let mut hidden = false;
    for c in text.chars().chain([' ']) {
        let Some(c) = read_char(c) else {
            // Within a word it is there to part it.
            hidden |= !words.word.is_empty();
            continue;
        };
        if letters.len() < LETTERS_MAX && !(c.is_whitespace() && letters.last().is_none_or(|last| *last == ' ')) {
            letters.push(if c.is_whitespace() { ' ' } else { c });
        }
        if is_unspaced(c) {
            words.unspaced(c);
        } else if is_of_word(c) {
            words.push(c);
        } else {
            words.end();
        }
        if words.count >= WORDS_MAX && letters.len() >= LETTERS_MAX {
            break;
        }
    }
    if hidden {
        out.add(About::Trick, "characters without width within words");
    }
    let mut run = String::new();
    for characters in letters.windows(RUN) {
        run.clear();
        run.extend(characters);
        out.add(letters_about, &run);
    }
}

/// Words of a text, as they end.
struct Words<'c> {
    out: &'c mut Collector,
    about: About<'c>,
    /// The one that is being read.
    word: String,
    before: String,
    count: usize,
}

impl Words<'_> {
    /// A word is at its end: it is told, and so is the pair with the one before it.
    fn end(&mut self) {
        if !self.word.is_empty() && self.count < WORDS_MAX && !self.word.chars().all(is_unspaced) {
            self.count += 1;
            if unmask(&mut self.word) {
                self.out.add(About::Trick, "letters of another script within words");
            }
            self.word.truncate(self.word.floor_char_boundary(WORD_MAX));
            self.out.add(self.about, &self.word);
            if !self.before.is_empty() && self.count <= PAIRS_MAX {
                self.out.add(self.about, &format!("{} {}", self.before, self.word));
            }
            std::mem::swap(&mut self.before, &mut self.word);
        }
        self.word.clear();
    }

    /// A character of a script that does not part words.
    fn unspaced(&mut self, c: char) {
        // Two characters say what a word says elsewhere.
        if self.word.chars().next_back().is_some_and(|last| !is_unspaced(last)) {
            self.end();
        }
        let last = self.word.chars().next_back();
        self.word.clear();
        if let Some(last) = last
            && self.count < WORDS_MAX
        {
            self.count += 1;
            self.word.extend([last, c]);
            self.out.add(self.about, &self.word);
            self.word.clear();
        }
        self.word.push(c);
    }

    /// Another character of a word.
    fn push(&mut self, c: char) {
        if self.word.chars().next_back().is_some_and(is_unspaced) {
            self.word.clear();
        }
        // A word without end is not gathered.
        if self.word.len() < 4 * WORD_MAX {
            self.word.push(c);
        }
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '\'' | '$' | '€' | '£' | '!' | '-' | '_')
}

/// Scripts that put no space between words: Thai, Lao, Khmer, kana, Han.
fn is_unspaced(c: char) -> bool {
    matches!(u32::from(c), 0xE00..=0xEFF | 0x1780..=0x17FF | 0x3040..=0x30FF | 0x3400..=0x9FFF | 0xF900..=0xFAFF | 0x20000..=0x2FFFF)
}

/// Reads where the links of a text lead.
pub(super) fn links(text: &str, out: &mut Collector) {
    for rest in text.split("://").skip(1).take(LINKS_MAX) {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '@' | ':' | '%' | '_')));
        let place = rest.get(..end.unwrap_or(rest.len()).min(rest.floor_char_boundary(200))).unwrap_or_default();
        if place.contains('@') {
            out.add(About::Trick, "a link with a name before its host");
        }
        let host = place.rsplit('@').next().unwrap_or_default().split(':').next().unwrap_or_default().to_lowercase();
        if host.is_empty() {
            continue;
        }
        if host.split('.').all(|label| label.bytes().all(|byte| byte.is_ascii_digit())) {
            out.add(About::Trick, "a link to a number");
        }
        // The host, and each domain that it is in.
        let mut domain = host.as_str();
        loop {
            out.add(About::Link, domain);
            match domain.split_once('.') {
                Some((_, above)) if !above.is_empty() => domain = above,
                _ => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::features::Features;

    fn said(text: &str) -> Vec<String> {
        let (_, words) =
            Features::with_words(format!("Content-Type: text/plain; charset=utf-8\r\n\r\n{text}").as_bytes());
        words.into_values().map(|saying| saying.what).collect()
    }

    #[test]
    fn words_are_read_as_a_person_reads_them() {
        let said = said("FREE! V\u{200B}iagra vіаgrа");
        for there in [
            "\"free!\"",
            "\"viagra\"",
            "characters without width within words",
            "letters of another script within words",
        ] {
            assert!(said.iter().any(|said| said == there), "{there}: {said:?}");
        }
    }

    #[test]
    fn scripts_without_spaces_show_pairs_of_characters() {
        let said = said("今日は good 天気");
        for there in ["\"今日\"", "\"日は\"", "\"good\"", "\"天気\""] {
            assert!(said.iter().any(|said| said == there), "{there}: {said:?}");
        }
        assert!(!said.iter().any(|said| said == "\"は天\""));
    }

    #[test]
    fn links_show_their_host_and_its_domains() {
        let said = said("see http://paypal.com@10.0.0.1:80/x and https://A.Shop.example/");
        for there in
            ["a link to 10.0.0.1", "a link to a number", "a link with a name before its host", "a link to shop.example"]
        {
            assert!(said.iter().any(|said| said == there), "{there}: {said:?}");
        }
    }
}
