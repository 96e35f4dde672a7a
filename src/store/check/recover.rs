//! Mail that no message refers to: where it was bound for, and how it gets a message again.
//!
//! The server writes for whom a message came into its own Received field when there is one
//! recipient alone; `Delivered-To` of other servers says the same. Mail that names nobody goes to
//! the first account. It is put into the mailbox `Recovered` there.

use super::finding::{Damage, Finding};
use super::view::{Row, row};
use super::{Checkup, Step, mend};
use crate::mail::address::Address;
use crate::mail::date::ZonedTime;
use crate::mail::header::FieldReader;
use crate::mail::structure::Walker;
use crate::store::Route;
use crate::store::blob::{BlobRecord, Wholeness};
use crate::store::table::load;

/// Where recovered mail is put.
pub(super) const MAILBOX: &str = "Recovered";

/// Bytes of a header that are looked at.
const HEADER_MAX: usize = 64 << 10;

/// What a header says of a message's way.
#[derive(Debug, Default, PartialEq, Eq)]
struct Trace {
    /// For whom, the best guess first.
    recipients: Vec<Address>,
    date: Option<ZonedTime>,
}

impl Checkup<'_> {
    /// Puts a body that nobody refers to into a mailbox, if it is whole.
    pub(super) fn recover(&mut self, id: u64, finding: &Finding) -> Step<Option<String>> {
        debug_assert_eq!(finding.damage, Damage::Unreferenced);
        let record = {
            let view = self.view()?;
            let Row::There(record) = row::<BlobRecord>(load(&view.bodies, id))? else { return Ok(None) };
            if view.is_passing(id)? {
                return Ok(None);
            }
            record
        };
        let (mut header, mut walker) = (Vec::new(), Walker::new());
        let whole = self.read_body(id, &record, &mut |raw| {
            walker.feed(raw);
            let room = HEADER_MAX.saturating_sub(header.len());
            header.extend_from_slice(raw.get(..room).unwrap_or(raw));
        })?;
        if !matches!(whole, Wholeness::Whole(_)) {
            return Ok(None);
        }
        let trace = Trace::read(&header);
        let reader = self.store.reader()?;
        let mut account = None;
        for address in &trace.recipients {
            if let Route::Local(accounts) = reader.route(address)? {
                account = accounts.first().copied();
                break;
            }
        }
        drop(reader);
        let account = account.map(|account| account.0);
        self.plan(move |tables| mend::recover(tables, id, account, trace.date))
    }
}

impl Trace {
    fn read(header: &[u8]) -> Self {
        let (mut own, mut delivered) = (None, None);
        let mut trace = Self::default();
        let mut received = false;
        let mut take = |name: &[u8], body: &[u8]| {
            let body = String::from_utf8_lossy(body);
            if name.eq_ignore_ascii_case(b"Received") {
                // The newest stands first, and is our own.
                if !std::mem::replace(&mut received, true) {
                    own = recipient(&body);
                    let date = body.rsplit_once(';').and_then(|(_, date)| ZonedTime::parse_rfc5322(date));
                    trace.date = date.or(trace.date);
                }
            } else if name.eq_ignore_ascii_case(b"Delivered-To") {
                delivered = delivered.take().or_else(|| Address::parse(body.trim()).ok());
            } else if name.eq_ignore_ascii_case(b"Date") && trace.date.is_none() {
                trace.date = ZonedTime::parse_rfc5322(&body);
            }
        };
        let mut fields = FieldReader::new();
        fields.feed(header, &mut take);
        fields.finish(&mut take);
        trace.recipients = own.into_iter().chain(delivered).collect();
        trace
    }
}

/// The address behind `for` in a Received field (RFC 5321 section 4.4).
fn recipient(received: &str) -> Option<Address> {
    let words = received.split(|c: char| c.is_ascii_whitespace() || c == ';').filter(|word| !word.is_empty());
    let word = words.skip_while(|word| !word.eq_ignore_ascii_case("for")).nth(1)?;
    Address::parse(word.strip_prefix('<')?.strip_suffix('>')?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_received_field_names_the_recipient_and_the_time() {
        let header = b"Return-Path: <bob@client.test>\r\n\
            Received: from client.test ([127.0.0.1])\r\n\tby pillar.test with ESMTP\r\n\tid abc\r\n\
            \tfor <ann@pillar.test>;\r\n\tThu, 12 Mar 2026 10:11:12 +0100\r\n\
            Received: from a by b for <other@else.test>; Wed, 11 Mar 2026 10:11:12 +0100\r\n\
            Delivered-To: third@pillar.test\r\n\
            Date: Tue, 10 Mar 2026 10:11:12 +0100\r\n\r\nfor <not@me.test>";
        let trace = Trace::read(header);
        let addresses = ["ann@pillar.test", "third@pillar.test"].map(|address| Address::parse(address).unwrap());
        assert_eq!(trace.recipients, addresses);
        assert_eq!(trace.date.unwrap().to_rfc5322(), "Thu, 12 Mar 2026 10:11:12 +0100");
    }

    #[test]
    fn mail_that_names_nobody_has_its_date_at_most() {
        assert_eq!(Trace::read(b"no header at all"), Trace::default());
        let trace = Trace::read(b"Subject: x\r\nDate: Thu, 1 Jan 1970 00:00:09 +0000\r\n\r\n");
        assert_eq!((trace.recipients.len(), trace.date.unwrap().at.0), (0, 9));
    }
}
