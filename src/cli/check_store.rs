//! `pillarbox check-store`: is everything in the store whole, and what can be set right?

use std::io::{self, BufRead as _, Read as _, Write};
use std::path::Path;
use std::sync::Arc;

use super::carry::Watch;
use super::office::{DataOffice, Failure, OfficeArgs, Remote, unexpected};
use super::show;
use crate::daemon::control::{CheckEvent, EVENT_LINE_MAX, Examination, Order, Outcome, examine};
use crate::flow::carry::{Observer as _, Progress};
use crate::store::check::{CheckStop, Remedy, Report};
use crate::store::site::FolderSite;
use crate::store::{OpenError, Store, StoreConfig};

/// Check the store, and repair what can be
///
/// Reads everything: redb's checksums, every piece of every message and its hash, all counters and
/// references, the journal. What is wrong is named, message by message. Works beside a running
/// server, slowly. Exit code 0 says that all is well, 1 that something is damaged, 2 that the store
/// could not be checked.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct CheckStoreArgs {
    #[command(flatten)]
    office: OfficeArgs,
    /// Count counters and references anew, make what was drawn from messages anew, and put mail that
    /// nobody refers to into a mailbox "Recovered"; nothing that can still be read is removed
    #[arg(long)]
    repair: bool,
    /// Take every message apart again and compare
    #[arg(long, conflicts_with = "quick")]
    deep: bool,
    /// Check what is counted and linked, and the journal, but read no mail
    #[arg(long)]
    quick: bool,
}

/// Runs the command; tells whether all is well.
///
/// # Errors
/// One sentence: the store cannot be opened or read.
pub(super) fn run(args: &CheckStoreArgs) -> Result<bool, Failure> {
    let examination = Examination { repair: args.repair, deep: args.deep, quick: args.quick };
    let mut clerk = Clerk { json: args.office.json, watch: Watch::new(), backup: false, end: None };
    if let Some(mut server) = Remote::connect(&args.office.data)? {
        match server.give(&Order::CheckStore { examination })? {
            Outcome::Done => {}
            Outcome::Refused { reason } => return Err(Failure(reason)),
            _ => return Err(unexpected()),
        }
        let mut stream = server.into_reader();
        let mut line = Vec::new();
        while clerk.end.is_none() {
            line.clear();
            (&mut stream).take(EVENT_LINE_MAX as u64).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                return Err(Failure("the server stopped before the check came to its end".to_owned()));
            }
            let event = serde_json::from_slice(&line)
                .map_err(|error| Failure(format!("the server's answer makes no sense: {error}")))?;
            clerk.take(&event)?;
        }
    } else {
        let opened = DataOffice::open_by(&args.office.data, |folder| open(folder, args.repair))?;
        let DataOffice::Store(store, _) = &opened else {
            return Err(Failure("a server is just starting on this data folder; try again".to_owned()));
        };
        examine(store, examination, false, &CheckStop::default(), &mut |event| clerk.take(&event));
    }
    let Clerk { json, watch, backup, end } = clerk;
    drop(watch);
    let report = end.ok_or_else(unexpected)?.map_err(Failure)?;
    let mut out = io::stdout().lock();
    if json {
        show::json(&mut out, &CheckEvent::Done { report: report.clone() })?;
    } else {
        write(&mut out, &report, args, backup)?;
    }
    Ok(report.is_sound())
}

/// Opens the store; for a repair also without a journal that is lost, after saying what that costs.
fn open(folder: &Path, repair: bool) -> Result<Store, OpenError> {
    let config = StoreConfig::default();
    match Store::open(folder, &config) {
        Err(error @ (OpenError::JournalMissing(_) | OpenError::JournalDamaged(..))) if repair => {
            // Where standard error is closed there is nobody to tell.
            let _ = writeln!(
                io::stderr(),
                "pillarbox: {error}\npillarbox: going on without it; what came since the last checkpoint, at most some \
                 minutes of busy mail, is given up"
            );
            Store::open_without_journal(Arc::new(FolderSite::new(folder)), &config)
        }
        opened => opened,
    }
}

/// Writes events down.
struct Clerk {
    json: bool,
    watch: Watch,
    /// Something was found that a repair does not help.
    backup: bool,
    /// What it came to, or why it could not be done.
    end: Option<Result<Report, String>>,
}

impl Clerk {
    fn take(&mut self, event: &CheckEvent) -> io::Result<()> {
        let (text, more) = match event {
            CheckEvent::Progress { progress } => {
                let (bytes, bytes_total) = (progress.bytes, progress.bytes_total);
                self.watch.progress(&Progress { messages: progress.messages, bytes, bytes_total });
                return Ok(());
            }
            CheckEvent::Done { report } => {
                self.end = Some(Ok(report.clone()));
                return Ok(());
            }
            CheckEvent::Failed { reason } => {
                self.end = Some(Err(reason.clone()));
                return Ok(());
            }
            CheckEvent::Found { finding, text } => {
                self.backup |= finding.damage.remedy() == Remedy::Backup;
                (text, None)
            }
            CheckEvent::Repaired { text, what, .. } => (text, Some(what)),
        };
        let json = self.json;
        self.watch.beside(|| {
            let mut out = io::stdout().lock();
            match more {
                _ if json => show::json(&mut out, event)?,
                None => writeln!(out, "{text}")?,
                Some(what) => writeln!(out, "repaired: {text}; {what}")?,
            }
            out.flush()
        })
    }
}

fn write(out: &mut impl Write, report: &Report, args: &CheckStoreArgs, backup: bool) -> io::Result<()> {
    let Report { accounts, mailboxes, messages, bodies, bytes, repaired, repairable, damaged, .. } = report;
    write!(out, "{accounts} accounts, {mailboxes} mailboxes, {messages} messages")?;
    if !args.quick {
        write!(out, ", {bodies} bodies, {} read", show::bytes(*bytes))?;
    }
    write!(out, ": ")?;
    if *repaired > 0 {
        write!(out, "{repaired} repaired, ")?;
    }
    match (repairable, damaged) {
        _ if report.is_sound() => writeln!(out, "all is well")?,
        (0, 0) => writeln!(out, "nothing is damaged as far as it was checked")?,
        (0, damaged) => writeln!(out, "{damaged} damaged")?,
        (repairable, 0) => writeln!(out, "{repairable} can be repaired")?,
        (repairable, damaged) => writeln!(out, "{damaged} damaged, {repairable} can be repaired")?,
    }
    for unchecked in &report.unchecked {
        writeln!(out, "Not checked: {unchecked}.")?;
    }
    if report.stopped {
        writeln!(out, "The check was stopped before its end.")?;
    }
    if *repairable > 0 {
        writeln!(out, "`pillarbox check-store --repair` sets right what can be repaired.")?;
    }
    if backup {
        let file = args.office.data.join("mail.redb");
        writeln!(
            out,
            "What is damaged can't be made whole here: restore a backup, or try \
             `pillarbox salvage {} --to DIR` while the server is stopped.",
            file.display()
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(report: &Report, backup: bool) -> String {
        let office = OfficeArgs { data: "/box".into(), json: false };
        let args = CheckStoreArgs { office, repair: false, deep: false, quick: false };
        let mut out = Vec::new();
        write(&mut out, report, &args, backup).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_end_says_what_to_do() {
        let well = Report { accounts: 2, mailboxes: 12, messages: 5, bodies: 2, bytes: 2048, ..Report::default() };
        assert_eq!(said(&well, false), "2 accounts, 12 mailboxes, 5 messages, 2 bodies, 2 KiB read: all is well\n");
        let ill = Report { repairable: 1, damaged: 2, ..well.clone() };
        let text = said(&ill, true);
        assert!(text.contains("2 damaged, 1 can be repaired\n`pillarbox check-store --repair`"), "{text}");
        assert!(text.contains("`pillarbox salvage /box/mail.redb --to DIR`"), "{text}");
        let partly = Report { unchecked: vec!["this".to_owned()], ..well };
        assert!(said(&partly, false).contains("as far as it was checked\nNot checked: this.\n"));
    }
}
