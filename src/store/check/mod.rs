//! Verifies a store: every row, counter and reference, every piece and hash, the journal, and
//! redb's own page checksums; and with `repair` sets right what can be.
//!
//! What is counted is read in one read transaction, so changes that go on beside it are no false
//! alarm; bodies are read in short ones, a piece at a time, because they take long, and a body that
//! was removed meanwhile is no finding. Nothing that is found bad is removed while any part of it
//! can still be read.
//!
//! Memory: redb's page check has a cache of 256 KiB ([`pages`]); references are counted for 64k
//! bodies at a time in 1 MiB ([`references`]); each account costs some 50 bytes, a body two blocks.
//! That holds for a store of any size.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

mod bodies; //     every piece, block, hash and structure
mod census; //     accounts, addresses, domains, what is to be swept
mod finding; //    what is found
mod mailboxes; //  mailboxes and their messages
mod mend; //       what repair does
mod pages; //      redb's page checksums
mod queue; //      queued mail, and what the spam filter learnt
mod recover; //    mail that nobody refers to
mod references; // who refers to which body
mod view; //  the tables, and what things are called
mod watch; // progress, findings, the word to stop

pub use finding::{Counter, Damage, Finding, Miscount, Place, Remedy};
pub use watch::{CheckProgress, CheckStop, CheckWatch};

pub(super) use pages::Frozen;

use super::engine::{Engine, Shared};
use super::error::{ReadError, Trouble, WriteError};
use super::message::Plan;
use super::table::Tables;
use super::{BlobId, Pending, Store};
use bodies::Suspect;
use pages::Pages;
use view::View;
use watch::Pace;

/// Rounds of repair before what is left is called damaged: setting one thing right may show the
/// next (a message whose record is lost, then its body that nobody refers to any more).
const ROUNDS_MAX: u32 = 5;

/// What to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckOptions {
    /// redb's page checksums: reads the whole file, and makes a checkpoint.
    pub pages: bool,
    /// Bodies: reads the whole mail.
    pub bodies: bool,
    /// Take every message apart again and compare its structure with what is kept. With `bodies`.
    pub deep: bool,
    /// Set right what can be.
    pub repair: bool,
    /// Others use the store meanwhile: where redb's pages are damaged the check ends, because redb
    /// may panic at one.
    pub shared: bool,
    /// Read no faster than this.
    pub bytes_per_second: Option<u64>,
}

impl CheckOptions {
    /// Everything that is counted and linked, and the journal; no bodies, no pages. Writes nothing.
    #[must_use]
    pub fn quick() -> Self {
        Self { pages: false, bodies: false, deep: false, repair: false, shared: false, bytes_per_second: None }
    }

    /// Everything but taking messages apart.
    #[must_use]
    pub fn full() -> Self {
        Self { pages: true, bodies: true, ..Self::quick() }
    }
}

/// What a check came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Accounts looked at.
    pub accounts: u64,
    /// Mailboxes looked at.
    pub mailboxes: u64,
    /// Messages looked at.
    pub messages: u64,
    /// Bodies read.
    pub bodies: u64,
    /// Bytes read of bodies and pages.
    pub bytes: u64,
    /// What was set right.
    pub repaired: u64,
    /// What is wrong now and repair can set right.
    pub repairable: u64,
    /// What is wrong and stays so.
    pub damaged: u64,
    /// What was not checked, and why, as sentences.
    pub unchecked: Vec<String>,
    /// The check was stopped before its end.
    pub stopped: bool,
}

impl Report {
    /// Tells whether everything was checked and is well now.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.repairable == 0 && self.damaged == 0 && self.unchecked.is_empty() && !self.stopped
    }
}

/// Why a check could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckError {
    /// The disk failed, or the store is closed.
    Read(ReadError),
    /// A repair could not be written.
    Write(WriteError),
}

impl fmt::Display for CheckError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(out),
            Self::Write(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for CheckError {}

/// Why a step of a check ended early.
#[derive(Debug)]
pub(super) enum Halt {
    /// The word to stop was said.
    Stopped,
    Trouble(Trouble),
    Read(ReadError),
    Write(WriteError),
}

impl From<Trouble> for Halt {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<ReadError> for Halt {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<WriteError> for Halt {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

type Step<T = ()> = Result<T, Halt>;

/// A check under way.
struct Checkup<'c> {
    store: &'c Store,
    options: CheckOptions,
    watch: &'c mut dyn CheckWatch,
    pace: Arc<Mutex<Pace>>,
    report: Report,
    mode: Mode,
    bytes_total: u64,
    /// The mailbox that was counted anew last, with what came of it: its next finding is gone too.
    counted: Option<u32>,
    suspects: Vec<Suspect>,
    /// Hashes to be filled in.
    hashes: Vec<(u64, super::blob::BodyHash)>,
}

/// What becomes of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// It is told.
    Tell,
    /// It is set right; what can't be is told.
    Mend,
    /// It is set right; what can't be is found again later.
    MendQuietly,
}

impl Store {
    /// Checks the store, or repairs it. Blocks for as long as that takes: never call it on the
    /// reactor.
    ///
    /// # Errors
    /// When the disk fails or the store is closed; damage is no error but a finding.
    pub fn check(
        &self,
        options: &CheckOptions,
        stop: &CheckStop,
        watch: &mut dyn CheckWatch,
    ) -> Result<Report, CheckError> {
        let mut checkup = Checkup::new(self, *options, stop, watch);
        let done = checkup.run();
        checkup.end(done)
    }

    /// Reads bodies from number `from` on until `bytes` are read; gives the number to go on from,
    /// `None` when it came to the end.
    ///
    /// # Errors
    /// As [`Store::check`].
    pub fn check_bodies(
        &self,
        from: BlobId,
        bytes: u64,
        bytes_per_second: u64,
        stop: &CheckStop,
        watch: &mut dyn CheckWatch,
    ) -> Result<(Report, Option<BlobId>), CheckError> {
        let options = CheckOptions { bytes_per_second: Some(bytes_per_second), ..CheckOptions::quick() };
        let mut checkup = Checkup::new(self, options, stop, watch);
        let mut next = Some(from);
        let done = checkup.bodies(from.0, bytes).map(|found| next = found.map(BlobId));
        Ok((checkup.end(done)?, next))
    }

    /// Keeps a note as [`Store::put_note`] does, but without a sync of its own: it is written along
    /// with the next change, or when the store closes, and a crash before that loses it.
    pub fn put_note_along(&self, name: &str, value: Vec<u8>) -> Pending<()> {
        let name = name.to_owned();
        self.plan(move |tables| super::account::put_note_along(tables, &name, &value))
    }

    /// Does something with index and journal between two groups of commands.
    fn with_engine<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine, &Shared) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, WriteError> {
        let (errand, pending) = super::writer::errand(work);
        drop(self.commands.send(errand));
        pending.wait()
    }
}

impl<'c> Checkup<'c> {
    fn new(store: &'c Store, options: CheckOptions, stop: &CheckStop, watch: &'c mut dyn CheckWatch) -> Self {
        let pace = Pace::new(options.bytes_per_second, stop.clone());
        Self {
            store,
            options,
            watch,
            pace: Arc::new(Mutex::new(pace)),
            report: Report::default(),
            mode: Mode::Tell,
            bytes_total: 0,
            counted: None,
            suspects: Vec::new(),
            hashes: Vec::new(),
        }
    }

    fn run(&mut self) -> Step {
        let used = self.store.shared.space.kept.load(Ordering::Relaxed);
        let passes = u64::from(self.options.pages) + u64::from(self.options.bodies);
        self.bytes_total = used.saturating_mul(passes);
        self.mode = if self.options.repair { Mode::Mend } else { Mode::Tell };
        self.ring()?;
        let mut repair = self.options.repair;
        if self.options.pages && !self.pages()? {
            repair = false;
            self.mode = Mode::Tell;
            if self.options.shared {
                let why = "rows and bodies, because redb may stop the server at a damaged page: stop the server and \
                           run `pillarbox check-store` again";
                self.report.unchecked.push(why.to_owned());
                return Ok(());
            }
        }
        if repair {
            self.mode = Mode::MendQuietly;
            for _ in 0..ROUNDS_MAX {
                let before = self.report.repaired;
                self.census_round()?;
                if self.report.repaired == before {
                    break;
                }
            }
        }
        self.mode = if repair { Mode::Mend } else { Mode::Tell };
        if self.options.bodies {
            let read = self.bodies(0, u64::MAX).map(drop);
            self.survive(read)?;
        }
        let remembers = self.store.reader()?.note(super::dump::MADE_NOTE)?.is_some_and(|note| !note.is_empty());
        if self.report.repaired > 0 && remembers {
            // An incremental backup would miss what was set right in bodies that its base has: the next
            // one is a full one.
            self.store.put_note(super::dump::MADE_NOTE, Vec::new()).wait()?;
        }
        self.mode = Mode::Tell;
        self.census_round()
    }

    /// Goes through everything that is counted and linked.
    fn census_round(&mut self) -> Step {
        (self.report.accounts, self.report.mailboxes, self.report.messages) = (0, 0, 0);
        self.counted = None;
        let done = self.census();
        self.survive(done)
    }

    /// A tree that can't be read is a finding, a failed disk ends the check.
    fn survive(&mut self, done: Step) -> Step {
        match done {
            Err(Halt::Trouble(trouble)) if !trouble.is_of_disk() => {
                self.find(Place::Index, Damage::Pages(trouble.to_string()))
            }
            other => other,
        }
    }

    fn end(self, done: Step) -> Result<Report, CheckError> {
        let mut report = self.report;
        report.bytes = self.pace.lock().unwrap_or_else(PoisonError::into_inner).total();
        match done {
            Ok(()) => Ok(report),
            Err(Halt::Stopped) => {
                report.stopped = true;
                Ok(report)
            }
            Err(Halt::Trouble(trouble)) => Err(CheckError::Read(self.store.shared.failed(trouble))),
            Err(Halt::Read(error)) => Err(CheckError::Read(error)),
            Err(Halt::Write(error)) => Err(CheckError::Write(error)),
        }
    }

    /// Something is wrong.
    fn find(&mut self, place: Place, damage: Damage) -> Step {
        let finding = Finding { place, damage };
        let mended = if self.mode == Mode::Tell { None } else { self.mend(&finding)? };
        self.tell(&finding, mended.as_deref());
        Ok(())
    }

    fn tell(&mut self, finding: &Finding, mended: Option<&str>) {
        if let Some(what) = mended {
            self.report.repaired += 1;
            self.watch.repaired(finding, what);
        } else if self.mode != Mode::MendQuietly {
            // After a repair what is left could not be set right, whatever its kind.
            match finding.damage.remedy() {
                Remedy::Repair if !self.options.repair => self.report.repairable += 1,
                _ => self.report.damaged += 1,
            }
            self.watch.found(finding);
        }
    }

    /// Counts bytes read, tells the progress, and ends the check when it is to stop.
    fn spend(&mut self, bytes: u64) -> Step {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let go_on = pace.spend(bytes);
        let progress = CheckProgress {
            bytes: pace.total(),
            bytes_total: self.bytes_total.max(pace.total()),
            messages: self.report.messages,
        };
        drop(pace);
        self.watch.progress(&progress);
        if go_on { Ok(()) } else { Err(Halt::Stopped) }
    }

    fn view(&self) -> Step<View> {
        Ok(View::open(&self.store.reader()?)?)
    }

    /// Does what the writer's thread plans for a repair. Gives what it did, if there was anything to
    /// be done.
    fn plan(
        &self,
        plan: impl FnOnce(&mut Tables<'_>) -> Plan<Option<String>> + Send + 'static,
    ) -> Step<Option<String>> {
        match self.store.plan(plan).wait() {
            Ok(done) => Ok(done),
            Err(error @ (WriteError::DiskFull | WriteError::Storage(_) | WriteError::Closed)) => Err(error.into()),
            // A bound of the store is in the way, such as too many mailboxes: it stays as it is.
            Err(_) => Ok(None),
        }
    }

    /// The journal, and the block by which redb's file is found.
    fn ring(&mut self) -> Step {
        let verified = self.store.with_engine(|engine, _| match engine.journal.reread() {
            Err(super::journal::JournalError::Damaged(what)) => Ok(Some(what)),
            other => Ok(other.map(|()| None)?),
        })?;
        if let Some(what) = verified {
            self.find(Place::Journal, Damage::Ring(what.to_owned()))?;
        }
        let whole = self.store.with_engine(|_, shared| Ok(shared.guard.get().reread()?))?;
        if whole { Ok(()) } else { self.find(Place::Index, Damage::FirstBlock) }
    }

    /// redb's page checksums; tells whether they are right.
    fn pages(&mut self) -> Step<bool> {
        let openings = |check: &Self| check.store.shared.openings.load(Ordering::Acquire);
        // A store that was reopened meanwhile may have used the pages again: once more then.
        for _ in 0..2 {
            let frozen = self.store.with_engine(Engine::freeze)?;
            let found = frozen.verify(self.store.shared.backend(), &self.pace);
            self.spend(0)?;
            match found {
                Pages::Whole => return Ok(true),
                Pages::Stopped => return Err(Halt::Stopped),
                Pages::Damaged(what) if frozen.opening == openings(self) => {
                    self.find(Place::Index, Damage::Pages(what))?;
                    return Ok(false);
                }
                Pages::Damaged(_) => {}
            }
        }
        self.report.unchecked.push("redb's pages, because the store was reopened meanwhile".to_owned());
        Ok(true)
    }
}
