//! Where to listen, and sentences for what can go wrong with that.
//!
//! Sockets are bound before the program gives up root's rights and before anything else runs, so
//! [`bind`] gives plain sockets; the daemon makes tokio's of them. systemd may hand them over instead
//! (socket activation): then the program never needs root at all.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::str::FromStr;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Connections that may wait in the kernel until they are accepted.
const BACKLOG: i32 = 256;

/// How long accepting pauses when the system has no room for another connection. Waiting
/// connections keep their place in the kernel's queue.
const PAUSE: Duration = Duration::from_millis(500);

/// A place to listen: `192.0.2.1:25`, `[2001:db8::1]:25`, or `*:25` for every address of both
/// families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Endpoint {
    /// This port on every address.
    Any(u16),
    /// This port on this address.
    At(SocketAddr),
}

impl Endpoint {
    /// The port; zero asks the system for a free one.
    pub fn port(self) -> u16 {
        match self {
            Self::Any(port) => port,
            Self::At(address) => address.port(),
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let any = text.strip_prefix("*:").and_then(|port| port.parse().ok()).map(Self::Any);
        any.or_else(|| text.parse().ok().map(Self::At)).ok_or_else(|| {
            format!("`{text}` is no place to listen; write `*:25`, `192.0.2.1:25` or `[2001:db8::1]:25`")
        })
    }
}

impl TryFrom<String> for Endpoint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(port) => write!(formatter, "*:{port}"),
            Self::At(address) => write!(formatter, "{address}"),
        }
    }
}

/// Why a place cannot be listened on. `Display` is one sentence that says what to do.
#[derive(Debug, PartialEq, Eq)]
pub enum BindError {
    /// Another program listens there.
    InUse(SocketAddr),
    /// The port needs rights we do not have.
    Forbidden(SocketAddr),
    /// This machine has no such address.
    NoSuchAddress(SocketAddr),
    /// Anything else; the text is the system's.
    Other(SocketAddr, String),
}

impl fmt::Display for BindError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(address) => write!(
                formatter,
                "port {} on {} is in use by another program; stop that program or choose another port",
                address.port(),
                address.ip()
            ),
            Self::Forbidden(address) => write!(
                formatter,
                "port {} on {} needs root, the capability CAP_NET_BIND_SERVICE, or socket activation by systemd; \
                 ports from 1024 on need nothing",
                address.port(),
                address.ip()
            ),
            Self::NoSuchAddress(address) => write!(
                formatter,
                "{} is no address of this machine (now), so port {} cannot be opened there; `*:{}` listens on all",
                address.ip(),
                address.port(),
                address.port()
            ),
            Self::Other(address, text) => write!(formatter, "cannot listen on {address}: {text}"),
        }
    }
}

impl std::error::Error for BindError {}

/// Binds one place; two sockets for [`Endpoint::Any`], one for each family the machine has.
///
/// # Errors
/// The first address that cannot be had. A machine without IPv6 listens on IPv4 alone.
pub fn bind(endpoint: Endpoint) -> Result<Vec<TcpListener>, BindError> {
    let address = match endpoint {
        Endpoint::At(address) => return bind_one(address).map(|listener| vec![listener]).map_err(|(error, _)| error),
        Endpoint::Any(port) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
    };
    let first = bind_one(address).map_err(|(error, _)| error)?;
    match bind_one(SocketAddr::from((Ipv6Addr::UNSPECIFIED, endpoint.port()))) {
        Ok(second) => Ok(vec![first, second]),
        Err((_, rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL)) => Ok(vec![first]),
        Err((error, _)) => Err(error),
    }
}

fn bind_one(address: SocketAddr) -> Result<TcpListener, (BindError, rustix::io::Errno)> {
    open(address).map_err(|errno| {
        let error = match errno {
            rustix::io::Errno::ADDRINUSE => BindError::InUse(address),
            rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => BindError::Forbidden(address),
            rustix::io::Errno::ADDRNOTAVAIL => BindError::NoSuchAddress(address),
            other => BindError::Other(address, io::Error::from(other).to_string()),
        };
        (error, errno)
    })
}

fn open(address: SocketAddr) -> rustix::io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // A restart must not wait for the last connections of the run before.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own, so that addresses look the same in logs and limits.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// A socket that systemd opened for us, with its `FileDescriptorName=`.
#[derive(Debug)]
pub struct Activated {
    /// The socket.
    pub listener: TcpListener,
    /// Its name, if systemd gave one.
    pub name: Option<String>,
}

/// Takes the sockets systemd hands over (`LISTEN_FDS`). Call it once, before any thread starts: it
/// takes the variables out of the environment.
///
/// # Errors
/// One of them is no TCP socket that listens.
#[cfg(feature = "systemd")]
pub fn activated() -> io::Result<Vec<Activated>> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut handed = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..handed.len() {
        let name = names.next().filter(|name| !name.is_empty()).map(str::to_owned);
        if let Some(listener) = handed.take_tcp_listener(index)? {
            listener.set_nonblocking(true)?;
            sockets.push(Activated { listener, name });
        }
    }
    Ok(sockets)
}

/// Without systemd's part nobody hands sockets over.
///
/// # Errors
/// None.
#[cfg(not(feature = "systemd"))]
pub fn activated() -> io::Result<Vec<Activated>> {
    Ok(Vec::new())
}

/// Waits for the next connection. When the system has no room for one (descriptors, memory), waits a
/// little and tries again, without a busy loop and with one line in the log each time it begins.
pub async fn accept(listener: &tokio::net::TcpListener) -> (TcpStream, SocketAddr) {
    let mut complained = false;
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => return (socket, SocketAddr::new(peer.ip().to_canonical(), peer.port())),
            // The peer gave up before we came to it.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if !complained {
                    tracing::error!(%error, "cannot accept connections; trying on");
                    complained = true;
                }
                sleep(PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_spelled_alike() {
        for text in ["*:25", "192.0.2.1:25", "[2001:db8::1]:25", "127.0.0.1:0"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in ["", "25", "*", "*:70000", "example.org:25", "2001:db8::1:25:x"] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert!(error.contains("is no place to listen"), "{error}");
        }
    }

    #[test]
    fn a_port_in_use_and_a_foreign_address_have_sentences_of_their_own() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap().remove(0);
        let address = first.local_addr().unwrap();
        assert_eq!(bind(Endpoint::At(address)).unwrap_err(), BindError::InUse(address));
        let foreign: SocketAddr = "192.0.2.77:2525".parse().unwrap();
        assert_eq!(bind(Endpoint::At(foreign)).unwrap_err(), BindError::NoSuchAddress(foreign));
    }

    #[test]
    fn every_address_means_both_families_at_one_port() {
        let free = bind("127.0.0.1:0".parse().unwrap()).unwrap().remove(0).local_addr().unwrap().port();
        let listeners = bind(Endpoint::Any(free)).unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap().port() == free));
        assert!(listeners.first().unwrap().local_addr().unwrap().is_ipv4());
    }
}
