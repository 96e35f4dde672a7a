//! Who is who: domains, accounts, aliases, and where an address leads.
//!
//! An address is looked up under `Address::key`, so case does not matter. The order of
//! [`Reader::route`] is the order of its rules: the most exact first.

use redb::{ReadOnlyTable, ReadableTable};

use crate::mail::address::{Address, Domain};
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

    /// Where mail to `address` goes: account, alias, the same without `+detail`, catch-all.
    /// `postmaster` of a local domain reaches the first account when nobody else has it.
    pub fn route(&self, address: &Address) -> Result<Route, ReadError> {
        self.told(self.find_route(address))
    }

    fn find_route(&self, address: &Address) -> Result<Route, Trouble> {
        let domain = address.domain();
        if self.table(DOMAIN)?.get(domain.as_str())?.is_none() {
            return Ok(Route::Remote);
        }
        let addresses = self.table(ADDRESS)?;
        let plain = address.without_detail().map(|(plain, _)| plain.key());
        let keys = [Some(address.key()), plain, Some(format!("{CATCH_ALL}@{domain}"))];
        for key in keys.into_iter().flatten() {
            match load(&addresses, key.as_str())? {
                Some(AddressRecord::Account(id)) => return Ok(Route::Local(vec![AccountId(id)])),
                Some(AddressRecord::Alias(_, ids)) => {
                    return Ok(Route::Local(ids.into_iter().map(AccountId).collect()));
                }
                None => {}
            }
        }
        if address.local().eq_ignore_ascii_case("postmaster")
            && let Some(first) = self.table(ACCOUNT)?.first()?
        {
            return Ok(Route::Local(vec![AccountId(first.0.value())]));
        }
        Ok(Route::Unknown)
    }

    /// Tells whether `account` may send as `address`: its own, with any detail, or an alias to it.
    pub fn may_send_as(&self, account: AccountId, address: &Address) -> Result<bool, ReadError> {
        Ok(matches!(self.route(address)?, Route::Local(accounts) if accounts.contains(&account)))
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
            let AddressRecord::Alias(address, ids) = AddressRecord::decode(key.value(), value.value())? else {
                continue;
            };
            let targets = ids.into_iter().map(|id| Ok(existing(&accounts, id)?.address));
            found.push(Alias { address, targets: targets.collect::<Result<_, Trouble>>()? });
        }
        Ok(found)
    }
}

fn existing(accounts: &Accounts, id: u32) -> Result<AccountRecord, Trouble> {
    load(accounts, id)?.ok_or_else(|| Trouble::damaged("account of an address"))
}

fn told_account(id: u32, record: AccountRecord) -> (Account, ScramVerifier) {
    let AccountRecord { address, verifier, quota, used } = record;
    (Account { id: AccountId(id), address, quota, used }, verifier)
}
