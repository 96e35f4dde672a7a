//! GETMETADATA and SETMETADATA (RFC 5464 section 5, with the errata that put the options before the
//! mailbox).

use crate::mail::annotation::{ANNOTATION_MAX, EntryName};
use crate::mail::mailbox::MailboxName;

use super::super::command::Command;
use super::super::metadata::{Depth, ENTRIES_MAX, MetadataQuery};
use super::super::name;
use super::super::token::{Cursor, Parsed, Refusal};
use super::Grammar;

// The number in the text is `ANNOTATION_MAX`.
const TOO_LARGE: Refusal = Refusal::No("[METADATA MAXSIZE 4096] a value has at most 4096 bytes");
const _: () = assert!(ANNOTATION_MAX == 4096);

impl Grammar<'_> {
    pub(super) fn get_metadata(&mut self) -> Parsed<Command> {
        let mut query = MetadataQuery::default();
        let mut ahead = self.cursor;
        ahead.space()?;
        if ahead.peek() == Some(b'(') {
            ahead.list(|cursor| option(cursor, &mut query))?;
            if (query.depth, query.max_size) == (Depth::Alone, None) && !has_option(self.cursor) {
                return Err(Refusal::Usage);
            }
            self.cursor = ahead;
        }
        let mailbox = self.annotated()?;
        self.cursor.space()?;
        query.entries = entries(&mut self.cursor)?;
        Ok(Command::GetMetadata { mailbox, query })
    }

    pub(super) fn set_metadata(&mut self) -> Parsed<Command> {
        let mailbox = self.annotated()?;
        self.cursor.space()?;
        let mut changes: Vec<(EntryName, Option<Vec<u8>>)> = Vec::new();
        let mut too_large = false;
        self.cursor.list(|cursor| {
            let name = entry(cursor)?;
            if name.is_scope() {
                return Err(Refusal::Bad("/private and /shared have no value of their own"));
            }
            cursor.space()?;
            let value = if cursor.eat_word("NIL") { None } else { Some(cursor.string()?.into_owned()) };
            too_large |= value.as_ref().is_some_and(|value| value.len() > ANNOTATION_MAX);
            if changes.len() >= ENTRIES_MAX {
                return Err(Refusal::No("[LIMIT] the command names too many entries"));
            }
            changes.retain(|(known, _)| *known != name);
            changes.push((name, value));
            Ok(())
        })?;
        match (changes.is_empty(), too_large) {
            (true, _) => Err(Refusal::Usage),
            (_, true) => Err(TOO_LARGE),
            _ => Ok(Command::SetMetadata { mailbox, changes }),
        }
    }

    /// A space and a mailbox; `""` is none: what is asked or said is about the account.
    fn annotated(&mut self) -> Parsed<Option<MailboxName>> {
        let mut ahead = self.cursor;
        ahead.space()?;
        let spelled = ahead.astring()?;
        let name = name::decode(&spelled, self.utf8).ok_or(Refusal::Bad("a mailbox name is not UTF-8"))?;
        self.cursor = ahead;
        if name.is_empty() {
            return Ok(None);
        }
        let no_such = Refusal::No("[NONEXISTENT] no mailbox has such a name");
        MailboxName::new(&name).map(Some).ok_or(no_such)
    }
}

/// Tells whether the list ahead holds anything: `(DEPTH 0)` asks for what is asked without it.
fn has_option(mut cursor: Cursor) -> bool {
    cursor.space().is_ok() && cursor.eat(b'(') && cursor.peek() != Some(b')')
}

fn option(cursor: &mut Cursor, query: &mut MetadataQuery) -> Parsed<()> {
    match cursor.word().as_str() {
        "MAXSIZE" => {
            cursor.space()?;
            query.max_size = Some(cursor.number()?);
        }
        "DEPTH" => {
            cursor.space()?;
            query.depth = match cursor.word().as_str() {
                "0" => Depth::Alone,
                "1" => Depth::Next,
                "INFINITY" => Depth::All,
                _ => return Err(Refusal::Bad("DEPTH is 0, 1 or infinity")),
            };
        }
        "" => return Err(Refusal::Usage),
        _ => return Err(Refusal::Bad("unknown GETMETADATA option")),
    }
    Ok(())
}

/// One entry, or several in parentheses; each counts once.
pub(super) fn entries(cursor: &mut Cursor) -> Parsed<Vec<EntryName>> {
    if cursor.peek() != Some(b'(') {
        return Ok(vec![entry(cursor)?]);
    }
    let mut entries = Vec::new();
    cursor.list(|cursor| {
        let name = entry(cursor)?;
        if entries.len() >= ENTRIES_MAX {
            return Err(Refusal::No("[LIMIT] the command names too many entries"));
        }
        if !entries.contains(&name) {
            entries.push(name);
        }
        Ok(())
    })?;
    if entries.is_empty() { Err(Refusal::Usage) } else { Ok(entries) }
}

fn entry(cursor: &mut Cursor) -> Parsed<EntryName> {
    let name = cursor.text()?;
    EntryName::new(&name).ok_or(Refusal::Bad("an entry is a path below /private or /shared"))
}
