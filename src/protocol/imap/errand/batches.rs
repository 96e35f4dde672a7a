//! UIDBATCHES (RFC 10022): ranges of uids that hold so many messages each, the newest first, so that
//! a client can go through a large mailbox without knowing its uids.

use crate::mail::mailbox::Uid;
use crate::protocol::imap::desk::{Desk, End};
use crate::protocol::imap::response::{write_number, write_string};

/// Smallest batch that may be asked for (RFC 10022 section 3.1.5).
const SIZE_MIN: u32 = 500;

/// Most batches in one response.
const BATCHES_MAX: u32 = 10_000;

/// Answers at once: the view knows it all.
pub(crate) fn tell(desk: &mut Desk, tag: &str, size: u32, batches: Option<(u32, u32)>) -> End {
    let (first, last) = batches.unwrap_or((1, u32::MAX));
    if first > last {
        return End::bad("[CLIENTBUG] the first batch comes before the last");
    }
    if size < SIZE_MIN {
        return End::no(format!("[TOOSMALL] a batch has {SIZE_MIN} messages at least"));
    }
    let Desk { view: Some(view), out, .. } = desk else { return End::bad("no mailbox is selected") };
    let mut rest = view.uids().clone();
    let there = rest.count().div_ceil(size);
    let wanted = last.min(there).saturating_sub(first - 1);
    if batches.is_some_and(|_| last - first >= BATCHES_MAX) || wanted > BATCHES_MAX {
        return End::no(format!("[TOOMANY] at most {BATCHES_MAX} batches are told at once"));
    }
    out.extend_from_slice(b"* UIDBATCHES (TAG ");
    write_string(out, tag.as_bytes());
    out.push(b')');
    let mut between = b' ';
    // Each batch ends where the next begins, whatever gaps there are, and the last one reaches to 1.
    let mut high = rest.last();
    for number in 1..=last.min(there) {
        drop(rest.split_last(size));
        let low = rest.last().and_then(Uid::successor).map_or(1, Uid::get);
        if let Some(high) = high.filter(|_| number >= first) {
            out.push(std::mem::replace(&mut between, b','));
            write_number(out, u64::from(high.get()));
            out.push(b':');
            write_number(out, u64::from(low));
        }
        high = rest.last();
    }
    out.extend_from_slice(b"\r\n");
    End::ok("UIDBATCHES completed")
}
