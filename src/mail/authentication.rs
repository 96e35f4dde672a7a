//! What can be found out about a message's sender: SPF, DKIM, DMARC, ARC, reverse DNS, block lists.
//!
//! Facts without a judgement: `net` finds them, `filter::sender` says what they mean. Each answer is a
//! [`Verdict`] with a reason in plain words. What DNS or network do not allow to find out now is
//! [`Verdict::Unchecked`], which counts neither for a sender nor against him.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// An answer, in the words of RFC 8601 section 2.7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is who it says.
    Pass,
    /// It is not.
    Fail,
    /// It may not be (SPF `~`).
    SoftFail,
    /// The domain says nothing of it, or what is there does not count.
    Neutral,
    /// There is nothing to go by.
    None,
    /// The DNS failed for this domain: another time there may be an answer.
    TempError,
    /// What the domain publishes or the message carries is broken.
    PermError,
    /// Not checkable: DNS or network are missing here.
    #[default]
    Unchecked,
}

impl Verdict {
    /// The word, as in RFC 8601; `not-checkable` has none there.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::Neutral => "neutral",
            Self::None => "none",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
            Self::Unchecked => "not-checkable",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// May this address send for this domain (RFC 7208)?
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spf {
    /// The answer.
    pub verdict: Verdict,
    /// The domain that was asked: MAIL FROM's, or HELO's where MAIL FROM is empty.
    pub domain: String,
    /// It was HELO's.
    pub helo: bool,
    /// Why.
    pub reason: String,
    /// What the domain wants said to whoever fails (RFC 7208 section 6.2): its words, not ours.
    pub explanation: Option<String>,
}

/// A DKIM signature (RFC 6376).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// The answer.
    pub verdict: Verdict,
    /// The domain that signed.
    pub domain: String,
    /// Which of its keys.
    pub selector: String,
    /// Why.
    pub reason: String,
}

/// The chain of those who passed the message on (RFC 8617).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The answer.
    pub verdict: Verdict,
    /// The domain that sealed last.
    pub domain: String,
    /// How many did.
    pub sets: usize,
    /// Why.
    pub reason: String,
}

/// What a domain wants done with mail that only says it is from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Nothing.
    #[default]
    None,
    /// Treat it as suspicious.
    Quarantine,
    /// Refuse it.
    Reject,
}

impl Policy {
    /// The word in the DNS.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }
}

/// Does SPF or DKIM stand for the domain in From (RFC 7489, RFC 9989)?
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dmarc {
    /// The answer.
    pub verdict: Verdict,
    /// From's domain.
    pub domain: String,
    /// What that domain wants.
    pub policy: Policy,
    /// SPF stands for it.
    pub by_spf: bool,
    /// DKIM stands for it.
    pub by_dkim: bool,
    /// What the record says that was found, if one was.
    pub published: Option<Box<Published>>,
    /// Why.
    pub reason: String,
}

/// A DMARC record, as far as reports about it repeat it (RFC 9989 section 4.7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Published {
    /// Where it stands: From's domain, or one above it.
    pub domain: String,
    /// `p=`
    pub policy: Policy,
    /// `sp=`: for domains below.
    pub below: Policy,
    /// `np=`: for domains below that do not exist.
    pub missing: Policy,
    /// `adkim=s`
    pub strict_dkim: bool,
    /// `aspf=s`
    pub strict_spf: bool,
    /// `t=y`: the policy is on trial.
    pub testing: bool,
    /// `rua=`: where aggregate reports go.
    pub reports_to: Vec<ReportAddress>,
}

/// Where a domain wants reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct ReportAddress {
    /// The address, `mailto:` left away.
    pub address: String,
    /// Most bytes of a report there; 0: as many as there are.
    pub bytes_max: u64,
}

/// Does the address's name lead back to it (RFC 8601 section 2.7.3)?
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reverse {
    /// The answer: fail where there is a name that does not, none where there is no name.
    pub verdict: Verdict,
    /// The name, where there is one.
    pub name: Option<String>,
}

/// What lists in the DNS say of an address (RFC 5782).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Block lists that have it.
    pub blocked: Vec<String>,
    /// Allow lists that have it.
    pub allowed: Vec<String>,
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Who sends it.
    pub client: Option<IpAddr>,
    /// What HELO or EHLO named.
    pub helo: Option<String>,
    /// SPF.
    pub spf: Spf,
    /// DKIM, for each signature that was looked at.
    pub dkim: Vec<Signature>,
    /// ARC.
    pub arc: Chain,
    /// DMARC.
    pub dmarc: Dmarc,
    /// Reverse DNS.
    pub reverse: Reverse,
    /// Lists.
    pub listing: Listing,
}
