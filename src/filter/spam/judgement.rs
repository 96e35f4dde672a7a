//! One score of all that is known, with the share of each and the strongest reasons.

use super::Class;
use super::features::Features;
use super::known::KNOWN_LOGIT;
use super::model::Model;
use super::seed::Seed;

/// Most reasons that are named.
const REASONS_MAX: usize = 10;

/// Most of them that are neither words nor links: what a message says tells more than how it is made.
const OTHERS_MAX: usize = 5;

/// Most features that reasons are looked for in: many are runs of letters, which tell nobody anything.
const LOOKED_AT_MAX: usize = 500;

/// Messages after which an account's own model has half of the share it will have.
const OWN_TRUST: f32 = 50.0;

/// The largest share of an account's own model, which is the smaller and the coarser one.
const OWN_MAX: f32 = 0.5;

/// What a logit of the score is worth as one of the probability. Fitted to two corpora judged in order:
/// 1.91 on one, 1.96 on the other (benches/spam.md).
const CALIBRATION: f32 = 1.9;

/// Part of a score.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Share {
    /// Whose it is.
    pub what: String,
    /// In logits: above zero is spam.
    pub logit: f32,
}

/// A reason.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Reason {
    /// What the message shows.
    pub what: String,
    /// What that adds to the score, in logits.
    pub logit: f32,
}

/// What is thought of a message.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Judgement {
    /// The parts of the score, which is their sum.
    pub shares: Vec<Share>,
    /// The strongest reasons, strongest first; only where they were asked for.
    pub reasons: Vec<Reason>,
}

/// What a message is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Judges<'m> {
    /// What Pillarbox came with; a box that has learnt much heeds it less.
    pub seed: Option<&'m Seed>,
    /// The box's model.
    pub general: &'m Model,
    /// The account's, where it has learnt something. The more it has, the more it counts, and the less the
    /// more of what the box has learnt is this account's: where nobody else teaches, the box's says it all.
    pub own: Option<&'m Model>,
    /// The account has written to whoever sends this.
    pub known: bool,
    /// What is known of the sender besides.
    pub sender: &'m [Share],
}

impl Judges<'_> {
    /// How much each model counts; both together 1.
    fn parts(&self) -> (f32, f32) {
        let Some(own) = self.own else { return (1.0, 0.0) };
        #[expect(clippy::cast_precision_loss, reason = "a share of many needs no exact count")]
        let (learnt, all) = (learnt(own) as f32, learnt(self.general).max(1) as f32);
        let part = OWN_MAX * learnt / (learnt + OWN_TRUST) * (1.0 - learnt / all).clamp(0.0, 1.0);
        (1.0 - part, part)
    }

    /// Judges a message.
    #[must_use]
    pub fn judge(&self, features: &Features) -> Judgement {
        let parts = self.parts();
        let share = |what: &str, logit| Some(Share { what: what.to_owned(), logit });
        let shares = [
            self.seed.and_then(|seed| share("what Pillarbox came with", seed.score(features, learnt(self.general)))),
            share("what this box has learnt", parts.0 * self.general.score(features)),
            self.own.and_then(|own| share("what this account has learnt", parts.1 * own.score(features))),
            self.known.then(|| share("you have written to the sender", KNOWN_LOGIT)).flatten(),
        ];
        let shares = shares.into_iter().flatten().chain(self.sender.iter().cloned());
        Judgement { shares: shares.collect(), reasons: Vec::new() }
    }

    /// Names the strongest reasons; `head` is what the features were read from.
    #[must_use]
    pub fn reasons(&self, features: &Features, head: &[u8]) -> Vec<Reason> {
        let parts = self.parts();
        let mut shares: Vec<(u32, f32)> =
            self.general.shares(features).map(|(hash, logit)| (hash, logit * parts.0)).collect();
        if let Some(own) = self.own {
            add(&mut shares, own.shares(features).map(|(_, more)| more * parts.1));
        }
        if let Some(seed) = self.seed {
            add(&mut shares, seed.shares(features, learnt(self.general)).map(|(_, more)| more));
        }
        shares.retain(|(_, logit)| logit.abs() > f32::EPSILON);
        shares.sort_by(|(_, one), (_, other)| other.abs().total_cmp(&one.abs()));
        shares.truncate(LOOKED_AT_MAX);
        let hashes: Vec<u32> = shares.iter().map(|(hash, _)| *hash).collect();
        let mut words = Features::words_of(head, &hashes);
        let told = shares.into_iter().filter_map(|(hash, logit)| Some((words.remove(&hash)?, logit)));
        let mut told: Vec<_> = told.collect();
        // What adds as much comes by how much it says; a message that was learnt alone has many such.
        #[expect(clippy::cast_possible_truncation, reason = "logits are small")]
        told.sort_by_key(|(saying, logit)| (-(logit.abs() * 1000.0).round() as i32, saying.rank));
        let mut others = 0;
        told.retain(|(saying, _)| {
            others += usize::from(saying.rank > 0);
            saying.rank == 0 || others <= OTHERS_MAX
        });
        told.into_iter().take(REASONS_MAX).map(|(saying, logit)| Reason { what: saying.what, logit }).collect()
    }
}

/// Messages that a model has learnt.
fn learnt(model: &Model) -> u32 {
    model.learnt(Class::Ham).saturating_add(model.learnt(Class::Spam))
}

/// Adds up: both go through the same hashes in the same order.
fn add(sums: &mut [(u32, f32)], more: impl Iterator<Item = f32>) {
    for ((_, sum), more) in sums.iter_mut().zip(more) {
        *sum += more;
    }
}

impl Judgement {
    /// The score in logits.
    #[must_use]
    pub fn logit(&self) -> f32 {
        self.shares.iter().map(|share| share.logit).sum()
    }

    /// The probability that it is spam: of messages with 0.9, nine in ten are.
    #[must_use]
    pub fn probability(&self) -> f32 {
        1.0 / (1.0 + (-CALIBRATION * self.logit()).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Size;
    use super::*;

    #[test]
    fn the_reasons_are_the_words_it_was_taught_by() {
        let mut model = Model::new(Size::BOX);
        model.teach(&Features::of(b"Subject: cheap watches\r\n\r\nbuy a watch\r\n"), Some(Class::Spam));
        model.teach(&Features::of(b"Subject: minutes\r\n\r\nthe meeting of today\r\n"), Some(Class::Ham));
        let message = b"Subject: cheap\r\n\r\nbuy today\r\n";
        let features = Features::of(message);
        let judges = Judges { seed: None, general: &model, own: None, known: false, sender: &[] };
        let (judgement, reasons) = (judges.judge(&features), judges.reasons(&features, message));
        assert!(reasons.len() <= REASONS_MAX);
        assert!(
            reasons.iter().any(|reason| reason.what == "\"cheap\" in the subject" && reason.logit > 0.0),
            "{reasons:?}"
        );
        assert!(reasons.is_sorted_by(|one, other| one.logit.abs() >= other.logit.abs()));
        assert_eq!(judgement.probability() > 0.5, judgement.logit() > 0.0);
    }

    #[test]
    fn an_accounts_model_and_its_correspondents_are_shares_of_their_own() {
        let features = Features::of(b"Subject: offer\r\n\r\nan offer\r\n");
        let (mut general, mut own) = (Model::new(Size::BOX), Model::new(Size::ACCOUNT));
        general.teach(&features, Some(Class::Spam));
        general.teach(&Features::of(b"Subject: minutes\r\n\r\nof the meeting\r\n"), Some(Class::Ham));
        own.teach(&features, Some(Class::Ham));
        let alone =
            Judges { seed: None, general: &general, own: None, known: false, sender: &[] }.judge(&features).logit();
        let seeded = Judges { seed: Seed::shipped().as_ref(), general: &general, own: None, known: false, sender: &[] }
            .judge(&features);
        assert_eq!(seeded.shares[0].what, "what Pillarbox came with");
        let both =
            Judges { seed: None, general: &general, own: Some(&own), known: false, sender: &[] }.judge(&features);
        let known =
            Judges { seed: None, general: &general, own: Some(&own), known: true, sender: &[] }.judge(&features);
        assert!(both.logit() < alone);
        assert!((known.logit() - both.logit() - KNOWN_LOGIT).abs() < 1e-6);
        assert_eq!((both.shares.len(), known.shares.len()), (2, 3));
        let sender = [Share { what: "the sending address has no name".to_owned(), logit: 0.5 }];
        let told = Judges { seed: None, general: &general, own: Some(&own), known: false, sender: &sender };
        assert!((told.judge(&features).logit() - both.logit() - 0.5).abs() < 1e-6);
    }
}
