//! Scanning mail on its way in, within the memory that the board has for it.
//!
//! Most messages are scanned in milliseconds, and a few are large archives that take seconds. So each is
//! scanned quickly first: one message at a time, in little memory, and for no more than a second's work.
//! What meets a limit in that is scanned again with those of the settings, also one at a time, while quick
//! scans of others go on beside it. Whoever waits for a quick scan waits a second for each before him.
//!
//! The compiled set is opened when it is first wanted, and again when another file has taken its place:
//! each scan looks whether it has. One that can't be used leaves the one before at work.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use super::notices::{Notices, Told};
use crate::filter::scan::ReadAt;
use crate::filter::scan::set::Set;
use crate::flow::scan::notice::{Kept, Named};
use crate::flow::scan::policy::{QUARANTINE, SUSPICIOUS};
use crate::flow::scan::rescan::{NOTE, RescanState, Stage};
use crate::flow::scan::{Action, Bench, Findings, SET_FILE, ScanConfig, SpooledObject, mark_of, open_set_within};
use crate::mail::mailbox::{AccountId, MailboxName, SpecialUse};
use crate::mail::message::Keyword;
use crate::mail::scanned::Scanned;
use crate::protocol::smtp::Reply;
use crate::store::{Folder, NewMessage, Store, WriteError};

/// A file as it was when it was opened: device, inode, change in seconds and nanoseconds.
type Mark = (u64, u64, i64, i64);

/// Scans mail.
#[derive(Clone, Debug)]
pub struct Guard(Arc<Post>);

#[derive(Debug)]
struct Post {
    store: Store,
    data: PathBuf,
    config: ScanConfig,
    set: Mutex<Option<(Mark, Option<Arc<Set>>)>>,
    /// The set's number, and how far mail was scanned again with it.
    rescan: Mutex<RescanState>,
    /// There is another set.
    changed: Notify,
    /// One quick scan at a time.
    quick: Semaphore,
    /// One thorough scan at a time.
    thorough: Semaphore,
    /// How many wait for that.
    waiting: AtomicU32,
    notices: Notices,
}

/// How far a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As far as most messages need.
    Quick,
    /// As far as the settings say.
    Thorough,
}

/// Scans that may be at work at one time, each on a thread of its own.
pub(super) const SCANS: usize = 2;

/// Most work of a quick scan.
const QUICK_TIME: Duration = Duration::from_secs(1);

/// Most bytes that a quick scan unpacks.
const QUICK_BYTES: u64 = 16 << 20;

/// The largest dictionary of a quick scan.
const QUICK_DICTIONARY: u32 = 1 << 20;

/// A message that was let through.
#[derive(Debug)]
pub struct Passed {
    /// The message, marked if that was asked for.
    pub message: NewMessage,
    /// Whose mailboxes it goes to.
    pub to: Vec<(AccountId, Folder)>,
    /// It was put aside and goes nowhere else.
    pub aside: bool,
    /// What its recipients are to be told once it is kept.
    pub told: Option<(Told, Vec<AccountId>)>,
}

impl Guard {
    /// Scans by `config`, with the set in the folder `data`; `host` is our own name.
    pub fn new(store: Store, data: &Path, config: ScanConfig, host: Arc<str>) -> Self {
        // A note that can't be read begins anew: mail is scanned once more.
        let note = store.reader().and_then(|reader| reader.note(NOTE)).ok().flatten();
        let state: RescanState = note.and_then(|note| serde_json::from_slice(&note).ok()).unwrap_or_default();
        let notices = Notices::new(store.clone(), host, &config);
        Self(Arc::new(Post {
            store,
            data: data.to_owned(),
            config,
            set: Mutex::default(),
            rescan: Mutex::new(state),
            changed: Notify::new(),
            quick: Semaphore::new(1),
            thorough: Semaphore::new(1),
            waiting: AtomicU32::new(0),
            notices,
        }))
    }

    /// The settings.
    pub fn config(&self) -> &ScanConfig {
        &self.0.config
    }

    /// The data folder.
    pub fn folder(&self) -> &Path {
        &self.0.data
    }

    /// Who tells recipients.
    pub fn notices(&self) -> &Notices {
        &self.0.notices
    }

    /// Scans a message that is to go to `to`, and says what becomes of it.
    ///
    /// # Errors
    /// The reply when it is refused, or can't be scanned now.
    pub async fn pass(&self, message: NewMessage, to: Vec<(AccountId, Folder)>) -> Result<Passed, Reply> {
        let (message, findings) = self.look(message).await?;
        let ruling = self.0.config.rule(&findings);
        if let Some(finding) = &ruling.finding {
            tracing::warn!(finding, action = ?ruling.action, "the scan found something");
        }
        let told = |kept| {
            let finding = ruling.finding.clone().filter(|_| self.0.notices.are_wanted())?;
            Some(Told { about: Named::of(&message.structure), finding, kept })
        };
        let accounts = |to: &[(AccountId, Folder)]| to.iter().map(|(account, _)| *account).collect::<Vec<_>>();
        if let Some(reply) = ruling.refusal() {
            self.tell(told(Kept::Refused).map(|told| (told, accounts(&to)))).await;
            return Err(reply);
        }
        let aside = told(Kept::Aside).filter(|_| ruling.action == Action::Quarantine);
        let told = aside.map(|told| (told, accounts(&to)));
        let mut passed = Passed { message, to, aside: false, told };
        match ruling.action {
            Action::Accept | Action::Reject => {}
            Action::Tag => passed.message.flags.keywords.extend(Keyword::new(SUSPICIOUS)),
            Action::Junk => {
                for (_, folder) in &mut passed.to {
                    *folder = Folder::Special(SpecialUse::Junk);
                }
            }
            Action::Quarantine => {
                let (account, mailbox) = self.aside().await?;
                passed.to = vec![(account, Folder::Named(mailbox))];
                passed.aside = true;
            }
        }
        Ok(passed)
    }

    /// Tells accounts what is to be told, if anything is.
    pub async fn tell(&self, told: Option<(Told, Vec<AccountId>)>) {
        let Some((told, accounts)) = told else { return };
        for pending in self.0.notices.tell(&told, &accounts) {
            if let Err(error) = pending.await {
                tracing::warn!(%error, "a recipient was not told that mail was kept from him");
            }
        }
    }

    async fn look(&self, message: NewMessage) -> Result<(NewMessage, Findings), Reply> {
        let scanned = self.scan_in_turn(message, |guard, message, pace| {
            let (findings, scanned) = guard.scan_mail(pace, &SpooledObject::new(&message.body))?;
            if let Some(scanned) = scanned {
                message.body.set_scanned(scanned);
            }
            Ok(findings)
        });
        scanned.await.map_err(|error| {
            tracing::error!(%error, "a message cannot be scanned");
            Reply::new(451, "4.3.0", "cannot be scanned now: try again later")
        })
    }

    /// Scans something on a working thread when it is its turn, quickly and if need be thoroughly.
    ///
    /// # Errors
    /// Those of `look`, and that the server stops.
    pub(super) async fn scan_in_turn<T: Send + 'static>(
        &self,
        mut thing: T,
        look: fn(&Self, &mut T, Pace) -> io::Result<Findings>,
    ) -> io::Result<(T, Findings)> {
        let mut findings = Findings::default();
        for pace in [Pace::Quick, Pace::Thorough] {
            let places = if pace == Pace::Quick { &self.0.quick } else { &self.0.thorough };
            let _place = {
                // Counted out also when whoever waits is dropped.
                let _waiting = (pace == Pace::Thorough).then(|| Waiting::new(&self.0.waiting));
                places.acquire().await.map_err(io::Error::other)?
            };
            let guard = self.clone();
            let working = tokio::task::spawn_blocking(move || {
                let findings = look(&guard, &mut thing, pace);
                (thing, findings)
            });
            let (back, looked) = working.await.map_err(io::Error::other)?;
            (thing, findings) = (back, looked?);
            if findings.signature.is_some() || findings.report.limit.is_none() {
                break;
            }
        }
        Ok((thing, findings))
    }

    /// Scans something here and now, as far as the settings say.
    ///
    /// # Errors
    /// Those of its medium and of the temporary files.
    pub fn scan(&self, object: &dyn ReadAt, name: &str, is_message: bool) -> io::Result<Findings> {
        self.scan_at(Pace::Thorough, object, name, is_message)
    }

    /// Scans something here and now.
    ///
    /// # Errors
    /// Those of its medium and of the temporary files.
    pub(super) fn scan_at(
        &self,
        pace: Pace,
        object: &dyn ReadAt,
        name: &str,
        is_message: bool,
    ) -> io::Result<Findings> {
        let set = self.set();
        if set.is_none() && !self.0.config.acts_without_signatures() {
            return Ok(Findings::default());
        }
        self.bench(pace, set.as_deref()).scan(object, name, is_message)
    }

    /// Scans a message on its way in, and notes what later signatures can be held against.
    fn scan_mail(&self, pace: Pace, object: &dyn ReadAt) -> io::Result<(Findings, Option<Scanned>)> {
        let Some(set) = self.set().filter(|_| self.0.config.rescan_days > 0) else {
            return Ok((self.scan_at(pace, object, "message", true)?, None));
        };
        // Of two sets that came meanwhile it counts as scanned with the older.
        let number = Some(self.lock_rescan()).filter(|state| state.mark == set.mark()).map_or(0, |state| state.set);
        let (findings, prints) = self.bench(pace, Some(&set)).scan_and_print(object)?;
        Ok((findings, Some(Scanned { set: number, whole: prints.whole, prints: prints.prints })))
    }

    fn bench<'b>(&'b self, pace: Pace, set: Option<&'b Set>) -> Bench<'b> {
        let mut limits = self.0.config.limits_of_unpacking();
        let mut time = Duration::from_secs(self.0.config.time_max_secs.into());
        if pace == Pace::Quick {
            (limits.bytes, limits.dictionary) = (limits.bytes.min(QUICK_BYTES), QUICK_DICTIONARY);
            time = time.min(QUICK_TIME);
        }
        Bench { set, limits, time, clock: &work_time, folder: &self.0.data }
    }

    /// The place of thorough scans, if nobody has it and nobody waits for it.
    pub(super) fn try_place(&self) -> Option<SemaphorePermit<'_>> {
        self.0.thorough.try_acquire().ok().filter(|_| !self.is_wanted())
    }

    /// Tells whether somebody has that place.
    #[cfg(test)]
    pub(super) fn is_taken(&self) -> bool {
        self.0.thorough.available_permits() == 0
    }

    /// Tells whether somebody waits for the place of thorough scans.
    pub(super) fn is_wanted(&self) -> bool {
        self.0.waiting.load(Ordering::Relaxed) > 0
    }

    fn lock_rescan(&self) -> std::sync::MutexGuard<'_, RescanState> {
        self.0.rescan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far mail was scanned again; `None` where that is turned off.
    pub fn rescan_state(&self) -> Option<RescanState> {
        (self.0.config.rescan_days > 0).then(|| self.lock_rescan().clone())
    }

    /// The set whose round is under way, and where it is.
    pub(super) fn round(&self) -> Option<(Arc<Set>, RescanState)> {
        let held = self.0.set.lock().unwrap_or_else(PoisonError::into_inner);
        let set = held.as_ref().and_then(|(_, set)| set.clone())?;
        drop(held);
        let state = self.rescan_state()?;
        (state.stage != Stage::Done && state.mark == set.mark()).then_some((set, state))
    }

    /// Notes how far a round is, and `along` with other changes also in the store; false when it is the
    /// round of a set that is not at work any more.
    pub(super) fn note_round(&self, state: &RescanState, along: bool) -> bool {
        let mut known = self.lock_rescan();
        if (known.set, known.mark) != (state.set, state.mark) {
            return false;
        }
        *known = state.clone();
        if let (true, Ok(note)) = (along, serde_json::to_vec(state)) {
            // Without its note the round is gone over again.
            drop(self.0.store.put_note_along(NOTE, note));
        }
        true
    }

    /// Opens the set where it came while the server was off, or where its round is not over.
    pub(super) fn resume(&self) {
        let Ok(mark) = mark_of(&self.0.data.join(SET_FILE)) else { return };
        let done = Some(self.lock_rescan()).is_some_and(|state| state.mark == mark && state.stage == Stage::Done);
        if !done {
            self.set();
            self.0.changed.notify_one();
        }
    }

    /// Resolves when there is another set.
    pub(super) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Gives the next number to a set that was not known.
    fn number(&self, set: &Set) {
        if self.0.config.rescan_days == 0 {
            return;
        }
        let mut known = self.lock_rescan();
        let state = known.clone().with(set.mark());
        if state == *known {
            return;
        }
        *known = state;
        if let Ok(note) = serde_json::to_vec(&*known) {
            // Before any message that is scanned with the set, or two sets might have one number after a
            // power cut.
            drop(self.0.store.put_note(NOTE, note));
        }
        self.0.changed.notify_one();
    }

    /// The set as it is now.
    pub(super) fn set(&self) -> Option<Arc<Set>> {
        let path = self.0.data.join(SET_FILE);
        let mut held = self.0.set.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(meta) = fs::metadata(&path) else {
            *held = None;
            return None;
        };
        let mark = (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec());
        if let Some((_, set)) = held.as_ref().filter(|(before, _)| *before == mark) {
            return set.clone();
        }
        let set = match open_set_within(&path, self.0.config.memory_max_bytes) {
            Ok(set) => {
                let counts = set.header().counts;
                tracing::info!(hashes = counts.hashes, patterns = counts.patterns, "signatures taken");
                self.number(&set);
                Some(Arc::new(set))
            }
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "the signatures stay as they were");
                held.take().and_then(|(_, set)| set)
            }
        };
        *held = Some((mark, set.clone()));
        set
    }

    /// Where mail is put aside.
    async fn aside(&self) -> Result<(AccountId, MailboxName), Reply> {
        let later = || Reply::new(451, "4.3.0", "cannot be put aside now: try again later");
        let account = self.0.store.reader().ok().and_then(|reader| self.0.config.quarantine(&reader).ok()?);
        let (Some(account), Some(mailbox)) = (account, MailboxName::new(QUARANTINE)) else {
            tracing::error!("scan.quarantine-account leads to no account");
            return Err(later());
        };
        match self.0.store.create_mailbox(account, mailbox.clone(), None).await {
            Ok(_) | Err(WriteError::Exists) => Ok((account, mailbox)),
            Err(error) => {
                tracing::error!(?error, "the mailbox for what is put aside cannot be made");
                Err(later())
            }
        }
    }
}

/// One who waits for the place.
struct Waiting<'w>(&'w AtomicU32);

impl<'w> Waiting<'w> {
    fn new(count: &'w AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The time that this thread has worked.
pub fn work_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::filter::scan::unpack::{Limit, Report};
    use crate::mail::date::{Timestamp, ZonedTime};
    use crate::mail::message::FlagNames;
    use crate::mail::structure::Walker;
    use crate::store::StoreConfig;

    /// Something to scan that tells when its thorough scan begins and lets it end when it is told so.
    type Gate = (mpsc::Sender<()>, Mutex<mpsc::Receiver<()>>);

    fn met(limit: Option<Limit>) -> Findings {
        Findings { signature: None, report: Report { limit, ..Report::default() } }
    }

    #[test]
    fn a_long_scan_keeps_no_other_waiting_and_two_long_ones_are_not_at_work_together() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &StoreConfig::default()).unwrap();
        let guard = Guard::new(store.clone(), folder.path(), ScanConfig::default(), Arc::from("mail.x.test"));
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(SCANS).build().unwrap();
        let long = |_: &Guard, gate: &mut Gate, pace: Pace| {
            if pace == Pace::Thorough {
                gate.0.send(()).unwrap();
                gate.1.lock().unwrap().recv().unwrap();
                return Ok(met(None));
            }
            Ok(met(Some(Limit::Bytes)))
        };
        runtime.block_on(async {
            let (begun, begins) = mpsc::channel();
            let mut gates = Vec::new();
            let mut scans = Vec::new();
            for _ in 0..2 {
                let (open, gate) = mpsc::channel();
                let (guard, thing) = (guard.clone(), (begun.clone(), Mutex::new(gate)));
                scans.push(tokio::spawn(async move { guard.scan_in_turn(thing, long).await.map(|(_, found)| found) }));
                gates.push(open);
            }
            while begins.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
            for _ in 0..3 {
                let ((), findings) = guard
                    .scan_in_turn((), |_, (), pace| {
                        assert_eq!(pace, Pace::Quick);
                        Ok(met(None))
                    })
                    .await
                    .unwrap();
                assert_eq!(findings, Findings::default());
            }
            assert!(begins.try_recv().is_err(), "the second waits for the first");
            for open in gates {
                open.send(()).unwrap();
            }
            for scan in scans {
                assert_eq!(scan.await.unwrap().unwrap().report.limit, None, "what the thorough scan says counts");
            }
        });
        drop(runtime);
        drop((guard, store));
    }

    #[test]
    fn mail_that_cannot_be_unpacked_for_want_of_room_is_to_come_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), &StoreConfig::default()).unwrap();
        // A folder that is not there takes no temporary files, as a disk that is full takes none.
        let guard =
            Guard::new(store.clone(), &folder.path().join("gone"), ScanConfig::default(), Arc::from("mail.x.test"));
        let letter = |bytes: usize| {
            let head = b"Content-Type: multipart/mixed; boundary=q\r\n\r\n--q\r\nContent-Type: image/png\r\n\r\n";
            let body =
                [head.as_slice(), &b"noise in lines of thirty bytes\r\n".repeat(bytes / 32), b"--q--\r\n"].concat();
            let mut walker = Walker::new();
            walker.feed(&body);
            let mut spool = store.spool().unwrap();
            spool.write(&body).unwrap();
            NewMessage {
                body: spool.finish().unwrap(),
                structure: walker.finish(),
                internal_date: ZonedTime { at: Timestamp(1_000_000), offset_mins: 0 },
                flags: FlagNames::default(),
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(SCANS).build().unwrap();
        let refusal = runtime.block_on(guard.pass(letter(1 << 20), Vec::new())).unwrap_err();
        assert_eq!(refusal.to_string(), "451 4.3.0 cannot be scanned now: try again later");
        assert!(runtime.block_on(guard.pass(letter(1 << 10), Vec::new())).is_ok(), "what is small needs no file");
    }
}
