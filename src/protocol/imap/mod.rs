//! IMAP4rev1 and IMAP4rev2 on the server's side (RFC 3501, RFC 9051).

mod any; //           CAPABILITY, NOOP, LOGOUT, ID
mod authenticated; // the authenticated state
pub mod command; //   the commands as types
mod compress; //      COMPRESS=DEFLATE
mod config; //        settings
mod context; //       searches that are kept up to date
mod desk; //          what all commands of a session share
mod errand; //        commands that take more than one step
pub mod fetch; //     what FETCH asks for
pub mod filter; //    which mailboxes ESEARCH and NOTIFY are about
mod grammar; //       a whole command into its type
mod greeting; //      the not authenticated state
mod idle; //          IDLE
pub mod intake; //    bytes into whole commands
pub mod matching; //  whether a message is what SEARCH asks for
pub mod metadata; //  what GETMETADATA asks for
pub mod name; //      mailbox names in UTF-8 and modified UTF-7, LIST patterns
pub mod notify; //    what NOTIFY asks to be told of
pub mod request; //   what a session asks the world
pub mod response; //  the pieces of responses
pub mod search; //    what SEARCH asks for
mod selected; //      the selected state
pub mod sequence; //  sequence sets
mod session; //       a connection without its socket
pub mod sorting; //   what SORT goes by, as bytes that compare
pub mod structure; // ENVELOPE and BODYSTRUCTURE
pub mod threading; // THREAD's threads out of messages
mod token; //         atoms, strings, literals
pub mod url; //       URLs of messages and parts, with or without authorization
mod view; //          what a session knows of its mailbox

pub use config::ImapConfig;
pub use desk::Site;
pub use request::{Answer, Request};
pub use session::Session;
