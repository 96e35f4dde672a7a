//! Messages: every part, decoded, as the part walker finds them.
//!
//! Where a message can be read in two ways, both are: a part that says it is not coded and is full of
//! base64, and what stands before, between and behind the parts, is looked through for coded lines.

use super::kind::Kind;
use super::{Item, Limit, PIECE, Sheet, Step, Stop, Unpacker};
use crate::mail::structure::{Extent, PARTS_MAX, Part, TransferEncoding, Walker};
use crate::mail::text::{TransferDecoder, decode_words};

/// A leaf of a message.
struct Leaf {
    extent: Extent,
    encoding: TransferEncoding,
    name: String,
}

impl Unpacker<'_> {
    pub(super) fn message(&mut self, item: Item<'_>) -> Step {
        let leaves = self.leaves(item)?;
        let known: Vec<Extent> = leaves
            .iter()
            .filter(|leaf| matches!(leaf.encoding, TransferEncoding::Base64))
            .map(|leaf| leaf.extent)
            .collect();
        let held = leaves.iter().map(|leaf| size_of::<Leaf>() + size_of::<Extent>() + leaf.name.len()).sum();
        self.holding(held, |unpacker| {
            for leaf in &leaves {
                unpacker.name(&leaf.name);
                let sheet = unpacker.decoded(item, leaf)?;
                if sheet.size() > 0 {
                    let inner = Item { object: &*sheet, name: &leaf.name, depth: item.depth + 1 };
                    unpacker.object(inner, Kind::Mail.clamav())?;
                }
            }
            unpacker.coded_lines(item, &known)
        })
    }

    /// Walks a message; what it is made of is small whatever it holds.
    fn leaves(&mut self, item: Item<'_>) -> Result<Vec<Leaf>, Stop> {
        let (mut walker, mut at) = (Walker::new(), 0);
        loop {
            let piece = item.bytes(at, PIECE)?;
            if piece.is_empty() {
                break;
            }
            at += piece.len() as u64;
            walker.feed(&piece);
            if at.is_multiple_of(PIECE as u64 * 64) {
                self.time()?;
            }
        }
        let structure = walker.finish();
        let mut count = 0;
        let mut leaves = Vec::new();
        for part in structure.parts() {
            count += 1;
            if !part.is_multipart() && part.message().is_none() {
                leaves.push(Leaf { extent: part.body(), encoding: part.encoding(), name: name(part) });
            }
        }
        if count >= PARTS_MAX {
            self.limit(Limit::Files);
        }
        Ok(leaves)
    }

    fn decoded(&mut self, item: Item<'_>, leaf: &Leaf) -> Result<Box<dyn Sheet>, Stop> {
        let mut sheet = self.workshop.sheet()?;
        let mut decoder = TransferDecoder::new(leaf.encoding);
        let (mut at, end) = (leaf.extent.offset, leaf.extent.offset + leaf.extent.length);
        while at < end {
            let piece = item.bytes(at, usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE))?;
            if piece.is_empty() {
                break;
            }
            at += piece.len() as u64;
            let mut out = Vec::with_capacity(piece.len());
            decoder.decode(&piece, &mut out);
            self.count(out.len())?;
            sheet.write(&out)?;
            self.time()?;
        }
        let mut out = Vec::new();
        decoder.finish(&mut out);
        sheet.write(&out)?;
        Ok(sheet)
    }
}

/// What the sender calls an attachment.
fn name(part: Part<'_>) -> String {
    let named = |wanted: &str, parameters: Vec<crate::mail::structure::Parameter>| {
        parameters
            .into_iter()
            .find(|parameter| parameter.name.eq_ignore_ascii_case(wanted))
            .map(|parameter| parameter.value)
    };
    let name = part
        .disposition()
        .and_then(|disposition| named("filename", disposition.parameters))
        .or_else(|| named("name", part.parameters()));
    name.map(|name| decode_words(&name)).unwrap_or_default()
}
