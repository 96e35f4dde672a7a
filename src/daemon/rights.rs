//! Giving up root's rights, and room for enough open files.
//!
//! Ports below 1024 are opened as root; everything else is done as an ordinary user. The change is
//! made before any other thread starts, because on Linux each thread has its own rights.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::Path;

use rustix::fs::{Gid, Uid};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// A user as `/etc/passwd` and `/etc/group` know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub uid: u32,
    /// Its first group.
    pub gid: u32,
    /// Its other groups.
    pub groups: Vec<u32>,
}

/// Why rights could not be given up. `Display` is one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RightsError {
    /// Root, and no user to become.
    Root,
    /// There is no such user.
    NoSuchUser(String),
    /// The system refuses; the text is its own.
    Refused(String, String),
}

impl fmt::Display for RightsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => write!(
                formatter,
                "started as root without a user to become; set `user = \"pillarbox\"` (and create that user), start it \
                 as an ordinary user, or insist with `allow-root = true`"
            ),
            Self::NoSuchUser(name) => {
                write!(formatter, "there is no user `{name}` in /etc/passwd; `useradd --system {name}` makes one")
            }
            Self::Refused(name, text) => write!(formatter, "cannot become user `{name}`: {text}"),
        }
    }
}

impl std::error::Error for RightsError {}

/// Tells whether we are root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Decides which user to become: none when not root, the named one when root.
///
/// # Errors
/// Root without a user to become, unless `allow_root`; or a user that does not exist.
pub fn user_to_become(name: Option<&str>, allow_root: bool) -> Result<Option<User>, RightsError> {
    match name {
        _ if !is_root() => Ok(None),
        None if allow_root => Ok(None),
        None => Err(RightsError::Root),
        Some(name) => {
            let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
            let group = fs::read_to_string("/etc/group").unwrap_or_default();
            find(name, &passwd, &group).map(Some).ok_or_else(|| RightsError::NoSuchUser(name.to_owned()))
        }
    }
}

/// Becomes the user for good. Call it while there is only one thread.
///
/// # Errors
/// The system refuses.
pub fn become_user(name: &str, user: &User) -> Result<(), RightsError> {
    let refused = |text: String| RightsError::Refused(name.to_owned(), text);
    let threads = fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(refused(format!("{threads} threads are running already")));
    }
    let groups: Vec<Gid> = user.groups.iter().copied().chain([user.gid]).map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_groups(&groups)
        .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
        .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
        .map_err(|error| refused(error.to_string()))?;
    // The way back must be closed.
    if user.uid != 0 && rustix::thread::set_thread_uid(Uid::ROOT).is_ok() {
        return Err(refused("root's rights could be taken back".to_owned()));
    }
    Ok(())
}

/// Makes the data folder if there is none, for its owner alone, and gives it to `user`.
///
/// # Errors
/// The disk's.
pub fn prepare_folder(folder: &Path, user: Option<&User>) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::DirBuilder::new().mode(0o700).create(folder)?;
    if let Some(user) = user {
        rustix::fs::chown(folder, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid)))?;
    }
    Ok(())
}

/// Tells whether we, as who we are now, can work in the data folder; the error says how to make it so.
///
/// # Errors
/// The folder is not ours to use, or not there.
pub fn check_folder(folder: &Path) -> std::io::Result<()> {
    use rustix::fs::{Access, AtFlags, CWD, accessat};
    use std::os::unix::fs::MetadataExt as _;
    let wanted = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    if accessat(CWD, folder, wanted, AtFlags::EACCESS).is_ok() {
        return Ok(());
    }
    let (owner, us) = (fs::metadata(folder)?.uid(), rustix::process::geteuid());
    let text = format!(
        "it belongs to user {owner} and Pillarbox runs as user {us}; `chown -R {us} {}` gives it over",
        folder.display()
    );
    Err(std::io::Error::new(std::io::ErrorKind::PermissionDenied, text))
}

/// Takes the data folder for this server alone, for as long as the result is kept, before anything in
/// it is made: two servers that start at once would mix their certificates. `None` when another one
/// has it.
///
/// # Errors
/// The disk's.
pub fn take_folder(folder: &Path) -> std::io::Result<Option<File>> {
    let folder = File::open(folder)?;
    match folder.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(None),
        // A file system without locks; the store takes its own file later.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(folder)),
    }
}

fn find(name: &str, passwd: &str, group: &str) -> Option<User> {
    let fields = passwd.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let mut fields = fields.split(':').skip(1);
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let member = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let number: u32 = fields.next()?.parse().ok()?;
        fields.next()?.split(',').any(|member| member == name).then_some(number)
    };
    let groups = group.lines().filter_map(member).filter(|number| *number != gid).collect();
    Some(User { uid, gid, groups })
}

/// Allows as many open files as `needed`, as far as the hard limit goes; returns how many there may be.
pub fn allow_open_files(needed: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let target = maximum.map_or(needed, |maximum| maximum.min(needed));
    if current.is_some_and(|current| current < target) {
        match setrlimit(Resource::Nofile, Rlimit { current: Some(target), maximum }) {
            Ok(()) => return target,
            Err(error) => tracing::warn!(%error, "cannot allow more open files"),
        }
    }
    current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nmail:x:8:8::/:\npillar:x:500:501::/:\npillarbox:x:990:991::/var/lib/pillarbox:/bin/false\n";
    const GROUP: &str = "root:x:0:\nssl-cert:x:110:postgres,pillarbox\npillarbox:x:991:pillarbox\n";

    #[test]
    fn a_user_is_found_by_its_whole_name_with_its_groups() {
        let user = find("pillarbox", PASSWD, GROUP).unwrap();
        assert_eq!(user, User { uid: 990, gid: 991, groups: vec![110] });
        assert_eq!(find("pillar", PASSWD, GROUP).unwrap().uid, 500);
        assert_eq!(find("box", PASSWD, GROUP), None);
    }

    #[test]
    fn root_is_refused_without_a_user() {
        if !is_root() {
            assert_eq!(user_to_become(Some("nobody-at-all"), false), Ok(None));
            return;
        }
        assert_eq!(user_to_become(None, false), Err(RightsError::Root));
        assert_eq!(user_to_become(None, true), Ok(None));
        let unknown = RightsError::NoSuchUser("nobody-at-all".to_owned());
        assert_eq!(user_to_become(Some("nobody-at-all"), true), Err(unknown));
    }

    #[test]
    fn a_new_data_folder_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b");
        prepare_folder(&folder, None).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        check_folder(&folder).unwrap();
        let taken = take_folder(&folder).unwrap();
        assert!(taken.is_some() && take_folder(&folder).unwrap().is_none());
        drop(taken);
        assert!(take_folder(&folder).unwrap().is_some());
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
        // Root may write everywhere.
        assert_eq!(check_folder(&folder).is_ok(), is_root());
    }
}
