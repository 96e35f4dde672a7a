//! Any bytes are a message the spam filter judges: its features have their bound, learning and
//! taking back leaves the scores as they were, and what is said of it is part of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pillarbox::filter::spam::{Class, FEATURES_MAX, Features, Judges, Model, Size};

fuzz_target!(|input: &[u8]| {
    let features = Features::of(input);
    let hashes = features.hashes();
    assert!(hashes.len() <= FEATURES_MAX && hashes.is_sorted_by(|one, other| one < other));
    let mut model = Model::new(Size::ACCOUNT);
    let before = model.score(&features);
    model.teach(&features, Some(Class::Spam));
    let judges = Judges { seed: None, general: &model, own: None, known: false };
    let judgement = judges.judge(&features);
    assert!(judgement.logit().is_finite() && (0.0..=1.0).contains(&judgement.probability()));
    assert!(judges.reasons(&features, input).len() <= 10);
    model.teach(&features, None);
    assert!((model.score(&features) - before).abs() <= f32::EPSILON);
});
