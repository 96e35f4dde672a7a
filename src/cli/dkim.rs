//! `pillarbox dkim`: the keys that mail is signed with when it leaves.

use std::io::{self, Write};

use serde_json::json;

use super::office::{DataOffice, Failure, Office, OfficeArgs, unexpected};
use super::show;
use crate::daemon::control::{DkimTask, Order, Outcome};
use crate::flow::dkim::{KeyRow, Turn};
use crate::mail::date::{Timestamp, ZonedTime};

/// Show, change and remove the keys that a domain's mail is signed with
#[derive(Clone, Debug, clap::Args)]
pub struct DkimArgs {
    #[command(flatten)]
    office: OfficeArgs,
    #[command(subcommand)]
    command: DkimCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum DkimCommand {
    /// List a domain's keys; the first are made if there are none
    List {
        /// The domain
        domain: String,
    },
    /// Make new keys; they sign a week later, or when DNS shows them
    ///
    /// Publish what `pillarbox dns DOMAIN` prints then. `pillarbox dns DOMAIN --check` lets them sign as soon as it
    /// has found them. The old keys stay published for two weeks more.
    Rotate {
        /// The domain
        domain: String,
        /// Sign with them at once, because the old ones are known to others
        #[arg(long)]
        now: bool,
    },
    /// Remove keys: those whose time is over, or the pair that a selector belongs to
    Remove {
        /// The domain
        domain: String,
        /// A selector, as `list` shows it
        selector: Option<String>,
    },
}

/// Runs the command.
///
/// # Errors
/// One sentence.
pub fn run(args: DkimArgs) -> Result<(), Failure> {
    let mut office = DataOffice::open(&args.office.data)?;
    obey(args.command, &mut office, args.office.json, &mut io::stdout().lock())
}

/// Has a task done and tells the keys then and the selectors it was about.
pub(super) fn ask(
    office: &mut impl Office,
    domain: &str,
    task: DkimTask,
) -> Result<(Vec<KeyRow>, Vec<String>), Failure> {
    match office.give(Order::Dkim { domain: domain.to_owned(), task })? {
        Outcome::Dkim { keys, changed } => Ok((keys, changed)),
        _ => Err(unexpected()),
    }
}

fn obey(command: DkimCommand, office: &mut impl Office, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    match command {
        DkimCommand::List { domain } => {
            let (keys, _) = ask(office, &domain, DkimTask::Show)?;
            if json {
                show::json(out, &keys)?;
            } else {
                write_table(out, &keys)?;
            }
        }
        DkimCommand::Rotate { domain, now } => {
            let (keys, changed) = ask(office, &domain, DkimTask::Rotate { at_once: now })?;
            if json {
                show::json(out, &json!({ "made": changed, "keys": keys }))?;
            } else {
                write_table(out, &keys)?;
                writeln!(
                    out,
                    "\nNow publish what `pillarbox dns {domain}` prints, then run `pillarbox dns {domain} --check`."
                )?;
            }
        }
        DkimCommand::Remove { domain, selector } => {
            let (keys, changed) = ask(office, &domain, DkimTask::Remove { selector })?;
            if json {
                show::json(out, &json!({ "removed": changed, "keys": keys }))?;
            } else if changed.is_empty() {
                writeln!(out, "{domain} has no keys whose time is over")?;
            } else {
                let records = changed.iter().map(|selector| format!("{selector}._domainkey.{domain}"));
                let records = records.collect::<Vec<_>>().join(" and ");
                writeln!(out, "removed {}; take {records} out of DNS too", changed.join(" and "))?;
            }
        }
    }
    Ok(())
}

fn write_table(out: &mut impl Write, keys: &[KeyRow]) -> io::Result<()> {
    let mut table = vec![["SELECTOR", "KIND", "MADE", "STATE"].map(str::to_owned)];
    table.extend(keys.iter().map(|key| {
        let state = match key.turn {
            Turn::Waits(at) => format!("waits to be published; signs from {}", day(at)),
            Turn::Signs => "signs".to_owned(),
            Turn::Kept(at) => format!("signs no more; keep it published until {}", day(at)),
            Turn::Over => "over; remove it".to_owned(),
        };
        [key.selector.clone(), key.algorithm.name().to_owned(), day(key.made), state]
    }));
    show::table(out, &table)
}

fn day(at: Timestamp) -> String {
    // `Mon, 23 Nov 2026 12:00:00 +0000`
    let text = ZonedTime::utc(at).to_rfc5322();
    text.split(' ').skip(1).take(3).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::office::tests::Script;
    use crate::flow::dkim::Algorithm;

    fn key(selector: &str, turn: Turn) -> KeyRow {
        let made = Timestamp(1_795_000_000);
        KeyRow { selector: selector.into(), algorithm: Algorithm::Ed25519, made, turn, record: "v=DKIM1".into() }
    }

    #[test]
    fn keys_are_listed_with_what_becomes_of_them() {
        let keys = vec![key("pb1-ed25519", Turn::Signs), key("pb2-ed25519", Turn::Waits(Timestamp(1_796_000_000)))];
        let outcome = Outcome::Dkim { keys, changed: Vec::new() };
        let line = serde_json::to_string(&outcome).unwrap();
        assert_eq!(serde_json::from_str::<Outcome>(&line).unwrap(), outcome);
        let (mut office, mut out) = (Script::new([outcome]), Vec::new());
        obey(DkimCommand::List { domain: "x.test".into() }, &mut office, false, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "SELECTOR     KIND     MADE         STATE\n\
             pb1-ed25519  ed25519  18 Nov 2026  signs\n\
             pb2-ed25519  ed25519  18 Nov 2026  waits to be published; signs from 30 Nov 2026\n"
        );
    }

    #[test]
    fn what_is_removed_goes_out_of_dns_too() {
        let outcome = Outcome::Dkim { keys: Vec::new(), changed: vec!["pb1-rsa".into(), "pb1-ed25519".into()] };
        let (mut office, mut out) = (Script::new([outcome]), Vec::new());
        let remove = DkimCommand::Remove { domain: "x.test".into(), selector: Some("pb1-rsa".into()) };
        obey(remove, &mut office, false, &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        assert!(said.contains("take pb1-rsa._domainkey.x.test and pb1-ed25519._domainkey.x.test out of DNS"), "{said}");
    }
}
