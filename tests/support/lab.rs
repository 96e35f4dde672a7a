//! What tests of the scanner share: a folder with a compiled set, and things to scan, made here byte by byte.

#![allow(dead_code, reason = "each test binary uses its part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use pillarbox::filter::scan::set::Set;
use pillarbox::filter::scan::unpack::Limits;
use pillarbox::flow::scan::{Bench, Findings, compile, open_set};

/// Half of EICAR's test file; whole it would have scanners of this repository's users complain.
pub(crate) const EICAR: [&[u8]; 2] = [b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR", b"-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"];

pub(crate) fn eicar() -> Vec<u8> {
    EICAR.concat()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A folder with signature files and the set made of them.
pub(crate) struct Lab {
    /// Removed at the end.
    pub(crate) folder: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        lab.compile(files).unwrap();
        lab
    }

    pub(crate) fn compile(&self, files: &[(&str, &str)]) -> Result<(), compile::CompileError> {
        let paths: Vec<PathBuf> = files
            .iter()
            .map(|(name, text)| {
                let path = self.folder.path().join(name);
                fs::write(&path, text).unwrap();
                path
            })
            .collect();
        compile::compile(&paths, &self.path(), 7, &mut |_| {}).map(drop)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("signatures.set")
    }

    pub(crate) fn set(&self) -> Set {
        open_set(&self.path()).unwrap()
    }

    pub(crate) fn scan(&self, bytes: &[u8]) -> Findings {
        self.scan_within(bytes, Limits::default())
    }

    pub(crate) fn scan_within(&self, bytes: &[u8], limits: Limits) -> Findings {
        self.scan_by(&self.set(), bytes, limits)
    }

    pub(crate) fn scan_with(&self, set: &Set, bytes: &[u8]) -> Findings {
        self.scan_by(set, bytes, Limits::default())
    }

    pub(crate) fn scan_by(&self, set: &Set, bytes: &[u8], limits: Limits) -> Findings {
        let start = Instant::now();
        let clock = || start.elapsed();
        let time = Duration::from_secs(30);
        let bench = Bench { set: Some(set), limits, time, clock: &clock, folder: self.folder.path() };
        bench.scan(&bytes.to_vec(), "a file", false).unwrap()
    }

    pub(crate) fn found(&self, bytes: &[u8]) -> Option<String> {
        self.scan(bytes).signature
    }
}

pub(crate) fn eicar_lab() -> Lab {
    Lab::new(&[("e.ndb", &format!("Eicar:0:0:{}\n", hex(&eicar())))])
}

pub(crate) fn zip(name: &str, content: &[u8]) -> Vec<u8> {
    zip_of(name, &deflate(content), content.len(), 8, 0)
}

/// Packed as zip archives have it.
pub(crate) fn deflate(content: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(content).unwrap();
    packed.finish().unwrap()
}

/// A zip archive of one file that is packed already.
pub(crate) fn zip_of(name: &str, packed: &[u8], size: usize, method: u16, flags: u16) -> Vec<u8> {
    let common = |out: &mut Vec<u8>| {
        for field in [20, flags, method, 0, 0] {
            out.extend_from_slice(&field.to_le_bytes());
        }
        for field in [0, packed.len(), size] {
            out.extend_from_slice(&u32::try_from(field).unwrap().to_le_bytes());
        }
        out.extend_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
        out.extend_from_slice(&[0, 0]);
    };
    let mut out = b"PK\x03\x04".to_vec();
    common(&mut out);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(packed);
    let start = u32::try_from(out.len()).unwrap();
    out.extend_from_slice(b"PK\x01\x02\x14\0");
    common(&mut out);
    out.extend_from_slice(&[0; 14]);
    out.extend_from_slice(name.as_bytes());
    let length = u32::try_from(out.len()).unwrap() - start;
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out
}

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(content).unwrap();
    packed.finish().unwrap()
}

pub(crate) fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0_u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    block[156] = b'0';
    block[257..262].copy_from_slice(b"ustar");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512) + 1024, 0);
    block
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    let lines: Vec<&str> = text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join("\r\n")
}

pub(crate) fn message(encoding: &str, body: &str) -> Vec<u8> {
    let head =
        "From: ann@a.test\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\n";
    let part = "Content-Type: application/octet-stream; name=a.bin\r\nContent-Transfer-Encoding: ";
    format!("{head}--q\r\n\r\nhello\r\n--q\r\n{part}{encoding}\r\n\r\n{body}\r\n--q--\r\n").into_bytes()
}

pub(crate) fn pdf(filter: &str, stream: &[u8]) -> Vec<u8> {
    let mut out = format!("%PDF-1.4\n1 0 obj\n<</Length 9/Filter{filter}>>\nstream\n").into_bytes();
    out.extend_from_slice(stream);
    out.extend_from_slice(b"\nendstream\nendobj\n");
    out
}

pub(crate) fn zlib(content: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(content).unwrap();
    packed.finish().unwrap()
}

pub(crate) fn bzip2(content: &[u8]) -> Vec<u8> {
    let mut packed = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    packed.write_all(content).unwrap();
    packed.finish().unwrap()
}

pub(crate) fn sample(name: &str) -> Vec<u8> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scan").join(name)).unwrap();
    base64::engine::general_purpose::STANDARD.decode(text.split_whitespace().collect::<String>()).unwrap()
}

/// A compound file (MS-CFB) with these streams; those below 4,096 bytes are in its mini stream.
pub(crate) fn compound(streams: &[(&str, &[u8])]) -> Vec<u8> {
    const END: u32 = 0xFFFF_FFFE;
    let mut sectors: Vec<u8> = Vec::new();
    let mut table: Vec<u32> = Vec::new();
    let mut place = |bytes: &[u8]| -> u32 {
        if bytes.is_empty() {
            return END;
        }
        let first = u32::try_from(table.len()).unwrap();
        sectors.extend_from_slice(bytes);
        sectors.resize(sectors.len().next_multiple_of(512), 0);
        let last = u32::try_from(sectors.len() / 512).unwrap();
        table.extend((first + 1..last).chain([END]));
        first
    };
    let (mut mini, mut mini_table) = (Vec::new(), Vec::<u32>::new());
    let mut entries = Vec::new();
    for (name, bytes) in streams {
        let first = if bytes.len() < 4096 {
            let first = u32::try_from(mini_table.len()).unwrap();
            mini.extend_from_slice(bytes);
            mini.resize(mini.len().next_multiple_of(64), 0);
            let last = u32::try_from(mini.len() / 64).unwrap();
            mini_table.extend((first + 1..last).chain([END]));
            first
        } else {
            place(bytes)
        };
        entries.push((*name, 2, first, bytes.len()));
    }
    let mini_first = place(&mini);
    entries.insert(0, ("Root Entry", 5, mini_first, mini.len()));
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mini_table_first = if mini_table.is_empty() { END } else { place(&words(&mini_table)) };
    let mut directory = Vec::new();
    for (name, kind, first, size) in entries {
        let mut entry = vec![0_u8; 128];
        for (at, unit) in name.encode_utf16().enumerate() {
            entry[at * 2..at * 2 + 2].copy_from_slice(&unit.to_le_bytes());
        }
        entry[64] = u8::try_from(name.encode_utf16().count() * 2 + 2).unwrap();
        entry[66] = kind;
        entry[68..80].fill(0xFF);
        entry[116..120].copy_from_slice(&first.to_le_bytes());
        entry[120..124].copy_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
        directory.extend(entry);
    }
    let directory_first = place(&directory);
    // The table lists its own sectors too.
    let tables = (table.len() + 1).div_ceil(127);
    let table_first = u32::try_from(table.len()).unwrap();
    table.extend(std::iter::repeat_n(0xFFFF_FFFD, tables));
    table.resize(tables * 128, 0xFFFF_FFFF);
    let mut out = b"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1".to_vec();
    out.resize(24, 0);
    for half in [0x3E_u16, 3, 0xFFFE, 9, 6, 0, 0, 0] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    let counted = [0, u32::try_from(tables).unwrap(), directory_first, 0, 4096, mini_table_first, 1, END, 0];
    out.extend(words(&counted));
    let mut listed: Vec<u32> = (table_first..).take(tables).collect();
    listed.resize(109, 0xFFFF_FFFF);
    out.extend(words(&listed));
    out.extend(sectors);
    out.extend(words(&table));
    out
}

/// The compression of macros' source (MS-OVBA 2.4.1), with literal bytes only, behind what stands before it.
pub(crate) fn macros(source: &[u8]) -> Vec<u8> {
    let mut out = b"\x01\x16\x03 what a module begins with".to_vec();
    out.push(1);
    for chunk in source.chunks(3000) {
        let packed: Vec<u8> = chunk.chunks(8).flat_map(|eight| [&[0], eight].concat()).collect();
        out.extend_from_slice(&(0xB000 | u16::try_from(packed.len() - 1).unwrap()).to_le_bytes());
        out.extend(packed);
    }
    out
}

/// A CD's image (ISO 9660) with one file in a folder.
pub(crate) fn iso(name: &str, content: &[u8]) -> Vec<u8> {
    let record = |block: u32, size: usize, flags: u8, name: &[u8]| {
        let mut record = vec![0_u8; (33 + name.len()).next_multiple_of(2)];
        record[0] = u8::try_from(record.len()).unwrap();
        record[2..6].copy_from_slice(&block.to_le_bytes());
        record[10..14].copy_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
        record[25] = flags;
        record[32] = u8::try_from(name.len()).unwrap();
        record[33..33 + name.len()].copy_from_slice(name);
        record
    };
    let mut out = vec![0_u8; 16 * 2048];
    let block = |bytes: &[u8]| [bytes, &vec![0; bytes.len().next_multiple_of(2048) - bytes.len()]].concat();
    let mut descriptor = b"\x01CD001\x01".to_vec();
    descriptor.resize(156, 0);
    descriptor.extend(record(18, 2048, 2, b"\0"));
    out.extend(block(&descriptor));
    out.extend(block(b"\xFFCD001\x01"));
    let own = |at| [record(at, 2048, 2, b"\0"), record(18, 2048, 2, b"\x01")].concat();
    out.extend(block(&[own(18), record(19, 2048, 2, b"FOLDER")].concat()));
    out.extend(block(&[own(19), record(20, content.len(), 0, format!("{name};1").as_bytes())].concat()));
    out.extend(block(content));
    out
}

/// A RAR archive of the older kind with a stored file.
pub(crate) fn rar4(name: &str, content: &[u8], method: u8) -> Vec<u8> {
    let mut out = b"Rar!\x1A\x07\x00".to_vec();
    out.extend_from_slice(b"\0\0\x73\0\0\x0D\0\0\0\0\0\0\0");
    let size = u32::try_from(content.len()).unwrap().to_le_bytes();
    out.extend_from_slice(b"\0\0\x74\0\x80");
    out.extend_from_slice(&u16::try_from(32 + name.len()).unwrap().to_le_bytes());
    out.extend([size, size].concat());
    out.extend_from_slice(b"\x03\0\0\0\0\0\0\0\0\x14");
    out.push(method);
    out.extend_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(content);
    out.extend_from_slice(b"\0\0\x7B\0\x40\x07\0");
    out
}

/// A RAR archive of the newer kind with a stored file.
pub(crate) fn rar5(name: &str, content: &[u8]) -> Vec<u8> {
    let header = |body: &[u8]| [&[0; 4], [u8::try_from(body.len()).unwrap()].as_slice(), body].concat();
    let mut out = b"Rar!\x1A\x07\x01\x00".to_vec();
    out.extend(header(&[1, 0, 0]));
    let size = u8::try_from(content.len()).unwrap();
    assert!(size < 128, "its number is one byte");
    let file = [2, 2, size, 0, size, 0, 0, 0, u8::try_from(name.len()).unwrap()];
    out.extend(header(&[&file, name.as_bytes()].concat()));
    out.extend_from_slice(content);
    out.extend(header(&[5, 0, 0]));
    out
}

/// A Windows program with one section of code, and something behind it.
pub(crate) fn program(code: &[u8], behind: &[u8]) -> Vec<u8> {
    let mut out = b"MZ".to_vec();
    out.resize(60, 0);
    out.extend_from_slice(&64_u32.to_le_bytes());
    out.extend_from_slice(b"PE\0\0\x4C\x01\x01\0");
    out.extend_from_slice(&[0; 12]);
    out.extend_from_slice(&[224, 0, 2, 1, 0x0B, 1]);
    out.resize(64 + 24 + 16, 0);
    out.extend_from_slice(&0x1000_u32.to_le_bytes());
    out.resize(64 + 24 + 60, 0);
    out.extend_from_slice(&512_u32.to_le_bytes());
    out.resize(64 + 24 + 92, 0);
    out.extend_from_slice(&16_u32.to_le_bytes());
    out.resize(64 + 24 + 224, 0);
    out.extend_from_slice(b".text\0\0\0");
    for word in [code.len(), 0x1000, code.len(), 512, 0, 0, 0, 0x6000_0020] {
        out.extend_from_slice(&u32::try_from(word).unwrap().to_le_bytes());
    }
    out.resize(512, 0);
    out.extend_from_slice(code);
    out.extend_from_slice(behind);
    out
}

/// Base 85 as PDF has it.
pub(crate) fn base85(bytes: &[u8]) -> String {
    let mut out = String::new();
    for group in bytes.chunks(4) {
        let number = (0..4).fold(0_u32, |number, at| number << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        let digits =
            [4, 3, 2, 1, 0].map(|place| char::from(u8::try_from(number / 85_u32.pow(place) % 85).unwrap() + 33));
        out.extend(&digits[..=group.len()]);
    }
    out + "~>"
}

/// A cabinet (MS-CAB) with one file in a folder packed with LZX, with a window of 2 to the power of `window`.
pub(crate) fn cab_of_lzx(window: u16, blocks: &[(Vec<u8>, usize)], size: usize) -> Vec<u8> {
    let four = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
    let two = |number: usize| u16::try_from(number).unwrap().to_le_bytes();
    let (files, data) = (36 + 8, 36 + 8 + 16 + "eicar.com\0".len());
    let mut out = b"MSCF\0\0\0\0".to_vec();
    let length: usize = blocks.iter().map(|(packed, _)| 8 + packed.len()).sum();
    for number in [data + length, 0, files, 0] {
        out.extend(four(number));
    }
    out.extend_from_slice(&[3, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    out.extend(four(data));
    out.extend(two(blocks.len()));
    out.extend((3 | window << 8).to_le_bytes());
    out.extend(four(size));
    out.extend_from_slice(&[0; 12]);
    out.extend_from_slice(b"eicar.com\0");
    for (packed, size) in blocks {
        out.extend_from_slice(&[0; 4]);
        out.extend(two(packed.len()));
        out.extend(two(*size));
        out.extend_from_slice(packed);
    }
    out
}

/// Bits as LZX has them: the first is the highest of a word of 16, whose lower byte comes first.
#[derive(Default)]
pub(crate) struct LzxBits {
    bits: Vec<bool>,
}

impl LzxBits {
    pub(crate) fn put(&mut self, value: u32, count: u32) {
        self.bits.extend((0..count).rev().map(|bit| value.unbounded_shr(bit) & 1 == 1));
    }

    /// A pretree in which two codes have a bit each, the lower one 0.
    pub(crate) fn pretree(&mut self, codes: [u32; 2]) {
        for code in 0..20 {
            self.put(u32::from(codes.contains(&code)), 4);
        }
    }

    /// So many lengths of zero, after a pretree of the codes 17 and 18.
    pub(crate) fn zeros(&mut self, mut count: u32) {
        while count > 0 {
            // Never less than 20 are left over.
            let run = if count < 71 { count.min(51).min(count - if count > 51 { 20 } else { 0 }) } else { 51 };
            self.put(1, 1);
            self.put(run - 20, 5);
            count -= run;
        }
    }

    /// What stands before the literals of a block in which each byte has a code of eight bits, for a window of
    /// 32 KiB.
    pub(crate) fn trees(&mut self, size: usize) {
        self.put(1, 3);
        self.put(u32::try_from(size).unwrap(), 24);
        self.pretree([9, 18]);
        // From no length to eight, modulo 17.
        self.put(0, 256);
        self.pretree([17, 18]);
        self.zeros(240);
        self.pretree([17, 18]);
        self.zeros(249);
    }

    pub(crate) fn bytes(mut self) -> Vec<u8> {
        self.bits.resize(self.bits.len().next_multiple_of(16), false);
        let word = |bits: &[bool]| bits.iter().fold(0_u16, |word, &bit| word << 1 | u16::from(bit));
        self.bits.chunks(16).flat_map(|bits| word(bits).to_le_bytes()).collect()
    }
}

/// Packs with LZX, in one block of trees and as many pieces of 32 KiB as there are: bytes, and how many come out.
pub(crate) fn lzx_verbatim(content: &[u8]) -> Vec<(Vec<u8>, usize)> {
    let pieces = content.chunks(32 << 10).enumerate().map(|(number, piece)| {
        let mut bits = LzxBits::default();
        if number == 0 {
            bits.put(0, 1);
            bits.trees(content.len());
        }
        for &byte in piece {
            bits.put(byte.into(), 8);
        }
        (bits.bytes(), piece.len())
    });
    pieces.collect()
}

/// The same without packing, at most 32 KiB.
pub(crate) fn lzx_raw(content: &[u8]) -> Vec<(Vec<u8>, usize)> {
    let mut bits = LzxBits::default();
    bits.put(0b0011, 4);
    bits.put(u32::try_from(content.len()).unwrap(), 24);
    vec![([bits.bytes().as_slice(), &[1_u32.to_le_bytes(); 3].concat(), content].concat(), content.len())]
}
