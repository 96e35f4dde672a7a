//! RAR: names and whether they are encrypted, and files that are stored as they are. Packed ones can't be
//! unpacked: the only program that can has a licence we can't take.

use super::kind::Kind;
use super::{Item, Listed, Step, Unpacker, u16_at, u32_at};
use crate::filter::scan::Stretch;

/// Longest header that is looked at.
const HEADER_MAX: usize = 64 * 1024;

impl Unpacker<'_> {
    pub(super) fn rar(&mut self, item: Item<'_>) -> Step {
        if item.bytes(6, 2)? == [1, 0] { self.rar5(item) } else { self.rar4(item) }
    }

    fn rar4(&mut self, item: Item<'_>) -> Step {
        let (mut at, mut position) = (7, 0);
        loop {
            let head = item.bytes(at, 64)?;
            let fields = || Some((*head.get(2)?, u16_at(&head, 3)?, u16_at(&head, 5)?));
            let Some((kind, flags, length)) = fields() else { return Ok(()) };
            // The archive's header, with its names encrypted too.
            if kind == 0x73 && flags & 0x80 != 0 {
                self.encrypted(item.name);
                return Ok(());
            }
            let more = if flags & 0x8000 != 0 || kind == 0x74 { u32_at(&head, 7).unwrap_or(0) } else { 0 };
            if kind == 0x74 {
                let fields = || Some((u32_at(&head, 11)?, *head.get(25)?, u16_at(&head, 26)?));
                let Some((size, method, name)) = fields() else { return Ok(()) };
                let wide = if flags & 0x100 != 0 { 8 } else { 0 };
                let name = item.bytes(at + 32 + wide, usize::from(name).min(1024))?;
                let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
                let name = String::from_utf8_lossy(name.get(..end).unwrap_or_default()).into_owned();
                position += 1;
                let data = (at + u64::from(length), u64::from(more));
                self.rar_member(item, &name, data, size.into(), (method == 0x30, flags & 4 != 0), position)?;
            }
            let next = at + u64::from(length.max(7)) + u64::from(more);
            if kind == 0x7B || next >= item.object.size() {
                return Ok(());
            }
            at = next;
            self.time()?;
        }
    }

    fn rar5(&mut self, item: Item<'_>) -> Step {
        let (mut at, mut position) = (8, 0);
        while at < item.object.size() {
            // Checksum (4), length of what follows, then type, flags, and what the type has.
            let start = item.bytes(at + 4, 4)?;
            let mut fields = Numbers(&start);
            let Some(length) = fields.next() else { return Ok(()) };
            let header_at = at + 4 + (start.len() - fields.0.len()) as u64;
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(HEADER_MAX);
            let header = item.bytes(header_at, length)?;
            let mut fields = Numbers(&header);
            let (Some(kind), Some(flags)) = (fields.next(), fields.next()) else { return Ok(()) };
            let extra = if flags & 1 != 0 { fields.next().unwrap_or(0) } else { 0 };
            let data = if flags & 2 != 0 { fields.next().unwrap_or(0) } else { 0 };
            let data_at = header_at + length as u64;
            if kind == 4 {
                self.encrypted(item.name);
                return Ok(());
            }
            if kind == 2 {
                let Some((size, method, name)) = file5(&mut fields) else { return Ok(()) };
                let records = header.len().saturating_sub(usize::try_from(extra).unwrap_or(usize::MAX));
                let encrypted = has_record(header.get(records..).unwrap_or_default(), 1);
                position += 1;
                self.rar_member(item, &name, (data_at, data), size, (method == 0, encrypted), position)?;
            }
            if kind == 5 {
                return Ok(());
            }
            at = data_at.saturating_add(data);
            self.time()?;
        }
        Ok(())
    }

    fn rar_member(
        &mut self,
        item: Item<'_>,
        name: &str,
        (at, packed): (u64, u64),
        size: u64,
        (stored, encrypted): (bool, bool),
        position: u64,
    ) -> Step {
        let container = Kind::Rar.clamav();
        let container_size = item.object.size();
        self.listed(&Listed { container, container_size, name, packed, size, encrypted, position })?;
        if encrypted || packed == 0 {
            return Ok(());
        }
        if !stored {
            self.opaque(name);
            return Ok(());
        }
        let stretch = Stretch::new(item.object, at, packed);
        self.object(Item { object: &stretch, name, depth: item.depth + 1 }, container)
    }
}

/// Size, method and name of a file's header.
fn file5(fields: &mut Numbers<'_>) -> Option<(u64, u64, String)> {
    let flags = fields.next()?;
    let size = fields.next()?;
    fields.next()?;
    let skip = if flags & 2 != 0 { 4 } else { 0 } + if flags & 4 != 0 { 4 } else { 0 };
    fields.0 = fields.0.get(skip..)?;
    let method = fields.next()? >> 7 & 7;
    fields.next()?;
    let length = usize::try_from(fields.next()?).ok()?;
    let name = fields.0.get(..length.min(fields.0.len()).min(1024))?;
    Some((size, method, String::from_utf8_lossy(name).into_owned()))
}

/// Tells whether a record of this type is among a header's extra ones.
fn has_record(mut records: &[u8], wanted: u64) -> bool {
    loop {
        let mut fields = Numbers(records);
        let Some(length) = fields.next() else { return false };
        let body = fields.0;
        if fields.next() == Some(wanted) {
            return true;
        }
        let Some(rest) =
            usize::try_from(length).ok().filter(|length| *length > 0).and_then(|length| body.get(length..))
        else {
            return false;
        };
        records = rest;
    }
}

/// Numbers of seven bits a byte, the lowest first.
struct Numbers<'b>(&'b [u8]);

impl Numbers<'_> {
    fn next(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in 0..10 {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7F).checked_shl(shift * 7)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}
