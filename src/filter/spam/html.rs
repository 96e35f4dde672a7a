//! What a reader of HTML sees, and the tricks that keep the rest from him.
//!
//! No parser of HTML: mail's HTML is broken in ways of its own, and what is wanted is its text, in the
//! order in which it stands, and the elements and attributes that it is made with.

use super::features::{About, Collector};

/// Most elements whose names and attributes are looked at.
const ELEMENTS_MAX: usize = 400;

/// Most attributes of an element.
const ATTRIBUTES_MAX: usize = 12;

/// Bytes of an attribute's value that are looked at.
const VALUE_MAX: usize = 32;

/// Longest reference to a character, `&` and `;` included.
const REFERENCE_MAX: usize = 12;

/// Elements that stand within a word and do not part it.
const INLINE: &[&str] =
    &["a", "b", "big", "em", "font", "i", "s", "small", "span", "strong", "sub", "sup", "tt", "u", "wbr"];

/// Elements without an end.
const VOID: &[&str] = &["area", "base", "br", "col", "hr", "img", "input", "link", "meta", "wbr"];

/// Elements whose content is not shown.
const UNSHOWN: &[&str] = &["script", "style", "title", "noframes", "template"];

/// Attributes whose values differ in each message: their names alone are looked at.
const OWN: &[&str] = &["href", "src", "title", "alt", "id", "class", "name", "content", "background"];

/// Tells whether a text that claims to be plain is HTML all the same.
pub(super) fn looks_like(text: &str) -> bool {
    let start = text.trim_start();
    let start = start.get(..start.floor_char_boundary(15)).unwrap_or_default().to_ascii_lowercase();
    ["<!doctype html", "<html", "<head", "<body"].iter().any(|mark| start.starts_with(mark))
}

/// Reads HTML; gives the text that is shown.
pub(super) fn read(html: &str, out: &mut Collector) -> String {
    let mut reader =
        Reader { out, shown: String::with_capacity(html.len() / 2), hiding: None, elements: 0, hid: false };
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let (text, tag) = rest.split_at(start);
        reader.text(text);
        rest = reader.tag(tag);
    }
    reader.text(rest);
    let Reader { out, shown, hid, .. } = reader;
    if hid {
        out.add(About::Trick, "text that is not shown");
    }
    shown
}

struct Reader<'c> {
    out: &'c mut Collector,
    shown: String,
    /// The element that hides its content, and how many of its name are open.
    hiding: Option<(String, usize)>,
    elements: usize,
    /// Text was hidden.
    hid: bool,
}

impl Reader<'_> {
    fn text(&mut self, text: &str) {
        match &self.hiding {
            None => dereference(text, &mut self.shown),
            Some((name, _)) => self.hid |= !UNSHOWN.contains(&name.as_str()) && !text.trim().is_empty(),
        }
    }

    /// Reads what `<` begins; gives what follows.
    fn tag<'h>(&mut self, html: &'h str) -> &'h str {
        if let Some(comment) = html.strip_prefix("<!--") {
            // An empty comment within a word parts it for a machine and not for a person.
            let end = comment.find("-->").map_or(comment.len(), |end| end + 3);
            if self.shown.chars().next_back().is_some_and(char::is_alphanumeric)
                && comment.get(end..).is_some_and(|after| after.starts_with(char::is_alphanumeric))
            {
                self.out.add(About::Trick, "comments within words");
            }
            return comment.get(end..).unwrap_or_default();
        }
        let inner = html.get(1..).unwrap_or_default();
        if !inner.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) {
            self.text("<");
            return inner;
        }
        let end = inner.find('>').unwrap_or(inner.len());
        let (tag, rest) = (inner.get(..end).unwrap_or_default(), inner.get(end + 1..).unwrap_or_default());
        let closing = tag.starts_with('/');
        let tag = tag.trim_start_matches('/');
        let length = tag.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(tag.len());
        let (name, attributes) = tag.split_at(length.min(16));
        let name = name.to_ascii_lowercase();
        if !INLINE.contains(&name.as_str()) && self.hiding.is_none() {
            self.shown.push(' ');
        }
        let hides = !closing && self.element(&name, attributes) && !VOID.contains(&name.as_str());
        match &mut self.hiding {
            Some((hiding, depth)) if *hiding == name => {
                *depth = if closing { *depth - 1 } else { *depth + 1 };
                if *depth == 0 {
                    self.hiding = None;
                }
            }
            None if hides => self.hiding = Some((name, 1)),
            _ => {}
        }
        rest
    }

    /// Looks at an element; tells whether it hides its content.
    fn element(&mut self, name: &str, attributes: &str) -> bool {
        let mut hides = UNSHOWN.contains(&name);
        self.elements += 1;
        let told = self.elements <= ELEMENTS_MAX;
        if told {
            self.out.add(About::Html, &format!("<{name}>"));
        }
        for (attribute, value) in Attributes(attributes).take(ATTRIBUTES_MAX) {
            let (attribute, value) = (attribute.to_ascii_lowercase(), value.to_ascii_lowercase());
            if attribute == "style" {
                hides |= hidden(&value);
                for declaration in value.split(';').take(ATTRIBUTES_MAX).filter(|_| told) {
                    let declaration: String = declaration.split_whitespace().collect();
                    let cut = declaration.floor_char_boundary(VALUE_MAX);
                    self.out.add(About::Html, declaration.get(..cut).unwrap_or_default());
                }
            } else if told && OWN.contains(&attribute.as_str()) {
                self.out.add(About::Html, &format!("<{name} {attribute}>"));
            } else if told {
                let value = value.get(..value.floor_char_boundary(VALUE_MAX)).unwrap_or_default();
                self.out.add(About::Html, &format!("<{name} {attribute}={value}>"));
            }
            hides |= attribute == "hidden";
        }
        hides
    }
}

/// Tells whether a style hides its element.
fn hidden(style: &str) -> bool {
    let style: String = style.split_whitespace().collect();
    style.split(';').any(|declaration| {
        let (name, value) = declaration.split_once(':').unwrap_or_default();
        let value = value.trim_end_matches("!important");
        match name {
            "display" => value == "none",
            "visibility" => value == "hidden",
            "opacity" => value.parse::<f32>().is_ok_and(|opacity| opacity < 0.1),
            "font-size" | "max-height" | "max-width" | "height" | "width" | "line-height" => {
                let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
                let least = if name == "font-size" { 2.0 } else { 0.5 };
                !value.ends_with("em") && number.parse::<f32>().is_ok_and(|size| size < least)
            }
            _ => false,
        }
    })
}

/// The attributes of a tag, with their values.
struct Attributes<'h>(&'h str);

impl<'h> Iterator for Attributes<'h> {
    type Item = (&'h str, &'h str);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '/' | '=' | '"' | '\''));
        let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '=' | '/')).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        if name.is_empty() {
            return None;
        }
        let after = rest.trim_start();
        let Some(value) = after.strip_prefix('=').map(str::trim_start) else {
            self.0 = rest;
            return Some((name, ""));
        };
        let (value, rest) = match value.strip_prefix(['"', '\'']) {
            Some(quoted) => {
                let quote = value.get(..1).unwrap_or("\"");
                quoted.split_once(quote).unwrap_or((quoted, ""))
            }
            None => value.split_at(value.find(char::is_whitespace).unwrap_or(value.len())),
        };
        self.0 = rest;
        Some((name, value))
    }
}

/// Adds text with its character references read (the ones that mail uses).
fn dereference(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        let (plain, reference) = rest.split_at(start);
        out.push_str(plain);
        let within = reference.get(..reference.floor_char_boundary(REFERENCE_MAX)).unwrap_or_default();
        let read = within.split_once(';').and_then(|(name, _)| Some((character(name.get(1..)?)?, name.len() + 1)));
        let (c, length) = read.unwrap_or(('&', 1));
        out.push(c);
        rest = reference.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
}

fn character(name: &str) -> Option<char> {
    Some(match name {
        "nbsp" => ' ',
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" | "rsquo" | "lsquo" => '\'',
        "shy" | "zwnj" | "zwj" => '\u{AD}',
        "euro" => '€',
        "pound" => '£',
        "auml" | "Auml" => 'ä',
        "ouml" | "Ouml" => 'ö',
        "uuml" | "Uuml" => 'ü',
        "szlig" => 'ß',
        "eacute" | "Eacute" => 'é',
        "egrave" => 'è',
        "agrave" => 'à',
        "ccedil" => 'ç',
        "ntilde" => 'ñ',
        _ => {
            let number = name.strip_prefix('#')?;
            let hexadecimal = number.strip_prefix(['x', 'X']);
            let number = hexadecimal.map_or_else(|| number.parse().ok(), |digits| u32::from_str_radix(digits, 16).ok());
            char::from_u32(number?)?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::features::Features;

    fn said(html: &str) -> Vec<String> {
        let (_, words) =
            Features::with_words(format!("Content-Type: text/html; charset=utf-8\r\n\r\n{html}").as_bytes());
        words.into_values().map(|saying| saying.what).collect()
    }

    #[test]
    fn only_what_a_reader_sees_is_text() {
        let said = said(concat!(
            "<style>p { color: red }</style><p>V<!-- x -->ia<b>gr</b>a &amp; c&#105;al&#x69;s</p>",
            "<div style=\"DISPLAY: none\">poison <div>deeper</div> more</div><span style='font-size:1px'>tiny</span>after"
        ));
        let is = |what: &str| said.iter().any(|said| said == what);
        for there in ["\"viagra\"", "\"cialis\"", "\"after\"", "text that is not shown", "comments within words"] {
            assert!(is(there), "{there}: {said:?}");
        }
        for not in ["\"poison\"", "\"deeper\"", "\"more\"", "\"tiny\"", "\"color\""] {
            assert!(!is(not), "{not}");
        }
    }

    #[test]
    fn elements_and_attributes_are_looked_at_without_what_is_each_messages_own() {
        let said = said("<FONT color='Red' size=2><a href=\"http://one.example/17\">x</a><br/></FONT>< 3");
        let is = |what: &str| said.iter().any(|said| said == what);
        for there in
            ["HTML <font>", "HTML <font color=red>", "HTML <font size=2>", "HTML <a href>", "HTML <br>", "\"x\""]
        {
            assert!(is(there), "{there}: {said:?}");
        }
    }

    #[test]
    fn html_that_ends_early_or_hides_for_ever_ends() {
        for html in
            ["<", "<!--", "<a href=\"", "&", "&#", "<div style=display:none>", "<script>", "</", "<a ='\"", "x<p"]
        {
            drop(said(html));
        }
    }
}
