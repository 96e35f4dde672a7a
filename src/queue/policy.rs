//! How safe a connection to another domain's server must be (RFC 7435): decided from what the domain
//! says by DANE (RFC 7672) and MTA-STS (RFC 8461), from what its mail demands (RFC 8689), and from the
//! best that was ever seen there.
//!
//! [`decide`] is the whole decision. [`Book`] is what is remembered between connections: policies
//! within their time, and levels. Who takes TLS out of a connection finds that we remember it; for a
//! while mail waits, and then goes as well as it can, so that a domain that means it is reached again.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::sts::{StsMode, StsPolicy};
use crate::mail::date::Timestamp;

/// Domains whose policies are remembered.
pub const POLICIES_MAX: usize = 512;

/// Domains whose servers are remembered.
pub const DOMAINS_MAX: usize = 1024;

/// Servers of one domain that are remembered.
const HOSTS_MAX: usize = 8;

/// A level that was not seen again for so long is forgotten, in seconds: half a year.
const FORGOTTEN_SECS: i64 = 180 * 86_400;

/// What we demand of other domains' servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TlsPolicyConfig {
    /// Domains' MTA-STS policies are fetched and kept to. Default: true.
    pub mta_sts: bool,
    /// What the DNS tells of servers' certificates (DANE) is kept to, where DNSSEC can be checked.
    /// Default: true.
    pub dane: bool,
    /// How long mail waits where a server has become less safe than it was, in hours; then it goes as
    /// well as it can. 0 never waits. Default: 24.
    pub downgrade_delay_hours: u16,
    /// Port of the servers that MTA-STS policies are fetched from. Default: 443.
    pub mta_sts_port: u16,
}

impl Default for TlsPolicyConfig {
    fn default() -> Self {
        Self { mta_sts: true, dane: true, downgrade_delay_hours: 24, mta_sts_port: 443 }
    }
}

/// How safe a connection was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// In clear.
    Clear,
    /// TLS with somebody.
    Encrypted,
    /// TLS with a server that has proved its name.
    Verified,
}

impl fmt::Display for Level {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Clear => "no TLS",
            Self::Encrypted => "TLS",
            Self::Verified => "verified TLS",
        })
    }
}

/// What the DNS tells of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dane {
    /// Nothing, or it cannot be checked here.
    Absent,
    /// Records that we understand.
    Usable,
    /// Records, and none that we understand (RFC 7672 section 2.2).
    Unusable,
    /// What it says is forged or cannot be had, though it should (section 2.1.2).
    Broken,
}

/// What is known of a server when the connection to it is opened.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The domain that the mail is for.
    pub domain: &'a str,
    /// The server's name.
    pub host: &'a str,
    /// What the DNS tells.
    pub dane: Dane,
    /// DNSSEC proves that this is a server of the domain, or proves nothing; `None` where that cannot be
    /// said now.
    pub proved: Option<bool>,
    /// The domain's policy, if it has one that holds.
    pub sts: Option<&'a StsPolicy>,
    /// The level that is insisted on because it was seen before.
    pub seen: Option<Level>,
    /// The message that the connection is opened for demands TLS all the way (RFC 8689).
    pub require_tls: bool,
}

/// What the server's certificate must prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing; what it does prove is noted.
    None,
    /// An authority vouches for the server's name.
    Authority,
    /// It is the one that the DNS tells.
    Dns,
}

/// Why more than opportunistic TLS is demanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing more is.
    Nothing,
    /// DANE
    Dane,
    /// MTA-STS
    Sts,
    /// REQUIRETLS
    Sender,
    /// It was seen before.
    Memory,
}

/// What is demanded of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// No mail goes in clear.
    pub encrypted: bool,
    /// What the certificate must prove.
    pub proof: Proof,
    /// Why.
    pub reason: Reason,
}

/// Decides what is demanded of a connection. DANE comes before MTA-STS, which must not override it
/// (RFC 8461 section 2).
///
/// # Errors
/// The server must not be used: an answer that begins with an enhanced status code, which says whether that
/// may change.
pub fn decide(known: &Known<'_>) -> Result<Demand, String> {
    let demand = |encrypted, proof, reason| Ok(Demand { encrypted, proof, reason });
    let Known { domain, host, .. } = known;
    match known.dane {
        Dane::Broken => {
            return Err(format!(
                "4.7.5 what the DNS says of the certificate of {host} (DANE) is forged or cannot be had"
            ));
        }
        Dane::Usable => return demand(true, Proof::Dns, Reason::Dane),
        Dane::Unusable if !known.require_tls => return demand(true, Proof::None, Reason::Dane),
        Dane::Unusable | Dane::Absent => {}
    }
    if let Some(policy) = known.sts.filter(|policy| policy.mode == StsMode::Enforce) {
        if !policy.names(host) {
            return Err(format!("4.7.5 {host} is not among the servers that the MTA-STS policy of {domain} names"));
        }
        return demand(true, Proof::Authority, Reason::Sts);
    }
    if known.require_tls && known.proved != Some(true) {
        // RFC 8689 section 4.2.1: a good certificate is worth nothing if anybody could name the server, and the
        // sender is told at once.
        let class = if known.proved.is_some() { 5 } else { 4 };
        return Err(format!(
            "{class}.7.30 the sender demands TLS all the way (REQUIRETLS), and neither DNSSEC nor an MTA-STS policy proves \
             that {host} is a server of {domain}"
        ));
    }
    if known.require_tls {
        return demand(true, Proof::Authority, Reason::Sender);
    }
    match known.seen {
        Some(Level::Verified) => demand(true, Proof::Authority, Reason::Memory),
        Some(Level::Encrypted) => demand(true, Proof::None, Reason::Memory),
        Some(Level::Clear) | None => demand(false, Proof::None, Reason::Nothing),
    }
}

/// A policy and how long it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kept {
    /// The DNS record's id when it was fetched.
    id: String,
    /// Until when it holds, seconds since 1970.
    until: i64,
    policy: StsPolicy,
}

/// What was seen of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Seen {
    best: Level,
    /// When it was as good as that last, seconds since 1970.
    at: i64,
    /// Since when it has been worse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worse_since: Option<i64>,
}

/// What is remembered of other domains' servers. All of it has a bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Book {
    policies: BTreeMap<String, Kept>,
    domains: BTreeMap<String, BTreeMap<String, Seen>>,
}

impl Book {
    /// A domain's policy that holds now, and the id that it was fetched with.
    pub fn policy(&self, domain: &str, now: Timestamp) -> Option<(&StsPolicy, &str)> {
        let kept = self.policies.get(domain).filter(|kept| kept.until > now.0)?;
        Some((&kept.policy, &kept.id))
    }

    /// Keeps a policy that was fetched now, in place of the one before.
    pub fn keep_policy(&mut self, domain: &str, id: &str, policy: StsPolicy, now: Timestamp) {
        let until = now.0.saturating_add(i64::from(policy.max_age_secs));
        self.policies.retain(|_, kept| kept.until > now.0);
        if self.policies.len() >= POLICIES_MAX && !self.policies.contains_key(domain) {
            let soonest = self.policies.iter().min_by_key(|(_, kept)| kept.until).map(|(name, _)| name.clone());
            self.policies.remove(&soonest.unwrap_or_default());
        }
        self.policies.insert(domain.to_owned(), Kept { id: id.to_owned(), until, policy });
    }

    /// The level to be insisted on at a server: the best that was seen there, as long as it has not
    /// been worse for longer than `delay_secs`. A new server of a domain all of whose others speak TLS
    /// should speak it too.
    pub fn insisted(&self, domain: &str, host: &str, delay_secs: i64, now: Timestamp) -> Option<Level> {
        let hosts = self.domains.get(domain)?;
        let patient = |seen: &Seen| seen.worse_since.is_none_or(|since| now.0.saturating_sub(since) < delay_secs);
        match hosts.get(host) {
            _ if delay_secs <= 0 => None,
            Some(seen) => Some(seen.best).filter(|_| patient(seen)),
            None => all_speak_tls(hosts).then_some(Level::Encrypted),
        }
    }

    /// Notes how safe a connection was, or could only have been. Tells the level that it fell from,
    /// where it did for the first time.
    pub fn saw(&mut self, domain: &str, host: &str, level: Level, delay_secs: i64, now: Timestamp) -> Option<Level> {
        if self.domains.len() >= DOMAINS_MAX && !self.domains.contains_key(domain) {
            let latest = |hosts: &BTreeMap<String, Seen>| hosts.values().map(|seen| seen.at).max();
            let oldest = self.domains.iter().min_by_key(|(_, hosts)| latest(hosts)).map(|(name, _)| name.clone());
            self.domains.remove(&oldest.unwrap_or_default());
        }
        let hosts = self.domains.entry(domain.to_owned()).or_default();
        hosts.retain(|_, seen| now.0.saturating_sub(seen.at) < FORGOTTEN_SECS);
        if hosts.len() >= HOSTS_MAX && !hosts.contains_key(host) {
            let oldest = hosts.iter().min_by_key(|(_, seen)| seen.at).map(|(name, _)| name.clone());
            hosts.remove(&oldest.unwrap_or_default());
        }
        let new = Seen { best: level, at: now.0, worse_since: None };
        match hosts.get_mut(host) {
            Some(seen) if level < seen.best => {
                let (since, is_new) = (seen.worse_since.unwrap_or(now.0), seen.worse_since.is_none());
                let fell_from = seen.best;
                seen.worse_since = Some(since);
                if now.0.saturating_sub(since) >= delay_secs {
                    *seen = new;
                }
                is_new.then_some(fell_from)
            }
            Some(seen) => {
                *seen = new;
                None
            }
            None => {
                let falls = level < Level::Encrypted && delay_secs > 0 && all_speak_tls(hosts);
                let first = Seen { best: Level::Encrypted, at: now.0, worse_since: Some(now.0) };
                hosts.insert(host.to_owned(), if falls { first } else { new });
                falls.then_some(Level::Encrypted)
            }
        }
    }

    /// Tells whether noting this would change more than a date: what is worth writing down.
    pub fn knows(&self, domain: &str, host: &str, level: Level) -> bool {
        let seen = self.domains.get(domain).and_then(|hosts| hosts.get(host));
        seen.is_some_and(|seen| seen.best == level && seen.worse_since.is_none())
    }
}

/// Tells whether every server that was seen speaks TLS.
fn all_speak_tls(hosts: &BTreeMap<String, Seen>) -> bool {
    !hosts.is_empty() && hosts.values().all(|seen| seen.best >= Level::Encrypted && seen.worse_since.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn known(sts: Option<&StsPolicy>) -> Known<'_> {
        Known {
            domain: "a.test",
            host: "mx.a.test",
            dane: Dane::Absent,
            proved: Some(false),
            sts,
            seen: None,
            require_tls: false,
        }
    }

    fn policy(mode: &str) -> StsPolicy {
        StsPolicy::parse(&format!("version: STSv1\nmode: {mode}\nmx: *.a.test\nmax_age: 100")).unwrap()
    }

    fn demanded(known: &Known<'_>) -> (bool, Proof, Reason) {
        let demand = decide(known).unwrap();
        (demand.encrypted, demand.proof, demand.reason)
    }

    #[test]
    fn nothing_is_demanded_of_whom_nothing_is_known() {
        assert_eq!(demanded(&known(None)), (false, Proof::None, Reason::Nothing));
        for mode in ["testing", "none"] {
            assert_eq!(demanded(&known(Some(&policy(mode)))), (false, Proof::None, Reason::Nothing));
        }
    }

    #[test]
    fn an_enforced_policy_demands_a_server_it_names_with_a_certificate() {
        let policy = policy("enforce");
        assert_eq!(demanded(&known(Some(&policy))), (true, Proof::Authority, Reason::Sts));
        let stranger = Known { host: "mx.evil.test", ..known(Some(&policy)) };
        assert!(decide(&stranger).unwrap_err().starts_with("4.7.5 mx.evil.test is not among"));
    }

    #[test]
    fn dane_comes_before_mta_sts() {
        let policy = policy("enforce");
        let dane = |dane| Known { dane, ..known(Some(&policy)) };
        assert_eq!(demanded(&dane(Dane::Usable)), (true, Proof::Dns, Reason::Dane));
        assert_eq!(demanded(&dane(Dane::Unusable)), (true, Proof::None, Reason::Dane));
        assert!(decide(&dane(Dane::Broken)).unwrap_err().starts_with("4.7.5 "));
    }

    #[test]
    fn a_sender_can_demand_what_the_domain_does_not() {
        let wanted = Known { require_tls: true, proved: Some(true), ..known(None) };
        assert!(decide(&Known { proved: Some(false), ..wanted }).unwrap_err().starts_with("5.7.30 "));
        assert!(decide(&Known { proved: None, ..wanted }).unwrap_err().starts_with("4.7.30 "));
        let enforced = policy("enforce");
        assert_eq!(
            demanded(&Known { proved: None, sts: Some(&enforced), ..wanted }),
            (true, Proof::Authority, Reason::Sts)
        );
        assert_eq!(demanded(&wanted), (true, Proof::Authority, Reason::Sender));
        assert_eq!(demanded(&Known { dane: Dane::Unusable, ..wanted }), (true, Proof::Authority, Reason::Sender));
        assert_eq!(demanded(&Known { dane: Dane::Usable, ..wanted }), (true, Proof::Dns, Reason::Dane));
    }

    #[test]
    fn what_was_seen_is_insisted_on() {
        let seen = |level| Known { seen: Some(level), ..known(None) };
        assert_eq!(demanded(&seen(Level::Verified)), (true, Proof::Authority, Reason::Memory));
        assert_eq!(demanded(&seen(Level::Encrypted)), (true, Proof::None, Reason::Memory));
        assert_eq!(demanded(&seen(Level::Clear)), (false, Proof::None, Reason::Nothing));
    }

    #[test]
    fn a_fall_is_told_once_delays_for_its_time_and_is_accepted_then() {
        let mut book = Book::default();
        let insisted = |book: &Book, now| book.insisted("a.test", "mx.a.test", DAY, Timestamp(now));
        let saw = |book: &mut Book, level, now| book.saw("a.test", "mx.a.test", level, DAY, Timestamp(now));
        assert_eq!(insisted(&book, 0), None);
        assert_eq!(saw(&mut book, Level::Encrypted, 0), None);
        assert_eq!(saw(&mut book, Level::Verified, 10), None);
        assert_eq!(insisted(&book, 20), Some(Level::Verified));
        assert_eq!(book.insisted("a.test", "mx.a.test", 0, Timestamp(20)), None, "it can be turned off");
        assert_eq!(saw(&mut book, Level::Clear, 100), Some(Level::Verified));
        assert_eq!(saw(&mut book, Level::Clear, 200), None);
        assert_eq!(insisted(&book, 100 + DAY - 1), Some(Level::Verified));
        assert_eq!(insisted(&book, 100 + DAY), None);
        assert_eq!(saw(&mut book, Level::Clear, 100 + DAY), None);
        assert_eq!(insisted(&book, 101 + DAY), Some(Level::Clear));
        // A fall that was none is forgotten.
        saw(&mut book, Level::Verified, 200 + DAY);
        saw(&mut book, Level::Clear, 300 + DAY);
        saw(&mut book, Level::Verified, 400 + DAY);
        assert_eq!(insisted(&book, 301 + 2 * DAY), Some(Level::Verified));
    }

    #[test]
    fn a_new_server_of_a_domain_that_speaks_tls_should_speak_it_too() {
        let mut book = Book::default();
        book.saw("a.test", "mx1.a.test", Level::Verified, DAY, Timestamp(0));
        assert_eq!(book.insisted("a.test", "mx9.a.test", DAY, Timestamp(1)), Some(Level::Encrypted));
        assert_eq!(book.saw("a.test", "mx2.a.test", Level::Clear, DAY, Timestamp(0)), Some(Level::Encrypted));
        assert_eq!(book.insisted("a.test", "mx2.a.test", DAY, Timestamp(1)), Some(Level::Encrypted));
        assert_eq!(book.insisted("a.test", "mx9.a.test", DAY, Timestamp(1)), None);
        assert_eq!(book.insisted("b.test", "mx9.a.test", DAY, Timestamp(1)), None);
    }

    #[test]
    fn a_policy_holds_for_its_time_and_survives_being_written_down() {
        let mut book = Book::default();
        book.keep_policy("a.test", "1", policy("enforce"), Timestamp(1000));
        book.saw("a.test", "mx.a.test", Level::Verified, DAY, Timestamp(1000));
        let book: Book = serde_json::from_str(&serde_json::to_string(&book).unwrap()).unwrap();
        assert_eq!(book.policy("a.test", Timestamp(1099)).map(|(_, id)| id), Some("1"));
        assert_eq!(book.policy("a.test", Timestamp(1100)), None);
        assert!(book.knows("a.test", "mx.a.test", Level::Verified));
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut book = Book::default();
        for number in 0..2000_i64 {
            let domain = format!("d{number}.test");
            book.keep_policy(&domain, "1", policy("testing"), Timestamp(number / 100));
            book.saw(&domain, "mx.test", Level::Encrypted, DAY, Timestamp(number));
            book.saw("many.test", &format!("mx{number}.test"), Level::Encrypted, DAY, Timestamp(number));
        }
        assert!(book.policies.len() <= POLICIES_MAX && book.domains.len() <= DOMAINS_MAX);
        assert_eq!(book.domains.get("many.test").map(BTreeMap::len), Some(HOSTS_MAX));
        assert!(book.domains.contains_key("d1999.test") && !book.domains.contains_key("d0.test"));
    }
}
