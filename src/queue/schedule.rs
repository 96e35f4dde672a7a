//! The retry ladder (RFC 5321 section 4.5.4.1).
//!
//! Waits double from the shortest to the longest, each a little shorter or longer by chance, so that
//! what failed together is not tried together for ever. What counts towards giving up is time in which
//! the network was there: a box that is switched off or cut off for weeks gives nothing up for it.

use crate::mail::date::Timestamp;
use crate::mail::queue::{Delivery, Due};

use super::QueueConfig;

/// A wait is at most this part of itself shorter or longer.
const JITTER_PART: u64 = 8;

/// How long to wait after so many attempts, in milliseconds. `chance` is any number; over many calls
/// it should be evenly spread.
pub fn wait_ms(config: &QueueConfig, attempts: u32, chance: u32) -> u64 {
    let doublings = attempts.saturating_sub(1).min(31);
    let longest = u64::from(config.retry_max_secs.max(1));
    let secs = (u64::from(config.retry_min_secs.max(1)) << doublings).min(longest);
    let wait = secs * 1000;
    let part = wait / JITTER_PART;
    wait - part + ((2 * part * u64::from(chance)) >> 32)
}

/// The longest wait that [`wait_ms`] ever gives, in milliseconds.
pub fn wait_max_ms(config: &QueueConfig) -> u64 {
    let longest = u64::from(config.retry_max_secs.max(config.retry_min_secs).max(1)) * 1000;
    longest + longest / JITTER_PART
}

/// The seconds that count towards giving up after an attempt at `now`: those before, and those since
/// the last attempt in which the network was there, as far as is known since `up_since`. No gap counts
/// for more than a wait: what was longer, the box was off or the clock was wrong.
pub fn lapsed_secs(
    delivery: &Delivery,
    accepted: Timestamp,
    now: Timestamp,
    up_since: Timestamp,
    config: &QueueConfig,
) -> u32 {
    let since = delivery.tried.unwrap_or(accepted).max(up_since);
    let gap = u64::try_from(now.0.saturating_sub(since.0)).unwrap_or(0).min(wait_max_ms(config) / 1000);
    delivery.lapsed_secs.saturating_add(u32::try_from(gap).unwrap_or(u32::MAX))
}

/// Tells whether it is time to tell the sender that it failed.
pub fn is_over(lapsed_secs: u32, config: &QueueConfig) -> bool {
    lapsed_secs >= config.give_up_secs
}

/// Tells whether it is time to tell the sender that it takes long.
pub fn is_late(lapsed_secs: u32, config: &QueueConfig) -> bool {
    config.warn_after_secs > 0 && lapsed_secs >= config.warn_after_secs
}

/// Up to when something is due at `now`, given what comes first. A clock that was set back (a Pi knows
/// no time when it starts) would leave everything lying for as long as it had run ahead: what is due
/// further on than any wait reaches was put there by another clock, and is due.
pub fn due_up_to(now: Due, first: Option<Due>, config: &QueueConfig) -> Due {
    let furthest = now.0.saturating_add(2 * wait_max_ms(config));
    first.filter(|first| first.0 > furthest).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::queue::Stage;
    use proptest::prelude::*;

    const HALF: u32 = 1 << 31;

    fn at(secs: i64) -> Timestamp {
        Timestamp(secs)
    }

    /// Plays a message through time: it is due, and tried when the network is there. Tells the attempts
    /// and when it was given up.
    fn play(up: impl Fn(i64) -> bool, until: i64) -> (u32, Option<i64>) {
        let config = QueueConfig::default();
        let mut delivery = Delivery::waiting(Due(0));
        let (mut now, mut up_since) = (0, None);
        while now < until {
            // The network comes and goes by the minute.
            up_since = if up(now) { up_since.or(Some(now)) } else { None };
            let Stage::Waiting(due) = delivery.stage else { unreachable!() };
            if let Some(since) = up_since.filter(|_| due <= Due::from(at(now))) {
                delivery.lapsed_secs = lapsed_secs(&delivery, at(0), at(now), at(since), &config);
                delivery.attempts += 1;
                delivery.tried = Some(at(now));
                if is_over(delivery.lapsed_secs, &config) {
                    return (delivery.attempts, Some(now));
                }
                let wait = wait_ms(&config, delivery.attempts, HALF);
                delivery.stage = Stage::Waiting(Due(Due::from(at(now)).0 + wait));
            }
            now += 60;
        }
        (delivery.attempts, None)
    }

    #[test]
    fn a_dead_destination_is_tried_for_five_days_and_given_up() {
        let (attempts, given_up) = play(|_| true, 30 * 86_400);
        let hours = given_up.unwrap() / 3600;
        assert!((120..125).contains(&hours), "{hours}");
        assert!((55..75).contains(&attempts), "{attempts}");
    }

    #[test]
    fn nothing_is_given_up_while_the_network_is_away() {
        assert_eq!(play(|now| now < 3600, 60 * 86_400), (4, None));
        // Two days there, forty away, and then the rest of the five.
        let (_, given_up) = play(|now| !(2 * 86_400..=42 * 86_400).contains(&now), 90 * 86_400);
        let hours = given_up.unwrap() / 3600;
        assert!((1075..1088).contains(&hours), "{hours}");
    }

    #[test]
    fn a_network_of_ten_minutes_a_day_sees_an_attempt_in_each() {
        let (attempts, given_up) = play(|now| now % 86_400 < 600, 100 * 86_400);
        assert!(attempts >= 100, "{attempts}");
        assert_eq!(given_up, None);
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let config = QueueConfig::default();
        let waits: Vec<_> = [1, 2, 3, 5, 6, 60].iter().map(|n| wait_ms(&config, *n, HALF) / 1000).collect();
        assert_eq!(waits, [300, 600, 1200, 4800, 7200, 7200]);
        assert_eq!((wait_ms(&config, 1, 0), wait_ms(&config, 1, u32::MAX) / 1000), (262_500, 337));
    }

    #[test]
    fn a_gap_never_counts_for_more_than_a_wait() {
        let config = QueueConfig::default();
        let tried = Delivery { tried: Some(at(1000)), lapsed_secs: 50, ..Delivery::waiting(Due(0)) };
        let after = |now, up_since| lapsed_secs(&tried, at(0), at(now), at(up_since), &config);
        assert_eq!(after(1300, 0), 350);
        assert_eq!(after(1300, 1200), 150, "the network was away before");
        assert_eq!(after(900_000, 0), 50 + 8100, "the box was off");
        assert_eq!(after(5, 0), 50, "the clock was set back");
    }

    #[test]
    fn a_clock_that_was_set_back_leaves_nothing_lying() {
        let config = QueueConfig::default();
        let now = Due(1_000_000_000);
        assert_eq!(due_up_to(now, None, &config), now);
        assert_eq!(due_up_to(now, Some(Due(now.0 + 5_000_000)), &config), now);
        let far = Due(now.0 + 400 * 86_400_000);
        assert_eq!(due_up_to(now, Some(far), &config), far);
    }

    proptest! {
        #[test]
        fn no_wait_is_longer_than_the_longest(attempts: u32, chance: u32, min in 0..100_000_u32, max in 0..100_000_u32) {
            let config = QueueConfig { retry_min_secs: min, retry_max_secs: max, ..QueueConfig::default() };
            let wait = wait_ms(&config, attempts, chance);
            prop_assert!(wait > 0 && wait <= wait_max_ms(&config));
        }
    }
}
