//! `pillarbox dns`: what a domain has to publish, and whether DNS says so.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::backup::default_config;
use super::office::{DataOffice, Failure, Office as _, OfficeArgs};
use super::{dkim, show};
use crate::config::Settings;
use crate::daemon::control::{DkimTask, Order, Outcome};
use crate::daemon::listen::Service;
use crate::flow::dkim::{KeyRow, Turn, dns_name};
use crate::flow::publish::{
    Answer, Data, Finding, Host, Need, Publication, Purpose, Record, State, autoconfig, compare, host_pointer,
    publication, zone,
};
use crate::net::resolver::{DnsError, Found, Resolver};
use crate::net::tls::{TlsConfig, TlsServer};

/// Print the DNS records that a domain needs, or compare them with what DNS says
///
/// Prints a zone file with a comment on each record. With `--check` it asks DNS and explains each difference; the
/// exit code is 1 when something should be done.
#[derive(Clone, Debug, clap::Args)]
pub struct DnsArgs {
    #[command(flatten)]
    office: OfficeArgs,
    /// The domain
    domain: String,
    /// Compare with what DNS says
    #[arg(long)]
    check: bool,
    /// Ask this DNS server
    #[arg(long, value_name = "HOST:PORT", requires = "check")]
    dns: Option<SocketAddr>,
    /// The server's config file [default: pillarbox.toml in /etc/pillarbox or /etc]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print a file for a web server instead
    #[arg(long, value_enum, conflicts_with = "check")]
    file: Option<WebFile>,
}

/// A file that belongs on a web server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum WebFile {
    /// For <https://mta-sts.DOMAIN/.well-known/mta-sts.txt>
    MtaSts,
    /// For <http://autoconfig.DOMAIN/mail/config-v1.1.xml>
    Autoconfig,
}

/// Runs the command; answers with its exit code.
///
/// # Errors
/// One sentence.
pub fn run(args: &DnsArgs) -> Result<ExitCode, Failure> {
    let settings = match default_config(args.config.as_deref()) {
        Some(path) => Settings::load(path).map_err(|error| Failure(error.to_string()))?,
        None => Settings::default(),
    };
    let mut office = DataOffice::open(&args.office.data)?;
    let host = host(&mut office, &settings, &args.office.data);
    let (keys, _) = dkim::ask(&mut office, &args.domain, DkimTask::Show)?;
    let told = publication(&args.domain, &host, &keys).map_err(|error| Failure(error.to_string()))?;
    let mut out = io::stdout().lock();
    match args.file {
        Some(WebFile::MtaSts) => write!(out, "{}", told.mta_sts_policy)?,
        Some(WebFile::Autoconfig) => write!(out, "{}", autoconfig(&told.domain, &host))?,
        None if args.check => {
            let mut config = settings.dns.clone();
            config.servers = args.dns.map_or(config.servers, |server| vec![server]);
            let resolver = Resolver::new(&config)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let findings = runtime.block_on(check(&told, &host, &resolver));
            let began = begin(&mut office, &args.domain, &keys, &findings)?;
            if args.office.json {
                show::json(
                    &mut out,
                    &json!({ "domain": told.domain, "notes": told.notes, "findings": findings, "signing": began }),
                )?;
            } else {
                tell(&mut out, &told, &findings, &began)?;
            }
            let good = !findings.iter().any(|finding| finding.counts);
            return Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        None if args.office.json => {
            let Publication { domain, notes, records, mta_sts_policy } = &told;
            let all = json!({ "domain": domain, "notes": notes, "records": records, "mta-sts-policy": mta_sts_policy });
            show::json(&mut out, &all)?;
        }
        None => write!(out, "{}", zone(&told))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What of this box is published: the running server knows best, else the config tells.
fn host(office: &mut DataOffice, settings: &Settings, data: &Path) -> Host {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let mut addresses: Vec<IpAddr> = interfaces.iter().map(if_addrs::Interface::ip).filter(is_public).collect();
    addresses.sort();
    addresses.dedup();
    if matches!(office, DataOffice::Server(_))
        && let Ok(Outcome::Status { status }) = office.give(Order::Status)
    {
        let port = |address: &str| address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let listeners = status.listeners.iter();
        let services = listeners.filter_map(|listener| Some((listener.name.clone(), port(&listener.address)?)));
        return Host {
            name: status.hostname.clone(),
            addresses,
            key: status.tls_key_sha256.as_deref().and_then(from_hex),
            public_certificate: !status.own_authority,
            services: services.collect(),
        };
    }
    let public_certificate = settings.tls.certificate.is_some();
    let folder = data.join("tls");
    let own = TlsConfig {
        certificate: Some(folder.join("server.crt")).filter(|path| path.exists()),
        key: Some(folder.join("server.key")).filter(|path| path.exists()),
        ..TlsConfig::default()
    };
    let tls = if public_certificate { settings.tls.clone() } else { own };
    // Without files it would make some, which is the server's matter.
    let server = tls.certificate.is_some().then(|| TlsServer::new(&tls, &settings.hostname(), &folder).ok()).flatten();
    let services = Service::ALL.into_iter().filter(|service| !settings.listen.endpoints(*service).is_empty());
    Host {
        name: settings.hostname(),
        addresses,
        key: server.and_then(|server| server.key_digest()),
        public_certificate,
        services: services.map(|service| (service.name().to_owned(), service.port())).collect(),
    }
}

/// Tells whether the world can reach an address.
fn is_public(address: &IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            let shared = first == 100 && (64..128).contains(&second);
            !(address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_documentation()
                || address.is_unspecified()
                || shared)
        }
        // 2000::/3 is what is given out, but for examples.
        IpAddr::V6(address) => {
            let [first, second, ..] = address.segments();
            first & 0xe000 == 0x2000 && !(first == 0x2001 && second == 0x0db8)
        }
    }
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let bytes = text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    bytes.collect::<Option<Vec<u8>>>()?.try_into().ok()
}

/// Asks for every record, one after another, and for the reverse names of the box's addresses.
async fn check(told: &Publication, host: &Host, resolver: &Resolver) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut addresses = Vec::new();
    let mut rest = told.records.as_slice();
    while let Some(first) = rest.first() {
        // All addresses are one question.
        let count = rest.iter().take_while(|next| first.purpose == Purpose::Address && next.purpose == first.purpose);
        let (group, after) = rest.split_at(count.count().max(1));
        rest = after;
        if first.need == Need::Later && first.purpose != Purpose::Address {
            continue;
        }
        let answer = ask(first, resolver).await;
        if let (Purpose::Address, Answer::Found(found)) = (first.purpose, &answer) {
            addresses
                .extend(found.iter().filter_map(|data| if let Data::Address(ip) = data { Some(*ip) } else { None }));
        }
        findings.extend(compare(&group.iter().collect::<Vec<_>>(), &answer));
    }
    let name = dns_name(&host.name).unwrap_or_default();
    for address in addresses {
        let answer = told_of(resolver.ptr(address).await, |name| Some(Data::Ptr(name)));
        findings.push(host_pointer(address, &name, &answer));
    }
    findings
}

async fn ask(record: &Record, resolver: &Resolver) -> Answer {
    let name = &record.name;
    match record.data {
        Data::Mx(..) => told_of(resolver.mx(name).await, |(preference, host)| Some(Data::Mx(preference, host))),
        Data::Address(_) => told_of(resolver.addresses(name).await, |address| Some(Data::Address(address))),
        Data::Txt(_) => told_of(resolver.txt(name).await, |text| Some(Data::Txt(text))),
        Data::Tlsa(..) => told_of(resolver.tlsa(name).await, |tlsa| {
            Some(Data::Tlsa(tlsa.usage, tlsa.selector, tlsa.matching, crate::flow::publish::hex(&tlsa.data)))
        }),
        Data::Srv(..) => told_of(resolver.srv(name).await, |(priority, weight, port, host)| {
            Some(Data::Srv(priority, weight, port, host))
        }),
        Data::Cname(_) | Data::Ptr(_) => Answer::Unknown("such a record is not looked at".into()),
    }
}

fn told_of<T>(answer: Result<Found<Vec<T>>, DnsError>, data: impl Fn(T) -> Option<Data>) -> Answer {
    match answer {
        Ok(found) => {
            let found: Vec<Data> = found.value.into_iter().filter_map(data).collect();
            if found.is_empty() { Answer::Nothing } else { Answer::Found(found) }
        }
        Err(DnsError::NoSuchName | DnsError::NoRecords) => Answer::Nothing,
        Err(error @ DnsError::Bogus) => Answer::Unknown(error.to_string()),
        Err(DnsError::Unavailable(why)) => Answer::Unknown(why),
    }
}

/// Lets the next pair sign when DNS shows both its keys. Answers with its selectors.
fn begin(office: &mut DataOffice, domain: &str, keys: &[KeyRow], findings: &[Finding]) -> Result<Vec<String>, Failure> {
    let waiting: Vec<&KeyRow> = keys.iter().filter(|key| matches!(key.turn, Turn::Waits(_))).collect();
    let is_shown = |key: &&KeyRow| {
        let prefix = format!("{}._domainkey.", key.selector);
        findings.iter().any(|finding| finding.name.starts_with(&prefix) && finding.state == State::Good)
    };
    if waiting.is_empty() || !waiting.iter().all(is_shown) {
        return Ok(Vec::new());
    }
    Ok(dkim::ask(office, domain, DkimTask::Begin)?.1)
}

fn tell(out: &mut impl Write, told: &Publication, findings: &[Finding], began: &[String]) -> io::Result<()> {
    for note in &told.notes {
        writeln!(out, "{note}\n")?;
    }
    for finding in findings {
        let mark = match finding.state {
            State::Good => "good     ",
            State::Missing if !finding.counts => "absent   ",
            State::Missing => "MISSING  ",
            State::Different => "DIFFERENT",
            State::NotCheckable => "unknown  ",
        };
        writeln!(out, "{mark}  {} {}", finding.name, finding.kind)?;
        writeln!(out, "           {}", finding.text)?;
    }
    if !began.is_empty() {
        writeln!(out, "\nDNS shows the new keys: {} sign from now on.", began.join(" and "))?;
    }
    let wrong = findings.iter().filter(|finding| finding.counts).count();
    let unknown = findings.iter().filter(|finding| finding.state == State::NotCheckable).count();
    match (wrong, unknown) {
        (0, 0) => writeln!(out, "\nAll is well."),
        (0, all) if all == findings.len() => writeln!(out, "\nDNS cannot be asked now, so nothing is known."),
        (0, _) => writeln!(out, "\nWhat could be asked is well; {unknown} could not."),
        _ => writeln!(out, "\nTo be set right: {wrong}. `pillarbox dns {}` prints what should be there.", told.domain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_world_are_published() {
        for address in ["1.1.1.1", "2a01:4f8::1"] {
            assert!(is_public(&address.parse().unwrap()), "{address}");
        }
        for address in
            ["10.1.2.3", "192.168.1.1", "127.0.0.1", "100.64.0.1", "169.254.1.1", "fe80::1", "fd00::1", "::1"]
        {
            assert!(!is_public(&address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_digest_reads_back() {
        assert_eq!(from_hex(&"ab".repeat(32)), Some([0xab; 32]));
        assert_eq!(from_hex("ab"), None);
        assert_eq!(from_hex(&"é".repeat(16)), None);
    }
}
