//! GETMETADATA and SETMETADATA (RFC 5464), and their part of LIST (RFC 9590).

use std::sync::Arc;
use std::vec::IntoIter;

use crate::mail::annotation::{Annotation, EntryName};
use crate::mail::mailbox::{MailboxId, MailboxName};
use crate::mail::rights::Rights;
use crate::protocol::imap::desk::{Begun, Desk, End, Errand, Turn, unexpected};
use crate::protocol::imap::metadata::{Depth, MetadataQuery, SPECIAL_USE_ENTRY};
use crate::protocol::imap::request::{Answer, Refused, Request};
use crate::protocol::imap::response::{write_astring, write_mailbox, write_nstring, write_string};

/// GETMETADATA on its way, of a mailbox or of the account.
#[derive(Debug)]
pub(crate) struct GetMetadata {
    mailbox: Option<MailboxName>,
    query: Arc<MetadataQuery>,
    state: State,
}

#[derive(Debug)]
enum State {
    Begin,
    /// The mailbox is being looked up.
    Finding,
    /// Its annotations are being read.
    Reading,
    Writing(Response),
}

impl GetMetadata {
    pub(crate) fn new(mailbox: Option<MailboxName>, query: MetadataQuery) -> Self {
        Self { mailbox, query: Arc::new(query), state: State::Begin }
    }

    fn read(&mut self, mailbox: Option<MailboxId>) -> Turn {
        self.state = State::Reading;
        Turn::Ask(Request::Annotations { mailbox, query: Arc::clone(&self.query) })
    }
}

impl Errand for GetMetadata {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        match (&self.state, answer) {
            (State::Begin, _) => match &self.mailbox {
                Some(name) => {
                    let request = Request::Mailbox { name: name.clone(), wanted: Rights::LOOKUP };
                    self.state = State::Finding;
                    return Turn::Ask(request);
                }
                None => return self.read(None),
            },
            (State::Finding, Some(Answer::Mailbox(Some(mailbox)))) => return self.read(Some(mailbox.id)),
            (State::Finding, Some(Answer::Mailbox(None))) => {
                return Turn::Done(End::refused(Refused::NoSuchMailbox));
            }
            (State::Reading, Some(Answer::Annotations(found))) => {
                self.state = State::Writing(Response::new(&self.query, found));
            }
            (State::Writing(_), None) => {}
            (_, other) => return unexpected(other),
        }
        let State::Writing(response) = &mut self.state else { return unexpected(None) };
        if response.write(desk, self.mailbox.as_ref()) {
            return Turn::Flush;
        }
        Turn::Done(match response.longest {
            Some(size) => End::ok(format!("[METADATA LONGENTRIES {size}] GETMETADATA completed")),
            None => End::ok("GETMETADATA completed"),
        })
    }
}

/// A METADATA response on its way (RFC 5464 section 4.4.1).
#[derive(Debug)]
pub(crate) struct Response {
    /// What is there, and what was asked for and is not.
    items: IntoIter<(EntryName, Option<Vec<u8>>)>,
    begun: bool,
    /// The size of the longest value that was left out.
    longest: Option<usize>,
}

impl Response {
    pub(crate) fn new(query: &MetadataQuery, found: Vec<Annotation>) -> Self {
        let mut longest = None;
        let mut items: Vec<(EntryName, Option<Vec<u8>>)> = Vec::new();
        if query.depth == Depth::Alone {
            let missing = |entry: &&EntryName| !found.iter().any(|one| one.entry == **entry);
            items.extend(query.entries.iter().filter(missing).map(|entry| (entry.clone(), None)));
        }
        for Annotation { entry, value } in found {
            if query.max_size.is_some_and(|most| u32::try_from(value.len()).is_ok_and(|size| size > most)) {
                longest = longest.max(Some(value.len()));
            } else {
                items.push((entry, Some(value)));
            }
        }
        if query.depth == Depth::Alone {
            items.sort_by_key(|(entry, _)| query.entries.iter().position(|asked| asked == entry));
        }
        Self { items: items.into_iter(), begun: false, longest }
    }

    /// Writes some of it, or nothing where there is nothing to tell; true when there is more.
    pub(crate) fn write(&mut self, desk: &mut Desk, mailbox: Option<&MailboxName>) -> bool {
        while let Some((entry, value)) = self.items.next() {
            if self.begun {
                desk.out.push(b' ');
            } else {
                self.begun = true;
                desk.put(format_args!("* METADATA "));
                match mailbox {
                    Some(name) => write_mailbox(&mut desk.out, name, desk.enabled.utf8_names()),
                    None => write_string(&mut desk.out, b""),
                }
                desk.out.extend_from_slice(b" (");
            }
            write_astring(&mut desk.out, entry.as_str().as_bytes());
            desk.out.push(b' ');
            write_nstring(&mut desk.out, value.as_deref());
            if desk.is_full() && self.items.len() > 0 {
                return true;
            }
        }
        if std::mem::take(&mut self.begun) {
            desk.out.extend_from_slice(b")\r\n");
        }
        false
    }
}

/// SETMETADATA.
pub(crate) fn set(mailbox: Option<MailboxName>, changes: Vec<(EntryName, Option<Vec<u8>>)>) -> Begun {
    // What everybody would see is the administrator's (RFC 5464 section 3.2.1.1).
    if mailbox.is_none() && changes.iter().any(|(entry, _)| entry.is_shared()) {
        return End::no("[NOPERM] what is said of the server below /shared is the administrator's").into();
    }
    if changes.iter().any(|(entry, _)| entry.as_str() == SPECIAL_USE_ENTRY) {
        return End::no("[NOPERM] what a mailbox is for is said when it is made").into();
    }
    let of_account = mailbox.is_none();
    Begun::errand(SetMetadata { name: mailbox, of_account, changes: Some(changes) })
}

/// Looks the mailbox up, then sets.
#[derive(Debug)]
struct SetMetadata {
    name: Option<MailboxName>,
    of_account: bool,
    changes: Option<Vec<(EntryName, Option<Vec<u8>>)>>,
}

impl Errand for SetMetadata {
    fn go(&mut self, _desk: &mut Desk, answer: Option<Answer>) -> Turn {
        if let Some(name) = self.name.take() {
            return Turn::Ask(Request::Mailbox { name, wanted: Rights::LOOKUP });
        }
        let mailbox = match answer {
            Some(Answer::Mailbox(Some(mailbox))) => Some(mailbox.id),
            Some(Answer::Mailbox(None)) => return Turn::Done(End::refused(Refused::NoSuchMailbox)),
            Some(Answer::Done) => return Turn::Done(End::ok("SETMETADATA completed")),
            Some(Answer::Refused(Refused::Limit(bound))) => {
                return Turn::Done(End::no(format!("[METADATA TOOMANY] {bound}")));
            }
            None if self.of_account => None,
            other => return unexpected(other),
        };
        match self.changes.take() {
            Some(changes) => Turn::Ask(Request::Annotate { mailbox, changes }),
            None => unexpected(None),
        }
    }
}
