//! Search programs (RFC 9051 `search-program`, RFC 3501, RFC 4731, RFC 5032, RFC 5182, RFC 7162).

use crate::mail::date::parse_imap_date;
use crate::mail::mailbox::ModSeq;
use crate::mail::message::{BlobId, SystemFlags};

use super::super::search::{
    Page, SEARCH_DEPTH_MAX, SEARCH_KEYS_MAX, SORT_KEYS_MAX, SearchKey, SearchProgram, SearchReturns, SortBy, SortKey,
    Threading,
};
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
        charset(cursor)?;
        cursor.space()?;
    }
    Ok(SearchProgram { returns, key: keys(cursor)? })
}

/// SORT: `RETURN (...)`, the criteria, the charset and the search keys (RFC 5256 section 3, RFC 5267).
pub(super) fn sort(cursor: &mut Cursor) -> Parsed<(Vec<SortKey>, SearchProgram)> {
    let mut returns = None;
    if cursor.eat_word("RETURN") {
        cursor.space()?;
        returns = Some(search_returns(cursor)?);
        cursor.space()?;
    }
    let mut order = Vec::new();
    let mut reverse = false;
    cursor.list(|cursor| {
        let by = match cursor.word().as_str() {
            "REVERSE" if !reverse => {
                reverse = true;
                return Ok(());
            }
            "ARRIVAL" => SortBy::Arrival,
            "CC" => SortBy::Cc,
            "DATE" => SortBy::Date,
            "DISPLAYFROM" => SortBy::DisplayFrom,
            "DISPLAYTO" => SortBy::DisplayTo,
            "FROM" => SortBy::From,
            "SIZE" => SortBy::Size,
            "SUBJECT" => SortBy::Subject,
            "TO" => SortBy::To,
            "" => return Err(Refusal::Usage),
            _ => return Err(Refusal::Bad("unknown SORT criterion")),
        };
        if order.len() >= SORT_KEYS_MAX {
            return Err(Refusal::No("[LIMIT] the SORT has too many criteria"));
        }
        order.push(SortKey { by, reverse: std::mem::take(&mut reverse) });
        Ok(())
    })?;
    if order.is_empty() || reverse {
        return Err(Refusal::Usage);
    }
    cursor.space()?;
    charset(cursor)?;
    cursor.space()?;
    Ok((order, SearchProgram { returns, key: keys(cursor)? }))
}

/// THREAD: the algorithm, the charset and the search keys (RFC 5256 section 3).
pub(super) fn thread(cursor: &mut Cursor) -> Parsed<(Threading, SearchProgram)> {
    let threading = match cursor.word().as_str() {
        "ORDEREDSUBJECT" => Threading::OrderedSubject,
        "REFERENCES" => Threading::References,
        "REFS" => Threading::Refs,
        "" => return Err(Refusal::Usage),
        _ => return Err(Refusal::Bad("THREAD knows ORDEREDSUBJECT, REFERENCES and REFS")),
    };
    cursor.space()?;
    charset(cursor)?;
    cursor.space()?;
    Ok((threading, SearchProgram { returns: None, key: keys(cursor)? }))
}

/// A charset, which must be one that is known.
fn charset(cursor: &mut Cursor) -> Parsed<()> {
    let charset = cursor.text()?;
    let known = ["UTF-8", "US-ASCII"].iter().any(|known| charset.eq_ignore_ascii_case(known));
    known.then_some(()).ok_or(Refusal::No("[BADCHARSET (US-ASCII UTF-8)] that charset is not known here"))
}

/// Keys that must all hold, up to the end.
fn keys(cursor: &mut Cursor) -> Parsed<SearchKey> {
    let mut keys = Keys { left: SEARCH_KEYS_MAX };
    let mut all = vec![keys.key(cursor, 0)?];
    while cursor.end().is_err() {
        cursor.space()?;
        all.push(keys.key(cursor, 0)?);
    }
    Ok(conjunction(all))
}

/// `1:100` or `-1:-100` (RFC 9394).
pub(super) fn page(cursor: &mut Cursor) -> Parsed<Page> {
    let backwards = cursor.eat(b'-');
    let from = cursor.nz_number()?;
    cursor.need(b':')?;
    if cursor.eat(b'-') != backwards {
        return Err(Refusal::Bad("both ends of PARTIAL are counted from the same side"));
    }
    Ok(Page { from, to: cursor.nz_number()?, backwards })
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
            "UPDATE" => returns.update = true,
            // A hint (RFC 5267 section 4.2): all searches are as quick as they can be.
            "CONTEXT" => {}
            "PARTIAL" => {
                cursor.space()?;
                returns.partial = Some(page(cursor)?);
            }
            "" => return Err(Refusal::Usage),
            _ => return Err(Refusal::Bad("unknown SEARCH return option")),
        }
        Ok(())
    })?;
    if returns.all && returns.partial.is_some() {
        return Err(Refusal::Bad("[CLIENTBUG] ALL and PARTIAL exclude one another"));
    }
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
        self.left = self.left.checked_sub(1).ok_or(Refusal::No("[LIMIT] the search has too many keys"))?;
        if depth > SEARCH_DEPTH_MAX {
            return Err(Refusal::No("[LIMIT] the search is nested too deeply"));
        }
        match cursor.peek() {
            Some(b'(') => return self.group(cursor, depth),
            Some(b'0'..=b'9' | b'*' | b'$') => return SequenceSet::parse(cursor).map(SearchKey::Sequence),
            _ => {}
        }
        let flag = |flag| Ok(SearchKey::Flag(flag));
        let not = |key| Ok(SearchKey::Not(Box::new(key)));
        match cursor.word().as_str() {
            // Every mailbox keeps the date a message was saved (RFC 8514 section 4.3).
            "ALL" | "SAVEDATESUPPORTED" => Ok(SearchKey::All),
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
            "SAVEDBEFORE" => date(cursor).map(SearchKey::SavedBefore),
            "SAVEDON" => date(cursor).map(SearchKey::SavedOn),
            "SAVEDSINCE" => date(cursor).map(SearchKey::SavedSince),
            "EMAILID" => spaced(cursor, Cursor::atom).map(|id| SearchKey::EmailId(email_id(id))),
            // No message has one, so none has this one (RFC 8474 section 5.2).
            "THREADID" => spaced(cursor, Cursor::atom).and_then(|_| not(SearchKey::All)),
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

/// `M` and the number of a body, as FETCH tells it.
fn email_id(id: &str) -> Option<BlobId> {
    let digits = id.strip_prefix('M').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().map(BlobId)
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
