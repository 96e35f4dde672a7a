//! A clock that jumps both ways: it seeds numbers and dates what comes in, and rules nothing.

use super::faulty::Medium;
use super::*;
use crate::mail::mailbox::UidValidity;

/// An ordinary day, 1970 and before, days that 32 bits hardly hold or do not hold (2106), the last
/// that Linux knows (2262), and back.
const TIMES: [i64; 8] =
    [1_700_000_000, 0, -5, 4_294_967_290, 4_294_967_295, 4_294_967_300, 9_223_372_036, 1_700_000_100];

fn start() -> (Medium, Store, AccountId, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let medium = Medium::new(MemorySite::new(folder.path()), 1 << 30);
    medium.set_clock(TIMES[0]);
    let store = Store::open_on(Arc::new(medium.clone()), &config()).unwrap();
    let ann = store.add_account(address("ann@pillar.test"), verifier(), Quota::default()).wait().unwrap();
    (medium, store, ann, folder)
}

#[test]
fn a_name_made_again_never_gets_an_older_uidvalidity_whatever_the_clock_says() {
    let (medium, mut store, ann, _folder) = start();
    let name = mailbox_name("Trips");
    let mut last = UidValidity(std::num::NonZeroU32::MIN);
    for round in 0..3 {
        for (step, time) in TIMES.into_iter().enumerate() {
            medium.set_clock(time);
            let id = store.create_mailbox(ann, name.clone(), None).wait().unwrap();
            let found = store.reader().unwrap().mailbox(id).unwrap().unwrap().uid_validity;
            assert!(found > last, "{found:?} after {last:?}, round {round}, clock {time}");
            last = found;
            store.delete_mailbox(ann, name.clone()).wait().unwrap();
            if step % 4 == 3 {
                store.close().unwrap();
                store = Store::open_on(Arc::new(medium.clone()), &config()).unwrap();
            }
        }
    }
    store.close().unwrap();
}

#[test]
fn mail_that_comes_while_the_clock_jumps_keeps_its_dates_and_its_order() {
    let (medium, store, ann, folder) = start();
    let inbox = store.reader().unwrap().mailbox_named(ann, &MailboxName::inbox()).unwrap().unwrap().id;
    let mut last = ModSeq(0);
    for time in TIMES {
        medium.set_clock(time);
        let placed = store.deliver(letter(folder.path(), b"x"), vec![(ann, Folder::Inbox)]).wait().unwrap();
        let copied = store.copy(inbox, UidSet::from_iter([placed[0].1]), inbox).wait().unwrap();
        for number in [placed[0].1, copied.to.iter().next().unwrap()] {
            let message = store.reader().unwrap().message(inbox, number).unwrap().unwrap();
            assert_eq!(message.internal_date, ZonedTime { at: Timestamp(1_000_000), offset_mins: 60 });
            assert_eq!(message.saved, Timestamp(time));
            assert!(message.modseq > last, "clock {time}");
            last = message.modseq;
        }
        assert!(store.spool().is_ok());
    }
    check(&store);
    store.close().unwrap();
    let again = Store::open_on(Arc::new(medium.clone()), &config()).unwrap();
    assert!(again.reader().unwrap().mailbox(inbox).unwrap().unwrap().highest_modseq >= last);
    assert!(again.figures().last_checkpoint.is_none_or(|at| at == *TIMES.last().unwrap()));
    again.close().unwrap();
}
