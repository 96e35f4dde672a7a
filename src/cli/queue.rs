//! `pillarbox queue`: mail on its way out.

use std::io::{self, Write};

use serde_json::json;

use super::office::{DataOffice, Failure, Office, OfficeArgs, done, unexpected};
use super::show;
use crate::daemon::control::{Order, Outcome, QueueRecipient, QueueRow, QueueTask, ROWS_MAX};
use crate::mail::date::{Timestamp, ZonedTime};

/// List, retry, hold and remove mail on its way out
#[derive(Clone, Debug, clap::Args)]
pub struct QueueArgs {
    #[command(flatten)]
    office: OfficeArgs,
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum QueueCommand {
    /// List the messages that wait, the oldest first
    List,
    /// Show a message and how far each recipient is
    Show {
        /// Its number
        id: u64,
    },
    /// Try messages at once, whatever failed before
    Retry {
        /// Their numbers; all when none is given
        ids: Vec<u64>,
    },
    /// Hold messages back until they are released
    Hold {
        /// Their numbers
        #[arg(required = true)]
        ids: Vec<u64>,
    },
    /// Let messages go that were held back
    Release {
        /// Their numbers; all when none is given
        ids: Vec<u64>,
    },
    /// Remove messages; nobody is told
    Remove {
        /// Their numbers
        #[arg(required = true)]
        ids: Vec<u64>,
    },
}

/// Runs the command.
///
/// # Errors
/// One sentence.
pub fn run(args: QueueArgs) -> Result<(), Failure> {
    let mut office = DataOffice::open(&args.office.data)?;
    obey(args.command, &mut office, args.office.json, &mut io::stdout().lock())
}

fn obey(command: QueueCommand, office: &mut impl Office, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    match command {
        QueueCommand::List => list(office, json, out),
        QueueCommand::Show { id } => show_one(id, office, json, out),
        QueueCommand::Retry { ids } => order(QueueTask::Retry, ids, office, json, out),
        QueueCommand::Hold { ids } => order(QueueTask::Hold, ids, office, json, out),
        QueueCommand::Release { ids } => order(QueueTask::Release, ids, office, json, out),
        QueueCommand::Remove { ids } => {
            for id in ids {
                done(office, Order::RemoveQueued { id })?;
                if json { show::json(out, &json!({ "removed": id }))? } else { writeln!(out, "removed {id}")? }
            }
            Ok(())
        }
    }
}

fn list(office: &mut impl Office, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let mut rows: Vec<QueueRow> = Vec::new();
    loop {
        let after = rows.last().map(|last| last.id);
        let Outcome::Queue { messages } = office.give(Order::ListQueue { after })? else { return Err(unexpected()) };
        let more = messages.len() >= ROWS_MAX;
        rows.extend(messages);
        if !more {
            break;
        }
    }
    if json {
        return Ok(show::json(out, &rows)?);
    }
    if rows.is_empty() {
        return Ok(writeln!(out, "no mail waits")?);
    }
    let mut table = vec![["NUMBER", "CAME", "SIZE", "FROM", "TO", "NEXT", "LAST HEARD"].map(str::to_owned)];
    table.extend(rows.iter().map(|row| {
        let first = row.first.clone().unwrap_or_default();
        let others = row.unsettled.saturating_sub(1);
        let to = if others > 0 { format!("{} and {others} more", first.to) } else { first.to.clone() };
        [
            row.id.to_string(),
            time(row.accepted),
            show::bytes(row.size.into()),
            from(row),
            to,
            next(&first),
            first.answer.as_deref().map(short).unwrap_or_default(),
        ]
    }));
    Ok(show::table(out, &table)?)
}

fn show_one(id: u64, office: &mut impl Office, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let mut all: Vec<QueueRecipient> = Vec::new();
    let message = loop {
        let from = all.last().map_or(0, |last| last.number.saturating_add(1));
        let shown = office.give(Order::ShowQueued { id, from })?;
        let Outcome::Queued { message, recipients } = shown else { return Err(unexpected()) };
        let more = recipients.len() >= ROWS_MAX;
        all.extend(recipients);
        if !more {
            break message;
        }
    };
    if json {
        return Ok(show::json(out, &json!({ "message": message, "recipients": all }))?);
    }
    writeln!(
        out,
        "Message {id} from {}, {}, came {}",
        from(&message),
        show::bytes(message.size.into()),
        time(message.accepted)
    )?;
    for recipient in &all {
        writeln!(out, "\n{}", recipient.to)?;
        let attempts = match (recipient.attempts, recipient.tried) {
            (0, _) => "not tried yet".to_owned(),
            (1, Some(tried)) => format!("tried once, {}", time(tried)),
            (attempts, tried) => format!("tried {attempts} times, last {}", tried.map(time).unwrap_or_default()),
        };
        writeln!(out, "  {}; {attempts}", next(recipient))?;
        if let Some(answer) = &recipient.answer {
            writeln!(out, "  {answer}")?;
        }
    }
    Ok(())
}

fn order(
    task: QueueTask,
    ids: Vec<u64>,
    office: &mut impl Office,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let outcome = office.give(Order::OrderQueued { task, ids })?;
    let Outcome::Concerned { recipients } = outcome else { return Err(unexpected()) };
    if json {
        return Ok(show::json(out, &json!({ "recipients": recipients }))?);
    }
    let what = match task {
        QueueTask::Retry => "tried at once",
        QueueTask::Hold => "held back",
        QueueTask::Release => "released",
    };
    let who = if recipients == 1 { "1 recipient is".to_owned() } else { format!("{recipients} recipients are") };
    Ok(writeln!(out, "{who} {what}")?)
}

fn from(row: &QueueRow) -> String {
    if row.from.is_empty() { "(a notification)".to_owned() } else { row.from.clone() }
}

fn next(recipient: &QueueRecipient) -> String {
    match (recipient.state.as_str(), recipient.next) {
        ("waiting", Some(next)) => time(next),
        ("delivered" | "failed", Some(_)) => format!("{}, to be told", recipient.state),
        (state, _) => state.to_owned(),
    }
}

fn time(at: i64) -> String {
    let text = ZonedTime::utc(Timestamp(at)).to_imap();
    text.trim_start().trim_end_matches(" +0000").to_owned()
}

/// The beginning of an answer.
fn short(answer: &str) -> String {
    const MOST: usize = 60;
    if answer.chars().count() <= MOST {
        answer.to_owned()
    } else {
        answer.chars().take(MOST - 3).collect::<String>() + "..."
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::office::tests::Script;

    fn row() -> QueueRow {
        let first = QueueRecipient {
            to: "bob@far.test".into(),
            state: "waiting".into(),
            next: Some(1_000_000),
            attempts: 2,
            tried: Some(900_000),
            answer: Some("mx.far.test said: 450 4.2.0 later".into()),
            ..QueueRecipient::default()
        };
        QueueRow {
            id: 17,
            from: "ann@x.test".into(),
            size: 2048,
            accepted: 800_000,
            recipients: 3,
            unsettled: 2,
            first: Some(first),
        }
    }

    fn said(command: QueueCommand, outcome: Outcome, json: bool) -> (String, Vec<Order>) {
        let (mut office, mut out) = (Script::new([outcome]), Vec::new());
        obey(command, &mut office, json, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), office.given)
    }

    #[test]
    fn waiting_mail_is_listed_with_the_last_that_was_heard() {
        let (text, given) = said(QueueCommand::List, Outcome::Queue { messages: vec![row()] }, false);
        assert_eq!(given, [Order::ListQueue { after: None }]);
        let expected = "NUMBER  CAME                  SIZE   FROM        TO                       NEXT                  LAST HEARD\n\
                        17      10-Jan-1970 06:13:20  2 KiB  ann@x.test  bob@far.test and 1 more  12-Jan-1970 13:46:40  mx.far.test said: 450 4.2.0 later\n";
        assert_eq!(text, expected);
        assert_eq!(said(QueueCommand::List, Outcome::Queue { messages: Vec::new() }, false).0, "no mail waits\n");
        assert!(said(QueueCommand::List, Outcome::Queue { messages: vec![row()] }, true).0.starts_with("[{\"id\":17,"));
    }

    #[test]
    fn a_message_is_shown_with_every_recipient() {
        let recipients = vec![
            row().first.unwrap(),
            QueueRecipient { to: "eve@x".into(), state: "held".into(), ..QueueRecipient::default() },
        ];
        let queued = Outcome::Queued { message: Box::new(row()), recipients };
        let (text, _) = said(QueueCommand::Show { id: 17 }, queued, false);
        assert!(
            text.contains("\nbob@far.test\n  12-Jan-1970 13:46:40; tried 2 times, last 11-Jan-1970 10:00:00\n"),
            "{text}"
        );
        assert!(text.ends_with("\neve@x\n  held; not tried yet\n"), "{text}");
    }

    #[test]
    fn orders_go_to_the_named_or_to_all() {
        let (text, given) = said(QueueCommand::Retry { ids: Vec::new() }, Outcome::Concerned { recipients: 2 }, false);
        assert_eq!(text, "2 recipients are tried at once\n");
        assert_eq!(given, [Order::OrderQueued { task: QueueTask::Retry, ids: Vec::new() }]);
        let (text, _) = said(QueueCommand::Hold { ids: vec![17] }, Outcome::Concerned { recipients: 1 }, false);
        assert_eq!(text, "1 recipient is held back\n");
        let (text, given) = said(QueueCommand::Remove { ids: vec![17] }, Outcome::Done, true);
        assert_eq!((text.as_str(), given), ("{\"removed\":17}\n", vec![Order::RemoveQueued { id: 17 }]));
    }
}
