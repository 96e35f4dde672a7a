//! What is due which way, what goes out of it, and what an attempt leaves behind.

use super::*;
use crate::mail::address::Address;
use crate::mail::date::ZonedTime;
use crate::mail::envelope::{BodyType, ForwardPath, Notify};
use crate::mail::message::FlagNames;
use crate::mail::queue::{Answer, NewQueued, Submitter};
use crate::mail::structure::Walker;
use crate::queue::RelayConfig;
use crate::store::{NewMessage, StoreConfig};

struct House {
    _folder: tempfile::TempDir,
    exit: Exit,
}

fn house(relays: &[RelayConfig]) -> House {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig { journal_bytes: 1 << 20, reserve_bytes: 0, ..StoreConfig::default() };
    let store = Store::open(folder.path(), &config).unwrap();
    let config = QueueConfig::default();
    let routes = Routes::new(&config, &BTreeMap::default(), relays).unwrap();
    let exit = Exit::new(store, Arc::new(routes), Arc::new(config), "pillarbox.test".into());
    House { _folder: folder, exit }
}

impl House {
    fn queue(&self, text: &str, from: &str, to: &[&str], due: u64) -> QueueId {
        let store = &self.exit.store;
        let mut spool = store.spool().unwrap();
        spool.write(text.as_bytes()).unwrap();
        let mut walker = Walker::new();
        walker.feed(text.as_bytes());
        let message = NewMessage {
            body: spool.finish().unwrap(),
            structure: walker.finish(),
            internal_date: ZonedTime::utc(Timestamp(9)),
            flags: FlagNames::default(),
        };
        let recipient = |to: &&str| Recipient {
            path: ForwardPath::Address(Address::parse(to).unwrap()),
            notify: Notify::default(),
            original: None,
        };
        let from =
            if from.is_empty() { ReversePath::Null } else { ReversePath::Address(Address::parse(from).unwrap()) };
        let envelope = Envelope {
            from,
            recipients: to.iter().map(recipient).collect(),
            body: BodyType::SevenBit,
            utf8: false,
            ret: None,
            envelope_id: None,
        };
        let queued = NewQueued { envelope, require_tls: false, by: Submitter::Nobody, due: Due(due) };
        store.submit(message, Vec::new(), Some(queued)).wait().unwrap().queued.unwrap()
    }

    fn survey(&self, situation: &Situation) -> Survey {
        self.exit.survey(situation, &mut None).unwrap()
    }
}

fn direct(name: &str) -> Way {
    Way::Direct(Domain::parse(name).unwrap())
}

fn at(now: u64) -> Situation {
    Situation { now: Due(now), ..Situation::default() }
}

const LETTER: &str = "Return-Path: <ann@x.test>\r\nSubject: hi\r\n\r\nhello\r\n";

fn numbers(outgoing: &Outgoing) -> Vec<u32> {
    outgoing.recipients.iter().map(|row| row.number).collect()
}

#[test]
fn what_is_due_is_told_by_its_way_and_when_the_next_is() {
    let house = house(&[]);
    house.queue(LETTER, "ann@x.test", &["a@one.test", "b@two.test", "c@one.test"], 1000);
    house.queue(LETTER, "ann@x.test", &["d@three.test"], 9000);
    assert_eq!(house.survey(&at(500)).next, Some(Due(1000)));
    let survey = house.survey(&at(2000));
    assert_eq!(survey.wanted, [(direct("one.test"), 2), (direct("two.test"), 1)]);
    assert_eq!((survey.next, survey.more, survey.lost.len()), (Some(Due(9000)), false, 0));
}

#[test]
fn a_message_is_sent_once_and_to_all_who_go_one_way() {
    let house = house(&[]);
    let id = house.queue(LETTER, "ann@x.test", &["a@one.test", "b@two.test", "c@one.test"], 1000);
    let one = house.exit.next_mail(&direct("one.test"), &at(2000), |_| true).unwrap().unwrap();
    assert_eq!((one.queued.id, numbers(&one)), (id, vec![0, 2]));
    assert!(house.exit.next_mail(&direct("one.test"), &at(2000), |_| true).unwrap().is_none());
    assert_eq!(house.survey(&at(2000)).wanted, [(direct("two.test"), 1)]);
    drop(one);
    assert_eq!(house.survey(&at(2000)).wanted.len(), 2);
}

#[test]
fn all_of_a_message_goes_to_a_relay_at_one_time_where_its_sender_decides() {
    let relay = RelayConfig { host: "r".into(), senders: vec!["ann@x.test".into()], ..RelayConfig::default() };
    let house = house(&[relay]);
    house.queue(LETTER, "bob@x.test", &["a@one.test"], 900);
    house.queue(LETTER, "ann@x.test", &["a@one.test", "b@two.test"], 1000);
    let survey = house.survey(&at(2000));
    assert_eq!(survey.wanted, [(direct("one.test"), 1), (Way::Relay(0), 2)]);
    let outgoing = house.exit.next_mail(&Way::Relay(0), &at(2000), |_| true).unwrap().unwrap();
    assert_eq!(numbers(&outgoing), [0, 1]);
    let direct = house.exit.next_mail(&direct("one.test"), &at(2000), |_| true).unwrap().unwrap();
    assert_eq!(direct.envelope().from.to_string(), "<bob@x.test>");
}

#[test]
fn a_flood_for_one_destination_hides_no_other() {
    let house = house(&[]);
    let many: Vec<String> = (0..PAGE + 50).map(|number| format!("u{number}@one.test")).collect();
    house.queue(LETTER, "ann@x.test", &many.iter().map(String::as_str).collect::<Vec<_>>(), 1000);
    house.queue(LETTER, "ann@x.test", &["b@two.test"], 1001);
    let survey = house.survey(&at(2000));
    assert!(survey.more && survey.wanted.iter().any(|(way, _)| *way == direct("two.test")), "{:?}", survey.wanted);
}

#[test]
fn a_flood_by_one_relay_hides_nothing_that_goes_by_another() {
    let relay = |host: &str, sender: &str| RelayConfig {
        host: host.into(),
        senders: vec![sender.into()],
        ..RelayConfig::default()
    };
    let house = house(&[relay("r0", "ann@x.test"), relay("r1", "bob@x.test")]);
    let many: Vec<String> = (0..PAGE + 50).map(|number| format!("u{number}@one.test")).collect();
    house.queue(LETTER, "ann@x.test", &many.iter().map(String::as_str).collect::<Vec<_>>(), 1000);
    house.queue(LETTER, "bob@x.test", &["b@two.test"], 1001);
    let found = house.exit.next_mail(&Way::Relay(1), &at(2000), |_| true).unwrap().unwrap();
    assert_eq!(found.envelope().from.to_string(), "<bob@x.test>");
    drop(found);
    assert!(house.exit.next_mail(&Way::Relay(2), &at(2000), |_| true).unwrap().is_none());
}

#[test]
fn a_way_that_rests_is_put_off_and_one_that_fails_moves_all_its_mail() {
    let house = house(&[]);
    let ids: Vec<_> = (0..3).map(|_| house.queue(LETTER, "ann@x.test", &["a@one.test"], 1000)).collect();
    let situation = Situation { rests: [(direct("one.test"), Due(5000))].into(), ..at(2000) };
    let survey = house.survey(&situation);
    assert_eq!((survey.wanted.len(), survey.resting.len()), (0, 3));
    assert_eq!(survey.resting[0].2.stage, Stage::Waiting(Due(5000)));

    let terms = AttemptTerms { now: Timestamp(2), up_since: Timestamp(0), chance: 0, not_before: Due(7000) };
    let verdict = Verdict::Deferred(Answer::new("", "4.4.1 no connection"));
    let changed = house.exit.put_off(&direct("one.test"), &at(2000), &verdict, &terms).unwrap();
    assert_eq!(changed.iter().map(|changed| changed.id).collect::<Vec<_>>(), ids);
    assert_eq!((changed[0].states[0].1.attempts, changed[0].warn, changed[0].owed), (1, false, false));
}

#[test]
fn who_has_no_way_any_more_is_told() {
    let mut house = house(&[]);
    let id = house.queue(LETTER, "ann@x.test", &["a@one.test"], 1000);
    house.exit.routes = Arc::default();
    assert_eq!(house.survey(&at(2000)).lost, [(id, 0)]);
}

#[test]
fn a_message_goes_out_without_its_return_path_and_behind_new_fields() {
    let house = house(&[]);
    house.queue(LETTER, "ann@x.test", &["a@one.test"], 1000);
    let mut outgoing = house.exit.next_mail(&direct("one.test"), &at(2000), |_| true).unwrap().unwrap();
    let read = |content: &mut Content, max| {
        let mut all = Vec::new();
        loop {
            let piece = content.next(max).unwrap();
            if piece.is_empty() {
                return String::from_utf8(all).unwrap();
            }
            assert!(piece.len() <= max);
            all.extend(piece);
        }
    };
    let content = outgoing.content.as_mut().unwrap();
    assert_eq!(content.len(), 22);
    assert_eq!(read(content, 7), "Subject: hi\r\n\r\nhello\r\n");
    content.put_before("X: 1\r\n".into());
    for max in [1, 5, 6, 7, 999] {
        content.rewind();
        assert_eq!(read(content, max), "X: 1\r\nSubject: hi\r\n\r\nhello\r\n");
        assert!(content.is_at_end());
    }
    assert_eq!(content.len(), 28);
}

#[test]
fn only_a_return_path_that_stands_first_is_left_away() {
    for (text, length) in [
        ("Return-Path: <a@b>\r\nA: 1\r\n", 20),
        ("RETURN-PATH:\r\n <a@b>\r\nA: 1\r\n", 22),
        ("A: 1\r\nReturn-Path: <a@b>\r\n", 0),
        ("Return-Path: <a@b>", 0),
        ("", 0),
    ] {
        assert_eq!(return_path_len(text.as_bytes()), length, "{text:?}");
    }
}
