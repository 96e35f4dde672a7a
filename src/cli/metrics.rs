//! The status in the text form of Prometheus, for the textfile collector of its node exporter.
//!
//! Names follow Prometheus's habits: base units, and `_total` for what only rises.

use std::fmt::Write as _;

use crate::daemon::control::Status;

/// One figure: name, kind, what it is, value.
type Figure = (&'static str, &'static str, &'static str, u64);

/// Spells the figures.
pub(super) fn spell(status: &Status) -> String {
    let (store, wear) = (&status.store, &status.store.wear);
    let mut figures: Vec<Figure> = vec![
        ("uptime_seconds", "gauge", "Time since the server started.", status.uptime_secs),
        ("sessions", "gauge", "Open connections.", status.sessions.into()),
        ("memory_bytes", "gauge", "Memory of the server (PSS).", status.memory_bytes),
        ("messages_total", "counter", "Messages delivered or appended since start.", store.messages),
        ("store_bytes", "gauge", "What index and journal take on the medium.", store.store_bytes),
        ("store_index_bytes", "gauge", "What the index takes on the medium.", store.index_bytes),
        ("store_index_free_bytes", "gauge", "What a compaction would give back, by estimate.", store.index_free_bytes),
        (
            "store_journal_written_bytes_total",
            "counter",
            "Bytes the store wrote to its journal since start.",
            store.journal_written,
        ),
        (
            "store_index_written_bytes_total",
            "counter",
            "Bytes the store wrote to its index since start.",
            store.index_written,
        ),
        ("store_syncs_total", "counter", "Syncs the store asked for since start.", store.syncs),
        ("store_checkpoints_total", "counter", "Checkpoints since start.", store.checkpoints),
        (
            "store_lifetime_written_bytes_total",
            "counter",
            "Bytes the store wrote since it was made.",
            wear.in_all.bytes(),
        ),
        ("store_lifetime_syncs_total", "counter", "Syncs the store asked for since it was made.", wear.in_all.syncs),
        (
            "store_lifetime_messages_total",
            "counter",
            "Messages delivered or appended since the store was made.",
            wear.in_all.messages,
        ),
        ("medium_free_bytes", "gauge", "What is left on the file system.", store.medium_free_bytes),
        ("medium_bytes", "gauge", "Size of the file system.", store.medium_bytes),
    ];
    if let Some(at) = store.last_checkpoint.and_then(|at| u64::try_from(at).ok()) {
        figures.push(("store_last_checkpoint_timestamp_seconds", "gauge", "When the last checkpoint was.", at));
    }
    if let Some(medium) = &wear.medium {
        figures.extend([
            (
                "partition_written_bytes_total",
                "counter",
                "Bytes all programs wrote to the partition since the store was opened.",
                medium.written,
            ),
            (
                "device_written_bytes_total",
                "counter",
                "Bytes all programs wrote to the device since the store was opened.",
                medium.device_written,
            ),
        ]);
    }
    if let Some(life) = &wear.life {
        figures.extend([
            (
                "card_life_days",
                "gauge",
                "Days the card lasts at the rate of the last days, by estimate; 36500 means longer.",
                life.days,
            ),
            ("card_written_bytes_per_day", "gauge", "The rate that estimate is made with.", life.bytes_per_day),
        ]);
    }
    let (queue, deliver) = (&status.queue, &status.deliver);
    figures.extend([
        ("queue_messages", "gauge", "Messages on their way out.", queue.messages),
        ("queue_recipients", "gauge", "Recipients something is due for.", queue.scheduled),
        ("outgoing_connections", "gauge", "Open connections to other servers.", deliver.connections.into()),
        ("outgoing_delivered_total", "counter", "Recipients whose next server took the message.", deliver.delivered),
        ("outgoing_deferred_total", "counter", "Attempts that ended in \"later\".", deliver.deferred),
        ("outgoing_refused_total", "counter", "Recipients that were refused.", deliver.refused),
        ("network_away", "gauge", "1 while the network seems to be away.", deliver.network_away_since.is_some().into()),
        ("port_blocked", "gauge", "1 while port 25 out seems blocked.", deliver.port_blocked_since.is_some().into()),
    ]);
    if let Some(at) = queue.oldest.and_then(|at| u64::try_from(at).ok()) {
        figures.push(("queue_oldest_timestamp_seconds", "gauge", "When the oldest of them came.", at));
    }
    let mut text = String::new();
    for (name, kind, what, value) in figures {
        // Writing to a string does not fail.
        let _ =
            write!(text, "# HELP pillarbox_{name} {what}\n# TYPE pillarbox_{name} {kind}\npillarbox_{name} {value}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Figures;
    use crate::store::wear::{CardLife, MediumFigures, WearFigures};

    #[test]
    fn every_figure_has_its_help_and_type() {
        let wear = WearFigures {
            medium: Some(MediumFigures { written: 7, ..MediumFigures::default() }),
            life: Some(CardLife { days: 12, ..CardLife::default() }),
            ..WearFigures::default()
        };
        let store = Figures { messages: 3, last_checkpoint: Some(9), wear, ..Figures::default() };
        let text = spell(&Status { store, ..Status::default() });
        assert!(text.contains("# TYPE pillarbox_messages_total counter\npillarbox_messages_total 3\n"), "{text}");
        assert!(text.contains("\npillarbox_partition_written_bytes_total 7\n"), "{text}");
        assert!(text.contains("\npillarbox_card_life_days 12\n"), "{text}");
        assert!(text.ends_with('\n'));
        let mut names = std::collections::BTreeSet::new();
        for part in text.lines().collect::<Vec<_>>().chunks(3) {
            let [help, kind, value] = part else { panic!("{part:?}") };
            let name = value.split(' ').next().unwrap();
            assert!(help.starts_with(&format!("# HELP {name} ")) && kind.starts_with(&format!("# TYPE {name} ")));
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), kind.ends_with(" counter"), "{name}");
            assert!(names.insert(name));
        }
        // What is not known is not told.
        assert!(!spell(&Status::default()).contains("card_life"));
    }
}
