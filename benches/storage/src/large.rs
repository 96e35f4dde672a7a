//! placeholder
pub fn main(_: &[&str]) {}
pub fn child(_: &[&str]) {}
