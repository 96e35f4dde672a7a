//! Repair of accounts and addresses.

use redb::ReadableTable;
use ring::rand::{SecureRandom, SystemRandom};

use super::super::view::{Row, row};
use super::{Mend, NOTHING, did};
use crate::mail::address::{Address, Domain};
use crate::mail::secret::ScramVerifier;
use crate::store::account::CATCH_ALL;
use crate::store::change::Op;
use crate::store::error::{Fault, Trouble};
use crate::store::record::{AccountRecord, AddressRecord, MailboxRecord, Record};
use crate::store::table::{Tables, load};
use crate::store::{Quota, Usage};

/// An account: what it uses, its address, and its record where that is lost.
pub(super) fn account(tables: &mut Tables<'_>, id: u32) -> Mend {
    let kept = match row(tables.load_account(id))? {
        Row::Missing => return NOTHING,
        Row::Damaged => None,
        Row::There(record) => Some(record),
    };
    let mut record = match &kept {
        Some(record) => record.clone(),
        None => match lost_account(tables, id)? {
            Some(record) => record,
            None => return NOTHING,
        },
    };
    record.used = Usage::default();
    for entry in tables.mbox()?.iter()? {
        let (key, value) = entry.map_err(Fault::from)?;
        if let Ok(mailbox) = MailboxRecord::decode(key.value(), value.value())
            && mailbox.account == id
        {
            record.used.messages = record.used.messages.saturating_add(mailbox.messages.into());
            record.used.bytes = record.used.bytes.saturating_add(mailbox.size);
        }
    }
    let mut ops = Vec::new();
    let key = record.address.key();
    if !matches!(row(load(tables.address()?, key.as_str()))?, Row::There(AddressRecord::Account(whose)) if whose == id)
    {
        ops.push(Op::PutAddress { key, record: AddressRecord::Account(id) });
    }
    if kept.as_ref() == Some(&record) && ops.is_empty() {
        return NOTHING;
    }
    let what = match &kept {
        Some(_) => "it was counted anew".to_owned(),
        None => {
            format!("its record was made anew; give it a password with `pillarbox account password {}`", record.address)
        }
    };
    ops.push(Op::PutAccount { id, record });
    did(what, ops)
}

/// An account whose record is lost, under the address that leads to it. Nobody can log in before it
/// is given a password.
fn lost_account(tables: &mut Tables<'_>, id: u32) -> Result<Option<AccountRecord>, Fault> {
    let mut address = None;
    for entry in tables.address()?.iter()? {
        let (key, value) = entry?;
        let key = key.value();
        if matches!(AddressRecord::decode(key, value.value()), Ok(AddressRecord::Account(whose)) if whose == id) {
            let (local, domain) = key.rsplit_once('@').unwrap_or((key, ""));
            address = Domain::parse(domain).ok().and_then(|domain| Address::new(local, domain).ok());
            break;
        }
    }
    let Some(address) = address else { return Ok(None) };
    let mut chance = [0; 80];
    SystemRandom::new().fill(&mut chance).map_err(|_| Trouble::damaged("the system's randomness"))?;
    let part = |from: usize| -> [u8; 32] {
        chance.get(from..).and_then(|rest| rest.first_chunk().copied()).unwrap_or_default()
    };
    let salt = chance.first_chunk().copied().unwrap_or_default();
    let verifier = ScramVerifier { salt, iterations: 4096, stored_key: part(16), server_key: part(48) };
    Ok(Some(AccountRecord { address, verifier, quota: Quota::default(), used: Usage::default() }))
}

/// An address: an account's own, an alias, its domain.
pub(super) fn address(tables: &mut Tables<'_>, key: &str) -> Mend {
    let kept = match row::<AddressRecord>(load(tables.address()?, key))? {
        Row::Missing => return NOTHING,
        Row::Damaged => None,
        Row::There(record) => Some(record),
    };
    let domain = key.rsplit_once('@').map_or(key, |(_, domain)| domain).to_owned();
    let domain_op = match tables.domain()?.get(domain.as_str()).map_err(Fault::from)? {
        None if Domain::parse(&domain).is_ok() => vec![Op::PutDomain { name: domain }],
        _ => Vec::new(),
    };
    let key = key.to_owned();
    let Some(record) = kept else {
        let owner = tables.account()?.iter()?.find_map(|entry| {
            let (id, value) = entry.ok()?;
            let record = AccountRecord::decode(id.value(), value.value()).ok()?;
            (record.address.key() == key).then(|| id.value())
        });
        let Some(id) = owner else {
            let what = if key.starts_with(CATCH_ALL) { "catch-all" } else { "alias" };
            let what = format!("it was removed, nobody knows where it led; make the {what} again");
            return did(what, vec![Op::DropAddress { key }]);
        };
        let record = AddressRecord::Account(id);
        return did("it leads to its account again", vec![Op::PutAddress { key, record }]);
    };
    match record {
        AddressRecord::Account(id) if tables.account()?.get(id).map_err(Fault::from)?.is_none() => {
            did("it was removed", vec![Op::DropAddress { key }])
        }
        AddressRecord::Alias(..) | AddressRecord::Forward(..) => {
            let (address, targets, outside) = match record {
                AddressRecord::Alias(address, targets) => (address, targets, Vec::new()),
                AddressRecord::Forward(address, targets, outside) => (address, targets, outside),
                AddressRecord::Account(_) | AddressRecord::List(_) => return NOTHING,
            };
            let mut left = Vec::new();
            for target in &targets {
                if tables.account()?.get(*target).map_err(Fault::from)?.is_some() {
                    left.push(*target);
                }
            }
            if left.is_empty() && outside.is_empty() {
                return did("it was removed, it led to nobody", vec![Op::DropAddress { key }]);
            }
            if left.len() < targets.len() {
                let mut ops = domain_op;
                let record = if outside.is_empty() {
                    AddressRecord::Alias(address, left)
                } else {
                    AddressRecord::Forward(address, left, outside)
                };
                ops.push(Op::PutAddress { key, record });
                return did("it leads to those who are there", ops);
            }
            if domain_op.is_empty() { NOTHING } else { did("its domain is local again", domain_op) }
        }
        AddressRecord::Account(_) | AddressRecord::List(_) if domain_op.is_empty() => NOTHING,
        AddressRecord::Account(_) | AddressRecord::List(_) => did("its domain is local again", domain_op),
    }
}
