//! The control socket: how commands speak to a running server, which owns the store.
//!
//! `control.sock` lies in the data folder and belongs to its owner alone (mode 0600; the kernel also
//! tells who called, and only the same user and root are heard). A line each way is one JSON object:
//! [`Order`] and [`Outcome`]. A connection gives one order at a time; few connections are served at
//! once, the others wait.

use std::io;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

mod backup;
mod certificate;
mod dkim;
mod examine;
mod obey;
mod order;
mod queue;
mod share;
mod spam;

pub use spam::obey as obey_spam;

pub use examine::{CheckEvent, EVENT_LINE_MAX, Examination, examine};
pub(super) use examine::{StopOnDrop, quietly};
use obey::compacting;
pub use obey::{exchange, obey};
pub use order::{
    AccountRow, AliasRow, CertificateRow, DkimTask, ListChange, ListRow, ListenerStatus, ORDER_LINE_MAX,
    OUTCOME_LINE_MAX, Order, Outcome, QueueRecipient, QueueRow, QueueTask, ROWS_MAX, ShareRow, SpamTask, Status,
};

use super::deliver::Deliverer;
use super::guard::Guard;
use super::local::{LocalSocket, SocketPath};
use super::reports::Reports;
use super::teacher::Teacher;
use crate::flow::backup::Job;
use crate::flow::carry::Exchange;
use crate::store::Store;

/// The socket's name in the data folder.
pub const SOCKET: &str = "control.sock";

/// Stack of the thread that serves an import or export.
const CARRY_STACK_BYTES: usize = 512 << 10;

/// How long an import, export or check waits for another to end: one that was killed keeps its last
/// batch before its place is free.
const CARRY_WAIT: Duration = Duration::from_secs(5);

/// Silence between orders that ends a connection.
const SILENCE_MAX: Duration = Duration::from_mins(1);

/// Tells how the server is.
pub type StatusSource = Arc<dyn Fn() -> Status + Send + Sync>;

/// The control socket, bound.
pub struct Control {
    socket: LocalSocket,
    desk: Desk,
}

/// What a connection needs.
#[derive(Clone)]
struct Desk {
    store: Store,
    teacher: Teacher,
    status: StatusSource,
    deliverer: Deliverer,
    reports: Option<Reports>,
    guard: Option<Guard>,
    /// One import or export at a time: each holds a batch of messages in memory.
    carrying: Arc<Semaphore>,
    /// One check at a time: each reads the whole store.
    checking: Arc<Semaphore>,
    /// One backup at a time: each keeps the pages of its moment.
    saving: Arc<Semaphore>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Control").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Control {
    /// Binds the socket in the data folder; a stale one, on which nobody listens, is replaced. Needs
    /// a reactor.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when another server listens there.
    pub fn bind(folder: &Path, store: Store, teacher: Teacher, status: StatusSource) -> io::Result<Self> {
        let socket = LocalSocket::bind(&folder.join(SOCKET), 0o600)?;
        let one = || Arc::new(Semaphore::new(1));
        let deliverer = Deliverer::default();
        let (reports, guard) = (None, None);
        let desk =
            Desk { store, teacher, status, deliverer, reports, guard, carrying: one(), saving: one(), checking: one() };
        Ok(Self { socket, desk })
    }

    /// Tells the task that sends when the operator wants mail tried at once.
    #[must_use]
    pub fn with_deliverer(mut self, deliverer: Deliverer) -> Self {
        self.desk.deliverer = deliverer;
        self
    }

    /// Lets the operator see reports to other domains, and send them.
    #[must_use]
    pub fn with_reports(mut self, reports: Reports) -> Self {
        self.desk.reports = Some(reports);
        self
    }

    /// Tells who scans when there are other signatures.
    #[must_use]
    pub fn with_guard(mut self, guard: Guard) -> Self {
        self.desk.guard = Some(guard);
        self
    }

    /// Serves until dropped; connections end with it.
    pub async fn serve(self) {
        let Self { socket, desk } = self;
        let attend = |stream| {
            let desk = desk.clone();
            async move { desk.attend(stream).await }
        };
        socket.serve(attend).await;
    }
}

impl Desk {
    /// Serves one connection.
    async fn attend(&self, stream: UnixStream) -> io::Result<()> {
        let caller = stream.peer_cred()?.uid();
        if caller != 0 && caller != rustix::process::geteuid().as_raw() {
            tracing::warn!(uid = caller, "a control connection of another user was refused");
            return Ok(());
        }
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = ORDER_LINE_MAX as u64 + 1;
            let mut bounded = (&mut stream).take(limit);
            match timeout(SILENCE_MAX, bounded.read_until(b'\n', &mut line)).await {
                Err(_) | Ok(Ok(0)) => return Ok(()),
                Ok(read) => read?,
            };
            let whole = line.len() <= ORDER_LINE_MAX && line.ends_with(b"\n");
            let outcome = match serde_json::from_slice(&line) {
                _ if !whole => Outcome::Refused { reason: "the order is too long".into() },
                Ok(Order::Carry { address }) if whole => match self.begin_carrying(address).await {
                    Ok((exchange, permit)) => {
                        tell(&mut stream, &Outcome::Done).await?;
                        let carried = carry(stream.into_inner(), exchange).await;
                        drop(permit);
                        return carried;
                    }
                    Err(reason) => Outcome::Refused { reason },
                },
                // It may wait long for its turn, and must not keep a thread that many share.
                Ok(Order::Compact { force }) => compacting(self.store.compact(force).await),
                Ok(Order::CheckStore { examination }) => match leave(&self.checking).await {
                    Some(permit) => {
                        tell(&mut stream, &Outcome::Done).await?;
                        let served = examine::serve(stream.into_inner(), self.store.clone(), examination).await;
                        drop(permit);
                        return served;
                    }
                    None => Outcome::Refused { reason: "another check is running".into() },
                },
                Ok(Order::Backup { since }) if whole => match self.begin_backup(since).await {
                    Ok((job, permit)) => {
                        tell(&mut stream, &Outcome::Done).await?;
                        let sent = backup::send(stream.into_inner(), job).await;
                        drop(permit);
                        return sent;
                    }
                    Err(reason) => Outcome::Refused { reason },
                },
                Ok(Order::Spam { account, task }) => {
                    let teacher = self.teacher.clone();
                    let store = self.store.clone();
                    let working = tokio::task::spawn_blocking(move || {
                        let is_lesson = matches!(task, SpamTask::Teach { .. });
                        let outcome = spam::obey(&store, teacher.filter(), account.as_deref(), task);
                        if is_lesson {
                            teacher.learnt();
                        }
                        outcome
                    });
                    working.await.unwrap_or_else(|_| Outcome::Refused { reason: "the server is stopping".into() })
                }
                Ok(Order::Reports { send }) => self.reports(send).await,
                Ok(Order::TakeSignatures) => {
                    if let Some(guard) = self.guard.clone() {
                        // Whoever can't open the set says so in the log.
                        let _ = tokio::task::spawn_blocking(move || guard.set()).await;
                    }
                    Outcome::Done
                }
                Ok(Order::Status) => Outcome::Status { status: Box::new((self.status)()) },
                Ok(order) => {
                    let store = self.store.clone();
                    if matches!(order, Order::OrderQueued { task: QueueTask::Retry | QueueTask::Release, .. }) {
                        // Before the mail is due, or it would be put off with the way it goes.
                        self.deliverer.forgive();
                    }
                    let working = tokio::task::spawn_blocking(move || obey(&store, order)).await;
                    working.unwrap_or_else(|_| Outcome::Refused { reason: "the server is stopping".into() })
                }
                Err(error) => Outcome::Refused { reason: format!("this is no order: {error}") },
            };
            tell(&mut stream, &outcome).await?;
            if !whole {
                return Ok(());
            }
        }
    }

    /// Reports to other domains, sent before they are told of where that is wanted.
    async fn reports(&self, now: bool) -> Outcome {
        let Some(reports) = self.reports.as_ref().filter(|reports| reports.are_sent()) else {
            let reason = "no reports are sent: [dmarc-report] and [tls-report] in the settings say so";
            return Outcome::Refused { reason: reason.into() };
        };
        let sent = if now { reports.send_now().await } else { 0 };
        let (mut owed, mut growing) = reports.waiting();
        owed.truncate(ROWS_MAX);
        growing.truncate(ROWS_MAX);
        Outcome::Reports { owed, growing, sent }
    }

    /// A backup that is about to be sent, or why there is none.
    async fn begin_backup(&self, since: Option<String>) -> Result<(Job, OwnedSemaphorePermit), String> {
        let permit = self.saving.clone().try_acquire_owned().map_err(|_| "another backup is being made")?;
        Ok((backup::begin(self.store.clone(), since).await?, permit))
    }

    /// Leave for an import or export, or why there is none.
    async fn begin_carrying(&self, address: String) -> Result<(Exchange, OwnedSemaphorePermit), String> {
        let busy = "another import or export is running";
        let permit = leave(&self.carrying).await.ok_or(busy)?;
        let store = self.store.clone();
        let found = tokio::task::spawn_blocking(move || exchange(&store, &address)).await;
        Ok((found.map_err(|_| "the server is stopping")??, permit))
    }
}

/// The one place for such work, unless it stays taken.
async fn leave(place: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    timeout(CARRY_WAIT, place.clone().acquire_owned()).await.ok()?.ok()
}

/// Tells what came of an order.
async fn tell(stream: &mut BufReader<UnixStream>, outcome: &Outcome) -> io::Result<()> {
    let mut answer = serde_json::to_vec(outcome).map_err(io::Error::other)?;
    answer.push(b'\n');
    timeout(SILENCE_MAX, stream.get_mut().write_all(&answer)).await?
}

/// Serves an import or export on a thread of its own: it lasts too long for the few threads that
/// all connections share.
async fn carry(stream: UnixStream, mut exchange: Exchange) -> io::Result<()> {
    let mut stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    let (done, ended) = oneshot::channel();
    let work = move || {
        // Nobody waits any more when the server is stopping.
        let _ = done.send(crate::flow::carry::serve(&mut stream, &mut exchange));
    };
    std::thread::Builder::new().name("carry".into()).stack_size(CARRY_STACK_BYTES).spawn(work)?;
    ended.await.unwrap_or(Ok(()))
}

/// The path of the control socket in a data folder, as the kernel takes it.
///
/// # Errors
/// When the path is long and the folder cannot be opened.
pub fn address(folder: &Path) -> io::Result<SocketPath> {
    SocketPath::of(&folder.join(SOCKET))
}

/// Tells whether a server runs on this data folder.
pub fn answers(folder: &Path) -> bool {
    address(folder).is_ok_and(|address| BlockingStream::connect(address.as_path()).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::local::CONNECTIONS_MAX;
    use crate::flow::judge::{Filter, SpamConfig};
    use crate::mail::secret::{ScramVerifier, tests::password};
    use crate::store::{Quota, StoreConfig};
    use std::fs;
    use std::io::{BufRead as _, Read as _, Write as _};
    use std::os::unix::fs::PermissionsExt as _;

    struct House {
        folder: tempfile::TempDir,
        store: Store,
    }

    fn house() -> House {
        let folder = tempfile::tempdir().unwrap();
        let config = StoreConfig { journal_bytes: 1 << 20, reserve_bytes: 0, ..StoreConfig::default() };
        let store = Store::open(folder.path(), &config).unwrap();
        House { folder, store }
    }

    fn on_reactor<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn teacher(store: &Store) -> Teacher {
        Teacher::new(store.clone(), Filter::new(store.clone(), SpamConfig::default())).0
    }

    fn bind(house: &House) -> io::Result<Control> {
        let status = Status { pid: 77, ..Status::default() };
        let (folder, store) = (house.folder.path(), house.store.clone());
        Control::bind(folder, store, teacher(&house.store), Arc::new(move || status.clone()))
    }

    /// Serves while `client` works on a thread of its own.
    fn served<T: Send + 'static>(house: &House, client: impl FnOnce(BlockingStream) -> T + Send + 'static) -> T {
        let path = house.folder.path().join(SOCKET);
        on_reactor(async {
            let serving = tokio::spawn(bind(house).unwrap().serve());
            let done =
                tokio::task::spawn_blocking(move || client(BlockingStream::connect(path).unwrap())).await.unwrap();
            serving.abort();
            done
        })
    }

    fn exchange(stream: &BlockingStream, line: &str) -> String {
        let mut stream = std::io::BufReader::new(stream);
        stream.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_line(&mut answer).unwrap();
        answer
    }

    #[test]
    fn orders_are_carried_out_one_after_the_other() {
        let house = house();
        let verifier = ScramVerifier::derive(&password("pencil"), [1; 16], 16);
        let add = Order::AddAccount { address: "ann@x.test".into(), verifier, quota: Quota::default() };
        let add = serde_json::to_string(&add).unwrap();
        served(&house, move |stream| {
            assert_eq!(exchange(&stream, &add), "{\"outcome\":\"done\"}\n");
            let again = exchange(&stream, &add);
            assert_eq!(again, "{\"outcome\":\"refused\",\"reason\":\"ann@x.test exists already\"}\n");
            assert!(exchange(&stream, "{\"order\":\"make-tea\"}").contains("this is no order"));
            assert!(exchange(&stream, "{\"order\":\"status\"}").contains("\"pid\":77"));
            let domains = exchange(&stream, "{\"order\":\"list-domains\",\"skip\":0}");
            assert_eq!(domains, "{\"outcome\":\"domains\",\"domains\":[\"x.test\"]}\n");
        });
        assert!(house.store.reader().unwrap().login("ann").unwrap().is_some());
    }

    #[test]
    fn an_order_that_is_too_long_is_refused_and_ends_the_connection() {
        served(&house(), |stream| {
            let answer = exchange(&stream, &"x".repeat(ORDER_LINE_MAX));
            assert!(answer.contains("too long"), "{answer}");
            assert_eq!((&stream).read(&mut [0]).unwrap_or(0), 0);
        });
    }

    #[test]
    fn only_so_many_are_served_at_once() {
        let house = house();
        let path = house.folder.path().join(SOCKET);
        served(&house, move |first| {
            let others: Vec<_> = (1..CONNECTIONS_MAX).map(|_| BlockingStream::connect(&path).unwrap()).collect();
            for stream in std::iter::once(&first).chain(&others) {
                assert!(exchange(stream, "{\"order\":\"status\"}").contains("77"));
            }
            let mut waiting = BlockingStream::connect(&path).unwrap();
            waiting.write_all(b"{\"order\":\"status\"}\n").unwrap();
            waiting.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            assert!(waiting.read(&mut [0]).is_err(), "nobody serves it yet");
            drop(first);
            waiting.set_read_timeout(None).unwrap();
            assert_eq!(waiting.read(&mut [0]).unwrap(), 1);
        });
    }

    #[test]
    fn the_socket_is_its_owners_alone_and_goes_with_the_server() {
        let house = house();
        let path = house.folder.path().join(SOCKET);
        on_reactor(async {
            let control = bind(&house).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(bind(&house).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            assert!(answers(house.folder.path()));
            drop(control);
            assert!(!path.exists() && !answers(house.folder.path()));
        });
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let house = house();
        drop(std::os::unix::net::UnixListener::bind(house.folder.path().join(SOCKET)).unwrap());
        assert!(on_reactor(async { bind(&house).is_ok() }));
    }

    #[test]
    fn a_data_folder_may_lie_deep() {
        let House { folder, store } = house();
        let deep = folder.path().join("x".repeat(60)).join("y".repeat(60));
        fs::create_dir_all(&deep).unwrap();
        on_reactor(async {
            let control = Control::bind(&deep, store.clone(), teacher(&store), Arc::new(Status::default)).unwrap();
            assert!(deep.join(SOCKET).exists() && answers(&deep));
            drop(control);
        });
        assert!(!deep.join(SOCKET).exists());
    }
}
