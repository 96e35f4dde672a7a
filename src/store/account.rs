//! Plans of what is done to accounts, aliases, domains and notes.
//!
//! An address belongs to one account or one alias; both are found under `Address::key`. An alias
//! keeps the numbers of its accounts, so it follows no name that is given to somebody else later; other
//! addresses that it leads to are kept as they are. A list's address is nobody else's either.

use redb::ReadableTable;

use crate::mail::address::{Address, Domain};
use crate::mail::list::List;
use crate::mail::mailbox::AccountId;
use crate::mail::secret::ScramVerifier;

use super::change::Op;
use super::error::{Fault, Trouble, WriteError};
use super::message::Plan;
use super::record::{AccountRecord, AddressRecord, Bytes, Record};
use super::table::{Tables, load};
use super::{Alias, Quota, Usage};
use super::{certificate, mailbox};

/// Most accounts one alias leads to.
pub const ALIAS_TARGETS_MAX: usize = 100;

/// Longest name of a note, in bytes.
pub const NOTE_NAME_MAX: usize = 128;

/// Longest note, in bytes.
pub const NOTE_MAX: usize = 64 << 10;

/// The local part of a catch-all.
pub(super) const CATCH_ALL: &str = "*";

/// Whose an address is.
fn whose(tables: &mut Tables<'_>, key: &str) -> Result<Option<AddressRecord>, Trouble> {
    load(tables.address()?, key)
}

/// Makes an account.
pub(super) fn add(
    tables: &mut Tables<'_>,
    address: &Address,
    verifier: &ScramVerifier,
    quota: Quota,
) -> Plan<AccountId> {
    if address.local() == CATCH_ALL {
        return Err(WriteError::NotAllowed("an account can't be a catch-all; make an alias").into());
    }
    if whose(tables, &address.key())?.is_some() {
        return Err(WriteError::Exists.into());
    }
    let id = tables.progress.account;
    if id == u32::MAX {
        return Err(WriteError::Limit("accounts of the store").into());
    }
    let domain = address.domain().as_str();
    let mut ops = Vec::new();
    if tables.domain()?.get(domain)?.is_none() {
        ops.push(Op::PutDomain { name: domain.to_owned() });
    }
    let record = AccountRecord { address: address.clone(), verifier: verifier.clone(), quota, used: Usage::default() };
    ops.push(Op::PutAccount { id, record });
    ops.push(Op::PutAddress { key: address.key(), record: AddressRecord::Account(id) });
    ops.extend(mailbox::standard(tables, id)?);
    Ok((AccountId(id), ops))
}

/// Removes an account.
pub(super) fn remove(tables: &mut Tables<'_>, account: AccountId) -> Plan<()> {
    let id = account.0;
    tables.load_account(id)?.ok_or(WriteError::NoSuchAccount)?;
    let mut ops = Vec::new();
    for row in tables.address()?.iter()? {
        let (key, value) = row.map_err(Fault::from)?;
        let key = key.value().to_owned();
        match AddressRecord::decode(key.as_str(), value.value())? {
            AddressRecord::Account(owner) if owner == id => ops.push(Op::DropAddress { key }),
            AddressRecord::Forward(address, mut targets, outside) if targets.contains(&id) => {
                targets.retain(|target| *target != id);
                ops.push(Op::PutAddress { key, record: AddressRecord::Forward(address, targets, outside) });
            }
            AddressRecord::Alias(address, mut targets) if targets.contains(&id) => {
                targets.retain(|target| *target != id);
                let left = !targets.is_empty();
                let record = AddressRecord::Alias(address, targets);
                ops.push(if left { Op::PutAddress { key, record } } else { Op::DropAddress { key } });
            }
            _ => {}
        }
    }
    for row in tables.mboxname()?.range((id, "")..(id.saturating_add(1), ""))? {
        ops.push(Op::DropMailbox { id: row.map_err(Fault::from)?.1.value() });
    }
    ops.extend(certificate::forgotten(tables, account)?);
    ops.push(Op::DropAccount { id });
    Ok(((), ops))
}

/// Changes an account's record.
fn change(tables: &mut Tables<'_>, account: AccountId, change: impl FnOnce(&mut AccountRecord)) -> Plan<()> {
    let before = tables.load_account(account.0)?.ok_or(WriteError::NoSuchAccount)?;
    let mut record = before.clone();
    change(&mut record);
    let ops = if record == before { Vec::new() } else { vec![Op::PutAccount { id: account.0, record }] };
    Ok(((), ops))
}

/// Changes an account's password.
pub(super) fn set_verifier(tables: &mut Tables<'_>, account: AccountId, verifier: ScramVerifier) -> Plan<()> {
    change(tables, account, |record| record.verifier = verifier)
}

/// Changes an account's quota.
pub(super) fn set_quota(tables: &mut Tables<'_>, account: AccountId, quota: Quota) -> Plan<()> {
    change(tables, account, |record| record.quota = quota)
}

/// Adds or replaces an alias. A target in a local domain is an account; others are elsewhere.
pub(super) fn put_alias(tables: &mut Tables<'_>, alias: &Alias) -> Plan<()> {
    let key = alias.address.key();
    if !is_local(tables, &alias.address)? {
        return Err(WriteError::NotAllowed("the alias's domain is not local; add it first").into());
    }
    let before = whose(tables, &key)?;
    if matches!(before, Some(AddressRecord::Account(_) | AddressRecord::List(_))) {
        return Err(WriteError::Exists.into());
    }
    if alias.targets.is_empty() {
        return Err(WriteError::NotAllowed("an alias needs a target").into());
    }
    if alias.targets.len() > ALIAS_TARGETS_MAX {
        return Err(WriteError::Limit("targets of the alias").into());
    }
    let (mut targets, mut outside) = (Vec::new(), Vec::<Address>::new());
    for target in &alias.targets {
        match whose(tables, &target.key())? {
            Some(AddressRecord::Account(id)) if !targets.contains(&id) => targets.push(id),
            Some(AddressRecord::Account(_)) => {}
            _ if is_local(tables, target)? => return Err(WriteError::NoSuchAccount.into()),
            _ if outside.iter().any(|known| known.key() == target.key()) => {}
            _ => outside.push(target.clone()),
        }
    }
    let address = alias.address.clone();
    let record = if outside.is_empty() {
        AddressRecord::Alias(address, targets)
    } else {
        AddressRecord::Forward(address, targets, outside)
    };
    let ops = if before.as_ref() == Some(&record) { Vec::new() } else { vec![Op::PutAddress { key, record }] };
    Ok(((), ops))
}

fn is_local(tables: &mut Tables<'_>, address: &Address) -> Result<bool, Trouble> {
    Ok(tables.domain()?.get(address.domain().as_str())?.is_some())
}

/// Makes a list, or replaces what there is of it.
pub(super) fn put_list(tables: &mut Tables<'_>, list: List, replace: bool) -> Plan<()> {
    let key = list.address.key();
    if let Some(fault) = list.fault() {
        return Err(WriteError::NotAllowed(fault).into());
    }
    if !is_local(tables, &list.address)? {
        return Err(WriteError::NotAllowed("the list's domain is not local; add it first").into());
    }
    match whose(tables, &key)? {
        Some(AddressRecord::List(before)) if replace => {
            if *before == list {
                return Ok(((), Vec::new()));
            }
        }
        None if !replace => {}
        None => return Err(WriteError::NotAllowed("there is no such list").into()),
        Some(_) => return Err(WriteError::Exists.into()),
    }
    Ok(((), vec![Op::PutAddress { key, record: AddressRecord::List(Box::new(list)) }]))
}

/// Removes a list.
pub(super) fn remove_list(tables: &mut Tables<'_>, address: &Address) -> Plan<()> {
    let key = address.key();
    match whose(tables, &key)? {
        Some(AddressRecord::List(_)) => Ok(((), vec![Op::DropAddress { key }])),
        _ => Err(WriteError::NotAllowed("there is no such list").into()),
    }
}

/// Removes an alias.
pub(super) fn remove_alias(tables: &mut Tables<'_>, address: &Address) -> Plan<()> {
    let key = address.key();
    match whose(tables, &key)? {
        Some(AddressRecord::Alias(..) | AddressRecord::Forward(..)) => Ok(((), vec![Op::DropAddress { key }])),
        Some(AddressRecord::Account(_)) => Err(WriteError::NotAllowed("the address is an account's own").into()),
        Some(AddressRecord::List(_)) => Err(WriteError::NotAllowed("the address is a list's").into()),
        None => Err(WriteError::NotAllowed("there is no such alias").into()),
    }
}

/// Makes a domain local.
pub(super) fn add_domain(tables: &mut Tables<'_>, domain: &Domain) -> Plan<()> {
    let known = tables.domain()?.get(domain.as_str())?.is_some();
    let op = Op::PutDomain { name: domain.as_str().to_owned() };
    Ok(((), if known { Vec::new() } else { vec![op] }))
}

/// Makes a domain foreign.
pub(super) fn remove_domain(tables: &mut Tables<'_>, domain: &Domain) -> Plan<()> {
    if tables.domain()?.get(domain.as_str())?.is_none() {
        return Err(WriteError::NotAllowed("the domain is not local").into());
    }
    for row in tables.address()?.iter()? {
        let (key, _) = row.map_err(Fault::from)?;
        if key.value().rsplit_once('@').is_some_and(|(_, name)| name == domain.as_str()) {
            return Err(WriteError::NotAllowed("accounts or aliases are in the domain").into());
        }
    }
    Ok(((), vec![Op::DropDomain { name: domain.as_str().to_owned() }]))
}

/// Keeps a note without the journal, as [`super::message::claim_recent`] moves its mark: it is
/// written along with the next change.
pub(super) fn put_note_along(tables: &mut Tables<'_>, name: &str, value: &[u8]) -> Plan<()> {
    if name.len() > NOTE_NAME_MAX || value.len() > NOTE_MAX {
        return Err(WriteError::Limit("size of a note").into());
    }
    tables.note()?.insert(name, value).map_err(Fault::from)?;
    tables.touched = true;
    Ok(((), Vec::new()))
}

/// Keeps a note.
pub(super) fn put_note(tables: &mut Tables<'_>, name: &str, value: &[u8]) -> Plan<()> {
    if name.len() > NOTE_NAME_MAX || value.len() > NOTE_MAX {
        return Err(WriteError::Limit("size of a note").into());
    }
    if tables.note()?.get(name)?.is_some_and(|known| known.value() == value) {
        return Ok(((), Vec::new()));
    }
    Ok(((), vec![Op::PutNote { name: name.to_owned(), value: Bytes(value.to_vec()) }]))
}
