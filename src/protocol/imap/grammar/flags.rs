//! Flags as clients name them in STORE and APPEND (RFC 9051 `flag-list`, `store-att-flags`).

use crate::mail::message::{FlagMode, FlagNames, KEYWORDS_MAX, Keyword, SystemFlags};

use super::super::token::{Cursor, Parsed, Refusal};

/// A parenthesised flag list.
pub(super) fn list(cursor: &mut Cursor) -> Parsed<FlagNames> {
    let mut flags = FlagNames::default();
    cursor.list(|cursor| flag(cursor, &mut flags))?;
    Ok(flags)
}

/// `FLAGS`, `+FLAGS` or `-FLAGS`, whether `.SILENT` follows, and the flags with or without parentheses.
pub(super) fn change(cursor: &mut Cursor) -> Parsed<(FlagMode, bool, FlagNames)> {
    let mode = match cursor.peek() {
        Some(b'+') => FlagMode::Add,
        Some(b'-') => FlagMode::Remove,
        _ => FlagMode::Replace,
    };
    if mode != FlagMode::Replace {
        let _sign = cursor.eat(b'+') || cursor.eat(b'-');
    }
    let silent = match cursor.word().as_str() {
        "FLAGS" => false,
        "FLAGS.SILENT" => true,
        _ => return Err(Refusal::Usage),
    };
    cursor.space()?;
    if cursor.peek() == Some(b'(') {
        return Ok((mode, silent, list(cursor)?));
    }
    let mut flags = FlagNames::default();
    flag(cursor, &mut flags)?;
    while cursor.end().is_err() {
        cursor.space()?;
        flag(cursor, &mut flags)?;
    }
    Ok((mode, silent, flags))
}

/// One flag. `\Recent` is passed over: clients that copy flags send it back, and nobody can set it
/// (RFC 3501 section 2.3.2).
fn flag(cursor: &mut Cursor, flags: &mut FlagNames) -> Parsed<()> {
    if cursor.eat(b'\\') {
        let system = match cursor.atom()?.to_ascii_uppercase().as_str() {
            "ANSWERED" => SystemFlags::ANSWERED,
            "FLAGGED" => SystemFlags::FLAGGED,
            "DELETED" => SystemFlags::DELETED,
            "SEEN" => SystemFlags::SEEN,
            "DRAFT" => SystemFlags::DRAFT,
            "RECENT" => SystemFlags::default(),
            _ => return Err(Refusal::Bad("unknown system flag")),
        };
        flags.system = flags.system.union(system);
        return Ok(());
    }
    let keyword = keyword(cursor)?;
    if !flags.keywords.contains(&keyword) {
        if flags.keywords.len() >= KEYWORDS_MAX {
            return Err(Refusal::No("[LIMIT] that is more keywords than a mailbox can have"));
        }
        flags.keywords.push(keyword);
    }
    Ok(())
}

/// A keyword.
pub(super) fn keyword(cursor: &mut Cursor) -> Parsed<Keyword> {
    Keyword::new(cursor.atom()?).ok_or(Refusal::No("[LIMIT] a keyword is too long"))
}
