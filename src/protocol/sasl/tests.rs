//! Exchanges played message by message: what each mechanism asks for, and what it refuses.

use super::scram::{CLIENT_NONCE_MAX, saslname};
use super::*;
use crate::mail::secret::tests::password;
use proptest::prelude::*;

const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: [u8; 18] = [9; 18];
const BINDING: ChannelBinding = ChannelBinding([3; 32]);
const BOUND: Channel = Channel { binding: Some(BINDING), certificate: None };
const BOUND_FIRST: &str = "p=tls-exporter,,n=user,r=rOprNGfwEbeRWgbNEkqO";

fn identity() -> Identity {
    Identity { account: AccountId(1), address: Address::parse("user@pillarbox.test").unwrap() }
}

fn verifier() -> ScramVerifier {
    ScramVerifier::derive(&password("pencil"), [5; 16], 16)
}

fn refused(next: &Move, why: Refusal) -> bool {
    matches!(next, Move::Done(Err(refusal)) if *refusal == why)
}

fn challenge(next: Move) -> String {
    match next {
        Move::Challenge(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("no challenge: {other:?}"),
    }
}

fn checks(next: &Move, user: &str, secret: &str) -> bool {
    matches!(next, Move::Ask(Request::CheckPassword { login, password })
        if login == user && password.reveal() == secret)
}

/// The client's side of SCRAM: the final message for a password.
fn client_final(first: &str, server_first: &str, secret: &str, binding: &str) -> String {
    let bare = first.splitn(3, ',').nth(2).unwrap();
    let nonce = server_first.split(',').next().unwrap();
    let without_proof = format!("c={binding},{nonce}");
    let auth_message = format!("{bare},{server_first},{without_proof}");
    let mut salted = [0; 32];
    let rounds = std::num::NonZeroU32::new(16).unwrap();
    ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA256, rounds, &[5; 16], secret.as_bytes(), &mut salted);
    let hmac = |key: &[u8], text: &[u8]| {
        ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key), text).as_ref().to_vec()
    };
    let client_key = hmac(&salted, b"Client Key");
    let stored_key = ring::digest::digest(&ring::digest::SHA256, &client_key);
    let signature = hmac(stored_key.as_ref(), auth_message.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
    format!("{without_proof},p={}", STANDARD.encode(proof))
}

fn scram_until_final(first: &str) -> (Exchange, String) {
    let (mut exchange, next) = Exchange::start(Mechanism::ScramSha256, Some(first.as_bytes()), None);
    assert!(matches!(next, Move::Ask(Request::Verifier { .. })), "{next:?}");
    let next = exchange.resume(Answer::Verifier { verifier: verifier(), nonce: SERVER_NONCE });
    (exchange, challenge(next))
}

#[test]
fn plain_asks_for_the_check_of_login_and_password() {
    let (mut exchange, next) = Exchange::start(Mechanism::Plain, Some(b"\0user\0pencil"), None);
    assert!(checks(&next, "user", "pencil"));
    assert!(matches!(exchange.resume(Answer::Login(Ok(identity()))), Move::Done(Ok(who)) if who == identity()));

    let (mut exchange, next) = Exchange::start(Mechanism::Plain, None, None);
    assert_eq!(challenge(next), "");
    assert!(checks(&exchange.respond(b"user\0user\0pencil"), "user", "pencil"));
    let next = exchange.resume(Answer::Login(Err(Refusal::Credentials)));
    assert!(refused(&next, Refusal::Credentials));
}

#[test]
fn plain_that_acts_for_another_or_is_no_triple_is_malformed() {
    for message in
        [&b"root\0user\0pencil"[..], b"", b"user", b"\0user", b"\0user\0", b"\0\0pencil", b"\0u\0p\0x", b"\0\xff\0p"]
    {
        let (_, next) = Exchange::start(Mechanism::Plain, Some(message), None);
        assert!(refused(&next, Refusal::Malformed), "{message:?}");
    }
    let long = [b"\0user\0".to_vec(), vec![b'x'; RESPONSE_MAX]].concat();
    assert!(refused(&Exchange::start(Mechanism::Plain, Some(&long), None).1, Refusal::Malformed));
}

#[test]
fn login_prompts_for_both() {
    let (mut exchange, next) = Exchange::start(Mechanism::Login, None, None);
    assert_eq!(challenge(next), "Username:");
    assert_eq!(challenge(exchange.respond(b"user")), "Password:");
    assert!(checks(&exchange.respond(b"pencil"), "user", "pencil"));

    let (_, next) = Exchange::start(Mechanism::Login, Some(b"user"), None);
    assert_eq!(challenge(next), "Password:");
    let (_, next) = Exchange::start(Mechanism::Login, Some(b""), None);
    assert_eq!(challenge(next), "Username:");
}

#[test]
fn scram_ends_with_the_servers_signature_and_an_empty_response() {
    for (first, binding) in
        [(CLIENT_FIRST, "biws"), ("y,,n=user,r=abc", "eSws"), ("n,a=user,n=user,r=x", "bixhPXVzZXIs")]
    {
        let (mut exchange, server_first) = scram_until_final(first);
        let nonce = first.rsplit_once("r=").unwrap().1;
        let wanted = format!("r={nonce}{},s={},i=16", STANDARD.encode([9; 18]), STANDARD.encode([5; 16]));
        assert_eq!(server_first, wanted);
        let last = client_final(first, &server_first, "pencil", binding);
        let next = exchange.respond(last.as_bytes());
        assert!(matches!(&next, Move::Ask(Request::Concluded { login, proved: true }) if login == "user"), "{next:?}");
        let bare = first.splitn(3, ',').nth(2).unwrap();
        let without_proof = last.rsplit_once(",p=").unwrap().0;
        let signature = verifier().server_signature(format!("{bare},{server_first},{without_proof}").as_bytes());
        let next = exchange.resume(Answer::Login(Ok(identity())));
        assert_eq!(challenge(next), format!("v={}", STANDARD.encode(signature)));
        assert!(matches!(exchange.respond(b""), Move::Done(Ok(_))));
        assert!(refused(&exchange.respond(b""), Refusal::Malformed), "it is over");
    }
}

/// What a client of PLUS sends back in `c=` (RFC 5802 section 7).
fn cbind(header: &str, binding: ChannelBinding) -> String {
    STANDARD.encode([header.as_bytes(), &binding.0].concat())
}

fn plus_until_final() -> (Exchange, String) {
    let (mut exchange, next) = Exchange::start(Mechanism::ScramSha256Plus, Some(BOUND_FIRST.as_bytes()), Some(&BOUND));
    assert!(matches!(next, Move::Ask(Request::Verifier { .. })), "{next:?}");
    let next = exchange.resume(Answer::Verifier { verifier: verifier(), nonce: SERVER_NONCE });
    (exchange, challenge(next))
}

#[test]
fn plus_lets_in_who_is_at_the_other_end_of_this_connection_and_nobody_else() {
    let (mut exchange, server_first) = plus_until_final();
    let last = client_final(BOUND_FIRST, &server_first, "pencil", &cbind("p=tls-exporter,,", BINDING));
    assert!(matches!(exchange.respond(last.as_bytes()), Move::Ask(Request::Concluded { proved: true, .. })));
    assert!(challenge(exchange.resume(Answer::Login(Ok(identity())))).starts_with("v="));

    // Somebody in between has another connection to each side; or it is none of the data at all.
    for binding in [
        cbind("p=tls-exporter,,", ChannelBinding([4; 32])),
        cbind("n,,", BINDING),
        STANDARD.encode("p=tls-exporter,,"),
        "biws".to_owned(),
    ] {
        let (mut exchange, server_first) = plus_until_final();
        let last = client_final(BOUND_FIRST, &server_first, "pencil", &binding);
        assert!(refused(&exchange.respond(last.as_bytes()), Refusal::Malformed), "{binding}");
    }
}

#[test]
fn a_flag_that_contradicts_what_was_offered_is_refused() {
    use Mechanism::{ScramSha256, ScramSha256Plus};
    for (mechanism, flag, binding) in [
        // It could bind and believes that we cannot: the list was shortened on its way.
        (ScramSha256, "y", Some(BINDING)),
        (ScramSha256, "p=tls-exporter", Some(BINDING)),
        (ScramSha256Plus, "n", Some(BINDING)),
        (ScramSha256Plus, "y", Some(BINDING)),
        (ScramSha256Plus, "p=tls-unique", Some(BINDING)),
        (ScramSha256Plus, "p=tls-exporter", None),
    ] {
        let first = format!("{flag},,n=user,r=abc");
        let channel = Channel { binding, certificate: None };
        let (_, next) = Exchange::start(mechanism, Some(first.as_bytes()), Some(&channel));
        assert!(refused(&next, Refusal::Malformed), "{mechanism:?} {first}");
    }
    let (_, next) = Exchange::start(ScramSha256, Some(CLIENT_FIRST.as_bytes()), Some(&BOUND));
    assert!(matches!(next, Move::Ask(_)), "a client that cannot bind need not");
    assert_eq!(Mechanism::offered("scram-sha-256-plus", None), None);
    assert_eq!(Mechanism::offered("scram-sha-256-plus", Some(&BOUND)), Some(ScramSha256Plus));
}

#[test]
fn external_asks_whom_a_certificate_lets_in() {
    let certificate = Fingerprint::of(b"ann's");
    let channel = Channel { binding: None, certificate: Some(certificate) };
    assert_eq!(Mechanism::offered("external", Some(&channel)), Some(Mechanism::External));
    assert_eq!(Mechanism::offered("EXTERNAL", Some(&BOUND)), None);
    assert_eq!(Mechanism::offered("EXTERNAL", None), None);
    let asks = |next: &Move, wanted: Option<&str>| {
        matches!(next, Move::Ask(Request::Certificate { certificate: shown, acts_as })
            if *shown == certificate && acts_as.as_deref() == wanted)
    };
    // An empty response and none are two things (RFC 4422 section 4.3).
    let (mut exchange, next) = Exchange::start(Mechanism::External, None, Some(&channel));
    assert_eq!(challenge(next), "");
    assert!(asks(&exchange.respond(b""), None));
    assert!(matches!(exchange.resume(Answer::Login(Ok(identity()))), Move::Done(Ok(_))));
    let (mut exchange, next) = Exchange::start(Mechanism::External, Some(b"user@pillarbox.test"), Some(&channel));
    assert!(asks(&next, Some("user@pillarbox.test")), "{next:?}");
    let next = exchange.resume(Answer::Login(Err(Refusal::Credentials)));
    assert!(refused(&next, Refusal::Credentials));
    for malformed in [&b"a\0b"[..], b"\xff", "x".repeat(LOGIN_MAX + 1).as_bytes()] {
        let (_, next) = Exchange::start(Mechanism::External, Some(malformed), Some(&channel));
        assert!(refused(&next, Refusal::Malformed), "{next:?}");
    }
    // A session that let it through all the same lets nobody in.
    let (_, next) = Exchange::start(Mechanism::External, Some(b""), Some(&BOUND));
    assert!(refused(&next, Refusal::Malformed), "{next:?}");
}

#[test]
fn a_wrong_proof_is_refused_even_if_the_world_agrees() {
    let (mut exchange, server_first) = scram_until_final(CLIENT_FIRST);
    let next = exchange.respond(client_final(CLIENT_FIRST, &server_first, "pen", "biws").as_bytes());
    assert!(matches!(next, Move::Ask(Request::Concluded { proved: false, .. })));
    assert!(refused(&exchange.resume(Answer::Login(Ok(identity()))), Refusal::Credentials));
}

#[test]
fn a_changed_final_message_is_malformed() {
    let (_, server_first) = scram_until_final(CLIENT_FIRST);
    let good = client_final(CLIENT_FIRST, &server_first, "pencil", "biws");
    let proof = good.rsplit_once(",p=").unwrap().1;
    for bad in [
        good.replace("c=biws", "c=eSws"),
        good.replace("c=biws", "c=!"),
        good.replace(",r=", ",r=x"),
        good.replace(",p=", ",q="),
        good.replace(proof, "AAAA"),
        good.replace(proof, "?"),
        good.replace("c=biws,", ""),
        String::new(),
    ] {
        let (mut exchange, _) = scram_until_final(CLIENT_FIRST);
        assert!(refused(&exchange.respond(bad.as_bytes()), Refusal::Malformed), "{bad:?}");
    }
}

#[test]
fn a_first_message_we_cannot_serve_is_malformed() {
    for bad in [
        "p=tls-exporter,,n=user,r=abc",
        "n,a=root,n=user,r=abc",
        "n,,m=x,n=user,r=abc",
        "n,,n=,r=abc",
        "n,,n=user,r=",
        "n,,n=user",
        "n,,n=us=2Xer,r=abc",
        "n,,n=us=er,r=abc",
        "n,,n=user=,r=abc",
        "n,,n=user,r=a\u{e9}",
        "n,,r=abc,n=user",
        "n,b=x,n=user,r=abc",
        "x,,n=user,r=abc",
        "n,,",
        "n",
        "",
    ] {
        let (_, next) = Exchange::start(Mechanism::ScramSha256, Some(bad.as_bytes()), None);
        assert!(refused(&next, Refusal::Malformed), "{bad:?}");
    }
    let long = format!("n,,n=user,r={}", "x".repeat(CLIENT_NONCE_MAX + 1));
    assert!(refused(&Exchange::start(Mechanism::ScramSha256, Some(long.as_bytes()), None).1, Refusal::Malformed));
}

#[test]
fn a_saslname_gives_its_comma_and_equals_sign_back() {
    let first = ClientFirst::parse("n,a=a=2Cb=3Dc,n=a=2Cb=3Dc,r=abc,x=extension", false, None).unwrap();
    assert_eq!(first.login, "a,b=c");
}

#[test]
fn an_answer_to_another_question_lets_nobody_in() {
    let (mut exchange, _) = Exchange::start(Mechanism::ScramSha256, Some(CLIENT_FIRST.as_bytes()), None);
    assert!(refused(&exchange.resume(Answer::Login(Ok(identity()))), Refusal::Unavailable));
    let (mut exchange, _) = Exchange::start(Mechanism::Plain, Some(b"\0user\0pencil"), None);
    let next = exchange.resume(Answer::Verifier { verifier: verifier(), nonce: SERVER_NONCE });
    assert!(refused(&next, Refusal::Unavailable));
    let (mut exchange, _) = Exchange::start(Mechanism::Login, None, None);
    assert!(refused(&exchange.resume(Answer::Login(Ok(identity()))), Refusal::Unavailable));
}

#[test]
fn a_response_line_is_base64_or_a_star() {
    assert_eq!(decode_response(b"AHVzZXI=").unwrap().as_slice(), b"\0user");
    assert_eq!(decode_response(b"").unwrap().as_slice(), b"");
    assert_eq!(decode_response(b"*").unwrap_err(), Refusal::Cancelled);
    for bad in [&b"%"[..], b"AHVzZXI", b"AA==AA==", &vec![b'A'; RESPONSE_LINE_MAX + 2]] {
        assert_eq!(decode_response(bad).unwrap_err(), Refusal::Malformed);
    }
    assert_eq!(decode_initial(b"=").unwrap().as_slice(), b"");
    assert_eq!(decode_initial(b"*").unwrap_err(), Refusal::Malformed);
}

proptest! {
    #[test]
    fn any_responses_are_taken_without_a_panic(
        which in 0_usize..5,
        initial in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
        responses in proptest::collection::vec("[\\PC\\x00,=nrcp]{0,30}", 0..4),
    ) {
        use Mechanism::{External, Login, Plain, ScramSha256, ScramSha256Plus};
        let mechanism = [Plain, Login, ScramSha256, ScramSha256Plus, External][which];
        let channel = Channel { certificate: Some(Fingerprint([1; 32])), ..BOUND };
        let (mut exchange, mut next) = Exchange::start(mechanism, initial.as_deref(), Some(&channel));
        for response in responses {
            next = match next {
                Move::Challenge(_) => exchange.respond(response.as_bytes()),
                Move::Ask(Request::Verifier { .. }) => {
                    exchange.resume(Answer::Verifier { verifier: verifier(), nonce: SERVER_NONCE })
                }
                Move::Ask(_) => exchange.resume(Answer::Login(Err(Refusal::Credentials))),
                Move::Done(outcome) => {
                    prop_assert!(outcome.is_err());
                    break;
                }
            };
        }
    }

    #[test]
    fn a_saslname_has_a_round_trip(name in "[a-z,=@\\PC]{1,30}") {
        let spelled = name.replace('=', "=3D").replace(',', "=2C");
        prop_assert_eq!(saslname(&spelled), Some(name));
    }
}
