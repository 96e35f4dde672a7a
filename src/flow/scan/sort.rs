//! Sorts more records than fit into memory: sorted runs in a temporary file, merged at the end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::store::temporary;

/// Bytes of records that are in memory before they become a run.
const RUN_BYTES: usize = 12 << 20;

/// Bytes of a run that are read at one time while runs are merged.
const READ_BYTES: usize = 32 << 10;

/// Most runs; with them 500 million digests.
const RUNS_MAX: usize = 1024;

/// Sorts records of `N` bytes.
#[derive(Debug)]
pub(super) struct Sorter<'f, const N: usize> {
    folder: &'f Path,
    buffer: Vec<[u8; N]>,
    file: Option<File>,
    /// Where each run ends in the file.
    ends: Vec<u64>,
    count: u64,
}

impl<'f, const N: usize> Sorter<'f, N> {
    /// Sorts with a temporary file in `folder`, if one is needed.
    pub(super) fn new(folder: &'f Path) -> Self {
        Self { folder, buffer: Vec::new(), file: None, ends: Vec::new(), count: 0 }
    }

    /// Records so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Adds a record.
    ///
    /// # Errors
    /// Those of the temporary file, and that there are too many.
    pub(super) fn push(&mut self, record: [u8; N]) -> io::Result<()> {
        if self.buffer.capacity() == 0 {
            self.buffer.reserve_exact(1024);
        }
        self.buffer.push(record);
        self.count += 1;
        if self.buffer.len() * N >= RUN_BYTES { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> io::Result<()> {
        if self.ends.len() >= RUNS_MAX {
            return Err(io::Error::other("there are too many signatures to sort"));
        }
        self.buffer.sort_unstable();
        if self.file.is_none() {
            self.file = Some(temporary(self.folder)?);
        }
        if let Some(file) = &mut self.file {
            file.write_all(self.buffer.as_flattened())?;
        }
        let before = self.ends.last().copied().unwrap_or(0);
        self.ends.push(before + (self.buffer.len() * N) as u64);
        self.buffer.clear();
        Ok(())
    }

    /// Ends the adding.
    ///
    /// # Errors
    /// As [`Sorter::push`].
    pub(super) fn finish(mut self) -> io::Result<Sorted<N>> {
        if self.file.is_none() {
            self.buffer.sort_unstable();
            return Ok(Sorted {
                memory: self.buffer.into_iter(),
                runs: Vec::new(),
                heap: BinaryHeap::new(),
                file: None,
            });
        }
        self.spill()?;
        drop(std::mem::take(&mut self.buffer));
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let runs = starts.zip(&self.ends).map(|(at, &end)| Run { at, end, bytes: Vec::new(), taken: 0 }).collect();
        let mut sorted = Sorted { memory: Vec::new().into_iter(), runs, heap: BinaryHeap::new(), file: self.file };
        for run in 0..sorted.runs.len() {
            sorted.refill(run)?;
        }
        Ok(sorted)
    }
}

#[derive(Debug)]
struct Run {
    at: u64,
    end: u64,
    bytes: Vec<u8>,
    taken: usize,
}

/// Records in order.
#[derive(Debug)]
pub(super) struct Sorted<const N: usize> {
    memory: std::vec::IntoIter<[u8; N]>,
    runs: Vec<Run>,
    heap: BinaryHeap<Reverse<([u8; N], usize)>>,
    file: Option<File>,
}

impl<const N: usize> Sorted<N> {
    /// The next record.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub(super) fn next(&mut self) -> io::Result<Option<[u8; N]>> {
        if let Some(record) = self.memory.next() {
            return Ok(Some(record));
        }
        let Some(Reverse((record, run))) = self.heap.pop() else { return Ok(None) };
        self.refill(run)?;
        Ok(Some(record))
    }

    /// Puts the next record of a run on the heap.
    fn refill(&mut self, number: usize) -> io::Result<()> {
        let (Some(run), Some(file)) = (self.runs.get_mut(number), &self.file) else { return Ok(()) };
        if run.taken == run.bytes.len() {
            let room = READ_BYTES / N * N;
            let length = usize::try_from(run.end - run.at).unwrap_or(usize::MAX).min(room);
            run.bytes.resize(length, 0);
            file.read_exact_at(&mut run.bytes, run.at)?;
            (run.at, run.taken) = (run.at + length as u64, 0);
        }
        if let Some(record) = run.bytes.get(run.taken..).and_then(|rest| rest.first_chunk::<N>()) {
            run.taken += N;
            self.heap.push(Reverse((*record, number)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_in_order_whether_they_fit_into_memory_or_not() {
        let folder = tempfile::tempdir().unwrap();
        for count in [0_u64, 1000, 4_000_000] {
            let mut sorter = Sorter::<8>::new(folder.path());
            for number in 0..count {
                sorter.push(number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()).unwrap();
            }
            assert_eq!(sorter.count(), count);
            let (mut records, mut before, mut seen) = (sorter.finish().unwrap(), [0; 8], 0);
            while let Some(record) = records.next().unwrap() {
                assert!(record >= before);
                (before, seen) = (record, seen + 1);
            }
            assert_eq!(seen, count);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
