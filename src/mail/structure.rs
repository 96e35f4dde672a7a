//! The part walker: where everything is in a message (RFC 2045, RFC 2046, RFC 9051 section 7.5.2).

use serde::{Deserialize, Serialize};

/// What the walker keeps of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Structure {}
