//! What the writer is asked to do, what comes of planning it, and who is told.

use std::sync::mpsc::SyncSender;

use tokio::sync::oneshot;

use super::Hold;
use crate::mail::mailbox::{AccountId, MailboxId, Uid};
use crate::store::change::Op;
use crate::store::compact::Asked;
use crate::store::engine::{Engine, Shared};
use crate::store::error::{Fault, Trouble, WriteError};
use crate::store::message::{self, Incoming, Pieces, Plan};
use crate::store::queue::{self, Submission, Submitted};
use crate::store::table::Tables;
use crate::store::{Folder, Pending, Placed};

/// Tells a caller what became of its command once that is durable, or that it is not.
pub(super) type Answer = Box<dyn FnOnce(Result<(), WriteError>) + Send>;

/// A planned command.
pub(in crate::store) struct Planned {
    pub(super) ops: Vec<Op>,
    pub(super) answer: Answer,
}

/// Plans one command on the tables, or answers with the error when there are none.
pub(in crate::store) type Job =
    Box<dyn FnOnce(Result<&mut Tables<'_>, WriteError>) -> Result<Option<Planned>, Trouble> + Send>;

/// What the writer is asked to do.
pub(in crate::store) enum Command {
    /// Anything but keeping new messages.
    Plan(Job),
    /// New messages.
    Keep(Box<Keep>),
    /// Look whether the disk still works.
    Look,
    /// Compact the index.
    Compact(Asked),
    /// Say so when nothing is left to stage or to sweep.
    Settle(oneshot::Sender<Result<(), WriteError>>),
    /// Something to be done between two groups.
    Errand(Errand),
    /// Close, and say so.
    Close(SyncSender<Result<(), WriteError>>),
}

/// Does something with index and journal, or learns why they are not there.
pub(in crate::store) type Errand =
    Box<dyn FnOnce(Result<(&mut Engine, &Shared), WriteError>) -> Result<(), Trouble> + Send>;

/// Makes a command of something to be done between two groups.
pub(in crate::store) fn errand<T: Send + 'static>(
    work: impl FnOnce(&mut Engine, &Shared) -> Result<T, Trouble> + Send + 'static,
) -> (Command, Pending<T>) {
    let (sender, receiver) = oneshot::channel();
    let errand: Errand = Box::new(move |there| {
        let done = match there {
            Ok((engine, shared)) => work(engine, shared),
            Err(error) => {
                tell(sender, Err(error));
                return Ok(());
            }
        };
        let trouble = done.as_ref().err().cloned();
        tell(sender, done.map_err(WriteError::from));
        trouble.map_or(Ok(()), Err)
    });
    (Command::Errand(errand), Pending(receiver))
}

/// New messages and where they go.
pub(in crate::store) struct Keep {
    pub(in crate::store) messages: Vec<Incoming>,
    pub(in crate::store) target: Target,
    /// How far it is on the way around the journal.
    pub(in crate::store) hold: Hold,
}

/// Where new messages go, and who waits.
pub(in crate::store) enum Target {
    Deliver(Vec<(AccountId, Folder)>, oneshot::Sender<Result<Vec<(MailboxId, Uid)>, WriteError>>),
    /// With the message whose place they take.
    Append(MailboxId, Option<(MailboxId, Uid)>, oneshot::Sender<Result<Placed, WriteError>>),
    Submit(Box<Submission>, oneshot::Sender<Result<Submitted, WriteError>>),
}

/// Makes a command of a plan.
pub(in crate::store) fn job<T: Send + 'static>(
    plan: impl FnOnce(&mut Tables<'_>) -> Plan<T> + Send + 'static,
) -> (Command, Pending<T>) {
    let (sender, receiver) = oneshot::channel();
    let job: Job = Box::new(move |tables| match tables {
        Ok(tables) => conclude(plan(tables), sender),
        Err(error) => {
            tell(sender, Err(error));
            Ok(None)
        }
    });
    (Command::Plan(job), Pending(receiver))
}

/// A caller that no longer waits is no error.
pub(super) fn tell<T>(sender: oneshot::Sender<Result<T, WriteError>>, answer: Result<T, WriteError>) {
    drop(sender.send(answer));
}

fn conclude<T: Send + 'static>(
    plan: Plan<T>,
    sender: oneshot::Sender<Result<T, WriteError>>,
) -> Result<Option<Planned>, Trouble> {
    match plan {
        Ok((value, ops)) => {
            Ok(Some(Planned { ops, answer: Box::new(move |outcome| tell(sender, outcome.map(|()| value))) }))
        }
        // Told with the group as well: what made the command impossible may be a change in it.
        Err(Fault::Refused(error)) => Ok(Some(Planned {
            ops: Vec::new(),
            answer: Box::new(move |outcome| tell(sender, outcome.and(Err(error)))),
        })),
        Err(Fault::Broken(trouble)) => {
            tell(sender, Err(trouble.clone().into()));
            Err(trouble)
        }
    }
}

impl Keep {
    /// The bodies that are staged or begun.
    pub(super) fn staged(&self) -> Vec<u64> {
        let number = |message: &Incoming| match message.pieces {
            Pieces::Staged(id) | Pieces::Partly(id, _) => Some(id),
            Pieces::Inline | Pieces::Outside => None,
        };
        self.messages.iter().filter_map(number).collect()
    }

    /// Finds out whether the messages could be kept now.
    pub(super) fn check(&self, tables: &mut Tables<'_>) -> Result<(), Fault> {
        match (&self.target, self.messages.as_slice()) {
            (Target::Deliver(to, _), [message]) => message::deliver(tables, message, to).map(drop),
            (Target::Append(mailbox, replaced, _), messages) => {
                message::append(tables, *mailbox, messages, *replaced).map(drop)
            }
            (Target::Submit(submission, _), messages) => queue::submit(tables, messages, submission).map(drop),
            (Target::Deliver(..), _) => Ok(()),
        }
    }

    pub(super) fn plan(self, tables: &mut Tables<'_>) -> Result<Option<Planned>, Trouble> {
        match (self.target, self.messages.as_slice()) {
            (Target::Deliver(to, sender), [message]) => conclude(message::deliver(tables, message, &to), sender),
            (Target::Deliver(_, sender), _) => conclude(Ok((Vec::new(), Vec::new())), sender),
            (Target::Append(mailbox, replaced, sender), messages) => {
                conclude(message::append(tables, mailbox, messages, replaced), sender)
            }
            (Target::Submit(submission, sender), messages) => {
                conclude(queue::submit(tables, messages, &submission), sender)
            }
        }
    }

    pub(super) fn refuse(self, error: WriteError) {
        self.target.refuse(error);
    }
}

impl Target {
    /// Tells whoever waits that nothing was kept.
    pub(in crate::store) fn refuse(self, error: WriteError) {
        match self {
            Self::Deliver(_, sender) => tell(sender, Err(error)),
            Self::Append(_, _, sender) => tell(sender, Err(error)),
            Self::Submit(_, sender) => tell(sender, Err(error)),
        }
    }
}

impl Command {
    pub(super) fn refuse(self, error: WriteError) {
        match self {
            Self::Plan(job) => drop(job(Err(error))),
            Self::Keep(keep) => keep.refuse(error),
            Self::Look => {}
            Self::Compact(asked) => asked.answer(Err(error)),
            Self::Settle(sender) => tell(sender, Err(error)),
            // It has told whom it concerns.
            Self::Errand(errand) => drop(errand(Err(error))),
            Self::Close(reply) => drop(reply.send(Err(error))),
        }
    }
}
