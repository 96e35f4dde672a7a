//! A ruined store as the source of an export: what was proven whole stands in INBOX, what seems to have all
//! its pieces, with nothing left that proves it, in a mailbox of its own.
//!
//! Names of mailboxes, flags and owners are in tables that salvage does not read, so all mail of all
//! accounts comes out together; each message still says to whom it was delivered.

use std::ops::Range;

use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::mailbox::{AccountId, Mailbox, MailboxId, MailboxName, ModSeq, Uid, UidValidity};
use crate::mail::message::{BlobId, Flags, Keywords, Message};
use crate::mail::rights::Rights;
use crate::mail::structure::{Field, Walker};
use crate::store::ReadError;
use crate::store::salvage::Ruin;

use super::keep::{Content, Giver};
use super::{CHUNK, CarryError};

/// The mailbox of what is proven.
const PROVEN: MailboxId = MailboxId(0);

/// The name of the mailbox of what nothing proves.
const UNPROVEN: &str = "Unproven";

/// A ruined store to be exported.
#[derive(Debug)]
pub struct Salvaged<'r> {
    ruin: &'r Ruin,
    /// Makes a later run into the same folder refuse, instead of going on where this one ended.
    uid_validity: UidValidity,
}

impl<'r> Salvaged<'r> {
    /// Gives what was found in `ruin`. `now` tells this run from others.
    pub fn new(ruin: &'r Ruin, now: Timestamp) -> Self {
        let number = u32::try_from(now.0).ok().and_then(Uid::new).unwrap_or(Uid::MIN);
        Self { ruin, uid_validity: UidValidity(number.0) }
    }

    /// The numbers of a mailbox's messages.
    fn numbers(&self, id: MailboxId) -> Range<usize> {
        let (proven, unproven) = self.ruin.count();
        if id == PROVEN { 0..proven } else { proven..proven + unproven }
    }

    fn mailbox(&self, id: MailboxId, name: MailboxName) -> Mailbox {
        let numbers = self.numbers(id);
        let messages = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        let size = numbers.filter_map(|number| self.ruin.message(number)).map(|(size, _)| size).sum();
        Mailbox {
            id,
            account: AccountId(0),
            name,
            special_use: None,
            subscribed: true,
            uid_validity: self.uid_validity,
            uid_next: Uid::new(messages.saturating_add(1)).unwrap_or(Uid::MAX),
            highest_modseq: ModSeq(1),
            flags_modseq: ModSeq(0),
            messages,
            unseen: messages,
            deleted: 0,
            size,
            deleted_size: 0,
            keywords: Keywords::default(),
            recent_from: Uid::MIN,
            rights: Rights::ALL,
        }
    }

    /// When a message came: the journal's word, else its own.
    fn date(&self, number: usize, told: Option<ZonedTime>) -> ZonedTime {
        let of_message = || {
            let mut body = self.ruin.body(number).ok()?;
            let mut walker = Walker::new();
            walker.feed(body.read(0, CHUNK).ok()?);
            ZonedTime::parse_rfc5322(walker.finish().field(Field::Date)?)
        };
        told.or_else(of_message).unwrap_or(ZonedTime::utc(Timestamp(0)))
    }
}

impl Giver for Salvaged<'_> {
    fn mailboxes(&mut self) -> Result<Vec<Mailbox>, CarryError> {
        let unproven = MailboxName::new(UNPROVEN).filter(|_| self.ruin.count().1 > 0);
        let both = [(PROVEN, Some(MailboxName::inbox())), (MailboxId(PROVEN.0 + 1), unproven)];
        Ok(both.into_iter().filter_map(|(id, name)| Some(self.mailbox(id, name?))).collect())
    }

    fn messages(&mut self, mailbox: MailboxId, first: Uid, max: usize) -> Result<Vec<Message>, CarryError> {
        let skip = usize::try_from(first.get()).unwrap_or(usize::MAX) - 1;
        let numbers = (1..).zip(self.numbers(mailbox)).skip(skip).take(max);
        let messages = numbers.filter_map(|(uid, number)| {
            let (uid, (size, told)) = (Uid::new(uid)?, self.ruin.message(number)?);
            let internal_date = self.date(number, told);
            Some(Message {
                uid,
                flags: Flags::default(),
                modseq: ModSeq(1),
                internal_date,
                saved: internal_date.at,
                size: u32::try_from(size).unwrap_or(u32::MAX),
                blob: BlobId(number as u64),
            })
        });
        Ok(messages.collect())
    }

    fn body(&mut self, blob: BlobId) -> Result<Box<dyn Content + '_>, ReadError> {
        let number = usize::try_from(blob.0).unwrap_or(usize::MAX);
        Ok(Box::new(self.ruin.body(number)?))
    }
}
