//! Instants and their spellings in mail (RFC 5322 section 3.3, RFC 9051 date-time).

use serde::{Deserialize, Serialize};

/// Seconds since 1970-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

/// A stretch of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// Its first second.
    pub begin: Timestamp,
    /// Its last.
    pub end: Timestamp,
}

impl Period {
    /// The day (UTC) that an instant is in.
    pub fn day_of(at: Timestamp) -> Self {
        let begin = at.0.div_euclid(DAY_SECS).saturating_mul(DAY_SECS);
        Self { begin: Timestamp(begin), end: Timestamp(begin.saturating_add(DAY_SECS - 1)) }
    }
}

/// An instant with the zone it was written in, as IMAP keeps it (RFC 9051 section 2.3.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZonedTime {
    /// The instant.
    pub at: Timestamp,
    /// Minutes east of UTC, between -1439 and 1439.
    pub offset_mins: i16,
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const DAY_SECS: i64 = 86_400;

impl ZonedTime {
    /// The instant in UTC.
    pub fn utc(at: Timestamp) -> Self {
        Self { at, offset_mins: 0 }
    }

    /// Days since 1970-01-01 on the writer's calendar; SEARCH compares these (RFC 9051 section 6.4.4).
    pub fn local_day(self) -> i64 {
        self.local_secs().div_euclid(DAY_SECS)
    }

    /// Spells the instant for a Date or Received field (RFC 5322 section 3.3).
    pub fn to_rfc5322(self) -> String {
        let weekday = WEEKDAYS.get(usize::try_from(self.local_day().rem_euclid(7)).unwrap_or(0)).unwrap_or(&"Thu");
        let (year, month, day) = civil_from_days(self.local_day());
        let (clock, zone) = (self.clock(), self.zone());
        format!("{weekday}, {day} {} {year:04} {clock} {zone}", month_name(month))
    }

    /// Spells the instant as IMAP's `date-time` without its quotes, such as
    /// `17-Jul-1996 02:44:25 -0700`.
    pub fn to_imap(self) -> String {
        let (year, month, day) = civil_from_days(self.local_day());
        let (clock, zone) = (self.clock(), self.zone());
        format!("{day:2}-{}-{year:04} {clock} {zone}", month_name(month))
    }

    /// Reads IMAP's `date-time` without its quotes.
    pub fn parse_imap(text: &str) -> Option<Self> {
        let (date, rest) = text.trim_start().split_once(' ')?;
        let (clock, zone) = rest.split_once(' ')?;
        let days = parse_imap_date(date)?;
        let mut fields = clock.split(':').map(|field| (field.len() == 2).then(|| digits(field)).flatten());
        let (hour, minute, second) = (fields.next()??, fields.next()??, fields.next()??);
        let offset_mins = parse_zone(zone)?;
        if fields.next().is_some() || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let local = days * DAY_SECS + hour * 3600 + minute * 60 + second;
        Some(Self { at: Timestamp(local - i64::from(offset_mins) * 60), offset_mins })
    }

    /// Reads an instant of RFC 3339, such as `2026-11-23T23:00:00Z` or with `+01:00`; fractions of
    /// seconds are dropped.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let (date, rest) = text.split_once(['T', 't'])?;
        let (clock, zone) = rest.split_at_checked(8)?;
        let mut date = date.split('-').map(digits);
        let (year, month, day) = (date.next()??, date.next()??, date.next()??);
        let mut clock = clock.split(':').map(digits);
        let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
        let zone = zone.strip_prefix('.').map_or(zone, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
        let offset_mins = match zone {
            "Z" | "z" => 0,
            zone => parse_zone(&zone.replacen(':', "", 1))?,
        };
        let fits = (1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        if !fits || date.next().is_some() || clock.next().is_some() || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let local = days_from_civil(year, month, day) * DAY_SECS + hour * 3600 + minute * 60 + second;
        Some(Self { at: Timestamp(local - i64::from(offset_mins) * 60), offset_mins })
    }

    /// Reads a Date field's body, obsolete forms included (RFC 5322 sections 3.3 and 4.3). Takes
    /// what it understands from the front; `None` when there is no date in it.
    pub fn parse_rfc5322(text: &str) -> Option<Self> {
        let mut words = text
            .split(|c: char| c.is_ascii_whitespace() || matches!(c, ',' | ';' | '(' | ')'))
            .filter(|word| !word.is_empty())
            .peekable();
        words.next_if(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()));
        let day = digits(words.next()?)?;
        let month = month_number(words.next()?)?;
        let year = match (words.peek()?.len(), digits(words.next()?)?) {
            (2, year @ 0..=49) => year + 2000,
            (2 | 3, year) => year + 1900,
            (_, year) => year,
        };
        if !(1..=31).contains(&day) || !(1..=9999).contains(&year) {
            return None;
        }
        let mut clock = words.next().unwrap_or("00:00").split(':').map(digits);
        let (hour, minute) = (clock.next()??, clock.next()??);
        let second = clock.next().unwrap_or(Some(0))?;
        let offset_mins = words.next().map_or(0, |zone| parse_zone(zone).unwrap_or_else(|| named_zone(zone)));
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let local = days_from_civil(year, month, day) * DAY_SECS + hour * 3600 + minute * 60 + second;
        Some(Self { at: Timestamp(local - i64::from(offset_mins) * 60), offset_mins })
    }

    fn local_secs(self) -> i64 {
        self.at.0 + i64::from(self.offset_mins) * 60
    }

    fn clock(self) -> String {
        let secs = self.local_secs().rem_euclid(DAY_SECS);
        format!("{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)
    }

    fn zone(self) -> String {
        let sign = if self.offset_mins < 0 { '-' } else { '+' };
        let mins = self.offset_mins.unsigned_abs();
        format!("{sign}{:02}{:02}", mins / 60, mins % 60)
    }
}

/// Reads IMAP's `date`, such as `1-Feb-1994`, as days since 1970-01-01.
pub fn parse_imap_date(text: &str) -> Option<i64> {
    let mut fields = text.split('-');
    let (day, month, year) = (digits(fields.next()?)?, month_number(fields.next()?)?, fields.next()?);
    let fits = fields.next().is_none() && (1..=31).contains(&day) && year.len() == 4;
    fits.then(|| digits(year)).flatten().map(|year| days_from_civil(year, month, day))
}

fn digits(text: &str) -> Option<i64> {
    let fits = (1..=9).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

fn month_name(month: i64) -> &'static str {
    usize::try_from(month - 1).ok().and_then(|index| MONTHS.get(index)).unwrap_or(&"Jan")
}

fn month_number(name: &str) -> Option<i64> {
    let index = MONTHS.iter().position(|month| name.get(..3).is_some_and(|start| start.eq_ignore_ascii_case(month)))?;
    i64::try_from(index + 1).ok()
}

fn parse_zone(zone: &str) -> Option<i16> {
    let (sign, number) = match zone.split_at_checked(1)? {
        ("+", number) => (1, number),
        ("-", number) => (-1, number),
        _ => return None,
    };
    let number = (number.len() == 4).then(|| digits(number)).flatten()?;
    let mins = number / 100 * 60 + number % 100;
    i16::try_from(mins).ok().filter(|mins| *mins < 1440).map(|mins| sign * mins)
}

/// Obsolete zone names (RFC 5322 section 4.3); unknown ones count as UTC, as it asks.
fn named_zone(zone: &str) -> i16 {
    match zone.to_ascii_uppercase().as_str() {
        "EDT" => -4 * 60,
        "EST" | "CDT" => -5 * 60,
        "CST" | "MDT" => -6 * 60,
        "MST" | "PDT" => -7 * 60,
        "PST" => -8 * 60,
        _ => 0,
    }
}

/// Days since 1970-01-01 of a date of the Gregorian calendar: years are counted from March, so the
/// leap day is a year's last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of the day so many after 1970-01-01; the reverse of `days_from_civil`.
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_instant_of_rfc_3339_is_read() {
        for (text, at) in [
            ("1985-04-12T23:20:50.52Z", 482_196_050),
            ("1996-12-19T16:39:57-08:00", 851_042_397),
            ("1990-12-31t23:59:60z", 662_688_000),
        ] {
            assert_eq!(ZonedTime::parse_rfc3339(text).unwrap().at, Timestamp(at), "{text}");
        }
        for bad in ["", "1996-12-19", "1996-12-19T16:39:57", "1996-13-19T16:39:57Z", "1996-12-19T24:39:57Z", "T::", "é"]
        {
            assert_eq!(ZonedTime::parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn known_instants_are_spelled_as_the_rfcs_do() {
        let moment = ZonedTime { at: Timestamp(837_596_665), offset_mins: -420 };
        assert_eq!(moment.to_imap(), "17-Jul-1996 02:44:25 -0700");
        assert_eq!(moment.to_rfc5322(), "Wed, 17 Jul 1996 02:44:25 -0700");
        assert_eq!(ZonedTime::parse_rfc5322("Wed, 17 Jul 96 02:44:25 PDT (summer)"), Some(moment));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in ["", "yesterday", "32 Jan 2020 00:00:00 +0000", "1 Foo 2020", "1 Jan 2020 25:00", "é", "1 é"] {
            assert_eq!(ZonedTime::parse_rfc5322(text), None, "{text:?}");
        }
        for text in ["", "1-Jan-2020", "1-Jan-20 00:00:00 +0000", "1-Jan-2020 00:00:00 +2500", "1-Jan-2020 0:0:0 +0000"]
        {
            assert_eq!(ZonedTime::parse_imap(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn spelling_and_reading_are_inverse(secs in -2_000_000_000_i64..200_000_000_000, offset_mins in -1439_i16..=1439) {
            let moment = ZonedTime { at: Timestamp(secs), offset_mins };
            prop_assert_eq!(ZonedTime::parse_imap(&moment.to_imap()), Some(moment));
            prop_assert_eq!(ZonedTime::parse_rfc5322(&moment.to_rfc5322()), Some(moment));
            let (year, month, day) = civil_from_days(moment.local_day());
            prop_assert_eq!(days_from_civil(year, month, day), moment.local_day());
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,60}") {
            let _ = (ZonedTime::parse_rfc5322(&text), ZonedTime::parse_imap(&text), parse_imap_date(&text));
        }
    }
}
