//! Plans of what is done to mailboxes: create, delete, rename, subscribe (RFC 9051 section 6.3).
//!
//! Every mailbox but those of the first level has its parent: CREATE makes missing ones, DELETE
//! refuses while there are children, RENAME takes them along. UIDVALIDITY comes from a counter of
//! the whole store that the clock seeds, so no two mailboxes, and no name at two times, share one.

use crate::mail::mailbox::{AccountId, MailboxId, MailboxName, SpecialUse};
use crate::mail::message::Keywords;

use super::Folder;
use super::change::Op;
use super::error::{Fault, Trouble, WriteError};
use super::message::{self, Plan};
use super::table::Tables;
use super::{acl, annotation};
use redb::ReadableTable;

/// Most mailboxes an account can have.
pub const MAILBOXES_MAX: usize = 4096;

/// Most names an account can subscribe.
pub const SUBSCRIPTIONS_MAX: usize = 4096;

/// The latest time that seeds UIDVALIDITY, in the year 2096: a clock that jumps ahead once may not
/// use the numbers up, and 300 million mailboxes can be made beyond it.
const UIDVALIDITY_CLOCK_MAX: u32 = 4_000_000_000;

/// What an account begins with, beside INBOX.
const STANDARD: [(&str, SpecialUse); 5] = [
    ("Archive", SpecialUse::Archive),
    ("Drafts", SpecialUse::Drafts),
    ("Junk", SpecialUse::Junk),
    ("Sent", SpecialUse::Sent),
    ("Trash", SpecialUse::Trash),
];

/// Hands out numbers for new mailboxes.
struct Numbers {
    mailbox: u32,
    uid_validity: u32,
}

impl Numbers {
    fn new(tables: &Tables<'_>) -> Self {
        // A clock before 1970 or beyond the bound says nothing: the counter goes on alone.
        let clock = u32::try_from(tables.now.0).ok().filter(|clock| *clock <= UIDVALIDITY_CLOCK_MAX);
        Self { mailbox: tables.progress.mailbox, uid_validity: tables.progress.uid_validity.max(clock.unwrap_or(0)) }
    }

    fn put(
        &mut self,
        account: u32,
        name: MailboxName,
        special_use: Option<SpecialUse>,
    ) -> Result<(u32, Op), WriteError> {
        let id = self.mailbox;
        self.mailbox = id.checked_add(1).ok_or(WriteError::Limit("mailboxes of the store"))?;
        self.uid_validity = self.uid_validity.checked_add(1).ok_or(WriteError::Limit("UIDVALIDITY"))?;
        Ok((id, Op::PutMailbox { id, account, name, special_use, uid_validity: self.uid_validity }))
    }
}

/// The number of a mailbox.
fn find(tables: &mut Tables<'_>, account: u32, name: &str) -> Result<Option<u32>, Trouble> {
    Ok(tables.mboxname()?.get((account, name))?.map(|id| id.value()))
}

/// The mailbox a delivery to `folder` goes to: INBOX where there is no such mailbox.
pub(super) fn folder(tables: &mut Tables<'_>, account: u32, folder: &Folder) -> Result<u32, Fault> {
    let found = match folder {
        Folder::Inbox => None,
        Folder::Named(name) => find(tables, account, name.as_str())?,
        Folder::Special(special_use) => {
            let mut found = None;
            for (_, id) in names(tables, account, "")? {
                if tables.load_mailbox(id)?.is_some_and(|mailbox| mailbox.special_use == Some(*special_use)) {
                    found = Some(id);
                    break;
                }
            }
            found
        }
    };
    match found {
        Some(id) => Ok(id),
        None => Ok(find(tables, account, "INBOX")?.ok_or(WriteError::NoSuchAccount)?),
    }
}

/// An account's mailboxes whose names begin with `prefix`.
fn names(tables: &mut Tables<'_>, account: u32, prefix: &str) -> Result<Vec<(String, u32)>, Trouble> {
    let mut found = Vec::new();
    for row in tables.mboxname()?.range((account, prefix)..(account.saturating_add(1), ""))? {
        let (key, id) = row?;
        let (_, name) = key.value();
        if !name.starts_with(prefix) {
            break;
        }
        found.push((name.to_owned(), id.value()));
    }
    Ok(found)
}

/// The ops that make INBOX and the standard mailboxes, all subscribed.
pub(super) fn standard(tables: &mut Tables<'_>, account: u32) -> Result<Vec<Op>, Fault> {
    let mut numbers = Numbers::new(tables);
    let mut ops = Vec::new();
    let inbox = (Some(MailboxName::inbox()), None);
    for (name, special_use) in
        std::iter::once(inbox).chain(STANDARD.map(|(name, special)| (MailboxName::new(name), Some(special))))
    {
        let Some(name) = name else { continue };
        ops.push(numbers.put(account, name.clone(), special_use)?.1);
        ops.push(Op::Subscribe { account, name, subscribed: true });
    }
    Ok(ops)
}

/// The ops that make the missing parents of `name`, and the nearest that is there.
fn parents(
    tables: &mut Tables<'_>,
    numbers: &mut Numbers,
    account: u32,
    name: &MailboxName,
) -> Result<(Vec<Op>, Option<u32>), Fault> {
    if name.is_others() {
        return Err(WriteError::NotAllowed("names below Other Users are those of others' mailboxes").into());
    }
    let (mut missing, mut nearest) = (Vec::new(), None);
    let mut next = name.parent();
    while let Some(name) = next {
        nearest = find(tables, account, name.as_str())?;
        if nearest.is_some() {
            break;
        }
        next = name.parent();
        missing.push(name);
    }
    let mut ops = Vec::new();
    for name in missing.into_iter().rev() {
        let (id, op) = numbers.put(account, name, None)?;
        ops.push(op);
        ops.extend(inherited(tables, nearest, id)?);
    }
    Ok((ops, nearest))
}

/// The ops by which a new mailbox has the rights of the nearest above it, if there is one.
fn inherited(tables: &mut Tables<'_>, nearest: Option<u32>, id: u32) -> Result<Vec<Op>, Fault> {
    nearest.map_or(Ok(Vec::new()), |from| acl::inherited(tables, from, id))
}

/// How many mailboxes these ops make.
fn made(ops: &[Op]) -> usize {
    ops.iter().filter(|op| matches!(op, Op::PutMailbox { .. })).count()
}

fn check_room(tables: &mut Tables<'_>, account: u32, more: usize) -> Result<(), Fault> {
    let fits = names(tables, account, "")?.len() + more <= MAILBOXES_MAX;
    if fits { Ok(()) } else { Err(WriteError::Limit("mailboxes of the account").into()) }
}

/// CREATE (RFC 9051 section 6.3.4, RFC 6154 section 5).
pub(super) fn create(
    tables: &mut Tables<'_>,
    account: AccountId,
    name: &MailboxName,
    special_use: Option<SpecialUse>,
) -> Plan<MailboxId> {
    let account = account.0;
    tables.load_account(account)?.ok_or(WriteError::NoSuchAccount)?;
    if find(tables, account, name.as_str())?.is_some() {
        return Err(WriteError::Exists.into());
    }
    let mut numbers = Numbers::new(tables);
    let (mut ops, nearest) = parents(tables, &mut numbers, account, name)?;
    check_room(tables, account, made(&ops) + 1)?;
    let (id, op) = numbers.put(account, name.clone(), special_use)?;
    ops.push(op);
    ops.extend(inherited(tables, nearest, id)?);
    Ok((MailboxId(id), ops))
}

/// DELETE (RFC 9051 section 6.3.5).
pub(super) fn delete(tables: &mut Tables<'_>, account: AccountId, name: &MailboxName) -> Plan<()> {
    let id = find(tables, account.0, name.as_str())?.ok_or(WriteError::NoSuchMailbox)?;
    if name.is_inbox() {
        return Err(WriteError::NotAllowed("INBOX can't be deleted").into());
    }
    if !names(tables, account.0, &format!("{}/", name.as_str()))?.is_empty() {
        return Err(WriteError::NotAllowed("the mailbox has others below it").into());
    }
    Ok(((), vec![Op::DropMailbox { id }]))
}

/// RENAME (RFC 9051 section 6.3.6). Subscriptions stay as they are.
pub(super) fn rename(tables: &mut Tables<'_>, account: AccountId, from: &MailboxName, to: &MailboxName) -> Plan<()> {
    let account = account.0;
    let id = find(tables, account, from.as_str())?.ok_or(WriteError::NoSuchMailbox)?;
    if find(tables, account, to.as_str())?.is_some() {
        return Err(WriteError::Exists.into());
    }
    if from.is_inbox() {
        return rename_inbox(tables, account, id, to);
    }
    if to.is_below(from) {
        return Err(WriteError::NotAllowed("a mailbox can't go below itself").into());
    }
    let mut numbers = Numbers::new(tables);
    let (mut ops, _) = parents(tables, &mut numbers, account, to)?;
    if !ops.is_empty() {
        check_room(tables, account, made(&ops))?;
    }
    ops.push(Op::RenameMailbox { id, to: to.clone() });
    for (name, id) in names(tables, account, &format!("{}/", from.as_str()))? {
        let rest = name.get(from.as_str().len()..).unwrap_or_default();
        let to = MailboxName::new(&format!("{}{rest}", to.as_str()))
            .ok_or(WriteError::NotAllowed("the name of a mailbox below would be too long or too deep"))?;
        ops.push(Op::RenameMailbox { id, to });
    }
    Ok(((), ops))
}

/// INBOX's messages go to the new mailbox; INBOX and what is below it stay.
fn rename_inbox(tables: &mut Tables<'_>, account: u32, inbox: u32, to: &MailboxName) -> Plan<()> {
    let mut numbers = Numbers::new(tables);
    let (mut ops, _) = parents(tables, &mut numbers, account, to)?;
    check_room(tables, account, made(&ops) + 1)?;
    let (id, op) = numbers.put(account, to.clone(), None)?;
    ops.push(op);
    let Keywords(names) = tables.load_mailbox(inbox)?.ok_or_else(|| Trouble::damaged("INBOX"))?.keywords;
    // What is said of INBOX stays with it and goes along (RFC 5464 section 4.1).
    ops.extend(annotation::copied(tables, account, inbox, id)?);
    let uids = message::all(tables, inbox)?;
    if !uids.is_empty() {
        let keywords = (0_u8..).zip(&names).map(|(at, _)| (at, at)).collect();
        ops.push(Op::Keywords { mailbox: id, names });
        ops.push(Op::Transfer { from: inbox, uids, to: id, first: 1, saved: tables.now, keywords, remove: true });
    }
    Ok(((), ops))
}

/// SUBSCRIBE and UNSUBSCRIBE (RFC 9051 sections 6.3.7 and 6.3.8).
pub(super) fn subscribe(tables: &mut Tables<'_>, account: AccountId, name: &MailboxName, subscribed: bool) -> Plan<()> {
    let account = account.0;
    tables.load_account(account)?.ok_or(WriteError::NoSuchAccount)?;
    let table = tables.subscription()?;
    if table.get((account, name.as_str()))?.is_some() == subscribed {
        return Ok(((), Vec::new()));
    }
    if subscribed && table.range((account, "")..(account.saturating_add(1), ""))?.count() >= SUBSCRIPTIONS_MAX {
        return Err(WriteError::Limit("subscriptions of the account").into());
    }
    Ok(((), vec![Op::Subscribe { account, name: name.clone(), subscribed }]))
}
