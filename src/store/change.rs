//! Changes: what the journal holds and what is done to the tables, now and at replay.
//!
//! An [`Op`] is physical: uid, body, time and names are decided before, so applying it needs no
//! decision and cannot be refused. The index holds the number of the last change applied, in the
//! same transaction, so a replay meets exactly the state the op was made for.
//!
//! Changes lie in journals that a newer Pillarbox may have to replay: variants and fields are only
//! ever added, at the end, and a change of their meaning raises [`PAYLOAD_VERSION`].

use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::envelope::Recipient;
use crate::mail::mailbox::{AccountId, MailboxName, SpecialUse};
use crate::mail::message::{Flags, Keyword, SystemFlags, UidSet};
use crate::mail::queue::{Delivery, Due, QueueOrder};
use crate::mail::rights::Grant;

use super::blob::{BlobRecord, BodyHash};
use super::error::Trouble;
use super::queue::QueuedRecord;
use super::record::{
    AccountRecord, AddressRecord, Bytes, CertificateRecord, MailboxRecord, MessageRecord, Record, Tally, VanishRecord,
};
use super::shelf::{put_body, release};
use super::table::{SWEEP_MAILBOX, Tables, load};
use super::upgrade::UnhashedBlobRecord;
use super::{acl, annotation, certificate, learned, queue};

mod mended; // what repair changes

/// The first byte of a group's payload.
pub(super) const PAYLOAD_VERSION: u8 = 1;

/// Bytes of removed uids kept for a mailbox; above it the older half is forgotten.
pub(super) const VANISH_BYTES_MAX: u32 = 16 << 10;

/// Bytes of one record of removed uids; a larger one is not kept at all.
const VANISH_RECORD_MAX: usize = 4 << 10;

/// Messages read at a time by a change to many.
const PORTION: usize = 512;

/// One command's worth of ops. `seq` is its place in the journal and its `ModSeq`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) seq: u64,
    pub(super) ops: Vec<Op>,
}

/// What is done to the tables.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Op {
    /// A body as schema 1 wrote it; an upgraded store may have to replay it.
    UnhashedBody { id: u64, record: UnhashedBlobRecord, structure: Bytes, stored: Option<Bytes> },
    /// A message comes into a mailbox. The body's references are counted in [`Op::Body`].
    Place { mailbox: u32, uid: u32, blob: u64, size: u32, internal_date: ZonedTime, saved: Timestamp, flags: Flags },
    /// A mailbox learns keywords.
    Keywords { mailbox: u32, names: Vec<Keyword> },
    /// Flags of messages that are all there: `clear` goes, then `set` comes.
    Flag { mailbox: u32, uids: UidSet, clear: Flags, set: Flags },
    /// Messages that are all there are copied or moved to ascending uids from `first` on.
    /// `keywords` pairs each keyword's position in the one mailbox with that in the other.
    Transfer { from: u32, uids: UidSet, to: u32, first: u32, saved: Timestamp, keywords: Vec<(u8, u8)>, remove: bool },
    /// Messages that are all there are removed.
    Remove { mailbox: u32, uids: UidSet },
    /// A mailbox is made.
    PutMailbox { id: u32, account: u32, name: MailboxName, special_use: Option<SpecialUse>, uid_validity: u32 },
    /// A mailbox goes with all its messages.
    DropMailbox { id: u32 },
    /// A mailbox gets another name.
    RenameMailbox { id: u32, to: MailboxName },
    /// A name is subscribed or not.
    Subscribe { account: u32, name: MailboxName, subscribed: bool },
    /// An account as it is from now on.
    PutAccount { id: u32, record: AccountRecord },
    /// An account goes; its mailboxes and addresses have gone before.
    DropAccount { id: u32 },
    /// Whose an address is from now on.
    PutAddress { key: String, record: AddressRecord },
    /// An address is nobody's.
    DropAddress { key: String },
    /// A domain becomes local.
    PutDomain { name: String },
    /// A domain becomes foreign.
    DropDomain { name: String },
    /// A note.
    PutNote { name: String, value: Bytes },
    /// A body with its structure; `stored` is the compressed stream, `None` when its pieces are
    /// staged already.
    Body { id: u64, record: BlobRecord, structure: Bytes, stored: Option<Bytes> },
    /// A message comes into the queue, all its recipients due at one time. The body's reference is
    /// counted in [`Op::Body`].
    Enqueue { id: u64, record: QueuedRecord, recipients: Vec<Recipient>, due: Due },
    /// Recipients of a queued message, by number, as they are from now on.
    SetRecipients { id: u64, states: Vec<(u32, Delivery)> },
    /// All recipients of a queued message become what [`Delivery::ordered`] makes of them.
    OrderQueued { id: u64, order: QueueOrder },
    /// A message leaves the queue.
    Dequeue { id: u64 },
    /// What was learnt by this learner goes.
    ForgetLearned { learner: u32 },
    /// Repair: the numbers given out next are these at least.
    Numbers { blob: u64, account: u32, mailbox: u32, uid_validity: u32 },
    /// Repair: a mailbox's record from now on.
    Mailbox { id: u32, record: MailboxRecord },
    /// Repair: a mailbox's name leads to it, or to nothing.
    ListMailbox { account: u32, name: String, id: Option<u32> },
    /// Repair: a message's record from now on.
    Message { mailbox: u32, uid: u32, record: MessageRecord },
    /// Repair: messages without a body, or without a record that can be read, are removed.
    Forget { mailbox: u32, uids: UidSet },
    /// Repair: a mailbox's log of removed messages begins anew.
    ForgetVanished { mailbox: u32 },
    /// Repair: a body's references are more or fewer by this; a body that is gone is passed over.
    Refer { id: u64, by: i64 },
    /// Repair: a body's structure from now on; a body that is gone is passed over.
    Structure { id: u64, structure: Bytes },
    /// Repair: the hash of a body that had none; a body that is gone is passed over.
    Hash { id: u64, hash: BodyHash },
    /// Repair: something is listed for removal, or no more.
    List { kind: u8, id: u64, listed: bool },
    /// Repair: a queued message's counters and schedule are made anew from its recipients; what of
    /// it can't be read goes.
    Requeue { id: u64 },
    /// Repair: a piece of what was learnt goes.
    ForgetLearnedPiece { learner: u32, piece: u16 },
    /// An annotation from now on, or none.
    Annotate { account: u32, mailbox: u32, entry: String, value: Option<Bytes> },
    /// Repair: the sheet of grams that begins with this body goes.
    ForgetSheet { first: u64 },
    /// A certificate that lets somebody in from now on, or no more.
    Certify { fingerprint: String, record: Option<CertificateRecord> },
    /// What an identifier is given and denied on a mailbox from now on; nothing at all is no row.
    Grant { mailbox: u32, identifier: u32, grant: Grant },
}

impl Change {
    /// Adds the change to a group's payload.
    pub(super) fn encode_into(&self, payload: Vec<u8>) -> Result<Vec<u8>, Trouble> {
        postcard::to_extend(self, payload).map_err(|_| Trouble::damaged("change"))
    }

    /// Takes the changes of a group's payload one by one.
    pub(super) fn each(payload: &[u8], take: &mut dyn FnMut(Self) -> Result<(), Trouble>) -> Result<(), Trouble> {
        let (version, mut rest) = payload.split_first().ok_or_else(|| Trouble::damaged("journal group"))?;
        if *version != PAYLOAD_VERSION {
            return Err(Trouble::damaged("journal group of another version"));
        }
        while !rest.is_empty() {
            let (change, after) = postcard::take_from_bytes(rest).map_err(|_| Trouble::damaged("change"))?;
            take(change)?;
            rest = after;
        }
        Ok(())
    }

    /// Does everything to the tables.
    pub(super) fn apply(&self, tables: &mut Tables<'_>) -> Result<(), Trouble> {
        for op in &self.ops {
            apply(tables, self.seq, op)?;
        }
        tables.progress.applied = self.seq;
        tables.touched = true;
        Ok(())
    }
}

fn apply(tables: &mut Tables<'_>, seq: u64, op: &Op) -> Result<(), Trouble> {
    match op {
        Op::UnhashedBody { id, record, structure, stored } => {
            put_body(tables, *id, &record.clone().into(), structure, stored.as_ref())
        }
        Op::Body { id, record, structure, stored } => put_body(tables, *id, record, structure, stored.as_ref()),
        Op::Place { mailbox, uid, blob, size, internal_date, saved, flags } => {
            let row = MessageRecord {
                flags: *flags,
                modseq: seq,
                internal_date: *internal_date,
                saved: *saved,
                size: *size,
                blob: *blob,
            };
            let key = (*mailbox, *uid);
            tables.msg()?.insert(key, row.encode(key)?.as_slice())?;
            let mut tally = Tally::default();
            tally.add(*flags, *size);
            let mut record = existing(tables, *mailbox)?;
            record.uid_next = uid.saturating_add(1);
            record.count_in(&tally);
            change_mailbox(tables, seq, *mailbox, record)?;
            use_space(tables, *mailbox, &tally, &Tally::default())
        }
        Op::Keywords { mailbox, names } => {
            let mut record = existing(tables, *mailbox)?;
            record.keywords.0.extend(names.iter().cloned());
            tables.save_mailbox(*mailbox, &record)
        }
        Op::Flag { mailbox, uids, clear, set } => flag(tables, seq, *mailbox, uids, *clear, *set),
        Op::Transfer { .. } => transfer(tables, seq, op),
        Op::Remove { mailbox, uids } => remove(tables, seq, *mailbox, uids),
        Op::PutMailbox { id, account, name, special_use, uid_validity } => {
            let record = MailboxRecord {
                special_use: *special_use,
                ..MailboxRecord::empty(*account, name.clone(), *uid_validity, seq)
            };
            tables.mboxname()?.insert((*account, name.as_str()), *id)?;
            tables.progress.mailbox = tables.progress.mailbox.max(id.saturating_add(1));
            tables.progress.uid_validity = tables.progress.uid_validity.max(*uid_validity);
            tables.wake(*account);
            tables.save_mailbox(*id, &record)
        }
        Op::DropMailbox { id } => drop_mailbox(tables, *id),
        Op::RenameMailbox { id, to } => {
            let mut record = existing(tables, *id)?;
            tables.mboxname()?.remove((record.account, record.name.as_str()))?;
            tables.mboxname()?.insert((record.account, to.as_str()), *id)?;
            record.name = to.clone();
            tables.wake(record.account);
            tables.save_mailbox(*id, &record)
        }
        Op::Subscribe { account, name, subscribed } => {
            tables.wake(*account);
            let key = (*account, name.as_str());
            if *subscribed {
                tables.subscription()?.insert(key, ())?;
            } else {
                tables.subscription()?.remove(key)?;
            }
            Ok(())
        }
        Op::PutAccount { id, record } => {
            tables.progress.account = tables.progress.account.max(id.saturating_add(1));
            tables.save_account(*id, record)
        }
        Op::DropAccount { id } => {
            tables.account()?.remove(*id)?;
            tables.wake(*id);
            learned::forget(tables, learned::number(Some(AccountId(*id))))?;
            annotation::forget(tables, *id, 0..=u32::MAX)?;
            acl::forget_account(tables, *id)?;
            let table = tables.subscription()?;
            let names = table.range((*id, "")..(id.saturating_add(1), ""))?;
            let names = names.map(|row| Ok(row?.0.value().1.to_owned())).collect::<Result<Vec<_>, Trouble>>()?;
            for name in names {
                table.remove((*id, name.as_str()))?;
            }
            Ok(())
        }
        Op::PutAddress { key, record } => {
            tables.address()?.insert(key.as_str(), record.encode(key.as_str())?.as_slice())?;
            Ok(())
        }
        Op::DropAddress { key } => {
            tables.address()?.remove(key.as_str())?;
            Ok(())
        }
        Op::PutDomain { name } => {
            tables.domain()?.insert(name.as_str(), ())?;
            Ok(())
        }
        Op::DropDomain { name } => {
            tables.domain()?.remove(name.as_str())?;
            Ok(())
        }
        Op::PutNote { name, value } => {
            tables.note()?.insert(name.as_str(), value.0.as_slice())?;
            Ok(())
        }
        Op::Enqueue { id, record, recipients, due } => queue::enqueue(tables, *id, record, recipients, *due),
        Op::SetRecipients { id, states } => queue::set(tables, *id, states),
        Op::OrderQueued { id, order } => queue::obey(tables, *id, *order),
        Op::Dequeue { id } => queue::dequeue(tables, *id),
        Op::ForgetLearned { learner } => learned::forget(tables, *learner),
        Op::Annotate { account, mailbox, entry, value } => {
            annotation::put(tables, (*account, *mailbox), entry, value.as_ref())
        }
        Op::Certify { fingerprint, record } => certificate::put(tables, fingerprint, record.as_ref()),
        Op::Grant { mailbox, identifier, grant } => acl::put(tables, *mailbox, *identifier, *grant),
        Op::Numbers { .. }
        | Op::Mailbox { .. }
        | Op::ListMailbox { .. }
        | Op::Message { .. }
        | Op::Forget { .. }
        | Op::ForgetVanished { .. }
        | Op::Refer { .. }
        | Op::Structure { .. }
        | Op::Hash { .. }
        | Op::List { .. }
        | Op::Requeue { .. }
        | Op::ForgetLearnedPiece { .. }
        | Op::ForgetSheet { .. } => mended::apply(tables, seq, op),
    }
}

/// A mailbox that must be there.
fn existing(tables: &mut Tables<'_>, mailbox: u32) -> Result<MailboxRecord, Trouble> {
    tables.load_mailbox(mailbox)?.ok_or_else(|| Trouble::damaged("change to a mailbox that is not there"))
}

/// Writes a mailbox whose messages changed and notes whom that concerns.
fn change_mailbox(tables: &mut Tables<'_>, seq: u64, id: u32, mut record: MailboxRecord) -> Result<(), Trouble> {
    record.highest_modseq = seq;
    tables.wake(record.account);
    tables.save_mailbox(id, &record)
}

/// Counts messages of a mailbox in and out of its account's usage.
fn use_space(tables: &mut Tables<'_>, mailbox: u32, more: &Tally, less: &Tally) -> Result<(), Trouble> {
    let owner = existing(tables, mailbox)?.account;
    use_space_of(tables, owner, more, less)
}

fn use_space_of(tables: &mut Tables<'_>, owner: u32, more: &Tally, less: &Tally) -> Result<(), Trouble> {
    let mut account =
        tables.load_account(owner)?.ok_or_else(|| Trouble::damaged("mailbox of an account that is not there"))?;
    let used = &mut account.used;
    used.bytes = used.bytes.saturating_add(more.size).saturating_sub(less.size);
    used.messages = used.messages.saturating_add(more.messages.into()).saturating_sub(less.messages.into());
    tables.save_account(owner, &account)
}

fn flag(
    tables: &mut Tables<'_>,
    seq: u64,
    mailbox: u32,
    uids: &UidSet,
    clear: Flags,
    set: Flags,
) -> Result<(), Trouble> {
    let (mut before, mut after) = (Tally::default(), Tally::default());
    let mut from = 0;
    loop {
        let rows = tables.portion(mailbox, uids, from, PORTION)?;
        let Some((last, _)) = rows.last() else { break };
        from = last.saturating_add(1);
        for (uid, mut row) in rows {
            before.add(row.flags, row.size);
            row.flags = changed(row.flags, clear, set);
            row.modseq = seq;
            after.add(row.flags, row.size);
            tables.msg()?.insert((mailbox, uid), row.encode((mailbox, uid))?.as_slice())?;
        }
    }
    let mut record = existing(tables, mailbox)?;
    record.count_out(&before);
    record.count_in(&after);
    record.flags_modseq = seq;
    change_mailbox(tables, seq, mailbox, record)
}

/// What flags become.
pub(super) fn changed(flags: Flags, clear: Flags, set: Flags) -> Flags {
    Flags {
        system: SystemFlags(flags.system.0 & !clear.system.0 | set.system.0),
        keywords: flags.keywords & !clear.keywords | set.keywords,
    }
}

/// COPY and MOVE.
fn transfer(tables: &mut Tables<'_>, seq: u64, op: &Op) -> Result<(), Trouble> {
    let Op::Transfer { from: source, uids, to, first, saved, keywords, remove } = op else { return Ok(()) };
    let (source, to) = (*source, *to);
    let mut tally = Tally::default();
    let (mut from, mut next) = (0, *first);
    loop {
        let rows = tables.portion(source, uids, from, PORTION)?;
        let Some((last, _)) = rows.last() else { break };
        from = last.saturating_add(1);
        for (uid, row) in rows {
            let mut copy = MessageRecord { modseq: seq, saved: *saved, ..row };
            copy.flags.keywords = keywords
                .iter()
                .filter(|(old, _)| row.flags.keywords.checked_shr((*old).into()).unwrap_or(0) & 1 == 1)
                .fold(0, |bits, (_, new)| bits | 1_u64.checked_shl((*new).into()).unwrap_or(0));
            tally.add(copy.flags, copy.size);
            tables.msg()?.insert((to, next), copy.encode((to, next))?.as_slice())?;
            next = next.saturating_add(1);
            if *remove {
                tables.msg()?.remove((source, uid))?;
            } else {
                let record = load::<BlobRecord, _>(tables.blob()?, row.blob)?;
                let mut record = record.ok_or_else(|| Trouble::damaged("message without a body"))?;
                record.refs = record.refs.saturating_add(1);
                tables.blob()?.insert(row.blob, record.encode(row.blob)?.as_slice())?;
            }
        }
    }
    let mut record = existing(tables, to)?;
    record.uid_next = next;
    record.count_in(&tally);
    change_mailbox(tables, seq, to, record)?;
    use_space(tables, to, &tally, &Tally::default())?;
    if *remove {
        let mut record = existing(tables, source)?;
        record.count_out(&tally);
        log_vanished(tables, seq, source, &mut record, uids)?;
        change_mailbox(tables, seq, source, record)?;
        use_space(tables, source, &Tally::default(), &tally)?;
    }
    Ok(())
}

fn remove(tables: &mut Tables<'_>, seq: u64, mailbox: u32, uids: &UidSet) -> Result<(), Trouble> {
    let mut tally = Tally::default();
    let mut from = 0;
    loop {
        let rows = tables.portion(mailbox, uids, from, PORTION)?;
        let Some((last, _)) = rows.last() else { break };
        from = last.saturating_add(1);
        for (uid, row) in rows {
            tally.add(row.flags, row.size);
            tables.msg()?.remove((mailbox, uid))?;
            release(tables, row.blob)?;
        }
    }
    let mut record = existing(tables, mailbox)?;
    record.count_out(&tally);
    log_vanished(tables, seq, mailbox, &mut record, uids)?;
    change_mailbox(tables, seq, mailbox, record)?;
    use_space(tables, mailbox, &Tally::default(), &tally)
}

/// Logs removed uids, and forgets the older half when the log gets too large (RFC 7162 section
/// 3.2.5.2 lets a server forget).
fn log_vanished(
    tables: &mut Tables<'_>,
    seq: u64,
    mailbox: u32,
    record: &mut MailboxRecord,
    uids: &UidSet,
) -> Result<(), Trouble> {
    let removed = VanishRecord(uids.clone()).encode((mailbox, seq))?;
    let keep = if removed.len() > VANISH_RECORD_MAX {
        record.vanish_from = seq;
        0
    } else {
        tables.vanish()?.insert((mailbox, seq), removed.as_slice())?;
        record.vanish_bytes = record.vanish_bytes.saturating_add(vanish_cost(&removed));
        if record.vanish_bytes <= VANISH_BYTES_MAX {
            return Ok(());
        }
        VANISH_BYTES_MAX / 2
    };
    let table = tables.vanish()?;
    while record.vanish_bytes > keep {
        let oldest = table.range((mailbox, 0)..=(mailbox, u64::MAX))?.next().transpose()?;
        let Some((at, cost)) = oldest.map(|(key, value)| (key.value().1, vanish_cost(value.value()))) else {
            record.vanish_bytes = 0;
            break;
        };
        table.remove((mailbox, at))?;
        record.vanish_bytes = record.vanish_bytes.saturating_sub(cost);
        record.vanish_from = record.vanish_from.max(at);
    }
    Ok(())
}

/// What a record of removed uids counts in the log's bound: with its key.
pub(super) fn vanish_cost(record: &[u8]) -> u32 {
    u32::try_from(record.len()).unwrap_or(u32::MAX).saturating_add(16)
}

/// Takes a mailbox's name and counters away at once and leaves its messages to the sweep.
fn drop_mailbox(tables: &mut Tables<'_>, id: u32) -> Result<(), Trouble> {
    let record = existing(tables, id)?;
    let tally = Tally { messages: record.messages, size: record.size, ..Tally::default() };
    use_space_of(tables, record.account, &Tally::default(), &tally)?;
    tables.mboxname()?.remove((record.account, record.name.as_str()))?;
    tables.mbox()?.remove(id)?;
    annotation::forget(tables, record.account, id..=id)?;
    acl::forget_mailbox(tables, id)?;
    tables.leave_to_sweep(SWEEP_MAILBOX, id.into())?;
    tables.wake(record.account);
    Ok(())
}
