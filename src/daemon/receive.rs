//! SMTP connections: the world behind an [`smtp::Receiver`].
//!
//! Questions are point reads and are answered at once. A message's bytes are spooled on the reactor
//! while they stay in memory and on a blocking thread once they have left it. Mail from other servers
//! is judged when its beginning is there, and put into INBOX or Junk accordingly. The answer to
//! [`Request::Finish`] waits for the store: a 250 follows a commit. One line is logged for each
//! message kept and for each refusal; never what a message says.

use std::fmt::Write as _;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::guard::Guard;
use super::login::{Doorway, Login, random};
use super::teacher::Teacher;
use crate::flow::judge::Verdict;
use crate::flow::letter::{Letter, LetterError, Start, reply_to};
use crate::flow::{arrive, submit};
use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::envelope::{Envelope, Recipient};
use crate::mail::mailbox::{AccountId, SpecialUse};
use crate::net::drive::Answers;
use crate::protocol::smtp::{self, Answer, Begin, Reply, Request, Role, Sender, SmtpConfig};
use crate::store::{Folder, NewMessage, Store};

/// How long a message waits for a place among those received at one time.
const PLACE_WAIT: Duration = Duration::from_secs(30);

/// How long a content may take besides what its size explains. Silence has a bound of its own
/// (RFC 5321 section 4.5.3.2.5); this one is for peers that send a byte now and then and would keep
/// their place among those received at one time for ever.
const SLOW_GRACE: Duration = Duration::from_mins(5);

/// Slowest content that is waited for after that, in bytes per second: less than GPRS gives.
const SLOWEST_RATE: u64 = 1024;

/// What all SMTP connections share.
#[derive(Clone, Debug)]
pub struct Office {
    store: Store,
    doorway: Doorway,
    teacher: Teacher,
    host: Arc<str>,
    /// Places for messages received at one time.
    places: Arc<Semaphore>,
    /// Scans what is received, if that is wanted.
    guard: Option<Guard>,
}

impl Office {
    /// Sets up what connections share; `host` is our name in trace fields.
    #[must_use]
    pub fn new(store: Store, doorway: Doorway, teacher: Teacher, host: Arc<str>, config: &SmtpConfig) -> Self {
        let places = Arc::new(Semaphore::new(usize::from(config.incoming_max.max(1))));
        Self { store, doorway, teacher, host, places, guard: None }
    }

    /// Has what is received scanned.
    #[must_use]
    pub fn guarded(self, guard: Option<Guard>) -> Self {
        Self { guard, ..self }
    }

    /// The world behind one connection.
    #[must_use]
    pub fn reception(&self, client: std::net::IpAddr) -> Reception {
        Reception {
            login: self.doorway.login(client),
            office: self.clone(),
            sender: None,
            targets: Vec::new(),
            incoming: None,
        }
    }
}

/// The world behind one SMTP connection.
#[derive(Debug)]
pub struct Reception {
    office: Office,
    login: Login,
    sender: Option<Sender>,
    /// Accounts the message goes to, without doubles.
    targets: Vec<AccountId>,
    incoming: Option<Incoming>,
}

/// A message whose content comes.
#[derive(Debug)]
struct Incoming {
    /// Away while a blocking thread works at it.
    letter: Option<Box<Letter>>,
    /// What was found, once it was judged.
    verdict: Option<Verdict>,
    envelope: Envelope,
    id: String,
    since: Instant,
    _place: OwnedSemaphorePermit,
}

impl Answers<smtp::Receiver> for Reception {
    async fn answer(&mut self, request: Request) -> Answer {
        let verdict = match request {
            Request::Sasl(request) => return Answer::Sasl(self.login.sasl(request).await),
            Request::Sender(sender) => self.sender(*sender),
            Request::Recipient(recipient) => self.recipient(&recipient),
            Request::Begin(begin) => self.begin(*begin).await,
            Request::Body(content) => self.body(content).await,
            Request::Finish => self.finish().await,
            Request::Discard(reason) => {
                if let (Some(incoming), Some(reply)) = (self.incoming.take(), reason) {
                    incoming.log_refusal(&reply);
                }
                Ok(())
            }
        };
        verdict.map_or_else(Answer::Refused, |()| Answer::Accepted)
    }

    async fn changed(&mut self) {
        // Asked only while a content comes; one that was refused holds no place.
        match &self.incoming {
            Some(incoming) => sleep_until(incoming.deadline()).await,
            None => pending::<()>().await,
        }
    }
}

impl Drop for Reception {
    fn drop(&mut self) {
        if let Some(incoming) = &self.incoming {
            tracing::info!(id = %incoming.id, from = %incoming.envelope.from, "message broken off");
        }
    }
}

impl Reception {
    fn sender(&mut self, sender: Sender) -> Result<(), Reply> {
        self.targets = Vec::new();
        self.incoming = None;
        if sender.role == Role::Submission {
            let reader = self.office.store.reader().map_err(|error| unreadable(&error))?;
            submit::sender(&reader, &sender).inspect_err(|reply| {
                tracing::info!(from = %sender.from, %reply, "sender refused");
            })?;
        }
        self.sender = Some(sender);
        Ok(())
    }

    fn recipient(&mut self, recipient: &Recipient) -> Result<(), Reply> {
        let Some(sender) = &self.sender else { return Err(lost()) };
        let reader = self.office.store.reader().map_err(|error| unreadable(&error))?;
        let routed = match sender.role {
            Role::Exchange => arrive::recipient(&reader, sender, recipient),
            Role::Submission => submit::recipient(&reader, sender, recipient),
        };
        let accounts = routed.inspect_err(|reply| {
            tracing::info!(from = %sender.from, to = %recipient.path, %reply, "recipient refused");
        })?;
        for account in accounts {
            if !self.targets.contains(&account) {
                self.targets.push(account);
            }
        }
        Ok(())
    }

    async fn begin(&mut self, begin: Begin) -> Result<(), Reply> {
        let Begin { client, envelope } = begin;
        let refused = |reply: Reply| {
            tracing::warn!(from = %envelope.from, %reply, "message refused");
            reply
        };
        let place = tokio::time::timeout(PLACE_WAIT, self.office.places.clone().acquire_owned()).await;
        let Ok(Ok(place)) = place else {
            return Err(refused(Reply::new(452, "4.3.1", "too many messages at one time: try again later")));
        };
        let spool = self.office.store.spool().map_err(|error| refused(reply_to(&error)))?;
        let id = new_id();
        let start = Start {
            client: &client,
            envelope: &envelope,
            host: &self.office.host,
            id: &id,
            at: ZonedTime::utc(now()),
            complete: self.role() == Role::Submission,
            judged: self.role() == Role::Exchange && self.office.teacher.filter().config().enabled,
        };
        let letter = Letter::begin(spool, &start).map_err(|error| refused(error.reply()))?;
        let (letter, since) = (Some(Box::new(letter)), Instant::now());
        self.incoming = Some(Incoming { letter, verdict: None, envelope, id, since, _place: place });
        Ok(())
    }

    fn role(&self) -> Role {
        self.sender.as_ref().map_or(Role::Exchange, |sender| sender.role)
    }

    /// Has the letter judged if its beginning is there; at the `end` it is, whatever it is.
    async fn judge(&mut self, end: bool) -> Result<(), Reply> {
        let Some(incoming) = &mut self.incoming else { return Err(lost()) };
        let Some(mut letter) = incoming.letter.take_if(|letter| end || letter.head().is_some()) else {
            return Ok(());
        };
        let (filter, accounts) = (self.office.teacher.filter().clone(), self.targets.clone());
        let working = tokio::task::spawn_blocking(move || {
            let verdict = match if end { letter.end()? } else { letter.head() } {
                // What can't be judged now is kept as it is: mail is not refused for that.
                Some(head) => {
                    filter.judge(head, &accounts).inspect_err(|error| tracing::warn!(%error, "not judged")).ok()
                }
                None => None,
            };
            letter.judged(verdict.as_ref().map_or("", |verdict| &verdict.fields))?;
            Ok::<_, LetterError>((letter, verdict))
        });
        match working.await.map_err(|_| lost())? {
            Ok((letter, verdict)) => {
                incoming.letter = Some(letter);
                incoming.verdict = verdict.or(incoming.verdict.take());
            }
            Err(error) => {
                let reply = error.reply();
                if let Some(incoming) = self.incoming.take() {
                    incoming.log_failure(&error, &reply);
                }
                return Err(reply);
            }
        }
        if incoming.verdict.as_ref().is_some_and(Verdict::is_rejected) {
            let reply = Reply::new(554, "5.7.1", "this looks like spam and is not taken");
            incoming.log_refusal(&reply);
            self.incoming = None;
            return Err(reply);
        }
        Ok(())
    }

    async fn body(&mut self, content: Vec<u8>) -> Result<(), Reply> {
        let Some(incoming) = &mut self.incoming else { return Err(lost()) };
        let Some(mut letter) = incoming.letter.take() else { return Err(lost()) };
        let written = if letter.is_on_disk() {
            let working = tokio::task::spawn_blocking(move || {
                let written = letter.write(&content);
                (letter, written)
            });
            working.await.map_err(|_| lost()).map(|(back, written)| {
                incoming.letter = Some(back);
                written
            })?
        } else {
            let written = letter.write(&content);
            incoming.letter = Some(letter);
            written
        };
        written.map_err(|error| {
            let reply = error.reply();
            if let Some(incoming) = self.incoming.take() {
                incoming.log_failure(&error, &reply);
            }
            reply
        })?;
        self.judge(false).await
    }

    async fn finish(&mut self) -> Result<(), Reply> {
        if self.incoming.as_ref().is_some_and(|incoming| incoming.letter.as_ref().is_some_and(|letter| letter.waits()))
        {
            self.judge(true).await?;
        }
        let Some(mut incoming) = self.incoming.take() else { return Err(lost()) };
        let Some(letter) = incoming.letter.take() else { return Err(lost()) };
        let sender = self.sender.take();
        let accounts = std::mem::take(&mut self.targets);
        let size = letter.size();
        let junk = |account: &&AccountId| incoming.verdict.as_ref().is_some_and(|verdict| verdict.is_junk(**account));
        let kept = self.keep(letter, &accounts, incoming.verdict.as_ref()).await;
        match &kept {
            Ok(()) => {
                tracing::info!(
                    id = %incoming.id,
                    from = %incoming.envelope.from,
                    recipients = incoming.envelope.recipients.len(),
                    accounts = accounts.len(),
                    junk = accounts.iter().filter(junk).count(),
                    size,
                    "message kept"
                );
                // Whoever was written to is known to the spam filter from now on.
                if let Some(login) = sender.and_then(|sender| sender.login) {
                    let recipients = incoming.envelope.recipients.iter();
                    let addresses = recipients.filter_map(|recipient| recipient.path.address().cloned());
                    self.office.teacher.wrote_to(login.account, addresses.collect());
                }
            }
            Err(error) => {
                let reply = error.reply();
                incoming.log_failure(error, &reply);
                return Err(reply);
            }
        }
        Ok(())
    }

    async fn keep(
        &self,
        letter: Box<Letter>,
        accounts: &[AccountId],
        verdict: Option<&Verdict>,
    ) -> Result<(), LetterError> {
        let message: NewMessage = if letter.is_on_disk() {
            let working = tokio::task::spawn_blocking(move || letter.finish());
            working.await.map_err(|_| LetterError::Spool(crate::store::WriteError::Closed))??
        } else {
            letter.finish()?
        };
        let folder = |account| match verdict {
            Some(verdict) if verdict.is_junk(account) => Folder::Special(SpecialUse::Junk),
            _ => Folder::Inbox,
        };
        let to = accounts.iter().map(|&account| (account, folder(account))).collect();
        let (message, to) = match &self.office.guard {
            Some(guard) => guard.pass(message, to).await.map(|passed| (passed.message, passed.to)),
            None => Ok((message, to)),
        }
        .map_err(LetterError::Scanned)?;
        self.office.store.deliver(message, to).await.map(drop).map_err(LetterError::Spool)
    }
}

impl Incoming {
    /// When the content has come too slowly, unless more of it comes.
    fn deadline(&self) -> Instant {
        let size = self.letter.as_ref().map_or(0, |letter| letter.size());
        self.since + SLOW_GRACE + Duration::from_secs(size / SLOWEST_RATE)
    }

    fn log_refusal(&self, reply: &Reply) {
        tracing::info!(id = %self.id, from = %self.envelope.from, %reply, "message refused");
    }

    /// A refusal for which something of ours is to blame says what.
    fn log_failure(&self, error: &LetterError, reply: &Reply) {
        match error {
            LetterError::Loop | LetterError::Scanned(_) => self.log_refusal(reply),
            LetterError::Spool(error) => {
                tracing::warn!(id = %self.id, from = %self.envelope.from, ?error, %reply, "message refused");
            }
        }
    }
}

/// Our name for a new message: 96 random bits in hexadecimal.
fn new_id() -> String {
    random::<12>().iter().fold(String::with_capacity(24), |mut id, byte| {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
        id
    })
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

fn unreadable(error: &crate::store::ReadError) -> Reply {
    tracing::error!(?error, "the store cannot be read");
    Reply::new(451, "4.3.0", "cannot look that up now: try again later")
}

/// A message that is not there any more, which no peer can bring about.
fn lost() -> Reply {
    Reply::new(451, "4.3.0", "the message was lost here: send it again")
}
