//! Accounts, aliases, domains, logins, notes.

use super::*;
use crate::mail::list::{Answers, List, Posting};

fn local(ids: &[AccountId]) -> Route {
    Route::Local(ids.to_vec())
}

fn alias(from: &str, to: &[&str]) -> Alias {
    Alias { address: address(from), targets: to.iter().map(|to| address(to)).collect() }
}

#[test]
fn mail_is_routed_to_accounts_aliases_details_catch_alls_and_postmaster() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let (bob, _) = rig.account("bob");
    let route = |to: &str| rig.reader().route(&address(to)).unwrap();
    assert_eq!(route("ANN@Pillar.Test"), local(&[ann]));
    assert_eq!(route("ann+lists@pillar.test"), local(&[ann]));
    assert_eq!(route("eve@pillar.test"), Route::Unknown);
    assert_eq!(route("ann@elsewhere.test"), Route::Remote);
    assert_eq!(route("postmaster@pillar.test"), local(&[ann]));

    rig.store
        .put_alias(alias("team@pillar.test", &["bob@pillar.test", "ann@pillar.test", "BOB@pillar.test"]))
        .wait()
        .unwrap();
    assert_eq!(route("team+x@pillar.test"), local(&[bob, ann]));
    rig.store.put_alias(alias("*@pillar.test", &["bob@pillar.test"])).wait().unwrap();
    assert_eq!(route("eve@pillar.test"), local(&[bob]));
    assert_eq!(route("postmaster@pillar.test"), local(&[bob]));
    assert_eq!(route("ann@pillar.test"), local(&[ann]));
    rig.store.put_alias(alias("team@pillar.test", &["ann@pillar.test"])).wait().unwrap();
    assert_eq!(route("team@pillar.test"), local(&[ann]));

    let may = |account, from: &str| rig.reader().may_send_as(account, &address(from)).unwrap();
    assert!(may(ann, "ann+x@pillar.test") && may(ann, "team@pillar.test") && may(bob, "any@pillar.test"));
    assert!(!may(ann, "bob@pillar.test") && !may(bob, "team@pillar.test") && !may(ann, "ann@elsewhere.test"));
}

#[test]
fn an_alias_needs_a_local_domain_and_accounts() {
    let rig = Rig::new();
    rig.account("ann");
    let put = |from, to: &[&str]| rig.store.put_alias(alias(from, to)).wait();
    assert!(matches!(put("a@other.test", &["ann@pillar.test"]), Err(WriteError::NotAllowed(_))));
    assert_eq!(put("a@pillar.test", &["eve@pillar.test"]), Err(WriteError::NoSuchAccount));
    assert_eq!(put("ann@pillar.test", &["ann@pillar.test"]), Err(WriteError::Exists));
    assert!(matches!(put("a@pillar.test", &[]), Err(WriteError::NotAllowed(_))));
    put("b@pillar.test", &["ann@pillar.test"]).unwrap();
    put("A@pillar.test", &["ann@pillar.test"]).unwrap();
    let aliases = rig.reader().aliases().unwrap();
    assert_eq!(aliases, [alias("A@pillar.test", &["ann@pillar.test"]), alias("b@pillar.test", &["ann@pillar.test"])]);
    // An alias's address is nobody else's.
    let taken = rig.store.add_account(address("B@pillar.test"), verifier(), Quota::default()).wait();
    assert_eq!(taken, Err(WriteError::Exists));
    rig.store.remove_alias(address("a@pillar.test")).wait().unwrap();
    assert!(matches!(rig.store.remove_alias(address("a@pillar.test")).wait(), Err(WriteError::NotAllowed(_))));
    assert_eq!(rig.reader().aliases().unwrap().len(), 1);
}

#[test]
fn a_domain_goes_only_when_nobody_is_in_it() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let domain = |name| Domain::parse(name).unwrap();
    rig.store.add_domain(domain("other.test")).wait().unwrap();
    rig.store.add_domain(domain("other.test")).wait().unwrap();
    assert_eq!(rig.reader().domains().unwrap(), [domain("other.test"), domain("pillar.test")]);
    assert_eq!(rig.reader().route(&address("x@other.test")).unwrap(), Route::Unknown);
    assert!(matches!(rig.store.remove_domain(domain("pillar.test")).wait(), Err(WriteError::NotAllowed(_))));
    rig.store.remove_domain(domain("other.test")).wait().unwrap();
    assert!(matches!(rig.store.remove_domain(domain("other.test")).wait(), Err(WriteError::NotAllowed(_))));
    rig.store.remove_account(ann).wait().unwrap();
    rig.store.remove_domain(domain("pillar.test")).wait().unwrap();
    assert_eq!(rig.reader().domains().unwrap(), []);
}

#[test]
fn a_login_is_an_address_or_an_unambiguous_local_part() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    rig.account("annabel");
    let login = |name: &str| rig.reader().login(name).unwrap().map(|(account, _)| account.id);
    assert_eq!(login("Ann@pillar.test"), Some(ann));
    assert_eq!(login("ANN"), Some(ann));
    assert_eq!(login("an"), None);
    assert_eq!(login(""), None);
    assert_eq!(login("ann+x@pillar.test"), None);
    rig.store.put_alias(alias("info@pillar.test", &["ann@pillar.test"])).wait().unwrap();
    assert_eq!(login("info"), None);
    rig.store.add_account(address("ann@other.test"), verifier(), Quota::default()).wait().unwrap();
    assert_eq!(login("ann"), None);
    assert_eq!(login("ann@pillar.test"), Some(ann));

    let new = ScramVerifier { iterations: 9, ..verifier() };
    rig.store.set_verifier(ann, new.clone()).wait().unwrap();
    assert_eq!(rig.killed().reader().login("ann@pillar.test").unwrap().unwrap().1, new);
}

#[test]
fn a_removed_account_takes_its_mail_and_its_own_aliases_along() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let (bob, inbox) = rig.account("bob");
    rig.deliver(b"both", &[ann, bob]);
    rig.deliver(b"ann alone", &[ann]);
    rig.store.put_alias(alias("all@pillar.test", &["ann@pillar.test", "bob@pillar.test"])).wait().unwrap();
    rig.store.put_alias(alias("a@pillar.test", &["ann@pillar.test"])).wait().unwrap();
    rig.store.remove_account(ann).wait().unwrap();
    assert_eq!(rig.store.remove_account(ann).wait(), Err(WriteError::NoSuchAccount));
    assert_eq!(rig.reader().aliases().unwrap(), [alias("all@pillar.test", &["bob@pillar.test"])]);
    assert_eq!(rig.reader().accounts().unwrap().len(), 1);
    assert_eq!(rig.reader().mailboxes(ann).unwrap().len(), 0);
    assert_eq!(rig.reader().subscriptions(ann).unwrap(), []);
    rig.swept();
    check(&rig.store);
    assert_eq!(rig.body(inbox, 1), b"both");
    // Its number is not given away again.
    let next = rig.account("ann").0;
    assert!(next > bob);
}

#[test]
fn an_alias_leads_elsewhere_too_and_outlives_its_account() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let team = || alias("team@pillar.test", &["ann@pillar.test", "eve@far.test", "EVE@far.test", "sam@near.test"]);
    rig.store.put_alias(team()).wait().unwrap();
    let outside = vec![address("eve@far.test"), address("sam@near.test")];
    let route = |rig: &Rig| rig.reader().route(&address("Team+x@pillar.test")).unwrap();
    assert_eq!(route(&rig), Route::Forward { accounts: vec![ann], outside: outside.clone() });
    assert!(rig.reader().may_send_as(ann, &address("team@pillar.test")).unwrap());
    let listed = alias("team@pillar.test", &["ann@pillar.test", "eve@far.test", "sam@near.test"]);
    assert_eq!(rig.reader().aliases().unwrap(), [listed]);
    let nobody = rig.store.put_alias(alias("x@pillar.test", &["nobody@pillar.test", "eve@far.test"])).wait();
    assert_eq!(nobody, Err(WriteError::NoSuchAccount));
    let rig = rig.killed();
    rig.store.remove_account(ann).wait().unwrap();
    assert_eq!(route(&rig), Route::Forward { accounts: vec![], outside });
    check(&rig.store);
    rig.store.remove_alias(address("team@pillar.test")).wait().unwrap();
    assert_eq!(route(&rig), Route::Unknown);
}

#[test]
fn a_list_has_its_address_alone_and_its_owners_two_more() {
    let rig = Rig::new();
    let (ann, _) = rig.account("ann");
    let list = List {
        address: address("Crew@pillar.test"),
        title: "The crew".into(),
        owners: vec![address("ann@pillar.test"), address("eve@far.test")],
        members: vec![address("ann@pillar.test")],
        posting: Posting::default(),
        answers: Answers::default(),
    };
    rig.store.add_list(list.clone()).wait().unwrap();
    assert_eq!(rig.store.add_list(list.clone()).wait(), Err(WriteError::Exists));
    assert_eq!(rig.store.put_alias(alias("crew@pillar.test", &["ann@pillar.test"])).wait(), Err(WriteError::Exists));
    let mut taken = list.clone();
    taken.address = address("ann@pillar.test");
    assert_eq!(rig.store.add_list(taken.clone()).wait(), Err(WriteError::Exists));
    taken.address = address("crew@far.test");
    assert!(matches!(rig.store.add_list(taken).wait(), Err(WriteError::NotAllowed(_))));
    let rig = rig.killed();
    let route = |to: &str| rig.reader().route(&address(to)).unwrap();
    assert_eq!(route("crew+x@pillar.test"), Route::List(Box::new(list.clone())));
    let owners = Route::Forward { accounts: vec![ann], outside: vec![address("eve@far.test")] };
    assert_eq!((route("crew-OWNER@pillar.test"), route("crew-bounces@pillar.test")), (owners.clone(), owners));
    assert_eq!(route("other-owner@pillar.test"), Route::Unknown);
    assert!(!rig.reader().may_send_as(ann, &address("crew@pillar.test")).unwrap());
    let mut changed = list;
    changed.owners.pop();
    rig.store.set_list(changed.clone()).wait().unwrap();
    assert_eq!(route("crew-owner@pillar.test"), local(&[ann]));
    assert_eq!(rig.reader().mailing_lists().unwrap(), [changed.clone()]);
    changed.owners.clear();
    assert!(matches!(rig.store.set_list(changed.clone()).wait(), Err(WriteError::NotAllowed(_))));
    check(&rig.store);
    rig.store.remove_list(changed.address.clone()).wait().unwrap();
    assert_eq!(rig.reader().mailing_list(&changed.address).unwrap(), None);
    assert!(matches!(rig.store.set_list(changed).wait(), Err(WriteError::NotAllowed(_))));
}

#[test]
fn a_note_is_kept_and_bounded() {
    let rig = Rig::new();
    rig.store.put_note("import", b"42".to_vec()).wait().unwrap();
    assert_eq!(rig.reader().note("import").unwrap(), Some(b"42".to_vec()));
    assert_eq!(rig.reader().note("none").unwrap(), None);
    let large = rig.store.put_note("import", vec![0; NOTE_MAX + 1]).wait();
    assert_eq!(large, Err(WriteError::Limit("size of a note")));
    assert_eq!(rig.killed().reader().note("import").unwrap(), Some(b"42".to_vec()));
}
