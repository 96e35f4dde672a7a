//! IMAP connections: the world behind an [`imap::Session`].
//!
//! Point reads are answered inline, scans and bodies on the blocking threads, writes by awaiting
//! their journal group. Between commands a connection keeps the account's watch and nothing else.

use std::future::pending;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::login::{Doorway, Login};
use super::teacher::Teacher;
use crate::flow::access::imap::{Aside, Incoming, Plan, Write, plan, read, refused, unreadable};
use crate::flow::learn::{self, Lesson};
use crate::mail::date::{Timestamp, ZonedTime};
use crate::mail::mailbox::{AccountId, ModSeq};
use crate::mail::message::BlobId;
use crate::net::drive::Answers;
use crate::protocol::imap;
use crate::protocol::imap::request::{Answer, Refused, Request};
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
    /// The body that is being sent, and where it was read last.
    body: Option<Box<(Body, u64)>>,
    /// The message that is being taken in; away while a blocking thread works at it.
    incoming: Option<Box<Incoming>>,
    /// Messages of the same APPEND that are complete.
    aside: Option<Box<Aside>>,
}

impl ImapAnswers {
    /// The world behind a connection from `client`.
    #[must_use]
    pub fn new(store: Store, teacher: Teacher, doorway: &Doorway, client: IpAddr) -> Self {
        Self { store, teacher, login: doorway.login(client), account: None, body: None, incoming: None, aside: None }
    }

    async fn sasl(&mut self, request: sasl::Request) -> Answer {
        let answer = self.login.sasl(request).await;
        if let sasl::Answer::Login(Ok(identity)) = &answer {
            self.account = Some((identity.account, self.store.watch(identity.account)));
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

    async fn append(&mut self, account: AccountId, request: Request) -> Answer {
        match request {
            Request::AppendBegin { mailbox, size, replaced } => {
                let aside = self.aside.take().map(|aside| *aside).unwrap_or_default();
                match Incoming::begin(&self.store, account, &mailbox, size, (aside, replaced)) {
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
            Request::AppendBegin { .. }
            | Request::AppendBytes(_)
            | Request::AppendNext { .. }
            | Request::AppendEnd { .. }
            | Request::AppendCancel => self.append(account, request).await,
            request => {
                let lesson = self.lesson(account, &request);
                match plan(&self.store, account, request) {
                    Plan::Answer(answer) => answer,
                    Plan::Read(request) => {
                        let store = self.store.clone();
                        let reading = spawn_blocking(move || read(&store, account, request, now()));
                        reading.await.unwrap_or_else(|_| unavailable())
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

    async fn changed(&mut self) {
        match &mut self.account {
            // An error says that the store is closed: the server stops.
            Some((_, watch)) => match watch.changed().await {
                Ok(()) => {}
                Err(_) => pending().await,
            },
            None => pending().await,
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
