//! A domain's DKIM keys: an Ed25519 and an RSA key together, in the data folder (RFC 6376, RFC 8463).
//!
//! Keys come in pairs, because not every receiver knows Ed25519 yet. `dkim/DOMAIN/` holds a file for
//! each key, named after its selector, and `keys.json`, which says since when each pair signs. A new
//! pair is published before it signs, and an old one stays published after it, so that no mail under
//! way loses its signature's key.

use std::fmt;
use std::io;
use std::path::PathBuf;

mod der; //     what keys are written in
mod keyring; // a domain's pairs: making, taking turns, removing
mod pair; //    two keys and what they sign
mod rsa; //     makes RSA keys

pub use keyring::{KEPT_SECS, KeyRow, Keyring, OVERLAP_SECS, PAIRS_MAX, Turn};
pub use pair::{Algorithm, Pair, SEEDS};

/// The folder in the data folder.
pub const FOLDER: &str = "dkim";

/// Why a domain's keys cannot be used or changed. `Display` is one sentence without its full stop.
#[derive(Debug)]
pub enum KeyError {
    /// A file can't be read or written.
    File(PathBuf, io::Error),
    /// A file is not what it should be.
    Damaged(PathBuf),
    /// Others may read a private key.
    Exposed(PathBuf, u32),
    /// The domain is an address literal, or no name that DNS could have.
    Domain(String),
    /// It cannot be done now; the text says why and what helps.
    Refused(String),
}

impl fmt::Display for KeyError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(out, "{}: {error}", path.display()),
            Self::Damaged(path) => write!(
                out,
                "{} is damaged; take it from a backup, or move its folder away and publish new keys",
                path.display()
            ),
            Self::Exposed(path, mode) => write!(
                out,
                "{} may be read by others (mode {mode:o}), so it signs nothing; run `chmod 600` on it, and \
                 `pillarbox dkim rotate` if others have been on this machine",
                path.display()
            ),
            Self::Domain(name) => write!(out, "`{name}` is no domain that keys could be published for"),
            Self::Refused(why) => out.write_str(why),
        }
    }
}

impl std::error::Error for KeyError {}

/// The name as DNS has it, in A-labels (RFC 5890).
///
/// # Errors
/// [`KeyError::Domain`] when DNS has no such names.
pub fn dns_name(domain: &str) -> Result<String, KeyError> {
    let wrong = || KeyError::Domain(domain.to_owned());
    let name = idna::domain_to_ascii(domain).map_err(|_| wrong())?;
    let fits = !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| !label.is_empty() && label.len() <= 63)
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if fits { Ok(name) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_what_dns_has_and_never_lead_out_of_the_folder() {
        assert_eq!(dns_name("Bücher.example").unwrap(), "xn--bcher-kva.example");
        assert_eq!(dns_name("mail_x.test").unwrap(), "mail_x.test");
        for name in ["", "..", ".", "a/b", "../x", "[192.0.2.1]", "a..b", "x\0y"] {
            assert!(dns_name(name).is_err(), "{name:?}");
        }
    }
}
