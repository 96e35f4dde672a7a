//! A server of MTA-STS policies (RFC 8461) over HTTPS, for tests: a text for each domain, until it is told to be silent.

#![allow(dead_code, reason = "each test binary uses its part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A running server.
pub(crate) struct Policies {
    pub(crate) address: SocketAddr,
    pub(crate) silent: Arc<AtomicBool>,
    texts: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Policies {
    /// Starts one with this certificate.
    pub(crate) fn start(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (silent, texts) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeMap::new())));
        let (off, known) = (Arc::clone(&silent), Arc::clone(&texts));
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let Ok(socket) = socket else { continue };
                if off.load(Ordering::SeqCst) {
                    continue;
                }
                let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), socket);
                let mut asked = [0; 4096];
                // Whoever breaks off wanted no policy.
                let Ok(count) = stream.read(&mut asked) else { continue };
                let asked = String::from_utf8_lossy(&asked[..count]).to_ascii_lowercase();
                let domain = asked.lines().find_map(|line| line.strip_prefix("host: mta-sts.")).unwrap_or_default();
                let text = known.lock().unwrap().get(domain).cloned();
                let status = if text.is_some() { "200 OK" } else { "404 Not Found" };
                let text: String = text.unwrap_or_default();
                let length = text.len();
                let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
                let _ = stream.write_all(format!("{head}{text}").as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        Self { address, silent, texts }
    }

    /// Gives a domain's policy from now on.
    pub(crate) fn says(&self, domain: &str, policy: &str) {
        self.texts.lock().unwrap().insert(domain.to_owned(), policy.replace('\n', "\r\n"));
    }
}
