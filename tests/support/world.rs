//! The world of a transcript: a real store in a temporary folder, and facts about it.

use std::path::Path;
use std::rc::Rc;

use pillarbox::daemon::login::Doorway;
use pillarbox::flow::access::lockout::LoginConfig;
use pillarbox::flow::access::pop3::Locks;
use pillarbox::flow::access::url;
use pillarbox::mail::address::{Address, Domain};
use pillarbox::mail::date::{Timestamp, ZonedTime};
use pillarbox::mail::mailbox::{AccountId, MailboxName, Uid};
use pillarbox::mail::message::{FlagNames, Keyword, SystemFlags, UidSet};
use pillarbox::mail::secret::{Password, ScramVerifier};
use pillarbox::mail::structure::Walker;
use pillarbox::store::{Alias, Mailbox, NewMessage, Quota, Store, StoreConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::script::{Action, Wanted};
use super::sent::Sent;
use super::{network, words};

/// Rounds of the accounts' keys: few, because every transcript makes them anew.
const ROUNDS: u32 = 4096;

/// What the client's certificate is called.
const CERTIFICATE: &str = "the player's";

/// A store with the local domain `pillarbox.test` and the accounts `ann` and `bob`.
pub(crate) struct World {
    /// The store.
    pub(crate) store: Store,
    /// The door for logins; failures cost no time here.
    pub(crate) doorway: Doorway,
    /// Who has which maildrop.
    pub(crate) locks: Locks,
    /// Where sessions' questions are answered.
    pub(crate) runtime: Rc<Runtime>,
    /// What became of mail that was sent.
    pub(crate) sent: Sent,
    /// The store's folder.
    folder: TempDir,
}

impl World {
    /// Makes the world every transcript begins with.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (store, doorway) = open(folder.path(), 0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let world =
            Self { store, doorway, locks: Locks::default(), runtime: Rc::new(runtime), sent: Sent::default(), folder };
        for name in ["ann", "bob"] {
            let password = format!("{name}-secret");
            let account = Action::Account { name: format!("{name}@pillarbox.test"), password };
            world.step(&account).expect("an account");
        }
        world
    }

    /// Does what an `@` line in the head says.
    pub(crate) fn set_up(&mut self, action: &Action) -> Result<(), String> {
        if !matches!(action, Action::DiskFull) {
            return self.step(action);
        }
        done(self.store.close())?;
        (self.store, self.doorway) = open(self.folder.path(), u64::MAX);
        Ok(())
    }

    /// Does what an `@` line says, or checks what a `=` line says.
    pub(crate) fn step(&self, action: &Action) -> Result<(), String> {
        match action {
            Action::Account { name, password } => {
                done(self.store.add_account(address(name)?, verifier(password), Quota::default()).wait())
            }
            Action::Certificate { name, over } => {
                let (account, shown) = (self.account(name)?, network::certificate());
                let expires = Timestamp(if *over { 1_000_000_000 } else { i64::MAX });
                done(self.store.add_certificate(account, shown, CERTIFICATE.to_owned(), expires).wait())
            }
            Action::Revoke(name) => {
                done(self.store.remove_certificate(self.account(name)?, CERTIFICATE.to_owned()).wait())
            }
            Action::Domain(name) => {
                done(self.store.add_domain(Domain::parse(name).map_err(|error| error.to_string())?).wait())
            }
            Action::Alias { address: alias, targets } => {
                let targets = targets.iter().map(|target| address(target)).collect::<Result<_, _>>()?;
                done(self.store.put_alias(Alias { address: address(alias)?, targets }).wait())
            }
            Action::Quota { name, bytes, messages } => {
                let quota = Quota { bytes: *bytes, messages: *messages };
                done(self.store.set_quota(self.account(name)?, quota).wait())
            }
            Action::Mailbox { name, mailbox } => {
                done(self.store.create_mailbox(self.account(name)?, mailbox_name(mailbox)?, None).wait())
            }
            Action::UrlKey { name, mailbox } => {
                let (account, mailbox) = (self.account(name)?, self.mailbox(name, mailbox)?);
                let setting = url::set_key(&self.store, account, mailbox.id, Some(words::URL_KEY));
                done(setting.ok_or("no key can be set")?.wait())
            }
            Action::Message { times, name, mailbox, flags, lines } => {
                let mailbox = self.mailbox(name, mailbox)?;
                let text: String = lines.iter().flat_map(|line| [line, "\r\n"]).collect();
                for _ in 0..*times {
                    done(self.store.append(mailbox.id, vec![self.new_message(text.as_bytes(), flags)?]).wait())?;
                }
                Ok(())
            }
            Action::Remove { name, mailbox, uid } => {
                let uids = UidSet::from_iter(Uid::new(*uid));
                done(self.store.remove(self.mailbox(name, mailbox)?.id, uids).wait())
            }
            Action::Holds { name, mailbox, count, body } => self.holds(name, mailbox, *count, body.as_deref()),
            Action::Is { name, mailbox, uid, lines } => {
                let text = self.text(&self.mailbox(name, mailbox)?, *uid)?;
                compare(lines, &String::from_utf8_lossy(&text))
            }
            Action::Has { name, mailbox, uid, flags } => self.has(name, mailbox, *uid, flags),
            Action::Became { message, to, what } => self.sent.became(*message, to, what),
            Action::Again { message } => self.sent.again(*message),
            Action::Ended { how } => self.sent.ended(how),
            other => Err(format!("{other:?} is nothing of the world")),
        }
    }

    fn account(&self, name: &str) -> Result<AccountId, String> {
        let accounts =
            self.store.reader().and_then(|reader| reader.accounts()).map_err(|error| format!("{error:?}"))?;
        let account = accounts.into_iter().find(|account| account.address.to_string() == name);
        account.map(|account| account.id).ok_or_else(|| format!("there is no account {name}"))
    }

    fn mailbox(&self, name: &str, mailbox: &str) -> Result<Mailbox, String> {
        let account = self.account(name)?;
        let found = self
            .store
            .reader()
            .and_then(|reader| {
                reader.mailbox_named(account, &mailbox_name(mailbox).unwrap_or_else(|_| MailboxName::inbox()))
            })
            .map_err(|error| format!("{error:?}"))?;
        found.ok_or_else(|| format!("{name} has no mailbox {mailbox}"))
    }

    fn new_message(&self, text: &[u8], flags: &[String]) -> Result<NewMessage, String> {
        let mut spool = self.store.spool().map_err(|error| format!("{error:?}"))?;
        let mut walker = Walker::new();
        spool.write(text).map_err(|error| format!("{error:?}"))?;
        walker.feed(text);
        let body = spool.finish().map_err(|error| format!("{error:?}"))?;
        let internal_date = ZonedTime::utc(Timestamp(1_700_000_000));
        Ok(NewMessage { body, structure: walker.finish(), internal_date, flags: flag_names(flags)? })
    }

    /// A message's bytes.
    fn text(&self, mailbox: &Mailbox, uid: u32) -> Result<Vec<u8>, String> {
        let uid = Uid::new(uid).ok_or("a uid is never 0")?;
        let reader = self.store.reader().map_err(|error| format!("{error:?}"))?;
        let message = reader.message(mailbox.id, uid).map_err(|error| format!("{error:?}"))?;
        let message = message.ok_or_else(|| format!("there is no message {}", uid.get()))?;
        let mut body = self.store.body(message.blob).map_err(|error| format!("{error:?}"))?;
        let mut text = Vec::new();
        loop {
            let piece = body.read(text.len() as u64, 65_536).map_err(|error| format!("{error:?}"))?;
            if piece.is_empty() {
                break;
            }
            text.extend_from_slice(piece);
        }
        if text.len() as u64 != u64::from(message.size) {
            return Err(format!("the size is {} and the text has {} bytes", message.size, text.len()));
        }
        Ok(text)
    }

    fn holds(&self, name: &str, mailbox: &str, count: u32, body: Option<&[u8]>) -> Result<(), String> {
        let mailbox = self.mailbox(name, mailbox)?;
        if mailbox.messages != count {
            return Err(format!("it holds {} messages", mailbox.messages));
        }
        let Some(body) = body else { return Ok(()) };
        let reader = self.store.reader().map_err(|error| format!("{error:?}"))?;
        let uids = reader.uids(mailbox.id).map_err(|error| format!("{error:?}"))?;
        let last = uids.iter().last().ok_or("it holds no message")?;
        let text = self.text(&mailbox, last.get())?;
        let start = text.windows(4).position(|four| four == b"\r\n\r\n").map_or(text.len(), |at| at + 4);
        let found = text[start..].strip_suffix(b"\r\n").unwrap_or(&text[start..]);
        if found == body { Ok(()) } else { Err(format!("the body is {:?}", String::from_utf8_lossy(found))) }
    }

    fn has(&self, name: &str, mailbox: &str, uid: u32, flags: &[String]) -> Result<(), String> {
        let mailbox = self.mailbox(name, mailbox)?;
        let uid = Uid::new(uid).ok_or("a uid is never 0")?;
        let reader = self.store.reader().map_err(|error| format!("{error:?}"))?;
        let message = reader.message(mailbox.id, uid).map_err(|error| format!("{error:?}"))?;
        let message = message.ok_or_else(|| format!("there is no message {}", uid.get()))?;
        let wanted = flag_names(flags)?;
        let mut keywords: Vec<_> = mailbox
            .keywords
            .names(message.flags.keywords)
            .map(|keyword| keyword.as_str().to_ascii_lowercase())
            .collect();
        let mut wanted_keywords: Vec<_> =
            wanted.keywords.iter().map(|keyword| keyword.as_str().to_ascii_lowercase()).collect();
        keywords.sort();
        wanted_keywords.sort();
        if message.flags.system == wanted.system && keywords == wanted_keywords {
            return Ok(());
        }
        Err(format!("it has {:?} and {keywords:?}", message.flags.system))
    }
}

/// Opens a store that keeps `reserve_bytes` of the disk free, and the door to it.
fn open(folder: &Path, reserve_bytes: u64) -> (Store, Doorway) {
    let config = StoreConfig { journal_bytes: 1 << 20, reserve_bytes, ..StoreConfig::default() };
    let store = Store::open(folder, &config).expect("a store");
    let login = LoginConfig { delay_max_secs: 0, ..LoginConfig::default() };
    let doorway = Doorway::new(store.clone(), login).expect("a door");
    (store, doorway)
}

fn done<T, E: std::fmt::Debug>(result: Result<T, E>) -> Result<(), String> {
    result.map(drop).map_err(|error| format!("{error:?}"))
}

fn address(text: &str) -> Result<Address, String> {
    Address::parse(text).map_err(|error| format!("{text:?}: {error}"))
}

fn mailbox_name(text: &str) -> Result<MailboxName, String> {
    MailboxName::new(text).ok_or_else(|| format!("{text:?} is no mailbox name"))
}

fn flag_names(flags: &[String]) -> Result<FlagNames, String> {
    let mut names = FlagNames::default();
    for flag in flags {
        let system = match flag.to_ascii_lowercase().as_str() {
            "\\answered" => SystemFlags::ANSWERED,
            "\\flagged" => SystemFlags::FLAGGED,
            "\\deleted" => SystemFlags::DELETED,
            "\\seen" => SystemFlags::SEEN,
            "\\draft" => SystemFlags::DRAFT,
            _ => {
                names.keywords.push(Keyword::new(flag).ok_or_else(|| format!("{flag:?} is no flag"))?);
                continue;
            }
        };
        names.system = names.system.union(system);
    }
    Ok(names)
}

/// What the store keeps of a password; the salt is the same in every run.
fn verifier(password: &str) -> ScramVerifier {
    let password = Password::new(password.to_owned()).expect("a password");
    ScramVerifier::derive(&password, *b"salt of no worth", ROUNDS)
}

/// Compares a message with what it should be, line for line.
fn compare(wanted: &[Wanted], text: &str) -> Result<(), String> {
    let mut lines = text.split_inclusive("\r\n").map(|line| line.strip_suffix("\r\n").unwrap_or(line)).peekable();
    let mut any = false;
    for want in wanted {
        let fits = |line: &str| match want {
            Wanted::Exactly(text) => text == line,
            Wanted::Like(pattern) => words::matches(pattern, line),
            Wanted::AnyLines => true,
        };
        if matches!(want, Wanted::AnyLines) {
            any = true;
            continue;
        }
        while any && lines.next_if(|line| !fits(line)).is_some() {}
        any = false;
        match lines.next() {
            Some(line) if fits(line) => {}
            other => return Err(format!("expected {want:?}, found {other:?} in:\n{text}")),
        }
    }
    match lines.next() {
        Some(line) if !any => Err(format!("nobody expected {line:?} in:\n{text}")),
        _ => Ok(()),
    }
}
