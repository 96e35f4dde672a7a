//! Domains and addresses (RFC 5321 section 4.1.2, RFC 6531 section 3.3).
//!
//! What RFC 5321 calls a mailbox is our [`Address`]; "mailbox" is kept for IMAP. Both types are
//! bounded by RFC 5321 section 4.5.3.1, hold valid UTF-8 and compare without regard to ASCII case
//! in the domain. The local part keeps its spelling; [`Address::key`] folds it for look-ups.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest domain in bytes (RFC 5321 section 4.5.3.1.2).
pub const DOMAIN_MAX: usize = 255;

/// Longest local part in bytes (RFC 5321 section 4.5.3.1.1).
pub const LOCAL_PART_MAX: usize = 64;

/// A domain name, or an address literal in brackets (RFC 5321 section 4.1.3). Never empty, at most
/// [`DOMAIN_MAX`] bytes, kept in lower case; U-labels are kept as UTF-8 (RFC 6531).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Domain(String);

impl Domain {
    /// Parses a domain name or an address literal.
    ///
    /// # Errors
    /// [`AddressError::Domain`] when it is neither.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() || text.len() > DOMAIN_MAX {
            return Err(AddressError::Domain);
        }
        if let Some(literal) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let printable = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'[' | b']' | b'\\');
            let fits = !literal.is_empty() && literal.bytes().all(printable);
            return fits.then(|| Self(text.to_ascii_lowercase())).ok_or(AddressError::Domain);
        }
        let label = |label: &str| {
            let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || !byte.is_ascii();
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // Control and white-space characters beyond ASCII never belong to a U-label.
        let plain = text.chars().all(|c| c.is_ascii() || c.is_alphanumeric() || !(c.is_control() || c.is_whitespace()));
        if plain && text.split('.').all(label) { Ok(Self(text.to_lowercase())) } else { Err(AddressError::Domain) }
    }

    /// The name in lower case, or the literal with its brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether this is an address literal.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.0.starts_with('[')
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// An address: local part and domain. The local part is kept without quotes and as it was spelled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    local: String,
    domain: Domain,
}

impl Address {
    /// Parses `local@domain`; the local part may be a quoted string (RFC 5321 section 4.1.2).
    ///
    /// # Errors
    /// Says which side is wrong.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::NoAt)?;
        let local = parse_local_part(local).ok_or(AddressError::LocalPart)?;
        Ok(Self { local, domain: Domain::parse(domain)? })
    }

    /// Puts an address together from a local part without quotes and a domain.
    ///
    /// # Errors
    /// [`AddressError::LocalPart`] when the local part is empty, too long or holds control characters.
    pub fn new(local: &str, domain: Domain) -> Result<Self, AddressError> {
        let fits = !local.is_empty() && local.len() <= LOCAL_PART_MAX && !local.chars().any(char::is_control);
        fits.then(|| Self { local: local.to_owned(), domain }).ok_or(AddressError::LocalPart)
    }

    /// The local part, without quotes, as spelled.
    #[must_use]
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The key under which the store looks an address up: all lower case, without quotes.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}@{}", self.local.to_lowercase(), self.domain)
    }

    /// The address without its subaddress (RFC 5233): `ann+lists@x` gives `ann@x` and `lists`.
    #[must_use]
    pub fn without_detail(&self) -> Option<(Self, &str)> {
        let (user, detail) = self.local.split_once('+').filter(|(user, _)| !user.is_empty())?;
        Some((Self { local: user.to_owned(), domain: self.domain.clone() }, detail))
    }

    /// Tells whether the address needs SMTPUTF8 (RFC 6531).
    #[must_use]
    pub fn is_international(&self) -> bool {
        !self.local.is_ascii() || !self.domain.0.is_ascii()
    }
}

impl fmt::Display for Address {
    /// Writes the address as SMTP does, the local part quoted where it must be.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_dot_string(&self.local) {
            return write!(out, "{}@{}", self.local, self.domain);
        }
        out.write_str("\"")?;
        for c in self.local.chars() {
            if matches!(c, '"' | '\\') {
                out.write_str("\\")?;
            }
            write!(out, "{c}")?;
        }
        write!(out, "\"@{}", self.domain)
    }
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// There is no `@`.
    NoAt,
    /// The part before the last `@` is empty, too long or holds what it may not.
    LocalPart,
    /// The part after the last `@` is neither a domain name nor an address literal.
    Domain,
}

impl fmt::Display for AddressError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::NoAt => "an address needs an @",
            Self::LocalPart => "the part before the @ is not a valid local part",
            Self::Domain => "the part after the @ is not a valid domain",
        })
    }
}

impl std::error::Error for AddressError {}

/// Tells whether a local part needs no quotes (RFC 5321 `Dot-string`, with RFC 6531's UTF-8).
fn is_dot_string(local: &str) -> bool {
    let atext = |c: char| {
        if c.is_ascii() { c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) } else { !c.is_control() }
    };
    local.split('.').all(|atom| !atom.is_empty() && atom.chars().all(atext))
}

/// Returns the local part without quotes, or `None` when it is malformed or too long.
fn parse_local_part(text: &str) -> Option<String> {
    if text.len() > LOCAL_PART_MAX {
        return None;
    }
    let Some(quoted) = text.strip_prefix('"') else {
        return is_dot_string(text).then(|| text.to_owned());
    };
    let mut plain = String::new();
    let mut rest = quoted.strip_suffix('"')?.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => plain.push(rest.next().filter(|c| matches!(c, ' '..='~'))?),
            '"' => return None,
            c if c.is_control() => return None,
            c => plain.push(c),
        }
    }
    (!plain.is_empty()).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_address_says_it_is_parses_back() {
        for text in ["ann@example.org", "a.b+c@[192.0.2.1]", r#""a b\"c"@example.org"#, "jürgen@bücher.example"] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(Address::parse(&address.to_string()), Ok(address));
        }
    }

    #[test]
    fn a_malformed_address_says_which_side_is_wrong() {
        assert_eq!(Address::parse("ann"), Err(AddressError::NoAt));
        for text in ["@x", "a..b@x", ".a@x", "a b@x", "\"a@x", "a\rb@x", "\"\"@x"] {
            assert_eq!(Address::parse(text), Err(AddressError::LocalPart), "{text:?}");
        }
        for text in ["a@", "a@-x", "a@x..y", "a@x y", "a@[", "a@[]", "a@x.", "a@.x"] {
            assert_eq!(Address::parse(text), Err(AddressError::Domain), "{text:?}");
        }
    }

    #[test]
    fn a_subaddress_is_cut_at_the_first_plus() {
        let address = Address::parse("ann+lists+rust@example.org").unwrap();
        let (user, detail) = address.without_detail().unwrap();
        assert_eq!((user.to_string().as_str(), detail), ("ann@example.org", "lists+rust"));
        assert!(Address::parse("+x@example.org").unwrap().without_detail().is_none());
    }
}
