//! SEARCH (RFC 9051 section 6.4.4): ESEARCH answers, `$`, MODSEQ (RFC 4731, RFC 5182, RFC 7162).
//!
//! The mailbox is looked through a slice at a time; what was found is kept as ranges of uids.

use std::sync::Arc;

use crate::mail::mailbox::{MailboxId, ModSeq};
use crate::mail::message::UidSet;
use crate::protocol::imap::desk::{Begun, Desk, End, Errand, Turn, unexpected};
use crate::protocol::imap::request::{Answer, Request, Search};
use crate::protocol::imap::response::{write_number, write_ranges, write_string};
use crate::protocol::imap::search::{SearchKey, SearchProgram, SearchReturns, SetKind};
use crate::protocol::imap::selected::end_of_numbers;
use crate::protocol::imap::view::NoSuchMessage;

/// Ranges or numbers written before they are sent.
const NUMBERS_BATCH: u16 = 2048;

/// A SEARCH on its way.
#[derive(Debug)]
pub(crate) struct Searching {
    tag: String,
    uid: bool,
    returns: Option<SearchReturns>,
    /// The answer tells the highest MODSEQ found, because the search names MODSEQ.
    tells_modseq: bool,
    mailbox: MailboxId,
    search: Arc<Search>,
    /// Messages that were not looked at.
    rest: UidSet,
    found: UidSet,
    modseq: ModSeq,
    /// What is still to be written: numbers as the client wants them.
    writing: Option<UidSet>,
    /// Ranges of these that are written.
    written: usize,
}

impl Searching {
    pub(crate) fn begin(desk: &mut Desk, tag: &str, uid: bool, program: SearchProgram) -> Result<Begun, NoSuchMessage> {
        let tells_modseq = names_modseq(&program.key);
        if tells_modseq {
            desk.enable_condstore();
        }
        let rev2 = desk.enabled.rev2;
        let Some(view) = desk.view.as_deref_mut() else { return Ok(End::bad("no mailbox is selected").into()) };
        let key = program.key.resolve(&mut |kind, set| view.resolve(set, kind == SetKind::Uids))?;
        let mut returns = program.returns;
        if returns.is_some_and(|returns| returns.save) {
            // A search that fails leaves nothing behind (RFC 5182 section 2.1).
            view.saved = UidSet::new();
        }
        // IMAP4rev2 knows no SEARCH response (RFC 9051 section 6.4.4).
        if rev2 && returns.is_none() {
            returns = Some(SearchReturns { all: true, ..SearchReturns::default() });
        }
        // A lone RETURN () means ALL.
        if let Some(returns) = &mut returns {
            returns.all |= !(returns.min || returns.max || returns.count || returns.save);
        }
        let mut rest = view.uids().clone();
        if let Some(only) = bound(&key) {
            rest = rest.intersection(only);
        }
        Ok(Begun::errand(Self {
            tag: tag.to_owned(),
            uid,
            returns,
            tells_modseq,
            mailbox: view.mailbox,
            search: Arc::new(Search { key, recent: view.recent().clone() }),
            rest,
            found: UidSet::new(),
            modseq: ModSeq(0),
            writing: None,
            written: 0,
        }))
    }

    /// Tells whether the rest of the mailbox could still change the answer.
    fn is_settled(&self) -> bool {
        let only_min = |returns: SearchReturns| returns.min && !returns.max && !returns.all && !returns.count;
        self.rest.is_empty() || (!self.found.is_empty() && !self.tells_modseq && self.returns.is_some_and(only_min))
    }

    /// All is found: saves it and begins the answer.
    fn conclude(&mut self, desk: &mut Desk) {
        let Some(view) = desk.view.as_deref_mut() else { return };
        let ends = [self.found.first(), self.found.last()];
        if let Some(returns) = self.returns.filter(|returns| returns.save) {
            // MIN and MAX alone save just these (RFC 5182 section 2.1).
            view.saved = if returns.all || returns.count || !(returns.min || returns.max) {
                self.found.clone()
            } else {
                let wanted = [returns.min, returns.max];
                ends.iter().zip(wanted).filter_map(|(end, wanted)| end.filter(|_| wanted)).collect()
            };
        }
        let numbers = if self.uid { self.found.clone() } else { view.numbers(&self.found) };
        let Some(returns) = self.returns else {
            desk.out.extend_from_slice(b"* SEARCH");
            self.writing = Some(numbers);
            return;
        };
        self.writing = Some(UidSet::new());
        if !(returns.min || returns.max || returns.all || returns.count) {
            return;
        }
        let out = &mut desk.out;
        out.extend_from_slice(b"* ESEARCH (TAG ");
        write_string(out, self.tag.as_bytes());
        out.extend_from_slice(if self.uid { b") UID" } else { b")" });
        for (wanted, name, number) in
            [(returns.min, b" MIN ".as_slice(), numbers.first()), (returns.max, b" MAX ", numbers.last())]
        {
            if let Some(number) = number.filter(|_| wanted) {
                out.extend_from_slice(name);
                write_number(out, u64::from(number.get()));
            }
        }
        if returns.count {
            out.extend_from_slice(b" COUNT ");
            write_number(out, u64::from(numbers.count()));
        }
        if self.tells_modseq && !numbers.is_empty() {
            out.extend_from_slice(b" MODSEQ ");
            write_number(out, self.modseq.0);
        }
        if returns.all && !numbers.is_empty() {
            out.extend_from_slice(b" ALL ");
            self.writing = Some(numbers);
        } else {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Writes some of the numbers, or ends.
    fn write(&mut self, desk: &mut Desk, mut numbers: UidSet) -> Turn {
        let out = &mut desk.out;
        if self.returns.is_some() {
            let ranges = numbers.ranges().get(self.written..).unwrap_or_default();
            let part = ranges.get(..NUMBERS_BATCH.into()).unwrap_or(ranges);
            if self.written > 0 {
                out.push(b',');
            }
            write_ranges(out, part.iter().map(|(first, last)| (first.get(), last.get())));
            self.written += part.len();
            if self.written < numbers.ranges().len() {
                self.writing = Some(numbers);
                return Turn::Flush;
            }
            if self.written > 0 {
                out.extend_from_slice(b"\r\n");
            }
        } else {
            for number in numbers.split_first(NUMBERS_BATCH.into()).iter() {
                out.push(b' ');
                write_number(out, u64::from(number.get()));
            }
            if !numbers.is_empty() {
                self.writing = Some(numbers);
                return Turn::Flush;
            }
            if self.tells_modseq && !self.found.is_empty() {
                out.extend_from_slice(b" (MODSEQ ");
                write_number(out, self.modseq.0);
                out.push(b')');
            }
            out.extend_from_slice(b"\r\n");
        }
        Turn::Done(end_of_numbers(desk, self.uid, "SEARCH completed"))
    }
}

impl Errand for Searching {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        if let Some(numbers) = self.writing.take() {
            return self.write(desk, numbers);
        }
        match answer {
            Some(Answer::Found { uids, modseq, next }) => {
                self.found.union_with(&uids);
                self.modseq = self.modseq.max(modseq);
                match next {
                    // At least one was looked at, whatever the answer says.
                    Some(next) => drop(self.rest.split_first(self.rest.count_below(next).max(1))),
                    None => self.rest = UidSet::new(),
                }
            }
            Some(other) => return unexpected(Some(other)),
            None => {}
        }
        if self.is_settled() {
            self.conclude(desk);
            let numbers = self.writing.take().unwrap_or_default();
            return self.write(desk, numbers);
        }
        let (mailbox, uids, search) = (self.mailbox, self.rest.clone(), Arc::clone(&self.search));
        Turn::Ask(Request::Search { mailbox, uids, search })
    }
}

/// The uids that a search names at its top: no others need to be looked at.
fn bound(key: &SearchKey) -> Option<&UidSet> {
    match key {
        SearchKey::Uids(uids) => Some(uids),
        SearchKey::And(keys) => keys.iter().filter_map(bound).min_by_key(|uids| uids.count()),
        _ => None,
    }
}

/// Tells whether MODSEQ is among the keys (RFC 7162 section 3.1.5).
fn names_modseq(key: &SearchKey) -> bool {
    match key {
        SearchKey::ModSeq(_) => true,
        SearchKey::And(keys) => keys.iter().any(names_modseq),
        SearchKey::Or(left, right) => names_modseq(left) || names_modseq(right),
        SearchKey::Not(key) => names_modseq(key),
        _ => false,
    }
}
