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

use super::checks::{Checks, Looked, Visit};
use super::login::{Doorway, Login, random};
use super::teacher::Teacher;
use crate::filter::sender::{Action, Standing};
use crate::flow::arrive::Destination;
use crate::flow::brake::{Brake, Braked, Pace, SubmissionConfig};
use crate::flow::judge::{Fate, Verdict};
use crate::flow::letter::{Foreign, Letter, LetterError, Start, reply_to};
use crate::flow::post::{LISTS_MAX, Post};
use crate::flow::relay::Exit;
use crate::flow::{arrive, forward, notify, post, submit};
use crate::mail::address::Address;
use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::envelope::{BodyType, Client, Envelope, ForwardPath, Recipient, ReversePath};
use crate::mail::list::List;
use crate::mail::mailbox::{AccountId, MailboxId, SpecialUse, Uid};
use crate::mail::queue::{Due, NewQueued, QueueId, QueueOrder};
use crate::net::drive::Answers;
use crate::protocol::smtp::{self, Answer, Begin, Reply, Request, Role, Sender, SmtpConfig};
use crate::queue::outcome::wants_success;
use crate::store::{Folder, NewMessage, Store};

/// How long a message waits for a place among those received at one time.
const PLACE_WAIT: Duration = Duration::from_secs(30);

/// How long a content may take besides what its size explains. Silence has a bound of its own
/// (RFC 5321 section 4.5.3.2.5); this one is for peers that send a byte now and then and would keep
/// their place among those received at one time for ever.
const SLOW_GRACE: Duration = Duration::from_mins(5);

/// Slowest content that is waited for after that, in bytes per second: less than GPRS gives.
const SLOWEST_RATE: u64 = 1024;

/// Most addresses elsewhere that aliases lead one message to.
const COPIES_MAX: usize = 1000;

/// How long mail that is to be held would wait, if the power failed before it is, in milliseconds.
const HELD_MS: u64 = 3_600_000;

/// Who may send, and how much.
#[derive(Debug)]
struct Submission {
    config: SubmissionConfig,
    brake: Brake,
    since: Instant,
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
    store: Store,
    doorway: Doorway,
    teacher: Teacher,
    checks: Checks,
    host: Arc<str>,
    exit: Exit,
    submission: Arc<Submission>,
    /// Places for messages received at one time.
    places: Arc<Semaphore>,
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
        Self { store, doorway, teacher, checks, host, exit, submission, places }
    }

    /// Sets who may send, and how much.
    #[must_use]
    pub fn with_submission(mut self, config: SubmissionConfig) -> Self {
        self.submission = Arc::new(Submission::new(config));
        self
    }

    /// Tells whether a client may submit as some senders without logging in.
    pub fn is_open_to(&self, client: std::net::IpAddr) -> bool {
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

    /// The world behind one connection.
    #[must_use]
    pub fn reception(&self, client: std::net::IpAddr) -> Reception {
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

/// The world behind one SMTP connection.
#[derive(Debug)]
pub struct Reception {
    office: Office,
    login: Login,
    /// Senders for which this client needs no login.
    open: Vec<Address>,
    /// The account that sends: who logged in, or whose address an open sender is.
    by: Option<AccountId>,
    /// The message is a user's of ours, whatever port it came to.
    submits: bool,
    visit: Visit,
    sender: Option<Sender>,
    /// Accounts the message goes to, without doubles.
    targets: Vec<AccountId>,
    /// Recipients here who are to be told of when the message is in their mailboxes.
    local: Vec<Recipient>,
    /// Recipients whose mail goes on to others' servers.
    remote: Vec<Recipient>,
    /// The same with a sender of their own, as aliases lead elsewhere.
    copies: Vec<(ReversePath, Recipient)>,
    /// Lists whose members get a copy, without doubles.
    lists: Vec<List>,
    incoming: Option<Incoming>,
}

/// A message whose content comes.
#[derive(Debug)]
struct Incoming {
    /// Away while a blocking thread works at it.
    letter: Option<Box<Letter>>,
    /// Copies for lists; away with the letter.
    posts: Vec<Post>,
    /// What was found, once it was judged.
    verdict: Option<Verdict>,
    /// What was found about its sender.
    looked: Option<Looked>,
    /// The words about the sender are others at the end.
    restated: bool,
    client: Client,
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
            Request::Recipient(recipient) => self.recipient(&recipient).await,
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
        self.local = Vec::new();
        self.remote = Vec::new();
        self.copies = Vec::new();
        self.lists = Vec::new();
        self.incoming = None;
        let open = sender.login.is_none() && submit::is_open_to(&self.open, &sender.from);
        self.submits = sender.role == Role::Submission || open;
        self.by = sender.login.as_ref().map(|login| login.account);
        if self.submits {
            let reader = self.office.store.reader().map_err(|error| unreadable(&error))?;
            submit::sender(&reader, &sender, &self.open).inspect_err(|reply| {
                tracing::info!(from = %sender.from, %reply, "sender refused");
            })?;
            self.by = self.by.or_else(|| submit::account_of(&reader, &sender.from));
        } else {
            self.visit.begin().inspect_err(|reply| {
                tracing::info!(from = %sender.from, %reply, "sender refused");
            })?;
        }
        self.sender = Some(sender);
        Ok(())
    }

    async fn recipient(&mut self, recipient: &Recipient) -> Result<(), Reply> {
        let Some(sender) = &self.sender else { return Err(lost()) };
        let reader = self.office.store.reader().map_err(|error| unreadable(&error))?;
        let onward = self.office.exit.onward(now());
        let found = match self.role() {
            Role::Exchange => arrive::recipient(&reader, &onward, sender, recipient),
            Role::Submission => submit::recipient(&reader, &onward, sender, recipient),
        };
        drop(reader);
        let mut found = found;
        if found.is_ok() && !self.submits {
            // Lists are not asked for recipients that are none.
            let checked = self.visit.recipient(&sender.from, &recipient.path).await;
            found = found.and_then(|destination| checked.map(|()| destination));
        }
        let destination = found.inspect_err(|reply| {
            tracing::info!(from = %sender.from, to = %recipient.path, %reply, "recipient refused");
        })?;
        let accounts = match destination {
            Destination::Local(accounts) => accounts,
            Destination::Remote => {
                self.remote.push(recipient.clone());
                return Ok(());
            }
            Destination::List(list) => return self.post_to(*list),
            Destination::Forward { accounts, copies } => {
                self.copy_to(recipient, copies)?;
                accounts
            }
        };
        if wants_success(recipient.notify) {
            self.local.push(recipient.clone());
        }
        for account in accounts {
            if !self.targets.contains(&account) {
                self.targets.push(account);
            }
        }
        Ok(())
    }

    /// Sends copies on besides. What the sender wants to hear of a recipient he hears of each (RFC 3461
    /// section 5.2.7.1).
    fn copy_to(&mut self, recipient: &Recipient, copies: Vec<forward::Copy>) -> Result<(), Reply> {
        for forward::Copy { from, to } in copies {
            let same = |(known, other): &(ReversePath, Recipient)| {
                *known == from && other.path.address().is_some_and(|other| other.key() == to.key())
            };
            if self.copies.iter().any(same) {
                continue;
            }
            if self.copies.len() >= COPIES_MAX {
                return Err(Reply::new(452, "4.5.3", "too many recipients: send to the rest in another message"));
            }
            self.copies.push((from, Recipient { path: ForwardPath::Address(to), ..recipient.clone() }));
        }
        Ok(())
    }

    fn post_to(&mut self, list: List) -> Result<(), Reply> {
        if self.lists.iter().any(|known| known.address == list.address) {
            return Ok(());
        }
        if self.lists.len() >= LISTS_MAX {
            return Err(Reply::new(452, "4.5.3", "too many lists: send to the rest in another message"));
        }
        self.lists.push(list);
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
        let exchange = self.role() == Role::Exchange;
        let spam = exchange && self.office.teacher.filter().config().enabled;
        let checked = exchange && self.visit.applies();
        let foreign = if exchange { self.visit.foreign(spam) } else { Foreign::default() };
        let start = Start {
            client: &client,
            envelope: &envelope,
            host: &self.office.host,
            id: &id,
            at: ZonedTime::utc(now()),
            complete: !exchange,
            judged: spam || checked,
            foreign: &foreign,
            signed: checked,
            list: None,
        };
        let mut posts = Vec::new();
        for list in std::mem::take(&mut self.lists) {
            let spool = self.office.store.spool().map_err(|error| refused(reply_to(&error)))?;
            posts.push(Post::begin(list, spool, &start).map_err(|error| refused(error.reply()))?);
        }
        let letter = Letter::begin(spool, &start).map_err(|error| refused(error.reply()))?;
        let (letter, since) = (Some(Box::new(letter)), Instant::now());
        let (verdict, looked, restated) = (None, None, false);
        self.incoming =
            Some(Incoming { letter, posts, verdict, looked, restated, client, envelope, id, since, _place: place });
        Ok(())
    }

    fn role(&self) -> Role {
        if self.submits { Role::Submission } else { Role::Exchange }
    }

    /// Has the letter judged if its beginning is there; at the `end` it is, whatever it is.
    async fn judge(&mut self, end: bool) -> Result<(), Reply> {
        let Some(incoming) = &mut self.incoming else { return Err(lost()) };
        let Some(mut letter) = incoming.letter.take_if(|letter| end || letter.head().is_some()) else {
            return Ok(());
        };
        if let Some(signed) = letter.signed(end) {
            let looked = self.visit.look(&incoming.client, &incoming.envelope, &signed).await;
            if let Some(reply) = looked.refusal() {
                incoming.log_refusal(&reply);
                self.incoming = None;
                return Err(reply);
            }
            incoming.looked = Some(looked);
        }
        let (filter, accounts) = (self.office.teacher.filter().clone(), self.targets.clone());
        let (standing, results) = match &incoming.looked {
            Some(Looked { standing, field }) => (standing.clone(), field.clone()),
            None => (Standing::unchecked(), String::new()),
        };
        let working = tokio::task::spawn_blocking(move || {
            let verdict = match if end { letter.end()? } else { letter.head() } {
                // What can't be judged now is kept as it is: mail is not refused for that.
                Some(head) if filter.config().enabled => filter
                    .judge(head, &accounts, &standing)
                    .inspect_err(|error| tracing::warn!(%error, "not judged"))
                    .ok(),
                _ => None,
            };
            letter.judged(&results, verdict.as_ref().map_or("", |verdict| &verdict.fields))?;
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
            let mut posts = std::mem::take(&mut incoming.posts);
            let working = tokio::task::spawn_blocking(move || {
                let written = write(&mut letter, &mut posts, &content);
                (letter, posts, written)
            });
            working.await.map_err(|_| lost()).map(|(back, posts, written)| {
                incoming.letter = Some(back);
                incoming.posts = posts;
                written
            })?
        } else {
            let written = write(&mut letter, &mut incoming.posts, &content);
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
        self.look_again().await?;
        let Some(mut incoming) = self.incoming.take() else { return Err(lost()) };
        let Some(letter) = incoming.letter.take() else { return Err(lost()) };
        let sender = self.sender.take();
        let accounts = std::mem::take(&mut self.targets);
        let size = letter.size();
        let mut queued = self.to_queue(&letter, &incoming.envelope);
        let held = self.is_too_much(&incoming, &mut queued)?;
        let posts = self.finish_posts(&mut incoming, accounts.is_empty() && queued.is_empty()).await?;
        let junk = |account: &&AccountId| incoming.is_junk(**account);
        let mut kept = self.keep(letter, &accounts, (queued, held), &incoming).await;
        if kept.is_ok()
            && let Err(error) = self.keep_posts(posts).await
        {
            kept = Err(error);
        }
        match &kept {
            Ok(placed) => {
                // Mail that looks like spam confirms nothing to whoever sent it.
                if !accounts.iter().any(|account| junk(&account)) {
                    self.confirm(&incoming.envelope, placed).await;
                }
                tracing::info!(
                    id = %incoming.id,
                    from = %incoming.envelope.from,
                    recipients = incoming.envelope.recipients.len(),
                    accounts = accounts.len(),
                    queued = self.remote.len() + self.copies.len(),
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

    /// What of the message goes on to others' servers: by itself, and with the senders that aliases give it.
    fn to_queue(&self, letter: &Letter, envelope: &Envelope) -> Vec<NewQueued> {
        // What the content needs is asked of the next server, not what its sender declared.
        let nature = letter.nature(envelope.utf8);
        let body = match envelope.body {
            BodyType::BinaryMime if nature.binary => BodyType::BinaryMime,
            _ if nature.eight_bit => BodyType::EightBitMime,
            _ => BodyType::SevenBit,
        };
        let by = self.by;
        let mut groups: Vec<(ReversePath, Vec<Recipient>)> = Vec::new();
        let own = self.remote.iter().map(|recipient| (&envelope.from, recipient));
        for (from, recipient) in own.chain(self.copies.iter().map(|(from, recipient)| (from, recipient))) {
            match groups.iter_mut().find(|(known, _)| known == from) {
                Some((_, recipients)) => recipients.push(recipient.clone()),
                None => groups.push((from.clone(), vec![recipient.clone()])),
            }
        }
        let queued = groups.into_iter().map(|(from, recipients)| {
            let international = from.address().is_some_and(Address::is_international);
            let utf8 = nature.utf8_header || international;
            let envelope = Envelope { from, recipients, body, utf8, ..envelope.clone() };
            NewQueued { envelope, require_tls: false, by, due: Due::from(now()) }
        });
        queued.collect()
    }

    /// Counts what an account sends to others' servers. Tells whether it is to be held.
    fn is_too_much(&self, incoming: &Incoming, queued: &mut [NewQueued]) -> Result<bool, Reply> {
        let Some(account) = self.by else { return Ok(false) };
        let recipients = queued.iter().map(|new| new.envelope.recipients.len()).sum::<usize>();
        let Submission { brake, since, .. } = &*self.office.submission;
        match brake.count(account, u32::try_from(recipients).unwrap_or(u32::MAX), since.elapsed().as_secs()) {
            Pace::Free => Ok(false),
            Pace::Held => {
                tracing::warn!(
                    id = %incoming.id, from = %incoming.envelope.from, recipients,
                    "an account sends too much: its mail is held until `pillarbox queue release`; has somebody \
                     found its password?"
                );
                for new in queued {
                    new.due = Due(new.due.0.saturating_add(HELD_MS));
                }
                Ok(true)
            }
            Pace::Refused => {
                let reply = Reply::new(452, "4.7.1", "too many recipients for now: ask the postmaster");
                incoming.log_refusal(&reply);
                Err(reply)
            }
        }
    }

    /// Holds what was queued.
    async fn hold(&self, ids: &[QueueId]) {
        for id in ids {
            if let Err(error) = self.office.store.order_queued(*id, QueueOrder::Hold).await {
                tracing::error!(queue = %id, %error, "a message that is to be held is not");
            }
        }
    }

    /// Ends the copies for lists. Mail that looks like spam goes to none; `alone` says that it goes nowhere
    /// else.
    async fn finish_posts(&self, incoming: &mut Incoming, alone: bool) -> Result<Vec<post::Ready>, Reply> {
        let posts = std::mem::take(&mut incoming.posts);
        if posts.is_empty() {
            return Ok(Vec::new());
        }
        let is_doubtful = incoming.looked.as_ref().is_some_and(|looked| looked.standing.action != Action::Accept);
        if is_doubtful || incoming.verdict.as_ref().is_some_and(|verdict| verdict.told != Fate::Accept) {
            let reply = Reply::new(554, "5.7.1", "this looks like spam or a forgery and goes to no list");
            incoming.log_refusal(&reply);
            return if alone { Err(reply) } else { Ok(Vec::new()) };
        }
        let by = self.by;
        let (store, due) = (self.office.store.clone(), Due::from(now()));
        let working = tokio::task::spawn_blocking(move || {
            let reader = store.reader().map_err(|error| unreadable(&error))?;
            posts.into_iter().map(|post| post.finish(&reader, by, due)).collect::<Result<Vec<_>, Reply>>()
        });
        working.await.map_err(|_| lost())?.inspect_err(|reply| incoming.log_refusal(reply))
    }

    async fn keep_posts(&self, posts: Vec<post::Ready>) -> Result<(), LetterError> {
        for post::Ready { message, accounts, queued } in posts {
            let (members, elsewhere) = (accounts.len(), queued.as_ref().map_or(0, |new| new.envelope.recipients.len()));
            let to = accounts.into_iter().map(|account| (account, Folder::Inbox)).collect();
            self.office.store.submit(message, to, queued).await.map_err(LetterError::Spool)?;
            tracing::info!(members, elsewhere, "message went to a list");
        }
        Ok(())
    }

    /// Tells the sender who has the message, if that was asked for. The notification is kept before the
    /// message is acknowledged, so it is not lost.
    async fn confirm(&self, envelope: &Envelope, placed: &[(MailboxId, Uid)]) {
        let Some(&(mailbox, uid)) = placed.first().filter(|_| !self.local.is_empty()) else { return };
        let (exit, envelope, local) = (self.office.exit.clone(), envelope.clone(), self.local.clone());
        let fresh = notify::Fresh { id: new_id(), now: now() };
        let working = tokio::task::spawn_blocking(move || {
            let message = exit.store.reader()?.message(mailbox, uid)?;
            message.map_or(Ok(None), |message| notify::delivered(&exit, &envelope, &local, message.blob, &fresh))
        });
        let Ok(ready) = working.await else { return };
        let kept = match ready {
            Ok(Some(notify::Ready { message: Some(message), local, queued, .. })) => {
                self.office.store.submit(message, local, queued).await.map(drop).map_err(notify::NotifyError::Write)
            }
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = kept {
            tracing::warn!(%error, "the sender was not told that a message arrived");
        }
    }

    /// Looks at the sender of a long message once more, now that its body is known: what its signatures were
    /// taken to say of it may not be so.
    async fn look_again(&mut self) -> Result<(), Reply> {
        let Some(incoming) = &mut self.incoming else { return Ok(()) };
        let signed = incoming.letter.as_mut().and_then(|letter| letter.signed(true));
        let Some(signed) = signed.filter(|signed| signed.simple.is_some() || signed.relaxed.is_some()) else {
            return Ok(());
        };
        let looked = self.visit.look(&incoming.client, &incoming.envelope, &signed).await;
        if let Some(reply) = looked.refusal() {
            incoming.log_refusal(&reply);
            self.incoming = None;
            return Err(reply);
        }
        incoming.restated = incoming.looked.as_ref().is_some_and(|before| before.field != looked.field);
        incoming.looked = Some(looked);
        Ok(())
    }

    async fn keep(
        &self,
        letter: Box<Letter>,
        accounts: &[AccountId],
        (queued, held): (Vec<NewQueued>, bool),
        incoming: &Incoming,
    ) -> Result<Vec<(MailboxId, Uid)>, LetterError> {
        let results = incoming.looked.as_ref().filter(|_| incoming.restated).map(|looked| looked.field.clone());
        let message: NewMessage = if letter.is_on_disk() || results.is_some() {
            let spool = results.is_some().then(|| self.office.store.spool()).transpose().map_err(LetterError::Spool)?;
            let working = tokio::task::spawn_blocking(move || match (results, spool) {
                (Some(results), Some(spool)) => letter.finish_with(&results, spool),
                _ => letter.finish(),
            });
            working.await.map_err(|_| LetterError::Spool(crate::store::WriteError::Closed))??
        } else {
            letter.finish()?
        };
        let folder = |account| {
            if incoming.is_junk(account) { Folder::Special(SpecialUse::Junk) } else { Folder::Inbox }
        };
        let to = accounts.iter().map(|&account| (account, folder(account))).collect();
        let kept = if queued.is_empty() {
            self.office.store.deliver(message, to).await
        } else {
            let submitted = self.office.store.submit(message, to, queued).await;
            if let (Ok(submitted), true) = (&submitted, held) {
                self.hold(&submitted.all_queued).await;
            }
            submitted.map(|submitted| submitted.placed)
        };
        kept.map_err(LetterError::Spool)
    }
}

impl Incoming {
    /// Whether it goes to an account's Junk: by what it says, or by who sends it.
    fn is_junk(&self, account: AccountId) -> bool {
        self.verdict.as_ref().is_some_and(|verdict| verdict.is_junk(account))
            || self.looked.as_ref().is_some_and(|looked| looked.standing.action == Action::Junk)
    }

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
            LetterError::Loop => self.log_refusal(reply),
            LetterError::Spool(error) => {
                tracing::warn!(id = %self.id, from = %self.envelope.from, ?error, %reply, "message refused");
            }
        }
    }
}

/// Adds content to a letter and to the lists' copies of it.
fn write(letter: &mut Letter, posts: &mut [Post], content: &[u8]) -> Result<(), LetterError> {
    letter.write(content)?;
    posts.iter_mut().try_for_each(|post| post.write(content))
}

/// Our name for a new message: 96 random bits in hexadecimal.
pub(super) fn new_id() -> String {
    random::<12>().iter().fold(String::with_capacity(24), |mut id, byte| {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// Now, as the system's clock has it.
pub(super) fn now() -> Timestamp {
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
