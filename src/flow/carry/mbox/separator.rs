//! The line before each message: `From ann@example.org Wed Jul 17 02:44:25 1996`.

use super::FROM;
use crate::mail::date::{Timestamp, ZonedTime};

const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// The date of a separator, or `None` when the line is text that begins with `From `.
///
/// Writers differ: seconds and the zone may be missing, the zone may stand before or after the
/// year, or the date may be one of RFC 5322. Without a zone it is UTC (RFC 4155).
pub(in crate::flow) fn date(line: &[u8]) -> Option<ZonedTime> {
    let text = std::str::from_utf8(line.strip_prefix(FROM)?).ok()?;
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let is_weekday = |word: &&str| WEEKDAYS.contains(&word.trim_end_matches(','));
    let start = words.iter().rposition(is_weekday)?;
    let rest = words.get(start + 1..)?;
    if rest.first().is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit())) {
        return ZonedTime::parse_rfc5322(&rest.join(" "));
    }
    let [month, day, clock, tail @ ..] = rest else { return None };
    let is_year = |word: &&&str| word.len() == 4 && word.bytes().all(|byte| byte.is_ascii_digit());
    let year = tail.iter().take(2).find(is_year)?;
    let zone = tail.iter().take(2).find(|word| !is_year(word)).unwrap_or(&"+0000");
    ZonedTime::parse_rfc5322(&format!("{day} {month} {year} {clock} {zone}"))
}

/// Writes the separator of a message, with its LF.
pub(super) fn line(sender: &str, at: Timestamp) -> String {
    // `Wed, 17 Jul 1996 02:44:25 +0000`, put in the order of asctime.
    let text = ZonedTime::utc(at).to_rfc5322();
    let mut words = text.split_ascii_whitespace();
    let mut word = || words.next().unwrap_or_default();
    let (weekday, day, month, year, clock) = (word(), word(), word(), word(), word());
    format!("From {sender} {} {month} {day:>2} {clock} {year}\n", weekday.trim_end_matches(','))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_custom_of_writing_the_date_is_read() {
        let utc = ZonedTime { at: Timestamp(837_571_465), offset_mins: 0 };
        for (text, offset_mins) in [
            ("From ann@example.org Wed Jul 17 02:44:25 1996\n", 0),
            ("From - Wed Jul 17 02:44:25 1996\r\n", 0),
            ("From \"ann lee\"@example.org  Wed Jul 17 02:44:25 1996", 0),
            ("From 1234@xxx Tue Jul 16 22:44:25 -0400 1996\n", -240),
            ("From ann Wed Jul 17 04:44:25 1996 +0200\n", 120),
            ("From ann Wed Jul 17 02:44:25 GMT 1996\n", 0),
            ("From ann Wed, 17 Jul 1996 02:44:25 +0000\n", 0),
        ] {
            assert_eq!(date(text.as_bytes()), Some(ZonedTime { offset_mins, ..utc }), "{text}");
        }
    }

    #[test]
    fn text_that_begins_with_from_is_no_separator() {
        for text in [
            "From there we went on Wed",
            "From Wed to Fri",
            "From ",
            "From a Wed Jul 17",
            ">From a Wed Jul 17 02:44:25 1996",
        ] {
            assert_eq!(date(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(secs in 0_i64..200_000_000_000) {
            let line = line("ann@example.org", Timestamp(secs));
            prop_assert_eq!(date(line.as_bytes()), Some(ZonedTime::utc(Timestamp(secs))));
        }

        #[test]
        fn any_line_is_read_without_a_panic(line in "From \\PC{0,60}") {
            let _ = date(line.as_bytes());
        }
    }
}
