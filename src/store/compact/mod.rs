//! Compaction: the index is copied to a new file without its holes, and that file takes its place.
//!
//! redb's own would need the store closed to readers, a map of all pages in memory, and two full
//! reads of the file after a cut. Here the writer copies in small steps between other commands
//! ([`copy`]). Reads and writes go on: what is written while it copies stands in the journal, which
//! gets no checkpoint meanwhile, and is done to the copy at the end. Then the copy is durable, and
//! a rename puts it in the index's place. A cut before the rename leaves the old index and a file
//! that the next start removes; after it, the new one: both with the same journal. Work that goes
//! past the journal (large bodies, a full ring) makes a copy void, and it is tried again later.

use std::io;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::engine::{Engine, IndexFile, Shared};
use super::error::{Trouble, WriteError};
use super::gate::Opened;
use super::site::Site;
use super::wear::Compacted;
use super::writer::Command;
use super::{INDEX_FILE, NEW_FILE};

mod copy; // every table, row by row, into a new file

use copy::Copy;

/// Free bytes of the index below which a compaction at idle time is not worth its writes.
const GAIN_MIN: u64 = 16 << 20;

/// What an index takes beside its rows: the tables' roots and the allocator's state.
const BASE_BYTES: u64 = 96 << 10;

/// From this size on, the last compaction tells how good our reckoning is.
const RECKONED_MIN: u64 = 1 << 20;

/// Tries of a compaction that somebody asked for.
const TRIES: u32 = 3;

/// Longest wait for the next try at idle time, after one that came to nothing.
const WAIT_MAX: Duration = Duration::from_hours(24);

/// How often we look whether the replaced index is still read.
const RETIRED_LOOK: Duration = Duration::from_secs(1);

/// How a compaction goes, and how the last one ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compaction {
    /// One is under way.
    pub running: bool,
    /// Bytes that are copied.
    pub copied: u64,
    /// About how many there are to be copied.
    pub total: u64,
    /// Compactions that ended since start, well or not.
    pub ended: u64,
    /// Why the last one came to nothing; `None` when it did not.
    pub failure: Option<String>,
    /// The last that was done, also before the start.
    pub last: Option<Compacted>,
}

/// What became of the wish for a compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CompactStart {
    /// It is under way; [`super::Store::compaction`] tells how far.
    Begun,
    /// Too little would be gained.
    Needless {
        /// Bytes the index takes.
        bytes: u64,
        /// How many would come free, by estimate.
        gain: u64,
    },
    /// The medium has no room for the new file beside the old one.
    NoRoom {
        /// How many bytes are missing.
        missing: u64,
    },
}

/// Why a copy came to nothing.
#[derive(Debug)]
pub(super) enum Halt {
    /// Bytes missing on the medium.
    NoRoom(u64),
    /// The journal did not hold all that was written meanwhile.
    Outrun,
    /// The copy failed; the index is as it was.
    Failed(String),
    /// The index itself failed.
    Broken(Trouble),
}

impl From<Trouble> for Halt {
    fn from(trouble: Trouble) -> Self {
        Self::Failed(trouble.to_string())
    }
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Somebody who asks for a compaction.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) force: bool,
    pub(super) sender: oneshot::Sender<Result<CompactStart, WriteError>>,
}

impl Asked {
    pub(super) fn answer(self, answer: Result<CompactStart, WriteError>) {
        // Who no longer waits is no error.
        drop(self.sender.send(answer));
    }
}

/// The writer's compactions.
pub(super) struct Compactor {
    copy: Option<Copy>,
    /// Tries that are left of one that was asked for.
    tries: u32,
    asked: Vec<Asked>,
    /// Checkpoints there were when we last looked whether a compaction is due.
    looked: u64,
    /// When a quiet time will have been long enough, if a compaction is due.
    due: Option<Instant>,
    /// How long a quiet time must be.
    wait: Duration,
    /// The index that was replaced, while it is still read.
    retired: Option<Opened>,
    /// The old and the new index, when nobody knows which of them has the name.
    unsettled: Option<[IndexFile; 2]>,
}

/// Bytes that the index would take without holes, by estimate.
pub(super) fn packed(shared: &Shared) -> u64 {
    let kept = shared.space.kept.load(Ordering::Relaxed);
    match shared.wear.last_compacted() {
        Some(last) if last.reckoned >= RECKONED_MIN => {
            let scaled =
                u128::from(kept.saturating_add(BASE_BYTES)) * u128::from(last.after) / u128::from(last.reckoned);
            u64::try_from(scaled).unwrap_or(u64::MAX).clamp(kept / 2, kept.saturating_mul(4))
        }
        _ => kept.saturating_add(BASE_BYTES),
    }
}

/// Checkpoints since start.
fn checkpoints(shared: &Shared) -> u64 {
    shared.counts.lock().unwrap_or_else(PoisonError::into_inner).checkpoints
}

/// Bytes of the index that are free, by estimate.
pub(super) fn gain(shared: &Shared) -> u64 {
    shared.space.allocated().saturating_sub(packed(shared))
}

/// Tells whether a compaction gains enough: more than a third of the file.
fn is_worth_it(shared: &Shared, least: u64) -> bool {
    let (bytes, gain) = (shared.space.allocated(), gain(shared));
    gain >= least && gain > bytes / 3
}

/// Finds out whether a rename that failed was done all the same, and makes sure that it lasts.
fn was_renamed(site: &dyn Site) -> io::Result<bool> {
    if site.open(NEW_FILE)?.is_some() {
        return Ok(false);
    }
    // A file that is made makes the folder's names durable.
    site.create(NEW_FILE)?;
    site.remove(NEW_FILE)?;
    Ok(true)
}

impl Compactor {
    pub(super) fn new(shared: &Shared) -> Self {
        let wait = Duration::from_secs(shared.config.compact_idle_secs.into());
        let mut new = Self {
            copy: None,
            tries: 0,
            asked: Vec::new(),
            looked: u64::MAX,
            due: None,
            wait,
            retired: None,
            unsettled: None,
        };
        new.heed(shared, false);
        new
    }

    /// Notes that somebody asks for a compaction.
    pub(super) fn ask(&mut self, asked: Asked) {
        self.asked.push(asked);
    }

    /// Something was written that stands in no journal: a copy that lacks it is void.
    pub(super) fn outrun(&mut self) {
        if let Some(copy) = &mut self.copy {
            copy.void = true;
        }
    }

    /// Tells whether there is work to do now.
    pub(super) fn is_busy(&self) -> bool {
        self.copy.is_some() || (self.retired.is_none() && (self.tries > 0 || !self.asked.is_empty()))
    }

    /// Tells whether a checkpoint would make a copy void that has come so far for nothing.
    pub(super) fn holds_checkpoints(&self, engine: &Engine) -> bool {
        self.copy.is_some() && engine.journal.volume() < engine.journal.payload_max()
    }

    /// Looks after each command whether a compaction is due; idle time begins with the last.
    pub(super) fn heed(&mut self, shared: &Shared, idle: bool) {
        let checkpoints = checkpoints(shared);
        if checkpoints != self.looked {
            self.looked = checkpoints;
            let due = shared.config.compact_idle_secs > 0 && is_worth_it(shared, GAIN_MIN);
            self.due = due.then(|| Instant::now() + self.wait);
        } else if !idle && self.due.is_some() {
            self.due = Some(Instant::now() + self.wait);
        }
    }

    /// Waits for a command; `None` when there is something to do first. Without that, nothing
    /// wakes the thread.
    pub(super) fn wait(&self, commands: &Receiver<Command>) -> Result<Option<Command>, RecvError> {
        let look = self.retired.as_ref().map(|_| Instant::now() + RETIRED_LOOK);
        let Some(until) = look.into_iter().chain(self.due).min() else { return commands.recv().map(Some) };
        match commands.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(command) => Ok(Some(command)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(RecvError),
        }
    }

    /// Does a little, while nobody else wants anything. Tells whether the index was exchanged.
    pub(super) fn work(&mut self, shared: &Shared, engine: &mut Engine) -> Result<bool, Trouble> {
        self.retired = self.retired.take().filter(Opened::is_read);
        if self.copy.is_none() {
            return self.start(shared, engine).map(|()| false);
        }
        let done = match self.step(shared, engine) {
            Ok(done) => done,
            Err(Halt::Broken(trouble)) => {
                self.give_up(shared, &trouble.to_string());
                return Err(trouble);
            }
            Err(halt) => {
                self.halted(shared, &halt);
                false
            }
        };
        Ok(done)
    }

    /// Begins what was asked for, or what is due.
    fn start(&mut self, shared: &Shared, engine: &mut Engine) -> Result<(), Trouble> {
        let due = self.due.is_some_and(|at| at <= Instant::now());
        if self.retired.is_some() || !(due || self.tries > 0 || !self.asked.is_empty()) {
            return Ok(());
        }
        let force = self.asked.iter().any(|asked| asked.force);
        if self.tries == 0 && !due && !force && !is_worth_it(shared, 0) {
            let needless = CompactStart::Needless { bytes: shared.space.allocated(), gain: gain(shared) };
            self.asked.drain(..).for_each(|asked| asked.answer(Ok(needless)));
            return Ok(());
        }
        if self.tries == 0 && !self.asked.is_empty() {
            self.tries = TRIES;
        }
        match Copy::begin(shared, engine) {
            Ok(copy) => {
                {
                    let mut state = shared.compaction.lock().unwrap_or_else(PoisonError::into_inner);
                    (state.running, state.copied, state.total) = (true, 0, copy.reckoned);
                }
                self.copy = Some(copy);
                self.asked.drain(..).for_each(|asked| asked.answer(Ok(CompactStart::Begun)));
            }
            Err(Halt::NoRoom(missing)) => {
                let refused = CompactStart::NoRoom { missing };
                self.asked.drain(..).for_each(|asked| asked.answer(Ok(refused)));
                self.halted(shared, &Halt::NoRoom(missing));
            }
            Err(Halt::Broken(trouble)) => {
                self.give_up(shared, &trouble.to_string());
                return Err(trouble);
            }
            Err(halt) => {
                if let Halt::Failed(what) = &halt {
                    let error = WriteError::Storage(what.clone());
                    self.asked.drain(..).for_each(|asked| asked.answer(Err(error.clone())));
                }
                self.halted(shared, &halt);
            }
        }
        Ok(())
    }

    /// Copies a little, and exchanges the index when that was the last.
    fn step(&mut self, shared: &Shared, engine: &mut Engine) -> Result<bool, Halt> {
        let Some(copy) = &mut self.copy else { return Ok(false) };
        if !copy.can_follow(shared) {
            return Err(Halt::Outrun);
        }
        let missing = shared.space.missing_for(0);
        if missing > 0 {
            return Err(Halt::NoRoom(missing));
        }
        let whole = copy.step()?;
        let copied = copy.bytes();
        if !whole {
            let mut state = shared.compaction.lock().unwrap_or_else(PoisonError::into_inner);
            state.copied = copied;
            state.total = state.total.max(copied);
            return Ok(false);
        }
        let Some(copy) = self.copy.take() else { return Ok(false) };
        let (before, reckoned) = (copy.before, copy.reckoned);
        let (index, file) = copy.finish(shared, engine)?;
        self.exchange(shared, index, file)?;
        // What the journal holds is durable in the index: that was a checkpoint.
        engine.checkpointed(shared);
        let after = shared.space.allocated();
        let done = Compacted { at: shared.site.now().0, before, after, reckoned };
        shared.wear.compacted(done);
        tracing::info!(before, after, "the index was compacted");
        self.tries = 0;
        self.wait = Duration::from_secs(shared.config.compact_idle_secs.into());
        end(shared, None);
        Ok(true)
    }

    /// Puts the new index in the old one's place.
    fn exchange(&mut self, shared: &Shared, index: Opened, file: IndexFile) -> Result<(), Halt> {
        let old = shared.index_file();
        let mut unsettled = None;
        let exchanged = shared.gate.exchange(index, || match shared.site.rename(NEW_FILE, INDEX_FILE) {
            Ok(()) => Ok(()),
            Err(error) => match was_renamed(&*shared.site) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Halt::from(error)),
                Err(_) => {
                    unsettled = Some([old.clone(), file.clone()]);
                    Err(Halt::Broken(error.into()))
                }
            },
        });
        self.unsettled = unsettled;
        // Its readers keep it open; with them the file goes.
        self.retired = exchanged?.filter(Opened::is_read);
        shared.settle_on(file);
        shared.openings.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// Finds out which index has the name, where a failed rename left that open. The store must not
    /// be written before: a power cut could bring the old index back beside a newer journal.
    pub(super) fn settle(&mut self, shared: &Shared) -> Result<(), Trouble> {
        let Some([old, new]) = &self.unsettled else { return Ok(()) };
        let renamed = was_renamed(&*shared.site)?;
        shared.settle_on(if renamed { new.clone() } else { old.clone() });
        self.unsettled = None;
        Ok(())
    }

    /// A copy came to nothing.
    fn halted(&mut self, shared: &Shared, halt: &Halt) {
        let why = match halt {
            Halt::NoRoom(missing) => format!("{} MiB are missing on the medium", missing.div_ceil(1 << 20)),
            Halt::Outrun => "too much mail came meanwhile".to_owned(),
            Halt::Failed(what) => what.clone(),
            Halt::Broken(trouble) => trouble.to_string(),
        };
        self.tries = match halt {
            Halt::Outrun => self.tries.saturating_sub(1),
            _ => 0,
        };
        tracing::debug!(%why, left = self.tries, "a compaction came to nothing");
        self.drop_copy(shared);
        if self.tries == 0 {
            self.wait = self.wait.saturating_mul(2).min(WAIT_MAX);
            self.due = self.due.map(|_| Instant::now() + self.wait);
            end(shared, Some(why));
        }
    }

    /// The store fails or closes: lets go of everything.
    pub(super) fn give_up(&mut self, shared: &Shared, why: &str) {
        let error = WriteError::Storage(why.to_owned());
        self.asked.drain(..).for_each(|asked| asked.answer(Err(error.clone())));
        self.retired = None;
        self.tries = 0;
        let running = shared.compaction.lock().unwrap_or_else(PoisonError::into_inner).running;
        if running {
            self.drop_copy(shared);
            end(shared, Some(why.to_owned()));
        }
    }

    /// Removes what there is of the new file.
    fn drop_copy(&mut self, shared: &Shared) {
        self.copy = None;
        // While nobody knows which file has the index's name, none is removed.
        if self.unsettled.is_none()
            && let Err(error) = shared.site.remove(NEW_FILE)
        {
            tracing::debug!(%error, "the unfinished index can't be removed; the next start does it");
        }
    }
}

/// Tells that a compaction ended, and why it came to nothing where it did.
fn end(shared: &Shared, failure: Option<String>) {
    let mut state = shared.compaction.lock().unwrap_or_else(PoisonError::into_inner);
    let (ended, last) = (state.ended + 1, shared.wear.last_compacted());
    *state = Compaction { ended, failure, last, ..Compaction::default() };
}
