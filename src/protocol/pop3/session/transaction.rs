//! The TRANSACTION and UPDATE states (RFC 1939 sections 5 and 6): listings and messages that are
//! made piece by piece, and the removal at the end.

use std::io::Write as _;

use super::{LISTING_CHUNK, Listing, Request, Rows, Sending, Session, State, Task, no_message};
use crate::mail::mailbox::Uid;
use crate::protocol::pop3::body::BodyWriter;
use crate::protocol::pop3::maildrop::NumberError;
use crate::protocol::pop3::{Inquiry, Piece, PieceError};

impl Session {
    /// Asks for the size of one message, or says why there is none.
    pub(super) fn size_of(&mut self, number: u32, then: impl FnOnce(u32, Uid) -> Task) {
        match self.view().map_or(Err(NumberError::None), |view| view.uid(number)) {
            Ok(uid) => self.ask(Inquiry::Sizes { first: uid, last: uid }, then(number, uid)),
            Err(error) => self.say(&no_message(error)),
        }
    }

    /// RETR and TOP. The reply begins once the first bytes are there: until then it can be `-ERR`.
    pub(super) fn send(&mut self, number: u32, top: Option<u32>) {
        match self.view().map_or(Err(NumberError::None), |view| view.uid(number)) {
            Ok(uid) => {
                let writer = BodyWriter::new(top);
                let sending = Sending { uid, writer, offset: 0, top: top.is_some(), begun: false, more: false };
                self.ask(Inquiry::Piece { uid, offset: 0 }, Task::Sending(sending));
            }
            Err(error) => self.say(&no_message(error)),
        }
    }

    /// QUIT: the UPDATE state (RFC 1939 section 6).
    pub(super) fn update(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Authorization { user: None, utf8: false });
        let State::Transaction(view) = state else { return };
        let (left, _) = view.left();
        self.ask(Inquiry::Update { remove: view.into_deleted() }, Task::Updating { left });
    }

    /// Goes on with a long reply once the socket has taken what there was; tells whether it did.
    pub(super) fn continue_long_reply(&mut self) -> bool {
        match std::mem::replace(&mut self.task, Task::Command) {
            Task::Listing(listing) => self.list(listing),
            Task::Sending(mut sending) if sending.more => {
                sending.more = false;
                let (uid, offset) = (sending.uid, sending.offset);
                self.ask(Inquiry::Piece { uid, offset }, Task::Sending(sending));
            }
            task => {
                self.task = task;
                return false;
            }
        }
        true
    }

    /// Lists messages until the chunk is full, all are listed, or sizes must be asked for.
    fn list(&mut self, mut listing: Listing) {
        let State::Transaction(view) = &self.state else { return };
        while let Some((number, uid)) = view.at(&mut listing.cursor) {
            if self.out.len() >= LISTING_CHUNK {
                self.task = Task::Listing(listing);
                return;
            }
            // Writing into a vector cannot fail.
            let _ = match &mut listing.rows {
                Rows::UniqueIds => write!(self.out, "{number} {}\r\n", view.unique_id(uid)),
                Rows::Sizes { told, all } => {
                    while told.next_if(|row| row.0 < uid).is_some() {}
                    match (told.peek(), *all) {
                        (Some(row), _) if row.0 == uid => write!(self.out, "{number} {}\r\n", row.1),
                        // Another program has removed it; its number stays.
                        (Some(_), _) | (None, true) => write!(self.out, "{number} 0\r\n"),
                        (None, false) => {
                            let last = view.last().unwrap_or(uid);
                            self.ask = Some(Request::Maildrop(Inquiry::Sizes { first: uid, last }));
                            self.task = Task::Listing(listing);
                            return;
                        }
                    }
                }
            };
            listing.cursor.advance();
        }
        self.out.extend_from_slice(b".\r\n");
    }

    /// Takes a piece of the message that is being sent.
    pub(super) fn send_piece(&mut self, mut sending: Sending, found: Result<Piece, PieceError>) {
        let piece = match found {
            Ok(piece) => piece,
            // No lone dot: the client must not take a part for the whole.
            Err(_) if sending.begun => {
                self.task = Task::Leaving;
                return;
            }
            Err(PieceError::Gone) => return self.say("-ERR the message was removed by another program"),
            Err(PieceError::Unavailable) => return self.say("-ERR [SYS/TEMP] try again later"),
        };
        if !sending.begun {
            sending.begun = true;
            if sending.top {
                self.say("+OK top of message follows");
            } else {
                self.say(&format!("+OK {} octets", piece.size));
            }
        }
        let wants_more = sending.writer.write(&piece.bytes, &mut self.out);
        sending.offset += piece.bytes.len() as u64;
        if wants_more && !piece.end && !piece.bytes.is_empty() {
            sending.more = true;
            self.task = Task::Sending(sending);
        } else if wants_more && !piece.end {
            // The store stopped short of the end.
            self.task = Task::Leaving;
        } else {
            sending.writer.finish(&mut self.out);
        }
    }
}
