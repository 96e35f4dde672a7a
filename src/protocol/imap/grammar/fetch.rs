//! The items of FETCH (RFC 9051 `fetch-att`, RFC 3501 for the `RFC822` items, RFC 3516, RFC 7162).

use super::super::fetch::{FETCH_ITEMS_MAX, FetchItem, SectionItem, SectionKind};
use super::super::token::{Cursor, Parsed, Refusal};

/// One item, a list of items, or a macro.
pub(super) fn items(cursor: &mut Cursor) -> Parsed<Vec<FetchItem>> {
    let mut items = Vec::new();
    if cursor.peek() == Some(b'(') {
        cursor.list(|cursor| {
            if items.len() >= FETCH_ITEMS_MAX {
                return Err(Refusal::No("[LIMIT] too many FETCH items"));
            }
            items.push(item(cursor)?);
            Ok(())
        })?;
        return if items.is_empty() { Err(Refusal::Usage) } else { Ok(items) };
    }
    // Macros stand alone (RFC 9051 section 6.4.5).
    let fast = [FetchItem::Flags, FetchItem::InternalDate, FetchItem::Rfc822Size];
    if cursor.eat_word("ALL") {
        items.extend(fast);
        items.push(FetchItem::Envelope);
    } else if cursor.eat_word("FAST") {
        items.extend(fast);
    } else if cursor.eat_word("FULL") {
        items.extend(fast);
        items.extend([FetchItem::Envelope, FetchItem::Body]);
    } else {
        items.push(item(cursor)?);
    }
    Ok(items)
}

fn item(cursor: &mut Cursor) -> Parsed<FetchItem> {
    let word = cursor.word();
    if cursor.eat(b'[') {
        let item = match word.as_str() {
            "BODY" => body_section(cursor, false)?,
            "BODY.PEEK" => body_section(cursor, true)?,
            "BINARY" => binary_section(cursor, false, SectionKind::Binary)?,
            "BINARY.PEEK" => binary_section(cursor, true, SectionKind::Binary)?,
            "BINARY.SIZE" => binary_section(cursor, true, SectionKind::BinarySize)?,
            _ => return Err(Refusal::Bad("unknown FETCH item")),
        };
        return Ok(FetchItem::Section(item));
    }
    Ok(match word.as_str() {
        "UID" => FetchItem::Uid,
        "FLAGS" => FetchItem::Flags,
        "INTERNALDATE" => FetchItem::InternalDate,
        "RFC822.SIZE" => FetchItem::Rfc822Size,
        "ENVELOPE" => FetchItem::Envelope,
        "BODY" => FetchItem::Body,
        "BODYSTRUCTURE" => FetchItem::BodyStructure,
        "MODSEQ" => FetchItem::ModSeq,
        "RFC822" => FetchItem::Rfc822,
        "RFC822.HEADER" => FetchItem::Rfc822Header,
        "RFC822.TEXT" => FetchItem::Rfc822Text,
        "EMAILID" => FetchItem::EmailId,
        "THREADID" => FetchItem::ThreadId,
        "PREVIEW" => preview(cursor)?,
        "SAVEDATE" => FetchItem::SaveDate,
        "" => return Err(Refusal::Usage),
        _ => return Err(Refusal::Bad("unknown FETCH item")),
    })
}

/// Behind `PREVIEW`: maybe ` (LAZY)` (RFC 8970 section 3.1).
fn preview(cursor: &mut Cursor) -> Parsed<FetchItem> {
    let mut ahead = *cursor;
    if ahead.space().is_ok() && ahead.peek() == Some(b'(') {
        ahead.list(|cursor| match cursor.word().as_str() {
            "LAZY" => Ok(()),
            "" => Err(Refusal::Usage),
            _ => Err(Refusal::Bad("unknown PREVIEW modifier")),
        })?;
        *cursor = ahead;
    }
    Ok(FetchItem::Preview)
}

/// Behind `BODY[`: `section-spec`, `]`, `<origin.count>`.
fn body_section(cursor: &mut Cursor, peek: bool) -> Parsed<SectionItem> {
    let (path, kind) = section_spec(cursor)?;
    cursor.need(b']')?;
    Ok(SectionItem { peek, kind, path, partial: partial(cursor)? })
}

/// RFC 9051 `section-spec`: a path and what of the part.
pub(super) fn section_spec(cursor: &mut Cursor) -> Parsed<(Vec<u32>, SectionKind)> {
    let (path, text_follows) = part_numbers(cursor)?;
    let kind = match cursor.word().as_str() {
        "" if !text_follows => SectionKind::Body,
        "MIME" if !path.is_empty() => SectionKind::Mime,
        "HEADER" => SectionKind::Header,
        "HEADER.FIELDS" => SectionKind::HeaderFields(header_fields(cursor)?, false),
        "HEADER.FIELDS.NOT" => SectionKind::HeaderFields(header_fields(cursor)?, true),
        "TEXT" => SectionKind::Text,
        _ => return Err(Refusal::Bad("unknown section in FETCH")),
    };
    Ok((path, kind))
}

/// Behind `BINARY[` and the like: part numbers and `]`; a size has no range (RFC 3516 section 4.3).
fn binary_section(cursor: &mut Cursor, peek: bool, kind: SectionKind) -> Parsed<SectionItem> {
    let (path, text_follows) = part_numbers(cursor)?;
    if text_follows {
        return Err(Refusal::Bad("unknown section in FETCH"));
    }
    cursor.need(b']')?;
    let partial = if kind == SectionKind::Binary { partial(cursor)? } else { None };
    Ok(SectionItem { peek, kind, path, partial })
}

/// `1.2.3`, and whether a dot for a word follows.
fn part_numbers(cursor: &mut Cursor) -> Parsed<(Vec<u32>, bool)> {
    let is_digit = |cursor: &Cursor| cursor.peek().is_some_and(|byte| byte.is_ascii_digit());
    let mut path = Vec::new();
    while is_digit(cursor) {
        path.push(cursor.nz_number()?);
        if !cursor.eat(b'.') {
            return Ok((path, false));
        }
    }
    let text_follows = !path.is_empty();
    Ok((path, text_follows))
}

/// ` (name name ...)`; at least one.
fn header_fields(cursor: &mut Cursor) -> Parsed<Vec<String>> {
    let mut fields = Vec::new();
    cursor.space()?;
    cursor.list(|cursor| {
        fields.push(cursor.text()?);
        Ok(())
    })?;
    if fields.is_empty() { Err(Refusal::Bad("HEADER.FIELDS needs field names")) } else { Ok(fields) }
}

/// `<origin.count>`. What lies beyond 32 bits lies beyond every message.
fn partial(cursor: &mut Cursor) -> Parsed<Option<(u32, u32)>> {
    if !cursor.eat(b'<') {
        return Ok(None);
    }
    let origin = cursor.number64()?;
    cursor.need(b'.')?;
    let count = cursor.number64()?;
    cursor.need(b'>')?;
    if count == 0 {
        return Err(Refusal::Bad("a range in FETCH has at least one byte"));
    }
    let clamp = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(Some((clamp(origin), clamp(count))))
}
