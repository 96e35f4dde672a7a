//! What was learnt of which message, so that it can be taken back exactly: the last few hundred
//! messages, in a ring.

use serde::{Deserialize, Serialize};

use super::Class;

/// Messages that are remembered; with it the ledger takes one piece of the store.
pub(super) const ENTRIES_MAX: usize = 800;

/// What learning a message changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The message's number.
    pub(super) id: u64,
    pub(super) class: Class,
    /// What was added to the weight of each of its features.
    pub(super) step: i16,
    /// It was counted.
    pub(super) counted: bool,
}

/// The entries, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ledger(std::collections::VecDeque<Entry>);

impl Ledger {
    /// What was learnt of a message.
    pub(super) fn find(&self, id: u64) -> Option<&Entry> {
        self.0.iter().rev().find(|entry| entry.id == id)
    }

    /// Takes an entry out.
    pub(super) fn take(&mut self, id: u64) -> Option<Entry> {
        let place = self.0.iter().rposition(|entry| entry.id == id)?;
        self.0.remove(place)
    }

    /// Writes an entry down; the oldest goes where there is no room.
    pub(super) fn push(&mut self, entry: Entry) {
        if self.0.len() >= ENTRIES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
