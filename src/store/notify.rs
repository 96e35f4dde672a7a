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

/// So are new bodies, many at a time (see `gram`).
pub(super) const BODIES_WATCH: u32 = u32::MAX - 1;

/// Stands for every account at once, in what is woken.
pub(super) const EVERYONE_WATCH: u32 = u32::MAX - 2;

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
        if accounts.contains(&EVERYONE_WATCH) {
            for (_, sender) in all.iter().filter(|(account, _)| **account < EVERYONE_WATCH) {
                sender.send_replace(now);
            }
            return;
        }
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
    fn everyone_is_every_account_and_nothing_else() {
        let watchers = Watchers::default();
        let accounts = [watchers.watch(1, ModSeq(5)), watchers.watch(2, ModSeq(5))];
        let queue = watchers.watch(QUEUE_WATCH, ModSeq(5));
        watchers.wake(&[1, EVERYONE_WATCH], ModSeq(6));
        assert!(accounts.iter().all(|watch| watch.has_changed().unwrap()));
        assert!(!queue.has_changed().unwrap());
    }

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
