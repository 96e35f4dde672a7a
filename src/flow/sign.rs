//! Signs mail on its way out (RFC 6376, RFC 8463): one RSA and one Ed25519 signature, relaxed/relaxed.
//!
//! It happens at each sending, so that a message that waits long leaves with a key that is still
//! published. The domain is that of the From field, which makes the signature count for DMARC. The body
//! is read once, in pieces, for both signatures. A message whose domain has no key is not signed, and
//! neither is one with keys that cannot be used: it leaves all the same, and the log says why.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Context, SHA256};
use ring::rand::SecureRandom;

use super::dkim::{Algorithm, FOLDER, KeyError, Keyring, Pair, dns_name};
use crate::mail::address::{Address, Domain};
use crate::mail::date::Timestamp;
use crate::mail::dkim_canon::{BodyForm, CanonicalBody, relaxed_field};
use crate::mail::structure::{MailAddress, addresses};
use crate::store::{Body, ReadError};

/// Longest header that is signed, in bytes.
pub const HEADER_MAX: usize = 256 << 10;

/// Bytes read at a time.
const PIECE: usize = 64 << 10;

/// Domains whose keys are kept in memory, about 4 KiB each.
const LOADED_MAX: usize = 64;

/// Most fields of one name that are signed.
const SAME_MAX: usize = 10;

/// A clock that shows less is not set (2025-01-01); a signature does not tell the time then.
const CLOCK_FLOOR: i64 = 1_735_689_600;

/// Width that a signature's lines are folded at.
const WIDTH: usize = 76;

/// Fields that are signed where they are. The first ones are listed once more than they are there, so
/// that nobody can add another (RFC 6376 section 8.15): those that readers are shown, or answer to, or
/// that say how the body is to be read. Trace fields change on the way (section 5.4).
const SIGNED: [(&str, bool); 25] = [
    ("From", true),
    ("To", true),
    ("Cc", true),
    ("Subject", true),
    ("Date", true),
    ("Message-ID", true),
    ("Reply-To", true),
    ("MIME-Version", true),
    ("Content-Type", true),
    ("Content-Transfer-Encoding", true),
    ("Sender", false),
    ("In-Reply-To", false),
    ("References", false),
    ("Content-Disposition", false),
    ("Content-ID", false),
    ("Content-Language", false),
    ("Auto-Submitted", false),
    ("List-Id", false),
    ("List-Post", false),
    ("List-Help", false),
    ("List-Subscribe", false),
    ("List-Unsubscribe", false),
    ("List-Unsubscribe-Post", false),
    ("List-Owner", false),
    ("List-Archive", false),
];

/// A message as it leaves, a piece at a time.
pub trait Content {
    /// The next piece; empty at the end.
    ///
    /// # Errors
    /// The store's.
    fn next(&mut self) -> Result<&[u8], ReadError>;
}

/// A message in the store.
#[derive(Debug)]
pub struct Stored<'b> {
    body: &'b mut Body,
    offset: u64,
}

impl<'b> Stored<'b> {
    /// The message from its beginning. That it begins with our Return-Path does not matter here.
    pub fn new(body: &'b mut Body) -> Self {
        Self { body, offset: 0 }
    }
}

impl Content for Stored<'_> {
    fn next(&mut self) -> Result<&[u8], ReadError> {
        let piece = self.body.read(self.offset, PIECE)?;
        self.offset += piece.len() as u64;
        Ok(piece)
    }
}

impl Content for &[u8] {
    fn next(&mut self) -> Result<&[u8], ReadError> {
        Ok(std::mem::take(self))
    }
}

/// Signs with the keys of a data folder. Cheap to clone.
#[derive(Clone)]
pub struct Signer {
    data: Arc<Path>,
    random: Arc<dyn SecureRandom + Send + Sync>,
    loaded: Arc<Mutex<HashMap<String, Loaded>>>,
}

/// A domain's keys, as they were found.
#[derive(Debug)]
struct Loaded {
    /// When its `keys.json` was written.
    written: Option<SystemTime>,
    ring: Keyring,
    /// The pair that signed last.
    pair: Option<(u32, Arc<Pair>)>,
}

/// Who signs.
struct Signing {
    /// In A-labels.
    domain: String,
    number: u32,
    pair: Arc<Pair>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Signer").field("data", &self.data).finish_non_exhaustive()
    }
}

impl Signer {
    /// Signs with the keys in `data`; `random` is the system's.
    pub fn new(data: &Path, random: Arc<dyn SecureRandom + Send + Sync>) -> Self {
        Self { data: data.into(), random, loaded: Arc::default() }
    }

    /// The whole DKIM-Signature fields, with CRLFs, to put before the message; empty when its From
    /// domain has no key. Blocks.
    ///
    /// Only for what we ourselves wrote: mail from elsewhere that is forwarded may claim any From. A host that has
    /// no keys of its own signs as the nearest domain above it that has some, which alignment in DMARC allows.
    ///
    /// # Errors
    /// The message can't be read.
    pub fn sign(&self, message: &mut dyn Content, now: Timestamp) -> Result<String, ReadError> {
        self.sign_with(message, &|author| self.keys_at_or_above(author.domain().as_str(), now), now)
    }

    /// The same for what a user of ours sent, only if `may` is true of the author: a user of one domain shall not
    /// speak for another.
    ///
    /// # Errors
    /// The message can't be read.
    pub fn sign_if(
        &self,
        message: &mut dyn Content,
        now: Timestamp,
        may: &dyn Fn(&Address) -> bool,
    ) -> Result<String, ReadError> {
        let keys = |author: &Address| {
            let signing = self.keys(author.domain().as_str(), now)?;
            let may = may(author);
            if !may {
                tracing::warn!(%author, "mail leaves unsigned: its sender may not write in this author's name");
            }
            may.then_some(signing)
        };
        self.sign_with(message, &keys, now)
    }

    fn sign_with(
        &self,
        message: &mut dyn Content,
        keys: &dyn Fn(&Address) -> Option<Signing>,
        now: Timestamp,
    ) -> Result<String, ReadError> {
        let mut header = Vec::new();
        let split = loop {
            let end = header_end(&header);
            if end.unwrap_or(header.len()) > HEADER_MAX {
                tracing::warn!("a message was not signed: its header is longer than {HEADER_MAX} bytes");
                return Ok(String::new());
            }
            if let Some(end) = end {
                break end;
            }
            let piece = message.next()?;
            if piece.is_empty() {
                break header.len();
            }
            header.extend_from_slice(piece);
        };
        let fields = fields(header.get(..split).unwrap_or_default());
        let signing = author(&fields).and_then(|author| keys(&author));
        let Some(Signing { domain, number, pair }) = signing else { return Ok(String::new()) };

        let mut hash = Context::new(&SHA256);
        let mut canonical = CanonicalBody::new(BodyForm::Relaxed);
        canonical.feed(header.get(split..).unwrap_or_default(), &mut |bytes| hash.update(bytes));
        loop {
            let piece = message.next()?;
            if piece.is_empty() {
                break;
            }
            canonical.feed(piece, &mut |bytes| hash.update(bytes));
        }
        canonical.finish(&mut |bytes| hash.update(bytes));
        let body_hash = STANDARD.encode(hash.finish());

        let (names, data) = signed(&fields);
        let mut out = String::new();
        for algorithm in Algorithm::ALL {
            let selector = Keyring::selector(number, algorithm);
            let field = signature(&Tags {
                algorithm,
                domain: &domain,
                selector: &selector,
                now,
                names: &names,
                body_hash: &body_hash,
            });
            let mut data = data.clone();
            relaxed_field(field.as_bytes(), &mut data);
            data.truncate(data.len().saturating_sub(2));
            if let Some(value) = pair.sign(algorithm, &*self.random, &data) {
                out.push_str(&field);
                fold(&mut out, &value);
                out.push_str("\r\n");
            }
        }
        Ok(out)
    }

    /// What signs for a host now: its own keys, or those of the nearest domain above it. A top-level domain is nobody's.
    fn keys_at_or_above(&self, host: &str, now: Timestamp) -> Option<Signing> {
        let above = std::iter::successors(Some(host), |name| name.split_once('.').map(|(_, above)| above));
        above.filter(|name| name.contains('.')).find_map(|name| self.keys(name, now))
    }

    /// What signs for a domain now; nothing when it has no keys, or they cannot be used, which is logged.
    fn keys(&self, domain: &str, now: Timestamp) -> Option<Signing> {
        let domain = dns_name(domain).ok()?;
        let written = |ring: &Path| fs::metadata(ring).and_then(|facts| facts.modified()).ok();
        // Most mail's domain has keys or never will: one look tells.
        let path = self.data.join(FOLDER).join(&domain);
        if !path.is_dir() {
            return None;
        }
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.len() >= LOADED_MAX && !loaded.contains_key(&domain) {
            loaded.clear();
        }
        if loaded.get(&domain).is_none_or(|known| known.written != written(&known.ring.file())) {
            match Keyring::open(&self.data, &domain) {
                Ok(ring) => {
                    let written = written(&ring.file());
                    loaded.insert(domain.clone(), Loaded { written, ring, pair: None });
                }
                Err(error) => return unusable(&domain, &error),
            }
        }
        let known = loaded.get_mut(&domain)?;
        let number = known.ring.signing(now)?;
        if let Some((_, pair)) = known.pair.as_ref().filter(|(loaded, _)| *loaded == number) {
            return Some(Signing { domain, number, pair: Arc::clone(pair) });
        }
        match known.ring.load(number) {
            Ok(pair) => {
                let pair = Arc::new(pair);
                known.pair = Some((number, Arc::clone(&pair)));
                Some(Signing { domain, number, pair })
            }
            Err(error) => unusable(&domain, &error),
        }
    }
}

fn unusable<T>(domain: &str, error: &KeyError) -> Option<T> {
    tracing::warn!(domain, %error, "mail leaves unsigned");
    None
}

/// Where the header ends, its empty line included, if that has come.
fn header_end(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        from += line.len();
        if matches!(line, b"\r\n" | b"\n") {
            return Some(from);
        }
    }
    None
}

/// The fields of a header, each with its name, folded as they stand there.
fn fields(header: &[u8]) -> Vec<(&[u8], &[u8])> {
    let mut fields = Vec::new();
    let mut start = 0;
    let mut end = 0;
    let mut take = |start: usize, end: usize| {
        let field = header.get(start..end).unwrap_or_default();
        if let Some(colon) = field.iter().position(|&byte| byte == b':') {
            fields.push((field.get(..colon).unwrap_or_default().trim_ascii_end(), field));
        }
    };
    for line in header.split_inclusive(|&byte| byte == b'\n') {
        if !matches!(line.first(), Some(b' ' | b'\t')) {
            take(start, end);
            start = end;
        }
        end += line.len();
    }
    take(start, end);
    fields
}

/// The only author, or the first one. A header with two From fields says nothing sure and is not signed.
fn author(fields: &[(&[u8], &[u8])]) -> Option<Address> {
    let mut from = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"from"));
    let (Some((name, field)), None) = (from.next(), from.next()) else { return None };
    let body = field.get(name.len()..).unwrap_or_default();
    let text = String::from_utf8_lossy(body).replace(['\r', '\n'], "");
    let text = text.trim_start().trim_start_matches(':');
    addresses(text).into_iter().find_map(|address| match address {
        MailAddress::Mailbox { local, host, .. } => Address::new(&local, Domain::parse(&host).ok()?).ok(),
        _ => None,
    })
}

/// The names for `h=` and the fields they stand for, canonical, in their order: of fields with one
/// name the last comes first (RFC 6376 section 5.4.2).
fn signed(fields: &[(&[u8], &[u8])]) -> (Vec<&'static str>, Vec<u8>) {
    let (mut names, mut data) = (Vec::new(), Vec::new());
    for (name, over) in SIGNED {
        let same = fields.iter().rev().filter(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()));
        let mut count = 0;
        for (_, field) in same.take(SAME_MAX) {
            names.push(name);
            relaxed_field(field, &mut data);
            count += 1;
        }
        if over && count < SAME_MAX {
            names.push(name);
        }
    }
    (names, data)
}

struct Tags<'a> {
    algorithm: Algorithm,
    domain: &'a str,
    selector: &'a str,
    now: Timestamp,
    names: &'a [&'static str],
    body_hash: &'a str,
}

/// The field up to its empty `b=`.
fn signature(tags: &Tags<'_>) -> String {
    let Tags { algorithm, domain, selector, now, names, body_hash } = tags;
    let mut field =
        format!("DKIM-Signature: v=1; a={}; c=relaxed/relaxed;\r\n\td={domain};\r\n\ts={selector};", algorithm.tag());
    if now.0 >= CLOCK_FLOOR {
        // Writing to a String cannot fail.
        let _ = write!(field, " t={};", now.0);
    }
    field.push_str("\r\n\th=");
    let mut width = 3;
    for (index, name) in names.iter().enumerate() {
        if width + name.len() + 1 > WIDTH {
            field.push_str("\r\n\t ");
            width = 2;
        }
        field.push_str(name);
        field.push(if index + 1 < names.len() { ':' } else { ';' });
        width += name.len() + 1;
    }
    field + "\r\n\tbh=" + body_hash + ";\r\n\tb="
}

/// Appends a signature's value in lines that are no wider than mail's should be.
fn fold(out: &mut String, value: &str) {
    let mut rest = value;
    let mut room = WIDTH - 3;
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(room));
        out.push_str(line);
        if !after.is_empty() {
            out.push_str("\r\n\t ");
        }
        rest = after;
        room = WIDTH - 2;
    }
}

#[cfg(test)]
mod tests {
    use super::super::dkim::SEEDS;
    use super::*;
    use ring::rand::SystemRandom;
    use std::os::unix::fs::PermissionsExt as _;

    const NOW: Timestamp = Timestamp(1_800_000_000);

    /// Cut into pieces of `cut` bytes.
    struct Pieces<'m>(std::slice::Chunks<'m, u8>);

    impl Content for Pieces<'_> {
        fn next(&mut self) -> Result<&[u8], ReadError> {
            Ok(self.0.next().unwrap_or_default())
        }
    }

    fn signer() -> (tempfile::TempDir, Signer) {
        let folder = tempfile::tempdir().unwrap();
        let mut ring = Keyring::open(folder.path(), "x.test").unwrap();
        ring.ensure(NOW, &[1; SEEDS]).unwrap();
        let signer = Signer::new(folder.path(), Arc::new(SystemRandom::new()));
        (folder, signer)
    }

    fn sign(signer: &Signer, message: &str) -> String {
        signer.sign(&mut message.as_bytes(), NOW).unwrap()
    }

    const LETTER: &str = "Return-Path: <a@x.test>\r\nReceived: x\r\nFrom: Ann <a@X.test>\r\nTo: b@y.test\r\n\r\nhi\r\n";

    #[test]
    fn two_signatures_name_the_fields_and_leave_trace_fields_out() {
        let (_folder, signer) = signer();
        let out = sign(&signer, LETTER);
        assert_eq!(out.matches("DKIM-Signature: v=1; ").count(), 2);
        assert!(out.contains("a=rsa-sha256;") && out.contains("a=ed25519-sha256;"), "{out}");
        assert!(
            out.contains("\r\n\td=x.test;\r\n\ts=pb1-rsa; t=1800000000;\r\n\th=From:From:To:To:Cc:Subject:"),
            "{out}"
        );
        assert!(!out.contains("Received") && !out.contains("Return-Path"), "{out}");
        // SHA-256 of "hi" and CRLF
        assert_eq!(out.matches("bh=RHI91NDg1Go8f6isolS2HCe2tXiflhd+gsgHAECfFTU=;").count(), 2, "{out}");
        for line in out.split_terminator("\r\n") {
            assert!(line.len() <= 78 && !line.contains('\n') && !line.is_empty(), "{line}");
        }
        assert!(out.ends_with("\r\n"));
    }

    #[test]
    fn the_pieces_a_message_comes_in_change_nothing() {
        let (_folder, signer) = signer();
        let body = "line \t of text  \r\n".repeat(300);
        let message = format!("From: a@x.test\r\nSubject: a\r\n  folded\r\n\r\n{body}\r\n\r\n");
        let whole = sign(&signer, &message);
        for cut in [1, 2, 7, 100] {
            // RSA and Ed25519 signatures are the same each time.
            let pieces = signer.sign(&mut Pieces(message.as_bytes().chunks(cut)), NOW).unwrap();
            assert_eq!(pieces, whole, "{cut}");
        }
    }

    #[test]
    fn mail_without_a_sure_author_or_a_key_is_not_signed() {
        let (_folder, signer) = signer();
        for header in [
            "From: a@y.test\r\n",
            "From: a@x.test\r\nFrom: b@x.test\r\n",
            "From: nobody\r\n",
            "To: a@x.test\r\n",
            "From: a@../x.test\r\n",
            "From: a@[192.0.2.1]\r\n",
            "",
        ] {
            assert_eq!(sign(&signer, &format!("{header}\r\nhi\r\n")), "", "{header}");
        }
        let long = format!("From: a@x.test\r\nX: {}\r\n\r\n", "x".repeat(HEADER_MAX));
        assert_eq!(sign(&signer, &long), "");
        assert_ne!(sign(&signer, "From: a@x.test"), "", "a header alone");
        let by = |author: &str| signer.sign_if(&mut LETTER.as_bytes(), NOW, &|from| from.key() == author).unwrap();
        assert!(by("b@x.test").is_empty() && !by("a@x.test").is_empty(), "another's name");
    }

    #[test]
    fn a_host_without_keys_signs_as_the_domain_above_it_and_a_user_does_not() {
        let (_folder, signer) = signer();
        let notice = "From: Mail delivery <postmaster@mail.ship.x.test>\r\n\r\nhi\r\n";
        assert!(sign(&signer, notice).contains("\r\n\td=x.test;"));
        assert_eq!(sign(&signer, &notice.replace("x.test", "y.test")), "");
        assert_eq!(sign(&signer, &notice.replace("mail.ship.x.test", "test")), "");
        assert_eq!(signer.sign_if(&mut notice.as_bytes(), NOW, &|_| true).unwrap(), "");
    }

    #[test]
    fn the_clock_is_not_told_before_it_is_set() {
        let (_folder, signer) = signer();
        let out = signer.sign(&mut LETTER.as_bytes(), Timestamp(5)).unwrap();
        assert!(out.contains("s=pb1-rsa;\r\n\th="), "{out}");
    }

    #[test]
    fn a_change_of_keys_is_seen_and_keys_that_others_may_read_sign_nothing() {
        let (folder, signer) = signer();
        assert!(sign(&signer, LETTER).contains("s=pb1-rsa;"));
        let mut ring = Keyring::open(folder.path(), "x.test").unwrap();
        ring.rotate(NOW, &[2; SEEDS], true).unwrap();
        assert!(sign(&signer, LETTER).contains("s=pb2-rsa;"));
        let key = folder.path().join("dkim/x.test/pb2-rsa.pem");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let other = Signer::new(folder.path(), Arc::new(SystemRandom::new()));
        assert_eq!(sign(&other, LETTER), "");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(sign(&other, LETTER).contains("s=pb2-rsa;"));
    }
}
