//! What a check finds: where, what is wrong, and what can be done about it.
//!
//! A finding names what a person knows: account, mailbox, uid, date and subject where they can
//! still be read, so that it is clear what is lost. Findings travel over the control socket and
//! into `--json` as they are.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::mail::date::ZonedTime;

/// Longest subject in a finding, in characters.
const SUBJECT_MAX: usize = 60;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub damage: Damage,
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// `mail.redb` as a whole.
    Index,
    /// `mail.journal`
    Journal,
    /// A row of a table, where no other name fits.
    Row {
        /// The table.
        table: String,
        /// The row's key.
        key: String,
    },
    /// An address: an account's or an alias.
    Address(String),
    /// An account.
    Account {
        /// Its number.
        id: u32,
        /// Its address, or what is known instead.
        address: String,
    },
    /// A mailbox.
    Mailbox {
        /// Its number.
        id: u32,
        /// `INBOX of ann@example.org`, or what is known instead.
        name: String,
    },
    /// A name of a mailbox, or a name that is subscribed.
    Name {
        /// The account's number.
        account: u32,
        /// The name.
        name: String,
    },
    /// A message.
    Message {
        /// Its mailbox's number.
        mailbox: u32,
        /// `INBOX of ann@example.org`, or what is known instead.
        name: String,
        /// Its uid.
        uid: u32,
        /// INTERNALDATE, where it can be read.
        date: Option<ZonedTime>,
        /// Its subject, where it can be read.
        subject: Option<String>,
    },
    /// A queued message.
    Queued {
        /// Its number.
        id: u64,
        /// From whom, where it can be read.
        from: Option<String>,
        /// Its subject, where it can be read.
        subject: Option<String>,
    },
    /// A recipient of a queued message.
    Recipient {
        /// The message's number.
        id: u64,
        /// The recipient's.
        number: u32,
    },
    /// A piece of what the spam filter learnt.
    Learned {
        /// Whose: 0 is the box.
        learner: u32,
        /// Its number.
        piece: u16,
    },
    /// A sheet of the gram index.
    Sheet {
        /// The number of its first body.
        first: u64,
    },
    /// Rights on a mailbox.
    Grant {
        /// The mailbox's number.
        mailbox: u32,
        /// The account's number, all ones for `anyone`.
        identifier: u32,
    },
    /// An annotation.
    Annotation {
        /// The account's number.
        account: u32,
        /// The mailbox's, none where it is about the account.
        mailbox: Option<u32>,
        /// Its entry.
        entry: String,
    },
    /// A certificate that somebody logs in with, by its fingerprint.
    Certificate(String),
    /// A body that no message refers to.
    Body {
        /// Its number.
        id: u64,
        /// Its subject, where it can be read.
        subject: Option<String>,
    },
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damage {
    /// Pages of `mail.redb` are not what redb wrote.
    Pages(String),
    /// One of the two copies of the first block of `mail.redb` is not what was written.
    FirstBlock,
    /// The journal is not what was written.
    Ring(String),
    /// The record is not what was written.
    Unreadable,
    /// It stands behind a row it should stand before.
    Disorder,
    /// Counters differ from a recount.
    Miscounted(Vec<Miscount>),
    /// The mailbox is not found under its name.
    Unlisted,
    /// The name leads to no mailbox, or to one of another name.
    LeadsNowhere,
    /// The account it belongs to is not there.
    NoAccount,
    /// The address does not lead to its account.
    NoAddress,
    /// The domain is not local.
    NotLocal,
    /// Its messages are there, the mailbox is not.
    NoMailbox,
    /// It has keywords that the mailbox does not know.
    UnknownKeywords,
    /// Its size is not its body's.
    Size {
        /// What the message says.
        kept: u32,
        /// What the body says.
        found: u64,
    },
    /// The log of removed messages is not what was written, or names messages that are there.
    Vanished,
    /// Its body is not there.
    NoBody,
    /// The record of its body is not what was written, makes no sense, or is not there though pieces
    /// are.
    BodyRecord,
    /// Pieces of its body are missing or not what was written.
    Pieces {
        /// The first of them, counted from one.
        first: u32,
        /// How many.
        count: u32,
        /// How many the body has.
        of: u32,
    },
    /// A block of its body can't be unpacked; counted from one.
    Block(u32),
    /// Its body is whole and not what was kept: the hash is another.
    Hash,
    /// There are more pieces than the body has.
    Excess,
    /// What is kept of its structure is missing or not what was written.
    Structure,
    /// What is kept of its structure is not what is found in the body.
    StructureDiffers,
    /// No message refers to it.
    Unreferenced,
    /// Pieces of a body whose record is not there.
    LonePieces,
    /// A structure of a body that is not there.
    LoneStructure,
    /// It is listed for removal and should not be.
    Listed,
    /// What is due of a queued message is not in the schedule, or the schedule has more.
    Unscheduled,
    /// There are recipients of a queued message that is not there.
    NoMessage,
    /// What an annotation or a right is about is not there.
    AboutNothing,
    /// It stands in one of two tables that should agree.
    Onesided,
}

/// A counter that differs from a recount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Miscount {
    /// Which.
    pub of: Counter,
    /// What it says.
    pub kept: u64,
    /// What a recount finds; for what may be larger, the least that it must be.
    pub found: u64,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "`words` says each")]
pub enum Counter {
    Messages,
    Unseen,
    Deleted,
    Size,
    DeletedSize,
    NextUid,
    FirstRecent,
    HighestModSeq,
    VanishedBytes,
    UidValidity,
    References,
    Applied,
    NextBody,
    NextAccount,
    NextMailbox,
    LastUidValidity,
    Recipients,
    Unsettled,
}

/// What can be done about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// `pillarbox check-store --repair` sets it right.
    Repair,
    /// What is lost is lost here: a backup may have it, or `pillarbox salvage` parts of it.
    Backup,
}

impl Counter {
    fn words(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Unseen => "unseen messages",
            Self::Deleted => "messages marked as deleted",
            Self::Size => "bytes",
            Self::DeletedSize => "bytes marked as deleted",
            Self::NextUid => "next uid",
            Self::FirstRecent => "first recent uid",
            Self::HighestModSeq => "highest modification sequence",
            Self::VanishedBytes => "bytes of removed uids",
            Self::UidValidity => "UIDVALIDITY",
            Self::References => "references",
            Self::Applied => "last change",
            Self::NextBody => "next body",
            Self::NextAccount => "next account",
            Self::NextMailbox => "next mailbox",
            Self::LastUidValidity => "last UIDVALIDITY",
            Self::Recipients => "recipients",
            Self::Unsettled => "unsettled recipients",
        }
    }
}

impl Damage {
    /// What can be done about it.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Pages(_)
            | Self::Disorder
            | Self::BodyRecord
            | Self::Pieces { .. }
            | Self::Block(_)
            | Self::Hash
            | Self::Excess
            | Self::LonePieces => Remedy::Backup,
            _ => Remedy::Repair,
        }
    }
}

/// A subject short enough for a finding.
pub(super) fn short(subject: &str) -> String {
    let mut words: String = subject.chars().filter(|c| !c.is_control()).take(SUBJECT_MAX).collect();
    if subject.chars().nth(SUBJECT_MAX).is_some() {
        words.push('…');
    }
    words
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.place, self.damage)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index => out.write_str("mail.redb"),
            Self::Journal => out.write_str("mail.journal"),
            Self::Row { table, key } => write!(out, "mail.redb, row {key} of table {table}"),
            Self::Address(address) => write!(out, "address {address}"),
            Self::Account { address, .. } => write!(out, "account {address}"),
            Self::Mailbox { name, .. } => write!(out, "mailbox {name}"),
            Self::Name { account, name } => write!(out, "mailbox name {name} of account number {account}"),
            Self::Message { name, uid, date, subject, .. } => {
                write!(out, "message {uid} in {name}")?;
                match (date.map(day), subject) {
                    (Some(day), Some(subject)) => write!(out, " ({day}, \"{subject}\")"),
                    (Some(day), None) => write!(out, " ({day})"),
                    (None, Some(subject)) => write!(out, " (\"{subject}\")"),
                    (None, None) => Ok(()),
                }
            }
            Self::Queued { id, from, subject } => {
                write!(out, "queued message {id}")?;
                if let Some(from) = from {
                    write!(out, " from {from}")?;
                }
                subject.as_ref().map_or(Ok(()), |subject| write!(out, " (\"{subject}\")"))
            }
            Self::Recipient { id, number } => write!(out, "recipient {number} of queued message {id}"),
            Self::Learned { learner: 0, piece } => write!(out, "piece {piece} of what the spam filter learnt"),
            Self::Learned { learner, piece } => {
                write!(out, "piece {piece} of what the spam filter learnt of account number {}", learner - 1)
            }
            Self::Sheet { first } => write!(out, "the search index from body {first} on"),
            Self::Grant { mailbox, identifier: u32::MAX } => {
                write!(out, "rights of anyone on mailbox number {mailbox}")
            }
            Self::Grant { mailbox, identifier } => {
                write!(out, "rights of account number {identifier} on mailbox number {mailbox}")
            }
            Self::Annotation { account, mailbox: Some(mailbox), entry } => {
                write!(out, "annotation {entry} of mailbox number {mailbox} of account number {account}")
            }
            Self::Annotation { account, mailbox: None, entry } => {
                write!(out, "annotation {entry} of account number {account}")
            }
            Self::Certificate(fingerprint) => write!(out, "certificate {fingerprint}"),
            Self::Body { id, subject: Some(subject) } => write!(out, "body {id} (\"{subject}\")"),
            Self::Body { id, subject: None } => write!(out, "body {id}"),
        }
    }
}

/// The day of a time, as RFC 5322 spells it.
fn day(at: ZonedTime) -> String {
    let text = at.to_rfc5322();
    // `Thu, 12 Mar 2026 10:11:12 +0100`
    let words = text.split(' ').skip(1).take(3).collect::<Vec<_>>();
    words.join(" ")
}

impl fmt::Display for Damage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pages(what) => write!(out, "damaged pages ({what})"),
            Self::FirstBlock => out.write_str("one of the two copies of its first block is damaged"),
            Self::Ring(what) => out.write_str(what),
            Self::Unreadable => out.write_str("its record is damaged"),
            Self::Disorder => out.write_str("it is out of order"),
            Self::Miscounted(counts) => {
                for (index, Miscount { of, kept, found }) in counts.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(out, "{comma}{} is {kept} and should be {found}", of.words())?;
                }
                Ok(())
            }
            Self::Unlisted => out.write_str("it is not found under its name"),
            Self::LeadsNowhere => out.write_str("it leads to no mailbox of this name"),
            Self::NoAccount => out.write_str("its account is not there"),
            Self::NoAddress => out.write_str("its address does not lead to it"),
            Self::NotLocal => out.write_str("its domain is not local"),
            Self::NoMailbox => out.write_str("it has messages and no record"),
            Self::UnknownKeywords => out.write_str("it has keywords that its mailbox does not know"),
            Self::Size { kept, found } => write!(out, "its size is {kept} and its body's {found}"),
            Self::Vanished => out.write_str("its log of removed messages is damaged"),
            Self::NoBody => out.write_str("its body is not there"),
            Self::BodyRecord => out.write_str("the record of its body is lost"),
            Self::Pieces { first, count: 1, .. } => write!(out, "piece {first} of its body is damaged"),
            Self::Pieces { first, count, of } => {
                write!(out, "{count} of the {of} pieces of its body are damaged, the first is piece {first}")
            }
            Self::Block(index) => write!(out, "block {index} of its body can't be unpacked"),
            Self::Hash => out.write_str("its body is not what was kept"),
            Self::Excess => out.write_str("its body has pieces too many"),
            Self::Structure => out.write_str("what is kept of its structure is damaged"),
            Self::StructureDiffers => out.write_str("what is kept of its structure is not what is in its body"),
            Self::Unreferenced => out.write_str("no message refers to it"),
            Self::LonePieces => out.write_str("there are pieces of it and no record"),
            Self::LoneStructure => out.write_str("there is a structure of it and nothing else"),
            Self::Unscheduled => out.write_str("the schedule does not agree with its recipients"),
            Self::NoMessage => out.write_str("it has recipients and no record"),
            Self::Onesided => out.write_str("one of two tables does not know of it"),
            Self::AboutNothing => out.write_str("what it is about is not there"),
            Self::Listed => out.write_str("it is listed for removal and should not be"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::date::Timestamp;

    #[test]
    fn a_finding_says_what_is_lost() {
        let place = Place::Message {
            mailbox: 1,
            name: "INBOX of ann@pillar.test".to_owned(),
            uid: 17,
            date: Some(ZonedTime::utc(Timestamp(1_773_309_600))),
            subject: Some("Invoice".to_owned()),
        };
        let finding = Finding { place, damage: Damage::Pieces { first: 3, count: 1, of: 9 } };
        let said = "message 17 in INBOX of ann@pillar.test (12 Mar 2026, \"Invoice\"): piece 3 of its body is damaged";
        assert_eq!(finding.to_string(), said);
        let json = serde_json::to_string(&finding).unwrap();
        assert_eq!(serde_json::from_str::<Finding>(&json).unwrap(), finding);
    }

    #[test]
    fn a_subject_is_cut_and_cannot_move_the_cursor() {
        assert_eq!(short("a\u{1b}[2Jb"), "a[2Jb");
        assert_eq!(short(&"x".repeat(100)).chars().count(), SUBJECT_MAX + 1);
    }
}
