//! `pillarbox import`: mail from mbox files and Maildirs into an account.

use std::path::PathBuf;

use super::carry::{Watch, parse_folder, report, with_account};
use super::office::{Failure, OfficeArgs};
use crate::flow::carry::{ImportRequest, import};
use crate::mail::mailbox::MailboxName;

/// Import mail from mbox files and Maildirs
///
/// Flags, folders and dates are kept. When it was cut off, the same command goes on where it
/// stopped; given again later, it imports what came since.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ImportArgs {
    #[command(flatten)]
    office: OfficeArgs,
    /// Address of the account that gets the mail
    #[arg(long, value_name = "ADDRESS")]
    account: String,
    /// Mailbox for mail that lies in no named folder, and above those that do [default: INBOX]
    #[arg(long, value_name = "NAME", value_parser = parse_folder)]
    folder: Option<MailboxName>,
    /// Import everything, even what was imported before
    #[arg(long)]
    again: bool,
    /// An mbox file, a Maildir, or a folder of either
    #[arg(value_name = "FILE-OR-DIR")]
    source: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// One sentence: the source cannot be read, there is no such account, or the store takes no more.
pub(super) fn run(args: &ImportArgs) -> Result<(), Failure> {
    let request = ImportRequest { source: &args.source, folder: args.folder.as_ref(), again: args.again };
    let summary = with_account(&args.office, &args.account, |carrier| import(carrier, &mut Watch::new(), &request))?;
    report(&args.office, "imported", &summary)
}
