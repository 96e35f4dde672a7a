//! What NOTIFY asks to be told of (RFC 5465), and what a session that does remembers of each mailbox.

use std::collections::BTreeMap;

use crate::mail::mailbox::{Mailbox, MailboxId, MailboxName, ModSeq, SpecialUse, Uid, UidValidity};

use crate::mail::rights::Rights;

use super::fetch::FetchItem;
use super::filter::MailboxFilter;

/// Most mailboxes that are watched; with more, NOTIFY is refused or ends with `NOTIFICATIONOVERFLOW`
/// (RFC 5465 section 5.8). Each is remembered in some 100 bytes.
pub const WATCHED_MAX: usize = 1024;

/// The events there are here, for `BADEVENT` (RFC 5465 section 3.1).
pub const EVENTS: &str = "MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange";

/// `NOTIFY SET`
#[derive(Debug, Default)]
pub struct NotifyProgram {
    /// STATUS of what is watched comes first.
    pub status: bool,
    /// What to tell of the selected mailbox; without it nothing.
    pub selected: Option<SelectedWatch>,
    /// What to tell of the others.
    pub groups: Vec<Group>,
}

/// What to tell of the selected mailbox (RFC 5465 section 6.1).
#[derive(Debug)]
pub struct SelectedWatch {
    /// EXPUNGE waits for a command that allows it.
    pub delayed: bool,
    /// `FlagChange`
    pub flags: bool,
    /// What to fetch of a new message.
    pub fetch: Vec<FetchItem>,
}

/// Mailboxes with the events to tell.
#[derive(Debug)]
pub struct Group {
    /// Which mailboxes.
    pub filter: MailboxFilter,
    /// Which events; `None` is `NONE`: nothing, whatever other groups say.
    pub events: Option<Events>,
}

/// Events of a mailbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// `MessageNew` and `MessageExpunge`, which go together (RFC 5465 section 5).
    pub messages: bool,
    /// `FlagChange`
    pub flags: bool,
    /// `MailboxName`
    pub names: bool,
    /// `SubscriptionChange`
    pub subscriptions: bool,
}

impl Events {
    /// What either asks for.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            messages: self.messages || other.messages,
            flags: self.flags || other.flags,
            names: self.names || other.names,
            subscriptions: self.subscriptions || other.subscriptions,
        }
    }
}

impl Group {
    /// Tells whether mailboxes of other accounts may be among those it is about.
    fn may_be_others(&self) -> bool {
        match &self.filter {
            MailboxFilter::Selected { .. } | MailboxFilter::Inboxes | MailboxFilter::Personal => false,
            MailboxFilter::Subscribed => true,
            MailboxFilter::Subtree(names) | MailboxFilter::SubtreeOne(names) | MailboxFilter::Mailboxes(names) => {
                names.iter().any(MailboxName::is_others)
            }
        }
    }
}

/// Tells whether what is asked may be about mailboxes of other accounts.
pub(crate) fn watches_others(groups: &[Group]) -> bool {
    groups.iter().any(Group::may_be_others)
}

/// Leaves those mailboxes that groups may be about.
pub(crate) fn watchable(groups: &[Group], mailboxes: &mut Vec<Mailbox>) {
    if !watches_others(groups) {
        mailboxes.retain(|mailbox| !mailbox.name.is_others());
    }
}

/// A session that is told.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    pub(crate) selected: Option<SelectedWatch>,
    pub(crate) groups: Vec<Group>,
    /// The mailboxes as the client knows them.
    pub(crate) known: BTreeMap<MailboxId, Known>,
}

/// What is remembered of a mailbox.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) name: MailboxName,
    pub(crate) special_use: Option<SpecialUse>,
    pub(crate) subscribed: bool,
    uid_validity: UidValidity,
    uid_next: Uid,
    messages: u32,
    flags_modseq: ModSeq,
    highest_modseq: ModSeq,
}

impl Known {
    pub(crate) fn of(mailbox: &Mailbox) -> Self {
        Self {
            name: mailbox.name.clone(),
            special_use: mailbox.special_use,
            subscribed: mailbox.subscribed,
            uid_validity: mailbox.uid_validity,
            uid_next: mailbox.uid_next,
            messages: mailbox.messages,
            flags_modseq: mailbox.flags_modseq,
            highest_modseq: mailbox.highest_modseq,
        }
    }

    /// Tells whether something happened to the messages of `mailbox` that was asked for.
    pub(crate) fn differs(&self, mailbox: &Mailbox, events: Events) -> bool {
        let flags = self.flags_modseq != mailbox.flags_modseq;
        let messages = self.uid_next != mailbox.uid_next
            || self.messages != mailbox.messages
            || (self.highest_modseq != mailbox.highest_modseq && !flags);
        (events.messages && messages) || (events.flags && flags) || self.uid_validity != mailbox.uid_validity
    }
}

impl Notify {
    /// What is asked about a mailbox, as far as it may be told (RFC 5465 section 5: what is in it needs `r`).
    pub(crate) fn events_of(&self, mailbox: &Mailbox) -> Events {
        let events = self.events(&mailbox.name, mailbox.subscribed, mailbox.special_use);
        if mailbox.rights.has(Rights::READ) { events } else { Events { messages: false, flags: false, ..events } }
    }

    /// What is asked about a mailbox of this name. Where groups overlap, all of their events are.
    pub(crate) fn events(&self, name: &MailboxName, subscribed: bool, special_use: Option<SpecialUse>) -> Events {
        let mut events = Events::default();
        for group in &self.groups {
            if group.filter.takes_name(name, subscribed, special_use) {
                match group.events {
                    Some(more) => events = events.or(more),
                    None => return Events::default(),
                }
            }
        }
        events
    }
}
