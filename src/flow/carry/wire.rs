//! Import and export while a server owns the store: the calls of [`Keeper`] and [`Giver`] over a
//! stream.
//!
//! A frame is its length in four bytes, little-endian, and an [`Ask`] or an answer in postcard.
//! Bodies follow an `Ask` as they are, so many bytes as it says, and are spooled and walked again on
//! the other side: what the store keeps of a message is never a client's word. One ask, one answer.

use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::keep::{Content, Exchange, Giver, Keeper, Note, Target};
use super::letter::{Fault, Letter};
use super::{CHUNK, CarryError};
use crate::mail::date::ZonedTime;
use crate::mail::mailbox::{AccountId, Mailbox, MailboxId, MailboxName, Uid};
use crate::mail::message::{BlobId, FlagNames, Message};
use crate::store::{Body, NewMessage, ReadError, Spool, Spooled, WriteError};

/// Longest frame a server takes, in bytes: the labels of a batch with all their keywords.
const ASK_MAX: u32 = 1 << 20;

/// Longest frame a client takes, in bytes: the mailboxes of an account.
const ANSWER_MAX: u32 = 16 << 20;

/// Most messages listed in one answer.
const LISTED_MAX: usize = 1024;

/// Most messages appended by one ask.
const LETTERS_MAX: usize = 64;

/// What a client asks.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    Account,
    Target(MailboxName),
    /// The bodies follow, in order.
    Append {
        mailbox: MailboxId,
        labels: Vec<Label>,
        note: Option<Note>,
    },
    /// The body follows.
    Find {
        mailbox: MailboxId,
        since: Uid,
        size: u64,
    },
    Note(String),
    PutNote(Note),
    Mailboxes,
    Messages {
        mailbox: MailboxId,
        first: Uid,
        max: usize,
    },
    /// Opens a body; one is open at a time.
    Open(BlobId),
    /// Reads the open body.
    Read {
        offset: u64,
        max: usize,
    },
}

/// A message without its body.
#[derive(Debug, Serialize, Deserialize)]
struct Label {
    size: u64,
    internal_date: ZonedTime,
    flags: FlagNames,
}

/// Why an ask was refused.
#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    /// There is no use in going on.
    closed: bool,
    /// One sentence.
    why: String,
}

impl From<CarryError> for Refusal {
    fn from(error: CarryError) -> Self {
        let closed = matches!(error, CarryError::Write(WriteError::Closed) | CarryError::Read(ReadError::Closed));
        Self { closed, why: error.to_string() }
    }
}

type Answer<T> = Result<T, Refusal>;

/// Serves one client until it goes. Blocks; memory is that of one batch.
///
/// # Errors
/// When the stream breaks or what comes over it makes no sense.
pub fn serve(stream: &mut (impl Read + Write), exchange: &mut Exchange) -> io::Result<()> {
    let mut open: Option<Body> = None;
    while let Some(ask) = receive::<Ask>(stream, ASK_MAX)? {
        match ask {
            Ask::Account => send(stream, &answer(Ok(exchange.account())))?,
            Ask::Target(name) => send(stream, &answer(exchange.target(&name)))?,
            Ask::Append { mailbox, labels, note } => {
                if labels.len() > LETTERS_MAX {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                let mut messages = Ok(Vec::new());
                for label in labels {
                    let message = take_in(stream, exchange, label)?;
                    messages = messages.and_then(|mut all| {
                        all.push(message?);
                        Ok(all)
                    });
                }
                let uid = messages.and_then(|messages| exchange.append(mailbox, messages, note));
                send(stream, &answer(uid))?;
            }
            Ask::Find { mailbox, since, size } => {
                let label = Label { size, internal_date: ZonedTime::default(), flags: FlagNames::default() };
                let message = take_in(stream, exchange, label)?;
                let found = message.and_then(|message| exchange.find(mailbox, since, &message.body));
                send(stream, &answer(found))?;
            }
            Ask::Note(name) => send(stream, &answer(exchange.note(&name)))?,
            Ask::PutNote(note) => send(stream, &answer(exchange.put_note(note)))?,
            Ask::Mailboxes => send(stream, &answer(exchange.mailboxes()))?,
            Ask::Messages { mailbox, first, max } => {
                send(stream, &answer(exchange.messages(mailbox, first, max.min(LISTED_MAX))))?;
            }
            Ask::Open(blob) => {
                open = None;
                let size = exchange.open(blob).map(|body| open.insert(body).len());
                send(stream, &answer(size.map_err(CarryError::Read)))?;
            }
            Ask::Read { offset, max } => {
                let body = open.as_mut().ok_or(io::ErrorKind::InvalidInput)?;
                let bytes = body.read(offset, max.min(CHUNK)).map_err(CarryError::Read);
                send(stream, &answer(bytes))?;
            }
        }
    }
    Ok(())
}

/// Takes a message from the stream. All of it is read, whatever becomes of it.
fn take_in(
    stream: &mut impl Read,
    exchange: &mut Exchange,
    label: Label,
) -> io::Result<Result<NewMessage, CarryError>> {
    let mut letter = Keeper::spool(exchange).map(Letter::new);
    let mut chunk = vec![0; CHUNK.min(usize::try_from(label.size).unwrap_or(CHUNK))];
    let mut left = label.size;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let part = chunk.get_mut(..part).unwrap_or_default();
        stream.read_exact(part)?;
        if let Ok(letter) = &mut letter {
            letter.write(part);
        }
        left -= part.len() as u64;
    }
    Ok(letter.and_then(|letter| {
        letter.finish(label.internal_date, label.flags).map_err(|fault| match fault {
            Fault::Fatal(error) => error,
            Fault::Empty => CarryError::Refused("the message is empty".to_owned()),
            Fault::TooLarge => CarryError::Refused("the message is too large".to_owned()),
        })
    }))
}

fn answer<T>(result: Result<T, CarryError>) -> Answer<T> {
    result.map_err(Refusal::from)
}

fn send(stream: &mut impl Write, frame: &impl Serialize) -> io::Result<()> {
    let bytes = postcard::to_allocvec(frame).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_le_bytes())?;
    stream.write_all(&bytes)?;
    stream.flush()
}

/// The next frame; `None` when the other side has gone between two.
fn receive<T: DeserializeOwned>(stream: &mut impl Read, max: u32) -> io::Result<Option<T>> {
    let mut first = [0];
    match stream.read_exact(&mut first) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut rest = [0; 3];
    stream.read_exact(&mut rest)?;
    let ([a], [b, c, d]) = (first, rest);
    let length = u32::from_le_bytes([a, b, c, d]);
    if length > max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
    }
    let mut bytes = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut bytes)?;
    postcard::from_bytes(&bytes).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A server's store, for one account.
#[derive(Debug)]
pub struct Remote<S> {
    stream: S,
    account: AccountId,
    /// Where a large message is kept while it is read from its file.
    folder: Arc<Path>,
}

impl<S: Read + Write> Remote<S> {
    /// Speaks over `stream` to a [`serve`] at its other end. Large messages on their way are kept
    /// in unlinked files in `folder`.
    ///
    /// # Errors
    /// When the stream breaks.
    pub fn new(mut stream: S, folder: Arc<Path>) -> Result<Self, CarryError> {
        let account = ask(&mut stream, &Ask::Account)?;
        Ok(Self { stream, account, folder })
    }
}

/// Asks and waits for the answer.
fn ask<T: DeserializeOwned>(stream: &mut (impl Read + Write), ask: &Ask) -> Result<T, CarryError> {
    send(stream, ask).map_err(CarryError::Broken)?;
    hear(stream)
}

fn hear<T: DeserializeOwned>(stream: &mut impl Read) -> Result<T, CarryError> {
    match receive::<Answer<T>>(stream, ANSWER_MAX) {
        Ok(Some(Ok(told))) => Ok(told),
        Ok(Some(Err(refusal))) if refusal.closed => Err(CarryError::Read(ReadError::Closed)),
        Ok(Some(Err(refusal))) => Err(CarryError::Refused(refusal.why)),
        Ok(None) => Err(CarryError::Broken(io::ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(CarryError::Broken(error)),
    }
}

/// Sends a body as it is.
fn send_body(stream: &mut impl Write, body: &Spooled) -> Result<(), CarryError> {
    let mut reader = body.reader();
    let mut offset = 0;
    while offset < body.size() {
        let bytes = reader.read(offset, CHUNK)?;
        stream.write_all(bytes).map_err(CarryError::Broken)?;
        offset += bytes.len() as u64;
    }
    stream.flush().map_err(CarryError::Broken)
}

impl<S: Read + Write> Keeper for Remote<S> {
    fn target(&mut self, name: &MailboxName) -> Result<Target, CarryError> {
        ask(&mut self.stream, &Ask::Target(name.clone()))
    }

    fn spool(&mut self) -> Result<Spool, CarryError> {
        Ok(Spool::new(self.folder.clone()))
    }

    fn append(&mut self, mailbox: MailboxId, messages: Vec<NewMessage>, note: Option<Note>) -> Result<Uid, CarryError> {
        let label = |message: &NewMessage| Label {
            size: message.body.size(),
            internal_date: message.internal_date,
            flags: message.flags.clone(),
        };
        let labels = messages.iter().map(label).collect();
        send(&mut self.stream, &Ask::Append { mailbox, labels, note }).map_err(CarryError::Broken)?;
        for message in messages {
            send_body(&mut self.stream, &message.body)?;
        }
        hear(&mut self.stream)
    }

    fn find(&mut self, mailbox: MailboxId, since: Uid, body: &Spooled) -> Result<Option<Uid>, CarryError> {
        send(&mut self.stream, &Ask::Find { mailbox, since, size: body.size() }).map_err(CarryError::Broken)?;
        send_body(&mut self.stream, body)?;
        hear(&mut self.stream)
    }

    fn note(&mut self, name: &str) -> Result<Option<Vec<u8>>, CarryError> {
        ask(&mut self.stream, &Ask::Note(name.to_owned()))
    }

    fn put_note(&mut self, note: Note) -> Result<(), CarryError> {
        ask(&mut self.stream, &Ask::PutNote(note))
    }

    fn account(&self) -> AccountId {
        self.account
    }
}

impl<S: Read + Write> Giver for Remote<S> {
    fn mailboxes(&mut self) -> Result<Vec<Mailbox>, CarryError> {
        ask(&mut self.stream, &Ask::Mailboxes)
    }

    fn messages(&mut self, mailbox: MailboxId, first: Uid, max: usize) -> Result<Vec<Message>, CarryError> {
        ask(&mut self.stream, &Ask::Messages { mailbox, first, max })
    }

    fn body(&mut self, blob: BlobId) -> Result<Box<dyn Content + '_>, ReadError> {
        let size = ask(&mut self.stream, &Ask::Open(blob)).map_err(unread)?;
        Ok(Box::new(RemoteBody { stream: &mut self.stream, size, bytes: Vec::new() }))
    }
}

/// A broken connection is not the message's trouble, a refusal is.
fn unread(error: CarryError) -> ReadError {
    match error {
        CarryError::Refused(why) => ReadError::Storage(why),
        _ => ReadError::Closed,
    }
}

/// A body of a server's store.
struct RemoteBody<'s, S> {
    stream: &'s mut S,
    size: u64,
    bytes: Vec<u8>,
}

impl<S: Read + Write> Content for RemoteBody<'_, S> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, offset: u64, max: usize) -> Result<&[u8], ReadError> {
        self.bytes = ask(self.stream, &Ask::Read { offset, max }).map_err(unread)?;
        // An answer of nothing would be asked for for ever.
        if self.bytes.is_empty() && offset < self.size { Err(ReadError::Closed) } else { Ok(&self.bytes) }
    }
}
