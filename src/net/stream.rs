//! A connection, in clear or over TLS, as the driver sees it.
//!
//! TLS uses rustls' unbuffered interface: records are read into a borrowed buffer, decrypted, and
//! only an incomplete record is kept, in a block of exactly its size. So an idle TLS connection costs
//! its keys and nothing else (4.3 KB where rustls' buffered interface takes 8.4).

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::buffer::Buffer;
use super::drive::{Arrival, Peer};
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
pub struct Stream {
    socket: TcpStream,
    config: Arc<ServerConfig>,
    tls: Option<Box<Tls>>,
}

impl Stream {
    /// Takes a new connection; `config` serves when TLS starts.
    pub fn new(socket: TcpStream, config: Arc<ServerConfig>) -> Self {
        // We gather what belongs together ourselves; waiting for more only adds delay.
        let _ = socket.set_nodelay(true);
        Self { socket, config, tls: None }
    }

    /// The peer's address.
    ///
    /// # Errors
    /// The connection has broken already.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }
}

impl Peer for Stream {
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
        let mut tls = Box::new(Tls::new(Arc::clone(&self.config))?);
        match timeout(HANDSHAKE_MAX, tls.handshake(&self.socket)).await {
            Ok(facts) => {
                let facts = facts?;
                self.tls = Some(tls);
                Ok(facts)
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
async fn send_some(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
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

/// The TLS side of a connection.
struct Tls {
    connection: UnbufferedServerConnection,
    /// An incomplete record, in a block of its size.
    parked: Vec<u8>,
    /// Data decrypted on the way to writing; the next read gives it out.
    plain: Option<Buffer>,
    /// Records rustls wants sent: handshake messages, alerts, key updates.
    owed: Vec<u8>,
    peer_closed: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tls").field("parked", &self.parked.len()).finish_non_exhaustive()
    }
}

/// Where the machine stands when it can do no more by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// It needs more records for the handshake.
    Handshake,
    /// Data may be sent.
    Open,
    /// Both sides have closed.
    Closed,
}

impl Tls {
    fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        let connection = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Self { connection, parked: Vec::new(), plain: None, owed: Vec::new(), peer_closed: false })
    }

    async fn handshake(&mut self, socket: &TcpStream) -> io::Result<TlsFacts> {
        loop {
            let mut plain = Buffer::take();
            let taken = self.take_in(socket, &mut plain);
            // An alert says more to the peer than a closed connection, so it goes out first.
            self.send_owed(socket).await?;
            let (stand, arrived) = taken?;
            match (stand, arrived) {
                (Stand::Open, _) => {
                    // Data may follow the client's last flight in the same segment.
                    self.plain = Some(plain).filter(|plain| !plain.is_empty());
                    return Ok(self.facts());
                }
                (Stand::Closed, _) | (_, Some(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                (Stand::Handshake, _) => {
                    drop(plain);
                    socket.readable().await?;
                }
            }
        }
    }

    fn facts(&self) -> TlsFacts {
        let version = match self.connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLS",
        };
        let suite = self.connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let suite = suite.unwrap_or("unknown");
        // rustls tells its TLS 1.3 suites apart by a prefix that IANA's names do not have.
        let suite = suite.strip_prefix("TLS13_").map_or_else(|| suite.to_owned(), |rest| format!("TLS_{rest}"));
        TlsFacts { description: format!("{version} {suite}") }
    }

    fn read(&mut self, socket: &TcpStream) -> io::Result<Arrival> {
        if let Some(plain) = self.plain.take() {
            return Ok(Arrival::Bytes(plain));
        }
        if self.peer_closed {
            return Ok(Arrival::Gone);
        }
        let mut plain = Buffer::take();
        let (stand, arrived) = self.take_in(socket, &mut plain)?;
        if !plain.is_empty() {
            return Ok(Arrival::Bytes(plain));
        }
        // A peer that leaves without close_notify has gone like any other: each of our protocols
        // marks its own ends, so a cut is never taken for one (RFC 8446 section 6.1).
        let gone = stand == Stand::Closed || self.peer_closed || arrived == Some(0);
        // Records without data are no reason to read on at once: others wait too.
        Ok(if gone { Arrival::Gone } else { Arrival::Nothing })
    }

    /// Reads once from the socket into a borrowed buffer, behind what was parked, lets rustls work
    /// on it and parks what it left over. Tells where the machine stands and how many bytes arrived:
    /// none while the peer sends nothing, `Some(0)` when it has closed.
    fn take_in(&mut self, socket: &TcpStream, plain: &mut Buffer) -> io::Result<(Stand, Option<usize>)> {
        let mut records = Buffer::take();
        records.push(&self.parked);
        let arrived = match socket.try_read(records.spare_mut()) {
            Ok(count) => count,
            // Nothing new: rustls went as far as it could the last time.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((Stand::Handshake, None)),
            Err(error) => return Err(error),
        };
        records.grow(arrived);
        let stand = self.advance(&mut records, plain)?;
        self.park(&records)?;
        Ok((stand, Some(arrived)))
    }

    /// Keeps what rustls left over: less than one record, or the peer breaks the protocol.
    fn park(&mut self, records: &Buffer) -> io::Result<()> {
        if records.len() >= super::buffer::BUFFER_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a TLS message larger than any record"));
        }
        self.parked = records.filled().to_vec();
        Ok(())
    }

    /// Lets rustls work on `records` until it can do no more. Data goes to `plain`, which has room
    /// for all that a buffer of records can hold; what must be sent is added to `owed`.
    fn advance(&mut self, records: &mut Buffer, plain: &mut Buffer) -> io::Result<Stand> {
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.connection.process_tls_records(records.filled_mut());
            let mut stand = None;
            let mut failure = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                discard += record.discard;
                                if plain.push(record.payload) < record.payload.len() {
                                    failure = Some(io::Error::other("more data than its records"));
                                }
                            }
                            Err(error) => failure = Some(invalid(error)),
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut message)) => {
                    if let Err(EncodeError::InsufficientSize(size)) = message.encode(&mut []) {
                        let start = self.owed.len();
                        self.owed.resize(start + size.required_size, 0);
                        let room = self.owed.get_mut(start..).unwrap_or_default();
                        if let Err(error) = message.encode(room) {
                            failure = Some(io::Error::other(error));
                        }
                    }
                }
                // The caller sends what is owed before anything else.
                Ok(ConnectionState::TransmitTlsData(message)) => message.done(),
                Ok(ConnectionState::BlockedHandshake) => stand = Some(Stand::Handshake),
                Ok(ConnectionState::WriteTraffic(_)) => stand = Some(Stand::Open),
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                Ok(ConnectionState::Closed) => stand = Some(Stand::Closed),
                // Early data is not offered, and nothing else is known to need us.
                Ok(_) => failure = Some(io::Error::other("an unexpected TLS state")),
                Err(error) => failure = Some(invalid(error)),
            }
            records.consume(discard);
            if let Some(error) = failure {
                self.gather_alert(records);
                return Err(error);
            }
            if let Some(stand) = stand {
                return Ok(stand);
            }
        }
    }

    /// After a failure: takes the alert that rustls has prepared, if any.
    fn gather_alert(&mut self, records: &mut Buffer) {
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(records.filled_mut());
        if let Ok(ConnectionState::EncodeTlsData(mut message)) = state
            && let Err(EncodeError::InsufficientSize(size)) = message.encode(&mut [])
        {
            let mut alert = vec![0; size.required_size];
            if message.encode(&mut alert).is_ok() {
                self.owed.extend_from_slice(&alert);
            }
        }
    }

    /// Sends what rustls wants sent. May be dropped and called again: what has gone out is removed.
    async fn send_owed(&mut self, socket: &TcpStream) -> io::Result<()> {
        while !self.owed.is_empty() {
            let sent = send_some(socket, &self.owed).await?;
            self.owed.drain(..sent.min(self.owed.len()));
        }
        self.owed = Vec::new();
        Ok(())
    }

    /// Encrypts one chunk of at most [`RECORD_BYTES`] into `record`.
    fn seal(&mut self, chunk: &[u8], record: &mut Buffer) -> io::Result<()> {
        self.reach_open()?;
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut self.parked);
        match state.map_err(invalid)? {
            ConnectionState::WriteTraffic(mut traffic) => {
                let written = traffic.encrypt(chunk, record.spare_mut()).map_err(|error| match error {
                    EncryptError::InsufficientSize(_) => io::Error::other("a TLS record larger than its buffer"),
                    EncryptError::EncryptExhausted => io::Error::other("the TLS keys are used up"),
                })?;
                record.grow(written);
                Ok(())
            }
            _ => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Works through whole records that were left over, so that data may be sent. What they held is
    /// kept for the next read.
    fn reach_open(&mut self) -> io::Result<()> {
        let mut records = Buffer::take();
        records.push(&self.parked);
        let mut plain = self.plain.take().unwrap_or_else(Buffer::take);
        let stand = self.advance(&mut records, &mut plain)?;
        self.plain = Some(plain).filter(|plain| !plain.is_empty());
        self.park(&records)?;
        match stand {
            Stand::Open => Ok(()),
            Stand::Handshake | Stand::Closed => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Encrypts a `close_notify`; tells whether there is anything to send.
    fn say_goodbye(&mut self, record: &mut Buffer) -> bool {
        if self.reach_open().is_err() {
            return false;
        }
        let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut self.parked);
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = state else { return false };
        let written = traffic.queue_close_notify(record.spare_mut()).unwrap_or(0);
        record.grow(written);
        written > 0
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
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
        let tls = TlsServer::new(&TlsConfig::default(), folder.path()).unwrap();
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
