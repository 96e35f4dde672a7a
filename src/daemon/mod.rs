//! Which tasks run, and how they stop.
