//! DELETE (RFC 9051 section 6.3.5).

use crate::mail::mailbox::MailboxName;
use crate::protocol::imap::desk::{Desk, End, Errand, Turn, unexpected};
use crate::protocol::imap::request::{Answer, Request};

/// A mailbox being deleted. When it is the selected one, the session goes back to the
/// authenticated state.
#[derive(Debug)]
pub(crate) struct Delete {
    name: Option<MailboxName>,
    deleted: bool,
}

impl Delete {
    pub(crate) fn new(name: MailboxName) -> Self {
        Self { name: Some(name), deleted: false }
    }
}

impl Errand for Delete {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        if let Some(name) = self.name.take() {
            return Turn::Ask(Request::Delete(name));
        }
        let end = End::ok("DELETE completed");
        match (answer, &desk.view) {
            (Some(Answer::Done), Some(view)) if !self.deleted => {
                self.deleted = true;
                Turn::Ask(view.ask_changes())
            }
            (Some(Answer::Mailbox(None)), Some(_)) => {
                desk.view = None;
                desk.put(format_args!("* OK [CLOSED] the selected mailbox is deleted\r\n"));
                Turn::Done(end.quiet())
            }
            // Another one was deleted; its changes are told by the sync that follows.
            _ if self.deleted => Turn::Done(end),
            (Some(Answer::Done), None) => Turn::Done(end),
            (answer, _) => unexpected(answer),
        }
    }
}
