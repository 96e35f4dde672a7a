//! Received and Return-Path fields (RFC 5321 section 4.4), and the fields a submission may lack
//! (RFC 6409 section 8).
//!
//! Fields are spelled whole, folded, with their CRLF. What a client said of itself comes in as
//! parsed types alone, so nothing here can break a line.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::address::Domain;
use super::date::ZonedTime;
use super::envelope::{Client, Envelope, ReversePath};

/// What a Received field tells.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// Who sent the message.
    pub client: &'a Client,
    /// Our own name.
    pub by: &'a str,
    /// Our name for the message: letters and digits.
    pub id: &'a str,
    /// Its envelope.
    pub envelope: &'a Envelope,
    /// When it came.
    pub at: ZonedTime,
}

/// Spells the Received field (RFC 5321 section 4.4, `Time-stamp-line`). The recipient is named only
/// where it is the only one, so that nobody learns of a blind copy.
#[must_use]
pub fn received(stamp: &Stamp<'_>) -> String {
    let Stamp { client, by, id, envelope, at } = stamp;
    let address = literal(client.address);
    // A name that is not ASCII may stand only in a message that may be UTF-8 (RFC 6531 section 3.7.3).
    let name = client.greeting.as_ref().map(Domain::as_str).filter(|name| envelope.utf8 || name.is_ascii());
    let name = name.unwrap_or(&address);
    let mut field = format!("Received: from {name} ({address})\r\n\tby {by} with {}", transmission(client, envelope));
    if let Some(tls) = &client.tls {
        field.push_str(" (");
        field.extend(tls.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '(' | ')' | '\\') || *c == ' '));
        field.push(')');
    }
    field.push_str("\r\n\tid ");
    field.push_str(id);
    if let [recipient] = envelope.recipients.as_slice() {
        // Writing to a String cannot fail.
        let _ = write!(field, "\r\n\tfor {}", recipient.path);
    }
    field + ";\r\n\t" + &at.to_rfc5322() + "\r\n"
}

/// Spells the Return-Path field (RFC 5321 section 4.4, `Return-path-line`).
#[must_use]
pub fn return_path(from: &ReversePath) -> String {
    format!("Return-Path: {from}\r\n")
}

/// Spells a Message-ID field (RFC 5322 section 3.6.4) from our name for the message.
#[must_use]
pub fn message_id(id: &str, host: &str) -> String {
    format!("Message-ID: <{id}@{host}>\r\n")
}

/// Spells a Date field (RFC 5322 section 3.6.1).
#[must_use]
pub fn date(at: ZonedTime) -> String {
    format!("Date: {}\r\n", at.to_rfc5322())
}

/// An address literal (RFC 5321 section 4.1.3).
fn literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    }
}

/// How the message was transmitted (RFC 3848, RFC 6531 section 4.3).
fn transmission(client: &Client, envelope: &Envelope) -> &'static str {
    if client.plain_helo {
        return "SMTP";
    }
    match (envelope.utf8, client.tls.is_some(), client.login.is_some()) {
        (false, false, false) => "ESMTP",
        (false, true, false) => "ESMTPS",
        (false, false, true) => "ESMTPA",
        (false, true, true) => "ESMTPSA",
        (true, false, false) => "UTF8SMTP",
        (true, true, false) => "UTF8SMTPS",
        (true, false, true) => "UTF8SMTPA",
        (true, true, true) => "UTF8SMTPSA",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::address::Address;
    use crate::mail::date::Timestamp;
    use crate::mail::envelope::{BodyType, ForwardPath, Notify, Recipient};

    fn client(address: &str) -> Client {
        Client {
            address: address.parse().unwrap(),
            greeting: Domain::parse("client.test").ok(),
            plain_helo: false,
            tls: None,
            login: None,
        }
    }

    fn envelope(recipients: &[&str]) -> Envelope {
        let recipient = |text: &&str| Recipient {
            path: ForwardPath::Address(Address::parse(text).unwrap()),
            notify: Notify::default(),
            original: None,
        };
        Envelope {
            from: ReversePath::Null,
            recipients: recipients.iter().map(recipient).collect(),
            body: BodyType::SevenBit,
            utf8: false,
            ret: None,
            envelope_id: None,
        }
    }

    fn spelled(client: &Client, envelope: &Envelope) -> String {
        let at = ZonedTime::utc(Timestamp(837_596_665));
        received(&Stamp { client, by: "pillarbox.test", id: "1f", envelope, at })
    }

    #[test]
    fn a_received_field_tells_the_way_in() {
        let mut client = client("::ffff:192.0.2.1");
        client.tls = Some("TLSv1.3 TLS_AES_128_GCM_SHA256".into());
        assert_eq!(
            spelled(&client, &envelope(&["bob@pillarbox.test"])),
            "Received: from client.test ([192.0.2.1])\r\n\
             \tby pillarbox.test with ESMTPS (TLSv1.3 TLS_AES_128_GCM_SHA256)\r\n\
             \tid 1f\r\n\
             \tfor <bob@pillarbox.test>;\r\n\
             \tWed, 17 Jul 1996 09:44:25 +0000\r\n"
        );
    }

    #[test]
    fn several_recipients_are_not_told() {
        let field = spelled(&client("2001:db8::1"), &envelope(&["bob@pillarbox.test", "ann@pillarbox.test"]));
        assert!(!field.contains("for") && field.contains("([IPv6:2001:db8::1])"), "{field}");
    }

    #[test]
    fn a_name_in_utf8_stays_out_of_an_ascii_message() {
        let mut client = client("192.0.2.1");
        client.greeting = Domain::parse("bücher.test").ok();
        let mut envelope = envelope(&[]);
        assert!(spelled(&client, &envelope).starts_with("Received: from [192.0.2.1] ([192.0.2.1])"));
        envelope.utf8 = true;
        assert!(spelled(&client, &envelope).starts_with("Received: from bücher.test ([192.0.2.1])"));
    }
}
