//! Mail from anywhere for our users: who is one of them, and who has room (RFC 5321 section 3.3).
//!
//! Never an open relay: what leads to no account here is refused at RCPT, whoever asks.

use super::forward::{self, Copy, Onward};
use super::post;
use crate::mail::address::Address;
use crate::mail::envelope::{ForwardPath, Recipient, ReversePath};
use crate::mail::list::List;
use crate::mail::mailbox::AccountId;
use crate::protocol::smtp::{Reply, Sender};
use crate::store::{Account, ReadError, Reader, Route};

/// Where a recipient's mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To these accounts.
    Local(Vec<AccountId>),
    /// To others' servers, by way of the queue.
    Remote,
    /// To these accounts, which may be none, and on to addresses elsewhere.
    Forward {
        /// The accounts.
        accounts: Vec<AccountId>,
        /// What goes on.
        copies: Vec<Copy>,
    },
    /// To the members of a list.
    List(Box<List>),
}

/// Says where a recipient's mail goes (RFC 5321 section 4.1.1.3): to accounts here, or, where we are a
/// backup for its domain, to the domain's better servers.
///
/// # Errors
/// The reply to RCPT.
pub fn recipient(
    reader: &Reader,
    onward: &Onward<'_>,
    sender: &Sender,
    recipient: &Recipient,
) -> Result<Destination, Reply> {
    let (address, found) = route(reader, recipient)?;
    let destination = match found {
        Route::Remote if onward.routes.is_backup_for(address.domain()) => return Ok(Destination::Remote),
        Route::Remote => return Err(Reply::new(550, "5.7.1", "relaying denied: no such domain here")),
        // A catch-all would take what comes back, too.
        found => match forward::back(reader, onward, &address, &sender.from)? {
            Some(back) => back,
            None => local(reader, onward, &address, found, &sender.from, false)?,
        },
    };
    destination.check_room(reader, sender.size)?;
    Ok(destination)
}

/// Where mail for an address in a domain of ours goes.
pub(super) fn local(
    reader: &Reader,
    onward: &Onward<'_>,
    address: &Address,
    found: Route,
    from: &ReversePath,
    logged_in: bool,
) -> Result<Destination, Reply> {
    match found {
        Route::Local(accounts) => Ok(Destination::Local(accounts)),
        Route::Forward { .. } => forward::through_alias(reader, onward, address, from, logged_in),
        Route::List(list) => post::recipient(*list, from).map(|list| Destination::List(Box::new(list))),
        Route::Unknown | Route::Remote => Err(unknown_user()),
    }
}

impl Destination {
    /// Refuses a recipient with an account that is full.
    pub(super) fn check_room(&self, reader: &Reader, size: Option<u64>) -> Result<(), Reply> {
        match self {
            Self::Local(accounts) | Self::Forward { accounts, .. } => check_room(reader, accounts, size),
            Self::Remote | Self::List(_) => Ok(()),
        }
    }
}

/// Where a recipient's mail goes; the bare `Postmaster` is the first local domain's (RFC 5321
/// section 4.5.1).
pub(super) fn route(reader: &Reader, recipient: &Recipient) -> Result<(Address, Route), Reply> {
    let address = match &recipient.path {
        ForwardPath::Address(address) => address.clone(),
        ForwardPath::Postmaster => {
            let domain = reader.domains().map_err(|error| unreadable(&error))?.into_iter().next();
            domain.and_then(|domain| Address::new("postmaster", domain).ok()).ok_or_else(unknown_user)?
        }
    };
    let found = reader.route(&address).map_err(|error| unreadable(&error))?;
    Ok((address, found))
}

/// Refuses a recipient with an account that is full, or would be with a message of the announced
/// size. Without one it must have room for something.
pub(super) fn check_room(reader: &Reader, accounts: &[AccountId], size: Option<u64>) -> Result<(), Reply> {
    for &id in accounts {
        let Some(account) = reader.account(id).map_err(|error| unreadable(&error))? else { continue };
        if !has_room(&account, size.unwrap_or(1)) {
            return Err(Reply::new(452, "4.2.2", "mailbox is full"));
        }
    }
    Ok(())
}

/// Tells whether a message of this size fits into an account's quota.
pub(super) fn has_room(account: &Account, size: u64) -> bool {
    let bytes = account.used.bytes.saturating_add(size.max(1));
    let messages = account.used.messages.saturating_add(1);
    account.quota.bytes.is_none_or(|most| bytes <= most) && account.quota.messages.is_none_or(|most| messages <= most)
}

/// What a peer is told when the store cannot be read.
pub(super) fn unreadable(error: &ReadError) -> Reply {
    tracing::error!(?error, "the store cannot be read");
    Reply::new(451, "4.3.0", "cannot look that up now: try again later")
}

pub(super) fn unknown_user() -> Reply {
    Reply::new(550, "5.1.1", "no such user here")
}
