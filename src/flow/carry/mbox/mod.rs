//! mbox: one file of many messages, each behind a `From ` line (RFC 4155 and custom).
//!
//! Lines that begin with `From ` are quoted with `>` in the mboxrd way: any number of `>` before
//! it gets one more, and reading takes one away. mboxo files, where only bare `From ` was quoted,
//! read the same but for a line that began with `>From ` by itself. Content-Length fields are not
//! trusted: they are wrong as soon as anybody edits the file.

mod reader;
pub(in crate::flow) mod separator; // the `From ` line
mod status; //    flags as header fields
mod writer;

pub(super) use reader::Reader;
pub(super) use writer::Writer;

/// What a separator and every line to be quoted begins with.
const FROM: &[u8] = b"From ";
