//! Words, and runs of letters, of a text as a person reads it.

use super::confusable::{read as read_char, unmask};
use super::features::{About, Collector};

/// Most words of a text that are looked at.
const WORDS_MAX: usize = 1500;

/// Longest word in bytes; what is longer is cut.
const WORD_MAX: usize = 24;

/// Characters of a text whose runs of letters are looked at.
const LETTERS_MAX: usize = 1500;

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
    let (mut word, mut words) = (String::new(), 0);
    let mut letters = Vec::new();
    let mut hidden = false;
    for c in text.chars().chain([' ']) {
        let Some(c) = read_char(c) else {
            // Within a word it is there to part it.
            hidden |= !word.is_empty();
            continue;
        };
        if letters.len() < LETTERS_MAX && !(c.is_whitespace() && letters.last().is_none_or(|last| *last == ' ')) {
            letters.push(if c.is_whitespace() { ' ' } else { c });
        }
        if is_unspaced(c) {
            // Words do not part in this script: two characters say what a word says elsewhere.
            if word.chars().next_back().is_some_and(|last| !is_unspaced(last)) {
                end(&mut word, &mut words, word_about, out);
            }
            let last = word.chars().next_back();
            word.clear();
            word.extend(last);
            word.push(c);
            if last.is_some() && words < WORDS_MAX {
                words += 1;
                out.add(word_about, &word);
            }
            word = c.to_string();
        } else if is_of_word(c) {
            if word.chars().next_back().is_some_and(is_unspaced) {
                word.clear();
            }
            word.push(c);
        } else {
            end(&mut word, &mut words, word_about, out);
        }
        if words >= WORDS_MAX && letters.len() >= LETTERS_MAX {
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

/// A word is at its end.
fn end(word: &mut String, words: &mut usize, about: About<'_>, out: &mut Collector) {
    if !word.is_empty() && *words < WORDS_MAX && !word.chars().all(is_unspaced) {
        *words += 1;
        if unmask(word) {
            out.add(About::Trick, "letters of another script within words");
        }
        word.truncate(word.floor_char_boundary(WORD_MAX));
        out.add(about, word);
    }
    word.clear();
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
