//! DMARC aggregate reports that we send (RFC 7489 section 7.2, RFC 9990): what came in the names of domains that ask
//! to be told, counted in rows.
//!
//! Whoever sends mail chooses the domain, the addresses and most words of a row, so all rows together have a bound in
//! bytes; what is beyond it is counted, and the report says so.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mail_auth::report::{
    ActionDisposition, Alignment, DKIMAuthResult, Discovery, Disposition, DkimResult, DmarcResult, PolicyOverride,
    PolicyOverrideReason, Record, Report, SPFAuthResult, SPFDomainScope, SpfResult,
};
use serde::{Deserialize, Serialize};

use super::config::{Action, SenderConfig};
use super::results::name;
use super::verdict::wish;
use crate::mail::authentication::{Findings, Policy, Published, Verdict};
use crate::mail::date::Period;

/// Most bytes of one period, names and numbers: some 800 rows of the usual length.
pub const TALLY_BYTES_MAX: usize = 256 << 10;

/// Most domains that are told of one period.
pub const TALLY_DOMAINS_MAX: usize = 256;

/// Most signatures that a row repeats; those that stand come first.
const SIGNATURES_MAX: usize = 4;

/// Reports about DMARC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DmarcReportConfig {
    /// Domains that ask for it are told each day what came in their names. Default: false.
    pub send: bool,
    /// The address that reports come from, and that can be asked about them. It is needed to send any.
    /// Default: none.
    pub from: Option<String>,
}

/// What was found of a message, as reports tell it: messages of which all of this is the same are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Row {
    source: IpAddr,
    /// What was done with it for DMARC's sake.
    action: Action,
    /// Why that is not what the domain asks for.
    instead: Option<Instead>,
    /// DKIM stands for From's domain.
    dkim: bool,
    /// SPF does.
    spf: bool,
    header_from: String,
    envelope_from: String,
    /// Domain, selector and result of each signature.
    signatures: Vec<(String, String, Verdict)>,
    /// The domain that SPF asked, whether it was HELO's, and the result.
    sender: (String, bool, Verdict),
}

/// Why something else was done than the domain asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Instead {
    /// The settings say so.
    Local,
    /// A forwarder that is trusted sealed it.
    Forwarder,
    /// The domain's policy is on trial.
    Trial,
}

impl Row {
    /// The row of a message that was judged by `config`. `None` where its domain asks for no reports, or where nothing
    /// certain was found.
    #[must_use]
    pub fn of(findings: &Findings, config: &SenderConfig) -> Option<Self> {
        let Findings { dmarc, spf, dkim, .. } = findings;
        let published = dmarc.published.as_ref().filter(|published| !published.reports_to.is_empty())?;
        let (action, instead) = match dmarc.verdict {
            Verdict::Pass => (Action::Accept, None),
            Verdict::Fail => match wish(findings, config) {
                None => (Action::Accept, Some(Instead::Forwarder)),
                Some(action) => {
                    let asked = match dmarc.policy {
                        Policy::Reject => Action::Reject,
                        Policy::Quarantine => Action::Junk,
                        Policy::None => Action::Accept,
                    };
                    let trial = Some(Instead::Trial).filter(|_| published.testing);
                    (action, if action == asked { trial } else { Some(Instead::Local) })
                }
            },
            _ => return None,
        };
        let mut signatures: Vec<_> = dkim.iter().filter(|one| !one.domain.is_empty()).collect();
        signatures.sort_by_key(|one| one.verdict != Verdict::Pass);
        let told = signatures.iter().take(SIGNATURES_MAX);
        Some(Self {
            source: findings.client?.to_canonical(),
            action,
            instead,
            dkim: dmarc.by_dkim,
            spf: dmarc.by_spf,
            header_from: name(&dmarc.domain),
            envelope_from: if spf.helo { String::new() } else { name(&spf.domain) },
            signatures: told.map(|one| (name(&one.domain), name(&one.selector), one.verdict)).collect(),
            sender: (name(&spf.domain), spf.helo, spf.verdict),
        })
    }

    /// Bytes that it takes up.
    fn bytes(&self) -> usize {
        let names = [&self.header_from, &self.envelope_from, &self.sender.0].into_iter();
        let signed = self.signatures.iter().flat_map(|(domain, selector, _)| [domain, selector]);
        let names: usize = names.chain(signed).map(String::len).sum();
        size_of::<Self>() + self.signatures.len() * size_of::<(String, String, Verdict)>() + names
    }

    fn record(&self, count: u32) -> Record {
        let result = |stands| if stands { DmarcResult::Pass } else { DmarcResult::Fail };
        let mut record = Record::new()
            .with_source_ip(self.source)
            .with_count(count)
            .with_action_disposition(match self.action {
                Action::Accept => ActionDisposition::None,
                Action::Junk => ActionDisposition::Quarantine,
                Action::Reject => ActionDisposition::Reject,
            })
            .with_dmarc_dkim_result(result(self.dkim))
            .with_dmarc_spf_result(result(self.spf))
            .with_header_from(&self.header_from)
            .with_envelope_from(&self.envelope_from);
        if let Some(instead) = self.instead {
            let (kind, why) = match instead {
                Instead::Local => (PolicyOverride::LocalPolicy, "the receiver's settings"),
                Instead::Forwarder => (PolicyOverride::TrustedForwarder, "sealed by a trusted forwarder (ARC)"),
                Instead::Trial => (PolicyOverride::PolicyTestMode, "the policy is on trial"),
            };
            record = record.with_policy_override_reason(PolicyOverrideReason::new(kind).with_comment(why));
        }
        for (domain, selector, verdict) in &self.signatures {
            let signature = DKIMAuthResult::new().with_domain(domain).with_selector(selector);
            record = record.with_dkim_auth_result(signature.with_result(dkim_result(*verdict)));
        }
        let (domain, helo, verdict) = &self.sender;
        // A report has room for the result of MAIL FROM alone (RFC 9990 section 3.1.1.9).
        if !helo {
            let sender = SPFAuthResult::new().with_domain(domain).with_scope(SPFDomainScope::MailFrom);
            record = record.with_spf_auth_result(sender.with_result(spf_result(*verdict)));
        }
        record
    }
}

/// What came in one domain's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Told {
    published: Published,
    rows: Vec<(Row, u32)>,
    /// Messages for whose rows there was no room.
    left_out: u64,
}

/// The messages of one period.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Tally {
    /// By the domain whose record holds.
    domains: BTreeMap<String, Told>,
    /// What they take up.
    bytes: usize,
    /// Messages of domains for which there was no room.
    left_out: u64,
}

impl Tally {
    /// Counts a message. What the domain publishes is told as it was first.
    pub fn count(&mut self, published: &Published, row: Row) {
        let domain = name(&published.domain);
        if !self.domains.contains_key(&domain) {
            let bytes = self.bytes.saturating_add(room(published));
            if self.domains.len() >= TALLY_DOMAINS_MAX || bytes > TALLY_BYTES_MAX {
                self.left_out = self.left_out.saturating_add(1);
                return;
            }
            self.bytes = bytes;
            self.domains.insert(domain.clone(), Told { published: published.clone(), ..Told::default() });
        }
        let Some(told) = self.domains.get_mut(&domain) else { return };
        if let Some((_, count)) = told.rows.iter_mut().find(|(known, _)| *known == row) {
            *count = count.saturating_add(1);
            return;
        }
        let bytes = self.bytes.saturating_add(row.bytes());
        if bytes > TALLY_BYTES_MAX {
            told.left_out = told.left_out.saturating_add(1);
            return;
        }
        self.bytes = bytes;
        told.rows.push((row, 1));
    }

    /// Nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// The domains that there is something to tell, with the messages of each.
    pub fn domains(&self) -> impl Iterator<Item = (&str, u64)> {
        self.domains.iter().map(|(domain, told)| {
            let counted: u64 = told.rows.iter().map(|(_, count)| u64::from(*count)).sum();
            (domain.as_str(), counted.saturating_add(told.left_out))
        })
    }

    /// What a domain publishes.
    #[must_use]
    pub fn published(&self, domain: &str) -> Option<&Published> {
        self.domains.get(domain).map(|told| &told.published)
    }

    /// Forgets a domain: it was told.
    pub fn forget(&mut self, domain: &str) {
        if let Some(told) = self.domains.remove(domain) {
            let rows: usize = told.rows.iter().map(|(row, _)| row.bytes()).sum();
            self.bytes = self.bytes.saturating_sub(rows + room(&told.published));
        }
    }

    /// The report for a domain, as XML; `id` is its name.
    #[must_use]
    pub fn report(&self, domain: &str, (ours, contact, id): (&str, &str, &str), period: Period) -> Option<String> {
        let Told { published, rows, left_out } = self.domains.get(domain)?;
        let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
        let alignment = |strict| if strict { Alignment::Strict } else { Alignment::Relaxed };
        let mut report = Report::new()
            .with_version(1.0)
            .with_org_name(ours)
            .with_email(contact)
            .with_report_id(id)
            .with_date_range_begin(seconds(period.begin.0))
            .with_date_range_end(seconds(period.end.0))
            .with_generator(concat!("Pillarbox ", env!("CARGO_PKG_VERSION")))
            .with_domain(domain)
            .with_p(disposition(published.policy))
            .with_sp(disposition(published.below))
            .with_np(disposition(published.missing))
            .with_adkim(alignment(published.strict_dkim))
            .with_aspf(alignment(published.strict_spf))
            .with_testing(published.testing)
            .with_discovery_method(Discovery::Treewalk);
        if *left_out > 0 {
            report = report.with_error(format!("{left_out} more messages came than this report has rows for"));
        }
        Some(rows.iter().fold(report, |report, (row, count)| report.with_record(row.record(*count))).to_xml())
    }
}

/// Bytes that a domain takes up besides its rows.
fn room(published: &Published) -> usize {
    let reports = published.reports_to.iter().map(|to| to.address.len() + size_of_val(to));
    size_of::<Told>() + 2 * published.domain.len() + reports.sum::<usize>()
}

/// Tells whether a message with this header is a report itself, about DMARC or TLS (RFC 7489 section 7.2.1.1, RFC 8460
/// section 5.3).
#[must_use]
pub fn is_report(header: &[u8]) -> bool {
    const FIELD: &[u8] = b"subject:";
    const BEGINNING: &[u8] = b"report domain:";
    let starts =
        |text: &[u8], word: &[u8]| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let mut lines = header.split(|&byte| byte == b'\n');
    let subject = lines.find(|line| starts(line, FIELD)).and_then(|line| line.get(FIELD.len()..));
    subject.is_some_and(|subject| starts(subject.trim_ascii_start(), BEGINNING))
}

fn disposition(policy: Policy) -> Disposition {
    match policy {
        Policy::None => Disposition::None,
        Policy::Quarantine => Disposition::Quarantine,
        Policy::Reject => Disposition::Reject,
    }
}

fn dkim_result(verdict: Verdict) -> DkimResult {
    match verdict {
        Verdict::Pass => DkimResult::Pass,
        Verdict::Fail | Verdict::SoftFail => DkimResult::Fail,
        Verdict::Neutral => DkimResult::Neutral,
        Verdict::None => DkimResult::None,
        Verdict::TempError | Verdict::Unchecked => DkimResult::TempError,
        Verdict::PermError => DkimResult::PermError,
    }
}

fn spf_result(verdict: Verdict) -> SpfResult {
    match verdict {
        Verdict::Pass => SpfResult::Pass,
        Verdict::Fail => SpfResult::Fail,
        Verdict::SoftFail => SpfResult::SoftFail,
        Verdict::Neutral => SpfResult::Neutral,
        Verdict::None => SpfResult::None,
        Verdict::TempError | Verdict::Unchecked => SpfResult::TempError,
        Verdict::PermError => SpfResult::PermError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::sender::Summary;
    use crate::mail::authentication::{Chain, Dmarc, ReportAddress, Signature, Spf};
    use crate::mail::date::Timestamp;

    const PERIOD: Period = Period { begin: Timestamp(86_400), end: Timestamp(172_799) };

    fn published(domain: &str) -> Published {
        let reports_to = vec![ReportAddress { address: format!("r@{domain}"), bytes_max: 0 }];
        Published { domain: domain.to_owned(), policy: Policy::Reject, reports_to, ..Published::default() }
    }

    fn findings(ip: &str, dmarc: Verdict) -> Findings {
        let signature = Signature { domain: "a.test".to_owned(), selector: "s1".to_owned(), ..Signature::default() };
        Findings {
            client: ip.parse().ok(),
            spf: Spf { verdict: Verdict::SoftFail, domain: "bounce.a.test".to_owned(), ..Spf::default() },
            dkim: vec![
                Signature { verdict: Verdict::Fail, ..signature.clone() },
                Signature { verdict: dmarc, selector: "s2".to_owned(), ..signature },
            ],
            dmarc: Dmarc {
                verdict: dmarc,
                domain: "a.test".to_owned(),
                policy: Policy::Reject,
                by_dkim: dmarc == Verdict::Pass,
                published: Some(Box::new(published("a.test"))),
                ..Dmarc::default()
            },
            ..Findings::default()
        }
    }

    fn row(ip: &str, dmarc: Verdict) -> Row {
        Row::of(&findings(ip, dmarc), &SenderConfig::default()).unwrap()
    }

    #[test]
    fn messages_add_up_to_a_report_that_reads_back() {
        let mut tally = Tally::default();
        for _ in 0..3 {
            tally.count(&published("a.test"), row("::ffff:192.0.2.1", Verdict::Pass));
        }
        tally.count(&published("a.test"), row("203.0.113.5", Verdict::Fail));
        assert_eq!(tally.domains().collect::<Vec<_>>(), [("a.test", 4)]);
        let xml = tally.report("a.test", ("box.test", "d@box.test", "id-1"), PERIOD).unwrap();
        let mut summary = Summary::default();
        summary.add(xml.as_bytes()).unwrap();
        assert_eq!((summary.begin, summary.end, summary.reporters["box.test"]), (86_400, 172_799, 1));
        let ours = &summary.domains["a.test"];
        let (good, bad) = (&ours["192.0.2.1"], &ours["203.0.113.5"]);
        assert_eq!((good.messages, good.dkim, good.spf, good.refused), (3, 3, 0, 0));
        assert_eq!((bad.messages, bad.failed, bad.refused), (1, 1, 1));
        for part in [
            "<version>1.0</version>",
            "<report_id>id-1</report_id>",
            "<p>reject</p>",
            "<selector>s2</selector>",
            "<envelope_from>bounce.a.test</envelope_from>",
            "<result>softfail</result>",
            "<scope>mfrom</scope>",
        ] {
            assert!(xml.contains(part), "{part} is not in {xml}");
        }
        let back: Tally = serde_json::from_slice(&serde_json::to_vec(&tally).unwrap()).unwrap();
        assert_eq!(back, tally);
        tally.forget("a.test");
        assert_eq!(tally, Tally::default());
    }

    #[test]
    fn what_was_done_instead_is_told() {
        let told = |findings: &Findings, config: &SenderConfig| {
            let mut tally = Tally::default();
            tally.count(findings.dmarc.published.as_ref().unwrap(), Row::of(findings, config).unwrap());
            tally.report("a.test", ("box.test", "d@box.test", "1"), PERIOD).unwrap()
        };
        let (mut failed, config) = (findings("192.0.2.1", Verdict::Fail), SenderConfig::default());
        let mild = SenderConfig { dmarc_reject: Action::Junk, ..config.clone() };
        let xml = told(&failed, &mild);
        assert!(xml.contains("<disposition>quarantine<") && xml.contains("local_policy"), "{xml}");
        failed.arc = Chain { verdict: Verdict::Pass, domain: "list.test".to_owned(), ..Chain::default() };
        let xml = told(&failed, &SenderConfig { arc_trusted: vec!["list.test".to_owned()], ..config.clone() });
        assert!(xml.contains("<disposition>none<") && xml.contains("trusted_forwarder"), "{xml}");
        failed.arc = Chain::default();
        failed.dmarc.policy = Policy::Quarantine;
        failed.dmarc.published.as_mut().unwrap().testing = true;
        let xml = told(&failed, &config);
        assert!(xml.contains("<disposition>quarantine<") && xml.contains("policy_test_mode"), "{xml}");
    }

    #[test]
    fn who_asks_for_no_report_and_what_is_not_certain_has_no_row() {
        let config = SenderConfig::default();
        for verdict in [Verdict::TempError, Verdict::Unchecked, Verdict::None, Verdict::PermError] {
            assert_eq!(Row::of(&findings("192.0.2.1", verdict), &config), None, "{verdict}");
        }
        let mut silent = findings("192.0.2.1", Verdict::Pass);
        silent.dmarc.published.as_mut().unwrap().reports_to.clear();
        assert_eq!(Row::of(&silent, &config), None);
    }

    #[test]
    fn reports_are_known_by_their_subject() {
        assert!(is_report(b"From: a@b.test\r\nSUBJECT:  Report domain: a.test\r\n Submitter: b.test\r\n\r\n"));
        for header in ["Subject: Re: Report Domain: a.test\r\n\r\n", "X-Subject: Report Domain: a\r\n\r\n", "Subject:"]
        {
            assert!(!is_report(header.as_bytes()), "{header}");
        }
    }

    #[test]
    fn what_is_counted_has_a_bound_and_the_rest_is_told_of() {
        let mut tally = Tally::default();
        for number in 0..4000_u32 {
            let mut findings = findings("192.0.2.1", Verdict::Pass);
            findings.dmarc.domain = format!("{number}.{}\r\n<evil>", "x".repeat(300));
            tally.count(&published("a.test"), Row::of(&findings, &SenderConfig::default()).unwrap());
            tally.count(&published(&format!("d{number}.test")), row("192.0.2.1", Verdict::Pass));
        }
        assert!(tally.bytes <= TALLY_BYTES_MAX);
        assert!((100..=TALLY_DOMAINS_MAX).contains(&tally.domains.len()), "{}", tally.domains.len());
        assert_eq!(tally.left_out + tally.domains.len() as u64, 4001);
        assert!(tally.domains().any(|told| told == ("a.test", 4000)));
        let xml = tally.report("a.test", ("box.test", "d@box.test", "1"), PERIOD).unwrap();
        assert!(xml.contains("more messages came than this report has rows for") && !xml.contains("evil>"), "{xml}");
        let kept = serde_json::to_vec(&tally).unwrap();
        assert!(kept.len() < 4 * TALLY_BYTES_MAX, "{} bytes", kept.len());
    }
}
