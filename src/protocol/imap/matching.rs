//! Whether a message is what SEARCH asks for (RFC 9051 section 6.4.4).
//!
//! A [`Query`] is made once for a search and asked about each message. It looks first at the
//! message's small record, then asks whether the message surely lacks a text, then looks at what the
//! part walker kept of its header, then reads the header, and only then its text: at each step it stops as soon as the answer is certain, whatever is not
//! known yet. So a search by flags and dates opens no message, and one by sender opens no body.

use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::header::FieldReader;
use crate::mail::mailbox::ModSeq;
use crate::mail::message::{BlobId, Keywords, Message, SystemFlags, UidSet};
use crate::mail::structure::{Extent, Field, Section, Structure};
use crate::mail::text::{Finder, PartReader, decode_field, decode_words, field_text, places_of};

use super::search::SearchKey;

/// Most texts of a search that a source is asked about before it has to read.
const LOOKS_MAX: usize = 16;

/// Where messages are read from.
pub trait Source {
    /// Why reading failed.
    type Error;

    /// What the part walker found in a message; `None` when the message has gone.
    fn structure(&mut self, message: &Message) -> Result<Option<Structure>, Self::Error>;

    /// Tells whether a message surely does not hold the text with this number of [`Query::looks`],
    /// neither in its headers nor in its parts. A source that can't tell says no.
    fn lacks(&mut self, _message: &Message, _look: usize) -> Result<bool, Self::Error> {
        Ok(false)
    }

    /// Hands the bytes of `extent` to `take`, in order and cut anywhere, until there are no more or
    /// `take` says false.
    fn read(
        &mut self,
        message: &Message,
        extent: Extent,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), Self::Error>;
}

/// What a search depends on beside its keys.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'s> {
    /// The mailbox's keywords.
    pub keywords: &'s Keywords,
    /// Messages that are `\Recent` to the session.
    pub recent: &'s UidSet,
    /// The present, for OLDER and YOUNGER.
    pub now: Timestamp,
}

/// A search, ready to be asked about messages of one mailbox.
#[derive(Debug)]
pub struct Query {
    root: Node,
    headers: Vec<HeaderTest>,
    texts: Vec<TextTest>,
    /// The places of the grams of texts that are looked for.
    looks: Vec<Vec<u16>>,
}

/// Keys as alternatives and conjunctions; chains of OR are one node.
#[derive(Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Is(Test),
}

#[derive(Debug)]
enum Test {
    Always(bool),
    Flag(SystemFlags),
    Keyword(u64),
    Uids(UidSet),
    ModSeq(ModSeq),
    Larger(u64),
    Smaller(u64),
    /// The internal date's day, its time and zone disregarded.
    Day(Order, i64),
    /// The internal date is no later.
    NoLater(Timestamp),
    /// The internal date is no earlier.
    NoEarlier(Timestamp),
    /// The Date field's day.
    Sent(Order, i64),
    /// The day it was put into the mailbox, in UTC.
    Saved(Order, i64),
    /// The body.
    Body(BlobId),
    /// By index in `Query::headers`.
    Header(usize),
    /// By index in `Query::texts`.
    Text(usize),
}

#[derive(Clone, Copy, Debug)]
enum Order {
    Before,
    On,
    Since,
}

impl Order {
    fn holds(self, day: i64, bound: i64) -> bool {
        match self {
            Self::Before => day < bound,
            Self::On => day == bound,
            Self::Since => day >= bound,
        }
    }
}

#[derive(Debug)]
struct HeaderTest {
    /// In lower case.
    name: String,
    /// The field, where the part walker keeps it.
    known: Option<Field>,
    finder: Finder,
    /// By index in `Query::looks`.
    look: Option<usize>,
}

#[derive(Debug)]
struct TextTest {
    /// Headers count too: TEXT, not BODY.
    headers: bool,
    finder: Finder,
    /// By index in `Query::looks`.
    look: Option<usize>,
}

/// What is known of a message.
#[derive(Debug)]
struct Facts<'m> {
    message: &'m Message,
    /// Day of the Date field, or what stands for it.
    sent: Option<i64>,
    headers: Vec<Option<bool>>,
    texts: Vec<Option<bool>>,
}

/// What is still to be found out.
#[derive(Debug, Default)]
struct Unknown {
    sent: bool,
    headers: Vec<usize>,
    texts: Vec<usize>,
}

impl Query {
    /// Prepares a search. A sequence set that was not resolved counts as uids, `*` and `$` as none.
    #[must_use]
    pub fn new(key: &SearchKey, setting: Setting<'_>) -> Self {
        let mut query =
            Self { root: Node::Is(Test::Always(false)), headers: Vec::new(), texts: Vec::new(), looks: Vec::new() };
        query.root = query.node(key, setting);
        query
    }

    /// The texts that [`Source::lacks`] is asked about, each as the places of its grams.
    #[must_use]
    pub fn looks(&self) -> &[Vec<u16>] {
        &self.looks
    }

    /// The uids a message must have to be found, where the search says so at its top: all others
    /// need not be asked about.
    #[must_use]
    pub fn only(&self) -> Option<&UidSet> {
        let uids = |node| if let &Node::Is(Test::Uids(ref uids)) = node { Some(uids) } else { None };
        match &self.root {
            Node::All(all) => all.iter().filter_map(uids).min_by_key(|uids| uids.count()),
            node => uids(node),
        }
    }

    /// Tells whether `message` is what was asked for.
    ///
    /// # Errors
    /// Those of `source`.
    pub fn matches<S: Source>(&self, message: &Message, source: &mut S) -> Result<bool, S::Error> {
        let mut facts = Facts { message, sent: None, headers: Vec::new(), texts: Vec::new() };
        if let Some(certain) = self.root.holds(&facts) {
            return Ok(certain);
        }
        facts.headers = vec![None; self.headers.len()];
        facts.texts = vec![None; self.texts.len()];
        if !self.looks.is_empty() {
            self.ask_what_it_lacks(&mut facts, source)?;
            if let Some(certain) = self.root.holds(&facts) {
                return Ok(certain);
            }
        }
        let Some(structure) = source.structure(message)? else { return Ok(false) };
        self.look_at_kept_fields(&structure, &mut facts);
        if let Some(certain) = self.root.holds(&facts) {
            return Ok(certain);
        }
        self.read_header(&structure, &mut facts, source)?;
        if let Some(certain) = self.root.holds(&facts) {
            return Ok(certain);
        }
        self.read_texts(&structure, &mut facts, source)?;
        Ok(self.root.holds(&facts).unwrap_or(false))
    }

    fn node(&mut self, key: &SearchKey, setting: Setting<'_>) -> Node {
        let by_arrival = |order, day: &i64| Test::Day(order, *day);
        let by_date_field = |order, day: &i64| Test::Sent(order, *day);
        let before = |secs: &u32| Timestamp(setting.now.0.saturating_sub(i64::from(*secs)));
        Node::Is(match key {
            SearchKey::And(keys) => return Node::All(keys.iter().map(|key| self.node(key, setting)).collect()),
            SearchKey::Or(left, right) => {
                let mut any = vec![self.node(left, setting)];
                let mut right = right;
                while let SearchKey::Or(next, rest) = right.as_ref() {
                    any.push(self.node(next, setting));
                    right = rest;
                }
                any.push(self.node(right, setting));
                return Node::Any(any);
            }
            SearchKey::Not(key) => return Node::Not(Box::new(self.node(key, setting))),
            SearchKey::All => Test::Always(true),
            SearchKey::Flag(flag) => Test::Flag(*flag),
            SearchKey::Recent => Test::Uids(setting.recent.clone()),
            SearchKey::Keyword(keyword) => setting.keywords.bit(keyword).map_or(Test::Always(false), Test::Keyword),
            SearchKey::Before(bound) => by_arrival(Order::Before, bound),
            SearchKey::On(bound) => by_arrival(Order::On, bound),
            SearchKey::Since(bound) => by_arrival(Order::Since, bound),
            SearchKey::SentBefore(bound) => by_date_field(Order::Before, bound),
            SearchKey::SentOn(bound) => by_date_field(Order::On, bound),
            SearchKey::SentSince(bound) => by_date_field(Order::Since, bound),
            SearchKey::Larger(size) => Test::Larger(*size),
            SearchKey::Smaller(size) => Test::Smaller(*size),
            SearchKey::Header(name, needle) => {
                let name = name.to_ascii_lowercase();
                let known = Field::named(&name);
                // A field that the walker keeps is told sooner by its record.
                let look = if known.is_none() { self.look(needle) } else { None };
                self.headers.push(HeaderTest { name, known, finder: Finder::new(needle), look });
                Test::Header(self.headers.len() - 1)
            }
            SearchKey::Body(needle) => self.text(needle, false),
            SearchKey::Text(needle) => self.text(needle, true),
            SearchKey::Uids(uids) => Test::Uids(uids.clone()),
            SearchKey::Uid(set) | SearchKey::Sequence(set) => Test::Uids(set.uids(None, &UidSet::new())),
            SearchKey::ModSeq(modseq) => Test::ModSeq(*modseq),
            SearchKey::Older(secs) => Test::NoLater(before(secs)),
            SearchKey::Younger(secs) => Test::NoEarlier(before(secs)),
            SearchKey::SavedBefore(bound) => Test::Saved(Order::Before, *bound),
            SearchKey::SavedOn(bound) => Test::Saved(Order::On, *bound),
            SearchKey::SavedSince(bound) => Test::Saved(Order::Since, *bound),
            SearchKey::EmailId(id) => id.map_or(Test::Always(false), Test::Body),
        })
    }

    fn text(&mut self, needle: &str, headers: bool) -> Test {
        // The empty text is in every message (RFC 9051 section 6.4.4).
        if needle.is_empty() {
            return Test::Always(true);
        }
        let look = self.look(needle);
        self.texts.push(TextTest { headers, finder: Finder::new(needle), look });
        Test::Text(self.texts.len() - 1)
    }

    /// Counts a text among the looks; `None` where it is too short or there are enough.
    fn look(&mut self, needle: &str) -> Option<usize> {
        let places = Some(places_of(needle)).filter(|places| !places.is_empty() && self.looks.len() < LOOKS_MAX)?;
        self.looks.push(places);
        Some(self.looks.len() - 1)
    }

    /// Asks which of the unknown texts the message surely does not hold.
    fn ask_what_it_lacks<S: Source>(&self, facts: &mut Facts<'_>, source: &mut S) -> Result<(), S::Error> {
        let unknown = self.unknown(facts);
        for index in unknown.texts {
            let look = self.texts.get(index).and_then(|test| test.look);
            if let (Some(look), Some(fact)) = (look, facts.texts.get_mut(index)) {
                *fact = source.lacks(facts.message, look)?.then_some(false);
            }
        }
        for index in unknown.headers {
            let look = self.headers.get(index).and_then(|test| test.look);
            if let (Some(look), Some(fact)) = (look, facts.headers.get_mut(index)) {
                *fact = source.lacks(facts.message, look)?.then_some(false);
            }
        }
        Ok(())
    }

    fn unknown(&self, facts: &Facts<'_>) -> Unknown {
        let mut unknown = Unknown::default();
        self.root.gather_unknown(facts, &mut unknown);
        unknown
    }

    /// Answers what the fields that were kept at delivery can answer.
    fn look_at_kept_fields(&self, structure: &Structure, facts: &mut Facts<'_>) {
        let unknown = self.unknown(facts);
        let whole = structure.fields_are_whole();
        if unknown.sent {
            let date = structure.field(Field::Date);
            facts.sent = (date.is_some() || whole).then(|| sent_day(date, facts.message));
        }
        for index in unknown.headers {
            let Some(test) = self.headers.get(index) else { continue };
            let Some(known) = test.known else { continue };
            let found = structure.field(known).is_some_and(|text| {
                let mut finder = test.finder.clone();
                finder.feed(&decode_words(text));
                finder.found()
            });
            // What was left out of the record may hold what the record does not.
            if let Some(fact) = facts.headers.get_mut(index).filter(|_| found || whole) {
                *fact = Some(found);
            }
        }
    }

    /// Reads the message's own header for what the record does not tell.
    fn read_header<S: Source>(
        &self,
        structure: &Structure,
        facts: &mut Facts<'_>,
        source: &mut S,
    ) -> Result<(), S::Error> {
        let unknown = self.unknown(facts);
        if !unknown.sent && unknown.headers.is_empty() {
            return Ok(());
        }
        let tests = unknown.headers.iter().filter_map(|index| Some((*index, self.headers.get(*index)?)));
        let looks = tests.map(|(index, test)| HeaderLook {
            index,
            name: &test.name,
            finder: test.finder.clone(),
            found: false,
        });
        let mut search = HeaderSearch { looks: looks.collect(), wants_date: unknown.sent, date: None };
        if let Some(extent) = structure.extent(&[], Section::Header) {
            let mut reader = FieldReader::new();
            source.read(facts.message, extent, &mut |bytes| {
                reader.feed(bytes, |name, body| search.take(name, body));
                !search.is_done()
            })?;
            reader.finish(|name, body| search.take(name, body));
        }
        for look in &search.looks {
            if let Some(fact) = facts.headers.get_mut(look.index) {
                *fact = Some(look.found);
            }
        }
        if unknown.sent {
            facts.sent = Some(sent_day(search.date.as_deref(), facts.message));
        }
        Ok(())
    }

    /// Reads headers and text, as far as they are needed, and looks for every unknown text at once.
    fn read_texts<S: Source>(
        &self,
        structure: &Structure,
        facts: &mut Facts<'_>,
        source: &mut S,
    ) -> Result<(), S::Error> {
        let unknown = self.unknown(facts);
        let tests = unknown.texts.iter().filter_map(|index| Some((*index, self.texts.get(*index)?)));
        let looks = tests.map(|(index, test)| TextLook { index, headers: test.headers, finder: test.finder.clone() });
        let mut search = TextSearch { looks: looks.collect(), root: &self.root, facts, certain: false };
        let message = search.facts.message;
        if search.looks.iter().any(|look| look.headers) {
            for extent in structure.headers() {
                let mut reader = FieldReader::new();
                source.read(message, extent, &mut |bytes| {
                    reader.feed(bytes, |name, body| search.take_field(name, body));
                    !search.is_certain()
                })?;
                reader.finish(|name, body| search.take_field(name, body));
                if search.is_certain() {
                    return Ok(());
                }
            }
        }
        for part in structure.texts() {
            let mut reader = PartReader::new(&part);
            source.read(message, part.extent, &mut |bytes| {
                reader.feed(bytes, &mut |text| search.feed(text));
                !search.is_certain()
            })?;
            reader.finish(&mut |text| search.feed(text));
            search.end_text();
            if search.is_certain() {
                return Ok(());
            }
        }
        search.conclude();
        Ok(())
    }
}

impl Node {
    /// Whether the node holds, as far as the facts say: `None` is "can't tell yet".
    fn holds(&self, facts: &Facts<'_>) -> Option<bool> {
        match self {
            Self::Is(test) => test.holds(facts),
            Self::Not(node) => node.holds(facts).map(|holds| !holds),
            Self::All(nodes) => decide(nodes, facts, false),
            Self::Any(nodes) => decide(nodes, facts, true),
        }
    }

    /// Gathers the tests whose outcome could still decide this node.
    fn gather_unknown(&self, facts: &Facts<'_>, unknown: &mut Unknown) {
        if self.holds(facts).is_some() {
            return;
        }
        match self {
            Self::Is(Test::Sent(..)) => unknown.sent = true,
            Self::Is(Test::Header(index)) => unknown.headers.push(*index),
            Self::Is(Test::Text(index)) => unknown.texts.push(*index),
            Self::Is(_) => {}
            Self::Not(node) => node.gather_unknown(facts, unknown),
            Self::All(nodes) | Self::Any(nodes) => {
                for node in nodes {
                    node.gather_unknown(facts, unknown);
                }
            }
        }
    }
}

/// `decisive` as soon as one node is that, its contrary when all are.
fn decide(nodes: &[Node], facts: &Facts<'_>, decisive: bool) -> Option<bool> {
    let mut certain = true;
    for node in nodes {
        match node.holds(facts) {
            Some(holds) if holds == decisive => return Some(decisive),
            Some(_) => {}
            None => certain = false,
        }
    }
    certain.then_some(!decisive)
}

impl Test {
    fn holds(&self, facts: &Facts<'_>) -> Option<bool> {
        let message = facts.message;
        Some(match self {
            Self::Always(holds) => *holds,
            Self::Flag(flag) => message.flags.system.contains(*flag),
            Self::Keyword(bit) => message.flags.keywords & bit != 0,
            Self::Uids(uids) => uids.contains(message.uid),
            Self::ModSeq(modseq) => message.modseq >= *modseq,
            Self::Larger(size) => u64::from(message.size) > *size,
            Self::Smaller(size) => u64::from(message.size) < *size,
            Self::Day(order, bound) => order.holds(message.internal_date.local_day(), *bound),
            Self::NoLater(at) => message.internal_date.at <= *at,
            Self::NoEarlier(at) => message.internal_date.at >= *at,
            Self::Saved(order, bound) => order.holds(ZonedTime::utc(message.saved).local_day(), *bound),
            Self::Body(blob) => message.blob == *blob,
            Self::Sent(order, bound) => order.holds(facts.sent?, *bound),
            Self::Header(index) => facts.headers.get(*index).copied().flatten()?,
            Self::Text(index) => facts.texts.get(*index).copied().flatten()?,
        })
    }
}

/// The day a message was sent: that of its Date field on the sender's calendar, and where there is
/// none that can be read, the internal date's.
fn sent_day(date: Option<&str>, message: &Message) -> i64 {
    date.and_then(ZonedTime::parse_rfc5322).unwrap_or(message.internal_date).local_day()
}

/// One text looked for in the fields of one name.
struct HeaderLook<'t> {
    index: usize,
    name: &'t str,
    finder: Finder,
    found: bool,
}

/// Looks at a header's fields.
struct HeaderSearch<'t> {
    looks: Vec<HeaderLook<'t>>,
    wants_date: bool,
    /// The first Date field.
    date: Option<String>,
}

impl HeaderSearch<'_> {
    fn is_done(&self) -> bool {
        self.looks.iter().all(|look| look.found) && (self.date.is_some() || !self.wants_date)
    }

    fn take(&mut self, name: &[u8], body: &[u8]) {
        if self.wants_date && self.date.is_none() && name.eq_ignore_ascii_case(b"date") {
            self.date = Some(String::from_utf8_lossy(body).into_owned());
        }
        let is_it = |look: &&mut HeaderLook<'_>| !look.found && name.eq_ignore_ascii_case(look.name.as_bytes());
        let mut decoded = None;
        for look in self.looks.iter_mut().filter(is_it) {
            look.finder.feed(decoded.get_or_insert_with(|| decode_field(body)));
            look.found = look.finder.found();
            look.finder.end();
        }
    }
}

/// One text looked for in a whole message.
struct TextLook {
    index: usize,
    headers: bool,
    finder: Finder,
}

/// Looks for texts in a message, until what they decide is decided.
struct TextSearch<'q, 'f, 'm> {
    looks: Vec<TextLook>,
    root: &'q Node,
    facts: &'f mut Facts<'m>,
    /// What has been found decides the search.
    certain: bool,
}

impl TextSearch<'_, '_, '_> {
    fn feed(&mut self, text: &str) {
        for look in &mut self.looks {
            look.finder.feed(text);
        }
    }

    /// Ends a text: what is looked for does not reach from one into the next.
    fn end_text(&mut self) {
        for look in &mut self.looks {
            look.finder.end();
        }
    }

    /// Looks into a header field, its name included.
    fn take_field(&mut self, name: &[u8], body: &[u8]) {
        let text = field_text(name, body);
        for look in self.looks.iter_mut().filter(|look| look.headers) {
            look.finder.feed(&text);
            look.finder.end();
        }
    }

    /// Drops what has been found, and tells whether that decides the search.
    fn is_certain(&mut self) -> bool {
        let facts = &mut *self.facts;
        let before = self.looks.len();
        self.looks.retain(|look| {
            let found = look.finder.found();
            if let Some(fact) = facts.texts.get_mut(look.index).filter(|_| found) {
                *fact = Some(true);
            }
            !found
        });
        self.certain |= self.looks.len() < before && self.root.holds(facts).is_some();
        self.certain
    }

    /// The message has been read: what was not found is not there.
    fn conclude(&mut self) {
        for look in self.looks.drain(..) {
            if let Some(fact) = self.facts.texts.get_mut(look.index) {
                *fact = Some(false);
            }
        }
    }
}

#[cfg(test)]
mod tests;
