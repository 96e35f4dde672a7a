//! `pillarbox account`, `alias`, `domain` and `share` as a person and a script use them, on a data folder whose
//! server does not run. (`tests/daemon.rs` gives the same orders to a running one.)

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed, and says where")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// Runs the program on a data folder, with something on its standard input.
fn run(data: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pillarbox"))
        .args(arguments)
        .args(["--data", data.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What a command that must succeed prints.
fn said(data: &Path, arguments: &[&str]) -> String {
    let output = run(data, arguments, "");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn told(data: &Path, arguments: &[&str]) -> Value {
    let text = said(data, &[arguments, &["--json"]].concat());
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The one sentence of a command that must fail.
fn complaint(data: &Path, arguments: &[&str], input: &str) -> String {
    let output = run(data, arguments, input);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{arguments:?}: {text}");
    text
}

#[test]
fn accounts_aliases_and_domains_are_kept_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let added = told(data, &["account", "add", "ann@x.test", "--quota-bytes", "2GiB"]);
    let password = added["password"].as_str().unwrap();
    assert_eq!((added["address"].as_str(), password.len()), (Some("ann@x.test"), 29));

    let output = run(data, &["account", "add", "bob@y.test", "--password-stdin", "--json"], "secret word\n");
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), json!({ "address": "bob@y.test" }));
    told(data, &["account", "quota", "bob@y.test", "--messages", "10"]);
    let accounts = told(data, &["account", "list"]);
    let used = json!({ "bytes": 0, "messages": 0 });
    assert_eq!(
        accounts,
        json!([
            { "address": "ann@x.test", "quota": { "bytes": 2_147_483_648_u64, "messages": null }, "used": used },
            { "address": "bob@y.test", "quota": { "bytes": null, "messages": 10 }, "used": used },
        ])
    );

    said(data, &["domain", "add", "z.test"]);
    said(data, &["alias", "add", "all@z.test", "ann@x.test", "bob@y.test"]);
    said(data, &["alias", "add", "*@x.test", "bob@y.test"]);
    let aliases = said(data, &["alias", "list"]);
    assert!(aliases.contains("all@z.test  ann@x.test, bob@y.test"), "{aliases}");
    assert_eq!(said(data, &["domain", "list"]), "x.test\ny.test\nz.test\n");

    assert_eq!(said(data, &["account", "remove", "ann@x.test", "--yes"]), "removed ann@x.test\n");
    said(data, &["alias", "remove", "all@z.test"]);
    said(data, &["domain", "remove", "z.test"]);
    assert_eq!(told(data, &["domain", "list"]), json!(["x.test", "y.test"]));
    assert!(said(data, &["account", "list"]).lines().nth(1).unwrap().starts_with("bob@y.test"));
}

#[test]
fn what_cannot_be_done_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    said(data, &["account", "add", "ann@x.test"]);
    for (arguments, input, wanted) in [
        (&["account", "add", "ann@x.test"][..], "", "ann@x.test exists already"),
        (&["account", "add", "ann"], "", "`ann`"),
        (&["account", "add", "bob@x.test", "--password-stdin"], "", "a password has 1 to 256 bytes"),
        (&["account", "remove", "bob@x.test", "--yes"], "", "there is no account bob@x.test"),
        (&["account", "remove", "ann@x.test"], "", "--yes"),
        (&["account", "password", "bob@x.test"], "", "there is no account bob@x.test"),
        (&["alias", "add", "all@x.test", "bob@x.test"], "", "there is no account bob@x.test"),
        (&["alias", "add", "all@y.test", "ann@x.test"], "", "all@y.test"),
        (&["alias", "remove", "all@x.test"], "", "there is no alias all@x.test"),
        (&["domain", "remove", "x.test"], "", "x.test"),
        (&["domain", "add", "-"], "", "`-`"),
    ] {
        let text = complaint(data, arguments, input);
        assert!(text.contains(wanted), "{arguments:?}: {text}");
    }
    let text = complaint(&data.join("nowhere"), &["account", "list"], "");
    assert!(text.contains("nowhere") && text.contains("--data"), "{text}");
}

#[test]
fn root_makes_no_store_that_its_owner_could_not_open() {
    let folder = tempfile::tempdir().unwrap();
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can give a folder away");
        return;
    }
    std::os::unix::fs::chown(folder.path(), Some(1000), Some(1000)).unwrap();
    let text = complaint(folder.path(), &["account", "add", "ann@x.test"], "");
    assert!(text.contains("sudo -u '#1000'"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn certificates_are_made_registered_and_revoked_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let data = data.as_path();
    told(data, &["account", "add", "ann@x.test"]);
    let file = folder.path().join("laptop.pem");
    let file = file.to_str().unwrap();
    let arguments = ["account", "certificate", "ann@x.test", "--name", "laptop", "--out", file];
    let made = told(data, &arguments);
    assert_eq!((made["address"].as_str(), made["file"].as_str()), (Some("ann@x.test"), Some(file)));
    // A file that is there is nobody's to overwrite.
    assert!(complaint(data, &arguments, "").contains("laptop.pem: "));
    let listed = told(data, &["account", "certificates", "ann@x.test"]);
    assert_eq!(
        (listed[0]["fingerprint"].as_str(), listed[0]["over"].as_bool()),
        (made["fingerprint"].as_str(), Some(false))
    );
    let add = ["account", "certificate", "ann@x.test", "--name", "again", "--add", file];
    assert!(complaint(data, &add, "").contains("registered already"));
    told(data, &["account", "revoke", "ann@x.test", "laptop"]);
    assert_eq!(told(data, &["account", "certificates"]), json!([]));
    assert_eq!(told(data, &add)["fingerprint"], made["fingerprint"]);
    let strange = ["account", "certificate", "cas@x.test", "--name", "x", "--out", "/nowhere/x.pem"];
    assert!(complaint(data, &strange, "").contains("/nowhere/x.pem"));
    for wrong in
        [&arguments[..5], &["account", "certificate", "ann@x.test", "--name", "x", "--out", "x", "--days", "0"]]
    {
        assert_eq!(run(data, wrong, "").status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn mailboxes_are_shared_without_a_server_and_without_a_mail_program() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    for address in ["ann@x.test", "bob@x.test"] {
        told(data, &["account", "add", address]);
    }
    let given = said(data, &["share", "give", "ann@x.test", "Archive", "bob@x.test", "write"]);
    assert!(given.contains("Other Users/ann@x.test/Archive"), "{given}");
    said(data, &["share", "give", "ann@x.test", "INBOX", "anyone", "lr"]);
    let listed = told(data, &["share", "list", "ann@x.test"]);
    let row = |mailbox, who, rights| json!({ "mailbox": mailbox, "who": who, "rights": rights });
    assert_eq!(listed, json!([row("INBOX", "anyone", "lr"), row("Archive", "bob@x.test", "lrswite")]));
    said(data, &["share", "take", "ann@x.test", "INBOX", "anyone"]);
    assert_eq!(told(data, &["share", "list", "ann@x.test"]), json!([row("Archive", "bob@x.test", "lrswite")]));
    for (arguments, wanted) in [
        (["share", "give", "ann@x.test", "Nowhere", "bob@x.test", "read"], "there is no mailbox Nowhere of ann@x.test"),
        (["share", "give", "ann@x.test", "Archive", "eve@x.test", "read"], "no account of this server"),
        (["share", "give", "ann@x.test", "Archive", "bob@x.test", "everything"], "lrswipkxtea"),
    ] {
        let said = complaint(data, &arguments, "");
        assert!(said.contains(wanted), "{said}");
    }
}
