//! The schema's number, and what turns an older store into one of today.
//!
//! A store is born with a random identity, which its journal names too. A store with a higher
//! number than ours is left alone: an older program would not keep what the newer one promised.

use std::ops::Bound;

use redb::{
    Database, Durability, Key, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, TableHandle, Value,
    WriteTransaction,
};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::blob::BlobRecord;
use super::error::{OpenError, Trouble};
use super::record::{Bytes, Record, StructureRecord};
use super::seal::{self, RowKey};
use super::table::{ACCOUNT, ADDRESS, BLOB, MBOX, MSG, NAMES, PROGRESS, STATE, STRUCTURE, Tables, VANISH};

/// The schema this program writes. Raise it with any change that an older program would misread,
/// and add the step to [`prepare`].
pub const SCHEMA: u32 = 6;

const SCHEMA_ROW: &str = "schema";
const IDENTITY_ROW: &str = "identity";

/// Makes the tables of a new store, or checks the schema of an old one. Gives its identity.
pub(super) fn prepare(index: &Database) -> Result<[u8; 16], OpenError> {
    let facts = read(index)?;
    let Some((schema, identity)) = facts else { return Ok(create(index)?) };
    if schema > SCHEMA {
        return Err(OpenError::NewerSchema { found: schema, known: SCHEMA });
    }
    // Each step is one transaction, so a power cut finds the store before it or after it.
    match schema {
        SCHEMA => {}
        1 => {
            tracing::info!("the store is upgraded from schema 1; this happens once and takes a while");
            seal_rows(index, &identity)?;
        }
        // From 2 to 3 an address may also be a list's or lead elsewhere, from 3 to 4 there are
        // annotations, from 4 to 5 a gram index, from 5 to 6 certificates and rights of others: old rows are
        // as they were.
        2..=5 => {
            let mut transaction = index.begin_write().map_err(Trouble::from)?;
            Tables::create(&transaction)?;
            write(&transaction, SCHEMA, &identity)?;
            transaction.set_durability(Durability::Immediate).map_err(Trouble::from)?;
            transaction.set_quick_repair(true);
            transaction.commit().map_err(Trouble::from)?;
        }
        _ => return Err(Trouble::damaged("schema number").into()),
    }
    Ok(identity)
}

/// From schema 1 to 2: rows had a leading 1 and no checksum, and the structures stood bare in a
/// table of another name.
fn seal_rows(index: &Database, identity: &[u8; 16]) -> Result<(), Trouble> {
    const ENV: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("env");

    let mut transaction = index.begin_write()?;
    Tables::create(&transaction)?;
    reseal(&mut transaction.open_table(ACCOUNT)?, "account")?;
    reseal(&mut transaction.open_table(MBOX)?, "mbox")?;
    reseal(&mut transaction.open_table(MSG)?, "msg")?;
    reseal(&mut transaction.open_table(VANISH)?, "vanish")?;
    reseal_text(&mut transaction.open_table(ADDRESS)?, "address", None)?;
    reseal_text(&mut transaction.open_table(STATE)?, "state", Some(PROGRESS))?;
    each(&mut transaction.open_table(BLOB)?, &mut |table, id, value| {
        let record = fields(value)?;
        let record: UnhashedBlobRecord = postcard::from_bytes(record).map_err(|_| Trouble::damaged("blob"))?;
        table.insert(id, BlobRecord::from(record).encode(id)?.as_slice())?;
        Ok(())
    })?;
    {
        let mut structures = transaction.open_table(STRUCTURE)?;
        each(&mut transaction.open_table(ENV)?, &mut |_, id, value| {
            let record = StructureRecord(Bytes(value.to_vec()));
            structures.insert(id, record.encode(id)?.as_slice())?;
            Ok(())
        })?;
    }
    transaction.delete_table(ENV)?;
    write(&transaction, SCHEMA, identity)?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    transaction.commit()?;
    Ok(())
}

/// A body's record in schema 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UnhashedBlobRecord {
    refs: u32,
    size: u64,
    stored: u64,
    blocks: Vec<u32>,
}

impl From<UnhashedBlobRecord> for BlobRecord {
    fn from(old: UnhashedBlobRecord) -> Self {
        Self { refs: old.refs, size: old.size, stored: old.stored, blocks: old.blocks, hash: None }
    }
}

/// Rows read at a time, because a table is not read and written at once.
const PORTION: usize = 512;

type Bare<'t, K> = Table<'t, K, &'static [u8]>;

/// Changes a row of a table that is being gone through.
type ChangeRow<'c, K> = dyn FnMut(&mut Bare<'_, K>, K, &[u8]) -> Result<(), Trouble> + 'c;

/// Calls `change` for every row.
fn each<K>(table: &mut Bare<'_, K>, change: &mut ChangeRow<'_, K>) -> Result<(), Trouble>
where
    K: Key + RowKey + for<'k> Value<SelfType<'k> = K>,
{
    let mut from = Bound::Unbounded;
    loop {
        let rows = table.range::<K>((from, Bound::Unbounded))?.take(PORTION).map(|row| {
            let (key, value) = row?;
            Ok((key.value(), value.value().to_vec()))
        });
        let rows = rows.collect::<Result<Vec<_>, Trouble>>()?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        from = Bound::Excluded(*last);
        for (key, value) in rows {
            change(table, key, &value)?;
        }
    }
}

fn reseal<K>(table: &mut Bare<'_, K>, name: &str) -> Result<(), Trouble>
where
    K: Key + RowKey + for<'k> Value<SelfType<'k> = K>,
{
    each(table, &mut |table, key, value| {
        table.insert(key, sealed(name, key, value)?.as_slice())?;
        Ok(())
    })
}

/// Tables under text are small. Of `only`, if given, one row is a record.
fn reseal_text(table: &mut Bare<'_, &'static str>, name: &str, only: Option<&str>) -> Result<(), Trouble> {
    let rows = table.iter()?.map(|row| {
        let (key, value) = row?;
        Ok((key.value().to_owned(), value.value().to_vec()))
    });
    for (key, value) in rows.collect::<Result<Vec<_>, Trouble>>()? {
        if only.is_none_or(|only| only == key) {
            table.insert(key.as_str(), sealed(name, key.as_str(), &value)?.as_slice())?;
        }
    }
    Ok(())
}

fn sealed(table: &str, key: impl RowKey, value: &[u8]) -> Result<Vec<u8>, Trouble> {
    let mut sealed = seal::begin();
    sealed.extend_from_slice(fields(value)?);
    Ok(seal::seal(table, key, sealed))
}

/// The fields of a row of schema 1.
fn fields(value: &[u8]) -> Result<&[u8], Trouble> {
    value.strip_prefix(&[1]).ok_or_else(|| Trouble::damaged("row of schema 1"))
}

/// Looks whether every table of a store that was prepared is found: their names stand in a page whose
/// damage redb does not see, and where one is not found redb would make an empty one.
pub(super) fn has_all_tables(index: &Database) -> Result<(), Trouble> {
    let found: Vec<_> = index.begin_read()?.list_tables()?.collect();
    match NAMES.iter().find(|name| found.iter().all(|table| table.name() != **name)) {
        Some(name) => Err(Trouble::damaged(&format!("the table {name} is not to be found"))),
        None => Ok(()),
    }
}

/// The schema and the identity; none where there is no table yet, for all begin in one transaction.
fn read(index: &Database) -> Result<Option<(u32, [u8; 16])>, Trouble> {
    let transaction = index.begin_read()?;
    let state = match transaction.open_table(STATE) {
        Ok(state) => state,
        Err(TableError::TableDoesNotExist(_)) if transaction.list_tables()?.next().is_none() => return Ok(None),
        Err(TableError::TableDoesNotExist(_)) => {
            return Err(Trouble::damaged("the table state is not to be found"));
        }
        Err(error) => return Err(error.into()),
    };
    let schema = state.get(SCHEMA_ROW)?;
    let identity = state.get(IDENTITY_ROW)?;
    let schema = schema.and_then(|bytes| bytes.value().try_into().map(u32::from_le_bytes).ok());
    let identity = identity.and_then(|bytes| bytes.value().try_into().ok());
    schema.zip(identity).map(Some).ok_or_else(|| Trouble::damaged("schema or identity"))
}

fn create(index: &Database) -> Result<[u8; 16], Trouble> {
    let mut identity = [0; 16];
    SystemRandom::new().fill(&mut identity).map_err(|_| Trouble::damaged("the system's randomness"))?;
    let mut transaction = index.begin_write()?;
    Tables::create(&transaction)?;
    write(&transaction, SCHEMA, &identity)?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_quick_repair(true);
    transaction.commit()?;
    Ok(identity)
}

fn write(transaction: &WriteTransaction, schema: u32, identity: &[u8; 16]) -> Result<(), Trouble> {
    let mut state = transaction.open_table(STATE)?;
    state.insert(SCHEMA_ROW, schema.to_le_bytes().as_slice())?;
    state.insert(IDENTITY_ROW, identity.as_slice())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::record::AddressRecord;
    use super::super::table::load;
    use super::*;

    #[test]
    fn a_newer_schema_is_refused_and_ours_keeps_its_identity() {
        let index = Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap();
        let identity = prepare(&index).unwrap();
        assert_eq!(prepare(&index), Ok(identity));
        let transaction = index.begin_write().unwrap();
        write(&transaction, SCHEMA + 1, &identity).unwrap();
        transaction.commit().unwrap();
        assert_eq!(prepare(&index), Err(OpenError::NewerSchema { found: SCHEMA + 1, known: SCHEMA }));
        assert!(prepare(&index).unwrap_err().to_string().contains("newer"));
    }

    #[test]
    fn a_table_that_is_not_found_is_damage_and_never_made_anew() {
        for name in NAMES {
            let index = Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap();
            prepare(&index).unwrap();
            let mut transaction = index.begin_write().unwrap();
            let table = transaction.list_tables().unwrap().find(|table| table.name() == *name).unwrap();
            assert!(transaction.delete_table(table).unwrap());
            transaction.commit().unwrap();
            let refused = prepare(&index).map_err(|error| error.to_string());
            let refused =
                refused.and_then(|_| has_all_tables(&index).map_err(|error| format!("{error:?}"))).unwrap_err();
            assert!(refused.contains(name), "{name}: {refused}");
            transaction = index.begin_write().unwrap();
            assert_eq!(transaction.list_tables().unwrap().count(), NAMES.len() - 1, "{name} was made anew");
        }
    }

    #[test]
    fn a_store_of_schema_2_keeps_its_rows() {
        let index = Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap();
        let identity = prepare(&index).unwrap();
        let row = AddressRecord::Alias(crate::mail::address::Address::parse("all@x.test").unwrap(), vec![3, 4]);
        let transaction = index.begin_write().unwrap();
        write(&transaction, 2, &identity).unwrap();
        let bytes = row.encode("all@x.test").unwrap();
        transaction.open_table(ADDRESS).unwrap().insert("all@x.test", bytes.as_slice()).unwrap();
        transaction.commit().unwrap();
        assert_eq!(prepare(&index), Ok(identity));
        assert_eq!(read(&index).unwrap(), Some((SCHEMA, identity)));
        let found = load(&index.begin_read().unwrap().open_table(ADDRESS).unwrap(), "all@x.test").unwrap();
        assert_eq!(found, Some(row));
        // As schema 2 spelled it: the variant's number, the address, the accounts.
        assert_eq!(bytes.get(1..2), Some([1].as_slice()));
    }

    #[test]
    fn rows_of_schema_1_are_sealed_and_structures_change_their_table() {
        const ENV: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("env");
        let index = Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap();
        let identity = prepare(&index).unwrap();
        let row = |fields: &[u8]| [&[1], fields].concat();
        let transaction = index.begin_write().unwrap();
        write(&transaction, 1, &identity).unwrap();
        transaction.delete_table(STRUCTURE).unwrap();
        {
            let mut messages = transaction.open_table(MSG).unwrap();
            for uid in 0..2000 {
                messages.insert((3, uid), row(&uid.to_le_bytes()).as_slice()).unwrap();
            }
            let body = UnhashedBlobRecord { refs: 2, size: 9, stored: 7, blocks: vec![7] };
            let body = row(&postcard::to_allocvec(&body).unwrap());
            transaction.open_table(BLOB).unwrap().insert(5, body.as_slice()).unwrap();
            transaction.open_table(ENV).unwrap().insert(5, b"bare".as_slice()).unwrap();
            transaction.open_table(STATE).unwrap().insert(PROGRESS, row(b"far").as_slice()).unwrap();
            transaction.open_table(ADDRESS).unwrap().insert("a@b", row(b"ann").as_slice()).unwrap();
        }
        transaction.commit().unwrap();

        for _ in 0..2 {
            assert_eq!(prepare(&index), Ok(identity));
            let reader = index.begin_read().unwrap();
            let messages = reader.open_table(MSG).unwrap();
            for uid in 0..2000 {
                let value = messages.get((3, uid)).unwrap().unwrap();
                assert_eq!(seal::open("msg", (3_u32, uid), value.value()).unwrap(), uid.to_le_bytes());
            }
            let body: BlobRecord = load(&reader.open_table(BLOB).unwrap(), 5).unwrap().unwrap();
            assert_eq!((body.refs, body.size, body.hash), (2, 9, None));
            let found: StructureRecord = load(&reader.open_table(STRUCTURE).unwrap(), 5).unwrap().unwrap();
            assert_eq!(found, StructureRecord(Bytes(b"bare".to_vec())));
            assert!(matches!(reader.open_table(ENV), Err(TableError::TableDoesNotExist(_))));
            for (table, name, key, fields) in [(STATE, "state", PROGRESS, b"far"), (ADDRESS, "address", "a@b", b"ann")]
            {
                let value = reader.open_table(table).unwrap().get(key).unwrap().unwrap();
                assert_eq!(seal::open(name, key, value.value()).unwrap(), fields);
            }
        }
    }
}
