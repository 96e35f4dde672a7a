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
    /// Nothing but the index: what can't be read of the journal is given up.
    IndexAlone,
}

/// Opens the store at a site, makes it if there is none.
pub(super) fn open(site: Arc<dyn Site>, config: &StoreConfig, need: Need) -> Result<Store, OpenError> {
    let written: [Arc<Counters>; 2] = Default::default();
    let index = file(&*site, INDEX_FILE, &written[0]).map_err(|error| failed(&*site, &error))?;
    if !index.try_lock().map_err(|error| failed(&*site, &error))? {
        return Err(OpenError::InUse(site.path().to_owned()));
    }
    let mut opened = open_locked(&site, config, &index, &written, need);
    if need == Need::IndexAlone && opened.as_ref().is_err_and(is_of_journal) {
        opened = put_aside(&*site)
            .map_err(|error| failed(&*site, &error))
            .and_then(|()| open_locked(&site, config, &index, &written, need));
    }
    if opened.is_err() {
        drop(index.unlock());
    }
    opened
}

/// Tells whether the store would open with another journal.
fn is_of_journal(error: &OpenError) -> bool {
    match error {
        OpenError::ForeignJournal(_) | OpenError::JournalDamaged(..) | OpenError::JournalMissing(_) => true,
        OpenError::InUse(_) | OpenError::NewerSchema { .. } | OpenError::Storage(_) => false,
    }
}

fn put_aside(site: &dyn Site) -> io::Result<()> {
    tracing::warn!("the journal can't be used and is put aside as {JOURNAL_ASIDE}");
    site.rename(JOURNAL_FILE, JOURNAL_ASIDE)
}

fn open_locked(
    site: &Arc<dyn Site>,
    config: &StoreConfig,
    index: &Arc<dyn Disk>,
    written: &[Arc<Counters>; 2],
    need: Need,
) -> Result<Store, OpenError> {
    let storage = |error: io::Error| failed(&**site, &error);
    let guard = Guard::open(index.clone()).map_err(storage)?;
    if need == Need::IndexAlone {
        guard.set_complete(true);
    }
    let mut journal = file(&**site, JOURNAL_FILE, &written[1]).map_err(storage)?;
    let found = journal::contents(&*journal).map_err(storage)?;
    if found == Contents::Unreadable && guard.is_complete() && !guard.is_blank() {
        put_aside(&**site).map_err(storage)?;
        journal = file(&**site, JOURNAL_FILE, &written[1]).map_err(storage)?;
    }
    // A compaction may exchange the index between our opening it and locking it. The journal keeps
    // its name, so its lock is the one that decides.
    if !journal.try_lock().map_err(storage)? {
        return Err(OpenError::InUse(site.path().to_owned()));
    }
    // What a compaction left that was cut short.
    if let Err(error) = site.remove(NEW_FILE) {
        tracing::warn!(%error, "{NEW_FILE} is left over and can't be removed");
    }
    let disks = [index.clone(), journal];
    let shared = Arc::new(Shared::new(site.clone(), disks, guard, written.clone(), config.clone()));
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
