//! SPF (RFC 7208): may this address send for this domain?
//!
//! Ours and not mail-auth's, which asks the DNS past [`Resolver`], lets an include within an include decide for the
//! outermost record, and knows no bound on names that lead nowhere (section 4.6.4). Bounds: [`LOOKUPS_MAX`] terms that ask, [`VOIDS_MAX`] of their questions without an
//! answer, [`HOSTS_MAX`] hosts behind each, [`RECORD_MAX`] bytes of a record.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use super::is_within;
use super::record::{Bits, Mechanism, Pattern, Record, Values};
use crate::mail::authentication::{Spf, Verdict};
use crate::mail::network::Network;
use crate::net::resolver::{DnsError, Resolver};

/// Most terms of a check that ask the DNS (RFC 7208 section 4.6.4); also the deepest an include goes.
pub const LOOKUPS_MAX: u8 = 10;

/// Most questions of such terms that lead nowhere (the same section).
pub const VOIDS_MAX: u8 = 2;

/// Most hosts that are looked at behind one `mx` or `ptr` (the same section).
pub const HOSTS_MAX: usize = 10;

/// Longest record that is read, in bytes; section 3.4 wants less than 512.
pub const RECORD_MAX: usize = 8192;

/// Longest explanation that is kept, in bytes.
const EXPLANATION_MAX: usize = 250;

/// Bytes after which no more macros are filled in.
const FILLED_MAX: usize = 1024;

/// Whose mail it is.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The address that sends.
    pub ip: IpAddr,
    /// What HELO or EHLO named.
    pub helo: &'a str,
    /// MAIL FROM without its brackets; empty for a notification.
    pub from: &'a str,
    /// Our own name, for explanations.
    pub host: &'a str,
}

/// Why a check ends before it has come to a result.
enum Stop {
    Temporary(String),
    Permanent(String),
}

/// A check in progress.
struct Check<'a> {
    resolver: &'a Resolver,
    ip: IpAddr,
    sender: String,
    helo: &'a str,
    host: &'a str,
    lookups: u8,
    voids: u8,
    /// The client's name that leads back to it, once it was asked for.
    validated: Option<String>,
}

/// Result of one domain, with the record whose directive it was.
struct Outcome {
    verdict: Verdict,
    reason: String,
    /// Where the explanation is, if it fails.
    explanation: Option<String>,
}

/// Checks MAIL FROM, or where that is empty HELO (RFC 7208 sections 2.3 and 2.4).
pub(super) async fn check(resolver: &Resolver, asked: &Asked<'_>) -> Spf {
    let helo = asked.from.is_empty();
    let domain = if helo { asked.helo } else { asked.from.rsplit_once('@').map_or(asked.from, |(_, domain)| domain) };
    let domain = domain.trim_end_matches('.').to_ascii_lowercase();
    let local = asked.from.rsplit_once('@').map_or("", |(local, _)| local);
    let sender = format!("{}@{domain}", if local.is_empty() { "postmaster" } else { local });
    let mut check = Check {
        resolver,
        ip: asked.ip.to_canonical(),
        sender,
        helo: asked.helo,
        host: asked.host,
        lookups: 0,
        voids: 0,
        validated: None,
    };
    let told = |verdict, reason| Spf { verdict, domain: domain.clone(), helo, reason, explanation: None };
    if !is_domain(&domain) {
        return told(Verdict::None, "there is no domain to ask".to_owned());
    }
    let outcome = check.domain(&domain, 0).await;
    match outcome {
        Ok(Outcome { verdict, reason, explanation }) => {
            let explanation = match explanation {
                Some(name) if verdict == Verdict::Fail => check.explanation(&name, &domain).await,
                _ => None,
            };
            Spf { explanation, ..told(verdict, reason) }
        }
        Err(Stop::Temporary(reason)) if resolver.is_away() => told(Verdict::Unchecked, reason),
        Err(Stop::Temporary(reason)) => told(Verdict::TempError, reason),
        Err(Stop::Permanent(reason)) => told(Verdict::PermError, reason),
    }
}

impl Check<'_> {
    /// `check_host` (RFC 7208 section 4).
    async fn domain(&mut self, domain: &str, depth: u8) -> Result<Outcome, Stop> {
        let mut domain = domain.to_owned();
        // A redirect begins anew with another domain (section 6.1), as often as there are look-ups for it.
        loop {
            let Some(record) = self.record(&domain).await? else {
                let reason = format!("{domain} has no SPF record");
                return Ok(Outcome { verdict: Verdict::None, reason, explanation: None });
            };
            for (verdict, mechanism) in &record.directives {
                let Some(found) = self.matches(mechanism, &domain, depth).await? else { continue };
                let reason = format!("{} {found} of {domain}", self.ip);
                let explanation = match &record.explanation {
                    Some(exp) if *verdict == Verdict::Fail => Some(self.name(exp, &domain).await),
                    _ => None,
                };
                return Ok(Outcome { verdict: *verdict, reason, explanation });
            }
            let Some(redirect) = &record.redirect else {
                let reason = format!("{domain} says nothing of {}", self.ip);
                return Ok(Outcome { verdict: Verdict::Neutral, reason, explanation: None });
            };
            self.look_up()?;
            let target = self.name(redirect, &domain).await;
            if !is_domain(&target) || self.record(&target).await?.is_none() {
                return Err(Stop::Permanent(format!("the redirect of {domain} leads nowhere")));
            }
            domain = target;
        }
    }

    /// The SPF record of a domain (section 4.5).
    async fn record(&self, domain: &str) -> Result<Option<Record>, Stop> {
        let texts = match self.resolver.txt(domain).await {
            Ok(found) => found.value,
            Err(DnsError::NoSuchName | DnsError::NoRecords) => return Ok(None),
            Err(error) => return Err(Stop::Temporary(format!("{domain}: {error}"))),
        };
        let is_spf = |text: &String| {
            let version = text.split(' ').next().unwrap_or_default();
            version.eq_ignore_ascii_case("v=spf1")
        };
        let mut records = texts.into_iter().filter(is_spf);
        let Some(text) = records.next() else { return Ok(None) };
        if records.next().is_some() {
            return Err(Stop::Permanent(format!("{domain} has more than one SPF record")));
        }
        let wrong = || Stop::Permanent(format!("the SPF record of {domain} is broken"));
        if text.len() > RECORD_MAX || !text.is_ascii() {
            return Err(wrong());
        }
        Record::parse(&text).map(Some).ok_or_else(wrong)
    }

    /// What of the directive matches, in words; `None` if nothing does (section 5).
    async fn matches(&mut self, mechanism: &Mechanism, domain: &str, depth: u8) -> Result<Option<String>, Stop> {
        let found = match mechanism {
            Mechanism::All => Some("falls to `all`".to_owned()),
            Mechanism::Ip4(address, bits) => {
                self.is_in((*address).into(), *bits).then(|| format!("is in `ip4:{address}/{bits}`"))
            }
            Mechanism::Ip6(address, bits) => {
                self.is_in((*address).into(), *bits).then(|| format!("is in `ip6:{address}/{bits}`"))
            }
            Mechanism::A(name, bits) => {
                let target = self.target(name.as_ref(), domain).await?;
                let there = self.host_matches(&target, *bits).await?;
                there.then(|| format!("is in `a:{target}`"))
            }
            Mechanism::Mx(name, bits) => {
                let target = self.target(name.as_ref(), domain).await?;
                let hosts = match self.resolver.mx(&target).await {
                    Ok(found) => found.value,
                    Err(error) => {
                        self.nothing(error, &target)?;
                        Vec::new()
                    }
                };
                if hosts.len() > HOSTS_MAX {
                    return Err(Stop::Permanent(format!("{target} has more than {HOSTS_MAX} mail servers")));
                }
                let mut there = false;
                for (_, host) in hosts.iter().filter(|(_, host)| !host.is_empty()) {
                    there = self.host_matches(host, *bits).await?;
                    if there {
                        break;
                    }
                }
                there.then(|| format!("is in `mx:{target}`"))
            }
            Mechanism::Ptr(name) => {
                let target = self.target(name.as_ref(), domain).await?;
                let names = self.validated_names().await;
                names.iter().any(|name| is_within(name, &target)).then(|| format!("has a name in `ptr:{target}`"))
            }
            Mechanism::Exists(name) => {
                let target = self.target(Some(name), domain).await?;
                match self.resolver.addresses_of(&target, false).await {
                    Ok(_) => Some(format!("fits `exists:{target}`")),
                    Err(error) => {
                        self.nothing(error, &target)?;
                        None
                    }
                }
            }
            Mechanism::Include(name) => {
                let target = self.target(Some(name), domain).await?;
                if depth >= LOOKUPS_MAX || !is_domain(&target) {
                    return Err(Stop::Permanent(format!("the include of {domain} leads nowhere")));
                }
                let included = Box::pin(self.domain(&target, depth + 1)).await?;
                match included.verdict {
                    Verdict::Pass => Some(format!("is in `include:{target}`")),
                    Verdict::None => {
                        return Err(Stop::Permanent(format!("{target}, included by {domain}, has no SPF record")));
                    }
                    _ => None,
                }
            }
        };
        Ok(found)
    }

    /// Counts a term that asks, and says what it is about: where it names nothing, the domain.
    async fn target(&mut self, name: Option<&Pattern>, domain: &str) -> Result<String, Stop> {
        self.look_up()?;
        match name {
            Some(name) => Ok(self.name(name, domain).await),
            None => Ok(domain.to_owned()),
        }
    }

    /// Fills in a name's macros (section 7), cut to what a name may have.
    async fn name(&mut self, name: &Pattern, domain: &str) -> String {
        self.validate(name, domain).await;
        let filled = name.fill(&self.values(domain), FILLED_MAX);
        let mut name = filled.trim_end_matches('.');
        // Labels go from the left until it fits (section 7.3).
        while name.len() > 253 {
            let Some((_, rest)) = name.split_once('.') else { break };
            name = rest;
        }
        name.to_ascii_lowercase()
    }

    /// Asks for the client's name where a pattern has it: the domain itself first, then a name within it, then any
    /// (section 7.3).
    async fn validate(&mut self, pattern: &Pattern, domain: &str) {
        if !pattern.needs_validated() || self.validated.is_some() {
            return;
        }
        let names = self.validated_names().await;
        let chosen = names.iter().find(|name| *name == domain);
        let chosen = chosen.or_else(|| names.iter().find(|name| is_within(name, domain)));
        self.validated = Some(chosen.or_else(|| names.first()).cloned().unwrap_or_else(|| "unknown".to_owned()));
    }

    fn values<'v>(&'v self, domain: &'v str) -> Values<'v> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let validated = self.validated.as_deref().unwrap_or("unknown");
        Values { ip: self.ip, sender: &self.sender, domain, helo: self.helo, host: self.host, validated, now }
    }

    /// The explanation of a failure (section 6.2); none where anything is wrong with it.
    async fn explanation(&mut self, name: &str, domain: &str) -> Option<String> {
        let [text] = <[String; 1]>::try_from(self.resolver.txt(name).await.ok()?.value).ok()?;
        let pattern = Pattern::explanation(Some(text).filter(|text| text.len() <= RECORD_MAX)?.as_str())?;
        self.validate(&pattern, domain).await;
        let mut text = pattern.fill(&self.values(domain), FILLED_MAX);
        text.retain(|c| c.is_ascii_graphic() || c == ' ');
        text.truncate(EXPLANATION_MAX);
        Some(text)
    }

    async fn host_matches(&mut self, host: &str, bits: Bits) -> Result<bool, Stop> {
        let addresses = match self.resolver.addresses_of(host, self.ip.is_ipv6()).await {
            Ok(found) => found.value,
            Err(error) => {
                self.nothing(error, host)?;
                Vec::new()
            }
        };
        let bits = if self.ip.is_ipv6() { bits.six } else { bits.four };
        Ok(addresses.into_iter().any(|address| self.is_in(address, bits)))
    }

    /// Whether the client is in a network. An IPv4 address never is in one of IPv6 (section 5).
    fn is_in(&self, address: IpAddr, bits: u8) -> bool {
        address.is_ipv4() == self.ip.is_ipv4() && Network::around(address, bits).holds(self.ip)
    }

    /// The client's names that lead back to it (section 5.5), ten looked at. What fails is no name.
    async fn validated_names(&mut self) -> Vec<String> {
        let Ok(names) = self.resolver.ptr(self.ip).await else { return Vec::new() };
        let mut valid = Vec::new();
        for name in names.value.into_iter().take(HOSTS_MAX) {
            let addresses = self.resolver.addresses_of(&name, self.ip.is_ipv6()).await;
            if addresses.is_ok_and(|found| found.value.contains(&self.ip)) {
                valid.push(name);
            }
        }
        valid
    }

    fn look_up(&mut self) -> Result<(), Stop> {
        self.lookups = self.lookups.saturating_add(1);
        if self.lookups > LOOKUPS_MAX {
            return Err(Stop::Permanent(format!("the SPF record needs more than {LOOKUPS_MAX} look-ups")));
        }
        Ok(())
    }

    /// Counts a question without an answer; an error is one only where the DNS failed.
    fn nothing(&mut self, error: DnsError, name: &str) -> Result<(), Stop> {
        match error {
            DnsError::NoSuchName | DnsError::NoRecords => {
                self.voids = self.voids.saturating_add(1);
                if self.voids > VOIDS_MAX {
                    return Err(Stop::Permanent(format!("more than {VOIDS_MAX} names in the SPF record lead nowhere")));
                }
                Ok(())
            }
            error => Err(Stop::Temporary(format!("{name}: {error}"))),
        }
    }
}

/// A name of at least two labels (section 4.3).
fn is_domain(name: &str) -> bool {
    let labels = name.split('.').collect::<Vec<_>>();
    name.len() <= 253 && labels.len() > 1 && labels.iter().all(|label| (1..=63).contains(&label.len()))
}
