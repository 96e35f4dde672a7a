//! The gate to the index: who may read it, and who waits while it is opened anew.
//!
//! redb refuses everything after one failed read or write until it is closed and opened again. The
//! writer does that, at once, and whoever wants to read meanwhile waits here, up to
//! [`READ_WAIT_MAX`] after it began: some readers are on the reactor's thread, where a longer wait
//! would be everybody's. Between two attempts that failed nobody waits.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::error::{ReadError, Trouble};
use super::writer::Command;

/// How long readers wait for the index to be open again, counted from when it failed.
const READ_WAIT_MAX: Duration = Duration::from_secs(5);

/// The index, while it is open, and what became of it.
#[derive(Debug)]
pub(super) struct Gate {
    inside: Mutex<Inside>,
    moved: Condvar,
    /// Where the writer is asked to look. Weak, because the writer ends when no store is left.
    writer: OnceLock<Weak<Sender<Command>>>,
    /// The writer was asked and has not looked yet.
    asked: AtomicBool,
}

/// An open index. Whoever reads it holds its token, so that an index whose place another has taken
/// stays open until nobody does.
#[derive(Debug)]
pub(super) struct Opened {
    index: Database,
    readers: Arc<()>,
}

impl Opened {
    pub(super) fn new(index: Database) -> Self {
        Self { index, readers: Arc::default() }
    }

    /// Tells whether anybody reads it.
    pub(super) fn is_read(&self) -> bool {
        Arc::strong_count(&self.readers) > 1
    }

    fn begin_read(&self) -> Result<View, Trouble> {
        Ok(View { transaction: self.index.begin_read()?, token: self.readers.clone() })
    }
}

/// A read of the index as it is now. What outlives it keeps its token.
#[derive(Debug)]
pub(super) struct View {
    transaction: ReadTransaction,
    token: Arc<()>,
}

impl View {
    /// Keeps the index open.
    pub(super) fn token(&self) -> Arc<()> {
        self.token.clone()
    }
}

impl Deref for View {
    type Target = ReadTransaction;

    fn deref(&self) -> &ReadTransaction {
        &self.transaction
    }
}

#[derive(Debug)]
struct Inside {
    index: Option<Opened>,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    /// It failed then; the writer will open it anew, or is at it.
    Away(Instant),
    /// It could not be opened; the text says why.
    Down(String),
    Closed,
}

impl Gate {
    /// A gate that is closed.
    pub(super) fn new() -> Self {
        Self {
            inside: Mutex::new(Inside { index: None, state: State::Closed }),
            moved: Condvar::new(),
            writer: OnceLock::new(),
            asked: AtomicBool::new(false),
        }
    }

    /// Names the writer, which is asked to look when a reader meets trouble.
    pub(super) fn watched_by(&self, writer: Weak<Sender<Command>>) {
        // A gate has one writer in its life.
        let _ = self.writer.set(writer);
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a read; waits while the index is opened anew.
    pub(super) fn begin_read(&self) -> Result<View, ReadError> {
        let mut inside = self.inside();
        loop {
            match (&inside.state, &inside.index) {
                (State::Open, Some(index)) => match index.begin_read() {
                    Err(trouble) if trouble.may_pass() => {
                        inside.state = State::Away(Instant::now());
                        self.ask();
                    }
                    begun => return begun.map_err(ReadError::from),
                },
                (State::Away(since), _) => {
                    let Some(left) = READ_WAIT_MAX.checked_sub(since.elapsed()) else {
                        return Err(ReadError::Storage("the store is being opened anew".to_owned()));
                    };
                    inside = self.moved.wait_timeout(inside, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                (State::Down(what), _) => {
                    // A store nobody writes to comes back as well.
                    self.ask();
                    return Err(ReadError::Storage(what.clone()));
                }
                (State::Closed | State::Open, _) => return Err(ReadError::Closed),
            }
        }
    }

    /// Begins a write. The writer alone calls it.
    pub(super) fn begin_write(&self) -> Result<WriteTransaction, Trouble> {
        match &self.inside().index {
            Some(opened) => Ok(opened.index.begin_write()?),
            None => Err(Trouble::damaged("the index is not open")),
        }
    }

    /// Begins a read without waiting. The writer alone calls it, because it is the one waited for.
    pub(super) fn pin(&self) -> Result<View, Trouble> {
        match &self.inside().index {
            Some(opened) => opened.begin_read(),
            None => Err(Trouble::damaged("the index is not open")),
        }
    }

    /// A reader met a failed disk: the writer is asked to open the index anew, others wait for it.
    pub(super) fn suspect(&self) {
        let mut inside = self.inside();
        if matches!(inside.state, State::Open) {
            inside.state = State::Away(Instant::now());
            self.ask();
        }
    }

    fn ask(&self) {
        if !self.asked.swap(true, Ordering::Relaxed)
            && let Some(writer) = self.writer.get().and_then(Weak::upgrade)
        {
            drop(writer.send(Command::Look));
        }
    }

    /// The writer looks: tells whether the index has to be opened anew.
    pub(super) fn look(&self) -> bool {
        self.asked.store(false, Ordering::Relaxed);
        matches!(self.inside().state, State::Away(_))
    }

    /// Tells whether it is closed for good.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.inside().state, State::Closed)
    }

    /// Lets readers in.
    pub(super) fn open(&self, index: Database) {
        drop(self.pass(Some(Opened::new(index)), State::Open));
    }

    /// Puts another index in the place of this one, once `step` is done: whoever wants to read
    /// waits that long. Gives the old one back.
    pub(super) fn exchange<E>(&self, index: Opened, step: impl FnOnce() -> Result<(), E>) -> Result<Option<Opened>, E> {
        let mut inside = self.inside();
        step()?;
        Ok(inside.index.replace(index))
    }

    /// Lets go of the index, which is to be opened anew. Readers wait; what is being read breaks off.
    pub(super) fn take_down(&self) {
        drop(self.pass(None, State::Away(Instant::now())));
    }

    /// It could not be opened: readers get an error until the next attempt.
    pub(super) fn give_up(&self, what: String) {
        drop(self.pass(None, State::Down(what)));
    }

    /// Closes for good, and gives back the index.
    pub(super) fn shut(&self) -> Option<Database> {
        self.pass(None, State::Closed).map(|opened| opened.index)
    }

    fn pass(&self, index: Option<Opened>, state: State) -> Option<Opened> {
        let mut inside = self.inside();
        inside.state = state;
        let before = std::mem::replace(&mut inside.index, index);
        drop(inside);
        self.moved.notify_all();
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn index() -> Database {
        Database::builder().create_with_backend(redb::backends::InMemoryBackend::new()).unwrap()
    }

    #[test]
    fn readers_wait_while_the_index_is_opened_anew_and_not_between_attempts() {
        let gate = Arc::new(Gate::new());
        assert_eq!(gate.begin_read().err(), Some(ReadError::Closed));
        gate.open(index());
        gate.begin_read().unwrap();
        gate.take_down();
        let waiting = {
            let gate = gate.clone();
            std::thread::spawn(move || gate.begin_read().is_ok())
        };
        std::thread::sleep(Duration::from_millis(50));
        assert!(!waiting.is_finished());
        gate.open(index());
        assert!(waiting.join().unwrap());
        gate.take_down();
        gate.give_up("gone".to_owned());
        let begun = Instant::now();
        assert_eq!(gate.begin_read().err(), Some(ReadError::Storage("gone".to_owned())));
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn the_writer_is_asked_once_until_it_has_looked() {
        let (sender, commands) = channel();
        let sender = Arc::new(sender);
        let gate = Gate::new();
        gate.watched_by(Arc::downgrade(&sender));
        gate.open(index());
        assert!(!gate.look());
        gate.suspect();
        gate.suspect();
        assert!(matches!(commands.try_recv(), Ok(Command::Look)));
        assert!(commands.try_recv().is_err());
        assert!(gate.look());
        gate.give_up("gone".to_owned());
        for _ in 0..3 {
            gate.begin_read().unwrap_err();
        }
        assert!(matches!(commands.try_recv(), Ok(Command::Look)));
        assert!(commands.try_recv().is_err());
    }
}
