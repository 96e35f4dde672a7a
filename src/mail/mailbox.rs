//! Names and numbers of IMAP mailboxes (RFC 9051 sections 2.3 and 5.1, RFC 6154).

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::address::{Address, DOMAIN_MAX, LOCAL_PART_MAX};
use super::message::Keywords;
use super::rights::Rights;

/// An account's number in this store. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountId(pub u32);

/// A mailbox's number in this store. Never reused; also its `MAILBOXID` (RFC 8474).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MailboxId(pub u32);

/// A message's identifier in one mailbox (RFC 9051 section 2.3.1.1).
///
/// Never zero; strictly ascending while the mailbox keeps its [`UidValidity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uid(pub NonZeroU32);

impl Uid {
    /// The lowest identifier.
    pub const MIN: Self = Self(NonZeroU32::MIN);
    /// The highest identifier.
    pub const MAX: Self = Self(NonZeroU32::MAX);

    /// Returns the identifier with this number, or `None` for zero.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// Returns the number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// Returns the identifier after this one, or `None` when they have run out.
    #[must_use]
    pub fn successor(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

/// Changes when the uids of a mailbox name start anew (RFC 9051 section 2.3.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UidValidity(pub NonZeroU32);

/// A modification sequence (RFC 7162 section 3.1): the journal's sequence number of the change.
///
/// Strictly rising over the whole store, never reused. Zero stands before every change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModSeq(pub u64);

/// What a mailbox is for (RFC 6154).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are RFC 6154's")]
pub enum SpecialUse {
    All,
    Archive,
    Drafts,
    Flagged,
    Junk,
    Sent,
    Trash,
}

impl SpecialUse {
    /// The attribute as LIST shows it.
    #[must_use]
    pub fn attribute(self) -> &'static str {
        match self {
            Self::All => "\\All",
            Self::Archive => "\\Archive",
            Self::Drafts => "\\Drafts",
            Self::Flagged => "\\Flagged",
            Self::Junk => "\\Junk",
            Self::Sent => "\\Sent",
            Self::Trash => "\\Trash",
        }
    }

    /// Reads an attribute, backslash included, without regard to case.
    #[must_use]
    pub fn from_attribute(attribute: &str) -> Option<Self> {
        [Self::All, Self::Archive, Self::Drafts, Self::Flagged, Self::Junk, Self::Sent, Self::Trash]
            .into_iter()
            .find(|special| special.attribute().eq_ignore_ascii_case(attribute))
    }
}

/// Longest mailbox name in bytes of UTF-8.
pub const MAILBOX_NAME_MAX: usize = 400;

/// Deepest hierarchy of mailbox names.
pub const MAILBOX_DEPTH_MAX: usize = 16;

/// The first level of the names by which other accounts' mailboxes are known; the second is the address
/// of the account (RFC 2342 section 5 calls it so).
pub const OTHER_USERS: &str = "Other Users";

/// Longest name of another account's mailbox, in bytes of UTF-8: with those two levels before it.
pub const OTHERS_NAME_MAX: usize = MAILBOX_NAME_MAX + OTHER_USERS.len() + LOCAL_PART_MAX + DOMAIN_MAX + 3;

/// A mailbox name in UTF-8 with `/` between its levels (RFC 9051 section 5.1).
///
/// Never empty, no empty level, no control characters, no `%` and `*`, at most [`MAILBOX_NAME_MAX`]
/// bytes and [`MAILBOX_DEPTH_MAX`] levels; below [`OTHER_USERS`] two levels more and at most
/// [`OTHERS_NAME_MAX`] bytes. A first level that spells INBOX in any case is kept as `INBOX`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MailboxName(String);

impl MailboxName {
    /// Returns the name, or `None` when it breaks a rule of the type.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let depth = name.split('/').count();
        let level = |level: &str| !level.is_empty() && !level.chars().any(|c| c.is_control() || matches!(c, '%' | '*'));
        let others = name.strip_prefix(OTHER_USERS).is_some_and(|rest| rest.starts_with('/'));
        let (length_max, depth_max) =
            if others { (OTHERS_NAME_MAX, MAILBOX_DEPTH_MAX + 2) } else { (MAILBOX_NAME_MAX, MAILBOX_DEPTH_MAX) };
        if name.len() > length_max || depth > depth_max || !name.split('/').all(level) {
            return None;
        }
        let (first, rest) = name.split_at(name.find('/').unwrap_or(name.len()));
        let first = if first.eq_ignore_ascii_case("INBOX") { "INBOX" } else { first };
        Some(Self(format!("{first}{rest}")))
    }

    /// `INBOX`.
    #[must_use]
    pub fn inbox() -> Self {
        Self("INBOX".to_owned())
    }

    /// The name by which others know `name` of the account with this address; `None` where the address
    /// can't be a level of a name.
    #[must_use]
    pub fn of_other(address: &Address, name: &Self) -> Option<Self> {
        let address = address.to_string();
        if address.contains('/') {
            return None;
        }
        Self::new(&format!("{OTHER_USERS}/{address}/{}", name.0))
    }

    /// The address and the name there, of a mailbox of another account.
    #[must_use]
    pub fn other(&self) -> Option<(Address, Self)> {
        let (address, name) = self.0.strip_prefix(OTHER_USERS)?.strip_prefix('/')?.split_once('/')?;
        Some((Address::parse(address).ok()?, Self::new(name)?))
    }

    /// Tells whether the name is among those of other accounts' mailboxes, or a level above them.
    #[must_use]
    pub fn is_others(&self) -> bool {
        self.0.strip_prefix(OTHER_USERS).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether this is INBOX itself.
    #[must_use]
    pub fn is_inbox(&self) -> bool {
        self.0 == "INBOX"
    }

    /// The name one level up, if there is one.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// Tells whether this name lies somewhere below `other`.
    #[must_use]
    pub fn is_below(&self, other: &Self) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.starts_with('/'))
    }
}

/// A mailbox with its counters.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names are RFC 9051's STATUS items")]
pub struct Mailbox {
    pub id: MailboxId,
    pub account: AccountId,
    pub name: MailboxName,
    pub special_use: Option<SpecialUse>,
    pub subscribed: bool,
    pub uid_validity: UidValidity,
    pub uid_next: Uid,
    pub highest_modseq: ModSeq,
    /// The last change of flags of a message that was there already; never above `highest_modseq`.
    /// Sessions look through their messages for new flags only when this has risen.
    pub flags_modseq: ModSeq,
    pub messages: u32,
    pub unseen: u32,
    pub deleted: u32,
    /// Bytes of all messages.
    pub size: u64,
    /// Bytes of those marked `\Deleted`.
    pub deleted_size: u64,
    pub keywords: Keywords,
    /// Messages from here on have been shown to no session yet (RFC 3501 `\Recent`).
    pub recent_from: Uid,
    /// What whoever asked may do with it: its owner everything.
    pub rights: Rights,
}

/// What an account may keep; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Bytes of messages.
    pub bytes: Option<u64>,
    /// Number of messages.
    pub messages: Option<u64>,
}

/// What an account keeps, each copy counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of messages.
    pub bytes: u64,
    /// Number of messages.
    pub messages: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inbox_is_spelled_one_way_at_the_first_level() {
        assert!(MailboxName::new("inBox").unwrap().is_inbox());
        assert_eq!(MailboxName::new("Inbox/sub").unwrap().as_str(), "INBOX/sub");
        assert_eq!(MailboxName::new("a/inbox").unwrap().as_str(), "a/inbox");
        assert_eq!(MailboxName::new("inboxes").unwrap().as_str(), "inboxes");
    }

    #[test]
    fn anothers_mailbox_is_found_by_address_and_name() {
        let ann = Address::parse("Ann@x.test").unwrap();
        let name = |text: &str| MailboxName::new(text).unwrap();
        let known = MailboxName::of_other(&ann, &name("a/b")).unwrap();
        assert_eq!(known.as_str(), "Other Users/Ann@x.test/a/b");
        assert_eq!(known.other().unwrap(), (ann.clone(), name("a/b")));
        assert!(name("Other Users/ann@x.test/inbox").other().unwrap().1.is_inbox());
        for none in ["Other Users", "Other Users/ann@x.test", "Other Users/nobody/a", "Other Usersx/ann@x.test/a", "a"]
        {
            assert_eq!(name(none).other(), None, "{none}");
        }
        assert!(name("Other Users").is_others() && name("Other Users/x").is_others());
        assert!(!name("Other Users2").is_others() && !name("other users/x").is_others());
        // The longest and deepest of one's own names has a name for others too.
        let long = name(&format!("{}{}", "a/".repeat(15), "x".repeat(370)));
        assert_eq!(MailboxName::of_other(&ann, &long).unwrap().other(), Some((ann, long)));
        let odd = Address::parse("a/b@x.test").unwrap();
        assert_eq!(MailboxName::of_other(&odd, &name("c")), None);
    }

    #[test]
    fn a_name_that_breaks_a_rule_is_none() {
        for name in ["", "/", "a//b", "a/", "/a", "a\nb", "a*", "a%", &"x".repeat(401), &"a/".repeat(17)] {
            assert!(MailboxName::new(name).is_none(), "{name:?}");
        }
    }
}
