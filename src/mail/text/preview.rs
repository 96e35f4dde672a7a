//! The first words of a text, as a list of messages shows them (RFC 8970).
//!
//! White space becomes single spaces; what a reader skips (quoted lines and who is quoted, the
//! signature, tags, scripts and styles) is left out. Made from the same bytes it is always the same.

/// Most characters of a preview (RFC 8970 section 3.1 wants no more than 256).
pub const PREVIEW_MAX: usize = 200;

/// Makes the preview of a text, of which the end may be missing.
pub fn preview(text: &str, html: bool) -> String {
    let mut words = Words::default();
    if html {
        strip(text, &mut words);
    } else {
        for line in text.lines() {
            if line == "-- " || words.is_full() {
                break;
            }
            if !line.starts_with('>') {
                words.push(line);
                words.gap = true;
            }
        }
    }
    words.text
}

/// A line of words with single spaces between them.
#[derive(Default)]
struct Words {
    text: String,
    count: usize,
    gap: bool,
}

impl Words {
    fn is_full(&self) -> bool {
        self.count >= PREVIEW_MAX
    }

    fn push(&mut self, text: &str) {
        for c in text.chars() {
            if self.is_full() {
                return;
            }
            // Fillers that senders hide after their own preview text take no room.
            let filler = c.is_control() || matches!(c, '\u{ad}' | '\u{34f}' | '\u{200b}'..='\u{200f}' | '\u{feff}');
            if c.is_whitespace() {
                self.gap = true;
            } else if !filler {
                if std::mem::take(&mut self.gap) && !self.text.is_empty() {
                    self.text.push(' ');
                    self.count += 1;
                    if self.is_full() {
                        self.text.pop();
                        return;
                    }
                }
                self.text.push(c);
                self.count += 1;
            }
        }
    }
}

/// Takes the text out of HTML.
fn strip(html: &str, words: &mut Words) {
    let mut rest = html;
    while let Some(start) = rest.find(['<', '&']) {
        let (text, from) = rest.split_at_checked(start).unwrap_or((rest, ""));
        words.push(text);
        if words.is_full() {
            return;
        }
        rest = if from.starts_with('&') { entity(from, words) } else { tag(from, words) };
    }
    words.push(rest);
}

/// Steps over a tag, a comment, or an element whose content nobody reads.
fn tag<'t>(from: &'t str, words: &mut Words) -> &'t str {
    let after = |text: &'t str, end: &str| text.find(end).and_then(|at| text.get(at + end.len()..)).unwrap_or("");
    if from.starts_with("<!--") {
        return after(from, "-->");
    }
    let name: String = from.chars().skip(1).skip_while(|c| *c == '/').take_while(char::is_ascii_alphanumeric).collect();
    if name.is_empty() && !from.starts_with("</") && !from.starts_with("<!") {
        words.push("<");
        return from.get(1..).unwrap_or("");
    }
    let inline =
        ["a", "b", "i", "u", "em", "span", "font", "strong"].iter().any(|known| name.eq_ignore_ascii_case(known));
    words.gap |= !inline;
    let behind = after(from, ">");
    let opens = !from.starts_with("</");
    let hidden = ["head", "script", "style", "title"].iter().find(|known| opens && name.eq_ignore_ascii_case(known));
    let Some(hidden) = hidden else { return behind };
    let end = format!("</{hidden}");
    // The closing tag in any case; ASCII letters keep their places in lower case.
    let found = behind.to_ascii_lowercase().find(&end).and_then(|at| behind.get(at..));
    found.map_or("", |close| after(close, ">"))
}

/// Undoes a character reference; one that is not known is text.
fn entity<'t>(from: &'t str, words: &mut Words) -> &'t str {
    let known = from.get(1..).and_then(|text| text.split_once(';')).filter(|(name, _)| name.len() <= 8);
    let Some((name, behind)) = known else {
        words.push("&");
        return from.get(1..).unwrap_or("");
    };
    let number = |digits: &str| match digits.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    };
    let c = match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some(' '),
        "auml" => Some('ä'),
        "ouml" => Some('ö'),
        "uuml" => Some('ü'),
        "szlig" => Some('ß'),
        "eacute" => Some('é'),
        "egrave" => Some('è'),
        "agrave" => Some('à'),
        "ccedil" => Some('ç'),
        "ndash" | "mdash" => Some('–'),
        "hellip" => Some('…'),
        "zwnj" | "zwj" | "shy" => Some('\u{200b}'),
        name => name.strip_prefix('#').and_then(number).and_then(char::from_u32),
    };
    match c {
        Some(c) => words.push(c.encode_utf8(&mut [0; 4])),
        None => words.push(from.get(..name.len() + 2).unwrap_or("")),
    }
    behind
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotes_and_signatures_are_passed_over() {
        let text = "Hi  Ann,\r\n> did you\r\n\r\nyes, I\tdid.\r\n-- \r\nBob\r\n";
        assert_eq!(preview(text, false), "Hi Ann, yes, I did.");
        assert_eq!(preview("", false), "");
    }

    #[test]
    fn html_is_shown_as_it_is_read() {
        let html = "<HTML><head><title>no</TITLE></head><style>p {}</style><body><!-- no --><p>A<b>B</b>C &amp; D</p>\
                    D&#228;&nbsp;&#x45;&bogus; 1 < 2<script>x</script>";
        assert_eq!(preview(html, true), "ABC & D Dä E&bogus; 1 < 2");
        assert_eq!(preview("<p>cut <styl", true), "cut");
        assert_eq!(preview("<style>never closed", true), "");
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(preview(&"word ".repeat(500), false).chars().count(), PREVIEW_MAX - 1);
        assert_eq!(preview(&"ä".repeat(500), true).chars().count(), PREVIEW_MAX);
    }

    proptest! {
        #[test]
        fn any_text_has_a_preview(text in "[<>&;#a-z!\\- \n/é]{0,80}", html in any::<bool>()) {
            let made = preview(&text, html);
            prop_assert!(made.chars().count() <= PREVIEW_MAX && !made.contains(['\r', '\n', '\0']));
        }
    }
}
