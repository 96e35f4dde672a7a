//! Mail on its way out: what is due which way, one message after the other for a connection, and the
//! bytes that go over it.
//!
//! The store says what is due, the routes say which way it goes; what is being sent right now is in
//! [`Claims`], so that no two connections send the same. Reads go a page at a time: nothing here grows
//! with the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::forward::Onward;
use crate::mail::address::{Address, Domain};
use crate::mail::date::Timestamp;
use crate::mail::envelope::{Envelope, Recipient, ReversePath};
use crate::mail::message::BlobId;
use crate::mail::queue::{Answer, Delivery, Due, QueueId, Queued, QueuedRecipient, Scheduled, Stage, Submitter};
use crate::mail::srs::Srs;
use crate::queue::outcome::{self, Terms, Verdict};
use crate::queue::route::{Routes, Way};
use crate::queue::{QueueConfig, schedule};
use crate::store::{Body, ReadError, Reader, Store};

/// Rows of the schedule read at a time. More than the recipients that are being sent at one time to
/// one destination, so that a page always shows what is not.
const PAGE: usize = 512;

/// Pages looked through for the next message of a way that others' mail may stand before.
const PAGES_MAX: usize = 64;

/// Destinations looked through by one survey, where more is due than a page holds.
const DESTINATIONS_MAX: usize = 4096;

/// Most recipients of one transaction: what every server must take (RFC 5321 section 4.5.3.1.8).
pub const TRANSACTION_MAX: usize = 100;

/// Recipients of a message read at a time.
const RECIPIENTS_PAGE: usize = 256;

/// Longest beginning of a message that is looked through for its Return-Path field.
pub(super) const RETURN_PATH_MAX: usize = 1024;

/// The way out: the store with what decides where its mail goes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The mail.
    pub store: Store,
    /// The ways.
    pub routes: Arc<Routes>,
    /// The settings.
    pub config: Arc<QueueConfig>,
    /// Our own name.
    pub host: Arc<str>,
    /// Rewrites the senders of forwarded mail; without it nothing is forwarded.
    pub srs: Option<Arc<Srs>>,
    claims: Claims,
}

/// Who is being sent to right now.
#[derive(Clone, Debug, Default)]
pub struct Claims(Arc<Mutex<BTreeSet<(QueueId, u32)>>>);

/// Recipients of one message that this connection alone sends to, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    claims: Claims,
    id: QueueId,
    numbers: Vec<u32>,
}

impl Claims {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<(QueueId, u32)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.claims.lock();
        for number in &self.numbers {
            claims.remove(&(self.id, *number));
        }
    }
}

/// What else decides about what is due.
#[derive(Clone, Debug, Default)]
pub struct Situation {
    /// Now.
    pub now: Due,
    /// Ways that are left alone until then.
    pub rests: BTreeMap<Way, Due>,
    /// Other domains' servers are out of reach ([`Routes::way`]).
    pub blocked: bool,
}

/// What is to be done now.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Ways with mail that is due and that nobody sends, what is due longest first, and how much of it
    /// was seen.
    pub wanted: Vec<(Way, usize)>,
    /// Messages with notifications that are owed.
    pub owed: Vec<QueueId>,
    /// Who is due, but goes a way that is left alone.
    pub resting: Vec<(QueueId, u32, Delivery)>,
    /// Who has no way any more.
    pub lost: Vec<(QueueId, u32)>,
    /// When the next is due.
    pub next: Option<Due>,
    /// There is more that is due than was looked at.
    pub more: bool,
}

/// A message for a connection.
#[derive(Debug)]
pub struct Outgoing {
    /// The message.
    pub queued: Queued,
    /// To whom it goes over this connection.
    pub recipients: Vec<QueuedRecipient>,
    /// Its bytes, or why they cannot be read.
    pub content: Result<Content, ReadError>,
    _claim: Claim,
}

impl Exit {
    /// The way out of a store.
    #[must_use]
    pub fn new(store: Store, routes: Arc<Routes>, config: Arc<QueueConfig>, host: Arc<str>) -> Self {
        Self { store, routes, config, host, srs: None, claims: Claims::default() }
    }

    /// Lets mail be forwarded.
    #[must_use]
    pub fn with_srs(mut self, srs: Arc<Srs>) -> Self {
        self.srs = Some(srs);
        self
    }

    /// What forwarding needs.
    pub fn onward(&self, now: Timestamp) -> Onward<'_> {
        Onward { routes: &self.routes, srs: self.srs.as_deref(), now }
    }

    /// Up to when something is due ([`schedule::due_up_to`]).
    fn limit(&self, reader: &Reader, now: Due) -> Result<Due, ReadError> {
        Ok(schedule::due_up_to(now, reader.next_due()?, &self.config))
    }

    /// Looks what is to be done. `cursor` is where the last look among many destinations ended. May block.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn survey(&self, situation: &Situation, cursor: &mut Option<Domain>) -> Result<Survey, ReadError> {
        let reader = self.store.reader()?;
        let limit = self.limit(&reader, situation.now)?;
        let mut look = Look { exit: self, reader: &reader, situation, limit, survey: Survey::default(), last: None };
        let page = reader.due(limit, PAGE)?;
        for scheduled in &page {
            look.at(*scheduled)?;
        }
        if page.len() >= PAGE {
            look.survey.more = true;
            // So much of one destination may be due that the page shows no other one.
            for _ in 0..DESTINATIONS_MAX / PAGE {
                let found = reader.destinations(cursor.as_ref(), PAGE)?;
                *cursor = found.last().filter(|_| found.len() >= PAGE).map(|last| last.domain.clone());
                for destination in found.iter().filter(|destination| destination.first.due <= limit) {
                    look.at(destination.first)?;
                }
                if cursor.is_none() || look.survey.wanted.len() >= PAGE {
                    break;
                }
            }
        }
        look.survey.next = reader.next_due_after(limit)?;
        Ok(look.survey)
    }

    /// The next message for a connection that goes this way and is of somebody who is `wanted`; `None` when nothing
    /// more is due. May block.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn next_mail(
        &self,
        way: &Way,
        situation: &Situation,
        wanted: fn(Submitter) -> bool,
    ) -> Result<Option<Outgoing>, ReadError> {
        let reader = self.store.reader()?;
        let limit = self.limit(&reader, situation.now)?;
        let mut after = None;
        for _ in 0..PAGES_MAX {
            let Some(page) = Self::due(&reader, way, limit, after)? else { break };
            after = page.last().copied();
            let mut looked = BTreeSet::new();
            for scheduled in page {
                if self.claims.lock().contains(&(scheduled.id, scheduled.recipient)) || !looked.insert(scheduled.id) {
                    continue;
                }
                let Some(queued) = reader.queued(scheduled.id)?.filter(|queued| wanted(queued.by)) else { continue };
                let recipients = self.claimed(&reader, way, &queued, limit, situation.blocked)?;
                let Some((claim, recipients)) = recipients else { continue };
                let content = Content::open(&self.store, queued.blob);
                return Ok(Some(Outgoing { queued, recipients, content, _claim: claim }));
            }
        }
        Ok(None)
    }

    /// A page of what is due and may go this way, behind `after`; `None` when there is none. All of a
    /// domain that has its own way stands in one page: what of it is being sent is less than that.
    fn due(
        reader: &Reader,
        way: &Way,
        limit: Due,
        after: Option<Scheduled>,
    ) -> Result<Option<Vec<Scheduled>>, ReadError> {
        let page = match way.domain() {
            Some(_) if after.is_some() => return Ok(None),
            Some(domain) => reader.due_at(domain, limit, PAGE)?,
            None => reader.due_after(after, limit, PAGE)?,
        };
        Ok(Some(page).filter(|page| !page.is_empty()))
    }

    /// Claims the recipients of a message that are due this way.
    fn claimed(
        &self,
        reader: &Reader,
        way: &Way,
        queued: &Queued,
        limit: Due,
        blocked: bool,
    ) -> Result<Option<(Claim, Vec<QueuedRecipient>)>, ReadError> {
        let mut found = Vec::new();
        let mut from = Some(0);
        while let Some(first) = from.filter(|_| found.len() < TRANSACTION_MAX) {
            let rows = reader.recipients(queued.id, first, RECIPIENTS_PAGE)?;
            from = rows.last().and_then(|row| row.number.checked_add(1));
            let goes = |row: &QueuedRecipient| {
                matches!(row.delivery.stage, Stage::Waiting(due) if due <= limit)
                    && self.way_of(row, &queued.from, blocked).as_ref() == Some(way)
            };
            found.extend(rows.into_iter().filter(goes));
        }
        let mut claims = self.claims.lock();
        found.retain(|row| !claims.contains(&(queued.id, row.number)));
        found.truncate(TRANSACTION_MAX);
        if found.is_empty() {
            return Ok(None);
        }
        let numbers: Vec<_> = found.iter().map(|row| row.number).collect();
        claims.extend(numbers.iter().map(|number| (queued.id, *number)));
        drop(claims);
        Ok(Some((Claim { claims: self.claims.clone(), id: queued.id, numbers }, found)))
    }

    fn way_of(&self, row: &QueuedRecipient, from: &ReversePath, blocked: bool) -> Option<Way> {
        self.routes.way(row.address()?.domain(), from, blocked)
    }

    /// New states for everyone who is due this way and is not being sent to, when nothing gets through
    /// that way: one page of them. May block.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn put_off(
        &self,
        way: &Way,
        situation: &Situation,
        verdict: &Verdict,
        terms: &AttemptTerms,
    ) -> Result<Vec<Changed>, ReadError> {
        let reader = self.store.reader()?;
        let limit = self.limit(&reader, situation.now)?;
        let mut changed: Vec<Changed> = Vec::new();
        let mut known: BTreeMap<QueueId, Option<Queued>> = BTreeMap::new();
        for scheduled in Self::due(&reader, way, limit, None)?.unwrap_or_default() {
            if self.claims.lock().contains(&(scheduled.id, scheduled.recipient)) {
                continue;
            }
            let queued = match known.entry(scheduled.id) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(reader.queued(scheduled.id)?),
            };
            let Some(queued) = queued else { continue };
            let rows = reader.recipients(scheduled.id, scheduled.recipient, 1)?;
            let Some(row) = rows.into_iter().find(|row| row.number == scheduled.recipient) else { continue };
            let waits = matches!(row.delivery.stage, Stage::Waiting(_));
            if waits && self.way_of(&row, &queued.from, situation.blocked).as_ref() == Some(way) {
                self.judge(&mut changed, queued, &row, verdict.clone(), terms);
            }
        }
        Ok(changed)
    }

    /// New states for those who have no way any more. May block.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn lose(&self, lost: &[(QueueId, u32)], terms: &AttemptTerms) -> Result<Vec<Changed>, ReadError> {
        let reader = self.store.reader()?;
        let mut changed = Vec::new();
        for (id, number) in lost {
            let Some(queued) = reader.queued(*id)? else { continue };
            let row = reader.recipients(*id, *number, 1)?.into_iter().find(|row| row.number == *number);
            if let Some(row) = row.filter(|row| matches!(row.delivery.stage, Stage::Waiting(_))) {
                let answer = Answer::new("", "4.4.4 this server sends no mail to other servers any more");
                self.judge(&mut changed, &queued, &row, Verdict::Deferred(answer), terms);
            }
        }
        Ok(changed)
    }

    /// Notes in `changed` what an attempt makes of a recipient.
    pub fn judge(
        &self,
        changed: &mut Vec<Changed>,
        queued: &Queued,
        row: &QueuedRecipient,
        verdict: Verdict,
        terms: &AttemptTerms,
    ) {
        let terms = Terms {
            config: &self.config,
            accepted: queued.accepted,
            now: terms.now,
            up_since: terms.up_since,
            // Recipients that failed together are tried together again: they share the attempt.
            chance: terms.chance,
            not_before: terms.not_before,
            has_sender: queued.from.address().is_some(),
        };
        let after = outcome::after(&row.delivery, row.recipient.notify, verdict, &terms);
        if changed.last().is_none_or(|last| last.id != queued.id) {
            changed.push(Changed { id: queued.id, states: Vec::new(), warn: false, owed: false });
        }
        if let Some(last) = changed.last_mut() {
            last.owed |= matches!(after.delivery.stage, Stage::Delivered(Some(_)) | Stage::Failed(Some(_)));
            last.states.push((row.number, after.delivery));
            last.warn |= after.warn;
        }
    }
}

/// What an attempt's moment says about all its recipients.
#[derive(Clone, Copy, Debug)]
pub struct AttemptTerms {
    /// When it ended.
    pub now: Timestamp,
    /// Since when the network has been there.
    pub up_since: Timestamp,
    /// Any number, evenly spread.
    pub chance: u32,
    /// The way is left alone until then.
    pub not_before: Due,
}

/// New states of recipients of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The message.
    pub id: QueueId,
    /// The states by recipient number.
    pub states: Vec<(u32, Delivery)>,
    /// Its sender is to be told that it takes long.
    pub warn: bool,
    /// Notifications are owed now.
    pub owed: bool,
}

/// A survey in progress.
struct Look<'a> {
    exit: &'a Exit,
    reader: &'a Reader,
    situation: &'a Situation,
    limit: Due,
    survey: Survey,
    /// The message looked at last: those of one message often stand together.
    last: Option<Queued>,
}

impl Look<'_> {
    fn at(&mut self, scheduled: Scheduled) -> Result<(), ReadError> {
        if self.exit.claims.lock().contains(&(scheduled.id, scheduled.recipient)) {
            return Ok(());
        }
        let rows = self.reader.recipients(scheduled.id, scheduled.recipient, 1)?;
        let Some(row) = rows.into_iter().find(|row| row.number == scheduled.recipient) else { return Ok(()) };
        match row.delivery.stage {
            Stage::Delivered(_) | Stage::Failed(_) => {
                if !self.survey.owed.contains(&scheduled.id) && self.survey.owed.len() < PAGE {
                    self.survey.owed.push(scheduled.id);
                }
            }
            Stage::Waiting(due) if due <= self.limit => self.waiting(scheduled, row)?,
            Stage::Waiting(_) | Stage::Held => {}
        }
        Ok(())
    }

    fn waiting(&mut self, scheduled: Scheduled, row: QueuedRecipient) -> Result<(), ReadError> {
        if self.last.as_ref().is_none_or(|last| last.id != scheduled.id) {
            self.last = self.reader.queued(scheduled.id)?;
        }
        let Some(queued) = &self.last else { return Ok(()) };
        let Some(way) = self.exit.way_of(&row, &queued.from, self.situation.blocked) else {
            self.survey.lost.push((scheduled.id, scheduled.recipient));
            return Ok(());
        };
        let rests = self.situation.rests.get(&way).copied().filter(|until| *until > self.situation.now);
        if let Some(until) = rests {
            let later = Delivery { stage: Stage::Waiting(until), ..row.delivery };
            self.survey.resting.push((scheduled.id, scheduled.recipient, later));
        } else if let Some((_, count)) = self.survey.wanted.iter_mut().find(|(known, _)| *known == way) {
            *count += 1;
        } else {
            self.survey.wanted.push((way, 1));
        }
        Ok(())
    }
}

impl Outgoing {
    /// The envelope for this connection. What came with SMTPUTF8 needs it further on only where there
    /// is something international in it.
    pub fn envelope(&self) -> Envelope {
        let recipients: Vec<Recipient> = self.recipients.iter().map(|row| row.recipient.clone()).collect();
        let international = recipients.iter().any(|to| to.path.address().is_some_and(Address::is_international));
        Envelope {
            from: self.queued.from.clone(),
            recipients,
            body: self.queued.body,
            utf8: self.queued.utf8 || international,
            ret: self.queued.ret,
            envelope_id: self.queued.envelope_id.clone(),
        }
    }
}

/// A message's bytes as they go out: without the Return-Path field that stands first in what is kept
/// (RFC 5321 section 4.4), behind fields of our own.
#[derive(Debug)]
pub struct Content {
    body: Body,
    /// Bytes that are left away at the beginning.
    start: u64,
    /// Fields before it, with their CRLFs.
    fields: Vec<u8>,
    /// What was given out, of `fields` and the body together.
    at: u64,
}

impl Content {
    /// Opens a message. May block.
    ///
    /// # Errors
    /// The body cannot be read.
    pub fn open(store: &Store, blob: BlobId) -> Result<Self, ReadError> {
        let mut body = store.body(blob)?;
        let start = return_path_len(body.read(0, RETURN_PATH_MAX)?) as u64;
        Ok(Self { body, start, fields: Vec::new(), at: 0 })
    }

    /// The message as it is kept, for who signs it. [`Content::rewind`] comes after that.
    pub fn body_mut(&mut self) -> &mut Body {
        &mut self.body
    }

    /// Puts fields before the message.
    pub fn put_before(&mut self, fields: String) {
        self.fields = fields.into_bytes();
    }

    /// Bytes in all.
    pub fn len(&self) -> u64 {
        self.fields.len() as u64 + self.body.len().saturating_sub(self.start)
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells whether all of them were given out.
    pub fn is_at_end(&self) -> bool {
        self.at >= self.len()
    }

    /// The next bytes, at most `max`; none at the end. May block.
    ///
    /// # Errors
    /// The body cannot be read.
    pub fn next(&mut self, max: usize) -> Result<Vec<u8>, ReadError> {
        let mut piece = Vec::new();
        let fields = self.fields.get(usize::try_from(self.at).unwrap_or(usize::MAX)..).unwrap_or_default();
        piece.extend(fields.iter().take(max));
        if piece.len() < max {
            let offset = (self.at + piece.len() as u64).saturating_sub(self.fields.len() as u64) + self.start;
            piece.extend_from_slice(self.body.read(offset, max - piece.len())?);
        }
        self.at += piece.len() as u64;
        Ok(piece)
    }

    /// Begins again, and gives the memory of the block in hand back.
    pub fn rewind(&mut self) {
        self.at = 0;
        self.body.rest();
    }
}

/// The length of the Return-Path field at the beginning of a message, its continuation lines included.
pub(super) fn return_path_len(beginning: &[u8]) -> usize {
    const NAME: &[u8] = b"return-path:";
    if !beginning.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)) {
        return 0;
    }
    let mut end = 0;
    loop {
        let rest = beginning.get(end..).unwrap_or_default();
        let Some(line) = rest.iter().position(|&byte| byte == b'\n') else { return end };
        end += line + 1;
        if !matches!(beginning.get(end), Some(b' ' | b'\t')) {
            return end;
        }
    }
}

#[cfg(test)]
mod tests;
