//! Orders about who may do what with an account's mailboxes.

use super::order::{Outcome, ROWS_MAX, ShareRow};
use crate::flow::access::acl;
use crate::mail::mailbox::{AccountId, MailboxName};
use crate::mail::rights::{Rights, RightsMode};
use crate::protocol::imap::request::Refused;
use crate::store::{ReadError, Store, WriteError};

/// Why rights were not changed.
pub(super) enum Failed {
    /// What was given is no mailbox of the account.
    NoSuchMailbox,
    /// A word of the order is none of those there are.
    Word(String, String),
    /// The store refused.
    Write(WriteError),
}

/// Gives `who` these rights on a mailbox of `owner` in place of those he has; none take them away.
pub(super) fn give(store: &Store, owner: AccountId, mailbox: &str, (who, letters): (&str, &str)) -> Result<(), Failed> {
    let name = MailboxName::new(mailbox).ok_or(Failed::NoSuchMailbox)?;
    let why = "the rights are letters out of lrswipkxtea";
    let rights = Rights::parse(letters).ok_or_else(|| Failed::Word(letters.to_owned(), why.to_owned()))?;
    let change = acl::change(store, (owner, &name), who, (RightsMode::Replace, rights));
    let pending = change.map_err(|refused| match refused {
        Refused::NoSuchMailbox => Failed::NoSuchMailbox,
        Refused::NotAllowed(rule) => Failed::Word(who.to_owned(), rule.to_owned()),
        other => Failed::Word(who.to_owned(), other.to_string()),
    })?;
    pending.wait().map_err(Failed::Write)
}

/// Tells who else has rights on an account's mailboxes, but for the first `skip`.
pub(super) fn list(store: &Store, owner: AccountId, skip: usize) -> Result<Outcome, ReadError> {
    let reader = store.reader()?;
    let mut rows = Vec::new();
    for mailbox in reader.mailboxes(owner)? {
        // The first is the owner's own.
        for (who, rights) in acl::entries(&reader, owner, &mailbox.name)?.into_iter().skip(1) {
            let rights = rights.letters().collect();
            rows.push(ShareRow { mailbox: mailbox.name.as_str().to_owned(), who, rights });
        }
    }
    Ok(Outcome::Shares { shares: rows.into_iter().skip(skip).take(ROWS_MAX).collect() })
}
