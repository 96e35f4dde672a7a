//! A message's bytes on their way through a session: from DATA or BDAT into pieces for the spool.
//!
//! Content that is refused (too big, a bare LF on port 25, no room) is taken and dropped up to its
//! real end, and the refusal is said there: a reply in the middle would be read as the answer to
//! something else.

use super::dot::DotReader;
use super::ending::{Endings, Manner};
use super::reply::Reply;
use super::{Request, Role};
use crate::mail::envelope::BodyType;

/// Most bytes of content handed on in one piece: what was gathered, and one more read with every
/// line end repaired.
pub const PIECE_MAX: usize = GATHER_MAX + 2 * READ_MAX + 8;

/// Bytes gathered before they are handed on.
const GATHER_MAX: usize = 16_384;

/// Bytes looked at in one go.
const READ_MAX: usize = 8_192;

/// Most bytes that are fetched by URL in one go.
pub const FETCH_MAX: usize = READ_MAX;

/// How many times the largest message is taken and dropped before the connection is cut: patience
/// with a peer that ignores SIZE ends somewhere.
const DROP_FACTOR: u64 = 4;

/// How a content is framed.
#[derive(Clone, Copy, Debug)]
enum Frame {
    /// DATA: up to CRLF.CRLF.
    Dotted(DotReader),
    /// BDAT: so many bytes of the present chunk are still to come.
    Chunk { left: u64, last: bool },
    /// BURL: it is fetched, and not sent by the peer.
    Fetched { last: bool },
}

/// A content on its way in.
#[derive(Debug)]
pub(super) struct Content {
    frame: Frame,
    endings: Endings,
    /// Most bytes of content.
    max: u64,
    /// Bytes of content so far.
    size: u64,
    /// Bytes taken so far, dropped ones included.
    seen: u64,
    /// Gathered and not yet handed on.
    piece: Vec<u8>,
    /// The message, or the present chunk, has ended.
    ended: bool,
    refusal: Option<Refusal>,
}

/// Why a content is only dropped from here on.
#[derive(Debug)]
struct Refusal {
    reply: Reply,
    /// The world outside knows.
    told: bool,
}

/// What should happen with a content next.
#[derive(Debug)]
pub(super) enum Flow {
    /// More bytes are needed.
    More,
    /// Ask this before going on.
    Ask(Request),
    /// A chunk that is not the last has ended, and was not refused.
    ChunkEnd,
    /// The content has ended and is handed on: [`Request::Finish`] comes next.
    End,
    /// The content or its present chunk has ended and this is the answer to it.
    Refused(Reply),
    /// The peer sends without end: say this and close.
    Cut(Reply),
}

impl Content {
    /// Begins a content after DATA.
    pub(super) fn dotted(role: Role, body: BodyType, max: u64) -> Self {
        Self::new(Frame::Dotted(DotReader::default()), role, body, max)
    }

    /// Begins a content that comes in chunks; [`Content::chunk`] or [`Content::fetch`] begins each.
    pub(super) fn chunked(role: Role, body: BodyType, max: u64) -> Self {
        Self::new(Frame::Chunk { left: 0, last: false }, role, body, max)
    }

    fn new(frame: Frame, role: Role, body: BodyType, max: u64) -> Self {
        let manner = match (body, role) {
            (BodyType::BinaryMime, _) => Manner::Keep,
            (_, Role::Exchange) => Manner::Note,
            (_, Role::Submission) => Manner::Repair,
        };
        let endings = Endings::new(manner);
        Self { frame, endings, max, size: 0, seen: 0, piece: Vec::new(), ended: false, refusal: None }
    }

    /// Begins a chunk of `left` bytes.
    pub(super) fn chunk(&mut self, left: u64, last: bool) {
        self.frame = Frame::Chunk { left, last };
        self.ended = left == 0;
        if self.size.saturating_add(left) > self.max {
            self.refuse(too_big(), false);
        } else if self.ended && self.refusal.is_none() {
            // An empty last chunk ends what came before it.
            self.gather(Vec::new());
        }
    }

    /// Begins a part that is fetched; [`Content::fetched`] takes its bytes.
    pub(super) fn fetch(&mut self, last: bool) {
        self.frame = Frame::Fetched { last };
        self.ended = false;
    }

    /// Takes bytes that were fetched; none end the part.
    pub(super) fn fetched(&mut self, bytes: Vec<u8>) {
        self.ended = bytes.is_empty();
        if self.refusal.is_none() {
            self.gather(bytes);
        }
        // What is refused need not be fetched to its end.
        self.ended |= self.refusal.is_some();
    }

    /// Ends a part that cannot be fetched or kept. `told` says that the world outside knows.
    pub(super) fn fetch_failed(&mut self, reply: Reply, told: bool) {
        self.refuse(reply, told);
        self.ended = true;
    }

    /// Drops what is still to come and answers its end with `reply`, if nothing else was wrong before.
    /// `told` says that the world outside knows.
    pub(super) fn refuse(&mut self, reply: Reply, told: bool) {
        self.piece = Vec::new();
        self.refusal.get_or_insert(Refusal { reply, told });
    }

    /// Takes some bytes and says how many.
    pub(super) fn take(&mut self, input: &[u8]) -> usize {
        let input = input.get(..READ_MAX).unwrap_or(input);
        // The reader may owe a byte from before.
        let mut content = Vec::with_capacity(input.len() + 1);
        let taken = match &mut self.frame {
            Frame::Dotted(reader) => {
                let (taken, ended) = reader.read(input, &mut content);
                self.ended = ended;
                taken
            }
            Frame::Chunk { left, .. } => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                content.extend_from_slice(input.get(..taken).unwrap_or_default());
                *left -= length(taken);
                self.ended = *left == 0;
                taken
            }
            // Nothing of it comes from the peer.
            Frame::Fetched { .. } => input.len(),
        };
        self.seen = self.seen.saturating_add(length(taken));
        if self.refusal.is_none() {
            self.gather(content);
        }
        taken
    }

    fn gather(&mut self, content: Vec<u8>) {
        let mut content = self.endings.pass(content);
        if self.ended && self.is_last() {
            content.append(&mut self.endings.finish());
        }
        self.size = self.size.saturating_add(length(content.len()));
        if self.size > self.max {
            self.refuse(too_big(), false);
        } else if self.endings.must_refuse() {
            self.refuse(Reply::new(550, "5.6.11", "bare CR or LF: lines end with CRLF"), false);
        } else if self.piece.is_empty() {
            self.piece = content;
        } else {
            self.piece.append(&mut content);
        }
    }

    /// Says what comes next.
    pub(super) fn next(&mut self) -> Flow {
        if let Some(refusal) = &mut self.refusal {
            if !std::mem::replace(&mut refusal.told, true) {
                return Flow::Ask(Request::Discard(Some(refusal.reply.clone())));
            }
            if self.ended {
                return Flow::Refused(refusal.reply.clone());
            }
            let endless = self.seen > self.max.saturating_mul(DROP_FACTOR);
            return if endless { Flow::Cut(refusal.reply.clone()) } else { Flow::More };
        }
        if self.piece.len() >= GATHER_MAX || (self.ended && !self.piece.is_empty()) {
            return Flow::Ask(Request::Body(std::mem::take(&mut self.piece)));
        }
        match self.ended {
            true if self.is_last() => Flow::End,
            true => Flow::ChunkEnd,
            false => Flow::More,
        }
    }

    /// Tells whether the message ends where the present frame does.
    fn is_last(&self) -> bool {
        !matches!(self.frame, Frame::Chunk { last: false, .. } | Frame::Fetched { last: false })
    }
}

fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn too_big() -> Reply {
    Reply::new(552, "5.3.4", "message too big")
}
