//! `pillarbox check`: is this config file good, and could the server start with it now?

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{Failure, print};
use crate::config::Settings;
use crate::config::board::Choice;
use crate::config::budget::mib;
use crate::daemon;
use crate::daemon::listen::Service;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The config file to check
    #[arg(long, value_name = "FILE", default_value = "/etc/pillarbox/pillarbox.toml")]
    config: PathBuf,
    /// Check for this board's memory budget instead of the one found (`pillarbox board` shows it)
    #[arg(long, value_name = "NAME")]
    board: Option<String>,
    /// Look at the file alone: do not try ports, user and certificates
    #[arg(long)]
    file_only: bool,
}

/// Reads the file, and tries what `serve` would need.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let choice = Choice::new(args.board.as_deref())?;
    let settings = Settings::load_for(&args.config, &choice)?;
    if !args.file_only {
        daemon::rehearse(&settings.clone().setup())?;
    }
    let mut text = format!("{} is good.\n", args.config.display());
    let _ = writeln!(text, "  {:<12} {}", "data", settings.data.display());
    let _ = writeln!(text, "  {:<12} {}", "hostname", settings.hostname());
    let memory = settings.memory(&choice.board);
    let (sum, budget) = (mib(memory.sum_kib()), mib(memory.budget_kib));
    let _ = writeln!(text, "  {:<12} {}: at most {sum} of {budget}", "memory", choice.board.name);
    for service in Service::ALL {
        let places: Vec<String> = settings.listen.endpoints(service).iter().map(ToString::to_string).collect();
        let places = if places.is_empty() { "off".to_owned() } else { places.join(", ") };
        let _ = writeln!(text, "  {:<12} {places}", service.name());
    }
    print(&text)
}
