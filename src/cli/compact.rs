//! `pillarbox compact`: gives the index's free room back to the disk.
//!
//! A running server does it while it serves; without one the command does it itself. Ctrl-C ends
//! the command; a server goes on with what it began.

use std::io;
use std::time::Duration;

use serde::Serialize;

use super::office::{DataOffice, Failure, Office, OfficeArgs, unexpected};
use super::show;
use crate::daemon::control::{Order, Outcome};
use crate::store::compact::{CompactStart, Compaction};

/// How often we ask how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Give the store's free room back to the disk
///
/// What is free is used for new mail without that. The mail that is kept is written anew, once, to
/// a second file, for which there must be room; the server goes on serving.
#[derive(Debug, clap::Args)]
pub struct CompactArgs {
    #[command(flatten)]
    office: OfficeArgs,
    /// Do it even when little would be gained
    #[arg(long)]
    force: bool,
}

/// What was done.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "done", rename_all = "kebab-case")]
enum Done {
    Compacted { before: u64, after: u64 },
    Nothing { bytes: u64, free: u64 },
}

/// Runs the command.
///
/// # Errors
/// One sentence.
pub fn run(args: &CompactArgs) -> Result<(), Failure> {
    let mut office = DataOffice::open(&args.office.data)?;
    let bar = Bar::new();
    let done = compact(&mut office, args.force, &mut |state| {
        bar.show(state);
        std::thread::sleep(ASK_EVERY);
    })?;
    drop(bar);
    let mut out = io::stdout().lock();
    if args.office.json {
        return Ok(show::json(&mut out, &done)?);
    }
    Ok(io::Write::write_all(&mut out, said(&done).as_bytes())?)
}

/// Asks for it and waits until it is done; `wait` is called as long as it is not.
fn compact(office: &mut impl Office, force: bool, wait: &mut dyn FnMut(&Compaction)) -> Result<Done, Failure> {
    let Outcome::Compacting { start } = office.give(Order::Compact { force })? else { return Err(unexpected()) };
    match start {
        CompactStart::Begun => {}
        CompactStart::Needless { bytes, gain } => return Ok(Done::Nothing { bytes, free: gain }),
        CompactStart::NoRoom { missing } => {
            return Err(Failure(format!(
                "the disk has no room for a second file beside the first: {} are missing; free as much, then try again",
                show::bytes(missing)
            )));
        }
    }
    loop {
        let Outcome::Compaction { compaction } = office.give(Order::Compaction)? else { return Err(unexpected()) };
        if compaction.running {
            wait(&compaction);
            continue;
        }
        return match (compaction.failure, compaction.last) {
            (None, Some(last)) => Ok(Done::Compacted { before: last.before, after: last.after }),
            (Some(why), _) => Err(Failure(format!("the store stays as it was ({why}); try again at a quieter time"))),
            (None, None) => Err(unexpected()),
        };
    }
}

fn said(done: &Done) -> String {
    match done {
        Done::Compacted { before, after } => format!(
            "the index took {} and takes {} now: {} were given back\n",
            show::bytes(*before),
            show::bytes(*after),
            show::bytes(before.saturating_sub(*after))
        ),
        Done::Nothing { bytes, free } => format!(
            "nothing to do: about {} of {} are free, less than a third (--force does it all the same)\n",
            show::bytes(*free),
            show::bytes(*bytes)
        ),
    }
}

/// How far it is, on the terminal at standard error; nothing where that is none.
struct Bar {
    #[cfg(feature = "progress")]
    bar: indicatif::ProgressBar,
}

#[cfg(feature = "progress")]
impl Bar {
    fn new() -> Self {
        use std::io::IsTerminal as _;

        if !io::stderr().is_terminal() {
            return Self { bar: indicatif::ProgressBar::hidden() };
        }
        let bar = indicatif::ProgressBar::new(0);
        if let Ok(style) = indicatif::ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes}, {eta} left") {
            bar.set_style(style);
        }
        Self { bar }
    }

    fn show(&self, state: &Compaction) {
        self.bar.set_length(state.total);
        self.bar.set_position(state.copied);
    }
}

#[cfg(feature = "progress")]
impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(not(feature = "progress"))]
impl Bar {
    fn new() -> Self {
        Self {}
    }

    fn show(&self, _: &Compaction) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::office::tests::Script;
    use crate::store::wear::Compacted;

    #[test]
    fn it_waits_until_the_compaction_is_done() {
        let state = |running, copied| Outcome::Compaction {
            compaction: Compaction {
                running,
                copied,
                total: 9,
                last: (!running).then_some(Compacted { before: 3 << 20, after: 1 << 20, ..Compacted::default() }),
                ..Compaction::default()
            },
        };
        let begun = Outcome::Compacting { start: CompactStart::Begun };
        let mut office = Script::new([begun, state(true, 1), state(true, 5), state(false, 0)]);
        let mut seen = Vec::new();
        let done = compact(&mut office, true, &mut |state| seen.push(state.copied)).unwrap();
        assert_eq!(seen, [1, 5]);
        assert_eq!(office.given[0], Order::Compact { force: true });
        assert_eq!(said(&done), "the index took 3 MiB and takes 1 MiB now: 2 MiB were given back\n");
        assert_eq!(serde_json::to_string(&done).unwrap(), r#"{"done":"compacted","before":3145728,"after":1048576}"#);
    }

    #[test]
    fn what_stands_in_its_way_is_a_sentence() {
        let give = |outcomes: Vec<Outcome>| compact(&mut Script::new(outcomes), false, &mut |_| ());
        let start = |start| Outcome::Compacting { start };
        let missing = give(vec![start(CompactStart::NoRoom { missing: 5 << 20 })]).unwrap_err().to_string();
        assert!(missing.contains("5 MiB are missing"), "{missing}");
        let failed = Compaction { failure: Some("too much mail came meanwhile".to_owned()), ..Compaction::default() };
        let failed = give(vec![start(CompactStart::Begun), Outcome::Compaction { compaction: failed }]);
        assert!(failed.unwrap_err().to_string().contains("too much mail came meanwhile"));
        let nothing = give(vec![start(CompactStart::Needless { bytes: 10 << 20, gain: 1 << 20 })]).unwrap();
        assert!(said(&nothing).starts_with("nothing to do: about 1 MiB of 10 MiB are free"));
    }
}
