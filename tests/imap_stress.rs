//! Many IMAP clients at once on few mailboxes, doing at random what clients do. Each keeps a model of
//! its mailbox as the server's words make it, and every word must fit: no EXPUNGE where numbers are
//! spoken of, no number beyond the last message, no uid in another's place. In the end, when all is
//! quiet, every model must be what a client finds that has just come. Some of them are of another user, with
//! whom all these mailboxes are shared.
//!
//! Sessions run interleaved at every question they ask the store, on the real answers, without
//! sockets. `STRESS_SECS=600 cargo test --release --test imap_stress` runs for ten minutes, and
//! `STRESS_SEED` repeats a run as far as threads allow.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pillarbox::daemon::login::Doorway;
use pillarbox::daemon::serve_imap::ImapAnswers;
use pillarbox::daemon::teacher::Teacher;
use pillarbox::flow::access::lockout::LoginConfig;
use pillarbox::flow::judge::{Filter, SpamConfig};
use pillarbox::mail::address::Address;
use pillarbox::mail::mailbox::MailboxName;
use pillarbox::mail::rights::{Identifier, Rights, RightsMode};
use pillarbox::mail::secret::{Password, ScramVerifier};
use pillarbox::net::drive::Answers as _;
use pillarbox::protocol::imap::{ImapConfig, Session, Site};
use pillarbox::protocol::{Notice, Session as _, Step};
use pillarbox::store::{Quota, Store, StoreConfig};

const CLIENTS: u64 = 12;
/// Commands of each client, however slow the machine.
const COMMANDS_MIN: u64 = 40;
const MAILBOXES: [&str; 3] = ["INBOX", "Archive", "Trash"];
const FLAGS: [&str; 6] = ["\\Seen", "\\Flagged", "\\Answered", "\\Deleted", "$one", "$two"];

#[test]
fn every_view_is_what_the_server_said_and_in_the_end_what_is_there() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    live_together(CLIENTS, &MAILBOXES, number("STRESS_SECS").unwrap_or(2), number("STRESS_SEED").unwrap_or(1));
}

#[test]
fn a_hundred_sessions_on_one_mailbox_agree() {
    live_together(100, &["INBOX"], 1, 7);
}

/// So many clients on these mailboxes for so many seconds: in the end each must know what is there.
fn live_together(count: u64, mailboxes: &'static [&'static str], seconds: u64, seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), &StoreConfig { reserve_bytes: 0, ..StoreConfig::default() }).unwrap();
    let password = Password::new("secret".to_owned()).unwrap();
    let verifier = ScramVerifier::derive(&password, [7; 16], 4096);
    let account = |name: &str| {
        let address = Address::parse(&format!("{name}@pillarbox.test")).unwrap();
        store.add_account(address, verifier.clone(), Quota::default()).wait().unwrap()
    };
    let (ann, bob) = (account("ann"), account("bob"));
    for name in mailboxes {
        let found = store.reader().unwrap().mailbox_named(ann, &MailboxName::new(name).unwrap()).unwrap().unwrap();
        let rights = Rights::parse("lrswipkxte").unwrap();
        store.grant(found.id, Identifier::Account(bob), false, RightsMode::Replace, rights).wait().unwrap();
    }
    let doorway = Doorway::new(store.clone(), LoginConfig::default()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tasks = tokio::task::LocalSet::new();
    let commands = tasks.block_on(&runtime, async {
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut running = Vec::new();
        // As many commands in all, however many they are.
        let least = (CLIENTS * COMMANDS_MIN / count).max(8);
        for name in 0..count {
            let user = if name % 4 == 3 { BOB } else { ANN };
            let mut client = Client::new(&store, &doorway, seed * 1000 + name, (user, mailboxes)).await;
            running.push(tokio::task::spawn_local(async move {
                client.live(until, least).await;
                client
            }));
        }
        let mut clients = Vec::new();
        for task in running {
            clients.push(task.await.unwrap());
        }
        for client in &mut clients {
            client.settle().await;
        }
        let mut fresh = Client::new(&store, &doorway, 0, (ANN, mailboxes)).await;
        for mailbox in mailboxes {
            fresh.select(mailbox).await;
            for client in clients.iter().filter(|client| client.model.mailbox == *mailbox) {
                assert_eq!(client.model.uids, fresh.model.uids, "uids in {mailbox}, client {}", client.rng.0);
                assert_eq!(client.model.flags, fresh.model.flags, "flags in {mailbox}");
            }
        }
        clients.iter().map(|client| client.tag).sum::<u64>()
    });
    store.close().unwrap();
    println!("{commands} commands");
    assert!(commands >= CLIENTS * COMMANDS_MIN, "{commands}");
}

/// What a client knows of the mailbox it has selected.
#[derive(Debug, Default)]
struct Model {
    mailbox: String,
    /// By message number; none for a message that was only counted.
    uids: Vec<Option<u32>>,
    /// Without `\Recent`.
    flags: BTreeMap<u32, BTreeSet<String>>,
    validity: u64,
    modseq: u64,
    /// The tag of the search that is kept up to date, and what the client was told of it, by uid.
    context: String,
    found: BTreeSet<u32>,
}

/// The search that each client has kept up to date (RFC 5267).
const KEPT: &str = "UNSEEN UNDELETED";

/// What a client keeps of a mailbox that it left, to resynchronise.
#[derive(Clone, Debug)]
struct Cache {
    validity: u64,
    modseq: u64,
    flags: BTreeMap<u32, BTreeSet<String>>,
}

struct Client {
    session: Session,
    answers: ImapAnswers,
    rng: Random,
    resyncs: bool,
    user: User,
    mailboxes: &'static [&'static str],
    tag: u64,
    model: Model,
    caches: BTreeMap<String, Cache>,
    log: Vec<String>,
}

/// Who a client is of.
#[derive(Clone, Copy)]
struct User {
    name: &'static str,
    /// What stands before the names of the mailboxes.
    prefix: &'static str,
    /// Which mailboxes NOTIFY is about.
    watches: &'static str,
}

const ANN: User = User { name: "ann", prefix: "", watches: "personal" };
const BOB: User = User { name: "bob", prefix: "Other Users/ann@pillarbox.test/", watches: "subtree \"Other Users\"" };

impl User {
    fn calls(self, mailbox: &str) -> String {
        format!("\"{}{mailbox}\"", self.prefix)
    }
}

/// A small generator (xorshift), so that a seed says all.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }
}

impl Client {
    async fn new(
        store: &Store,
        doorway: &Doorway,
        seed: u64,
        (user, mailboxes): (User, &'static [&'static str]),
    ) -> Self {
        let site = Site { host: "pillarbox.test".into(), starttls: false, clear_login: true, names: Arc::default() };
        let spam = SpamConfig { enabled: false, ..SpamConfig::default() };
        let (teacher, _) = Teacher::new(store.clone(), Filter::new(store.clone(), spam));
        let mut client = Self {
            session: Session::new(Arc::new(ImapConfig::default()), site),
            answers: ImapAnswers::new(store.clone(), teacher, doorway, IpAddr::from([127, 0, 0, 1])),
            rng: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            resyncs: seed % 2 == 1,
            user,
            mailboxes,
            tag: 0,
            model: Model::default(),
            caches: BTreeMap::new(),
            log: Vec::new(),
        };
        client.command(&format!("LOGIN {} secret", user.name)).await;
        if client.resyncs {
            client.command("ENABLE QRESYNC").await;
        }
        // Some are told at once, some but for what has gone, and some as ever (RFC 5465).
        let selected = ["selected", "selected-delayed"].get(usize::try_from(seed % 3).unwrap());
        if let Some(selected) = selected {
            let events = "(MessageNew (UID FLAGS) MessageExpunge FlagChange)";
            let others = format!("({} (MessageNew MessageExpunge FlagChange MailboxName))", user.watches);
            let end = client.command(&format!("NOTIFY SET STATUS ({selected} {events}) {others}")).await;
            assert!(end.starts_with("OK"), "{end}");
        }
        for mailbox in mailboxes {
            // Only the first client makes what is not there.
            client.run(&format!("c CREATE {}\r\n", user.calls(mailbox))).await;
        }
        client
    }

    /// Runs the session on this input until it wants more; what it said.
    async fn run(&mut self, input: &str) -> String {
        let (mut input, mut output) = (input.as_bytes(), Vec::new());
        loop {
            match self.session.next() {
                Step::Read if input.is_empty() => break,
                Step::Read => {
                    let taken = self.session.receive(input);
                    input = &input[taken..];
                }
                Step::Write(bytes) => output.extend_from_slice(bytes),
                Step::Ask(request) => {
                    let answer = self.answers.answer(request).await;
                    self.session.resume(answer);
                    // Others go on between two questions.
                    tokio::task::yield_now().await;
                }
                Step::StartTls | Step::Close => panic!("the session ended: {}", String::from_utf8_lossy(&output)),
            }
        }
        String::from_utf8(output).unwrap()
    }

    /// A command; its tagged response. What else is said goes into the model.
    async fn command(&mut self, command: &str) -> String {
        self.tag += 1;
        let tag = format!("t{}", self.tag);
        let said = self.run(&format!("{tag} {command}\r\n")).await;
        self.note(command, &said);
        let holds = ["FETCH", "STORE", "SEARCH", "SORT"].iter().any(|word| command.starts_with(word));
        for line in said.lines() {
            if let Some(rest) = line.strip_prefix("* ") {
                let gone = rest.ends_with(" EXPUNGE") || rest.starts_with("VANISHED ") && !rest.contains("EARLIER");
                assert!(!(holds && gone), "{command}: {said}");
                self.hear(rest);
            }
        }
        let end = said.lines().last().unwrap_or_default();
        end.strip_prefix(&format!("{tag} "))
            .unwrap_or_else(|| self.fail(&format!("no end of {command}: {said}")))
            .to_owned()
    }

    fn note(&mut self, command: &str, said: &str) {
        if self.log.len() > 40 {
            self.log.remove(0);
        }
        self.log.push(format!("C: {command}\n{said}"));
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{what}\n{}", self.log.join("\n"))
    }

    /// Takes an untagged response in.
    fn hear(&mut self, line: &str) {
        let mut words = line.splitn(3, ' ');
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let rest = words.next().unwrap_or_default();
        match (first.parse::<usize>(), second) {
            (Ok(count), "EXISTS") => {
                if count < self.model.uids.len() {
                    self.fail(&format!("EXISTS fell to {count}"));
                }
                self.model.uids.resize(count, None);
            }
            (Ok(number), "EXPUNGE") => {
                if number == 0 || number > self.model.uids.len() {
                    self.fail(&format!("EXPUNGE {number} of {}", self.model.uids.len()));
                }
                if let Some(uid) = self.model.uids.remove(number - 1) {
                    self.model.flags.remove(&uid);
                }
            }
            (Ok(number), "FETCH") => self.fetched(number, rest),
            _ if first == "VANISHED" => {
                let earlier = second == "(EARLIER)";
                for uid in uids_of(if earlier { rest } else { second }) {
                    self.model.flags.remove(&uid);
                    let place = self.model.uids.iter().position(|known| *known == Some(uid));
                    match place {
                        Some(place) if !earlier => drop(self.model.uids.remove(place)),
                        Some(_) => self.fail(&format!("{uid} has vanished and is there")),
                        // A message that was counted and not yet looked at.
                        None if !earlier => match self.model.uids.iter().position(Option::is_none) {
                            Some(place) => drop(self.model.uids.remove(place)),
                            None => self.fail(&format!("{uid} has vanished and never was")),
                        },
                        None => {}
                    }
                }
            }
            _ => {}
        }
        if let Some(rest) = line.strip_prefix(&format!("ESEARCH (TAG \"{}\") UID", self.model.context)) {
            let set = |word: &str| rest.split_once(word).map(|(_, rest)| rest.split([')', ' ']).next().unwrap());
            self.model.found.extend(set(" ALL ").map(uids_of).unwrap_or_default());
            for uid in set(" REMOVEFROM (0 ").map(uids_of).unwrap_or_default() {
                if !self.model.found.remove(&uid) {
                    self.fail(&format!("{uid} left the result and never was in it"));
                }
            }
            for uid in set(" ADDTO (0 ").map(uids_of).unwrap_or_default() {
                if !self.model.found.insert(uid) {
                    self.fail(&format!("{uid} came into the result and was there"));
                }
            }
        }
        for (code, value) in [("[UIDVALIDITY ", 0), ("[HIGHESTMODSEQ ", 1)] {
            if let Some(number) = line.split_once(code).and_then(|(_, rest)| rest.split_once(']')) {
                let number = number.0.parse().unwrap();
                *(if value == 0 { &mut self.model.validity } else { &mut self.model.modseq }) = number;
            }
        }
    }

    fn fetched(&mut self, number: usize, items: &str) {
        let uid: Option<u32> = items
            .split_once("UID ")
            .map(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap());
        let (Some(uid), Some(place)) = (uid, number.checked_sub(1).filter(|place| *place < self.model.uids.len()))
        else {
            self.fail(&format!("FETCH of {number}: {items}"));
        };
        if self.model.uids[place].is_some_and(|known| known != uid) {
            self.fail(&format!("message {number} is {uid} and not {:?}", self.model.uids[place]));
        }
        self.model.uids[place] = Some(uid);
        let before = self.model.uids[..place].iter().rev().find_map(|known| *known);
        if before.is_some_and(|before| before >= uid) {
            self.fail(&format!("message {number} has uid {uid} behind {before:?}"));
        }
        if let Some((_, rest)) = items.split_once("FLAGS (") {
            let flags = rest.split(')').next().unwrap().split(' ');
            let flags = flags.filter(|flag| !flag.is_empty() && *flag != "\\Recent").map(str::to_owned).collect();
            self.model.flags.insert(uid, flags);
        }
        if let Some(modseq) = items.split_once("MODSEQ (").and_then(|(_, rest)| rest.split_once(')')) {
            assert!(modseq.0.parse::<u64>().is_ok(), "{items}");
        }
    }

    /// Selects a mailbox, with what is known of it if that may be, and gets to know it all.
    async fn select(&mut self, mailbox: &str) {
        if self.resyncs && !self.model.mailbox.is_empty() {
            // What the client has seen of changes is what it comes back with.
            let known = self.command("NOOP").await;
            assert!(known.starts_with("OK"));
            self.learn_new().await;
            let left = std::mem::take(&mut self.model);
            let cache = Cache { validity: left.validity, modseq: left.modseq, flags: left.flags };
            self.caches.insert(left.mailbox, cache);
        }
        self.model = Model { mailbox: mailbox.to_owned(), ..Model::default() };
        let cache = self.caches.get(mailbox).cloned().filter(|_| self.resyncs);
        let Some(cache) = cache else {
            self.command(&format!("SELECT {}", self.user.calls(mailbox))).await;
            self.learn_new().await;
            return self.follow().await;
        };
        self.model.flags.clone_from(&cache.flags);
        let name = self.user.calls(mailbox);
        self.command(&format!("SELECT {name} (QRESYNC ({} {}))", cache.validity, cache.modseq)).await;
        // Of the messages it knew, it must know by now which are there, and their flags: it asks for
        // those of the others alone.
        if !self.model.uids.is_empty() {
            self.command("FETCH 1:* (UID)").await;
        }
        self.learn_new().await;
        let there: BTreeSet<u32> = self.model.uids.iter().flatten().copied().collect();
        if let Some(uid) = self.model.flags.keys().find(|uid| !there.contains(uid)) {
            self.fail(&format!("{uid} has gone, and the client was not told"));
        }
        let new: Vec<u32> = there.into_iter().filter(|uid| !self.model.flags.contains_key(uid)).collect();
        if let Some(uid) = new.iter().find(|uid| cache.flags.contains_key(uid)) {
            self.fail(&format!("{uid} is there, and the client was told otherwise"));
        }
        if !new.is_empty() {
            let list = new.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            self.command(&format!("UID FETCH {list} (FLAGS)")).await;
        }
        self.follow().await;
    }

    /// Has a search kept up to date.
    async fn follow(&mut self) {
        self.model.context = format!("t{}", self.tag + 1);
        let end = self.command(&format!("UID SEARCH RETURN (UPDATE ALL) {KEPT}")).await;
        assert!(end.starts_with("OK"), "{end}");
    }

    /// Between two commands: what a client that asked for it hears then.
    async fn listen(&mut self) {
        if self.session.wants_changes() {
            self.session.notice(Notice::Changed);
            let said = self.run("").await;
            self.note("", &said);
            for line in said.lines() {
                self.hear(line.strip_prefix("* ").unwrap_or_else(|| panic!("{line}")));
            }
        }
    }

    /// Looks at messages that were only counted.
    async fn learn_new(&mut self) {
        while let Some(place) = self.model.uids.iter().position(Option::is_none) {
            let end = self.command(&format!("FETCH {}:* (UID FLAGS)", place + 1)).await;
            assert!(end.starts_with("OK"), "{end}");
            if end.contains("EXPUNGEISSUED") {
                self.command("NOOP").await;
            }
        }
    }

    /// A range of message numbers and the uids it means.
    fn some(&mut self) -> Option<(String, Vec<u32>)> {
        let count = self.model.uids.len() as u64;
        if count == 0 {
            return None;
        }
        let from = self.rng.below(count) + 1;
        let to = (from + self.rng.below(4)).min(count);
        let (low, high) = (usize::try_from(from).ok()?, usize::try_from(to).ok()?);
        let uids: Option<Vec<u32>> = self.model.uids.get(low - 1..high)?.iter().copied().collect();
        Some((format!("{from}:{to}"), uids?))
    }

    /// Does what clients do until it is time.
    async fn live(&mut self, until: Instant, least: u64) {
        while Instant::now() < until || self.tag < least {
            if self.model.mailbox.is_empty() || self.rng.below(25) == 0 {
                let mailbox = self.rng.of(self.mailboxes);
                self.select(mailbox).await;
            }
            self.listen().await;
            self.learn_new().await;
            let kind = self.rng.below(14);
            let other = self.user.calls(self.rng.of(self.mailboxes));
            if kind < 3 && self.model.uids.len() < 60 {
                let times = 1 + self.rng.below(3);
                let mut command = format!("APPEND {other}");
                for _ in 0..times {
                    let flag = self.rng.of(&FLAGS);
                    let _ = write!(command, " ({flag}) {{14+}}\r\nSubject: x\r\n\r\n");
                }
                let end = self.command(&command).await;
                assert!(end.starts_with("OK [APPENDUID"), "{end}");
                continue;
            }
            let Some((set, uids)) = self.some() else {
                self.command("NOOP").await;
                continue;
            };
            let by_uid = self.rng.below(2) == 0;
            let list = uids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            let (uid, set) = if by_uid { ("UID ", list) } else { ("", set) };
            match kind {
                3..=5 => self.store(uid, &set, &uids).await,
                6 => drop(self.command(&format!("{uid}FETCH {set} (UID FLAGS)")).await),
                7 => drop(self.command(&format!("{uid}COPY {set} {other}")).await),
                8 => drop(self.command(&format!("{uid}MOVE {set} {other}")).await),
                9 => drop(self.command("EXPUNGE").await),
                10 => drop(self.command(&format!("{uid}SEARCH UNSEEN UNDELETED")).await),
                11 => drop(self.command(&format!("{uid}SORT (REVERSE ARRIVAL SUBJECT) UTF-8 ALL")).await),
                12 => self.idle().await,
                _ => {
                    let uid = uids[0];
                    let end = self.command(&format!("UID REPLACE {uid} {other} {{14+}}\r\nSubject: y\r\n\r\n")).await;
                    assert!(end.starts_with("OK") || end.starts_with("NO "), "{end}");
                }
            }
        }
    }

    async fn store(&mut self, uid: &str, set: &str, uids: &[u32]) {
        let (sign, flag) = (self.rng.of(&["+", "-", ""]), self.rng.of(&FLAGS));
        let silent = self.rng.of(&["", ".SILENT"]);
        let before = self.model.flags.clone();
        let end = self.command(&format!("{uid}STORE {set} {sign}FLAGS{silent} ({flag})")).await;
        assert!(end.starts_with("OK"), "{end}");
        if silent.is_empty() {
            return;
        }
        // Nothing is told of one's own change: the client makes it itself, unless it was told something
        // later in the same breath.
        for uid in uids {
            let (Some(flags), Some(old)) = (self.model.flags.get_mut(uid), before.get(uid)) else { continue };
            if flags == old {
                match sign {
                    "+" => drop(flags.insert(flag.to_owned())),
                    "-" => drop(flags.remove(flag)),
                    _ => *flags = BTreeSet::from([flag.to_owned()]),
                }
            }
        }
    }

    async fn idle(&mut self) {
        self.tag += 1;
        let tag = format!("t{}", self.tag);
        let mut said = self.run(&format!("{tag} IDLE\r\n")).await;
        for _ in 0..self.rng.below(4) {
            tokio::task::yield_now().await;
            self.session.notice(Notice::Changed);
            said += &self.run("").await;
        }
        said += &self.run("DONE\r\n").await;
        self.note("IDLE", &said);
        for line in said.lines().filter_map(|line| line.strip_prefix("* ")) {
            self.hear(line);
        }
        assert!(said.ends_with(&format!("{tag} OK IDLE completed\r\n")), "{said}");
    }

    /// Hears all there is to hear.
    async fn settle(&mut self) {
        for _ in 0..3 {
            self.command("NOOP").await;
            self.learn_new().await;
        }
        let kept = self.model.found.clone();
        self.model.context = format!("t{}", self.tag + 1);
        self.model.found.clear();
        self.command(&format!("UID SEARCH RETURN (ALL) {KEPT}")).await;
        if self.model.found != kept {
            self.fail(&format!("{:?} is found and was kept as {kept:?}", self.model.found));
        }
    }
}

/// `1:3,7`
fn uids_of(set: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (low, high) = part.split_once(':').unwrap_or((part, part));
        low.parse::<u32>().unwrap()..=high.parse::<u32>().unwrap()
    };
    set.split(',').flat_map(range).collect()
}
