//! `pillarbox test`: checks on a sender from the command line, with the verdict as one word on the first line.
//!
//! Nothing is sent and no store is opened; only the DNS is asked, the system's servers or those of `--dns`.

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Failure, print};
use crate::mail::authentication::{Findings, Spf, Verdict};
use crate::mail::signed::{Signed, SignedReader};
use crate::net::authenticate::Authenticator;
use crate::net::resolver::{DnsConfig, Resolver};

/// Bytes of a file that are read at once.
const PIECE: usize = 64 << 10;

/// Check a sender: the verdict is one word on the first line, the reasons follow
#[derive(Debug, clap::Args)]
pub(super) struct TestArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// May an address send for a domain (SPF)?
    Spf(SpfArgs),
    /// Do a message's signatures fit (DKIM)?
    Dkim(FileArgs),
    /// Does the chain of those who passed a message on hold (ARC)?
    Arc(FileArgs),
    /// Does SPF or DKIM stand for the domain in From (DMARC)? SPF counts where --ip and --from are given
    Dmarc(FileArgs),
}

#[derive(Debug, clap::Args)]
struct SpfArgs {
    /// The address that sends
    #[arg(long)]
    ip: IpAddr,
    /// What it says in HELO or EHLO
    #[arg(long, value_name = "NAME")]
    helo: String,
    /// The sender in MAIL FROM; empty for a notification
    #[arg(long, value_name = "ADDR")]
    from: String,
    /// The DNS server to ask [default: those of /etc/resolv.conf]
    #[arg(long, value_name = "HOST:PORT")]
    dns: Option<String>,
}

#[derive(Debug, clap::Args)]
struct FileArgs {
    /// The message as it came over the wire; - reads it from standard input
    file: PathBuf,
    /// The address that sent it
    #[arg(long, requires = "from")]
    ip: Option<IpAddr>,
    /// What that said in HELO or EHLO
    #[arg(long, value_name = "NAME", default_value = "")]
    helo: String,
    /// The sender in MAIL FROM
    #[arg(long, value_name = "ADDR", requires = "ip")]
    from: Option<String>,
    /// The DNS server to ask [default: those of /etc/resolv.conf]
    #[arg(long, value_name = "HOST:PORT")]
    dns: Option<String>,
}

/// Runs the command.
pub(super) fn run(args: &TestArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let text = match &args.what {
        What::Spf(args) => {
            let checks = authenticator(args.dns.as_deref())?;
            spf_told(&runtime.block_on(checks.spf(args.ip, &args.helo, args.from.trim_matches(['<', '>']))))
        }
        What::Dkim(args) => dkim_told(&runtime.block_on(looked(args))?),
        What::Arc(args) => arc_told(&runtime.block_on(looked(args))?),
        What::Dmarc(args) => dmarc_told(&runtime.block_on(looked(args))?),
    };
    print(&text)
}

async fn looked(args: &FileArgs) -> Result<Findings, Failure> {
    let signed = read(&args.file).map_err(|error| format!("{}: {error}", args.file.display()))?;
    let checks = authenticator(args.dns.as_deref())?;
    let spf = match (args.ip, &args.from) {
        (Some(ip), Some(from)) => checks.spf(ip, &args.helo, from.trim_matches(['<', '>'])).await,
        _ => Spf {
            verdict: Verdict::None,
            reason: "nobody said who sent it (--ip, --from)".to_owned(),
            ..Spf::default()
        },
    };
    let (dkim, arc, dmarc) = checks.message(&signed, &spf).await;
    Ok(Findings { spf, dkim, arc, dmarc, ..Findings::default() })
}

fn authenticator(dns: Option<&str>) -> Result<Authenticator, Failure> {
    let mut config = DnsConfig::default();
    if let Some(dns) = dns {
        let address = dns.parse::<SocketAddr>().or_else(|_| dns.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
        config.servers = vec![address.map_err(|_| format!("`{dns}` is no DNS server; write `192.0.2.1:53`"))?];
    }
    let host: Arc<str> = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase().into();
    Ok(Authenticator::new(Resolver::new(&config)?, host)?)
}

/// Reads a message whose lines may end as files' lines do.
fn read(path: &Path) -> std::io::Result<Signed> {
    let mut file: Box<dyn std::io::Read> =
        if path == Path::new("-") { Box::new(std::io::stdin()) } else { Box::new(std::fs::File::open(path)?) };
    let (mut reader, mut piece, mut last) = (SignedReader::default(), vec![0; PIECE], 0);
    loop {
        let length = file.read(&mut piece)?;
        if length == 0 {
            return Ok(reader.finish());
        }
        let mut wire = Vec::with_capacity(length + length / 32);
        for &byte in piece.get(..length).unwrap_or_default() {
            if byte == b'\n' && last != b'\r' {
                wire.push(b'\r');
            }
            wire.push(byte);
            last = byte;
        }
        reader.feed(&wire);
    }
}

fn spf_told(spf: &Spf) -> String {
    let identity = if spf.helo { "HELO" } else { "MAIL FROM" };
    let mut text =
        format!("{}\n{}\nthe domain asked is {}, of {identity}\n", spf.verdict, spf.reason, shown(&spf.domain));
    if let Some(explanation) = &spf.explanation {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "the domain says: {explanation}");
    }
    text
}

/// The best signature is the message's.
fn dkim_told(findings: &Findings) -> String {
    let order = [Verdict::Pass, Verdict::Fail, Verdict::PermError, Verdict::TempError, Verdict::Unchecked];
    let rank = |verdict: Verdict| order.iter().position(|one| *one == verdict).unwrap_or(order.len());
    let verdict = findings.dkim.iter().map(|one| one.verdict).min_by_key(|verdict| rank(*verdict));
    let mut text = format!("{}\n", verdict.unwrap_or(Verdict::None));
    for one in &findings.dkim {
        let (domain, selector) = (shown(&one.domain), shown(&one.selector));
        let _ = writeln!(text, "{} for {domain} with key {selector}: {}", one.verdict, one.reason);
    }
    if findings.dkim.is_empty() {
        text.push_str("there is no signature\n");
    }
    text
}

fn arc_told(findings: &Findings) -> String {
    let arc = &findings.arc;
    let mut text = format!("{}\n{}\n", arc.verdict, arc.reason);
    if arc.sets > 0 {
        let _ = writeln!(text, "{} passed it on, {} last", arc.sets, shown(&arc.domain));
    }
    text
}

fn dmarc_told(findings: &Findings) -> String {
    let dmarc = &findings.dmarc;
    let mut text = format!("{}\n{}\n", dmarc.verdict, dmarc.reason);
    if !matches!(dmarc.verdict, Verdict::None | Verdict::PermError) {
        let _ = writeln!(text, "{} wants p={}", shown(&dmarc.domain), dmarc.policy.word());
    }
    let _ = writeln!(text, "SPF: {}: {}", findings.spf.verdict, findings.spf.reason);
    for one in &findings.dkim {
        let _ = writeln!(text, "DKIM: {} for {}: {}", one.verdict, shown(&one.domain), one.reason);
    }
    text
}

/// A name that a message or the DNS holds, without what a terminal would obey.
fn shown(name: &str) -> String {
    let name: String = name.chars().filter(|c| !c.is_control()).take(253).collect();
    if name.is_empty() { "(none)".to_owned() } else { name }
}
