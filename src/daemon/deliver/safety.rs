//! How safe connections must be, and what became of it: asks the DNS and policy servers, has
//! `queue::policy` decide, and keeps what was learnt in a file of its own.
//!
//! The file, `tls-policies.json`, is written when something new was learnt, at most every ten minutes
//! and only after a connection, and when the server stops. What a power cut takes of it is learnt
//! again.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Hub, now};
use crate::daemon::kept;
use crate::daemon::reports::Reports;
use crate::mail::address::Domain;
use crate::net::mta_sts::{self, FetchError};
use crate::net::resolver::{DnsError, Resolver, Tlsa};
use crate::net::verify::{TlsFault, TlsMode, is_usable};
use crate::protocol::smtp::sender::{End, How, Point};
use crate::queue::TlsPolicyConfig;
use crate::queue::policy::{self, Book, Dane, Demand, Known, Level, Proof, Reason};
use crate::queue::sts::{StsMode, StsPolicy, record_id};
use crate::queue::tls_report::{self, Applied, Failure};

/// The file's name in the data folder.
const FILE: &str = "tls-policies.json";

/// Shortest time between two writes of the file.
const WRITE_EVERY: Duration = Duration::from_mins(10);

/// How long a policy server that failed is left alone (RFC 8461 section 3.3 asks for five minutes).
const FETCH_AGAIN: Duration = Duration::from_mins(5);

/// Domains whose policy server is remembered to have failed.
const FAILED_MAX: usize = 256;

/// Bytes of a TLSA record that a report repeats: the longest hash.
const SHOWN_MAX: usize = 64;

/// How long it is known whether DNSSEC can be checked here.
const DNSSEC_AGAIN: Duration = Duration::from_hours(1);

/// What is kept from one start to the next.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Kept {
    book: Book,
}

/// What is known of other domains' TLS.
#[derive(Debug)]
pub struct Safety {
    config: TlsPolicyConfig,
    reports: Option<Reports>,
    path: PathBuf,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    kept: Kept,
    /// Something is not in the file yet.
    dirty: bool,
    written: Option<Instant>,
    failed: BTreeMap<String, (Instant, Failure)>,
    dnssec: Option<(Instant, bool)>,
}

/// What is demanded of a connection, with what it takes to see that it is kept.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) demand: Demand,
    domain: String,
    host: String,
    records: Vec<Tlsa>,
    /// The domain's policy is on trial: how it would have gone is counted.
    trial: Option<StsPolicy>,
    applied: Applied,
    /// Reports tell of it; not where a report is all that it is opened for (RFC 8460 section 3), or there would be
    /// reports about reports for ever.
    counted: bool,
}

impl Terms {
    /// What TLS must prove.
    pub(super) fn mode(&self) -> TlsMode {
        // RFC 7672 section 3.2.2: the server's own name, or that of the domain that it serves.
        let names = vec![self.host.clone()];
        match self.demand.proof {
            Proof::None => TlsMode::Unverified { names },
            Proof::Authority => TlsMode::Pkix { names },
            Proof::Dns => {
                let names = vec![self.host.clone(), self.domain.clone()];
                TlsMode::Dane { names, records: self.records.clone() }
            }
        }
    }
}

/// What DNSSEC tells of a server.
#[derive(Debug)]
struct Told {
    dane: Dane,
    records: Vec<Tlsa>,
    /// It is a server of the domain; `None` where that cannot be said now.
    proved: Option<bool>,
}

/// A domain's policy as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Policy {
    sts: Option<StsPolicy>,
    /// Why it could not be fetched anew.
    failure: Option<Failure>,
}

impl Safety {
    /// Reads what was kept in the data folder. A file that cannot be read begins anew.
    pub fn open(config: TlsPolicyConfig, data: &Path) -> Self {
        let path = data.join(FILE);
        let kept = match kept::read(&path) {
            Ok(kept) => kept,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "what was known of other servers' TLS is lost and learnt anew");
                Kept::default()
            }
        };
        Self { config, reports: None, path, state: RefCell::new(State { kept, ..State::default() }) }
    }

    /// Has what becomes of TLS counted for reports.
    #[must_use]
    pub fn telling(self, reports: Reports) -> Self {
        Self { reports: Some(reports), ..self }
    }

    fn delay_secs(&self) -> i64 {
        i64::from(self.config.downgrade_delay_hours) * 3600
    }

    /// Writes down what was learnt, if it is time to.
    pub(super) async fn save(&self, at_once: bool) {
        let text = {
            let mut state = self.state.borrow_mut();
            let waits = state.written.is_some_and(|at| at.elapsed() < WRITE_EVERY);
            if !state.dirty || waits && !at_once {
                return;
            }
            state.dirty = false;
            state.written = Some(Instant::now());
            serde_json::to_vec(&state.kept)
        };
        let path = self.path.clone();
        let writing = tokio::task::spawn_blocking(move || kept::write(&path, &text.map_err(io::Error::other)?)).await;
        if let Ok(Err(error)) = writing {
            tracing::warn!(file = %self.path.display(), %error, "what is known of other servers' TLS was not kept");
        }
    }
}

impl Hub {
    /// The MTA-STS policy of a domain (RFC 8461 section 5.1): the one at hand unless the DNS says that
    /// there is a newer one.
    pub(super) async fn policy(&self, domain: &Domain) -> Policy {
        let (safety, name) = (&self.safety, domain.as_str());
        if !safety.config.mta_sts || domain.is_literal() {
            return Policy::default();
        }
        let records = self.resolver.txt(&format!("_mta-sts.{name}")).await.map(|found| found.value).unwrap_or_default();
        let (at_hand, is_current) = {
            let state = safety.state.borrow();
            let kept = state.kept.book.policy(name, now());
            let is_current = kept.is_some_and(|(_, id)| record_id(&records).is_none_or(|now| now == id));
            (kept.map(|(policy, _)| policy.clone()), is_current)
        };
        let Some(id) = record_id(&records).filter(|_| !is_current) else {
            return Policy { sts: at_hand, failure: None };
        };
        let failed = safety.state.borrow().failed.get(name).copied();
        if let Some((_, failure)) = failed.filter(|(at, _)| at.elapsed() < FETCH_AGAIN) {
            return Policy { sts: at_hand, failure: Some(failure) };
        }
        let fetched = mta_sts::fetch(&self.resolver, &self.tls, name, safety.config.mta_sts_port).await;
        let parsed = match fetched {
            Ok(text) => StsPolicy::parse(&text).map_err(|error| (Failure::StsPolicyInvalid, error.to_string())),
            Err(error @ FetchError::Tls(_)) => Err((Failure::StsWebpkiInvalid, error.to_string())),
            Err(error) => Err((Failure::StsPolicyFetchError, error.to_string())),
        };
        let mut state = safety.state.borrow_mut();
        match parsed {
            Ok(policy) => {
                tracing::info!(domain = name, mode = ?policy.mode, "an MTA-STS policy was fetched");
                state.failed.remove(name);
                state.kept.book.keep_policy(name, id, policy.clone(), now());
                state.dirty = true;
                Policy { sts: Some(policy), failure: None }
            }
            Err((failure, why)) => {
                tracing::warn!(domain = name, why, "the domain's MTA-STS policy could not be fetched");
                state.failed.retain(|_, (at, _)| at.elapsed() < FETCH_AGAIN);
                if state.failed.len() < FAILED_MAX {
                    state.failed.insert(name.to_owned(), (Instant::now(), failure));
                }
                Policy { sts: at_hand, failure: Some(failure) }
            }
        }
    }

    /// What is demanded of a connection to one of a domain's servers.
    ///
    /// # Errors
    /// The server is not to be used; the text begins with an enhanced status code, which says whether that may
    /// change.
    pub(super) async fn terms_of(
        &self,
        domain: &Domain,
        policy: &Policy,
        host: &str,
        port: u16,
        (require_tls, counted): (bool, bool),
    ) -> Result<Terms, String> {
        let safety = &self.safety;
        let Told { dane, records, proved } = self.dane(domain.as_str(), host, port).await;
        // What DNSSEC does not prove a policy may, once it can be had.
        let proved = proved.filter(|proved| *proved || policy.failure.is_none());
        let sts = policy.sts.as_ref();
        let seen = safety.state.borrow().kept.book.insisted(domain.as_str(), host, safety.delay_secs(), now());
        let applied = match (dane, sts) {
            (Dane::Usable | Dane::Unusable | Dane::Broken, _) => {
                Applied::tlsa(records.iter().map(spelled).collect(), host)
            }
            (Dane::Absent, Some(policy)) if policy.mode != StsMode::None => Applied::sts(policy),
            (Dane::Absent, _) => Applied::none(),
        };
        if let Some(failure) = policy.failure {
            let applied = Applied { kind: tls_report::PolicyKind::Sts, ..Applied::none() };
            if counted {
                self.count_session(domain.as_str(), host, &applied, Some(failure));
            }
        }
        let known = Known { domain: domain.as_str(), host, dane, proved, sts, seen, require_tls };
        match policy::decide(&known) {
            Ok(demand) => {
                let trial = sts.filter(|policy| policy.mode == StsMode::Testing && dane == Dane::Absent).cloned();
                let (domain, host) = (domain.to_string(), host.to_owned());
                Ok(Terms { demand, domain, host, records, trial, applied, counted })
            }
            Err(text) => {
                let failure = if dane == Dane::Broken { Failure::DnssecInvalid } else { Failure::ValidationFailure };
                if counted {
                    self.count_session(domain.as_str(), host, &applied, Some(failure));
                }
                Err(text)
            }
        }
    }

    /// What the DNS tells of a server's certificate (RFC 7672 section 2.2). Every answer on the way to
    /// the records must be validated; where DNSSEC cannot be checked here at all, nothing is told.
    async fn dane(&self, domain: &str, host: &str, port: u16) -> Told {
        let known = self.safety.state.borrow().dnssec;
        let in_vain = known.is_some_and(|(at, works)| !works && at.elapsed() < DNSSEC_AGAIN);
        let nothing = |dane, proved| Told { dane, records: Vec::new(), proved };
        if !self.safety.config.dane || in_vain {
            return nothing(Dane::Absent, Some(false).filter(|_| !in_vain));
        }
        let resolver = self.resolver.validating();
        let mut proved = false;
        let steps = async {
            match resolver.mx(domain).await {
                Ok(found) if !found.secure => return Ok(None),
                // Whoever is not among the validated servers was made up.
                Ok(found) if !found.value.iter().any(|(_, name)| name.eq_ignore_ascii_case(host)) => {
                    return Err(DnsError::Bogus);
                }
                Ok(_) => proved = true,
                Err(DnsError::NoRecords) => {}
                Err(error) => return Err(error),
            }
            if !resolver.addresses(host).await?.secure {
                return Ok(None);
            }
            match resolver.tlsa(&format!("_{port}._tcp.{host}")).await {
                Ok(found) => Ok(found.secure.then_some(found.value)),
                Err(DnsError::NoRecords | DnsError::NoSuchName) => Ok(None),
                Err(error) => Err(error),
            }
        };
        let found = Box::pin(steps).await;
        match found {
            Ok(None) | Err(DnsError::NoRecords | DnsError::NoSuchName) => nothing(Dane::Absent, Some(proved)),
            Ok(Some(records)) => {
                let dane = if records.iter().any(is_usable) { Dane::Usable } else { Dane::Unusable };
                Told { dane, records, proved: Some(proved) }
            }
            Err(_) if self.dnssec_works(&resolver).await => nothing(Dane::Broken, None),
            Err(_) => nothing(Dane::Absent, None),
        }
    }

    /// Tells whether DNSSEC can be checked here. Many a router takes the signatures out of answers; then
    /// every signed domain looks forged, and none is.
    async fn dnssec_works(&self, resolver: &Resolver) -> bool {
        let known = self.safety.state.borrow().dnssec;
        if let Some((_, works)) = known.filter(|(at, _)| at.elapsed() < DNSSEC_AGAIN) {
            return works;
        }
        // A zone that is signed holds or lacks this; either is proved, or the proofs do not get here.
        let works = !matches!(resolver.txt("com").await, Err(DnsError::Bogus | DnsError::Unavailable(_)));
        if !works {
            tracing::info!("DNSSEC cannot be checked here: what it says of servers' certificates does not count");
        }
        self.safety.state.borrow_mut().dnssec = Some((Instant::now(), works));
        works
    }

    /// Notes how a connection went: how safe it was, and what a report will tell of it. `fault` is why
    /// TLS failed, `noted` what was wrong with a certificate that did not matter.
    pub(super) fn note_safety(&self, terms: &Terms, end: &End, fault: Option<TlsFault>, noted: Option<TlsFault>) {
        let Terms { demand, domain, host, trial, applied, counted, .. } = terms;
        let at = match &end.how {
            How::Failed(heard) => Some(heard.at),
            How::Fine => None,
        };
        // A server that was not spoken to has shown nothing.
        if matches!(at, Some(Point::Greeting | Point::Hello)) && end.tls.is_none() {
            return;
        }
        let level = match &end.tls {
            Some(tls) if tls.verified => Level::Verified,
            Some(_) => Level::Encrypted,
            None if fault.is_some_and(TlsFault::is_certificate) => Level::Encrypted,
            None => Level::Clear,
        };
        let failure = match (at == Some(Point::StartTls), fault) {
            (true, Some(fault)) => Some(failure_of(fault)),
            (true, None) => Some(Failure::StarttlsNotSupported),
            (false, _) if level == Level::Clear && applied.kind != tls_report::PolicyKind::NoPolicyFound => {
                Some(Failure::StarttlsNotSupported)
            }
            (false, _) => match trial {
                Some(policy) if !policy.names(host) => Some(Failure::ValidationFailure),
                Some(_) => noted.map(failure_of),
                None => None,
            },
        };
        if *counted {
            self.count_session(domain, host, applied, failure);
        }
        // What a policy demands is not learnt, and what it forbids is no fall.
        if matches!(demand.reason, Reason::Dane | Reason::Sts | Reason::Sender) && failure.is_some() {
            return;
        }
        let mut state = self.safety.state.borrow_mut();
        if !state.kept.book.knows(domain, host, level) {
            state.dirty = true;
        }
        let fell = state.kept.book.saw(domain, host, level, self.safety.delay_secs(), now());
        if let Some(before) = fell {
            let hours = self.safety.config.downgrade_delay_hours;
            tracing::warn!(domain, host, %before, now = %level, hours, "a server is less safe than it was; mail waits for a while");
        }
    }

    fn count_session(&self, domain: &str, host: &str, applied: &Applied, failure: Option<Failure>) {
        if let Some(reports) = &self.safety.reports {
            reports.session(domain, host, applied, failure);
        }
    }
}

/// The word of a report for what went wrong in a handshake (RFC 8460 section 4.3).
fn failure_of(fault: TlsFault) -> Failure {
    match fault {
        TlsFault::Expired => Failure::CertificateExpired,
        TlsFault::WrongName => Failure::CertificateHostMismatch,
        TlsFault::Untrusted => Failure::CertificateNotTrusted,
        TlsFault::NotOfTheDns | TlsFault::Handshake | TlsFault::TimedOut | TlsFault::Lost => Failure::ValidationFailure,
    }
}

/// A TLSA record as text (RFC 6698 section 2.2).
fn spelled(record: &Tlsa) -> String {
    let mut text = format!("{} {} {} ", record.usage, record.selector, record.matching);
    for byte in record.data.iter().take(SHOWN_MAX) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::date::Timestamp;

    #[test]
    fn what_was_learnt_is_there_after_a_restart_and_a_ruined_file_is_not_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Safety::open(TlsPolicyConfig::default(), folder.path());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let safety = open();
            safety.save(true).await;
            assert!(!folder.path().join(FILE).exists(), "nothing to write");
            {
                let mut state = safety.state.borrow_mut();
                state.kept.book.saw("a.test", "mx.a.test", Level::Encrypted, 3600, Timestamp(5));
                state.dirty = true;
            }
            safety.save(false).await;
            let again = open();
            assert!(again.state.borrow().kept.book.knows("a.test", "mx.a.test", Level::Encrypted));
            // The next write waits, but not for the server's stop.
            safety.state.borrow_mut().dirty = true;
            safety.save(false).await;
            assert!(safety.state.borrow().dirty);
            safety.save(true).await;
            assert!(!safety.state.borrow().dirty);
        });
        std::fs::write(folder.path().join(FILE), "{\"book\": 7").unwrap();
        assert_eq!(open().state.borrow().kept.book, Book::default());
    }

    #[test]
    fn a_record_is_written_as_zone_files_do() {
        let record = Tlsa { usage: 3, selector: 1, matching: 1, data: vec![0xab, 0x01] };
        assert_eq!(spelled(&record), "3 1 1 ab01");
    }
}
