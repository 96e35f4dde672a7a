//! Any line may stand in a signature file, any bytes at the head of a container, and anything beside it as its
//! detached signature: each is taken or refused with its reason, and what is taken can be used.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::filter::scan::signature::cvd::{CvdHeader, HEADER_SIZE};
use pillarbox::filter::scan::signature::{Body, Format, Place, Signature, detached, read, regex};

/// A file of each format that has lines.
const FILES: [&str; 10] =
    ["a.hdb", "a.mdb", "a.imp", "a.fp", "a.ign2", "a.ndb", "a.ldb", "a.cdb", "a.rules", "a.sha256"];

fuzz_target!(|input: &[u8]| {
    for line in input.split(|&byte| byte == b'\n') {
        for format in FILES.into_iter().filter_map(Format::of) {
            match read(format, line) {
                Ok(Some(Signature::Pattern(pattern))) => {
                    for (_, place, body) in &pattern.bodies {
                        let _ = place.holds(100, 1000, None);
                        // The compiler looks for each segment by its anchor.
                        assert!(body.segments.iter().all(|segment| segment.anchor().is_some()), "{line:?}");
                    }
                    for expression in &pattern.regexes {
                        assert!(regex::compile(&expression.text).is_ok(), "{line:?}");
                    }
                }
                Ok(Some(Signature::Member(member))) => drop(member.file.matches("invoice.pdf.exe")),
                _ => {}
            }
        }
        if let Ok(text) = std::str::from_utf8(line) {
            let _ = (Place::parse(text), Body::parse(text), regex::compile(text));
        }
    }
    let mut head = input.to_vec();
    head.resize(HEADER_SIZE, b' ');
    if let Some(header) = CvdHeader::parse(&head) {
        let _ = header.is_signed();
    }
    let found = std::str::from_utf8(input).map(detached::read).unwrap_or_default();
    for signature in found.into_iter().chain(detached::Detached::from_der(input)) {
        let digest = vec![0; signature.algorithm().output_len()];
        assert!(!signature.holds(&digest, &[], 1_800_000_000), "nobody vouches for it");
    }
});
