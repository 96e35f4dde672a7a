//! Mail from anywhere for our users: who is one of them, and who has room (RFC 5321 section 3.3).
//!
//! Never an open relay: what leads to no account here is refused at RCPT, whoever asks.

use crate::mail::address::Address;
use crate::mail::envelope::{ForwardPath, Recipient};
use crate::mail::mailbox::AccountId;
use crate::protocol::smtp::{Reply, Sender};
use crate::queue::route::Routes;
use crate::store::{ReadError, Reader, Route};

/// Where a recipient's mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To these accounts.
    Local(Vec<AccountId>),
    /// To others' servers, by way of the queue.
    Remote,
}

/// Says where a recipient's mail goes (RFC 5321 section 4.1.1.3): to accounts here, or, where we are a
/// backup for its domain, to the domain's better servers.
///
/// # Errors
/// The reply to RCPT.
pub fn recipient(
    reader: &Reader,
    routes: &Routes,
    sender: &Sender,
    recipient: &Recipient,
) -> Result<Destination, Reply> {
    let accounts = match route(reader, recipient)? {
        Route::Local(accounts) => accounts,
        Route::Unknown => return Err(unknown_user()),
        Route::Remote if recipient.path.address().is_some_and(|to| routes.is_backup_for(to.domain())) => {
            return Ok(Destination::Remote);
        }
        Route::Remote => return Err(Reply::new(550, "5.7.1", "relaying denied: no such domain here")),
    };
    check_room(reader, &accounts, sender.size)?;
    Ok(Destination::Local(accounts))
}

/// Where a recipient's mail goes; the bare `Postmaster` is the first local domain's (RFC 5321
/// section 4.5.1).
pub(super) fn route(reader: &Reader, recipient: &Recipient) -> Result<Route, Reply> {
    let address = match &recipient.path {
        ForwardPath::Address(address) => address.clone(),
        ForwardPath::Postmaster => {
            let domain = reader.domains().map_err(|error| unreadable(&error))?.into_iter().next();
            domain.and_then(|domain| Address::new("postmaster", domain).ok()).ok_or_else(unknown_user)?
        }
    };
    reader.route(&address).map_err(|error| unreadable(&error))
}

/// Refuses a recipient with an account that is full, or would be with a message of the announced
/// size. Without one it must have room for something.
pub(super) fn check_room(reader: &Reader, accounts: &[AccountId], size: Option<u64>) -> Result<(), Reply> {
    for &id in accounts {
        let Some(account) = reader.account(id).map_err(|error| unreadable(&error))? else { continue };
        let bytes = account.used.bytes.saturating_add(size.unwrap_or(1).max(1));
        let messages = account.used.messages.saturating_add(1);
        let full = account.quota.bytes.is_some_and(|most| bytes > most)
            || account.quota.messages.is_some_and(|most| messages > most);
        if full {
            return Err(Reply::new(452, "4.2.2", "mailbox is full"));
        }
    }
    Ok(())
}

/// What a peer is told when the store cannot be read.
pub(super) fn unreadable(error: &ReadError) -> Reply {
    tracing::error!(?error, "the store cannot be read");
    Reply::new(451, "4.3.0", "cannot look that up now: try again later")
}

pub(super) fn unknown_user() -> Reply {
    Reply::new(550, "5.1.1", "no such user here")
}
