//! Measures the spam filter on a labelled corpus, beside bogofilter where that is installed.
//!
//! `cargo run --release --example spam-bench -- CORPUS`: a folder with a file `index`, a line for each
//! message, `spam` or `ham` and its path. Messages are judged in that order, and each is learnt
//! behind its judgement. `--trained-on OTHER` learns all of another corpus first and then learns
//! nothing more; `--seed FILE` puts a seed of `spam-seed` below, and `--frozen` learns nothing at
//! all. Nothing here is asserted; what is counted is said on the lines.

#![allow(clippy::cast_precision_loss, reason = "figures for people")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use pillarbox::filter::spam::{Class, Features, Judges, Model, Seed, Size};
use rustix::time::{ClockId, clock_gettime};

/// Measures the spam filter on a labelled corpus.
#[derive(Debug, Parser)]
struct Args {
    /// Folder with a file `index`: a line for each message, `spam` or `ham` and its path
    corpus: PathBuf,
    /// Learn all of this corpus first, and nothing of the other
    #[arg(long, value_name = "CORPUS")]
    trained_on: Option<PathBuf>,
    /// Judge with this seed as well
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// Learn nothing
    #[arg(long)]
    frozen: bool,
    /// Most messages of the corpus
    #[arg(long, default_value_t = usize::MAX)]
    messages: usize,
    /// Most bytes of the table
    #[arg(long, value_name = "BYTES")]
    table: Option<u32>,
    /// Leave bogofilter out
    #[arg(long)]
    alone: bool,
}

/// Times that a message is judged to see how long that takes.
const TURNS: u32 = 200;

/// A filter that is measured.
trait Judge {
    /// How much a message looks like spam: any measure that rises.
    fn judge(&mut self, message: &[u8]) -> f32;
    /// Learns it.
    fn learn(&mut self, message: &[u8], class: Class);
}

struct Ours {
    model: Model,
    seed: Option<Seed>,
    /// The features of the message judged last.
    last: Option<Features>,
    reading: Duration,
    judging: Duration,
}

impl Judge for Ours {
    fn judge(&mut self, message: &[u8]) -> f32 {
        let since = cpu();
        let features = Features::of(message);
        self.reading += cpu().saturating_sub(since);
        let since = cpu();
        let judges = Judges { seed: self.seed.as_ref(), general: &self.model, own: None, known: false, sender: &[] };
        let logit = judges.judge(&features).logit();
        self.judging += cpu().saturating_sub(since);
        self.last = Some(features);
        logit
    }

    fn learn(&mut self, message: &[u8], class: Class) {
        let features = self.last.take().unwrap_or_else(|| Features::of(message));
        let since = cpu();
        self.model.teach(&features, Some(class));
        self.judging += cpu().saturating_sub(since);
    }
}

struct Bogofilter(tempfile::TempDir);

impl Bogofilter {
    fn run(&self, option: &str, message: &[u8]) -> Option<String> {
        let mut child = Command::new("bogofilter")
            .args([option, "-d"])
            .arg(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        child.stdin.take()?.write_all(message).ok()?;
        String::from_utf8(child.wait_with_output().ok()?.stdout).ok()
    }
}

impl Judge for Bogofilter {
    fn judge(&mut self, message: &[u8]) -> f32 {
        // "S 0.999999 0.0001", terse; before it has learnt anything it says nothing of use.
        let said = self.run("-T", message).unwrap_or_default();
        said.split_whitespace().nth(1).and_then(|score| score.parse().ok()).unwrap_or(0.5)
    }

    fn learn(&mut self, message: &[u8], class: Class) {
        self.run(if class == Class::Spam { "-s" } else { "-n" }, message);
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match measure(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("spam-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<(), String> {
    let corpus = index(&args.corpus, args.messages)?;
    let first = args.trained_on.as_deref().map(|folder| index(folder, usize::MAX)).transpose()?.unwrap_or_default();
    let learns = first.is_empty() && !args.frozen;
    let seed = args.seed.as_deref().map(|path| -> Result<Seed, String> {
        let file = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Seed::read(&file).map_err(|error| format!("{}: {error}", path.display()))
    });
    let seed = seed.transpose()?;
    let size = args.table.map_or(Size::BOX, Size::within);
    let mut ours = Ours { model: Model::new(size), seed, last: None, reading: Duration::ZERO, judging: Duration::ZERO };
    let scores = replay(&mut ours, &first, &corpus, learns)?;
    println!("pillarbox");
    report(&scores);
    let each = |time: Duration| time.as_secs_f64() * 1000.0 / (first.len() + corpus.len()).max(1) as f64;
    println!(
        "  {:.3} ms of CPU a message for its features, {:.3} ms to judge and learn it",
        each(ours.reading),
        each(ours.judging)
    );
    println!("  table of {} KiB, peak memory of this program {} KiB", ours.model.bytes() >> 10, peak_memory());
    if let Some(large) =
        corpus.iter().filter_map(|(_, path)| std::fs::read(path).ok()).find(|text| text.len() > 5 << 10)
    {
        for (what, bytes) in [("5 KiB", 5 << 10), ("1 MiB", 1 << 20)] {
            let message: Vec<u8> = large.iter().copied().cycle().take(bytes).collect();
            let since = cpu();
            (0..TURNS).for_each(|_| {
                ours.judge(&message);
            });
            println!(
                "  {:.3} ms of CPU to judge a message of {what}",
                cpu().saturating_sub(since).as_secs_f64() * 1000.0 / f64::from(TURNS)
            );
        }
    }
    if args.alone || Command::new("bogofilter").arg("-V").output().is_err() {
        return Ok(());
    }
    let mut peer = Bogofilter(tempfile::tempdir().map_err(|error| error.to_string())?);
    let scores = replay(&mut peer, &first, &corpus, learns)?;
    println!("bogofilter");
    report(&scores);
    let size = std::fs::metadata(peer.0.path().join("wordlist.db")).map_or(0, |file| file.len());
    println!("  table of {} KiB", size >> 10);
    Ok(())
}

/// The messages of a corpus.
fn index(folder: &Path, most: usize) -> Result<Vec<(Class, PathBuf)>, String> {
    let path = folder.join("index");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let line = |line: &str| {
        let (class, name) = line.split_once(' ')?;
        let class = match class {
            "spam" => Class::Spam,
            "ham" => Class::Ham,
            _ => return None,
        };
        Some((class, folder.join(name.trim())))
    };
    let lines = text.lines().take(most);
    lines.map(|text| line(text).ok_or(format!("{}: not a line of an index: {text}", path.display()))).collect()
}

/// Judges each message, and learns it behind its judgement if it `learns`; all of `first` is learnt
/// before.
fn replay(
    judge: &mut dyn Judge,
    first: &[(Class, PathBuf)],
    corpus: &[(Class, PathBuf)],
    learns: bool,
) -> Result<Vec<(Class, f32)>, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    for (class, path) in first {
        let message = read(path)?;
        judge.judge(&message);
        judge.learn(&message, *class);
    }
    let mut scores = Vec::new();
    for (class, path) in corpus {
        let message = read(path)?;
        scores.push((*class, judge.judge(&message)));
        if learns {
            judge.learn(&message, *class);
        }
    }
    Ok(scores)
}

fn report(scores: &[(Class, f32)]) {
    let middle = if scores.iter().all(|(_, score)| (0.0..=1.0).contains(score)) { 0.5 } else { 0.0 };
    let count = |class: Class| scores.iter().filter(|(found, _)| *found == class).count();
    let (ham, spam) = (count(Class::Ham), count(Class::Spam));
    let wrong = |class: Class| {
        scores.iter().filter(|(found, score)| *found == class && (*score > middle) != (class == Class::Spam)).count()
    };
    let (false_positives, false_negatives) = (wrong(Class::Ham), wrong(Class::Spam));
    let right = scores.len() - false_positives - false_negatives;
    println!("  {} messages ({ham} ham, {spam} spam), {:.3} % right", scores.len(), percent(right, scores.len()));
    println!("  {false_positives} false positives, {false_negatives} false negatives");
    let mut ranked = scores.to_vec();
    // Among equals the spam comes first: a tie is no merit.
    ranked.sort_by(|(one_class, one), (other_class, other)| {
        one.total_cmp(other).then((*one_class == Class::Ham).cmp(&(*other_class == Class::Ham)))
    });
    let (mut below, mut inverted) = (0.0, 0.0);
    for equal in ranked.chunk_by(|(_, one), (_, other)| one.total_cmp(other).is_eq()) {
        let spam = equal.iter().filter(|(class, _)| *class == Class::Spam).count() as f64;
        // Of a ham and a spam with one score half a pair is the wrong way round.
        inverted += (equal.len() as f64 - spam) * (below + spam / 2.0);
        below += spam;
    }
    println!("  1-AUC% {:.4}", 100.0 * inverted / (ham as f64 * spam as f64).max(1.0));
    for lost in [0.1, 0.5, 1.0] {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let most = (ham as f64 * lost / 100.0) as usize;
        let (mut ham_above, mut caught) = (0, 0);
        for (class, _) in ranked.iter().rev() {
            match class {
                Class::Spam => caught += 1,
                Class::Ham if ham_above == most => break,
                Class::Ham => ham_above += 1,
            }
        }
        println!("  {:.2} % of spam missed where {lost} % of ham is lost", percent(spam - caught, spam));
    }
    for missed in [0.5, 1.0, 5.0] {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let most = (spam as f64 * missed / 100.0) as usize;
        let (mut spam_below, mut kept) = (0, 0);
        for (class, _) in &ranked {
            match class {
                Class::Ham => kept += 1,
                Class::Spam if spam_below == most => break,
                Class::Spam => spam_below += 1,
            }
        }
        println!("  {:.3} % of ham lost where {missed} % of spam is missed", percent(ham - kept, ham));
    }
}

fn percent(part: usize, of: usize) -> f64 {
    100.0 * part as f64 / of.max(1) as f64
}

/// What this thread has used of a CPU.
fn cpu() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or(0))
}

/// In KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
