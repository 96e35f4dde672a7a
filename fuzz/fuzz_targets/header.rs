//! Any bytes are a header: where the input is cut makes no difference, a subset and its opposite
//! make up the whole, and the empty line is always there.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::mail::header::{FieldReader, HeaderFilter, HeaderSearch};

const NAMES: [&str; 3] = ["from", "Subject", "x"];

fn filter(pieces: std::slice::Chunks<'_, u8>, except: bool) -> Vec<u8> {
    let mut filter = HeaderFilter::new(&NAMES, except);
    let mut out = Vec::new();
    for piece in pieces {
        filter.feed(piece, &mut out);
    }
    filter.finish(&mut out);
    out
}

fn fields(pieces: std::slice::Chunks<'_, u8>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let mut reader = FieldReader::new();
    for piece in pieces {
        reader.feed(piece, |name, body| found.push((name.to_vec(), body.to_vec())));
    }
    reader.finish(|name, body| found.push((name.to_vec(), body.to_vec())));
    found
}

fuzz_target!(|input: &[u8]| {
    let (size, header) = input.split_first().unwrap_or((&1, &[]));
    let pieces = || header.chunks(usize::from(*size).max(1));
    let whole = || header.chunks(header.len().max(1));
    let mut length = 0;
    for except in [false, true] {
        let out = filter(pieces(), except);
        assert_eq!(out, filter(whole(), except));
        assert!(out.ends_with(b"\r\n"));
        length += out.len();
    }
    // Two empty lines, and a newline where the last line had none.
    assert!(length <= header.len() + 6);
    assert_eq!(fields(pieces()), fields(whole()));
    let mut search = HeaderSearch::in_all("a");
    search.feed(header);
    search.end();
});
