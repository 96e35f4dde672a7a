//! What readers teach the spam filter by what they do with their mail.
//!
//! Mail that comes into Junk by MOVE, COPY or APPEND is spam, mail that leaves it for another mailbox
//! than Trash is wanted, and so say the keywords `$Junk` and `$NotJunk` (RFC 9051 section 2.3.2), which
//! clients set. Weaker signs count only until somebody says otherwise, and are then taken back: mail
//! that was read and left where it is, and mail that was put into Sent, is wanted.
//!
//! [`lesson`] looks at a request before it is done, and [`Lesson::teach`] at the messages afterwards,
//! on a thread that may block. The number of messages that one request teaches has a bound.

use crate::filter::spam::{Class, WINDOW_MAX};
use crate::mail::mailbox::{AccountId, Mailbox, MailboxId, SpecialUse, Uid};
use crate::mail::message::{BlobId, FlagMode, FlagNames, Flagged, Placed, SystemFlags, UidSet};
use crate::protocol::imap::request::{Answer, Request};
use crate::store::{ReadError, Reader, Store};

use super::judge::Filter;

/// Messages that one request teaches; of more, the newest. Reading one takes a millisecond or
/// several, and a filter learns little from the five hundredth of a kind.
const TAUGHT_MAX: usize = 500;

/// As [`TAUGHT_MAX`], for signs that are weak: "mark all as read" says little.
const SUGGESTED_MAX: usize = 20;

/// What a request says of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// Its reader says it.
    Said(Class),
    /// It seems so, as long as nobody says otherwise.
    Suggested(Class),
}

/// What a request will say of messages, once it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lesson {
    account: AccountId,
    /// Where the messages are then.
    mailbox: MailboxId,
    /// Those that are marked; those that are placed have numbers only when they are.
    marked: Option<UidSet>,
    sign: Sign,
}

/// A lesson and the messages it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    lesson: Lesson,
    uids: UidSet,
}

/// What a request says of messages; `None` where it says nothing.
///
/// # Errors
/// When the store cannot be read.
pub fn lesson(
    store: &Store,
    account: AccountId,
    request: &Request,
    from_reading: bool,
) -> Result<Option<Lesson>, ReadError> {
    let lesson = |mailbox, marked, sign| Some(Lesson { account, mailbox, marked, sign });
    Ok(match request {
        Request::Copy { from, to, .. } | Request::Move { from, to, .. } => {
            let reader = store.reader()?;
            let (Some(from), Some(to)) = (reader.mailbox(*from)?, reader.mailbox(*to)?) else { return Ok(None) };
            // What others' mailboxes are for is theirs to say, and whose filter would learn by it?
            let own = |mailbox: &Mailbox| mailbox.account == account;
            let from = Mailbox { special_use: from.special_use.filter(|_| own(&from)), ..from };
            let class = if own(&to) { moved(&from, &to) } else { None };
            class.and_then(|class| lesson(to.id, None, Sign::Said(class)))
        }
        Request::Flag { mailbox, uids, mode, flags, .. } => {
            let Some(sign) = marked(*mode, flags, from_reading) else { return Ok(None) };
            if store.reader()?.owner(*mailbox)? != Some(account) {
                return Ok(None);
            }
            if matches!(sign, Sign::Suggested(_)) && !is_reading_place(&store.reader()?, *mailbox)? {
                return Ok(None);
            }
            lesson(*mailbox, Some(uids.clone()), sign)
        }
        _ => None,
    })
}

/// What an APPEND into this mailbox says of the message.
#[must_use]
pub fn appended(
    account: AccountId,
    mailbox: MailboxId,
    special_use: Option<SpecialUse>,
    flags: &FlagNames,
) -> Option<Lesson> {
    let sign = match (marked(FlagMode::Add, flags, false), special_use) {
        (Some(sign), _) => sign,
        (None, Some(SpecialUse::Junk)) => Sign::Said(Class::Spam),
        (None, Some(SpecialUse::Sent)) => Sign::Suggested(Class::Ham),
        _ => return None,
    };
    Some(Lesson { account, mailbox, marked: None, sign })
}

/// What it says that mail goes from one mailbox to another.
fn moved(from: &Mailbox, to: &Mailbox) -> Option<Class> {
    match (from.special_use, to.special_use) {
        (Some(SpecialUse::Junk), Some(SpecialUse::Junk | SpecialUse::Trash)) => None,
        (_, Some(SpecialUse::Junk)) => Some(Class::Spam),
        (Some(SpecialUse::Junk), _) => Some(Class::Ham),
        _ => None,
    }
}

/// What it says that flags are set or taken away.
fn marked(mode: FlagMode, flags: &FlagNames, from_reading: bool) -> Option<Sign> {
    let has = |name: &str| flags.keywords.iter().any(|keyword| keyword.as_str().eq_ignore_ascii_case(name));
    let (junk, not_junk) = (has("$Junk") || has("Junk"), has("$NotJunk") || has("NonJunk"));
    match mode {
        FlagMode::Add | FlagMode::Replace if junk != not_junk => {
            Some(Sign::Said(if junk { Class::Spam } else { Class::Ham }))
        }
        FlagMode::Add if from_reading && flags.system.contains(SystemFlags::SEEN) => Some(Sign::Suggested(Class::Ham)),
        // Clients that change from the one to the other take the old one away as well.
        _ => None,
    }
}

/// Tells whether mail that is read in this mailbox is mail that was wanted.
fn is_reading_place(reader: &Reader, mailbox: MailboxId) -> Result<bool, ReadError> {
    use SpecialUse::{Drafts, Junk, Sent, Trash};
    let found = reader.mailbox(mailbox)?;
    Ok(found.is_some_and(|mailbox| !matches!(mailbox.special_use, Some(Junk | Trash | Drafts | Sent))))
}

impl Lesson {
    /// The messages it is about, now that the request is done; `None` where there are none.
    #[must_use]
    pub fn given(self, answer: &Answer) -> Option<Given> {
        let uids = match answer {
            Answer::Placed(Placed { to, .. }) => to.clone(),
            Answer::Flagged(Flagged { modified, .. }) => {
                let mut uids = self.marked.clone()?;
                uids.subtract(modified);
                uids
            }
            _ => return None,
        };
        (!uids.is_empty()).then_some(Given { lesson: self, uids })
    }
}

impl Given {
    /// Somebody says it, and it does not merely seem so.
    #[must_use]
    pub fn is_said(&self) -> bool {
        matches!(self.lesson.sign, Sign::Said(_))
    }

    /// Teaches the filter. Blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn teach(&self, store: &Store, filter: &Filter) -> Result<usize, ReadError> {
        let Lesson { account, mailbox, sign, .. } = self.lesson;
        let most = if matches!(sign, Sign::Said(_)) { TAUGHT_MAX } else { SUGGESTED_MAX };
        let mut taught = 0;
        let newest_first = self.uids.ranges().iter().rev().flat_map(|(first, last)| (first.get()..=last.get()).rev());
        for uid in newest_first.filter_map(Uid::new).take(most) {
            // One reader each: a long list must not keep the pages of its beginning.
            let Some(message) = store.reader()?.message(mailbox, uid)? else { continue };
            let Ok(head) = head(store, message.blob) else { continue };
            match sign {
                Sign::Said(class) => {
                    filter.teach(&head, Some(account), Some(class))?;
                }
                Sign::Suggested(class) => filter.suggest(&head, account, class)?,
            }
            taught += 1;
        }
        Ok(taught)
    }
}

/// The beginning of a message, as much as the filter looks at.
fn head(store: &Store, blob: BlobId) -> Result<Vec<u8>, ReadError> {
    let (mut body, mut head) = (store.body(blob)?, Vec::new());
    while head.len() < WINDOW_MAX {
        let bytes = body.read(head.len() as u64, WINDOW_MAX - head.len())?;
        if bytes.is_empty() {
            break;
        }
        head.extend_from_slice(bytes);
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::message::Keyword;

    fn flags(system: SystemFlags, keywords: &[&str]) -> FlagNames {
        FlagNames { system, keywords: keywords.iter().filter_map(|name| Keyword::new(name)).collect() }
    }

    #[test]
    fn keywords_say_it_and_reading_suggests_it() {
        let none = SystemFlags::default();
        let said = |mode, flags: &FlagNames| marked(mode, flags, true);
        assert_eq!(said(FlagMode::Add, &flags(none, &["$Junk"])), Some(Sign::Said(Class::Spam)));
        assert_eq!(said(FlagMode::Replace, &flags(none, &["$notjunk"])), Some(Sign::Said(Class::Ham)));
        assert_eq!(said(FlagMode::Add, &flags(none, &["NonJunk"])), Some(Sign::Said(Class::Ham)));
        assert_eq!(said(FlagMode::Add, &flags(none, &["$Junk", "$NotJunk"])), None, "which of them?");
        assert_eq!(said(FlagMode::Remove, &flags(none, &["$Junk"])), None);
        let seen = flags(SystemFlags::SEEN, &[]);
        assert_eq!(said(FlagMode::Add, &seen), Some(Sign::Suggested(Class::Ham)));
        assert_eq!(said(FlagMode::Remove, &seen), None);
        assert_eq!(marked(FlagMode::Add, &seen, false), None, "when it is turned off");
    }

    #[test]
    fn an_append_says_it_by_its_mailbox_and_louder_by_its_keywords() {
        let sign = |special_use, keywords: &[&str]| {
            let flags = flags(SystemFlags::SEEN, keywords);
            appended(AccountId(1), MailboxId(2), special_use, &flags).map(|lesson| lesson.sign)
        };
        assert_eq!(sign(Some(SpecialUse::Junk), &[]), Some(Sign::Said(Class::Spam)));
        assert_eq!(sign(Some(SpecialUse::Junk), &["$NotJunk"]), Some(Sign::Said(Class::Ham)));
        assert_eq!(sign(Some(SpecialUse::Sent), &[]), Some(Sign::Suggested(Class::Ham)));
        assert_eq!(sign(Some(SpecialUse::Drafts), &[]), None);
        assert_eq!(sign(None, &[]), None);
    }
}
