//! Matches one object against one set, in one pass: digests and patterns together.
//!
//! A bit map over hashes of four bytes, letters in lower case, says at each place whether an anchor may
//! begin there, and a second one over eight bytes says it again; few places are left, and of those the
//! grams say which segment to compare. Only then is a segment read from the set and compared. What was
//! found of signatures with several parts is kept until the end of the object, and no longer.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use md5::Digest as _;

use super::set::record::{GRAM_BYTES, Gram, SegmentRecord, gram_hash};
use super::set::{Set, short_bit};
use super::signature::logical::Terms;
use super::signature::{DigestKind, HashRole};
use super::unpack::pe::Pe;
use super::{ReadAt, Stretch, Target};

mod regex;
pub mod verify;

/// Bytes read at one time.
const WINDOW: usize = 64 * 1024;

/// Bytes of an anchor behind its first, at most.
const AHEAD: usize = super::signature::body::ANCHOR_MAX - 1;

/// Segment records kept decoded.
const CACHE_MAX: usize = 256;

/// Most parts of signatures that are remembered of one object.
const STATES_MAX: usize = 16 * 1024;

/// Comparisons between two looks at the clock.
const WATCH_EVERY: u32 = 512;

/// What is known of an object before it is examined.
#[derive(Clone, Copy, Debug, Default)]
pub struct Facts<'f> {
    /// What it is.
    pub target: Target,
    /// The kind of container it was in, as ClamAV spells it.
    pub container: &'f str,
    /// If it is a Windows program, what is known of it.
    pub pe: Option<&'f Pe>,
    /// A print of it is wanted: its MD5 and its SHA-256, whatever the set asks for.
    pub print: bool,
}

/// What an object is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examined {
    /// The name of the signature that was found.
    pub found: Option<String>,
    /// It is on the list of files that are fine.
    pub allowed: bool,
    /// It was not examined to its end: the time was over, or it has too much that looks like something.
    pub cut: bool,
    /// Its digests, if it was examined to its end: those that the set asks for, and those for a print.
    pub digests: Vec<(DigestKind, Vec<u8>)>,
}

/// Matches objects against a set.
#[derive(Debug)]
pub struct Examiner<'s> {
    set: &'s Set,
    cache: HashMap<u32, Option<Rc<SegmentRecord>>>,
    expressions: regex::Expressions,
}

/// The digests of something.
struct Digests {
    md5: Option<md5::Md5>,
    sha1: Option<ring::digest::Context>,
    sha256: Option<ring::digest::Context>,
}

impl Digests {
    fn new(set: &Set, print: bool) -> Self {
        let wants = |kind| set.wants(kind) || print && kind != DigestKind::Sha1;
        Self {
            md5: wants(DigestKind::Md5).then(md5::Md5::new),
            sha1: wants(DigestKind::Sha1).then(|| ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY)),
            sha256: wants(DigestKind::Sha256).then(|| ring::digest::Context::new(&ring::digest::SHA256)),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        for context in [&mut self.sha1, &mut self.sha256].into_iter().flatten() {
            context.update(bytes);
        }
    }

    fn finish(self) -> Vec<(DigestKind, Vec<u8>)> {
        let md5 = self.md5.map(|md5| (DigestKind::Md5, md5.finalize().to_vec()));
        let sha1 = self.sha1.map(|context| (DigestKind::Sha1, context.finish().as_ref().to_vec()));
        let sha256 = self.sha256.map(|context| (DigestKind::Sha256, context.finish().as_ref().to_vec()));
        [md5, sha1, sha256].into_iter().flatten().collect()
    }
}

/// What was found so far of signatures with several parts.
#[derive(Default)]
struct States {
    /// Earliest ends of the segments found, by signature and body.
    ends: HashMap<(u32, u16), Vec<u64>>,
    /// How often each subsignature was found, by signature.
    counts: HashMap<u32, HashMap<u16, u32>>,
}

/// One object, as it is examined.
struct Sight<'o> {
    object: &'o dyn ReadAt,
    facts: Facts<'o>,
    states: States,
    found: Option<String>,
    cut: bool,
    compared: u32,
    goes_on: &'o mut dyn FnMut() -> bool,
}

impl<'s> Examiner<'s> {
    /// Examines with this set.
    pub fn new(set: &'s Set) -> Self {
        Self { set, cache: HashMap::new(), expressions: regex::Expressions::default() }
    }

    /// Examines an object; `goes_on` is asked now and then whether there is time left.
    ///
    /// # Errors
    /// Those of the object's medium and of the set's.
    pub fn examine(
        &mut self,
        object: &dyn ReadAt,
        facts: Facts<'_>,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> io::Result<Examined> {
        let mut digests = Digests::new(self.set, facts.print);
        let mut sight =
            Sight { object, facts, states: States::default(), found: None, cut: false, compared: 0, goes_on };
        let mut buffer = Vec::with_capacity(WINDOW + AHEAD);
        let mut start = 0;
        loop {
            let kept = buffer.len();
            buffer.resize(kept + WINDOW, 0);
            let read = object.read_at(start + kept as u64, buffer.get_mut(kept..).unwrap_or_default())?;
            buffer.truncate(kept + read);
            digests.update(buffer.get(kept..).unwrap_or_default());
            let end = start + buffer.len() as u64 >= object.size() || read == 0;
            if sight.found.is_none() && !sight.cut {
                let upto = if end { buffer.len() } else { buffer.len().saturating_sub(AHEAD) };
                self.search(&mut sight, &buffer, upto, start)?;
            }
            sight.cut |= !(sight.goes_on)();
            if end || sight.cut {
                break;
            }
            let gone = buffer.len().saturating_sub(AHEAD);
            buffer.drain(..gone);
            start += gone as u64;
        }
        if sight.found.is_none() {
            self.weigh(&mut sight)?;
        }
        let mut examined = Examined { found: sight.found, cut: sight.cut, ..Examined::default() };
        if !examined.cut {
            let digests = digests.finish();
            self.name_digests(object, facts, &digests, &mut examined, goes_on)?;
            examined.digests = digests;
        }
        Ok(examined)
    }

    fn name_digests(
        &self,
        object: &dyn ReadAt,
        facts: Facts<'_>,
        digests: &[(DigestKind, Vec<u8>)],
        examined: &mut Examined,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> io::Result<()> {
        for (kind, digest) in digests {
            examined.allowed |= self.set.look_up(HashRole::Allow, *kind, digest, object.size())?.is_some();
            if examined.found.is_none()
                && let Some(name) = self.set.look_up(HashRole::File, *kind, digest, object.size())?
                && !self.set.ignores(&name)?
            {
                examined.found = Some(name);
            }
        }
        if let Some(pe) = facts.pe.filter(|_| examined.found.is_none()) {
            (examined.found, examined.cut) = self.name_sections(object, pe, goes_on)?;
        }
        Ok(())
    }

    /// Looks for the digests of a Windows program's sections and imports.
    /// They may overlap, so there may be more to read than the file has.
    fn name_sections(
        &self,
        object: &dyn ReadAt,
        pe: &Pe,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> io::Result<(Option<String>, bool)> {
        for section in &pe.sections {
            let (mut digests, stretch) =
                (Digests::new(self.set, false), Stretch::new(object, section.offset, section.size));
            let mut buffer = vec![0; WINDOW];
            let mut at = 0;
            loop {
                let read = stretch.read_at(at, &mut buffer)?;
                digests.update(buffer.get(..read).unwrap_or_default());
                at += read as u64;
                if read == 0 {
                    break;
                }
                if !goes_on() {
                    return Ok((None, true));
                }
            }
            for (kind, digest) in digests.finish() {
                if let Some(name) = self.set.look_up(HashRole::Section, kind, &digest, section.size)?
                    && !self.set.ignores(&name)?
                {
                    return Ok((Some(name), false));
                }
            }
        }
        let Some(imports) = pe.imports(object)? else { return Ok((None, false)) };
        let mut digests = Digests::new(self.set, false);
        digests.update(imports.as_bytes());
        for (kind, digest) in digests.finish() {
            if let Some(name) = self.set.look_up(HashRole::Import, kind, &digest, imports.len() as u64)?
                && !self.set.ignores(&name)?
            {
                return Ok((Some(name), false));
            }
        }
        Ok((None, false))
    }

    /// Looks for anchors that begin in the first `upto` bytes of a window; the window is at `base`.
    fn search(&mut self, sight: &mut Sight<'_>, window: &[u8], upto: usize, base: u64) -> io::Result<()> {
        let set = self.set;
        if !set.map.is_empty() {
            let shift = 32 - (set.map.len() * 8).ilog2().min(32);
            let mut gram = 0_u32;
            for (last, &byte) in window.iter().enumerate() {
                gram = gram >> 8 | u32::from(byte.to_ascii_lowercase()) << 24;
                let hash = gram_hash(gram);
                let bit = hash >> shift;
                let there = set.map.get((bit >> 3) as usize).is_some_and(|byte| byte >> (bit & 7) & 1 == 1);
                if there && last >= 3 && last - 3 < upto && set.may_follow(hash, four(window, last + 1)) {
                    self.compare(sight, window, last - 3, 4, base, (hash, &set.grams(hash)?))?;
                }
            }
        }
        if !set.short_map.is_empty() {
            for (at, pair) in window.windows(2).enumerate().take(upto) {
                let &[first, second] = pair else { continue };
                let gram = u32::from(first.to_ascii_lowercase()) | u32::from(second.to_ascii_lowercase()) << 8;
                let hash = gram_hash(gram);
                let bit = short_bit(hash);
                if set.short_map.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1) {
                    self.compare(sight, window, at, 2, base, (hash, set.shorts(hash)))?;
                }
            }
        }
        Ok(())
    }

    /// Compares the segments of grams with what is at `at` of the window.
    fn compare(
        &mut self,
        sight: &mut Sight<'_>,
        window: &[u8],
        at: usize,
        length: usize,
        base: u64,
        (hash, grams): (u32, &[u8]),
    ) -> io::Result<()> {
        let behind = window.get(at + length..).unwrap_or_default();
        let wanted = hash.to_be_bytes();
        let grams = grams.chunks_exact(GRAM_BYTES).filter(|gram| gram.starts_with(&wanted));
        for gram in grams.filter_map(Gram::from_bytes) {
            let mut next = behind.iter().take(4).map(u8::to_ascii_lowercase);
            let follows = (0..gram.next_length)
                .all(|place| next.next().is_some_and(|byte| u32::from(byte) == gram.next >> (8 * place) & 0xFF));
            if !follows || sight.found.is_some() || sight.cut {
                continue;
            }
            sight.compared += 1;
            if sight.compared.is_multiple_of(WATCH_EVERY) && !(sight.goes_on)() {
                sight.cut = true;
                return Ok(());
            }
            let Some(record) = self.record(gram.place)? else { continue };
            if record.target == Target::Any || record.target == sight.facts.target {
                self.compare_segment(sight, &record, window, at, base)?;
            }
        }
        Ok(())
    }

    fn record(&mut self, place: u32) -> io::Result<Option<Rc<SegmentRecord>>> {
        if let Some(record) = self.cache.get(&place) {
            return Ok(record.clone());
        }
        if self.cache.len() >= CACHE_MAX {
            self.cache.clear();
        }
        let record = self.set.segment(place)?.map(Rc::new);
        self.cache.insert(place, record.clone());
        Ok(record)
    }

    fn compare_segment(
        &mut self,
        sight: &mut Sight<'_>,
        record: &SegmentRecord,
        window: &[u8],
        at: usize,
        base: u64,
    ) -> io::Result<()> {
        // One byte more on both sides for the ends of words.
        let (before, behind) = record.segment.around(record.anchor);
        let (before, behind) = (before + 1, behind + 1);
        let place = base + at as u64;
        let from = place.saturating_sub(before as u64);
        let upto = (place + behind as u64).min(sight.object.size());
        let within = at
            .checked_sub(usize::try_from(place - from).unwrap_or(0))
            .and_then(|first| window.get(first..first + usize::try_from(upto - from).unwrap_or(usize::MAX)));
        let read;
        let around = if let Some(within) = within {
            within
        } else {
            read = super::read_vec(sight.object, from, usize::try_from(upto - from).unwrap_or(0))?;
            &read
        };
        let at = usize::try_from(place - from).unwrap_or(0);
        let Some(mut fits) = verify::fits(&record.segment, record.anchor, record.fold, around, at) else {
            return Ok(());
        };
        let states = &mut sight.states;
        let key = (record.signature, record.body);
        if record.index == 0 {
            let (size, pe) = (sight.object.size(), sight.facts.pe);
            fits.starts.retain(|&start| {
                record.place.holds(from + start as u64, size, pe)
                    && !(record.word && is_word(around, start.checked_sub(1)))
            });
        } else {
            let index = usize::from(record.index);
            let Some(before) = states.ends.get(&key).and_then(|ends| ends.get(index - 1)) else { return Ok(()) };
            let least = before.saturating_add(record.segment.after.into());
            fits.starts.retain(|&start| from + start as u64 >= least);
        }
        if record.last && record.word {
            fits.ends.retain(|&end| !is_word(around, Some(end)));
        }
        let (false, Some(end)) = (fits.starts.is_empty(), fits.ends.iter().min()) else { return Ok(()) };
        let end = from + *end as u64;
        if !record.last {
            if states.ends.len() >= STATES_MAX && !states.ends.contains_key(&key) {
                sight.cut = true;
                return Ok(());
            }
            let ends = states.ends.entry(key).or_default();
            match ends.get_mut(usize::from(record.index)) {
                Some(earliest) => *earliest = end.min(*earliest),
                None => ends.push(end),
            }
            return Ok(());
        }
        if record.simple {
            return self.take(sight, record.signature, None);
        }
        if states.counts.len() >= STATES_MAX && !states.counts.contains_key(&record.signature) {
            sight.cut = true;
            return Ok(());
        }
        let count = states.counts.entry(record.signature).or_default().entry(record.sub).or_default();
        *count = count.saturating_add(1);
        Ok(())
    }

    /// Takes a signature as found if what must be true of the file and of its patterns is.
    fn take(&mut self, sight: &mut Sight<'_>, signature: u32, counts: Option<HashMap<u16, u32>>) -> io::Result<()> {
        let Some(record) = self.set.pattern(signature)? else { return Ok(()) };
        if !terms_hold(&record.terms, sight.object.size(), sight.facts) {
            return Ok(());
        }
        let mut counts = counts;
        for regex in &record.regexes {
            let Some(counts) = &mut counts else { break };
            if regex.trigger.holds(&|sub| counts.get(&sub).copied().unwrap_or(0)) {
                let found = self.expressions.count(signature, regex, sight.object, sight.facts.pe, sight.goes_on)?;
                let Some(found) = found else {
                    sight.cut = true;
                    return Ok(());
                };
                counts.insert(regex.sub, found);
            }
        }
        let count = |sub: u16| counts.as_ref().map_or(1, |counts| counts.get(&sub).copied().unwrap_or(0));
        if record.expression.holds(&count) && !self.set.ignores(&record.name)? {
            sight.found = Some(record.name);
        }
        Ok(())
    }

    /// Looks at the end whether signatures with several parts are there.
    fn weigh(&mut self, sight: &mut Sight<'_>) -> io::Result<()> {
        let mut counts: Vec<_> = std::mem::take(&mut sight.states.counts).into_iter().collect();
        counts.sort_unstable_by_key(|(signature, _)| *signature);
        for (signature, counts) in counts {
            self.take(sight, signature, Some(counts))?;
            if sight.found.is_some() {
                break;
            }
        }
        Ok(())
    }
}

/// The four bytes at a place, letters in lower case, the first lowest.
fn four(window: &[u8], at: usize) -> Option<u32> {
    let bytes = window.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(bytes.map(|byte| byte.to_ascii_lowercase())))
}

fn is_word(window: &[u8], at: Option<usize>) -> bool {
    at.and_then(|at| window.get(at)).is_some_and(u8::is_ascii_alphanumeric)
}

fn terms_hold(terms: &Terms, size: u64, facts: Facts<'_>) -> bool {
    let within = |range: Option<(u64, u64)>, value: Option<u64>| match (range, value) {
        (None, _) => true,
        (Some((least, most)), Some(value)) => (least..=most).contains(&value),
        (Some(_), None) => false,
    };
    (terms.target == Target::Any || terms.target == facts.target)
        && within(terms.size, Some(size))
        && within(terms.entry, facts.pe.and_then(|pe| pe.entry))
        && within(terms.sections, facts.pe.map(|pe| pe.sections.len() as u64))
        && terms.container.as_ref().is_none_or(|container| container == facts.container)
}
