//! A command that is one question and one answer.

use std::fmt;

use crate::protocol::imap::desk::{Desk, Errand, Turn, unexpected};
use crate::protocol::imap::request::{Answer, Request};

/// Asks once and hands the answer to a function that ends the command.
pub(crate) struct Single<F> {
    request: Option<Request>,
    conclude: Option<F>,
}

impl<F> Single<F>
where
    F: FnOnce(&mut Desk, Answer) -> Turn + Send,
{
    /// Asks `request`; `conclude` turns its answer into the end.
    pub(crate) fn new(request: Request, conclude: F) -> Self {
        Self { request: Some(request), conclude: Some(conclude) }
    }
}

impl<F> fmt::Debug for Single<F> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Single").field("request", &self.request).finish_non_exhaustive()
    }
}

impl<F> Errand for Single<F>
where
    F: FnOnce(&mut Desk, Answer) -> Turn + Send,
{
    fn go(&mut self, desk: &mut Desk, answer: Option<Answer>) -> Turn {
        match (self.request.take(), answer) {
            (Some(request), _) => Turn::Ask(request),
            (None, Some(answer)) => match self.conclude.take() {
                Some(conclude) => conclude(desk, answer),
                None => unexpected(Some(answer)),
            },
            (None, None) => unexpected(None),
        }
    }
}
