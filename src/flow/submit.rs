//! Mail from our users (RFC 6409): who may send as whom, and to whom.

use super::arrive::{Destination, local, route, unreadable};
use super::forward::Onward;
use crate::mail::address::Address;
use crate::mail::envelope::{Recipient, ReversePath};
use crate::mail::mailbox::AccountId;
use crate::protocol::smtp::{Reply, Sender};
use crate::queue::route::literal;
use crate::store::{Reader, Route};

/// Says whether this user may send as this sender (RFC 6409 section 6.1). The empty sender is for
/// notifications, which no user writes. `open` are the senders for which this client needs no login.
///
/// # Errors
/// The reply to MAIL.
pub fn sender(reader: &Reader, sender: &Sender, open: &[Address]) -> Result<(), Reply> {
    let Some(login) = &sender.login else {
        if is_open_to(open, &sender.from) {
            return Ok(());
        }
        let text =
            if open.is_empty() { "log in first" } else { "log in first, or send as one of this network's senders" };
        return Err(Reply::new(530, "5.7.0", text));
    };
    let ReversePath::Address(address) = &sender.from else {
        return Err(Reply::new(553, "5.7.1", "the sender must be an address of yours"));
    };
    match reader.may_send_as(login.account, address) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Reply::new(553, "5.7.1", "this sender is no address of yours")),
        Err(error) => Err(unreadable(&error)),
    }
}

/// Tells whether a client needs no login to send as this sender.
pub fn is_open_to(open: &[Address], from: &ReversePath) -> bool {
    from.address().is_some_and(|from| open.iter().any(|sender| sender.key() == from.key()))
}

/// The account that a message of this sender is counted for, where nobody logged in: the one it belongs to.
pub fn account_of(reader: &Reader, from: &ReversePath) -> Option<AccountId> {
    match reader.route(from.address()?).ok()? {
        Route::Local(accounts) => accounts.first().copied(),
        _ => None,
    }
}

/// Says where a recipient's mail goes: to accounts here, or to others' servers. What has no way out is
/// refused at once rather than by a notification later.
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
    if found == Route::Remote {
        let domain = address.domain();
        if literal(domain).is_some_and(|literal| literal.is_err()) {
            return Err(Reply::new(553, "5.1.3", "what stands in the brackets is no address"));
        }
        let way = onward.routes.way(domain, &sender.from, false);
        let refused = || Reply::new(550, "5.7.1", "this server sends no mail to other servers");
        return way.map(|_| Destination::Remote).ok_or_else(refused);
    }
    let destination = local(reader, onward, &address, found, &sender.from, true)?;
    destination.check_room(reader, sender.size)?;
    Ok(destination)
}
