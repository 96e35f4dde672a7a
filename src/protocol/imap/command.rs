//! The commands of IMAP4rev1 and IMAP4rev2 as types (RFC 3501 section 6, RFC 9051 section 6).

use crate::mail::annotation::EntryName;
use crate::mail::date::ZonedTime;
use crate::mail::mailbox::{MailboxName, ModSeq, SpecialUse};
use crate::mail::message::{FlagMode, FlagNames};
use crate::mail::rights::{Rights, RightsMode};
use crate::mail::secret::Password;

use super::fetch::FetchItem;
use super::filter::MailboxFilter;
use super::metadata::MetadataQuery;
use super::notify::NotifyProgram;
use super::search::{Page, SearchProgram, SortKey, Threading};
use super::sequence::SequenceSet;

/// A command with its tag.
#[derive(Debug)]
pub struct Tagged {
    /// The client's tag.
    pub tag: String,
    /// What it wants.
    pub command: Command,
}

/// A command. `uid` tells the UID variant.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are RFC 9051's; fields that need words have them")]
pub enum Command {
    // Any state (RFC 9051 section 6.1)
    Capability,
    Noop,
    Logout,
    /// RFC 2971; the client's fields are for the log, cut to 30 pairs by the parser.
    Id(Vec<(String, Option<String>)>),
    // Not authenticated (section 6.2)
    StartTls,
    Authenticate {
        mechanism: String,
        initial: Option<Vec<u8>>,
    },
    Login {
        user: String,
        password: Password,
    },
    // Authenticated (section 6.3)
    Enable(Vec<String>),
    Select {
        mailbox: MailboxName,
        read_only: bool,
        condstore: bool,
        resync: Option<Resync>,
    },
    /// SELECT or EXAMINE of what no mailbox can be called: it fails and leaves none selected.
    SelectNothing,
    Create {
        mailbox: MailboxName,
        special_use: Vec<SpecialUse>,
    },
    Delete(MailboxName),
    Rename {
        from: MailboxName,
        to: MailboxName,
    },
    Subscribe(MailboxName),
    Unsubscribe(MailboxName),
    List(ListCommand),
    Lsub {
        reference: String,
        pattern: String,
    },
    Namespace,
    Status {
        mailbox: MailboxName,
        items: Vec<StatusItem>,
    },
    /// RFC 5464; without a mailbox it is about the account.
    GetMetadata {
        mailbox: Option<MailboxName>,
        query: MetadataQuery,
    },
    /// RFC 5464; an entry without a value goes.
    SetMetadata {
        mailbox: Option<MailboxName>,
        changes: Vec<(EntryName, Option<Vec<u8>>)>,
    },
    /// RFC 5465; `None` is `NONE`.
    Notify(Option<NotifyProgram>),
    /// RFC 5267: the tags of searches.
    CancelUpdate(Vec<String>),
    /// RFC 7377
    Esearch {
        sources: Vec<MailboxFilter>,
        program: SearchProgram,
    },
    /// What stands before the message literal; the message itself streams past the parser.
    Append(AppendHead),
    Idle,
    /// RFC 4978: the mechanism, in upper case.
    Compress(String),
    /// RFC 8437
    Unauthenticate,
    /// RFC 4467: URLs and mechanisms.
    GenUrlAuth(Vec<(String, String)>),
    /// RFC 4467
    UrlFetch(Vec<String>),
    /// RFC 4467: of all mailboxes if none is given; mechanisms go with one.
    ResetKey {
        mailbox: Option<MailboxName>,
        mechanisms: Vec<String>,
    },
    /// RFC 4314
    GetAcl(MailboxName),
    /// RFC 4314
    SetAcl {
        mailbox: MailboxName,
        identifier: String,
        mode: RightsMode,
        rights: Rights,
    },
    /// RFC 4314
    DeleteAcl {
        mailbox: MailboxName,
        identifier: String,
    },
    /// RFC 4314
    ListRights {
        mailbox: MailboxName,
        identifier: String,
    },
    /// RFC 4314
    MyRights(MailboxName),
    GetQuota(String),
    GetQuotaRoot(MailboxName),
    SetQuota(String),
    // Selected (section 6.4)
    Close,
    Unselect,
    Expunge {
        uids: Option<SequenceSet>,
    },
    Check,
    Search {
        uid: bool,
        program: SearchProgram,
    },
    /// RFC 5256, RFC 5267
    Sort {
        uid: bool,
        order: Vec<SortKey>,
        program: SearchProgram,
    },
    /// RFC 5256
    Thread {
        uid: bool,
        threading: Threading,
        program: SearchProgram,
    },
    /// RFC 10022: batches of so many messages, and which of these batches.
    UidBatches {
        size: u32,
        batches: Option<(u32, u32)>,
    },
    Fetch(FetchCommand),
    Store(StoreCommand),
    Copy {
        uid: bool,
        set: SequenceSet,
        mailbox: MailboxName,
    },
    Move {
        uid: bool,
        set: SequenceSet,
        mailbox: MailboxName,
    },
    /// RFC 8508: an APPEND that takes the place of a message.
    Replace {
        uid: bool,
        number: SequenceSet,
        head: AppendHead,
    },
}

/// What a client knows of the mailbox it selects (RFC 7162 section 3.2.5).
#[derive(Debug)]
pub struct Resync {
    /// The UIDVALIDITY under which it knows it.
    pub uid_validity: u32,
    /// It knows all changes up to here.
    pub since: ModSeq,
    /// The uids it knows, all if not given.
    pub known: Option<SequenceSet>,
}

/// FETCH (RFC 9051 section 6.4.5) with its modifiers.
#[derive(Debug)]
pub struct FetchCommand {
    /// UID FETCH.
    pub uid: bool,
    /// Of which messages.
    pub set: SequenceSet,
    /// What.
    pub items: Vec<FetchItem>,
    /// Only of messages that changed later (RFC 7162 section 3.1.4.1).
    pub changed_since: Option<ModSeq>,
    /// Which of the set are gone since then is told too (RFC 7162 section 3.2.6).
    pub vanished: bool,
    /// Only these of the messages of the set (RFC 9394 section 3.2).
    pub page: Option<Page>,
}

/// LIST in all its forms (RFC 9051 section 6.3.9, RFC 5258, RFC 5819, RFC 6154).
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "the names are RFC 5258's")]
pub struct ListCommand {
    pub reference: String,
    pub patterns: Vec<String>,
    pub select_subscribed: bool,
    pub select_remote: bool,
    pub select_recursive_match: bool,
    pub select_special_use: bool,
    pub return_subscribed: bool,
    pub return_children: bool,
    pub return_special_use: bool,
    pub return_status: Vec<StatusItem>,
    /// RFC 9590
    pub return_metadata: Vec<EntryName>,
    /// RFC 8440
    pub return_my_rights: bool,
    /// Selection options, a list of patterns or RETURN was given, empty or not.
    pub extended: bool,
}

/// What STATUS tells (RFC 9051 section 6.3.11, RFC 7162, RFC 7889).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are RFC 9051's")]
pub enum StatusItem {
    Messages,
    Recent,
    UidNext,
    UidValidity,
    Unseen,
    Deleted,
    Size,
    HighestModSeq,
    AppendLimit,
    DeletedStorage,
    MailboxId,
}

/// APPEND up to its first literal, or to its end where it has none (RFC 9051 section 6.3.12).
#[derive(Debug)]
pub struct AppendHead {
    /// Where to.
    pub mailbox: MailboxName,
    /// What is to come there.
    pub pieces: Vec<AppendPiece>,
}

/// What a line of an APPEND brings, in order: for each message its `Message`, then one `Literal`, or
/// with CATENATE any number of `Literal`s and `Url`s, then its `End` (RFC 3502, RFC 4469).
#[derive(Debug)]
pub enum AppendPiece {
    /// A message begins.
    Message {
        /// With which flags.
        flags: FlagNames,
        /// INTERNALDATE, if given.
        date: Option<ZonedTime>,
    },
    /// Bytes that the client sends next; nothing else of the line is known before.
    Literal {
        /// How many.
        size: u64,
        /// The client waits for `+`.
        synchronizing: bool,
    },
    /// A message or a part of one, as it is kept here.
    Url(String),
    /// The message ends.
    End,
}

/// STORE (RFC 9051 section 6.4.6, RFC 7162 section 3.1.3).
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are RFC 9051's")]
pub struct StoreCommand {
    pub uid: bool,
    pub set: SequenceSet,
    pub mode: FlagMode,
    pub silent: bool,
    pub flags: FlagNames,
    pub unchanged_since: Option<ModSeq>,
}
