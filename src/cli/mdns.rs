//! `pillarbox mdns`: the box's name and services in the local network (RFC 6762, RFC 6763).
//!
//! A process of its own beside the server, so that a host with another responder (avahi) leaves it out. It
//! answers questions and asks none, and does not look for new addresses by itself: whoever changes them ends
//! it, and it is started again.

use std::path::PathBuf;

use mdns_sd::{DaemonEvent, ServiceDaemon, ServiceInfo};
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use crate::config::Settings;
use crate::daemon::listen::Service;
use crate::net::listener::Endpoint;

/// Arguments of `mdns`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The config file of the server, which says on which ports it listens
    #[arg(long, value_name = "FILE", default_value = "/etc/pillarbox/pillarbox.toml")]
    config: PathBuf,
    /// The name, without `.local`
    #[arg(long, default_value = "pillarbox")]
    name: String,
}

/// What mail programs look for (RFC 6186, RFC 8314); port 25 is no service of theirs.
fn kind(service: Service) -> Option<&'static str> {
    match service {
        Service::Smtp => None,
        Service::Submission => Some("_submission._tcp.local."),
        Service::Submissions => Some("_submissions._tcp.local."),
        Service::Imap => Some("_imap._tcp.local."),
        Service::Imaps => Some("_imaps._tcp.local."),
        Service::Pop3 => Some("_pop3._tcp.local."),
        Service::Pop3s => Some("_pop3s._tcp.local."),
    }
}

/// The services with their ports, as the settings have them.
fn offered(settings: &Settings) -> Vec<(&'static str, u16)> {
    let port = |endpoint: &Endpoint| match endpoint {
        Endpoint::At(address) if address.ip().is_loopback() => None,
        Endpoint::At(address) => Some(address.port()),
        Endpoint::Any(port) => Some(*port),
    };
    Service::ALL
        .into_iter()
        .filter_map(|service| {
            let port = settings.listen.endpoints(service).iter().find_map(port)?;
            Some((kind(service)?, port))
        })
        .collect()
}

/// Answers until a signal says stop.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let settings = Settings::load(&args.config)?;
    let daemon = ServiceDaemon::new()?;
    // Nothing polls: new addresses are told by a restart.
    daemon.set_ip_check_interval(0)?;
    let host = format!("{}.local.", args.name);
    for (kind, port) in offered(&settings) {
        let info = ServiceInfo::new(kind, &args.name, &host, "", port, None)?.enable_addr_auto();
        daemon.register(info)?;
    }
    let events = daemon.monitor()?;
    std::thread::Builder::new().stack_size(128 << 10).spawn(move || {
        while let Ok(event) = events.recv() {
            match event {
                DaemonEvent::Error(error) => eprintln!("pillarbox: mDNS: {error}"),
                DaemonEvent::NameChange(change) => eprintln!("pillarbox: mDNS: the name is taken: {change:?}"),
                _ => {}
            }
        }
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok::<(), std::io::Error>(())
    })?;
    // The goodbye, so that nobody waits for a name that has gone.
    let gone = daemon.shutdown()?;
    let _ = gone.recv_timeout(std::time::Duration::from_secs(2));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_listens_for_the_network_is_offered_with_its_port() {
        let text =
            "[listen]\nimap = []\nimaps = [\"*:1993\"]\npop3 = [\"127.0.0.1:110\"]\npop3s = [\"192.0.2.1:995\"]\n";
        let settings = Settings::parse(text, Path::new("x")).unwrap();
        let offered = offered(&settings);
        assert!(offered.contains(&("_imaps._tcp.local.", 1993)) && offered.contains(&("_pop3s._tcp.local.", 995)));
        assert!(
            !offered.iter().any(|(kind, _)| kind.starts_with("_imap.") || kind.starts_with("_pop3.")),
            "{offered:?}"
        );
    }
}
