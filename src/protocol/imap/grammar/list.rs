//! LIST in all its forms, LSUB and the items of STATUS (RFC 9051 sections 6.3.9 and 6.3.11,
//! RFC 5258, RFC 5819, RFC 6154).

use super::super::command::{Command, ListCommand, StatusItem};
use super::super::name;
use super::super::token::{Cursor, Parsed, Refusal};
use super::{Grammar, metadata};

/// Most patterns in one LIST; each is matched against each mailbox.
const PATTERNS_MAX: usize = 64;

impl Grammar<'_> {
    /// LIST. Each of the three places where a parenthesis or a further word may stand makes it
    /// an extended one (RFC 5258 section 3).
    pub(super) fn list(&mut self) -> Parsed<ListCommand> {
        let mut list = ListCommand::default();
        self.cursor.space()?;
        if self.cursor.peek() == Some(b'(') {
            list.extended = true;
            self.cursor.list(|cursor| selection(cursor, &mut list))?;
            if list.select_recursive_match && !list.select_subscribed && !list.select_special_use {
                return Err(Refusal::Bad("RECURSIVEMATCH needs another selection option"));
            }
            self.cursor.space()?;
        }
        list.reference = decoded(&self.cursor.astring()?, self.utf8)?;
        self.cursor.space()?;
        if self.cursor.peek() == Some(b'(') {
            list.extended = true;
            let utf8 = self.utf8;
            self.cursor.list(|cursor| {
                if list.patterns.len() >= PATTERNS_MAX {
                    return Err(Refusal::No("[LIMIT] too many patterns"));
                }
                list.patterns.push(decoded(&cursor.list_mailbox()?, utf8)?);
                Ok(())
            })?;
            if list.patterns.is_empty() {
                return Err(Refusal::Usage);
            }
        } else {
            list.patterns.push(decoded(&self.cursor.list_mailbox()?, self.utf8)?);
        }
        if self.cursor.end().is_err() {
            self.cursor.space()?;
            if !self.cursor.eat_word("RETURN") {
                return Err(Refusal::Usage);
            }
            list.extended = true;
            self.cursor.space()?;
            self.cursor.list(|cursor| returned(cursor, &mut list))?;
        }
        Ok(list)
    }

    /// LSUB (RFC 3501 section 6.3.9).
    pub(super) fn lsub(&mut self) -> Parsed<Command> {
        self.cursor.space()?;
        let reference = decoded(&self.cursor.astring()?, self.utf8)?;
        self.cursor.space()?;
        Ok(Command::Lsub { reference, pattern: decoded(&self.cursor.list_mailbox()?, self.utf8)? })
    }
}

/// Undoes modified UTF-7 in a text spelled like a mailbox name.
fn decoded(spelled: &[u8], utf8: bool) -> Parsed<String> {
    name::decode(spelled, utf8).ok_or(Refusal::Bad("a mailbox name is not UTF-8"))
}

/// One selection option (RFC 5258 section 3.1).
fn selection(cursor: &mut Cursor, list: &mut ListCommand) -> Parsed<()> {
    match cursor.word().as_str() {
        "SUBSCRIBED" => list.select_subscribed = true,
        "REMOTE" => list.select_remote = true,
        "RECURSIVEMATCH" => list.select_recursive_match = true,
        "SPECIAL-USE" => list.select_special_use = true,
        "" => return Err(Refusal::Usage),
        _ => return Err(Refusal::Bad("unknown LIST selection option")),
    }
    Ok(())
}

/// One return option (RFC 5258 section 3.2, RFC 5819, RFC 6154, RFC 9590).
fn returned(cursor: &mut Cursor, list: &mut ListCommand) -> Parsed<()> {
    match cursor.word().as_str() {
        "SUBSCRIBED" => list.return_subscribed = true,
        "CHILDREN" => list.return_children = true,
        "SPECIAL-USE" => list.return_special_use = true,
        "MYRIGHTS" => list.return_my_rights = true,
        "STATUS" => {
            cursor.space()?;
            list.return_status = status_items(cursor)?;
        }
        "METADATA" => {
            cursor.space()?;
            list.return_metadata = metadata::entries(cursor)?;
        }
        "" => return Err(Refusal::Usage),
        _ => return Err(Refusal::Bad("unknown LIST return option")),
    }
    Ok(())
}

/// The parenthesised items of STATUS; each counts once.
pub(super) fn status_items(cursor: &mut Cursor) -> Parsed<Vec<StatusItem>> {
    let mut items = Vec::new();
    cursor.list(|cursor| {
        let item = match cursor.word().as_str() {
            "MESSAGES" => StatusItem::Messages,
            "RECENT" => StatusItem::Recent,
            "UIDNEXT" => StatusItem::UidNext,
            "UIDVALIDITY" => StatusItem::UidValidity,
            "UNSEEN" => StatusItem::Unseen,
            "DELETED" => StatusItem::Deleted,
            "SIZE" => StatusItem::Size,
            "HIGHESTMODSEQ" => StatusItem::HighestModSeq,
            "APPENDLIMIT" => StatusItem::AppendLimit,
            "DELETED-STORAGE" => StatusItem::DeletedStorage,
            "MAILBOXID" => StatusItem::MailboxId,
            "" => return Err(Refusal::Usage),
            _ => return Err(Refusal::Bad("unknown STATUS item")),
        };
        if !items.contains(&item) {
            items.push(item);
        }
        Ok(())
    })?;
    if items.is_empty() { Err(Refusal::Usage) } else { Ok(items) }
}
