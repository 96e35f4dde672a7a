//! How much a user may send: a brake for accounts whose password somebody else has found.
//!
//! Recipients elsewhere are counted for each account, in the last hour and the last day. What is beyond
//! the limit is not lost: it is taken and held in the queue until somebody looks ([`Pace::Held`]). Only
//! a flood many times the limit is refused, so that it fills no disk. Counts live in memory: a restart
//! begins anew.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::mail::address::Address;
use crate::mail::mailbox::AccountId;
use crate::mail::network::Network;

/// Seconds that are counted together.
const SLOT_SECS: u64 = 600;

/// Slots of an hour and of a day.
const HOUR: usize = 6;
const DAY: usize = 144;

/// A flood so many times the limit is refused.
const FLOOD: u32 = 10;

/// Accounts remembered; those that sent nothing in the last day are forgotten first.
const ACCOUNTS_MAX: usize = 1024;

/// Who may send, and how much.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SubmissionConfig {
    /// Recipients elsewhere that one account may write to within an hour; mail beyond is held in the
    /// queue. 0: as many as it likes. Default: 300.
    pub recipients_per_hour_max: u32,
    /// The same within a day. Default: 1500.
    pub recipients_per_day_max: u32,
    /// Printers, scanners and the like that cannot log in. Default: none.
    pub networks: Vec<OpenNetwork>,
}

impl Default for SubmissionConfig {
    fn default() -> Self {
        Self { recipients_per_hour_max: 300, recipients_per_day_max: 1500, networks: Vec::new() }
    }
}

/// A network whose machines may submit mail without a password, as these senders alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OpenNetwork {
    /// Such as `192.168.1.0/24`, or one address.
    pub network: Network,
    /// The senders' addresses.
    pub senders: Vec<String>,
}

impl SubmissionConfig {
    /// What is wrong with it, if anything.
    ///
    /// # Errors
    /// The key and what is wrong.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let wrong = |text: String| Err(("submission.networks", text));
        for OpenNetwork { network, senders } in &self.networks {
            if network.is_vast() {
                return wrong(format!(
                    "`{network}` is half the world, which then could send mail; name your own network"
                ));
            }
            if senders.is_empty() {
                return wrong(format!("`{network}` has no senders; name the addresses that its machines send as"));
            }
            if let Some(bad) = senders.iter().find(|sender| Address::parse(sender).is_err()) {
                return wrong(format!("`{bad}` is no address"));
            }
        }
        Ok(())
    }

    /// The senders for which a client needs no password.
    pub fn senders_at(&self, client: std::net::IpAddr) -> Vec<Address> {
        let open = self.networks.iter().filter(|open| open.network.holds(client));
        open.flat_map(|open| open.senders.iter().filter_map(|sender| Address::parse(sender).ok())).collect()
    }
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It goes.
    Free,
    /// It is taken, and held.
    Held,
    /// It is refused for now.
    Refused,
}

/// An account whose mail is held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Braked {
    /// Its address; its number where it is gone.
    pub account: String,
    /// Recipients in the last hour.
    pub hour: u32,
    /// Recipients in the last day.
    pub day: u32,
    /// Messages that were held since.
    pub held: u32,
}

/// Counts for all accounts.
#[derive(Debug)]
pub struct Brake {
    hour_max: u32,
    day_max: u32,
    counts: Mutex<HashMap<AccountId, Count>>,
}

#[derive(Clone, Debug)]
struct Count {
    slots: [u32; DAY],
    /// The slot counted last.
    last: u64,
    held: u32,
}

impl Brake {
    /// Counts nothing yet.
    pub fn new(config: &SubmissionConfig) -> Self {
        let limit = |most: u32| if most == 0 { u32::MAX } else { most };
        let (hour_max, day_max) = (limit(config.recipients_per_hour_max), limit(config.recipients_per_day_max));
        Self { hour_max, day_max, counts: Mutex::default() }
    }

    /// Counts a message to so many recipients elsewhere; `now` is in seconds since any moment.
    pub fn count(&self, account: AccountId, recipients: u32, now: u64) -> Pace {
        if recipients == 0 {
            return Pace::Free;
        }
        let slot = now / SLOT_SECS;
        let mut counts = self.lock();
        if counts.len() >= ACCOUNTS_MAX {
            counts.retain(|_, count| slot.saturating_sub(count.last) < DAY as u64);
        }
        let count = counts.entry(account).or_insert_with(|| Count { slots: [0; DAY], last: slot, held: 0 });
        count.turn_to(slot);
        let (hour, day) = (count.sum(slot, HOUR), count.sum(slot, DAY));
        let (hour, day) = (hour.saturating_add(recipients), day.saturating_add(recipients));
        if hour > self.hour_max.saturating_mul(FLOOD) || day > self.day_max.saturating_mul(FLOOD) {
            return Pace::Refused;
        }
        if let Some(present) = count.slots.get_mut(index(slot)) {
            *present = present.saturating_add(recipients);
        }
        if hour <= self.hour_max && day <= self.day_max {
            count.held = 0;
            return Pace::Free;
        }
        count.held = count.held.saturating_add(1);
        Pace::Held
    }

    /// Accounts whose mail is held now, with hour, day and messages held.
    pub fn braked(&self, now: u64) -> Vec<(AccountId, u32, u32, u32)> {
        let slot = now / SLOT_SECS;
        let mut counts = self.lock();
        let mut found = Vec::new();
        for (account, count) in counts.iter_mut().filter(|(_, count)| count.held > 0) {
            count.turn_to(slot);
            let (hour, day) = (count.sum(slot, HOUR), count.sum(slot, DAY));
            if hour > self.hour_max || day > self.day_max {
                found.push((*account, hour, day, count.held));
            }
        }
        found.sort_unstable();
        found
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountId, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn index(slot: u64) -> usize {
    usize::try_from(slot % DAY as u64).unwrap_or(0)
}

impl Count {
    /// Empties the slots between the last and this one.
    fn turn_to(&mut self, slot: u64) {
        for past in (self.last + 1..=slot).rev().take(DAY) {
            if let Some(count) = self.slots.get_mut(index(past)) {
                *count = 0;
            }
        }
        self.last = self.last.max(slot);
    }

    fn sum(&self, slot: u64, slots: usize) -> u32 {
        let recent = (0..slots as u64).filter_map(|back| slot.checked_sub(back));
        recent.filter_map(|slot| self.slots.get(index(slot))).fold(0, |sum, count| sum.saturating_add(*count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: AccountId = AccountId(1);

    fn brake(hour: u32, day: u32) -> Brake {
        let config =
            SubmissionConfig { recipients_per_hour_max: hour, recipients_per_day_max: day, networks: Vec::new() };
        Brake::new(&config)
    }

    #[test]
    fn a_flood_is_held_until_the_hour_has_passed_and_others_are_not_concerned() {
        let brake = brake(10, 0);
        assert_eq!(brake.count(ANN, 10, 0), Pace::Free);
        assert_eq!(brake.count(ANN, 0, 1), Pace::Free, "mail to users here");
        assert_eq!(brake.count(ANN, 1, 60), Pace::Held);
        assert_eq!(brake.count(AccountId(2), 10, 60), Pace::Free);
        assert_eq!(brake.braked(61), [(ANN, 11, 11, 1)]);
        assert_eq!(brake.count(ANN, 1, 3500), Pace::Held);
        // What came an hour ago counts no more.
        assert_eq!(brake.count(ANN, 8, 3600), Pace::Free);
        assert_eq!(brake.braked(3601), []);
    }

    #[test]
    fn a_day_has_a_limit_of_its_own() {
        let brake = brake(10, 25);
        for hour in 0..2 {
            assert_eq!(brake.count(ANN, 10, hour * 3600), Pace::Free);
        }
        assert_eq!(brake.count(ANN, 6, 3 * 3600), Pace::Held);
        assert_eq!(brake.count(ANN, 1, 20 * 3600), Pace::Held);
        assert_eq!(brake.count(ANN, 1, 24 * 3600), Pace::Free, "the first ten are a day old");
        assert_eq!(brake.count(ANN, 10, 400 * 3600), Pace::Free);
    }

    #[test]
    fn what_would_fill_the_disk_is_refused() {
        let brake = brake(10, 1000);
        assert_eq!(brake.count(ANN, 100, 0), Pace::Held);
        assert_eq!(brake.count(ANN, 1, 1), Pace::Refused);
        assert_eq!(brake.braked(2), [(ANN, 100, 100, 1)]);
        let unlimited = self::brake(0, 0);
        assert_eq!(unlimited.count(ANN, u32::MAX, 0), Pace::Free);
        assert_eq!(unlimited.count(ANN, 5, 0), Pace::Free);
    }

    #[test]
    fn an_open_network_is_named_with_its_senders() {
        let config = |text: &str| toml::from_str::<SubmissionConfig>(text).unwrap();
        let good = config("networks = [{ network = \"192.168.1.0/24\", senders = [\"scanner@x.test\"] }]");
        assert_eq!(good.check(), Ok(()));
        assert_eq!(good.senders_at("::ffff:192.168.1.9".parse().unwrap()).len(), 1);
        assert_eq!(good.senders_at("192.168.2.9".parse().unwrap()), []);
        for (text, word) in [
            ("networks = [{ network = \"0.0.0.0/0\", senders = [\"a@x.test\"] }]", "half the world"),
            ("networks = [{ network = \"10.0.0.0/8\", senders = [] }]", "no senders"),
            ("networks = [{ network = \"10.0.0.0/8\", senders = [\"x.test\"] }]", "no address"),
        ] {
            let (key, problem) = config(text).check().unwrap_err();
            assert!(key == "submission.networks" && problem.contains(word), "{problem}");
        }
    }
}
