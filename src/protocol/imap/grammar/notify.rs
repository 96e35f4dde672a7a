//! NOTIFY (RFC 5465 section 8).

use super::super::command::Command;
use super::super::fetch::{FetchItem, SectionKind};
use super::super::filter::{FILTER_NAMES_MAX, MailboxFilter};
use super::super::notify::{Events, Group, NotifyProgram, SelectedWatch};
use super::super::token::{Cursor, Parsed, Refusal};
use super::{Grammar, fetch, filter};

/// The events of [`super::super::notify::EVENTS`].
const BAD_EVENT: Refusal = Refusal::No(
    "[BADEVENT (MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange)] there is no such event here",
);

/// What stands in one list of events.
#[derive(Default)]
struct Listed {
    new: bool,
    expunge: bool,
    flags: bool,
    names: bool,
    subscriptions: bool,
    unknown: bool,
    fetch: Option<Vec<FetchItem>>,
}

impl Grammar<'_> {
    pub(super) fn notify(&mut self) -> Parsed<Command> {
        self.cursor.space()?;
        match self.cursor.word().as_str() {
            "NONE" => return Ok(Command::Notify(None)),
            "SET" => {}
            _ => return Err(Refusal::Usage),
        }
        self.cursor.space()?;
        let mut program = NotifyProgram::default();
        if self.cursor.eat_word("STATUS") {
            program.status = true;
            self.cursor.space()?;
        }
        let (mut left, mut about_selected, mut unknown) = (FILTER_NAMES_MAX, false, false);
        loop {
            self.cursor.need(b'(')?;
            let filter = filter::filter(&mut self.cursor, self.utf8, &mut left)?;
            self.cursor.space()?;
            let events = events(&mut self.cursor)?;
            self.cursor.need(b')')?;
            unknown |= events.as_ref().is_some_and(|events| events.unknown);
            if let MailboxFilter::Selected { delayed } = filter {
                if std::mem::replace(&mut about_selected, true) {
                    return Err(Refusal::Bad("SELECTED or SELECTED-DELAYED stands once"));
                }
                program.selected = selected(events, delayed)?;
            } else {
                program.groups.push(Group { filter, events: events.as_ref().map(others).transpose()? });
            }
            if self.cursor.end().is_ok() {
                break;
            }
            self.cursor.space()?;
        }
        if unknown { Err(BAD_EVENT) } else { Ok(Command::Notify(Some(program))) }
    }
}

/// `NONE`, or a list that is not empty.
fn events(cursor: &mut Cursor) -> Parsed<Option<Listed>> {
    if cursor.eat_word("NONE") {
        return Ok(None);
    }
    let mut listed = Listed::default();
    let (mut any, mut after_new) = (false, false);
    cursor.list(|cursor| {
        any = true;
        if cursor.peek() == Some(b'(') && after_new {
            after_new = false;
            listed.fetch = Some(fetch::items(cursor)?);
            return Ok(());
        }
        let event = cursor.word();
        after_new = event == "MESSAGENEW";
        match event.as_str() {
            "MESSAGENEW" => listed.new = true,
            "MESSAGEEXPUNGE" => listed.expunge = true,
            "FLAGCHANGE" => listed.flags = true,
            "MAILBOXNAME" => listed.names = true,
            "SUBSCRIPTIONCHANGE" => listed.subscriptions = true,
            "" => return Err(Refusal::Usage),
            _ => listed.unknown = true,
        }
        Ok(())
    })?;
    if !any {
        return Err(Refusal::Usage);
    }
    if listed.new != listed.expunge || (listed.flags && !listed.new) {
        return Err(Refusal::Bad("MessageNew and MessageExpunge go together, and FlagChange with both"));
    }
    Ok(Some(listed))
}

fn selected(events: Option<Listed>, delayed: bool) -> Parsed<Option<SelectedWatch>> {
    let Some(events) = events else { return Ok(None) };
    if events.names || events.subscriptions {
        return Err(Refusal::Bad("of the selected mailbox its messages are told"));
    }
    let mut fetch = events.fetch.unwrap_or_default();
    for item in &mut fetch {
        match item {
            // To be told of a message is not to read it.
            FetchItem::Section(section) if section.kind != SectionKind::BinarySize => section.peek = true,
            FetchItem::Rfc822 | FetchItem::Rfc822Text => {
                return Err(Refusal::Bad("NOTIFY fetches BODY.PEEK[], not RFC822"));
            }
            _ => {}
        }
    }
    Ok(events.new.then_some(SelectedWatch { delayed, flags: events.flags, fetch }))
}

fn others(events: &Listed) -> Parsed<Events> {
    if events.fetch.is_some() {
        return Err(Refusal::Bad("messages are fetched from the selected mailbox alone"));
    }
    let Listed { new: messages, flags, names, subscriptions, .. } = *events;
    Ok(Events { messages, flags, names, subscriptions })
}
