//! SELECT and EXAMINE (RFC 9051 sections 6.3.2 and 6.3.3, RFC 3501, RFC 7162 sections 3.1.2 and 3.2.5).
//!
//! A client that resynchronises is told what has gone and what changed since it was here last, a
//! batch at a time, and then SELECT is over.

use crate::mail::mailbox::{MailboxId, MailboxName, ModSeq, Uid};
use crate::mail::message::UidSet;
use crate::mail::rights::Rights;
use crate::protocol::imap::command::Resync;
use crate::protocol::imap::desk::{Desk, End, Errand, Turn, unexpected};
use crate::protocol::imap::request::{Answer, Opened, Refused, Request, SCAN_BATCH};
use crate::protocol::imap::response::{write_mailbox, write_mailbox_flags, write_permanent_flags};
use crate::protocol::imap::view::View;

use super::sync::{RANGES_BATCH, write_flags_response, write_vanished};

/// A mailbox being selected.
#[derive(Debug)]
pub(crate) struct Select {
    name: Option<MailboxName>,
    read_only: bool,
    /// Somebody's own mailbox, or rights to change something of it.
    may_write: bool,
    condstore: bool,
    resync: Option<Resync>,
    /// The client knows all changes up to here.
    since: ModSeq,
    state: State,
    /// Found, and its recent messages are being claimed.
    opened: Option<Box<Opened>>,
}

/// How far a mailbox that is open is told.
#[derive(Debug)]
enum State {
    /// It is not open yet.
    Opening,
    /// Which messages have gone is being asked; these are known to the client.
    Vanished(UidSet),
    /// Changed messages are told; these were not looked at.
    Changed(UidSet),
}

impl Select {
    pub(crate) fn new(name: MailboxName, read_only: bool, condstore: bool, resync: Option<Resync>) -> Self {
        let condstore = condstore || resync.is_some();
        Self {
            name: Some(name),
            read_only,
            may_write: false,
            condstore,
            resync,
            since: ModSeq(0),
            state: State::Opening,
            opened: None,
        }
    }

    fn end(&self) -> Turn {
        let text = match (self.read_only, self.may_write) {
            (true, _) => "[READ-ONLY] EXAMINE completed",
            (false, true) => "[READ-WRITE] SELECT completed",
            (false, false) => "[READ-ONLY] SELECT completed",
        };
        Turn::Done(End::ok(text).quiet())
    }

    fn finish(&mut self, desk: &mut Desk, opened: &Opened, recent_from: Uid) -> Turn {
        self.may_write = opened.mailbox.rights.may_write();
        self.tell(desk, opened, recent_from);
        let valid = opened.mailbox.uid_validity.0.get();
        let Some(resync) = self.resync.take().filter(|resync| resync.uid_validity == valid) else { return self.end() };
        let Some(view) = desk.view.as_deref() else { return self.end() };
        let last = Uid::new(view.uid_next.get().saturating_sub(1));
        let everything = || last.map(|last| UidSet::of_range(Uid::MIN, last)).unwrap_or_default();
        let known =
            resync.known.map_or_else(everything, |known| known.uids(last, &UidSet::new()).intersection(&everything()));
        if resync.since >= view.modseq || known.is_empty() {
            return self.end();
        }
        self.state = State::Vanished(known);
        self.since = resync.since;
        Turn::Ask(Request::Vanished { mailbox: view.mailbox, since: resync.since })
    }

    /// Tells what is there of a client's cache (RFC 7162 section 3.2.5.1): what has gone first.
    fn catch_up(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        let Desk { view: Some(view), out, enabled, .. } = desk else { return self.end() };
        match (&mut self.state, answer) {
            (State::Vanished(known), Some(Answer::Vanished(mut gone))) => {
                gone = gone.intersection(known);
                gone.subtract(view.uids());
                while !gone.is_empty() {
                    write_vanished(out, &gone.split_first_ranges(RANGES_BATCH), true);
                }
                self.state = State::Changed(known.intersection(view.uids()));
            }
            (State::Changed(_), Some(Answer::Rows(rows))) => {
                for row in &rows {
                    write_flags_response(out, view, *enabled, row, true);
                }
                if desk.is_full() {
                    return Turn::Flush;
                }
            }
            (State::Changed(_), None) => {}
            (_, other) => return unexpected(other),
        }
        match &mut self.state {
            State::Changed(rest) if !rest.is_empty() => {
                let uids = rest.split_first(SCAN_BATCH);
                let mailbox = desk.view.as_deref().map_or(MailboxId(0), |view| view.mailbox);
                Turn::Ask(Request::Rows { mailbox, uids, changed_since: self.since })
            }
            _ => self.end(),
        }
    }

    fn tell(&self, desk: &mut Desk, opened: &Opened, recent_from: Uid) {
        let view = View::new(opened, recent_from, self.read_only);
        let mailbox = &opened.mailbox;
        write_keywords(&mut desk.out, &view);
        desk.put(format_args!("* {} EXISTS\r\n", view.exists()));
        if !desk.enabled.rev2 {
            desk.put(format_args!("* {} RECENT\r\n", view.recent_count()));
            let unseen = opened.first_unseen.filter(|_| !desk.enabled.uid_only);
            if let Some(number) = unseen.and_then(|uid| view.number(uid)) {
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
    }
}

impl Errand for Select {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        if let Some(name) = self.name.take() {
            leave(desk);
            desk.enabled.condstore |= self.condstore;
            return Turn::Ask(Request::Open(name));
        }
        if !matches!(self.state, State::Opening) {
            return self.catch_up(desk, answer);
        }
        match (answer, self.opened.take()) {
            (Some(Answer::Opened(Some(opened))), _) => {
                let recent_from = opened.mailbox.recent_from;
                if self.read_only || desk.enabled.rev2 || recent_from >= opened.mailbox.uid_next {
                    return self.finish(desk, &opened, recent_from);
                }
                let mailbox = opened.mailbox.id;
                self.opened = Some(opened);
                Turn::Ask(Request::ClaimRecent(mailbox))
            }
            (Some(Answer::Opened(None)), _) => Turn::Done(End::refused(Refused::NoSuchMailbox)),
            (Some(Answer::Claimed(recent_from)), Some(opened)) => self.finish(desk, &opened, recent_from),
            // \Recent is a courtesy: a mailbox on a full disk is still read.
            (Some(Answer::Refused(_)), Some(opened)) => {
                let recent_from = opened.mailbox.recent_from;
                self.finish(desk, &opened, recent_from)
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
    write_mailbox_flags(out, &view.keywords);
    out.extend_from_slice(b"\r\n* OK [PERMANENTFLAGS ");
    let rights = if view.read_only { Rights::NONE } else { view.rights };
    write_permanent_flags(out, &view.keywords, rights);
    out.extend_from_slice(b"] flags that are kept\r\n");
}
