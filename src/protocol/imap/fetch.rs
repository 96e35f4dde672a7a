//! What FETCH asks for (RFC 9051 section 6.4.5).

/// Most items in one FETCH; more is `BAD`.
pub const FETCH_ITEMS_MAX: usize = 256;

/// One item of a FETCH. Macros are expanded by the parser.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are RFC 9051's")]
pub enum FetchItem {
    Uid,
    Flags,
    InternalDate,
    Rfc822Size,
    Envelope,
    Body,
    BodyStructure,
    ModSeq,
    /// `RFC822`, `RFC822.HEADER`, `RFC822.TEXT` of IMAP4rev1: the same bytes under another name.
    Rfc822,
    Rfc822Header,
    Rfc822Text,
    Section(SectionItem),
    EmailId,
    ThreadId,
    SaveDate,
    /// RFC 8970; LAZY makes no difference.
    Preview,
}

/// `BODY[...]<...>` and `BINARY[...]<...>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SectionItem {
    /// `.PEEK` was given: `\Seen` stays as it is.
    pub peek: bool,
    /// Which bytes, and in which coding.
    pub kind: SectionKind,
    /// Part numbers, empty for the message itself.
    pub path: Vec<u32>,
    /// `<origin.count>`
    pub partial: Option<(u32, u32)>,
}

/// What of a part is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionKind {
    /// `BODY[path]`
    Body,
    /// `BODY[path.MIME]`
    Mime,
    /// `BODY[path.HEADER]`
    Header,
    /// `BODY[path.HEADER.FIELDS (...)]`, and with `true` `HEADER.FIELDS.NOT`
    HeaderFields(Vec<String>, bool),
    /// `BODY[path.TEXT]`
    Text,
    /// `BINARY[path]`: transfer encoding undone (RFC 3516)
    Binary,
    /// `BINARY.SIZE[path]`
    BinarySize,
}
