//! What every connection's task shares, and the count of those tasks.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::listen::Service;
use super::login::Doorway;
use super::receive::Office;
use super::teacher::Teacher;
use crate::flow::access::pop3::Locks;
use crate::net::budget::Budget;
use crate::net::drive::Stop;
use crate::net::stream::Stream;
use crate::net::tls::TlsServer;
use crate::protocol::imap::ImapConfig;
use crate::protocol::pop3::Pop3Config;
use crate::protocol::smtp::SmtpConfig;
use crate::store::Store;

/// Connections turned away are logged no more often than this.
const COMPLAIN_EVERY: Duration = Duration::from_mins(1);

/// The world behind all connections. One for the server, shared by the tasks of its one reactor.
#[derive(Debug)]
pub struct Context {
    /// The name in greetings.
    pub hostname: Arc<str>,
    /// What else this machine is called, when the server started.
    pub names: Arc<BTreeSet<String>>,
    /// Whether clients on this machine may log in without TLS.
    pub clear_login_on_loopback: bool,
    /// The mail.
    pub store: Store,
    /// Logins.
    pub doorway: Doorway,
    /// The spam filter, and who teaches it.
    pub teacher: Teacher,
    /// Where SMTP delivers.
    pub office: Office,
    /// How SMTP sessions behave.
    pub smtp: Arc<SmtpConfig>,
    /// How IMAP sessions behave.
    pub imap: Arc<ImapConfig>,
    /// Which maildrops are open.
    pub locks: Locks,
    /// How POP3 sessions behave.
    pub pop3: Arc<Pop3Config>,
    /// Certificates.
    pub tls: Arc<TlsServer>,
    /// Room for connections.
    pub budget: Budget,
    /// The server's stop.
    pub stop: Stop,
    /// Where it listens.
    pub listeners: Vec<(Service, SocketAddr)>,
    /// Connections at work.
    pub roll: Arc<Roll>,
}

impl Context {
    /// A new connection's stream. Its client is asked for a certificate where people log in and somebody
    /// may do so with one.
    pub fn stream(&self, service: Service, socket: TcpStream) -> Stream {
        let of_use = || self.store.reader().and_then(|reader| reader.has_certificates()).unwrap_or(false);
        let asking = (service != Service::Smtp && of_use()).then(|| self.tls.asking()).flatten();
        Stream::new(socket, asking.unwrap_or_else(|| self.tls.config()))
    }

    /// Tells whether `peer` may log in without TLS.
    pub fn may_log_in_clear(&self, peer: SocketAddr) -> bool {
        self.clear_login_on_loopback && peer.ip().is_loopback()
    }
}

/// Who is connected: how many for each service, since when, and a name for the next one.
#[derive(Debug)]
pub struct Roll {
    open: [AtomicU32; Service::ALL.len()],
    served: AtomicU64,
    first_id: u64,
    started: Instant,
    left: Notify,
    complained: Mutex<Option<Instant>>,
}

impl Default for Roll {
    fn default() -> Self {
        // Ids go on from one run to the next, unless there were more connections than seconds.
        let first_id = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            open: Default::default(),
            served: AtomicU64::new(0),
            first_id,
            started: Instant::now(),
            left: Notify::new(),
            complained: Mutex::new(None),
        }
    }
}

impl Roll {
    /// Writes a connection down until the entry is dropped.
    pub fn enter(self: &Arc<Self>, service: Service) -> Entry {
        let number = self.served.fetch_add(1, Ordering::Relaxed);
        if let Some(open) = self.open.get(service as usize) {
            open.fetch_add(1, Ordering::Relaxed);
        }
        Entry { roll: Arc::clone(self), service, id: base36(self.first_id.wrapping_add(number)) }
    }

    /// Connections of one service now.
    pub fn open(&self, service: Service) -> u32 {
        self.open.get(service as usize).map_or(0, |open| open.load(Ordering::Relaxed))
    }

    /// Tells whether it is time for another line about connections that were turned away: whoever
    /// brings them must not be able to fill the disk with log.
    pub fn may_complain(&self) -> bool {
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        let may = complained.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY);
        if may {
            *complained = Some(Instant::now());
        }
        may
    }

    /// Connections since start.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Seconds since start.
    pub fn uptime_secs(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Waits until nobody is connected.
    pub async fn empty(&self) {
        while Service::ALL.into_iter().any(|service| self.open(service) > 0) {
            self.left.notified().await;
        }
    }
}

/// One connection on the roll.
#[derive(Debug)]
pub struct Entry {
    roll: Arc<Roll>,
    service: Service,
    id: String,
}

impl Entry {
    /// A short name that all its log lines share.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(open) = self.roll.open.get(self.service as usize) {
            open.fetch_sub(1, Ordering::Relaxed);
        }
        self.roll.left.notify_one();
    }
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    while number > 0 {
        let digit = u32::try_from(number % 36).unwrap_or(0);
        digits.extend(char::from_digit(digit, 36));
        number /= 36;
    }
    digits.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roll_counts_by_service_and_names_everyone_differently() {
        let roll = Arc::new(Roll::default());
        let (first, second) = (roll.enter(Service::Imap), roll.enter(Service::Smtp));
        assert_ne!(first.id(), second.id());
        assert_eq!((roll.open(Service::Imap), roll.open(Service::Smtp), roll.open(Service::Pop3)), (1, 1, 0));
        drop(first);
        assert_eq!((roll.open(Service::Imap), roll.served()), (0, 2));
    }

    #[test]
    fn complaints_are_rare() {
        let roll = Roll::default();
        assert!(roll.may_complain());
        assert!(!roll.may_complain());
    }

    #[test]
    fn numbers_are_spelled_in_36_digits() {
        assert_eq!((base36(35), base36(36), base36(1_793_491_200)), ("z".into(), "10".into(), "tnsqo0".into()));
    }
}
