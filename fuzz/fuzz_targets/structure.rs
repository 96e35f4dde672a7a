//! Any bytes are a message: its parts nest, nothing is left over, where the input is cut makes no
//! difference, and the record has its bound.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::mail::structure::{Part, RECORD_MAX, Section, Structure, Walker};
use pillarbox::protocol::imap::structure::{write_body, write_envelope};

fn walk(pieces: std::slice::Chunks<'_, u8>) -> Structure {
    let mut walker = Walker::new();
    for piece in pieces {
        walker.feed(piece);
    }
    walker.finish()
}

fn check(part: Part<'_>) {
    let end = |part: Part<'_>| part.whole().offset + part.whole().length;
    let mut free = part.body().offset;
    for child in part.children().chain(part.message()) {
        assert!(child.whole().offset >= free && end(child) <= end(part));
        free = end(child);
        check(child);
    }
}

fuzz_target!(|input: &[u8]| {
    let (size, message) = input.split_first().unwrap_or((&1, &[]));
    let structure = walk(message.chunks(usize::from(*size).max(1)));
    assert_eq!(structure, walk(message.chunks(message.len().max(1))));
    assert_eq!(structure.size(), message.len() as u64);
    if let Some(root) = structure.message() {
        check(root);
    }
    for section in [Section::Body, Section::Mime, Section::Header, Section::Text] {
        let _ = (structure.extent(&[1], section), structure.extent(&[2, 1, 1], section));
    }
    let _ = (structure.texts().count(), structure.headers().count());
    let mut out = Vec::new();
    write_envelope(&mut out, &structure);
    write_body(&mut out, &structure, true);
    assert!(out.starts_with(b"(") && out.ends_with(b")"));
    assert!(out.len() <= 16 * RECORD_MAX);
});
