//! Certificates that clients present (RFC 8446 section 4.3.2, RFC 5246 section 7.4.4).
//!
//! The handshake proves one thing: that the client has the key of its certificate. Who signed that, and
//! whether its time is over, decides nothing here, because whom a certificate lets in is what was
//! registered under its fingerprint, which is asked at every login and so holds for resumed sessions
//! too. No authorities are named to the client: it may show whatever was registered.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::tls::{TlsError, certificates};
use crate::mail::certificate::{Fingerprint, expiry};
use crate::mail::date::Timestamp;

/// Most bytes of the certificates that a client presents: they are kept as long as its connection, and
/// go into its session ticket. Three with RSA keys of 4,096 bits fit.
pub const CHAIN_BYTES_MAX: usize = 8 << 10;

/// Lets every certificate pass whose key the client has.
#[derive(Debug)]
pub(super) struct AnyOfItsKey(pub(super) Arc<CryptoProvider>);

impl ClientCertVerifier for AnyOfItsKey {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let bytes: usize = intermediates.iter().map(|certificate| certificate.len()).sum();
        if bytes.saturating_add(end_entity.len()) > CHAIN_BYTES_MAX {
            return Err(Error::General("the client's certificates are too large".to_owned()));
        }
        // Not a certificate at all is told as such, and not as a wrong signature.
        ParsedCertificate::try_from(end_entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What is registered of the first certificate in a PEM file: its fingerprint and its last second.
///
/// # Errors
/// The file cannot be read, or what is in it could not be presented to us.
pub fn read_certificate(path: &Path) -> Result<(Fingerprint, Timestamp), TlsError> {
    let found = certificates(path)?;
    let no_use = |text: &str| TlsError::File(path.to_owned(), text.to_owned());
    let certificate = found.first().ok_or_else(|| no_use("there is no certificate in it"))?;
    if certificate.len() > CHAIN_BYTES_MAX {
        return Err(no_use("its certificate is too large"));
    }
    ParsedCertificate::try_from(certificate).map_err(|error| match error {
        Error::InvalidCertificate(CertificateError::BadEncoding) => no_use("what is in it is no certificate"),
        error => no_use(&error.to_string()),
    })?;
    let expires = expiry(certificate).ok_or_else(|| no_use("its certificate has no end"))?;
    Ok((Fingerprint::of(certificate), expires))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpStream;

    use rustls::client::ResolvesClientCert;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::sign::CertifiedKey;
    use rustls::version::{TLS12, TLS13};
    use rustls::{
        ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, StreamOwned,
        SupportedProtocolVersion,
    };

    use super::*;
    use crate::net::authority::issue_client;
    use crate::net::drive::Peer as _;
    use crate::net::stream::Stream;
    use crate::net::tls::{TlsConfig, TlsServer, provider};

    struct House {
        folder: tempfile::TempDir,
        tls: TlsServer,
    }

    /// A client's certificates and the key it signs with, which may not be that of the first.
    #[derive(Debug)]
    struct Shows(Arc<CertifiedKey>);

    impl ResolvesClientCert for Shows {
        fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    impl House {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let tls = TlsServer::new(&TlsConfig::default(), "localhost", folder.path()).unwrap();
            Self { folder, tls }
        }

        /// A new certificate in DER, and its key in PEM.
        fn issue(&self) -> (CertificateDer<'static>, String) {
            let issued = issue_client(self.folder.path(), "ann@x.test", 10).unwrap();
            let certificate = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
            assert_eq!(Fingerprint::of(&certificate), issued.fingerprint);
            (certificate, issued.pem.to_string())
        }

        fn client(
            &self,
            version: &'static SupportedProtocolVersion,
            shows: Option<(Vec<CertificateDer<'static>>, &str)>,
        ) -> Arc<ClientConfig> {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(self.tls.ca().unwrap()).unwrap()).unwrap();
            let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots);
            Arc::new(match shows {
                None => builder.with_no_client_auth(),
                Some((chain, key)) => {
                    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                    let key = provider().key_provider.load_private_key(key).unwrap();
                    builder.with_client_cert_resolver(Arc::new(Shows(Arc::new(CertifiedKey::new(chain, key)))))
                }
            })
        }

        fn asking(&self) -> Arc<ServerConfig> {
            self.tls.asking().unwrap()
        }
    }

    /// What the server learns of a client, and how the client's handshake was.
    fn meet(
        server: Arc<ServerConfig>,
        client: &Arc<ClientConfig>,
    ) -> (std::io::Result<Option<Fingerprint>>, Option<HandshakeKind>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let client = ClientConnection::new(Arc::clone(client), name).unwrap();
            let client = std::thread::spawn(move || {
                let mut stream = StreamOwned::new(client, TcpStream::connect(address).unwrap());
                // Tickets come before it, an alert instead of it.
                let _ = stream.read_exact(&mut [0; 5]);
                stream.conn.handshake_kind()
            });
            let (socket, _) = listener.accept().await.unwrap();
            let mut stream = Stream::new(socket, server);
            let facts = stream.start_tls().await;
            if facts.is_ok() {
                stream.write(b"hello").await.unwrap();
            }
            drop(stream);
            (facts.map(|facts| facts.channel.certificate), client.join().unwrap())
        })
    }

    #[test]
    fn a_certificate_is_known_in_a_new_session_and_in_a_resumed_one() {
        let house = House::new();
        let (certificate, key) = house.issue();
        let wanted = Some(Fingerprint::of(&certificate));
        for version in [&TLS13, &TLS12] {
            let client = house.client(version, Some((vec![certificate.clone()], &key)));
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let (found, how) = meet(house.asking(), &client);
                assert_eq!((found.unwrap(), how), (wanted, Some(kind)), "{version:?}");
            }
        }
    }

    #[test]
    fn a_client_without_a_certificate_comes_in_all_the_same() {
        let house = House::new();
        let (certificate, key) = house.issue();
        for version in [&TLS13, &TLS12] {
            assert_eq!(meet(house.asking(), &house.client(version, None)).0.unwrap(), None);
            // Who is not asked shows nothing.
            let client = house.client(version, Some((vec![certificate.clone()], &key)));
            assert_eq!(meet(house.tls.config(), &client).0.unwrap(), None);
            // Its session is of no use where it is asked; and with a certificate, the other way round.
            let (found, how) = meet(house.asking(), &client);
            assert_eq!((found.unwrap().is_some(), how), (true, Some(HandshakeKind::Full)), "{version:?}");
            let (found, how) = meet(house.tls.config(), &client);
            assert_eq!((found.unwrap(), how), (None, Some(HandshakeKind::Full)), "{version:?}");
        }
    }

    #[test]
    fn a_certificate_without_its_key_ends_the_handshake() {
        let house = House::new();
        let ((stolen, _), (_, own)) = (house.issue(), house.issue());
        for version in [&TLS13, &TLS12] {
            let client = house.client(version, Some((vec![stolen.clone()], &own)));
            let error = meet(house.asking(), &client).0.unwrap_err();
            assert!(error.to_string().contains("BadSignature"), "{version:?}: {error}");
        }
    }

    #[test]
    fn what_is_too_large_or_no_certificate_ends_the_handshake() {
        let house = House::new();
        let (certificate, key) = house.issue();
        let filler = |bytes: usize| CertificateDer::from(vec![0x30; bytes]);
        let room = CHAIN_BYTES_MAX - certificate.len();
        for version in [&TLS13, &TLS12] {
            let shows = |chain| meet(house.asking(), &house.client(version, Some((chain, &key)))).0;
            assert!(shows(vec![certificate.clone(), filler(room)]).unwrap().is_some());
            let error = shows(vec![certificate.clone(), filler(room), filler(1)]).unwrap_err();
            assert!(error.to_string().contains("too large"), "{error}");
            // Beyond what a buffer of records holds nothing gets as far as that.
            assert!(shows(vec![certificate.clone(), filler(1 << 20)]).is_err());
            assert!(shows(vec![filler(300)]).is_err());
        }
    }

    #[test]
    fn nobody_is_asked_where_the_settings_do_not_want_it() {
        let folder = tempfile::tempdir().unwrap();
        let settings = TlsConfig { client_certificates: false, ..TlsConfig::default() };
        assert!(TlsServer::new(&settings, "localhost", folder.path()).unwrap().asking().is_none());
    }

    #[test]
    fn the_first_certificate_of_a_file_is_read() {
        let house = House::new();
        let issued = issue_client(house.folder.path(), "ann@x.test", 10).unwrap();
        let file = house.folder.path().join("client.pem");
        std::fs::write(&file, issued.pem.as_bytes()).unwrap();
        assert_eq!(read_certificate(&file).unwrap(), (issued.fingerprint, issued.expires));
        let text = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        std::fs::write(&file, text).unwrap();
        let error = read_certificate(&file).unwrap_err().to_string();
        assert!(error.ends_with("what is in it is no certificate"), "{error}");
    }
}
