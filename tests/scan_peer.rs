//! The scanner beside ClamAV's own on the same signatures and the same files: generated patterns with files
//! that fit and files that almost fit, digests, logical signatures, regular expressions. Whatever the two say
//! differently is listed here with its reason; a difference that is not fails the test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[path = "support/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use md5::Digest as _;
use server::installed;

/// Patterns that are generated.
const PATTERNS: u32 = 250;

/// Random numbers that are the same each time.
struct Draw(u64);

impl Draw {
    fn next(&mut self, below: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap() % below
    }

    fn byte(&mut self) -> u8 {
        // Neither text nor the beginning of any format.
        u8::try_from(0x80 + self.next(0x70)).unwrap()
    }

    fn bytes(&mut self, least: u32, more: u32) -> Vec<u8> {
        (0..least + self.next(more)).map(|_| self.byte()).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A pattern, bytes that fit it, and bytes that do not by a little.
fn pattern(draw: &mut Draw) -> (String, Vec<u8>, Vec<Vec<u8>>) {
    let first = draw.bytes(4, 8);
    let (mut text, mut fits, mut misses) = (hex(&first), first, Vec::new());
    for _ in 0..=draw.next(3) {
        let before = fits.clone();
        let (low, more) = (draw.next(6), 1 + draw.next(8));
        let high = low + more;
        let gap = |draw: &mut Draw, count: u32| (0..count).map(|_| draw.byte()).collect::<Vec<u8>>();
        let mut too_long = None;
        match draw.next(9) {
            0 => {
                text += "??";
                fits.push(draw.byte());
            }
            1 => {
                let byte = draw.byte();
                let _ = write!(text, "{:x}?", byte >> 4);
                fits.push(byte);
            }
            2 => {
                let byte = draw.byte();
                let _ = write!(text, "?{:x}", byte & 15);
                fits.push(byte);
            }
            3 => {
                let _ = write!(text, "{{{low}-{high}}}");
                let count = low + draw.next(more + 1);
                fits.extend(gap(draw, count));
                too_long = Some(high + 1);
            }
            4 => {
                let _ = write!(text, "{{{high}}}");
                fits.extend(gap(draw, high));
                too_long = Some(high + 1);
            }
            5 => {
                let _ = write!(text, "{{{high}-}}");
                let count = high + draw.next(200);
                fits.extend(gap(draw, count));
            }
            6 => {
                text += "*";
                let count = draw.next(400);
                fits.extend(gap(draw, count));
            }
            7 => {
                let options: Vec<u8> = (0..3).map(|_| draw.byte()).collect();
                let spelled: Vec<String> = options.iter().map(|byte| hex(&[*byte])).collect();
                let _ = write!(text, "({})", spelled.join("|"));
                fits.push(options[draw.next(3) as usize]);
            }
            _ => {
                let not = draw.byte();
                let _ = write!(text, "!({})", hex(&[not]));
                fits.push(if not == 0x80 { 0x81 } else { 0x80 });
                let mut miss = before.clone();
                miss.push(not);
                misses.push(miss);
            }
        }
        let rest = draw.bytes(4, 6);
        if let Some(count) = too_long {
            let mut miss = [before, gap(draw, count)].concat();
            miss.extend_from_slice(&rest);
            misses.push(miss);
        }
        // Whatever was missed before goes on as the pattern does.
        for miss in &mut misses {
            miss.extend_from_slice(&rest);
        }
        text += &hex(&rest);
        fits.extend_from_slice(&rest);
    }
    let mut changed = fits.clone();
    let at = draw.next(u32::try_from(fits.len()).unwrap()) as usize;
    changed[at] ^= 1 + u8::try_from(draw.next(15)).unwrap();
    misses.push(changed);
    (text, fits, misses)
}

/// Signature files and files to scan, by name.
#[derive(Default)]
struct Lab {
    rules: BTreeMap<&'static str, String>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Lab {
    fn rule(&mut self, file: &'static str, line: &str) {
        let _ = writeln!(self.rules.entry(file).or_default(), "{line}");
    }

    fn file(&mut self, name: &str, bytes: &[u8]) {
        self.files.insert(name.to_owned(), bytes.to_vec());
    }

    /// A file in which bytes stand at an offset with others around.
    fn around(&mut self, name: &str, before: usize, bytes: &[u8], after: usize) {
        let noise = |count: usize| (0..count).map(|at| 0xF1 + u8::try_from(at % 7).unwrap()).collect::<Vec<u8>>();
        self.file(name, &[noise(before), bytes.to_vec(), noise(after)].concat());
    }
}

fn generated(lab: &mut Lab) {
    // Other numbers make other patterns: for whoever looks for differences.
    let seed = std::env::var("PILLARBOX_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut draw = Draw(seed.unwrap_or(42));
    for number in 0..PATTERNS {
        let (text, fits, misses) = pattern(&mut draw);
        let (before, after) = (draw.next(300) as usize, draw.next(300) as usize);
        let place = match draw.next(8) {
            0 => before.to_string(),
            1 => format!("{},{}", before.saturating_sub(5), 10),
            2 => format!("EOF-{}", fits.len() + after),
            3 => format!("EOF-{},{}", fits.len() + after + 5, 10),
            _ => "*".to_owned(),
        };
        lab.rule("patterns.ndb", &format!("Pattern.{number}:0:{place}:{text}"));
        lab.around(&format!("{number}-fits"), before, &fits, after);
        lab.around(&format!("{number}-moved"), before + 1, &fits, after + 1);
        lab.around(&format!("{number}-far"), before + 11, &fits, after + 11);
        for (miss, bytes) in misses.iter().enumerate() {
            lab.around(&format!("{number}-miss-{miss}"), before, bytes, after);
        }
    }
}

fn digests(lab: &mut Lab) {
    let mut draw = Draw(7);
    for number in 0..20 {
        let bytes = draw.bytes(100, 900);
        let md5 = hex(md5::Md5::digest(&bytes).as_slice());
        let sha1 = hex(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &bytes).as_ref());
        let sha256 = hex(ring::digest::digest(&ring::digest::SHA256, &bytes).as_ref());
        let size = bytes.len();
        match number % 5 {
            0 => lab.rule("digests.hdb", &format!("{md5}:{size}:Digest.{number}")),
            1 => lab.rule("digests.hdb", &format!("{md5}:{}:Digest.{number}", size + 1)),
            2 => lab.rule("digests.hsb", &format!("{sha256}:{size}:Digest.{number}")),
            3 => lab.rule("digests.hsb", &format!("{sha1}:*:Digest.{number}:73")),
            _ => lab.rule("digests.hsb", &format!("{sha256}:*:Digest.{number}:73")),
        }
        lab.file(&format!("digest-{number}"), &bytes);
        lab.file(&format!("digest-{number}-longer"), &[bytes, vec![0]].concat());
    }
}

fn logical(lab: &mut Lab) {
    // Each has a pattern of its own, so that no file is another's.
    let cases: [(&str, &str, &[&str]); 20] = [
        ("Engine:81-255,Target:0;0&1;XXa1a1;XXb2b2", "and", &["XXa1a1XXb2b2", "XXb2b2XXa1a1", "XXa1a1"]),
        ("Engine:81-255,Target:0;0|1;XXa1a1;XXb2b2", "or", &["XXa1a1", "XXb2b2", "XXa1b2"]),
        ("Engine:81-255,Target:0;0>1;XXa1a1", "more", &["XXa1a1", "XXa1a1XXa1a1", "XXa1a1XXa1a1XXa1a1"]),
        ("Engine:81-255,Target:0;0=2;XXa1a1", "equal", &["XXa1a1", "XXa1a1XXa1a1", "XXa1a1XXa1a1XXa1a1"]),
        ("Engine:81-255,Target:0;0&(1=0);XXa1a1;XXb2b2", "not", &["XXa1a1", "XXa1a1XXb2b2"]),
        (
            "Engine:81-255,Target:0;0&(1<3);XXa1a1;XXb2b2",
            "less",
            &["XXa1a1XXb2b2", "XXa1a1XXb2b2XXb2b2XXb2b2", "XXa1a1"],
        ),
        (
            "Engine:81-255,Target:0;(0|1|2)>2;XXa1a1;XXb2b2;XXc3c3",
            "sum",
            &["XXa1a1XXb2b2XXc3c3", "XXa1a1XXa1a1XXa1a1", "XXa1a1XXb2b2"],
        ),
        (
            "Engine:81-255,Target:0;(0|1|2)>2,2;XXa1a1;XXb2b2;XXc3c3",
            "distinct",
            &["XXa1a1XXa1a1XXa1a1", "XXa1a1XXa1a1XXb2b2", "XXa1a1XXb2b2"],
        ),
        ("Engine:81-255,Target:0,FileSize:600-700;0;XXa1a1", "sized", &["XXa1a1", "XXb2b2"]),
        ("Engine:81-255,Target:0,FileSize:700-800;0;XXa1a1", "larger", &["XXa1a1"]),
        ("Engine:81-255,Target:0;0;XX6162634445::i", "case", &["XX6162634445", "XX4142436465", "XX4142436466"]),
        ("Engine:81-255,Target:0;0;XX61626364::w", "wide", &["XXYYYY", "XX61006200630064", "XX61626364"]),
        ("Engine:81-255,Target:1;0;XXa1a1", "program", &["XXa1a1"]),
        (
            "Engine:81-255,Target:0;0&1;XXa1a1;0/\\xb2[\\xb0-\\xb9]{2}\\xb2/",
            "expression",
            &["XXa1a1b2b5b5b2", "XXa1a1b2b5b2", "b2b5b5b2"],
        ),
        (
            "Engine:81-255,Target:0;0&1;XXa1a1;0/KEY=[0-9]+/i",
            "expression-case",
            &["XXa1a16b65593d39", "XXa1a16b65593d"],
        ),
        ("Engine:81-255,Target:0;0&1;XXa1a1;200:0/\\xa1\\xa1\\xc7/", "expression-at", &["a1a1c7", "XXa1a1"]),
        (
            "Engine:81-255,Target:0;0&(1>1);XXa1a1;0/\\xb2\\xb3/g",
            "expression-count",
            &["XXa1a1b2b3", "XXa1a1b2b3b2b3", "XXa1a1b2b2b3b3"],
        ),
        ("Engine:81-255,Target:0;0&1;XXa1a1;0/\\xb2.\\xb3/s", "expression-dot", &["XXa1a1b20ab3", "XXa1a1b2b3"]),
        ("Engine:81-255,Target:0;0&1;XXa1a1;0/\\xb2.\\xb3/", "expression-line", &["XXa1a1b20ab3", "XXa1a1b20bb3"]),
        ("Engine:81-255,Target:0;0&1;XXa1a1;0/^\\xf1\\xf2\\xf3/", "expression-start", &["XXa1a1", "XXa1a1f1f2f3"]),
    ];
    for (number, (rule, name, files)) in cases.iter().enumerate() {
        let own = format!("c0ffee{number:02x}d1");
        lab.rule("logical.ldb", &format!("Logical.{name};{}", rule.replace("XX", &own)));
        for (at, file) in files.iter().enumerate() {
            let digits = file.replace("XX", &own);
            let bytes: Vec<u8> = digits
                .as_bytes()
                .chunks(2)
                .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).ok())
                .collect();
            lab.around(&format!("logical-{name}-{at}"), 200, &bytes, 400);
        }
    }
}

/// What a scanner says of each file, `OK` or a signature's name.
fn told(command: &mut Command) -> BTreeMap<String, String> {
    let said = command.output().unwrap();
    assert_ne!(said.status.code(), Some(2), "{}", String::from_utf8_lossy(&said.stderr));
    let said = String::from_utf8(said.stdout).unwrap();
    let rows = said.lines().filter_map(|line| line.rsplit_once(": "));
    let name = |path: &str| Path::new(path).file_name().unwrap().to_str().unwrap().to_owned();
    let finding = |text: &str| text.trim_end_matches(" FOUND").trim_end_matches(".UNOFFICIAL").to_owned();
    rows.map(|(path, text)| (name(path), finding(text))).collect()
}

#[test]
fn it_says_what_clamscan_says() {
    if !installed(&["clamscan"], "the comparison with ClamAV's scanner") {
        return;
    }
    let mut lab = Lab::default();
    generated(&mut lab);
    digests(&mut lab);
    logical(&mut lab);
    let folder = tempfile::tempdir().unwrap();
    let (rules, files) = (folder.path().join("rules"), folder.path().join("files"));
    fs::create_dir(&rules).unwrap();
    fs::create_dir(&files).unwrap();
    for (name, text) in &lab.rules {
        fs::write(rules.join(name), text).unwrap();
    }
    for (name, bytes) in &lab.files {
        fs::write(files.join(name), bytes).unwrap();
    }
    let mut theirs = Command::new("clamscan");
    theirs.args(["--no-summary", "--recursive", "--database"]).args([&rules, &files]);
    let theirs = told(&mut theirs);
    let mut ours = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    let ours = told(ours.arg("scan").arg("--db").args([&rules, &files]));
    assert_eq!((theirs.len(), ours.len()), (lab.files.len(), lab.files.len()));
    let found = theirs.values().filter(|finding| *finding != "OK").count();
    assert!(found > PATTERNS as usize, "{found}");
    let mut different = String::new();
    for (name, theirs) in &theirs {
        let ours = &ours[name];
        if ours != theirs && !EXPLAINED.iter().any(|(file, _)| file == name) {
            let number = name.split('-').next().unwrap();
            let rule = lab.rules.values().flat_map(|text| text.lines());
            let rule = rule.filter(|line| line.starts_with(&format!("Pattern.{number}:"))).collect::<String>();
            let _ = writeln!(different, "{name}: ours {ours}, theirs {theirs}; {rule}");
        }
    }
    assert_eq!(different, "");
}

/// Where the two differ, and why.
const EXPLAINED: &[(&str, &str)] = &[];
