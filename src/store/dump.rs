//! All rows of the index as they are, in one read transaction: what a backup is made of.
//!
//! A dump knows no record: it hands over the bytes of keys and values, table by table, so flags,
//! numbers, passwords and whatever a later table holds come along by themselves; only what is made of
//! bodies and can be made again (the gram index) is left out. Bodies stand
//! last: for each its row, its structure and its pieces. A body never changes and numbers of bodies
//! rise, so a later dump leaves out the pieces below the first one's *watermark*; everything else is
//! small and is always there in full.
//!
//! The transaction lives as long as the dump, and pages that are freed meanwhile are not used
//! again: the file may grow by what changes while a dump is made.

use std::fmt;
use std::io;
use std::sync::Arc;

use redb::{Key, ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, TableError, Value};
use ring::rand::{SecureRandom, SystemRandom};

use crate::mail::date::Timestamp;
use crate::mail::message::BlobId;

use super::blob::{BlobRecord, piece_count, piece_payload};
use super::engine::Shared;
use super::error::{ReadError, Trouble};
use super::gate::View;
use super::record::{Progress, Record};
use super::table::{BLOB, NAMES, PIECE, PROGRESS, STATE, STRUCTURE, SWEEP, SWEEP_STAGED, TAIL, Visitor, load, visit};
use super::{SCHEMA, Store, gram};

/// Bytes of rows that are handed over together; one row that is larger goes alone.
pub const BATCH_BYTES: usize = 64 << 10;

/// The note in which the dumps are remembered that later ones build on. A repair empties it.
pub const MADE_NOTE: &str = "backups";

/// Bytes of a row's head: its table's place in the list (1), lengths of key (2) and value (4).
const ROW_HEAD: usize = 7;

/// Tables whose rows stand with their bodies.
const OF_BODIES: [&str; 4] = ["blob", "structure", "piece", "tail"];

/// What is made again from bodies, and so is in no dump.
const DERIVED: [&str; 1] = [gram::NAME];

/// What a dump is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// A name of its own, at random.
    pub id: [u8; 6],
    /// When it was begun.
    pub at: Timestamp,
    /// The schema of the rows.
    pub schema: u32,
    /// The tables; a row names its own by the place in this list.
    pub tables: Vec<String>,
    /// Every body below this number is complete in this dump and those it builds on.
    pub watermark: u64,
}

/// What went wrong in a dump.
#[derive(Debug)]
pub enum DumpError {
    /// The store could not be read.
    Read(ReadError),
    /// The rows could not be handed over.
    Taker(io::Error),
}

impl fmt::Display for DumpError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(out),
            Self::Taker(error) => error.fmt(out),
        }
    }
}

impl std::error::Error for DumpError {}

/// Takes rows, spelled one after the other (see [`rows`]), and how many they are.
pub type TakeRows<'t> = dyn FnMut(&[u8], u32) -> io::Result<()> + 't;

/// The store at one moment.
pub struct Dump {
    transaction: View,
    shared: Arc<Shared>,
    about: About,
}

impl fmt::Debug for Dump {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Dump").field("about", &self.about).finish_non_exhaustive()
    }
}

impl Store {
    /// Begins a dump of the store as it is now.
    ///
    /// # Errors
    /// As any read.
    pub fn dump(&self) -> Result<Dump, ReadError> {
        let transaction = self.shared.begin_read()?;
        let about = about(&transaction, self.shared.site.now()).map_err(|trouble| self.shared.failed(trouble))?;
        Ok(Dump { transaction, shared: self.shared.clone(), about })
    }
}

fn about(transaction: &ReadTransaction, at: Timestamp) -> Result<About, Trouble> {
    let mut id = [0; 6];
    SystemRandom::new().fill(&mut id).map_err(|_| Trouble::damaged("the system's randomness"))?;
    let progress: Progress = load(&transaction.open_table(STATE)?, PROGRESS)?.unwrap_or_default();
    // A body that is being staged is not complete yet, so the next dump takes it from its beginning.
    let sweep = transaction.open_table(SWEEP)?;
    let staged = sweep.range((SWEEP_STAGED, 0)..=(SWEEP_STAGED, u64::MAX))?.next().transpose()?;
    let watermark = staged.map_or(progress.blob, |(key, _)| progress.blob.min(key.value().1));
    let tables = NAMES.iter().map(|name| (*name).to_owned()).collect();
    Ok(About { id, at, schema: SCHEMA, tables, watermark })
}

impl Dump {
    /// What it is of.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// About how many bytes the bodies from number `from` on take; for a progress bar.
    ///
    /// # Errors
    /// As any read.
    pub fn bytes(&self, from: u64) -> Result<u64, ReadError> {
        let add = || {
            let mut bytes = 0_u64;
            for row in self.transaction.open_table(BLOB)?.range(from..)? {
                let (key, value) = row?;
                // A damaged record is the run's business.
                let stored = BlobRecord::decode(key.value(), value.value()).map_or(0, |record| record.stored);
                bytes = bytes.saturating_add(stored);
            }
            Ok(bytes)
        };
        add().map_err(|trouble| self.shared.failed(trouble))
    }

    /// Hands all rows over, pieces and structures of bodies below number `from` left out. Gives how
    /// many bodies are damaged or incomplete; they are handed over as they are.
    ///
    /// # Errors
    /// The store's or the taker's; nothing more is handed over then.
    pub fn run(&self, from: u64, take: &mut TakeRows<'_>) -> Result<u64, DumpError> {
        let mut batch = Batch { rows: Vec::with_capacity(BATCH_BYTES), count: 0, take, broken: None };
        let done = self.each_row(from, &mut batch);
        let flushed = done.and_then(|damaged| batch.flush().map(|()| damaged));
        match (batch.broken, flushed) {
            (Some(error), _) => Err(DumpError::Taker(error)),
            (None, flushed) => flushed.map_err(|trouble| DumpError::Read(self.shared.failed(trouble))),
        }
    }

    fn each_row(&self, from: u64, batch: &mut Batch<'_, '_>) -> Result<u64, Trouble> {
        for (number, name) in (0..).zip(NAMES).filter(|(_, name)| !OF_BODIES.contains(name) && !DERIVED.contains(name))
        {
            visit(name, &mut Rows { transaction: &self.transaction, batch, number })?;
        }
        let bodies = Bodies::open(&self.transaction)?;
        let mut damaged = 0;
        for row in self.transaction.open_table(BLOB)?.iter()? {
            let (key, value) = row?;
            let id = key.value();
            batch.push(number_of("blob"), &id.to_le_bytes(), value.value())?;
            if id >= from && !bodies.body(id, value.value(), batch)? {
                damaged += 1;
            }
        }
        Ok(damaged)
    }
}

/// Where a table of ours stands in the list.
fn number_of(name: &str) -> u8 {
    NAMES.iter().position(|known| *known == name).and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}

/// Rows on their way.
struct Batch<'b, 't> {
    rows: Vec<u8>,
    count: u32,
    take: &'b mut TakeRows<'t>,
    /// Why nobody takes them any more.
    broken: Option<io::Error>,
}

impl Batch<'_, '_> {
    fn push(&mut self, table: u8, key: &[u8], value: &[u8]) -> Result<(), Trouble> {
        if self.rows.len() + ROW_HEAD + key.len() + value.len() > BATCH_BYTES {
            self.flush()?;
        }
        let (key_len, value_len) = u16::try_from(key.len())
            .ok()
            .zip(u32::try_from(value.len()).ok())
            .ok_or_else(|| Trouble::damaged("a row is too long for a backup"))?;
        self.rows.push(table);
        self.rows.extend_from_slice(&key_len.to_le_bytes());
        self.rows.extend_from_slice(&value_len.to_le_bytes());
        self.rows.extend_from_slice(key);
        self.rows.extend_from_slice(value);
        self.count += 1;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Trouble> {
        if self.count > 0
            && let Err(error) = (self.take)(&self.rows, self.count)
        {
            self.broken = Some(error);
            return Err(Trouble::damaged("nobody takes the rows"));
        }
        self.rows.clear();
        // A row that was larger than a batch must not keep its memory.
        self.rows.shrink_to(BATCH_BYTES);
        self.count = 0;
        Ok(())
    }
}

/// Hands over all rows of a table.
struct Rows<'r, 'b, 't> {
    transaction: &'r ReadTransaction,
    batch: &'r mut Batch<'b, 't>,
    number: u8,
}

impl Visitor for Rows<'_, '_, '_> {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), Trouble> {
        let table = match self.transaction.open_table(table) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for row in table.iter()? {
            let (key, value) = row?;
            let (key, value) = (key.value(), value.value());
            self.batch.push(self.number, K::as_bytes(&key).as_ref(), V::as_bytes(&value).as_ref())?;
        }
        Ok(())
    }
}

/// The tables of bodies.
struct Bodies {
    structure: ReadOnlyTable<u64, &'static [u8]>,
    piece: ReadOnlyTable<(u64, u32), &'static [u8]>,
    tail: ReadOnlyTable<u64, &'static [u8]>,
}

impl Bodies {
    fn open(transaction: &ReadTransaction) -> Result<Self, Trouble> {
        Ok(Self {
            structure: transaction.open_table(STRUCTURE)?,
            piece: transaction.open_table(PIECE)?,
            tail: transaction.open_table(TAIL)?,
        })
    }

    /// Hands over what belongs to a body; tells whether it is whole.
    fn body(&self, id: u64, record: &[u8], batch: &mut Batch<'_, '_>) -> Result<bool, Trouble> {
        let record = BlobRecord::decode(id, record).ok();
        // What nobody refers to is about to be swept, and part of it may be gone.
        if record.as_ref().is_some_and(|record| record.refs == 0) {
            return Ok(true);
        }
        let mut whole = record.is_some();
        match self.structure.get(id)? {
            Some(value) => batch.push(number_of("structure"), &id.to_le_bytes(), value.value())?,
            None => whole = false,
        }
        let mut next = 0;
        for row in self.piece.range((id, 0)..=(id, u32::MAX))? {
            let (key, value) = row?;
            let (_, index) = key.value();
            whole &= index == next && piece_payload(BlobId(id), index, value.value()).is_ok();
            next = index.saturating_add(1);
            let key = <(u64, u32)>::as_bytes(&key.value());
            batch.push(number_of("piece"), &key, value.value())?;
        }
        if let Some(value) = self.tail.get(id)? {
            whole &= piece_payload(BlobId(id), next, value.value()).is_ok();
            next = next.saturating_add(1);
            batch.push(number_of("tail"), &id.to_le_bytes(), value.value())?;
        }
        Ok(whole && record.is_some_and(|record| piece_count(record.stored) == next))
    }
}

/// A row of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'r> {
    /// The place of its table in the list.
    pub table: u8,
    /// The key as the index spells it: integers little-endian, one after the other, text last.
    pub key: &'r [u8],
    /// The value; an integer as in keys.
    pub value: &'r [u8],
}

/// The rows of a batch; `None` stands for bytes that are no row, and is the last.
pub fn rows(batch: &[u8]) -> impl Iterator<Item = Option<Row<'_>>> {
    let mut rest = Some(batch);
    std::iter::from_fn(move || {
        let bytes = rest.take().filter(|bytes| !bytes.is_empty())?;
        let row = split_row(bytes);
        rest = row.map(|(_, rest)| rest);
        Some(row.map(|(row, _)| row))
    })
}

fn split_row(bytes: &[u8]) -> Option<(Row<'_>, &[u8])> {
    let (&[table], bytes) = bytes.split_first_chunk()?;
    let (key, bytes) = bytes.split_first_chunk()?;
    let (value, bytes) = bytes.split_first_chunk()?;
    let (key, bytes) = bytes.split_at_checked(u16::from_le_bytes(*key).into())?;
    let (value, bytes) = bytes.split_at_checked(usize::try_from(u32::from_le_bytes(*value)).ok()?)?;
    Some((Row { table, key, value }, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(rows: &[(u8, &[u8], &[u8])]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let mut take = |rows: &[u8], _: u32| {
            out.push(rows.to_vec());
            Ok(())
        };
        let mut batch = Batch { rows: Vec::new(), count: 0, take: &mut take, broken: None };
        for (table, key, value) in rows {
            batch.push(*table, key, value).unwrap();
        }
        batch.flush().unwrap();
        out
    }

    #[test]
    fn rows_come_back_from_batches_of_bounded_size() {
        let long = vec![7; BATCH_BYTES];
        let given: Vec<(u8, &[u8], &[u8])> =
            vec![(0, b"schema", b"\x02"), (3, b"", b""), (9, b"k", &long), (9, b"l", b"v"), (9, b"m", &long[..60_000])];
        let batches = batch(&given);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [14 + 7, BATCH_BYTES + 8, 9 + 60_008]);
        let found: Vec<Row<'_>> = batches.iter().flat_map(|batch| rows(batch)).map(Option::unwrap).collect();
        let given: Vec<Row<'_>> = given.into_iter().map(|(table, key, value)| Row { table, key, value }).collect();
        assert_eq!(found, given);
    }

    #[test]
    fn bytes_that_are_no_rows_are_told_and_end_the_batch() {
        let whole = batch(&[(1, b"key", b"value"), (2, b"k", b"v")]).remove(0);
        for cut in 1..whole.len() {
            let found: Vec<_> = rows(&whole[..cut]).collect();
            let broken = cut != 15;
            assert_eq!(found.last().unwrap().is_none(), broken, "{cut}");
        }
    }
}
