//! Spells ENVELOPE and BODYSTRUCTURE (RFC 9051 section 7.5.2).

use crate::mail::structure::Structure;

/// Writes the parenthesised envelope.
#[expect(clippy::todo, reason = "the facade comes first")]
pub fn write_envelope(out: &mut Vec<u8>, message: &Structure) {
    let _ = (out, message);
    todo!()
}

/// Writes BODYSTRUCTURE, or without its extension data BODY.
#[expect(clippy::todo, reason = "the facade comes first")]
pub fn write_body(out: &mut Vec<u8>, message: &Structure, extended: bool) {
    let _ = (out, message, extended);
    todo!()
}
