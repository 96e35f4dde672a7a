//! Checks on senders as SMTP connections use them: when each is made, and what the peer hears.
//!
//! At MAIL the rates are looked at, at RCPT block lists and the greylist, and once the message's header is there
//! SPF, DKIM, DMARC and ARC. Whoever comes from a trusted network passes unseen.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::fresh::now;
use crate::filter::sender::{self, Action, SenderConfig, Standing};
use crate::flow::gate::Gate;
use crate::flow::letter::Foreign;
use crate::mail::address::Domain;
use crate::mail::authentication::Listing;
use crate::mail::envelope::{Client, Envelope, ForwardPath, ReversePath};
use crate::mail::signed::Signed;
use crate::net::authenticate::Authenticator;
use crate::protocol::smtp::Reply;
use crate::store::{Store, WriteError};

/// The checks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Checks(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    authenticator: Authenticator,
    gate: Gate,
    config: SenderConfig,
    host: Arc<str>,
}

impl Checks {
    /// Sets the checks up; `host` is our own name. Asks and reads nothing.
    #[must_use]
    pub fn new(authenticator: Authenticator, store: Store, config: SenderConfig, host: Arc<str>) -> Self {
        let gate = Gate::new(store, config.clone());
        Self(Arc::new(Shared { authenticator, gate, config, host }))
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

    /// A recipient of ours was named. Postmaster hears everybody (RFC 5321 section 4.5.1).
    ///
    /// # Errors
    /// The reply to RCPT.
    pub async fn recipient(&mut self, from: &ReversePath, to: &ForwardPath) -> Result<(), Reply> {
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
        let from = from.address().map(ToString::to_string).unwrap_or_default();
        gate.greet(self.client, &from, &to.to_string(), now(), Instant::now())
    }

    /// What to take out of a message's header; `spam`: a spam filter's words too.
    #[must_use]
    pub fn foreign(&self, spam: bool) -> Foreign {
        let results_of = self.checks.0.config.enabled.then(|| self.checks.0.host.to_string());
        Foreign { spam, results_of, ..Foreign::default() }
    }

    /// Looks at a message's sender. As long as the body has not ended, it is taken to be what signatures say.
    pub async fn look(&self, client: &Client, envelope: &Envelope, signed: &Signed) -> Looked {
        let Shared { authenticator, config, host, .. } = &*self.checks.0;
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
        Looked { field: sender::field(&findings, host), standing }
    }
}
