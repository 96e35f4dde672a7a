//! EXPUNGE, CLOSE and UNSELECT (RFC 9051 sections 6.4.1 to 6.4.3 and 6.4.9).

use crate::mail::message::UidSet;
use crate::protocol::imap::desk::{Begun, Desk, End, Turn, unexpected};
use crate::protocol::imap::request::{Answer, Refused, Request};

use super::single::Single;

/// EXPUNGE, or UID EXPUNGE of `uids`.
pub(crate) fn expunge(desk: &Desk, uids: Option<UidSet>) -> Begun {
    let Some(view) = desk.view.as_deref() else { return End::bad("no mailbox is selected").into() };
    if view.read_only {
        return End::no("[READ-ONLY] the mailbox was opened with EXAMINE").into();
    }
    let request = Request::Expunge { mailbox: view.mailbox, uids };
    Begun::errand(Single::new(request, |desk, answer| match answer {
        Answer::Expunged(uids) => {
            if let Some(view) = &mut desk.view {
                view.vanish(&uids);
            }
            Turn::Done(End::ok("EXPUNGE completed").with_modseq())
        }
        other => unexpected(Some(other)),
    }))
}

/// CLOSE: expunges without a word and unselects.
pub(crate) fn close(desk: &mut Desk) -> Begun {
    let Some(view) = desk.view.take() else { return End::bad("no mailbox is selected").into() };
    let end = || End::ok("CLOSE completed").quiet();
    if view.read_only {
        return end().into();
    }
    let request = Request::Expunge { mailbox: view.mailbox, uids: None };
    Begun::errand(Single::new(request, move |_, answer| match answer {
        // Without the right to remove messages the mailbox is closed all the same (RFC 4314 section 4).
        Answer::Refused(Refused::NoRight) => Turn::Done(end()),
        Answer::Refused(refused) => Turn::Done(End::refused(refused)),
        _ => Turn::Done(end()),
    }))
}

/// UNSELECT: forgets the mailbox and nothing else.
pub(crate) fn unselect(desk: &mut Desk) -> Begun {
    desk.view = None;
    End::ok("UNSELECT completed").quiet().into()
}
