//! `pillarbox serve`: the server, for real use.

use std::path::PathBuf;

use super::Failure;
use crate::config::Settings;
use crate::config::board::Choice;
use crate::daemon::{self, OnHangup, log};

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The config file; `pillarbox.sample.toml` shows every setting
    #[arg(long, value_name = "FILE", default_value = "/etc/pillarbox/pillarbox.toml")]
    config: PathBuf,
    /// Use this board's memory budget instead of the one found (`pillarbox board` shows it)
    #[arg(long, value_name = "NAME")]
    board: Option<String>,
}

/// Runs until a signal says stop.
pub(super) fn run(args: &Args, log_level: Option<&str>) -> Result<(), Failure> {
    let choice = Choice::new(args.board.as_deref())?;
    let mut settings = Settings::load_for(&args.config, &choice)?;
    if let Some(level) = log_level {
        level.clone_into(&mut settings.log.level);
    }
    let handle = log::start(&settings.log)?;
    let setup = settings.setup();
    daemon::check_ground(&setup)?;
    let prepared = daemon::prepare(setup)?;
    tracing::info!(board = choice.board.name, reason = choice.reason, "memory budget");
    let (config, level) = (args.config.clone(), log_level.map(str::to_owned));
    let read = move || {
        let mut new = Settings::load_for(&config, &choice).map_err(|error| error.to_string())?.changeable();
        // What was said on the command line still goes before what the file says.
        if let Some(level) = &level {
            level.clone_into(&mut new.log_level);
        }
        Ok(new)
    };
    let on_hangup = OnHangup::Reload(Box::new(read));
    Ok(daemon::run(prepared, &on_hangup, handle.as_ref(), |_| Ok(()), |_, ()| Ok(()))?)
}
