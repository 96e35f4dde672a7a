//! ESEARCH (RFC 7377): one search through several mailboxes, with a response for each where something
//! was found. The mailboxes are looked through one after the other, a slice at a time.

use std::sync::Arc;
use std::vec::IntoIter;

use crate::mail::mailbox::{Mailbox, MailboxId, MailboxName, ModSeq};
use crate::mail::message::UidSet;
use crate::protocol::imap::desk::{Begun, Desk, End, Errand, Turn, unexpected};
use crate::protocol::imap::filter::MailboxFilter;
use crate::protocol::imap::request::{Answer, Opened, Refused, Request, Search};
use crate::protocol::imap::search::{SearchKey, SearchProgram, SearchReturns, SetKind};
use crate::protocol::imap::sequence::SequenceSet;
use crate::protocol::imap::view::NoSuchMessage;

use super::context::write_no_update;
use super::listing::{Heading, Listing};
use super::progress::Progress;
use super::search::{bound, names_modseq, saved};

/// An ESEARCH on its way.
#[derive(Debug)]
pub(crate) struct MultiSearch {
    tag: String,
    sources: Vec<MailboxFilter>,
    returns: SearchReturns,
    key: SearchKey,
    tells_modseq: bool,
    /// The mailboxes that were not looked through.
    mailboxes: Option<IntoIter<(MailboxId, MailboxName)>>,
    progress: Progress,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Between two mailboxes.
    Next,
    /// One is being opened.
    Opening(MailboxName),
    /// One is looked through.
    Looking(Box<Looking>),
    /// What was found in one is written.
    Writing(Listing),
}

/// A mailbox that is looked through.
#[derive(Debug)]
struct Looking {
    mailbox: MailboxId,
    name: MailboxName,
    uid_validity: u32,
    search: Arc<Search>,
    rest: UidSet,
    all: u32,
    found: UidSet,
    modseq: ModSeq,
}

impl MultiSearch {
    /// Begins, where the search makes sense in these mailboxes.
    pub(crate) fn begin(desk: &mut Desk, tag: &str, sources: Vec<MailboxFilter>, program: SearchProgram) -> Begun {
        let selected = |source: &MailboxFilter| matches!(source, MailboxFilter::Selected { .. });
        let selected_alone = sources.iter().all(selected);
        if sources.iter().any(selected) && desk.view.is_none() {
            return End::bad("no mailbox is selected").into();
        }
        let returns = program.returns.unwrap_or(SearchReturns { all: true, ..SearchReturns::default() });
        if returns.save && !selected_alone {
            return End::bad("[CLIENTBUG] SAVE keeps uids of the selected mailbox alone").into();
        }
        if !selected_alone && names_view(&program.key) {
            return End::bad("[CLIENTBUG] message numbers and $ are of the selected mailbox alone").into();
        }
        if desk.enabled.uid_only && program.key.names_numbers() {
            return End::bad("[UIDREQUIRED] after ENABLE UIDONLY messages are named by uid alone").into();
        }
        let tells_modseq = names_modseq(&program.key);
        if tells_modseq {
            desk.enable_condstore();
        }
        if returns.update {
            write_no_update(&mut desk.out, tag, "SEARCH is kept up to date, ESEARCH is not");
        }
        Begun::errand(Self {
            tag: tag.to_owned(),
            sources,
            returns: SearchReturns { all: returns.all || !(returns.answers() || returns.save), ..returns },
            key: program.key,
            tells_modseq,
            mailboxes: None,
            progress: Progress::default(),
            stage: Stage::Next,
        })
    }

    /// The mailboxes that are meant, each once.
    fn choose(&mut self, desk: &Desk, mailboxes: Vec<Mailbox>) {
        let selected = desk.view.as_deref().map(|view| view.mailbox);
        let with_selected = self.sources.iter().any(|source| matches!(source, MailboxFilter::Selected { .. }));
        let meant = |mailbox: &Mailbox| {
            (with_selected && selected == Some(mailbox.id)) || self.sources.iter().any(|source| source.takes(mailbox))
        };
        let chosen: Vec<_> = mailboxes.into_iter().filter(meant).map(|mailbox| (mailbox.id, mailbox.name)).collect();
        self.mailboxes = Some(chosen.into_iter());
    }

    fn open(&self, desk: &mut Desk, name: MailboxName, opened: &Opened) -> Result<Looking, NoSuchMessage> {
        let mailbox = opened.mailbox.id;
        let here = desk.view.as_deref().filter(|view| view.mailbox == mailbox);
        let (uids, recent) = match &here {
            Some(view) => (view.uids().clone(), view.recent().clone()),
            None => (opened.uids.clone(), UidSet::new()),
        };
        let key = self.key.clone().resolve(&mut |kind, set| match &here {
            Some(view) => view.resolve(set, kind == SetKind::Uids),
            None => Ok(set.uids(uids.last(), &UidSet::new()).intersection(&uids)),
        })?;
        if let Some(view) = desk.view.as_deref_mut().filter(|_| self.returns.save) {
            // A search that fails leaves nothing behind (RFC 5182 section 2.1).
            view.saved = UidSet::new();
        }
        let rest = bound(&key).map_or_else(|| uids.clone(), |only| uids.intersection(only));
        Ok(Looking {
            mailbox,
            name,
            uid_validity: opened.mailbox.uid_validity.0.get(),
            search: Arc::new(Search { key, recent }),
            all: rest.count(),
            rest,
            found: UidSet::new(),
            modseq: ModSeq(0),
        })
    }

    /// A mailbox was looked through: keeps the result for `$` where that is asked, and begins the
    /// answer. Where nothing was found there is none (RFC 7377 section 2.1).
    fn conclude(&self, desk: &mut Desk, looked: &Looking) -> Stage {
        if let Some(view) = desk.view.as_deref_mut().filter(|_| self.returns.save) {
            view.saved = saved(&looked.found, self.returns);
        }
        if looked.found.is_empty() {
            return Stage::Next;
        }
        let heading = Heading {
            tag: &self.tag,
            uid: true,
            returns: Some(self.returns),
            word: "SEARCH",
            mailbox: Some((&looked.name, looked.uid_validity, desk.enabled.utf8_names())),
        };
        let modseq = Some(looked.modseq).filter(|_| self.tells_modseq);
        Stage::Writing(Listing::of_set(&mut desk.out, &heading, looked.found.clone(), modseq))
    }
}

impl Errand for MultiSearch {
    fn go(&mut self, desk: &mut Desk, mut answer: Option<Answer>) -> Turn {
        loop {
            match (std::mem::replace(&mut self.stage, Stage::Next), answer.take()) {
                (Stage::Next, Some(Answer::Mailboxes { mailboxes, .. })) => self.choose(desk, mailboxes),
                (Stage::Next, None) => match self.mailboxes.as_mut().map(Iterator::next) {
                    None => return Turn::Ask(Request::Mailboxes { watched: false }),
                    Some(Some((_, name))) => {
                        self.stage = Stage::Opening(name.clone());
                        return Turn::Ask(Request::Open(name));
                    }
                    Some(None) => return Turn::Done(End::ok("ESEARCH completed")),
                },
                // It was deleted meanwhile, or may not be read (RFC 7377 section 2.2).
                (Stage::Opening(_), Some(Answer::Opened(None) | Answer::Refused(Refused::NoRight))) => {}
                (Stage::Opening(name), Some(Answer::Opened(Some(opened)))) => match self.open(desk, name, &opened) {
                    Ok(looking) => self.stage = Stage::Looking(Box::new(looking)),
                    Err(NoSuchMessage) => return Turn::Done(End::bad("there is no message of that number")),
                },
                (Stage::Looking(looked), None) if looked.rest.is_empty() => {
                    self.stage = self.conclude(desk, &looked);
                }
                (Stage::Looking(looking), None) => {
                    let (mailbox, uids) = (looking.mailbox, looking.rest.clone());
                    let search = Arc::clone(&looking.search);
                    self.stage = Stage::Looking(looking);
                    return Turn::Ask(Request::Search { mailbox, uids, search });
                }
                (Stage::Looking(mut looking), Some(Answer::Found { uids, modseq, next, now })) => {
                    looking.found.union_with(&uids);
                    looking.modseq = looking.modseq.max(modseq);
                    match next {
                        // At least one was looked at, whatever the answer says.
                        Some(next) => drop(looking.rest.split_first(looking.rest.count_below(next).max(1))),
                        None => looking.rest = UidSet::new(),
                    }
                    let done = looking.all.saturating_sub(looking.rest.count());
                    self.progress.tell(desk, &self.tag, now, done, looking.all);
                    self.stage = Stage::Looking(looking);
                    if !desk.out.is_empty() {
                        return Turn::Flush;
                    }
                }
                (Stage::Writing(mut listing), None) => {
                    if listing.write(&mut desk.out) {
                        self.stage = Stage::Writing(listing);
                        return Turn::Flush;
                    }
                    if desk.is_full() {
                        return Turn::Flush;
                    }
                }
                (_, other) => return unexpected(other),
            }
        }
    }
}

/// Tells whether a key means something in the selected mailbox alone: message numbers, `$`.
fn names_view(key: &SearchKey) -> bool {
    match key {
        SearchKey::Sequence(_) | SearchKey::Uid(SequenceSet::Saved) => true,
        SearchKey::And(keys) => keys.iter().any(names_view),
        SearchKey::Or(left, right) => names_view(left) || names_view(right),
        SearchKey::Not(key) => names_view(key),
        _ => false,
    }
}
