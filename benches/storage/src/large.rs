//! A large store on a small cache: how soon it opens after a kill, and what memory that takes.
//!
//! `tests/large.rs` holds the bounds; this prints the figures of a release build.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pillarbox::store::StoreConfig;
use rustix::fs::Advice;

use crate::letter::{Bodies, Sizes, Source};
use crate::stores::{MailStore, Ours};
use crate::{count, table};

const HELP: &str = "storage large --dir DIR [--gib N]: a store of N GiB (5), killed while it takes mail, opened again";

/// redb's cache.
const CACHE: u32 = 1 << 20;

/// Senders that fill it.
const SENDERS: usize = 16;

/// How long it takes mail again before the second kill.
const WORK: Duration = Duration::from_secs(3);

/// What this program is asked to do.
pub fn main(arguments: &[&str]) {
    let (mut folder, mut gib) = (None, 5);
    for option in arguments.chunks(2) {
        match option {
            ["--dir", path] => folder = Some(PathBuf::from(path)),
            ["--gib", number] => gib = number.parse().unwrap(),
            // The script that makes the device passes it.
            ["--device", _] => {}
            _ => folder = None,
        }
    }
    let Some(folder) = folder.filter(|folder| folder.is_dir()) else {
        eprintln!("{HELP}");
        std::process::exit(2);
    };
    println!("{}\n", table::machine(&folder, None));
    let folder = folder.join("bench-large");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    let mut kept = round("pour", &folder, gib << 30);
    let index = std::fs::metadata(folder.join("mail.redb")).unwrap();
    println!(
        "{:.2} GiB in the index, {} messages in one mailbox, cache {} KiB\n\n\
         | opened after a kill | messages acknowledged, found | open s | peak KiB | flags of all ms | peak KiB | a body of 2,000 KiB ms | peak KiB |\n\
         |---|---|---:|---:|---:|---:|---:|---:|",
        (index.blocks() * 512) as f64 / f64::from(1 << 30),
        kept,
        CACHE >> 10,
    );
    for cold in [true, false] {
        if cold {
            forget(&folder);
        }
        print!("| {} | {kept}, ", if cold { "files not in memory" } else { "files in memory" });
        std::io::stdout().flush().unwrap();
        kept += round("reopen", &folder, kept);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// Starts a step, kills it once it says that it may be killed, and gives how many messages it
/// acknowledged. What it has to say for the table is printed.
fn round(step: &str, folder: &Path, number: u64) -> u64 {
    let mut child: Child = Command::new(std::env::current_exe().unwrap())
        .args(["--large-child", step, folder.to_str().unwrap(), &number.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut kept = 0;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.split_once(' ') {
            Some(("kept", count)) => kept = kept.max(count.parse().unwrap()),
            _ if line == "enough" => break,
            _ => println!("{line}"),
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    kept
}

/// Takes the files out of the page cache.
fn forget(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = File::open(entry.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
}

/// One step, in its own process.
pub fn child(arguments: &[&str]) {
    let [step, folder, number] = arguments else { panic!("{arguments:?}") };
    let (folder, number) = (Path::new(folder), number.parse::<u64>().unwrap());
    let config = StoreConfig { cache_bytes: CACHE, ..StoreConfig::default() };
    let before = count::peak_memory();
    let peak = || (count::peak_memory() - before) >> 10;
    let since = Instant::now();
    let store = Ours::open_with(folder, &config);
    if *step == "pour" {
        pour(&store, 0, &|_| std::fs::metadata(folder.join("mail.redb")).unwrap().blocks() * 512 >= number);
    }
    let ms = |since: Instant| since.elapsed().as_secs_f64() * 1000.0;
    let opened = (since.elapsed(), peak());
    let since = Instant::now();
    let messages = store.read_flags();
    let flags = (ms(since), peak());
    let since = Instant::now();
    store.read_body(messages, 2_000_000);
    let body = (ms(since), peak());
    println!(
        "{messages} | {:.3} | {} | {:.0} | {} | {:.1} | {} |",
        opened.0.as_secs_f64(),
        opened.1,
        flags.0,
        flags.1,
        body.0,
        body.1
    );
    assert!(u64::from(messages) >= number, "acknowledged messages are missing");
    let since = Instant::now();
    pour(&store, 100_000_000, &|_| since.elapsed() > WORK);
}

/// Delivers until the process is killed; says how many are kept, and when it is enough.
fn pour(store: &Ours, first: u64, enough: &(dyn Fn(u64) -> bool + Sync)) {
    let source = Source::Made(Bodies::Noise, Sizes::Mixed);
    let (next, done) = (AtomicU64::new(first), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| {
                loop {
                    store.deliver(&source.letter(next.fetch_add(1, Ordering::Relaxed)));
                    let kept = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if kept % 32 == 0 {
                        println!("kept {kept}");
                        if enough(kept) {
                            println!("enough");
                        }
                    }
                }
            });
        }
    });
}
