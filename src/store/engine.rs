//! The index and the journal together: opening, replaying, making durable.
//!
//! [`Shared`] is what every clone of the store, every reader and the writer have in common;
//! [`Engine`] is the writer's own half. The index names the last change it holds in the same
//! transaction, so whatever a crash leaves of it, the journal's groups above that number make it
//! whole. Every durable commit keeps the allocator's state (`quick_repair`), so that opening after
//! a crash does not read the whole file.
//!
//! The index also tells, in the copies of its first block, whether it is complete: nothing that was
//! acknowledged is in the journal alone. It says so from a clean close to the next opening, and
//! while a new store has no ring yet. An index that is not is never opened without its journal.

use std::io;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, DatabaseError, Durability, WriteTransaction};

use crate::mail::mailbox::ModSeq;

use super::backend::{Guard, IndexBackend};
use super::ballast::{Ballast, Ballasted};
use super::change::Change;
use super::check::Frozen;
use super::compact::Compaction;
use super::disk::{Counters, Disk, Slot};
use super::error::{OpenError, ReadError, Trouble, is_of_space};
use super::gate::{Gate, View};
use super::journal::{self, Contents, Journal, JournalError, Known, TakeGroup};
use super::notify::Watchers;
use super::overlay::Overlay;
use super::site::Site;
use super::space::Space;
use super::table::Tables;
use super::wear::Wear;
use super::{INDEX_FILE, StoreConfig, sweep, upgrade};

/// Numbers left out at each opening, more than a group has: even a disk that lost a group it had
/// called durable then never makes us give a `ModSeq` to two changes.
const SEQ_GAP: u64 = 4096;

/// Bytes of journal that call for a checkpoint, at least; less where redb's cache can't hold what
/// they change, because it would write pages before the checkpoint and again at it.
const CHECKPOINT_MIN: u64 = 2 << 20;

/// What a checkpoint costs beside the allocator's state: about 24 pages, and its second sync.
const CHECKPOINT_BYTES: u64 = 160 << 10;

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
    /// How often the index was opened: an earlier handle's readers keep no pages in a later one.
    pub(super) openings: AtomicU64,
    pub(super) counts: Mutex<Counts>,
    /// Where the files are.
    pub(super) site: Arc<dyn Site>,
    /// `mail.redb`
    pub(super) index: Arc<Slot<dyn Disk>>,
    /// `mail.redb` with its first block kept twice: what redb is given.
    pub(super) guard: Slot<Guard>,
    /// `mail.journal`
    pub(super) journal: Arc<dyn Disk>,
    /// What is known of the journal's header blocks.
    ring: Known,
    /// What went to the index and to the journal.
    pub(super) written: [Arc<Counters>; 2],
    pub(super) wear: Wear,
    pub(super) compaction: Mutex<Compaction>,
    pub(super) config: StoreConfig,
}

/// Counts since start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) messages: u64,
    pub(super) checkpoints: u64,
    pub(super) last_checkpoint: Option<i64>,
}

/// A file of the index: as it is, and as redb is given it.
#[derive(Clone, Debug)]
pub(super) struct IndexFile {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) guard: Arc<Guard>,
}

/// The two files as the store is opened on them.
struct Files {
    guard: Arc<Guard>,
    journal: Arc<dyn Disk>,
    ring: Known,
}

impl Shared {
    /// What is shared, before the index is open. The disks, of the index and of the journal, count
    /// into `written`; `guard` is the index's, and `ballast` is to lie in the journal.
    pub(super) fn new(
        site: Arc<dyn Site>,
        [index, journal]: [Arc<dyn Disk>; 2],
        guard: Guard,
        ballast: Arc<Ballast>,
        written: [Arc<Counters>; 2],
        config: StoreConfig,
    ) -> Self {
        ballast.lies_in(journal.clone());
        let journal = Arc::new(Ballasted::new(journal, ballast.clone()));
        let index = Arc::new(Slot::new(index));
        Self {
            gate: Gate::new(),
            watchers: Watchers::default(),
            space: Space::new(site.clone(), index.clone(), config.reserve_bytes, written.clone()),
            ballast,
            applied: AtomicU64::new(0),
            openings: AtomicU64::new(0),
            counts: Mutex::default(),
            wear: Wear::new(&*site, &written),
            compaction: Mutex::default(),
            site,
            index,
            guard: Slot::new(Arc::new(guard)),
            journal,
            ring: Known::default(),
            written,
            config,
        }
    }

    /// The disks of the index and of the journal.
    pub(super) fn disks(&self) -> [Arc<dyn Disk>; 2] {
        [self.index.get(), self.journal.clone()]
    }

    /// The file of the index that is used now.
    pub(super) fn index_file(&self) -> IndexFile {
        IndexFile { disk: self.index.get(), guard: self.guard.get() }
    }

    /// The file of the index that is used from now on.
    pub(super) fn settle_on(&self, file: IndexFile) {
        self.index.put(file.disk);
        self.guard.put(file.guard);
    }

    /// The index file as redb sees it.
    pub(super) fn backend(&self) -> IndexBackend {
        IndexBackend(self.guard.get())
    }

    /// Begins a read; waits a little while the index is opened anew.
    pub(super) fn begin_read(&self) -> Result<View, ReadError> {
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

    /// Looks whether the journal is there where it is needed.
    fn find_journal(&self, files: &Files) -> Result<(), OpenError> {
        let found = journal::contents(&*files.journal).map_err(Trouble::from)?;
        let (complete, blank) = (files.guard.is_complete(), files.guard.is_blank());
        if found == Contents::Ring {
            // The copy that redb has written and synced when it is open says so.
            files.guard.set_complete(false);
        } else if !complete {
            return Err(OpenError::JournalMissing(self.site.path().to_owned()));
        } else if !blank {
            tracing::warn!("there is no journal; a new one is made");
        }
        if !complete {
            // Should redb end the process over what it finds, this is the last that the log tells.
            let file = self.site.path().join(INDEX_FILE);
            tracing::info!(file = %file.display(), "the store was not closed cleanly; its last checkpoint is read");
        }
        Ok(())
    }

    /// Closes for good.
    pub(super) fn shut(&self) -> Result<(), Trouble> {
        let closed = self.gate.shut().map_or(Ok(()), |index| index.close().map_err(Trouble::from));
        self.watchers.close();
        let [index, journal] = self.disks();
        closed.and(index.unlock().and(journal.unlock()).map_err(Trouble::from))
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
    /// something to sweep. After a failure the index goes back to what its last successful sync made
    /// durable, and the journal's groups above that are still there: they are given up only after a
    /// checkpoint that succeeded. A group whose numbers are `refused` is left out, for good.
    pub(super) fn open(shared: &Shared, refused: Option<&RangeInclusive<u64>>) -> Result<(Self, bool), OpenError> {
        let (guard, journal) = (shared.guard.get(), shared.journal.clone());
        let opened = Self::open_files(shared, &Files { guard, journal, ring: shared.ring.clone() }, refused)?;
        shared.refill();
        Ok(opened)
    }

    /// As [`Engine::open`] where nothing can be written: readers are let in, changes stay in memory.
    pub(super) fn open_for_reading(shared: &Shared, refused: Option<&RangeInclusive<u64>>) -> Result<(), OpenError> {
        let over = |disk: &Arc<dyn Disk>| Ok::<_, io::Error>(Arc::new(Overlay::new(disk.clone())?));
        let (index, journal) =
            (over(&shared.index.get()).map_err(Trouble::from)?, over(&shared.journal).map_err(Trouble::from)?);
        let files = Files { guard: Arc::new(shared.guard.get().above(index)), journal, ring: Known::default() };
        let counts = *shared.counts.lock().unwrap_or_else(PoisonError::into_inner);
        Self::open_files(shared, &files, refused)?;
        // What was made durable in memory is no checkpoint.
        *shared.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        Ok(())
    }

    fn open_files(
        shared: &Shared,
        files: &Files,
        refused: Option<&RangeInclusive<u64>>,
    ) -> Result<(Self, bool), OpenError> {
        files.guard.go_back().map_err(Trouble::from)?;
        let complete = files.guard.is_complete();
        shared.find_journal(files)?;
        let index = open_index(files.guard.clone(), shared.config.cache_bytes).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(shared.site.path().to_owned()),
            other => Trouble::from(other).into(),
        })?;
        let (engine, sweep_due, woken) = Self::begin(shared, files, &index, !complete, refused).inspect_err(|_| {
            // Nothing was acknowledged since: redb writes this when it is closed.
            files.guard.set_complete(complete);
        })?;
        let applied = engine.applied;
        shared.applied.store(applied, Ordering::Release);
        shared.openings.fetch_add(1, Ordering::AcqRel);
        shared.gate.open(index);
        // A group whose sync failed may have been found: sessions must hear of it.
        shared.watchers.wake(&woken, ModSeq(applied));
        Ok((engine, sweep_due))
    }

    /// What comes before readers are let in; `journal_needed` where something may be in the journal
    /// alone. Gives also whether there is something to sweep, and the accounts that the replay changed.
    fn begin(
        shared: &Shared,
        files: &Files,
        index: &Database,
        journal_needed: bool,
        refused: Option<&RangeInclusive<u64>>,
    ) -> Result<(Self, bool, Vec<u32>), OpenError> {
        let identity = upgrade::prepare(index)?;
        upgrade::has_all_tables(index)?;
        let ring = shared.config.journal_bytes.into();
        let is_new = files.journal.is_empty().unwrap_or(false);
        let mut journal =
            Journal::reopen(files.journal.clone(), identity, ring, &files.ring).map_err(|error| match error {
                JournalError::Foreign => OpenError::ForeignJournal(shared.site.path().to_owned()),
                JournalError::Disk(error) if is_new && is_of_space(&error) => no_room(shared),
                other => damaged(shared, other),
            })?;
        // Only where the ring has just been made: it is durable, and from now on it is needed.
        if files.guard.is_complete() {
            files.guard.make_complete(false).map_err(Trouble::from)?;
        }
        shared.ballast.found(journal.ring()).map_err(Trouble::from)?;

        let transaction = index.begin_write().map_err(Trouble::from)?;
        let mut tables = Tables::open(&transaction, shared.site.now())?;
        replay(shared, &mut journal, &mut tables, refused)?;
        if journal_needed {
            journal.verify().map_err(|error| damaged(shared, error))?;
        }
        shared.wear.load(&mut tables)?;
        let sweep_due = sweep::begin(&mut tables)? || tables.sweep_due;
        let (applied, kept, touched) = (tables.progress.applied, tables.progress.kept, tables.touched);
        let woken = std::mem::take(&mut tables.woken);
        tables.finish()?;
        let mut engine = Self { journal, seq: applied.saturating_add(SEQ_GAP), applied };
        // Whatever was replayed must be durable here before the journal is written again.
        if touched || engine.journal.volume() > 0 {
            engine.make_durable(shared, &files.guard, transaction)?;
        } else {
            transaction.abort().map_err(Trouble::from)?;
            files.guard.mirror();
        }
        shared.space.kept.store(kept, Ordering::Relaxed);
        Ok((engine, sweep_due, woken))
    }

    /// Commits durably: with this transaction everything before it, so the journal is free.
    /// `self.applied` is what the transaction holds.
    pub(super) fn commit(&mut self, shared: &Shared, transaction: WriteTransaction) -> Result<(), Trouble> {
        self.make_durable(shared, &shared.guard.get(), transaction)
    }

    fn make_durable(
        &mut self,
        shared: &Shared,
        guard: &Guard,
        mut transaction: WriteTransaction,
    ) -> Result<(), Trouble> {
        shared.wear.save(shared, &transaction)?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_quick_repair(true);
        transaction.commit()?;
        guard.mirror();
        self.checkpointed(shared);
        Ok(())
    }

    /// The index holds everything, durably.
    pub(super) fn checkpointed(&mut self, shared: &Shared) {
        self.journal.checkpointed(self.applied);
        let mut counts = shared.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.checkpoints += 1;
        counts.last_checkpoint = Some(shared.site.now().0);
    }

    /// A checkpoint with nothing new in it.
    pub(super) fn checkpoint(&mut self, shared: &Shared) -> Result<(), Trouble> {
        shed(shared)?;
        let transaction = shared.begin_write()?;
        self.commit(shared, transaction)
    }

    /// A checkpoint, and the index as it is right behind it.
    pub(super) fn freeze(&mut self, shared: &Shared) -> Result<Frozen, Trouble> {
        // A reader from before the checkpoint keeps what every later commit lets go of, the trees
        // of redb's own included; one from behind it would miss what the checkpoint's epilogue frees.
        let pin = shared.gate.pin()?;
        self.checkpoint(shared)?;
        Ok(Frozen::new(pin, &shared.backend(), shared.openings.load(Ordering::Acquire))?)
    }

    /// The checkpoint before a clean close: from here on the index is complete without the journal.
    pub(super) fn finish(&mut self, shared: &Shared) -> Result<(), Trouble> {
        self.checkpoint(shared)?;
        shared.guard.get().set_complete(true);
        Ok(())
    }

    /// What a checkpoint costs, in bytes written: the tables' uppermost pages, redb's own tables and
    /// the allocator's state, and the second sync, which on a card takes as long as some 64 KiB.
    pub(super) fn checkpoint_bytes(shared: &Shared) -> u64 {
        CHECKPOINT_BYTES + allocator_bytes(shared)
    }

    /// Tells whether the journal calls for a checkpoint: so rarely that the allocator's state adds
    /// an eighth at most to what is written, and before the ring is half full.
    pub(super) fn wants_checkpoint(&self, shared: &Shared) -> bool {
        let allocator = allocator_bytes(shared);
        let least = CHECKPOINT_MIN.min(u64::from(shared.config.cache_bytes));
        let most = self.journal.payload_max();
        self.journal.volume() > allocator.saturating_mul(8).max(least).min(most)
    }
}

/// Tells a damaged journal from a failed disk.
fn damaged(shared: &Shared, error: JournalError) -> OpenError {
    match error {
        JournalError::Damaged(what) => OpenError::JournalDamaged(shared.site.path().to_owned(), what),
        other => Trouble::from(other).into(),
    }
}

/// Bytes that a checkpoint writes for the allocator's state.
fn allocator_bytes(shared: &Shared) -> u64 {
    shared.index.get().len().unwrap_or(0).saturating_mul(ALLOCATOR_PER_GIB) >> 30
}

/// Commits nothing. redb takes back the pages that a commit without durability replaced at the next
/// commit of that kind; a durable one would write them first, some 20 pages that nobody reads.
pub(super) fn shed(shared: &Shared) -> Result<(), Trouble> {
    let mut transaction = shared.begin_write()?;
    transaction.set_durability(Durability::None)?;
    Ok(transaction.commit()?)
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
    shared: &Shared,
    journal: &mut Journal,
    tables: &mut Tables<'_>,
    refused: Option<&RangeInclusive<u64>>,
) -> Result<(), OpenError> {
    let applied = tables.progress.applied;
    let replayed = follow(tables, refused, |take| journal.replay(applied, take))?;
    replayed.map_err(|error| damaged(shared, error))
}

/// As [`replay`], of the groups that `groups` hands out; gives what that came to.
pub(super) fn follow(
    tables: &mut Tables<'_>,
    refused: Option<&RangeInclusive<u64>>,
    groups: impl FnOnce(&mut TakeGroup<'_>) -> Result<(), JournalError>,
) -> Result<Result<(), JournalError>, Trouble> {
    let mut trouble = None;
    let followed = groups(&mut |first, last, payload| {
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
    trouble.map_or(Ok(followed), Err)
}

/// Opens a file of the index, or makes one of an empty file.
pub(super) fn open_index(guard: Arc<Guard>, cache_bytes: u32) -> Result<Database, DatabaseError> {
    let cache = usize::try_from(cache_bytes).unwrap_or(usize::MAX);
    Database::builder().set_cache_size(cache).create_with_backend(IndexBackend(guard))
}
