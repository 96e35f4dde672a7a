//! The one loop that drives SMTP, IMAP and POP3 sessions alike.

use std::future::Future;

use crate::protocol::Session;

/// The world behind a session: answers its requests and tells it when something changed.
/// One value for each connection.
pub trait Answers<S: Session> {
    /// Answers one request. Anything that may touch the disk or cost CPU goes to the blocking threads.
    fn answer(&mut self, request: S::Request) -> impl Future<Output = S::Answer>;

    /// Resolves when a mailbox of the logged-in account changed; never, when nobody is logged in.
    /// Dropped and called again freely. Polled only while the session wants changes.
    fn changed(&mut self) -> impl Future<Output = ()>;
}
