//! Finds the parts of a message while it streams by.
//!
//! The walker sees lines. It keeps the stack of what is open: multiparts, whose boundaries it looks
//! for, messages, and the part at the top. Every newline and byte is counted, so places stay exact
//! whatever the bounds of the record leave out.

use crate::mail::lines::{Line, LineCutter};

use super::gather::{Content, Gather, Media};
use super::part::is_message;
use super::{BOUNDARY_MAX, DEPTH_MAX, ESSENTIALS_MAX, Node, PARTS_MAX, Shape, Structure, TEXT_MAX};

/// Most bytes looked at of one header line; senders who do not fold their recipients reach 10 KiB.
const LINE_MAX: usize = 16 * 1024;

/// Most bytes looked at of a line that may be a delimiter: dashes, boundary, and white space that
/// transport added (RFC 2046 section 5.1.1).
const DELIMITER_MAX: usize = BOUNDARY_MAX + 256;

/// Finds the parts of a message while it streams by; bounded whatever the message holds: less
/// than 256 KiB at the worst, a few KiB for common mail.
#[derive(Debug)]
pub struct Walker {
    nodes: Vec<Node>,
    text: String,
    cut: bool,
    open: Vec<Open>,
    /// The header that is being read, or `None` in a body.
    header: Option<Gather>,
    lines: LineCutter,
    at: Place,
    /// Bytes of the newline before the present line.
    newline: u32,
    /// No delimiter can follow any more: the rest is only counted.
    skimming: bool,
}

/// How much has gone by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    bytes: u32,
    newlines: u32,
}

/// A node whose end has not been seen.
#[derive(Debug)]
struct Open {
    node: usize,
    /// Where its body starts.
    body: Place,
    /// What a multipart's parts are divided by.
    delimiter: Option<Delimiter>,
}

#[derive(Debug)]
struct Delimiter {
    boundary: Vec<u8>,
    /// Parts without a type are messages (RFC 2046 section 5.1.5).
    digest: bool,
    /// The last delimiter was seen.
    closed: bool,
}

impl Default for Walker {
    fn default() -> Self {
        Self::new()
    }
}

impl Walker {
    /// Begins a message.
    pub fn new() -> Self {
        let mut walker = Self {
            nodes: Vec::new(),
            text: String::new(),
            cut: false,
            open: Vec::new(),
            header: None,
            lines: LineCutter::default(),
            at: Place::default(),
            newline: 0,
            skimming: false,
        };
        walker.begin_node(0, true);
        walker
    }

    /// Takes the next bytes, cut anywhere.
    pub fn feed(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        let mut lines = std::mem::take(&mut self.lines);
        while !self.skimming {
            let keep = if self.header.is_some() { LINE_MAX } else { DELIMITER_MAX };
            let Some(line) = lines.next(&mut rest, keep) else { break };
            self.take_line(&line);
        }
        self.lines = lines;
        if !rest.is_empty() {
            self.at.bytes = self.at.bytes.saturating_add(size(rest.len()));
            let newlines = rest.split(|&byte| byte == b'\n').count() - 1;
            self.at.newlines = self.at.newlines.saturating_add(size(newlines));
        }
    }

    /// Ends the message.
    pub fn finish(mut self) -> Structure {
        let mut lines = std::mem::take(&mut self.lines);
        if let Some(line) = lines.rest() {
            self.take_line(&line);
        }
        let end = self.at;
        while self.header.is_some() {
            self.end_header(end);
        }
        self.close_above(0, end);
        if let Some(message) = self.open.pop() {
            self.close(&message, end);
        }
        self.nodes.shrink_to_fit();
        self.text.shrink_to_fit();
        Structure { nodes: self.nodes, text: self.text, cut: self.cut }
    }

    fn take_line(&mut self, line: &Line<'_>) {
        let start = self.at;
        let after = Place {
            bytes: start.bytes.saturating_add(size(line.length)),
            newlines: start.newlines.saturating_add(u32::from(line.newline > 0)),
        };
        if let Some((level, last)) = self.delimiter(line) {
            self.take_delimiter(level, last, start, after);
        } else {
            self.take_text(line, start, after);
        }
        self.at = after;
        self.newline = size(line.newline);
        self.skimming |= self.header.is_none() && self.open.iter().all(|open| !open.is_divided());
    }

    /// Takes a line that is no delimiter.
    fn take_text(&mut self, line: &Line<'_>, start: Place, after: Place) {
        // A block that does not begin with a field has no header; in a digest that happens twice,
        // for the part and for the message in it.
        while let Some(header) = &mut self.header {
            if line.kept.is_empty() && line.newline > 0 {
                self.end_header(after);
                return;
            }
            if header.take(line) {
                return;
            }
            self.end_header(start);
        }
    }

    /// Finds the multipart that a line divides: its level, and whether it ends there. The innermost
    /// comes first; one that has ended is not looked at, so that a boundary may be used again.
    ///
    /// Nothing but white space may follow the boundary, as the grammar of RFC 2046 section 5.1.1 has
    /// it. Its note for implementors would let any text follow, but then `--part-1` of a multipart
    /// within would end a part of the one whose boundary is `part`.
    fn delimiter(&self, line: &Line<'_>) -> Option<(usize, bool)> {
        let text = line.kept.strip_prefix(b"--").filter(|_| line.whole)?;
        self.open.iter().enumerate().rev().find_map(|(level, open)| {
            let delimiter = open.delimiter.as_ref().filter(|delimiter| !delimiter.closed)?;
            let rest = text.strip_prefix(delimiter.boundary.as_slice())?.trim_ascii_end();
            (rest.is_empty() || rest == b"--").then_some((level, !rest.is_empty()))
        })
    }

    fn take_delimiter(&mut self, level: usize, last: bool, start: Place, after: Place) {
        while self.header.is_some() {
            self.end_header(start);
        }
        if !last && !self.has_room() {
            self.skimming = true;
            return;
        }
        // The newline before the delimiter belongs to it.
        let newlines = start.newlines.saturating_sub(u32::from(self.newline > 0));
        self.close_above(level, Place { bytes: start.bytes.saturating_sub(self.newline), newlines });
        let Some(open) = self.open.last_mut() else { return };
        let Some(delimiter) = &mut open.delimiter else { return };
        if last {
            delimiter.closed = true;
            return;
        }
        let parent = open.node;
        self.set_shape(parent, Shape::Multipart);
        self.begin_node(after.bytes, false);
    }

    /// Ends the header of the node at the top, whose body starts at `body`, and opens what it says.
    fn end_header(&mut self, body: Place) {
        let Some(header) = self.header.take() else { return };
        let mut cut = false;
        let content = header.finish(&mut self.text, &mut cut);
        let text_end = u16::try_from(self.text.len()).unwrap_or(u16::MAX);
        let digest = self.open.len().checked_sub(2).and_then(|level| self.open.get(level));
        let digest = digest.and_then(|parent| parent.delimiter.as_ref()).is_some_and(|delimiter| delimiter.digest);
        let Some(open) = self.open.last_mut() else { return };
        self.cut |= cut && open.node == 0;
        open.body = body;
        let index = open.node;
        let Some(node) = self.nodes.get_mut(index) else { return };
        node.header = body.bytes.saturating_sub(node.offset);
        node.text_end = text_end;
        if usize::from(node.depth) + 1 >= DEPTH_MAX {
            return;
        }
        if !holds_message(&content, digest) {
            open.delimiter = content.media.and_then(Delimiter::new);
        } else if self.has_room() {
            self.set_shape(index, Shape::Message);
            self.begin_node(body.bytes, true);
        }
    }

    /// Tells whether another node can be taken.
    fn has_room(&self) -> bool {
        self.nodes.len() < PARTS_MAX && self.text.len() + ESSENTIALS_MAX <= TEXT_MAX
    }

    fn set_shape(&mut self, index: usize, shape: Shape) {
        if let Some(node) = self.nodes.get_mut(index) {
            node.shape = shape;
        }
    }

    /// Opens a node below the one at the top; its header starts at `offset`.
    fn begin_node(&mut self, offset: u32, of_message: bool) {
        let depth = u8::try_from(self.open.len()).unwrap_or(u8::MAX);
        let text_end = self.nodes.last().map_or(0, |node| node.text_end);
        self.open.push(Open { node: self.nodes.len(), body: Place::default(), delimiter: None });
        self.nodes.push(Node { depth, offset, text_end, ..Node::default() });
        self.header = Some(Gather::new(of_message, self.nodes.len() == 1));
    }

    /// Ends what is open above `level` at `end`. A header may reach past that, when its last newline
    /// is the delimiter's too; then what holds it ends where the header does.
    fn close_above(&mut self, level: usize, mut end: Place) {
        while self.open.len() > level + 1 {
            let Some(open) = self.open.pop() else { return };
            end = self.close(&open, end);
        }
    }

    fn close(&mut self, open: &Open, end: Place) -> Place {
        let end = if end.bytes < open.body.bytes { open.body } else { end };
        if let Some(node) = self.nodes.get_mut(open.node) {
            node.body = end.bytes - open.body.bytes;
            node.lines = end.newlines.saturating_sub(open.body.newlines);
        }
        end
    }

    /// Bytes held, counted by capacity.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        let open: usize =
            self.open.iter().filter_map(|open| open.delimiter.as_ref()).map(|d| d.boundary.capacity()).sum();
        self.nodes.capacity() * size_of::<Node>()
            + self.text.capacity()
            + self.open.capacity() * size_of::<Open>()
            + open
            + self.lines.capacity()
            + self.header.as_ref().map_or(0, Gather::capacity)
    }
}

impl Open {
    fn is_divided(&self) -> bool {
        self.delimiter.as_ref().is_some_and(|delimiter| !delimiter.closed)
    }
}

impl Delimiter {
    /// The delimiter of a multipart with a usable boundary.
    fn new(media: Media) -> Option<Self> {
        let boundary = media.boundary.filter(|_| media.kind.eq_ignore_ascii_case("multipart"))?;
        // A boundary does not end with white space (RFC 2046 section 5.1.1): what stands there was
        // added, as it may have been to the delimiters.
        let boundary = boundary.trim_end().as_bytes().to_vec();
        let usable = !boundary.is_empty() && boundary.len() <= BOUNDARY_MAX;
        usable.then(|| Self { boundary, digest: media.subtype.eq_ignore_ascii_case("digest"), closed: false })
    }
}

/// Tells whether a message follows the header. One that is coded can't be looked into (RFC 2046
/// section 5.2.1 forbids it).
fn holds_message(content: &Content, digest: bool) -> bool {
    let declared = content.media.as_ref().map_or(digest, |media| is_message(&media.kind, &media.subtype));
    declared && !content.coded
}

/// A count of bytes; messages are smaller than 4 GiB.
fn size(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
