//! The session as a state machine: its limits, its order, and random bytes.

use proptest::prelude::*;

use super::*;
use crate::mail::address::Address;
use crate::mail::annotation::{Annotation, EntryName};
use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::mailbox::{AccountId, ModSeq, Uid};
use crate::mail::message::{BlobId, Flagged, Flags, Message, Placed, UidSet};
use crate::mail::rights::Rights;
use crate::mail::structure::{Structure, Walker};
use crate::protocol::imap::request::{Changes, Letter, Refused};
use crate::protocol::imap::threading::Twig;
use crate::protocol::imap::view::tests::opened;
use crate::protocol::sasl::{self, Identity};

fn session() -> Session {
    let site = Site { host: "pillarbox.test".into(), starttls: true, clear_login: true, names: Arc::default() };
    Session::new(Arc::new(ImapConfig::default()), site)
}

/// Runs the session until it reads or closes, answering its questions; gives what it wrote.
fn run(session: &mut Session, answer: &mut dyn FnMut(Request) -> Answer) -> String {
    let mut output = Vec::new();
    // Far more steps than any answer below should take.
    for _ in 0..100_000 {
        match session.next() {
            Step::Read | Step::StartTls | Step::Close => return String::from_utf8_lossy(&output).into_owned(),
            Step::Write(bytes) => output.extend_from_slice(bytes),
            Step::Ask(request) => {
                let answer = answer(request);
                session.resume(answer);
            }
        }
    }
    panic!("the session never comes to rest");
}

fn say(session: &mut Session, mut bytes: &[u8], answer: &mut dyn FnMut(Request) -> Answer) -> String {
    let mut output = run(session, answer);
    while !bytes.is_empty() && matches!(session.next(), Step::Read) {
        let taken = session.receive(bytes);
        assert!((1..=bytes.len()).contains(&taken));
        bytes = &bytes[taken..];
        output += &run(session, answer);
    }
    output
}

fn uids(last: u32) -> UidSet {
    (1..=last).filter_map(Uid::new).collect()
}

fn row(uid: Uid) -> Message {
    Message {
        uid,
        flags: Flags::default(),
        modseq: ModSeq(3),
        internal_date: ZonedTime::default(),
        saved: Timestamp(0),
        size: 40_000,
        blob: BlobId(u64::from(uid.get())),
    }
}

fn logged_in() -> sasl::Answer {
    let address = Address::parse("ann@pillarbox.test").unwrap();
    sasl::Answer::Login(Ok(Identity { account: AccountId(1), address }))
}

/// What a mailbox of `count` messages answers.
fn answers(count: u32) -> impl FnMut(Request) -> Answer {
    move |request| match request {
        Request::Sasl(_) => Answer::Sasl(logged_in()),
        Request::Open(_) => Answer::Opened(Some(Box::new(opened(uids(count))))),
        Request::ClaimRecent(_) => Answer::Claimed(Uid::MIN),
        Request::Changes { .. } => Answer::Unchanged,
        Request::Rows { uids, .. } => Answer::Rows(uids.iter().map(row).collect()),
        Request::Body { offset, max, .. } => {
            let left = 40_000_usize.saturating_sub(usize::try_from(offset).unwrap());
            Answer::Bytes(vec![b'x'; max.min(left)])
        }
        _ => Answer::Refused(Refused::Unavailable),
    }
}

#[test]
fn an_idling_session_holds_a_few_hundred_bytes() {
    let mut session = session();
    let mut answers = answers(100_000);
    let output = say(&mut session, b"a LOGIN ann x\r\nb SELECT INBOX\r\nc IDLE\r\n", &mut answers);
    assert!(output.ends_with("+ idling\r\n"), "{output}");
    assert!(session.wants_changes());
    assert_eq!(session.desk.out.capacity(), 0);
    assert!(size_of::<Session>() <= 416, "{}", size_of::<Session>());
    let view = size_of_val(session.desk.view.as_deref().unwrap());
    assert!(view <= 256, "{view}");
    assert!(size_of::<super::super::idle::Idle>() <= 32);
}

#[test]
fn what_is_written_at_a_time_is_bounded() {
    let mut session = session();
    let mut answers = answers(20_000);
    say(&mut session, b"a LOGIN ann x\r\nb SELECT INBOX\r\n", &mut answers);
    for (command, total) in
        [("FETCH 1:* (UID FLAGS)", 700_000), ("FETCH 1:50 BODY.PEEK[]", 2_000_000), ("FETCH 1 RFC822.SIZE", 20)]
    {
        let taken = session.receive(format!("c {command}\r\n").as_bytes());
        assert!(taken > 5);
        let (mut written, mut most) = (0, 0);
        loop {
            match session.next() {
                Step::Write(bytes) => {
                    written += bytes.len();
                    most = most.max(bytes.len());
                }
                Step::Ask(request) => session.resume(answers(request)),
                _ => break,
            }
        }
        assert!(written > total, "{command}: {written}");
        assert!(most <= 48 * 1024, "{command}: {most}");
    }
}

#[test]
fn a_session_goes_on_compressed() {
    use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
    let mut session = session();
    let mut answers = answers(5);
    let said = say(&mut session, b"a LOGIN ann x\r\nb COMPRESS LZMA\r\nc COMPRESS DEFLATE\r\n", &mut answers);
    assert!(said.contains(" COMPRESS=DEFLATE") && said.contains("b NO ") && said.ends_with("c OK DEFLATE active\r\n"));
    let (mut pack, mut unpack) = (Compress::new(Compression::best(), false), Decompress::new(false));
    let mut heard = Vec::with_capacity(1 << 20);
    // More in one piece than is unpacked at a time, and an errand that reads a line of its own.
    let commands = format!("{}d SELECT INBOX\r\ne IDLE\r\nDONE\r\nf COMPRESS DEFLATE\r\n", "n NOOP\r\n".repeat(2000));
    let mut packed = Vec::with_capacity(1 << 16);
    pack.compress_vec(commands.as_bytes(), &mut packed, FlushCompress::Sync).unwrap();
    let mut rest = packed.as_slice();
    for _ in 0..100_000 {
        match session.next() {
            Step::Read if rest.is_empty() => break,
            Step::Read => {
                let taken = session.receive(&rest[..rest.len().min(7)]);
                rest = &rest[taken..];
            }
            Step::Write(bytes) => drop(unpack.decompress_vec(bytes, &mut heard, FlushDecompress::Sync).unwrap()),
            Step::Ask(request) => session.resume(answers(request)),
            Step::StartTls | Step::Close => panic!("it ends"),
        }
    }
    let heard = String::from_utf8(heard).unwrap();
    assert_eq!(heard.matches("n OK NOOP completed\r\n").count(), 2000);
    assert!(heard.contains("* 5 EXISTS\r\n") && heard.contains("+ idling\r\ne OK IDLE completed\r\n"), "{heard}");
    assert!(heard.ends_with("f NO [COMPRESSIONACTIVE] DEFLATE is active already\r\n"));
}

#[test]
fn calling_next_again_changes_nothing() {
    let mut session = session();
    assert!(matches!(session.next(), Step::Write(_)));
    assert!(matches!(session.next(), Step::Read));
    assert!(matches!(session.next(), Step::Read));
    session.receive(b"a LOGIN ann x\r\n");
    assert!(matches!(session.next(), Step::Ask(_)));
    assert!(matches!(session.next(), Step::Read));
    session.resume(Answer::Sasl(logged_in()));
    assert!(matches!(session.next(), Step::Write(_)));
    session.receive(b"");
    assert!(matches!(session.next(), Step::Close));
}

#[test]
fn a_refused_append_takes_its_message_along() {
    for message in ["{10+}\r\nx LOGOUT\r\n\r\n", "{0+}\r\n\r\n"] {
        let mut session = session();
        let mut answer = |request| match request {
            Request::Sasl(_) => Answer::Sasl(logged_in()),
            Request::AppendBegin { .. } => Answer::Mailbox(None),
            _ => Answer::Refused(Refused::Unavailable),
        };
        let text = format!("a APPEND x {message}b LOGIN ann x\r\nc APPEND x {message}d LOGOUT\r\n");
        let output = say(&mut session, text.as_bytes(), &mut answer);
        let tagged: Vec<&str> = output.lines().filter(|line| !line.starts_with('*')).collect();
        let wanted = ["a BAD log in first", "b OK ", "c NO [TRYCREATE]", "d OK "];
        assert_eq!(tagged.len(), wanted.len(), "{output}");
        assert!(tagged.iter().zip(wanted).all(|(line, wanted)| line.starts_with(wanted)), "{output}");
    }
}

#[test]
fn a_select_of_a_name_no_mailbox_has_leaves_none_selected() {
    let mut session = session();
    let text = b"a LOGIN ann x\r\nb SELECT INBOX\r\nc SELECT x//y (CONDSTORE)\r\nd CLOSE\r\n";
    let output = say(&mut session, text, &mut answers(1));
    let end = output.split_once("b OK").unwrap().1;
    assert!(end.contains("* OK [CLOSED]") && end.contains("c NO [NONEXISTENT]"), "{output}");
    assert!(end.contains("d BAD no mailbox is selected"), "{output}");
}

#[test]
fn many_structures_of_one_message_are_sent_in_pieces() {
    let mut session = session();
    let mut walker = Walker::new();
    walker.feed(format!("Subject: {}\r\n\r\nx", "long ".repeat(180)).as_bytes());
    let structure = walker.finish();
    let mut rest = answers(1);
    let mut answer = |request| match request {
        Request::Letters { .. } => {
            let (blob, structure) = (BlobId(1), Some(structure.clone()));
            Answer::Letters(vec![Letter { blob, structure, ahead: Vec::new() }])
        }
        request => rest(request),
    };
    say(&mut session, b"a LOGIN ann x\r\nb SELECT INBOX\r\n", &mut answer);
    let items = "ENVELOPE ".repeat(250);
    session.receive(format!("c FETCH 1 ({})\r\n", items.trim_end()).as_bytes());
    let (mut written, mut most) = (0, 0);
    loop {
        match session.next() {
            Step::Write(bytes) => {
                written += bytes.len();
                most = most.max(bytes.len());
            }
            Step::Ask(request) => session.resume(answer(request)),
            _ => break,
        }
    }
    assert!(written > 200_000 && most <= 32 * 1024, "{written} {most}");
}

fn any_answer() -> impl Strategy<Value = u32> {
    0_u32..20
}

/// An answer, fit or unfit, to any question.
fn some_answer(kind: u32, request: Request) -> Answer {
    let mailbox = || opened(uids(9)).mailbox;
    match kind {
        0 => Answer::Refused(Refused::Unavailable),
        1 => Answer::Mailbox(None),
        2 => Answer::Mailbox(Some(Box::new(mailbox()))),
        3 => Answer::Changes(Box::new(Changes { mailbox: mailbox(), new: UidSet::new(), vanished: uids(3) })),
        4 => Answer::Bytes(Vec::new()),
        5 => Answer::Placed(Placed { uid_validity: mailbox().uid_validity, from: uids(2), to: uids(2) }),
        6 => {
            Answer::Flagged(Flagged { modseq: ModSeq(9), changed: uids(4), modified: uids(2), flags_before: ModSeq(0) })
        }
        7 => Answer::Expunged(uids(4)),
        8 => Answer::Letters(vec![Letter {
            blob: BlobId(1),
            structure: Some(Structure::default()),
            ahead: b"x".to_vec(),
        }]),
        9 => Answer::Done,
        10 => Answer::Found { uids: uids(5), modseq: ModSeq(3), next: None, now: Timestamp(0) },
        11 => Answer::Mailboxes { mailboxes: vec![mailbox()], subscriptions: Vec::new() },
        12 => Answer::Vanished(uids(7)),
        15 => Answer::Annotations(vec![Annotation {
            entry: EntryName::new("/private/x").unwrap(),
            value: b"a\0b".to_vec(),
        }]),
        16 => Answer::Acl(vec![("ann\"x".to_owned(), Rights::ALL)]),
        17 => Answer::ListRights(false),
        13 => Answer::Sorted(uids(5).iter().collect()),
        14 => Answer::Threads(vec![Twig { number: 1, depth: 0, branches: true }]),
        _ => answers(9)(request),
    }
}

#[test]
fn an_answer_to_another_question_ends_a_status() {
    let mut session = session();
    say(&mut session, b"t LOGIN ann x\r\n", &mut answers(9));
    let said = say(&mut session, b"t STATUS INBOX (RECENT)\r\n", &mut |request| some_answer(2, request));
    assert!(said.starts_with("t NO "), "{said}");
}

const COMMANDS: [&str; 53] = [
    "GETACL INBOX",
    "SETACL INBOX bob +lr",
    "DELETEACL INBOX bob",
    "LISTRIGHTS INBOX bob",
    "MYRIGHTS INBOX",
    "LIST \"\" * RETURN (MYRIGHTS)",
    "SELECT INBOX",
    "SELECT INBOX (CONDSTORE)",
    "EXAMINE INBOX",
    "FETCH 1:* (FLAGS BODY[] ENVELOPE)",
    "UID FETCH 1:* (BODY[HEADER.FIELDS (SUBJECT)] BINARY[1]) (CHANGEDSINCE 1)",
    "STORE 1:* +FLAGS ($new \\Seen)",
    "UID STORE 1:5 (UNCHANGEDSINCE 3) FLAGS.SILENT (\\Deleted)",
    "EXPUNGE",
    "UID EXPUNGE 1:3",
    "COPY 1:2 INBOX",
    "MOVE 1:2 INBOX",
    "SEARCH RETURN (SAVE ALL) 1:3 MODSEQ 4",
    "UID SEARCH UNSEEN",
    "FETCH $ UID",
    "APPEND INBOX {5+}\r\nhello",
    "APPEND INBOX {5+}\r\nhello and more",
    "APPEND INBOX {0}\r\n",
    "APPEND INBOX {0+}\r\n",
    "LIST (SUBSCRIBED) \"\" * RETURN (STATUS (RECENT))",
    "STATUS INBOX (RECENT HIGHESTMODSEQ)",
    "DELETE INBOX/x",
    "CREATE x",
    "IDLE\r\nDONE",
    "IDLE\r\nx",
    "ENABLE IMAP4rev2 CONDSTORE",
    "ENABLE QRESYNC",
    "ENABLE UIDONLY",
    "SELECT INBOX (QRESYNC (1 1))",
    "UID FETCH 1:* (FLAGS PREVIEW) (CHANGEDSINCE 1 VANISHED PARTIAL 1:2)",
    "UID SORT RETURN (SAVE MIN ALL) (REVERSE DATE SUBJECT) UTF-8 ALL",
    "SORT (SIZE) UTF-8 MODSEQ 1",
    "THREAD REFERENCES UTF-8 ALL",
    "UID SEARCH RETURN (MIN PARTIAL -1:-2) MODSEQ 1",
    "APPEND INBOX {2+}\r\nhi (\\Seen) {5+}\r\nhello {1+}\r\nx",
    "UID REPLACE 1 INBOX {5+}\r\nhello",
    "GETQUOTAROOT INBOX",
    "GETMETADATA (DEPTH infinity MAXSIZE 1) INBOX (/shared /private/x)",
    "SETMETADATA \"\" (/private/x {2+}\r\nhi /private/y NIL)",
    "LIST \"\" * RETURN (METADATA (/private/x) STATUS (MESSAGES))",
    "ESEARCH IN (selected personal) RETURN (MIN COUNT) UNSEEN",
    "NOTIFY SET STATUS (selected (MessageNew (UID BODY[]) MessageExpunge FlagChange)) (personal (MailboxName))",
    "NOTIFY NONE",
    "UID SEARCH RETURN (UPDATE ALL) UNSEEN",
    "CANCELUPDATE \"t\"",
    "CLOSE",
    "UNSELECT",
    "NOOP",
];

proptest! {
    /// Whatever the world answers, a session neither panics nor spins, and each command it took
    /// in full is answered once.
    #[test]
    fn any_answers_leave_a_session_that_goes_on_or_ends(
        commands in prop::collection::vec(prop::sample::select(COMMANDS.to_vec()), 1..12),
        kinds in prop::collection::vec(any_answer(), 1..60),
        piece in 1_usize..40,
    ) {
        let mut session = session();
        say(&mut session, b"t LOGIN ann x\r\n", &mut answers(9));
        let mut kinds = kinds.into_iter().cycle();
        let mut answer = |request| some_answer(kinds.next().unwrap_or(0), request);
        for command in commands {
            let text = format!("t {command}\r\n");
            let mut output = String::new();
            for bytes in text.as_bytes().chunks(piece) {
                output += &say(&mut session, bytes, &mut answer);
            }
            // What is told between two commands is no tagged response.
            if session.wants_changes() {
                session.notice(Notice::Changed);
                output += &run(&mut session, &mut answer);
            }
            if matches!(session.next(), Step::Close) {
                return Ok(());
            }
            let tagged = output.split("\r\n").filter(|line| line.starts_with("t ")).count();
            prop_assert_eq!(tagged, 1, "{} gave {}", text, output);
        }
    }
}

#[test]
fn a_client_that_sends_25_mib_unasked_is_taken_a_piece_at_a_time() {
    const SIZE: usize = 25 << 20;
    let mut session = session();
    let (mut taken, mut largest) = (0, 0);
    let mut answer = |request| match request {
        Request::Sasl(_) => Answer::Sasl(logged_in()),
        Request::AppendBegin { size, .. } => {
            assert_eq!(size, SIZE as u64);
            Answer::Mailbox(Some(Box::new(opened(UidSet::new()).mailbox)))
        }
        Request::AppendBytes(bytes) => {
            taken += bytes.len();
            largest = largest.max(bytes.len());
            Answer::Done
        }
        Request::AppendEnd { .. } => Answer::Placed(Placed {
            uid_validity: opened(UidSet::new()).mailbox.uid_validity,
            from: UidSet::new(),
            to: uids(1),
        }),
        other => panic!("{other:?}"),
    };
    say(&mut session, b"a LOGIN ann x\r\n", &mut answer);
    say(&mut session, format!("b APPEND INBOX {{{SIZE}+}}\r\n").as_bytes(), &mut answer);
    let piece = vec![b'x'; 64 << 10];
    for _ in 0..SIZE / piece.len() {
        assert_eq!(say(&mut session, &piece, &mut answer), "");
    }
    let said = say(&mut session, b"\r\n", &mut answer);
    assert!(said.starts_with("b OK [APPENDUID"), "{said}");
    assert_eq!(taken, SIZE);
    assert!(largest <= super::super::request::BODY_CHUNK, "{largest}");
}
