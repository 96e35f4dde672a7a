//! Is there room on the disk for more mail?
//!
//! ENOSPC in the middle of a commit makes redb's handle unusable until it is reopened, so mail is
//! refused before (452 4.3.1), while a reserve is left; flags and deletes still work. The index
//! file does not shrink when mail is deleted, so room inside it counts as well. What others write
//! to the last byte all the same is the `ballast`'s matter.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::disk::{Counters, Disk, Slot};
use super::site::{Room, Site};

/// Bytes written between two looks at the disk.
const LOOK_EVERY_BYTES: u64 = 1 << 20;

/// Time between two looks at the disk, for what other programs write.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Room inside the index that lets mail in while the disk is full, in bytes, if the reserve is less.
const INSIDE_MIN: u64 = 1 << 20;

/// Most of a disk that is left free beside the configured reserve, in bytes, and the share of it.
const SHARE_MAX: u64 = 1 << 30;
const SHARE: u64 = 20;

/// Watches the free space of the data folder.
#[derive(Debug)]
pub(super) struct Space {
    site: Arc<dyn Site>,
    index: Arc<Slot<dyn Disk>>,
    reserve: u64,
    written: [Arc<Counters>; 2],
    /// Bytes of the index in use, by estimate.
    pub(super) kept: AtomicU64,
    last: Mutex<Option<Look>>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    written: u64,
    full: bool,
}

impl Space {
    /// Watches the room of `site` and inside `index`.
    pub(super) fn new(
        site: Arc<dyn Site>,
        index: Arc<Slot<dyn Disk>>,
        reserve: u64,
        written: [Arc<Counters>; 2],
    ) -> Self {
        Self { site, index, reserve, written, kept: AtomicU64::new(0), last: Mutex::new(None) }
    }

    /// Tells whether the reserve is touched. Asks the system only after some bytes or seconds, or
    /// while it is.
    pub(super) fn is_full(&self) -> bool {
        let written = self.written.iter().map(|counters| counters.written.load(Ordering::Relaxed)).sum::<u64>();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(look) = *last
            && !look.full
            && written.saturating_sub(look.written) < LOOK_EVERY_BYTES
            && look.at.elapsed() < LOOK_EVERY
        {
            return false;
        }
        let full = self.look();
        *last = Some(Look { at: Instant::now(), written, full });
        full
    }

    /// Tells whether the medium has `bytes` to spare now, beside the configured reserve.
    pub(super) fn holds(&self, bytes: u64) -> bool {
        self.site.room().is_ok_and(|room| room.free >= self.reserve.max(bytes).saturating_add(bytes))
    }

    /// Tells whether there is too little room inside the index, whatever the disk has.
    pub(super) fn is_full_inside(&self) -> bool {
        self.inside() < self.reserve.max(INSIDE_MIN)
    }

    /// Bytes that are free inside the index, by estimate.
    fn inside(&self) -> u64 {
        let index = self.allocated();
        let inside = index.saturating_sub(self.kept.load(Ordering::Relaxed));
        // Part of what is free inside is in half-filled pages and can't be counted on.
        inside.saturating_sub(index / 8)
    }

    fn look(&self) -> bool {
        // A folder whose disk can't be asked is no reason to refuse mail.
        let Ok(room) = self.site.room() else { return false };
        let inside = self.inside();
        // Room inside is ours alone, so however full the others have made the disk, the reserve is
        // enough of it.
        room.free.saturating_add(inside) < self.kept_free(room) && inside < self.reserve
    }

    /// What is to be left free on the medium.
    fn kept_free(&self, room: Room) -> u64 {
        self.reserve.saturating_add((room.total / SHARE).min(SHARE_MAX))
    }

    /// Bytes that the index takes on the medium.
    pub(super) fn allocated(&self) -> u64 {
        self.index.get().allocated().unwrap_or(0)
    }

    /// How many bytes are missing on the medium before another file of `bytes` leaves the reserve
    /// untouched.
    pub(super) fn missing_for(&self, bytes: u64) -> u64 {
        // A medium that can't be asked may have the room; a write will tell.
        let Ok(room) = self.site.room() else { return 0 };
        self.kept_free(room).saturating_add(bytes).saturating_sub(room.free)
    }
}

#[cfg(test)]
mod tests {
    use super::super::site::MemorySite;
    use super::*;

    #[test]
    fn a_reserve_larger_than_the_disk_leaves_no_room() {
        let site = Arc::new(MemorySite::new(&std::env::temp_dir()));
        let index: Arc<dyn Disk> = Arc::new(site.disk("index"));
        let index = Arc::new(Slot::new(index));
        let space = |reserve| Space::new(site.clone(), index.clone(), reserve, Default::default());
        assert!(space(u64::MAX).is_full());
    }
}
