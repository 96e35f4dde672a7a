//! A round that meets what rounds meet: mail that is to be scanned meanwhile, a server that stops, mail that is
//! too old for it.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::super::guard::{Pace, SCANS};
use super::*;
use crate::filter::scan::unpack::{Limit, Report};
use crate::flow::scan::{Findings, SET_FILE, ScanConfig, compile};
use crate::mail::address::Address;
use crate::mail::date::ZonedTime;
use crate::mail::mailbox::AccountId;
use crate::mail::message::FlagNames;
use crate::mail::secret::ScramVerifier;
use crate::mail::structure::Structure;
use crate::store::{Folder, NewMessage, Quota, StoreConfig};

/// What the signature knows.
const EVIL: &str = "what the signature knows";

/// A store with mail of one account, and signatures that came after it.
struct House {
    folder: tempfile::TempDir,
    store: Store,
    account: AccountId,
}

impl House {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path());
        let verifier = ScramVerifier { salt: [1; 16], iterations: 4096, stored_key: [2; 32], server_key: [3; 32] };
        let address = Address::parse("ann@pillar.test").unwrap();
        let account = store.add_account(address, verifier, Quota::default()).wait().unwrap();
        Self { folder, store, account }
    }

    /// Keeps a letter that has what the signature knows behind so many bytes of text, `age` seconds old.
    fn keep(&self, text_bytes: usize, age: i64) {
        let mut spool = self.store.spool().unwrap();
        let line = b"all work and no play makes for a long letter, which takes its time to look through\r\n";
        spool.write(b"Subject: x\r\n\r\n").unwrap();
        for _ in 0..text_bytes / line.len() {
            spool.write(line).unwrap();
        }
        spool.write(EVIL.as_bytes()).unwrap();
        let message = NewMessage {
            body: spool.finish().unwrap(),
            structure: Structure::default(),
            internal_date: ZonedTime { at: Timestamp(now().0 - age), offset_mins: 0 },
            flags: FlagNames::default(),
        };
        self.store.deliver(message, vec![(self.account, Folder::Inbox)]).wait().unwrap();
    }

    /// Compiles the signatures and begins or resumes their round, as the server does when it starts.
    fn rescanner(&self) -> Rescanner {
        let set = self.folder.path().join(SET_FILE);
        if !set.exists() {
            let rules = self.folder.path().join("own.rules");
            std::fs::write(&rules, format!("Test.Evil ; any ; * ; text \"{EVIL}\"\n")).unwrap();
            compile::compile(&[rules], &set, 7, &mut |_| {}).unwrap();
        }
        let config = ScanConfig { infected: Action::Tag, ..ScanConfig::default() };
        let guard = Guard::new(self.store.clone(), self.folder.path(), config, Arc::from("mail.x.test"));
        guard.resume();
        Rescanner::new(guard, self.store.clone())
    }
}

fn open(folder: &Path) -> Store {
    let config = StoreConfig { journal_bytes: 1 << 20, reserve_bytes: 0, ..StoreConfig::default() };
    Store::open(folder, &config).unwrap()
}

impl Rescanner {
    fn state(&self) -> RescanState {
        self.guard.rescan_state().unwrap()
    }

    fn work(&self) -> Ended {
        self.stretch(&CheckStop::default()).unwrap()
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < Duration::from_mins(1), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn mail_that_arrives_ends_the_look_at_an_old_letter_which_is_looked_at_again_later() {
    let house = House::new();
    // In a build for tests this takes seconds to look through.
    house.keep(24 << 20, 0);
    let rescanner = house.rescanner();
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(SCANS).build().unwrap();
    // A look at a message that needs both paces and takes no time.
    let look = |_: &Guard, (): &mut (), pace: Pace| {
        let limit = (pace == Pace::Quick).then_some(Limit::Bytes);
        Ok(Findings { signature: None, report: Report { limit, ..Report::default() } })
    };
    std::thread::scope(|scope| {
        let round = scope.spawn(|| rescanner.work());
        until("the round looks at the letter", || rescanner.guard.is_taken());
        let begun = Instant::now();
        runtime.block_on(rescanner.guard.scan_in_turn((), look)).unwrap();
        let waited = begun.elapsed();
        assert_eq!(round.join().unwrap(), Ended::GaveWay, "it went on for {waited:?}");
    });
    let state = rescanner.state();
    assert_eq!((state.stage, state.read, state.found), (Stage::Bodies, 0, 0));
    assert_eq!(rescanner.work(), Ended::Over);
    let state = rescanner.state();
    assert_eq!((state.stage, state.read, state.found), (Stage::Done, 1, 1));
}

#[test]
fn while_mail_has_the_place_no_old_letter_is_looked_at_and_none_is_left_out() {
    let house = House::new();
    house.keep(0, 0);
    house.keep(0, 0);
    let rescanner = house.rescanner();
    let place = rescanner.guard.try_place().unwrap();
    for _ in 0..=2 * TRIES_MAX {
        assert_eq!(rescanner.work(), Ended::GaveWay);
    }
    assert_eq!(rescanner.state().next, 0);
    drop(place);
    assert_eq!(rescanner.work(), Ended::Over);
    let state = rescanner.state();
    assert_eq!((state.stage, state.read, state.found), (Stage::Done, 2, 2));
}

#[test]
fn a_round_goes_on_after_a_restart_where_the_server_stopped() {
    const LETTERS: u64 = 6;
    let house = House::new();
    for _ in 0..LETTERS {
        house.keep(1 << 20, 0);
    }
    let rescanner = house.rescanner();
    let stop = CheckStop::default();
    std::thread::scope(|scope| {
        let round = scope.spawn(|| rescanner.stretch(&stop).unwrap());
        until("two letters are read", || rescanner.state().read >= 2);
        stop.stop();
        assert_eq!(round.join().unwrap(), Ended::Over);
    });
    let before = rescanner.state();
    assert_eq!((before.stage, before.read), (Stage::Bodies, before.found));
    assert!(before.next > 0 && before.read < LETTERS, "{before:?}");
    drop(rescanner);
    house.store.close().unwrap();

    let House { folder, account, .. } = house;
    let house = House { store: open(folder.path()), folder, account };
    let rescanner = house.rescanner();
    assert_eq!(rescanner.state(), before);
    assert_eq!(rescanner.work(), Ended::Over);
    let after = rescanner.state();
    assert_eq!((after.stage, after.read, after.found), (Stage::Done, LETTERS, LETTERS), "each once");
}

#[test]
fn mail_that_is_older_than_the_days_of_the_settings_is_left_alone() {
    let house = House::new();
    let days = i64::from(ScanConfig::default().rescan_days);
    house.keep(0, days * DAY_SECS + 60);
    house.keep(0, days * DAY_SECS - 600);
    house.keep(0, 0);
    let rescanner = house.rescanner();
    assert_eq!(rescanner.work(), Ended::Over);
    let state = rescanner.state();
    assert_eq!((state.read, state.found), (2, 2));
}
