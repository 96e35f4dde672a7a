//! Four ways to keep mail, side by side in one run: what they write, sync, take and use.
//!
//! `benches/storage/run` is the usual way to call it, `benches/README.md` says what is counted
//! where. Every store and workload runs in a process of its own, so that memory and processor time
//! are its own; the messages have the same bytes for all. Goals are printed beside the figures and
//! never asserted: times and, without a device of its own, bytes depend on the machine.

#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "figures for people")]

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

mod count;
mod large;
mod letter;
mod options;
mod stores;
mod table;

use count::Counts;
use letter::{Bodies, Sizes, Source};
use options::{Options, Work};

/// A store and what it is to do: what a child process is told.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Task {
    pub store: String,
    pub folder: PathBuf,
    pub device: Option<String>,
    pub work: Work,
    pub bodies: Bodies,
    pub corpus: Option<PathBuf>,
    pub senders: u64,
    pub count: u64,
    /// The first letter's number: no two workloads on a store have a letter in common.
    pub first: u64,
}

/// What it came to.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Outcome {
    pub counts: Counts,
    pub letters: u64,
    pub seconds: f64,
    pub peak: u64,
    pub message_bytes: u64,
    pub stored_bytes: u64,
    /// How much more the folder takes than before.
    pub grown: u64,
    /// This store's own account: bytes to the journal, bytes to the index, checkpoints.
    pub own: Option<[u64; 3]>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--child", task] => {
            let task: Task = serde_json::from_str(task).unwrap();
            println!("{}", serde_json::to_string(&run(&task)).unwrap());
        }
        ["--large-child", rest @ ..] => large::child(rest),
        ["large", rest @ ..] => large::main(rest),
        _ => match Options::parse(&arguments) {
            Ok(options) => side_by_side(&options),
            Err(error) => {
                eprintln!("{error}\n\n{}", options::HELP);
                std::process::exit(2);
            }
        },
    }
}

fn side_by_side(options: &Options) {
    println!("{}\n", table::machine(&options.folder, options.device.as_deref()));
    for bodies in &options.bodies {
        println!("{}\n\n{}", table::title(*bodies, options), table::HEAD);
        let mut own = Vec::new();
        for store in &options.stores {
            let folder = options.folder.join(format!("bench-{store}"));
            if folder.exists() {
                std::fs::remove_dir_all(&folder).unwrap();
            }
            std::fs::create_dir_all(&folder).unwrap();
            let task = Task {
                store: store.clone(),
                folder: folder.clone(),
                device: options.device.clone(),
                work: Work::Fill,
                bodies: *bodies,
                corpus: options.corpus.clone(),
                senders: 1,
                count: options.preload,
                first: 0,
            };
            if *bodies != Bodies::Real {
                say(&task);
                start(&task);
            }
            let mut first = options.preload;
            for work in options.works(*bodies) {
                for senders in &options.senders {
                    let count = options.count(work, *senders);
                    // Flags are changed of the letters that are there, each once.
                    let task = Task { work, senders: *senders, count, first, ..task.clone() };
                    say(&task);
                    let outcome = start(&task);
                    println!("{}", table::row(&task, &outcome));
                    own.extend(outcome.own.is_some().then(|| table::own(&task, &outcome)));
                    first += 1_000_000;
                    if *bodies == Bodies::Real {
                        std::fs::remove_dir_all(&folder).unwrap();
                        std::fs::create_dir_all(&folder).unwrap();
                    }
                }
            }
            std::fs::remove_dir_all(&folder).unwrap();
        }
        println!("\n{}\n{}\n", table::OWN_HEAD, own.join("\n"));
    }
}

fn say(task: &Task) {
    eprintln!("{} {:?} {:?}, {} senders, {} letters ...", task.store, task.bodies, task.work, task.senders, task.count);
}

/// Does the task in a process of its own.
fn start(task: &Task) -> Outcome {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--child", &serde_json::to_string(task).unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{task:?} failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn source(task: &Task) -> Source {
    match (task.work, &task.corpus) {
        (Work::Corpus, Some(corpus)) => Source::Files(letter::files(corpus).unwrap().into()),
        (Work::Mixed, _) => Source::Made(task.bodies, Sizes::Mixed),
        _ => Source::Made(task.bodies, Sizes::Small),
    }
}

fn run(task: &Task) -> Outcome {
    let source = source(task);
    if task.work == Work::Fill {
        let store = stores::open(&task.store, &task.folder);
        store.fill(&source, task.count);
        store.close();
        return Outcome::default();
    }
    let count = if let Source::Files(paths) = &source { paths.len() as u64 } else { task.count };
    let letters: Vec<_> = (task.first..task.first + count).map(|number| source.letter(number)).collect();
    // The list of letters is the bench's own; what making them takes is in the figures of "none".
    count::forget_peak();
    let store = stores::open(&task.store, &task.folder);
    let before = Counts::take(&task.folder, task.device.as_deref());
    let (taken, figures) = (count::allocated(&task.folder), store.figures());
    let (next, stored_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let since = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..task.senders {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(letter) = letters.get(number as usize) else { break };
                    if task.work == Work::Flag {
                        // All over the mailbox, none twice: the step has no factor in common with a
                        // mailbox of any round number.
                        store.flag((task.first / 1_000_000 * task.count + number) * 7919 % task.preloaded());
                    } else {
                        stored_bytes.fetch_add(store.deliver(letter), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let seconds = since.elapsed().as_secs_f64();
    let own = store.figures().zip(figures).map(|(now, then)| {
        [
            now.journal_written - then.journal_written,
            now.index_written - then.index_written,
            now.checkpoints - then.checkpoints,
        ]
    });
    // What a store puts off belongs to what it was asked to do, so closing counts.
    store.close();
    let counts = Counts::take(&task.folder, task.device.as_deref()).since(before);
    let message_bytes = if task.work == Work::Flag { 0 } else { letters.iter().map(|letter| letter.size() as u64).sum() };
    Outcome {
        counts,
        letters: count,
        seconds,
        peak: count::peak_memory(),
        message_bytes,
        stored_bytes: stored_bytes.into_inner(),
        grown: count::allocated(&task.folder).saturating_sub(taken),
        own,
    }
}

impl Task {
    /// Letters that were there before the first workload.
    fn preloaded(&self) -> u64 {
        self.first % 1_000_000
    }
}
