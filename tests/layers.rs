//! Keeps the map of `src/lib.rs` true: who may name whom, and what is absent where.
//!
//! Reads the sources as text: every `crate::FOLDER` outside of comments and tests counts as naming
//! that folder.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each folder with those it may name, in reading order (DESIGN section 2).
const MAP: &[(&str, &[&str])] = &[
    ("mail", &[]),
    ("protocol", &["mail"]),
    ("store", &["mail"]),
    ("filter", &["mail"]),
    ("queue", &["mail"]),
    ("flow", &["mail", "protocol", "filter", "store", "queue"]),
    ("net", &["mail", "protocol"]),
    ("config", &["mail", "protocol", "filter", "store", "queue", "flow", "net", "daemon"]),
    ("daemon", &["mail", "protocol", "filter", "store", "queue", "flow", "net"]),
    ("cli", &["mail", "protocol", "filter", "store", "queue", "flow", "net", "daemon", "config"]),
];

/// Words with the folders they may stand in (DESIGN section 2, invariants of absence).
const KEPT_TO: &[(&str, &[&str])] = &[
    ("redb::", &["store"]),
    ("rustls::", &["net"]),
    ("hickory_resolver::", &["net"]),
    ("TcpStream", &["net", "daemon", "cli"]),
    ("TcpListener", &["net", "daemon", "cli"]),
    (".await", &["net", "daemon", "cli"]),
    ("Instant::now", &["store", "net", "daemon", "cli"]),
    ("SystemTime::now", &["store", "net", "daemon", "cli"]),
    ("SystemRandom", &["store", "net", "daemon", "cli"]),
    ("clap::", &["cli"]),
    ("indicatif::", &["cli"]),
];

struct Source {
    folder: String,
    path: PathBuf,
    code: String,
}

/// The source without comments and without what stands behind `#[cfg(test)]`.
fn code_of(text: &str) -> String {
    let product = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = product.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

fn gather(folder: &str, dir: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(folder, &path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let code = code_of(&fs::read_to_string(&path).unwrap());
            sources.push(Source { folder: folder.to_owned(), path, code });
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    for (folder, _) in MAP {
        gather(folder, &root.join(folder), &mut sources);
    }
    assert!(sources.len() > 30, "only {} sources found", sources.len());
    sources
}

/// The folders that `code` names after `crate::`, grouped imports included.
fn named_by(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut named = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        if let Some(group) = after.strip_prefix('{') {
            let mut depth = 0;
            for piece in group.split_inclusive(['{', '}', ',']) {
                if depth == 0 {
                    named.insert(word(piece.trim_start()));
                }
                depth += i32::from(piece.ends_with('{')) - i32::from(piece.ends_with('}'));
                if depth < 0 {
                    break;
                }
            }
            named.remove("");
        } else {
            named.insert(word(after));
        }
    }
    named
}

/// Tells whether `code` has `word` and not only longer words that begin with it.
fn holds(code: &str, word: &str) -> bool {
    let goes_on = |rest: &str| rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    code.match_indices(word).any(|(at, _)| word.ends_with(':') || !goes_on(&code[at + word.len()..]))
}

#[test]
fn every_folder_of_the_source_is_on_the_map() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let map = fs::read_to_string(root.join("lib.rs")).unwrap();
    for entry in fs::read_dir(&root).unwrap() {
        let entry = entry.unwrap();
        if entry.path().is_dir() {
            let name = entry.file_name().into_string().unwrap();
            assert!(MAP.iter().any(|(folder, _)| *folder == name), "{name}/ is not in the table of this test");
            assert!(map.contains(&format!("pub mod {name};")), "{name}/ is not in lib.rs");
        }
    }
}

#[test]
fn a_folder_names_only_those_it_may() {
    let folders: BTreeSet<&str> = MAP.iter().map(|(folder, _)| *folder).collect();
    let mut faults = Vec::new();
    for source in sources() {
        let (_, may) = MAP.iter().find(|(folder, _)| *folder == source.folder).unwrap();
        for name in named_by(&source.code) {
            if folders.contains(name.as_str()) && name != source.folder && !may.contains(&name.as_str()) {
                faults.push(format!("{} names {name}", source.path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn net_knows_sessions_and_steps_only() {
    for source in sources().iter().filter(|source| source.folder == "net") {
        for protocol in ["smtp", "imap", "pop3", "sasl", "line"] {
            let path = format!("protocol::{protocol}");
            assert!(!source.code.contains(&path), "{} names {path}", source.path.display());
        }
    }
}

#[test]
fn what_is_kept_to_a_folder_stands_nowhere_else() {
    let mut faults = Vec::new();
    for source in sources() {
        for (word, folders) in KEPT_TO {
            if holds(&source.code, word) && !folders.contains(&source.folder.as_str()) {
                faults.push(format!("{} has {word}", source.path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn the_reader_of_this_test_sees_grouped_imports() {
    let named = named_by("use crate::{mail::{address, date}, store::Store};\nuse crate::net;");
    assert_eq!(named.into_iter().collect::<Vec<_>>(), ["mail", "net", "store"]);
}
