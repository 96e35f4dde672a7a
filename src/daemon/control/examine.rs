//! `check-store` over the control socket, or on a store that the command has opened itself: the
//! same run tells the same events, one JSON object a line.
//!
//! Beside a running server it works on a thread of its own with the lowest priority and reads within
//! a budget; it ends when whoever asked goes away or the server stops.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use crate::store::Store;
use crate::store::check::{CheckOptions, CheckProgress, CheckStop, CheckWatch, Finding, Report};

/// Longest event in bytes, its LF included.
pub const EVENT_LINE_MAX: usize = 64 << 10;

/// What a check beside a server reads in a second, in bytes: half of what a good card gives.
const BYTES_PER_SECOND: u64 = 8 << 20;

/// Time between two tellings of the progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// Stack of the checking thread: the part walker and redb's trees.
const STACK_BYTES: usize = 512 << 10;

/// The lowest priority.
const NICE: i32 = 19;

/// What `check-store` is asked to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Examination {
    /// Set right what can be.
    pub repair: bool,
    /// Take every message apart again.
    pub deep: bool,
    /// Leave out bodies and pages.
    pub quick: bool,
}

impl Examination {
    fn options(self, shared: bool) -> CheckOptions {
        let all = if self.quick { CheckOptions::quick() } else { CheckOptions::full() };
        let bytes_per_second = shared.then_some(BYTES_PER_SECOND);
        CheckOptions { repair: self.repair, deep: self.deep, shared, bytes_per_second, ..all }
    }
}

/// What a check tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum CheckEvent {
    /// So far.
    Progress {
        /// How far.
        progress: CheckProgress,
    },
    /// Something is wrong.
    Found {
        /// What.
        finding: Finding,
        /// The same as a sentence.
        text: String,
    },
    /// Something was wrong and is set right.
    Repaired {
        /// What.
        finding: Finding,
        /// The same as a sentence.
        text: String,
        /// How it was set right.
        what: String,
    },
    /// The end.
    Done {
        /// What it came to.
        report: Report,
    },
    /// It could not be done; also an end.
    Failed {
        /// Why, as one sentence without its full stop.
        reason: String,
    },
}

/// Hands events on.
struct Teller<'t> {
    tell: &'t mut dyn FnMut(CheckEvent) -> io::Result<()>,
    stop: &'t CheckStop,
    told: Option<Instant>,
}

impl Teller<'_> {
    fn tell(&mut self, event: CheckEvent) {
        // Whoever asked is gone: nobody waits for the rest.
        if (self.tell)(event).is_err() {
            self.stop.stop();
        }
    }
}

impl CheckWatch for Teller<'_> {
    fn progress(&mut self, progress: &CheckProgress) {
        if self.told.is_none_or(|told| told.elapsed() >= PROGRESS_EVERY) {
            self.told = Some(Instant::now());
            self.tell(CheckEvent::Progress { progress: *progress });
        }
    }

    fn found(&mut self, finding: &Finding) {
        self.tell(CheckEvent::Found { finding: finding.clone(), text: finding.to_string() });
    }

    fn repaired(&mut self, finding: &Finding, what: &str) {
        let (text, what) = (finding.to_string(), what.to_owned());
        self.tell(CheckEvent::Repaired { finding: finding.clone(), text, what });
    }
}

/// Checks a store and tells events, [`CheckEvent::Done`] or [`CheckEvent::Failed`] last. `shared`
/// says that others use it meanwhile. Blocks.
pub fn examine(
    store: &Store,
    examination: Examination,
    shared: bool,
    stop: &CheckStop,
    tell: &mut dyn FnMut(CheckEvent) -> io::Result<()>,
) {
    let mut teller = Teller { tell, stop, told: None };
    let event = match store.check(&examination.options(shared), stop, &mut teller) {
        Ok(report) => CheckEvent::Done { report },
        Err(error) => CheckEvent::Failed { reason: error.to_string() },
    };
    teller.tell(event);
}

/// Stops a check when whoever waits for it is dropped.
pub(in crate::daemon) struct StopOnDrop(pub(in crate::daemon) CheckStop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Runs work on a thread of its own with the lowest priority.
///
/// # Errors
/// When there can be no thread, or it ended without an answer.
pub(in crate::daemon) async fn quietly<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (done, ended) = oneshot::channel();
    let work = move || {
        // Without the right to it the work goes on at the common priority.
        let _ = rustix::process::nice(NICE);
        // Nobody waits any more when the server is stopping.
        let _ = done.send(work());
    };
    std::thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(work)?;
    ended.await.map_err(|_| io::ErrorKind::Interrupted.into())
}

/// Serves a check on a connection.
pub(super) async fn serve(stream: UnixStream, store: Store, examination: Examination) -> io::Result<()> {
    let mut stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    let guard = StopOnDrop(CheckStop::default());
    let stop = guard.0.clone();
    let work = move || {
        examine(&store, examination, true, &stop, &mut |event| {
            let mut line = serde_json::to_vec(&event).map_err(io::Error::other)?;
            line.push(b'\n');
            stream.write_all(&line)
        });
    };
    quietly("check", work).await
}
