//! Mail on its way out: a message that waits for others' servers, and how far each recipient is.
//!
//! What a recipient's state may become is decided here, so that the sender's report of an attempt
//! and the operator's orders never undo one another: who has the message, or was given up, stays
//! so, and who is held stays held until he is released. When to try next is the schedule's matter.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::address::{Address, Domain};
use super::date::Timestamp;
use super::envelope::{BodyType, Envelope, Recipient, ReturnContent, ReversePath};
use super::mailbox::AccountId;
use super::message::BlobId;

/// The number of a queued message. It only rises and is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QueueId(pub u64);

impl fmt::Display for QueueId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// When something is due: milliseconds since 1970-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Due(pub u64);

impl From<Timestamp> for Due {
    fn from(at: Timestamp) -> Self {
        Self(u64::try_from(at.0).unwrap_or(0).saturating_mul(1000))
    }
}

/// Longest text of an [`Answer`] in bytes: a reply line (RFC 5321 section 4.5.3.1.5).
pub const ANSWER_TEXT_MAX: usize = 512;

/// Longest name of who gave an [`Answer`] in bytes: that of a domain.
pub const ANSWER_FROM_MAX: usize = 255;

/// The last that was heard about a recipient. Its texts are one line each and are cut to their
/// bounds, so no peer's words grow a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    from: String,
    text: String,
}

impl Answer {
    /// What `from` said (the peer's name; empty when we came to it ourselves): a reply with its
    /// codes, such as `550 5.1.1 no such user`. Control characters become spaces.
    pub fn new(from: &str, text: &str) -> Self {
        Self { from: line(from, ANSWER_FROM_MAX), text: line(text, ANSWER_TEXT_MAX) }
    }

    /// Who said it; empty when we came to it ourselves.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// What was said, codes included.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The beginning of a text, at most `max` bytes, without control characters.
fn line(text: &str, max: usize) -> String {
    let mut line = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if line.len() + c.len_utf8() > max {
            break;
        }
        line.push(c);
    }
    line
}

/// Where a recipient stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// The next attempt is due then.
    Waiting(Due),
    /// The operator holds it back; nothing is due.
    Held,
    /// The next server has taken it. A notification about that is owed from then on (RFC 3461
    /// section 4.1), or none.
    Delivered(Option<Due>),
    /// It was given up. A notification about that is owed from then on, or none.
    Failed(Option<Due>),
}

impl Stage {
    /// When the queue must look at the recipient next, for an attempt or an owed notification.
    pub fn due(self) -> Option<Due> {
        match self {
            Self::Waiting(due) => Some(due),
            Self::Held => None,
            Self::Delivered(owed) | Self::Failed(owed) => owed,
        }
    }

    /// Nothing is left to be done.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Delivered(None) | Self::Failed(None))
    }
}

/// How far the delivery to one recipient is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Where it stands.
    pub stage: Stage,
    /// Attempts made.
    pub attempts: u32,
    /// When the last one was.
    pub tried: Option<Timestamp>,
    /// Seconds that count towards giving up: those in which the network was there.
    pub lapsed_secs: u32,
    /// The sender was told of the delay.
    pub delay_told: bool,
    /// The last that was heard.
    pub answer: Option<Answer>,
}

impl Delivery {
    /// Nothing was tried yet.
    pub fn waiting(due: Due) -> Self {
        Self { stage: Stage::Waiting(due), attempts: 0, tried: None, lapsed_secs: 0, delay_told: false, answer: None }
    }

    /// What becomes of this when an attempt (or a notification) ended in `next`; `None` when
    /// nothing changes. A delivered or failed recipient stays that, so only the owed notification
    /// can be noted as sent. A held one that was under way stays held unless it came to an end.
    pub fn followed_by(&self, mut next: Self) -> Option<Self> {
        match (self.stage, next.stage) {
            (Stage::Delivered(Some(_)), Stage::Delivered(_)) | (Stage::Failed(Some(_)), Stage::Failed(_)) => {}
            (Stage::Delivered(_) | Stage::Failed(_), _) => return None,
            (Stage::Held, Stage::Waiting(_)) => next.stage = Stage::Held,
            _ => {}
        }
        (next != *self).then_some(next)
    }

    /// What becomes of this by the operator's order; `None` when nothing changes.
    pub fn ordered(&self, order: QueueOrder) -> Option<Self> {
        let stage = match (self.stage, order) {
            (Stage::Waiting(_), QueueOrder::Hold) => Stage::Held,
            (Stage::Held, QueueOrder::Release(due)) => Stage::Waiting(due),
            (Stage::Waiting(before), QueueOrder::Retry(due)) if before != due => Stage::Waiting(due),
            _ => return None,
        };
        Some(Self { stage, ..self.clone() })
    }
}

/// What the operator wants of a queued message, for every recipient it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueueOrder {
    /// Who waits is held.
    Hold,
    /// Who is held waits again, until then.
    Release(Due),
    /// Who waits is tried then.
    Retry(Due),
}

/// Who submitted a queued message, which says what is signed, and for whom.
///
/// [`Submitter::Nobody`] and [`Submitter::Account`] are spelled in a store as `None` and `Some` of an account's number,
/// which they once were: variants come at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Submitter {
    /// Nobody here: it is forwarded, or on its way to a better server.
    #[default]
    Nobody,
    /// A user; the account may be gone.
    Account(AccountId),
    /// A machine of a network that needs no login. It speaks for its own sender alone.
    Network,
    /// This server: notifications and reports.
    Server,
    /// This server, with a report about TLS, which goes whatever becomes of TLS (RFC 8460 section 3).
    TlsReport,
}

impl Submitter {
    /// It was written here, or the one who wrote it is known here.
    pub fn is_ours(self) -> bool {
        self != Self::Nobody
    }
}

impl From<Option<AccountId>> for Submitter {
    fn from(account: Option<AccountId>) -> Self {
        account.map_or(Self::Nobody, Self::Account)
    }
}

/// A message to be queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewQueued {
    /// From whom and for whom; only recipients with a domain.
    pub envelope: Envelope,
    /// REQUIRETLS was asked for (RFC 8689).
    pub require_tls: bool,
    /// Who submitted it.
    pub by: Submitter,
    /// When the first attempt is due.
    pub due: Due,
}

/// A queued message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Its number.
    pub id: QueueId,
    /// MAIL FROM
    pub from: ReversePath,
    /// BODY=
    pub body: BodyType,
    /// SMTPUTF8 was asked for (RFC 6531).
    pub utf8: bool,
    /// RET=
    pub ret: Option<ReturnContent>,
    /// ENVID=, in xtext as given.
    pub envelope_id: Option<String>,
    /// REQUIRETLS was asked for (RFC 8689).
    pub require_tls: bool,
    /// Who submitted it.
    pub by: Submitter,
    /// The message itself.
    pub blob: BlobId,
    /// Its size in bytes.
    pub size: u32,
    /// When it came in.
    pub accepted: Timestamp,
    /// How many recipients it has; their numbers are those below.
    pub recipients: u32,
    /// How many of them are not settled.
    pub unsettled: u32,
}

/// A recipient of a queued message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedRecipient {
    /// Its place among the message's recipients, from 0.
    pub number: u32,
    /// The address with what RFC 3461 says along.
    pub recipient: Recipient,
    /// How far it is.
    pub delivery: Delivery,
}

impl QueuedRecipient {
    /// The recipient's address.
    pub fn address(&self) -> Option<&Address> {
        self.recipient.path.address()
    }
}

/// A recipient that something is due for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scheduled {
    /// Since when, or from when on.
    pub due: Due,
    /// The message.
    pub id: QueueId,
    /// The recipient's number.
    pub recipient: u32,
}

/// How much mail waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct QueueFigures {
    /// Messages.
    pub messages: u64,
    /// Recipients that something is due for, now or later.
    pub scheduled: u64,
    /// When the oldest message came, seconds since 1970.
    pub oldest: Option<i64>,
    /// When the next recipient is due, seconds since 1970.
    pub next: Option<i64>,
}

/// A domain that mail waits for, and the first of what is due there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The domain.
    pub domain: Domain,
    /// What comes first.
    pub first: Scheduled,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submitter_is_spelled_as_the_account_once_was() {
        let spelled = |by: Submitter| postcard::to_allocvec(&by).unwrap();
        assert_eq!(spelled(Submitter::Nobody), postcard::to_allocvec(&None::<u32>).unwrap());
        assert_eq!(spelled(Submitter::Account(AccountId(700))), postcard::to_allocvec(&Some(700_u32)).unwrap());
    }

    fn at(stage: Stage) -> Delivery {
        Delivery { stage, ..Delivery::waiting(Due(0)) }
    }

    fn becomes(from: Stage, to: Stage) -> Option<Stage> {
        at(from).followed_by(at(to)).map(|next| next.stage)
    }

    #[test]
    fn who_has_the_message_or_was_given_up_stays_so() {
        let (waiting, owed) = (Stage::Waiting(Due(5)), Some(Due(7)));
        assert_eq!(becomes(waiting, Stage::Delivered(owed)), Some(Stage::Delivered(owed)));
        assert_eq!(becomes(Stage::Delivered(owed), Stage::Delivered(None)), Some(Stage::Delivered(None)));
        assert_eq!(becomes(Stage::Failed(owed), Stage::Failed(None)), Some(Stage::Failed(None)));
        for (from, to) in [
            (Stage::Delivered(owed), waiting),
            (Stage::Delivered(None), Stage::Delivered(owed)),
            (Stage::Delivered(owed), Stage::Failed(None)),
            (Stage::Failed(None), waiting),
            (Stage::Failed(owed), Stage::Held),
            (waiting, waiting),
        ] {
            assert_eq!(becomes(from, to), None, "{from:?} {to:?}");
        }
    }

    #[test]
    fn a_held_recipient_stays_held_until_it_is_released_or_its_attempt_ends() {
        let tried = Delivery { attempts: 3, ..at(Stage::Waiting(Due(9))) };
        let held = at(Stage::Held).followed_by(tried).unwrap();
        assert_eq!((held.stage, held.attempts), (Stage::Held, 3));
        assert_eq!(becomes(Stage::Held, Stage::Delivered(None)), Some(Stage::Delivered(None)));
        assert_eq!(held.ordered(QueueOrder::Retry(Due(1))), None);
        let released = held.ordered(QueueOrder::Release(Due(4))).unwrap();
        assert_eq!((released.stage, released.attempts), (Stage::Waiting(Due(4)), 3));
        assert_eq!(released.ordered(QueueOrder::Retry(Due(4))), None);
        assert_eq!(released.ordered(QueueOrder::Hold), Some(held));
        assert_eq!(at(Stage::Failed(Some(Due(1)))).ordered(QueueOrder::Retry(Due(4))), None);
    }

    #[test]
    fn an_answer_is_one_line_within_its_bounds() {
        let answer = Answer::new("mx\r\n.test", &"é\n".repeat(400));
        assert_eq!(answer.from(), "mx  .test");
        assert!(answer.text().starts_with("é é ") && (510..=ANSWER_TEXT_MAX).contains(&answer.text().len()));
    }

    #[test]
    fn seconds_before_1970_are_due_at_once() {
        assert_eq!((Due::from(Timestamp(-1)), Due::from(Timestamp(2))), (Due(0), Due(2000)));
    }
}
