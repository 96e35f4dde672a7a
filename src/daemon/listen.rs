//! The seven services: where they listen, who is let in, and who is turned away politely.
//!
//! Every listening socket has a small task that accepts, asks the connection budget, and starts a
//! task for the connection. A connection that finds no room hears so in its protocol's words; on a
//! port with implicit TLS it is closed, because a handshake costs more than the room we lack.

use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;

use rustix::net::SendFlags;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tracing::Instrument as _;

use super::context::Context;
use crate::net::budget::{Full, Permit};
use crate::net::listener::{self, Activated, BindError, Endpoint};

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// Mail from other servers (RFC 5321), STARTTLS offered.
    Smtp,
    /// Mail from our users (RFC 6409), STARTTLS needed.
    Submission,
    /// The same with implicit TLS (RFC 8314).
    Submissions,
    /// IMAP with STARTTLS.
    Imap,
    /// IMAP with implicit TLS.
    Imaps,
    /// POP3 with STLS.
    Pop3,
    /// POP3 with implicit TLS.
    Pop3s,
}

impl Service {
    /// All of them, as they stand in a config file.
    pub const ALL: [Self; 7] =
        [Self::Smtp, Self::Submission, Self::Submissions, Self::Imap, Self::Imaps, Self::Pop3, Self::Pop3s];

    /// Its name in the config file and in IANA's registry (`smtp` for port 25).
    pub fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Submission => "submission",
            Self::Submissions => "submissions",
            Self::Imap => "imap",
            Self::Imaps => "imaps",
            Self::Pop3 => "pop3",
            Self::Pop3s => "pop3s",
        }
    }

    /// Its registered port.
    pub fn port(self) -> u16 {
        match self {
            Self::Smtp => 25,
            Self::Submission => 587,
            Self::Submissions => 465,
            Self::Imap => 143,
            Self::Imaps => 993,
            Self::Pop3 => 110,
            Self::Pop3s => 995,
        }
    }

    /// Tells whether TLS starts before the greeting.
    pub fn has_implicit_tls(self) -> bool {
        matches!(self, Self::Submissions | Self::Imaps | Self::Pop3s)
    }

    /// What a connection that finds no room is told.
    fn refusal(self, full: Full) -> String {
        let reason = match full {
            Full::Server => "too many connections, try again later",
            Full::Address => "too many connections from your address",
        };
        match self {
            Self::Smtp | Self::Submission | Self::Submissions => format!("421 4.7.0 {reason}\r\n"),
            Self::Imap | Self::Imaps => format!("* BYE [UNAVAILABLE] {reason}\r\n"),
            Self::Pop3 | Self::Pop3s => format!("-ERR [SYS/TEMP] {reason}\r\n"),
        }
    }
}

/// Where each service listens: `*:25` is every address, `127.0.0.1:25` one of them; an empty list
/// turns the service off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ListenConfig {
    /// Mail from other servers. Default: `*:25`.
    pub smtp: Vec<Endpoint>,
    /// Mail from users, STARTTLS. Default: `*:587`.
    pub submission: Vec<Endpoint>,
    /// Mail from users, TLS from the start. Default: `*:465`.
    pub submissions: Vec<Endpoint>,
    /// IMAP, STARTTLS. Default: `*:143`.
    pub imap: Vec<Endpoint>,
    /// IMAP, TLS from the start. Default: `*:993`.
    pub imaps: Vec<Endpoint>,
    /// POP3, STLS. Default: `*:110`.
    pub pop3: Vec<Endpoint>,
    /// POP3, TLS from the start. Default: `*:995`.
    pub pop3s: Vec<Endpoint>,
}

impl ListenConfig {
    /// Every service at the one endpoint that `endpoint` gives for its port.
    pub fn at(endpoint: impl Fn(u16) -> Endpoint) -> Self {
        let at = |service: Service| vec![endpoint(service.port())];
        Self {
            smtp: at(Service::Smtp),
            submission: at(Service::Submission),
            submissions: at(Service::Submissions),
            imap: at(Service::Imap),
            imaps: at(Service::Imaps),
            pop3: at(Service::Pop3),
            pop3s: at(Service::Pop3s),
        }
    }
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self::at(Endpoint::Any)
    }
}

impl ListenConfig {
    /// Where one service listens.
    pub fn endpoints(&self, service: Service) -> &[Endpoint] {
        match service {
            Service::Smtp => &self.smtp,
            Service::Submission => &self.submission,
            Service::Submissions => &self.submissions,
            Service::Imap => &self.imap,
            Service::Imaps => &self.imaps,
            Service::Pop3 => &self.pop3,
            Service::Pop3s => &self.pop3s,
        }
    }

    /// Every place with its service.
    pub fn all(&self) -> impl Iterator<Item = (Service, Endpoint)> + '_ {
        Service::ALL.into_iter().flat_map(|service| self.endpoints(service).iter().map(move |at| (service, *at)))
    }

    /// Finds a place that is named twice. The error is a key and what is wrong with it.
    ///
    /// # Errors
    /// The second of the two.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        const KEYS: [&str; 7] = [
            "listen.smtp",
            "listen.submission",
            "listen.submissions",
            "listen.imap",
            "listen.imaps",
            "listen.pop3",
            "listen.pop3s",
        ];
        let places: Vec<(Service, Endpoint)> = self.all().collect();
        for (index, (service, place)) in places.iter().enumerate() {
            let twin = places.iter().take(index).find(|(_, other)| other == place && place.port() != 0);
            if let Some((other, _)) = twin {
                let key = Service::ALL.iter().zip(KEYS).find(|(named, _)| *named == service);
                let problem = format!("names {place}, where `{}` listens already", other.name());
                return Err((key.map_or("listen", |(_, key)| key), problem));
            }
        }
        Ok(())
    }
}

/// A socket that listens, with what is spoken on it.
#[derive(Debug)]
pub struct Bound {
    /// The service.
    pub service: Service,
    /// The socket.
    pub listener: TcpListener,
    /// Its address.
    pub address: SocketAddr,
}

/// Opens every place of the settings that systemd has not opened for us.
///
/// A handed-over socket belongs to the service it is named after (`FileDescriptorName=imaps`), or to
/// the one whose configured or registered port it has.
///
/// # Errors
/// The first place that cannot be opened, or a handed-over socket that belongs to no service.
pub fn open(config: &ListenConfig, activated: Vec<Activated>) -> Result<Vec<Bound>, OpenError> {
    let mut bound = Vec::new();
    for Activated { listener, name } in activated {
        let address = listener.local_addr().map_err(|error| OpenError::Activated(error.to_string()))?;
        let named = Service::ALL.into_iter().find(|service| Some(service.name()) == name.as_deref());
        let configured = || config.all().find(|(_, place)| place.port() == address.port()).map(|(service, _)| service);
        let registered = || Service::ALL.into_iter().find(|service| service.port() == address.port());
        let service = named.or_else(configured).or_else(registered).ok_or_else(|| {
            OpenError::Activated(format!(
                "{address} belongs to no service; name it with FileDescriptorName= (smtp, submission, submissions, imap, \
                 imaps, pop3 or pop3s)"
            ))
        })?;
        bound.push(Bound { service, listener, address });
    }
    let handed: Vec<Service> = bound.iter().map(|bound| bound.service).collect();
    for (service, endpoint) in config.all().filter(|(service, _)| !handed.contains(service)) {
        for listener in listener::bind(endpoint).map_err(|error| OpenError::Bind(service, error))? {
            let address = listener.local_addr().map_err(|error| OpenError::Activated(error.to_string()))?;
            bound.push(Bound { service, listener, address });
        }
    }
    Ok(bound)
}

/// Why a service cannot listen. `Display` is one sentence.
#[derive(Debug, PartialEq, Eq)]
pub enum OpenError {
    /// A place cannot be had.
    Bind(Service, BindError),
    /// A socket from systemd is of no use; the text says why.
    Activated(String),
}

impl std::fmt::Display for OpenError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind(service, error) => write!(formatter, "{}: {error}", service.name()),
            Self::Activated(text) => write!(formatter, "a socket from systemd: {text}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Accepts connections for ever; ends when its task is dropped.
pub async fn accept(context: Rc<Context>, service: Service, listener: tokio::net::TcpListener) {
    loop {
        let (socket, peer) = listener::accept(&listener).await;
        match context.budget.admit(peer.ip()) {
            Ok(permit) => welcome(&context, service, socket, peer, permit),
            Err(full) => {
                if context.roll.may_complain() {
                    let since_start = context.budget.turned_away();
                    tracing::warn!(service = service.name(), peer = %peer.ip(), ?full, since_start, "connections turned away");
                }
                turn_away(service, &socket, full);
            }
        }
    }
}

/// Starts the connection's task.
fn welcome(context: &Rc<Context>, service: Service, socket: TcpStream, peer: SocketAddr, permit: Permit) {
    let stream = context.stream(service, socket);
    let entry = context.roll.enter(service);
    let span = tracing::info_span!("session", id = entry.id(), service = service.name(), peer = %peer.ip());
    let conversation = super::conversation(context, service, stream, peer);
    // The conversation is a box: what the task itself holds is small.
    tokio::task::spawn_local(
        async move {
            conversation.await;
            drop((entry, permit));
        }
        .instrument(span),
    );
}

/// Says why there is no room, without waiting for anything.
fn turn_away(service: Service, socket: &TcpStream, full: Full) {
    if !service.has_implicit_tls() {
        // A new connection's send buffer is empty: the line fits or the peer has gone. The reactor
        // has not looked at the socket yet, so tokio's own `try_write` would refuse to try.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let _ = rustix::net::send(socket, service.refusal(full).as_bytes(), flags);
    }
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> ListenConfig {
        let empty = Vec::new;
        ListenConfig {
            smtp: empty(),
            submission: empty(),
            submissions: empty(),
            imap: empty(),
            imaps: empty(),
            pop3: empty(),
            pop3s: empty(),
        }
    }

    #[test]
    fn an_activated_socket_replaces_its_services_own() {
        let handed = listener::bind("127.0.0.1:0".parse().unwrap()).unwrap().remove(0);
        let port = handed.local_addr().unwrap().port();
        let config = ListenConfig {
            imap: vec!["127.0.0.1:0".parse().unwrap()],
            imaps: vec!["192.0.2.1:993".parse().unwrap()],
            ..none()
        };
        let activated = vec![Activated { listener: handed, name: Some("imaps".to_owned()) }];
        let bound = open(&config, activated).unwrap();
        let services: Vec<Service> = bound.iter().map(|bound| bound.service).collect();
        assert_eq!(services, [Service::Imaps, Service::Imap]);
        assert_eq!(bound.first().unwrap().address.port(), port);
    }

    #[test]
    fn an_activated_socket_without_a_service_is_an_error() {
        let handed = listener::bind("127.0.0.1:0".parse().unwrap()).unwrap().remove(0);
        let activated = vec![Activated { listener: handed, name: Some("pillarbox.socket".to_owned()) }];
        assert!(matches!(open(&none(), activated), Err(OpenError::Activated(text)) if text.contains("no service")));
    }

    #[test]
    fn refusals_speak_the_services_language() {
        assert!(Service::Smtp.refusal(Full::Server).starts_with("421 4.7.0 "));
        assert!(Service::Imap.refusal(Full::Address).starts_with("* BYE "));
        assert!(Service::Pop3.refusal(Full::Server).starts_with("-ERR "));
    }
    #[test]
    fn who_is_turned_away_is_told_why() {
        use std::io::Read as _;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut client = runtime.block_on(async {
            let listening = listener::bind("127.0.0.1:0".parse().unwrap()).unwrap().remove(0);
            let listening = tokio::net::TcpListener::from_std(listening).unwrap();
            let client = std::net::TcpStream::connect(listening.local_addr().unwrap()).unwrap();
            let (socket, _) = listener::accept(&listening).await;
            turn_away(Service::Imap, &socket, Full::Server);
            client
        });
        let mut told = String::new();
        client.read_to_string(&mut told).unwrap();
        assert_eq!(told, Service::Imap.refusal(Full::Server));
    }
}
