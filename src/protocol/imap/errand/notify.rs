//! NOTIFY SET, and what it makes a session tell of mailboxes that are not selected (RFC 5465 sections
//! 3.1 and 5).
//!
//! The account's watch says that something changed; then the mailboxes are compared with what is
//! remembered of them. So changes that come close together are told once, and what the session did
//! itself is told as well.

use std::collections::{BTreeMap, HashSet};

use crate::mail::mailbox::{Mailbox, MailboxName, SpecialUse};
use crate::protocol::imap::command::StatusItem;
use crate::protocol::imap::desk::{Begun, Desk, End, Errand, Turn, unexpected};
use crate::protocol::imap::notify::{Events, Known, Notify, NotifyProgram, WATCHED_MAX, watchable, watches_others};
use crate::protocol::imap::request::{Answer, Request};
use crate::protocol::imap::response::write_mailbox;

use super::list::ancestors;
use super::status::write_items;

/// NOTIFY.
pub(crate) fn begin(desk: &mut Desk, program: Option<NotifyProgram>) -> Begun {
    if program.is_some() {
        return Begun::errand(Set { program });
    }
    desk.notify = Some(Box::default());
    End::ok("NOTIFY completed").into()
}

/// NOTIFY SET on its way.
#[derive(Debug)]
struct Set {
    program: Option<NotifyProgram>,
}

impl Set {
    /// Tells whether mailboxes of other accounts are asked about.
    fn watches(&self) -> bool {
        self.program.as_ref().is_some_and(|program| watches_others(&program.groups))
    }
}

impl Errand for Set {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        let mut mailboxes = match answer {
            None => return Turn::Ask(Request::Mailboxes { watched: self.watches() }),
            Some(Answer::Mailboxes { mailboxes, .. }) => mailboxes,
            other => return unexpected(other),
        };
        let Some(NotifyProgram { status, selected, groups }) = self.program.take() else { return unexpected(None) };
        watchable(&groups, &mut mailboxes);
        if mailboxes.len() > WATCHED_MAX && !groups.is_empty() {
            return Turn::Done(End::no("[NOTIFICATIONOVERFLOW] there are too many mailboxes to watch them"));
        }
        let mut notify = Notify { selected, groups, known: BTreeMap::new() };
        if !notify.groups.is_empty() {
            notify.known = mailboxes.iter().map(|mailbox| (mailbox.id, Known::of(mailbox))).collect();
        }
        let current = desk.view.as_deref().map(|view| view.mailbox);
        for mailbox in mailboxes.iter().filter(|mailbox| status && Some(mailbox.id) != current) {
            let events = notify.events_of(mailbox);
            if events.messages {
                write_status(desk, mailbox, events);
            }
        }
        desk.notify = Some(Box::new(notify));
        Turn::Done(End::ok("NOTIFY completed"))
    }
}

/// Tells what happened in mailboxes that are not selected.
pub(crate) fn survey(desk: &mut Desk, mut mailboxes: Vec<Mailbox>) {
    let Some(mut notify) = desk.notify.take() else { return };
    watchable(&notify.groups, &mut mailboxes);
    let mailboxes = mailboxes.as_slice();
    if mailboxes.len() > WATCHED_MAX {
        desk.put(format_args!("* OK [NOTIFICATIONOVERFLOW] there are too many mailboxes to watch them\r\n"));
        desk.notify = Some(Box::default());
        return;
    }
    let current = desk.view.as_deref().map(|view| view.mailbox);
    let parents: HashSet<MailboxName> = mailboxes.iter().flat_map(|mailbox| ancestors(&mailbox.name)).collect();
    let mut before = std::mem::take(&mut notify.known);
    for mailbox in mailboxes {
        let events = notify.events_of(mailbox);
        let known = before.remove(&mailbox.id);
        tell(desk, &notify, (mailbox, events), known.as_ref(), &parents);
        if Some(mailbox.id) != current && known.as_ref().is_some_and(|known| known.differs(mailbox, events)) {
            write_status(desk, mailbox, events);
        }
        notify.known.insert(mailbox.id, Known::of(mailbox));
    }
    for gone in before.values() {
        if notify.events(&gone.name, gone.subscribed, gone.special_use).names {
            write_list(desk, &gone.name, &["\\NonExistent"], None);
        }
    }
    desk.notify = Some(notify);
}

/// Tells that a mailbox was made, renamed, subscribed or not (RFC 5465 sections 5.4 and 5.5).
fn tell(
    desk: &mut Desk,
    notify: &Notify,
    (mailbox, events): (&Mailbox, Events),
    known: Option<&Known>,
    parents: &HashSet<MailboxName>,
) {
    let old = known.filter(|known| known.name != mailbox.name);
    let old_events = old.map(|old| notify.events(&old.name, old.subscribed, old.special_use)).unwrap_or_default();
    let named = (known.is_none() && events.names) || (old.is_some() && events.or(old_events).names);
    let subscribed = known.is_some_and(|known| known.subscribed != mailbox.subscribed) && events.subscriptions;
    if named || subscribed {
        let children = if parents.contains(&mailbox.name) { "\\HasChildren" } else { "\\HasNoChildren" };
        let mut attributes = vec![children];
        attributes.extend(mailbox.special_use.map(SpecialUse::attribute));
        attributes.extend(mailbox.subscribed.then_some("\\Subscribed"));
        write_list(desk, &mailbox.name, &attributes, old.map(|old| &old.name));
    }
}

fn write_list(desk: &mut Desk, name: &MailboxName, attributes: &[&str], old: Option<&MailboxName>) {
    let utf8 = desk.enabled.utf8_names();
    desk.put(format_args!("* LIST ({}) \"/\" ", attributes.join(" ")));
    write_mailbox(&mut desk.out, name, utf8);
    if let Some(old) = old {
        desk.put(format_args!(" (\"OLDNAME\" ("));
        write_mailbox(&mut desk.out, old, utf8);
        desk.put(format_args!("))"));
    }
    desk.put(format_args!("\r\n"));
}

/// STATUS with all that the events ask for (RFC 5465 sections 5.1 to 5.3), UIDVALIDITY always.
fn write_status(desk: &mut Desk, mailbox: &Mailbox, events: Events) {
    let mut items = vec![StatusItem::Messages, StatusItem::UidNext, StatusItem::UidValidity];
    items.extend(events.flags.then_some(StatusItem::Unseen));
    items.extend(desk.enabled.condstore.then_some(StatusItem::HighestModSeq));
    write_items(desk, mailbox, &items, 0);
}
