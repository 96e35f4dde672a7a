//! The part walker and the spelling of ENVELOPE and BODYSTRUCTURE over odd mail.
//!
//! `tests/corpus` holds small messages of our own, each with one thing wrong. A larger set of
//! messages is read from `mime/` or `mime.tar.zst` in the folder that `PILLARBOX_CORPORA` names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mail_parser::{MessageParser, MimeHeaders, PartType};
use pillarbox::mail::structure::{Part, Section, Structure, Walker};
use pillarbox::protocol::imap::structure::{write_body, write_envelope};
use proptest::prelude::*;

fn walk(message: &[u8]) -> Structure {
    let mut walker = Walker::new();
    for piece in message.chunks(1000) {
        walker.feed(piece);
    }
    walker.finish()
}

fn messages_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(messages_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "eml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Where the larger corpus is, if it is: unpacked already, or now into `room`.
fn larger_corpus(room: &Path) -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("PILLARBOX_CORPORA")?);
    let packed = folder.join("mime.tar.zst");
    if !packed.exists() {
        return Some(folder.join("mime")).filter(|folder| folder.is_dir());
    }
    let mut tar = Command::new("tar");
    tar.args(["-I", "zstd -d --long=27", "-xf"]).arg(packed).arg("-C").arg(room);
    tar.status().ok()?.success().then(|| room.to_owned())
}

/// A message of `tests/corpus`, in CRLF.
fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/corpus/{name}.eml"));
    let message = fs::read(path).unwrap();
    let lines: Vec<&[u8]> = message.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end).collect();
    lines.join(&b"\r\n"[..])
}

/// The tree as text, such as `multipart/mixed[text/plain message/rfc822[text/plain]]`.
fn tree(part: Part<'_>) -> String {
    let (kind, subtype) = part.media();
    let below: Vec<String> = part.children().chain(part.message()).map(tree).collect();
    let below = if below.is_empty() { String::new() } else { format!("[{}]", below.join(" ")) };
    format!("{kind}/{subtype}{below}").to_ascii_lowercase()
}

fn check_nesting(part: Part<'_>) {
    let end = |part: Part<'_>| part.whole().offset + part.whole().length;
    let mut free = part.body().offset;
    for child in part.children().chain(part.message()) {
        assert!(child.whole().offset >= free && end(child) <= end(part), "{child:?} in {part:?}");
        free = end(child);
        check_nesting(child);
    }
}

/// Reads what was written by the grammar of RFC 9051 section 9 and panics where it breaks it.
struct Reader<'t> {
    rest: &'t [u8],
}

impl Reader<'_> {
    fn check_envelope(message: &Structure) {
        let mut out = Vec::new();
        write_envelope(&mut out, message);
        let mut reader = Reader { rest: &out };
        reader.envelope();
        assert!(reader.rest.is_empty());
    }

    fn check_body(message: &Structure) {
        for extended in [false, true] {
            let mut out = Vec::new();
            write_body(&mut out, message, extended);
            let mut reader = Reader { rest: &out };
            reader.body(extended);
            assert!(reader.rest.is_empty());
        }
    }

    fn takes(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text.as_bytes());
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn take(&mut self, text: &str) {
        assert!(
            self.takes(text),
            "{text:?} wanted at {:?}",
            String::from_utf8_lossy(&self.rest[..self.rest.len().min(60)])
        );
    }

    fn number(&mut self) -> usize {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        std::str::from_utf8(number).unwrap().parse().unwrap()
    }

    fn string(&mut self) -> Vec<u8> {
        if self.takes("{") {
            let length = self.number();
            self.take("}\r\n");
            let (text, rest) = self.rest.split_at(length);
            assert!(!text.contains(&0));
            self.rest = rest;
            return text.to_vec();
        }
        self.take("\"");
        let mut text = Vec::new();
        loop {
            let (&byte, rest) = self.rest.split_first().expect("an open string");
            self.rest = rest;
            match byte {
                b'"' => return text,
                b'\\' => {
                    assert!(matches!(self.rest[0], b'"' | b'\\'));
                    text.push(self.rest[0]);
                    self.rest = &self.rest[1..];
                }
                byte => {
                    assert!(byte.is_ascii() && !matches!(byte, 0 | b'\r' | b'\n'));
                    text.push(byte);
                }
            }
        }
    }

    fn nstring(&mut self) -> Option<Vec<u8>> {
        (!self.takes("NIL")).then(|| self.string())
    }

    fn envelope(&mut self) {
        self.take("(");
        self.nstring();
        self.take(" ");
        self.nstring();
        for _ in 0..6 {
            self.take(" ");
            if self.takes("NIL") {
                continue;
            }
            self.take("(");
            let mut in_group = false;
            while !self.takes(")") {
                self.take("(");
                let _name = self.nstring();
                self.take(" ");
                let _route = self.nstring();
                self.take(" ");
                let local = self.nstring();
                self.take(" ");
                let host = self.nstring();
                self.take(")");
                if host.is_none() {
                    // With a name a group begins, without one it ends.
                    assert_eq!(in_group, local.is_none());
                    in_group = !in_group;
                }
            }
            assert!(!in_group);
        }
        for _ in 0..2 {
            self.take(" ");
            self.nstring();
        }
        self.take(")");
    }

    fn parameters(&mut self) {
        if self.takes("NIL") {
            return;
        }
        self.take("(");
        loop {
            assert!(!self.string().is_empty());
            self.take(" ");
            self.string();
            if !self.takes(" ") {
                break;
            }
        }
        self.take(")");
    }

    fn extension(&mut self) {
        self.take(" ");
        if !self.takes("NIL") {
            self.take("(");
            self.string();
            self.take(" ");
            self.parameters();
            self.take(")");
        }
        self.take(" ");
        if !self.takes("NIL") {
            self.take("(");
            self.string();
            while self.takes(" ") {
                self.string();
            }
            self.take(")");
        }
        self.take(" ");
        self.nstring();
    }

    fn body(&mut self, extended: bool) {
        self.take("(");
        if self.rest.starts_with(b"(") {
            while self.rest.starts_with(b"(") {
                self.body(extended);
            }
            self.take(" ");
            self.string();
            if extended {
                self.take(" ");
                self.parameters();
                self.extension();
            }
            self.take(")");
            return;
        }
        let kind = self.string().to_ascii_lowercase();
        self.take(" ");
        let subtype = self.string().to_ascii_lowercase();
        assert_ne!(kind, b"multipart");
        self.take(" ");
        self.parameters();
        for _ in 0..2 {
            self.take(" ");
            self.nstring();
        }
        self.take(" ");
        assert!(!self.string().is_empty());
        self.take(" ");
        self.number();
        if kind == b"message" && matches!(subtype.as_slice(), b"rfc822" | b"global") {
            self.take(" ");
            self.envelope();
            self.take(" ");
            self.body(extended);
            self.take(" ");
            self.number();
        } else if kind == b"text" {
            self.take(" ");
            self.number();
        }
        if extended {
            self.take(" ");
            self.nstring();
            self.extension();
        }
        self.take(")");
    }
}

fn check(message: &[u8]) -> Structure {
    let structure = walk(message);
    assert_eq!(structure.size(), message.len() as u64);
    check_nesting(structure.message().unwrap());
    Reader::check_envelope(&structure);
    Reader::check_body(&structure);
    structure
}

#[test]
fn every_odd_message_is_taken_apart_as_it_was_meant() {
    let cases = [
        ("plain", "text/plain"),
        ("names", "multipart/mixed[application/pdf image/gif]"),
        (
            "nested",
            "multipart/mixed[multipart/alternative[text/plain multipart/related[text/html image/png]] \
             message/rfc822[multipart/mixed[text/plain message/rfc822[text/plain]]]]",
        ),
        ("digest", "multipart/digest[message/rfc822[text/plain] message/rfc822[text/html] text/plain]"),
        ("boundary-prefix", "multipart/mixed[multipart/alternative[text/plain text/html] text/plain]"),
        ("boundary-same", "multipart/mixed[multipart/alternative[text/plain text/html] image/gif]"),
        ("no-end", "multipart/mixed[multipart/alternative[text/plain text/html]]"),
        ("no-header", "text/plain"),
        ("no-empty-line", "text/plain"),
        ("part-without-empty-line", "multipart/mixed[text/html text/plain text/plain]"),
        ("raw-8bit", "text/plain"),
        ("addresses", "text/plain"),
        ("report", "multipart/report[text/plain message/delivery-status text/rfc822-headers]"),
        ("no-boundary", "text/plain"),
        ("encoded-message", "multipart/mixed[application/octet-stream message/rfc822[text/plain]]"),
    ];
    for (name, expected) in cases {
        let structure = check(&fixture(name));
        assert_eq!(tree(structure.message().unwrap()), expected, "{name}");
    }
    let there = messages_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus"));
    assert_eq!(there.len(), cases.len(), "each message of the corpus stands in the table");
}

#[test]
fn odd_addresses_and_names_go_out_as_clients_read_them() {
    let spell = |name: &str, spell: fn(&mut Vec<u8>, &Structure)| {
        let mut out = Vec::new();
        spell(&mut out, &walk(&fixture(name)));
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        spell("addresses", write_envelope),
        "(NIL \"\" ((NIL NIL \"A Group\" NIL)(\"Ed Jones\" NIL \"joe\" \"where.test\")(NIL NIL \"john\" \"one.test\")(NIL NIL NIL NIL)) \
         ((NIL \"@relay.test,@other.test\" \"route\" \"x.test\")) ((\"Old Style (nested)\" NIL \"old\" \"x.test\")) \
         ((NIL NIL \"undisclosed-recipients\" NIL)(NIL NIL NIL NIL)) \
         ((NIL NIL \"root\" \"\")(NIL NIL \"quoted local\" \"x.test\")(NIL NIL \"postmaster\" \"[IPv6:2001:db8::1]\")(NIL NIL \"Smith\" \"\")\
         (\"John\" NIL \"js\" \"x.test\")(NIL NIL \"semi\" \"colon.test\")(NIL NIL \"\" \"\")) \
         ((\"broken\" NIL \"open\" \"x.test\")) NIL \"no brackets\")"
    );
    let names = spell("names", |out, structure| write_body(out, structure, true));
    assert!(names.contains("(\"name*\" \"utf-8'de'%C3%9Cbersicht%202026%20%28neu%29.pdf\")"), "{names}");
    assert!(names.contains("(\"attachment\" (\"filename\" \"plain name.pdf\"))"), "{names}");
    assert!(names.contains("(\"name\" \"no quotes.gif\")"), "{names}");
    assert!(names.contains("(\"boundary\" \"split-boundary\")"), "{names}");
    assert!(spell("raw-8bit", write_envelope).contains("{7}\r\nJürgen NIL \"j\" \"x.test\""));
}

/// What mail-parser makes of a message, in the words of [`tree`]; `None` where it gives up.
fn tree_of_parser(message: &mail_parser::Message<'_>, index: usize, default: &str) -> Option<String> {
    let part = message.parts.get(index)?;
    let media = part.content_type().map_or(default.to_owned(), |kind| {
        format!("{}/{}", kind.c_type, kind.c_subtype.as_deref().unwrap_or_default())
    });
    let below = match &part.body {
        PartType::Multipart(parts) => {
            let default = if media == "multipart/digest" { "message/rfc822" } else { "text/plain" };
            let parts: Option<Vec<String>> =
                parts.iter().map(|&part| tree_of_parser(message, part as usize, default)).collect();
            parts?.join(" ")
        }
        PartType::Message(message) => tree_of_parser(message, 0, "text/plain")?,
        _ => return Some(media.to_ascii_lowercase()),
    };
    Some(format!("{media}[{below}]").to_ascii_lowercase())
}

#[test]
fn mail_parser_sees_the_same_parts_in_sane_mail() {
    for name in ["plain", "names", "nested", "digest", "no-end", "report", "raw-8bit"] {
        let message = fixture(name);
        let parsed = MessageParser::default().parse(&message).unwrap();
        let theirs = tree_of_parser(&parsed, 0, "text/plain").unwrap();
        assert_eq!(tree(walk(&message).message().unwrap()), theirs, "{name}");
    }
}

#[test]
fn the_larger_corpus_is_taken_apart_and_spelled_by_the_grammar() {
    let unpacked = tempfile::tempdir().unwrap();
    let Some(folder) = larger_corpus(unpacked.path()) else {
        println!("skipped: PILLARBOX_CORPORA names no folder with mime/ or mime.tar.zst in it");
        return;
    };
    let (mut same, mut other) = (0, Vec::new());
    for path in messages_below(&folder) {
        let message = fs::read(&path).unwrap();
        let structure = check(&message);
        let ours = tree(structure.message().unwrap());
        // A debug assertion of mail-parser 0.11.9 fails on some of these.
        let theirs = std::panic::catch_unwind(|| {
            let parsed = MessageParser::default().parse(&message);
            parsed.and_then(|parsed| tree_of_parser(&parsed, 0, "text/plain"))
        });
        match theirs.unwrap_or_default() {
            Some(theirs) if theirs == ours => same += 1,
            theirs => {
                other.push(format!("{}\n  ours   {ours}\n  theirs {}", path.display(), theirs.unwrap_or_default()));
            }
        }
    }
    println!("{same} messages have the tree mail-parser finds, {} another:\n{}", other.len(), other.join("\n"));
    assert!(same > 100 && other.len() * 4 < same, "{same} the same, {} other", other.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_mail_its_structure_keeps_to_the_grammar(lines in prop::collection::vec(prop::sample::select(vec![
        "", "", "--a", "--a--", "--b", "--b--", "text", " folded", "junk \0 \u{e9}",
        "From: a@b, \"c\" <d@e>, g: h;", "To: é <x>, (", "Reply-To: :;:;,", "Subject: \"\\", "Date:", "Message-ID: \u{7f}",
        "Content-Type: multipart/mixed; boundary=a", "Content-Type: multipart/digest; boundary=b; x*=y''%e9",
        "Content-Type: message/rfc822", "Content-Type: text/html; =; *=; a*0*=b; \"", "Content-Type: /", "Content-Type: a/b; c=\"é\\\"\"",
        "Content-Transfer-Encoding: base64", "Content-Transfer-Encoding: \"é\" x", "Content-Language: en, , (x) é", "Content-Disposition: ;a=b",
        "Content-Disposition: inline; filename=\"a\tb\"", "Content-ID:", "Content-MD5: x y",
    ]), 0..30)) {
        let structure = check(lines.join("\r\n").as_bytes());
        prop_assert!(structure.extent(&[], Section::Body).is_some());
    }
}
