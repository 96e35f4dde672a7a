//! Sends the notifications that are owed, one after the other.

use crate::daemon::fresh::{new_id, now};
use crate::flow::notify::{self, Fresh, NotifyError, Ready};
use crate::flow::relay::Exit;
use crate::mail::queue::QueueId;

/// Notifications of one message that are sent at a time.
const EACH_MAX: usize = 64;

/// Sends what is owed about these messages.
pub(super) async fn owed(exit: Exit, ids: Vec<QueueId>) {
    for id in ids {
        for _ in 0..EACH_MAX {
            let work = {
                let exit = exit.clone();
                move |fresh: Fresh| notify::owed(&exit, id, &fresh)
            };
            match send(&exit, id, work).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(queue = %id, %error, "a sender was not told what became of a message; tried again later");
                    put_off(&exit, id).await;
                    break;
                }
            }
        }
    }
}

/// Warns a sender that a message takes long.
pub(super) async fn delay(exit: &Exit, id: QueueId) {
    let work = {
        let exit = exit.clone();
        move |fresh: Fresh| notify::delay(&exit, id, &fresh)
    };
    if let Err(error) = send(exit, id, work).await {
        // The next attempt that fails brings it up again.
        tracing::warn!(queue = %id, %error, "a sender was not warned of a delay");
    }
}

/// Sends one notification; tells whether there was one.
async fn send(
    exit: &Exit,
    id: QueueId,
    make: impl FnOnce(Fresh) -> Result<Option<Ready>, NotifyError> + Send + 'static,
) -> Result<bool, NotifyError> {
    let fresh = Fresh { id: new_id(), now: now() };
    let Ok(working) = tokio::task::spawn_blocking(move || make(fresh)).await else { return Ok(false) };
    let Some(Ready { message, local, queued, states }) = working? else { return Ok(false) };
    if let Some(message) = message {
        exit.store.report(message, local, queued, id, states).await?;
        tracing::info!(queue = %id, "the sender was told");
    } else {
        exit.store.update_queued(id, states).await?;
    }
    Ok(true)
}

/// Puts off what is owed and cannot be sent.
async fn put_off(exit: &Exit, id: QueueId) {
    let reading = {
        let exit = exit.clone();
        move || notify::put_off(&exit, id, now())
    };
    let Ok(Ok(states)) = tokio::task::spawn_blocking(reading).await else { return };
    if let Err(error) = exit.store.update_queued(id, states).await {
        tracing::warn!(queue = %id, %error, "a notification was not put off");
    }
}
