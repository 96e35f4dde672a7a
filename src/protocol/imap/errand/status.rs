//! STATUS (RFC 9051 section 6.3.11, RFC 7162, RFC 7889, RFC 8438, RFC 8474, RFC 9208).

use crate::mail::mailbox::{Mailbox, MailboxName};
use crate::mail::rights::Rights;
use crate::protocol::imap::command::StatusItem;
use crate::protocol::imap::desk::{Desk, End, Errand, Turn, unexpected};
use crate::protocol::imap::request::{Answer, Refused, Request};
use crate::protocol::imap::response::write_mailbox;

/// A STATUS on its way.
#[derive(Debug)]
pub(crate) struct Status {
    name: Option<MailboxName>,
    items: Vec<StatusItem>,
    /// Found, and its recent messages are being counted.
    found: Option<Box<Mailbox>>,
}

impl Status {
    pub(crate) fn new(name: MailboxName, items: Vec<StatusItem>) -> Self {
        Self { name: Some(name), items, found: None }
    }
}

impl Errand for Status {
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        if let Some(name) = self.name.take() {
            if self.items.contains(&StatusItem::HighestModSeq) {
                desk.enable_condstore();
            }
            return Turn::Ask(Request::Mailbox { name, wanted: Rights::READ });
        }
        let (mailbox, recent) = match (answer, self.found.take()) {
            (Some(Answer::Mailbox(Some(mailbox))), None) => match count_recent(&mailbox, &self.items) {
                Some(request) => {
                    self.found = Some(mailbox);
                    return Turn::Ask(request);
                }
                None => (mailbox, 0),
            },
            (Some(Answer::Mailbox(None)), _) => return Turn::Done(End::refused(Refused::NoSuchMailbox)),
            (Some(Answer::Count(recent)), Some(mailbox)) => (mailbox, recent),
            (other, _) => return unexpected(other),
        };
        write_items(desk, &mailbox, &self.items, recent);
        Turn::Done(End::ok("STATUS completed"))
    }
}

/// The question that `RECENT` needs, when it does.
pub(crate) fn count_recent(mailbox: &Mailbox, items: &[StatusItem]) -> Option<Request> {
    (items.contains(&StatusItem::Recent) && mailbox.recent_from < mailbox.uid_next)
        .then_some(Request::CountFrom { mailbox: mailbox.id, from: mailbox.recent_from })
}

/// Writes the STATUS response.
pub(crate) fn write_items(desk: &mut Desk, mailbox: &Mailbox, items: &[StatusItem], recent: u32) {
    let append_max = desk.config.append_max_bytes;
    desk.put(format_args!("* STATUS "));
    write_mailbox(&mut desk.out, &mailbox.name, desk.enabled.utf8_names());
    desk.put(format_args!(" ("));
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            desk.out.push(b' ');
        }
        match item {
            StatusItem::Messages => desk.put(format_args!("MESSAGES {}", mailbox.messages)),
            StatusItem::Recent => desk.put(format_args!("RECENT {recent}")),
            StatusItem::UidNext => desk.put(format_args!("UIDNEXT {}", mailbox.uid_next.get())),
            StatusItem::UidValidity => desk.put(format_args!("UIDVALIDITY {}", mailbox.uid_validity.0)),
            StatusItem::Unseen => desk.put(format_args!("UNSEEN {}", mailbox.unseen)),
            StatusItem::Deleted => desk.put(format_args!("DELETED {}", mailbox.deleted)),
            StatusItem::Size => desk.put(format_args!("SIZE {}", mailbox.size)),
            StatusItem::HighestModSeq => desk.put(format_args!("HIGHESTMODSEQ {}", mailbox.highest_modseq.0.max(1))),
            StatusItem::AppendLimit => desk.put(format_args!("APPENDLIMIT {append_max}")),
            StatusItem::DeletedStorage => {
                desk.put(format_args!("DELETED-STORAGE {}", mailbox.deleted_size.div_ceil(1024)));
            }
            StatusItem::MailboxId => desk.put(format_args!("MAILBOXID (F{})", mailbox.id.0)),
        }
    }
    desk.put(format_args!(")\r\n"));
}
