//! Mail that comes for an address here and goes on elsewhere: aliases that lead outside, and what comes
//! back to them.
//!
//! What a stranger sent goes on with an envelope sender of ours ([`Srs`]), so that the next server's SPF
//! check passes; a notification to that sender is turned back to whom it stands for. A message whose
//! sender tells that it was forwarded from here before goes in a circle and is refused.

use super::arrive::{Destination, unknown_user, unreadable};
use crate::mail::address::Address;
use crate::mail::date::Timestamp;
use crate::mail::envelope::ReversePath;
use crate::mail::mailbox::AccountId;
use crate::mail::srs::{Reversed, SRS_KEY, Srs, has_passed};
use crate::protocol::smtp::Reply;
use crate::queue::route::Routes;
use crate::store::{ReadError, Reader, Route, Store};

/// How many aliases may lead to one another.
const DEPTH_MAX: usize = 5;

/// Most addresses elsewhere that one recipient leads to.
pub const OUTSIDE_MAX: usize = 200;

/// The note that keeps the key of rewritten senders.
const KEY_NOTE: &str = "srs-key";

/// What rewrites senders in this store; with the key in `fresh` where it has none yet. Blocks.
///
/// # Errors
/// The store cannot be read or written; the text says so.
pub fn rewriter(store: &Store, fresh: &[u8; SRS_KEY]) -> Result<Srs, String> {
    let known = store.reader().and_then(|reader| reader.note(KEY_NOTE)).map_err(|error| error.to_string())?;
    if let Some(key) = known.as_deref().and_then(<[u8]>::first_chunk) {
        return Ok(Srs::new(key));
    }
    store.put_note(KEY_NOTE, fresh.to_vec()).wait().map_err(|error| error.to_string())?;
    Ok(Srs::new(fresh))
}

/// What forwarding needs besides the store.
#[derive(Clone, Copy, Debug)]
pub struct Onward<'a> {
    /// The ways out.
    pub routes: &'a Routes,
    /// Rewrites senders; without it nothing is forwarded.
    pub srs: Option<&'a Srs>,
    /// Now.
    pub now: Timestamp,
}

/// An address elsewhere that a message goes on to, and the sender it goes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// MAIL FROM
    pub from: ReversePath,
    /// RCPT TO
    pub to: Address,
}

/// Where an alias leads: accounts here and addresses elsewhere, however many aliases are between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The accounts, without doubles.
    pub accounts: Vec<AccountId>,
    /// The addresses, without doubles.
    pub outside: Vec<Address>,
    max: usize,
}

impl Reached {
    /// Nobody yet, and so many addresses elsewhere at most; more are passed over.
    pub fn up_to(max: usize) -> Self {
        Self { accounts: Vec::new(), outside: Vec::new(), max }
    }

    /// Follows `address`; what leads nowhere, and lists, are passed over.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn follow(&mut self, reader: &Reader, address: &Address, depth: usize) -> Result<(), ReadError> {
        match reader.route(address)? {
            Route::Local(accounts) => self.add(accounts),
            Route::Forward { accounts, outside } => {
                self.add(accounts);
                for next in outside {
                    // A domain may have become local since the alias was made.
                    if depth < DEPTH_MAX {
                        self.follow(reader, &next, depth + 1)?;
                    }
                }
            }
            Route::Remote => {
                if self.outside.len() < self.max && !self.outside.iter().any(|known| known.key() == address.key()) {
                    self.outside.push(address.clone());
                }
            }
            Route::List(_) | Route::Unknown => {}
        }
        Ok(())
    }

    fn add(&mut self, accounts: Vec<AccountId>) {
        for account in accounts {
            if !self.accounts.contains(&account) {
                self.accounts.push(account);
            }
        }
    }
}

/// Where mail from `from` goes that an alias leads elsewhere. Who logged in sends under their own name.
///
/// # Errors
/// The reply to RCPT.
pub(super) fn through_alias(
    reader: &Reader,
    onward: &Onward<'_>,
    alias: &Address,
    from: &ReversePath,
    logged_in: bool,
) -> Result<Destination, Reply> {
    let mut reached = Reached::up_to(OUTSIDE_MAX);
    reached.follow(reader, alias, 0).map_err(|error| unreadable(&error))?;
    let Reached { accounts, outside, .. } = reached;
    if accounts.is_empty() && outside.is_empty() {
        return Err(unknown_user());
    }
    let from = if logged_in { from.clone() } else { rewritten(onward, alias, from)? };
    if outside.iter().any(|to| onward.routes.way(to.domain(), &from, false).is_none()) {
        return Err(no_way());
    }
    let copies = outside.into_iter().map(|to| Copy { from: from.clone(), to }).collect();
    Ok(Destination::Forward { accounts, copies })
}

/// The sender that a message goes on with.
fn rewritten(onward: &Onward<'_>, alias: &Address, from: &ReversePath) -> Result<ReversePath, Reply> {
    let (Some(sender), Some(srs)) = (from.address(), onward.srs) else {
        return if from.address().is_none() { Ok(ReversePath::Null) } else { Err(no_way()) };
    };
    let domain = alias.domain();
    if has_passed(sender, domain) {
        return Err(Reply::new(554, "5.4.6", "this message was forwarded from here before: it goes in a circle"));
    }
    // One that is too long to be rewritten: its bounces are the postmaster's.
    let made = srs.forward(sender, domain, onward.now).or_else(|| Address::new("postmaster", domain.clone()).ok());
    Ok(made.map_or(ReversePath::Null, ReversePath::Address))
}

/// Where mail goes for an address that stands for a sender elsewhere; `None` when it is an ordinary one.
/// Only notifications are turned back.
///
/// # Errors
/// The reply to RCPT.
pub(super) fn back(
    reader: &Reader,
    onward: &Onward<'_>,
    address: &Address,
    from: &ReversePath,
) -> Result<Option<Destination>, Reply> {
    let Some(srs) = onward.srs else { return Ok(None) };
    let original = match srs.reverse(address, onward.now) {
        Reversed::Ordinary => return Ok(None),
        Reversed::Bad => {
            return Err(Reply::new(550, "5.1.1", "this return address is none of ours, or too old"));
        }
        Reversed::Address(original) => original,
    };
    if from.address().is_some() {
        return Err(Reply::new(550, "5.7.1", "this return address takes notifications only"));
    }
    let mut reached = Reached::up_to(OUTSIDE_MAX);
    reached.follow(reader, &original, 0).map_err(|error| unreadable(&error))?;
    let Reached { accounts, outside, .. } = reached;
    if outside.iter().any(|to| onward.routes.way(to.domain(), &ReversePath::Null, false).is_none()) {
        return Err(no_way());
    }
    if accounts.is_empty() && outside.is_empty() {
        return Err(unknown_user());
    }
    let copies = outside.into_iter().map(|to| Copy { from: ReversePath::Null, to }).collect();
    Ok(Some(Destination::Forward { accounts, copies }))
}

/// Whom a notification for a sender of ours really concerns.
pub(super) fn original(srs: Option<&Srs>, sender: &Address, now: Timestamp) -> Option<Address> {
    match srs?.reverse(sender, now) {
        Reversed::Address(original) => Some(original),
        Reversed::Ordinary | Reversed::Bad => None,
    }
}

fn no_way() -> Reply {
    Reply::new(550, "5.7.1", "this server sends no mail to other servers")
}
