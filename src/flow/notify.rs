//! Notifications about what became of a message: whom is told what, with which part of the message, and
//! where the notification goes (RFC 3461 sections 4 to 6, RFC 3464).
//!
//! A notification is kept together with the note that it was sent, so none is sent twice and none is
//! forgotten. It has the null sender and is never answered by another. Of mail that was not submitted
//! here no more than the header comes back unless asked for: its sender may be forged.

use crate::mail::address::Address;
use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::envelope::{BodyType, Envelope, ForwardPath, Notify, Recipient, ReturnContent, ReversePath};
use crate::mail::mailbox::AccountId;
use crate::mail::message::FlagNames;
use crate::mail::queue::{Answer, Delivery, Due, NewQueued, QueueId, Queued, QueuedRecipient, Stage, Submitter};
use crate::mail::structure::Walker;
use crate::queue::report::{Action, Notice, Returned, Told};
use crate::queue::{QueueConfig, outcome, schedule};
use crate::store::{Folder, NewMessage, Parcel, ReadError, Reader, WriteError};

use super::arrive::has_room;
use super::forward::{OUTSIDE_MAX, Reached};
use super::relay::{Content, Exit, RETURN_PATH_MAX, return_path_len};
use super::{forward, post};

/// Most recipients of one notification; the others are told of by the next.
const RECIPIENTS_MAX: usize = 100;

/// Longest header that comes back, in bytes; of a longer one the beginning.
const HEADER_MAX: usize = 32 << 10;

/// Bytes that are copied at a time.
const PIECE: usize = 64 << 10;

/// How long a notification that cannot be kept waits for the next try, in milliseconds.
const AGAIN_MS: u64 = 15 * 60 * 1000;

/// How long a notification is owed that cannot be kept: its sender's mailbox stays full, or he is gone.
const OWED_MAX_SECS: i64 = 5 * 86_400;

/// What is new of a notification.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// Our name for it: letters and digits, never used before.
    pub id: String,
    /// Now.
    pub now: Timestamp,
}

/// A notification to be kept, with what is noted in the same change.
#[derive(Debug)]
pub struct Ready {
    /// The notification; `None` when there is nobody to be told.
    pub message: Option<NewMessage>,
    /// Accounts of ours it goes to.
    pub local: Vec<(AccountId, Folder)>,
    /// Where else it goes.
    pub queued: Option<NewQueued>,
    /// New states of those it tells of.
    pub states: Vec<(u32, Delivery)>,
}

/// Why there is no notification now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotifyError {
    /// The store cannot be read.
    Read(ReadError),
    /// The notification cannot be written.
    Write(WriteError),
}

impl From<ReadError> for NotifyError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<WriteError> for NotifyError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl std::fmt::Display for NotifyError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => error.fmt(out),
            Self::Write(error) => error.fmt(out),
        }
    }
}

/// Where a notification goes: into mailboxes here, to another server, or nowhere.
type Way = (Vec<(AccountId, Folder)>, Option<NewQueued>);

/// What a notification is made of besides who is told of, and the message itself.
struct Source<'a> {
    to: &'a Address,
    arrived: Timestamp,
    envelope_id: Option<&'a str>,
    utf8: bool,
    eight_bit: bool,
    returned: Returned,
    until: Option<Timestamp>,
}

/// The notification that is owed about recipients of a queued message; `None` when none is (any more).
/// May block.
///
/// # Errors
/// See [`NotifyError`].
pub fn owed(exit: &Exit, id: QueueId, fresh: &Fresh) -> Result<Option<Ready>, NotifyError> {
    let reader = exit.store.reader()?;
    let Some(queued) = reader.queued(id)? else { return Ok(None) };
    // Failures first: of one notification the sender should know by its subject what it says.
    let failed = collect(&reader, id, |row| matches!(row.delivery.stage, Stage::Failed(Some(_))))?;
    let (rows, action) = if failed.is_empty() {
        let delivered = collect(&reader, id, |row| matches!(row.delivery.stage, Stage::Delivered(Some(_))))?;
        (delivered, Action::Relayed)
    } else {
        (failed, Action::Failed)
    };
    if rows.is_empty() {
        return Ok(None);
    }
    let settled = |delivery: &Delivery| {
        let stage = if action == Action::Failed { Stage::Failed(None) } else { Stage::Delivered(None) };
        Delivery { stage, ..delivery.clone() }
    };
    let states = rows.iter().map(|row| (row.number, settled(&row.delivery))).collect();
    tell(exit, &reader, &queued, &rows, action, fresh, states).map(Some)
}

/// The warning that a queued message takes long; `None` when nobody is to be warned (any more). May block.
///
/// # Errors
/// See [`NotifyError`].
pub fn delay(exit: &Exit, id: QueueId, fresh: &Fresh) -> Result<Option<Ready>, NotifyError> {
    let reader = exit.store.reader()?;
    let Some(queued) = reader.queued(id)? else { return Ok(None) };
    let late = |row: &QueuedRecipient| {
        matches!(row.delivery.stage, Stage::Waiting(_))
            && !row.delivery.delay_told
            && outcome::wants_delay(row.recipient.notify)
            && schedule::is_late(row.delivery.lapsed_secs, &exit.config)
    };
    let rows = collect(&reader, id, late)?;
    if rows.is_empty() {
        return Ok(None);
    }
    let states = rows.iter().map(|row| (row.number, Delivery { delay_told: true, ..row.delivery.clone() })).collect();
    tell(exit, &reader, &queued, &rows, Action::Delayed, fresh, states).map(Some)
}

/// The notification that a message lies in the mailboxes of `recipients`, for those who were to be told
/// of (RFC 3461 section 4.1, NOTIFY=SUCCESS); `None` when nobody was. It is to be kept in one change with
/// `message`. May block.
///
/// # Errors
/// See [`NotifyError`].
pub fn delivered(
    exit: &Exit,
    envelope: &Envelope,
    recipients: &[Recipient],
    require_tls: bool,
    message: &NewMessage,
    fresh: &Fresh,
) -> Result<Option<Parcel>, NotifyError> {
    let Some(to) = envelope.from.address() else { return Ok(None) };
    let wanted = recipients.iter().filter(|recipient| outcome::wants_success(recipient.notify));
    let told = wanted.filter_map(|recipient| {
        let original = recipient.original.as_deref();
        let address = recipient.path.address()?;
        Some(Told { address, original, action: Action::Delivered, answer: None, tried: Some(fresh.now) })
    });
    let source = Source {
        to,
        arrived: fresh.now,
        envelope_id: envelope.envelope_id.as_deref(),
        utf8: envelope.utf8,
        eight_bit: envelope.body != BodyType::SevenBit,
        returned: Returned::Header,
        until: None,
    };
    at_once(exit, &source, told.take(RECIPIENTS_MAX).collect(), require_tls, message, fresh)
}

/// The notification to a list's owners that mailboxes of members here are full; `None` when none is. It is
/// to be kept in one change with the list's copy. May block.
///
/// # Errors
/// See [`NotifyError`].
pub fn full(exit: &Exit, copy: &post::Ready, require_tls: bool, fresh: &Fresh) -> Result<Option<Parcel>, NotifyError> {
    let Some(to) = copy.from.address() else { return Ok(None) };
    let answer = Answer::new("", "5.2.2 the mailbox is full");
    let told = copy.full.iter().take(RECIPIENTS_MAX).map(|address| Told {
        address,
        original: None,
        action: Action::Failed,
        answer: Some(&answer),
        tried: Some(fresh.now),
    });
    let source = Source {
        to,
        arrived: fresh.now,
        envelope_id: None,
        utf8: false,
        eight_bit: false,
        returned: Returned::Header,
        until: None,
    };
    at_once(exit, &source, told.collect(), require_tls, &copy.message, fresh)
}

/// A notification about a message that is not kept yet, with its header; `None` when there is nobody to be
/// told or of whom to tell. A mailbox without room for it is passed over: the message itself matters more.
fn at_once(
    exit: &Exit,
    source: &Source<'_>,
    told: Vec<Told<'_>>,
    require_tls: bool,
    about: &NewMessage,
    fresh: &Fresh,
) -> Result<Option<Parcel>, NotifyError> {
    if told.is_empty() {
        return Ok(None);
    }
    let mut reader = about.body.reader();
    let mut at = return_path_len(reader.read(0, RETURN_PATH_MAX)?) as u64;
    let header = header(|max| {
        let piece = reader.read(at, max)?.to_vec();
        at += piece.len() as u64;
        Ok(piece)
    })?;
    let (message, eight_bit) = write(exit, source, &header, None, told, fresh)?;
    let (reader, size) = (exit.store.reader()?, message.body.size());
    let (mut local, queued) = address_to(exit, &reader, source.to, (eight_bit, require_tls), fresh)?;
    local.retain(|(id, _)| {
        reader.account(*id).is_ok_and(|account| account.is_some_and(|account| has_room(&account, size)))
    });
    let queued: Vec<_> = queued.into_iter().collect();
    let is_for_somebody = !local.is_empty() || !queued.is_empty();
    Ok(is_for_somebody.then_some(Parcel { message, local, queued, held: false }))
}

/// States that put owed notifications of a message off after keeping one failed, or end them. May block.
///
/// # Errors
/// The store cannot be read.
pub fn put_off(exit: &Exit, id: QueueId, now: Timestamp) -> Result<Vec<(u32, Delivery)>, ReadError> {
    let reader = exit.store.reader()?;
    let is_owed =
        |row: &QueuedRecipient| matches!(row.delivery.stage, Stage::Failed(Some(_)) | Stage::Delivered(Some(_)));
    let rows = collect(&reader, id, is_owed)?;
    let later = Due(Due::from(now).0.saturating_add(AGAIN_MS));
    let states = rows.into_iter().map(|row| {
        let over = row.delivery.tried.is_some_and(|tried| now.0.saturating_sub(tried.0) > OWED_MAX_SECS);
        let owed = Some(later).filter(|_| !over);
        let stage = match row.delivery.stage {
            Stage::Failed(_) => Stage::Failed(owed),
            _ => Stage::Delivered(owed),
        };
        (row.number, Delivery { stage, ..row.delivery })
    });
    Ok(states.collect())
}

/// Recipients of a message that `fits` is true of, so many as one notification tells of.
fn collect(
    reader: &Reader,
    id: QueueId,
    fits: impl Fn(&QueuedRecipient) -> bool,
) -> Result<Vec<QueuedRecipient>, ReadError> {
    let (mut found, mut from) = (Vec::new(), Some(0));
    while let Some(first) = from.filter(|_| found.len() < RECIPIENTS_MAX) {
        let rows = reader.recipients(id, first, RECIPIENTS_MAX)?;
        from = rows.last().and_then(|row| row.number.checked_add(1));
        found.extend(rows.into_iter().filter(&fits));
    }
    found.truncate(RECIPIENTS_MAX);
    Ok(found)
}

fn tell(
    exit: &Exit,
    reader: &Reader,
    queued: &Queued,
    rows: &[QueuedRecipient],
    action: Action,
    fresh: &Fresh,
    states: Vec<(u32, Delivery)>,
) -> Result<Ready, NotifyError> {
    let nobody = Ready { message: None, local: Vec::new(), queued: None, states: states.clone() };
    let Some(to) = queued.from.address() else { return Ok(nobody) };
    let told: Vec<_> = rows
        .iter()
        .filter_map(|row| {
            let address = row.address()?;
            let (original, delivery) = (row.recipient.original.as_deref(), &row.delivery);
            Some(Told { address, original, action, answer: delivery.answer.as_ref(), tried: delivery.tried })
        })
        .collect();
    let returned = returned(queued, action, &exit.config);
    let until = (action == Action::Delayed).then(|| {
        let lapsed = rows.iter().map(|row| row.delivery.lapsed_secs).max().unwrap_or(0);
        Timestamp(fresh.now.0.saturating_add(i64::from(exit.config.give_up_secs.saturating_sub(lapsed))))
    });
    let source = Source {
        to,
        arrived: queued.accepted,
        envelope_id: queued.envelope_id.as_deref(),
        utf8: queued.utf8,
        eight_bit: queued.body != BodyType::SevenBit,
        returned,
        until,
    };
    // What is told of a message is no less confidential than it was itself (RFC 8689 section 5).
    let (local, further) = address_to(exit, reader, to, (false, queued.require_tls), fresh)?;
    if local.is_empty() && further.is_none() {
        tracing::info!(queue = %queued.id, from = %queued.from, "nobody can be told of what became of a message");
        return Ok(nobody);
    }
    let mut content = Content::open(&exit.store, queued.blob)?;
    let header = header(|max| content.next(max))?;
    let whole = (returned == Returned::Whole).then_some(&mut content);
    let (message, eight_bit) = write(exit, &source, &header, whole, told, fresh)?;
    let queued = further.map(|mut further| {
        if eight_bit {
            further.envelope.body = BodyType::EightBitMime;
        }
        further
    });
    Ok(Ready { message: Some(message), local, queued, states })
}

/// How much comes back (RFC 3461 section 4.3): what was asked for, within the bound.
fn returned(queued: &Queued, action: Action, config: &QueueConfig) -> Returned {
    let whole = match queued.ret {
        Some(ReturnContent::Full) => true,
        Some(ReturnContent::Headers) => false,
        // Who wrote it here may have no other copy. Anybody else may not have written it at all.
        None => queued.by.is_ours(),
    };
    // Binary content has no lines, which a message within a message must have.
    let fits = queued.size <= config.return_max_bytes && queued.body != BodyType::BinaryMime;
    if action == Action::Failed && whole && fits { Returned::Whole } else { Returned::Header }
}

/// Where a notification for `to` goes: into mailboxes here, or to another server, which must take bytes beyond
/// ASCII or promise TLS all the way where it needs that.
fn address_to(
    exit: &Exit,
    reader: &Reader,
    to: &Address,
    (eight_bit, require_tls): (bool, bool),
    fresh: &Fresh,
) -> Result<Way, NotifyError> {
    // Of forwarded mail the one is told who wrote it.
    let original = forward::original(exit.srs.as_deref(), to, fresh.now);
    let to = original.as_ref().unwrap_or(to);
    // An alias may lead on, as that of a list's owners does.
    let mut reached = Reached::up_to(OUTSIDE_MAX);
    reached.follow(reader, to, 0)?;
    let Reached { accounts, mut outside, .. } = reached;
    outside.retain(|to| exit.routes.way(to.domain(), &ReversePath::Null, false).is_some());
    let utf8 = outside.iter().any(Address::is_international);
    // Nobody is told what becomes of a notification (RFC 3461 section 6.2).
    let notify = Notify { given: true, ..Notify::default() };
    let recipient = |to| Recipient { path: ForwardPath::Address(to), notify, original: None };
    let recipients: Vec<_> = outside.into_iter().map(recipient).collect();
    let queued = (!recipients.is_empty()).then(|| {
        let body = if eight_bit { BodyType::EightBitMime } else { BodyType::SevenBit };
        let envelope = Envelope { from: ReversePath::Null, recipients, body, utf8, ret: None, envelope_id: None };
        NewQueued { envelope, require_tls, by: Submitter::Server, due: Due::from(fresh.now) }
    });
    Ok((accounts.into_iter().map(|account| (account, Folder::Inbox)).collect(), queued))
}

/// Writes a notification, with the message's `header` or all of it; tells also whether it has bytes beyond ASCII.
fn write(
    exit: &Exit,
    source: &Source<'_>,
    header: &[u8],
    whole: Option<&mut Content>,
    recipients: Vec<Told<'_>>,
    fresh: &Fresh,
) -> Result<(NewMessage, bool), NotifyError> {
    let eight_bit = match source.returned {
        Returned::Header => !header.is_ascii(),
        Returned::Whole => source.eight_bit || !header.is_ascii(),
    };
    let at = ZonedTime::utc(fresh.now);
    let notice = Notice {
        host: &exit.host,
        to: source.to,
        id: &fresh.id,
        at,
        arrived: source.arrived,
        envelope_id: source.envelope_id,
        utf8: source.utf8,
        returned: source.returned,
        eight_bit,
        recipients,
        until: source.until,
    };
    let spelled = notice.spell();
    let mut spool = exit.store.spool()?;
    let mut walker = Walker::new();
    let mut add = |bytes: &[u8]| {
        walker.feed(bytes);
        spool.write(bytes)
    };
    add(spelled.before.as_bytes())?;
    match whole {
        None => add(header)?,
        Some(content) => {
            content.rewind();
            loop {
                let piece = content.next(PIECE)?;
                if piece.is_empty() {
                    break;
                }
                add(&piece)?;
            }
        }
    }
    add(spelled.after.as_bytes())?;
    let (body, structure) = (spool.finish()?, walker.finish());
    let message = NewMessage { body, structure, internal_date: at, flags: FlagNames::default() };
    Ok((message, spelled.eight_bit))
}

/// The header of a message without the empty line behind it, or the beginning of a long one, whole lines.
/// `next` gives the next bytes, at most so many.
fn header(mut next: impl FnMut(usize) -> Result<Vec<u8>, ReadError>) -> Result<Vec<u8>, ReadError> {
    let mut header = Vec::new();
    loop {
        let piece = next(HEADER_MAX)?;
        let seen = header.len();
        header.extend_from_slice(&piece);
        // The empty line may lie across two pieces.
        let from = seen.saturating_sub(3);
        let tail = header.get(from..).unwrap_or_default();
        if let Some(end) = tail.windows(4).position(|four| four == b"\r\n\r\n") {
            header.truncate(from + end + 2);
            return Ok(header);
        }
        if piece.is_empty() {
            return Ok(header);
        }
        if header.len() >= HEADER_MAX {
            header.truncate(HEADER_MAX);
            let end = header.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
            header.truncate(end);
            return Ok(header);
        }
    }
}
