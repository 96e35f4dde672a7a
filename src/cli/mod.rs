//! One file per subcommand.

use std::process::ExitCode;

pub mod account; // who may log in
pub mod alias; //   addresses whose mail goes to accounts
mod ask; //         questions to the person at the terminal
pub mod domain; //  whose mail stays here
pub mod office; //  where orders go: the running server or the store
mod show; //        tables, amounts, JSON

/// Runs the command line.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::SUCCESS
}
