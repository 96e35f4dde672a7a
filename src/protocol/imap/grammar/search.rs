//! Search programs (RFC 9051 `search-program`, RFC 3501, RFC 4731, RFC 5032, RFC 5182, RFC 7162).

use crate::mail::date::parse_imap_date;
use crate::mail::mailbox::ModSeq;
use crate::mail::message::SystemFlags;

use super::super::search::{SEARCH_DEPTH_MAX, SEARCH_KEYS_MAX, SearchKey, SearchProgram, SearchReturns};
use super::super::sequence::SequenceSet;
use super::super::token::{Cursor, Parsed, Refusal};
use super::flags;

/// `RETURN (...)`, `CHARSET`, and keys that must all hold.
pub(super) fn program(cursor: &mut Cursor) -> Parsed<SearchProgram> {
    let mut returns = None;
    if cursor.eat_word("RETURN") {
        cursor.space()?;
        returns = Some(search_returns(cursor)?);
        cursor.space()?;
    }
    if cursor.eat_word("CHARSET") {
        cursor.space()?;
        let charset = cursor.text()?;
        if !["UTF-8", "US-ASCII"].iter().any(|known| charset.eq_ignore_ascii_case(known)) {
            return Err(Refusal::No("[BADCHARSET (US-ASCII UTF-8)] that charset is not known here"));
        }
        cursor.space()?;
    }
    let mut keys = Keys { left: SEARCH_KEYS_MAX };
    let mut all = vec![keys.key(cursor, 0)?];
    while cursor.end().is_err() {
        cursor.space()?;
        all.push(keys.key(cursor, 0)?);
    }
    Ok(SearchProgram { returns, key: conjunction(all) })
}

/// The options of RETURN; none is ALL (RFC 4731 section 3.1).
fn search_returns(cursor: &mut Cursor) -> Parsed<SearchReturns> {
    let mut returns = SearchReturns::default();
    cursor.list(|cursor| {
        match cursor.word().as_str() {
            "MIN" => returns.min = true,
            "MAX" => returns.max = true,
            "ALL" => returns.all = true,
            "COUNT" => returns.count = true,
            "SAVE" => returns.save = true,
            "" => return Err(Refusal::Usage),
            _ => return Err(Refusal::Bad("unknown SEARCH return option")),
        }
        Ok(())
    })?;
    if returns == SearchReturns::default() {
        returns.all = true;
    }
    Ok(returns)
}

fn conjunction(mut keys: Vec<SearchKey>) -> SearchKey {
    match keys.pop() {
        Some(only) if keys.is_empty() => only,
        last => {
            keys.extend(last);
            SearchKey::And(keys)
        }
    }
}

/// Reads keys, and counts them down.
struct Keys {
    left: usize,
}

impl Keys {
    fn key(&mut self, cursor: &mut Cursor, depth: usize) -> Parsed<SearchKey> {
        self.left = self.left.checked_sub(1).ok_or(Refusal::Bad("the search has too many keys"))?;
        if depth > SEARCH_DEPTH_MAX {
            return Err(Refusal::Bad("the search is nested too deeply"));
        }
        match cursor.peek() {
            Some(b'(') => return self.group(cursor, depth),
            Some(b'0'..=b'9' | b'*' | b'$') => return SequenceSet::parse(cursor).map(SearchKey::Sequence),
            _ => {}
        }
        let flag = |flag| Ok(SearchKey::Flag(flag));
        let not = |key| Ok(SearchKey::Not(Box::new(key)));
        match cursor.word().as_str() {
            "ALL" => Ok(SearchKey::All),
            "ANSWERED" => flag(SystemFlags::ANSWERED),
            "DELETED" => flag(SystemFlags::DELETED),
            "DRAFT" => flag(SystemFlags::DRAFT),
            "FLAGGED" => flag(SystemFlags::FLAGGED),
            "SEEN" => flag(SystemFlags::SEEN),
            "UNANSWERED" => not(SearchKey::Flag(SystemFlags::ANSWERED)),
            "UNDELETED" => not(SearchKey::Flag(SystemFlags::DELETED)),
            "UNDRAFT" => not(SearchKey::Flag(SystemFlags::DRAFT)),
            "UNFLAGGED" => not(SearchKey::Flag(SystemFlags::FLAGGED)),
            "UNSEEN" => not(SearchKey::Flag(SystemFlags::SEEN)),
            "RECENT" => Ok(SearchKey::Recent),
            "OLD" => not(SearchKey::Recent),
            "NEW" => {
                let unseen = SearchKey::Not(Box::new(SearchKey::Flag(SystemFlags::SEEN)));
                Ok(SearchKey::And(vec![SearchKey::Recent, unseen]))
            }
            "KEYWORD" => keyword(cursor).map(SearchKey::Keyword),
            "UNKEYWORD" => not(SearchKey::Keyword(keyword(cursor)?)),
            "BEFORE" => date(cursor).map(SearchKey::Before),
            "ON" => date(cursor).map(SearchKey::On),
            "SINCE" => date(cursor).map(SearchKey::Since),
            "SENTBEFORE" => date(cursor).map(SearchKey::SentBefore),
            "SENTON" => date(cursor).map(SearchKey::SentOn),
            "SENTSINCE" => date(cursor).map(SearchKey::SentSince),
            "LARGER" => spaced(cursor, Cursor::number64).map(SearchKey::Larger),
            "SMALLER" => spaced(cursor, Cursor::number64).map(SearchKey::Smaller),
            name @ ("BCC" | "CC" | "FROM" | "SUBJECT" | "TO") => {
                Ok(SearchKey::Header(name.to_ascii_lowercase(), spaced(cursor, Cursor::text)?))
            }
            "HEADER" => {
                let field = spaced(cursor, Cursor::text)?.to_ascii_lowercase();
                Ok(SearchKey::Header(field, spaced(cursor, Cursor::text)?))
            }
            "BODY" => spaced(cursor, Cursor::text).map(SearchKey::Body),
            "TEXT" => spaced(cursor, Cursor::text).map(SearchKey::Text),
            "UID" => spaced(cursor, SequenceSet::parse).map(SearchKey::Uid),
            "MODSEQ" => modseq(cursor).map(SearchKey::ModSeq),
            "OLDER" => spaced(cursor, Cursor::nz_number).map(SearchKey::Older),
            "YOUNGER" => spaced(cursor, Cursor::nz_number).map(SearchKey::Younger),
            "NOT" => {
                cursor.space()?;
                not(self.key(cursor, depth + 1)?)
            }
            "OR" => {
                cursor.space()?;
                let left = self.key(cursor, depth + 1)?;
                cursor.space()?;
                // Clients write alternatives as OR a OR b OR c d: their number is no depth.
                let right = self.key(cursor, depth)?;
                Ok(SearchKey::Or(Box::new(left), Box::new(right)))
            }
            "" => Err(Refusal::Usage),
            _ => Err(Refusal::Bad("unknown search key")),
        }
    }

    /// `(key key ...)`
    fn group(&mut self, cursor: &mut Cursor, depth: usize) -> Parsed<SearchKey> {
        let mut all = Vec::new();
        cursor.list(|cursor| {
            all.push(self.key(cursor, depth + 1)?);
            Ok(())
        })?;
        if all.is_empty() { Err(Refusal::Usage) } else { Ok(conjunction(all)) }
    }
}

/// A space and what follows it.
fn spaced<'a, T>(cursor: &mut Cursor<'a>, read: impl FnOnce(&mut Cursor<'a>) -> Parsed<T>) -> Parsed<T> {
    cursor.space()?;
    read(cursor)
}

fn keyword(cursor: &mut Cursor) -> Parsed<crate::mail::message::Keyword> {
    spaced(cursor, flags::keyword)
}

/// A date with or without quotes, as days since 1970-01-01.
fn date(cursor: &mut Cursor) -> Parsed<i64> {
    let date = spaced(cursor, Cursor::text)?;
    parse_imap_date(&date).ok_or(Refusal::Bad("a date in SEARCH is not like 1-Feb-1994"))
}

/// `MODSEQ [entry-name SP entry-type SP] number`. A message has one modification sequence, so the
/// entry makes no difference (RFC 7162 section 3.1.5).
fn modseq(cursor: &mut Cursor) -> Parsed<ModSeq> {
    cursor.space()?;
    if cursor.peek() == Some(b'"') {
        cursor.quoted()?;
        cursor.space()?;
        if !matches!(cursor.word().as_str(), "ALL" | "PRIV" | "SHARED") {
            return Err(Refusal::Bad("MODSEQ's entry type is all, priv or shared"));
        }
        cursor.space()?;
    }
    cursor.number64().map(ModSeq)
}
