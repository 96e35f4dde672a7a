//! ClamAV's own test files (Debian: `clamav-testfiles`): one small program in 44 wrappings, with a digest of
//! it and a pattern out of it. What is not found says why.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Where Debian's package has them.
const FOLDER: &str = "/usr/share/clamav-testfiles";

/// The program's MD5 and size, as ClamAV's own test database has them.
const DIGEST: &str = "aa15bcf478d165efd2065190eb473bcb:544:Test.Digest\n";

/// The first 52 bytes of its code.
const PATTERN: &str = "Test.Pattern:0:*:bb7110400033c050508bf3535350b02940300466ac79f9ba3100780dad50ff66\
                       700e1fbe3100e9e5ffb409cd21b44ccd21620c0a\n";

/// A packer's work, which would have to be run or undone; what does is another trade, and its own danger.
const PACKED: &str = "a packer of programs, out of scope";
/// An installer's own archive, which nothing kept can read.
const INSTALLER: &str = "an installer with an archive of its own making";
/// Formats of machines that mail knows no more.
const OLD: &str = "an old format without a kept library";

/// Every file: `Ok` with what finds it, or why it is not found.
const FILES: [(&str, Result<&str, &str>); 44] = [
    ("clam-aspack.exe", Err(PACKED)),
    // It leaves the program's code as it was.
    ("clam-fsg.exe", Ok("Test.Pattern")),
    ("clam-mew.exe", Err(PACKED)),
    ("clam-nsis.exe", Err(INSTALLER)),
    ("clam-pespin.exe", Err(PACKED)),
    ("clam-petite.exe", Err(PACKED)),
    ("clam-upack.exe", Err(PACKED)),
    ("clam-upx.exe", Err(PACKED)),
    ("clam-wwpack.exe", Err(PACKED)),
    ("clam-yc.exe", Err(PACKED)),
    ("clam.7z", Ok("Test.Pattern")),
    ("clam.arj", Err(OLD)),
    // What stands in a cpio archive stands there as it is.
    ("clam.bin-be.cpio", Ok("Test.Pattern")),
    ("clam.bin-le.cpio", Ok("Test.Pattern")),
    ("clam.bz2.zip", Ok("Test.Pattern")),
    ("clam.cab", Ok("Test.Pattern")),
    ("clam.chm", Err("compiled help (LZX), without a kept library")),
    ("clam.d64.zip", Ok("Test.Pattern")),
    ("clam.ea05.exe", Err("a compiled AutoIt script, encrypted")),
    ("clam.ea06.exe", Err("a compiled AutoIt script, encrypted")),
    ("clam.exe", Ok("Test.Pattern")),
    ("clam.exe.binhex", Err(OLD)),
    ("clam.exe.bz2", Ok("Test.Pattern")),
    ("clam.exe.html", Ok("Test.Pattern")),
    ("clam.exe.mbox.base64", Ok("Test.Pattern")),
    ("clam.exe.mbox.uu", Ok("Test.Pattern")),
    ("clam.exe.rtf", Ok("Test.Pattern")),
    ("clam.exe.szdd", Err(OLD)),
    ("clam.impl.zip", Err("zip's first way of packing, imploding, which nothing makes since 1993")),
    ("clam.mail", Ok("Test.Pattern")),
    ("clam.newc.cpio", Ok("Test.Pattern")),
    ("clam.odc.cpio", Ok("Test.Pattern")),
    ("clam.ole.doc", Ok("Test.Pattern")),
    // An attachment that is stored as it is.
    ("clam.pdf", Ok("Test.Pattern")),
    ("clam.ppt", Err("an object packed in PowerPoint's own records")),
    ("clam.sis", Err("a package for Symbian phones")),
    ("clam.tar.gz", Ok("Test.Pattern")),
    ("clam.tnef", Ok("Test.Pattern")),
    ("clam.zip", Ok("Test.Pattern")),
    // Its archive has the program as it is.
    ("clam_IScab_ext.exe", Ok("Test.Pattern")),
    ("clam_IScab_int.exe", Err(INSTALLER)),
    ("clam_ISmsi_ext.exe", Err(INSTALLER)),
    ("clam_ISmsi_int.exe", Err(INSTALLER)),
    ("clam_cache_emax.tgz", Ok("Test.Pattern")),
];

/// Which files are found with one signature file.
fn found(name: &str, line: &str) -> Vec<(String, String)> {
    found_in(Path::new(FOLDER), name, line)
}

fn found_in(path: &Path, name: &str, line: &str) -> Vec<(String, String)> {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join(name);
    fs::write(&rules, line).unwrap();
    let mut scan = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    let said = scan.arg("scan").args(["--infected", "--db"]).arg(&rules).arg(path).output().unwrap();
    assert!(said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
    let said = String::from_utf8(said.stdout).unwrap();
    let rows = said.lines().filter_map(|line| line.strip_suffix(" FOUND")?.rsplit_once(": "));
    let name = |path: &str| Path::new(path).file_name().unwrap().to_str().unwrap().to_owned();
    rows.map(|(path, finding)| (name(path), finding.to_owned())).collect()
}

fn are_there() -> bool {
    if Path::new(FOLDER).is_dir() {
        return true;
    }
    let _ = writeln!(std::io::stderr(), "SKIPPED ClamAV's test files: clamav-testfiles is not installed");
    assert!(std::env::var_os("PILLARBOX_REQUIRE_CLIENTS").is_none(), "clamav-testfiles is not installed");
    false
}

/// What ClamAV's sigtool says of a program, behind a word.
fn sigtool(option: &str, path: &Path, word: &str) -> Vec<String> {
    let Ok(said) = Command::new("sigtool").arg(option).arg(path).output() else { return Vec::new() };
    let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    let rows = said.lines().filter_map(|line| line.split_once(word)?.1.rsplit_once(' ').map(|(_, row)| row.to_owned()));
    rows.filter(|row| row.len() > 32 && !row.ends_with(":0")).collect()
}

#[test]
fn sections_and_imports_of_programs_are_what_clamav_takes_them_for() {
    if !are_there() {
        return;
    }
    let mut asked = 0;
    for (name, _) in FILES.iter().filter(|(name, _)| name.contains(".exe")) {
        let path = Path::new(FOLDER).join(name);
        let sections = sigtool("--mdb", &path, "Section{").into_iter().map(|row| ("s.mdb", row));
        let imports = sigtool("--imp", &path, "Imphash:").into_iter().map(|row| ("i.imp", row));
        for (format, row) in sections.chain(imports) {
            asked += 1;
            let finding = found_in(&path, format, &format!("{row}:Test.Row\n"));
            assert_eq!(finding, [((*name).to_owned(), "Test.Row".to_owned())], "{name}: {row} of {format}");
        }
    }
    println!("{asked} digests of sections and imports");
}

#[test]
fn clamavs_test_files_are_found_or_it_is_said_why_not() {
    if !are_there() {
        return;
    }
    let pattern = found("test.ndb", PATTERN);
    for (name, expected) in FILES {
        assert!(Path::new(FOLDER).join(name).is_file(), "{name} is not in the package any more");
        let finding = pattern.iter().find(|(file, _)| file == name).map(|(_, finding)| finding.as_str());
        match expected {
            Ok(wanted) => assert_eq!(finding, Some(wanted), "{name}"),
            Err(why) => assert_eq!(finding, None, "{name} is found now; it was not: {why}"),
        }
    }
    assert!(pattern.len() >= 20, "{}", pattern.len());

    // By its digest the program has to be taken out whole.
    let digest: Vec<String> = found("test.hdb", DIGEST).into_iter().map(|(name, _)| name).collect();
    let in_the_open = ["clam-fsg.exe", "cpio", "clam.pdf", "clam_IScab_ext.exe"];
    for (name, _) in &pattern {
        let unpacked = !in_the_open.iter().any(|known| name.contains(known));
        assert_eq!(digest.contains(name), unpacked, "{name}");
    }
}
