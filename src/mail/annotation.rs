//! Annotations (RFC 5464): small texts that clients keep beside a mailbox, or beside all of them.
//!
//! An entry is named like a path below `/private` or `/shared`. What is private is the mailbox's owner's;
//! what is shared is also for those with whom he shares the mailbox.

use serde::{Deserialize, Serialize};

/// Longest name of an entry, in bytes.
pub const ENTRY_NAME_MAX: usize = 255;

/// Longest value of an entry, in bytes; more is refused with `MAXSIZE` (RFC 5464 section 4.3).
pub const ANNOTATION_MAX: usize = 4 << 10;

/// Bytes that all annotations of an account may take, names and [`ANNOTATION_COST`] included; more is
/// refused with `TOOMANY` (RFC 5464 section 4.3).
pub const ANNOTATIONS_MAX: usize = 256 << 10;

/// What an annotation counts besides its name and its value.
pub const ANNOTATION_COST: usize = 32;

/// The name of an entry (RFC 5464 section 3.2): `/private` or `/shared` or something below, in lower
/// case, printable ASCII without `*` and `%`, no part of it empty, at most [`ENTRY_NAME_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryName(String);

impl EntryName {
    /// The name, or `None` when it breaks a rule of the type. Case makes no difference.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let printable = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'*' | b'%');
        let name = name.to_ascii_lowercase();
        let mut parts = name.strip_prefix('/')?.split('/');
        let scope = matches!(parts.next(), Some("private" | "shared"));
        let whole = scope && parts.all(|part| !part.is_empty());
        (whole && name.len() <= ENTRY_NAME_MAX && name.bytes().all(printable)).then_some(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether it is `/private` or `/shared` itself, which has no value.
    #[must_use]
    pub fn is_scope(&self) -> bool {
        self.0.rfind('/') == Some(0)
    }

    /// Tells whether it stands below `/shared`.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.0.starts_with("/shared")
    }

    /// How many levels it stands below `other`: 0 for itself, `None` when it is elsewhere.
    #[must_use]
    pub fn levels_below(&self, other: &Self) -> Option<usize> {
        let rest = self.0.strip_prefix(other.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then(|| rest.matches('/').count())
    }
}

/// An entry that has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Its name.
    pub entry: EntryName,
    /// Its value, at most [`ANNOTATION_MAX`] bytes of any kind.
    pub value: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_below_one_of_two_scopes() {
        assert_eq!(EntryName::new("/Private/Comment").unwrap().as_str(), "/private/comment");
        assert!(EntryName::new("/shared").unwrap().is_scope());
        assert!(!EntryName::new("/shared/x").unwrap().is_scope());
        let refused = [
            "",
            "/",
            "private/x",
            "/comment",
            "/shared/",
            "/shared//x",
            "/shared/*",
            "/shared/%",
            "/shared/\u{e9}",
            "/shared/\u{1}",
            "/sharedx",
        ];
        for name in refused {
            assert_eq!(EntryName::new(name), None, "{name:?}");
        }
        let long = |length: usize| EntryName::new(&format!("/shared/{}", "x".repeat(length - 8)));
        assert!(long(ENTRY_NAME_MAX).is_some() && long(ENTRY_NAME_MAX + 1).is_none());
    }

    #[test]
    fn depth_is_counted_in_levels() {
        let name = |text| EntryName::new(text).unwrap();
        let values = name("/private/filters/values");
        assert_eq!(values.levels_below(&values), Some(0));
        assert_eq!(name("/private/filters/values/boss").levels_below(&values), Some(1));
        assert_eq!(name("/private/filters/values/boss/deep").levels_below(&values), Some(2));
        assert_eq!(name("/private/filters/valuesx").levels_below(&values), None);
        assert_eq!(values.levels_below(&name("/shared")), None);
    }
}
