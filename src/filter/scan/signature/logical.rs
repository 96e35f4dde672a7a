//! Logical signatures (`.ldb`): patterns, and an expression over how often each was found.

use serde::{Deserialize, Serialize};

use super::place::Place;
use super::{Body, Reason, RegexSub, level, name, range, regex, target};
use crate::filter::scan::Target;

/// Most patterns of a signature, as ClamAV has it.
pub const SUBS_MAX: usize = 64;

/// Deepest nesting of an expression; whoever evaluates one may then recurse.
const DEPTH_MAX: usize = 32;

/// Patterns and what must be true of them and of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Logical {
    /// The signature's name.
    pub name: String,
    /// What must be true of the file.
    pub terms: Terms,
    /// What must be true of the patterns.
    pub expression: Expression,
    /// The patterns with the number of the subsignature that each counts for.
    pub bodies: Vec<(u16, Place, Body)>,
    /// The regular expressions.
    pub regexes: Vec<RegexSub>,
}

/// What must be true of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// What it is.
    pub target: Target,
    /// Its size in bytes.
    pub size: Option<(u64, u64)>,
    /// Where its code begins, as an offset in the file.
    pub entry: Option<(u64, u64)>,
    /// How many sections it has.
    pub sections: Option<(u64, u64)>,
    /// The kind of container it was in, as ClamAV spells it.
    pub container: Option<String>,
}

/// What must be true of the patterns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expression {
    /// The pattern with this number was found.
    Sub(u16),
    /// Both.
    And(Box<Expression>, Box<Expression>),
    /// One of them.
    Or(Box<Expression>, Box<Expression>),
    /// How often patterns in it were found, all together, and how many different ones at least.
    Count {
        /// Of these.
        of: Box<Expression>,
        /// Least and most.
        range: (u32, u32),
        /// Different ones.
        distinct: u32,
    },
}

impl Expression {
    /// Tells whether it is true where pattern `n` was found `count(n)` times.
    pub fn holds(&self, count: &dyn Fn(u16) -> u32) -> bool {
        match self {
            Self::Sub(number) => count(*number) > 0,
            Self::And(left, right) => left.holds(count) && right.holds(count),
            Self::Or(left, right) => left.holds(count) || right.holds(count),
            Self::Count { of, range: (least, most), distinct } => {
                let (sum, different) = of.sum(count);
                (*least..=*most).contains(&sum) && different >= *distinct
            }
        }
    }

    fn sum(&self, count: &dyn Fn(u16) -> u32) -> (u32, u32) {
        match self {
            Self::Sub(number) => (count(*number), u32::from(count(*number) > 0)),
            Self::And(left, right) | Self::Or(left, right) => {
                let (left, right) = (left.sum(count), right.sum(count));
                (left.0.saturating_add(right.0), left.1 + right.1)
            }
            Self::Count { of, .. } => of.sum(count),
        }
    }

    /// Reads an expression over subsignatures below `subs`.
    pub(super) fn parse(text: &str, subs: usize) -> Result<Self, Reason> {
        let mut reader = Reader { rest: text.as_bytes(), subs };
        let expression = reader.either(0)?;
        if reader.rest.is_empty() { Ok(expression) } else { Err(BAD) }
    }
}

const BAD: Reason = Reason("logical expressions that can't be read");

struct Reader<'t> {
    rest: &'t [u8],
    subs: usize,
}

impl Reader<'_> {
    fn take(&mut self, byte: u8) -> bool {
        let found = self.rest.strip_prefix(&[byte]);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn number(&mut self) -> Result<u32, Reason> {
        let end = self.rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(BAD)
    }

    // ClamAV gives both operators the same rank and reads from the left; lists put brackets.
    fn either(&mut self, depth: usize) -> Result<Expression, Reason> {
        if depth > DEPTH_MAX {
            return Err(Reason("logical expressions that are too deep"));
        }
        let mut left = self.one(depth)?;
        let mut joined = 0;
        loop {
            let and = self.take(b'&');
            if !and && !self.take(b'|') {
                return Ok(left);
            }
            joined += 1;
            if joined > SUBS_MAX * 2 {
                return Err(Reason("logical expressions that are too deep"));
            }
            let right = Box::new(self.one(depth)?);
            left = if and { Expression::And(Box::new(left), right) } else { Expression::Or(Box::new(left), right) };
        }
    }

    fn one(&mut self, depth: usize) -> Result<Expression, Reason> {
        let inner = if self.take(b'(') {
            let inner = self.either(depth + 1)?;
            if !self.take(b')') {
                return Err(BAD);
            }
            inner
        } else {
            let number = self.number()?;
            if usize::try_from(number).is_ok_and(|number| number >= self.subs) {
                return Err(Reason("logical expressions that name a pattern they do not have"));
            }
            Expression::Sub(u16::try_from(number).map_err(|_| BAD)?)
        };
        let compared = [b'=', b'>', b'<'].into_iter().find(|sign| self.take(*sign));
        let Some(sign) = compared else { return Ok(inner) };
        let first = self.number()?;
        let second = if self.take(b',') { Some(self.number()?) } else { None };
        let range = match sign {
            b'=' => (first, first),
            b'>' => (first.saturating_add(1), u32::MAX),
            // Nothing is less than none; ClamAV reads it as never.
            _ => (0, first.checked_sub(1).ok_or(BAD)?),
        };
        let distinct = second.unwrap_or(0);
        Ok(Expression::Count { of: Box::new(inner), range, distinct })
    }
}

impl Logical {
    /// A signature of one pattern.
    pub fn single(name: String, target: Target, place: Place, body: Body) -> Self {
        let terms = Terms { target, ..Terms::default() };
        Self { name, terms, expression: Expression::Sub(0), bodies: vec![(0, place, body)], regexes: Vec::new() }
    }
}

/// `NAME;TERMS;EXPRESSION;SUB0;SUB1;...`
pub(super) fn line(text: &str) -> Result<Logical, Reason> {
    let mut fields = text.split(';');
    let mut next = || fields.next().ok_or(Reason("lines with too few fields"));
    let (label, terms, expression) = (name(next()?)?, terms(next()?)?, next()?);
    let subs: Vec<&str> = fields.collect();
    if subs.is_empty() {
        return Err(Reason("lines with too few fields"));
    }
    if subs.len() > SUBS_MAX {
        return Err(Reason("more than 64 patterns in a line"));
    }
    let expression = Expression::parse(expression, subs.len())?;
    let (mut bodies, mut regexes) = (Vec::new(), Vec::new());
    for (number, text) in subs.iter().enumerate() {
        let number = u16::try_from(number).map_err(|_| BAD)?;
        if text.contains('/') {
            regexes.push(regex::sub(number, text)?);
            continue;
        }
        let (place, forms) = sub(text)?;
        bodies.extend(forms.into_iter().map(|body| (number, place, body)));
    }
    Ok(Logical { name: label, terms, expression, bodies, regexes })
}

/// `[OFFSET:]HEX[::MODIFIERS]`.
fn sub(text: &str) -> Result<(Place, Vec<Body>), Reason> {
    if text.starts_with("${") || text.contains('$') {
        return Err(Reason("macros"));
    }
    if text.contains('#') {
        return Err(Reason("fuzzy hashes and comparisons of bytes"));
    }
    let (text, modifiers) = text.split_once("::").unwrap_or((text, ""));
    let (place, hex) = match text.split_once(':') {
        Some((place, hex)) => (Place::parse(place)?, hex),
        None => (Place::default(), text),
    };
    let mut body = Body::parse(hex)?;
    let (mut ascii, mut wide) = (false, false);
    for modifier in modifiers.chars() {
        match modifier {
            'i' => body.fold = true,
            'f' => body.word = true,
            'a' => ascii = true,
            'w' => wide = true,
            _ => return Err(Reason("modifiers of patterns that are not known")),
        }
    }
    let mut forms = Vec::new();
    if wide {
        let body = body.wide();
        body.check()?;
        forms.push(body);
    }
    if ascii || !wide {
        forms.push(body);
    }
    Ok((place, forms))
}

/// `Engine:51-255,Target:1,FileSize:10-20,...`
fn terms(text: &str) -> Result<Terms, Reason> {
    let mut terms = Terms::default();
    for term in text.split(',').filter(|term| !term.is_empty()) {
        let (key, value) = term.split_once(':').ok_or(Reason("terms that can't be read"))?;
        match key {
            "Engine" => {
                let (least, most) = value.split_once('-').unwrap_or((value, ""));
                level(Some(least), Some(most))?;
            }
            "Target" => terms.target = target(value)?,
            "FileSize" => terms.size = range(value)?,
            "EntryPoint" => terms.entry = range(value)?,
            "NumberOfSections" => terms.sections = range(value)?,
            "Container" if value == "CL_TYPE_ANY" => {}
            "Container" => terms.container = Some(value.to_owned()),
            "IconGroup1" | "IconGroup2" => return Err(Reason("icons")),
            "Intermediates" => return Err(Reason("chains of containers")),
            "HandlerType" => return Err(Reason("signatures that change a file's type")),
            _ => return Err(Reason("terms that are not known")),
        }
    }
    Ok(terms)
}
