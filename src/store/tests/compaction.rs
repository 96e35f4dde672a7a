//! Compaction: what is left, what is gained, what a cut or a failing disk leaves.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::failure::{Dice, Fuse, fused};
use super::*;
use crate::store::disk::{Disk, Fate};
use crate::store::site::Room;
use crate::store::table::BLOB;

/// Bytes of redb's pages that are in use, by its own count.
fn in_use(site: &MemorySite) -> u64 {
    let index = open_index(&site.disk(INDEX_FILE).fork());
    let transaction = index.begin_write().unwrap();
    let stats = transaction.stats().unwrap();
    transaction.abort().unwrap();
    stats.allocated_pages() * stats.page_size() as u64
}

fn compact(store: &Store, force: bool) -> Compaction {
    let ended = store.compaction().ended;
    assert_eq!(store.compact(force).wait(), Ok(CompactStart::Begun));
    ended_after(store, ended)
}

fn ended_after(store: &Store, ended: u64) -> Compaction {
    let until = Instant::now() + Duration::from_mins(1);
    loop {
        let state = store.compaction();
        if state.ended > ended && !state.running {
            return state;
        }
        assert!(Instant::now() < until, "{state:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Mail of many sizes, of which most is removed again. Tells which is left.
fn half_empty(rig: &Rig, ann: AccountId, inbox: MailboxId, count: u32) -> Vec<u32> {
    for number in 0..count {
        let size = [900, 4_000, 20_000, 70_000][number as usize % 4];
        rig.deliver(&noise(size, number.into()), &[ann]);
    }
    let gone = (1..=count).filter(|number| number % 5 != 0).collect::<Vec<_>>();
    rig.store.remove(inbox, uids(&gone)).wait().unwrap();
    rig.swept();
    (1..=count).filter(|number| number % 5 == 0).collect()
}

fn has(rig: &Rig, inbox: MailboxId, left: &[u32]) {
    assert_eq!(rig.reader().uids(inbox).unwrap(), uids(left));
    for number in left {
        let size = [900, 4_000, 20_000, 70_000][(number - 1) as usize % 4];
        assert!(rig.body(inbox, *number) == noise(size, u64::from(number - 1)), "message {number}");
    }
    check(&rig.store);
}

#[test]
fn an_index_loses_its_holes_and_nothing_else() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let left = half_empty(&rig, ann, inbox, 200);
    rig.store.flag(inbox, uids(&[5]), FlagMode::Add, names(SystemFlags::SEEN, &["k"]), None).wait().unwrap();
    let (facts, index) = (rig.facts(inbox), rig.store.figures().index_bytes);
    let reader = rig.reader();
    let rows = reader.messages(inbox, Uid::MIN, Uid::MAX).unwrap();

    let done = compact(&rig.store, false);
    let last = done.last.unwrap();
    assert_eq!(done.failure, None);
    assert_eq!((last.before, last.after), (index, rig.store.figures().index_bytes));
    assert!(last.after < last.before / 3, "{last:?}");
    assert_eq!(format!("{:?}", rig.facts(inbox)), format!("{facts:?}"));
    assert_eq!(rig.flags(inbox, 5), ["Seen", "k"]);
    has(&rig, inbox, &left);
    // Who read before reads on, in the index of then.
    assert_eq!(rows.map(Result::unwrap).count(), left.len());
    assert_eq!(reader.uids(inbox).unwrap(), uids(&left));
    drop(reader);

    let told = rig.store.compact(false).wait().unwrap();
    assert!(matches!(told, CompactStart::Needless { bytes, gain } if gain <= bytes / 3), "{told:?}");
    let uid = rig.deliver(b"after", &[ann])[0].1;
    assert_eq!(uid, self::uid(201));
    rig.store.close().unwrap();
    let rig = rig.killed();
    assert_eq!(rig.body(inbox, 201), b"after");
    assert_eq!(rig.store.figures().wear.compacted.map(|last| last.after), Some(last.after));
}

#[test]
fn what_is_in_use_is_reckoned_as_redb_counts_it() {
    for size in [300, 1_500, 4_000, 9_000, 30_000, 100_000] {
        let rig = Rig::new();
        let (ann, _) = rig.account("ann");
        for number in 0..(4_000_000 / (size + 500)).min(1500) {
            rig.deliver(&noise(size, number as u64), &[ann]);
        }
        let before = rig.store.figures().index_written;
        compact(&rig.store, true);
        let written = rig.store.figures().index_written - before;
        rig.store.close().unwrap();
        let (reckoned, used) = (rig.store.compaction().last.unwrap().reckoned, in_use(&rig.site));
        let (percent, cost) = (reckoned * 100 / used, written * 100 / used);
        println!("{size}: {reckoned} of {used}: {percent} %, written {cost} %");
        assert!(cost < 160, "{cost} % written");
        assert!((90..125).contains(&percent), "bodies of {size}: {percent} % of {used}");
    }
}

#[test]
fn removed_mail_gives_its_pages_to_new_mail() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let mut sizes = Vec::new();
    for round in 0..6_u32 {
        for number in 0..40_u32 {
            rig.deliver(&noise(30_000, (round * 40 + number).into()), &[ann]);
        }
        rig.store.remove(inbox, span(1, 1000)).wait().unwrap();
        rig.swept();
        sizes.push(rig.store.figures().index_bytes);
    }
    assert!(sizes[5] <= sizes[1], "{sizes:?}");
}

#[test]
fn a_body_for_many_is_kept_once() {
    let rig = Rig::new();
    let accounts = ["ann", "bob", "cas", "dan"].map(|name| rig.account(name).0);
    let body = noise(1_500_000, 1);
    rig.deliver(&body, &accounts);
    compact(&rig.store, true);
    assert_eq!(rig.reader().table(BLOB).unwrap().iter().unwrap().count(), 1);
    rig.store.close().unwrap();
    let used = in_use(&rig.site);
    assert!((1_500_000..1_700_000).contains(&used), "{used}");
}

#[test]
fn mail_that_comes_meanwhile_is_in_the_new_index() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    let left = half_empty(&rig, ann, inbox, 300);
    assert_eq!(rig.store.compact(true).wait(), Ok(CompactStart::Begun));
    let mut kept = Vec::new();
    for number in 0..30_u64 {
        let body = noise(500, 5000 + number);
        kept.push((rig.deliver(&body, &[ann])[0].1, body));
        rig.store.flag(inbox, uids(&left), FlagMode::Add, names(SystemFlags::FLAGGED, &[]), None).wait().unwrap();
    }
    rig.store.remove(inbox, uids(&left[1..3])).wait().unwrap();
    let name = mailbox_name("New");
    rig.store.create_mailbox(ann, name.clone(), None).wait().unwrap();
    let done = ended_after(&rig.store, 0);
    assert_eq!(done.failure, None);
    let facts = rig.facts(inbox);
    for rig in [rig.killed(), rig] {
        assert!(kept.iter().all(|(uid, body)| rig.body(inbox, uid.get()) == *body));
        assert_eq!(rig.facts(inbox).messages as usize, left.len() - 2 + kept.len());
        assert_eq!(rig.facts(inbox).highest_modseq, facts.highest_modseq);
        assert!(rig.reader().mailbox_named(ann, &name).unwrap().is_some());
        rig.swept();
        check(&rig.store);
    }
}

#[test]
fn a_large_body_makes_a_copy_void_and_it_is_made_again() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    half_empty(&rig, ann, inbox, 300);
    assert_eq!(rig.store.compact(true).wait(), Ok(CompactStart::Begun));
    let body = noise(600_000, 77);
    let uid = rig.deliver(&body, &[ann])[0].1;
    let done = ended_after(&rig.store, 0);
    assert_eq!(done.failure, None);
    assert!(rig.body(inbox, uid.get()) == body);
    check(&rig.store);
    assert!(rig.killed().body(inbox, uid.get()) == body);
}

#[test]
fn a_power_cut_at_any_write_of_a_compaction_leaves_the_store_whole() {
    let base = Rig::new();
    let (ann, inbox) = base.account("ann");
    let left = half_empty(&base, ann, inbox, 60);
    base.store.close().unwrap();
    let mut dice = Dice(9);
    let (mut done, mut cuts) = (0, 0);
    for writes in (0_i64..).take_while(|writes| *writes < 1000) {
        let site = base.site.each(&mut MemoryDisk::fork);
        let fuse = Fuse::new(i64::MAX);
        let store = Store::open_on(fused(&site, &fuse), &config()).unwrap();
        fuse.left.store(writes, Ordering::Relaxed);
        let wanted = store.compact(true).wait();
        let mut late = None;
        if wanted == Ok(CompactStart::Begun) {
            // Mail in the middle of it.
            let to = vec![(ann, Folder::Inbox)];
            late = store.deliver(letter(base.folder.path(), b"late"), to).wait().ok();
            let state = ended_after(&store, 0);
            done = if state.failure.is_none() { done + 1 } else { 0 };
        }
        let _ = store.close();
        drop(store);
        let kept = dice.roll(5);
        let mut fate = || match dice.roll(4) {
            roll if roll < kept => Fate::Kept,
            3 => Fate::Garbage,
            _ => Fate::Lost,
        };
        let found = site.each(&mut |disk| disk.crash(&mut fate));
        let rig = Rig::start(found, tempfile::tempdir().unwrap(), config());
        rig.swept();
        assert!(rig.site.open(NEW_FILE).unwrap().is_none());
        let there = rig.reader().uids(inbox).unwrap();
        assert!(late.is_none() || there.contains(uid(61)), "late mail lost after {writes} writes");
        rig.store.remove(inbox, uids(&[61])).wait().unwrap();
        has(&rig, inbox, &left);
        cuts += 1;
        // A few more after the first that went through.
        if done > 3 {
            println!("{cuts} cuts");
            assert!(cuts > 30, "{cuts}");
            return;
        }
    }
    panic!("no compaction came to its end");
}

/// A site that can be short of room, and whose renames may be done and fail all the same; then no
/// name can be made durable until that is over.
#[derive(Debug)]
struct Odd {
    site: MemorySite,
    free: AtomicU64,
    slips: AtomicBool,
    slipped: AtomicBool,
}

impl Odd {
    fn new(site: MemorySite) -> Arc<Self> {
        Arc::new(Self { site, free: (u64::MAX / 2).into(), slips: false.into(), slipped: false.into() })
    }

    fn settle(&self) -> io::Result<()> {
        let slipped = self.slipped.load(Ordering::Relaxed);
        if slipped { Err(io::Error::other("the folder can't be synced")) } else { Ok(()) }
    }
}

impl Site for Odd {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        self.site.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        self.settle()?;
        self.site.create(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.site.rename(from, to)?;
        self.slipped.store(self.slips.load(Ordering::Relaxed), Ordering::Relaxed);
        self.settle()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.site.remove(name)
    }

    fn room(&self) -> io::Result<Room> {
        Ok(Room { free: self.free.load(Ordering::Relaxed), total: 0 })
    }

    fn now(&self) -> Timestamp {
        self.site.now()
    }

    fn path(&self) -> &Path {
        self.site.path()
    }
}

#[test]
fn without_room_for_the_copy_it_says_how_much_is_missing() {
    let base = Rig::new();
    let (ann, inbox) = base.account("ann");
    let left = half_empty(&base, ann, inbox, 100);
    base.store.close().unwrap();
    let site = Odd::new(base.site.each(&mut MemoryDisk::fork));
    let store = Store::open_on(site.clone(), &StoreConfig { reserve_bytes: 1 << 20, ..config() }).unwrap();
    site.free.store(1 << 20, Ordering::Relaxed);
    let told = store.compact(false).wait();
    assert!(matches!(told, Ok(CompactStart::NoRoom { missing }) if missing > 300_000), "{told:?}");
    assert!(site.site.open(NEW_FILE).unwrap().is_none());
    site.free.store(100 << 20, Ordering::Relaxed);
    assert_eq!(compact(&store, false).failure, None);
    assert_eq!(store.reader().unwrap().uids(inbox).unwrap(), uids(&left));
}

#[test]
fn a_rename_that_nobody_knows_of_is_settled_before_anything_is_written() {
    let base = Rig::new();
    let (ann, inbox) = base.account("ann");
    let left = half_empty(&base, ann, inbox, 60);
    base.store.close().unwrap();
    let site = Odd::new(base.site.each(&mut MemoryDisk::fork));
    let store = Store::open_on(site.clone(), &config()).unwrap();
    let deliver = || store.deliver(letter(base.folder.path(), b"late"), vec![(ann, Folder::Inbox)]).wait();
    site.slips.store(true, Ordering::Relaxed);
    let state = compact(&store, true);
    assert!(state.failure.unwrap().contains("can't be synced"));
    assert!(matches!(deliver(), Err(WriteError::Storage(_))));
    site.slipped.store(false, Ordering::Relaxed);
    let until = Instant::now() + Duration::from_secs(10);
    let uid = loop {
        match deliver() {
            Ok(placed) => break placed[0].1,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    // What it writes now goes into the file that has the name.
    let found = site.site.each(&mut MemoryDisk::fork);
    let rig = Rig::start(found, tempfile::tempdir().unwrap(), config());
    assert_eq!(rig.body(inbox, uid.get()), b"late");
    rig.store.remove(inbox, [uid].into_iter().collect()).wait().unwrap();
    has(&rig, inbox, &left);
}

#[test]
fn an_idle_store_compacts_itself_when_a_third_is_free() {
    let rig = Rig::with(StoreConfig { compact_idle_secs: 1, journal_bytes: 4 << 20, ..config() });
    let (ann, inbox) = rig.account("ann");
    for number in 0..8_u64 {
        rig.deliver(&noise(4 << 20, number), &[ann]);
    }
    rig.store.remove(inbox, span(1, 7)).wait().unwrap();
    rig.swept();
    let done = ended_after(&rig.store, 0);
    assert_eq!(done.failure, None);
    let last = done.last.unwrap();
    assert!(last.before > 30 << 20 && last.after < 6 << 20, "{last:?}");
    assert!(rig.body(inbox, 8) == noise(4 << 20, 7));
    // Once is enough.
    let written = rig.store.figures().index_written;
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!((rig.store.compaction().ended, rig.store.figures().index_written), (1, written));
}

#[test]
fn a_file_shrinks_and_belongs_to_its_process_throughout() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let store = Store::open(&data, &config()).unwrap();
    let ann = store.add_account(address("ann@pillar.test"), verifier(), Quota::default()).wait().unwrap();
    let inbox = store.reader().unwrap().mailbox_named(ann, &mailbox_name("INBOX")).unwrap().unwrap().id;
    for number in 0..40_u64 {
        let letter = letter(folder.path(), &noise(100_000, number));
        store.deliver(letter, vec![(ann, Folder::Inbox)]).wait().unwrap();
    }
    store.remove(inbox, span(2, 40)).wait().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let others = {
        let (over, data) = (over.clone(), data.clone());
        std::thread::spawn(move || {
            let mut tries = 0;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(Store::open(&data, &config()).err(), Some(OpenError::InUse(data.clone())));
                tries += 1;
            }
            tries
        })
    };
    let length = || std::fs::metadata(data.join(INDEX_FILE)).unwrap().len();
    let before = length();
    for _ in 0..5 {
        assert_eq!(compact(&store, true).failure, None);
    }
    over.store(true, Ordering::Relaxed);
    assert!(others.join().unwrap() > 5);
    assert!(length() < 1 << 20 && before > 4 << 20, "{before} to {}", length());
    let blob = store.reader().unwrap().message(inbox, uid(1)).unwrap().unwrap().blob;
    assert!(read_body(&store, blob) == noise(100_000, 0));
    // The old file is gone, not only its name.
    let open = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    let gone = format!("{} (deleted)", data.join(INDEX_FILE).display());
    assert_eq!(open.filter(|target| target.to_string_lossy() == gone).count(), 0);
    store.close().unwrap();
    std::fs::write(data.join(NEW_FILE), b"left over").unwrap();
    let store = Store::open(&data, &config()).unwrap();
    assert!(!data.join(NEW_FILE).exists());
    store.close().unwrap();
}

#[test]
fn what_goes_past_the_journal_is_never_lost_to_a_copy() {
    let rig = Rig::new();
    let (ann, inbox) = rig.account("ann");
    half_empty(&rig, ann, inbox, 300);
    assert_eq!(rig.store.compact(true).wait(), Ok(CompactStart::Begun));
    rig.store.save_learned(None, vec![(3, b"words".to_vec())]).wait().unwrap();
    let uid = rig.deliver(b"new", &[ann])[0].1;
    rig.store.claim_recent(inbox).wait().unwrap();
    assert!(rig.store.compaction().running);
    assert_eq!(ended_after(&rig.store, 0).failure, None);
    assert_eq!(rig.reader().learned(None, 3).unwrap().as_deref(), Some(&b"words"[..]));
    assert_eq!(rig.body(inbox, uid.get()), b"new");
}
