//! What became of TLS with other domains, and the report that a domain may ask for (TLS-RPT, RFC 8460).
//!
//! Sessions are counted, not listed, and everything that grows has a bound. Which day it is, and the message that
//! carries a report, are `flow::report`'s.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::sts::StsPolicy;
use crate::mail::address::Address;
use crate::mail::date::{Period, Timestamp, civil_from_days};

/// Domains that are counted in one period.
pub const DOMAINS_MAX: usize = 256;

/// Most bytes of one period, names and policies.
pub const TALLY_BYTES_MAX: usize = 256 << 10;

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

/// The sessions of one period.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Tally {
    domains: BTreeMap<String, Vec<Sessions>>,
    /// What they take up.
    bytes: usize,
}

impl Sessions {
    /// Bytes that they take up.
    fn bytes(&self, domain: &str) -> usize {
        let words = self.policy.lines.iter().chain(&self.policy.mx).map(|word| word.len() + size_of::<String>());
        let bad = self.bad.iter().map(|(_, host, _)| room(host));
        size_of::<Self>() + domain.len() + words.chain(bad).sum::<usize>()
    }
}

/// Bytes that a kind of failure takes up.
fn room(host: &str) -> usize {
    size_of::<(Failure, String, u64)>() + host.len()
}

impl Tally {
    /// Counts a session with a domain's server.
    pub fn count(&mut self, domain: &str, host: &str, policy: &Applied, failure: Option<Failure>) {
        let kind = policy.kind;
        let all = self.domains.get(domain).map(Vec::as_slice).unwrap_or_default();
        // A policy that has changed meanwhile is shown as it was first.
        if !all.iter().any(|sessions| sessions.policy.kind == kind) {
            let mut policy = policy.clone();
            policy.lines.truncate(LINES_MAX);
            policy.mx.truncate(LINES_MAX);
            let sessions = Sessions { policy, good: 0, bad: Vec::new() };
            let bytes = self.bytes.saturating_add(sessions.bytes(domain));
            if bytes > TALLY_BYTES_MAX || all.is_empty() && self.domains.len() >= DOMAINS_MAX {
                return;
            }
            self.bytes = bytes;
            self.domains.entry(domain.to_owned()).or_default().push(sessions);
        }
        let all = self.domains.get_mut(domain);
        let Some(sessions) = all.and_then(|all| all.iter_mut().find(|one| one.policy.kind == kind)) else { return };
        let Some(failure) = failure else {
            sessions.good = sessions.good.saturating_add(1);
            return;
        };
        let known = sessions.bad.iter().position(|(kind, at, _)| *kind == failure && at == host);
        // Where there is no room for one more kind it is counted with the last.
        let bytes = self.bytes.saturating_add(room(host));
        let full = sessions.bad.len() >= FAILURES_MAX || bytes > TALLY_BYTES_MAX;
        let last = sessions.bad.len().checked_sub(1).filter(|_| full);
        match known.or(last).and_then(|place| sessions.bad.get_mut(place)) {
            Some((_, _, count)) => *count = count.saturating_add(1),
            None if full => {}
            None => {
                self.bytes = bytes;
                sessions.bad.push((failure, host.to_owned(), 1));
            }
        }
    }

    /// Nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// The domains that there is something to tell, with the sessions of each.
    pub fn domains(&self) -> impl Iterator<Item = (&str, u64)> {
        let failed = |sessions: &Sessions| sessions.bad.iter().map(|(_, _, count)| *count).sum::<u64>();
        self.domains.iter().map(move |(domain, all)| {
            (domain.as_str(), all.iter().map(|sessions| sessions.good.saturating_add(failed(sessions))).sum())
        })
    }

    /// Forgets a domain: it was told.
    pub fn forget(&mut self, domain: &str) {
        if let Some(all) = self.domains.remove(domain) {
            let bytes: usize = all.iter().map(|sessions| sessions.bytes(domain)).sum();
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }

    /// The report for a domain (section 4.4), as JSON; `id` is its name.
    pub fn report(&self, domain: &str, (ours, contact, id): (&str, &str, &str), period: Period) -> Option<String> {
        let all = self.domains.get(domain)?;
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
            "date-range": { "start-datetime": rfc3339(period.begin), "end-datetime": rfc3339(period.end) },
            "contact-info": contact,
            "report-id": id,
            "policies": policies,
        });
        Some(report.to_string())
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

    const NOON: Timestamp = Timestamp(1_795_435_200);

    fn tally() -> Tally {
        let mut tally = Tally::default();
        let sts = Applied::sts(&StsPolicy::parse("version: STSv1\nmode: testing\nmx: mx.a.test\nmax_age: 9").unwrap());
        tally.count("a.test", "mx.a.test", &sts, None);
        tally.count("a.test", "mx.a.test", &sts, Some(Failure::CertificateExpired));
        tally.count("a.test", "mx.a.test", &sts, Some(Failure::CertificateExpired));
        tally.count("a.test", "mx2.a.test", &sts, Some(Failure::StarttlsNotSupported));
        tally
    }

    #[test]
    fn a_report_has_the_form_of_rfc_8460() {
        let report = tally().report("a.test", ("box.test", "tls@box.test", "x"), Period::day_of(NOON)).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let expected = json!({
            "organization-name": "box.test",
            "date-range": { "start-datetime": "2026-11-23T00:00:00Z", "end-datetime": "2026-11-23T23:59:59Z" },
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
        assert_eq!(report, expected);
        assert_eq!(tally().report("b.test", ("box.test", "x", "x"), Period::day_of(NOON)), None);
        assert_eq!(tally().domains().collect::<Vec<_>>(), [("a.test", 4)]);
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
        // Policies as long as their writers like.
        let mut tally = Tally::default();
        let long = Applied { kind: PolicyKind::Sts, lines: vec!["x".repeat(1000); 100], mx: Vec::new() };
        for number in 0..100 {
            tally.count(&format!("d{number}"), &"h".repeat(250), &long, Some(Failure::CertificateExpired));
        }
        assert!((1..=4).contains(&tally.domains().count()) && tally.bytes <= TALLY_BYTES_MAX, "{}", tally.bytes);
        let all: Vec<String> = tally.domains().map(|(domain, _)| domain.to_owned()).collect();
        for domain in &all {
            tally.forget(domain);
        }
        assert_eq!(tally, Tally::default());
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
