//! What is known before anything was learnt: weights of features that mean the same in anyone's mail,
//! learnt of public corpora ([`Features::general`]), in a small file that ships with the binary.
//!
//! A seed is never changed. Its share of the score is whole until the box has learnt
//! [`WHOLE_UNTIL`] messages, and falls from then on as the box's own knowledge grows, so taking back
//! what was learnt stays exact. The file's form is in ARCHITECTURE.md; a file of another version, of
//! another length or with a wrong checksum is refused whole.

use super::features::Features;

/// What ships.
const SHIPPED: &[u8] = include_bytes!("seed.bin");

/// How a file begins; the fifth byte is the version of the form and of the features' hashes.
const MAGIC: &[u8; 8] = b"pbxs\x01\0\0\0";

/// Bytes before the packed weights.
const HEADER: usize = 32;

/// Bits of a hash that are kept: its upper ones.
const BITS: u32 = 24;

/// Most weights of a seed.
const WEIGHTS_MAX: usize = 100_000;

/// Longest file in bytes.
pub const FILE_MAX: usize = 512 << 10;

/// Bytes that one weight takes at most, unpacked: four of its place, one of itself.
const WEIGHT_MAX: usize = 5;

/// Messages that the box has learnt until which a seed counts in full.
const WHOLE_UNTIL: u32 = 100;

/// Where a seed's score is bent, in logits.
const BOUND: f32 = 4.0;

/// How much of it is said. It is learnt of other people's mail, and of all that can go wrong a wanted
/// message in Junk is the worst: so alone it reaches the usual line of 0.93 only where its own score is
/// above 3.0, and otherwise tips what the box has begun to suspect.
const SAID: f32 = 0.45;

/// Why a file is no seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeedError {
    /// It is none, or of a version that this program does not know.
    Form,
    /// It was cut or changed: its checksum is wrong.
    Damaged,
}

impl std::fmt::Display for SeedError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Form => "this is no seed for the spam filter that this version of Pillarbox can read",
            Self::Damaged => "the seed for the spam filter is damaged; copy it anew",
        })
    }
}

impl std::error::Error for SeedError {}

/// Weights of general features.
#[derive(Clone, Debug, PartialEq)]
pub struct Seed {
    /// Upper bits of hashes, ascending.
    places: Vec<u32>,
    /// A weight for each, in units of `unit`.
    weights: Vec<i8>,
    /// Logits of a weight of one.
    unit: f32,
    /// Added to each score: where the line between ham and spam lies.
    bias: f32,
}

impl Seed {
    /// Of weights by hash, in logits: the strongest 100,000 of them.
    #[must_use]
    pub fn of(mut weights: Vec<(u32, f32)>, bias: f32) -> Self {
        weights.sort_by(|(one_hash, one), (other_hash, other)| {
            other.abs().total_cmp(&one.abs()).then(one_hash.cmp(other_hash))
        });
        weights.truncate(WEIGHTS_MAX);
        let most = weights.first().map_or(1.0, |(_, weight)| weight.abs()).max(f32::MIN_POSITIVE);
        let unit = most / f32::from(i8::MAX);
        let mut kept: Vec<(u32, i8)> = weights
            .into_iter()
            .map(|(hash, weight)| {
                #[expect(clippy::cast_possible_truncation, reason = "at most 127 by the choice of the unit")]
                let units = (weight / unit).round() as i8;
                (hash >> (32 - BITS), units)
            })
            .filter(|(_, units)| *units != 0)
            .collect();
        // Of two at one place the stronger stays: it comes first, and the sort is stable.
        kept.sort_by_key(|(place, _)| *place);
        kept.dedup_by_key(|(place, _)| *place);
        let (places, weights) = kept.into_iter().unzip();
        Self { places, weights, unit, bias }
    }

    /// The one that ships with the binary; seed.md tells what it was made of. `None` would mean that it
    /// was made for another version.
    #[must_use]
    pub fn shipped() -> Option<Self> {
        Self::read(SHIPPED).ok()
    }

    /// How many weights it has.
    #[must_use]
    pub fn weights(&self) -> usize {
        self.weights.len()
    }

    /// The score in logits, as far as a box that has learnt so many messages still heeds it.
    #[must_use]
    pub fn score(&self, features: &Features, learnt: u32) -> f32 {
        let (sum, scale) = self.sum(features);
        SAID * BOUND * ((sum * scale + self.bias) / BOUND).tanh() * trust(learnt)
    }

    /// What each feature adds to the score; the line between ham and spam is no feature's.
    pub fn shares<'s>(&'s self, features: &'s Features, learnt: u32) -> impl Iterator<Item = (u32, f32)> + 's {
        let (_, scale) = self.sum(features);
        let scale = SAID * scale * trust(learnt);
        features.hashes().iter().map(move |&hash| (hash, self.weight(hash).map_or(0.0, |weight| weight * scale)))
    }

    /// The sum of the weights, and what it is multiplied by.
    fn sum(&self, features: &Features) -> (f32, f32) {
        let weights = features.hashes().iter().filter_map(|&hash| self.weight(hash));
        let (sum, count) = weights.fold((0.0, 0.0_f32), |(sum, count), weight| (sum + weight, count + 1.0));
        (sum, count.max(1.0).sqrt().recip())
    }

    fn weight(&self, hash: u32) -> Option<f32> {
        let found = self.places.binary_search(&(hash >> (32 - BITS))).ok()?;
        self.weights.get(found).map(|&weight| f32::from(weight) * self.unit)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it is no seed of this version, or damaged.
    pub fn read(file: &[u8]) -> Result<Self, SeedError> {
        let (header, packed) = file.split_first_chunk::<HEADER>().ok_or(SeedError::Form)?;
        if file.len() > FILE_MAX || !header.starts_with(MAGIC) {
            return Err(SeedError::Form);
        }
        let field = |at: usize| header.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
        let number = |at: usize| u32::from_le_bytes(field(at)) as usize;
        let (count, length) = (number(8), number(20));
        if packed.len() != length || number(28) != checksum(header, packed) as usize {
            return Err(SeedError::Damaged);
        }
        let (unit, bias) = (f32::from_le_bytes(field(12)), f32::from_le_bytes(field(16)));
        if count > WEIGHTS_MAX || !unit.is_finite() || !bias.is_finite() {
            return Err(SeedError::Form);
        }
        let plain = zstd::bulk::decompress(packed, count * WEIGHT_MAX).map_err(|_| SeedError::Damaged)?;
        let (steps, weights) = plain.split_at_checked(plain.len().saturating_sub(count)).ok_or(SeedError::Form)?;
        let places = places(steps).filter(|places| places.len() == count).ok_or(SeedError::Form)?;
        let weights = weights.iter().map(|byte| byte.cast_signed()).collect();
        Ok(Self { places, weights, unit, bias })
    }

    /// Spells the file.
    ///
    /// # Errors
    /// When it can't be packed.
    pub fn write(&self) -> std::io::Result<Vec<u8>> {
        let mut plain = Vec::with_capacity(self.places.len() * 3);
        let mut before = 0;
        for place in &self.places {
            let step = place - before;
            before = *place;
            for shift in [0, 7, 14, 21] {
                let [byte, ..] = (step >> shift).to_le_bytes();
                let more = step >> shift >> 7 != 0;
                plain.push(byte & 0x7F | if more { 0x80 } else { 0 });
                if !more {
                    break;
                }
            }
        }
        plain.extend(self.weights.iter().map(|weight| weight.cast_unsigned()));
        let packed = zstd::bulk::compress(&plain, 19)?;
        let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
        let mut file = MAGIC.to_vec();
        file.extend(length(self.places.len()));
        file.extend(self.unit.to_le_bytes());
        file.extend(self.bias.to_le_bytes());
        file.extend(length(packed.len()));
        file.extend([0; 4]);
        let sum = crc32c::crc32c_append(crc32c::crc32c(&file), &packed);
        file.extend(sum.to_le_bytes());
        file.extend(packed);
        Ok(file)
    }
}

/// Of all but itself.
fn checksum(header: &[u8; HEADER], packed: &[u8]) -> u32 {
    let (before, _) = header.split_at(HEADER - 4);
    crc32c::crc32c_append(crc32c::crc32c(before), packed)
}

/// Reads places from the steps between them: ascending, none twice.
fn places(steps: &[u8]) -> Option<Vec<u32>> {
    let (mut places, mut place, mut step, mut shift) = (Vec::new(), 0_u32, 0_u32, 0);
    for byte in steps {
        step |= u32::from(byte & 0x7F).checked_shl(shift).filter(|_| shift < 28)?;
        if byte & 0x80 == 0 {
            if step == 0 && !places.is_empty() {
                return None;
            }
            place = place.checked_add(step)?;
            places.push(place);
            (step, shift) = (0, 0);
        } else {
            shift += 7;
        }
    }
    (shift == 0).then_some(places)
}

/// How much of a seed counts for a box that has learnt so many messages.
#[expect(clippy::cast_precision_loss, reason = "far below where it matters")]
fn trust(learnt: u32) -> f32 {
    WHOLE_UNTIL as f32 / learnt.max(WHOLE_UNTIL) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seed() -> Seed {
        let hashes = |text: &str| Features::general(format!("Subject: {text}\r\n\r\n{text}\r\n").as_bytes());
        let (spam, ham) = (hashes("cheap watches"), hashes("minutes of the meeting"));
        let weights = spam.hashes().iter().map(|&hash| (hash, 1.0));
        Seed::of(weights.chain(ham.hashes().iter().map(|&hash| (hash, -0.5))).collect(), -0.25)
    }

    #[test]
    fn the_first_message_of_a_new_box_is_judged() {
        let spam = Features::of(b"Subject: watches\r\n\r\ncheap cheap watches\r\n");
        let seed = seed();
        assert!(seed.score(&spam, 0) > 1.0);
        assert!((seed.score(&spam, 100) - seed.score(&spam, 0)).abs() < f32::EPSILON);
        assert!(seed.score(&spam, 1000) < seed.score(&spam, 0) / 5.0);
        let ham = Features::of(b"Subject: meeting\r\n\r\nminutes of the meeting\r\n");
        assert!(seed.score(&ham, 0) < seed.score(&spam, 0));
    }

    #[test]
    fn a_file_is_read_as_it_was_written_and_a_changed_one_is_refused() {
        let seed = seed();
        let file = seed.write().unwrap();
        assert_eq!(Seed::read(&file), Ok(seed));
        for place in 0..file.len() {
            let mut changed = file.clone();
            changed[place] ^= 0x10;
            assert!(Seed::read(&changed).is_err(), "byte {place}");
            assert!(Seed::read(&file[..place]).is_err(), "{place} bytes");
        }
        assert_eq!(Seed::read(b""), Err(SeedError::Form));
    }

    #[test]
    fn the_shipped_seed_tells_a_plain_advertisement_from_a_letter() {
        let seed = Seed::shipped().unwrap();
        let spam = Features::of(
            concat!(
                "Received: from x (dsl-1-2.isp.example [192.0.2.1]) by mx.example; x\r\nFrom: x99 <x99@a.example>\r\n",
                "To: you@b.example\r\nSubject: Lowest price on viagra and cialis!!!\r\nContent-Type: text/html\r\n\r\n",
                "<html><body><b>Order now</b> viagra and cialis without prescription, 80% off, click here ",
                "<a href=\"http://pills.example\">buy now</a></body></html>\r\n"
            )
            .as_bytes(),
        );
        let ham = Features::of(
            concat!(
                "From: Ann <ann@b.example>\r\nTo: Bob <bob@b.example>\r\nDate: x\r\nMessage-ID: <1@b.example>\r\n",
                "In-Reply-To: <2@b.example>\r\nSubject: Re: the build\r\nContent-Type: text/plain\r\n\r\n",
                "On Monday Bob wrote:\r\n> I think the patch does not compile here.\r\n\r\n",
                "It works for me, if you use the new version. What error do you see?\r\n\r\nAnn\r\n"
            )
            .as_bytes(),
        );
        assert!(
            seed.score(&spam, 0) > 0.0 && seed.score(&ham, 0) < -1.0,
            "{} {}",
            seed.score(&spam, 0),
            seed.score(&ham, 0)
        );
    }

    #[test]
    fn weights_at_one_place_are_one() {
        let seed = Seed::of(vec![(0x1234_5600, 0.5), (0x1234_5601, -2.0), (0x9999_0000, 1.0)], 0.0);
        assert_eq!((seed.weights(), seed.weights.clone()), (2, vec![-127, 64]));
    }

    proptest! {
        #[test]
        fn any_weights_come_back(weights in proptest::collection::vec((any::<u32>(), -3.0_f32..3.0), 0..200), bias in -1.0_f32..1.0) {
            let seed = Seed::of(weights, bias);
            prop_assert_eq!(Seed::read(&seed.write().unwrap()), Ok(seed));
        }

        #[test]
        fn no_file_breaks_it(count in any::<u32>(), packed in proptest::collection::vec(any::<u8>(), 0..100), pack in any::<bool>()) {
            let packed = if pack { zstd::bulk::compress(&packed, 1).unwrap() } else { packed };
            let mut file = MAGIC.to_vec();
            file.extend((count % 200).to_le_bytes());
            file.extend([0; 8]);
            file.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
            file.extend([0; 4]);
            file.extend(crc32c::crc32c_append(crc32c::crc32c(&file), &packed).to_le_bytes());
            file.extend(packed);
            if let Ok(seed) = Seed::read(&file) {
                prop_assert!(seed.places.is_sorted_by(|one, other| one < other));
            }
        }
    }
}
