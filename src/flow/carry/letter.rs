//! One message on its way in: spooled, walked and measured as its bytes come.

use super::CarryError;
use crate::mail::date::ZonedTime;
use crate::mail::message::FlagNames;
use crate::mail::structure::Walker;
use crate::store::{NewMessage, Spool};

/// Largest message an import takes, in bytes.
pub const MESSAGE_MAX: u64 = 64 << 20;

/// A message being read.
#[derive(Debug)]
pub(super) struct Letter {
    state: Result<(Spool, Walker), Fault>,
    size: u64,
}

/// Why a message cannot be kept.
#[derive(Debug)]
pub(super) enum Fault {
    /// It has no bytes.
    Empty,
    /// It is larger than [`MESSAGE_MAX`].
    TooLarge,
    /// The spool failed, and with it the import.
    Fatal(CarryError),
}

impl Letter {
    pub(super) fn new(spool: Spool) -> Self {
        Self { state: Ok((spool, Walker::new())), size: 0 }
    }

    /// Takes the next bytes. Once something is wrong it only counts.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if let Ok((spool, walker)) = &mut self.state {
            if self.size > MESSAGE_MAX {
                self.state = Err(Fault::TooLarge);
                return;
            }
            walker.feed(bytes);
            if let Err(error) = spool.write(bytes) {
                self.state = Err(Fault::Fatal(error.into()));
            }
        }
    }

    /// Bytes so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn finish(self, internal_date: ZonedTime, flags: FlagNames) -> Result<NewMessage, Fault> {
        let (spool, walker) = self.state?;
        if self.size == 0 {
            return Err(Fault::Empty);
        }
        let body = spool.finish().map_err(|error| Fault::Fatal(error.into()))?;
        Ok(NewMessage { body, structure: walker.finish(), internal_date, flags })
    }
}
