//! SPF against the RFC 7208 test suite, all 203 tests played through the DNS, and against hostile records.
//!
//! `tests/vectors/rfc7208.json` is the suite (its licence beside it). Where we differ on purpose the list
//! [`DIFFERENCES`] says why; a difference that is not on it fails, and so does one that is and is none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::rr::RecordType;
use pillarbox::mail::authentication::{Spf, Verdict};
use pillarbox::net::authenticate::{Authenticator, LOOKUPS_MAX};
use pillarbox::net::resolver::{DnsConfig, Resolver};
use serde_json::Value;

#[path = "support/dns.rs"]
mod dns;

use dns::{Dns, Trouble};

/// Tests of the suite with the result that we give and the reason.
const DIFFERENCES: &[(&str, &str, &str)] = &[];

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn authenticator(dns: &Dns) -> Authenticator {
    let config = DnsConfig { servers: vec![dns.address()], timeout_secs: 1, ..DnsConfig::default() };
    Authenticator::new(Resolver::new(&config).unwrap(), Arc::from("receiver.example.net")).unwrap()
}

fn check(dns: &Dns, ip: &str, helo: &str, from: &str) -> Spf {
    run(authenticator(dns).spf(ip.parse().unwrap(), helo, from))
}

/// Puts a zone of the suite into a server. SPF records stand for TXT, unless the name has TXT of its own; of a
/// name with TIMEOUT no question is answered that has no record.
fn publish(zone: &Value) -> Dns {
    let dns = Dns::start();
    for (name, records) in zone.as_object().unwrap() {
        let records = records.as_array().unwrap();
        let has_txt = records.iter().any(|record| record.get("TXT").is_some());
        let mut kinds = Vec::new();
        for record in records {
            let Some(record) = record.as_object() else { continue };
            let (kind, value) = record.iter().next().unwrap();
            let text = value.as_str().unwrap_or_default();
            match kind.as_str() {
                "SPF" if has_txt => {}
                "TXT" if text == "NONE" => {}
                "SPF" | "TXT" => {
                    let parts: Vec<Vec<u8>> = match value {
                        // The suite writes bytes as characters.
                        Value::Array(parts) => parts.iter().map(|part| latin1(part.as_str().unwrap())).collect(),
                        text => latin1(text.as_str().unwrap()).chunks(255).map(<[u8]>::to_vec).collect(),
                    };
                    dns.txt_parts(name, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
                    kinds.push(RecordType::TXT);
                }
                "A" | "AAAA" => {
                    dns.a(name, text);
                    kinds.push(if kind == "A" { RecordType::A } else { RecordType::AAAA });
                }
                "MX" => {
                    dns.mx(name, u16::try_from(value[0].as_u64().unwrap()).unwrap(), value[1].as_str().unwrap());
                    kinds.push(RecordType::MX);
                }
                "PTR" => {
                    dns.add(
                        name,
                        hickory_resolver::proto::rr::RData::PTR(hickory_resolver::proto::rr::rdata::PTR(
                            hickory_resolver::proto::rr::Name::from_ascii(text).unwrap(),
                        )),
                    );
                    kinds.push(RecordType::PTR);
                }
                "CNAME" => drop(dns.cname(name, text)),
                kind => panic!("{kind}"),
            }
        }
        if records.iter().any(|record| record == "TIMEOUT") {
            for kind in [RecordType::TXT, RecordType::A, RecordType::AAAA, RecordType::MX, RecordType::PTR] {
                if !kinds.contains(&kind) {
                    dns.trouble(name, Some(kind), Trouble::Silence);
                }
            }
        }
    }
    dns
}

fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

#[test]
fn the_rfc_7208_suite_is_passed() {
    let suite: Value = serde_json::from_str(include_str!("vectors/rfc7208.json")).unwrap();
    let (mut count, mut wrong) = (0, Vec::new());
    for part in suite.as_array().unwrap() {
        let dns = publish(&part["zonedata"]);
        for (name, test) in part["tests"].as_object().unwrap() {
            count += 1;
            let text = |key: &str| test[key].as_str().unwrap();
            let found = check(&dns, text("host"), text("helo"), text("mailfrom"));
            let allowed: Vec<&str> = match &test["result"] {
                Value::Array(some) => some.iter().map(|one| one.as_str().unwrap()).collect(),
                one => vec![one.as_str().unwrap()],
            };
            let ours = DIFFERENCES.iter().find(|(test, ..)| test == name).map(|(_, ours, _)| *ours);
            let good = ours.map_or(allowed.contains(&found.verdict.word()), |ours| {
                ours == found.verdict.word() && !allowed.contains(&ours)
            });
            let wanted = test["explanation"].as_str().filter(|text| *text != "DEFAULT");
            let said = found.explanation.as_deref();
            let explained = found.verdict != Verdict::Fail || wanted.is_none() || wanted == said;
            if !good || !explained {
                wrong.push(format!(
                    "{}: {name} ({}): {} ({}), wanted {allowed:?}; said {said:?}, wanted {wanted:?}",
                    part["description"].as_str().unwrap(),
                    test["spec"],
                    found.verdict,
                    found.reason
                ));
            }
        }
    }
    assert_eq!(count, 203);
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn an_include_within_an_include_decides_for_its_own_record_alone() {
    let dns = Dns::start();
    dns.txt("a.test", "v=spf1 ?include:b.test -all").txt("b.test", "v=spf1 include:c.test -all");
    dns.txt("c.test", "v=spf1 ip4:192.0.2.1 -all");
    assert_eq!(check(&dns, "192.0.2.1", "x.test", "u@a.test").verdict, Verdict::Neutral);
    assert_eq!(check(&dns, "192.0.2.2", "x.test", "u@a.test").verdict, Verdict::Fail);
}

#[test]
fn records_that_go_in_a_circle_end() {
    let dns = Dns::start();
    dns.txt("self.test", "v=spf1 include:self.test -all").txt("one.test", "v=spf1 redirect=two.test");
    dns.txt("two.test", "v=spf1 redirect=one.test");
    dns.txt("wide.test", &format!("v=spf1 {} -all", "include:wide.test ".repeat(20)));
    for from in ["u@self.test", "u@one.test", "u@wide.test"] {
        let found = check(&dns, "192.0.2.1", "x.test", from);
        assert_eq!(found.verdict, Verdict::PermError, "{from}: {}", found.reason);
    }
    assert!(dns.asked().len() <= 3 * (usize::from(LOOKUPS_MAX) + 1), "{:?}", dns.asked());
}

#[test]
fn names_that_lead_nowhere_are_bounded() {
    let dns = Dns::start();
    let record = |count: usize| {
        let terms: Vec<String> = (0..count).map(|n| format!("a:nobody{n}.test")).collect();
        format!("v=spf1 {} ip4:192.0.2.1 -all", terms.join(" "))
    };
    dns.txt("two.test", &record(2)).txt("three.test", &record(3)).txt("many.test", &record(100));
    assert_eq!(check(&dns, "192.0.2.1", "x.test", "u@two.test").verdict, Verdict::Pass);
    assert_eq!(check(&dns, "192.0.2.1", "x.test", "u@three.test").verdict, Verdict::PermError);
    assert_eq!(check(&dns, "192.0.2.1", "x.test", "u@many.test").verdict, Verdict::PermError);
    assert!(dns.asked().len() < 20, "{}", dns.asked().len());
}

#[test]
fn enormous_and_broken_records_are_permanent_errors() {
    let dns = Dns::start();
    dns.txt("long.test", &format!("v=spf1 {} -all", "ip4:192.0.2.1 ".repeat(3000)));
    dns.txt("eight.test", "v=spf1 exp=ü.test -all").txt("macro.test", "v=spf1 exists:%{q}.test -all");
    dns.txt("twice.test", "v=spf1 -all").txt("twice.test", "v=spf1 +all");
    for from in ["u@long.test", "u@eight.test", "u@macro.test", "u@twice.test"] {
        let found = check(&dns, "192.0.2.1", "x.test", from);
        assert_eq!(found.verdict, Verdict::PermError, "{from}: {}", found.reason);
    }
    // A hundred mail servers, and a hundred names of the address.
    dns.txt("mx.test", "v=spf1 mx -all").txt("ptr.test", "v=spf1 ptr -all");
    for number in 0..100 {
        dns.mx("mx.test", 10, &format!("m{number}.test")).ptr("192.0.2.1", &format!("p{number}.ptr.test"));
    }
    assert_eq!(check(&dns, "192.0.2.1", "x.test", "u@mx.test").verdict, Verdict::PermError);
    assert_eq!(check(&dns, "192.0.2.1", "x.test", "u@ptr.test").verdict, Verdict::Fail);
    let hosts = dns.asked().iter().filter(|(name, _)| name.starts_with('p') && name.ends_with(".ptr.test")).count();
    assert!(hosts <= 10, "{hosts}");
}

#[test]
fn a_dead_domain_is_a_temporary_error_and_a_dead_dns_is_not_checkable() {
    let dns = Dns::start();
    dns.txt("up.test", "v=spf1 ip4:192.0.2.1 -all").trouble("dead.test", None, Trouble::Silence);
    let checks = authenticator(&dns);
    run(async {
        let ip = "192.0.2.1".parse().unwrap();
        assert_eq!(checks.spf(ip, "x.test", "u@dead.test").await.verdict, Verdict::TempError);
        assert_eq!(checks.spf(ip, "x.test", "u@up.test").await.verdict, Verdict::Pass);
        tokio::time::sleep(Duration::from_secs(1)).await;
        dns.silence(true);
        assert_eq!(checks.spf(ip, "x.test", "u@new.test").await.verdict, Verdict::Unchecked);
        let since = Instant::now();
        for number in 0..50 {
            assert_eq!(checks.spf(ip, "x.test", &format!("u@n{number}.test")).await.verdict, Verdict::Unchecked);
        }
        assert!(since.elapsed() < Duration::from_millis(500), "{:?}", since.elapsed());
    });
}
