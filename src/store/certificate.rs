//! Certificates that people log in with: plans, changes, reads.
//!
//! A row stands under the fingerprint, because that is what a login brings. They are few
//! ([`CERTIFICATES_MAX`] of an account), so those of one account are found by going through all.

use redb::ReadableTable;

use super::change::Op;
use super::error::{Fault, ReadError, Trouble, WriteError};
use super::message::Plan;
use super::record::{CertificateRecord, Record};
use super::table::{CERTIFICATE, Tables, load};
use super::{Pending, Reader, Store};
use crate::mail::certificate::{CERTIFICATES_MAX, ClientCertificate, Fingerprint, is_certificate_name};
use crate::mail::date::Timestamp;
use crate::mail::mailbox::AccountId;

/// Registers a certificate.
fn add(
    tables: &mut Tables<'_>,
    account: AccountId,
    fingerprint: Fingerprint,
    name: String,
    expires: Timestamp,
) -> Plan<()> {
    tables.load_account(account.0)?.ok_or(WriteError::NoSuchAccount)?;
    if !is_certificate_name(&name) {
        return Err(WriteError::NotAllowed("a certificate can't be called so").into());
    }
    let fingerprint = fingerprint.to_string();
    if tables.certificate()?.get(fingerprint.as_str()).map_err(Fault::from)?.is_some() {
        return Err(WriteError::NotAllowed("this certificate is registered already").into());
    }
    let known = of_account(tables, account)?;
    if known.iter().any(|(_, record)| record.name == name) {
        return Err(WriteError::NotAllowed("there is a certificate of this name; revoke it first").into());
    }
    if known.len() >= CERTIFICATES_MAX {
        return Err(WriteError::Limit("certificates of the account").into());
    }
    let record = CertificateRecord { account: account.0, name, added: tables.now, expires };
    Ok(((), vec![Op::Certify { fingerprint, record: Some(record) }]))
}

/// Removes the certificate of an account that is called so.
fn remove(tables: &mut Tables<'_>, account: AccountId, name: &str) -> Plan<()> {
    let found = of_account(tables, account)?.into_iter().find(|(_, record)| record.name == name);
    let (fingerprint, _) = found.ok_or(WriteError::NotAllowed("there is no certificate of this name"))?;
    Ok(((), vec![Op::Certify { fingerprint, record: None }]))
}

/// The ops by which an account's certificates go with it.
pub(super) fn forgotten(tables: &mut Tables<'_>, account: AccountId) -> Result<Vec<Op>, Trouble> {
    let known = of_account(tables, account)?;
    Ok(known.into_iter().map(|(fingerprint, _)| Op::Certify { fingerprint, record: None }).collect())
}

/// The certificates of an account that can be read; a check tells of others.
fn of_account(tables: &mut Tables<'_>, account: AccountId) -> Result<Vec<(String, CertificateRecord)>, Trouble> {
    let mut found = Vec::new();
    for row in tables.certificate()?.iter()? {
        let (key, value) = row?;
        if let Ok(record) = CertificateRecord::decode(key.value(), value.value())
            && record.account == account.0
        {
            found.push((key.value().to_owned(), record));
        }
    }
    Ok(found)
}

/// Does [`Op::Certify`].
pub(super) fn put(
    tables: &mut Tables<'_>,
    fingerprint: &str,
    record: Option<&CertificateRecord>,
) -> Result<(), Trouble> {
    let table = tables.certificate()?;
    match record {
        Some(record) => drop(table.insert(fingerprint, record.encode(fingerprint)?.as_slice())?),
        None => drop(table.remove(fingerprint)?),
    }
    Ok(())
}

fn told(fingerprint: Fingerprint, record: CertificateRecord) -> ClientCertificate {
    let CertificateRecord { account, name, added, expires } = record;
    ClientCertificate { fingerprint, account: AccountId(account), name, added, expires }
}

impl Reader {
    /// The certificate with this fingerprint, if it is registered.
    pub fn certificate(&self, fingerprint: Fingerprint) -> Result<Option<ClientCertificate>, ReadError> {
        let key = fingerprint.to_string();
        let read = || Ok(load(&self.table(CERTIFICATE)?, key.as_str())?.map(|record| told(fingerprint, record)));
        self.told(read())
    }

    /// All certificates, or those of one account, by name.
    pub fn certificates(&self, account: Option<AccountId>) -> Result<Vec<ClientCertificate>, ReadError> {
        let read = || {
            let mut found = Vec::new();
            for row in self.table(CERTIFICATE)?.iter()? {
                let (key, value) = row?;
                let record = CertificateRecord::decode(key.value(), value.value())?;
                let damaged = || Trouble::damaged(CertificateRecord::TABLE);
                let fingerprint = Fingerprint::parse(key.value()).ok_or_else(damaged)?;
                found.push(told(fingerprint, record));
            }
            found.retain(|certificate| account.is_none_or(|account| account == certificate.account));
            found.sort_by(|one, other| (one.account.0, &one.name).cmp(&(other.account.0, &other.name)));
            Ok(found)
        };
        self.told(read())
    }

    /// Tells whether anybody may log in with a certificate.
    pub fn has_certificates(&self) -> Result<bool, ReadError> {
        let read = || Ok(self.table(CERTIFICATE)?.first()?.is_some());
        self.told(read())
    }
}

impl Store {
    /// Lets whoever has the key of this certificate log in to an account, until `expires`.
    pub fn add_certificate(
        &self,
        account: AccountId,
        fingerprint: Fingerprint,
        name: String,
        expires: Timestamp,
    ) -> Pending<()> {
        self.plan(move |tables| add(tables, account, fingerprint, name, expires))
    }

    /// Removes the certificate of an account that is called so: it lets nobody in from now on.
    pub fn remove_certificate(&self, account: AccountId, name: String) -> Pending<()> {
        self.plan(move |tables| remove(tables, account, &name))
    }
}
