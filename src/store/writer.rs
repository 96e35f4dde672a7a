//! The writer thread: group commit, staging of large bodies, checkpoints, reopening.
//!
//! The thread takes every command that waits and does all of them in one transaction: each is
//! planned on what the ones before it left, and applied at once. Then one `fdatasync` of the
//! journal, a commit without durability, and only then the answers. There is no timer: while one
//! sync runs, the next group gathers.
//!
//! A body that is larger than what a checkpoint costs does not go through the journal: it is put
//! into the index in steps of [`STEP_BYTES`], other commands in between, as a body nobody refers to.
//! It waits there for a checkpoint, with others of its kind ([`hold`]); the change that refers to it
//! goes through the journal as any other. When the disk fails, index and journal are opened anew
//! ([`recovery`]) before anybody in the group is answered: what was acknowledged is in them, and
//! maybe the group is.

use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use redb::{Durability, WriteTransaction};
use tokio::sync::oneshot;

use crate::mail::mailbox::ModSeq;
use crate::mail::message::BlobId;

use super::blob::piece_count;
use super::change::{Change, PAYLOAD_VERSION};
use super::compact::Compactor;
use super::engine::{Engine, Shared};
use super::error::{Fault, Trouble, WriteError};
use super::journal::JournalError;
use super::message::{Incoming, Pieces};
use super::shelf::put_piece;
use super::sweep;
use super::table::{SWEEP_STAGED, Tables};

mod command; //  what it is asked to do, and who is told
mod hold; //     which messages wait for a checkpoint, and for how long
mod recovery; // what the writer does when the disk fails

use command::{Answer, Errand, Planned, tell};
pub(super) use command::{Command, Keep, Target, errand, job};
use hold::Held;
pub(super) use hold::Hold;

/// Most commands of a group.
const GROUP_MAX: usize = 64;

/// A group takes no further command when its payload has this many bytes.
const GROUP_BYTES: usize = 512 << 10;

/// Bytes of pieces staged in one transaction.
const STEP_BYTES: usize = 512 << 10;

/// Sweeping this many steps calls for a checkpoint, so that the room can be used again.
const SWEEP_STEPS: u32 = 4;

/// The writer's stack: redb's trees are shallow.
pub(super) const STACK_BYTES: usize = 512 << 10;

/// The thread's state.
pub(super) struct Writer {
    shared: Arc<Shared>,
    commands: Receiver<Command>,
    /// `None` while the disk fails.
    engine: Option<Engine>,
    reopen_at: Instant,
    /// Why there is no engine.
    failing: WriteError,
    /// The numbers of a group whose callers were told that it was not done, while nobody could know
    /// whether the journal holds it.
    refused: Option<RangeInclusive<u64>>,
    /// Large messages on their way in.
    held: Held,
    sweep_due: bool,
    swept: u32,
    compactor: Compactor,
    /// Who waits until nothing is left to stage or to sweep.
    settling: Vec<oneshot::Sender<Result<(), WriteError>>>,
    /// What the present group was interrupted for.
    errands: Vec<Errand>,
}

/// What a group did.
struct Written {
    /// The accounts that it changed.
    woken: Vec<u32>,
    /// Anything was changed.
    touched: bool,
}

/// A group that came to nothing, or to nobody knows what.
struct Failed {
    trouble: Trouble,
    /// Its numbers, when it had begun to be made durable.
    logged: Option<RangeInclusive<u64>>,
    /// The first command, when nothing of it was done.
    first: Option<Command>,
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        Self { trouble, logged: None, first: None }
    }
}

/// A group while it gathers.
struct Group {
    /// The changes, as the journal will hold them.
    payload: Vec<u8>,
    first: u64,
    last: u64,
    /// Something was changed that the journal does not hold.
    beside: bool,
    messages: u64,
}

impl Group {
    fn is_empty(&self) -> bool {
        self.payload.len() <= 1
    }

    /// Numbers and applies what a command came to.
    fn add(&mut self, tables: &mut Tables<'_>, planned: Planned, answers: &mut Vec<Answer>) -> Result<(), Trouble> {
        answers.push(planned.answer);
        // What the plan itself changed stands in no journal.
        self.beside |= std::mem::take(&mut tables.touched);
        if planned.ops.is_empty() {
            return Ok(());
        }
        let change = Change { seq: tables.seq, ops: planned.ops };
        self.payload = change.encode_into(std::mem::take(&mut self.payload))?;
        self.last = change.seq;
        if self.first == 0 {
            self.first = change.seq;
        }
        change.apply(tables)?;
        tables.touched = false;
        Ok(())
    }
}

impl Writer {
    /// A writer for a store; without an engine while the disk is full.
    pub(super) fn new(shared: Arc<Shared>, commands: Receiver<Command>, engine: Option<(Engine, bool)>) -> Self {
        let (engine, sweep_due) = engine.map_or((None, false), |(engine, sweep_due)| (Some(engine), sweep_due));
        let compactor = Compactor::new(&shared);
        Self {
            shared,
            commands,
            engine,
            reopen_at: Instant::now(),
            failing: WriteError::DiskFull,
            refused: None,
            held: Held::default(),
            sweep_due,
            swept: 0,
            compactor,
            settling: Vec::new(),
            errands: Vec::new(),
        }
    }

    /// Works until the store is closed or nobody can send commands any more.
    pub(super) fn run(mut self) {
        loop {
            let working = self.engine.is_some() && (self.sweep_due || !self.held.is_empty());
            if !working {
                self.settling.drain(..).for_each(|sender| tell(sender, Ok(())));
            }
            let busy = working || self.engine.is_some() && self.compactor.is_busy();
            let command = if let Some(keep) = self.held.next() {
                Some(Command::Keep(keep))
            } else if busy {
                match self.commands.try_recv() {
                    Ok(command) => Some(command),
                    Err(TryRecvError::Disconnected) if self.held.is_empty() => break,
                    Err(_) => None,
                }
            } else if self.engine.is_some() {
                match self.compactor.wait(&self.commands) {
                    Ok(command) => command,
                    Err(_) => break,
                }
            } else {
                match self.commands.recv() {
                    Ok(command) => Some(command),
                    Err(_) => break,
                }
            };
            let idle = command.is_none();
            if let Some(reply) = command.and_then(|command| self.group(command, true)) {
                let closed = self.close();
                drop(reply.send(closed));
                return;
            }
            if let Err(trouble) = self.between(idle) {
                self.restart(&trouble, None);
                // What can't be removed would be met again at once; the next removal tries it again.
                self.sweep_due = false;
            }
            self.compactor.heed(&self.shared, idle);
        }
        drop(self.close());
    }

    /// Does `first` and what waits behind it as one group; once more when the disk failed before
    /// anything was done. Gives back who asked to close.
    fn group(&mut self, first: Command, again: bool) -> Option<SyncSender<Result<(), WriteError>>> {
        let (mut answers, mut close) = (Vec::new(), None);
        let begun = self.ready_engine();
        if let (Command::Look, Ok(())) = (&first, &begun) {
            return None;
        }
        let begun = begun.and_then(|()| {
            self.shared.refill();
            self.shared.begin_write().map_err(Failed::from)
        });
        let written = match begun {
            Ok(transaction) => self.write(transaction, first, &mut answers, &mut close),
            Err(failed) => Err(Failed { first: Some(first), ..failed }),
        };
        let written = match written {
            Ok(written) => Ok(written),
            Err(Failed { trouble, logged, first }) => {
                let outcome = self.settle(&trouble, logged);
                match (first, &outcome) {
                    // A broken store can be closed all the same.
                    (Some(Command::Close(reply)), _) => return Some(reply),
                    (Some(first), _) if again && self.engine.is_some() => return self.group(first, false),
                    (Some(first), Err(error)) => first.refuse(error.clone()),
                    _ => {}
                }
                Err(outcome)
            }
        };
        let outcome = written.as_ref().map_or_else(Clone::clone, |_| Ok(()));
        for answer in answers {
            answer(outcome.clone());
        }
        if let Ok(Written { woken, touched }) = written {
            self.shared.watchers.wake(&woken, ModSeq(self.shared.applied.load(Ordering::Acquire)));
            // On a full disk what a change frees has to be of use to the next one.
            let tight = touched && self.shared.is_tight();
            let due = self.engine.as_mut().filter(|engine| {
                tight || engine.wants_checkpoint(&self.shared) && !self.compactor.holds_checkpoints(engine)
            });
            if let Some(Err(trouble)) = due.map(|engine| engine.checkpoint(&self.shared)) {
                self.restart(&trouble, None);
            }
        }
        for errand in std::mem::take(&mut self.errands) {
            self.compactor.outrun();
            let there = self.engine.as_mut().map(|engine| (engine, &*self.shared));
            if let Err(trouble) = errand(there.ok_or_else(failing)) {
                self.restart(&trouble, None);
            }
        }
        close
    }

    /// Plans, applies and commits a group.
    fn write(
        &mut self,
        transaction: WriteTransaction,
        first: Command,
        answers: &mut Vec<Answer>,
        close: &mut Option<SyncSender<Result<(), WriteError>>>,
    ) -> Result<Written, Failed> {
        let engine = self.engine.as_mut().ok_or_else(|| Trouble::damaged("no journal"))?;
        self.shared.wear.turn(&self.shared);
        let mut tables = match Tables::open(&transaction, self.shared.site.now()) {
            Ok(tables) => tables,
            Err(trouble) => return Err(Failed { trouble, logged: None, first: Some(first) }),
        };
        let mut group =
            Group { payload: vec![PAYLOAD_VERSION], first: 0, last: engine.seq, beside: false, messages: 0 };
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(command) = next.take() {
            tables.seq = group.last + 1;
            match command {
                Command::Plan(job) => {
                    if let Some(planned) = job(Ok(&mut tables))? {
                        group.add(&mut tables, planned, answers)?;
                    }
                }
                Command::Keep(keep) => {
                    let checkpoint = Engine::checkpoint_bytes(&self.shared);
                    let wait = self.held.takes(&keep, taken, checkpoint);
                    if let Some(keep) = keep_now(&self.shared, keep, wait, &mut tables, &mut group, answers)? {
                        self.held.push(keep, checkpoint);
                    }
                }
                Command::Look => {}
                Command::Compact(asked) => self.compactor.ask(asked),
                Command::Settle(sender) => self.settling.push(sender),
                Command::Errand(errand) => {
                    self.errands.push(errand);
                    break;
                }
                Command::Close(reply) => {
                    *close = Some(reply);
                    break;
                }
            }
            taken += 1;
            if taken < GROUP_MAX && group.payload.len() < GROUP_BYTES {
                next = self.held.next().map(Command::Keep).or_else(|| self.commands.try_recv().ok());
            }
        }
        self.sweep_due |= tables.sweep_due;
        let (woken, kept) = (std::mem::take(&mut tables.woken), tables.progress.kept);
        group.beside |= tables.touched;
        if group.beside {
            self.compactor.outrun();
        }
        let touched = !group.is_empty() || group.beside || tables.marked;
        if !touched {
            drop(tables);
            transaction.abort().map_err(Trouble::from)?;
            return Ok(Written { woken, touched });
        }
        tables.finish()?;
        commit(&self.shared, engine, transaction, &group).map_err(|trouble| Failed {
            trouble,
            logged: (!group.is_empty()).then_some(group.first..=group.last),
            first: None,
        })?;
        self.shared.space.kept.store(kept, Ordering::Relaxed);
        self.shared.counts.lock().unwrap_or_else(PoisonError::into_inner).messages += group.messages;
        Ok(Written { woken, touched })
    }

    /// What is done between two groups. Staging goes on between any two, sweeping can wait for a
    /// moment when there is nothing else to do.
    fn between(&mut self, idle: bool) -> Result<(), Trouble> {
        if self.held.unstaged(false).is_some() {
            self.stage(false)?;
        } else if idle && self.held.is_empty() {
            self.rest()?;
        }
        if self.engine.is_some() && self.held.due(idle, Engine::checkpoint_bytes(&self.shared)) {
            while self.held.unstaged(true).is_some() {
                self.stage(true)?;
            }
            if let Some(engine) = self.engine.as_mut() {
                engine.checkpoint(&self.shared)?;
            }
        }
        Ok(())
    }

    /// Puts the next pieces of large messages into the index, of those that are `going` or of any.
    fn stage(&mut self, going: bool) -> Result<(), Trouble> {
        let full = self.shared.lacks_room();
        let transaction = self.shared.begin_write()?;
        let mut tables = Tables::open(&transaction, self.shared.site.now())?;
        let mut room = STEP_BYTES;
        while room > 0
            && let Some((place, message)) = self.held.unstaged(going)
        {
            let staged =
                if full { Err(WriteError::DiskFull.into()) } else { stage_step(&mut tables, message, &mut room) };
            match staged {
                Ok(pieces) => message.pieces = pieces,
                Err(Fault::Broken(trouble)) => return Err(trouble),
                Err(Fault::Refused(error)) => {
                    let Some(keep) = self.held.remove(place) else { break };
                    for id in keep.staged() {
                        sweep::abandon(&mut tables, id)?;
                    }
                    keep.refuse(error);
                }
            }
        }
        self.sweep_due |= tables.sweep_due;
        tables.finish()?;
        self.step_done(transaction)
    }

    /// Commits a step of staging or sweeping. On a full disk its pages may not wait in memory.
    fn step_done(&mut self, transaction: WriteTransaction) -> Result<(), Trouble> {
        match self.engine.as_mut().filter(|_| self.shared.is_tight()) {
            Some(engine) => engine.commit(&self.shared, transaction),
            None => commit_soft(transaction),
        }
    }

    /// Does what can wait for a quiet moment.
    fn rest(&mut self) -> Result<(), Trouble> {
        if self.sweep_due {
            return self.sweep();
        }
        let Some(engine) = self.engine.as_mut() else { return Ok(()) };
        // A copy may hold again what was swept while it was made.
        self.sweep_due = self.compactor.work(&self.shared, engine)?;
        Ok(())
    }

    /// Removes a little of what nobody refers to.
    fn sweep(&mut self) -> Result<(), Trouble> {
        let transaction = self.shared.begin_write()?;
        let mut tables = Tables::open(&transaction, self.shared.site.now())?;
        self.sweep_due = sweep::step(&mut tables)?;
        if self.sweep_due {
            self.swept += 1;
            self.shared.space.kept.store(tables.progress.kept, Ordering::Relaxed);
            tables.finish()?;
            return self.step_done(transaction);
        }
        drop(tables);
        transaction.abort()?;
        let least = if self.shared.is_tight() { 0 } else { SWEEP_STEPS };
        if std::mem::take(&mut self.swept) > least
            && let Some(engine) = self.engine.as_mut().filter(|engine| !self.compactor.holds_checkpoints(engine))
        {
            engine.checkpoint(&self.shared)?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), WriteError> {
        let checkpoint = self.engine.as_mut().map_or(Ok(()), |engine| engine.finish(&self.shared));
        self.engine = None;
        self.compactor.give_up(&self.shared, "the store was closed");
        for keep in self.held.drain() {
            keep.refuse(WriteError::Closed);
        }
        let shut = self.shared.shut();
        match checkpoint.and(shut) {
            Err(trouble) if self.is_full(&trouble) => {
                tracing::warn!("the disk is full: the next start reads the journal once more");
                Ok(())
            }
            closed => Ok(closed?),
        }
    }
}

fn failing() -> WriteError {
    WriteError::Storage("the disk failed a moment ago".to_owned())
}

/// Keeps messages now, or gives them back when they have to `wait`.
fn keep_now(
    shared: &Shared,
    mut keep: Box<Keep>,
    wait: bool,
    tables: &mut Tables<'_>,
    group: &mut Group,
    answers: &mut Vec<Answer>,
) -> Result<Option<Box<Keep>>, Trouble> {
    let staged = keep.staged();
    let refusal = if shared.lacks_room() {
        Some(WriteError::DiskFull)
    } else if wait {
        keep.take_journal(false);
        match keep.check(tables) {
            Ok(()) => return Ok(Some(keep)),
            Err(Fault::Refused(error)) => Some(error),
            Err(Fault::Broken(trouble)) => {
                keep.refuse(trouble.clone().into());
                return Err(trouble);
            }
        }
    } else {
        None
    };
    if let Some(error) = refusal {
        keep.refuse(error);
        return give_up(tables, &staged).map(|()| None);
    }
    let messages = keep.messages.len() as u64;
    let Some(planned) = keep.plan(tables)? else { return Ok(None) };
    if planned.ops.is_empty() {
        give_up(tables, &staged)?;
    } else {
        group.messages += messages;
    }
    group.add(tables, planned, answers).map(|()| None)
}

fn give_up(tables: &mut Tables<'_>, staged: &[u64]) -> Result<(), Trouble> {
    staged.iter().try_for_each(|id| sweep::abandon(tables, *id))
}

/// Stages as much of a body as there is room for in this step; tells how far it is.
fn stage_step(tables: &mut Tables<'_>, message: &Incoming, room: &mut usize) -> Result<Pieces, Fault> {
    let (id, first) = match message.pieces {
        Pieces::Partly(id, next) => (id, next),
        Pieces::Outside => {
            let id = tables.progress.blob;
            tables.progress.blob += 1;
            tables.sweep()?.insert((SWEEP_STAGED, id), ()).map_err(Trouble::from)?;
            (id, 0)
        }
        done @ (Pieces::Inline | Pieces::Staged(_)) => return Ok(done),
    };
    let total = piece_count(message.body.stored());
    let (mut next, mut trouble) = (first, None);
    let cut = message.body.pieces(BlobId(id), first, &mut |index, piece| {
        trouble = put_piece(tables, id, index, piece).err();
        *room = room.saturating_sub(piece.len());
        next = index.saturating_add(1);
        Ok(trouble.is_none() && *room > 0)
    });
    if let Some(trouble) = trouble {
        return Err(trouble.into());
    }
    cut?;
    if next == first && next < total {
        return Err(WriteError::Storage("the spooled body ended early".to_owned()).into());
    }
    Ok(if next < total { Pieces::Partly(id, next) } else { Pieces::Staged(id) })
}

/// Makes a group durable: by the journal, or by a checkpoint when the journal has no room for it, or
/// the disk has none for a checkpoint later.
fn commit(shared: &Shared, engine: &mut Engine, transaction: WriteTransaction, group: &Group) -> Result<(), Trouble> {
    if group.is_empty() {
        return commit_soft(transaction);
    }
    let journaled = !shared.is_tight()
        && match engine.journal.append(group.first, group.last, &group.payload) {
            Ok(()) => true,
            Err(JournalError::Full | JournalError::TooLarge) => false,
            Err(error) => return Err(error.into()),
        };
    engine.seq = group.last;
    engine.applied = group.last;
    if journaled {
        commit_soft(transaction)?;
    } else {
        engine.commit(shared, transaction)?;
    }
    shared.applied.store(group.last, Ordering::Release);
    Ok(())
}

/// Commits so that readers see it; the next durable commit takes it along.
fn commit_soft(mut transaction: WriteTransaction) -> Result<(), Trouble> {
    transaction.set_durability(Durability::None)?;
    transaction.commit()?;
    Ok(())
}
