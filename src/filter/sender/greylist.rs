//! Greylisting (RFC 6647): who was never seen has to come again, and is then known for a month.
//!
//! What counts is the network, the sender and the recipient, of which only a hash is kept. A network that has come
//! again with several mails is known by itself. The list has a bound, and can be written down and read again.

use std::collections::HashMap;
use std::net::IpAddr;

use ring::digest::{SHA256, digest};

use crate::mail::date::Timestamp;
use crate::mail::network::Network;

/// Most entries: with 24 bytes each.
pub const ENTRIES_MAX: usize = 4096;

/// Who does not come again within this time has to begin anew, in seconds.
const RETRY_WITHIN: i64 = 24 * 3600;

/// How long somebody is known who does not come, in seconds.
const KNOWN_FOR: i64 = 36 * 24 * 3600;

/// Times that a network has come again after which it is known by itself.
const NETWORK_AFTER: u8 = 3;

/// The list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greylist(HashMap<u64, Entry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Entry {
    /// When it came first, or where it is known last, in seconds since 1970.
    at: i64,
    /// How often it came again.
    again: u8,
}

/// Come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// In so many seconds.
    pub secs: u32,
}

impl Greylist {
    /// Looks somebody up who comes now; who is new waits for `delay` seconds. Returns whether the list changed.
    ///
    /// # Errors
    /// He has to come again.
    pub fn ask(&mut self, (client, from, to): (IpAddr, &str, &str), delay: u32, now: Timestamp) -> Result<bool, Wait> {
        let client = client.to_canonical();
        let network = Network::around(client, if client.is_ipv6() { 64 } else { 24 }).to_string();
        let host = hash(&[&network]);
        let Timestamp(now) = now;
        if let Some(entry) = self.0.get_mut(&host).filter(|entry| entry.again >= NETWORK_AFTER) {
            // A mark a day is often enough.
            let moved = (now - entry.at).abs() > 24 * 3600;
            if moved {
                entry.at = now;
            }
            return Ok(moved);
        }
        let key = hash(&[&network, &from.to_lowercase(), &to.to_lowercase()]);
        let delay = i64::from(delay);
        let entry = self.0.get(&key).copied().filter(|entry| {
            let keeps = if entry.again > 0 { KNOWN_FOR } else { RETRY_WITHIN.max(2 * delay) };
            // A clock that was set back begins anew rather than never.
            (0..keeps).contains(&(now - entry.at))
        });
        match entry {
            Some(entry) if entry.again > 0 => {
                self.put(key, Entry { at: now, again: 1 });
                Ok(now - entry.at > 24 * 3600)
            }
            Some(entry) if now - entry.at >= delay => {
                self.put(key, Entry { at: now, again: 1 });
                let again = self.0.get(&host).map_or(0, |entry| entry.again).saturating_add(1);
                self.put(host, Entry { at: now, again });
                Ok(true)
            }
            Some(entry) => Err(Wait { secs: u32::try_from(delay - (now - entry.at)).unwrap_or(u32::MAX) }),
            None => {
                self.put(key, Entry { at: now, again: 0 });
                Err(Wait { secs: u32::try_from(delay).unwrap_or(u32::MAX) })
            }
        }
    }

    /// Entries.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The list as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let entries: Vec<(u64, Entry)> = self.0.iter().map(|(key, entry)| (*key, *entry)).collect();
        postcard::to_allocvec(&entries).unwrap_or_default()
    }

    /// Reads bytes that [`Greylist::to_bytes`] wrote; what is no list is an empty one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let entries: Vec<(u64, Entry)> = postcard::from_bytes(bytes).unwrap_or_default();
        Self(entries.into_iter().take(ENTRIES_MAX).collect())
    }

    /// Puts an entry; of too many goes the oldest of those that never came again, or else the oldest.
    fn put(&mut self, key: u64, entry: Entry) {
        if self.0.len() >= ENTRIES_MAX && !self.0.contains_key(&key) {
            let oldest = self.0.iter().min_by_key(|(_, entry)| (entry.again > 0, entry.at));
            if let Some(key) = oldest.map(|(key, _)| *key) {
                self.0.remove(&key);
            }
        }
        self.0.insert(key, entry);
    }
}

fn hash(parts: &[&str]) -> u64 {
    let digest = digest(&SHA256, parts.join("\0").as_bytes());
    digest.as_ref().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(list: &mut Greylist, ip: &str, from: &str, now: i64) -> Result<bool, Wait> {
        list.ask((ip.parse().unwrap(), from, "bob@here.test"), 300, Timestamp(now))
    }

    #[test]
    fn who_comes_again_in_time_is_known_for_a_month() {
        let mut list = Greylist::default();
        assert_eq!(ask(&mut list, "192.0.2.1", "a@x.test", 1000), Err(Wait { secs: 300 }));
        assert_eq!(ask(&mut list, "192.0.2.1", "a@x.test", 1100), Err(Wait { secs: 200 }));
        // From another host of the same network, as large senders do.
        assert_eq!(ask(&mut list, "192.0.2.77", "A@x.test", 1300), Ok(true));
        assert_eq!(ask(&mut list, "192.0.2.1", "a@x.test", 1301), Ok(false));
        assert!(ask(&mut list, "192.0.2.1", "other@x.test", 1301).is_err());
        assert!(ask(&mut list, "192.0.2.1", "a@x.test", 1301 + KNOWN_FOR).is_err());
    }

    #[test]
    fn who_comes_too_late_begins_anew_and_so_does_a_clock_that_was_set_back() {
        let mut list = Greylist::default();
        assert!(ask(&mut list, "192.0.2.1", "a@x.test", 1000).is_err());
        assert!(ask(&mut list, "192.0.2.1", "a@x.test", 1000 + RETRY_WITHIN).is_err());
        assert!(ask(&mut list, "192.0.2.1", "a@x.test", 10).is_err());
        assert!(ask(&mut list, "192.0.2.1", "a@x.test", 310).is_ok());
    }

    #[test]
    fn a_network_that_keeps_coming_is_known_by_itself() {
        let mut list = Greylist::default();
        for number in 0..i64::from(NETWORK_AFTER) {
            let from = format!("u{number}@x.test");
            assert!(ask(&mut list, "192.0.2.1", &from, 1000 * number).is_err());
            assert!(ask(&mut list, "192.0.2.1", &from, 1000 * number + 300).is_ok());
        }
        assert_eq!(ask(&mut list, "192.0.2.9", "new@y.test", 9000), Ok(false));
        assert!(ask(&mut list, "192.0.3.9", "new@y.test", 9000).is_err());
    }

    #[test]
    fn it_is_bounded_and_comes_back_as_it_was() {
        let mut list = Greylist::default();
        assert!(ask(&mut list, "198.51.100.1", "known@x.test", 0).is_err());
        assert!(ask(&mut list, "198.51.100.1", "known@x.test", 300).is_ok());
        for number in 0..2 * i64::try_from(ENTRIES_MAX).unwrap() {
            assert!(ask(&mut list, "192.0.2.1", &format!("u{number}@x.test"), 300 + number).is_err());
        }
        assert_eq!(list.count(), ENTRIES_MAX);
        let mut again = Greylist::from_bytes(&list.to_bytes());
        assert_eq!(again, list);
        assert!(ask(&mut again, "198.51.100.1", "known@x.test", 9000).is_ok());
        assert_eq!(Greylist::from_bytes(b"\xff\xff\xff").count(), 0);
    }
}
