//! A store of schema 1, as the first Pillarbox wrote it, so that cuts can fall into its upgrade.
//!
//! `schema1.zst` holds the two files of a store that was killed with groups in its journal, and
//! `schema1.json` what is in it. Nothing makes them anew: the program that could is gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::driver::Promise;
use super::image::Image;
use super::letter::{Marks, Print};
use super::medium::Files;
use super::model::{Facts, Folder, Person, Row, STANDARD, State};

const FILES: &[u8] = include_bytes!("schema1.zst");
const CONTENTS: &str = include_str!("schema1.json");

/// What is in the store.
#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    /// Length of mail.redb; the journal follows it.
    index_bytes: usize,
    /// The highest modification sequence that was shown.
    ceiling: u64,
    /// Mailboxes ever made.
    births: u32,
    people: Vec<OldPerson>,
    folders: Vec<OldFolder>,
    subscribed: Vec<(u32, String)>,
    domains: Vec<String>,
    aliases: Vec<(String, Vec<u32>)>,
    notes: Vec<(String, Vec<u8>)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OldPerson {
    id: u32,
    name: String,
    salt: u8,
    quota: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OldFolder {
    account: u32,
    name: String,
    birth: u32,
    id: u32,
    validity: u32,
    next: u32,
    special: Option<String>,
    rows: Vec<OldRow>,
}

#[derive(Debug, Serialize, Deserialize)]
struct OldRow {
    uid: u32,
    length: usize,
    hash: u64,
    system: u8,
    words: u8,
    date: i64,
}

/// The files, and what a store must show that opens on them.
pub(crate) fn schema1() -> (Files, Promise) {
    let contents: Contents = serde_json::from_str(CONTENTS).expect("the contents of schema 1");
    let bytes = zstd::decode_all(FILES).expect("the files of schema 1");
    let (index, journal) = bytes.split_at(contents.index_bytes);
    let mut files = Files::default();
    files.put("mail.redb", Image::holding(index));
    files.put("mail.journal", Image::holding(journal));

    let mut facts = Facts::new();
    let mut folders = BTreeMap::new();
    for old in contents.folders {
        facts.insert(old.birth, (old.id, old.validity));
        let special =
            STANDARD.iter().find_map(|(_, special)| special.filter(|name| Some(*name) == old.special.as_deref()));
        let rows = old.rows.iter().map(|row| {
            let print = Print { length: row.length, hash: row.hash };
            (row.uid, Row { print, marks: Marks { system: row.system, words: row.words }, date: row.date })
        });
        let folder = Folder { birth: old.birth, next: old.next, special, rows: rows.collect() };
        folders.insert((old.account, old.name), Arc::new(folder));
    }
    let people =
        contents.people.into_iter().map(|old| (old.id, Person { name: old.name, salt: old.salt, quota: old.quota }));
    let mut state = State {
        people: people.collect(),
        folders,
        subscribed: contents.subscribed.into_iter().collect(),
        domains: contents.domains.into_iter().collect(),
        aliases: contents.aliases.into_iter().collect(),
        notes: contents.notes.into_iter().collect(),
        births: contents.births,
        ..State::default()
    };
    state.last_account = state.people.keys().copied().max().unwrap_or(0);
    (files, Promise::of(state, facts, contents.ceiling))
}
