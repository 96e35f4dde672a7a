//! Decoded text of parts and header fields, for searching (RFC 2045 section 6, RFC 2047).
//!
//! Everything here streams: bytes come cut anywhere, what is held between two calls has a bound,
//! and what comes out of a call is at most a few times what went in. Searching is tolerant, as mail
//! is: what can't be decoded by the rules is decoded as it was probably meant.

mod charset;
mod finder;
mod grams;
mod preview;
mod reading;
mod sheet;
mod transfer;
mod word;

pub use charset::CharsetDecoder;
pub use finder::{Finder, NEEDLE_MAX, each_folded};
pub use grams::{LOOK_MAX, ROWS, places_of};
pub use preview::{PREVIEW_MAX, preview};
pub use reading::{PartReader, decode_field, field_text};
pub use sheet::{BODIES_MAX, COLUMNS_MAX, SHEET_VERSION, Sheet, SheetHead, SheetMaker};
pub use transfer::{Malformed, TransferDecoder};
pub use word::decode_words;

pub(in crate::mail) use transfer::hex_value;
