//! SEARCH (RFC 9051 section 6.4.4): ESEARCH answers, `$`, MODSEQ, PARTIAL (RFC 4731, RFC 5182,
//! RFC 7162, RFC 9394); and SORT and THREAD (RFC 5256, RFC 5267), which are searches whose result is put
//! in order.
//!
//! The mailbox is looked through a slice at a time; what was found is kept as ranges of uids. A
//! client that waits is told how far it is (RFC 9585).

use std::sync::Arc;

use crate::mail::mailbox::{MailboxId, ModSeq, Uid};
use crate::mail::message::UidSet;
use crate::protocol::imap::context::Context;
use crate::protocol::imap::desk::{Begun, Desk, End, Errand, Turn, unexpected};
use crate::protocol::imap::request::{Answer, Request, Search};
use crate::protocol::imap::search::{SearchKey, SearchProgram, SearchReturns, SetKind, SortKey, Threading};
use crate::protocol::imap::selected::end_of_numbers;
use crate::protocol::imap::view::{NoSuchMessage, View};

use super::context::{self, is_kept, write_no_update};
use super::fetch::page_of;
use super::listing::{Heading, Listing};
use super::progress::Progress;

/// What is done with what is found.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    Search,
    Sort(Arc<[SortKey]>),
    Thread(Threading),
}

impl Purpose {
    fn completed(&self) -> &'static str {
        match self {
            Self::Search => "SEARCH completed",
            Self::Sort(_) => "SORT completed",
            Self::Thread(_) => "THREAD completed",
        }
    }
}

/// A SEARCH on its way.
#[derive(Debug)]
pub(crate) struct Searching {
    tag: String,
    uid: bool,
    purpose: Purpose,
    returns: Option<SearchReturns>,
    /// The answer tells the highest MODSEQ found, because the search names MODSEQ.
    tells_modseq: bool,
    mailbox: MailboxId,
    search: Arc<Search>,
    /// Messages that were not looked at.
    rest: UidSet,
    /// How many there were at first.
    all: u32,
    found: UidSet,
    modseq: ModSeq,
    progress: Progress,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The mailbox is looked through.
    Looking,
    /// The MODSEQ of the ends, which are all that is told, is asked (RFC 4731 section 3.2).
    Ends,
    /// The result is put in order.
    Ordering,
    /// The answer is written.
    Writing(Listing),
}

impl Searching {
    pub(crate) fn begin(
        desk: &mut Desk,
        tag: &str,
        uid: bool,
        program: SearchProgram,
        purpose: Purpose,
    ) -> Result<Begun, NoSuchMessage> {
        let tells_modseq = names_modseq(&program.key);
        if tells_modseq {
            desk.enable_condstore();
        }
        let rev2 = desk.enabled.rev2;
        let Some(view) = desk.view.as_deref_mut() else { return Ok(End::bad("no mailbox is selected").into()) };
        let key = program.key.resolve(&mut |kind, set| view.resolve(set, kind == SetKind::Uids))?;
        let mut returns = program.returns;
        if returns.is_some_and(|returns| returns.update) && is_kept(view, tag) {
            return Ok(End::bad("[CLIENTBUG] a search of that tag is kept up to date already").into());
        }
        if returns.is_some_and(|returns| returns.save) {
            // A search that fails leaves nothing behind (RFC 5182 section 2.1).
            view.saved = UidSet::new();
        }
        // IMAP4rev2 knows no SEARCH response (RFC 9051 section 6.4.4).
        if rev2 && returns.is_none() && matches!(purpose, Purpose::Search) {
            returns = Some(SearchReturns { all: true, ..SearchReturns::default() });
        }
        // A lone RETURN () means ALL.
        if let Some(returns) = &mut returns {
            returns.all |= !(returns.answers() || returns.save);
        }
        let mut rest = view.uids().clone();
        if let Some(only) = bound(&key) {
            rest = rest.intersection(only);
        }
        Ok(Begun::errand(Self {
            tag: tag.to_owned(),
            uid,
            purpose,
            returns,
            tells_modseq,
            mailbox: view.mailbox,
            search: Arc::new(Search { key, recent: view.recent().clone() }),
            all: rest.count(),
            rest,
            found: UidSet::new(),
            modseq: ModSeq(0),
            progress: Progress::default(),
            stage: Stage::Looking,
        }))
    }

    /// Tells whether only the ends of the result are told.
    fn only_ends(&self) -> bool {
        let ends = |returns: SearchReturns| (returns.min || returns.max) && !returns.all && !returns.count;
        self.returns.is_some_and(|returns| ends(returns) && returns.partial.is_none())
    }

    /// Tells whether the rest of the mailbox could still change the answer.
    fn is_settled(&self) -> bool {
        let updates = self.returns.is_some_and(|returns| returns.update);
        let only_min = !updates && self.only_ends() && self.returns.is_some_and(|returns| !returns.max);
        let plain = matches!(self.purpose, Purpose::Search);
        self.rest.is_empty() || (plain && only_min && !self.found.is_empty())
    }

    /// Keeps the result for `$`.
    fn save(&self, view: &mut View) {
        let Some(returns) = self.returns.filter(|returns| returns.save) else { return };
        view.saved = saved(&self.found, returns);
    }

    /// What comes after the mailbox was looked through.
    fn found(&mut self) -> Option<Request> {
        let (mailbox, uids) = (self.mailbox, self.found.clone());
        match &self.purpose {
            Purpose::Search if self.tells_modseq && self.only_ends() && !uids.is_empty() => {
                self.stage = Stage::Ends;
                Some(Request::Rows {
                    mailbox,
                    uids: ends(&self.found, self.returns.unwrap_or_default()),
                    changed_since: ModSeq(0),
                })
            }
            Purpose::Search => None,
            Purpose::Sort(order) => {
                self.stage = Stage::Ordering;
                Some(Request::Sort { mailbox, uids, order: Arc::clone(order) })
            }
            Purpose::Thread(threading) => {
                self.stage = Stage::Ordering;
                Some(Request::Thread { mailbox, uids, threading: *threading })
            }
        }
    }

    /// All is found: saves it and begins the answer.
    fn conclude(&mut self, desk: &mut Desk) {
        if self.returns.is_some_and(|returns| returns.update) {
            let (tag, key, found) = (self.tag.clone(), self.search.key.clone(), self.found.clone());
            context::keep(desk, Context { tag, uid: self.uid, key, found });
        }
        let Some(view) = desk.view.as_deref_mut() else { return };
        self.save(view);
        let numbers = if self.uid { self.found.clone() } else { view.numbers(&self.found) };
        let modseq = Some(self.modseq).filter(|_| self.tells_modseq && !numbers.is_empty());
        self.stage = Stage::Writing(Listing::of_set(&mut desk.out, &self.heading("SEARCH"), numbers, modseq));
    }

    /// The messages are in order.
    fn sorted(&mut self, desk: &mut Desk, uids: &[Uid]) {
        if self.returns.is_some_and(|returns| returns.update) {
            write_no_update(&mut desk.out, &self.tag, "an order is not kept up to date");
        }
        let Some(view) = desk.view.as_deref_mut() else { return };
        // What went meanwhile is not part of the result.
        self.found = uids.iter().copied().collect();
        if let Some(returns) = self.returns.filter(|returns| returns.save) {
            // The first, the last and a page are those of the order.
            let partial = returns.partial.map_or(0..0, |page| page.places(uids.len()));
            let ends = [uids.first().filter(|_| returns.min), uids.last().filter(|_| returns.max)];
            view.saved = if returns.all || returns.count || !returns.answers() {
                self.found.clone()
            } else {
                uids.get(partial).unwrap_or_default().iter().chain(ends.into_iter().flatten()).copied().collect()
            };
        }
        let number = |uid: &Uid| if self.uid { Some(uid.get()) } else { view.number(*uid) };
        let numbers: Vec<u32> = uids.iter().filter_map(number).collect();
        let modseq = Some(self.modseq).filter(|_| self.tells_modseq && !numbers.is_empty());
        self.stage = Stage::Writing(Listing::of_list(&mut desk.out, &self.heading("SORT"), numbers, modseq));
    }

    fn heading(&self, word: &'static str) -> Heading<'_> {
        Heading { tag: &self.tag, uid: self.uid, returns: self.returns, word, mailbox: None }
    }

    fn look(&self) -> Turn {
        let (mailbox, uids, search) = (self.mailbox, self.rest.clone(), Arc::clone(&self.search));
        Turn::Ask(Request::Search { mailbox, uids, search })
    }
}

impl Errand for Searching {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        match (&mut self.stage, answer) {
            (Stage::Looking, Some(Answer::Found { uids, modseq, next, now })) => {
                self.found.union_with(&uids);
                self.modseq = self.modseq.max(modseq);
                match next {
                    // At least one was looked at, whatever the answer says.
                    Some(next) => drop(self.rest.split_first(self.rest.count_below(next).max(1))),
                    None => self.rest = UidSet::new(),
                }
                let done = self.all.saturating_sub(self.rest.count());
                self.progress.tell(desk, &self.tag, now, done, self.all);
                if !self.is_settled() && !desk.out.is_empty() {
                    return Turn::Flush;
                }
            }
            (Stage::Ends, Some(Answer::Rows(rows))) => {
                self.modseq = rows.iter().map(|row| row.modseq).max().unwrap_or(self.modseq);
                self.conclude(desk);
            }
            (Stage::Ordering, Some(Answer::Sorted(uids))) => self.sorted(desk, &uids),
            (Stage::Ordering, Some(Answer::Threads(twigs))) => {
                let Some(view) = desk.view.as_deref() else { return unexpected(None) };
                self.stage = Stage::Writing(Listing::of_threads(&mut desk.out, twigs, view, self.uid));
            }
            (Stage::Looking | Stage::Writing(_), None) => {}
            (_, other) => return unexpected(other),
        }
        if matches!(self.stage, Stage::Looking) {
            if !self.is_settled() {
                return self.look();
            }
            match self.found() {
                Some(request) => return Turn::Ask(request),
                None => self.conclude(desk),
            }
        }
        let Stage::Writing(listing) = &mut self.stage else { return unexpected(None) };
        if listing.write(&mut desk.out) {
            return Turn::Flush;
        }
        Turn::Done(end_of_numbers(desk, self.uid, self.purpose.completed()))
    }
}

/// The messages at the ends that are told.
fn ends(found: &UidSet, returns: SearchReturns) -> UidSet {
    let ends = [found.first().filter(|_| returns.min), found.last().filter(|_| returns.max)];
    ends.into_iter().flatten().collect()
}

/// What of a result is kept for `$`: MIN, MAX and PARTIAL save just these (RFC 5182 section 2.1,
/// RFC 9394 section 3.1).
pub(super) fn saved(found: &UidSet, returns: SearchReturns) -> UidSet {
    if returns.all || returns.count || !returns.answers() {
        return found.clone();
    }
    let mut saved = ends(found, returns);
    if let Some(page) = returns.partial {
        saved.union_with(&page_of(found, page));
    }
    saved
}

/// The uids that a search names at its top: no others need to be looked at.
pub(super) fn bound(key: &SearchKey) -> Option<&UidSet> {
    match key {
        SearchKey::Uids(uids) => Some(uids),
        SearchKey::And(keys) => keys.iter().filter_map(bound).min_by_key(|uids| uids.count()),
        _ => None,
    }
}

/// Tells whether MODSEQ is among the keys (RFC 7162 section 3.1.5).
pub(super) fn names_modseq(key: &SearchKey) -> bool {
    match key {
        SearchKey::ModSeq(_) => true,
        SearchKey::And(keys) => keys.iter().any(names_modseq),
        SearchKey::Or(left, right) => names_modseq(left) || names_modseq(right),
        SearchKey::Not(key) => names_modseq(key),
        _ => false,
    }
}
