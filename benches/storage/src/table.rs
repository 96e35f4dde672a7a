//! The tables, in Markdown, as `benches/README.md` has them.

use std::fs::read_to_string;
use std::path::Path;

use crate::letter::Bodies;
use crate::options::{Options, Work};
use crate::{Outcome, Task};

/// Of the side-by-side table.
pub const HEAD: &str = "\
| store | work, senders | B per message | per message byte | per stored byte | asked, per message byte | syncs per message | flushes per message | messages/s | CPU ms | peak MiB | disk per message byte | goal |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|";

/// Of the table of what this store asked for.
pub const OWN_HEAD: &str = "\
What this store asked its two files for, the closing left out:

| work, senders | journal B per message | index B per message | messages per checkpoint | stored per message byte |
|---|---:|---:|---:|---:|";

/// Says where the figures come from.
pub fn machine(folder: &Path, device: Option<&str>) -> String {
    let text = |path: &str| read_to_string(path).unwrap_or_default();
    let of = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
        line.map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = of(&text("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse::<u64>().unwrap_or(0) >> 10;
    let mounts = text("/proc/self/mounts");
    let mount = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| folder.canonicalize().is_ok_and(|folder| folder.starts_with(fields[1])))
        .max_by_key(|fields| fields[1].len());
    let file_system = mount.map_or("?", |fields| fields[2]);
    let counted = device.map_or_else(
        || "at the file layer: what was passed to `write` (`wchar` of /proc/self/io)".to_owned(),
        |device| format!("at the block device {device}, file-system journal included"),
    );
    format!(
        "{cores} cores of {}, {memory} MiB, Linux {}, {file_system}. Bytes are counted {counted}.",
        of(&text("/proc/cpuinfo"), "model name"),
        text("/proc/sys/kernel/osrelease").trim(),
    )
}

/// Says what a table is of.
pub fn title(bodies: Bodies, options: &Options) -> String {
    let preload = options.preload;
    match bodies {
        Bodies::Text => format!("### Bodies half words, half base64; {preload} messages of 4 KiB there before"),
        Bodies::Noise => format!("### Bodies that nothing can compress; {preload} messages of 4 KiB there before"),
        Bodies::Real => "### Real mail, into an empty store".to_owned(),
    }
}

fn work(task: &Task) -> String {
    let name = match task.work {
        Work::Fill => "fill",
        Work::Small => "4 KiB",
        Work::Mixed => "mix",
        Work::Flag => "flag",
        Work::Corpus => "corpus",
    };
    format!("{name}, {}", task.senders)
}

/// A line of the side-by-side table.
pub fn row(task: &Task, outcome: &Outcome) -> String {
    let counts = outcome.counts;
    let letters = outcome.letters;
    let written = if task.device.is_some() { counts.device } else { counts.asked };
    let per = |sum: u64, of: u64| if of == 0 { "–".to_owned() } else { format!("{:.2}", sum as f64 / of as f64) };
    let each = |sum: u64| sum / letters.max(1);
    format!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {:.0} | {:.2} | {:.1} | {} | {} |",
        task.store,
        work(task),
        each(written),
        per(written, outcome.message_bytes),
        per(written, outcome.stored_bytes),
        per(counts.asked, outcome.message_bytes),
        per(counts.syncs, letters),
        if task.device.is_some() { per(counts.flushes, letters) } else { "–".to_owned() },
        letters as f64 / outcome.seconds,
        counts.cpu_ms as f64 / letters as f64,
        outcome.peak as f64 / f64::from(1 << 20),
        per(outcome.grown, outcome.message_bytes),
        if task.store == "pillarbox" { goal(task) } else { "" },
    )
}

/// What this store is to reach.
fn goal(task: &Task) -> &'static str {
    match (task.work, task.senders) {
        (Work::Small, 1) => "12,288 B, 1.05 syncs",
        (Work::Mixed, 1) => "1.9 per stored byte",
        (Work::Mixed, 16) => "1.3 per stored byte",
        (Work::Flag, 1) => "13,312 B, of them 4,096 B of journal",
        (Work::Corpus, _) => "disk 0.9",
        _ => "",
    }
}

/// A line of what this store asked for.
pub fn own(task: &Task, outcome: &Outcome) -> String {
    let [journal, index, checkpoints] = outcome.own.unwrap_or_default();
    let letters = outcome.letters;
    let per = |sum: u64, of: u64| if of == 0 { "–".to_owned() } else { format!("{:.2}", sum as f64 / of as f64) };
    format!(
        "| {} | {} | {} | {} | {} |",
        work(task),
        journal / letters.max(1),
        index / letters.max(1),
        per(letters, checkpoints),
        per(outcome.stored_bytes, outcome.message_bytes),
    )
}
