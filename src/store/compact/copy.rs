//! The copying itself: every table of the index, row by row in the order of its keys, into a new
//! file.
//!
//! Rows come from one read transaction, so the copy is the index of one moment; what is written
//! meanwhile stands in the journal and is done to the copy at the end, as after a crash. Rows that
//! come in order fill their pages. They are never decoded: a row of any version is copied as it is.

use std::ops::Bound;
use std::sync::Arc;

use redb::{Database, Durability, Key, ReadableTableMetadata, TableDefinition, TableError, TableHandle, Value};

use crate::store::backend::Guard;
use crate::store::ballast::Ballasted;
use crate::store::disk::{Counted, Disk};
use crate::store::engine::{Engine, IndexFile, Shared, follow, open_index};
use crate::store::error::Trouble;
use crate::store::gate::{Opened, View};
use crate::store::table::{NAMES, Tables, Visitor, visit};

use super::{Halt, NEW_FILE};

/// Bytes of rows copied in one step: other commands wait no longer than that takes.
const STEP_BYTES: usize = 256 << 10;

/// redb's cache for the copy, in bytes. Half of it holds what waits for a sync.
const CACHE_BYTES: u32 = 2 << 20;

/// Bytes of rows between two syncs of the copy. What does not fit the cache until then is written
/// twice: with a quarter of this cache it was 1.7 times the rows and not 1.07. A sync of much more
/// would also hold up the journal's on the same card.
const SYNC_BYTES: usize = 1 << 20;

/// A copy on its way.
pub(super) struct Copy {
    view: View,
    file: IndexFile,
    index: Database,
    place: Place,
    unsynced: usize,
    /// Checkpoints that were before it: after another one, the journal no longer holds all that the
    /// copy lacks.
    checkpoints: u64,
    /// Something was written that the journal never held.
    pub(super) void: bool,
    /// What the index took on the medium, and how much of that we reckon is in use.
    pub(super) before: u64,
    pub(super) reckoned: u64,
}

/// How far a copy is.
#[derive(Debug, Default)]
struct Place {
    /// Tables that are done.
    tables: usize,
    /// The last key of the table after them, and how many of its rows are done.
    after: Option<Vec<u8>>,
    rows: u64,
    bytes: u64,
}

impl Copy {
    /// Begins: the index as it is now, and an empty file beside it. Staging must be over.
    pub(super) fn begin(shared: &Shared, engine: &mut Engine) -> Result<Self, Halt> {
        // From here on the ring has all its room for what comes while we copy.
        if engine.journal.volume() > 0 {
            engine.checkpoint(shared).map_err(Halt::Broken)?;
        }
        let before = shared.space.allocated();
        let reckoned = super::packed(shared);
        let missing = shared.space.missing_for(reckoned);
        if missing > 0 {
            return Err(Halt::NoRoom(missing));
        }
        let view = shared.gate.pin().map_err(Halt::Broken)?;
        let strange = view.list_tables().map_err(Trouble::from)?.find(|table| !NAMES.contains(&table.name()));
        if let Some(table) = strange {
            return Err(Halt::Failed(format!("the index has a table `{}` of another Pillarbox", table.name())));
        }
        shared.site.remove(NEW_FILE)?;
        let [counters, _] = &shared.written;
        let disk: Arc<dyn Disk> = Arc::new(Counted::new(shared.site.create(NEW_FILE)?, counters.clone()));
        // Whoever comes by name after the exchange must find it locked.
        if !disk.try_lock()? {
            return Err(Halt::Failed("another process has the new file".to_owned()));
        }
        let guard = Arc::new(Guard::open(disk.clone())?);
        // What it lacks will be in the journal.
        guard.set_complete(false);
        let index = open_index(guard.clone(), CACHE_BYTES).map_err(Trouble::from)?;
        let file = IndexFile { disk, guard };
        let checkpoints = super::checkpoints(shared);
        Ok(Self { view, file, index, place: Place::default(), unsynced: 0, checkpoints, void: false, before, reckoned })
    }

    /// Tells whether the journal still holds all that the copy lacks.
    pub(super) fn can_follow(&self, shared: &Shared) -> bool {
        !self.void && super::checkpoints(shared) == self.checkpoints
    }

    /// Bytes of rows that were copied.
    pub(super) fn bytes(&self) -> u64 {
        self.place.bytes
    }

    /// Copies a little; tells whether that was all.
    pub(super) fn step(&mut self) -> Result<bool, Trouble> {
        let mut transaction = self.index.begin_write()?;
        let before = self.place.bytes;
        let mut step = Step { from: &self.view, into: &transaction, place: &mut self.place, left: STEP_BYTES };
        while step.left > 0
            && let Some(name) = NAMES.get(step.place.tables)
        {
            visit(name, &mut step)?;
        }
        let done = step.left > 0;
        self.unsynced += usize::try_from(self.place.bytes - before).unwrap_or(STEP_BYTES);
        if self.unsynced < SYNC_BYTES {
            transaction.set_durability(Durability::None)?;
        } else {
            self.unsynced = 0;
        }
        transaction.commit()?;
        Ok(done)
    }

    /// Does to the copy what was written meanwhile, makes it durable and opens it as the index will
    /// be. Gives the index that it is for.
    pub(super) fn finish(self, shared: &Shared, engine: &Engine) -> Result<(Opened, IndexFile), Halt> {
        let mut transaction = self.index.begin_write().map_err(Trouble::from)?;
        let mut tables = Tables::open(&transaction, shared.site.now())?;
        follow(&mut tables, None, |take| engine.journal.each(take))?.map_err(Trouble::from)?;
        if tables.progress.applied != engine.applied {
            return Err(Halt::Outrun);
        }
        tables.finish()?;
        transaction.set_durability(Durability::Immediate).map_err(Trouble::from)?;
        transaction.set_quick_repair(true);
        transaction.commit().map_err(Trouble::from)?;
        // Closing cuts off what is free at the file's end.
        self.index.close().map_err(Trouble::from)?;
        // From here on it may use the ballast, as the index.
        let disk: Arc<dyn Disk> = Arc::new(Ballasted::new(self.file.disk, shared.ballast.clone()));
        let file = IndexFile { guard: Arc::new(Guard::open(disk.clone())?), disk };
        let index = open_index(file.guard.clone(), shared.config.cache_bytes).map_err(Trouble::from)?;
        Ok((Opened::new(index), file))
    }
}

/// One step.
struct Step<'s> {
    from: &'s View,
    into: &'s redb::WriteTransaction,
    place: &'s mut Place,
    left: usize,
}

impl Visitor for Step<'_> {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), Trouble> {
        let mut into = self.into.open_table(table)?;
        let from = match self.from.open_table(table) {
            Ok(table) => Some(table),
            // A table that came with a later version and was never used.
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(from) = from {
            let after = self.place.after.take();
            let start = after.as_deref().map_or(Bound::Unbounded, |key| Bound::Excluded(K::from_bytes(key)));
            for row in from.range::<K::SelfType<'_>>((start, Bound::Unbounded))? {
                let (key, value) = row?;
                let (key, value) = (key.value(), value.value());
                into.insert(&key, &value)?;
                let spelled = K::as_bytes(&key);
                let bytes = spelled.as_ref().len() + V::as_bytes(&value).as_ref().len();
                self.place.rows += 1;
                self.place.bytes += bytes as u64;
                self.left = self.left.saturating_sub(bytes);
                if self.left == 0 {
                    self.place.after = Some(spelled.as_ref().to_vec());
                    return Ok(());
                }
            }
            // A damaged page could hide the rows behind it.
            if from.len()? != self.place.rows {
                return Err(Trouble::damaged("a table has other rows than it says"));
            }
        }
        self.place.tables += 1;
        self.place.rows = 0;
        Ok(())
    }
}
