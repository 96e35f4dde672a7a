//! The records of the tables: postcard in a [`seal`].
//!
//! A field is never changed in place: a record that needs another shape raises the schema, and
//! `upgrade` turns the old rows into the new. Counters are kept here so that STATUS and quota never
//! count rows.

use serde::de::{DeserializeOwned, Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::mail::address::Address;
use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::list::List;
use crate::mail::mailbox::{MailboxName, SpecialUse};
use crate::mail::message::{Flags, Keywords, SystemFlags, UidSet};
use crate::mail::secret::ScramVerifier;
use crate::mail::structure::Structure;

use super::blob::BlobRecord;
use super::error::Trouble;
use super::seal::{self, RowKey};
use super::{Quota, Usage};

/// A value of a table.
pub(super) trait Record: Serialize + DeserializeOwned {
    /// The table's name, which is part of the checksum and never changes; and what messages about
    /// damage say.
    const TABLE: &'static str;

    /// Spells the record as it stands under `key`.
    fn encode(&self, key: impl RowKey) -> Result<Vec<u8>, Trouble> {
        let value = postcard::to_extend(self, seal::begin()).map_err(|_| Trouble::damaged(Self::TABLE))?;
        Ok(seal::seal(Self::TABLE, key, value))
    }

    /// Reads what stands under `key`.
    fn decode(key: impl RowKey, value: &[u8]) -> Result<Self, Trouble> {
        postcard::from_bytes(seal::open(Self::TABLE, key, value)?).map_err(|_| Trouble::damaged(Self::TABLE))
    }
}

/// How far the index is, and the numbers not yet given out. One row, written with every group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The last change in the index.
    pub(super) applied: u64,
    /// The next body.
    pub(super) blob: u64,
    /// The next account.
    pub(super) account: u32,
    /// The next mailbox.
    pub(super) mailbox: u32,
    /// The last UIDVALIDITY given out.
    pub(super) uid_validity: u32,
    /// Bytes that bodies and what belongs to them take up where pages are full.
    pub(super) kept: u64,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AccountRecord {
    pub(super) address: Address,
    pub(super) verifier: ScramVerifier,
    pub(super) quota: Quota,
    pub(super) used: Usage,
}

/// Whose an address is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum AddressRecord {
    /// The first address of this account.
    Account(u32),
    /// An alias as it was spelled, and the accounts it leads to.
    Alias(Address, Vec<u32>),
    /// An alias that leads elsewhere too: its accounts, which may be none, and the other addresses.
    Forward(Address, Vec<u32>, Vec<Address>),
    /// A mailing list.
    List(Box<List>),
}

/// A mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MailboxRecord {
    pub(super) account: u32,
    pub(super) name: MailboxName,
    pub(super) special_use: Option<SpecialUse>,
    pub(super) uid_validity: u32,
    pub(super) uid_next: u32,
    pub(super) highest_modseq: u64,
    /// The last change of flags of a message that was there already.
    pub(super) flags_modseq: u64,
    pub(super) messages: u32,
    pub(super) unseen: u32,
    pub(super) deleted: u32,
    pub(super) size: u64,
    pub(super) deleted_size: u64,
    pub(super) keywords: Keywords,
    pub(super) recent_from: u32,
    /// What was removed after this change is in the log of removals; before it, perhaps not.
    pub(super) vanish_from: u64,
    /// Bytes of that log.
    pub(super) vanish_bytes: u32,
}

/// What a number of messages add to the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) messages: u32,
    pub(super) unseen: u32,
    pub(super) deleted: u32,
    pub(super) size: u64,
    pub(super) deleted_size: u64,
}

impl Tally {
    /// Counts one more message.
    pub(super) fn add(&mut self, flags: Flags, size: u32) {
        let deleted = flags.system.contains(SystemFlags::DELETED);
        self.messages += 1;
        self.unseen += u32::from(!flags.system.contains(SystemFlags::SEEN));
        self.deleted += u32::from(deleted);
        self.size += u64::from(size);
        self.deleted_size += if deleted { size.into() } else { 0 };
    }
}

impl MailboxRecord {
    /// One without messages.
    pub(super) fn empty(account: u32, name: MailboxName, uid_validity: u32, seq: u64) -> Self {
        Self {
            account,
            name,
            special_use: None,
            uid_validity,
            uid_next: 1,
            highest_modseq: seq,
            flags_modseq: 0,
            messages: 0,
            unseen: 0,
            deleted: 0,
            size: 0,
            deleted_size: 0,
            keywords: Keywords::default(),
            recent_from: 1,
            vanish_from: 0,
            vanish_bytes: 0,
        }
    }

    /// Counts messages in.
    pub(super) fn count_in(&mut self, tally: &Tally) {
        self.messages = self.messages.saturating_add(tally.messages);
        self.unseen = self.unseen.saturating_add(tally.unseen);
        self.deleted = self.deleted.saturating_add(tally.deleted);
        self.size = self.size.saturating_add(tally.size);
        self.deleted_size = self.deleted_size.saturating_add(tally.deleted_size);
    }

    /// Counts messages out.
    pub(super) fn count_out(&mut self, tally: &Tally) {
        self.messages = self.messages.saturating_sub(tally.messages);
        self.unseen = self.unseen.saturating_sub(tally.unseen);
        self.deleted = self.deleted.saturating_sub(tally.deleted);
        self.size = self.size.saturating_sub(tally.size);
        self.deleted_size = self.deleted_size.saturating_sub(tally.deleted_size);
    }
}

/// One message of one mailbox: the small record that SELECT and FETCH FLAGS read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MessageRecord {
    pub(super) flags: Flags,
    pub(super) modseq: u64,
    pub(super) internal_date: ZonedTime,
    pub(super) saved: Timestamp,
    pub(super) size: u32,
    pub(super) blob: u64,
}

/// Uids that one change removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct VanishRecord(pub(super) UidSet);

impl Record for Progress {
    const TABLE: &'static str = "state";
}

impl Record for AccountRecord {
    const TABLE: &'static str = "account";
}

impl Record for AddressRecord {
    const TABLE: &'static str = "address";
}

impl Record for MailboxRecord {
    const TABLE: &'static str = "mbox";
}

impl Record for MessageRecord {
    const TABLE: &'static str = "msg";
}

impl Record for VanishRecord {
    const TABLE: &'static str = "vanish";
}

/// What the part walker found in a body, as it was spelled when the body came, and behind it what the scan
/// left behind (`scanned`), if it was scanned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StructureRecord(pub(super) Bytes);

impl Record for StructureRecord {
    const TABLE: &'static str = "structure";
}

impl StructureRecord {
    /// What the part walker found, of a row that need not be kept.
    pub(super) fn structure(key: u64, value: &[u8]) -> Result<Structure, Trouble> {
        let bytes: Option<&[u8]> = postcard::from_bytes(seal::open(Self::TABLE, key, value)?).ok();
        let structure = bytes.and_then(|bytes| postcard::from_bytes(bytes).ok());
        structure.ok_or_else(|| Trouble::damaged(Self::TABLE))
    }
}

/// The value of an annotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AnnotationRecord(pub(super) Bytes);

impl Record for AnnotationRecord {
    const TABLE: &'static str = "annotation";
}

/// A certificate that somebody may log in with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CertificateRecord {
    pub(super) account: u32,
    pub(super) name: String,
    pub(super) added: Timestamp,
    pub(super) expires: Timestamp,
}

impl Record for CertificateRecord {
    const TABLE: &'static str = "certificate";
}

/// The mark in a body's row, by which it is found in a ruined file.
pub(super) const BLOB_MARK: [u8; 4] = *b"pbxB";

/// A body's row names its number itself and begins with a mark: version, mark, number (8 bytes,
/// little-endian), the fields, checksum.
impl Record for BlobRecord {
    const TABLE: &'static str = "blob";

    fn encode(&self, key: impl RowKey) -> Result<Vec<u8>, Trouble> {
        let mut value = seal::begin();
        value.extend_from_slice(&BLOB_MARK);
        key.feed(&mut |bytes| value.extend_from_slice(bytes));
        let value = postcard::to_extend(self, value).map_err(|_| Trouble::damaged(Self::TABLE))?;
        Ok(seal::seal(Self::TABLE, key, value))
    }

    fn decode(key: impl RowKey, value: &[u8]) -> Result<Self, Trouble> {
        // The checksum has the key already: the number in the row is for whoever has no key.
        let fields = seal::open(Self::TABLE, key, value)?.get(BLOB_MARK.len() + size_of::<u64>()..);
        fields.and_then(|fields| postcard::from_bytes(fields).ok()).ok_or_else(|| Trouble::damaged(Self::TABLE))
    }
}

/// Bytes that postcard writes as one run and not one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Run;

        impl Visitor<'_> for Run {
            type Value = Bytes;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }

        deserializer.deserialize_bytes(Run)
    }
}
