//! One score of all that is known, with the share of each and the strongest reasons.

use super::Class;
use super::features::{Features, Words};
use super::model::Model;
use super::seed::Seed;

/// Most reasons that are named.
const REASONS_MAX: usize = 10;

/// Part of a score.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Share {
    /// Whose it is.
    pub what: String,
    /// In logits: above zero is spam.
    pub logit: f32,
}

/// A reason.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Reason {
    /// What the message shows.
    pub what: String,
    /// What that adds to the score, in logits.
    pub logit: f32,
}

/// What is thought of a message.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Judgement {
    /// The parts of the score.
    pub shares: Vec<Share>,
    /// The strongest reasons, strongest first; only where they were asked for.
    pub reasons: Vec<Reason>,
}

impl Judgement {
    /// Judges by the box's model and, where there is one, the account's on top of it. Reasons are named
    /// where `words` tells what the features say.
    #[must_use]
    pub fn of(features: &Features, words: Option<&Words>, general: &Model, own: Option<&Model>) -> Self {
        Self::seeded(features, words, None, general, own)
    }

    /// As [`Judgement::of`], with the seed that Pillarbox came with below both, as far as a box that
    /// has learnt as much as this one still heeds it.
    #[must_use]
    pub fn seeded(
        features: &Features,
        words: Option<&Words>,
        seed: Option<&Seed>,
        general: &Model,
        own: Option<&Model>,
    ) -> Self {
        let learnt = general.learnt(Class::Ham).saturating_add(general.learnt(Class::Spam));
        let share = |what: &str, logit: f32| Share { what: what.to_owned(), logit };
        let shares = [
            seed.map(|seed| share("what Pillarbox came with", seed.score(features, learnt))),
            Some(share("this box", general.score(features))),
            own.map(|own| share("this account", own.score(features))),
        ];
        let shares = shares.into_iter().flatten().collect();
        let reasons = words.map(|words| {
            let mut each: Vec<(u32, f32)> = general.shares(features).collect();
            if let Some(own) = own {
                add(&mut each, own.shares(features));
            }
            if let Some(seed) = seed {
                add(&mut each, seed.shares(features, learnt));
            }
            reasons(words, each)
        });
        Self { shares, reasons: reasons.unwrap_or_default() }
    }

    /// The score in logits.
    #[must_use]
    pub fn logit(&self) -> f32 {
        self.shares.iter().map(|share| share.logit).sum()
    }

    /// The probability that it is spam.
    #[must_use]
    pub fn probability(&self) -> f32 {
        1.0 / (1.0 + (-self.logit()).exp())
    }
}

/// Adds up: both go through the same hashes in the same order.
fn add(sums: &mut [(u32, f32)], more: impl Iterator<Item = (u32, f32)>) {
    for ((_, sum), (_, more)) in sums.iter_mut().zip(more) {
        *sum += more;
    }
}

/// The strongest shares, in words.
fn reasons(words: &Words, mut shares: Vec<(u32, f32)>) -> Vec<Reason> {
    shares.retain(|(_, logit)| logit.abs() > f32::EPSILON);
    shares.sort_by(|(_, one), (_, other)| other.abs().total_cmp(&one.abs()));
    let told = shares.into_iter().filter_map(|(hash, logit)| Some(Reason { what: words.get(&hash)?.clone(), logit }));
    told.take(REASONS_MAX).collect()
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
        let (features, words) = Features::with_words(message);
        let judgement = Judgement::of(&features, Some(&words), &model, None);
        assert!(judgement.reasons.len() <= REASONS_MAX);
        assert!(
            judgement.reasons.iter().any(|reason| reason.what == "\"cheap\" in the subject" && reason.logit > 0.0),
            "{judgement:?}"
        );
        assert!(judgement.reasons.is_sorted_by(|one, other| one.logit.abs() >= other.logit.abs()));
        assert_eq!(judgement.probability() > 0.5, judgement.logit() > 0.0);
    }

    #[test]
    fn an_accounts_model_is_added_to_the_boxs() {
        let features = Features::of(b"Subject: offer\r\n\r\nan offer\r\n");
        let (mut general, mut own) = (Model::new(Size::BOX), Model::new(Size::ACCOUNT));
        general.teach(&features, Some(Class::Spam));
        own.teach(&features, Some(Class::Ham));
        let both = Judgement::of(&features, None, &general, Some(&own));
        assert!(both.logit() < Judgement::of(&features, None, &general, None).logit());
        assert_eq!(both.shares.len(), 2);
    }
}
