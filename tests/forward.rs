//! Addresses that lead elsewhere: aliases with rewritten senders, and mailing lists, with servers elsewhere
//! that take the mail and send it back.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[path = "support/exchange.rs"]
mod exchange;
#[path = "support/sink.rs"]
mod sink;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use exchange::{LETTER, QUICK, Server, Wire, pillarbox};
use serde_json::Value;
use sink::{Does, Sink, Taken, routes};

/// Gives an order that must be carried out.
fn order(server: &Server, words: &[&str]) -> String {
    let said = pillarbox(&server.folder).args(words).arg("--data").arg(server.folder.join("data")).output().unwrap();
    assert!(said.status.success(), "{words:?}: {}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).unwrap()
}

/// Another server's connection.
fn stranger(server: &Server) -> Wire {
    let mut wire = server.connect("smtp");
    wire.expect("220");
    wire.say("EHLO mx.far.test", "250");
    wire
}

/// What stands in a command's angle brackets.
fn path(line: &str) -> &str {
    line.split(['<', '>']).nth(1).unwrap()
}

fn of<'t>(taken: &'t [Taken], to: &str) -> &'t Taken {
    let named = format!("RCPT TO:<{to}>");
    taken.iter().find(|taken| taken.rcpt.contains(&named)).unwrap_or_else(|| panic!("{to}: {taken:?}"))
}

#[test]
fn an_alias_leads_here_and_elsewhere_and_bounces_find_their_way_back() {
    let (far, home) = (Sink::start(), Sink::start());
    let server = Server::start(&routes(&[("far.test", &far), ("home.test", &home)]));
    order(&server, &["alias", "add", "team@here.test", "bob@here.test", "eve@far.test", "sam@far.test"]);
    let listed = order(&server, &["alias", "list"]);
    assert!(listed.contains("bob@here.test, eve@far.test, sam@far.test"), "{listed}");

    stranger(&server).message("Pat@home.test", &["team@here.test"], LETTER);
    let taken = far.wait_for(1);
    let sender = path(&taken[0].mail).to_owned();
    assert!(sender.starts_with("SRS0=") && sender.ends_with("=home.test=Pat@here.test"), "{sender}");
    assert_eq!(taken[0].rcpt, ["RCPT TO:<eve@far.test>", "RCPT TO:<sam@far.test>"]);
    assert!(!taken[0].content.contains("Return-Path") && taken[0].content.contains("how are you"), "{taken:?}");
    assert!(server.wait_for_mail("bob", 1)[0].starts_with("Return-Path: <Pat@home.test>\n"));

    // The far server gives up later and says so; case was lost on the way.
    stranger(&server).message("", &[&sender.to_lowercase()], "Subject: not delivered\n\nsorry\n");
    let back = home.wait_for(1);
    assert_eq!((path(&back[0].mail), path(&back[0].rcpt[0])), ("", "pat@home.test"));
    server.wait_until_sent();

    // Nobody else makes such an address, and nobody writes letters to one.
    let mut wire = stranger(&server);
    wire.say("MAIL FROM:<>", "250");
    wire.say(&format!("RCPT TO:<{}>", sender.replace("=Pat@", "=mallory@")), "550");
    wire.say("RCPT TO:<SRS0=AAAAAAAA=AA=home.test=pat@here.test>", "550");
    wire.say("RSET", "250");
    wire.say("MAIL FROM:<eve@far.test>", "250");
    wire.say(&format!("RCPT TO:<{sender}>"), "550 5.7.1");
}

#[test]
fn what_the_next_server_refuses_is_told_to_whoever_wrote_it() {
    let (far, home) = (Sink::start(), Sink::start());
    far.does("RCPT", Does::Says("550 5.1.1 never heard of".into()));
    let server = Server::start(&routes(&[("far.test", &far), ("home.test", &home)]));
    order(&server, &["alias", "add", "eve@here.test", "eve@far.test"]);
    order(&server, &["dkim", "list", "here.test"]);
    stranger(&server).message("pat@home.test", &["eve@here.test"], LETTER);
    let report = &home.wait_for(1)[0];
    assert_eq!((path(&report.mail), path(&report.rcpt[0])), ("", "pat@home.test"));
    assert!(report.content.contains("Final-Recipient: rfc822; eve@far.test"), "{}", report.content);
    // What we write ourselves is signed.
    assert!(report.content.contains("DKIM-Signature: v=1; a=rsa-sha256;"), "{}", report.content);
    server.wait_until_sent();
}

#[test]
fn a_user_keeps_his_name_and_what_goes_in_a_circle_is_refused() {
    let far = Sink::start();
    let server = Server::start(&routes(&[("far.test", &far)]));
    order(&server, &["alias", "add", "eve@here.test", "eve@far.test"]);
    server.submit("ann@here.test", &["eve@here.test"], LETTER);
    assert_eq!(path(&far.wait_for(1)[0].mail), "ann@here.test");

    stranger(&server).message("pat@home.test", &["eve@here.test"], LETTER);
    let sender = path(&far.wait_for(2)[1].mail).to_owned();
    // The far server sends it right back, rewritten by itself or not.
    for from in [sender.clone(), format!("SRS1=AAAAAAAA=here.test={}@far.test", &sender[4..sender.find('@').unwrap()])]
    {
        let mut wire = stranger(&server);
        wire.say(&format!("MAIL FROM:<{from}>"), "250");
        wire.say("RCPT TO:<eve@here.test>", "554 5.4.6");
    }
    // A sender too long to be rewritten: bounces are the postmaster's.
    let long = format!("{}@{}.test", "a".repeat(40), "b".repeat(30));
    stranger(&server).message(&long, &["eve@here.test"], LETTER);
    assert_eq!(path(&far.wait_for(3)[2].mail), "postmaster@here.test");
}

#[test]
fn one_message_goes_out_with_as_many_senders_as_it_needs() {
    let (far, home) = (Sink::start(), Sink::start());
    let server = Server::start(&(QUICK.to_owned() + &routes(&[("far.test", &far), ("home.test", &home)])));
    far.does("MAIL", Does::SaysFirst(2, "451 4.3.0 later".into()));
    order(&server, &["domain", "add", "there.test"]);
    order(&server, &["alias", "add", "one@here.test", "one@far.test"]);
    order(&server, &["alias", "add", "two@there.test", "two@far.test", "ann@here.test"]);
    stranger(&server).message("pat@home.test", &["one@here.test", "two@there.test", "bob@here.test"], LETTER);
    let taken = far.wait_for(2);
    assert!(path(&of(&taken, "one@far.test").mail).ends_with("=pat@here.test"), "{taken:?}");
    assert!(path(&of(&taken, "two@far.test").mail).ends_with("=pat@there.test"), "{taken:?}");
    assert_eq!((server.inbox("ann").len(), server.inbox("bob").len()), (1, 1));
    server.wait_until_sent();
    assert_eq!(home.taken().len(), 0);
}

fn header<'m>(message: &'m str, name: &str) -> Option<&'m str> {
    let name = format!("{name}: ");
    message.lines().take_while(|line| !line.is_empty()).find_map(|line| line.strip_prefix(&name))
}

#[test]
fn a_list_reaches_its_members_and_failures_its_owner() {
    let far = Sink::start();
    let server = Server::start(&routes(&[("far.test", &far)]));
    let (list, members) = ("crew@here.test", ["bob@here.test", "eve@far.test", "sam@far.test"]);
    let mut add = vec!["list", "add", list, "--owner", "ann@here.test", "--title", "The crew"];
    add.extend(members);
    order(&server, &add);
    let text = "Subject: hello\nList-Id: <another.test>\nReply-To: pat@far.test\n\nto all\n";
    stranger(&server).message("eve@far.test", &[list], text);
    let taken = far.wait_for(1);
    assert_eq!(path(&taken[0].mail), "crew-bounces@here.test");
    assert_eq!(taken[0].rcpt, ["RCPT TO:<eve@far.test>", "RCPT TO:<sam@far.test>"]);
    let content = taken[0].content.replace('\r', "");
    assert_eq!(header(&content, "List-Id"), Some("\"The crew\" <crew.here.test>"));
    assert_eq!(header(&content, "List-Unsubscribe"), Some("<mailto:crew-owner@here.test?subject=unsubscribe>"));
    assert_eq!((header(&content, "Reply-To"), content.matches("List-Id").count()), (Some("pat@far.test"), 1));
    let here = &server.wait_for_mail("bob", 1)[0];
    assert!(here.starts_with("Return-Path: <crew-bounces@here.test>\n") && here.ends_with("\n\nto all\n"), "{here}");
    assert_eq!(server.inbox("ann").len(), 0, "the owner is no member");

    // A member's server gives up: the owner hears of it, and not who wrote.
    stranger(&server).message("", &["crew-bounces@here.test"], "Subject: no such user\n\nsam\n");
    assert!(server.wait_for_mail("ann", 1)[0].contains("no such user"));
    stranger(&server).message("sam@far.test", &["Crew-Owner@here.test"], "Subject: unsubscribe\n\n\n");
    server.wait_for_mail("ann", 2);

    // Answers to the list, and who left gets nothing.
    order(&server, &["list", "set", list, "--answers", "list", "--post", "anyone"]);
    order(&server, &["list", "leave", list, "SAM@far.test"]);
    server.submit("ann@here.test", &[list, "eve@far.test"], LETTER);
    let taken = far.wait_for(3);
    let copy = taken.iter().skip(1).find(|taken| path(&taken.mail) == "crew-bounces@here.test").unwrap();
    assert_eq!(copy.rcpt, ["RCPT TO:<eve@far.test>"]);
    assert_eq!(header(&copy.content.replace('\r', ""), "Reply-To"), Some("<crew@here.test>"));
    server.wait_until_sent();
    let shown: Value = serde_json::from_str(&order(&server, &["list", "show", list, "--json"])).unwrap();
    assert_eq!((&shown["answers"], shown["members"].as_array().unwrap().len()), (&"list".into(), 2));
    assert_eq!(order(&server, &["list", "remove", list]), "removed crew@here.test\n");
    let mut wire = stranger(&server);
    wire.say("MAIL FROM:<eve@far.test>", "250");
    wire.say("RCPT TO:<crew@here.test>", "550 5.1.1");
}

#[test]
fn a_member_whose_mailbox_is_full_holds_nobody_else_up_and_the_owner_is_told() {
    let far = Sink::start();
    let server = Server::start(&routes(&[("far.test", &far)]));
    let (list, crew) = ("crew@here.test", ["bob@here.test", "eve@far.test"]);
    order(&server, &[&["list", "add", list, "--owner", "ann@here.test"][..], &crew].concat());
    order(&server, &["account", "quota", "bob@here.test", "--messages", "1"]);
    stranger(&server).message("eve@far.test", &["bob@here.test"], LETTER);
    stranger(&server).message("eve@far.test", &[list], LETTER);
    assert_eq!(path(&far.wait_for(1)[0].rcpt[0]), "eve@far.test");
    let told = &server.wait_for_mail("ann", 1)[0];
    for line in ["Return-Path: <>", "Final-Recipient: rfc822; bob@here.test", "Action: failed", "Status: 5.2.2"] {
        assert!(told.contains(&format!("{line}\n")), "{line} is not in\n{told}");
    }
    assert_eq!(server.inbox("bob").len(), 1);
    server.wait_until_sent();
}

#[test]
fn owners_elsewhere_hear_of_members_whose_servers_refuse() {
    let (far, home) = (Sink::start(), Sink::start());
    far.does("RCPT", Does::Says("550 5.1.1 never heard of".into()));
    let server = Server::start(&routes(&[("far.test", &far), ("home.test", &home)]));
    let list = "crew@here.test";
    order(&server, &["list", "add", list, "--owner", "ann@here.test", "--owner", "pat@home.test", "eve@far.test"]);
    stranger(&server).message("eve@far.test", &[list], LETTER);
    let told = &home.wait_for(1)[0];
    assert_eq!((path(&told.mail), path(&told.rcpt[0])), ("", "pat@home.test"));
    for report in [&told.content.replace('\r', ""), &server.wait_for_mail("ann", 1)[0]] {
        assert!(report.contains("Final-Recipient: rfc822; eve@far.test\nAction: failed\nStatus: 5.1.1\n"), "{report}");
    }
    server.wait_until_sent();
}

/// A copy for a recipient here, one for a list's member here and one for another elsewhere: as many of each, whenever
/// the server is killed and however often the sender, who heard nothing, tries again.
#[test]
fn a_message_and_its_copies_for_a_list_are_kept_all_or_none_whenever_the_server_is_killed() {
    const KILLS: u64 = 10;
    const MESSAGES: usize = 4;
    let far = Sink::start();
    let settings = routes(&[("far.test", &far)]);
    let mut server = Server::start(&settings);
    let (list, crew) = ("crew@here.test", ["bob@here.test", "eve@far.test"]);
    order(&server, &[&["list", "add", list, "--owner", "sam@far.test"][..], &crew].concat());
    let (folder, own) = (server.folder.clone(), server.own.take());
    let mut acknowledged = 0;
    for round in 0..KILLS {
        let mut wire = stranger(&server);
        for _ in 0..MESSAGES {
            wire.message("eve@far.test", &["ann@here.test", list], LETTER);
            acknowledged += 1;
        }
        // Somewhere in the next one: nobody hears what became of it.
        wire.begin("eve@far.test", &["ann@here.test", list], LETTER);
        std::thread::sleep(Duration::from_micros(300 * round));
        server.kill();
        server = Server::start_in(&folder, &settings);
    }
    server.wait_until_sent();
    let (direct, member) = (server.inbox("ann").len(), server.inbox("bob").len());
    assert_eq!(direct, member, "of {acknowledged} that were acknowledged");
    assert!(direct >= acknowledged, "{direct} of {acknowledged}");
    assert!(far.taken().len() >= member, "{} of {member}", far.taken().len());
    drop(own);
}

#[test]
fn who_and_what_a_list_does_not_take_is_refused_in_the_dialogue() {
    let far = Sink::start();
    let server = Server::start(&routes(&[("far.test", &far)]));
    order(&server, &["list", "add", "crew@here.test", "--owner", "ann@here.test", "bob@here.test", "eve@far.test"]);
    let mut wire = stranger(&server);
    for (from, reply) in [("mallory@far.test", "550 5.7.2"), ("", "550 5.7.1")] {
        wire.say(&format!("MAIL FROM:<{from}>"), "250");
        wire.say("RCPT TO:<crew@here.test>", reply);
        wire.say("RSET", "250");
    }
    for (field, reply) in
        [("Auto-Submitted: auto-replied (vacation)", "550 5.7.1"), ("List-ID: Crew\r\n <CREW.here.test>", "554 5.4.6")]
    {
        wire.say("MAIL FROM:<eve@far.test>", "250");
        wire.say("RCPT TO:<crew@here.test>", "250");
        wire.say("DATA", "354");
        wire.say(&format!("Subject: x\r\n{field}\r\n\r\nhi\r\n."), reply);
    }
    assert_eq!((far.taken().len(), server.inbox("bob").len()), (0, 0));
}

#[test]
fn a_flood_is_held_and_told_of_and_let_go() {
    let far = Sink::start();
    let limit = "[submission]\nrecipients-per-hour-max = 3\n".to_owned();
    let server = Server::start(&(limit + &routes(&[("far.test", &far)])));
    server.submit("ann@here.test", &["a@far.test", "b@far.test", "c@far.test"], LETTER);
    far.wait_for(1);
    assert!(server.status()["braked"].as_array().unwrap().is_empty());
    server.submit("ann@here.test", &["d@far.test", "bob@here.test"], LETTER);
    server.submit("bob@here.test", &["e@far.test"], LETTER);
    assert_eq!(path(&far.wait_for(2)[1].mail), "bob@here.test", "others are not concerned");
    assert_eq!(server.inbox("bob").len(), 1, "nor is mail to users here");
    let held = server.queued();
    assert_eq!((held.len(), held[0]["first"]["state"].as_str()), (1, Some("held")), "{held:?}");
    let braked = &server.status()["braked"][0];
    assert_eq!((&braked["account"], &braked["hour"], &braked["held"]), (&"ann@here.test".into(), &4.into(), &1.into()));
    let told = order(&server, &["status"]);
    assert!(told.contains("ann@here.test wrote to 4 recipients") && told.contains("queue release"), "{told}");
    assert!(server.log().contains("sends too much"), "{}", server.log());
    server.queue(&["release"]);
    assert_eq!(of(&far.wait_for(3), "d@far.test").rcpt.len(), 1);
    server.wait_until_sent();

    // What would fill the disk is refused.
    let mut wire = server.connect("submission");
    wire.expect("220");
    wire.say("EHLO laptop.test", "250");
    wire.say(&format!("AUTH PLAIN {}", STANDARD.encode("\0ann@here.test\0secret")), "235");
    wire.say("MAIL FROM:<ann@here.test>", "250");
    for number in 0..30 {
        wire.say(&format!("RCPT TO:<x{number}@far.test>"), "250");
    }
    wire.say("DATA", "354");
    wire.say("Subject: x\r\n\r\nbuy\r\n.", "452 4.7.1");
}

#[test]
fn a_letter_to_a_list_counts_for_each_member_elsewhere() {
    let far = Sink::start();
    let limit = "[submission]\nrecipients-per-hour-max = 3\n".to_owned();
    let server = Server::start(&(limit + &routes(&[("far.test", &far)])));
    let members = ["a@far.test", "b@far.test", "c@far.test", "d@far.test", "bob@here.test"];
    order(&server, &[&["list", "add", "crew@here.test", "--owner", "bob@here.test"][..], &members].concat());
    order(&server, &["list", "set", "crew@here.test", "--post", "anyone"]);
    server.submit("ann@here.test", &["crew@here.test"], LETTER);
    let braked = &server.status()["braked"][0];
    assert_eq!((&braked["account"], &braked["hour"]), (&"ann@here.test".into(), &4.into()));
    assert_eq!(server.queued()[0]["first"]["state"], "held");
    assert_eq!(server.wait_for_mail("bob", 1).len(), 1, "members here have it");
    // Somebody else's letter goes: it is nobody's account's.
    stranger(&server).message("pat@home.test", &["crew@here.test"], LETTER);
    assert_eq!(far.wait_for(1)[0].rcpt.len(), 4);
    server.queue(&["release"]);
    assert_eq!(far.wait_for(2)[1].rcpt.len(), 4);
}

#[test]
fn a_scanner_submits_without_a_password_as_itself_alone() {
    let far = Sink::start();
    let open =
        "[submission]\nnetworks = [{ network = \"127.0.0.0/8\", senders = [\"Scanner@here.test\"] }]\n".to_owned();
    let server = Server::start(&(open + &routes(&[("far.test", &far)])));
    order(&server, &["dkim", "list", "here.test"]);
    for (number, service) in ["smtp", "submission"].into_iter().enumerate() {
        let mut wire = server.connect(service);
        wire.expect("220");
        wire.say("EHLO scanner", "250");
        wire.message(
            "scanner@here.test",
            &["eve@far.test", "bob@here.test"],
            "From: Scanner <scanner@here.test>\nSubject: page 1\n\nscanned\n",
        );
        let taken = far.wait_for(number + 1);
        assert_eq!(path(&taken[number].mail), "scanner@here.test");
        assert!(taken[number].content.contains("\nDate: ") && taken[number].content.contains("\nMessage-ID: "));
        assert!(taken[number].content.contains("DKIM-Signature: v=1; a=rsa-sha256;"), "{}", taken[number].content);
        // Another sender is a stranger: he has no password, and on port 25 no way out.
        if service == "smtp" {
            wire.say("MAIL FROM:<ann@here.test>", "250");
            wire.say("RCPT TO:<eve@far.test>", "550 5.7.1");
        } else {
            wire.say("MAIL FROM:<ann@here.test>", "530 5.7.0");
        }
    }
    assert_eq!(server.inbox("bob").len(), 2);
    // It speaks for itself alone.
    let mut wire = stranger(&server);
    wire.message("scanner@here.test", &["eve@far.test"], "From: ann@here.test\nSubject: page 2\n\nscanned\n");
    let forged = &far.wait_for(3)[2].content;
    assert!(!forged.contains("DKIM-Signature"), "{forged}");
}

#[test]
fn without_an_open_network_nobody_sends_without_a_password() {
    let far = Sink::start();
    let open = "[submission]\nnetworks = [{ network = \"192.0.2.0/24\", senders = [\"ann@here.test\"] }]\n".to_owned();
    let server = Server::start(&(open + &routes(&[("far.test", &far)])));
    let mut wire = server.connect("submission");
    wire.expect("220");
    wire.say("EHLO scanner", "250");
    wire.say("MAIL FROM:<ann@here.test>", "530 5.7.0");
    let mut wire = stranger(&server);
    wire.say("MAIL FROM:<ann@here.test>", "250");
    wire.say("RCPT TO:<eve@far.test>", "550 5.7.1");
}

#[test]
fn a_user_signs_for_his_own_domain_and_not_for_another_that_is_served_here() {
    let far = Sink::start();
    let server = Server::start(&routes(&[("far.test", &far)]));
    order(&server, &["domain", "add", "there.test"]);
    for domain in ["here.test", "there.test"] {
        order(&server, &["dkim", "list", domain]);
    }
    let letter = |from: &str| format!("From: {from}\n{LETTER}");
    for (number, (from, count)) in
        [("ann@here.test", 2), ("boss@there.test", 0), ("Ann <ann+x@here.test>", 2)].iter().enumerate()
    {
        server.submit("ann@here.test", &["eve@far.test"], &letter(from));
        let content = &far.wait_for(number + 1)[number].content;
        assert_eq!(content.matches("DKIM-Signature: v=1; ").count(), *count, "{from}: {content}");
    }
    // A forged author who comes by way of an alias is not borne out either.
    order(&server, &["alias", "add", "eve@here.test", "eve@far.test"]);
    stranger(&server).message("pat@home.test", &["eve@here.test"], &letter("ann@here.test"));
    assert!(!far.wait_for(4)[3].content.contains("DKIM-Signature"));
}
