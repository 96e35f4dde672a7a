//! What is wrong with a config file, in one sentence.
//!
//! The TOML reader knows the place and the fact; this turns them into words for somebody who has
//! never seen this program's source: no Rust type names, and the nearest right word for a wrong one.

use std::fmt;
use std::io;
use std::path::Path;

use super::board::Choice;
use super::budget::{Memory, mib};

/// Misspellings up to this many letters away get a suggestion.
const SUGGEST_DISTANCE: usize = 3;

/// A config file that cannot be used. `Display` is one sentence with file, line, key, found and
/// expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// The file cannot be read.
    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        let text = match error.kind() {
            io::ErrorKind::NotFound => "there is no such file".to_owned(),
            io::ErrorKind::PermissionDenied => "we may not read it".to_owned(),
            io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
            _ => error.to_string(),
        };
        Self(format!("{}: {text}", path.display()))
    }

    /// The reader stumbled.
    pub(super) fn from_toml(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().map_or(0, |span| span.start);
        let place = Place::of(text, at);
        let sentence = in_words(&place, error.message());
        Self(format!("{} line {}: {sentence}", path.display(), place.line))
    }

    /// Something about the file as a whole; `problem` is the rest of a sentence.
    pub(super) fn plain(path: &Path, problem: &str) -> Self {
        Self(format!("{}: {problem}", path.display()))
    }

    /// The settings take more memory than the board has for the server.
    pub(super) fn over_budget(path: &Path, choice: &Choice, memory: &Memory) -> Self {
        Self(format!(
            "{}: the settings may take {}, and the budget of board {} ({}) is {}: {memory}; lower `sessions-max` in [net], \
             `incoming-max` in [smtp] or `cache-bytes` in [store], or name another board with --board",
            path.display(),
            mib(memory.sum_kib()),
            choice.board.name,
            choice.reason,
            mib(memory.budget_kib),
        ))
    }

    /// A check failed on `key`, such as `tls.key` or `data`.
    pub(super) fn from_check(path: &Path, text: &str, key: &str, problem: &str) -> Self {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        let place = Place::find(text, section, name);
        // A problem that begins with a quoted value stands as a sentence of its own.
        let colon = if problem.starts_with('`') { ":" } else { "" };
        let line = place.as_ref().map_or_else(String::new, |place| format!(" line {}", place.line));
        let named = if section.is_empty() { format!("`{name}`") } else { format!("`{name}` in [{section}]") };
        let after = if line.is_empty() { ":" } else { "" };
        let line = if line.is_empty() { after.to_owned() } else { format!("{line}:") };
        Self(format!("{}{line} {named}{colon} {problem}", path.display()))
    }
}

/// Where in the file something stands.
#[derive(Debug, PartialEq, Eq)]
struct Place<'t> {
    line: usize,
    section: &'t str,
    key: &'t str,
}

impl<'t> Place<'t> {
    /// The line at byte `at`, the section it is in and the key it belongs to.
    fn of(text: &'t str, at: usize) -> Self {
        let mut place = Self { line: 1, section: "", key: "" };
        let mut start = 0;
        for (number, line) in text.split_inclusive('\n').enumerate() {
            if start > at {
                break;
            }
            place.line = number + 1;
            start += line.len();
            if let Some(section) = section_of(line) {
                (place.section, place.key) = (section, "");
            } else if let Some(key) = key_of(line) {
                place.key = key;
            }
        }
        place
    }

    fn find(text: &'t str, section: &str, key: &str) -> Option<Self> {
        let mut start = 0;
        text.split_inclusive('\n').find_map(|line| {
            let place = Self::of(text, start);
            start += line.len();
            (place.section == section && key_of(line) == Some(key)).then_some(place)
        })
    }

    /// The key with its section, such as `` `sessions-max` in [net] ``.
    fn named(&self) -> String {
        match (self.section, self.key) {
            ("", "") => String::new(),
            ("", key) => format!("`{key}`"),
            (section, "") => format!("[{section}]"),
            (section, key) => format!("`{key}` in [{section}]"),
        }
    }
}

fn section_of(line: &str) -> Option<&str> {
    line.trim().strip_prefix('[')?.split_once(']').map(|(name, _)| name.trim())
}

fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (!key.is_empty() && key.bytes().all(plain)).then_some(key)
}

fn in_words(place: &Place<'_>, message: &str) -> String {
    let message = message.lines().collect::<Vec<_>>().join("; ");
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return unknown_field(place, rest);
    }
    let named = place.named();
    let about = if named.is_empty() { String::new() } else { format!("{named}: ") };
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let mut words = quoted(rest);
        let found = words.next().unwrap_or_default();
        return format!("{about}found `{found}`, expected {}", listed(&words.collect::<Vec<_>>(), "or"));
    }
    for start in ["invalid type: ", "invalid value: "] {
        if let Some((found, expected)) = message.strip_prefix(start).and_then(|rest| rest.split_once(", expected ")) {
            return format!("{about}found {}, expected {}", found_in_words(found), expected_in_words(expected));
        }
    }
    format!("{about}{message}")
}

fn unknown_field(place: &Place<'_>, rest: &str) -> String {
    let mut words = quoted(rest);
    let found = words.next().unwrap_or_default();
    let known: Vec<&str> = words.collect();
    let nearest = known.iter().map(|word| (distance(found, word), *word)).min();
    let suggestion = nearest.filter(|(distance, _)| *distance <= SUGGEST_DISTANCE.min(found.len() / 2));
    let fact = if place.section.is_empty() || place.section == found {
        format!("there is no section or setting `{found}`")
    } else {
        format!("`{found}` is not a setting of [{}]", place.section)
    };
    match suggestion {
        Some((_, word)) => format!("{fact}; did you mean `{word}`?"),
        None if known.is_empty() => fact,
        None => format!("{fact}; it has {}", listed(&known, "and")),
    }
}

/// The words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn listed(words: &[&str], last: &str) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((end, start)) if !start.is_empty() => format!("{} {last} {end}", start.join(", ")),
        _ => quoted.concat(),
    }
}

fn found_in_words(found: &str) -> String {
    let (kind, value) = found.split_once(' ').unwrap_or((found, ""));
    match kind {
        "string" => format!("text {value}"),
        "integer" => format!("the number {value}"),
        "floating" => format!("the number {}", value.trim_start_matches("point ")),
        "boolean" => value.to_owned(),
        "sequence" => "a list".to_owned(),
        "map" => "a section".to_owned(),
        _ => found.to_owned(),
    }
}

fn expected_in_words(expected: &str) -> String {
    let whole = |max: u64| format!("a whole number from 0 to {max}");
    match expected {
        "u8" => whole(u8::MAX.into()),
        "u16" => whole(u16::MAX.into()),
        "u32" => whole(u32::MAX.into()),
        "u64" | "usize" => "a whole number from 0".to_owned(),
        "i64" | "i32" => "a whole number".to_owned(),
        "a string" | "path string" | "string" => "text in quotes".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list in [brackets]".to_owned(),
        text if text.starts_with("struct ") => "a section".to_owned(),
        text => text.to_owned(),
    }
}

/// How many letters must be added, removed or changed to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, a) in one.bytes().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, b) in row.iter_mut().skip(1).zip(other.bytes()) {
            let changed = diagonal + usize::from(a != b);
            diagonal = *cell;
            *cell = changed.min(diagonal + 1).min(left + 1);
            left = *cell;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn distances_count_letters() {
        assert_eq!((distance("", "abc"), distance("abc", "abc"), distance("kitten", "sitting")), (3, 0, 3));
        assert_eq!((distance("byts", "bytes"), distance("smpt", "smtp")), (1, 2));
    }

    #[test]
    fn a_place_knows_its_section_and_key() {
        let text = "a = 1\n[one]\nb = [\n  2,\n]\n";
        assert_eq!(Place::of(text, 0), Place { line: 1, section: "", key: "a" });
        assert_eq!(Place::of(text, text.find('2').unwrap()), Place { line: 4, section: "one", key: "b" });
        assert_eq!(Place::find(text, "one", "b").unwrap().line, 3);
        assert_eq!(Place::find(text, "", "b"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_one_line_of_error_or_none(text in "[\\[\\]a-z=\"'\\n#., 0-9-]{0,60}") {
            if let Err(error) = toml::from_str::<toml::Table>(&text) {
                let sentence = ConfigError::from_toml(Path::new("x"), &text, &error).to_string();
                prop_assert!(!sentence.contains('\n'), "{}", sentence);
            }
        }
    }
}
