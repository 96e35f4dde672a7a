//! A spam filter of fixed size that learns at once and says why.
//!
//! [`Features`] are what a message shows: its words, short runs of letters, what its fields say and
//! in which order they stand, links, HTML, kinds of parts; each is a hash, and there are at most
//! [`FEATURES_MAX`] of them in any message. A [`Model`] keeps a few numbers for each hash in a table that
//! never grows and weighs a message by two methods, whose mean it takes: a linear one that corrects
//! itself by its mistakes (logistic regression) and a Bayesian one that counts (how often in spam,
//! how often in ham). Every message that was learnt is written down with what that changed, so a
//! mistake is taken back exactly. [`Judges`] puts the seed, the box's model and the account's together
//! and names the strongest reasons.

mod confusable; // letters that pose as others
mod features; //   what a message shows
mod fields; //     the header's features
mod html; //       what a reader of HTML sees, and what is hidden from him
mod judgement; //  one score of several models, with its reasons
mod known; //      whom an account has written to
mod ledger; //     what was learnt of which message
mod model; //      the table
mod seed; //       what is known before anything was learnt
mod signs; //      what the whole of a message shows
mod text; //       words, pairs and runs of letters

pub use features::{FEATURES_MAX, Features, Saying, WINDOW_MAX, Words};
pub use judgement::{Judgement, Judges, Reason, Share};
pub use known::Known;
pub use model::{Model, PieceError, Size, Taught};
pub use seed::{FILE_MAX as SEED_FILE_MAX, Seed, SeedError};

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Mail that was wanted.
    Ham,
    /// Mail that was not.
    Spam,
}
