//! Scanning as it is used: signature files compiled into a set, and things examined with it.
//!
//! EICAR's test file is found in every container that can be made here; bombs end within their limits;
//! a set that was altered is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;
use pillarbox::filter::scan::set::Set;
use pillarbox::filter::scan::unpack::{Limit, Limits, NameFault};
use pillarbox::flow::scan::{Bench, Findings, compile, open_set};

/// Half of EICAR's test file; whole it would have scanners of this repository's users complain.
const EICAR: [&[u8]; 2] = [b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR", b"-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"];

fn eicar() -> Vec<u8> {
    EICAR.concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A folder with signature files and the set made of them.
struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    fn new(files: &[(&str, &str)]) -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        lab.compile(files).unwrap();
        lab
    }

    fn compile(&self, files: &[(&str, &str)]) -> Result<(), compile::CompileError> {
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

    fn path(&self) -> PathBuf {
        self.folder.path().join("signatures.set")
    }

    fn set(&self) -> Set {
        open_set(&self.path()).unwrap()
    }

    fn scan(&self, bytes: &[u8]) -> Findings {
        self.scan_within(bytes, Limits::default())
    }

    fn scan_within(&self, bytes: &[u8], limits: Limits) -> Findings {
        let (set, start) = (self.set(), Instant::now());
        let clock = || start.elapsed();
        let time = Duration::from_secs(30);
        let bench = Bench { set: Some(&set), limits, time, clock: &clock, folder: self.folder.path() };
        bench.scan(&bytes.to_vec(), "a file", false).unwrap()
    }

    fn found(&self, bytes: &[u8]) -> Option<String> {
        self.scan(bytes).signature
    }
}

fn eicar_lab() -> Lab {
    Lab::new(&[("e.ndb", &format!("Eicar:0:0:{}\n", hex(&eicar())))])
}

fn zip(name: &str, content: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(content).unwrap();
    zip_of(name, &packed.finish().unwrap(), content.len(), 8, 0)
}

/// A zip archive of one file that is packed already.
fn zip_of(name: &str, packed: &[u8], size: usize, method: u16, flags: u16) -> Vec<u8> {
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

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(content).unwrap();
    packed.finish().unwrap()
}

fn tar(name: &str, content: &[u8]) -> Vec<u8> {
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

fn base64(bytes: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    let lines: Vec<&str> = text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    lines.join("\r\n")
}

fn message(encoding: &str, body: &str) -> Vec<u8> {
    let head =
        "From: ann@a.test\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\n";
    let part = "Content-Type: application/octet-stream; name=a.bin\r\nContent-Transfer-Encoding: ";
    format!("{head}--q\r\n\r\nhello\r\n--q\r\n{part}{encoding}\r\n\r\n{body}\r\n--q--\r\n").into_bytes()
}

fn pdf(filter: &str, stream: &[u8]) -> Vec<u8> {
    let mut out = format!("%PDF-1.4\n1 0 obj\n<</Length 9/Filter{filter}>>\nstream\n").into_bytes();
    out.extend_from_slice(stream);
    out.extend_from_slice(b"\nendstream\nendobj\n");
    out
}

fn zlib(content: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(content).unwrap();
    packed.finish().unwrap()
}

fn bzip2(content: &[u8]) -> Vec<u8> {
    let mut packed = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    packed.write_all(content).unwrap();
    packed.finish().unwrap()
}

fn sample(name: &str) -> Vec<u8> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scan").join(name)).unwrap();
    base64::engine::general_purpose::STANDARD.decode(text.split_whitespace().collect::<String>()).unwrap()
}

#[test]
fn eicar_is_found_in_every_container() {
    let (lab, e) = (eicar_lab(), eicar());
    let zipped = zip("eicar.com", &e);
    let script =
        base64::engine::general_purpose::STANDARD.encode(zip("eicar.com", &[e.clone(), vec![b' '; 40]].concat()));
    let uu = {
        let mut text = String::from("Dear all,\n\nbegin 644 eicar.com\n");
        for line in e.chunks(45) {
            let digit = |bits: u32| char::from(u8::try_from(bits & 63).unwrap() + 32);
            text.push(digit(u32::try_from(line.len()).unwrap()));
            for group in line.chunks(3) {
                let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
                text.extend([18, 12, 6, 0].map(|shift| digit(bits >> shift)));
            }
            text.push('\n');
        }
        text + "`\nend\n"
    };
    let quoted = e.iter().fold(String::new(), |text, byte| text + &format!("={byte:02X}"));
    let mut tnef = vec![0x78, 0x9F, 0x3E, 0x22, 1, 0, 2, 0x0F, 0x80, 6, 0];
    tnef.extend_from_slice(&u32::try_from(e.len()).unwrap().to_le_bytes());
    tnef.extend_from_slice(&e);
    tnef.extend_from_slice(&[0, 0]);
    let outer = [
        b"From: b@b.test\r\nSubject: y\r\nContent-Type: message/rfc822\r\n\r\n".to_vec(),
        message("base64", &base64(&zipped)),
    ];
    let cases = [
        ("plain", e.clone()),
        ("zip", zipped.clone()),
        ("zip, stored", zip_of("eicar.com", &e, e.len(), 0, 0)),
        ("zip, bzip2", zip_of("eicar.com", &bzip2(&e), e.len(), 12, 0)),
        ("zip, zstd", zip_of("eicar.com", &zstd::encode_all(e.as_slice(), 3).unwrap(), e.len(), 93, 0)),
        ("zip without its directory", zipped[..zipped.len() - 60].to_vec()),
        ("zip in zip", zip("inner.zip", &zipped)),
        ("zip behind something", [b"MZ and some code".to_vec(), zipped.clone()].concat()),
        ("gzip", gzip(&e)),
        ("bzip2", bzip2(&e)),
        ("zstd", zstd::encode_all(e.as_slice(), 3).unwrap()),
        ("tar", tar("x/eicar.com", &e)),
        ("tar.gz", gzip(&tar("x/eicar.com", &e))),
        ("message, base64", message("base64", &base64(&e))),
        ("message, quoted-printable", message("quoted-printable", &quoted)),
        ("message that lies about its coding", message("7bit", &base64(&zipped))),
        ("message in a message", outer.concat()),
        ("uuencode", uu.into_bytes()),
        ("TNEF", tnef),
        ("PDF, Flate", pdf("/FlateDecode", &zlib(&e))),
        ("PDF, hex", pdf("/ASCIIHexDecode", hex(&e).as_bytes())),
        ("PDF, hidden name", pdf("/Fl#61teDecode", &zlib(&e))),
        ("HTML, data:", format!("<html><a href=\"data:application/zip;base64,{script}\">x</a>").into_bytes()),
        ("HTML, script", format!("<html><script>save(atob('{script}'))</script>").into_bytes()),
        ("RTF", format!("{{\\rtf1{{\\object{{\\*\\objdata 0105\r\n{}}}}}}}", hex(&zipped)).into_bytes()),
        ("7z, LZMA2", sample("lzma2.7z.b64")),
        ("7z, header packed", sample("lzma.7z.b64")),
        ("xz", sample("xz.b64")),
        ("LZMA", sample("lzma.b64")),
        ("zip, LZMA", sample("lzma.zip.b64")),
        ("cab, MSZIP", sample("mszip.cab.b64")),
        ("cab, stored", sample("plain.cab.b64")),
    ];
    for (what, bytes) in cases {
        let found = lab.found(&bytes);
        // What stands behind a program's code is looked for where its header says that it ends.
        let wanted = if what == "zip behind something" { None } else { Some("Eicar".to_owned()) };
        assert_eq!(found, wanted, "{what}");
    }
}

#[test]
fn what_is_encrypted_dangerous_or_unreadable_is_told() {
    let lab = eicar_lab();
    let report = lab.scan(&zip_of("secret.doc", b"0123456789ab", 1, 8, 1)).report;
    assert_eq!(report.encrypted.as_deref(), Some("secret.doc"));
    let report = lab.scan(&zip("invoice.pdf.exe", b"x")).report;
    assert_eq!(report.name, Some(("invoice.pdf.exe".to_owned(), NameFault::DoubleExtension)));
    let report = lab.scan(&zip_of("a.bin", b"0123456789ab", 1, 97, 0)).report;
    assert_eq!(report.opaque.as_deref(), Some("a.bin"));
    assert_eq!(lab.scan(&zip("a.txt", b"hello")), Findings::default());
}

#[test]
fn bombs_end_at_a_limit() {
    let lab = eicar_lab();
    let zeros = gzip(&vec![0; 40 << 20]);
    assert_eq!(lab.scan(&zeros).report.limit, Some(Limit::Ratio));
    assert_eq!(lab.scan(&zip("b.gz", &zeros)).report.limit, Some(Limit::Ratio));
    let bytes = Limits { bytes: 1 << 20, ratio: u64::MAX, ..Limits::default() };
    assert_eq!(lab.scan_within(&zeros, bytes).report.limit, Some(Limit::Bytes));
    let mut deep = eicar();
    for _ in 0..300 {
        deep = zip("d.zip", &deep);
    }
    assert_eq!(lab.scan(&deep).report.limit, Some(Limit::Depth));
    let quoted = message("quoted-printable", &"=\r\n".repeat(400_000));
    assert_eq!(lab.scan(&quoted).report.limit, None);
    let files = Limits { files: 20, ..Limits::default() };
    let many: Vec<u8> = (0..100).flat_map(|_| tar("f", b"x")[..1024].to_vec()).collect();
    assert_eq!(lab.scan_within(&many, files).report.limit, Some(Limit::Files));
}

#[test]
fn the_deepest_nesting_fits_a_blocking_threads_stack() {
    let (lab, mut deep) = (eicar_lab(), eicar());
    for level in 0..16 {
        deep = if level % 2 == 0 { zip("d.zip", &deep) } else { message("base64", &base64(&deep)) };
    }
    let scan = move || lab.found(&deep);
    let worker = std::thread::Builder::new().stack_size(512 << 10).spawn(scan).unwrap();
    assert_eq!(worker.join().unwrap().as_deref(), Some("Eicar"));
}

#[test]
fn patterns_are_found_wherever_they_are() {
    let rules = "\
        Jump:0:*:414243{1-5}444546\n\
        Far:0:*:67686970717273*a1a2a3a4\n\
        At:0:100:6d6e6f70\n\
        Tail:0:EOF-4:c1c2c3c4\n\
        Short:0:*:f7f8??f9\n\
        Pe:1:*:deadbeef\n";
    let logical = "\
        Both;Target:0;0&1;e1e2e3e4;e5e6e7e8\n\
        Twice;Target:0;0>1;d1d2d3d4\n\
        Letters;Target:0;0;6b69747479::i\n\
        Whole;Target:0;0;776f7264::f\n\
        Sized;Target:0,FileSize:0-50;0;b1b2b3b4\n";
    let lab = Lab::new(&[("r.ndb", rules), ("l.ldb", logical)]);
    let noise = |length: usize| vec![b'.'; length];
    let around = |before: usize, middle: &[u8], after: usize| [noise(before), middle.to_vec(), noise(after)].concat();
    // Also across the borders of the window that is read at one time.
    for before in [0, 1, 65_525, 65_530, 65_535, 65_536, 131_065, 200_000] {
        assert_eq!(lab.found(&around(before, b"ABC....DEF", 99)).as_deref(), Some("Jump"), "{before}");
        assert_eq!(lab.found(&around(before, b"\xF7\xF8!\xF9", 9)).as_deref(), Some("Short"), "{before}");
        assert_eq!(lab.found(&around(before, b"x KiTTy x", 9)).as_deref(), Some("Letters"), "{before}");
    }
    assert_eq!(lab.found(&around(7, b"ABC......DEF", 9)), None);
    let far = [around(5, b"ghipqrs", 90_000), around(0, b"\xA1\xA2\xA3\xA4", 3)].concat();
    assert_eq!(lab.found(&far).as_deref(), Some("Far"));
    let turned = [around(5, b"\xA1\xA2\xA3\xA4", 90_000), around(0, b"ghipqrs", 3)].concat();
    assert_eq!(lab.found(&turned), None);
    assert_eq!(lab.found(&around(100, b"mnop", 9)).as_deref(), Some("At"));
    assert_eq!(lab.found(&around(101, b"mnop", 9)), None);
    assert_eq!(lab.found(&around(70_000, b"\xC1\xC2\xC3\xC4", 0)).as_deref(), Some("Tail"));
    assert_eq!(lab.found(&around(70_000, b"\xC1\xC2\xC3\xC4", 1)), None);
    assert_eq!(lab.found(&around(9, b"\xDE\xAD\xBE\xEF", 9)), None, "this is no program");
    assert_eq!(lab.found(&around(9, b"\xE5\xE6\xE7\xE8 \xE1\xE2\xE3\xE4", 9)).as_deref(), Some("Both"));
    assert_eq!(lab.found(&around(9, b"\xE1\xE2\xE3\xE4", 9)), None);
    assert_eq!(lab.found(&around(9, b"\xD1\xD2\xD3\xD4\xD1\xD2\xD3\xD4", 9)).as_deref(), Some("Twice"));
    assert_eq!(lab.found(&around(9, b"\xD1\xD2\xD3\xD4", 9)), None);
    assert_eq!(lab.found(&around(9, b" word ", 9)).as_deref(), Some("Whole"));
    assert_eq!(lab.found(&around(9, b" words ", 9)), None);
    assert_eq!(lab.found(&around(9, b"\xB1\xB2\xB3\xB4", 9)).as_deref(), Some("Sized"));
    assert_eq!(lab.found(&around(99, b"\xB1\xB2\xB3\xB4", 9)), None);
}

#[test]
fn regular_expressions_count_when_their_trigger_was_found() {
    let rules = "\
        Expr;Target:0;0&1;7472696767657221;0/k[ei]y=[0-9a-f]{4,}\\x3b/i\n\
        Twice;Target:0;0&(1>1);6f74686572;0/<[a-z]+>/g\n\
        Placed;Target:0;0&1;706c61636564;10,5:0/a.c/\n\
        Not;Target:0;0&(1=0);6e6f742074686174;0/but this/\n\
        Around;Target:0;0&1;61616161;0/a(?=b)/\n";
    let lab = Lab::new(&[("x.ldb", rules)]);
    let far = |text: &str, at: usize| [text.as_bytes(), &vec![b'.'; at], b"KEY=00ff;"].concat();
    assert_eq!(lab.found(&far("trigger!", 5)).as_deref(), Some("Expr"));
    assert_eq!(lab.found(&far("trigger!", 900_000)).as_deref(), Some("Expr"));
    assert_eq!(lab.found(&far("no trigger", 5)), None);
    assert_eq!(lab.found(b"trigger! key=00f;"), None);
    assert_eq!(lab.found(b"other <a> and <b>").as_deref(), Some("Twice"));
    assert_eq!(lab.found(b"other <a>"), None);
    assert_eq!(lab.found(b"placed.......abc").as_deref(), Some("Placed"));
    assert_eq!(lab.found(b"placed.abc......"), None);
    assert_eq!(lab.found(b"not that").as_deref(), Some("Not"));
    assert_eq!(lab.found(b"not that, but this"), None);
    let origin = &lab.set().origins().unwrap()[0];
    assert_eq!((origin.taken, origin.left.as_slice()), (4, &[("regular expressions that look around".into(), 1)][..]));
}

#[test]
fn what_is_allowed_or_ignored_counts_for_nothing() {
    let e = eicar();
    let rule = format!("Eicar:0:*:{}\n", hex(&e));
    let md5 = "44d88612fea8a8f36de82e1278abb02f";
    let allowed = Lab::new(&[("e.ndb", &rule), ("ok.fp", &format!("{md5}:68:fine\n"))]);
    assert_eq!(allowed.found(&e), None);
    assert_eq!(allowed.found(&[e.clone(), b" ".to_vec()].concat()).as_deref(), Some("Eicar"));
    let ignored = Lab::new(&[("e.ndb", &rule), ("i.ign2", "Eicar\n")]);
    assert_eq!(ignored.found(&e), None);
    let hashes = Lab::new(&[("e.hdb", &format!("{md5}:68:ByMd5\n")), ("i.ign2", "Other\n")]);
    assert_eq!(hashes.found(&e).as_deref(), Some("ByMd5"));
    assert_eq!(hashes.set().header().counts.hashes, 1);
    let sized = Lab::new(&[("e.hdb", &format!("{md5}:69:Wrong\n{md5}:67:Wrong\n"))]);
    assert_eq!(sized.found(&e), None);
    let member = Lab::new(&[("c.cdb", "Zip.Named:CL_TYPE_ZIP:*:^evil:*:*:*:*:*:*\n")]);
    assert_eq!(member.found(&zip("evil.txt", b"x")).as_deref(), Some("Zip.Named"));
    assert_eq!(member.found(&zip("good.txt", b"x")), None);
}

#[test]
fn every_line_is_accounted_for() {
    let text = "Good:0:*:aabbccdd\nBad:0:*:zz\n# note\n\nWorse:0:VI:aabb\nBad2:0:*:yy\n";
    let lab = Lab::new(&[("mixed.ndb", text), ("x.pdb", "R:a\nR:b\n")]);
    let origins = lab.set().origins().unwrap();
    assert_eq!((origins[0].name.as_str(), origins[0].taken), ("mixed.ndb", 1));
    let left: Vec<(&str, u64)> = origins[0].left.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    assert_eq!(left, [("offsets in version information", 1), ("patterns that can't be read", 2)]);
    assert_eq!(origins[1].left, [("phishing addresses".to_owned(), 2)]);
    let long = format!("Long:0:*:{}\nGood:0:*:aabbccdd", "ab".repeat(70_000));
    let lab = Lab::new(&[("long.ndb", &long)]);
    assert_eq!(lab.set().origins().unwrap()[0].left, [("lines that are too long".to_owned(), 1)]);
}

#[test]
fn a_set_that_was_cut_or_altered_is_refused_and_the_old_one_stays() {
    let lab = eicar_lab();
    let whole = fs::read(lab.path()).unwrap();
    lab.set().verify().unwrap();
    for cut in [0, 7, 4095, whole.len() - 1] {
        fs::write(lab.path(), &whole[..cut]).unwrap();
        assert!(open_set(&lab.path()).is_err(), "{cut}");
    }
    let mut refused = 0;
    for at in (0..whole.len()).step_by(7) {
        let mut altered = whole.clone();
        altered[at] ^= 0x10;
        fs::write(lab.path(), &altered).unwrap();
        refused += u32::from(open_set(&lab.path()).and_then(|set| set.verify()).is_err());
    }
    // Of the first block only what it holds is covered.
    assert!(refused as usize * 7 >= whole.len() - 4096, "{refused}");
    fs::write(lab.path(), &whole).unwrap();
    assert!(lab.compile(&[("broken.cvd", "no container")]).is_err());
    assert_eq!(fs::read(lab.path()).unwrap(), whole);
}

#[test]
fn a_container_is_read_and_one_that_was_altered_is_refused() {
    let rules = format!("Eicar:0:*:{}\n", hex(&eicar()));
    let header = format!("{:<512}", "ClamAV-VDB:16 Apr 2020 07-58 -0400:7:1:63:x:x:me:1");
    let header = header.replace(":x:x:", &format!(":{}:x:", "0".repeat(32)))[..512].to_owned();
    let lab = eicar_lab();
    let path = lab.folder.path().join("test.cld");
    fs::write(&path, [header.as_bytes(), &gzip(&tar("test.ndb", rules.as_bytes()))].concat()).unwrap();
    compile::compile(std::slice::from_ref(&path), &lab.path(), 7, &mut |_| {}).unwrap();
    assert_eq!(lab.found(&eicar()).as_deref(), Some("Eicar"));
    let origin = &lab.set().origins().unwrap()[0];
    assert_eq!(origin.about, "version 7 of 16 Apr 2020 07-58 -0400, not signed");
    let official = lab.folder.path().join("test.cvd");
    fs::rename(&path, &official).unwrap();
    let refusal = compile::compile(&[official], &lab.path(), 7, &mut |_| {}).unwrap_err().to_string();
    assert!(refusal.contains("changed or cut"), "{refusal}");
}

#[test]
fn a_large_set_finds_what_it_has_and_nothing_else() {
    const COUNT: u64 = 50_000;
    let digest = |number: u64| {
        let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
        let mut bytes = [0_u8; 16];
        for byte in &mut bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = u8::try_from(state >> 56).unwrap();
        }
        bytes
    };
    let line = |number| format!("{}:{}:Name.{number}\n", hex(&digest(number)), number + 1);
    let text = (0..COUNT).fold(String::new(), |text, number| text + &line(number));
    let lab = Lab::new(&[("many.hdb", &text)]);
    let set = lab.set();
    let look = |number: u64, size: u64| {
        use pillarbox::filter::scan::signature::{DigestKind, HashRole};
        set.look_up(HashRole::File, DigestKind::Md5, &digest(number), size).unwrap()
    };
    for number in 0..COUNT {
        assert_eq!(look(number, number + 1).as_deref(), Some(format!("Name.{number}").as_str()));
    }
    assert!((0..1000).all(|number| look(number, number + 2).is_none()));
    // By the digest's beginning alone, as what was noted of old mail has it.
    let may_know = |number: u64, size: u64| {
        use pillarbox::filter::scan::signature::DigestKind;
        let beginning = *digest(number).first_chunk().unwrap();
        set.may_know(DigestKind::Md5, beginning, u32::try_from(size).unwrap()).unwrap()
    };
    assert!((0..COUNT).all(|number| may_know(number, number + 1) && !may_know(number, number + 2)));
    assert!(!(COUNT..COUNT + 100_000).any(|number| may_know(number, number + 1)));
    assert!((COUNT..COUNT + 500_000).all(|number| look(number, 1).is_none()));
}
