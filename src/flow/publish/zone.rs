//! Records as a name server takes them (RFC 1035 section 5.1), with a comment on each.

use std::fmt::Write as _;

use super::{Data, Need, Publication, Record};

/// How long others may remember a record, in seconds.
pub const TTL_SECS: u32 = 3600;

/// Longest string in a TXT record in bytes (RFC 1035 section 3.3).
const STRING_MAX: usize = 255;

/// Width that comments are wrapped at.
const WIDTH: usize = 100;

/// Spells everything in zone-file form.
pub fn zone(publication: &Publication) -> String {
    let mut out = String::new();
    comment(
        &mut out,
        &format!("Records that {} has to publish, for its zone's file or your provider's form.", publication.domain),
    );
    for note in &publication.notes {
        comment(&mut out, note);
    }
    let mut why = None;
    for record in &publication.records {
        if why != Some(&record.why) {
            out.push('\n');
            comment(&mut out, &record.why);
            why = Some(&record.why);
        }
        let off = if record.need == Need::Later { "; " } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{off}{}", line(record));
    }
    out.push('\n');
    comment(&mut out, &format!("The policy for https://mta-sts.{}/.well-known/mta-sts.txt:", publication.domain));
    for line in publication.mta_sts_policy.lines() {
        let _ = writeln!(out, ";   {line}");
    }
    out
}

/// One record on one line.
fn line(record: &Record) -> String {
    let Record { name, data, .. } = record;
    let value = match data {
        Data::Mx(preference, host) => format!("{preference} {host}."),
        Data::Address(address) => address.to_string(),
        Data::Txt(text) => strings(text),
        Data::Tlsa(usage, selector, matching, data) => format!("{usage} {selector} {matching} {data}"),
        Data::Srv(priority, weight, port, host) => format!("{priority} {weight} {port} {host}."),
        Data::Cname(other) | Data::Ptr(other) => format!("{other}."),
    };
    format!("{name}. {TTL_SECS} IN {} {value}", data.kind())
}

/// A text as the strings of a TXT record.
fn strings(text: &str) -> String {
    let mut out = String::new();
    for piece in text.as_bytes().chunks(STRING_MAX) {
        out.push_str(if out.is_empty() { "\"" } else { " \"" });
        for &byte in piece {
            match byte {
                b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
                b' '..=b'~' => out.push(char::from(byte)),
                // Writing to a String cannot fail.
                _ => drop(write!(out, "\\{byte:03}")),
            }
        }
        out.push('"');
    }
    if out.is_empty() { "\"\"".into() } else { out }
}

fn comment(out: &mut String, text: &str) {
    let mut width = 0;
    for word in text.split(' ') {
        if width == 0 || width + word.len() + 1 > WIDTH {
            out.push_str(if width == 0 { ";" } else { "\n;" });
            width = 1;
        }
        out.push(' ');
        out.push_str(word);
        width += word.len() + 1;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::super::dkim::Turn;
    use super::super::publication;
    use super::super::tests::{host, key};
    use super::*;

    #[test]
    fn a_long_text_is_cut_into_strings_and_nothing_breaks_out_of_them() {
        let spelled = strings(&"x".repeat(300));
        assert_eq!(spelled, format!("\"{}\" \"{}\"", "x".repeat(255), "x".repeat(45)));
        assert_eq!(strings("a\"b\\c\né"), "\"a\\\"b\\\\c\\010\\195\\169\"");
        assert_eq!(strings(""), "\"\"");
    }

    #[test]
    fn every_line_is_a_comment_or_a_whole_record() {
        let text = zone(&publication("x.test", &host(), &[key("pb1-rsa", Turn::Signs)]).unwrap());
        for line in text.lines().filter(|line| !line.is_empty()) {
            assert!(line.starts_with("; ") || line.contains(". 3600 IN "), "{line}");
        }
        for line in [
            "x.test. 3600 IN MX 10 mail.x.test.\n",
            "mail.x.test. 3600 IN A 198.51.100.7\nmail.x.test. 3600 IN AAAA 2001:db8::7\n",
            "x.test. 3600 IN TXT \"v=spf1 mx ~all\"\n",
            "pb1-rsa._domainkey.x.test. 3600 IN TXT \"v=DKIM1; k=rsa; p=AAA",
            "_submissions._tcp.x.test. 3600 IN SRV 0 1 465 mail.x.test.\n",
            "_25._tcp.mail.x.test. 3600 IN TLSA 3 1 1 abab",
            "; autoconfig.x.test. 3600 IN CNAME mail.x.test.\n",
            ";   mode: testing\n",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
