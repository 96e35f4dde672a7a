//! Judgements on a message: pure functions of what it holds and of what is known.

pub mod sender; // what the facts about a sender mean: refuse, Junk, accept
pub mod spam; // how much a message looks like spam, and learning that
