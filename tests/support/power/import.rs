//! The import journey: an mbox file comes into the store the way `pillarbox import` brings it, and
//! after a cut the import is started again and must double nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use pillarbox::flow::carry::{CarryError, Exchange, ImportRequest, Keeper, Note, Observer, Progress, Target, import};
use pillarbox::mail::mailbox::{AccountId, MailboxId, MailboxName, Uid};
use pillarbox::store::site::Site;
use pillarbox::store::{NewMessage, Spool, Spooled, WriteError};

use super::command::{Command, Place};
use super::dice::Dice;
use super::driver::Driver;
use super::judge::{Failure, Kind, wrong};
use super::letter::{Letter, Print};

/// Messages of the file.
const MESSAGES: usize = 50;

/// The mailbox they go to.
const FOLDER: &str = "old";

/// The file's name in the scratch folder.
pub(crate) const FILE: &str = "old.mbox";

/// The file: the same in every recording, so that an import can be resumed on what is left of any.
pub(crate) fn mbox() -> String {
    let mut dice = Dice::new(1);
    let mut text = String::new();
    for number in 0..MESSAGES {
        let _ = write!(text, "From ann@pillar.test Thu Jan  1 00:00:{:02} 2026\nSubject: {number}\n\n", number % 60);
        for _ in 0..dice.below(12) {
            let _ = writeln!(text, "{:016x} {:016x}", dice.next(), dice.next());
        }
        // Some are alike, as in real collections: those must all come, and none twice.
        if number % 10 == 3 {
            text.push_str("\nFrom ann@pillar.test Thu Jan  1 00:00:00 2026\nSubject: again\n\nthe same\n\n");
        }
        text.push('\n');
    }
    text
}

/// Passes on what the import asks of a store, command by command, so that each is noted.
struct Carrier<'d> {
    driver: &'d mut Driver,
    exchange: Exchange,
    account: AccountId,
    failure: Option<Failure>,
}

impl Carrier<'_> {
    fn told(&mut self, done: Result<(), Failure>) -> Result<(), CarryError> {
        done.map_err(|failure| {
            self.failure = Some(failure);
            CarryError::Write(WriteError::Closed)
        })
    }
}

impl Keeper for Carrier<'_> {
    fn target(&mut self, name: &MailboxName) -> Result<Target, CarryError> {
        let (account, folder) = (self.account.0, name.as_str().to_owned());
        let state = self.driver.state();
        let made = state.folders.contains_key(&(account, folder.clone()));
        if !made {
            let done = self.driver.one(Command::Create { account, name: folder.clone() });
            self.told(done)?;
            let done = self.driver.one(Command::Subscribe { account, name: folder, on: true });
            self.told(done)?;
        }
        self.exchange.target(name)
    }

    fn spool(&mut self) -> Result<Spool, CarryError> {
        self.exchange.spool()
    }

    fn append(&mut self, mailbox: MailboxId, messages: Vec<NewMessage>, note: Option<Note>) -> Result<Uid, CarryError> {
        let state = self.driver.state();
        let birth = state.folders.values().map(|folder| folder.birth);
        let birth = birth.into_iter().find(|birth| self.driver.number(*birth) == mailbox.0).unwrap_or(0);
        let letters = messages.into_iter().map(Letter::take).collect();
        let mut commands = Vec::new();
        // In half the cases both are in one group, as when the disk is busy.
        if self.driver.dice.percent(50) {
            commands.push(Command::Note { name: "second".to_owned(), value: b"busy".to_vec() });
        }
        commands.extend(note.map(|(name, value)| Command::Note { name, value }));
        commands.push(Command::Append { place: Place { id: mailbox.0, birth }, letters });
        let done = self.driver.round(commands);
        self.told(done)?;
        let state = self.driver.state();
        let next = state.folders.values().find(|folder| folder.birth == birth).map_or(1, |folder| folder.next);
        Ok(Uid::new(next).unwrap_or(Uid::MAX))
    }

    fn find(&mut self, mailbox: MailboxId, since: Uid, body: &Spooled) -> Result<Option<Uid>, CarryError> {
        self.exchange.find(mailbox, since, body)
    }

    fn note(&mut self, name: &str) -> Result<Option<Vec<u8>>, CarryError> {
        Keeper::note(&mut self.exchange, name)
    }

    fn put_note(&mut self, (name, value): Note) -> Result<(), CarryError> {
        let done = self.driver.one(Command::Note { name, value });
        self.told(done)
    }

    fn account(&self) -> AccountId {
        self.account
    }
}

struct Silent;

impl Observer for Silent {
    fn progress(&mut self, _: &Progress) {}

    fn trouble(&mut self, place: &str, why: &str) {
        panic!("{place}: {why}");
    }
}

/// Imports for the first account.
pub(crate) fn run(driver: &mut Driver) -> Result<(), Failure> {
    let Some(account) = driver.state().people.keys().next().map(|account| AccountId(*account)) else { return Ok(()) };
    // What went before may have given the account a quota that the file does not fit.
    if driver.state().people.get(&account.0).is_some_and(|person| person.quota.is_some()) {
        driver.one(Command::SetQuota { account: account.0, messages: None })?;
    }
    let folder = MailboxName::new(FOLDER).expect("a name");
    let source = driver.medium.path().join(FILE);
    let exchange = Exchange::new(driver.store.clone(), account);
    let mut carrier = Carrier { driver, exchange, account, failure: None };
    let request = ImportRequest { source: &source, folder: Some(&folder), again: false };
    match import(&mut carrier, &mut Silent, &request) {
        Ok(_) => {}
        Err(error) => return Err(carrier.failure.unwrap_or_else(|| wrong(format!("the import: {error}")))),
    }
    complete(driver, account.0)
}

/// Starts the import again: it finds what is there already.
pub(crate) fn resume(driver: &mut Driver) -> Result<(), Failure> {
    run(driver)
}

/// The file, and nothing else, is in the mailbox.
fn complete(driver: &Driver, account: u32) -> Result<(), Failure> {
    let mut copies: BTreeMap<Print, usize> = BTreeMap::new();
    let folder = &driver.state().folders[&(account, FOLDER.to_owned())];
    for row in folder.rows.values() {
        *copies.entry(row.print).or_default() += 1;
    }
    let again = MESSAGES.div_ceil(10);
    let most = copies.values().copied().max().unwrap_or(0);
    let what = || format!("{} messages, {} different, after the import", folder.rows.len(), copies.len());
    if copies.len() < MESSAGES + 1 || most < again {
        return Err(Failure { kind: Kind::Lost, what: what() });
    }
    if folder.rows.len() > MESSAGES + again {
        return Err(Failure { kind: Kind::Doubled, what: what() });
    }
    Ok(())
}
