//! Makes the gram index when nobody wants anything else of the machine.
//!
//! The store says when some hundred bodies have come since it last said so, and at no other time
//! does anything wake here; so does the start of the server, once. Then a thread of the lowest
//! priority makes sheets (`flow::sheets`) until the index is as complete as it is to be. It rests
//! three times as long as it works, longer while mail comes, and gives way to a compaction, which
//! writing past the journal would make void.

use std::io;
use std::time::Duration;

use super::control::{StopOnDrop, quietly};
use super::guard::work_time;
use crate::flow::sheets::{SheetError, make_sheet, next_gap};
use crate::store::Store;
use crate::store::check::CheckStop;

/// Wait after the start, and after the word that bodies have come: mail seldom comes alone.
const SETTLED_AFTER: Duration = Duration::from_mins(2);

/// Wait after giving way.
const AGAIN_AFTER: Duration = Duration::from_mins(10);

/// Wait after something failed that may be in order later, such as a full disk.
const FAILED: Duration = Duration::from_hours(1);

/// How long the thread rests for the time it has worked.
const REST: u32 = 3;

/// Longest rest.
const REST_MAX: Duration = Duration::from_secs(20);

/// Rest when mail has come meanwhile.
const MAIL_CAME: Duration = Duration::from_secs(2);

/// Makes the index.
#[derive(Clone, Debug)]
pub struct Gatherer {
    store: Store,
    rest: u32,
}

/// How a stretch of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// There is nothing left to do.
    Over,
    /// Something else goes first.
    GaveWay,
}

impl Gatherer {
    /// Works on this store.
    pub fn new(store: Store) -> Self {
        Self { store, rest: REST }
    }

    /// Works until dropped.
    pub async fn run(self) {
        let mut bodies = self.store.watch_bodies();
        let mut wait = SETTLED_AFTER;
        loop {
            tokio::time::sleep(wait).await;
            bodies.mark_unchanged();
            let stopping = StopOnDrop(CheckStop::default());
            let (work, stop) = (self.clone(), stopping.0.clone());
            wait = match quietly("gatherer", move || work.stretch(&stop)).await {
                Ok(Ok(Ended::Over)) => {
                    if bodies.changed().await.is_err() {
                        // The store is closed.
                        return;
                    }
                    SETTLED_AFTER
                }
                Ok(Ok(Ended::GaveWay)) => AGAIN_AFTER,
                Ok(Err(error)) | Err(error) => {
                    tracing::warn!(%error, "the search index can't be brought up to date now; searches read the mail");
                    FAILED
                }
            };
        }
    }

    /// Makes sheets while there is something to make them of. Blocks.
    fn stretch(&self, stop: &CheckStop) -> io::Result<Ended> {
        let failed = |error: SheetError| io::Error::other(error);
        let (mut begun, mut messages) = (work_time(), self.store.figures().messages);
        let mut go_on = || {
            if stop.is_stopped() || self.store.compaction().running {
                return false;
            }
            stop.sleep((work_time().saturating_sub(begun) * self.rest).min(REST_MAX));
            let now = self.store.figures().messages;
            if self.rest > 0 && now != messages {
                stop.sleep(MAIL_CAME);
            }
            (begun, messages) = (work_time(), now);
            !stop.is_stopped()
        };
        while go_on() {
            let Some(gap) = next_gap(&self.store).map_err(failed)? else { return Ok(Ended::Over) };
            if !make_sheet(&self.store, gap, &mut go_on).map_err(failed)? {
                break;
            }
        }
        Ok(Ended::GaveWay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::Address;
    use crate::mail::date::{Timestamp, ZonedTime};
    use crate::mail::message::FlagNames;
    use crate::mail::secret::{ScramVerifier, tests::password};
    use crate::mail::structure::Walker;
    use crate::store::{BODIES_STEP, Folder, NewMessage, Quota, StoreConfig};

    #[tokio::test]
    async fn it_works_when_told_of_many_bodies_and_neither_wakes_nor_writes_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &StoreConfig { reserve_bytes: 0, ..StoreConfig::default() }).unwrap();
        let verifier = ScramVerifier::derive(&password("pencil"), [1; 16], 2);
        let ann = Address::parse("ann@x.test").unwrap();
        let ann = store.add_account(ann, verifier, Quota::default()).await.unwrap();
        let bodies = store.watch_bodies();
        let deliver = |count: u64| {
            for number in 0..count {
                let letter = format!("Subject: {number}\r\n\r\nletter {number}\r\n");
                let (mut spool, mut walker) = (store.spool().unwrap(), Walker::new());
                spool.write(letter.as_bytes()).unwrap();
                walker.feed(letter.as_bytes());
                let message = NewMessage {
                    body: spool.finish().unwrap(),
                    structure: walker.finish(),
                    internal_date: ZonedTime::utc(Timestamp(9)),
                    flags: FlagNames::default(),
                };
                drop(store.deliver(message, vec![(ann, Folder::Inbox)]));
            }
        };
        let gatherer = Gatherer { store: store.clone(), rest: 0 };
        let settled = || {
            let store = store.clone();
            async move { store.settled().await.unwrap() }
        };
        deliver(BODIES_STEP - 2);
        settled().await;
        assert!(!bodies.has_changed().unwrap());
        let before = store.figures().index_written;
        assert_eq!(gatherer.stretch(&CheckStop::default()).unwrap(), Ended::Over);
        assert_eq!(store.figures().index_written, before);
        assert!(store.reader().unwrap().grams().unwrap().next_sheet(crate::store::BlobId(0)).unwrap().is_none());

        deliver(3);
        settled().await;
        assert!(bodies.has_changed().unwrap());
        let stopped = CheckStop::default();
        stopped.stop();
        assert_eq!(gatherer.stretch(&stopped).unwrap(), Ended::GaveWay);
        let work = gatherer.clone();
        let done = tokio::task::spawn_blocking(move || work.stretch(&CheckStop::default())).await.unwrap();
        assert_eq!(done.unwrap(), Ended::Over);
        let grams = store.reader().unwrap().grams().unwrap();
        let (_, head) = grams.next_sheet(crate::store::BlobId(0)).unwrap().unwrap();
        assert_eq!(head.unwrap().len() as u64, BODIES_STEP + 1);
        drop(grams);
        assert_eq!(gatherer.stretch(&CheckStop::default()).unwrap(), Ended::Over);
        store.close().unwrap();
    }
}
