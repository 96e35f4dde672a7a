//! What the kernel tells of the medium a folder lies on: `/sys/dev/block`.
//!
//! The kernel counts what a block device was given to write since it was started, by all programs
//! together; the file system's own writes are in it, so it is nearer to what a card feels than what
//! a program asked for. Folders without a device of their own (tmpfs, btrfs, NFS, containers that
//! hide `/sys`) tell nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

/// The kernel counts in units of 512 bytes, whatever the device's own are.
const UNIT: u64 = 512;

/// Which field of `stat` counts the units written (Documentation/block/stat.rst), from 0.
const WRITTEN: usize = 6;

/// What the kernel tells of a medium.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Medium {
    /// Its name, such as `mmcblk0p2`.
    pub name: String,
    /// Bytes that were written to the partition since the system started.
    pub written: u64,
    /// The same for the whole device.
    pub device_written: u64,
    /// Size of the whole device in bytes.
    pub device_bytes: u64,
}

/// The medium that `folder` lies on; `None` where the kernel does not tell.
pub(super) fn of(folder: &Path) -> Option<Medium> {
    let device = fs::metadata(folder).ok()?.dev();
    read(&PathBuf::from(format!("/sys/dev/block/{}:{}", major(device), minor(device))))
}

/// Reads the entry of one device.
fn read(entry: &Path) -> Option<Medium> {
    let entry = fs::canonicalize(entry).ok()?;
    let name = entry.file_name()?.to_str()?.to_owned();
    // A partition's folder lies in its device's.
    let whole = if entry.join("partition").exists() { entry.parent()? } else { &entry };
    Some(Medium {
        name,
        written: written(&entry)?,
        device_written: written(whole)?,
        device_bytes: number(&fs::read_to_string(whole.join("size")).ok()?, 0)?.saturating_mul(UNIT),
    })
}

fn written(entry: &Path) -> Option<u64> {
    number(&fs::read_to_string(entry.join("stat")).ok()?, WRITTEN).map(|units| units.saturating_mul(UNIT))
}

/// A field of a line of numbers.
fn number(line: &str, field: usize) -> Option<u64> {
    line.split_ascii_whitespace().nth(field)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "    9701     5401   903158    13281    25204    36271  2093408   220511        0    94040   233792\n";

    #[test]
    fn a_partition_is_told_from_its_device() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("mmcblk0");
        let partition = device.join("mmcblk0p2");
        fs::create_dir_all(&partition).unwrap();
        fs::write(device.join("stat"), STAT).unwrap();
        fs::write(device.join("size"), "62333952\n").unwrap();
        fs::write(partition.join("stat"), STAT.replace("2093408", "8")).unwrap();
        fs::write(partition.join("size"), "1\n").unwrap();
        fs::write(partition.join("partition"), "2\n").unwrap();
        let told = Medium {
            name: "mmcblk0p2".to_owned(),
            written: 4096,
            device_written: 2_093_408 * 512,
            device_bytes: 62_333_952 * 512,
        };
        assert_eq!(read(&partition), Some(told.clone()));
        let whole = Medium { name: "mmcblk0".to_owned(), written: told.device_written, ..told };
        assert_eq!(read(&device), Some(whole));
    }

    #[test]
    fn what_is_no_device_tells_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(&folder.path().join("0:45")), None);
        assert_eq!(read(folder.path()), None);
        assert_eq!(of(Path::new("/proc")), None);
    }
}
