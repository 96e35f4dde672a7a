//! Passwords and SCRAM verifiers (RFC 5802 section 3, RFC 7677, RFC 4013).
//!
//! A [`Password`] shows itself nowhere: its `Debug` prints `Password(hidden)` and its bytes are
//! overwritten when it is dropped. What is kept of it is a [`ScramVerifier`], from which it can be
//! checked but not told. Nothing here draws random bytes: salts and new passwords are made from
//! bytes the caller brings.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use ring::{digest, hmac, pbkdf2};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

/// Longest password in bytes.
pub const PASSWORD_MAX: usize = 256;

/// PBKDF2 rounds of a new verifier. RFC 7677 section 4 asks for 4,096 at least. 10,000 cost 2.4 ms
/// on a desktop core and about 25 to 50 ms on a Raspberry Pi, once for each login whose password
/// was not proved a moment ago (`flow::access::sasl` remembers those that were).
pub const ITERATIONS_DEFAULT: u32 = 10_000;

/// Random bytes a new password is made from: 80 bits.
pub const GENERATED_BYTES: usize = 10;

/// A password as the user typed it (UTF-8, at most [`PASSWORD_MAX`] bytes).
#[derive(Clone)]
pub struct Password(String);

impl Password {
    /// Takes a password over; `None` when it is empty, too long or holds a NUL.
    #[must_use]
    pub fn new(mut text: String) -> Option<Self> {
        let fits = !text.is_empty() && text.len() <= PASSWORD_MAX && !text.contains('\0');
        if fits {
            return Some(Self(text));
        }
        text.zeroize();
        None
    }

    /// Spells a new password from random bytes: five groups that can be spoken and typed on a
    /// telephone, such as `lusab-babad-gutih-tugad-mudof`. Each group is sixteen bits, a consonant
    /// and a vowel in turn.
    #[must_use]
    pub fn generate(random: &[u8; GENERATED_BYTES]) -> Self {
        const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
        const VOWELS: &[u8; 4] = b"aiou";
        let pick =
            |letters: &[u8], index: u16| letters.get(usize::from(index) % letters.len()).copied().unwrap_or(b'a');
        let consonant = |bits: u16| char::from(pick(CONSONANTS, bits));
        let vowel = |bits: u16| char::from(pick(VOWELS, bits));
        let mut text = String::with_capacity(29);
        for pair in random.chunks_exact(2) {
            let bits = pair.iter().fold(0, |bits, byte| bits << 8 | u16::from(*byte));
            if !text.is_empty() {
                text.push('-');
            }
            text.extend([
                consonant(bits >> 12),
                vowel(bits >> 10),
                consonant(bits >> 6),
                vowel(bits >> 4),
                consonant(bits),
            ]);
        }
        Self(text)
    }

    /// The password in clear, for the check and nothing else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Drop for Password {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Password(hidden)")
    }
}

/// Prepares a login or a password for comparison (SASLprep, RFC 4013). What it forbids (such as
/// characters younger than Unicode 3.2) is left as it is, because clients that do not prepare at
/// all send just that: both spellings then still name the same secret.
#[must_use]
pub fn prepared(text: &str) -> Cow<'_, str> {
    match stringprep::saslprep(text) {
        Ok(prepared) if !prepared.is_empty() => prepared,
        _ => Cow::Borrowed(text),
    }
}

/// Most PBKDF2 rounds a server may ask a client for: some seconds of a small computer's time.
pub const ITERATIONS_MAX: u32 = 500_000;

/// What a client needs of its password in SCRAM-SHA-256 (RFC 5802 section 3): with these keys it
/// proves that it knows it, and checks that the server does.
#[derive(Clone)]
pub struct ScramKeys {
    client_key: [u8; 32],
    server_key: [u8; 32],
}

impl ScramKeys {
    /// Derives the keys for a server's salt and rounds, at most [`ITERATIONS_MAX`] of them. Call it
    /// on a thread that may block.
    #[must_use]
    pub fn derive(password: &Password, salt: &[u8], iterations: NonZeroU32) -> Self {
        let rounds = NonZeroU32::new(iterations.get().min(ITERATIONS_MAX)).unwrap_or(NonZeroU32::MIN);
        let mut salted = [0; 32];
        let mut secret = prepared(password.reveal()).into_owned();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, secret.as_bytes(), &mut salted);
        secret.zeroize();
        let keys =
            Self { client_key: hmac_sha256(&salted, b"Client Key"), server_key: hmac_sha256(&salted, b"Server Key") };
        salted.zeroize();
        keys
    }

    /// `ClientKey XOR HMAC(H(ClientKey), AuthMessage)`: the client's proof.
    #[must_use]
    pub fn proof(&self, auth_message: &[u8]) -> [u8; 32] {
        let mut proof = hmac_sha256(&sha256(&self.client_key), auth_message);
        for (byte, key) in proof.iter_mut().zip(&self.client_key) {
            *byte ^= key;
        }
        proof
    }

    /// Tells whether the server's signature is right: `HMAC(ServerKey, AuthMessage)`.
    #[must_use]
    pub fn check_signature(&self, auth_message: &[u8], signature: &[u8]) -> bool {
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &self.server_key), auth_message, signature).is_ok()
    }
}

impl Drop for ScramKeys {
    fn drop(&mut self) {
        self.client_key.zeroize();
        self.server_key.zeroize();
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ScramKeys(hidden)")
    }
}

/// What the store keeps of a password: SCRAM-SHA-256 keys (RFC 5802 section 3, RFC 7677).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScramVerifier {
    /// Salt.
    pub salt: [u8; 16],
    /// PBKDF2 rounds.
    pub iterations: u32,
    /// `H(HMAC(SaltedPassword, "Client Key"))`
    pub stored_key: [u8; 32],
    /// `HMAC(SaltedPassword, "Server Key")`
    pub server_key: [u8; 32],
}

impl ScramVerifier {
    /// Derives the keys of a password. Costs `iterations` rounds of PBKDF2: call it on a thread
    /// that may block.
    #[must_use]
    pub fn derive(password: &Password, salt: [u8; 16], iterations: u32) -> Self {
        let rounds = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        let mut salted = [0; 32];
        let mut secret = prepared(password.reveal()).into_owned();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, secret.as_bytes(), &mut salted);
        secret.zeroize();
        let mut client_key = hmac_sha256(&salted, b"Client Key");
        let server_key = hmac_sha256(&salted, b"Server Key");
        let stored_key = sha256(&client_key);
        client_key.zeroize();
        salted.zeroize();
        Self { salt, iterations: rounds.get(), stored_key, server_key }
    }

    /// Makes up the keys of a user who does not exist: always the same for one `secret` and one
    /// login, so that nobody learns from the salt who exists (RFC 5802 section 9 asks for care).
    /// No password matches them.
    #[must_use]
    pub fn made_up(secret: &[u8; 32], login: &str, iterations: u32) -> Self {
        let login = prepared(login).to_lowercase();
        let part = |name: &str| hmac_sha256(secret, format!("{name}\0{login}").as_bytes());
        let mut salt = [0; 16];
        for (to, from) in salt.iter_mut().zip(part("salt")) {
            *to = from;
        }
        Self { salt, iterations, stored_key: part("stored"), server_key: part("server") }
    }

    /// Tells whether `password` belongs to these keys. Costs as much as [`ScramVerifier::derive`],
    /// whatever the answer.
    #[must_use]
    pub fn matches(&self, password: &Password) -> bool {
        let candidate = Self::derive(password, self.salt, self.iterations);
        same(&candidate.stored_key, &self.stored_key) & same(&candidate.server_key, &self.server_key)
    }

    /// Tells whether the client's proof is right: `ClientKey XOR HMAC(StoredKey, AuthMessage)`
    /// (RFC 5802 section 3). Takes the same time whatever the answer.
    #[must_use]
    pub fn check_proof(&self, auth_message: &[u8], proof: &[u8; 32]) -> bool {
        let mut client_key = hmac_sha256(&self.stored_key, auth_message);
        for (byte, proof) in client_key.iter_mut().zip(proof) {
            *byte ^= proof;
        }
        same(&sha256(&client_key), &self.stored_key)
    }

    /// `HMAC(ServerKey, AuthMessage)`: what tells the client that we know its keys.
    #[must_use]
    pub fn server_signature(&self, auth_message: &[u8]) -> [u8; 32] {
        hmac_sha256(&self.server_key, auth_message)
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ScramVerifier(hidden)")
    }
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    tag.as_ref().try_into().unwrap_or_default()
}

fn sha256(message: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, message).as_ref().try_into().unwrap_or_default()
}

/// Compares in constant time: ring compares the tag of an HMAC so, and an HMAC of both is equal
/// where both are.
fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"compare");
    let tag = hmac::sign(&key, left);
    hmac::verify(&key, right, tag.as_ref()).is_ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    pub(crate) fn password(text: &str) -> Password {
        Password::new(text.to_owned()).unwrap()
    }

    #[test]
    fn the_example_of_rfc_7677_verifies() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = ScramVerifier::derive(&password("pencil"), salt.try_into().unwrap(), 4096);
        let auth_message = b"n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let proof = STANDARD.decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        let mut proof: [u8; 32] = proof.try_into().unwrap();
        assert!(verifier.check_proof(auth_message, &proof));
        assert_eq!(
            STANDARD.encode(verifier.server_signature(auth_message)),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
        proof[31] ^= 1;
        assert!(!verifier.check_proof(auth_message, &proof));
    }

    #[test]
    fn only_the_right_password_matches() {
        let verifier = ScramVerifier::derive(&password("open sesame"), [7; 16], 10);
        assert!(verifier.matches(&password("open sesame")));
        for wrong in ["open sesam", "open sesame ", "Open sesame", "x"] {
            assert!(!verifier.matches(&password(wrong)), "{wrong:?}");
        }
    }

    #[test]
    fn spellings_that_saslprep_unites_are_one_password() {
        // A soft hyphen maps to nothing and a no-break space to a space (RFC 4013 section 2.1).
        let verifier = ScramVerifier::derive(&password("I\u{AD}X y"), [7; 16], 10);
        assert!(verifier.matches(&password("IX\u{A0}y")));
        // What SASLprep forbids still works when typed the same way.
        let verifier = ScramVerifier::derive(&password("\u{7}bell🦀"), [7; 16], 10);
        assert!(verifier.matches(&password("\u{7}bell🦀")));
    }

    #[test]
    fn made_up_keys_stay_the_same_and_match_nothing() {
        let keys = ScramVerifier::made_up(&[1; 32], "Nobody@example.org", 10);
        assert_eq!(keys, ScramVerifier::made_up(&[1; 32], "nobody@example.org", 10));
        assert_ne!(keys.salt, ScramVerifier::made_up(&[2; 32], "nobody@example.org", 10).salt);
        assert_ne!(keys.salt, ScramVerifier::made_up(&[1; 32], "nobody@example.com", 10).salt);
        assert!(!keys.matches(&password("x")));
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        let keys = ScramVerifier::made_up(&[1; 32], "ann", 10);
        assert_eq!(format!("{:?} {keys:?}", password("pencil")), "Password(hidden) ScramVerifier(hidden)");
    }

    #[test]
    fn what_is_no_password_is_refused() {
        for text in ["", "a\0b", &"x".repeat(PASSWORD_MAX + 1)] {
            assert!(Password::new(text.to_owned()).is_none());
        }
    }

    #[test]
    fn a_generated_password_is_five_spoken_groups() {
        assert_eq!(Password::generate(&[0; 10]).reveal(), "babab-babab-babab-babab-babab");
        assert_eq!(Password::generate(&[0xff; 10]).reveal(), "zuzuz-zuzuz-zuzuz-zuzuz-zuzuz");
    }

    proptest! {
        #[test]
        fn different_bytes_make_different_passwords(one in any::<[u8; 10]>(), other in any::<[u8; 10]>()) {
            prop_assert_eq!(one == other, Password::generate(&one).reveal() == Password::generate(&other).reveal());
        }
    }
}
