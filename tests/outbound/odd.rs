//! What is malformed, endless or no text at all: in the DNS, in what servers say, in headers. It holds up nobody
//! else's mail, and the server goes on.

use super::policies::Policies;
use super::sink::config;
use super::*;

#[test]
fn answers_that_are_none_hold_up_their_own_mail_alone() {
    let (dns, port, settings) = world();
    let sink = Sink::at(&format!("127.0.0.2:{port}"), Manner::default());
    let policies = Policies::start(config());
    dns.a("mx.test", "127.0.0.2").mx("good.test", 10, "mx.test");
    // No DNS messages, names that lead to one another, and names that are none.
    dns.trouble("garbage.test", None, dns::Trouble::Garbage(vec![0xff; 300]));
    dns.trouble("short.test", None, dns::Trouble::Garbage(vec![0; 9]));
    dns.cname("circle.test", "round.test").cname("round.test", "circle.test");
    // More servers than anybody has, in an answer that comes by TCP; one is there.
    for number in 0..600 {
        dns.mx("many.test", 20, &format!("mx{number}.many.test"));
    }
    dns.mx("many.test", 10, "mx.test");
    // An enormous text where a policy is announced, many texts, and a policy that is none.
    dns.mx("big.test", 10, "mx.test").txt("_mta-sts.big.test", &"v=STSv1; id=1; ".repeat(4000));
    dns.mx("texts.test", 10, "mx.test");
    for number in 0..900 {
        dns.txt("_mta-sts.texts.test", &format!("v=STSv1; id={number};"));
    }
    dns.mx("stray.test", 10, "mx.test")
        .txt("_mta-sts.stray.test", "v=STSv1; id=1;")
        .a("mta-sts.stray.test", "127.0.0.1");
    policies.says("stray.test", &format!("version: STSv1\nmode: enforce\nmx: {}\n", "*.".repeat(30_000)));
    let more = format!(
        "[tls]\nauthorities = \"{}\"\n[tls-policy]\nmta-sts-port = {}\n",
        authority().display(),
        policies.address.port()
    );
    let server = Server::start(&(settings + &more));
    // Names that lead to nothing are told of at once.
    server.submit("ann@here.test", &["eve@circle.test"], LETTER);
    let report = &server.wait_for_mail("ann", 1)[0];
    assert!(report.contains("Final-Recipient: rfc822; eve@circle.test\nAction: failed\nStatus: 5.4.4\n"), "{report}");
    let bad = ["garbage.test", "short.test"];
    let fine = ["many.test", "big.test", "texts.test", "stray.test", "good.test"];
    for domain in bad.iter().chain(&fine) {
        server.submit("ann@here.test", &[&format!("eve@{domain}")], LETTER);
    }
    let taken = sink.wait_for(fine.len());
    for domain in fine {
        assert!(taken.iter().any(|taken| taken.rcpt[0].contains(domain)), "{domain}: {taken:?}");
    }
    // What has no answer may have one later.
    until("the others wait", || server.queued().iter().filter(|row| !row["first"]["answer"].is_null()).count() == 2);
    assert_eq!((server.queued().len(), sink.taken().len()), (2, fine.len()));
}

#[test]
fn whatever_servers_say_is_heard_within_bounds() {
    let lines = |code: u16, count: usize| format!("{code}-more\r\n").repeat(count - 1) + &format!("{code} that is all");
    let (long, endless, odd) = (Sink::start(), Sink::start(), Sink::start());
    for (step, code) in [("MAIL", 250), ("RCPT", 250), ("DATA", 354), (".", 250)] {
        long.does(step, Does::Says(lines(code, 1000)));
    }
    endless.does("MAIL", Does::Says(lines(250, 20_000)));
    odd.does("RCPT", Does::Says("550 5.1.1 kein Schlüssel für \u{7}\u{1b}[31m diese Tür".into()));
    let settings = routes(&[("long.test", &long), ("endless.test", &endless), ("odd.test", &odd)]);
    let server = Server::start(&settings);
    for domain in ["long.test", "endless.test", "odd.test"] {
        server.submit("ann@here.test", &[&format!("eve@{domain}")], LETTER);
    }
    long.wait_for(1);
    let report = &server.wait_for_mail("ann", 1)[0];
    assert!(report.contains("Final-Recipient: rfc822; eve@odd.test\nAction: failed\nStatus: 5.1.1\n"), "{report}");
    let code = report.lines().find(|line| line.starts_with("Diagnostic-Code: smtp; 550 5.1.1 kein Schl")).unwrap();
    assert!(!report.contains(['\u{7}', '\u{1b}']), "{code}");
    // RFC 6533 section 3: letters beyond ASCII stand in a notification only where it says that they may.
    assert!(report.is_ascii() || report.contains("message/global-delivery-status"), "{report}");
    until("the other one waits", || server.queued().first().is_some_and(|row| !row["first"]["answer"].is_null()));
    let rows = server.queued();
    let why = rows[0]["first"]["answer"].as_str().unwrap();
    assert!(rows.len() == 1 && why.contains("a reply without end") && why.len() < 600, "{rows:?}");
}

#[test]
fn a_header_of_any_bytes_is_taken_goes_on_and_comes_back() {
    let (able, sour) = (Sink::start(), Sink::start());
    able.behave(|manner| manner.extensions = vec!["8BITMIME"]);
    sour.behave(|manner| manner.extensions = vec!["8BITMIME"]);
    sour.does(".", Does::Says("550 5.6.0 what is that".into()));
    let server = Server::start(&routes(&[("able.test", &able), ("sour.test", &sour)]));
    let mut odd = b"Subject: gr\xfc\xdfe \xff\xfe=?utf-8?b?\xff\x80?=\r\nFrom: \xe4 <\xf6@\xfc>\r\n".to_vec();
    odd.extend((0x80..=0xff).flat_map(|byte| [b'X', b':', byte, b'\r', b'\n', b' ', byte, b'\r', b'\n']));
    let header = String::from_utf8_lossy(&odd).into_owned();
    // A line that is no field, nor is it one for others.
    odd.extend(b"X-\xe9\x01: a\r\n");
    odd.extend(b"\r\nbody \xff\r\n.\r\n");
    let mut wire = server.connect("submission");
    wire.expect("220");
    wire.say("EHLO laptop.test", "250");
    wire.log_in("ann@here.test");
    let to = ["bob@here.test", "eve@able.test", "eve@sour.test"];
    wire.say("MAIL FROM:<ann@here.test> BODY=8BITMIME", "250");
    for to in to {
        wire.say(&format!("RCPT TO:<{to}>"), "250");
    }
    wire.say("DATA", "354");
    wire.raw(&odd);
    wire.expect("250");
    // The same from a stranger.
    let mut wire = server.connect("smtp");
    wire.expect("220");
    wire.say("EHLO mx.able.test", "250");
    wire.say("MAIL FROM:<pat@able.test> BODY=8BITMIME", "250");
    wire.say("RCPT TO:<bob@here.test>", "250");
    wire.say("DATA", "354");
    wire.raw(&odd);
    wire.expect("250");
    let content = &able.wait_for(1)[0].content;
    assert!(content.contains(&header), "{content:?}\n{header:?}");
    // Its lines are no text, so that a reader of lines fails at them; that it came is what counts.
    server.wait_until_sent();
    until("it came to those here, and back", || server.mails("bob") == 2 && server.mails("ann") == 1);
}
