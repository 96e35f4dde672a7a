//! Gathers a client's bytes into whole commands, literals included (RFC 9051 sections 2.2 and 4.3).

use super::command::Tagged;

/// What [`Intake::take`] came to.
#[derive(Debug)]
pub enum Taken {
    /// All bytes are taken and the command is not complete.
    More,
    /// A synchronising literal follows: send a continuation request and go on.
    Continue,
    /// A command is complete. For APPEND it is complete up to its literal: the session streams
    /// `size` bytes itself and then calls [`Intake::after_literal`].
    Command(Tagged),
    /// The command line after an APPEND literal has ended.
    LiteralEnd,
    /// No command: answer `BAD` (tagged where a tag was read) and go on, or close after `BYE`
    /// when going on makes no sense.
    Refused {
        /// The client's tag, if there was one.
        tag: Option<String>,
        /// What is wrong.
        text: &'static str,
        /// The stream can't be followed any more.
        fatal: bool,
    },
}

/// Gathers commands. Holds no memory between them.
#[derive(Debug, Default)]
pub struct Intake {}

#[expect(clippy::todo, reason = "the facade comes first")]
#[allow(unused_variables, clippy::unused_self)]
impl Intake {
    /// Takes bytes up to the end of a command or literal header, and says how many it took.
    pub fn take(&mut self, bytes: &[u8]) -> (usize, Taken) {
        todo!()
    }

    /// The session has streamed an APPEND literal; the rest of the command line follows.
    pub fn after_literal(&mut self) {
        todo!()
    }

    /// Takes a line that is no command: a SASL response or DONE. `None` until it is complete; the
    /// line has no CRLF. A line longer than `max` is cut and can't be what was asked for.
    pub fn take_line(&mut self, bytes: &[u8], max: usize) -> (usize, Option<Vec<u8>>) {
        todo!()
    }
}
