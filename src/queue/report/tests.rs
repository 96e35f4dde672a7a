//! Notifications as a reader sees them (RFC 3464), whatever senders and servers wrote.

use super::*;
use crate::mail::structure::Walker;

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn notice<'a>(to: &'a Address, recipients: Vec<Told<'a>>) -> Notice<'a> {
    Notice {
        host: "pillarbox.test",
        to,
        id: "0123456789abcdef",
        at: ZonedTime::utc(Timestamp(1_000_000)),
        arrived: Timestamp(900_000),
        envelope_id: Some("QQ+3D1"),
        utf8: false,
        returned: Returned::Header,
        eight_bit: false,
        recipients,
        until: None,
    }
}

fn told<'a>(address: &'a Address, action: Action, answer: &'a Answer) -> Told<'a> {
    Told {
        address,
        original: Some("rfc822;Bob+2Bx@far.test"),
        action,
        answer: Some(answer),
        tried: Some(Timestamp(950_000)),
    }
}

fn whole(spelled: &Spelled) -> String {
    format!("{}Subject: hi\r\n{}", spelled.before, spelled.after)
}

#[test]
fn a_failure_is_told_in_both_forms() {
    let (ann, bob) = (address("ann@pillarbox.test"), address("bob@far.test"));
    let answer = Answer::new("mx.far.test", "550 5.1.1 no such user");
    let spelled = notice(&ann, vec![told(&bob, Action::Failed, &answer)]).spell();
    let text = whole(&spelled);
    for line in [
        "Return-Path: <>",
        "From: Mail delivery at pillarbox.test <postmaster@pillarbox.test>",
        "To: <ann@pillarbox.test>",
        "Subject: Not delivered: your message came back",
        "Auto-Submitted: auto-replied",
        "Message-ID: <0123456789abcdef@pillarbox.test>",
        "    There is no such mailbox. Check how the address is spelled.",
        "    What mx.far.test said: 550 5.1.1 no such user",
        "Reporting-MTA: dns; pillarbox.test",
        "Original-Envelope-Id: QQ=1",
        "Arrival-Date: Sun, 11 Jan 1970 10:00:00 +0000",
        "Original-Recipient: rfc822; Bob+x@far.test",
        "Final-Recipient: rfc822; bob@far.test",
        "Action: failed",
        "Status: 5.1.1",
        "Remote-MTA: dns; mx.far.test",
        "Diagnostic-Code: smtp; 550 5.1.1 no such user",
        "Last-Attempt-Date: Sun, 11 Jan 1970 23:53:20 +0000",
        "Content-Type: text/rfc822-headers",
    ] {
        assert!(text.contains(&format!("{line}\r\n")), "{line} is not in\n{text}");
    }
    assert!(!spelled.eight_bit && text.is_ascii());
    assert!(text.split("\r\n").all(|line| !line.contains(['\r', '\n'])));
}

#[test]
fn the_parts_are_found_by_a_reader_of_mime() {
    let (ann, bob) = (address("ann@pillarbox.test"), address("bob@far.test"));
    let answer = Answer::new("mx.far.test", "550 5.1.1 no such user");
    let text = whole(&notice(&ann, vec![told(&bob, Action::Failed, &answer)]).spell());
    let message = mail_parser::MessageParser::default().parse(text.as_bytes()).unwrap();
    let kinds: Vec<_> = message
        .parts
        .iter()
        .map(|part| {
            use mail_parser::MimeHeaders as _;
            let kind = part.content_type().unwrap();
            format!("{}/{}", kind.ctype(), kind.subtype().unwrap())
        })
        .collect();
    assert_eq!(kinds, ["multipart/report", "text/plain", "message/delivery-status", "text/rfc822-headers"]);
    let mut walker = Walker::new();
    walker.feed(text.as_bytes());
    assert_eq!(walker.finish().parts().count(), 4);
}

#[test]
fn what_ran_out_of_time_has_a_status_of_its_own() {
    let (ann, bob) = (address("ann@pillarbox.test"), address("bob@far.test"));
    let answer = Answer::new("", "4.4.1 no connection to mx.far.test: refused");
    let text = whole(&notice(&ann, vec![told(&bob, Action::Failed, &answer)]).spell());
    assert!(text.contains("Status: 5.4.7\r\nDiagnostic-Code: x-pillarbox; 4.4.1 no connection"), "{text}");
    assert!(!text.contains("Remote-MTA"), "{text}");
    assert!(text.contains("could not be reached in all that time"), "{text}");
}

#[test]
fn a_delay_says_until_when_it_is_tried() {
    let (ann, bob) = (address("ann@pillarbox.test"), address("bob@far.test"));
    let answer = Answer::new("mx.far.test", "450 greylisted");
    let mut notice = notice(&ann, vec![told(&bob, Action::Delayed, &answer)]);
    notice.until = Some(Timestamp(1_300_000));
    let text = whole(&notice.spell());
    assert!(text.contains("Action: delayed\r\nStatus: 4.0.0\r\n"), "{text}");
    assert_eq!(text.matches("Fri, 16 Jan 1970 01:06:40 +0000").count(), 2, "{text}");
    assert!(text.contains("You need not do anything"), "{text}");
}

#[test]
fn success_and_handing_on_are_told_apart() {
    let (ann, bob) = (address("ann@pillarbox.test"), address("bob@far.test"));
    let answer = Answer::new("mx.far.test", "250 2.1.5 fine");
    let relayed = whole(&notice(&ann, vec![told(&bob, Action::Relayed, &answer)]).spell());
    assert!(relayed.contains("Action: relayed\r\nStatus: 2.1.5\r\n") && relayed.contains("Handed on"), "{relayed}");
    let bare = Told { answer: None, ..told(&bob, Action::Delivered, &answer) };
    let delivered = whole(&notice(&ann, vec![bare]).spell());
    assert!(delivered.contains("Action: delivered\r\nStatus: 2.0.0\r\n"), "{delivered}");
}

#[test]
fn foreign_letters_stay_out_of_an_ascii_report() {
    let (ann, bob) = (address("ann@pillarbox.test"), address("bob@far.test"));
    let answer = Answer::new("mx.far.test", "550 5.7.1 nicht für Sie");
    let spelled = notice(&ann, vec![told(&bob, Action::Failed, &answer)]).spell();
    assert!(spelled.before.is_ascii() && spelled.before.contains("550 5.7.1 nicht f?r Sie"), "{}", spelled.before);
}

#[test]
fn international_addresses_take_the_forms_of_rfc_6533() {
    let (ann, bob) = (address("ann@pillarbox.test"), address("jürgen@bücher.test"));
    let answer = Answer::new("mx.far.test", "550 5.1.1 nicht für Sie");
    let mut notice = notice(&ann, vec![told(&bob, Action::Failed, &answer)]);
    notice.recipients[0].original = Some("utf-8;j\\x{FC}rgen@b\\x{FC}cher.test");
    let spelled = notice.spell();
    for line in [
        "Content-Type: message/global-delivery-status",
        "Content-Type: message/global-headers",
        "Original-Recipient: utf-8; jürgen@bücher.test",
        "Final-Recipient: utf-8; jürgen@bücher.test",
        "Diagnostic-Code: smtp; 550 5.1.1 nicht für Sie",
    ] {
        assert!(spelled.before.contains(line), "{line} is not in\n{}", spelled.before);
    }
    assert!(spelled.eight_bit);
}

#[test]
fn what_would_break_a_line_is_left_out() {
    assert_eq!(from_xtext("a+0D+0Ab"), None);
    assert_eq!(from_xtext("a+"), None);
    assert_eq!(from_xtext("a+é"), None);
    assert_eq!(from_unitext("\\x{D}"), None);
    assert_eq!(from_unitext("\\x{110000}"), None);
    assert_eq!(from_unitext("a\\x{E9}"), Some("aé".into()));
    assert_eq!(original_recipient("x y;a", false), None);
    assert_eq!(original_recipient("utf-8;\\x{E9}@x", false), Some(("utf-8", "\\x{E9}@x".into())));
}

#[test]
fn a_status_is_found_in_an_answer() {
    for (text, expected) in [
        ("550 5.1.1 x", Some("5.1.1")),
        ("5.1.10 x", Some("5.1.10")),
        ("550 x 5.1.1", None),
        ("550 5.1", None),
        ("550 5.1.1.1", None),
        ("550 3.1.1", None),
        ("", None),
    ] {
        assert_eq!(enhanced(text), expected, "{text}");
    }
}
