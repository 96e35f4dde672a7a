//! `pillarbox signatures`: what malware is known by. The files as they came are kept in the data folder's
//! `signatures/`; each change compiles them all into the set beside it, which a running server takes with
//! the next message.

use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use minisign_verify::{PublicKey, Signature};
use serde::Serialize;

use super::detached;
use super::office::{Failure, OfficeArgs, Remote};
use super::show;
use crate::daemon::control::Order;
use crate::filter::scan::set::{Counts, Origin};
use crate::flow::scan::{SET_FILE, SOURCES, compile, open_set, source};

/// Manage the signatures that malware is known by
#[derive(Clone, Debug, clap::Args)]
pub struct SignaturesArgs {
    #[command(flatten)]
    office: OfficeArgs,
    #[command(subcommand)]
    command: SignaturesCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum SignaturesCommand {
    /// Take signature files: ClamAV's formats, lists of digests, our own rules
    Add {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Take only what the holder of this minisign key signed, as FILE.minisig beside each file
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// Take only containers (.cvd) with a detached signature beside them, FILE.sign or as freshclam names it,
        /// that goes back to a certificate in this file: ClamAV's own is clamav.crt in its folder certs
        #[arg(long, value_name = "FILE")]
        certificate: Option<PathBuf>,
    },
    /// Show the signature files that were taken
    List,
    /// Give signature files up
    Remove {
        /// Their names, as `list` shows them
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Take every signature file of a folder, as a stick with them brings it
    Update {
        /// The folder
        folder: PathBuf,
        /// Take only what the holder of this minisign key signed, as FILE.minisig beside each file
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// Take only containers (.cvd) with a detached signature beside them, FILE.sign or as freshclam names it,
        /// that goes back to a certificate in this file: ClamAV's own is clamav.crt in its folder certs
        #[arg(long, value_name = "FILE")]
        certificate: Option<PathBuf>,
    },
    /// Read the whole compiled set and compare its checksums
    Verify,
    /// Show what the compiled set has, and what lines were not taken
    Info,
}

/// What `info` tells.
#[derive(Debug, Serialize)]
struct Info {
    made: i64,
    hashes: u64,
    patterns: u64,
    members: u64,
    ignored: u64,
    file_bytes: u64,
    memory_bytes: usize,
    sources: Vec<OriginInfo>,
}

#[derive(Debug, Serialize)]
struct OriginInfo {
    name: String,
    about: String,
    taken: u64,
    left: Vec<(String, u64)>,
}

impl From<Origin> for OriginInfo {
    fn from(origin: Origin) -> Self {
        Self { name: origin.name, about: origin.about, taken: origin.taken, left: origin.left }
    }
}

/// Runs the command.
///
/// # Errors
/// One sentence.
pub fn run(args: &SignaturesArgs) -> Result<(), Failure> {
    let data = &args.office.data;
    let mut out = io::stdout().lock();
    match &args.command {
        SignaturesCommand::Add { files, key, certificate } => {
            take(data, files, key.as_deref(), certificate.as_deref())?;
        }
        SignaturesCommand::Update { folder, key, certificate } => {
            take(data, &sources_of(folder)?, key.as_deref(), certificate.as_deref())?;
        }
        SignaturesCommand::Remove { names } => remove(data, names)?,
        SignaturesCommand::Verify => {
            let set = open(data)?;
            set.verify().map_err(|error| Failure(error.to_string()))?;
            writeln!(out, "the signature set is whole")?;
            return Ok(());
        }
        SignaturesCommand::List | SignaturesCommand::Info => {}
    }
    if !matches!(args.command, SignaturesCommand::List | SignaturesCommand::Info) {
        tell_server(data);
    }
    if !data.join(SET_FILE).exists() {
        if args.office.json {
            show::json(&mut out, &serde_json::json!({ "sources": [] }))?;
        } else {
            writeln!(out, "there are no signatures; take some with `pillarbox signatures add FILE`")?;
        }
        return Ok(());
    }
    let info = info(data)?;
    if args.office.json {
        show::json(&mut out, &info)?;
    } else if matches!(args.command, SignaturesCommand::List) {
        list(&mut out, &info)?;
    } else {
        tell(&mut out, &info)?;
    }
    Ok(())
}

/// A running server takes the new set with its next message; told so it holds the mail it has against it at
/// once.
fn tell_server(data: &Path) {
    if let Ok(Some(mut server)) = Remote::connect(data) {
        // It will find out by itself.
        let _ = server.give(&Order::TakeSignatures);
    }
}

fn open(data: &Path) -> Result<crate::filter::scan::set::Set, Failure> {
    let path = data.join(SET_FILE);
    open_set(&path).map_err(|error| Failure(format!("{}: {error}", path.display())))
}

fn info(data: &Path) -> Result<Info, Failure> {
    let set = open(data)?;
    let origins = set.origins().map_err(|error| Failure(error.to_string()))?;
    let Counts { hashes, patterns, members, ignored, .. } = set.header().counts;
    Ok(Info {
        made: set.header().made,
        hashes,
        patterns,
        members,
        ignored,
        file_bytes: fs::metadata(data.join(SET_FILE))?.len(),
        memory_bytes: set.resident(),
        sources: origins.into_iter().map(OriginInfo::from).collect(),
    })
}

fn list(out: &mut impl Write, info: &Info) -> io::Result<()> {
    let mut rows = vec![["FILE", "SIGNATURES", "NOT TAKEN", ""].map(str::to_owned)];
    rows.extend(info.sources.iter().map(|source| {
        let left: u64 = source.left.iter().map(|(_, count)| count).sum();
        [source.name.clone(), source.taken.to_string(), left.to_string(), source.about.clone()]
    }));
    show::table(out, &rows)
}

fn tell(out: &mut impl Write, info: &Info) -> io::Result<()> {
    writeln!(
        out,
        "{} digests, {} patterns, {} for what stands in archives, {} names that count for nothing",
        info.hashes, info.patterns, info.members, info.ignored
    )?;
    writeln!(
        out,
        "{} on the disk, {} of them in memory",
        show::bytes(info.file_bytes),
        show::bytes(info.memory_bytes as u64)
    )?;
    for source in &info.sources {
        let about = if source.about.is_empty() { String::new() } else { format!(" ({})", source.about) };
        writeln!(out, "{}{about}: {} taken", source.name, source.taken)?;
        for (reason, count) in &source.left {
            writeln!(out, "  {count} not taken: {reason}")?;
        }
    }
    Ok(())
}

/// The signature files that a name stands for.
pub(super) fn sources_of(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let named = |error: io::Error| Failure(format!("{}: {error}", path.display()));
    if !path.is_dir() {
        fs::metadata(path).map_err(named)?;
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path).map_err(named)?.collect::<io::Result<Vec<_>>>().map_err(named)?;
    let mut sources: Vec<PathBuf> =
        entries.iter().map(fs::DirEntry::path).filter(|path| path.is_file() && source::is_source(path)).collect();
    sources.sort();
    if sources.is_empty() {
        return Err(Failure(format!("{}: there is no signature file in this folder", path.display())));
    }
    Ok(sources)
}

/// Copies files in beside those that are there, compiles all, and takes the copies back if that fails.
fn take(data: &Path, files: &[PathBuf], key: Option<&str>, certificate: Option<&Path>) -> Result<(), Failure> {
    if !data.is_dir() {
        return Err(Failure(format!("there is no data folder {}; name it with --data DIR", data.display())));
    }
    let folder = data.join(SOURCES);
    fs::create_dir_all(&folder)?;
    let mut came: Vec<(PathBuf, PathBuf)> = Vec::new();
    for file in files {
        if let Err(failure) = bring(file, &folder, key, certificate, &mut came) {
            for (new, _) in &came {
                let _ = fs::remove_file(new);
            }
            return Err(failure);
        }
    }
    // The old ones stay until the new ones have been compiled.
    let before: Vec<PathBuf> = kept(&folder)?;
    let mut aside: Vec<(PathBuf, PathBuf)> = Vec::new();
    for (new, place) in &came {
        if before.contains(place) {
            let mut old = place.clone().into_os_string();
            old.push(".old");
            fs::rename(place, &old)?;
            aside.push((old.into(), place.clone()));
        }
        fs::rename(new, place)?;
    }
    let compiled = compile_all(data);
    for (_, place) in came.iter().filter(|_| compiled.is_err()) {
        fs::remove_file(place)?;
    }
    for (old, place) in &aside {
        if compiled.is_err() { fs::rename(old, place)? } else { fs::remove_file(old)? }
    }
    compiled
}

/// Copies a file beside those that are there, under another name, and checks the copy: a stick may be changed
/// between two looks at it.
fn bring(
    file: &Path,
    folder: &Path,
    key: Option<&str>,
    certificate: Option<&Path>,
    came: &mut Vec<(PathBuf, PathBuf)>,
) -> Result<(), Failure> {
    if !source::is_source(file) {
        return Err(Failure(format!("{}: {}", file.display(), source::SourceError::Unknown)));
    }
    let name = file.file_name().unwrap_or_default();
    let mut new = name.to_owned();
    new.push(".new");
    let (new, place) = (folder.join(new), folder.join(name));
    if came.iter().any(|(_, other)| *other == place) {
        return Err(Failure(format!("{}: two of these files have this name; rename one", file.display())));
    }
    came.push((new.clone(), place));
    fs::copy(file, &new).map_err(|error| Failure(format!("{}: {error}", file.display())))?;
    if let Some(key) = key {
        verify(&new, file, key)?;
    }
    detached::check(&new, file, certificate)
}

fn remove(data: &Path, names: &[String]) -> Result<(), Failure> {
    let folder = data.join(SOURCES);
    let there = kept(&folder)?;
    for name in names {
        if !there.contains(&folder.join(name)) {
            return Err(Failure(format!(
                "there is no signature file {name}; `pillarbox signatures list` shows which there are"
            )));
        }
    }
    for name in names {
        fs::remove_file(folder.join(name))?;
    }
    if kept(&folder)?.is_empty() {
        return fs::remove_file(data.join(SET_FILE)).map_err(Failure::from);
    }
    compile_all(data)
}

/// The signature files in the folder.
fn kept(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries.collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let mut files: Vec<PathBuf> =
        entries.iter().map(fs::DirEntry::path).filter(|path| source::is_source(path)).collect();
    files.sort();
    Ok(files)
}

fn compile_all(data: &Path) -> Result<(), Failure> {
    let sources = kept(&data.join(SOURCES))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut progress = compile_progress(&sources);
    let made = i64::try_from(now).unwrap_or(0);
    compile::compile(&sources, &data.join(SET_FILE), made, &mut progress)
        .map_err(|error| Failure(error.to_string()))?;
    Ok(())
}

/// Shows how much of signature files has been read, where somebody looks.
pub(super) fn compile_progress(sources: &[PathBuf]) -> impl FnMut(u64) {
    let total: u64 = sources.iter().filter_map(|path| fs::metadata(path).ok()).map(|meta| meta.len()).sum();
    #[cfg(feature = "progress")]
    let bar = {
        use std::io::IsTerminal as _;
        let bar = if io::stderr().is_terminal() {
            indicatif::ProgressBar::new(total)
        } else {
            indicatif::ProgressBar::hidden()
        };
        if let Ok(style) = indicatif::ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}")
        {
            bar.set_style(style);
        }
        bar
    };
    let mut done = 0;
    move |bytes| {
        // Containers hold more than their own size.
        done = u64::min(done + bytes, total);
        #[cfg(feature = "progress")]
        bar.set_position(done);
    }
}

/// Makes sure that whoever holds the key signed the file, without reading it into memory. The signature stands
/// beside the file that it was `copied_from`.
fn verify(file: &Path, copied_from: &Path, key: &str) -> Result<(), Failure> {
    let signature = PathBuf::from(format!("{}.minisig", copied_from.display()));
    let named = |error: &dyn std::fmt::Display| Failure(format!("{}: {error}", signature.display()));
    let key = match fs::read_to_string(key) {
        Ok(text) => PublicKey::decode(&text),
        Err(_) => PublicKey::from_base64(key),
    };
    let key = key.map_err(|_| Failure("this is no public key of minisign, nor a file with one".into()))?;
    let text = fs::read_to_string(&signature).map_err(|error| named(&error))?;
    let found = Signature::decode(&text).map_err(|_| named(&"this is no signature of minisign"))?;
    let wrong = || named(&"it was not made with this key for this file; nothing was changed");
    let mut stream = key.verify_stream(&found).map_err(|_| wrong())?;
    let (mut from, mut piece) = (File::open(file)?, vec![0; 64 << 10]);
    loop {
        let read = from.read(&mut piece)?;
        if read == 0 {
            break;
        }
        stream.update(piece.get(..read).unwrap_or_default());
    }
    stream.finalize().map_err(|_| wrong())
}
