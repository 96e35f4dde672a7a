//! What became of TLS with other domains, day by day, and the report that a domain may ask for
//! (TLS-RPT, RFC 8460).
//!
//! Sessions are counted, not listed, and everything that grows has a bound. A day is over when the
//! first session of the next is counted: nothing wakes for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::sts::StsPolicy;
use crate::mail::address::Address;
use crate::mail::date::{Timestamp, ZonedTime, civil_from_days};

/// Domains that are counted on one day.
pub const DOMAINS_MAX: usize = 256;

/// Kinds of failure, with the servers they happened at, that are counted for one policy.
const FAILURES_MAX: usize = 32;

/// Addresses of one domain that reports go to.
const ADDRESSES_MAX: usize = 3;

/// Lines of a policy that a report repeats.
const LINES_MAX: usize = 64;

const DAY_SECS: i64 = 86_400;

/// Reports about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TlsReportConfig {
    /// Domains that ask for it are told each day how TLS went with them. Default: false.
    pub send: bool,
    /// The address that reports come from, and that can be asked about them. It is needed to send any.
    /// Default: none.
    pub from: Option<String>,
}

/// Which kind of policy a session went by (RFC 8460 section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyKind {
    /// DANE
    Tlsa,
    /// MTA-STS
    Sts,
    /// The domain has none.
    NoPolicyFound,
}

/// What went wrong (section 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are the RFC's")]
pub enum Failure {
    StarttlsNotSupported,
    CertificateHostMismatch,
    CertificateExpired,
    CertificateNotTrusted,
    ValidationFailure,
    TlsaInvalid,
    DnssecInvalid,
    DaneRequired,
    StsPolicyFetchError,
    StsPolicyInvalid,
    StsWebpkiInvalid,
}

/// The policy that a session went by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Applied {
    /// Which kind it is of.
    pub kind: PolicyKind,
    /// Its lines, or the records.
    pub lines: Vec<String>,
    /// The servers it names.
    pub mx: Vec<String>,
}

impl Applied {
    /// No policy.
    pub fn none() -> Self {
        Self { kind: PolicyKind::NoPolicyFound, lines: Vec::new(), mx: Vec::new() }
    }

    /// A domain's MTA-STS policy.
    pub fn sts(policy: &StsPolicy) -> Self {
        let lines = policy.to_string().lines().map(ToOwned::to_owned).collect();
        Self { kind: PolicyKind::Sts, lines, mx: policy.mx.clone() }
    }

    /// A server's TLSA records, each as text.
    pub fn tlsa(lines: Vec<String>, host: &str) -> Self {
        Self { kind: PolicyKind::Tlsa, lines, mx: vec![host.to_owned()] }
    }
}

/// The sessions of one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sessions {
    policy: Applied,
    good: u64,
    /// What failed at which server, and how often.
    bad: Vec<(Failure, String, u64)>,
}

/// The sessions of one day (UTC).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Tally {
    /// Days since 1970-01-01.
    day: i64,
    domains: BTreeMap<String, Vec<Sessions>>,
}

impl Tally {
    /// Begins the day that `now` is in, if it has not begun. Gives the day before back, when there was
    /// anything to count on it.
    pub fn turn(&mut self, now: Timestamp) -> Option<Self> {
        let day = now.0.div_euclid(DAY_SECS);
        if day == self.day {
            return None;
        }
        let before = std::mem::replace(self, Self { day, domains: BTreeMap::new() });
        (!before.domains.is_empty() && before.day < day).then_some(before)
    }

    /// Counts a session with a domain's server.
    pub fn count(&mut self, domain: &str, host: &str, policy: &Applied, failure: Option<Failure>) {
        if self.domains.len() >= DOMAINS_MAX && !self.domains.contains_key(domain) {
            return;
        }
        let all = self.domains.entry(domain.to_owned()).or_default();
        // A policy that has changed meanwhile is shown as it was first on that day.
        if !all.iter().any(|sessions| sessions.policy.kind == policy.kind) {
            let mut policy = policy.clone();
            policy.lines.truncate(LINES_MAX);
            policy.mx.truncate(LINES_MAX);
            all.push(Sessions { policy, good: 0, bad: Vec::new() });
        }
        let Some(sessions) = all.iter_mut().find(|sessions| sessions.policy.kind == policy.kind) else { return };
        let Some(failure) = failure else {
            sessions.good = sessions.good.saturating_add(1);
            return;
        };
        let known = sessions.bad.iter().position(|(kind, at, _)| *kind == failure && at == host);
        // Where there is no room for one more kind it is counted with the last.
        let last = sessions.bad.len().checked_sub(1).filter(|_| sessions.bad.len() >= FAILURES_MAX);
        match known.or(last).and_then(|place| sessions.bad.get_mut(place)) {
            Some((_, _, count)) => *count = count.saturating_add(1),
            None => sessions.bad.push((failure, host.to_owned(), 1)),
        }
    }

    /// The domains that there is something to tell.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains.keys().map(String::as_str)
    }

    /// When the day began and ended, as RFC 3339 writes it.
    fn range(&self) -> (String, String) {
        let at = |seconds| rfc3339(Timestamp(self.day.saturating_mul(DAY_SECS).saturating_add(seconds)));
        (at(0), at(DAY_SECS - 1))
    }

    /// The report for a domain (section 4.4), as JSON.
    pub fn report(&self, domain: &str, ours: &str, contact: &str) -> Option<String> {
        let all = self.domains.get(domain)?;
        let (start, end) = self.range();
        let policies: Vec<_> = all
            .iter()
            .map(|sessions| {
                let failed: u64 = sessions.bad.iter().map(|(_, _, count)| *count).sum();
                let details: Vec<_> = sessions
                    .bad
                    .iter()
                    .map(|(failure, host, count)| {
                        json!({
                            "result-type": failure,
                            "receiving-mx-hostname": host,
                            "failed-session-count": count,
                        })
                    })
                    .collect();
                json!({
                    "policy": {
                        "policy-type": sessions.policy.kind,
                        "policy-string": sessions.policy.lines,
                        "policy-domain": domain,
                        "mx-host": sessions.policy.mx,
                    },
                    "summary": {
                        "total-successful-session-count": sessions.good,
                        "total-failure-session-count": failed,
                    },
                    "failure-details": details,
                })
            })
            .collect();
        let report = json!({
            "organization-name": ours,
            "date-range": { "start-datetime": start, "end-datetime": end },
            "contact-info": contact,
            "report-id": self.id(domain, ours),
            "policies": policies,
        });
        Some(report.to_string())
    }

    fn id(&self, domain: &str, ours: &str) -> String {
        let (start, _) = self.range();
        format!("{start}_{domain}@{ours}")
    }

    /// The message that carries a report (section 5.3).
    pub fn letter(&self, domain: &str, ours: &str, from: &Address, to: &[Address], now: ZonedTime) -> Option<String> {
        let contact = from.to_string();
        let report = self.report(domain, ours, &contact)?;
        let (id, day) = (self.id(domain, ours), self.day);
        let (begin, end) = (day.saturating_mul(DAY_SECS), day.saturating_mul(DAY_SECS).saturating_add(DAY_SECS - 1));
        let boundary = format!("=_tlsrpt_{begin}");
        let to: Vec<String> = to.iter().map(ToString::to_string).collect();
        let date = now.to_rfc5322();
        let mut text = format!(
            "From: <{contact}>\r\nTo: {}\r\nDate: {date}\r\nMessage-ID: <tlsrpt.{begin}.{domain}@{ours}>\r\n\
             Subject: Report Domain: {domain} Submitter: {ours}\r\n Report-ID: <{id}>\r\n\
             TLS-Report-Domain: {domain}\r\nTLS-Report-Submitter: {ours}\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n boundary=\"{boundary}\"\r\n\
             Auto-Submitted: auto-generated\r\n\r\n\
             --{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\
             This is a report about TLS with the mail servers of {domain}, as its DNS asks for it.\r\n\
             --{boundary}\r\nContent-Type: application/tlsrpt+json\r\n\
             Content-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment;\r\n filename=\"{ours}!{domain}!{begin}!{end}.json\"\r\n\r\n",
            to.join(",\r\n "),
        );
        let encoded = STANDARD.encode(report);
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(76));
            text.push_str(line);
            text.push_str("\r\n");
            rest = after;
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "--{boundary}--\r\n");
        Some(text)
    }
}

/// Where a domain wants reports, as the TXT records of `_smtp._tls.DOMAIN` say (section 3): mail
/// addresses. Reports over HTTPS are not sent.
pub fn addresses(records: &[String]) -> Vec<Address> {
    let mut ours =
        records.iter().filter(|record| record.split(';').next().is_some_and(|word| word.trim() == "v=TLSRPTv1"));
    let (Some(record), None) = (ours.next(), ours.next()) else { return Vec::new() };
    let wanted = record.split(';').filter_map(|field| field.trim().strip_prefix("rua="));
    let uris = wanted.flat_map(|list| list.split(','));
    let mail = uris.filter_map(|uri| uri.trim().strip_prefix("mailto:"));
    mail.filter_map(|address| Address::parse(address).ok()).take(ADDRESSES_MAX).collect()
}

/// An instant in UTC, such as `2026-11-23T00:00:00Z`.
fn rfc3339(at: Timestamp) -> String {
    let (days, seconds) = (at.0.div_euclid(DAY_SECS), at.0.rem_euclid(DAY_SECS));
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp(1_795_435_200 + 43_200);

    fn tally() -> Tally {
        let mut tally = Tally::default();
        assert_eq!(tally.turn(NOON), None);
        let sts = Applied::sts(&StsPolicy::parse("version: STSv1\nmode: testing\nmx: mx.a.test\nmax_age: 9").unwrap());
        tally.count("a.test", "mx.a.test", &sts, None);
        tally.count("a.test", "mx.a.test", &sts, Some(Failure::CertificateExpired));
        tally.count("a.test", "mx.a.test", &sts, Some(Failure::CertificateExpired));
        tally.count("a.test", "mx2.a.test", &sts, Some(Failure::StarttlsNotSupported));
        tally
    }

    #[test]
    fn a_report_has_the_form_of_rfc_8460() {
        let report = tally().report("a.test", "box.test", "tls@box.test").unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let expected = json!({
            "organization-name": "box.test",
            "date-range": { "start-datetime": "2026-11-23T12:00:00Z", "end-datetime": "2026-11-24T11:59:59Z" },
            "contact-info": "tls@box.test",
            "report-id": "x",
            "policies": [{
                "policy": {
                    "policy-type": "sts",
                    "policy-string": ["version: STSv1", "mode: testing", "mx: mx.a.test", "max_age: 9"],
                    "policy-domain": "a.test",
                    "mx-host": ["mx.a.test"],
                },
                "summary": { "total-successful-session-count": 1, "total-failure-session-count": 3 },
                "failure-details": [
                    { "result-type": "certificate-expired", "receiving-mx-hostname": "mx.a.test", "failed-session-count": 2 },
                    { "result-type": "starttls-not-supported", "receiving-mx-hostname": "mx2.a.test", "failed-session-count": 1 },
                ],
            }],
        });
        assert_eq!(report.get("policies"), expected.get("policies"));
        let range = report.get("date-range").unwrap();
        assert!(range["start-datetime"].as_str().unwrap().ends_with("T00:00:00Z"), "{range}");
        assert!(range["end-datetime"].as_str().unwrap().ends_with("T23:59:59Z"), "{range}");
        assert_eq!(tally().report("b.test", "box.test", "x"), None);
    }

    #[test]
    fn a_day_is_over_when_the_next_begins() {
        let mut tally = tally();
        assert_eq!(tally.turn(Timestamp(NOON.0 + 60)), None);
        let before = tally.turn(Timestamp(NOON.0 + DAY_SECS)).unwrap();
        assert_eq!(before.domains().collect::<Vec<_>>(), ["a.test"]);
        assert_eq!(tally.turn(Timestamp(NOON.0 + 2 * DAY_SECS)), None, "nothing was counted");
        // A clock that is set back does not tell of days to come.
        tally.count("a.test", "mx", &Applied::none(), None);
        assert_eq!(tally.turn(NOON), None);
    }

    #[test]
    fn what_is_counted_has_a_bound() {
        let mut tally = Tally::default();
        for number in 0..1000 {
            tally.count(&format!("d{number}"), "mx", &Applied::none(), None);
            tally.count("d0", &format!("mx{number}"), &Applied::none(), Some(Failure::CertificateExpired));
        }
        assert_eq!(tally.domains().count(), DOMAINS_MAX);
        let sessions = &tally.domains["d0"][0];
        assert_eq!(sessions.bad.len(), FAILURES_MAX);
        assert_eq!(sessions.bad.iter().map(|(_, _, count)| count).sum::<u64>(), 1000);
    }

    #[test]
    fn a_letter_carries_the_report() {
        let address = |text: &str| Address::parse(text).unwrap();
        let to = [address("r@a.test"), address("s@b.test")];
        let letter = tally().letter("a.test", "box.test", &address("tls@box.test"), &to, ZonedTime::utc(NOON)).unwrap();
        assert!(letter.lines().all(|line| line.len() < 200), "{letter}");
        assert!(
            letter.contains("TLS-Report-Domain: a.test\r\n") && letter.contains("\r\nTo: r@a.test,\r\n s@b.test\r\n")
        );
        let body = letter.split("\r\n\r\n").nth(3).unwrap().split("\r\n--").next().unwrap().replace("\r\n", "");
        let report: serde_json::Value = serde_json::from_slice(&STANDARD.decode(body).unwrap()).unwrap();
        assert_eq!(report["policies"][0]["policy"]["policy-domain"], "a.test");
    }

    #[test]
    fn reports_go_where_the_dns_says() {
        let found = |record: &str| addresses(&[record.to_owned()]).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found("v=TLSRPTv1; rua=mailto:a@b.test,https://x.test/"), ["a@b.test"]);
        assert_eq!(found("v=TLSRPTv1;rua=mailto:a@b.test, mailto:c@d.test"), ["a@b.test", "c@d.test"]);
        assert_eq!(found("v=TLSRPTv2; rua=mailto:a@b.test"), [""; 0]);
        let two = ["v=TLSRPTv1; rua=mailto:a@b.test".to_owned(), "v=TLSRPTv1; rua=mailto:c@d.test".to_owned()];
        assert!(addresses(&two).is_empty());
    }

    #[test]
    fn instants_are_written_as_rfc_3339_does() {
        assert_eq!(rfc3339(Timestamp(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(Timestamp(951_782_399)), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(Timestamp(951_868_799)), "2000-02-29T23:59:59Z");
        assert_eq!(rfc3339(Timestamp(1_735_689_599)), "2024-12-31T23:59:59Z");
    }
}
