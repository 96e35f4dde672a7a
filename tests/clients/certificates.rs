//! Logging in with a client certificate: Python's libraries, curl and openssl show one that the program
//! made, one that openssl made, one that nobody registered, and one that is revoked meanwhile.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use super::server::{Server, fail, installed, run, succeed};
use super::{LETTER, is_the_letter};

/// `pillarbox account …` beside the running server.
fn account(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    command.arg("account").args(arguments).arg("--data").arg(server.data());
    command
}

/// A certificate of the program's own for this account.
fn issue(server: &Server, account_of: usize, name: &str, file: &Path) {
    let address = server.account(account_of).0;
    let out = file.to_str().unwrap();
    succeed(&mut account(server, &["certificate", address, "--name", name, "--out", out]), b"");
}

/// A certificate that signs itself, by openssl, with its key in the same file.
fn self_signed(file: &Path, algorithm: &[&str]) {
    let path = file.to_str().unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-nodes", "-subj", "/CN=ann", "-days", "2", "-keyout", path]).args(algorithm);
    let certificate = succeed(openssl.args(["-out", "-"]), b"");
    std::fs::OpenOptions::new().append(true).open(file).unwrap().write_all(certificate.as_bytes()).unwrap();
}

fn python(server: &Server, own: &Path, strange: &Path, task: &str) -> Command {
    let mut python = Command::new("python3");
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/external.py"));
    python.args(["imaps", "imap", "pop3s", "submissions", "submission"].map(|name| server.port(name)));
    python.arg(server.ca()).args([own, strange]).args([server.account(0).0, server.account(1).0, task]);
    python
}

#[test]
fn python_logs_in_with_a_certificate_and_no_more_when_it_is_revoked() {
    if !installed(&["python3", "openssl"], "python3 (ssl, client certificates)") {
        return;
    }
    let server = Server::start();
    let room = tempfile::tempdir().unwrap();
    let (own, strange) = (room.path().join("own.pem"), room.path().join("strange.pem"));
    issue(&server, 0, "laptop", &own);
    self_signed(&strange, &["-newkey", "rsa:2048"]);
    assert_eq!(succeed(&mut python(&server, &own, &strange, "in"), b""), "done\n");

    // As long as another has one the server asks, and sessions are resumed.
    issue(&server, 1, "phone", &room.path().join("phone.pem"));
    let mut client = python(&server, &own, &strange, "revoked");
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (client.stdin.take().unwrap(), BufReader::new(client.stdout.take().unwrap()));
    let mut said = String::new();
    stdout.read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n");
    succeed(&mut account(&server, &["revoke", server.account(0).0, "laptop"]), b"");
    stdin.write_all(b"go on\n").unwrap();
    stdout.read_to_string(&mut said).unwrap();
    assert!(client.wait().unwrap().success() && said == "ready\ndone\n", "{said}");
}

#[test]
fn curl_shows_certificates_of_any_maker_once_they_are_registered() {
    if !installed(&["curl", "openssl"], "curl with client certificates") {
        return;
    }
    let server = Server::start();
    let room = tempfile::tempdir().unwrap();
    let (ann, bob) = (server.account(0).0, server.account(1).0);
    let [anns, bobs] = ["ann.pem", "bob.pem"].map(|name| room.path().join(name));
    self_signed(&anns, &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1"]);
    let add = ["certificate", ann, "--name", "openssl's", "--add", anns.to_str().unwrap()];
    succeed(&mut account(&server, &add), b"");
    assert!(fail(&mut account(&server, &add), b"").contains("registered already"));
    issue(&server, 1, "pillarbox's", &bobs);

    let curl = |scheme: &str, listener: &str, rest: &str, user: &str, certificate: &Path| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert", server.ca(), "--cert"]).arg(certificate);
        curl.args(["--user", &format!("{user}:"), "--login-options", "AUTH=EXTERNAL"]);
        curl.arg(format!("{scheme}://localhost:{}{rest}", server.port(listener)));
        curl
    };
    let send = |scheme, listener, more: &[&str]| {
        let mut curl = curl(scheme, listener, "", ann, &anns);
        curl.args(["--mail-from", ann, "--mail-rcpt", bob, "--upload-file", "-"]).args(more);
        succeed(&mut curl, LETTER.as_bytes());
    };
    send("smtps", "submissions", &[]);
    send("smtp", "submission", &["--ssl-reqd"]);
    for uid in ["2", "3"] {
        let read = succeed(&mut curl("imaps", "imaps", &format!("/INBOX;UID={uid}"), bob, &bobs), b"");
        assert!(is_the_letter(&read), "{read}");
        let read = succeed(&mut curl("pop3s", "pop3s", &format!("/{uid}"), bob, &bobs), b"");
        assert!(is_the_letter(&read), "{read}");
    }
    // In another's name, and after a look at the list.
    for (scheme, listener) in [("imaps", "imaps"), ("pop3s", "pop3s"), ("smtps", "submissions")] {
        let denied = run(&mut curl(scheme, listener, "", bob, &anns), b"");
        assert_eq!(denied.status.code(), Some(67), "{scheme}: login denied");
    }
    let listed = succeed(&mut account(&server, &["certificates", "--json"]), b"");
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let mut print = Command::new("openssl");
    let print = succeed(print.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(&anns), b"");
    let print = print.trim().rsplit_once('=').unwrap().1.replace(':', "").to_lowercase();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!((listed[0]["address"].as_str(), listed[0]["fingerprint"].as_str()), (Some(ann), Some(print.as_str())));
}

#[test]
fn nobody_is_asked_for_a_certificate_before_there_is_one_and_other_servers_never() {
    if !installed(&["openssl"], "openssl s_client") {
        return;
    }
    let server = Server::start();
    let asked = |listener: &str, starttls: Option<&str>| {
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-connect", server.listener(listener), "-CAfile", server.ca()]);
        let said = run(openssl.args(starttls.map(|protocol| ["-starttls", protocol]).into_iter().flatten()), b"");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        said.contains("Requested Signature Algorithms")
    };
    let all = [
        ("imaps", None),
        ("imap", Some("imap")),
        ("pop3s", None),
        ("pop3", Some("pop3")),
        ("submissions", None),
        ("submission", Some("smtp")),
    ];
    for (listener, starttls) in all {
        assert!(!asked(listener, starttls), "{listener}");
    }
    let room = tempfile::tempdir().unwrap();
    issue(&server, 0, "laptop", &room.path().join("laptop.pem"));
    for (listener, starttls) in all {
        assert!(asked(listener, starttls), "{listener}");
    }
    assert!(!asked("smtp", Some("smtp")));
    succeed(&mut account(&server, &["revoke", server.account(0).0, "laptop"]), b"");
    assert!(!asked("imaps", None));
}
