//! The table: for each hash a weight and two counts, whatever was learnt.
//!
//! A message's score is the mean of two in logits (above zero is spam), each the sum over its features
//! divided by the square root of their number, so that long messages do not weigh more:
//! - linear: the weights of its features. A message that was judged wrong, or right without being
//!   sure, moves the weights of its features, all by the same step (logistic regression, each
//!   feature there or not);
//! - Bayesian: for each feature the logarithm of how much more often it is in spam than in ham, by
//!   how sure the counts make that. A message is counted while its Bayesian score is not sure.
//!
//! What depends on the order of learning: how far a message moves the weights, and whether it is
//! counted, follow from the scores at that moment. What does not: the table is the sum of those steps,
//! so taking any of them back, in any order, leaves the sum of the rest; and as long as no message is
//! judged surely the counts, and with them the Bayesian score, are the same in any order.
//!
//! Steps are whole numbers and added with wrap-around, so that subtracting them restores the table
//! exactly, whatever was learnt in between. Counts are halved before they would overflow; what was
//! learnt before can't be taken back from then on.

use serde::{Deserialize, Serialize};

use super::Class;
use super::features::Features;
use super::ledger::{Entry, Ledger};

/// Form of the saved pieces and meaning of the hashes: another one is not read.
const VERSION: u8 = 2;

/// A weight of one, as it is kept.
const ONE: f32 = 1024.0;

/// How far one mistake moves the weights.
const RATE: f32 = 5.0;

/// A message is learnt as long as the linear score's probability is further off than this.
const MARGIN: f32 = 0.1;

/// A message is counted while its Bayesian score is below this, in logits.
const SURE: f32 = 6.0;

/// Share of the Bayesian score, once both classes are known.
const BAYES: f32 = 0.4;

/// Most that the Bayesian score says, in logits.
const BOUND: f32 = 6.0;

/// How many messages of the class of which fewer were counted give the Bayesian score half its share.
const BALANCE: f32 = 3.0;

/// Added to counts, so that none is zero.
const PRIOR: f32 = 0.05;

/// How many messages a feature must have been in to count for half of what it says.
const TRUST: f32 = 1.0;

/// Messages of a class after which all counts are halved.
const COUNTED_MAX: u16 = 60_000;

/// Slots in a saved piece: 12,288 bytes.
const PIECE_SLOTS: usize = 2048;

/// Pieces before the table: the facts and the ledger.
const PIECES_BEFORE: u16 = 2;

/// How large a table is: a power of two of slots of six bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size(u8);

impl Size {
    /// The box's: 262,144 slots, 1.5 MiB. Twice as many were measured and are no better.
    pub const BOX: Self = Self(18);
    /// An account's on top of it: 16,384 slots, 96 KiB.
    pub const ACCOUNT: Self = Self(14);

    /// The largest that takes no more than so many bytes, between 96 KiB and 3 MiB.
    #[must_use]
    pub fn within(bytes: u32) -> Self {
        Self((14..=19).rev().find(|bits| 6_u32 << bits <= bytes).unwrap_or(14))
    }

    /// Where the slot of a hash is: ascending with it.
    fn place(self, hash: u32) -> usize {
        (hash >> (32 - u32::from(self.0))) as usize
    }

    fn slots(self) -> usize {
        1 << self.0
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    weight: i16,
    /// Messages with it that were counted.
    counts: Both<u16>,
}

/// A slot as it lies in the table: weight, ham, spam. A table of plain numbers is zeros that the kernel
/// gives when they are written, so one that has learnt little takes little.
type Packed = [u16; 3];

impl Slot {
    fn unpack([weight, ham, spam]: Packed) -> Self {
        Self { weight: weight.cast_signed(), counts: Both { ham, spam } }
    }

    fn pack(self) -> Packed {
        [self.weight.cast_unsigned(), self.counts.ham, self.counts.spam]
    }
}

/// What stands in the first piece.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Facts {
    version: u8,
    size: Size,
    /// Messages counted.
    counted: Both<u16>,
    /// Messages learnt, less those taken back.
    learnt: Both<u32>,
}

/// One for each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Both<T> {
    ham: T,
    spam: T,
}

impl<T> Both<T> {
    fn of(&mut self, class: Class) -> &mut T {
        match class {
            Class::Ham => &mut self.ham,
            Class::Spam => &mut self.spam,
        }
    }
}

/// What teaching came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taught {
    /// As what it was learnt before.
    pub before: Option<Class>,
    /// The table was changed; not where the message was judged right and surely.
    pub changed: bool,
}

/// A saved piece that is none of this model's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceError;

/// A table with what belongs to it.
#[derive(Clone, Debug)]
pub struct Model {
    facts: Facts,
    slots: Vec<Packed>,
    ledger: Ledger,
    /// Pieces of the table that changed since they were taken.
    changed: Vec<bool>,
    /// Anything was.
    touched: bool,
}

impl Model {
    /// One that has learnt nothing.
    #[must_use]
    pub fn new(size: Size) -> Self {
        let facts = Facts { version: VERSION, size, counted: Both::default(), learnt: Both::default() };
        let slots = vec![Packed::default(); size.slots()];
        let changed = vec![false; size.slots() / PIECE_SLOTS];
        Self { facts, slots, ledger: Ledger::default(), changed, touched: false }
    }

    /// One that has learnt nothing and takes the place of one that can't be read, as soon as it learns.
    #[must_use]
    pub fn instead(size: Size) -> Self {
        let mut model = Self::new(size);
        model.changed.fill(true);
        model
    }

    /// How many messages it has learnt as this.
    #[must_use]
    pub fn learnt(&self, class: Class) -> u32 {
        let mut learnt = self.facts.learnt;
        *learnt.of(class)
    }

    /// Bytes of its table.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Packed>()
    }

    /// As what a message was learnt, if it is among those that are remembered.
    #[must_use]
    pub fn class_of(&self, features: &Features) -> Option<Class> {
        self.ledger.find(features.id()).map(|entry| entry.class)
    }

    /// The score in logits: above zero is spam.
    #[must_use]
    pub fn score(&self, features: &Features) -> f32 {
        let (linear, bayes) = self.scores(features);
        let part = self.bayes();
        linear * (1.0 - part) + bounded(bayes) * part
    }

    /// The share of the Bayesian score. Who has only seen one kind takes everything for that.
    fn bayes(&self) -> f32 {
        let Both { ham, spam } = self.facts.counted;
        let fewer = f32::from(ham.min(spam));
        BAYES * fewer / (fewer + BALANCE)
    }

    /// What each feature adds to the score.
    pub fn shares<'m>(&'m self, features: &'m Features) -> impl Iterator<Item = (u32, f32)> + 'm {
        let (scale, part) = (scale(features), self.bayes());
        let (_, bayes) = self.scores(features);
        // What the bound takes from the sum it takes from each in proportion.
        let kept = if bayes.abs() > f32::EPSILON { bounded(bayes) / bayes } else { 1.0 };
        let mut before = None;
        features.hashes().iter().map(move |&hash| {
            let place = self.place(hash);
            if before.replace(place) == Some(place) {
                return (hash, 0.0);
            }
            let slot = self.slot(place);
            (hash, (weight(slot) * (1.0 - part) + self.evidence(slot) * part * kept) * scale)
        })
    }

    /// Learns a message as `class`, or with `None` takes back what was learnt of it. What was learnt
    /// of it before is taken back first. It is learnt only as far as it is not judged so already.
    pub fn teach(&mut self, features: &Features, class: Option<Class>) -> Taught {
        let id = features.id();
        let before = self.ledger.find(id).map(|entry| entry.class);
        if before == class {
            return Taught { before, changed: false };
        }
        self.touched = true;
        let taken = self.ledger.take(id);
        if let Some(entry) = taken {
            self.apply(features, entry, false);
        }
        let learnt = class.map(|class| self.lesson(features, id, class));
        if let Some(entry) = learnt {
            self.apply(features, entry, true);
            self.ledger.push(entry);
            self.age();
        }
        Taught { before, changed: taken.is_some() || learnt.is_some_and(|entry| entry.step != 0 || entry.counted) }
    }

    /// What learning a message as `class` would change.
    fn lesson(&self, features: &Features, id: u64, class: Class) -> Entry {
        let (linear, bayes) = self.scores(features);
        let towards = if class == Class::Spam { 1.0 } else { -1.0 };
        // How far the probability is off: between 0 and 1.
        let off = 1.0 / (1.0 + (linear * towards).exp());
        let step = if off > MARGIN { (RATE * off * towards * scale(features) * ONE).round() } else { 0.0 };
        #[expect(clippy::cast_possible_truncation, reason = "at most RATE times ONE")]
        Entry { id, class, step: step as i16, counted: bayes * towards < SURE }
    }

    /// Adds what an entry says to each slot, or takes it away.
    fn apply(&mut self, features: &Features, entry: Entry, add: bool) {
        for place in self.places(features) {
            let Some(packed) = self.slots.get_mut(place) else { continue };
            let mut slot = Slot::unpack(*packed);
            slot.weight = if add { slot.weight.wrapping_add(entry.step) } else { slot.weight.wrapping_sub(entry.step) };
            if entry.counted {
                move_by_one(slot.counts.of(entry.class), add);
            }
            *packed = slot.pack();
            if let Some(changed) = self.changed.get_mut(place / PIECE_SLOTS) {
                *changed = true;
            }
        }
        let learnt = self.facts.learnt.of(entry.class);
        *learnt = if add { learnt.saturating_add(1) } else { learnt.saturating_sub(1) };
        if entry.counted {
            move_by_one(self.facts.counted.of(entry.class), add);
        }
    }

    /// Halves all counts before one could overflow.
    fn age(&mut self) {
        let Both { ham, spam } = self.facts.counted;
        if ham.max(spam) < COUNTED_MAX {
            return;
        }
        let halve = |counts: Both<u16>| Both { ham: counts.ham / 2, spam: counts.spam / 2 };
        // What is zero stays untouched.
        for [_, ham, spam] in self.slots.iter_mut().filter(|slot| **slot != Packed::default()) {
            (*ham, *spam) = (*ham / 2, *spam / 2);
        }
        self.facts.counted = halve(self.facts.counted);
        self.changed.fill(true);
        self.ledger.clear();
    }

    /// The linear and the Bayesian score.
    fn scores(&self, features: &Features) -> (f32, f32) {
        let slots = self.places(features).map(|place| self.slot(place));
        let (linear, bayes) =
            slots.fold((0.0, 0.0), |(linear, bayes), slot| (linear + weight(slot), bayes + self.evidence(slot)));
        let scale = scale(features);
        (linear * scale, bayes * scale)
    }

    /// The logarithm of how much more often a feature is in spam, by how sure that is.
    fn evidence(&self, slot: Slot) -> f32 {
        if slot.counts == Both::default() {
            return 0.0;
        }
        let float = |counts: Both<u16>| (f32::from(counts.ham), f32::from(counts.spam));
        let (ham, spam) = float(slot.counts);
        let (all_ham, all_spam) = float(self.facts.counted);
        let (all_ham, all_spam) = (all_ham.max(1.0), all_spam.max(1.0));
        let (in_ham, in_spam) = (ham / all_ham, spam / all_spam);
        let apart = (in_spam - in_ham) / (in_spam + in_ham);
        let sure = apart * apart * (ham + spam) / (ham + spam + TRUST);
        sure * ((in_spam + PRIOR / all_spam) / (in_ham + PRIOR / all_ham)).ln()
    }

    /// The places of a message's features: ascending, each once, so that a count never goes above the
    /// number of messages.
    fn places<'f>(&self, features: &'f Features) -> impl Iterator<Item = usize> + use<'f> {
        let (size, mut before) = (self.facts.size, None);
        let places = features.hashes().iter().map(move |&hash| size.place(hash));
        places.filter(move |place| before.replace(*place) != Some(*place))
    }

    fn place(&self, hash: u32) -> usize {
        self.facts.size.place(hash)
    }

    fn slot(&self, place: usize) -> Slot {
        self.slots.get(place).copied().map_or(Slot::default(), Slot::unpack)
    }
}

/// Counts one more or one less.
fn move_by_one(count: &mut u16, up: bool) {
    *count = if up { count.saturating_add(1) } else { count.saturating_sub(1) };
}

/// Bends what the Bayesian score says to at most [`BOUND`] on either side: its order is good near the
/// middle, and far out it is sure of too much.
fn bounded(bayes: f32) -> f32 {
    BOUND * (bayes / BOUND).tanh()
}

fn weight(slot: Slot) -> f32 {
    f32::from(slot.weight) / ONE
}

/// What the sum over a message's features is multiplied by.
#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn scale(features: &Features) -> f32 {
    1.0 / (features.hashes().len().max(1) as f32).sqrt()
}

/// Saving and reading.
impl Model {
    /// The pieces that changed since this was last asked, to be saved all together; none where nothing
    /// was learnt.
    pub fn take_changed(&mut self) -> Vec<(u16, Vec<u8>)> {
        if !std::mem::take(&mut self.touched) {
            return Vec::new();
        }
        let mut pieces = vec![(0, encode(&self.facts)), (1, encode(&self.ledger))];
        for (number, changed) in self.changed.iter_mut().enumerate() {
            if std::mem::take(changed) {
                let slots = self.slots.iter().skip(number * PIECE_SLOTS).take(PIECE_SLOTS);
                let bytes = slots.flatten().flat_map(|number| number.to_le_bytes());
                pieces.push((u16::try_from(number).unwrap_or(u16::MAX) + PIECES_BEFORE, bytes.collect()));
            }
        }
        pieces
    }

    /// Has every piece saved again the next time.
    pub fn save_all(&mut self) {
        self.touched = true;
        self.changed.fill(true);
    }

    /// How many pieces there can be.
    #[must_use]
    pub fn pieces(&self) -> u16 {
        u16::try_from(self.changed.len()).unwrap_or(u16::MAX) + PIECES_BEFORE
    }

    /// Takes a saved piece into a model that has learnt nothing.
    ///
    /// # Errors
    /// When it is of another form or of a table of another size: such a model begins anew.
    pub fn load(&mut self, number: u16, bytes: &[u8]) -> Result<(), PieceError> {
        match number {
            0 => {
                let facts: Facts = postcard::from_bytes(bytes).map_err(|_| PieceError)?;
                if (facts.version, facts.size) != (VERSION, self.facts.size) {
                    return Err(PieceError);
                }
                self.facts = facts;
            }
            1 => self.ledger = postcard::from_bytes(bytes).map_err(|_| PieceError)?,
            _ => {
                let first = usize::from(number - PIECES_BEFORE) * PIECE_SLOTS;
                let slots = self.slots.get_mut(first..first + PIECE_SLOTS).ok_or(PieceError)?;
                let (found, []) = bytes.as_chunks::<6>() else { return Err(PieceError) };
                if found.len() != slots.len() {
                    return Err(PieceError);
                }
                for (slot, found) in slots.iter_mut().zip(found) {
                    for (number, bytes) in slot.iter_mut().zip(found.as_chunks::<2>().0) {
                        let read = u16::from_le_bytes(*bytes);
                        if read != 0 {
                            *number = read;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn encode(what: &impl Serialize) -> Vec<u8> {
    // Nothing in these can fail to be spelled.
    postcard::to_allocvec(what).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn letter(words: &str) -> Features {
        Features::of(format!("From: someone@example.org\r\nSubject: {words}\r\n\r\n{words}\r\n").as_bytes())
    }

    #[test]
    fn one_lesson_judges_the_sibling() {
        let mut model = Model::new(Size::BOX);
        let (spam, sibling) = (letter("cheap watches for you"), letter("cheap watches for your wife"));
        let ham = letter("minutes of the meeting on thursday");
        assert!(model.score(&spam).abs() < f32::EPSILON);
        assert_eq!(model.teach(&spam, Some(Class::Spam)), Taught { before: None, changed: true });
        assert!(model.score(&sibling) > 0.5);
        model.teach(&ham, Some(Class::Ham));
        assert!(model.score(&letter("minutes of the next meeting")) < -0.3, "{}", model.score(&ham));
        assert!(model.score(&sibling) > 0.5);
        assert_eq!(model.class_of(&spam), Some(Class::Spam));
    }

    #[test]
    fn what_is_judged_surely_changes_nothing_more() {
        let mut model = Model::new(Size::BOX);
        let sure = letter("cheap watches again");
        for place in model.places(&sure) {
            model.slots[place][0] = 1024;
        }
        let weights = |model: &Model| model.slots.iter().map(|slot| slot[0]).collect::<Vec<_>>();
        let before = weights(&model);
        model.teach(&sure, Some(Class::Spam));
        assert!(weights(&model) == before, "a sure message moved the weights");
    }

    #[test]
    fn counts_are_halved_before_they_overflow() {
        let mut model = Model::new(Size::ACCOUNT);
        let spam = letter("cheap watches");
        model.teach(&spam, Some(Class::Spam));
        model.facts.counted = Both { ham: 10, spam: COUNTED_MAX };
        model.slots.iter_mut().for_each(|slot| slot[2] = slot[2].saturating_mul(50_000));
        let before = model.score(&spam);
        model.age();
        assert_eq!(model.facts.counted, Both { ham: 5, spam: COUNTED_MAX / 2 });
        assert!(before > 1.0 && model.score(&spam) > 1.0, "{before}");
        assert_eq!(model.class_of(&spam), None);
    }

    #[test]
    fn saved_pieces_make_the_model_again_and_foreign_ones_are_refused() {
        let mut model = Model::new(Size::ACCOUNT);
        assert_eq!(model.take_changed(), []);
        let (spam, ham) = (letter("cheap watches"), letter("minutes of the meeting"));
        model.teach(&spam, Some(Class::Spam));
        let mut saved = model.take_changed();
        model.teach(&ham, Some(Class::Ham));
        saved.extend(model.take_changed());
        assert!(saved.iter().all(|(number, bytes)| *number < model.pieces() && bytes.len() <= 16_320));
        let mut again = Model::new(Size::ACCOUNT);
        for (number, bytes) in &saved {
            again.load(*number, bytes).unwrap();
        }
        assert_eq!((&again.slots, &again.facts, &again.ledger), (&model.slots, &model.facts, &model.ledger));
        assert_eq!(model.take_changed(), []);
        let mut other = Model::new(Size::BOX);
        assert_eq!(other.load(0, &saved[0].1), Err(PieceError));
        assert_eq!(other.load(2, b"short"), Err(PieceError));
        assert_eq!(other.load(u16::MAX, &saved[2].1), Err(PieceError));
    }

    #[test]
    fn a_full_ledger_fits_a_piece_and_forgets_the_oldest() {
        let mut model = Model::new(Size::ACCOUNT);
        let first = letter("first");
        model.teach(&first, Some(Class::Spam));
        for id in 0..super::super::ledger::ENTRIES_MAX as u64 {
            model.ledger.push(Entry { id: u64::MAX - id, class: Class::Spam, step: i16::MIN, counted: true });
        }
        assert_eq!(model.class_of(&first), None);
        assert!(encode(&model.ledger).len() <= 16_320, "{}", encode(&model.ledger).len());
    }

    fn lessons(most: usize) -> impl Strategy<Value = Vec<(String, bool)>> {
        proptest::collection::vec(("[a-h]{1,2}( [a-h]{1,2}){0,5}", any::<bool>()), 1..most)
    }

    fn class(spam: bool) -> Class {
        if spam { Class::Spam } else { Class::Ham }
    }

    /// A model of the saved pieces.
    fn restarted(model: &mut Model, saved: &mut std::collections::BTreeMap<u16, Vec<u8>>) -> Model {
        saved.extend(model.take_changed());
        let mut again = Model::new(model.facts.size);
        for (number, bytes) in saved {
            again.load(*number, bytes).unwrap();
        }
        again
    }

    #[test]
    fn a_message_whose_hashes_share_a_slot_counts_once() {
        let mut model = Model::new(Size::ACCOUNT);
        let text: String = (0..20_000).map(|number| number.to_string() + " ").collect();
        let stuffed = Features::of(format!("Subject: x\r\n\r\n{text}\r\n").as_bytes());
        model.teach(&stuffed, Some(Class::Spam));
        assert!(model.places(&stuffed).count() < stuffed.hashes().len());
        assert_eq!(model.slots.iter().map(|slot| slot[2]).max(), Some(1));
        let sum: f32 = model.shares(&stuffed).map(|(_, share)| share).sum();
        assert!((sum - model.score(&stuffed)).abs() < 0.05, "{sum} and {}", model.score(&stuffed));
    }

    proptest! {
        /// Whatever else is learnt in between, taking messages back leaves what was there before.
        #[test]
        fn what_is_taken_back_leaves_no_trace(lessons in lessons(12)) {
            let mut model = Model::new(Size::ACCOUNT);
            let empty = (model.slots.clone(), model.facts.clone());
            let mut learnt: Vec<Features> = Vec::new();
            for (words, spam) in &lessons {
                let features = letter(words);
                model.teach(&features, Some(class(*spam)));
                learnt.push(features);
            }
            for features in learnt.iter().step_by(2).chain(learnt.iter().skip(1).step_by(2)) {
                model.teach(features, None);
            }
            prop_assert_eq!((model.slots, model.facts), empty);
        }

        /// The same on a table that knows something, with a restart between any two steps; others that
        /// are learnt in between stay learnt.
        #[test]
        fn a_mistake_is_taken_back_after_others_and_restarts(before in lessons(6), mistake in "[a-h]{3}", after in lessons(6)) {
            let mut model = Model::new(Size::ACCOUNT);
            let mut saved = std::collections::BTreeMap::new();
            for (words, spam) in &before {
                model.teach(&letter(words), Some(class(*spam)));
            }
            model = restarted(&mut model, &mut saved);
            let mistake = letter(&mistake);
            let known = (model.slots.clone(), model.facts.clone());
            model.teach(&mistake, Some(Class::Spam));
            for (words, spam) in &after {
                model = restarted(&mut model, &mut saved);
                // What was learnt before would be taken back first: another message.
                model.teach(&letter(&format!("{words} zz")), Some(class(*spam)));
            }
            model = restarted(&mut model, &mut saved);
            prop_assert_eq!(model.class_of(&mistake), Some(Class::Spam));
            model.teach(&mistake, None);
            prop_assert_eq!(model.class_of(&mistake), None);
            model = restarted(&mut model, &mut saved);
            for (words, _) in &after {
                model.teach(&letter(&format!("{words} zz")), None);
            }
            prop_assert_eq!((model.slots, model.facts), known);
        }

        /// As long as none is judged surely, the Bayesian half does not depend on the order at all.
        #[test]
        fn counts_do_not_depend_on_the_order(mut lessons in lessons(8), judged in "[a-h]{1,2}( [a-h]{1,2}){0,5}") {
            lessons.sort();
            lessons.dedup_by(|one, other| one.0 == other.0);
            let learn = |lessons: &mut dyn Iterator<Item = &(String, bool)>| {
                let mut model = Model::new(Size::ACCOUNT);
                for (words, spam) in lessons {
                    model.teach(&letter(words), Some(class(*spam)));
                }
                model
            };
            let (forth, back) = (learn(&mut lessons.iter()), learn(&mut lessons.iter().rev()));
            let all = |model: &Model| usize::from(model.facts.counted.ham) + usize::from(model.facts.counted.spam);
            prop_assume!(all(&forth) == lessons.len() && all(&back) == lessons.len());
            let bayes = |model: &Model| model.scores(&letter(&judged)).1.to_bits();
            prop_assert_eq!(bayes(&forth), bayes(&back));
        }
    }
}
