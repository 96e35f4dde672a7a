//! Spells ENVELOPE, BODY and BODYSTRUCTURE (RFC 9051 section 7.5.2, RFC 3501 section 7.4.2).
//!
//! The part walker's record says what is there; here it is put in the order and the words of the
//! RFC. Whatever the mail was, what goes out keeps to the grammar: no multipart is without parts, no
//! `message/rfc822` without its envelope, no address without a host that is not NIL, because NIL
//! would make it a group.

use crate::mail::structure::{Field, MailAddress, Parameter, Part, Structure, addresses};

use super::response::write_string;

/// Writes the parenthesised envelope.
pub fn write_envelope(out: &mut Vec<u8>, message: &Structure) {
    envelope(out, message.message());
}

/// Writes BODYSTRUCTURE, or without its extension data BODY.
pub fn write_body(out: &mut Vec<u8>, message: &Structure, extended: bool) {
    match message.message() {
        Some(root) => body(out, root, extended),
        // A record that no walker made: still a body to any client.
        None => out.extend_from_slice(b"(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0)"),
    }
}

/// The envelope of a message, all NIL for none.
fn envelope(out: &mut Vec<u8>, message: Option<Part<'_>>) {
    let field = |field| message.and_then(|message| message.field(field));
    out.push(b'(');
    nstring(out, field(Field::Date));
    out.push(b' ');
    nstring(out, field(Field::Subject));
    let from = list(field(Field::From));
    write_addresses(out, &from);
    for defaulted in [Field::Sender, Field::ReplyTo] {
        // Absent or empty, they are what From is.
        let own = list(field(defaulted));
        write_addresses(out, if own.is_empty() { &from } else { &own });
    }
    for recipients in [Field::To, Field::Cc, Field::Bcc] {
        write_addresses(out, &list(field(recipients)));
    }
    out.push(b' ');
    nstring(out, field(Field::InReplyTo));
    out.push(b' ');
    nstring(out, field(Field::MessageId));
    out.push(b')');
}

fn list(text: Option<&str>) -> Vec<MailAddress> {
    text.map(addresses).unwrap_or_default()
}

/// Writes a space and a list of addresses.
fn write_addresses(out: &mut Vec<u8>, list: &[MailAddress]) {
    if list.is_empty() {
        out.extend_from_slice(b" NIL");
        return;
    }
    out.extend_from_slice(b" (");
    for address in list {
        match address {
            MailAddress::Mailbox { name, route, local, host } => {
                out.push(b'(');
                nstring(out, name.as_deref());
                out.push(b' ');
                nstring(out, route.as_deref());
                out.push(b' ');
                string(out, local);
                out.push(b' ');
                string(out, host);
                out.push(b')');
            }
            MailAddress::Group(name) => {
                out.extend_from_slice(b"(NIL NIL ");
                string(out, name);
                out.extend_from_slice(b" NIL)");
            }
            MailAddress::GroupEnd => out.extend_from_slice(b"(NIL NIL NIL NIL)"),
        }
    }
    out.push(b')');
}

/// Writes the structure of a part. The walker bounds how deep this goes.
fn body(out: &mut Vec<u8>, part: Part<'_>, extended: bool) {
    let (kind, subtype) = part.media();
    out.push(b'(');
    if part.is_multipart() {
        for child in part.children() {
            body(out, child, extended);
        }
        out.push(b' ');
        string(out, subtype);
        if extended {
            out.push(b' ');
            parameters(out, &part.parameters());
            extension(out, part);
        }
        out.push(b')');
        return;
    }
    string(out, kind);
    out.push(b' ');
    string(out, subtype);
    out.push(b' ');
    parameters(out, &part.parameters());
    for field in [Field::ContentId, Field::ContentDescription] {
        out.push(b' ');
        filled(out, part.field(field));
    }
    out.push(b' ');
    string(out, part.encoding_name());
    number(out, part.body().length);
    if let Some(message) = part.message() {
        out.push(b' ');
        envelope(out, Some(message));
        out.push(b' ');
        body(out, message, extended);
        number(out, u64::from(part.lines()));
    } else if part.is_text() {
        number(out, u64::from(part.lines()));
    }
    if extended {
        out.push(b' ');
        filled(out, part.field(Field::ContentMd5));
        extension(out, part);
    }
    out.push(b')');
}

/// Writes what ends the extension data of every part: disposition, language, location.
fn extension(out: &mut Vec<u8>, part: Part<'_>) {
    if let Some(disposition) = part.disposition() {
        out.extend_from_slice(b" (");
        string(out, &disposition.kind);
        out.push(b' ');
        parameters(out, &disposition.parameters);
        out.push(b')');
    } else {
        out.extend_from_slice(b" NIL");
    }
    let languages = part.languages();
    if languages.is_empty() {
        out.extend_from_slice(b" NIL");
    } else {
        for (index, tag) in languages.into_iter().enumerate() {
            out.extend_from_slice(if index == 0 { b" (" } else { b" " });
            string(out, tag);
        }
        out.push(b')');
    }
    out.push(b' ');
    filled(out, part.field(Field::ContentLocation));
}

fn parameters(out: &mut Vec<u8>, list: &[Parameter]) {
    if list.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    for (index, parameter) in list.iter().enumerate() {
        out.push(if index == 0 { b'(' } else { b' ' });
        string(out, &parameter.name);
        out.push(b' ');
        string(out, &parameter.value);
    }
    out.push(b')');
}

/// Writes a space and a number.
fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(format!(" {value}").as_bytes());
}

/// Writes a string, or NIL where there is none. A field that is there and empty is the empty string
/// (RFC 9051 section 7.5.2).
fn nstring(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => string(out, text),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// Writes a string, or NIL where there is none or it says nothing.
fn filled(out: &mut Vec<u8>, text: Option<&str>) {
    nstring(out, text.filter(|text| !text.is_empty()));
}

fn string(out: &mut Vec<u8>, text: &str) {
    write_string(out, text.as_bytes());
}

#[cfg(test)]
mod tests;
