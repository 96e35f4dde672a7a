//! Pillarbox: SMTP, IMAP and POP3 in one memory-frugal binary for small computers that stand alone.
//!
//! This file is the map. Modules stand in reading order; a module names only those above it, with
//! two refinements that `tests/layers.rs` keeps true: `protocol` and `store` never name one
//! another, and `net` names only [`protocol::Session`], [`protocol::Step`] and their companions.
//!
//! Invariants of absence: nothing in `protocol` reads a clock; nothing below `net` awaits; only
//! `store` names redb; only `net` names rustls and sockets; nothing holds a whole large message in
//! memory; an acknowledgement follows a commit; nothing polls: an idle server does not wake.

pub mod cli; //      one file per subcommand
pub mod config; //   the settings, gathered from the folders that obey them
pub mod daemon; //   which tasks run, and how they stop
pub mod filter; //   judgements on a message: the spam filter, attachment scanning
pub mod flow; //     the journeys of a message, tying the folders above together; nothing awaits
pub mod mail; //     the words everyone shares: addresses, flags, uids, the structure of a message
pub mod net; //      sockets, TLS and the one loop that drives every session
pub mod protocol; // SMTP, IMAP, POP3: bytes in, steps out, no sockets, no clock, no store
pub mod queue; //    when and where to try next, and what to tell the sender; pure
pub mod store; //    redb and the journal: accounts, mailboxes, messages; the only folder that names redb
