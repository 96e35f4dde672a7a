//! Checks on senders as SMTP connections use them: when each is made, and what the peer hears.
//!
//! At MAIL the rates are looked at, at RCPT block lists and the greylist, and once the message's header is there
//! SPF, DKIM, DMARC and ARC. Whoever comes from a trusted network passes unseen.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::fresh::now;
use super::reports::Reports;
use crate::filter::sender::{self, Action, Row, SenderConfig, Standing, is_report};
use crate::flow::gate::Gate;
use crate::flow::judge::Filter;
use crate::flow::letter::Foreign;
use crate::mail::address::Domain;
use crate::mail::authentication::{Listing, Published, Verdict};
use crate::mail::envelope::{Client, Envelope, ForwardPath, ReversePath};
use crate::mail::mailbox::AccountId;
use crate::mail::signed::Signed;
use crate::net::authenticate::Authenticator;
use crate::protocol::smtp::Reply;
use crate::store::{Store, WriteError};

/// Most accounts behind one address whose correspondents are looked through for greylisting.
const ACCOUNTS_MAX: usize = 32;

/// The checks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Checks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    authenticator: Authenticator,
    gate: Gate,
    config: SenderConfig,
    host: Arc<str>,
    filter: Filter,
    reports: Option<Reports>,
}

impl Checks {
    /// Sets the checks up; `host` is our own name, `filter` knows whom users have written to, `reports` count what is
    /// found. Asks and reads nothing.
    #[must_use]
    pub fn new(
        authenticator: Authenticator,
        store: Store,
        config: SenderConfig,
        host: Arc<str>,
        filter: Filter,
        reports: Option<Reports>,
    ) -> Self {
        let gate = Gate::new(store, config.clone());
        Self(Arc::new(Shared { authenticator, gate, config, host, filter, reports }))
    }

    /// The checks on one connection.
    #[must_use]
    pub fn visit(&self, client: IpAddr) -> Visit {
        Visit { checks: self.clone(), client, applies: self.0.config.checks(client), listing: None }
    }

    /// Writes down what has to be known after a restart. Blocks.
    ///
    /// # Errors
    /// The store does not take it.
    pub fn save(&self) -> Result<(), WriteError> {
        self.0.gate.save()
    }
}

/// The checks on one connection.
#[derive(Debug)]
pub struct Visit {
    checks: Checks,
    client: IpAddr,
    applies: bool,
    /// What lists say of the client, once they were asked.
    listing: Option<Listing>,
}

/// What was found about a message's sender.
#[derive(Clone, Debug, PartialEq)]
pub struct Looked {
    /// What it means.
    pub standing: Standing,
    /// The field that says so.
    pub field: String,
    /// What its domain is told of it, if it asks for reports.
    told: Option<Box<(Published, Row)>>,
}

impl Looked {
    /// What the peer is told, if the message is not wanted.
    #[must_use]
    pub fn refusal(&self) -> Option<Reply> {
        let refused = self.standing.action == Action::Reject;
        refused.then(|| Reply::new(550, "5.7.1", self.standing.reason.clone()))
    }
}

impl Visit {
    /// Whether this client is checked.
    #[must_use]
    pub fn applies(&self) -> bool {
        self.applies
    }

    /// A message begins.
    ///
    /// # Errors
    /// The reply to MAIL.
    pub fn begin(&self) -> Result<(), Reply> {
        if !self.applies {
            return Ok(());
        }
        self.checks.0.gate.begin(self.client, Instant::now())
    }

    /// A recipient of ours was named, whose mail goes to these accounts. Postmaster hears everybody (RFC 5321 section
    /// 4.5.1).
    ///
    /// # Errors
    /// The reply to RCPT.
    pub async fn recipient(
        &mut self,
        from: &ReversePath,
        to: &ForwardPath,
        accounts: &[AccountId],
    ) -> Result<(), Reply> {
        let Shared { authenticator, gate, config, .. } = &*self.checks.0;
        let to = match to {
            ForwardPath::Address(address) if !address.local().eq_ignore_ascii_case("postmaster") => address,
            _ => return Ok(()),
        };
        if !self.applies {
            return Ok(());
        }
        if self.listing.is_none() {
            self.listing = Some(authenticator.listing(self.client, &config.block_lists, &config.allow_lists).await);
        }
        let listing = self.listing.clone().unwrap_or_default();
        let allowed = !listing.allowed.is_empty();
        if let Some(list) = listing.blocked.first().filter(|_| !allowed && config.listed == Action::Reject) {
            let text = format!("the address you send from is on the block list {list}");
            return Err(Reply::new(550, "5.7.1", text));
        }
        if allowed {
            return Ok(());
        }
        let spelled = from.address().map(ToString::to_string).unwrap_or_default();
        match gate.greet(self.client, &spelled, &to.to_string(), now(), Instant::now()) {
            Err(_) if self.is_awaited(from, accounts).await => Ok(()),
            answer => answer,
        }
    }

    /// Tells whether one of the accounts has written to the sender, so that this may be the answer. Whoever only poses
    /// as him is not spared: SPF must not speak against it.
    async fn is_awaited(&self, from: &ReversePath, accounts: &[AccountId]) -> bool {
        let Some(address) = from.address().cloned() else { return false };
        let Shared { authenticator, filter, .. } = &*self.checks.0;
        let (filter, accounts) = (filter.clone(), accounts.to_vec());
        let spelled = format!("{}@{}", address.local(), address.domain());
        let reading = tokio::task::spawn_blocking(move || {
            let mut accounts = accounts.into_iter().take(ACCOUNTS_MAX);
            accounts.any(|account| filter.has_written_to(account, &address).unwrap_or(false))
        });
        if !reading.await.unwrap_or(false) {
            return false;
        }
        let spf = authenticator.spf(self.client, "", &spelled).await;
        !matches!(spf.verdict, Verdict::Fail | Verdict::SoftFail)
    }

    /// What to take out of a message's header; `spam`: a spam filter's words too.
    #[must_use]
    pub fn foreign(&self, spam: bool) -> Foreign {
        let results_of = self.checks.0.config.enabled.then(|| self.checks.0.host.to_string());
        Foreign { spam, results_of, ..Foreign::default() }
    }

    /// Looks at a message's sender. As long as the body has not ended, it is taken to be what signatures say.
    pub async fn look(&self, client: &Client, envelope: &Envelope, signed: &Signed) -> Looked {
        let Shared { authenticator, config, host, reports, .. } = &*self.checks.0;
        let helo = client.greeting.as_ref().map_or("", Domain::as_str);
        let from = envelope.from.address().map(|address| format!("{}@{}", address.local(), address.domain()));
        let mut findings = authenticator.findings(self.client, helo, &from.unwrap_or_default(), signed).await;
        findings.listing = self.listing.clone().unwrap_or_default();
        // Who was listed and came as far as this writes to postmaster.
        let config = SenderConfig { listed: config.listed.min(Action::Junk), ..config.clone() };
        let standing = sender::judge(&findings, &config, host);
        tracing::debug!(
            from = %envelope.from,
            spf = %findings.spf.verdict,
            dkim = ?findings.dkim.iter().map(|one| one.verdict.word()).collect::<Vec<_>>(),
            dmarc = %findings.dmarc.verdict,
            arc = %findings.arc.verdict,
            action = ?standing.action,
            "sender checked"
        );
        let told = reports.as_ref().filter(|reports| reports.tell_of_mail()).and_then(|_| {
            // Two servers that report to one another must not go on with reports about their reports.
            let is_report = findings.dmarc.verdict == Verdict::Pass && signed.header.as_deref().is_some_and(is_report);
            let row = Row::of(&findings, &config).filter(|_| !is_report)?;
            Some(Box::new((*findings.dmarc.published.take()?, row)))
        });
        Looked { field: sender::field(&findings, host), standing, told }
    }

    /// Counts a message that was kept or refused, for reports.
    pub fn count(&self, looked: &Looked) {
        if let (Some(reports), Some(told)) = (&self.checks.0.reports, &looked.told) {
            let (published, row) = &**told;
            reports.message(published, row.clone());
        }
    }
}
