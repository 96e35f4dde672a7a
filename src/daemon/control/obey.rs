//! Carries out an [`Order`] on the store: for the control socket, and for a command that has opened
//! the store itself because no server runs.

use std::fmt;

use super::order::{AccountRow, AliasRow, Order, Outcome, ROWS_MAX};
use crate::flow::carry::Exchange;
use crate::mail::address::{Address, Domain};
use crate::store::{Account, Alias, ReadError, Reader, Store, WriteError};

/// Why an order was not carried out; `Display` is the sentence for whoever gave it.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// A word of the order is no address or domain.
    Word { given: String, why: String },
    /// There is no such thing.
    Missing(String),
    /// The store refused; the text is what was to be changed.
    Write(String, WriteError),
    /// The store could not be read.
    Read(ReadError),
    /// The order is for a running server.
    NoServer,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word { given, why } => write!(out, "`{given}` does not do: {why}"),
            Self::Missing(what) => write!(out, "there is no {what}"),
            Self::Write(what, error) => match error {
                WriteError::NoSuchAccount => write!(out, "there is no account {what}"),
                WriteError::NoSuchMailbox => write!(out, "there is no mailbox {what}"),
                WriteError::Exists => write!(out, "{what} exists already"),
                WriteError::NotAllowed(rule) => write!(out, "{what}: {rule}"),
                WriteError::OverQuota => write!(out, "the quota of {what} is used up"),
                WriteError::Limit(limit) => write!(out, "{what}: {limit}"),
                WriteError::DiskFull => out.write_str("there is too little space on the disk"),
                WriteError::Storage(problem) => write!(out, "the store failed: {problem}"),
                WriteError::Closed => out.write_str("the server is stopping"),
            },
            Self::Read(ReadError::Storage(problem)) => write!(out, "the store cannot be read: {problem}"),
            Self::Read(ReadError::Closed) => out.write_str("the server is stopping"),
            Self::NoServer => out.write_str("no server runs on this data folder"),
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// Carries out an order. May block; [`Order::Status`] is the server's to answer.
#[must_use]
pub fn obey(store: &Store, order: Order) -> Outcome {
    carry_out(store, order).unwrap_or_else(|refusal| Outcome::Refused { reason: refusal.to_string() })
}

/// Import and export for the account with this address. May block.
///
/// # Errors
/// Why not, as one sentence.
pub fn exchange(store: &Store, address: &str) -> Result<Exchange, String> {
    let account = store.reader().map_err(Refusal::from).and_then(|reader| find(&reader, address));
    account.map(|account| Exchange::new(store.clone(), account.id)).map_err(|refusal| refusal.to_string())
}

fn carry_out(store: &Store, order: Order) -> Result<Outcome, Refusal> {
    let done = match order {
        Order::AddAccount { address, verifier, quota } => {
            let address = parse_address(&address)?;
            if address.local().contains('*') {
                return Err(Refusal::Word { given: address.to_string(), why: "`*` is for aliases".into() });
            }
            // The detail is cut off before accounts are looked up (RFC 5233): nobody would get its mail.
            if address.without_detail().is_some() {
                let why = "mail for `name+anything` goes to `name`".into();
                return Err(Refusal::Word { given: address.to_string(), why });
            }
            let what = address.to_string();
            store.add_account(address, verifier, quota).wait().map(drop).map_err(|error| Refusal::Write(what, error))
        }
        Order::RemoveAccount { address } => {
            let account = find(&store.reader()?, &address)?;
            store.remove_account(account.id).wait().map_err(|error| Refusal::Write(address, error))
        }
        Order::SetPassword { address, verifier } => {
            let account = find(&store.reader()?, &address)?;
            store.set_verifier(account.id, verifier).wait().map_err(|error| Refusal::Write(address, error))
        }
        Order::SetQuota { address, quota } => {
            let account = find(&store.reader()?, &address)?;
            store.set_quota(account.id, quota).wait().map_err(|error| Refusal::Write(address, error))
        }
        Order::AddAlias { address, targets } => {
            let alias = widened(&store.reader()?, parse_address(&address)?, &targets)?;
            store.put_alias(alias).wait().map_err(|error| Refusal::Write(address, error))
        }
        Order::RemoveAlias { address } => {
            let parsed = parse_address(&address)?;
            let known = store.reader()?.aliases()?.iter().any(|alias| alias.address.key() == parsed.key());
            if !known {
                return Err(Refusal::Missing(format!("alias {address}")));
            }
            store.remove_alias(parsed).wait().map_err(|error| Refusal::Write(address, error))
        }
        Order::AddDomain { domain } => {
            let parsed = parse_domain(&domain)?;
            store.add_domain(parsed).wait().map_err(|error| Refusal::Write(domain, error))
        }
        Order::RemoveDomain { domain } => {
            let parsed = parse_domain(&domain)?;
            if !store.reader()?.domains()?.contains(&parsed) {
                return Err(Refusal::Missing(format!("domain {domain}")));
            }
            store.remove_domain(parsed).wait().map_err(|error| Refusal::Write(domain, error))
        }
        Order::ShowAccount { address } => {
            let account = find(&store.reader()?, &address)?;
            return Ok(Outcome::Accounts { accounts: vec![account_row(&account)] });
        }
        Order::ListAccounts { skip } => {
            let accounts = store.reader()?.accounts()?;
            let accounts = accounts.iter().skip(skip).take(ROWS_MAX).map(account_row).collect();
            return Ok(Outcome::Accounts { accounts });
        }
        Order::ListAliases { skip } => {
            let aliases = store.reader()?.aliases()?;
            let aliases = aliases.iter().skip(skip).take(ROWS_MAX).map(alias_row).collect();
            return Ok(Outcome::Aliases { aliases });
        }
        Order::ListDomains { skip } => {
            let domains = store.reader()?.domains()?;
            let domains = domains.iter().skip(skip).take(ROWS_MAX).map(ToString::to_string).collect();
            return Ok(Outcome::Domains { domains });
        }
        Order::Carry { .. } | Order::Status => Err(Refusal::NoServer),
    };
    done.map(|()| Outcome::Done)
}

/// The alias `address` with these targets beside those it has.
fn widened(reader: &Reader, address: Address, targets: &[String]) -> Result<Alias, Refusal> {
    let key = address.key();
    let known = reader.aliases()?.into_iter().find(|alias| alias.address.key() == key);
    let mut alias = known.unwrap_or(Alias { address, targets: Vec::new() });
    for target in targets {
        let target = find(reader, target)?.address;
        if !alias.targets.iter().any(|known| known.key() == target.key()) {
            alias.targets.push(target);
        }
    }
    Ok(alias)
}

/// The account whose own address this is.
fn find(reader: &Reader, address: &str) -> Result<Account, Refusal> {
    let key = parse_address(address)?.key();
    let found = reader.accounts()?.into_iter().find(|account| account.address.key() == key);
    found.ok_or_else(|| Refusal::Missing(format!("account {address}")))
}

fn parse_address(given: &str) -> Result<Address, Refusal> {
    Address::parse(given).map_err(|error| Refusal::Word { given: given.to_owned(), why: error.to_string() })
}

fn parse_domain(given: &str) -> Result<Domain, Refusal> {
    let why = || Refusal::Word { given: given.to_owned(), why: "this is not a valid domain".into() };
    Domain::parse(given).map_err(|_| why())
}

fn account_row(account: &Account) -> AccountRow {
    AccountRow { address: account.address.to_string(), quota: account.quota, used: account.used }
}

fn alias_row(alias: &Alias) -> AliasRow {
    let targets = alias.targets.iter().map(ToString::to_string).collect();
    AliasRow { address: alias.address.to_string(), targets }
}
