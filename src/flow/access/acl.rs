//! Who has which rights on a mailbox, told and changed in RFC 4314's spelling: an account by its address,
//! `anyone` for all of them, and with `-` before it what is denied.

use crate::mail::mailbox::{AccountId, MailboxName};
use crate::mail::rights::{Identifier, Rights, RightsMode};
use crate::protocol::imap::request::{Answer, Refused};
use crate::store::{Pending, ReadError, Reader, Store};

use super::imap::unreadable;

/// All accounts of this server.
pub const ANYONE: &str = "anyone";

/// Whom `text` means, and whether it is about what is denied to him; `None` where it is nobody here.
///
/// # Errors
/// As the store.
pub fn identifier(reader: &Reader, text: &str) -> Result<Option<(Identifier, bool)>, ReadError> {
    let (name, denied) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
    if name.eq_ignore_ascii_case(ANYONE) {
        return Ok(Some((Identifier::Anyone, denied)));
    }
    Ok(reader.login(name)?.map(|(account, _)| (Identifier::Account(account.id), denied)))
}

/// The answer to an identifier that is nobody's.
fn nobody() -> Refused {
    Refused::NotAllowed("no account of this server is called so")
}

/// Who has which rights on a mailbox of `owner`: he first, then others by number, `anyone` last.
///
/// # Errors
/// As the store.
pub fn entries(reader: &Reader, owner: AccountId, name: &MailboxName) -> Result<Vec<(String, Rights)>, ReadError> {
    let Some(mailbox) = reader.mailbox_named(owner, name)? else { return Ok(Vec::new()) };
    let address = |id| reader.account(id).map(|found| found.map(|account| account.address.to_string()));
    let mut entries: Vec<(String, Rights)> = address(owner)?.into_iter().map(|own| (own, Rights::ALL)).collect();
    for (identifier, grant) in reader.grants(mailbox.id)? {
        let name = match identifier {
            Identifier::Anyone => ANYONE.to_owned(),
            Identifier::Account(id) => match address(id)? {
                Some(address) => address,
                None => continue,
            },
        };
        if !grant.denied.is_empty() {
            entries.push((format!("-{name}"), grant.denied));
        }
        if !grant.given.is_empty() {
            entries.push((name, grant.given));
        }
    }
    Ok(entries)
}

/// GETACL.
pub(super) fn list(reader: &Reader, owner: AccountId, name: &MailboxName) -> Result<Answer, ReadError> {
    Ok(Answer::Acl(entries(reader, owner, name)?))
}

/// LISTRIGHTS: the owner can't be without any right, everybody else may have each.
pub(super) fn list_rights(reader: &Reader, owner: AccountId, text: &str) -> Result<Answer, ReadError> {
    Ok(match identifier(reader, text)? {
        Some((who, denied)) => Answer::ListRights(!denied && who == Identifier::Account(owner)),
        None => Answer::Refused(nobody()),
    })
}

/// SETACL and DELETEACL, of a mailbox of `owner`.
///
/// # Errors
/// Why not.
pub fn change(
    store: &Store,
    (owner, name): (AccountId, &MailboxName),
    text: &str,
    (mode, rights): (RightsMode, Rights),
) -> Result<Pending<()>, Refused> {
    let look = || {
        let reader = store.reader()?;
        let shown = reader.account(owner)?.and_then(|owner| MailboxName::of_other(&owner.address, name));
        Ok((reader.mailbox_named(owner, name)?, shown, identifier(&reader, text)?))
    };
    let (mailbox, shown, who) = look().map_err(|error: ReadError| match unreadable(&error) {
        Answer::Refused(refused) => refused,
        _ => Refused::Unavailable,
    })?;
    let mailbox = mailbox.ok_or(Refused::NoSuchMailbox)?;
    let (who, denied) = who.ok_or_else(nobody)?;
    if shown.is_none() {
        let rule = "others could not name the mailbox: its owner's address is no level of a name";
        return Err(Refused::NotAllowed(rule));
    }
    Ok(store.grant(mailbox.id, who, denied, mode, rights))
}
