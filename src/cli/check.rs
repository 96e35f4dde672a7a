//! `pillarbox check`: is this config file good, and could the server start with it now?

use std::fmt::Write as _;
use std::path::PathBuf;

use super::{Failure, print};
use crate::config::Settings;
use crate::daemon;
use crate::daemon::listen::Service;

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The config file to check
    #[arg(long, value_name = "FILE", default_value = "/etc/pillarbox/pillarbox.toml")]
    config: PathBuf,
    /// Look at the file alone: do not try ports, user and certificates
    #[arg(long)]
    file_only: bool,
}

/// Reads the file, and tries what `serve` would need.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let settings = Settings::load(&args.config)?;
    if !args.file_only {
        daemon::rehearse(&settings.clone().setup())?;
    }
    let mut text = format!("{} is good.\n", args.config.display());
    let _ = writeln!(text, "  {:<12} {}", "data", settings.data.display());
    let _ = writeln!(text, "  {:<12} {}", "hostname", settings.hostname());
    for service in Service::ALL {
        let places: Vec<String> = settings.listen.endpoints(service).iter().map(ToString::to_string).collect();
        let places = if places.is_empty() { "off".to_owned() } else { places.join(", ") };
        let _ = writeln!(text, "  {:<12} {places}", service.name());
    }
    print(&text)
}
