//! TLS settings, certificates and their renewal.
//!
//! One rustls configuration serves every port, or one of two where clients are asked for a certificate
//! ([`super::presented`]): TLS 1.2 and 1.3 on ring, one stateless ticket, and
//! `ChaCha20` first on machines whose processor has no AES (every Raspberry Pi before the fifth).
//! Certificates are looked at again on SIGHUP and, at most every few seconds, when a connection
//! comes in; nothing wakes to look at them.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use super::authority::{self, AuthorityError, Issued};
use super::exporter;
use super::presented::AnyOfItsKey;

/// Certificate files are looked at no more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TlsConfig {
    /// The certificate chain as a PEM file, the server's own first. Default: none, which means a
    /// certificate from the local authority in the data folder's `tls`.
    pub certificate: Option<PathBuf>,
    /// The private key as a PEM file (PKCS#8, PKCS#1 or SEC1). Needed exactly when `certificate` is.
    pub key: Option<PathBuf>,
    /// Further names for the local authority's certificate, such as `imap.example.org`. The server's
    /// `hostname` and the machine's own names and addresses are always in it. Default: none.
    pub names: Vec<String>,
    /// Further certificate authorities that are trusted when we connect to a relay or to others'
    /// servers, as a PEM file; those of the public web always are. Default: none.
    pub authorities: Option<PathBuf>,
    /// Whether clients of IMAP, POP3 and submission are asked for a certificate to log in with, once any
    /// account has one; other servers, on port 25, never are. Default: true. Before the first is
    /// registered nobody is asked, because some programs then ask their user which one to show.
    pub client_certificates: bool,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self { certificate: None, key: None, names: Vec::new(), authorities: None, client_certificates: true }
    }
}

/// Why TLS cannot be offered. `Display` is one sentence.
#[derive(Debug)]
pub enum TlsError {
    /// The local authority failed.
    Authority(AuthorityError),
    /// A file cannot be read as what it should be; the text says why.
    File(PathBuf, String),
    /// Certificate and key are not of one pair.
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// rustls refuses the settings.
    Settings(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority(error) => error.fmt(formatter),
            Self::File(path, text) => write!(formatter, "{}: {text}", path.display()),
            Self::Mismatch { certificate, key } => {
                write!(
                    formatter,
                    "the key in {} is not that of the certificate in {}",
                    key.display(),
                    certificate.display()
                )
            }
            Self::Settings(text) => write!(formatter, "TLS cannot be set up: {text}"),
        }
    }
}

impl std::error::Error for TlsError {}

impl From<AuthorityError> for TlsError {
    fn from(error: AuthorityError) -> Self {
        Self::Authority(error)
    }
}

/// TLS for every port: the configuration, and the certificates that may change under it.
#[derive(Debug)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    /// The same, and clients are asked for a certificate; none where that is turned off.
    asking: Option<Arc<ServerConfig>>,
    shelf: Arc<Shelf>,
    source: Source,
    looked: Mutex<Looked>,
}

/// Where certificates come from.
#[derive(Debug)]
enum Source {
    Files { certificate: PathBuf, key: PathBuf },
    Local { folder: PathBuf, names: Vec<String> },
}

#[derive(Debug)]
struct Looked {
    at: Instant,
    stamp: Option<Stamp>,
    files: Files,
}

/// The files in use and when they must be replaced.
#[derive(Clone, Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    ca: Option<PathBuf>,
    renew_at: Option<SystemTime>,
}

impl From<Issued> for Files {
    fn from(issued: Issued) -> Self {
        let Issued { ca, certificate, key, renew_at } = issued;
        Self { certificate, key, ca: Some(ca), renew_at: Some(renew_at) }
    }
}

/// Tells one state of two files from another.
type Stamp = [(u64, i64, i64, u64); 2];

/// The certificate rustls hands to the next client.
#[derive(Debug)]
struct Shelf(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shelf {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl TlsServer {
    /// Loads the certificate of the settings, or makes one in `folder` for `hostname` and what else the server is
    /// called when they name none.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(settings: &TlsConfig, hostname: &str, folder: &Path) -> Result<Self, TlsError> {
        let source = if let (Some(certificate), Some(key)) = (&settings.certificate, &settings.key) {
            Source::Files { certificate: certificate.clone(), key: key.clone() }
        } else {
            let names = std::iter::once(hostname.to_owned()).chain(settings.names.iter().cloned()).collect();
            Source::Local { folder: folder.to_owned(), names }
        };
        let provider = Arc::new(provider());
        let files = source.files()?;
        let stamp = stamp(&files);
        let shelf = Arc::new(Shelf(ArcSwap::from_pointee(load(&files, &provider)?)));
        let config = server_config(&provider, &shelf, None)?;
        let verifier: Arc<dyn ClientCertVerifier> = Arc::new(AnyOfItsKey(Arc::clone(&provider)));
        let asking = settings.client_certificates.then(|| server_config(&provider, &shelf, Some(verifier)));
        let looked = Mutex::new(Looked { at: Instant::now(), stamp, files });
        Ok(Self { config, asking: asking.transpose()?, shelf, source, looked })
    }

    /// The configuration for a new connection. Looks whether the certificate has changed or must be
    /// renewed, if nobody has looked for a few seconds.
    pub fn config(&self) -> Arc<ServerConfig> {
        if self.looked.lock().unwrap_or_else(PoisonError::into_inner).at.elapsed() >= LOOK_EVERY {
            self.look(false);
        }
        Arc::clone(&self.config)
    }

    /// As [`TlsServer::config`], for a connection whose client is asked for a certificate; `None` where
    /// the settings want nobody asked.
    pub fn asking(&self) -> Option<Arc<ServerConfig>> {
        // Looks as well.
        self.config();
        self.asking.clone()
    }

    /// Loads the certificate anew (SIGHUP), and gives the local authority the chance to follow new
    /// names and addresses of the machine. The old certificate stays when the new one is no good.
    pub fn reload(&self) {
        self.look(true);
    }

    /// The local authority's certificate, if the server's is from there.
    pub fn ca(&self) -> Option<PathBuf> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).files.ca.clone()
    }

    /// SHA-256 of the certificate's public key (RFC 6698 section 2.1, selector 1 and matching type 1).
    pub fn key_digest(&self) -> Option<[u8; 32]> {
        let certified = self.shelf.0.load();
        let key = certified.key.public_key()?;
        ring::digest::digest(&ring::digest::SHA256, key.as_ref()).as_ref().try_into().ok()
    }

    fn look(&self, anew: bool) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.at = Instant::now();
        if anew || looked.files.renew_at.is_some_and(|renew_at| SystemTime::now() >= renew_at) {
            match self.source.files() {
                Ok(files) => looked.files = files,
                Err(error) => tracing::error!(%error, "the certificate cannot be renewed; the old one stays"),
            }
        }
        let now = stamp(&looked.files);
        if now.is_none() || (now == looked.stamp && !anew) {
            return;
        }
        looked.stamp = now;
        match load(&looked.files, self.config.crypto_provider()) {
            Ok(certified) => {
                self.shelf.0.store(Arc::new(certified));
                tracing::info!(certificate = %looked.files.certificate.display(), "certificate loaded");
            }
            // While two files are being replaced they do not match for a moment.
            Err(error) => tracing::warn!(%error, "the new certificate is no good (yet); the old one stays"),
        }
    }
}

/// The configuration of a port. Each has a ticketer of its own: a session that began without being asked
/// for a certificate is not resumed where one is asked for, and none comes over to where it is not.
fn server_config(
    provider: &Arc<CryptoProvider>,
    shelf: &Arc<Shelf>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let settings = |error: rustls::Error| TlsError::Settings(error.to_string());
    let resolver: Arc<dyn ResolvesServerCert> = Arc::<Shelf>::clone(shelf);
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(settings)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(resolver);
    // With AES in the processor the client knows best; without it, we do.
    config.ignore_client_order = !has_aes();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    config.key_log = Arc::new(exporter::Catch);
    config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(settings)?;
    Ok(Arc::new(config))
}

impl Source {
    fn files(&self) -> Result<Files, TlsError> {
        match self {
            Self::Files { certificate, key } => {
                Ok(Files { certificate: certificate.clone(), key: key.clone(), ca: None, renew_at: None })
            }
            Self::Local { folder, names } => {
                Ok(authority::ensure(folder, &authority::names_of_this_machine(names))?.into())
            }
        }
    }
}

fn stamp(files: &Files) -> Option<Stamp> {
    let of = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.mtime(), metadata.mtime_nsec(), metadata.len()))
    };
    Some([of(&files.certificate)?, of(&files.key)?])
}

fn load(files: &Files, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable(&files.key, error))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { certificate: files.certificate.clone(), key: files.key.clone() }
        }
        error => TlsError::File(files.key.clone(), error.to_string()),
    })
}

/// The certificates of a PEM file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(path, error))?;
    if found.is_empty() {
        return Err(unreadable(path, rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn unreadable(path: &Path, error: rustls::pki_types::pem::Error) -> TlsError {
    let text = match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        rustls::pki_types::pem::Error::NoItemsFound => {
            "there is nothing in PEM form in this file that belongs here".to_owned()
        }
        error => error.to_string(),
    };
    TlsError::File(path.to_owned(), text)
}

/// ring, with `ChaCha20` first where the processor has no AES.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::ring::default_provider();
    if !has_aes() {
        provider.cipher_suites.sort_by_key(|suite| !is_chacha(*suite));
    }
    provider
}

fn is_chacha(suite: rustls::SupportedCipherSuite) -> bool {
    suite.suite().as_str().is_some_and(|name| name.contains("CHACHA20"))
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes")
}

#[cfg(target_arch = "aarch64")]
fn has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn has_aes() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chacha_comes_first_exactly_where_aes_is_slow() {
        let provider = provider();
        let first = provider.cipher_suites.first().copied().unwrap();
        assert_eq!(is_chacha(first), !has_aes());
    }

    #[test]
    fn a_replaced_certificate_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        let names = ["localhost".to_owned()].into();
        let issued = authority::ensure(&first, &names).unwrap();
        let other = authority::ensure(&second, &names).unwrap();
        let settings = TlsConfig {
            certificate: Some(issued.certificate.clone()),
            key: Some(issued.key.clone()),
            ..TlsConfig::default()
        };
        let tls = TlsServer::new(&settings, "localhost", folder.path()).unwrap();
        let shown = || tls.shelf.0.load_full().cert.first().cloned().unwrap();
        let before = shown();

        fs::copy(&other.certificate, &issued.certificate).unwrap();
        tls.reload();
        assert_eq!(shown(), before, "a certificate without its key is not taken");

        fs::copy(&other.key, &issued.key).unwrap();
        tls.look(false);
        assert_ne!(shown(), before);
        assert_eq!(tls.ca(), None);
    }

    #[test]
    fn a_server_that_is_given_another_name_has_it_in_its_certificate_from_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let certificate_for = |hostname: &str| {
            TlsServer::new(&TlsConfig::default(), hostname, folder.path()).unwrap();
            fs::read(folder.path().join("server.crt")).unwrap()
        };
        let holds = |pem: &[u8], name: &str| {
            let chain = CertificateDer::from_pem_slice(pem).unwrap();
            chain.windows(name.len()).any(|window| window == name.as_bytes())
        };
        let first = certificate_for("pillarbox.local");
        assert!(!holds(&first, "mail.example.org"));
        assert_eq!(certificate_for("pillarbox.local"), first);
        let second = certificate_for("mail.example.org");
        assert!(holds(&second, "mail.example.org") && holds(&second, "pillarbox.local"));
    }

    #[test]
    fn files_that_are_not_what_they_should_be_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("empty.pem");
        fs::write(&file, "nothing").unwrap();
        let settings = TlsConfig { certificate: Some(file.clone()), key: Some(file.clone()), ..TlsConfig::default() };
        let error = TlsServer::new(&settings, "localhost", folder.path()).unwrap_err();
        assert!(error.to_string().starts_with(&file.display().to_string()), "{error}");
    }
}
