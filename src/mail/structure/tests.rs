//! Trees and extents of ordinary and broken mail, and the bounds of the walker.

use super::*;
use proptest::prelude::*;

/// Walks a message written with LF, in CRLF.
fn walk(message: &str) -> (String, Structure) {
    let message = message.replace('\n', "\r\n");
    let structure = walk_bytes(message.as_bytes());
    (message, structure)
}

fn walk_bytes(message: &[u8]) -> Structure {
    let mut walker = Walker::new();
    walker.feed(message);
    walker.finish()
}

fn cut(message: &[u8], extent: Extent) -> &[u8] {
    let start = usize::try_from(extent.offset).unwrap();
    &message[start..start + usize::try_from(extent.length).unwrap()]
}

/// What a section holds, with LF.
fn section(walked: &(String, Structure), path: &[u32], section: Section) -> Option<String> {
    let extent = walked.1.extent(path, section)?;
    Some(String::from_utf8(cut(walked.0.as_bytes(), extent).to_vec()).unwrap().replace("\r\n", "\n"))
}

/// The tree as text, such as `multipart/mixed[text/plain message/rfc822[text/plain]]`.
fn tree(structure: &Structure) -> String {
    fn spell(part: Part<'_>) -> String {
        let (kind, subtype) = part.media();
        let below: Vec<String> = part.children().chain(part.message()).map(spell).collect();
        let below = if below.is_empty() { String::new() } else { format!("[{}]", below.join(" ")) };
        format!("{kind}/{subtype}{below}")
    }
    spell(structure.message().unwrap())
}

fn record(structure: &Structure) -> Vec<u8> {
    postcard::to_allocvec(structure).unwrap()
}

#[test]
fn a_plain_message_is_header_and_text() {
    let walked = walk("From: a@x.test\nSubject: hi\n there\n\none\ntwo\n");
    assert_eq!(section(&walked, &[], Section::Header).unwrap(), "From: a@x.test\nSubject: hi\n there\n\n");
    assert_eq!(section(&walked, &[], Section::Text).unwrap(), "one\ntwo\n");
    assert_eq!(section(&walked, &[1], Section::Body).unwrap(), "one\ntwo\n");
    assert_eq!(section(&walked, &[], Section::Body).unwrap(), walked.0.replace("\r\n", "\n"));
    assert_eq!(walked.1.field(Field::Subject), Some("hi there"));
    assert_eq!(walked.1.field(Field::To), None);
    let message = walked.1.message().unwrap();
    assert_eq!((message.media(), message.lines(), walked.1.size()), (("text", "plain"), 2, 49));
    for (path, wanted) in
        [(&[2][..], Section::Body), (&[1, 1], Section::Body), (&[1], Section::Header), (&[], Section::Mime)]
    {
        assert_eq!(walked.1.extent(path, wanted), None, "{path:?}");
    }
    assert!(walked.1.fields_are_whole());
}

#[test]
fn parts_are_numbered_as_rfc_9051_shows() {
    let leaf = |kind: &str, body: &str| format!("Content-Type: {kind}\n\n{body}");
    let multi = |kind: &str, boundary: &str, parts: &[String]| {
        let parts = parts.iter().map(|part| format!("--{boundary}\n{part}\n")).collect::<Vec<_>>().concat();
        format!("Content-Type: multipart/{kind}; boundary={boundary}\n\n{parts}--{boundary}--\n")
    };
    let message = |part: &str| format!("Content-Type: message/rfc822\n\nSubject: in\n{part}");
    let walked = walk(&multi(
        "mixed",
        "a",
        &[
            leaf("text/plain", "1"),
            leaf("application/octet-stream", "2"),
            message(&multi("mixed", "b", &[leaf("text/plain", "3.1"), leaf("application/octet-stream", "3.2")])),
            multi(
                "mixed",
                "c",
                &[
                    leaf("image/gif", "4.1"),
                    message(&multi(
                        "mixed",
                        "d",
                        &[
                            leaf("text/plain", "4.2.1"),
                            multi(
                                "alternative",
                                "e",
                                &[leaf("text/plain", "4.2.2.1"), leaf("text/richtext", "4.2.2.2")],
                            ),
                        ],
                    )),
                ],
            ),
        ],
    ));
    assert_eq!(
        tree(&walked.1),
        "multipart/mixed[text/plain application/octet-stream message/rfc822[multipart/mixed[text/plain \
         application/octet-stream]] multipart/mixed[image/gif message/rfc822[multipart/mixed[text/plain \
         multipart/alternative[text/plain text/richtext]]]]]"
    );
    for path in ["1", "2", "3.1", "3.2", "4.1", "4.2.1", "4.2.2.1", "4.2.2.2"] {
        let numbers: Vec<u32> = path.split('.').map(|number| number.parse().unwrap()).collect();
        assert_eq!(section(&walked, &numbers, Section::Body).unwrap(), path);
        assert!(section(&walked, &numbers, Section::Mime).unwrap().starts_with("Content-Type: "), "{path}");
        assert_eq!(walked.1.extent(&numbers, Section::Header), None);
    }
    for path in [&[3][..], &[4, 2]] {
        let header = section(&walked, path, Section::Header).unwrap();
        assert!(header.starts_with("Subject: in\nContent-Type: multipart/mixed") && header.ends_with("\n\n"));
        let text = section(&walked, path, Section::Text).unwrap();
        assert!(text.starts_with("--") && text.ends_with("--\n"), "{text}");
        assert_eq!(section(&walked, path, Section::Body).unwrap(), header + &text);
        assert_eq!(section(&walked, path, Section::Mime).unwrap(), "Content-Type: message/rfc822\n\n");
    }
    for path in [&[5][..], &[0], &[1, 1], &[4, 3], &[4, 2, 2, 3], &[3, 1, 1], &[]] {
        assert!(walked.1.part(path).is_none(), "{path:?}");
    }
    assert_eq!(walked.1.extent(&[4], Section::Header), None);
}

#[test]
fn a_message_in_a_message_that_is_no_multipart_has_part_one() {
    let walked = walk("Content-Type: message/rfc822\n\nSubject: in\n\ntext\n");
    assert_eq!(section(&walked, &[1, 1], Section::Body).unwrap(), "text\n");
    assert_eq!(section(&walked, &[1], Section::Header).unwrap(), "Subject: in\n\n");
    assert_eq!(section(&walked, &[1, 1], Section::Mime).unwrap(), "Subject: in\n\n");
    assert_eq!(walked.1.part(&[1]).unwrap().message().unwrap().field(Field::Subject), Some("in"));
    assert_eq!(walked.1.part(&[1]).unwrap().lines(), 3);
    assert_eq!(walked.1.field(Field::Subject), None);
}

#[test]
fn the_newline_before_a_boundary_belongs_to_it() {
    let walked =
        walk("Content-Type: multipart/mixed; boundary=b\n\npreface\n--b\n\none\n\n--b\n\n--b\n\n\n--b--\nepilogue\n");
    assert_eq!(section(&walked, &[1], Section::Body).unwrap(), "one\n");
    assert_eq!(walked.1.part(&[1]).unwrap().lines(), 1);
    // A header's empty line may be that newline; the header keeps it.
    assert_eq!(section(&walked, &[2], Section::Mime).unwrap(), "\n");
    assert_eq!(section(&walked, &[2], Section::Body).unwrap(), "");
    assert_eq!(section(&walked, &[3], Section::Body).unwrap(), "");
    assert_eq!(walked.1.extent(&[4], Section::Body), None);
    assert_eq!(walked.1.message().unwrap().lines(), 12);
}

#[test]
fn odd_boundaries_are_found() {
    let long = "x".repeat(BOUNDARY_MAX);
    let cases = [
        // The first and the last thing there is.
        ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\n1\n--b--", "1"),
        // The last delimiter is missing.
        ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\n1", "1"),
        ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\n1\n--b\n", "1|"),
        // White space after it, in the field and in the text.
        ("Content-Type: multipart/mixed; boundary=\"b \"\n\n--b \t\n\n1\n--b\n\n2\n--b-- \n", "1|2"),
        // It begins like another.
        (
            "Content-Type: multipart/mixed; boundary=b\n\n--b\n\n1\n--bb\n--b-\n--b --\n--b\n\n2\n--b--x\n",
            "1\n--bb\n--b-\n--b --|2\n--b--x\n",
        ),
        // Quoted, with all that may stand in one.
        ("Content-Type: multipart/mixed;\n boundary=\"(b; c)=\\\"?\"\n\n--(b; c)=\"?\n\n1\n--(b; c)=\"?--\n", "1"),
        ("Content-Type: multipart/mixed; boundary=--=_b:/\n\n----=_b:/\n\n1\n----=_b:/--\n", "1"),
        ("content-type:Multipart/Mixed ; BOUNDARY = b ; x=y\n\n--b\n\n1\n--b--\n", "1"),
        ("Content-Type: multipart/mixed; boundary*0=b; boundary*1=c\n\n--bc\n\n1\n--bc--\n", "1"),
        // Nothing after the last one is a part.
        ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\n1\n--b--\n--b\n\n2\n", "1"),
        // Within a header.
        ("Content-Type: multipart/mixed; boundary=b\n\n--b\nX-A: 1\n--b\n\n2\n--b--\n", "|2"),
        (&format!("Content-Type: multipart/mixed; boundary={long}\n\n--{long}\n\n1\n--{long}--\n"), "1"),
    ];
    for (message, expected) in cases {
        let walked = walk(message);
        let bodies = walked.1.message().unwrap().children().map(Part::body);
        let found: Vec<_> =
            bodies.map(|body| String::from_utf8_lossy(cut(walked.0.as_bytes(), body)).replace("\r\n", "\n")).collect();
        assert_eq!(found.join("|"), expected, "{message}");
    }
}

#[test]
fn a_nested_multipart_may_lack_its_end_and_use_the_same_boundary() {
    let inner = "Content-Type: multipart/alternative; boundary=i\n\n--i\n\n1.1\n";
    let walked = walk(&format!("Content-Type: multipart/mixed; boundary=io\n\n--io\n{inner}--io\n\n2\n--io--\n"));
    assert_eq!(tree(&walked.1), "multipart/mixed[multipart/alternative[text/plain] text/plain]");
    assert_eq!(section(&walked, &[1], Section::Body).unwrap(), "--i\n\n1.1");
    assert_eq!(section(&walked, &[1, 1], Section::Body).unwrap(), "1.1");

    let inner = "Content-Type: multipart/alternative; boundary=b\n\n--b\n\n1.1\n--b--\nepilogue\n";
    let walked = walk(&format!("Content-Type: multipart/mixed; boundary=b\n\n--b\n{inner}--b\n\n2\n--b--\n"));
    assert_eq!(tree(&walked.1), "multipart/mixed[multipart/alternative[text/plain] text/plain]");
    assert_eq!(section(&walked, &[2], Section::Body).unwrap(), "2");
}

#[test]
fn the_parts_of_a_digest_are_messages() {
    let walked = walk(
        "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: one\n\n1\n--b\nContent-Type: text/html\n\n2\n\
         --b\n\n--b\nSubject: a field of the part\n--b--\n",
    );
    assert_eq!(
        tree(&walked.1),
        "multipart/digest[message/rfc822[text/plain] text/html message/rfc822[text/plain] message/rfc822[text/plain]]"
    );
    assert_eq!(walked.1.part(&[1]).unwrap().message().unwrap().field(Field::Subject), Some("one"));
    assert_eq!(section(&walked, &[1, 1], Section::Body).unwrap(), "1");
    assert_eq!(section(&walked, &[3], Section::Body).unwrap(), "");
}

#[test]
fn what_is_not_what_it_says_is_shown_as_what_it_is() {
    let cases = [
        ("Content-Type: multipart/mixed\n\ntext\n", "text/plain"),
        ("Content-Type: multipart/mixed; boundary=\"\"\n\n--\ntext\n", "text/plain"),
        ("Content-Type: multipart/mixed; boundary=b\n\nno parts\n", "text/plain"),
        ("Content-Type: multipart/mixed; boundary=b\n\n--b--\n", "text/plain"),
        (
            "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogaGkK\n",
            "application/octet-stream",
        ),
        ("Content-Type: message/global\n\nSubject: hi\n\n", "message/global[text/plain]"),
        ("Content-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\n", "message/delivery-status"),
        ("Content-Type: html\n\n<p>\n", "text/plain"),
        ("Content-Type:\n\n<p>\n", "text/plain"),
        ("Content-Type: Text/HTML\nContent-Type: text/plain\n\n<p>\n", "Text/HTML"),
    ];
    for (message, expected) in cases {
        assert_eq!(tree(&walk(message).1), expected, "{message}");
    }
    let (_, structure) = walk("Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n\ntext\n");
    let part = structure.part(&[1]).unwrap();
    assert_eq!((part.encoding(), part.encoding_name()), (TransferEncoding::Identity, "7bit"));
    assert_eq!(part.parameters(), [Parameter { name: "charset".into(), value: "us-ascii".into() }]);
}

#[test]
fn mail_without_a_header_or_without_a_body_is_taken() {
    let cases = [
        // Message, header, body.
        ("", "", ""),
        ("\n", "\n", ""),
        ("\n\n", "\n", "\n"),
        ("Subject: x", "Subject: x", ""),
        ("Subject: x\n", "Subject: x\n", ""),
        ("Hello\nworld: x\n\n", "", "Hello\nworld: x\n\n"),
        (" folded\nSubject: x\n", "", " folded\nSubject: x\n"),
        ("From ann Mon Jan 1\nSubject: x\n\ny", "From ann Mon Jan 1\nSubject: x\n\n", "y"),
        ("\u{feff}Subject: x\n\ny", "\u{feff}Subject: x\n\n", "y"),
        ("Subject: x\njunk\nTo: y\n\nz", "Subject: x\njunk\nTo: y\n\n", "z"),
    ];
    for (message, header, body) in cases {
        let walked = walk(message);
        assert_eq!(section(&walked, &[], Section::Header).unwrap(), header, "{message:?}");
        assert_eq!(section(&walked, &[], Section::Text).unwrap(), body, "{message:?}");
    }
}

#[test]
fn bare_newlines_end_lines_and_bare_returns_do_not() {
    let message =
        b"Subject: a\rb\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\none\n\n--b\r\n\r\ntwo\r\n\n--b--\n";
    let structure = walk_bytes(message);
    assert_eq!(structure.field(Field::Subject), Some("a b"));
    assert_eq!(cut(message, structure.extent(&[1], Section::Body).unwrap()), b"one\n");
    assert_eq!(cut(message, structure.extent(&[2], Section::Body).unwrap()), b"two\r\n");
    let old_mac = b"Subject: a\r\rtext\r";
    assert_eq!(cut(old_mac, walk_bytes(old_mac).extent(&[], Section::Header).unwrap()), old_mac);
}

#[test]
fn raw_bytes_in_a_header_are_read_by_the_charset_of_the_part() {
    let subject = |message: &[u8]| walk_bytes(message).field(Field::Subject).unwrap().to_owned();
    assert_eq!(subject("Subject: Grüße\r\n\r\n".as_bytes()), "Grüße");
    assert_eq!(subject(b"Subject: Gr\xfc\xdfe\r\n\r\n"), "Grüße");
    assert_eq!(subject(b"Subject: \xd0\xd2\xc9\r\nContent-Type: text/plain; charset=koi8-r\r\n\r\n"), "при");
    assert_eq!(subject(b"Subject: a\0b\r\n\r\n"), "a b");
}

#[test]
fn text_parts_come_with_what_it_takes_to_read_them() {
    let walked = walk(
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html; charset=\"utf-8\"\n\
         Content-Transfer-Encoding: Quoted-Printable (x)\n\n1\n--b\nContent-Type: image/png\n\n2\n--b\n\
         Content-Type: message/rfc822\n\nSubject: in\n\n3\n--b--\n",
    );
    let texts: Vec<TextPart> = walked.1.texts().collect();
    assert_eq!(texts.len(), 2);
    assert_eq!((texts[0].encoding, texts[0].charset.as_deref()), (TransferEncoding::QuotedPrintable, Some("utf-8")));
    assert_eq!((texts[1].encoding, texts[1].charset.as_deref()), (TransferEncoding::Identity, Some("us-ascii")));
    assert_eq!(cut(walked.0.as_bytes(), texts[1].extent), b"3");
    assert_eq!(walked.1.headers().count(), 5);
    assert_eq!(walked.1.encoding(&[1]), Some(TransferEncoding::QuotedPrintable));
    assert_eq!(
        (walked.1.encoding(&[3]), walked.1.encoding(&[])),
        (Some(TransferEncoding::Identity), Some(TransferEncoding::Identity))
    );
    assert_eq!(walked.1.encoding(&[9]), None);
    assert_eq!(TransferEncoding::parse("x-uuencode"), TransferEncoding::Unknown);
}

#[test]
fn lists_of_addresses_are_joined_and_other_fields_count_once() {
    let (_, structure) = walk("To: a@x\nTo: b@x\nSubject: one\n\n");
    assert_eq!(structure.field(Field::To), Some("a@x,  b@x"));
    assert!(structure.fields_are_whole());
    let (_, structure) = walk("Subject: one\nSubject: two\n\n");
    assert_eq!(structure.field(Field::Subject), Some("one"));
    assert!(!structure.fields_are_whole());
}

#[test]
fn a_list_that_is_too_long_ends_with_a_whole_address() {
    let list = (0..2000).map(|number| format!(" someone{number}@example.test,\r\n")).collect::<Vec<_>>().concat();
    let structure = walk_bytes(format!("To:{list} last@x\r\nSubject: s\r\n\r\n").as_bytes());
    assert!(!structure.fields_are_whole());
    let found = addresses(structure.field(Field::To).unwrap());
    assert!((100..=ADDRESSES_MAX).contains(&found.len()));
    assert!(found.iter().all(|address| matches!(address, MailAddress::Mailbox { host, .. } if host == "example.test")));
    assert_eq!(structure.field(Field::Subject), Some("s"));
}

#[test]
fn common_mail_has_a_small_record() {
    let (_, structure) = walk(
        "Return-Path: <ann@example.org>\nReceived: from mx.example.org (mx.example.org [192.0.2.1])\n\tby pillarbox.test\n\
         Date: Mon, 23 Nov 2026 10:00:00 +0100\nFrom: Ann Example <ann@example.org>\nTo: Bob <bob@pillarbox.test>\n\
         Subject: Minutes of the meeting\nMessage-ID: <20261123100000.4711@example.org>\nMIME-Version: 1.0\n\
         Content-Type: multipart/alternative; boundary=\"000000000000a1b2c3d4e5f6\"\n\n\
         --000000000000a1b2c3d4e5f6\nContent-Type: text/plain; charset=\"UTF-8\"\n\ntext\n\
         --000000000000a1b2c3d4e5f6\nContent-Type: text/html; charset=\"UTF-8\"\n\
         Content-Transfer-Encoding: quoted-printable\n\n<p>text</p>\n--000000000000a1b2c3d4e5f6--\n",
    );
    assert!(record(&structure).len() < 400, "{} bytes", record(&structure).len());
    assert_eq!(postcard::from_bytes::<Structure>(&record(&structure)).as_ref(), Ok(&structure));
}

/// Feeds pieces until `total` bytes have gone by, and checks the bounds of memory on the way.
fn feed_much(walker: &mut Walker, piece: &[u8], total: usize) {
    let block = piece.repeat((64 * 1024 / piece.len()).max(1));
    let mut fed = 0;
    while fed < total {
        walker.feed(&block);
        fed += block.len();
        assert!(walker.capacity() < 256 * 1024, "{} bytes held", walker.capacity());
    }
}

fn check_bounds(walker: Walker) -> Structure {
    let structure = walker.finish();
    assert!(structure.nodes.len() <= PARTS_MAX && structure.text.len() <= TEXT_MAX);
    assert!(record(&structure).len() <= RECORD_MAX);
    check_nesting(&structure);
    structure
}

#[test]
fn a_message_of_600_000_parts_is_taken_in_bounded_memory() {
    let mut walker = Walker::new();
    walker.feed(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n");
    feed_much(&mut walker, b"--b\r\nContent-Type: text/plain\r\n\r\n.\r\n", 22_000_000);
    let structure = check_bounds(walker);
    assert_eq!(structure.nodes.len(), PARTS_MAX);
    let last = structure.part(&[u32::try_from(PARTS_MAX).unwrap() - 1]).unwrap();
    assert_eq!(last.whole().offset + last.whole().length, structure.size());
    assert!(structure.size() > 22_000_000);
}

#[test]
fn a_header_of_eight_megabytes_is_taken_in_bounded_memory() {
    let fields = [
        &b"X-Field: value\r\n"[..],
        b"To: someone@example.test\r\n",
        b" folded on and on\r\n",
        b"no newline",
        b"Content-Type: text/plain; charset=utf-8\r\nSubject: again\r\nReferences: <a@b> <c@d>\r\n",
        b"junk\r\n",
        b"\xff\xfe: \x80\r\n",
    ];
    for field in fields {
        let mut walker = Walker::new();
        walker.feed(b"Subject: first\r\nTo: ann@example.test");
        feed_much(&mut walker, field, 8_000_000);
        walker.feed(b"X: y\r\n\r\nbody");
        let structure = check_bounds(walker);
        assert_eq!(structure.field(Field::Subject), Some("first"));
        assert_eq!(structure.message().unwrap().body().length, 4);
    }
}

#[test]
fn nesting_without_end_is_taken_in_bounded_memory() {
    let pad = "x".repeat(BOUNDARY_MAX - 6);
    let mut walker = Walker::new();
    let mut messages = Walker::new();
    for depth in 0..10_000 {
        walker.feed(
            format!("Content-Type: multipart/mixed; boundary={depth:06}{pad}\r\n\r\n--{depth:06}{pad}\r\n").as_bytes(),
        );
        messages.feed(b"Content-Type: message/rfc822\r\n\r\n");
        assert!(walker.capacity() + messages.capacity() < 256 * 1024);
    }
    for structure in [check_bounds(walker), check_bounds(messages)] {
        assert_eq!(structure.nodes.len(), DEPTH_MAX);
    }
}

#[test]
fn parts_with_long_fields_still_say_what_they_are() {
    let mut walker = Walker::new();
    walker.feed(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n");
    for number in 0..PARTS_MAX {
        let name = format!("{number:0100}");
        let part = format!(
            "--b\r\nContent-Type: image/jpeg; name={name}\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename={name}\r\n\r\n.\r\n"
        );
        walker.feed(part.as_bytes());
    }
    let structure = check_bounds(walker);
    let parts: Vec<_> = structure.message().unwrap().children().collect();
    assert!(parts.len() > 700, "{}", parts.len());
    assert!(parts.iter().all(|part| part.media() == ("image", "jpeg") && part.encoding() == TransferEncoding::Base64));
}

/// Every node lies within the body of the one above it, after its neighbours, and nothing is left
/// over at the top.
fn check_nesting(structure: &Structure) {
    fn check(part: Part<'_>) -> usize {
        let mut free = part.body().offset;
        let end = part.body().offset + part.body().length;
        let mut nodes = 1;
        for child in part.children().chain(part.message()) {
            assert!(child.whole().offset >= free);
            free = child.whole().offset + child.whole().length;
            assert!(free <= end, "{part:?} {child:?}");
            assert!(u64::from(child.lines()) <= child.body().length);
            nodes += check(child);
        }
        if let Some(message) = part.message() {
            assert_eq!(message.whole(), part.body());
        }
        nodes
    }
    assert_eq!(check(structure.message().unwrap()), structure.nodes.len());
}

/// Lines that make interesting mail.
fn odd_mail() -> impl Strategy<Value = Vec<u8>> {
    let lines = prop::sample::select(vec![
        "",
        "",
        "",
        "--a",
        "--a",
        "--a--",
        "--b",
        "--b",
        "--b--",
        "--ab",
        "--",
        "-",
        "a: b",
        "From: x <y@z>",
        "Subject: =?x?q?y?=",
        " folded",
        "\t",
        "Content-Type: multipart/mixed; boundary=a",
        "Content-Type: multipart/digest; boundary=b",
        "Content-Type: multipart/x; boundary=ab",
        "Content-Type: multipart/mixed",
        "Content-Type: message/rfc822",
        "Content-Type: text/html; charset=koi8-r",
        "Content-Type: ;",
        "Content-Transfer-Encoding: base64",
        "Content-Disposition: attachment; filename*=utf-8''%C3",
        "text",
        "From ",
        "é",
        ":",
    ]);
    let ends = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\n", "\r", "", " \r\n"]);
    let stray = prop_oneof![9 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 1..4)];
    let line = (lines, stray, ends).prop_map(|(line, stray, end)| [line.as_bytes(), &stray, end.as_bytes()].concat());
    prop::collection::vec(line, 0..40).prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn where_the_input_is_cut_makes_no_difference(message in odd_mail(), sizes in prop::collection::vec(1_usize..30, 1..20)) {
        let mut walker = Walker::new();
        let mut rest = message.as_slice();
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(*size.min(&rest.len()));
            walker.feed(piece);
            rest = after;
        }
        prop_assert_eq!(walker.finish(), walk_bytes(&message));
    }

    #[test]
    fn extents_nest_and_paths_lead_to_them(message in odd_mail(), path in prop::collection::vec(0_u32..4, 0..5)) {
        let structure = walk_bytes(&message);
        check_nesting(&structure);
        prop_assert_eq!(structure.size(), message.len() as u64);
        for wanted in [Section::Body, Section::Mime, Section::Header, Section::Text] {
            if let Some(extent) = structure.extent(&path, wanted) {
                cut(&message, extent);
            }
        }
        prop_assert_eq!(structure.extent(&path, Section::Body).is_some(), structure.encoding(&path).is_some());
        for part in structure.parts() {
            let newlines = cut(&message, part.body()).split(|&byte| byte == b'\n').count() - 1;
            prop_assert_eq!(part.lines() as usize, newlines);
            let _ = (part.media(), part.parameters(), part.disposition(), part.languages(), part.text());
        }
        prop_assert_eq!(postcard::from_bytes::<Structure>(&record(&structure)), Ok(structure));
    }

    #[test]
    fn any_bytes_are_walked_without_a_panic(message in prop::collection::vec(any::<u8>(), 0..400)) {
        let structure = walk_bytes(&message);
        check_nesting(&structure);
        prop_assert_eq!(structure.size(), message.len() as u64);
    }

    #[test]
    fn any_record_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), path in prop::collection::vec(0_u32..4, 0..4)) {
        if let Ok(structure) = postcard::from_bytes::<Structure>(&bytes) {
            let _ = structure.extent(&path, Section::Header);
            for part in structure.parts() {
                let _ = (part.media(), part.parameters(), part.children().count(), part.message().is_some());
            }
        }
    }
}
