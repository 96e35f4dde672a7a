//! Messages on their way around the journal: which take it, and which of them share a checkpoint.
//!
//! A body is durable by the journal, which costs its bytes a second time, or by a checkpoint, which
//! costs about the same whatever it brings, and two syncs. So a body that is larger than a
//! checkpoint waits for one; and because one checkpoint serves any number of bodies, it waits while
//! others come in: until nobody else is at work, or some groups have gone by, or it is enough. A lone
//! sender never waits for anybody.

use std::collections::VecDeque;

use super::{Incoming, Keep};
use crate::store::message::{INLINE_MAX, Pieces};

/// Groups and steps that go by while a message is ready to go: with the syncs of a card (10 to 30 ms)
/// it waits for a third of a second at most.
const ROUNDS_MAX: u32 = 12;

/// Bytes of ready bodies that are worth a checkpoint of their own: it is a tenth of them or less.
const BODIES_MAX: u64 = 4 << 20;

/// Bodies from this size on wait where others are at work or wait already. Smaller ones share a
/// block of the journal with others and are answered at once.
const WAIT_MIN: u64 = 8 << 10;

/// How far a message is on the way around the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::store) enum Hold {
    /// Just come in.
    #[default]
    New,
    /// It waits for others and may take the journal yet.
    Small,
    /// It is put into the index and then waits for others.
    Large,
    /// Its time has come.
    Going,
}

/// The messages that are held, oldest first.
#[derive(Default)]
pub(super) struct Held {
    keeps: VecDeque<Box<Keep>>,
    /// Groups and steps since one of them is ready.
    rounds: u32,
}

impl Held {
    /// Tells whether a message has to wait that has `taken` commands before it in its group.
    /// `checkpoint` is what a checkpoint costs, in bytes.
    pub(super) fn takes(&self, keep: &Keep, taken: usize, checkpoint: u64) -> bool {
        let crowd = taken > 0 || !self.keeps.is_empty();
        keep.hold == Hold::New && (keep.outweighs(checkpoint) || crowd && keep.bytes() >= WAIT_MIN)
    }

    /// Takes a message.
    pub(super) fn push(&mut self, mut keep: Box<Keep>, checkpoint: u64) {
        keep.hold = if keep.outweighs(checkpoint) { Hold::Large } else { Hold::Small };
        self.keeps.push_back(keep);
    }

    /// Tells whether none is held.
    pub(super) fn is_empty(&self) -> bool {
        self.keeps.is_empty()
    }

    /// The next body to be put into the index, of those that are `going` or of any, and its place.
    pub(super) fn to_stage(&mut self, going: bool) -> Option<(usize, &mut Incoming)> {
        let mut keeps = self.keeps.iter_mut().enumerate();
        keeps.find_map(|(place, keep)| {
            let wanted = keep.hold == Hold::Going || !going && keep.hold == Hold::Large;
            let message = keep.messages.iter_mut().find(|message| message.pieces.is_waiting());
            message.filter(|_| wanted).map(|message| (place, message))
        })
    }

    /// Gives up a message.
    pub(super) fn remove(&mut self, place: usize) -> Option<Box<Keep>> {
        self.keeps.remove(place)
    }

    /// Gives up all.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Box<Keep>> {
        self.keeps.drain(..)
    }

    /// Notes that a group or a step went by, and lets go what is ready if it is time: when it was
    /// `quiet` and nothing is left to stage, after enough rounds, or when it is enough. Tells whether
    /// that needs a checkpoint; bodies that do go by the journal all together, if that costs less.
    pub(super) fn due(&mut self, quiet: bool, checkpoint: u64) -> bool {
        let ready = self.keeps.iter().filter(|keep| keep.is_ready());
        let (count, bytes) = ready.fold((0, 0), |(count, bytes), keep| (count + 1, bytes + keep.bytes()));
        let quiet = quiet && count == self.keeps.len();
        self.rounds = if count > 0 { self.rounds.saturating_add(1) } else { 0 };
        if count == 0 || !(quiet || self.rounds > ROUNDS_MAX || bytes >= BODIES_MAX) {
            return false;
        }
        self.rounds = 0;
        let large = self.keeps.iter().any(|keep| keep.is_ready() && keep.hold == Hold::Large);
        let heavy = large || bytes > checkpoint.min(INLINE_MAX);
        for keep in self.keeps.iter_mut().filter(|keep| keep.is_ready()) {
            keep.hold = Hold::Going;
            if !heavy {
                keep.take_journal(true);
            }
        }
        heavy
    }

    /// The next message of those that go, all of it staged.
    pub(super) fn next(&mut self) -> Option<Box<Keep>> {
        let place = self.keeps.iter().position(|keep| keep.hold == Hold::Going)?;
        self.keeps.remove(place)
    }
}

impl Keep {
    /// Bytes of all its bodies as they are stored.
    fn bytes(&self) -> u64 {
        self.messages.iter().map(|message| message.body.stored()).sum()
    }

    /// Tells whether a checkpoint costs less than the journal, or the journal does not take it.
    fn outweighs(&self, checkpoint: u64) -> bool {
        self.bytes() > checkpoint.min(INLINE_MAX)
    }

    /// Tells whether it waits for nothing but its time.
    fn is_ready(&self) -> bool {
        self.hold == Hold::Small || !self.messages.iter().any(|message| message.pieces.is_waiting())
    }

    /// Says whether its bodies take the journal, those that are not staged yet.
    pub(super) fn take_journal(&mut self, journal: bool) {
        let (from, to) = if journal { (Pieces::Outside, Pieces::Inline) } else { (Pieces::Inline, Pieces::Outside) };
        for message in self.messages.iter_mut().filter(|message| message.pieces == from) {
            message.pieces = to;
        }
    }
}

impl Pieces {
    /// Tells whether some of them are still to be staged.
    fn is_waiting(self) -> bool {
        matches!(self, Self::Outside | Self::Partly(..))
    }
}
