//! A Maildir: the file synced in `tmp`, renamed into `new`, that folder synced. A flag is a rename
//! within `cur`. An index, as servers keep beside their Maildirs, is not counted.

use std::fs::{File, create_dir_all, rename};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::MailStore;
use crate::letter::{Letter, Source};

pub struct Maildir {
    folder: PathBuf,
    run: u32,
    next: AtomicU64,
}

impl Maildir {
    pub fn open(folder: &Path) -> Self {
        for name in ["tmp", "new", "cur"] {
            create_dir_all(folder.join(name)).unwrap();
        }
        Self { folder: folder.to_owned(), run: std::process::id(), next: AtomicU64::new(0) }
    }

    fn write(&self, name: &str, letter: &Letter) -> File {
        let mut file = File::create_new(self.folder.join("tmp").join(name)).unwrap();
        letter.each(&mut |chunk| file.write_all(chunk).unwrap());
        file
    }

    fn sync(&self, folder: &str) {
        File::open(self.folder.join(folder)).unwrap().sync_all().unwrap();
    }
}

impl MailStore for Maildir {
    fn deliver(&self, letter: &Letter) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("1767225600.M{number}P{}.bench.example.org", self.run);
        self.write(&name, letter).sync_all().unwrap();
        rename(self.folder.join("tmp").join(&name), self.folder.join("new").join(&name)).unwrap();
        self.sync("new");
        letter.size() as u64
    }

    fn fill(&self, source: &Source, count: u64) {
        for number in 0..count {
            let name = format!("1767225600.F{number}.bench.example.org");
            drop(self.write(&name, &source.letter(number)));
            rename(self.folder.join("tmp").join(&name), self.folder.join("cur").join(format!("{name}:2,"))).unwrap();
        }
    }

    fn flag(&self, number: u64) {
        let name = format!("1767225600.F{number}.bench.example.org:2,");
        let folder = self.folder.join("cur");
        rename(folder.join(&name), folder.join(format!("{name}S"))).unwrap();
        self.sync("cur");
    }

    fn close(self: Box<Self>) {}
}
