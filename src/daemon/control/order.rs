//! The words of the control socket: one JSON object a line, an [`Order`] there and an [`Outcome`]
//! back.
//!
//! Passwords do not travel: the command derives the SCRAM keys and sends those.

use serde::{Deserialize, Serialize};

use super::examine::Examination;
use crate::daemon::deliver::DeliverFigures;
use crate::daemon::scrub::ScrubState;
use crate::filter::spam::Class;
use crate::flow::backup::Made;
use crate::flow::brake::Braked;
use crate::flow::dkim::KeyRow;
use crate::flow::judge::{Opinion, SpamFigures};
use crate::flow::report::Owed;
use crate::flow::scan::rescan::RescanState;
use crate::mail::list::{Answers, List, Posting};
use crate::mail::queue::QueueFigures;
use crate::mail::secret::ScramVerifier;
use crate::store::compact::{CompactStart, Compaction};
use crate::store::{Figures, Quota, Usage};

/// Longest order in bytes, its LF included: the beginning of a message in base64 fits.
pub const ORDER_LINE_MAX: usize = 128 << 10;

/// Longest outcome in bytes, its LF included; long lists of accounts come in several.
pub const OUTCOME_LINE_MAX: usize = 1 << 20;

/// Most rows of one list outcome.
pub const ROWS_MAX: usize = 1024;

/// What the server, or a command that has the store open itself, is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Order {
    /// Make an account. [`Outcome::Done`]
    AddAccount {
        /// Its address.
        address: String,
        /// The keys of its password.
        verifier: ScramVerifier,
        /// What it may keep.
        quota: Quota,
    },
    /// Remove an account and all its mail. [`Outcome::Done`]
    RemoveAccount {
        /// Its address.
        address: String,
    },
    /// Tell all accounts. [`Outcome::Accounts`]
    ListAccounts {
        /// How many were told before.
        skip: usize,
    },
    /// Change a password. [`Outcome::Done`]
    SetPassword {
        /// The account's address.
        address: String,
        /// The keys of the new password.
        verifier: ScramVerifier,
    },
    /// Tell one account. [`Outcome::Accounts`]
    ShowAccount {
        /// Its address.
        address: String,
    },
    /// Let whoever has the key of a certificate log in to an account. [`Outcome::Done`]
    AddCertificate {
        /// The account's address.
        address: String,
        /// What it is called.
        name: String,
        /// Its SHA-256 in hexadecimal.
        fingerprint: String,
        /// Its last second, in seconds since 1970.
        expires: i64,
    },
    /// Let a certificate log in no more. [`Outcome::Done`]
    RemoveCertificate {
        /// The account's address.
        address: String,
        /// What it is called.
        name: String,
    },
    /// Tell the certificates that people log in with. [`Outcome::Certificates`]
    ListCertificates {
        /// The address of the account whose they are; none for all.
        address: Option<String>,
        /// How many were told before.
        skip: usize,
    },
    /// Change what an account may keep. [`Outcome::Done`]
    SetQuota {
        /// The account's address.
        address: String,
        /// What it may keep.
        quota: Quota,
    },
    /// Let mail for an address go to these accounts, and addresses elsewhere, too. [`Outcome::Done`]
    AddAlias {
        /// The address; `*@domain` for all addresses of a domain that are nobody's.
        address: String,
        /// Addresses of accounts, or in others' domains.
        targets: Vec<String>,
    },
    /// Remove an alias. [`Outcome::Done`]
    RemoveAlias {
        /// Its address.
        address: String,
    },
    /// Tell all aliases. [`Outcome::Aliases`]
    ListAliases {
        /// How many were told before.
        skip: usize,
    },
    /// Give somebody rights on a mailbox in place of those he has there, or none. [`Outcome::Done`]
    Share {
        /// The address of the account whose mailbox it is.
        account: String,
        /// The mailbox.
        mailbox: String,
        /// Another account's address, or `anyone`; with `-` before it what is denied (RFC 4314).
        who: String,
        /// The letters of the rights.
        rights: String,
    },
    /// Tell who else has rights on an account's mailboxes. [`Outcome::Shares`]
    ListShares {
        /// The account's address.
        account: String,
        /// How many were told before.
        skip: usize,
    },
    /// Make a list. [`Outcome::Done`]
    AddList {
        /// It.
        list: Box<List>,
    },
    /// Change a list. [`Outcome::Done`]
    ChangeList {
        /// Its address.
        address: String,
        /// What.
        change: Box<ListChange>,
    },
    /// Remove a list. [`Outcome::Done`]
    RemoveList {
        /// Its address.
        address: String,
    },
    /// Tell all lists. [`Outcome::Lists`]
    ListLists {
        /// How many were told before.
        skip: usize,
    },
    /// Tell a list with its members. [`Outcome::List`]
    ShowList {
        /// Its address.
        address: String,
    },
    /// Make a domain local. [`Outcome::Done`]
    AddDomain {
        /// Its name.
        domain: String,
    },
    /// Make a domain foreign. [`Outcome::Done`]
    RemoveDomain {
        /// Its name.
        domain: String,
    },
    /// Tell the local domains. [`Outcome::Domains`]
    ListDomains {
        /// How many were told before.
        skip: usize,
    },
    /// Import or export mail of an account: after [`Outcome::Done`] the connection speaks as
    /// [`crate::flow::carry::serve`] does.
    Carry {
        /// The account's address.
        address: String,
    },
    /// Check the store: after [`Outcome::Done`] the connection tells [`super::CheckEvent`]s.
    CheckStore {
        /// How.
        examination: Examination,
    },
    /// Make a backup: after [`Outcome::Done`] the connection carries frames
    /// ([`crate::flow::backup::receive`]).
    Backup {
        /// The backup it builds on: `last`, `full` or a name; none for a full one.
        since: Option<String>,
    },
    /// Remember a backup that was made. [`Outcome::Done`]
    NoteBackup {
        /// Which.
        made: Made,
    },
    /// Tell how the server is. [`Outcome::Status`]
    Status,
    /// Show or change a domain's DKIM keys. [`Outcome::Dkim`]
    Dkim {
        /// The domain.
        domain: String,
        /// What.
        task: DkimTask,
    },
    /// Begin to compact the index. [`Outcome::Compacting`]
    Compact {
        /// Also when little is gained.
        force: bool,
    },
    /// Tell how far a compaction is. [`Outcome::Compaction`]
    Compaction,
    /// Tell queued messages. [`Outcome::Queue`]
    ListQueue {
        /// The last one told before.
        after: Option<u64>,
    },
    /// Tell all of one queued message. [`Outcome::Queued`]
    ShowQueued {
        /// Its number.
        id: u64,
        /// Recipients from this number on.
        from: u32,
    },
    /// Have queued messages tried now, held, or released. [`Outcome::Concerned`]
    OrderQueued {
        /// What.
        task: QueueTask,
        /// Which messages; all when there are none.
        ids: Vec<u64>,
    },
    /// Remove a queued message; nobody is told. [`Outcome::Done`]
    RemoveQueued {
        /// Its number.
        id: u64,
    },
    /// Tell of reports to other domains. [`Outcome::Reports`]
    Reports {
        /// Those that there are, the day so far included, are sent before.
        send: bool,
    },
    /// Look at once whether there are other signatures. [`Outcome::Done`]
    TakeSignatures,
    /// Ask or teach the spam filter. [`Outcome::Spam`]
    Spam {
        /// For the account with this address; none for the box alone.
        account: Option<String>,
        /// What.
        task: SpamTask,
    },
}

/// What is done with queued messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueTask {
    /// Who waits is tried at once.
    Retry,
    /// Who waits is held back.
    Hold,
    /// Who is held is tried at once.
    Release,
}

/// What the spam filter is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SpamTask {
    /// Tell what it thinks of a message.
    Score {
        /// The message's beginning, in base64.
        head: String,
    },
    /// Learn a message, or with no class take back what was learnt of it.
    Teach {
        /// The message's beginning, in base64.
        head: String,
        /// What it is.
        class: Option<Class>,
    },
    /// Forget everything. [`Outcome::Done`]
    Reset,
    /// Take the seed that lies in the data folder now. [`Outcome::Done`]
    Reseed,
}

/// What is to be changed of a list; what is `None` or empty stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ListChange {
    /// Members that come.
    pub add: Vec<String>,
    /// Members that go.
    pub remove: Vec<String>,
    /// Its title.
    pub title: Option<String>,
    /// All its owners.
    pub owners: Option<Vec<String>>,
    /// Who may post.
    pub posting: Option<Posting>,
    /// Where answers go.
    pub answers: Option<Answers>,
}

/// What is to be done with a domain's DKIM keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum DkimTask {
    /// Tell them, and make the first pair where there is none.
    Show,
    /// Make the next pair.
    Rotate {
        /// It signs now, and not a week later.
        at_once: bool,
    },
    /// Let the pair that waits sign from now on.
    Begin,
    /// Remove a pair.
    Remove {
        /// One of its selectors; none for all whose time is over.
        selector: Option<String>,
    },
}

/// What came of an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Outcome {
    /// It is done, and on disk.
    Done,
    /// It is not done.
    Refused {
        /// Why, as one sentence without its full stop.
        reason: String,
    },
    /// Accounts; more follow when there are [`ROWS_MAX`].
    Accounts {
        /// By number.
        accounts: Vec<AccountRow>,
    },
    /// Certificates; more follow when there are [`ROWS_MAX`].
    Certificates {
        /// By account and name.
        certificates: Vec<CertificateRow>,
    },
    /// Aliases; more follow when there are [`ROWS_MAX`].
    Aliases {
        /// By address.
        aliases: Vec<AliasRow>,
    },
    /// Who else has rights on mailboxes; more follow when there are [`ROWS_MAX`].
    Shares {
        /// By mailbox.
        shares: Vec<ShareRow>,
    },
    /// Lists; more follow when there are [`ROWS_MAX`].
    Lists {
        /// By address.
        lists: Vec<ListRow>,
    },
    /// A list.
    List {
        /// It.
        list: Box<List>,
    },
    /// Domains; more follow when there are [`ROWS_MAX`].
    Domains {
        /// By name.
        domains: Vec<String>,
    },
    /// How the server is.
    Status {
        /// How.
        status: Box<Status>,
    },
    /// Whether a compaction has begun.
    Compacting {
        /// Whether, and why not.
        start: CompactStart,
    },
    /// How far a compaction is, and how the last one ended.
    Compaction {
        /// How far.
        compaction: Compaction,
    },
    /// A domain's DKIM keys as they are now.
    Dkim {
        /// The oldest first.
        keys: Vec<KeyRow>,
        /// Selectors that came or went, or began to sign.
        changed: Vec<String>,
    },
    /// Queued messages; more follow when there are [`ROWS_MAX`].
    Queue {
        /// By number.
        messages: Vec<QueueRow>,
    },
    /// A queued message; more recipients follow when there are [`ROWS_MAX`].
    Queued {
        /// It.
        message: Box<QueueRow>,
        /// Its recipients.
        recipients: Vec<QueueRecipient>,
    },
    /// How much an order to the queue changed.
    Concerned {
        /// Recipients.
        recipients: u32,
    },
    /// Reports to other domains, [`ROWS_MAX`] of each kind at most.
    Reports {
        /// Those that are to be sent.
        owed: Vec<Owed>,
        /// What is counted for the next.
        growing: Vec<Owed>,
        /// How many were sent at this order.
        sent: usize,
    },
    /// What the spam filter says of a message; where it was to learn it, before that.
    Spam {
        /// What.
        opinion: Box<Opinion>,
    },
}

/// An account as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    /// Its address, which is also its login.
    pub address: String,
    /// What it may keep.
    pub quota: Quota,
    /// What it keeps.
    pub used: Usage,
}

/// A certificate as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRow {
    /// The address of its account.
    pub address: String,
    /// What it is called.
    pub name: String,
    /// Its SHA-256 in hexadecimal.
    pub fingerprint: String,
    /// When it was registered, seconds since 1970.
    pub added: i64,
    /// Its last second, likewise.
    pub expires: i64,
    /// Its time is over by the server's clock.
    pub over: bool,
}

/// An alias as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasRow {
    /// What mail is addressed to.
    pub address: String,
    /// Where it goes.
    pub targets: Vec<String>,
}

/// What somebody may do with another's mailbox, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareRow {
    /// The mailbox.
    pub mailbox: String,
    /// Who.
    pub who: String,
    /// The letters of his rights (RFC 4314).
    pub rights: String,
}

/// A queued message as lists show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct QueueRow {
    /// Its number.
    pub id: u64,
    /// Its sender; empty for a notification.
    pub from: String,
    /// Its size in bytes.
    pub size: u32,
    /// When it came, seconds since 1970.
    pub accepted: i64,
    /// How many recipients it has.
    pub recipients: u32,
    /// How many of them are not settled.
    pub unsettled: u32,
    /// The first of those.
    pub first: Option<QueueRecipient>,
}

/// A recipient of a queued message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct QueueRecipient {
    /// Its number in the message.
    pub number: u32,
    /// The address.
    pub to: String,
    /// `waiting`, `held`, `delivered` or `failed`.
    pub state: String,
    /// When it is tried next, seconds since 1970.
    pub next: Option<i64>,
    /// Attempts made.
    pub attempts: u32,
    /// When the last one was.
    pub tried: Option<i64>,
    /// Seconds that count towards giving up.
    pub lapsed_secs: u32,
    /// The last that was heard, with who said it.
    pub answer: Option<String>,
}

/// A list as lists of them show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRow {
    /// What mail is addressed to.
    pub address: String,
    /// What it is called.
    pub title: String,
    /// How many members it has.
    pub members: usize,
}

/// How the server is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Status {
    /// Our version.
    pub version: String,
    /// What the server calls itself towards other servers.
    pub hostname: String,
    /// SHA-256 of its certificate's public key, in hexadecimal.
    pub tls_key_sha256: Option<String>,
    /// Its certificate is of the box's own authority.
    pub own_authority: bool,
    /// The server's process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_secs: u64,
    /// Where it listens.
    pub listeners: Vec<ListenerStatus>,
    /// Open connections in all.
    pub sessions: u32,
    /// Memory of the process, in bytes, as the kernel counts it (PSS).
    pub memory_bytes: u64,
    /// The most it has been (`VmHWM`), in bytes.
    pub memory_peak_bytes: u64,
    /// Figures of the store.
    pub store: Figures,
    /// How far the monthly reading of the whole store is; `None` when it is turned off.
    pub scrub: Option<ScrubState>,
    /// How far mail was scanned again with the signatures; `None` when that is turned off or there are none.
    pub rescan: Option<RescanState>,
    /// The last backup.
    pub last_backup: Option<Made>,
    /// What the spam filter has learnt; `None` as long as it has judged nothing.
    pub spam: Option<SpamFigures>,
    /// Mail on its way out.
    pub queue: QueueFigures,
    /// How it goes out.
    pub deliver: DeliverFigures,
    /// Accounts whose mail is held because they send too much.
    pub braked: Vec<Braked>,
}

/// One listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ListenerStatus {
    /// What it speaks, such as `imaps`.
    pub name: String,
    /// Its address and port.
    pub address: String,
    /// Open connections.
    pub sessions: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::secret::tests::password;

    #[test]
    fn an_order_is_one_line_of_json_and_reads_back() {
        let verifier = ScramVerifier::derive(&password("pencil"), [255; 16], 2);
        let quota = Quota { bytes: Some(u64::MAX), messages: None };
        let order = Order::AddAccount { address: "ann@pillarbox.test".into(), verifier, quota };
        let line = serde_json::to_string(&order).unwrap();
        assert!(!line.contains('\n') && line.len() < ORDER_LINE_MAX);
        assert!(line.starts_with(r#"{"order":"add-account","address":"ann@pillarbox.test","#), "{line}");
        assert_eq!(serde_json::from_str::<Order>(&line).unwrap(), order);
    }

    #[test]
    fn an_order_with_a_misspelled_word_is_no_order() {
        for line in [r#"{"order":"stop"}"#, r#"{"order":"list-accounts","skips":0}"#, "{}", "[]", ""] {
            assert!(serde_json::from_str::<Order>(line).is_err(), "{line}");
        }
    }
}
