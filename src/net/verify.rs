//! Whose certificate a server's is: any (opportunistic TLS, RFC 7435), one that a public authority
//! vouches for (PKIX, RFC 5280, RFC 6125), or one that the DNS tells (DANE, RFC 6698, RFC 7672).
//!
//! A box whose clock has never been set does not call certificates of today "not yet valid": time is
//! taken to be no earlier than this program.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ring::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::authority::CLOCK_FLOOR_SECS;
use super::resolver::Tlsa;

/// Most TLSA records that are looked at; nobody needs as many.
const RECORDS_MAX: usize = 32;

/// How much a server's certificate must prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Nothing: TLS keeps listeners out, and who is at the other end is not known. Whether an
    /// authority we know vouches for one of these names is noted all the same.
    Unverified {
        /// Host names; none where nobody wants to know.
        names: Vec<String>,
    },
    /// An authority we know vouches for one of these names.
    Pkix {
        /// Host names; at least one.
        names: Vec<String>,
    },
    /// It fits one of these records, which DNSSEC has validated (RFC 7672 section 3).
    Dane {
        /// The TLSA base domain and the names that stand beside it (RFC 7672 section 3.2.2).
        names: Vec<String>,
        /// The records. Where none is usable the certificate proves nothing (section 2.2).
        records: Vec<Tlsa>,
    },
}

impl TlsMode {
    /// Tells whether a handshake in this mode always proves who the server is.
    pub fn proves_name(&self) -> bool {
        match self {
            Self::Unverified { .. } => false,
            Self::Pkix { .. } => true,
            Self::Dane { records, .. } => records.iter().any(is_usable),
        }
    }
}

/// Tells whether a TLSA record is of a kind that SMTP uses: certificate usages 2 and 3 (RFC 7672
/// section 3.1), with selector and matching type known.
pub fn is_usable(record: &Tlsa) -> bool {
    let length = match record.matching {
        0 => !record.data.is_empty(),
        1 => record.data.len() == 32,
        2 => record.data.len() == 64,
        _ => false,
    };
    matches!(record.usage, 2 | 3) && record.selector <= 1 && length
}

/// Why TLS did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// The certificate has expired, or is not valid yet.
    Expired,
    /// The certificate is another server's.
    WrongName,
    /// No authority that we know vouches for the certificate.
    Untrusted,
    /// The certificate fits none of the domain's TLSA records.
    NotOfTheDns,
    /// Both sides could not agree, or what came was no TLS.
    Handshake,
    /// The server took too long.
    TimedOut,
    /// The connection was lost.
    Lost,
}

impl TlsFault {
    /// Reads what [`super::drive::Peer::start_tls`] failed with.
    pub fn of(error: &io::Error) -> Self {
        let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        match (fault, error.kind()) {
            (Some(fault), _) => Self::of_error(fault),
            (None, io::ErrorKind::TimedOut) => Self::TimedOut,
            (
                None,
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe,
            ) => Self::Lost,
            _ => Self::Handshake,
        }
    }

    fn of_error(error: &Error) -> Self {
        let Error::InvalidCertificate(certificate) = error else { return Self::Handshake };
        match certificate {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Self::Expired,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Self::WrongName,
            CertificateError::ApplicationVerificationFailure => Self::NotOfTheDns,
            _ => Self::Untrusted,
        }
    }

    /// Tells whether the server spoke TLS and its certificate was the trouble.
    pub fn is_certificate(self) -> bool {
        matches!(self, Self::Expired | Self::WrongName | Self::Untrusted | Self::NotOfTheDns)
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Expired => "the server's certificate has expired or is not valid yet",
            Self::WrongName => "the server's certificate is for another name",
            Self::Untrusted => "no known authority vouches for the server's certificate",
            Self::NotOfTheDns => "the server's certificate is not the one that the DNS tells (DANE)",
            Self::Handshake => "the server and we could not agree on TLS",
            Self::TimedOut => "the server did not finish the TLS handshake in time",
            Self::Lost => "the connection was lost in the TLS handshake",
        })
    }
}

/// What a server's certificate turned out to prove. Cheap to clone; all clones are of one handshake.
#[derive(Clone, Debug, Default)]
pub struct Proof(Arc<OnceLock<Result<(), TlsFault>>>);

impl Proof {
    /// The server has proved its name.
    pub fn is_given(&self) -> bool {
        matches!(self.0.get(), Some(Ok(())))
    }

    /// What was wrong with its certificate, whether that mattered or not.
    pub fn fault(&self) -> Option<TlsFault> {
        self.0.get().and_then(|found| found.err())
    }
}

/// Looks at a server's certificate in one mode.
#[derive(Debug)]
pub(super) struct Verifier {
    mode: TlsMode,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    proof: Proof,
}

impl Verifier {
    pub(super) fn new(mode: TlsMode, roots: Arc<RootCertStore>, provider: Arc<CryptoProvider>, proof: Proof) -> Self {
        Self { mode, roots, provider, proof }
    }

    /// The handshake's signature must be that of the certificate's key, or the certificate proves
    /// nothing. Where it proves nothing anyway it may as well be one that we cannot read.
    fn must_be_signed(&self) -> bool {
        self.mode.proves_name() || self.proof.is_given()
    }

    /// An authority among `roots` vouches for the certificate, and it is for one of `names`.
    fn vouched(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        roots: &RootCertStore,
        names: &[String],
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs().max(CLOCK_FLOOR_SECS)));
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, others, now, algorithms)?;
        let is_named = |name: &String| {
            ServerName::try_from(name.as_str()).is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
        };
        if names.iter().any(is_named) { Ok(()) } else { Err(CertificateError::NotValidForName.into()) }
    }

    /// RFC 7672 section 3.1.
    fn told(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        names: &[String],
        records: &[Tlsa],
        now: UnixTime,
    ) -> Result<(), Error> {
        let mut usable = records.iter().filter(|record| is_usable(record)).take(RECORDS_MAX).peekable();
        if usable.peek().is_none() {
            return Ok(());
        }
        let mut anchors = RootCertStore::empty();
        for record in usable {
            // Section 3.1.1: of the server's own certificate neither name nor date matters.
            if record.usage == 3 && matches(record, certificate) {
                return Ok(());
            }
            if record.usage == 2 {
                if (record.selector, record.matching) == (0, 0) {
                    // One that cannot be read as a certificate fits nothing.
                    let _ = anchors.add(CertificateDer::from(record.data.clone()));
                }
                for other in others.iter().filter(|other| matches(record, other)) {
                    let _ = anchors.add(other.clone().into_owned());
                }
            }
        }
        if anchors.is_empty() {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        self.vouched(certificate, others, &anchors, names, now)
    }
}

/// Tells whether a certificate fits a record (RFC 6698 section 2.1).
fn matches(record: &Tlsa, certificate: &CertificateDer<'_>) -> bool {
    let key;
    let chosen: &[u8] = if record.selector == 0 {
        certificate
    } else {
        let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return false };
        key = parsed.subject_public_key_info();
        &key
    };
    match record.matching {
        0 => chosen == record.data,
        1 => digest::digest(&digest::SHA256, chosen).as_ref() == record.data,
        2 => digest::digest(&digest::SHA512, chosen).as_ref() == record.data,
        _ => false,
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = match &self.mode {
            TlsMode::Unverified { names } | TlsMode::Pkix { names } => {
                self.vouched(end_entity, intermediates, &self.roots, names, now)
            }
            TlsMode::Dane { names, records } => self.told(end_entity, intermediates, names, records, now),
        };
        let proved = match &found {
            // Records of which none is usable demand nothing, and so nothing is proved.
            Ok(()) if !self.mode.proves_name() && matches!(self.mode, TlsMode::Dane { .. }) => {
                Err(TlsFault::NotOfTheDns)
            }
            Ok(()) => Ok(()),
            Err(error) => Err(TlsFault::of_error(error)),
        };
        // One handshake looks at one certificate.
        let _ = self.proof.0.set(proved);
        if self.mode.proves_name() {
            found?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !self.must_be_signed() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if !self.must_be_signed() {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes = self.provider.signature_verification_algorithms.supported_schemes();
        if !self.mode.proves_name() {
            schemes.extend([SignatureScheme::RSA_PKCS1_SHA1, SignatureScheme::ECDSA_SHA1_Legacy]);
        }
        schemes
    }
}
