//! Any bytes are text: where the input is cut makes no difference, and what comes out has a bound.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::mail::structure::{ADDRESSES_MAX, Extent, TextPart, TransferEncoding, addresses};
use pillarbox::mail::text::{CharsetDecoder, PartReader, SheetMaker, TransferDecoder, decode_words, places_of};

fn decode(encoding: TransferEncoding, pieces: std::slice::Chunks<'_, u8>) -> (Vec<u8>, bool) {
    let mut decoder = TransferDecoder::new(encoding);
    let mut out = Vec::new();
    for piece in pieces {
        decoder.decode(piece, &mut out);
    }
    decoder.finish(&mut out);
    (out, decoder.verdict().is_ok())
}

fn read(label: Option<&str>, pieces: std::slice::Chunks<'_, u8>) -> String {
    let mut decoder = CharsetDecoder::new(label);
    let mut out = String::new();
    for piece in pieces {
        decoder.decode(piece, false, &mut out);
    }
    decoder.decode(&[], true, &mut out);
    out
}

fuzz_target!(|input: &[u8]| {
    let (size, bytes) = input.split_first().unwrap_or((&1, &[]));
    let pieces = || bytes.chunks(usize::from(*size).max(1));
    let whole = || bytes.chunks(bytes.len().max(1));
    for encoding in [TransferEncoding::Base64, TransferEncoding::QuotedPrintable] {
        let (out, fine) = decode(encoding, pieces());
        assert!(out.len() <= bytes.len());
        assert_eq!((out, fine), decode(encoding, whole()));
        let charset = Some("gb18030".to_owned());
        let mut reader = PartReader::new(&TextPart { extent: Extent::default(), encoding, charset, html: false });
        let mut maker = SheetMaker::new(0);
        assert!(maker.begin());
        reader.feed(bytes, &mut |text| maker.feed(text));
        reader.finish(&mut |text| maker.feed(text));
        assert!(maker.end(0));
    }
    for label in [None, Some("iso-2022-jp"), Some("utf-16"), Some("big5"), Some("us-ascii")] {
        assert_eq!(read(label, pieces()), read(label, whole()));
    }
    let text = String::from_utf8_lossy(bytes);
    assert!(decode_words(&text).len() <= 3 * text.len());
    let _ = places_of(&text);
    assert!(addresses(&text).len() <= ADDRESSES_MAX + 2);
});
