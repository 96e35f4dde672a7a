//! A connection, in clear or over TLS, as the driver sees it.
//!
//! TLS uses rustls' unbuffered interface ([`super::records`]), so an idle TLS connection costs its keys
//! and nothing else (4.3 KB where rustls' buffered interface takes 8.4). Server and client differ in
//! the machine that starts their TLS and in nothing else.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::buffer::Buffer;
use super::drive::{Arrival, Peer};
use super::records::{Machine, Tls};
use crate::protocol::TlsFacts;

/// Longest time a TLS handshake may take.
pub const HANDSHAKE_MAX: Duration = Duration::from_secs(30);

/// Longest time a peer may take nothing of what we send.
pub const WRITE_PATIENCE: Duration = Duration::from_mins(5);

/// Application data in one TLS record (RFC 8446 section 5.1).
const RECORD_BYTES: usize = 16_384;

/// How long, and for how many bytes, we wait for the peer to close after we did. Closing at once
/// while its last words are on their way would make the kernel send a reset, and the reset can
/// overtake our last reply.
const FAREWELL: Duration = Duration::from_secs(2);
const FAREWELL_BYTES: usize = 256 * 1024;

/// A TCP connection, with TLS on it once [`Peer::start_tls`] has succeeded.
#[derive(Debug)]
pub struct Stream<M: Machine = UnbufferedServerConnection> {
    socket: TcpStream,
    settings: M::Settings,
    tls: Option<Box<Tls<M>>>,
}

impl Stream {
    /// Takes a new connection; `config` serves when TLS starts.
    pub fn new(socket: TcpStream, config: Arc<ServerConfig>) -> Self {
        Self::over(socket, config)
    }
}

impl<M: Machine> Stream<M> {
    /// What its TLS is made of.
    pub(super) fn settings(&self) -> &M::Settings {
        &self.settings
    }

    /// A connection of either side.
    pub(super) fn over(socket: TcpStream, settings: M::Settings) -> Self {
        // We gather what belongs together ourselves; waiting for more only adds delay.
        let _ = socket.set_nodelay(true);
        Self { socket, settings, tls: None }
    }

    /// The peer's address.
    ///
    /// # Errors
    /// The connection has broken already.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }
}

impl<M: Machine> Peer for Stream<M> {
    fn read(&mut self) -> io::Result<Arrival> {
        if let Some(tls) = self.tls.as_mut() {
            return tls.read(&self.socket);
        }
        let mut buffer = Buffer::take();
        match self.socket.try_read(buffer.spare_mut()) {
            Ok(0) => Ok(Arrival::Gone),
            Ok(count) => {
                buffer.grow(count);
                Ok(Arrival::Bytes(buffer))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Arrival::Nothing),
            Err(error) => Err(error),
        }
    }

    async fn readable(&mut self) -> io::Result<()> {
        if let Some(tls) = self.tls.as_mut() {
            tls.send_owed(&self.socket).await?;
        }
        self.socket.readable().await
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = self.tls.as_mut() else {
            return send(&self.socket, bytes).await;
        };
        tls.send_owed(&self.socket).await?;
        for chunk in bytes.chunks(RECORD_BYTES) {
            let mut record = Buffer::take();
            tls.seal(chunk, &mut record)?;
            tls.send_owed(&self.socket).await?;
            send(&self.socket, record.filled()).await?;
        }
        Ok(())
    }

    async fn start_tls(&mut self) -> io::Result<TlsFacts> {
        let mut tls = Box::new(Tls::new(&self.settings)?);
        match timeout(HANDSHAKE_MAX, tls.handshake(&self.socket)).await {
            Ok(facts) => {
                let facts = facts?;
                self.tls = Some(tls);
                Ok(TlsFacts { verified: M::is_verified(&self.settings), ..facts })
            }
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake in time")),
        }
    }

    fn close(&mut self) -> impl Future<Output = ()> {
        // In a box: every connection's task would hold the room for it otherwise.
        Box::pin(async {
            if let Some(mut tls) = self.tls.take() {
                let mut record = Buffer::take();
                if tls.say_goodbye(&mut record) {
                    let _ = timeout(FAREWELL, send(&self.socket, record.filled())).await;
                }
            }
            if rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write).is_ok() {
                drain(&self.socket).await;
            }
        })
    }
}

/// Sends all of `bytes`.
async fn send(socket: &TcpStream, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = rest.get(send_some(socket, rest).await?..).unwrap_or_default();
    }
    Ok(())
}

/// Sends some of `bytes`, waiting until the peer takes any. Nothing is lost when dropped meanwhile.
pub(super) async fn send_some(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match socket.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                // A peer that takes everything at once must not keep the others waiting.
                tokio::task::coop::consume_budget().await;
                return Ok(count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let waited = Box::pin(timeout(WRITE_PATIENCE, socket.writable())).await;
                waited.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the peer takes no output"))??;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Reads and drops what the peer still sends, until it closes too or the farewell is over.
async fn drain(socket: &TcpStream) {
    let until = Instant::now() + FAREWELL;
    let mut left = FAREWELL_BYTES;
    loop {
        let read = socket.try_read(Buffer::take().spare_mut());
        match read {
            Ok(count) if count > 0 && count <= left => left -= count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !matches!(timeout_at(until, socket.readable()).await, Ok(Ok(()))) {
                    return;
                }
            }
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::io::{Read, Write};
    use std::net::TcpStream as StdStream;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

    use crate::net::tls::{TlsConfig, TlsServer};

    fn server() -> (tempfile::TempDir, TlsServer) {
        let folder = tempfile::tempdir().unwrap();
        let tls = TlsServer::new(&TlsConfig::default(), "localhost", folder.path()).unwrap();
        (folder, tls)
    }

    fn client(
        tls: &TlsServer,
        socket: StdStream,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> StreamOwned<ClientConnection, StdStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(tls.ca().unwrap()).unwrap()).unwrap();
        let config = ClientConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
    }

    /// A connected pair: the server's end for tokio, the client's for a thread.
    async fn pair(tls: &TlsServer) -> (Stream, StdStream) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        (Stream::new(socket, tls.config()), client)
    }

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    async fn next(stream: &mut Stream) -> Option<Vec<u8>> {
        loop {
            match stream.read().unwrap() {
                Arrival::Bytes(buffer) => return Some(buffer.filled().to_vec()),
                Arrival::Gone => return None,
                Arrival::Nothing => stream.readable().await.unwrap(),
            }
        }
    }

    /// The client sends `up`, the server sends it back, both close.
    fn echo_over(version: &'static rustls::SupportedProtocolVersion, up: Vec<u8>) {
        run(async {
            let (_folder, tls) = server();
            let (mut stream, socket) = pair(&tls).await;
            let mut client = client(&tls, socket, version);
            let expected = up.clone();
            let thread = std::thread::spawn(move || {
                client.write_all(&up).unwrap();
                client.flush().unwrap();
                let mut back = vec![0; up.len()];
                client.read_exact(&mut back).unwrap();
                client.conn.send_close_notify();
                client.flush().unwrap();
                // `read_to_end` fails unless the server says close_notify too.
                assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 0);
                back
            });
            let facts = stream.start_tls().await.unwrap();
            assert!(facts.description.starts_with("TLSv1."), "{facts:?}");
            assert!(!facts.description.contains("TLS13"), "{facts:?}");
            let mut got = Vec::new();
            while got.len() < expected.len() {
                got.extend(next(&mut stream).await.unwrap());
            }
            assert!(got == expected);
            stream.write(&got).await.unwrap();
            assert_eq!(next(&mut stream).await, None);
            stream.close().await;
            assert!(thread.join().unwrap() == expected);
        });
    }

    #[test]
    fn data_goes_through_tls_1_3_and_1_2_whole() {
        let up: Vec<u8> = (0..600_000_u32).flat_map(u32::to_le_bytes).collect();
        echo_over(&rustls::version::TLS13, b"EHLO client.test\r\n".to_vec());
        echo_over(&rustls::version::TLS13, up.clone());
        echo_over(&rustls::version::TLS12, up);
    }

    #[test]
    fn an_idle_tls_connection_keeps_no_bytes() {
        run(async {
            let (_folder, tls) = server();
            let (mut stream, socket) = pair(&tls).await;
            let mut client = client(&tls, socket, &rustls::version::TLS13);
            let thread = std::thread::spawn(move || {
                client.write_all(b"hello").unwrap();
                client.flush().unwrap();
                client
            });
            stream.start_tls().await.unwrap();
            assert_eq!(next(&mut stream).await.unwrap(), b"hello");
            assert!(matches!(stream.read().unwrap(), Arrival::Nothing));
            let tls = stream.tls.as_ref().unwrap();
            assert_eq!((tls.parked.capacity(), tls.owed.capacity(), tls.plain.is_none()), (0, 0, true));
            drop(thread.join());
        });
    }

    #[test]
    fn a_peer_that_speaks_no_tls_gets_an_alert_and_an_error() {
        run(async {
            let (_folder, tls) = server();
            let (mut stream, mut client) = pair(&tls).await;
            client.write_all(b"EHLO plain.test\r\n").unwrap();
            let error = stream.start_tls().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            drop(stream);
            let mut alert = Vec::new();
            let _ = client.read_to_end(&mut alert);
            assert_eq!(alert.first(), Some(&21), "content type alert: {alert:?}");
        });
    }

    #[test]
    fn a_peer_that_leaves_in_the_handshake_is_an_error() {
        run(async {
            let (_folder, tls) = server();
            let (mut stream, client) = pair(&tls).await;
            drop(client);
            assert_eq!(stream.start_tls().await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        });
    }

    #[test]
    fn the_certificate_names_this_machine() {
        let names: BTreeSet<String> = crate::net::authority::names_of_this_machine(&[]);
        assert!(["pillarbox.local", "localhost", "127.0.0.1", "::1"].iter().all(|name| names.contains(*name)));
    }
}
