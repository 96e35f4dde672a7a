//! Which of the store's two files must be there when it opens.
//!
//! An index that was not closed cleanly needs its journal: acknowledged mail may be there alone. One
//! that was is complete, and so is one in a new store whose journal a cut left half made. What is
//! in the journal's place and of no use is put aside, never written over.

use std::io;
use std::sync::{Arc, mpsc};

use super::backend::Guard;
use super::ballast::{Ballast, Ballasted};
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

/// A store that is being opened.
#[derive(Debug)]
pub(super) struct Opening {
    site: Arc<dyn Site>,
    config: StoreConfig,
    need: Need,
    /// What goes to the index and to the journal.
    written: [Arc<Counters>; 2],
}

impl Opening {
    /// Where, how, and without what not.
    pub(super) fn new(site: Arc<dyn Site>, config: &StoreConfig, need: Need) -> Self {
        Self { site, config: config.clone(), need, written: Default::default() }
    }

    /// Opens the store, makes it if there is none.
    pub(super) fn store(&self) -> Result<Store, OpenError> {
        let opened = self.locked(false);
        let again = self.need == Need::IndexAlone && opened.as_ref().is_err_and(is_of_journal);
        if again { self.locked(true) } else { opened }
    }

    /// Locks the index and opens the store, with another journal than is there if so `anew`.
    fn locked(&self, anew: bool) -> Result<Store, OpenError> {
        let index = self.file(INDEX_FILE, &self.written[0])?;
        if !index.try_lock().map_err(|error| self.failed(&error))? {
            return Err(OpenError::InUse(self.site.path().to_owned()));
        }
        let aside = if anew { self.put_aside() } else { Ok(()) };
        let opened = aside.and_then(|()| self.store_of(&index));
        if opened.is_err() {
            drop(index.unlock());
        }
        opened
    }

    /// Opens the store of an index that is locked.
    fn store_of(&self, index: &Arc<dyn Disk>) -> Result<Store, OpenError> {
        let ballast = Arc::new(Ballast::new(self.config.cache_bytes.into()));
        let index: Arc<dyn Disk> = Arc::new(Ballasted::new(index.clone(), ballast.clone()));
        let guard = Guard::open(index.clone()).map_err(|error| self.failed(&error))?;
        if self.need == Need::IndexAlone {
            guard.set_complete(true);
        }
        let mut journal = self.file(JOURNAL_FILE, &self.written[1])?;
        let found = journal::contents(&*journal).map_err(|error| self.failed(&error))?;
        if found == Contents::Unreadable && guard.is_complete() && !guard.is_blank() {
            self.put_aside()?;
            journal = self.file(JOURNAL_FILE, &self.written[1])?;
        }
        // A compaction may exchange the index between our opening it and locking it. The journal keeps
        // its name, so its lock is the one that decides.
        if !journal.try_lock().map_err(|error| self.failed(&error))? {
            return Err(OpenError::InUse(self.site.path().to_owned()));
        }
        // What a compaction left that was cut short.
        if let Err(error) = self.site.remove(NEW_FILE) {
            tracing::warn!(%error, "{NEW_FILE} is left over and can't be removed");
        }
        let (site, written, config) = (self.site.clone(), self.written.clone(), self.config.clone());
        let shared = Arc::new(Shared::new(site, [index, journal], guard, ballast, written, config));
        let opened = open_engine(&shared).and_then(|engine| {
            let (commands, waiting) = mpsc::channel();
            let commands = Arc::new(commands);
            shared.gate.watched_by(Arc::downgrade(&commands));
            let writer = Writer::new(shared.clone(), waiting, engine);
            let thread = std::thread::Builder::new().name("store".to_owned()).stack_size(writer::STACK_BYTES);
            thread.spawn(move || writer.run()).map_err(|error| self.failed(&error))?;
            Ok(Store { shared: shared.clone(), commands })
        });
        if opened.is_err() {
            drop(shared.shut());
        }
        opened
    }

    /// Opens or makes a file of the store; what goes through it is counted.
    fn file(&self, name: &str, counters: &Arc<Counters>) -> Result<Arc<dyn Disk>, OpenError> {
        let disk = self.site.open(name).and_then(|disk| disk.map_or_else(|| self.site.create(name), Ok));
        let disk = disk.map_err(|error| self.failed(&error))?;
        Ok(Arc::new(Counted::new(disk, counters.clone())))
    }

    fn put_aside(&self) -> Result<(), OpenError> {
        tracing::warn!("the journal can't be used and is put aside as {JOURNAL_ASIDE}");
        self.site.rename(JOURNAL_FILE, JOURNAL_ASIDE).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> OpenError {
        OpenError::Storage(format!("{}: {error}", self.site.path().display()))
    }
}

/// Tells whether the store would open with another journal.
fn is_of_journal(error: &OpenError) -> bool {
    matches!(error, OpenError::ForeignJournal(_) | OpenError::JournalDamaged(..) | OpenError::JournalMissing(_))
}

/// Opens index and journal. Where the disk is so full that even this finds no room, what is there
/// can be read, and the writer tries again: then there is no engine yet.
fn open_engine(shared: &Shared) -> Result<Option<(Engine, bool)>, OpenError> {
    match Engine::open(shared, None) {
        Err(OpenError::DiskFull) if Engine::open_for_reading(shared, None).is_ok() => {
            tracing::error!("the disk is full: mail can be read, and nothing can be changed until there is room");
            Ok(None)
        }
        opened => opened.map(Some),
    }
}
