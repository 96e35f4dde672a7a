//! Queued mail: how it is shown, what must be there, and journeys that send it on its way.

use std::collections::BTreeMap;

use pillarbox::mail::address::{Address, Domain};
use pillarbox::mail::date::Timestamp;
use pillarbox::mail::envelope::{BodyType, Envelope, ForwardPath, Notify, Recipient, ReversePath};
use pillarbox::mail::mailbox::AccountId;
use pillarbox::mail::queue::{Answer, Delivery, Due, NewQueued, QueueOrder, Scheduled, Stage, Submitter};
use pillarbox::store::{ReadError, Reader};

use super::command::{Command, Into, Part, address};
use super::dice::Dice;
use super::driver::Driver;
use super::judge::Failure;
use super::letter::{Marks, Print};

/// A message that waits for others' servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) print: Print,
    pub(crate) by: Option<u32>,
    /// Address and state, by number.
    pub(crate) recipients: Vec<(String, Delivery)>,
}

/// Messages by number.
pub(crate) type Queue = BTreeMap<u64, Waiting>;

/// Most of anything that is looked for.
const MANY: usize = 10_000;

impl Waiting {
    pub(crate) fn new(print: Print, by: Option<u32>, to: &[String], due: u64) -> Self {
        let recipients = to.iter().map(|address| (address.clone(), Delivery::waiting(Due(due))));
        Self { print, by, recipients: recipients.collect() }
    }

    fn unsettled(&self) -> usize {
        self.recipients.iter().filter(|(_, delivery)| !delivery.stage.is_settled()).count()
    }
}

/// What a message is that is to be queued.
pub(crate) fn envelope(by: Option<u32>, to: &[String], due: u64) -> NewQueued {
    let recipient = |text: &String| Recipient {
        path: ForwardPath::Address(Address::parse(text).expect("an address")),
        notify: Notify::default(),
        original: None,
    };
    let envelope = Envelope {
        from: by.map_or(ReversePath::Null, |_| ReversePath::Address(address("ann"))),
        recipients: to.iter().map(recipient).collect(),
        body: BodyType::default(),
        utf8: false,
        ret: None,
        envelope_id: None,
    };
    NewQueued { envelope, require_tls: false, by: by.map(AccountId).into(), due: Due(due) }
}

/// Notes new states; tells how many recipients are unsettled, and lets the message go at none.
pub(crate) fn update(queue: &mut Queue, id: u64, states: &[(u32, Delivery)]) -> Result<u32, String> {
    let waiting = queue.get_mut(&id).ok_or("there was no such queued message")?;
    for (number, next) in states {
        let index = usize::try_from(*number).unwrap_or(usize::MAX);
        let (_, delivery) = waiting.recipients.get_mut(index).ok_or("there was no such recipient")?;
        if let Some(next) = delivery.followed_by(next.clone()) {
            *delivery = next;
        }
    }
    let unsettled = waiting.unsettled();
    if unsettled == 0 {
        queue.remove(&id);
    }
    Ok(u32::try_from(unsettled).unwrap_or(u32::MAX))
}

/// Does an operator's order; tells how many recipients it concerned.
pub(crate) fn order(queue: &mut Queue, id: u64, order: QueueOrder) -> Result<u32, String> {
    let mut concerned = 0;
    for (_, delivery) in &mut queue.get_mut(&id).ok_or("there was no such queued message")?.recipients {
        if let Some(next) = delivery.ordered(order) {
            *delivery = next;
            concerned += 1;
        }
    }
    Ok(concerned)
}

/// The queue as the store shows it; `print` reads a body. The schedule is compared with a recount.
pub(crate) fn shown(
    reader: &Reader,
    print: &mut dyn FnMut(u64) -> Result<Print, String>,
) -> Result<Vec<(u64, u64, Waiting)>, String> {
    let told = |error: ReadError| format!("a read of the queue fails: {error}");
    let mut queue = Vec::new();
    let mut scheduled = Vec::new();
    let mut places: BTreeMap<String, Vec<Scheduled>> = BTreeMap::new();
    for queued in reader.queued_list(None, MANY).map_err(told)? {
        let mut recipients = Vec::new();
        for found in reader.recipients(queued.id, 0, MANY).map_err(told)? {
            let address = found.address().ok_or("a recipient without a domain")?;
            if let Some(due) = found.delivery.stage.due() {
                let row = Scheduled { due, id: queued.id, recipient: found.number };
                scheduled.push(row);
                places.entry(address.domain().as_str().to_owned()).or_default().push(row);
            }
            recipients.push((address.to_string(), found.delivery));
        }
        let by = match queued.by {
            Submitter::Account(account) => Some(account.0),
            _ => None,
        };
        let waiting = Waiting { print: print(queued.blob.0)?, by, recipients };
        let counts = (waiting.recipients.len(), waiting.unsettled(), waiting.print.length);
        if counts != (queued.recipients as usize, queued.unsettled as usize, queued.size as usize) {
            return Err(format!("queued message {}: recount {counts:?}, counters {queued:?}", queued.id));
        }
        queue.push((queued.id.0, queued.blob.0, waiting));
    }
    scheduled.sort_unstable();
    if reader.due(Due(u64::MAX), MANY).map_err(told)? != scheduled {
        return Err("what is due is not what the recipients' states say".to_owned());
    }
    let destinations = reader.destinations(None, MANY).map_err(told)?;
    if !destinations.iter().map(|place| place.domain.as_str()).eq(places.keys()) {
        return Err("the destinations are not the recipients'".to_owned());
    }
    for (domain, rows) in &mut places {
        rows.sort_unstable();
        let domain = Domain::parse(domain).map_err(|_| "a destination that is no domain")?;
        if reader.due_at(&domain, Due(u64::MAX), MANY).map_err(told)? != *rows {
            return Err(format!("what is due at {domain} is not what the recipients' states say"));
        }
    }
    Ok(queue)
}

fn recipients(dice: &mut Dice) -> Vec<String> {
    let domains = ["far.test", "away.test", "elsewhere.test"];
    let address = |dice: &mut Dice| format!("u{}@{}", dice.below(50), dice.pick(&domains));
    (0..=dice.below(4)).map(|_| address(dice)).collect()
}

fn outcome(dice: &mut Dice) -> Delivery {
    let due = Due(dice.below(1_000_000) as u64);
    let owed = dice.percent(30).then_some(due);
    let stage = match dice.below(10) {
        0..4 => Stage::Waiting(due),
        4..8 => Stage::Delivered(owed),
        _ => Stage::Failed(owed),
    };
    Delivery {
        stage,
        attempts: 1 + u32::try_from(dice.below(5)).unwrap_or(0),
        tried: Some(Timestamp(i64::try_from(dice.below(1_000_000)).unwrap_or(0))),
        lapsed_secs: 60,
        delay_told: dice.percent(20),
        answer: dice.percent(60).then(|| Answer::new("mx.far.test", "451 4.3.0 not now")),
    }
}

/// Somebody sends a message: to others' servers, to people here, or both; maybe to lists as well, whose copies
/// are other messages.
pub(crate) fn submission(driver: &mut Driver) -> Result<Command, Failure> {
    let by = driver.person();
    let sent = driver.dice.percent(70).then_some((by, Into::Special(pillarbox::mail::mailbox::SpecialUse::Sent)));
    let mut parts = vec![part(driver, Some(by), sent)?];
    while parts.len() < 4 && driver.dice.percent(30) {
        parts.push(part(driver, Some(by), None)?);
    }
    Ok(Command::Submit { parts, about: None })
}

fn part(driver: &mut Driver, by: Option<u32>, sent: Option<(u32, Into)>) -> Result<Part, Failure> {
    let size = driver.size();
    let letter = driver.letter(size, Marks::default())?;
    let local = if driver.dice.percent(40) { vec![(driver.person(), Into::Inbox)] } else { Vec::new() };
    let to = recipients(&mut driver.dice);
    let (due, held) = (driver.dice.below(1_000_000) as u64, driver.dice.percent(10));
    Ok(Part { letter, local: local.into_iter().chain(sent).collect(), by, to, due, held })
}

/// Something happens to a queued message; a new one is sent when there is none.
pub(crate) fn progress(driver: &mut Driver) -> Result<Command, Failure> {
    let ids = driver.state().queue.keys().copied().collect::<Vec<_>>();
    if ids.is_empty() {
        return submission(driver);
    }
    let id = *driver.dice.pick(&ids);
    let count = driver.state().queue[&id].recipients.len();
    let mut states = Vec::new();
    for number in 0..count {
        if driver.dice.percent(60) {
            states.push((u32::try_from(number).unwrap_or(0), outcome(&mut driver.dice)));
        }
    }
    let due = Due(driver.dice.below(1_000_000) as u64);
    Ok(match driver.dice.below(10) {
        0 => Command::Cancel { id },
        1 => Command::Order { id, order: QueueOrder::Hold },
        2 => Command::Order { id, order: QueueOrder::Release(due) },
        3 => Command::Order { id, order: QueueOrder::Retry(due) },
        4..6 => {
            // A notification to the sender, noted in the same change.
            let letter = driver.letter(900, Marks::default())?;
            let local = vec![(driver.person(), Into::Inbox)];
            let to = if driver.dice.percent(30) { recipients(&mut driver.dice) } else { Vec::new() };
            let part = Part { letter, local, by: None, to, due: due.0, held: false };
            Command::Submit { parts: vec![part], about: Some((id, states)) }
        }
        _ => Command::Update { id, states },
    })
}

/// A day of somebody who writes much.
pub(crate) fn run(driver: &mut Driver) -> Result<(), Failure> {
    for round in 0..16 {
        let command = if round % 3 == 0 { submission(driver)? } else { progress(driver)? };
        driver.one(command)?;
    }
    Ok(())
}
