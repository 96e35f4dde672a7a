//! Fetches MTA-STS policies over HTTPS (RFC 8461 section 3.3).
//!
//! The server must prove that it is `mta-sts.DOMAIN`; redirects are not followed, and what is longer
//! than any policy, or takes longer than a minute, is none. What the text says is the queue's matter.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, StatusCode, Version};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::outgoing::{Source, TlsClient, connect};
use super::resolver::Resolver;
use super::verify::{Proof, TlsFault, TlsMode};

/// Longest policy in bytes (RFC 8461 section 3.3 asks for a bound and names this one).
pub const POLICY_MAX: usize = 65_536;

/// Longest time a fetch may take (section 3.3 suggests a minute).
pub const FETCH_MAX: Duration = Duration::from_mins(1);

/// Longest header of the answer, in bytes.
const HEADER_MAX: usize = 16_384;

/// Why a policy could not be fetched. `Display` is one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// The policy's server could not be reached.
    Unreachable(String),
    /// It could not prove its name, or spoke no TLS.
    Tls(TlsFault),
    /// It answered with something else than a policy; says what.
    Answer(String),
    /// It took too long.
    TimedOut,
}

impl fmt::Display for FetchError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(out, "the policy's server cannot be reached: {why}"),
            Self::Tls(fault) => write!(out, "{fault}"),
            Self::Answer(what) => write!(out, "the policy's server gave no policy: {what}"),
            Self::TimedOut => write!(out, "the policy's server took longer than {} seconds", FETCH_MAX.as_secs()),
        }
    }
}

impl std::error::Error for FetchError {}

/// Fetches the text of a domain's policy. `port` is 443 but for tests and odd networks.
///
/// # Errors
/// Why there is none.
pub async fn fetch(resolver: &Resolver, tls: &TlsClient, domain: &str, port: u16) -> Result<String, FetchError> {
    let host = format!("mta-sts.{domain}");
    let fetching = Box::pin(async {
        let found = resolver.addresses(&host).await;
        let found = found.map_err(|error| FetchError::Unreachable(error.to_string()))?;
        let addresses: Vec<SocketAddr> =
            found.value.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        fetch_from(&addresses, tls, &host).await
    });
    tokio::time::timeout(FETCH_MAX, fetching).await.unwrap_or(Err(FetchError::TimedOut))
}

async fn fetch_from(addresses: &[SocketAddr], tls: &TlsClient, host: &str) -> Result<String, FetchError> {
    let unreachable = |error: std::io::Error| FetchError::Unreachable(error.to_string());
    let socket = connect(addresses, Source::default(), FETCH_MAX).await.map_err(unreachable)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| FetchError::Answer("it has no proper name".into()))?;
    let mode = TlsMode::Pkix { names: vec![host.to_owned()] };
    let config = tls.config(mode, Proof::default()).map_err(|error| FetchError::Unreachable(error.to_string()))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
    let stream = stream.map_err(|error| FetchError::Tls(TlsFault::of(&error)))?;
    let spoken = |error: hyper::Error| FetchError::Answer(error.to_string());
    let (mut asking, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEADER_MAX)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(spoken)?;
    let request = Request::builder()
        .method(Method::GET)
        .uri("/.well-known/mta-sts.txt")
        .version(Version::HTTP_11)
        .header(HOST, host)
        .header(USER_AGENT, "pillarbox")
        .body(Empty::new())
        .map_err(|error| FetchError::Answer(error.to_string()))?;
    let answering = async {
        let answer = asking.send_request(request).await.map_err(spoken)?;
        // Section 3.3: no redirect is followed, and nothing but 200 is a policy.
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Answer(format!("it answered with status {}", answer.status().as_u16())));
        }
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/plain")) {
            return Err(FetchError::Answer("it is no plain text".to_owned()));
        }
        let body = Limited::new(answer.into_body(), POLICY_MAX).collect().await;
        let body = body.map_err(|error| FetchError::Answer(error.to_string()))?.to_bytes();
        String::from_utf8(body.to_vec()).map_err(|_| FetchError::Answer("it is no text".to_owned()))
    };
    // The connection is driven beside the question, and ends with it.
    let mut answering = std::pin::pin!(answering);
    tokio::select! {
        answer = &mut answering => answer,
        ended = connection => match ended {
            Ok(()) => answering.await,
            Err(error) => Err(spoken(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    const HOST: &str = "mta-sts.a.test";

    /// Asks a server with a certificate for `name` that gives these bytes.
    fn ask(name: &str, answer: &[u8]) -> (Result<String, FetchError>, String) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&authority_key).unwrap();
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, authority.pem()).unwrap();
        let tls = TlsClient::new(Some(&file)).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = async {
                let (socket, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(socket).await else {
                    return String::new();
                };
                let mut asked = vec![0; 4096];
                let count = stream.read(&mut asked).await.unwrap();
                // A client that has heard enough leaves.
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
                String::from_utf8(asked[..count].to_vec()).unwrap()
            };
            let addresses = [address];
            tokio::join!(fetch_from(&addresses, &tls, HOST), server)
        })
    }

    fn answer(status: &str, kind: &str, body: &str) -> Vec<u8> {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    }

    #[test]
    fn a_policy_is_fetched_from_its_well_known_place() {
        let (got, asked) = ask(HOST, &answer("200 OK", "text/plain; charset=utf-8", "version: STSv1\n"));
        assert_eq!(got.as_deref(), Ok("version: STSv1\n"));
        assert!(asked.starts_with("GET /.well-known/mta-sts.txt HTTP/1.1\r\nhost: mta-sts.a.test\r\n"), "{asked}");
    }

    #[test]
    fn an_answer_without_a_length_ends_with_the_connection() {
        let (got, _) = ask(HOST, b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nversion");
        assert_eq!(got.as_deref(), Ok("version"));
    }

    #[test]
    fn a_server_that_cannot_prove_its_name_is_not_asked() {
        let (got, asked) = ask("mta-sts.b.test", &answer("200 OK", "text/plain", "version: STSv1\n"));
        assert_eq!((got, asked.as_str()), (Err(FetchError::Tls(TlsFault::WrongName)), ""));
    }

    #[test]
    fn what_is_no_policy_is_told() {
        let endless = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n{}", "x".repeat(POLICY_MAX + 1));
        let header = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(2 * HEADER_MAX));
        for (answer, what) in [
            (answer("301 Moved\r\nLocation: /other", "text/plain", ""), "status 301"),
            (answer("404 Not Found", "text/plain", "no"), "status 404"),
            (answer("200 OK", "text/html", "<html>"), "no plain text"),
            (endless.into_bytes(), "length limit exceeded"),
            (header.into_bytes(), ""),
            (b"SSH-2.0\r\n\r\n".to_vec(), ""),
            (Vec::new(), ""),
        ] {
            let got = ask(HOST, &answer).0.unwrap_err();
            assert!(matches!(&got, FetchError::Answer(why) if why.contains(what)), "{got:?}");
        }
    }
}
