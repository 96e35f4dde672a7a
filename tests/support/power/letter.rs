//! Messages to be kept, and their prints: a body is known again by length and a hash of its own,
//! which has nothing to do with the store's checksums.

use pillarbox::mail::date::{Timestamp, ZonedTime};
use pillarbox::mail::message::{FlagNames, Keyword, SystemFlags};
use pillarbox::mail::structure::Walker;
use pillarbox::store::{NewMessage, Store, WriteError};

use super::dice::Dice;

/// What tells bodies apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Print {
    pub(crate) length: usize,
    pub(crate) hash: u64,
}

/// Takes the print of a body that comes in parts.
#[derive(Debug, Default)]
pub(crate) struct Printer {
    length: usize,
    hash: u64,
    /// Bytes that are no whole word yet.
    rest: Vec<u8>,
}

impl Printer {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len();
        let mut bytes = bytes;
        if !self.rest.is_empty() {
            let (part, after) = bytes.split_at(bytes.len().min(8 - self.rest.len()));
            self.rest.extend_from_slice(part);
            bytes = after;
            if self.rest.len() == 8 {
                let word = std::mem::take(&mut self.rest);
                self.word(&word);
            }
        }
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.word(word);
        }
        self.rest.extend_from_slice(words.remainder());
    }

    fn word(&mut self, word: &[u8]) {
        let word = word.try_into().map_or(0, u64::from_le_bytes);
        // Multiply and fold, as wyhash does.
        let product = u128::from(self.hash ^ word ^ 0xa076_1d64_78bd_642f) * u128::from(0xe703_7ed1_a0b4_28db_u64);
        self.hash = u64::try_from(product & u128::from(u64::MAX)).unwrap_or(0)
            ^ u64::try_from(product >> 64).unwrap_or(0)
            ^ self.hash.rotate_left(17);
    }

    pub(crate) fn finish(mut self) -> Print {
        let mut word = std::mem::take(&mut self.rest);
        word.resize(8, 0);
        self.word(&word);
        Print { length: self.length, hash: self.hash }
    }
}

pub(crate) fn print_of(bytes: &[u8]) -> Print {
    let mut printer = Printer::default();
    printer.add(bytes);
    printer.finish()
}

/// The keywords of the laboratory; [`Marks`] has a bit for each.
pub(crate) const KEYWORDS: [&str; 4] = ["$Forwarded", "$Label1", "later", "work"];

/// Flags of a message, whatever its mailbox calls them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) system: u8,
    pub(crate) words: u8,
}

impl Marks {
    pub(crate) fn any(dice: &mut Dice) -> Self {
        let system = SystemFlags(u8::try_from(dice.below(32)).unwrap_or(0)).0;
        Self { system, words: if dice.percent(30) { u8::try_from(dice.below(16)).unwrap_or(0) } else { 0 } }
    }

    pub(crate) fn names(self) -> FlagNames {
        let known = KEYWORDS.iter().enumerate().filter(|(bit, _)| self.words >> bit & 1 == 1);
        let keywords = known.filter_map(|(_, name)| Keyword::new(name)).collect();
        FlagNames { system: SystemFlags(self.system), keywords }
    }

    /// The marks of these names; `None` for a keyword that is none of ours.
    pub(crate) fn of<'n>(system: u8, names: impl Iterator<Item = &'n str>) -> Option<Self> {
        let mut words = 0;
        for name in names {
            words |= 1 << KEYWORDS.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        }
        Some(Self { system, words })
    }
}

/// A message that is to come into the store.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) print: Print,
    pub(crate) marks: Marks,
    pub(crate) date: i64,
    message: Option<NewMessage>,
}

impl Letter {
    /// A letter of about `size` bytes that nobody has seen before. Half of them are text, the
    /// others don't compress.
    pub(crate) fn write(store: &Store, size: usize, marks: Marks, dice: &mut Dice) -> Result<Self, WriteError> {
        let mut bytes = format!("Subject: {:016x}\r\nFrom: ann@pillar.test\r\n\r\n", dice.next()).into_bytes();
        let from = bytes.len();
        bytes.resize(size.max(from), 0);
        let text = size < 100_000 && dice.percent(50);
        dice.fill(&mut bytes[from..]);
        if text {
            for byte in &mut bytes[from..] {
                *byte = b"etaoin shrdlu\r\n."[usize::from(*byte) % 16];
            }
        }
        let date = i64::try_from(dice.below(2_000_000_000)).unwrap_or(0);
        let (mut spool, mut walker) = (store.spool()?, Walker::new());
        spool.write(&bytes)?;
        walker.feed(&bytes);
        let message = NewMessage {
            body: spool.finish()?,
            structure: walker.finish(),
            internal_date: ZonedTime { at: Timestamp(date), offset_mins: 60 },
            flags: marks.names(),
        };
        Ok(Self { print: print_of(&bytes), marks, date, message: Some(message) })
    }

    /// A letter of somebody else's making, such as an import's.
    pub(crate) fn take(message: NewMessage) -> Self {
        let mut reader = message.body.reader();
        let mut printer = Printer::default();
        let mut at = 0;
        while let Ok(part) = reader.read(at, usize::MAX)
            && !part.is_empty()
        {
            printer.add(part);
            at += part.len() as u64;
        }
        let names = message.flags.keywords.iter().map(Keyword::as_str);
        let marks = Marks::of(message.flags.system.0, names).expect("an import without keywords of its own");
        let date = message.internal_date.at.0;
        Self { print: printer.finish(), marks, date, message: Some(message) }
    }

    pub(crate) fn message(&mut self) -> NewMessage {
        self.message.take().expect("a letter is sent once")
    }
}
