//! STORE (RFC 9051 section 6.4.6, RFC 7162 section 3.1.3).

use crate::mail::mailbox::ModSeq;
use crate::mail::message::{FlagMode, UidSet};
use crate::mail::rights::Rights;
use crate::protocol::imap::command::StoreCommand;
use crate::protocol::imap::desk::{Begun, Desk, End, Errand, Turn, unexpected};
use crate::protocol::imap::request::{Answer, ROWS_BATCH, Request};
use crate::protocol::imap::response::write_uids;
use crate::protocol::imap::selected::end_of_numbers;
use crate::protocol::imap::view::View;

use super::select::write_keywords;
use super::sync::write_flags_response;

/// A STORE on its way.
#[derive(Debug)]
pub(crate) struct Store {
    command: StoreCommand,
    /// What is to be changed; then what is to be told.
    uids: UidSet,
    /// What was left alone.
    modified: UidSet,
    state: State,
}

#[derive(Debug)]
enum State {
    Begin,
    Change,
    /// The mailbox learnt keywords: the client must know them before it is told of them.
    Keywords,
    Tell,
}

impl Store {
    pub(crate) fn begin(desk: &Desk, uids: UidSet, command: StoreCommand) -> Begun {
        if desk.view.as_deref().is_some_and(|view| view.read_only) {
            return End::no("[READ-ONLY] the mailbox was opened with EXAMINE").into();
        }
        Begun::errand(Self { command, uids, modified: UidSet::new(), state: State::Begin })
    }

    fn names_unknown_keyword(&self, view: &View) -> bool {
        !self.uids.is_empty()
            && view.rights.has(Rights::WRITE)
            && self.command.flags.keywords.iter().any(|name| view.keywords.bit(name).is_none())
    }

    /// Tells whether the client knows what its command did: `.SILENT` says so, where all of it could be
    /// done. What rights kept from being done is told (RFC 4314 section 4).
    fn is_silent(&self, desk: &Desk) -> bool {
        let rights = desk.view.as_deref().map_or(Rights::ALL, |view| view.rights);
        let whole = match self.command.mode {
            FlagMode::Replace => rights.has(Rights::flags()),
            FlagMode::Add | FlagMode::Remove => rights.permitted(self.command.flags.clone()) == self.command.flags,
        };
        self.command.silent && whole
    }

    fn end(&self, desk: &Desk) -> End {
        if self.modified.is_empty() {
            return end_of_numbers(desk, self.command.uid, "STORE completed");
        }
        let mut text = b"[MODIFIED ".to_vec();
        match &desk.view {
            Some(view) if !self.command.uid => write_uids(&mut text, &view.numbers(&self.modified)),
            _ => write_uids(&mut text, &self.modified),
        }
        text.extend_from_slice(b"] some had changed and were left alone");
        End::ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Errand for Store {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        match (&self.state, answer) {
            (State::Begin, _) => {
                if self.command.unchanged_since.is_some() {
                    desk.enable_condstore();
                }
                let Some(view) = desk.view.as_deref().filter(|_| !self.uids.is_empty()) else {
                    return Turn::Done(self.end(desk));
                };
                self.state = State::Change;
                Turn::Ask(Request::Flag {
                    mailbox: view.mailbox,
                    uids: self.uids.clone(),
                    mode: self.command.mode,
                    flags: self.command.flags.clone(),
                    unchanged_since: self.command.unchanged_since,
                })
            }
            (State::Change, Some(Answer::Flagged(flagged))) => {
                if let Some(view) = &mut desk.view {
                    view.flagged(&flagged);
                }
                if !self.is_silent(desk) {
                    self.uids.subtract(&flagged.modified);
                } else if desk.enabled.condstore {
                    // The client must learn the new MODSEQ all the same.
                    self.uids = flagged.changed;
                } else {
                    self.uids = UidSet::new();
                }
                self.modified = flagged.modified;
                self.state = State::Tell;
                match desk.view.as_deref() {
                    Some(view) if self.names_unknown_keyword(view) => {
                        self.state = State::Keywords;
                        Turn::Ask(view.ask_changes())
                    }
                    _ => self.go(desk, None),
                }
            }
            (State::Keywords, answer) => {
                // The rest of these changes is told after the command, as ever.
                if let (Some(Answer::Changes(changes)), Some(view)) = (answer, &mut desk.view) {
                    view.keywords = changes.mailbox.keywords;
                    write_keywords(&mut desk.out, view);
                }
                self.state = State::Tell;
                self.go(desk, None)
            }
            (State::Tell, answer) => {
                let silent = self.is_silent(desk);
                let Desk { view: Some(view), out, enabled, .. } = desk else { return Turn::Done(self.end(desk)) };
                if let Some(Answer::Rows(rows)) = answer {
                    for row in &rows {
                        write_flags_response(out, view, *enabled, row, !silent);
                    }
                }
                if self.uids.is_empty() {
                    return Turn::Done(self.end(desk));
                }
                let uids = self.uids.split_first(ROWS_BATCH);
                Turn::Ask(Request::Rows { mailbox: view.mailbox, uids, changed_since: ModSeq::default() })
            }
            (State::Change, answer) => unexpected(answer),
        }
    }
}
