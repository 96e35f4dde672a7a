//! Sequence sets (RFC 9051 section 9, `sequence-set`; `$` is RFC 5182's saved search result).

/// One end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeqNumber {
    /// A message number or uid; never zero.
    Number(u32),
    /// `*`: the highest there is.
    Star,
}

/// Most ranges in one set; a longer one is `BAD`.
pub const RANGES_MAX: usize = 8192;

/// A set of message numbers or uids as the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SequenceSet {
    /// Ranges in the client's order; the ends may stand in either order; at most [`RANGES_MAX`].
    Ranges(Vec<(SeqNumber, SeqNumber)>),
    /// `$`
    Saved,
}
