//! Scans mail of the last days again when new signatures have come, behind everybody's back.
//!
//! A round is worked at by a thread of the lowest priority that rests three times as long as it works, and
//! gives way when a message comes that is to be scanned: what it was about to find out it finds out later.
//! Where it is stands in a note that is written along with other changes, every so many messages and when
//! the server stops; a place that was lost in a power cut is gone over again. While there is nothing to do
//! no timer runs: a new set wakes the task, and so does the start of the server.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::control::{StopOnDrop, quietly};
use super::fresh::now;
use super::guard::{Guard, work_time};
use super::notices::Told;
use crate::flow::scan::Action;
use crate::flow::scan::notice::{Kept, Named};
use crate::flow::scan::rescan::{Moved, Rescan, RescanState, Stage};
use crate::mail::date::Timestamp;
use crate::mail::message::BlobId;
use crate::store::Store;
use crate::store::check::CheckStop;

/// Wait after giving way.
const GAVE_WAY: Duration = Duration::from_secs(2);

/// Wait after something failed that may be in order later.
const FAILED: Duration = Duration::from_mins(10);

/// How long the thread rests for the time it has worked.
const REST: u32 = 3;

/// Longest rest.
const REST_MAX: Duration = Duration::from_secs(20);

/// How often the look at a body may be broken off for mail that comes before it is left out of the round.
const TRIES_MAX: u32 = 20;

/// Bodies between two notes of the place.
const NOTED_EVERY: u64 = 64;

/// Seconds of a day.
const DAY_SECS: i64 = 86_400;

/// Scans mail again.
#[derive(Debug)]
pub struct Rescanner {
    guard: Guard,
    store: Store,
    /// The body that was given up last, and how often.
    given_up: (AtomicU64, AtomicU32),
}

/// How a stretch of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// There is nothing to do, or something else.
    Over,
    /// Mail came.
    GaveWay,
}

/// What a look at a body came to.
enum Looked {
    Clean,
    Found(String),
    /// Mail has the place; nothing was begun.
    NoPlace,
    /// Mail came meanwhile; what was done is lost.
    GaveWay,
}

impl Rescanner {
    /// Works with what the guard scans with.
    pub fn new(guard: Guard, store: Store) -> Self {
        Self { guard, store, given_up: Default::default() }
    }

    /// Works until dropped.
    pub async fn run(self) {
        if self.guard.config().rescan_days == 0 {
            return;
        }
        let guard = self.guard.clone();
        // A stopping server has no threads left, and nothing to scan.
        let _ = tokio::task::spawn_blocking(move || guard.resume()).await;
        let this = std::sync::Arc::new(self);
        loop {
            if this.guard.round().is_none() {
                this.guard.changed().await;
                continue;
            }
            let stopping = StopOnDrop(CheckStop::default());
            let (work, stop) = (this.clone(), stopping.0.clone());
            match quietly("rescan", move || work.stretch(&stop)).await {
                Ok(Ok(Ended::Over)) => {}
                Ok(Ok(Ended::GaveWay)) => tokio::time::sleep(GAVE_WAY).await,
                Ok(Err(error)) | Err(error) => {
                    tracing::warn!(%error, "mail cannot be scanned again now");
                    tokio::time::sleep(FAILED).await;
                }
            }
        }
    }

    /// Works at the round. Blocks.
    fn stretch(&self, stop: &CheckStop) -> io::Result<Ended> {
        let Some((set, mut state)) = self.guard.round() else { return Ok(Ended::Over) };
        let since = Timestamp(now().0 - i64::from(self.guard.config().rescan_days) * DAY_SECS);
        let (config, folder) = (self.guard.config(), self.guard.folder());
        let rescan = Rescan { store: &self.store, config, set: &set, number: state.set, folder, since };
        loop {
            let batch = rescan.batch(state.next).map_err(io::Error::other)?;
            if batch.is_empty() {
                state.advance(config.rescan_bodies, now());
                tracing::debug!(?state, "a stage of scanning mail again is over");
                if !self.guard.note_round(&state, true) || state.stage == Stage::Done {
                    return Ok(Ended::Over);
                }
                continue;
            }
            for blob in batch {
                let before = state.read;
                if stop.is_stopped() || !self.see(&rescan, blob, &mut state, stop)? {
                    // It may be that the place is told twice; it is small.
                    self.guard.note_round(&state, true);
                    return Ok(if stop.is_stopped() { Ended::Over } else { Ended::GaveWay });
                }
                state.next = blob.0.saturating_add(1);
                let noted = state.read != before && state.read.is_multiple_of(NOTED_EVERY);
                if !self.guard.note_round(&state, noted) {
                    return Ok(Ended::Over);
                }
            }
        }
    }

    /// Sees to one body; false when it gave way.
    fn see(&self, rescan: &Rescan<'_>, blob: BlobId, state: &mut RescanState, stop: &CheckStop) -> io::Result<bool> {
        if state.stage == Stage::Prints {
            state.compared += 1;
        }
        if !rescan.is_due(state.stage, blob)? {
            return Ok(true);
        }
        let begun = work_time();
        let looked = match self.look(rescan, blob, stop) {
            Ok(Looked::NoPlace) => return Ok(false),
            Ok(Looked::GaveWay) => {
                let again = self.given_up.0.swap(blob.0, Ordering::Relaxed) == blob.0;
                let tries = if again { self.given_up.1.load(Ordering::Relaxed) + 1 } else { 1 };
                self.given_up.1.store(tries, Ordering::Relaxed);
                if tries < TRIES_MAX {
                    return Ok(false);
                }
                tracing::warn!(body = blob.0, "a message is not scanned again: there is always mail before it");
                return Ok(true);
            }
            Ok(looked) => looked,
            Err(error) => {
                // It may have been removed meanwhile; what is damaged others tell of.
                tracing::debug!(body = blob.0, %error, "a message was not scanned again");
                return Ok(true);
            }
        };
        state.read += 1;
        if let Looked::Found(finding) = looked {
            let moved = rescan.act(blob).map_err(io::Error::other)?;
            self.tell(blob, &finding, &moved, state);
        }
        stop.sleep((work_time().saturating_sub(begun) * REST).min(REST_MAX));
        Ok(true)
    }

    fn look(&self, rescan: &Rescan<'_>, blob: BlobId, stop: &CheckStop) -> io::Result<Looked> {
        let Some(_place) = self.guard.try_place() else { return Ok(Looked::NoPlace) };
        let gave_way = Cell::new(false);
        // Whoever waits ends the time of this scan.
        let clock = || {
            gave_way.set(gave_way.get() || self.guard.is_wanted() || stop.is_stopped());
            if gave_way.get() { Duration::MAX } else { work_time() }
        };
        let findings = rescan.look(blob, &clock)?;
        Ok(match findings.signature {
            Some(finding) => Looked::Found(finding),
            None if gave_way.get() => Looked::GaveWay,
            None => Looked::Clean,
        })
    }

    /// Tells the log, `status` and whoever had the message.
    fn tell(&self, blob: BlobId, finding: &str, moved: &[Moved], state: &mut RescanState) {
        let reader = self.store.reader();
        let about = reader.as_ref().ok().and_then(|reader| reader.bodies().ok()?.structure(blob).ok()?);
        let about = about.map(|structure| Named::of(&structure)).unwrap_or_default();
        for Moved { was, action } in moved {
            let account = reader.as_ref().ok().and_then(|reader| reader.account(was.account).ok()?);
            let account = account.map_or_else(|| was.account.0.to_string(), |account| account.address.to_string());
            tracing::warn!(finding, account, from = about.from, ?action, "mail that was taken before has malware");
            let (what, kept) = match action {
                Action::Quarantine => ("put aside", Some(Kept::TakenOut)),
                Action::Junk => ("moved to Junk", Some(Kept::ToJunk)),
                _ => ("marked", None),
            };
            state.found(format!("{finding} in mail of {account}, {what}"));
            if let Some(kept) = kept {
                let told = Told { about: about.clone(), finding: finding.to_owned(), kept };
                // It is on its way; nobody has to wait for it.
                drop(self.guard.notices().tell(&told, &[was.account]));
            }
        }
    }
}

#[cfg(test)]
mod tests;
