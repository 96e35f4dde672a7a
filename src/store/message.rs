//! Plans of what is done to messages: deliver, append, flag, copy, move, remove.
//!
//! A plan reads the tables as the commands before it left them, refuses what can't be done, and
//! decides everything the ops need: uid, body number, time, the exact uids. It changes nothing;
//! [`claim_recent`] alone writes, because losing its mark in a crash harms nobody.

use crate::mail::date::ZonedTime;
use crate::mail::mailbox::{AccountId, MailboxId, ModSeq, Uid, UidValidity};
use crate::mail::message::{FlagMode, FlagNames, Flags, KEYWORDS_MAX, Keyword, Keywords, SystemFlags, UidSet};
use crate::mail::rights::Rights;

use super::blob::{BlobRecord, Spooled};
use super::change::{Op, changed};
use super::error::{Fault, Trouble, WriteError};
use super::mailbox;
use super::record::{AccountRecord, Bytes, MailboxRecord, MessageRecord};
use super::scanned::structure_bytes;
use super::table::{Tables, each_message, load};
use super::{Flagged, Folder, NewMessage, Placed, Quota, Usage};

/// Most bytes of compressed bodies that one command takes through the journal; the writer holds
/// them twice meanwhile. Below that it takes the cheaper way (`writer/hold.rs`).
pub(super) const INLINE_MAX: u64 = 512 << 10;

/// What a plan came to: the caller's answer and what is to be done.
pub(super) type Plan<T> = Result<(T, Vec<Op>), Fault>;

/// Where a message's pieces are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pieces {
    /// They go along with the change.
    Inline,
    /// They will not go along with the change, and are not in the store yet.
    Outside,
    /// Being staged as this body; the next piece's index.
    Partly(u64, u32),
    /// All staged as this body.
    Staged(u64),
}

/// A message on its way in.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) body: Spooled,
    pub(super) pieces: Pieces,
    record: BlobRecord,
    pub(super) size: u32,
    structure: Bytes,
    internal_date: ZonedTime,
    flags: FlagNames,
}

impl Incoming {
    /// Prepares a message, on the caller's thread.
    pub(super) fn new(message: NewMessage) -> Result<Self, WriteError> {
        let NewMessage { body, structure, internal_date, flags } = message;
        let size = u32::try_from(body.size()).map_err(|_| WriteError::Limit("size of a message"))?;
        let structure = structure_bytes(&structure, body.scanned())?;
        let pieces = if body.stored() <= INLINE_MAX { Pieces::Inline } else { Pieces::Outside };
        Ok(Self { record: body.record(), size, structure: Bytes(structure), internal_date, flags, body, pieces })
    }

    /// The op that brings the body, as body `id` with `refs` references.
    fn bring(&self, id: u64, refs: u32) -> Result<Op, WriteError> {
        let record = BlobRecord { refs, ..self.record.clone() };
        let inline = self.pieces == Pieces::Inline;
        let stored = if inline { Some(Bytes(self.body.whole()?)) } else { None };
        Ok(Op::Body { id, record, structure: self.structure.clone(), stored })
    }

    /// The body's number: that under which it is staged, else the next.
    fn number(&self, next: &mut u64) -> u64 {
        if let Pieces::Staged(id) | Pieces::Partly(id, _) = self.pieces {
            return id;
        }
        let id = *next;
        *next += 1;
        id
    }
}

/// Mailboxes and accounts as they will be, while messages are put into them.
pub(super) struct Placing {
    mailboxes: Vec<(u32, MailboxRecord)>,
    accounts: Vec<(u32, AccountRecord)>,
    /// The number of the next body.
    next: u64,
    /// What is to be done so far.
    pub(super) ops: Vec<Op>,
}

impl Placing {
    pub(super) fn new(tables: &Tables<'_>) -> Self {
        Self { mailboxes: Vec::new(), accounts: Vec::new(), next: tables.progress.blob, ops: Vec::new() }
    }

    /// Takes a message for several accounts, and for so many `others` who refer to its body. Tells the
    /// body's number; it is kept when anybody refers to it.
    pub(super) fn take(
        &mut self,
        tables: &mut Tables<'_>,
        message: &Incoming,
        to: &[(AccountId, Folder)],
        others: u32,
    ) -> Result<(u64, Vec<(MailboxId, Uid)>), Fault> {
        let blob = message.number(&mut self.next);
        let refs = u32::try_from(to.len()).ok().and_then(|refs| refs.checked_add(others));
        let refs = refs.ok_or(WriteError::Limit("recipients of a message"))?;
        if refs == 0 {
            return Ok((blob, Vec::new()));
        }
        self.ops.push(message.bring(blob, refs)?);
        let mut placed = Vec::with_capacity(to.len());
        for (account, folder) in to {
            let id = mailbox::folder(tables, account.0, folder)?;
            placed.push((MailboxId(id), self.place(tables, id, blob, message)?));
        }
        Ok((blob, placed))
    }

    fn mailbox(&mut self, tables: &mut Tables<'_>, id: u32) -> Result<&mut MailboxRecord, Fault> {
        if !self.mailboxes.iter().any(|(known, _)| *known == id) {
            self.mailboxes.push((id, tables.load_mailbox(id)?.ok_or(WriteError::NoSuchMailbox)?));
        }
        let found = self.mailboxes.iter_mut().find(|(known, _)| *known == id).map(|(_, record)| record);
        Ok(found.ok_or_else(|| Trouble::damaged("mailbox"))?)
    }

    /// Counts a message against an account's quota.
    fn charge(&mut self, tables: &mut Tables<'_>, id: u32, size: u32) -> Result<(), Fault> {
        if !self.accounts.iter().any(|(known, _)| *known == id) {
            self.accounts.push((id, tables.load_account(id)?.ok_or(WriteError::NoSuchAccount)?));
        }
        if let Some((_, account)) = self.accounts.iter_mut().find(|(known, _)| *known == id) {
            let more = Usage { bytes: size.into(), messages: 1 };
            account.used = within(account.quota, account.used, more).ok_or(WriteError::OverQuota)?;
        }
        Ok(())
    }

    /// Counts a message out that goes in the same change.
    fn discharge(&mut self, tables: &mut Tables<'_>, id: u32, size: u32) -> Result<(), Fault> {
        let mut account = tables.load_account(id)?.ok_or(WriteError::NoSuchAccount)?;
        account.used.bytes = account.used.bytes.saturating_sub(size.into());
        account.used.messages = account.used.messages.saturating_sub(1);
        self.accounts.push((id, account));
        Ok(())
    }

    /// Puts a message into a mailbox.
    fn place(&mut self, tables: &mut Tables<'_>, id: u32, blob: u64, message: &Incoming) -> Result<Uid, Fault> {
        let owner = self.mailbox(tables, id)?.account;
        self.charge(tables, owner, message.size)?;
        let mailbox = self.mailbox(tables, id)?;
        let uid = take_uids(mailbox, 1)?;
        let (keywords, names) = learn(&mut mailbox.keywords, &message.flags.keywords)?;
        if !names.is_empty() {
            self.ops.push(Op::Keywords { mailbox: id, names });
        }
        self.ops.push(Op::Place {
            mailbox: id,
            uid: uid.get(),
            blob,
            size: message.size,
            internal_date: message.internal_date,
            saved: tables.now,
            flags: Flags { system: message.flags.system, keywords },
        });
        Ok(uid)
    }
}

/// What is used with `more`, or `None` when the quota does not allow it.
fn within(quota: Quota, used: Usage, more: Usage) -> Option<Usage> {
    let sum =
        Usage { bytes: used.bytes.saturating_add(more.bytes), messages: used.messages.saturating_add(more.messages) };
    let fits =
        quota.bytes.is_none_or(|bytes| sum.bytes <= bytes) && quota.messages.is_none_or(|most| sum.messages <= most);
    fits.then_some(sum)
}

/// Takes `count` uids of a mailbox and returns the first. The highest number is never given out, so
/// that UIDNEXT can be told.
fn take_uids(mailbox: &mut MailboxRecord, count: u32) -> Result<Uid, Fault> {
    let first = Uid::new(mailbox.uid_next).ok_or_else(|| Trouble::damaged("UIDNEXT"))?;
    mailbox.uid_next = mailbox.uid_next.checked_add(count).ok_or(WriteError::Limit("uids of the mailbox"))?;
    Ok(first)
}

/// The bits of `names`; keywords the mailbox did not know are added to it and returned.
fn learn(known: &mut Keywords, names: &[Keyword]) -> Result<(u64, Vec<Keyword>), WriteError> {
    let (mut bits, mut new) = (0, Vec::new());
    for name in names {
        if known.bit(name).is_none() {
            if known.0.len() >= KEYWORDS_MAX {
                return Err(WriteError::Limit("keywords of the mailbox"));
            }
            known.0.push(name.clone());
            new.push(name.clone());
        }
        bits |= known.bit(name).unwrap_or(0);
    }
    Ok((bits, new))
}

/// One message for several accounts.
pub(super) fn deliver(
    tables: &mut Tables<'_>,
    message: &Incoming,
    to: &[(AccountId, Folder)],
) -> Plan<Vec<(MailboxId, Uid)>> {
    let mut placing = Placing::new(tables);
    let (_, placed) = placing.take(tables, message, to, 0)?;
    Ok((placed, placing.ops))
}

/// Several messages for one mailbox, maybe in the place of another message, whose room they may take.
pub(super) fn append(
    tables: &mut Tables<'_>,
    mailbox: MailboxId,
    messages: &[Incoming],
    replaced: Option<(MailboxId, Uid)>,
) -> Plan<Placed> {
    let mut placing = Placing::new(tables);
    if let Some((from, uid)) = replaced {
        let owner = placing.mailbox(tables, from.0)?.account;
        let gone = WriteError::NotAllowed("the message to be replaced has gone");
        let row: MessageRecord = load(tables.msg()?, (from.0, uid.get()))?.ok_or(gone)?;
        placing.discharge(tables, owner, row.size)?;
    }
    let uid_validity = validity(placing.mailbox(tables, mailbox.0)?)?;
    let mut to = UidSet::new();
    for message in messages {
        let blob = message.number(&mut placing.next);
        placing.ops.push(message.bring(blob, 1)?);
        to.insert(placing.place(tables, mailbox.0, blob, message)?);
    }
    if let Some((from, uid)) = replaced {
        placing.ops.push(Op::Remove { mailbox: from.0, uids: std::iter::once(uid).collect() });
    }
    Ok((Placed { uid_validity, from: UidSet::new(), to }, placing.ops))
}

fn validity(mailbox: &MailboxRecord) -> Result<UidValidity, Trouble> {
    Uid::new(mailbox.uid_validity).map(|number| UidValidity(number.0)).ok_or_else(|| Trouble::damaged("UIDVALIDITY"))
}

/// STORE (RFC 9051 section 6.4.6, RFC 7162 section 3.1.3), of the flags that `rights` are about alone (RFC
/// 4314 section 4).
pub(super) fn flag(
    tables: &mut Tables<'_>,
    mailbox: MailboxId,
    uids: &UidSet,
    (mode, names): (FlagMode, FlagNames),
    unchanged_since: Option<ModSeq>,
    rights: Rights,
) -> Plan<Flagged> {
    let names = rights.permitted(names);
    let mut record = tables.load_mailbox(mailbox.0)?.ok_or(WriteError::NoSuchMailbox)?;
    let (keywords, new) = match mode {
        // A keyword nobody has is on no message.
        FlagMode::Remove => (
            names.keywords.iter().filter_map(|name| record.keywords.bit(name)).fold(0, |bits, bit| bits | bit),
            Vec::new(),
        ),
        FlagMode::Add | FlagMode::Replace => learn(&mut record.keywords, &names.keywords)?,
    };
    let given = Flags { system: names.system, keywords };
    let all = permitted(rights);
    let (clear, set) = match mode {
        FlagMode::Replace => (all, given),
        FlagMode::Add => (Flags::default(), given),
        FlagMode::Remove => (given, Flags::default()),
    };
    let mut flagged = Flagged {
        modseq: ModSeq(record.highest_modseq),
        changed: UidSet::new(),
        modified: UidSet::new(),
        flags_before: ModSeq(record.flags_modseq),
    };
    each_message(tables.msg()?, mailbox.0, uids, &mut |uid, row| {
        let Some(uid) = Uid::new(uid) else { return true };
        if unchanged_since.is_some_and(|since| row.modseq > since.0) {
            flagged.modified.insert(uid);
        } else if changed(row.flags, clear, set) != row.flags {
            flagged.changed.insert(uid);
        }
        true
    })?;
    let mut ops = Vec::new();
    if !flagged.changed.is_empty() {
        flagged.modseq = ModSeq(tables.seq);
        if !new.is_empty() {
            ops.push(Op::Keywords { mailbox: mailbox.0, names: new });
        }
        ops.push(Op::Flag { mailbox: mailbox.0, uids: flagged.changed.clone(), clear, set });
    }
    Ok((flagged, ops))
}

/// Every flag that `rights` are about.
fn permitted(rights: Rights) -> Flags {
    Flags { system: rights.system_flags(), keywords: if rights.has(Rights::WRITE) { u64::MAX } else { 0 } }
}

/// COPY, and with `remove` MOVE (RFC 6851). Flags go along as far as `rights` in the target allow it (RFC
/// 4314 section 4).
pub(super) fn transfer(
    tables: &mut Tables<'_>,
    from: MailboxId,
    uids: &UidSet,
    to: MailboxId,
    (remove, rights): (bool, Rights),
) -> Plan<Placed> {
    let may = permitted(rights);
    let source = tables.load_mailbox(from.0)?.ok_or(WriteError::NoSuchMailbox)?;
    let mut target = tables.load_mailbox(to.0)?.ok_or(WriteError::NoSuchMailbox)?;
    let uid_validity = validity(&target)?;
    let (mut found, mut bits, mut more) = (UidSet::new(), 0, Usage::default());
    each_message(tables.msg()?, from.0, uids, &mut |uid, row| {
        found.extend_last(uid);
        bits |= row.flags.keywords;
        more.bytes += u64::from(row.size);
        more.messages += 1;
        true
    })?;
    let Some(count) = Some(found.count()).filter(|count| *count > 0) else {
        return Ok((Placed { uid_validity, from: UidSet::new(), to: UidSet::new() }, Vec::new()));
    };
    if !(remove && source.account == target.account) {
        let account = tables.load_account(target.account)?.ok_or(WriteError::NoSuchAccount)?;
        within(account.quota, account.used, more).ok_or(WriteError::OverQuota)?;
    }
    let first = take_uids(&mut target, count)?;
    let (keywords, names) = translate(&source.keywords, &mut target.keywords, bits & may.keywords);
    let mut ops = Vec::new();
    if !names.is_empty() {
        ops.push(Op::Keywords { mailbox: to.0, names });
    }
    let placed = Placed { uid_validity, from: found.clone(), to: run(first, count) };
    let (from, to, first) = (from.0, to.0, first.get());
    ops.push(Op::Transfer { from, uids: found, to, first, saved: tables.now, keywords, remove });
    let others = SystemFlags(!may.system.0);
    if others.0 != 0 {
        // In the same change, so nobody ever sees them with these flags.
        let clear = Flags { system: others, keywords: 0 };
        ops.push(Op::Flag { mailbox: to, uids: placed.to.clone(), clear, set: Flags::default() });
    }
    Ok((placed, ops))
}

/// `count` uids from `first` on.
fn run(first: Uid, count: u32) -> UidSet {
    let mut set = UidSet::new();
    if let Some(last) = Uid::new(first.get().saturating_add(count).saturating_sub(1)) {
        set.insert_range(first, last);
    }
    set
}

/// Pairs the positions of the keywords in `bits`. What the target has no room for stays behind: a
/// copy with fewer keywords is better than none (RFC 9051 section 6.4.7 says SHOULD).
fn translate(source: &Keywords, target: &mut Keywords, bits: u64) -> (Vec<(u8, u8)>, Vec<Keyword>) {
    let (mut pairs, mut new) = (Vec::new(), Vec::new());
    for (old, name) in (0_u8..).zip(&source.0).filter(|(old, _)| bits.checked_shr((*old).into()).unwrap_or(0) & 1 == 1)
    {
        let Ok((bit, learned)) = learn(target, std::slice::from_ref(name)) else { continue };
        new.extend(learned);
        pairs.push((old, u8::try_from(bit.trailing_zeros()).unwrap_or(0)));
    }
    (pairs, new)
}

/// Removes what is marked `\Deleted`.
pub(super) fn expunge(tables: &mut Tables<'_>, mailbox: MailboxId, uids: Option<&UidSet>) -> Plan<UidSet> {
    let record = tables.load_mailbox(mailbox.0)?.ok_or(WriteError::NoSuchMailbox)?;
    let mut found = UidSet::new();
    if record.deleted > 0 {
        let everything = run(Uid::MIN, u32::MAX);
        each_message(tables.msg()?, mailbox.0, uids.unwrap_or(&everything), &mut |uid, row| {
            if row.flags.system.contains(SystemFlags::DELETED) {
                found.extend_last(uid);
            }
            true
        })?;
    }
    Ok(removal(mailbox, found))
}

/// Removes messages whatever their flags.
pub(super) fn remove(tables: &mut Tables<'_>, mailbox: MailboxId, uids: &UidSet) -> Plan<UidSet> {
    tables.load_mailbox(mailbox.0)?.ok_or(WriteError::NoSuchMailbox)?;
    let mut found = UidSet::new();
    each_message(tables.msg()?, mailbox.0, uids, &mut |uid, _| {
        found.extend_last(uid);
        true
    })?;
    Ok(removal(mailbox, found))
}

fn removal(mailbox: MailboxId, uids: UidSet) -> (UidSet, Vec<Op>) {
    if uids.is_empty() {
        return (uids, Vec::new());
    }
    let op = Op::Remove { mailbox: mailbox.0, uids: uids.clone() };
    (uids, vec![op])
}

/// Every uid of a mailbox.
pub(super) fn all(tables: &mut Tables<'_>, mailbox: u32) -> Result<UidSet, Trouble> {
    let mut found = UidSet::new();
    each_message(tables.msg()?, mailbox, &run(Uid::MIN, u32::MAX), &mut |uid, _| {
        found.extend_last(uid);
        true
    })?;
    Ok(found)
}

/// Moves the mark of `\Recent` and tells where it was. Written without the journal: after a crash
/// some messages are recent once more.
pub(super) fn claim_recent(tables: &mut Tables<'_>, mailbox: MailboxId) -> Plan<Uid> {
    let mut record = tables.load_mailbox(mailbox.0)?.ok_or(WriteError::NoSuchMailbox)?;
    let from = Uid::new(record.recent_from).ok_or_else(|| Trouble::damaged("first recent uid"))?;
    if record.recent_from != record.uid_next {
        record.recent_from = record.uid_next;
        tables.save_mailbox(mailbox.0, &record)?;
        tables.marked = true;
    }
    Ok((from, Vec::new()))
}

/// A set that grows by ascending numbers.
trait ExtendLast {
    /// Adds a uid above all others; zero is no uid and is passed over.
    fn extend_last(&mut self, uid: u32);
}

impl ExtendLast for UidSet {
    fn extend_last(&mut self, uid: u32) {
        if let Some(uid) = Uid::new(uid) {
            self.insert(uid);
        }
    }
}
