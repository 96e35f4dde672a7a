//! Spam learning: what a learner has saved is not durable at once, so after a cut any save may be the
//! last one left, whole; but what was forgotten stays forgotten.

use std::collections::BTreeMap;

use pillarbox::mail::mailbox::AccountId;
use pillarbox::store::Store;

use super::command::Command;
use super::driver::Driver;
use super::journey::mail;
use super::judge::Failure;
use super::letter::{Print, print_of};

/// Pieces by number.
pub(crate) type Pieces = BTreeMap<u16, Print>;

/// Pieces that are looked for.
const PIECES: u16 = 4;

/// What learners may have: 0 is the box, an account one more than its number. Of each its versions,
/// the oldest that may come back first.
pub(crate) type Learned = BTreeMap<u32, Vec<Pieces>>;

fn learner(number: u32) -> Option<AccountId> {
    number.checked_sub(1).map(AccountId)
}

/// Adds a version: the last one with some pieces anew.
pub(crate) fn save(learned: &mut Learned, who: u32, pieces: &[(u16, Vec<u8>)]) {
    let versions = learned.entry(who).or_insert_with(|| vec![Pieces::new()]);
    let mut next = versions.last().cloned().unwrap_or_default();
    next.extend(pieces.iter().map(|(number, bytes)| (*number, print_of(bytes))));
    versions.push(next);
}

/// Leaves of each only the last version: everything is durable, or is looked at now.
pub(crate) fn only_last(learned: &mut Learned) {
    for versions in learned.values_mut() {
        versions.drain(..versions.len() - 1);
    }
}

/// Compares what a store has of these learners, and leaves only that as what they may have.
pub(crate) fn compare(store: &Store, learned: &mut Learned) -> Result<(), String> {
    if learned.is_empty() {
        return Ok(());
    }
    let reader = store.reader().map_err(|error| error.to_string())?;
    for (number, versions) in learned {
        let mut found = Pieces::new();
        for piece in 0..PIECES {
            let bytes = reader.learned(learner(*number), piece).map_err(|error| error.to_string())?;
            found.extend(bytes.map(|bytes| (piece, print_of(&bytes))));
        }
        if !versions.contains(&found) {
            return Err(format!("learner {number} has {found:?}, and may have {versions:?}"));
        }
        *versions = vec![found];
    }
    Ok(())
}

/// Learns and forgets, with mail in between.
pub(crate) fn run(driver: &mut Driver) -> Result<(), Failure> {
    for _ in 0..14 {
        let learner = u32::try_from(driver.dice.below(3)).unwrap_or(0);
        if driver.dice.percent(15) {
            driver.one(Command::Forget { learner: self::learner(learner).map(|account| account.0) })?;
        } else {
            let mut pieces = Vec::new();
            for number in 0..PIECES {
                if driver.dice.percent(60) {
                    let mut bytes = vec![0; 100 + driver.dice.below(3000)];
                    driver.dice.fill(&mut bytes);
                    pieces.push((number, bytes));
                }
            }
            driver.one(Command::Learn { learner: self::learner(learner).map(|account| account.0), pieces })?;
        }
        if driver.dice.percent(50) {
            mail(driver)?;
        }
    }
    Ok(())
}
