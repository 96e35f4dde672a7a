//! Any bytes may be attached: unpacking ends within its limits, and each object that comes out can be read to
//! its end and not beyond.

#![no_main]

use std::cell::Cell;
use std::io;

use libfuzzer_sys::fuzz_target;
use pillarbox::filter::scan::unpack::{About, Examine, Limits, Listed, Sheet, Unpacker, Workshop};
use pillarbox::filter::scan::{ReadAt, read_vec};

const LIMITS: Limits = Limits { depth: 8, files: 300, bytes: 4 << 20, ratio: 250, dictionary: 1 << 20 };

struct Memory(Vec<u8>);

impl ReadAt for Memory {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buffer)
    }
}

impl Sheet for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

struct Shop(Cell<u32>);

impl Workshop for Shop {
    fn sheet(&self) -> io::Result<Box<dyn Sheet>> {
        Ok(Box::new(Memory(Vec::new())))
    }

    fn goes_on(&self) -> bool {
        self.0.set(self.0.get() + 1);
        self.0.get() < 100_000
    }
}

struct Eye(u32);

impl Examine for Eye {
    fn object(&mut self, object: &dyn ReadAt, _: &About<'_>, _: &mut dyn FnMut() -> bool) -> io::Result<bool> {
        self.0 += 1;
        // Each object can be read to its end, and not beyond.
        assert!(read_vec(object, object.size().saturating_sub(7), 100)?.len() <= 7);
        Ok(true)
    }

    fn listed(&mut self, _: &Listed<'_>) -> bool {
        true
    }
}

fuzz_target!(|input: &[u8]| {
    let mut eye = Eye(0);
    let report = Unpacker::new(LIMITS, &Shop(Cell::new(0)), &mut eye)
        .run(&input.to_vec(), "a", false)
        .expect("memory does not fail");
    // An object of text is examined twice, as it is and in its plain form.
    assert!(eye.0 <= 2 * LIMITS.files + 2, "{report:?}");
});
