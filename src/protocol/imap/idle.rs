//! IDLE (RFC 2177, RFC 9051 section 6.3.13): the client waits, changes are told as they come.
//!
//! Most sessions spend their life here, so it holds nothing but a bit: what it knows of the
//! mailbox is the view, and each notice runs one short sync.

use super::desk::{Desk, End, Errand, Then, Turn};
use super::errand::telling::Telling;
use super::intake::Intake;
use super::request::Answer;

/// Longest line that can end IDLE: `DONE`.
const LINE_MAX: usize = 4;

/// A client in IDLE.
#[derive(Debug)]
pub(crate) struct Idle {
    state: State,
}

#[derive(Debug)]
enum State {
    Begin,
    Wait,
    /// Something changed.
    Woken,
    /// Changes are being told.
    Tell(Box<Telling>),
    /// The client's line has come.
    Ended {
        done: bool,
    },
}

impl Idle {
    /// A client that begins to wait.
    pub(crate) fn new() -> Self {
        Self { state: State::Begin }
    }
}

impl Errand for Idle {
    fn go(&mut self, desk: &mut Desk, mut answer: Option<Answer>) -> Turn {
        loop {
            let answer = answer.take();
            match &mut self.state {
                State::Begin => {
                    desk.put(format_args!("+ idling\r\n"));
                    // What happened between the last command and now is told at once.
                    self.state = State::Woken;
                }
                State::Wait => return Turn::Read,
                State::Woken if desk.view.is_none() && desk.notify.is_none() => self.state = State::Wait,
                State::Woken => self.state = State::Tell(Box::new(Telling::unasked(desk, true))),
                State::Tell(telling) => match telling.go(desk, answer) {
                    Turn::Done(end) if end.then == Then::GoOn => {
                        self.state = State::Wait;
                        return Turn::Read;
                    }
                    turn => return turn,
                },
                State::Ended { done: true } => return Turn::Done(End::ok("IDLE completed")),
                State::Ended { done: false } => return Turn::Done(End::bad("DONE was expected")),
            }
        }
    }

    fn receive(&mut self, _desk: &mut Desk, intake: &mut Intake, bytes: &[u8]) -> usize {
        let (taken, line) = intake.take_line(bytes, LINE_MAX);
        if let Some(line) = line {
            self.state = State::Ended { done: line.eq_ignore_ascii_case(b"DONE") };
        }
        taken
    }

    fn wants_changes(&self) -> bool {
        matches!(self.state, State::Wait)
    }

    fn changed(&mut self) {
        self.state = State::Woken;
    }
}
