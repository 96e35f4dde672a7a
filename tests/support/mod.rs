//! Plays transcripts (`tests/session/README.md`) against anything that speaks like a server.
//!
//! `script` reads a file into steps, `words` fills in what depends on the run, `world` is the store
//! with its facts, `wire` drives one session without a socket, and [`play`] ties them together. It
//! knows no protocol: a caller says how a connection is opened.

pub(crate) mod pop3;
pub(crate) mod script;
pub(crate) mod wire;
pub(crate) mod words;
pub(crate) mod world;

use std::fs;
use std::path::{Path, PathBuf};

use script::{Action, Event, Script, WirePart};
use wire::{Heard, Wire};
use world::World;

/// How the bytes of the client reach the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As the transcript writes them.
    Whole,
    /// One at a time.
    ByteByByte,
}

/// One way of playing transcripts.
pub(crate) trait Stage {
    /// Opens one more connection for a script in its world.
    fn open(&self, script: &Script, world: &World, pace: Pace) -> Result<Box<dyn Wire>, String>;
}

/// Plays every transcript of one folder of `tests/session` and panics with all that failed.
pub(crate) fn play_folder(folder: &str, stage: &dyn Stage) {
    let wanted = std::env::var("PLAY").unwrap_or_default();
    let mut failures = Vec::new();
    let mut played = 0;
    for path in transcripts(folder) {
        if !path.to_string_lossy().contains(&wanted) {
            continue;
        }
        for pace in [Pace::Whole, Pace::ByteByByte] {
            if let Err(failure) = play(&path, stage, pace) {
                failures.push(format!("{}:{failure} ({pace:?})", path.display()));
            }
        }
        played += 1;
    }
    assert!(failures.is_empty(), "{} failed of {played}:\n{}", failures.len(), failures.join("\n"));
    assert!(played > 0 || !wanted.is_empty(), "no transcripts in tests/session/{folder}");
}

fn transcripts(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/session").join(folder);
    let Ok(entries) = fs::read_dir(&folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    paths
}

/// Plays one transcript; the error is `line: what went wrong`.
pub(crate) fn play(path: &Path, stage: &dyn Stage, pace: Pace) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|error| format!("0: {error}"))?;
    let script = Script::parse(&text)?;
    let world = World::new();
    for step in &script.head {
        world.set_up(&step.action).map_err(|error| format!("{}: {error}", step.line))?;
    }
    let mut play = Play { script: &script, world, stage, pace, wires: Vec::new() };
    let mut steps = script.steps.iter().peekable();
    while let Some(step) = steps.next() {
        // Consecutive lines of the client reach the server in one piece.
        let more = steps.peek().is_some_and(|next| step.continues_in(next));
        play.step(&step.action, more).map_err(|error| format!("{}: {error}", step.line))?;
    }
    play.finish().map_err(|error| format!("end: {error}"))
}

/// One connection and what the player remembers of it.
struct Line {
    wire: Box<dyn Wire>,
    unsent: Vec<u8>,
    last: String,
    skipping: bool,
    scram: words::Scram,
}

struct Play<'a> {
    script: &'a Script,
    world: World,
    stage: &'a dyn Stage,
    pace: Pace,
    wires: Vec<Option<Line>>,
}

impl Play<'_> {
    fn step(&mut self, action: &Action, more: bool) -> Result<(), String> {
        match action {
            Action::Wire { connection, part } => self.wire(*connection, part, more),
            Action::Event(Event::Silence(connection)) => self.line(*connection)?.wire.silence(),
            Action::Event(Event::Hangup(connection)) => self.line(*connection)?.wire.hang_up(),
            Action::Event(Event::Stop) => {
                for line in self.wires.iter_mut().flatten() {
                    line.wire.stop()?;
                }
                Ok(())
            }
            Action::Closed(connection) => match self.line(*connection)?.wire.hear(true) {
                Heard::Closed => Ok(()),
                other => Err(format!("expected the connection to be closed, got {other}")),
            },
            Action::Patience { seconds, connection } => {
                let patience = self.line(*connection)?.wire.patience();
                match patience {
                    Some(found) if found.as_secs() != *seconds => Err(format!("patience is {found:?}")),
                    _ => Ok(()),
                }
            }
            other => self.world.step(other),
        }
    }

    fn wire(&mut self, connection: usize, part: &WirePart, more: bool) -> Result<(), String> {
        match part {
            WirePart::Send { text, times } => {
                self.line(connection)?;
                self.expect_silence()?;
                let line = self.line(connection)?;
                let bytes = words::fill(text, &mut line.scram, &line.last)?;
                for _ in 0..*times {
                    line.unsent.extend_from_slice(&bytes);
                }
                if !more {
                    let bytes = std::mem::take(&mut line.unsent);
                    line.wire.send(&bytes)?;
                }
                Ok(())
            }
            WirePart::Skip => {
                self.line(connection)?.skipping = true;
                Ok(())
            }
            WirePart::Expect { pattern, exact } => {
                let line = self.line(connection)?;
                let wanted = words::fill(pattern, &mut line.scram, &line.last)?;
                let wanted = String::from_utf8_lossy(&wanted).into_owned();
                loop {
                    let heard = match line.wire.hear(true) {
                        Heard::Line(heard) => String::from_utf8_lossy(&heard).into_owned(),
                        other => return Err(format!("expected {wanted:?}, got {other}")),
                    };
                    let fits = if *exact { heard == wanted } else { words::matches(&wanted, &heard) };
                    if !fits && line.skipping {
                        continue;
                    }
                    line.skipping = false;
                    if !fits {
                        return Err(format!("expected {wanted:?}, got {heard:?}"));
                    }
                    line.last = heard;
                    return Ok(());
                }
            }
            WirePart::Tls => {
                self.line(connection)?;
                self.expect_silence()?;
                self.line(connection)?.wire.start_tls()
            }
        }
    }

    /// The connection of this number (from 1), opened when it is not yet.
    fn line(&mut self, connection: usize) -> Result<&mut Line, String> {
        let index = connection.checked_sub(1).ok_or("connections are counted from 1")?;
        while self.wires.len() <= index {
            self.wires.push(None);
        }
        if self.wires[index].is_none() {
            let wire = self.stage.open(self.script, &self.world, self.pace)?;
            let line =
                Line { wire, unsent: Vec::new(), last: String::new(), skipping: false, scram: words::Scram::default() };
            self.wires[index] = Some(line);
        }
        self.wires[index].as_mut().ok_or_else(|| "no connection".into())
    }

    /// Everything the server said so far must have been expected.
    fn expect_silence(&mut self) -> Result<(), String> {
        for (index, line) in self.wires.iter_mut().enumerate() {
            let Some(line) = line.as_mut().filter(|line| line.unsent.is_empty() && !line.skipping) else { continue };
            if let heard @ (Heard::Line(_) | Heard::Part(_)) = line.wire.hear(false) {
                return Err(format!("on connection {} nobody expected {heard}", index + 1));
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), String> {
        self.expect_silence()?;
        for line in self.wires.iter_mut().flatten() {
            line.wire.hang_up()?;
        }
        Ok(())
    }
}
