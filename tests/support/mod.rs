//! Plays transcripts (`tests/session/README.md`) against anything that speaks like a server.
//!
//! `script` reads a file into steps, `words` fills in what depends on the run, `world` is the store
//! with its facts, `wire` drives one session without a socket, `network` lets the program's own loop
//! drive it over one, and [`play`] ties them together. It knows no protocol: a caller says how a
//! session is made.

#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a player that panics is a test that fails")]

pub(crate) mod network;
pub(crate) mod script;
pub(crate) mod sent;
pub(crate) mod wire;
pub(crate) mod words;
pub(crate) mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

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
    /// As the transcript writes them, over a real socket and real TLS.
    Network,
}

/// One way of playing transcripts. Several are played at one time, each in a world of its own.
pub(crate) trait Stage: Sync {
    /// The paces at which each script is played.
    fn paces(&self) -> &[Pace] {
        &[Pace::Whole, Pace::ByteByByte, Pace::Network]
    }

    /// We are the client: `S` lines are what reaches us, and `C` lines what we say.
    fn is_client(&self) -> bool {
        false
    }

    /// Opens one more connection for a script in its world.
    fn open(&self, script: &Script, world: &World, pace: Pace) -> Result<Box<dyn Wire>, String>;
}

/// Transcripts played at one time: most of their time is the disk's.
const PLAYERS: usize = 4;

/// Plays every transcript of one folder of `tests/session` and panics with all that failed.
pub(crate) fn play_folder(folder: &str, stage: &dyn Stage) {
    let wanted = std::env::var("PLAY").unwrap_or_default();
    let mut paths = transcripts(folder);
    paths.retain(|path| path.to_string_lossy().contains(&wanted));
    assert!(!paths.is_empty() || !wanted.is_empty(), "no transcripts in tests/session/{folder}");
    let next = AtomicUsize::new(0);
    let player = || {
        let mut failures = Vec::new();
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            for &pace in stage.paces() {
                if let Err(failure) = play(path, stage, pace) {
                    failures.push(format!("{}:{failure} ({pace:?})", path.display()));
                }
            }
        }
        failures
    };
    let mut failures: Vec<String> = std::thread::scope(|scope| {
        let players: Vec<_> = (0..PLAYERS).map(|_| scope.spawn(player)).collect();
        players.into_iter().flat_map(|player| player.join().expect("a player that ends")).collect()
    });
    failures.sort();
    assert!(
        failures.is_empty(),
        "{} of {} failed:\n{}",
        failures.len(),
        stage.paces().len() * paths.len(),
        failures.join("\n")
    );
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
    let script = Script::parse(&text, stage.is_client())?;
    if pace == Pace::Network && script.waits_out_patience() {
        return Ok(());
    }
    let mut world = World::new();
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
                line.scram.binding = line.wire.binding();
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
                    line.scram.note(&heard);
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
