//! The index and the journal together: opening, replaying, making durable.
//!
//! [`Shared`] is what every clone of the store, every reader and the writer have in common;
//! [`Engine`] is the writer's own half. The index names the last change it holds in the same
//! transaction, so whatever a crash leaves of it, the journal's groups above that number make it
//! whole. Every durable commit keeps the allocator's state (`quick_repair`), so that opening after
//! a crash does not read the whole file.

use std::io;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, DatabaseError, Durability, ReadTransaction, WriteTransaction};

use crate::mail::mailbox::ModSeq;

use super::backend::IndexBackend;
use super::ballast::{Ballast, Ballasted};
use super::change::Change;
use super::disk::{Counters, Disk};
use super::error::{OpenError, ReadError, Trouble, is_of_space};
use super::gate::Gate;
use super::journal::{Journal, JournalError};
use super::notify::Watchers;
use super::overlay::Overlay;
use super::site::Site;
use super::space::Space;
use super::table::Tables;
use super::{StoreConfig, sweep, upgrade};

/// Numbers left out at each opening, more than a group has: even a disk that lost a group it had
/// called durable then never makes us give a `ModSeq` to two changes.
const SEQ_GAP: u64 = 4096;

/// Bytes of journal that call for a checkpoint, at least; less where redb's cache can't hold what
/// they change, because it would write pages before the checkpoint and again at it.
const CHECKPOINT_MIN: u64 = 1 << 20;

/// Bytes a checkpoint writes for the allocator's state, for each GiB of the index (STORAGE section 1).
const ALLOCATOR_PER_GIB: u64 = 150 << 10;

/// What all clones, readers and the writer have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) gate: Gate,
    pub(super) watchers: Watchers,
    pub(super) space: Space,
    /// What is given up when the disk is full.
    pub(super) ballast: Arc<Ballast>,
    /// The last change readers can see.
    pub(super) applied: AtomicU64,
    pub(super) counts: Mutex<Counts>,
    /// Where the files are.
    pub(super) site: Arc<dyn Site>,
    /// `mail.redb`
    pub(super) index: Arc<dyn Disk>,
    /// `mail.journal`
    pub(super) journal: Arc<dyn Disk>,
    /// What went to the index and to the journal.
    pub(super) written: [Arc<Counters>; 2],
    config: StoreConfig,
}

/// Counts since start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) messages: u64,
    pub(super) checkpoints: u64,
    pub(super) last_checkpoint: Option<i64>,
}

impl Shared {
    /// What is shared, before the index is open. The disks, of the index and of the journal, count
    /// into `written`.
    pub(super) fn new(
        site: Arc<dyn Site>,
        [index, journal]: [Arc<dyn Disk>; 2],
        written: [Arc<Counters>; 2],
        config: StoreConfig,
    ) -> Self {
        let ballast = Arc::new(Ballast::new(journal.clone(), config.cache_bytes.into()));
        let [index, journal] =
            [index, journal].map(|disk| -> Arc<dyn Disk> { Arc::new(Ballasted::new(disk, ballast.clone())) });
        Self {
            gate: Gate::new(),
            watchers: Watchers::default(),
            space: Space::new(site.clone(), index.clone(), config.reserve_bytes, written.clone()),
            ballast,
            applied: AtomicU64::new(0),
            counts: Mutex::default(),
            site,
            index,
            journal,
            written,
            config,
        }
    }

    /// The disks of the index and of the journal.
    pub(super) fn disks(&self) -> [&dyn Disk; 2] {
        [&*self.index, &*self.journal]
    }

    /// Begins a read; waits a little while the index is opened anew.
    pub(super) fn begin_read(&self) -> Result<ReadTransaction, ReadError> {
        self.gate.begin_read()
    }

    /// Begins a write. The writer alone calls it.
    pub(super) fn begin_write(&self) -> Result<WriteTransaction, Trouble> {
        self.gate.begin_write()
    }

    /// Tells whether the index is open or may come back.
    pub(super) fn is_closed(&self) -> bool {
        self.gate.is_closed()
    }

    /// A read met trouble: if the disk failed, the writer opens the index anew.
    pub(super) fn failed(&self, trouble: Trouble) -> ReadError {
        if trouble.is_of_disk() {
            self.gate.suspect();
        }
        trouble.into()
    }

    /// Tells whether mail must be refused: the reserve is touched, or part of the ballast is gone and
    /// there is not enough room inside the index.
    pub(super) fn lacks_room(&self) -> bool {
        self.space.is_full() || self.is_tight() && self.space.is_full_inside()
    }

    /// Tells whether part of the ballast is gone, so that nothing may wait for a checkpoint.
    pub(super) fn is_tight(&self) -> bool {
        self.ballast.missing() > 0
    }

    /// Writes the ballast back if there is room for it.
    pub(super) fn refill(&self) {
        let missing = self.ballast.missing();
        if missing > 0 && self.space.holds(missing) {
            self.ballast.restore();
        }
    }

    /// Closes for good.
    pub(super) fn shut(&self) -> Result<(), Trouble> {
        let closed = self.gate.shut().map_or(Ok(()), |index| index.close().map_err(Trouble::from));
        self.watchers.close();
        closed.and(self.index.unlock().map_err(Trouble::from))
    }
}

/// The writer's half: the journal and how far the numbers are.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) journal: Journal,
    /// The last number given out.
    pub(super) seq: u64,
    /// The last change in the index.
    pub(super) applied: u64,
}

impl Engine {
    /// Opens the index and the journal, replays, and lets readers in. Tells also whether there is
    /// something to sweep. A group of the journal whose numbers are `refused` is left out, for good.
    pub(super) fn open(shared: &Shared, refused: Option<&RangeInclusive<u64>>) -> Result<(Self, bool), OpenError> {
        let opened = Self::open_over(shared, [shared.index.clone(), shared.journal.clone()], refused)?;
        shared.refill();
        Ok(opened)
    }

    /// As [`Engine::open`] where nothing can be written: readers are let in, changes stay in memory.
    pub(super) fn open_for_reading(shared: &Shared, refused: Option<&RangeInclusive<u64>>) -> Result<(), OpenError> {
        let over = |disk: &Arc<dyn Disk>| Ok::<_, io::Error>(Arc::new(Overlay::new(disk.clone())?));
        let (index, journal) =
            (over(&shared.index).map_err(Trouble::from)?, over(&shared.journal).map_err(Trouble::from)?);
        let counts = *shared.counts.lock().unwrap_or_else(PoisonError::into_inner);
        Self::open_over(shared, [index, journal], refused)?;
        // What was made durable in memory is no checkpoint.
        *shared.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        Ok(())
    }

    fn open_over(
        shared: &Shared,
        [index, journal]: [Arc<dyn Disk>; 2],
        refused: Option<&RangeInclusive<u64>>,
    ) -> Result<(Self, bool), OpenError> {
        let cache = usize::try_from(shared.config.cache_bytes).unwrap_or(usize::MAX);
        let index =
            Database::builder().set_cache_size(cache).create_with_backend(IndexBackend(index)).map_err(|error| {
                match error {
                    DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(shared.site.path().to_owned()),
                    other => Trouble::from(other).into(),
                }
            })?;
        let identity = upgrade::prepare(&index)?;
        let ring = shared.config.journal_bytes.into();
        let is_new = journal.is_empty().unwrap_or(false);
        let mut journal = Journal::open(journal, identity, ring).map_err(|error| match error {
            JournalError::Foreign => OpenError::ForeignJournal(shared.site.path().to_owned()),
            JournalError::Disk(error) if is_new && is_of_space(&error) => no_room(shared),
            other => Trouble::from(other).into(),
        })?;
        shared.ballast.found(journal.ring()).map_err(Trouble::from)?;

        let transaction = index.begin_write().map_err(Trouble::from)?;
        let mut tables = Tables::open(&transaction, shared.site.now())?;
        replay(&mut journal, &mut tables, refused)?;
        let sweep_due = sweep::begin(&mut tables)? || tables.sweep_due;
        let (applied, kept, touched) = (tables.progress.applied, tables.progress.kept, tables.touched);
        let woken = std::mem::take(&mut tables.woken);
        tables.finish()?;
        let mut engine = Self { journal, seq: applied.saturating_add(SEQ_GAP), applied };
        if touched {
            engine.make_durable(shared, transaction)?;
        } else {
            transaction.abort().map_err(Trouble::from)?;
        }
        shared.space.kept.store(kept, Ordering::Relaxed);
        shared.applied.store(applied, Ordering::Release);
        shared.gate.open(index);
        // A group whose sync failed may have been found: sessions must hear of it.
        shared.watchers.wake(&woken, ModSeq(applied));
        Ok((engine, sweep_due))
    }

    /// Commits durably: with this transaction everything before it, so the journal is free.
    /// `self.applied` is what the transaction holds.
    pub(super) fn make_durable(&mut self, shared: &Shared, mut transaction: WriteTransaction) -> Result<(), Trouble> {
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_quick_repair(true);
        transaction.commit()?;
        self.journal.checkpointed(self.applied);
        let mut counts = shared.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.checkpoints += 1;
        counts.last_checkpoint = Some(shared.site.now().0);
        Ok(())
    }

    /// A checkpoint with nothing new in it.
    pub(super) fn checkpoint(&mut self, shared: &Shared) -> Result<(), Trouble> {
        let transaction = shared.begin_write()?;
        self.make_durable(shared, transaction)
    }

    /// Tells whether the journal calls for a checkpoint: so rarely that the allocator's state adds
    /// an eighth at most to what is written, and before the ring is half full.
    pub(super) fn wants_checkpoint(&self, shared: &Shared) -> bool {
        let index = shared.index.len().unwrap_or(0);
        let allocator = index.saturating_mul(ALLOCATOR_PER_GIB) >> 30;
        let least = CHECKPOINT_MIN.min(u64::from(shared.config.cache_bytes / 2));
        let most = self.journal.payload_max();
        self.journal.volume() > allocator.saturating_mul(8).max(least).min(most)
    }
}

/// A new store's journal found no room: gives back what it took, and says how much it needs.
fn no_room(shared: &Shared) -> OpenError {
    // Zeros without a header are nobody's; what can't be cut off is written over at the next try.
    drop(shared.journal.set_len(0));
    OpenError::NoRoom {
        folder: shared.site.path().to_owned(),
        needed: shared.config.journal_bytes.into(),
        free: shared.site.room().ok().map(|room| room.free),
    }
}

/// Applies every change of the journal that the index does not hold, but for those of a group whose
/// callers were told that it was not done.
fn replay(
    journal: &mut Journal,
    tables: &mut Tables<'_>,
    refused: Option<&RangeInclusive<u64>>,
) -> Result<(), Trouble> {
    let applied = tables.progress.applied;
    let mut trouble = None;
    let replayed = journal.replay(applied, &mut |first, last, payload| {
        if refused.is_some_and(|refused| refused.contains(&first) && refused.contains(&last)) {
            // The index names the numbers as done, so that no later replay brings them either.
            tables.progress.applied = tables.progress.applied.max(last);
            tables.touched = true;
            return Ok(());
        }
        let done = Change::each(payload, &mut |change| {
            if change.seq <= tables.progress.applied {
                return Ok(());
            }
            change.apply(tables)
        });
        done.map_err(|found| {
            trouble = Some(found);
            JournalError::Damaged("a change can't be replayed")
        })
    });
    match trouble {
        Some(trouble) => Err(trouble),
        None => Ok(replayed?),
    }
}
