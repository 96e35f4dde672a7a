//! Certificates that people log in with: found by fingerprint, bounded, gone with their account.

use super::*;
use crate::mail::certificate::{CERTIFICATES_MAX, ClientCertificate, Fingerprint};
use crate::mail::date::Timestamp;
use crate::store::table::CERTIFICATE;

const END: Timestamp = Timestamp(2_000_000_000);

fn print(number: usize) -> Fingerprint {
    Fingerprint::of(&number.to_le_bytes())
}

fn add(rig: &Rig, account: AccountId, number: usize, name: &str) -> Result<(), WriteError> {
    rig.store.add_certificate(account, print(number), name.to_owned(), END).wait()
}

fn names(rig: &Rig, account: Option<AccountId>) -> Vec<String> {
    rig.reader().certificates(account).unwrap().into_iter().map(|certificate| certificate.name).collect()
}

#[test]
fn a_certificate_is_found_by_its_fingerprint_and_survives_a_kill() {
    let rig = Rig::new();
    let ((ann, _), (bob, _)) = (rig.account("ann"), rig.account("bob"));
    assert!(!rig.reader().has_certificates().unwrap());
    add(&rig, ann, 1, "laptop").unwrap();
    add(&rig, ann, 2, "phone").unwrap();
    add(&rig, bob, 3, "laptop").unwrap();
    let killed = rig.killed();
    for rig in [&rig, &killed] {
        assert!(rig.reader().has_certificates().unwrap());
        assert_eq!((names(rig, None).len(), names(rig, Some(ann))), (3, vec!["laptop".into(), "phone".into()]));
        let found = rig.reader().certificate(print(2)).unwrap().unwrap();
        let added = found.added;
        let name = "phone".to_owned();
        assert_eq!(found, ClientCertificate { fingerprint: print(2), account: ann, name, added, expires: END });
        assert!(found.is_over(Timestamp(END.0 + 1)) && !found.is_over(END) && !found.is_over(Timestamp(0)));
        assert_eq!(rig.reader().certificate(print(4)).unwrap(), None);
        check(&rig.store);
    }
    rig.store.remove_certificate(ann, "phone".into()).wait().unwrap();
    assert_eq!(rig.reader().certificate(print(2)).unwrap(), None);
    let missing = WriteError::NotAllowed("there is no certificate of this name");
    assert_eq!(rig.store.remove_certificate(bob, "phone".into()).wait(), Err(missing));
}

#[test]
fn a_fingerprint_has_one_owner_and_a_name_one_certificate() {
    let rig = Rig::new();
    let ((ann, _), (bob, _)) = (rig.account("ann"), rig.account("bob"));
    add(&rig, ann, 1, "laptop").unwrap();
    assert!(matches!(add(&rig, bob, 1, "mine"), Err(WriteError::NotAllowed(why)) if why.contains("registered")));
    assert!(matches!(add(&rig, ann, 2, "laptop"), Err(WriteError::NotAllowed(why)) if why.contains("revoke")));
    assert!(matches!(add(&rig, ann, 2, "two\nlines"), Err(WriteError::NotAllowed(_))));
    assert_eq!(add(&rig, AccountId(99), 2, "x"), Err(WriteError::NoSuchAccount));
    for number in 1..CERTIFICATES_MAX {
        add(&rig, ann, 100 + number, &format!("{number}")).unwrap();
    }
    assert!(matches!(add(&rig, ann, 2, "one more"), Err(WriteError::Limit(_))));
    add(&rig, bob, 2, "laptop").unwrap();
}

#[test]
fn certificates_go_with_their_account() {
    let rig = Rig::new();
    let ((ann, _), (bob, _)) = (rig.account("ann"), rig.account("bob"));
    add(&rig, ann, 1, "laptop").unwrap();
    add(&rig, bob, 2, "laptop").unwrap();
    rig.store.remove_account(ann).wait().unwrap();
    assert_eq!(rig.reader().certificate(print(1)).unwrap(), None);
    assert_eq!(names(&rig, None), ["laptop"]);
    rig.swept();
    check(&rig.store);
    check(&rig.killed().store);
}

#[test]
fn a_damaged_certificate_lets_nobody_in_and_is_removed_by_a_repair() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    add(&rig, ann, 1, "laptop").unwrap();
    add(&rig, ann, 2, "phone").unwrap();
    let damaged = super::check::meddled(&rig, |transaction| {
        let mut table = transaction.open_table(CERTIFICATE).unwrap();
        let (good, key) = (print(2).to_string(), print(1).to_string());
        let mut value = table.get(key.as_str()).unwrap().unwrap().value().to_vec();
        value[2] ^= 1;
        table.insert(key.as_str(), value.as_slice()).unwrap();
        // One row under another's key.
        let stolen = table.get(good.as_str()).unwrap().unwrap().value().to_vec();
        table.insert(print(3).to_string().as_str(), stolen.as_slice()).unwrap();
    });
    assert!(damaged.reader().certificate(print(1)).is_err() && damaged.reader().certificate(print(3)).is_err());
    assert_eq!(examine(&damaged.store, &super::check::FULL).1.len(), 2);
    assert_eq!(examine(&damaged.store, &super::check::REPAIR).0.repaired, 2);
    assert_eq!(names(&damaged, None), ["phone"]);
    assert_eq!(examine(&damaged.store, &super::check::FULL).1, [""; 0]);
}

#[test]
fn a_store_of_schema_5_gets_the_table_when_it_is_opened() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let older = super::check::meddled(&rig, |transaction| {
        transaction.delete_table(CERTIFICATE).unwrap();
        let mut state = transaction.open_table(crate::store::table::STATE).unwrap();
        state.insert("schema", 5_u32.to_le_bytes().as_slice()).unwrap();
    });
    add(&older, ann, 1, "laptop").unwrap();
    assert_eq!(names(&older, Some(ann)), ["laptop"]);
    check(&older.store);
}
