//! Mail on its way out: a running server, users who submit, and servers elsewhere that behave as well or
//! badly as the world does.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[path = "support/dns.rs"]
mod dns;
#[path = "support/exchange.rs"]
mod exchange;
#[path = "outbound/odd.rs"]
mod odd;
#[path = "support/policies.rs"]
mod policies;
#[path = "outbound/safety.rs"]
mod safety;
#[path = "support/sink.rs"]
mod sink;

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use exchange::{LETTER, QUICK, Server, pillarbox, until};
use serde_json::Value;
use sink::{Does, Manner, Sink, SinkTls, Taken, authority, routes};

#[test]
fn a_message_is_delivered_here_and_there_and_leaves_nothing_behind() {
    let sink = Sink::start();
    let server = Server::start(&routes(&[("far.test", &sink)]));
    server.submit("ann@here.test", &["bob@here.test", "Eve@far.test", "sam@far.test"], LETTER);
    let taken = sink.wait_for(1);
    assert_eq!(taken[0].mail.split(' ').take(2).collect::<Vec<_>>(), ["MAIL", "FROM:<ann@here.test>"]);
    assert_eq!(taken[0].rcpt, ["RCPT TO:<Eve@far.test>", "RCPT TO:<sam@far.test>"]);
    let content = &taken[0].content;
    assert!(content.starts_with("Received: ") && !content.contains("Return-Path"), "{content}");
    assert!(content.ends_with("\r\nhow are you\r\n.\r\n"), "{content}");
    assert!(server.wait_for_mail("bob", 1)[0].starts_with("Return-Path: <ann@here.test>\n"));
    server.wait_until_sent();
    let status = server.status();
    assert_eq!((&status["deliver"]["delivered"], &status["queue"]["messages"]), (&2.into(), &0.into()));
    assert_eq!(server.inbox("ann").len(), 0);
}

#[test]
fn several_messages_for_one_destination_share_a_connection() {
    let sink = Sink::start();
    sink.does("connect", Does::Waits(Duration::from_millis(700)));
    let server = Server::start(&routes(&[("far.test", &sink)]));
    for _ in 0..4 {
        server.submit("ann@here.test", &["eve@far.test"], LETTER);
    }
    sink.wait_for(4);
    assert!(sink.connections() <= 2, "{} connections", sink.connections());
    server.wait_until_sent();
}

#[test]
fn what_was_deferred_is_delivered_later() {
    let sink = Sink::start();
    sink.does("RCPT", Does::SaysFirst(2, "450 4.2.0 greylisted".into()));
    let server = Server::start(&(QUICK.to_owned() + &routes(&[("far.test", &sink)])));
    server.submit("ann@here.test", &["eve@far.test"], LETTER);
    sink.wait_for(1);
    server.wait_until_sent();
    assert_eq!(server.status()["deliver"]["deferred"], 2);
    assert_eq!(server.inbox("ann").len(), 0, "no word about that to the sender");
}

#[test]
fn a_refusal_comes_back_in_plain_words_and_machine_form() {
    let sink = Sink::start();
    sink.does("RCPT eve@far.test", Does::Says("550 5.1.1 never heard of".into()));
    let server = Server::start(&routes(&[("far.test", &sink)]));
    let to = ["eve@far.test ORCPT=rfc822;Eve+2Bx@far.test", "sam@far.test", "kim@far.test NOTIFY=NEVER"];
    sink.does("RCPT kim@far.test", Does::Says("550 5.1.1 neither".into()));
    server.submit("ann@here.test ENVID=QQ1 RET=FULL", &to, LETTER);
    assert_eq!(sink.wait_for(1)[0].rcpt, ["RCPT TO:<sam@far.test>"]);
    let report = &server.wait_for_mail("ann", 1)[0];
    for line in [
        "Return-Path: <>",
        "Auto-Submitted: auto-replied",
        "    There is no such mailbox. Check how the address is spelled.",
        "Original-Envelope-Id: QQ1",
        "Original-Recipient: rfc822; Eve+x@far.test",
        "Final-Recipient: rfc822; eve@far.test",
        "Action: failed",
        "Status: 5.1.1",
        "Diagnostic-Code: smtp; 550 5.1.1 never heard of",
        "Content-Type: message/rfc822",
        "how are you",
    ] {
        assert!(report.contains(&format!("\n{line}\n")) || report.starts_with(line), "{line} is not in\n{report}");
    }
    assert!(!report.contains("kim@far.test") && !report.contains("Final-Recipient: rfc822; sam@"), "{report}");
    server.wait_until_sent();
}

#[test]
fn a_message_that_cannot_be_delivered_in_time_is_warned_about_and_comes_back() {
    let sink = Sink::start();
    sink.does("MAIL", Does::Says("451 4.3.0 not today".into()));
    let settings = "[queue]\nretry-min-secs = 1\nretry-max-secs = 1\nwarn-after-secs = 1\ngive-up-secs = 5\n";
    let server = Server::start(&(settings.to_owned() + &routes(&[("far.test", &sink)])));
    server.submit("ann@here.test", &["eve@far.test"], LETTER);
    let reports = server.wait_for_mail("ann", 2);
    assert!(
        reports[0].contains("\nAction: delayed\n") && reports[0].contains("\nWill-Retry-Until: "),
        "{}",
        reports[0]
    );
    assert!(reports[1].contains("\nAction: failed\nStatus: 5.4.7\n"), "{}", reports[1]);
    assert!(reports[1].contains("451 4.3.0 not today"), "{}", reports[1]);
    server.wait_until_sent();
    assert_eq!(server.inbox("ann").len(), 2);
}

#[test]
fn success_is_told_when_asked_for_by_us_or_by_the_next_server() {
    let (plain, speaks) = (Sink::start(), Sink::start());
    speaks.behave(|manner| manner.extensions = vec!["DSN"]);
    let server = Server::start(&routes(&[("plain.test", &plain), ("speaks.test", &speaks)]));
    let to = ["bob@here.test NOTIFY=SUCCESS", "eve@plain.test NOTIFY=SUCCESS", "sam@speaks.test NOTIFY=SUCCESS"];
    server.submit("ann@here.test ENVID=Z9", &to, LETTER);
    let reports = server.wait_for_mail("ann", 2).concat();
    assert!(reports.contains("Final-Recipient: rfc822; bob@here.test\nAction: delivered\n"), "{reports}");
    assert!(reports.contains("Final-Recipient: rfc822; eve@plain.test\nAction: relayed\n"), "{reports}");
    assert!(!reports.contains("sam@speaks.test"), "the next server tells that");
    let passed = &speaks.wait_for(1)[0];
    assert!(passed.mail.contains(" ENVID=Z9") && passed.rcpt[0].contains(" NOTIFY=SUCCESS"), "{passed:?}");
    server.wait_until_sent();
}

#[test]
fn mail_is_held_released_retried_and_removed() {
    let sink = Sink::start();
    sink.does("connect", Does::Says("421 4.3.2 closed for lunch".into()));
    let server = Server::start(&routes(&[("far.test", &sink)]));
    server.submit("ann@here.test", &["eve@far.test"], LETTER);
    server.submit("ann@here.test", &["sam@far.test"], LETTER);
    // Whether the second is tried in vain or waits with the first: both are put off.
    until("both are put off", || server.queued().iter().all(|row| row["first"]["next"].as_i64().unwrap() > now() + 30));
    let rows = server.queued();
    assert_eq!(rows[0]["first"]["answer"], "[127.0.0.1] said: 421 4.3.2 closed for lunch");
    let status = server.status();
    assert_eq!(status["deliver"]["troubles"][0]["destination"], format!("[127.0.0.1]:{}", sink.address().port()));
    let ids: Vec<String> = rows.iter().map(|row| row["id"].to_string()).collect();
    assert_eq!(server.queue(&["hold", &ids[0]])["recipients"], 1);
    assert_eq!(server.queue(&["show", &ids[0]])["recipients"][0]["state"], "held");
    sink.is_good();
    assert_eq!(server.queue(&["retry"])["recipients"], 1, "who is held stays so");
    assert!(sink.wait_for(1)[0].rcpt[0].contains("sam@"));
    assert_eq!(server.queue(&["release", &ids[0]])["recipients"], 1);
    assert!(sink.wait_for(2)[1].rcpt[0].contains("eve@"));
    server.wait_until_sent();
    sink.does("MAIL", Does::Says("451 no".into()));
    server.submit("ann@here.test", &["eve@far.test"], LETTER);
    until("it waits", || server.queued().first().is_some_and(|row| row["first"]["attempts"] == 1));
    server.queue(&["remove", &server.queued()[0]["id"].to_string()]);
    assert!(server.queued().is_empty());
    assert_eq!(server.inbox("ann").len(), 0);
}

#[test]
fn the_queue_is_tended_without_a_server() {
    let sink = Sink::start();
    sink.does("MAIL", Does::Says("451 no".into()));
    let settings = routes(&[("far.test", &sink)]);
    let mut server = Server::start(&settings);
    server.submit("ann@here.test", &["eve@far.test"], LETTER);
    until("it waits", || server.queued().first().is_some_and(|row| row["first"]["attempts"] == 1));
    server.stop();
    assert_eq!(server.queue(&["hold", &server.queued()[0]["id"].to_string()])["recipients"], 1);
    assert_eq!(server.queued()[0]["first"]["state"], "held");
    sink.is_good();
    assert_eq!(server.queue(&["release"])["recipients"], 1);
    let again = Server::start_in(&server.folder, &settings);
    sink.wait_for(1);
    again.wait_until_sent();
}

/// A server that is killed at any moment, while it takes mail and sends it, loses nothing that it has acknowledged;
/// what arrives twice is what it sent whole and heard no reply to. Who gives the next command on a connection has
/// heard the reply before, and noted it.
#[test]
fn a_server_that_is_killed_at_random_loses_nothing_and_doubles_only_what_it_heard_no_reply_to() {
    const KILLS: usize = 12;
    const ROUND: u64 = 30;
    let sinks: Vec<Sink> = (0..4).map(|_| Sink::start()).collect();
    for (number, sink) in (1..).zip(&sinks) {
        sink.does("RCPT", Does::Waits(Duration::from_millis(3 * number)));
        sink.does(".", Does::Waits(Duration::from_millis(10 * number)));
    }
    let names: Vec<String> = (0..sinks.len()).map(|number| format!("d{number}.test")).collect();
    let ways: Vec<(&str, &Sink)> = names.iter().map(String::as_str).zip(&sinks).collect();
    let settings = QUICK.to_owned() + &routes(&ways);
    let mut server = Server::start(&settings);
    let (folder, own) = (server.folder.clone(), server.own.take());
    let mut seed = u64::from(std::process::id());
    let mut roll = |sides: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % sides
    };
    let (mut sent, mut acknowledged) = (0_usize, Vec::new());
    for _ in 0..KILLS {
        let mut wire = server.connect("submission");
        wire.expect("220");
        wire.say("EHLO laptop.test", "250");
        wire.log_in("ann@here.test");
        let letter = |sent: usize| (format!("eve@d{}.test", sent % 4), format!("Subject: number {sent}!\n\nx\n"));
        for _ in 0..ROUND / 2 + roll(ROUND) {
            let (to, text) = letter(sent);
            wire.message("ann@here.test", &[&to], &text);
            acknowledged.push(sent);
            sent += 1;
        }
        // Nobody hears whether this one was taken.
        let (to, text) = letter(sent);
        wire.begin("ann@here.test", &[&to], &text);
        sent += 1;
        std::thread::sleep(Duration::from_micros(roll(200_000)));
        server.kill();
        server = Server::start_in(&folder, &settings);
    }
    server.wait_until_sent();
    let taken: Vec<Taken> = sinks.iter().flat_map(Sink::taken).collect();
    let mut doubled = 0;
    for number in 0..sent {
        let mark = format!("Subject: number {number}!");
        let copies: Vec<&Taken> = taken.iter().filter(|taken| taken.content.contains(&mark)).collect();
        assert!(!copies.is_empty() || !acknowledged.contains(&number), "message {number} of {sent} is lost");
        let again = copies.split_last().is_some_and(|(_, before)| before.iter().any(|copy| copy.heard));
        assert!(!again, "message {number} came again after its reply was heard: {copies:?}");
        doubled += copies.len().saturating_sub(1);
    }
    assert!(doubled > 0, "of {KILLS} kills none fell between a message and its reply");
    drop(own);
}

#[test]
fn a_server_that_is_asked_to_stop_ends_well_in_the_midst() {
    let sink = Sink::start();
    sink.does(".", Does::Waits(Duration::from_secs(1)));
    let hanging = Sink::start();
    hanging.does("MAIL", Does::Hangs);
    let settings = routes(&[("far.test", &sink), ("hang.test", &hanging)]);
    let mut server = Server::start(&settings);
    server.submit("ann@here.test", &["eve@far.test", "kim@hang.test"], LETTER);
    until("both are spoken to", || sink.connections() == 1 && hanging.connections() == 1);
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert_eq!(sink.taken().len(), 1);
    let rows = server.queued();
    assert_eq!((rows[0]["unsettled"].clone(), rows[0]["first"]["to"].clone()), (1.into(), "kim@hang.test".into()));
    assert_eq!(rows[0]["first"]["attempts"], 0, "that we stop is no attempt");
}

#[test]
fn a_relay_is_logged_in_to_over_tls_and_by_its_senders() {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "opensesame\n").unwrap();
    let manner = |tls| Manner { tls, login: Some(("me".into(), "opensesame".into())), ..Manner::default() };
    let relay = Sink::at("127.0.0.1:0", manner(SinkTls::Good));
    let implicit = Sink::at("127.0.0.1:0", manner(SinkTls::Implicit));
    let table = |sink: &Sink, more: &str| {
        format!(
            "[[relay]]\nhost = \"localhost\"\nport = {}\nuser = \"me\"\npassword-file = \"{}\"\nauthorities = \"{}\"\n{more}\n",
            sink.address().port(),
            password.display(),
            authority().display()
        )
    };
    let settings = table(&implicit, "tls = \"implicit\"\nsenders = [\"bob@here.test\"]") + &table(&relay, "");
    let server = Server::start(&settings);
    server.submit("ann@here.test", &["eve@far.test", "sam@near.test"], LETTER);
    server.submit("bob@here.test", &["eve@far.test"], LETTER);
    let taken = relay.wait_for(1);
    assert!(taken[0].tls && taken[0].login && taken[0].rcpt.len() == 2, "{taken:?}");
    let taken = implicit.wait_for(1);
    assert!(taken[0].tls && taken[0].login, "{taken:?}");
    server.wait_until_sent();

    // A wrong password is nobody's fault but the operator's: nothing comes back.
    std::fs::write(&password, "open\n").unwrap();
    server.submit("ann@here.test", &["eve@far.test"], LETTER);
    until("it is refused", || server.queued().first().is_some_and(|row| row["first"]["attempts"] == 1));
    let why = server.status()["deliver"]["troubles"][0]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("535 5.7.8"), "{why}");
    assert_eq!(server.inbox("ann").len(), 0);
}

#[test]
fn a_relay_whose_certificate_is_not_trusted_gets_nothing() {
    let relay = Sink::at("127.0.0.1:0", Manner { tls: SinkTls::Good, ..Manner::default() });
    let settings = format!("[[relay]]\nhost = \"localhost\"\nport = {}\n", relay.address().port());
    let server = Server::start(&settings);
    server.submit("ann@here.test", &["eve@far.test"], LETTER);
    until("it is tried", || server.queued().first().is_some_and(|row| row["first"]["attempts"] == 1));
    let why = server.queued()[0]["first"]["answer"].as_str().unwrap().to_owned();
    assert!(why.starts_with("4.7.5 no TLS with localhost"), "{why}");
    assert!(relay.taken().is_empty());
}

#[test]
fn tls_is_taken_where_it_is_offered_and_left_where_it_does_not_work() {
    let good = Sink::at("127.0.0.1:0", Manner { tls: SinkTls::Good, ..Manner::default() });
    let broken = Sink::at("127.0.0.1:0", Manner { tls: SinkTls::Broken, ..Manner::default() });
    let server = Server::start(&routes(&[("good.test", &good), ("broken.test", &broken)]));
    server.submit("ann@here.test", &["eve@good.test", "eve@broken.test"], LETTER);
    assert!(good.wait_for(1)[0].tls);
    assert!(!broken.wait_for(1)[0].tls);
    server.wait_until_sent();
}

#[test]
fn a_slow_destination_delays_no_other_and_a_dead_one_costs_one_attempt() {
    let (dead, slow, good) = (Sink::start(), Sink::start(), Sink::start());
    dead.does("connect", Does::Drops);
    slow.does("connect", Does::Hangs);
    let settings = "[queue]\nconnections-max = 1\n".to_owned()
        + &routes(&[("dead.test", &dead), ("slow.test", &slow), ("good.test", &good)]);
    let server = Server::start(&settings);
    for number in 0..5 {
        server.submit("ann@here.test", &[&format!("u{number}@dead.test"), "eve@slow.test"], LETTER);
    }
    server.submit("ann@here.test", &["eve@good.test"], LETTER);
    good.wait_for(1);
    until("all of the dead one's mail was put off", || {
        let waits = |row: &Value| {
            // It may have been sent since it was listed.
            let Ok(all) = server.try_queue(&["show", &row["id"].to_string()]) else { return true };
            let to_dead = all["recipients"]
                .as_array()
                .unwrap()
                .iter()
                .find(|to| to["to"].as_str().unwrap().ends_with("dead.test"))
                .cloned();
            to_dead.is_none_or(|to| to["next"].as_i64().unwrap() > now() + 30)
        };
        server.queued().iter().all(waits)
    });
    assert!(dead.connections() <= 2, "{} attempts", dead.connections());
    assert_eq!(slow.connections(), 1);
}

fn now() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// A DNS server, its settings, and a port that sinks on further loopback addresses share.
fn world() -> (dns::Dns, u16, String) {
    let dns = dns::Dns::start();
    let port = std::net::TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap().port();
    let settings = format!("[dns]\nservers = [\"{}\"]\ntimeout-secs = 1\n[queue]\nport = {port}\n", dns.address());
    (dns, port, settings)
}

#[test]
fn the_dns_says_where_mail_goes() {
    let (dns, port, settings) = world();
    let sink = |address: &str| Sink::at(&format!("{address}:{port}"), Manner::default());
    let (best, second, bare) = (sink("127.0.0.2"), sink("127.0.0.3"), sink("127.0.0.4"));
    best.does("connect", Does::Says("554 5.3.2 not here".into()));
    dns.mx("far.test", 10, "best.far.test").mx("far.test", 20, "second.far.test").mx("far.test", 5, "gone.far.test");
    dns.a("best.far.test", "127.0.0.2").a("second.far.test", "127.0.0.3").a("gone.far.test", "127.0.0.9");
    dns.a("bare.test", "127.0.0.4");
    dns.mx("none.test", 0, ".").mx("circle.test", 10, "here.test");
    let server = Server::start(&settings);
    // What users themselves misspell is told at once; an alias finds out later.
    let mut alias = pillarbox(&server.folder);
    alias.args(["alias", "add", "team@here.test", "x@none.test", "y@missing.test", "--data"]);
    assert!(alias.arg(server.folder.join("data")).status().unwrap().success());
    let to = ["eve@far.test", "sam@bare.test", "kim@[127.0.0.4]", "team@here.test", "z@circle.test"];
    server.submit("ann@here.test", &to, LETTER);
    assert_eq!(second.wait_for(1)[0].rcpt, ["RCPT TO:<eve@far.test>"]);
    assert_eq!(best.connections(), 1);
    let at_bare: Vec<String> = bare.wait_for(2).iter().flat_map(|taken| taken.rcpt.clone()).collect();
    assert!(at_bare.contains(&"RCPT TO:<kim@[127.0.0.4]>".to_owned()), "{at_bare:?}");
    until("three came back", || server.inbox("ann").concat().matches("\nAction: failed\n").count() == 3);
    let reports = server.inbox("ann").concat();
    for status in ["5.1.10", "5.1.2", "5.4.6"] {
        assert!(reports.contains(&format!("\nStatus: {status}\n")), "{status} is not in {reports}");
    }
    server.wait_until_sent();
}

#[test]
fn a_server_that_never_takes_mail_is_no_reason_while_another_may() {
    let (dns, port, settings) = world();
    let sink = |address: &str| Sink::at(&format!("{address}:{port}"), Manner::default());
    let (busy, closed) = (sink("127.0.0.2"), sink("127.0.0.3"));
    busy.does("connect", Does::SaysFirst(2, "421 4.3.2 in a moment".into()));
    closed.does("connect", Does::Says("521 5.3.2 no mail here".into()));
    dns.mx("far.test", 10, "busy.far.test").mx("far.test", 20, "closed.far.test");
    dns.a("busy.far.test", "127.0.0.2").a("closed.far.test", "127.0.0.3");
    let server = Server::start(&(settings + "retry-min-secs = 1\nretry-max-secs = 2\n"));
    server.submit("ann@here.test", &["eve@far.test"], LETTER);
    busy.wait_for(1);
    server.wait_until_sent();
    assert_eq!(server.inbox("ann").len(), 0, "nothing came back");
}

#[test]
fn a_domain_that_does_not_exist_or_takes_no_mail_is_told_at_once_and_a_silent_dns_is_no_reason() {
    let (dns, _, settings) = world();
    dns.mx("none.test", 0, ".").a("bare.test", "127.0.0.4").txt("named.test", "nothing about mail");
    dns.trouble("broken.test", None, dns::Trouble::Code(hickory_resolver::proto::op::ResponseCode::ServFail));
    let server = Server::start(&settings);
    let mut wire = server.connect("submission");
    wire.expect("220");
    wire.say("EHLO laptop.test", "250");
    wire.say(&format!("AUTH PLAIN {}", STANDARD.encode("\0ann@here.test\0secret")), "235");
    wire.say("MAIL FROM:<ann@here.test>", "250");
    wire.say("RCPT TO:<eve@missing.test>", "550 5.1.2");
    wire.say("RCPT TO:<eve@none.test>", "556 5.1.10");
    for domain in ["bare.test", "named.test", "broken.test", "[127.0.0.1]"] {
        wire.say(&format!("RCPT TO:<eve@{domain}>"), "250");
    }
    dns.silence(true);
    let asked = Instant::now();
    wire.say("RCPT TO:<eve@another.test>", "250");
    assert!(asked.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_backup_takes_mail_for_its_domain_and_gives_it_to_the_better_server_alone() {
    let (dns, port, settings) = world();
    let better = Sink::at(&format!("127.0.0.2:{port}"), Manner::default());
    dns.mx("friend.test", 10, "better.test").mx("friend.test", 20, "here.test").mx("friend.test", 30, "worse.test");
    dns.a("better.test", "127.0.0.2").a("worse.test", "127.0.0.3");
    let server = Server::start(&(settings + "backup-for = [\"friend.test\"]\n"));
    let mut wire = server.connect("smtp");
    wire.expect("220");
    wire.say("EHLO world.test", "250");
    wire.say("MAIL FROM:<eve@world.test>", "250");
    wire.say("RCPT TO:<x@elsewhere.test>", "550");
    wire.say("RSET", "250");
    wire.message("eve@world.test", &["sam@friend.test"], LETTER);
    let taken = better.wait_for(1);
    assert_eq!(
        (taken[0].mail.split(' ').nth(1), taken[0].rcpt[0].as_str()),
        (Some("FROM:<eve@world.test>"), "RCPT TO:<sam@friend.test>")
    );
    server.wait_until_sent();
}

#[test]
fn a_bounce_to_a_foreign_sender_is_queued_and_never_answered_itself() {
    let (dns, port, settings) = world();
    let friend = Sink::at(&format!("127.0.0.2:{port}"), Manner::default());
    let world_sink = Sink::at(&format!("127.0.0.3:{port}"), Manner::default());
    friend.does("RCPT", Does::Says("550 5.1.1 no".into()));
    world_sink.does("RCPT", Does::Says("550 5.1.1 no".into()));
    dns.mx("friend.test", 10, "better.test").a("better.test", "127.0.0.2");
    dns.mx("world.test", 10, "mx.world.test").a("mx.world.test", "127.0.0.3");
    let server = Server::start(&(settings + "backup-for = [\"friend.test\"]\n"));
    let mut wire = server.connect("smtp");
    wire.expect("220");
    wire.say("EHLO world.test", "250");
    wire.message("eve@world.test", &["sam@friend.test"], LETTER);
    until("the notification is refused, too", || world_sink.connections() >= 1);
    server.wait_until_sent();
    assert_eq!((friend.taken().len(), world_sink.taken().len()), (0, 0));
    assert_eq!(server.inbox("ann").len(), 0);
}

#[test]
fn a_blocked_port_is_said_and_the_fallback_takes_over() {
    let (dns, _, settings) = world();
    for number in 1..=4 {
        dns.a(&format!("d{number}.test"), &format!("127.0.0.{}", 50 + number));
    }
    let relay = Sink::start();
    let table = format!(
        "[[relay]]\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nfallback = true\n",
        relay.address().port()
    );
    let quick = settings.replace("[queue]\n", QUICK);
    let server = Server::start(&(quick + &table));
    for number in 1..=4 {
        server.submit("ann@here.test", &[&format!("eve@d{number}.test")], LETTER);
    }
    relay.wait_for(4);
    server.wait_until_sent();
    let deliver = &server.status()["deliver"];
    assert!(
        deliver["port-blocked-since"].is_i64() && deliver["fallback"].as_str().unwrap().starts_with("[127.0.0.1]:"),
        "{deliver}"
    );
    let mut said = pillarbox(&server.folder);
    let said = said.args(["status", "--data"]).arg(server.folder.join("data")).output().unwrap();
    assert!(String::from_utf8(said.stdout).unwrap().contains("port 25 out seems blocked since"));
}

#[test]
fn while_the_dns_is_away_nothing_counts_as_an_attempt() {
    let (dns, port, settings) = world();
    let sink = Sink::at(&format!("127.0.0.2:{port}"), Manner::default());
    dns.a("far.test", "127.0.0.2");
    dns.silence(true);
    let server = Server::start(&settings.replace("[queue]\n", QUICK));
    server.submit("ann@here.test", &["eve@far.test"], LETTER);
    until("the network is missed", || server.status()["deliver"]["network-away-since"].is_i64());
    assert_eq!(server.queued()[0]["first"]["attempts"], 0);
    dns.silence(false);
    server.queue(&["retry"]);
    // The resolver asks again when it is told that there is use in it.
    let started = Instant::now();
    while sink.taken().is_empty() && started.elapsed() < Duration::from_secs(100) {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(sink.taken().len(), 1);
    server.wait_until_sent();
    assert!(server.status()["deliver"]["network-away-since"].is_null());
}

#[test]
fn what_goes_nowhere_is_refused_when_it_is_submitted() {
    let server = Server::start("[queue]\ndirect = false\n[route]\n\"far.test\" = \"127.0.0.1:9\"\n");
    let mut wire = server.connect("submission");
    wire.expect("220");
    wire.say("EHLO laptop.test", "250");
    wire.say(&format!("AUTH PLAIN {}", STANDARD.encode("\0ann@here.test\0secret")), "235");
    wire.say("MAIL FROM:<ann@here.test>", "250");
    wire.say("RCPT TO:<eve@near.test>", "550 5.7.1");
    wire.say("RCPT TO:<eve@[1.2.3]>", "553 5.1.3");
    wire.say("RCPT TO:<eve@far.test>", "250");
}

#[test]
fn what_a_server_cannot_take_comes_back_and_says_why() {
    let (plain, able) = (Sink::start(), Sink::start());
    able.behave(|manner| manner.extensions = vec!["8BITMIME", "SMTPUTF8"]);
    let server = Server::start(&routes(&[("plain.test", &plain), ("able.test", &able)]));
    let letter = "Subject: grüße\n\nschöne grüße\n";
    server.submit("ann@here.test SMTPUTF8 BODY=8BITMIME", &["jürgen@able.test", "eve@plain.test"], letter);
    let taken = able.wait_for(1);
    assert!(taken[0].mail.contains(" SMTPUTF8") && taken[0].mail.contains(" BODY=8BITMIME"), "{taken:?}");
    assert!(taken[0].content.contains("schöne grüße"), "{taken:?}");
    let report = &server.wait_for_mail("ann", 1)[0];
    assert!(report.contains("\nFinal-Recipient: rfc822; eve@plain.test\nAction: failed\nStatus: 5.6.7\n"), "{report}");
    assert!(report.contains("\nContent-Type: message/global-delivery-status\n"), "{report}");
    assert!(report.contains("\nSubject: grüße\n"), "{report}");
    // What needs nothing goes anywhere, whatever was declared.
    server.submit("ann@here.test SMTPUTF8 BODY=8BITMIME", &["eve@plain.test"], LETTER);
    plain.wait_for(1);
    server.submit("ann@here.test", &["sam@plain.test"], "Subject: hi\n\nschöne grüße\n");
    let report = &server.wait_for_mail("ann", 2)[1];
    assert!(report.contains("\nStatus: 5.6.3\n") && report.contains("(8BITMIME)"), "{report}");
    server.wait_until_sent();
}
