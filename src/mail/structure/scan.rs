//! The small pieces that structured header fields are made of (RFC 5322 section 3.2).

/// Skips white space and comments off the front (RFC 5322 CFWS).
pub(super) fn skip_comments(mut text: &str) -> &str {
    loop {
        text = text.trim_start_matches([' ', '\t']);
        if !text.starts_with('(') {
            return text;
        }
        text = comment(text).1;
    }
}

/// Reads a comment off the front of `text`, which begins with its `(`: what is in it, without the
/// backslashes of quoted pairs, and what follows it. An open comment ends with the text.
pub(super) fn comment(text: &str) -> (String, &str) {
    let mut content = String::new();
    let mut depth = 0_usize;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '(' => {
                depth += 1;
                if depth == 1 {
                    continue;
                }
            }
            ')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    break;
                }
            }
            '\\' => {
                content.extend(characters.next());
                continue;
            }
            _ => {}
        }
        content.push(c);
    }
    (content, characters.as_str())
}

/// Reads a quoted string off the front of `text`, which begins with its `"`: what is in it, without
/// the backslashes of quoted pairs, and what follows it. An open string ends with the text.
pub(super) fn quoted(text: &str) -> (String, &str) {
    let mut content = String::new();
    let mut characters = text.chars();
    characters.next();
    while let Some(c) = characters.next() {
        match c {
            '"' => break,
            '\\' => content.extend(characters.next()),
            c => content.push(c),
        }
    }
    (content, characters.as_str())
}

/// Reads a token off the front (RFC 2045 section 5.1), empty when there is none.
pub(super) fn token(text: &str) -> (&str, &str) {
    let special = |c: char| c.is_ascii() && !c.is_ascii_graphic() || "()<>@,;:\\\"/[]?=".contains(c);
    text.split_at_checked(text.find(special).unwrap_or(text.len())).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_nest_and_strings_hold_quoted_pairs() {
        assert_eq!(skip_comments(" (a (b) \\) c) \t(d)e"), "e");
        assert_eq!(comment("(a (b) \\) c)d"), ("a (b) ) c".to_owned(), "d"));
        assert_eq!(quoted(r#""a\"b" c"#), ("a\"b".to_owned(), " c"));
        assert_eq!((comment("(open"), quoted("\"open")), (("open".to_owned(), ""), ("open".to_owned(), "")));
        assert_eq!(token("text/plain"), ("text", "/plain"));
        assert_eq!(token(""), ("", ""));
    }
}
