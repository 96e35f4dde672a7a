//! The box's files beside its mail: the config, certificates and keys, and what is small in the data
//! folder.
//!
//! On the way out each file is read whole, so that it is one moment's; on the way back files of the
//! data folder go where they were, and those from elsewhere (a certificate in `/etc`) into its folder
//! `restored/`, for whoever restores to put in place: nothing outside the data folder is touched.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::frame::Kind;
use super::writer::Writer;
use super::{At, BackupError};

/// Largest file that is taken along, in bytes, and most files.
const FILE_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 1000;

/// How deep folders are looked into.
const DEPTH_MAX: usize = 8;

/// Bytes of a file in one frame.
const CHUNK: usize = 64 << 10;

/// The folder, in the restored data folder, of files that came from outside.
const OUTSIDE: &str = "restored";

/// The name, while a restore is under way, of the config.
pub(super) const CONFIG: &str = ".config";

/// Where a file was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Role {
    /// In the data folder; the path is relative to it.
    Data,
    /// The config file.
    Config,
    /// A file that the config names, elsewhere.
    Named,
}

/// A file's entry in the stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    role: Role,
    path: String,
    mode: u32,
    size: u64,
}

/// The files that go into a backup.
#[derive(Debug, Default)]
pub struct Files {
    found: Vec<(Role, String, PathBuf)>,
    /// What was left out, and why: one sentence each.
    pub left_out: Vec<String>,
}

/// Finds the files of the data folder, and takes the config and the files it names along.
///
/// # Errors
/// The data folder can't be read.
pub fn gather(data: &Path, config: Option<&Path>, named: &[PathBuf]) -> Result<Files, BackupError> {
    let mut files = Files::default();
    files.look_into(data, "", 0, config)?;
    if let Some(config) = config {
        files.add(Role::Config, config.to_owned(), config);
    }
    for path in named.iter().filter(|path| !path.starts_with(data)) {
        files.add(Role::Named, path.clone(), path);
    }
    Ok(files)
}

impl Files {
    fn look_into(
        &mut self,
        folder: &Path,
        prefix: &str,
        depth: usize,
        config: Option<&Path>,
    ) -> Result<(), BackupError> {
        let mut entries = fs::read_dir(folder).at(folder)?.collect::<io::Result<Vec<_>>>().at(folder)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                self.left_out.push(format!("{} was left out: its name is not UTF-8", path.display()));
                continue;
            };
            let kind = entry.file_type().at(&path)?;
            if (depth == 0 && is_stores(&name)) || config.is_some_and(|config| is_same(config, &path)) {
                continue;
            }
            let relative = format!("{prefix}{name}");
            if kind.is_dir() {
                if depth < DEPTH_MAX {
                    self.look_into(&path, &format!("{relative}/"), depth + 1, config)?;
                }
            } else if fs::metadata(&path).is_ok_and(|facts| facts.is_file()) {
                self.add(Role::Data, PathBuf::from(relative), &path);
            }
        }
        Ok(())
    }

    fn add(&mut self, role: Role, name: PathBuf, path: &Path) {
        let facts = fs::metadata(path);
        let why = match (facts, name.into_os_string().into_string()) {
            (Err(error), _) => error.to_string(),
            (_, Err(_)) => "its name is not UTF-8".to_owned(),
            (Ok(facts), _) if facts.len() > FILE_MAX => {
                format!("it is larger than {} MiB; keep a copy of it yourself if it matters", FILE_MAX >> 20)
            }
            // A backup that lies in the data folder.
            (Ok(_), Ok(_)) if is_encrypted(path) => return,
            (Ok(_), Ok(_)) if self.found.len() >= FILES_MAX => "there are too many files".to_owned(),
            (Ok(_), Ok(name)) => return self.found.push((role, name, path.to_owned())),
        };
        self.left_out.push(format!("{} was left out: {why}", path.display()));
    }

    /// Puts the files into a backup.
    ///
    /// # Errors
    /// The backup's; a file that can't be read any more is left out.
    pub fn put<W: Write>(&mut self, writer: &mut Writer<W>) -> io::Result<()> {
        for (role, name, path) in &self.found {
            let (bytes, mode) = match read_small(path) {
                Ok(found) => found,
                Err(error) => {
                    self.left_out.push(format!("{} was left out: {error}", path.display()));
                    continue;
                }
            };
            let entry = Entry { role: *role, path: name.clone(), mode, size: bytes.len() as u64 };
            writer.frame(Kind::File, &serde_json::to_vec(&entry)?)?;
            for chunk in bytes.chunks(CHUNK) {
                writer.frame(Kind::Data, chunk)?;
            }
        }
        Ok(())
    }
}

/// The store's own files, what an unfinished restore or one with --force leaves, and unfinished
/// backups.
fn is_stores(name: &str) -> bool {
    name.starts_with("mail.")
        || name == super::RESTORING
        || name.starts_with(super::restore::ASIDE)
        || Path::new(name).extension().is_some_and(|extension| extension == "partial")
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn is_encrypted(path: &Path) -> bool {
    const LINE: &[u8] = b"age-encryption.org/";
    let mut first = [0; LINE.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok() && first == LINE
}

fn read_small(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    let mut bytes = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut bytes)?;
    Ok((bytes, mode))
}

/// Puts the files of a backup into a folder that is to become a data folder.
#[derive(Debug)]
pub(super) struct Unpack {
    folder: PathBuf,
    open: Option<(File, PathBuf, u64)>,
    /// The config came.
    pub(super) config: bool,
    /// Files that came from outside the data folder, by their old paths.
    pub(super) outside: Vec<String>,
}

impl Unpack {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), open: None, config: false, outside: Vec::new() }
    }

    /// Begins a file; `from` names the backup in errors.
    pub(super) fn begin(&mut self, entry: &[u8], from: &Path) -> Result<(), BackupError> {
        self.end(from)?;
        let altered = || BackupError::Altered(from.to_owned());
        let entry: Entry = serde_json::from_slice(entry).map_err(|_| altered())?;
        let place = match entry.role {
            Role::Config => PathBuf::from(CONFIG),
            Role::Data => plain(&entry.path, false).ok_or_else(altered)?,
            Role::Named => Path::new(OUTSIDE).join(plain(&entry.path, true).ok_or_else(altered)?),
        };
        match entry.role {
            Role::Config => self.config = true,
            Role::Named => self.outside.push(entry.path),
            Role::Data => {}
        }
        let path = self.folder.join(place);
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).at(folder)?;
        }
        // Nobody else may write a file of the box, whatever was on the old one.
        let mode = entry.mode & 0o755 | 0o600;
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).at(&path)?;
        self.open = Some((file, path, entry.size));
        Ok(())
    }

    /// Adds to the file.
    pub(super) fn data(&mut self, bytes: &[u8], from: &Path) -> Result<(), BackupError> {
        let altered = || BackupError::Altered(from.to_owned());
        let (file, path, left) = self.open.as_mut().ok_or_else(altered)?;
        *left = left.checked_sub(bytes.len() as u64).ok_or_else(altered)?;
        file.write_all(bytes).at(path)
    }

    /// The last file ended.
    pub(super) fn end(&mut self, from: &Path) -> Result<(), BackupError> {
        match self.open.take() {
            Some((_, _, left)) if left > 0 => Err(BackupError::Altered(from.to_owned())),
            _ => Ok(()),
        }
    }
}

/// A path that leads into our folder and to none of the store's files.
fn plain(path: &str, from_root: bool) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::RootDir if from_root => {}
            Component::Normal(name) => {
                let first = plain.as_os_str().is_empty() && !from_root;
                let taken = |name: &str| first && (is_stores(name) || name == CONFIG);
                let name = name.to_str().filter(|name| !name.contains('\0') && !taken(name))?;
                plain.push(name);
            }
            _ => return None,
        }
    }
    (!plain.as_os_str().is_empty()).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_never_leads_out_or_over_the_store() {
        assert_eq!(plain("tls/ca.key", false), Some(PathBuf::from("tls/ca.key")));
        assert_eq!(plain("/etc/ssl/a.pem", true), Some(PathBuf::from("etc/ssl/a.pem")));
        for path in
            ["", "/", "/etc/passwd", "../x", "a/../../x", "mail.redb", "mail.journal/x", ".restoring", ".config"]
        {
            assert_eq!(plain(path, false), None, "{path}");
        }
        assert_eq!(plain("/etc/../x", true), None);
    }

    #[test]
    fn the_store_backups_and_what_is_large_stay_out() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        fs::create_dir_all(data.join("tls")).unwrap();
        fs::create_dir_all(data.join(".restoring")).unwrap();
        for name in ["mail.redb", "mail.journal", "x.partial", "tls/ca.key", "box.toml", "note", ".restoring/y"] {
            fs::write(data.join(name), name).unwrap();
        }
        fs::write(data.join("old.age"), "age-encryption.org/v1\n...").unwrap();
        File::create(data.join("large")).unwrap().set_len(FILE_MAX + 1).unwrap();
        let outside = folder.path().join("key.pem");
        fs::write(&outside, "key").unwrap();
        let named = [outside.clone(), data.join("tls/ca.key"), folder.path().join("gone.pem")];
        let files = gather(&data, Some(&data.join("box.toml")), &named).unwrap();
        let found: Vec<_> = files.found.iter().map(|(role, name, _)| (*role, name.as_str())).collect();
        let (config, outside) = (data.join("box.toml"), outside.to_str().unwrap());
        let wanted = [
            (Role::Data, "note"),
            (Role::Data, "tls/ca.key"),
            (Role::Config, config.to_str().unwrap()),
            (Role::Named, outside),
        ];
        assert_eq!(found, wanted);
        assert_eq!(files.left_out.len(), 2);
        assert!(files.left_out[0].contains("large") && files.left_out[1].contains("gone.pem"), "{:?}", files.left_out);
    }
}
