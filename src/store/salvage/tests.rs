//! Files ruined on purpose: what is whole comes out, byte by byte, and nothing else does.

use std::collections::BTreeSet;

use super::*;
use crate::mail::mailbox::AccountId;
use crate::store::disk::MemoryDisk;
use crate::store::site::MemorySite;
use crate::store::tests::{Rig, noise};
use crate::store::{INDEX_FILE, JOURNAL_FILE, StoreConfig};

/// A store with letters of many sizes, some compressible, all of them checkpointed.
fn store() -> (Rig, AccountId, BTreeSet<Vec<u8>>) {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let mut letters = BTreeSet::new();
    for number in 0..40_u64 {
        let length = [300, 4000, 5000, 20_000, 70_000, 300_000][usize::try_from(number % 6).unwrap()];
        let body = if number % 2 == 0 { noise(length, number) } else { text(length, number) };
        rig.deliver(&body, &[ann]);
        letters.insert(body);
    }
    rig.store.close().unwrap();
    (rig, ann, letters)
}

fn text(length: usize, number: u64) -> Vec<u8> {
    let line = format!("This is line after line of letter {number}.\r\n");
    line.bytes().cycle().take(length).chain(*b"end\r\n").collect()
}

fn read(bytes: &[u8]) -> Ruin {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ruin");
    std::fs::write(&path, bytes).unwrap();
    Ruin::read(&path, &mut |_, _| {}).unwrap()
}

fn letters_of(ruin: &Ruin) -> BTreeSet<Vec<u8>> {
    let (proven, unproven) = ruin.count();
    let all = (0..proven + unproven).map(|number| {
        let mut body = ruin.body(number).unwrap();
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < body.len() {
            bytes.extend_from_slice(body.read(bytes.len() as u64, usize::MAX).unwrap());
        }
        assert_eq!(ruin.message(number).unwrap().0, bytes.len() as u64);
        bytes
    });
    all.collect()
}

#[test]
fn everything_comes_out_of_an_index_whose_first_pages_are_gone() {
    let (rig, _, letters) = store();
    let mut bytes = rig.site.disk(INDEX_FILE).bytes();
    bytes[..6 * 4096].fill(0xAA);
    let ruin = read(&bytes);
    assert_eq!(letters_of(&ruin), letters);
    assert_eq!(ruin.count().0 + ruin.count().1, letters.len());
    assert_eq!(ruin.losses(), []);
}

#[test]
fn a_card_image_gives_what_lies_at_any_offset_between_other_things() {
    let (rig, _, letters) = store();
    let mut image = noise(3_000_017, 99);
    image.extend_from_slice(&rig.site.disk(INDEX_FILE).bytes());
    image.extend_from_slice(b"pbxPpbxBpbxG a page about pbxP marks");
    image.extend_from_slice(&noise(777, 5));
    assert_eq!(letters_of(&read(&image)), letters);
}

#[test]
fn what_is_only_in_the_journal_comes_out_with_its_date() {
    let rig = Rig::with(StoreConfig { cache_bytes: 4 << 20, ..crate::store::tests::config() });
    let (ann, _) = rig.account("ann");
    rig.deliver(b"acknowledged a moment ago", &[ann]);
    rig.deliver(&noise(30_000, 1), &[ann]);
    let ruin = read(&rig.site.disk(JOURNAL_FILE).bytes());
    assert_eq!(letters_of(&ruin), BTreeSet::from([b"acknowledged a moment ago".to_vec(), noise(30_000, 1)]));
    assert!((0..2).all(|number| ruin.message(number).unwrap().1.is_some_and(|date| date.offset_mins == 60)));
    // The index of the same store has them too, or not: nothing comes out twice.
    let mut both = rig.site.disk(JOURNAL_FILE).bytes();
    rig.store.close().unwrap();
    both.extend_from_slice(&rig.site.disk(INDEX_FILE).bytes());
    assert_eq!(read(&both).count(), (2, 0));
}

#[test]
fn a_body_that_lacks_a_piece_is_told_and_does_not_come_out() {
    let (rig, _, letters) = store();
    let mut bytes = rig.site.disk(INDEX_FILE).bytes();
    // Every copy of every first piece of one body.
    let ruin = read(&bytes);
    let victim = ruin.whole.iter().find(|whole| whole.record.stored > 60_000).unwrap().blob;
    let lost: Vec<u8> = {
        let number = ruin.whole.iter().position(|whole| whole.blob == victim).unwrap();
        let mut body = ruin.body(number).unwrap();
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < body.len() {
            bytes.extend_from_slice(body.read(bytes.len() as u64, usize::MAX).unwrap());
        }
        bytes
    };
    let mark = [&b"pbxP"[..], &victim.to_le_bytes(), &3_u32.to_le_bytes()].concat();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(mark.len()).position(|window| window == mark) {
        bytes[at + found + 100] ^= 1;
        at += found + 1;
    }
    let ruin = read(&bytes);
    assert_eq!(letters_of(&ruin), letters.into_iter().filter(|letter| *letter != lost).collect());
    let [told] = ruin.losses() else { panic!("{:?}", ruin.losses()) };
    assert_eq!((told.blob.0, told.size, told.missing), (victim, Some(lost.len() as u64), 1));
    assert!(ruin.finding().unclaimed >= u64::from(told.found));
}

#[test]
fn bodies_whose_rows_are_gone_are_put_together_from_their_pieces_alone() {
    let (rig, _, letters) = store();
    let mut bytes = rig.site.disk(INDEX_FILE).bytes();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(4).position(|window| window == b"pbxB") {
        bytes[at + found] = b'x';
        at += found + 4;
    }
    let ruin = read(&bytes);
    assert_eq!(letters_of(&ruin), letters);
    assert_eq!(ruin.count(), (letters.len(), 0));
    assert_eq!(ruin.finding().rows, 0);
}

#[test]
fn the_first_pieces_of_a_body_whose_row_and_last_piece_are_gone_are_no_mail() {
    let letter: Vec<u8> = noise(50_000, 4).iter().map(|byte| b"0123456789abcdef"[usize::from(byte % 16)]).collect();
    let mut spool = crate::store::Spool::new(std::path::Path::new("").into());
    spool.write(&letter).unwrap();
    let mut bytes = Vec::new();
    let first = &mut |_: u32, piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(false)
    };
    spool.finish().unwrap().pieces(BlobId(7), 0, first).unwrap();
    let ruin = read(&bytes);
    assert_eq!((ruin.count(), ruin.finding().pieces, ruin.losses().len()), ((0, 0), 1, 1));
}

#[test]
fn pieces_that_name_no_last_one_are_put_together_and_not_proven() {
    // As stores made them before the last piece was marked.
    let letter = noise(40_000, 4);
    let mut spool = crate::store::Spool::new(std::path::Path::new("").into());
    spool.write(&letter).unwrap();
    let spooled = spool.finish().unwrap();
    let mut bytes = Vec::new();
    spooled
        .pieces(BlobId(7), 0, &mut |index, piece| {
            let mut piece = piece.to_vec();
            piece[12..16].copy_from_slice(&index.to_le_bytes());
            let sum = crc32c::crc32c_append(crc32c::crc32c(&piece[..20]), &piece[24..]);
            piece[20..24].copy_from_slice(&sum.to_le_bytes());
            bytes.extend_from_slice(&piece);
            Ok(true)
        })
        .unwrap();
    let ruin = read(&bytes);
    assert_eq!((ruin.count(), letters_of(&ruin)), ((0, 1), BTreeSet::from([letter])));
}

#[test]
fn a_mail_that_poses_as_a_piece_neither_hides_nor_replaces_another() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let real = noise(40_000, 4);
    rig.deliver(&real, &[ann]);
    // The second mail carries, uncompressed, a forged first piece of the first.
    let mut forged = Vec::new();
    crate::store::blob::cut(BlobId(0), &noise(16_296, 77), &mut |_, piece| {
        forged.extend_from_slice(piece);
        Ok(true)
    })
    .unwrap();
    let posing = [noise(100, 1), forged, noise(60_000, 2)].concat();
    rig.deliver(&posing, &[ann]);
    rig.store.close().unwrap();
    let mut bytes = rig.site.disk(INDEX_FILE).bytes();
    assert_eq!(letters_of(&read(&bytes)), BTreeSet::from([real.clone(), posing]));
    // Where the piece around it is ruined, the forged one is seen, and the hash tells.
    let mark = [&b"pbxP"[..], &1_u64.to_le_bytes()].concat();
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(mark.len()).position(|window| window == mark) {
        bytes[at + found] = b'x';
        at += found + 1;
    }
    assert_eq!(letters_of(&read(&bytes)), BTreeSet::from([real]));
}

#[test]
fn any_garbage_is_read_through() {
    let site = MemorySite::new(std::path::Path::new("/nowhere"));
    let disk: MemoryDisk = site.disk("x");
    assert_eq!(read(&disk.bytes()).count(), (0, 0));
    for seed in 0..20 {
        let mut bytes = noise(200_000, seed);
        for at in (0..bytes.len() - 64).step_by(997) {
            let mark = [b"pbxP", b"pbxB", b"pbxG"][at % 3];
            bytes[at..at + 4].copy_from_slice(mark);
        }
        assert_eq!(read(&bytes).count(), (0, 0));
    }
}
