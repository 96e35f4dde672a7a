//! Small files in the data folder with what a part of the server remembers from one start to the next, as JSON.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use serde::de::DeserializeOwned;

/// Largest file that is read, in bytes: more than the bounds of what is kept come to.
const FILE_MAX: u64 = 8 << 20;

/// Reads what was kept. Blocks.
///
/// # Errors
/// There is none, or it cannot be read.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let mut text = Vec::new();
    File::open(path)?.take(FILE_MAX).read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}

/// Puts a new file in the place of the old one. Blocks.
///
/// # Errors
/// The disk does not take it; the old one stays.
pub(super) fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)
}
