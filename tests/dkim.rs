//! Our DKIM signatures before another implementation: dkimpy (RFC 6376, RFC 8463).
//!
//! It comes from `PyPI`: `.ci/run` installs it into `target/python`. Where it is missing the test is
//! skipped with one visible line, and fails where `PILLARBOX_REQUIRE_CLIENTS` is set.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[path = "support/server.rs"]
mod server;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pillarbox::flow::dkim::{Keyring, SEEDS};
use pillarbox::flow::sign::Signer;
use pillarbox::mail::date::Timestamp;
use ring::rand::SystemRandom;
use serde_json::json;

use server::{installed, run, succeed};

/// Python with dkimpy.
fn python() -> Option<Command> {
    if !installed(&["python3"], "python3 (dkimpy)") {
        return None;
    }
    let libraries = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/python");
    let python = || {
        let mut python = Command::new("python3");
        python.env("PYTHONPATH", &libraries);
        python
    };
    if run(python().args(["-c", "import dkim, nacl"]), b"").status.success() {
        return Some(python());
    }
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED dkimpy: not installed (python3 -m pip install --target target/python dkimpy pynacl)"
    );
    assert!(std::env::var_os("PILLARBOX_REQUIRE_CLIENTS").is_none(), "the DKIM round trip needs dkimpy");
    None
}

/// Messages at the edges of what canonical forms are about.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let header = "Return-Path: <ann@x.test>\r\nReceived: from a by b; now\r\nFrom: Ann <ann@x.test>\r\nTo: bob@y.test\r\nSubject: hello\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@x.test>\r\n";
    let with = |more: &str, body: &str| format!("{header}{more}\r\n{body}").into_bytes();
    let mut all = vec![
        ("plain", with("", "hi\r\n")),
        ("empty body", with("", "")),
        ("empty lines alone", with("", "\r\n\r\n\r\n")),
        ("white space alone", with("", " \t\r\n  \r\n")),
        ("white space at the end of lines", with("", "a \t \r\nb\t\r\n")),
        ("white space within lines", with("", "a \t b  c\r\n  d\te\r\n")),
        ("empty lines at the end", with("", "a\r\n\r\n\r\n")),
        ("white space on the last lines", with("", "a\r\n \r\n\t \r\n\r\n \r\n")),
        ("no CRLF at the end", with("", "a\r\nb")),
        ("no CRLF after white space", with("", "a\r\nb \t")),
        ("dots", with("", ".\r\n..\r\n.a\r\n")),
        (
            "8-bit",
            with("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n", "Grüße, 日本\r\n"),
        ),
        ("8-bit in the header", with("Reply-To: Jürgen <j@x.test>\r\n", "hi\r\n")),
        (
            "folded",
            with(
                "References: <a@x.test>\r\n\t<b@x.test>\r\n <c@x.test>   \r\nCc: a@y.test,\r\n   b@y.test ,\r\n\t c@y.test\r\n",
                "hi\r\n",
            ),
        ),
        ("empty field", with("Reply-To:\r\nSender: \r\n", "hi\r\n")),
        ("many of one", with(&"Cc: c@y.test\r\nCC:d@y.test\r\n".repeat(3), "hi\r\n")),
        ("a list's", with("List-Id: <l.x.test>\r\nList-Post: <mailto:l@x.test>\r\nMIME-Version: 1.0\r\n", "hi\r\n")),
        ("header alone", header.as_bytes().to_vec()),
    ];
    let mut long = String::new();
    for number in 0..400 {
        write!(long, " word{number}@list.x.test,\r\n").unwrap();
    }
    all.push(("very long field", with(&format!("Cc: first@y.test,\r\n{long} last@y.test\r\n"), "hi\r\n")));
    let mut latin = with("", "");
    latin.extend_from_slice(b"na\xefve \xff\xfe\r\n \xa0 \r\n");
    all.push(("bytes that are no UTF-8", latin));
    all.push(("large", with("", &"The quick brown fox  jumps over.\t \r\n\r\n".repeat(20_000))));
    all
}

#[test]
fn dkimpy_verifies_both_signatures_of_every_kind_of_message() {
    let Some(mut python) = python() else { return };
    let now = Timestamp(1_795_000_000);
    let folder = tempfile::tempdir().unwrap();
    let mut ring = Keyring::open(folder.path(), "x.test").unwrap();
    let mut seeds = [0; SEEDS];
    ring::rand::SecureRandom::fill(&SystemRandom::new(), &mut seeds).unwrap();
    ring.ensure(now, &seeds).unwrap();
    let rows = ring.rows(now).unwrap();
    let records: serde_json::Map<String, serde_json::Value> =
        rows.iter().map(|row| (format!("{}._domainkey.x.test", row.selector), json!(row.record))).collect();
    let signer = Signer::new(folder.path(), Arc::new(SystemRandom::new()));
    let letters: Vec<_> = messages()
        .into_iter()
        .map(|(name, message)| {
            let fields = signer.sign(&mut message.as_slice(), now).unwrap();
            // As it leaves: signatures first, the Return-Path left away, the last line ended.
            let message = message.splitn(2, |byte| *byte == b'\n').last().unwrap();
            let end: &[u8] = if message.ends_with(b"\r\n") { b"" } else { b"\r\n" };
            let whole = [fields.as_bytes(), message, end].concat();
            (name, STANDARD.encode(whole))
        })
        .collect();
    let task = serde_json::to_vec(&json!({ "records": records, "messages": letters })).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/dkim_verify.py");
    assert_eq!(succeed(python.arg(script), &task), "all well\n");
}
