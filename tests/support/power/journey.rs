//! What is done to the store while the power may go.
//!
//! A journey makes the commands of one kind of day; most begin with a few accounts that have some
//! mail already, and the cut falls into what follows. Sizes of ring and cache are small, so that
//! laps, checkpoints and evicted pages come often, and change from recording to recording.

use pillarbox::mail::mailbox::SpecialUse;
use pillarbox::mail::message::FlagMode;
use pillarbox::store::StoreConfig;

use super::command::{Command, Into, Place};
use super::dice::Dice;
use super::driver::Driver;
use super::import;
use super::judge::{Failure, wrong};
use super::letter::{Letter, Marks};
use super::{learning, outgoing};

type Done = Result<(), Failure>;

/// What is there when a recording begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// An empty folder.
    Blank,
    /// A store with a few accounts and some mail, closed.
    Usual,
    /// The same of schema 1, killed.
    Schema1,
}

/// A kind of day.
pub(crate) struct Journey {
    pub(crate) name: &'static str,
    pub(crate) start: Start,
    config: fn(&mut Dice) -> StoreConfig,
    /// What is done while the cut may fall.
    pub(crate) go: fn(&mut Driver) -> Done,
    /// What is done on a recovered store, so that a cut can fall into that as well.
    pub(crate) after: fn(&mut Driver) -> Done,
}

const USUAL: Journey = Journey { name: "", start: Start::Usual, config: usual, go: day, after: aftermath };

/// All of them.
pub(crate) const JOURNEYS: &[Journey] = &[
    Journey { name: "delivery", go: |driver| repeat(driver, 14, deliver_one), ..USUAL },
    Journey { name: "delivery-to-several", go: |driver| repeat(driver, 12, deliver_several), ..USUAL },
    Journey { name: "append", go: |driver| repeat(driver, 14, |driver| append(driver, 1)), ..USUAL },
    Journey { name: "append-several", go: |driver| repeat(driver, 10, |driver| append(driver, 4)), ..USUAL },
    Journey { name: "flags", go: |driver| repeat(driver, 24, flag), ..USUAL },
    Journey { name: "copy", go: |driver| repeat(driver, 14, |driver| transfer(driver, false)), ..USUAL },
    Journey { name: "move", go: |driver| repeat(driver, 14, |driver| transfer(driver, true)), ..USUAL },
    Journey { name: "expunge", go: |driver| repeat(driver, 10, expunge), ..USUAL },
    Journey { name: "rename", go: |driver| repeat(driver, 16, mailboxes), ..USUAL },
    Journey { name: "delete-and-sweep", go: delete_and_sweep, ..USUAL },
    Journey { name: "checkpoint", config: tight, go: |driver| repeat(driver, 20, mail), ..USUAL },
    Journey { name: "ring", config: laps, go: ring, ..USUAL },
    Journey { name: "compaction", go: compaction, ..USUAL },
    Journey { name: "large", go: large, ..USUAL },
    Journey { name: "burst", go: |driver| repeat(driver, 5, burst), ..USUAL },
    Journey { name: "submission", go: outgoing::run, ..USUAL },
    Journey { name: "learning", go: learning::run, ..USUAL },
    Journey { name: "import", go: import::run, after: import::resume, ..USUAL },
    Journey { name: "blank", start: Start::Blank, go: settle_in, ..USUAL },
    Journey { name: "reopen", go: reopen, ..USUAL },
    Journey { name: "accounts", go: |driver| repeat(driver, 16, account), ..USUAL },
    Journey { name: "upgrade", start: Start::Schema1, go: |driver| repeat(driver, 4, mail), ..USUAL },
    Journey { name: "day", ..USUAL },
];

impl Journey {
    /// The settings for a recording.
    pub(crate) fn config(&self, dice: &mut Dice) -> StoreConfig {
        (self.config)(dice)
    }
}

fn usual(dice: &mut Dice) -> StoreConfig {
    StoreConfig {
        cache_bytes: *dice.pick(&[64 << 10, 128 << 10, 256 << 10, 1 << 20]),
        journal_bytes: *dice.pick(&[64 << 10, 96 << 10, 128 << 10]),
        reserve_bytes: 0,
        ..StoreConfig::default()
    }
}

/// A cache so small that redb writes pages before it commits, and checkpoints every few groups.
fn tight(dice: &mut Dice) -> StoreConfig {
    StoreConfig { cache_bytes: *dice.pick(&[16 << 10, 32 << 10, 64 << 10]), ..usual(dice) }
}

/// The smallest ring, checkpointed only when it is half full.
fn laps(_: &mut Dice) -> StoreConfig {
    StoreConfig { cache_bytes: 1 << 20, journal_bytes: 64 << 10, reserve_bytes: 0, ..StoreConfig::default() }
}

fn repeat(driver: &mut Driver, times: usize, step: fn(&mut Driver) -> Done) -> Done {
    (0..times).try_for_each(|_| step(driver))
}

/// Three accounts with a little mail.
pub(crate) fn settle_in(driver: &mut Driver) -> Done {
    for (salt, name) in (1..).zip(["ann", "bob", "cai"]) {
        driver.one(Command::AddAccount { name: name.to_owned(), salt, quota: None })?;
    }
    deliver_several(driver)?;
    append(driver, 3)?;
    let account = driver.person();
    driver.one(Command::Create { account, name: "a/b".to_owned() })?;
    repeat(driver, 2, mail)?;
    driver.one(Command::Note { name: "first".to_owned(), value: b"1".to_vec() })
}

impl Driver {
    /// Any account.
    pub(super) fn person(&mut self) -> u32 {
        let people = self.state().people.keys().copied().collect::<Vec<_>>();
        *self.dice.pick(&people)
    }

    pub(super) fn letter(&mut self, size: usize, marks: Marks) -> Result<Letter, Failure> {
        Letter::write(&self.store, size, marks, &mut self.dice).map_err(|error| wrong(error.to_string()))
    }

    /// A usual size.
    pub(super) fn size(&mut self) -> usize {
        match self.dice.below(100) {
            0..70 => 200 + self.dice.below(3000),
            70..92 => 3000 + self.dice.below(9000),
            92..98 => 15_000 + self.dice.below(4_000),
            _ => 40_000 + self.dice.below(40_000),
        }
    }

    /// Any mailbox; one with messages if there is any and it is asked for.
    fn place(&mut self, with_messages: bool) -> Place {
        let folders = self.state().folders.values();
        let filled =
            folders.clone().filter(|folder| !folder.rows.is_empty()).map(|folder| folder.birth).collect::<Vec<_>>();
        let all = folders.map(|folder| folder.birth).collect::<Vec<_>>();
        let birth = *self.dice.pick(if with_messages && !filled.is_empty() { &filled } else { &all });
        Place { id: self.number(birth), birth }
    }

    /// Some uids of a mailbox, ascending, a few of them of nobody.
    fn uids(&mut self, place: Place) -> Vec<u32> {
        let folder = self.state().folders.values().find(|folder| folder.birth == place.birth);
        let next = folder.map_or(1, |folder| folder.next);
        let share = *self.dice.pick(&[10, 30, 100]);
        let some = (1..=next).filter(|_| self.dice.percent(share)).collect::<Vec<_>>();
        // A command of nothing would be no command.
        if some.is_empty() { (1..next).collect() } else { some }
    }

    /// (account, name) of any mailbox.
    fn name(&mut self) -> (u32, String) {
        let names = self.state().folders.keys().cloned().collect::<Vec<_>>();
        self.dice.pick(&names).clone()
    }
}

const NAMES: [&str; 8] = ["a", "a/b", "a/b/c", "b", "b/x", "INBOX/in", "lists", "Entwürfe & mehr"];

fn into(driver: &mut Driver) -> Into {
    match driver.dice.below(10) {
        0..6 => Into::Inbox,
        6 => Into::Special(*driver.dice.pick(&[SpecialUse::Junk, SpecialUse::Sent, SpecialUse::All])),
        _ => Into::Named((*driver.dice.pick(&NAMES)).to_owned()),
    }
}

fn delivery(driver: &mut Driver, several: bool) -> Result<Command, Failure> {
    let size = driver.size();
    let letter = driver.letter(size, Marks::default())?;
    let mut to = vec![driver.person()];
    if several {
        to = driver.state().people.keys().copied().collect();
        // The same account twice, as by two aliases.
        to.extend(driver.dice.percent(20).then(|| to[0]));
    }
    let to = to.into_iter().map(|account| (account, into(driver))).collect();
    Ok(Command::Deliver { letter, to })
}

fn deliver_one(driver: &mut Driver) -> Done {
    let command = delivery(driver, false)?;
    driver.one(command)
}

fn deliver_several(driver: &mut Driver) -> Done {
    let command = delivery(driver, true)?;
    driver.one(command)
}

fn appending(driver: &mut Driver, most: usize) -> Result<Command, Failure> {
    let place = driver.place(false);
    let mut letters = Vec::new();
    for _ in 0..=driver.dice.below(most) {
        let (size, marks) = (driver.size(), Marks::any(&mut driver.dice));
        letters.push(driver.letter(size, marks)?);
    }
    Ok(Command::Append { place, letters })
}

fn append(driver: &mut Driver, most: usize) -> Done {
    let command = appending(driver, most)?;
    driver.one(command)
}

fn flagging(driver: &mut Driver) -> Command {
    let place = driver.place(true);
    let mode = *driver.dice.pick(&[FlagMode::Add, FlagMode::Remove, FlagMode::Replace]);
    let marks = Marks::any(&mut driver.dice);
    let ceiling = usize::try_from(driver.ceiling()).unwrap_or(0);
    let unchanged_since = driver.dice.percent(20).then(|| driver.dice.below(ceiling + 1) as u64);
    Command::Flag { place, uids: driver.uids(place), mode, marks, unchanged_since }
}

fn flag(driver: &mut Driver) -> Done {
    let command = flagging(driver);
    driver.one(command)
}

fn transferring(driver: &mut Driver, remove: bool) -> Command {
    let (from, to) = (driver.place(true), driver.place(false));
    Command::Transfer { from, uids: driver.uids(from), to, remove }
}

fn transfer(driver: &mut Driver, remove: bool) -> Done {
    let command = transferring(driver, remove);
    driver.one(command)
}

fn expunging(driver: &mut Driver) -> Command {
    let place = driver.place(true);
    let uids = driver.uids(place);
    match driver.dice.below(3) {
        0 => Command::Remove { place, uids },
        1 => Command::Expunge { place, uids: Some(uids) },
        _ => Command::Expunge { place, uids: None },
    }
}

/// Marks, removes, and sometimes refills.
fn expunge(driver: &mut Driver) -> Done {
    let place = driver.place(true);
    let marks = Marks { system: 4, words: 0 };
    let uids = driver.uids(place);
    driver.one(Command::Flag { place, uids, mode: FlagMode::Add, marks, unchanged_since: None })?;
    let command = expunging(driver);
    driver.one(command)?;
    if driver.dice.percent(40) { append(driver, 3) } else { Ok(()) }
}

fn mailbox_change(driver: &mut Driver) -> Command {
    let (account, name) = driver.name();
    let other = (*driver.dice.pick(&NAMES)).to_owned();
    match driver.dice.below(10) {
        0..3 => Command::Create { account, name: other },
        3..7 => Command::Rename { account, from: name, to: other },
        7..9 => Command::Delete { account, name },
        _ => Command::Subscribe { account, name: other, on: driver.dice.percent(50) },
    }
}

fn mailboxes(driver: &mut Driver) -> Done {
    let command = mailbox_change(driver);
    driver.one(command)?;
    if driver.dice.percent(40) { deliver_one(driver) } else { Ok(()) }
}

/// Mailboxes with many messages, or large ones, go.
fn delete_and_sweep(driver: &mut Driver) -> Done {
    let account = driver.person();
    let name = || "many".to_owned();
    driver.one(Command::Create { account, name: name() })?;
    let birth = driver.state().births;
    let many = Place { id: driver.number(birth), birth };
    for _ in 0..3 {
        let mut letters = Vec::new();
        for _ in 0..30 {
            letters.push(driver.letter(200, Marks::default())?);
        }
        letters.push(driver.letter(150_000, Marks::default())?);
        driver.one(Command::Append { place: many, letters })?;
        driver.one(Command::Transfer { from: many, uids: (1..200).collect(), to: many, remove: false })?;
    }
    driver.one(Command::Delete { account, name: name() })?;
    deliver_one(driver)?;
    driver.one(Command::Create { account, name: name() })?;
    repeat(driver, 3, mail)
}

/// Groups of all sizes that the ring takes.
fn ring(driver: &mut Driver) -> Done {
    for _ in 0..24 {
        let size = 300 + driver.dice.below(27_000);
        let letter = driver.letter(size, Marks::default())?;
        let to = vec![(driver.person(), Into::Inbox)];
        driver.one(Command::Deliver { letter, to })?;
        if driver.dice.percent(50) {
            mail(driver)?;
        }
        if driver.dice.percent(20) {
            expunge(driver)?;
        }
    }
    Ok(())
}

/// Bodies that are staged and made durable by a checkpoint.
fn large(driver: &mut Driver) -> Done {
    for round in 0..3 {
        let size = if round == 1 && driver.dice.percent(30) { 600_000 } else { 198_000 + driver.dice.below(20_000) };
        let letter = driver.letter(size, Marks::default())?;
        let to = vec![(driver.person(), Into::Inbox), (driver.person(), Into::Inbox)];
        let command = Command::Deliver { letter, to };
        if driver.dice.percent(50) {
            // Others come in meanwhile.
            let mut commands = vec![note(driver), command];
            for _ in 0..driver.dice.below(4) {
                commands.push(anything(driver)?);
            }
            driver.round(commands)?;
        } else {
            driver.one(command)?;
        }
        repeat(driver, 2, mail)?;
        expunge(driver)?;
    }
    Ok(())
}

fn note(driver: &mut Driver) -> Command {
    let name = ["first", "second"][driver.dice.below(2)].to_owned();
    let mut value = vec![0; 8 + driver.dice.below(100)];
    driver.dice.fill(&mut value);
    Command::Note { name, value }
}

/// What comes in while the disk is busy with a first command.
fn burst(driver: &mut Driver) -> Done {
    let mut commands = vec![note(driver)];
    for _ in 0..2 + driver.dice.below(14) {
        commands.push(anything(driver)?);
    }
    driver.round(commands)
}

/// The index is copied and exchanged, with mail before and after.
fn compaction(driver: &mut Driver) -> Done {
    for _ in 0..3 {
        repeat(driver, 2, mail)?;
        expunge(driver)?;
        driver.compact()?;
    }
    repeat(driver, 2, mail)
}

fn reopen(driver: &mut Driver) -> Done {
    for _ in 0..3 {
        repeat(driver, 3, mail)?;
        driver.reopen()?;
    }
    Ok(())
}

fn account_change(driver: &mut Driver) -> Command {
    let account = driver.person();
    let name = (*driver.dice.pick(&["dan", "eve", "fay", "team", "all"])).to_owned();
    let salt = u8::try_from(driver.dice.below(250)).unwrap_or(0);
    match driver.dice.below(8) {
        0..2 => Command::AddAccount { name, salt, quota: driver.dice.percent(50).then_some(20) },
        2 if driver.state().people.len() > 2 => Command::RemoveAccount { account },
        3 => Command::SetVerifier { account, salt },
        4 => Command::SetQuota { account, messages: driver.dice.percent(50).then(|| 5 + driver.dice.below(30) as u64) },
        5..7 => {
            let people =
                driver.state().people.iter().map(|(id, person)| (*id, person.name.clone())).collect::<Vec<_>>();
            let targets = people.into_iter().filter(|_| driver.dice.percent(60)).collect::<Vec<_>>();
            if targets.is_empty() { note(driver) } else { Command::PutAlias { name, targets } }
        }
        _ => Command::RemoveAlias { name },
    }
}

fn account(driver: &mut Driver) -> Done {
    let command = account_change(driver);
    driver.one(command)?;
    if driver.dice.percent(40) { mail(driver) } else { Ok(()) }
}

/// Any command, but few that take accounts or mailboxes away.
fn anything(driver: &mut Driver) -> Result<Command, Failure> {
    Ok(match driver.dice.below(100) {
        0..14 => delivery(driver, false)?,
        14..26 => delivery(driver, true)?,
        26..32 => outgoing::submission(driver)?,
        32..36 => outgoing::progress(driver)?,
        36..45 => appending(driver, 3)?,
        45..65 => flagging(driver),
        65..73 => transferring(driver, false),
        73..83 => transferring(driver, true),
        83..90 => expunging(driver),
        90..95 => mailbox_change(driver),
        95..97 => account_change(driver),
        _ => note(driver),
    })
}

pub(super) fn mail(driver: &mut Driver) -> Done {
    let command = anything(driver)?;
    driver.one(command)
}

/// A bit of everything.
fn day(driver: &mut Driver) -> Done {
    for _ in 0..14 {
        match driver.dice.below(20) {
            0 => driver.reopen()?,
            1 => burst(driver)?,
            2 => expunge(driver)?,
            3 => account(driver)?,
            _ => mail(driver)?,
        }
    }
    Ok(())
}

/// A recovered store goes on: mail comes for everybody, and something else.
fn aftermath(driver: &mut Driver) -> Done {
    if driver.state().people.is_empty() {
        driver.one(Command::AddAccount { name: "ann".to_owned(), salt: 1, quota: None })?;
    }
    if driver.dice.percent(70) {
        let letter = driver.letter(700, Marks::default())?;
        let to = driver.state().people.keys().map(|account| (*account, Into::Inbox)).collect();
        driver.one(Command::Deliver { letter, to })?;
    } else {
        burst(driver)?;
    }
    if driver.dice.percent(50) { mail(driver) } else { Ok(()) }
}
