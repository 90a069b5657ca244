//! Files as memory.

use std::fs::File;
use std::io;
use std::ops::Range;

use memmap2::Mmap;

/// A file mapped for reading. Its pages are the system's file cache: they are read when they are
/// touched and given back when memory is short.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps a whole file. It must not shrink while it is mapped: objects of a store are replaced by
    /// new files, never written to.
    pub fn open(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is read-only and private to `self`. Files that are mapped are objects
        // of a store or temporary files without a name, which nobody changes in place.
        Ok(Self(unsafe { Mmap::map(file)? }))
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Little-endian 32-bit numbers in a range of bytes; `None` where the range is not within the
    /// file or does not begin and end at a multiple of 4.
    pub fn u32s(&self, range: Range<usize>) -> Option<&[u32]> {
        let bytes = self.0.get(range)?;
        // SAFETY: every pattern of bits is a number.
        let (before, numbers, after) = unsafe { bytes.align_to::<u32>() };
        whole(before, after).then_some(numbers)
    }

    /// The same for 64-bit numbers and multiples of 8.
    pub fn u64s(&self, range: Range<usize>) -> Option<&[u64]> {
        let bytes = self.0.get(range)?;
        // SAFETY: every pattern of bits is a number.
        let (before, numbers, after) = unsafe { bytes.align_to::<u64>() };
        whole(before, after).then_some(numbers)
    }
}

/// Whether nothing was cut off, and the machine's numbers are the file's.
fn whole(before: &[u8], after: &[u8]) -> bool {
    before.is_empty() && after.is_empty() && cfg!(target_endian = "little")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn numbers_come_back_and_crooked_ranges_do_not() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..6u32).flat_map(u32::to_le_bytes).collect();
        file.write_all(&bytes).unwrap();
        let mapped = MappedFile::open(&file).unwrap();
        assert_eq!(mapped.u32s(4..16).unwrap(), [1, 2, 3]);
        assert_eq!(mapped.u64s(8..16).unwrap(), [2 | (3 << 32)]);
        assert_eq!(mapped.bytes().len(), 24);
        assert_eq!(mapped.u32s(24..24).unwrap(), [] as [u32; 0]);
        for range in [2..6, 4..7, 20..28] {
            assert!(mapped.u32s(range.clone()).is_none(), "{range:?}");
        }
        assert!(mapped.u64s(4..12).is_none());
        assert!(MappedFile::open(&tempfile::tempfile().unwrap()).unwrap().bytes().is_empty());
    }
}
