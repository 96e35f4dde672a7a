//! The authenticated state: mailboxes and what may be done without selecting one (RFC 9051
//! section 6.3, RFC 9208).

use crate::mail::mailbox::{OTHER_USERS, SpecialUse};

use super::command::Command;
use super::desk::{Begun, Desk, Enabled, End, Stage, Then, Turn, unexpected};
use super::errand::append::Append;
use super::errand::delete::Delete;
use super::errand::list::List;
use super::errand::metadata::{self, GetMetadata};
use super::errand::select::{Select, leave};
use super::errand::single::Single;
use super::errand::status::Status;
use super::errand::urlauth::{self, UrlFetch};
use super::errand::{acl, notify, quota};
use super::idle::Idle;
use super::request::{Answer, Refused, Request};

/// Begins a command of this state.
pub(crate) fn begin(desk: &mut Desk, command: Command) -> Begun {
    match command {
        Command::Enable(names) => enable(desk, &names).into(),
        Command::Select { resync: Some(_), .. } if !desk.enabled.qresync => End::bad("ENABLE QRESYNC first").into(),
        Command::Select { mailbox, read_only, condstore, resync } => {
            Begun::errand(Select::new(mailbox, read_only, condstore, resync))
        }
        Command::SelectNothing => {
            leave(desk);
            End::refused(Refused::NoSuchMailbox).into()
        }
        Command::Create { mailbox, special_use } => create(mailbox, &special_use),
        Command::Delete(name) => Begun::errand(Delete::new(name)),
        Command::Rename { from, to } => change(Request::Rename { from, to }, "RENAME completed"),
        Command::Subscribe(name) => change(Request::Subscribe { name, subscribed: true }, "SUBSCRIBE completed"),
        Command::Unsubscribe(name) => change(Request::Subscribe { name, subscribed: false }, "UNSUBSCRIBE completed"),
        Command::List(list) => Begun::errand(List::new(list)),
        Command::Lsub { reference, pattern } => Begun::errand(List::lsub(&reference, &pattern)),
        Command::Namespace => {
            desk.put(format_args!("* NAMESPACE ((\"\" \"/\")) ((\"{OTHER_USERS}/\" \"/\")) NIL\r\n"));
            End::ok("NAMESPACE completed").into()
        }
        Command::Status { mailbox, items } => Begun::errand(Status::new(mailbox, items)),
        Command::Notify(program) => notify::begin(desk, program),
        Command::GetMetadata { mailbox, query } => Begun::errand(GetMetadata::new(mailbox, query)),
        Command::SetMetadata { mailbox, changes } => metadata::set(mailbox, changes),
        Command::Append(head) => Begun::errand(Append::new(head)),
        Command::Compress(mechanism) => compress(desk, &mechanism).into(),
        Command::Unauthenticate => unauthenticate(desk).into(),
        Command::Idle => Begun::errand(Idle::new()),
        Command::GenUrlAuth(pairs) => urlauth::generate(desk, pairs),
        Command::UrlFetch(urls) => Begun::errand(UrlFetch::new(urls)),
        Command::ResetKey { mailbox, mechanisms } => urlauth::reset(mailbox, &mechanisms),
        Command::GetAcl(name) => acl::get(name),
        Command::SetAcl { mailbox, identifier, mode, rights } => acl::set(mailbox, identifier, mode, rights),
        Command::DeleteAcl { mailbox, identifier } => acl::delete(mailbox, identifier),
        Command::ListRights { mailbox, identifier } => acl::list(mailbox, identifier),
        Command::MyRights(name) => acl::mine(name),
        Command::GetQuota(root) => quota::of_root(&root),
        Command::GetQuotaRoot(name) => quota::of_mailbox(name),
        Command::SetQuota(_) => End::no("[NOPERM] quotas are the administrator's").into(),
        _ => End::bad("not in this state").into(),
    }
}

/// ENABLE (RFC 5161): what is not known is passed over.
fn enable(desk: &mut Desk, names: &[String]) -> End {
    let mut enabled = String::new();
    for name in names {
        let known = match name.to_ascii_uppercase().as_str() {
            "CONDSTORE" => {
                desk.enable_condstore();
                " CONDSTORE"
            }
            "UTF8=ACCEPT" => {
                desk.enabled.utf8 = true;
                " UTF8=ACCEPT"
            }
            "QRESYNC" => {
                desk.enable_condstore();
                desk.enabled.qresync = true;
                " QRESYNC"
            }
            "UIDONLY" => {
                desk.enabled.uid_only = true;
                " UIDONLY"
            }
            "IMAP4REV2" => {
                desk.enabled.rev2 = true;
                " IMAP4rev2"
            }
            _ => continue,
        };
        if !enabled.split(' ').any(|name| name == known.trim_start()) {
            enabled.push_str(known);
        }
    }
    desk.put(format_args!("* ENABLED{enabled}\r\n"));
    End::ok("ENABLE completed")
}

/// COMPRESS (RFC 4978). Only for who has logged in: it takes memory.
fn compress(desk: &Desk, mechanism: &str) -> End {
    if mechanism != "DEFLATE" {
        return End::no("[CANNOT] DEFLATE is the mechanism there is");
    }
    if desk.compressed {
        return End::no("[COMPRESSIONACTIVE] DEFLATE is active already");
    }
    End::ok("DEFLATE active").quiet().then(Then::Compress)
}

/// UNAUTHENTICATE (RFC 8437): as it was after the greeting, but TLS stays on.
fn unauthenticate(desk: &mut Desk) -> End {
    (desk.view, desk.notify) = (None, None);
    desk.enabled = Enabled::default();
    desk.stage = Stage::Greeting;
    desk.user = None;
    End::ok("UNAUTHENTICATE completed").quiet()
}

/// CREATE (RFC 9051 section 6.3.4, RFC 6154 section 3).
fn create(name: crate::mail::mailbox::MailboxName, uses: &[SpecialUse]) -> Begun {
    let special_use = match uses {
        [] => None,
        [only] => Some(*only),
        _ => return End::no("[USEATTR] a mailbox has one special use at most").into(),
    };
    Begun::errand(Single::new(Request::Create { name, special_use }, |_, answer| match answer {
        Answer::Created(id) => Turn::Done(End::ok(format!("[MAILBOXID (F{})] CREATE completed", id.0))),
        other => unexpected(Some(other)),
    }))
}

/// A command that is one change.
fn change(request: Request, completed: &'static str) -> Begun {
    Begun::errand(Single::new(request, move |_, answer| match answer {
        Answer::Done => Turn::Done(End::ok(completed)),
        other => unexpected(Some(other)),
    }))
}
