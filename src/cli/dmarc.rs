//! `pillarbox dmarc`: what others report about mail in our domains' names, and what we report to them.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::office::{self, DataOffice, Office as _, OfficeArgs, unexpected};
use super::{Failure, print, show};
use crate::daemon::control::{Order, Outcome};
use crate::filter::sender::{FILE_MAX, Summary};
use crate::flow::report::{Kind, Owed};
use crate::mail::date::{Timestamp, ZonedTime};

/// Addresses that are shown of each domain.
const SHOWN_MAX: usize = 50;

/// Read DMARC reports, who sends in your domains' names; and see and send those to others
#[derive(Debug, clap::Args)]
pub(super) struct DmarcArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Add reports up: messages or their attachments (.xml, .gz, .zip), or folders of them
    Summary {
        /// Files and folders
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Answer in JSON, for scripts
        #[arg(long)]
        json: bool,
    },
    /// Show what reports to other domains will tell, about DMARC and TLS, and which are to be sent
    Report {
        #[command(flatten)]
        office: OfficeArgs,
        /// Send all of it now, the day so far included
        #[arg(long)]
        now: bool,
    },
}

/// Runs the command.
pub(super) fn run(args: &DmarcArgs) -> Result<(), Failure> {
    let (files, json) = match &args.what {
        What::Summary { files, json } => (files, json),
        What::Report { office, now } => return report(office, *now).map_err(|office::Failure(why)| why.into()),
    };
    let mut summary = Summary::default();
    for path in files {
        if path.is_dir() {
            let mut inside: Vec<PathBuf> =
                std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
            inside.retain(|path| path.is_file());
            inside.sort();
            for file in &inside {
                add(&mut summary, file);
            }
        } else {
            add(&mut summary, path);
        }
    }
    if summary.reports == 0 {
        return Err("there is no DMARC report in these files".into());
    }
    if *json {
        return print(&(serde_json::to_string(&summary)? + "\n"));
    }
    print(&told(&summary))
}

/// Reports to other domains.
fn report(args: &OfficeArgs, now: bool) -> Result<(), office::Failure> {
    let outcome = DataOffice::open(&args.data)?.give(Order::Reports { send: now })?;
    let Outcome::Reports { owed, growing, sent } = outcome else { return Err(unexpected()) };
    let mut out = std::io::stdout().lock();
    if args.json {
        return Ok(show::json(&mut out, &json!({ "owed": owed, "growing": growing, "sent": sent }))?);
    }
    if now {
        writeln!(out, "{sent} {} sent", if sent == 1 { "report was" } else { "reports were" })?;
    }
    if owed.is_empty() && growing.is_empty() {
        return Ok(writeln!(out, "nothing waits to be told")?);
    }
    let row = |owed: &Owed, when: &str| {
        let kind = if owed.kind == Kind::Dmarc { "mail" } else { "TLS" };
        let since = ZonedTime::utc(owed.period.begin).to_imap();
        [kind.to_owned(), owed.domain.clone(), owed.count.to_string(), since, when.to_owned()]
    };
    let mut table = vec![["ABOUT", "DOMAIN", "COUNT", "SINCE", "SENT"].map(str::to_owned)];
    table.extend(owed.iter().map(|owed| row(owed, "when the DNS says where to")));
    table.extend(growing.iter().map(|growing| row(growing, "tomorrow")));
    Ok(show::table(&mut out, &table)?)
}

/// A file without a report is named, and the others count.
fn add(summary: &mut Summary, path: &Path) {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_MAX as u64 + 1).read_to_end(&mut bytes));
    let added = read.map_err(|error| error.to_string()).and_then(|_| summary.add(&bytes));
    if let Err(error) = added {
        eprintln!("pillarbox: {}: {error}", path.display());
    }
}

fn told(summary: &Summary) -> String {
    let day = |secs: u64| {
        let at = ZonedTime::utc(Timestamp(i64::try_from(secs).unwrap_or(0))).to_imap();
        at.split(' ').next().unwrap_or_default().to_owned()
    };
    let mut text = format!(
        "{} reports from {}, {} to {}\n",
        summary.reports,
        summary.reporters.keys().take(5).cloned().collect::<Vec<_>>().join(", "),
        day(summary.begin),
        day(summary.end)
    );
    for (domain, sources) in &summary.domains {
        let all: u64 = sources.values().map(|source| source.messages).sum();
        let failed: u64 = sources.values().map(|source| source.failed).sum();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{domain}: {all} messages, {failed} that neither SPF nor DKIM stands for");
        let _ = writeln!(text, "  {:<40} {:>9} {:>9} {:>9} {:>9}", "address", "messages", "SPF", "DKIM", "neither");
        let mut sources: Vec<_> = sources.iter().collect();
        sources.sort_by_key(|(_, source)| (std::cmp::Reverse(source.failed), std::cmp::Reverse(source.messages)));
        for (address, source) in sources.iter().take(SHOWN_MAX) {
            let _ = writeln!(
                text,
                "  {address:<40} {:>9} {:>9} {:>9} {:>9}",
                source.messages, source.spf, source.dkim, source.failed
            );
        }
        if sources.len() > SHOWN_MAX {
            let _ = writeln!(text, "  and {} more addresses (--json has all)", sources.len() - SHOWN_MAX);
        }
    }
    text
}
