//! Rights on a mailbox, and who has them (RFC 4314 section 2).
//!
//! Each right is a letter. `c` and `d` are those of RFC 2086: `c` is what `k` and `x` are together, `d`
//! what `t` and `e` are; they are read as that, and written where any of the two is there.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::mailbox::AccountId;
use super::message::{FlagNames, SystemFlags};

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rights(u16);

/// The letters in the order they are written, each with its bit's place.
const LETTERS: [char; 11] = ['l', 'r', 's', 'w', 'i', 'p', 'k', 'x', 't', 'e', 'a'];

impl Rights {
    /// None.
    pub const NONE: Self = Self(0);
    /// `l`: the mailbox is seen by LIST.
    pub const LOOKUP: Self = Self(1);
    /// `r`: it may be selected.
    pub const READ: Self = Self(1 << 1);
    /// `s`: `\Seen` may be set and cleared.
    pub const SEEN: Self = Self(1 << 2);
    /// `w`: so may flags other than `\Seen` and `\Deleted`.
    pub const WRITE: Self = Self(1 << 3);
    /// `i`: messages may be put there.
    pub const INSERT: Self = Self(1 << 4);
    /// `p`: mail may be sent there. Nothing here asks for it; it is kept for clients.
    pub const POST: Self = Self(1 << 5);
    /// `k`: mailboxes may be made below it.
    pub const CREATE: Self = Self(1 << 6);
    /// `x`: it may be deleted and renamed.
    pub const DELETE: Self = Self(1 << 7);
    /// `t`: `\Deleted` may be set and cleared.
    pub const MARK: Self = Self(1 << 8);
    /// `e`: messages so marked may be removed.
    pub const EXPUNGE: Self = Self(1 << 9);
    /// `a`: who has which rights may be seen and changed.
    pub const ADMINISTER: Self = Self(1 << 10);
    /// All of them.
    pub const ALL: Self = Self((1 << 11) - 1);

    /// Those of either.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Tells whether all of `other` are among them.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Tells whether any of `other` is among them.
    #[must_use]
    pub const fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Tells whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The rights of these letters, those of RFC 2086 included; `None` where a letter is none.
    #[must_use]
    pub fn parse(letters: &str) -> Option<Self> {
        letters.chars().try_fold(Self::NONE, |rights, letter| {
            let named = match letter {
                'c' => Self::CREATE.and(Self::DELETE),
                'd' => Self::MARK.and(Self::EXPUNGE),
                _ => Self(1 << LETTERS.iter().position(|known| *known == letter)?),
            };
            Some(rights.and(named))
        })
    }

    /// The letters of those there are, one by one.
    pub fn letters(self) -> impl Iterator<Item = char> {
        LETTERS.into_iter().enumerate().filter(move |(bit, _)| self.0 >> bit & 1 == 1).map(|(_, letter)| letter)
    }

    /// Tells whether a mailbox where one has them may be changed at all: else it is opened READ-ONLY (RFC
    /// 4314 section 5.2).
    #[must_use]
    pub fn may_write(self) -> bool {
        self.has_any(Self::INSERT.and(Self::EXPUNGE).and(Self::flags()))
    }

    /// The rights to any flag.
    #[must_use]
    pub const fn flags() -> Self {
        Self::SEEN.and(Self::WRITE).and(Self::MARK)
    }

    /// The system flags that may be set and cleared.
    #[must_use]
    pub fn system_flags(self) -> SystemFlags {
        let kept = |right, flags: SystemFlags| if self.has(right) { flags.0 } else { 0 };
        let special = SystemFlags::SEEN.union(SystemFlags::DELETED);
        let others = SystemFlags(!special.0);
        SystemFlags(
            kept(Self::SEEN, SystemFlags::SEEN) | kept(Self::MARK, SystemFlags::DELETED) | kept(Self::WRITE, others),
        )
    }

    /// Those of `flags` that may be set and cleared.
    #[must_use]
    pub fn permitted(self, flags: FlagNames) -> FlagNames {
        let system = SystemFlags(flags.system.0 & self.system_flags().0);
        FlagNames { system, keywords: if self.has(Self::WRITE) { flags.keywords } else { Vec::new() } }
    }
}

impl fmt::Display for Rights {
    /// Writes the letters, and `c` and `d` where one of what they stand for is there (RFC 4314 section
    /// 2.1.1).
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.letters() {
            write!(out, "{letter}")?;
        }
        for (old, group) in [('c', Self::CREATE.and(Self::DELETE)), ('d', Self::MARK.and(Self::EXPUNGE))] {
            if self.has_any(group) {
                write!(out, "{old}")?;
            }
        }
        Ok(())
    }
}

/// What SETACL does with the rights it names (RFC 4314 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RightsMode {
    /// They take the place of those there are.
    Replace,
    /// They are added.
    Add,
    /// They are taken away.
    Remove,
}

impl RightsMode {
    /// What becomes of rights.
    #[must_use]
    pub fn change(self, before: Rights, named: Rights) -> Rights {
        match self {
            Self::Replace => named,
            Self::Add => before.and(named),
            Self::Remove => before.without(named),
        }
    }
}

/// Whom rights are given to (RFC 4314 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identifier {
    /// `anyone`: every account of this server.
    Anyone,
    /// One account.
    Account(AccountId),
}

/// What one identifier is given and denied on a mailbox. What is denied to somebody is taken from what he
/// is given, be it by his own name or by `anyone` (RFC 4314 section 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Given.
    pub given: Rights,
    /// Denied: what stands under the identifier with a `-` before it.
    pub denied: Rights,
}

impl Grant {
    /// What both say.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { given: self.given.and(other.given), denied: self.denied.and(other.denied) }
    }

    /// What is left.
    #[must_use]
    pub fn rights(self) -> Rights {
        self.given.without(self.denied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_and_written_in_one_order() {
        let rights = Rights::parse("ealr").unwrap();
        assert_eq!(rights.to_string(), "lread");
        assert_eq!(Rights::ALL.to_string(), "lrswipkxteacd");
        assert_eq!(Rights::parse("").unwrap(), Rights::NONE);
        for wrong in ["z", "L", "l r", "0"] {
            assert_eq!(Rights::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_old_rights_stand_for_two_each() {
        assert_eq!(Rights::parse("c"), Rights::parse("kx"));
        assert_eq!(Rights::parse("d"), Rights::parse("te"));
        assert_eq!(Rights::parse("dt"), Rights::parse("te"));
        assert_eq!(Rights::parse("k").unwrap().to_string(), "kc");
    }

    #[test]
    fn each_flag_has_its_right() {
        let permitted = |letters| Rights::parse(letters).unwrap().system_flags();
        assert_eq!(permitted("s"), SystemFlags::SEEN);
        assert_eq!(permitted("t"), SystemFlags::DELETED);
        assert!(permitted("w").contains(SystemFlags::FLAGGED) && !permitted("w").contains(SystemFlags::SEEN));
        assert_eq!(permitted("stw"), SystemFlags(u8::MAX));
        assert_eq!(permitted("lrikxa"), SystemFlags(0));
    }

    #[test]
    fn what_is_denied_is_taken_from_what_anyone_has() {
        let rights = |letters| Rights::parse(letters).unwrap();
        let anyone = Grant { given: rights("lrs"), denied: Rights::NONE };
        let bob = Grant { given: rights("w"), denied: rights("s") };
        assert_eq!(anyone.and(bob).rights(), rights("lrw"));
    }
}
