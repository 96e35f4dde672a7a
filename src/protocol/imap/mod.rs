//! IMAP4rev1 and IMAP4rev2 on the server's side (RFC 3501, RFC 9051).

pub mod command; //   the commands as types
pub mod fetch; //     what FETCH asks for
mod grammar; //       a whole command into its type
pub mod intake; //    bytes into whole commands
pub mod name; //      mailbox names in UTF-8 and modified UTF-7, LIST patterns
pub mod response; //  the pieces of responses
pub mod search; //    what SEARCH asks for, and whether a message is it
pub mod sequence; //  sequence sets
pub mod structure; // ENVELOPE and BODYSTRUCTURE
mod token; //         atoms, strings, literals
