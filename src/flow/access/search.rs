//! SEARCH against the store (RFC 9051 section 6.4.4), in slices.
//!
//! A slice looks at so many messages or reads so many bytes of bodies as its [`Budget`] allows and
//! says where to go on, so that a long search shares the blocking threads with everybody and ends
//! when its client goes. Between slices nothing is held but the answer so far; within one, a block
//! of a body, a piece of its text, and what the gram index says of some thousand bodies.

use crate::mail::date::Timestamp;
use crate::mail::mailbox::{MailboxId, ModSeq, Uid};
use crate::mail::message::{BlobId, Message, UidSet};
use crate::mail::structure::{Extent, Structure};
use crate::protocol::imap::matching::{Query, Setting, Source};
use crate::protocol::imap::search::SearchKey;
use crate::store::{Bodies, Body, ReadError, Store};

use super::sift::Sift;

/// Bytes of a body asked for at once; the store hands out at most the rest of a block.
const CHUNK: usize = 64 * 1024;

/// What a look at a message's structure counts for, in bytes of the [`Budget`].
const STRUCTURE_COST: u64 = 1024;

/// What is searched, and for what.
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    /// Where.
    pub mailbox: MailboxId,
    /// Which messages to look at.
    pub uids: &'q UidSet,
    /// What must hold; its sequence sets are resolved.
    pub key: &'q SearchKey,
    /// Messages that are `\Recent` to the session.
    pub recent: &'q UidSet,
    /// The present, for OLDER and YOUNGER.
    pub now: Timestamp,
}

/// What one slice may cost. It ends with the message that reaches a bound.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Messages looked at. Default: 16,384, some ten milliseconds where no message is opened.
    pub messages: u32,
    /// Bytes of headers and bodies read, and 1 KiB for each message opened at all. Default: 4 MiB.
    pub bytes: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { messages: 16 * 1024, bytes: 4 * 1024 * 1024 }
    }
}

/// What a slice found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// Messages that are what was asked for.
    pub hits: UidSet,
    /// The highest modification sequence among them (RFC 7162 section 3.1.5).
    pub modseq: ModSeq,
    /// Where to go on: the next of the question's uids that was not looked at.
    pub next: Option<Uid>,
    /// Messages that could not be read and therefore count as not found.
    pub unreadable: u32,
}

/// Looks at the messages of `question` from the lowest uid on, as far as `budget` goes. Blocks.
///
/// A message that can't be read is passed over and counted, so that one damaged body does not
/// make its mailbox unsearchable. A mailbox that has gone has no messages.
///
/// # Errors
/// When the mailbox itself can't be read.
pub fn search(store: &Store, question: Question<'_>, budget: Budget) -> Result<Slice, ReadError> {
    let reader = store.reader()?;
    let Some(mailbox) = reader.mailbox(question.mailbox)? else { return Ok(Slice::default()) };
    let setting = Setting { keywords: &mailbox.keywords, recent: question.recent, now: question.now };
    let query = Query::new(question.key, setting);
    let narrowed = query.only().map(|only| question.uids.intersection(only));
    let uids = narrowed.as_ref().unwrap_or(question.uids);
    // Without the gram index everything is read.
    let sift = if query.looks().is_empty() { None } else { reader.grams().ok() };
    let sift = sift.map(|grams| Sift::new(grams, query.looks()));
    let open = Open::new(store);
    let mut letters = Letters { bodies: reader.bodies()?, open, sift, bytes: 0 };
    let mut slice = Slice::default();
    let mut looked_at = 0;
    for (first, last) in uids.ranges() {
        for message in reader.messages(question.mailbox, *first, *last)? {
            let message = message?;
            if looked_at >= budget.messages || letters.bytes >= budget.bytes {
                slice.next = Some(message.uid);
                return Ok(slice);
            }
            looked_at += 1;
            match query.matches(&message, &mut letters) {
                Ok(true) => {
                    slice.hits.insert(message.uid);
                    slice.modseq = slice.modseq.max(message.modseq);
                }
                Ok(false) => {}
                Err(ReadError::Closed) => return Err(ReadError::Closed),
                Err(ReadError::Storage(what)) => {
                    tracing::warn!(mailbox = question.mailbox.0, uid = message.uid.get(), what, "can't be searched");
                    slice.unreadable += 1;
                }
            }
        }
    }
    Ok(slice)
}

/// The messages of a mailbox, as a search reads them.
struct Letters<'s> {
    bodies: Bodies,
    open: Open<'s>,
    sift: Option<Sift<'s>>,
    bytes: u64,
}

/// Bodies of which parts are read. The one read last stays open: a message's headers and parts lie
/// in the same blocks.
#[derive(Debug)]
pub(in crate::flow) struct Open<'s> {
    store: &'s Store,
    body: Option<(BlobId, Body)>,
}

impl<'s> Open<'s> {
    pub(in crate::flow) fn new(store: &'s Store) -> Self {
        Self { store, body: None }
    }

    /// Hands the bytes of `extent` to `take` until there are no more or it says false; tells how many
    /// were read.
    pub(in crate::flow) fn read(
        &mut self,
        blob: BlobId,
        extent: Extent,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<u64, ReadError> {
        if self.body.as_ref().is_none_or(|(open, _)| *open != blob) {
            self.body = Some((blob, self.store.body(blob)?));
        }
        let Some((_, body)) = &mut self.body else { return Ok(0) };
        let end = extent.offset.saturating_add(extent.length);
        let mut offset = extent.offset;
        while offset < end {
            let wanted = usize::try_from(end - offset).unwrap_or(CHUNK).min(CHUNK);
            let piece = body.read(offset, wanted)?;
            if piece.is_empty() {
                break;
            }
            offset += piece.len() as u64;
            if !take(piece) {
                break;
            }
        }
        Ok(offset - extent.offset)
    }
}

impl Source for Letters<'_> {
    type Error = ReadError;

    fn structure(&mut self, message: &Message) -> Result<Option<Structure>, ReadError> {
        self.bytes += STRUCTURE_COST;
        self.bodies.structure(message.blob)
    }

    fn lacks(&mut self, message: &Message, look: usize) -> Result<bool, ReadError> {
        self.sift.as_mut().map_or(Ok(false), |sift| sift.lacks(message.blob, look))
    }

    fn read(
        &mut self,
        message: &Message,
        extent: Extent,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), ReadError> {
        self.bytes += self.open.read(message.blob, extent, take)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::Address;
    use crate::mail::date::ZonedTime;
    use crate::mail::mailbox::{AccountId, MailboxName, Quota};
    use crate::mail::message::{FlagNames, SystemFlags};
    use crate::mail::secret::ScramVerifier;
    use crate::mail::structure::Walker;
    use crate::store::{NewMessage, StoreConfig};

    /// A store with one account, whose INBOX holds these messages.
    struct Filled {
        store: Store,
        inbox: MailboxId,
        uids: UidSet,
        _folder: tempfile::TempDir,
    }

    impl Drop for Filled {
        fn drop(&mut self) {
            let _ = self.store.close();
        }
    }

    fn message(store: &Store, letter: &str, seen: bool) -> NewMessage {
        let (mut spool, mut walker) = (store.spool().unwrap(), Walker::new());
        spool.write(letter.as_bytes()).unwrap();
        walker.feed(letter.as_bytes());
        let system = if seen { SystemFlags::SEEN } else { SystemFlags::default() };
        NewMessage {
            body: spool.finish().unwrap(),
            structure: walker.finish(),
            internal_date: ZonedTime::utc(Timestamp(1_000_000)),
            flags: FlagNames { system, keywords: Vec::new() },
        }
    }

    fn filled(letters: &[String]) -> Filled {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &StoreConfig { reserve_bytes: 0, ..StoreConfig::default() }).unwrap();
        let verifier = ScramVerifier { salt: [0; 16], iterations: 4096, stored_key: [0; 32], server_key: [0; 32] };
        let address = Address::parse("ann@example.org").unwrap();
        let account: AccountId = store.add_account(address, verifier, Quota::default()).wait().unwrap();
        let inbox = store.reader().unwrap().mailbox_named(account, &MailboxName::inbox()).unwrap().unwrap().id;
        for (index, letter) in letters.iter().enumerate() {
            store.append(inbox, vec![message(&store, letter, index % 2 == 1)]).wait().unwrap();
        }
        let uids = store.reader().unwrap().uids(inbox).unwrap();
        Filled { store, inbox, uids, _folder: folder }
    }

    fn letter(number: usize) -> String {
        format!(
            "Subject: letter {number}\r\nX-Number: n{number}\r\n\r\nThe body of {number}, {}.\r\n",
            "z".repeat(3000)
        )
    }

    /// Searches to the end in slices; the numbers of what was found and how many slices it took.
    fn all(mail: &Filled, key: &SearchKey, budget: Budget) -> (Vec<u32>, u32) {
        let (mut hits, mut slices, mut rest) = (Vec::new(), 0, mail.uids.clone());
        loop {
            let recent = UidSet::new();
            let now = Timestamp(2_000_000);
            let question = Question { mailbox: mail.inbox, uids: &rest, key, recent: &recent, now };
            let slice = search(&mail.store, question, budget).unwrap();
            assert_eq!(slice.unreadable, 0);
            assert_eq!(slice.hits.is_empty(), slice.modseq == ModSeq(0));
            hits.extend(slice.hits.iter().map(Uid::get));
            slices += 1;
            let Some(next) = slice.next else { return (hits, slices) };
            rest = rest.iter().filter(|uid| *uid >= next).collect();
        }
    }

    #[test]
    fn messages_are_found_by_flags_fields_and_text() {
        let mail = filled(&(1..=6).map(letter).collect::<Vec<_>>());
        let budget = Budget::default();
        let header = |name: &str, text: &str| SearchKey::Header(name.to_owned(), text.to_owned());
        assert_eq!(all(&mail, &SearchKey::Flag(SystemFlags::SEEN), budget), (vec![2, 4, 6], 1));
        assert_eq!(all(&mail, &header("subject", "LETTER 3"), budget).0, [3]);
        assert_eq!(all(&mail, &header("x-number", "N5"), budget).0, [5]);
        assert_eq!(all(&mail, &SearchKey::Body("body OF 4".to_owned()), budget).0, [4]);
        assert_eq!(all(&mail, &SearchKey::Body("letter".to_owned()), budget).0, [0; 0]);
        assert_eq!(all(&mail, &SearchKey::Text("n6".to_owned()), budget).0, [6]);
        let some = [2, 3].into_iter().filter_map(Uid::new).collect();
        assert_eq!(all(&mail, &SearchKey::Uids(some), budget).0, [2, 3]);
    }

    #[test]
    fn a_search_in_slices_finds_the_same() {
        let mail = filled(&(1..=7).map(letter).collect::<Vec<_>>());
        let text = SearchKey::Text("the body".to_owned());
        assert_eq!(all(&mail, &text, Budget::default()), ((1..=7).collect(), 1));
        assert_eq!(all(&mail, &text, Budget { messages: 2, ..Budget::default() }), ((1..=7).collect(), 4));
        let nowhere = SearchKey::Text("nowhere".to_owned());
        assert_eq!(all(&mail, &nowhere, Budget { bytes: 5000, ..Budget::default() }), (Vec::new(), 4));
    }

    #[test]
    fn a_mailbox_that_has_gone_has_no_messages() {
        let mail = filled(&[letter(1)]);
        let (key, recent) = (SearchKey::All, UidSet::new());
        let question =
            Question { mailbox: MailboxId(999), uids: &mail.uids, key: &key, recent: &recent, now: Timestamp(0) };
        assert_eq!(search(&mail.store, question, Budget::default()), Ok(Slice::default()));
    }
}
