//! Spells the pieces of responses (RFC 9051 section 9).

use crate::mail::mailbox::MailboxName;
use crate::mail::message::{Flags, Keywords, UidSet};

/// Writes a string as quoted where it may be and as a literal otherwise.
#[expect(clippy::todo, reason = "the facade comes first")]
pub fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    let _ = (out, text);
    todo!()
}

/// Writes a mailbox name as an astring: UTF-8 when `utf8` (IMAP4rev2 or UTF8=ACCEPT is on), else
/// modified UTF-7 (RFC 3501 section 5.1.3).
#[expect(clippy::todo, reason = "the facade comes first")]
pub fn write_mailbox(out: &mut Vec<u8>, name: &MailboxName, utf8: bool) {
    let _ = (out, name, utf8);
    todo!()
}

/// Writes a parenthesised flag list.
#[expect(clippy::todo, reason = "the facade comes first")]
pub fn write_flags(out: &mut Vec<u8>, flags: Flags, keywords: &Keywords, recent: bool) {
    let _ = (out, flags, keywords, recent);
    todo!()
}

/// Writes a non-empty set as `uid-set`.
#[expect(clippy::todo, reason = "the facade comes first")]
pub fn write_uids(out: &mut Vec<u8>, uids: &UidSet) {
    let _ = (out, uids);
    todo!()
}
