//! FETCH (RFC 9051 section 6.4.5, RFC 3516, RFC 7162): rows in batches, structures and short
//! messages some at a time, longer sections streamed.
//!
//! Messages whose `\Seen` a FETCH sets are marked before they are sent, a batch in one write, so
//! that the flags it tells are those that are kept. A message that another session removed
//! meanwhile is passed over.

use std::collections::VecDeque;
use std::vec::IntoIter;

use crate::mail::date::ZonedTime;
use crate::mail::mailbox::{MailboxId, ModSeq, Uid};
use crate::mail::message::{FlagMode, FlagNames, Message, SystemFlags, UidSet};
use crate::mail::rights::Rights;
use crate::mail::structure::{Structure, Wanted};
use crate::protocol::imap::command::FetchCommand;
use crate::protocol::imap::desk::{Begun, Desk, End, Errand, Turn, unexpected};
use crate::protocol::imap::fetch::{FetchItem, SectionKind};
use crate::protocol::imap::request::{
    AHEAD_MAX, Ahead, Answer, LETTERS_BATCH, Letter, ROWS_BATCH, Refused, Request, SCAN_BATCH,
};
use crate::protocol::imap::response::{write_date_time, write_flags, write_number};
use crate::protocol::imap::search::Page;
use crate::protocol::imap::selected::end_of_numbers;
use crate::protocol::imap::structure::{write_body, write_envelope};
use crate::protocol::imap::view::View;

use super::section::{Progress, Section};
use super::sync::{RANGES_BATCH, begin_fetch, write_vanished};

/// Messages marked `\Seen` in one write before their bodies are sent.
const SEEN_BATCH: u32 = 32;

/// A FETCH on its way.
#[derive(Debug)]
pub(crate) struct Fetch {
    mailbox: MailboxId,
    uid: bool,
    items: Vec<FetchItem>,
    changed_since: ModSeq,
    /// Messages whose rows were not asked for yet.
    rest: UidSet,
    rows: IntoIter<Message>,
    letters: VecDeque<Letter>,
    /// Messages of this batch whose flags changed by being fetched.
    seen: UidSet,
    state: State,
    needs_structure: bool,
    ahead: Ahead,
    marks_seen: bool,
    /// A part could not be decoded.
    undecodable: bool,
    failed: bool,
}

#[derive(Debug)]
enum State {
    /// Which of these have gone is to be told first.
    Vanish(UidSet),
    Vanishing(UidSet),
    Batch,
    Rows,
    Marking(Vec<Message>),
    Row,
    Letters(Message),
    /// In the middle of a message: the item that is next, and the section being sent.
    Item {
        message: Box<Open>,
        index: usize,
        section: Option<Box<Section>>,
    },
}

/// The message being sent.
#[derive(Debug)]
struct Open {
    row: Message,
    structure: Option<Structure>,
    /// Its first bytes, as far as they came along.
    ahead: Vec<u8>,
    /// What the section wants next of those, when what was made before is sent.
    next: Option<Request>,
}

impl Open {
    /// Bytes of the body that are at hand.
    fn bytes(&self, request: &Request) -> Option<&[u8]> {
        let Request::Body { offset, max, .. } = request else { return None };
        let rest = self.ahead.get(usize::try_from(*offset).ok()?..).filter(|rest| !rest.is_empty())?;
        Some(rest.get(..*max).unwrap_or(rest))
    }
}

impl Fetch {
    pub(crate) fn begin(desk: &mut Desk, uids: UidSet, command: FetchCommand) -> Begun {
        let FetchCommand { uid, set, mut items, changed_since, vanished, page } = command;
        if vanished && !desk.enabled.qresync {
            return End::bad("ENABLE QRESYNC first").into();
        }
        if changed_since.is_some() && !items.contains(&FetchItem::ModSeq) {
            items.push(FetchItem::ModSeq);
        }
        if items.contains(&FetchItem::ModSeq) {
            desk.enable_condstore();
        }
        // UIDFETCH begins with the uid as it is.
        if uid && !desk.enabled.uid_only && !items.contains(&FetchItem::Uid) {
            items.insert(0, FetchItem::Uid);
        }
        let Some(view) = desk.view.as_deref() else { return End::bad("no mailbox is selected").into() };
        let needs_structure = items.iter().any(needs_structure);
        let ahead = items.iter().map(ahead).fold(Ahead::Nothing, Ahead::and);
        let marks_seen = !view.read_only && view.rights.has(Rights::SEEN) && items.iter().any(marks_seen);
        let last = Uid::new(view.uid_next.get().saturating_sub(1));
        let state = if vanished { State::Vanish(set.uids(last, &view.saved)) } else { State::Batch };
        let uids = match page {
            Some(page) => page_of(&uids, page),
            None => uids,
        };
        Begun::errand(Self {
            mailbox: view.mailbox,
            uid,
            items,
            changed_since: changed_since.unwrap_or_default(),
            rest: uids,
            rows: Vec::new().into_iter(),
            letters: VecDeque::new(),
            seen: UidSet::new(),
            state,
            needs_structure,
            ahead,
            marks_seen,
            undecodable: false,
            failed: false,
        })
    }

    fn end(&self, desk: &Desk) -> Turn {
        let end = if self.failed {
            End::refused(Refused::Unavailable)
        } else if self.undecodable {
            End::no("[UNKNOWN-CTE] a part could not be decoded")
        } else {
            end_of_numbers(desk, self.uid, "FETCH completed")
        };
        Turn::Done(end)
    }

    fn next_batch(&mut self, desk: &Desk) -> Turn {
        if self.rest.is_empty() {
            return self.end(desk);
        }
        let count = match self {
            Self { marks_seen: true, .. } => SEEN_BATCH,
            Self { changed_since: ModSeq(0), .. } => ROWS_BATCH,
            _ => SCAN_BATCH,
        };
        self.state = State::Rows;
        let uids = self.rest.split_first(count);
        Turn::Ask(Request::Rows { mailbox: self.mailbox, uids, changed_since: self.changed_since })
    }

    /// Rows have come: what they leave unseen is marked first.
    fn take_rows(&mut self, rows: Vec<Message>) -> Option<Turn> {
        self.seen = UidSet::new();
        let unseen = |row: &&Message| self.marks_seen && !row.flags.system.contains(SystemFlags::SEEN);
        let uids: UidSet = rows.iter().filter(unseen).map(|row| row.uid).collect();
        if uids.is_empty() {
            self.rows = rows.into_iter();
            self.state = State::Row;
            return None;
        }
        self.state = State::Marking(rows);
        Some(Turn::Ask(Request::Flag {
            mailbox: self.mailbox,
            uids,
            mode: FlagMode::Add,
            flags: FlagNames { system: SystemFlags::SEEN, keywords: Vec::new() },
            unchanged_since: None,
        }))
    }

    fn marked(&mut self, desk: &mut Desk, mut rows: Vec<Message>, answer: Option<Answer>) {
        // On a full disk mail can still be read; it just stays unseen.
        if let Some(Answer::Flagged(flagged)) = answer {
            for row in rows.iter_mut().filter(|row| flagged.changed.contains(row.uid)) {
                row.flags.system = row.flags.system.union(SystemFlags::SEEN);
                row.modseq = flagged.modseq;
            }
            if let Some(view) = &mut desk.view {
                view.flagged(&flagged);
            }
            self.seen = flagged.changed;
        }
        self.rows = rows.into_iter();
        self.state = State::Row;
    }

    /// Begins the next message of the batch; `None` when its structure must be asked for first or
    /// the batch is over.
    fn next_row(&mut self, desk: &mut Desk) -> Option<Turn> {
        let Some(row) = self.rows.next() else {
            self.state = State::Batch;
            return None;
        };
        let alone = self.ahead == Ahead::Nothing || usize::try_from(row.size).is_ok_and(|size| size > AHEAD_MAX);
        if !self.needs_structure && alone {
            self.open(desk, row, None, Vec::new());
            return None;
        }
        while let Some(letter) = self.letters.pop_front() {
            if letter.blob == row.blob {
                self.open_letter(desk, row, letter);
                return None;
            }
        }
        let blobs = std::iter::once(row.blob)
            .chain(self.rows.as_slice().iter().map(|row| row.blob))
            .take(LETTERS_BATCH)
            .collect();
        self.state = State::Letters(row);
        Some(Turn::Ask(Request::Letters { blobs, structure: self.needs_structure, ahead: self.ahead }))
    }

    /// Begins a message; without the structure that is needed it has gone, and is passed over.
    fn open_letter(&mut self, desk: &mut Desk, row: Message, letter: Letter) {
        if self.needs_structure && letter.structure.is_none() {
            self.state = State::Row;
        } else {
            self.open(desk, row, letter.structure, letter.ahead);
        }
    }

    fn open(&mut self, desk: &mut Desk, row: Message, structure: Option<Structure>, ahead: Vec<u8>) {
        let Desk { view, out, enabled, .. } = desk;
        if !view.as_deref().is_some_and(|view| begin_fetch(out, view, *enabled, row.uid)) {
            self.state = State::Row;
            return;
        }
        self.state =
            State::Item { message: Box::new(Open { row, structure, ahead, next: None }), index: 0, section: None };
    }
}

impl Errand for Fetch {
    fn go(&mut self, desk: &mut Desk, mut answer: Option<Answer>) -> Turn {
        loop {
            let answer = answer.take();
            match std::mem::replace(&mut self.state, State::Row) {
                State::Vanish(asked) => {
                    self.state = State::Vanishing(asked);
                    return Turn::Ask(Request::Vanished { mailbox: self.mailbox, since: self.changed_since });
                }
                State::Vanishing(asked) => {
                    self.state = State::Batch;
                    let Desk { view: Some(view), out, .. } = &mut *desk else { return self.end(desk) };
                    let Some(Answer::Vanished(gone)) = answer else { return unexpected(answer) };
                    let mut gone = gone.intersection(&asked);
                    gone.subtract(view.uids());
                    while !gone.is_empty() {
                        write_vanished(out, &gone.split_first_ranges(RANGES_BATCH), true);
                    }
                }
                State::Batch => return self.next_batch(desk),
                State::Rows => {
                    let Some(Answer::Rows(rows)) = answer else { return unexpected(answer) };
                    if let Some(turn) = self.take_rows(rows) {
                        return turn;
                    }
                }
                State::Marking(rows) => self.marked(desk, rows, answer),
                State::Row => {
                    if desk.is_full() {
                        return Turn::Flush;
                    }
                    if let Some(turn) = self.next_row(desk) {
                        return turn;
                    }
                }
                State::Letters(row) => {
                    match answer {
                        Some(Answer::Letters(letters)) => self.letters = letters.into(),
                        _ if !self.needs_structure => {
                            self.open(desk, row, None, Vec::new());
                            continue;
                        }
                        _ => self.failed = true,
                    }
                    // When it is not there, the message is gone; the others may still be.
                    if let Some(letter) = self.letters.pop_front_if(|letter| letter.blob == row.blob) {
                        self.open_letter(desk, row, letter);
                    }
                }
                State::Item { mut message, index, section: Some(mut section) } => {
                    let mut progress = match (message.next.take(), answer) {
                        (Some(request), _) => Progress::Ask(request),
                        (None, Some(Answer::Bytes(bytes))) => section.go(&mut desk.out, &bytes),
                        // Nothing where there should be something: the body is gone, or can't be read.
                        _ => section.go(&mut desk.out, &[]),
                    };
                    loop {
                        match progress {
                            Progress::Ask(request) => {
                                let bytes = message.bytes(&request);
                                if let Some(bytes) = bytes.filter(|_| !desk.is_full()) {
                                    progress = section.go(&mut desk.out, bytes);
                                    continue;
                                }
                                let turn = if bytes.is_some() {
                                    message.next = Some(request);
                                    Turn::Flush
                                } else {
                                    Turn::Ask(request)
                                };
                                self.state = State::Item { message, index, section: Some(section) };
                                return turn;
                            }
                            Progress::Lost => {
                                let uid = message.row.uid.get();
                                tracing::warn!(uid, "a body ended early, the connection is closed");
                                return Turn::Done(End::abort());
                            }
                            Progress::Undecodable => self.undecodable = true,
                            Progress::Done => {}
                        }
                        break;
                    }
                    self.state = State::Item { message, index: index + 1, section: None };
                }
                // Structures need no question between them, and a client may name them many times.
                State::Item { message, index, section: None } if desk.is_full() => {
                    self.state = State::Item { message, index, section: None };
                    return Turn::Flush;
                }
                State::Item { message, index, section: None } => {
                    if let Some(item) = self.items.get(index) {
                        if index > 0 {
                            desk.out.push(b' ');
                        }
                        let section = write_item(desk, item, &message).map(Box::new);
                        let index = if section.is_some() { index } else { index + 1 };
                        self.state = State::Item { message, index, section };
                    } else {
                        self.close(desk, &message.row);
                    }
                }
            }
        }
    }
}

impl Fetch {
    /// Ends a message's response; flags that changed by fetching it are told (RFC 9051 section 6.4.5).
    fn close(&self, desk: &mut Desk, row: &Message) {
        if self.seen.contains(row.uid)
            && !self.items.contains(&FetchItem::Flags)
            && let Desk { view: Some(view), out, enabled, .. } = desk
        {
            if enabled.qresync && !enabled.uid_only && !self.items.contains(&FetchItem::Uid) {
                out.extend_from_slice(b" UID ");
                write_number(out, u64::from(row.uid.get()));
            }
            out.extend_from_slice(b" FLAGS ");
            write_flags(out, row.flags, &view.keywords, enabled.recent() && view.is_recent(row.uid));
            if enabled.condstore && !self.items.contains(&FetchItem::ModSeq) {
                write_modseq(out, b" MODSEQ (", row.modseq);
            }
        }
        desk.out.extend_from_slice(b")\r\n");
    }
}

/// Writes one item, or begins the section that it is.
fn write_item(desk: &mut Desk, item: &FetchItem, message: &Open) -> Option<Section> {
    let row = &message.row;
    let recent = !desk.enabled.rev2 && desk.view.as_deref().is_some_and(|view: &View| view.is_recent(row.uid));
    let Desk { view, out, .. } = desk;
    match item {
        FetchItem::Uid => {
            out.extend_from_slice(b"UID ");
            write_number(out, u64::from(row.uid.get()));
        }
        FetchItem::Flags => {
            out.extend_from_slice(b"FLAGS ");
            if let Some(view) = view {
                write_flags(out, row.flags, &view.keywords, recent);
            }
        }
        FetchItem::InternalDate => {
            out.extend_from_slice(b"INTERNALDATE ");
            write_date_time(out, row.internal_date);
        }
        FetchItem::Rfc822Size => {
            out.extend_from_slice(b"RFC822.SIZE ");
            write_number(out, u64::from(row.size));
        }
        FetchItem::ModSeq => write_modseq(out, b"MODSEQ (", row.modseq),
        FetchItem::EmailId => {
            out.extend_from_slice(b"EMAILID (M");
            write_number(out, row.blob.0);
            out.push(b')');
        }
        FetchItem::ThreadId => out.extend_from_slice(b"THREADID NIL"),
        FetchItem::SaveDate => {
            out.extend_from_slice(b"SAVEDATE ");
            write_date_time(out, ZonedTime::utc(row.saved));
        }
        FetchItem::Envelope => {
            out.extend_from_slice(b"ENVELOPE ");
            if let Some(structure) = message.structure.as_ref() {
                write_envelope(out, structure);
            }
        }
        FetchItem::Body | FetchItem::BodyStructure => {
            let extended = *item == FetchItem::BodyStructure;
            out.extend_from_slice(if extended { b"BODYSTRUCTURE " } else { b"BODY " });
            if let Some(structure) = message.structure.as_ref() {
                write_body(out, structure, extended);
            }
        }
        FetchItem::Rfc822 | FetchItem::Rfc822Header | FetchItem::Rfc822Text => {
            return Section::begin_rfc822(out, item, row, message.structure.as_ref());
        }
        FetchItem::Preview => {
            let structure = message.structure.as_ref();
            return structure.and_then(|structure| Section::begin_preview(out, row, structure));
        }
        FetchItem::Section(section) => return Section::begin(out, section, row, message.structure.as_ref()),
    }
    None
}

/// Those of `uids` that stand at the places of `page` (RFC 9394 section 3.2).
pub(super) fn page_of(uids: &UidSet, page: Page) -> UidSet {
    let places = page.places(usize::try_from(uids.count()).unwrap_or(usize::MAX));
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let mut rest = uids.clone();
    drop(rest.split_first(count(places.start)));
    rest.split_first(count(places.len()))
}

fn write_modseq(out: &mut Vec<u8>, before: &[u8], modseq: ModSeq) {
    out.extend_from_slice(before);
    write_number(out, modseq.0);
    out.push(b')');
}

/// Tells whether an item needs what the part walker found.
fn needs_structure(item: &FetchItem) -> bool {
    match item {
        FetchItem::Envelope
        | FetchItem::Body
        | FetchItem::BodyStructure
        | FetchItem::Rfc822Header
        | FetchItem::Rfc822Text
        | FetchItem::Preview => true,
        FetchItem::Section(section) => section.kind != SectionKind::Body || !section.path.is_empty(),
        _ => false,
    }
}

/// How much of messages an item reads. What needs it all needs it from the first byte on.
fn ahead(item: &FetchItem) -> Ahead {
    match item {
        FetchItem::Rfc822Header => Ahead::Header,
        FetchItem::Rfc822 | FetchItem::Rfc822Text | FetchItem::Preview => Ahead::Whole,
        FetchItem::Section(section) => match section.kind {
            SectionKind::HeaderFields(ref names, false) if section.path.is_empty() => {
                Wanted::of(names).map_or(Ahead::Header, Ahead::Fields)
            }
            SectionKind::Header | SectionKind::HeaderFields(..) if section.path.is_empty() => Ahead::Header,
            _ => Ahead::Whole,
        },
        _ => Ahead::Nothing,
    }
}

/// Tells whether an item sets `\Seen`.
fn marks_seen(item: &FetchItem) -> bool {
    match item {
        FetchItem::Rfc822 | FetchItem::Rfc822Text => true,
        FetchItem::Section(section) => !section.peek && section.kind != SectionKind::BinarySize,
        _ => false,
    }
}
