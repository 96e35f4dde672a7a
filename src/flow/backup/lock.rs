//! age and zstd around a backup: what makes it small, secret and whole.
//!
//! age (<https://age-encryption.org/v1>) encrypts for a passphrase or for recipients' keys, and
//! authenticates every 64 KiB and the end, so that a changed byte or a missing tail is found out.
//! zstd works inside it with a small window: bodies are compressed in the store already.

use std::fmt;
use std::io::{self, BufRead, BufReader, Cursor, Read, Write};
use std::path::Path;

use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Encryptor, Identity, Recipient};
use zeroize::Zeroizing;

use super::{At, BackupError};

/// scrypt's work factor for a new backup: 2^15 rounds of 1 KiB, 32 MiB of memory while it begins,
/// which a board of 512 MiB has.
const WORK_FACTOR: u8 = 15;

/// The largest work factor that is taken: 256 MiB, what `age -p` itself chooses.
pub(super) const WORK_FACTOR_MAX: u8 = 18;

/// Shortest passphrase for a new backup, in bytes: the file may lie where anybody can try.
pub const PASSPHRASE_MIN: usize = 8;

/// zstd's level and window: 512 KiB, as rows repeat nearby.
const LEVEL: i32 = 2;
const WINDOW_LOG: u32 = 19;

/// The largest window that is taken, 8 MiB: what the standard tool uses by itself.
const WINDOW_LOG_MAX: u32 = 23;

/// Longest head of an age file, in bytes: some hundreds of recipients.
const HEAD_MAX: usize = 64 << 10;

const AGE_LINE: &[u8] = b"age-encryption.org/v1";

/// What a new backup is encrypted for.
pub enum Lock {
    /// Whoever knows the passphrase.
    Passphrase(Zeroizing<String>),
    /// Whoever has the secret key of one of these.
    Recipients(Vec<age::x25519::Recipient>),
}

impl fmt::Debug for Lock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passphrase(_) => out.write_str("Passphrase(hidden)"),
            Self::Recipients(some) => write!(out, "Recipients({})", some.len()),
        }
    }
}

/// What is known to open backups.
#[derive(Default)]
pub struct Keys {
    /// A passphrase.
    pub passphrase: Option<Zeroizing<String>>,
    /// Secret keys.
    pub identities: Vec<age::x25519::Identity>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Keys(hidden, {} identities)", self.identities.len())
    }
}

/// How a backup was encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// With a passphrase.
    Passphrase,
    /// For recipients.
    Recipients,
}

impl LockKind {
    /// Looks at a backup's head.
    ///
    /// # Errors
    /// The disk's; or it is no age file.
    pub fn of(path: &Path) -> Result<Self, BackupError> {
        let mut input = BufReader::new(std::fs::File::open(path).at(path)?);
        let head = read_head(&mut input, path)?;
        Ok(kind_of(&decryptor(head, input, path)?))
    }
}

fn kind_of<R>(decryptor: &Decryptor<R>) -> LockKind {
    if decryptor.is_scrypt() { LockKind::Passphrase } else { LockKind::Recipients }
}

/// Reads recipients, one a line; lines that begin with `#` are comments. `whence` names the text in
/// errors.
///
/// # Errors
/// A line is none, or there is none.
pub fn recipients(text: &str, whence: &str) -> Result<Vec<age::x25519::Recipient>, BackupError> {
    let none = |line: &str| {
        BackupError::Key(format!(
            "{whence}: `{line}` is no recipient; it begins with `age1`, and `age-keygen` prints one"
        ))
    };
    let found: Result<Vec<_>, _> = lines(text).map(|line| line.parse().map_err(|_| none(line))).collect();
    found.and_then(|found| if found.is_empty() { Err(none("")) } else { Ok(found) })
}

/// Reads secret keys as `age-keygen` writes them.
///
/// # Errors
/// A line is none, or there is none; the text never shows it.
pub fn identities(text: &str, whence: &str) -> Result<Vec<age::x25519::Identity>, BackupError> {
    let none = || {
        BackupError::Key(format!("{whence} holds something else than secret keys (`AGE-SECRET-KEY-1...`, one a line)"))
    };
    let found: Result<Vec<_>, _> = lines(text).map(|line| line.parse().map_err(|_| none())).collect();
    found.and_then(|found| if found.is_empty() { Err(none()) } else { Ok(found) })
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Compresses and encrypts what is written to it.
pub(super) struct Locked<W: Write>(zstd::Encoder<'static, age::stream::StreamWriter<W>>);

impl Lock {
    /// Writes the head and stands ready for the rest.
    pub(super) fn apply<W: Write>(&self, out: W) -> io::Result<Locked<W>> {
        let encryptor = match self {
            Self::Passphrase(text) => {
                let mut recipient = age::scrypt::Recipient::new(secret(text));
                recipient.set_work_factor(WORK_FACTOR);
                Encryptor::with_recipients(std::iter::once(&recipient as &dyn Recipient))
            }
            Self::Recipients(some) => {
                Encryptor::with_recipients(some.iter().map(|recipient| recipient as &dyn Recipient))
            }
        };
        let sealed = encryptor.map_err(io::Error::other)?.wrap_output(out)?;
        let mut zstd = zstd::Encoder::new(sealed, LEVEL)?;
        zstd.window_log(WINDOW_LOG)?;
        Ok(Locked(zstd))
    }
}

fn secret(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

impl<W: Write> Write for Locked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write> Locked<W> {
    /// Ends the stream: without this it can't be read to its end.
    pub(super) fn finish(self) -> io::Result<W> {
        self.0.finish()?.finish()
    }
}

/// An encrypted file from its beginning.
type Input<R> = io::Chain<Cursor<Vec<u8>>, BufReader<R>>;

/// Decrypts and unpacks what is read from it.
pub(super) struct Unlocked<R: Read>(zstd::Decoder<'static, BufReader<age::stream::StreamReader<Input<R>>>>);

/// Opens what [`Lock::apply`] wrote; `path` names it in errors.
pub(super) fn open<R: Read>(input: R, keys: &Keys, path: &Path) -> Result<Unlocked<R>, BackupError> {
    let mut input = BufReader::with_capacity(64 << 10, input);
    let head = read_head(&mut input, path)?;
    let decryptor = decryptor(head, input, path)?;
    let kind = kind_of(&decryptor);
    let opened = match (kind, &keys.passphrase) {
        (LockKind::Passphrase, Some(text)) => {
            let mut identity = age::scrypt::Identity::new(secret(text));
            identity.set_max_work_factor(WORK_FACTOR_MAX);
            decryptor.decrypt(std::iter::once(&identity as &dyn Identity))
        }
        (LockKind::Passphrase, None) => Err(DecryptError::NoMatchingKeys),
        (LockKind::Recipients, _) => {
            decryptor.decrypt(keys.identities.iter().map(|identity| identity as &dyn Identity))
        }
    };
    let stream = opened.map_err(|error| match error {
        DecryptError::ExcessiveWork { required, .. } => BackupError::TooMuchWork(path.to_owned(), required),
        DecryptError::NoMatchingKeys | DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => {
            BackupError::WrongKey(path.to_owned(), kind)
        }
        other => refused(other, path),
    })?;
    let mut zstd = zstd::Decoder::new(stream).at(path)?;
    zstd.window_log_max(WINDOW_LOG_MAX).at(path)?;
    Ok(Unlocked(zstd))
}

/// Reads the lines before the encrypted part.
fn read_head(input: &mut impl BufRead, path: &Path) -> Result<Vec<u8>, BackupError> {
    let mut head = Vec::new();
    loop {
        let begin = head.len();
        let room = (HEAD_MAX - begin) as u64;
        input.take(room).read_until(b'\n', &mut head).map_err(|error| told(error, path))?;
        let line = head.get(begin..).unwrap_or_default();
        if begin == 0 && line.strip_suffix(b"\n") != Some(AGE_LINE) {
            let cut = !line.is_empty() && !line.ends_with(b"\n") && AGE_LINE.starts_with(line);
            let foreign = BackupError::Foreign(path.to_owned(), "it does not begin as an age file does");
            return Err(if cut { BackupError::CutOff(path.to_owned()) } else { foreign });
        }
        match (line.ends_with(b"\n"), line.starts_with(b"---")) {
            (true, true) => return Ok(head),
            (true, false) => {}
            (false, _) if head.len() >= HEAD_MAX => return Err(BackupError::Altered(path.to_owned())),
            (false, _) => return Err(BackupError::CutOff(path.to_owned())),
        }
    }
}

fn decryptor<R: Read>(head: Vec<u8>, rest: BufReader<R>, path: &Path) -> Result<Decryptor<Input<R>>, BackupError> {
    Decryptor::new_buffered(Cursor::new(head).chain(rest)).map_err(|error| refused(error, path))
}

fn refused(error: DecryptError, path: &Path) -> BackupError {
    match error {
        DecryptError::Io(error) => told(error, path),
        DecryptError::UnknownFormat => BackupError::Newer(path.to_owned(), "another version of age".to_owned()),
        _ => BackupError::Altered(path.to_owned()),
    }
}

/// What an error while reading says about the file: the disk's own have the system's number.
pub(super) fn told(error: io::Error, path: &Path) -> BackupError {
    match error.kind() {
        _ if error.raw_os_error().is_some() => BackupError::Path(path.to_owned(), error),
        io::ErrorKind::UnexpectedEof => BackupError::CutOff(path.to_owned()),
        _ => BackupError::Altered(path.to_owned()),
    }
}

impl<R: Read> Read for Unlocked<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Keys {
        Keys { passphrase: Some(Zeroizing::new(text.to_owned())), ..Keys::default() }
    }

    fn sealed(lock: &Lock, text: &[u8]) -> Vec<u8> {
        let mut out = lock.apply(Vec::new()).unwrap();
        out.write_all(text).unwrap();
        out.finish().unwrap()
    }

    fn opened(bytes: &[u8], keys: &Keys) -> Result<Vec<u8>, BackupError> {
        let path = Path::new("some.age");
        let mut text = Vec::new();
        open(bytes, keys, path)?.read_to_end(&mut text).map_err(|error| told(error, path))?;
        Ok(text)
    }

    #[test]
    fn what_is_locked_opens_with_its_own_key_alone() {
        let text = b"To whom it may concern.\r\n".repeat(9000);
        let by_word = sealed(&Lock::Passphrase(Zeroizing::new("correct horse".to_owned())), &text);
        assert!(by_word.len() * 20 < text.len());
        assert_eq!(opened(&by_word, &passphrase("correct horse")).unwrap(), text);
        let error = opened(&by_word, &passphrase("battery staple")).unwrap_err().to_string();
        assert!(error.contains("passphrase does not open some.age"), "{error}");

        let (ours, other) = (age::x25519::Identity::generate(), age::x25519::Identity::generate());
        let by_key = sealed(&Lock::Recipients(vec![ours.to_public()]), &text);
        assert_eq!(opened(&by_key, &Keys { identities: vec![ours], ..Keys::default() }).unwrap(), text);
        for keys in [Keys { identities: vec![other], ..Keys::default() }, Keys::default(), passphrase("x")] {
            let error = opened(&by_key, &keys).unwrap_err().to_string();
            assert!(error.contains("none of the given keys"), "{error}");
        }
    }

    #[test]
    fn a_file_that_asks_for_too_much_memory_is_refused_unopened() {
        let mut recipient = age::scrypt::Recipient::new(secret("correct horse"));
        recipient.set_work_factor(2);
        let encryptor = Encryptor::with_recipients(std::iter::once(&recipient as &dyn Recipient)).unwrap();
        let mut out = Vec::new();
        encryptor.wrap_output(&mut out).unwrap().finish().unwrap();
        // The factor stands in the head's second line.
        let at = out.windows(3).position(|bytes| bytes == b" 2\n").unwrap() + 1;
        out.splice(at..=at, *b"30");
        let error = opened(&out, &passphrase("correct horse")).unwrap_err().to_string();
        assert!(error.contains("work factor 30, 18 at most"), "{error}");
    }

    #[test]
    fn what_is_no_age_file_is_named() {
        for bytes in [&b"From ann@x.test\n"[..], b"\n", &vec![0; 100_000]] {
            let error = opened(bytes, &Keys::default()).unwrap_err().to_string();
            assert!(error.contains("no backup of Pillarbox"), "{error}");
        }
        let endless = [AGE_LINE, b"\n", &b"-> x\n".repeat(20_000)].concat();
        assert!(opened(&endless, &Keys::default()).unwrap_err().to_string().contains("altered"));
    }

    #[test]
    fn keys_are_read_from_files_and_never_shown() {
        use age::secrecy::ExposeSecret as _;
        let identity = age::x25519::Identity::generate();
        let (public, text) = (identity.to_public().to_string(), identity.to_string());
        assert_eq!(recipients(&format!("# ours\n{public}\n\n"), "f").unwrap().len(), 1);
        let secret = format!("# public key: {public}\n{}\n", text.expose_secret());
        assert_eq!(identities(&secret, "f").unwrap().len(), 1);
        assert!(recipients("age1oops", "keys.txt").unwrap_err().to_string().contains("keys.txt: `age1oops`"));
        let error = identities("AGE-SECRET-KEY-1OOPS", "keys.txt").err().unwrap().to_string();
        assert!(error.contains("keys.txt") && !error.contains("OOPS"), "{error}");
        assert!(recipients("# none\n", "f").is_err() && identities("", "f").is_err());
    }
}
