//! Reports to other domains: counts what `flow::report` tells of, keeps it in a file of its own, and sends a day's
//! reports when the first thing of the next day is counted. Nothing wakes for them.
//!
//! The file, `reports.json`, is written an hour after the last time at most, when something is counted, and when the
//! server stops; a cut takes an hour's counts. It is written before reports are sent and after, so a cut between may
//! send some twice, under the same name, and loses none. Where the DNS does not say now where reports go they wait.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fresh::{new_id, now};
use super::kept;
use crate::filter::sender::{DmarcReportConfig, Row};
use crate::flow::relay::Exit;
use crate::flow::report::letter::{Letter, report_id};
use crate::flow::report::{Kind, Ledger, Owed};
use crate::mail::address::{Address, Domain};
use crate::mail::authentication::Published;
use crate::mail::date::ZonedTime;
use crate::mail::envelope::{BodyType, Envelope, ForwardPath, Notify, Recipient, ReversePath};
use crate::mail::message::FlagNames;
use crate::mail::queue::{Due, NewQueued, Submitter};
use crate::mail::structure::Walker;
use crate::net::authenticate::takes_reports;
use crate::net::resolver::{DnsError, Resolver};
use crate::queue::TlsReportConfig;
use crate::queue::tls_report::{self, Applied, Failure};
use crate::store::{Folder, NewMessage, Route, WriteError};

/// The file's name in the data folder.
const FILE: &str = "reports.json";

/// Shortest time between two writes of the file for what was counted.
const WRITE_EVERY: Duration = Duration::from_hours(1);

/// Wait before reports are tried again that could not be sent.
const SEND_AGAIN: Duration = Duration::from_hours(1);

/// Counts for reports, and sends them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reports(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Whom reports about TLS come from; none are sent without.
    tls_from: Option<Address>,
    /// The same for DMARC.
    dmarc_from: Option<Address>,
    path: PathBuf,
    exit: Exit,
    resolver: Resolver,
    state: Mutex<State>,
    /// Held while the file is written.
    file: Mutex<()>,
    /// Held while reports are sent.
    sending: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    /// Something is not in the file.
    changed: bool,
    written: Instant,
    /// When reports were last tried to be sent.
    tried: Option<Instant>,
}

/// Why a report was not sent.
#[derive(Debug)]
enum Unsent {
    /// The DNS does not say now where it goes.
    Dns(DnsError),
    /// It could not be put into the queue.
    Queue(String),
}

impl From<DnsError> for Unsent {
    fn from(error: DnsError) -> Self {
        Self::Dns(error)
    }
}

impl Reports {
    /// Reads what was kept in the data folder. A file that cannot be read begins anew.
    #[must_use]
    pub fn open(tls: &TlsReportConfig, dmarc: &DmarcReportConfig, data: &Path, exit: Exit, resolver: Resolver) -> Self {
        let path = data.join(FILE);
        let ledger = kept::read(&path).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(file = %path.display(), %error, "what was counted for reports is lost and counted anew");
            }
            Ledger::default()
        });
        let from = |send: bool, from: &Option<String>| {
            from.as_deref().filter(|_| send).and_then(|from| Address::parse(from).ok())
        };
        let (tls_from, dmarc_from) = (from(tls.send, &tls.from), from(dmarc.send, &dmarc.from));
        let state = State { ledger, changed: false, written: Instant::now(), tried: None };
        let (state, file, sending) = (Mutex::new(state), Mutex::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { tls_from, dmarc_from, path, exit, resolver, state, file, sending }))
    }

    /// Whether any are sent.
    #[must_use]
    pub fn are_sent(&self) -> bool {
        self.0.tls_from.is_some() || self.0.dmarc_from.is_some()
    }

    /// Whether those about DMARC are.
    #[must_use]
    pub fn tell_of_mail(&self) -> bool {
        self.0.dmarc_from.is_some()
    }

    /// Counts a session with a domain's server. Needs a reactor.
    pub(super) fn session(&self, domain: &str, host: &str, applied: &Applied, failure: Option<Failure>) {
        if self.0.tls_from.is_some() {
            self.counted(|ledger| ledger.session((domain, host), applied, failure, now()));
        }
    }

    /// Counts a message that came in a domain's name. Needs a reactor.
    pub(super) fn message(&self, published: &Published, row: Row) {
        if self.0.dmarc_from.is_some() {
            self.counted(|ledger| ledger.message(published, row, now()));
        }
    }

    /// What is to be sent, and what will be when the day is over.
    #[must_use]
    pub fn waiting(&self) -> (Vec<Owed>, Vec<Owed>) {
        let state = self.state();
        (state.ledger.owed(), state.ledger.growing())
    }

    /// Sends what there is, the day so far included. Returns how many messages that were.
    pub async fn send_now(&self) -> usize {
        {
            let mut state = self.state();
            state.ledger.cut(now());
            (state.changed, state.tried) = (true, Some(Instant::now()));
        }
        self.send().await
    }

    /// Writes down what was counted since the last time. Blocks.
    pub fn save(&self) {
        let _writing = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        let text = {
            let mut state = self.state();
            if !state.changed {
                return;
            }
            (state.changed, state.written) = (false, Instant::now());
            serde_json::to_vec(&state.ledger)
        };
        if let Err(error) = text.map_err(io::Error::other).and_then(|text| kept::write(&self.0.path, &text)) {
            tracing::warn!(file = %self.0.path.display(), %error, "what was counted for reports was not kept");
        }
    }

    fn counted(&self, count: impl FnOnce(&mut Ledger)) {
        let (send, write) = {
            let mut state = self.state();
            count(&mut state.ledger);
            state.changed = true;
            let send = state.ledger.is_owing() && state.tried.is_none_or(|at| at.elapsed() >= SEND_AGAIN);
            if send {
                state.tried = Some(Instant::now());
            }
            (send, state.written.elapsed() >= WRITE_EVERY)
        };
        let reports = self.clone();
        if send {
            tokio::spawn(async move { reports.send().await });
        } else if write {
            tokio::task::spawn_blocking(move || reports.save());
        }
    }

    async fn saved(&self) {
        let reports = self.clone();
        // A server that stops saves by itself.
        let _ = tokio::task::spawn_blocking(move || reports.save()).await;
    }

    async fn send(&self) -> usize {
        let _sending = self.0.sending.lock().await;
        self.saved().await;
        let owed = self.state().ledger.owed();
        let mut sent = 0;
        for owed in owed {
            match self.tell(&owed).await {
                Ok(messages) => {
                    sent += messages;
                    let mut state = self.state();
                    state.ledger.settle(&owed);
                    state.changed = true;
                }
                Err(Unsent::Dns(error)) => tracing::info!(domain = owed.domain, %error, "a report waits for the DNS"),
                Err(Unsent::Queue(error)) => {
                    tracing::warn!(domain = owed.domain, error, "a report was not sent; tried again later");
                }
            }
        }
        self.saved().await;
        sent
    }

    /// Puts a report into the queue, for each address that wants it. Returns for how many.
    async fn tell(&self, owed: &Owed) -> Result<usize, Unsent> {
        let (from, by) = match owed.kind {
            Kind::Tls => (&self.0.tls_from, Submitter::TlsReport),
            Kind::Dmarc => (&self.0.dmarc_from, Submitter::Server),
        };
        // Settings may have changed since.
        let Some(from) = from else { return Ok(0) };
        let ours = self.is_ours(&owed.domain).map_err(|error| Unsent::Queue(error.to_string()))?;
        let to = match owed.kind {
            // What comes in our own name we know.
            _ if ours => Vec::new(),
            Kind::Tls => self.wanting_tls(&owed.domain).await?,
            Kind::Dmarc => self.wanting_dmarc(owed).await?,
        };
        let host = &*self.0.exit.host;
        let (contact, name) = (from.to_string(), report_id(owed, host));
        let report = self.state().ledger.report(owed, (host, &contact, &name));
        let Some(report) = report else { return Ok(0) };
        let mut sent = 0;
        for (to, bytes_max) in to {
            let id = new_id();
            let letter = Letter { owed, host, from, to: &to, id: &id, at: ZonedTime::utc(now()) }.spell(&report);
            let letter = letter.map_err(|error| Unsent::Queue(error.to_string()))?;
            if bytes_max > 0 && letter.len() as u64 > bytes_max {
                tracing::info!(domain = owed.domain, %to, bytes = letter.len(), bytes_max, "a report is larger than is wanted");
                continue;
            }
            let queued = self.submit(letter, to.clone(), by).await.map_err(|error| Unsent::Queue(error.to_string()))?;
            if queued {
                sent += 1;
                tracing::info!(domain = owed.domain, kind = ?owed.kind, %to, count = owed.count, "a report was sent");
            }
        }
        Ok(sent)
    }

    fn is_ours(&self, domain: &str) -> Result<bool, crate::store::ReadError> {
        let Ok(domain) = Domain::parse(domain) else { return Ok(false) };
        Ok(self.0.exit.store.reader()?.domains()?.contains(&domain))
    }

    /// Where a domain wants reports about TLS (RFC 8460 section 3).
    async fn wanting_tls(&self, domain: &str) -> Result<Vec<(Address, u64)>, DnsError> {
        match self.0.resolver.txt(&format!("_smtp._tls.{domain}")).await {
            Ok(found) => Ok(tls_report::addresses(&found.value).into_iter().map(|to| (to, 0)).collect()),
            Err(DnsError::Unavailable(why)) => Err(DnsError::Unavailable(why)),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// Where a domain's DMARC record wants reports, as far as that is anybody's wish there.
    async fn wanting_dmarc(&self, owed: &Owed) -> Result<Vec<(Address, u64)>, DnsError> {
        let published = self.state().ledger.published(owed).unwrap_or_default();
        let mut wanting = Vec::new();
        for report in published.reports_to {
            let Ok(address) = Address::parse(&report.address) else { continue };
            if takes_reports(&self.0.resolver, &owed.domain, address.domain().as_str()).await? {
                wanting.push((address, report.bytes_max));
            } else {
                tracing::info!(domain = owed.domain, to = %address, "reports are not wanted there: its DNS does not say so");
            }
        }
        Ok(wanting)
    }

    /// Keeps a report for an address here, or queues it; returns whether it goes anywhere.
    async fn submit(&self, letter: String, to: Address, by: Submitter) -> Result<bool, WriteError> {
        let (exit, at) = (self.0.exit.clone(), now());
        let utf8 = to.is_international();
        let body = if letter.is_ascii() { BodyType::SevenBit } else { BodyType::EightBitMime };
        let working = tokio::task::spawn_blocking(move || {
            let unreadable = |error: crate::store::ReadError| WriteError::Storage(error.to_string());
            let (mut local, mut queued) = (Vec::new(), None);
            match exit.store.reader().and_then(|reader| reader.route(&to)).map_err(unreadable)? {
                Route::Local(accounts) | Route::Forward { accounts, .. } => {
                    local = accounts.into_iter().map(|account| (account, Folder::Inbox)).collect();
                }
                Route::Remote if exit.routes.way(to.domain(), &ReversePath::Null, false).is_some() => {
                    let notify = Notify { given: true, ..Notify::default() };
                    let recipients = vec![Recipient { path: ForwardPath::Address(to), notify, original: None }];
                    let from = ReversePath::Null;
                    let envelope = Envelope { from, recipients, body, utf8, ret: None, envelope_id: None };
                    queued = Some(NewQueued { envelope, require_tls: false, by, due: Due::from(at) });
                }
                Route::Remote | Route::Unknown | Route::List(_) => {}
            }
            if local.is_empty() && queued.is_none() {
                return Ok(None);
            }
            let (mut spool, mut walker) = (exit.store.spool()?, Walker::new());
            walker.feed(letter.as_bytes());
            spool.write(letter.as_bytes())?;
            let (body, structure) = (spool.finish()?, walker.finish());
            let (internal_date, flags) = (ZonedTime::utc(at), FlagNames::default());
            Ok::<_, WriteError>(Some((NewMessage { body, structure, internal_date, flags }, local, queued)))
        });
        // A server that stops has no threads left.
        let Some((message, local, queued)) = working.await.map_err(|_| WriteError::Closed)?? else { return Ok(false) };
        self.0.exit.store.submit(message, local, queued).await.map(|_| true)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
