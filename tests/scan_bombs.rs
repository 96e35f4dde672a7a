//! Things that are made to be much more than they seem: each scan ends at a limit that is named, or at the end of
//! the thing, in bounded memory.
//!
//! Each is scanned in a process of its own, so that its peak memory is its own. With `PILLARBOX_BOMBS` a folder is
//! named that keeps them, some four times as large, for `benches/scan/bombs.py`, which prints what the released program takes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[path = "support/lab.rs"]
mod lab;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lab::*;
use pillarbox::daemon::guard::work_time;
use pillarbox::filter::scan::unpack::Limits;
use pillarbox::flow::scan::{Bench, SeenFile, open_set};

/// The most that a scan may take of memory, in KiB: a dictionary of 8 MiB and what stands around it. The issue says
/// 32 MiB for all.
const GROWTH_MAX: u64 = 16 << 10;

/// What limits may be met: one of these, or none where the text says `none`.
type Wanted = &'static str;

fn bombs(scale: usize) -> Vec<(&'static str, Wanted, Vec<u8>)> {
    let zeros = gzip(&vec![0; 10 << 20]);
    let layered = {
        let mut inner = zip("0", &vec![0; 40 << 20]);
        for _ in 0..5 {
            inner = archive(&(0..16).map(|_| ("lib.zip", inner.as_slice())).collect::<Vec<_>>());
        }
        inner
    };
    let nested = |mut inner: Vec<u8>, wrap: &dyn Fn(&[u8]) -> Vec<u8>| {
        for _ in 0..300 {
            inner = wrap(&inner);
        }
        inner
    };
    let spaces = (0..3).fold(vec![b' '; 280 << 20], |inner, _| zlib(&inner));
    let filters = "[/FlateDecode/FlateDecode/FlateDecode/ASCIIHexDecode]";
    let parts = "--q\r\n\r\nx\r\n".repeat(150_000 * scale);
    let head = "From: a@b.test\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\n";
    let script = base64_line(&[0; 300]);
    let zstd_frame = |descriptor: u8| [b"\x28\xB5\x2F\xFD\x00".as_slice(), &[descriptor], &[1, 0, 0]].concat();
    vec![
        ("gzip of zeros", "Ratio", zeros.clone()),
        ("gzip of zeros, a thousand times", "Ratio Bytes", zeros.repeat(1000)),
        ("gzip of nothing, many times", "none Time", gzip(b"").repeat(250_000 * scale)),
        ("zip in zip, sixteen each", "Ratio Bytes Files", layered),
        ("zip of one file listed 60,000 times", "Bytes Files", overlapping(&vec![0; 1 << 20], 60_000)),
        ("zip of many folders", "none Time", folders(250_000 * scale)),
        ("zip, 300 deep", "Depth", nested(eicar(), &|inner| zip("d.zip", inner))),
        ("gzip, 300 deep", "Depth", nested(eicar(), &gzip)),
        ("tar, 40 deep", "Depth", (0..40).fold(eicar(), |inner, _| tar("d.tar", &inner))),
        ("quoted-printable of soft breaks", "none", message("quoted-printable", &"=\r\n".repeat(2_000_000 * scale))),
        ("quoted-printable of letters", "none", message("quoted-printable", &"=3D".repeat(2_000_000 * scale))),
        ("a message of many parts", "Files", [head.as_bytes(), parts.as_bytes()].concat()),
        ("messages, 300 deep", "none Depth Files", nested(eicar(), &|inner| attached(inner))),
        ("bzip2 of zeros, a thousand times", "Ratio", bzip2(&vec![0; 40 << 20]).repeat(1000)),
        ("bzip2 of nothing, many times", "none Time", bzip2(b"").repeat(100_000 * scale)),
        ("xz with a dictionary of 3 GiB", "Memory", xz_with_dictionary(39)),
        ("xz, many times", "none Bytes Time", sample("xz.b64").repeat(75_000 * scale)),
        (
            "LZMA with a dictionary of 4 GiB",
            "Memory",
            [&[0x5D, 0, 0, 0xFF, 0xFF], [0xFF; 8].as_slice(), &[0; 99]].concat(),
        ),
        ("Zstandard with a window of 2 GiB", "Memory", zstd_frame(21 << 3)),
        ("Zstandard of one byte repeated", "Ratio Time", zstd_repeated(50_000 * scale)),
        ("Zstandard of frames to skip", "none Time", b"\x50\x2A\x4D\x18\0\0\0\0".repeat(750_000 * scale)),
        ("zip, LZMA with a dictionary of 4 GiB", "Memory", zip_of("a", &lzma_head(u32::MAX), 1 << 31, 14, 0)),
        ("7z, two packers in a row", "Memory", seven_zip_of_two()),
        ("PDF, Flate in Flate in Flate", "Ratio", pdf("[/FlateDecode/FlateDecode/FlateDecode]", &spaces)),
        ("PDF, much that comes to nothing", "Bytes", pdf(filters, &spaces)),
        ("PDF of 100,000 streams", "Files", pdf("/FlateDecode", &zlib(b"x")).repeat(100_000)),
        ("cabinet of 65,535 folders and files", "Files", cabinet()),
        ("cabinet of LZX in blocks of a byte", "none Time", cab_of_trees()),
        ("CD whose folders hold one another", "Files", looped_cd()),
        ("document whose streams are loops", "none Bytes Ratio Time", looped_document()),
        ("document with a macro of nothing", "Ratio Time", compound(&[("Module1", &macro_of_nothing())])),
        ("RTF of 100,000 objects", "Files", [b"{\\rt".as_slice(), &b"{\\objdata 01020304}".repeat(100_000)].concat()),
        ("HTML of 20,000 addresses", "Files", format!("<html>{}", format!("{script} ").repeat(20_000)).into_bytes()),
        (
            "text in base64, 12 deep",
            "none Files Bytes Time",
            (0..12).fold(eicar(), |inner, _| base64(&inner).into_bytes()),
        ),
    ]
}

#[test]
fn every_bomb_ends_at_a_limit_that_is_named_and_in_bounded_memory() {
    let kept = std::env::var_os("PILLARBOX_BOMBS").map(PathBuf::from);
    let made = tempfile::tempdir().unwrap();
    let folder = kept.as_deref().unwrap_or(made.path());
    fs::create_dir_all(folder).unwrap();
    let lab = eicar_lab();
    let mut failed = Vec::new();
    for (name, wanted, bytes) in bombs(if kept.is_some() { 4 } else { 1 }) {
        let path = folder.join(name.replace([' ', ','], "-"));
        fs::write(&path, &bytes).unwrap();
        drop(bytes);
        let (growth, limit, work) = scan_apart(&path, &lab.path());
        println!("{name}: {limit}, {growth} KiB, {work} ms");
        if growth > GROWTH_MAX || !wanted.split(' ').any(|wanted| limit == wanted) {
            failed.push(format!("{name}: {limit}, {growth} KiB; wanted {wanted}"));
        }
        if kept.is_none() {
            fs::remove_file(&path).unwrap();
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Scans in a process of its own: the memory it took in KiB, the limit, and its work in milliseconds.
fn scan_apart(path: &Path, set: &Path) -> (u64, String, u64) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "step", "--nocapture"])
        .env("PILLARBOX_BOMB", path)
        .env("PILLARBOX_BOMB_SET", set)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}: {text}", path.display());
    let line = text.lines().find_map(|line| line.strip_prefix("figure ")).unwrap();
    let fields: Vec<&str> = line.split(' ').collect();
    (fields[0].parse().unwrap(), fields[1].to_owned(), fields[2].parse().unwrap())
}

/// Not a test of its own: the step of the one above, in a process that it starts.
#[test]
fn step() {
    let Ok(path) = std::env::var("PILLARBOX_BOMB") else { return };
    // What a thread of the server's that works has (`daemon`), so that nothing nests deeper than that.
    let scan = move || {
        let set = open_set(Path::new(&std::env::var("PILLARBOX_BOMB_SET").unwrap())).unwrap();
        let file = SeenFile::new(fs::File::open(&path).unwrap()).unwrap();
        let (before, start) = (memory("VmRSS:"), work_time());
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let time = Duration::from_secs(8);
        let folder = std::env::temp_dir();
        let bench = Bench { set: Some(&set), limits: Limits::default(), time, clock: &work_time, folder: &folder };
        let report = bench.scan(&file, "bomb", false).unwrap().report;
        let limit = report.limit.map_or("none".to_owned(), |limit| format!("{limit:?}"));
        let work = work_time().saturating_sub(start).as_millis();
        println!("figure {} {limit} {work}", memory("VmHWM:").saturating_sub(before));
    };
    std::thread::Builder::new().stack_size(512 << 10).spawn(scan).unwrap().join().unwrap();
}

/// A figure of this process in KiB.
fn memory(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn attached(inner: &[u8]) -> Vec<u8> {
    let head = b"From: a@b.test\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n\r\n";
    [head.as_slice(), inner].concat()
}

/// A zip archive of several files.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut list) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let one = zip(name, content);
        let directory = one.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
        let mut entry = one[directory..directory + 46 + name.len()].to_vec();
        entry[42..46].copy_from_slice(&u32::try_from(out.len()).unwrap().to_le_bytes());
        list.extend(entry);
        out.extend_from_slice(&one[..directory]);
    }
    end_of_zip(&mut out, &list, files.len());
    out
}

/// One file that the directory lists many times.
fn overlapping(content: &[u8], times: usize) -> Vec<u8> {
    let one = zip("0", content);
    let directory = one.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    let list = one[directory..directory + 47].repeat(times);
    let mut out = one[..directory].to_vec();
    end_of_zip(&mut out, &list, times);
    out
}

/// A directory of folders only.
fn folders(count: usize) -> Vec<u8> {
    let one = zip_of("d/", b"", 0, 0, 0);
    let directory = one.windows(4).rposition(|window| window == b"PK\x01\x02").unwrap();
    let mut out = one[..directory].to_vec();
    end_of_zip(&mut out, &one[directory..directory + 48].repeat(count), count);
    out
}

fn end_of_zip(out: &mut Vec<u8>, list: &[u8], count: usize) {
    let start = u32::try_from(out.len()).unwrap();
    out.extend_from_slice(list);
    let count = u16::try_from(count).unwrap_or(0xFFFE).to_le_bytes();
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    out.extend([count, count].concat());
    out.extend_from_slice(&u32::try_from(list.len()).unwrap().to_le_bytes());
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
}

fn base64_line(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A file whose header asks for a dictionary of this code; its sum is that of the header.
fn xz_with_dictionary(code: u8) -> Vec<u8> {
    let mut bytes = sample("xz.b64");
    let length = (usize::from(bytes[12]) + 1) * 4;
    let header = &mut bytes[12..12 + length];
    let place = header.windows(2).position(|pair| pair == [0x21, 1]).unwrap() + 2;
    header[place] = code;
    let mut sum = flate2::Crc::new();
    sum.update(&header[..length - 4]);
    header[length - 4..].copy_from_slice(&sum.sum().to_le_bytes());
    bytes
}

/// Blocks that each say that one byte is there 128 KiB times.
fn zstd_repeated(blocks: usize) -> Vec<u8> {
    let block = |last: u32| (last | 1 << 1 | (128 << 10) << 3).to_le_bytes()[..3].to_vec();
    let mut out = b"\x28\xB5\x2F\xFD\x00\x58".to_vec();
    for _ in 0..blocks {
        out.extend([block(0), vec![b'a']].concat());
    }
    out.extend([block(1), vec![b'a']].concat());
    out
}

fn lzma_head(dictionary: u32) -> Vec<u8> {
    let mut head = vec![9, 20, 5, 0, 0x5D];
    head.extend_from_slice(&dictionary.to_le_bytes());
    head.resize(100, 0);
    head
}

/// A 7z archive whose only folder is LZMA in LZMA, each with a dictionary of 8 MiB.
fn seven_zip_of_two() -> Vec<u8> {
    let coder = b"\x23\x03\x01\x01\x05\x5D\x00\x00\x80\x00";
    let size = b"\xE0\x00\x00\x80"; // 8 MiB
    let mut header = b"\x01\x04\x06\x00\x01\x09\x40\x00\x07\x0B\x01\x00\x02".to_vec();
    header.extend([coder.as_slice(), coder, b"\x00\x01\x0C", size, size, b"\x00\x00\x05\x01\x00\x00"].concat());
    let mut out = b"7z\xBC\xAF\x27\x1C\x00\x04\0\0\0\0".to_vec();
    out.extend_from_slice(&64_u64.to_le_bytes());
    out.extend_from_slice(&(header.len() as u64).to_le_bytes());
    out.resize(32 + 64, 0);
    out.extend(header);
    out
}

/// As many folders as there can be, and as many files, of none of which there is any data.
fn cabinet() -> Vec<u8> {
    let mut out = b"MSCF\0\0\0\0".to_vec();
    out.resize(36, 0);
    let files = 36 + 65_535 * 8;
    out[16..20].copy_from_slice(&u32::try_from(files).unwrap().to_le_bytes());
    out[26..30].fill(0xFF);
    out.resize(files, 0);
    for _ in 0..65_535 {
        out.extend_from_slice(&[0; 16]);
        out.extend_from_slice(b"a\0");
    }
    out
}

/// Pieces of some 32 KiB that are full of trees, each good for a byte.
fn cab_of_trees() -> Vec<u8> {
    const BLOCKS: usize = 250;
    let piece = |is_first: bool| {
        let mut bits = LzxBits::default();
        if is_first {
            bits.put(0, 1);
        }
        for block in 0..BLOCKS {
            if is_first && block == 0 {
                bits.trees(1);
            } else {
                // The lengths stay as they are: each differs by nothing from the one before.
                bits.put(1, 3);
                bits.put(1, 24);
                for count in [256, 240, 249] {
                    bits.pretree([0, 18]);
                    bits.put(0, count);
                }
            }
            bits.put(u32::from(b'x'), 8);
        }
        (bits.bytes(), BLOCKS)
    };
    let pieces: Vec<_> = (0..280).map(|number| piece(number == 0)).collect();
    cab_of_lzx(15, &pieces, 280 * BLOCKS)
}

/// Every folder lists a thousand folders, itself among them.
fn looped_cd() -> Vec<u8> {
    let mut out = iso("A", b"x");
    out.resize(2048 * 4096, 0);
    for folder in 18..3000_usize {
        for entry in 0..60 {
            let block = u32::try_from(18 + (folder * 60 + entry) % 3000).unwrap();
            let mut record = [0_u8; 34];
            record[0] = 34;
            record[2..6].copy_from_slice(&block.to_le_bytes());
            record[10..14].copy_from_slice(&(1_u32 << 30).to_le_bytes());
            (record[25], record[32], record[33]) = (2, 1, b'F');
            let at = folder * 2048 + entry * 34;
            out[at..at + 34].copy_from_slice(&record);
        }
    }
    out
}

/// Each sector of the table is followed by itself.
fn looped_document() -> Vec<u8> {
    let streams: Vec<(&str, Vec<u8>)> = (0..100).map(|_| ("Stream", vec![b'x'; 5000])).collect();
    let mut out = compound(&streams.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect::<Vec<_>>());
    let tables = usize::try_from(u32::from_le_bytes(out[44..48].try_into().unwrap())).unwrap();
    let start = out.len() - tables * 512;
    for (sector, entry) in out[start..].chunks_exact_mut(4).enumerate() {
        entry.copy_from_slice(&u32::try_from(sector).unwrap().to_le_bytes());
    }
    // And every stream is as long as it can be.
    for at in (0..start - 128).step_by(128) {
        if out[at..].starts_with(b"S\0t\0r\0e\0a\0m\0") {
            out[at + 120..at + 124].copy_from_slice(&u32::MAX.to_le_bytes());
        }
    }
    out
}

/// Chunks that each say that one byte is there 4,096 times.
fn macro_of_nothing() -> Vec<u8> {
    let mut out = macros(b"Attribute VB_Name = \"a\"");
    out.extend(b"\x03\xB0\x02a\xFC\x0F".repeat(20_000));
    out
}
