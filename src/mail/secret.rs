//! Passwords and SCRAM verifiers (RFC 5802 section 3, RFC 7677).
//!
//! A [`Password`] shows itself nowhere: its `Debug` prints `Password(hidden)` and its bytes are
//! overwritten when it is dropped. What is kept of it is a [`ScramVerifier`], from which it can be
//! checked but not told.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest password in bytes.
pub const PASSWORD_MAX: usize = 256;

/// A password as the user typed it (UTF-8, at most [`PASSWORD_MAX`] bytes).
pub struct Password(String);

impl Password {
    /// Takes a password over; `None` when it is empty, too long or holds a NUL.
    #[must_use]
    pub fn new(text: String) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= PASSWORD_MAX && !text.contains('\0');
        fits.then_some(Self(text))
    }

    /// The password in clear, for the check and nothing else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Password(hidden)")
    }
}

/// What the store keeps of a password: SCRAM-SHA-256 keys (RFC 5802 section 3, RFC 7677).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScramVerifier {
    /// Salt.
    pub salt: [u8; 16],
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// `H(HMAC(SaltedPassword, "Client Key"))`
    pub stored_key: [u8; 32],
    /// `HMAC(SaltedPassword, "Server Key")`
    pub server_key: [u8; 32],
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ScramVerifier(hidden)")
    }
}
