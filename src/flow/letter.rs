//! A message on its way in: its bytes go through the header reader into the spool and past the part
//! walker, a piece at a time, so that a letter of any size needs the same memory.

use super::heading::{Additions, Foreign, Heading};
use crate::filter::spam::WINDOW_MAX;
use crate::mail::date::ZonedTime;
use crate::mail::envelope::{Client, Envelope};
use crate::mail::message::FlagNames;
use crate::mail::structure::Walker;
use crate::mail::trace::{self, Stamp};
use crate::protocol::smtp::Reply;
use crate::store::{NewMessage, Spool, WriteError};

/// Most Received fields of a message; one with more goes in a circle (RFC 5321 section 6.3).
pub const RECEIVED_MAX: u32 = 100;

/// What a letter is begun with besides its spool.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Who sends it.
    pub client: &'a Client,
    /// From whom, for whom.
    pub envelope: &'a Envelope,
    /// Our own name.
    pub host: &'a str,
    /// Our name for the letter, never used before: letters and digits.
    pub id: &'a str,
    /// Now.
    pub at: ZonedTime,
    /// Add Date and Message-ID where they are missing (RFC 6409 section 8).
    pub complete: bool,
    /// It waits with its beginning until [`Letter::judged`] is called.
    pub judged: bool,
}

/// A message on its way in.
#[derive(Debug)]
pub struct Letter {
    spool: Spool,
    walker: Walker,
    heading: Heading,
    at: ZonedTime,
    /// The beginning, as long as it waits to be judged.
    head: Option<Head>,
}

/// The beginning of a letter that waits.
#[derive(Debug)]
struct Head {
    bytes: Vec<u8>,
    /// Bytes of our trace fields; the judge's fields come behind them.
    trace: usize,
}

/// Why a letter is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LetterError {
    /// It has gone in a circle: more than [`RECEIVED_MAX`] Received fields.
    Loop,
    /// The spool failed.
    Spool(WriteError),
    /// The scan found something, or cannot be done now.
    Scanned(Reply),
}

impl LetterError {
    /// What the peer is told.
    pub fn reply(&self) -> Reply {
        match self {
            Self::Loop => Reply::new(554, "5.4.6", "too many hops: this message goes in a circle"),
            Self::Spool(error) => reply_to(error),
            Self::Scanned(reply) => reply.clone(),
        }
    }
}

/// What a peer is told of a write that was not done: 4yz asks it to try again (RFC 5321
/// section 4.2.1).
pub fn reply_to(error: &WriteError) -> Reply {
    match error {
        WriteError::OverQuota => Reply::new(452, "4.2.2", "mailbox is full"),
        WriteError::DiskFull => Reply::new(452, "4.3.1", "the disk is full: try again later"),
        WriteError::Limit(_) => Reply::new(452, "4.2.2", "mailbox holds as much as it can"),
        // An account or mailbox that went away since RCPT: the next try is told at RCPT.
        WriteError::NoSuchAccount
        | WriteError::NoSuchMailbox
        | WriteError::NoSuchQueued
        | WriteError::Exists
        | WriteError::NotAllowed(_)
        | WriteError::Storage(_)
        | WriteError::Closed => Reply::new(451, "4.3.0", "cannot keep it now: try again later"),
    }
}

impl Letter {
    /// Begins a letter with its trace fields.
    ///
    /// # Errors
    /// As [`Spool::write`].
    pub fn begin(spool: Spool, start: &Start<'_>) -> Result<Self, LetterError> {
        let Start { client, envelope, host, id, at, complete, judged } = *start;
        let additions = if complete {
            Additions { message_id: Some(trace::message_id(id, host)), date: Some(trace::date(at)) }
        } else {
            Additions::default()
        };
        let mut trace = trace::return_path(&envelope.from);
        trace.push_str(&trace::received(&Stamp { client, by: host, id, envelope, at }));
        let head = judged.then(|| Head { trace: trace.len(), bytes: Vec::new() });
        let heading = Heading::new(additions, if judged { Foreign::DropSpam } else { Foreign::Keep });
        let mut letter = Self { spool, walker: Walker::new(), heading, at, head };
        letter.keep(trace.as_bytes())?;
        Ok(letter)
    }

    /// Adds content. May block once [`Letter::is_on_disk`].
    ///
    /// # Errors
    /// As [`Spool::write`].
    pub fn write(&mut self, content: &[u8]) -> Result<(), LetterError> {
        if self.heading.is_over() {
            return self.keep(content);
        }
        let mut kept = Vec::with_capacity(content.len() + 256);
        self.heading.pass(content, &mut kept);
        self.keep(&kept)
    }

    /// The beginning of a letter that waits to be judged and has come far enough for that.
    #[must_use]
    pub fn head(&self) -> Option<&[u8]> {
        let head = self.head.as_ref()?;
        (head.bytes.len() >= WINDOW_MAX).then_some(head.bytes.as_slice())
    }

    /// Tells whether it waits to be judged.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.head.is_some()
    }

    /// Ends the content: a letter that waits has come far enough now.
    ///
    /// # Errors
    /// As [`Spool::write`].
    pub fn end(&mut self) -> Result<Option<&[u8]>, LetterError> {
        let mut rest = Vec::new();
        self.heading.finish(&mut rest);
        self.keep(&rest)?;
        Ok(self.head.as_ref().map(|head| head.bytes.as_slice()))
    }

    /// Writes down what the judge says, whole fields with their CRLFs, and waits no more. May block
    /// once [`Letter::is_on_disk`].
    ///
    /// # Errors
    /// As [`Spool::write`].
    pub fn judged(&mut self, fields: &str) -> Result<(), LetterError> {
        let Some(Head { bytes, trace }) = self.head.take() else { return Ok(()) };
        let (trace, rest) = bytes.split_at(trace.min(bytes.len()));
        self.keep(trace)?;
        self.keep(fields.as_bytes())?;
        self.keep(rest)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), LetterError> {
        if let Some(head) = &mut self.head {
            head.bytes.extend_from_slice(bytes);
            return Ok(());
        }
        self.walker.feed(bytes);
        self.spool.write(bytes).map_err(LetterError::Spool)
    }

    /// Tells whether writing may block, because the letter has left memory.
    pub fn is_on_disk(&self) -> bool {
        self.spool.is_on_disk()
    }

    /// Bytes so far, our own fields included.
    pub fn size(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.bytes.len() as u64) + self.spool.len()
    }

    /// Ends the letter. May block once [`Letter::is_on_disk`].
    ///
    /// # Errors
    /// [`LetterError::Loop`], or as [`Spool::finish`].
    pub fn finish(mut self) -> Result<NewMessage, LetterError> {
        self.end()?;
        self.judged("")?;
        if self.heading.received() > RECEIVED_MAX {
            return Err(LetterError::Loop);
        }
        let body = self.spool.finish().map_err(LetterError::Spool)?;
        let structure = self.walker.finish();
        Ok(NewMessage { body, structure, internal_date: self.at, flags: FlagNames::default() })
    }
}
