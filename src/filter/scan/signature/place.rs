//! Where in a file a pattern must begin: `*`, `N`, `EOF-N`, `EP+N`, `EP-N`, `Sx+N`, `SL+N`, `SEx`,
//! each but the last with `,SHIFT` behind it for a stretch instead of a point.

use serde::{Deserialize, Serialize};

use super::Reason;
use crate::filter::scan::unpack::pe::Pe;

/// Where a pattern must begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    base: Base,
    by: i64,
    shift: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Base {
    #[default]
    Anywhere,
    Start,
    End,
    Entry,
    Section(u16),
    LastSection,
    WithinSection(u16),
}

impl Place {
    /// Reads the field.
    ///
    /// # Errors
    /// Why it can't be.
    pub fn parse(text: &str) -> Result<Self, Reason> {
        const BAD: Reason = Reason("offsets that can't be read");
        if text == "*" {
            return Ok(Self::default());
        }
        if text.starts_with('$') {
            return Err(Reason("offsets by macro"));
        }
        if text.starts_with("VI") {
            return Err(Reason("offsets in version information"));
        }
        let (text, shift) = match text.split_once(',') {
            Some((text, shift)) => (text, shift.parse::<u64>().map_err(|_| BAD)?),
            None => (text, 0),
        };
        let by = |text: &str| -> Result<i64, Reason> {
            let number = text.strip_prefix('+').unwrap_or(text);
            number.parse::<i64>().map_err(|_| BAD)
        };
        if let Some(rest) = text.strip_prefix("EOF") {
            return Ok(Self { base: Base::End, by: by(rest)?, shift });
        }
        if let Some(rest) = text.strip_prefix("EP") {
            return Ok(Self { base: Base::Entry, by: by(rest)?, shift });
        }
        if let Some(rest) = text.strip_prefix("SL") {
            return Ok(Self { base: Base::LastSection, by: by(rest)?, shift });
        }
        if let Some(rest) = text.strip_prefix("SE") {
            return Ok(Self { base: Base::WithinSection(rest.parse().map_err(|_| BAD)?), by: 0, shift });
        }
        if let Some(rest) = text.strip_prefix('S') {
            let (number, after) = rest.split_at(rest.find(['+', '-']).ok_or(BAD)?);
            return Ok(Self { base: Base::Section(number.parse().map_err(|_| BAD)?), by: by(after)?, shift });
        }
        let from: u64 = text.parse().map_err(|_| BAD)?;
        Ok(Self { base: Base::Start, by: i64::try_from(from).map_err(|_| BAD)?, shift })
    }

    /// Tells whether a pattern that begins at `start` of a file of `size` bytes is where it must be.
    pub fn holds(self, start: u64, size: u64, pe: Option<&Pe>) -> bool {
        let base = match self.base {
            Base::Anywhere => return true,
            Base::Start => Some(0),
            Base::End => Some(size),
            Base::Entry => pe.and_then(|pe| pe.entry),
            Base::Section(number) => {
                pe.and_then(|pe| pe.sections.get(usize::from(number))).map(|section| section.offset)
            }
            Base::LastSection => pe.and_then(|pe| pe.sections.last()).map(|section| section.offset),
            Base::WithinSection(number) => {
                let section = pe.and_then(|pe| pe.sections.get(usize::from(number)));
                return section.is_some_and(|section| {
                    (section.offset..section.offset.saturating_add(section.size).saturating_add(self.shift))
                        .contains(&start)
                });
            }
        };
        let Some(from) = base.and_then(|base| base.checked_add_signed(self.by)) else { return false };
        (from..=from.saturating_add(self.shift)).contains(&start)
    }
}
