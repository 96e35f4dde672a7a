//! The tables of `mail.redb`, in one place, and a write transaction's view of them.
//!
//! Each table a transaction changes costs three to four pages (STORAGE section 3), so [`Tables`]
//! opens one only when it is asked for. Values are bytes: a [`Record`], or what the table's line
//! says. A new table is added here and nowhere else.

use redb::{Key, ReadableTable, Table, TableDefinition, Value, WriteTransaction};

use crate::mail::date::Timestamp;
use crate::mail::message::UidSet;

use super::error::Trouble;
use super::record::{AccountRecord, MailboxRecord, MessageRecord, Progress, Record};
use super::seal::RowKey;

/// The row of STATE that holds the [`Progress`].
pub(super) const PROGRESS: &str = "progress";

/// Something that treats all tables alike, such as a dump.
pub(super) trait Visitor {
    /// Deals with one table.
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), Trouble>;
}

macro_rules! tables {
    ($($(#[$doc:meta])* $field:ident $table:ident: $key:ty => $value:ty;)*) => {
        $($(#[$doc])* pub(super) const $table: TableDefinition<'static, $key, $value> =
            TableDefinition::new(stringify!($field));)*

        /// The names of all tables.
        pub(super) const NAMES: &[&str] = &[$(stringify!($field)),*];

        /// Shows the table of this name to `visitor`; false when there is no such table.
        pub(super) fn visit(name: &str, visitor: &mut impl Visitor) -> Result<bool, Trouble> {
            match name {
                $(stringify!($field) => visitor.visit($table)?,)*
                _ => return Ok(false),
            }
            Ok(true)
        }

        /// The tables within a write transaction, each opened when first asked for.
        pub(super) struct Tables<'t> {
            transaction: &'t WriteTransaction,
            /// As it will be written at the end.
            pub(super) progress: Progress,
            /// When the transaction began.
            pub(super) now: Timestamp,
            /// Something was changed.
            pub(super) touched: bool,
            /// Marks of `\Recent` were moved: written along, and no loss.
            pub(super) marked: bool,
            /// The number of the change that is being planned.
            pub(super) seq: u64,
            /// There is something for the sweep.
            pub(super) sweep_due: bool,
            /// Accounts whose mailboxes changed, without doubles.
            pub(super) woken: Vec<u32>,
            /// How many pieces of removed bodies may still be removed at once, in this transaction.
            pub(super) pieces_left: u32,
            $($field: Option<Table<'t, $key, $value>>,)*
        }

        impl<'t> Tables<'t> {
            /// Begins with what is in the index. `now` is the time of what this transaction does.
            pub(super) fn open(transaction: &'t WriteTransaction, now: Timestamp) -> Result<Self, Trouble> {
                let mut tables = Self {
                    transaction,
                    progress: Progress::default(),
                    now,
                    touched: false,
                    marked: false,
                    seq: 0,
                    sweep_due: false,
                    woken: Vec::new(),
                    pieces_left: PIECES_AT_ONCE,
                    $($field: None,)*
                };
                tables.progress = load(tables.state()?, PROGRESS)?.unwrap_or_default();
                Ok(tables)
            }

            /// Makes every table, so that readers find them.
            pub(super) fn create(transaction: &WriteTransaction) -> Result<(), Trouble> {
                $(transaction.open_table($table)?;)*
                Ok(())
            }

            $($(#[$doc])* pub(super) fn $field(&mut self) -> Result<&mut Table<'t, $key, $value>, Trouble> {
                if self.$field.is_none() {
                    self.$field = Some(self.transaction.open_table($table)?);
                }
                self.$field.as_mut().ok_or_else(|| Trouble::damaged(stringify!($field)))
            })*
        }
    };
}

tables! {
    /// Small facts: `schema` (u32, little-endian), `identity` (16 bytes), `progress` ([`Progress`]),
    /// `wear` (what was written, by day).
    state STATE: &'static str => &'static [u8];
    /// Local domains, in lower case.
    domain DOMAIN: &'static str => ();
    /// Account number to [`AccountRecord`].
    account ACCOUNT: u32 => &'static [u8];
    /// `Address::key` to [`super::record::AddressRecord`]: accounts and aliases.
    address ADDRESS: &'static str => &'static [u8];
    /// Mailbox number to [`MailboxRecord`].
    mbox MBOX: u32 => &'static [u8];
    /// (account, name) to mailbox number.
    mboxname MBOXNAME: (u32, &'static str) => u32;
    /// (account, name) that is subscribed, mailbox or not.
    subscription SUBSCRIPTION: (u32, &'static str) => ();
    /// (mailbox, uid) to [`MessageRecord`], about 30 bytes.
    msg MSG: (u32, u32) => &'static [u8];
    /// (mailbox, change) to [`super::record::VanishRecord`]: what was removed; bounded by size.
    vanish VANISH: (u32, u64) => &'static [u8];
    /// Body to `BlobRecord`.
    blob BLOB: u64 => &'static [u8];
    /// Body to [`super::record::StructureRecord`]: beside the body and not the message, because
    /// copies share it and numbers that only rise fill the pages.
    structure STRUCTURE: u64 => &'static [u8];
    /// (body, index) to a piece with its header.
    piece PIECE: (u64, u32) => &'static [u8];
    /// Body to its last piece, where that is small (see `shelf`).
    tail TAIL: u64 => &'static [u8];
    /// What is still to be removed: ([`SWEEP_BODY`], [`SWEEP_MAILBOX`] or [`SWEEP_STAGED`], number).
    sweep SWEEP: (u8, u64) => ();
    /// Small settings of the program's own, by name.
    note NOTE: &'static str => &'static [u8];
    /// Queued message to [`super::queue::QueuedRecord`].
    queue QUEUE: u64 => &'static [u8];
    /// (queued message, recipient) to [`super::queue::RecipientRecord`].
    qrcpt QRCPT: (u64, u32) => &'static [u8];
    /// (unix ms, queued message, recipient): what something is due for, by time.
    qsched QSCHED: (u64, u64, u32) => ();
    /// (domain, unix ms, queued message, recipient): the same by destination.
    qdest QDEST: (&'static str, u64, u64, u32) => ();
    /// (learner, piece) to a sealed piece of what the spam filter learnt (see `learned`).
    learned LEARNED: (u32, u16) => &'static [u8];
    /// (account, mailbox or [`OF_ACCOUNT`], entry) to [`super::record::AnnotationRecord`].
    annotation ANNOTATION: (u32, u32, &'static str) => &'static [u8];
    /// (first body, 0 for the head or a block's number from 1) to a sealed part of a sheet of grams (see
    /// `gram`). Made of bodies: no backup has it.
    gram GRAM: (u64, u32) => &'static [u8];
    /// Fingerprint in hexadecimal to [`super::record::CertificateRecord`].
    certificate CERTIFICATE: &'static str => &'static [u8];
    /// (mailbox, account or all ones for anyone) to [`super::acl::GrantRecord`].
    acl ACL: (u32, u32) => &'static [u8];
    /// The same pairs the other way around: what is shared with whom.
    shared SHARED: (u32, u32) => ();
}

/// In place of a mailbox in ANNOTATION: what is about the account. No mailbox has this number.
pub(super) const OF_ACCOUNT: u32 = u32::MAX;

/// A body nobody refers to.
pub(super) const SWEEP_BODY: u8 = 0;
/// A mailbox that was deleted and whose messages are still there.
pub(super) const SWEEP_MAILBOX: u8 = 1;
/// A body that is being staged; left over when the store opens, it is removed.
pub(super) const SWEEP_STAGED: u8 = 2;

/// Pieces a group's own transaction removes at once; what is above is swept later, in steps.
const PIECES_AT_ONCE: u32 = 64;

/// Reads one record.
pub(super) fn load<'k, R: Record, K: Key + 'static>(
    table: &impl ReadableTable<K, &'static [u8]>,
    key: K::SelfType<'k>,
) -> Result<Option<R>, Trouble>
where
    K::SelfType<'k>: RowKey,
{
    table.get(key)?.map(|value| R::decode(key, value.value())).transpose()
}

/// Calls `visit` for every message of `uids`, ascending, while it says true.
pub(super) fn each_message(
    table: &impl ReadableTable<(u32, u32), &'static [u8]>,
    mailbox: u32,
    uids: &UidSet,
    visit: &mut dyn FnMut(u32, MessageRecord) -> bool,
) -> Result<(), Trouble> {
    for (first, last) in uids.ranges() {
        for row in table.range((mailbox, first.get())..=(mailbox, last.get()))? {
            let (key, value) = row?;
            if !visit(key.value().1, MessageRecord::decode(key.value(), value.value())?) {
                return Ok(());
            }
        }
    }
    Ok(())
}

impl Tables<'_> {
    /// An account.
    pub(super) fn load_account(&mut self, id: u32) -> Result<Option<AccountRecord>, Trouble> {
        load(self.account()?, id)
    }

    /// Writes an account.
    pub(super) fn save_account(&mut self, id: u32, record: &AccountRecord) -> Result<(), Trouble> {
        self.account()?.insert(id, record.encode(id)?.as_slice())?;
        Ok(())
    }

    /// A mailbox.
    pub(super) fn load_mailbox(&mut self, id: u32) -> Result<Option<MailboxRecord>, Trouble> {
        load(self.mbox()?, id)
    }

    /// Writes a mailbox.
    pub(super) fn save_mailbox(&mut self, id: u32, record: &MailboxRecord) -> Result<(), Trouble> {
        self.mbox()?.insert(id, record.encode(id)?.as_slice())?;
        Ok(())
    }

    /// Up to `max` messages of `uids`, ascending, those below `from` left out. A change to many
    /// messages goes through them in such portions: a table is not read and written at once.
    pub(super) fn portion(
        &mut self,
        mailbox: u32,
        uids: &UidSet,
        from: u32,
        max: usize,
    ) -> Result<Vec<(u32, MessageRecord)>, Trouble> {
        let mut found = Vec::new();
        let skip = uids.ranges().partition_point(|range| range.1.get() < from);
        let table = self.msg()?;
        for (first, last) in uids.ranges().get(skip..).unwrap_or_default() {
            for row in table.range((mailbox, first.get().max(from))..=(mailbox, last.get()))? {
                let (key, value) = row?;
                found.push((key.value().1, MessageRecord::decode(key.value(), value.value())?));
                if found.len() >= max {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// Notes what is to be removed later, in steps.
    pub(super) fn leave_to_sweep(&mut self, kind: u8, id: u64) -> Result<(), Trouble> {
        self.sweep()?.insert((kind, id), ())?;
        self.sweep_due = true;
        Ok(())
    }

    /// Notes that something of an account changed.
    pub(super) fn wake(&mut self, account: u32) {
        if !self.woken.contains(&account) {
            self.woken.push(account);
        }
    }

    /// Writes the progress. The last thing in a transaction.
    pub(super) fn finish(mut self) -> Result<(), Trouble> {
        let progress = self.progress.encode(PROGRESS)?;
        self.state()?.insert(PROGRESS, progress.as_slice())?;
        Ok(())
    }
}
