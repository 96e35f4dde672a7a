//! Orders about certificates that people log in with.

use super::obey::{Refusal, find, now};
use super::order::{CertificateRow, Outcome, ROWS_MAX};
use crate::mail::certificate::Fingerprint;
use crate::mail::date::Timestamp;
use crate::store::Store;

/// Registers a certificate.
pub(super) fn add(
    store: &Store,
    address: &str,
    name: String,
    fingerprint: &str,
    expires: Timestamp,
) -> Result<(), Refusal> {
    let account = find(&store.reader()?, address)?;
    let print = Fingerprint::parse(fingerprint)
        .ok_or_else(|| Refusal::Word { given: fingerprint.to_owned(), why: "this is no SHA-256 fingerprint".into() })?;
    if expires < now() {
        return Err(Refusal::Word { given: name, why: "its certificate is good no more".into() });
    }
    let what = format!("certificate {name} of {address}");
    store.add_certificate(account.id, print, name, expires).wait().map_err(|error| Refusal::Write(what, error))
}

/// Removes one.
pub(super) fn remove(store: &Store, address: &str, name: String) -> Result<(), Refusal> {
    let reader = store.reader()?;
    let account = find(&reader, address)?;
    if !reader.certificates(Some(account.id))?.iter().any(|known| known.name == name) {
        return Err(Refusal::Missing(format!("certificate {name} of {address}")));
    }
    drop(reader);
    let what = name.clone();
    store.remove_certificate(account.id, name).wait().map_err(|error| Refusal::Write(what, error))
}

/// Tells those of an account, or all.
pub(super) fn list(store: &Store, address: Option<&str>, skip: usize) -> Result<Outcome, Refusal> {
    let reader = store.reader()?;
    let (accounts, account) = match address {
        Some(address) => {
            let account = find(&reader, address)?;
            let id = account.id;
            (vec![account], Some(id))
        }
        None => (reader.accounts()?, None),
    };
    let (certificates, now) = (reader.certificates(account)?, now());
    let rows = certificates.into_iter().skip(skip).take(ROWS_MAX).map(|known| {
        let owner = accounts.iter().find(|account| account.id == known.account);
        CertificateRow {
            address: owner.map(|owner| owner.address.to_string()).unwrap_or_default(),
            over: known.is_over(now),
            name: known.name,
            fingerprint: known.fingerprint.to_string(),
            added: known.added.0,
            expires: known.expires.0,
        }
    });
    Ok(Outcome::Certificates { certificates: rows.collect() })
}
