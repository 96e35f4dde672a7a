//! Tells a client what changed in its mailbox: by other sessions, by deliveries, by itself
//! (RFC 9051 sections 5.2, 7.4.1, 7.5.1; RFC 7162 section 3.2.4).
//!
//! One point read says whether anything happened. If so, EXPUNGE comes first (where it may), then
//! new keywords, EXISTS and RECENT. Only when somebody else changed flags are the known messages
//! looked through for them, a batch at a time.

use std::mem;

use crate::mail::mailbox::{MailboxId, ModSeq, Uid};
use crate::mail::message::{Message, UidSet};
use crate::protocol::imap::desk::{Desk, Enabled, End, Errand, Turn};
use crate::protocol::imap::notify::Notify;
use crate::protocol::imap::request::{Answer, Changes, Request, SCAN_BATCH};
use crate::protocol::imap::response::{write_flags, write_number, write_uids};
use crate::protocol::imap::view::View;

use super::context::drop_gone;
use super::select::write_keywords;

/// Most EXPUNGE responses made before they are sent.
const EXPUNGES_BATCH: u32 = 1024;

/// Most ranges of uids in one VANISHED response.
pub(crate) const RANGES_BATCH: usize = 1024;

/// The telling of changes, once.
#[derive(Debug)]
pub(crate) struct Sync {
    expunges: bool,
    idling: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Begin,
    /// Something may have changed.
    Asked,
    /// EXPUNGE responses, then what else changed.
    Expunge(Option<Box<Changes>>),
    Arrive(Box<Changes>),
    Flags(Scan),
    Claim,
    /// New messages are marked as shown.
    Claiming,
}

/// The messages to look through for changed flags.
#[derive(Debug)]
struct Scan {
    mailbox: MailboxId,
    rest: UidSet,
    since: ModSeq,
    upto: ModSeq,
}

impl Sync {
    /// At the end of a command; with `expunges`, EXPUNGE may be told too.
    pub(crate) fn new(expunges: bool) -> Self {
        Self { expunges, idling: false, state: State::Begin }
    }

    /// Between commands and during IDLE: what can wait until the end of a command does.
    pub(crate) fn unasked(expunges: bool) -> Self {
        Self { expunges, idling: true, state: State::Begin }
    }

    fn asked(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Option<Turn> {
        let changes = match answer {
            Some(Answer::Changes(changes)) => Some(changes),
            // The mailbox was deleted, or may not be read any more: which of the two is not told. RFC 2180
            // section 3 leaves little else to say.
            Some(Answer::Mailbox(None)) => {
                desk.view = None;
                desk.put(format_args!("* BYE the selected mailbox was deleted, or is shared no more\r\n"));
                return Some(Turn::Done(End::abort()));
            }
            // Nothing changed, or nobody knows now. What is gone is told all the same.
            _ => None,
        };
        if let (Some(view), Some(changes)) = (&mut desk.view, &changes) {
            view.vanish(&changes.vanished);
        }
        self.state = State::Expunge(changes);
        None
    }

    /// Keywords, EXISTS, RECENT.
    fn arrive(&mut self, desk: &mut Desk, changes: &Changes) {
        self.state = State::Claim;
        let tells_flags = tells_flags(desk);
        super::telling::arrived(desk, &changes.new);
        let Desk { view, out, enabled, .. } = desk;
        let Some(view) = view.as_deref_mut() else { return };
        let mailbox = &changes.mailbox;
        let looks = tells_flags || view.contexts.is_some();
        if mailbox.flags_modseq > view.flags_modseq && looks {
            let mut rest = view.uids().clone();
            rest.subtract(&changes.vanished);
            let (since, upto) = (view.flags_modseq, mailbox.highest_modseq);
            self.state = State::Flags(Scan { mailbox: mailbox.id, rest, since, upto });
        } else {
            // Nobody changed flags up to now: what comes later is all there is to look for.
            view.flags_modseq = view.flags_modseq.max(mailbox.highest_modseq);
        }
        view.modseq = view.modseq.max(mailbox.highest_modseq);
        view.uid_next = view.uid_next.max(mailbox.uid_next);
        if view.keywords != mailbox.keywords || view.rights != mailbox.rights {
            view.rights = mailbox.rights;
            view.keywords.clone_from(&mailbox.keywords);
            write_keywords(out, view);
        }
        if changes.new.is_empty() {
            return;
        }
        let recent = view.recent_count();
        view.arrive(&changes.new, mailbox.recent_from);
        write_numbered(out, view.exists(), "EXISTS");
        if !enabled.rev2 {
            write_numbered(out, view.recent_count(), "RECENT");
            view.unclaimed |= !view.read_only && view.recent_count() > recent;
        }
    }
}

impl Errand for Sync {
    fn go(&mut self, desk: &mut Desk, mut answer: Option<Answer>) -> Turn {
        loop {
            let answer = answer.take();
            match &mut self.state {
                State::Begin => {
                    let Some(view) = desk.view.as_deref() else { return done() };
                    self.state = State::Asked;
                    return Turn::Ask(view.ask_changes());
                }
                State::Asked => {
                    if let Some(turn) = self.asked(desk, answer) {
                        return turn;
                    }
                }
                State::Expunge(changes) => {
                    if self.expunges {
                        if let Desk { view: Some(view), out, .. } = desk {
                            drop_gone(out, view);
                        }
                        if tell_expunges(desk) {
                            return Turn::Flush;
                        }
                    }
                    self.state = changes.take().map_or(State::Claim, State::Arrive);
                }
                State::Arrive(_) => {
                    if let State::Arrive(changes) = mem::replace(&mut self.state, State::Begin) {
                        self.arrive(desk, &changes);
                    }
                }
                State::Flags(scan) => {
                    match answer {
                        Some(Answer::Rows(rows)) => {
                            if let Some(view) = desk.view.as_deref_mut() {
                                view.touch(&rows.iter().map(|row| row.uid).collect());
                            }
                            if tells_flags(desk) {
                                tell_flags(desk, &rows);
                            }
                            if desk.is_full() {
                                return Turn::Flush;
                            }
                        }
                        // Told next time: the view's mark stays.
                        Some(_) => return done(),
                        None => {}
                    }
                    if !scan.rest.is_empty() {
                        let uids = scan.rest.split_first(SCAN_BATCH);
                        let (mailbox, changed_since) = (scan.mailbox, scan.since);
                        return Turn::Ask(Request::Rows { mailbox, uids, changed_since });
                    }
                    if let Some(view) = &mut desk.view {
                        view.flags_modseq = view.flags_modseq.max(scan.upto);
                    }
                    self.state = State::Claim;
                }
                State::Claim => match desk.view.as_deref_mut() {
                    Some(view) if view.unclaimed && !self.idling => {
                        view.unclaimed = false;
                        self.state = State::Claiming;
                        return Turn::Ask(Request::ClaimRecent(view.mailbox));
                    }
                    _ => return done(),
                },
                State::Claiming => return done(),
            }
        }
    }
}

/// Tells whether changed flags are told: unless NOTIFY was set without `FlagChange`.
fn tells_flags(desk: &Desk) -> bool {
    let watched = |notify: &Notify| notify.selected.as_ref().is_some_and(|watch| watch.flags);
    desk.notify.as_deref().is_none_or(watched)
}

fn done() -> Turn {
    Turn::Done(End::ok(""))
}

fn write_numbered(out: &mut Vec<u8>, number: u32, word: &str) {
    out.extend_from_slice(b"* ");
    write_number(out, u64::from(number));
    out.push(b' ');
    out.extend_from_slice(word.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Tells some messages that are gone; false when there were none.
fn tell_expunges(desk: &mut Desk) -> bool {
    if desk.enabled.vanishes() {
        let uids = desk.view.as_mut().map(|view| view.forget_ranges(RANGES_BATCH)).unwrap_or_default();
        write_vanished(&mut desk.out, &uids, false);
        return !uids.is_empty();
    }
    let numbers = desk.view.as_mut().map(|view| view.forget(EXPUNGES_BATCH)).unwrap_or_default();
    for number in &numbers {
        write_numbered(&mut desk.out, *number, "EXPUNGE");
    }
    !numbers.is_empty()
}

/// Tells the flags of messages where they may be other than the client thinks.
pub(crate) fn tell_flags(desk: &mut Desk, rows: &[Message]) {
    let Desk { view, out, enabled, .. } = desk;
    let Some(view) = view.as_deref() else { return };
    for row in rows {
        write_flags_response(out, view, *enabled, row, true);
    }
}

/// Writes a VANISHED response, unless `uids` is empty (RFC 7162 section 3.2.10).
pub(crate) fn write_vanished(out: &mut Vec<u8>, uids: &UidSet, earlier: bool) {
    if !uids.is_empty() {
        out.extend_from_slice(if earlier { b"* VANISHED (EARLIER) " } else { b"* VANISHED " });
        write_uids(out, uids);
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes the beginning of a message's FETCH response, up to the parenthesis; after ENABLE UIDONLY it
/// is called UIDFETCH and begins with the uid (RFC 9586 section 3.3). False for a message that the
/// client does not count.
pub(crate) fn begin_fetch(out: &mut Vec<u8>, view: &View, enabled: Enabled, uid: Uid) -> bool {
    let Some(number) = view.number(uid) else { return false };
    out.extend_from_slice(b"* ");
    write_number(out, u64::from(if enabled.uid_only { uid.get() } else { number }));
    out.extend_from_slice(if enabled.uid_only { b" UIDFETCH (" } else { b" FETCH (" });
    true
}

/// Writes an unasked FETCH response of a message the client counts: UID, FLAGS if `flags`, and
/// MODSEQ once CONDSTORE is on (RFC 7162 section 3.2).
pub(crate) fn write_flags_response(out: &mut Vec<u8>, view: &View, enabled: Enabled, row: &Message, flags: bool) {
    if !begin_fetch(out, view, enabled, row.uid) {
        return;
    }
    let mut between = "";
    if !enabled.uid_only {
        out.extend_from_slice(b"UID ");
        write_number(out, u64::from(row.uid.get()));
        between = " ";
    }
    if flags {
        out.extend_from_slice(between.as_bytes());
        out.extend_from_slice(b"FLAGS ");
        write_flags(out, row.flags, &view.keywords, enabled.recent() && view.is_recent(row.uid));
        between = " ";
    }
    if enabled.condstore {
        out.extend_from_slice(between.as_bytes());
        out.extend_from_slice(b"MODSEQ (");
        write_number(out, row.modseq.0);
        out.push(b')');
    }
    out.extend_from_slice(b")\r\n");
}
