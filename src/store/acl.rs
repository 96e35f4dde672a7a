//! Who may do what in whose mailboxes (RFC 4314): plans, changes, reads.
//!
//! A row for each mailbox and identifier says what is given and denied; the owner has none, for he may
//! always do everything. The same pairs stand a second time by identifier, so that what is shared with
//! somebody is found without looking at anybody's mailboxes. Accounts are kept by number: nobody inherits
//! what was meant for an address's former owner.

use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use super::change::Op;
use super::error::{Fault, ReadError, Trouble, WriteError};
use super::message::Plan;
use super::notify::EVERYONE_WATCH;
use super::record::Record;
use super::table::{ACL, SHARED, Tables, load};
use super::{Pending, Reader, Store};
use crate::mail::mailbox::{AccountId, MailboxId};
use crate::mail::rights::{Grant, Identifier, Rights, RightsMode};

/// Most identifiers that have rights on one mailbox, `anyone` among them.
pub const ACL_ENTRIES_MAX: usize = 64;

/// Most mailboxes that are shared with one account, or with `anyone`: a LIST reads them all.
pub const SHARED_MAX: usize = 4096;

/// Stands for `anyone`. No account has this number.
const ANYONE: u32 = u32::MAX;

/// What an identifier has on a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GrantRecord(pub(super) Grant);

impl Record for GrantRecord {
    const TABLE: &'static str = "acl";
}

fn number(identifier: Identifier) -> u32 {
    match identifier {
        Identifier::Anyone => ANYONE,
        Identifier::Account(AccountId(id)) => id,
    }
}

fn identifier(number: u32) -> Identifier {
    if number == ANYONE { Identifier::Anyone } else { Identifier::Account(AccountId(number)) }
}

/// Changes what an identifier is given on a mailbox or, with `denied`, what it is denied.
fn change(
    tables: &mut Tables<'_>,
    mailbox: MailboxId,
    who: Identifier,
    denied: bool,
    mode: RightsMode,
    rights: Rights,
) -> Plan<()> {
    let owner = tables.load_mailbox(mailbox.0)?.ok_or(WriteError::NoSuchMailbox)?.account;
    let id = number(who);
    if id == owner {
        return Err(WriteError::NotAllowed("the owner of a mailbox keeps all rights").into());
    }
    if id != ANYONE {
        tables.load_account(id)?.ok_or(WriteError::NoSuchAccount)?;
    }
    let before = find(tables.acl()?, mailbox.0, id)?;
    let known = before.unwrap_or_default();
    let grant = if denied {
        Grant { denied: mode.change(known.denied, rights), ..known }
    } else {
        Grant { given: mode.change(known.given, rights), ..known }
    };
    if grant == known {
        return Ok(((), Vec::new()));
    }
    if before.is_none() {
        if of_mailbox(tables, mailbox.0)?.len() >= ACL_ENTRIES_MAX {
            return Err(WriteError::Limit("identifiers with rights on the mailbox").into());
        }
        check_room(tables, id)?;
    }
    Ok(((), vec![Op::Grant { mailbox: mailbox.0, identifier: id, grant }]))
}

/// Refuses one more mailbox for an identifier that has as many as there may be.
fn check_room(tables: &mut Tables<'_>, identifier: u32) -> Result<(), Fault> {
    let there = tables.shared()?.range((identifier, 0)..=(identifier, u32::MAX)).map_err(Trouble::from)?.count();
    let full = WriteError::Limit("mailboxes that are shared with an identifier");
    if there >= SHARED_MAX { Err(full.into()) } else { Ok(()) }
}

fn find(
    table: &impl ReadableTable<(u32, u32), &'static [u8]>,
    mailbox: u32,
    identifier: u32,
) -> Result<Option<Grant>, Trouble> {
    Ok(load::<GrantRecord, _>(table, (mailbox, identifier))?.map(|GrantRecord(grant)| grant))
}

/// Everything that is said of a mailbox, by identifier's number.
fn all_of(table: &impl ReadableTable<(u32, u32), &'static [u8]>, mailbox: u32) -> Result<Vec<(u32, Grant)>, Trouble> {
    let rows = table.range((mailbox, 0)..=(mailbox, u32::MAX))?.map(|row| {
        let (key, value) = row?;
        let GrantRecord(grant) = GrantRecord::decode(key.value(), value.value())?;
        Ok((key.value().1, grant))
    });
    rows.collect()
}

fn of_mailbox(tables: &mut Tables<'_>, mailbox: u32) -> Result<Vec<(u32, Grant)>, Trouble> {
    all_of(tables.acl()?, mailbox)
}

/// The ops by which a mailbox that is made begins with the rights of the one above it.
pub(super) fn inherited(tables: &mut Tables<'_>, from: u32, to: u32) -> Result<Vec<Op>, Fault> {
    let mut ops = Vec::new();
    for (identifier, grant) in of_mailbox(tables, from)? {
        check_room(tables, identifier)?;
        ops.push(Op::Grant { mailbox: to, identifier, grant });
    }
    Ok(ops)
}

/// Does [`Op::Grant`]: nothing given and nothing denied is no row.
pub(super) fn put(tables: &mut Tables<'_>, mailbox: u32, identifier: u32, grant: Grant) -> Result<(), Trouble> {
    let key = (mailbox, identifier);
    if grant == Grant::default() {
        tables.acl()?.remove(key)?;
        tables.shared()?.remove((identifier, mailbox))?;
    } else {
        tables.acl()?.insert(key, GrantRecord(grant).encode(key)?.as_slice())?;
        tables.shared()?.insert((identifier, mailbox), ())?;
    }
    if let Some(record) = tables.load_mailbox(mailbox)? {
        tables.wake(record.account);
    }
    tables.wake(if identifier == ANYONE { EVERYONE_WATCH } else { identifier });
    Ok(())
}

/// Removes all that is said of a mailbox that goes, and tells whom that concerns.
pub(super) fn forget_mailbox(tables: &mut Tables<'_>, mailbox: u32) -> Result<(), Trouble> {
    let keys = tables.acl()?.range((mailbox, 0)..=(mailbox, u32::MAX))?.map(|row| Ok(row?.0.value().1));
    for identifier in keys.collect::<Result<Vec<_>, Trouble>>()? {
        put(tables, mailbox, identifier, Grant::default())?;
    }
    Ok(())
}

/// Removes all that an account that goes has on others' mailboxes.
pub(super) fn forget_account(tables: &mut Tables<'_>, account: u32) -> Result<(), Trouble> {
    let keys = tables.shared()?.range((account, 0)..=(account, u32::MAX))?.map(|row| Ok(row?.0.value().1));
    for mailbox in keys.collect::<Result<Vec<_>, Trouble>>()? {
        put(tables, mailbox, account, Grant::default())?;
    }
    Ok(())
}

/// What repair does about a row that is damaged, or about something that is gone, or that stands in one
/// of the two tables alone: it is written anew where it can be, else it goes.
pub(super) fn mended(tables: &mut Tables<'_>, mailbox: u32, identifier: u32) -> Result<Op, Trouble> {
    let whole = tables.load_mailbox(mailbox).ok().flatten().is_some()
        && (identifier == ANYONE || tables.load_account(identifier).ok().flatten().is_some());
    let grant = find(tables.acl()?, mailbox, identifier).ok().flatten();
    Ok(Op::Grant { mailbox, identifier, grant: grant.filter(|_| whole).unwrap_or_default() })
}

/// Tells whether an identifier's number is that of an account.
pub(super) fn is_account(identifier: u32) -> bool {
    identifier != ANYONE
}

impl Reader {
    /// Who has which rights on a mailbox, beside its owner: accounts by number, then `anyone`.
    pub fn grants(&self, mailbox: MailboxId) -> Result<Vec<(Identifier, Grant)>, ReadError> {
        let read = || {
            let rows = all_of(&self.table(ACL)?, mailbox.0)?;
            Ok(rows.into_iter().map(|(id, grant)| (identifier(id), grant)).collect())
        };
        self.told(read())
    }

    /// What an account that is not the owner may do with a mailbox: what it is given itself and as one of
    /// all, without what it is denied.
    pub fn rights(&self, mailbox: MailboxId, account: AccountId) -> Result<Rights, ReadError> {
        let read = || {
            let table = self.table(ACL)?;
            let own = find(&table, mailbox.0, account.0)?.unwrap_or_default();
            let anyones = find(&table, mailbox.0, ANYONE)?.unwrap_or_default();
            Ok(own.and(anyones).rights())
        };
        self.told(read())
    }

    /// Mailboxes of others of which something is said to this account or to `anyone`, by number. What may
    /// be done with them is another question.
    pub fn shared_with(&self, account: AccountId) -> Result<Vec<MailboxId>, ReadError> {
        let read = || {
            let table = self.table(SHARED)?;
            let mut found = Vec::new();
            for identifier in [account.0, ANYONE] {
                for row in table.range((identifier, 0)..=(identifier, u32::MAX))? {
                    found.push(MailboxId(row?.0.value().1));
                }
            }
            found.sort_unstable();
            found.dedup();
            Ok(found)
        };
        self.told(read())
    }
}

impl Store {
    /// SETACL and DELETEACL: changes what an identifier is given on a mailbox or, with `denied`, what it is
    /// denied.
    pub fn grant(
        &self,
        mailbox: MailboxId,
        identifier: Identifier,
        denied: bool,
        mode: RightsMode,
        rights: Rights,
    ) -> Pending<()> {
        self.plan(move |tables| change(tables, mailbox, identifier, denied, mode, rights))
    }
}
