//! `pillarbox board`: which profile is used on this computer and why, and what its memory budget is made of.

use std::io::{self, Write as _};

use serde::Serialize;

use super::{Failure, show};
use crate::config::Settings;
use crate::config::board::{Board, Choice, Machine};
use crate::config::budget::{Memory, mib};

/// Arguments of `board`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show this board instead of the one found
    #[arg(long, value_name = "NAME")]
    board: Option<String>,
    /// Show all boards
    #[arg(long, conflicts_with = "board")]
    list: bool,
    /// Answer in JSON, for scripts
    #[arg(long)]
    json: bool,
}

/// A board as scripts see it.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    title: &'a str,
    target: &'a str,
    ram_mib: u32,
    origin: &'a str,
    reason: &'a str,
    machine: &'a Machine,
    budget_kib: u64,
    sum_kib: u64,
    memory: &'a Memory,
    threads: u8,
}

/// Shows the board.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    if args.list {
        let boards = Board::all();
        if args.json {
            let names: Vec<&str> = boards.iter().map(|board| board.name).collect();
            show::json(&mut out, &names)?;
        } else {
            let row = |board: &Board| [board.name.to_owned(), board.target.clone(), board.title.clone()];
            let heading = ["Board", "Target", "What it is"].map(str::to_owned);
            let rows: Vec<[String; 3]> = std::iter::once(heading).chain(boards.iter().map(row)).collect();
            show::table(&mut out, &rows)?;
        }
        return Ok(());
    }
    let choice = Choice::new(args.board.as_deref())?;
    let board = &choice.board;
    let mut settings = Settings::default();
    settings.take_from(board, &toml::Table::new());
    let memory = settings.memory(board);
    if args.json {
        let shown = Shown {
            name: board.name,
            title: &board.title,
            target: &board.target,
            ram_mib: board.ram_mib,
            origin: &board.origin,
            reason: &choice.reason,
            machine: &Machine::here(),
            budget_kib: memory.budget_kib,
            sum_kib: memory.sum_kib(),
            memory: &memory,
            threads: board.memory.threads,
        };
        show::json(&mut out, &shown)?;
        return Ok(());
    }
    writeln!(out, "{}: {}", board.name, board.title)?;
    writeln!(out, "Picked because {}.", picked(&choice))?;
    writeln!(out, "Figures: {}", board.origin)?;
    writeln!(out)?;
    for part in &memory.parts {
        writeln!(out, "{:>10}  {}", mib(part.kib), part.name)?;
    }
    writeln!(out, "{:>10}  at most in all, of a budget of {}", mib(memory.sum_kib()), mib(memory.budget_kib))?;
    Ok(())
}

fn picked(choice: &Choice) -> String {
    let named = choice.reason.starts_with("named");
    if named { "it was named on the command line".to_owned() } else { choice.reason.clone() }
}
