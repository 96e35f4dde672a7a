//! winmail.dat (MS-OXTNEF): attributes, of which some are attachments' names and bytes.

use super::kind::Kind;
use super::{Item, Step, Unpacker, u32_at};
use crate::filter::scan::Stretch;

/// The attribute with an attachment's bytes.
const ATTACH_DATA: u32 = 0x0006_800F;

/// The attribute with its name.
const ATTACH_TITLE: u32 = 0x0001_8010;

/// The attributes with properties of the message and of an attachment, which may hold more of them.
const PROPERTIES: [u32; 2] = [0x0006_9003, 0x0006_9005];

impl Unpacker<'_> {
    pub(super) fn tnef(&mut self, item: Item<'_>) -> Step {
        let (mut at, mut name) = (6, String::new());
        loop {
            // Level (1), attribute (4), length (4), the bytes, and their sum (2).
            let head = item.bytes(at, 9)?;
            let (Some(attribute), Some(length)) = (u32_at(&head, 1), u32_at(&head, 5)) else { return Ok(()) };
            let start = at + 9;
            match attribute {
                ATTACH_TITLE => {
                    let bytes = item.bytes(start, usize::try_from(length).unwrap_or(0).min(512))?;
                    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
                    name = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned();
                    self.name(&name);
                }
                attribute if attribute == ATTACH_DATA || PROPERTIES.contains(&attribute) => {
                    let stretch = Stretch::new(item.object, start, length.into());
                    self.object(Item { object: &stretch, name: &name, depth: item.depth + 1 }, Kind::Tnef.clamav())?;
                }
                _ => {}
            }
            at = start + u64::from(length) + 2;
            self.time()?;
        }
    }
}
