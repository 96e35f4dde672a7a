//! All that a session tells unasked, in order: what changed in the selected mailbox, what NOTIFY wants
//! fetched of new messages, how kept searches changed, and what happened in other mailboxes.

use crate::mail::mailbox::ModSeq;
use crate::mail::message::UidSet;
use crate::protocol::imap::command::FetchCommand;
use crate::protocol::imap::desk::{Begun, Desk, End, Errand, Then, Turn};
use crate::protocol::imap::notify::watches_others;
use crate::protocol::imap::request::{Answer, Request};
use crate::protocol::imap::sequence::SequenceSet;

use super::context::Update;
use super::fetch::Fetch;
use super::notify::survey;
use super::sync::Sync;

/// The telling, once.
#[derive(Debug)]
pub(crate) struct Telling {
    /// Other mailboxes are looked at too.
    surveys: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Sync(Sync),
    Fetch(Box<dyn Errand>),
    Contexts(Update),
    Survey,
    Surveying,
    Over,
}

impl Telling {
    /// At the end of a command; with `expunges`, EXPUNGE may be told too.
    pub(crate) fn after_command(expunges: bool) -> Self {
        Self { surveys: false, stage: Stage::Sync(Sync::new(expunges)) }
    }

    /// During IDLE, and between commands where NOTIFY wants that.
    pub(crate) fn unasked(desk: &Desk, idling: bool) -> Self {
        let delayed = |watch: &super::super::notify::SelectedWatch| watch.delayed;
        let (told, delays, surveys) = match desk.notify.as_deref() {
            Some(notify) => {
                let selected = notify.selected.as_ref();
                (selected.is_some(), selected.is_some_and(delayed) && !idling, !notify.groups.is_empty())
            }
            None => (true, false, false),
        };
        let stage = if told && desk.view.is_some() { Stage::Sync(Sync::unasked(!delays)) } else { Stage::Survey };
        Self { surveys, stage }
    }

    /// What NOTIFY wants to know of messages that are new (RFC 5465 section 5.2).
    fn fetch(desk: &mut Desk) -> Option<Box<dyn Errand>> {
        let uid = desk.enabled.uid_only;
        let items = desk.notify.as_deref()?.selected.as_ref()?.fetch.clone();
        let uids = std::mem::take(&mut desk.view.as_deref_mut()?.fresh);
        if items.is_empty() || uids.is_empty() {
            return None;
        }
        let set = SequenceSet::Ranges(Vec::new());
        let command = FetchCommand { uid, set, items, changed_since: None::<ModSeq>, vanished: false, page: None };
        match Fetch::begin(desk, uids, command) {
            Begun::Errand(errand) => Some(errand),
            Begun::End(_) => None,
        }
    }
}

impl Errand for Telling {
    fn go(&mut self, desk: &mut Desk, mut answer: Option<Answer>) -> Turn {
        loop {
            let answer = answer.take();
            let turn = match &mut self.stage {
                Stage::Sync(sync) => sync.go(desk, answer),
                Stage::Fetch(fetch) => fetch.go(desk, answer),
                Stage::Contexts(update) => update.go(desk, answer),
                Stage::Survey if !self.surveys => return Turn::Done(End::ok("")),
                Stage::Survey => {
                    self.stage = Stage::Surveying;
                    let watched = desk.notify.as_deref().is_some_and(|notify| watches_others(&notify.groups));
                    return Turn::Ask(Request::Mailboxes { watched });
                }
                Stage::Surveying => {
                    // Where they could not be read, the next change tells.
                    if let Some(Answer::Mailboxes { mailboxes, .. }) = answer {
                        survey(desk, mailboxes);
                    }
                    self.stage = Stage::Over;
                    return Turn::Flush;
                }
                Stage::Over => return Turn::Done(End::ok("")),
            };
            let Turn::Done(end) = turn else { return turn };
            if matches!(end.then, Then::Abort | Then::Close) {
                return Turn::Done(end);
            }
            let contexts = || Stage::Contexts(Update::default());
            self.stage = match self.stage {
                Stage::Sync(_) => Self::fetch(desk).map_or_else(contexts, Stage::Fetch),
                Stage::Fetch(_) => contexts(),
                _ => Stage::Survey,
            };
        }
    }
}

/// Messages that arrived are kept in mind for [`Telling`] where NOTIFY wants something fetched.
pub(crate) fn arrived(desk: &mut Desk, new: &UidSet) {
    let fetches = desk.notify.as_deref().and_then(|notify| notify.selected.as_ref());
    if let Some(view) = desk.view.as_deref_mut()
        && fetches.is_some_and(|watch| !watch.fetch.is_empty())
    {
        view.fresh.union_with(new);
    }
}
