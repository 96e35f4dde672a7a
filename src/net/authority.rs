//! The local certificate authority, the server certificate it signs, and those of clients.
//!
//! A box without internet cannot have a public certificate, so it makes its own authority once and
//! people trust that: `ca.crt`. The server certificate below it is short-lived and replaced whenever
//! it is about to expire or the machine's names or addresses have changed; nobody notices. What we
//! need to know about a certificate stands as plain text above it in its own file.
//!
//! A Pi has no clock: it may believe it is 1970. Certificates are therefore dated from the latest of
//! the clock, the program file's date and a date in this source, begin 100 days before it, and are
//! made anew when the clock turns out to have been wrong.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use zeroize::Zeroizing;

use crate::mail::certificate::{Fingerprint, expiry};
use crate::mail::date::Timestamp;

/// No clock is right that shows an earlier time: 2026-11-01 00:00 UTC.
pub(super) const CLOCK_FLOOR_SECS: u64 = 1_793_491_200;

const DAY: Duration = Duration::from_hours(24);

/// Life of the authority.
const AUTHORITY_DAYS: u32 = 3_652;

/// Life of a server certificate; some clients refuse more (Apple's limit is 825 days).
const SERVER_DAYS: u32 = 820;

/// Longest life of a client's certificate.
pub const CLIENT_DAYS_MAX: u32 = AUTHORITY_DAYS;

/// What a certificate begins with in PEM form.
const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// How long before its making a certificate begins, for clients whose clock is slow.
const BACKDATED_DAYS: u32 = 100;

/// A certificate with less life than this is replaced.
const RENEW_DAYS: u32 = 30;

/// Most addresses of the machine that go into the certificate.
const ADDRESSES_MAX: usize = 32;

/// Files of the authority and its server certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The authority's certificate, which people give to their mail programs.
    pub ca: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// The server's key.
    pub key: PathBuf,
    /// When [`ensure`] should be called again.
    pub renew_at: SystemTime,
}

/// Why there is no certificate. `Display` is one sentence.
#[derive(Debug)]
pub enum AuthorityError {
    /// A file could not be read or written.
    File(PathBuf, io::Error),
    /// A file is not what we once wrote.
    Damaged(PathBuf),
    /// A certificate could not be made; the text is the library's.
    Making(String),
}

impl fmt::Display for AuthorityError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(formatter, "{}: {error}", path.display()),
            Self::Damaged(path) => write!(
                formatter,
                "{} is damaged; move the folder it is in away to make a new authority, which every client must \
                 then be given",
                path.display()
            ),
            Self::Making(text) => write!(formatter, "cannot make a certificate: {text}"),
        }
    }
}

impl std::error::Error for AuthorityError {}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Making(error.to_string())
    }
}

/// What this machine is called: `pillarbox.local`, `localhost`, `extra`, the host's name with and
/// without `.local`, and the addresses of its interfaces.
pub fn names_of_this_machine(extra: &[String]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> =
        ["pillarbox.local", "localhost", "127.0.0.1", "::1"].into_iter().map(str::to_owned).collect();
    names.extend(extra.iter().filter(|name| fits_a_certificate(name)).map(|name| name.to_ascii_lowercase()));
    let host = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    if fits_a_certificate(&host) {
        if !host.contains('.') && host != "localhost" {
            names.insert(format!("{host}.local"));
        }
        names.insert(host);
    }
    let addresses = if_addrs::get_if_addrs().unwrap_or_default();
    let useful = addresses.iter().filter(|interface| !interface.is_loopback() && !interface.is_link_local());
    names.extend(useful.map(|interface| interface.ip().to_string()).take(ADDRESSES_MAX));
    names
}

/// A host name in letters, digits, hyphens and dots, or an address.
fn fits_a_certificate(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && (name.parse::<IpAddr>().is_ok() || name.split('.').all(label))
}

/// Makes sure that `folder` holds an authority and a server certificate for exactly these names that
/// is good for a while, and makes what is missing.
///
/// # Errors
/// A file cannot be read or written, or is not what we wrote.
pub fn ensure(folder: &Path, names: &BTreeSet<String>) -> Result<Issued, AuthorityError> {
    ensure_at(folder, names, latest_known_time())
}

/// The clock, unless it is plainly wrong: then the latest date we have reason to believe is past.
fn latest_known_time() -> SystemTime {
    let floor = SystemTime::UNIX_EPOCH + Duration::from_secs(CLOCK_FLOOR_SECS);
    let program = std::env::current_exe().and_then(fs::metadata).and_then(|metadata| metadata.modified());
    SystemTime::now().max(floor).max(program.unwrap_or(floor))
}

fn ensure_at(folder: &Path, names: &BTreeSet<String>, now: SystemTime) -> Result<Issued, AuthorityError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| AuthorityError::File(folder.to_owned(), error))?;
    let ca = folder.join("ca.crt");
    let ca_key = folder.join("ca.key");
    let certificate = folder.join("server.crt");
    let key = folder.join("server.key");

    let authority = match (read(&ca)?, read(&ca_key)?) {
        (Some(about), Some(key_pem)) if About::read(&about).is_some_and(|about| about.is_good(now)) => {
            KeyPair::from_pem(&key_pem).map_err(|_| AuthorityError::Damaged(ca_key.clone()))?
        }
        (Some(about), _) if About::read(&about).is_none() => return Err(AuthorityError::Damaged(ca)),
        // None yet, or it is at its end.
        _ => {
            let authority = KeyPair::generate()?;
            let (params, about) = authority_params(&authority, now);
            let made = params.self_signed(&authority)?;
            write(&ca_key, authority.serialize_pem().as_bytes(), 0o600)?;
            write(&ca, about.above(&made.pem()).as_bytes(), 0o644)?;
            authority
        }
    };

    let authority_name = name_of(&authority);
    let current = read(&certificate)?.and_then(|text| About::read(&text));
    let current = current.filter(|about| {
        about.is_good(now) && about.authority == authority_name && about.names == *names && key.exists()
    });
    let about = if let Some(about) = current {
        about
    } else {
        // The key stays, so that what DNS says of it (RFC 7672) stays true.
        let known = read(&key)?.and_then(|pem| KeyPair::from_pem(&pem).ok());
        let server = known.map_or_else(KeyPair::generate, Ok)?;
        let (issuer, _) = authority_params(&authority, now);
        let (params, about) = server_params(names, authority_name, now)?;
        let made = params.signed_by(&server, &Issuer::new(issuer, &authority))?;
        // Should the power fail in between, there is a key without its certificate, which is then made.
        let _ = fs::remove_file(&certificate);
        write(&key, server.serialize_pem().as_bytes(), 0o600)?;
        write(&certificate, about.above(&made.pem()).as_bytes(), 0o644)?;
        about
    };
    Ok(Issued { ca, certificate, key, renew_at: about.renew_at() })
}

/// The authority's parameters follow from its key alone (but for its dates), so that they can be
/// rebuilt to sign without reading its certificate.
fn authority_params(key: &KeyPair, now: SystemTime) -> (CertificateParams, About) {
    let about = About {
        authority: name_of(key),
        names: BTreeSet::new(),
        begins: now - DAY * BACKDATED_DAYS,
        ends: now + DAY * AUTHORITY_DAYS,
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, about.authority.clone());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (about.begins.into(), about.ends.into());
    (params, about)
}

fn server_params(
    names: &BTreeSet<String>,
    authority: String,
    now: SystemTime,
) -> Result<(CertificateParams, About), AuthorityError> {
    let begins = now - DAY * BACKDATED_DAYS;
    let about = About { authority, names: names.clone(), begins, ends: begins + DAY * SERVER_DAYS };
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "pillarbox.local");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = (about.begins.into(), about.ends.into());
    Ok((params, about))
}

/// A certificate for a client, with its key.
#[derive(Debug)]
pub struct ClientIssued {
    /// Key, certificate and, where there is one, the authority's, in PEM form.
    pub pem: Zeroizing<String>,
    /// The certificate's fingerprint.
    pub fingerprint: Fingerprint,
    /// Its last second.
    pub expires: Timestamp,
}

/// Makes a key and a certificate with which a client logs in to the account `address`, good for `days`
/// (at most [`CLIENT_DAYS_MAX`]). The authority in `folder` signs it; where the server's certificate is
/// from elsewhere and there is none, it signs itself, which makes no difference to us.
///
/// # Errors
/// The authority is there and cannot be used.
pub fn issue_client(folder: &Path, address: &str, days: u32) -> Result<ClientIssued, AuthorityError> {
    let (ca, ca_key, now) = (folder.join("ca.crt"), folder.join("ca.key"), latest_known_time());
    let key = KeyPair::generate()?;
    let ends = now + DAY * days.min(CLIENT_DAYS_MAX);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, address);
    // Only ASCII can stand there; the name above can be anything.
    params.subject_alt_names.extend(address.try_into().ok().map(SanType::Rfc822Name));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    (params.not_before, params.not_after) = ((now - DAY * BACKDATED_DAYS).into(), ends.into());
    let (made, above) = match (read(&ca)?, read(&ca_key)?) {
        (Some(certificate), Some(pem)) => {
            let authority = KeyPair::from_pem(&pem).map_err(|_| AuthorityError::Damaged(ca_key))?;
            let pem = certificate.find(PEM_BEGIN).and_then(|at| certificate.get(at..));
            let pem = pem.ok_or_else(|| AuthorityError::Damaged(ca.clone()))?.to_owned();
            params.use_authority_key_identifier_extension = true;
            (params.signed_by(&key, &Issuer::new(authority_params(&authority, now).0, &authority))?, pem)
        }
        _ => (params.self_signed(&key)?, String::new()),
    };
    let expires = expiry(made.der()).ok_or_else(|| AuthorityError::Making("it has no end".to_owned()))?;
    let pem = Zeroizing::new(format!("{}{}{above}", *Zeroizing::new(key.serialize_pem()), made.pem()));
    Ok(ClientIssued { pem, fingerprint: Fingerprint::of(made.der()), expires })
}

/// Tells one box's authority from another's in a client's list.
fn name_of(authority: &KeyPair) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, authority.public_key_raw());
    let short = digest.as_ref().iter().take(4).fold(0_u32, |short, byte| short << 8 | u32::from(*byte));
    format!("Pillarbox authority {short:08x}")
}

/// What stands above a certificate in its file.
#[derive(Debug, PartialEq, Eq)]
struct About {
    authority: String,
    names: BTreeSet<String>,
    begins: SystemTime,
    ends: SystemTime,
}

impl About {
    fn is_good(&self, now: SystemTime) -> bool {
        self.begins <= now && now < self.renew_at()
    }

    fn renew_at(&self) -> SystemTime {
        self.ends - DAY * RENEW_DAYS
    }

    fn above(&self, pem: &str) -> String {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let secs = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        format!(
            "Made by Pillarbox, which replaces it when needed.\nAuthority: {}\nNames: {}\nBegins: {}\nEnds: {}\n\n{pem}",
            self.authority,
            names.join(" "),
            secs(self.begins),
            secs(self.ends)
        )
    }

    fn read(text: &str) -> Option<Self> {
        let (above, _) = text.split_once(PEM_BEGIN)?;
        let field =
            |name: &str| above.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let at = |name: &str| {
            let secs = field(name)?.parse().ok()?;
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(secs)).filter(|at| *at > SystemTime::UNIX_EPOCH)
        };
        Some(Self {
            authority: field("Authority")?.to_owned(),
            names: field("Names")?.split_whitespace().map(str::to_owned).collect(),
            begins: at("Begins")?,
            ends: at("Ends").filter(|ends| *ends > SystemTime::UNIX_EPOCH + DAY * RENEW_DAYS)?,
        })
    }
}

fn read(path: &Path) -> Result<Option<String>, AuthorityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(AuthorityError::Damaged(path.to_owned())),
        Err(error) => Err(AuthorityError::File(path.to_owned(), error)),
    }
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    write_atomically(path, bytes, mode).map_err(|error| AuthorityError::File(path.to_owned(), error))
}

/// Replaces a file as a whole: after a power cut it is the old one or the new one. `mode` is the new
/// file's from its first moment.
///
/// # Errors
/// The disk's.
pub fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    // What an earlier, interrupted try left behind may have another mode.
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use std::os::unix::fs::PermissionsExt;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn at(days: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(CLOCK_FLOOR_SECS) + DAY * days
    }

    #[test]
    fn a_second_look_changes_nothing_and_keys_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let issued = ensure_at(folder.path(), &names(&["localhost", "127.0.0.1"]), at(0)).unwrap();
        let before = fs::read(&issued.certificate).unwrap();
        let again = ensure_at(folder.path(), &names(&["localhost", "127.0.0.1"]), at(1)).unwrap();
        assert_eq!(issued, again);
        assert_eq!(fs::read(&issued.certificate).unwrap(), before);
        for key in [&issued.key, &folder.path().join("ca.key")] {
            assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn new_names_an_end_in_sight_and_a_clock_set_back_make_a_new_server_certificate_only() {
        let folder = tempfile::tempdir().unwrap();
        let issued = ensure_at(folder.path(), &names(&["localhost"]), at(0)).unwrap();
        let mut last = fs::read(&issued.certificate).unwrap();
        let ca = fs::read(&issued.ca).unwrap();
        for (names, now) in [(names(&["localhost", "box"]), at(1)), (names(&["localhost", "box"]), at(720))] {
            let issued = ensure_at(folder.path(), &names, now).unwrap();
            let new = fs::read(&issued.certificate).unwrap();
            assert_ne!(new, last);
            assert!(issued.renew_at > now);
            last = new;
        }
        assert_eq!(fs::read(&issued.ca).unwrap(), ca);
        let long_ago = SystemTime::UNIX_EPOCH + DAY * 18_000;
        ensure_at(folder.path(), &names(&["localhost", "box"]), long_ago).unwrap();
        assert_ne!(fs::read(&issued.certificate).unwrap(), last);
    }

    #[test]
    fn a_server_certificate_lives_no_longer_than_clients_accept() {
        let (_, about) = server_params(&names(&["localhost"]), "x".to_owned(), at(0)).unwrap();
        assert!(about.ends.duration_since(about.begins).unwrap() <= DAY * 825);
    }

    #[test]
    fn a_damaged_authority_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let issued = ensure_at(folder.path(), &names(&["localhost"]), at(0)).unwrap();
        fs::write(&issued.ca, "not ours").unwrap();
        let error = ensure_at(folder.path(), &names(&["localhost"]), at(0)).unwrap_err();
        assert!(matches!(error, AuthorityError::Damaged(path) if path == issued.ca));
    }

    #[test]
    fn a_clients_certificate_is_the_authoritys_where_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let alone = issue_client(folder.path(), "ann@x.test", 10).unwrap();
        assert_eq!(alone.pem.matches(PEM_BEGIN).count(), 1);
        let issued = ensure(folder.path(), &names(&["localhost"])).unwrap();
        let client = issue_client(folder.path(), "änn@x.test", 10).unwrap();
        assert!(client.pem.starts_with("-----BEGIN PRIVATE KEY-----") && client.pem.matches(PEM_BEGIN).count() == 2);
        assert!(client.pem.ends_with(fs::read_to_string(&issued.ca).unwrap().rsplit_once("\n\n").unwrap().1));
        let chain: Vec<CertificateDer<'_>> =
            CertificateDer::pem_slice_iter(client.pem.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(Fingerprint::of(&chain[0]), client.fingerprint);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert!(u64::try_from(client.expires.0).unwrap() >= now + 9 * 86_400, "{:?}", client.expires);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(chain[1].clone()).unwrap();
        let provider = std::sync::Arc::new(crate::net::tls::provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        let now = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(now));
        rustls::server::danger::ClientCertVerifier::verify_client_cert(
            verifier.build().unwrap().as_ref(),
            &chain[0],
            &[],
            now,
        )
        .unwrap();
    }

    #[test]
    fn odd_host_names_stay_out_of_certificates() {
        assert!(fits_a_certificate("pi-4.home.arpa") && fits_a_certificate("::1"));
        for name in ["", "a..b", "-a", "under_score", "späti", "(none)", &"a".repeat(64)] {
            assert!(!fits_a_certificate(name), "{name:?}");
        }
        assert!(names_of_this_machine(&["Mail.Example.org".to_owned()]).contains("mail.example.org"));
    }
}
