//! Makes recordings, cuts each many times, and counts what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use pillarbox::store::StoreConfig;

use super::cut::{Card, Shape};
use super::dice::{Dice, mix};
use super::driver::{Driver, Promise, Recording};
use super::import;
use super::journey::{JOURNEYS, Journey, Start, settle_in};
use super::judge::{Failure, Kind};
use super::medium::{Files, Medium, scratch};
use super::old::schema1;

/// Cuts made from one recording. Part of what a seed and a number mean: change it, and reported
/// failures can't be repeated.
const CUTS_PER_RECORDING: usize = 100;

/// Cuts in a row, each in what came of the one before, at most.
const CUTS_IN_A_ROW: usize = 3;

/// Percent of cuts that are followed by another.
const AGAIN: usize = 34;

/// Failures that are told; further ones are only counted.
const TOLD_MAX: usize = 20;

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How many cuts, not counting second and third ones.
    pub(crate) cuts: usize,
    pub(crate) seed: u64,
    /// Only this journey.
    pub(crate) journey: Option<String>,
    /// Only the cut with this number.
    pub(crate) only: Option<usize>,
    pub(crate) jobs: usize,
    pub(crate) card: Card,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) cuts: usize,
    /// Of these, followed by a second cut; and of those, by a third.
    pub(crate) again: [usize; CUTS_IN_A_ROW - 1],
    pub(crate) recordings: usize,
    /// Cuts by journey.
    pub(crate) journeys: BTreeMap<&'static str, usize>,
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    pub(crate) unopenable: usize,
    pub(crate) wrong: usize,
    pub(crate) failures: Vec<String>,
    seed: u64,
}

impl Summary {
    pub(crate) fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.unopenable + self.wrong == 0
    }

    fn count(&mut self, failure: &Failure, how: String) {
        *match failure.kind {
            Kind::Lost => &mut self.lost,
            Kind::Doubled => &mut self.doubled,
            Kind::Unopenable => &mut self.unopenable,
            Kind::Wrong => &mut self.wrong,
        } += 1;
        if self.failures.len() < TOLD_MAX {
            self.failures.push(how);
        }
    }

    fn add(&mut self, other: Self) {
        self.cuts += other.cuts;
        for (sum, more) in self.again.iter_mut().zip(other.again) {
            *sum += more;
        }
        self.recordings += other.recordings;
        for (journey, cuts) in other.journeys {
            *self.journeys.entry(journey).or_default() += cuts;
        }
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.unopenable += other.unopenable;
        self.wrong += other.wrong;
        self.failures.extend(other.failures);
        self.failures.truncate(TOLD_MAX);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(out, "{failure}")?;
        }
        let Self { cuts, again: [second, third], recordings, seed, .. } = self;
        writeln!(
            out,
            "{cuts} cuts, {} lost, {} doubled, {} unopenable, {} wrong",
            self.lost, self.doubled, self.unopenable, self.wrong
        )?;
        write!(out, "seed {seed}: {recordings} recordings, {second} second cuts, {third} third cuts;")?;
        for (journey, cuts) in &self.journeys {
            write!(out, " {journey} {cuts}")?;
        }
        Ok(())
    }
}

/// What is under way, for the message when something panics.
static UNDER_WAY: Mutex<Vec<(usize, String)>> = Mutex::new(Vec::new());

/// Makes a panic in any thread, the store's among them, tell which cuts were under way.
fn tell_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |facts| {
            for (_, how) in UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                eprintln!("a panic while under way: {how}");
            }
            before(facts);
        }));
    });
}

fn now_under_way(job: usize, how: String) {
    let mut under_way = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    under_way.retain(|(other, _)| *other != job);
    under_way.push((job, how));
}

/// Runs what the options say; tells progress to `progress` now and then.
pub(crate) fn run(options: &Options, progress: &(dyn Fn(usize, usize) + Sync)) -> Result<Summary, String> {
    let chosen = |journey: &&Journey| options.journey.as_deref().is_none_or(|name| name == journey.name);
    let journeys = JOURNEYS.iter().filter(chosen).collect::<Vec<_>>();
    if journeys.is_empty() {
        let names = self::journeys().collect::<Vec<_>>();
        return Err(format!("there is no such journey; there are {}", names.join(", ")));
    }
    tell_panics();
    let folder = prepared()?;
    let numbers = options.only.map_or(0..options.cuts, |only| only..only + 1);
    let next = AtomicUsize::new(numbers.start / CUTS_PER_RECORDING);
    let (done, told) = (AtomicUsize::new(0), Mutex::new(Instant::now()));
    let job = |job: usize| {
        let mut summary = Summary::default();
        loop {
            let recording = next.fetch_add(1, Ordering::Relaxed);
            let first = recording * CUTS_PER_RECORDING;
            if first >= numbers.end {
                UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner).retain(|(other, _)| *other != job);
                return summary;
            }
            let cuts = first.max(numbers.start)..(first + CUTS_PER_RECORDING).min(numbers.end);
            let journey = journeys[recording % journeys.len()];
            let bench = Bench { options, journey, folder: folder.path(), job };
            bench.recording(mix(options.seed, recording as u64), cuts.clone(), &mut summary);
            let sum = done.fetch_add(cuts.len(), Ordering::Relaxed) + cuts.len();
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.elapsed() >= TELL_EVERY {
                *told = Instant::now();
                progress(sum, numbers.len());
            }
        }
    };
    let mut sum = Summary { seed: options.seed, ..Summary::default() };
    thread::scope(|scope| {
        let job = &job;
        let jobs = (0..options.jobs.max(1)).map(|number| scope.spawn(move || job(number))).collect::<Vec<_>>();
        for job in jobs {
            sum.add(job.join().expect("a job"));
        }
    });
    Ok(sum)
}

/// The names of all journeys.
pub(crate) fn journeys() -> impl Iterator<Item = &'static str> {
    JOURNEYS.iter().map(|journey| journey.name)
}

/// What happens to the files in one recording of a journey, contents left out.
#[allow(dead_code, reason = "the test's; who runs the laboratory by hand repeats a seed instead")]
pub(crate) fn shape(journey: &str, seed: u64) -> Result<Vec<Shape>, String> {
    let journey = JOURNEYS.iter().find(|known| known.name == journey).ok_or("there is no such journey")?;
    let folder = prepared()?;
    let mut dice = Dice::new(seed);
    let config = journey.config(&mut dice);
    let recording = record(journey, folder.path(), &config, dice).map_err(|failure| failure.to_string())?;
    Ok(recording.log.shape())
}

/// A folder with what journeys look for.
fn prepared() -> Result<tempfile::TempDir, String> {
    let told = |error: std::io::Error| error.to_string();
    let folder = tempfile::tempdir_in(scratch()).map_err(told)?;
    std::fs::write(folder.path().join(import::FILE), import::mbox()).map_err(told)?;
    Ok(folder)
}

/// Drives a store through a journey.
fn record(journey: &Journey, folder: &Path, config: &StoreConfig, mut dice: Dice) -> Result<Recording, Failure> {
    let (mut files, mut promise) = match journey.start {
        Start::Schema1 => schema1(),
        Start::Blank | Start::Usual => (Files::default(), Promise::nothing()),
    };
    if journey.start == Start::Usual {
        let medium = Medium::new(files, folder);
        let mut driver = Driver::open(&medium, config, &promise, Dice::new(dice.next()))?;
        settle_in(&mut driver)?;
        driver.close()?;
        (files, promise) = driver.into_start();
    }
    let medium = Medium::new(files, folder);
    let mut driver = Driver::open(&medium, config, &promise, Dice::new(dice.next()))?;
    (journey.go)(&mut driver)?;
    driver.close()?;
    Ok(driver.finish())
}

/// One recording and its cuts.
struct Bench<'o> {
    options: &'o Options,
    journey: &'static Journey,
    folder: &'o Path,
    job: usize,
}

impl Bench<'_> {
    /// How to repeat one cut.
    fn how(&self, number: usize) -> String {
        let Options { seed, card, .. } = self.options;
        let journey = self.options.journey.as_ref().map_or_else(String::new, |name| format!(" --journey {name}"));
        let spare = if card.first_block { "" } else { " --spare-first-block" };
        let forgetful = if card.forgetful { " --forgetful" } else { "" };
        format!("{}, --seed {seed}{journey}{spare}{forgetful} --only {number}", self.journey.name)
    }

    fn recording(&self, seed: u64, cuts: std::ops::Range<usize>, summary: &mut Summary) {
        now_under_way(self.job, self.how(cuts.start));
        let mut dice = Dice::new(seed);
        let config = self.journey.config(&mut dice);
        summary.recordings += 1;
        summary.cuts += cuts.len();
        *summary.journeys.entry(self.journey.name).or_default() += cuts.len();
        let recording = match record(self.journey, self.folder, &config, dice) {
            Ok(recording) => recording,
            Err(failure) => {
                summary.count(&failure, format!("{} (before any cut): {failure}", self.how(cuts.start)));
                return;
            }
        };
        for number in cuts {
            now_under_way(self.job, self.how(number));
            let mut dice = Dice::new(mix(seed, number as u64));
            let mut trace = String::new();
            if let Err(failure) = self.cut(&recording, &config, &mut dice, 1, &mut trace, summary) {
                summary.count(&failure, format!("{}: {failure}{trace}", self.how(number)));
            }
        }
    }

    /// Cuts a recording, opens the store on what is left, lets it go on, and cuts again.
    fn cut(
        &self,
        recording: &Recording,
        config: &StoreConfig,
        dice: &mut Dice,
        in_a_row: usize,
        trace: &mut String,
        summary: &mut Summary,
    ) -> Result<(), Failure> {
        let position = recording.log.choose(dice);
        let files = recording.log.cut(position, self.options.card, dice);
        let promise = recording.promise(position);
        *trace += &format!(" [cut at {position} of {}]", recording.log.len());
        if let Some(folder) = std::env::var_os("POWER_LAB_KEEP").filter(|_| self.options.only.is_some()) {
            keep(Path::new(&folder), in_a_row, &files);
        }
        let again = in_a_row < CUTS_IN_A_ROW && dice.percent(AGAIN);
        let medium = Medium::new(files, self.folder);
        let mut driver = Driver::open(&medium, config, &promise, Dice::new(dice.next()))?;
        driver.thorough = false;
        (self.journey.after)(&mut driver)?;
        driver.thorough = true;
        match dice.below(100) {
            0..15 => driver.reopen()?,
            15..30 => driver.close()?,
            // What comes of the next cut is compared with what was seen already.
            _ if again => {}
            _ => driver.settle()?,
        }
        if !again {
            driver.abandon();
            return Ok(());
        }
        summary.again[in_a_row - 1] += 1;
        self.cut(&driver.finish(), config, dice, in_a_row + 1, trace, summary)
    }
}

/// Writes the files of a cut to a folder, to be looked at.
fn keep(folder: &Path, in_a_row: usize, files: &Files) {
    for name in files.names.keys() {
        let bytes = files.image(name).map(super::image::Image::bytes).unwrap_or_default();
        std::fs::write(folder.join(format!("{in_a_row}.{name}")), bytes).expect("a folder to keep files in");
    }
}
