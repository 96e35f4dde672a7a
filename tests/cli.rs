//! The command line: what a person sees who mistypes something.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics is a test that fails")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

fn pillarbox(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pillarbox")).args(arguments).output().unwrap()
}

/// What a failing command said, with its exit code.
fn complaint(arguments: &[&str]) -> (Option<i32>, String) {
    let output = pillarbox(arguments);
    assert!(output.stdout.is_empty(), "an error belongs on standard error: {output:?}");
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn config(folder: &Path, text: &str) -> String {
    let file = folder.join("pillarbox.toml");
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

/// A config that opens nothing but what `more` says.
fn quiet(folder: &Path, more: &str) -> String {
    let off = ["smtp", "submission", "submissions", "imaps", "pop3", "pop3s"].map(|name| format!("{name} = []\n"));
    let data = folder.join("data").display().to_string();
    config(
        folder,
        &format!("data = \"{data}\"\nallow-root = true\n[store]\nallow-ram = true\n[listen]\n{}{more}", off.concat()),
    )
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn the_version_is_printed() {
    let expected = format!("pillarbox {}\n", env!("CARGO_PKG_VERSION"));
    for arguments in [["version"], ["--version"]] {
        let output = pillarbox(&arguments);
        assert_eq!((output.status.code(), output.stdout), (Some(0), expected.clone().into_bytes()));
    }
}

#[test]
fn an_unknown_command_gets_a_suggestion_and_exit_code_2() {
    let (code, text) = complaint(&["serv"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("'serve'"), "{text}");
}

#[test]
fn the_sample_config_is_good() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/pillarbox.sample.toml");
    let output = pillarbox(&["check", "--file-only", "--config", sample]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("is good") && text.contains("*:993"), "{text}");
}

#[test]
fn a_misspelled_key_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let file = config(folder.path(), "[net]\nsesions-max = 3\n");
    for command in ["check", "serve"] {
        let (code, text) = complaint(&[command, "--config", &file]);
        let expected = format!(
            "pillarbox: {file} line 2: `sesions-max` is not a setting of [net]; did you mean `sessions-max`?\n"
        );
        assert_eq!((code, text), (Some(1), expected));
    }
}

#[test]
fn a_missing_config_is_named() {
    let (code, text) = complaint(&["check", "--config", "/nonexistent/pillarbox.toml"]);
    assert_eq!(code, Some(1));
    assert_eq!(text, "pillarbox: /nonexistent/pillarbox.toml: there is no such file\n");
}

#[test]
fn a_port_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let file = quiet(folder.path(), &format!("imap = [\"{address}\"]\n"));
    for command in ["check", "serve"] {
        let (code, text) = complaint(&[command, "--config", &file]);
        assert_eq!(code, Some(1));
        let start = format!("pillarbox: imap: port {} on 127.0.0.1 is in use by another program", address.port());
        assert!(text.starts_with(&start) && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn a_certificate_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken.pem");
    fs::write(&file, "nothing").unwrap();
    let file = file.display();
    let tls = format!("imap = []\n[tls]\ncertificate = \"{file}\"\nkey = \"{file}\"\n");
    let (code, text) = complaint(&["check", "--config", &quiet(folder.path(), &tls)]);
    assert_eq!(code, Some(1));
    assert!(text.starts_with(&format!("pillarbox: {file}: ")), "{text}");
}

#[test]
fn root_needs_a_user_to_become() {
    if !is_root() {
        println!("skipped: needs root to be refused");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (code, text) = complaint(&["check", "--config", &config(folder.path(), "data = \"/tmp/x\"\n")]);
    assert_eq!(code, Some(1));
    assert!(text.contains("started as root") && text.contains("allow-root"), "{text}");
    let (_, text) = complaint(&["check", "--config", &config(folder.path(), "user = \"no-such-user\"\n")]);
    assert!(text.contains("there is no user `no-such-user`"), "{text}");
}

#[test]
fn a_low_port_says_what_it_needs() {
    if is_root() || TcpListener::bind("127.0.0.1:143").is_ok() {
        println!("skipped: this user may open low ports");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (code, text) = complaint(&["check", "--config", &quiet(folder.path(), "imap = [\"127.0.0.1:143\"]\n")]);
    assert_eq!(code, Some(1));
    assert!(text.contains("port 143") && text.contains("CAP_NET_BIND_SERVICE"), "{text}");
}

#[test]
fn a_data_folder_in_memory_is_refused_before_anything_is_made() {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    if !mounts.lines().any(|line| line.contains(" /dev/shm ") && line.contains(" - tmpfs ")) {
        println!("skipped: /dev/shm is no tmpfs");
        return;
    }
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let data = folder.path().join("data");
    let text = format!("data = \"{}\"\nallow-root = true\n[listen]\nsmtp = []\n", data.display());
    let file = config(folder.path(), &text);
    for command in ["check", "serve"] {
        let (code, text) = complaint(&[command, "--config", &file]);
        assert_eq!(code, Some(1));
        let start = format!("pillarbox: the data folder {} is in memory (tmpfs on /dev/shm)", data.display());
        assert!(text.starts_with(&start) && text.contains("allow-ram") && text.lines().count() == 1, "{text}");
    }
    assert!(!data.exists());
}

#[test]
fn a_required_mount_that_is_missing_is_refused_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("usb");
    let file = quiet(folder.path(), "imap = []\n");
    let text = fs::read_to_string(&file).unwrap();
    let store = format!("[store]\nrequire-mount = \"{}\"\n", mount.display());
    fs::write(&file, text.replacen("[store]\n", &store, 1)).unwrap();
    for command in ["check", "serve"] {
        let (code, text) = complaint(&[command, "--config", &file]);
        assert_eq!(code, Some(1));
        let start = format!("pillarbox: `require-mount` in [store] names {}", mount.display());
        assert!(text.starts_with(&start) && text.lines().count() == 1, "{text}");
    }
    assert!(!folder.path().join("data").exists());
}
