//! What a file holds, in pages that images share until one of them writes: a power cut copies a few
//! pages and not the file.

use std::io;
use std::sync::Arc;

/// Bytes of a page of the page cache, which is written as one.
pub(crate) const PAGE: usize = 4096;

/// Bytes a medium writes whole, or not at all, or garbled.
pub(crate) const SECTOR: usize = 512;

/// A file's bytes. Pages of zeros take no memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    len: usize,
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
}

const ZEROS: [u8; PAGE] = [0; PAGE];

impl Image {
    pub(crate) fn holding(bytes: &[u8]) -> Self {
        let mut image = Self::default();
        image.write(0, bytes);
        image
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Cuts, or extends with zeros.
    pub(crate) fn set_len(&mut self, len: usize) {
        if len < self.len && !len.is_multiple_of(PAGE) {
            let page = &mut self.pages[len / PAGE];
            if let Some(page) = page {
                Arc::make_mut(page)[len % PAGE..].fill(0);
            }
        }
        self.pages.resize(len.div_ceil(PAGE), None);
        self.len = len;
    }

    pub(crate) fn read(&self, offset: usize, buffer: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buffer.len()).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (page, within, part) in parts(offset, buffer.len()) {
            let from = self.pages[page].as_deref().unwrap_or(&ZEROS);
            buffer[part.clone()].copy_from_slice(&from[within..within + part.len()]);
        }
        Ok(())
    }

    /// Writes, and extends the file where needed.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if offset + bytes.len() > self.len {
            self.set_len(offset + bytes.len());
        }
        for (page, within, part) in parts(offset, bytes.len()) {
            let page = self.pages[page].get_or_insert_with(|| Arc::new(ZEROS));
            Arc::make_mut(page)[within..within + part.len()].copy_from_slice(&bytes[part]);
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        self.read(0, &mut bytes).expect("its own length");
        bytes
    }
}

/// A range by pages: the page, where in it, and which part of the range.
fn parts(offset: usize, length: usize) -> impl Iterator<Item = (usize, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done;
        let step = (PAGE - at % PAGE).min(length - done);
        let part = done..done + step;
        done += step;
        (step > 0).then_some((at / PAGE, at % PAGE, part))
    })
}
