//! AUTH on the client's side: SCRAM-SHA-256 (RFC 5802, RFC 7677), PLAIN (RFC 4616), LOGIN.
//!
//! The best mechanism that the relay offers is used, and no weaker one is tried when it refuses: a
//! relay that forgets its SCRAM keys should not be told the password instead.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::Credentials;
use crate::mail::secret::{ITERATIONS_MAX, Password, ScramKeys, prepared};
use crate::protocol::sasl::Mechanism;

/// Longest salt a relay may name, in bytes; common ones have 16.
const SALT_MAX: usize = 128;

/// Longest nonce a relay may name, in characters.
const NONCE_MAX: usize = 512;

/// Keys to be derived from a password, which costs time.
#[derive(Debug)]
pub struct Derive {
    password: Password,
    salt: Vec<u8>,
    iterations: NonZeroU32,
    keys: Option<ScramKeys>,
}

impl Derive {
    /// Derives the keys. Takes milliseconds to seconds: call it on a thread that may block.
    pub fn run(&mut self) {
        self.keys = Some(ScramKeys::derive(&self.password, &self.salt, self.iterations));
    }
}

/// A login under way.
#[derive(Debug)]
pub(super) struct Login {
    credentials: Credentials,
    state: State,
}

#[derive(Debug)]
enum State {
    /// PLAIN's response was sent, or LOGIN's password.
    Told,
    /// LOGIN waits to be asked for the user.
    User,
    /// LOGIN waits to be asked for the password.
    Password,
    /// SCRAM's first message was sent; this is its bare part.
    First { bare: String },
    /// The keys are being derived.
    Deriving { auth_message: String, without_proof: String },
    /// SCRAM's proof was sent; the relay's signature should come.
    Proved { auth_message: String, keys: ScramKeys },
    /// The relay has proved that it knows the password too.
    Mutual,
}

/// What comes next in a login.
#[derive(Debug)]
pub(super) enum Move {
    /// Send this line (without CRLF).
    Line(Zeroizing<String>),
    /// Have these keys derived.
    Derive(Box<Derive>),
    /// The relay does not keep to the mechanism.
    Fail(&'static str),
}

impl Login {
    /// Begins a login with the best mechanism; `None` when there is none that we can speak.
    pub(super) fn start(credentials: Credentials, offered: &[Mechanism]) -> Option<(Self, Zeroizing<String>)> {
        let wanted = [Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login];
        let mechanism = wanted.into_iter().find(|wanted| offered.contains(wanted))?;
        let (state, line) = match mechanism {
            Mechanism::ScramSha256 => {
                let login = prepared(&credentials.login).replace('=', "=3D").replace(',', "=2C");
                let bare = format!("n={login},r={}", STANDARD.encode(credentials.nonce));
                let line = format!("AUTH SCRAM-SHA-256 {}", STANDARD.encode(format!("n,,{bare}")));
                (State::First { bare }, Zeroizing::new(line))
            }
            Mechanism::Plain => {
                let secret = Zeroizing::new(format!("\0{}\0{}", credentials.login, credentials.password.reveal()));
                (State::Told, Zeroizing::new(format!("AUTH PLAIN {}", *encoded(&secret))))
            }
            Mechanism::Login => (State::User, Zeroizing::new("AUTH LOGIN".to_owned())),
            // Not among those wanted.
            Mechanism::ScramSha256Plus | Mechanism::External => return None,
        };
        Some((Self { credentials, state }, line))
    }

    /// Takes a challenge: the text of a 334.
    pub(super) fn challenge(&mut self, text: &str) -> Move {
        match std::mem::replace(&mut self.state, State::Told) {
            State::User => {
                self.state = State::Password;
                Move::Line(encoded(&self.credentials.login))
            }
            State::Password => Move::Line(encoded(self.credentials.password.reveal())),
            State::First { bare } => {
                self.derive(&bare, text).unwrap_or(Move::Fail("its SCRAM challenge makes no sense"))
            }
            State::Proved { auth_message, keys } => {
                let signature = decoded(text).and_then(|said| STANDARD.decode(said.strip_prefix("v=")?).ok());
                if signature.is_some_and(|signature| keys.check_signature(auth_message.as_bytes(), &signature)) {
                    self.state = State::Mutual;
                    return Move::Line(Zeroizing::default());
                }
                Move::Fail("it could not prove that it knows the password too")
            }
            State::Told | State::Deriving { .. } | State::Mutual => Move::Fail("it asks for more than there is to say"),
        }
    }

    /// SCRAM's first challenge (RFC 5802 section 5.1).
    fn derive(&mut self, bare: &str, text: &str) -> Option<Move> {
        let challenge = decoded(text)?;
        let mut fields = challenge.split(',');
        let nonce = fields.next()?.strip_prefix("r=")?;
        let salt = STANDARD.decode(fields.next()?.strip_prefix("s=")?).ok()?;
        let iterations: NonZeroU32 = fields.next()?.strip_prefix("i=")?.parse().ok()?;
        let ours = STANDARD.encode(self.credentials.nonce);
        let fits = nonce.starts_with(&ours) && nonce.len() > ours.len() && nonce.len() <= NONCE_MAX;
        if !fits || salt.len() > SALT_MAX || iterations.get() > ITERATIONS_MAX {
            return None;
        }
        let without_proof = format!("c=biws,r={nonce}");
        let auth_message = format!("{bare},{challenge},{without_proof}");
        self.state = State::Deriving { auth_message, without_proof };
        let password = self.credentials.password.clone();
        Some(Move::Derive(Box::new(Derive { password, salt, iterations, keys: None })))
    }

    /// Takes the keys that were asked for.
    pub(super) fn derived(&mut self, derive: Derive) -> Move {
        match (std::mem::replace(&mut self.state, State::Told), derive.keys) {
            (State::Deriving { auth_message, without_proof }, Some(keys)) => {
                let proof = STANDARD.encode(keys.proof(auth_message.as_bytes()));
                self.state = State::Proved { auth_message, keys };
                Move::Line(encoded(&format!("{without_proof},p={proof}")))
            }
            _ => Move::Fail("the login could not be computed here"),
        }
    }

    /// Tells whether the relay may say that we are logged in: with SCRAM it has to prove itself first.
    pub(super) fn may_end(&self) -> bool {
        matches!(self.state, State::Told | State::Mutual)
    }
}

fn encoded(text: &str) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(text))
}

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(text.trim()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        let password = Password::new("pencil".to_owned()).unwrap();
        Credentials { login: "us,er".to_owned(), password, in_clear: false, nonce: [7; 18] }
    }

    #[test]
    fn the_best_mechanism_is_chosen_whatever_the_order() {
        let line = |offered: &[Mechanism]| Login::start(credentials(), offered).map(|(_, line)| line.to_string());
        let (plain, login, scram) = (Mechanism::Plain, Mechanism::Login, Mechanism::ScramSha256);
        assert!(line(&[plain, login, scram]).unwrap().starts_with("AUTH SCRAM-SHA-256 "));
        assert!(line(&[login, plain]).unwrap().starts_with("AUTH PLAIN "));
        assert_eq!(line(&[login]).unwrap(), "AUTH LOGIN");
        assert_eq!(line(&[]), None);
    }

    #[test]
    fn a_relay_that_bends_scram_gets_no_proof() {
        let ours = STANDARD.encode([7; 18]);
        for challenge in [
            format!("r={ours},s=c2FsdA==,i=4096"),
            "r=other,s=c2FsdA==,i=4096".to_owned(),
            format!("r={ours}x,s=c2FsdA==,i=0"),
            format!("r={ours}x,s=c2FsdA==,i=4000000000"),
            format!("r={ours}x,s=!,i=4096"),
            format!("r={ours}{},s=c2FsdA==,i=4096", "x".repeat(600)),
        ] {
            let (mut login, _) = Login::start(credentials(), &[Mechanism::ScramSha256]).unwrap();
            assert!(matches!(login.challenge(&STANDARD.encode(&challenge)), Move::Fail(_)), "{challenge}");
        }
    }

    #[test]
    fn a_relay_that_does_not_know_the_password_is_found_out() {
        let (mut login, _) = Login::start(credentials(), &[Mechanism::ScramSha256]).unwrap();
        let challenge = format!("r={}x,s=c2FsdA==,i=4096", STANDARD.encode([7; 18]));
        let Move::Derive(mut derive) = login.challenge(&STANDARD.encode(challenge)) else { panic!("no keys wanted") };
        derive.run();
        assert!(matches!(login.derived(*derive), Move::Line(_)));
        assert!(!login.may_end());
        let wrong = STANDARD.encode(format!("v={}", STANDARD.encode([0; 32])));
        assert!(matches!(login.challenge(&wrong), Move::Fail(_)));
    }
}
