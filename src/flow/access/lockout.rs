//! Who may try to log in now, who must wait, and who is locked out for a while.
//!
//! Failures are counted for the client's address (the /64 network for IPv6) and for the login that
//! was tried. An address with too many is locked out; a login only ever makes its tries slower, so
//! nobody can lock a stranger out of his mail by failing in his name. Counts fade with time: a
//! success does not wipe an address's count, or an owner of one account could guess at the others.
//!
//! The tables are bounded, the oldest entries leave. Time comes in as an argument.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Addresses whose failures are remembered; about 64 bytes each.
pub const SOURCES_MAX: usize = 1024;

/// Logins whose failures are remembered.
pub const USERS_MAX: usize = 256;

/// Failures that cost no delay: everybody mistypes.
const FREE_FAILURES: u32 = 2;

/// Longest delay that failures in a user's name from other addresses can cause.
const USER_DELAY_MAX: Duration = Duration::from_secs(2);

/// How failed logins are answered; the same for SMTP, IMAP and POP3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LoginConfig {
    /// Failures after which an address is locked out. A device that repeats one wrong password
    /// counts once. 0 never locks out. Default: 10.
    pub failures_max: u16,
    /// How long an address is locked out, and how long its failures take to be forgotten, in
    /// seconds. Default: 900.
    pub lockout_secs: u32,
    /// Longest delay before a try is looked at, in seconds; it doubles from one second on after the
    /// second failure. 0 never delays. Default: 8.
    pub delay_max_secs: u16,
    /// Whether programs on this computer are locked out like everybody else. Turn it off where a
    /// webmail on the same computer logs many people in from 127.0.0.1. Default: true.
    pub lockout_loopback: bool,
    /// Password checks at one time; each keeps a core busy for 25 to 50 ms on a small board.
    /// Default: 1.
    pub checks_max: u8,
}

impl Default for LoginConfig {
    fn default() -> Self {
        Self { failures_max: 10, lockout_secs: 900, delay_max_secs: 8, lockout_loopback: true, checks_max: 1 }
    }
}

/// Whether a try may go ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// At once.
    Now,
    /// After this time.
    After(Duration),
    /// Not at all: the address is locked out for this much longer.
    Locked(Duration),
}

/// Failures of late, from one address or for one login.
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    /// When `count` was last brought up to date.
    counted: Instant,
    locked_until: Option<Instant>,
    /// A hash of the last wrong login and password, so that a repetition is known.
    last_guess: Option<u64>,
}

/// The failures of all addresses and logins.
#[derive(Debug)]
pub struct Lockout {
    config: LoginConfig,
    sources: HashMap<Ipv6Addr, Failures>,
    users: HashMap<u64, Failures>,
    hashes: RandomState,
}

impl Lockout {
    /// Nobody has failed yet.
    #[must_use]
    pub fn new(config: LoginConfig) -> Self {
        Self { config, sources: HashMap::new(), users: HashMap::new(), hashes: RandomState::new() }
    }

    /// Says whether `client` may try to log in as `login`.
    pub fn admit(&self, client: IpAddr, login: &str, now: Instant) -> Admission {
        if let Some(left) = self.locked(client, now) {
            return Admission::Locked(left);
        }
        let failures = |entry: Option<&Failures>| entry.map_or(0, |entry| entry.faded(now, self.fade()));
        let for_source = self.delay(failures(self.sources.get(&source(client))));
        let for_user = self.delay(failures(self.users.get(&self.user(login)))).min(USER_DELAY_MAX);
        let delay = for_source.max(for_user);
        if delay.is_zero() { Admission::Now } else { Admission::After(delay) }
    }

    /// How much longer `client` is locked out.
    pub fn locked(&self, client: IpAddr, now: Instant) -> Option<Duration> {
        let until = self.sources.get(&source(client))?.locked_until?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Counts a failure. `password` is what was tried, where it is known: the same again teaches
    /// a guesser nothing, so it does not count.
    pub fn failed(&mut self, client: IpAddr, login: &str, password: Option<&str>, now: Instant) {
        let (fade, max) = (self.fade(), u32::from(self.config.failures_max));
        let user = self.user(login);
        let guess = password.map(|password| self.hashes.hash_one((user, password)));
        let lasts = Duration::from_secs(self.config.lockout_secs.into());
        let exempt = client.to_canonical().is_loopback() && !self.config.lockout_loopback;

        let entry = entry(&mut self.sources, source(client), SOURCES_MAX, now);
        let repeated = guess.is_some() && entry.last_guess == guess;
        entry.last_guess = guess;
        if repeated {
            return;
        }
        entry.add(now, fade);
        if max != 0 && entry.count >= max && !exempt {
            entry.locked_until = now.checked_add(lasts);
        }
        self::entry(&mut self.users, user, USERS_MAX, now).add(now, fade);
    }

    /// Forgets the failures in the name of somebody who has just proved who he is.
    pub fn succeeded(&mut self, login: &str) {
        self.users.remove(&self.user(login));
    }

    /// After how long one failure is forgotten.
    fn fade(&self) -> Duration {
        Duration::from_secs(self.config.lockout_secs.into()) / u32::from(self.config.failures_max.max(1))
    }

    /// 0, 0, 0, 1, 2, 4, … seconds for 0, 1, 2, 3, 4, 5, … failures.
    fn delay(&self, failures: u32) -> Duration {
        let Some(over) = failures.checked_sub(FREE_FAILURES + 1) else { return Duration::ZERO };
        Duration::from_secs(1 << over.min(16)).min(Duration::from_secs(self.config.delay_max_secs.into()))
    }

    fn user(&self, login: &str) -> u64 {
        self.hashes.hash_one(login.to_lowercase())
    }
}

impl Failures {
    /// The count now that some are forgotten.
    fn faded(&self, now: Instant, fade: Duration) -> u32 {
        let forgotten = match fade.as_millis() {
            0 => u128::MAX,
            fade => now.saturating_duration_since(self.counted).as_millis() / fade,
        };
        self.count.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX))
    }

    fn add(&mut self, now: Instant, fade: Duration) {
        // Time towards the next forgotten failure is lost here: someone who keeps failing is
        // forgiven nothing.
        self.count = self.faded(now, fade).saturating_add(1);
        self.counted = now;
    }
}

/// The entry of `key`; where there is none and the table is full, the oldest makes room.
fn entry<K: Copy + Eq + Hash>(
    table: &mut HashMap<K, Failures>,
    key: K,
    entries_max: usize,
    now: Instant,
) -> &mut Failures {
    if table.len() >= entries_max && !table.contains_key(&key) {
        let oldest = table.iter().min_by_key(|(_, entry)| entry.locked_until.max(Some(entry.counted)));
        if let Some(oldest) = oldest.map(|(key, _)| *key) {
            table.remove(&oldest);
        }
    }
    table.entry(key).or_insert(Failures { count: 0, counted: now, locked_until: None, last_guess: None })
}

/// What counts as one client: an IPv4 address, or the /64 network that one IPv6 household has.
fn source(client: IpAddr) -> Ipv6Addr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn after_failures(count: u32, client: &str, now: Instant) -> Lockout {
        let mut lockout = Lockout::new(LoginConfig::default());
        for _ in 0..count {
            lockout.failed(address(client), "ann", None, now);
        }
        lockout
    }

    #[test]
    fn delays_grow_and_end_in_a_lockout_that_ends() {
        let now = Instant::now();
        let client = address("192.0.2.1");
        let delays: Vec<_> =
            (0..11).map(|count| after_failures(count, "192.0.2.1", now).admit(client, "bob", now)).collect();
        let secs = |secs| Admission::After(Duration::from_secs(secs));
        let locked = Admission::Locked(Duration::from_mins(15));
        let no = Admission::Now;
        assert_eq!(delays, [no, no, no, secs(1), secs(2), secs(4), secs(8), secs(8), secs(8), secs(8), locked]);
        let lockout = after_failures(10, "192.0.2.1", now);
        assert_eq!(lockout.admit(address("192.0.2.2"), "bob", now), Admission::Now, "others are not locked out");
        assert_eq!(lockout.locked(client, now + Duration::from_mins(15)), None);
        assert_eq!(lockout.admit(client, "bob", now + Duration::from_mins(15)), Admission::Now);
    }

    #[test]
    fn strangers_slow_a_user_down_but_never_lock_him_out() {
        let now = Instant::now();
        let mut lockout = Lockout::new(LoginConfig::default());
        for host in 0..200 {
            lockout.failed(address(&format!("192.0.2.{host}")), "Ann", None, now);
        }
        let mine = address("198.51.100.1");
        assert_eq!(lockout.admit(mine, "ann", now), Admission::After(USER_DELAY_MAX));
        lockout.succeeded("ann");
        assert_eq!(lockout.admit(mine, "ann", now), Admission::Now);
    }

    #[test]
    fn a_success_does_not_wipe_the_addresss_count() {
        let now = Instant::now();
        let mut lockout = after_failures(9, "192.0.2.1", now);
        lockout.succeeded("mallory");
        lockout.failed(address("192.0.2.1"), "ann", None, now);
        assert!(lockout.locked(address("192.0.2.1"), now).is_some());
    }

    #[test]
    fn the_same_wrong_password_again_counts_once() {
        let now = Instant::now();
        let mut lockout = Lockout::new(LoginConfig::default());
        for _ in 0..100 {
            lockout.failed(address("192.0.2.1"), "ann", Some("old password"), now);
        }
        assert_eq!(lockout.admit(address("192.0.2.1"), "ann", now), Admission::Now);
        for number in 0..10 {
            lockout.failed(address("192.0.2.1"), "ann", Some(&format!("guess {number}")), now);
        }
        assert!(lockout.locked(address("192.0.2.1"), now).is_some());
    }

    #[test]
    fn failures_fade_one_by_one() {
        let now = Instant::now();
        let lockout = after_failures(5, "192.0.2.1", now);
        let client = address("192.0.2.1");
        assert_eq!(lockout.admit(client, "x", now + Duration::from_secs(89)), Admission::After(Duration::from_secs(4)));
        assert_eq!(lockout.admit(client, "x", now + Duration::from_secs(90)), Admission::After(Duration::from_secs(2)));
        assert_eq!(lockout.admit(client, "x", now + Duration::from_secs(270)), Admission::Now);
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_a_mapped_address_is_ipv4() {
        let now = Instant::now();
        let lockout = after_failures(10, "2001:db8::1", now);
        assert!(lockout.locked(address("2001:db8::ffff:1"), now).is_some());
        assert!(lockout.locked(address("2001:db8:0:1::1"), now).is_none());
        let lockout = after_failures(10, "::ffff:192.0.2.1", now);
        assert!(lockout.locked(address("192.0.2.1"), now).is_some());
    }

    #[test]
    fn loopback_can_be_let_off() {
        let now = Instant::now();
        assert!(after_failures(10, "127.0.0.1", now).locked(address("127.0.0.1"), now).is_some());
        let mut lockout = Lockout::new(LoginConfig { lockout_loopback: false, ..LoginConfig::default() });
        for _ in 0..100 {
            lockout.failed(address("::1"), "ann", None, now);
        }
        assert_eq!(lockout.locked(address("::1"), now), None);
    }

    #[test]
    fn the_tables_are_bounded_and_the_oldest_leave() {
        let start = Instant::now();
        let mut lockout = Lockout::new(LoginConfig::default());
        for _ in 0..10 {
            lockout.failed(address("192.0.2.1"), "ann", None, start);
        }
        for number in 0..5000_u32 {
            let client = IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + number));
            lockout.failed(client, &format!("user {number}"), None, start + Duration::from_millis(number.into()));
        }
        assert_eq!((lockout.sources.len(), lockout.users.len()), (SOURCES_MAX, USERS_MAX));
        let later = start + Duration::from_secs(10);
        assert!(lockout.locked(address("192.0.2.1"), later).is_some(), "who is locked out is not the oldest");
    }
}
