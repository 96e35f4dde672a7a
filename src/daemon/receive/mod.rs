//! SMTP connections: the world behind an [`smtp::Receiver`].
//!
//! Questions are point reads and are answered at once. A message's bytes are spooled on the reactor
//! while they stay in memory and on a blocking thread once they have left it. Mail from other servers
//! is judged when its beginning is there, and put into INBOX or Junk accordingly. The answer to
//! [`Request::Finish`] waits for the store: a 250 follows a commit. One line is logged for each
//! message kept and for each refusal; never what a message says.

use std::future::pending;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::checks::{Looked, Visit};
use super::fresh::{new_id, now};
use super::login::Login;
use crate::filter::sender::{Action, Standing};
use crate::flow::access::url::PartReader;
use crate::flow::arrive::Destination;
use crate::flow::judge::Verdict;
use crate::flow::letter::{Foreign, Letter, LetterError, Start, reply_to};
use crate::flow::post::{LISTS_MAX, Post};
use crate::flow::{arrive, forward, submit};
use crate::mail::address::Address;
use crate::mail::date::ZonedTime;
use crate::mail::envelope::{Client, Envelope, ForwardPath, Recipient, ReversePath};
use crate::mail::list::List;
use crate::mail::mailbox::AccountId;
use crate::mail::queue::Submitter;
use crate::net::drive::Answers;
use crate::protocol::TlsFacts;
use crate::protocol::smtp::{self, Answer, Begin, Reply, Request, Role, Sender};
use crate::queue::outcome::wants_success;

mod fetch; //  what BURL asks for
mod keep; //   the end of a message
mod office; // what connections share

pub use office::Office;

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
    /// What a URL names and is being read (RFC 4468).
    part: Option<Box<PartReader>>,
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
            Request::Fetch(url) => return self.fetch(&url).await,
            Request::FetchMore => return self.fetch_more().await,
            Request::Body(content) => self.body(content).await,
            Request::Finish => self.finish().await,
            Request::Discard(reason) => {
                self.part = None;
                if let (Some(incoming), Some(reply)) = (self.incoming.take(), reason) {
                    incoming.log_refusal(&reply);
                }
                Ok(())
            }
        };
        verdict.map_or_else(Answer::Refused, |()| Answer::Accepted)
    }

    fn tls_started(&self, facts: TlsFacts) -> TlsFacts {
        self.login.tls_started(facts)
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
        (self.incoming, self.part) = (None, None);
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
            let accounts = match &found {
                Ok(Destination::Local(accounts) | Destination::Forward { accounts, .. }) => accounts.as_slice(),
                _ => &[],
            };
            let checked = self.visit.recipient(&sender.from, &recipient.path, accounts).await;
            found = found.and_then(|destination| checked.map(|()| destination));
        }
        if self.submits && found == Ok(Destination::Remote) {
            found = self.office.look_for(&sender.from, &recipient.path).await.map(|()| Destination::Remote);
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

    /// Who is said to have submitted the message.
    fn submitter(&self) -> Submitter {
        match self.by {
            Some(account) => Submitter::Account(account),
            None if self.submits => Submitter::Network,
            None => Submitter::Nobody,
        }
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
                self.visit.count(&looked);
                incoming.log_refusal(&reply);
                self.incoming = None;
                return Err(reply);
            }
            incoming.looked = Some(looked);
        }
        let (filter, accounts) = (self.office.teacher.filter().clone(), self.targets.clone());
        let (standing, results) = match &incoming.looked {
            Some(Looked { standing, field, .. }) => (standing.clone(), field.clone()),
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
            if let Some(looked) = &incoming.looked {
                self.visit.count(looked);
            }
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
            self.visit.count(&looked);
            incoming.log_refusal(&reply);
            self.incoming = None;
            return Err(reply);
        }
        incoming.restated = incoming.looked.as_ref().is_some_and(|before| before.field != looked.field);
        incoming.looked = Some(looked);
        Ok(())
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
            LetterError::Loop | LetterError::Scanned(_) => self.log_refusal(reply),
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

fn unreadable(error: &crate::store::ReadError) -> Reply {
    tracing::error!(?error, "the store cannot be read");
    Reply::new(451, "4.3.0", "cannot look that up now: try again later")
}

/// A message that is not there any more, which no peer can bring about.
fn lost() -> Reply {
    Reply::new(451, "4.3.0", "the message was lost here: send it again")
}
