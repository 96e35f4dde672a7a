//! The wear meter of a whole store.

use std::io;
use std::sync::atomic::{AtomicI64, AtomicU64};

use super::*;
use crate::store::disk::Disk;
use crate::store::medium::Medium;
use crate::store::site::Room;

const DAY: i64 = 86_400;

/// A site with a clock and a medium that a test sets.
#[derive(Debug)]
struct Told {
    site: MemorySite,
    now: AtomicI64,
    written: AtomicU64,
}

impl Site for Told {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        self.site.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        self.site.create(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.site.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.site.remove(name)
    }

    fn room(&self) -> io::Result<Room> {
        self.site.room()
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::Relaxed))
    }

    fn medium(&self) -> Option<Medium> {
        let written = self.written.load(Ordering::Relaxed);
        Some(Medium { name: "mmcblk0p2".to_owned(), written, device_written: written + 1, device_bytes: 32 << 30 })
    }

    fn path(&self) -> &Path {
        self.site.path()
    }
}

#[test]
fn days_are_kept_over_a_restart_and_cost_no_sync() {
    let folder = tempfile::tempdir().unwrap();
    let site = MemorySite::new(folder.path());
    let told = Arc::new(Told { site: site.clone(), now: (20_000 * DAY).into(), written: AtomicU64::new(1_000_000) });
    let store = Store::open_on(told.clone(), &config()).unwrap();
    let ann = store.add_account(address("ann@pillar.test"), verifier(), Quota::default()).wait().unwrap();
    let deliver =
        |store: &Store| store.deliver(letter(folder.path(), b"x"), vec![(ann, Folder::Inbox)]).wait().unwrap();
    // The index grows with the first, which is a sync as well.
    deliver(&store);
    let before = store.figures();
    deliver(&store);
    let after = store.figures();
    assert_eq!(after.syncs - before.syncs, 1);
    told.written.store(1_500_000, Ordering::Relaxed);
    told.now.store(20_001 * DAY, Ordering::Relaxed);
    deliver(&store);
    deliver(&store);
    let wear = store.figures().wear;
    let days = wear.days.iter().map(|day| (day.day, day.written.messages, day.written.device)).collect::<Vec<_>>();
    assert_eq!(days, [(20_000, 2, 500_000), (20_001, 2, 0)]);
    assert_eq!(wear.medium.unwrap().written, 500_000);
    store.close().unwrap();

    // The system was started again: its counts begin anew, and its clock is not set yet.
    told.written.store(4096, Ordering::Relaxed);
    told.now.store(100, Ordering::Relaxed);
    let store = Store::open_on(told.clone(), &config()).unwrap();
    deliver(&store);
    told.written.store(8192, Ordering::Relaxed);
    let figures = store.figures();
    let wear = figures.wear;
    let days = wear.days.iter().map(|day| (day.day, day.written.messages, day.written.device)).collect::<Vec<_>>();
    assert_eq!(days, [(20_000, 2, 500_000), (20_001, 2, 0), (0, 1, 4096)]);
    assert_eq!((wear.in_all.messages, wear.in_all.device, wear.since_start.messages), (5, 504_096, 1));
    assert_eq!(wear.since_start.bytes(), figures.journal_written + figures.index_written);
    assert!(wear.in_all.bytes() > wear.since_start.bytes());
    assert_eq!(wear.medium.unwrap().device_written, 4096);
    assert_eq!(wear.life, None, "it ran for less than a day");
}

#[test]
fn figures_that_are_damaged_begin_anew() {
    let rig = Rig::new();
    rig.account("ann");
    rig.store.close().unwrap();
    let index = open_index(&rig.site.disk(INDEX_FILE));
    let transaction = index.begin_write().unwrap();
    transaction.open_table(crate::store::table::STATE).unwrap().insert("wear", b"\x01nonsense".as_slice()).unwrap();
    transaction.commit().unwrap();
    index.close().unwrap();
    let rig = rig.killed();
    assert_eq!(rig.store.figures().wear.in_all.messages, 0);
    assert_eq!(rig.reader().accounts().unwrap().len(), 1);
}

#[test]
fn an_idle_store_writes_nothing() {
    let rig = Rig::with(StoreConfig { compact_idle_secs: 1, ..config() });
    let (ann, inbox) = rig.account("ann");
    rig.deliver(&noise(30_000, 1), &[ann]);
    rig.store.remove(inbox, uids(&[1])).wait().unwrap();
    rig.swept();
    let written = || rig.store.shared.written.iter().map(|disk| disk.writes.load(Ordering::Relaxed)).sum::<u64>();
    let (figures, writes) = (rig.store.figures(), written());
    std::thread::sleep(Duration::from_secs(3));
    let later = rig.store.figures();
    assert_eq!(
        (later.syncs, later.index_written, later.journal_written),
        (figures.syncs, figures.index_written, figures.journal_written)
    );
    assert_eq!(written(), writes);
}
