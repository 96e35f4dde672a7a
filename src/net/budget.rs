//! How many connections there may be, in all and from one address.
//!
//! A connection that finds no room is told so in its protocol's words and closed at once; one that
//! is admitted holds a [`Permit`] to its end. IPv6 peers are counted by their /64, which is what one
//! customer or one machine has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Limits of connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NetConfig {
    /// Connections at the same time, all protocols together. An idle one costs about 8 KiB of memory
    /// with TLS. Default: 500.
    pub sessions_max: u32,
    /// Connections at the same time from one IPv4 address or one IPv6 /64 network. A household behind
    /// one address may have many mail programs with several connections each. Default: 60.
    pub sessions_per_address_max: u32,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self { sessions_max: 500, sessions_per_address_max: 60 }
    }
}

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The server has as many as it may.
    Server,
    /// The address has as many as it may.
    Address,
}

/// The count of connections. Cheap to clone; clones share the count.
#[derive(Clone, Debug, Default)]
pub struct Budget(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    limits: NetConfig,
    all: u32,
    by_address: HashMap<IpAddr, u32>,
    turned_away: u64,
}

impl Budget {
    /// An empty count with these limits.
    pub fn new(limits: NetConfig) -> Self {
        Self(Arc::new(Mutex::new(Counts { limits, ..Counts::default() })))
    }

    /// Changes the limits; connections above them stay.
    pub fn set_limits(&self, limits: NetConfig) {
        self.counts().limits = limits;
    }

    /// Counts a connection from `peer` in, or says why not.
    ///
    /// # Errors
    /// Which limit is reached.
    pub fn admit(&self, peer: IpAddr) -> Result<Permit, Full> {
        let key = key_of(peer);
        let mut counts = self.counts();
        let here = counts.by_address.get(&key).copied().unwrap_or(0);
        let full = if counts.all >= counts.limits.sessions_max {
            Some(Full::Server)
        } else {
            (here >= counts.limits.sessions_per_address_max).then_some(Full::Address)
        };
        if let Some(full) = full {
            counts.turned_away += 1;
            return Err(full);
        }
        counts.all += 1;
        counts.by_address.insert(key, here + 1);
        Ok(Permit { budget: self.clone(), key })
    }

    /// Connections now.
    pub fn open(&self) -> u32 {
        self.counts().all
    }

    /// Connections turned away since start.
    pub fn turned_away(&self) -> u64 {
        self.counts().turned_away
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Counting cannot panic half-way, so a poisoned count is still right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for one connection; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    budget: Budget,
    key: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.budget.counts();
        counts.all = counts.all.saturating_sub(1);
        match counts.by_address.get_mut(&self.key) {
            Some(here) if *here > 1 => *here -= 1,
            _ => {
                counts.by_address.remove(&self.key);
            }
        }
        if counts.by_address.is_empty() {
            counts.by_address.shrink_to_fit();
        }
    }
}

/// What a peer is counted as.
fn key_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        Budget::new(NetConfig { sessions_max: 3, sessions_per_address_max: 2 })
    }

    #[test]
    fn an_address_and_the_server_have_their_limits() {
        let budget = budget();
        let (ann, bob) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let first = budget.admit(ann).unwrap();
        let _second = budget.admit(ann).unwrap();
        assert_eq!(budget.admit(ann).unwrap_err(), Full::Address);
        let _third = budget.admit(bob).unwrap();
        assert_eq!(budget.admit(bob).unwrap_err(), Full::Server);
        assert_eq!((budget.open(), budget.turned_away()), (3, 2));
        drop(first);
        assert!(budget.admit(ann).is_ok());
    }

    #[test]
    fn a_permit_given_back_leaves_nothing_behind() {
        let budget = budget();
        drop(budget.admit("2001:db8::1".parse().unwrap()));
        assert_eq!(budget.open(), 0);
        assert!(budget.counts().by_address.is_empty());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address_and_mapped_ipv4_as_itself() {
        assert_eq!(key_of("2001:db8:1:2:3::4".parse().unwrap()), key_of("2001:db8:1:2::9".parse().unwrap()));
        assert_ne!(key_of("2001:db8:1:2::".parse().unwrap()), key_of("2001:db8:1:3::".parse().unwrap()));
        assert_eq!(key_of("::ffff:192.0.2.1".parse().unwrap()), key_of("192.0.2.1".parse().unwrap()));
    }
}
