//! Addresses that lead elsewhere: aliases with rewritten senders, and mailing lists, with servers elsewhere
//! that take the mail and send it back.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[path = "support/exchange.rs"]
mod exchange;
#[path = "support/sink.rs"]
mod sink;

use exchange::{LETTER, QUICK, Server, Wire, pillarbox, routes};
use serde_json::Value;
use sink::{Does, Sink, Taken};

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
    taken.iter().find(|taken| taken.rcpt.iter().any(|line| *line == named)).unwrap_or_else(|| panic!("{to}: {taken:?}"))
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
    stranger(&server).message("pat@home.test", &["eve@here.test"], LETTER);
    let report = &home.wait_for(1)[0];
    assert_eq!((path(&report.mail), path(&report.rcpt[0])), ("", "pat@home.test"));
    assert!(report.content.contains("Final-Recipient: rfc822; eve@far.test"), "{}", report.content);
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
