//! The door as connections use it: waits where a try must wait, and checks passwords away from the
//! reactor, a few at a time.
//!
//! SMTP, IMAP and POP3 hand their [`sasl::Request`]s to [`Login::sasl`]; what is decided and why
//! stands in [`flow::access::sasl`](crate::flow::access::sasl).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Semaphore;

use super::fresh::now;
use crate::flow::access::lockout::{Admission, LoginConfig};
use crate::flow::access::sasl::{DOOR_RANDOM, Door, DoorError};
use crate::mail::certificate::Fingerprint;
use crate::mail::secret::Password;
use crate::protocol::TlsFacts;
use crate::protocol::sasl::{Answer, Identity, Refusal, Request};
use crate::store::Store;

/// The server's door; one for all connections.
#[derive(Clone, Debug)]
pub struct Doorway {
    door: Arc<Door>,
    /// Password checks at one time: each is pure CPU work.
    checks: Arc<Semaphore>,
}

impl Doorway {
    /// Sets the door up. May block: call it before the reactor runs.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn new(store: Store, config: LoginConfig) -> Result<Self, DoorError> {
        let checks = Arc::new(Semaphore::new(usize::from(config.checks_max.max(1))));
        let door = Arc::new(Door::new(store, config, &random::<DOOR_RANDOM>())?);
        Ok(Self { door, checks })
    }

    /// The door for one connection from `client`.
    #[must_use]
    pub fn login(&self, client: IpAddr) -> Login {
        Login { way: self.clone(), client: client.to_canonical() }
    }
}

/// The door for one connection.
#[derive(Clone, Debug)]
pub struct Login {
    way: Doorway,
    client: IpAddr,
}

impl Login {
    /// Answers one request of a SASL exchange, or of POP3's USER and PASS.
    pub async fn sasl(&mut self, request: Request) -> Answer {
        match request {
            Request::CheckPassword { login, password } => {
                let outcome = self.check(login, password).await;
                self.log(&outcome);
                Answer::Login(outcome)
            }
            Request::Verifier { login } => {
                if let Err(refusal) = self.wait(&login).await {
                    self.log(&Err(refusal));
                    return Answer::Login(Err(refusal));
                }
                self.way.door.verifier(self.client, &login, random(), Instant::now())
            }
            Request::Certificate { certificate, acts_as } => {
                let outcome = self.present(certificate, acts_as).await;
                self.log(&outcome);
                Answer::Login(outcome)
            }
            Request::Concluded { login, proved } => {
                let outcome = self.way.door.conclude(self.client, &login, proved, Instant::now());
                self.log(&outcome);
                Answer::Login(outcome)
            }
        }
    }

    async fn check(&self, login: String, password: Password) -> Result<Identity, Refusal> {
        if let Some(identity) = self.way.door.recognize(self.client, &login, &password, Instant::now()) {
            return Ok(identity);
        }
        self.wait(&login).await?;
        let _permit = self.way.checks.acquire().await.map_err(|_| Refusal::Unavailable)?;
        let (door, client) = (self.way.door.clone(), self.client);
        let checking = tokio::task::spawn_blocking(move || door.check(client, &login, &password, Instant::now()));
        checking.await.unwrap_or(Err(Refusal::Unavailable))
    }

    async fn present(&self, certificate: Fingerprint, acts_as: Option<String>) -> Result<Identity, Refusal> {
        let acts_as = acts_as.as_deref();
        match acts_as {
            Some(login) => self.wait(login).await?,
            None => self.wait(&certificate.to_string()).await?,
        }
        let outcome = self.way.door.present(self.client, certificate, acts_as, now(), Instant::now());
        if outcome == Err(Refusal::Credentials) {
            // The owner of the box can compare it with `pillarbox account certificates`.
            tracing::info!(%certificate, "this certificate is revoked or over, or not that user's");
        }
        outcome
    }

    /// What a session is told of TLS: of a certificate only one that lets somebody in.
    #[must_use]
    pub fn tls_started(&self, mut facts: TlsFacts) -> TlsFacts {
        facts.channel.certificate = facts.channel.certificate.filter(|shown| self.way.door.knows(*shown, now()));
        facts
    }

    /// Lets the time pass that earlier failures cost.
    async fn wait(&self, login: &str) -> Result<(), Refusal> {
        match self.way.door.admit(self.client, login, Instant::now()) {
            Admission::Now => Ok(()),
            Admission::After(delay) => {
                tokio::time::sleep(delay).await;
                Ok(())
            }
            Admission::Locked(retry) => Err(Refusal::LockedOut { retry }),
        }
    }

    /// One line for each outcome. The login as typed stays out of the log: people type passwords
    /// into the wrong field.
    fn log(&self, outcome: &Result<Identity, Refusal>) {
        let client = self.client;
        match outcome {
            Ok(identity) => tracing::info!(%client, account = %identity.address, "logged in"),
            Err(Refusal::LockedOut { retry }) => {
                tracing::warn!(%client, seconds = retry.as_secs(), "login refused: locked out");
            }
            Err(refusal) => tracing::warn!(%client, ?refusal, "login failed"),
        }
    }
}

/// Random bytes from the operating system.
#[must_use]
pub fn random<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    if SystemRandom::new().fill(&mut bytes).is_err() {
        // Secrets made of nothing would be worse than no server.
        tracing::error!("the operating system gives no random bytes");
        std::process::abort();
    }
    bytes
}
