//! Gathers a client's bytes into whole commands, literals included (RFC 9051 sections 2.2 and 4.3).
//!
//! An [`Intake`] holds the bytes of one unfinished command, at most [`COMMAND_MAX`], and nothing
//! between commands; a command that lies whole in what was read is parsed where it lies. The
//! message of an APPEND is never held: the session streams it past. What is too long is swallowed
//! up to its end where that can be found, so that one `BAD` answers one command.

use super::command::{AppendPiece, Tagged};
use super::grammar::{self, AppendLine, AppendStart, OpenMessage, Rejected};
use super::token::{LiteralHeader, Refusal};

/// Longest command in bytes, its literals included and an APPEND's message not.
pub const COMMAND_MAX: usize = 64 * 1024;

/// Most bytes of a refused command that are read to find its end; beyond, the connection is given up.
pub const SWALLOW_MAX: u64 = 64 * 1024 * 1024;

/// Longest line behind an APPEND's message, in bytes: flags and date of the next one (RFC 3502).
const APPEND_LINE_MAX: usize = 16 * 1024;

/// What [`Intake::take`] came to.
#[derive(Debug)]
pub enum Taken {
    /// All bytes are taken and the command is not complete.
    More,
    /// A synchronising literal follows: send a continuation request and go on.
    Continue,
    /// A command is complete. An APPEND may be complete up to a literal, the last of its pieces: the
    /// session streams the bytes itself and then calls [`Intake::after_literal`].
    Command(Tagged),
    /// What stood behind an APPEND's literal: its message's end and maybe more (RFC 3502, RFC 4469).
    /// Where a literal is the last of it the session goes on as before, else the line has ended.
    AppendLine(Vec<AppendPiece>),
    /// No command: answer `BAD` (tagged where a tag was read) and go on, or close after `BYE`
    /// when going on makes no sense. After [`Intake::after_literal`] it is about that APPEND, of
    /// which nothing may be kept.
    Refused {
        /// The client's tag, if there was one.
        tag: Option<String>,
        /// What is wrong; it may begin with a response code in brackets.
        text: &'static str,
        /// The stream can't be followed any more.
        fatal: bool,
    },
    /// A command that is well formed and can't be done whatever the session's state: answer `NO`
    /// and go on.
    Declined {
        /// The client's tag.
        tag: String,
        /// Why not; it may begin with a response code in brackets.
        text: &'static str,
    },
}

/// Gathers commands. Holds no memory between them.
#[derive(Debug, Default)]
pub struct Intake {
    /// The command so far: text, and each literal behind its header and one CRLF.
    held: Vec<u8>,
    /// Where in `held` the text behind the last literal begins.
    text_start: usize,
    mode: Mode,
    watch: LiteralWatch,
    /// Names are UTF-8 and nothing else.
    utf8: bool,
    /// The APPEND whose message the session may be streaming.
    append: Option<OpenAppend>,
}

#[derive(Debug, Default)]
enum Mode {
    /// In a command's text.
    #[default]
    Text,
    /// In a literal with so many bytes to come.
    Literal(usize),
    /// In what follows an APPEND's message.
    AppendEnd(OpenAppend),
    /// In a URL there that is a literal with so many bytes to come.
    AppendUrl(usize, OpenAppend),
    /// In the text of a command that was refused already.
    Swallow(Box<Swallow>),
}

/// The APPEND that was handed out last.
#[derive(Debug)]
struct OpenAppend {
    tag: String,
    open: OpenMessage,
}

/// A refused command on the way to its end.
#[derive(Debug)]
struct Swallow {
    rejected: Rejected,
    /// Bytes of the current literal still to come.
    literal: u64,
    /// Bytes we are still willing to read.
    patience: u64,
}

impl Intake {
    /// Says whether mailbox names are UTF-8 only (IMAP4rev2 or UTF8=ACCEPT is on). Before, names
    /// in modified UTF-7 are understood too.
    pub fn set_utf8(&mut self, utf8: bool) {
        self.utf8 = utf8;
    }

    /// Tells whether a command or line has begun and not ended.
    #[must_use]
    pub fn is_midway(&self) -> bool {
        !self.held.is_empty() || !matches!(self.mode, Mode::Text)
    }

    /// Takes bytes up to the end of a command or literal header, and says how many it took.
    pub fn take(&mut self, bytes: &[u8]) -> (usize, Taken) {
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            let (used, outcome) = self.step(rest);
            taken += used;
            if let Some(outcome) = outcome {
                return (taken, outcome);
            }
        }
        (taken, Taken::More)
    }

    /// The session has streamed an APPEND literal; the rest of the command line follows.
    pub fn after_literal(&mut self) {
        self.forget();
        if let Some(append) = self.append.take() {
            self.mode = Mode::AppendEnd(append);
        }
    }

    /// Takes a line that is no command: a SASL response or DONE. `None` until it is complete; the
    /// line has no CRLF. A line longer than `max` is cut to `max` + 1 bytes and so can't be what
    /// was asked for.
    pub fn take_line(&mut self, bytes: &[u8], max: usize) -> (usize, Option<Vec<u8>>) {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let line = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or(bytes);
        let room = max.saturating_add(2).saturating_sub(self.held.len());
        self.held.extend_from_slice(line.get(..room).unwrap_or(line));
        let Some(end) = end else { return (bytes.len(), None) };
        let mut line = std::mem::take(&mut self.held);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        line.truncate(max.saturating_add(1));
        (end + 1, Some(line))
    }

    /// Takes some of `bytes`, which are not empty, within one mode.
    fn step(&mut self, bytes: &[u8]) -> (usize, Option<Taken>) {
        match std::mem::take(&mut self.mode) {
            Mode::Text => {
                self.append = None;
                self.text(bytes)
            }
            Mode::Literal(left) => {
                let part = bytes.get(..left).unwrap_or(bytes);
                self.held.extend_from_slice(part);
                self.text_start = self.held.len();
                if part.len() < left {
                    self.mode = Mode::Literal(left - part.len());
                }
                (part.len(), None)
            }
            Mode::AppendEnd(append) => self.append_end(append, bytes),
            Mode::AppendUrl(left, append) => {
                let part = bytes.get(..left).unwrap_or(bytes);
                self.held.extend_from_slice(part);
                self.text_start = self.held.len();
                self.mode = if part.len() < left {
                    Mode::AppendUrl(left - part.len(), append)
                } else {
                    Mode::AppendEnd(append)
                };
                (part.len(), None)
            }
            Mode::Swallow(swallow) => self.swallow(swallow, bytes),
        }
    }

    fn text(&mut self, bytes: &[u8]) -> (usize, Option<Taken>) {
        let (line, ended) = first_line(bytes);
        let room = COMMAND_MAX.saturating_sub(self.held.len());
        if line.len() > room {
            let part = line.get(..room).unwrap_or(line);
            self.watch.feed(part);
            self.held.extend_from_slice(part);
            let rejected = grammar::rejected(&self.held, Refusal::Bad("[TOOBIG] the command is too long"));
            self.start_swallowing(rejected, 0);
            return (part.len(), None);
        }
        self.watch.feed(line);
        if !ended {
            self.held.extend_from_slice(line);
            return (line.len(), None);
        }
        let header = self.watch.finish();
        if self.held.is_empty() && header.is_none() {
            return (line.len(), Some(taken(grammar::parse(without_line_end(line), self.utf8))));
        }
        self.held.extend_from_slice(line);
        // Only what came since the last literal can be a line end: a literal may end with CR.
        let text = self.held.get(self.text_start..).map_or(0, |text| without_line_end(text).len());
        self.held.truncate(self.text_start + text);
        if let Some(header) = header {
            self.held.extend_from_slice(b"\r\n");
            self.text_start = self.held.len();
            return (line.len(), self.literal(header));
        }
        let held = std::mem::take(&mut self.held);
        self.text_start = 0;
        (line.len(), Some(taken(grammar::parse(&held, self.utf8))))
    }

    /// A literal's header has ended the line.
    fn literal(&mut self, header: LiteralHeader) -> Option<Taken> {
        match grammar::append_start(&self.held, self.utf8) {
            Some(Ok(AppendStart::Message { command, open })) => {
                self.forget();
                self.append = Some(OpenAppend { tag: command.tag.clone(), open });
                return Some(Taken::Command(command));
            }
            Some(Err(rejected)) => return self.refuse_literal(rejected, header),
            Some(Ok(AppendStart::Held)) | None => {}
        }
        match usize::try_from(header.size) {
            Ok(size) if size <= COMMAND_MAX.saturating_sub(self.held.len()) => {
                if size > 0 {
                    self.mode = Mode::Literal(size);
                }
                header.synchronizing.then_some(Taken::Continue)
            }
            _ => {
                let refusal = Refusal::Bad("[TOOBIG] the literal is too large");
                let rejected = grammar::rejected(&self.held, refusal);
                self.refuse_literal(rejected, header)
            }
        }
    }

    /// Refuses a command at a literal's header: the client of a synchronising literal sends
    /// nothing more, the other's bytes are on their way (RFC 7888 section 4).
    fn refuse_literal(&mut self, rejected: Rejected, header: LiteralHeader) -> Option<Taken> {
        if header.synchronizing {
            self.forget();
            return Some(rejected.taken(false));
        }
        if header.size > SWALLOW_MAX {
            self.forget();
            return Some(rejected.taken(true));
        }
        self.start_swallowing(rejected, header.size);
        None
    }

    fn start_swallowing(&mut self, rejected: Rejected, literal: u64) {
        self.held = Vec::new();
        self.text_start = 0;
        self.mode = Mode::Swallow(Box::new(Swallow { rejected, literal, patience: SWALLOW_MAX }));
    }

    fn swallow(&mut self, mut swallow: Box<Swallow>, bytes: &[u8]) -> (usize, Option<Taken>) {
        let patience = usize::try_from(swallow.patience).unwrap_or(usize::MAX);
        let bytes = bytes.get(..patience).unwrap_or(bytes);
        if swallow.literal > 0 {
            let literal = usize::try_from(swallow.literal).unwrap_or(usize::MAX);
            let taken = literal.min(bytes.len());
            swallow.literal -= taken as u64;
            swallow.patience -= taken as u64;
            return (taken, self.go_on_swallowing(swallow));
        }
        let (line, ended) = first_line(bytes);
        swallow.patience -= line.len() as u64;
        self.watch.feed(line);
        if !ended {
            return (line.len(), self.go_on_swallowing(swallow));
        }
        match self.watch.finish() {
            Some(header) if !header.synchronizing => {
                swallow.literal = header.size;
                let hopeless = header.size > swallow.patience;
                let outcome =
                    if hopeless { Some(swallow.rejected.taken(true)) } else { self.go_on_swallowing(swallow) };
                (line.len(), outcome)
            }
            _ => (line.len(), Some(swallow.rejected.taken(false))),
        }
    }

    /// Stays at it while there is patience left.
    fn go_on_swallowing(&mut self, swallow: Box<Swallow>) -> Option<Taken> {
        if swallow.patience == 0 {
            self.forget();
            return Some(swallow.rejected.taken(true));
        }
        self.mode = Mode::Swallow(swallow);
        None
    }

    /// Expects what may follow a message's literal, up to the next literal or the end of the line.
    fn append_end(&mut self, append: OpenAppend, bytes: &[u8]) -> (usize, Option<Taken>) {
        let (line, ended) = first_line(bytes);
        let room = APPEND_LINE_MAX.saturating_sub(self.held.len());
        let part = line.get(..room).unwrap_or(line);
        self.watch.feed(part);
        self.held.extend_from_slice(part);
        if part.len() < line.len() {
            let refusal = Refusal::Bad("[TOOBIG] what stands between two messages is too long");
            self.start_swallowing(Rejected { tag: Some(append.tag), refusal }, 0);
            return (part.len(), None);
        }
        if !ended {
            self.mode = Mode::AppendEnd(append);
            return (part.len(), None);
        }
        let header = self.watch.finish();
        // As for other commands: a literal may end with CR.
        let text = self.held.get(self.text_start..).map_or(0, |text| without_line_end(text).len());
        self.held.truncate(self.text_start + text);
        if header.is_some() {
            self.held.extend_from_slice(b"\r\n");
        }
        let outcome = match (grammar::append_rest(&self.held, append.open, self.utf8), header) {
            (Ok(AppendLine::Held), Some(header)) => return (part.len(), self.append_url(append, header)),
            (Ok(AppendLine::Pieces(pieces, open)), _) => {
                self.append = open.map(|open| OpenAppend { tag: append.tag, open });
                Some(Taken::AppendLine(pieces))
            }
            (Err(refusal), Some(header)) => {
                return (part.len(), self.refuse_literal(Rejected { tag: Some(append.tag), refusal }, header));
            }
            (Err(refusal), None) => Some(Rejected { tag: Some(append.tag), refusal }.taken(false)),
            (Ok(AppendLine::Held), None) => {
                Some(Rejected { tag: Some(append.tag), refusal: Refusal::Usage }.taken(false))
            }
        };
        self.held = Vec::new();
        self.text_start = 0;
        (part.len(), outcome)
    }

    /// A URL behind an APPEND's message is a literal.
    fn append_url(&mut self, append: OpenAppend, header: LiteralHeader) -> Option<Taken> {
        self.text_start = self.held.len();
        match usize::try_from(header.size) {
            Ok(size) if size <= APPEND_LINE_MAX.saturating_sub(self.held.len()) => {
                self.mode = if size > 0 { Mode::AppendUrl(size, append) } else { Mode::AppendEnd(append) };
                header.synchronizing.then_some(Taken::Continue)
            }
            _ => {
                let refusal = Refusal::Bad("[TOOBIG] the URL is too long");
                self.refuse_literal(Rejected { tag: Some(append.tag), refusal }, header)
            }
        }
    }

    /// Drops what was gathered, and its memory.
    fn forget(&mut self) {
        self.held = Vec::new();
        self.text_start = 0;
        self.mode = Mode::Text;
        self.watch = LiteralWatch::default();
    }
}

impl Rejected {
    fn taken(self, fatal: bool) -> Taken {
        match (self.tag, self.refusal) {
            (Some(tag), Refusal::No(text)) if !fatal => Taken::Declined { tag, text },
            (tag, Refusal::No(text) | Refusal::Bad(text)) => Taken::Refused { tag, text, fatal },
            (tag, Refusal::Usage) => Taken::Refused { tag, text: "syntax error", fatal },
        }
    }
}

fn taken(parsed: Result<Tagged, Rejected>) -> Taken {
    parsed.map_or_else(|rejected| rejected.taken(false), Taken::Command)
}

/// Bytes up to and including the first LF, and whether there is one.
fn first_line(bytes: &[u8]) -> (&[u8], bool) {
    let line = bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    (line, line.ends_with(b"\n"))
}

/// A line without its CRLF or LF.
fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Watches a command's text go by and knows at a line's end whether a literal's header ended it.
#[derive(Clone, Copy, Debug, Default)]
enum LiteralWatch {
    #[default]
    Plain,
    /// In a quoted string, where a brace means nothing.
    Quoted,
    /// Behind a backslash there.
    Escaped,
    /// Behind `{` and this number, if any digit has come.
    Size(Option<u64>),
    /// Behind `+`.
    Plus(u64),
    /// Behind `}`.
    Closed(LiteralHeader),
    /// Behind `}` CR.
    Return(LiteralHeader),
    /// Behind the LF: what `finish` tells.
    Ended(Option<LiteralHeader>),
}

impl LiteralWatch {
    fn feed(&mut self, text: &[u8]) {
        for byte in text {
            *self = self.after(*byte);
        }
    }

    /// Tells whether a literal follows the line that has ended, and begins anew.
    fn finish(&mut self) -> Option<LiteralHeader> {
        match std::mem::take(self) {
            Self::Ended(header) => header,
            _ => None,
        }
    }

    #[expect(clippy::match_same_arms, reason = "the order of the arms matters")]
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Closed(header) | Self::Return(header), b'\n') => Self::Ended(Some(header)),
            (_, b'\n') => Self::Ended(None),
            (Self::Quoted, b'\\') => Self::Escaped,
            (Self::Quoted, b'"') => Self::Plain,
            (Self::Quoted | Self::Escaped, _) => Self::Quoted,
            (Self::Size(size), b'0'..=b'9') => {
                let size = size.unwrap_or(0).saturating_mul(10).saturating_add(u64::from(byte - b'0'));
                Self::Size(Some(size))
            }
            (Self::Size(Some(size)), b'+') => Self::Plus(size),
            (Self::Size(Some(size)), b'}') => Self::Closed(LiteralHeader { size, synchronizing: true }),
            (Self::Plus(size), b'}') => Self::Closed(LiteralHeader { size, synchronizing: false }),
            (Self::Closed(header), b'\r') => Self::Return(header),
            (_, b'{') => Self::Size(None),
            (_, b'"') => Self::Quoted,
            _ => Self::Plain,
        }
    }
}

#[cfg(test)]
mod tests;
