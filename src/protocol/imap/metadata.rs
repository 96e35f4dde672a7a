//! What GETMETADATA asks for (RFC 5464 section 4.2).

use crate::mail::annotation::EntryName;

/// Most entries named in one GETMETADATA, SETMETADATA or LIST; more is `BAD`.
pub const ENTRIES_MAX: usize = 64;

/// The entry that tells a mailbox's special use and can't be set (RFC 6154 section 4).
pub const SPECIAL_USE_ENTRY: &str = "/private/specialuse";

/// Entries that are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataQuery {
    /// The entries.
    pub entries: Vec<EntryName>,
    /// How far below them (section 4.2.2).
    pub depth: Depth,
    /// Longer values are left out (section 4.2.1).
    pub max_size: Option<u32>,
}

/// `DEPTH`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// `0`: the entries alone; of one that is not there it is said so.
    #[default]
    Alone,
    /// `1`: what is right below them too.
    Next,
    /// `infinity`: everything below them too.
    All,
}

impl MetadataQuery {
    /// Tells whether an entry is asked for, whatever its size.
    #[must_use]
    pub fn wants(&self, entry: &EntryName) -> bool {
        let levels = match self.depth {
            Depth::Alone => 0,
            Depth::Next => 1,
            Depth::All => usize::MAX,
        };
        self.entries.iter().any(|asked| entry.levels_below(asked).is_some_and(|below| below <= levels))
    }
}
