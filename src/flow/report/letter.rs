//! The message that carries a report: a few words, and the report in gzip (RFC 8460 section 5, RFC 7489 section
//! 7.2.1, RFC 1952).

use std::fmt::Write as _;
use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::{Kind, Owed};
use crate::mail::address::Address;
use crate::mail::date::ZonedTime;

/// Characters of a line of base64 (RFC 2045 section 6.8).
const WIDTH: usize = 76;

/// A report on its way to one address.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// Which.
    pub owed: &'a Owed,
    /// Our own name.
    pub host: &'a str,
    /// Whom it is from.
    pub from: &'a Address,
    /// Whom it is for.
    pub to: &'a Address,
    /// Our name for the message: letters and digits, never used before.
    pub id: &'a str,
    /// Now.
    pub at: ZonedTime,
}

/// The name of a report, which is the same however often it is sent.
pub fn report_id(owed: &Owed, host: &str) -> String {
    let word = match owed.kind {
        Kind::Dmarc => "dmarc",
        Kind::Tls => "tlsrpt",
    };
    format!("{word}.{}.{}.{}@{host}", owed.period.begin.0, owed.period.end.0, owed.domain)
}

impl Letter<'_> {
    /// Spells the message, lines ending in CRLF; `report` is JSON or XML. A Return-Path field stands at its beginning,
    /// as in all mail that is kept.
    ///
    /// # Errors
    /// The report cannot be packed.
    pub fn spell(&self, report: &str) -> std::io::Result<String> {
        let Self { owed: Owed { kind, domain, period, .. }, host, from, to, id: unique, at } = *self;
        let mut packer = GzEncoder::new(Vec::new(), Compression::default());
        packer.write_all(report.as_bytes())?;
        let encoded = STANDARD.encode(packer.finish()?);
        let (begin, end, id) = (period.begin.0, period.end.0, report_id(self.owed, host));
        // Base64 has no underscore, and neither have the words below.
        let boundary = format!("=_report_{begin}");
        let (container, extra, media, ending, words) = match kind {
            Kind::Tls => (
                "multipart/report; report-type=\"tlsrpt\"",
                format!("TLS-Report-Domain: {domain}\r\nTLS-Report-Submitter: {host}\r\n"),
                "application/tlsrpt+gzip",
                "json.gz",
                format!("This is a report about TLS with the mail servers of {domain},"),
            ),
            Kind::Dmarc => (
                "multipart/mixed",
                String::new(),
                "application/gzip",
                "xml.gz",
                format!("This is a report (DMARC) about mail that came in the name of {domain},"),
            ),
        };
        let name = format!("{host}!{domain}!{begin}!{end}.{ending}");
        let date = at.to_rfc5322();
        let mut text = format!(
            "Return-Path: <>\r\nDate: {date}\r\nFrom: <{from}>\r\nTo: <{to}>\r\n\
             Subject: Report Domain: {domain}\r\n Submitter: {host}\r\n Report-ID: <{id}>\r\n\
             Message-ID: <{unique}@{host}>\r\n{extra}Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
             Content-Type: {container};\r\n boundary=\"{boundary}\"\r\n\r\n\
             --{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\
             {words}\r\nas its DNS asks for it.\r\n\
             --{boundary}\r\nContent-Type: {media};\r\n name=\"{name}\"\r\n\
             Content-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment;\r\n filename=\"{name}\"\r\n\r\n"
        );
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(WIDTH));
            text.push_str(line);
            text.push_str("\r\n");
            rest = after;
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "--{boundary}--\r\n");
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::sender::Summary;
    use crate::mail::date::{Period, Timestamp};
    use std::io::Read as _;

    fn letter(kind: Kind, report: &str) -> String {
        let period = Period::day_of(Timestamp(86_400 * 20_000));
        let owed = Owed { kind, domain: "a.test".to_owned(), period, count: 1 };
        let (from, to) = (Address::parse("reports@box.test").unwrap(), Address::parse("r@b.test").unwrap());
        let at = ZonedTime::utc(Timestamp(86_400 * 20_001 + 5));
        Letter { owed: &owed, host: "box.test", from: &from, to: &to, id: "1f", at }.spell(report).unwrap()
    }

    #[test]
    fn a_report_about_tls_is_packed_and_named_as_rfc_8460_has_it() {
        let text = letter(Kind::Tls, &"{\"policies\": []}".repeat(100));
        let folded = text.replace("\r\n ", " ");
        for line in [
            "Subject: Report Domain: a.test Submitter: box.test Report-ID: <tlsrpt.1728000000.1728086399.a.test@box.test>",
            "TLS-Report-Domain: a.test",
            "TLS-Report-Submitter: box.test",
            "Content-Type: multipart/report; report-type=\"tlsrpt\"; boundary=\"=_report_1728000000\"",
            "Content-Type: application/tlsrpt+gzip; name=\"box.test!a.test!1728000000!1728086399.json.gz\"",
            "Content-Disposition: attachment; filename=\"box.test!a.test!1728000000!1728086399.json.gz\"",
        ] {
            assert!(folded.contains(&format!("\r\n{line}\r\n")), "{line} is not in {text}");
        }
        let body = text.rsplit("\r\n\r\n").next().unwrap().split("\r\n--").next().unwrap().replace("\r\n", "");
        let decoded = STANDARD.decode(body).unwrap();
        let mut report = String::new();
        flate2::read::GzDecoder::new(&decoded[..]).read_to_string(&mut report).unwrap();
        assert_eq!(report, "{\"policies\": []}".repeat(100));
        assert!(text.is_ascii() && text.split("\r\n").all(|line| line.len() <= 100 && !line.contains('\n')));
    }

    #[test]
    fn a_report_about_dmarc_is_what_our_own_reader_takes() {
        let xml = "<?xml version=\"1.0\"?><feedback><report_metadata><org_name>box.test</org_name><date_range><begin>5\
            </begin><end>6</end></date_range></report_metadata><policy_published><domain>a.test</domain><p>none</p>\
            </policy_published></feedback>";
        let text = letter(Kind::Dmarc, xml);
        assert!(text.contains("Content-Type: application/gzip;\r\n"), "{text}");
        assert!(text.contains("filename=\"box.test!a.test!1728000000!1728086399.xml.gz\""), "{text}");
        let mut summary = Summary::default();
        summary.add(text.as_bytes()).unwrap();
        assert_eq!((summary.reports, summary.begin, summary.end), (1, 5, 6));
    }
}
