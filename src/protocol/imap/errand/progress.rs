//! How far a long command is, told now and then (RFC 9585).

use crate::mail::date::Timestamp;
use crate::protocol::imap::desk::Desk;
use crate::protocol::imap::response::write_string;

/// Seconds between two words on how far it is (RFC 9585 section 4).
const PROGRESS_SECS: i64 = 10;

/// When the client last heard of a command.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    heard: Option<Timestamp>,
}

impl Progress {
    /// Says that `done` of `all` messages were looked at, unless it was said a moment ago.
    pub(crate) fn tell(&mut self, desk: &mut Desk, tag: &str, now: Timestamp, done: u32, all: u32) {
        let heard = *self.heard.get_or_insert(now);
        if now.0.saturating_sub(heard.0) < PROGRESS_SECS {
            return;
        }
        self.heard = Some(now);
        desk.put(format_args!("* OK [INPROGRESS ("));
        write_string(&mut desk.out, tag.as_bytes());
        desk.put(format_args!(" {done} {all})] still looking\r\n"));
    }
}
