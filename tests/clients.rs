//! Real clients drive the real binary: curl, swaks, mbsync, fetchmail, mpop, openssl and Python, and in
//! `clients/two_way.rs` offlineimap, getmail, neomutt and Node; `clients/certificates.rs` logs in with certificates.
//!
//! A client that is not installed is skipped with one visible line; `.ci/run` installs them all and
//! forbids skipping.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

#[path = "clients/certificates.rs"]
mod certificates;
#[path = "support/server.rs"]
mod server;
#[path = "clients/two_way.rs"]
mod two_way;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use server::{Server, fail, installed, run, succeed};

const LETTER: &str =
    "From: ann@pillarbox.local\r\nTo: bob@pillarbox.local\r\nSubject: by curl\r\n\r\n.a dotted line\r\n";

/// Submission adds a Date and a Message-ID; nothing else comes between header and body.
fn is_the_letter(read: &str) -> bool {
    read.contains("\r\nSubject: by curl\r\n") && read.ends_with("\r\n\r\n.a dotted line\r\n")
}

fn curl(server: &Server, url: &str, account: usize) -> Command {
    let (address, password) = server.account(account);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "20", "--cacert", server.ca(), "--user", &format!("{address}:{password}"), url]);
    curl
}

fn curl_send(server: &Server, url: &str, more: &[&str]) -> Command {
    let mut curl = curl(server, url, 0);
    curl.args(["--mail-from", server.account(0).0, "--mail-rcpt", server.account(1).0, "--upload-file", "-"])
        .args(more);
    curl
}

#[test]
fn curl_sends_and_reads_over_every_tls_port() {
    if !installed(&["curl"], "curl") {
        return;
    }
    let server = Server::start();
    let url =
        |scheme: &str, listener: &str, rest: &str| format!("{scheme}://localhost:{}{rest}", server.port(listener));
    succeed(&mut curl_send(&server, &url("smtps", "submissions", ""), &[]), LETTER.as_bytes());
    succeed(&mut curl_send(&server, &url("smtp", "submission", ""), &["--ssl-reqd"]), LETTER.as_bytes());
    // The welcome message is the first.
    for (scheme, listener, more) in [("imaps", "imaps", None), ("imap", "imap", Some("--ssl-reqd"))] {
        for uid in ["2", "3"] {
            let path = format!("/INBOX;UID={uid}");
            let read = succeed(curl(&server, &url(scheme, listener, &path), 1).args(more), b"");
            assert!(is_the_letter(&read) && read.starts_with("Return-Path: <ann@"), "{scheme}: {read}");
        }
        let found = succeed(curl(&server, &url(scheme, listener, "/INBOX?SUBJECT%20curl"), 1).args(more), b"");
        assert_eq!(found.trim_end(), "* SEARCH 2 3");
    }
    for (scheme, listener, more) in [("pop3s", "pop3s", None), ("pop3", "pop3", Some("--ssl-reqd"))] {
        let read = succeed(curl(&server, &url(scheme, listener, "/2"), 1).args(more), b"");
        assert!(is_the_letter(&read), "{scheme}: {read}");
        assert_eq!(succeed(curl(&server, &url(scheme, listener, "/"), 1).args(more), b"").lines().count(), 3);
    }
}

#[test]
fn curl_is_refused_with_a_wrong_password_and_without_the_authority() {
    if !installed(&["curl"], "curl") {
        return;
    }
    let server = Server::start();
    for (scheme, listener) in [("imaps", "imaps"), ("pop3s", "pop3s"), ("smtps", "submissions")] {
        let url = format!("{scheme}://localhost:{}", server.port(listener));
        let mut wrong = Command::new("curl");
        wrong.args(["-sS", "--max-time", "20", "--cacert", server.ca(), "--user", "ann@pillarbox.local:wrong", &url]);
        assert_eq!(run(&mut wrong, b"").status.code(), Some(67), "{scheme}: login denied");
        let mut stranger = Command::new("curl");
        stranger.args(["-sS", "--max-time", "20", "--user", "ann@pillarbox.local:wrong", &url]);
        assert_eq!(run(&mut stranger, b"").status.code(), Some(60), "{scheme}: unknown authority");
    }
}

fn swaks(server: &Server, listener: &str, more: &[&str]) -> Command {
    let mut swaks = Command::new("swaks");
    swaks.args(["--server", "127.0.0.1", "--port", server.port(listener), "--timeout", "20", "--helo", "client.test"]);
    swaks.args(["--to", server.account(1).0]).args(more);
    swaks
}

#[test]
fn swaks_authenticates_pipelines_and_is_refused_where_it_should_be() {
    if !installed(&["swaks"], "swaks") {
        return;
    }
    let server = Server::start();
    let (ann, password) = server.account(0);
    for (listener, tls) in [("submission", "-tls"), ("submissions", "-tlsc")] {
        for mechanism in ["PLAIN", "LOGIN"] {
            let login = ["--auth", mechanism, "--auth-user", ann, "--auth-password", password, "--from", ann, tls];
            let said = succeed(&mut swaks(&server, listener, &login), b"");
            assert!(said.contains("235 2.7.0"), "{said}");
            succeed(swaks(&server, listener, &login).arg("--pipeline"), b"");
            let forged = fail(swaks(&server, listener, &login).args(["--from", "bob@pillarbox.local"]), b"");
            assert!(forged.contains("553 5.7.1"), "{forged}");
        }
        let wrong = ["--auth", "PLAIN", "--auth-user", ann, "--auth-password", "wrong", "--from", ann, tls];
        assert!(fail(&mut swaks(&server, listener, &wrong), b"").contains("535 5.7.8"));
    }
    let anonymous = fail(&mut swaks(&server, "submission", &["-tls", "--from", ann]), b"");
    assert!(anonymous.contains("530 5.7.0"), "{anonymous}");
    let clear = ["--auth", "PLAIN", "--auth-user", ann, "--auth-password", password, "--from", ann];
    fail(&mut swaks(&server, "submission", &clear), b"");

    let stranger = ["--from", "carol@elsewhere.test"];
    succeed(swaks(&server, "smtp", &stranger).args(["-tls", "--pipeline"]), b"");
    let unknown = fail(swaks(&server, "smtp", &stranger).args(["--to", "nobody@pillarbox.local"]), b"");
    assert!(unknown.contains("550 5.1.1"), "{unknown}");
    let relay = fail(swaks(&server, "smtp", &stranger).args(["--to", "dave@elsewhere.test"]), b"");
    assert!(relay.contains("550 5.7.1"), "{relay}");
    let large = fail(swaks(&server, "smtp", &stranger).args(["--body", "-"]), &b"0123456789abcde\n".repeat(3 << 20));
    assert!(large.contains("552 5.3.4"), "no 552 for a message that is too large");
}

fn mbsync_config(server: &Server, folder: &Path) -> std::path::PathBuf {
    let (address, password) = server.account(1);
    let text = format!(
        "IMAPAccount box\nHost localhost\nPort {}\nUser {address}\nPass {password}\nSSLType IMAPS\nCertificateFile {}\n\n\
         IMAPStore far\nAccount box\n\nMaildirStore near\nPath {folder}/\nInbox {folder}/INBOX\nSubFolders Verbatim\n\n\
         Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\nSyncState *\n",
        server.port("imaps"),
        server.ca(),
        folder = folder.display(),
    );
    let path = folder.join("mbsyncrc");
    fs::write(&path, text).unwrap();
    path
}

fn maildir(folder: &Path) -> Vec<std::path::PathBuf> {
    let files = |part: &str| fs::read_dir(folder.join(part)).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = files("cur").chain(files("new")).collect();
    all.sort();
    all
}

#[test]
fn mbsync_carries_mail_flags_and_deletions_both_ways() {
    if !installed(&["mbsync", "curl"], "mbsync") {
        return;
    }
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let config = mbsync_config(&server, folder.path());
    let sync = || succeed(Command::new("mbsync").arg("-c").arg(&config).arg("-a"), b"");
    let inbox = folder.path().join("INBOX");
    let imaps = |rest: &str| format!("imaps://localhost:{}/{rest}", server.port("imaps"));
    let ask = |rest: &str, command: &str| succeed(curl(&server, &imaps(rest), 1).args(["-X", command]), b"");

    // New mail comes down, with the standard mailboxes.
    succeed(
        &mut curl_send(&server, &format!("smtps://localhost:{}", server.port("submissions")), &[]),
        LETTER.as_bytes(),
    );
    sync();
    assert_eq!(maildir(&inbox).len(), 2);
    assert!(folder.path().join("Drafts/cur").is_dir() && folder.path().join("Archive/cur").is_dir());

    // A flag set here goes up, a flag set there comes down.
    let first = maildir(&inbox).into_iter().find(|path| fs::read_to_string(path).unwrap().contains("by curl")).unwrap();
    let name = first.file_name().unwrap().to_str().unwrap().split(':').next().unwrap().to_owned();
    fs::rename(&first, inbox.join("cur").join(format!("{name}:2,FS"))).unwrap();
    sync();
    let flags = ask("INBOX", "FETCH 2 FLAGS");
    assert!(flags.contains("\\Flagged") && flags.contains("\\Seen"), "{flags}");
    ask("INBOX", "STORE 2 +FLAGS (\\Answered)");
    sync();
    assert!(maildir(&inbox).iter().any(|path| path.to_str().unwrap().ends_with(":2,FRS")), "{:?}", maildir(&inbox));

    // Mail written here goes up.
    fs::create_dir_all(folder.path().join("Sent/cur")).unwrap();
    fs::write(folder.path().join("Sent/cur/1.1.here:2,S"), "Subject: written here\n\nbody\n").unwrap();
    sync();
    assert!(ask("Sent", "FETCH 1 BODY[HEADER.FIELDS (SUBJECT)]").contains("1 FETCH"));
    assert!(ask("Sent", "SEARCH SUBJECT \"written here\"").contains("SEARCH 1"));

    // Deleted here goes there, deleted there goes here.
    for path in maildir(&inbox) {
        if fs::read_to_string(&path).unwrap().contains("by curl") {
            fs::remove_file(path).unwrap();
        }
    }
    sync();
    assert!(ask("INBOX", "SEARCH ALL").trim_end().ends_with("SEARCH 1"));
    ask("INBOX", "STORE 1 +FLAGS (\\Deleted)");
    ask("INBOX", "EXPUNGE");
    sync();
    assert!(maildir(&inbox).is_empty());
}

#[test]
fn fetchmail_takes_mail_by_pop3_and_deletes_it() {
    if !installed(&["fetchmail"], "fetchmail") {
        return;
    }
    let server = Server::start();
    let (address, password) = server.account(1);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("fetchmailrc");
    let taken = folder.path().join("taken");
    let text = format!(
        "set no bouncemail\npoll localhost protocol pop3 port {} uidl\nuser \"{address}\" password \"{password}\" ssl \
         sslcertck sslcertfile \"{}\" no keep mda \"cat >> {}\"\n",
        server.port("pop3s"),
        server.ca(),
        taken.display()
    );
    fs::write(&config, text).unwrap();
    Command::new("chmod").arg("600").arg(&config).status().unwrap();
    let fetchmail = || {
        let mut fetchmail = Command::new("fetchmail");
        fetchmail.env("FETCHMAILHOME", folder.path()).env("HOME", folder.path());
        fetchmail.args(["--nosyslog", "--pidfile"]).arg(folder.path().join("pid")).arg("-f").arg(&config);
        run(&mut fetchmail, b"")
    };
    let first = fetchmail();
    assert_eq!(first.status.code(), Some(0), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(fs::read_to_string(&taken).unwrap().contains("Subject: "));
    assert_eq!(fetchmail().status.code(), Some(1), "no mail is left");
}

#[test]
fn mpop_takes_mail_by_pop3_with_every_login() {
    if !installed(&["mpop"], "mpop") {
        return;
    }
    let server = Server::start();
    let (address, password) = server.account(1);
    for (number, (method, listener, starttls)) in
        [("user", "pop3s", "off"), ("plain", "pop3", "on"), ("scram-sha-256", "pop3s", "off")].into_iter().enumerate()
    {
        let folder = tempfile::tempdir().unwrap();
        let mut mpop = Command::new("mpop");
        mpop.env("HOME", folder.path()).arg("--host=localhost").arg(format!("--port={}", server.port(listener)));
        mpop.args(["--tls=on", "--keep=on", "--only-new=off", "--timeout=20"])
            .arg(format!("--tls-starttls={starttls}"));
        mpop.arg(format!("--tls-trust-file={}", server.ca())).arg(format!("--auth={method}"));
        mpop.arg(format!("--user={address}")).arg(format!("--passwordeval=echo {password}"));
        mpop.arg(format!("--delivery=mbox,{}", folder.path().join("mbox").display()));
        mpop.arg(format!("--uidls-file={}", folder.path().join("uidls").display()));
        succeed(&mut mpop, b"");
        let mbox = fs::read_to_string(folder.path().join("mbox")).unwrap();
        assert!(mbox.contains("Subject: "), "{number}: {method}: {mbox}");
    }
}

#[test]
fn python_libraries_drive_all_three_protocols() {
    if !installed(&["python3"], "python3 (smtplib, imaplib, poplib)") {
        return;
    }
    let server = Server::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/libraries.py");
    let mut python = Command::new("python3");
    python.arg(script).arg(server.ca());
    for listener in ["smtp", "submission", "submissions", "imap", "imaps", "pop3", "pop3s"] {
        python.arg(server.port(listener));
    }
    for account in 0..2 {
        python.arg(server.account(account).0).arg(server.account(account).1);
    }
    assert!(succeed(&mut python, b"").ends_with("all well\n"));
}

#[test]
fn a_shared_mailbox_is_for_whom_it_is_shared_with_and_nobody_else() {
    if !installed(&["python3"], "python3 (imaplib)") {
        return;
    }
    let server = Server::start();
    let added = succeed(
        Command::new(server::program())
            .args(["account", "add", "carol@pillarbox.local", "--password-stdin", "--data"])
            .arg(server.data()),
        b"carols secret\n",
    );
    assert!(added.contains("carol@pillarbox.local"), "{added}");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/shared.py");
    let mut python = Command::new("python3");
    python.arg(script).arg(server.ca()).arg(server.port("imaps"));
    for account in 0..2 {
        python.arg(server.account(account).0).arg(server.account(account).1);
    }
    python.args(["carol@pillarbox.local", "carols secret"]);
    assert!(succeed(&mut python, b"").ends_with("all well\n"));
}

/// `.ci/run` puts the libraries that Debian has not into an environment of their own.
#[test]
fn imap_libraries_use_the_extensions() {
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/target/clients/bin/python3");
    if !installed(&[python], "imapclient and aioimaplib") {
        return;
    }
    let server = Server::start();
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/imap_clients.py")).arg(server.ca());
    command.arg(server.port("imaps")).arg(server.account(0).0).arg(server.account(0).1);
    assert!(succeed(&mut command, b"").ends_with("all well\n"));
}

/// The larger set of odd messages is looked at too where `PILLARBOX_CORPORA` says that it is.
#[test]
fn fetch_answers_as_dovecot_does_but_where_the_difference_is_explained() {
    if !installed(&["python3", "dovecot"], "Dovecot as a second opinion on FETCH") {
        return;
    }
    if fs::metadata("/proc/self").is_ok_and(|facts| facts.uid() != 0) {
        let _ = writeln!(std::io::stderr(), "SKIPPED Dovecot as a second opinion on FETCH: it wants root");
        return;
    }
    let (server, room) = (Server::start(), tempfile::tempdir().unwrap());
    let mut python = Command::new("python3");
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/dovecot.py")).arg(server.port("imaps"));
    python.arg(server.account(0).0).arg(server.account(0).1).arg(server.ca());
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"));
    let packed = std::env::var_os("PILLARBOX_CORPORA").map(|folder| Path::new(&folder).join("mime.tar.zst"));
    if let Some(packed) = packed.filter(|packed| packed.exists()) {
        let mut tar = Command::new("tar");
        succeed(tar.args(["-I", "zstd -d --long=27", "-xf"]).arg(packed).arg("-C").arg(room.path()), b"");
        python.arg(room.path());
    }
    assert!(succeed(&mut python, b"").ends_with("all well\n"));
}

#[test]
fn openssl_verifies_the_certificate_on_every_port_with_both_tls_versions() {
    if !installed(&["openssl"], "openssl s_client") {
        return;
    }
    let server = Server::start();
    let ports = [
        ("smtp", Some("smtp"), "250 "),
        ("submission", Some("smtp"), "250 "),
        ("submissions", None, "220 "),
        ("imap", Some("imap"), "OK"),
        ("imaps", None, "* OK"),
        ("pop3", Some("pop3"), "+OK"),
        ("pop3s", None, "+OK"),
    ];
    for (listener, starttls, greeting) in ports {
        for version in ["-tls1_2", "-tls1_3"] {
            let mut openssl = Command::new("openssl");
            openssl.args(["s_client", "-connect", server.listener(listener), version, "-CAfile", server.ca()]);
            openssl.args(["-verify_return_error", "-verify_hostname", "pillarbox.local", "-crlf", "-ign_eof"]);
            openssl.args(starttls.iter().flat_map(|protocol| ["-starttls", protocol]));
            // Understood by at least one of the three protocols, and ends the connection in it.
            let said = run(openssl.arg("-quiet"), b"QUIT\na LOGOUT\n");
            let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
            assert!(said.contains("verify return:1") && !said.contains("verify error"), "{listener} {version}: {said}");
            assert!(said.contains(greeting), "{listener} {version}: {said}");
        }
        let mut old = Command::new("openssl");
        old.args(["s_client", "-connect", server.listener(listener), "-tls1_1", "-CAfile", server.ca()]);
        fail(old.args(starttls.iter().flat_map(|protocol| ["-starttls", protocol])), b"");
    }
}
