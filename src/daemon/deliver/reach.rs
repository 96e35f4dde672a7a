//! Finding a way's servers and their addresses, and telling a dead server from a dead network.
//!
//! What the DNS or the network cannot say now is no failure of the destination: as long as the whole
//! network is away nothing counts towards giving up. So where an attempt fails in a manner that a
//! missing network would explain, that is looked into before anything is noted.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;

use super::Hub;
use crate::daemon::login::random;
use crate::mail::address::Domain;
use crate::net::outgoing::{Source, connect};
use crate::net::resolver::DnsError;
use crate::net::uplink;
use crate::queue::route::{Host, Mx, Place, Way, literal, servers};

/// How long one server's addresses may take to answer.
const CONNECT_MAX: Duration = Duration::from_secs(45);

/// How long a connection that succeeded says that the network is there.
const EVIDENCE: Duration = Duration::from_mins(5);

/// Why nothing was reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing ever will be; the text begins with an enhanced status code.
    Never(String),
    /// Not now; the same.
    Later(String),
    /// The network is away.
    Away,
}

/// A server to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Which.
    pub(super) place: Place,
    /// The relay of this number.
    pub(super) relay: Option<usize>,
}

impl Hub {
    /// The servers of a way, in the order in which they are tried.
    pub(super) async fn targets(&self, way: &Way) -> Result<Vec<Target>, Trouble> {
        match way {
            Way::Place(place) => Ok(vec![Target { place: place.clone(), relay: None }]),
            Way::Relay(number) => {
                let relay = self.relays.get(*number);
                let relay =
                    relay.ok_or_else(|| Trouble::Later("4.3.5 the relay is not in the settings any more".into()))?;
                Ok(vec![Target { place: relay.place.clone(), relay: Some(*number) }])
            }
            Way::Direct(domain) => {
                let at = |host| Target { place: Place { host, port: self.exit.config.port }, relay: None };
                if let Some(address) = literal(domain) {
                    let address = address.map_err(|never| Trouble::Never(never.to_string()))?;
                    return Ok(vec![at(Host::Address(address))]);
                }
                let mx = match self.resolver.mx(domain.as_str()).await {
                    Ok(found) => Mx::Records(found.value),
                    Err(DnsError::NoRecords) => Mx::None,
                    Err(DnsError::NoSuchName) => Mx::NoSuchDomain,
                    Err(error) => return Err(self.unanswered(domain.as_str(), &error).await),
                };
                let chance = u32::from_ne_bytes(random());
                let found = servers(domain, mx, &self.exit.host, chance);
                Ok(found.map_err(|never| Trouble::Never(never.to_string()))?.into_iter().map(at).collect())
            }
        }
    }

    /// The addresses of a server.
    pub(super) async fn addresses(&self, place: &Place) -> Result<Vec<SocketAddr>, Trouble> {
        let at = |address| SocketAddr::new(address, place.port);
        let name = match &place.host {
            Host::Address(address) => return Ok(vec![at(*address)]),
            Host::Name(name) => name,
        };
        match self.resolver.addresses(name).await {
            Ok(found) => Ok(found.value.into_iter().map(at).collect()),
            Err(DnsError::NoSuchName | DnsError::NoRecords) => {
                Err(Trouble::Never(format!("5.4.4 {name}, which is to take the mail, has no address")))
            }
            Err(error) => Err(self.unanswered(name, &error).await),
        }
    }

    /// Connects to a server.
    pub(super) async fn connect(&self, place: &Place, addresses: &[SocketAddr]) -> Result<TcpStream, Trouble> {
        match connect(addresses, Source::default(), CONNECT_MAX).await {
            Ok(socket) => {
                self.network_is_there();
                Ok(socket)
            }
            Err(error) if self.explains(&error, place, addresses).await => Err(Trouble::Away),
            Err(error) => Err(Trouble::Later(format!("4.4.1 no connection to {}: {error}", place.host))),
        }
    }

    /// Tells whether a missing network explains that nobody answered.
    async fn explains(&self, error: &io::Error, place: &Place, addresses: &[SocketAddr]) -> bool {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            // Somebody did answer.
            self.network_is_there();
            return false;
        }
        if addresses.iter().any(|address| uplink::is_near(address.ip())) {
            return false;
        }
        let known = match &place.host {
            Host::Name(name) => name,
            Host::Address(_) => return !uplink::is_connected(),
        };
        // A name that nobody has asked for is in no cache, so an answer comes from outside.
        let stirred = u32::from_ne_bytes(random());
        self.is_away(&format!("{stirred:08x}.{}", top_of(known))).await
    }

    /// What it means that the DNS has no answer about a name.
    async fn unanswered(&self, name: &str, error: &DnsError) -> Trouble {
        if matches!(error, DnsError::Unavailable(_)) && (self.resolver.is_away() || self.is_away(top_of(name)).await) {
            return Trouble::Away;
        }
        Trouble::Later(format!("4.4.3 where {name} is cannot be found out: {error}"))
    }

    /// Tells whether the network is away, by asking for another name if nothing else says so.
    async fn is_away(&self, other: &str) -> bool {
        if self.heard.get().is_some_and(|at| at.elapsed() < EVIDENCE) {
            return false;
        }
        !uplink::is_connected() || matches!(self.resolver.mx(other).await, Err(DnsError::Unavailable(_)))
    }

    /// Tells whether a way leads to a server within reach without the outside world.
    pub(super) fn is_near(&self, way: &Way) -> bool {
        let place = match way {
            Way::Place(place) => place,
            Way::Relay(number) => match self.relays.get(*number) {
                Some(relay) => &relay.place,
                None => return false,
            },
            Way::Direct(domain) => return literal_is_near(domain),
        };
        matches!(place.host, Host::Address(address) if uplink::is_near(address))
    }
}

fn literal_is_near(domain: &Domain) -> bool {
    let address: Option<IpAddr> = literal(domain).and_then(Result::ok);
    address.is_some_and(uplink::is_near)
}

/// The last label of a name.
fn top_of(name: &str) -> &str {
    name.trim_end_matches('.').rsplit('.').next().unwrap_or(name)
}
