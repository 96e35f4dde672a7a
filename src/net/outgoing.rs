//! Connections to others' servers: which address answers first, and TLS as a client.
//!
//! [`connect`] tries a host's addresses one after the other with a short lead each, so that an
//! address family that leads nowhere costs a quarter of a second and not minutes (RFC 8305).
//! [`Outgoing`] is the connection as the driver sees it; what its TLS must prove is said beforehand.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::records::ClientSettings;
use super::stream::Stream;
use super::tls::{TlsError, certificates, provider};
use super::verify::{Proof, TlsMode, Verifier};

/// The lead that an address has before the next is tried as well (RFC 8305 section 5).
pub const LEAD: Duration = Duration::from_millis(250);

/// Most addresses of one host that are tried at a time.
pub const ADDRESSES_MAX: usize = 8;

/// A connection to another's server, as the driver sees it. Its `start_tls` is the client's; what
/// it fails with is read by [`super::verify::TlsFault::of`].
pub type Outgoing = Stream<UnbufferedClientConnection>;

/// The addresses that connections come from; the system's choice where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// For connections over IPv4.
    pub v4: Option<Ipv4Addr>,
    /// For connections over IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// What TLS as a client needs: the authorities that are trusted. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TlsClient {
    provider: Arc<CryptoProvider>,
    own: Arc<Vec<CertificateDer<'static>>>,
    /// Read from the program when the first certificate must be verified.
    roots: Arc<OnceLock<Arc<RootCertStore>>>,
}

impl TlsClient {
    /// Trusts the authorities of the public web, and those in `authorities`, a PEM file.
    ///
    /// # Errors
    /// The file cannot be read as certificates.
    pub fn new(authorities: Option<&Path>) -> Result<Self, TlsError> {
        let own = authorities.map(certificates).transpose()?.unwrap_or_default();
        if let (Some(path), Some(error)) = (authorities, unfit(&own)) {
            return Err(TlsError::File(path.to_owned(), format!("a certificate in it is no authority's: {error}")));
        }
        Ok(Self { provider: Arc::new(provider()), own: Arc::new(own), roots: Arc::default() })
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let roots = self.roots.get_or_init(|| {
            let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            roots.add_parsable_certificates(self.own.iter().cloned());
            Arc::new(roots)
        });
        Arc::clone(roots)
    }

    /// The settings of one connection.
    pub(super) fn config(&self, mode: TlsMode, proof: Proof) -> Result<ClientConfig, rustls::Error> {
        let roots = match &mode {
            TlsMode::Pkix { .. } | TlsMode::Unverified { .. } => self.roots(),
            TlsMode::Dane { .. } => Arc::new(RootCertStore::empty()),
        };
        let verifier = Arc::new(Verifier::new(mode, roots, Arc::clone(&self.provider), proof));
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        // A resumed session would pass by the certificate, and with it by what this mode demands.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// Why one of these certificates cannot be an authority's.
fn unfit(certificates: &[CertificateDer<'static>]) -> Option<rustls::Error> {
    let mut store = RootCertStore::empty();
    certificates.iter().find_map(|certificate| store.add(certificate.clone()).err())
}

impl Outgoing {
    /// Takes a connection whose TLS, once it starts, will be in this mode. `host` is the name that
    /// the server is told (SNI, RFC 6066 section 3), or the text of an address, which is not told.
    ///
    /// # Errors
    /// `host` is neither a name nor an address, or rustls refuses the settings.
    pub fn towards(socket: TcpStream, tls: &TlsClient, mode: TlsMode, host: &str) -> io::Result<Self> {
        let wrong = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("{host} is no name that TLS can be told"));
        let name = ServerName::try_from(host.to_owned()).map_err(wrong)?;
        let proof = Proof::default();
        let config = tls.config(mode, proof.clone()).map_err(io::Error::other)?;
        Ok(Self::over(socket, ClientSettings { config: Arc::new(config), name, proof }))
    }

    /// What the server's certificate will prove, to be read after the handshake.
    pub fn proof(&self) -> Proof {
        self.settings().proof.clone()
    }
}

/// Connects to the first of a host's addresses that answers. Families take turns, beginning with
/// that of the first address; each address has a lead of [`LEAD`] over the next, or until it fails.
///
/// # Errors
/// None answered within `limit`. The text says what became of each, the kind is the last one's.
pub async fn connect(addresses: &[SocketAddr], source: Source, limit: Duration) -> io::Result<TcpStream> {
    let mut waiting = in_turns(addresses);
    let mut troubles = Troubles::default();
    let race = async {
        let mut running = JoinSet::new();
        loop {
            if let Some(address) = waiting.pop_front() {
                running.spawn(async move { (address, connect_one(address, source).await) });
            }
            let lead = Instant::now() + LEAD;
            loop {
                let ended = tokio::select! {
                    ended = running.join_next() => ended,
                    () = sleep_until(lead), if !waiting.is_empty() => break,
                };
                match ended {
                    Some(Ok((_, Ok(socket)))) => return Some(socket),
                    Some(Ok((address, Err(error)))) => troubles.add(address, &error),
                    None if waiting.is_empty() => return None,
                    Some(Err(_)) | None => {}
                }
                if !waiting.is_empty() {
                    break;
                }
            }
        }
    };
    match timeout(limit, race).await {
        Ok(Some(socket)) => Ok(socket),
        Ok(None) => Err(troubles.into_error()),
        Err(_) => {
            let others = if troubles.text.is_empty() { "" } else { " from the others" };
            troubles.say(&format!("no answer{others} in {} seconds", limit.as_secs()));
            troubles.kind = Some(io::ErrorKind::TimedOut);
            Err(troubles.into_error())
        }
    }
}

/// The addresses, families in turns.
fn in_turns(addresses: &[SocketAddr]) -> VecDeque<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<SocketAddr>, Vec<SocketAddr>) =
        addresses.iter().partition(|address| address.is_ipv6() == first);
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut turns = VecDeque::new();
    while turns.len() < ADDRESSES_MAX {
        let before = turns.len();
        turns.extend(one.next());
        turns.extend(other.next());
        if turns.len() == before {
            break;
        }
    }
    turns.truncate(ADDRESSES_MAX);
    turns
}

async fn connect_one(address: SocketAddr, source: Source) -> io::Result<TcpStream> {
    let (socket, from) = match address {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, source.v4.map(IpAddr::V4)),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, source.v6.map(IpAddr::V6)),
    };
    if let Some(from) = from {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    socket.connect(address).await
}

/// What went wrong, address by address.
#[derive(Default)]
struct Troubles {
    text: String,
    kind: Option<io::ErrorKind>,
}

impl Troubles {
    fn add(&mut self, address: SocketAddr, error: &io::Error) {
        self.kind = Some(error.kind());
        self.say(&format!("{address}: {error}"));
    }

    fn say(&mut self, text: &str) {
        let between = if self.text.is_empty() { "" } else { "; " };
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{between}{text}");
    }

    fn into_error(self) -> io::Error {
        let text = if self.text.is_empty() { "there is no address to connect to".to_owned() } else { self.text };
        io::Error::new(self.kind.unwrap_or(io::ErrorKind::AddrNotAvailable), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;

    use rcgen::{
        BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, PublicKeyData as _,
        date_time_ymd,
    };
    use ring::digest;
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;

    use crate::net::drive::{Arrival, Peer};
    use crate::net::resolver::Tlsa;
    use crate::net::verify::TlsFault;

    const HOST: &str = "mx.pillarbox.test";

    fn run<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    /// An authority and what it has signed.
    struct Authority {
        certificate: Certificate,
        issuer: Issuer<'static, KeyPair>,
    }

    impl Authority {
        fn new(name: &str) -> Self {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            Self { certificate, issuer: Issuer::new(params, key) }
        }

        fn sign(&self, name: &str, until: i32) -> (Certificate, KeyPair) {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(until, 1, 1);
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &self.issuer).unwrap(), key)
        }

        /// A client that trusts this authority, and its file.
        fn client(&self) -> (TlsClient, tempfile::TempDir) {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("ca.pem");
            std::fs::write(&file, self.certificate.pem()).unwrap();
            (TlsClient::new(Some(&file)).unwrap(), folder)
        }
    }

    fn record(usage: u8, selector: u8, matching: u8, data: &[u8]) -> Tlsa {
        let data = match matching {
            0 => data.to_vec(),
            1 => digest::digest(&digest::SHA256, data).as_ref().to_vec(),
            _ => digest::digest(&digest::SHA512, data).as_ref().to_vec(),
        };
        Tlsa { usage, selector, matching, data }
    }

    /// A handshake with a server that shows this chain; what the client says to it, and that data
    /// comes back.
    fn shake(client: &TlsClient, chain: &[&Certificate], key: &KeyPair, mode: &TlsMode) -> Result<(), TlsFault> {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let chain = chain.iter().map(|certificate| certificate.der().clone()).collect();
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            let config = ServerConfig::builder_with_provider(Arc::new(provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain, key)
                .unwrap();
            let address = listener.local_addr().unwrap();
            let server = async {
                let (socket, _) = listener.accept().await.unwrap();
                let mut stream = Stream::new(socket, Arc::new(config));
                if stream.start_tls().await.is_err() {
                    return;
                }
                loop {
                    match stream.read() {
                        Ok(Arrival::Bytes(bytes)) => stream.write(bytes.filled()).await.unwrap(),
                        Ok(Arrival::Nothing) => stream.readable().await.unwrap(),
                        _ => return,
                    }
                }
            };
            let ours = async {
                let socket = connect(&[address], Source::default(), Duration::from_secs(5)).await.unwrap();
                let mut stream = Outgoing::towards(socket, client, mode.clone(), HOST).unwrap();
                let (proof, certain) = (stream.proof(), mode.proves_name());
                let facts = stream.start_tls().await.map_err(|error| TlsFault::of(&error))?;
                assert_eq!(facts.verified, proof.is_given());
                assert!(facts.verified || !certain);
                assert_eq!(proof.fault().is_none(), facts.verified);
                assert!(facts.description.starts_with("TLSv1.3 TLS_"), "{facts:?}");
                let sent = vec![b'x'; 100_000];
                stream.write(&sent).await.unwrap();
                let mut back = 0;
                while back < sent.len() {
                    match stream.read().unwrap() {
                        Arrival::Bytes(bytes) => back += bytes.len(),
                        Arrival::Nothing => stream.readable().await.unwrap(),
                        Arrival::Gone => panic!("gone after {back} bytes"),
                    }
                }
                stream.close().await;
                Ok(())
            };
            tokio::join!(server, ours).1
        })
    }

    fn pkix(name: &str) -> TlsMode {
        TlsMode::Pkix { names: vec!["other.test".to_owned(), name.to_owned()] }
    }

    fn dane(records: &[Tlsa]) -> TlsMode {
        TlsMode::Dane { names: vec![HOST.to_owned()], records: records.to_vec() }
    }

    #[test]
    fn a_certificate_of_a_trusted_authority_proves_its_own_name_while_it_is_valid() {
        let authority = Authority::new("trusted");
        let (client, _folder) = authority.client();
        let (certificate, key) = authority.sign(HOST, 4000);
        assert_eq!(shake(&client, &[&certificate], &key, &pkix(HOST)), Ok(()));
        assert_eq!(shake(&client, &[&certificate], &key, &pkix("mail.test")), Err(TlsFault::WrongName));
        let (old, old_key) = authority.sign(HOST, 2021);
        assert_eq!(shake(&client, &[&old], &old_key, &pkix(HOST)), Err(TlsFault::Expired));
        let (stranger, stranger_key) = Authority::new("stranger").sign(HOST, 4000);
        assert_eq!(shake(&client, &[&stranger], &stranger_key, &pkix(HOST)), Err(TlsFault::Untrusted));
        assert_eq!(shake(&TlsClient::new(None).unwrap(), &[&certificate], &key, &pkix(HOST)), Err(TlsFault::Untrusted));
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let authority = Authority::new("trusted");
        let (client, _folder) = authority.client();
        let (certificate, key) = authority.sign("*.pillarbox.test", 4000);
        assert_eq!(shake(&client, &[&certificate], &key, &pkix(HOST)), Ok(()));
        assert_eq!(shake(&client, &[&certificate], &key, &pkix("a.mx.pillarbox.test")), Err(TlsFault::WrongName));
    }

    #[test]
    fn opportunistic_tls_takes_any_certificate() {
        let client = TlsClient::new(None).unwrap();
        let (old, key) = Authority::new("stranger").sign("elsewhere.test", 2021);
        assert_eq!(shake(&client, &[&old], &key, &TlsMode::Unverified { names: vec![HOST.to_owned()] }), Ok(()));
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec!["x".to_owned()]).unwrap().self_signed(&key).unwrap();
        assert_eq!(shake(&client, &[&own], &key, &TlsMode::Unverified { names: vec![HOST.to_owned()] }), Ok(()));
        assert_eq!(shake(&client, &[&own], &key, &pkix(HOST)), Err(TlsFault::Untrusted));
    }

    #[test]
    fn a_record_of_the_servers_own_certificate_makes_name_and_date_not_matter() {
        let client = TlsClient::new(None).unwrap();
        let (old, key) = Authority::new("stranger").sign("elsewhere.test", 2021);
        let spki = key.subject_public_key_info();
        for fits in
            [record(3, 1, 1, &spki), record(3, 0, 1, old.der()), record(3, 1, 2, &spki), record(3, 0, 0, old.der())]
        {
            let wrong = record(3, 1, 1, b"another key");
            assert_eq!(shake(&client, &[&old], &key, &dane(&[wrong, fits])), Ok(()));
        }
        let wrong = record(3, 1, 1, b"another key");
        assert_eq!(shake(&client, &[&old], &key, &dane(&[wrong])), Err(TlsFault::NotOfTheDns));
    }

    #[test]
    fn a_record_of_an_authority_wants_a_chain_the_name_and_the_date() {
        let client = TlsClient::new(None).unwrap();
        let authority = Authority::new("of the domain");
        let (certificate, key) = authority.sign(HOST, 4000);
        let root = &authority.certificate;
        let spki = authority.issuer.key().subject_public_key_info();
        let (by_hash, by_key) = (record(2, 0, 1, root.der()), record(2, 1, 1, &spki));
        let dane = |record: &Tlsa| dane(std::slice::from_ref(record));
        for fits in [&by_hash, &by_key] {
            assert_eq!(shake(&client, &[&certificate, root], &key, &dane(fits)), Ok(()));
        }
        // The whole authority may stand in the record, and need not be sent then.
        assert_eq!(shake(&client, &[&certificate], &key, &dane(&record(2, 0, 0, root.der()))), Ok(()));
        assert_eq!(shake(&client, &[&certificate], &key, &dane(&by_hash)), Err(TlsFault::NotOfTheDns));
        let (elsewhere, other_key) = authority.sign("elsewhere.test", 4000);
        assert_eq!(shake(&client, &[&elsewhere, root], &other_key, &dane(&by_hash)), Err(TlsFault::WrongName));
        let (old, old_key) = authority.sign(HOST, 2021);
        assert_eq!(shake(&client, &[&old, root], &old_key, &dane(&by_hash)), Err(TlsFault::Expired));
        // A forger shows the right authority beside a certificate that it has not signed.
        let (forged, forged_key) = Authority::new("of the domain").sign(HOST, 4000);
        assert_eq!(shake(&client, &[&forged, root], &forged_key, &dane(&by_hash)), Err(TlsFault::Untrusted));
    }

    #[test]
    fn records_of_other_kinds_prove_nothing_and_are_no_hindrance() {
        let client = TlsClient::new(None).unwrap();
        let (certificate, key) = Authority::new("stranger").sign("elsewhere.test", 4000);
        let mode = dane(&[
            record(1, 1, 1, b"x"),
            Tlsa { usage: 3, selector: 1, matching: 1, data: vec![1; 31] },
            Tlsa { usage: 3, selector: 9, matching: 0, data: vec![1] },
        ]);
        assert!(!mode.proves_name());
        assert_eq!(shake(&client, &[&certificate], &key, &mode), Ok(()));
    }

    #[test]
    fn a_server_that_speaks_no_tls_or_leaves_is_told_apart() {
        let outcome = |says: &'static [u8]| {
            run(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = listener.local_addr().unwrap();
                let server = async {
                    let (socket, _) = listener.accept().await.unwrap();
                    socket.writable().await.unwrap();
                    let _ = socket.try_write(says);
                    if says.is_empty() {
                        socket.readable().await.unwrap();
                        let _ = socket.try_read(&mut [0; 4096]);
                    } else {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                };
                let ours = async {
                    let socket = connect(&[address], Source::default(), Duration::from_secs(5)).await.unwrap();
                    let client = TlsClient::new(None).unwrap();
                    let mut stream =
                        Outgoing::towards(socket, &client, TlsMode::Unverified { names: vec![HOST.to_owned()] }, HOST)
                            .unwrap();
                    TlsFault::of(&stream.start_tls().await.unwrap_err())
                };
                tokio::join!(server, ours).1
            })
        };
        assert_eq!(outcome(b"220 mx.test ESMTP\r\n"), TlsFault::Handshake);
        assert_eq!(outcome(b""), TlsFault::Lost);
    }

    #[test]
    fn the_next_address_is_tried_when_one_refuses() {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let open = listener.local_addr().unwrap();
            let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
            let began = Instant::now();
            let socket = connect(&[closed, open], Source::default(), Duration::from_secs(5)).await.unwrap();
            assert_eq!(socket.peer_addr().unwrap(), open);
            assert!(began.elapsed() < LEAD, "a refusal gives the turn on at once");
            let error = connect(&[closed], Source::default(), Duration::from_secs(5)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
            assert!(error.to_string().starts_with(&closed.to_string()), "{error}");
            let error = connect(&[], Source::default(), Duration::from_secs(5)).await.unwrap_err();
            assert_eq!(error.to_string(), "there is no address to connect to");
        });
    }

    #[test]
    fn an_address_that_leads_nowhere_costs_its_lead_and_no_more() {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let open = listener.local_addr().unwrap();
            // A listener whose queue is full answers nobody.
            let full = TcpSocket::new_v4().unwrap();
            full.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let full = full.listen(1).unwrap();
            let silent = full.local_addr().unwrap();
            let mut crowd = Vec::new();
            while let Ok(Ok(socket)) = timeout(Duration::from_millis(50), TcpStream::connect(silent)).await {
                crowd.push(socket);
            }
            let began = Instant::now();
            let socket = connect(&[silent, open], Source::default(), Duration::from_secs(5)).await.unwrap();
            assert_eq!(socket.peer_addr().unwrap(), open);
            assert!((LEAD..8 * LEAD).contains(&began.elapsed()), "{:?}", began.elapsed());
            let error = connect(&[silent], Source::default(), Duration::from_secs(1)).await.unwrap_err();
            assert_eq!(error.to_string(), "no answer in 1 seconds");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn connections_come_from_the_address_that_is_set() {
        run(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let source = Source { v4: Some(Ipv4Addr::new(127, 0, 0, 7)), v6: None };
            let address = listener.local_addr().unwrap();
            let socket = connect(&[address], source, Duration::from_secs(5)).await.unwrap();
            assert_eq!(socket.local_addr().unwrap().ip(), Ipv4Addr::new(127, 0, 0, 7));
        });
    }

    #[test]
    fn families_take_turns_beginning_with_the_first() {
        let address = |text: &str| -> SocketAddr { format!("{text}:25").parse().unwrap() };
        let six = |number: u8| address(&format!("[2001:db8::{number}]"));
        let four = |number: u8| address(&format!("192.0.2.{number}"));
        let turns = in_turns(&[six(1), six(2), six(3), four(1), four(2)]);
        assert_eq!(turns, [six(1), four(1), six(2), four(2), six(3)]);
        let many: Vec<SocketAddr> = (1..50).map(four).collect();
        assert_eq!(in_turns(&many).len(), ADDRESSES_MAX);
    }
}
