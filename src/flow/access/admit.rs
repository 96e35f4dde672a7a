//! May this account do that there? Every question of an IMAP session passes here, once, before it is
//! answered (RFC 4314 section 4).
//!
//! A session names mailboxes as its user knows them, those of others below [`OTHER_USERS`], or by a number
//! that it was told. [`admit`] turns a name into that of the owner, and says no where a right is missing:
//! `NO [NOPERM]` to whoever sees the mailbox by LIST, and to everybody else exactly what is said of a
//! mailbox that is not there. Rights are read at each question, so what is taken away is gone at the next
//! command, whatever is selected. The match in [`Asker::admit`] names every question: a new one does not
//! compile until somebody has decided what it needs.
//!
//! [`OTHER_USERS`]: crate::mail::mailbox::OTHER_USERS

use crate::mail::mailbox::{AccountId, Mailbox, MailboxId, MailboxName};
use crate::mail::message::FlagMode;
use crate::mail::rights::Rights;
use crate::protocol::imap::request::{Answer, Refused, Request};
use crate::store::{ReadError, Reader, Store};

use super::imap::unreadable;

/// Any of these lets somebody read and write what is said of a mailbox, beside `l` (RFC 5464 section 3.3).
const ANNOTATES: Rights = Rights::READ.and(Rights::SEEN).and(Rights::WRITE).and(Rights::INSERT).and(Rights::POST);

/// What MOVE and REPLACE need where messages go (RFC 6851 section 4.4).
const TAKES_OUT: Rights = Rights::READ.and(Rights::MARK).and(Rights::EXPUNGE);

/// A question that may be answered.
#[derive(Debug)]
pub struct Admitted {
    /// Who asks.
    pub account: AccountId,
    /// Whose mailbox it is about; names in the question are as he knows them.
    pub owner: AccountId,
    /// What may be done with the mailbox that is changed; where there is none, all.
    pub rights: Rights,
    /// The question.
    pub request: Request,
}

/// Finds out whether `account` may ask this.
///
/// # Errors
/// The answer to give instead.
pub fn admit(store: &Store, account: AccountId, request: Request) -> Result<Admitted, Answer> {
    let reader = store.reader().map_err(|error| unreadable(&error))?;
    Asker { reader: &reader, account }.admit(request)
}

/// All mailboxes that an account sees: its own by name, INBOX first, then those of others.
///
/// # Errors
/// As the store.
pub fn mailboxes(reader: &Reader, account: AccountId) -> Result<Vec<Mailbox>, ReadError> {
    let mut found = reader.mailboxes(account)?;
    let mut others = Vec::new();
    for id in reader.shared_with(account)? {
        if let Some(mailbox) = reader.mailbox(id)?.filter(|mailbox| mailbox.account != account)
            && let Some(shown) = shown(reader, account, mailbox)?
            && shown.rights.has(Rights::LOOKUP)
        {
            others.push(shown);
        }
    }
    others.sort_by(|one, other| one.name.cmp(&other.name));
    found.extend(others);
    Ok(found)
}

/// A mailbox as an account knows it: by which name, with which rights. What it is for is its owner's
/// business. `None` where nobody but its owner can name it.
///
/// # Errors
/// As the store.
pub fn shown(reader: &Reader, account: AccountId, mailbox: Mailbox) -> Result<Option<Mailbox>, ReadError> {
    if mailbox.account == account {
        return Ok(Some(mailbox));
    }
    let Some(owner) = reader.account(mailbox.account)? else { return Ok(None) };
    let Some(name) = MailboxName::of_other(&owner.address, &mailbox.name) else { return Ok(None) };
    let rights = reader.rights(mailbox.id, account)?;
    let subscribed = reader.is_subscribed(account, &name)?;
    Ok(Some(Mailbox { name, rights, subscribed, special_use: None, ..mailbox }))
}

/// Whose mailbox `name` names, and how he calls it, be it there or not; `None` for a name that is
/// nobody's. A name of one's own goes before, should one have such a mailbox from of old.
///
/// # Errors
/// As the store.
pub fn place(
    reader: &Reader,
    account: AccountId,
    name: &MailboxName,
) -> Result<Option<(AccountId, MailboxName)>, ReadError> {
    if !name.is_others() || reader.mailbox_named(account, name)?.is_some() {
        return Ok(Some((account, name.clone())));
    }
    let Some((address, name)) = name.other() else { return Ok(None) };
    let owner = reader.login(&address.to_string())?.map(|(owner, _)| owner.id);
    Ok(owner.filter(|owner| *owner != account).map(|owner| (owner, name)))
}

/// Finds a mailbox by the name an account knows it by: as its owner has it, but with what that account may
/// do there.
///
/// # Errors
/// As the store.
pub fn find(reader: &Reader, account: AccountId, name: &MailboxName) -> Result<Option<Mailbox>, ReadError> {
    let Some((owner, name)) = place(reader, account, name)? else { return Ok(None) };
    let Some(mailbox) = reader.mailbox_named(owner, &name)? else { return Ok(None) };
    let rights = if owner == account { Rights::ALL } else { reader.rights(mailbox.id, account)? };
    Ok(Some(Mailbox { rights, ..mailbox }))
}

/// Why not.
enum No {
    /// It can't be done.
    Refused(Refused),
    /// For all that may be told, there is no such mailbox.
    Missing,
    /// The store could not be read.
    Unreadable(ReadError),
}

impl From<ReadError> for No {
    fn from(error: ReadError) -> Self {
        Self::Unreadable(error)
    }
}

/// Tells whether `rights` are enough: all of `wanted`.
fn check(rights: Rights, wanted: Rights) -> Result<(), No> {
    match rights {
        rights if rights.has(wanted) => Ok(()),
        rights if rights.has(Rights::LOOKUP) => Err(No::Refused(Refused::NoRight)),
        _ => Err(No::Missing),
    }
}

/// As [`check`]: any of `wanted`.
fn check_any(rights: Rights, wanted: Rights) -> Result<(), No> {
    if rights.has_any(wanted) { Ok(()) } else { check(rights, wanted) }
}

/// Who asks, as of one moment.
struct Asker<'r> {
    reader: &'r Reader,
    account: AccountId,
}

impl Asker<'_> {
    fn admit(&self, request: Request) -> Result<Admitted, Answer> {
        // What a missing mailbox is answered with, where the question has an answer for that.
        let missing = match &request {
            Request::Open(_) => Answer::Opened(None),
            Request::Mailbox { .. } | Request::AppendBegin { .. } | Request::Changes { .. } => Answer::Mailbox(None),
            _ => Answer::Refused(Refused::NoSuchMailbox),
        };
        self.decide(request).map_err(|no| match no {
            No::Missing => missing,
            No::Refused(refused) => Answer::Refused(refused),
            No::Unreadable(error) => unreadable(&error),
        })
    }

    /// What each question needs.
    fn decide(&self, request: Request) -> Result<Admitted, No> {
        match request {
            // Of nobody's mailbox, of one's own alone, or of what was admitted before.
            Request::Sasl(_)
            | Request::Mailboxes { .. }
            | Request::Letters { .. }
            | Request::Body { .. }
            | Request::Quota
            | Request::Annotations { mailbox: None, .. }
            | Request::Annotate { mailbox: None, .. }
            | Request::Authorize { .. }
            | Request::ResetKeys(_)
            | Request::OpenUrl { .. }
            | Request::UrlBytes(_)
            | Request::AppendBytes(_)
            | Request::AppendUrl { .. }
            | Request::AppendNext { .. }
            | Request::AppendEnd { replaced: None, .. }
            | Request::AppendCancel => Ok(self.own(request)),
            Request::Open(name) => self.named(&name, Rights::READ, Request::Open),
            Request::Mailbox { name, wanted } => {
                let (owner, name, rights) = self.find(&name)?;
                check_any(rights, wanted)?;
                Ok(self.admitted(owner, rights, Request::Mailbox { name, wanted }))
            }
            // Of the selected mailbox: what may be read no more is gone, whatever else may be done with it.
            Request::Changes { mailbox, .. } => {
                let (owner, rights) = self.rights(mailbox)?;
                let readable = rights.has(Rights::READ).then(|| self.admitted(owner, rights, request));
                readable.ok_or(No::Missing)
            }
            Request::CountFrom { mailbox, .. }
            | Request::Vanished { mailbox, .. }
            | Request::Sort { mailbox, .. }
            | Request::Thread { mailbox, .. }
            | Request::Rows { mailbox, .. }
            | Request::Search { mailbox, .. } => self.numbered(mailbox, Rights::READ, request),
            Request::ClaimRecent(mailbox) => {
                let (owner, rights) = self.rights(mailbox)?;
                check(rights, Rights::READ)?;
                check_any(rights, Rights::INSERT.and(Rights::EXPUNGE).and(Rights::flags()))?;
                Ok(self.admitted(owner, rights, request))
            }
            Request::Annotations { mailbox: Some(mailbox), .. } => {
                let (owner, rights) = self.rights(mailbox)?;
                check(rights, Rights::LOOKUP)?;
                check_any(rights, ANNOTATES)?;
                Ok(self.admitted(owner, rights, request))
            }
            Request::Annotate { mailbox: Some(mailbox), ref changes } => {
                let (owner, rights) = self.rights(mailbox)?;
                check(rights, Rights::LOOKUP)?;
                check(rights, Rights::WRITE)?;
                if owner != self.account && changes.iter().any(|(entry, _)| !entry.is_shared()) {
                    let rule = "private entries are kept beside one's own mailboxes alone";
                    return Err(No::Refused(Refused::NotAllowed(rule)));
                }
                Ok(self.admitted(owner, rights, request))
            }
            Request::Flag { mailbox, mode, ref flags, .. } => {
                let (owner, rights) = self.rights(mailbox)?;
                check(rights, Rights::READ)?;
                let some = rights.permitted(flags.clone());
                let nothing = some.system.0 == 0 && some.keywords.is_empty();
                let named = flags.system.0 != 0 || !flags.keywords.is_empty();
                if (mode == FlagMode::Replace && !rights.has_any(Rights::flags()))
                    || (mode != FlagMode::Replace && nothing && named)
                {
                    return Err(No::Refused(Refused::NoRight));
                }
                Ok(self.admitted(owner, rights, request))
            }
            Request::Copy { from, to, .. } => self.transfer((from, Rights::READ), to, request),
            Request::Move { from, to, .. } => self.transfer((from, TAKES_OUT), to, request),
            Request::Expunge { mailbox, .. } => self.numbered(mailbox, Rights::READ.and(Rights::EXPUNGE), request),
            Request::Create { name, special_use } => {
                let (owner, name) = self.creatable(&name)?;
                if owner != self.account && special_use.is_some() {
                    return Err(No::Refused(Refused::NotAllowed("what a mailbox is for is said by its owner")));
                }
                Ok(self.admitted(owner, Rights::ALL, Request::Create { name, special_use }))
            }
            Request::Delete(name) => self.named(&name, Rights::DELETE, Request::Delete),
            Request::Rename { from, to } => self.rename(&from, &to),
            Request::Subscribe { name, subscribed } => {
                // As LIST spells it; what can't be seen is like what is not there.
                let name = match find(self.reader, self.account, &name)? {
                    Some(found) if found.rights.has(Rights::LOOKUP) => {
                        shown(self.reader, self.account, found)?.map_or(name, |shown| shown.name)
                    }
                    _ => name,
                };
                Ok(self.own(Request::Subscribe { name, subscribed }))
            }
            Request::Acl(name) => self.named(&name, Rights::ADMINISTER, Request::Acl),
            Request::SetAcl { mailbox, identifier, mode, rights } => {
                let set = |mailbox| Request::SetAcl { mailbox, identifier, mode, rights };
                self.named(&mailbox, Rights::ADMINISTER, set)
            }
            Request::ListRights { mailbox, identifier } => {
                self.named(&mailbox, Rights::ADMINISTER, |mailbox| Request::ListRights { mailbox, identifier })
            }
            Request::AppendBegin { mailbox, size, replaced } => {
                self.replaced(replaced.map(|(from, _)| from))?;
                let begin = |mailbox| Request::AppendBegin { mailbox, size, replaced };
                self.named(&mailbox, Rights::INSERT, begin)
            }
            Request::AppendEnd { replaced: Some((from, _)), .. } => {
                self.replaced(Some(from))?;
                Ok(self.own(request))
            }
        }
    }

    /// A question that is not about a mailbox of somebody else.
    fn own(&self, request: Request) -> Admitted {
        self.admitted(self.account, Rights::ALL, request)
    }

    fn admitted(&self, owner: AccountId, rights: Rights, request: Request) -> Admitted {
        Admitted { account: self.account, owner, rights, request }
    }

    /// Whose a mailbox is, its name there, and what may be done with it.
    fn find(&self, name: &MailboxName) -> Result<(AccountId, MailboxName, Rights), No> {
        let found = find(self.reader, self.account, name)?.ok_or(No::Missing)?;
        Ok((found.account, found.name, found.rights))
    }

    /// The same of a mailbox by its number.
    fn rights(&self, mailbox: MailboxId) -> Result<(AccountId, Rights), No> {
        let owner = self.reader.owner(mailbox)?.ok_or(No::Missing)?;
        let rights = if owner == self.account { Rights::ALL } else { self.reader.rights(mailbox, self.account)? };
        Ok((owner, rights))
    }

    fn numbered(&self, mailbox: MailboxId, wanted: Rights, request: Request) -> Result<Admitted, No> {
        let (owner, rights) = self.rights(mailbox)?;
        check(rights, wanted)?;
        Ok(self.admitted(owner, rights, request))
    }

    fn named(
        &self,
        name: &MailboxName,
        wanted: Rights,
        request: impl FnOnce(MailboxName) -> Request,
    ) -> Result<Admitted, No> {
        let (owner, name, rights) = self.find(name)?;
        check(rights, wanted)?;
        Ok(self.admitted(owner, rights, request(name)))
    }

    /// COPY and MOVE: rights are those in the target, by which flags go along.
    fn transfer(&self, (from, wanted): (MailboxId, Rights), to: MailboxId, request: Request) -> Result<Admitted, No> {
        check(self.rights(from)?.1, wanted)?;
        let (owner, rights) = self.rights(to)?;
        check(rights, Rights::INSERT)?;
        Ok(self.admitted(owner, rights, request))
    }

    /// What REPLACE takes a message out of.
    fn replaced(&self, from: Option<MailboxId>) -> Result<(), No> {
        from.map_or(Ok(()), |from| check(self.rights(from)?.1, TAKES_OUT))
    }

    /// Where a mailbox is to be made, and under which name. With others that is below a mailbox where one
    /// has `k`; whatever else is wrong there, and even whether it is there, is not told without that.
    fn creatable(&self, name: &MailboxName) -> Result<(AccountId, MailboxName), No> {
        let refused = || No::Refused(Refused::NoRight);
        let (owner, name) = place(self.reader, self.account, name)?.ok_or_else(refused)?;
        if owner == self.account {
            return Ok((owner, name));
        }
        let rights = |name: &MailboxName| {
            let found = self.reader.mailbox_named(owner, name)?;
            found.map(|found| self.reader.rights(found.id, self.account)).transpose()
        };
        let mut above = name.parent();
        while let Some(parent) = above {
            if let Some(found) = rights(&parent)? {
                let hidden = rights(&name)?.is_some_and(|there| !there.has(Rights::LOOKUP));
                return if found.has(Rights::CREATE) && !hidden { Ok((owner, name)) } else { Err(refused()) };
            }
            above = parent.parent();
        }
        Err(refused())
    }

    /// RENAME stays with one owner: a mailbox counts for his quota and has his other names below it.
    fn rename(&self, from: &MailboxName, to: &MailboxName) -> Result<Admitted, No> {
        let (owner, from, rights) = self.find(from)?;
        check(rights, Rights::DELETE)?;
        if owner != self.account && from.is_inbox() {
            return Err(No::Refused(Refused::NotAllowed("only its owner may rename INBOX")));
        }
        let elsewhere = || No::Refused(Refused::NotAllowed("a mailbox can't go to another account"));
        let theirs = place(self.reader, self.account, to)?.ok_or_else(elsewhere)?.0;
        if theirs != owner {
            return Err(elsewhere());
        }
        let (_, to) = self.creatable(to)?;
        Ok(self.admitted(owner, rights, Request::Rename { from, to }))
    }
}

#[cfg(test)]
mod tests;
