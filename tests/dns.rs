//! The resolver against a DNS server that behaves and one that does not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::ResponseCode;
use pillarbox::net::resolver::{DnsConfig, DnsError, Resolver, Tlsa};

#[path = "support/dns.rs"]
mod dns;

use dns::{Dns, Trouble};

fn config(dns: &Dns) -> DnsConfig {
    DnsConfig { servers: vec![dns.address()], timeout_secs: 2, ..DnsConfig::default() }
}

fn resolver(dns: &Dns) -> Resolver {
    Resolver::new(&config(dns)).unwrap()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn every_kind_of_record_is_answered() {
    let dns = Dns::start();
    dns.mx("example.test", 20, "b.example.test").mx("example.test", 10, "A.example.test").mx("none.test", 0, ".");
    dns.a("a.example.test", "192.0.2.1").a("a.example.test", "2001:db8::1").cname("www.example.test", "a.example.test");
    dns.a("four.test", "192.0.2.4");
    dns.txt("example.test", &"long ".repeat(100)).txt_parts("raw.test", &[b"v=", b"\xff"]);
    dns.ptr("192.0.2.1", "A.example.test").tlsa("_25._tcp.a.example.test", 3, 1, 1, &[7; 32]);
    dns.a("xn--bcher-kva.test", "192.0.2.9");
    let resolver = resolver(&dns);
    run(async {
        let mx = resolver.mx("example.test").await.unwrap();
        assert_eq!(mx.value, [(10, "a.example.test".to_owned()), (20, "b.example.test".to_owned())]);
        assert!(!mx.secure);
        assert_eq!(resolver.mx("none.test").await.unwrap().value, [(0, String::new())]);
        let both: Vec<IpAddr> = vec!["2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap()];
        assert_eq!(resolver.addresses("A.example.test.").await.unwrap().value, both);
        assert_eq!(resolver.addresses("www.example.test").await.unwrap().value, both);
        assert_eq!(resolver.addresses("four.test").await.unwrap().value, ["192.0.2.4".parse::<IpAddr>().unwrap()]);
        assert_eq!(resolver.addresses("bücher.test").await.unwrap().value, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
        assert_eq!(resolver.txt("example.test").await.unwrap().value, ["long ".repeat(100)]);
        assert_eq!(resolver.txt("raw.test").await.unwrap().value, ["v=\u{fffd}"]);
        assert_eq!(resolver.ptr("192.0.2.1".parse().unwrap()).await.unwrap().value, ["a.example.test"]);
        let tlsa = resolver.tlsa("_25._tcp.a.example.test").await.unwrap().value;
        assert_eq!(tlsa, [Tlsa { usage: 3, selector: 1, matching: 1, data: vec![7; 32] }]);
        assert_eq!(resolver.mx("nobody.test").await.unwrap_err(), DnsError::NoSuchName);
        assert_eq!(resolver.mx("a.example.test").await.unwrap_err(), DnsError::NoRecords);
        assert_eq!(resolver.addresses("nobody.test").await.unwrap_err(), DnsError::NoSuchName);
        assert_eq!(resolver.addresses("raw.test").await.unwrap_err(), DnsError::NoRecords);
        assert_eq!(resolver.addresses("localhost").await.unwrap().value.len(), 2);
    });
}

#[test]
fn answers_and_their_absence_are_remembered() {
    let dns = Dns::start();
    dns.a("a.test", "192.0.2.1");
    let resolver = resolver(&dns);
    run(async {
        for _ in 0..3 {
            resolver.addresses("a.test").await.unwrap();
            resolver.clone().mx("nobody.test").await.unwrap_err();
        }
    });
    assert_eq!(dns.asked().len(), 3, "{:?}", dns.asked());
}

#[test]
fn an_answer_that_is_cut_comes_by_tcp() {
    let dns = Dns::start();
    dns.a("cut.test", "192.0.2.1").trouble("cut.test", None, Trouble::Cut);
    let long = "x".repeat(20_000);
    dns.txt("long.test", &long);
    let resolver = resolver(&dns);
    run(async {
        assert_eq!(resolver.addresses("cut.test").await.unwrap().value.len(), 1);
        assert_eq!(resolver.txt("long.test").await.unwrap().value, [long]);
    });
}

#[test]
fn what_is_no_answer_is_unavailable_and_never_more() {
    let dns = Dns::start();
    dns.a("up.test", "192.0.2.1");
    dns.trouble("fail.test", None, Trouble::Code(ResponseCode::ServFail));
    dns.trouble("refused.test", None, Trouble::Code(ResponseCode::Refused));
    dns.trouble("garbage.test", None, Trouble::Garbage(vec![0xff; 300]));
    dns.trouble("short.test", None, Trouble::Garbage(vec![]));
    dns.trouble("cut.test", None, Trouble::AlwaysCut);
    dns.txt("id.test", "x").trouble("id.test", None, Trouble::WrongId);
    dns.trouble("silent.test", None, Trouble::Silence);
    dns.txt("slow.test", "x").trouble("slow.test", None, Trouble::Slow(Duration::from_secs(10)));
    dns.cname("one.test", "two.test").cname("two.test", "one.test");
    let resolver = resolver(&dns);
    run(async {
        for name in ["fail", "refused", "garbage", "short", "cut", "id", "silent", "slow", "one"] {
            let name = format!("{name}.test");
            let begun = Instant::now();
            let error = resolver.txt(&name).await.unwrap_err();
            assert!(matches!(error, DnsError::Unavailable(_) | DnsError::NoRecords), "{name}: {error:?}");
            assert!(begun.elapsed() < Duration::from_secs(4), "{name}: {:?}", begun.elapsed());
        }
        // None of this says that the server is away: it answered the question for the root.
        assert!(!resolver.is_away());
        assert_eq!(resolver.addresses("up.test").await.unwrap().value.len(), 1);
    });
}

#[test]
fn a_server_that_is_away_is_waited_for_once() {
    let dns = Dns::start();
    dns.silence(true);
    let resolver = resolver(&dns);
    run(async {
        let begun = Instant::now();
        resolver.mx("a.test").await.unwrap_err();
        let first = begun.elapsed();
        assert!(resolver.is_away());
        let begun = Instant::now();
        for number in 0..100 {
            let error = resolver.mx(&format!("b{number}.test")).await.unwrap_err();
            assert!(matches!(error, DnsError::Unavailable(_)), "{error:?}");
        }
        assert!(begun.elapsed() < first / 4, "{:?}", begun.elapsed());
    });
}

#[test]
fn one_dead_server_of_two_costs_nothing() {
    let (dead, good) = (Dns::start(), Dns::start());
    dead.silence(true);
    good.mx("a.test", 10, "mx.a.test").mx("b.test", 10, "mx.b.test");
    let config = DnsConfig { servers: vec![dead.address(), good.address()], timeout_secs: 4, ..DnsConfig::default() };
    let resolver = Resolver::new(&config).unwrap();
    run(async {
        let begun = Instant::now();
        resolver.mx("a.test").await.unwrap();
        resolver.mx("b.test").await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    });
}

#[test]
fn many_questions_wait_for_one_another() {
    let dns = Dns::start();
    dns.trouble("*.slow.test", None, Trouble::Slow(Duration::from_millis(20)));
    let resolver = resolver(&dns);
    run(async {
        let mut asking = tokio::task::JoinSet::new();
        for number in 0..500 {
            let resolver = resolver.clone();
            asking.spawn(async move { resolver.txt(&format!("n{number}.slow.test")).await });
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
        let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        assert!(files < 250, "{files} open files");
        while let Some(answer) = asking.join_next().await {
            assert_eq!(answer.unwrap().unwrap_err(), DnsError::NoSuchName);
        }
    });
}

#[test]
fn no_port_no_network_no_server_are_unavailable_soon() {
    let gone = { Dns::start().address() };
    run(async {
        let resolver = Resolver::new(&DnsConfig { servers: vec![gone], ..DnsConfig::default() }).unwrap();
        let begun = Instant::now();
        assert!(matches!(resolver.mx("a.test").await, Err(DnsError::Unavailable(_))));
        assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
        assert!(resolver.is_away());
    });
}

#[test]
fn signed_answers_are_secure_and_forged_ones_bogus() {
    let dns = Dns::signed();
    dns.mx("good.test", 10, "mx.good.test").a("mx.good.test", "192.0.2.1");
    dns.tlsa("_25._tcp.mx.good.test", 3, 1, 1, &[7; 32]);
    dns.cname("alias.test", "both.test").a("both.test", "192.0.2.3").a("both.test", "2001:db8::3");
    dns.cname("other.test", "mx.good.test");
    dns.mx("plain.test", 10, "mx.plain.test").insecure("plain.test").a("mx.plain.test", "192.0.2.2");
    dns.mx("forged.test", 10, "mx.good.test").trouble("forged.test", None, Trouble::Forged);
    dns.mx("bare.test", 10, "mx.good.test").trouble("bare.test", None, Trouble::Unsigned);
    let config = DnsConfig { trust_anchors: Some(dns.trust_anchors()), ..config(&dns) };
    let plain = Resolver::new(&config).unwrap();
    let resolver = plain.validating();
    run(async {
        assert!(!plain.mx("good.test").await.unwrap().secure);
        assert!(resolver.mx("good.test").await.unwrap().secure);
        // Without IPv6 addresses, which is proven too.
        assert!(resolver.addresses("mx.good.test").await.unwrap().secure);
        assert!(resolver.addresses("alias.test").await.unwrap().secure);
        // An alias of a host without IPv6 addresses, of which the library cannot read the proof.
        let four: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap()];
        let found = resolver.addresses("other.test").await.unwrap();
        assert!(found.secure && found.value == four, "{found:?}");
        assert!(resolver.tlsa("_25._tcp.mx.good.test").await.unwrap().secure);
        let none = resolver.tlsa("_25._tcp.other.good.test").await.unwrap_err();
        assert!(matches!(none, DnsError::NoRecords | DnsError::NoSuchName), "{none:?}");
        assert!(!resolver.mx("plain.test").await.unwrap().secure);
        assert!(!resolver.addresses("mx.plain.test").await.unwrap().secure);
        assert!(matches!(
            resolver.tlsa("_25._tcp.mx.plain.test").await,
            Err(DnsError::NoSuchName | DnsError::NoRecords)
        ));
        assert_eq!(resolver.mx("forged.test").await.unwrap_err(), DnsError::Bogus);
        assert_eq!(resolver.mx("bare.test").await.unwrap_err(), DnsError::Bogus);
        // Who does not ask for proof takes what comes.
        assert!(plain.mx("forged.test").await.is_ok());
    });
}
