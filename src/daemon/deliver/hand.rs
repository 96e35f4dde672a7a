//! The world behind one connection to another's server: it hands out one message after the other, piece
//! by piece, and notes what became of each in the store before the next is begun.

use std::cell::Cell;
use std::future::pending;
use std::rc::Rc;
use std::time::Instant;

use super::safety::Policy;
use super::{Hub, tell};
use crate::daemon::login::random;
use crate::flow::relay::{AttemptTerms, Changed, Content, Outgoing};
use crate::flow::sign::Stored;
use crate::mail::address::{Address, Domain};
use crate::mail::envelope::BodyType;
use crate::mail::queue::{Answer as Told, Due, Submitter};
use crate::net::drive::Answers;
use crate::protocol::smtp::sender::{Answer, Done, Enhanced, Heard, Mail, Nature, Origin, Outcome, Request, Sender};
use crate::queue::outcome::Verdict;
use crate::queue::route::Way;
use crate::store::{ReadError, WriteError};

use super::now;

/// Bytes of content handed over at a time.
const PIECE: usize = 64 << 10;

/// How a stopping server speaks of what it leaves undone; that is no attempt.
const WE_STOP: Enhanced = Enhanced::new(4, 3, 2);

/// The world behind one connection.
#[derive(Debug)]
pub(super) struct Hand {
    hub: Rc<Hub>,
    way: Way,
    /// The server, as notifications name it.
    peer: String,
    /// The same, where its domain says how safe the connection must be.
    server: Option<Server>,
    /// A message that was looked for before the connection was opened.
    next: Option<Box<Outgoing>>,
    current: Option<Box<Outgoing>>,
    /// Messages handed out.
    given: u16,
    /// Only the message that was looked for before goes.
    alone: bool,
    /// Messages that the peer itself said something about.
    pub(super) judged: u32,
    /// When something was last asked.
    progress: Rc<Cell<Instant>>,
}

/// A server of a domain, and what the domain says of it.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) domain: Domain,
    pub(super) policy: Rc<Policy>,
    pub(super) host: String,
    pub(super) port: u16,
}

impl Hand {
    pub(super) fn new(hub: Rc<Hub>, way: Way, first: Box<Outgoing>, progress: Rc<Cell<Instant>>) -> Self {
        let (peer, next) = (String::new(), Some(first));
        Self { hub, way, peer, server: None, next, current: None, given: 0, alone: false, judged: 0, progress }
    }

    /// The same with no other message behind the first.
    pub(super) fn with_one_alone(self) -> Self {
        Self { alone: true, ..self }
    }

    /// Begins with a server.
    pub(super) fn turn_to(&mut self, peer: String) {
        self.peer = peer;
        self.given = 0;
    }

    /// Says which server of a domain comes next, where the domain itself says how safe that must be.
    pub(super) fn is_to_meet(&mut self, server: Option<Server>) {
        self.server = server;
    }

    /// Why a message that demands TLS all the way may not go to this server, whoever else's mail the connection was
    /// opened for: its certificate may be good, and the server nobody's that the domain has named (RFC 8689
    /// section 4.2.1).
    async fn unproved(&self, outgoing: &Outgoing) -> Option<Verdict> {
        let Server { domain, policy, host, port } = self.server.as_ref().filter(|_| outgoing.queued.require_tls)?;
        let text = self.hub.terms_of(domain, policy, host, *port, (true, false)).await.err()?;
        let answer = Told::new("", &text);
        Some(if text.starts_with('5') { Verdict::Refused(answer) } else { Verdict::Deferred(answer) })
    }

    /// Tells whether the message that the connection was opened for waits yet.
    pub(super) fn is_full(&self) -> bool {
        self.next.is_some()
    }

    /// Tells whether the message that the connection is opened for demands TLS all the way.
    pub(super) fn requires_tls(&self) -> bool {
        self.next.as_ref().is_some_and(|next| next.queued.require_tls)
    }

    /// Tells whether a report about TLS is what the connection is opened for.
    pub(super) fn brings_tls_report(&self) -> bool {
        self.next.as_ref().is_some_and(|next| next.queued.by == Submitter::TlsReport)
    }

    /// Notes what became of the message that the connection was opened for, and does without it.
    pub(super) async fn give_up(&mut self, verdict: Verdict) {
        if let Some(outgoing) = self.next.take() {
            self.note(&outgoing, |_| Some(verdict.clone())).await;
        }
    }

    async fn mail(&mut self) -> Option<Box<Mail>> {
        let most = self.hub.exit.config.messages_per_connection_max.max(1);
        if self.given >= most || self.hub.stop.is_set() {
            return None;
        }
        loop {
            let outgoing = match self.next.take() {
                Some(outgoing) => outgoing,
                None if self.alone => return None,
                None => self.hub.next_mail(&self.way).await?,
            };
            let outgoing = self.hub.signed(outgoing).await?;
            if let Err(error) = &outgoing.content {
                tracing::error!(queue = %outgoing.queued.id, %error, "a queued message cannot be read");
                let verdict = Verdict::Deferred(Told::new("", "4.3.0 the message cannot be read here"));
                self.note(&outgoing, |_| Some(verdict.clone())).await;
                continue;
            }
            if let Some(verdict) = self.unproved(&outgoing).await {
                self.note(&outgoing, |_| Some(verdict.clone())).await;
                continue;
            }
            let size = outgoing.content.as_ref().map_or(0, Content::len);
            let nature = Nature {
                eight_bit: outgoing.queued.body != BodyType::SevenBit,
                utf8_header: outgoing.queued.utf8,
                binary: outgoing.queued.body == BodyType::BinaryMime,
            };
            let require_tls = outgoing.queued.require_tls;
            let mail = Mail { envelope: outgoing.envelope(), size, nature, require_tls };
            self.given += 1;
            self.current = Some(outgoing);
            return Some(Box::new(mail));
        }
    }

    /// The next piece; `None` when it cannot be read.
    async fn body(&mut self) -> Option<Vec<u8>> {
        let outgoing = self.current.as_mut()?;
        if outgoing.content.as_ref().is_ok_and(Content::is_at_end) {
            return Some(Vec::new());
        }
        let away = Err(ReadError::Storage("its bytes are being read".to_owned()));
        let mut content = std::mem::replace(&mut outgoing.content, away).ok()?;
        let working = tokio::task::spawn_blocking(move || {
            let piece = content.next(PIECE);
            (content, piece)
        });
        let (content, piece) = working.await.ok()?;
        outgoing.content = Ok(content);
        let id = outgoing.queued.id;
        piece.inspect_err(|error| tracing::error!(queue = %id, %error, "a queued message cannot be read")).ok()
    }

    async fn done(&mut self, done: Done) {
        let Some(outgoing) = self.current.take() else { return };
        let peers = |outcome: &Outcome| outcome.heard().origin == Origin::Peer;
        self.judged += u32::from(done.recipients.iter().any(peers));
        let all_too_many = done.recipients.iter().all(Outcome::is_one_too_many);
        for (row, outcome) in outgoing.recipients.iter().zip(&done.recipients) {
            let (word, heard) = match outcome {
                Outcome::Taken(heard) => ("taken", heard),
                Outcome::Deferred(heard) => ("deferred", heard),
                Outcome::Refused(heard) => ("refused", heard),
            };
            let (queue, from, to) = (outgoing.queued.id, &outgoing.queued.from, &row.recipient.path);
            tracing::info!(%queue, %from, %to, server = %self.peer, reply = %heard, "{word}");
        }
        let mut outcomes = done.recipients.iter();
        let peer = self.peer.clone();
        let verdict = |_number: u32| match outcomes.next()? {
            Outcome::Taken(heard) => Some(Verdict::Taken { answer: told(&peer, heard), reports: heard.dsn }),
            Outcome::Refused(heard) => Some(Verdict::Refused(told(&peer, heard))),
            // None of these is an attempt: they are due as before.
            Outcome::Deferred(heard)
                if done.again || heard.enhanced == Some(WE_STOP) && heard.origin == Origin::Ourselves =>
            {
                None
            }
            deferred @ Outcome::Deferred(_) if deferred.is_one_too_many() && !all_too_many => None,
            Outcome::Deferred(heard) => Some(Verdict::Deferred(told(&peer, heard))),
        };
        self.note(&outgoing, verdict).await;
    }

    /// Keeps what became of a message's recipients, in their order.
    async fn note(&mut self, outgoing: &Outgoing, mut verdict: impl FnMut(u32) -> Option<Verdict>) {
        let terms = self.hub.terms(Due(0));
        let mut changed: Vec<Changed> = Vec::new();
        for row in &outgoing.recipients {
            if let Some(verdict) = verdict(row.number) {
                self.hub.count(&verdict);
                self.hub.exit.judge(&mut changed, &outgoing.queued, row, verdict, &terms);
            }
        }
        self.hub.keep(changed).await;
    }
}

impl Answers<Sender> for Hand {
    async fn answer(&mut self, request: Request) -> Answer {
        self.progress.set(Instant::now());
        let answer = match request {
            Request::Mail => Answer::Mail(self.mail().await),
            Request::Body => self.body().await.map_or(Answer::Broken, Answer::Body),
            Request::Done(done) => {
                self.done(*done).await;
                Answer::Noted
            }
            Request::Derive(derive) => {
                let mut derive = derive;
                let working = tokio::task::spawn_blocking(move || {
                    derive.run();
                    derive
                });
                // A server that stops has no threads left.
                working.await.map_or(Answer::Broken, Answer::Derived)
            }
        };
        self.progress.set(Instant::now());
        answer
    }

    async fn changed(&mut self) {
        pending::<()>().await;
    }
}

impl Hub {
    /// The next message for a connection.
    pub(super) async fn next_mail(&self, way: &Way) -> Option<Box<Outgoing>> {
        self.next_of(way, |_| true).await
    }

    /// The next report about TLS that goes a way.
    pub(super) async fn next_tls_report(&self, way: &Way) -> Option<Box<Outgoing>> {
        self.next_of(way, |by| by == Submitter::TlsReport).await
    }

    async fn next_of(&self, way: &Way, wanted: fn(Submitter) -> bool) -> Option<Box<Outgoing>> {
        let (exit, way, situation) = (self.exit.clone(), way.clone(), self.situation_without_rests());
        let found = tokio::task::spawn_blocking(move || exit.next_mail(&way, &situation, wanted)).await.ok()?;
        found.inspect_err(|error| tracing::error!(%error, "the queue cannot be read")).ok()?.map(Box::new)
    }

    /// Signs a message that was submitted here or that this server wrote (RFC 6376): mail that comes from elsewhere
    /// may claim any author, and a signature of ours would bear that out.
    async fn signed(&self, mut outgoing: Box<Outgoing>) -> Option<Box<Outgoing>> {
        let by = outgoing.queued.by;
        if !by.is_ours() {
            return Some(outgoing);
        }
        let (signer, store) = (self.signer.clone(), self.exit.store.clone());
        let working = tokio::task::spawn_blocking(move || {
            let Ok(content) = &mut outgoing.content else { return outgoing };
            let from = outgoing.queued.from.address();
            // A user speaks for his own domain and his aliases, and not for others' domains that are served here.
            let may = |author: &Address| match by {
                Submitter::Account(account) => {
                    let Ok(reader) = store.reader() else { return false };
                    let own = reader.account(account).ok().flatten();
                    own.is_some_and(|own| own.address.domain() == author.domain())
                        || reader.may_send_as(account, author).unwrap_or(false)
                }
                Submitter::Network => from.is_some_and(|from| from.key() == author.key()),
                Submitter::Nobody | Submitter::Server | Submitter::TlsReport => false,
            };
            let mut stored = Stored::new(content.body_mut());
            let fields = match by {
                Submitter::Server | Submitter::TlsReport => signer.sign(&mut stored, now()),
                _ => signer.sign_if(&mut stored, now(), &may),
            };
            match fields {
                Ok(fields) => {
                    content.put_before(fields);
                    content.rewind();
                }
                Err(error) => outgoing.content = Err(error),
            }
            outgoing
        });
        working.await.ok()
    }

    /// What this moment says about an attempt.
    pub(super) fn terms(&self, not_before: Due) -> AttemptTerms {
        let chance = u32::from_ne_bytes(random());
        AttemptTerms { now: now(), up_since: self.board.borrow().up_since(), chance, not_before }
    }

    /// Keeps new states, all of them at one time, and warns senders of delays. Tells whether all are kept.
    pub(super) async fn keep(&self, changed: Vec<Changed>) -> bool {
        let mut all = true;
        let mut warn = Vec::new();
        let mut pending = Vec::new();
        for Changed { id, states, warn: late, .. } in changed {
            pending.push((id, self.exit.store.update_queued(id, states)));
            if late {
                warn.push(id);
            }
        }
        for (id, pending) in pending {
            match pending.await {
                // The operator may have removed it meanwhile.
                Ok(_) | Err(WriteError::NoSuchQueued) => {}
                Err(error) => {
                    tracing::error!(queue = %id, %error, "what became of a message was not noted; it is sent again");
                    all = false;
                }
            }
        }
        for id in warn {
            tell::delay(&self.exit, id).await;
        }
        all
    }
}

/// What was heard, as it is kept: the words of a peer with their codes, our own with the enhanced one.
fn told(peer: &str, heard: &Heard) -> Told {
    match (heard.origin, heard.enhanced) {
        (Origin::Ourselves, Some(enhanced)) => Told::new("", &format!("{enhanced} {}", heard.text)),
        _ => Told::new(peer, &heard.to_string()),
    }
}
