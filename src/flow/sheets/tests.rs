//! The gram index from bodies to searches: nothing is missed, and little is read.

use super::*;
use crate::flow::access::search::{Budget, Question, search};
use crate::mail::address::Address;
use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::mailbox::{MailboxId, MailboxName, Quota, Uid};
use crate::mail::message::{FlagNames, UidSet};
use crate::mail::secret::ScramVerifier;
use crate::mail::structure::Walker;
use crate::protocol::imap::search::SearchKey;
use crate::store::{NewMessage, StoreConfig};

struct Mail {
    store: Store,
    inbox: MailboxId,
    _folder: tempfile::TempDir,
}

impl Drop for Mail {
    fn drop(&mut self) {
        let _ = self.store.close();
    }
}

fn letter(number: usize) -> String {
    match number % 4 {
        0 => format!("Subject: letter {number}\r\nX-Number: n{number}n\r\n\r\nThe body of {number}, {number:x}.\r\n"),
        1 => format!(
            "Subject: =?utf-8?q?B=C3=BCcher?= {number}\r\nContent-Type: text/html; charset=iso-8859-1\r\n\
             Content-Transfer-Encoding: quoted-printable\r\n\r\n<p>Gr=FC=DFe Nr. {number}=\r\n0 aus K=F6ln\r\n"
        ),
        2 => format!(
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nfirst of {number}\r\n--b\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n6YO15L6/5bGA\r\n--b\r\n\
             Content-Type: image/png; name=n{number}.png\r\n\r\nnot text {number}\r\n--b--\r\n"
        ),
        _ => {
            let words = if number % 40 == 3 { 2000 } else { 60 };
            let words: Vec<_> = (0..words).map(|word| format!("{:x}", word * number * 7919)).collect();
            format!("Subject: long\r\n\r\n{}\r\n", words.join(" "))
        }
    }
}

fn filled(count: usize) -> Mail {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &StoreConfig { reserve_bytes: 0, ..StoreConfig::default() }).unwrap();
    let verifier = ScramVerifier { salt: [0; 16], iterations: 4096, stored_key: [0; 32], server_key: [0; 32] };
    let account =
        store.add_account(Address::parse("ann@example.org").unwrap(), verifier, Quota::default()).wait().unwrap();
    let inbox = store.reader().unwrap().mailbox_named(account, &MailboxName::inbox()).unwrap().unwrap().id;
    let mail = Mail { store, inbox, _folder: folder };
    mail.add(0..count);
    mail
}

impl Mail {
    fn add(&self, numbers: std::ops::Range<usize>) {
        let numbers: Vec<_> = numbers.collect();
        for numbers in numbers.chunks(50) {
            let message = |number: &usize| {
                let letter = letter(*number);
                let (mut spool, mut walker) = (self.store.spool().unwrap(), Walker::new());
                spool.write(letter.as_bytes()).unwrap();
                walker.feed(letter.as_bytes());
                NewMessage {
                    body: spool.finish().unwrap(),
                    structure: walker.finish(),
                    internal_date: ZonedTime::utc(Timestamp(1_000_000)),
                    flags: FlagNames::default(),
                }
            };
            self.store.append(self.inbox, numbers.iter().map(message).collect()).wait().unwrap();
        }
    }

    /// Makes all sheets that are worth it; tells how many.
    fn gather(&self) -> usize {
        let mut made = 0;
        while let Some(gap) = next_gap(&self.store).unwrap() {
            assert!(make_sheet(&self.store, gap, &mut || true).unwrap());
            made += 1;
        }
        made
    }

    /// What is found, and how many messages were opened for it.
    fn find(&self, key: &SearchKey) -> (Vec<u32>, usize) {
        let (mut found, mut opened) = (Vec::new(), 0);
        let mut rest = self.store.reader().unwrap().uids(self.inbox).unwrap();
        loop {
            let recent = UidSet::new();
            let question = Question { mailbox: self.inbox, uids: &rest, key, recent: &recent, now: Timestamp(0) };
            // A slice ends with the first message that is opened.
            let slice = search(&self.store, question, Budget { bytes: 1, ..Budget::default() }).unwrap();
            assert_eq!(slice.unreadable, 0);
            found.extend(slice.hits.iter().map(Uid::get));
            let Some(next) = slice.next else { return (found, opened) };
            opened += 1;
            rest = rest.iter().filter(|uid| *uid >= next).collect();
        }
    }

    fn remove(&self, uids: std::ops::RangeInclusive<u32>) {
        self.store.remove(self.inbox, uids.filter_map(Uid::new).collect()).wait().unwrap();
    }
}

fn keys() -> Vec<SearchKey> {
    let (text, body) = (|text: &str| SearchKey::Text(text.to_owned()), |text: &str| SearchKey::Body(text.to_owned()));
    let either = |one, other| SearchKey::Or(Box::new(one), Box::new(other));
    vec![
        body("GRÜSSE"),
        body("gru\u{308}ße nr. 2010 aus köln"),
        body("郵便局"),
        body("便局"),
        text("bücher 301"),
        text("n200n"),
        body("n200n"),
        SearchKey::Header("x-number".to_owned(), "N404".to_owned()),
        SearchKey::Header("subject".to_owned(), "bücher 9".to_owned()),
        body("not text"),
        body("first of 66"),
        text("image/png; name=n66.png"),
        body("of"),
        text(""),
        SearchKey::Not(Box::new(text("e"))),
        SearchKey::Not(Box::new(body("the body of"))),
        either(body("first of 70"), text("bücher 17")),
        SearchKey::And(vec![body("first"), text("n98.png")]),
    ]
}

#[test]
fn a_search_finds_the_same_with_the_index_and_opens_hardly_a_message() {
    let mail = filled(700);
    let before: Vec<_> = keys().iter().map(|key| mail.find(key).0).collect();
    assert!(before.iter().filter(|found| !found.is_empty()).count() > 12, "{before:?}");
    assert!(mail.gather() >= 1);
    for (key, before) in keys().iter().zip(before) {
        assert_eq!(mail.find(key).0, before, "{key:?}");
    }
    let rare = SearchKey::Body("the body of 200,".to_owned());
    let (found, opened) = mail.find(&rare);
    assert!(found == [201] && opened < 20, "{found:?} {opened}");
    let nowhere = SearchKey::Header("x-number".to_owned(), "n30000n".to_owned());
    assert!(mail.find(&nowhere).1 < 5);
    // A word out of a long text, at the edge of any column.
    let long = letter(403);
    for start in (40..long.len() - 60).step_by(997) {
        assert!(mail.find(&SearchKey::Body(long[start..start + 30].to_owned())).0.contains(&404), "{start}");
    }
}

#[test]
fn new_mail_is_found_before_a_sheet_knows_it_and_few_bodies_make_none() {
    let mail = filled(520);
    assert_eq!(mail.gather(), 1);
    mail.add(520..560);
    assert_eq!(mail.gather(), 0);
    let key = SearchKey::Body("first of 558".to_owned());
    let (found, opened) = mail.find(&key);
    assert!(found == [559] && (30..120).contains(&opened), "{found:?} {opened}");
}

#[test]
fn a_sheet_whose_bodies_have_gone_is_removed_and_the_rest_gathered_anew() {
    let mail = filled(600);
    assert!(mail.gather() >= 1);
    let first_of = |mail: &Mail| mail.store.reader().unwrap().grams().unwrap().next_sheet(BlobId(0)).unwrap();
    let head = first_of(&mail).unwrap().1.unwrap();
    mail.remove(1..=u32::try_from(head.len() - 100).unwrap());
    mail.store.settled().wait().unwrap();
    mail.add(600..1200);
    assert!(mail.gather() >= 1);
    let (first, head) = first_of(&mail).unwrap();
    assert!(first > BlobId(300) && head.is_some(), "{first:?}");
    let (found, opened) = mail.find(&SearchKey::Body("first of 1098".to_owned()));
    assert!(found == [1099] && opened < 150, "{found:?} {opened}");
}

#[test]
fn a_broken_off_attempt_leaves_nothing_that_is_believed() {
    let mail = filled(560);
    let gap = next_gap(&mail.store).unwrap().unwrap();
    let mut steps = 0;
    while !make_sheet(&mail.store, gap, &mut {
        let mut left = steps;
        move || {
            left -= 1;
            left >= 0
        }
    })
    .unwrap()
    {
        let (found, _) = mail.find(&SearchKey::Body("first of 66".to_owned()));
        assert_eq!(found, [67]);
        steps += 6;
    }
    assert!(steps > 20, "{steps}");
    let (found, opened) = mail.find(&SearchKey::Body("first of 66".to_owned()));
    assert!(found == [67] && opened < 120, "{opened}");
}
