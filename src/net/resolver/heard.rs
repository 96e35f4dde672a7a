//! Whether any DNS server answers at all.
//!
//! One question without an answer says little: the domain's own servers may be dead, and whoever sends mail
//! chooses the domain. So before none is asked any more, each gets one datagram that asks for the root's
//! servers, which every resolver knows. Only silence to that too means that the DNS is away. After
//! [`super::AWAY`] the next question goes out again, and the others wait for what becomes of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;

use super::AWAY;

/// How long the answer to the question for the root's servers is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// That question: a header with one question, the root's name, NS, IN (RFC 1035 section 4.1).
const ROOT: [u8; 17] = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// Remembers how the servers were last heard.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    answered: Option<Instant>,
    away_since: Option<Instant>,
}

impl Heard {
    /// An answer came, whatever it says.
    pub(super) fn answered(&self) {
        *self.state() = State { answered: Some(Instant::now()), away_since: None };
    }

    /// Forgets all: the servers are others now.
    pub(super) fn forget(&self) {
        *self.state() = State::default();
    }

    /// Tells whether asking has no use now.
    pub(super) fn is_away(&self) -> bool {
        self.state().away_since.is_some_and(|since| since.elapsed() < AWAY)
    }

    /// Tells whether to ask: while the DNS is away once in a while.
    pub(super) fn may_ask(&self) -> bool {
        let mut state = self.state();
        match state.away_since {
            Some(since) if since.elapsed() < AWAY => false,
            Some(_) => {
                state.away_since = Some(Instant::now());
                true
            }
            None => true,
        }
    }

    /// No answer came to a question: looks whether one comes to another. Returns whether the DNS is away.
    pub(super) async fn unanswered(&self, servers: &[SocketAddr]) -> bool {
        if self.state().answered.is_some_and(|at| at.elapsed() < PATIENCE) {
            return false;
        }
        let mut probes = tokio::task::JoinSet::new();
        for server in servers {
            probes.spawn(probe(*server));
        }
        while let Some(heard) = probes.join_next().await {
            if heard.unwrap_or(false) {
                self.answered();
                return false;
            }
        }
        let mut state = self.state();
        if state.away_since.is_none() {
            tracing::warn!("no DNS server answers: names and senders cannot be checked for now");
        }
        state.away_since = Some(Instant::now());
        true
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells whether a server answers anything.
async fn probe(server: SocketAddr) -> bool {
    let any = if server.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let asking = async {
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(server).await?;
        socket.send(&ROOT).await?;
        socket.recv(&mut [0; 12]).await
    };
    matches!(tokio::time::timeout(PATIENCE, asking).await, Ok(Ok(length)) if length > 0)
}
