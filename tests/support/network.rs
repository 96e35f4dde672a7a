//! A session behind a real socket: the program's loop, its TLS, and a client of its own.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use pillarbox::mail::certificate::Fingerprint;
use pillarbox::net::authority::issue_client;
use pillarbox::net::drive::{Answers, Driver, Stop};
use pillarbox::net::stream::Stream;
use pillarbox::net::tls::{TlsConfig, TlsServer};
use pillarbox::protocol::Session;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use tempfile::TempDir;

use super::wire::{Heard, Wire};

/// How long the server may take to say something that is expected.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A connection over TCP to a session on a thread of its own.
pub(crate) struct Network {
    peer: Peer,
    stop: tokio::sync::watch::Sender<bool>,
    server: Option<JoinHandle<()>>,
    unread: Vec<u8>,
    closed: bool,
}

/// The client's end.
enum Peer {
    Clear(TcpStream),
    Secure(Box<StreamOwned<ClientConnection, TcpStream>>),
    Gone,
}

impl Network {
    /// Opens a connection; with `tls` it begins with a handshake.
    pub(crate) fn open<S, A>(session: S, answers: A, tls: bool) -> Result<Self, String>
    where
        S: Session + Send + 'static,
        A: Answers<S> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(text)?;
        let address = listener.local_addr().map_err(text)?;
        let (stop_sender, stop) = Stop::new();
        let server = std::thread::spawn(move || {
            let (socket, _) = listener.accept().expect("the client that connects");
            socket.set_nonblocking(true).expect("a socket");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let socket = tokio::net::TcpStream::from_std(socket).expect("a socket");
                let mut driver = Driver::new(session, answers, Stream::new(socket, keys().asking.clone()), stop);
                if !tls || driver.secure().await.is_ok() {
                    // A client that breaks off is no failure of the server's.
                    let _ = driver.run().await;
                }
            });
        });
        let socket = TcpStream::connect(address).map_err(text)?;
        socket.set_nodelay(true).map_err(text)?;
        let peer = Peer::Clear(socket);
        let mut wire = Self { peer, stop: stop_sender, server: Some(server), unread: Vec::new(), closed: false };
        if tls {
            wire.start_tls()?;
        }
        Ok(wire)
    }

    fn socket(&self) -> Option<&TcpStream> {
        match &self.peer {
            Peer::Clear(socket) => Some(socket),
            Peer::Secure(stream) => Some(&stream.sock),
            Peer::Gone => None,
        }
    }

    /// Reads once; tells whether anything came.
    fn read(&mut self, patience: Duration) -> bool {
        let Some(socket) = self.socket() else { return false };
        socket.set_read_timeout(Some(patience)).expect("a time");
        let mut piece = [0; 4096];
        let read = match &mut self.peer {
            Peer::Clear(socket) => socket.read(&mut piece),
            Peer::Secure(stream) => stream.read(&mut piece),
            Peer::Gone => Ok(0),
        };
        match read {
            Ok(count) if count > 0 => {
                self.unread.extend_from_slice(&piece[..count]);
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            _ => {
                self.closed = true;
                false
            }
        }
    }
}

impl Wire for Network {
    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let sent = match &mut self.peer {
            Peer::Clear(socket) => socket.write_all(bytes),
            Peer::Secure(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Peer::Gone => return Err("we have hung up".into()),
        };
        // A server that has cut us off in the middle is seen by what it says next.
        sent.or_else(|error| match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Ok(()),
            _ => Err(text(error)),
        })
    }

    fn hear(&mut self, wait: bool) -> Heard {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let mut line: Vec<u8> = self.unread.drain(..end + 2).collect();
                line.truncate(end);
                return Heard::Line(line);
            }
            // Without waiting only what has arrived counts: what comes later is seen by the next
            // expectation.
            if !wait || self.closed || !self.read(ANSWER_MAX) {
                return match self.closed {
                    _ if !self.unread.is_empty() => Heard::Part(std::mem::take(&mut self.unread)),
                    true => Heard::Closed,
                    false => Heard::Nothing,
                };
            }
        }
    }

    fn start_tls(&mut self) -> Result<(), String> {
        let Peer::Clear(socket) = std::mem::replace(&mut self.peer, Peer::Gone) else {
            return Err("TLS is on already".into());
        };
        socket.set_read_timeout(Some(ANSWER_MAX)).map_err(text)?;
        let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
        let client = ClientConnection::new(Arc::clone(&keys().client), name).map_err(|error| error.to_string())?;
        let mut stream = StreamOwned::new(client, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(text)?;
        }
        self.peer = Peer::Secure(Box::new(stream));
        Ok(())
    }

    fn hang_up(&mut self) -> Result<(), String> {
        if let Peer::Secure(stream) = &mut self.peer {
            stream.conn.send_close_notify();
            // The server may be gone already.
            let _ = stream.flush();
        }
        self.peer = Peer::Gone;
        self.closed = true;
        let server = self.server.take();
        server.map_or(Ok(()), |server| server.join().map_err(|_| "the server's thread panicked".to_owned()))
    }

    fn silence(&mut self) -> Result<(), String> {
        Err("nobody waits that long over a network".into())
    }

    fn stop(&mut self) -> Result<(), String> {
        self.stop.send(true).map_err(|error| error.to_string())
    }

    fn binding(&self) -> [u8; 32] {
        let Peer::Secure(stream) = &self.peer else { return [0; 32] };
        stream.conn.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None).expect("an exporter")
    }

    fn patience(&self) -> Option<Duration> {
        None
    }
}

/// The certificate that clients show.
pub(crate) fn certificate() -> Fingerprint {
    keys().certificate
}

/// The certificates of all connections, and what trusts them.
struct Keys {
    /// Asks every client for its certificate.
    asking: Arc<ServerConfig>,
    certificate: Fingerprint,
    client: Arc<ClientConfig>,
    _folder: TempDir,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let server = TlsServer::new(&TlsConfig::default(), "localhost", folder.path()).expect("a certificate");
        let asking = server.asking().expect("a server that asks");
        let issued = issue_client(folder.path(), "client.test", 10).expect("a certificate");
        let own = CertificateDer::from_pem_slice(issued.pem.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(issued.pem.as_bytes()).expect("a key");
        let mut roots = RootCertStore::empty();
        let ca = server.ca().expect("the local authority");
        roots.add(CertificateDer::from_pem_file(ca).expect("a certificate")).expect("an authority");
        // One cipher suite, so that trace fields tell the same everywhere.
        let suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
        let provider = CryptoProvider { cipher_suites: suites, ..default_provider() };
        let client = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![own], key)
            .expect("a certificate and its key");
        Keys { asking, certificate: issued.fingerprint, client: Arc::new(client), _folder: folder }
    })
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn text(error: std::io::Error) -> String {
    error.to_string()
}
