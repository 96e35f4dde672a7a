//! Sockets for other programs of this machine: bound over what a server before left behind, served to few
//! at one time, gone with the server. The control socket and the scan socket are two of them.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Connections served at one time; the others wait.
pub const CONNECTIONS_MAX: usize = 4;

/// Wait before the next try when a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Longest path the kernel takes for a socket, with room to spare (108 bytes with its NUL).
const SOCKET_PATH_MAX: usize = 100;

/// A local socket, bound.
#[derive(Debug)]
pub struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl LocalSocket {
    /// Binds the socket with these permissions; a stale one, on which nobody listens, is replaced. Needs a reactor.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] when another server listens there, else the system's.
    pub fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        let address = SocketPath::of(path)?;
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            if BlockingStream::connect(address.as_path()).is_ok() {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(address.as_path())?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until dropped; connections end with it. `attend` does one connection.
    pub async fn serve<Attending>(&self, attend: impl Fn(UnixStream) -> Attending)
    where
        Attending: Future<Output = io::Result<()>> + Send + 'static,
    {
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let Ok(permit) = permits.clone().acquire_owned().await else { return };
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (attending, socket) = (attend(stream), self.path.clone());
                    connections.spawn(async move {
                        if let Err(error) = attending.await {
                            tracing::debug!(%error, socket = %socket.display(), "a local connection broke");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, socket = %self.path.display(), "a local socket did not accept");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        // Left behind it would do no harm: the next server replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

/// The path under which the kernel takes a socket: a deep folder would make it too long, so it is then
/// named by way of the open folder.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    _folder: Option<File>,
}

impl SocketPath {
    /// The path for the socket at `path`.
    ///
    /// # Errors
    /// When the path is long and its folder cannot be opened.
    pub fn of(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name), true) =
            (path.parent(), path.file_name(), path.as_os_str().len() > SOCKET_PATH_MAX)
        else {
            return Ok(Self { path: path.to_owned(), _folder: None });
        };
        let open = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd())).join(name);
        Ok(Self { path, _folder: Some(open) })
    }

    /// The path, good as long as this lives.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.path
    }
}
