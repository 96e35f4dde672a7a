//! Attachment scanning, with the files it needs: compiling signature files into a set, and examining
//! files and mail with it.
//!
//! The data folder's `signatures/` holds the signature files as they came; `signatures.set` beside it
//! is made of them. It is written beside the old one and takes its place by a rename, so whoever has
//! the old one open goes on with it until it looks again.

pub mod compile; // many signature files into one set
mod file; //        a file that can be read anywhere
mod letter; //      a message as something to scan
pub mod notice; //  what its recipient is told
pub mod policy; //  what becomes of what was found
pub mod rescan; //  mail that was taken, held against signatures that came later
mod scanner; //     one scan
mod sort; //        more records than fit into memory
pub mod source; //  signature files line by line

pub use file::{SeenFile, mark_of, open_set, open_set_within};
pub use letter::{KeptObject, SpooledObject};
pub use policy::{Action, Ruling, ScanConfig};
pub use scanner::{Bench, Findings, Prints};

/// The folder of the signature files in the data folder.
pub const SOURCES: &str = "signatures";

/// The compiled set in the data folder.
pub const SET_FILE: &str = "signatures.set";
