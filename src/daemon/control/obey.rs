//! Carries out an [`Order`] on the store: for the control socket, and for a command that has opened
//! the store itself because no server runs.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use super::order::{AccountRow, AliasRow, ListChange, ListRow, Order, Outcome, ROWS_MAX};
use super::{certificate, queue, share};
use crate::flow::backup::note_made;
use crate::flow::carry::Exchange;
use crate::mail::address::{Address, Domain};
use crate::mail::date::Timestamp;
use crate::mail::list::List;
use crate::mail::mailbox::AccountId;
use crate::mail::queue::QueueId;
use crate::store::compact::CompactStart;
use crate::store::{Account, Alias, ReadError, Reader, Store, WriteError};

/// Why an order was not carried out; `Display` is the sentence for whoever gave it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A word of the order is no address or domain.
    Word { given: String, why: String },
    /// There is no such thing.
    Missing(String),
    /// The store refused; the text is what was to be changed.
    Write(String, WriteError),
    /// The store could not be read.
    Read(ReadError),
    /// A backup could not be remembered; the text says why.
    Note(String),
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
                WriteError::NoSuchQueued => write!(out, "there is no queued message {what}"),
                WriteError::Exists => write!(out, "{what} exists already"),
                WriteError::NotAllowed(rule) => write!(out, "{what}: {rule}"),
                WriteError::OverQuota => write!(out, "the quota of {what} is used up"),
                WriteError::Limit(limit) => write!(out, "{what}: {limit}"),
                WriteError::DiskFull | WriteError::Storage(_) | WriteError::Closed => error.fmt(out),
            },
            Self::Read(error) => error.fmt(out),
            Self::Note(why) => out.write_str(why),
            Self::NoServer => out.write_str("no server runs on this data folder"),
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// Carries out an order. May block; [`Order::Status`] and what is a stream of its own ([`Order::Carry`],
/// [`Order::Backup`], [`Order::CheckStore`]) are the
/// server's to answer.
#[must_use]
pub fn obey(store: &Store, order: Order) -> Outcome {
    carry_out(store, order).unwrap_or_else(|refusal| Outcome::Refused { reason: refusal.to_string() })
}

/// Import and export for the account with this address. May block.
///
/// # Errors
/// Why not, as one sentence.
pub fn exchange(store: &Store, address: &str) -> Result<Exchange, String> {
    account(store, address).map(|account| Exchange::new(store.clone(), account))
}

/// The account with this address.
///
/// # Errors
/// Why there is none, as one sentence.
pub(super) fn account(store: &Store, address: &str) -> Result<AccountId, String> {
    let account = store.reader().map_err(Refusal::from).and_then(|reader| find(&reader, address));
    account.map(|account| account.id).map_err(|refusal| refusal.to_string())
}

/// What to say of a compaction that was asked for.
#[must_use]
pub(super) fn compacting(begun: Result<CompactStart, WriteError>) -> Outcome {
    match begun {
        Ok(start) => Outcome::Compacting { start },
        Err(error) => Outcome::Refused { reason: error.to_string() },
    }
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
        Order::AddCertificate { address, name, fingerprint, expires } => {
            certificate::add(store, &address, name, &fingerprint, Timestamp(expires))
        }
        Order::RemoveCertificate { address, name } => certificate::remove(store, &address, name),
        Order::ListCertificates { address, skip } => return certificate::list(store, address.as_deref(), skip),
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
        Order::Share { account, mailbox, who, rights } => {
            let owner = find(&store.reader()?, &account)?.id;
            share::give(store, owner, &mailbox, (&who, &rights)).map_err(|failed| match failed {
                share::Failed::NoSuchMailbox => Refusal::Missing(format!("mailbox {mailbox} of {account}")),
                share::Failed::Word(given, why) => Refusal::Word { given, why },
                share::Failed::Write(error) => Refusal::Write(mailbox, error),
            })
        }
        Order::ListShares { account, skip } => {
            let owner = find(&store.reader()?, &account)?.id;
            return share::list(store, owner, skip).map_err(Refusal::Read);
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
        Order::AddList { list } => {
            let what = list.address.to_string();
            store.add_list(*list).wait().map_err(|error| Refusal::Write(what, error))
        }
        Order::ChangeList { address, change } => change_list(store, address, *change),
        Order::RemoveList { address } => {
            let list = find_list(&store.reader()?, &address)?;
            store.remove_list(list.address).wait().map_err(|error| Refusal::Write(address, error))
        }
        Order::ListLists { skip } => {
            let rows = store.reader()?.mailing_lists()?;
            let lists = rows.iter().skip(skip).take(ROWS_MAX).map(|list| ListRow {
                address: list.address.to_string(),
                title: list.title.clone(),
                members: list.members.len(),
            });
            return Ok(Outcome::Lists { lists: lists.collect() });
        }
        Order::ShowList { address } => {
            let list = Box::new(find_list(&store.reader()?, &address)?);
            return Ok(Outcome::List { list });
        }
        Order::Dkim { domain, task } => return Ok(super::dkim::obey(store, &domain, task, now())),
        Order::ListQueue { after } => return queue::list(store, after).map_err(Refusal::Read),
        Order::ShowQueued { id, from } => {
            let shown = queue::show(store, id, from)?;
            return shown.ok_or_else(|| Refusal::Missing(format!("queued message {id}")));
        }
        Order::OrderQueued { task, ids } => {
            return queue::order(store, task, &ids).map_err(|failed| match failed {
                queue::Failed::Read(error) => Refusal::Read(error),
                queue::Failed::Write(id, error) => Refusal::Write(id.to_string(), error),
            });
        }
        Order::RemoveQueued { id } => {
            store.remove_queued(QueueId(id)).wait().map_err(|error| Refusal::Write(id.to_string(), error))
        }
        Order::Compact { force } => return Ok(compacting(store.compact(force).wait())),
        Order::Compaction => return Ok(Outcome::Compaction { compaction: store.compaction() }),
        Order::NoteBackup { made } => note_made(store, made).map_err(|error| Refusal::Note(error.to_string())),
        Order::Carry { .. }
        | Order::Backup { .. }
        | Order::CheckStore { .. }
        | Order::Spam { .. }
        | Order::Status
        | Order::TakeSignatures
        | Order::Reports { .. } => Err(Refusal::NoServer),
    };
    done.map(|()| Outcome::Done)
}

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// The alias `address` with these targets beside those it has. Addresses in domains of ours must be
/// accounts.
fn widened(reader: &Reader, address: Address, targets: &[String]) -> Result<Alias, Refusal> {
    let key = address.key();
    let known = reader.aliases()?.into_iter().find(|alias| alias.address.key() == key);
    let mut alias = known.unwrap_or(Alias { address, targets: Vec::new() });
    let domains = reader.domains()?;
    for target in targets {
        let parsed = parse_address(target)?;
        let target = if domains.contains(parsed.domain()) { find(reader, target)?.address } else { parsed };
        if !alias.targets.iter().any(|known| known.key() == target.key()) {
            alias.targets.push(target);
        }
    }
    Ok(alias)
}

/// The list with this address.
fn find_list(reader: &Reader, address: &str) -> Result<List, Refusal> {
    let found = reader.mailing_list(&parse_address(address)?)?;
    found.ok_or_else(|| Refusal::Missing(format!("list {address}")))
}

/// Changes a list.
fn change_list(store: &Store, address: String, change: ListChange) -> Result<(), Refusal> {
    let mut list = find_list(&store.reader()?, &address)?;
    let parse = |given: Vec<String>| given.iter().map(|given| parse_address(given)).collect::<Result<Vec<_>, _>>();
    let ListChange { add, remove, title, owners, posting, answers } = change;
    for member in parse(add)? {
        if !list.members.iter().any(|known| known.key() == member.key()) {
            list.members.push(member);
        }
    }
    for given in remove {
        let key = parse_address(&given)?.key();
        let before = list.members.len();
        list.members.retain(|known| known.key() != key);
        if list.members.len() == before {
            return Err(Refusal::Missing(format!("member {given} of {address}")));
        }
    }
    list.title = title.unwrap_or(list.title);
    if let Some(owners) = owners {
        list.owners = parse(owners)?;
    }
    list.posting = posting.unwrap_or(list.posting);
    list.answers = answers.unwrap_or(list.answers);
    store.set_list(list).wait().map_err(|error| Refusal::Write(address, error))
}

/// The account whose own address this is.
pub(super) fn find(reader: &Reader, address: &str) -> Result<Account, Refusal> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::secret::{ScramVerifier, tests::password};
    use crate::store::{Quota, StoreConfig};

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let config = StoreConfig { journal_bytes: 1 << 20, reserve_bytes: 0, ..StoreConfig::default() };
        let store = Store::open(folder.path(), &config).unwrap();
        (folder, store)
    }

    fn add(address: &str) -> Order {
        let verifier = ScramVerifier::derive(&password("pencil"), [1; 16], 2);
        Order::AddAccount { address: address.into(), verifier, quota: Quota::default() }
    }

    fn reason(outcome: Outcome) -> String {
        if let Outcome::Refused { reason } = outcome { reason } else { panic!("not refused: {outcome:?}") }
    }

    #[test]
    fn a_mailbox_is_shared_and_is_so_no_more() {
        let (_folder, store) = store();
        for address in ["ann@x.test", "bob@x.test"] {
            assert_eq!(obey(&store, add(address)), Outcome::Done);
        }
        let share = |mailbox: &str, who: &str, rights: &str| Order::Share {
            account: "ann@x.test".into(),
            mailbox: mailbox.into(),
            who: who.into(),
            rights: rights.into(),
        };
        assert_eq!(obey(&store, share("Archive", "bob@x.test", "lrs")), Outcome::Done);
        assert_eq!(obey(&store, share("inbox", "anyone", "l")), Outcome::Done);
        let list = || Order::ListShares { account: "ann@x.test".into(), skip: 0 };
        let Outcome::Shares { shares } = obey(&store, list()) else { panic!() };
        let rows: Vec<_> = shares.iter().map(|row| (&*row.mailbox, &*row.who, &*row.rights)).collect();
        assert_eq!(rows, [("INBOX", "anyone", "l"), ("Archive", "bob@x.test", "lrs")]);
        assert_eq!(obey(&store, share("Archive", "bob@x.test", "")), Outcome::Done);
        let Outcome::Shares { shares } = obey(&store, list()) else { panic!() };
        assert_eq!(shares.len(), 1);
        for (order, wanted) in [
            (share("Nowhere", "anyone", "l"), "there is no mailbox Nowhere of ann@x.test"),
            (
                share("Archive", "carol@x.test", "l"),
                "`carol@x.test` does not do: no account of this server is called so",
            ),
            (share("Archive", "anyone", "lz"), "`lz` does not do: the rights are letters out of lrswipkxtea"),
            (share("Archive", "ann@x.test", "l"), "Archive: the owner of a mailbox keeps all rights"),
        ] {
            assert_eq!(reason(obey(&store, order)), wanted);
        }
    }

    #[test]
    fn accounts_come_change_and_go() {
        let (_folder, store) = store();
        assert_eq!(obey(&store, add("Ann@X.test")), Outcome::Done);
        let address = || "ann@x.test".to_owned();
        let quota = Quota { bytes: Some(5), messages: None };
        assert_eq!(obey(&store, Order::SetQuota { address: address(), quota }), Outcome::Done);
        let verifier = ScramVerifier::derive(&password("brush"), [1; 16], 2);
        assert_eq!(obey(&store, Order::SetPassword { address: address(), verifier: verifier.clone() }), Outcome::Done);
        assert_eq!(store.reader().unwrap().login("ann").unwrap().unwrap().1, verifier);
        let Outcome::Accounts { accounts } = obey(&store, Order::ShowAccount { address: address() }) else { panic!() };
        assert_eq!((accounts[0].address.as_str(), accounts[0].quota), ("Ann@x.test", quota));
        assert_eq!(obey(&store, Order::ListAccounts { skip: 1 }), Outcome::Accounts { accounts: Vec::new() });
        assert_eq!(obey(&store, Order::RemoveAccount { address: address() }), Outcome::Done);
        assert_eq!(reason(obey(&store, Order::ShowAccount { address: address() })), "there is no account ann@x.test");
    }

    #[test]
    fn certificates_are_registered_listed_and_revoked() {
        let (_folder, store) = store();
        for address in ["ann@x.test", "bob@x.test"] {
            assert_eq!(obey(&store, add(address)), Outcome::Done);
        }
        let register = |address: &str, print: &str, expires: i64| {
            let (address, fingerprint) = (address.to_owned(), print.repeat(32));
            obey(&store, Order::AddCertificate { address, name: "laptop".into(), fingerprint, expires })
        };
        let end = now().0 + 1000;
        assert_eq!(register("Ann@x.test", "aB:", end), Outcome::Done);
        assert_eq!(register("bob@x.test", "cd", end), Outcome::Done);
        let refused = reason(register("bob@x.test", "ab", end));
        assert_eq!(refused, "certificate laptop of bob@x.test: this certificate is registered already");
        assert!(reason(register("bob@x.test", "xy", end)).contains("no SHA-256 fingerprint"));
        assert!(reason(register("bob@x.test", "ef", now().0 - 1)).contains("good no more"));
        assert_eq!(reason(register("cas@x.test", "ef", end)), "there is no account cas@x.test");
        let listed = |address: Option<&str>, skip| match obey(
            &store,
            Order::ListCertificates { address: address.map(str::to_owned), skip },
        ) {
            Outcome::Certificates { certificates } => certificates,
            other => panic!("{other:?}"),
        };
        assert_eq!((listed(None, 0).len(), listed(None, 1).len(), listed(Some("bob@x.test"), 0).len()), (2, 1, 1));
        let first = listed(Some("ann@x.test"), 0).remove(0);
        assert_eq!((first.address.as_str(), first.name.as_str(), first.over), ("ann@x.test", "laptop", false));
        assert_eq!((first.fingerprint, first.expires), ("ab".repeat(32), end));
        let revoke = || Order::RemoveCertificate { address: "ann@x.test".into(), name: "laptop".into() };
        assert_eq!(obey(&store, revoke()), Outcome::Done);
        assert_eq!(reason(obey(&store, revoke())), "there is no certificate laptop of ann@x.test");
        assert_eq!(listed(None, 0).len(), 1);
    }

    #[test]
    fn an_alias_gathers_its_targets() {
        let (_folder, store) = store();
        for address in ["ann@x.test", "bob@x.test"] {
            assert_eq!(obey(&store, add(address)), Outcome::Done);
        }
        let alias = |targets: &[&str]| Order::AddAlias {
            address: "all@x.test".into(),
            targets: targets.iter().map(|target| (*target).to_owned()).collect(),
        };
        assert_eq!(obey(&store, alias(&["ann@x.test"])), Outcome::Done);
        assert_eq!(obey(&store, alias(&["bob@x.test", "ANN@x.test"])), Outcome::Done);
        let Outcome::Aliases { aliases } = obey(&store, Order::ListAliases { skip: 0 }) else { panic!() };
        assert_eq!(aliases[0].targets, ["ann@x.test", "bob@x.test"]);
        assert_eq!(reason(obey(&store, alias(&["cas@x.test"]))), "there is no account cas@x.test");
        let remove = || Order::RemoveAlias { address: "all@x.test".into() };
        assert_eq!(obey(&store, remove()), Outcome::Done);
        assert_eq!(reason(obey(&store, remove())), "there is no alias all@x.test");
    }

    #[test]
    fn a_compaction_is_begun_and_told_of() {
        let (_folder, store) = store();
        let Outcome::Compacting { start } = obey(&store, Order::Compact { force: false }) else { panic!() };
        assert!(matches!(start, CompactStart::Needless { .. }), "{start:?}");
        let begun = Outcome::Compacting { start: CompactStart::Begun };
        assert_eq!(obey(&store, Order::Compact { force: true }), begun);
        let line = serde_json::to_string(&begun).unwrap();
        assert_eq!(serde_json::from_str::<Outcome>(&line).unwrap(), begun);
        loop {
            let Outcome::Compaction { compaction } = obey(&store, Order::Compaction) else { panic!() };
            if !compaction.running {
                assert_eq!((compaction.ended, compaction.failure), (1, None));
                break;
            }
            std::thread::yield_now();
        }
        store.close().unwrap();
        assert!(reason(obey(&store, Order::Compact { force: true })).contains("closed"));
    }

    #[test]
    fn a_domain_with_accounts_stays() {
        let (_folder, store) = store();
        assert_eq!(obey(&store, Order::AddDomain { domain: "y.test".into() }), Outcome::Done);
        assert_eq!(obey(&store, Order::RemoveDomain { domain: "y.test".into() }), Outcome::Done);
        assert_eq!(obey(&store, add("ann@x.test")), Outcome::Done);
        let refused = reason(obey(&store, Order::RemoveDomain { domain: "x.test".into() }));
        assert!(refused.starts_with("x.test: "), "{refused}");
        assert_eq!(reason(obey(&store, Order::RemoveDomain { domain: "z.test".into() })), "there is no domain z.test");
    }

    #[test]
    fn a_word_that_does_not_do_is_named() {
        let (_folder, store) = store();
        for word in ["ann", "*@x.test", "ann+x@x.test", "@x", "a@b@"] {
            let refused = reason(obey(&store, add(word)));
            assert!(refused.starts_with(&format!("`{word}` does not do: ")), "{refused}");
        }
        assert!(reason(obey(&store, Order::AddDomain { domain: "-x".into() })).contains("`-x`"));
        assert_eq!(reason(obey(&store, Order::Status)), "no server runs on this data folder");
    }
}
