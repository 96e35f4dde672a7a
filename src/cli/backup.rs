//! `pillarbox backup`: the whole box into one encrypted file.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::ask;
use super::office::{DataOffice, Failure, Office as _, OfficeArgs, Remote, unexpected};
use super::show;
use crate::config::Settings;
use crate::daemon::control::{Order, Outcome};
use crate::flow::backup::{self, BackupError, Job, Lock, Make, PASSPHRASE_MIN, Plan, Report, Since};

/// Where the config is when nothing else is said: the first of these that is there.
const CONFIG_DEFAULTS: [&str; 2] = ["/etc/pillarbox/pillarbox.toml", "/etc/pillarbox.toml"];

/// Longest file of a passphrase, recipients or identities, in bytes.
const KEY_FILE_MAX: u64 = 64 << 10;

/// Back up the whole box into one encrypted file
///
/// Mail, accounts, passwords, settings and keys, as they are at one moment, while the server runs. The
/// file is an age file; `pillarbox restore` makes a box of it.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct BackupArgs {
    #[command(flatten)]
    office: OfficeArgs,
    /// Only what came since an earlier backup: `last`, `full` (the last full one) or its name
    #[arg(long, value_name = "ID")]
    since: Option<String>,
    /// Encrypt for this key (`age1...`); may be given more than once
    #[arg(long, value_name = "KEY", conflicts_with = "passphrase_file")]
    recipient: Vec<String>,
    /// Encrypt for the keys in this file, one a line
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    recipients_file: Vec<PathBuf>,
    /// Encrypt with the passphrase in this file's first line, instead of asking for one
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The config file to take along [default: pillarbox.toml in /etc/pillarbox or /etc]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    /// A file, a folder to make one in, or `-` for standard output
    #[arg(value_name = "TARGET")]
    target: PathBuf,
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        Self(error.to_string())
    }
}

/// Runs the command.
///
/// # Errors
/// One sentence: the store can't be read, the target can't be written, the key makes no sense.
pub(super) fn run(args: &BackupArgs) -> Result<(), Failure> {
    let data = &args.office.data;
    if !data.is_dir() {
        let text = format!("there is no data folder {}; name it with --data DIR", data.display());
        return Err(Failure(text));
    }
    // Questions come first: nothing is held open while somebody thinks.
    let lock = choose_lock(args)?;
    let (config, named) = config_and_its_files(args.config.as_deref())?;
    let files = backup::gather(data, config.as_deref(), &named)?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut plan = Plan { target: args.target.clone(), force: args.force, lock, files, host };
    plan.check()?;
    let report = make(args, &mut plan)?;
    if plan.folder().is_some_and(|folder| is_on_same_disk(&folder, data)) {
        let text = "lies on the same file system as the mail itself: if that fails, both are gone";
        warn(&format!("{} {text}", args.target.display()));
    }
    for text in &plan.files.left_out {
        warn(text);
    }
    if report.damaged > 0 {
        let text = "damaged in the store already and are in the backup as they are; run `pillarbox check-store`";
        warn(&format!("{} bodies are {text}", report.damaged));
    }
    tell(args, &report)
}

/// Makes the backup of the running server, or of the store when none runs.
fn make(args: &BackupArgs, plan: &mut Plan) -> Result<Report, Failure> {
    let data = &args.office.data;
    let mut meter = Meter::new();
    let mut watch = |seen, about| meter.show(seen, about);
    if let Some(mut server) = Remote::connect(data)? {
        match server.give(&Order::Backup { since: args.since.clone() })? {
            Outcome::Done => {}
            Outcome::Refused { reason } => return Err(Failure(reason)),
            _ => return Err(unexpected()),
        }
        let mut making = Make::new(plan, &mut watch);
        let end = backup::receive(&mut server.into_reader(), &mut |kind, bytes| making.take(kind, bytes))?;
        making.take(backup::Kind::End, &end)?;
        let report = making.finish()?;
        let noted = Remote::connect(data).and_then(|server| match server {
            Some(mut server) => server.give(&Order::NoteBackup { made: report.made.clone() }),
            None => Err(Failure("the server has ended".to_owned())),
        });
        note(noted.and_then(|outcome| match outcome {
            Outcome::Done => Ok(()),
            Outcome::Refused { reason } => Err(Failure(reason)),
            _ => Err(unexpected()),
        }));
        return Ok(report);
    }
    let mut opened = DataOffice::open(data)?;
    let DataOffice::Store(store, _) = &opened else {
        return Err(Failure("a server is just starting on this data folder; try again".to_owned()));
    };
    let job = Job::begin(store, args.since.as_deref().map(Since::parse).as_ref())?;
    let mut making = Make::new(plan, &mut watch);
    // What goes wrong is told by `finish`.
    let _ = job.run(&mut making);
    let report = making.finish()?;
    drop(job);
    note(opened.give(Order::NoteBackup { made: report.made.clone() }).map(drop));
    Ok(report)
}

/// A backup that the store does not remember is as good as any, but nothing can build on it.
fn note(noted: Result<(), Failure>) {
    if let Err(Failure(why)) = noted {
        warn(&format!("the backup is made, but the store does not remember it ({why}): --since can't name it"));
    }
}

/// What the new backup is encrypted for.
fn choose_lock(args: &BackupArgs) -> Result<Lock, Failure> {
    if let Some(path) = &args.passphrase_file {
        let passphrase = passphrase_of(path)?;
        if passphrase.len() < PASSPHRASE_MIN {
            let text = format!("the passphrase in {} has fewer than {PASSPHRASE_MIN} bytes", path.display());
            return Err(Failure(text));
        }
        return Ok(Lock::Passphrase(passphrase));
    }
    let mut keys = Vec::new();
    for key in &args.recipient {
        keys.extend(backup::recipients(key, "--recipient")?);
    }
    for path in &args.recipients_file {
        keys.extend(backup::recipients(&key_file(path)?, &path.display().to_string())?);
    }
    if !keys.is_empty() {
        return Ok(Lock::Recipients(keys));
    }
    if !ask::is_possible() {
        return Err(Failure("a backup is always encrypted: name --recipient, or --passphrase-file".to_owned()));
    }
    Ok(Lock::Passphrase(ask::passphrase("New passphrase for the backup: ", Some(PASSPHRASE_MIN))?))
}

/// The first line of a file.
pub(super) fn passphrase_of(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let text = key_file(path)?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(Failure(format!("the first line of {} is empty; it should hold the passphrase", path.display())));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// A small secret file.
pub(super) fn key_file(path: &Path) -> Result<Zeroizing<String>, Failure> {
    use std::io::Read as _;
    let mut text = Zeroizing::new(String::new());
    let read = std::fs::File::open(path).and_then(|file| file.take(KEY_FILE_MAX).read_to_string(&mut text));
    read.map_err(|error| Failure(format!("{}: {error}", path.display())))?;
    Ok(text)
}

/// The config that was given, or where it is when nothing else is said.
pub(super) fn default_config(given: Option<&Path>) -> Option<&Path> {
    given.or_else(|| CONFIG_DEFAULTS.iter().map(Path::new).find(|path| path.exists()))
}

/// The config to take along, and the certificate files it names.
fn config_and_its_files(given: Option<&Path>) -> Result<(Option<PathBuf>, Vec<PathBuf>), Failure> {
    let Some(path) = default_config(given) else { return Ok((None, Vec::new())) };
    match Settings::load(path) {
        Ok(settings) => {
            Ok((Some(path.to_owned()), [settings.tls.certificate, settings.tls.key].into_iter().flatten().collect()))
        }
        Err(error) if given.is_some() => Err(Failure(error.to_string())),
        // One that was not asked for is taken as it is, good or not, if it can be read.
        Err(error) => {
            warn(&format!("certificate files that the config names are not in the backup ({error})"));
            Ok((Some(path.to_owned()), Vec::new()))
        }
    }
}

fn is_on_same_disk(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|facts| facts.dev()).ok();
    device(one).is_some() && device(one) == device(other)
}

/// Says something that does not end the command.
pub(super) fn warn(text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _ = writeln!(io::stderr(), "pillarbox: {text}");
}

fn tell(args: &BackupArgs, report: &Report) -> Result<(), Failure> {
    let Some(file) = &report.file else {
        if !args.office.json {
            warn(&format!("the backup {} is made ({})", report.made.id, show::bytes(report.made.bytes)));
        }
        return Ok(());
    };
    let mut out = io::stdout().lock();
    if args.office.json {
        return Ok(show::json(&mut out, report)?);
    }
    let kind = if report.made.base.is_none() { "a full backup" } else { "an incremental backup" };
    writeln!(out, "made {kind}: {} ({}, id {})", file.display(), show::bytes(report.made.bytes), report.made.id)?;
    Ok(())
}

/// How far a backup or restore is, where somebody looks.
pub(super) struct Meter {
    #[cfg(feature = "progress")]
    bar: indicatif::ProgressBar,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            #[cfg(feature = "progress")]
            bar: bar(),
        }
    }

    /// So many bytes are done, of about so many.
    pub(super) fn show(&mut self, done: u64, about: u64) {
        #[cfg(feature = "progress")]
        if !self.bar.is_hidden() {
            self.bar.set_length(about.max(done));
            self.bar.set_position(done);
        }
        #[cfg(not(feature = "progress"))]
        let _ = (done, about);
    }
}

#[cfg(feature = "progress")]
fn bar() -> indicatif::ProgressBar {
    use std::io::IsTerminal as _;

    if !io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let bar = indicatif::ProgressBar::new(0);
    if let Ok(style) =
        indicatif::ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left")
    {
        bar.set_style(style);
    }
    bar
}

#[cfg(feature = "progress")]
impl Drop for Meter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
