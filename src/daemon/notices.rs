//! Telling recipients that mail was kept from them for what was found in it, as often as they can bear.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::fresh::{new_id, now};
use crate::flow::scan::ScanConfig;
use crate::flow::scan::notice::{Kept, Named, Notice};
use crate::mail::date::ZonedTime;
use crate::mail::mailbox::{AccountId, MailboxId, Uid};
use crate::store::{Folder, NewMessage, Pending, Store};

/// Most notices that an account gets in an hour: whoever sends malware sends much of it.
const NOTICES_MAX: u32 = 5;

/// See [`NOTICES_MAX`].
const WINDOW: Duration = Duration::from_hours(1);

/// Accounts whose notices are counted; beyond it others get none until the hour is over.
const ACCOUNTS_MAX: usize = 1024;

/// Most recipients of one message that are told.
const TOLD_MAX: usize = 100;

/// What recipients are told of.
#[derive(Clone, Debug)]
pub struct Told {
    /// The message.
    pub about: Named,
    /// What was found in it.
    pub finding: String,
    /// What became of it.
    pub kept: Kept,
}

/// Tells recipients, if that is wanted.
#[derive(Debug)]
pub struct Notices {
    store: Store,
    host: Arc<str>,
    keeper: Option<String>,
    wanted: bool,
    counts: Mutex<HashMap<AccountId, (Instant, u32)>>,
}

impl Notices {
    /// Tells as `config` says; `host` is our own name.
    pub fn new(store: Store, host: Arc<str>, config: &ScanConfig) -> Self {
        let keeper = config.quarantine_account.clone();
        Self { store, host, keeper, wanted: config.notify_recipients, counts: Mutex::default() }
    }

    /// Tells whether anybody is told.
    pub fn are_wanted(&self) -> bool {
        self.wanted
    }

    /// Writes to these accounts. What comes back resolves when the notices are kept; a failure is logged by
    /// whoever waits, and nobody has to wait.
    pub fn tell(&self, told: &Told, accounts: &[AccountId]) -> Vec<Pending<Vec<(MailboxId, Uid)>>> {
        let mut pending = Vec::new();
        for &account in accounts.iter().take(TOLD_MAX) {
            if !self.wanted || !self.may_tell(account, Instant::now()) {
                continue;
            }
            if let Some(message) = self.write(told, account) {
                pending.push(self.store.deliver(message, vec![(account, Folder::Inbox)]));
            }
        }
        pending
    }

    fn write(&self, told: &Told, account: AccountId) -> Option<NewMessage> {
        let to = self.store.reader().ok()?.account(account).ok()??.address;
        let Told { about, finding, kept } = told;
        let (id, at) = (new_id(), ZonedTime::utc(now()));
        let keeper = self.keeper.as_deref();
        let notice = Notice { host: &self.host, to: &to, id: &id, at, about, finding, kept: *kept, keeper };
        notice.message(&self.store).inspect_err(|error| tracing::warn!(%error, "a recipient is not told")).ok()
    }

    /// Counts a notice, and tells whether the account gets it.
    fn may_tell(&self, account: AccountId, now: Instant) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= ACCOUNTS_MAX && !counts.contains_key(&account) {
            counts.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
            if counts.len() >= ACCOUNTS_MAX {
                return false;
            }
        }
        let (since, count) = counts.entry(account).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        *count <= NOTICES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreConfig;

    #[test]
    fn an_account_is_told_five_times_an_hour_at_most() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &StoreConfig::default()).unwrap();
        let notices = Notices::new(store, "x.test".into(), &ScanConfig::default());
        let start = Instant::now();
        let told = |account, at| notices.may_tell(AccountId(account), at);
        assert_eq!((0..20).filter(|_| told(1, start)).count(), 5);
        assert!(told(2, start));
        assert!(!told(1, start + Duration::from_mins(59)));
        assert!(told(1, start + WINDOW));
        for account in 0..10_000 {
            told(account, start + WINDOW);
        }
        assert_eq!(notices.counts.lock().unwrap().len(), ACCOUNTS_MAX);
        assert!(told(20_000, start + WINDOW * 3));
    }
}
