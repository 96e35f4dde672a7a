//! Whom an account has written to: their answers are wanted.
//!
//! A ring of hashes of addresses, so it takes the same room whoever is written to. Whoever poses as one
//! of them has the same advantage, so it is a bounded one.

use serde::{Deserialize, Serialize};

use crate::mail::address::Address;

/// Correspondents that are remembered; with it they take one piece of the store.
const KNOWN_MAX: usize = 2048;

/// What it adds to the score, in logits, that the sender is one.
pub(super) const KNOWN_LOGIT: f32 = -2.0;

/// The correspondents of an account, the one written to last at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known(std::collections::VecDeque<u32>);

impl Known {
    /// Tells whether this one was written to.
    #[must_use]
    pub fn has(&self, address: &Address) -> bool {
        self.0.contains(&hash(address))
    }

    /// Remembers one; of too many the one forgotten is the one not written to for the longest time.
    pub fn add(&mut self, address: &Address) {
        let hash = hash(address);
        self.0.retain(|known| *known != hash);
        if self.0.len() >= KNOWN_MAX {
            self.0.pop_front();
        }
        self.0.push_back(hash);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// Local parts are compared without case, as all servers in use do (RFC 5321 section 2.4 allows more).
fn hash(address: &Address) -> u32 {
    crc32c::crc32c(address.to_string().to_lowercase().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_written_to_are_known_whatever_their_case_and_the_oldest_is_forgotten() {
        let mut known = Known::default();
        let address = |number: usize| Address::parse(&format!("Friend{number}@example.org")).unwrap();
        (0..KNOWN_MAX).for_each(|number| known.add(&address(number)));
        known.add(&address(0));
        known.add(&address(KNOWN_MAX));
        assert!(known.has(&Address::parse("friend0@EXAMPLE.org").unwrap()));
        assert!(known.has(&address(KNOWN_MAX)) && !known.has(&address(1)));
        assert_eq!(known.count(), KNOWN_MAX);
        assert!(postcard::to_allocvec(&known).unwrap().len() < 16_000);
    }
}
