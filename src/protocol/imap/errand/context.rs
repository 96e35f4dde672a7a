//! Tells how the results of kept searches changed (RFC 5267 sections 4.3.2 to 4.3.4), and ends them.

use std::sync::Arc;

use crate::mail::mailbox::MailboxId;
use crate::mail::message::UidSet;
use crate::protocol::imap::context::{CONTEXTS_MAX, Context, can_follow};
use crate::protocol::imap::desk::{Desk, End, Errand, Turn};
use crate::protocol::imap::request::{Answer, Request, Search};
use crate::protocol::imap::response::{write_string, write_uids};
use crate::protocol::imap::view::View;

/// Looks again at what was touched, for one context after the other.
#[derive(Debug, Default)]
pub(crate) struct Update {
    begun: bool,
    touched: UidSet,
    /// The context whose turn it is.
    at: usize,
    /// What was not looked at for it.
    rest: UidSet,
    hits: UidSet,
    search: Option<Arc<Search>>,
}

impl Update {
    /// The question for the context whose turn it is; `None` when there is none left.
    fn ask(&mut self, view: &View) -> Option<Request> {
        let search = if let Some(search) = &self.search {
            Arc::clone(search)
        } else {
            let context = view.contexts.as_deref()?.list.get(self.at)?;
            (self.rest, self.hits) = (self.touched.clone(), UidSet::new());
            Arc::new(Search { key: context.key.clone(), recent: view.recent().clone() })
        };
        self.search = Some(Arc::clone(&search));
        let mailbox: MailboxId = view.mailbox;
        Some(Request::Search { mailbox, uids: self.rest.clone(), search })
    }

    /// All that was touched was looked at for a context: tells the difference.
    fn tell(&mut self, desk: &mut Desk) {
        self.search = None;
        let at = self.at;
        self.at += 1;
        let Desk { view: Some(view), out, .. } = desk else { return };
        let Some(mut contexts) = view.contexts.take() else { return };
        if let Some(context) = contexts.list.get_mut(at) {
            let mut removed = context.found.intersection(&self.touched);
            removed.subtract(&self.hits);
            let mut added = std::mem::take(&mut self.hits);
            added.subtract(&context.found);
            context.found.subtract(&removed);
            context.found.union_with(&added);
            write_difference(out, view, context, &removed, &added);
            if context.is_too_large() {
                write_no_update(out, &context.tag, "the result is too scattered to be kept");
                contexts.list.remove(at);
                self.at = at;
            }
        }
        view.contexts = Some(contexts);
    }
}

impl Errand for Update {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        match answer {
            Some(Answer::Found { uids, next, .. }) => {
                self.hits.union_with(&uids);
                match next {
                    // At least one was looked at, whatever the answer says.
                    Some(next) => drop(self.rest.split_first(self.rest.count_below(next).max(1))),
                    None => self.rest = UidSet::new(),
                }
                if self.rest.is_empty() {
                    self.tell(desk);
                }
            }
            // What could not be looked at now is touched again.
            Some(_) => {
                if let Some(contexts) = desk.view.as_deref_mut().and_then(|view| view.contexts.as_deref_mut()) {
                    contexts.touched.union_with(&self.touched);
                }
                return done();
            }
            None => {}
        }
        let Some(view) = desk.view.as_deref_mut() else { return done() };
        if !std::mem::replace(&mut self.begun, true) {
            let Some(contexts) = view.contexts.as_deref_mut() else { return done() };
            self.touched = std::mem::take(&mut contexts.touched);
        }
        if self.touched.is_empty() {
            return done();
        }
        match self.ask(view) {
            Some(request) => Turn::Ask(request),
            None => done(),
        }
    }
}

fn done() -> Turn {
    Turn::Done(End::ok(""))
}

/// Begins to keep a result up to date, or says that it is not.
pub(crate) fn keep(desk: &mut Desk, context: Context) {
    let Desk { view: Some(view), out, .. } = desk else { return };
    let contexts = view.contexts.get_or_insert_default();
    if !can_follow(&context.key) {
        write_no_update(out, &context.tag, "a search for numbers, uids or ages is not kept up to date");
    } else if contexts.list.len() >= CONTEXTS_MAX {
        write_no_update(out, &context.tag, "too many searches are kept up to date already");
    } else if context.is_too_large() {
        write_no_update(out, &context.tag, "the result is too scattered to be kept");
    } else {
        contexts.list.push(context);
    }
}

/// Tells whether a search of this tag is kept up to date.
pub(crate) fn is_kept(view: &View, tag: &str) -> bool {
    view.contexts.as_deref().is_some_and(|contexts| contexts.list.iter().any(|context| context.tag == tag))
}

/// CANCELUPDATE (RFC 5267 section 4.3.5).
pub(crate) fn cancel(desk: &mut Desk, tags: &[String]) -> End {
    let Some(view) = desk.view.as_deref_mut() else { return End::bad("no mailbox is selected") };
    if !tags.iter().all(|tag| is_kept(view, tag)) {
        return End::no("no search of that tag is kept up to date");
    }
    if let Some(contexts) = view.contexts.as_deref_mut() {
        contexts.list.retain(|context| !tags.contains(&context.tag));
    }
    view.contexts.take_if(|contexts| contexts.list.is_empty());
    End::ok("CANCELUPDATE completed")
}

/// Messages are about to be told as gone: they leave the results before their numbers do.
pub(crate) fn drop_gone(out: &mut Vec<u8>, view: &mut View) {
    let Some(mut contexts) = view.contexts.take() else { return };
    for context in &mut contexts.list {
        let removed = context.found.intersection(view.gone());
        context.found.subtract(&removed);
        write_difference(out, view, context, &removed, &UidSet::new());
    }
    contexts.touched.subtract(view.gone());
    view.contexts = Some(contexts);
}

/// Says that a search is not kept up to date (RFC 5267 section 4.3.1).
pub(crate) fn write_no_update(out: &mut Vec<u8>, tag: &str, why: &str) {
    out.extend_from_slice(b"* NO [NOUPDATE ");
    write_string(out, tag.as_bytes());
    out.extend_from_slice(b"] ");
    out.extend_from_slice(why.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_difference(out: &mut Vec<u8>, view: &View, context: &Context, removed: &UidSet, added: &UidSet) {
    let told = |uids: &UidSet| if context.uid { uids.clone() } else { view.numbers(uids) };
    let (removed, added) = (told(removed), told(added));
    if removed.is_empty() && added.is_empty() {
        return;
    }
    out.extend_from_slice(b"* ESEARCH (TAG ");
    write_string(out, context.tag.as_bytes());
    out.extend_from_slice(if context.uid { b") UID" } else { b")" });
    for (word, uids) in [(b" REMOVEFROM (0 ".as_slice(), removed), (b" ADDTO (0 ", added)] {
        if !uids.is_empty() {
            out.extend_from_slice(word);
            write_uids(out, &uids);
            out.push(b')');
        }
    }
    out.extend_from_slice(b"\r\n");
}
