//! The messages: the same bytes for every store, made as they are asked for.
//!
//! A letter is handed over in chunks of at most 64 KiB, as a socket would, so that only a store
//! that needs a message whole pays for having it whole.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

/// Most bytes of a chunk.
const CHUNK: usize = 64 << 10;

/// Words of the vocabulary.
const WORDS: usize = 4096;

/// What the bodies are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Bodies {
    /// Half words of an invented language (frequencies as in Zipf's law), half base64 of noise.
    Text,
    /// Bytes that nothing can compress.
    Noise,
    /// The files of a folder.
    Real,
}

/// Where letters come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Letters of these sizes in turn.
    Made(Bodies, Sizes),
    /// These files in turn.
    Files(Arc<[PathBuf]>),
}

/// How large letters are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// 4 KiB each.
    Small,
    /// 2, 20, 200 and 2,000 KiB, of a hundred 60, 30, 9 and 1.
    Mixed,
}

/// One message.
#[derive(Clone, Debug)]
pub enum Letter {
    Made { number: u64, size: usize, bodies: Bodies },
    File(PathBuf),
}

impl Source {
    /// Letter `number` of the run; the same in every run.
    pub fn letter(&self, number: u64) -> Letter {
        match self {
            Self::Made(bodies, sizes) => Letter::Made { number, size: sizes.of(number), bodies: *bodies },
            Self::Files(paths) => Letter::File(paths[usize::try_from(number).unwrap() % paths.len()].clone()),
        }
    }
}

impl Sizes {
    fn of(self, number: u64) -> usize {
        if self == Self::Small {
            return 4 << 10;
        }
        // 37 has no common factor with 100: each hundred numbers has each place once.
        let kib = match number * 37 % 100 {
            0 => 2000,
            1..10 => 200,
            10..40 => 20,
            _ => 2,
        };
        kib << 10
    }
}

/// Every file below `folder` in the order of the names, but a corpus' index.
pub fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.file_name() != "index" && entry.metadata()?.len() > 0 {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

impl Letter {
    /// Hands the letter over in chunks.
    pub fn each(&self, take: &mut dyn FnMut(&[u8])) {
        match self {
            Self::Made { number, size, bodies } => made(*number, *size, *bodies, take),
            Self::File(path) => {
                let mut file = File::open(path).unwrap();
                let mut chunk = vec![0; CHUNK];
                loop {
                    match file.read(&mut chunk).unwrap() {
                        0 => break,
                        length => take(&chunk[..length]),
                    }
                }
            }
        }
    }

    /// The whole letter.
    pub fn whole(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.size());
        self.each(&mut |chunk| bytes.extend_from_slice(chunk));
        bytes
    }

    /// Its bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Made { size, .. } => *size,
            Self::File(path) => usize::try_from(path.metadata().unwrap().len()).unwrap(),
        }
    }
}

/// splitmix64: good enough that no compressor finds anything in it.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

static VOCABULARY: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut chance = Chance(1);
    let syllables = ["an", "er", "to", "in", "re", "st", "al", "or", "ve", "mi", "sha", "lo", "ck", "de", "un", "ty"];
    (0..WORDS)
        .map(|rank| (0..1 + (rank + 1).ilog2() as usize / 4 + chance.below(2)).map(|_| syllables[chance.below(16)]).collect())
        .collect()
});

/// Gathers bytes into chunks, and stops at the letter's size.
struct Out<'t> {
    chunk: Vec<u8>,
    left: usize,
    take: &'t mut dyn FnMut(&[u8]),
}

impl Out<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(self.left)];
        self.left -= bytes.len();
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK - 4096 || self.left == 0 {
            (self.take)(&self.chunk);
            self.chunk.clear();
        }
    }
}

fn made(number: u64, size: usize, bodies: Bodies, take: &mut dyn FnMut(&[u8])) {
    let mut out = Out { chunk: Vec::with_capacity(CHUNK.min(size)), left: size, take };
    let mut chance = Chance(number.wrapping_mul(0xD134_2543_DE82_EF95));
    let kind = if bodies == Bodies::Text { "multipart/mixed; boundary=cut" } else { "application/octet-stream" };
    out.put(
        format!(
            "Received: from relay.example.net (relay.example.net [192.0.2.{}])\r\n\tby mx.example.org with ESMTPS id {:x}\r\n\
             From: \"Ann Example\" <ann{}@example.org>\r\nTo: <bob@example.org>\r\nSubject: {} {} {number}\r\n\
             Message-ID: <{number}.{:x}@example.org>\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n\
             MIME-Version: 1.0\r\nContent-Type: {kind}\r\n\r\n",
            number % 250,
            chance.next(),
            number % 91,
            VOCABULARY[chance.below(WORDS)],
            VOCABULARY[chance.below(WORDS)],
            chance.next(),
        )
        .as_bytes(),
    );
    if bodies == Bodies::Text {
        out.put(b"--cut\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n");
        words(&mut chance, &mut out, size / 2);
        out.put(b"\r\n--cut\r\nContent-Type: image/jpeg\r\nContent-Transfer-Encoding: base64\r\n\r\n");
        base64(&mut chance, &mut out);
    } else {
        while out.left > 0 {
            let bytes: [u8; 8] = chance.next().to_le_bytes();
            out.put(&bytes);
        }
    }
}

fn words(chance: &mut Chance, out: &mut Out<'_>, until: usize) {
    let mut column = 0;
    while out.left > until {
        // Spread evenly over the logarithm of the rank: the word of rank r comes as 1 / r.
        let share = (chance.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let rank = ((WORDS as f64).powf(share) as usize).min(WORDS) - 1;
        let word = &VOCABULARY[rank];
        column += word.len() + 1;
        out.put(word.as_bytes());
        if column > 68 {
            out.put(b",\r\n");
            column = 0;
        } else {
            out.put(b" ");
        }
    }
}

fn base64(chance: &mut Chance, out: &mut Out<'_>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    while out.left > 0 {
        let mut line = [0; 78];
        let mut bits = 0;
        for (index, digit) in line[..76].iter_mut().enumerate() {
            if index % 10 == 0 {
                bits = chance.next();
            }
            *digit = DIGITS[usize::try_from(bits & 63).unwrap()];
            bits >>= 6;
        }
        line[76..].copy_from_slice(b"\r\n");
        out.put(&line);
    }
}
