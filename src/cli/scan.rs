//! `pillarbox scan`: malware in files and messages, told as ClamAV's scanner tells it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::office::Failure;
use super::signatures::{compile_progress, sources_of};
use crate::daemon::guard::work_time;
use crate::filter::scan::set::Set;
use crate::filter::scan::unpack::Limits;
use crate::flow::scan::{Bench, Findings, SET_FILE, SeenFile, compile, open_set};

/// Scan files and messages for malware
///
/// Prints a line for each file: `PATH: NAME FOUND` or `PATH: OK`. Exit code 0 says that nothing was
/// found, 1 that something was, 2 that something could not be scanned.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ScanArgs {
    /// Files and folders
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Signatures to use instead of the server's: a signature file, a compiled set, or a folder of such files
    #[arg(long, value_name = "FILE-OR-FOLDER")]
    db: Option<PathBuf>,
    /// Data folder of the server
    #[arg(long, value_name = "DIR", default_value = "/var/lib/pillarbox")]
    data: PathBuf,
    /// Tell what was found only
    #[arg(long, short)]
    infected: bool,
    /// Longest that a file may take, in seconds of work
    #[arg(long, value_name = "SECONDS", default_value_t = 8)]
    time: u32,
}

/// What was found so far.
#[derive(Default)]
struct Tally {
    found: bool,
    failed: bool,
}

/// Runs the command.
pub(super) fn run(args: &ScanArgs) -> ExitCode {
    let mut tally = Tally::default();
    if let Err(failure) = scan(args, &mut tally) {
        eprintln!("pillarbox: {failure}");
        return ExitCode::from(2);
    }
    match tally {
        Tally { found: true, .. } => ExitCode::from(1),
        Tally { failed: true, .. } => ExitCode::from(2),
        Tally { .. } => ExitCode::SUCCESS,
    }
}

fn scan(args: &ScanArgs, tally: &mut Tally) -> Result<(), Failure> {
    let set = match &args.db {
        Some(db) => set_of(db)?,
        None => open_set(&args.data.join(SET_FILE)).map_err(|error| {
            Failure(format!("{}: {error}; name signatures with --db", args.data.join(SET_FILE).display()))
        })?,
    };
    let folder = std::env::temp_dir();
    let bench = Bench {
        set: Some(&set),
        limits: Limits::default(),
        time: Duration::from_secs(args.time.into()),
        clock: &work_time,
        folder: &folder,
    };
    let mut out = io::stdout().lock();
    for path in &args.paths {
        scan_path(path, &bench, args, tally, &mut out)?;
    }
    out.flush()?;
    Ok(())
}

fn set_of(db: &Path) -> Result<Set, Failure> {
    let named = |error: &dyn std::fmt::Display| Failure(format!("{}: {error}", db.display()));
    if db.is_file() {
        match open_set(db) {
            Ok(set) => return Ok(set),
            Err(crate::filter::scan::set::SetError::NotASet) => {}
            Err(error) => return Err(named(&error)),
        }
    }
    let sources = sources_of(db)?;
    let mut progress = compile_progress(&sources);
    let file = compile::compile_unnamed(&sources, &std::env::temp_dir(), &mut progress);
    let file = file.map_err(|error| Failure(error.to_string()))?;
    let medium = SeenFile::new(file).map_err(|error| named(&error))?;
    Set::open(Box::new(medium)).map_err(|error| named(&error))
}

fn scan_path(
    path: &Path,
    bench: &Bench<'_>,
    args: &ScanArgs,
    tally: &mut Tally,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) => return failed(path, &error, tally, out),
    };
    if meta.is_dir() {
        let entries = match std::fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(error) => return failed(path, &error, tally, out),
        };
        let mut within: Vec<PathBuf> = entries.iter().map(std::fs::DirEntry::path).collect();
        within.sort();
        for path in within {
            // What a link leads to is scanned where it is.
            if !path.is_symlink() {
                scan_path(&path, bench, args, tally, out)?;
            }
        }
        return Ok(());
    }
    if !path.is_file() {
        return Ok(());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let scanned = File::open(path).and_then(SeenFile::new).and_then(|file| bench.scan(&file, &name, false));
    match scanned {
        Ok(findings) => tell(path, &findings, args, tally, out),
        Err(error) => failed(path, &error, tally, out),
    }
}

fn tell(
    path: &Path,
    findings: &Findings,
    args: &ScanArgs,
    tally: &mut Tally,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let limit = findings.report.limit.map(crate::filter::scan::unpack::Limit::finding);
    match findings.signature.as_deref().or(limit) {
        Some(name) => {
            tally.found = true;
            writeln!(out, "{}: {name} FOUND", path.display())?;
        }
        None if args.infected => {}
        None => writeln!(out, "{}: OK", path.display())?,
    }
    Ok(())
}

fn failed(path: &Path, error: &io::Error, tally: &mut Tally, out: &mut impl Write) -> Result<(), Failure> {
    tally.failed = true;
    writeln!(out, "{}: {error} ERROR", path.display())?;
    Ok(())
}
