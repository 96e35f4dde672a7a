//! Mail that was taken, held against signatures that came later.
//!
//! A round goes over the mail of the last days twice, in the order in which it came: first over the prints
//! that the scan left behind ([`crate::mail::scanned`]), which reads no body unless one matches, then over
//! the bodies. What a message was scanned with is known by the number of the set, so mail that came with
//! the new one is passed over. Where the round is stands in a note: [`RescanState`].

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::letter::KeptObject;
use super::policy::{Action, QUARANTINE, SUSPICIOUS, ScanConfig};
use super::scanner::{Bench, Findings};
use crate::filter::scan::set::Set;
use crate::filter::scan::signature::DigestKind;
use crate::mail::date::Timestamp;
use crate::mail::mailbox::{AccountId, MailboxId, MailboxName, SpecialUse};
use crate::mail::message::{BlobId, FlagMode, FlagNames, Keyword, SystemFlags, UidSet};
use crate::store::{ReadError, Reader, Store, Whereabouts, WriteError};

/// The note that holds the [`RescanState`].
pub const NOTE: &str = "rescan";

/// Bodies that are looked for at one time.
pub const BATCH: usize = 256;

/// Findings that are kept for `status`; all of them are in the log.
const NAMED_MAX: usize = 10;

/// How far a round is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Prints are compared.
    Prints,
    /// Bodies are read.
    Bodies,
    /// It is over.
    #[default]
    Done,
}

/// Which set is at work, and how far its round is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct RescanState {
    /// The set's number, from one; each set that comes has the next.
    pub set: u32,
    /// What it is known by.
    pub mark: u64,
    /// How far its round is.
    pub stage: Stage,
    /// The body that comes next in this stage.
    pub next: u64,
    /// Messages whose prints the round compared.
    pub compared: u64,
    /// Bodies that it read.
    pub read: u64,
    /// Messages in which it found something.
    pub found: u64,
    /// The last of that, as sentences.
    pub named: Vec<String>,
    /// When the round ended, seconds since 1970, as far as the time was known.
    pub finished: Option<i64>,
}

impl RescanState {
    /// Begins the round of a set, unless it is the one that is known.
    #[must_use]
    pub fn with(self, mark: u64) -> Self {
        if self.set > 0 && self.mark == mark {
            return self;
        }
        // Of the first set of all nothing was scanned before, and nothing has prints.
        let stage = if self.set == 0 { Stage::Bodies } else { Stage::Prints };
        Self { set: self.set.saturating_add(1), mark, stage, ..Self::default() }
    }

    /// Ends a stage.
    pub fn advance(&mut self, bodies: bool, now: Timestamp) {
        self.stage = if self.stage == Stage::Prints && bodies { Stage::Bodies } else { Stage::Done };
        self.next = 0;
        if self.stage == Stage::Done {
            self.finished = Some(now.0);
        }
    }

    /// Remembers a finding.
    pub fn found(&mut self, text: String) {
        self.found += 1;
        if self.named.len() >= NAMED_MAX {
            self.named.remove(0);
        }
        self.named.push(text);
    }
}

/// What became of one message in one mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Where it was.
    pub was: Whereabouts,
    /// What was done: [`Action::Quarantine`], [`Action::Junk`] or [`Action::Tag`].
    pub action: Action,
}

/// Looks at mail again.
#[derive(Clone, Copy, Debug)]
pub struct Rescan<'r> {
    /// The mail.
    pub store: &'r Store,
    /// The settings.
    pub config: &'r ScanConfig,
    /// The set at work.
    pub set: &'r Set,
    /// Its number.
    pub number: u32,
    /// For temporary files.
    pub folder: &'r Path,
    /// Mail that came before is left alone.
    pub since: Timestamp,
}

impl Rescan<'_> {
    /// The bodies that come next, none at the end of a stage.
    ///
    /// # Errors
    /// The store's.
    pub fn batch(&self, next: u64) -> Result<Vec<BlobId>, ReadError> {
        let reader = self.store.reader()?;
        reader.recent_bodies(self.since, BlobId(next), BATCH, self.aside(&reader)?)
    }

    /// Tells whether a body has to be read: by its prints, or because another set scanned it.
    ///
    /// # Errors
    /// The store's, and those of the set's medium.
    pub fn is_due(&self, stage: Stage, blob: BlobId) -> io::Result<bool> {
        let scanned = self.store.reader().and_then(|reader| reader.scanned(blob)).map_err(io::Error::other)?;
        let Some(scanned) = scanned else { return Ok(stage == Stage::Bodies) };
        if scanned.set == self.number || stage == Stage::Done {
            return Ok(false);
        }
        if stage == Stage::Bodies {
            return Ok(true);
        }
        for print in &scanned.prints {
            if self.set.may_know(DigestKind::Md5, print.md5, print.size)?
                || self.set.may_know(DigestKind::Sha256, print.sha256, print.size)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Scans a body. `clock` is as [`Bench::clock`].
    ///
    /// # Errors
    /// Those of the store, the set and the folder.
    pub fn look(&self, blob: BlobId, clock: &dyn Fn() -> Duration) -> io::Result<Findings> {
        let body = self.store.body(blob).map_err(io::Error::other)?;
        let bench = Bench {
            set: Some(self.set),
            limits: self.config.limits_of_unpacking(),
            time: Duration::from_secs(self.config.time_max_secs.into()),
            clock,
            folder: self.folder,
        };
        bench.scan(&KeptObject::kept(body), "message", true)
    }

    /// Does with a message in which a signature was found what the settings say, wherever it stands. It
    /// can't be refused any more, so that stands for putting it aside; where nobody has the quarantine it
    /// goes to Junk. Blocks.
    ///
    /// # Errors
    /// The store's.
    pub fn act(&self, blob: BlobId) -> Result<Vec<Moved>, WriteError> {
        let broken = |error: ReadError| WriteError::Storage(error.to_string());
        let reader = self.store.reader().map_err(broken)?;
        let places = reader.whereabouts(blob, self.since, self.aside(&reader).map_err(broken)?).map_err(broken)?;
        let keeper = self.config.quarantine(&reader).map_err(broken)?;
        drop(reader);
        let action = match self.config.infected {
            Action::Reject | Action::Quarantine if keeper.is_none() => Action::Junk,
            Action::Reject => Action::Quarantine,
            action => action,
        };
        let mut moved = Vec::new();
        for was in places {
            let done = match (action, keeper) {
                (Action::Quarantine, Some(keeper)) => match self.put_aside(was, keeper) {
                    // A quarantine that is full keeps nobody's mail from being taken out.
                    Err(WriteError::OverQuota) => self.mark(was, true)?.then_some(Action::Junk),
                    done => done?.then_some(Action::Quarantine),
                },
                (Action::Accept, _) => None,
                (action, _) => self.mark(was, action == Action::Junk)?.then_some(action),
            };
            moved.extend(done.map(|action| Moved { was, action }));
        }
        Ok(moved)
    }

    /// The mailbox of what is put aside, if there is one.
    fn aside(&self, reader: &Reader) -> Result<Option<MailboxId>, ReadError> {
        let (Some(keeper), Some(name)) = (self.config.quarantine(reader)?, MailboxName::new(QUARANTINE)) else {
            return Ok(None);
        };
        Ok(reader.mailbox_named(keeper, &name)?.map(|mailbox| mailbox.id))
    }

    fn put_aside(&self, was: Whereabouts, keeper: AccountId) -> Result<bool, WriteError> {
        let to = quarantine(self.store, keeper)?;
        let placed = self.store.relocate(was.mailbox, UidSet::of_range(was.uid, was.uid), to).wait()?;
        Ok(!placed.to.is_empty())
    }

    /// Marks a message and moves it to Junk if that is wanted; false when it was so already.
    fn mark(&self, was: Whereabouts, junk: bool) -> Result<bool, WriteError> {
        let broken = |error: ReadError| WriteError::Storage(error.to_string());
        let uids = UidSet::of_range(was.uid, was.uid);
        let names =
            FlagNames { system: SystemFlags::default(), keywords: Keyword::new(SUSPICIOUS).into_iter().collect() };
        let mut changed = match self.store.flag(was.mailbox, uids.clone(), FlagMode::Add, names, None).wait() {
            Ok(flagged) => !flagged.changed.is_empty(),
            // A mailbox that is full of keywords; the message can be moved all the same.
            Err(WriteError::Limit(_)) => false,
            Err(error) => return Err(error),
        };
        if junk {
            let mailboxes = self.store.reader().and_then(|reader| reader.mailboxes(was.account)).map_err(broken)?;
            let to = mailboxes.iter().find(|mailbox| mailbox.special_use == Some(SpecialUse::Junk));
            if let Some(to) = to.filter(|to| to.id != was.mailbox) {
                changed |= !self.store.relocate(was.mailbox, uids, to.id).wait()?.to.is_empty();
            }
        }
        Ok(changed)
    }
}

/// The mailbox of what is put aside, made where it is missing. Blocks.
///
/// # Errors
/// The store's.
fn quarantine(store: &Store, keeper: AccountId) -> Result<MailboxId, WriteError> {
    let name = MailboxName::new(QUARANTINE).ok_or(WriteError::NoSuchMailbox)?;
    match store.create_mailbox(keeper, name.clone(), None).wait() {
        Err(WriteError::Exists) => {}
        made => return made,
    }
    let found = store.reader().and_then(|reader| reader.mailbox_named(keeper, &name));
    let found = found.map_err(|error| WriteError::Storage(error.to_string()))?;
    found.map(|mailbox| mailbox.id).ok_or(WriteError::NoSuchMailbox)
}
