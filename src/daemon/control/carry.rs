//! Import and export over the control socket: what `flow::carry` asks of a store, asked of the
//! server that owns it.
//!
//! An order may be followed by bytes: messages on their way in go as they are, the server packs and
//! walks them itself; bodies on their way out go in the store's packed pieces. Either side holds a
//! chunk or a piece at a time.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::SILENCE_MAX;
use crate::flow::carry::{Exchange, Giver as _, Keeper as _, MESSAGE_MAX, Target};
use crate::mail::address::Address;
use crate::mail::date::ZonedTime;
use crate::mail::mailbox::{AccountId, Mailbox, MailboxId, MailboxName, Uid};
use crate::mail::message::{BlobId, FlagNames, Keyword, Keywords, Message, SystemFlags};
use crate::mail::structure::Walker;
use crate::store::blob::{BlobRecord, PieceSource as _};
use crate::store::{NewMessage, Spool, Spooled, Store};

/// Most messages of one [`CarryOrder::Append`].
pub const LETTERS_MAX: usize = 64;

/// Most rows of one list.
const PAGE_MAX: usize = 512;

/// Most mailboxes of one list; each may name 64 keywords.
const MAILBOXES_MAX: usize = 64;

/// Bytes of a message taken at a time.
const CHUNK: usize = 64 << 10;

/// Notes that may be read and written from outside begin so.
const NOTES: &str = "import ";

/// What import and export ask. The numbers in these orders come from earlier outcomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "carry", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum CarryOrder {
    /// Whose mail is carried. [`CarryOutcome::Account`]
    Account {
        /// The account's address.
        address: String,
    },
    /// Find or make a mailbox. [`CarryOutcome::Target`]
    Target {
        /// The account.
        account: AccountId,
        /// Its name.
        name: String,
    },
    /// Keep messages, all or none, and a note before them; their bytes follow, one after the other.
    /// [`CarryOutcome::Kept`]
    Append {
        /// Where.
        mailbox: MailboxId,
        /// At most [`LETTERS_MAX`].
        letters: Vec<LetterHead>,
        /// The note.
        note: Option<(String, Vec<u8>)>,
    },
    /// Which message from `since` on is exactly what follows? [`CarryOutcome::Found`]
    Find {
        /// Where.
        mailbox: MailboxId,
        /// The first to compare.
        since: Uid,
        /// How many bytes follow.
        size: u64,
    },
    /// Tell a note. [`CarryOutcome::Note`]
    Note {
        /// Its name.
        name: String,
    },
    /// Keep a note. [`CarryOutcome::Done`]
    PutNote {
        /// Its name.
        name: String,
        /// What it says.
        value: Vec<u8>,
    },
    /// Tell an account's mailboxes. [`CarryOutcome::Mailboxes`]
    Mailboxes {
        /// The account.
        account: AccountId,
        /// How many were told before.
        skip: usize,
    },
    /// Tell messages from `first` on. [`CarryOutcome::Messages`]
    Messages {
        /// Where.
        mailbox: MailboxId,
        /// Where to begin.
        first: Uid,
        /// How many at most; fewer may be told.
        max: usize,
    },
    /// Tell how a body is kept. [`CarryOutcome::Record`]
    Record {
        /// Which.
        blob: BlobId,
    },
    /// Tell a piece of a body as it is kept. [`CarryOutcome::Bytes`]
    Piece {
        /// Which body.
        blob: BlobId,
        /// Which piece.
        index: u32,
    },
}

/// A message that follows an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LetterHead {
    /// Its bytes, at most [`MESSAGE_MAX`].
    pub size: u64,
    /// INTERNALDATE
    pub date: ZonedTime,
    /// System flags as bits.
    pub flags: SystemFlags,
    /// Keywords.
    pub keywords: Vec<String>,
}

/// What comes of a [`CarryOrder`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "carried", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
#[expect(missing_docs, reason = "the orders say what their outcomes are")]
pub enum CarryOutcome {
    Account { account: AccountId },
    Target { id: MailboxId, uid_next: Uid, keywords: Keywords },
    Kept { uid_next: Uid },
    Found { uid: Option<Uid> },
    Note { value: Option<Vec<u8>> },
    Done,
    Mailboxes { mailboxes: Vec<Mailbox>, all: bool },
    Messages { messages: Vec<Message> },
    Record { record: Option<BlobRecord> },
    Bytes { length: usize },
    Refused { reason: String },
}

/// What goes back: the outcome and the bytes that follow it.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) outcome: CarryOutcome,
    pub(super) bytes: Vec<u8>,
    /// What follows on the connection is an order again.
    pub(super) in_step: bool,
}

impl From<CarryOutcome> for Reply {
    fn from(outcome: CarryOutcome) -> Self {
        Self { outcome, bytes: Vec::new(), in_step: true }
    }
}

/// Why an order is not carried out, as a sentence.
type Reason = String;

/// Carries an order out, taking what follows it from `stream`.
pub(super) async fn carry(store: &Store, order: CarryOrder, stream: &mut BufReader<UnixStream>) -> io::Result<Reply> {
    let done = match order {
        CarryOrder::Append { mailbox, letters, note } => {
            if letters.len() > LETTERS_MAX || letters.iter().any(|letter| letter.size > MESSAGE_MAX) {
                return Ok(out_of_step("that is more than fits"));
            }
            let mut messages: Result<_, Reason> = Ok(Vec::new());
            for head in letters {
                let letter = take_letter(store, head.size, stream).await?;
                messages = messages.and_then(|mut messages: Vec<_>| {
                    messages.push(letter?.into_message(head)?);
                    Ok(messages)
                });
            }
            let store = store.clone();
            working(move || {
                check_note(note.as_ref().map(|(name, _)| name.as_str()))?;
                let mut exchange = Exchange::new(store, AccountId(0));
                let uid_next = exchange.append(mailbox, messages?, note).map_err(|error| error.to_string())?;
                Ok(CarryOutcome::Kept { uid_next }.into())
            })
            .await
        }
        CarryOrder::Find { mailbox, since, size } => {
            if size > MESSAGE_MAX {
                return Ok(out_of_step("that is more than fits"));
            }
            let letter = take_letter(store, size, stream).await?;
            let store = store.clone();
            working(move || {
                let body = letter?.finish()?.0;
                let uid = Exchange::new(store, AccountId(0))
                    .find(mailbox, since, &body)
                    .map_err(|error| error.to_string())?;
                Ok(CarryOutcome::Found { uid }.into())
            })
            .await
        }
        order => {
            let store = store.clone();
            working(move || answer(store, order)).await
        }
    };
    Ok(done.unwrap_or_else(|reason| CarryOutcome::Refused { reason }.into()))
}

/// An order whose bytes were not taken: nothing after it can be understood.
fn out_of_step(reason: &str) -> Reply {
    Reply { in_step: false, ..CarryOutcome::Refused { reason: reason.to_owned() }.into() }
}

async fn working<T: Send + 'static>(work: impl FnOnce() -> Result<T, Reason> + Send + 'static) -> Result<T, Reason> {
    spawn_blocking(work).await.unwrap_or_else(|_| Err("the server is stopping".into()))
}

/// Answers what needs no bytes from outside.
fn answer(store: Store, order: CarryOrder) -> Result<Reply, Reason> {
    let outcome = match order {
        CarryOrder::Account { address } => {
            let key = Address::parse(&address).map_err(|error| format!("`{address}` does not do: {error}"))?.key();
            let accounts = store.reader().and_then(|reader| reader.accounts()).map_err(|error| error.to_string())?;
            let found = accounts.into_iter().find(|account| account.address.key() == key);
            let account = found.ok_or_else(|| format!("there is no account {address}"))?.id;
            CarryOutcome::Account { account }
        }
        CarryOrder::Target { account, name } => {
            let name = MailboxName::new(&name).ok_or_else(|| format!("`{name}` is no name for a mailbox"))?;
            let Target { id, uid_next, keywords } =
                Exchange::new(store, account).target(&name).map_err(|error| error.to_string())?;
            CarryOutcome::Target { id, uid_next, keywords }
        }
        CarryOrder::Note { name } => {
            check_note(Some(&name))?;
            CarryOutcome::Note {
                value: Exchange::new(store, AccountId(0)).note(&name).map_err(|error| error.to_string())?,
            }
        }
        CarryOrder::PutNote { name, value } => {
            check_note(Some(&name))?;
            Exchange::new(store, AccountId(0)).put_note((name, value)).map_err(|error| error.to_string())?;
            CarryOutcome::Done
        }
        CarryOrder::Mailboxes { account, skip } => {
            let mailboxes = Exchange::new(store, account).mailboxes().map_err(|error| error.to_string())?;
            let all = mailboxes.len() <= skip.saturating_add(MAILBOXES_MAX);
            CarryOutcome::Mailboxes { mailboxes: mailboxes.into_iter().skip(skip).take(MAILBOXES_MAX).collect(), all }
        }
        CarryOrder::Messages { mailbox, first, max } => {
            let mut exchange = Exchange::new(store, AccountId(0));
            CarryOutcome::Messages {
                messages: exchange.messages(mailbox, first, max.min(PAGE_MAX)).map_err(|error| error.to_string())?,
            }
        }
        CarryOrder::Record { blob } => {
            CarryOutcome::Record { record: store.pieces().record(blob).map_err(|error| error.to_string())? }
        }
        CarryOrder::Piece { blob, index } => {
            let mut bytes = Vec::new();
            let read = store.pieces().piece(blob, index, &mut |piece| bytes.extend_from_slice(piece));
            read.map_err(|error| error.to_string())?;
            return Ok(Reply { outcome: CarryOutcome::Bytes { length: bytes.len() }, bytes, in_step: true });
        }
        CarryOrder::Append { .. } | CarryOrder::Find { .. } => return Err("the bytes are missing".into()),
    };
    Ok(outcome.into())
}

/// The server's own notes are nobody else's.
fn check_note(name: Option<&str>) -> Result<(), Reason> {
    let fits = name.is_none_or(|name| name.starts_with(NOTES) && name.len() <= 200);
    if fits { Ok(()) } else { Err("this note is not an import's".into()) }
}

/// A message on its way in.
struct Letter {
    spool: Spool,
    walker: Walker,
}

impl Letter {
    fn write(mut self, bytes: &[u8]) -> Result<Self, Reason> {
        self.walker.feed(bytes);
        self.spool.write(bytes).map_err(|error| error.to_string())?;
        Ok(self)
    }

    fn finish(self) -> Result<(Spooled, Walker), Reason> {
        Ok((self.spool.finish().map_err(|error| error.to_string())?, self.walker))
    }

    fn into_message(self, head: LetterHead) -> Result<NewMessage, Reason> {
        let keywords = head.keywords.into_iter();
        let keywords = keywords.map(|name| Keyword::new(&name).ok_or(format!("`{name}` is no keyword")));
        let flags = FlagNames { system: head.flags, keywords: keywords.collect::<Result<_, _>>()? };
        let (body, walker) = self.finish()?;
        Ok(NewMessage { body, structure: walker.finish(), internal_date: head.date, flags })
    }
}

/// Takes `size` bytes from the stream. Once something is wrong it only passes them over, so that the
/// next order is found.
async fn take_letter(
    store: &Store,
    size: u64,
    stream: &mut BufReader<UnixStream>,
) -> io::Result<Result<Letter, Reason>> {
    let mut letter =
        store.spool().map(|spool| Letter { spool, walker: Walker::new() }).map_err(|error| error.to_string());
    let mut left = size;
    while left > 0 {
        let mut chunk = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
        timeout(SILENCE_MAX, stream.read_exact(&mut chunk)).await??;
        left -= chunk.len() as u64;
        letter = match letter {
            // Packing is CPU work and the spool may be on the disk by now.
            Ok(letter) => working(move || letter.write(&chunk)).await,
            Err(reason) => Err(reason),
        };
    }
    Ok(letter)
}
