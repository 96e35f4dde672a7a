//! Import and export against a running server: the account behind the control socket, as
//! `flow::carry` wants it.

use std::fmt;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::office::{Failure, Remote};
use crate::daemon::control::{CarryOrder, CarryOutcome, LETTERS_MAX, LetterHead, Order};
use crate::flow::carry::{CarryError, Giver, Keeper, MESSAGE_MAX, Target};
use crate::mail::mailbox::{AccountId, Mailbox, MailboxId, MailboxName, Uid};
use crate::mail::message::{BlobId, Message};
use crate::store::blob::{BlobRecord, PieceSource};
use crate::store::{Body, NewMessage, ReadError, Spool, Spooled};

/// Bytes of a message sent at a time.
const CHUNK: usize = 64 << 10;

/// Longest piece of a body; the store's are shorter.
const PIECE_MAX: usize = 64 << 10;

/// One account of a running server.
pub struct RemoteAccount {
    line: Line,
    account: AccountId,
    /// Where messages wait that are too large for memory.
    folder: Arc<Path>,
}

impl RemoteAccount {
    /// The account with this address.
    ///
    /// # Errors
    /// When there is none, or the server cannot be asked.
    pub fn open(remote: Remote, folder: &Path, address: &str) -> Result<Self, Failure> {
        let line = Line { remote: Arc::new(Mutex::new(remote)), socket: folder.join("control.sock") };
        let asked = line.ask(CarryOrder::Account { address: address.to_owned() }, &mut |_| Ok(()));
        match asked.map_err(Failure)? {
            CarryOutcome::Account { account } => Ok(Self { line, account, folder: folder.into() }),
            other => Err(Failure(unexpected(&other))),
        }
    }

    fn ask(&self, order: CarryOrder) -> Result<CarryOutcome, CarryError> {
        self.line.carried(order, &mut |_| Ok(()))
    }

    fn wrong(&self, outcome: &CarryOutcome) -> CarryError {
        self.line.failed(unexpected(outcome))
    }
}

impl fmt::Debug for RemoteAccount {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("RemoteAccount").field("account", &self.account).finish_non_exhaustive()
    }
}

impl Keeper for RemoteAccount {
    fn target(&mut self, name: &MailboxName) -> Result<Target, CarryError> {
        let name = name.as_str().to_owned();
        match self.ask(CarryOrder::Target { account: self.account, name })? {
            CarryOutcome::Target { id, uid_next, keywords } => Ok(Target { id, uid_next, keywords }),
            other => Err(self.wrong(&other)),
        }
    }

    fn spool(&mut self) -> Result<Spool, CarryError> {
        Ok(Spool::new(self.folder.clone()))
    }

    fn append(
        &mut self,
        mailbox: MailboxId,
        messages: Vec<NewMessage>,
        note: Option<(String, Vec<u8>)>,
    ) -> Result<Uid, CarryError> {
        if messages.len() > LETTERS_MAX {
            return Err(self.line.failed("too many messages at once".to_owned()));
        }
        let head = |message: &NewMessage| LetterHead {
            size: message.body.size(),
            date: message.internal_date,
            flags: message.flags.system,
            keywords: message.flags.keywords.iter().map(|keyword| keyword.as_str().to_owned()).collect(),
        };
        let order = CarryOrder::Append { mailbox, letters: messages.iter().map(head).collect(), note };
        let sent =
            self.line.carried(order, &mut |out| messages.iter().try_for_each(|message| send(&message.body, out)));
        match sent? {
            CarryOutcome::Kept { uid_next } => Ok(uid_next),
            other => Err(self.wrong(&other)),
        }
    }

    fn find(&mut self, mailbox: MailboxId, since: Uid, body: &Spooled) -> Result<Option<Uid>, CarryError> {
        // Nothing so large was ever kept.
        if body.size() > MESSAGE_MAX {
            return Ok(None);
        }
        let order = CarryOrder::Find { mailbox, since, size: body.size() };
        match self.line.carried(order, &mut |out| send(body, out))? {
            CarryOutcome::Found { uid } => Ok(uid),
            other => Err(self.wrong(&other)),
        }
    }

    fn note(&mut self, name: &str) -> Result<Option<Vec<u8>>, CarryError> {
        match self.ask(CarryOrder::Note { name: name.to_owned() })? {
            CarryOutcome::Note { value } => Ok(value),
            other => Err(self.wrong(&other)),
        }
    }

    fn put_note(&mut self, (name, value): (String, Vec<u8>)) -> Result<(), CarryError> {
        match self.ask(CarryOrder::PutNote { name, value })? {
            CarryOutcome::Done => Ok(()),
            other => Err(self.wrong(&other)),
        }
    }

    fn account(&self) -> AccountId {
        self.account
    }
}

impl Giver for RemoteAccount {
    fn mailboxes(&mut self) -> Result<Vec<Mailbox>, CarryError> {
        let mut found: Vec<Mailbox> = Vec::new();
        loop {
            match self.ask(CarryOrder::Mailboxes { account: self.account, skip: found.len() })? {
                CarryOutcome::Mailboxes { mailboxes, all } => {
                    let none = mailboxes.is_empty();
                    found.extend(mailboxes);
                    if all || none {
                        return Ok(found);
                    }
                }
                other => return Err(self.wrong(&other)),
            }
        }
    }

    fn messages(&mut self, mailbox: MailboxId, first: Uid, max: usize) -> Result<Vec<Message>, CarryError> {
        match self.ask(CarryOrder::Messages { mailbox, first, max })? {
            CarryOutcome::Messages { messages } => Ok(messages),
            other => Err(self.wrong(&other)),
        }
    }

    fn body(&mut self, blob: BlobId) -> Result<Body, ReadError> {
        Body::open(Box::new(self.line.clone()), blob)
    }
}

/// The connection, shared with bodies that are being read over it.
#[derive(Clone)]
struct Line {
    remote: Arc<Mutex<Remote>>,
    /// Names the server in errors.
    socket: PathBuf,
}

impl fmt::Debug for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Line").field(&self.socket).finish()
    }
}

impl Line {
    fn remote(&self) -> MutexGuard<'_, Remote> {
        self.remote.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an order and the bytes after it; a refusal is an error.
    fn ask(
        &self,
        order: CarryOrder,
        follow: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<CarryOutcome, String> {
        let told = self.remote().tell(&Order::Carry(order), follow).map_err(|failure| failure.0)?;
        match told {
            CarryOutcome::Refused { reason } => Err(reason),
            outcome => Ok(outcome),
        }
    }

    fn carried(
        &self,
        order: CarryOrder,
        follow: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>,
    ) -> Result<CarryOutcome, CarryError> {
        self.ask(order, follow).map_err(|reason| self.failed(reason))
    }

    fn failed(&self, reason: String) -> CarryError {
        CarryError::Path(self.socket.clone(), io::Error::other(reason))
    }
}

impl PieceSource for Line {
    fn record(&self, blob: BlobId) -> Result<Option<BlobRecord>, ReadError> {
        match self.ask(CarryOrder::Record { blob }, &mut |_| Ok(())).map_err(ReadError::Storage)? {
            CarryOutcome::Record { record } => Ok(record),
            other => Err(ReadError::Storage(unexpected(&other))),
        }
    }

    fn piece(&self, blob: BlobId, index: u32, take: &mut dyn FnMut(&[u8])) -> Result<(), ReadError> {
        match self.ask(CarryOrder::Piece { blob, index }, &mut |_| Ok(())).map_err(ReadError::Storage)? {
            CarryOutcome::Bytes { length } if length <= PIECE_MAX => {
                let mut piece = vec![0; length];
                let read = self.remote().reader().read_exact(&mut piece);
                read.map_err(|error| ReadError::Storage(format!("the server broke the connection off: {error}")))?;
                take(&piece);
                Ok(())
            }
            other => Err(ReadError::Storage(unexpected(&other))),
        }
    }
}

fn unexpected(outcome: &CarryOutcome) -> String {
    tracing::debug!(?outcome, "an answer to another question");
    "the server answered another question: is it of another version?".to_owned()
}

/// Sends a message's bytes.
fn send(body: &Spooled, out: &mut dyn Write) -> io::Result<()> {
    let mut reader = body.reader();
    let mut offset = 0;
    while offset < body.size() {
        let bytes = reader.read(offset, CHUNK).map_err(|error| io::Error::other(error.to_string()))?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        out.write_all(bytes)?;
        offset += bytes.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::control::{Control, Status};
    use crate::mail::address::Address;
    use crate::mail::date::{Timestamp, ZonedTime};
    use crate::mail::message::{FlagNames, Keyword, SystemFlags};
    use crate::mail::secret::ScramVerifier;
    use crate::mail::structure::Walker;
    use crate::store::{Quota, Store, StoreConfig};

    /// Runs `client` against the server of a store with the account `ann@x.test`.
    fn served(client: impl FnOnce(RemoteAccount, &Store) + Send + 'static) {
        let folder = tempfile::tempdir().unwrap();
        let config = StoreConfig { journal_bytes: 1 << 20, reserve_bytes: 0, ..StoreConfig::default() };
        let store = Store::open(folder.path(), &config).unwrap();
        let verifier = ScramVerifier::made_up(&[0; 32], "ann", 1);
        store.add_account(Address::parse("ann@x.test").unwrap(), verifier, Quota::default()).wait().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let control = Control::bind(folder.path(), store.clone(), Arc::new(Status::default)).unwrap();
            let serving = tokio::spawn(control.serve());
            let path = folder.path().to_owned();
            let working = tokio::task::spawn_blocking(move || {
                let remote = Remote::connect(&path).unwrap().unwrap();
                client(RemoteAccount::open(remote, &path, "Ann@x.test").unwrap(), &store);
            });
            working.await.unwrap();
            serving.abort();
        });
    }

    fn text(number: u32, length: u32) -> Vec<u8> {
        let lines =
            (0..length).flat_map(|line| format!("{number} {}\r\n", line.wrapping_mul(2_654_435_761)).into_bytes());
        b"Subject: carried\r\n\r\n".iter().copied().chain(lines).collect()
    }

    fn message(account: &mut RemoteAccount, text: &[u8]) -> NewMessage {
        let (mut spool, mut walker) = (account.spool().unwrap(), Walker::new());
        spool.write(text).unwrap();
        walker.feed(text);
        let flags = FlagNames { system: SystemFlags::SEEN, keywords: vec![Keyword::new("$Carried").unwrap()] };
        let internal_date = ZonedTime { at: Timestamp(1_700_000_000), offset_mins: 60 };
        NewMessage { body: spool.finish().unwrap(), structure: walker.finish(), internal_date, flags }
    }

    fn bytes_of(mut body: Body) -> Vec<u8> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < body.len() {
            let piece = body.read(bytes.len() as u64, usize::MAX).unwrap();
            bytes.extend_from_slice(piece);
        }
        bytes
    }

    #[test]
    fn what_is_kept_over_the_socket_is_given_back() {
        served(|mut account, store| {
            let target = account.target(&MailboxName::new("Old/Letters").unwrap()).unwrap();
            let texts: Vec<_> = [0, 1, 3000, 60_000].iter().map(|length| text(*length, *length)).collect();
            let messages = texts.iter().map(|text| message(&mut account, text)).collect();
            let note = ("import 1 abc".to_owned(), vec![1, 2, 255]);
            let uid_next = account.append(target.id, messages, Some(note.clone())).unwrap();
            assert_eq!(uid_next.get(), target.uid_next.get() + 4);
            assert_eq!(account.note(&note.0).unwrap(), Some(note.1));

            let found = account.mailboxes().unwrap().into_iter().find(|found| found.id == target.id).unwrap();
            assert_eq!((found.name.as_str(), found.messages, found.subscribed), ("Old/Letters", 4, true));
            let rows = account.messages(target.id, Uid::MIN, 100).unwrap();
            for (row, text) in rows.iter().zip(&texts) {
                assert_eq!(row.internal_date, ZonedTime { at: Timestamp(1_700_000_000), offset_mins: 60 });
                assert_eq!(row.flags.system, SystemFlags::SEEN);
                assert_eq!(found.keywords.names(row.flags.keywords).count(), 1);
                assert!(bytes_of(account.body(row.blob).unwrap()) == *text);
                assert!(bytes_of(store.body(row.blob).unwrap()) == *text);
            }
            assert_eq!(rows.len(), 4);
            let same = message(&mut account, &texts[2]).body;
            assert_eq!(account.find(target.id, Uid::MIN, &same).unwrap(), Some(rows[2].uid));
            assert_eq!(account.find(target.id, uid_next, &same).unwrap(), None);
            assert!(account.body(BlobId(u64::MAX)).is_err());
        });
    }

    #[test]
    fn a_refusal_is_told_and_the_next_order_is_understood() {
        served(|mut account, _| {
            let order = CarryOrder::Target { account: account.account(), name: "a//b".into() };
            assert!(account.ask(order).unwrap_err().to_string().ends_with("`a//b` is no name for a mailbox"));
            let refused = account.note("login-secret").unwrap_err().to_string();
            assert!(refused.ends_with("this note is not an import's"), "{refused}");
            let messages = vec![message(&mut account, &text(1, 9000))];
            let refused = account.append(MailboxId(77), messages, None).unwrap_err().to_string();
            assert!(refused.contains("mailbox"), "{refused}");
            let messages = vec![message(&mut account, &text(1, 9000))];
            let note = Some(("login-secret".to_owned(), vec![0; 32]));
            let inbox = account.target(&MailboxName::inbox()).unwrap();
            assert!(account.append(inbox.id, messages, note).is_err());
            assert_eq!(account.messages(inbox.id, Uid::MIN, 10).unwrap(), []);
        });
    }

    #[test]
    fn more_than_fits_ends_the_connection() {
        served(|mut account, _| {
            let inbox = account.target(&MailboxName::inbox()).unwrap();
            let order = CarryOrder::Find { mailbox: inbox.id, since: Uid::MIN, size: u64::MAX };
            assert!(account.ask(order).unwrap_err().to_string().ends_with("that is more than fits"));
            assert!(account.mailboxes().is_err());
        });
    }

    #[test]
    fn an_account_that_is_not_there_is_named() {
        served(|account, _| {
            let line = account.line.clone();
            let asked = line.ask(CarryOrder::Account { address: "bob@x.test".into() }, &mut |_| Ok(()));
            assert_eq!(asked.unwrap_err(), "there is no account bob@x.test");
        });
    }
}
