//! Reports to other domains, one a day: how TLS went with them (RFC 8460), and what came in their names (DMARC,
//! RFC 7489 section 7.2, RFC 9990).
//!
//! A [`Ledger`] counts for the day (UTC) it is. When something is counted on another day the one before is closed, so
//! nothing wakes for it; what is closed waits until each of its domains was told, or is pushed out by newer days.
//! [`letter`] spells the message that carries a report.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::filter::sender;
use crate::mail::authentication::Published;
use crate::mail::date::{Period, Timestamp};
use crate::queue::tls_report;
use crate::queue::tls_report::{Applied, Failure};

pub mod letter; // the message that carries a report

/// Periods that wait for their reports to be sent; of more the oldest goes.
pub const CLOSED_MAX: usize = 3;

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Mail that came in the domain's name.
    Dmarc,
    /// Connections to the domain's servers.
    Tls,
}

/// A report that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Owed {
    /// What it is about.
    pub kind: Kind,
    /// The domain that it is for.
    pub domain: String,
    /// What time it is about.
    pub period: Period,
    /// Messages or connections that it tells of.
    pub count: u64,
}

/// What was counted in a period.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Counted {
    period: Period,
    tls: tls_report::Tally,
    dmarc: sender::Tally,
}

/// What is counted for reports, and what waits to be told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Ledger {
    /// The day that it is, or what is left of it since reports were last sent.
    present: Counted,
    /// The oldest first.
    closed: VecDeque<Counted>,
}

impl Ledger {
    /// Counts a session with a domain's server.
    pub fn session(
        &mut self,
        (domain, host): (&str, &str),
        applied: &Applied,
        failure: Option<Failure>,
        now: Timestamp,
    ) {
        self.turn(now);
        self.present.tls.count(domain, host, applied, failure);
    }

    /// Counts a message that came in a domain's name.
    pub fn message(&mut self, published: &Published, row: sender::Row, now: Timestamp) {
        self.turn(now);
        self.present.dmarc.count(published, row);
    }

    /// Begins the day that `now` is in, if it has not begun, and closes the one before. A clock that was set back
    /// does not tell of days to come: what was counted on one is forgotten.
    pub fn turn(&mut self, now: Timestamp) {
        let (day, before) = (Period::day_of(now), Period::day_of(self.present.period.begin));
        if day == before {
            return;
        }
        let past = std::mem::replace(&mut self.present, Counted { period: day, ..Counted::default() });
        if before.begin < day.begin {
            self.close(past);
        }
    }

    /// Closes what was counted on this day so far, so that it is told of now.
    pub fn cut(&mut self, now: Timestamp) {
        self.turn(now);
        if self.present.is_empty() {
            return;
        }
        let Period { begin, end } = self.present.period;
        let last = now.max(begin);
        let next = Period { begin: Timestamp(last.0.saturating_add(1)).min(end), end };
        let past = std::mem::replace(&mut self.present, Counted { period: next, ..Counted::default() });
        self.close(Counted { period: Period { begin, end: last }, ..past });
    }

    fn close(&mut self, counted: Counted) {
        if counted.is_empty() {
            return;
        }
        if self.closed.len() >= CLOSED_MAX {
            self.closed.pop_front();
        }
        self.closed.push_back(counted);
    }

    /// Tells whether reports are to be sent.
    pub fn is_owing(&self) -> bool {
        !self.closed.is_empty()
    }

    /// The reports that are to be sent, the oldest first.
    pub fn owed(&self) -> Vec<Owed> {
        self.closed.iter().flat_map(Counted::owed).collect()
    }

    /// What reports will tell of when the day is over.
    pub fn growing(&self) -> Vec<Owed> {
        self.present.owed().collect()
    }

    /// The report for a domain, as JSON or XML: `ours` and `contact` say whose it is, and its name is `id`.
    pub fn report(&self, owed: &Owed, words: (&str, &str, &str)) -> Option<String> {
        let counted = self.closed.iter().find(|counted| counted.period == owed.period)?;
        match owed.kind {
            Kind::Tls => counted.tls.report(&owed.domain, words, owed.period),
            Kind::Dmarc => counted.dmarc.report(&owed.domain, words, owed.period),
        }
    }

    /// What a domain published about DMARC, for a report that is to be sent.
    pub fn published(&self, owed: &Owed) -> Option<Published> {
        let counted = self.closed.iter().find(|counted| counted.period == owed.period)?;
        counted.dmarc.published(&owed.domain).cloned()
    }

    /// A report was sent, or nobody wants it.
    pub fn settle(&mut self, owed: &Owed) {
        if let Some(counted) = self.closed.iter_mut().find(|counted| counted.period == owed.period) {
            match owed.kind {
                Kind::Tls => counted.tls.forget(&owed.domain),
                Kind::Dmarc => counted.dmarc.forget(&owed.domain),
            }
        }
        self.closed.retain(|counted| !counted.is_empty());
    }
}

impl Counted {
    fn is_empty(&self) -> bool {
        self.tls.is_empty() && self.dmarc.is_empty()
    }

    fn owed(&self) -> impl Iterator<Item = Owed> {
        let tls = self.tls.domains().map(|told| (Kind::Tls, told));
        let all = self.dmarc.domains().map(|told| (Kind::Dmarc, told)).chain(tls);
        all.map(|(kind, (domain, count))| Owed { kind, domain: domain.to_owned(), period: self.period, count })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;
    const NOON: Timestamp = Timestamp(20_000 * DAY + DAY / 2);

    fn later(days: i64) -> Timestamp {
        Timestamp(NOON.0 + days * DAY)
    }

    fn count(ledger: &mut Ledger, domain: &str, now: Timestamp) {
        ledger.session((domain, "mx"), &Applied::none(), None, now);
    }

    #[test]
    fn a_day_is_over_when_something_is_counted_on_the_next() {
        let mut ledger = Ledger::default();
        count(&mut ledger, "a.test", NOON);
        count(&mut ledger, "a.test", Timestamp(NOON.0 + 60));
        assert!(!ledger.is_owing());
        assert_eq!(ledger.growing()[0].count, 2);
        count(&mut ledger, "b.test", later(2));
        let period = Period::day_of(NOON);
        let owed = Owed { kind: Kind::Tls, domain: "a.test".to_owned(), period, count: 2 };
        assert_eq!(ledger.owed(), std::slice::from_ref(&owed));
        let report = ledger.report(&owed, ("box.test", "tls@box.test", "1")).unwrap();
        assert!(report.contains("a.test") && report.contains("T23:59:59Z"), "{report}");
        let kept: Ledger = serde_json::from_slice(&serde_json::to_vec(&ledger).unwrap()).unwrap();
        assert_eq!(kept, ledger);
        ledger.settle(&owed);
        assert!(!ledger.is_owing() && ledger.report(&owed, ("", "", "")).is_none());
    }

    #[test]
    fn a_clock_that_is_set_back_tells_nothing_of_days_to_come() {
        let mut ledger = Ledger::default();
        count(&mut ledger, "a.test", NOON);
        count(&mut ledger, "b.test", later(-3));
        assert!(!ledger.is_owing());
        count(&mut ledger, "c.test", NOON);
        assert_eq!(ledger.owed()[0].domain, "b.test");
    }

    #[test]
    fn the_day_so_far_can_be_told_of_and_the_rest_of_it_later() {
        let mut ledger = Ledger::default();
        ledger.cut(NOON);
        assert!(!ledger.is_owing(), "nothing was counted");
        count(&mut ledger, "a.test", NOON);
        ledger.cut(NOON);
        count(&mut ledger, "a.test", Timestamp(NOON.0 + 9));
        count(&mut ledger, "a.test", later(1));
        let owed = ledger.owed();
        assert_eq!(owed[0].period.end, NOON);
        assert_eq!(owed[1].period, Period { begin: Timestamp(NOON.0 + 1), end: Period::day_of(NOON).end });
    }

    #[test]
    fn what_cannot_be_told_makes_room_in_the_end() {
        let mut ledger = Ledger::default();
        for day in 0..10 {
            count(&mut ledger, &format!("d{day}.test"), later(day));
        }
        let owed: Vec<_> = ledger.owed().into_iter().map(|owed| owed.domain).collect();
        assert_eq!(owed, ["d6.test", "d7.test", "d8.test"]);
    }
}
