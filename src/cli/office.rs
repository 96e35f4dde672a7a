//! Where a command's orders go: to the running server over its control socket, or straight to the
//! store when no server runs.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::daemon::control::{self, OUTCOME_LINE_MAX, Order, Outcome, ROWS_MAX, obey, obey_spam};
use crate::flow::judge::{Filter, SpamConfig};
use crate::store::{OpenError, Store, StoreConfig};

/// Why a command failed; `Display` is one sentence without its full stop.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    /// Output that nobody takes, input that cannot be read.
    fn from(error: io::Error) -> Self {
        Self(format!("cannot speak to the terminal: {error}"))
    }
}

/// The options of every command that gives orders.
#[derive(Clone, Debug, clap::Args)]
pub struct OfficeArgs {
    /// Data folder of the server
    #[arg(long, value_name = "DIR", global = true, default_value = "/var/lib/pillarbox")]
    pub data: PathBuf,
    /// Answer in JSON, for scripts
    #[arg(long, global = true)]
    pub json: bool,
}

/// Carries out orders.
pub trait Office {
    /// Gives an order.
    ///
    /// # Errors
    /// The reason, when it was refused or nobody could be asked.
    fn give(&mut self, order: Order) -> Result<Outcome, Failure>;
}

/// The server of a data folder, or its store.
#[derive(Debug)]
pub enum DataOffice {
    /// A server runs.
    Server(Remote),
    /// None runs; the store is ours until this is dropped, and so is its spam filter.
    Store(Store, Filter),
}

impl DataOffice {
    /// Finds out whether a server runs on `folder`, and opens the store if not.
    ///
    /// # Errors
    /// When the folder does not exist or is not ours.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        Self::open_by(folder, |folder| Store::open(folder, &StoreConfig::default()))
    }

    /// As [`DataOffice::open`], for whoever opens the store otherwise.
    ///
    /// # Errors
    /// As [`DataOffice::open`].
    pub(super) fn open_by(
        folder: &Path,
        open: impl FnOnce(&Path) -> Result<Store, OpenError>,
    ) -> Result<Self, Failure> {
        if let Some(server) = Remote::connect(folder)? {
            return Ok(Self::Server(server));
        }
        if !folder.is_dir() {
            return Err(Failure(format!(
                "there is no data folder {}; name it with --data DIR, or make it first",
                folder.display()
            )));
        }
        refuse_foreign(folder)?;
        open(folder)
            .map(|store| Self::Store(store.clone(), Filter::in_folder(store, SpamConfig::default(), folder)))
            .map_err(|error| Failure(error.to_string()))
    }
}

impl Office for DataOffice {
    fn give(&mut self, order: Order) -> Result<Outcome, Failure> {
        let outcome = match self {
            Self::Server(server) => server.give(&order)?,
            Self::Store(store, filter) => match order {
                Order::Spam { account, task } => obey_spam(store, filter, account.as_deref(), task),
                order => obey(store, order),
            },
        };
        match outcome {
            Outcome::Refused { reason } => Err(Failure(reason)),
            outcome => Ok(outcome),
        }
    }
}

impl Drop for DataOffice {
    fn drop(&mut self) {
        if let Self::Store(store, filter) = self {
            if let Err(error) = filter.save() {
                tracing::error!(%error, "what the spam filter has learnt was not saved");
            }
            // What was answered is on disk already; this only spares the next start a replay.
            let _ = store.close();
        }
    }
}

/// What root would make in another user's folder, that user's server could not open.
fn refuse_foreign(folder: &Path) -> Result<(), Failure> {
    let owner = std::fs::metadata(folder).map_or(0, |facts| facts.uid());
    if owner == 0 || !rustix::process::geteuid().is_root() || folder.join("mail.redb").exists() {
        return Ok(());
    }
    Err(Failure(format!(
        "{} belongs to another user and is empty; run the command as that user (sudo -u '#{owner}'), \
         or start the server first",
        folder.display()
    )))
}

/// A running server, over its control socket.
#[derive(Debug)]
pub struct Remote {
    stream: BufReader<UnixStream>,
}

impl Remote {
    /// Connects to the server of a data folder; `None` when none runs.
    ///
    /// # Errors
    /// When one runs that may not be spoken to.
    pub fn connect(folder: &Path) -> Result<Option<Self>, Failure> {
        let connected = control::address(folder).and_then(|path| UnixStream::connect(path.as_path()));
        match connected {
            Ok(stream) => Ok(Some(Self { stream: BufReader::new(stream) })),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Failure(format!(
                "{} belongs to another user; run the command as that user or as root",
                folder.display()
            ))),
            Err(error) => Err(Failure(format!("cannot speak to the server of {}: {error}", folder.display()))),
        }
    }

    /// Gives an order and waits for what comes of it.
    ///
    /// # Errors
    /// When the connection breaks or makes no sense.
    pub fn give(&mut self, order: &Order) -> Result<Outcome, Failure> {
        let broken = |error: io::Error| Failure(format!("the server broke the connection off: {error}"));
        let mut line = serde_json::to_vec(order).map_err(|error| broken(error.into()))?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(broken)?;
        line.clear();
        let mut bounded = (&mut self.stream).take(OUTCOME_LINE_MAX as u64);
        bounded.read_until(b'\n', &mut line).map_err(broken)?;
        if line.is_empty() {
            return Err(Failure("the server closed the connection: it serves its own user and root only".into()));
        }
        serde_json::from_slice(&line).map_err(|error| Failure(format!("the server's answer makes no sense: {error}")))
    }
}

impl Remote {
    /// The connection, for what is no orders; the last order was answered.
    pub(super) fn into_stream(self) -> UnixStream {
        self.stream.into_inner()
    }

    /// The connection, where the server goes on by itself after its answer.
    pub(super) fn into_reader(self) -> BufReader<UnixStream> {
        self.stream
    }
}

/// Gives a list order again and again until all rows are told.
///
/// # Errors
/// As [`Office::give`].
pub fn list_all<Row>(
    office: &mut impl Office,
    order: impl Fn(usize) -> Order,
    rows_of: impl Fn(Outcome) -> Option<Vec<Row>>,
) -> Result<Vec<Row>, Failure> {
    let mut all = Vec::new();
    loop {
        let rows = rows_of(office.give(order(all.len()))?).ok_or_else(unexpected)?;
        let more = rows.len() >= ROWS_MAX;
        all.extend(rows);
        if !more {
            return Ok(all);
        }
    }
}

/// Makes sure that an order was done.
///
/// # Errors
/// As [`Office::give`].
pub fn done(office: &mut impl Office, order: Order) -> Result<(), Failure> {
    if office.give(order)? == Outcome::Done { Ok(()) } else { Err(unexpected()) }
}

pub(super) fn unexpected() -> Failure {
    Failure("the server answered another question: is it of another version?".into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// An office that answers what it was told to and remembers what it was asked.
    pub(crate) struct Script {
        outcomes: VecDeque<Outcome>,
        pub(crate) given: Vec<Order>,
    }

    impl Script {
        pub(crate) fn new(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
            Self { outcomes: outcomes.into_iter().collect(), given: Vec::new() }
        }

        pub(crate) fn refusing(reason: &str) -> Self {
            Self::new([Outcome::Refused { reason: reason.to_owned() }])
        }
    }

    impl Office for Script {
        fn give(&mut self, order: Order) -> Result<Outcome, Failure> {
            self.given.push(order);
            match self.outcomes.pop_front().unwrap() {
                Outcome::Refused { reason } => Err(Failure(reason)),
                outcome => Ok(outcome),
            }
        }
    }

    #[test]
    fn a_missing_data_folder_is_named() {
        let error = DataOffice::open(Path::new("/nonexistent/pillarbox")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/pillarbox") && error.contains("--data"), "{error}");
    }
}
