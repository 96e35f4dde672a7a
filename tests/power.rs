//! The crash laboratory in CI: a few thousand power cuts under the real store, on a simulated disk.
//!
//! `examples/power-lab.rs` makes a million of them. A failure prints what to pass to it to see that
//! cut alone.

use std::io::Write as _;

#[path = "support/power/mod.rs"]
mod power;

use power::cut::Card;
use power::lab::{self, Options};

/// Cuts, not counting those that fall into a recovery.
const CUTS: usize = 2_400;

fn options(cuts: usize, seed: u64, forgetful: bool) -> Options {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    Options { cuts, seed, journey: None, only: None, jobs, card: Card { first_block: true, forgetful } }
}

/// Prints past the test runner, which keeps what a passing test prints to itself.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

#[test]
fn no_power_cut_loses_or_doubles_anything() {
    let summary = lab::run(&options(CUTS, 1, false), &|_, _| {}).expect("a laboratory");
    say(&summary.to_string());
    assert!(summary.is_clean(), "cargo run --release --example power-lab -- with what is told above shows each");
    assert_eq!(summary.cuts, CUTS);
    assert!(summary.journeys.len() >= 20, "some journeys were left out: {:?}", summary.journeys);
}

#[test]
fn a_card_that_forgets_its_last_sync_is_found_out() {
    let summary = lab::run(&options(400, 2, true), &|_, _| {}).expect("a laboratory");
    assert!(summary.lost > 20, "it forgot what was acknowledged, and yet: {summary}");
    assert!(summary.failures.iter().all(|failure| failure.contains("--seed 2 --forgetful --only")));
}

#[test]
fn a_seed_means_the_same_recording_in_every_run() {
    for name in lab::journeys() {
        let [one, other] = [(); 2].map(|()| lab::shape(name, 5).expect("a recording"));
        assert!(one.len() > 20, "{name}: only {} events", one.len());
        assert!(one == other, "two recordings of {name} differ");
    }
}
