//! What a header shows: words of its fields, their looks, which there are and in which order.
//!
//! Fields that whoever received, filed or collected the message wrote are passed over: they say
//! where it lay, not what it is.

use std::cell::RefCell;

use crate::mail::header::FieldReader;
use crate::mail::text::decode_words;

use super::features::{About, Collector};
use super::signs::Signs;
use super::text::{self, Where};

/// Most fields that are looked at.
const FIELDS_MAX: usize = 200;

/// Most words of one field.
const WORDS_MAX: usize = 40;

/// Characters of a field whose runs are looked at.
const SHAPE_MAX: usize = 120;

/// Beginnings of the names of fields that others than the sender write.
const PASSED_OVER: &[&str] = &[
    "x-spam",
    "x-bogosity",
    "x-virus",
    "x-amavis",
    "x-quarantine",
    "status",
    "x-status",
    "x-uid",
    "x-keywords",
    "x-mozilla",
    "x-imap",
    "x-evolution",
    "x-gmail",
    "x-original-to",
    "delivered-to",
    "envelope-to",
    "return-path",
    "lines",
    "content-length",
    "authentication-results",
    "received-spf",
    "x-received",
    "x-pstn",
    "x-folder",
    "replied",
    "forwarded",
    "xref",
    "path",
];

/// Fields whose words are looked at.
const WORDY: &[&str] = &[
    "from",
    "reply-to",
    "sender",
    "to",
    "cc",
    "x-mailer",
    "user-agent",
    "content-type",
    "mime-version",
    "x-priority",
    "x-msmail-priority",
    "importance",
    "list-id",
    "list-unsubscribe",
    "organization",
    "precedence",
    "content-transfer-encoding",
    "x-mimeole",
    "errors-to",
    "auto-submitted",
    "content-disposition",
];

/// Reads a header.
pub(super) fn read(header: &[u8], signs: &mut Signs, out: &mut Collector) {
    let fields = RefCell::new(Fields { out, signs, before: String::new(), count: 0, received: 0 });
    let mut reader = FieldReader::new();
    reader.feed(header, |name, body| fields.borrow_mut().field(name, body));
    reader.finish(|name, body| fields.borrow_mut().field(name, body));
    let Fields { out, received, .. } = fields.into_inner();
    out.add(About::Fields, &format!("received {received} times"));
}

struct Fields<'c> {
    out: &'c mut Collector,
    signs: &'c mut Signs,
    /// The name of the field before.
    before: String,
    count: usize,
    received: usize,
}

impl Fields<'_> {
    fn field(&mut self, name: &[u8], body: &[u8]) {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        self.count += 1;
        if self.count > FIELDS_MAX || PASSED_OVER.iter().any(|start| name.starts_with(start)) {
            return;
        }
        self.out.add(About::Fields, &name);
        self.out.add(About::Fields, &format!("{}, {name}", self.before));
        let body = String::from_utf8_lossy(body);
        self.signs.field(&name, &body);
        match name.as_str() {
            "subject" => text::read(&decode_words(&body), Where::Subject, self.out),
            "message-id" => {
                let id = body.trim();
                self.shape(&name, &shape(id));
                if let Some((_, host)) = id.rsplit_once('@') {
                    self.out.add(About::Field(&name), &host.trim_end_matches('>').to_lowercase());
                }
            }
            "date" => {
                self.out.add(About::Field(&name), body.trim().rsplit(' ').next().unwrap_or_default());
                self.shape(&name, &shape(&body));
            }
            "received" => {
                self.received += 1;
                // Who gave it, as it called itself and as it was seen; not who took it, nor when.
                let body = body.split_whitespace().collect::<Vec<_>>().join(" ");
                let from = body.split_once(" by ").map_or(&*body, |(from, _)| from).to_lowercase();
                if from.starts_with("from ") {
                    self.words(&name, &from);
                    self.runs(
                        &name,
                        &from.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect::<String>(),
                    );
                }
            }
            wordy if WORDY.contains(&wordy) => {
                let text = decode_words(&body).to_lowercase();
                self.words(&name, &text);
                self.runs(&name, &text);
            }
            _ => {}
        }
        self.before = name;
    }

    fn words(&mut self, name: &str, text: &str) {
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '-')).filter(|word| !word.is_empty());
        for word in words.take(WORDS_MAX) {
            self.out.add(About::Field(name), word.get(..word.floor_char_boundary(SHAPE_MAX)).unwrap_or(word));
        }
    }

    /// A whole look, and its runs.
    fn shape(&mut self, name: &str, shape: &str) {
        self.out.add(About::Shape(name), shape);
        self.runs(name, shape);
    }

    /// Runs of four characters.
    fn runs(&mut self, name: &str, text: &str) {
        let characters: Vec<char> = text.chars().take(SHAPE_MAX).collect();
        let mut run = String::new();
        for window in characters.windows(4) {
            run.clear();
            run.extend(window);
            self.out.add(About::Shape(name), &run);
        }
    }
}

/// The look of a text: runs of digits as one 9, of capitals as one A, of small letters as one a.
fn shape(text: &str) -> String {
    let mut shape = String::new();
    for c in text.chars().take(SHAPE_MAX) {
        let kind = match c {
            '0'..='9' => '9',
            'A'..='Z' => 'A',
            'a'..='z' => 'a',
            other => other,
        };
        if !shape.ends_with(kind) {
            shape.push(kind);
        }
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_short() {
        assert_eq!(shape("<20261123.AB12@mail.example>"), "<9.A9@a.a>");
        assert_eq!(shape("Mon, 23 Nov 2026 09:00:00 +0000"), "Aa, 9 Aa 9 9:9:9 +9");
    }
}
