//! What the writer does when the disk fails: closes index and journal, opens them anew, replays.
//!
//! It begins at once, readers wait meanwhile at the [gate](super::super::gate), and so do the
//! answers of the group that met the failure: when its journal write had begun nobody knows whether
//! it is on the disk, and the replay tells. A group that is found was done; a sender told otherwise
//! would send its message twice. Only when the first attempt to open fails are its callers told no,
//! and then the group is left out of every later replay.
//!
//! While nothing can be written (a card that turned read-only, a disk without a free block), the
//! store is opened for reading, with the journal replayed in memory.

use std::io;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::super::engine::Engine;
use super::super::error::{OpenError, Trouble, WriteError};
use super::{Failed, Writer};

/// Wait between two attempts to open a store whose disk fails, when commands come in.
const REOPEN_EVERY: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(1) };

/// The same while it can be read, because an attempt breaks off what is being read.
const REOPEN_WHILE_READABLE: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(5) };

impl Writer {
    /// Makes sure that there is an engine and an index nobody suspects.
    pub(super) fn ready_engine(&mut self) -> Result<(), Failed> {
        self.shared.ballast.forget();
        let suspected = self.shared.gate.look();
        if self.engine.is_some() && suspected {
            self.restart(&failed("a read failed"), None);
        } else if self.engine.is_none() && (suspected || Instant::now() >= self.reopen_at) {
            self.shared.gate.take_down();
            self.reopen(None);
        }
        if self.engine.is_some() { Ok(()) } else { Err(failed("it failed a moment ago").into()) }
    }

    /// A group failed: opens the store anew where that is called for, and tells what the group's
    /// callers are to be told. `logged` are its numbers if it had begun to be made durable.
    pub(super) fn settle(&mut self, trouble: &Trouble, logged: Option<RangeInclusive<u64>>) -> Result<(), WriteError> {
        if self.engine.is_none() {
            return Err(self.failing.clone());
        }
        let full = self.is_full(trouble);
        if trouble.is_of_disk() || logged.is_some() {
            self.restart(trouble, logged.clone());
        } else {
            // Its transaction is taken back; everything else stands.
            tracing::error!(%trouble, "a command met damage");
        }
        let found = self.engine.as_ref().zip(logged).is_some_and(|(engine, logged)| engine.applied >= *logged.end());
        if found {
            tracing::info!("the changes under way when the disk failed were found to be done");
            return Ok(());
        }
        Err(if full { WriteError::DiskFull } else { trouble.clone().into() })
    }

    /// Tells whether trouble came of a full disk; redb names the cause of a failure only once.
    pub(super) fn is_full(&self, trouble: &Trouble) -> bool {
        trouble.is_full() || trouble.is_of_disk() && self.shared.ballast.ran_dry()
    }

    /// The disk failed: lets go of everything and opens it anew.
    pub(super) fn restart(&mut self, trouble: &Trouble, logged: Option<RangeInclusive<u64>>) {
        tracing::error!(%trouble, "the store failed and is opened anew");
        let error = if self.is_full(trouble) { WriteError::DiskFull } else { trouble.clone().into() };
        self.engine = None;
        self.compactor.give_up(&self.shared, &trouble.to_string());
        self.shared.gate.take_down();
        self.reopen(logged);
        for keep in self.held.drain() {
            keep.refuse(error.clone());
        }
    }

    fn reopen(&mut self, logged: Option<RangeInclusive<u64>>) {
        let known = self.compactor.settle(&self.shared).map_err(OpenError::from);
        let error = match known.and_then(|()| Engine::open(&self.shared, self.refused.as_ref())) {
            Ok((engine, sweep_due)) => {
                tracing::info!("the store is open again");
                self.refused = None;
                self.engine = Some(engine);
                self.sweep_due = sweep_due;
                return;
            }
            Err(error) => error,
        };
        // The callers are told no now, so it must stay no.
        self.refused = logged.or(self.refused.take());
        self.sweep_due = false;
        self.failing = match &error {
            OpenError::DiskFull => WriteError::DiskFull,
            other => WriteError::Storage(other.to_string()),
        };
        let readable = Engine::open_for_reading(&self.shared, self.refused.as_ref());
        if readable.is_ok() {
            tracing::error!(%error, "nothing can be changed; mail can be read");
        } else {
            tracing::error!(%error, "the store can't be opened; it is tried again");
            self.shared.gate.give_up(error.to_string());
        }
        let wait = if readable.is_ok() { REOPEN_WHILE_READABLE } else { REOPEN_EVERY };
        self.reopen_at = Instant::now() + wait;
    }
}

/// The disk failed, and redb knows the error.
fn failed(what: &str) -> Trouble {
    io::Error::other(what).into()
}
