//! What is filled into a transcript's lines when it is played: escapes, base64, SCRAM-SHA-256.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::{digest, hmac, pbkdf2};

const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";

/// The access key that `@ url-key` gives a mailbox (RFC 4467).
pub(crate) const URL_KEY: [u8; 32] = *b"the key of a mailbox for no use.";

/// A connection's SCRAM exchange on the client's side (RFC 5802).
#[derive(Debug, Default)]
pub(crate) struct Scram {
    /// What the connection's TLS gives to bind to.
    pub(crate) binding: [u8; 32],
    /// What comes back in `c=`.
    cbind_input: Vec<u8>,
    first_bare: String,
    signature: String,
    /// The last number each response code told.
    codes: HashMap<String, String>,
}

/// Undoes the escapes of `C>` lines.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        bytes.push(match rest.next() {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('s') => b' ',
            Some('0') => 0,
            Some('"') => b'"',
            Some('\\') => b'\\',
            Some('x') => {
                let digits: String = rest.by_ref().take(2).collect();
                u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits} is no byte"))?
            }
            other => return Err(format!("unknown escape {other:?}")),
        });
    }
    Ok(bytes)
}

/// Fills in the `${…}` words of a line; `last` is the last line the server said.
pub(crate) fn fill(text: &[u8], scram: &mut Scram, last: &str) -> Result<Vec<u8>, String> {
    let mut filled = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.windows(2).position(|pair| pair == b"${") {
        let length = rest[start..].iter().position(|&byte| byte == b'}').ok_or("a ${ is not closed")?;
        filled.extend_from_slice(&rest[..start]);
        let word = std::str::from_utf8(&rest[start + 2..start + length]).map_err(|_| "a ${ is not UTF-8")?;
        filled.extend_from_slice(filling(word, scram, last)?.as_bytes());
        rest = &rest[start + length + 1..];
    }
    filled.extend_from_slice(rest);
    Ok(filled)
}

fn filling(word: &str, scram: &mut Scram, last: &str) -> Result<String, String> {
    let (name, arguments) = word.split_once(' ').unwrap_or((word, ""));
    match name {
        "base64" => Ok(BASE64.encode(unescape(arguments)?)),
        "plain" => {
            let (user, password) = arguments.split_once(' ').ok_or("plain needs a user and a password")?;
            Ok(BASE64.encode(format!("\0{user}\0{password}")))
        }
        "scram-first" => {
            scram.cbind_input = b"n,,".to_vec();
            scram.first_bare = format!("n={arguments},r={CLIENT_NONCE}");
            Ok(BASE64.encode(format!("n,,{}", scram.first_bare)))
        }
        "scram-plus-first" => {
            scram.cbind_input = [b"p=tls-exporter,,", &scram.binding[..]].concat();
            scram.first_bare = format!("n={arguments},r={CLIENT_NONCE}");
            Ok(BASE64.encode(format!("p=tls-exporter,,{}", scram.first_bare)))
        }
        "scram-final" => {
            let challenge = last.rsplit(' ').next().unwrap_or_default();
            let challenge = BASE64.decode(challenge).map_err(|_| format!("{last:?} holds no challenge"))?;
            scram.answer(arguments, &String::from_utf8_lossy(&challenge))
        }
        "urlauth" => {
            let mut url = format!("{arguments}:internal:");
            for byte in sign(&URL_KEY, arguments.as_bytes()) {
                let _ = write!(url, "{byte:02x}");
            }
            Ok(url)
        }
        "code" => scram.codes.get(arguments).cloned().ok_or_else(|| format!("nobody told {arguments}")),
        "scram-signature" => Ok(scram.signature.clone()),
        _ => Err(format!("nothing is filled in for {word:?}")),
    }
}

impl Scram {
    /// Remembers the numbers of response codes: `[UIDVALIDITY 3]`.
    pub(crate) fn note(&mut self, heard: &str) {
        let code = heard.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(code, _)| code);
        if let Some((name, number)) = code.and_then(|code| code.split_once(' ')) {
            self.codes.insert(name.to_owned(), number.to_owned());
        }
    }

    /// The client's second message, in base64 (RFC 5802 section 3).
    fn answer(&mut self, password: &str, challenge: &str) -> Result<String, String> {
        let field = |name: &str| {
            challenge
                .split(',')
                .find_map(|field| field.strip_prefix(name))
                .ok_or_else(|| format!("the challenge {challenge:?} has no {name}"))
        };
        let (nonce, salt, rounds) = (field("r=")?, field("s=")?, field("i=")?);
        if !nonce.starts_with(CLIENT_NONCE) || nonce.len() == CLIENT_NONCE.len() {
            return Err(format!("the server's nonce {nonce:?} does not continue ours"));
        }
        let salt = BASE64.decode(salt).map_err(|_| "the salt is not base64")?;
        let rounds = rounds.parse().map_err(|_| "the round count is no number")?;
        let without_proof = format!("c={},r={nonce}", BASE64.encode(&self.cbind_input));
        let message = format!("{},{challenge},{without_proof}", self.first_bare);
        let salted = salted(password, &salt, rounds);
        let client_key = sign(&salted, b"Client Key");
        let signature = sign(digest::digest(&digest::SHA256, &client_key).as_ref(), message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, mark)| key ^ mark).collect();
        let server_signature = sign(&sign(&salted, b"Server Key"), message.as_bytes());
        self.signature = BASE64.encode(format!("v={}", BASE64.encode(server_signature)));
        Ok(BASE64.encode(format!("{without_proof},p={}", BASE64.encode(proof))))
    }
}

/// PBKDF2-HMAC-SHA-256 (RFC 7677).
fn salted(password: &str, salt: &[u8], rounds: NonZeroU32) -> [u8; 32] {
    let mut key = [0; 32];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt, password.as_bytes(), &mut key);
    key
}

/// HMAC-SHA-256.
fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

/// Tells whether a line fits a pattern in which `*` stands for any text.
pub(crate) fn matches(pattern: &str, line: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == line };
    let Some(mut line) = line.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = line.find(part) else { return false };
        line = line.get(at + part.len()..).unwrap_or_default();
    }
    line.ends_with(end)
}
