//! Scanning as it is used: signature files compiled into a set, and things examined with it.
//!
//! EICAR's test file is found in every container that can be made here; a set that was altered is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[path = "support/lab.rs"]
mod lab;

use std::fs;
use std::io::{BufWriter, Write as _};
use std::time::{Duration, Instant};

use base64::Engine as _;
use lab::*;
use pillarbox::filter::scan::signature::{DigestKind, HashRole};
use pillarbox::filter::scan::unpack::{Limit, Limits, NameFault};
use pillarbox::flow::scan::{Bench, Findings, compile, open_set, open_set_within};

/// EICAR's test file in everything that is looked into.
fn containers() -> Vec<(&'static str, Vec<u8>)> {
    let e = eicar();
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
    let xz = sample("xz.b64");
    let native = {
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
        let names = b"\x02\0eicar.com\0C:\\eicar.com\0\0\0\x03\0";
        let whole = [names.as_slice(), &size(b"eicar\0"), b"eicar\0", &size(&e), &e].concat();
        [size(&whole).as_slice(), &whole].concat()
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    // Two fields of which readers take the first or the last, and a boundary that is named twice.
    let twice = text(message("base64", &base64(&zipped)));
    let coding = "Content-Transfer-Encoding: ";
    let twice = twice.replace(coding, &format!("{coding}7bit\r\n{coding}")).into_bytes();
    let doubled = text(message("base64", &base64(&zipped)));
    let doubled = doubled.replace("boundary=q", "boundary=p; boundary=q").into_bytes();
    vec![
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
        ("uuencode", uu.clone().into_bytes()),
        ("TNEF", tnef.clone()),
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
        ("cab, LZX", cab_of_lzx(15, &lzx_verbatim(&e), e.len())),
        ("cab, LZX, not packed", cab_of_lzx(21, &lzx_raw(&e), e.len())),
        ("zip, Deflate64", sample("deflate64.zip.b64")),
        ("7z, Deflate64", sample("deflate64.7z.b64")),
        ("7z, Deflate", sample("deflate.7z.b64")),
        ("7z, bzip2", sample("bzip2.7z.b64")),
        ("7z, differences in LZMA2", sample("delta.7z.b64")),
        ("7z, program in LZMA2", sample("bcj.7z.b64")),
        ("zip, xz", zip_of("eicar.com", &xz, e.len(), 95, 0)),
        ("ISO 9660", iso("EICAR.COM", &e)),
        ("RAR 4, stored", rar4("eicar.com", &e, 0x30)),
        ("RAR 5, stored", rar5("eicar.com", &e)),
        ("doc, small stream", compound(&[("WordDocument", b"text"), ("Data", &e)])),
        ("doc, large stream", compound(&[("Data", &[e.clone(), vec![b' '; 5000]].concat())])),
        ("doc, embedded file", compound(&[("\u{1}Ole10Native", &native)])),
        ("xls in doc", compound(&[("Package", &compound(&[("Workbook", &[e.clone(), vec![0; 6000]].concat())]))])),
        ("docx", zip("word/embeddings/oleObject1.bin", &compound(&[("\u{1}Ole10Native", &native)]))),
        ("odt", zip("Basic/Standard/Module1.xml", &e)),
        ("PDF, ASCII85", pdf("/ASCII85Decode", base85(&e).as_bytes())),
        ("PDF, ASCII85 and Flate", pdf("[/ASCII85Decode /FlateDecode]", base85(&zlib(&e)).as_bytes())),
        ("program with an archive behind it", program(b"\xC3 code", &zipped)),
        ("message attached to a message, coded", message("base64", &base64(&message("base64", &base64(&zipped))))),
        ("uuencode in a message", message("x-uuencode", &uu)),
        ("uuencode in a message that does not say so", message("8bit", &uu)),
        ("message that says its coding twice", twice),
        ("message whose boundary comes twice", doubled),
        ("TNEF in a message", message("base64", &base64(&tnef))),
    ]
}

#[test]
fn eicar_is_found_in_every_container() {
    let lab = eicar_lab();
    for (what, bytes) in containers() {
        let found = lab.found(&bytes);
        // What stands behind a program's code is looked for where its header says that it ends.
        let wanted = if what == "zip behind something" { None } else { Some("Eicar".to_owned()) };
        assert_eq!(found, wanted, "{what}");
    }
}

#[test]
fn what_a_quick_scan_cannot_unpack_meets_a_limit_there() {
    let lab = eicar_lab();
    let quick = Limits { dictionary: 1 << 20, ..Limits::default() };
    let mut limited = 0;
    for (what, bytes) in containers() {
        let findings = lab.scan_within(&bytes, quick);
        let missed = findings.signature.is_none() && what != "zip behind something";
        assert!(!missed || findings.report.limit == Some(Limit::Memory), "{what}: {findings:?}");
        limited += u32::from(missed);
    }
    assert!(limited > 3, "{limited}");
}

/// What is looked into otherwise than those: what is packed too well, encrypted, or told by a signature of its own.
fn oddities() -> Vec<(&'static str, Vec<u8>)> {
    let source = [b"Attribute VB_Name = \"Module11\"\r\n".as_slice(), &eicar()].concat();
    let (e, encrypted) = (eicar(), b"<</Encrypt 2 0 R>> stream\r\nx\nendstream");
    vec![
        ("source of a macro", compound(&[("WordDocument", b"text"), ("Module1", &macros(&source))])),
        ("document that is encrypted", compound(&[("EncryptedPackage", b"text"), ("EncryptionInfo", b"x")])),
        ("program", program(b"\xE8\0\0\0\0\xC3", &e)),
        ("zip, encrypted", zip_of("a.doc", b"0123456789abcdef", 16, 8, 1)),
        ("zip, PPMd", zip_of("a.doc", b"0123456789abcdef", 16, 98, 0)),
        ("RAR, packed", rar4("a.doc", b"0123456789abcdef", 0x33)),
        ("cab, LZX in pieces", cab_of_lzx(15, &lzx_verbatim(&e.repeat(600)), e.len() * 600)),
        ("PDF, encrypted", [b"%PDF-1.4\n1 0 obj\n".as_slice(), encrypted].concat()),
        ("text", b"Dear all,\r\nsee https://a.test/x?y=z and UEsDBBQ= there.\r\n".to_vec()),
    ]
}

/// With `PILLARBOX_SEEDS` a folder is named that keeps all that is scanned here, for `fuzz/run`.
#[test]
fn seeds_are_kept_for_the_fuzzer() {
    let Some(folder) = std::env::var_os("PILLARBOX_SEEDS").map(std::path::PathBuf::from) else { return };
    fs::create_dir_all(&folder).unwrap();
    for (what, bytes) in containers().into_iter().chain(oddities()) {
        fs::write(folder.join(what.replace([' ', ',', ':'], "-")), &bytes).unwrap();
    }
}

#[test]
fn names_that_are_paths_links_and_sizes_that_lie_change_nothing() {
    let (lab, e) = (eicar_lab(), eicar());
    let stands = |bytes: &[u8]| assert_eq!(lab.found(bytes).as_deref(), Some("Eicar"));
    let before = fs::read_dir(lab.folder.path()).unwrap().count();
    for name in ["../../../../tmp/eicar.com", "/etc/passwd", "C:\\x\\..\\eicar.com", "nul\0.com", "a/../../b", ""] {
        stands(&zip(name, &e));
        stands(&tar(name, &e));
        stands(&rar4(name, &e, 0x30));
    }
    assert_eq!(fs::read_dir(lab.folder.path()).unwrap().count(), before, "nothing is written by name");
    // A link holds no bytes, and what stands behind it is found.
    let mut link = tar("link", b"");
    (link[156], link[157]) = (b'2', b'/');
    link[148..156].fill(b' ');
    let sum: u32 = link[..512].iter().map(|&byte| u32::from(byte)).sum();
    link[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    stands(&[&link[..512], &tar("eicar.com", &e)].concat());
    // More or less than there is.
    for size in [0, 1, 67, 69, 1 << 31] {
        stands(&zip_of("eicar.com", &deflate(&e), size, 8, 0));
        stands(&zip_of("eicar.com", &e, size, 0, 0));
    }
    let mut long = tar("eicar.com", &e);
    long[124..136].copy_from_slice(b"77777777777\0");
    long[148..156].fill(b' ');
    let sum: u32 = long[..512].iter().map(|&byte| u32::from(byte)).sum();
    long[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    // The signature is for what begins like this, whatever stands behind.
    stands(&long);
}

#[test]
fn a_cabinet_of_lzx_is_read_through_all_its_pieces() {
    let content = [vec![b'.'; 70_000], eicar()].concat();
    let cab = cab_of_lzx(15, &lzx_verbatim(&content), content.len());
    let lab = Lab::new(&[("e.ndb", &format!("Eicar:0:EOF-68:{}\n", hex(&eicar())))]);
    assert_eq!(lab.found(&cab).as_deref(), Some("Eicar"));
    // A window that is too large for a quick scan, and one that there is not.
    let report = |window: u16, limits: Limits| {
        lab.scan_within(&cab_of_lzx(window, &lzx_verbatim(&content), content.len()), limits).report
    };
    let quick = Limits { dictionary: 1 << 20, ..Limits::default() };
    assert_eq!(report(21, quick).limit, Some(Limit::Memory));
    assert_eq!(report(22, quick).opaque.as_deref(), Some("eicar.com"));
    // A block of no bytes, and one whose trees are none, end what comes out.
    for (kind, size) in [(1, 0), (3, 0), (1, 9), (7, 9)] {
        let mut bits = LzxBits::default();
        bits.put(0, 1);
        bits.put(kind, 3);
        bits.put(size, 24);
        assert_eq!(lab.found(&cab_of_lzx(15, &[([bits.bytes(), vec![0; 99]].concat(), 99)], 99)), None);
    }
}

/// Containers with bytes changed, left out and put twice: whatever comes of it, the scan ends. A few seconds of it,
/// or as many as `PILLARBOX_NOISE_SECS` says.
#[test]
fn what_is_damaged_is_scanned_to_an_end() {
    let (lab, seeds) = (eicar_lab(), [containers(), oddities()].concat());
    let set = lab.set();
    let seconds = std::env::var("PILLARBOX_NOISE_SECS").ok().and_then(|text| text.parse().ok());
    let (start, mut state, mut rounds) = (Instant::now(), 0x9E37_79B9_7F4A_7C15_u64, 0_u32);
    let mut draw = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below.max(1)
    };
    let limits = Limits { depth: 6, files: 200, bytes: 8 << 20, ..Limits::default() };
    let mut missed = 0;
    while seconds.map_or(rounds < 3000, |seconds| start.elapsed().as_secs() < seconds) {
        rounds += 1;
        let mut bytes = seeds[draw(seeds.len())].1.clone();
        for _ in 0..=draw(6) {
            let at = draw(bytes.len());
            match draw(5) {
                0 => bytes[at] ^= 1 << draw(8),
                1 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][draw(5)],
                2 => {
                    let end = (at + 4).min(bytes.len());
                    bytes[at..end].fill([0, 0xFF][draw(2)]);
                }
                3 => drop(bytes.drain(at..(at + draw(20)).min(bytes.len()))),
                _ => {
                    let piece = bytes[at..(at + draw(80)).min(bytes.len())].to_vec();
                    let place = draw(bytes.len());
                    bytes.splice(place..place, piece);
                }
            }
            if bytes.is_empty() {
                break;
            }
        }
        missed += u32::from(lab.scan_by(&set, &bytes, limits).signature.is_none());
    }
    println!("{rounds} damaged containers, EICAR found in {}", rounds - missed);
    assert!(missed < rounds, "most damage is elsewhere");
}

#[test]
fn the_source_of_macros_is_read() {
    let lab = Lab::new(&[("m.ndb", &format!("Macro:0:32:{}\n", hex(&eicar())))]);
    // 32 bytes of attributes, as modules begin; what follows fills more than one chunk.
    let source = [b"Attribute VB_Name = \"Module11\"\r\n".as_slice(), &eicar(), &[b' '; 9000]].concat();
    let document = compound(&[("WordDocument", b"text"), ("Module1", &macros(&source))]);
    assert_eq!(lab.found(&document).as_deref(), Some("Macro"));
    assert_eq!(lab.found(&zip("xl/vbaProject.bin", &document)).as_deref(), Some("Macro"));
}

#[test]
fn a_programs_sections_and_entry_point_are_known_to_signatures() {
    let (code, data) = (b"\x90\x90\xDE\xAD\xBE\xEF and what else there is".as_slice(), program);
    let md5 = hex(&<md5::Md5 as md5::Digest>::digest(code));
    let lab = Lab::new(&[
        ("s.mdb", &format!("{}:{md5}:Section\n", code.len())),
        ("e.ndb", "Entry:1:EP+2:c0ffee00\nStart:1:S0+4:facade99\n"),
    ]);
    assert_eq!(lab.found(&data(code, b"")).as_deref(), Some("Section"));
    assert_eq!(lab.found(&data(b"\x90\x90\xC0\xFF\xEE\x00", b"")).as_deref(), Some("Entry"));
    assert_eq!(lab.found(&data(b"\x90\x90\x90\xC0\xFF\xEE\x00", b"")), None);
    assert_eq!(lab.found(&data(b"\x90\x90\x90\x90\xFA\xCA\xDE\x99", b"")).as_deref(), Some("Start"));
    // Windows rounds where a section is down to whole blocks, and so a program may say a little more.
    let odd = |code: &[u8]| {
        let mut program = data(code, b"");
        program[120..124].copy_from_slice(&4096_u32.to_le_bytes());
        program[124..128].copy_from_slice(&512_u32.to_le_bytes());
        program[332..336].copy_from_slice(&513_u32.to_le_bytes());
        program
    };
    assert_eq!(lab.found(&odd(code)).as_deref(), Some("Section"));
    assert_eq!(lab.found(&odd(b"\x90\x90\xC0\xFF\xEE\x00")).as_deref(), Some("Entry"));
}

#[test]
fn what_does_not_fit_into_memory_is_found_on_the_disk() {
    let (e, rules) = (eicar(), format!("Eicar:0:*:{}\nShort:0:*:f7f8??f9\nSix:0:*:a1a2a3a4a5a6\n", hex(&eicar())));
    let lab = Lab::new(&[("e.ndb", &rules), ("h.hdb", "9a0364b9e99bb480dd25e1f0284c8555:7:Digest\n")]);
    let (whole, bare) = (lab.set(), open_set_within(&lab.path(), 0).unwrap());
    assert!(bare.resident() < whole.resident());
    for set in [&whole, &bare] {
        let found = |bytes: &[u8]| lab.scan_with(set, bytes).signature;
        assert_eq!(found(&[b"...", e.as_slice(), b"..."].concat()).as_deref(), Some("Eicar"));
        assert_eq!(found(b"....\xF7\xF8!\xF9").as_deref(), Some("Short"));
        // At the end of an object nothing follows an anchor.
        assert_eq!(found(b"....\xA1\xA2\xA3\xA4\xA5\xA6").as_deref(), Some("Six"));
        assert_eq!(found(b"content").as_deref(), Some("Digest"));
        assert_eq!(found(b"contents"), None);
    }
    // The filter's bytes are compared with their sum also where they stay on the disk.
    let mut altered = fs::read(lab.path()).unwrap();
    let filter = whole.header().sections[0];
    altered[usize::try_from(filter.offset).unwrap()] ^= 1;
    fs::write(lab.path(), altered).unwrap();
    assert!(open_set_within(&lab.path(), 0).is_err());
}

#[test]
fn what_is_encrypted_dangerous_or_unreadable_is_told() {
    let lab = eicar_lab();
    let packed = lab.scan(&rar4("invoice.pdf.exe", b"packed somehow", 0x33)).report;
    assert_eq!(packed.name, Some(("invoice.pdf.exe".to_owned(), NameFault::DoubleExtension)));
    assert_eq!(packed.opaque.as_deref(), Some("invoice.pdf.exe"));
    let document = compound(&[("Module1", &macros(b"Attribute VB_Name = \"a\""))]);
    assert_eq!(lab.scan(&document).report.macros.as_deref(), Some("a file"));
    let report = lab.scan(&zip_of("secret.doc", b"0123456789ab", 1, 8, 1)).report;
    assert_eq!(report.encrypted.as_deref(), Some("secret.doc"));
    let report = lab.scan(&zip("invoice.pdf.exe", b"x")).report;
    assert_eq!(report.name, Some(("invoice.pdf.exe".to_owned(), NameFault::DoubleExtension)));
    let report = lab.scan(&zip_of("a.bin", b"0123456789ab", 1, 97, 0)).report;
    assert_eq!(report.opaque.as_deref(), Some("a.bin"));
    assert_eq!(lab.scan(&zip("a.txt", b"hello")), Findings::default());
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
fn a_clock_that_is_over_from_the_start_ends_the_scan() {
    let lab = eicar_lab();
    let (set, clock) = (lab.set(), || Duration::MAX);
    let (limits, time) = (Limits::default(), Duration::from_secs(8));
    let bench = Bench { set: Some(&set), limits, time, clock: &clock, folder: lab.folder.path() };
    let findings = bench.scan(&eicar(), "a file", false).unwrap();
    assert_eq!((findings.signature, findings.report.limit), (None, Some(Limit::Time)));
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
fn a_million_lines_that_are_none_are_counted_and_the_good_one_among_them_is_taken() {
    let lab = Lab::new(&[]);
    let source = lab.folder.path().join("bad.ndb");
    let mut lines = BufWriter::new(fs::File::create(&source).unwrap());
    for number in 0..1_000_000 {
        match number {
            500_000 => writeln!(lines, "Good:0:*:aabbccddeeff"),
            _ if number % 2 == 0 => writeln!(lines, "Bad.{number}:0:*:zz"),
            _ => writeln!(lines, "Bad.{number}"),
        }
        .unwrap();
    }
    lines.into_inner().unwrap();
    compile::compile(&[source], &lab.path(), 7, &mut |_| {}).unwrap();
    let origin = &lab.set().origins().unwrap()[0];
    let left: Vec<(&str, u64)> = origin.left.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    assert_eq!(
        (origin.taken, left),
        (1, vec![("lines with too few fields", 500_000), ("patterns that can't be read", 499_999)])
    );
    assert_eq!(lab.found(b"..\xAA\xBB\xCC\xDD\xEE\xFF..").as_deref(), Some("Good"));
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

/// With `PILLARBOX_LOOK_UPS=10000000` as many digests that are not there, in a set of a million or of as many as
/// `PILLARBOX_DIGESTS` says.
#[test]
fn a_large_set_finds_what_it_has_and_nothing_else() {
    let number = |name: &str| std::env::var(name).ok().and_then(|number| number.parse::<u64>().ok());
    let asked = number("PILLARBOX_LOOK_UPS");
    let (count, strangers) = asked.map_or((50_000, 500_000), |asked| (1_000_000, asked));
    let count = number("PILLARBOX_DIGESTS").unwrap_or(count);
    // One in ten is a SHA-256, as in `benches/scan/generate.py`; the others are MD5.
    let digest = |number: u64| {
        let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) + 1;
        let (mut bytes, length) = ([0_u8; 32], if number % 10 == 9 { 32 } else { 16 });
        for byte in &mut bytes[..length] {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = u8::try_from(state >> 56).unwrap();
        }
        (if length == 32 { DigestKind::Sha256 } else { DigestKind::Md5 }, bytes, length)
    };
    let lab = Lab::new(&[]);
    let source = lab.folder.path().join("many.hsb");
    let mut lines = BufWriter::new(fs::File::create(&source).unwrap());
    for number in 0..count {
        let (_, bytes, length) = digest(number);
        writeln!(lines, "{}:{}:Name.{number}", hex(&bytes[..length]), number + 1).unwrap();
    }
    lines.into_inner().unwrap();
    compile::compile(&[source], &lab.path(), 7, &mut |_| {}).unwrap();
    let set = lab.set();
    assert_eq!(set.header().counts.hashes, count);
    let look = |number: u64, size: u64| {
        let (kind, bytes, length) = digest(number);
        set.look_up(HashRole::File, kind, &bytes[..length], size).unwrap()
    };
    for number in 0..count {
        assert_eq!(look(number, number + 1), Some(format!("Name.{number}")));
    }
    assert!((0..1000).all(|number| look(number, number + 2).is_none()));
    // By the digest's beginning alone, as what was noted of old mail has it.
    let may_know = |number: u64, size: u64| {
        let (kind, bytes, _) = digest(number);
        set.may_know(kind, *bytes.first_chunk().unwrap(), u32::try_from(size).unwrap()).unwrap()
    };
    assert!((0..count).all(|number| may_know(number, number + 1) && !may_know(number, number + 2)));
    assert!(!(count..count + 100_000).any(|number| may_know(number, number + 1)));
    assert!((count..count + strangers).all(|number| look(number, 1).is_none()));
    println!("{count} digests, each found by its name; {strangers} look-ups of others: none found");
}
