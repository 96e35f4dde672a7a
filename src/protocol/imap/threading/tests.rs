//! THREAD's algorithms on small conversations (RFC 5256), and against a plain model.

use proptest::prelude::*;

use super::*;

/// Threads of messages given as (uid, id, references, subject), each sent a second after the one before,
/// spelled as THREAD does.
fn spelled(threading: Threading, letters: &[(u32, &str, &str, &str)]) -> String {
    let mut gatherer = Gatherer::new(threading);
    for (second, (uid, id, references, subject)) in (0..).zip(letters) {
        let facts = Facts {
            id: Some(id).filter(|id| !id.is_empty()).copied(),
            references: Some(references).filter(|text| !text.is_empty()).copied(),
            in_reply_to: None,
            subject,
            sent: second,
        };
        gatherer.take(Uid::new(*uid).unwrap(), &facts);
    }
    spell(&gatherer.threads())
}

fn spell(twigs: &[Twig]) -> String {
    let mut text = String::new();
    let mut open = Vec::new();
    for (at, twig) in twigs.iter().enumerate() {
        if text.ends_with(|c: char| c.is_ascii_digit()) {
            text.push(' ');
        }
        if twig.branches {
            open.push(twig.depth);
            text.push('(');
        }
        if twig.number > 0 {
            text.push_str(&twig.number.to_string());
        }
        let next = twigs.get(at + 1).map_or(0, |next| next.depth);
        while open.pop_if(|depth| *depth >= next).is_some() {
            text.push(')');
        }
    }
    text
}

#[test]
fn answers_stand_below_what_they_answer() {
    let letters = [
        (2, "<a>", "", "x"),
        (3, "<b>", "", "y"),
        (6, "<c>", "<b>", "Re: y"),
        (4, "<d>", "<b> <c>", "Re: y"),
        (23, "<e>", "<b> <c> <d>", "Re: y"),
        (44, "<f>", "<b> <c>", "Re: y"),
        (7, "<g>", "<b> <c> <f>", "Re: y"),
        (96, "<h>", "<f> <g>", "Re: y"),
    ];
    // The example of RFC 5256 section 4.
    for threading in [Threading::References, Threading::Refs] {
        assert_eq!(spelled(threading, &letters), "(2)(3 6 (4 23)(44 7 96))");
    }
}

#[test]
fn a_message_that_is_missing_holds_its_answers_together() {
    let letters = [(3, "<a>", "<gone>", "one"), (5, "<b>", "<gone>", "two"), (7, "<c>", "<far> <b>", "three")];
    assert_eq!(spelled(Threading::References, &letters), "((3)(5 7))");
    // One that is missing and has a single answer is not seen.
    assert_eq!(spelled(Threading::References, &[(3, "<a>", "<x> <y>", "one")]), "(3)");
}

#[test]
fn threads_of_one_subject_are_joined_but_not_by_refs() {
    let letters = [(1, "<a>", "", "plan"), (2, "<b>", "", "Re: plan"), (3, "<c>", "", "other"), (4, "<d>", "", "plan")];
    assert_eq!(spelled(Threading::References, &letters), "((1 2)(4))(3)");
    assert_eq!(spelled(Threading::Refs, &letters), "(1)(2)(3)(4)");
    let answers = [(1, "<a>", "", "Re: plan"), (2, "<b>", "", "Fwd: plan")];
    assert_eq!(spelled(Threading::References, &answers), "((1)(2))");
    let late = [(1, "<a>", "", "Re: plan"), (2, "<b>", "", "plan")];
    assert_eq!(spelled(Threading::References, &late), "(2 1)");
}

#[test]
fn refs_puts_the_thread_with_the_latest_message_last() {
    let letters = [(1, "<a>", "", "x"), (2, "<b>", "", "y"), (3, "<c>", "<a>", "z")];
    assert_eq!(spelled(Threading::Refs, &letters), "(2)(1 3)");
    assert_eq!(spelled(Threading::References, &letters), "(1 3)(2)");
}

#[test]
fn a_subject_is_a_thread_of_one_level() {
    let letters = [(1, "", "", "a"), (2, "", "", "b"), (3, "", "", "Re: a"), (4, "", "", "Re: b"), (5, "", "", "a")];
    assert_eq!(spelled(Threading::OrderedSubject, &letters), "(1 (3)(5))(2 4)");
    assert_eq!(spelled(Threading::OrderedSubject, &[]), "");
}

#[test]
fn circles_and_second_messages_of_one_identifier_do_no_harm() {
    let circle = [(1, "<a>", "<b>", "x"), (2, "<b>", "<a>", "y"), (3, "<c>", "<c>", "z"), (4, "<a>", "<b>", "w")];
    assert_eq!(spelled(Threading::References, &circle), "(2 (1)(4))(3)");
}

#[test]
fn a_chain_of_any_length_is_cut() {
    let ids: Vec<String> = (0..2000).map(|number| format!("<{number}>")).collect();
    let mut gatherer = Gatherer::new(Threading::References);
    for (number, pair) in (2_u32..).zip(ids.windows(2)) {
        let facts = Facts { id: Some(&pair[1]), references: Some(&pair[0]), sent: number.into(), ..Facts::default() };
        gatherer.take(Uid::new(number).unwrap(), &facts);
    }
    let twigs = gatherer.threads();
    assert_eq!(twigs.iter().filter(|twig| twig.number > 0).count(), 1999);
    assert!(twigs.iter().filter(|twig| twig.depth == 0).count() > 1);
}

proptest! {
    #[test]
    fn every_message_is_in_one_thread(
        letters in prop::collection::vec((0_usize..8, prop::collection::vec(0_usize..8, 0..4), 0_usize..4), 0..20),
        refs in any::<bool>(),
    ) {
        let ids = ["<a>", "<b>", "<c>", "<d>", "<e>", "<f>", "<g>", ""];
        let subjects = ["", "one", "Re: one", "two"];
        let threading = if refs { Threading::Refs } else { Threading::References };
        let mut gatherer = Gatherer::new(threading);
        for (number, (id, references, subject)) in (1_u32..).zip(&letters) {
            let references: String = references.iter().map(|at| ids[*at]).collect();
            let facts = Facts {
                id: Some(ids[*id]),
                references: Some(&references),
                in_reply_to: None,
                subject: subjects[*subject],
                sent: i64::from(number % 5),
            };
            gatherer.take(Uid::new(number).unwrap(), &facts);
        }
        let twigs = gatherer.threads();
        let mut told: Vec<u32> = twigs.iter().map(|twig| twig.number).filter(|number| *number > 0).collect();
        told.sort_unstable();
        prop_assert_eq!(told, (1..=u32::try_from(letters.len()).unwrap()).collect::<Vec<_>>());
        // Each is at most one deeper than the one before, and a missing one has several below it.
        for pair in twigs.windows(2) {
            prop_assert!(pair[1].depth <= pair[0].depth + 1);
            prop_assert!(pair[0].number > 0 || pair[1].depth == pair[0].depth + 1 && pair[1].branches);
        }
        prop_assert!(twigs.last().is_none_or(|last| last.number > 0));
    }
}
