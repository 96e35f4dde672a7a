//! Is a chain of dumps complete? Looks at every row as it comes by and keeps no mail.
//!
//! Every piece's checksum is computed, and every sealed row of a message or body is opened. What has
//! to agree over the whole chain is kept as sets of body numbers, a bit each (see [`Ids`]): bodies
//! that are whole in some dump, bodies that the last dump lists, bodies that its messages name. So a
//! million messages take three times 125 KiB.

use std::collections::BTreeMap;

use crate::mail::message::BlobId;

use super::blob::{BlobRecord, piece_count, piece_payload};
use super::dump::Row;
use super::record::{MessageRecord, Record, StructureRecord};

/// Body numbers that share a page of bits.
const PAGE_IDS: u64 = 1 << 15;
const PAGE_WORDS: usize = 512;

/// Most pages of a set: 134 million numbers in 16 MiB. A store that gave out more is proved as far
/// as that goes.
const PAGES_MAX: usize = 4096;

/// What a chain of dumps holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Findings {
    /// Accounts.
    pub accounts: u64,
    /// Mailboxes.
    pub mailboxes: u64,
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows and pieces whose checksum is wrong.
    pub damaged: u64,
    /// Bodies that messages need and that are not there, or not all of them.
    pub incomplete: u64,
}

/// Watches rows go by.
#[derive(Debug, Default)]
pub struct Proof {
    findings: Findings,
    whole: Ids,
    listed: Ids,
    named: Ids,
    body: Option<Body>,
}

/// The body whose rows come by.
#[derive(Debug)]
struct Body {
    id: u64,
    pieces: u32,
    next: u32,
    structure: bool,
    sound: bool,
}

impl Proof {
    /// Looks at a row of the last dump's table `name`, which is none of a body's.
    pub fn see(&mut self, name: &str, row: &Row<'_>) {
        match name {
            "account" => self.findings.accounts += 1,
            "mbox" => self.findings.mailboxes += 1,
            "msg" => self.message(row).unwrap_or_else(|| self.findings.damaged += 1),
            _ => {}
        }
    }

    /// Looks at a body's own row in the last dump: whether it has to be there.
    pub fn list(&mut self, row: &Row<'_>) {
        match row.key.try_into().map(u64::from_le_bytes).ok().map(|id| (id, BlobRecord::decode(id, row.value))) {
            Some((id, Ok(record))) if record.refs > 0 => self.listed.insert(id),
            Some((_, Ok(_))) => {}
            _ => self.findings.damaged += 1,
        }
    }

    /// Tells whether the last dump has this body.
    pub fn lists(&self, id: u64) -> bool {
        self.listed.has(id)
    }

    /// Looks at a row of a body in any dump, its own row first.
    pub fn see_body(&mut self, name: &str, row: &Row<'_>) {
        let known = match name {
            "blob" => {
                self.begin_body(row);
                Some(())
            }
            "structure" => self.structure(row),
            "piece" => self.piece(row, true),
            "tail" => self.piece(row, false),
            _ => Some(()),
        };
        self.findings.damaged += u64::from(known.is_none());
    }

    /// The end of a dump: what follows belongs to no body of it.
    pub fn end_of_dump(&mut self) {
        if let Some(body) = self.body.take()
            && body.structure
            && body.sound
            && body.next == body.pieces
        {
            self.whole.insert(body.id);
        }
    }

    /// What was found, once all dumps went by.
    pub fn finish(mut self) -> Findings {
        self.end_of_dump();
        let mut missing = self.listed.without(&self.whole);
        missing.join(self.named.without(&self.listed));
        self.findings.incomplete = missing.count();
        self.findings
    }

    fn message(&mut self, row: &Row<'_>) -> Option<()> {
        let (mailbox, uid) = row.key.split_first_chunk()?;
        let key = (u32::from_le_bytes(*mailbox), u32::from_le_bytes(uid.try_into().ok()?));
        let record = MessageRecord::decode(key, row.value).ok()?;
        self.findings.messages += 1;
        self.findings.bytes += u64::from(record.size);
        self.named.insert(record.blob);
        Some(())
    }

    fn begin_body(&mut self, row: &Row<'_>) {
        self.end_of_dump();
        let id = row.key.try_into().map(u64::from_le_bytes).ok();
        // A row that can't be read was counted when it was listed; its pieces are not looked at.
        self.body = id.and_then(|id| {
            let pieces = piece_count(BlobRecord::decode(id, row.value).ok()?.stored);
            Some(Body { id, pieces, next: 0, structure: false, sound: true })
        });
    }

    fn structure(&mut self, row: &Row<'_>) -> Option<()> {
        let id = u64::from_le_bytes(row.key.try_into().ok()?);
        StructureRecord::decode(id, row.value).ok()?;
        if let Some(body) = self.body.as_mut().filter(|body| body.id == id) {
            body.structure = true;
        }
        Some(())
    }

    fn piece(&mut self, row: &Row<'_>, numbered: bool) -> Option<()> {
        let (id, index) = row.key.split_first_chunk()?;
        let id = u64::from_le_bytes(*id);
        let Some(body) = self.body.as_mut().filter(|body| body.id == id) else { return Some(()) };
        let index = if numbered { u32::from_le_bytes(index.try_into().ok()?) } else { body.next };
        body.sound &= index == body.next && piece_payload(BlobId(id), index, row.value).is_ok();
        body.next = body.next.saturating_add(1);
        body.sound.then_some(())
    }
}

/// A set of body numbers. They are given out one after the other, so pages fill.
#[derive(Debug, Default)]
struct Ids(BTreeMap<u64, Box<[u64]>>);

impl Ids {
    fn insert(&mut self, id: u64) {
        let (page, word, bit) = place(id);
        if self.0.len() >= PAGES_MAX && !self.0.contains_key(&page) {
            return;
        }
        let words = self.0.entry(page).or_insert_with(|| vec![0; PAGE_WORDS].into_boxed_slice());
        if let Some(word) = words.get_mut(word) {
            *word |= bit;
        }
    }

    /// Tells whether a number is in it.
    fn has(&self, id: u64) -> bool {
        let (page, word, bit) = place(id);
        let found = self.0.get(&page).and_then(|words| words.get(word)).is_some_and(|word| word & bit != 0);
        // What there was no room for may be in it.
        found || (self.0.len() >= PAGES_MAX && !self.0.contains_key(&page))
    }

    /// Those that are not in `others`. Numbers for which `others` had no room count as in it.
    fn without(&self, others: &Self) -> Self {
        let empty = [0; PAGE_WORDS];
        let full = others.0.len() >= PAGES_MAX;
        let pages = self.0.iter().filter(|(page, _)| !full || others.0.contains_key(page));
        let rest = pages.map(|(page, words)| {
            let gone = others.0.get(page).map_or(&empty[..], |words| words);
            (*page, words.iter().zip(gone).map(|(word, gone)| word & !gone).collect())
        });
        Self(rest.collect())
    }

    fn join(&mut self, others: Self) {
        for (page, words) in others.0 {
            match self.0.entry(page) {
                std::collections::btree_map::Entry::Vacant(entry) => drop(entry.insert(words)),
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    entry.get_mut().iter_mut().zip(&words).for_each(|(word, more)| *word |= more);
                }
            }
        }
    }

    fn count(&self) -> u64 {
        self.0.values().flatten().map(|word| u64::from(word.count_ones())).sum()
    }
}

fn place(id: u64) -> (u64, usize, u64) {
    let within = id % PAGE_IDS;
    (id / PAGE_IDS, usize::try_from(within / 64).unwrap_or(usize::MAX), 1 << (within % 64))
}

#[cfg(test)]
mod tests {
    use super::super::blob::cut;
    use super::super::record::Bytes;
    use super::*;
    use crate::mail::date::{Timestamp, ZonedTime};
    use crate::mail::message::Flags;

    /// A table's name, a key, a value.
    type TableRow = (&'static str, Vec<u8>, Vec<u8>);

    /// The rows of a body of `stored` bytes: blob, structure, pieces, as a dump hands them over.
    fn body(id: u64, refs: u32, stored: usize) -> Vec<TableRow> {
        let record = BlobRecord { refs, size: 9, stored: stored as u64, blocks: Vec::new(), hash: None };
        let key = id.to_le_bytes().to_vec();
        let structure = StructureRecord(Bytes(vec![1])).encode(id).unwrap();
        let mut rows = vec![("blob", key.clone(), record.encode(id).unwrap()), ("structure", key.clone(), structure)];
        cut(BlobId(id), &vec![5; stored], &mut |index, piece| {
            let numbered = [&key[..], &index.to_le_bytes()].concat();
            rows.push(if piece.len() < 2000 {
                ("tail", key.clone(), piece.to_vec())
            } else {
                ("piece", numbered, piece.to_vec())
            });
            Ok(true)
        })
        .unwrap();
        rows
    }

    fn message(uid: u32, blob: u64) -> TableRow {
        let record = MessageRecord {
            flags: Flags::default(),
            modseq: 1,
            internal_date: ZonedTime::default(),
            saved: Timestamp::default(),
            size: 9,
            blob,
        };
        ("msg", [1_u32.to_le_bytes(), uid.to_le_bytes()].concat(), record.encode((1_u32, uid)).unwrap())
    }

    fn see(proof: &mut Proof, rows: &[TableRow], last: bool) {
        for (name, key, value) in rows {
            let row = Row { table: 0, key, value };
            if last && *name == "blob" {
                proof.list(&row);
            }
            match (*name, last) {
                ("msg", true) => proof.see(name, &row),
                ("msg", false) => {}
                _ => proof.see_body(name, &row),
            }
        }
        proof.end_of_dump();
    }

    fn prove(dumps: &[&[TableRow]]) -> (u64, u64, u64) {
        let mut proof = Proof::default();
        for (index, rows) in dumps.iter().enumerate() {
            see(&mut proof, rows, index + 1 == dumps.len());
        }
        let found = proof.finish();
        (found.messages, found.damaged, found.incomplete)
    }

    #[test]
    fn a_whole_dump_is_whole_and_each_missing_row_is_found() {
        let rows = [vec![message(1, 7), message(2, 8)], body(7, 1, 40_000), body(8, 1, 0)].concat();
        assert_eq!(prove(&[&rows]), (2, 0, 0));
        for missing in 0..rows.len() {
            let mut rows = rows.clone();
            let name = rows.remove(missing).0;
            let found = prove(&[&rows]);
            match name {
                "msg" => assert_eq!(found, (1, 0, 0)),
                // Its pieces come without it.
                "blob" => assert!(found.2 == 1, "{missing}: {found:?}"),
                _ => assert!(found.2 == 1, "{missing} {name}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_changed_byte_is_damage() {
        let rows = [vec![message(1, 7)], body(7, 1, 5_000)].concat();
        for row in 0..rows.len() {
            let mut rows = rows.clone();
            let middle = rows[row].2.len() / 2;
            rows[row].2[middle] ^= 4;
            assert!(prove(&[&rows]).1 > 0, "{row}");
        }
    }

    #[test]
    fn bodies_may_come_with_an_earlier_dump_of_the_chain() {
        let full = [vec![message(1, 7)], body(7, 1, 20_000), body(8, 1, 10)].concat();
        let mut more = vec![message(1, 7), message(2, 9)];
        more.extend(body(7, 1, 20_000).into_iter().take(1));
        more.extend(body(8, 0, 10).into_iter().take(1));
        more.extend(body(9, 1, 3));
        assert_eq!(prove(&[&full, &more]), (2, 0, 0));
        assert_eq!(prove(&[&more]), (2, 0, 1));
    }

    #[test]
    fn sets_are_exact_and_bounded() {
        let mut ids = Ids::default();
        for id in [0, 63, 64, PAGE_IDS - 1, PAGE_IDS, u64::MAX] {
            ids.insert(id);
            ids.insert(id);
        }
        assert_eq!((ids.count(), ids.0.len()), (6, 3));
        let mut some = Ids::default();
        some.insert(64);
        assert_eq!((ids.without(&some).count(), some.without(&ids).count()), (5, 0));
        for page in 0..2 * PAGES_MAX as u64 {
            some.insert(page * PAGE_IDS);
        }
        assert_eq!(some.0.len(), PAGES_MAX);
    }
}
