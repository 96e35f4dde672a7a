//! Which tasks run, and how they stop.
//!
//! [`prepare`] does what may need root and what can fail for reasons a person must hear of: folders,
//! ports, certificates. [`run`] then opens the store and lives on one thread with tokio's reactor, two
//! blocking threads that come when they are needed and go again, and the store's writer. A small task
//! accepts on each socket, one task serves each connection, and nothing runs on a timer but the scrub,
//! once a day.

use std::fmt;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::SystemRandom;
use tokio::select;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::filter::sender::{DmarcReportConfig, SenderConfig};
use crate::flow::access::lockout::LoginConfig;
use crate::flow::brake::SubmissionConfig;
use crate::flow::judge::{Filter, SpamConfig};
use crate::flow::publish::hex;
use crate::flow::relay::Exit;
use crate::flow::scan::ScanConfig;
use crate::flow::sign::Signer;
use crate::flow::{backup, forward};
use crate::net::authenticate::Authenticator;
use crate::net::budget::{Budget, NetConfig};
use crate::net::drive::{Answers, Driver, Stop};
use crate::net::listener;
use crate::net::outgoing::TlsClient;
use crate::net::resolver::{DnsConfig, QUESTIONS_MAX, Resolver};
use crate::net::stream::Stream;
use crate::net::tls::{TlsConfig, TlsError, TlsServer};
use crate::protocol::imap::ImapConfig;
use crate::protocol::pop3::Pop3Config;
use crate::protocol::smtp::SmtpConfig;
use crate::protocol::{Session, imap, pop3, smtp};
use crate::queue::route::Routes;
use crate::queue::{QueueConfig, RelayConfig, RouteTable, TlsPolicyConfig, TlsReportConfig};
use crate::store::{Store, StoreConfig};

pub mod checks; //     checks on senders, as SMTP connections use them
pub mod clamd; //      the scanner for other programs on this machine
pub mod context; //    what every connection's task shares
pub mod control; //    the socket on which commands speak to a running server
pub mod deliver; //    mail to others' servers
pub mod fresh; //      the time of day, and names for messages
pub mod gatherer; //   makes the gram index when nobody wants anything else
pub mod ground; //     what the data folder stands on
pub mod guard; //      scanning mail on its way in
pub mod health; //     memory and threads, for `status`
pub(crate) mod kept; //  small files of what is remembered
pub mod listen; //     the seven services: accepting and turning away
pub mod local; //      sockets for other programs of this machine
pub mod log; //        the log
pub mod login; //      the door as connections use it: delays, password checks
pub mod notices; //    telling recipients what was kept from them
pub mod receive; //    SMTP connections
pub mod reports; //    reports to other domains
pub mod rescan; //     scanning mail again when new signatures have come
pub mod rights; //     giving up root's rights
pub mod scrub; //      reads the whole store once a month
pub mod serve_imap; // IMAP connections
pub mod serve_pop3; // POP3 connections
pub mod teacher; //    teaching the spam filter behind the connections' backs

use checks::Checks;
use clamd::Clamd;
use context::{Context, Roll};
use control::{Control, ListenerStatus, Status, StatusSource};
use deliver::safety::Safety;
use deliver::{Deliverer, Delivery};
use gatherer::Gatherer;
use ground::GroundError;
use guard::Guard;
use listen::{Bound, ListenConfig, OpenError, Service};
use log::LogHandle;
use login::{Doorway, random};
use receive::Office;
use reports::Reports;
use rescan::Rescanner;
use rights::RightsError;
use scrub::Scrub;
use teacher::{Pupil, Teacher};

/// How long a blocking thread waits for more work.
const BLOCKING_KEEP: Duration = Duration::from_secs(3);

/// Stack of a blocking thread in bytes; only what is used is ever in memory.
const STACK_BYTES: usize = 512 * 1024;

/// How long connections may take to say goodbye when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Open files that are not connections: store, listeners, reactor, log, questions to the DNS, a reserve.
const OTHER_FILES: u64 = 64 + 2 * QUESTIONS_MAX as u64;

/// Why the server did not start, or did not stop well. `Display` is one sentence.
#[derive(Debug)]
pub enum DaemonError {
    /// A folder cannot be made or used.
    Folder(PathBuf, io::Error),
    /// The data folder is no place for mail.
    Ground(GroundError),
    /// A service cannot listen.
    Open(OpenError),
    /// Rights cannot be given up.
    Rights(RightsError),
    /// No certificate.
    Tls(TlsError),
    /// The store did not open or close; the text is its own.
    Store(String),
    /// Settings contradict each other; the text says which.
    Settings(String),
    /// The system refuses something basic; the text says what.
    System(&'static str, io::Error),
}

impl fmt::Display for DaemonError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path, error) => write!(formatter, "the folder {} cannot be used: {error}", path.display()),
            Self::Ground(error) => error.fmt(formatter),
            Self::Open(error) => error.fmt(formatter),
            Self::Rights(error) => error.fmt(formatter),
            Self::Tls(error) => error.fmt(formatter),
            Self::Store(text) | Self::Settings(text) => formatter.write_str(text),
            Self::System(what, error) => write!(formatter, "{what}: {error}"),
        }
    }
}

impl std::error::Error for DaemonError {}

/// What the server is set up with; `config` gathers it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The folder that holds the mail, accounts and certificates.
    pub data: PathBuf,
    /// What the server calls itself.
    pub hostname: String,
    /// The user to become when started as root.
    pub user: Option<String>,
    /// Whether root may stay root.
    pub allow_root: bool,
    /// Whether clients on this machine may log in without TLS.
    pub clear_login_on_loopback: bool,
    /// Where to listen.
    pub listen: ListenConfig,
    /// Certificates.
    pub tls: TlsConfig,
    /// Limits of connections.
    pub net: NetConfig,
    /// The DNS.
    pub dns: DnsConfig,
    /// Checks on mail from other servers.
    pub senders: SenderConfig,
    /// SMTP.
    pub smtp: SmtpConfig,
    /// Mail on its way out.
    pub queue: QueueConfig,
    /// Routes.
    pub route: RouteTable,
    /// Smarthosts.
    pub relay: Vec<RelayConfig>,
    /// What is demanded of other domains' servers.
    pub tls_policy: TlsPolicyConfig,
    /// Reports about TLS.
    pub tls_report: TlsReportConfig,
    /// Reports about DMARC.
    pub dmarc_report: DmarcReportConfig,
    /// IMAP.
    pub imap: ImapConfig,
    /// POP3.
    pub pop3: Pop3Config,
    /// Logins.
    pub login: LoginConfig,
    /// Attachment scanning.
    pub scan: ScanConfig,
    /// The spam filter.
    pub spam: SpamConfig,
    /// The mail store.
    pub store: StoreConfig,
    /// Who may send, and how much.
    pub submission: SubmissionConfig,
    /// Working threads at most, for password checks, reads and bodies.
    pub threads: u8,
}

impl Setup {
    /// The folder of the local authority and its certificates.
    fn tls_folder(&self) -> PathBuf {
        self.data.join("tls")
    }
}

/// What can change while the server runs.
#[derive(Clone, Debug)]
pub struct Changeable {
    /// What is logged.
    pub log_level: String,
    /// Limits of connections.
    pub net: NetConfig,
}

/// What SIGHUP means.
pub enum OnHangup {
    /// Take what this reads, and look at the certificates. An error is one sentence, and changes
    /// nothing.
    Reload(Box<dyn Fn() -> Result<Changeable, String>>),
    /// The terminal was closed: stop.
    Stop,
}

/// Ports are open, rights are given up: ready to [`run`].
#[derive(Debug)]
pub struct Prepared {
    setup: Setup,
    bound: Vec<Bound>,
    tls: TlsServer,
    /// The data folder, which nobody else serves while this is kept.
    folder: File,
}

/// What there is to know once the server runs.
#[derive(Debug)]
pub struct Ready {
    /// Where it listens.
    pub listeners: Vec<(Service, SocketAddr)>,
    /// The local authority's certificate, if the server's is from there.
    pub ca: Option<PathBuf>,
}

/// Opens the ports, makes the data folder, becomes the user it is told, and loads or makes the
/// certificate. Call it before any thread starts.
///
/// # Errors
/// See [`DaemonError`].
pub fn prepare(setup: Setup) -> Result<Prepared, DaemonError> {
    let user = rights::user_to_become(setup.user.as_deref(), setup.allow_root).map_err(DaemonError::Rights)?;
    let activated =
        listener::activated().map_err(|error| DaemonError::Open(OpenError::Activated(error.to_string())))?;
    let bound = listen::open(&setup.listen, activated).map_err(DaemonError::Open)?;
    rights::prepare_folder(&setup.data, user.as_ref())
        .map_err(|error| DaemonError::Folder(setup.data.clone(), error))?;
    let load = || TlsServer::new(&setup.tls, &setup.hostname, &setup.tls_folder()).map_err(DaemonError::Tls);
    // A key of somebody else's making may be root's alone; our own belongs to the user.
    let early = setup.tls.key.is_some().then(load).transpose()?;
    if let (Some(name), Some(user)) = (&setup.user, &user) {
        rights::become_user(name, user).map_err(DaemonError::Rights)?;
    }
    rights::check_folder(&setup.data).map_err(|error| DaemonError::Folder(setup.data.clone(), error))?;
    let folder = rights::take_folder(&setup.data).map_err(|error| DaemonError::Folder(setup.data.clone(), error))?;
    let in_use = || DaemonError::Store(crate::store::OpenError::InUse(setup.data.clone()).to_string());
    let folder = folder.ok_or_else(in_use)?;
    let tls = early.map_or_else(load, Ok)?;
    rights::allow_open_files(u64::from(setup.net.sessions_max) + OTHER_FILES);
    Ok(Prepared { setup, bound, tls, folder })
}

/// Looks whether the data folder is on a disk that keeps what is written, and on the one that is
/// meant. Call it before [`prepare`] where mail is to last.
///
/// # Errors
/// The reason to refuse.
pub fn check_ground(setup: &Setup) -> Result<(), DaemonError> {
    ground::check(&setup.data, &setup.store).map_err(DaemonError::Ground)
}

/// Looks whether [`check_ground`] and [`prepare`] would succeed now, and leaves everything as it is. Ports of a server that
/// runs on the same data folder count as free.
///
/// # Errors
/// What `prepare` would stumble over.
pub fn rehearse(setup: &Setup) -> Result<(), DaemonError> {
    rights::user_to_become(setup.user.as_deref(), setup.allow_root).map_err(DaemonError::Rights)?;
    check_ground(setup)?;
    if setup.tls.key.is_some() {
        TlsServer::new(&setup.tls, &setup.hostname, &setup.tls_folder()).map_err(DaemonError::Tls)?;
    }
    if !control::answers(&setup.data) {
        listen::open(&setup.listen, Vec::new()).map_err(DaemonError::Open)?;
    }
    Ok(())
}

/// Opens the store, serves until a signal says stop, and closes the store.
///
/// `furnish` is called with the store before anything is served, and may block; what it returns is
/// handed to `ready`, which is called once all services accept connections.
///
/// # Errors
/// See [`DaemonError`].
pub fn run<T>(
    prepared: Prepared,
    on_hangup: &OnHangup,
    log: Option<&LogHandle>,
    furnish: impl FnOnce(&Store) -> Result<T, DaemonError>,
    ready: impl FnOnce(&Ready, T) -> Result<(), DaemonError>,
) -> Result<(), DaemonError> {
    let Prepared { setup, bound, tls, folder: _folder } = prepared;
    let store = Store::open(&setup.data, &setup.store).map_err(|error| DaemonError::Store(error.to_string()))?;
    let furniture = furnish(&store)?;
    let doorway = Doorway::new(store.clone(), setup.login.clone())
        .map_err(|error| DaemonError::Store(format!("logins cannot be set up: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(usize::from(setup.threads.max(1)) + if setup.scan.enabled { guard::SCANS } else { 0 })
        .thread_keep_alive(BLOCKING_KEEP)
        .thread_stack_size(STACK_BYTES)
        .thread_name("pillarbox-work")
        .build()
        .map_err(|error| DaemonError::System("the reactor cannot be set up", error))?;
    let (stop_all, stop) = Stop::new();
    let hostname: Arc<str> = setup.hostname.as_str().into();
    let filter = Filter::in_folder(store.clone(), setup.spam.clone(), &setup.data);
    let (teacher, pupil) = Teacher::new(store.clone(), filter.clone());
    let routes = Routes::new(&setup.queue, &setup.route, &setup.relay)
        .map_err(|(key, problem)| DaemonError::Settings(format!("{key} {problem}")))?;
    let exit = Exit::new(store.clone(), Arc::new(routes), Arc::new(setup.queue.clone()), Arc::clone(&hostname));
    let srs = forward::rewriter(&store, &random())
        .map_err(|error| DaemonError::Store(format!("forwarding cannot be set up: {error}")))?;
    let exit = exit.with_srs(Arc::new(srs));
    let resolver = Resolver::new(&setup.dns).map_err(|error| DaemonError::System("the DNS cannot be asked", error))?;
    let deliverer = Deliverer::default();
    let authorities = TlsClient::new(setup.tls.authorities.as_deref()).map_err(DaemonError::Tls)?;
    let reports = Reports::open(&setup.tls_report, &setup.dmarc_report, &setup.data, exit.clone(), resolver.clone());
    let safety = Safety::open(setup.tls_policy.clone(), &setup.data).telling(reports.clone());
    let security = (authorities, safety);
    let authenticator = Authenticator::new(resolver.clone(), Arc::clone(&hostname))
        .map_err(|error| DaemonError::System("senders cannot be checked", error))?;
    let checks = Checks::new(
        authenticator,
        store.clone(),
        setup.senders.clone(),
        Arc::clone(&hostname),
        filter.clone(),
        Some(reports.clone()),
    );
    let signer = Signer::new(&setup.data, Arc::new(SystemRandom::new()));
    let delivery =
        Delivery::new(exit.clone(), &setup.relay, resolver.clone(), security, signer, stop.clone(), deliverer.clone())
            .map_err(DaemonError::Tls)?;
    let office = Office::new(
        store.clone(),
        doorway.clone(),
        teacher.clone(),
        checks.clone(),
        Arc::clone(&hostname),
        &setup.smtp,
    );
    let guard = Guard::new(store.clone(), &setup.data, setup.scan.clone(), Arc::clone(&hostname));
    let context = Rc::new(Context {
        office: office
            .with_exit(exit)
            .asking(resolver)
            .with_submission(setup.submission.clone())
            .guarded(setup.scan.enabled.then(|| guard.clone())),
        teacher,
        smtp: Arc::new(setup.smtp.clone()),
        imap: Arc::new(setup.imap.clone()),
        hostname,
        names: Arc::new(crate::net::authority::names_of_this_machine(&setup.tls.names)),
        clear_login_on_loopback: setup.clear_login_on_loopback,
        store: store.clone(),
        doorway,
        locks: crate::flow::access::pop3::Locks::default(),
        pop3: Arc::new(setup.pop3.clone()),
        tls: Arc::new(tls),
        budget: Budget::new(setup.net.clone()),
        stop,
        listeners: bound.iter().map(|bound| (bound.service, bound.address)).collect(),
        roll: Arc::new(Roll::default()),
    });
    let served = LocalSet::new().block_on(&runtime, async {
        let scrub = Scrub::new(&store, &setup.store);
        let status = status_source(&context, scrub.clone(), deliverer.clone(), guard.clone());
        let control = Control::bind(&setup.data, store.clone(), context.teacher.clone(), status)
            .map_err(|error| DaemonError::System("the control socket cannot be set up", error))?
            .with_deliverer(deliverer)
            .with_reports(reports.clone())
            .with_guard(guard.clone());
        let clamd = match &setup.scan.clamd_socket {
            Some(path) => Some(Clamd::bind(path, guard.clone(), store.clone())).transpose(),
            None => Ok(None),
        };
        let clamd = clamd.map_err(|error| DaemonError::System("the scan socket cannot be set up", error))?;
        // Without the scan on arrival nothing says what mail was scanned with.
        let rescanner = setup.scan.enabled.then(|| Rescanner::new(guard.clone(), store.clone()));
        let _rescanner = rescanner.map(|rescanner| Ending(tokio::task::spawn_local(rescanner.run())));
        let _gatherer = Ending(tokio::task::spawn_local(Gatherer::new(store.clone()).run()));
        let _clamd = clamd.map(|clamd| Ending(tokio::task::spawn_local(clamd.serve())));
        serve(
            Rc::clone(&context),
            bound,
            (control, scrub, pupil, delivery),
            on_hangup,
            log,
            |now| ready(now, furniture),
            &stop_all,
        )
        .await
    });
    // Whatever still blocks may finish its read; writes are in the store's hands already.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Err(error) = filter.save() {
        tracing::warn!(%error, "what the spam filter has learnt last was not saved");
    }
    if let Err(error) = checks.save() {
        tracing::warn!(%error, "the greylist was not saved");
    }
    reports.save();
    let closed = store.close().map_err(|error| DaemonError::Store(format!("the store did not close well: {error}")));
    served.and(closed)
}

async fn serve(
    context: Rc<Context>,
    bound: Vec<Bound>,
    (control, scrub, pupil, delivery): (Control, Scrub, Pupil, Delivery),
    on_hangup: &OnHangup,
    log: Option<&LogHandle>,
    ready: impl FnOnce(&Ready) -> Result<(), DaemonError>,
    stop_all: &tokio::sync::watch::Sender<bool>,
) -> Result<(), DaemonError> {
    let wait_for = |kind| signal(kind).map_err(|error| DaemonError::System("signals cannot be received", error));
    let mut terminate = wait_for(SignalKind::terminate())?;
    let mut interrupt = wait_for(SignalKind::interrupt())?;
    let mut hangup = wait_for(SignalKind::hangup())?;

    let mut acceptors = Vec::new();
    for Bound { service, listener, address } in bound {
        let listener = tokio::net::TcpListener::from_std(listener)
            .map_err(|error| DaemonError::System("a listening socket cannot be watched", error))?;
        tracing::info!(service = service.name(), %address, "listening");
        acceptors.push(tokio::task::spawn_local(listen::accept(Rc::clone(&context), service, listener)));
    }
    acceptors.push(tokio::task::spawn_local(control.serve()));
    acceptors.push(tokio::task::spawn_local(scrub.run()));
    acceptors.push(tokio::task::spawn_local(pupil.run()));
    let delivering = tokio::task::spawn_local(delivery.run());
    ready(&Ready { listeners: context.listeners.clone(), ca: context.tls.ca() })?;
    tell_systemd(Moment::Ready);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");

    loop {
        select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => match on_hangup {
                OnHangup::Stop => break,
                OnHangup::Reload(read) => reload(&context, read, log),
            },
        }
    }

    tracing::info!(sessions = context.budget.open(), "stopping");
    tell_systemd(Moment::Stopping);
    for acceptor in &acceptors {
        acceptor.abort();
    }
    // Nobody listens for it when nobody is connected.
    let _ = stop_all.send(true);
    select! {
        left = timeout(STOP_PATIENCE, async { tokio::join!(context.roll.empty(), delivering) }) => {
            if left.is_err() {
                tracing::warn!(sessions = context.budget.open(), "some connections did not end in time");
            }
        }
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Gathers what `status` shows, when somebody asks.
fn status_source(context: &Context, scrub: Scrub, deliverer: Deliverer, guard: Guard) -> StatusSource {
    let (store, budget, roll) = (context.store.clone(), context.budget.clone(), Arc::clone(&context.roll));
    let (listeners, filter) = (context.listeners.clone(), context.teacher.filter().clone());
    let (hostname, tls) = (context.hostname.to_string(), Arc::clone(&context.tls));
    let office = context.office.clone();
    Arc::new(move || {
        let memory = health::memory();
        let shown = |(service, address): &(Service, SocketAddr)| ListenerStatus {
            name: service.name().to_owned(),
            address: address.to_string(),
            sessions: roll.open(*service),
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: hostname.clone(),
            tls_key_sha256: tls.key_digest().map(|digest| hex(&digest)),
            own_authority: tls.ca().is_some(),
            pid: std::process::id(),
            uptime_secs: roll.uptime_secs(),
            listeners: listeners.iter().map(shown).collect(),
            sessions: budget.open(),
            memory_bytes: memory.pss,
            memory_peak_bytes: memory.peak_rss,
            store: store.figures(),
            scrub: scrub.state(),
            rescan: guard.rescan_state().filter(|state| state.set > 0),
            // What can't be read now is told by others.
            last_backup: backup::made(&store).ok().and_then(|mut made| made.pop()),
            spam: filter.figures(),
            queue: store.reader().and_then(|reader| reader.queue_figures()).unwrap_or_default(),
            deliver: deliverer.figures(),
            braked: office.braked(),
        }
    })
}

/// Takes what can change while running, and looks at the certificates.
fn reload(context: &Context, read: &dyn Fn() -> Result<Changeable, String>, log: Option<&LogHandle>) {
    match read() {
        Ok(Changeable { log_level, net }) => {
            if let Some(Err(error)) = log.map(|log| log.set_level(&log_level)) {
                tracing::error!(%error, "the log level stays");
            }
            context.budget.set_limits(net);
            tracing::info!("read again: log level, limits of connections, certificates; the rest needs a restart");
        }
        Err(error) => tracing::error!(%error, "the settings stay as they were"),
    }
    context.tls.reload();
}

/// Everything that happens on one connection.
fn conversation(
    context: &Rc<Context>,
    service: Service,
    stream: Stream,
    peer: SocketAddr,
) -> Pin<Box<dyn Future<Output = ()>>> {
    let clear_login = context.may_log_in_clear(peer);
    match service {
        Service::Smtp | Service::Submission | Service::Submissions => {
            let session = smtp::Receiver::new(smtp::Setup {
                role: if service == Service::Smtp { smtp::Role::Exchange } else { smtp::Role::Submission },
                name: Arc::clone(&context.hostname),
                config: Arc::clone(&context.smtp),
                peer: peer.ip(),
                starttls: !service.has_implicit_tls(),
                login_in_clear: clear_login,
                open: context.office.is_open_to(peer.ip()),
            });
            converse(context, service, session, context.office.reception(peer.ip()), stream)
        }
        Service::Imap | Service::Imaps => {
            let site = imap::Site {
                host: Arc::clone(&context.hostname),
                starttls: !service.has_implicit_tls(),
                clear_login,
                names: Arc::clone(&context.names),
            };
            let session = imap::Session::new(Arc::clone(&context.imap), site);
            let (store, teacher) = (context.store.clone(), context.teacher.clone());
            let answers = serve_imap::ImapAnswers::new(store, teacher, &context.doorway, peer.ip());
            converse(context, service, session, answers, stream)
        }
        Service::Pop3 | Service::Pop3s => {
            let session = pop3::Session::new(Arc::clone(&context.pop3), &context.hostname, clear_login);
            let answers =
                serve_pop3::Pop3Answers::new(context.store.clone(), context.locks.clone(), &context.doorway, peer.ip());
            converse(context, service, session, answers, stream)
        }
    }
}

fn converse<S, A>(
    context: &Rc<Context>,
    service: Service,
    session: S,
    answers: A,
    stream: Stream,
) -> Pin<Box<dyn Future<Output = ()>>>
where
    S: Session + 'static,
    A: Answers<S> + 'static,
{
    let mut driver = Driver::new(session, answers, stream, context.stop.clone());
    Box::pin(async move {
        tracing::debug!("connected");
        if service.has_implicit_tls()
            && let Err(error) = driver.secure().await
        {
            tracing::debug!(%error, "no TLS");
            return;
        }
        let end = driver.run().await;
        let traffic = driver.traffic();
        match end {
            Ok(end) => tracing::debug!(?end, received = traffic.received, sent = traffic.sent, "ended"),
            Err(error) => tracing::debug!(%error, received = traffic.received, sent = traffic.sent, "broken off"),
        }
    })
}

/// A task that ends with its holder.
struct Ending(tokio::task::JoinHandle<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What systemd is told.
#[derive(Clone, Copy)]
enum Moment {
    Ready,
    Stopping,
}

#[cfg(feature = "systemd")]
fn tell_systemd(moment: Moment) {
    let state = match moment {
        Moment::Ready => sd_notify::NotifyState::Ready,
        Moment::Stopping => sd_notify::NotifyState::Stopping,
    };
    // Without systemd there is nobody to tell, and that is no error.
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd was not told");
    }
}

#[cfg(not(feature = "systemd"))]
fn tell_systemd(moment: Moment) {
    match moment {
        Moment::Ready | Moment::Stopping => {}
    }
}
