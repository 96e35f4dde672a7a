//! Every command of RFC 9051 and RFC 3501, and what is refused.

use super::*;
use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::message::{FlagMode, FlagNames, Keyword, SystemFlags};
use crate::protocol::imap::command::{AppendHead, AppendPiece, ListCommand, StatusItem};
use crate::protocol::imap::fetch::{FetchItem, SectionItem, SectionKind};
use crate::protocol::imap::search::{SearchKey, SearchProgram, SearchReturns};
use crate::protocol::imap::sequence::SeqNumber;
use proptest::prelude::*;

/// Reads one command; a refusal shows as `BAD text` or `NO text`.
fn read(text: &str) -> Result<Command, String> {
    match parse(format!("A001 {text}").as_bytes(), false) {
        Ok(tagged) => {
            assert_eq!(tagged.tag, "A001");
            Ok(tagged.command)
        }
        Err(Rejected { tag, refusal }) => {
            assert_eq!(tag.as_deref(), Some("A001"));
            Err(match refusal {
                Refusal::Usage => "usage".to_owned(),
                Refusal::Bad(text) => format!("BAD {text}"),
                Refusal::No(text) => format!("NO {text}"),
            })
        }
    }
}

fn shown(text: &str) -> String {
    read(text).map_or_else(|refused| refused, |command| format!("{command:?}"))
}

fn set(ranges: &[(u32, u32)]) -> SequenceSet {
    let end = |number: u32| if number == 0 { SeqNumber::Star } else { SeqNumber::Number(number) };
    SequenceSet::Ranges(ranges.iter().map(|(first, last)| (end(*first), end(*last))).collect())
}

#[test]
fn commands_without_arguments_are_read_in_any_case() {
    for (text, command) in [
        ("CAPABILITY", "Capability"),
        ("noop", "Noop"),
        ("Logout", "Logout"),
        ("STARTTLS", "StartTls"),
        ("NAMESPACE", "Namespace"),
        ("IDLE", "Idle"),
        ("CLOSE", "Close"),
        ("UNSELECT", "Unselect"),
        ("CHECK", "Check"),
        ("EXPUNGE", "Expunge { uids: None }"),
    ] {
        assert_eq!(shown(text), command);
        assert_eq!(shown(&format!("{text} ")), command);
        assert!(shown(&format!("{text} x")).starts_with("BAD "), "{text}");
        assert!(shown(&format!("{text}x")).starts_with("BAD "), "{text}");
    }
}

#[test]
fn every_command_that_lacks_an_argument_tells_its_usage() {
    for name in [
        "AUTHENTICATE",
        "COPY",
        "CREATE",
        "DELETE",
        "ENABLE",
        "EXAMINE",
        "FETCH",
        "DELETEACL",
        "GETACL",
        "GETQUOTA",
        "GETQUOTAROOT",
        "LISTRIGHTS",
        "MYRIGHTS",
        "SETACL",
        "ID",
        "LIST",
        "LOGIN",
        "LSUB",
        "MOVE",
        "RENAME",
        "SEARCH",
        "SELECT",
        "SETQUOTA",
        "STATUS",
        "STORE",
        "SUBSCRIBE",
        "UNSUBSCRIBE",
    ] {
        for text in [name.to_owned(), format!("{name} "), format!("{name} ("), format!("{name} \"x\" \"y\" \"z\" w")] {
            let answer = shown(&text);
            let wanted = format!("BAD {name} needs");
            assert!(answer.starts_with(&wanted) || answer.starts_with("BAD unknown"), "{text}: {answer}");
        }
    }
    for text in ["APPEND", "APPEND ", "APPEND (", "APPEND x", "APPEND x y", "REPLACE 1 x CATENATE"] {
        assert!(shown(text).contains(" needs a m"), "{text}");
    }
    assert_eq!(shown("UID"), format!("BAD {UID_USAGE}"));
    assert_eq!(shown("UID NOOP"), format!("BAD {UID_USAGE}"));
    assert_eq!(shown("UID EXPUNGE"), "BAD EXPUNGE needs nothing, UID EXPUNGE a sequence set");
    assert_eq!(shown("XYZZY"), "BAD unknown command");
}

#[test]
fn login_takes_any_string() {
    match read(r#"LOGIN ann@example.org "a \"b\" c""#).unwrap() {
        Command::Login { user, password } => {
            assert_eq!((user.as_str(), password.reveal()), ("ann@example.org", r#"a "b" c"#));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(read("LOGIN jürgen pass]word").unwrap(), Command::Login { user, .. } if user == "jürgen"));
    assert!(shown(r#"LOGIN ann """#).starts_with("NO [AUTHENTICATIONFAILED]"));
}

#[test]
fn authenticate_decodes_the_initial_response() {
    let read = |text: &str| match read(text).unwrap() {
        Command::Authenticate { mechanism, initial } => (mechanism, initial),
        other => panic!("{other:?}"),
    };
    assert_eq!(read("AUTHENTICATE scram-sha-256"), ("SCRAM-SHA-256".to_owned(), None));
    assert_eq!(read("AUTHENTICATE PLAIN AGEAYg=="), ("PLAIN".to_owned(), Some(b"\0a\0b".to_vec())));
    assert_eq!(read("AUTHENTICATE EXTERNAL ="), ("EXTERNAL".to_owned(), Some(Vec::new())));
    assert_eq!(shown("AUTHENTICATE PLAIN AG~*"), "BAD the initial response is not base64");
    assert_eq!(shown("AUTHENTICATE PLAIN AGE"), "BAD the initial response is not base64");
}

#[test]
fn id_and_enable_list_what_they_are_given() {
    assert_eq!(shown("ID NIL"), "Id([])");
    assert_eq!(shown(r#"ID ("name" "mutt" "os" NIL)"#), r#"Id([("name", Some("mutt")), ("os", None)])"#);
    match read(&format!("ID ({})", vec![r#""a" "b""#; 40].join(" "))).unwrap() {
        Command::Id(fields) => assert_eq!(fields.len(), ID_FIELDS_MAX),
        other => panic!("{other:?}"),
    }
    assert_eq!(shown("ENABLE CONDSTORE utf8=accept"), r#"Enable(["CONDSTORE", "UTF8=ACCEPT"])"#);
}

#[test]
fn select_knows_condstore_and_no_other_parameter() {
    assert!(shown("SELECT inbox").contains("MailboxName(\"INBOX\"), read_only: false, condstore: false, resync: None"));
    assert!(
        shown("EXAMINE \"a b\" (CONDSTORE)")
            .contains("MailboxName(\"a b\"), read_only: true, condstore: true, resync: None")
    );
    assert!(shown("SELECT a (QRESYNC (7 2 1:4 (1,3 2,4)))").contains("uid_validity: 7, since: ModSeq(2), known: Some"));
    assert!(shown("SELECT a (QRESYNC (7 2 (1,3 2,4)))").contains("since: ModSeq(2), known: None"));
    assert_eq!(shown("SELECT a (FAST)"), "BAD unknown SELECT parameter");
    assert_eq!(shown("SELECT a//b"), "SelectNothing");
}

#[test]
fn create_drops_the_last_separator_and_reads_the_use() {
    assert!(shown("CREATE owatagusiam/").contains("MailboxName(\"owatagusiam\"), special_use: []"));
    assert!(shown(r"CREATE X (USE (\Sent \sent \Junk))").contains("special_use: [Sent, Junk]"));
    assert_eq!(shown(r"CREATE X (USE (\Pudding))"), "NO [USEATTR] no mailbox here has that use");
    assert_eq!(shown("CREATE X (SIZE 3)"), "BAD unknown CREATE parameter");
    assert!(shown("CREATE a*b").starts_with("BAD "));
    assert!(shown(r#"CREATE "a*b""#).starts_with("NO [CANNOT]"));
    assert!(shown("RENAME blurdybloop sarasoop/").contains("MailboxName(\"sarasoop\")"));
}

#[test]
fn list_in_all_its_forms() {
    let list = |text: &str| match read(text).unwrap() {
        Command::List(list) => list,
        other => panic!("{other:?}"),
    };
    let plain = list(r#"LIST "" %"#);
    assert_eq!((plain.reference.as_str(), plain.patterns, plain.extended), ("", vec!["%".to_owned()], false));
    assert_eq!(list("LIST &U,BTFw-/ &ZeVnLIqe-*").patterns, ["日本語*"]);
    let ListCommand { select_subscribed, select_recursive_match, return_children, return_status, extended, .. } =
        list(r#"LIST (SUBSCRIBED RECURSIVEMATCH) "" "*" RETURN (CHILDREN STATUS (MESSAGES UNSEEN) SPECIAL-USE)"#);
    assert!(select_subscribed && select_recursive_match && return_children && extended);
    assert_eq!(return_status, [StatusItem::Messages, StatusItem::Unseen]);
    assert_eq!(list(r#"LIST "" (INBOX "Drafts" Sent/%)"#).patterns, ["INBOX", "Drafts", "Sent/%"]);
    assert!(list(r#"LIST () "" """#).extended && list("LIST \"\" % RETURN ()").extended);
    assert!(list("LIST (SPECIAL-USE REMOTE) \"\" *").select_special_use);
    assert_eq!(shown("LIST (RECURSIVEMATCH) \"\" *"), "BAD RECURSIVEMATCH needs another selection option");
    assert_eq!(shown("LIST (PURPLE) \"\" *"), "BAD unknown LIST selection option");
    assert_eq!(shown("LIST \"\" * RETURN (PURPLE)"), "BAD unknown LIST return option");
    assert_eq!(shown("LIST \"\" * RETURN (STATUS (PURPLE))"), "BAD unknown STATUS item");
    assert_eq!(shown(&format!("LIST \"\" ({})", vec!["a"; 65].join(" "))), "NO [LIMIT] too many patterns");
    assert!(shown("LIST \"\" ()").starts_with("BAD LIST needs"));
    assert_eq!(shown(r##"LSUB "#news." comp.mail.*"##), r##"Lsub { reference: "#news.", pattern: "comp.mail.*" }"##);
}

#[test]
fn status_reads_its_items_once_each() {
    assert!(
        shown("STATUS blurdybloop (UIDNEXT MESSAGES UIDNEXT DELETED-STORAGE HIGHESTMODSEQ MAILBOXID)")
            .contains("items: [UidNext, Messages, DeletedStorage, HighestModSeq, MailboxId]")
    );
    assert!(shown("STATUS x ()").starts_with("BAD STATUS needs"));
    assert_eq!(shown("STATUS x (PURPLE)"), "BAD unknown STATUS item");
}

#[test]
fn quota_commands_are_read() {
    assert_eq!(shown(r#"GETQUOTA """#), r#"GetQuota("")"#);
    assert!(shown("GETQUOTAROOT INBOX").contains("GetQuotaRoot(MailboxName(\"INBOX\"))"));
    assert_eq!(shown(r#"SETQUOTA "" (STORAGE 512 MESSAGE 10)"#), r#"SetQuota("")"#);
    assert!(shown(r#"SETQUOTA "" (STORAGE)"#).starts_with("BAD SETQUOTA needs"));
}

#[test]
fn rights_are_read_letter_by_letter() {
    assert_eq!(shown("GETACL INBOX"), "GetAcl(MailboxName(\"INBOX\"))");
    assert_eq!(shown("MYRIGHTS \"Other Users/ann@x.test/a\""), "MyRights(MailboxName(\"Other Users/ann@x.test/a\"))");
    let set = |rights: &str| shown(&format!("SETACL INBOX bob@x.test {rights}"));
    assert!(set("lr").contains("identifier: \"bob@x.test\", mode: Replace, rights: Rights(3)"), "{}", set("lr"));
    assert!(set("+c").contains("mode: Add, rights: Rights(192)"), "{}", set("+c"));
    assert!(set("-d").contains("mode: Remove, rights: Rights(768)"), "{}", set("-d"));
    assert!(set("\"\"").contains("mode: Replace, rights: Rights(0)"));
    for wrong in ["lrz", "+", "++l", "l+"] {
        let said = set(wrong);
        assert_eq!(said.starts_with("BAD the rights are"), wrong != "+", "{wrong}: {said}");
    }
    assert!(shown("DELETEACL INBOX -bob").contains("identifier: \"-bob\""));
    assert!(shown("LISTRIGHTS INBOX anyone").contains("identifier: \"anyone\""));
    assert!(shown("LIST \"\" * RETURN (MYRIGHTS CHILDREN)").contains("return_my_rights: true"));
}

fn append(text: &str) -> Result<Option<AppendHead>, Refusal> {
    match append_start(format!("A003 {text}").as_bytes(), false).unwrap() {
        Ok(AppendStart::Held) => Ok(None),
        Ok(AppendStart::Message { command: Tagged { command: Command::Append(head), .. }, .. }) => Ok(Some(head)),
        Ok(other) => panic!("{other:?}"),
        Err(rejected) => Err(rejected.refusal),
    }
}

/// Flags, date, size and whether the client waits, of an APPEND of one message.
fn one(head: &AppendHead) -> (&FlagNames, Option<ZonedTime>, u64, bool) {
    match head.pieces.as_slice() {
        [AppendPiece::Message { flags, date }, AppendPiece::Literal { size, synchronizing }] => {
            (flags, *date, *size, *synchronizing)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn append_is_read_up_to_its_message() {
    let head = append("APPEND saved-messages (\\Seen $Later) {326}\r\n").unwrap().unwrap();
    let (flags, date, size, synchronizing) = one(&head);
    assert_eq!((head.mailbox.as_str(), size, synchronizing), ("saved-messages", 326, true));
    assert_eq!((flags.system, flags.keywords.len(), date), (SystemFlags::SEEN, 1, None));
    let head = append("append {3}\r\na b \"17-Jul-1996 02:44:25 -0700\" {5+}\r\n").unwrap().unwrap();
    let (_, date, _, synchronizing) = one(&head);
    assert_eq!((head.mailbox.as_str(), synchronizing), ("a b", false));
    assert_eq!(date, Some(ZonedTime { at: Timestamp(837_596_665), offset_mins: -420 }));
    let head = append("APPEND x () \" 7-Jul-1996 02:44:25 +0000\" UTF8 (~{7}\r\n").unwrap().unwrap();
    assert!(matches!(one(&head), (_, _, 7, true)));
    assert!(append("APPEND {5}\r\n").unwrap().is_none());
    assert!(append("APPEND x CATENATE (URL /x/;UID=1 URL {5}\r\n").unwrap().is_none());
    let head = append("APPEND x CATENATE (URL /x/;UID=1 TEXT {5}\r\n").unwrap().unwrap();
    assert_eq!(head.pieces.len(), 3);
}

#[test]
fn an_append_that_is_wrong_says_what() {
    let usage = Refusal::Bad(usage("APPEND"));
    assert_eq!(append("APPEND x y {5}\r\n").unwrap_err(), usage);
    assert_eq!(append("APPEND x (\\Seen){5}\r\n").unwrap_err(), usage);
    assert!(
        matches!(append("APPEND x CATENATE (FILE {5}\r\n").unwrap_err(), Refusal::Bad(text) if text.contains("URL"))
    );
    assert!(
        matches!(append("APPEND x \"yesterday\" {5}\r\n").unwrap_err(), Refusal::Bad(text) if text.contains("date"))
    );
    assert!(matches!(append("APPEND \"\" {5}\r\n").unwrap_err(), Refusal::No(text) if text.starts_with("[CANNOT]")));
    assert!(append_start(b"a LOGIN {5}\r\n", false).is_none());
    assert!(append_start(b"a UID APPEND {5}\r\n", false).is_none());
    assert!(append_start(b"{5}\r\n", false).is_none());
}

fn fetched(text: &str) -> Vec<FetchItem> {
    match read(&format!("FETCH 1 {text}")).unwrap() {
        Command::Fetch(FetchCommand { items, .. }) => items,
        other => panic!("{other:?}"),
    }
}

fn section(kind: SectionKind, path: &[u32], partial: Option<(u32, u32)>) -> FetchItem {
    FetchItem::Section(SectionItem { peek: false, kind, path: path.to_vec(), partial })
}

#[test]
fn fetch_reads_the_sections_of_rfc_9051() {
    use SectionKind::{Binary, BinarySize, Body, Header, HeaderFields, Mime, Text};
    assert_eq!(fetched("BODY[]"), [section(Body, &[], None)]);
    assert_eq!(fetched("body[4.1]"), [section(Body, &[4, 1], None)]);
    assert_eq!(fetched("BODY[HEADER]"), [section(Header, &[], None)]);
    assert_eq!(fetched("BODY[4.2.MIME]"), [section(Mime, &[4, 2], None)]);
    assert_eq!(fetched("BODY[4.2.HEADER]<0.10>"), [section(Header, &[4, 2], Some((0, 10)))]);
    assert_eq!(fetched("BODY[TEXT]<5000000000.2>"), [section(Text, &[], Some((u32::MAX, 2)))]);
    let fields = HeaderFields(vec!["DATE".to_owned(), "From".to_owned()], false);
    assert_eq!(fetched("BODY[HEADER.FIELDS (DATE \"From\")]"), [section(fields, &[], None)]);
    let not = HeaderFields(vec!["x".to_owned()], true);
    assert_eq!(fetched("BODY[3.HEADER.FIELDS.NOT (x)]"), [section(not, &[3], None)]);
    assert_eq!(fetched("BINARY[1]<1.2>"), [section(Binary, &[1], Some((1, 2)))]);
    let peeked = |kind| FetchItem::Section(SectionItem { peek: true, kind, path: vec![1], partial: None });
    assert_eq!(fetched("(BINARY.PEEK[1] BINARY.SIZE[1])"), [peeked(Binary), peeked(BinarySize)]);
    assert_eq!(fetched("BODY.PEEK[1]"), [peeked(Body)]);
}

#[test]
fn fetch_reads_plain_items_and_macros() {
    use FetchItem::{
        Body, BodyStructure, EmailId, Envelope, Flags, InternalDate, ModSeq, Rfc822, Rfc822Header, Rfc822Size,
        Rfc822Text, SaveDate, Uid,
    };
    assert_eq!(fetched("FAST"), [Flags, InternalDate, Rfc822Size]);
    assert_eq!(fetched("all"), [Flags, InternalDate, Rfc822Size, Envelope]);
    assert_eq!(fetched("FULL"), [Flags, InternalDate, Rfc822Size, Envelope, Body]);
    assert_eq!(
        fetched("(UID FLAGS MODSEQ BODY BODYSTRUCTURE RFC822 RFC822.HEADER RFC822.TEXT EMAILID SAVEDATE)"),
        [Uid, Flags, ModSeq, Body, BodyStructure, Rfc822, Rfc822Header, Rfc822Text, EmailId, SaveDate]
    );
}

#[test]
fn a_fetch_that_is_wrong_says_what() {
    for text in [
        "BODY[",
        "BODY[]<1>",
        "BODY[]<1.2",
        "(FLAGS",
        "()",
        "(ALL)",
        "BODY[0]",
        "BODY[1.]",
        "BODY[.1]",
        "BODY[MIME]",
        "BODY[TEXT.1]",
        "BODY[HEADER.FIELDS ()]",
        "BODY[HEADER.FIELDS]",
        "BODY[]<0.0>",
        "BINARY[TEXT]",
        "BINARY[1.TEXT]",
        "BINARY.SIZE[1]<0.1>",
        "RFC822.PEEK",
        "ENVELOPE[]",
        "FLAGS FLAGS",
        "FLAGS (VANISHED)",
        "(FLAGS  UID)",
    ] {
        assert!(shown(&format!("FETCH 1 {text}")).starts_with("BAD "), "{text}");
    }
    assert_eq!(shown("FETCH 0 FLAGS"), "BAD FETCH needs a sequence set and items");
    assert_eq!(shown(&format!("FETCH 1 ({})", vec!["UID"; 257].join(" "))), "NO [LIMIT] too many FETCH items");
}

#[test]
fn fetch_and_store_read_their_modifiers() {
    match read("UID FETCH 1:* (FLAGS) (CHANGEDSINCE 12345)").unwrap() {
        Command::Fetch(FetchCommand { uid: true, set: seqs, changed_since: Some(ModSeq(12_345)), .. }) => {
            assert_eq!(seqs, set(&[(1, 0)]));
        }
        other => panic!("{other:?}"),
    }
    match read(r"STORE 7,5,9 (UNCHANGEDSINCE 320162338) +FLAGS.SILENT (\Deleted $MDNSent)").unwrap() {
        Command::Store(StoreCommand {
            uid: false, mode: FlagMode::Add, silent: true, flags, unchanged_since, ..
        }) => {
            assert_eq!(unchanged_since, Some(ModSeq(320_162_338)));
            assert_eq!(flags.system, SystemFlags::DELETED);
            assert_eq!(flags.keywords, [Keyword::new("$mdnsent").unwrap()]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(shown("STORE 1 (SINCE 1) FLAGS ()"), "BAD unknown STORE modifier");
}

#[test]
fn store_takes_flags_with_and_without_parentheses() {
    let flags = |text: &str| match read(&format!("UID STORE 2:4 {text}")).unwrap() {
        Command::Store(store) => (store.mode, store.silent, store.flags.system.0, store.flags.keywords.len()),
        other => panic!("{other:?}"),
    };
    assert_eq!(flags("FLAGS ()"), (FlagMode::Replace, false, 0, 0));
    assert_eq!(flags(r"-flags \Seen \Draft junk"), (FlagMode::Remove, false, 24, 1));
    assert_eq!(flags(r"FLAGS (\Answered \Flagged \Recent a A)"), (FlagMode::Replace, false, 3, 1));
    assert_eq!(shown(r"STORE 1 FLAGS (\Pudding)"), "BAD unknown system flag");
    assert!(shown("STORE 1 FLAG (x)").starts_with("BAD STORE needs"));
    let many: Vec<String> = (0..65).map(|number| format!("k{number}")).collect();
    assert!(shown(&format!("STORE 1 FLAGS ({})", many.join(" "))).starts_with("NO [LIMIT]"));
    assert!(shown(&format!("STORE 1 FLAGS {}", "k".repeat(129))).starts_with("NO [LIMIT]"));
}

#[test]
fn copy_move_and_expunge_take_sets() {
    assert!(shown("COPY 2:4 MEETING").starts_with("Copy { uid: false, set: Ranges([(Number(2), Number(4))])"));
    assert!(shown("UID MOVE $ x").starts_with("Move { uid: true, set: Saved"));
    assert!(shown("UID EXPUNGE 3000:3002").contains("uids: Some(Ranges"));
    assert!(shown("COPY 1 a%b").starts_with("BAD"));
}

fn program(text: &str) -> SearchProgram {
    match read(&format!("SEARCH {text}")).unwrap() {
        Command::Search { uid: false, program } => program,
        other => panic!("{other:?}"),
    }
}

fn key(text: &str) -> SearchKey {
    program(text).key
}

#[test]
fn every_search_key_is_read() {
    use SearchKey::{
        All, And, Before, Body, Flag, Header, Larger, ModSeq as Modified, Not, Older, On, Or, Recent, SentBefore,
        SentOn, SentSince, Sequence, Since, Smaller, Text, Uid, Younger,
    };
    let not = |key| Not(Box::new(key));
    let header = |name: &str, text: &str| Header(name.to_owned(), text.to_owned());
    for (flag, name) in [
        (SystemFlags::ANSWERED, "ANSWERED"),
        (SystemFlags::DELETED, "DELETED"),
        (SystemFlags::DRAFT, "DRAFT"),
        (SystemFlags::FLAGGED, "FLAGGED"),
        (SystemFlags::SEEN, "SEEN"),
    ] {
        assert_eq!(key(name), Flag(flag));
        assert_eq!(key(&format!("un{name}")), not(Flag(flag)));
    }
    assert_eq!((key("ALL"), key("RECENT"), key("OLD")), (All, Recent, not(Recent)));
    assert_eq!(key("NEW"), And(vec![Recent, not(Flag(SystemFlags::SEEN))]));
    assert_eq!(key("UNKEYWORD $Junk"), not(SearchKey::Keyword(Keyword::new("$junk").unwrap())));
    assert_eq!((key("BEFORE 1-Feb-1970"), key("ON \"2-Jan-1970\"")), (Before(31), On(1)));
    assert_eq!((key("SINCE 1-Jan-1970"), key("SENTBEFORE 1-Jan-1970")), (Since(0), SentBefore(0)));
    assert_eq!((key("SENTON 31-Dec-1969"), key("SENTSINCE 3-jan-1970")), (SentOn(-1), SentSince(2)));
    assert_eq!((key("LARGER 5000000000"), key("SMALLER 0")), (Larger(5_000_000_000), Smaller(0)));
    for name in ["BCC", "CC", "FROM", "SUBJECT", "TO"] {
        assert_eq!(key(&format!("{name} Smith")), header(&name.to_lowercase(), "Smith"));
    }
    assert_eq!(key("HEADER Message-ID \"<a@b>\""), header("message-id", "<a@b>"));
    assert_eq!(key("HEADER X \"\""), header("x", ""));
    assert_eq!((key("BODY x"), key("TEXT {2+}\r\né")), (Body("x".to_owned()), Text("é".to_owned())));
    assert_eq!((key("UID 1:*"), key("2,4")), (Uid(set(&[(1, 0)])), Sequence(set(&[(2, 2), (4, 4)]))));
    assert_eq!((key("*"), key("$")), (Sequence(set(&[(0, 0)])), Sequence(SequenceSet::Saved)));
    assert_eq!(key("UID $"), Uid(SequenceSet::Saved));
    assert_eq!(key("MODSEQ 620162338"), Modified(ModSeq(620_162_338)));
    assert_eq!(key(r#"MODSEQ "/flags/\\draft" all 5"#), Modified(ModSeq(5)));
    assert_eq!((key("OLDER 3600"), key("YOUNGER 1")), (Older(3600), Younger(1)));
    assert_eq!(key("OR SEEN (ALL RECENT)"), Or(Box::new(Flag(SystemFlags::SEEN)), Box::new(And(vec![All, Recent]))));
    assert_eq!(key("NOT ALL"), not(All));
}

#[test]
fn the_search_examples_of_the_rfcs_are_read() {
    let example = program("RETURN (MIN COUNT) FLAGGED SINCE 1-Feb-1994 NOT FROM \"Smith\"");
    assert_eq!(example.returns, Some(SearchReturns { min: true, count: true, ..SearchReturns::default() }));
    assert!(matches!(example.key, SearchKey::And(keys) if keys.len() == 3));
    assert_eq!(program("RETURN () ALL").returns, Some(SearchReturns { all: true, ..SearchReturns::default() }));
    assert_eq!(program("RETURN (SAVE) ALL").returns, Some(SearchReturns { save: true, ..SearchReturns::default() }));
    assert_eq!(key("CHARSET UTF-8 TEXT {8}\r\nмать"), SearchKey::Text("мать".to_owned()));
    assert!(shown("UID SEARCH RETURN (ALL) CHARSET us-ascii ALL").contains("uid: true"));
}

#[test]
fn a_search_that_is_wrong_says_what() {
    assert_eq!(
        shown("SEARCH CHARSET KOI8-R TEXT x"),
        "NO [BADCHARSET (US-ASCII UTF-8)] that charset is not known here"
    );
    assert_eq!(shown("SEARCH RETURN (RELEVANCY) ALL"), "BAD unknown SEARCH return option");
    assert_eq!(shown("SEARCH RETURN (PARTIAL 1:-2) ALL"), "BAD both ends of PARTIAL are counted from the same side");
    assert_eq!(shown("SEARCH PURPLE"), "BAD unknown search key");
    assert_eq!(shown("SEARCH ON yesterday"), "BAD a date in SEARCH is not like 1-Feb-1994");
    assert_eq!(shown("SEARCH MODSEQ \"/flags/x\" mine 5"), "BAD MODSEQ's entry type is all, priv or shared");
    for text in ["()", "OR ALL", "NOT", "ALL ", "KEYWORD \\Seen", "OLDER 0", "FROM", "HEADER x", "ALL  ALL", "(ALL"] {
        let answer = shown(&format!("SEARCH {text}"));
        assert!(answer.starts_with("BAD SEARCH needs") == (text != "ALL "), "{text}: {answer}");
    }
}

#[test]
fn a_search_has_bounds_of_depth_and_number() {
    let nested = |depth: usize| format!("SEARCH {}ALL{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(shown(&nested(17)), "NO [LIMIT] the search is nested too deeply");
    assert!(read(&nested(16)).is_ok());
    assert_eq!(shown(&format!("SEARCH {}ALL", "NOT ".repeat(17))), "NO [LIMIT] the search is nested too deeply");
    assert_eq!(shown(&format!("SEARCH {}ALL ALL", "OR ALL ".repeat(300))), "NO [LIMIT] the search has too many keys");
    assert_eq!(shown(&format!("SEARCH{}", " ALL".repeat(257))), "NO [LIMIT] the search has too many keys");
    assert!(read(&format!("SEARCH {}ALL", "OR ALL ".repeat(127))).is_ok());
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in "[ -~\\r\\n\\x00é]{0,80}", utf8 in any::<bool>()) {
        let _ = (parse(text.as_bytes(), utf8), append_start(text.as_bytes(), utf8));
    }

    #[test]
    fn any_words_after_a_name_are_read_without_a_panic(
        name in "(UID )?(LIST|FETCH|STORE|SEARCH|APPEND|ID|CREATE|STATUS|SELECT)",
        words in prop::collection::vec(
            "[0-9:*,$]{1,4}|[()\"]|\\{[0-9]\\}\r\n|BODY\\[|HEADER\\.FIELDS|\\]|<0\\.1>|OR|NOT|RETURN|ALL|x|\\\\Seen|USE",
            0..12,
        ),
    ) {
        let text = format!("a {name} {}", words.join(" "));
        let _ = (parse(text.as_bytes(), false), append_start(text.as_bytes(), false));
    }
}
