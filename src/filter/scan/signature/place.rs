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

    /// From where to where a match may begin in a file of `size` bytes; `None` for nowhere.
    pub fn range(self, size: u64, pe: Option<&Pe>) -> Option<(u64, u64)> {
        let base = match self.base {
            Base::Anywhere => return Some((0, size)),
            Base::Start => Some(0),
            Base::End => Some(size),
            Base::Entry => pe?.entry,
            Base::Section(number) => pe?.sections.get(usize::from(number)).map(|section| section.offset),
            Base::LastSection => pe?.sections.last().map(|section| section.offset),
            Base::WithinSection(number) => {
                let section = pe?.sections.get(usize::from(number))?;
                let end = section.offset.saturating_add(section.size).saturating_add(self.shift);
                return Some((section.offset, end.checked_sub(1)?));
            }
        };
        let from = base?.checked_add_signed(self.by)?;
        Some((from, from.saturating_add(self.shift)))
    }

    /// Tells whether a match may begin at one place only.
    pub fn is_point(self) -> bool {
        self.shift == 0 && !matches!(self.base, Base::Anywhere | Base::WithinSection(_))
    }

    /// Tells whether a match may begin anywhere.
    pub fn is_anywhere(self) -> bool {
        self.base == Base::Anywhere
    }

    /// Tells whether a pattern that begins at `start` of a file of `size` bytes is where it must be.
    pub fn holds(self, start: u64, size: u64, pe: Option<&Pe>) -> bool {
        self.is_anywhere() || self.range(size, pe).is_some_and(|(from, to)| (from..=to).contains(&start))
    }
}
