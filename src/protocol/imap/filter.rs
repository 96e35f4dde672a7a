//! Which mailboxes ESEARCH looks through and NOTIFY watches (RFC 5465 section 6, RFC 7377 section 2.2).

use crate::mail::mailbox::{Mailbox, MailboxName, SpecialUse};

/// Most mailboxes named in one command; more is `BAD`. Each is compared with each mailbox.
pub const FILTER_NAMES_MAX: usize = 256;

/// A specifier of mailboxes. Names no mailbox can have are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailboxFilter {
    /// The selected mailbox; with `delayed`, NOTIFY tells EXPUNGE only where a command allows it.
    Selected {
        /// `SELECTED-DELAYED`
        delayed: bool,
    },
    /// Those that mail is delivered to.
    Inboxes,
    /// All that are the account's own.
    Personal,
    /// Those that are subscribed.
    Subscribed,
    /// These and everything below.
    Subtree(Vec<MailboxName>),
    /// These and what is right below.
    SubtreeOne(Vec<MailboxName>),
    /// These.
    Mailboxes(Vec<MailboxName>),
}

impl MailboxFilter {
    /// Tells whether it means this mailbox; which one is selected only the session knows.
    #[must_use]
    pub fn takes(&self, mailbox: &Mailbox) -> bool {
        self.takes_name(&mailbox.name, mailbox.subscribed, mailbox.special_use)
    }

    /// As [`MailboxFilter::takes`], of a mailbox that may be gone.
    #[must_use]
    pub fn takes_name(&self, name: &MailboxName, subscribed: bool, special_use: Option<SpecialUse>) -> bool {
        match self {
            Self::Selected { .. } => false,
            // Deliveries go to INBOX, and spam to Junk.
            Self::Inboxes => name.is_inbox() || special_use == Some(SpecialUse::Junk),
            Self::Personal => !name.is_others(),
            Self::Subscribed => subscribed,
            Self::Subtree(tops) => tops.iter().any(|top| top == name || name.is_below(top)),
            Self::SubtreeOne(tops) => tops.iter().any(|top| top == name || name.parent().as_ref() == Some(top)),
            Self::Mailboxes(names) => names.contains(name),
        }
    }
}
