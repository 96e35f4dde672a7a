//! What is left when the power goes: everything that was synced, and of what was in flight any part.
//!
//! Each unit of an unsynced write (the write, a page of 4 KiB, or a sector of 512 bytes) is kept,
//! lost, or garbled. A garbled sector is noise, and so may be others of the page around it, which
//! the page cache writes as one. As each version of a sector is kept or lost by itself, any of them
//! may be the last one standing, so writes need no shuffling to land in any order. Unsynced lengths
//! are lost as well. How much is kept changes from cut to cut, and in some cuts exactly the header
//! blocks come through, or exactly they don't: a commit record without its data and the reverse.

use super::dice::Dice;
use super::image::{Image, PAGE, SECTOR};
use super::medium::{Event, Files};

/// The index, whose first block has been redb's weak spot.
const INDEX_FILE: &str = "mail.redb";

/// The journal.
const JOURNAL_FILE: &str = "mail.journal";

/// Bytes at the front of either file that hold headers.
const HEADS: usize = 2 * PAGE;

/// What kind of card the files are on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Card {
    /// It may garble the first block of the index like any other.
    pub(crate) first_block: bool,
    /// It says that a sync of the journal is done and forgets it: no store can live with that, and
    /// a laboratory that finds nothing wrong then is broken.
    pub(crate) forgetful: bool,
}

/// Something happened to files, from a beginning that was durable.
#[derive(Debug)]
pub(crate) struct Log {
    start: std::sync::Arc<Files>,
    events: Vec<Event>,
    /// Where syncs returned.
    syncs: Vec<usize>,
    /// Those of anything but the journal.
    checkpoints: Vec<usize>,
}

/// An event without its contents: its kind, its file, and two figures.
pub(crate) type Shape = (u8, usize, usize, usize);

#[derive(Clone, Copy, Debug)]
enum Grain {
    Write,
    Page,
    Sector,
    /// Another for each write.
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heads {
    AsAny,
    Kept,
    Lost,
}

/// How the medium treats what is in flight at one cut.
#[derive(Clone, Debug)]
struct Fate {
    /// Percent of units kept.
    keep: usize,
    grain: Grain,
    /// Percent of lost sectors that are garbled.
    garbage: usize,
    /// Percent of pages with a garbled sector whose other sectors may be garbled too.
    spread: usize,
    heads: Heads,
}

impl Fate {
    fn throw(dice: &mut Dice) -> Self {
        let grain = *dice.pick(&[Grain::Write, Grain::Page, Grain::Sector, Grain::Any]);
        Self {
            keep: *dice.pick(&[0, 10, 50, 90, 100]),
            grain,
            garbage: *dice.pick(&[0, 0, 0, 5, 50, 100]),
            spread: *dice.pick(&[0, 0, 30]),
            heads: *dice.pick(&[Heads::AsAny, Heads::AsAny, Heads::AsAny, Heads::Kept, Heads::Lost]),
        }
    }
}

impl Log {
    pub(crate) fn new(start: std::sync::Arc<Files>, events: Vec<Event>) -> Self {
        let mut journals = start.names.get(JOURNAL_FILE).into_iter().copied().collect::<Vec<_>>();
        let (mut syncs, mut checkpoints) = (Vec::new(), Vec::new());
        for (at, event) in events.iter().enumerate() {
            match event {
                Event::Created { name, file } if name == JOURNAL_FILE => journals.push(*file),
                Event::Synced { file, .. } => {
                    syncs.push(at);
                    if !journals.contains(file) {
                        checkpoints.push(at);
                    }
                }
                _ => {}
            }
        }
        Self { start, events, syncs, checkpoints }
    }

    /// How many events.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// A fingerprint of what happened, contents left out: two recordings of one seed have the same.
    #[allow(dead_code, reason = "as `lab::shape`")]
    pub(crate) fn shape(&self) -> Vec<Shape> {
        let shape = |event: &Event| match event {
            Event::Created { file, .. } => (0, *file, 0, 0),
            Event::Renamed { .. } => (1, 0, 0, 0),
            Event::Removed { .. } => (2, 0, 0, 0),
            Event::Wrote { file, offset, bytes } => (3, *file, *offset, bytes.len()),
            Event::Length { file, len } => (4, *file, *len, 0),
            Event::Synced { file, .. } => (5, *file, 0, 0),
        };
        self.events.iter().map(shape).collect()
    }

    /// Chooses a moment for the cut: often just before a sync returns, often while a checkpoint is
    /// written, else any.
    pub(crate) fn choose(&self, dice: &mut Dice) -> usize {
        let any = dice.below(self.events.len() + 1);
        let throw = dice.below(100);
        if self.syncs.is_empty() || throw >= 70 {
            return any;
        }
        let checkpoint = !self.checkpoints.is_empty() && dice.percent(50);
        let chosen = dice.below(if checkpoint { self.checkpoints.len() } else { self.syncs.len() });
        let at = if checkpoint { self.checkpoints[chosen] } else { self.syncs[chosen] };
        match throw {
            // The sync is under way.
            0..40 => at,
            // What it shall make durable is being written.
            40..60 => {
                let before =
                    self.syncs[..self.syncs.partition_point(|sync| *sync < at)].last().map_or(0, |sync| sync + 1);
                before + dice.below(at - before + 1)
            }
            // It has just returned.
            _ => at + 1,
        }
    }

    /// The files as they are found after a cut at `position`.
    pub(crate) fn cut(&self, position: usize, card: Card, dice: &mut Dice) -> Files {
        let past = &self.events[..position];
        let mut files = self.names_at(past, dice);
        let mut in_flight: Vec<Vec<&Event>> = vec![Vec::new(); files.images.len()];
        let mut settled = vec![false; files.images.len()];
        let mut forgets = vec![false; files.images.len()];
        if let Some(journal) = files.names.get(JOURNAL_FILE).filter(|_| card.forgetful) {
            forgets[*journal] = dice.percent(50);
        }
        for event in past.iter().rev() {
            match event {
                Event::Synced { file, .. } if forgets[*file] => forgets[*file] = false,
                Event::Synced { file, image } if !settled[*file] => {
                    settled[*file] = true;
                    files.images[*file] = image.clone();
                }
                Event::Wrote { file, .. } | Event::Length { file, .. } if !settled[*file] => {
                    in_flight[*file].push(event);
                }
                _ => {}
            }
        }
        // Files are treated alike in half the cuts only.
        let same = dice.percent(50).then(|| Fate::throw(dice));
        for (file, image) in files.images.iter_mut().enumerate() {
            let fate = same.clone().unwrap_or_else(|| Fate::throw(dice));
            let spared = !card.first_block && files.names.get(INDEX_FILE) == Some(&file);
            for event in in_flight[file].iter().rev() {
                match event {
                    Event::Wrote { offset, bytes, .. } => land(image, *offset, bytes, &fate, spared, dice),
                    Event::Length { len, .. } if dice.percent(fate.keep) => image.set_len(*len),
                    _ => {}
                }
            }
        }
        files
    }

    /// The names after these events, and for each file what it held at the very beginning.
    fn names_at(&self, past: &[Event], dice: &mut Dice) -> Files {
        let mut files = Files::clone(&self.start);
        let mut removed = Vec::new();
        for event in past {
            match event {
                Event::Created { name, file } => {
                    removed.clear();
                    files.names.insert(name.clone(), *file);
                    files.images.resize_with(files.images.len().max(file + 1), Image::default);
                }
                Event::Renamed { from, to } => {
                    removed.clear();
                    let file = files.names.remove(from).expect("a renamed file");
                    files.names.insert(to.clone(), file);
                }
                Event::Removed { name } => removed.extend(files.names.remove(name).map(|file| (name.clone(), file))),
                _ => {}
            }
        }
        for (name, file) in removed {
            if dice.percent(50) {
                files.names.entry(name).or_insert(file);
            }
        }
        files
    }
}

/// Lets of a write come through what its fate allows.
fn land(image: &mut Image, offset: usize, bytes: &[u8], fate: &Fate, spared: bool, dice: &mut Dice) {
    let grain = match fate.grain {
        Grain::Any => *dice.pick(&[Grain::Write, Grain::Page, Grain::Sector]),
        other => other,
    };
    let unit = match grain {
        Grain::Write | Grain::Any => usize::MAX,
        Grain::Page => PAGE,
        Grain::Sector => SECTOR,
    };
    let mut at = offset;
    let end = offset + bytes.len();
    while at < end {
        let next = (at / unit).checked_add(1).and_then(|next| next.checked_mul(unit)).map_or(end, |next| next.min(end));
        let kept = match fate.heads {
            Heads::Kept if at < HEADS => true,
            Heads::Lost if at < HEADS => false,
            // The other way round for everything else, as far as the fate goes.
            _ => dice.percent(fate.keep),
        };
        if kept {
            image.write(at, &bytes[at - offset..next - offset]);
        } else if fate.garbage > 0 {
            garble(image, at, next, fate, spared, dice);
        }
        at = next;
    }
}

/// Turns sectors of what was lost into noise.
fn garble(image: &mut Image, from: usize, to: usize, fate: &Fate, spared: bool, dice: &mut Dice) {
    let spread = dice.percent(fate.spread);
    let unit = if spread { PAGE } else { SECTOR };
    let mut noise = [0; SECTOR];
    for sector in from / unit * unit / SECTOR..(to.next_multiple_of(unit) / SECTOR) {
        let at = sector * SECTOR;
        if at >= image.len() || spared && at < PAGE || !dice.percent(fate.garbage) {
            continue;
        }
        dice.fill(&mut noise);
        let length = SECTOR.min(image.len() - at);
        image.write(at, &noise[..length]);
    }
}
