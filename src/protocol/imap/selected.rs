//! The selected state: messages (RFC 9051 section 6.4).

use super::command::Command;
use super::desk::{Begun, Desk, End};
use super::errand::expunge::{close, expunge, unselect};
use super::errand::fetch::Fetch;
use super::errand::search::Searching;
use super::errand::store::Store;
use super::errand::transfer::Transfer;
use super::view::{NoSuchMessage, View};

/// Begins a command of this state; `tag` stands in ESEARCH responses.
pub(crate) fn begin(desk: &mut Desk, tag: &str, command: Command) -> Begun {
    let Some(view) = desk.view.as_deref() else { return End::bad("no mailbox is selected").into() };
    let begun = match command {
        Command::Close => return close(desk),
        Command::Unselect => return unselect(desk),
        Command::Check => Ok(End::ok("CHECK completed").into()),
        Command::Expunge { uids: None } => return expunge(desk, None),
        Command::Expunge { uids: Some(set) } => view.resolve(&set, true).map(|uids| expunge(desk, Some(uids))),
        Command::Search { uid, program } => Searching::begin(desk, tag, uid, program),
        Command::Fetch { uid, set, items, changed_since } => {
            view.resolve(&set, uid).map(|uids| Fetch::begin(desk, uid, uids, items, changed_since))
        }
        Command::Store(store) => view.resolve(&store.set, store.uid).map(|uids| Store::begin(desk, uids, store)),
        Command::Copy { uid, set, mailbox } => {
            view.resolve(&set, uid).map(|uids| Transfer::copy(view.mailbox, uids, mailbox))
        }
        Command::Move { uid, set, mailbox } => {
            view.resolve(&set, uid).map(|uids| Transfer::relocate(view, uids, mailbox))
        }
        _ => Ok(End::bad("not in this state").into()),
    };
    begun.unwrap_or_else(|NoSuchMessage| End::bad("there is no message of that number").into())
}

/// Tells whether EXPUNGE waits for the next command: it would shift the numbers that FETCH, STORE
/// and SEARCH are about (RFC 9051 section 7.5.1).
pub(crate) fn holds_expunges(command: &Command) -> bool {
    match command {
        Command::Fetch { uid, .. } | Command::Search { uid, .. } => !uid,
        Command::Store(store) => !store.uid,
        _ => false,
    }
}

/// The end of such a command: says when numbers it used are of messages that are gone (RFC 5530).
pub(crate) fn end_of_numbers(desk: &Desk, uid: bool, completed: &'static str) -> End {
    let gone = !uid && desk.view.as_deref().is_some_and(View::has_gone);
    if gone { End::ok(format!("[EXPUNGEISSUED] {completed}")) } else { End::ok(completed) }
}
