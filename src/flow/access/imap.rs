//! What an IMAP session asks about its account, answered by the store.
//!
//! [`plan`] says how an answer is come by: at once, by [`read`] on a thread that may block, or by a
//! write that resolves when it is durable. A message on its way in has state between questions,
//! which [`Incoming`] holds.

use super::acl;
use super::admit::{self, Admitted, mailboxes, shown};
use super::order;
use super::search::{Budget, Question};
use super::url::{self, PIECE_BYTES, Part, PartReader};
use crate::flow::learn::{self, Lesson};
use crate::mail::annotation::{Annotation, EntryName};
use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::mailbox::{AccountId, Mailbox, MailboxId, MailboxName, ModSeq, SpecialUse, Uid};
use crate::mail::message::{BlobId, FlagNames, Flagged, Message, Placed, SystemFlags, UidSet};
use crate::mail::rights::Rights;
use crate::mail::structure::{Section, Structure, Walker};
use crate::protocol::imap::metadata::{MetadataQuery, SPECIAL_USE_ENTRY};
use crate::protocol::imap::request::{AHEAD_MAX, Ahead, Answer, Changes, Letter, Opened, Refused, Request, Search};
use crate::protocol::imap::url::ImapUrl;
use crate::store::{NewMessage, Pending, ReadError, Reader, SPOOL_MEMORY_MAX, Spool, Store, WriteError};

/// Most messages whose rows are read without a thread of their own.
const INLINE_ROWS: u32 = 8;

/// Bytes of structures and beginnings of messages in one answer, but for the first, which may be
/// longer: a structure takes up to 64 KiB, as does a beginning.
const LETTERS_BYTES: usize = 64 * 1024;

/// How an answer is come by.
#[derive(Debug)]
pub enum Plan {
    /// Here it is.
    Answer(Answer),
    /// By [`read`], on a thread that may block.
    Read(Admitted),
    /// By a write.
    Write(Write),
}

/// A write on its way, by what it answers with.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names are those of the answers")]
pub enum Write {
    Flagged(Pending<Flagged>),
    Placed(Pending<Placed>),
    Expunged(Pending<UidSet>),
    Created(Pending<MailboxId>),
    Claimed(Pending<Uid>),
    Done(Pending<()>),
}

/// Says how the answer to what was admitted is come by. Bodies, logins and the bytes of an APPEND are not
/// asked here.
pub fn plan(store: &Store, admitted: Admitted) -> Plan {
    let Admitted { account, owner, rights, request } = admitted;
    let admitted = |request| Admitted { account, owner, rights, request };
    match request {
        Request::Mailboxes { .. }
        | Request::Open(_)
        | Request::Acl(_)
        | Request::CountFrom { .. }
        | Request::Letters { .. }
        | Request::Vanished { .. }
        | Request::Sort { .. }
        | Request::Thread { .. }
        | Request::Annotations { .. }
        | Request::Search { .. } => Plan::Read(admitted(request)),
        Request::Rows { ref uids, .. } if uids.count() > INLINE_ROWS => Plan::Read(admitted(request)),
        Request::Rows { .. } | Request::Mailbox { .. } | Request::ListRights { .. } | Request::Quota => {
            Plan::Answer(read(store, admitted(request), Timestamp::default()))
        }
        Request::Changes { rights: known, .. } if known != rights => Plan::Read(admitted(request)),
        Request::Changes { mailbox, since, .. } => match store.reader().and_then(|reader| reader.mailbox(mailbox)) {
            Ok(Some(found)) if found.highest_modseq > since => Plan::Read(admitted(request)),
            Ok(Some(_)) => Plan::Answer(Answer::Unchanged),
            Ok(None) => Plan::Answer(Answer::Mailbox(None)),
            Err(error) => Plan::Answer(unreadable(&error)),
        },
        Request::Delete(name) => match children(store, account, (owner, &name)) {
            Ok(Some(refused)) => Plan::Answer(Answer::Refused(refused)),
            Ok(None) => Plan::Write(Write::Done(store.delete_mailbox(owner, name))),
            Err(error) => Plan::Answer(unreadable(&error)),
        },
        Request::ClaimRecent(mailbox) => Plan::Write(Write::Claimed(store.claim_recent(mailbox))),
        Request::Flag { mailbox, uids, mode, flags, unchanged_since } => {
            Plan::Write(Write::Flagged(store.flag_within(mailbox, uids, (mode, flags), unchanged_since, rights)))
        }
        Request::Copy { from, uids, to } => Plan::Write(Write::Placed(store.copy_within(from, uids, to, rights))),
        Request::Move { from, uids, to } => Plan::Write(Write::Placed(store.relocate_within(from, uids, to, rights))),
        Request::Expunge { mailbox, uids } => Plan::Write(Write::Expunged(store.expunge(mailbox, uids))),
        Request::Create { name, special_use } => {
            Plan::Write(Write::Created(store.create_mailbox(owner, name, special_use)))
        }
        Request::Annotate { changes, .. } if changes.iter().any(|(entry, _)| url::is_key(entry)) => {
            Plan::Answer(Answer::Refused(Refused::NotAllowed("that entry is the server's own")))
        }
        Request::Annotate { mailbox, changes } => Plan::Write(Write::Done(store.annotate(owner, mailbox, changes))),
        Request::Rename { from, to } => Plan::Write(Write::Done(store.rename_mailbox(owner, from, to))),
        Request::SetAcl { mailbox, identifier, mode, rights } => {
            match acl::change(store, (owner, &mailbox), &identifier, (mode, rights)) {
                Ok(pending) => Plan::Write(Write::Done(pending)),
                Err(refused) => Plan::Answer(Answer::Refused(refused)),
            }
        }
        Request::Subscribe { name, subscribed } => Plan::Write(Write::Done(store.subscribe(account, name, subscribed))),
        Request::Sasl(_)
        | Request::Body { .. }
        | Request::AppendBegin { .. }
        | Request::AppendBytes(_)
        | Request::AppendUrl { .. }
        | Request::Authorize { .. }
        | Request::ResetKeys(_)
        | Request::OpenUrl { .. }
        | Request::UrlBytes(_)
        | Request::AppendNext { .. }
        | Request::AppendEnd { .. }
        | Request::AppendCancel => Plan::Answer(Answer::Refused(Refused::Unavailable)),
    }
}

/// Answers a request that only reads. May take long: it scans mailboxes and opens bodies.
pub fn read(store: &Store, admitted: Admitted, now: Timestamp) -> Answer {
    let Admitted { account, owner, rights: _, request } = admitted;
    let answer = || {
        let reader = store.reader()?;
        let named = |name: &MailboxName| match reader.mailbox_named(owner, name)? {
            Some(mailbox) => shown(&reader, account, mailbox),
            None => Ok(None),
        };
        Ok(match request {
            Request::Mailboxes { .. } => {
                let (mailboxes, subscriptions) = (mailboxes(&reader, account)?, reader.subscriptions(account)?);
                Answer::Mailboxes { mailboxes, subscriptions }
            }
            Request::Mailbox { name, .. } => Answer::Mailbox(named(&name)?.map(Box::new)),
            Request::Open(name) => Answer::Opened(match named(&name)? {
                Some(mailbox) => Some(Box::new(open(&reader, mailbox)?)),
                None => None,
            }),
            Request::Acl(name) => acl::list(&reader, owner, &name)?,
            Request::ListRights { identifier, .. } => acl::list_rights(&reader, owner, &identifier)?,
            Request::CountFrom { mailbox, from } => Answer::Count(uids_from(&reader, mailbox, from)?.count()),
            Request::Changes { mailbox, since, uid_next, .. } => match known(&reader, account, mailbox)? {
                Some(found) => Answer::Changes(Box::new(Changes {
                    new: if found.uid_next > uid_next { uids_from(&reader, mailbox, uid_next)? } else { UidSet::new() },
                    vanished: reader.vanished(mailbox, reader.known_since(since)?)?,
                    mailbox: found,
                })),
                None => Answer::Mailbox(None),
            },
            Request::Vanished { mailbox, since } => {
                Answer::Vanished(reader.vanished(mailbox, reader.known_since(since)?)?)
            }
            Request::Sort { mailbox, uids, order } => Answer::Sorted(order::sort(&reader, mailbox, &uids, &order)?),
            Request::Thread { mailbox, uids, threading } => {
                Answer::Threads(order::thread(&reader, mailbox, &uids, threading)?)
            }
            Request::Rows { mailbox, uids, changed_since } => {
                let changed_since = reader.known_since(changed_since)?;
                Answer::Rows(rows(&reader, mailbox, &uids, changed_since).collect::<Result<_, _>>()?)
            }
            Request::Letters { blobs, structure, ahead } => {
                Answer::Letters(letters(&reader, &blobs, structure, ahead)?)
            }
            Request::Search { mailbox, uids, search } => find(store, mailbox, &uids, &search, now)?,
            Request::Annotations { mailbox, query } => {
                Answer::Annotations(annotations(&reader, (account, owner), mailbox, &query)?)
            }
            Request::Quota => match reader.account(account)? {
                Some(found) => Answer::Quota { limit: found.quota, used: found.used },
                None => Answer::Refused(Refused::Unavailable),
            },
            _ => Answer::Refused(Refused::Unavailable),
        })
    };
    answer().unwrap_or_else(|error| unreadable(&error))
}

/// Tells a session why a write was not done, and the log what is wrong with the disk.
pub fn refused(error: &WriteError) -> Refused {
    match error {
        WriteError::NoSuchMailbox => Refused::NoSuchMailbox,
        WriteError::Exists => Refused::Exists,
        WriteError::NotAllowed(rule) => Refused::NotAllowed(rule),
        WriteError::OverQuota => Refused::OverQuota,
        WriteError::Limit(bound) => Refused::Limit(bound),
        WriteError::DiskFull => Refused::DiskFull,
        WriteError::NoSuchAccount | WriteError::NoSuchQueued | WriteError::Closed => Refused::Unavailable,
        WriteError::Storage(text) => {
            tracing::error!(error = %text, "the store could not write");
            Refused::Unavailable
        }
    }
}

/// The answer where reading failed.
pub fn unreadable(error: &ReadError) -> Answer {
    if let ReadError::Storage(text) = error {
        tracing::error!(error = %text, "the store could not be read");
    }
    Answer::Refused(Refused::Unavailable)
}

/// Messages of one APPEND that are complete, while another comes in.
#[derive(Debug, Default)]
pub struct Aside {
    messages: Vec<NewMessage>,
    /// Their bytes, uncompressed.
    bytes: u64,
    /// Bytes of them in memory.
    memory: usize,
}

impl Aside {
    fn push(&mut self, mut spool: Spool, walker: Walker, flags: FlagNames, date: ZonedTime) -> Result<(), WriteError> {
        self.bytes = self.bytes.saturating_add(spool.len());
        // Many small messages in memory are as much as a large one.
        if self.memory.saturating_add(spool.memory()) > SPOOL_MEMORY_MAX {
            spool.spill()?;
        }
        self.memory = self.memory.saturating_add(spool.memory());
        let body = spool.finish()?;
        self.messages.push(NewMessage { body, structure: walker.finish(), internal_date: date, flags });
        Ok(())
    }
}

/// A message on its way in by APPEND.
#[derive(Debug)]
pub struct Incoming {
    account: AccountId,
    owner: AccountId,
    /// Flags that these are not about are not kept.
    rights: Rights,
    mailbox: MailboxId,
    special_use: Option<SpecialUse>,
    spool: Spool,
    walker: Walker,
    /// The messages before it.
    aside: Aside,
}

impl Incoming {
    /// Begins one of `size` bytes that `account`, with these rights, puts into a mailbox of `owner`, if it is
    /// there and has room for it; told are those before it, and the one whose place and room it takes.
    ///
    /// # Errors
    /// The answer to give instead.
    pub fn begin(
        store: &Store,
        (account, owner, rights): (AccountId, AccountId, Rights),
        name: &MailboxName,
        size: u64,
        (aside, replaced): (Aside, Option<(MailboxId, Uid)>),
    ) -> Result<(Self, Box<Mailbox>), Answer> {
        let look = || {
            let reader = store.reader()?;
            let room = match replaced {
                Some((mailbox, _)) if reader.owner(mailbox)? != Some(owner) => (0, 0),
                Some((mailbox, uid)) => reader.message(mailbox, uid)?.map_or((0, 0), |row| (u64::from(row.size), 1)),
                None => (0, 0),
            };
            Ok((reader.mailbox_named(owner, name)?, reader.account(owner)?, room))
        };
        let (mailbox, found, room) = look().map_err(|error: ReadError| unreadable(&error))?;
        let Some(mailbox) = mailbox else { return Err(Answer::Mailbox(None)) };
        let count = u64::try_from(aside.messages.len()).unwrap_or(u64::MAX).saturating_add(1);
        let fits = found.is_some_and(|account| {
            let within =
                |limit: Option<u64>, used: u64, more| limit.is_none_or(|limit| used.saturating_add(more) <= limit);
            within(account.quota.bytes, account.used.bytes.saturating_sub(room.0), aside.bytes.saturating_add(size))
                && within(account.quota.messages, account.used.messages.saturating_sub(room.1), count)
        });
        if !fits {
            return Err(Answer::Refused(Refused::OverQuota));
        }
        let spool = store.spool().map_err(|error| Answer::Refused(refused(&error)))?;
        let (id, special_use) = (mailbox.id, mailbox.special_use);
        let walker = Walker::new();
        Ok((Self { account, owner, rights, mailbox: id, special_use, spool, walker, aside }, Box::new(mailbox)))
    }

    /// What it says to the spam filter that the message is put there.
    #[must_use]
    pub fn lesson(&self, flags: &FlagNames) -> Option<Lesson> {
        let own = self.account == self.owner;
        own.then(|| learn::appended(self.account, self.mailbox, self.special_use, flags)).flatten()
    }

    /// Takes the next bytes. May block.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.walker.feed(bytes);
        self.spool.write(bytes)
    }

    /// Takes what a URL of the same account names for the next bytes, at most so many; tells how many
    /// there were. May block.
    ///
    /// # Errors
    /// What the client is to be told.
    pub fn write_url(&mut self, store: &Store, url: &ImapUrl, most: u64) -> Result<u64, Refused> {
        let failed = |error: &ReadError| match unreadable(error) {
            Answer::Refused(refused) => refused,
            _ => Refused::Unavailable,
        };
        let find = |reader: &Reader| match admit::find(reader, self.account, &url.mailbox)? {
            Some(mailbox) if mailbox.rights.has(Rights::READ) => Part::find(reader, &mailbox, url),
            _ => Ok(None),
        };
        let found = store.reader().and_then(|reader| find(&reader));
        let part = found.map_err(|error| failed(&error))?.ok_or(Refused::BadUrl)?;
        let mut reader = PartReader::open(store, &part).map_err(|error| failed(&error))?;
        let mut taken = 0_u64;
        loop {
            let bytes = reader.read(PIECE_BYTES).map_err(|error| failed(&error))?;
            if bytes.is_empty() {
                return Ok(taken);
            }
            taken = taken.saturating_add(bytes.len() as u64);
            if taken > most {
                return Err(Refused::TooBig);
            }
            self.write(&bytes).map_err(|error| refused(&error))?;
        }
    }

    /// Ends the message, because another follows. May block.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn set_aside(self, flags: FlagNames, date: ZonedTime) -> Result<Aside, WriteError> {
        let Self { spool, walker, mut aside, rights, .. } = self;
        aside.push(spool, walker, rights.permitted(flags), date)?;
        Ok(aside)
    }

    /// Keeps the message and all before it, and removes the one it replaces. May block, and the write
    /// resolves later.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn keep(
        self,
        store: &Store,
        flags: FlagNames,
        date: ZonedTime,
        replaced: Option<(MailboxId, Uid)>,
    ) -> Result<Pending<Placed>, WriteError> {
        let mailbox = self.mailbox;
        let Aside { messages, .. } = self.set_aside(flags, date)?;
        Ok(match replaced {
            Some((from, uid)) => store.replace(mailbox, messages, from, uid),
            None => store.append(mailbox, messages),
        })
    }
}

/// What is asked of what is said; a mailbox's special use is among it (RFC 6154 section 4).
fn annotations(
    reader: &Reader,
    (account, owner): (AccountId, AccountId),
    mailbox: Option<MailboxId>,
    query: &MetadataQuery,
) -> Result<Vec<Annotation>, ReadError> {
    let mut found = reader.annotations(owner, mailbox)?;
    // What is private is the owner's.
    found.retain(|one| account == owner || one.entry.is_shared());
    let found_use = match mailbox.filter(|_| account == owner) {
        Some(id) => reader.mailbox(id)?.and_then(|mailbox| mailbox.special_use),
        None => None,
    };
    if let Some((special_use, entry)) = found_use.zip(EntryName::new(SPECIAL_USE_ENTRY)) {
        found.push(Annotation { entry, value: special_use.attribute().as_bytes().to_vec() });
    }
    found.retain(|one| query.wants(&one.entry) && !url::is_key(&one.entry));
    Ok(found)
}

/// A mailbox as `account` knows it, by its number.
fn known(reader: &Reader, account: AccountId, mailbox: MailboxId) -> Result<Option<Mailbox>, ReadError> {
    match reader.mailbox(mailbox)? {
        Some(found) => shown(reader, account, found),
        None => Ok(None),
    }
}

/// Why a mailbox with others below it stays; who sees none of these is not told of them.
fn children(
    store: &Store,
    account: AccountId,
    (owner, name): (AccountId, &MailboxName),
) -> Result<Option<Refused>, ReadError> {
    let reader = store.reader()?;
    let mut refused = None;
    for below in reader.mailboxes(owner)?.iter().filter(|mailbox| mailbox.name.is_below(name)) {
        if account == owner || reader.rights(below.id, account)?.has(Rights::LOOKUP) {
            return Ok(Some(Refused::HasChildren));
        }
        refused = Some(Refused::NoRight);
    }
    Ok(refused)
}

/// What SELECT needs, as of the reader's moment.
fn open(reader: &Reader, mailbox: Mailbox) -> Result<Opened, ReadError> {
    let mut uids = Gathered::default();
    let mut first_unseen = None;
    if mailbox.unseen == 0 {
        return Ok(Opened { uids: reader.uids(mailbox.id)?, mailbox, first_unseen });
    }
    for row in reader.messages(mailbox.id, Uid::MIN, Uid::MAX)? {
        let row = row?;
        uids.push(row.uid);
        if first_unseen.is_none() && !row.flags.system.contains(SystemFlags::SEEN) {
            first_unseen = Some(row.uid);
        }
    }
    Ok(Opened { uids: uids.finish(), mailbox, first_unseen })
}

fn uids_from(reader: &Reader, mailbox: MailboxId, from: Uid) -> Result<UidSet, ReadError> {
    let mut uids = Gathered::default();
    for row in reader.messages(mailbox, from, Uid::MAX)? {
        uids.push(row?.uid);
    }
    Ok(uids.finish())
}

/// Ascending uids as they come, gathered a range at a time.
#[derive(Debug, Default)]
struct Gathered {
    set: UidSet,
    run: Option<(Uid, Uid)>,
}

impl Gathered {
    fn push(&mut self, uid: Uid) {
        match &mut self.run {
            Some((_, last)) if last.successor() == Some(uid) => *last = uid,
            run => {
                if let Some((first, last)) = run.replace((uid, uid)) {
                    self.set.insert_range(first, last);
                }
            }
        }
    }

    fn finish(mut self) -> UidSet {
        if let Some((first, last)) = self.run {
            self.set.insert_range(first, last);
        }
        self.set
    }
}

/// The rows of those of `uids` that are there and changed after `changed_since`.
fn rows<'r>(
    reader: &'r Reader,
    mailbox: MailboxId,
    uids: &'r UidSet,
    changed_since: ModSeq,
) -> impl Iterator<Item = Result<Message, ReadError>> + 'r {
    // Ranges close to one another are read through in one go: opening a range costs like some rows.
    let span = uids.first().zip(uids.last()).filter(|(first, last)| (last.get() - first.get()) / 4 < uids.count());
    let spans: Vec<(Uid, Uid)> = span.map_or_else(|| uids.ranges().to_vec(), |span| vec![span]);
    spans.into_iter().flat_map(move |(first, last)| {
        let (rows, error) = match reader.messages(mailbox, first, last) {
            Ok(rows) => (Some(rows), None),
            Err(error) => (None, Some(Err(error))),
        };
        rows.into_iter().flatten().chain(error).filter(move |row| match row {
            Ok(row) => row.modseq > changed_since && uids.contains(row.uid),
            Err(_) => true,
        })
    })
}

/// Structures and first bytes of bodies, until it is enough for one answer.
fn letters(reader: &Reader, blobs: &[BlobId], structure: bool, ahead: Ahead) -> Result<Vec<Letter>, ReadError> {
    let (bodies, mut found, mut room) = (reader.bodies()?, Vec::new(), LETTERS_BYTES);
    for &blob in blobs {
        let structure = if structure { bodies.structure(blob)? } else { None };
        let header = || structure.as_ref()?.extent(&[], Section::Header).map(|extent| extent.length);
        let wanted = match ahead {
            Ahead::Nothing => None,
            Ahead::Fields(wanted) if structure.as_ref().is_some_and(|known| known.spells(wanted)) => None,
            Ahead::Fields(_) | Ahead::Header => header(),
            Ahead::Whole => Some(u64::MAX),
        };
        let most = if found.is_empty() { AHEAD_MAX } else { AHEAD_MAX.min(room) };
        // A body that can't be read is told of where its bytes are asked for.
        let beginning = wanted.and_then(|wanted| bodies.beginning(blob, wanted, most).ok());
        if beginning == Some(None) && most < AHEAD_MAX {
            break;
        }
        let ahead = beginning.flatten().unwrap_or_default();
        let taken = ahead.len() + structure.as_ref().map_or(0, Structure::memory);
        found.push(Letter { blob, structure, ahead });
        match room.checked_sub(taken) {
            Some(left) => room = left,
            None => break,
        }
    }
    Ok(found)
}

/// One slice of a search.
fn find(
    store: &Store,
    mailbox: MailboxId,
    uids: &UidSet,
    search: &Search,
    now: Timestamp,
) -> Result<Answer, ReadError> {
    let question = Question { mailbox, uids, key: &search.key, recent: &search.recent, now };
    let slice = super::search::search(store, question, Budget::default())?;
    Ok(Answer::Found { uids: slice.hits, modseq: slice.modseq, next: slice.next, now })
}
