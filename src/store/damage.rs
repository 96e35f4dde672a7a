//! What the program says when redb ends it over a damaged file.
//!
//! redb looks at most of what it reads and answers with errors, but a page that makes no sense at
//! all can end in a panic, and a panic ends the server (so does systemd's restart, which finds the
//! same page). The words of a programmer's assertion help nobody at that moment: what helps is which
//! file it is and what to do about it.

use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::INDEX_FILE;

/// The store that was opened last: a server has one, and so has a command.
static OPENED: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Notes which store is open.
pub(super) fn opened(folder: &Path) {
    *OPENED.lock().unwrap_or_else(PoisonError::into_inner) = Some(folder.join(INDEX_FILE));
}

/// One sentence for people, when a panic came of a damaged mail file; `None` for any other.
pub fn sentence(panic: &PanicHookInfo<'_>) -> Option<String> {
    panic.location().filter(|place| is_redb(place.file()))?;
    // Whoever panics may hold the lock.
    let file = OPENED.try_lock().ok().and_then(|opened| opened.clone()).unwrap_or_else(|| INDEX_FILE.into());
    Some(format!(
        "{} is damaged, so that it can't be read on; copy the folder, run `pillarbox check-store` on it, and restore a \
         backup or run `pillarbox salvage` if that can't repair it",
        file.display()
    ))
}

/// Tells whether a source file is redb's.
fn is_redb(source: &str) -> bool {
    source
        .split(['/', '\\'])
        .any(|part| part.strip_prefix("redb-").is_some_and(|rest| rest.starts_with(char::is_numeric)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redbs_source_is_told_from_others() {
        assert!(is_redb("/home/x/.cargo/registry/src/index-1/redb-4.6.0/src/db.rs"));
        assert!(
            !is_redb("src/store/engine.rs") && !is_redb("/rustc/1/library/core/src/slice.rs") && !is_redb("redb-x/a")
        );
    }
}
