//! The four stores, behind one trait. Each keeps the same facts of a message, and a delivery is
//! durable when it returns.

use std::path::Path;

use pillarbox::mail::structure::Walker;
use pillarbox::store::Figures;

use crate::letter::{Letter, Source};

mod maildir;
mod ours;
mod redb;
mod sqlite;

pub use ours::Ours;

/// Every message's row, as the three databases keep it: flags, change, dates, size, body.
const ROW: usize = 40;

/// Senders that fill a store before it is measured.
const LOADERS: u64 = 32;

/// A place that keeps mail.
pub trait MailStore: Send + Sync {
    /// Keeps a letter durably; gives the bytes of its body as they are stored.
    fn deliver(&self, letter: &Letter) -> u64;
    /// Keeps letters 0 to `count` as fast as it can, to be durable when the store is closed.
    fn fill(&self, source: &Source, count: u64);
    /// Marks one of the first letters as seen, durably.
    fn flag(&self, number: u64);
    /// What the store says of itself.
    fn figures(&self) -> Option<Figures> {
        None
    }
    /// Closes it in order.
    fn close(self: Box<Self>);
}

/// The stores by name, in the order of the table.
pub const NAMES: [&str; 5] = ["pillarbox", "redb", "sqlite", "maildir", "none"];

/// Opens the store of this name.
pub fn open(name: &str, folder: &Path) -> Box<dyn MailStore> {
    match name {
        "pillarbox" => Box::new(ours::Ours::open(folder)),
        "redb" => Box::new(redb::Plain::open(folder)),
        "sqlite" => Box::new(sqlite::Sqlite::open(folder)),
        "maildir" => Box::new(maildir::Maildir::open(folder)),
        "none" => Box::new(Nothing),
        _ => panic!("no store is called {name}"),
    }
}

/// What the walker finds in a letter, as the databases keep it: ENVELOPE and BODYSTRUCTURE.
fn structure(body: &[u8]) -> Vec<u8> {
    let mut walker = Walker::new();
    walker.feed(body);
    postcard::to_allocvec(&walker.finish()).unwrap()
}

/// Keeps nothing: what making the letters and walking through them costs.
struct Nothing;

impl MailStore for Nothing {
    fn deliver(&self, letter: &Letter) -> u64 {
        let mut walker = Walker::new();
        letter.each(&mut |chunk| walker.feed(chunk));
        postcard::to_allocvec(&walker.finish()).unwrap();
        letter.size() as u64
    }

    fn fill(&self, _: &Source, _: u64) {}

    fn flag(&self, _: u64) {}

    fn close(self: Box<Self>) {}
}
