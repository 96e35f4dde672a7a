//! Questions to the DNS (RFC 1035), answered by hickory with a cache that has a bound.
//!
//! Every name is asked as it is: no search list, no `/etc/hosts`. `localhost` is this machine for
//! [`Resolver::addresses`] (RFC 6761 section 6.3) and holds nothing else. [`Resolver::validating`] gives the
//! same questions with DNSSEC (RFC 4035), by a second resolver that is made when it is first wanted.
//! Where no server answers, [`DnsError::Unavailable`] comes at once for [`AWAY`] instead of after a time-out
//! for each question; no timer runs for that. A `resolv.conf` that changes is read again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as Fault, NetError};
use hickory_resolver::proto::dnssec::{Proof, TrustAnchors};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{ResolverBuilder, TokioResolver};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

mod heard; // whether any server answers at all

use heard::Heard;

/// How long questions are not asked after no server answered anything.
pub const AWAY: Duration = Duration::from_secs(30);

/// How often at most the system's configuration is looked at for changes.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Most records that are taken of one answer; no name needs as many.
pub const RECORDS_MAX: usize = 100;

/// Bytes of an answer above which it is not remembered, roughly.
const REMEMBERED_MAX: usize = 4096;

/// Most questions at one time: each takes a socket for each server that is asked. Others wait.
pub const QUESTIONS_MAX: usize = 32;

/// Most servers that are asked.
pub const SERVERS_MAX: usize = 4;

/// Where the system says which servers to ask.
const SYSTEM_FILE: &str = "/etc/resolv.conf";

/// How the DNS is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DnsConfig {
    /// Servers to ask, `address:port`, four at most. Default: none, which means those of `/etc/resolv.conf`. A
    /// server on this machine or in the same network is best: lists of spammers' addresses answer no public one.
    pub servers: Vec<SocketAddr>,
    /// How long one question may take, in seconds. Default: 5.
    pub timeout_secs: u16,
    /// Most answers that are remembered. Default: 512; each is 300 bytes or so.
    pub cache_entries: u32,
    /// Longest time that an answer is remembered, in seconds. Default: 3600.
    pub ttl_max_secs: u32,
    /// A file of DNSKEY records to begin DNSSEC validation with. Default: the root's keys.
    pub trust_anchors: Option<PathBuf>,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self { servers: Vec::new(), timeout_secs: 5, cache_entries: 512, ttl_max_secs: 3600, trust_anchors: None }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DnsError {
    /// There is no such name.
    NoSuchName,
    /// The name holds nothing of this kind.
    NoRecords,
    /// DNSSEC says that the answer is forged or broken.
    Bogus,
    /// It cannot be known now; says why.
    Unavailable(String),
}

impl std::fmt::Display for DnsError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSuchName => out.write_str("there is no such name in the DNS"),
            Self::NoRecords => out.write_str("the DNS holds nothing of this kind under the name"),
            Self::Bogus => out.write_str("the DNS's answer does not carry the signature it needs (DNSSEC)"),
            Self::Unavailable(why) => write!(out, "the DNS does not answer: {why}"),
        }
    }
}

impl std::error::Error for DnsError {}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// What it says.
    pub value: T,
    /// It is validated by DNSSEC; never without [`Resolver::validating`].
    pub secure: bool,
}

/// A certificate association (RFC 6698 section 2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlsa {
    /// What the certificate is: 2 an authority, 3 the server's own.
    pub usage: u8,
    /// What of it is compared: 0 all of it, 1 its public key.
    pub selector: u8,
    /// How: 0 as it is, 1 its SHA-256, 2 its SHA-512.
    pub matching: u8,
    /// What it must be.
    pub data: Vec<u8>,
}

/// Asks the DNS. Cheap to clone; clones share cache and sockets.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
    validating: bool,
}

struct Shared {
    config: DnsConfig,
    anchors: Option<Arc<TrustAnchors>>,
    hands: Mutex<Hands>,
    heard: Heard,
    places: Semaphore,
}

/// What is made of the configuration, anew when it changes.
#[derive(Default)]
struct Hands {
    servers: Vec<SocketAddr>,
    plain: Option<TokioResolver>,
    validating: Option<TokioResolver>,
    /// When the system's file was looked at, and what it was.
    looked: Option<Instant>,
    file: Option<(SystemTime, u64)>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Resolver").field("servers", &self.hands().servers).finish_non_exhaustive()
    }
}

impl Resolver {
    /// Makes a resolver; asks nothing.
    ///
    /// # Errors
    /// The file of trust anchors cannot be read, or a resolver cannot be made.
    pub fn new(config: &DnsConfig) -> io::Result<Self> {
        let read = |path: &PathBuf| {
            TrustAnchors::from_file(path)
                .map_err(|error| io::Error::other(format!("{}: no DNSKEY records: {error}", path.display())))
        };
        let anchors = config.trust_anchors.as_ref().map(read).transpose()?.map(Arc::new);
        let shared = Shared {
            config: config.clone(),
            anchors,
            hands: Mutex::default(),
            heard: Heard::default(),
            places: Semaphore::new(QUESTIONS_MAX),
        };
        let resolver = Self { shared: Arc::new(shared), validating: false };
        let mut hands = resolver.hands();
        if !config.servers.is_empty() {
            hands.servers = config.servers.iter().copied().take(SERVERS_MAX).collect();
            hands.plain = Some(resolver.make(&hands.servers, false)?);
        }
        drop(hands);
        Ok(resolver)
    }

    /// The same with DNSSEC: an answer that lacks the signatures it needs is [`DnsError::Bogus`], one that has
    /// them [`Found::secure`].
    #[must_use]
    pub fn validating(&self) -> Self {
        Self { shared: self.shared.clone(), validating: true }
    }

    /// The servers that take a domain's mail, by preference, lowest first (RFC 5321 section 5.1). One whose name
    /// is empty says that the domain takes none (RFC 7505).
    pub async fn mx(&self, domain: &str) -> Result<Found<Vec<(u16, String)>>, DnsError> {
        let mut found = self
            .ask_all(name_of(domain)?, RecordType::MX, |data| match data {
                RData::MX(mx) => Some((mx.preference, plain_name(&mx.exchange))),
                _ => None,
            })
            .await?;
        // Of too many the best are kept, wherever they stand.
        found.value.sort_by_key(|(preference, _)| *preference);
        found.value.truncate(RECORDS_MAX);
        Ok(found)
    }

    /// A host's addresses, IPv6 first.
    pub async fn addresses(&self, host: &str) -> Result<Found<Vec<IpAddr>>, DnsError> {
        let name = name_of(host)?;
        if name.is_localhost() {
            let value = vec![IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)];
            return Ok(Found { value, secure: false });
        }
        let six = self.ask(name.clone(), RecordType::AAAA, address_in);
        let (six, four) = tokio::join!(six, self.ask(name, RecordType::A, address_in));
        match (six, four) {
            (Ok(mut six), Ok(four)) => {
                six.value.extend(four.value);
                Ok(Found { value: six.value, secure: six.secure && four.secure })
            }
            // Half of an answer is one. Where the other half is forged, or cannot be proven to be nothing, what is
            // proven is used alone.
            (Ok(found), Err(_)) | (Err(_), Ok(found)) => Ok(found),
            (Err(DnsError::Bogus), _) | (_, Err(DnsError::Bogus)) => Err(DnsError::Bogus),
            (Err(DnsError::Unavailable(why)), _) | (_, Err(DnsError::Unavailable(why))) => {
                Err(DnsError::Unavailable(why))
            }
            (Err(_), Err(error)) => Err(error),
        }
    }

    /// A host's addresses of one kind: IPv6 or IPv4.
    pub async fn addresses_of(&self, host: &str, six: bool) -> Result<Found<Vec<IpAddr>>, DnsError> {
        let name = name_of(host)?;
        if six {
            self.ask(name, RecordType::AAAA, address_in).await
        } else {
            self.ask(name, RecordType::A, address_in).await
        }
    }

    /// The texts under a name, each whole, bytes that are no UTF-8 replaced.
    pub async fn txt(&self, name: &str) -> Result<Found<Vec<String>>, DnsError> {
        self.ask(name_of(name)?, RecordType::TXT, |data| match data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        })
        .await
    }

    /// The certificate associations under a name such as `_25._tcp.mx.example` (RFC 6698 section 3). Worth
    /// something only if [`Found::secure`]: ask [`Resolver::validating`].
    pub async fn tlsa(&self, name: &str) -> Result<Found<Vec<Tlsa>>, DnsError> {
        self.ask(name_of(name)?, RecordType::TLSA, |data| match data {
            RData::TLSA(tlsa) => Some(Tlsa {
                usage: tlsa.cert_usage.into(),
                selector: tlsa.selector.into(),
                matching: tlsa.matching.into(),
                data: tlsa.cert_data.clone(),
            }),
            _ => None,
        })
        .await
    }

    /// Where a service is: priority, weight, port, host (RFC 2782); a host that is empty says nowhere.
    pub async fn srv(&self, name: &str) -> Result<Found<Vec<(u16, u16, u16, String)>>, DnsError> {
        self.ask(name_of(name)?, RecordType::SRV, |data| match data {
            RData::SRV(srv) => Some((srv.priority, srv.weight, srv.port, plain_name(&srv.target))),
            _ => None,
        })
        .await
    }

    /// The names of an address (RFC 1035 section 3.5).
    pub async fn ptr(&self, ip: IpAddr) -> Result<Found<Vec<String>>, DnsError> {
        self.ask(Name::from(ip.to_canonical()), RecordType::PTR, |data| match data {
            RData::PTR(ptr) => Some(plain_name(&ptr.0)),
            _ => None,
        })
        .await
    }

    /// Tells whether there is no use in asking now, because there is no server or none answers.
    #[must_use]
    pub fn is_away(&self) -> bool {
        let mut hands = self.hands();
        self.look_again(&mut hands);
        hands.servers.is_empty() || self.shared.heard.is_away()
    }

    /// The resolver itself, for what asks by itself; [`DnsError::Unavailable`] while there is no use in it.
    pub(super) fn hand(&self) -> Result<TokioResolver, DnsError> {
        let mut hands = self.hands();
        self.look_again(&mut hands);
        if hands.servers.is_empty() {
            return Err(DnsError::Unavailable("no DNS server is known".to_owned()));
        }
        if !self.shared.heard.may_ask() {
            return Err(DnsError::Unavailable("no DNS server answered lately".to_owned()));
        }
        let made = if self.validating { &hands.validating } else { &hands.plain };
        if let Some(hand) = made {
            return Ok(hand.clone());
        }
        let made = self.make(&hands.servers, self.validating);
        let hand = made.map_err(|error| DnsError::Unavailable(error.to_string()))?;
        *(if self.validating { &mut hands.validating } else { &mut hands.plain }) = Some(hand.clone());
        Ok(hand)
    }

    /// Takes note that a question had no answer. Should no server answer another one either, none is asked for
    /// [`AWAY`]. Returns whether that is so.
    pub(super) async fn unanswered(&self) -> bool {
        let servers = self.hands().servers.clone();
        self.shared.heard.unanswered(&servers).await
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.shared.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the system's file if it is another than before: a laptop's or a ship's network comes and goes.
    fn look_again(&self, hands: &mut Hands) {
        if !self.shared.config.servers.is_empty() || hands.looked.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
            return;
        }
        hands.looked = Some(Instant::now());
        let facts = std::fs::metadata(SYSTEM_FILE);
        let file = facts.ok().and_then(|facts| Some((facts.modified().ok()?, facts.len())));
        if file != hands.file {
            let servers = system_servers(Path::new(SYSTEM_FILE));
            if servers != hands.servers {
                *hands = Hands { servers, looked: hands.looked, ..Hands::default() };
                self.shared.heard.forget();
            }
            hands.file = file;
        }
    }

    fn make(&self, servers: &[SocketAddr], validate: bool) -> io::Result<TokioResolver> {
        let mut options = options(&self.shared.config);
        options.validate = validate;
        let mut builder = builder(servers, options)?;
        if validate && let Some(anchors) = &self.shared.anchors {
            builder = builder.with_trust_anchor(anchors.clone());
        }
        builder.build().map_err(io::Error::other)
    }

    /// The first records of an answer.
    async fn ask<T>(
        &self,
        name: Name,
        kind: RecordType,
        of: impl Fn(&RData) -> Option<T>,
    ) -> Result<Found<Vec<T>>, DnsError> {
        let mut found = self.ask_all(name, kind, of).await?;
        found.value.truncate(RECORDS_MAX);
        Ok(found)
    }

    /// All records of an answer, which has 64 KiB at most.
    async fn ask_all<T>(
        &self,
        name: Name,
        kind: RecordType,
        of: impl Fn(&RData) -> Option<T>,
    ) -> Result<Found<Vec<T>>, DnsError> {
        let _place = self.shared.places.acquire().await;
        // Asked after the wait: meanwhile the DNS may have been found away.
        let asking = self.hand()?;
        let answer = tokio::time::timeout(patience(&self.shared.config), asking.lookup(name, kind)).await;
        match answer.unwrap_or(Err(NetError::Timeout)) {
            Ok(lookup) => {
                self.shared.heard.answered();
                let secure = self.validating && is_secure(&lookup);
                if is_large(&lookup) {
                    // Under the name that was asked, and under each that it led to.
                    let names = lookup.answers().iter().map(|record| &record.name);
                    names.for_each(|name| asking.clear_lookup_cache(name.clone(), kind));
                    asking.clear_lookup_cache(lookup.query().name().clone(), kind);
                }
                let records = lookup.answers().iter().filter(|record| record.record_type() == kind);
                let value: Vec<T> = records.filter_map(|record| of(&record.data)).collect();
                if value.is_empty() { Err(DnsError::NoRecords) } else { Ok(Found { value, secure }) }
            }
            Err(error) => {
                if is_silence(&error) {
                    self.unanswered().await;
                } else {
                    self.shared.heard.answered();
                }
                Err(what_of(&error))
            }
        }
    }
}

/// Makes a resolver of hickory's.
pub(super) fn make(servers: &[SocketAddr], config: &DnsConfig) -> io::Result<TokioResolver> {
    builder(servers, options(config))?.build().map_err(io::Error::other)
}

fn builder(servers: &[SocketAddr], options: ResolverOpts) -> io::Result<ResolverBuilder<TokioRuntimeProvider>> {
    let server = |address: &SocketAddr| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = address.port();
            connection
        });
        NameServerConfig::new(address.ip(), true, connections.to_vec())
    };
    let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    // Names are asked in clear here; without this the system's certificates would be loaded.
    Ok(builder.with_options(options).with_tls_config(no_tls()?))
}

fn options(config: &DnsConfig) -> ResolverOpts {
    let longest = Some(Duration::from_secs(u64::from(config.ttl_max_secs)));
    let mut options = ResolverOpts::default();
    // A lost datagram is sent again once within the time a question may take.
    options.timeout = patience(config) / 2;
    options.attempts = 1;
    options.cache_size = u64::from(config.cache_entries);
    options.positive_max_ttl = longest;
    options.negative_max_ttl = longest;
    options.use_hosts_file = ResolveHosts::Never;
    // Two servers are asked at one time, so one that is dead costs nothing.
    options.num_concurrent_reqs = 2;
    options.edns_payload_len = 1232; // what passes everywhere in one piece (DNS flag day 2020)
    options
}

/// How long one question may take.
fn patience(config: &DnsConfig) -> Duration {
    Duration::from_secs(u64::from(config.timeout_secs.max(1)))
}

fn address_in(data: &RData) -> Option<IpAddr> {
    match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
        _ => None,
    }
}

/// Whether an answer is too large to be remembered: whoever fills a name must not fill our memory.
fn is_large(lookup: &Lookup) -> bool {
    let records = lookup.message().all_sections();
    let size = |data: &RData| match data {
        RData::TXT(txt) => txt.txt_data.iter().map(|part| part.len()).sum(),
        _ => 100,
    };
    records.map(|record| size(&record.data)).sum::<usize>() > REMEMBERED_MAX
}

/// Every record of the answer is validated.
fn is_secure(lookup: &Lookup) -> bool {
    !lookup.answers().is_empty() && lookup.answers().iter().all(|record| record.proof == Proof::Secure)
}

/// Nothing came back.
fn is_silence(error: &NetError) -> bool {
    matches!(error, NetError::Timeout | NetError::Io(_) | NetError::NoConnections | NetError::Busy)
}

fn what_of(error: &NetError) -> DnsError {
    let missing = |code| if code == ResponseCode::NXDomain { DnsError::NoSuchName } else { DnsError::NoRecords };
    match error {
        NetError::Dns(Fault::NoRecordsFound(none)) => missing(none.response_code),
        NetError::Dns(Fault::Nsec { response, proof, .. }) => match proof {
            Proof::Bogus => DnsError::Bogus,
            _ => missing(response.metadata.response_code),
        },
        NetError::Dns(Fault::DnssecBogus) => DnsError::Bogus,
        NetError::Dns(Fault::ResponseCode(code)) => DnsError::Unavailable(format!("the server says {code}")),
        error => DnsError::Unavailable(error.to_string()),
    }
}

/// A name as it is asked, whole and in A-labels (RFC 5891). What can be no name is not in the DNS.
fn name_of(text: &str) -> Result<Name, DnsError> {
    if text.is_empty() || text.starts_with('[') || text.parse::<IpAddr>().is_ok() {
        return Err(DnsError::NoSuchName);
    }
    // What no host is called may still be a name: SPF makes some of what clients say.
    let labels = || Name::from_labels(text.trim_end_matches('.').split('.').map(str::as_bytes));
    let mut name = Name::from_str_relaxed(text).or_else(|_| labels()).map_err(|_| DnsError::NoSuchName)?;
    name.set_fqdn(true);
    Ok(name)
}

/// A name in lower case without the last dot; the root is empty. Printable labels stand as they are, so that such
/// a name can be asked again; others are escaped (RFC 1035 section 5.1).
fn plain_name(name: &Name) -> String {
    let plain = |label: &[u8]| label.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
    if !name.iter().all(plain) {
        return name.to_lowercase().to_ascii().trim_end_matches('.').to_owned();
    }
    let labels: Vec<_> = name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    labels.join(".")
}

/// The servers that a `resolv.conf` names; none where there is none.
fn system_servers(path: &Path) -> Vec<SocketAddr> {
    let Ok(text) = std::fs::read(path) else { return Vec::new() };
    let Ok((config, _)) = hickory_resolver::system_conf::parse_resolv_conf(text) else { return Vec::new() };
    config.name_servers().iter().map(|server| SocketAddr::new(server.ip, 53)).take(SERVERS_MAX).collect()
}

/// TLS that trusts nobody.
fn no_tls() -> io::Result<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(io::Error::other)?;
    Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_asked_whole_and_in_a_labels() {
        assert_eq!(name_of("Bücher.example").unwrap().to_ascii(), "xn--bcher-kva.example.");
        assert_eq!(name_of("_25._tcp.mx.example").unwrap().to_ascii(), "_25._tcp.mx.example.");
        assert!(name_of("mx").unwrap().is_fqdn());
        for none in ["", "[192.0.2.1]", "192.0.2.1", &"a".repeat(64), &"a.".repeat(200)] {
            assert_eq!(name_of(none), Err(DnsError::NoSuchName), "{none}");
        }
        assert_eq!(plain_name(&name_of("MX.Example.").unwrap()), "mx.example");
        assert_eq!(plain_name(&Name::root()), "");
    }

    #[test]
    fn the_systems_servers_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        assert_eq!(system_servers(&path), []);
        std::fs::write(&path, "search lan\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n").unwrap();
        assert_eq!(system_servers(&path), ["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:53".parse().unwrap()]);
        std::fs::write(&path, "search lan\n").unwrap();
        assert_eq!(system_servers(&path), []);
    }
}
