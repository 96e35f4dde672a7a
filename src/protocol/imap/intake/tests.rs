//! Commands and literals cut anywhere, and the bounds of what is held.

use super::*;
use crate::protocol::imap::command::Command;
use proptest::prelude::*;

/// Everything an intake makes of `bytes` given in pieces of `size`; a literal of an APPEND is
/// streamed past it as a session does, and shows up as its bytes.
fn run(bytes: &[u8], size: usize) -> Vec<String> {
    let mut intake = Intake::default();
    let mut events = Vec::new();
    let mut literal = 0_usize;
    for piece in bytes.chunks(size.max(1)) {
        let mut rest = piece;
        while !rest.is_empty() {
            if literal > 0 {
                let taken = literal.min(rest.len());
                literal -= taken;
                rest = &rest[taken..];
                if literal == 0 {
                    events.push("message".to_owned());
                    intake.after_literal();
                }
                continue;
            }
            let (taken, outcome) = intake.take(rest);
            rest = &rest[taken..];
            match outcome {
                Taken::More => assert!(rest.is_empty()),
                Taken::Command(tagged) => {
                    assert!(intake.held.capacity() == 0, "memory is held between commands");
                    if let Command::Append(head) = &tagged.command {
                        literal = streamed(&head.pieces).unwrap_or(0);
                        if literal == 0 && streamed(&head.pieces).is_some() {
                            intake.after_literal();
                        }
                    }
                    events.push(format!("{} {:?}", tagged.tag, tagged.command));
                }
                Taken::AppendLine(pieces) => {
                    assert!(intake.held.capacity() == 0, "memory is held behind a message");
                    literal = streamed(&pieces).unwrap_or(0);
                    events.push(pieces.iter().map(spelled).collect::<Vec<_>>().join(", "));
                    if streamed(&pieces) == Some(0) {
                        events.push("message".to_owned());
                        intake.after_literal();
                    }
                }
                Taken::Refused { tag, text, fatal } => {
                    events.push(format!("{} BAD {text}", tag.as_deref().unwrap_or("*")));
                    if fatal {
                        events.push("fatal".to_owned());
                        return events;
                    }
                }
                Taken::Declined { tag, text } => events.push(format!("{tag} NO {text}")),
                other @ Taken::Continue => events.push(format!("{other:?}")),
            }
        }
    }
    if intake.is_midway() {
        events.push("midway".to_owned());
    }
    events
}

/// The size of the literal that is the last of these pieces.
fn streamed(pieces: &[AppendPiece]) -> Option<usize> {
    match pieces.last() {
        Some(AppendPiece::Literal { size, .. }) => usize::try_from(*size).ok(),
        _ => None,
    }
}

fn spelled(piece: &AppendPiece) -> String {
    match piece {
        AppendPiece::Message { .. } => "message".to_owned(),
        AppendPiece::Literal { size, .. } => format!("literal {size}"),
        AppendPiece::Url(url) => format!("url {url}"),
        AppendPiece::End => "end".to_owned(),
    }
}

fn whole(text: &str) -> Vec<String> {
    run(text.as_bytes(), usize::MAX)
}

#[test]
fn pipelined_commands_come_one_by_one() {
    assert_eq!(whole("a1 NOOP\r\na2 check\na3 LOG"), ["a1 Noop", "a2 Check", "midway"]);
}

#[test]
fn literals_are_part_of_their_command() {
    let both = "a LOGIN {3}\r\nann {4}\r\n\r\n x\r\nb NOOP\r\n";
    assert_eq!(
        whole(both),
        ["Continue", "Continue", "a Login { user: \"ann\", password: Password(hidden) }", "b Noop"]
    );
    let plus = "a LOGIN {3+}\r\nann {1+}\r\n\r\r\n";
    assert_eq!(whole(plus), ["a Login { user: \"ann\", password: Password(hidden) }"]);
    assert_eq!(whole("a DELETE {0}\r\n\r\n"), ["Continue", "a NO [NONEXISTENT] no mailbox has such a name"]);
    assert_eq!(whole("a DELETE {2+}\r\na\r\r\n"), ["a NO [NONEXISTENT] no mailbox has such a name"]);
}

#[test]
fn a_brace_in_quotes_is_no_literal() {
    assert_eq!(whole("a SUBSCRIBE \"x{5}\"\r\nb NOOP\r\n").len(), 2);
    let open = "a SUBSCRIBE \"x{5}\r\nb NOOP\r\n";
    assert_eq!(whole(open), ["a BAD a quoted string does not end, or holds a control character", "b Noop"]);
    assert_eq!(whole("a SUBSCRIBE \"x\\\"{5}\r\nb NOOP\r\n").len(), 2);
}

#[test]
fn the_parts_of_catenate_come_line_by_line() {
    let text = "a APPEND x CATENATE (URL \"/x/;UID=1\" TEXT {2+}\r\nhi URL /x/;UID=2 TEXT {0+}\r\n TEXT {2+}\r\nho)\r\nb NOOP\r\n";
    let events = whole(text);
    assert!(events[0].contains("Url(\"/x/;UID=1\"), Literal { size: 2, synchronizing: false }]"), "{events:?}");
    let wanted = ["message", "url /x/;UID=2, literal 0", "message", "literal 2", "message", "end", "b Noop"];
    assert_eq!(&events[1..], wanted);
    for cut in [1, 7] {
        assert_eq!(run(text.as_bytes(), cut), events);
    }
    // No literal at all; URLs as literals, before a message's literal and behind it.
    let events = whole("a APPEND x CATENATE (URL /x/;UID=1) CATENATE (URL /x/;UID=2)\r\nb NOOP\r\n");
    assert!(events[0].contains("Url(\"/x/;UID=1\"), End, Message") && events[1] == "b Noop", "{events:?}");
    let events = whole("a APPEND x CATENATE (URL {8}\r\n/x/;UID1 TEXT {1}\r\n- URL {3}\r\nab\r)\r\nb NOOP\r\n");
    assert_eq!(events[0], "Continue");
    assert_eq!(&events[2..], ["message", "Continue", "url ab\r, end", "b Noop"], "{events:?}");
    let events = whole("a APPEND x CATENATE (UTF8 (~{2+}\r\nhi) URL /x/;UID=1) {1+}\r\n-\r\nb NOOP\r\n");
    assert_eq!(&events[1..], ["message", "url /x/;UID=1, end, message, literal 1", "message", "end", "b Noop"]);
    let long = format!("a APPEND x CATENATE (TEXT {{1+}}\r\n- URL {{20000+}}\r\n{})\r\nb NOOP\r\n", "x".repeat(20_000));
    assert_eq!(&whole(&long)[1..], ["message", "a BAD [TOOBIG] the URL is too long", "b Noop"]);
    for bad in ["CATENATE ()", "CATENATE (FILE /x)", "CATENATE (URL)", "CATENATE (URL /x/;UID=1", "CATENATE (URL /x)x"]
    {
        let events = whole(&format!("a APPEND x {bad}\r\nb NOOP\r\n"));
        assert!(events[0].starts_with("a BAD ") && events[1] == "b Noop", "{bad} {events:?}");
    }
}

#[test]
fn an_append_is_handed_out_at_its_message() {
    let events = whole("a APPEND Sent (\\Seen) {5}\r\nhello\r\nb NOOP\r\n");
    assert!(events[0].starts_with("a Append(AppendHead { mailbox: MailboxName(\"Sent\")"), "{events:?}");
    assert!(events[0].contains("size: 5, synchronizing: true"));
    assert_eq!(&events[1..], ["message", "end", "b Noop"]);
    let named = whole("a APPEND {4}\r\nSent {5+}\r\nhello\r\nb NOOP\r\n");
    assert_eq!(named[0], "Continue");
    assert!(named[1].contains("size: 5, synchronizing: false"));
    assert_eq!(&named[2..], ["message", "end", "b Noop"]);
    let utf8 = whole("a APPEND x UTF8 (~{5+}\r\nhello)\r\nb NOOP\r\n");
    assert_eq!(&utf8[1..], ["message", "end", "b Noop"]);
    let more = whole("a APPEND x {2+}\r\nhi (\\Seen) UTF8 (~{5+}\r\nhello)\r\nb NOOP\r\n");
    assert_eq!(&more[1..], ["message", "end, message, literal 5", "message", "end", "b Noop"]);
    let huge = whole("a APPEND x {99999999999}\r\nb NOOP\r\n");
    assert!(huge[0].contains("size: 99999999999"));
}

#[test]
fn an_append_the_session_refuses_leaves_the_next_line_a_command() {
    let mut intake = Intake::default();
    let (_, outcome) = intake.take(b"a APPEND x {9}\r\n");
    assert!(matches!(outcome, Taken::Command(_)));
    let (taken, outcome) = intake.take(b"b NOOP\r\n");
    assert!(matches!(outcome, Taken::Command(Tagged { command: Command::Noop, .. })), "{outcome:?}");
    assert_eq!(taken, 8);
}

#[test]
fn more_after_the_message_refuses_the_append() {
    let bad = "a BAD APPEND ends after a message, or a space and another follow";
    for end in [")", " x", "\0", "))"] {
        let events = whole(&format!("a APPEND x {{2+}}\r\nhi{end}\r\nc NOOP\r\n"));
        let after = events.iter().position(|event| event == "message").unwrap();
        assert_eq!(events[after + 1], bad, "{end:?}");
        assert_eq!(events.last().unwrap(), "c Noop", "{end:?}");
    }
    assert_eq!(whole("a APPEND x UTF8 ({2+}\r\nhi\r\nc NOOP\r\n")[2..], [bad, "c Noop"]);
    // A literal that stands wrong is passed over, and a synchronising one is not asked for.
    let usage =
        "a BAD APPEND needs a mailbox, maybe flags and a date, and the message as a literal or CATENATE and its parts";
    assert_eq!(whole("a APPEND x {2+}\r\nhi x {3+}\r\nb C\r\nc NOOP\r\n")[2..], [usage, "c Noop"]);
    assert_eq!(whole("a APPEND x {2+}\r\nhi x {3}\r\nc NOOP\r\n")[2..], [usage, "c Noop"]);
}

#[test]
fn an_append_that_is_wrong_is_swallowed_or_not_asked_for() {
    let bad = "a BAD unknown system flag";
    assert_eq!(whole("a APPEND x (\\Foo) {3}\r\nb NOOP\r\n"), [bad, "b Noop"]);
    assert_eq!(whole("a APPEND x (\\Foo) {8+}\r\nb NOOP\r\n\r\nc NOOP\r\n"), [bad, "c Noop"]);
    assert_eq!(
        whole("a APPEND a//b {8+}\r\nb NOOP\r\n\r\nc NOOP\r\n"),
        ["a NO [CANNOT] no mailbox can have such a name", "c Noop"]
    );
    let hopeless = format!("a APPEND x (\\Foo) {{{}+}}\r\n", SWALLOW_MAX + 1);
    assert_eq!(whole(&hopeless), [bad, "fatal"]);
}

#[test]
fn a_literal_beyond_the_bound_is_not_asked_for() {
    let bad = "a BAD [TOOBIG] the literal is too large";
    assert_eq!(whole("a LOGIN {65536}\r\nb NOOP\r\n"), [bad, "b Noop"]);
    assert_eq!(whole("a LOGIN {99999999999999999999999999}\r\nb NOOP\r\n"), [bad, "b Noop"]);
    let sent = format!("a LOGIN {{70000+}}\r\n{} {{3+}}\r\nb N x\r\nc NOOP\r\n", "\n".repeat(70_000));
    assert_eq!(whole(&sent), [bad, "c Noop"]);
    assert_eq!(whole("a LOGIN {99999999999999999999999999+}\r\n"), [bad, "fatal"]);
}

#[test]
fn a_command_beyond_the_bound_is_swallowed() {
    let bad = "a BAD [TOOBIG] the command is too long";
    let text = "x".repeat(COMMAND_MAX);
    assert_eq!(whole(&format!("a LIST {text}\r\nb NOOP\r\n")), [bad, "b Noop"]);
    assert_eq!(whole(&format!("a LIST {text} {{9}}\r\nb NOOP\r\n")), [bad, "b Noop"]);
    assert_eq!(whole(&format!("a LIST {text} {{9+}}\r\nb NOOP\r\n\r\nc NOOP\r\n")), [bad, "c Noop"]);
    assert_eq!(whole(&format!("{text}\r\nb NOOP\r\n"))[1], "a BAD x".replace("a BAD x", "b Noop"));
    let longest = format!("a SEARCH TEXT \"{}\"\r\n", "y".repeat(COMMAND_MAX - 18));
    assert_eq!(longest.len(), COMMAND_MAX);
    assert!(whole(&longest)[0].starts_with("a Search"));
    assert_eq!(whole(&longest.replace('y', "yy"))[0], bad);
}

#[test]
fn an_endless_line_is_given_up() {
    let mut intake = Intake::default();
    let line = vec![b'x'; 1 << 20];
    let mut fatal = false;
    for _ in 0..70 {
        if let (_, Taken::Refused { tag, fatal: true, .. }) = intake.take(&line) {
            assert_eq!(tag, None);
            fatal = true;
            break;
        }
        assert!(intake.held.len() <= COMMAND_MAX);
    }
    assert!(fatal);
}

#[test]
fn what_is_no_command_is_refused_with_its_tag_where_it_has_one() {
    let no_tag = "* BAD a command begins with a tag and a space";
    for text in ["\r\n", " NOOP\r\n", "+ NOOP\r\n", "\0\r\n", "é NOOP\r\n", "a\rb NOOP\r\n", "(a) x\r\n"] {
        assert_eq!(whole(text), [no_tag], "{text:?}");
    }
    assert_eq!(whole(&format!("{} NOOP\r\n", "x".repeat(129))), [no_tag]);
    assert_eq!(whole("a\r\n"), ["a BAD a command's name follows the tag"]);
    assert_eq!(whole("a FROBNICATE 1\r\n"), ["a BAD unknown command"]);
    assert_eq!(whole("GET / HTTP/1.1\r\n"), ["GET BAD unknown command"]);
    assert_eq!(run(b"a NOOP\0\r\n", 99), ["a BAD this command takes no arguments"]);
    assert_eq!(run(b"a NOOP \xff\r\n", 99), ["a BAD this command takes no arguments"]);
    assert_eq!(run(b"a SELECT \"\xff\"\r\n", 99), ["a BAD a mailbox name is not UTF-8"]);
}

#[test]
fn names_in_modified_utf7_are_read_until_utf8_is_on() {
    let mut intake = Intake::default();
    let line = b"a SELECT Entw&APw-rfe\r\n";
    for (utf8, name) in [(false, "Entwürfe"), (true, "Entw&APw-rfe")] {
        intake.set_utf8(utf8);
        match intake.take(line).1 {
            Taken::Command(Tagged { command: Command::Select { mailbox, .. }, .. }) => {
                assert_eq!(mailbox.as_str(), name);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_plain_line_is_taken_without_its_end_and_cut_at_its_bound() {
    let mut intake = Intake::default();
    assert_eq!(intake.take_line(b"DO", 10), (2, None));
    assert!(intake.is_midway());
    assert_eq!(intake.take_line(b"NE\r", 10), (3, None));
    assert_eq!(intake.take_line(b"\na NOOP\r\n", 10), (1, Some(b"DONE".to_vec())));
    assert_eq!(intake.held.capacity(), 0);
    assert_eq!(intake.take_line(b"0123456789\r\n", 10), (12, Some(b"0123456789".to_vec())));
    assert_eq!(intake.take_line(b"0123456789abcdef\r\n", 10), (18, Some(b"0123456789a".to_vec())));
    assert_eq!(intake.take_line(b"\n", 10), (1, Some(Vec::new())));
    for byte in b"0123456789\rxyz" {
        assert_eq!(intake.take_line(&[*byte], 10), (1, None));
        assert!(intake.held.len() <= 12);
    }
    assert_eq!(intake.take_line(b"\n", 10).1.unwrap().len(), 11);
}

/// Pieces that make commands, and pieces that break them.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        b"a ".as_slice(),
        b"LOGIN ".as_slice(),
        b"APPEND ".as_slice(),
        b"x ".as_slice(),
        b"(\\Seen) ".as_slice(),
        b"UTF8 (".as_slice(),
        b"{3}\r\n".as_slice(),
        b"{3+}\r\n".as_slice(),
        b"~{2+}\n".as_slice(),
        b"{70000+}\r\n".as_slice(),
        b"{70000}\r\n".as_slice(),
        b"abc".as_slice(),
        b")".as_slice(),
        b"\"".as_slice(),
        b"\\".as_slice(),
        b"\r\n".as_slice(),
        b"\n".as_slice(),
        b"\r".as_slice(),
        b"\0".as_slice(),
        b"\xff".as_slice(),
        b"NOOP\r\nb NOOP\r\n".as_slice(),
    ]);
    prop::collection::vec(word, 0..24).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn bytes_cut_anywhere_give_the_same(bytes in noise(), size in 1_usize..9) {
        prop_assert_eq!(run(&bytes, size), run(&bytes, usize::MAX));
    }

    #[test]
    fn long_commands_cut_anywhere_give_the_same(
        before in 65_400_usize..65_540, end in noise(), size in 1_usize..70_000,
    ) {
        let mut bytes = b"a LIST ".to_vec();
        bytes.resize(before, b'x');
        bytes.extend_from_slice(&end);
        bytes.extend_from_slice(b"\r\nb NOOP\r\n");
        prop_assert_eq!(run(&bytes, size), run(&bytes, usize::MAX));
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), size in 1_usize..20) {
        prop_assert_eq!(run(&bytes, size), run(&bytes, usize::MAX));
    }
}
