//! The part walker: where everything is in a message (RFC 2045, RFC 2046, RFC 9051 section 7.5.2).

use serde::{Deserialize, Serialize};

/// What the walker keeps of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Structure {}

/// Bytes of a message: where they start and how many they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Offset from the message's first byte.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// What of a part [`Structure::extent`] is asked for (RFC 9051 section 6.4.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// `BODY[path]`: a part's body; the whole message for the empty path.
    Body,
    /// `BODY[path.MIME]`: the part's own header with its empty line.
    Mime,
    /// `BODY[path.HEADER]`: the header of the message (that the part holds), with its empty line.
    Header,
    /// `BODY[path.TEXT]`: the text of the message (that the part holds).
    Text,
}

/// How a part's body is coded for transfer (RFC 2045 section 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferEncoding {
    /// `7bit`, `8bit`, `binary`, or none given.
    #[default]
    Identity,
    /// `base64`
    Base64,
    /// `quoted-printable`
    QuotedPrintable,
    /// A coding nobody knows (FETCH BINARY answers UNKNOWN-CTE).
    Unknown,
}

/// Finds the parts of a message while it streams by; bounded whatever the message holds.
#[derive(Debug, Default)]
pub struct Walker {}

#[expect(clippy::todo, reason = "the facade comes first")]
#[allow(unused_variables, clippy::unused_self)]
impl Walker {
    /// Begins a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        todo!()
    }

    /// Ends the message.
    pub fn finish(self) -> Structure {
        todo!()
    }
}

#[expect(clippy::todo, reason = "the facade comes first")]
#[allow(unused_variables, clippy::unused_self)]
impl Structure {
    /// Where a section is, or `None` when the message has no such part.
    pub fn extent(&self, path: &[u32], section: Section) -> Option<Extent> {
        todo!()
    }

    /// How the part at `path` is coded, or `None` when there is no such part.
    pub fn encoding(&self, path: &[u32]) -> Option<TransferEncoding> {
        todo!()
    }
}
