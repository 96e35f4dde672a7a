//! POP3 connections: the world behind a [`pop3::Session`].

use std::future::pending;
use std::net::IpAddr;

use super::login::{Doorway, Login};
use crate::flow::access::pop3::{Desk, Locks};
use crate::net::drive::Answers;
use crate::protocol::TlsFacts;
use crate::protocol::pop3::{self, Answer, Finding, Inquiry, OpenError, PieceError, Request, Unavailable};
use crate::store::Store;

/// What one POP3 connection needs of the world.
#[derive(Debug)]
pub struct Pop3Answers {
    login: Login,
    /// Away while a blocking thread works at it.
    desk: Option<Desk>,
}

impl Pop3Answers {
    /// The world behind a connection from `client`.
    #[must_use]
    pub fn new(store: Store, locks: Locks, doorway: &Doorway, client: IpAddr) -> Self {
        Self { login: doorway.login(client), desk: Some(Desk::new(store, locks)) }
    }
}

impl Answers<pop3::Session> for Pop3Answers {
    async fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Sasl(request) => Answer::Sasl(self.login.sasl(request).await),
            Request::Maildrop(inquiry) => {
                let refusal = refusal_of(&inquiry);
                let Some(mut desk) = self.desk.take() else { return Answer::Maildrop(refusal) };
                let working = tokio::task::spawn_blocking(move || {
                    let finding = desk.answer(inquiry);
                    (desk, finding)
                });
                // If this is dropped meanwhile, the thread drops the desk and with it the lock.
                let Ok((desk, finding)) = working.await else { return Answer::Maildrop(refusal) };
                self.desk = Some(desk);
                Answer::Maildrop(finding)
            }
        }
    }

    fn tls_started(&self, facts: TlsFacts) -> TlsFacts {
        self.login.tls_started(facts)
    }

    async fn changed(&mut self) {
        // POP3 has no way to tell.
        pending::<()>().await;
    }
}

/// What an inquiry is answered when there is nobody to answer it.
fn refusal_of(inquiry: &Inquiry) -> Finding {
    match inquiry {
        Inquiry::Open { .. } => Finding::Open(Err(OpenError::Unavailable)),
        Inquiry::Sizes { .. } => Finding::Sizes(Err(Unavailable)),
        Inquiry::Piece { .. } => Finding::Piece(Err(PieceError::Unavailable)),
        Inquiry::Update { .. } => Finding::Update(Err(Unavailable)),
    }
}
