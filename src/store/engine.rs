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

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use redb::{Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::mail::mailbox::ModSeq;

use super::backend::{Guard, IndexBackend};
use super::change::Change;
use super::compact::Compaction;
use super::disk::{Counters, Disk, Slot};
use super::error::{OpenError, ReadError, Trouble};
use super::journal::{self, Contents, Journal, JournalError, Known, TakeGroup};
use super::notify::Watchers;
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
    gate: RwLock<Gate>,
    /// A reader met a failed disk: the index must be reopened.
    pub(super) suspect: AtomicBool,
    pub(super) watchers: Watchers,
    pub(super) space: Space,
    /// The last change readers can see.
    pub(super) applied: AtomicU64,
    pub(super) counts: Mutex<Counts>,
    /// Where the files are.
    pub(super) site: Arc<dyn Site>,
    /// `mail.redb`
    pub(super) index: Arc<Slot<dyn Disk>>,
    /// `mail.redb` with its first block kept twice: what redb is given.
    guard: Slot<Guard>,
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

/// An open index. Whoever reads it holds its token, so that an index whose place another has taken
/// stays open until nobody does.
#[derive(Debug)]
pub(super) struct Opened {
    index: Database,
    readers: Arc<()>,
}

impl Opened {
    pub(super) fn new(index: Database) -> Self {
        Self { index, readers: Arc::default() }
    }

    /// Tells whether anybody reads it.
    pub(super) fn is_read(&self) -> bool {
        Arc::strong_count(&self.readers) > 1
    }
}

/// A read of the index as it is now. What outlives it keeps its token.
#[derive(Debug)]
pub(super) struct View {
    transaction: ReadTransaction,
    token: Arc<()>,
}

impl View {
    /// Keeps the index open.
    pub(super) fn token(&self) -> Arc<()> {
        self.token.clone()
    }
}

impl Deref for View {
    type Target = ReadTransaction;

    fn deref(&self) -> &ReadTransaction {
        &self.transaction
    }
}

/// A file of the index: as it is, and as redb is given it.
#[derive(Clone, Debug)]
pub(super) struct IndexFile {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) guard: Arc<Guard>,
}

#[derive(Debug)]
enum Gate {
    Open(Opened),
    /// The disk failed; the writer reopens.
    Down(String),
    Closed,
}

impl Shared {
    /// What is shared, before the index is open. The disks, of the index and of the journal, count
    /// into `written`; `guard` is the index's.
    pub(super) fn new(
        site: Arc<dyn Site>,
        [index, journal]: [Arc<dyn Disk>; 2],
        guard: Guard,
        written: [Arc<Counters>; 2],
        config: StoreConfig,
    ) -> Self {
        let index = Arc::new(Slot::new(index));
        Self {
            gate: RwLock::new(Gate::Closed),
            suspect: AtomicBool::new(false),
            watchers: Watchers::default(),
            space: Space::new(site.clone(), index.clone(), config.reserve_bytes, written.clone()),
            applied: AtomicU64::new(0),
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

    /// Begins a read.
    pub(super) fn begin_read(&self) -> Result<View, ReadError> {
        match &*self.gate.read().unwrap_or_else(PoisonError::into_inner) {
            Gate::Open(Opened { index, readers }) => match index.begin_read() {
                Ok(transaction) => Ok(View { transaction, token: readers.clone() }),
                Err(error) => Err(self.failed(error.into())),
            },
            Gate::Down(what) => Err(ReadError::Storage(what.clone())),
            Gate::Closed => Err(ReadError::Closed),
        }
    }

    /// Begins a write. The writer alone calls it.
    pub(super) fn begin_write(&self) -> Result<WriteTransaction, Trouble> {
        match &*self.gate.read().unwrap_or_else(PoisonError::into_inner) {
            Gate::Open(Opened { index, .. }) => Ok(index.begin_write()?),
            Gate::Down(_) | Gate::Closed => Err(Trouble::damaged("the index is not open")),
        }
    }

    /// Tells whether the index is open or may come back.
    pub(super) fn is_closed(&self) -> bool {
        matches!(&*self.gate.read().unwrap_or_else(PoisonError::into_inner), Gate::Closed)
    }

    /// A read met trouble: if the disk failed, the next command reopens the index.
    pub(super) fn failed(&self, trouble: Trouble) -> ReadError {
        if trouble.is_of_disk() {
            self.suspect.store(true, Ordering::Relaxed);
        }
        trouble.into()
    }

    /// Looks whether the journal is there where it is needed.
    fn find_journal(&self) -> Result<(), OpenError> {
        let found = journal::contents(&*self.journal).map_err(Trouble::from)?;
        let guard = self.guard.get();
        let (complete, blank) = (guard.is_complete(), guard.is_blank());
        if found == Contents::Ring {
            // The copy that redb has written and synced when it is open says so.
            guard.set_complete(false);
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

    fn pass(&self, gate: Gate) -> Gate {
        std::mem::replace(&mut *self.gate.write().unwrap_or_else(PoisonError::into_inner), gate)
    }

    /// Puts another index in the place of this one, once `step` is done: whoever wants to read
    /// waits that long. Gives the old one back.
    pub(super) fn exchange<E>(&self, index: Opened, step: impl FnOnce() -> Result<(), E>) -> Result<Option<Opened>, E> {
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        step()?;
        match std::mem::replace(&mut *gate, Gate::Open(index)) {
            Gate::Open(old) => Ok(Some(old)),
            Gate::Down(_) | Gate::Closed => Ok(None),
        }
    }

    /// The file of the index that is used from now on.
    pub(super) fn settle_on(&self, file: IndexFile) {
        self.index.put(file.disk);
        self.guard.put(file.guard);
    }

    /// The file of the index that is used now.
    pub(super) fn index_file(&self) -> IndexFile {
        IndexFile { disk: self.index.get(), guard: self.guard.get() }
    }

    /// Lets go of a failed index. Readers meet an error until it is open again.
    pub(super) fn take_down(&self, what: &Trouble) {
        drop(self.pass(Gate::Down(what.to_string())));
    }

    /// Closes for good.
    pub(super) fn shut(&self) -> Result<(), Trouble> {
        let closed = match self.pass(Gate::Closed) {
            Gate::Open(Opened { index, .. }) => index.close().map_err(Trouble::from),
            Gate::Down(_) | Gate::Closed => Ok(()),
        };
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
    /// checkpoint that succeeded.
    pub(super) fn open(shared: &Shared) -> Result<(Self, bool), OpenError> {
        let guard = shared.guard.get();
        guard.go_back().map_err(Trouble::from)?;
        let complete = guard.is_complete();
        shared.find_journal()?;
        let index = open_index(guard.clone(), shared.config.cache_bytes).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => OpenError::InUse(shared.site.path().to_owned()),
            other => Trouble::from(other).into(),
        })?;
        let (engine, sweep_due, woken) = Self::begin(shared, &index, !complete).inspect_err(|_| {
            // Nothing was acknowledged since: redb writes this when it is closed.
            guard.set_complete(complete);
        })?;
        let applied = engine.applied;
        shared.applied.store(applied, Ordering::Release);
        shared.suspect.store(false, Ordering::Relaxed);
        drop(shared.pass(Gate::Open(Opened::new(index))));
        // A group whose sync failed was refused and may yet have come back: sessions must hear of it.
        shared.watchers.wake(&woken, ModSeq(applied));
        Ok((engine, sweep_due))
    }

    /// What comes before readers are let in; `journal_needed` where something may be in the journal
    /// alone. Gives also whether there is something to sweep, and the accounts that the replay changed.
    fn begin(shared: &Shared, index: &Database, journal_needed: bool) -> Result<(Self, bool, Vec<u32>), OpenError> {
        let identity = upgrade::prepare(index)?;
        let ring = shared.config.journal_bytes.into();
        let mut journal =
            Journal::reopen(shared.journal.clone(), identity, ring, &shared.ring).map_err(|error| match error {
                JournalError::Foreign => OpenError::ForeignJournal(shared.site.path().to_owned()),
                other => damaged(shared, other),
            })?;
        // Only where the ring has just been made: it is durable, and from now on it is needed.
        let guard = shared.guard.get();
        if guard.is_complete() {
            guard.make_complete(false).map_err(Trouble::from)?;
        }

        let transaction = index.begin_write().map_err(Trouble::from)?;
        let mut tables = Tables::open(&transaction, shared.site.now())?;
        let replayed = tables.progress.applied;
        let followed = follow(&mut tables, |take| journal.replay(replayed, take))?;
        followed
            .and_then(|()| if journal_needed { journal.verify() } else { Ok(()) })
            .map_err(|error| damaged(shared, error))?;
        shared.wear.load(&mut tables)?;
        let sweep_due = sweep::begin(&mut tables)? || tables.sweep_due;
        let (applied, kept, touched) = (tables.progress.applied, tables.progress.kept, tables.touched);
        let woken = std::mem::take(&mut tables.woken);
        tables.finish()?;
        let mut engine = Self { journal, seq: applied.saturating_add(SEQ_GAP), applied };
        // Whatever was replayed must be durable here before the journal is written again.
        if touched || engine.journal.volume() > 0 {
            engine.make_durable(shared, transaction)?;
        } else {
            transaction.abort().map_err(Trouble::from)?;
            shared.guard.get().mirror();
        }
        shared.space.kept.store(kept, Ordering::Relaxed);
        Ok((engine, sweep_due, woken))
    }

    /// Commits durably: with this transaction everything before it, so the journal is free.
    /// `self.applied` is what the transaction holds.
    pub(super) fn make_durable(&mut self, shared: &Shared, mut transaction: WriteTransaction) -> Result<(), Trouble> {
        shared.wear.save(shared, &transaction)?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_quick_repair(true);
        transaction.commit()?;
        self.checkpointed(shared);
        Ok(())
    }

    /// The index holds everything, durably.
    pub(super) fn checkpointed(&mut self, shared: &Shared) {
        self.journal.checkpointed(self.applied);
        shared.guard.get().mirror();
        let mut counts = shared.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.checkpoints += 1;
        counts.last_checkpoint = Some(shared.site.now().0);
    }

    /// A checkpoint with nothing new in it.
    pub(super) fn checkpoint(&mut self, shared: &Shared) -> Result<(), Trouble> {
        shed(shared)?;
        let transaction = shared.begin_write()?;
        self.make_durable(shared, transaction)
    }

    /// The checkpoint before a clean close: from here on the index is complete without the journal.
    pub(super) fn finish(&mut self, shared: &Shared) -> Result<(), Trouble> {
        self.checkpoint(shared)?;
        shared.guard.get().set_complete(true);
        Ok(())
    }

    /// What a checkpoint costs, in bytes written: the tables' uppermost pages, redb's own tables and
    /// the allocator's state, and the second sync, which on a card takes as long as some 64 KiB.
    pub(super) fn checkpoint_bytes(&self, shared: &Shared) -> u64 {
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

/// Opens a file of the index, or makes one of an empty file.
pub(super) fn open_index(guard: Arc<Guard>, cache_bytes: u32) -> Result<Database, DatabaseError> {
    let cache = usize::try_from(cache_bytes).unwrap_or(usize::MAX);
    Database::builder().set_cache_size(cache).create_with_backend(IndexBackend(guard))
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

/// Applies every change that the index does not hold, of the groups that `groups` hands out, and
/// gives what that came to.
pub(super) fn follow(
    tables: &mut Tables<'_>,
    groups: impl FnOnce(&mut TakeGroup<'_>) -> Result<(), JournalError>,
) -> Result<Result<(), JournalError>, Trouble> {
    let mut trouble = None;
    let followed = groups(&mut |_, _, payload| {
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
        None => Ok(followed),
    }
}
