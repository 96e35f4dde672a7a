//! The schema's number, and what turns an older store into one of today.
//!
//! A store is born with a random identity, which its journal names too. A store with a higher
//! number than ours is left alone: an older program would not keep what the newer one promised.

use redb::{Database, Durability, ReadableDatabase, TableError};
use ring::rand::{SecureRandom, SystemRandom};

use super::error::{OpenError, Trouble};
use super::table::{STATE, Tables};

/// The schema this program writes. Raise it with any change that an older program would misread,
/// and add the step to [`prepare`].
pub const SCHEMA: u32 = 1;

const SCHEMA_ROW: &str = "schema";
const IDENTITY_ROW: &str = "identity";

/// Makes the tables of a new store, or checks the schema of an old one. Gives its identity.
pub(super) fn prepare(index: &Database) -> Result<[u8; 16], OpenError> {
    let facts = read(index)?;
    let Some((schema, identity)) = facts else { return Ok(create(index)?) };
    if schema > SCHEMA {
        return Err(OpenError::NewerSchema { found: schema, known: SCHEMA });
    }
    // Steps from older schemas go here, each in a transaction of its own. There is no older one yet.
    if schema < SCHEMA {
        return Err(Trouble::damaged("schema number").into());
    }
    Ok(identity)
}

fn read(index: &Database) -> Result<Option<(u32, [u8; 16])>, Trouble> {
    let state = match index.begin_read()?.open_table(STATE) {
        Ok(state) => state,
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(schema) = state.get(SCHEMA_ROW)? else { return Ok(None) };
    let identity = state.get(IDENTITY_ROW)?;
    let schema = schema.value().try_into().map(u32::from_le_bytes).ok();
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

fn write(transaction: &redb::WriteTransaction, schema: u32, identity: &[u8; 16]) -> Result<(), Trouble> {
    let mut state = transaction.open_table(STATE)?;
    state.insert(SCHEMA_ROW, schema.to_le_bytes().as_slice())?;
    state.insert(IDENTITY_ROW, identity.as_slice())?;
    Ok(())
}

#[cfg(test)]
mod tests {
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
}
