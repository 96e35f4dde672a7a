//! How much one address and one network may send: buckets of tokens that fill with time.
//!
//! A bucket holds an hour's messages, so a burst is fine and a stream is not. Only addresses that have sent lately
//! have a bucket; of too many the fullest goes, which loses least.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::mail::network::Network;

/// Most buckets of each kind: with less memory than 200 KiB.
pub const BUCKETS_MAX: usize = 2048;

/// Seconds in which an empty bucket is full again.
const FILL_SECS: f64 = 3600.0;

/// The buckets.
#[derive(Debug, Default)]
pub struct Rates {
    addresses: Buckets,
    networks: Buckets,
}

#[derive(Debug, Default)]
struct Buckets(HashMap<IpAddr, Bucket>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Rates {
    /// Counts a message from an address; tells whether it is within both limits. 0 is no limit.
    pub fn take(&mut self, client: IpAddr, address_max: u32, network_max: u32, now: Instant) -> bool {
        let client = client.to_canonical();
        let six = client.is_ipv6();
        let (one, all) = if six { (64, 48) } else { (32, 24) };
        let address = self.addresses.take(Network::around(client, one).address(), address_max, now);
        address && self.networks.take(Network::around(client, all).address(), network_max, now)
    }

    /// Buckets of both kinds.
    #[must_use]
    pub fn count(&self) -> usize {
        self.addresses.0.len() + self.networks.0.len()
    }
}

impl Buckets {
    fn take(&mut self, key: IpAddr, max: u32, now: Instant) -> bool {
        if max == 0 {
            return true;
        }
        let most = f64::from(max);
        if self.0.len() >= BUCKETS_MAX && !self.0.contains_key(&key) {
            self.make_room(most, now);
        }
        let bucket = self.0.entry(key).or_insert(Bucket { tokens: most, at: now });
        bucket.fill(most, now);
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }

    /// Takes away the buckets that are full again, or else the fullest.
    fn make_room(&mut self, most: f64, now: Instant) {
        for bucket in self.0.values_mut() {
            bucket.fill(most, now);
        }
        self.0.retain(|_, bucket| bucket.tokens < most);
        if self.0.len() >= BUCKETS_MAX {
            let fullest = self.0.iter().max_by(|one, other| one.1.tokens.total_cmp(&other.1.tokens));
            if let Some(key) = fullest.map(|(key, _)| *key) {
                self.0.remove(&key);
            }
        }
    }
}

impl Bucket {
    fn fill(&mut self, most: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * most / FILL_SECS).min(most);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        assert!((0..60).all(|_| rates.take(ip, 60, 0, now)));
        assert!(!rates.take(ip, 60, 0, now));
        assert!(rates.take("192.0.2.2".parse().unwrap(), 60, 0, now));
        let later = now + Duration::from_secs(61);
        assert!(rates.take(ip, 60, 0, later) && !rates.take(ip, 60, 0, later));
    }

    #[test]
    fn a_network_has_a_bucket_of_its_own() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let take = |rates: &mut Rates, last: u32| rates.take(IpAddr::V4((0xC000_0200 + last).into()), 10, 15, now);
        assert!((0..15).all(|last| take(&mut rates, last)));
        assert!(!take(&mut rates, 99), "the sixteenth of the /24");
        assert!(take(&mut rates, 256));
        let six = |rates: &mut Rates, text: &str| rates.take(text.parse().unwrap(), 1, 0, now);
        assert!(
            six(&mut rates, "2001:db8::1") && !six(&mut rates, "2001:db8::2") && six(&mut rates, "2001:db8:0:1::1")
        );
    }

    #[test]
    fn the_table_has_a_bound_and_forgets_the_least() {
        let (mut rates, now) = (Rates::default(), Instant::now());
        let busy: IpAddr = "203.0.113.9".parse().unwrap();
        assert!((0..10).all(|_| rates.take(busy, 10, 10, now)));
        for number in 0..3 * u32::try_from(BUCKETS_MAX).unwrap() {
            rates.take(IpAddr::V4((0x0A00_0000 + number * 256).into()), 10, 10, now);
        }
        assert!(rates.count() <= 2 * BUCKETS_MAX);
        assert!(!rates.take(busy, 10, 10, now), "who is out of tokens stays so");
    }
}
