//! Wakes sessions when something of their account changed.
//!
//! One watch channel an account, made when somebody first waits and dropped when nobody does, so
//! there are never more than there are sessions.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::mail::mailbox::ModSeq;

/// The queue is watched as an account would be, under a number no account is given.
pub(super) const QUEUE_WATCH: u32 = u32::MAX;

/// Who waits for what.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<HashMap<u32, watch::Sender<ModSeq>>>);

impl Watchers {
    fn all(&self) -> MutexGuard<'_, HashMap<u32, watch::Sender<ModSeq>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for changes of an account after `now`.
    pub(super) fn watch(&self, account: u32, now: ModSeq) -> watch::Receiver<ModSeq> {
        let mut all = self.all();
        if let Some(sender) = all.get(&account) {
            return sender.subscribe();
        }
        all.retain(|_, sender| !sender.is_closed());
        let (sender, receiver) = watch::channel(now);
        all.insert(account, sender);
        receiver
    }

    /// Tells everybody who waits that accounts changed.
    pub(super) fn wake(&self, accounts: &[u32], now: ModSeq) {
        let mut all = self.all();
        for account in accounts {
            let Some(sender) = all.get(account) else { continue };
            if sender.is_closed() {
                all.remove(account);
            } else {
                sender.send_replace(now);
            }
        }
    }

    /// Lets everybody go: the store is closed.
    pub(super) fn close(&self) {
        self.all().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_nobody_waits_on_is_dropped() {
        let watchers = Watchers::default();
        let mut first = watchers.watch(1, ModSeq(5));
        let second = watchers.watch(2, ModSeq(5));
        watchers.wake(&[1, 2], ModSeq(6));
        assert!(first.has_changed().unwrap());
        assert_eq!(*first.borrow_and_update(), ModSeq(6));
        drop(second);
        watchers.wake(&[2], ModSeq(7));
        assert_eq!(watchers.all().len(), 1);
        drop(first);
        drop(watchers.watch(3, ModSeq(7)));
        assert_eq!(watchers.all().keys().copied().collect::<Vec<_>>(), [3]);
    }
}
