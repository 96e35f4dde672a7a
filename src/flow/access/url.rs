//! What an IMAP URL names, read from the store: for CATENATE (RFC 4469), URLFETCH (RFC 4467) and BURL
//! (RFC 4468).
//!
//! A message or a part of it is found by the mailbox's name, its UIDVALIDITY and the uid, and read
//! piece by piece. An authorized URL carries an HMAC of its own text under a key of its mailbox. That
//! key is kept as an annotation which clients do not see, so it lives and goes with the mailbox.

use ring::hmac;

use crate::mail::annotation::EntryName;
use crate::mail::date::Timestamp;
use crate::mail::header::HeaderFilter;
use crate::mail::mailbox::{AccountId, Mailbox, MailboxId};
use crate::mail::message::BlobId;
use crate::mail::structure::{Extent, Section};
use crate::protocol::imap::fetch::SectionKind;
use crate::protocol::imap::url::{Bearer, ImapUrl};
use crate::store::{Body, Pending, ReadError, Reader, Store};

/// Bytes that are read at once: a block as bodies are kept.
pub const PIECE_BYTES: usize = 64 * 1024;

/// The annotation that is a mailbox's access key.
const KEY_ENTRY: &str = "/private/vendor/pillarbox/urlauth-key";

/// Where the bytes of a URL lie.
#[derive(Debug)]
pub struct Part {
    blob: BlobId,
    extent: Extent,
    /// Fields of a header that are wanted, or with `true` not wanted.
    fields: Option<(Vec<String>, bool)>,
    partial: Option<(u32, Option<u32>)>,
}

impl Part {
    /// Finds what `url` names in its mailbox; `None` where there is no such message or part.
    ///
    /// # Errors
    /// As the store.
    pub fn find(reader: &Reader, mailbox: &Mailbox, url: &ImapUrl) -> Result<Option<Self>, ReadError> {
        if url.uid_validity.is_some_and(|wanted| wanted != mailbox.uid_validity.0.get()) {
            return Ok(None);
        }
        let Some(row) = reader.message(mailbox.id, url.uid)? else { return Ok(None) };
        let mut fields = None;
        let extent = match &url.section {
            None => Some(Extent { offset: 0, length: u64::from(row.size) }),
            Some((path, kind)) => {
                let section = match kind {
                    SectionKind::Body | SectionKind::Binary | SectionKind::BinarySize => Section::Body,
                    SectionKind::Mime => Section::Mime,
                    SectionKind::Text => Section::Text,
                    SectionKind::Header => Section::Header,
                    SectionKind::HeaderFields(names, except) => {
                        fields = Some((names.clone(), *except));
                        Section::Header
                    }
                };
                let structure = reader.structure(mailbox.id, url.uid)?;
                structure.and_then(|structure| structure.extent(path, section))
            }
        };
        Ok(extent.map(|extent| Self { blob: row.blob, extent, fields, partial: url.partial }))
    }

    /// How many bytes it has. May block: a header with chosen fields is read for it.
    ///
    /// # Errors
    /// As the store.
    pub fn length(&self, store: &Store) -> Result<u64, ReadError> {
        if self.fields.is_none() {
            let (skip, most) = range(self.partial);
            return Ok(self.extent.length.saturating_sub(skip).min(most));
        }
        let (mut reader, mut length) = (PartReader::open(store, self)?, 0);
        loop {
            let bytes = reader.read(PIECE_BYTES)?.len();
            if bytes == 0 {
                return Ok(length);
            }
            length += bytes as u64;
        }
    }
}

/// How many bytes a range skips, and how many it holds at most.
fn range(partial: Option<(u32, Option<u32>)>) -> (u64, u64) {
    partial.map_or((0, u64::MAX), |(offset, length)| (u64::from(offset), length.map_or(u64::MAX, u64::from)))
}

/// Reads a part piece by piece.
#[derive(Debug)]
pub struct PartReader {
    body: Body,
    /// What of the body is still to be read.
    offset: u64,
    end: u64,
    window: Window,
    filter: Option<HeaderFilter>,
    /// The block of the body that lies open.
    block: Option<u64>,
}

impl PartReader {
    /// Opens the body. May block.
    ///
    /// # Errors
    /// As the store.
    pub fn open(store: &Store, part: &Part) -> Result<Self, ReadError> {
        let body = store.body(part.blob)?;
        let (mut skip, left) = range(part.partial);
        let filter = part.fields.as_ref().map(|(names, except)| HeaderFilter::new(names, *except));
        let (mut offset, end) = (part.extent.offset, part.extent.offset.saturating_add(part.extent.length));
        if filter.is_none() {
            // What stands before the range need not be read.
            offset = offset.saturating_add(skip).min(end);
            skip = 0;
        }
        Ok(Self { body, offset, end, window: Window { skip, left }, filter, block: None })
    }

    /// Tells whether the next bytes lie open, so that reading them costs nothing and does not block.
    #[must_use]
    pub fn is_at_hand(&self) -> bool {
        self.filter.is_none() && self.block == Some(self.offset / PIECE_BYTES as u64)
    }

    /// The next bytes, some `max` of them; none at the end. May block.
    ///
    /// # Errors
    /// The store cannot be read, or the body ends before the part does.
    pub fn read(&mut self, max: usize) -> Result<Vec<u8>, ReadError> {
        while self.window.left > 0 {
            let mut made = Vec::new();
            if self.offset < self.end {
                let most = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX).min(max);
                self.block = Some(self.offset / PIECE_BYTES as u64);
                let bytes = self.body.read(self.offset, most)?;
                if bytes.is_empty() {
                    return Err(ReadError::Storage("a body is shorter than its part".to_owned()));
                }
                self.offset = self.offset.saturating_add(bytes.len() as u64);
                match &mut self.filter {
                    Some(filter) => filter.feed(bytes, &mut made),
                    None => made.extend_from_slice(bytes),
                }
            } else {
                match self.filter.take() {
                    Some(filter) => filter.finish(&mut made),
                    None => break,
                }
            }
            let made = self.window.clip(made);
            if !made.is_empty() {
                return Ok(made);
            }
        }
        Ok(Vec::new())
    }
}

/// The range of a part that is wanted, as its bytes go by.
#[derive(Debug)]
struct Window {
    skip: u64,
    left: u64,
}

impl Window {
    fn clip(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.skip -= skipped as u64;
        bytes.drain(..skipped);
        bytes.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= bytes.len() as u64;
        bytes
    }
}

/// Who shows an authorized URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visitor {
    /// An account that submits a message.
    Submitting(AccountId),
    /// An account that is logged in.
    LoggedIn(AccountId),
}

/// Finds what an authorized URL names, if its token is right, has not expired and is for this visitor
/// (RFC 4467 section 6). `text` is the URL as it was given.
///
/// # Errors
/// As the store.
pub fn authorized(
    reader: &Reader,
    text: &str,
    url: &ImapUrl,
    visitor: Visitor,
    now: Timestamp,
) -> Result<Option<Part>, ReadError> {
    let Some(access) = &url.access else { return Ok(None) };
    let owner = url.server.as_ref().and_then(|server| server.user.as_deref());
    let (Some(token), Some(owner), Some(rump)) = (&access.token, owner, text.get(..access.rump)) else {
        return Ok(None);
    };
    let is_for = match (&access.bearer, visitor) {
        (Bearer::Submit(name), Visitor::Submitting(who)) | (Bearer::User(name), Visitor::LoggedIn(who)) => {
            reader.login(name)?.is_some_and(|(account, _)| account.id == who)
        }
        (Bearer::AnyUser | Bearer::Anybody, _) => true,
        _ => false,
    };
    if !is_for || access.expires.is_some_and(|end| end <= now) {
        return Ok(None);
    }
    let Some((owner, _)) = reader.login(owner)? else { return Ok(None) };
    let Some(mailbox) = reader.mailbox_named(owner.id, &url.mailbox)? else { return Ok(None) };
    let Some(key) = key(reader, owner.id, mailbox.id)? else { return Ok(None) };
    if hmac::verify(&key, rump.as_bytes(), token).is_err() {
        return Ok(None);
    }
    Part::find(reader, &mailbox, url)
}

/// The access key of a mailbox, if it has one (RFC 4467 section 2).
///
/// # Errors
/// As the store.
pub fn key(reader: &Reader, account: AccountId, mailbox: MailboxId) -> Result<Option<hmac::Key>, ReadError> {
    let found = reader.annotations(account, Some(mailbox))?.into_iter().find(|one| is_key(&one.entry));
    Ok(found.map(|one| hmac::Key::new(hmac::HMAC_SHA256, &one.value)))
}

/// The token that authorizes a URL up to its mechanism, under a mailbox's key.
#[must_use]
pub fn token(key: &hmac::Key, rump: &str) -> [u8; 32] {
    hmac::sign(key, rump.as_bytes()).as_ref().try_into().unwrap_or_default()
}

/// Gives a mailbox an access key; without one its key goes, and with it all that was authorized.
pub fn set_key(store: &Store, account: AccountId, mailbox: MailboxId, key: Option<[u8; 32]>) -> Option<Pending<()>> {
    let entry = EntryName::new(KEY_ENTRY)?;
    Some(store.annotate(account, Some(mailbox), vec![(entry, key.map(|key| key.to_vec()))]))
}

/// Tells whether an annotation is a mailbox's access key, which is no client's business.
#[must_use]
pub fn is_key(entry: &EntryName) -> bool {
    entry.as_str() == KEY_ENTRY
}
