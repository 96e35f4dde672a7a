//! What the bench is asked to do.

use std::path::PathBuf;

use crate::letter::Bodies;
use crate::stores::NAMES;

/// How to call it.
pub const HELP: &str = "\
storage [OPTIONS]            four stores side by side
storage large --dir DIR ...  a 5 GB store on a 1 MiB cache (see `storage large --help`)

  --dir DIR        where the stores are made; must exist
  --device NAME    count at this block device (such as loop0), which must hold DIR alone
  --stores LIST    of pillarbox,redb,sqlite,maildir,none; all if not given
  --work LIST      of 4k,mix,flag; all if not given
  --senders LIST   threads that deliver at a time; 1,16 if not given
  --bodies LIST    of text,noise,real; text,noise if not given
  --corpus DIR     the messages of `--bodies real`, a file each
  --preload N      4 KiB messages that are there before; 50000 if not given
  --percent N      so many percent of the usual messages of a workload; 100 if not given";

/// A workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Work {
    /// Letters that are there before; not measured.
    Fill,
    /// Letters of 4 KiB.
    Small,
    /// Letters of 2 to 2,000 KiB.
    Mixed,
    /// Flags of single letters.
    Flag,
    /// Every file of a folder.
    Corpus,
}

/// The options.
#[derive(Debug)]
pub struct Options {
    pub folder: PathBuf,
    pub device: Option<String>,
    pub stores: Vec<String>,
    works: Vec<Work>,
    pub senders: Vec<u64>,
    pub bodies: Vec<Bodies>,
    pub corpus: Option<PathBuf>,
    pub preload: u64,
    percent: u64,
}

impl Options {
    /// Reads them.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self {
            folder: PathBuf::new(),
            device: None,
            stores: NAMES.map(str::to_owned).to_vec(),
            works: vec![Work::Small, Work::Mixed, Work::Flag],
            senders: vec![1, 16],
            bodies: vec![Bodies::Text, Bodies::Noise],
            corpus: None,
            preload: 50_000,
            percent: 100,
        };
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(format!("{name}: its value is missing"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{name}: {value} is no number"));
            match name.as_str() {
                "--dir" => options.folder = value.into(),
                "--device" => options.device = Some(value.trim_start_matches("/dev/").to_owned()),
                "--stores" => options.stores = of_list(value, |name| NAMES.contains(&name).then(|| name.to_owned()))?,
                "--work" => {
                    options.works = of_list(value, |name| match name {
                        "4k" => Some(Work::Small),
                        "mix" => Some(Work::Mixed),
                        "flag" => Some(Work::Flag),
                        _ => None,
                    })?;
                }
                "--senders" => options.senders = of_list(value, |name| name.parse().ok().filter(|count| *count > 0))?,
                "--bodies" => {
                    options.bodies = of_list(value, |name| match name {
                        "text" => Some(Bodies::Text),
                        "noise" => Some(Bodies::Noise),
                        "real" => Some(Bodies::Real),
                        _ => None,
                    })?;
                }
                "--corpus" => options.corpus = Some(value.into()),
                "--preload" => options.preload = number()?,
                "--percent" => options.percent = number()?,
                _ => return Err(format!("{name}: there is no such option")),
            }
        }
        if !options.folder.is_dir() {
            return Err(format!("--dir: {} is no folder", options.folder.display()));
        }
        if options.bodies.contains(&Bodies::Real) && options.corpus.is_none() {
            return Err("--bodies real: --corpus names the folder of the messages".to_owned());
        }
        let flags = options.senders.iter().map(|senders| options.count(Work::Flag, *senders)).sum::<u64>();
        if options.preload >= 1_000_000 || options.works.contains(&Work::Flag) && options.preload < flags {
            return Err(format!("--preload: flags of {flags} messages are changed, and it stays under a million"));
        }
        if options.preload.is_multiple_of(7919) && options.preload > 0 {
            return Err("--preload: not a multiple of 7919".to_owned());
        }
        Ok(options)
    }

    /// The workloads on such bodies.
    pub fn works(&self, bodies: Bodies) -> Vec<Work> {
        match bodies {
            Bodies::Real => vec![Work::Corpus],
            Bodies::Text => self.works.clone(),
            // A flag does not know of what its message is made.
            Bodies::Noise => self.works.iter().copied().filter(|work| *work != Work::Flag).collect(),
        }
    }

    /// How many letters a workload has.
    pub fn count(&self, work: Work, senders: u64) -> u64 {
        let usual = match (work, senders) {
            (Work::Fill | Work::Corpus, _) => return 0,
            (Work::Mixed, 1) => 1000,
            (Work::Small, 1) | (Work::Mixed, _) => 2000,
            (Work::Small | Work::Flag, _) => 4000,
        };
        (usual * self.percent / 100).max(100)
    }
}

fn of_list<T>(list: &str, of: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    list.split(',').map(|name| of(name).ok_or(format!("{name} is not to be had"))).collect()
}
