//! A message on its way in: its bytes go through the header reader into the spool and past the part
//! walker, a piece at a time, so that a letter of any size needs the same memory.

use super::heading::{Additions, Heading};
use crate::filter::spam::WINDOW_MAX;
use crate::mail::date::ZonedTime;
use crate::mail::envelope::{Client, Envelope};
use crate::mail::list::{Answers, List};
use crate::mail::message::FlagNames;
use crate::mail::signed::{Signed, SignedReader};
use crate::mail::structure::Walker;
use crate::mail::trace::{self, Stamp};
use crate::protocol::smtp::Reply;
use crate::protocol::smtp::sender::{Nature, NatureReader};
use crate::store::{NewMessage, ReadError, Spool, WriteError};

pub use super::heading::Foreign;

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
    /// What to take out of its header.
    pub foreign: &'a Foreign,
    /// What signatures in it are about is read along, for [`Letter::signed`].
    pub signed: bool,
    /// The list whose copy it is.
    pub list: Option<&'a List>,
}

/// A message on its way in.
#[derive(Debug)]
pub struct Letter {
    spool: Spool,
    walker: Walker,
    heading: Heading,
    at: ZonedTime,
    /// What its content needs further on.
    nature: NatureReader,
    /// The beginning, as long as it waits to be judged.
    head: Option<Head>,
    signed: Option<SignedReader>,
    /// Where the field is that says what was found about the sender, and how long it is.
    results: Option<(u64, u64)>,
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
        let Start { client, envelope, host, id, at, complete, judged, foreign, signed, list } = *start;
        let additions = if complete {
            Additions { message_id: Some(trace::message_id(id, host)), date: Some(trace::date(at)) }
        } else {
            Additions::default()
        };
        let mut trace = trace::return_path(&envelope.from);
        trace.push_str(&trace::received(&Stamp { client, by: host, id, envelope, at }));
        let head = judged.then(|| Head { trace: trace.len(), bytes: Vec::new() });
        let mut foreign = foreign.clone();
        if let Some(list) = list {
            trace.push_str(&list.fields());
            (foreign.list, foreign.reply_to) = (true, list.answers == Answers::List);
        }
        let heading = Heading::new(additions, foreign);
        let signed = signed.then(SignedReader::default);
        let nature = NatureReader::default();
        let mut letter = Self { spool, walker: Walker::new(), heading, at, nature, head, signed, results: None };
        letter.keep(trace.as_bytes())?;
        Ok(letter)
    }

    /// Adds content. May block once [`Letter::is_on_disk`].
    ///
    /// # Errors
    /// As [`Spool::write`].
    pub fn write(&mut self, content: &[u8]) -> Result<(), LetterError> {
        self.nature.feed(content);
        if let Some(signed) = &mut self.signed {
            signed.feed(content);
        }
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

    /// What signatures in it are about, as it came: of the header alone as long as there is more to come, and all
    /// of it at the `end`, when it is handed out once.
    pub fn signed(&mut self, end: bool) -> Option<Signed> {
        if end { self.signed.take().map(SignedReader::finish) } else { self.signed.as_ref().map(SignedReader::so_far) }
    }

    /// Writes down what was found about the sender and what the judge says, whole fields with their CRLFs, and
    /// waits no more. May block once [`Letter::is_on_disk`].
    ///
    /// # Errors
    /// As [`Spool::write`].
    pub fn judged(&mut self, results: &str, fields: &str) -> Result<(), LetterError> {
        let Some(Head { bytes, trace }) = self.head.take() else { return Ok(()) };
        let (trace, rest) = bytes.split_at(trace.min(bytes.len()));
        self.keep(trace)?;
        self.results = Some((self.size(), results.len() as u64));
        self.keep(results.as_bytes())?;
        self.keep(fields.as_bytes())?;
        self.keep(rest)
    }

    /// Ends the letter with other words about the sender than those that [`Letter::judged`] wrote, as happens where
    /// a long body turns out not to be what was signed. Blocks: the letter is written anew, to `spool`.
    ///
    /// # Errors
    /// As [`Letter::finish`].
    pub fn finish_with(self, results: &str, mut spool: Spool) -> Result<NewMessage, LetterError> {
        let Some((at, length)) = self.results else { return self.finish() };
        let old = self.finish()?;
        let mut walker = Walker::new();
        let mut keep = |bytes: &[u8]| {
            walker.feed(bytes);
            spool.write(bytes).map_err(LetterError::Spool)
        };
        let (mut reader, size) = (old.body.reader(), old.body.size());
        let unreadable = |error: ReadError| LetterError::Spool(WriteError::Storage(error.to_string()));
        let mut offset = 0;
        while offset < size {
            if offset == at {
                keep(results.as_bytes())?;
                offset += length;
                continue;
            }
            let until = if offset < at { at } else { size };
            let most = usize::try_from(until - offset).unwrap_or(usize::MAX);
            let bytes = reader.read(offset, most).map_err(unreadable)?;
            if bytes.is_empty() {
                break;
            }
            keep(bytes)?;
            offset += bytes.len() as u64;
        }
        let body = spool.finish().map_err(LetterError::Spool)?;
        Ok(NewMessage { body, structure: walker.finish(), ..old })
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), LetterError> {
        if let Some(head) = &mut self.head {
            head.bytes.extend_from_slice(bytes);
            return Ok(());
        }
        self.walker.feed(bytes);
        self.spool.write(bytes).map_err(LetterError::Spool)
    }

    /// What its content needs of the way further on, whatever its sender declared; `utf8` says whether it
    /// came with SMTPUTF8.
    pub fn nature(&self, utf8: bool) -> Nature {
        self.nature.finish(utf8)
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
        self.judged("", "")?;
        if self.heading.received() > RECEIVED_MAX {
            return Err(LetterError::Loop);
        }
        let body = self.spool.finish().map_err(LetterError::Spool)?;
        let structure = self.walker.finish();
        Ok(NewMessage { body, structure, internal_date: self.at, flags: FlagNames::default() })
    }
}
