//! Writes the result of SEARCH, SORT or THREAD, a piece at a time (RFC 9051 sections 7.3.4, RFC 5256
//! section 4, RFC 5267 section 2, RFC 9394 section 3.1).

use std::iter::Peekable;
use std::vec::IntoIter;

use crate::mail::mailbox::{MailboxName, ModSeq, Uid};
use crate::mail::message::UidSet;
use crate::protocol::imap::response::{write_mailbox, write_number, write_ranges, write_string};
use crate::protocol::imap::search::SearchReturns;
use crate::protocol::imap::threading::Twig;
use crate::protocol::imap::view::View;

/// Ranges or numbers written before they are sent.
const BATCH: usize = 2048;

/// What a response begins with.
pub(crate) struct Heading<'h> {
    /// The command's tag.
    pub(crate) tag: &'h str,
    /// The numbers are uids.
    pub(crate) uid: bool,
    /// What an ESEARCH response holds; none for the old one.
    pub(crate) returns: Option<SearchReturns>,
    /// What the old one is called.
    pub(crate) word: &'static str,
    /// Which mailbox it is about, its UIDVALIDITY, and whether names are UTF-8 (RFC 7377 section 2.1).
    pub(crate) mailbox: Option<(&'h MailboxName, u32, bool)>,
}

/// What is still to be written.
#[derive(Debug)]
pub(crate) struct Listing {
    items: Items,
    /// Stands before the next item.
    between: &'static [u8],
    /// Ends the response.
    end: Vec<u8>,
}

#[derive(Debug)]
enum Items {
    /// Nothing, not even a response.
    Nothing,
    /// One by one.
    Numbers(IntoIter<u32>),
    /// As ranges, ascending.
    Set(UidSet),
    /// As ranges where neighbours follow one another.
    Runs(Peekable<IntoIter<u32>>),
    Threads(Threads),
}

impl Listing {
    /// An ascending result.
    pub(crate) fn of_set(out: &mut Vec<u8>, heading: &Heading<'_>, numbers: UidSet, modseq: Option<ModSeq>) -> Self {
        let Some(returns) = heading.returns else {
            let numbers: Vec<u32> = numbers.iter().map(Uid::get).collect();
            return Self::old(out, heading, numbers, modseq);
        };
        if !returns.answers() {
            return Self::nothing();
        }
        let ends = (numbers.first().map(Uid::get), numbers.last().map(Uid::get));
        heading.write(out, returns, ends, numbers.count());
        if let Some(page) = returns.partial {
            let part = super::fetch::page_of(&numbers, page);
            return Self::partial(out, page, part.is_empty(), Items::Set(part), modseq);
        }
        let all = returns.all && !numbers.is_empty();
        Self::all(out, all.then_some(Items::Set(numbers)), modseq)
    }

    /// A result in an order of its own.
    pub(crate) fn of_list(
        out: &mut Vec<u8>,
        heading: &Heading<'_>,
        mut numbers: Vec<u32>,
        modseq: Option<ModSeq>,
    ) -> Self {
        let Some(returns) = heading.returns else { return Self::old(out, heading, numbers, modseq) };
        if !returns.answers() {
            return Self::nothing();
        }
        let ends = (numbers.first().copied(), numbers.last().copied());
        heading.write(out, returns, ends, u32::try_from(numbers.len()).unwrap_or(u32::MAX));
        let runs = |numbers: Vec<u32>| Items::Runs(numbers.into_iter().peekable());
        if let Some(page) = returns.partial {
            let places = page.places(numbers.len());
            numbers.truncate(places.end);
            numbers.drain(..places.start);
            return Self::partial(out, page, numbers.is_empty(), runs(numbers), modseq);
        }
        let all = returns.all && !numbers.is_empty();
        Self::all(out, all.then(|| runs(numbers)), modseq)
    }

    /// Threads, by uid or by message number.
    pub(crate) fn of_threads(out: &mut Vec<u8>, mut twigs: Vec<Twig>, view: &View, uid: bool) -> Self {
        out.extend_from_slice(b"* THREAD");
        if !uid {
            for twig in &mut twigs {
                twig.number = twig.uid().and_then(|uid| view.number(uid)).unwrap_or(0);
            }
        }
        let between: &[u8] = if twigs.is_empty() { b"" } else { b" " };
        let threads = Threads { twigs: twigs.into_iter().peekable(), open: Vec::new(), after_number: false };
        Self { items: Items::Threads(threads), between, end: b"\r\n".to_vec() }
    }

    /// The response of RFC 3501 and RFC 5256.
    fn old(out: &mut Vec<u8>, heading: &Heading<'_>, numbers: Vec<u32>, modseq: Option<ModSeq>) -> Self {
        out.extend_from_slice(b"* ");
        out.extend_from_slice(heading.word.as_bytes());
        let mut end = Vec::new();
        if let Some(modseq) = modseq {
            end.extend_from_slice(b" (MODSEQ ");
            write_number(&mut end, modseq.0);
            end.push(b')');
        }
        end.extend_from_slice(b"\r\n");
        Self { items: Items::Numbers(numbers.into_iter()), between: b" ", end }
    }

    /// SAVE alone: no response.
    fn nothing() -> Self {
        Self { items: Items::Nothing, between: b"", end: Vec::new() }
    }

    fn partial(
        out: &mut Vec<u8>,
        page: crate::protocol::imap::search::Page,
        empty: bool,
        items: Items,
        modseq: Option<ModSeq>,
    ) -> Self {
        write_modseq(out, modseq);
        out.extend_from_slice(format!(" PARTIAL ({page} ").as_bytes());
        if empty {
            out.extend_from_slice(b"NIL");
        }
        Self { items, between: b"", end: b")\r\n".to_vec() }
    }

    fn all(out: &mut Vec<u8>, items: Option<Items>, modseq: Option<ModSeq>) -> Self {
        write_modseq(out, modseq);
        if items.is_some() {
            out.extend_from_slice(b" ALL ");
        }
        Self { items: items.unwrap_or(Items::Nothing), between: b"", end: b"\r\n".to_vec() }
    }

    /// Writes some of it; true when there is more.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>) -> bool {
        let more = match &mut self.items {
            Items::Nothing => false,
            Items::Numbers(numbers) => {
                for number in numbers.by_ref().take(BATCH) {
                    out.extend_from_slice(self.between);
                    write_number(out, u64::from(number));
                }
                numbers.len() > 0
            }
            Items::Set(set) => {
                let part = set.split_first_ranges(BATCH);
                if !part.is_empty() {
                    out.extend_from_slice(self.between);
                    write_ranges(out, part.ranges().iter().map(|(first, last)| (first.get(), last.get())));
                    self.between = b",";
                }
                !set.is_empty()
            }
            Items::Runs(numbers) => {
                for _ in 0..BATCH {
                    let Some(first) = numbers.next() else { break };
                    let mut last = first;
                    while let Some(next) = numbers.next_if(|next| Some(*next) == last.checked_add(1)) {
                        last = next;
                    }
                    out.extend_from_slice(self.between);
                    write_ranges(out, [(first, last)]);
                    self.between = b",";
                }
                numbers.peek().is_some()
            }
            Items::Threads(threads) => {
                out.extend_from_slice(std::mem::take(&mut self.between));
                threads.write(out)
            }
        };
        if !more {
            out.extend_from_slice(&self.end);
        }
        more
    }
}

impl Heading<'_> {
    /// Writes ESEARCH up to what is a list.
    fn write(&self, out: &mut Vec<u8>, returns: SearchReturns, ends: (Option<u32>, Option<u32>), count: u32) {
        out.extend_from_slice(b"* ESEARCH (TAG ");
        write_string(out, self.tag.as_bytes());
        if let Some((name, uid_validity, utf8)) = self.mailbox {
            out.extend_from_slice(b" MAILBOX ");
            write_mailbox(out, name, utf8);
            out.extend_from_slice(b" UIDVALIDITY ");
            write_number(out, u64::from(uid_validity));
        }
        out.extend_from_slice(if self.uid { b") UID" } else { b")" });
        for (wanted, name, number) in [(returns.min, b" MIN ".as_slice(), ends.0), (returns.max, b" MAX ", ends.1)] {
            if let Some(number) = number.filter(|_| wanted) {
                out.extend_from_slice(name);
                write_number(out, u64::from(number));
            }
        }
        if returns.count {
            out.extend_from_slice(b" COUNT ");
            write_number(out, u64::from(count));
        }
    }
}

fn write_modseq(out: &mut Vec<u8>, modseq: Option<ModSeq>) {
    if let Some(modseq) = modseq {
        out.extend_from_slice(b" MODSEQ ");
        write_number(out, modseq.0);
    }
}

/// Threads on their way out: a message's only answer follows it, several stand in parentheses
/// (RFC 5256 section 4).
#[derive(Debug)]
struct Threads {
    twigs: Peekable<IntoIter<Twig>>,
    /// The depths at which parentheses were opened.
    open: Vec<u32>,
    /// A number was written last, so that a space goes before what follows.
    after_number: bool,
}

impl Threads {
    fn write(&mut self, out: &mut Vec<u8>) -> bool {
        for _ in 0..BATCH {
            let Some(twig) = self.twigs.next() else { break };
            if std::mem::take(&mut self.after_number) {
                out.push(b' ');
            }
            if twig.branches {
                self.open.push(twig.depth);
                out.push(b'(');
            }
            if twig.number != 0 {
                write_number(out, u64::from(twig.number));
                self.after_number = true;
            }
            // What the next one is no answer to ends here.
            let depth = self.twigs.peek().map_or(0, |next| next.depth);
            let ends = |open: &u32| *open >= depth;
            while self.open.pop_if(|open| ends(open)).is_some() {
                out.push(b')');
                self.after_number = false;
            }
        }
        self.twigs.peek().is_some()
    }
}
