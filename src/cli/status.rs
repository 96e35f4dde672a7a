//! `pillarbox status`: how the running server is.

use std::io::{self, Write};
use std::path::PathBuf;

use super::office::{Remote, unexpected};
use super::{Failure, metrics, show};
use crate::daemon::control::{Order, Outcome, Status};
use crate::daemon::scrub::ScrubState;
use crate::flow::brake::Braked;
use crate::flow::scan::rescan::{RescanState, Stage};
use crate::mail::date::{Timestamp, ZonedTime};
use crate::store::wear::{LIFE_DAYS_MAX, MediumFigures, WearFigures, Written};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Data folder of the server
    #[arg(long, value_name = "DIR", default_value = "/var/lib/pillarbox")]
    data: PathBuf,
    /// Answer in JSON, for scripts
    #[arg(long)]
    json: bool,
    /// Answer in the text form of Prometheus
    #[arg(long, conflicts_with = "json")]
    metrics: bool,
}

/// Asks the server and shows what it says.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let server = Remote::connect(&args.data)?;
    let mut server = server.ok_or_else(|| format!("no server runs on {}", args.data.display()))?;
    let Outcome::Status { status } = server.give(&Order::Status)? else { return Err(unexpected().into()) };
    let mut out = io::stdout().lock();
    if args.json {
        show::json(&mut out, &status)?;
    } else if args.metrics {
        out.write_all(metrics::spell(&status).as_bytes())?;
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
    let compacted = store.wear.compacted.map_or_else(
        || "never".to_owned(),
        |last| {
            let (before, after) = (show::bytes(last.before), show::bytes(last.after));
            format!("{}, from {before} to {after}", ZonedTime::utc(Timestamp(last.at)).to_rfc5322())
        },
    );
    for (name, value) in [
        ("Sessions", sessions.to_string()),
        ("Memory", memory),
        (
            "Store",
            format!("{}, {} of it free inside", show::bytes(store.store_bytes), show::bytes(store.index_free_bytes)),
        ),
        ("Disk", format!("{} of {} left", show::bytes(store.medium_free_bytes), show::bytes(store.medium_bytes))),
        ("Checkpoint", checkpoint),
        ("Compacted", compacted),
        ("Written", format!("{} since start, {per_message}", show::bytes(written))),
        ("Syncs", store.syncs.to_string()),
        ("A day", a_day(&store.wear)),
        ("In all", in_all(&store.wear.in_all)),
        ("Device", device(&store.wear)),
        ("Card life", life(&store.wear)),
        ("Scrub", scrubbed(status.scrub.as_ref())),
        ("Signatures", rescanned(status.rescan.as_ref())),
        ("Last backup", last_backup(status)),
        ("Spam filter", spam(status)),
        ("Queue", queue(status)),
        ("Sending", braked(status)),
        ("Outgoing", outgoing(status)),
    ] {
        writeln!(out, "{name:<12}{value}")?;
    }
    for line in hindrances(status) {
        writeln!(out, "{line}")?;
    }
    for finding in status.rescan.iter().flat_map(|rescan| &rescan.named) {
        writeln!(out, "found later: {finding}")?;
    }
    for finding in
        status.scrub.iter().flat_map(|scrub| scrub.last.iter().flat_map(|last| &last.named).chain(&scrub.named))
    {
        writeln!(out, "damaged: {finding}")?;
    }
    Ok(())
}

/// What the store writes in a day of work, by the last month.
fn a_day(wear: &WearFigures) -> String {
    let sum = |part: fn(&Written) -> u64| wear.days.iter().map(|day| part(&day.written)).fold(0, u64::saturating_add);
    let secs = sum(|day| day.secs);
    let rate = |amount: u64| {
        let amount = u128::from(amount) * 86_400 / u128::from(secs.max(1));
        u64::try_from(amount).unwrap_or(u64::MAX)
    };
    if secs < 86_400 {
        return "not known before a day's work".to_owned();
    }
    let (bytes, syncs, messages) =
        (rate(sum(Written::bytes)), rate(sum(|day| day.syncs)), rate(sum(|day| day.messages)));
    format!("{}, {syncs} syncs, {messages} messages, over {}", show::bytes(bytes), duration(secs))
}

/// What the store wrote since it was made.
fn in_all(written: &Written) -> String {
    format!(
        "{}, {} syncs, {} messages since the store was made",
        show::bytes(written.bytes()),
        written.syncs,
        written.messages
    )
}

/// What the kernel tells.
fn device(wear: &WearFigures) -> String {
    let Some(medium) = &wear.medium else { return "not told by the kernel".to_owned() };
    let MediumFigures { name, written, device_written, .. } = medium;
    let whole = if written == device_written {
        String::new()
    } else {
        format!(", {} to the whole device", show::bytes(*device_written))
    };
    format!("{} written to {name}{whole} since start, by all programs", show::bytes(*written))
}

/// The estimate of how long the card lasts.
fn life(wear: &WearFigures) -> String {
    let Some(life) = &wear.life else { return "not known before a day's work".to_owned() };
    let years = match life.days {
        LIFE_DAYS_MAX.. => "more than 100 years".to_owned(),
        730.. => format!("about {} years", life.days / 365),
        days => format!("about {days} days"),
    };
    let who = if life.of_device { "all programs" } else { "the store alone" };
    let (rate, card) = (show::bytes(life.bytes_per_day), show::bytes(life.card_bytes));
    format!("{years}: {rate} a day by {who}, a card of {card}")
}

/// When the whole store was read last, and what that found.
fn spam(status: &Status) -> String {
    status.spam.map_or_else(
        || "has judged nothing yet".to_owned(),
        |spam| {
            format!(
                "was taught {} wanted and {} spam; {} in memory",
                spam.ham,
                spam.spam,
                show::bytes(spam.memory_bytes)
            )
        },
    )
}

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

/// What later signatures found in mail that was taken before.
fn rescanned(rescan: Option<&RescanState>) -> String {
    let Some(rescan) = rescan else { return "mail is not scanned again when new ones come".to_owned() };
    let RescanState { set, compared, read, found, .. } = rescan;
    let done = format!("{compared} compared, {read} read, {found} found");
    match (rescan.stage, rescan.finished) {
        (Stage::Prints, _) => format!("set {set}; mail is compared with it: {done} so far"),
        (Stage::Bodies, _) => format!("set {set}; mail is read once more: {done} so far"),
        (Stage::Done, finished) => {
            let at = finished.map(|at| ZonedTime::utc(Timestamp(at)).to_rfc5322()).unwrap_or_default();
            format!("set {set}; mail was scanned again up to {at}: {done}")
        }
    }
}

fn last_backup(status: &Status) -> String {
    let Some(made) = &status.last_backup else { return "none".to_owned() };
    let kind = if made.base.is_none() { "full" } else { "incremental" };
    let at = ZonedTime::utc(Timestamp(made.at)).to_rfc5322();
    format!("{at} ({kind}, {}, {})", show::bytes(made.bytes), made.id)
}

/// How much waits.
/// Whether somebody sends more than is good.
fn braked(status: &Status) -> String {
    let one = |braked: &Braked| {
        let Braked { account, hour, day, held } = braked;
        format!("{account} wrote to {hour} recipients in an hour, {day} in a day: {held} messages are held")
    };
    let all = status.braked.iter().map(one).collect::<Vec<_>>().join("; ");
    if all.is_empty() {
        return "nobody sends too much".to_owned();
    }
    all + " (change the password if it was not the user; `pillarbox queue release` lets mail go)"
}

fn queue(status: &Status) -> String {
    let queue = &status.queue;
    let date = |at| ZonedTime::utc(Timestamp(at)).to_rfc5322();
    match (queue.messages, queue.oldest) {
        (0, _) => "empty".to_owned(),
        (1, Some(oldest)) => format!("1 message, since {}", date(oldest)),
        (messages, oldest) => format!("{messages} messages, the oldest since {}", oldest.map(date).unwrap_or_default()),
    }
}

/// What went out.
fn outgoing(status: &Status) -> String {
    let deliver = &status.deliver;
    format!(
        "{} delivered, {} put off, {} refused since start; {} connections",
        deliver.delivered, deliver.deferred, deliver.refused, deliver.connections
    )
}

/// What keeps mail from going out, and what to do about it.
fn hindrances(status: &Status) -> Vec<String> {
    let deliver = &status.deliver;
    let date = |at: i64| ZonedTime::utc(Timestamp(at)).to_rfc5322();
    let mut lines = Vec::new();
    if let Some(since) = deliver.network_away_since {
        lines.push(format!("outgoing: the network seems to be away since {}; mail waits for it", date(since)));
    }
    if let Some(since) = deliver.port_blocked_since {
        let meanwhile = deliver.fallback.as_ref().map_or_else(
            || "ask your provider to open it, or name its relay with [[relay]]".to_owned(),
            |relay| format!("mail goes by {relay} meanwhile"),
        );
        lines.push(format!("outgoing: port 25 out seems blocked since {}; {meanwhile}", date(since)));
    }
    for trouble in &deliver.troubles {
        let times = if trouble.failures == 1 { "once".to_owned() } else { format!("{} times", trouble.failures) };
        let (destination, why) = (&trouble.destination, &trouble.why);
        lines.push(format!("outgoing: {destination} failed {times}, next try {}: {why}", date(trouble.next)));
    }
    lines
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
    use crate::daemon::deliver::{DeliverFigures, Trouble};
    use crate::daemon::scrub::ScrubRound;
    use crate::flow::backup::Made;
    use crate::mail::queue::QueueFigures;
    use crate::store::Figures;
    use crate::store::wear::{CardLife, WearDay};

    #[test]
    fn a_status_shows_bytes_for_each_message() {
        let listener = ListenerStatus { name: "imaps".into(), address: "0.0.0.0:993".into(), sessions: 3 };
        let status = Status {
            hostname: "mail.x.test".into(),
            tls_key_sha256: None,
            own_authority: true,
            braked: vec![Braked { account: "eve@x.test".into(), hour: 301, day: 400, held: 2 }],
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
            rescan: None,
            scrub: Some(ScrubState {
                next_body: 7,
                damaged: 1,
                named: vec!["message 3 in INBOX of ann@x.test: its body is not there".into()],
                last: Some(ScrubRound { finished: 86_400, ..ScrubRound::default() }),
            }),
            last_backup: Some(Made { id: "3f2a91c0d417".into(), bytes: 2048, ..Made::default() }),
            spam: Some(crate::flow::judge::SpamFigures { ham: 3, spam: 4, memory_bytes: 2 << 20 }),
            queue: QueueFigures { messages: 2, scheduled: 3, oldest: Some(0), next: None },
            deliver: DeliverFigures {
                delivered: 5,
                port_blocked_since: Some(0),
                troubles: vec![Trouble {
                    destination: "far.test".into(),
                    failures: 3,
                    next: 60,
                    why: "4.4.1 no".into(),
                }],
                ..DeliverFigures::default()
            },
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
        assert!(text.contains("Spam filter was taught 3 wanted and 4 spam; 2 MiB in memory\n"), "{text}");
        for line in [
            "Queue       2 messages, the oldest since Thu, 1 Jan 1970 00:00:00 +0000\n",
            "Outgoing    5 delivered, 0 put off, 0 refused since start; 0 connections\n",
            "outgoing: port 25 out seems blocked since Thu, 1 Jan 1970 00:00:00 +0000; ask your provider",
            "outgoing: far.test failed 3 times, next try Thu, 1 Jan 1970 00:01:00 +0000: 4.4.1 no\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let scrub = "finished Fri, 2 Jan 1970 00:00:00 +0000, 0 damaged; 1 damaged so far in the one under way\n";
        assert!(text.contains(scrub), "{text}");
        assert!(text.ends_with(&format!("damaged: {}\n", status.scrub.unwrap().named[0])), "{text}");
    }

    #[test]
    fn the_wear_meter_says_what_it_knows_and_from_whom() {
        let day = |secs, index| WearDay { day: 20_000, written: Written { secs, index, ..Written::default() } };
        let mut wear = WearFigures { days: vec![day(86_000, 1 << 20)], ..WearFigures::default() };
        assert_eq!(a_day(&wear), "not known before a day's work");
        assert_eq!((life(&wear), device(&wear)), (a_day(&wear), "not told by the kernel".to_owned()));
        wear.days.push(day(86_800, 3 << 20));
        assert_eq!(a_day(&wear), "2 MiB, 0 syncs, 0 messages, over 2 d 0 h");
        let told = CardLife { days: 5000, bytes_per_day: 9 << 20, of_device: true, card_bytes: 32 << 30 };
        wear.life = Some(told);
        assert_eq!(life(&wear), "about 13 years: 9 MiB a day by all programs, a card of 32 GiB");
        wear.life = Some(CardLife { days: LIFE_DAYS_MAX, ..told });
        assert!(life(&wear).starts_with("more than 100 years: "));
        wear.life = Some(CardLife { days: 700, of_device: false, ..told });
        assert!(life(&wear).starts_with("about 700 days: 9 MiB a day by the store alone"));
        let name = "mmcblk0p2".to_owned();
        wear.medium = Some(MediumFigures { name, written: 5 << 20, device_written: 6 << 20, device_bytes: 0 });
        let told = "5 MiB written to mmcblk0p2, 6 MiB to the whole device since start, by all programs";
        assert_eq!(device(&wear), told);
    }

    #[test]
    fn a_time_is_told_in_its_largest_units() {
        assert_eq!((duration(59), duration(61), duration(3700)), ("59 s".into(), "1 min".into(), "1 h 1 min".into()));
    }
}
