//! The table: what was found about a sender, and what follows.

use std::net::IpAddr;

use super::config::{Action, SenderConfig};
use crate::filter::spam::Share;
use crate::mail::authentication::{Findings, Policy, Verdict};

/// What the facts about a sender mean for a message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Standing {
    /// What becomes of the message, as far as the sender goes.
    pub action: Action,
    /// Why, for the log and where it is refused for whoever sent it; nothing the peer said is in it.
    pub reason: String,
    /// Shares of the spam score, in logits.
    pub shares: Vec<Share>,
    /// Whether it may well be who it says: a forger gets no credit for whom he poses as.
    pub credible: bool,
}

/// Judges the facts; `host` is our own name.
#[must_use]
pub fn judge(findings: &Findings, config: &SenderConfig, host: &str) -> Standing {
    let mut standing = Standing::unchecked();
    listing(findings, config, &mut standing);
    identity(findings, config, &mut standing);
    connection(findings, host, &mut standing);
    standing
}

impl Standing {
    /// Of a sender nobody looked at.
    #[must_use]
    pub fn unchecked() -> Self {
        Self { credible: true, ..Self::default() }
    }

    fn share(&mut self, what: &str, logit: f32) {
        self.shares.push(Share { what: what.to_owned(), logit });
    }

    /// The strongest action counts, with its reason.
    fn act(&mut self, action: Action, reason: &str) {
        if action > self.action {
            (self.action, self.reason) = (action, reason.to_owned());
        }
    }
}

fn listing(findings: &Findings, config: &SenderConfig, standing: &mut Standing) {
    if !findings.listing.allowed.is_empty() {
        standing.share("an allow list has the sending address", -1.0);
    } else if let Some(list) = findings.listing.blocked.first() {
        standing.share("a block list has the sending address", 2.0);
        standing.act(config.listed, &format!("the address you send from is on the block list {list}"));
    }
}

/// What is done with mail that fails DMARC; `None` where somebody who is trusted sealed it, so that the domain's wish
/// does not hold.
pub(super) fn wish(findings: &Findings, config: &SenderConfig) -> Option<Action> {
    let arc = &findings.arc;
    let trusted = config.arc_trusted.iter().any(|domain| domain.eq_ignore_ascii_case(&arc.domain));
    if arc.verdict == Verdict::Pass && trusted {
        return None;
    }
    Some(match findings.dmarc.policy {
        Policy::Reject => config.dmarc_reject,
        Policy::Quarantine => config.dmarc_quarantine,
        Policy::None => Action::Accept,
    })
}

fn identity(findings: &Findings, config: &SenderConfig, standing: &mut Standing) {
    let Findings { spf, dmarc, dkim, .. } = findings;
    let signed = dkim.iter().any(|signature| signature.verdict == Verdict::Pass);
    match dmarc.verdict {
        Verdict::Pass => return standing.share("From is authenticated (DMARC)", -0.2),
        Verdict::Fail => {
            standing.credible = false;
            let Some(action) = wish(findings, config) else {
                return standing.share("a forwarder that is trusted sealed it (ARC)", 0.0);
            };
            let (logit, wish) = match dmarc.policy {
                Policy::Reject => (2.0, "refused"),
                Policy::Quarantine => (1.5, "treated as suspicious"),
                Policy::None => (0.7, ""),
            };
            standing.share("From is not authenticated (DMARC)", logit);
            let policy = dmarc.policy.word();
            let reason = format!(
                "the domain in From wants mail {wish} for which neither its SPF nor its DKIM stands (DMARC p={policy})"
            );
            return standing.act(action, &reason);
        }
        // As a header with two From fields, of which each reader shows another one.
        Verdict::PermError if dmarc.domain.is_empty() => {
            standing.credible = false;
            standing.share("From is not one address", 1.0);
        }
        _ => {}
    }
    match spf.verdict {
        Verdict::Fail if !signed => {
            standing.credible = false;
            standing.share("the sender's domain does not send from there (SPF)", 1.2);
            let reason = "the sender's domain says that your address never sends for it (SPF)";
            standing.act(config.spf_fail, reason);
        }
        Verdict::SoftFail if !signed => {
            standing.credible = false;
            standing.share("the sender's domain may not send from there (SPF)", 0.5);
        }
        Verdict::PermError => standing.share("the SPF record of the sender's domain is broken", 0.2),
        _ => {}
    }
}

fn connection(findings: &Findings, host: &str, standing: &mut Standing) {
    match findings.reverse.verdict {
        Verdict::None => standing.share("the sending address has no name", 0.5),
        Verdict::Fail => standing.share("the sending address's name leads elsewhere", 0.4),
        _ => {}
    }
    if let Some(fault) = findings.client.and_then(|client| helo_fault(findings.helo.as_deref(), client, host)) {
        let logit = if fault == POSES { 1.5 } else { 0.5 };
        standing.share(fault, logit);
    }
}

const POSES: &str = "HELO says our own name";

/// What is wrong with HELO's name (RFC 5321 section 4.1.4: it may not lead to a refusal by itself).
fn helo_fault(helo: Option<&str>, client: IpAddr, host: &str) -> Option<&'static str> {
    let helo = helo.unwrap_or_default();
    if let Some(literal) = helo.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address = literal.strip_prefix("ipv6:").unwrap_or(literal).parse::<IpAddr>();
        let same = address.is_ok_and(|address| address.to_canonical() == client.to_canonical());
        return (!same).then_some("HELO says another address");
    }
    if helo.eq_ignore_ascii_case(host) {
        return Some(POSES);
    }
    let numbers = helo.parse::<IpAddr>().is_ok();
    (numbers || !helo.contains('.')).then_some("HELO says no name of a host")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::authentication::{Chain, Dmarc, Listing, Signature, Spf};

    fn found(dmarc: Verdict, policy: Policy, spf: Verdict) -> Findings {
        Findings {
            client: "192.0.2.1".parse().ok(),
            helo: Some("mx.example.org".to_owned()),
            spf: Spf { verdict: spf, domain: "example.org".to_owned(), ..Spf::default() },
            dmarc: Dmarc { verdict: dmarc, policy, domain: "example.org".to_owned(), ..Dmarc::default() },
            ..Findings::default()
        }
    }

    fn decide(findings: &Findings, config: &SenderConfig) -> Action {
        judge(findings, config, "pillarbox.test").action
    }

    #[test]
    fn the_table_decides_and_the_config_changes_it() {
        let config = SenderConfig::default();
        let fails = |policy| found(Verdict::Fail, policy, Verdict::Fail);
        assert_eq!(decide(&fails(Policy::Reject), &config), Action::Reject);
        assert_eq!(decide(&fails(Policy::Quarantine), &config), Action::Junk);
        assert_eq!(decide(&fails(Policy::None), &config), Action::Accept);
        assert_eq!(decide(&found(Verdict::None, Policy::None, Verdict::Fail), &config), Action::Accept);
        let strict = SenderConfig { spf_fail: Action::Reject, dmarc_reject: Action::Junk, ..config };
        assert_eq!(decide(&found(Verdict::None, Policy::None, Verdict::Fail), &strict), Action::Reject);
        assert_eq!(decide(&fails(Policy::Reject), &strict), Action::Junk);
        // Forwarded mail whose signature survived.
        assert_eq!(decide(&found(Verdict::Pass, Policy::Reject, Verdict::Fail), &strict), Action::Accept);
        let mut signed = found(Verdict::None, Policy::None, Verdict::Fail);
        signed.dkim = vec![Signature { verdict: Verdict::Pass, ..Signature::default() }];
        assert_eq!(decide(&signed, &strict), Action::Accept);
    }

    #[test]
    fn what_was_not_checkable_counts_for_nothing() {
        let strict = SenderConfig {
            spf_fail: Action::Reject,
            dmarc_reject: Action::Reject,
            listed: Action::Reject,
            ..SenderConfig::default()
        };
        for verdict in [Verdict::Unchecked, Verdict::TempError] {
            let mut findings = found(verdict, Policy::Reject, verdict);
            findings.reverse.verdict = verdict;
            let standing = judge(&findings, &strict, "pillarbox.test");
            assert_eq!(standing, Standing::unchecked(), "{verdict}");
        }
    }

    #[test]
    fn a_seal_that_is_trusted_stands_for_a_list() {
        let mut findings = found(Verdict::Fail, Policy::Reject, Verdict::Pass);
        findings.arc = Chain { verdict: Verdict::Pass, domain: "lists.example".to_owned(), ..Chain::default() };
        let config = SenderConfig::default();
        assert_eq!(decide(&findings, &config), Action::Reject);
        let trusting = SenderConfig { arc_trusted: vec!["Lists.example".to_owned()], ..config };
        assert_eq!(decide(&findings, &trusting), Action::Accept);
        findings.arc.verdict = Verdict::Fail;
        assert_eq!(decide(&findings, &trusting), Action::Reject);
    }

    #[test]
    fn an_allow_list_is_believed_more_than_a_block_list() {
        let mut findings = found(Verdict::None, Policy::None, Verdict::None);
        findings.listing = Listing { blocked: vec!["bl.test".to_owned()], allowed: Vec::new() };
        let standing = judge(&findings, &SenderConfig::default(), "pillarbox.test");
        assert_eq!(standing.action, Action::Reject);
        assert!(standing.reason.contains("bl.test"), "{}", standing.reason);
        findings.listing.allowed = vec!["wl.test".to_owned()];
        assert_eq!(decide(&findings, &SenderConfig::default()), Action::Accept);
    }

    #[test]
    fn who_is_forged_gets_no_credit() {
        let credible = |dmarc, spf| judge(&found(dmarc, Policy::None, spf), &SenderConfig::default(), "h").credible;
        assert!(!credible(Verdict::Fail, Verdict::Pass) && !credible(Verdict::None, Verdict::SoftFail));
        assert!(credible(Verdict::Pass, Verdict::Fail) && credible(Verdict::None, Verdict::None));
        assert!(credible(Verdict::Unchecked, Verdict::Unchecked));
    }

    #[test]
    fn helo_is_looked_at_with_common_sense() {
        let fault = |helo| helo_fault(helo, "192.0.2.1".parse().unwrap(), "pillarbox.test");
        assert_eq!(fault(Some("mx.example.org")), None);
        assert_eq!(fault(Some("[192.0.2.1]")), None);
        assert_eq!(fault(Some("[192.0.2.2]")), Some("HELO says another address"));
        assert_eq!(fault(Some("Pillarbox.test")), Some(POSES));
        for helo in [None, Some("localhost"), Some("192.0.2.1"), Some("friend")] {
            assert_eq!(fault(helo), Some("HELO says no name of a host"), "{helo:?}");
        }
    }
}
