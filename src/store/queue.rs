//! Queued mail: plans, changes and reads. What is due when is decided by who sends it.
//!
//! A message has a row of its own and one for each recipient, so a state changes without a large
//! record being written anew. What is due stands in two tables besides: by time, so that the next
//! is found at once however many wait, and by destination, so that a dead server's mail is stepped
//! over with one look. Nothing of the queue is held in memory.
//!
//! A message's number is that of the change that queued it: such numbers only rise, and opening
//! leaves a gap, so a crash never makes us give one twice. Where one change queues several, as a
//! forwarded message has another sender than the message itself and a list's copy is a message of its
//! own, it uses up as many numbers. The body lives until the last who refers to it has gone. What settles
//! a message's last recipient removes the message too.

use std::collections::BTreeMap;
use std::ops::Bound;

use redb::{ReadableTable, ReadableTableMetadata as _};
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::mail::address::Domain;
use crate::mail::date::Timestamp;
use crate::mail::envelope::{BodyType, Recipient, ReturnContent, ReversePath};
use crate::mail::mailbox::{AccountId, MailboxId, ModSeq, Uid};
use crate::mail::message::BlobId;
use crate::mail::queue::{
    Delivery, Destination, Due, NewQueued, QueueFigures, QueueId, QueueOrder, Queued, QueuedRecipient, Scheduled,
    Submitter,
};

use super::change::Op;
use super::error::{Fault, ReadError, Trouble, WriteError};
use super::message::{Incoming, Placing, Plan};
use super::notify::QUEUE_WATCH;
use super::record::Record;
use super::shelf::release;
use super::table::{QDEST, QRCPT, QSCHED, QUEUE, Tables, load};
use super::writer::Target;
use super::{Folder, NewMessage, Pending, Reader, Store};

/// Most recipients of one queued message; a longer list is submitted in parts.
pub const QUEUED_RECIPIENTS_MAX: usize = 4096;

/// Recipients read at a time by a change to all of a message.
const PORTION: usize = 256;

/// Bytes of the index that a recipient takes up in its three tables, by a cautious estimate.
const RECIPIENT_SPACE: u64 = 512;

/// A queued message, its recipients apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct QueuedRecord {
    pub(super) from: ReversePath,
    pub(super) body: BodyType,
    pub(super) utf8: bool,
    pub(super) ret: Option<ReturnContent>,
    pub(super) envelope_id: Option<String>,
    pub(super) require_tls: bool,
    pub(super) by: Submitter,
    pub(super) blob: u64,
    pub(super) size: u32,
    pub(super) accepted: Timestamp,
    /// Recipients are numbered from 0 to below this.
    pub(super) recipients: u32,
    /// How many of them are not settled; never 0, because then the message goes.
    pub(super) unsettled: u32,
}

/// A recipient of a queued message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecipientRecord {
    pub(super) recipient: Recipient,
    pub(super) delivery: Delivery,
}

impl Record for QueuedRecord {
    const TABLE: &'static str = "queue";
}

impl Record for RecipientRecord {
    const TABLE: &'static str = "qrcpt";
}

impl QueuedRecord {
    /// Bytes of the index beside the body's.
    fn space(&self) -> u64 {
        u64::from(self.recipients) * RECIPIENT_SPACE
    }
}

impl RecipientRecord {
    /// The row of QDEST and, without the domain, of QSCHED; `None` when nothing is due.
    pub(super) fn scheduled(&self) -> Option<(&str, Due)> {
        let domain = self.recipient.path.address().map_or("", |address| address.domain().as_str());
        Some((domain, self.delivery.stage.due()?))
    }
}

/// A message to be kept, with where it goes.
#[derive(Debug)]
pub struct Parcel {
    /// The message.
    pub message: NewMessage,
    /// Into which mailboxes here.
    pub local: Vec<(AccountId, Folder)>,
    /// To others' servers, with these envelopes.
    pub queued: Vec<NewQueued>,
    /// What is queued is held until it is released.
    pub held: bool,
}

/// What a submission asks for.
#[derive(Debug)]
pub(super) struct Submission {
    /// Where each of its messages goes.
    goes: Vec<Going>,
    /// Recipients of another queued message that this one reports about.
    about: Option<(QueueId, Vec<(u32, Delivery)>)>,
}

/// Where a message goes: [`Parcel`] without it.
#[derive(Debug)]
struct Going {
    local: Vec<(AccountId, Folder)>,
    queued: Vec<NewQueued>,
    held: bool,
}

/// What became of a submission, of all its messages together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The local deliveries, in their order.
    pub placed: Vec<(MailboxId, Uid)>,
    /// The queued message, where one was asked for; of several the first.
    pub queued: Option<QueueId>,
    /// All of them.
    pub all_queued: Vec<QueueId>,
}

/// Plans a submission: local deliveries, queueing, and what it settles elsewhere.
pub(super) fn submit(tables: &mut Tables<'_>, messages: &[Incoming], submission: &Submission) -> Plan<Submitted> {
    let Submission { goes, about } = submission;
    let mut placing = Placing::new(tables);
    let (mut placed, mut all_queued) = (Vec::new(), Vec::new());
    let mut id = QueueId(tables.seq);
    for (message, Going { local, queued, held }) in messages.iter().zip(goes) {
        let counts = queued.iter().map(|new| checked(&new.envelope.recipients)).collect::<Result<Vec<_>, _>>()?;
        let references = u32::try_from(counts.len()).map_err(|_| WriteError::Limit("copies of a message"))?;
        let (blob, here) = placing.take(tables, message, local, references)?;
        placed.extend(here);
        for (new, count) in queued.iter().zip(counts) {
            let record = record(new, blob, message.size, tables.now, count);
            let recipients = new.envelope.recipients.clone();
            placing.ops.push(Op::Enqueue { id: id.0, record, recipients, due: new.due });
            if *held {
                placing.ops.push(Op::OrderQueued { id: id.0, order: QueueOrder::Hold });
            }
            all_queued.push(id);
            id.0 = id.0.saturating_add(1);
        }
    }
    // The change is numbered after the last of them.
    tables.seq = all_queued.last().map_or(tables.seq, |last| last.0);
    if let Some((about, states)) = about {
        placing.ops.extend(update(tables, *about, states)?.1);
    }
    Ok((Submitted { placed, queued: all_queued.first().copied(), all_queued }, placing.ops))
}

/// The row of a message that is queued with so many recipients.
pub(super) fn record(new: &NewQueued, blob: u64, size: u32, now: Timestamp, count: u32) -> QueuedRecord {
    let envelope = &new.envelope;
    QueuedRecord {
        from: envelope.from.clone(),
        body: envelope.body,
        utf8: envelope.utf8,
        ret: envelope.ret,
        envelope_id: envelope.envelope_id.clone(),
        require_tls: new.require_tls,
        by: new.by,
        blob,
        size,
        accepted: now,
        recipients: count,
        unsettled: count,
    }
}

/// The number of recipients, if they can be queued.
fn checked(recipients: &[Recipient]) -> Result<u32, WriteError> {
    if recipients.is_empty() || recipients.iter().any(|recipient| recipient.path.address().is_none()) {
        return Err(WriteError::NotAllowed("a queued message needs recipients, each with a domain"));
    }
    let count = Some(recipients.len()).filter(|count| *count <= QUEUED_RECIPIENTS_MAX);
    count.and_then(|count| u32::try_from(count).ok()).ok_or(WriteError::Limit("recipients of a queued message"))
}

fn existing(tables: &mut Tables<'_>, id: QueueId) -> Result<QueuedRecord, Fault> {
    Ok(load(tables.queue()?, id.0)?.ok_or(WriteError::NoSuchQueued)?)
}

/// Plans new states of recipients; answers with how many are then unsettled.
fn update(tables: &mut Tables<'_>, id: QueueId, states: &[(u32, Delivery)]) -> Plan<u32> {
    let mut unsettled = existing(tables, id)?.unsettled;
    // Of two states for one recipient the later counts.
    let states = states.iter().map(|(number, next)| (*number, next)).collect::<BTreeMap<_, _>>();
    let mut changed = Vec::new();
    for (number, next) in states {
        let row: Option<RecipientRecord> = load(tables.qrcpt()?, (id.0, number))?;
        let before = row.ok_or(WriteError::NoSuchQueued)?.delivery;
        if let Some(next) = before.followed_by(next.clone()) {
            unsettled = unsettled.saturating_sub(settles(&before, &next));
            changed.push((number, next));
        }
    }
    let ops = if unsettled == 0 {
        vec![Op::Dequeue { id: id.0 }]
    } else if changed.is_empty() {
        Vec::new()
    } else {
        vec![Op::SetRecipients { id: id.0, states: changed }]
    };
    Ok((unsettled, ops))
}

/// Counts a recipient that is settled now and was not before.
fn settles(before: &Delivery, after: &Delivery) -> u32 {
    (after.stage.is_settled() && !before.stage.is_settled()).into()
}

/// Plans an operator's order; answers with how many recipients it concerns.
fn order(tables: &mut Tables<'_>, id: QueueId, order: QueueOrder) -> Plan<u32> {
    existing(tables, id)?;
    let (mut concerned, mut from) = (0, Some(0));
    while let Some(first) = from {
        let rows = portion(tables, id.0, first)?;
        concerned += rows.iter().filter(|(_, row)| row.delivery.ordered(order).is_some()).count();
        from = rows.last().and_then(|(number, _)| number.checked_add(1));
    }
    let ops = if concerned == 0 { Vec::new() } else { vec![Op::OrderQueued { id: id.0, order }] };
    Ok((u32::try_from(concerned).unwrap_or(u32::MAX), ops))
}

/// Plans the removal of a message.
fn remove(tables: &mut Tables<'_>, id: QueueId) -> Plan<()> {
    existing(tables, id)?;
    Ok(((), vec![Op::Dequeue { id: id.0 }]))
}

/// Recipients of a message from number `from` on.
fn portion(tables: &mut Tables<'_>, id: u64, from: u32) -> Result<Vec<(u32, RecipientRecord)>, Trouble> {
    let rows = tables.qrcpt()?.range((id, from)..=(id, u32::MAX))?.take(PORTION).map(|row| {
        let (key, value) = row?;
        Ok((key.value().1, RecipientRecord::decode(key.value(), value.value())?))
    });
    rows.collect()
}

/// Does [`Op::Enqueue`].
pub(super) fn enqueue(
    tables: &mut Tables<'_>,
    id: u64,
    record: &QueuedRecord,
    recipients: &[Recipient],
    due: Due,
) -> Result<(), Trouble> {
    tables.queue()?.insert(id, record.encode(id)?.as_slice())?;
    for (number, recipient) in (0..).zip(recipients) {
        let row = RecipientRecord { recipient: recipient.clone(), delivery: Delivery::waiting(due) };
        tables.qrcpt()?.insert((id, number), row.encode((id, number))?.as_slice())?;
        schedule(tables, id, number, &row)?;
    }
    tables.progress.kept = tables.progress.kept.saturating_add(record.space());
    tables.wake(QUEUE_WATCH);
    Ok(())
}

/// Does [`Op::SetRecipients`].
pub(super) fn set(tables: &mut Tables<'_>, id: u64, states: &[(u32, Delivery)]) -> Result<(), Trouble> {
    let mut settled = 0;
    for (number, next) in states {
        let row = load(tables.qrcpt()?, (id, *number))?;
        let row = row.ok_or_else(|| Trouble::damaged("change to a recipient that is not there"))?;
        settled += change(tables, id, *number, row, next.clone())?;
    }
    if settled > 0 {
        let record: Option<QueuedRecord> = load(tables.queue()?, id)?;
        let mut record = record.ok_or_else(|| Trouble::damaged("change to a queued message that is not there"))?;
        record.unsettled = record.unsettled.saturating_sub(settled);
        tables.queue()?.insert(id, record.encode(id)?.as_slice())?;
    }
    tables.wake(QUEUE_WATCH);
    Ok(())
}

/// Does [`Op::OrderQueued`].
pub(super) fn obey(tables: &mut Tables<'_>, id: u64, order: QueueOrder) -> Result<(), Trouble> {
    let mut from = Some(0);
    while let Some(first) = from {
        let rows = portion(tables, id, first)?;
        from = rows.last().and_then(|(number, _)| number.checked_add(1));
        for (number, row) in rows {
            if let Some(next) = row.delivery.ordered(order) {
                change(tables, id, number, row, next)?;
            }
        }
    }
    tables.wake(QUEUE_WATCH);
    Ok(())
}

/// Does [`Op::Dequeue`].
pub(super) fn dequeue(tables: &mut Tables<'_>, id: u64) -> Result<(), Trouble> {
    let mut from = Some(0);
    while let Some(first) = from {
        let rows = portion(tables, id, first)?;
        from = rows.last().and_then(|(number, _)| number.checked_add(1));
        for (number, row) in rows {
            unschedule(tables, id, number, &row)?;
            tables.qrcpt()?.remove((id, number))?;
        }
    }
    let record = tables.queue()?.remove(id)?.map(|value| QueuedRecord::decode(id, value.value())).transpose()?;
    let record = record.ok_or_else(|| Trouble::damaged("removal of a queued message that is not there"))?;
    tables.progress.kept = tables.progress.kept.saturating_sub(record.space());
    tables.wake(QUEUE_WATCH);
    release(tables, record.blob)
}

/// Writes a recipient's new state; counts it when that settles it.
fn change(
    tables: &mut Tables<'_>,
    id: u64,
    number: u32,
    mut row: RecipientRecord,
    next: Delivery,
) -> Result<u32, Trouble> {
    unschedule(tables, id, number, &row)?;
    let settled = settles(&row.delivery, &next);
    row.delivery = next;
    schedule(tables, id, number, &row)?;
    tables.qrcpt()?.insert((id, number), row.encode((id, number))?.as_slice())?;
    Ok(settled)
}

fn schedule(tables: &mut Tables<'_>, id: u64, number: u32, row: &RecipientRecord) -> Result<(), Trouble> {
    if let Some((domain, Due(due))) = row.scheduled() {
        tables.qsched()?.insert((due, id, number), ())?;
        tables.qdest()?.insert((domain, due, id, number), ())?;
    }
    Ok(())
}

fn unschedule(tables: &mut Tables<'_>, id: u64, number: u32, row: &RecipientRecord) -> Result<(), Trouble> {
    if let Some((domain, Due(due))) = row.scheduled() {
        tables.qsched()?.remove((due, id, number))?;
        tables.qdest()?.remove((domain, due, id, number))?;
    }
    Ok(())
}

impl Store {
    /// Keeps one message for accounts and for others' servers, all or none. The body is kept once, also
    /// where it is queued with several envelopes.
    /// The queue counts against no quota; room on the disk it needs as a delivery does.
    ///
    /// Measured with the default cache, checkpoints included: 4 KB of text to one recipient elsewhere
    /// write 4.1 KB of journal with one sync and 4.3 KB of index (8.2 and 6.3 KB where the body does
    /// not compress), an attempt that is put off 4.1 and 3.2 KB, the message's end 4.1 and 4.0 KB.
    pub fn submit(
        &self,
        message: NewMessage,
        local: Vec<(AccountId, Folder)>,
        queued: impl IntoIterator<Item = NewQueued>,
    ) -> Pending<Submitted> {
        self.submit_all(vec![Parcel { message, local, queued: queued.into_iter().collect(), held: false }])
    }

    /// [`Store::submit`] of several messages in one change: all of them for all they go to, or nothing of any.
    /// One that goes nowhere is left out.
    pub fn submit_all(&self, parcels: Vec<Parcel>) -> Pending<Submitted> {
        self.send(parcels, None)
    }

    /// [`Store::submit`] of a notification, which notes the new states of the recipients that it is
    /// about in the same change: so none is sent twice and none is forgotten.
    pub fn report(
        &self,
        message: NewMessage,
        local: Vec<(AccountId, Folder)>,
        queued: Option<NewQueued>,
        about: QueueId,
        states: Vec<(u32, Delivery)>,
    ) -> Pending<Submitted> {
        let queued = queued.into_iter().collect();
        self.send(vec![Parcel { message, local, queued, held: false }], Some((about, states)))
    }

    fn send(&self, mut parcels: Vec<Parcel>, about: Option<(QueueId, Vec<(u32, Delivery)>)>) -> Pending<Submitted> {
        parcels.retain(|parcel| !parcel.local.is_empty() || !parcel.queued.is_empty());
        let apart = |Parcel { message, local, queued, held }| (message, Going { local, queued, held });
        let (messages, goes) = parcels.into_iter().map(apart).unzip();
        let (sender, receiver) = oneshot::channel();
        self.keep(messages, Target::Submit(Box::new(Submission { goes, about }), sender));
        Pending(receiver)
    }

    /// Notes how attempts ended, by recipient number, and answers with how many recipients are
    /// unsettled. At none, the message has gone. See [`Delivery::followed_by`] for what stays.
    pub fn update_queued(&self, id: QueueId, states: Vec<(u32, Delivery)>) -> Pending<u32> {
        self.plan(move |tables| update(tables, id, &states))
    }

    /// Holds, releases or retries; answers with how many recipients that concerned.
    pub fn order_queued(&self, id: QueueId, what: QueueOrder) -> Pending<u32> {
        self.plan(move |tables| order(tables, id, what))
    }

    /// Removes a queued message; nobody is told.
    pub fn remove_queued(&self, id: QueueId) -> Pending<()> {
        self.plan(move |tables| remove(tables, id))
    }

    /// Wakes when anything in the queue changed, so that whoever sends need not look again and
    /// again: he sleeps until this or [`Reader::next_due`].
    pub fn watch_queue(&self) -> watch::Receiver<ModSeq> {
        self.watch(AccountId(QUEUE_WATCH))
    }
}

impl Reader {
    /// One queued message.
    pub fn queued(&self, id: QueueId) -> Result<Option<Queued>, ReadError> {
        let read = || Ok(load(&self.table(QUEUE)?, id.0)?.map(|record| told_queued(id.0, record)));
        self.told(read())
    }

    /// How much waits. Costs a few looks, however much that is.
    pub fn queue_figures(&self) -> Result<QueueFigures, ReadError> {
        let read = || {
            let (queue, schedule) = (self.table(QUEUE)?, self.table(QSCHED)?);
            let oldest = match queue.first()? {
                Some((key, value)) => Some(QueuedRecord::decode(key.value(), value.value())?.accepted.0),
                None => None,
            };
            let next = schedule.first()?.and_then(|(key, _)| i64::try_from(key.value().0 / 1000).ok());
            Ok(QueueFigures { messages: queue.len()?, scheduled: schedule.len()?, oldest, next })
        };
        self.told(read())
    }

    /// Up to `max` queued messages after `after`, the oldest first.
    pub fn queued_list(&self, after: Option<QueueId>, max: usize) -> Result<Vec<Queued>, ReadError> {
        let read = || {
            let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.0));
            let rows = self.table(QUEUE)?.range::<u64>((from, Bound::Unbounded))?.take(max).map(|row| {
                let (key, value) = row?;
                Ok(told_queued(key.value(), QueuedRecord::decode(key.value(), value.value())?))
            });
            rows.collect()
        };
        self.told(read())
    }

    /// Up to `max` recipients of a queued message from number `from` on.
    pub fn recipients(&self, id: QueueId, from: u32, max: usize) -> Result<Vec<QueuedRecipient>, ReadError> {
        let read = || {
            let rows = self.table(QRCPT)?.range((id.0, from)..=(id.0, u32::MAX))?.take(max).map(|row| {
                let (key, value) = row?;
                let RecipientRecord { recipient, delivery } = RecipientRecord::decode(key.value(), value.value())?;
                Ok(QueuedRecipient { number: key.value().1, recipient, delivery })
            });
            rows.collect()
        };
        self.told(read())
    }

    /// When the next recipient is due, wherever it is.
    pub fn next_due(&self) -> Result<Option<Due>, ReadError> {
        let read = || Ok(self.table(QSCHED)?.first()?.map(|(key, _)| Due(key.value().0)));
        self.told(read())
    }

    /// When the next recipient after `after` is due: of what is due by then some may be under way.
    pub fn next_due_after(&self, after: Due) -> Result<Option<Due>, ReadError> {
        let read = || {
            let rest =
                self.table(QSCHED)?.range((Bound::Excluded((after.0, u64::MAX, u32::MAX)), Bound::Unbounded))?.next();
            Ok(rest.transpose()?.map(|(key, _)| Due(key.value().0)))
        };
        self.told(read())
    }

    /// Up to `max` recipients that are due at `up_to`, the longest due first.
    pub fn due(&self, up_to: Due, max: usize) -> Result<Vec<Scheduled>, ReadError> {
        self.due_after(None, up_to, max)
    }

    /// [`Reader::due`], those behind `after`.
    pub fn due_after(&self, after: Option<Scheduled>, up_to: Due, max: usize) -> Result<Vec<Scheduled>, ReadError> {
        let read = || {
            let from = after.map(|last| (last.due.0, last.id.0, last.recipient));
            let to = (up_to.0, u64::MAX, u32::MAX);
            if from.is_some_and(|from| from >= to) {
                return Ok(Vec::new());
            }
            let from = from.map_or(Bound::Unbounded, Bound::Excluded);
            let rows = self.table(QSCHED)?.range((from, Bound::Included(to)))?.take(max);
            rows.map(|row| Ok(told_scheduled(row?.0.value()))).collect()
        };
        self.told(read())
    }

    /// [`Reader::due`], of one destination. Who is being tried stays in it until his state changes.
    pub fn due_at(&self, domain: &Domain, up_to: Due, max: usize) -> Result<Vec<Scheduled>, ReadError> {
        let read = || {
            let name = domain.as_str();
            let rows = self.table(QDEST)?.range((name, 0, 0, 0)..=(name, up_to.0, u64::MAX, u32::MAX))?.take(max);
            rows.map(|row| {
                let row = row?;
                let (_, due, id, number) = row.0.value();
                Ok(told_scheduled((due, id, number)))
            })
            .collect()
        };
        self.told(read())
    }

    /// Up to `max` destinations after `after` by name, each with what comes first there. One look
    /// for each, however much waits for it.
    pub fn destinations(&self, after: Option<&Domain>, max: usize) -> Result<Vec<Destination>, ReadError> {
        self.told(self.list_destinations(after, max))
    }

    fn list_destinations(&self, after: Option<&Domain>, max: usize) -> Result<Vec<Destination>, Trouble> {
        let table = self.table(QDEST)?;
        let mut found: Vec<Destination> = Vec::new();
        while found.len() < max {
            let before = found.last().map(|last| &last.domain).or(after);
            let end = |domain: &Domain| (domain.as_str().to_owned(), u64::MAX, u64::MAX, u32::MAX);
            let end = before.map(end);
            let from = end.as_ref().map(|(name, due, id, number)| (name.as_str(), *due, *id, *number));
            let from = from.map_or(Bound::Unbounded, Bound::Excluded);
            let Some(row) = table.range::<(&str, u64, u64, u32)>((from, Bound::Unbounded))?.next() else { break };
            let row = row?;
            let (name, due, id, number) = row.0.value();
            let domain = Domain::parse(name).map_err(|_| Trouble::damaged("destination"))?;
            found.push(Destination { domain, first: told_scheduled((due, id, number)) });
        }
        Ok(found)
    }
}

fn told_scheduled((due, id, recipient): (u64, u64, u32)) -> Scheduled {
    Scheduled { due: Due(due), id: QueueId(id), recipient }
}

fn told_queued(id: u64, record: QueuedRecord) -> Queued {
    Queued {
        id: QueueId(id),
        from: record.from,
        body: record.body,
        utf8: record.utf8,
        ret: record.ret,
        envelope_id: record.envelope_id,
        require_tls: record.require_tls,
        by: record.by,
        blob: BlobId(record.blob),
        size: record.size,
        accepted: record.accepted,
        recipients: record.recipients,
        unsettled: record.unsettled,
    }
}
