//! SASL on the server's side: PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256 (RFC 5802, RFC 7677).
//!
//! One [`Exchange`] serves SMTP, IMAP and POP3: they carry base64 lines, this says what the lines
//! mean. It never sees the store: what must be known comes through [`Request`] and [`Answer`].
//! Whether a mechanism may be used on the present connection is for the session to say: none of
//! them belongs on a connection without TLS.
//!
//! Channel binding is not offered, so a client may say that it could have bound (`y`) and may not
//! bind (`p`).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::mail::address::{Address, DOMAIN_MAX, LOCAL_PART_MAX};
use crate::mail::mailbox::AccountId;
use crate::mail::secret::{Password, ScramVerifier, prepared};

/// Longest response in bytes before base64; longer ones end the exchange.
pub const RESPONSE_MAX: usize = 1024;

/// Longest response line in bytes, CRLF included: [`RESPONSE_MAX`] in base64.
pub const RESPONSE_LINE_MAX: usize = RESPONSE_MAX.div_ceil(3) * 4 + 2;

/// Longest login in bytes: an address.
pub const LOGIN_MAX: usize = LOCAL_PART_MAX + 1 + DOMAIN_MAX;

/// Longest client nonce in bytes; libraries send 16 to 32.
const CLIENT_NONCE_MAX: usize = 256;

/// A mechanism we offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registry's")]
pub enum Mechanism {
    Plain,
    Login,
    ScramSha256,
}

impl Mechanism {
    /// Reads a mechanism's name without regard to case; `None` when we do not offer it.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Plain, Self::Login, Self::ScramSha256].into_iter().find(|known| known.name().eq_ignore_ascii_case(name))
    }

    /// The registered name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
        }
    }
}

/// Who has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The account.
    pub account: AccountId,
    /// Its first address.
    pub address: Address,
}

/// Why nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// User or password is wrong; which one is not said.
    Credentials,
    /// Too many failures from this address or for this user; `retry` says how long that lasts.
    LockedOut {
        /// Time left.
        retry: Duration,
    },
    /// The response makes no sense in this mechanism.
    Malformed,
    /// The client gave up with `*`.
    Cancelled,
    /// The store could not be asked.
    Unavailable,
}

/// What only the store knows.
#[derive(Debug)]
pub enum Request {
    /// Does this password belong to this user? (PLAIN, LOGIN, and POP3's USER and PASS.)
    CheckPassword {
        /// The user as given: an address, or a local part where that is unambiguous.
        login: String,
        /// The password.
        password: Password,
    },
    /// The SCRAM keys of this user, or made-up ones that stay the same for an unknown user.
    Verifier {
        /// The user as given.
        login: String,
    },
    /// A SCRAM exchange has ended; a failure counts like a wrong password.
    Concluded {
        /// The user as given.
        login: String,
        /// Whether the client's proof was right.
        proved: bool,
    },
}

/// The answer to a [`Request`].
#[derive(Debug)]
pub enum Answer {
    /// To `CheckPassword` and `Concluded`; to `Verifier` only as a refusal.
    Login(Result<Identity, Refusal>),
    /// To `Verifier`: the keys and a fresh nonce for the server's side of the exchange.
    Verifier {
        /// The keys.
        verifier: ScramVerifier,
        /// Eighteen random bytes.
        nonce: [u8; 18],
    },
}

/// What an exchange does next.
#[derive(Debug)]
pub enum Move {
    /// Send this challenge (before base64) and hand the response to [`Exchange::respond`].
    Challenge(Vec<u8>),
    /// Ask, and hand the answer to [`Exchange::resume`].
    Ask(Request),
    /// It is over.
    Done(Result<Identity, Refusal>),
}

/// One authentication exchange.
#[derive(Debug)]
pub struct Exchange(State);

/// Where an exchange stands; each waits for what its name says.
#[derive(Debug)]
enum State {
    PlainMessage,
    LoginName,
    LoginPassword {
        login: String,
    },
    /// The answer to `CheckPassword`.
    Checked,
    ClientFirst,
    Verifier(Box<ClientFirst>),
    ClientFinal(Box<Scram>),
    /// The answer to `Concluded`; the signature is there when the proof was right.
    Concluded {
        signature: Option<[u8; 32]>,
    },
    /// The empty response to the server's signature.
    Acknowledged(Identity),
    Over,
}

/// What the client's first message said (RFC 5802 section 7).
#[derive(Debug, PartialEq, Eq)]
struct ClientFirst {
    login: String,
    /// `n,,` and the like, as it must come back in `c=`.
    gs2_header: String,
    /// `n=user,r=nonce`
    bare: String,
    nonce: String,
}

/// What is known once the server's first message is sent.
#[derive(Debug)]
struct Scram {
    login: String,
    gs2_header: String,
    /// Client's and server's nonce.
    nonce: String,
    verifier: ScramVerifier,
    /// `client-first-message-bare "," server-first-message`
    auth_message: String,
}

impl Exchange {
    /// Begins an exchange; `initial` is the initial response, if the client sent one (an empty one
    /// is written `=`).
    #[must_use]
    pub fn start(mechanism: Mechanism, initial: Option<&[u8]>) -> (Self, Move) {
        let (state, challenge) = match mechanism {
            Mechanism::Plain => (State::PlainMessage, ""),
            Mechanism::Login => (State::LoginName, "Username:"),
            Mechanism::ScramSha256 => (State::ClientFirst, ""),
        };
        let mut exchange = Self(state);
        let first = match initial {
            // Some clients begin LOGIN with an empty initial response instead of none.
            Some(response) if !(response.is_empty() && mechanism == Mechanism::Login) => exchange.respond(response),
            _ => Move::Challenge(challenge.into()),
        };
        (exchange, first)
    }

    /// Takes the client's response, base64 undone.
    pub fn respond(&mut self, response: &[u8]) -> Move {
        if response.len() > RESPONSE_MAX {
            return self.end(Refusal::Malformed);
        }
        let Ok(text) = std::str::from_utf8(response) else { return self.end(Refusal::Malformed) };
        let next = match std::mem::replace(&mut self.0, State::Over) {
            State::PlainMessage => self.plain(text),
            State::LoginName => self.login_name(text),
            State::LoginPassword { login } => self.check(&login, text),
            State::ClientFirst => self.client_first(text),
            State::ClientFinal(scram) => self.client_final(&scram, text),
            State::Acknowledged(identity) if text.is_empty() => Some(Move::Done(Ok(identity))),
            _ => None,
        };
        next.unwrap_or_else(|| self.end(Refusal::Malformed))
    }

    /// Takes the answer to a [`Move::Ask`].
    pub fn resume(&mut self, answer: Answer) -> Move {
        match (std::mem::replace(&mut self.0, State::Over), answer) {
            (State::Checked, Answer::Login(Ok(identity))) => Move::Done(Ok(identity)),
            (State::Verifier(first), Answer::Verifier { verifier, nonce }) => {
                self.server_first(*first, verifier, nonce)
            }
            (State::Concluded { signature: Some(signature) }, Answer::Login(Ok(identity))) => {
                self.0 = State::Acknowledged(identity);
                Move::Challenge(format!("v={}", STANDARD.encode(signature)).into())
            }
            (State::Concluded { signature: None }, Answer::Login(Ok(_))) => self.end(Refusal::Credentials),
            (_, Answer::Login(Err(refusal))) => self.end(refusal),
            // An answer to another question: nobody is let in on the strength of that.
            _ => self.end(Refusal::Unavailable),
        }
    }

    fn end(&mut self, refusal: Refusal) -> Move {
        self.0 = State::Over;
        Move::Done(Err(refusal))
    }

    /// `[authzid] NUL authcid NUL passwd` (RFC 4616 section 2).
    fn plain(&mut self, message: &str) -> Option<Move> {
        let mut fields = message.split('\0');
        let (acts_as, login, password) = (fields.next()?, fields.next()?, fields.next()?);
        let whole = fields.next().is_none() && acts_for_itself(acts_as, login);
        whole.then(|| self.check(login, password)).flatten()
    }

    fn login_name(&mut self, name: &str) -> Option<Move> {
        self.0 = State::LoginPassword { login: checked_login(name)? };
        Some(Move::Challenge("Password:".into()))
    }

    fn check(&mut self, login: &str, password: &str) -> Option<Move> {
        let login = checked_login(login)?;
        let password = Password::new(password.to_owned())?;
        self.0 = State::Checked;
        Some(Move::Ask(Request::CheckPassword { login, password }))
    }

    fn client_first(&mut self, message: &str) -> Option<Move> {
        let first = ClientFirst::parse(message)?;
        let login = first.login.clone();
        self.0 = State::Verifier(Box::new(first));
        Some(Move::Ask(Request::Verifier { login }))
    }

    /// `r=nonce,s=salt,i=rounds` (RFC 5802 section 5.1).
    fn server_first(&mut self, first: ClientFirst, verifier: ScramVerifier, nonce: [u8; 18]) -> Move {
        let nonce = format!("{}{}", first.nonce, STANDARD.encode(nonce));
        let message = format!("r={nonce},s={},i={}", STANDARD.encode(verifier.salt), verifier.iterations);
        let auth_message = format!("{},{message}", first.bare);
        let ClientFirst { login, gs2_header, .. } = first;
        self.0 = State::ClientFinal(Box::new(Scram { login, gs2_header, nonce, verifier, auth_message }));
        Move::Challenge(message.into())
    }

    /// `c=binding,r=nonce[,extensions],p=proof` (RFC 5802 section 7).
    fn client_final(&mut self, scram: &Scram, message: &str) -> Option<Move> {
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        let mut fields = without_proof.split(',');
        let binding = STANDARD.decode(fields.next()?.strip_prefix("c=")?).ok()?;
        let nonce = fields.next()?.strip_prefix("r=")?;
        // The header comes back as it went: nobody in between has taken `y` or a user out of it.
        if binding != scram.gs2_header.as_bytes() || nonce != scram.nonce {
            return None;
        }
        let proof: [u8; 32] = STANDARD.decode(proof).ok()?.try_into().ok()?;
        let auth_message = format!("{},{without_proof}", scram.auth_message);
        let proved = scram.verifier.check_proof(auth_message.as_bytes(), &proof);
        let signature = proved.then(|| scram.verifier.server_signature(auth_message.as_bytes()));
        self.0 = State::Concluded { signature };
        Some(Move::Ask(Request::Concluded { login: scram.login.clone(), proved }))
    }
}

impl ClientFirst {
    /// Reads `gs2-header client-first-message-bare` (RFC 5802 section 7): `n` or `y` for the channel
    /// binding, no `m=` extension, a login that asks to act for nobody else.
    fn parse(message: &str) -> Option<Self> {
        let mut fields = message.splitn(3, ',');
        let (binding, acts_as, bare) = (fields.next()?, fields.next()?, fields.next()?);
        if !matches!(binding, "n" | "y") {
            return None;
        }
        let mut fields = bare.split(',');
        let login = saslname(fields.next()?.strip_prefix("n=")?)?;
        let nonce = fields.next()?.strip_prefix("r=")?;
        let printable = nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if nonce.is_empty() || nonce.len() > CLIENT_NONCE_MAX || !printable {
            return None;
        }
        let acts_as = if acts_as.is_empty() { String::new() } else { saslname(acts_as.strip_prefix("a=")?)? };
        if !acts_for_itself(&acts_as, &login) {
            return None;
        }
        let gs2_header = message.strip_suffix(bare)?.to_owned();
        Some(Self { login: checked_login(&login)?, gs2_header, nonce: nonce.to_owned(), bare: bare.to_owned() })
    }
}

/// Undoes the base64 of a response line (without CRLF); `*` is a client that gives up
/// (RFC 4954 section 4, RFC 5034 section 4, RFC 9051 section 6.2.2).
///
/// # Errors
/// [`Refusal::Cancelled`] for `*`, [`Refusal::Malformed`] for what is no base64 or too long.
pub fn decode_response(line: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    match line {
        b"*" => Err(Refusal::Cancelled),
        line if line.len() > RESPONSE_LINE_MAX => Err(Refusal::Malformed),
        line => STANDARD.decode(line).map(Zeroizing::new).map_err(|_| Refusal::Malformed),
    }
}

/// Undoes the base64 of an initial response, where `=` stands for an empty one (RFC 4954 section 4).
///
/// # Errors
/// [`Refusal::Malformed`] for what is no base64 or too long.
pub fn decode_initial(word: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    match word {
        b"=" => Ok(Zeroizing::default()),
        b"*" => Err(Refusal::Malformed),
        word => decode_response(word),
    }
}

/// Puts a challenge into base64.
#[must_use]
pub fn encode_challenge(challenge: &[u8]) -> String {
    STANDARD.encode(challenge)
}

/// Nobody may act for somebody else: the identity to act as is empty or the login itself.
fn acts_for_itself(acts_as: &str, login: &str) -> bool {
    acts_as.is_empty() || prepared(acts_as).eq_ignore_ascii_case(&prepared(login))
}

/// A login in its prepared form, or `None` when it cannot be one.
fn checked_login(login: &str) -> Option<String> {
    let login = prepared(login);
    let fits = !login.is_empty() && login.len() <= LOGIN_MAX && !login.chars().any(char::is_control);
    fits.then(|| login.into_owned())
}

/// Decodes a `saslname`: `=2C` is a comma, `=3D` an equals sign, another `=` is an error
/// (RFC 5802 section 5.1).
fn saslname(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (c, rest) = match part.split_at_checked(2)? {
            ("2C", rest) => (',', rest),
            ("3D", rest) => ('=', rest),
            _ => return None,
        };
        plain.push(c);
        plain.push_str(rest);
    }
    (!plain.is_empty()).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::secret::tests::password;
    use proptest::prelude::*;

    const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: [u8; 18] = [9; 18];

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
        let (mut exchange, next) = Exchange::start(Mechanism::ScramSha256, Some(first.as_bytes()));
        assert!(matches!(next, Move::Ask(Request::Verifier { .. })), "{next:?}");
        let next = exchange.resume(Answer::Verifier { verifier: verifier(), nonce: SERVER_NONCE });
        (exchange, challenge(next))
    }

    #[test]
    fn plain_asks_for_the_check_of_login_and_password() {
        let (mut exchange, next) = Exchange::start(Mechanism::Plain, Some(b"\0user\0pencil"));
        assert!(checks(&next, "user", "pencil"));
        assert!(matches!(exchange.resume(Answer::Login(Ok(identity()))), Move::Done(Ok(who)) if who == identity()));

        let (mut exchange, next) = Exchange::start(Mechanism::Plain, None);
        assert_eq!(challenge(next), "");
        assert!(checks(&exchange.respond(b"user\0user\0pencil"), "user", "pencil"));
        let next = exchange.resume(Answer::Login(Err(Refusal::Credentials)));
        assert!(refused(&next, Refusal::Credentials));
    }

    #[test]
    fn plain_that_acts_for_another_or_is_no_triple_is_malformed() {
        for message in [
            &b"root\0user\0pencil"[..],
            b"",
            b"user",
            b"\0user",
            b"\0user\0",
            b"\0\0pencil",
            b"\0u\0p\0x",
            b"\0\xff\0p",
        ] {
            let (_, next) = Exchange::start(Mechanism::Plain, Some(message));
            assert!(refused(&next, Refusal::Malformed), "{message:?}");
        }
        let long = [b"\0user\0".to_vec(), vec![b'x'; RESPONSE_MAX]].concat();
        assert!(refused(&Exchange::start(Mechanism::Plain, Some(&long)).1, Refusal::Malformed));
    }

    #[test]
    fn login_prompts_for_both() {
        let (mut exchange, next) = Exchange::start(Mechanism::Login, None);
        assert_eq!(challenge(next), "Username:");
        assert_eq!(challenge(exchange.respond(b"user")), "Password:");
        assert!(checks(&exchange.respond(b"pencil"), "user", "pencil"));

        let (_, next) = Exchange::start(Mechanism::Login, Some(b"user"));
        assert_eq!(challenge(next), "Password:");
        let (_, next) = Exchange::start(Mechanism::Login, Some(b""));
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
            assert!(
                matches!(&next, Move::Ask(Request::Concluded { login, proved: true }) if login == "user"),
                "{next:?}"
            );
            let bare = first.splitn(3, ',').nth(2).unwrap();
            let without_proof = last.rsplit_once(",p=").unwrap().0;
            let signature = verifier().server_signature(format!("{bare},{server_first},{without_proof}").as_bytes());
            let next = exchange.resume(Answer::Login(Ok(identity())));
            assert_eq!(challenge(next), format!("v={}", STANDARD.encode(signature)));
            assert!(matches!(exchange.respond(b""), Move::Done(Ok(_))));
            assert!(refused(&exchange.respond(b""), Refusal::Malformed), "it is over");
        }
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
            let (_, next) = Exchange::start(Mechanism::ScramSha256, Some(bad.as_bytes()));
            assert!(refused(&next, Refusal::Malformed), "{bad:?}");
        }
        let long = format!("n,,n=user,r={}", "x".repeat(CLIENT_NONCE_MAX + 1));
        assert!(refused(&Exchange::start(Mechanism::ScramSha256, Some(long.as_bytes())).1, Refusal::Malformed));
    }

    #[test]
    fn a_saslname_gives_its_comma_and_equals_sign_back() {
        let first = ClientFirst::parse("n,a=a=2Cb=3Dc,n=a=2Cb=3Dc,r=abc,x=extension").unwrap();
        assert_eq!(first.login, "a,b=c");
        assert_eq!(first.gs2_header, "n,a=a=2Cb=3Dc,");
    }

    #[test]
    fn an_answer_to_another_question_lets_nobody_in() {
        let (mut exchange, _) = Exchange::start(Mechanism::ScramSha256, Some(CLIENT_FIRST.as_bytes()));
        assert!(refused(&exchange.resume(Answer::Login(Ok(identity()))), Refusal::Unavailable));
        let (mut exchange, _) = Exchange::start(Mechanism::Plain, Some(b"\0user\0pencil"));
        let next = exchange.resume(Answer::Verifier { verifier: verifier(), nonce: SERVER_NONCE });
        assert!(refused(&next, Refusal::Unavailable));
        let (mut exchange, _) = Exchange::start(Mechanism::Login, None);
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
            which in 0_usize..3,
            initial in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
            responses in proptest::collection::vec("[\\PC\\x00,=nrcp]{0,30}", 0..4),
        ) {
            let mechanism = [Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256][which];
            let (mut exchange, mut next) = Exchange::start(mechanism, initial.as_deref());
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
}
