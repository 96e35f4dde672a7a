//! ENVELOPE, BODY and BODYSTRUCTURE of ordinary and odd mail, to the byte.

use super::*;
use crate::mail::structure::Walker;

fn walk(message: &str) -> Structure {
    let mut walker = Walker::new();
    walker.feed(message.replace('\n', "\r\n").as_bytes());
    walker.finish()
}

fn spell_envelope(message: &str) -> String {
    let mut out = Vec::new();
    write_envelope(&mut out, &walk(message));
    String::from_utf8(out).unwrap()
}

fn spell_body(message: &str, extended: bool) -> String {
    let mut out = Vec::new();
    write_body(&mut out, &walk(message), extended);
    String::from_utf8(out).unwrap()
}

const MINUTES: &str = "Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\nFrom: Terry Gray <gray@cac.washington.edu>\n\
    Subject: IMAP4rev1 WG mtg summary and minutes\nTo: imap@cac.washington.edu\n\
    cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\nMessage-Id: <B27397-0100000@cac.washington.edu>\n\
    MIME-Version: 1.0\nContent-Type: TEXT/PLAIN; CHARSET=US-ASCII\n\n1\n2\n";

#[test]
fn the_envelope_of_rfc_9051_is_spelled_as_there() {
    assert_eq!(
        spell_envelope(MINUTES),
        "(\"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\" \"IMAP4rev1 WG mtg summary and minutes\" \
         ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) \
         ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) ((NIL NIL \"imap\" \"cac.washington.edu\")) \
         ((NIL NIL \"minutes\" \"CNRI.Reston.VA.US\")(\"John Klensin\" NIL \"KLENSIN\" \"MIT.EDU\")) NIL NIL \
         \"<B27397-0100000@cac.washington.edu>\")"
    );
    assert_eq!(spell_body(MINUTES, false), "(\"TEXT\" \"PLAIN\" (\"CHARSET\" \"US-ASCII\") NIL NIL \"7bit\" 6 2)");
}

#[test]
fn absent_is_nil_and_empty_is_empty() {
    assert_eq!(spell_envelope("X: y\n\n"), "(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)");
    assert_eq!(
        spell_envelope("Date:\nSubject:\nFrom:\nSender:\nReply-To:\nTo:\nCc:\nBcc:\nIn-Reply-To:\nMessage-ID:\n\n"),
        "(\"\" \"\" NIL NIL NIL NIL NIL NIL \"\" \"\")"
    );
}

#[test]
fn sender_and_reply_to_are_their_own_where_they_are_given() {
    let envelope = spell_envelope("From: a@x\nSender: b@x\nReply-To: =?utf-8?Q?=C3=BC?= <c@x>\nTo: g:;\nBcc: root\n\n");
    assert_eq!(
        envelope,
        "(NIL NIL ((NIL NIL \"a\" \"x\")) ((NIL NIL \"b\" \"x\")) ((\"=?utf-8?Q?=C3=BC?=\" NIL \"c\" \"x\")) \
         ((NIL NIL \"g\" NIL)(NIL NIL NIL NIL)) NIL ((NIL NIL \"root\" \"\")) NIL NIL)"
    );
}

#[test]
fn eight_bit_text_goes_out_as_a_literal() {
    assert!(spell_envelope("Subject: é\n\n").starts_with("(NIL {2}\r\né NIL"));
    assert!(spell_envelope("Subject: a \"b\" \\c\n\n").starts_with("(NIL \"a \\\"b\\\" \\\\c\" NIL"));
}

#[test]
fn the_structure_of_nested_mail_is_spelled_in_full() {
    let message = "Content-Type: multipart/mixed; boundary=\"o\"\nContent-Language: en, de\n\n--o\n\
        Content-Type: multipart/alternative; boundary=i\n\n--i\n\none\n\n--i\n\
        Content-Type: text/html; charset=utf-8; format=\"a \\\"b\\\"\"\nContent-ID: <1@x>\nContent-Description: the page\n\
        Content-Transfer-Encoding: Quoted-Printable\nContent-MD5: Q2hlY2s=\nContent-Location: http://x/\n\
        Content-Disposition: inline; filename*=utf-8''%C3%A4.html\n\n<p>\n--i--\n\
        --o\nContent-Type: message/rfc822\nContent-Disposition: attachment\n\nSubject: in\nFrom: a@x\n\ntext\n\
        --o\nContent-Type: image/png; name=\"x y.png\"\nContent-Transfer-Encoding: base64\n\naGk=\n--o--\n";
    assert_eq!(
        spell_body(message, true),
        "(((\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 5 1 NIL NIL NIL NIL)\
         (\"text\" \"html\" (\"charset\" \"utf-8\" \"format\" \"a \\\"b\\\"\") \"<1@x>\" \"the page\" \"Quoted-Printable\" 3 0 \
         \"Q2hlY2s=\" (\"inline\" (\"filename*\" \"utf-8''%C3%A4.html\")) NIL \"http://x/\") \
         \"alternative\" (\"boundary\" \"i\") NIL NIL NIL)\
         (\"message\" \"rfc822\" NIL NIL NIL \"7bit\" 30 (NIL \"in\" ((NIL NIL \"a\" \"x\")) ((NIL NIL \"a\" \"x\")) \
         ((NIL NIL \"a\" \"x\")) NIL NIL NIL NIL NIL) \
         (\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 4 0 NIL NIL NIL NIL) 3 \
         NIL (\"attachment\" NIL) NIL NIL)\
         (\"image\" \"png\" (\"name\" \"x y.png\") NIL NIL \"base64\" 4 NIL NIL NIL NIL) \
         \"mixed\" (\"boundary\" \"o\") NIL (\"en\" \"de\") NIL)"
    );
    let short = spell_body(message, false);
    assert!(short.ends_with("(\"image\" \"png\" (\"name\" \"x y.png\") NIL NIL \"base64\" 4) \"mixed\")"), "{short}");
    assert!(short.starts_with("(((\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 5 1)("), "{short}");
}

#[test]
fn a_multipart_without_parts_is_text() {
    assert_eq!(
        spell_body("Content-Type: multipart/mixed; boundary=b\n\n", false),
        "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0)"
    );
    let mut out = Vec::new();
    write_body(&mut out, &Structure::default(), true);
    assert_eq!(out, b"(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0)");
}
