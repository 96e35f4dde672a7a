//! What is known of the ways out from one attempt to the next: who is connected where, which way rests
//! after a failure, whether the network is there, whether port 25 is open.
//!
//! All of it is in memory and has a bound. A restart forgets it, and the next attempts find it out
//! again; what a message must not forget stands in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::mail::address::Domain;
use crate::mail::date::Timestamp;
use crate::mail::queue::Answer;
use crate::queue::route::Way;
use crate::queue::{QueueConfig, schedule};

/// Ways that are remembered as resting.
const RESTS_MAX: usize = 4096;

/// A way is remembered this much longer than it rests, so that its next failure is known to be one
/// more.
const REMEMBERED: Duration = Duration::from_hours(12);

/// Connections that wait long for their peer: so many for each one that does not.
const SLOW_FOR_EACH: u16 = 4;

/// Mail that is seen waiting for a way, for each connection that is opened there.
const MAIL_FOR_EACH: usize = 5;

/// Domains whose servers must be out of reach at port 25, and none within, before it is called blocked.
const BLOCKED_BY: usize = 3;

/// How long the other way is taken before port 25 is tried again.
const BLOCKED_FOR: Duration = Duration::from_hours(6);

/// First and longest wait before the network is looked for again.
const NETWORK_WAIT: Duration = Duration::from_secs(15);
const NETWORK_WAIT_MAX: Duration = Duration::from_mins(2);

/// The ways out.
#[derive(Debug)]
pub(super) struct Board {
    lines: BTreeMap<Way, u16>,
    brisk: u16,
    slow: u16,
    rests: BTreeMap<Way, Rest>,
    network: Network,
    port: Port,
}

/// A way that is left alone after a failure.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    /// Until when.
    pub(super) until: Instant,
    /// Failures, one after the other.
    pub(super) failures: u32,
    /// What the last one was.
    pub(super) why: Answer,
}

#[derive(Debug)]
struct Network {
    /// Since when it has been there, as far as is known.
    up_since: Timestamp,
    away: Option<Away>,
}

#[derive(Debug)]
struct Away {
    since: Timestamp,
    until: Instant,
    wait: Duration,
}

#[derive(Debug, Default)]
struct Port {
    /// Domains out of reach since a connection succeeded last.
    failed: BTreeSet<Domain>,
    blocked: Option<(Timestamp, Instant)>,
}

/// How a connection counts against the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Among the few that work.
    Brisk,
    /// Among the many that wait for their peer.
    Slow,
}

impl Board {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            lines: BTreeMap::new(),
            brisk: 0,
            slow: 0,
            rests: BTreeMap::new(),
            network: Network { up_since: now, away: None },
            port: Port::default(),
        }
    }

    /// Tells whether a connection may be opened this way, where `waiting` messages were seen, and counts
    /// it. `near`: it needs no outside world.
    pub(super) fn open(&mut self, way: &Way, waiting: usize, near: bool, config: &QueueConfig, at: Instant) -> bool {
        let open = self.lines.get(way).copied().unwrap_or(0);
        let most = config.connections_per_destination_max.max(1);
        let wanted = open == 0 || waiting >= MAIL_FOR_EACH;
        if open >= most || !wanted || !self.has_room(config) {
            return false;
        }
        if let Some(away) = self.network.away.as_mut().filter(|_| !near) {
            // One tries whether it is back.
            if away.until > at {
                return false;
            }
            away.wait = (away.wait * 2).min(NETWORK_WAIT_MAX);
            away.until = at + away.wait;
        }
        *self.lines.entry(way.clone()).or_default() += 1;
        self.brisk += 1;
        true
    }

    /// Tells whether any connection may be opened.
    pub(super) fn has_room(&self, config: &QueueConfig) -> bool {
        self.brisk < config.connections_max.max(1)
    }

    /// Counts a connection among those that wait, if there is room.
    pub(super) fn slow_down(&mut self, config: &QueueConfig) -> Pace {
        if self.slow >= config.connections_max.max(1).saturating_mul(SLOW_FOR_EACH) {
            return Pace::Brisk;
        }
        self.brisk = self.brisk.saturating_sub(1);
        self.slow += 1;
        Pace::Slow
    }

    /// A connection has ended.
    pub(super) fn close(&mut self, way: &Way, pace: Pace) {
        match pace {
            Pace::Brisk => self.brisk = self.brisk.saturating_sub(1),
            Pace::Slow => self.slow = self.slow.saturating_sub(1),
        }
        if let Some(open) = self.lines.get_mut(way) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                self.lines.remove(way);
            }
        }
    }

    /// Open connections.
    pub(super) fn connections(&self) -> u32 {
        u32::from(self.brisk) + u32::from(self.slow)
    }

    /// The way works.
    pub(super) fn succeeded(&mut self, way: &Way) {
        self.rests.remove(way);
    }

    /// The way does not work; tells how long it is left alone.
    pub(super) fn failed(
        &mut self,
        way: &Way,
        why: Answer,
        chance: u32,
        config: &QueueConfig,
        now: Instant,
    ) -> Duration {
        let before = self.rests.get(way).map_or(0, |rest| rest.failures);
        let failures = before.saturating_add(1);
        let wait = Duration::from_millis(schedule::wait_ms(config, failures, chance));
        self.rests.retain(|_, rest| rest.until + REMEMBERED > now);
        if self.rests.len() >= RESTS_MAX
            && let Some(soonest) = self.rests.iter().min_by_key(|(_, rest)| rest.until).map(|(way, _)| way.clone())
        {
            self.rests.remove(&soonest);
        }
        self.rests.insert(way.clone(), Rest { until: now + wait, failures, why });
        wait
    }

    /// Ways that are left alone, and for how long yet.
    pub(super) fn resting(&self, now: Instant) -> impl Iterator<Item = (&Way, &Rest)> {
        self.rests.iter().filter(move |(_, rest)| rest.until > now)
    }

    /// Something answered: the network is there. Tells whether it was away.
    pub(super) fn heard(&mut self, now: Timestamp) -> bool {
        let back = self.network.away.take().is_some();
        if back {
            self.network.up_since = now;
        }
        back
    }

    /// The network is away. Tells whether that is new.
    pub(super) fn network_is_away(&mut self, now: Timestamp, at: Instant) -> bool {
        if self.network.away.is_some() {
            return false;
        }
        self.network.away = Some(Away { since: now, until: at + NETWORK_WAIT, wait: NETWORK_WAIT });
        true
    }

    /// Since when the network has been away, and when it is looked for again.
    pub(super) fn away(&self) -> Option<(Timestamp, Instant)> {
        self.network.away.as_ref().map(|away| (away.since, away.until))
    }

    /// Since when the network has been there.
    pub(super) fn up_since(&self) -> Timestamp {
        self.network.up_since
    }

    /// A domain's server was reached at port 25.
    pub(super) fn port_is_open(&mut self) {
        self.port = Port::default();
    }

    /// None of a domain's servers was within reach at port 25. Tells whether it is called blocked now.
    pub(super) fn port_is_silent(&mut self, domain: &Domain, now: Timestamp, at: Instant) -> bool {
        if self.port.failed.len() < BLOCKED_BY {
            self.port.failed.insert(domain.clone());
        }
        let is_new = self.port.failed.len() >= BLOCKED_BY && !self.is_blocked(at);
        if is_new {
            let since = self.port.blocked.map_or(now, |(since, _)| since);
            self.port.blocked = Some((since, at + BLOCKED_FOR));
        }
        is_new
    }

    /// Tells whether port 25 out seems blocked, and is not to be tried now.
    pub(super) fn is_blocked(&self, at: Instant) -> bool {
        self.port.blocked.is_some_and(|(_, until)| until > at)
    }

    /// Since when port 25 out seems blocked.
    pub(super) fn blocked_since(&self) -> Option<Timestamp> {
        self.port.blocked.map(|(since, _)| since)
    }

    /// Forgets every failure: the operator wants everything tried.
    pub(super) fn forgive(&mut self, at: Instant) {
        self.rests.clear();
        self.port = Port::default();
        if let Some(away) = &mut self.network.away {
            away.until = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(name: &str) -> Way {
        Way::Direct(Domain::parse(name).unwrap())
    }

    fn answer() -> Answer {
        Answer::new("", "4.4.1 no")
    }

    fn board() -> (Board, QueueConfig) {
        let config = QueueConfig { connections_max: 2, ..QueueConfig::default() };
        (Board::new(Timestamp(1)), config)
    }

    const HALF: u32 = 1 << 31;

    #[test]
    fn connections_have_a_bound_in_all_and_for_each_way() {
        let ((mut board, config), at) = (board(), Instant::now());
        assert!(board.open(&way("a.test"), 1, false, &config, at));
        assert!(!board.open(&way("a.test"), 4, false, &config, at), "one does for a few");
        assert!(board.open(&way("a.test"), 9, false, &config, at));
        assert!(!board.open(&way("b.test"), 9, false, &config, at), "two in all");
        board.close(&way("a.test"), Pace::Brisk);
        assert!(board.open(&way("b.test"), 1, false, &config, at));
        assert_eq!(board.connections(), 2);
    }

    #[test]
    fn who_waits_for_a_slow_peer_makes_room_up_to_a_bound() {
        let ((mut board, config), at) = (board(), Instant::now());
        for number in 0..8 {
            assert!(board.open(&way(&format!("{number}.test")), 1, false, &config, at));
            assert_eq!(board.slow_down(&config), Pace::Slow);
        }
        assert!(board.open(&way("x.test"), 1, false, &config, at));
        assert_eq!(board.slow_down(&config), Pace::Brisk);
        assert_eq!(board.connections(), 9);
        board.close(&way("0.test"), Pace::Slow);
        assert_eq!((board.slow, board.brisk), (7, 1));
    }

    #[test]
    fn a_way_rests_longer_with_every_failure() {
        let ((mut board, config), at) = (board(), Instant::now());
        let fails = |board: &mut Board, name: &str| board.failed(&way(name), answer(), HALF, &config, at).as_secs();
        assert_eq!((fails(&mut board, "a.test"), fails(&mut board, "a.test")), (300, 600));
        assert_eq!(board.resting(at).count(), 1);
        let later = at + Duration::from_secs(601);
        assert_eq!(board.resting(later).count(), 0);
        assert_eq!(fails(&mut board, "a.test"), 1200);
        board.succeeded(&way("a.test"));
        assert_eq!(fails(&mut board, "a.test"), 300);
        for number in 0..RESTS_MAX + 10 {
            fails(&mut board, &format!("{number}.test"));
        }
        assert_eq!(board.rests.len(), RESTS_MAX);
    }

    #[test]
    fn while_the_network_is_away_one_at_a_time_looks_for_it() {
        let ((mut board, config), at) = (board(), Instant::now());
        assert!(board.network_is_away(Timestamp(10), at) && !board.network_is_away(Timestamp(11), at));
        assert!(!board.open(&way("a.test"), 1, false, &config, at));
        assert!(board.open(&way("near.test"), 1, true, &config, at));
        let later = at + Duration::from_secs(16);
        assert!(board.open(&way("a.test"), 1, false, &config, later));
        board.close(&way("a.test"), Pace::Brisk);
        assert!(!board.open(&way("b.test"), 1, false, &config, later));
        assert!(board.heard(Timestamp(70)) && !board.heard(Timestamp(71)));
        assert_eq!((board.up_since(), board.away()), (Timestamp(70), None));
        assert!(board.open(&way("b.test"), 1, false, &config, later));
    }

    #[test]
    fn port_25_is_blocked_when_several_domains_are_silent_and_none_answers() {
        let ((mut board, _), at) = (board(), Instant::now());
        let domain = |name: &str| Domain::parse(name).unwrap();
        for _ in 0..5 {
            assert!(!board.port_is_silent(&domain("a.test"), Timestamp(5), at));
        }
        assert!(!board.port_is_silent(&domain("b.test"), Timestamp(6), at));
        assert!(board.port_is_silent(&domain("c.test"), Timestamp(7), at));
        assert!(board.is_blocked(at) && board.blocked_since() == Some(Timestamp(7)));
        let later = at + BLOCKED_FOR;
        assert!(!board.is_blocked(later));
        assert!(board.port_is_silent(&domain("d.test"), Timestamp(8), later), "one more is enough now");
        assert_eq!(board.blocked_since(), Some(Timestamp(7)));
        board.port_is_open();
        assert!(!board.is_blocked(later) && board.blocked_since().is_none());
    }
}
