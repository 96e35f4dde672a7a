//! Measures what checking a sender costs the CPU: SPF, DKIM and DMARC of a message of 20 KB, with all answers of the
//! DNS remembered.
//!
//! `cargo run --release --example sender-bench`. A small DNS server runs in a thread of its own, which is asked in the
//! first round alone; only the CPU of the thread that checks, and of those that verify signatures, is counted.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, PTR, SOA, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use mail_auth::common::crypto::Ed25519Key;
use mail_auth::common::headers::HeaderWriter as _;
use mail_auth::dkim::DkimSigner;
use pillarbox::mail::authentication::Verdict;
use pillarbox::mail::signed::SignedReader;
use pillarbox::net::authenticate::Authenticator;
use pillarbox::net::resolver::{DnsConfig, Resolver};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rustix::time::{ClockId, clock_gettime};

const ROUNDS: u32 = 500;
const SEED: [u8; 32] = [7; 32];

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let pair = Ed25519KeyPair::from_seed_unchecked(&SEED).map_err(|error| error.to_string())?;
    let key = base64::engine::general_purpose::STANDARD.encode(pair.public_key().as_ref());
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let server = socket.local_addr()?;
    std::thread::spawn(move || answer(&socket, &key));
    let body = "All work and no play makes Jack a dull boy, says the proverb.\r\n".repeat(320);
    let letter = format!("From: a@sender.test\r\nTo: ann@here.test\r\nSubject: hello\r\n\r\n{body}");
    let signing = Ed25519Key::from_seed_and_public_key(&SEED, pair.public_key().as_ref())?;
    let signer = DkimSigner::from_key(signing).domain("sender.test").selector("s1").headers(["From", "To", "Subject"]);
    let letter = format!("{}{letter}", signer.sign(letter.as_bytes())?.to_header());

    let config = DnsConfig { servers: vec![server], ..DnsConfig::default() };
    let checks = Authenticator::new(Resolver::new(&config)?, Arc::from("here.test"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ip = Ipv4Addr::new(192, 0, 2, 1).into();
    let look = || {
        let mut reader = SignedReader::default();
        reader.feed(letter.as_bytes());
        runtime.block_on(checks.findings(ip, "mx.sender.test", "a@sender.test", &reader.finish()))
    };
    let found = look();
    let all = [found.spf.verdict, found.dmarc.verdict, found.reverse.verdict];
    assert!(all.iter().all(|verdict| *verdict == Verdict::Pass), "{found:?}");
    let (cpu, wall) = (cpu(), Instant::now());
    for _ in 0..ROUNDS {
        look();
    }
    let (cpu, wall) = (self::cpu().saturating_sub(cpu) / ROUNDS, wall.elapsed() / ROUNDS);
    println!("SPF, DKIM (Ed25519), DMARC and reverse DNS of {} bytes: {cpu:?} of CPU, {wall:?} in all", letter.len());
    Ok(())
}

/// CPU of the whole process; the server's thread sleeps.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(secs, u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn answer(socket: &UdpSocket, key: &str) {
    let mut buffer = [0; 1500];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        let question = buffer.get(..length).and_then(|bytes| Message::from_vec(bytes).ok());
        let Some((question, query)) = question.and_then(|it| Some((it.metadata.id, it.queries.first()?.clone())))
        else {
            continue;
        };
        let name = query.name().to_ascii().to_ascii_lowercase();
        let txt = |text: String| RData::TXT(TXT::new(vec![text]));
        let data = match (name.as_str(), query.query_type()) {
            ("sender.test.", RecordType::TXT) => Some(txt("v=spf1 a:mx.sender.test -all".to_owned())),
            ("_dmarc.sender.test.", RecordType::TXT) => Some(txt("v=DMARC1; p=reject".to_owned())),
            ("s1._domainkey.sender.test.", RecordType::TXT) => Some(txt(format!("v=DKIM1; k=ed25519; p={key}"))),
            ("mx.sender.test.", RecordType::A) => Some(RData::A(A(Ipv4Addr::new(192, 0, 2, 1)))),
            ("1.2.0.192.in-addr.arpa.", RecordType::PTR) => {
                Name::from_ascii("mx.sender.test.").ok().map(|name| RData::PTR(PTR(name)))
            }
            _ => None,
        };
        let mut reply = Message::response(question, OpCode::Query);
        reply.add_query(query.clone());
        if let Some(data) = data {
            reply.add_answer(Record::from_rdata(query.name().clone(), 3600, data));
        } else {
            reply.metadata.response_code = ResponseCode::NXDomain;
            let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, 3600);
            reply.add_authority(Record::from_rdata(Name::root(), 3600, RData::SOA(soa)));
        }
        if let Ok(bytes) = reply.to_vec() {
            drop(socket.send_to(&bytes, peer));
        }
    }
}
