//! What the operator asks of mail on its way out.

use super::order::{Outcome, QueueRecipient, QueueRow, QueueTask, ROWS_MAX};
use crate::daemon::fresh::now;
use crate::mail::queue::{Due, QueueId, QueueOrder, Queued, QueuedRecipient, Stage};
use crate::store::{ReadError, Reader, Store, WriteError};

/// Recipients that are looked through for the first that is not settled.
const LOOKED_AT_MAX: usize = 64;

/// Messages that an order to all of them takes at a time.
const PORTION: usize = 256;

/// Why an order was not carried out.
#[derive(Debug)]
pub(super) enum Failed {
    /// The store cannot be read.
    Read(ReadError),
    /// The change of this message was refused.
    Write(u64, WriteError),
}

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// Messages after the one with this number.
pub(super) fn list(store: &Store, after: Option<u64>) -> Result<Outcome, ReadError> {
    let reader = store.reader()?;
    let queued = reader.queued_list(after.map(QueueId), ROWS_MAX)?;
    let messages = queued.iter().map(|queued| row(&reader, queued)).collect::<Result<_, _>>()?;
    Ok(Outcome::Queue { messages })
}

/// One message with its recipients from this number on.
pub(super) fn show(store: &Store, id: u64, from: u32) -> Result<Option<Outcome>, ReadError> {
    let reader = store.reader()?;
    let Some(queued) = reader.queued(QueueId(id))? else { return Ok(None) };
    let recipients = reader.recipients(queued.id, from, ROWS_MAX)?;
    let recipients = recipients.iter().map(told).collect();
    Ok(Some(Outcome::Queued { message: Box::new(row(&reader, &queued)?), recipients }))
}

/// Holds, releases or retries these messages, or all where none is named.
pub(super) fn order(store: &Store, task: QueueTask, ids: &[u64]) -> Result<Outcome, Failed> {
    let due = Due::from(now());
    let order = match task {
        QueueTask::Retry => QueueOrder::Retry(due),
        QueueTask::Hold => QueueOrder::Hold,
        QueueTask::Release => QueueOrder::Release(due),
    };
    let mut recipients = 0_u32;
    for id in ids {
        let concerned = store.order_queued(QueueId(*id), order).wait().map_err(|error| Failed::Write(*id, error))?;
        recipients = recipients.saturating_add(concerned);
    }
    let mut after = None;
    while ids.is_empty() {
        let portion = store.reader()?.queued_list(after, PORTION)?;
        // Sent all at once, they share a sync.
        let pending: Vec<_> = portion.iter().map(|queued| (queued.id, store.order_queued(queued.id, order))).collect();
        for (id, pending) in pending {
            match pending.wait() {
                Ok(concerned) => recipients = recipients.saturating_add(concerned),
                // It has gone meanwhile.
                Err(WriteError::NoSuchQueued) => {}
                Err(error) => return Err(Failed::Write(id.0, error)),
            }
        }
        after = portion.last().map(|last| last.id);
        if after.is_none() {
            break;
        }
    }
    Ok(Outcome::Concerned { recipients })
}

fn row(reader: &Reader, queued: &Queued) -> Result<QueueRow, ReadError> {
    let rows = reader.recipients(queued.id, 0, LOOKED_AT_MAX)?;
    let open = rows.iter().find(|row| !row.delivery.stage.is_settled()).or(rows.first());
    Ok(QueueRow {
        id: queued.id.0,
        from: queued.from.address().map(ToString::to_string).unwrap_or_default(),
        size: queued.size,
        accepted: queued.accepted.0,
        recipients: queued.recipients,
        unsettled: queued.unsettled,
        first: open.map(told),
    })
}

fn told(row: &QueuedRecipient) -> QueueRecipient {
    let delivery = &row.delivery;
    let state = match delivery.stage {
        Stage::Waiting(_) => "waiting",
        Stage::Held => "held",
        Stage::Delivered(_) => "delivered",
        Stage::Failed(_) => "failed",
    };
    let next = delivery.stage.due().and_then(|due| i64::try_from(due.0 / 1000).ok());
    let answer = delivery.answer.as_ref().map(|answer| match answer.from() {
        "" => answer.text().to_owned(),
        from => format!("{from} said: {}", answer.text()),
    });
    QueueRecipient {
        number: row.number,
        to: row.address().map(ToString::to_string).unwrap_or_default(),
        state: state.to_owned(),
        next,
        attempts: delivery.attempts,
        tried: delivery.tried.map(|tried| tried.0),
        lapsed_secs: delivery.lapsed_secs,
        answer,
    }
}
