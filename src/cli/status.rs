//! `pillarbox status`: how the running server is.

use std::io::{self, Write};
use std::path::PathBuf;

use super::office::{Remote, unexpected};
use super::{Failure, show};
use crate::daemon::control::{Order, Outcome, Status};
use crate::daemon::scrub::ScrubState;
use crate::mail::date::{Timestamp, ZonedTime};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Data folder of the server
    #[arg(long, value_name = "DIR", default_value = "/var/lib/pillarbox")]
    data: PathBuf,
    /// Answer in JSON, for scripts
    #[arg(long)]
    json: bool,
}

/// Asks the server and shows what it says.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let server = Remote::connect(&args.data)?;
    let mut server = server.ok_or_else(|| format!("no server runs on {}", args.data.display()))?;
    let Outcome::Status { status } = server.give(&Order::Status)? else { return Err(unexpected().into()) };
    let mut out = io::stdout().lock();
    if args.json {
        show::json(&mut out, &status)?;
    } else {
        write(&mut out, &status)?;
    }
    Ok(())
}

fn write(out: &mut impl Write, status: &Status) -> io::Result<()> {
    let Status { version, pid, uptime_secs, sessions, memory_bytes, memory_peak_bytes, store, .. } = status;
    writeln!(out, "Pillarbox {version}, process {pid}, up {}", duration(*uptime_secs))?;
    writeln!(out)?;
    let heading = ["Service", "Address", "Sessions"].map(str::to_owned);
    let row = |listener: &crate::daemon::control::ListenerStatus| {
        [listener.name.clone(), listener.address.clone(), listener.sessions.to_string()]
    };
    let rows: Vec<[String; 3]> = std::iter::once(heading).chain(status.listeners.iter().map(row)).collect();
    show::table(out, &rows)?;
    writeln!(out)?;
    let memory = match memory_peak_bytes {
        0 => show::bytes(*memory_bytes),
        peak => format!("{} (at most {})", show::bytes(*memory_bytes), show::bytes(*peak)),
    };
    let written = store.journal_written.saturating_add(store.index_written);
    let per_message = written.checked_div(store.messages).map_or_else(
        || "no message yet".to_owned(),
        |each| format!("{} for each of {} messages", show::bytes(each), store.messages),
    );
    let checkpoint = store.last_checkpoint.map_or_else(
        || "none since start".to_owned(),
        |at| format!("{} ({} since start)", ZonedTime::utc(Timestamp(at)).to_rfc5322(), store.checkpoints),
    );
    for (name, value) in [
        ("Sessions", sessions.to_string()),
        ("Memory", memory),
        ("Store", show::bytes(store.store_bytes)),
        ("Checkpoint", checkpoint),
        ("Written", format!("{} since start, {per_message}", show::bytes(written))),
        ("Syncs", store.syncs.to_string()),
        ("Scrub", scrubbed(status.scrub.as_ref())),
        ("Last backup", last_backup(status)),
    ] {
        writeln!(out, "{name:<12}{value}")?;
    }
    for finding in
        status.scrub.iter().flat_map(|scrub| scrub.last.iter().flat_map(|last| &last.named).chain(&scrub.named))
    {
        writeln!(out, "damaged: {finding}")?;
    }
    Ok(())
}

/// When the whole store was read last, and what that found.
fn scrubbed(scrub: Option<&ScrubState>) -> String {
    use std::fmt::Write as _;

    let Some(scrub) = scrub else { return "off".to_owned() };
    let mut text = scrub.last.as_ref().map_or_else(
        || "not finished for the first time".to_owned(),
        |last| {
            let at = ZonedTime::utc(Timestamp(last.finished)).to_rfc5322();
            format!("finished {at}, {} damaged", last.damaged)
        },
    );
    if scrub.damaged > 0 {
        // Writing to a String cannot fail.
        let _ = write!(text, "; {} damaged so far in the one under way", scrub.damaged);
    }
    text
}

fn last_backup(status: &Status) -> String {
    let Some(made) = &status.last_backup else { return "none".to_owned() };
    let kind = if made.base.is_none() { "full" } else { "incremental" };
    let at = ZonedTime::utc(Timestamp(made.at)).to_rfc5322();
    format!("{at} ({kind}, {}, {})", show::bytes(made.bytes), made.id)
}

/// A stretch of time in its two largest units.
fn duration(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::control::ListenerStatus;
    use crate::daemon::scrub::ScrubRound;
    use crate::flow::backup::Made;
    use crate::store::Figures;

    #[test]
    fn a_status_shows_bytes_for_each_message() {
        let listener = ListenerStatus { name: "imaps".into(), address: "0.0.0.0:993".into(), sessions: 3 };
        let status = Status {
            version: "1.2.3".into(),
            pid: 77,
            uptime_secs: 90_000,
            listeners: vec![listener],
            sessions: 3,
            memory_bytes: 5 << 20,
            memory_peak_bytes: 0,
            store: Figures {
                journal_written: 8192,
                index_written: 2048,
                messages: 2,
                checkpoints: 1,
                last_checkpoint: Some(0),
                ..Figures::default()
            },
            scrub: Some(ScrubState {
                next_body: 7,
                damaged: 1,
                named: vec!["message 3 in INBOX of ann@x.test: its body is not there".into()],
                last: Some(ScrubRound { finished: 86_400, ..ScrubRound::default() }),
            }),
            last_backup: Some(Made { id: "3f2a91c0d417".into(), bytes: 2048, ..Made::default() }),
        };
        let mut out = Vec::new();
        write(&mut out, &status).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("Pillarbox 1.2.3, process 77, up 1 d 1 h\n"), "{text}");
        assert!(text.contains("imaps    0.0.0.0:993  3\n"), "{text}");
        assert!(text.contains("10 KiB since start, 5 KiB for each of 2 messages"), "{text}");
        assert!(text.contains("Thu, 1 Jan 1970 00:00:00 +0000 (1 since start)"), "{text}");
        let backup = "Last backup Thu, 1 Jan 1970 00:00:00 +0000 (full, 2 KiB, 3f2a91c0d417)\n";
        assert!(text.contains(backup), "{text}");
        let scrub = "finished Fri, 2 Jan 1970 00:00:00 +0000, 0 damaged; 1 damaged so far in the one under way\n";
        assert!(text.contains(scrub), "{text}");
        assert!(text.ends_with(&format!("damaged: {}\n", status.scrub.unwrap().named[0])), "{text}");
    }

    #[test]
    fn a_time_is_told_in_its_largest_units() {
        assert_eq!((duration(59), duration(61), duration(3700)), ("59 s".into(), "1 min".into(), "1 h 1 min".into()));
    }
}
