//! `pillarbox export`: mail of an account to mbox files or a Maildir.

use std::path::PathBuf;

use super::carry::{Watch, parse_folder, report, with_account};
use super::office::{Failure, OfficeArgs};
use crate::flow::carry::{self, export};
use crate::mail::mailbox::MailboxName;

/// Export mail to mbox files or a Maildir
///
/// Given again, it adds what came since; flags changed and messages deleted meanwhile are not
/// followed.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    office: OfficeArgs,
    /// Address of the account
    #[arg(long, value_name = "ADDRESS")]
    account: String,
    /// Which files to write
    #[arg(long, value_enum)]
    format: Format,
    /// Only this mailbox
    #[arg(long, value_name = "NAME", value_parser = parse_folder)]
    folder: Option<MailboxName>,
    /// Folder to write into; made if it is not there
    #[arg(value_name = "DIR")]
    target: PathBuf,
}

/// Formats by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// An mbox file for each mailbox
    Mbox,
    /// A Maildir with folders (Maildir++)
    Maildir,
}

impl From<Format> for carry::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Mbox => Self::Mbox,
            Format::Maildir => Self::Maildir,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// One sentence: the files cannot be written, or there is no such account or mailbox.
pub(super) fn run(args: &ExportArgs) -> Result<(), Failure> {
    let summary = with_account(&args.office, &args.account, |carrier| {
        export(carrier, &mut Watch::new(), args.format.into(), &args.target, args.folder.as_ref())
    })?;
    if let Some(folder) = args.folder.as_ref().filter(|_| summary.folders == 0 && summary.broken == 0) {
        return Err(Failure(format!("the account has no mailbox {}", folder.as_str())));
    }
    report(&args.office, "exported", &summary)
}
