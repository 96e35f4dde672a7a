//! What an IMAP session asks the world, and what it is told: mail words only.
//!
//! Long answers are pulled piece by piece: rows in batches, messages with their structures some at a time, bodies by
//! the chunk. So neither side ever holds more than one piece, whatever a client asks for.

use std::fmt;
use std::sync::Arc;

use crate::mail::annotation::{Annotation, EntryName};
use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::mailbox::{Mailbox, MailboxId, MailboxName, ModSeq, Quota, SpecialUse, Uid, Usage};
use crate::mail::message::{BlobId, FlagMode, FlagNames, Flagged, Message, Placed, UidSet};
use crate::mail::rights::{Rights, RightsMode};
use crate::mail::structure::{Structure, Wanted};
use crate::protocol::sasl;

use super::metadata::MetadataQuery;
use super::search::{SearchKey, SortKey, Threading};
use super::threading::Twig;
use super::url::ImapUrl;

/// A question only the world outside can answer. The account is that of the last successful login.
#[derive(Debug)]
pub enum Request {
    /// Logging in. Answered by [`Answer::Sasl`].
    Sasl(sasl::Request),
    /// All mailboxes and subscriptions. [`Answer::Mailboxes`]
    Mailboxes {
        /// The session is to be told from now on when something happens in any of them.
        watched: bool,
    },
    /// One mailbox, if any of these rights is there. [`Answer::Mailbox`]
    Mailbox {
        /// Which.
        name: MailboxName,
        /// What is to be done with it.
        wanted: Rights,
    },
    /// One mailbox with the uids of its messages, as of one moment (SELECT). [`Answer::Opened`]
    Open(MailboxName),
    /// The first message no session was shown yet, now shown to this one with all that follow.
    /// [`Answer::Claimed`]
    ClaimRecent(MailboxId),
    /// How many messages there are from `from` on. [`Answer::Count`]
    CountFrom {
        /// Where.
        mailbox: MailboxId,
        /// The first to count.
        from: Uid,
    },
    /// What changed. [`Answer::Unchanged`], [`Answer::Changes`], or [`Answer::Mailbox`] with `None`
    /// when the mailbox is gone.
    Changes {
        /// Where.
        mailbox: MailboxId,
        /// Changes up to here are known.
        since: ModSeq,
        /// Messages below are known.
        uid_next: Uid,
        /// What may be done with it, as far as is known.
        rights: Rights,
    },
    /// Uids that were removed after `since`, and perhaps others that are not there.
    /// [`Answer::Vanished`]
    Vanished {
        /// Where.
        mailbox: MailboxId,
        /// Removals up to here are known.
        since: ModSeq,
    },
    /// Puts messages in order (SORT). [`Answer::Sorted`]
    Sort {
        /// Where.
        mailbox: MailboxId,
        /// Which.
        uids: UidSet,
        /// By what.
        order: Arc<[SortKey]>,
    },
    /// Puts messages into threads (THREAD). [`Answer::Threads`]
    Thread {
        /// Where.
        mailbox: MailboxId,
        /// Which.
        uids: UidSet,
        /// How.
        threading: Threading,
    },
    /// Those of `uids` that are there and changed after `changed_since`. [`Answer::Rows`]
    Rows {
        /// Where.
        mailbox: MailboxId,
        /// Which; at most [`ROWS_BATCH`] or, with `changed_since`, [`SCAN_BATCH`].
        uids: UidSet,
        /// Zero for all.
        changed_since: ModSeq,
    },
    /// What the part walker found in these bodies, and their first bytes. [`Answer::Letters`]: in the
    /// order of the question, at least the first; the answering side may stop after any.
    Letters {
        /// Which, at most [`LETTERS_BATCH`].
        blobs: Vec<BlobId>,
        /// What the part walker found is wanted.
        structure: bool,
        /// How many first bytes are.
        ahead: Ahead,
    },
    /// A piece of a body: at most `max` bytes from `offset`, fewer at the end of a block, none past
    /// the end. [`Answer::Bytes`]
    Body {
        /// Which.
        blob: BlobId,
        /// From where.
        offset: u64,
        /// At most so many bytes.
        max: usize,
    },
    /// Which of `uids` are what `search` asks for, from the lowest on. [`Answer::Found`] looks at as
    /// many as it likes, at least one.
    Search {
        /// Where.
        mailbox: MailboxId,
        /// Which to look at.
        uids: UidSet,
        /// What to look for.
        search: Arc<Search>,
    },
    /// The account's quota. [`Answer::Quota`]
    Quota,
    /// What is said of a mailbox, or of the account. [`Answer::Annotations`]
    Annotations {
        /// Of which; none is the account.
        mailbox: Option<MailboxId>,
        /// Which entries; their size is not looked at.
        query: Arc<MetadataQuery>,
    },
    /// SETMETADATA, all or none. [`Answer::Done`]
    Annotate {
        /// Of which; none is the account.
        mailbox: Option<MailboxId>,
        /// Entries with their new values; without one an entry goes.
        changes: Vec<(EntryName, Option<Vec<u8>>)>,
    },
    /// STORE. [`Answer::Flagged`]
    Flag {
        /// Where.
        mailbox: MailboxId,
        /// Which.
        uids: UidSet,
        /// What to do with `flags`.
        mode: FlagMode,
        /// The flags.
        flags: FlagNames,
        /// Leave alone what changed later.
        unchanged_since: Option<ModSeq>,
    },
    /// COPY, all or nothing. [`Answer::Placed`]
    Copy {
        /// Where from.
        from: MailboxId,
        /// Which.
        uids: UidSet,
        /// Where to.
        to: MailboxId,
    },
    /// MOVE, all or nothing. [`Answer::Placed`]
    Move {
        /// Where from.
        from: MailboxId,
        /// Which.
        uids: UidSet,
        /// Where to.
        to: MailboxId,
    },
    /// EXPUNGE, of these only if given. [`Answer::Expunged`]
    Expunge {
        /// Where.
        mailbox: MailboxId,
        /// Which.
        uids: Option<UidSet>,
    },
    /// CREATE. [`Answer::Created`]
    Create {
        /// The new name.
        name: MailboxName,
        /// What it is for.
        special_use: Option<SpecialUse>,
    },
    /// DELETE. [`Answer::Done`]
    Delete(MailboxName),
    /// RENAME. [`Answer::Done`]
    Rename {
        /// The old name.
        from: MailboxName,
        /// The new name.
        to: MailboxName,
    },
    /// GETACL. [`Answer::Acl`]
    Acl(MailboxName),
    /// SETACL and DELETEACL. [`Answer::Done`]
    SetAcl {
        /// Of which.
        mailbox: MailboxName,
        /// Whose rights, as RFC 4314 spells it.
        identifier: String,
        /// What to do with `rights`.
        mode: RightsMode,
        /// The rights.
        rights: Rights,
    },
    /// LISTRIGHTS. [`Answer::ListRights`]
    ListRights {
        /// Of which.
        mailbox: MailboxName,
        /// Whose rights.
        identifier: String,
    },
    /// A token that authorizes a URL of one's own (RFC 4467 section 5). [`Answer::Token`], or
    /// [`Answer::Mailbox`] with `None`.
    Authorize {
        /// The URL up to its mechanism.
        rump: String,
        /// The mailbox it is about, which gets an access key if it has none.
        mailbox: MailboxName,
    },
    /// RESETKEY, of one mailbox or all: what was authorized there is so no more. [`Answer::Done`]
    ResetKeys(Option<MailboxName>),
    /// Opens what an authorized URL names, if the logged-in user may use it. [`Answer::UrlSize`]
    OpenUrl {
        /// The URL as it was given.
        text: String,
        /// What it says.
        url: Box<ImapUrl>,
    },
    /// The next bytes of what was opened last by a URL, some so many; none at the end. [`Answer::Bytes`]
    UrlBytes(usize),
    /// SUBSCRIBE and UNSUBSCRIBE. [`Answer::Done`]
    Subscribe {
        /// The name.
        name: MailboxName,
        /// Whether it is to be subscribed.
        subscribed: bool,
    },
    /// Begins to take a message in, if mailbox, quota and disk allow. [`Answer::Mailbox`]
    AppendBegin {
        /// Where to.
        mailbox: MailboxName,
        /// Its size in bytes.
        size: u64,
        /// The message it takes the place of, whose room it may have.
        replaced: Option<(MailboxId, Uid)>,
    },
    /// The next bytes of that message. [`Answer::Done`]
    AppendBytes(Vec<u8>),
    /// What a URL names is taken for the next bytes of that message: at most so many, else
    /// [`Refused::TooBig`]. [`Answer::Appended`], or [`Refused::BadUrl`].
    AppendUrl {
        /// Of the account's own.
        url: Box<ImapUrl>,
        /// At most so many bytes.
        most: u64,
    },
    /// Ends that message and sets it aside: another follows by [`Request::AppendBegin`]. [`Answer::Done`]
    AppendNext {
        /// With which flags.
        flags: FlagNames,
        /// INTERNALDATE, now if not given.
        date: Option<ZonedTime>,
    },
    /// Keeps that message and those set aside, all or none. [`Answer::Placed`]
    AppendEnd {
        /// With which flags.
        flags: FlagNames,
        /// INTERNALDATE, now if not given.
        date: Option<ZonedTime>,
        /// The message it takes the place of, which goes in the same change (RFC 8508).
        replaced: Option<(MailboxId, Uid)>,
    },
    /// Forgets what was taken of all these messages. [`Answer::Done`]
    AppendCancel,
}

/// Most rows in one answer.
pub const ROWS_BATCH: u32 = 256;

/// Most messages looked at for one answer that tells only the changed ones.
pub const SCAN_BATCH: u32 = 1024;

/// Most messages in one [`Request::Letters`].
pub const LETTERS_BATCH: usize = 256;

/// Most first bytes that come along with one message, a block of a body; of a longer header or
/// message none do.
pub const AHEAD_MAX: usize = 64 * 1024;

/// How many first bytes of messages are wanted along with their structures: so a FETCH of many
/// headers, or of many small messages, asks once for many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ahead {
    /// None.
    Nothing,
    /// The header, where the structure does not tell these fields of it.
    Fields(Wanted),
    /// The header.
    Header,
    /// The message.
    Whole,
}

impl Ahead {
    /// What is enough for both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Fields(one), Self::Fields(other)) => Self::Fields(one.and(other)),
            (one, other) => one.max(other),
        }
    }
}

/// A message on its way into a FETCH response.
#[derive(Debug)]
pub struct Letter {
    /// Its body.
    pub blob: BlobId,
    /// What the part walker found, if that was asked and the body is there.
    pub structure: Option<Structure>,
    /// First bytes, maybe none.
    pub ahead: Vec<u8>,
}

/// Most bytes of a body asked for at once.
pub const BODY_CHUNK: usize = 16 * 1024;

/// A search in the terms of the mailbox: message numbers, `$` and `\Recent` have become uids.
#[derive(Debug)]
pub struct Search {
    /// What must hold.
    pub key: SearchKey,
    /// Which messages are `\Recent` to the session that asks.
    pub recent: UidSet,
}

/// The answer to a [`Request`]. [`Answer::Refused`] answers any.
#[derive(Debug)]
#[expect(missing_docs, reason = "the requests say what their answers are")]
pub enum Answer {
    Sasl(sasl::Answer),
    Mailboxes {
        /// Sorted by name, INBOX first.
        mailboxes: Vec<Mailbox>,
        /// Sorted; some may be no mailbox.
        subscriptions: Vec<MailboxName>,
    },
    Mailbox(Option<Box<Mailbox>>),
    Opened(Option<Box<Opened>>),
    Claimed(Uid),
    Count(u32),
    Unchanged,
    Changes(Box<Changes>),
    Vanished(UidSet),
    /// All the uids that are there, first the first.
    Sorted(Vec<Uid>),
    /// All the uids that are there, thread after thread.
    Threads(Vec<Twig>),
    Rows(Vec<Message>),
    Letters(Vec<Letter>),
    Bytes(Vec<u8>),
    Found {
        /// Those that are what was asked for.
        uids: UidSet,
        /// The highest modification sequence among them.
        modseq: ModSeq,
        /// Where to go on when not all were looked at.
        next: Option<Uid>,
        /// The present.
        now: Timestamp,
    },
    Quota {
        limit: Quota,
        used: Usage,
    },
    /// Sorted by entry.
    Annotations(Vec<Annotation>),
    /// Who has which rights, as RFC 4314 spells it, the owner first.
    Acl(Vec<(String, Rights)>),
    /// Whether it is the owner, who has them all.
    ListRights(bool),
    Flagged(Flagged),
    Placed(Placed),
    /// So many bytes were.
    Appended(u64),
    Token([u8; 32]),
    /// So many bytes there are; none of it is for this user, or there.
    UrlSize(Option<u64>),
    Expunged(UidSet),
    Created(MailboxId),
    Done,
    Refused(Refused),
}

/// A mailbox as SELECT finds it.
#[derive(Debug)]
pub struct Opened {
    /// The mailbox.
    pub mailbox: Mailbox,
    /// Its messages.
    pub uids: UidSet,
    /// The first without `\Seen`.
    pub first_unseen: Option<Uid>,
}

/// What happened in a mailbox since a moment.
#[derive(Debug)]
pub struct Changes {
    /// The mailbox now.
    pub mailbox: Mailbox,
    /// New messages, from the `uid_next` of the request on.
    pub new: UidSet,
    /// Removed messages, and perhaps others that were never known.
    pub vanished: UidSet,
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such mailbox (any more).
    NoSuchMailbox,
    /// The name is taken.
    Exists,
    /// Mailboxes are below it.
    HasChildren,
    /// Who asks may not do that there.
    NoRight,
    /// It is against a rule, which the text says.
    NotAllowed(&'static str),
    /// The quota is used up.
    OverQuota,
    /// A bound of this server.
    Limit(&'static str),
    /// A URL names nothing that is here.
    BadUrl,
    /// It is more than there is room for.
    TooBig,
    /// Too little space on the disk.
    DiskFull,
    /// The store could not do it now.
    Unavailable,
}

impl fmt::Display for Refused {
    /// Writes response code and text (RFC 5530, RFC 9051 section 7.1).
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchMailbox => out.write_str("[NONEXISTENT] no such mailbox"),
            Self::Exists => out.write_str("[ALREADYEXISTS] there is a mailbox of that name"),
            Self::HasChildren => out.write_str("[HASCHILDREN] delete the mailboxes below it first"),
            Self::NoRight => out.write_str("[NOPERM] you have no right to do that there"),
            Self::NotAllowed(rule) => write!(out, "[CANNOT] {rule}"),
            Self::OverQuota => out.write_str("[OVERQUOTA] the quota is used up"),
            Self::Limit(bound) => write!(out, "[LIMIT] {bound}"),
            Self::BadUrl => out.write_str("[CANNOT] the URL names nothing that is here"),
            Self::TooBig => out.write_str("[TOOBIG] that is too large"),
            Self::DiskFull => out.write_str("[UNAVAILABLE] the server's disk is full; deleting mail makes room"),
            Self::Unavailable => out.write_str("[UNAVAILABLE] try again later"),
        }
    }
}
