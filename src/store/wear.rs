//! The wear meter: what the store wrote, by day and in all, and how long a card lasts at that rate.
//!
//! The store counts what it asks its files for; what reaches the medium the kernel counts, where it
//! tells (`medium`), for all programs together. Days are kept in one row of STATE that is written
//! along with checkpoints, in a page those write anyway: it costs no sync and no page of its own,
//! and a crash takes back the counts since the last checkpoint. Time is counted by a clock that
//! only goes forward; the date names days and nothing else, so a wrong clock misnames a day and
//! no more.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redb::{ReadableTable, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::mail::date::Timestamp;

use super::StoreConfig;
use super::disk::Counters;
use super::engine::Shared;
use super::error::Trouble;
use super::record::Record;
use super::site::Site;
use super::table::{STATE, Tables};

/// The row of STATE.
const WEAR: &str = "wear";

/// Days that are kept.
pub const DAYS_MAX: usize = 31;

/// A clock that stands before 2024 was never set.
const CLOCK_MIN: i64 = 1_704_067_200;

const DAY_SECS: u64 = 86_400;

/// More days of life than these are not worth telling apart: 100 years.
pub const LIFE_DAYS_MAX: u64 = 36_500;

/// What was written in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// How long that was while the store was open, in seconds.
    pub secs: u64,
    /// Messages delivered or appended.
    pub messages: u64,
    /// Bytes the store wrote to its journal.
    pub journal: u64,
    /// Bytes the store wrote to its index.
    pub index: u64,
    /// Syncs the store asked for.
    pub syncs: u64,
    /// Bytes all programs wrote to the partition, as far as the kernel told.
    pub device: u64,
    /// For how much of the time it told, in seconds.
    pub device_secs: u64,
}

impl Written {
    /// Bytes the store wrote.
    pub fn bytes(&self) -> u64 {
        self.journal.saturating_add(self.index)
    }

    fn add(&mut self, more: &Self) {
        let pairs = [
            (&mut self.secs, more.secs),
            (&mut self.messages, more.messages),
            (&mut self.journal, more.journal),
            (&mut self.index, more.index),
            (&mut self.syncs, more.syncs),
            (&mut self.device, more.device),
            (&mut self.device_secs, more.device_secs),
        ];
        for (sum, part) in pairs {
            *sum = sum.saturating_add(part);
        }
    }
}

/// One day of the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WearDay {
    /// Days since 1970-01-01, UTC; 0 while the clock was not set.
    pub day: u32,
    /// What was written.
    pub written: Written,
}

/// A compaction that was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compacted {
    /// When, in seconds since 1970.
    pub at: i64,
    /// Bytes the index took on the medium before.
    pub before: u64,
    /// Bytes it took afterwards.
    pub after: u64,
    /// Bytes of it that we had reckoned to be in use, which says how good the estimate is.
    pub reckoned: u64,
}

/// How long a card lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardLife {
    /// Days until its cells are used up; [`LIFE_DAYS_MAX`] or more means "very long".
    pub days: u64,
    /// The rate that was reckoned with, in bytes a day.
    pub bytes_per_day: u64,
    /// The rate is what the kernel tells of the partition, and not what the store asked for.
    pub of_device: bool,
    /// Size of the card in bytes.
    pub card_bytes: u64,
}

/// What the kernel tells of the medium.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediumFigures {
    /// Its name, such as `mmcblk0p2`.
    pub name: String,
    /// Bytes all programs wrote to the partition since the store was opened.
    pub written: u64,
    /// The same for the whole device.
    pub device_written: u64,
    /// Size of the whole device in bytes.
    pub device_bytes: u64,
}

/// The meter's figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WearFigures {
    /// Since the store was opened.
    pub since_start: Written,
    /// Since the store was made, as far as no crash took it back.
    pub in_all: Written,
    /// The last [`DAYS_MAX`] days, today last.
    pub days: Vec<WearDay>,
    /// What the kernel tells.
    pub medium: Option<MediumFigures>,
    /// How long the card lasts at the rate of these days; `None` before there was a whole day.
    pub life: Option<CardLife>,
    /// The last compaction.
    pub compacted: Option<Compacted>,
}

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct WearRecord {
    in_all: Written,
    /// The last is the one that counts now. In the order they began, whatever the clock said.
    days: VecDeque<WearDay>,
    compacted: Option<Compacted>,
}

impl Record for WearRecord {
    const TABLE: &'static str = "state";
}

impl WearRecord {
    fn add(&mut self, day: u32, written: &Written) {
        self.in_all.add(written);
        // After a jump of the clock a day may come a second time.
        if let Some(known) = self.days.iter_mut().find(|known| known.day == day) {
            known.written.add(written);
            return;
        }
        self.days.push_back(WearDay { day, written: *written });
        while self.days.len() > DAYS_MAX {
            self.days.pop_front();
        }
    }
}

/// Where the counters stood at a moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    messages: u64,
    journal: u64,
    index: u64,
    syncs: u64,
    device: Option<u64>,
}

impl Reading {
    fn take(written: &[Arc<Counters>; 2], messages: u64, device: Option<u64>) -> Self {
        let [index, journal] = written;
        let bytes = |counters: &Counters| counters.written.load(Ordering::Relaxed);
        let syncs = |counters: &Counters| counters.syncs.load(Ordering::Relaxed);
        Self {
            at: Instant::now(),
            messages,
            journal: bytes(journal),
            index: bytes(index),
            syncs: syncs(index).saturating_add(syncs(journal)),
            device,
        }
    }

    /// What came after `before`, and how much of a second is left over.
    fn since(&self, before: &Self) -> (Written, Duration) {
        let passed = self.at.saturating_duration_since(before.at);
        // A count that went back is another device's: nobody knows what came in between.
        let device = self.device.zip(before.device).and_then(|(now, before)| now.checked_sub(before));
        let written = Written {
            secs: passed.as_secs(),
            messages: self.messages.saturating_sub(before.messages),
            journal: self.journal.saturating_sub(before.journal),
            index: self.index.saturating_sub(before.index),
            syncs: self.syncs.saturating_sub(before.syncs),
            device: device.unwrap_or(0),
            device_secs: device.map_or(0, |_| passed.as_secs()),
        };
        (written, Duration::from_nanos(passed.subsec_nanos().into()))
    }
}

/// The meter.
#[derive(Debug)]
pub(super) struct Wear(Mutex<Meter>);

#[derive(Debug)]
struct Meter {
    record: WearRecord,
    loaded: bool,
    /// The day that counts now.
    day: u32,
    /// Everything up to here is in the record.
    mark: Reading,
    since_start: Written,
    /// The medium's counts when the store was opened.
    medium: Option<(u64, u64)>,
}

impl Meter {
    fn add_until(&mut self, now: Reading) {
        let (written, rest) = now.since(&self.mark);
        self.record.add(self.day, &written);
        self.since_start.add(&written);
        // The part of a second that was not counted is left to the next time.
        self.mark = Reading { at: now.at.checked_sub(rest).unwrap_or(now.at), ..now };
    }
}

impl Wear {
    /// A meter that begins now.
    pub(super) fn new(site: &dyn Site, written: &[Arc<Counters>; 2]) -> Self {
        let medium = site.medium();
        Self(Mutex::new(Meter {
            record: WearRecord::default(),
            loaded: false,
            day: day_of(site.now()),
            mark: Reading::take(written, 0, medium.as_ref().map(|medium| medium.written)),
            since_start: Written::default(),
            medium: medium.map(|medium| (medium.written, medium.device_written)),
        }))
    }

    fn meter(&self) -> MutexGuard<'_, Meter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up what the index holds, when the store opens. Figures that can't be read begin anew:
    /// they are no reason to leave mail unread.
    pub(super) fn load(&self, tables: &mut Tables<'_>) -> Result<(), Trouble> {
        let mut meter = self.meter();
        if meter.loaded {
            return Ok(());
        }
        meter.loaded = true;
        if let Some(row) = tables.state()?.get(WEAR)? {
            match WearRecord::decode(WEAR, row.value()) {
                Ok(record) => meter.record = record,
                Err(trouble) => tracing::warn!(%trouble, "the wear meter begins anew"),
            }
        }
        Ok(())
    }

    /// Puts the figures into a transaction that is made durable for another reason.
    pub(super) fn save(&self, shared: &Shared, transaction: &WriteTransaction) -> Result<(), Trouble> {
        let now = shared.reading();
        let mut meter = self.meter();
        meter.add_until(now);
        let row = meter.record.encode(WEAR)?;
        transaction.open_table(STATE)?.insert(WEAR, row.as_slice())?;
        Ok(())
    }

    /// Begins another day when the clock says so.
    pub(super) fn turn(&self, shared: &Shared) {
        let today = day_of(shared.site.now());
        if self.meter().day != today {
            let now = shared.reading();
            let mut meter = self.meter();
            meter.add_until(now);
            meter.day = today;
        }
    }

    /// A compaction was done.
    pub(super) fn compacted(&self, done: Compacted) {
        self.meter().record.compacted = Some(done);
    }

    /// The last compaction.
    pub(super) fn last_compacted(&self) -> Option<Compacted> {
        self.meter().record.compacted
    }

    /// What the meter shows now.
    pub(super) fn figures(&self, shared: &Shared) -> WearFigures {
        let medium = shared.site.medium();
        let now = shared.reading();
        let meter = self.meter();
        let (written, _) = now.since(&meter.mark);
        let mut record = meter.record.clone();
        record.add(meter.day, &written);
        let mut since_start = meter.since_start;
        since_start.add(&written);
        let begun = meter.medium;
        drop(meter);
        let card = shared.config.card_bytes;
        let card = if card > 0 { Some(card) } else { medium.as_ref().map(|medium| medium.device_bytes) };
        let card = card.or_else(|| shared.site.room().ok().map(|room| room.total)).unwrap_or(0);
        WearFigures {
            since_start,
            in_all: record.in_all,
            life: life(&record.days, card, &shared.config),
            days: record.days.into(),
            medium: medium.zip(begun).map(|(medium, (written, device_written))| MediumFigures {
                name: medium.name,
                written: medium.written.saturating_sub(written),
                device_written: medium.device_written.saturating_sub(device_written),
                device_bytes: medium.device_bytes,
            }),
            compacted: record.compacted,
        }
    }
}

impl Shared {
    fn reading(&self) -> Reading {
        let messages = self.counts.lock().unwrap_or_else(PoisonError::into_inner).messages;
        Reading::take(&self.written, messages, self.site.medium().map(|medium| medium.written))
    }
}

/// The day of a time; 0 when the clock was not set.
fn day_of(now: Timestamp) -> u32 {
    if now.0 < CLOCK_MIN { 0 } else { u32::try_from(now.0.unsigned_abs() / DAY_SECS).unwrap_or(0) }
}

/// How long a card of `card` bytes lasts at the rate of these days.
fn life(days: &VecDeque<WearDay>, card: u64, config: &StoreConfig) -> Option<CardLife> {
    let mut sum = Written::default();
    for day in days {
        sum.add(&day.written);
    }
    let of_device = sum.device_secs >= DAY_SECS;
    let (bytes, secs) = if of_device { (sum.device, sum.device_secs) } else { (sum.bytes(), sum.secs) };
    if card == 0 || secs < DAY_SECS {
        return None;
    }
    let a_day = u128::from(bytes) * u128::from(DAY_SECS) / u128::from(secs);
    let worn = a_day * u128::from(config.card_amplification.max(1));
    let days = (u128::from(card) * u128::from(config.card_cycles)).checked_div(worn).unwrap_or(u128::MAX);
    let days = u64::try_from(days).unwrap_or(u64::MAX).min(LIFE_DAYS_MAX);
    Some(CardLife { days, bytes_per_day: u64::try_from(a_day).unwrap_or(u64::MAX), of_device, card_bytes: card })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(secs: u64, index: u64, device: u64) -> Written {
        Written { secs, index, device, device_secs: if device > 0 { secs } else { 0 }, ..Written::default() }
    }

    #[test]
    fn a_card_lasts_as_long_as_its_cells_at_this_rate() {
        let config = StoreConfig { card_cycles: 1000, card_amplification: 8, ..StoreConfig::default() };
        let day = |day, written| WearDay { day, written };
        // Twelve hours on each of two days, 500 MB each: 1 GB a day.
        let days: VecDeque<_> =
            [day(20_000, written(43_200, 500_000_000, 0)), day(20_001, written(43_200, 500_000_000, 0))].into();
        let told = life(&days, 32_000_000_000, &config).unwrap();
        assert_eq!(
            told,
            CardLife { days: 4000, bytes_per_day: 1_000_000_000, of_device: false, card_bytes: 32_000_000_000 }
        );
        // What the kernel tells goes before what we asked for.
        let days: VecDeque<_> = [day(20_000, written(172_800, 1, 8_000_000_000))].into();
        assert_eq!(life(&days, 32_000_000_000, &config).map(|told| (told.days, told.of_device)), Some((1000, true)));
        // An idle server's card lasts for ever, which we call 100 years.
        let days: VecDeque<_> = [day(20_000, written(86_400, 0, 0))].into();
        assert_eq!(life(&days, 32_000_000_000, &config).map(|told| told.days), Some(LIFE_DAYS_MAX));
        // Too early to say, and a card of unknown size.
        let days: VecDeque<_> = [day(20_000, written(86_399, 5, 5))].into();
        assert_eq!(life(&days, 32_000_000_000, &config), None);
        let days: VecDeque<_> = [day(20_000, written(86_400, 5, 5))].into();
        assert_eq!(life(&days, 0, &config), None);
    }

    #[test]
    fn a_clock_that_jumps_misnames_days_and_makes_no_more_of_them() {
        let mut record = WearRecord::default();
        for (day, bytes) in [(20_000, 1), (20_001, 2), (46_000, 4), (20_001, 8), (0, 16), (20_002, 32)] {
            record.add(day, &written(10, bytes, 0));
        }
        let told = record.days.iter().map(|day| (day.day, day.written.index)).collect::<Vec<_>>();
        assert_eq!(told, [(20_000, 1), (20_001, 10), (46_000, 4), (0, 16), (20_002, 32)]);
        assert_eq!((record.in_all.index, record.in_all.secs), (63, 60));
        for day in 20_003..20_200 {
            record.add(day, &written(1, 1, 0));
        }
        assert_eq!(record.days.len(), DAYS_MAX);
        assert!(record.days.iter().all(|day| day.day > 20_100), "the future has gone by");
        assert_eq!(
            (day_of(Timestamp(-5)), day_of(Timestamp(1_000_000)), day_of(Timestamp(1_704_067_200))),
            (0, 0, 19_723)
        );
    }

    #[test]
    fn a_count_that_goes_back_is_not_counted() {
        let at = Instant::now();
        let reading = |secs, index, device| Reading {
            at: at + Duration::from_millis(secs),
            messages: 0,
            journal: 0,
            index,
            syncs: 0,
            device,
        };
        let (told, rest) = reading(2500, 30, Some(5)).since(&reading(0, 10, Some(9)));
        assert_eq!((told, rest), (Written { secs: 2, index: 20, ..Written::default() }, Duration::from_millis(500)));
        let (told, _) = reading(2000, 30, Some(9)).since(&reading(0, 10, Some(5)));
        assert_eq!((told.device, told.device_secs), (4, 2));
        assert_eq!(reading(0, 0, None).since(&reading(0, 0, Some(5))).0, Written::default());
    }
}
