//! A small DNS server for tests, on loopback, UDP and TCP: zones are given in code, and names can misbehave.
//!
//! It answers for every name there is. A name that holds nothing at all does not exist (NXDOMAIN). With
//! [`Dns::signed`] all of it is one zone, the root, signed by a key that [`Dns::trust_anchors`] writes to a file for
//! `[dns] trust-anchors`; names under [`Dns::insecure`] are a zone without signatures. Its threads end with it.

#![allow(dead_code, reason = "each test binary uses its part of this")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hickory_resolver::proto::dnssec::crypto::Ed25519SigningKey;
use hickory_resolver::proto::dnssec::rdata::{DNSKEY, DNSSECRData, NSEC, RRSIG};
use hickory_resolver::proto::dnssec::{DnssecSigner, SigningKey};
use hickory_resolver::proto::op::{Edns, Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, NS, PTR, SOA, TLSA, TXT};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordSet, RecordType};

/// How long its answers hold, in seconds.
pub(crate) const TTL: u32 = 300;

/// What goes wrong with a name.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// No answer.
    Silence,
    /// An error of the server's.
    Code(ResponseCode),
    /// The answer comes this late.
    Slow(Duration),
    /// By UDP an empty answer that says it is cut; by TCP the whole.
    Cut,
    /// Cut by TCP as well.
    AlwaysCut,
    /// These bytes behind the question's id.
    Garbage(Vec<u8>),
    /// The answer, to another question's id.
    WrongId,
    /// The answer without its signature, or with one that is wrong.
    Unsigned,
    /// The answer with a signature that does not fit.
    Forged,
}

#[derive(Default)]
struct Zone {
    records: BTreeMap<String, Vec<(RecordType, RData)>>,
    trouble: Vec<(String, Option<RecordType>, Trouble)>,
    insecure: Vec<String>,
    asked: Vec<(String, RecordType)>,
    signer: Option<Arc<DnssecSigner>>,
    silent: bool,
}

/// A running server.
pub(crate) struct Dns {
    zone: Arc<Mutex<Zone>>,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    folder: tempfile::TempDir,
}

impl Dns {
    /// Starts a server that knows nothing.
    pub(crate) fn start() -> Self {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().unwrap();
        let (zone, stop) = (Arc::new(Mutex::new(Zone::default())), Arc::new(AtomicBool::new(false)));
        let by_udp = {
            let (zone, stop) = (zone.clone(), stop.clone());
            move || serve_udp(&udp, &zone, &stop)
        };
        let by_tcp = {
            let (zone, stop) = (zone.clone(), stop.clone());
            move || serve_tcp(&tcp, &zone, &stop)
        };
        let threads = vec![std::thread::spawn(by_udp), std::thread::spawn(by_tcp)];
        Self { zone, address, stop, threads, folder: tempfile::tempdir().unwrap() }
    }

    /// Starts a server whose answers are signed.
    pub(crate) fn signed() -> Self {
        let dns = Self::start();
        let key = Ed25519SigningKey::from_pkcs8(&Ed25519SigningKey::generate_pkcs8().unwrap()).unwrap();
        let public = key.to_public_key().unwrap();
        let bytes = hickory_resolver::proto::dnssec::PublicKey::public_bytes(&public).to_vec();
        let dnskey = DNSKEY::from_key(&public);
        std::fs::write(
            dns.trust_anchors(),
            format!(". {TTL} IN DNSKEY {} 3 15 {}\n", dnskey.flags(), STANDARD.encode(bytes)),
        )
        .unwrap();
        dns.add(".", RData::DNSSEC(DNSSECRData::DNSKEY(dnskey.clone())));
        let signer = DnssecSigner::new(dnskey, Box::new(key), Name::root(), Duration::from_hours(24));
        dns.zone.lock().unwrap().signer = Some(Arc::new(signer));
        dns
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The file for `[dns] trust-anchors`, of a server that signs.
    pub(crate) fn trust_anchors(&self) -> PathBuf {
        self.folder.path().join("anchors")
    }

    /// Adds a record. `*.name` answers for every name below that holds nothing.
    pub(crate) fn add(&self, name: &str, data: RData) -> &Self {
        self.zone.lock().unwrap().records.entry(key_of(name)).or_default().push((data.record_type(), data));
        self
    }

    /// Takes all records of a name away, and its troubles.
    pub(crate) fn clear(&self, name: &str) -> &Self {
        let mut zone = self.zone.lock().unwrap();
        zone.records.remove(&key_of(name));
        zone.trouble.retain(|(troubled, ..)| *troubled != key_of(name));
        drop(zone);
        self
    }

    /// An address, IPv4 or IPv6.
    pub(crate) fn a(&self, name: &str, address: &str) -> &Self {
        match address.parse().unwrap() {
            IpAddr::V4(four) => self.add(name, RData::A(A(four))),
            IpAddr::V6(six) => self.add(name, RData::AAAA(AAAA(six))),
        }
    }

    /// A mail server; `.` is the null MX.
    pub(crate) fn mx(&self, name: &str, preference: u16, host: &str) -> &Self {
        self.add(name, RData::MX(MX::new(preference, name_of(host))))
    }

    /// A text, cut into strings of 255 bytes.
    pub(crate) fn txt(&self, name: &str, text: &str) -> &Self {
        self.txt_parts(name, &text.as_bytes().chunks(255).collect::<Vec<_>>())
    }

    /// A text of these strings.
    pub(crate) fn txt_parts(&self, name: &str, parts: &[&[u8]]) -> &Self {
        let parts = if parts.is_empty() { vec![&b""[..]] } else { parts.to_vec() };
        self.add(name, RData::TXT(TXT::from_bytes(parts)))
    }

    /// The name of an address.
    pub(crate) fn ptr(&self, address: &str, name: &str) -> &Self {
        let reverse = Name::from(address.parse::<IpAddr>().unwrap());
        self.add(&reverse.to_ascii(), RData::PTR(PTR(name_of(name))))
    }

    /// A certificate association.
    pub(crate) fn tlsa(&self, name: &str, usage: u8, selector: u8, matching: u8, data: &[u8]) -> &Self {
        self.add(name, RData::TLSA(TLSA::new(usage.into(), selector.into(), matching.into(), data.to_vec())))
    }

    /// Another name.
    pub(crate) fn cname(&self, name: &str, target: &str) -> &Self {
        self.add(name, RData::CNAME(CNAME(name_of(target))))
    }

    /// Lets questions for a name (and all below it, if it begins with `*.`; `*` alone is every name) go wrong, of
    /// one kind or of all.
    pub(crate) fn trouble(&self, name: &str, kind: Option<RecordType>, trouble: Trouble) -> &Self {
        self.zone.lock().unwrap().trouble.push((key_of(name), kind, trouble));
        self
    }

    /// Names at and below this one are a zone without signatures.
    pub(crate) fn insecure(&self, name: &str) -> &Self {
        self.zone.lock().unwrap().insecure.push(key_of(name));
        self.add(name, RData::NS(NS(name_of("ns.test"))))
    }

    /// Answers nothing any more, or again.
    pub(crate) fn silence(&self, silent: bool) -> &Self {
        self.zone.lock().unwrap().silent = silent;
        self
    }

    /// What it was asked, in order, names in lower case without the last dot.
    pub(crate) fn asked(&self) -> Vec<(String, RecordType)> {
        self.zone.lock().unwrap().asked.clone()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes both threads.
        let _ = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.send_to(b"", self.address));
        let _ = TcpStream::connect(self.address);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// One port for both.
fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..100 {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
    panic!("no port is free for UDP and TCP");
}

fn serve_udp(socket: &UdpSocket, zone: &Arc<Mutex<Zone>>, stop: &AtomicBool) {
    let mut buffer = [0; 4096];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        match answer(&buffer[..length], zone, true) {
            Some((bytes, late)) if late.is_zero() => drop(socket.send_to(&bytes, peer)),
            Some((bytes, late)) => {
                let socket = socket.try_clone().unwrap();
                std::thread::spawn(move || {
                    std::thread::sleep(late);
                    drop(socket.send_to(&bytes, peer));
                });
            }
            None => {}
        }
    }
}

fn serve_tcp(listener: &TcpListener, zone: &Arc<Mutex<Zone>>, stop: &AtomicBool) {
    while let Ok((stream, _)) = listener.accept() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let zone = zone.clone();
        std::thread::spawn(move || drop(serve_stream(stream, &zone)));
    }
}

fn serve_stream(mut stream: TcpStream, zone: &Arc<Mutex<Zone>>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut question)?;
        if let Some((bytes, late)) = answer(&question, zone, false) {
            std::thread::sleep(late);
            let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat())?;
        }
    }
}

/// The answer to a question and how late it is, if there is one.
fn answer(question: &[u8], zone: &Arc<Mutex<Zone>>, udp: bool) -> Option<(Vec<u8>, Duration)> {
    let question = Message::from_vec(question).ok()?;
    let query = question.queries.first()?.clone();
    let (name, kind) = (key_of_name(query.name()), query.query_type());
    let mut zone = zone.lock().unwrap();
    if zone.silent {
        return None;
    }
    zone.asked.push((name.clone(), kind));
    let trouble = zone.trouble_of(&name, kind);
    let wants_proof = question.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
    let mut reply = Message::response(question.metadata.id, OpCode::Query);
    reply.add_query(query.clone());
    reply.metadata.recursion_desired = question.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_version(0);
    edns.set_dnssec_ok(wants_proof);
    reply.set_edns(edns);
    match &trouble {
        Some(Trouble::Silence) => return None,
        Some(Trouble::Garbage(bytes)) => {
            return Some(([&question.metadata.id.to_be_bytes()[..], bytes].concat(), Duration::ZERO));
        }
        Some(Trouble::Code(code)) => reply.metadata.response_code = *code,
        Some(Trouble::AlwaysCut) => reply.metadata.truncation = true,
        Some(Trouble::Cut) if udp => reply.metadata.truncation = true,
        Some(Trouble::WrongId) => {
            zone.fill(&mut reply, &name, kind, wants_proof, None);
            reply.metadata.id = question.metadata.id.wrapping_add(1);
        }
        _ => zone.fill(&mut reply, &name, kind, wants_proof, trouble.as_ref()),
    }
    let late = if let Some(Trouble::Slow(late)) = trouble { late } else { Duration::ZERO };
    let bytes = reply.to_vec().ok()?;
    let room = if udp { usize::from(question.max_payload()) } else { usize::from(u16::MAX) };
    if bytes.len() <= room {
        return Some((bytes, late));
    }
    let mut cut = Message::response(question.metadata.id, OpCode::Query);
    cut.add_query(query);
    cut.metadata.truncation = true;
    Some((cut.to_vec().ok()?, late))
}

impl Zone {
    fn trouble_of(&self, name: &str, kind: RecordType) -> Option<Trouble> {
        let fits = |pattern: &str| match pattern.strip_prefix("*.") {
            Some(above) => is_below(name, above),
            None => pattern == "*" || pattern == name,
        };
        let found =
            |(pattern, of, _): &&(String, Option<RecordType>, Trouble)| fits(pattern) && of.is_none_or(|of| of == kind);
        self.trouble.iter().find(found).map(|(_, _, trouble)| trouble.clone())
    }

    fn records_of(&self, name: &str) -> Option<&Vec<(RecordType, RData)>> {
        if let Some(records) = self.records.get(name) {
            return Some(records);
        }
        // A name with something below it exists and is empty.
        if self.records.keys().any(|other| !other.starts_with("*.") && is_below(other, name)) {
            return None;
        }
        let mut rest = name;
        while let Some((_, above)) = rest.split_once('.') {
            if let Some(records) = self.records.get(&format!("*.{above}")) {
                return Some(records);
            }
            rest = above;
        }
        None
    }

    fn exists(&self, name: &str) -> bool {
        name.is_empty() || self.records_of(name).is_some() || self.records.keys().any(|other| is_below(other, name))
    }

    fn fill(&self, reply: &mut Message, name: &str, kind: RecordType, proof: bool, trouble: Option<&Trouble>) {
        let mut at = name.to_owned();
        // A chain of aliases that goes in a circle is handed out as far as it goes once.
        for _ in 0..12 {
            let records = self.records_of(&at);
            let of = |kind: RecordType| -> Vec<RData> {
                records.into_iter().flatten().filter(|(of, _)| *of == kind).map(|(_, data)| data.clone()).collect()
            };
            let found = of(kind);
            if !found.is_empty() {
                reply.add_answers(self.set(&at, kind, found, proof, trouble));
                return;
            }
            let alias = of(RecordType::CNAME);
            let Some(RData::CNAME(target)) = alias.first() else { break };
            let target = key_of_name(&target.0);
            reply.add_answers(self.set(&at, RecordType::CNAME, alias.clone(), proof, trouble));
            at = target;
        }
        let exists = self.exists(&at);
        let signed = proof && self.signer.is_some() && !self.is_insecure(&at, kind);
        if !exists && !signed {
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        let soa = RData::SOA(SOA::new(name_of("ns.test"), name_of("root.test"), 1, 3600, 600, 86_400, 60));
        let apex = self.insecure.iter().find(|zone| at == **zone || is_below(&at, zone));
        let apex = apex.filter(|_| !signed).map_or("", String::as_str);
        reply.add_authorities(self.set(apex, RecordType::SOA, vec![soa], proof && signed, trouble));
        if signed {
            // A denial that covers this name alone (RFC 9824); one that does not exist is shown to be empty.
            let mut types: Vec<RecordType> =
                self.records_of(&at).into_iter().flatten().map(|(kind, _)| *kind).collect();
            if self.insecure.contains(&at) {
                types = vec![RecordType::NS];
            }
            types.extend([RecordType::RRSIG, RecordType::NSEC]);
            let next = Name::from_labels([&b"\0"[..]]).unwrap().append_name(&name_of(&at)).unwrap();
            let nsec = RData::DNSSEC(DNSSECRData::NSEC(NSEC::new(next, types)));
            reply.add_authorities(self.set(&at, RecordType::NSEC, vec![nsec], true, trouble));
        }
    }

    /// Tells whether a name is in a zone without signatures; the zone above says what of a DS there is.
    fn is_insecure(&self, name: &str, kind: RecordType) -> bool {
        let below = |zone: &String| {
            is_below(name, zone) || (name == zone && !matches!(kind, RecordType::DS | RecordType::NSEC))
        };
        self.insecure.iter().any(below)
    }

    fn set(
        &self,
        name: &str,
        kind: RecordType,
        data: Vec<RData>,
        proof: bool,
        trouble: Option<&Trouble>,
    ) -> Vec<Record> {
        let owner = name_of(name);
        let mut set = RecordSet::with_ttl(owner.clone(), kind, TTL);
        for data in data {
            set.add_rdata(data);
        }
        let mut records: Vec<Record> = set.records_without_rrsigs().cloned().collect();
        let unsigned = matches!(trouble, Some(Trouble::Unsigned)) || self.is_insecure(name, kind);
        if let Some(signer) = self.signer.as_ref().filter(|_| proof && !unsigned) {
            if matches!(trouble, Some(Trouble::Forged)) {
                set = RecordSet::with_ttl(owner.clone(), kind, TTL + 1);
                for record in &records {
                    set.add_rdata(record.data.clone());
                }
            }
            let an_hour_ago = SystemTime::now() - Duration::from_hours(1);
            let signature = RRSIG::from_rrset(&set, DNSClass::IN, an_hour_ago.into(), signer).unwrap();
            let mut record = Record::from_rdata(owner, TTL, RData::DNSSEC(DNSSECRData::RRSIG(signature)));
            if matches!(trouble, Some(Trouble::Forged)) {
                // The signature stays and what it is for changes.
                records.pop();
                record.ttl = TTL;
                records.push(forged(name, kind));
            }
            records.push(record);
        }
        records
    }
}

/// Something of this kind that nobody signed.
fn forged(name: &str, kind: RecordType) -> Record {
    let data = match kind {
        RecordType::A => RData::A(A(Ipv4Addr::new(192, 0, 2, 66))),
        RecordType::MX => RData::MX(MX::new(1, name_of("forged.test"))),
        RecordType::TLSA => RData::TLSA(TLSA::new(3.into(), 1.into(), 1.into(), vec![66; 32])),
        _ => RData::TXT(TXT::new(vec!["forged".to_owned()])),
    };
    Record::from_rdata(name_of(name), TTL, data)
}

fn is_below(name: &str, above: &str) -> bool {
    above.is_empty() && !name.is_empty()
        || name.strip_suffix(above).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
}

fn key_of(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// The labels as they are, whatever stands in them.
fn key_of_name(name: &Name) -> String {
    let labels: Vec<_> = name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    labels.join(".")
}

fn name_of(name: &str) -> Name {
    let labels = || Name::from_labels(name.split('.').map(str::as_bytes)).unwrap();
    let mut name =
        if name.is_empty() || name == "." { Name::root() } else { Name::from_ascii(name).unwrap_or_else(|_| labels()) };
    name.set_fqdn(true);
    name
}
