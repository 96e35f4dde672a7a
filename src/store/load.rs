//! A store made of a dump's rows, on a blank site.
//!
//! Rows are written as they come, in transactions of bounded size; until [`Load::finish`] returns the
//! site must not be taken for a store's. The new store keeps the identity of the old one and gets a
//! new journal when it is opened.
//!
//! What the old store did after the dump is lost, but clients may remember it. So that no number
//! ever means two things to them, [`Load::finish`] leaves a gap: uids and UIDVALIDITY go on
//! [`UID_GAP`] above, and the modification sequence [`MODSEQ_GAP`] above. The gap is kept as a
//! [`Leap`]: a client that names a sequence out of it is told everything and not only what changed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, Durability, Key, ReadableTable, TableDefinition, TypeName, Value, WriteTransaction};

use crate::mail::date::Timestamp;
use crate::mail::mailbox::ModSeq;

use super::backend::{Guard, IndexBackend};
use super::dump::Row;
use super::error::{OpenError, ReadError, Trouble};
use super::reader::Reader;
use super::record::{MailboxRecord, Record};
use super::site::Site;
use super::table::{NAMES, STATE, Tables, Visitor, load, visit};
use super::{INDEX_FILE, SCHEMA, upgrade};

/// The folder, in the data folder, of a store that is being restored.
pub const RESTORING: &str = ".restoring";

/// Uids of a mailbox, and UIDVALIDITYs, that are left out.
pub const UID_GAP: u32 = 1 << 16;

/// Modification sequences that are left out.
pub const MODSEQ_GAP: u64 = 1 << 32;

/// redb's cache while a store is filled, in bytes.
const CACHE_BYTES: usize = 4 << 20;

/// Bytes of rows in one transaction, and bytes after which the disk must have them: what a device
/// takes in a moment, so that the end is not one long wait.
const COMMIT_BYTES: usize = 1 << 20;
const SYNC_BYTES: usize = 64 << 20;

/// Leaps that are remembered; older ones go, as no client is away for so many restores.
const LEAPS_MAX: usize = 16;

/// The row of STATE that holds the [`Leaps`].
const LEAPS: &str = "leaps";

/// Modification sequences that were given out, if at all, by a store that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Leap {
    /// The last one from before.
    from: u64,
    /// The last one left out.
    to: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Leaps(Vec<Leap>);

impl Record for Leaps {
    const TABLE: &'static str = "state";
}

impl Reader {
    /// What a client knows that names `since`: zero when the store that gave it that number is lost,
    /// for then nobody knows what changed.
    ///
    /// # Errors
    /// As any read.
    pub fn known_since(&self, since: ModSeq) -> Result<ModSeq, ReadError> {
        if since == ModSeq::default() {
            return Ok(since);
        }
        let leaps: Option<Leaps> = self.told(self.table(STATE).and_then(|table| load(&table, LEAPS)))?;
        let lost = leaps.is_some_and(|leaps| leaps.0.iter().any(|leap| leap.from < since.0 && since.0 <= leap.to));
        Ok(if lost { ModSeq::default() } else { since })
    }
}

/// A store that is being filled.
pub struct Load {
    index: Database,
    site: Arc<dyn Site>,
    guard: Arc<Guard>,
    /// `None` between two transactions.
    transaction: Option<WriteTransaction>,
    unsettled: usize,
    unsynced: usize,
}

impl fmt::Debug for Load {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Load").field("site", &self.site).finish_non_exhaustive()
    }
}

impl Load {
    /// Begins a store at a site that has none.
    ///
    /// # Errors
    /// There is one, or the disk fails.
    pub fn begin(site: Arc<dyn Site>) -> Result<Self, OpenError> {
        let disk = site.create(INDEX_FILE).map_err(Trouble::from)?;
        let guard = Arc::new(Guard::open(disk).map_err(Trouble::from)?);
        let backend = IndexBackend(guard.clone());
        let index = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(backend);
        let index = index.map_err(Trouble::from)?;
        Ok(Self { index, site, guard, transaction: None, unsettled: 0, unsynced: 0 })
    }

    /// Puts those of `rows` in that are of the table `name`, which has the place `number`.
    ///
    /// # Errors
    /// The disk's; or there is no such table, or a row is none of it.
    pub fn put(&mut self, name: &str, number: u8, rows: &[Row<'_>]) -> Result<(), OpenError> {
        let transaction = match self.transaction.take() {
            Some(transaction) => transaction,
            None => self.begin_write()?,
        };
        let known = visit(name, &mut Insert { transaction: &transaction, number, rows })?;
        if !known {
            return Err(Trouble::damaged(&format!("this program knows no table {name}")).into());
        }
        self.transaction = Some(transaction);
        let of_table = rows.iter().filter(|row| row.table == number);
        self.unsettled += of_table.map(|row| row.key.len() + row.value.len()).sum::<usize>();
        if self.unsettled >= COMMIT_BYTES {
            self.settle()?;
        }
        Ok(())
    }

    fn begin_write(&self) -> Result<WriteTransaction, Trouble> {
        let mut transaction = self.index.begin_write()?;
        transaction.set_durability(Durability::None)?;
        Ok(transaction)
    }

    fn settle(&mut self) -> Result<(), Trouble> {
        let Some(mut transaction) = self.transaction.take() else { return Ok(()) };
        self.unsynced += std::mem::take(&mut self.unsettled);
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            transaction.set_durability(Durability::Immediate)?;
        }
        Ok(transaction.commit()?)
    }

    /// Makes a store of the rows that came: upgrades an older schema, leaves the gap, and makes it all
    /// durable. It is as a store that was closed: the next opening makes its journal.
    ///
    /// # Errors
    /// The disk's; or the rows are no store.
    pub fn finish(mut self) -> Result<(), OpenError> {
        self.settle()?;
        if !self.has_schema()? {
            return Err(Trouble::damaged("the backup holds no store").into());
        }
        upgrade::prepare(&self.index)?;
        let mut transaction = self.index.begin_write().map_err(Trouble::from)?;
        leap(&transaction, self.site.now())?;
        transaction.set_durability(Durability::Immediate).map_err(Trouble::from)?;
        transaction.set_quick_repair(true);
        transaction.commit().map_err(Trouble::from)?;
        self.guard.set_complete(true);
        Ok(self.index.close().map_err(Trouble::from)?)
    }

    /// Tells whether the row of the schema came; without it the rows would look like a new store.
    fn has_schema(&self) -> Result<bool, Trouble> {
        let transaction = self.index.begin_write()?;
        let found = transaction.open_table(STATE)?.get("schema")?.is_some();
        transaction.abort()?;
        Ok(found)
    }
}

/// Tells whether a dump of `schema` can be loaded.
pub fn knows_schema(schema: u32) -> bool {
    schema <= SCHEMA
}

/// Tells whether rows of this table can be loaded. One that a later schema drops stays known here, so
/// that older dumps can still be loaded and upgraded.
pub fn knows_table(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Tells whether a restore into this data folder was cut off before there was a store.
pub(super) fn is_half_restored(folder: &Path) -> bool {
    folder.join(RESTORING).exists() && !folder.join(INDEX_FILE).exists()
}

/// Puts rows into a table.
struct Insert<'i> {
    transaction: &'i WriteTransaction,
    number: u8,
    rows: &'i [Row<'i>],
}

impl Visitor for Insert<'_> {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), Trouble> {
        let mut table = self.transaction.open_table(table)?;
        for row in self.rows.iter().filter(|row| row.table == self.number) {
            if !(is_one::<K>(row.key) && is_one::<V>(row.value)) {
                return Err(Trouble::damaged("a row of the backup does not fit its table"));
            }
            table.insert(K::from_bytes(row.key), V::from_bytes(row.value))?;
        }
        Ok(())
    }
}

/// Tells whether `bytes` spell a value of this type: redb itself panics where they do not.
fn is_one<T: Value>(bytes: &[u8]) -> bool {
    match T::fixed_width() {
        Some(width) => bytes.len() == width,
        None => VARYING.iter().any(|(name, fits)| name() == T::type_name() && fits(bytes)),
    }
}

/// The types whose values have no one length, and whether bytes are one.
type Varying = (fn() -> TypeName, fn(&[u8]) -> bool);
const VARYING: [Varying; 5] = [
    (<&[u8]>::type_name, |_| true),
    (<&str>::type_name, is_text),
    (<(u32, &str)>::type_name, |bytes| bytes.get(size_of::<u32>()..).is_some_and(is_text)),
    (<(u32, u32, &str)>::type_name, |bytes| bytes.get(2 * size_of::<u32>()..).is_some_and(is_text)),
    (<(&str, u64, u64, u32)>::type_name, |bytes| {
        // The text's length stands first; a name of a domain has fewer than 254 bytes, so it is one byte.
        let (length, rest) = bytes.split_first().map_or((u8::MAX, bytes), |(length, rest)| (*length, rest));
        let text = rest.split_at_checked(length.into()).filter(|(_, rest)| rest.len() == 8 + 8 + 4);
        length < 254 && text.is_some_and(|(text, _)| is_text(text))
    }),
];

fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

/// Leaves the gap.
fn leap(transaction: &WriteTransaction, now: Timestamp) -> Result<(), Trouble> {
    Tables::create(transaction)?;
    let mut tables = Tables::open(transaction, now)?;
    let from = tables.progress.applied;
    let to = from.saturating_add(MODSEQ_GAP);
    tables.progress.applied = to;
    tables.progress.uid_validity = tables.progress.uid_validity.saturating_add(UID_GAP);
    let mut leaps: Leaps = load(tables.state()?, LEAPS)?.unwrap_or_default();
    leaps.0.push(Leap { from, to });
    let surplus = leaps.0.len().saturating_sub(LEAPS_MAX);
    leaps.0.drain(..surplus);
    let leaps = leaps.encode(LEAPS)?;
    tables.state()?.insert(LEAPS, leaps.as_slice())?;

    let mut next = Some(0);
    while let Some(from) = next {
        let row = tables.mbox()?.range(from..)?.next().transpose()?;
        let row = row.map(|(key, value)| (key.value(), value.value().to_vec()));
        let Some((id, value)) = row else { break };
        // A mailbox whose row is damaged stays as it is: check-store finds it.
        if let Ok(mut record) = MailboxRecord::decode(id, &value) {
            // Where uids run out, those that are left matter more.
            record.uid_next = record.uid_next.checked_add(UID_GAP).unwrap_or(record.uid_next);
            tables.save_mailbox(id, &record)?;
        }
        next = id.checked_add(1);
    }
    tables.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spelling_of_every_table_is_known() {
        struct Known(bool);

        impl Visitor for Known {
            fn visit<K: Key + 'static, V: Value + 'static>(
                &mut self,
                _: TableDefinition<'static, K, V>,
            ) -> Result<(), Trouble> {
                let known = |width: Option<usize>, name: TypeName| {
                    width.is_some() || VARYING.iter().any(|(varying, _)| varying() == name)
                };
                self.0 = known(K::fixed_width(), K::type_name()) && known(V::fixed_width(), V::type_name());
                Ok(())
            }
        }

        for name in NAMES {
            let mut known = Known(false);
            assert!(visit(name, &mut known).unwrap());
            assert!(known.0, "a backup of table {name} could not be restored: teach VARYING its type");
        }
        assert!(!visit("nothing", &mut Known(false)).unwrap());
    }

    #[test]
    fn bytes_that_spell_no_key_are_found_before_redb_sees_them() {
        let key = |text: &str| <(&str, u64, u64, u32)>::as_bytes(&(text, 1, 2, 3)).clone();
        for text in ["", "x.test", &"x".repeat(253)] {
            let bytes = key(text);
            assert!(is_one::<(&str, u64, u64, u32)>(&bytes));
            assert!(!is_one::<(&str, u64, u64, u32)>(&bytes[1..]), "{text}");
            assert!(!is_one::<(&str, u64, u64, u32)>(&[&bytes[..], b"x"].concat()));
        }
        assert!(is_one::<(u32, &str)>(b"\x01\0\0\0INBOX") && !is_one::<(u32, &str)>(b"\x01\0\0"));
        assert!(!is_one::<(u32, &str)>(b"\x01\0\0\0\xff") && !is_one::<&str>(b"\xff"));
        assert!(is_one::<(u8, u64)>(&[0; 9]) && !is_one::<(u8, u64)>(&[0; 10]) && !is_one::<()>(b"x"));
    }
}
