//! What all SMTP connections share: the store and the door, what judges mail, the ways out, places for mail that comes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::Reception;
use crate::daemon::checks::Checks;
use crate::daemon::guard::Guard;
use crate::daemon::login::Doorway;
use crate::daemon::teacher::Teacher;
use crate::flow::brake::{Brake, Braked, SubmissionConfig};
use crate::flow::relay::Exit;
use crate::mail::envelope::{ForwardPath, ReversePath};
use crate::mail::mailbox::AccountId;
use crate::net::resolver::{DnsError, Resolver};
use crate::protocol::smtp::{Reply, SmtpConfig};
use crate::queue::route::Way;
use crate::store::Store;

/// How long the DNS is waited for before a user's recipient is taken all the same.
const NAME_WAIT: Duration = Duration::from_secs(3);

/// Who may send, and how much.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) config: SubmissionConfig,
    pub(super) brake: Brake,
    pub(super) since: Instant,
}

impl Submission {
    fn new(config: SubmissionConfig) -> Self {
        let brake = Brake::new(&config);
        Self { config, brake, since: Instant::now() }
    }
}

/// What all SMTP connections share.
#[derive(Clone, Debug)]
pub struct Office {
    pub(super) store: Store,
    pub(super) doorway: Doorway,
    pub(super) teacher: Teacher,
    pub(super) checks: Checks,
    pub(super) host: Arc<str>,
    pub(super) exit: Exit,
    pub(super) submission: Arc<Submission>,
    /// Places for messages received at one time.
    pub(super) places: Arc<Semaphore>,
    /// Scans what is received, if that is wanted.
    pub(super) guard: Option<Guard>,
    /// Knows which domains there are.
    resolver: Option<Resolver>,
}

impl Office {
    /// Sets up what connections share; `host` is our name in trace fields.
    #[must_use]
    pub fn new(
        store: Store,
        doorway: Doorway,
        teacher: Teacher,
        checks: Checks,
        host: Arc<str>,
        config: &SmtpConfig,
    ) -> Self {
        let places = Arc::new(Semaphore::new(usize::from(config.incoming_max.max(1))));
        let exit = Exit::new(store.clone(), Arc::default(), Arc::default(), Arc::clone(&host));
        let submission = Arc::new(Submission::new(SubmissionConfig::default()));
        Self { store, doorway, teacher, checks, host, exit, submission, places, guard: None, resolver: None }
    }

    /// Sets who may send, and how much.
    #[must_use]
    pub fn with_submission(mut self, config: SubmissionConfig) -> Self {
        self.submission = Arc::new(Submission::new(config));
        self
    }

    /// Tells whether a client may submit as some senders without logging in.
    pub fn is_open_to(&self, client: IpAddr) -> bool {
        !self.submission.config.senders_at(client).is_empty()
    }

    /// Accounts whose mail is held because they send too much.
    pub fn braked(&self) -> Vec<Braked> {
        let found = self.submission.brake.braked(self.submission.since.elapsed().as_secs());
        let reader = if found.is_empty() { None } else { self.store.reader().ok() };
        let named = |id: AccountId| {
            let account = reader.as_ref().and_then(|reader| reader.account(id).ok().flatten());
            account.map_or_else(|| id.0.to_string(), |account| account.address.to_string())
        };
        found.into_iter().map(|(id, hour, day, held)| Braked { account: named(id), hour, day, held }).collect()
    }

    /// Lets mail out. Without this there is no way out, and mail for others' servers is refused.
    #[must_use]
    pub fn with_exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Has the DNS asked whether a recipient's domain exists.
    #[must_use]
    pub fn asking(self, resolver: Resolver) -> Self {
        Self { resolver: Some(resolver), ..self }
    }

    /// Looks whether a user's recipient elsewhere has a domain that takes mail, so that a slip of the pen is told at
    /// once and not by a notification. Only what the DNS says for certain counts, and it is not waited for long.
    ///
    /// # Errors
    /// The reply to RCPT.
    pub(super) async fn look_for(&self, from: &ReversePath, to: &ForwardPath) -> Result<(), Reply> {
        let (Some(resolver), Some(address)) = (&self.resolver, to.address()) else { return Ok(()) };
        let domain = address.domain();
        let direct = matches!(self.exit.routes.way(domain, from, false), Some(Way::Direct(_)));
        if !direct || domain.is_literal() {
            return Ok(());
        }
        match timeout(NAME_WAIT, resolver.mx(domain.as_str())).await {
            Ok(Err(DnsError::NoSuchName)) => {
                Err(Reply::new(550, "5.1.2", "there is no such domain: check how it is spelled"))
            }
            // RFC 7505 section 4.1
            Ok(Ok(found)) if matches!(found.value.as_slice(), [(_, host)] if host.is_empty()) => {
                Err(Reply::new(556, "5.1.10", "this domain takes no mail"))
            }
            _ => Ok(()),
        }
    }

    /// Has what is received scanned.
    #[must_use]
    pub fn guarded(self, guard: Option<Guard>) -> Self {
        Self { guard, ..self }
    }

    /// The world behind one connection.
    #[must_use]
    pub fn reception(&self, client: IpAddr) -> Reception {
        Reception {
            login: self.doorway.login(client),
            open: self.submission.config.senders_at(client),
            by: None,
            submits: false,
            visit: self.checks.visit(client),
            office: self.clone(),
            sender: None,
            targets: Vec::new(),
            local: Vec::new(),
            remote: Vec::new(),
            copies: Vec::new(),
            lists: Vec::new(),
            incoming: None,
            part: None,
        }
    }
}
