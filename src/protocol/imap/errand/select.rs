//! SELECT and EXAMINE (RFC 9051 sections 6.3.2 and 6.3.3, RFC 3501, RFC 7162 section 3.1.2).

use crate::mail::mailbox::{MailboxName, Uid};
use crate::mail::message::KEYWORDS_MAX;
use crate::protocol::imap::desk::{Desk, End, Errand, Turn, unexpected};
use crate::protocol::imap::request::{Answer, Opened, Refused, Request};
use crate::protocol::imap::response::{write_mailbox, write_mailbox_flags};
use crate::protocol::imap::view::View;

/// A mailbox being selected.
#[derive(Debug)]
pub(crate) struct Select {
    name: Option<MailboxName>,
    read_only: bool,
    condstore: bool,
    /// Found, and its recent messages are being claimed.
    opened: Option<Box<Opened>>,
}

impl Select {
    pub(crate) fn new(name: MailboxName, read_only: bool, condstore: bool) -> Self {
        Self { name: Some(name), read_only, condstore, opened: None }
    }

    fn finish(&self, desk: &mut Desk, opened: &Opened, recent_from: Uid) -> End {
        let view = View::new(opened, recent_from, self.read_only);
        let mailbox = &opened.mailbox;
        write_keywords(&mut desk.out, &view);
        desk.put(format_args!("* {} EXISTS\r\n", view.exists()));
        if !desk.enabled.rev2 {
            desk.put(format_args!("* {} RECENT\r\n", view.recent_count()));
            if let Some(number) = opened.first_unseen.and_then(|uid| view.number(uid)) {
                desk.put(format_args!("* OK [UNSEEN {number}] the first unseen message\r\n"));
            }
        }
        desk.put(format_args!("* OK [UIDVALIDITY {}] uids are valid\r\n", mailbox.uid_validity.0));
        desk.put(format_args!("* OK [UIDNEXT {}] the next uid\r\n", mailbox.uid_next.get()));
        desk.put(format_args!("* OK [HIGHESTMODSEQ {}] the highest so far\r\n", mailbox.highest_modseq.0.max(1)));
        desk.put(format_args!("* OK [MAILBOXID (F{})] its number\r\n", mailbox.id.0));
        if desk.enabled.rev2 {
            desk.put(format_args!("* LIST () \"/\" "));
            write_mailbox(&mut desk.out, &mailbox.name, true);
            desk.put(format_args!("\r\n"));
        }
        desk.view = Some(Box::new(view));
        let text = if self.read_only { "[READ-ONLY] EXAMINE completed" } else { "[READ-WRITE] SELECT completed" };
        End::ok(text).quiet()
    }
}

impl Errand for Select {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        if let Some(name) = self.name.take() {
            leave(desk);
            desk.enabled.condstore |= self.condstore;
            return Turn::Ask(Request::Open(name));
        }
        match (answer, self.opened.take()) {
            (Some(Answer::Opened(Some(opened))), _) => {
                let recent_from = opened.mailbox.recent_from;
                if self.read_only || desk.enabled.rev2 || recent_from >= opened.mailbox.uid_next {
                    return Turn::Done(self.finish(desk, &opened, recent_from));
                }
                let mailbox = opened.mailbox.id;
                self.opened = Some(opened);
                Turn::Ask(Request::ClaimRecent(mailbox))
            }
            (Some(Answer::Opened(None)), _) => Turn::Done(End::refused(Refused::NoSuchMailbox)),
            (Some(Answer::Claimed(recent_from)), Some(opened)) => Turn::Done(self.finish(desk, &opened, recent_from)),
            // \Recent is a courtesy: a mailbox on a full disk is still read.
            (Some(Answer::Refused(_)), Some(opened)) => {
                let recent_from = opened.mailbox.recent_from;
                Turn::Done(self.finish(desk, &opened, recent_from))
            }
            (other, _) => unexpected(other),
        }
    }
}

/// Leaves the mailbox that was selected. Even a SELECT that fails does (RFC 9051 section 6.3.2).
pub(crate) fn leave(desk: &mut Desk) {
    if desk.view.take().is_some() {
        desk.put(format_args!("* OK [CLOSED] the previous mailbox is closed\r\n"));
    }
}

/// Writes FLAGS and PERMANENTFLAGS (RFC 9051 sections 7.3.5 and 7.1).
pub(crate) fn write_keywords(out: &mut Vec<u8>, view: &View) {
    out.extend_from_slice(b"* FLAGS ");
    write_mailbox_flags(out, &view.keywords, false);
    out.extend_from_slice(b"\r\n* OK [PERMANENTFLAGS ");
    if view.read_only {
        out.extend_from_slice(b"()");
    } else {
        write_mailbox_flags(out, &view.keywords, view.keywords.0.len() < KEYWORDS_MAX);
    }
    out.extend_from_slice(b"] flags that are kept\r\n");
}
