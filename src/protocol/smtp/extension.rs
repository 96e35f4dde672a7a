//! What EHLO offers (RFC 5321 section 4.1.1.1), by role and by what is true of the connection.

use std::fmt::Write as _;

use super::{Role, SmtpConfig};
use crate::protocol::Channel;
use crate::protocol::sasl::Mechanism;

/// What decides about some of the extensions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Which port's manners apply.
    pub(super) role: Role,
    /// TLS can be started and is not yet (RFC 3207 section 4.2).
    pub(super) starttls: bool,
    /// Logging in is possible here and now (RFC 4954 section 3).
    pub(super) auth: bool,
    /// What a login can rest on (RFC 9266, RFC 4422 appendix A).
    pub(super) channel: Channel,
    /// What a user has in his mailboxes can be sent by URL (RFC 4468 section 3.1).
    pub(super) burl: bool,
    /// TLS is on.
    pub(super) tls: bool,
}

/// The text of the answer to EHLO: our name and one line for each extension.
pub(super) fn list(name: &str, config: &SmtpConfig, facts: Facts) -> String {
    let mut text = format!("{name}\nPIPELINING\nSIZE {}", config.message_max_bytes);
    text.push_str("\n8BITMIME\nSMTPUTF8\nENHANCEDSTATUSCODES\nCHUNKING\nBINARYMIME\nDSN");
    if facts.burl {
        text.push_str("\nBURL imap");
    }
    // Writing to a String cannot fail.
    let _ = write!(text, "\nLIMITS MAILMAX={} RCPTMAX={}", config.messages_max, config.recipients_max);
    if facts.starttls {
        text.push_str("\nSTARTTLS");
    }
    if facts.tls {
        text.push_str("\nREQUIRETLS");
    }
    if facts.role == Role::Submission && facts.auth {
        text.push_str("\nAUTH PLAIN LOGIN SCRAM-SHA-256");
        for more in [Mechanism::ScramSha256Plus, Mechanism::External] {
            if more.is_had(Some(&facts.channel)) {
                text.push(' ');
                text.push_str(more.name());
            }
        }
    }
    text
}
