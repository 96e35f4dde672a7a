//! Plain redb: the same tables as this store's, bodies as they are in pieces that fit its pages,
//! one durable commit for each delivery.

use std::path::Path;

use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};

use super::{MailStore, ROW, structure};
use crate::letter::{Letter, Source};

const STATE: TableDefinition<'_, &str, u64> = TableDefinition::new("state");
const MAILBOX: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("mailbox");
const MESSAGE: TableDefinition<'_, (u32, u32), &[u8]> = TableDefinition::new("message");
const STRUCTURE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("structure");
const PIECE: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("piece");

/// As this store's: a value of a whole power of two would take twice the page.
const PIECE_SIZE: usize = 16_320;
/// As this store's default.
const CACHE: usize = 2 << 20;
/// Letters of a transaction while the store is filled.
const FILL_AT_ONCE: u64 = 500;

pub struct Plain(Database);

impl Plain {
    pub fn open(folder: &Path) -> Self {
        Self(Database::builder().set_cache_size(CACHE).create(folder.join("plain.redb")).unwrap())
    }
}

fn put(transaction: &WriteTransaction, body: &[u8]) {
    let number = {
        let mut state = transaction.open_table(STATE).unwrap();
        let number = state.get("next").unwrap().map_or(0, |value| value.value());
        state.insert("next", number + 1).unwrap();
        number
    };
    let mut row = [0; ROW];
    row[..8].copy_from_slice(&number.to_le_bytes());
    row[8..16].copy_from_slice(&(body.len() as u64).to_le_bytes());
    let uid = u32::try_from(number + 1).unwrap();
    transaction.open_table(MESSAGE).unwrap().insert((1, uid), row.as_slice()).unwrap();
    transaction.open_table(MAILBOX).unwrap().insert(1, [row, row].concat().as_slice()).unwrap();
    transaction.open_table(STRUCTURE).unwrap().insert(number, structure(body).as_slice()).unwrap();
    let mut pieces = transaction.open_table(PIECE).unwrap();
    for (index, piece) in body.chunks(PIECE_SIZE).enumerate() {
        pieces.insert((number, u32::try_from(index).unwrap()), piece).unwrap();
    }
}

impl MailStore for Plain {
    fn deliver(&self, letter: &Letter) -> u64 {
        let body = letter.whole();
        let transaction = self.0.begin_write().unwrap();
        put(&transaction, &body);
        transaction.commit().unwrap();
        body.len() as u64
    }

    fn fill(&self, source: &Source, count: u64) {
        for first in (0..count).step_by(usize::try_from(FILL_AT_ONCE).unwrap()) {
            let transaction = self.0.begin_write().unwrap();
            for number in first..(first + FILL_AT_ONCE).min(count) {
                put(&transaction, &source.letter(number).whole());
            }
            transaction.commit().unwrap();
        }
    }

    fn flag(&self, number: u64) {
        let transaction = self.0.begin_write().unwrap();
        {
            let key = (1, u32::try_from(number + 1).unwrap());
            let mut messages = transaction.open_table(MESSAGE).unwrap();
            let mut row = messages.get(key).unwrap().unwrap().value().to_vec();
            row[ROW - 1] |= 1;
            messages.insert(key, row.as_slice()).unwrap();
            let mut mailboxes = transaction.open_table(MAILBOX).unwrap();
            mailboxes.insert(1, [row.as_slice(), &row].concat().as_slice()).unwrap();
            let mut state = transaction.open_table(STATE).unwrap();
            state.insert("change", number).unwrap();
        }
        transaction.commit().unwrap();
    }

    fn close(self: Box<Self>) {
        self.0.close().unwrap();
    }
}
