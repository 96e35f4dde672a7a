//! SQLite in WAL mode with synchronous=FULL, one transaction for each delivery, one connection that
//! the senders take in turn (SQLite has one writer in any case). Its other settings are the defaults.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, params};

use super::{MailStore, ROW, structure};
use crate::letter::{Letter, Source};

/// Letters of a transaction while the store is filled.
const FILL_AT_ONCE: u64 = 500;

pub struct Sqlite(Mutex<Connection>);

impl Sqlite {
    pub fn open(folder: &Path) -> Self {
        let connection = Connection::open(folder.join("mail.sqlite")).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                 CREATE TABLE IF NOT EXISTS mailbox (id INTEGER PRIMARY KEY, uid_next INTEGER, facts BLOB);
                 CREATE TABLE IF NOT EXISTS message (mailbox INTEGER, uid INTEGER, row BLOB, body INTEGER,
                     PRIMARY KEY (mailbox, uid)) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS body (id INTEGER PRIMARY KEY, structure BLOB, data BLOB);
                 INSERT OR IGNORE INTO mailbox VALUES (1, 1, NULL);",
            )
            .unwrap();
        let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
        let synchronous: u8 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
        assert_eq!((mode.as_str(), synchronous), ("wal", 2));
        Self(Mutex::new(connection))
    }
}

fn put(connection: &Connection, body: &[u8]) {
    let structure = structure(body);
    let statement = |text| connection.prepare_cached(text).unwrap();
    let uid: u32 = statement("UPDATE mailbox SET uid_next = uid_next + 1, facts = ?1 WHERE id = 1 RETURNING uid_next - 1")
        .query_row([[1_u8; 2 * ROW]], |row| row.get(0))
        .unwrap();
    statement("INSERT INTO body VALUES (?1, ?2, ?3)").execute(params![uid, structure, body]).unwrap();
    statement("INSERT INTO message VALUES (1, ?1, ?2, ?1)").execute(params![uid, [0_u8; ROW]]).unwrap();
}

impl MailStore for Sqlite {
    fn deliver(&self, letter: &Letter) -> u64 {
        let body = letter.whole();
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction().unwrap();
        put(&transaction, &body);
        transaction.commit().unwrap();
        body.len() as u64
    }

    fn fill(&self, source: &Source, count: u64) {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for first in (0..count).step_by(usize::try_from(FILL_AT_ONCE).unwrap()) {
            let transaction = connection.transaction().unwrap();
            for number in first..(first + FILL_AT_ONCE).min(count) {
                put(&transaction, &source.letter(number).whole());
            }
            transaction.commit().unwrap();
        }
    }

    fn flag(&self, number: u64) {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction().unwrap();
        let facts = params![[2_u8; ROW], number + 1];
        transaction.prepare_cached("UPDATE message SET row = ?1 WHERE mailbox = 1 AND uid = ?2").unwrap().execute(facts).unwrap();
        transaction.prepare_cached("UPDATE mailbox SET facts = ?1").unwrap().execute([[3_u8; 2 * ROW]]).unwrap();
        transaction.commit().unwrap();
    }

    fn close(self: Box<Self>) {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).close().unwrap();
    }
}
