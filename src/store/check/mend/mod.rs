//! What repair does about each finding: plans for the writer, each of them an ordinary change.
//!
//! A plan looks again before it does anything, so repairing twice, or beside sessions that change
//! the same mailbox, does no harm; a crash between two plans leaves the second to the next repair.
//! References are changed by an amount and not set, because the sweep counts them down outside the
//! journal and a replay may meet the body before or after that.

use redb::ReadableTable;

mod body; //    bodies, and the queue that refers to them
mod mailbox; // mailboxes and their messages
mod people; //  accounts and addresses

pub(super) use body::{hashes, recover, structure};

use super::finding::{Counter, Damage, Finding, Miscount, Place, Remedy};
use super::view::row;
use super::{Checkup, Step};
use crate::store::acl;
use crate::store::blob::BlobRecord;
use crate::store::change::Op;
use crate::store::engine::Engine;
use crate::store::error::{Fault, Trouble};
use crate::store::message::Plan;
use crate::store::table::{OF_ACCOUNT, SWEEP_BODY, SWEEP_MAILBOX, SWEEP_STAGED, Tables, load};

/// A plan that tells what it did.
type Mend = Plan<Option<String>>;

/// Nothing is to be done (any more).
const NOTHING: Mend = Ok((None, Vec::new()));

#[allow(clippy::unnecessary_wraps, reason = "the end of every plan")]
fn did(what: impl Into<String>, ops: Vec<Op>) -> Mend {
    Ok((Some(what.into()), ops))
}

impl Checkup<'_> {
    /// Sets a finding right, if that can be done; tells how.
    pub(super) fn mend(&mut self, finding: &Finding) -> Step<Option<String>> {
        match (&finding.place, &finding.damage) {
            (Place::Journal, Damage::Ring(_)) => self.mend_ring(),
            (Place::Index, Damage::FirstBlock) => self.mend_first_block(),
            (Place::Index, Damage::Miscounted(counts)) => {
                let counts = counts.clone();
                self.plan(move |tables| numbers(tables, &counts))
            }
            (Place::Mailbox { id, .. }, Damage::Vanished) => {
                let id = *id;
                self.plan(move |tables| mailbox::vanished(tables, id))
            }
            (Place::Mailbox { id, .. }, damage) if *damage != Damage::Disorder => self.count_anew(*id),
            (Place::Message { mailbox, .. }, Damage::UnknownKeywords) => self.count_anew(*mailbox),
            (
                Place::Message { mailbox, uid, .. },
                damage @ (Damage::Unreadable | Damage::NoBody | Damage::Size { .. }),
            ) => {
                let (mailbox, uid, damage) = (*mailbox, *uid, damage.clone());
                self.counted = None;
                self.plan(move |tables| mailbox::message(tables, mailbox, uid, &damage))
            }
            (Place::Account { id, .. }, _) => {
                let id = *id;
                self.plan(move |tables| people::account(tables, id))
            }
            (Place::Address(key), _) => {
                let key = key.clone();
                self.plan(move |tables| people::address(tables, &key))
            }
            (Place::Name { account, name }, damage @ (Damage::LeadsNowhere | Damage::NoAccount)) => {
                let (account, name, listed) = (*account, name.clone(), *damage == Damage::LeadsNowhere);
                self.plan(move |tables| mailbox::name(tables, account, &name, listed))
            }
            (Place::Queued { id, .. }, damage) if damage.remedy() == Remedy::Repair => {
                let id = *id;
                self.plan(move |tables| body::queued(tables, id))
            }
            (Place::Recipient { id, .. }, _) => {
                let id = *id;
                self.plan(move |tables| body::queued(tables, id))
            }
            (Place::Learned { learner, piece }, _) => {
                let (learner, piece) = (*learner, *piece);
                self.plan(move |_| did("it was removed", vec![Op::ForgetLearnedPiece { learner, piece }]))
            }
            (Place::Sheet { first }, _) => {
                let first = *first;
                self.plan(move |_| did("it was removed and is made again", vec![Op::ForgetSheet { first }]))
            }
            (Place::Grant { mailbox, identifier }, _) => {
                let (mailbox, identifier) = (*mailbox, *identifier);
                self.plan(move |tables| did("it was set right", vec![acl::mended(tables, mailbox, identifier)?]))
            }
            (Place::Annotation { account, mailbox, entry }, _) => {
                let (account, mailbox, entry) = (*account, mailbox.unwrap_or(OF_ACCOUNT), entry.clone());
                self.plan(move |_| did("it was removed", vec![Op::Annotate { account, mailbox, entry, value: None }]))
            }
            (Place::Certificate(fingerprint), _) => {
                let fingerprint = fingerprint.clone();
                let what = "it was removed; whoever logged in with it needs another";
                self.plan(move |_| did(what, vec![Op::Certify { fingerprint, record: None }]))
            }
            (Place::Body { id, .. }, Damage::Unreferenced) => self.recover(*id, finding),
            (Place::Body { id, .. }, Damage::Miscounted(counts)) => {
                let (id, counts) = (*id, counts.clone());
                self.plan(move |tables| body::references(tables, id, &counts))
            }
            (Place::Body { id, .. }, Damage::LoneStructure) => {
                let id = *id;
                self.plan(move |tables| body::lone_structure(tables, id))
            }
            (Place::Row { table, key }, Damage::Unreadable) if table == "domain" => {
                let name = key.clone();
                self.plan(move |_| did("it was removed", vec![Op::DropDomain { name }]))
            }
            (Place::Row { table, key }, Damage::Listed) if table == "sweep" => {
                let entry = key.trim_matches(['(', ')']).split_once(", ");
                let entry = entry.and_then(|(kind, id)| Some((kind.parse().ok()?, id.parse().ok()?)));
                let Some((kind, id)) = entry else { return Ok(None) };
                self.plan(move |tables| unlist(tables, kind, id))
            }
            _ => Ok(None),
        }
    }

    /// Everything of a mailbox is set right at once, so its next finding needs nothing more.
    fn count_anew(&mut self, id: u32) -> Step<Option<String>> {
        if self.counted == Some(id) {
            return Ok(Some("it was counted anew".to_owned()));
        }
        let mended = self.plan(move |tables| mailbox::whole(tables, id))?;
        self.counted = mended.is_some().then_some(id);
        Ok(mended)
    }

    /// A checkpoint writes both copies anew.
    fn mend_first_block(&mut self) -> Step<Option<String>> {
        let whole = self.store.with_engine(|engine, shared| {
            engine.checkpoint(shared)?;
            Ok(shared.guard.get().reread()?)
        })?;
        Ok(whole.then(|| "a checkpoint wrote it anew".to_owned()))
    }

    /// A checkpoint makes the damaged part of the ring superfluous, and the next change writes its
    /// header anew.
    fn mend_ring(&mut self) -> Step<Option<String>> {
        self.store.with_engine(Engine::checkpoint)?;
        let header = self.plan(|_| did("", vec![Op::Numbers { blob: 0, account: 0, mailbox: 0, uid_validity: 0 }]))?;
        let right = self.store.with_engine(|engine, _| Ok(engine.journal.reread().is_ok()))?;
        Ok(header.filter(|_| right).map(|_| "a checkpoint made it superfluous".to_owned()))
    }
}

/// The numbers given out next.
fn numbers(tables: &mut Tables<'_>, counts: &[Miscount]) -> Mend {
    let least = |counter, now: u64| {
        let found = counts.iter().find(|count| count.of == counter).map_or(0, |count| count.found);
        now.max(found)
    };
    let progress = &tables.progress;
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let blob = least(Counter::NextBody, progress.blob);
    let account = narrow(least(Counter::NextAccount, progress.account.into()));
    let mailbox = narrow(least(Counter::NextMailbox, progress.mailbox.into()));
    let uid_validity = narrow(least(Counter::LastUidValidity, progress.uid_validity.into()));
    let now = (progress.blob, progress.account, progress.mailbox, progress.uid_validity);
    if now == (blob, account, mailbox, uid_validity) {
        return NOTHING;
    }
    did("the numbers were raised", vec![Op::Numbers { blob, account, mailbox, uid_validity }])
}

/// The first account, which takes in what is nobody's.
fn first_account(tables: &mut Tables<'_>) -> Result<Option<u32>, Trouble> {
    Ok(tables.account()?.first()?.map(|(key, _)| key.value()))
}

/// An entry of the list of what is to be removed that should not be there.
fn unlist(tables: &mut Tables<'_>, kind: u8, id: u64) -> Mend {
    if tables.sweep()?.get((kind, id)).map_err(Fault::from)?.is_none() {
        return NOTHING;
    }
    let nonsense = match kind {
        SWEEP_BODY => row::<BlobRecord>(load(tables.blob()?, id))?.there().is_some_and(|record| record.refs > 0),
        SWEEP_MAILBOX => match u32::try_from(id) {
            Ok(id) => tables.mbox()?.get(id).map_err(Fault::from)?.is_some(),
            Err(_) => true,
        },
        SWEEP_STAGED => tables.blob()?.get(id).map_err(Fault::from)?.is_some(),
        _ => true,
    };
    if nonsense { did("it is listed no more", vec![Op::List { kind, id, listed: false }]) } else { NOTHING }
}
