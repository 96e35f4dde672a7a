//! Which backups were made of a store: a note in the store itself.
//!
//! Because the note is written after the backup and into the same store, whatever a power cut or a
//! restore leaves of the store never remembers a backup of a state that it has not been in. So the
//! watermark that an incremental backup starts from is never that of another past.

use serde::{Deserialize, Serialize};

use super::{BackupError, Header};
use crate::store::dump::MADE_NOTE;
use crate::store::{ReadError, Store};

/// Backups that are remembered: two months of daily ones. The last full one always is.
const KEPT: usize = 62;

/// A backup that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Made {
    /// Its name.
    pub id: String,
    /// The one it builds on; none for a full one.
    pub base: Option<String>,
    /// When it was begun, seconds since 1970.
    pub at: i64,
    /// Bodies below this number are in it or in those it builds on.
    pub watermark: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

impl Made {
    /// The backup with this header, of so many bytes.
    pub fn new(header: &Header, bytes: u64) -> Self {
        let Header { id, base, at, watermark, .. } = header;
        Self { id: id.clone(), base: base.clone(), at: *at, watermark: *watermark, bytes }
    }
}

/// Which backup an incremental one builds on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// The last one.
    Last,
    /// The last full one.
    Full,
    /// The one of this name.
    Id(String),
}

impl Since {
    /// Reads the words of the command line: `last`, `full`, or a name.
    pub fn parse(text: &str) -> Self {
        match text {
            "last" => Self::Last,
            "full" => Self::Full,
            id => Self::Id(id.to_ascii_lowercase()),
        }
    }
}

/// The backups that the store remembers, oldest first.
///
/// # Errors
/// As any read.
pub fn made(store: &Store) -> Result<Vec<Made>, ReadError> {
    let note = store.reader()?.note(MADE_NOTE)?;
    // A note that makes no sense is forgotten: the next backup is a full one.
    Ok(note.and_then(|note| serde_json::from_slice(&note).ok()).unwrap_or_default())
}

/// The backup to build on.
///
/// # Errors
/// [`BackupError::NoBase`] when the store remembers none.
pub(super) fn find_base(store: &Store, since: &Since) -> Result<Made, BackupError> {
    let mut known = made(store)?.into_iter().rev();
    let (found, word) = match since {
        Since::Last => (known.next(), "last"),
        Since::Full => (known.find(|made| made.base.is_none()), "full"),
        Since::Id(id) => (known.find(|made| made.id == *id), id.as_str()),
    };
    found.ok_or_else(|| BackupError::NoBase(word.to_owned()))
}

/// Remembers a backup.
///
/// # Errors
/// As any write.
pub fn note_made(store: &Store, new: Made) -> Result<(), BackupError> {
    let mut known = made(store)?;
    remember(&mut known, new);
    let note = serde_json::to_vec(&known).map_err(|error| BackupError::Refused(error.to_string()))?;
    Ok(store.put_note(MADE_NOTE, note).wait()?)
}

/// Forgets what is older than `new` or too much. What the store remembers as later than `new` was
/// made from another past.
fn remember(known: &mut Vec<Made>, new: Made) {
    known.retain(|made| made.id != new.id);
    known.push(new);
    let full = known.iter().rposition(|made| made.base.is_none());
    let surplus = known.len().saturating_sub(KEPT);
    let mut at = 0;
    known.retain(|_| {
        at += 1;
        at > surplus || Some(at - 1) == full
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_and_the_last_full_one_always() {
        let made = |id: usize, full: bool| Made {
            id: id.to_string(),
            base: (!full).then(|| "x".to_owned()),
            ..Made::default()
        };
        let mut known = Vec::new();
        for id in 0..200 {
            remember(&mut known, made(id, id % 150 == 0));
            assert!(known.len() <= KEPT + 1);
        }
        assert_eq!(known.len(), KEPT);
        for id in 200..300 {
            remember(&mut known, made(id, false));
        }
        assert_eq!((known.len(), known[0].id.as_str(), known[1].id.as_str()), (KEPT + 1, "150", "238"));
        assert!(serde_json::to_vec(&known).unwrap().len() < 32 << 10);
        remember(&mut known, made(299, false));
        assert_eq!(known.iter().filter(|made| made.id == "299").count(), 1);
    }
}
