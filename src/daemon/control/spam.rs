//! Orders to the spam filter.

use base64::Engine as _;

use super::order::{Outcome, SpamTask};
use crate::filter::spam::WINDOW_MAX;
use crate::flow::judge::Filter;
use crate::store::Store;

/// Carries out a task, for an account or for the box alone. Blocks.
pub fn obey(store: &Store, filter: &Filter, account: Option<&str>, task: SpamTask) -> Outcome {
    done(store, filter, account, task).unwrap_or_else(|reason| Outcome::Refused { reason })
}

fn done(store: &Store, filter: &Filter, account: Option<&str>, task: SpamTask) -> Result<Outcome, String> {
    let account = account.map(|address| super::obey::account(store, address)).transpose()?;
    let unreadable = |error: crate::store::ReadError| format!("the store cannot be read: {error}");
    match task {
        SpamTask::Score { head } => {
            let opinion = filter.opinion(&decoded(&head)?, account).map_err(unreadable)?;
            Ok(Outcome::Spam { opinion: Box::new(opinion) })
        }
        SpamTask::Teach { head, class } => {
            let head = decoded(&head)?;
            let opinion = filter.opinion(&head, account).map_err(unreadable)?;
            filter.teach(&head, account, class).map_err(unreadable)?;
            Ok(Outcome::Spam { opinion: Box::new(opinion) })
        }
        SpamTask::Reseed => {
            filter.reseed();
            Ok(Outcome::Done)
        }
        SpamTask::Reset => match filter.reset(account) {
            Ok(()) => Ok(Outcome::Done),
            Err(error) => Err(format!("the store does not take it: {error}")),
        },
    }
}

fn decoded(head: &str) -> Result<Vec<u8>, String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(head);
    let mut bytes = bytes.map_err(|error| format!("the message is not in base64: {error}"))?;
    bytes.truncate(WINDOW_MAX);
    Ok(bytes)
}
