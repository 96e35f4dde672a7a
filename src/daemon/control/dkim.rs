//! Orders about DKIM keys.

use super::order::{DkimTask, Outcome};
use crate::daemon::login::random;
use crate::flow::dkim::{KeyError, Keyring};
use crate::mail::address::Domain;
use crate::mail::date::Timestamp;
use crate::store::Store;

/// Carries out a task. Blocks; making keys takes seconds.
pub(super) fn obey(store: &Store, domain: &str, task: DkimTask, now: Timestamp) -> Outcome {
    done(store, domain, task, now).unwrap_or_else(|reason| Outcome::Refused { reason })
}

fn done(store: &Store, domain: &str, task: DkimTask, now: Timestamp) -> Result<Outcome, String> {
    let told = |error: KeyError| error.to_string();
    let known = store.reader().and_then(|reader| reader.domains()).map_err(|error| error.to_string())?;
    let is_local = Domain::parse(domain).is_ok_and(|domain| known.contains(&domain));
    // Keys of a domain that has gone may still be put away.
    if !is_local && !matches!(task, DkimTask::Remove { .. }) {
        return Err(format!("{domain} is no domain of this box; add it with `pillarbox domain add {domain}`"));
    }
    let mut ring = Keyring::open(&store.folder(), domain).map_err(told)?;
    let before = selectors(&ring, now)?;
    match task {
        DkimTask::Show => ring.ensure(now, &random()).map(drop),
        DkimTask::Rotate { at_once } => ring.rotate(now, &random(), at_once),
        DkimTask::Begin => {
            let changed = if ring.begin(now).map_err(told)? { signing(&ring, now) } else { Vec::new() };
            return Ok(Outcome::Dkim { keys: ring.rows(now).map_err(told)?, changed });
        }
        DkimTask::Remove { selector } => ring.remove(selector.as_deref(), now).map(drop),
    }
    .map_err(told)?;
    let after = selectors(&ring, now)?;
    let came = after.iter().filter(|selector| !before.contains(selector));
    let went = before.iter().filter(|selector| !after.contains(selector));
    let changed = came.chain(went).cloned().collect();
    Ok(Outcome::Dkim { keys: ring.rows(now).map_err(told)?, changed })
}

fn selectors(ring: &Keyring, now: Timestamp) -> Result<Vec<String>, String> {
    Ok(ring.rows(now).map_err(|error| error.to_string())?.into_iter().map(|row| row.selector).collect())
}

fn signing(ring: &Keyring, now: Timestamp) -> Vec<String> {
    let rows = ring.rows(now).unwrap_or_default();
    rows.into_iter().filter(|row| row.turn == crate::flow::dkim::Turn::Signs).map(|row| row.selector).collect()
}
