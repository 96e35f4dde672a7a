//! The lines of MAIL and RCPT with the parameters that the peer understands. Writing to a String
//! cannot fail, so what `write!` returns says nothing here.

use std::fmt::Write as _;

use super::{Extensions, Mail};
use crate::mail::envelope::{BodyType, Notify, Recipient, ReturnContent};

/// MAIL (RFC 5321 section 4.1.1.2). `utf8` says whether SMTPUTF8 is asked for.
pub(super) fn mail(mail: &Mail, offered: &Extensions, utf8: bool) -> String {
    let mut line = format!("MAIL FROM:{}", mail.envelope.from);
    if offered.size {
        let _ = write!(line, " SIZE={}", mail.size);
    }
    if mail.nature.binary {
        line.push_str(" BODY=BINARYMIME");
    } else if offered.eight_bit && (mail.nature.eight_bit || mail.envelope.body == BodyType::EightBitMime) {
        line.push_str(" BODY=8BITMIME");
    }
    if utf8 {
        line.push_str(" SMTPUTF8");
    }
    if mail.require_tls {
        line.push_str(" REQUIRETLS");
    }
    if offered.dsn {
        match mail.envelope.ret {
            Some(ReturnContent::Full) => line.push_str(" RET=FULL"),
            Some(ReturnContent::Headers) => line.push_str(" RET=HDRS"),
            None => {}
        }
        parameter(&mut line, "ENVID", mail.envelope.envelope_id.as_deref());
    }
    line.push_str("\r\n");
    line
}

/// RCPT (RFC 5321 section 4.1.1.3).
pub(super) fn rcpt(recipient: &Recipient, offered: &Extensions) -> String {
    let mut line = format!("RCPT TO:{}", recipient.path);
    if offered.dsn {
        if let Some(words) = notify(recipient.notify) {
            let _ = write!(line, " NOTIFY={words}");
        }
        parameter(&mut line, "ORCPT", recipient.original.as_deref());
    }
    line.push_str("\r\n");
    line
}

/// NOTIFY's value (RFC 3461 section 4.1).
fn notify(notify: Notify) -> Option<String> {
    if !notify.given {
        return None;
    }
    let words = [(notify.success, "SUCCESS"), (notify.failure, "FAILURE"), (notify.delay, "DELAY")];
    let words: Vec<&str> = words.iter().filter(|(wanted, _)| *wanted).map(|(_, word)| *word).collect();
    Some(if words.is_empty() { "NEVER".to_owned() } else { words.join(",") })
}

/// Adds a parameter whose value came from elsewhere; one that is no word stays away.
fn parameter(line: &mut String, name: &str, value: Option<&str>) {
    let word = |value: &&str| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic());
    if let Some(value) = value.filter(word) {
        let _ = write!(line, " {name}={value}");
    }
}
