//! Logging in, reading and changing mailboxes: what IMAP, POP3 and SASL ask, answered by the store.

pub mod search; // SEARCH in slices
