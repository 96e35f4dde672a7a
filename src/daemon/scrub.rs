//! The scrub: reads the whole store once in so many days, a slice each day, and says what it finds
//! damaged before somebody needs it.
//!
//! One timer wakes it once a day, the first time an hour after the start, so a server that was off
//! for months reads no more than any other. A slice goes on where the last one ended. Its place is a
//! note that is written along with the next mail or when the server stops: an idle server writes
//! nothing, and a place lost in a power cut means that a slice is read again. Pacing is by the
//! monotonic clock; the time of day is only told.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::control::{StopOnDrop, quietly};
use crate::mail::message::BlobId;
use crate::store::check::{CheckError, CheckOptions, CheckProgress, CheckStop, CheckWatch, Finding, Report};
use crate::store::{Store, StoreConfig};

/// Wait for the first slice after the start.
const FIRST_AFTER: Duration = Duration::from_hours(1);

/// Wait between slices.
const EVERY: Duration = Duration::from_hours(24);

/// Bytes of a slice at least.
const SLICE_MIN: u64 = 1 << 20;

/// Findings of a round that are kept for `status`; all of them are in the log.
const NAMED_MAX: usize = 20;

/// Longest finding kept, in characters.
const NAMED_LENGTH_MAX: usize = 400;

/// Findings of a slice that are logged.
const LOGGED_MAX: u64 = 200;

/// The note that holds the [`ScrubState`].
const NOTE: &str = "scrub";

/// How far the scrub is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ScrubState {
    /// The body that the next slice begins with; 0 begins a round.
    pub next_body: u64,
    /// What the round under way has found damaged.
    pub damaged: u64,
    /// The first of that, as sentences.
    pub named: Vec<String>,
    /// The last round that came to its end.
    pub last: Option<ScrubRound>,
}

/// A round that came to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ScrubRound {
    /// When, seconds since 1970, as far as the time was known.
    pub finished: i64,
    /// What it found damaged.
    pub damaged: u64,
    /// The first of that, as sentences.
    pub named: Vec<String>,
}

/// The scrub of a store. Clones share its state.
#[derive(Clone, Debug)]
pub struct Scrub {
    store: Store,
    days: u32,
    bytes_per_second: u64,
    state: Arc<Mutex<ScrubState>>,
}

impl Scrub {
    /// The scrub where its last slice left it.
    pub fn new(store: &Store, config: &StoreConfig) -> Self {
        // A note that can't be read, or that was lost, begins anew.
        let note = store.reader().and_then(|reader| reader.note(NOTE)).ok().flatten();
        let state = note.and_then(|note| serde_json::from_slice(&note).ok()).unwrap_or_default();
        Self {
            store: store.clone(),
            days: config.scrub_days,
            bytes_per_second: config.scrub_bytes_per_second.into(),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// How far it is; `None` when it is turned off.
    pub fn state(&self) -> Option<ScrubState> {
        (self.days > 0).then(|| self.state.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Reads a slice a day until dropped.
    pub async fn run(self) {
        if self.days == 0 {
            return;
        }
        let mut wait = FIRST_AFTER;
        loop {
            tokio::time::sleep(wait).await;
            wait = EVERY;
            let guard = StopOnDrop(CheckStop::default());
            let (scrub, stop) = (self.clone(), guard.0.clone());
            match quietly("scrub", move || scrub.slice(&stop)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the store could not be read for its monthly check"),
                Err(error) => tracing::error!(%error, "the monthly check of the store has no thread"),
            }
        }
    }

    /// Reads one slice. Blocks.
    fn slice(&self, stop: &CheckStop) -> Result<(), CheckError> {
        let before = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut slice = Slice { state: before, logged: 0 };
        if slice.state.next_body == 0 {
            (slice.state.damaged, slice.state.named) = (0, Vec::new());
            let report = self.store.check(&CheckOptions { shared: true, ..CheckOptions::quick() }, stop, &mut slice)?;
            if !slice.count(&report) {
                return Ok(());
            }
        }
        let bytes = self.store.figures().store_bytes.div_ceil(self.days.into()).max(SLICE_MIN);
        let from = BlobId(slice.state.next_body);
        let (report, next) = self.store.check_bodies(from, bytes, self.bytes_per_second, stop, &mut slice)?;
        if !slice.count(&report) {
            return Ok(());
        }
        slice.state.next_body = next.map_or(0, |next| next.0);
        if next.is_none() {
            let ScrubState { damaged, named, .. } = std::mem::take(&mut slice.state);
            let round = ScrubRound { finished: now(), damaged, named };
            if round.damaged == 0 {
                tracing::debug!("the whole store was read and is undamaged");
            } else {
                tracing::error!(
                    damaged = round.damaged,
                    "the whole store was read and parts are damaged; `pillarbox check-store` names them"
                );
            }
            slice.state.last = Some(round);
        }
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = slice.state.clone();
        let note = serde_json::to_vec(&slice.state).map_err(io::Error::other);
        // Without its note the slice is read again after the next start.
        if let Ok(note) = note {
            let _ = self.store.put_note_along(NOTE, note).wait();
        }
        Ok(())
    }
}

/// Sees what a slice finds.
struct Slice {
    state: ScrubState,
    logged: u64,
}

impl Slice {
    /// Counts what was found; tells whether the check came to its end.
    fn count(&mut self, report: &Report) -> bool {
        self.state.damaged += report.damaged + report.repairable;
        !report.stopped
    }
}

impl CheckWatch for Slice {
    fn progress(&mut self, _: &CheckProgress) {}

    fn found(&mut self, finding: &Finding) {
        self.logged += 1;
        if self.logged <= LOGGED_MAX {
            tracing::error!(%finding, "the store is damaged");
        }
        if self.state.named.len() < NAMED_MAX {
            self.state.named.push(finding.to_string().chars().take(NAMED_LENGTH_MAX).collect());
        }
    }

    fn repaired(&mut self, _: &Finding, _: &str) {}
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::Address;
    use crate::mail::date::{Timestamp, ZonedTime};
    use crate::mail::message::FlagNames;
    use crate::mail::secret::{ScramVerifier, tests::password};
    use crate::mail::structure::Walker;
    use crate::store::{Folder, NewMessage, Quota};

    /// A store with `count` messages of 50 KB.
    fn house(count: u8) -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let config = StoreConfig { journal_bytes: 1 << 20, reserve_bytes: 0, ..StoreConfig::default() };
        let store = Store::open(folder.path(), &config).unwrap();
        let verifier = ScramVerifier::derive(&password("pencil"), [1; 16], 2);
        let ann = Address::parse("ann@x.test").unwrap();
        let ann = store.add_account(ann, verifier, Quota::default()).wait().unwrap();
        let mut state = 7_u64;
        for _ in 0..count {
            let noise = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                state.to_le_bytes()[7]
            });
            let mut spool = store.spool().unwrap();
            spool.write(&noise.take(100_000).collect::<Vec<_>>()).unwrap();
            let message = NewMessage {
                body: spool.finish().unwrap(),
                structure: Walker::new().finish(),
                internal_date: ZonedTime::utc(Timestamp(9)),
                flags: FlagNames::default(),
            };
            store.deliver(message, vec![(ann, Folder::Inbox)]).wait().unwrap();
        }
        (folder, store)
    }

    #[test]
    fn slices_come_round_and_go_on_after_a_restart() {
        let (folder, store) = house(40);
        // Reading pushes out of the cache what the last mail left there, so that is written before.
        store.close().unwrap();
        let store = Store::open(folder.path(), &StoreConfig::default()).unwrap();
        let config = StoreConfig { scrub_days: 4, scrub_bytes_per_second: 1 << 30, ..StoreConfig::default() };
        let scrub = Scrub::new(&store, &config);
        assert_eq!(scrub.state(), Some(ScrubState::default()));
        let before = store.figures();
        scrub.slice(&CheckStop::default()).unwrap();
        let halfway = scrub.state().unwrap();
        assert!(halfway.next_body > 0 && halfway.last.is_none(), "{halfway:?}");
        let after = store.figures();
        assert_eq!((after.journal_written, after.index_written), (before.journal_written, before.index_written));

        // A clean stop keeps the place.
        store.close().unwrap();
        let store = Store::open(folder.path(), &config).unwrap();
        let scrub = Scrub::new(&store, &config);
        assert_eq!(scrub.state(), Some(halfway));
        for _ in 0..8 {
            scrub.slice(&CheckStop::default()).unwrap();
            if scrub.state().unwrap().next_body == 0 {
                break;
            }
        }
        let ended = scrub.state().unwrap();
        assert_eq!((ended.next_body, ended.damaged), (0, 0));
        let last = ended.last.unwrap();
        assert!(last.damaged == 0 && last.finished > 1_700_000_000);
    }

    #[test]
    fn a_stopped_slice_ends_at_once_and_is_read_again() {
        let (_folder, store) = house(40);
        let config = StoreConfig { scrub_bytes_per_second: 1 << 18, ..StoreConfig::default() };
        let scrub = Scrub::new(&store, &config);
        let stop = CheckStop::default();
        let begun = std::time::Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(100));
                stop.stop();
            });
            scrub.slice(&stop).unwrap();
        });
        // A slice of a MiB would take four seconds.
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert_eq!(scrub.state(), Some(ScrubState::default()));
    }

    #[test]
    fn a_scrub_that_is_off_has_no_state_and_ends() {
        let (_folder, store) = house(0);
        let scrub = Scrub::new(&store, &StoreConfig { scrub_days: 0, ..StoreConfig::default() });
        assert_eq!(scrub.state(), None);
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(scrub.run());
    }
}
