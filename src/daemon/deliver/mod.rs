//! The task that sends mail to others' servers.
//!
//! It sleeps until the next recipient is due or the queue changes: nothing polls. Then it surveys what
//! is due, opens a bounded number of connections, each a task of its own for one way, sends the
//! notifications that are owed, and sleeps again. A connection that waits long for its peer leaves its
//! place to another, so a slow destination never delays the others, and a way that failed rests.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::select;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::flow::relay::{Exit, Situation, Survey};
use crate::flow::sign::Signer;
use crate::mail::address::Domain;
use crate::mail::date::Timestamp;
use crate::mail::queue::{Answer, Due};
use crate::net::drive::Stop;
use crate::net::outgoing::TlsClient;
use crate::net::resolver::Resolver;
use crate::net::tls::TlsError;
use crate::queue::RelayConfig;
use crate::queue::outcome::Verdict;
use crate::queue::route::{Place, Way};

mod board; // what is known of the ways out
mod hand; //  the world behind a connection
mod line; //  one connection
mod reach; // servers, addresses, a dead network
pub mod safety; // how safe connections must be
mod tell; //  notifications

use super::fresh::now;
use board::Board;
use safety::Safety;

/// Shortest time between two surveys; many changes come together.
const PAUSE: Duration = Duration::from_millis(50);

/// A survey is this much shorter than the pause after it, so that the store has most of its time for
/// mail.
const PAUSE_FACTOR: u32 = 10;

/// Wait before the next survey where the store could not be read, and between surveys where more is due
/// than one sees.
const AGAIN: Duration = Duration::from_secs(1);

/// Longest sleep; a clock that is set meanwhile is noticed then at the latest, but only where mail waits.
const SLEEP_MAX: Duration = Duration::from_hours(6);

/// How long connections may take to end when the server stops.
const STOP_MAX: Duration = Duration::from_secs(9);

/// Destinations in trouble that `status` tells of.
const TROUBLES_MAX: usize = 8;

/// What others know of the task: its figures, and how to wake it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Deliverer {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    figures: Mutex<DeliverFigures>,
    forgive: AtomicBool,
    wake: Notify,
}

/// How mail goes out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct DeliverFigures {
    /// Recipients whose next server took the message, since start.
    pub delivered: u64,
    /// Attempts that ended in "later", since start.
    pub deferred: u64,
    /// Recipients that were refused, since start.
    pub refused: u64,
    /// Open connections to others' servers.
    pub connections: u32,
    /// Since when the network seems to be away, seconds since 1970.
    pub network_away_since: Option<i64>,
    /// Since when port 25 out seems blocked, seconds since 1970.
    pub port_blocked_since: Option<i64>,
    /// The relay that takes mail meanwhile.
    pub fallback: Option<String>,
    /// Destinations that do not answer, those with the most failures first.
    pub troubles: Vec<Trouble>,
}

/// A destination that does not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Trouble {
    /// Which.
    pub destination: String,
    /// Failures, one after the other.
    pub failures: u32,
    /// When it is tried again, seconds since 1970.
    pub next: i64,
    /// What the last failure was.
    pub why: String,
}

impl Deliverer {
    /// How mail goes out.
    #[must_use]
    pub fn figures(&self) -> DeliverFigures {
        self.lock().clone()
    }

    /// Has everything tried that is due, whatever failed before.
    pub fn forgive(&self) {
        self.shared.forgive.store(true, Ordering::Relaxed);
        self.shared.wake.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, DeliverFigures> {
        self.shared.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A relay as it is spoken to.
#[derive(Debug)]
struct Relay {
    place: Place,
    config: RelayConfig,
    tls: TlsClient,
}

/// What all connections share.
#[derive(Debug)]
struct Hub {
    exit: Exit,
    resolver: Resolver,
    tls: TlsClient,
    signer: Signer,
    relays: Vec<Relay>,
    stop: Stop,
    board: RefCell<Board>,
    safety: Safety,
    /// When a server answered last.
    heard: Cell<Option<Instant>>,
    wake: Notify,
    deliverer: Deliverer,
}

/// The task.
#[derive(Debug)]
pub struct Delivery {
    hub: Rc<Hub>,
}

impl Delivery {
    /// Sets up the task for a way out.
    ///
    /// # Errors
    /// A relay's file of authorities cannot be read.
    pub fn new(
        exit: Exit,
        relays: &[RelayConfig],
        resolver: Resolver,
        (tls, safety): (TlsClient, Safety),
        signer: Signer,
        stop: Stop,
        deliverer: Deliverer,
    ) -> Result<Self, TlsError> {
        let relay = |config: &RelayConfig| {
            let tls = match &config.authorities {
                Some(path) => TlsClient::new(Some(path))?,
                None => tls.clone(),
            };
            let place = Place::parse(&config.host, config.port());
            Ok(place.map(|place| Relay { place, config: config.clone(), tls }))
        };
        let relays = relays.iter().filter_map(|config| relay(config).transpose()).collect::<Result<_, TlsError>>()?;
        let board = RefCell::new(Board::new(now()));
        let (heard, wake) = (Cell::default(), Notify::new());
        let hub = Hub { exit, resolver, tls, signer, relays, stop, board, safety, heard, wake, deliverer };
        Ok(Self { hub: Rc::new(hub) })
    }

    /// Sends until the server stops. Then the connections end that can end well, which takes some
    /// seconds at most; what they leave undone is done at the next start.
    pub async fn run(self) {
        let hub = self.hub;
        let mut stop = hub.stop.clone();
        let mut lines = JoinSet::new();
        let mut telling: Option<tokio::task::JoinHandle<()>> = None;
        let mut cursor = None;
        let mut changes = hub.exit.store.watch_queue();
        loop {
            changes.mark_unchanged();
            let begun = Instant::now();
            if hub.deliverer.shared.forgive.swap(false, Ordering::Relaxed) {
                hub.board.borrow_mut().forgive(Instant::now());
            }
            let survey = hub.survey(&mut cursor).await;
            let mut next = None;
            if let Some(survey) = survey {
                next = hub.sleep_after(&survey);
                if !survey.owed.is_empty() && telling.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
                    let (hub, ids) = (Rc::clone(&hub), survey.owed.clone());
                    telling = Some(tokio::task::spawn_local(async move {
                        tell::owed(hub.exit.clone(), ids).await;
                        // What came to be owed meanwhile was left for the next.
                        hub.wake.notify_one();
                    }));
                }
                hub.set_aside(&survey).await;
                for (way, count) in survey.wanted {
                    let near = hub.is_near(&way);
                    let config = &hub.exit.config;
                    let opens = hub.board.borrow_mut().open(&way, count, near, config, Instant::now());
                    if opens {
                        lines.spawn_local(line::run(Rc::clone(&hub), way));
                    }
                }
            } else if !hub.stop.is_set() {
                next = Some(AGAIN);
            }
            hub.show();
            while lines.try_join_next().is_some() {}
            let pause = PAUSE.max(begun.elapsed() * PAUSE_FACTOR);
            select! {
                () = stop.wait() => break,
                () = tokio::time::sleep(pause) => {}
            }
            let sleep = async {
                match next {
                    Some(sleep) => tokio::time::sleep(sleep).await,
                    None => std::future::pending().await,
                }
            };
            select! {
                () = stop.wait() => break,
                woken = changes.changed() => if woken.is_err() { break },
                () = hub.wake.notified() => {}
                () = hub.deliverer.shared.wake.notified() => {}
                () = sleep => {}
            }
        }
        let ending = async { while lines.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_MAX, ending).await.is_err() {
            tracing::debug!("connections to other servers did not end in time");
        }
        hub.safety.save(true).await;
    }
}

impl Hub {
    /// Looks what is to be done.
    async fn survey(&self, cursor: &mut Option<Domain>) -> Option<Survey> {
        let (exit, situation, mut at) = (self.exit.clone(), self.situation(), cursor.take());
        let working = tokio::task::spawn_blocking(move || (exit.survey(&situation, &mut at), at));
        let (survey, at) = working.await.ok()?;
        *cursor = at;
        survey.inspect_err(|error| tracing::error!(%error, "the queue cannot be read")).ok()
    }

    /// How long to sleep after this survey, if nothing changes; `None`: for ever.
    fn sleep_after(&self, survey: &Survey) -> Option<Duration> {
        let now_ms = now_ms();
        let until = |due: Due| Duration::from_millis(due.0.saturating_sub(now_ms)).min(SLEEP_MAX);
        let due = survey.next.map(until);
        let board = self.board.borrow();
        // While the network is away what is due waits for it.
        let look = board.away().filter(|_| !survey.wanted.is_empty());
        let look = look.map(|(_, until)| until.saturating_duration_since(Instant::now()));
        let more = (survey.more && board.has_room(&self.exit.config)).then_some(AGAIN);
        // Who goes a way that rests is put off until then; should that fail, it is looked at again then.
        let resting = survey.resting.iter().filter_map(|(_, _, later)| later.stage.due()).map(until).min();
        [due, look, more, resting].into_iter().flatten().min()
    }

    /// Notes what the survey found that needs no connection: who goes a way that rests waits until then,
    /// and who has no way has failed once more.
    async fn set_aside(&self, survey: &Survey) {
        let pending: Vec<_> = survey
            .resting
            .iter()
            .map(|(id, number, later)| self.exit.store.update_queued(*id, vec![(*number, later.clone())]))
            .collect();
        for pending in pending {
            if let Err(error) = pending.await {
                tracing::debug!(%error, "a queued message was not put off");
            }
        }
        if survey.lost.is_empty() {
            return;
        }
        let (exit, lost, terms) = (self.exit.clone(), survey.lost.clone(), self.terms(Due(0)));
        let reading = tokio::task::spawn_blocking(move || exit.lose(&lost, &terms)).await;
        if let Ok(Ok(changed)) = reading {
            self.keep(changed).await;
        }
    }

    fn situation(&self) -> Situation {
        let (at, now_ms) = (Instant::now(), now_ms());
        let board = self.board.borrow();
        let until = |until: Instant| {
            let left = until.saturating_duration_since(at).as_millis();
            Due(now_ms.saturating_add(u64::try_from(left).unwrap_or(u64::MAX)))
        };
        let rests = board.resting(at).map(|(way, rest)| (way.clone(), until(rest.until))).collect();
        Situation { now: Due(now_ms), rests, blocked: board.is_blocked(at) }
    }

    fn situation_without_rests(&self) -> Situation {
        let blocked = self.board.borrow().is_blocked(Instant::now());
        Situation { now: Due(now_ms()), blocked, ..Situation::default() }
    }

    /// Counts what became of a recipient.
    fn count(&self, verdict: &Verdict) {
        let mut figures = self.deliverer.lock();
        let count = match verdict {
            Verdict::Taken { .. } => &mut figures.delivered,
            Verdict::Deferred(_) => &mut figures.deferred,
            Verdict::Refused(_) => &mut figures.refused,
        };
        *count += 1;
    }

    /// A way as people know it.
    fn name_of(&self, way: &Way) -> String {
        match way {
            Way::Direct(domain) => domain.to_string(),
            Way::Place(place) => place.to_string(),
            Way::Relay(number) => self.relays.get(*number).map_or_else(String::new, |relay| relay.place.to_string()),
        }
    }

    fn network_is_there(&self) {
        self.heard.set(Some(Instant::now()));
        if self.board.borrow_mut().heard(now()) {
            tracing::info!("the network is back");
            self.wake.notify_one();
        }
    }

    fn network_is_away(&self) {
        if self.board.borrow_mut().network_is_away(now(), Instant::now()) {
            tracing::warn!("the network seems to be away: mail for other servers waits for it");
        }
    }

    fn port_is_open(&self) {
        let mut board = self.board.borrow_mut();
        if board.blocked_since().is_some() {
            tracing::info!("other domains' servers are within reach again");
        }
        board.port_is_open();
    }

    fn port_is_silent(&self, domain: &Domain) {
        let silent = self.board.borrow_mut().port_is_silent(domain, now(), Instant::now());
        if silent {
            let port = self.exit.config.port;
            if let Some(relay) = self.fallback() {
                tracing::warn!(port, relay, "the port out seems blocked: mail goes by the relay meanwhile");
            } else {
                let advice = "ask your provider to open it, or name its relay with [[relay]]";
                tracing::warn!(port, advice, "the port out seems blocked");
            }
        }
    }

    /// The relay that waits for the port to be blocked.
    fn fallback(&self) -> Option<String> {
        let relay = self.relays.iter().find(|relay| relay.config.fallback)?;
        Some(relay.place.to_string())
    }

    /// Shows the figures to others.
    fn show(&self) {
        let board = self.board.borrow();
        let at = Instant::now();
        let mut troubles: Vec<_> = board
            .resting(at)
            .map(|(way, rest)| {
                let left = i64::try_from(rest.until.saturating_duration_since(at).as_secs()).unwrap_or(i64::MAX);
                let why = told(&rest.why);
                Trouble {
                    destination: self.name_of(way),
                    failures: rest.failures,
                    next: now().0.saturating_add(left),
                    why,
                }
            })
            .collect();
        troubles.sort_by(|one, other| (other.failures, &one.destination).cmp(&(one.failures, &other.destination)));
        troubles.truncate(TROUBLES_MAX);
        let mut figures = self.deliverer.lock();
        figures.connections = board.connections();
        figures.network_away_since = board.away().map(|(since, _)| since.0);
        figures.port_blocked_since = board.blocked_since().map(|Timestamp(since)| since);
        figures.fallback = figures.port_blocked_since.and_then(|_| self.fallback());
        figures.troubles = troubles;
    }
}

/// An answer in one line.
fn told(answer: &Answer) -> String {
    if answer.from().is_empty() {
        answer.text().to_owned()
    } else {
        format!("{} said: {}", answer.from(), answer.text())
    }
}

/// The time of day in milliseconds, as far as it is known.
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
