//! The memory budget: what the settings may make the server hold, added up and compared.
//!
//! Each part is an upper bound: a setting times the most that one of its things holds. What the figures
//! rest on stands beside each.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Code, constants and what every thread and table needs before anybody connects, in KiB. Measured: 6.9 MiB
/// (PSS) on x86-64, of which the kernel can take back what is code.
const PROGRAM_KIB: u64 = 8 << 10;

/// The writer's group, the journal's blocks and the second index while the store gives room back, in KiB. A
/// sheet of the gram index (less than 1 MiB) is never made at the same time.
const WRITER_KIB: u64 = 6 << 10;

/// One connection at work: 8 KiB with TLS when idle, two buffers of 18 KiB, an IMAP command of 64 KiB.
const SESSION_KIB: u64 = 108;

/// One message on its way in: what is not yet written, the walker, compression (500 KiB measured).
const INCOMING_KIB: u64 = 512;

/// The spam filter: 1.5 MiB of the box's model, four accounts' of 130 KiB, one message's features.
const JUDGING_KIB: u64 = 4 << 10;

/// A quick scan of a message's attachments and a thorough one beside it: dictionaries of 1 and 8 MiB, what is
/// unpacked in memory (1 MiB each), lists of archives (2 MiB each), windows and stacks (1 MiB in all).
const SCANS_KIB: u64 = 16 << 10;

/// One working thread: of its stack of 512 KiB this much is touched.
const THREAD_KIB: u64 = 256;

/// A board's budget, and the settings that follow from it where a config file does not say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MemoryPlan {
    /// What the server may hold in all, in MiB.
    pub budget_mib: u32,
    /// The store's cache in KiB (`cache-bytes` in [store]).
    pub cache_kib: u32,
    /// Connections (`sessions-max` in [net]).
    pub sessions: u32,
    /// Connections from one address (`sessions-per-address-max` in [net]).
    pub sessions_per_address: u32,
    /// Messages received at one time (`incoming-max` in [smtp]).
    pub incoming: u16,
    /// Working threads beside the reactor and the writer.
    pub threads: u8,
    /// Most memory of the signatures of attachments in KiB; what does not fit is read from the disk.
    pub signatures_kib: u32,
}

impl Default for MemoryPlan {
    fn default() -> Self {
        Self {
            budget_mib: 128,
            cache_kib: 2048,
            sessions: 500,
            sessions_per_address: 60,
            incoming: 32,
            threads: 2,
            signatures_kib: 4096,
        }
    }
}

/// What the settings add up to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// What there is, in KiB.
    pub budget_kib: u64,
    /// Each part and its KiB.
    pub parts: Vec<Part>,
}

/// A part of the sum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// What it is for, such as `500 sessions of 108 KiB`.
    pub name: String,
    /// The most it holds, in KiB.
    pub kib: u64,
}

/// What of the settings takes memory.
pub(super) struct Wanted {
    pub(super) cache_bytes: u32,
    pub(super) sessions: u32,
    pub(super) incoming: u16,
    pub(super) judging: bool,
    pub(super) scanning: bool,
}

impl Memory {
    /// Adds up what `wanted` may hold on a board.
    pub(super) fn new(plan: &MemoryPlan, wanted: &Wanted) -> Self {
        let many = |count: u64, each: u64, of: &str| Part {
            name: format!("{count} {of} of {each} KiB"),
            kib: count.saturating_mul(each),
        };
        let one = |name: &str, kib: u64| Part { name: name.to_owned(), kib };
        let judging = if wanted.judging { JUDGING_KIB } else { 0 };
        let parts = vec![
            one("the program", PROGRAM_KIB),
            one("the store's writer", WRITER_KIB),
            one("the store's cache", u64::from(wanted.cache_bytes).div_ceil(1024)),
            many(wanted.sessions.into(), SESSION_KIB, "sessions"),
            many(wanted.incoming.into(), INCOMING_KIB, "incoming messages"),
            many(plan.threads.into(), THREAD_KIB, "working threads"),
            one("the spam filter", judging),
            one("signatures", plan.signatures_kib.into()),
            one("scanning attachments", if wanted.scanning { SCANS_KIB } else { 0 }),
        ];
        Self { budget_kib: u64::from(plan.budget_mib) * 1024, parts }
    }

    /// The sum in KiB.
    pub fn sum_kib(&self) -> u64 {
        self.parts.iter().map(|part| part.kib).fold(0, u64::saturating_add)
    }

    /// Tells whether the sum is within the budget.
    pub fn fits(&self) -> bool {
        self.sum_kib() <= self.budget_kib
    }
}

impl fmt::Display for Memory {
    /// The arithmetic, such as `8 MiB (the program) + 2 MiB (the store's cache) = 10 MiB`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.parts.iter().map(|part| format!("{} ({})", mib(part.kib), part.name)).collect();
        write!(formatter, "{} = {}", parts.join(" + "), mib(self.sum_kib()))
    }
}

/// KiB as MiB with a tenth, rounded up so that a sum never looks smaller than it is.
pub fn mib(kib: u64) -> String {
    let tenths = kib.saturating_mul(10).div_ceil(1024);
    match tenths % 10 {
        0 => format!("{} MiB", tenths / 10),
        tenth => format!("{}.{tenth} MiB", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_rounded_up_to_a_tenth() {
        assert_eq!(
            (mib(0), mib(1), mib(1024), mib(1536)),
            ("0 MiB".into(), "0.1 MiB".into(), "1 MiB".into(), "1.5 MiB".into())
        );
    }

    #[test]
    fn the_arithmetic_shows_each_part_and_the_sum() {
        let plan = MemoryPlan { budget_mib: 20, signatures_kib: 0, ..MemoryPlan::default() };
        let wanted = Wanted { cache_bytes: 1 << 20, sessions: 20, incoming: 2, judging: true, scanning: false };
        let memory = Memory::new(&plan, &wanted);
        assert_eq!(memory.sum_kib(), (8 + 6 + 1 + 4 + 1) * 1024 + 20 * 108 + 2 * 256);
        assert!(!memory.fits());
        let text = memory.to_string();
        assert!(
            text.starts_with("8 MiB (the program) + 6 MiB (the store's writer) + 1 MiB (the store's cache) + "),
            "{text}"
        );
        assert!(text.contains("2.2 MiB (20 sessions of 108 KiB)") && text.ends_with(" = 22.7 MiB"), "{text}");
    }
}
