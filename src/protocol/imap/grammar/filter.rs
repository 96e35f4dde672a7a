//! Specifiers of mailboxes, and ESEARCH with its sources (RFC 5465 section 8, RFC 7377 section 2.2).

use crate::mail::mailbox::MailboxName;

use super::super::command::Command;
use super::super::filter::{FILTER_NAMES_MAX, MailboxFilter};
use super::super::name;
use super::super::token::{Cursor, Parsed, Refusal};
use super::{Grammar, search};

impl Grammar<'_> {
    /// ESEARCH (RFC 7377): without sources it is about the selected mailbox.
    pub(super) fn esearch(&mut self) -> Parsed<Command> {
        self.cursor.space()?;
        let mut sources = Vec::new();
        if self.cursor.eat_word("IN") {
            self.cursor.space()?;
            let (utf8, mut left) = (self.utf8, FILTER_NAMES_MAX);
            self.cursor.list(|cursor| {
                let source = filter(cursor, utf8, &mut left)?;
                if source == (MailboxFilter::Selected { delayed: true }) {
                    return Err(Refusal::Bad("ESEARCH looks through SELECTED, not SELECTED-DELAYED"));
                }
                sources.push(source);
                Ok(())
            })?;
            if sources.is_empty() {
                return Err(Refusal::Usage);
            }
            self.cursor.space()?;
        } else {
            sources.push(MailboxFilter::Selected { delayed: false });
        }
        Ok(Command::Esearch { sources, program: search::program(&mut self.cursor)? })
    }
}

/// One specifier; each, and each name in it, counts `left` down.
pub(super) fn filter(cursor: &mut Cursor, utf8: bool, left: &mut usize) -> Parsed<MailboxFilter> {
    count(left)?;
    Ok(match cursor.word().as_str() {
        "SELECTED" => MailboxFilter::Selected { delayed: false },
        "SELECTED-DELAYED" => MailboxFilter::Selected { delayed: true },
        "INBOXES" => MailboxFilter::Inboxes,
        "PERSONAL" => MailboxFilter::Personal,
        "SUBSCRIBED" => MailboxFilter::Subscribed,
        "SUBTREE" => MailboxFilter::Subtree(names(cursor, utf8, left)?),
        "SUBTREE-ONE" => MailboxFilter::SubtreeOne(names(cursor, utf8, left)?),
        "MAILBOXES" => MailboxFilter::Mailboxes(names(cursor, utf8, left)?),
        "" => return Err(Refusal::Usage),
        _ => return Err(Refusal::Bad("unknown specifier of mailboxes")),
    })
}

/// A space and one name or several in parentheses.
fn names(cursor: &mut Cursor, utf8: bool, left: &mut usize) -> Parsed<Vec<MailboxName>> {
    cursor.space()?;
    let mut names = Vec::new();
    let mut one = |cursor: &mut Cursor| {
        count(left)?;
        let spelled = cursor.astring()?;
        let name = name::decode(&spelled, utf8).ok_or(Refusal::Bad("a mailbox name is not UTF-8"))?;
        // Mailboxes that are not there are passed over (RFC 5465 section 3.1).
        names.extend(MailboxName::new(&name));
        Ok(true)
    };
    let mut any = false;
    if cursor.peek() == Some(b'(') {
        cursor.list(|cursor| {
            any |= one(cursor)?;
            Ok(())
        })?;
    } else {
        any = one(cursor)?;
    }
    if any { Ok(names) } else { Err(Refusal::Usage) }
}

fn count(left: &mut usize) -> Parsed<()> {
    *left = left.checked_sub(1).ok_or(Refusal::No("[LIMIT] the command names too many mailboxes"))?;
    Ok(())
}
