//! Mail from our users (RFC 6409): who may send as whom, and to whom.

use super::arrive::{check_room, route, unknown_user, unreadable};
use crate::mail::envelope::{Recipient, ReversePath};
use crate::mail::mailbox::AccountId;
use crate::protocol::smtp::{Reply, Sender};
use crate::store::{Reader, Route};

/// Says whether this user may send as this sender (RFC 6409 section 6.1). The empty sender is for
/// notifications, which no user writes.
///
/// # Errors
/// The reply to MAIL.
pub fn sender(reader: &Reader, sender: &Sender) -> Result<(), Reply> {
    let Some(login) = &sender.login else {
        return Err(Reply::new(530, "5.7.0", "log in first"));
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

/// Says which accounts a recipient's mail goes to. Mail for other servers has no way out yet, and
/// is refused at once rather than lost.
///
/// # Errors
/// The reply to RCPT.
pub fn recipient(reader: &Reader, sender: &Sender, recipient: &Recipient) -> Result<Vec<AccountId>, Reply> {
    let accounts = match route(reader, recipient)? {
        Route::Local(accounts) => accounts,
        Route::Unknown => return Err(unknown_user()),
        Route::Remote => return Err(Reply::new(550, "5.7.1", "this server sends no mail to other servers")),
    };
    check_room(reader, &accounts, sender.size)?;
    Ok(accounts)
}
