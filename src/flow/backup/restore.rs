//! A data folder out of backups.
//!
//! Everything is written into the folder [`RESTORING`] inside the data folder, read and proved to the
//! end and made durable there; only then it is moved into place, the store's index last. So a restore
//! that fails or is killed leaves no store behind, the server does not start on what is half there, and
//! the next restore begins anew.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::chain::{Chain, Goal};
use super::files::{CONFIG, Unpack};
use super::lock::Keys;
use super::notes::{Made, note_made};
use super::{At, BackupError, Header, RESTORING};
use crate::store::load::Load;
use crate::store::proof::Findings;
use crate::store::site::FolderSite;
use crate::store::{OpenError, Store, StoreConfig};

/// How the names of folders begin that hold what was there before.
pub(super) const ASIDE: &str = ".before-restore";

/// What is being moved into place, one name a line; in [`RESTORING`] while that goes on.
const MOVING: &str = ".moving";

/// The index: where it is, a store is.
const INDEX: &str = "mail.redb";

/// The config's name where none is given.
const CONFIG_NAME: &str = "pillarbox.toml";

/// Where a restore goes.
#[derive(Clone, Debug)]
pub struct Place {
    /// The data folder; made when there is none.
    pub data: PathBuf,
    /// Where the config goes; `pillarbox.toml` in the data folder otherwise.
    pub config: Option<PathBuf>,
    /// Move aside what is in the data folder.
    pub force: bool,
    /// The user and group to give everything to.
    pub owner: Option<(u32, u32)>,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Restored {
    /// The backup whose state the box has now.
    #[serde(skip)]
    pub header: Header,
    /// What is in it.
    #[serde(flatten)]
    pub findings: Findings,
    /// Where the config was put.
    pub config: Option<PathBuf>,
    /// Files that were outside the data folder: their old paths, below `restored/` now.
    pub outside: Vec<String>,
    /// Where what was there before is now.
    pub aside: Option<PathBuf>,
}

/// Restores a chain of backups. Calls `watch` while it goes on, and counts what it reads in `read`.
///
/// # Errors
/// Whatever is wrong with the files, the keys or the place; nothing is changed then.
pub fn restore(
    paths: &[PathBuf],
    keys: &Keys,
    place: &Place,
    read: &Arc<AtomicU64>,
    watch: &mut dyn FnMut(),
) -> Result<Restored, BackupError> {
    let chain = Chain::open(paths, keys, read)?;
    let ground = Ground::prepare(place)?;
    let restored = fill(&chain, keys, &ground, place, read, watch).map_err(|error| {
        ground.clear();
        match error {
            BackupError::Open(OpenError::Storage(why)) => BackupError::Fill(place.data.clone(), why),
            error => error,
        }
    })?;
    ground.settle(place, restored)
}

/// Makes a whole data folder in the restore's own.
fn fill(
    chain: &Chain,
    keys: &Keys,
    ground: &Ground,
    place: &Place,
    read: &Arc<AtomicU64>,
    watch: &mut dyn FnMut(),
) -> Result<Restored, BackupError> {
    let folder = &ground.folder;
    let config = StoreConfig::default();
    let mut load = Load::begin(Arc::new(FolderSite::new(folder)))?;
    let mut files = Unpack::new(folder);
    let mut goal = Goal { load: Some(&mut load), files: Some(&mut files) };
    let findings = chain.walk(keys, &mut goal, read, watch)?;
    load.finish()?;
    let header = chain.last();
    // As any start would: what does not open here is not moved into place.
    let store = Store::open(folder, &config)?;
    let bytes = fs::metadata(chain.last_path()).map_or(0, |facts| facts.len());
    note_made(&store, Made::new(&header, bytes))?;
    store.close()?;
    watch();
    if let Some(owner) = place.owner {
        give(folder, owner)?;
    }
    each_below(folder, &mut |path| File::open(path).and_then(|file| file.sync_all()).at(path))?;
    Ok(Restored { header, findings, config: None, outside: files.outside, aside: None })
}

/// The data folder while a restore is under way.
struct Ground {
    data: PathBuf,
    folder: PathBuf,
    /// The data folder was not there before.
    made: bool,
}

impl Ground {
    /// Looks whether the place is free, and makes the restore's folder in it.
    fn prepare(place: &Place) -> Result<Self, BackupError> {
        let (data, folder) = (place.data.clone(), place.data.join(RESTORING));
        let made = !data.exists();
        if !made {
            finish_moving(&data)?;
            refuse_in_use(&data)?;
            if !place.force && !others(place)?.is_empty() {
                return Err(BackupError::Occupied(data));
            }
            if folder.exists() {
                fs::remove_dir_all(&folder).at(&folder)?;
            }
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).at(&folder)?;
        if let (Some((user, group)), true) = (place.owner, made) {
            chown(&data, Some(user), Some(group)).at(&data)?;
        }
        Ok(Self { data, folder, made })
    }

    /// Takes back what [`Ground::prepare`] made. What can't be removed does no harm: the next restore
    /// removes it.
    fn clear(&self) {
        let _ = fs::remove_dir_all(&self.folder);
        if self.made {
            let _ = fs::remove_dir(&self.data);
        }
    }

    /// Moves everything into place.
    fn settle(&self, place: &Place, mut restored: Restored) -> Result<Restored, BackupError> {
        refuse_in_use(&self.data)?;
        let old = others(place)?;
        if !old.is_empty() {
            if !place.force {
                return Err(BackupError::Occupied(self.data.clone()));
            }
            restored.aside = Some(self.move_aside(old, &restored.header, place.owner)?);
        }
        let config = self.folder.join(CONFIG);
        if config.exists() {
            restored.config = Some(put_config(&config, place)?);
        }
        let names = self.names()?;
        let moving = self.folder.join(MOVING);
        let mut list = File::create(&moving).at(&moving)?;
        for name in &names {
            list.write_all(name.as_encoded_bytes()).and_then(|()| list.write_all(b"\n")).at(&moving)?;
        }
        list.sync_all().at(&moving)?;
        sync(&self.folder)?;
        for name in &names {
            let to = self.data.join(name);
            fs::rename(self.folder.join(name), &to).at(&to)?;
        }
        sync(&self.data)?;
        let index = self.data.join(INDEX);
        fs::rename(self.folder.join(INDEX), &index).at(&index)?;
        sync(&self.data)?;
        // From here on it is a store; the empty folder does no harm.
        let _ = fs::remove_dir_all(&self.folder);
        if let Some(parent) = self.data.parent().filter(|_| self.made) {
            // Where the parent's name is empty it is the folder we stand in.
            sync(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
        }
        Ok(restored)
    }

    /// The names of what is to be moved, without the index. What would come over something that
    /// stays, which only a config is, is given another name.
    fn names(&self) -> Result<Vec<OsString>, BackupError> {
        let mut names = Vec::new();
        let entries = fs::read_dir(&self.folder).at(&self.folder)?.collect::<io::Result<Vec<_>>>().at(&self.folder)?;
        for entry in entries.into_iter().filter(|entry| entry.file_name() != INDEX) {
            let mut name = entry.file_name();
            while self.data.join(&name).exists() {
                name.push(".restored");
            }
            fs::rename(entry.path(), self.folder.join(&name)).at(&self.folder)?;
            names.push(name);
        }
        names.sort();
        Ok(names)
    }

    /// Moves what was there into a folder of its own, the store's index first.
    fn move_aside(
        &self,
        mut old: Vec<PathBuf>,
        header: &Header,
        owner: Option<(u32, u32)>,
    ) -> Result<PathBuf, BackupError> {
        let name = |count: u32| format!("{ASIDE}-{}-{count}", header.id);
        let free = |path: &PathBuf| !path.exists();
        let aside = (0..100).map(|count| self.data.join(name(count))).find(free);
        let aside = aside.ok_or_else(|| BackupError::Occupied(self.data.clone()))?;
        DirBuilder::new().mode(0o700).create(&aside).at(&aside)?;
        if let Some((user, group)) = owner {
            chown(&aside, Some(user), Some(group)).at(&aside)?;
        }
        old.sort_by_key(|path| path.file_name().is_none_or(|name| name != INDEX));
        for path in old {
            let Some(name) = path.file_name() else { continue };
            fs::rename(&path, aside.join(name)).at(&path)?;
        }
        sync(&aside)?;
        sync(&self.data)?;
        Ok(aside)
    }
}

/// What lies in the data folder beside the config, which stays, and what restores leave.
fn others(place: &Place) -> Result<Vec<PathBuf>, BackupError> {
    let mut others = Vec::new();
    for entry in fs::read_dir(&place.data).at(&place.data)? {
        let entry = entry.at(&place.data)?;
        let name = entry.file_name();
        let config = place.config.as_ref().map_or(name == CONFIG_NAME, |config| *config == entry.path());
        let ours = name == RESTORING || name.to_string_lossy().starts_with(ASIDE);
        if !(config || ours || name == "lost+found") {
            others.push(entry.path());
        }
    }
    Ok(others)
}

/// A store that a process has open is not moved away under it.
fn refuse_in_use(data: &Path) -> Result<(), BackupError> {
    let locked = File::open(data.join(INDEX)).map(|file| file.try_lock());
    if matches!(locked, Ok(Err(fs::TryLockError::WouldBlock))) {
        let text = format!("a server runs on {}; stop it before anything is restored there", data.display());
        return Err(BackupError::Refused(text));
    }
    Ok(())
}

/// Takes back what an earlier restore that was killed had moved into place already.
fn finish_moving(data: &Path) -> Result<(), BackupError> {
    let folder = data.join(RESTORING);
    let Ok(list) = fs::read_to_string(folder.join(MOVING)) else { return Ok(()) };
    if data.join(INDEX).exists() {
        // It had come to its end, and only the empty folder is left.
        return fs::remove_dir_all(&folder).at(&folder);
    }
    for name in list.lines().filter(|name| !name.is_empty() && !name.contains('/') && *name != "..") {
        let path = data.join(name);
        // Only what is not in the folder any more was moved.
        if folder.join(name).exists() || !path.exists() {
            continue;
        }
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.at(&path)?;
    }
    Ok(())
}

/// Puts the config where it goes, or beside the one that is there.
fn put_config(from: &Path, place: &Place) -> Result<PathBuf, BackupError> {
    let wanted = place.config.clone().unwrap_or_else(|| place.data.join(CONFIG_NAME));
    let mut beside = wanted.clone().into_os_string();
    beside.push(".restored");
    let to = if wanted.exists() { PathBuf::from(beside) } else { wanted };
    if let Some(folder) = to.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).at(folder)?;
    }
    // It may go to another file system, so it is copied, and under its name only when it is whole.
    let mut new = to.clone().into_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    fs::copy(from, &new).and_then(|_| File::open(&new)?.sync_all()).at(&new)?;
    if let Some((user, group)) = place.owner {
        chown(&new, Some(user), Some(group)).at(&new)?;
    }
    fs::rename(&new, &to).at(&to)?;
    fs::remove_file(from).at(from)?;
    Ok(to)
}

/// Gives a folder with everything in it to a user and group.
///
/// # Errors
/// The system's.
pub fn give(folder: &Path, (user, group): (u32, u32)) -> Result<(), BackupError> {
    each_below(folder, &mut |path| chown(path, Some(user), Some(group)).at(path))
}

/// Calls `act` for everything below a folder, and for the folder itself last.
fn each_below(folder: &Path, act: &mut dyn FnMut(&Path) -> Result<(), BackupError>) -> Result<(), BackupError> {
    for entry in fs::read_dir(folder).at(folder)? {
        let entry = entry.at(folder)?;
        let path = entry.path();
        if entry.file_type().at(&path)?.is_dir() {
            each_below(&path, act)?;
        } else {
            act(&path)?;
        }
    }
    act(folder)
}

fn sync(folder: &Path) -> Result<(), BackupError> {
    let synced = File::open(folder).and_then(|open| open.sync_all());
    match synced {
        // Some file systems of memory sticks have nothing to sync a folder with.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        synced => synced.at(folder),
    }
}
