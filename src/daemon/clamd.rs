//! A socket on which other programs of this machine may have files scanned, in the protocol of ClamAV's
//! server: `PING`, `VERSION`, `INSTREAM`, `SCAN PATH`, `CONTSCAN PATH`, and `IDSESSION` for several of
//! them on one connection. A command begins with `z` and ends with NUL, or with `n` and a newline, or has
//! neither and ends with a newline; answers end as commands do.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::guard::Guard;
use crate::flow::scan::{Findings, SeenFile, SpooledObject};
use crate::store::{Spool, Store, WriteError};

/// Connections served at one time.
const CONNECTIONS_MAX: usize = 4;

/// Longest command: a path.
const COMMAND_MAX: u64 = 4200;

/// Most bytes of a stream, as ClamAV has it by default.
const STREAM_MAX: u64 = 100 << 20;

/// Most bytes of a piece of a stream that are taken at one time.
const PIECE_MAX: usize = 64 << 10;

/// Silence that ends a connection.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Wait before the next try when a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The socket, bound.
#[derive(Debug)]
pub struct Clamd {
    listener: UnixListener,
    path: PathBuf,
    desk: Desk,
}

#[derive(Clone, Debug)]
struct Desk {
    guard: Guard,
    store: Store,
}

/// How a command ends, and so its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Nul,
    Newline,
}

impl Clamd {
    /// Binds the socket; one that was left behind is replaced. The owner and the group may use it. Needs a
    /// reactor.
    ///
    /// # Errors
    /// The system's.
    pub fn bind(path: &Path, guard: Guard, store: Store) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o660))?;
        Ok(Self { listener, path: path.to_owned(), desk: Desk { guard, store } })
    }

    /// Serves until dropped; connections end with it.
    pub async fn serve(self) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let desk = self.desk.clone();
                    connections.spawn(async move {
                        if let Err(error) = desk.attend(stream).await {
                            tracing::debug!(%error, "a scan connection broke");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the scan socket did not accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Clamd {
    fn drop(&mut self) {
        // Left behind it would do no harm: the next server replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Desk {
    async fn attend(&self, stream: UnixStream) -> io::Result<()> {
        let mut stream = BufReader::with_capacity(4096, stream);
        let mut session = None;
        loop {
            let Some((command, end)) = read_command(&mut stream).await? else { return Ok(()) };
            let (word, rest) = command.split_once(' ').unwrap_or((&command, ""));
            let number = session.as_mut().map(|number: &mut u32| {
                *number += 1;
                *number
            });
            let answer = match word {
                "IDSESSION" if session.is_none() => {
                    session = Some(0);
                    continue;
                }
                "END" if session.is_some() => return Ok(()),
                "PING" => "PONG".to_owned(),
                "VERSION" => self.version(),
                "VERSIONCOMMANDS" => {
                    format!(
                        "{}| COMMANDS: SCAN CONTSCAN PING VERSION VERSIONCOMMANDS IDSESSION END INSTREAM",
                        self.version()
                    )
                }
                "INSTREAM" => self.stream(&mut stream).await?,
                "SCAN" | "CONTSCAN" => self.file(rest.to_owned()).await,
                _ => "UNKNOWN COMMAND".to_owned(),
            };
            let mut line = number.map(|number| format!("{number}: ")).unwrap_or_default().into_bytes();
            line.extend_from_slice(answer.as_bytes());
            line.push(if end == End::Nul { 0 } else { b'\n' });
            timeout(SILENCE_MAX, stream.get_mut().write_all(&line)).await.map_err(|_| io::ErrorKind::TimedOut)??;
            if session.is_none() {
                return Ok(());
            }
        }
    }

    fn version(&self) -> String {
        let made = self.guard.set().map_or(0, |set| set.header().made);
        format!("Pillarbox {}/{made}", env!("CARGO_PKG_VERSION"))
    }

    /// Takes pieces, each behind its length in four bytes, up to an empty one.
    async fn stream(&self, stream: &mut BufReader<UnixStream>) -> io::Result<String> {
        let mut spool = match self.store.spool() {
            Ok(spool) => spool,
            Err(error) => return Ok(format!("stream: {error:?} ERROR")),
        };
        loop {
            let length = timeout(SILENCE_MAX, stream.read_u32()).await.map_err(|_| io::ErrorKind::TimedOut)??;
            if length == 0 {
                break;
            }
            if spool.len() + u64::from(length) > STREAM_MAX {
                return Ok("INSTREAM size limit exceeded. ERROR".to_owned());
            }
            let mut left = usize::try_from(length).unwrap_or(usize::MAX);
            while left > 0 {
                let mut piece = vec![0; left.min(PIECE_MAX)];
                timeout(SILENCE_MAX, stream.read_exact(&mut piece)).await.map_err(|_| io::ErrorKind::TimedOut)??;
                left -= piece.len();
                match add(spool, piece).await {
                    Ok(back) => spool = back,
                    Err(error) => return Ok(format!("stream: {error:?} ERROR")),
                }
            }
        }
        let finished = tokio::task::spawn_blocking(move || spool.finish()).await.map_err(io::Error::other)?;
        let body = match finished {
            Ok(body) => body,
            Err(error) => return Ok(format!("stream: {error:?} ERROR")),
        };
        let scanned = self
            .guard
            .scan_in_turn(body, |guard, body, pace| guard.scan_at(pace, &SpooledObject::new(body), "stream", false));
        Ok(told("stream", scanned.await.map(|(_, findings)| findings)))
    }

    async fn file(&self, path: String) -> String {
        let scanned = self.guard.scan_in_turn(path.clone(), |guard, path, pace| {
            let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy();
            if !fs::metadata(path)?.is_file() {
                return Err(io::Error::other("not a file"));
            }
            guard.scan_at(pace, &SeenFile::new(File::open(path)?)?, &name, false)
        });
        told(&path, scanned.await.map(|(_, findings)| findings))
    }
}

/// Adds a piece; on a blocking thread once the spool has left memory.
async fn add(mut spool: Spool, piece: Vec<u8>) -> Result<Spool, WriteError> {
    if !spool.is_on_disk() {
        return spool.write(&piece).map(|()| spool);
    }
    let working = tokio::task::spawn_blocking(move || spool.write(&piece).map(|()| spool));
    working.await.map_err(|_| WriteError::Closed)?
}

async fn read_command(stream: &mut BufReader<UnixStream>) -> io::Result<Option<(String, End)>> {
    let first = match timeout(SILENCE_MAX, stream.read_u8()).await.map_err(|_| io::ErrorKind::TimedOut)? {
        Ok(first) => first,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let (end, mut command) = match first {
        b'z' => (End::Nul, Vec::new()),
        b'n' => (End::Newline, Vec::new()),
        first => (End::Newline, vec![first]),
    };
    let last = if end == End::Nul { 0 } else { b'\n' };
    let mut limited = stream.take(COMMAND_MAX);
    timeout(SILENCE_MAX, limited.read_until(last, &mut command)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if command.pop() != Some(last) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let command = String::from_utf8(command).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Some((command.trim_end_matches('\r').to_owned(), end)))
}

fn told(name: &str, scanned: io::Result<Findings>) -> String {
    match scanned {
        Ok(findings) => {
            let limit = findings.report.limit.map(crate::filter::scan::unpack::Limit::finding);
            match findings.signature.as_deref().or(limit) {
                Some(found) => format!("{name}: {found} FOUND"),
                None => format!("{name}: OK"),
            }
        }
        Err(error) => format!("{name}: {error} ERROR"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::scan::{SET_FILE, ScanConfig, compile};
    use crate::store::StoreConfig;

    async fn ask(path: &Path, said: &[u8]) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(said).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn stream(pieces: &[&[u8]]) -> Vec<u8> {
        let mut said = b"zINSTREAM\0".to_vec();
        for piece in pieces.iter().chain([&[].as_slice()]) {
            said.extend_from_slice(&u32::try_from(piece.len()).unwrap().to_be_bytes());
            said.extend_from_slice(piece);
        }
        said
    }

    #[test]
    fn other_programs_are_answered_as_clamavs_server_would() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("own.rules"), "Test.Evil ; any ; * ; text \"quite evil text\"\n").unwrap();
        fs::write(at("file"), "some QUITE evil text").unwrap();
        compile::compile(&[at("own.rules")], &at(SET_FILE), 7, &mut |_| {}).unwrap();
        let store = Store::open(&at("data"), &StoreConfig::default()).unwrap();
        let guard = Guard::new(store.clone(), folder.path(), ScanConfig::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let socket = at("clamd.sock");
            let serving = tokio::spawn(Clamd::bind(&socket, guard, store.clone()).unwrap().serve());
            assert_eq!(ask(&socket, b"PING\n").await, "PONG\n");
            assert_eq!(ask(&socket, b"zPING\0").await, "PONG\0");
            assert_eq!(ask(&socket, b"nVERSION\n").await, format!("Pillarbox {}/7\n", env!("CARGO_PKG_VERSION")));
            assert_eq!(ask(&socket, b"nEAT\n").await, "UNKNOWN COMMAND\n");
            assert_eq!(ask(&socket, &stream(&[b"quite ev", b"il text"])).await, "stream: Test.Evil FOUND\0");
            assert_eq!(ask(&socket, &stream(&[b"fine"])).await, "stream: OK\0");
            assert_eq!(ask(&socket, b"zINSTREAM\0\x7F\xFF\xFF\xFF").await, "INSTREAM size limit exceeded. ERROR\0");
            let path = at("file").display().to_string();
            assert_eq!(ask(&socket, format!("SCAN {path}\n").as_bytes()).await, format!("{path}: Test.Evil FOUND\n"));
            let missing = ask(&socket, b"SCAN /nonexistent\n").await;
            assert!(missing.starts_with("/nonexistent: ") && missing.ends_with(" ERROR\n"), "{missing}");
            let several = ask(&socket, b"zIDSESSION\0zPING\0zVERSION\0zEND\0").await;
            assert!(several.starts_with("1: PONG\x002: Pillarbox"), "{several:?}");
            serving.abort();
        });
        store.close().unwrap();
    }
}
