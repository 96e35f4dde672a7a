//! SCRAM's messages, read and answered (RFC 5802 section 7).
//!
//! A client says in its first message how it stands to channel binding, and repeats that in its
//! final one under the proof: so what an attacker changed on the way is found, and under PLUS also
//! that there are two TLS connections where both ends believe in one (RFC 5802 section 6).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{acts_for_itself, checked_login};
use crate::mail::secret::ScramVerifier;
use crate::protocol::ChannelBinding;

/// Longest client nonce in bytes; libraries send 16 to 32.
pub(super) const CLIENT_NONCE_MAX: usize = 256;

/// How a client of PLUS says what it binds to (RFC 9266 section 2).
const BINDS: &str = "p=tls-exporter";

/// What the client's first message said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ClientFirst {
    pub(super) login: String,
    /// What must come back in `c=`: the header (`n,,` and the like), behind it the channel's data
    /// under PLUS.
    cbind_input: Vec<u8>,
    /// `n=user,r=nonce`
    bare: String,
    nonce: String,
}

/// What is known once the server's first message is sent.
#[derive(Debug)]
pub(super) struct Scram {
    pub(super) login: String,
    cbind_input: Vec<u8>,
    /// Client's and server's nonce.
    nonce: String,
    verifier: ScramVerifier,
    /// `client-first-message-bare "," server-first-message`
    auth_message: String,
}

/// What a client's proof is worth.
#[derive(Clone, Copy, Debug)]
pub(super) enum Proof {
    /// It knows the password; by this signature the server shows that it knows the keys.
    Right { signature: [u8; 32] },
    /// It does not.
    Wrong,
}

impl ClientFirst {
    /// Reads `gs2-header client-first-message-bare`: no `m=` extension, a login that asks to act for
    /// nobody else, and the flag for channel binding that fits: `p=tls-exporter` under PLUS, else
    /// `n`, or `y` where PLUS was not offered.
    pub(super) fn parse(message: &str, bound: bool, binding: Option<ChannelBinding>) -> Option<Self> {
        let mut fields = message.splitn(3, ',');
        let (flag, acts_as, bare) = (fields.next()?, fields.next()?, fields.next()?);
        let bound_to = match (flag, bound, binding) {
            (BINDS, true, Some(binding)) => Some(binding),
            ("n", false, _) | ("y", false, None) => None,
            _ => return None,
        };
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
        let mut cbind_input = message.strip_suffix(bare)?.as_bytes().to_vec();
        if let Some(ChannelBinding(data)) = bound_to {
            cbind_input.extend_from_slice(&data);
        }
        Some(Self { login: checked_login(&login)?, cbind_input, nonce: nonce.to_owned(), bare: bare.to_owned() })
    }

    /// `r=nonce,s=salt,i=rounds` (RFC 5802 section 5.1), and what is needed to go on.
    pub(super) fn answer(self, verifier: ScramVerifier, nonce: [u8; 18]) -> (Scram, String) {
        let Self { login, cbind_input, bare, nonce: theirs } = self;
        let nonce = format!("{theirs}{}", STANDARD.encode(nonce));
        let message = format!("r={nonce},s={},i={}", STANDARD.encode(verifier.salt), verifier.iterations);
        let auth_message = format!("{bare},{message}");
        (Scram { login, cbind_input, nonce, verifier, auth_message }, message)
    }
}

impl Scram {
    /// Reads `c=binding,r=nonce[,extensions],p=proof`. `None` when it makes no sense or is bound to
    /// another connection.
    pub(super) fn check(&self, message: &str) -> Option<Proof> {
        let (without_proof, proof) = message.rsplit_once(",p=")?;
        let mut fields = without_proof.split(',');
        let binding = STANDARD.decode(fields.next()?.strip_prefix("c=")?).ok()?;
        let nonce = fields.next()?.strip_prefix("r=")?;
        // The header comes back as it went: nobody in between has taken `y` or a user out of it.
        if binding != self.cbind_input || nonce != self.nonce {
            return None;
        }
        let proof: [u8; 32] = STANDARD.decode(proof).ok()?.try_into().ok()?;
        let auth_message = format!("{},{without_proof}", self.auth_message);
        if !self.verifier.check_proof(auth_message.as_bytes(), &proof) {
            return Some(Proof::Wrong);
        }
        Some(Proof::Right { signature: self.verifier.server_signature(auth_message.as_bytes()) })
    }
}

/// Decodes a `saslname`: `=2C` is a comma, `=3D` an equals sign, another `=` is an error
/// (RFC 5802 section 5.1).
pub(super) fn saslname(name: &str) -> Option<String> {
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
