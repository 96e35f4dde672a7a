//! Which of the store's two files must be there when it opens.
//!
//! An index that was not closed cleanly needs its journal: acknowledged mail may be there alone. One
//! that was is complete, and so is one in a new store whose journal a cut left half made. What is
//! in the journal's place and of no use is put aside, never written over.

use std::io;
use std::sync::{Arc, mpsc};

use super::backend::Guard;
use super::disk::{Counted, Counters, Disk};
use super::engine::{Engine, Shared};
use super::error::OpenError;
use super::journal::{self, Contents};
use super::site::Site;
use super::writer::{self, Writer};
use super::{INDEX_FILE, JOURNAL_FILE, NEW_FILE, Store, StoreConfig};

/// What a journal is called that the store was opened without.
pub(super) const JOURNAL_ASIDE: &str = "mail.journal.aside";

/// What the store must not be opened without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// The journal, unless the index is complete.
    Journal,
    /// Nothing but the index: what only the journal has is given up.
    IndexAlone,
}

/// Opens the store at a site, makes it if there is none.
pub(super) fn open(site: Arc<dyn Site>, config: &StoreConfig, need: Need) -> Result<Store, OpenError> {
    let written: [Arc<Counters>; 2] = Default::default();
    let index = file(&*site, INDEX_FILE, &written[0]).map_err(|error| failed(&*site, &error))?;
    if !index.try_lock().map_err(|error| failed(&*site, &error))? {
        return Err(OpenError::InUse(site.path().to_owned()));
    }
    let opened = open_guarded(&site, config, index.clone(), written, need);
    if opened.is_err() {
        drop(index.unlock());
    }
    opened
}

/// Goes on with the index locked.
fn open_guarded(
    site: &Arc<dyn Site>,
    config: &StoreConfig,
    index: Arc<dyn Disk>,
    written: [Arc<Counters>; 2],
    need: Need,
) -> Result<Store, OpenError> {
    let guard = Guard::open(index.clone()).map_err(|error| failed(&**site, &error))?;
    if need == Need::IndexAlone {
        guard.set_complete(true);
    }
    let journal = locked_journal(&**site, &written)?;
    let opened = open_locked(site, config, [index, journal.clone()], guard, written, need);
    if opened.is_err() {
        drop(journal.unlock());
    }
    opened
}

/// Opens or makes the journal and locks it. A compaction may exchange the index between our opening
/// that and locking it; the journal keeps its name, so its lock is the one that decides.
fn locked_journal(site: &dyn Site, written: &[Arc<Counters>; 2]) -> Result<Arc<dyn Disk>, OpenError> {
    let journal = file(site, JOURNAL_FILE, &written[1]).map_err(|error| failed(site, &error))?;
    if !journal.try_lock().map_err(|error| failed(site, &error))? {
        return Err(OpenError::InUse(site.path().to_owned()));
    }
    Ok(journal)
}

/// Goes on with both files locked.
fn open_locked(
    site: &Arc<dyn Site>,
    config: &StoreConfig,
    [index, mut journal]: [Arc<dyn Disk>; 2],
    guard: Guard,
    written: [Arc<Counters>; 2],
    need: Need,
) -> Result<Store, OpenError> {
    let storage = |error: io::Error| failed(&**site, &error);
    // What a compaction left that was cut short.
    if let Err(error) = site.remove(NEW_FILE) {
        tracing::warn!(%error, "{NEW_FILE} is left over and can't be removed");
    }
    let useless = match journal::contents(&*journal).map_err(storage)? {
        Contents::Nothing => false,
        Contents::Unreadable => guard.is_complete() && !guard.is_blank(),
        Contents::Ring => need == Need::IndexAlone,
    };
    if useless {
        tracing::warn!("the journal can't be used and is put aside as {JOURNAL_ASIDE}");
        site.rename(JOURNAL_FILE, JOURNAL_ASIDE).map_err(storage)?;
        journal = locked_journal(&**site, &written)?;
    }
    let shared = Arc::new(Shared::new(site.clone(), [index, journal], guard, written, config.clone()));
    let opened = Engine::open(&shared).and_then(|(engine, sweep_due)| {
        let (commands, waiting) = mpsc::channel();
        let writer = Writer::new(shared.clone(), waiting, engine, sweep_due);
        let thread = std::thread::Builder::new().name("store".to_owned()).stack_size(writer::STACK_BYTES);
        thread.spawn(move || writer.run()).map_err(storage)?;
        Ok(Store { shared: shared.clone(), commands })
    });
    if opened.is_err() {
        drop(shared.shut());
    }
    opened
}

/// Opens or makes a file of the store; what goes through it is counted.
fn file(site: &dyn Site, name: &str, counters: &Arc<Counters>) -> io::Result<Arc<dyn Disk>> {
    let disk = site.open(name)?.map_or_else(|| site.create(name), Ok)?;
    Ok(Arc::new(Counted::new(disk, counters.clone())))
}

fn failed(site: &dyn Site, error: &io::Error) -> OpenError {
    OpenError::Storage(format!("{}: {error}", site.path().display()))
}
