//! Who watches a check: progress, findings, and the word to stop; and how fast it may read.
//!
//! A check beside a running server reads within a budget of bytes: it sleeps for what it has read.
//! The sleep ends at once when the check is to stop.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Finding;

/// Bytes read between two looks at the clock.
const STRIDE: u64 = 1 << 20;

/// Sees what a check does. May block; the check waits meanwhile.
pub trait CheckWatch {
    /// So far.
    fn progress(&mut self, progress: &CheckProgress);

    /// Something is wrong, and stays so.
    fn found(&mut self, finding: &Finding);

    /// Something was wrong and is set right; `what` says how, as a part of a sentence.
    fn repaired(&mut self, finding: &Finding, what: &str);
}

/// How far a check is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckProgress {
    /// Bytes read.
    pub bytes: u64,
    /// Bytes to be read in all, by estimate.
    pub bytes_total: u64,
    /// Messages seen.
    pub messages: u64,
}

/// The word to stop. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct CheckStop(Arc<(Mutex<bool>, Condvar)>);

impl CheckStop {
    /// Says it.
    pub fn stop(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Tells whether it was said.
    pub fn is_stopped(&self) -> bool {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, but not once the word is said.
    pub fn sleep(&self, time: Duration) {
        let stopped = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whether the time is over or the word was said, the caller looks.
        drop(self.0.1.wait_timeout_while(stopped, time, |stopped| !*stopped));
    }
}

/// Keeps reading within the budget.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: Option<u64>,
    stop: CheckStop,
    /// Since when `read` counts.
    since: Instant,
    read: u64,
    /// In all.
    total: u64,
}

impl Pace {
    pub(super) fn new(bytes_per_second: Option<u64>, stop: CheckStop) -> Self {
        Self { bytes_per_second, stop, since: Instant::now(), read: 0, total: 0 }
    }

    /// Counts bytes read and sleeps when they came too fast. Tells whether to go on.
    pub(super) fn spend(&mut self, bytes: u64) -> bool {
        self.total = self.total.saturating_add(bytes);
        self.read = self.read.saturating_add(bytes);
        if let Some(rate) = self.bytes_per_second.filter(|_| self.read >= STRIDE) {
            let due = Duration::from_millis(self.read.saturating_mul(1000) / rate.max(1));
            let left = due.saturating_sub(self.since.elapsed());
            if !left.is_zero() {
                self.stop.sleep(left);
            }
            (self.since, self.read) = (Instant::now(), 0);
        }
        !self.stop.is_stopped()
    }

    /// Bytes read in all.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.is_stopped()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_keeps_to_its_budget_and_a_stop_ends_the_wait() {
        let begun = Instant::now();
        let mut pace = Pace::new(Some(20 << 20), CheckStop::default());
        for _ in 0..8 {
            assert!(pace.spend(512 << 10));
        }
        assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
        assert_eq!(pace.total(), 4 << 20);

        let stop = CheckStop::default();
        let mut pace = Pace::new(Some(1), stop.clone());
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            stop.stop();
        });
        assert!(!pace.spend(STRIDE));
        stopper.join().unwrap();
    }
}
