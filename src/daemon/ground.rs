//! What the data folder stands on: a disk that keeps what is written, and the disk that is meant.
//!
//! Mail taken into memory is gone with the power, and mail taken into the folder below a disk that
//! is not mounted vanishes when the disk comes back, and fills the card until then. So `serve`
//! looks before it makes anything: at what is mounted (`/proc/self/mountinfo`), at what should be
//! (`/etc/fstab`), and at `require-mount` in the settings. It never mounts anything itself.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::store::StoreConfig;

const MOUNTS: &str = "/proc/self/mountinfo";
const FSTAB: &str = "/etc/fstab";
const KERNEL_LINE: &str = "/proc/cmdline";

/// File systems whose files are in memory.
const IN_MEMORY: [&str; 4] = ["tmpfs", "ramfs", "rootfs", "devtmpfs"];

/// Block devices that are memory.
const MEMORY_DEVICES: [&str; 2] = ["/dev/zram", "/dev/ram"];

/// What starts Linux with a root file system whose changes stay in memory.
const MEMORY_ROOTS: [&str; 2] = ["boot=overlay", "overlayroot=tmpfs"];

/// Symbolic links followed to find out where a folder would be.
const LINKS_MAX: u32 = 16;

/// Why the data folder is no place for mail. `Display` is one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroundError {
    /// It is in memory.
    Ram {
        /// The data folder.
        folder: PathBuf,
        /// Where the file system in memory is mounted.
        mount: PathBuf,
        /// Its kind.
        kind: String,
    },
    /// The disk it belongs on is not mounted.
    NotMounted {
        /// The data folder.
        folder: PathBuf,
        /// Where that disk is to be mounted.
        mount: PathBuf,
    },
    /// `require-mount` is not mounted.
    Required(PathBuf),
}

impl fmt::Display for GroundError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ram { folder, mount, kind } => write!(
                out,
                "the data folder {} is in memory ({kind} on {}), and mail would be gone with the power; choose a \
                 folder on a disk, or set `allow-ram = true` in [store]",
                folder.display(),
                mount.display()
            ),
            Self::NotMounted { folder, mount } => write!(
                out,
                "the data folder {} is on the disk that {FSTAB} has for {mount}, and that is not mounted; connect the \
                 disk and run `mount {mount}`, or remove its line from {FSTAB}",
                folder.display(),
                mount = mount.display()
            ),
            Self::Required(mount) => write!(
                out,
                "`require-mount` in [store] names {mount}, and nothing is mounted there; connect the disk and mount \
                 it, or change the setting",
                mount = mount.display()
            ),
        }
    }
}

impl std::error::Error for GroundError {}

/// Looks whether mail may be kept in `folder`, which need not be there yet. Makes and changes nothing.
///
/// # Errors
/// The reason to refuse.
pub fn check(folder: &Path, config: &StoreConfig) -> Result<(), GroundError> {
    // First of all, because an automounter mounts a disk when somebody looks.
    let place = resolve(folder, LINKS_MAX);
    let mounts = match fs::read_to_string(MOUNTS) {
        Ok(text) => Mount::parse(&text),
        Err(error) if config.require_mount.is_none() => {
            tracing::warn!(%error, "{MOUNTS} can't be read, so nobody knows whether the data folder is on a disk");
            return Ok(());
        }
        Err(_) => Vec::new(),
    };
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    let ground = Ground { mounts, planned: planned(&text(FSTAB)), kernel_line: text(KERNEL_LINE) };
    ground.judge(&place, config)
}

/// Where a path leads, as far as it exists; what does not exist yet is added as it is written. A
/// link into a disk that is not mounted leads there all the same.
fn resolve(path: &Path, links: u32) -> PathBuf {
    if let Ok(found) = fs::canonicalize(path) {
        return found;
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(target) = fs::read_link(path).ok().filter(|_| links > 0) {
        return resolve(&parent.unwrap_or(Path::new(".")).join(target), links - 1);
    }
    match (parent, path.file_name()) {
        (Some(parent), Some(name)) => resolve(parent, links).join(name),
        (None, Some(name)) => fs::canonicalize(".").unwrap_or_default().join(name),
        _ => path.to_owned(),
    }
}

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    kind: String,
    source: String,
    options: String,
}

impl Mount {
    /// Reads `/proc/self/mountinfo` (proc(5)): fields, a lone dash, kind, source, options.
    fn parse(text: &str) -> Vec<Self> {
        let line = |line: &str| {
            let (place, medium) = line.split_once(" - ")?;
            let point = place.split(' ').nth(4)?;
            let mut medium = medium.split(' ');
            Some(Self {
                point: unescaped(point).into(),
                kind: medium.next()?.to_owned(),
                source: unescaped(medium.next()?),
                options: unescaped(medium.next().unwrap_or_default()),
            })
        };
        text.lines().filter_map(line).collect()
    }
}

/// Where `/etc/fstab` (fstab(5)) wants file systems mounted.
fn planned(text: &str) -> Vec<PathBuf> {
    let line = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let source = fields.next().filter(|source| !source.starts_with('#'))?;
        let point = PathBuf::from(unescaped(fields.next()?));
        let (kind, options) = (fields.next().unwrap_or("auto"), fields.next().unwrap_or_default());
        let is_bound = options.split(',').any(|option| matches!(option, "bind" | "rbind"));
        let is_disk = source != "none" && kind != "swap" && (kind != "none" || is_bound);
        (is_disk && point.is_absolute() && point.parent().is_some()).then_some(point)
    };
    text.lines().filter_map(line).collect()
}

/// Takes back the octal escapes of both files: `\040` is a space.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.first_chunk::<3>().filter(|_| byte == b'\\');
        let code = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(code) => {
                bytes.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is mounted, and what should be.
struct Ground {
    mounts: Vec<Mount>,
    planned: Vec<PathBuf>,
    kernel_line: String,
}

impl Ground {
    fn judge(&self, place: &Path, config: &StoreConfig) -> Result<(), GroundError> {
        if let Some(wanted) = &config.require_mount
            && !self.is_mounted(wanted)
        {
            return Err(GroundError::Required(wanted.clone()));
        }
        let planned = self.planned.iter().map(|point| resolve(point, LINKS_MAX));
        let nearest = planned.filter(|point| place.starts_with(point)).max_by_key(|point| point.components().count());
        if let Some(mount) = nearest.filter(|mount| !self.is_mounted(mount)) {
            return Err(GroundError::NotMounted { folder: place.to_owned(), mount });
        }
        match self.mount_of(place) {
            Some(mount) if !config.allow_ram && self.is_memory(mount) => {
                Err(GroundError::Ram { folder: place.to_owned(), mount: mount.point.clone(), kind: mount.kind.clone() })
            }
            _ => Ok(()),
        }
    }

    fn is_mounted(&self, point: &Path) -> bool {
        let place = resolve(point, LINKS_MAX);
        self.mounts.iter().any(|mount| mount.point == place)
    }

    /// The file system a path is on: of those mounted at one point, the last.
    fn mount_of(&self, path: &Path) -> Option<&Mount> {
        let over = self.mounts.iter().filter(|mount| path.starts_with(&mount.point));
        over.max_by_key(|mount| mount.point.components().count())
    }

    fn is_memory(&self, mount: &Mount) -> bool {
        if IN_MEMORY.contains(&mount.kind.as_str()) {
            return true;
        }
        if MEMORY_DEVICES.iter().any(|device| mount.source.starts_with(device)) {
            return true;
        }
        if mount.kind != "overlay" {
            return false;
        }
        // Changes go to the upper folder. In a container it is out of sight, and the overlay itself
        // seems to hold it.
        let upper = mount.options.split(',').find_map(|option| option.strip_prefix("upperdir="));
        let below = upper.and_then(|upper| self.mount_of(Path::new(upper))).filter(|below| *below != mount);
        below.is_some_and(|below| IN_MEMORY.contains(&below.kind.as_str()))
            || mount.point == Path::new("/")
                && self.kernel_line.split_ascii_whitespace().any(|word| {
                    MEMORY_ROOTS.iter().any(|root| word.strip_prefix(root).is_some_and(|rest| !rest.starts_with('-')))
                })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTED: &str = "\
22 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw
23 22 0:21 / /proc rw,nosuid shared:12 - proc proc rw
30 22 0:26 / /run rw shared:5 master:2 - tmpfs tmpfs rw,size=90000k
41 22 8:1 / /nowhere/usb\\040stick rw - ext4 /dev/sda1 rw
50 22 0:40 / /nowhere/cache rw - ext4 /dev/zram1 rw
";

    fn ground(fstab: &str) -> Ground {
        Ground { mounts: Mount::parse(MOUNTED), planned: planned(fstab), kernel_line: String::new() }
    }

    fn judge(ground: &Ground, folder: &str, config: &StoreConfig) -> Result<(), String> {
        ground.judge(Path::new(folder), config).map_err(|error| error.to_string())
    }

    #[test]
    fn memory_is_refused_unless_it_is_allowed() {
        let (ground, plain) = (ground(""), StoreConfig::default());
        assert_eq!(judge(&ground, "/nowhere/mail", &plain), Ok(()));
        for (folder, kind) in [("/run/mail", "tmpfs on /run"), ("/nowhere/cache/x", "ext4 on /nowhere/cache")] {
            let text = judge(&ground, folder, &plain).unwrap_err();
            assert!(text.contains(kind) && text.contains(folder) && text.contains("allow-ram"), "{text}");
            assert_eq!(judge(&ground, folder, &StoreConfig { allow_ram: true, ..plain.clone() }), Ok(()));
        }
        assert_eq!(judge(&ground, "/running", &plain), Ok(()), "a name that only begins alike");
    }

    #[test]
    fn an_overlay_counts_as_what_its_changes_go_to() {
        let root = "22 1 0:30 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/nowhere/rw/up,workdir=/w\n";
        let mounted = |more: &str, kernel_line: &str| {
            let mounts = Mount::parse(&format!("{root}{more}"));
            let ground = Ground { mounts, planned: Vec::new(), kernel_line: kernel_line.to_owned() };
            judge(&ground, "/nowhere/mail", &StoreConfig::default()).is_ok()
        };
        assert!(mounted("", "quiet"), "a container's");
        assert!(mounted("31 22 8:1 / /nowhere/rw rw - f2fs /dev/sda rw\n", ""));
        assert!(!mounted("31 22 0:31 / /nowhere/rw rw - tmpfs tmpfs rw\n", ""));
        assert!(!mounted("", "quiet boot=overlay splash"));
        assert!(!mounted("", "overlayroot=tmpfs:recurse=0"));
    }

    #[test]
    fn a_disk_that_should_be_mounted_and_is_not_is_named() {
        let fstab = "\
# /dev/sdz /nowhere/comment ext4
/dev/mmcblk0p2 / ext4 defaults 0 1
LABEL=stick /nowhere/usb\\040stick ext4 nofail 0 2
UUID=1 /nowhere/disk/ ext4
UUID=2 /nowhere/disk/inner auto noauto
/dev/sdb2 none swap sw
/dev/sdb2 /nowhere/swap swap sw
/nowhere/a /nowhere/bound none bind
tmpfs /run tmpfs
";
        let (ground, plain) = (ground(fstab), StoreConfig { allow_ram: true, ..StoreConfig::default() });
        for good in ["/nowhere/usb stick/mail", "/nowhere/swap/x", "/nowhere/comment", "/nowhere/disks", "/run/x"] {
            assert_eq!(judge(&ground, good, &plain), Ok(()), "{good}");
        }
        let bad = ["/nowhere/disk/mail", "/nowhere/disk", "/nowhere/disk/inner/a/b", "/nowhere/bound/x"];
        let mounts = ["/nowhere/disk", "/nowhere/disk", "/nowhere/disk/inner", "/nowhere/bound"];
        for (folder, mount) in bad.into_iter().zip(mounts) {
            let text = judge(&ground, folder, &plain).unwrap_err();
            assert!(text.contains(folder) && text.contains(&format!("`mount {mount}`")), "{text}");
        }
    }

    #[test]
    fn a_required_mount_must_be_there() {
        let config =
            |mount: &str| StoreConfig { require_mount: Some(mount.into()), allow_ram: true, ..StoreConfig::default() };
        assert_eq!(judge(&ground(""), "/nowhere/x", &config("/nowhere/usb stick")), Ok(()));
        let text = judge(&ground(""), "/nowhere/x", &config("/nowhere/usb")).unwrap_err();
        assert!(text.contains("require-mount") && text.contains("/nowhere/usb,"), "{text}");
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_followed_through_links() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        fs::create_dir(home.join("disk")).unwrap();
        std::os::unix::fs::symlink("disk/mail/data", home.join("link")).unwrap();
        std::os::unix::fs::symlink("loop", home.join("loop")).unwrap();
        assert_eq!(resolve(&home.join("link/deep"), LINKS_MAX), home.join("disk/mail/data/deep"));
        assert_eq!(resolve(&home.join("new/one"), LINKS_MAX), home.join("new/one"));
        assert_eq!(resolve(&home.join("disk/../disk"), LINKS_MAX), home.join("disk"));
        assert!(resolve(&home.join("loop"), LINKS_MAX).starts_with(&home));
    }

    #[test]
    fn escapes_of_both_files_are_taken_back() {
        assert_eq!(unescaped("a\\040b\\011c\\134d"), "a b\tc\\d");
        assert_eq!(unescaped("\\04\\999\\"), "\\04\\999\\");
        assert_eq!(Mount::parse("nonsense\n\n1 2 3\n"), []);
    }
}
