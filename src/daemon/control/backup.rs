//! The server's side of `pillarbox backup`: rows as frames over the control socket. Compressing and
//! encrypting are the command's work, in its own process.

use std::io::{self, BufWriter, Write as _};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::flow::backup::{Job, Since, Wire};
use crate::store::Store;

/// Stack of the thread that sends.
const STACK_BYTES: usize = 512 << 10;

/// Bytes gathered before they are sent: a batch of rows with its frame.
const BUFFER_BYTES: usize = 68 << 10;

/// How long a command may take none: a memory stick that writes its cache out is slow, but the
/// store's file grows while it is waited for.
const PATIENCE: Duration = Duration::from_mins(10);

/// How far the thread stands back behind the ones that serve (in steps of `nice`; the kernel's choice
/// among those who wait for the disk follows it).
const NICENESS: i32 = 10;

/// Begins a backup.
pub(super) async fn begin(store: Store, since: Option<String>) -> Result<Job, String> {
    let since = since.as_deref().map(Since::parse);
    let begun = tokio::task::spawn_blocking(move || Job::begin(&store, since.as_ref())).await;
    begun.map_err(|_| "the server is stopping")?.map_err(|error| error.to_string())
}

/// Sends it on a thread of its own: it lasts too long for the few threads that all share.
pub(super) async fn send(stream: UnixStream, job: Job) -> io::Result<()> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (done, ended) = oneshot::channel();
    let work = move || {
        // On Linux that is this thread's alone. Where it is refused, the backup is merely in the way.
        let _ = rustix::process::nice(NICENESS);
        let mut wire = Wire(BufWriter::with_capacity(BUFFER_BYTES, stream));
        let sent = job.run(&mut wire).and_then(|()| wire.0.flush());
        // Nobody waits any more when the server is stopping.
        let _ = done.send(sent);
    };
    std::thread::Builder::new().name("backup".into()).stack_size(STACK_BYTES).spawn(work)?;
    ended.await.unwrap_or(Ok(()))
}
