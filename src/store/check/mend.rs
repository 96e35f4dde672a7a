//! What repair does about each finding: plans for the writer, each of them an ordinary change.
//!
//! A plan looks again before it does anything, so repairing twice, or beside sessions that change
//! the same mailbox, does no harm; a crash between two plans leaves the second to the next repair.
//! References are changed by an amount and not set, because the sweep counts them down outside the
//! journal and a replay may meet the body before or after that.

use redb::ReadableTable;
use ring::rand::{SecureRandom, SystemRandom};

use super::finding::{Counter, Damage, Finding, Miscount, Place, Remedy};
use super::mailboxes::{Count, known_keywords};
use super::recover::MAILBOX;
use super::{Checkup, Step};
use crate::mail::address::{Address, Domain};
use crate::mail::date::ZonedTime;
use crate::mail::mailbox::{AccountId, MailboxName, Uid};
use crate::mail::message::{Flags, Keywords, SystemFlags, UidSet};
use crate::mail::secret::ScramVerifier;
use crate::store::account::CATCH_ALL;
use crate::store::blob::{BlobRecord, BodyHash};
use crate::store::change::Op;
use crate::store::error::{Fault, Trouble};
use crate::store::mailbox;
use crate::store::message::Plan;
use crate::store::queue::{QueuedRecord, RecipientRecord};
use crate::store::record::{AccountRecord, AddressRecord, Bytes, MailboxRecord, MessageRecord, Record};
use crate::store::table::{SWEEP_BODY, SWEEP_MAILBOX, SWEEP_STAGED, Tables, load};
use crate::store::{Quota, Usage};

use super::view::{Row, row};

/// A plan that tells what it did.
type Mend = Plan<Option<String>>;

/// Nothing is to be done (any more).
const NOTHING: Mend = Ok((None, Vec::new()));

fn did(what: impl Into<String>, ops: Vec<Op>) -> Mend {
    Ok((Some(what.into()), ops))
}

impl Checkup<'_> {
    /// Sets a finding right, if that can be done; tells how.
    pub(super) fn mend(&mut self, finding: &Finding) -> Step<Option<String>> {
        match (&finding.place, &finding.damage) {
            (Place::Journal, Damage::Ring(_)) => self.mend_ring(),
            (Place::Index, Damage::Miscounted(counts)) => {
                let counts = counts.clone();
                self.plan(move |tables| numbers(tables, &counts))
            }
            (Place::Mailbox { id, .. }, Damage::Vanished) => {
                let id = *id;
                self.plan(move |tables| vanished(tables, id))
            }
            (Place::Mailbox { id, .. }, damage) if *damage != Damage::Disorder => self.count_anew(*id),
            (Place::Message { mailbox, .. }, Damage::UnknownKeywords) => self.count_anew(*mailbox),
            (
                Place::Message { mailbox, uid, .. },
                damage @ (Damage::Unreadable | Damage::NoBody | Damage::Size { .. }),
            ) => {
                let (mailbox, uid, damage) = (*mailbox, *uid, damage.clone());
                self.counted = None;
                self.plan(move |tables| message(tables, mailbox, uid, &damage))
            }
            (Place::Account { id, .. }, _) => {
                let id = *id;
                self.plan(move |tables| account(tables, id))
            }
            (Place::Address(key), _) => {
                let key = key.clone();
                self.plan(move |tables| address(tables, &key))
            }
            (Place::Name { account, name }, damage @ (Damage::LeadsNowhere | Damage::NoAccount)) => {
                let (account, name, listed) = (*account, name.clone(), *damage == Damage::LeadsNowhere);
                self.plan(move |tables| mailbox_name(tables, account, &name, listed))
            }
            (Place::Queued { id, .. }, damage) if damage.remedy() == Remedy::Repair => {
                let id = *id;
                self.plan(move |tables| queued(tables, id))
            }
            (Place::Recipient { id, .. }, _) => {
                let id = *id;
                self.plan(move |tables| queued(tables, id))
            }
            (Place::Learned { learner, piece }, _) => {
                let (learner, piece) = (*learner, *piece);
                self.plan(move |_| did("it was removed", vec![Op::ForgetLearnedPiece { learner, piece }]))
            }
            (Place::Body { id, .. }, Damage::Unreferenced) => self.recover(*id, finding),
            (Place::Body { id, .. }, Damage::Miscounted(counts)) => {
                let (id, counts) = (*id, counts.clone());
                self.plan(move |tables| references(tables, id, &counts))
            }
            (Place::Body { id, .. }, Damage::LoneStructure) => {
                let id = *id;
                self.plan(move |tables| lone_structure(tables, id))
            }
            (Place::Row { table, key }, Damage::Unreadable) if table == "domain" => {
                let name = key.clone();
                self.plan(move |_| did("it was removed", vec![Op::DropDomain { name }]))
            }
            (Place::Row { table, key }, Damage::Listed) if table == "sweep" => {
                let entry = key.trim_matches(['(', ')']).split_once(", ");
                let entry = entry.and_then(|(kind, id)| Some((kind.parse().ok()?, id.parse().ok()?)));
                let Some((kind, id)) = entry else { return Ok(None) };
                self.plan(move |tables| unlist(tables, kind, id))
            }
            _ => Ok(None),
        }
    }

    /// Everything of a mailbox is set right at once, so its next finding needs nothing more.
    fn count_anew(&mut self, id: u32) -> Step<Option<String>> {
        if self.counted == Some(id) {
            return Ok(Some("it was counted anew".to_owned()));
        }
        let mended = self.plan(move |tables| whole_mailbox(tables, id))?;
        self.counted = mended.is_some().then_some(id);
        Ok(mended)
    }

    /// A checkpoint makes the damaged part of the ring superfluous, and the next change writes its
    /// header anew.
    fn mend_ring(&mut self) -> Step<Option<String>> {
        self.store.with_engine(|engine, shared| engine.checkpoint(shared))?;
        let header = self.plan(|_| did("", vec![Op::Numbers { blob: 0, account: 0, mailbox: 0, uid_validity: 0 }]))?;
        let right = self.store.with_engine(|engine, _| Ok(engine.journal.verify().is_ok()))?;
        Ok(header.filter(|_| right).map(|_| "a checkpoint made it superfluous".to_owned()))
    }
}

/// The numbers given out next.
fn numbers(tables: &mut Tables<'_>, counts: &[Miscount]) -> Mend {
    let least = |counter, now: u64| {
        let found = counts.iter().find(|count| count.of == counter).map_or(0, |count| count.found);
        now.max(found)
    };
    let progress = &tables.progress;
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let blob = least(Counter::NextBody, progress.blob);
    let account = narrow(least(Counter::NextAccount, progress.account.into()));
    let mailbox = narrow(least(Counter::NextMailbox, progress.mailbox.into()));
    let uid_validity = narrow(least(Counter::LastUidValidity, progress.uid_validity.into()));
    let now = (progress.blob, progress.account, progress.mailbox, progress.uid_validity);
    if now == (blob, account, mailbox, uid_validity) {
        return NOTHING;
    }
    did("the numbers were raised", vec![Op::Numbers { blob, account, mailbox, uid_validity }])
}

/// The first account, which takes in what is nobody's.
fn first_account(tables: &mut Tables<'_>) -> Result<Option<u32>, Trouble> {
    Ok(tables.account()?.first()?.map(|(key, _)| key.value()))
}

/// Records, counters, name and account of a mailbox.
fn whole_mailbox(tables: &mut Tables<'_>, id: u32) -> Mend {
    if tables.sweep()?.get((SWEEP_MAILBOX, id.into())).map_err(Fault::from)?.is_some() {
        return NOTHING;
    }
    let kept = row(tables.load_mailbox(id))?;
    let count = count(tables, id)?;
    if matches!(kept, Row::Missing) && count.next_uid == 0 {
        return NOTHING;
    }
    let kept = kept.there();
    let mut record = match &kept {
        Some(record) => record.clone(),
        None => lost_mailbox(tables, id)?,
    };
    let mut ops = Vec::new();
    if tables.account()?.get(record.account).map_err(Fault::from)?.is_none() {
        let Some(first) = first_account(tables)? else { return NOTHING };
        record.account = first;
    }
    let listed = tables.mboxname()?.get((record.account, record.name.as_str())).map_err(Fault::from)?;
    let listed = listed.map(|listed| listed.value());
    if listed != Some(id) {
        if let Some(other) = listed
            && let Some(taken) = row(tables.load_mailbox(other))?.there()
            && (taken.account, &taken.name) == (record.account, &record.name)
        {
            record.name = free_name(tables, record.account, id)?;
        }
        let (account, name) = (record.account, record.name.as_str().to_owned());
        ops.push(Op::ListMailbox { account, name, id: Some(id) });
    }
    let unknown = count.keywords & !known_keywords(&record);
    set_counts(&mut record, &count, tables.seq);
    if kept.as_ref() == Some(&record) && ops.is_empty() && unknown == 0 {
        return NOTHING;
    }
    record.highest_modseq = tables.seq;
    let what = match &kept {
        Some(_) => "it was counted anew".to_owned(),
        None => format!("its record was made anew as {}, and clients read it afresh", record.name.as_str()),
    };
    ops.push(Op::Mailbox { id, record });
    if unknown != 0 {
        let uids = with_keywords(tables, id, unknown)?;
        let clear = Flags { system: SystemFlags(0), keywords: unknown };
        ops.push(Op::Flag { mailbox: id, uids, clear, set: Flags::default() });
    }
    did(what, ops)
}

fn count(tables: &mut Tables<'_>, id: u32) -> Result<Count, Trouble> {
    let mut count = Count::default();
    for entry in tables.msg()?.range((id, 0)..=(id, u32::MAX))? {
        let (key, value) = entry?;
        let uid = key.value().1;
        match MessageRecord::decode(key.value(), value.value()) {
            Ok(row) => count.add(uid, &row),
            Err(_) => count.next_uid = uid.saturating_add(1),
        }
    }
    Ok(count)
}

fn set_counts(record: &mut MailboxRecord, count: &Count, seq: u64) {
    let tally = count.tally;
    (record.messages, record.unseen, record.deleted) = (tally.messages, tally.unseen, tally.deleted);
    (record.size, record.deleted_size) = (tally.size, tally.deleted_size);
    record.uid_next = record.uid_next.max(count.next_uid).max(1);
    record.recent_from = record.recent_from.clamp(1, record.uid_next);
    record.uid_validity = record.uid_validity.max(1);
    record.highest_modseq = record.highest_modseq.max(count.highest_modseq).max(record.flags_modseq).min(seq);
}

/// The messages that have one of these keywords.
fn with_keywords(tables: &mut Tables<'_>, id: u32, keywords: u64) -> Result<UidSet, Trouble> {
    let mut uids = UidSet::new();
    for entry in tables.msg()?.range((id, 0)..=(id, u32::MAX))? {
        let (key, value) = entry?;
        let Ok(row) = MessageRecord::decode(key.value(), value.value()) else { continue };
        if row.flags.keywords & keywords != 0
            && let Some(uid) = Uid::new(key.value().1)
        {
            uids.insert(uid);
        }
    }
    Ok(uids)
}

/// A mailbox whose record is lost: under the name that leads to it, else under a new one. Its
/// UIDVALIDITY is new, because nobody knows the old one.
fn lost_mailbox(tables: &mut Tables<'_>, id: u32) -> Result<MailboxRecord, Fault> {
    let mut found = None;
    for entry in tables.mboxname()?.iter()? {
        let (key, listed) = entry?;
        if listed.value() == id {
            let (account, name) = key.value();
            found = MailboxName::new(name).map(|name| (account, name));
            break;
        }
    }
    let (account, name) = match found {
        Some(found) => found,
        None => {
            let account = first_account(tables)?.ok_or_else(|| Trouble::damaged("there is no account"))?;
            (account, free_name(tables, account, id)?)
        }
    };
    let clock = u32::try_from(tables.now.0).unwrap_or(0);
    let seq = tables.seq;
    Ok(MailboxRecord {
        account,
        name,
        special_use: None,
        uid_validity: tables.progress.uid_validity.max(clock).saturating_add(1),
        uid_next: 1,
        highest_modseq: seq,
        flags_modseq: 0,
        messages: 0,
        unseen: 0,
        deleted: 0,
        size: 0,
        deleted_size: 0,
        keywords: Keywords::default(),
        recent_from: 1,
        vanish_from: seq,
        vanish_bytes: 0,
    })
}

/// A name for a mailbox that has none, or one that another has.
fn free_name(tables: &mut Tables<'_>, account: u32, id: u32) -> Result<MailboxName, Trouble> {
    for attempt in 0_u32.. {
        let text = if attempt == 0 { format!("{MAILBOX} {id}") } else { format!("{MAILBOX} {id}-{attempt}") };
        let Some(name) = MailboxName::new(&text) else { break };
        if tables.mboxname()?.get((account, name.as_str()))?.is_none() {
            return Ok(name);
        }
    }
    Err(Trouble::damaged("no name is free"))
}

/// A mailbox's log of removed messages: it begins anew.
fn vanished(tables: &mut Tables<'_>, id: u32) -> Mend {
    if tables.sweep()?.get((SWEEP_MAILBOX, id.into())).map_err(Fault::from)?.is_some() {
        return NOTHING;
    }
    did("the log begins anew", vec![Op::ForgetVanished { mailbox: id }])
}

/// A message whose record or body is lost, or that has a wrong size.
fn message(tables: &mut Tables<'_>, mailbox: u32, uid: u32, damage: &Damage) -> Mend {
    let Some(number) = Uid::new(uid) else { return NOTHING };
    let record = match row::<MessageRecord>(load(tables.msg()?, (mailbox, uid)))? {
        Row::Missing => return NOTHING,
        Row::Damaged => None,
        Row::There(record) => Some(record),
    };
    let mut uids = UidSet::new();
    uids.insert(number);
    let forget = vec![Op::Forget { mailbox, uids }];
    match (record, damage) {
        (None, Damage::Unreadable) => did("it was removed; if its body is whole, it is recovered", forget),
        (Some(record), Damage::NoBody) => match row::<BlobRecord>(load(tables.blob()?, record.blob))? {
            Row::Missing => did("it was removed, nothing was left of it", forget),
            Row::Damaged | Row::There(_) => NOTHING,
        },
        (Some(record), Damage::Size { .. }) => {
            let Some(body) = row::<BlobRecord>(load(tables.blob()?, record.blob))?.there() else { return NOTHING };
            let size = u32::try_from(body.size).unwrap_or(u32::MAX);
            if size == record.size {
                return NOTHING;
            }
            let record = MessageRecord { size, ..record };
            did("its size was set right", vec![Op::Message { mailbox, uid, record }])
        }
        _ => NOTHING,
    }
}

/// An account: what it uses, its address, and its record where that is lost.
fn account(tables: &mut Tables<'_>, id: u32) -> Mend {
    let kept = match row(tables.load_account(id))? {
        Row::Missing => return NOTHING,
        Row::Damaged => None,
        Row::There(record) => Some(record),
    };
    let mut record = match &kept {
        Some(record) => record.clone(),
        None => match lost_account(tables, id)? {
            Some(record) => record,
            None => return NOTHING,
        },
    };
    record.used = Usage::default();
    for entry in tables.mbox()?.iter()? {
        let (key, value) = entry.map_err(Fault::from)?;
        if let Ok(mailbox) = MailboxRecord::decode(key.value(), value.value())
            && mailbox.account == id
        {
            record.used.messages = record.used.messages.saturating_add(mailbox.messages.into());
            record.used.bytes = record.used.bytes.saturating_add(mailbox.size);
        }
    }
    let mut ops = Vec::new();
    let key = record.address.key();
    if !matches!(row(load(tables.address()?, key.as_str()))?, Row::There(AddressRecord::Account(whose)) if whose == id)
    {
        ops.push(Op::PutAddress { key, record: AddressRecord::Account(id) });
    }
    if kept.as_ref() == Some(&record) && ops.is_empty() {
        return NOTHING;
    }
    let what = match &kept {
        Some(_) => "it was counted anew".to_owned(),
        None => {
            format!("its record was made anew; give it a password with `pillarbox account password {}`", record.address)
        }
    };
    ops.push(Op::PutAccount { id, record });
    did(what, ops)
}

/// An account whose record is lost, under the address that leads to it. Nobody can log in before it
/// is given a password.
fn lost_account(tables: &mut Tables<'_>, id: u32) -> Result<Option<AccountRecord>, Fault> {
    let mut address = None;
    for entry in tables.address()?.iter()? {
        let (key, value) = entry?;
        let key = key.value();
        if matches!(AddressRecord::decode(key, value.value()), Ok(AddressRecord::Account(whose)) if whose == id) {
            let (local, domain) = key.rsplit_once('@').unwrap_or((key, ""));
            address = Domain::parse(domain).ok().and_then(|domain| Address::new(local, domain).ok());
            break;
        }
    }
    let Some(address) = address else { return Ok(None) };
    let mut chance = [0; 80];
    SystemRandom::new().fill(&mut chance).map_err(|_| Trouble::damaged("the system's randomness"))?;
    let part = |from: usize| -> [u8; 32] {
        chance.get(from..).and_then(|rest| rest.first_chunk().copied()).unwrap_or_default()
    };
    let salt = chance.first_chunk().copied().unwrap_or_default();
    let verifier = ScramVerifier { salt, iterations: 4096, stored_key: part(16), server_key: part(48) };
    Ok(Some(AccountRecord { address, verifier, quota: Quota::default(), used: Usage::default() }))
}

/// An address: an account's own, an alias, its domain.
fn address(tables: &mut Tables<'_>, key: &str) -> Mend {
    let kept = match row::<AddressRecord>(load(tables.address()?, key))? {
        Row::Missing => return NOTHING,
        Row::Damaged => None,
        Row::There(record) => Some(record),
    };
    let domain = key.rsplit_once('@').map_or(key, |(_, domain)| domain).to_owned();
    let domain_op = match tables.domain()?.get(domain.as_str()).map_err(Fault::from)? {
        None if Domain::parse(&domain).is_ok() => vec![Op::PutDomain { name: domain }],
        _ => Vec::new(),
    };
    let key = key.to_owned();
    let Some(record) = kept else {
        let owner = tables.account()?.iter()?.find_map(|entry| {
            let (id, value) = entry.ok()?;
            let record = AccountRecord::decode(id.value(), value.value()).ok()?;
            (record.address.key() == key).then(|| id.value())
        });
        return match owner {
            Some(id) => {
                did("it leads to its account again", vec![Op::PutAddress { key, record: AddressRecord::Account(id) }])
            }
            None => {
                let what = if key.starts_with(CATCH_ALL) { "catch-all" } else { "alias" };
                did(
                    format!("it was removed, nobody knows where it led; make the {what} again"),
                    vec![Op::DropAddress { key }],
                )
            }
        };
    };
    match record {
        AddressRecord::Account(id) if tables.account()?.get(id).map_err(Fault::from)?.is_none() => {
            did("it was removed", vec![Op::DropAddress { key }])
        }
        AddressRecord::Alias(address, targets) => {
            let mut left = Vec::new();
            for target in &targets {
                if tables.account()?.get(*target).map_err(Fault::from)?.is_some() {
                    left.push(*target);
                }
            }
            if left.is_empty() {
                return did("it was removed, it led to nobody", vec![Op::DropAddress { key }]);
            }
            if left.len() < targets.len() {
                let mut ops = domain_op;
                ops.push(Op::PutAddress { key, record: AddressRecord::Alias(address, left) });
                return did("it leads to those who are there", ops);
            }
            if domain_op.is_empty() { NOTHING } else { did("its domain is local again", domain_op) }
        }
        AddressRecord::Account(_) if domain_op.is_empty() => NOTHING,
        AddressRecord::Account(_) => did("its domain is local again", domain_op),
    }
}

/// A name that leads to no mailbox, or a subscription of nobody's.
fn mailbox_name(tables: &mut Tables<'_>, account: u32, name: &str, listed: bool) -> Mend {
    if listed {
        let id = tables.mboxname()?.get((account, name)).map_err(Fault::from)?.map(|id| id.value());
        let Some(id) = id else { return NOTHING };
        let leads = match row(tables.load_mailbox(id))? {
            Row::There(record) => record.account == account && record.name.as_str() == name,
            Row::Missing => false,
            Row::Damaged => true,
        };
        if leads {
            return NOTHING;
        }
        return did("it was removed", vec![Op::ListMailbox { account, name: name.to_owned(), id: None }]);
    }
    let Some(name) = MailboxName::new(name) else { return NOTHING };
    did("it was removed", vec![Op::Subscribe { account, name, subscribed: false }])
}

/// A body's references: what they differ by is what they are changed by, for what changed since the
/// count changed both.
fn references(tables: &mut Tables<'_>, id: u64, counts: &[Miscount]) -> Mend {
    let Some(count) = counts.iter().find(|count| count.of == Counter::References) else { return NOTHING };
    if row::<BlobRecord>(load(tables.blob()?, id))?.there().is_none() {
        return NOTHING;
    }
    let by = i64::try_from(count.found).unwrap_or(i64::MAX) - i64::try_from(count.kept).unwrap_or(i64::MAX);
    did("they were counted anew", vec![Op::Refer { id, by }, Op::List { kind: SWEEP_BODY, id, listed: false }])
}

/// A structure without a body, when there are no pieces either: it goes with the sweep.
fn lone_structure(tables: &mut Tables<'_>, id: u64) -> Mend {
    let body = tables.blob()?.get(id).map_err(Fault::from)?.is_some();
    let tail = tables.tail()?.get(id).map_err(Fault::from)?.is_some();
    let piece = tables.piece()?.range((id, 0)..=(id, u32::MAX))?.next().is_some();
    let staged = tables.sweep()?.get((SWEEP_STAGED, id)).map_err(Fault::from)?.is_some();
    if body || tail || piece || staged {
        return NOTHING;
    }
    did("it is removed", vec![Op::List { kind: SWEEP_BODY, id, listed: true }])
}

/// An entry of the list of what is to be removed that should not be there.
fn unlist(tables: &mut Tables<'_>, kind: u8, id: u64) -> Mend {
    if tables.sweep()?.get((kind, id)).map_err(Fault::from)?.is_none() {
        return NOTHING;
    }
    let nonsense = match kind {
        SWEEP_BODY => row::<BlobRecord>(load(tables.blob()?, id))?.there().is_some_and(|record| record.refs > 0),
        SWEEP_MAILBOX => match u32::try_from(id) {
            Ok(id) => tables.mbox()?.get(id).map_err(Fault::from)?.is_some(),
            Err(_) => true,
        },
        SWEEP_STAGED => tables.blob()?.get(id).map_err(Fault::from)?.is_some(),
        _ => true,
    };
    if nonsense { did("it is listed no more", vec![Op::List { kind, id, listed: false }]) } else { NOTHING }
}

/// A queued message: what can be read of it stays, its counters and schedule are made anew.
fn queued(tables: &mut Tables<'_>, id: u64) -> Mend {
    let record = row::<QueuedRecord>(load(tables.queue()?, id))?.there();
    let body = match &record {
        Some(record) => tables.blob()?.get(record.blob).map_err(Fault::from)?.is_some(),
        None => false,
    };
    let what = if body {
        "its recipients were counted anew; one whose record was damaged gets nothing".to_owned()
    } else {
        let mut waiting = Vec::new();
        for entry in tables.qrcpt()?.range((id, 0)..=(id, u32::MAX))? {
            let (key, value) = entry.map_err(Fault::from)?;
            if let Ok(row) = RecipientRecord::decode(key.value(), value.value())
                && !row.delivery.stage.is_settled()
            {
                waiting.push(row.recipient.path.to_string());
            }
        }
        let waiting = if waiting.is_empty() { "nobody who is known".to_owned() } else { waiting.join(", ") };
        format!("it was removed; it was for {waiting}")
    };
    did(what, vec![Op::Requeue { id }])
}

/// A body that nobody refers to becomes a message of the mailbox `Recovered`.
pub(super) fn recover(tables: &mut Tables<'_>, id: u64, account: Option<u32>, date: Option<ZonedTime>) -> Mend {
    let listed = tables.sweep()?.get((SWEEP_BODY, id)).map_err(Fault::from)?.is_some();
    let Some(body) = row::<BlobRecord>(load(tables.blob()?, id))?.there().filter(|_| !listed) else { return NOTHING };
    let size = u32::try_from(body.size).map_err(|_| Trouble::damaged("size of a body"))?;
    let account = match account {
        Some(account) => account,
        None => match first_account(tables)? {
            Some(first) => first,
            None => return NOTHING,
        },
    };
    let (target, uid, mut ops) = recovered(tables, account)?;
    ops.push(Op::Refer { id, by: 1 - i64::from(body.refs) });
    ops.push(Op::Place {
        mailbox: target,
        uid,
        blob: id,
        size,
        internal_date: date.unwrap_or(ZonedTime::utc(tables.now)),
        saved: tables.now,
        flags: Flags::default(),
    });
    let owner = row(tables.load_account(account))?.there().map(|record: AccountRecord| record.address.to_string());
    let owner = owner.unwrap_or_else(|| format!("account number {account}"));
    did(format!("it is message {uid} in {MAILBOX} of {owner} now"), ops)
}

/// The mailbox for recovered mail, its next uid, and what makes it.
fn recovered(tables: &mut Tables<'_>, account: u32) -> Result<(u32, u32, Vec<Op>), Fault> {
    let name = MailboxName::new(MAILBOX).ok_or_else(|| Trouble::damaged("mailbox name"))?;
    let known = tables.mboxname()?.get((account, MAILBOX))?.map(|id| id.value());
    let known = match known {
        Some(id) => row(tables.load_mailbox(id))?.there().map(|record: MailboxRecord| (id, record.uid_next)),
        None => {
            let (id, mut ops) = mailbox::create(tables, AccountId(account), &name, None)?;
            ops.push(Op::Subscribe { account, name, subscribed: true });
            return Ok((id.0, 1, ops));
        }
    };
    let (id, uid) = known.ok_or_else(|| Trouble::damaged("mailbox for recovered mail"))?;
    Ok((id, uid.max(1), Vec::new()))
}

/// A body's structure, made anew from it.
pub(super) fn structure(tables: &mut Tables<'_>, id: u64, structure: Vec<u8>) -> Mend {
    if tables.blob()?.get(id).map_err(Fault::from)?.is_none() {
        return NOTHING;
    }
    did("it was made anew from the body", vec![Op::Structure { id, structure: Bytes(structure) }])
}

/// Hashes of bodies that had none.
pub(super) fn hashes(tables: &mut Tables<'_>, hashes: Vec<(u64, BodyHash)>) -> Mend {
    let mut ops = Vec::new();
    for (id, hash) in hashes {
        let record = row::<BlobRecord>(load(tables.blob()?, id))?.there();
        if record.is_some_and(|record| record.hash.is_none()) {
            ops.push(Op::Hash { id, hash });
        }
    }
    did("", ops)
}
