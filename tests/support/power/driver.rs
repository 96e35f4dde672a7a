//! Drives a store on a medium and notes at which moment what was promised.
//!
//! Commands go in rounds. A round is sent while the writer is held at the medium, and ends when all
//! is answered, staged and swept; only then the store is looked at. So a recording is the same in
//! every run of its seed, and yet the commands of a burst become a group. An answer is noted by the
//! thread that gives it, under the lock of the log: at that very moment all of it must be durable.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use pillarbox::store::check::{CheckOptions, CheckProgress, CheckStop, CheckWatch, Finding};
use pillarbox::store::compact::CompactStart;
use pillarbox::store::{Store, StoreConfig, WriteError};

use super::command::{Coming, Command, Reply};
use super::cut::Log;
use super::dice::Dice;
use super::judge::{Failure, Kind, Known, judge, rises, wrong};
use super::learning::{self, Learned, Pieces};
use super::letter::Print;
use super::medium::{Files, Medium, PATIENCE};
use super::model::{Facts, State};
use super::view::{Bodies, View, view};

/// What a store must show after a cut.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    /// What it may hold: what was acknowledged, and with each further state one more command that
    /// was under way, in their order.
    pub(crate) may_be: Vec<Known>,
    /// Numbers of mailboxes.
    facts: Arc<Facts>,
    /// How the store looked when somebody last looked.
    shown: Option<Arc<View>>,
    /// The highest modification sequence ever shown.
    ceiling: u64,
    /// Bodies that were shown under a number.
    bodies: Arc<HashMap<u64, Print>>,
    /// What was learnt.
    learned: Learned,
}

impl Promise {
    /// Of a folder without a store.
    pub(crate) fn nothing() -> Self {
        Self::of(State::default(), Facts::new(), 0)
    }

    /// Of a store with exactly this in it.
    pub(crate) fn of(state: State, facts: Facts, ceiling: u64) -> Self {
        let known = Known { state: Arc::new(state), view: None };
        Self {
            may_be: vec![known],
            facts: Arc::new(facts),
            shown: None,
            ceiling,
            bodies: Arc::default(),
            learned: Learned::new(),
        }
    }
}

/// A state and the moments at which its command was sent and answered.
#[derive(Debug)]
struct Step {
    sent: usize,
    answered: usize,
    known: Known,
}

/// A look at the store and its moment.
#[derive(Debug)]
struct Look {
    at: usize,
    view: Arc<View>,
    ceiling: u64,
}

/// Something happened to what was learnt.
#[derive(Debug)]
struct Lesson {
    sent: usize,
    answered: usize,
    what: What,
}

#[derive(Debug)]
enum What {
    Saved(u32, Vec<(u16, Vec<u8>)>),
    Forgotten(u32),
    /// The store was closed: everything is durable.
    Closed,
}

/// What may be left of what was learnt, after a cut at `position`.
fn learned_at(start: &Learned, lessons: &[Lesson], position: usize) -> Learned {
    let mut learned = start.clone();
    for lesson in lessons.iter().filter(|lesson| lesson.sent <= position) {
        let durable = lesson.answered <= position;
        match &lesson.what {
            What::Saved(who, pieces) => learning::save(&mut learned, *who, pieces),
            What::Forgotten(who) if durable => drop(learned.insert(*who, vec![Pieces::new()])),
            What::Forgotten(who) => learned.entry(*who).or_default().push(Pieces::new()),
            What::Closed if durable => learning::only_last(&mut learned),
            What::Closed => {}
        }
    }
    learned
}

/// What a driver leaves: the log to cut, and what was promised at each moment.
#[derive(Debug)]
pub(crate) struct Recording {
    pub(crate) log: Log,
    /// What held before the store was open.
    before: Promise,
    opened: usize,
    steps: Vec<Step>,
    looks: Vec<Look>,
    facts: Arc<Facts>,
    /// What was learnt before the store was opened, as it was found then.
    learned: Learned,
    lessons: Vec<Lesson>,
}

impl Recording {
    /// What a store must show after a cut at `position`.
    pub(crate) fn promise(&self, position: usize) -> Promise {
        if position < self.opened {
            return self.before.clone();
        }
        let answered = self.steps.partition_point(|step| step.answered <= position).max(1);
        let sent = self.steps.partition_point(|step| step.sent <= position).max(answered);
        let looks = &self.looks[..self.looks.partition_point(|look| look.at <= position)];
        let mut bodies = HashMap::clone(&self.before.bodies);
        bodies.extend(looks.iter().flat_map(|look| look.view.bodies()));
        let last = looks.last();
        Promise {
            may_be: self.steps[answered - 1..sent].iter().map(|step| step.known.clone()).collect(),
            facts: self.facts.clone(),
            shown: last.map(|look| look.view.clone()).or_else(|| self.before.shown.clone()),
            ceiling: last.map_or(self.before.ceiling, |look| look.ceiling),
            bodies: Arc::new(bodies),
            learned: learned_at(&self.learned, &self.lessons, position),
        }
    }
}

/// A store being driven.
pub(crate) struct Driver {
    pub(crate) store: Store,
    pub(crate) medium: Medium,
    pub(crate) dice: Dice,
    config: StoreConfig,
    before: Promise,
    opened: usize,
    steps: Vec<Step>,
    looks: Vec<Look>,
    facts: Arc<Facts>,
    learned: Learned,
    lessons: Vec<Lesson>,
    /// Bodies read by looks that need not be thorough.
    read: Bodies,
    /// Read everything again at every look.
    pub(crate) thorough: bool,
}

/// Notes when a command is answered, and wakes the driver.
#[derive(Debug)]
struct Bell {
    medium: Medium,
    /// Position and order of the answer, plus one; zero before it.
    position: AtomicUsize,
    order: AtomicUsize,
    driver: Thread,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        let (position, order) = self.medium.answered();
        self.order.store(order, Ordering::Release);
        self.position.store(position + 1, Ordering::Release);
        self.medium.nudge();
        self.driver.unpark();
    }
}

/// A command under way.
struct Sent {
    command: Command,
    at: usize,
    coming: Coming,
    bell: Arc<Bell>,
    reply: Option<Result<Reply, WriteError>>,
}

impl Sent {
    fn poll(&mut self) {
        let waker = Waker::from(self.bell.clone());
        if self.reply.is_none()
            && let Poll::Ready(reply) = self.coming.as_mut().poll(&mut Context::from_waker(&waker))
        {
            if self.bell.position.load(Ordering::Acquire) == 0 {
                self.bell.clone().wake();
            }
            self.reply = Some(reply);
        }
    }

    fn is_answered(&self) -> bool {
        self.bell.position.load(Ordering::Acquire) > 0
    }
}

/// What a check of the store finds.
#[derive(Default)]
struct Findings(Vec<String>);

impl CheckWatch for Findings {
    fn progress(&mut self, _: &CheckProgress) {}

    fn found(&mut self, finding: &Finding) {
        self.0.push(finding.to_string());
    }

    fn repaired(&mut self, _: &Finding, _: &str) {}
}

impl Driver {
    /// Opens the store on these files and compares it with what was promised. The medium keeps
    /// what happens when that fails.
    pub(crate) fn open(medium: &Medium, config: &StoreConfig, promise: &Promise, dice: Dice) -> Result<Self, Failure> {
        let unopenable = |what: String| Failure { kind: Kind::Unopenable, what };
        // The writer begins to sweep at once; what it does must not come before the mark.
        medium.hold();
        let opened = Store::open_on(Arc::new(medium.clone()), config);
        let at = medium.position();
        medium.release();
        let store = opened.map_err(|error| unopenable(error.to_string()))?;
        let mut driver = Self {
            store,
            medium: medium.clone(),
            dice,
            config: config.clone(),
            before: promise.clone(),
            opened: at,
            steps: Vec::new(),
            looks: Vec::new(),
            facts: promise.facts.clone(),
            learned: promise.learned.clone(),
            lessons: Vec::new(),
            read: Bodies::new(),
            thorough: true,
        };
        let shown = driver.look(&promise.may_be)?;
        let found = judge(&shown, &promise.may_be, &promise.facts)?;
        driver.check()?;
        driver.compare_with_shown(&shown)?;
        learning::compare(&driver.store, &mut driver.learned).map_err(wrong)?;
        let state = promise.may_be[found].state.clone();
        // Mailboxes that were not yet made have other numbers when they are made again.
        let facts = Arc::make_mut(&mut driver.facts);
        facts.retain(|birth, _| *birth <= state.births);
        driver.steps.push(Step { sent: 0, answered: at, known: Known { state, view: None } });
        driver.shown(shown)?;
        Ok(driver)
    }

    /// What is there now.
    pub(crate) fn state(&self) -> &State {
        &self.steps.last().expect("the state at opening").known.state
    }

    /// The number of the mailbox that was born so.
    pub(crate) fn number(&self, birth: u32) -> u32 {
        self.facts.get(&birth).map_or(u32::MAX, |(id, _)| *id)
    }

    /// The highest modification sequence shown.
    pub(crate) fn ceiling(&self) -> u64 {
        self.looks.last().map_or(self.before.ceiling, |look| look.ceiling)
    }

    /// Does one command.
    pub(crate) fn one(&mut self, command: Command) -> Result<(), Failure> {
        self.round(vec![command])
    }

    /// Sends commands at once; the first must change something. All but the first become groups.
    pub(crate) fn round(&mut self, commands: Vec<Command>) -> Result<(), Failure> {
        self.medium.tick(1);
        self.medium.hold();
        let mut round: Vec<Sent> = Vec::with_capacity(commands.len());
        let many = commands.len() > 1;
        for mut command in commands {
            let at = self.medium.position();
            let coming = command.send(&self.store);
            let bell = Bell {
                medium: self.medium.clone(),
                position: AtomicUsize::new(0),
                order: AtomicUsize::new(0),
                driver: thread::current(),
            };
            let mut sent = Sent { command, at, coming, bell: Arc::new(bell), reply: None };
            sent.poll();
            if many && round.is_empty() {
                self.medium.wait_for_somebody(&|| sent.is_answered());
            }
            round.push(sent);
        }
        self.medium.release();
        for sent in &mut round {
            while !sent.is_answered() {
                thread::park_timeout(PATIENCE);
            }
            sent.poll();
        }
        round.sort_by_key(|sent| sent.bell.order.load(Ordering::Acquire));
        self.conclude(round)
    }

    /// Makes states of what was answered, and looks whether the store shows the last of them.
    fn conclude(&mut self, round: Vec<Sent>) -> Result<(), Failure> {
        for sent in round {
            let answered = sent.bell.position.load(Ordering::Acquire) - 1;
            match sent.reply.ok_or_else(|| wrong("an answer that does not come".to_owned()))? {
                Ok(reply) => {
                    self.note_lesson(&sent.command, sent.at, answered);
                    let state = self.state().after(&sent.command, &reply, &self.facts).map_err(wrong)?;
                    let known = Known { state: Arc::new(state), view: None };
                    self.steps.push(Step { sent: sent.at, answered, known });
                }
                Err(error @ (WriteError::Storage(_) | WriteError::Closed | WriteError::DiskFull)) => {
                    return Err(wrong(format!("a sound disk, and yet: {error}")));
                }
                // Refused, as by a quota: nothing changes.
                Err(_) => {}
            }
        }
        self.settle()
    }

    /// Has the store check itself, to the last piece.
    fn check(&self) -> Result<(), Failure> {
        let options = CheckOptions { bodies: true, ..CheckOptions::quick() };
        let mut findings = Findings::default();
        let report = self.store.check(&options, &CheckStop::default(), &mut findings);
        let report = report.map_err(|error| wrong(format!("the store can't be checked: {error}")))?;
        if report.is_sound() { Ok(()) } else { Err(wrong(format!("check-store: {:?} {report:?}", findings.0))) }
    }

    fn note_lesson(&mut self, command: &Command, sent: usize, answered: usize) {
        let number = |learner: Option<u32>| learner.map_or(0, |account| account + 1);
        let what = match command {
            Command::Learn { learner, pieces } => What::Saved(number(*learner), pieces.clone()),
            Command::Forget { learner } => What::Forgotten(number(*learner)),
            Command::RemoveAccount { account } => What::Forgotten(number(Some(*account))),
            _ => return,
        };
        self.lessons.push(Lesson { sent, answered, what });
    }

    /// Waits until the writer is done with everything, and looks.
    pub(crate) fn settle(&mut self) -> Result<(), Failure> {
        let last = self.steps.last().map(|step| step.known.clone()).into_iter().collect::<Vec<_>>();
        let shown = self.look(&last)?;
        judge(&shown, &last, &self.facts)?;
        self.check()?;
        let mut learned = learned_at(&self.learned, &self.lessons, usize::MAX);
        learning::only_last(&mut learned);
        learning::compare(&self.store, &mut learned).map_err(wrong)?;
        let before = self.looks.last().map(|look| look.view.clone());
        if let Some(before) = before {
            rises(&before, &shown, self.ceiling()).map_err(wrong)?;
        }
        self.shown(shown)
    }

    /// Waits for quiet and reads everything.
    fn look(&mut self, known: &[Known]) -> Result<View, Failure> {
        self.store.settled().wait().map_err(|error| wrong(format!("it does not settle: {error}")))?;
        let mut names = known.iter().flat_map(|known| known.state.notes.keys()).collect::<Vec<_>>();
        names.sort();
        names.dedup();
        let last = self.looks.last().filter(|_| !self.thorough);
        let earlier = last.map(|look| (&*look.view, &mut self.read));
        view(&self.store, names.into_iter().map(String::as_str), earlier).map_err(wrong)
    }

    /// What was shown before the cut: nothing of it may go back.
    fn compare_with_shown(&self, now: &View) -> Result<(), Failure> {
        if let Some(before) = &self.before.shown {
            rises(before, now, self.before.ceiling).map_err(wrong)?;
        }
        Ok(())
    }

    /// Notes what somebody saw.
    fn shown(&mut self, view: View) -> Result<(), Failure> {
        for (blob, print) in view.bodies() {
            if self.before.bodies.get(&blob).is_some_and(|before| *before != print) {
                return Err(wrong(format!("body number {blob} was another body's")));
            }
        }
        let state = self.steps.last().map(|step| step.known.state.clone()).unwrap_or_default();
        let facts = Arc::make_mut(&mut self.facts);
        for folder in view.folders.iter().map(|folder| &folder.head) {
            let Some(known) = state.folders.get(&(folder.account, folder.name.clone())) else { continue };
            let seen = (folder.id, folder.validity);
            if facts.contains_key(&known.birth) {
                continue;
            }
            if facts.values().any(|(id, validity)| *id == seen.0 || *validity == seen.1) {
                return Err(wrong(format!("number or UIDVALIDITY of {} was another mailbox's", folder.name)));
            }
            facts.insert(known.birth, seen);
        }
        let ceiling = self.ceiling().max(view.highest());
        let view = Arc::new(view);
        if let Some(step) = self.steps.last_mut() {
            step.known.view = Some(view.clone());
        }
        self.looks.push(Look { at: self.medium.position(), view, ceiling });
        Ok(())
    }

    /// Closes the store and opens it again.
    pub(crate) fn reopen(&mut self) -> Result<(), Failure> {
        let sent = self.medium.position();
        self.close()?;
        self.lessons.push(Lesson { sent, answered: self.medium.position(), what: What::Closed });
        self.medium.hold();
        let opened = Store::open_on(Arc::new(self.medium.clone()), &self.config);
        self.medium.release();
        self.store = opened.map_err(|error| Failure { kind: Kind::Unopenable, what: error.to_string() })?;
        self.settle()
    }

    /// Compacts the index, whatever is gained.
    pub(crate) fn compact(&mut self) -> Result<(), Failure> {
        let begun = self.store.compact(true).wait();
        if begun != Ok(CompactStart::Begun) {
            return Err(wrong(format!("it is not compacted: {begun:?}")));
        }
        while self.store.compaction().running {
            thread::yield_now();
        }
        match self.store.compaction().failure {
            None => self.settle(),
            Some(why) => Err(wrong(format!("it is not compacted: {why}"))),
        }
    }

    /// Leaves the store as it is: the disk is gone, and the writer ends by itself.
    pub(crate) fn abandon(self) {
        self.medium.take_away();
    }

    /// Closes the store.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        self.store.close().map_err(|error| wrong(format!("it does not close: {error}")))
    }

    /// Ends the recording where it is.
    pub(crate) fn finish(self) -> Recording {
        let (start, events) = self.medium.take_log();
        self.medium.take_away();
        Recording {
            log: Log::new(start, events),
            before: self.before,
            opened: self.opened,
            steps: self.steps,
            looks: self.looks,
            facts: self.facts,
            learned: self.learned,
            lessons: self.lessons,
        }
    }

    /// The files and what holds for them now: for a recording that begins here.
    pub(crate) fn into_start(self) -> (Files, Promise) {
        let files = self.medium.files();
        let promise = self.finish().promise(usize::MAX);
        (files, promise)
    }
}
