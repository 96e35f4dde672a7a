//! The pairs of one domain, and how they take turns.
//!
//! Of the pairs whose time has come the newest signs. [`Keyring::rotate`] adds one whose time comes a
//! week later, or as soon as DNS has been seen to publish it; the one before stays published for two
//! more weeks. Everything is on disk before a call returns; keys belong to the folder's owner alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::der::{from_pem, to_pem};
use super::pair::{Algorithm, Pair, SEEDS};
use super::{FOLDER, KeyError, dns_name};
use crate::mail::date::Timestamp;

/// How long a new pair is published before it signs, in seconds: a week, because DNS caches a
/// record's absence too, and people publish it when they come to it.
pub const OVERLAP_SECS: i64 = 7 * 86_400;

/// How long an old pair stays published after its last signature, in seconds: two weeks, longer than
/// any queue holds mail.
pub const KEPT_SECS: i64 = 14 * 86_400;

/// Most pairs of a domain.
pub const PAIRS_MAX: usize = 8;

/// The file that says since when each pair signs.
const TURNS: &str = "keys.json";

/// Largest file that is read, in bytes.
const FILE_MAX: u64 = 64 << 10;

/// Changes are made one after another.
static CHANGING: Mutex<()> = Mutex::new(());

/// What `keys.json` holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Turns {
    /// The next pair's number; none is given twice, so a selector never gets another key.
    next: u32,
    /// By number.
    pairs: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    number: u32,
    /// When it was made, in seconds since 1970.
    made: i64,
    /// From when on it signs.
    signs_from: i64,
}

/// Where a pair stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "turn", content = "at")]
pub enum Turn {
    /// To be published now; signs from then on, or when DNS shows it.
    Waits(Timestamp),
    /// Signs.
    Signs,
    /// Signs no more; to be published until then.
    Kept(Timestamp),
    /// Needed by nobody any more.
    Over,
}

impl Turn {
    /// Its records have to be in DNS.
    pub fn is_published(self) -> bool {
        !matches!(self, Self::Over)
    }
}

/// A key as lists and zones show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct KeyRow {
    /// Its name in DNS, before `._domainkey.` and the domain.
    pub selector: String,
    /// How it signs.
    pub algorithm: Algorithm,
    /// When it was made.
    pub made: Timestamp,
    /// Where its pair stands.
    #[serde(flatten)]
    pub turn: Turn,
    /// The text of its TXT record.
    pub record: String,
}

/// The pairs of a domain.
#[derive(Clone, Debug)]
pub struct Keyring {
    /// The data folder.
    data: PathBuf,
    /// Where the domain's keys are.
    folder: PathBuf,
    domain: String,
    turns: Turns,
}

/// The selector of a pair's key.
fn selector(number: u32, algorithm: Algorithm) -> String {
    format!("pb{number}-{}", algorithm.name())
}

impl Keyring {
    /// Reads what the data folder has for `domain`; nothing is no error.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn open(data: &Path, domain: &str) -> Result<Self, KeyError> {
        let domain = dns_name(domain)?;
        let folder = data.join(FOLDER).join(&domain);
        let path = folder.join(TURNS);
        let turns = match read(&path)? {
            Some(text) => serde_json::from_str(&text).map_err(|_| KeyError::Damaged(path))?,
            None => Turns::default(),
        };
        Ok(Self { data: data.to_owned(), folder, domain, turns })
    }

    /// The domain in A-labels, as `d=` has it.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The file that changes with every change, for whoever keeps a copy in memory.
    pub fn file(&self) -> PathBuf {
        self.folder.join(TURNS)
    }

    /// There are no keys.
    pub fn is_empty(&self) -> bool {
        self.turns.pairs.is_empty()
    }

    /// Makes the first pair where there is none; it signs at once. Tells whether it did. Takes long.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn ensure(&mut self, now: Timestamp, seeds: &[u8; SEEDS]) -> Result<bool, KeyError> {
        let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        *self = Self::open(&self.data, &self.domain)?;
        if !self.is_empty() {
            return Ok(false);
        }
        self.add(now, now.0, seeds).map(|()| true)
    }

    /// Makes another pair, which signs after [`OVERLAP_SECS`], or at once with `at_once`. Takes long.
    ///
    /// # Errors
    /// [`KeyError::Refused`] while one waits already.
    pub fn rotate(&mut self, now: Timestamp, seeds: &[u8; SEEDS], at_once: bool) -> Result<(), KeyError> {
        let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        *self = Self::open(&self.data, &self.domain)?;
        if let Some(waiting) = self.waiting(now) {
            return Err(KeyError::Refused(format!(
                "the pair pb{} of {} waits already; publish it and run `pillarbox dns {} --check`, or remove it",
                waiting.number, self.domain, self.domain
            )));
        }
        if self.turns.pairs.len() >= PAIRS_MAX {
            return Err(KeyError::Refused(format!(
                "{} has {PAIRS_MAX} pairs of keys; remove old ones with `pillarbox dkim remove {}`",
                self.domain, self.domain
            )));
        }
        let wait = if at_once || self.is_empty() { 0 } else { OVERLAP_SECS };
        self.add(now, now.0.saturating_add(wait), seeds)
    }

    /// Lets the waiting pair sign from now on. Tells whether there was one.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn begin(&mut self, now: Timestamp) -> Result<bool, KeyError> {
        let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        *self = Self::open(&self.data, &self.domain)?;
        let Some(number) = self.waiting(now).map(|entry| entry.number) else { return Ok(false) };
        for entry in self.turns.pairs.iter_mut().filter(|entry| entry.number == number) {
            entry.signs_from = now.0;
        }
        self.write_turns().map(|()| true)
    }

    /// Removes the pair one of whose selectors is given, or `pbN`; without one, those whose time is
    /// over. Answers with the selectors that went.
    ///
    /// # Errors
    /// [`KeyError::Refused`] when there is no such pair, or it signs and another is there.
    pub fn remove(&mut self, given: Option<&str>, now: Timestamp) -> Result<Vec<String>, KeyError> {
        let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        *self = Self::open(&self.data, &self.domain)?;
        let names = |number: u32| Algorithm::ALL.map(|algorithm| selector(number, algorithm));
        let wanted = |entry: &&Entry| match given {
            Some(given) => {
                names(entry.number).iter().any(|name| name == given) || format!("pb{}", entry.number) == given
            }
            None => self.turn(entry, now) == Turn::Over,
        };
        let gone: Vec<Entry> = self.turns.pairs.iter().filter(wanted).copied().collect();
        if let Some(given) = given
            && gone.is_empty()
        {
            return Err(KeyError::Refused(format!("{} has no key {given}", self.domain)));
        }
        if self.turns.pairs.len() > 1
            && let Some(signs) = gone.iter().find(|entry| self.turn(entry, now) == Turn::Signs)
        {
            return Err(KeyError::Refused(format!(
                "pb{} signs the mail of {} now; run `pillarbox dkim rotate {}` first",
                signs.number, self.domain, self.domain
            )));
        }
        self.turns.pairs.retain(|entry| !gone.contains(entry));
        let gone: Vec<String> = gone.iter().flat_map(|entry| names(entry.number)).collect();
        if !gone.is_empty() {
            self.write_turns()?;
        }
        for name in &gone {
            let path = self.path(name);
            fs::remove_file(&path).or_else(absent).map_err(|error| KeyError::File(path, error))?;
        }
        Ok(gone)
    }

    /// The number of the pair that signs.
    pub fn signing(&self, now: Timestamp) -> Option<u32> {
        self.signing_entry(now).map(|entry| entry.number)
    }

    /// Tells whether a pair waits for its time.
    pub fn is_rotating(&self, now: Timestamp) -> bool {
        self.waiting(now).is_some()
    }

    /// The selector of a pair's key.
    pub fn selector(number: u32, algorithm: Algorithm) -> String {
        selector(number, algorithm)
    }

    /// Loads a pair.
    ///
    /// # Errors
    /// [`KeyError::Exposed`] when others may read it.
    pub fn load(&self, number: u32) -> Result<Pair, KeyError> {
        let [rsa, ed25519] = Algorithm::ALL.map(|algorithm| {
            let path = self.path(&selector(number, algorithm));
            let mode = fs::metadata(&path).map(|facts| facts.permissions().mode() & 0o777);
            match mode {
                Ok(mode) if mode & 0o077 != 0 => return Err(KeyError::Exposed(path, mode)),
                Ok(_) => {}
                Err(error) => return Err(KeyError::File(path, error)),
            }
            let text = read(&path)?.map(zeroize::Zeroizing::new);
            text.and_then(|text| from_pem(&text)).ok_or(KeyError::Damaged(path))
        });
        Pair::load(&rsa?, &ed25519?).ok_or_else(|| KeyError::Damaged(self.path(&selector(number, Algorithm::Rsa))))
    }

    /// All keys, the oldest pair first.
    ///
    /// # Errors
    /// As [`Keyring::load`].
    pub fn rows(&self, now: Timestamp) -> Result<Vec<KeyRow>, KeyError> {
        let mut rows = Vec::new();
        for entry in &self.turns.pairs {
            let pair = self.load(entry.number)?;
            rows.extend(Algorithm::ALL.map(|algorithm| KeyRow {
                selector: selector(entry.number, algorithm),
                algorithm,
                made: Timestamp(entry.made),
                turn: self.turn(entry, now),
                record: pair.record(algorithm),
            }));
        }
        Ok(rows)
    }

    /// The newest whose time has come; with a clock that went back, the oldest of all.
    fn signing_entry(&self, now: Timestamp) -> Option<&Entry> {
        let come = self.turns.pairs.iter().filter(|entry| entry.signs_from <= now.0);
        come.max_by_key(|entry| entry.number).or_else(|| self.turns.pairs.iter().min_by_key(|entry| entry.number))
    }

    fn waiting(&self, now: Timestamp) -> Option<&Entry> {
        let signing = self.signing_entry(now)?.number;
        self.turns.pairs.iter().find(|entry| entry.number > signing)
    }

    fn turn(&self, entry: &Entry, now: Timestamp) -> Turn {
        let signing = self.signing_entry(now);
        match signing.map_or(entry.number, |signing| signing.number) {
            signing if entry.number == signing => Turn::Signs,
            signing if entry.number > signing => Turn::Waits(Timestamp(entry.signs_from)),
            _ => {
                let followed = self.turns.pairs.iter().filter(|other| other.number > entry.number);
                let last = followed.map(|other| other.signs_from).min().unwrap_or(now.0);
                let until = last.saturating_add(KEPT_SECS);
                if until > now.0 { Turn::Kept(Timestamp(until)) } else { Turn::Over }
            }
        }
    }

    fn add(&mut self, now: Timestamp, signs_from: i64, seeds: &[u8; SEEDS]) -> Result<(), KeyError> {
        let generated = Pair::generate(seeds);
        let keys = generated.ok_or_else(|| KeyError::Refused("no prime was found; try again".into()))?;
        let owner = fs::metadata(&self.data).map_err(|error| KeyError::File(self.data.clone(), error))?;
        for folder in [self.data.join(FOLDER), self.folder.clone()] {
            let made = DirBuilder::new().mode(0o700).create(&folder);
            match made.and_then(|()| give(&folder, owner.uid(), owner.gid())) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                done => done.map_err(|error| KeyError::File(folder, error))?,
            }
        }
        // Where `keys.json` was lost, its keys are left alone.
        let mut number = self.turns.next.max(1);
        while Algorithm::ALL.iter().any(|algorithm| self.path(&selector(number, *algorithm)).exists()) {
            number = number.saturating_add(1);
        }
        for (algorithm, key) in Algorithm::ALL.iter().zip(&keys) {
            self.write(&self.path(&selector(number, *algorithm)), to_pem(key).as_bytes())?;
        }
        self.turns.pairs.push(Entry { number, made: now.0, signs_from });
        self.turns.next = number.saturating_add(1);
        self.write_turns()
    }

    fn path(&self, selector: &str) -> PathBuf {
        self.folder.join(format!("{selector}.pem"))
    }

    fn write_turns(&self) -> Result<(), KeyError> {
        let path = self.file();
        let text =
            serde_json::to_vec_pretty(&self.turns).map_err(|error| KeyError::File(path.clone(), error.into()))?;
        self.write(&path, &text)
    }

    /// Replaces a file as a whole: after a power cut it is the old one or the new one.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
        let new = path.with_extension("new");
        let write = || {
            // What an earlier, interrupted try left behind may have another mode.
            fs::remove_file(&new).or_else(absent)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            file.write_all(bytes)?;
            let owner = fs::metadata(&self.data)?;
            give(&new, owner.uid(), owner.gid())?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| KeyError::File(path.to_owned(), error))
    }
}

/// What root makes for the server belongs to the server's user.
fn give(path: &Path, user: u32, group: u32) -> io::Result<()> {
    if rustix::process::geteuid().is_root() { chown(path, Some(user), Some(group)) } else { Ok(()) }
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// A small text file; `None` when it is not there.
fn read(path: &Path) -> Result<Option<String>, KeyError> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text)) {
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(KeyError::Damaged(path.to_owned())),
        Err(error) => Err(KeyError::File(path.to_owned(), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn at(days: i64) -> Timestamp {
        Timestamp(1_800_000_000 + days * DAY)
    }

    fn turns(ring: &Keyring, now: Timestamp) -> Vec<(String, Turn)> {
        let rows = ring.rows(now).unwrap().into_iter().filter(|row| row.algorithm == Algorithm::Rsa);
        rows.map(|row| (row.selector, row.turn)).collect()
    }

    #[test]
    fn a_new_pair_is_published_first_signs_later_and_the_old_one_stays_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = Keyring::open(folder.path(), "Example.org").unwrap();
        assert!(ring.is_empty() && ring.signing(at(0)).is_none());
        assert!(ring.ensure(at(0), &[1; SEEDS]).unwrap());
        assert!(!ring.ensure(at(1), &[1; SEEDS]).unwrap());
        assert_eq!(turns(&ring, at(1)), [("pb1-rsa".into(), Turn::Signs)]);

        ring.rotate(at(10), &[2; SEEDS], false).unwrap();
        let (old, new) = ("pb1-rsa".to_owned(), "pb2-rsa".to_owned());
        assert_eq!(turns(&ring, at(11)), [(old.clone(), Turn::Signs), (new.clone(), Turn::Waits(at(17)))]);
        assert!(matches!(ring.rotate(at(11), &[3; SEEDS], false), Err(KeyError::Refused(why)) if why.contains("pb2")));
        assert!(matches!(ring.remove(Some("pb1-rsa"), at(11)), Err(KeyError::Refused(why)) if why.contains("rotate")));
        assert_eq!(ring.signing(at(17)), Some(2));

        // DNS shows it earlier.
        assert!(ring.begin(at(12)).unwrap() && !ring.begin(at(12)).unwrap());
        let again = Keyring::open(folder.path(), "example.org").unwrap();
        assert_eq!(turns(&again, at(13)), [(old.clone(), Turn::Kept(at(26))), (new.clone(), Turn::Signs)]);
        assert!(ring.remove(None, at(13)).unwrap().is_empty());
        assert_eq!(turns(&ring, at(26)), [(old, Turn::Over), (new, Turn::Signs)]);
        assert_eq!(ring.remove(None, at(26)).unwrap(), ["pb1-rsa", "pb1-ed25519"]);
        let left: Vec<_> = fs::read_dir(folder.path().join("dkim/example.org")).unwrap().collect();
        assert_eq!(left.len(), 3, "{left:?}");

        // The last one may go; its selector does not come back with another key.
        assert_eq!(ring.remove(Some("pb2"), at(27)).unwrap().len(), 2);
        assert!(ring.ensure(at(28), &[4; SEEDS]).unwrap());
        assert_eq!(turns(&ring, at(28)), [("pb3-rsa".into(), Turn::Signs)]);
        // A clock that went back has not made it a secret.
        assert_eq!(ring.signing(Timestamp(0)), Some(3));
    }

    #[test]
    fn keys_are_their_owners_alone_and_refused_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = Keyring::open(folder.path(), "x.test").unwrap();
        ring.ensure(at(0), &[5; SEEDS]).unwrap();
        let key = folder.path().join("dkim/x.test/pb1-ed25519.pem");
        for (path, mode) in [(key.clone(), 0o600), (folder.path().join("dkim/x.test"), 0o700)] {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        }
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        let error = ring.load(1).unwrap_err();
        assert!(matches!(&error, KeyError::Exposed(path, 0o640) if *path == key));
        assert!(error.to_string().contains("chmod 600"), "{error}");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(ring.load(1).is_ok());
        fs::write(&key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        assert!(matches!(ring.load(1), Err(KeyError::Damaged(_))));
        fs::write(ring.file(), "{").unwrap();
        assert!(matches!(Keyring::open(folder.path(), "x.test"), Err(KeyError::Damaged(_))));
    }
}
