//! DMARC aggregate reports (RFC 7489 section 7.2, RFC 9990): what others saw of mail in our domains' names.
//!
//! They come as XML, mostly packed, mostly within a message, from anybody: so what is unpacked has a bound, and
//! the summary of many of them has one too.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::net::IpAddr;

use mail_auth::report::{ActionDisposition, DmarcResult, Report};
use serde::Serialize;

/// Most bytes of a file; a report of thousands of addresses, packed, has a tenth of it.
pub const FILE_MAX: usize = 2 << 20;

/// Most bytes of XML that a file is unpacked to.
const XML_MAX: usize = 16 << 20;

/// Most addresses of a summary; those of more are counted together.
const SOURCES_MAX: usize = 10_000;

/// Longest name that is kept.
const NAME_MAX: usize = 253;

/// What reports say, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Summary {
    /// Reports.
    pub reports: u32,
    /// Who wrote them, and how many.
    pub reporters: BTreeMap<String, u32>,
    /// From when, in seconds since 1970.
    pub begin: u64,
    /// Until when.
    pub end: u64,
    /// Addresses that sent, by the domain in From.
    pub domains: BTreeMap<String, BTreeMap<String, Source>>,
    /// Addresses that are left away, because there are too many.
    pub left_out: u64,
}

/// What came from one address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Source {
    /// Messages.
    pub messages: u64,
    /// Those for which DKIM stood.
    pub dkim: u64,
    /// Those for which SPF stood.
    pub spf: u64,
    /// Those for which neither did: forged, or sent in a way that the domain's records know nothing of.
    pub failed: u64,
    /// Those that were put into Junk.
    pub junk: u64,
    /// Those that were refused.
    pub refused: u64,
}

impl Summary {
    /// Adds the report in a file: a message, or XML as it is, in gzip or in zip.
    ///
    /// # Errors
    /// Why there is none, in a few words.
    pub fn add(&mut self, file: &[u8]) -> Result<(), String> {
        if file.len() > FILE_MAX {
            return Err(format!("it has more than {FILE_MAX} bytes"));
        }
        let report = match file {
            [0x1f, 0x8b, ..] => parse(&capped(mail_auth::flate2::read::GzDecoder::new(file))?)?,
            [b'P', b'K', 3, 4, ..] => {
                let unreadable = |error| format!("it cannot be unpacked: {error}");
                let mut archive = mail_auth::zip::ZipArchive::new(Cursor::new(file)).map_err(unreadable)?;
                parse(&capped(archive.by_index(0).map_err(unreadable)?)?)?
            }
            _ if file.trim_ascii_start().starts_with(b"<") => parse(file)?,
            message => {
                Report::parse_rfc5322(message, XML_MAX).map_err(|error| format!("no report in it: {error:?}"))?
            }
        };
        self.count(&report);
        Ok(())
    }

    fn count(&mut self, report: &Report) {
        self.reports += 1;
        if self.reporters.len() < SOURCES_MAX {
            *self.reporters.entry(name(report.org_name())).or_default() += 1;
        }
        let begin = report.date_range_begin();
        self.begin = if self.begin == 0 { begin } else { self.begin.min(begin) };
        self.end = self.end.max(report.date_range_end());
        for record in report.records() {
            let known: usize = self.domains.values().map(BTreeMap::len).sum();
            let address = record.source_ip().map_or_else(|| "?".to_owned(), |ip: IpAddr| ip.to_string());
            let from = Some(record.header_from()).filter(|from| !from.is_empty()).unwrap_or(report.domain());
            let sources = self.domains.get_mut(&name(from));
            if known >= SOURCES_MAX && sources.is_none_or(|sources| !sources.contains_key(&address)) {
                self.left_out += u64::from(record.count());
                continue;
            }
            let source = self.domains.entry(name(from)).or_default().entry(address).or_default();
            let count = u64::from(record.count());
            let (dkim, spf) = (record.dmarc_dkim_result(), record.dmarc_spf_result());
            source.messages += count;
            source.dkim += if dkim == DmarcResult::Pass { count } else { 0 };
            source.spf += if spf == DmarcResult::Pass { count } else { 0 };
            source.failed += if dkim != DmarcResult::Pass && spf != DmarcResult::Pass { count } else { 0 };
            match record.action_disposition() {
                ActionDisposition::Quarantine => source.junk += count,
                ActionDisposition::Reject => source.refused += count,
                _ => {}
            }
        }
    }
}

fn parse(xml: &[u8]) -> Result<Report, String> {
    Report::parse_xml(xml).map_err(|error| format!("it is no report: {error}"))
}

/// Unpacks, but no more than a report has.
fn capped(packed: impl Read) -> Result<Vec<u8>, String> {
    let mut xml = Vec::new();
    let read = packed.take(XML_MAX as u64 + 1).read_to_end(&mut xml);
    read.map_err(|error| format!("it cannot be unpacked: {error}"))?;
    if xml.len() > XML_MAX { Err(format!("it unpacks to more than {XML_MAX} bytes")) } else { Ok(xml) }
}

/// A name without what a terminal would obey.
fn name(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const XML: &str = "<?xml version=\"1.0\"?><feedback><report_metadata><org_name>big.example</org_name>\
        <email>dmarc@big.example</email><report_id>1</report_id><date_range><begin>1000</begin><end>2000</end>\
        </date_range></report_metadata><policy_published><domain>our.test</domain><p>none</p></policy_published>\
        <record><row><source_ip>192.0.2.1</source_ip><count>7</count><policy_evaluated><disposition>none</disposition>\
        <dkim>pass</dkim><spf>fail</spf></policy_evaluated></row><identifiers><header_from>our.test</header_from>\
        </identifiers><auth_results></auth_results></record>\
        <record><row><source_ip>203.0.113.5</source_ip><count>3</count><policy_evaluated>\
        <disposition>reject</disposition><dkim>fail</dkim><spf>fail</spf></policy_evaluated></row><identifiers>\
        <header_from>our.test</header_from></identifiers><auth_results></auth_results></record></feedback>";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packer = mail_auth::flate2::write::GzEncoder::new(Vec::new(), mail_auth::flate2::Compression::fast());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn reports_add_up_however_they_are_packed() {
        let mut summary = Summary::default();
        summary.add(XML.as_bytes()).unwrap();
        summary.add(&gzip(XML.as_bytes())).unwrap();
        let packed = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, gzip(XML.as_bytes()));
        let message = format!(
            "From: dmarc@big.example\r\nSubject: Report\r\nMIME-Version: 1.0\r\nContent-Type: application/gzip; \
             name=\"r.xml.gz\"\r\nContent-Disposition: attachment; filename=\"r.xml.gz\"\r\nContent-Transfer-Encoding: \
             base64\r\n\r\n{packed}\r\n"
        );
        summary.add(message.as_bytes()).unwrap();
        assert_eq!((summary.reports, summary.begin, summary.end), (3, 1000, 2000));
        assert_eq!(summary.reporters["big.example"], 3);
        let ours = &summary.domains["our.test"];
        assert_eq!(ours["192.0.2.1"], Source { messages: 21, dkim: 21, ..Source::default() });
        assert_eq!(ours["203.0.113.5"], Source { messages: 9, failed: 9, refused: 9, ..Source::default() });
    }

    #[test]
    fn a_bomb_and_what_is_no_report_are_errors() {
        let mut summary = Summary::default();
        let bomb = gzip(&vec![b' '; XML_MAX + 10]);
        assert!(bomb.len() < FILE_MAX && summary.add(&bomb).unwrap_err().contains("more than"));
        for none in [&b""[..], b"<feedback>", b"PK\x03\x04xx", b"\x1f\x8b\x00", b"Subject: x\r\n\r\nhello"] {
            assert!(summary.add(none).is_err(), "{none:?}");
        }
        assert!(summary.add(&vec![0; FILE_MAX + 1]).is_err());
        assert_eq!(summary, Summary::default());
    }
}
