//! COPY and MOVE (RFC 9051 sections 6.4.7 and 6.4.8; COPYUID of RFC 4315).

use crate::mail::mailbox::{MailboxId, MailboxName};
use crate::mail::message::{Placed, UidSet};
use crate::mail::rights::Rights;
use crate::protocol::imap::desk::{Begun, Desk, End, Errand, Turn, unexpected};
use crate::protocol::imap::request::{Answer, Request};
use crate::protocol::imap::response::write_uids;
use crate::protocol::imap::view::View;

/// A COPY or MOVE on its way.
#[derive(Debug)]
pub(crate) struct Transfer {
    from: MailboxId,
    uids: UidSet,
    to: Option<MailboxName>,
    moves: bool,
}

impl Transfer {
    pub(crate) fn copy(from: MailboxId, uids: UidSet, to: MailboxName) -> Begun {
        Begun::errand(Self { from, uids, to: Some(to), moves: false })
    }

    pub(crate) fn relocate(view: &View, uids: UidSet, to: MailboxName) -> Begun {
        if view.read_only {
            return End::no("[READ-ONLY] the mailbox was opened with EXAMINE").into();
        }
        Begun::errand(Self { from: view.mailbox, uids, to: Some(to), moves: true })
    }

    fn completed(&self) -> &'static str {
        if self.moves { "MOVE completed" } else { "COPY completed" }
    }
}

impl Errand for Transfer {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        if let Some(name) = self.to.take() {
            return Turn::Ask(Request::Mailbox { name, wanted: Rights::INSERT });
        }
        match answer {
            Some(Answer::Mailbox(None)) => Turn::Done(End::no("[TRYCREATE] there is no such mailbox")),
            // Uids that are not there are no error (RFC 9051 section 6.4.9).
            Some(Answer::Mailbox(Some(_))) if self.uids.is_empty() => Turn::Done(End::ok(self.completed())),
            Some(Answer::Mailbox(Some(mailbox))) => {
                let (from, uids, to) = (self.from, std::mem::take(&mut self.uids), mailbox.id);
                Turn::Ask(if self.moves { Request::Move { from, uids, to } } else { Request::Copy { from, uids, to } })
            }
            Some(Answer::Placed(placed)) if placed.to.is_empty() => {
                Turn::Done(End::ok("[EXPUNGEISSUED] the messages are gone"))
            }
            Some(Answer::Placed(placed)) if self.moves => {
                // Before the EXPUNGE responses, which come with the changes (RFC 6851 section 4.3).
                let code = copyuid(&placed);
                desk.put(format_args!("* OK [{code}] moved\r\n"));
                if let Some(view) = &mut desk.view {
                    view.vanish(&placed.from);
                }
                Turn::Done(End::ok("MOVE completed").with_modseq())
            }
            Some(Answer::Placed(placed)) => Turn::Done(End::ok(format!("[{}] COPY completed", copyuid(&placed)))),
            other => unexpected(other),
        }
    }
}

fn copyuid(placed: &Placed) -> String {
    let mut code = format!("COPYUID {} ", placed.uid_validity.0).into_bytes();
    write_uids(&mut code, &placed.from);
    code.push(b' ');
    write_uids(&mut code, &placed.to);
    String::from_utf8_lossy(&code).into_owned()
}
