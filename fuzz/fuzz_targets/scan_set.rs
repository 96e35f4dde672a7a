//! Any signatures make a set, with which anything can be examined; a set that was altered is refused, or finds
//! something else, and no more than that.
//!
//! The first byte chooses the format, the second how the set is altered, the next three where. Lines follow up to
//! one that is `--`; what stands behind it is examined.

#![no_main]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pillarbox::filter::scan::unpack::Limits;
use pillarbox::flow::scan::{Bench, compile, open_set_within};

const FILES: [&str; 10] = ["a.hdb", "a.mdb", "a.imp", "a.fp", "a.ign2", "a.ndb", "a.ldb", "a.cdb", "a.rules", "a.cld"];

const LIMITS: Limits = Limits { depth: 4, files: 50, bytes: 1 << 20, ratio: 250, dictionary: 1 << 20 };

fn examine(set: &PathBuf, room: u64, object: &[u8]) -> bool {
    let Ok(set) = open_set_within(set, room) else { return false };
    // A clock that ends a scan which would be long.
    let looks = std::cell::Cell::new(0);
    let clock = || {
        looks.set(looks.get() + 1);
        Duration::from_millis(looks.get())
    };
    let folder = std::env::temp_dir();
    let bench =
        Bench { set: Some(&set), limits: LIMITS, time: Duration::from_secs(100), clock: &clock, folder: &folder };
    let _ = bench.scan(&object.to_vec(), "a", false);
    let _ = bench.scan_and_print(&object.to_vec());
    let _ = set.origins();
    set.verify().is_ok()
}

fuzz_target!(|input: &[u8]| {
    let Some((&[kind, alter, high, middle, low], rest)) = input.split_first_chunk() else { return };
    let parted = rest.windows(4).position(|window| window == b"\n--\n");
    let (lines, object) = parted.map_or((rest, [].as_slice()), |at| (&rest[..at], &rest[at + 4..]));
    let folder = std::env::temp_dir().join(format!("pillarbox-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("there is room for a folder");
    let source = folder.join(FILES[usize::from(kind) % FILES.len()]);
    fs::write(&source, lines).expect("there is room for a file");
    let set = folder.join("signatures.set");
    let made = compile::compile(std::slice::from_ref(&source), &set, 7, &mut |_| {});
    fs::remove_file(&source).expect("it was written");
    if made.is_err() {
        return;
    }
    assert!(examine(&set, u64::MAX, object), "what was written holds");
    assert!(examine(&set, 0, object), "also with little of it in memory");
    if alter != 0 {
        let mut bytes = fs::read(&set).expect("it was written");
        let at = usize::from_be_bytes([0, 0, 0, 0, 0, high, middle, low]) % bytes.len();
        if alter == 255 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= alter;
        }
        fs::write(&set, bytes).expect("there is room for a file");
        examine(&set, u64::from(high) << 10, object);
    }
});
