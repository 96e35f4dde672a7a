//! SORT and THREAD against the store (RFC 5256).
//!
//! An entry takes sixteen bytes a message while it is sorted: twelve of what it is sorted by, and the
//! uid. Where these twelve are the same, the messages concerned are read again for the next twelve, and
//! so on: a mailbox of any size is sorted in memory of a known size.

use crate::mail::mailbox::{MailboxId, Uid};
use crate::mail::message::{Message, UidSet};
use crate::mail::structure::Field;
use crate::mail::text::decode_words;
use crate::protocol::imap::search::{SortKey, Threading};
use crate::protocol::imap::sorting::{needs_structure, sent, sort_bytes};
use crate::protocol::imap::threading::{Facts, Gatherer, Twig};
use crate::store::{Bodies, ReadError, Reader};

/// Bytes of what a message is sorted by that are held at a time.
const WINDOW: usize = 12;

/// A message among those being sorted: sixteen bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    window: [u8; WINDOW],
    uid: u32,
}

/// Reads what a message is sorted by.
struct Keys<'k> {
    reader: &'k Reader,
    /// Where the structures are, if the order needs them.
    bodies: Option<Bodies>,
    mailbox: MailboxId,
    order: &'k [SortKey],
}

impl Keys<'_> {
    fn key(&self, message: &Message) -> Result<Vec<u8>, ReadError> {
        let structure = match &self.bodies {
            Some(bodies) => bodies.structure(message.blob)?,
            None => None,
        };
        Ok(sort_bytes(self.order, message, structure.as_ref()))
    }

    /// What counts from `offset` on, and whether that is all.
    fn window(&self, message: &Message, offset: usize) -> Result<([u8; WINDOW], bool), ReadError> {
        let key = self.key(message)?;
        let rest = key.get(offset..).unwrap_or_default();
        let mut window = [0; WINDOW];
        for (to, from) in window.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok((window, rest.len() <= WINDOW))
    }
}

/// Those of `uids` that are there, in order. Blocks.
///
/// # Errors
/// When the mailbox can't be read.
pub fn sort(reader: &Reader, mailbox: MailboxId, uids: &UidSet, order: &[SortKey]) -> Result<Vec<Uid>, ReadError> {
    let bodies = if needs_structure(order) { Some(reader.bodies()?) } else { None };
    let keys = Keys { reader, bodies, mailbox, order };
    let mut entries = Vec::new();
    let mut ended = true;
    for (first, last) in uids.ranges() {
        for message in reader.messages(mailbox, *first, *last)? {
            let message = message?;
            let (window, all) = keys.window(&message, 0)?;
            ended &= all;
            entries.push(Entry { window, uid: message.uid.get() });
        }
    }
    entries.sort_unstable();
    if !ended {
        let mut ties = vec![(0, entries.len(), WINDOW)];
        while let Some((from, to, offset)) = ties.pop() {
            refine(&keys, &mut entries, (from, to, offset), &mut ties)?;
        }
    }
    Ok(entries.into_iter().filter_map(|entry| Uid::new(entry.uid)).collect())
}

/// Sorts the runs of the same window between two places by what follows, and notes which of them may
/// need another look.
fn refine(
    keys: &Keys<'_>,
    entries: &mut [Entry],
    (from, to, offset): (usize, usize, usize),
    ties: &mut Vec<(usize, usize, usize)>,
) -> Result<(), ReadError> {
    let mut start = from;
    for run in entries.get_mut(from..to).unwrap_or_default().chunk_by_mut(|a, b| a.window == b.window) {
        let end = start + run.len();
        if run.len() > 1 {
            let mut ended = true;
            for entry in run.iter_mut() {
                let Some(message) =
                    Uid::new(entry.uid).map(|uid| keys.reader.message(keys.mailbox, uid)).transpose()?
                else {
                    continue;
                };
                let Some(message) = message else { continue };
                let (window, all) = keys.window(&message, offset)?;
                entry.window = window;
                ended &= all;
            }
            run.sort_unstable();
            if !ended {
                ties.push((start, end, offset + WINDOW));
            }
        }
        start = end;
    }
    Ok(())
}

/// Those of `uids` that are there, in threads. Blocks.
///
/// # Errors
/// When the mailbox can't be read.
pub fn thread(
    reader: &Reader,
    mailbox: MailboxId,
    uids: &UidSet,
    threading: Threading,
) -> Result<Vec<Twig>, ReadError> {
    let bodies = reader.bodies()?;
    let mut gatherer = Gatherer::new(threading);
    for (first, last) in uids.ranges() {
        for message in reader.messages(mailbox, *first, *last)? {
            let message = message?;
            let structure = bodies.structure(message.blob)?;
            let wanted = [Field::MessageId, Field::References, Field::InReplyTo, Field::Subject, Field::Date];
            let found = structure.as_ref().map(|structure| structure.fields(wanted));
            let [id, references, in_reply_to, subject, date] = found.unwrap_or_default();
            let subject = decode_words(subject.unwrap_or_default());
            let facts = Facts { id, references, in_reply_to, subject: &subject, sent: sent(date, &message) };
            gatherer.take(message.uid, &facts);
        }
    }
    Ok(gatherer.threads())
}
