//! Who is who: domains, accounts, aliases, and where an address leads.
//!
//! An address is looked up under `Address::key`, so case does not matter. The order of
//! [`Reader::route`] is the order of its rules: the most exact first.

use redb::{ReadOnlyTable, ReadableTable};

use crate::mail::address::{Address, Domain};
use crate::mail::list::{BOUNCES, List, OWNER};
use crate::mail::mailbox::AccountId;
use crate::mail::secret::ScramVerifier;

use super::account::CATCH_ALL;
use super::error::{ReadError, Trouble};
use super::record::{AccountRecord, AddressRecord, Record};
use super::table::{ACCOUNT, ADDRESS, DOMAIN, load};
use super::{Account, Alias, Reader, Route};

type Accounts = ReadOnlyTable<u32, &'static [u8]>;

impl Reader {
    /// The local domains, sorted.
    pub fn domains(&self) -> Result<Vec<Domain>, ReadError> {
        let read = || {
            let table = self.table(DOMAIN)?;
            let rows = table.iter()?.map(|row| Domain::parse(row?.0.value()).map_err(|_| Trouble::damaged("domain")));
            rows.collect()
        };
        self.told(read())
    }

    /// All accounts, by number.
    pub fn accounts(&self) -> Result<Vec<Account>, ReadError> {
        let read = || {
            let table = self.table(ACCOUNT)?;
            let rows = table.iter()?.map(|row| {
                let (id, value) = row?;
                Ok(told_account(id.value(), AccountRecord::decode(id.value(), value.value())?).0)
            });
            rows.collect()
        };
        self.told(read())
    }

    /// One account.
    pub fn account(&self, id: AccountId) -> Result<Option<Account>, ReadError> {
        let read = || Ok(load(&self.table(ACCOUNT)?, id.0)?.map(|record| told_account(id.0, record).0));
        self.told(read())
    }

    /// The account with this login: its first address, or the local part alone where one account
    /// only has it.
    pub fn login(&self, login: &str) -> Result<Option<(Account, ScramVerifier)>, ReadError> {
        self.told(self.find_login(login))
    }

    fn find_login(&self, login: &str) -> Result<Option<(Account, ScramVerifier)>, Trouble> {
        let (accounts, addresses) = (self.table(ACCOUNT)?, self.table(ADDRESS)?);
        if let Ok(address) = Address::parse(login) {
            return match load(&addresses, address.key().as_str())? {
                Some(AddressRecord::Account(id)) => Ok(load(&accounts, id)?.map(|record| told_account(id, record))),
                _ => Ok(None),
            };
        }
        let local = login.to_lowercase();
        let mut found = None;
        for row in addresses.range(format!("{local}@").as_str()..format!("{local}A").as_str())? {
            let (key, value) = row?;
            let AddressRecord::Account(id) = AddressRecord::decode(key.value(), value.value())? else { continue };
            let record = existing(&accounts, id)?;
            // A quoted local part may hold an @ of its own, so the key's beginning proves nothing.
            if record.address.local().to_lowercase() == local && found.replace(told_account(id, record)).is_some() {
                return Ok(None);
            }
        }
        Ok(found)
    }

    /// Where mail to `address` goes: account, alias or list, the same without `+detail`, the owners of
    /// a list, catch-all. `postmaster` of a local domain reaches the first account when nobody else has it.
    pub fn route(&self, address: &Address) -> Result<Route, ReadError> {
        self.told(self.find_route(address))
    }

    fn find_route(&self, address: &Address) -> Result<Route, Trouble> {
        match self.exact_route(address)? {
            Some(route) => Ok(route),
            None => self.further_route(address),
        }
    }

    /// Whose the address is as it stands, or without its detail; a foreign one is settled too.
    fn exact_route(&self, address: &Address) -> Result<Option<Route>, Trouble> {
        if self.table(DOMAIN)?.get(address.domain().as_str())?.is_none() {
            return Ok(Some(Route::Remote));
        }
        let addresses = self.table(ADDRESS)?;
        let plain = address.without_detail().map(|(plain, _)| plain.key());
        for key in [Some(address.key()), plain].into_iter().flatten() {
            if let Some(record) = load(&addresses, key.as_str())? {
                return Ok(Some(told_route(record)));
            }
        }
        Ok(None)
    }

    /// The roles of lists, the catch-all, the postmaster.
    fn further_route(&self, address: &Address) -> Result<Route, Trouble> {
        let addresses = self.table(ADDRESS)?;
        let (key, domain) = (address.key(), address.domain());
        let local = key.strip_suffix(&format!("@{domain}")).unwrap_or(&key);
        for suffix in [BOUNCES, OWNER] {
            let Some(name) = local.strip_suffix(suffix).filter(|name| !name.is_empty()) else { continue };
            if let Some(AddressRecord::List(list)) = load(&addresses, format!("{name}@{domain}").as_str())? {
                return self.route_of_owners(&list);
            }
        }
        if let Some(record) = load(&addresses, format!("{CATCH_ALL}@{domain}").as_str())? {
            return Ok(told_route(record));
        }
        if address.local().eq_ignore_ascii_case("postmaster")
            && let Some(first) = self.table(ACCOUNT)?.first()?
        {
            return Ok(Route::Local(vec![AccountId(first.0.value())]));
        }
        Ok(Route::Unknown)
    }

    /// Where mail for a list's owners goes: to their accounts, or elsewhere.
    fn route_of_owners(&self, list: &List) -> Result<Route, Trouble> {
        let (mut accounts, mut outside) = (Vec::new(), Vec::new());
        for owner in &list.owners {
            match self.exact_route(owner)? {
                Some(Route::Local(ids)) => accounts.extend(ids),
                Some(Route::Forward { accounts: ids, outside: others }) => {
                    accounts.extend(ids);
                    outside.extend(others);
                }
                Some(Route::Remote) => outside.push(owner.clone()),
                Some(Route::List(_) | Route::Unknown) | None => {}
            }
        }
        accounts.sort_unstable();
        accounts.dedup();
        Ok(match (accounts.is_empty(), outside.is_empty()) {
            (_, false) => Route::Forward { accounts, outside },
            (false, true) => Route::Local(accounts),
            (true, true) => Route::Unknown,
        })
    }

    /// Tells whether `account` may send as `address`: its own, with any detail, or an alias to it.
    pub fn may_send_as(&self, account: AccountId, address: &Address) -> Result<bool, ReadError> {
        Ok(match self.route(address)? {
            Route::Local(accounts) | Route::Forward { accounts, .. } => accounts.contains(&account),
            Route::List(_) | Route::Unknown | Route::Remote => false,
        })
    }

    /// All aliases, sorted.
    pub fn aliases(&self) -> Result<Vec<Alias>, ReadError> {
        self.told(self.all_aliases())
    }

    fn all_aliases(&self) -> Result<Vec<Alias>, Trouble> {
        let accounts = self.table(ACCOUNT)?;
        let mut found = Vec::new();
        for row in self.table(ADDRESS)?.iter()? {
            let (key, value) = row?;
            let (address, ids, outside) = match AddressRecord::decode(key.value(), value.value())? {
                AddressRecord::Alias(address, ids) => (address, ids, Vec::new()),
                AddressRecord::Forward(address, ids, outside) => (address, ids, outside),
                AddressRecord::Account(_) | AddressRecord::List(_) => continue,
            };
            let targets = ids.into_iter().map(|id| Ok(existing(&accounts, id)?.address));
            let targets = targets.chain(outside.into_iter().map(Ok)).collect::<Result<_, Trouble>>()?;
            found.push(Alias { address, targets });
        }
        Ok(found)
    }

    /// All lists, sorted.
    pub fn mailing_lists(&self) -> Result<Vec<List>, ReadError> {
        let read = || {
            let mut found = Vec::new();
            for row in self.table(ADDRESS)?.iter()? {
                let (key, value) = row?;
                if let AddressRecord::List(list) = AddressRecord::decode(key.value(), value.value())? {
                    found.push(*list);
                }
            }
            Ok(found)
        };
        self.told(read())
    }

    /// The list with this address.
    pub fn mailing_list(&self, address: &Address) -> Result<Option<List>, ReadError> {
        let read = || match load(&self.table(ADDRESS)?, address.key().as_str())? {
            Some(AddressRecord::List(list)) => Ok(Some(*list)),
            _ => Ok(None),
        };
        self.told(read())
    }
}

fn existing(accounts: &Accounts, id: u32) -> Result<AccountRecord, Trouble> {
    load(accounts, id)?.ok_or_else(|| Trouble::damaged("account of an address"))
}

fn told_route(record: AddressRecord) -> Route {
    let numbers = |ids: Vec<u32>| ids.into_iter().map(AccountId).collect();
    match record {
        AddressRecord::Account(id) => Route::Local(vec![AccountId(id)]),
        AddressRecord::Alias(_, ids) => Route::Local(numbers(ids)),
        AddressRecord::Forward(_, ids, outside) => Route::Forward { accounts: numbers(ids), outside },
        AddressRecord::List(list) => Route::List(list),
    }
}

fn told_account(id: u32, record: AccountRecord) -> (Account, ScramVerifier) {
    let AccountRecord { address, verifier, quota, used } = record;
    (Account { id: AccountId(id), address, quota, used }, verifier)
}
