//! GETACL, SETACL, DELETEACL, LISTRIGHTS and MYRIGHTS (RFC 4314), and MYRIGHTS as a part of LIST (RFC 8440).

use crate::mail::mailbox::{Mailbox, MailboxName};
use crate::mail::rights::{Rights, RightsMode};
use crate::protocol::imap::desk::{Begun, Desk, End, Turn, unexpected};
use crate::protocol::imap::request::{Answer, Refused, Request};
use crate::protocol::imap::response::{write_astring, write_mailbox};

use super::single::Single;

/// Any of these lets somebody ask for his own rights (RFC 4314 section 4).
const ASKS: Rights = Rights::LOOKUP
    .and(Rights::READ)
    .and(Rights::INSERT)
    .and(Rights::CREATE)
    .and(Rights::DELETE)
    .and(Rights::ADMINISTER);

/// GETACL.
pub(crate) fn get(name: MailboxName) -> Begun {
    Begun::errand(Single::new(Request::Acl(name.clone()), move |desk, answer| match answer {
        Answer::Acl(entries) => {
            begin(desk, "ACL", &name);
            for (identifier, rights) in entries {
                desk.out.push(b' ');
                write_astring(&mut desk.out, identifier.as_bytes());
                desk.put(format_args!(" {rights}"));
            }
            desk.put(format_args!("\r\n"));
            Turn::Done(End::ok("GETACL completed"))
        }
        other => unexpected(Some(other)),
    }))
}

/// SETACL.
pub(crate) fn set(mailbox: MailboxName, identifier: String, mode: RightsMode, rights: Rights) -> Begun {
    change(Request::SetAcl { mailbox, identifier, mode, rights }, "SETACL completed")
}

/// DELETEACL: of an identifier without rights nothing is left.
pub(crate) fn delete(mailbox: MailboxName, identifier: String) -> Begun {
    let (mode, rights) = (RightsMode::Replace, Rights::NONE);
    change(Request::SetAcl { mailbox, identifier, mode, rights }, "DELETEACL completed")
}

fn change(request: Request, completed: &'static str) -> Begun {
    Begun::errand(Single::new(request, move |_, answer| match answer {
        Answer::Done => Turn::Done(End::ok(completed)),
        other => unexpected(Some(other)),
    }))
}

/// LISTRIGHTS: what must go together stands together, and each right stands for itself.
pub(crate) fn list(mailbox: MailboxName, identifier: String) -> Begun {
    let request = Request::ListRights { mailbox: mailbox.clone(), identifier: identifier.clone() };
    Begun::errand(Single::new(request, move |desk, answer| match answer {
        Answer::ListRights(owner) => {
            begin(desk, "LISTRIGHTS", &mailbox);
            desk.out.push(b' ');
            write_astring(&mut desk.out, identifier.as_bytes());
            if owner {
                desk.put(format_args!(" {}\r\n", Rights::ALL));
            } else {
                desk.put(format_args!(" \"\""));
                for letter in Rights::ALL.to_string().chars() {
                    desk.put(format_args!(" {letter}"));
                }
                desk.put(format_args!("\r\n"));
            }
            Turn::Done(End::ok("LISTRIGHTS completed"))
        }
        other => unexpected(Some(other)),
    }))
}

/// MYRIGHTS.
pub(crate) fn mine(name: MailboxName) -> Begun {
    Begun::errand(Single::new(Request::Mailbox { name, wanted: ASKS }, |desk, answer| match answer {
        Answer::Mailbox(Some(mailbox)) => {
            write_mine(desk, &mailbox);
            Turn::Done(End::ok("MYRIGHTS completed"))
        }
        Answer::Mailbox(None) => Turn::Done(End::refused(Refused::NoSuchMailbox)),
        other => unexpected(Some(other)),
    }))
}

/// Writes a MYRIGHTS response.
pub(crate) fn write_mine(desk: &mut Desk, mailbox: &Mailbox) {
    begin(desk, "MYRIGHTS", &mailbox.name);
    desk.put(format_args!(" {}\r\n", mailbox.rights));
}

fn begin(desk: &mut Desk, word: &str, mailbox: &MailboxName) {
    desk.put(format_args!("* {word} "));
    write_mailbox(&mut desk.out, mailbox, desk.enabled.utf8_names());
}
