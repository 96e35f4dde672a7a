//! Accounts, addresses, domains, names, and what is listed for removal.

use std::collections::BTreeMap;

use redb::ReadableTable;

use super::finding::{Counter, Damage, Miscount, Place};
use super::view::{Row, View, row};
use super::{Checkup, Step};
use crate::mail::address::Domain;
use crate::mail::certificate::Fingerprint;
use crate::store::Usage;
use crate::store::blob::BlobRecord;
use crate::store::error::Trouble;
use crate::store::record::{AccountRecord, AddressRecord, CertificateRecord, MailboxRecord, Progress, Record};
use crate::store::table::{OF_ACCOUNT, PROGRESS, SWEEP_BODY, SWEEP_MAILBOX, SWEEP_STAGED, load};
use crate::store::{acl, annotation};

/// What the mailboxes came to.
#[derive(Debug, Default)]
pub(super) struct Sums {
    /// What each account keeps.
    pub(super) used: BTreeMap<u32, Usage>,
    pub(super) highest_modseq: u64,
    pub(super) uid_validity: u32,
    pub(super) next_mailbox: u32,
}

impl Checkup<'_> {
    /// Everything that is counted and linked, in one read transaction.
    pub(super) fn census(&mut self) -> Step {
        let view = self.view()?;
        let mut sums = Sums::default();
        self.mailboxes(&view, &mut sums)?;
        self.names(&view)?;
        let next_account = self.accounts(&view, &sums)?;
        self.addresses(&view)?;
        self.domains(&view)?;
        self.listed(&view)?;
        self.queue(&view, &mut sums)?;
        self.learned(&view)?;
        self.grams(&view)?;
        self.annotations(&view)?;
        self.certificates(&view)?;
        self.grants(&view)?;
        self.references(&view)?;
        self.numbers(&view, &sums, next_account)
    }

    /// Every name of a mailbox leads to it, and every name belongs to an account.
    fn names(&mut self, view: &View) -> Step {
        for entry in view.names.iter().map_err(Trouble::from)? {
            let (key, id) = entry.map_err(Trouble::from)?;
            let (account, name) = key.value();
            let leads = match row::<MailboxRecord>(load(&view.mailboxes, id.value()))? {
                Row::There(record) => record.account == account && record.name.as_str() == name,
                Row::Missing => false,
                // Told already; its name is what its record is made anew from.
                Row::Damaged => true,
            };
            if !leads {
                self.find(Place::Name { account, name: name.to_owned() }, Damage::LeadsNowhere)?;
            }
        }
        for entry in view.subscriptions.iter().map_err(Trouble::from)? {
            let (key, _) = entry.map_err(Trouble::from)?;
            let (account, name) = key.value();
            if view.accounts.get(account).map_err(Trouble::from)?.is_none() {
                self.find(Place::Name { account, name: name.to_owned() }, Damage::NoAccount)?;
            }
        }
        Ok(())
    }

    /// Every annotation can be read and is about something.
    fn annotations(&mut self, view: &View) -> Step {
        for row in view.annotations.iter().map_err(Trouble::from)? {
            let (key, value) = row.map_err(Trouble::from)?;
            let (account, mailbox, entry) = key.value();
            let mailbox = Some(mailbox).filter(|mailbox| *mailbox != OF_ACCOUNT);
            let owned = match mailbox {
                None => view.accounts.get(account).map_err(Trouble::from)?.is_some(),
                Some(mailbox) => match super::view::row::<MailboxRecord>(load(&view.mailboxes, mailbox))? {
                    Row::There(record) => record.account == account,
                    Row::Missing => false,
                    Row::Damaged => true,
                },
            };
            let place = Place::Annotation { account, mailbox, entry: entry.to_owned() };
            if !annotation::is_whole(key.value(), value.value()) {
                self.find(place, Damage::Unreadable)?;
            } else if !owned {
                self.find(place, Damage::AboutNothing)?;
            }
        }
        Ok(())
    }

    /// Every certificate can be read and lets somebody in who is there.
    fn certificates(&mut self, view: &View) -> Step {
        for entry in view.certificates.iter().map_err(Trouble::from)? {
            let (key, value) = entry.map_err(Trouble::from)?;
            let place = || Place::Certificate(key.value().to_owned());
            match CertificateRecord::decode(key.value(), value.value()) {
                Ok(record) if Fingerprint::parse(key.value()).is_some() => {
                    if view.accounts.get(record.account).map_err(Trouble::from)?.is_none() {
                        self.find(place(), Damage::NoAccount)?;
                    }
                }
                _ => self.find(place(), Damage::Unreadable)?,
            }
        }
        Ok(())
    }

    /// All rights can be read, are of somebody on something, and stand in both tables.
    fn grants(&mut self, view: &View) -> Step {
        for entry in view.grants.iter().map_err(Trouble::from)? {
            let (key, value) = entry.map_err(Trouble::from)?;
            let (mailbox, identifier) = key.value();
            let place = Place::Grant { mailbox, identifier };
            let listed = view.shared.get((identifier, mailbox)).map_err(Trouble::from)?.is_some();
            let there = view.mailboxes.get(mailbox).map_err(Trouble::from)?.is_some()
                && (!acl::is_account(identifier) || view.accounts.get(identifier).map_err(Trouble::from)?.is_some());
            if acl::GrantRecord::decode(key.value(), value.value()).is_err() {
                self.find(place, Damage::Unreadable)?;
            } else if !there {
                self.find(place, Damage::AboutNothing)?;
            } else if !listed {
                self.find(place, Damage::Onesided)?;
            }
        }
        for entry in view.shared.iter().map_err(Trouble::from)? {
            let (key, ()) = entry.map(|(key, _)| (key, ())).map_err(Trouble::from)?;
            let (identifier, mailbox) = key.value();
            if view.grants.get((mailbox, identifier)).map_err(Trouble::from)?.is_none() {
                self.find(Place::Grant { mailbox, identifier }, Damage::Onesided)?;
            }
        }
        Ok(())
    }

    /// Gives the least number that the next account may have.
    fn accounts(&mut self, view: &View, sums: &Sums) -> Step<u32> {
        let mut next = 0;
        for entry in view.accounts.iter().map_err(Trouble::from)? {
            let (key, value) = entry.map_err(Trouble::from)?;
            let id = key.value();
            self.report.accounts += 1;
            next = id.saturating_add(1);
            let Ok(record) = AccountRecord::decode(id, value.value()) else {
                self.find(view.account(id)?, Damage::Unreadable)?;
                continue;
            };
            let place = || Place::Account { id, address: record.address.to_string() };
            let found = sums.used.get(&id).copied().unwrap_or_default();
            let counts: Vec<_> = [
                (Counter::Messages, record.used.messages, found.messages),
                (Counter::Size, record.used.bytes, found.bytes),
            ]
            .into_iter()
            .filter_map(differs)
            .collect();
            if !counts.is_empty() {
                self.find(place(), Damage::Miscounted(counts))?;
            }
            match row(load(&view.addresses, record.address.key().as_str()))? {
                Row::There(AddressRecord::Account(whose)) if whose == id => {}
                // Told with the addresses.
                Row::Damaged => {}
                _ => self.find(place(), Damage::NoAddress)?,
            }
        }
        Ok(next)
    }

    fn addresses(&mut self, view: &View) -> Step {
        for entry in view.addresses.iter().map_err(Trouble::from)? {
            let (key, value) = entry.map_err(Trouble::from)?;
            let key = key.value();
            let place = || Place::Address(key.to_owned());
            let targets = match AddressRecord::decode(key, value.value()) {
                Ok(AddressRecord::Account(id)) => vec![id],
                Ok(AddressRecord::Alias(_, targets) | AddressRecord::Forward(_, targets, _)) => targets,
                Ok(AddressRecord::List(_)) => Vec::new(),
                Err(_) => {
                    self.find(place(), Damage::Unreadable)?;
                    continue;
                }
            };
            for target in targets {
                if view.accounts.get(target).map_err(Trouble::from)?.is_none() {
                    self.find(place(), Damage::NoAccount)?;
                }
            }
            let domain = key.rsplit_once('@').map_or(key, |(_, domain)| domain);
            if view.domains.get(domain).map_err(Trouble::from)?.is_none() {
                self.find(place(), Damage::NotLocal)?;
            }
        }
        Ok(())
    }

    fn domains(&mut self, view: &View) -> Step {
        for entry in view.domains.iter().map_err(Trouble::from)? {
            let (key, _) = entry.map_err(Trouble::from)?;
            if !Domain::parse(key.value()).is_ok_and(|domain| domain.as_str() == key.value()) {
                self.find(Place::Row { table: "domain".to_owned(), key: key.value().to_owned() }, Damage::Unreadable)?;
            }
        }
        Ok(())
    }

    /// What is listed for removal is nobody's.
    fn listed(&mut self, view: &View) -> Step {
        for entry in view.sweep.iter().map_err(Trouble::from)? {
            let (key, _) = entry.map_err(Trouble::from)?;
            let (kind, id) = key.value();
            let right = match kind {
                SWEEP_BODY => row::<BlobRecord>(load(&view.bodies, id))?.there().is_none_or(|record| record.refs == 0),
                SWEEP_MAILBOX => match u32::try_from(id) {
                    Ok(id) => view.mailboxes.get(id).map_err(Trouble::from)?.is_none(),
                    Err(_) => false,
                },
                SWEEP_STAGED => view.bodies.get(id).map_err(Trouble::from)?.is_none(),
                _ => false,
            };
            if !right {
                let key = format!("({kind}, {id})");
                self.find(Place::Row { table: "sweep".to_owned(), key }, Damage::Listed)?;
            }
        }
        Ok(())
    }

    /// The numbers that are given out next are above all in use.
    fn numbers(&mut self, view: &View, sums: &Sums, next_account: u32) -> Step {
        let Progress { applied, blob, account, mailbox, uid_validity, kept: _ } =
            row(load(&view.state, PROGRESS))?.there().unwrap_or_default();
        let counts: Vec<_> = [
            (Counter::Applied, applied, sums.highest_modseq),
            (Counter::NextBody, blob, next_body(view)?),
            (Counter::NextAccount, account.into(), next_account.into()),
            (Counter::NextMailbox, mailbox.into(), sums.next_mailbox.into()),
            (Counter::LastUidValidity, uid_validity.into(), sums.uid_validity.into()),
        ]
        .into_iter()
        .filter_map(below)
        .collect();
        if counts.is_empty() { Ok(()) } else { self.find(Place::Index, Damage::Miscounted(counts)) }
    }
}

/// The least number that the next body may have.
pub(super) fn next_body(view: &View) -> Result<u64, Trouble> {
    let last = [
        view.bodies.last()?.map(|(key, _)| key.value()),
        view.structures.last()?.map(|(key, _)| key.value()),
        view.tails.last()?.map(|(key, _)| key.value()),
        view.pieces.last()?.map(|(key, _)| key.value().0),
        view.sweep
            .range((SWEEP_BODY, 0)..=(SWEEP_BODY, u64::MAX))?
            .next_back()
            .transpose()?
            .map(|(key, _)| key.value().1),
        view.sweep
            .range((SWEEP_STAGED, 0)..=(SWEEP_STAGED, u64::MAX))?
            .next_back()
            .transpose()?
            .map(|(key, _)| key.value().1),
    ];
    Ok(last.into_iter().flatten().max().map_or(0, |last| last.saturating_add(1)))
}

/// A counter that is not what was counted.
pub(super) fn differs((of, kept, found): (Counter, u64, u64)) -> Option<Miscount> {
    (kept != found).then_some(Miscount { of, kept, found })
}

/// A counter that is below what it must be at least.
pub(super) fn below((of, kept, found): (Counter, u64, u64)) -> Option<Miscount> {
    (kept < found).then_some(Miscount { of, kept, found })
}
