//! IMAP connections: the world behind an [`imap::Session`].
//!
//! Point reads are answered inline, scans and bodies on the blocking threads, writes by awaiting
//! their journal group. Between commands a connection keeps the account's watch and nothing else.

use std::future::{Future as _, pending, poll_fn};
use std::net::IpAddr;
use std::task::Poll;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::login::{Doorway, Login, random};
use super::teacher::Teacher;
use crate::flow::access::admit::{Admitted, admit};
use crate::flow::access::imap::{Aside, Incoming, Plan, Write, plan, read, refused, unreadable};
use crate::flow::access::url::{self, PartReader, Visitor};
use crate::flow::learn::{self, Lesson};
use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::mailbox::{AccountId, MailboxName, ModSeq};
use crate::mail::message::BlobId;
use crate::net::drive::Answers;
use crate::protocol::TlsFacts;
use crate::protocol::imap;
use crate::protocol::imap::notify::WATCHED_MAX;
use crate::protocol::imap::request::{Answer, Refused, Request};
use crate::protocol::imap::url::ImapUrl;
use crate::protocol::sasl;
use crate::store::{Body, Pending, ReadError, Store, WriteError};

/// Bytes of a message that are taken in on the reactor; more go to a blocking thread.
const INLINE_BYTES: usize = 2 * 1024;

/// Bytes of a block as bodies are kept (STORAGE section 2): within one, reading costs nothing.
const BLOCK_BYTES: u64 = 64 * 1024;

/// What one IMAP connection needs of the world.
#[derive(Debug)]
pub struct ImapAnswers {
    store: Store,
    teacher: Teacher,
    login: Login,
    account: Option<(AccountId, watch::Receiver<ModSeq>)>,
    /// Others whose mailboxes this session looks at.
    others: Option<Box<Others>>,
    /// The body that is being sent, and where it was read last.
    body: Option<Box<(Body, u64)>>,
    /// The message that is being taken in; away while a blocking thread works at it.
    incoming: Option<Box<Incoming>>,
    /// Messages of the same APPEND that are complete.
    aside: Option<Box<Aside>>,
    /// What a URL names and is being sent.
    part: Option<Box<PartReader>>,
}

impl ImapAnswers {
    /// The world behind a connection from `client`.
    #[must_use]
    pub fn new(store: Store, teacher: Teacher, doorway: &Doorway, client: IpAddr) -> Self {
        let login = doorway.login(client);
        Self { store, teacher, login, account: None, others: None, body: None, incoming: None, aside: None, part: None }
    }

    async fn sasl(&mut self, request: sasl::Request) -> Answer {
        let answer = self.login.sasl(request).await;
        if let sasl::Answer::Login(Ok(identity)) = &answer {
            self.account = Some((identity.account, self.store.watch(identity.account)));
            self.others = None;
        }
        Answer::Sasl(answer)
    }

    /// What the request says of mail to the spam filter.
    fn lesson(&self, account: AccountId, request: &Request) -> Option<Lesson> {
        let config = self.teacher.filter().config();
        // Without it mail is kept all the same.
        learn::lesson(&self.store, account, request, config.learn_from_reading).ok().flatten()
    }

    fn teach(&self, lesson: Option<Lesson>, answer: &Answer) {
        if let Some(given) = lesson.and_then(|lesson| lesson.given(answer)) {
            self.teacher.give(given);
        }
    }

    /// A piece of a body. It stays open until something else is asked.
    async fn body(&mut self, blob: BlobId, offset: u64, max: usize) -> Answer {
        let open = self.body.take().filter(|open| open.0.blob() == blob);
        let at_hand = open.as_ref().is_some_and(|open| open.1 / BLOCK_BYTES == offset / BLOCK_BYTES);
        let store = self.store.clone();
        let work = move || {
            let mut open = match open {
                Some(open) => open,
                None => Box::new((store.body(blob)?, offset)),
            };
            open.1 = offset;
            let bytes = open.0.read(offset, max)?.to_vec();
            Ok((open, bytes))
        };
        let outcome = if at_hand { work() } else { spawn_blocking(work).await.unwrap_or(Err(ReadError::Closed)) };
        match outcome {
            Ok((open, bytes)) => {
                self.body = Some(open);
                Answer::Bytes(bytes)
            }
            Err(error) => unreadable(&error),
        }
    }

    /// Authorizes a URL of the account's own; gives its mailbox a key first, if it has none.
    async fn authorize(&self, account: AccountId, rump: &str, mailbox: &MailboxName) -> Answer {
        let find = || {
            let reader = self.store.reader()?;
            let Some(mailbox) = reader.mailbox_named(account, mailbox)? else { return Ok(None) };
            Ok(Some((mailbox.id, url::key(&reader, account, mailbox.id)?)))
        };
        for fresh in [true, false] {
            match find() {
                Ok(None) => return Answer::Mailbox(None),
                Ok(Some((_, Some(key)))) => return Answer::Token(url::token(&key, rump)),
                // What is read back is signed with: another session may have made a key meanwhile.
                Ok(Some((id, None))) if fresh => {
                    let Some(setting) = url::set_key(&self.store, account, id, Some(random())) else { break };
                    if let Err(error) = setting.await {
                        return Answer::Refused(refused(&error));
                    }
                }
                Ok(Some(_)) => break,
                Err(error) => return unreadable(&error),
            }
        }
        unavailable()
    }

    async fn reset_keys(&self, account: AccountId, mailbox: Option<MailboxName>) -> Answer {
        let find = || {
            let reader = self.store.reader()?;
            let mailboxes = match &mailbox {
                Some(name) => reader.mailbox_named(account, name)?.into_iter().collect(),
                None => reader.mailboxes(account)?,
            };
            let mut keyed = Vec::new();
            for mailbox in &mailboxes {
                if url::key(&reader, account, mailbox.id)?.is_some() {
                    keyed.push(mailbox.id);
                }
            }
            Ok((mailboxes.is_empty(), keyed))
        };
        let keyed = match find() {
            Ok((true, _)) => return Answer::Refused(Refused::NoSuchMailbox),
            Ok((false, keyed)) => keyed,
            Err(error) => return unreadable(&error),
        };
        for mailbox in keyed {
            let Some(setting) = url::set_key(&self.store, account, mailbox, None) else { return unavailable() };
            if let Err(error) = setting.await {
                return Answer::Refused(refused(&error));
            }
        }
        Answer::Done
    }

    async fn open_url(&mut self, account: AccountId, text: String, address: Box<ImapUrl>) -> Answer {
        let store = self.store.clone();
        let work = move || {
            let visitor = Visitor::LoggedIn(account);
            let found = url::authorized(&store.reader()?, &text, &address, visitor, now())?;
            let Some(part) = found else { return Ok(None) };
            Ok(Some((part.length(&store)?, Box::new(PartReader::open(&store, &part)?))))
        };
        match spawn_blocking(work).await.unwrap_or(Err(ReadError::Closed)) {
            Ok(Some((length, part))) => {
                self.part = Some(part);
                Answer::UrlSize(Some(length))
            }
            Ok(None) => Answer::UrlSize(None),
            Err(error) => unreadable(&error),
        }
    }

    async fn url_bytes(&mut self, max: usize) -> Answer {
        let Some(mut part) = self.part.take() else { return unavailable() };
        let at_hand = part.is_at_hand();
        let work = move || part.read(max).map(|bytes| (part, bytes));
        match if at_hand { work() } else { spawn_blocking(work).await.unwrap_or(Err(ReadError::Closed)) } {
            Ok((part, bytes)) => {
                self.part = Some(part).filter(|_| !bytes.is_empty());
                Answer::Bytes(bytes)
            }
            Err(error) => unreadable(&error),
        }
    }

    /// Watches whose mailboxes a question is about, before it is answered.
    fn watch(&mut self, admitted: &Admitted) {
        if !matches!(admitted.request, Request::Changes { .. }) {
            return;
        }
        // Of the selected mailbox, for this is asked before every wait.
        if admitted.owner != admitted.account {
            self.others.get_or_insert_default().select(&self.store, admitted.owner);
        } else if let Some(others) = self.others.as_deref_mut() {
            others.selected = None;
        }
    }

    /// Watches all those whose mailboxes were told to a session that wants to hear of them.
    fn watch_all(&mut self, account: AccountId, answer: &Answer) {
        let Answer::Mailboxes { mailboxes, .. } = answer else { return };
        let mut owners: Vec<AccountId> = mailboxes.iter().map(|mailbox| mailbox.account).collect();
        owners.retain(|owner| *owner != account);
        owners.sort_unstable();
        owners.dedup();
        if self.others.is_some() || !owners.is_empty() {
            self.others.get_or_insert_default().survey(&self.store, &owners);
        }
    }

    async fn append(&mut self, admitted: Admitted) -> Answer {
        let Admitted { account, owner, rights, request } = admitted;
        match request {
            Request::AppendBegin { mailbox, size, replaced } => {
                let aside = self.aside.take().map(|aside| *aside).unwrap_or_default();
                match Incoming::begin(&self.store, (account, owner, rights), &mailbox, size, (aside, replaced)) {
                    Ok((incoming, mailbox)) => {
                        self.incoming = Some(Box::new(incoming));
                        Answer::Mailbox(Some(mailbox))
                    }
                    Err(answer) => answer,
                }
            }
            Request::AppendNext { flags, date } => {
                let Some(incoming) = self.incoming.take() else { return unavailable() };
                let date = date.unwrap_or_else(|| ZonedTime::utc(now()));
                match blocking(move || incoming.set_aside(flags, date)).await {
                    Ok(aside) => {
                        self.aside = Some(Box::new(aside));
                        Answer::Done
                    }
                    Err(error) => Answer::Refused(refused(&error)),
                }
            }
            Request::AppendBytes(bytes) => {
                let Some(mut incoming) = self.incoming.take() else { return unavailable() };
                let inline = bytes.len() <= INLINE_BYTES;
                let work = move || incoming.write(&bytes).map(|()| incoming);
                let outcome = if inline { work() } else { blocking(work).await };
                match outcome {
                    Ok(incoming) => {
                        self.incoming = Some(incoming);
                        Answer::Done
                    }
                    Err(error) => Answer::Refused(refused(&error)),
                }
            }
            Request::AppendUrl { url, most } => {
                let Some(mut incoming) = self.incoming.take() else { return unavailable() };
                let store = self.store.clone();
                let work = move || incoming.write_url(&store, &url, most).map(|bytes| (incoming, bytes));
                match spawn_blocking(work).await.unwrap_or(Err(Refused::Unavailable)) {
                    Ok((incoming, bytes)) => {
                        self.incoming = Some(incoming);
                        Answer::Appended(bytes)
                    }
                    Err(refused) => Answer::Refused(refused),
                }
            }
            Request::AppendEnd { flags, date, replaced } => {
                let Some(incoming) = self.incoming.take() else { return unavailable() };
                let (store, date) = (self.store.clone(), date.unwrap_or_else(|| ZonedTime::utc(now())));
                let lesson = incoming.lesson(&flags);
                let answer = match blocking(move || incoming.keep(&store, flags, date, replaced)).await {
                    Ok(placing) => settled(placing, Answer::Placed).await,
                    Err(error) => Answer::Refused(refused(&error)),
                };
                self.teach(lesson, &answer);
                answer
            }
            _ => {
                (self.incoming, self.aside) = (None, None);
                Answer::Done
            }
        }
    }
}

impl Answers<imap::Session> for ImapAnswers {
    async fn answer(&mut self, request: Request) -> Answer {
        if let Request::Body { blob, offset, max } = request {
            return self.body(blob, offset, max).await;
        }
        self.body = None;
        let request = match request {
            Request::Sasl(request) => return self.sasl(request).await,
            request => request,
        };
        let Some((account, _)) = self.account else { return unavailable() };
        match request {
            Request::UrlBytes(max) => return self.url_bytes(max).await,
            _ => self.part = None,
        }
        let admitted = match admit(&self.store, account, request) {
            Ok(admitted) => admitted,
            Err(answer) => return answer,
        };
        self.watch(&admitted);
        let Admitted { owner, rights, request, .. } = admitted;
        let admitted = |request| Admitted { account, owner, rights, request };
        match request {
            Request::Authorize { rump, mailbox } => self.authorize(account, &rump, &mailbox).await,
            Request::ResetKeys(mailbox) => self.reset_keys(account, mailbox).await,
            Request::OpenUrl { text, url } => self.open_url(account, text, url).await,
            Request::AppendBegin { .. }
            | Request::AppendBytes(_)
            | Request::AppendUrl { .. }
            | Request::AppendNext { .. }
            | Request::AppendEnd { .. }
            | Request::AppendCancel => self.append(admitted(request)).await,
            request => {
                let lesson = self.lesson(account, &request);
                let watched = matches!(request, Request::Mailboxes { watched: true });
                match plan(&self.store, admitted(request)) {
                    Plan::Answer(answer) => answer,
                    Plan::Read(admitted) => {
                        let store = self.store.clone();
                        let reading = spawn_blocking(move || read(&store, admitted, now()));
                        let answer = reading.await.unwrap_or_else(|_| unavailable());
                        if watched {
                            self.watch_all(account, &answer);
                        }
                        answer
                    }
                    Plan::Write(write) => {
                        let answer = written(write).await;
                        self.teach(lesson, &answer);
                        answer
                    }
                }
            }
        }
    }

    fn tls_started(&self, facts: TlsFacts) -> TlsFacts {
        self.login.tls_started(facts)
    }

    async fn changed(&mut self) {
        let Some((_, own)) = &mut self.account else { return pending().await };
        match self.others.as_deref_mut() {
            None => risen(own).await,
            Some(others) => {
                let Others { selected, surveyed, fresh } = others;
                if std::mem::take(fresh) {
                    return;
                }
                let watches = selected.iter_mut().chain(surveyed).map(|(_, watch)| watch);
                let mut waits: Vec<_> =
                    std::iter::once(own).chain(watches).map(|watch| Box::pin(risen(watch))).collect();
                poll_fn(|context| {
                    let any = waits.iter_mut().any(|wait| wait.as_mut().poll(context).is_ready());
                    if any { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
        }
    }
}

/// Waits until something changes in an account.
async fn risen(watch: &mut watch::Receiver<ModSeq>) {
    // An error says that the store is closed: the server stops.
    if watch.changed().await.is_err() {
        pending::<()>().await;
    }
}

/// Accounts whose mailboxes a session looks at, each with its watch. There are never more than mailboxes
/// that NOTIFY watches, and one.
#[derive(Debug, Default)]
struct Others {
    /// Whose mailbox is selected.
    selected: Option<(AccountId, watch::Receiver<ModSeq>)>,
    /// Whose mailboxes NOTIFY is about.
    surveyed: Vec<(AccountId, watch::Receiver<ModSeq>)>,
    /// Some are watched only since what was told of them was read: they are to be looked at again.
    fresh: bool,
}

impl Others {
    fn select(&mut self, store: &Store, owner: AccountId) {
        if self.selected.as_ref().is_none_or(|(known, _)| *known != owner) {
            self.selected = Some((owner, store.watch(owner)));
        }
    }

    fn survey(&mut self, store: &Store, owners: &[AccountId]) {
        self.surveyed.retain(|(known, _)| owners.contains(known));
        for owner in owners {
            if !self.surveyed.iter().any(|(known, _)| known == owner) && self.surveyed.len() < WATCHED_MAX {
                self.surveyed.push((*owner, store.watch(*owner)));
                self.fresh = true;
            }
        }
    }
}

async fn written(write: Write) -> Answer {
    match write {
        Write::Flagged(pending) => settled(pending, Answer::Flagged).await,
        Write::Placed(pending) => settled(pending, Answer::Placed).await,
        Write::Expunged(pending) => settled(pending, Answer::Expunged).await,
        Write::Created(pending) => settled(pending, Answer::Created).await,
        Write::Claimed(pending) => settled(pending, Answer::Claimed).await,
        Write::Done(pending) => settled(pending, |()| Answer::Done).await,
    }
}

/// Waits until a write is durable.
async fn settled<T>(pending: Pending<T>, answer: impl FnOnce(T) -> Answer) -> Answer {
    match pending.await {
        Ok(outcome) => answer(outcome),
        Err(error) => Answer::Refused(refused(&error)),
    }
}

/// Works on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WriteError> + Send + 'static,
) -> Result<T, WriteError> {
    spawn_blocking(work).await.unwrap_or(Err(WriteError::Closed))
}

fn unavailable() -> Answer {
    Answer::Refused(Refused::Unavailable)
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
