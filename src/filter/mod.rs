//! Judgements on a message: pure functions of what it holds and of what is known.

pub mod spam; // how much a message looks like spam, and learning that
