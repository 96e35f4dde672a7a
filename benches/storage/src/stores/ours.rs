//! This store, with its default settings.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use pillarbox::mail::address::Address;
use pillarbox::mail::date::{Timestamp, ZonedTime};
use pillarbox::mail::mailbox::{AccountId, MailboxId, Uid};
use pillarbox::mail::message::{FlagMode, FlagNames, SystemFlags, UidSet};
use pillarbox::mail::secret::{Password, ScramVerifier};
use pillarbox::mail::structure::Walker;
use pillarbox::store::{Figures, Folder, NewMessage, Quota, Route, Store, StoreConfig};

use super::{LOADERS, MailStore};
use crate::letter::{Letter, Source};

pub struct Ours {
    store: Store,
    account: AccountId,
    inbox: MailboxId,
}

impl Ours {
    pub fn open(folder: &Path) -> Self {
        Self::open_with(folder, &StoreConfig::default())
    }

    /// Opens it with a configuration of the caller's.
    pub fn open_with(folder: &Path, config: &StoreConfig) -> Self {
        let store = Store::open(folder, config).unwrap();
        let address = Address::parse("bob@example.org").unwrap();
        let account = match store.reader().unwrap().route(&address).unwrap() {
            Route::Local(accounts) => accounts[0],
            _ => {
                let password = Password::new("bench".to_owned()).unwrap();
                let verifier = ScramVerifier::derive(&password, [7; 16], 4096);
                store.add_account(address, verifier, Quota::default()).wait().unwrap()
            }
        };
        let mailboxes = store.reader().unwrap().mailboxes(account).unwrap();
        let inbox = mailboxes.iter().find(|mailbox| mailbox.name.is_inbox()).unwrap().id;
        Self { store, account, inbox }
    }
}

impl Ours {
    /// Reads the flags of every message, as SELECT and FETCH 1:* FLAGS do; gives how many there are.
    pub fn read_flags(&self) -> u32 {
        let reader = self.store.reader().unwrap();
        let rows = reader.messages(self.inbox, Uid::MIN, Uid::new(u32::MAX).unwrap()).unwrap();
        let seen = rows.fold([0, 0], |mut counts, row| {
            counts[usize::from(row.unwrap().flags.system.contains(SystemFlags::SEEN))] += 1;
            counts
        });
        seen.iter().sum()
    }

    /// Reads the body of one of the last messages that has at least so many bytes.
    pub fn read_body(&self, messages: u32, least: u32) {
        let reader = self.store.reader().unwrap();
        let uids = (1..=messages).rev().filter_map(Uid::new);
        let mut found = uids.filter_map(|uid| reader.message(self.inbox, uid).unwrap());
        let message = found.find(|message| message.size >= least).unwrap();
        let mut body = self.store.body(message.blob).unwrap();
        let mut read = 0;
        while let length @ 1.. = body.read(read, 64 << 10).unwrap().len() as u64 {
            read += length;
        }
        assert_eq!(read, body.len());
    }
}

impl MailStore for Ours {
    fn deliver(&self, letter: &Letter) -> u64 {
        let mut spool = self.store.spool().unwrap();
        let mut walker = Walker::new();
        letter.each(&mut |chunk| {
            spool.write(chunk).unwrap();
            walker.feed(chunk);
        });
        let body = spool.finish().unwrap();
        let stored = body.stored();
        let message = NewMessage {
            body,
            structure: walker.finish(),
            internal_date: ZonedTime::utc(Timestamp(1_767_225_600)),
            flags: FlagNames::default(),
        };
        self.store.deliver(message, vec![(self.account, Folder::Inbox)]).wait().unwrap();
        stored
    }

    fn fill(&self, source: &Source, count: u64) {
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..LOADERS {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            break;
                        }
                        self.deliver(&source.letter(number));
                    }
                });
            }
        });
    }

    fn flag(&self, number: u64) {
        let uid = Uid::new(u32::try_from(number).unwrap() + 1).unwrap();
        let uids = [uid].into_iter().collect::<UidSet>();
        let seen = FlagNames { system: SystemFlags::SEEN, keywords: Vec::new() };
        let flagged = self.store.flag(self.inbox, uids, FlagMode::Add, seen, None).wait().unwrap();
        assert_eq!(flagged.changed.count(), 1, "letter {number} was flagged already");
    }

    fn figures(&self) -> Option<Figures> {
        Some(self.store.figures())
    }

    fn close(self: Box<Self>) {
        self.store.close().unwrap();
    }
}
