//! What an attempt makes of a recipient's state, and whether its sender is to hear of it.
//!
//! A refusal for good ends the attempts, one for now leads up the retry ladder until its end, and
//! who was asked for a notification (RFC 3461) gets one: never the null sender, which stands for
//! notifications themselves.

use crate::mail::date::Timestamp;
use crate::mail::envelope::Notify;
use crate::mail::queue::{Answer, Delivery, Due, Stage};

use super::{QueueConfig, schedule};

/// How an attempt ended for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next server has the message.
    Taken {
        /// What it said.
        answer: Answer,
        /// It was told of the sender's wish for notifications and will fulfil it (RFC 3461 section 5.2.1).
        reports: bool,
    },
    /// Not now.
    Deferred(Answer),
    /// Never.
    Refused(Answer),
}

/// What else decides.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The settings.
    pub config: &'a QueueConfig,
    /// When the message came in.
    pub accepted: Timestamp,
    /// When the attempt ended.
    pub now: Timestamp,
    /// Since when the network has been there.
    pub up_since: Timestamp,
    /// Any number, evenly spread.
    pub chance: u32,
    /// The destination is tried no sooner.
    pub not_before: Due,
    /// The message has a sender who can be told.
    pub has_sender: bool,
}

/// What became of a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// The new state.
    pub delivery: Delivery,
    /// The sender is to be told of the delay; the state that is kept with that has `delay_told`.
    pub warn: bool,
}

/// Failures are told unless NOTIFY says otherwise (RFC 3461 section 4.1).
pub fn wants_failure(notify: Notify) -> bool {
    !notify.given || notify.failure
}

/// So are delays.
pub fn wants_delay(notify: Notify) -> bool {
    !notify.given || notify.delay
}

/// Success is told when it was asked for.
pub fn wants_success(notify: Notify) -> bool {
    notify.given && notify.success
}

/// The state after an attempt.
pub fn after(before: &Delivery, notify: Notify, verdict: Verdict, terms: &Terms<'_>) -> After {
    let Terms { config, accepted, now, up_since, chance, not_before, has_sender } = *terms;
    let owed = |wanted: bool| Some(Due::from(now)).filter(|_| has_sender && wanted);
    let lapsed_secs = schedule::lapsed_secs(before, accepted, now, up_since, config);
    let attempts = before.attempts.saturating_add(1);
    let mut warn = false;
    let (stage, answer) = match verdict {
        Verdict::Taken { answer, reports } => (Stage::Delivered(owed(wants_success(notify) && !reports)), answer),
        Verdict::Refused(answer) => (Stage::Failed(owed(wants_failure(notify))), answer),
        Verdict::Deferred(answer) if schedule::is_over(lapsed_secs, config) => {
            (Stage::Failed(owed(wants_failure(notify))), answer)
        }
        Verdict::Deferred(answer) => {
            warn = has_sender && wants_delay(notify) && !before.delay_told && schedule::is_late(lapsed_secs, config);
            let due = Due(Due::from(now).0.saturating_add(schedule::wait_ms(config, attempts, chance)));
            (Stage::Waiting(due.max(not_before)), answer)
        }
    };
    let answer = Some(answer);
    let delivery = Delivery { stage, attempts, tried: Some(now), lapsed_secs, delay_told: before.delay_told, answer };
    After { delivery, warn }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Notify = Notify { given: true, success: false, failure: false, delay: false };
    const SUCCESS: Notify = Notify { given: true, success: true, failure: false, delay: false };

    fn said(text: &str) -> Answer {
        Answer::new("mx.test", text)
    }

    fn terms(config: &QueueConfig, now: i64) -> Terms<'_> {
        Terms {
            config,
            accepted: Timestamp(0),
            now: Timestamp(now),
            up_since: Timestamp(0),
            chance: 1 << 31,
            not_before: Due(0),
            has_sender: true,
        }
    }

    fn fresh() -> Delivery {
        Delivery::waiting(Due(0))
    }

    #[test]
    fn success_is_told_when_asked_for_and_nobody_else_will() {
        let config = QueueConfig::default();
        let taken = |notify, reports, terms: &Terms<'_>| {
            after(&fresh(), notify, Verdict::Taken { answer: said("250 2.0.0 ok"), reports }, terms).delivery.stage
        };
        let terms = terms(&config, 5);
        assert_eq!(taken(Notify::default(), false, &terms), Stage::Delivered(None));
        assert_eq!(taken(SUCCESS, true, &terms), Stage::Delivered(None));
        assert_eq!(taken(SUCCESS, false, &terms), Stage::Delivered(Some(Due(5000))));
        assert_eq!(taken(SUCCESS, false, &Terms { has_sender: false, ..terms }), Stage::Delivered(None));
    }

    #[test]
    fn a_failure_is_told_unless_nobody_wants_to_hear_it() {
        let config = QueueConfig::default();
        let refused = |notify, has_sender| {
            let terms = Terms { has_sender, ..terms(&config, 5) };
            after(&fresh(), notify, Verdict::Refused(said("550 5.1.1 no")), &terms).delivery
        };
        assert_eq!(refused(Notify::default(), true).stage, Stage::Failed(Some(Due(5000))));
        assert_eq!(refused(NEVER, true).stage, Stage::Failed(None));
        assert_eq!(refused(Notify::default(), false).stage, Stage::Failed(None), "the null sender");
        assert_eq!(refused(NEVER, true).answer, Some(said("550 5.1.1 no")));
    }

    #[test]
    fn a_deferral_waits_warns_once_and_ends_in_failure() {
        let config = QueueConfig::default();
        let deferred = |before: &Delivery, notify, now| {
            after(before, notify, Verdict::Deferred(said("450 4.2.0 later")), &terms(&config, now))
        };
        let first = deferred(&fresh(), Notify::default(), 5);
        assert!(!first.warn);
        assert_eq!((first.delivery.stage, first.delivery.attempts), (Stage::Waiting(Due(305_000)), 1));
        let late = Delivery { lapsed_secs: 4 * 3600, tried: Some(Timestamp(20_000)), ..first.delivery };
        assert!(deferred(&late, Notify::default(), 20_600).warn);
        assert!(!deferred(&late, NEVER, 20_600).warn);
        assert!(!deferred(&Delivery { delay_told: true, ..late.clone() }, Notify::default(), 20_600).warn);
        let last = Delivery { lapsed_secs: 5 * 86_400 - 10, ..late };
        let over = deferred(&last, Notify::default(), 20_600);
        assert_eq!(over.delivery.stage, Stage::Failed(Some(Due(20_600_000))));
        assert!(!over.warn);
    }

    #[test]
    fn a_destination_that_rests_is_not_disturbed_before_its_time() {
        let config = QueueConfig::default();
        let terms = Terms { not_before: Due(9_000_000), ..terms(&config, 5) };
        let next = after(&fresh(), NEVER, Verdict::Deferred(said("450 later")), &terms);
        assert_eq!(next.delivery.stage, Stage::Waiting(Due(9_000_000)));
    }
}
