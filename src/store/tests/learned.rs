//! The spam filter's learned state.

use super::*;
use crate::store::disk::Disk;
use crate::store::table::LEARNED;

fn piece(seed: u64) -> Vec<u8> {
    noise(LEARNED_PIECE_MAX, seed)
}

#[test]
fn pieces_are_replaced_one_by_one_without_journal_or_checkpoint_and_survive_a_clean_close() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let before = rig.store.figures();
    let last = LEARNED_PIECES_MAX - 1;
    rig.store.save_learned(None, vec![(0, piece(1)), (last, piece(2))]).wait().unwrap();
    rig.store.save_learned(Some(ann), vec![(0, b"ann's".to_vec())]).wait().unwrap();
    rig.store.save_learned(None, vec![(0, piece(3))]).wait().unwrap();
    let after = rig.store.figures();
    assert_eq!((after.journal_written, after.checkpoints), (before.journal_written, before.checkpoints));
    let there = |store: &Store| {
        let reader = store.reader().unwrap();
        let found = [(None, 0), (None, last), (None, 1), (Some(ann), 0)];
        found.map(|(learner, number)| reader.learned(learner, number).unwrap())
    };
    let expected = [Some(piece(3)), Some(piece(2)), None, Some(b"ann's".to_vec())];
    assert_eq!(there(&rig.store), expected);
    rig.store.close().unwrap();
    assert_eq!(there(&rig.killed().store), expected);
}

#[test]
fn a_power_cut_takes_whole_saves_only() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    rig.store.close().unwrap();
    for kept in 0..4_u64 {
        let rig = rig.killed();
        let mut random = kept;
        for round in 0..12 {
            rig.store.save_learned(None, (0..6).map(|number| (number, piece(round))).collect()).wait().unwrap();
            // Now and then enough mail for a checkpoint.
            (0..60 * u64::from(round % 3 == 0)).for_each(|number| drop(rig.deliver(&noise(9000, number), &[ann])));
        }
        let rig = rig.on(&mut |disk| {
            disk.power_cut(&mut || {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % 4 < kept
            })
        });
        let found = (0..6).map(|number| rig.reader().learned(None, number).unwrap()).collect::<Vec<_>>();
        assert!(found.iter().all(|piece| *piece == found[0]), "half a save after a cut");
        assert!(found[0].is_some(), "what a checkpoint took along is there");
        check(&rig.store);
    }
}

#[test]
fn to_forget_is_durable_and_an_account_takes_what_it_learnt_along() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let (bob, _) = rig.account("bob");
    for learner in [None, Some(ann), Some(bob)] {
        rig.store.save_learned(learner, vec![(0, piece(1)), (7, piece(2))]).wait().unwrap();
    }
    rig.store.close().unwrap();
    let rig = rig.killed();
    rig.store.forget_learned(Some(bob)).wait().unwrap();
    rig.store.remove_account(ann).wait().unwrap();
    let rig = rig.killed();
    for learner in [Some(ann), Some(bob)] {
        assert_eq!(rig.reader().learned(learner, 0), Ok(None));
        assert_eq!(rig.reader().learned(learner, 7), Ok(None));
    }
    assert_eq!(rig.reader().learned(None, 7), Ok(Some(piece(2))));
    assert_eq!(rig.store.save_learned(Some(ann), vec![(0, piece(1))]).wait(), Err(WriteError::NoSuchAccount));
    let syncs = rig.store.figures().syncs;
    rig.store.forget_learned(Some(bob)).wait().unwrap();
    assert_eq!(rig.store.figures().syncs, syncs, "there was nothing to forget");
}

#[test]
fn a_state_beyond_its_bounds_is_refused_as_a_whole() {
    let rig = Rig::new();
    for bad in [(LEARNED_PIECES_MAX, Vec::new()), (1, vec![0; LEARNED_PIECE_MAX + 1])] {
        let refused = rig.store.save_learned(None, vec![(0, piece(1)), bad]).wait();
        assert!(matches!(refused, Err(WriteError::Limit(_))));
        assert_eq!(rig.reader().learned(None, 0), Ok(None));
    }
}

#[test]
fn a_piece_that_is_not_what_was_saved_is_an_error() {
    let rig = Rig::new();
    rig.store.save_learned(None, vec![(0, piece(1)), (1, piece(2))]).wait().unwrap();
    rig.store.close().unwrap();
    let index = rig.site.disk(INDEX_FILE).fork();
    // The piece's own bytes, wherever redb put them.
    let mut file = vec![0; usize::try_from(index.len().unwrap()).unwrap()];
    index.read_at(0, &mut file).unwrap();
    let at = file.windows(64).position(|window| window == &piece(2)[1000..1064]).unwrap();
    let rig = rig.on(&mut |disk| {
        let disk = disk.fork();
        if disk.len().unwrap() == file.len() as u64 {
            disk.write_at(at as u64, &[!file[at]]).unwrap();
        }
        disk
    });
    assert_eq!(rig.reader().learned(None, 0), Ok(Some(piece(1))));
    let error = rig.reader().learned(None, 1).unwrap_err();
    assert!(error.to_string().contains("learned"), "{error}");
    rig.store.save_learned(None, vec![(1, piece(4))]).wait().unwrap();
    assert_eq!(rig.reader().learned(None, 1), Ok(Some(piece(4))));
    assert_eq!(rig.reader().table(LEARNED).unwrap().iter().unwrap().count(), 2);
}
