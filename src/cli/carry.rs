//! What `import` and `export` share: the store or the server behind them, the progress bar, and
//! the sentence at the end.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::office::{DataOffice, Failure, OfficeArgs, Remote, unexpected};
use super::show;
use crate::daemon::control::{Order, Outcome, exchange};
use crate::flow::carry::{self, CarryError, Giver, Keeper, Observer, Progress, Summary};
use crate::mail::mailbox::MailboxName;

/// What import and export work on.
pub(super) trait Carrier: Keeper + Giver {}

impl<T: Keeper + Giver> Carrier for T {}

/// Does the work on the account with this address: in the running server, or in the store when
/// none runs.
pub(super) fn with_account(
    office: &OfficeArgs,
    address: &str,
    work: impl FnOnce(&mut dyn Carrier) -> Result<Summary, CarryError>,
) -> Result<Summary, Failure> {
    let failed = |error: CarryError| Failure(error.to_string());
    if let Some(mut server) = Remote::connect(&office.data)? {
        match server.give(&Order::Carry { address: address.to_owned() })? {
            Outcome::Done => {}
            Outcome::Refused { reason } => return Err(Failure(reason)),
            _ => return Err(unexpected()),
        }
        let folder = Arc::from(office.data.as_path());
        let mut remote: carry::Remote<UnixStream> = carry::Remote::new(server.into_stream(), folder).map_err(failed)?;
        return work(&mut remote).map_err(failed);
    }
    let opened = DataOffice::open(&office.data)?;
    let DataOffice::Store(store, _) = &opened else {
        return Err(Failure("a server is just starting on this data folder; try again".to_owned()));
    };
    let mut exchange = exchange(store, address).map_err(Failure)?;
    work(&mut exchange).map_err(failed)
}

/// Reads a mailbox name from the command line.
pub(super) fn parse_folder(text: &str) -> Result<MailboxName, String> {
    MailboxName::new(text).ok_or_else(|| "a mailbox name has no empty level between `/`, no `%` and no `*`".to_owned())
}

/// Says what was done.
pub(super) fn report(office: &OfficeArgs, verb: &str, summary: &Summary) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    if office.json {
        return Ok(show::json(&mut out, summary)?);
    }
    let Summary { carried, bytes, present, passed, broken, folders } = *summary;
    write!(out, "{verb} {} ({}) of {}", count(carried, "message"), show::bytes(bytes), count(folders, "mailbox"))?;
    for (number, what) in
        [(present, "there already"), (passed, "no mail or deleted, left out"), (broken, "could not be read, left out")]
    {
        if number > 0 {
            write!(out, "; {number} {what}")?;
        }
    }
    writeln!(out)?;
    Ok(())
}

pub(super) fn count(number: u64, what: &str) -> String {
    match (number, what) {
        (1, _) => format!("1 {what}"),
        (_, "mailbox") => format!("{number} mailboxes"),
        _ => format!("{number} {what}s"),
    }
}

/// Shows troubles, and how far we are where somebody looks.
pub(super) struct Watch {
    #[cfg(feature = "progress")]
    bar: indicatif::ProgressBar,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            #[cfg(feature = "progress")]
            bar: bar(),
        }
    }
}

/// A bar on the terminal at standard error; nothing where that is none.
#[cfg(feature = "progress")]
fn bar() -> indicatif::ProgressBar {
    use std::io::IsTerminal as _;

    if !io::stderr().is_terminal() {
        return indicatif::ProgressBar::hidden();
    }
    let bar = indicatif::ProgressBar::new(0);
    let line = "{bar:30} {bytes} of {total_bytes}, {msg} messages, {bytes_per_sec}, {eta} left";
    if let Ok(style) = indicatif::ProgressStyle::with_template(line) {
        bar.set_style(style);
    }
    bar
}

impl Watch {
    /// Does something with the terminal while the bar is out of the way.
    pub(super) fn beside<T>(&self, tell: impl FnOnce() -> T) -> T {
        #[cfg(feature = "progress")]
        return self.bar.suspend(tell);
        #[cfg(not(feature = "progress"))]
        tell()
    }
}

impl Observer for Watch {
    fn progress(&mut self, progress: &Progress) {
        #[cfg(feature = "progress")]
        if !self.bar.is_hidden() {
            self.bar.set_length(progress.bytes_total);
            self.bar.set_position(progress.bytes);
            self.bar.set_message(progress.messages.to_string());
        }
        #[cfg(not(feature = "progress"))]
        let _ = progress;
    }

    fn trouble(&mut self, place: &str, why: &str) {
        // Where standard error is closed there is nobody to tell.
        let tell = || drop(writeln!(io::stderr(), "pillarbox: {place}: {why}"));
        #[cfg(feature = "progress")]
        self.bar.suspend(tell);
        #[cfg(not(feature = "progress"))]
        tell();
    }
}

#[cfg(feature = "progress")]
impl Drop for Watch {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_counted_as_one() {
        let told = [count(1, "message"), count(2, "message"), count(1, "mailbox"), count(0, "mailbox")];
        assert_eq!(told, ["1 message", "2 messages", "1 mailbox", "0 mailboxes"]);
    }

    #[test]
    fn a_folder_that_is_no_mailbox_name_is_refused() {
        assert!(parse_folder("Old/2020").is_ok());
        assert!(parse_folder("Old//2020").is_err());
    }
}
