//! Who may bring mail at all, by how much he brings and whether he comes again: rate limits and greylisting.
//!
//! The greylist lies in the store as a note. It is written down an hour after the first change at most, with the
//! next sender, and when the server stops: a cut loses what was learnt since, and who was known by that alone is
//! asked once more to come again.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::filter::sender::{Greylist, Rates, SenderConfig, Wait};
use crate::mail::date::Timestamp;
use crate::protocol::smtp::Reply;
use crate::store::{Store, WriteError};

/// The note that holds the greylist.
const NOTE: &str = "greylist";

/// How long a change of the greylist waits to be written down.
const SAVE_AFTER: Duration = Duration::from_hours(1);

/// The gate. One for the server.
#[derive(Debug)]
pub struct Gate {
    store: Store,
    config: SenderConfig,
    rates: Mutex<Rates>,
    greylist: Mutex<Remembered>,
}

#[derive(Debug, Default)]
struct Remembered {
    /// None until somebody comes.
    list: Option<Greylist>,
    changed: Option<Instant>,
}

impl Gate {
    /// The gate of a store. Reads nothing yet.
    #[must_use]
    pub fn new(store: Store, config: SenderConfig) -> Self {
        Self { store, config, rates: Mutex::default(), greylist: Mutex::default() }
    }

    /// Counts a message that begins.
    ///
    /// # Errors
    /// The reply to MAIL: the address or its network has sent enough for now.
    pub fn begin(&self, client: IpAddr, now: Instant) -> Result<(), Reply> {
        let (address, network) = (self.config.address_messages_per_hour, self.config.network_messages_per_hour);
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.take(client, address, network, now) {
            return Ok(());
        }
        Err(Reply::new(450, "4.7.1", "your address sends more than is taken here: try again later"))
    }

    /// Asks who was never seen to come again.
    ///
    /// # Errors
    /// The reply to RCPT.
    pub fn greet(&self, client: IpAddr, from: &str, to: &str, now: Timestamp, at: Instant) -> Result<(), Reply> {
        if self.config.greylist_secs == 0 {
            return Ok(());
        }
        let mut remembered = self.remembered();
        let list = remembered.list.get_or_insert_with(|| self.load());
        let answer = list.ask((client, from, to), self.config.greylist_secs, now);
        if answer.unwrap_or(true) {
            let since = *remembered.changed.get_or_insert(at);
            if at.saturating_duration_since(since) >= SAVE_AFTER {
                // Nobody waits for it; what fails comes with the next.
                drop(self.write(&mut remembered));
            }
        }
        answer.map(drop).map_err(|Wait { secs }| {
            Reply::new(451, "4.7.1", format!("you are new here: come again in {secs} seconds (greylisting)"))
        })
    }

    /// Writes the greylist down if it changed. Blocks.
    ///
    /// # Errors
    /// The store does not take it.
    pub fn save(&self) -> Result<(), WriteError> {
        let mut remembered = self.remembered();
        if remembered.changed.is_none() {
            return Ok(());
        }
        self.write(&mut remembered).wait()
    }

    fn write(&self, remembered: &mut Remembered) -> crate::store::Pending<()> {
        remembered.changed = None;
        let bytes = remembered.list.as_ref().map(Greylist::to_bytes).unwrap_or_default();
        self.store.put_note(NOTE, bytes)
    }

    fn load(&self) -> Greylist {
        let note = self.store.reader().and_then(|reader| reader.note(NOTE));
        let note = note.inspect_err(|error| tracing::warn!(%error, "the greylist cannot be read: it begins anew"));
        Greylist::from_bytes(&note.ok().flatten().unwrap_or_default())
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.greylist.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreConfig;

    #[test]
    fn who_came_again_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let config = SenderConfig { greylist_secs: 60, ..SenderConfig::default() };
        let client = "192.0.2.1".parse().unwrap();
        let ask =
            |gate: &Gate, from: &str, now: i64| gate.greet(client, from, "b@here", Timestamp(now), Instant::now());
        let store = Store::open(folder.path(), &StoreConfig::default()).unwrap();
        let gate = Gate::new(store.clone(), config.clone());
        let reply = ask(&gate, "a@x", 0).unwrap_err();
        assert_eq!((reply.code, reply.enhanced), (451, "4.7.1"));
        assert!(reply.text.contains("60 seconds"), "{}", reply.text);
        assert_eq!(ask(&gate, "a@x", 61), Ok(()));
        gate.save().unwrap();
        drop(gate);
        store.close().unwrap();
        let store = Store::open(folder.path(), &StoreConfig::default()).unwrap();
        let gate = Gate::new(store.clone(), config);
        assert_eq!(ask(&gate, "a@x", 62), Ok(()));
        assert!(ask(&gate, "new@x", 62).is_err());
        drop(gate);
        store.close().unwrap();
    }

    #[test]
    fn greylisting_is_off_by_default_and_limits_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &StoreConfig::default()).unwrap();
        let gate = Gate::new(store, SenderConfig { address_messages_per_hour: 2, ..SenderConfig::default() });
        let (client, now) = ("192.0.2.1".parse().unwrap(), Instant::now());
        assert_eq!(gate.greet(client, "a@x", "b@y", Timestamp(0), now), Ok(()));
        assert!(gate.begin(client, now).is_ok() && gate.begin(client, now).is_ok());
        assert_eq!(gate.begin(client, now).unwrap_err().code, 450);
    }
}
