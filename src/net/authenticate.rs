//! Finds out about senders what the DNS tells: SPF, DKIM, DMARC, ARC, reverse DNS, lists of addresses.
//!
//! Facts only; what they mean is `filter::sender`'s. Every check has bounds: the number of look-ups, the sizes of
//! records, the depth of includes, and [`TOGETHER_MAX`] for all of one message. Where the DNS is away the answer is
//! [`Verdict::Unchecked`], at once.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use mail_auth::MessageAuthenticator;
use tokio::time::timeout;

use super::resolver::{DnsConfig, DnsError, Resolver};
use crate::mail::authentication::{Chain, Dmarc, Findings, Listing, Reverse, Signature, Spf, Verdict};
use crate::mail::signed::Signed;

mod destination; // where DMARC reports may go
mod message; // DKIM, ARC and DMARC
mod record; //  SPF records and their macros
mod spf; //     SPF

pub use destination::takes_reports;
pub use message::{NAMES_MAX, SETS_MAX, SIGNATURES_MAX};
pub use spf::{Asked, HOSTS_MAX, LOOKUPS_MAX, RECORD_MAX, VOIDS_MAX};

/// How long all checks of one message, or of one connection, may take together.
pub const TOGETHER_MAX: Duration = Duration::from_secs(20);

/// Most lists that are asked.
pub const LISTS_MAX: usize = 16;

/// Names of an address that are looked at.
const NAMES_OF_ADDRESS_MAX: usize = 4;

/// Finds out about senders. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    resolver: Resolver,
    host: Arc<str>,
    /// Asks nobody: it is handed the answers.
    judge: MessageAuthenticator,
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Authenticator").field("resolver", &self.resolver).finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Sets up the checks; `host` is our own name. Asks nothing.
    ///
    /// # Errors
    /// The library cannot be set up.
    pub fn new(resolver: Resolver, host: Arc<str>) -> std::io::Result<Self> {
        let judge = MessageAuthenticator(nobody()?);
        Ok(Self { resolver, host, judge })
    }

    /// May this address send for this domain? `from` is MAIL FROM without its brackets.
    pub async fn spf(&self, ip: IpAddr, helo: &str, from: &str) -> Spf {
        let asked = Asked { ip, helo, from, host: &self.host };
        timeout(TOGETHER_MAX, spf::check(&self.resolver, &asked)).await.unwrap_or_else(|_| Spf {
            verdict: Verdict::TempError,
            domain: from.rsplit_once('@').map_or(helo, |(_, domain)| domain).to_ascii_lowercase(),
            helo: from.is_empty(),
            reason: too_long(),
            explanation: None,
        })
    }

    /// What the message proves, given what SPF said. As long as the body has not ended, it is taken to be what
    /// the signatures say it is.
    pub async fn message(&self, signed: &Signed, spf: &Spf) -> (Vec<Signature>, Chain, Dmarc) {
        let checking = message::check(&self.resolver, &self.judge, signed, spf);
        if let Ok(found) = timeout(TOGETHER_MAX, checking).await {
            return (found.dkim, found.arc, found.dmarc);
        }
        let arc = Chain { verdict: Verdict::TempError, reason: too_long(), ..Chain::default() };
        let dmarc = Dmarc { verdict: Verdict::TempError, reason: too_long(), ..Dmarc::default() };
        (Vec::new(), arc, dmarc)
    }

    /// SPF, reverse DNS and what the message proves, all together.
    pub async fn findings(&self, ip: IpAddr, helo: &str, from: &str, signed: &Signed) -> Findings {
        let (spf, reverse) = tokio::join!(self.spf(ip, helo, from), self.reverse(ip));
        let (dkim, arc, dmarc) = self.message(signed, &spf).await;
        let helo = Some(helo.to_owned()).filter(|helo| !helo.is_empty());
        Findings { client: Some(ip), helo, spf, dkim, arc, dmarc, reverse, listing: Listing::default() }
    }

    /// Does the address's name lead back to it?
    pub async fn reverse(&self, ip: IpAddr) -> Reverse {
        let looking = async {
            let names = match self.resolver.ptr(ip).await {
                Ok(found) => found.value,
                Err(error) => return Reverse { verdict: self.without(&error), name: None },
            };
            let mut verdict = Verdict::Fail;
            for name in names.iter().take(NAMES_OF_ADDRESS_MAX) {
                match self.resolver.addresses_of(name, ip.to_canonical().is_ipv6()).await {
                    Ok(found) if found.value.contains(&ip.to_canonical()) => {
                        return Reverse { verdict: Verdict::Pass, name: Some(name.clone()) };
                    }
                    Ok(_) | Err(DnsError::NoSuchName | DnsError::NoRecords) => {}
                    Err(error) => verdict = self.without(&error),
                }
            }
            Reverse { verdict, name: names.into_iter().next() }
        };
        let late = Reverse { verdict: Verdict::TempError, name: None };
        timeout(TOGETHER_MAX, looking).await.unwrap_or(late)
    }

    /// Which of these lists have the address (RFC 5782). A list that does not answer has nobody.
    pub async fn listing(&self, ip: IpAddr, block: &[String], allow: &[String]) -> Listing {
        let asked = |lists: &[String]| lists.iter().take(LISTS_MAX).cloned().collect::<Vec<_>>();
        let mut asking = tokio::task::JoinSet::new();
        for (zone, blocks) in
            asked(block).into_iter().map(|zone| (zone, true)).chain(asked(allow).into_iter().map(|zone| (zone, false)))
        {
            let (resolver, name) = (self.resolver.clone(), format!("{}.{zone}", reversed(ip)));
            asking.spawn(async move { (resolver.addresses_of(&name, false).await, zone, blocks) });
        }
        let mut listing = Listing::default();
        let gathering = async {
            while let Some(answer) = asking.join_next().await {
                if let Ok((Ok(found), zone, blocks)) = answer
                    && found.value.iter().any(is_listed)
                {
                    if blocks { listing.blocked.push(zone) } else { listing.allowed.push(zone) }
                }
            }
        };
        // What was heard until then counts.
        let _ = timeout(TOGETHER_MAX, gathering).await;
        listing
    }

    /// What a missing answer means.
    fn without(&self, error: &DnsError) -> Verdict {
        match error {
            DnsError::NoSuchName | DnsError::NoRecords => Verdict::None,
            DnsError::Unavailable(_) if self.resolver.is_away() => Verdict::Unchecked,
            DnsError::Unavailable(_) | DnsError::Bogus => Verdict::TempError,
        }
    }
}

fn too_long() -> String {
    format!("it took longer than {} seconds", TOGETHER_MAX.as_secs())
}

/// A resolver without servers.
fn nobody() -> std::io::Result<TokioResolver> {
    super::resolver::make(&[] as &[SocketAddr], &DnsConfig { cache_entries: 0, ..DnsConfig::default() })
}

/// The address as lists and SPF spell it: octets or hexadecimal digits, the last one first (RFC 5782 section 2.1).
fn reversed(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(four) => {
            let [a, b, c, d] = four.octets();
            format!("{d}.{c}.{b}.{a}")
        }
        IpAddr::V6(six) => {
            let digits = six.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            digits.map(|digit| format!("{digit:x}")).collect::<Vec<_>>().join(".")
        }
    }
}

/// An answer means "it is listed" within 127.0.0.0/8 alone; 127.255.255.0/24 is where lists say that they would
/// not be asked this way.
fn is_listed(answer: &IpAddr) -> bool {
    matches!(answer, IpAddr::V4(four) if four.octets()[0] == 127 && !matches!(four.octets(), [_, 255, 255, _]))
}

/// The domain itself or a name below it.
fn is_within(name: &str, domain: &str) -> bool {
    name == domain || name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_spelled_backwards_for_lists() {
        assert_eq!(reversed("192.0.2.99".parse().unwrap()), "99.2.0.192");
        assert_eq!(
            reversed("2001:db8:1:2:3:4:567:89ab".parse().unwrap()),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2"
        );
    }

    #[test]
    fn an_answer_that_is_no_listing_lists_nobody() {
        let listed = |text: &str| is_listed(&text.parse().unwrap());
        assert!(listed("127.0.0.2") && listed("127.0.1.4"));
        assert!(!listed("127.255.255.254") && !listed("192.0.2.1") && !listed("::1"));
    }
}
