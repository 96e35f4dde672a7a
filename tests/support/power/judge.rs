//! Compares what a store shows with what may be there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::letter::Print;
use super::model::{Facts, State};
use super::view::{Folder, View};

/// What went wrong, in the words of the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Something acknowledged is not there.
    Lost,
    /// Something is there more often than it was kept.
    Doubled,
    /// The store does not open.
    Unopenable,
    /// Anything else.
    Wrong,
}

/// A cut that the store did not survive.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}: {}", self.kind, self.what)
    }
}

/// Something neither lost nor doubled, but wrong.
pub(crate) fn wrong(what: String) -> Failure {
    Failure { kind: Kind::Wrong, what }
}

/// What a store may hold, and how exactly it showed itself then.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) state: Arc<State>,
    /// Not known for what was never looked at: the middle of a burst.
    pub(crate) view: Option<Arc<View>>,
}

/// Finds which of the states that may be there the store shows: the last that fits.
pub(crate) fn judge(view: &View, may_be: &[Known], facts: &Facts) -> Result<usize, Failure> {
    view.recount().map_err(wrong)?;
    let mut first = None;
    for (index, known) in may_be.iter().enumerate().rev() {
        let differs = match compare(view, &known.state, facts) {
            Err(what) => what,
            Ok(()) => match &known.view {
                Some(before) if **before != *view => format!("the same mail with other facts: {}", apart(before, view)),
                _ => return Ok(index),
            },
        };
        first = Some(differs);
    }
    // What is told is how it differs from what was acknowledged.
    let what = first.unwrap_or_else(|| "nothing may be there".to_owned());
    Err(Failure { kind: kind(view, may_be), what: format!("{what} ({} states were possible)", may_be.len()) })
}

/// Counts copies: fewer than in every state is a loss, more than in every state a double.
fn kind(view: &View, may_be: &[Known]) -> Kind {
    type Copies = BTreeMap<(u32, Print), usize>;
    let mut there = Copies::new();
    for folder in &view.folders {
        for row in &folder.rows {
            *there.entry((folder.head.account, row.print)).or_default() += 1;
        }
    }
    for (_, _, waiting) in &view.queue {
        *there.entry((u32::MAX, waiting.print)).or_default() += 1;
    }
    let copies = |known: &Known| {
        let mut copies = Copies::new();
        for waiting in known.state.queue.values() {
            *copies.entry((u32::MAX, waiting.print)).or_default() += 1;
        }
        for ((account, _), folder) in &known.state.folders {
            for row in folder.rows.values() {
                *copies.entry((*account, row.print)).or_default() += 1;
            }
        }
        copies
    };
    let possible = may_be.iter().map(copies).collect::<Vec<_>>();
    let count = |copies: &Copies, key| copies.get(key).copied().unwrap_or(0);
    let least = |key| possible.iter().map(|copies| count(copies, key)).min().unwrap_or(0);
    let most = |key| possible.iter().map(|copies| count(copies, key)).max().unwrap_or(0);
    if possible.iter().flat_map(BTreeMap::keys).any(|key| count(&there, key) < least(key)) {
        Kind::Lost
    } else if there.keys().any(|key| count(&there, key) > most(key)) {
        Kind::Doubled
    } else {
        Kind::Wrong
    }
}

/// Names the first difference between two lists.
fn equal<T: PartialEq + fmt::Debug>(
    what: &str,
    found: impl Iterator<Item = T>,
    wanted: impl Iterator<Item = T>,
) -> Result<(), String> {
    let (mut found, mut wanted) = (found, wanted);
    loop {
        match (found.next(), wanted.next()) {
            (None, None) => return Ok(()),
            (one, other) if one == other => {}
            (one, other) => return Err(format!("{what}: {one:?} instead of {other:?}")),
        }
    }
}

fn compare(view: &View, state: &State, facts: &Facts) -> Result<(), String> {
    equal("domains", view.domains.iter(), state.domains.iter())?;
    let people = state.people.iter().map(|(id, person)| (*id, person.name.clone(), person.salt, person.quota));
    let shown = view.people.iter().map(|person| {
        let name = person.address.trim_end_matches("@pillar.test").to_owned();
        (person.id, name, person.salt, person.quota.1)
    });
    equal("accounts", shown, people)?;
    let name = |id: &u32| state.people.get(id).map(|person| format!("{}@pillar.test", person.name));
    let aliases = state
        .aliases
        .iter()
        .map(|(alias, targets)| (format!("{alias}@pillar.test"), targets.iter().filter_map(name).collect::<Vec<_>>()));
    equal("aliases", view.aliases.iter().cloned(), aliases)?;
    equal(
        "subscriptions",
        view.subscribed.iter().map(|(id, name)| (id, name)),
        state.subscribed.iter().map(|(id, name)| (id, name)),
    )?;
    equal("notes", view.notes.iter().map(|(name, value)| (name, value)), state.notes.iter())?;
    let queue = view.queue.iter().map(|(id, _, waiting)| (id, waiting));
    equal("queued messages", queue, state.queue.iter())?;

    let mut shown = view.folders.iter().collect::<Vec<_>>();
    shown.sort_by_key(|folder| (folder.head.account, &folder.head.name));
    equal(
        "mailboxes",
        shown.iter().map(|folder| (&folder.head.account, &folder.head.name)),
        state.folders.keys().map(|(account, name)| (account, name)),
    )?;
    for (shown, folder) in shown.into_iter().zip(state.folders.values()) {
        folder_differs(shown, folder, facts)
            .map_err(|what| format!("{} of {}: {what}", shown.head.name, shown.head.account))?;
    }
    Ok(())
}

fn folder_differs(shown: &Folder, folder: &super::model::Folder, facts: &Facts) -> Result<(), String> {
    let rows = folder.rows.iter().map(|(uid, row)| (*uid, row.print, row.marks, row.date));
    equal("messages", shown.rows.iter().map(|row| (row.uid, row.print, row.marks, row.date)), rows)?;
    if (shown.head.next, shown.head.special) != (folder.next, folder.special) {
        return Err(format!("UIDNEXT {} instead of {}, or another use", shown.head.next, folder.next));
    }
    if facts.get(&folder.birth).is_some_and(|known| *known != (shown.head.id, shown.head.validity)) {
        return Err(format!("number and UIDVALIDITY {:?} are not as they were", (shown.head.id, shown.head.validity)));
    }
    let there = |(first, last): &(u32, u32)| shown.rows.iter().any(|row| (*first..=*last).contains(&row.uid));
    let gone = shown.vanished.iter().map(|(first, last)| (last - first + 1) as usize).sum::<usize>();
    if shown.vanished.iter().any(there) || gone + shown.rows.len() + 1 != shown.head.next as usize {
        return Err("what vanished is not what was removed".to_owned());
    }
    Ok(())
}

/// Where two views part.
pub(crate) fn apart(before: &View, now: &View) -> String {
    let people = equal("accounts", now.people.iter(), before.people.iter());
    let folders = || {
        for (one, other) in now.folders.iter().zip(&before.folders) {
            equal("messages", one.rows.iter(), other.rows.iter())
                .map_err(|what| format!("{}: {what}", one.head.name))?;
            equal("mailbox", [&one.head].into_iter(), [&other.head].into_iter())?;
            equal("vanished", one.vanished.iter(), other.vanished.iter())?;
        }
        Ok(())
    };
    people.and_then(|()| folders()).err().unwrap_or_else(|| "somewhere else".to_owned())
}

/// Checks that nothing goes back from one look to a later one: `ceiling` is the highest modification
/// sequence that was ever shown before.
pub(crate) fn rises(before: &View, now: &View, ceiling: u64) -> Result<(), String> {
    let new = |id: &u64| before.queue.iter().all(|(old, ..)| old != id);
    if now.queue.iter().any(|(id, ..)| new(id) && *id <= ceiling) {
        return Err("a queued message has a number that was given before".to_owned());
    }
    for folder in &now.folders {
        let old = before.folders.iter().find(|old| old.head.id == folder.head.id);
        let told = |what: &str| Err(format!("{what} in mailbox {} of {}", folder.head.name, folder.head.account));
        if let Some(old) = old {
            if (old.head.validity, old.head.account) != (folder.head.validity, folder.head.account) {
                return told("another UIDVALIDITY");
            }
            if old.head.next > folder.head.next || old.head.highest > folder.head.highest {
                return told("UIDNEXT or HIGHESTMODSEQ went back");
            }
        }
        if old.is_none_or(|old| old.head.highest != folder.head.highest) && folder.head.highest <= ceiling {
            return told("a HIGHESTMODSEQ that was another change's");
        }
        for row in &folder.rows {
            let old = old.and_then(|old| Some(&old.rows[old.rows.binary_search_by_key(&row.uid, |old| old.uid).ok()?]));
            if old.is_some_and(|old| old.modseq != row.modseq || old.marks != row.marks) && row.modseq <= ceiling
                || old.is_none() && row.modseq <= ceiling
            {
                return told("a modification sequence that was another change's");
            }
            if old.is_some_and(|old| old.print != row.print) {
                return told("a uid that names another message");
            }
        }
    }
    Ok(())
}
