//! The selected state: messages (RFC 9051 section 6.4).

use std::sync::Arc;

use super::command::{AppendHead, Command};
use super::desk::{Begun, Desk, End};
use super::errand::append::Append;
use super::errand::batches;
use super::errand::context;
use super::errand::expunge::{close, expunge, unselect};
use super::errand::fetch::Fetch;
use super::errand::search::{Purpose, Searching};
use super::errand::store::Store;
use super::errand::transfer::Transfer;
use super::sequence::SequenceSet;
use super::view::{NoSuchMessage, View};

/// Begins a command of this state; `tag` stands in ESEARCH responses.
pub(crate) fn begin(desk: &mut Desk, tag: &str, command: Command) -> Begun {
    let uid_only = desk.enabled.uid_only;
    let Some(view) = desk.view.as_deref() else {
        let end = End::bad("no mailbox is selected");
        return match command {
            Command::Replace { head, .. } => Begun::errand(Append::misplaced(head, end)),
            _ => end.into(),
        };
    };
    if uid_only && names_numbers(&command) {
        let end = End::bad("[UIDREQUIRED] after ENABLE UIDONLY messages are named by uid alone");
        return match command {
            Command::Replace { head, .. } => Begun::errand(Append::misplaced(head, end)),
            _ => end.into(),
        };
    }
    let begun = match command {
        Command::Close => return close(desk),
        Command::Unselect => return unselect(desk),
        Command::CancelUpdate(tags) => return context::cancel(desk, &tags).into(),
        Command::Check => Ok(End::ok("CHECK completed").into()),
        Command::Expunge { uids: None } => return expunge(desk, None),
        Command::Expunge { uids: Some(set) } => view.resolve(&set, true).map(|uids| expunge(desk, Some(uids))),
        Command::Search { uid, program } => Searching::begin(desk, tag, uid, program, Purpose::Search),
        Command::Sort { uid, order, program } => {
            Searching::begin(desk, tag, uid, program, Purpose::Sort(Arc::from(order)))
        }
        Command::Thread { uid, threading, program } => {
            Searching::begin(desk, tag, uid, program, Purpose::Thread(threading))
        }
        Command::UidBatches { size, batches } => Ok(batches::tell(desk, tag, size, batches).into()),
        Command::Fetch(fetch) => view.resolve(&fetch.set, fetch.uid).map(|uids| Fetch::begin(desk, uids, fetch)),
        Command::Store(store) => view.resolve(&store.set, store.uid).map(|uids| Store::begin(desk, uids, store)),
        Command::Copy { uid, set, mailbox } => {
            view.resolve(&set, uid).map(|uids| Transfer::copy(view.mailbox, uids, mailbox))
        }
        Command::Move { uid, set, mailbox } => {
            view.resolve(&set, uid).map(|uids| Transfer::relocate(view, uids, mailbox))
        }
        // Refused or not, its message is on the way.
        Command::Replace { uid, number, head } => return replace(view, uid, &number, head),
        _ => Ok(End::bad("not in this state").into()),
    };
    begun.unwrap_or_else(|NoSuchMessage| no_such_message().into())
}

fn no_such_message() -> End {
    End::bad("there is no message of that number")
}

/// REPLACE (RFC 8508): an APPEND that removes a message in the same change.
fn replace(view: &View, uid: bool, number: &SequenceSet, head: AppendHead) -> Begun {
    if view.read_only {
        return Begun::errand(Append::misplaced(head, End::no("[READ-ONLY] the mailbox was opened with EXAMINE")));
    }
    match view.resolve(number, uid).map(|uids| uids.first()) {
        Ok(Some(uid)) => Begun::errand(Append::replacing(head, view.mailbox, uid)),
        Ok(None) => Begun::errand(Append::misplaced(head, End::no("[NONEXISTENT] there is no message of that uid"))),
        Err(NoSuchMessage) => Begun::errand(Append::misplaced(head, no_such_message())),
    }
}

/// Tells whether a command speaks of message numbers (RFC 9586 section 3).
fn names_numbers(command: &Command) -> bool {
    match command {
        Command::Copy { uid, .. } | Command::Move { uid, .. } | Command::Replace { uid, .. } => !uid,
        Command::Fetch(fetch) => !fetch.uid,
        Command::Store(store) => !store.uid,
        Command::Search { uid, program }
        | Command::Sort { uid, program, .. }
        | Command::Thread { uid, program, .. } => !uid || program.key.names_numbers(),
        _ => false,
    }
}

/// Tells whether EXPUNGE waits for the next command: it would shift the numbers that FETCH, STORE
/// and SEARCH are about (RFC 9051 section 7.5.1).
pub(crate) fn holds_expunges(command: &Command) -> bool {
    match command {
        Command::Fetch(fetch) => !fetch.uid,
        Command::Search { uid, .. } | Command::Sort { uid, .. } | Command::Thread { uid, .. } => !uid,
        Command::Store(store) => !store.uid,
        _ => false,
    }
}

/// Tells whether a command may change the selected mailbox or what is in it: what comes of that is
/// told even where NOTIFY asks for nothing about it.
pub(crate) fn may_change(command: &Command) -> bool {
    matches!(
        command,
        Command::Append(_)
            | Command::Replace { .. }
            | Command::Copy { .. }
            | Command::Move { .. }
            | Command::Store(_)
            | Command::Expunge { .. }
    )
}

/// The end of such a command: says when numbers it used are of messages that are gone (RFC 5530).
pub(crate) fn end_of_numbers(desk: &Desk, uid: bool, completed: &'static str) -> End {
    let gone = !uid && desk.view.as_deref().is_some_and(View::has_gone);
    if gone { End::ok(format!("[EXPUNGEISSUED] {completed}")) } else { End::ok(completed) }
}
