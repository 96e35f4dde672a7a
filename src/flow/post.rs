//! Mail to a list: who may write, the copy that its members get, and who they are.
//!
//! The list's copy is a message of its own: it has the list's fields, and failures come back to the
//! list's owners, not to who wrote. Nothing else of it changes, so the author's signature stays good.
//! What the list sent itself, and what programs answer by themselves, is not taken, so no circle begins.

use super::arrive::{has_room, unreadable};
use super::forward::Reached;
use super::letter::{Letter, LetterError, Start};
use crate::mail::address::Address;
use crate::mail::envelope::{BodyType, Envelope, ForwardPath, Notify, Recipient, ReturnContent, ReversePath};
use crate::mail::header::FieldReader;
use crate::mail::list::{BOUNCES, List, MEMBERS_MAX};
use crate::mail::mailbox::AccountId;
use crate::mail::queue::{Due, NewQueued};
use crate::protocol::smtp::Reply;
use crate::store::{Folder, NewMessage, Parcel, ReadError, Reader, Spool};

/// Most lists that one message goes to: each gets a copy while it comes.
pub const LISTS_MAX: usize = 3;

/// Says whether mail from this sender may go to the list.
///
/// # Errors
/// The reply to RCPT.
pub(super) fn recipient(list: List, from: &ReversePath) -> Result<List, Reply> {
    match from {
        ReversePath::Null => Err(Reply::new(550, "5.7.1", "this list takes no notifications")),
        ReversePath::Address(sender) if list.takes_from(sender) => Ok(list),
        ReversePath::Address(_) => Err(Reply::new(550, "5.7.2", "this sender may not write to this list")),
    }
}

/// A list's copy of a message that comes.
#[derive(Debug)]
pub struct Post {
    list: List,
    letter: Letter,
    envelope: Envelope,
    fields: FieldReader,
    fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The list sent it.
    Circle,
    /// A program wrote it.
    Automatic,
}

/// A list's copy that has come.
#[derive(Debug)]
pub struct Ready {
    /// The message.
    pub message: NewMessage,
    /// Where failures are told of.
    pub from: ReversePath,
    /// Members here.
    pub accounts: Vec<AccountId>,
    /// Members here whose mailbox is full: they get no copy, and hold nobody else's up.
    pub full: Vec<Address>,
    /// What goes to the others.
    pub queued: Option<NewQueued>,
}

impl Ready {
    /// The copy with where it goes.
    #[must_use]
    pub fn parcel(self) -> Parcel {
        let local = self.accounts.into_iter().map(|account| (account, Folder::Inbox)).collect();
        Parcel { message: self.message, local, queued: self.queued.into_iter().collect(), held: false }
    }
}

impl Post {
    /// Begins a copy; `start` is the message's own.
    ///
    /// # Errors
    /// As [`Letter::begin`].
    pub fn begin(list: List, spool: Spool, start: &Start<'_>) -> Result<Self, LetterError> {
        let recipient = |address: Address| Recipient {
            path: ForwardPath::Address(address),
            notify: Notify::default(),
            original: None,
        };
        let envelope = Envelope {
            from: list.with_suffix(BOUNCES).map_or(ReversePath::Null, ReversePath::Address),
            recipients: vec![recipient(list.address.clone())],
            // How each member's copy went is the owners' matter (RFC 3461 section 5.2.7.2).
            ret: Some(ReturnContent::Headers),
            envelope_id: None,
            ..start.envelope.clone()
        };
        let letter = Letter::begin(
            spool,
            &Start { envelope: &envelope, judged: false, signed: false, list: Some(&list), ..*start },
        )?;
        Ok(Self { list, letter, envelope, fields: FieldReader::new(), fault: None })
    }

    /// Adds content. May block when the message's own letter does.
    ///
    /// # Errors
    /// As [`Letter::write`].
    pub fn write(&mut self, content: &[u8]) -> Result<(), LetterError> {
        let id = format!("<{}>", self.list.id());
        let fault = &mut self.fault;
        self.fields.feed(content, |name, body| look(fault, &id, name, body));
        self.letter.write(content)
    }

    /// Ends the copy. May block.
    ///
    /// # Errors
    /// The reply to the message.
    pub fn finish(self, reader: &Reader, by: Option<AccountId>, due: Due, require_tls: bool) -> Result<Ready, Reply> {
        let Self { list, letter, envelope, fields, mut fault } = self;
        let id = format!("<{}>", list.id());
        fields.finish(|name, body| look(&mut fault, &id, name, body));
        match fault {
            Some(Fault::Circle) => {
                return Err(Reply::new(554, "5.4.6", "this message came from the list: it goes in a circle"));
            }
            Some(Fault::Automatic) => {
                return Err(Reply::new(550, "5.7.1", "answers that programs write are not for lists"));
            }
            None => {}
        }
        let Reached { accounts: all, outside, .. } = members(reader, &list).map_err(|error| unreadable(&error))?;
        let nature = letter.nature(envelope.utf8);
        let message = letter.finish().map_err(|error| error.reply())?;
        let (mut accounts, mut full) = (Vec::new(), Vec::new());
        for id in all {
            let Some(account) = reader.account(id).map_err(|error| unreadable(&error))? else { continue };
            if has_room(&account, message.body.size()) {
                accounts.push(id);
            } else {
                full.push(account.address);
            }
        }
        let from = envelope.from.clone();
        let recipients: Vec<Recipient> = outside
            .into_iter()
            .map(|to| Recipient { path: ForwardPath::Address(to), notify: Notify::default(), original: None })
            .collect();
        let body = match (nature.binary, nature.eight_bit) {
            (true, _) if envelope.body == BodyType::BinaryMime => BodyType::BinaryMime,
            (_, true) => BodyType::EightBitMime,
            _ => BodyType::SevenBit,
        };
        let queued = (!recipients.is_empty()).then_some(NewQueued {
            envelope: Envelope { recipients, body, utf8: nature.utf8_header, ..envelope },
            // What the author demanded of the way holds for the list's copy too (RFC 8689 section 6).
            require_tls,
            by: by.into(),
            due,
        });
        Ok(Ready { message, from, accounts, full, queued })
    }
}

/// Where a list's members are.
fn members(reader: &Reader, list: &List) -> Result<Reached, ReadError> {
    let mut reached = Reached::up_to(MEMBERS_MAX);
    for member in &list.members {
        reached.follow(reader, member, 0)?;
    }
    Ok(reached)
}

/// Looks at a field (RFC 2919 section 6, RFC 3834 section 2).
fn look(fault: &mut Option<Fault>, id: &str, name: &[u8], body: &[u8]) {
    let body = String::from_utf8_lossy(body).to_ascii_lowercase();
    if name.eq_ignore_ascii_case(b"list-id") && body.contains(id) {
        *fault = Some(Fault::Circle);
    } else if name.eq_ignore_ascii_case(b"auto-submitted") && !body.trim().starts_with("no") {
        fault.get_or_insert(Fault::Automatic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::list::tests::{address, list};

    #[test]
    fn who_may_not_write_is_told() {
        let from = |text: &str| ReversePath::Address(address(text));
        assert!(recipient(list(), &from("bob@ship.test")).is_ok());
        let refused = recipient(list(), &from("eve@x.test")).unwrap_err().to_string();
        assert!(refused.contains("may not write"), "{refused}");
        assert!(recipient(list(), &ReversePath::Null).is_err());
    }

    #[test]
    fn what_the_list_sent_and_what_programs_answer_is_seen() {
        let seen = |header: &str| {
            let (mut fault, mut fields) = (None, FieldReader::new());
            fields.feed(header.as_bytes(), |name, body| look(&mut fault, "<crew.ship.test>", name, body));
            fault
        };
        assert_eq!(seen("Subject: a\r\nLIST-ID: \"x\"\r\n <Crew.ship.test>\r\n\r\n"), Some(Fault::Circle));
        assert_eq!(seen("List-Id: <other.test>\r\n\r\nList-Id: <crew.ship.test>\r\n"), None);
        assert_eq!(seen("Auto-Submitted: auto-replied (x)\r\n\r\n"), Some(Fault::Automatic));
        assert_eq!(seen("Auto-Submitted: No\r\n\r\n"), None);
    }
}
