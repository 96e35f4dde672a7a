//! SEARCH keys against messages in memory, and how little of a message each reads.

use super::*;
use crate::mail::mailbox::Uid;
use crate::mail::message::{BlobId, Flags, Keyword};
use crate::mail::structure::Walker;

const LETTER: &str = "Received: from a by b\r\n\
    From: \"J=?utf-8?Q?=C3=BC?=rgen\" <j@example.org>\r\n\
    To: ann@example.org,\r\n\tBob <bob@example.net>\r\n\
    Subject: =?utf-8?B?R3LDvMOfZSBhdXMgS8O2bG4=?=\r\n\
    Date: Tue, 1 Feb 1994 01:30:00 +0900\r\n\
    X-Mood: sunny\r\n\
    MIME-Version: 1.0\r\n\
    Content-Type: multipart/mixed; boundary=b\r\n\r\n\
    --b\r\n\
    Content-Type: text/plain; charset=iso-8859-1\r\n\
    Content-Transfer-Encoding: quoted-printable\r\n\r\n\
    Das M=E4rchen vom=\r\n Fischer\r\n\
    --b\r\n\
    Content-Type: text/html; charset=utf-8\r\n\
    Content-Transfer-Encoding: base64\r\n\r\n\
    PGI+w5xiZXJyYXNjaHVuZzwvYj4=\r\n\
    --b\r\n\
    Content-Type: image/png; name=needle.png\r\n\
    Content-Transfer-Encoding: base64\r\n\r\n\
    bmVlZGxlIGluIGEgcGljdHVyZQ==\r\n\
    --b--\r\n";

/// One message in memory; counts what is read of it.
struct Memory {
    letter: Vec<u8>,
    structures: u32,
    bytes: u64,
    piece: usize,
    /// The looks that it is known to lack.
    lacking: Vec<usize>,
}

impl Memory {
    fn new(letter: &str) -> Self {
        Self { letter: letter.as_bytes().to_vec(), structures: 0, bytes: 0, piece: 7, lacking: Vec::new() }
    }
}

impl Source for Memory {
    type Error = ();

    fn lacks(&mut self, _: &Message, look: usize) -> Result<bool, ()> {
        Ok(self.lacking.contains(&look))
    }

    fn structure(&mut self, _: &Message) -> Result<Option<Structure>, ()> {
        self.structures += 1;
        let mut walker = Walker::new();
        walker.feed(&self.letter);
        Ok(Some(walker.finish()))
    }

    fn read(&mut self, _: &Message, extent: Extent, take: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), ()> {
        let start = usize::try_from(extent.offset).unwrap();
        let end = start + usize::try_from(extent.length).unwrap();
        for piece in self.letter[start..end].chunks(self.piece) {
            self.bytes += piece.len() as u64;
            if !take(piece) {
                break;
            }
        }
        Ok(())
    }
}

fn message() -> Message {
    Message {
        uid: Uid::new(7).unwrap(),
        flags: Flags { system: SystemFlags::SEEN, keywords: 2 },
        modseq: ModSeq(50),
        // A day earlier in UTC.
        internal_date: ZonedTime::parse_imap("1-Feb-1994 00:30:00 +0900").unwrap(),
        saved: Timestamp(0),
        size: 1000,
        blob: BlobId(1),
    }
}

/// Reads keys as SEARCH does.
fn key(text: &str) -> SearchKey {
    use crate::protocol::imap::command::Command;
    use crate::protocol::imap::intake::{Intake, Taken};
    match Intake::default().take(format!("a SEARCH {text}\r\n").as_bytes()).1 {
        Taken::Command(tagged) => match tagged.command {
            Command::Search { program, .. } => {
                let resolved = program.key.resolve(&mut |_, set| Ok::<_, ()>(set.uids(Uid::new(9), &UidSet::new())));
                resolved.unwrap()
            }
            other => panic!("{other:?}"),
        },
        other => panic!("{text}: {other:?}"),
    }
}

fn ask(text: &str, source: &mut Memory) -> bool {
    let keywords = Keywords(vec![Keyword::new("$Junk").unwrap(), Keyword::new("later").unwrap()]);
    let recent = [7].into_iter().filter_map(Uid::new).collect();
    let now = Timestamp(message().internal_date.at.0 + 3600);
    let query = Query::new(&key(text), Setting { keywords: &keywords, recent: &recent, now });
    query.matches(&message(), source).unwrap()
}

/// Whether `LETTER` is it.
fn is(text: &str) -> bool {
    ask(text, &mut Memory::new(LETTER))
}

#[test]
fn what_a_message_surely_lacks_is_not_read() {
    for (text, lacking, holds, opened) in [
        ("BODY nowhere", vec![0], false, false),
        ("NOT TEXT nowhere", vec![0], true, false),
        ("HEADER X-Mood gloomy", vec![0], false, false),
        ("OR BODY nowhere TEXT sunny", vec![0], true, true),
        ("BODY nowhere TEXT sunny", vec![0], false, false),
        ("OR BODY nowhere HEADER X-Mood gloomy", vec![0, 1], false, false),
        // The walker keeps the subject, and two letters have no gram.
        ("SUBJECT nowhere", vec![0], false, true),
        ("BODY no", vec![0], false, true),
        ("BODY nowhere", vec![], false, true),
    ] {
        let mut source = Memory { lacking, ..Memory::new(LETTER) };
        assert_eq!(ask(text, &mut source), holds, "{text}");
        assert_eq!(source.structures > 0, opened, "{text}");
    }
}

#[test]
fn what_the_record_tells_opens_nothing() {
    for (text, holds) in [
        ("ALL", true),
        ("SEEN", true),
        ("UNSEEN", false),
        ("DELETED", false),
        ("RECENT", true),
        ("NEW", false),
        ("OLD", false),
        ("KEYWORD Later", true),
        ("KEYWORD $junk", false),
        ("UNKEYWORD unheard-of", true),
        ("LARGER 999", true),
        ("LARGER 1000", false),
        ("SMALLER 1001", true),
        ("SMALLER 1000", false),
        ("UID 1:6,8", false),
        ("UID 7", true),
        ("1:*", true),
        ("MODSEQ 50", true),
        ("MODSEQ 51", false),
        ("OLDER 3600", true),
        ("OLDER 3601", false),
        ("YOUNGER 3600", true),
        ("YOUNGER 3599", false),
        ("OR UNSEEN SEEN", true),
        ("NOT (SEEN RECENT)", false),
        // The text decides nothing here.
        ("OR SEEN BODY x", true),
        ("UNSEEN TEXT x", false),
        ("NOT (UNSEEN FROM x)", true),
    ] {
        let mut source = Memory::new(LETTER);
        assert_eq!(ask(text, &mut source), holds, "{text}");
        assert_eq!(source.structures, 0, "{text}");
    }
}

#[test]
fn internal_dates_count_by_their_own_calendar() {
    assert_eq!(message().internal_date.to_imap(), " 1-Feb-1994 00:30:00 +0900");
    assert!(is("ON 1-Feb-1994") && is("SINCE 1-Feb-1994") && is("BEFORE 2-Feb-1994"));
    assert!(!is("ON 31-Jan-1994") && !is("BEFORE 1-Feb-1994") && !is("SINCE 2-Feb-1994"));
}

#[test]
fn sent_dates_count_by_the_senders_calendar() {
    // 1 February in Japan is 31 January in UTC.
    assert!(is("SENTON 1-Feb-1994") && is("SENTSINCE 1-Feb-1994") && is("SENTBEFORE 2-Feb-1994"));
    assert!(!is("SENTON 31-Jan-1994") && !is("SENTBEFORE 1-Feb-1994"));
    for undated in ["Subject: x\r\n\r\n", "Date: once upon a time\r\n\r\n"] {
        assert!(ask("SENTON 1-Feb-1994", &mut Memory::new(undated)), "{undated}");
    }
}

#[test]
fn kept_fields_are_searched_without_opening_the_body() {
    for (text, holds) in [
        ("FROM jürgen", true),
        ("FROM J@EXAMPLE.ORG", true),
        ("FROM bob", false),
        ("TO BOB", true),
        ("TO ann", true),
        ("CC ann", false),
        ("BCC \"\"", false),
        ("SUBJECT \"grüße aus KÖLN\"", true),
        ("SUBJECT B64", false),
        ("HEADER Subject \"\"", true),
        ("HEADER Message-ID \"\"", false),
        ("FROM nobody BODY M", false),
    ] {
        let mut source = Memory::new(LETTER);
        assert_eq!(ask(text, &mut source), holds, "{text}");
        assert_eq!(source.bytes, 0, "{text}");
    }
}

#[test]
fn other_fields_are_read_from_the_header() {
    for (text, holds) in [
        ("HEADER X-Mood SUN", true),
        ("HEADER x-mood \"\"", true),
        ("HEADER X-Mood rain", false),
        ("HEADER X-Nothing \"\"", false),
        ("HEADER Received \"from a\"", true),
        ("HEADER Content-Transfer-Encoding \"\"", false),
    ] {
        let mut source = Memory::new(LETTER);
        assert_eq!(ask(text, &mut source), holds, "{text}");
        assert!(source.bytes <= 500, "{text} read {}", source.bytes);
    }
}

#[test]
fn fields_that_stand_there_twice_or_too_long_are_all_searched() {
    let twice = "Subject: one\r\nSubject: two\r\nX: y\r\n\r\n";
    assert!(ask("SUBJECT one SUBJECT two", &mut Memory::new(twice)));
    assert!(!ask("SUBJECT three", &mut Memory::new(twice)));
    let long = format!("To: {}last@x\r\nDate: Tue, 1 Feb 1994 01:30:00 +0900\r\n\r\n", "a@b, ".repeat(6000));
    assert!(ask("TO last@x SENTON 1-Feb-1994", &mut Memory::new(&long)));
}

#[test]
fn bodies_are_searched_decoded() {
    assert!(is("BODY märchen") && is("BODY \"VOM FISCHER\"") && is("BODY ÜBERRASCHUNG"));
    assert!(is("TEXT märchen") && is("BODY \"\"") && is("TEXT \"\""));
    // Not in headers, not in pictures, not in the coded form.
    assert!(!is("BODY sunny") && !is("BODY needle") && !is("BODY =E4") && !is("BODY Köln"));
    // TEXT is in headers too, those of parts as well.
    assert!(is("TEXT \"x-mood: SUNNY\"") && is("TEXT needle.png") && is("TEXT Köln"));
    assert!(!is("TEXT \"needle in a picture\""));
}

#[test]
fn several_texts_are_looked_for_in_one_reading() {
    assert!(is("BODY märchen BODY überraschung TEXT köln"));
    assert!(!is("BODY märchen BODY überraschung TEXT lübeck"));
    assert!(is("OR BODY lübeck OR BODY wismar BODY fischer"));
    assert!(is("NOT BODY lübeck") && !is("NOT BODY fischer"));
    let mut source = Memory::new(LETTER);
    assert!(ask("OR BODY märchen BODY nowhere", &mut source));
    let until_found = source.bytes;
    assert!(!ask("BODY nowhere", &mut source));
    assert!(until_found < (source.bytes - until_found) / 2, "{until_found} of {}", source.bytes - until_found);
}

#[test]
fn how_the_body_is_cut_makes_no_difference() {
    for piece in [1, 2, 3, 64, 5000] {
        for (text, holds) in
            [("BODY märchen", true), ("BODY überraschung", true), ("TEXT bob", true), ("BODY x y", false)]
        {
            let mut source = Memory { piece, ..Memory::new(LETTER) };
            assert_eq!(ask(text.trim_end_matches(" y"), &mut source), holds, "{text} in pieces of {piece}");
        }
    }
}

#[test]
fn uids_at_the_top_narrow_the_search() {
    let only = |text: &str| {
        let (keywords, recent) = (Keywords::default(), UidSet::new());
        let query = Query::new(&key(text), Setting { keywords: &keywords, recent: &recent, now: Timestamp(0) });
        query.only().map(UidSet::count)
    };
    assert_eq!(only("UID 3:5"), Some(3));
    assert_eq!(only("SEEN UID 3:5 2:9"), Some(3));
    assert_eq!(only("OR SEEN UID 3"), None);
    assert_eq!(only("NOT UID 3"), None);
    assert_eq!(only("RECENT"), Some(0));
}

#[test]
fn a_long_chain_of_alternatives_is_one_level() {
    let chain = format!("{}SUBJECT x", "OR SUBJECT y ".repeat(127));
    assert!(!is(&chain));
    assert!(is(&chain.replace("SUBJECT x", "SUBJECT köln")));
}
