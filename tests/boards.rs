//! The boards: one source, and what is made of it agrees.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pillarbox::config::board::Board;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn table(file: &str) -> toml::Table {
    toml::from_str(&fs::read_to_string(root().join(file)).unwrap()).unwrap()
}

fn pillarbox(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pillarbox")).args(arguments).output().unwrap()
}

/// What developers build and run.
const USUAL: &str = "x86_64-unknown-linux-gnu";

#[test]
fn the_targets_of_board_cross_toml_and_deny_toml_are_the_same() {
    let cross: BTreeSet<String> = table("cross.toml")["target"].as_table().unwrap().keys().cloned().collect();
    let boards: BTreeSet<String> = Board::all().into_iter().map(|board| board.target).collect();
    assert_eq!(cross, boards);
    let deny = table("deny.toml");
    let denied: BTreeSet<&str> =
        deny["graph"]["targets"].as_array().unwrap().iter().map(|target| target.as_str().unwrap()).collect();
    assert_eq!(denied, boards.iter().map(String::as_str).chain([USUAL]).collect());
}

#[test]
fn an_image_is_for_the_architecture_its_binary_is_built_for() {
    let mut images = 0;
    for board in Board::all() {
        let Some(image) = &board.image else { continue };
        images += 1;
        let arch = image["arch"].as_str().unwrap();
        let cpu = board.target.split('-').next().unwrap();
        let right = matches!((arch, cpu), ("arm64", "aarch64") | ("armhf", "armv7") | ("armel", "arm"));
        assert!(right, "{}: a kernel for {arch}, a binary for {cpu}", board.name);
        let modules: Vec<&str> =
            image["modules"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        for needed in ["ext4", "crc32c_generic", "squashfs", "vfat"] {
            assert!(modules.contains(&needed), "{}: the image has no module {needed}", board.name);
        }
        // Room for two systems beside what boots them, in a card of which the rest is the mail's.
        let mib = |key: &str| image[key].as_integer().unwrap();
        assert!(4 + mib("boot-mib") + 2 * mib("slot-mib") + mib("data-mib") <= 200, "{}", board.name);
    }
    assert!(images >= 1);
}

#[test]
fn a_board_that_was_named_is_shown_with_its_arithmetic() {
    let shown = pillarbox(&["board", "--board", "pi-zero"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.starts_with("pi-zero: Raspberry Pi Zero"), "{text}");
    assert!(text.contains("100 sessions of 108 KiB\n") && text.ends_with("of a budget of 64 MiB\n"), "{text}");
    let json = pillarbox(&["board", "--board", "pi-zero", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["target"], "arm-unknown-linux-musleabihf");
    let parts = value["memory"]["parts"].as_array().unwrap();
    let sum: u64 = parts.iter().map(|part| part["kib"].as_u64().unwrap()).sum();
    assert_eq!(value["sum_kib"].as_u64().unwrap(), sum);
}

#[test]
fn a_board_that_is_none_is_refused_with_the_names() {
    let shown = pillarbox(&["board", "--board", "pi"]);
    assert!(!shown.status.success());
    let text = String::from_utf8(shown.stderr).unwrap();
    assert!(text.contains("there is no board `pi`; there are pi-zero, "), "{text}");
}

#[test]
fn check_refuses_what_does_not_fit_the_board_and_shows_the_sum() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("pillarbox.toml");
    fs::write(&config, "[net]\nsessions-max = 600\n").unwrap();
    let config = config.to_str().unwrap();
    let refused = pillarbox(&["check", "--file-only", "--config", config, "--board", "pi-zero-2w"]);
    assert!(!refused.status.success());
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("63.3 MiB (600 sessions of 108 KiB)") && text.contains("board pi-zero-2w"), "{text}");
    let good = pillarbox(&["check", "--file-only", "--config", config, "--board", "pi-4"]);
    assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    assert!(String::from_utf8(good.stdout).unwrap().contains("pi-4: at most "));
}
