//! BURL (RFC 4468): what a user has in his mailboxes goes into his message without a way over his
//! own machine.
//!
//! This server is its own IMAP server, so the URL is looked up in the store; the authorization in it
//! (RFC 4467) is checked as URLFETCH would.

use tokio::task::spawn_blocking;

use super::{Reception, lost, now, unreadable};
use crate::flow::access::url::{PartReader, Visitor, authorized};
use crate::protocol::imap::url::ImapUrl;
use crate::protocol::smtp::content::FETCH_MAX;
use crate::protocol::smtp::{Answer, Reply};
use crate::store::ReadError;

impl Reception {
    /// Opens what an authorized URL names, for the account that submits, and reads the first of it.
    pub(super) async fn fetch(&mut self, text: &str) -> Answer {
        let Some(account) = self.by else { return Answer::Refused(lost()) };
        let (store, text) = (self.office.store.clone(), text.to_owned());
        let opening = spawn_blocking(move || {
            let Some(url) = ImapUrl::parse(&text) else {
                return Ok(Err(Reply::new(501, "5.5.4", "that is no IMAP URL of a message")));
            };
            if url.access.is_none() {
                return Ok(Err(Reply::new(554, "5.7.8", "only URLs with URLAUTH are fetched")));
            }
            let visitor = Visitor::Submitting(account);
            match authorized(&store.reader()?, &text, &url, visitor, now())? {
                Some(part) => PartReader::open(&store, &part).map(|part| Ok(Box::new(part))),
                None => Ok(Err(Reply::new(554, "5.6.6", "the URL names no message, or is not for you"))),
            }
        });
        match opening.await.unwrap_or(Err(ReadError::Closed)) {
            Ok(Ok(part)) => {
                self.part = Some(part);
                self.fetch_more().await
            }
            Ok(Err(reply)) => {
                tracing::info!(account = account.0, %reply, "URL not fetched");
                Answer::Refused(reply)
            }
            Err(error) => Answer::Refused(unreadable(&error)),
        }
    }

    /// Reads on.
    pub(super) async fn fetch_more(&mut self) -> Answer {
        let Some(mut part) = self.part.take() else { return Answer::Refused(lost()) };
        let at_hand = part.is_at_hand();
        let work = move || part.read(FETCH_MAX).map(|bytes| (part, bytes));
        match if at_hand { work() } else { spawn_blocking(work).await.unwrap_or(Err(ReadError::Closed)) } {
            Ok((part, bytes)) => {
                self.part = Some(part).filter(|_| !bytes.is_empty());
                Answer::Fetched(bytes)
            }
            Err(error) => Answer::Refused(unreadable(&error)),
        }
    }
}
