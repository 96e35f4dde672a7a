//! Instants and their spellings in mail (RFC 5322 section 3.3, RFC 9051 date-time).

use serde::{Deserialize, Serialize};

/// Seconds since 1970-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

/// An instant with the zone it was written in, as IMAP keeps it (RFC 9051 section 2.3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZonedTime {
    /// The instant.
    pub at: Timestamp,
    /// Minutes east of UTC, between -1439 and 1439.
    pub offset_mins: i16,
}
