//! The crash laboratory: cuts the power under a store and looks at what is left.
//!
//! A `journey` drives a store on a simulated `medium` and records everything that happens to its
//! files, with the moments at which commands were sent and answered (`driver`). `cut` makes from a
//! recording what a medium may hold after a power cut at any moment of it. The store is opened on
//! that, `view` reads all it shows, and `judge` compares it with what the `model` says must be there;
//! then the store goes on, and the next cut may fall into its recovery or what follows.
//!
//! Everything is chosen by a seed: the same seed gives the same recordings and the same cuts.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a laboratory that panics has found something, or is broken"
)]

mod command; // what is asked of the store
pub(crate) mod cut; // what a power cut leaves
mod dice; //    chance from a seed
mod driver; //  commands with the moments of their answers
mod image; //   a file's bytes, in shared pages
mod import; //  a journey of its own
mod journey; // what is done while the power may go
mod judge; //   is what is there what must be there?
pub(crate) mod lab; // recordings and cuts, many of them
mod learning; // spam learning, and a journey of its own
mod letter; //  messages and their prints
mod medium; //  the simulated site
mod model; //   what must be there
mod old; //     a store of the first schema
mod outgoing; // queued mail, and journeys of its own
mod view; //    what is there
