//! What all SMTP connections share: the store and the door, what judges mail, the ways out, places for mail that comes.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Reception;
use crate::daemon::checks::Checks;
use crate::daemon::guard::Guard;
use crate::daemon::login::Doorway;
use crate::daemon::teacher::Teacher;
use crate::flow::brake::{Brake, Braked, SubmissionConfig};
use crate::flow::relay::Exit;
use crate::mail::mailbox::AccountId;
use crate::protocol::smtp::SmtpConfig;
use crate::store::Store;

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
        Self { store, doorway, teacher, checks, host, exit, submission, places, guard: None }
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
        }
    }
}
