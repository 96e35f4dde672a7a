//! The compression of macros' source in Office documents (MS-OVBA section 2.4.1), chunk by chunk.

use std::io::{self, Read};

use super::u16_at;

/// Undoes it: chunks of 4,096 bytes, each of literal bytes and of copies from the same chunk.
pub(super) struct Source<R> {
    from: R,
    /// The chunk unpacked last, and how much of it was taken.
    chunk: Vec<u8>,
    taken: usize,
    begun: bool,
}

impl<R: Read> Source<R> {
    /// Begins at the signature byte of the container.
    pub(super) fn new(from: R) -> Self {
        Self { from, chunk: Vec::new(), taken: 0, begun: false }
    }

    /// Unpacks the next chunk; false at the end.
    fn next(&mut self) -> io::Result<bool> {
        if !self.begun {
            self.from.read_exact(&mut [0])?;
            self.begun = true;
        }
        let mut header = [0; 2];
        if let Err(error) = self.from.read_exact(&mut header) {
            return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(false) } else { Err(error) };
        }
        let Some(header) = u16_at(&header, 0).filter(|header| header & 0x7000 == 0x3000) else { return Ok(false) };
        let mut packed = Vec::new();
        (&mut self.from).take(u64::from(header & 0x0FFF) + 1).read_to_end(&mut packed)?;
        (self.chunk, self.taken) = (Vec::new(), 0);
        if header & 0x8000 == 0 {
            self.chunk = packed;
        } else {
            decompress_chunk(&packed, &mut self.chunk);
        }
        Ok(true)
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.taken >= self.chunk.len() {
            if !self.next()? {
                return Ok(0);
            }
        }
        let rest = self.chunk.get(self.taken..).unwrap_or_default();
        let count = rest.len().min(into.len());
        if let (Some(into), Some(from)) = (into.get_mut(..count), rest.get(..count)) {
            into.copy_from_slice(from);
        }
        self.taken += count;
        Ok(count)
    }
}

fn decompress_chunk(chunk: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut at = 0;
    while let Some(&flags) = chunk.get(at) {
        at += 1;
        for bit in 0..8 {
            if flags >> bit & 1 == 0 {
                let Some(&byte) = chunk.get(at) else { return };
                out.push(byte);
                at += 1;
                continue;
            }
            let Some(token) = u16_at(chunk, at) else { return };
            at += 2;
            let done = out.len() - start;
            let offset_bits = done.max(16).next_power_of_two().ilog2().clamp(4, 12);
            let length = usize::from(token & (0xFFFF >> offset_bits)) + 3;
            let back = usize::from(token >> (16 - offset_bits)) + 1;
            if back > done || done + length > 4096 + 16 {
                return;
            }
            for _ in 0..length {
                let Some(&byte) = out.get(out.len() - back) else { return };
                out.push(byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decompressed(packed: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Source::new(packed).read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn the_examples_of_the_specification_are_decompressed() {
        // MS-OVBA section 3.2.3 and 3.2.2.
        let packed = [0x01, 0x03, 0xB0, 0x02, 0x61, 0x45, 0x00];
        assert_eq!(decompressed(&packed), vec![b'a'; 73]);
        let packed = [
            0x01, 0x2F, 0xB0, 0x00, 0x23, 0x61, 0x61, 0x61, 0x62, 0x63, 0x64, 0x65, 0x82, 0x66, 0x00, 0x70, 0x61, 0x67,
            0x68, 0x69, 0x6A, 0x01, 0x38, 0x08, 0x61, 0x6B, 0x6C, 0x00, 0x30, 0x6D, 0x6E, 0x6F, 0x70, 0x06, 0x71, 0x02,
            0x70, 0x04, 0x10, 0x72, 0x73, 0x74, 0x75, 0x76, 0x10, 0x77, 0x78, 0x79, 0x7A, 0x00, 0x3C,
        ];
        assert_eq!(decompressed(&packed), b"#aaabcdefaaaaghijaaaaaklaaamnopqaaaaaaaaaaaarstuvwxyzaaa");
    }
}
