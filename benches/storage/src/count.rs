//! What is counted: bytes at the file layer and at the block device, syncs, memory, processor time.
//!
//! At the file layer these are the bytes that the whole process passed to `write` and its like, by
//! the kernel's account (`wchar` of `/proc/self/io`), so the same for all stores: what goes to
//! temporary files counts, what the file system writes of its own does not. (`write_bytes` there is
//! of no use: it counts whole folios of the page cache, which may be hundreds of KiB for a block.)
//! The device's counts are exact (`stat` in `/sys`).

#![allow(unsafe_code, reason = "standing in for fsync and fdatasync, which SQLite calls from C")]

use std::ffi::c_int;
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

static SYNCS: AtomicU64 = AtomicU64::new(0);

/// Stands in for the C library's: all stores of this program call it, and so all are counted alike.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(file: c_int) -> c_int {
    SYNCS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the caller's file is open for the time of the call, or the kernel says that it is not.
    answer(rustix::fs::fdatasync(unsafe { BorrowedFd::borrow_raw(file) }))
}

/// As [`fdatasync`].
#[unsafe(no_mangle)]
extern "C" fn fsync(file: c_int) -> c_int {
    SYNCS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: as in `fdatasync`.
    answer(rustix::fs::fsync(unsafe { BorrowedFd::borrow_raw(file) }))
}

fn answer(done: rustix::io::Result<()>) -> c_int {
    // No store here looks at errno: each ends the run.
    if done.is_ok() { 0 } else { -1 }
}

/// Counts so far, all of them rising.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Bytes passed to `write` and its like.
    pub asked: u64,
    /// Bytes written at the device.
    pub device: u64,
    /// Calls of `fsync` and `fdatasync`.
    pub syncs: u64,
    /// Flushes of the device's cache.
    pub flushes: u64,
    /// Processor time in milliseconds.
    pub cpu_ms: u64,
}

impl Counts {
    /// Takes the counts, after everything in `folder`'s file system has gone to its device.
    pub fn take(folder: &Path, device: Option<&str>) -> Self {
        let io = std::fs::read_to_string("/proc/self/io").unwrap();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        // After the name, which may have spaces: fields 14 and 15 of the whole line, in 1/100 s.
        let ticks = stat.rsplit(") ").next().unwrap().split(' ').skip(11).take(2);
        let cpu_ms = ticks.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum();
        let syncs = SYNCS.load(Ordering::Relaxed);
        // The kernel's own syncfs is none of the stores' calls, and its flush is one for all.
        rustix::fs::syncfs(File::open(folder).unwrap()).unwrap();
        let (device, flushes) = device.map_or((0, 0), at_device);
        Self { asked: field(&io, "wchar: "), device, syncs, flushes, cpu_ms }
    }

    /// What came since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            asked: self.asked - before.asked,
            device: self.device - before.device,
            syncs: self.syncs - before.syncs,
            flushes: self.flushes - before.flushes,
            cpu_ms: self.cpu_ms - before.cpu_ms,
        }
    }
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Bytes written and flushes of a block device (Documentation/block/stat.rst: fields 7 and 16).
fn at_device(name: &str) -> (u64, u64) {
    let stat = std::fs::read_to_string(format!("/sys/class/block/{name}/stat")).unwrap();
    let fields: Vec<u64> = stat.split_whitespace().map(|field| field.parse().unwrap()).collect();
    (fields[6] * 512, fields.get(15).copied().unwrap_or(0))
}

/// The most memory this process had so far, in bytes.
pub fn peak_memory() -> u64 {
    field(&std::fs::read_to_string("/proc/self/status").unwrap(), "VmHWM:") << 10
}

/// Begins [`peak_memory`] anew at what is used now.
pub fn forget_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Bytes that the files below `folder` take on the medium.
pub fn allocated(folder: &Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let facts = entry.metadata().unwrap();
        sum += facts.blocks() * 512;
        if facts.is_dir() {
            sum += allocated(&entry.path());
        }
    }
    sum
}
