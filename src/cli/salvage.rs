//! `pillarbox salvage`: mail out of a ruined store or the image of a card.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::carry::Watch;
use super::export::Format;
use super::office::Failure;
use super::show;
use crate::flow::carry::{Observer as _, Progress, Salvaged, Summary, export};
use crate::mail::date::Timestamp;
use crate::store::salvage::{Finding, Loss, Ruin};

/// Bodies that could not be put together and are named on the terminal; the report names all.
const NAMED_MAX: usize = 5;

/// The report's name in the folder.
const REPORT: &str = "salvage-report.txt";

/// Get mail out of a ruined store
///
/// Reads a mail.redb, a mail.journal or the image of a whole card, and writes every message that is
/// there in full. Nothing is changed in FILE. Mail of all accounts comes out together, and so does
/// deleted mail whose place was not used again; flags and mailboxes are not recovered. Where a backup is
/// at hand, `pillarbox restore` brings back more.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SalvageArgs {
    /// The ruined mail.redb, a mail.journal, the image of a card, or the card's device
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder to write into; made if it is not there
    #[arg(long = "to", value_name = "DIR")]
    target: PathBuf,
    /// Which files to write
    #[arg(long, value_enum, default_value = "maildir")]
    format: Format,
    /// Answer in JSON, for scripts
    #[arg(long)]
    json: bool,
}

/// What came of it, for scripts.
#[derive(serde::Serialize)]
struct Outcome {
    proven: usize,
    unproven: usize,
    incomplete: usize,
    written: Summary,
    finding: Finding,
}

/// Runs the command.
///
/// # Errors
/// One sentence: the file cannot be read, the folder cannot be written, or there was no mail in it.
pub(super) fn run(args: &SalvageArgs) -> Result<(), Failure> {
    let (file, target) = (args.file.display(), args.target.display());
    if args.target.join(REPORT).exists() {
        return Err(Failure(format!("{target} holds what was salvaged before; give another folder with --to")));
    }
    let mut watch = Watch::new();
    let ruin = Ruin::read(&args.file, &mut |bytes, bytes_total| {
        watch.progress(&Progress { messages: 0, bytes, bytes_total });
    });
    let ruin = ruin.map_err(|error| Failure(format!("cannot read {file}: {error}")))?;
    drop(watch);
    let (proven, unproven) = ruin.count();
    if proven + unproven == 0 {
        let pieces = ruin.finding().pieces;
        return Err(Failure(format!(
            "no whole message was found in {file} ({pieces} pieces of mail); nothing was written. \
             Try the image of the whole card, the mail.journal beside it, or a backup"
        )));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut salvaged = Salvaged::new(&ruin, Timestamp(i64::try_from(now).unwrap_or(0)));
    let written = export(&mut salvaged, &mut Watch::new(), args.format.into(), &args.target, None)
        .map_err(|error| Failure(error.to_string()))?;
    write_report(&args.target, &report(&args.file, &ruin, usize::MAX))?;
    let mut out = io::stdout().lock();
    if args.json {
        let incomplete = ruin.losses().len();
        show::json(&mut out, &Outcome { proven, unproven, incomplete, written, finding: ruin.finding() })?;
    } else {
        out.write_all(report(&args.file, &ruin, NAMED_MAX).as_bytes())?;
        writeln!(out, "written to {target}, with {REPORT} beside the mail")?;
    }
    Ok(())
}

/// What was found, in words; of what is not whole, up to `named` are named.
fn report(file: &Path, ruin: &Ruin, named: usize) -> String {
    let ((proven, unproven), finding) = (ruin.count(), ruin.finding());
    let mut text = format!(
        "{}: {} read, {proven} messages are whole (proven by checksum and hash)\n",
        file.display(),
        show::bytes(finding.bytes)
    );
    let mut line = |condition: bool, line: String| {
        if condition {
            text.push_str(&line);
            text.push('\n');
        }
    };
    line(
        unproven > 0,
        format!(
            "{unproven} more seem to have all their pieces, but what proves them is lost: they are in \"Unproven\""
        ),
    );
    line(finding.journaled > 0, format!("{} of the bodies were found in the journal", finding.journaled));
    line(finding.unreadable > 0, format!("{} could not be read at all", show::bytes(finding.unreadable)));
    let losses = ruin.losses();
    line(!losses.is_empty(), format!("{} messages are not whole and were not written:", losses.len()));
    for Loss { blob, size, missing, found } in losses.iter().take(named) {
        let size = size.map_or("of unknown size".to_owned(), |size| format!("of {}", show::bytes(size)));
        let _ = match missing {
            0 => writeln!(text, "  body {} {size}: its {found} pieces do not make a whole", blob.0),
            _ => writeln!(text, "  body {} {size}: {missing} pieces are missing, {found} are there", blob.0),
        };
    }
    if losses.len() > named {
        let _ = writeln!(text, "  and {} more, named in {REPORT}", losses.len() - named);
    }
    text.push_str("deleted mail whose place was not used again is among what was found\n");
    text
}

fn write_report(folder: &Path, text: &str) -> Result<(), Failure> {
    let path = folder.join(REPORT);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| Failure(format!("cannot write {}: {error}", path.display())))
}
