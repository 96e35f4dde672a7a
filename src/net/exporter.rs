//! `tls-exporter` (RFC 9266): what a login can be bound to on a TLS 1.3 connection.
//!
//! rustls' unbuffered connections have no call that exports keying material. They tell a `KeyLog`
//! their exporter secret, though, in the middle of the handshake and on the thread that works on it.
//! [`Catch`] derives the 32 bytes from it there and then, in a cell of the thread; [`take`] is called
//! before anything else can run on it. The secret itself is never kept.

use std::cell::Cell;

use ring::{digest, hkdf};
use rustls::KeyLog;

use crate::protocol::ChannelBinding;

/// What rustls (like every program that writes `SSLKEYLOGFILE`) calls the secret.
const SECRET: &str = "EXPORTER_SECRET";

/// The exporter's label (RFC 9266 section 2).
const LABEL: &[u8] = b"EXPORTER-Channel-Binding";

thread_local! {
    static CAUGHT: Cell<Option<ChannelBinding>> = const { Cell::new(None) };
}

/// Stands where others would write secrets to a file.
#[derive(Debug)]
pub(super) struct Catch;

impl KeyLog for Catch {
    fn log(&self, label: &str, _client_random: &[u8], secret: &[u8]) {
        if label == SECRET {
            CAUGHT.set(binding(secret));
        }
    }

    fn will_log(&self, label: &str) -> bool {
        label == SECRET
    }
}

/// Takes what the handshake has left behind that was worked on a moment ago on this thread.
pub(super) fn take() -> Option<ChannelBinding> {
    CAUGHT.take()
}

/// RFC 8446 section 7.5, with an empty context. The secret is as long as the hash of its cipher
/// suite; `None` for a hash that TLS 1.3 does not have.
fn binding(secret: &[u8]) -> Option<ChannelBinding> {
    let (hash, hkdf) = match secret.len() {
        32 => (&digest::SHA256, hkdf::HKDF_SHA256),
        48 => (&digest::SHA384, hkdf::HKDF_SHA384),
        _ => return None,
    };
    let nothing = digest::digest(hash, b"");
    let mut derived = [0; 48];
    let derived = derived.get_mut(..secret.len())?;
    expand_label(hkdf, secret, LABEL, nothing.as_ref(), derived)?;
    let mut exported = [0; 32];
    expand_label(hkdf, derived, b"exporter", nothing.as_ref(), &mut exported)?;
    Some(ChannelBinding(exported))
}

/// HKDF-Expand-Label (RFC 8446 section 7.1).
fn expand_label(hkdf: hkdf::Algorithm, secret: &[u8], label: &[u8], context: &[u8], out: &mut [u8]) -> Option<()> {
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let length = u16::try_from(out.len()).ok()?.to_be_bytes();
    let label_length = [u8::try_from(b"tls13 ".len() + label.len()).ok()?];
    let context_length = [u8::try_from(context.len()).ok()?];
    let info: [&[u8]; 6] = [&length, &label_length, b"tls13 ", label, &context_length, context];
    let prk = hkdf::Prk::new_less_safe(hkdf, secret);
    prk.expand(&info, Length(out.len())).ok()?.fill(out).ok()
}

#[cfg(test)]
mod tests {
    //! What the server derives is what others' TLS exports at the other end of the connection.

    use std::net::{SocketAddr, TcpStream};
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    use rustls::crypto::CryptoProvider;
    use rustls::crypto::ring::{cipher_suite, default_provider};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedCipherSuite};

    use super::*;
    use crate::net::drive::Peer;
    use crate::net::stream::Stream;
    use crate::net::tls::{TlsConfig, TlsServer};

    /// What the server has for a connection that `client` makes on a thread of its own, and what that says.
    fn both<T: Send + 'static>(
        tls: &TlsServer,
        client: impl FnOnce(SocketAddr) -> T + Send + 'static,
    ) -> (Option<[u8; 32]>, T) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let client = std::thread::spawn(move || client(address));
            let (socket, _) = listener.accept().await.unwrap();
            let mut stream = Stream::new(socket, tls.config());
            let facts = stream.start_tls().await.unwrap();
            assert_eq!(take(), None, "nothing is left behind for the next connection");
            drop(stream);
            (facts.channel.binding.map(|binding| binding.0), client.join().unwrap())
        })
    }

    fn server() -> (tempfile::TempDir, TlsServer) {
        let folder = tempfile::tempdir().unwrap();
        let tls = TlsServer::new(&TlsConfig::default(), "localhost", folder.path()).unwrap();
        (folder, tls)
    }

    /// A client of rustls' buffered kind, which can export; without the label in TLS 1.2.
    fn rustls_exports(
        tls: &TlsServer,
        suite: SupportedCipherSuite,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> impl FnOnce(SocketAddr) -> [u8; 32] + Send + 'static {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(tls.ca().unwrap()).unwrap()).unwrap();
        let provider = CryptoProvider { cipher_suites: vec![suite], ..default_provider() };
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        move |address| {
            let mut socket = TcpStream::connect(address).unwrap();
            let mut client =
                ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
            while client.is_handshaking() {
                client.complete_io(&mut socket).unwrap();
            }
            client.export_keying_material([0; 32], LABEL, Some(b"")).unwrap()
        }
    }

    #[test]
    fn both_hashes_of_tls_1_3_give_what_rustls_exports() {
        let (_folder, tls) = server();
        for suite in [cipher_suite::TLS13_AES_128_GCM_SHA256, cipher_suite::TLS13_AES_256_GCM_SHA384] {
            let (ours, theirs) = both(&tls, rustls_exports(&tls, suite, &rustls::version::TLS13));
            assert_eq!(ours, Some(theirs), "{suite:?}");
        }
    }

    #[test]
    fn tls_1_2_has_no_binding() {
        let (_folder, tls) = server();
        let suite = cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256;
        assert_eq!(both(&tls, rustls_exports(&tls, suite, &rustls::version::TLS12)).0, None);
    }

    #[test]
    fn openssl_exports_the_same() {
        if Command::new("openssl").arg("version").output().is_err() {
            eprintln!("openssl is not installed: nothing to compare with");
            return;
        }
        let (_folder, tls) = server();
        let (ours, theirs) = both(&tls, |address| {
            let client = Command::new("openssl")
                .args(["s_client", "-tls1_3", "-connect", &address.to_string()])
                .args(["-keymatexport", "EXPORTER-Channel-Binding", "-keymatexportlen", "32"])
                .stdin(Stdio::null())
                .output();
            String::from_utf8_lossy(&client.unwrap().stdout).into_owned()
        });
        let exported = theirs.lines().find_map(|line| line.trim().strip_prefix("Keying material: "));
        let exported = exported.unwrap().as_bytes().chunks(2).map(|digits| std::str::from_utf8(digits).unwrap());
        let exported: Vec<u8> = exported.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect();
        assert_eq!(exported, ours.unwrap());
    }
}
