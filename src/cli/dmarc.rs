//! `pillarbox dmarc`: what others report about mail in our domains' names.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::{Failure, print};
use crate::filter::sender::{FILE_MAX, Summary};
use crate::mail::date::{Timestamp, ZonedTime};

/// Addresses that are shown of each domain.
const SHOWN_MAX: usize = 50;

/// Read DMARC reports: who sends in your domains' names, and what becomes of it
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
}

/// Runs the command.
pub(super) fn run(args: &DmarcArgs) -> Result<(), Failure> {
    let What::Summary { files, json } = &args.what;
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
