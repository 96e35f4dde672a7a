//! GETQUOTA and GETQUOTAROOT (RFC 9208). An account is one quota root, named with the empty string.

use crate::mail::mailbox::{MailboxName, Quota, Usage};
use crate::mail::rights::Rights;
use crate::protocol::imap::desk::{Begun, Desk, End, Errand, Turn, unexpected};
use crate::protocol::imap::request::{Answer, Refused, Request};
use crate::protocol::imap::response::write_mailbox;

use super::single::Single;

/// Bytes in a unit of STORAGE (RFC 9208 section 5.1).
const STORAGE_UNIT: u64 = 1024;

/// GETQUOTA.
pub(crate) fn of_root(root: &str) -> Begun {
    if !root.is_empty() {
        return End::no("[NONEXISTENT] there is no such quota root").into();
    }
    Begun::errand(Single::new(Request::Quota, |desk, answer| match answer {
        Answer::Quota { limit, used } => {
            write_quota(desk, limit, used);
            Turn::Done(End::ok("GETQUOTA completed"))
        }
        other => unexpected(Some(other)),
    }))
}

/// GETQUOTAROOT.
pub(crate) fn of_mailbox(name: MailboxName) -> Begun {
    Begun::errand(OfMailbox { name: Some(name), found: false })
}

/// Looks the mailbox up, then tells its root.
#[derive(Debug)]
struct OfMailbox {
    name: Option<MailboxName>,
    /// The mailbox was found, and the quota asked for.
    found: bool,
}

impl Errand for OfMailbox {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        if let Some(name) = self.name.take() {
            return Turn::Ask(Request::Mailbox { name, wanted: Rights::READ });
        }
        match answer {
            Some(Answer::Mailbox(Some(mailbox))) if !self.found => {
                self.found = true;
                desk.put(format_args!("* QUOTAROOT "));
                write_mailbox(&mut desk.out, &mailbox.name, desk.enabled.utf8_names());
                if mailbox.name.is_others() {
                    // How much its owner keeps is not for others to know.
                    desk.put(format_args!("\r\n"));
                    return Turn::Done(End::ok("GETQUOTAROOT completed"));
                }
                desk.put(format_args!(" \"\"\r\n"));
                Turn::Ask(Request::Quota)
            }
            Some(Answer::Mailbox(None)) => Turn::Done(End::refused(Refused::NoSuchMailbox)),
            Some(Answer::Quota { limit, used }) => {
                write_quota(desk, limit, used);
                Turn::Done(End::ok("GETQUOTAROOT completed"))
            }
            other => unexpected(other),
        }
    }
}

/// Resources without a limit are left out (RFC 9208 section 4.2.1).
fn write_quota(desk: &mut Desk, limit: Quota, used: Usage) {
    let storage = limit.bytes.map(|limit| (used.bytes.div_ceil(STORAGE_UNIT), limit / STORAGE_UNIT));
    let messages = limit.messages.map(|limit| (used.messages, limit));
    let resources: Vec<String> = [("STORAGE", storage), ("MESSAGE", messages)]
        .into_iter()
        .filter_map(|(name, figures)| figures.map(|(used, limit)| format!("{name} {used} {limit}")))
        .collect();
    desk.put(format_args!("* QUOTA \"\" ({})\r\n", resources.join(" ")));
}
