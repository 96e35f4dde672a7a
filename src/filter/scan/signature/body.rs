//! Patterns: hexadecimal digits with wildcards, alternatives and jumps.
//!
//! A [`Body`] is cut at its unlimited jumps into [`Segment`]s. A segment spans [`SPAN_MAX`] bytes at
//! most, so that it can be compared with a stretch of the file around its [`Anchor`]: two to eight
//! fixed bytes in it, as rare as can be had, which the engine looks for.

use serde::{Deserialize, Serialize};

use super::Reason;

/// Most bytes from the first to the last of a segment.
pub const SPAN_MAX: usize = 32 * 1024;

/// Most segments of a body.
pub const SEGMENTS_MAX: usize = 32;

/// Most alternatives at one place.
const OPTIONS_MAX: usize = 256;

/// Most bytes of an anchor: a gram of four, and what follows it.
pub const ANCHOR_MAX: usize = 8;

/// Fewest bytes of an anchor.
pub const ANCHOR_MIN: usize = 2;

/// One thing in a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A byte of which the bits in `mask` are those of `value`.
    Masked {
        /// The bits.
        value: u8,
        /// Which of them count.
        mask: u8,
    },
    /// From `min` to `max` bytes, whatever they are.
    Gap {
        /// At least.
        min: u16,
        /// At most.
        max: u16,
    },
    /// One of these, as value and mask for each byte.
    Choice {
        /// None of these; they are of one length then.
        not: bool,
        /// The alternatives.
        options: Vec<Vec<(u8, u8)>>,
    },
}

impl Node {
    /// Least and most bytes it takes.
    fn span(&self) -> (usize, usize) {
        match self {
            Self::Bytes(bytes) => (bytes.len(), bytes.len()),
            Self::Masked { .. } => (1, 1),
            Self::Gap { min, max } => (usize::from(*min), usize::from(*max)),
            Self::Choice { options, .. } => {
                let lengths = options.iter().map(Vec::len);
                (lengths.clone().min().unwrap_or(0), lengths.max().unwrap_or(0))
            }
        }
    }
}

/// A stretch of a pattern without unlimited jumps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// At least so many bytes are between the end of the segment before and this one.
    pub after: u32,
    /// What it is made of.
    pub nodes: Vec<Node>,
}

/// The bytes of a segment that are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The node they are in, which is [`Node::Bytes`].
    pub node: u16,
    /// Where in it they begin.
    pub offset: u16,
    /// How many they are.
    pub length: u8,
}

/// A pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Its segments in order.
    pub segments: Vec<Segment>,
    /// Letters count without case.
    pub fold: bool,
    /// Neither a letter nor a digit stands before and behind it.
    pub word: bool,
}

impl Body {
    /// Reads hexadecimal digits with `??`, `a?`, `?a`, `*`, `{n}`, `{n-m}`, `{n-}`, `{-m}`, `[n-m]`,
    /// `(aa|bb)` and `!(aa|bb)`.
    ///
    /// # Errors
    /// Why they can't be read, or not be looked for.
    pub fn parse(text: &str) -> Result<Self, Reason> {
        let mut maker = Maker::default();
        let mut rest = text.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            rest = match first {
                b'*' => {
                    maker.divide(0)?;
                    after
                }
                b'{' => {
                    let (inside, after) = until(after, b'}')?;
                    maker.jump(inside)?;
                    after
                }
                b'[' => {
                    let (inside, after) = until(after, b']')?;
                    maker.jump(inside)?;
                    after
                }
                b'!' | b'(' => {
                    let opened = if first == b'!' { after.strip_prefix(b"(") } else { Some(after) };
                    let (inside, after) = until(opened.ok_or(Reason("patterns that can't be read"))?, b')')?;
                    maker.choice(inside, first == b'!')?;
                    after
                }
                _ => {
                    let (pair, after) = rest.split_at_checked(2).ok_or(Reason("patterns of half a byte"))?;
                    let (value, mask) = masked(pair)?;
                    maker.byte(value, mask);
                    after
                }
            };
        }
        maker.finish()
    }

    /// Makes a body of plain bytes.
    ///
    /// # Errors
    /// As [`Body::parse`].
    pub fn plain(bytes: &[u8]) -> Result<Self, Reason> {
        let mut maker = Maker::default();
        for &byte in bytes {
            maker.byte(byte, 0xFF);
        }
        maker.finish()
    }

    /// The same text in UTF-16, little-endian, as far as it is text: a zero behind each byte.
    #[must_use]
    pub fn wide(&self) -> Self {
        let widen = |node: &Node| match node {
            Node::Bytes(bytes) => vec![Node::Bytes(bytes.iter().flat_map(|&byte| [byte, 0]).collect())],
            Node::Masked { .. } => vec![node.clone(), Node::Bytes(vec![0])],
            Node::Gap { min, max } => {
                vec![Node::Gap { min: min.saturating_mul(2), max: max.saturating_mul(2) }]
            }
            Node::Choice { not, options } => {
                let options = options.iter().map(|option| option.iter().flat_map(|&one| [one, (0, 0xFF)]).collect());
                vec![Node::Choice { not: *not, options: options.collect() }]
            }
        };
        let segments = self.segments.iter().map(|segment| Segment {
            after: segment.after.saturating_mul(2),
            nodes: segment.nodes.iter().flat_map(widen).collect(),
        });
        Self { segments: segments.collect(), ..self.clone() }
    }

    /// Checks that it can be looked for.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), Reason> {
        if self.segments.is_empty() {
            return Err(Reason("patterns that are empty"));
        }
        if self.segments.len() > SEGMENTS_MAX {
            return Err(Reason("patterns with too many jumps"));
        }
        for segment in &self.segments {
            if segment.span().1 > SPAN_MAX {
                return Err(Reason("patterns with jumps that are too wide"));
            }
            if segment.anchor().is_none() {
                return Err(Reason("patterns without two fixed bytes in a row between their jumps"));
            }
        }
        Ok(())
    }
}

impl Segment {
    /// Least and most bytes from its first to its last.
    pub fn span(&self) -> (usize, usize) {
        span(&self.nodes)
    }

    /// What of it is best looked for.
    pub fn anchor(&self) -> Option<Anchor> {
        let mut best: Option<(u32, Anchor)> = None;
        for (number, node) in self.nodes.iter().enumerate() {
            let Node::Bytes(bytes) = node else { continue };
            for offset in 0..bytes.len().saturating_sub(ANCHOR_MIN - 1) {
                let rest = bytes.get(offset..).unwrap_or_default();
                let bytes = rest.get(..ANCHOR_MAX.min(rest.len())).unwrap_or_default();
                let (Ok(node), Ok(offset)) = (u16::try_from(number), u16::try_from(offset)) else { break };
                let anchor = Anchor { node, offset, length: u8::try_from(bytes.len()).unwrap_or(0) };
                let score = rarity(bytes);
                if best.is_none_or(|(before, _)| score > before) {
                    best = Some((score, anchor));
                }
            }
        }
        best.map(|(_, anchor)| anchor)
    }

    /// The bytes of an anchor.
    pub fn anchored(&self, anchor: Anchor) -> &[u8] {
        let Some(Node::Bytes(bytes)) = self.nodes.get(usize::from(anchor.node)) else { return &[] };
        let start = usize::from(anchor.offset);
        bytes.get(start..start + usize::from(anchor.length)).unwrap_or_default()
    }

    /// Most bytes from the segment's first to its anchor's first, and from there to its end.
    pub fn around(&self, anchor: Anchor) -> (usize, usize) {
        let before = self.nodes.get(..usize::from(anchor.node)).unwrap_or_default();
        let behind = self.nodes.get(usize::from(anchor.node)..).unwrap_or_default();
        let offset = usize::from(anchor.offset);
        (span(before).1 + offset, span(behind).1.saturating_sub(offset))
    }
}

fn span(nodes: &[Node]) -> (usize, usize) {
    nodes.iter().map(Node::span).fold((0, 0), |(least, most), (min, max)| (least + min, most + max))
}

/// How rare bytes are to be expected in files: the first four, which are looked for, count most.
fn rarity(bytes: &[u8]) -> u32 {
    let one = |byte: u8| match byte {
        0 => 0,
        0xFF | b' ' | 0x90 | 0xCC => 2,
        b'a'..=b'z' | b'0'..=b'9' | b'\r' | b'\n' => 5,
        b'A'..=b'Z' | b'!'..=b'/' | 1..=8 => 6,
        _ => 8,
    };
    let mut score = 0;
    for (place, &byte) in bytes.iter().enumerate() {
        let seen = bytes.get(..place).unwrap_or_default().contains(&byte);
        score += if place < 4 { 16 } else { 4 } * if seen { 1 } else { 1 + one(byte) };
    }
    score
}

fn until(text: &[u8], close: u8) -> Result<(&[u8], &[u8]), Reason> {
    let end = text.iter().position(|&byte| byte == close).ok_or(Reason("patterns that can't be read"))?;
    let (inside, after) = text.split_at(end);
    Ok((inside, after.get(1..).unwrap_or_default()))
}

fn masked(pair: &[u8]) -> Result<(u8, u8), Reason> {
    let nibble = |digit: u8| match digit {
        b'?' => Ok((0, 0)),
        digit => match char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok()) {
            Some(value) => Ok((value, 0xF)),
            None => Err(Reason("patterns that can't be read")),
        },
    };
    let (high, low) = (nibble(pair.first().copied().unwrap_or(0))?, nibble(pair.get(1).copied().unwrap_or(0))?);
    Ok((high.0 << 4 | low.0, high.1 << 4 | low.1))
}

#[derive(Default)]
struct Maker {
    body: Body,
    now: Segment,
}

impl Maker {
    fn byte(&mut self, value: u8, mask: u8) {
        match (mask, self.now.nodes.last_mut()) {
            (0xFF, Some(Node::Bytes(bytes))) => bytes.push(value),
            (0xFF, _) => self.now.nodes.push(Node::Bytes(vec![value])),
            (0, _) => self.gap(1, 1),
            _ => self.now.nodes.push(Node::Masked { value, mask }),
        }
    }

    fn gap(&mut self, min: u16, max: u16) {
        match self.now.nodes.last_mut() {
            Some(Node::Gap { min: least, max: most }) => {
                (*least, *most) = (least.saturating_add(min), most.saturating_add(max));
            }
            _ => self.now.nodes.push(Node::Gap { min, max }),
        }
    }

    /// `n`, `n-m`, `n-` or `-m`.
    fn jump(&mut self, inside: &[u8]) -> Result<(), Reason> {
        const BAD: Reason = Reason("jumps that can't be read");
        let text = std::str::from_utf8(inside).map_err(|_| BAD)?;
        let number = |text: &str| text.parse::<u32>().map_err(|_| BAD);
        let (least, most) = match text.split_once('-') {
            None => (number(text)?, Some(number(text)?)),
            Some((least, most)) => {
                let least = if least.is_empty() { 0 } else { number(least)? };
                (least, if most.is_empty() { None } else { Some(number(most)?) })
            }
        };
        let Some(most) = most else { return self.divide(least) };
        if least > most {
            return Err(BAD);
        }
        let narrow = |number: u32| {
            let fits = u16::try_from(number).ok().filter(|number| usize::from(*number) <= SPAN_MAX);
            fits.ok_or(Reason("patterns with jumps that are too wide"))
        };
        self.gap(narrow(least)?, narrow(most)?);
        Ok(())
    }

    fn choice(&mut self, inside: &[u8], not: bool) -> Result<(), Reason> {
        if matches!(inside, b"B" | b"L" | b"W") {
            return Err(Reason("boundaries in patterns"));
        }
        if inside.contains(&b'(') || inside.contains(&b'{') || inside.contains(&b'*') {
            return Err(Reason("jumps or alternatives within alternatives"));
        }
        let option = |text: &[u8]| {
            text.chunks(2)
                .map(|pair| if pair.len() == 2 { masked(pair) } else { Err(Reason("patterns of half a byte")) })
                .collect()
        };
        let options = inside.split(|&byte| byte == b'|').map(option).collect::<Result<Vec<Vec<(u8, u8)>>, _>>()?;
        if options.len() > OPTIONS_MAX || options.iter().any(Vec::is_empty) {
            return Err(Reason("alternatives that are empty or too many"));
        }
        let first = options.first().map_or(0, Vec::len);
        if not && options.iter().any(|option| option.len() != first) {
            return Err(Reason("negated alternatives of different lengths"));
        }
        self.now.nodes.push(Node::Choice { not, options });
        Ok(())
    }

    /// Ends a segment; the next one comes `after` bytes behind it or further.
    fn divide(&mut self, after: u32) -> Result<(), Reason> {
        // A limited jump beside an unlimited one only says how far it goes at least.
        let mut least = after;
        while let Some(Node::Gap { min, .. }) = self.now.nodes.last() {
            least = least.saturating_add(u32::from(*min));
            self.now.nodes.pop();
        }
        if self.now.nodes.is_empty() {
            // Nothing before it, or two unlimited jumps in a row.
            if self.body.segments.is_empty() && least > 0 {
                return Err(Reason("patterns that begin with a jump"));
            }
            self.now.after = self.now.after.saturating_add(least);
            return Ok(());
        }
        self.body.segments.push(std::mem::take(&mut self.now));
        self.now.after = least;
        Ok(())
    }

    fn finish(mut self) -> Result<Body, Reason> {
        while let Some(Node::Gap { .. }) = self.now.nodes.last() {
            self.now.nodes.pop();
        }
        if matches!(self.now.nodes.first(), Some(Node::Gap { .. })) && !self.body.segments.is_empty() {
            let Node::Gap { min, .. } = self.now.nodes.remove(0) else { return Err(Reason("patterns that are empty")) };
            self.now.after = self.now.after.saturating_add(u32::from(min));
        }
        if !self.now.nodes.is_empty() {
            self.body.segments.push(self.now);
        }
        self.body.check()?;
        Ok(self.body)
    }
}
