//! Board profiles: what a small computer has, and what the server may take of it.
//!
//! `board/*.toml` is the one source for the binary, the card image and the tests; the files are built in.
//! [`Choice::of_this_machine`] takes the profile that names the machine's model (the device tree tells it) and
//! whose memory is there; a machine that no profile names gets the generic one of its architecture. Settings
//! that a config file does not give take the profile's values, and their sum must fit its budget
//! (`config/budget.rs`).

use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

use super::budget::MemoryPlan;

/// The files of `board/`, each with its name.
const FILES: [(&str, &str); 9] = [
    ("pi-zero", include_str!("../../board/pi-zero.toml")),
    ("pi-zero-2w", include_str!("../../board/pi-zero-2w.toml")),
    ("pi-2", include_str!("../../board/pi-2.toml")),
    ("pi-3", include_str!("../../board/pi-3.toml")),
    ("pi-4", include_str!("../../board/pi-4.toml")),
    ("pi-5", include_str!("../../board/pi-5.toml")),
    ("generic-arm64", include_str!("../../board/generic-arm64.toml")),
    ("generic-armv7", include_str!("../../board/generic-armv7.toml")),
    ("generic-x86-64", include_str!("../../board/generic-x86-64.toml")),
];

/// Where the kernel tells the machine's model, ended by a NUL.
const MODEL_FILE: &str = "/proc/device-tree/model";

/// Of a board's memory the firmware, the graphics memory and the kernel itself keep at most a quarter.
const MEMORY_SEEN: (u64, u64) = (3, 4);

/// A board.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Board {
    /// The file's name without its end.
    #[serde(skip)]
    pub name: &'static str,
    /// What it is, in words.
    pub title: String,
    /// What the binary for it is built for.
    pub target: String,
    /// Memory it has at least, in MiB.
    pub ram_mib: u32,
    /// How the device tree's model begins; empty for a generic profile.
    #[serde(default)]
    pub models: Vec<String>,
    /// How the figures were got.
    pub origin: String,
    /// The memory budget and what settings make of it.
    pub memory: MemoryPlan,
    /// What the card image is made of; `image/build.sh` reads it.
    pub image: Option<toml::Table>,
}

/// The board the server runs with.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The board.
    pub board: Board,
    /// Why this one, as half a sentence.
    pub reason: String,
}

/// There is no such board.
#[derive(Debug, PartialEq, Eq)]
pub struct NoSuchBoard(String);

impl fmt::Display for NoSuchBoard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        write!(formatter, "there is no board `{}`; there are {}", self.0, names.join(", "))
    }
}

impl std::error::Error for NoSuchBoard {}

/// What is known of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The device tree's model, empty where there is none.
    pub model: String,
    /// The memory the kernel has, in MiB; 0 where it is not told.
    pub ram_mib: u64,
    /// The processor's family as Rust names it: `arm`, `aarch64`, `x86_64`.
    pub arch: &'static str,
}

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        let model = fs::read(MODEL_FILE).unwrap_or_default();
        let model = String::from_utf8_lossy(&model).trim_end_matches(['\0', '\n']).to_owned();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        Self { model, ram_mib: kib.unwrap_or(0) / 1024, arch: std::env::consts::ARCH }
    }

    fn has_memory_of(&self, board: &Board) -> bool {
        let (seen, of) = MEMORY_SEEN;
        self.ram_mib == 0 || self.ram_mib * of >= u64::from(board.ram_mib) * seen
    }
}

impl Board {
    /// All boards.
    ///
    /// A file that cannot be read is left out; a test sees to it that there is none.
    pub fn all() -> Vec<Self> {
        let read = |&(name, text): &(&'static str, &str)| Some(Self { name, ..toml::from_str(text).ok()? });
        FILES.iter().filter_map(read).collect()
    }

    /// Tells whether its binary runs on this processor family.
    fn runs_on(&self, arch: &str) -> bool {
        match self.target.split_once('-').map_or("", |(cpu, _)| cpu) {
            "arm" | "armv7" => arch == "arm",
            cpu => cpu == arch,
        }
    }

    /// How many letters of the model it names; 0 where it does not name it.
    fn names(&self, model: &str) -> usize {
        self.models.iter().filter(|start| model.starts_with(start.as_str())).map(String::len).max().unwrap_or(0)
    }
}

impl Choice {
    /// The board with this name, or the one that fits this machine.
    ///
    /// # Errors
    /// The name is none of ours.
    pub fn new(name: Option<&str>) -> Result<Self, NoSuchBoard> {
        match name {
            Some(name) => Self::named(name),
            None => Ok(Self::of_this_machine()),
        }
    }

    fn named(name: &str) -> Result<Self, NoSuchBoard> {
        let board = Board::all().into_iter().find(|board| board.name == name);
        let board = board.ok_or_else(|| NoSuchBoard(name.to_owned()))?;
        Ok(Self { board, reason: "named on the command line".to_owned() })
    }

    /// The board that fits this machine.
    pub fn of_this_machine() -> Self {
        Self::of(&Machine::here())
    }

    /// The board that fits a machine: the one that says most of its model, else the generic one of its
    /// architecture, else whichever has no more memory than is there.
    pub fn of(machine: &Machine) -> Self {
        let mut boards: Vec<Board> = Board::all()
            .into_iter()
            .filter(|board| board.runs_on(machine.arch) || board.names(&machine.model) > 0)
            .collect();
        // With less memory than a profile wants, the largest that does fit; there is always a smallest one.
        boards.sort_by_key(|board| {
            std::cmp::Reverse((board.names(&machine.model), board.models.is_empty(), board.ram_mib))
        });
        let Machine { model, ram_mib, arch } = machine;
        let fitting = boards.iter().find(|board| machine.has_memory_of(board));
        let smallest = boards.iter().min_by_key(|board| board.memory.budget_mib);
        let reason = match fitting {
            Some(board) if board.names(model) > 0 => format!("the model is \"{model}\", with {ram_mib} MiB"),
            Some(_) if model.is_empty() => format!("the processor is {arch}, with {ram_mib} MiB, and no model is told"),
            Some(_) => format!("the model \"{model}\" is in no profile; the processor is {arch}, with {ram_mib} MiB"),
            None if boards.is_empty() => format!("no profile is for a processor of the family {arch}"),
            None => format!("{ram_mib} MiB are less than any profile for {arch} wants; this is the smallest"),
        };
        let mut board = fitting.or(smallest).cloned().unwrap_or_else(Board::unknown);
        // Profiles say what is enough. Who has much more memory and asks for more may have a quarter of it.
        if *ram_mib > u64::from(board.ram_mib) * 2 {
            let quarter = u32::try_from(ram_mib / 4).unwrap_or(u32::MAX);
            board.memory.budget_mib = board.memory.budget_mib.max(quarter);
        }
        Self { board, reason }
    }
}

impl Board {
    /// For a processor that no profile is for.
    fn unknown() -> Self {
        Self {
            name: "none",
            title: "a machine that no profile is for".to_owned(),
            target: String::new(),
            ram_mib: 0,
            models: Vec::new(),
            origin: "the defaults of pillarbox.sample.toml".to_owned(),
            memory: MemoryPlan::default(),
            image: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use std::path::Path;

    fn chosen(model: &str, ram_mib: u64, arch: &'static str) -> &'static str {
        Choice::of(&Machine { model: model.to_owned(), ram_mib, arch }).board.name
    }

    #[test]
    fn every_file_of_the_folder_is_built_in_and_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("board");
        let mut files: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".toml")?.to_owned()))
            .collect();
        files.sort();
        for (name, text) in FILES {
            let read = toml::from_str::<Board>(text);
            assert!(read.is_ok(), "{name}: {read:?}");
        }
        let mut built: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        built.sort_unstable();
        assert_eq!(files, built);
    }

    #[test]
    fn every_profile_fits_its_own_budget_and_leaves_two_thirds_of_the_memory() {
        for board in Board::all() {
            let mut settings = Settings::default();
            settings.take_from(&board, &toml::Table::new());
            let sum = settings.memory(&board).sum_kib();
            assert!(sum <= u64::from(board.memory.budget_mib) * 1024, "{}: {sum} KiB", board.name);
            assert!(board.memory.budget_mib * 3 <= board.ram_mib, "{}", board.name);
        }
    }

    #[test]
    fn the_model_decides_and_the_longest_name_wins() {
        assert_eq!(chosen("Raspberry Pi Zero W Rev 1.1", 430, "arm"), "pi-zero");
        assert_eq!(chosen("Raspberry Pi Zero 2 W Rev 1.0", 430, "aarch64"), "pi-zero-2w");
        assert_eq!(chosen("Raspberry Pi 2 Model B Rev 1.1", 920, "arm"), "pi-2");
        assert_eq!(chosen("Raspberry Pi 3 Model B Plus Rev 1.3", 900, "aarch64"), "pi-3");
        assert_eq!(chosen("Raspberry Pi 4 Model B Rev 1.4", 3800, "aarch64"), "pi-4");
        assert_eq!(chosen("Raspberry Pi 5 Model B Rev 1.0", 3900, "aarch64"), "pi-5");
        // The 32-bit binary on a 64-bit board: the board is what counts.
        assert_eq!(chosen("Raspberry Pi 3 Model B Rev 1.2", 900, "arm"), "pi-3");
    }

    #[test]
    fn without_a_known_model_the_architecture_decides_and_memory_bounds_it() {
        assert_eq!(chosen("", 24_000, "x86_64"), "generic-x86-64");
        assert_eq!(chosen("linux,dummy-virt", 215, "aarch64"), "generic-arm64");
        assert_eq!(chosen("linux,dummy-virt", 240, "arm"), "generic-armv7");
        // A Pi 3 A+ has half of a Pi 3 B's memory.
        assert_eq!(chosen("Raspberry Pi 3 Model A Plus Rev 1.0", 420, "aarch64"), "generic-arm64");
        let tiny = Choice::of(&Machine { model: String::new(), ram_mib: 64, arch: "aarch64" });
        assert!(tiny.reason.contains("64 MiB are less than any profile"), "{}", tiny.reason);
        assert_eq!(chosen("", 1000, "riscv64"), "none");
    }

    #[test]
    fn a_machine_with_much_memory_may_be_asked_for_more_and_one_that_is_named_may_not() {
        let machine = |ram_mib| Machine { model: String::new(), ram_mib, arch: "x86_64" };
        let many = "[net]\nsessions-max = 4000\nsessions-per-address-max = 4000\n";
        let judged = |choice: &Choice| {
            let mut settings = Settings::parse(many, Path::new("pillarbox.toml")).unwrap();
            settings.take_from(&choice.board, &toml::from_str(many).unwrap());
            let memory = settings.memory(&choice.board);
            memory.sum_kib() <= memory.budget_kib
        };
        assert!(judged(&Choice::of(&machine(24_000))));
        assert!(!judged(&Choice::of(&machine(900))));
        assert!(!judged(&Choice::new(Some("generic-x86-64")).unwrap()));
    }

    #[test]
    fn a_name_overrides_and_a_wrong_one_lists_the_right_ones() {
        assert_eq!(Choice::new(Some("pi-zero")).unwrap().board.ram_mib, 512);
        let error = Choice::new(Some("pi-6")).unwrap_err().to_string();
        assert!(error.starts_with("there is no board `pi-6`; there are pi-zero, pi-zero-2w, "), "{error}");
    }
}
