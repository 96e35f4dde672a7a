//! The crash laboratory for anyone to run: cuts the power under a store as often as you like.
//!
//! `cargo run --release --example power-lab -- --cuts 1000000`. The summary goes to stdout, progress
//! to stderr; a failure prints what to add to the command line to see it alone.

use std::process::ExitCode;

use clap::Parser;

#[path = "../tests/support/power/mod.rs"]
mod power;

use power::cut::Card;
use power::lab::{self, Options};

/// Cuts the power under a store and looks at what is left.
#[derive(Debug, Parser)]
struct Args {
    /// How many cuts; about a third of them are followed by a second one during recovery
    #[arg(long, default_value_t = 1_000_000)]
    cuts: usize,
    /// What everything is chosen by
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this journey
    #[arg(long, value_name = "NAME")]
    journey: Option<String>,
    /// Only the cut with this number
    #[arg(long, value_name = "NUMBER")]
    only: Option<usize>,
    /// Cuts at one time; as many as there are processors unless given
    #[arg(long)]
    jobs: Option<usize>,
    /// Never turn the first block of mail.redb to noise
    #[arg(long)]
    spare_first_block: bool,
    /// A card that forgets syncs it said were done: shows that losses are found
    #[arg(long)]
    forgetful: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let options = Options {
        cuts: args.cuts,
        seed: args.seed,
        journey: args.journey,
        only: args.only,
        jobs: args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        card: Card { first_block: !args.spare_first_block, forgetful: args.forgetful },
    };
    match lab::run(&options, &|done, of| eprintln!("{done} of {of} cuts")) {
        Ok(summary) => {
            println!("{summary}");
            if summary.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}
