//! What the server knows about itself: memory, threads, sessions, uptime.
//!
//! Figures are read from `/proc` when somebody asks; nothing is collected in the background.

use std::fs;

use serde::{Deserialize, Serialize};

/// The process's memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Proportional set size: its own pages, and its share of those it shares.
    pub pss: u64,
    /// Resident set size: all pages it has in memory.
    pub rss: u64,
    /// Pages of its own that no file stands behind.
    pub anonymous: u64,
    /// Largest resident set size since start.
    pub peak_rss: u64,
}

/// Reads the memory figures; all zero where `/proc` does not tell.
pub fn memory() -> Memory {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    Memory {
        pss: kilobytes(&rollup, "Pss"),
        rss: kilobytes(&rollup, "Rss"),
        anonymous: kilobytes(&rollup, "Anonymous"),
        peak_rss: kilobytes(&status, "VmHWM"),
    }
}

/// How many threads the process has now.
pub fn threads() -> u32 {
    let count = fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn kilobytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_has_memory_and_a_thread() {
        let memory = memory();
        assert!(memory.pss > 0 && memory.rss >= memory.anonymous && memory.peak_rss >= memory.rss / 2, "{memory:?}");
        assert!(threads() >= 1);
    }

    #[test]
    fn figures_are_read_by_their_whole_name() {
        let text = "Rss:  12 kB\nPss_Anon:  7 kB\nPss:    5 kB\n";
        assert_eq!((kilobytes(text, "Pss"), kilobytes(text, "Rss"), kilobytes(text, "Swap")), (5 << 10, 12 << 10, 0));
    }
}
