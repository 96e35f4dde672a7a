//! Teaching the spam filter behind the connections' backs, and saving what it learnt.
//!
//! Lessons wait in a short queue for a thread of their own, which stands back; a client that moves
//! a message never waits for one. All that was learnt is saved together, an hour after somebody said
//! something or a day after mail was merely read: a save may write 1.5 MiB. A box on which nothing is
//! learnt neither wakes nor writes.

use std::time::Duration;

use tokio::select;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::control::quietly;
use crate::flow::judge::Filter;
use crate::flow::learn::Given;
use crate::mail::address::Address;
use crate::mail::mailbox::AccountId;
use crate::store::{ReadError, Store};

/// Lessons that wait; more are let go: the filter learns from the next ones.
const WAITING_MAX: usize = 64;

/// How long what somebody said waits to be saved.
const SAVE_SAID_AFTER: Duration = Duration::from_hours(1);

/// How long what mail that was read suggests waits, and whom somebody wrote to.
const SAVE_SUGGESTED_AFTER: Duration = Duration::from_hours(24);

/// Gives lessons.
#[derive(Clone, Debug)]
pub struct Teacher {
    lessons: mpsc::Sender<Lesson>,
    filter: Filter,
}

/// Takes them.
#[derive(Debug)]
pub struct Pupil {
    lessons: mpsc::Receiver<Lesson>,
    filter: Filter,
    store: Store,
}

#[derive(Debug)]
enum Lesson {
    /// What a reader did.
    Given(Given),
    /// To whom an account wrote.
    WroteTo(AccountId, Vec<Address>),
    /// Something was learnt already, and is to be saved.
    Learnt,
}

impl Teacher {
    /// A teacher and its pupil, which learns while [`Pupil::run`] does.
    #[must_use]
    pub fn new(store: Store, filter: Filter) -> (Self, Pupil) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self { lessons: sender, filter: filter.clone() }, Pupil { lessons: receiver, filter, store })
    }

    /// The filter.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Gives a lesson that a reader's doings were.
    pub fn give(&self, given: Given) {
        self.send(Lesson::Given(given));
    }

    /// Tells to whom an account wrote.
    pub fn wrote_to(&self, account: AccountId, addresses: Vec<Address>) {
        self.send(Lesson::WroteTo(account, addresses));
    }

    /// Has what the filter has learnt otherwise saved in time.
    pub fn learnt(&self) {
        self.send(Lesson::Learnt);
    }

    fn send(&self, lesson: Lesson) {
        // What was taught by hand counts where nothing is judged, too.
        let wanted = self.filter.config().enabled || matches!(lesson, Lesson::Learnt);
        if wanted && self.lessons.try_send(lesson).is_err() {
            tracing::info!("too many lessons for the spam filter at one time: one was let go");
        }
    }
}

impl Pupil {
    /// Learns until no teacher is left.
    pub async fn run(mut self) {
        let mut save_at = None;
        loop {
            select! {
                lesson = self.lessons.recv() => {
                    let Some(lesson) = lesson else { return };
                    let at = Instant::now() + lesson.patience();
                    let (filter, store) = (self.filter.clone(), self.store.clone());
                    match quietly("learn", move || lesson.teach(&store, &filter)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::warn!(%error, "the spam filter could not learn"),
                        Err(error) => tracing::warn!(%error, "the spam filter has no thread to learn"),
                    }
                    save_at = Some(save_at.map_or(at, |before: Instant| before.min(at)));
                }
                () = due(save_at) => {
                    let filter = self.filter.clone();
                    save_at = match quietly("learn", move || filter.save()).await {
                        Ok(Ok(())) => None,
                        failed => {
                            tracing::warn!(?failed, "what the spam filter has learnt was not saved; tried again in an hour");
                            Some(Instant::now() + SAVE_SAID_AFTER)
                        }
                    };
                }
            }
        }
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Lesson {
    /// How long what it teaches may wait to be saved.
    fn patience(&self) -> Duration {
        match self {
            Self::Given(given) if given.is_said() => SAVE_SAID_AFTER,
            Self::Learnt => SAVE_SAID_AFTER,
            Self::Given(_) | Self::WroteTo(..) => SAVE_SUGGESTED_AFTER,
        }
    }

    fn teach(&self, store: &Store, filter: &Filter) -> Result<(), ReadError> {
        match self {
            Self::Given(given) => given.teach(store, filter).map(drop),
            Self::WroteTo(account, addresses) => filter.wrote_to(*account, addresses),
            Self::Learnt => Ok(()),
        }
    }
}
