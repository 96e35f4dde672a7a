//! `pillarbox restore`: a data folder out of backups, or the proof that one could be made.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::ask;
use super::backup::{Meter, key_file, passphrase_of, warn};
use super::carry::count;
use super::office::{Failure, OfficeArgs};
use super::show;
use crate::config::Settings;
use crate::daemon::{control, rights};
use crate::flow::backup::{self, Findings, Header, Keys, LockKind, Place, Restored};
use crate::mail::date::{Timestamp, ZonedTime};

/// Restore the box from backups
///
/// Name the full backup and, in the order they were made, the incremental ones that build on it. Mail
/// keeps its identifiers, so mail programs do not download it again. Nothing is changed unless all of
/// the files are whole.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    office: OfficeArgs,
    /// Only look whether the files are whole and complete
    #[arg(long)]
    verify: bool,
    /// A file with secret keys, as `age-keygen` writes them; may be given more than once
    #[arg(long, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// The passphrase is in this file's first line
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Where the config file goes [default: pillarbox.toml in the data folder]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Move what is in the data folder aside
    #[arg(long)]
    force: bool,
    /// The backups, the full one first
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// One sentence: a file is not whole, the key does not open it, the data folder is not empty.
pub(super) fn run(args: &RestoreArgs) -> Result<(), Failure> {
    let data = &args.office.data;
    if !args.verify && control::answers(data) {
        return Err(Failure(format!("a server runs on {}; stop it first", data.display())));
    }
    let keys = keys(args)?;
    let read = Arc::new(AtomicU64::new(0));
    let total = args.files.iter().filter_map(|path| std::fs::metadata(path).ok()).map(|facts| facts.len()).sum();
    let (mut meter, counted) = (Meter::new(), read.clone());
    let mut watch = move || meter.show(counted.load(Ordering::Relaxed), total);
    if args.verify {
        let (header, findings) = backup::verify(&args.files, &keys, &read, &mut watch)?;
        drop(watch);
        tell_verified(args, &header, &findings)?;
        return refuse_damage(&findings);
    }
    let owner = owner_of(data);
    let place = Place { data: data.clone(), config: args.config.clone(), force: args.force, owner };
    let restored = backup::restore(&args.files, &keys, &place, &read, &mut watch)?;
    drop(watch);
    if rights::is_root() && owner.is_none() {
        give_to_user(data, &restored)?;
    }
    tell_restored(args, &restored)
}

/// Asks for what opens the files, where it is not named.
fn keys(args: &RestoreArgs) -> Result<Keys, Failure> {
    let mut keys = Keys::default();
    for path in &args.identity {
        keys.identities.extend(backup::identities(&key_file(path)?, &path.display().to_string())?);
    }
    let mut asks = false;
    for path in &args.files {
        match LockKind::of(path)? {
            LockKind::Passphrase => asks = true,
            LockKind::Recipients if keys.identities.is_empty() => {
                let text = "is encrypted for a key; name the file of its secret key with --identity";
                return Err(Failure(format!("{} {text}", path.display())));
            }
            LockKind::Recipients => {}
        }
    }
    if let Some(path) = &args.passphrase_file {
        keys.passphrase = Some(passphrase_of(path)?);
    } else if asks {
        if !ask::is_possible() {
            return Err(Failure("the backup needs its passphrase; name --passphrase-file".to_owned()));
        }
        keys.passphrase = Some(ask::passphrase("Passphrase of the backup: ", None)?);
    }
    Ok(keys)
}

/// Whose the data folder is, where root works for another user.
fn owner_of(data: &Path) -> Option<(u32, u32)> {
    let facts = std::fs::metadata(data).ok().filter(|facts| rights::is_root() && facts.uid() != 0)?;
    Some((facts.uid(), facts.gid()))
}

/// Gives a folder that root made to the user whom the restored config names.
fn give_to_user(data: &Path, restored: &Restored) -> Result<(), Failure> {
    let named = restored.config.as_deref().and_then(|path| Settings::load(path).ok()).and_then(|known| known.user);
    if let Some(Ok(Some(user))) = named.as_deref().map(|name| rights::user_to_become(Some(name), false)) {
        return Ok(backup::give(data, (user.uid, user.gid))?);
    }
    let text = "belongs to root now; give it to the server's user with `chown -R USER:`";
    warn(&format!("{} {text}", data.display()));
    Ok(())
}

/// What is told in JSON.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Told<'t, T> {
    id: &'t str,
    at: i64,
    host: &'t str,
    #[serde(flatten)]
    rest: &'t T,
}

fn told<'t, T>(header: &'t Header, rest: &'t T) -> Told<'t, T> {
    Told { id: &header.id, at: header.at, host: &header.host, rest }
}

fn tell_verified(args: &RestoreArgs, header: &Header, findings: &Findings) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    if args.office.json {
        return Ok(show::json(&mut out, &told(header, findings))?);
    }
    writeln!(out, "the files are whole: {}", summary(header, findings))?;
    Ok(())
}

fn tell_restored(args: &RestoreArgs, restored: &Restored) -> Result<(), Failure> {
    let Restored { header, findings, config, outside, aside } = restored;
    let data = args.office.data.display();
    for path in outside {
        let path = path.trim_start_matches('/');
        warn(&format!("/{path} was outside the data folder and is in {data}/restored/{path} now; put it in its place"));
    }
    if findings.damaged + findings.incomplete > 0 {
        let text = "were damaged already when the backup was made; run `pillarbox check-store`";
        warn(&format!("{} bodies or rows {text}", findings.damaged.max(findings.incomplete)));
    }
    let mut out = io::stdout().lock();
    if args.office.json {
        return Ok(show::json(&mut out, &told(header, restored))?);
    }
    writeln!(out, "restored into {data}: {}", summary(header, findings))?;
    if let Some(path) = aside {
        writeln!(out, "what was there before is in {}; remove it when you miss nothing", path.display())?;
    }
    match config {
        Some(path) if path.extension().is_some_and(|extension| extension == "restored") => {
            let text = "a config was there and stays; the restored one is beside it:";
            writeln!(out, "{text} {}", path.display())?;
        }
        Some(path) => writeln!(out, "the config is {}", path.display())?,
        None => {}
    }
    Ok(())
}

fn summary(header: &Header, findings: &Findings) -> String {
    let (accounts, mailboxes) = (count(findings.accounts, "account"), count(findings.mailboxes, "mailbox"));
    let (messages, bytes) = (count(findings.messages, "message"), show::bytes(findings.bytes));
    let Header { id, host, at, .. } = header;
    let at = ZonedTime::utc(Timestamp(*at)).to_rfc5322();
    format!("{accounts}, {mailboxes}, {messages} ({bytes}) of {host} as of {at}, id {id}")
}

/// Files that are whole may yet hold what was damaged in the store before.
fn refuse_damage(findings: &Findings) -> Result<(), Failure> {
    if findings.damaged + findings.incomplete == 0 {
        return Ok(());
    }
    Err(Failure(format!(
        "the files are what was written, but {} rows or pieces were damaged and {} bodies incomplete in the store \
         already; run `pillarbox check-store` there and make a new full backup",
        findings.damaged, findings.incomplete
    )))
}
