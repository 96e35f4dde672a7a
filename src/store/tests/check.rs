//! Each kind of damage made on purpose: found, named, and repaired or called what it is.

use redb::{Key, TableDefinition, Value, WriteTransaction};

use super::*;
use crate::mail::structure::Walker;
use crate::store::blob::BlobRecord;
use crate::store::disk::Disk;
use crate::store::record::{MailboxRecord, Record};
use crate::store::table::{ACCOUNT, ADDRESS, BLOB, DOMAIN, MBOX, MBOXNAME, STRUCTURE, SWEEP_BODY, VANISH};

pub(super) const FULL: CheckOptions =
    CheckOptions { pages: true, bodies: true, deep: true, repair: false, shared: false, bytes_per_second: None };
pub(super) const REPAIR: CheckOptions = CheckOptions { repair: true, ..FULL };

/// A message with a header, taken apart as the server does it.
fn mail(rig: &Rig, to: &str, subject: &str, rest: &[u8]) -> NewMessage {
    let head = format!(
        "Received: from client.test\r\n\tby pillar.test with ESMTP id x\r\n\tfor <{to}>;\r\n\
         \tThu, 12 Mar 2026 10:11:12 +0000\r\nSubject: {subject}\r\n\r\n"
    );
    let bytes = [head.as_bytes(), rest].concat();
    let mut walker = Walker::new();
    walker.feed(&bytes);
    let internal_date = ZonedTime { at: Timestamp(1_773_310_272), offset_mins: 0 };
    NewMessage { structure: walker.finish(), internal_date, ..rig.letter(&bytes) }
}

/// A store with ann and bob, and three messages in ann's INBOX, one of them bob's as well and one
/// of several pieces.
pub(super) fn house() -> (Rig, MailboxId) {
    let rig = Rig::new();
    let ((ann, inbox), (bob, _)) = (rig.account("ann"), rig.account("bob"));
    let address = "ann@pillar.test";
    let deliver = |message, to: &[AccountId]| {
        rig.store.deliver(message, to.iter().map(|id| (*id, Folder::Inbox)).collect()).wait().unwrap();
    };
    deliver(mail(&rig, address, "Invoice", &noise(100_000, 1)), &[ann]);
    deliver(mail(&rig, address, "Both", b"for both"), &[ann, bob]);
    deliver(mail(&rig, "bob@pillar.test", "Third", b"third"), &[ann]);
    (rig, inbox)
}

/// Closes the store, changes tables behind its back, and opens it again.
pub(super) fn meddled(rig: &Rig, change: impl FnOnce(&WriteTransaction)) -> Rig {
    // A store that was closed already is closed.
    let _ = rig.store.close();
    let after = rig.site.each(&mut MemoryDisk::fork);
    {
        let guard = crate::store::backend::Guard::open(Arc::new(after.disk(INDEX_FILE))).unwrap();
        let backend = crate::store::backend::IndexBackend(Arc::new(guard));
        let index = redb::Database::builder().create_with_backend(backend).unwrap();
        let transaction = index.begin_write().unwrap();
        change(&transaction);
        transaction.commit().unwrap();
    }
    Rig::start(after, tempfile::tempdir().unwrap(), rig.config.clone())
}

/// Flips a bit of a value.
pub(super) fn flip<K>(
    transaction: &WriteTransaction,
    table: TableDefinition<'static, K, &'static [u8]>,
    key: K,
    at: usize,
) where
    K: Key + Copy + 'static + for<'k> Value<SelfType<'k> = K>,
{
    let mut table = transaction.open_table(table).unwrap();
    let mut value = table.get(key).unwrap().unwrap().value().to_vec();
    let at = at.min(value.len() - 1);
    value[at] ^= 1;
    table.insert(key, value.as_slice()).unwrap();
}

/// Changes a record and seals it again.
pub(super) fn reseal<R: Record>(
    transaction: &WriteTransaction,
    table: TableDefinition<'static, u32, &'static [u8]>,
    key: u32,
    change: impl FnOnce(&mut R),
) {
    let mut table = transaction.open_table(table).unwrap();
    let mut record = R::decode(key, table.get(key).unwrap().unwrap().value()).unwrap();
    change(&mut record);
    table.insert(key, record.encode(key).unwrap().as_slice()).unwrap();
}

pub(super) fn body_of(rig: &Rig, inbox: MailboxId, number: u32) -> u64 {
    rig.reader().message(inbox, uid(number)).unwrap().unwrap().blob.0
}

/// What a check finds is this; after a repair that says that, all is well and a second repair finds
/// nothing to do.
pub(super) fn repairs(rig: &Rig, found: &[&str], repaired: &[&str]) {
    let (report, findings) = examine(&rig.store, &FULL);
    assert_eq!(findings, found);
    assert_eq!((report.repairable, report.damaged), (found.len() as u64, 0), "{report:?}");
    let (report, done) = examine(&rig.store, &REPAIR);
    assert_eq!(done, repaired);
    assert!(report.is_sound(), "{report:?}");
    rig.swept();
    assert_eq!(examine(&rig.store, &FULL).1, [""; 0]);
    let (report, done) = examine(&rig.store, &REPAIR);
    assert_eq!((report.repaired, done), (0, Vec::new()));
    // What was set right is in the journal.
    let again = rig.killed();
    again.swept();
    assert_eq!(examine(&again.store, &FULL).1, [""; 0]);
}

/// What a check finds is this, and a repair leaves it as it is.
fn stays(rig: &Rig, found: &[&str]) {
    for options in [FULL, REPAIR] {
        let (report, findings) = examine(&rig.store, &options);
        assert_eq!(findings, found);
        assert_eq!((report.damaged, report.repaired), (found.len() as u64, 0), "{report:?}");
    }
}

#[test]
fn a_store_in_use_is_sound_to_the_last_page() {
    let (rig, inbox) = house();
    rig.store.flag(inbox, uids(&[1]), FlagMode::Add, names(SystemFlags::DELETED, &["work"]), None).wait().unwrap();
    rig.store.copy(inbox, span(1, 3), inbox).wait().unwrap();
    rig.store.expunge(inbox, None).wait().unwrap();
    let (report, findings) = examine(&rig.store, &FULL);
    assert_eq!(findings, [""; 0]);
    assert!(report.is_sound());
    assert_eq!((report.accounts, report.mailboxes, report.messages, report.bodies), (2, 12, 5, 2));
    assert!(report.bytes > 80_000, "{report:?}");
    // Nothing that was looked at was written.
    let before = rig.store.figures();
    examine(&rig.store, &CheckOptions { bodies: true, ..CheckOptions::quick() });
    assert_eq!(rig.store.figures(), before);
}

#[test]
fn damaged_pieces_are_named_by_message_and_stay() {
    let (rig, inbox) = house();
    let (large, both) = (body_of(&rig, inbox, 1), body_of(&rig, inbox, 2));
    let one = meddled(&rig, |transaction| flip(transaction, PIECE, (large, 2), 5000));
    let said = "message 1 in INBOX of ann@pillar.test (12 Mar 2026, \"Invoice\"): piece 3 of its body is damaged";
    stays(&one, &[said]);
    let two = meddled(&rig, |transaction| {
        flip(transaction, PIECE, (large, 0), 30);
        transaction.open_table(PIECE).unwrap().remove((large, 3)).unwrap();
        flip(transaction, TAIL, both, 30);
    });
    stays(
        &two,
        &[
            "message 1 in INBOX of ann@pillar.test (12 Mar 2026, \"Invoice\"): 2 of the 7 pieces of its body are damaged, \
         the first is piece 1",
            "message 2 in INBOX of ann@pillar.test (12 Mar 2026, \"Both\"): piece 1 of its body is damaged",
            "message 1 in INBOX of bob@pillar.test (12 Mar 2026, \"Both\"): piece 1 of its body is damaged",
        ],
    );
}

#[test]
fn a_body_that_is_whole_and_another_is_found_by_its_hash() {
    let (rig, inbox) = house();
    let third = body_of(&rig, inbox, 3);
    let other = meddled(&rig, |transaction| {
        let mut table = transaction.open_table(BLOB).unwrap();
        let mut record = BlobRecord::decode(third, table.get(third).unwrap().unwrap().value()).unwrap();
        record.hash = Some([7; 16]);
        table.insert(third, record.encode(third).unwrap().as_slice()).unwrap();
    });
    stays(&other, &["message 3 in INBOX of ann@pillar.test (12 Mar 2026, \"Third\"): its body is not what was kept"]);
}

#[test]
fn a_hash_that_schema_1_did_not_keep_is_filled_in() {
    let (rig, inbox) = house();
    let third = body_of(&rig, inbox, 3);
    let record = |rig: &Rig| {
        let table = rig.reader().table(BLOB).unwrap();
        BlobRecord::decode(third, table.get(third).unwrap().unwrap().value()).unwrap()
    };
    let kept = record(&rig.killed()).hash;
    let old = meddled(&rig, |transaction| {
        let mut table = transaction.open_table(BLOB).unwrap();
        let mut record = BlobRecord::decode(third, table.get(third).unwrap().unwrap().value()).unwrap();
        record.hash = None;
        table.insert(third, record.encode(third).unwrap().as_slice()).unwrap();
    });
    assert!(examine(&old.store, &FULL).0.is_sound());
    assert_eq!(record(&old).hash, None);
    assert!(examine(&old.store, &REPAIR).0.is_sound());
    assert_eq!((record(&old).hash, record(&old.killed()).hash), (kept, kept));
    assert!(kept.is_some());
}

#[test]
fn counters_are_counted_anew() {
    let (rig, inbox) = house();
    let ann = rig.reader().accounts().unwrap()[0].id;
    let wrong = meddled(&rig, |transaction| {
        reseal::<MailboxRecord>(transaction, MBOX, inbox.0, |record| {
            (record.messages, record.unseen, record.uid_next) = (5, 0, 2);
        });
        reseal::<crate::store::record::AccountRecord>(transaction, ACCOUNT, ann.0, |record| record.used.messages = 1);
    });
    repairs(
        &wrong,
        &[
            "mailbox INBOX of ann@pillar.test: messages is 5 and should be 3, unseen messages is 0 and should be 3, \
             next uid is 2 and should be 4",
            "account ann@pillar.test: messages is 1 and should be 3",
        ],
        &[
            "mailbox INBOX of ann@pillar.test: messages is 5 and should be 3, unseen messages is 0 and should be 3, \
             next uid is 2 and should be 4 -> it was counted anew",
            "account ann@pillar.test: messages is 1 and should be 3 -> it was counted anew",
        ],
    );
    assert_eq!((wrong.facts(inbox).messages, wrong.facts(inbox).uid_next), (3, uid(4)));
}

#[test]
fn a_structure_is_made_anew_from_the_body() {
    let (rig, inbox) = house();
    let both = body_of(&rig, inbox, 2);
    let structure = rig.reader().structure(inbox, uid(2)).unwrap();
    let damaged = meddled(&rig, |transaction| flip(transaction, STRUCTURE, both, 12));
    let named = |whose: &str, number| {
        format!(
            "message {number} in INBOX of {whose}@pillar.test (12 Mar 2026): what is kept of its structure is damaged"
        )
    };
    let found = [named("ann", 2), named("bob", 1)];
    let repaired = found.clone().map(|found| format!("{found} -> it was made anew from the body"));
    let (_, findings) = examine(&damaged.store, &FULL);
    assert_eq!(findings, found);
    let (report, done) = examine(&damaged.store, &REPAIR);
    assert!(report.is_sound());
    // By now the subject can be read again.
    let repaired = repaired.map(|text| text.replace("2026)", "2026, \"Both\")"));
    assert_eq!(done, repaired);
    assert_eq!(damaged.reader().structure(inbox, uid(2)).unwrap(), structure);
    assert_eq!(examine(&damaged.store, &REPAIR).1, [""; 0]);
}

#[test]
fn a_structure_of_another_body_is_found_by_a_deep_check() {
    let (rig, inbox) = house();
    let (both, third) = (body_of(&rig, inbox, 2), body_of(&rig, inbox, 3));
    let swapped = meddled(&rig, |transaction| {
        use crate::store::record::StructureRecord;
        let mut table = transaction.open_table(STRUCTURE).unwrap();
        let other = StructureRecord::decode(both, table.get(both).unwrap().unwrap().value()).unwrap();
        table.insert(third, other.encode(third).unwrap().as_slice()).unwrap();
    });
    assert!(examine(&swapped.store, &CheckOptions { deep: false, ..FULL }).0.is_sound());
    let (report, found) = examine(&swapped.store, &FULL);
    assert_eq!((report.repairable, found.len()), (1, 1));
    assert!(found[0].ends_with("what is kept of its structure is not what is in its body"), "{found:?}");
    assert!(examine(&swapped.store, &REPAIR).0.is_sound());
    assert!(examine(&swapped.store, &FULL).0.is_sound());
}

#[test]
fn references_are_counted_anew() {
    let (rig, inbox) = house();
    let both = body_of(&rig, inbox, 2);
    for kept in [1_u32, 7] {
        let wrong = meddled(&rig, |transaction| {
            let mut table = transaction.open_table(BLOB).unwrap();
            let mut record = BlobRecord::decode(both, table.get(both).unwrap().unwrap().value()).unwrap();
            record.refs = kept;
            table.insert(both, record.encode(both).unwrap().as_slice()).unwrap();
        });
        let found = format!("body {both} (\"Both\"): references is {kept} and should be 2");
        repairs(&wrong, &[&found], &[&format!("{found} -> they were counted anew")]);
    }
}

#[test]
fn a_message_whose_record_is_lost_is_recovered_from_its_body() {
    let (rig, inbox) = house();
    let third = body_of(&rig, inbox, 3);
    let lost = meddled(&rig, |transaction| flip(transaction, MSG, (inbox.0, 3), 9));
    let (report, found) = examine(&lost.store, &FULL);
    assert_eq!(found[0], "message 3 in INBOX of ann@pillar.test: its record is damaged");
    assert!(found.contains(&format!("body {third} (\"Third\"): no message refers to it")), "{found:?}");
    assert!(report.repairable > 0 && report.damaged == 0);
    let (report, done) = examine(&lost.store, &REPAIR);
    assert!(report.is_sound(), "{report:?} {done:?}");
    // The message was for bob, as the server's own field says.
    let (bob, name) = (lost.reader().accounts().unwrap()[1].id, mailbox_name("Recovered"));
    let recovered = lost.reader().mailbox_named(bob, &name).unwrap().unwrap();
    assert!(recovered.subscribed && recovered.messages == 1);
    assert!(lost.body(recovered.id, 1).ends_with(b"\r\n\r\nthird"));
    let date = lost.reader().message(recovered.id, uid(1)).unwrap().unwrap().internal_date;
    assert_eq!(date.to_rfc5322(), "Thu, 12 Mar 2026 10:11:12 +0000");
    assert_eq!(lost.reader().uids(inbox).unwrap(), span(1, 2));
    assert!(examine(&lost.killed().store, &FULL).0.is_sound());
    // Its number is not given out again.
    let ann = lost.reader().accounts().unwrap()[0].id;
    assert_eq!(lost.deliver(b"next", &[ann])[0].1, uid(4));
}

#[test]
fn a_message_without_a_body_is_removed_by_name() {
    let (rig, inbox) = house();
    let third = body_of(&rig, inbox, 3);
    let gone = meddled(&rig, |transaction| {
        transaction.open_table(BLOB).unwrap().remove(third).unwrap();
        transaction.open_table(STRUCTURE).unwrap().remove(third).unwrap();
        transaction.open_table(TAIL).unwrap().remove(third).unwrap();
    });
    let found = "message 3 in INBOX of ann@pillar.test (12 Mar 2026): its body is not there";
    repairs(&gone, &[found], &[&format!("{found} -> it was removed, nothing was left of it")]);
    assert_eq!(gone.reader().vanished(inbox, ModSeq(0)).unwrap(), uids(&[3]));
}

#[test]
fn a_body_whose_record_is_lost_keeps_its_pieces() {
    let (rig, inbox) = house();
    let third = body_of(&rig, inbox, 3);
    let lost = meddled(&rig, |transaction| flip(transaction, BLOB, third, 20));
    let message = "message 3 in INBOX of ann@pillar.test (12 Mar 2026, \"Third\"): the record of its body is lost";
    stays(&lost, &[message]);
    assert_eq!(lost.facts(inbox).messages, 3);
    let gone = meddled(&rig, |transaction| {
        transaction.open_table(BLOB).unwrap().remove(third).unwrap();
    });
    stays(&gone, &[&format!("body {third} (\"Third\"): there are pieces of it and no record"), message]);
}

#[test]
fn a_structure_of_nothing_goes_and_pieces_too_many_stay() {
    let (rig, inbox) = house();
    let large = body_of(&rig, inbox, 1);
    let lone = meddled(&rig, |transaction| {
        let kept = {
            let table = transaction.open_table(STRUCTURE).unwrap();
            table.get(large).unwrap().unwrap().value().to_vec()
        };
        transaction.open_table(STRUCTURE).unwrap().insert(900, kept.as_slice()).unwrap();
    });
    repairs(
        &lone,
        &["body 900: there is a structure of it and nothing else", "mail.redb: next body is 3 and should be 901"],
        &[
            "mail.redb: next body is 3 and should be 901 -> the numbers were raised",
            "body 900: there is a structure of it and nothing else -> it is removed",
        ],
    );
    let excess = meddled(&rig, |transaction| {
        transaction.open_table(PIECE).unwrap().insert((large, 40), &[7; 3000][..]).unwrap();
    });
    stays(&excess, &["message 1 in INBOX of ann@pillar.test (12 Mar 2026, \"Invoice\"): its body has pieces too many"]);
}

#[test]
fn a_mailbox_whose_record_is_lost_is_made_anew_under_its_name() {
    let (rig, inbox) = house();
    rig.store.flag(inbox, uids(&[1]), FlagMode::Add, names(SystemFlags::SEEN, &["work"]), None).wait().unwrap();
    let before = rig.facts(inbox);
    let lost = meddled(&rig, |transaction| flip(transaction, MBOX, inbox.0, 9));
    let (report, found) = examine(&lost.store, &FULL);
    assert_eq!(found[0], "mailbox INBOX of ann@pillar.test: its record is damaged");
    assert_eq!(report.damaged, 0);
    let (report, done) = examine(&lost.store, &REPAIR);
    assert!(report.is_sound(), "{report:?} {done:?}");
    let after = lost.facts(inbox);
    assert_eq!((after.messages, after.unseen, after.uid_next), (3, 2, uid(4)));
    assert!(after.uid_validity != before.uid_validity && after.keywords.0.is_empty());
    assert!(lost.body(inbox, 2).ends_with(b"for both"));

    // A mailbox that no name leads to either gets a new one.
    let lost = meddled(&rig, |transaction| {
        transaction.open_table(MBOX).unwrap().remove(inbox.0).unwrap();
        let mut names = transaction.open_table(MBOXNAME).unwrap();
        let account = rig_account(&rig);
        names.remove((account, "INBOX")).unwrap();
    });
    let (report, done) = examine(&lost.store, &REPAIR);
    assert!(report.is_sound(), "{report:?} {done:?}");
    assert_eq!(lost.facts(inbox).name.as_str(), format!("Recovered {}", inbox.0));
    assert_eq!(lost.facts(inbox).messages, 3);
}

/// Ann's number; the store may be closed.
fn rig_account(rig: &Rig) -> u32 {
    rig.killed().reader().accounts().unwrap()[0].id.0
}

#[test]
fn names_that_lead_nowhere_go_and_missing_ones_come_back() {
    let (rig, inbox) = house();
    let ann = rig_account(&rig);
    let wrong = meddled(&rig, |transaction| {
        let mut names = transaction.open_table(MBOXNAME).unwrap();
        names.remove((ann, "INBOX")).unwrap();
        names.insert((ann, "Ghost"), inbox.0).unwrap();
    });
    let mailbox = "mailbox INBOX of ann@pillar.test: it is not found under its name";
    let name = format!("mailbox name Ghost of account number {ann}: it leads to no mailbox of this name");
    repairs(
        &wrong,
        &[mailbox, &name],
        &[&format!("{mailbox} -> it was counted anew"), &format!("{name} -> it was removed")],
    );
}

#[test]
fn accounts_and_addresses_find_each_other_again() {
    let (rig, _) = house();
    let bob = rig.reader().accounts().unwrap()[1].id;
    let alias = Alias { address: address("all@pillar.test"), targets: vec![address("ann@pillar.test")] };
    rig.store.put_alias(alias).wait().unwrap();
    let wrong = meddled(&rig, |transaction| {
        flip(transaction, ACCOUNT, bob.0, 12);
        let mut addresses = transaction.open_table(ADDRESS).unwrap();
        let mut value = addresses.get("all@pillar.test").unwrap().unwrap().value().to_vec();
        value[5] ^= 1;
        addresses.insert("all@pillar.test", value.as_slice()).unwrap();
        addresses.remove("ann@pillar.test").unwrap();
        drop(addresses);
        transaction.open_table(DOMAIN).unwrap().remove("pillar.test").unwrap();
    });
    let (report, found) = examine(&wrong.store, &FULL);
    assert_eq!(report.damaged, 0, "{found:#?}");
    for said in [
        format!("account number {}: its record is damaged", bob.0),
        "account ann@pillar.test: its address does not lead to it".to_owned(),
        "address all@pillar.test: its record is damaged".to_owned(),
        "address bob@pillar.test: its domain is not local".to_owned(),
    ] {
        assert!(found.contains(&said), "{said}: {found:#?}");
    }
    let (report, done) = examine(&wrong.store, &REPAIR);
    assert!(report.is_sound(), "{report:?} {done:#?}");
    assert!(done.iter().any(|done| done.contains("pillarbox account password bob@pillar.test")), "{done:#?}");
    assert!(done.iter().any(|done| done.ends_with("nobody knows where it led; make the alias again")), "{done:#?}");
    let reader = wrong.reader();
    assert_eq!(reader.route(&address("bob@pillar.test")).unwrap(), Route::Local(vec![bob]));
    assert_eq!(reader.accounts().unwrap()[1].used.messages, 1);
    assert_eq!(reader.route(&address("all@pillar.test")).unwrap(), Route::Unknown);
}

#[test]
fn the_log_of_removed_messages_begins_anew() {
    let (rig, inbox) = house();
    rig.store.remove(inbox, uids(&[2])).wait().unwrap();
    let modseq = rig.facts(inbox).highest_modseq.0;
    let wrong = meddled(&rig, |transaction| flip(transaction, VANISH, (inbox.0, modseq), 3));
    let found = "mailbox INBOX of ann@pillar.test: its log of removed messages is damaged";
    repairs(&wrong, &[found], &[&format!("{found} -> the log begins anew")]);
    // Clients hear of every gap.
    assert_eq!(wrong.reader().vanished(inbox, ModSeq(1)).unwrap(), uids(&[2]));
}

#[test]
fn nonsense_in_the_list_of_what_is_to_go_is_struck_off() {
    let (rig, inbox) = house();
    let both = body_of(&rig, inbox, 2);
    let wrong = meddled(&rig, |transaction| {
        transaction.open_table(SWEEP).unwrap().insert((9, 7), ()).unwrap();
    });
    let found = "mail.redb, row (9, 7) of table sweep: it is listed for removal and should not be";
    let (report, findings) = examine(&wrong.store, &FULL);
    assert_eq!((report.repairable, findings), (1, vec![found.to_owned()]));
    assert!(examine(&wrong.store, &REPAIR).0.is_sound());
    assert!(wrong.reader().table(SWEEP).unwrap().first().unwrap().is_none());

    // A body that is listed and referred to: the sweep itself leaves it alone.
    let listed = meddled(&rig, |transaction| {
        transaction.open_table(SWEEP).unwrap().insert((SWEEP_BODY, both), ()).unwrap();
    });
    listed.swept();
    assert!(examine(&listed.store, &FULL).0.is_sound());
}

/// A store with a message that is queued for two.
fn post_office() -> (Rig, u64, u64) {
    let rig = Rig::new();
    rig.account("ann");
    let new = super::queue::queued(&["bob@far.test", "cas@else.test"], 5000);
    let id = rig.store.submit(mail(&rig, "bob@far.test", "Away", b"away"), Vec::new(), Some(new)).wait().unwrap();
    let id = id.queued.unwrap();
    let blob = rig.reader().queued(id).unwrap().unwrap().blob;
    (rig, id.0, blob.0)
}

#[test]
fn a_schedule_is_made_anew_from_the_recipients() {
    use crate::store::table::{QDEST, QSCHED};
    let (rig, id, _) = post_office();
    assert!(examine(&rig.store, &FULL).0.is_sound());
    let wrong = meddled(&rig, |transaction| {
        transaction.open_table(QSCHED).unwrap().remove((5000, id, 0)).unwrap();
        let mut destinations = transaction.open_table(QDEST).unwrap();
        destinations.remove(("else.test", 5000, id, 1)).unwrap();
        destinations.insert(("wrong.test", 5000, id, 1), ()).unwrap();
    });
    let found = format!(
        "queued message {id} from <ann@pillar.test> (\"Away\"): the schedule does not agree with its recipients"
    );
    assert_eq!(examine(&wrong.store, &FULL).1, [found.clone(), found]);
    assert!(examine(&wrong.store, &REPAIR).0.is_sound());
    let domains = wrong.reader().destinations(None, 9).unwrap();
    let domains: Vec<_> = domains.iter().map(|destination| destination.domain.as_str().to_owned()).collect();
    assert_eq!(domains, ["else.test", "far.test"]);
    assert_eq!(wrong.killed().reader().next_due().unwrap(), Some(crate::mail::queue::Due(5000)));
}

#[test]
fn a_queued_message_loses_a_damaged_recipient_and_a_damaged_record_all() {
    use crate::store::table::{QRCPT, QUEUE};
    let (rig, id, blob) = post_office();
    let one = meddled(&rig, |transaction| flip(transaction, QRCPT, (id, 0), 5));
    let (report, found) = examine(&one.store, &FULL);
    assert_eq!((report.damaged, &found[0]), (0, &format!("recipient 0 of queued message {id}: its record is damaged")));
    let (report, done) = examine(&one.store, &REPAIR);
    assert!(report.is_sound(), "{done:#?}");
    let queued = one.reader().queued(crate::mail::queue::QueueId(id)).unwrap().unwrap();
    assert_eq!((queued.recipients, queued.unsettled), (2, 1));
    assert_eq!(one.reader().destinations(None, 9).unwrap().len(), 1);

    let all = meddled(&rig, |transaction| flip(transaction, QUEUE, id, 5));
    let (report, done) = examine(&all.store, &REPAIR);
    assert!(report.is_sound(), "{done:#?}");
    assert!(done[0].ends_with("it was removed; it was for <bob@far.test>, <cas@else.test>"), "{done:#?}");
    assert!(done.iter().any(|done| done.starts_with(&format!("body {blob} (\"Away\"): no message refers to it -> "))));
    let ann = all.reader().accounts().unwrap()[0].id;
    let recovered = all.mailbox(ann, "Recovered");
    assert!(all.body(recovered, 1).ends_with(b"away"));
    assert!(examine(&all.killed().store, &FULL).0.is_sound());
}

#[test]
fn a_damaged_piece_of_what_was_learnt_goes() {
    use crate::store::table::LEARNED;
    let (rig, ..) = post_office();
    rig.store.save_learned(None, vec![(3, vec![7; 100]), (4, vec![8; 100])]).wait().unwrap();
    let wrong = meddled(&rig, |transaction| flip(transaction, LEARNED, (0, 3), 50));
    let found = "piece 3 of what the spam filter learnt: its record is damaged";
    repairs(&wrong, &[found], &[&format!("{found} -> it was removed")]);
    assert_eq!(wrong.reader().learned(None, 3).unwrap(), None);
    assert_eq!(wrong.reader().learned(None, 4).unwrap(), Some(vec![8; 100]));
}

#[test]
fn a_damaged_sheet_of_the_search_index_goes() {
    use crate::store::table::GRAM;
    let (rig, ..) = post_office();
    for first in [3, 9] {
        let rows = (0..3).map(|index| (index, vec![7; 100])).collect();
        rig.store.put_sheet(BlobId(first), rows).wait().unwrap();
    }
    let wrong = meddled(&rig, |transaction| flip(transaction, GRAM, (3, 2), 50));
    assert!(!wrong.reader().grams().unwrap().block(BlobId(3), 1, &mut |_| ()).unwrap());
    let found = "the search index from body 3 on: its record is damaged";
    repairs(&wrong, &[found], &[&format!("{found} -> it was removed and is made again")]);
    assert_eq!(wrong.reader().grams().unwrap().next_sheet(BlobId(0)).unwrap(), Some((BlobId(9), None)));
}

#[test]
fn a_flipped_bit_in_any_page_is_found_by_redbs_checksums() {
    let (rig, _) = house();
    rig.store.close().unwrap();
    let length = rig.site.disk(INDEX_FILE).len().unwrap();
    // The kind of a page, its counts, its first places and its rows.
    for within in [0, 2, 40, 2000] {
        let mut found = 0;
        for page in (12_288..length).step_by(4096) {
            let site = rig.site.each(&mut MemoryDisk::fork);
            let disk = site.disk(INDEX_FILE);
            let ruined = Rig::start(site, tempfile::tempdir().unwrap(), config());
            let mut byte = [0];
            disk.read_at(page + within, &mut byte).unwrap();
            disk.write_at(page + within, &[byte[0] ^ 4]).unwrap();
            let options = CheckOptions { shared: true, bodies: false, ..FULL };
            let (report, findings) = examine(&ruined.store, &options);
            if !report.is_sound() {
                let said = "mail.redb: damaged pages (a checksum is wrong near byte ";
                assert!(findings[0].starts_with(said), "{findings:?}");
                assert_eq!((report.damaged, report.unchecked.len()), (1, 1));
                found += 1;
            }
        }
        // The others are free, or the flip fell behind what the page holds.
        assert!(found > 8, "{found} of {} pages at {within}", length / 4096);
    }
}

#[test]
fn a_damaged_journal_is_found_and_a_checkpoint_makes_it_whole() {
    let (rig, _) = house();
    let journal = rig.site.disk(JOURNAL_FILE);
    // The groups begin behind the two header blocks; this is in the payload of the first.
    let at = 8192 + 100;
    let mut byte = [0];
    journal.read_at(at, &mut byte).unwrap();
    journal.write_at(at, &[byte[0] ^ 1]).unwrap();
    let (report, found) = examine(&rig.store, &CheckOptions::quick());
    let said = "mail.journal: a change above the last checkpoint is not what was written";
    assert_eq!((report.repairable, found), (1, vec![said.to_owned()]));
    let (report, done) = examine(&rig.store, &CheckOptions { repair: true, ..CheckOptions::quick() });
    assert!(report.is_sound());
    assert_eq!(done, [format!("{said} -> a checkpoint made it superfluous")]);
    let ann = rig.reader().accounts().unwrap()[0].id;
    rig.deliver(b"x", &[ann]);
    assert!(examine(&rig.store, &CheckOptions::quick()).0.is_sound());
    assert!(examine(&rig.killed().store, &CheckOptions { deep: false, ..FULL }).0.is_sound());
}

#[test]
fn either_copy_of_the_first_block_may_be_damaged_and_is_written_anew() {
    let (rig, _) = house();
    let index = rig.site.disk(INDEX_FILE);
    for at in [100, 4096 + 100] {
        let mut byte = [0];
        index.read_at(at, &mut byte).unwrap();
        index.write_at(at, &[byte[0] ^ 1]).unwrap();
        let (report, found) = examine(&rig.store, &CheckOptions::quick());
        assert_eq!(found, ["mail.redb: one of the two copies of its first block is damaged"]);
        assert_eq!((report.repairable, report.damaged), (1, 0));
        let (report, done) = examine(&rig.store, &CheckOptions { repair: true, ..CheckOptions::quick() });
        assert!(report.is_sound(), "{done:?}");
        assert!(examine(&rig.store, &CheckOptions::quick()).0.is_sound());
    }
}
