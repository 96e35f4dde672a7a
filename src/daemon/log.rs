//! The log: one line an event, for people or as JSON, on standard error.
//!
//! The lines of a session share its id. No line ever holds a password or a message's text: nothing
//! that could is handed to `tracing` anywhere in this program.

use std::io::{self, IsTerminal as _};

use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LogConfig {
    /// The least important events that are logged: `error`, `warn`, `info`, `debug`, `trace` or `off`;
    /// for one part of the program `info,pillarbox::net=debug`. Default: `info`.
    pub level: String,
    /// How a line looks. Default: `human`.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Human }
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// A JSON object, for programs.
    Json,
}

/// Changes the level while the program runs.
#[derive(Clone, Debug)]
pub struct LogHandle(reload::Handle<Targets, Registry>);

/// Reads a level as [`LogConfig::level`] has it.
///
/// # Errors
/// A sentence that says what a level looks like.
pub fn parse_level(text: &str) -> Result<Targets, String> {
    let wrong = || {
        format!(
            "`{text}` is no log level; write `error`, `warn`, `info`, `debug`, `trace`, `off`, or parts such as `info,pillarbox::net=debug`"
        )
    };
    if text.trim().is_empty() {
        return Err(wrong());
    }
    // A single word could also be read as the name of a part; we do not want that.
    if !text.contains(['=', ',']) {
        let level = text.parse::<LevelFilter>().map_err(|_| wrong())?;
        // The DNS library tells whole answers, which are whoever's mail we look at.
        let library = if level == LevelFilter::TRACE { level } else { LevelFilter::OFF };
        let libraries = ["hickory_net", "hickory_proto", "hickory_resolver"].map(|target| (target, library));
        return Ok(Targets::new().with_default(level).with_targets(libraries));
    }
    text.parse().map_err(|_| wrong())
}

/// Starts logging. A second call in one process changes nothing and returns `None`.
///
/// # Errors
/// The level is not one.
pub fn start(config: &LogConfig) -> Result<Option<LogHandle>, String> {
    let (filter, handle) = reload::Layer::new(parse_level(&config.level)?);
    // systemd's journal puts its own time before each line.
    let in_journal = std::env::var_os("JOURNAL_STREAM").is_some() && !io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer = match (config.format, in_journal) {
        (LogFormat::Json, _) => layer.json().flatten_event(true).with_current_span(false).boxed(),
        (LogFormat::Human, true) => layer.with_target(false).without_time().boxed(),
        (LogFormat::Human, false) => layer.with_target(false).boxed(),
    };
    let started = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    Ok(started.ok().map(|()| LogHandle(handle)))
}

impl LogHandle {
    /// Changes the level; a level that is none changes nothing and is an error.
    ///
    /// # Errors
    /// The level is not one.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        let targets = parse_level(level)?;
        self.0.modify(|filter| *filter = targets).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_words_or_lists_of_parts() {
        for good in ["error", "info", "off", "DEBUG", "info,pillarbox::net=debug"] {
            assert!(parse_level(good).is_ok(), "{good}");
        }
        for bad in ["", "loud", "info,pillarbox=loud"] {
            assert!(parse_level(bad).unwrap_err().contains("is no log level"), "{bad}");
        }
    }
}
