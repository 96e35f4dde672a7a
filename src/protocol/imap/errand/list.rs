//! LIST and LSUB (RFC 9051 section 6.3.9, RFC 3501 section 6.3.9, RFC 5258, RFC 5819, RFC 6154,
//! RFC 9590).

use std::collections::HashSet;
use std::sync::Arc;
use std::vec::IntoIter;

use crate::mail::mailbox::{Mailbox, MailboxName, SpecialUse};
use crate::mail::rights::Rights;
use crate::protocol::imap::command::{ListCommand, StatusItem};
use crate::protocol::imap::desk::{Desk, End, Errand, Turn, unexpected};
use crate::protocol::imap::metadata::MetadataQuery;
use crate::protocol::imap::name::Pattern;
use crate::protocol::imap::request::{Answer, Refused, Request};
use crate::protocol::imap::response::write_mailbox;

use super::status::{count_recent, write_items};
use super::{acl, metadata};

/// A LIST or LSUB on its way.
#[derive(Debug)]
pub(crate) struct List {
    command: ListCommand,
    lsub: bool,
    entries: Option<IntoIter<Entry>>,
    /// Listed, and more of it is to be told.
    telling: Option<Mailbox>,
    told: Told,
}

/// What of the listed mailbox comes next.
#[derive(Debug)]
enum Told {
    /// STATUS.
    Status,
    /// Its recent messages are being counted.
    Counting,
    /// METADATA (RFC 9590).
    Metadata,
    /// Its annotations are being read.
    Reading,
    Writing(metadata::Response),
}

/// One line of the answer.
#[derive(Debug)]
struct Entry {
    name: MailboxName,
    /// None for a name that is subscribed and no mailbox, or a parent that LSUB shows.
    mailbox: Option<Mailbox>,
    subscribed: bool,
    children: bool,
    /// Something below is subscribed (CHILDINFO).
    subscribed_below: bool,
}

impl List {
    pub(crate) fn new(command: ListCommand) -> Self {
        Self { command, lsub: false, entries: None, telling: None, told: Told::Status }
    }

    pub(crate) fn lsub(reference: &str, pattern: &str) -> Self {
        let command = ListCommand {
            reference: reference.to_owned(),
            patterns: vec![pattern.to_owned()],
            select_subscribed: true,
            ..ListCommand::default()
        };
        Self { command, lsub: true, entries: None, telling: None, told: Told::Status }
    }

    /// What is listed, in the order of names.
    fn select(&self, mailboxes: Vec<Mailbox>, subscriptions: &[MailboxName]) -> Vec<Entry> {
        let command = &self.command;
        let patterns: Vec<Pattern> =
            command.patterns.iter().map(|pattern| Pattern::new(&command.reference, pattern)).collect();
        let fits = |name: &MailboxName| patterns.iter().any(|pattern| pattern.matches(name));
        let subscribed: HashSet<&MailboxName> = subscriptions.iter().collect();
        let parents: HashSet<MailboxName> = mailboxes.iter().flat_map(|mailbox| ancestors(&mailbox.name)).collect();
        let above: HashSet<MailboxName> = subscriptions.iter().flat_map(ancestors).collect();
        let entry = |name: MailboxName, mailbox: Option<Mailbox>| Entry {
            subscribed: subscribed.contains(&name),
            children: parents.contains(&name),
            subscribed_below: above.contains(&name),
            name,
            mailbox,
        };
        let shared = mailboxes.iter().filter(|mailbox| mailbox.name.is_others());
        let levels: HashSet<MailboxName> = shared.flat_map(|mailbox| ancestors(&mailbox.name)).collect();
        let known: HashSet<MailboxName> = mailboxes.iter().map(|mailbox| mailbox.name.clone()).collect();
        let mut entries: Vec<Entry> = mailboxes
            .into_iter()
            .filter(|mailbox| fits(&mailbox.name))
            .map(|mailbox| entry(mailbox.name.clone(), Some(mailbox)))
            .filter(|entry| self.wanted(entry))
            .collect();
        if command.select_subscribed && !command.select_special_use {
            let gone = subscriptions.iter().filter(|name| !known.contains(*name) && fits(name));
            entries.extend(gone.map(|name| entry(name.clone(), None)));
        }
        if !self.lsub && !command.select_special_use {
            // Levels above others' mailboxes that are none themselves, or may not be seen.
            let levels = levels.into_iter().filter(|name| !known.contains(name) && fits(name));
            let levels = levels.filter(|name| !(command.select_subscribed && subscribed.contains(name)));
            let levels = levels.map(|name| entry(name, None));
            entries.extend(levels.filter(|level| !command.select_subscribed || self.tells_below(level)));
        }
        if self.lsub {
            // `%` shows the levels above a subscribed name that it does not reach (RFC 3501 section 6.3.9).
            let hidden: HashSet<MailboxName> =
                subscriptions.iter().filter(|name| !fits(name)).flat_map(ancestors).collect();
            let hidden = hidden.into_iter().filter(|name| !subscribed.contains(name) && fits(name));
            entries.extend(hidden.map(|name| entry(name, None)));
        }
        entries.sort_by(|a, b| (!a.name.is_inbox(), &a.name).cmp(&(!b.name.is_inbox(), &b.name)));
        entries
    }

    /// Selection options (RFC 5258 section 3.1, RFC 6154 section 5.2).
    fn wanted(&self, entry: &Entry) -> bool {
        let command = &self.command;
        let special = entry.mailbox.as_ref().is_some_and(|mailbox| mailbox.special_use.is_some());
        let chosen = (!command.select_subscribed || entry.subscribed) && (!command.select_special_use || special);
        chosen || self.tells_below(entry)
    }

    fn tells_below(&self, entry: &Entry) -> bool {
        self.command.select_recursive_match && self.command.select_subscribed && entry.subscribed_below
    }

    fn write(&self, desk: &mut Desk, entry: &Entry) {
        let mut attributes = Vec::new();
        match &entry.mailbox {
            Some(mailbox) => {
                attributes.push(if entry.children { "\\HasChildren" } else { "\\HasNoChildren" });
                attributes.extend(mailbox.special_use.map(SpecialUse::attribute));
                attributes.extend((!mailbox.rights.has(Rights::READ)).then_some("\\Noselect"));
            }
            None if !self.lsub && !self.command.extended => attributes.extend(["\\Noselect", "\\HasChildren"]),
            None if self.lsub => attributes.push("\\Noselect"),
            None => {
                attributes.push("\\NonExistent");
                attributes.extend(entry.children.then_some("\\HasChildren"));
            }
        }
        let shown = self.command.return_subscribed || self.command.select_subscribed;
        if shown && !self.lsub && entry.subscribed {
            attributes.push("\\Subscribed");
        }
        let word = if self.lsub { "LSUB" } else { "LIST" };
        desk.put(format_args!("* {word} ({}) \"/\" ", attributes.join(" ")));
        write_mailbox(&mut desk.out, &entry.name, desk.enabled.utf8_names());
        if self.tells_below(entry) {
            desk.put(format_args!(" (\"CHILDINFO\" (\"SUBSCRIBED\"))"));
        }
        desk.put(format_args!("\r\n"));
    }

    fn end(&self) -> Turn {
        Turn::Done(End::ok(if self.lsub { "LSUB completed" } else { "LIST completed" }))
    }
}

impl List {
    /// Tells what is asked of a mailbox beside its line; `None` when all is told.
    fn tell(&mut self, desk: &mut Desk, mut answer: Option<Answer>) -> Option<Turn> {
        let mailbox = self.telling.take()?;
        let may_read = mailbox.rights.has(Rights::READ);
        loop {
            match (&mut self.told, answer.take()) {
                (Told::Status, None) if self.command.return_status.is_empty() || !may_read => {
                    self.told = Told::Metadata;
                }
                (Told::Status, None) => {
                    if let Some(request) = count_recent(&mailbox, &self.command.return_status) {
                        (self.telling, self.told) = (Some(mailbox), Told::Counting);
                        return Some(Turn::Ask(request));
                    }
                    write_items(desk, &mailbox, &self.command.return_status, 0);
                    self.told = Told::Metadata;
                }
                (Told::Counting, Some(Answer::Count(recent))) => {
                    write_items(desk, &mailbox, &self.command.return_status, recent);
                    self.told = Told::Metadata;
                }
                (Told::Metadata, None) if self.command.return_metadata.is_empty() => return None,
                // It has gone meanwhile; and what is said of it is for who may do something with it.
                (Told::Counting | Told::Reading, Some(Answer::Refused(Refused::NoRight | Refused::NoSuchMailbox))) => {
                    return None;
                }
                (Told::Metadata, None) => {
                    let request = Request::Annotations { mailbox: Some(mailbox.id), query: self.query() };
                    (self.telling, self.told) = (Some(mailbox), Told::Reading);
                    return Some(Turn::Ask(request));
                }
                (Told::Reading, Some(Answer::Annotations(found))) => {
                    self.told = Told::Writing(metadata::Response::new(&self.query(), found));
                }
                (Told::Writing(response), None) => {
                    if response.write(desk, Some(&mailbox.name)) {
                        self.telling = Some(mailbox);
                        return Some(Turn::Flush);
                    }
                    return None;
                }
                (_, other) => return Some(unexpected(other)),
            }
        }
    }

    fn query(&self) -> Arc<MetadataQuery> {
        Arc::new(MetadataQuery { entries: self.command.return_metadata.clone(), ..MetadataQuery::default() })
    }
}

impl Errand for List {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        if self.telling.is_some() {
            if let Some(turn) = self.tell(desk, answer) {
                return turn;
            }
        } else {
            match answer {
                Some(Answer::Mailboxes { mailboxes, subscriptions }) => {
                    self.entries = Some(self.select(mailboxes, &subscriptions).into_iter());
                }
                None => {}
                other => return unexpected(other),
            }
        }
        if self.entries.is_none() {
            if !self.lsub && !self.command.extended && self.command.patterns.iter().all(String::is_empty) {
                // Asks for the hierarchy delimiter (RFC 9051 section 6.3.9).
                desk.put(format_args!("* LIST (\\Noselect) \"/\" \"\"\r\n"));
                return self.end();
            }
            if self.command.return_status.contains(&StatusItem::HighestModSeq) {
                desk.enable_condstore();
            }
            return Turn::Ask(Request::Mailboxes { watched: false });
        }
        while let Some(entry) = self.entries.as_mut().and_then(Iterator::next) {
            self.write(desk, &entry);
            if let Some(mailbox) = entry.mailbox.as_ref().filter(|_| self.command.return_my_rights) {
                acl::write_mine(desk, mailbox);
            }
            (self.telling, self.told) = (entry.mailbox, Told::Status);
            if let Some(turn) = self.tell(desk, None) {
                return turn;
            }
            if desk.is_full() {
                return Turn::Flush;
            }
        }
        self.end()
    }
}

/// The names above a name.
pub(super) fn ancestors(name: &MailboxName) -> impl Iterator<Item = MailboxName> + use<> {
    std::iter::successors(name.parent(), MailboxName::parent)
}
