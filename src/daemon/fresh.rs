//! What is new each time: the time of day, and names for messages.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::login::random;
use crate::mail::date::Timestamp;

/// Our name for a new message: 96 random bits in hexadecimal.
pub(super) fn new_id() -> String {
    random::<12>().iter().fold(String::with_capacity(24), |mut id, byte| {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// Now, as the system's clock has it.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
