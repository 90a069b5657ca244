//! Numbers of a split: in memory, or mapped from a file of the cache.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use safetensors::{Dtype, SafeTensors};

use crate::ffi::MappedFile;

/// A list of numbers. Cheap to clone when it is mapped.
#[derive(Clone)]
pub(super) enum Numbers<T> {
    Owned(Vec<T>),
    Mapped(Arc<MappedFile>, Range<usize>),
}

/// Kinds of numbers that a file can hold.
pub(super) trait Number: Sized + Copy + PartialEq {
    /// Type in the header.
    const KIND: Dtype;
    /// Numbers in a range of bytes.
    fn of(file: &MappedFile, range: Range<usize>) -> Option<&[Self]>;
}

impl Number for u32 {
    const KIND: Dtype = Dtype::U32;
    fn of(file: &MappedFile, range: Range<usize>) -> Option<&[Self]> {
        file.u32s(range)
    }
}

impl Number for u64 {
    const KIND: Dtype = Dtype::U64;
    fn of(file: &MappedFile, range: Range<usize>) -> Option<&[Self]> {
        file.u64s(range)
    }
}

impl<T: Number> Numbers<T> {
    /// The tensor `name` of a safetensors file; the error says what is wrong with it.
    pub(super) fn mapped(file: &Arc<MappedFile>, name: &str) -> Result<Self, String> {
        let read = SafeTensors::read_metadata(file.bytes());
        let (header_bytes, metadata) = read.map_err(|error| error.to_string())?;
        let info = metadata.info(name).ok_or_else(|| format!("there is no {name}"))?;
        if info.dtype != T::KIND {
            return Err(format!("type of {name}"));
        }
        // The header's own length stands before it, in 8 bytes.
        let (start, end) = info.data_offsets;
        let range = start + header_bytes + 8..end + header_bytes + 8;
        T::of(file, range.clone()).ok_or_else(|| format!("place of {name}"))?;
        Ok(Self::Mapped(Arc::clone(file), range))
    }

    /// Everything that `file` holds, which nobody writes to any more.
    pub(super) fn of_file(file: &File) -> io::Result<Self> {
        let mapped = MappedFile::open(file)?;
        let range = 0..mapped.bytes().len();
        Ok(Self::Mapped(Arc::new(mapped), range))
    }

    /// All of them.
    pub(super) fn all(&self) -> &[T] {
        match self {
            Self::Owned(numbers) => numbers,
            // The range was checked when the list was made.
            Self::Mapped(file, range) => T::of(file, range.clone()).unwrap_or_default(),
        }
    }
}

impl<T: Number> PartialEq for Numbers<T> {
    fn eq(&self, other: &Self) -> bool {
        self.all() == other.all()
    }
}

impl<T: Number> fmt::Debug for Numbers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} numbers", self.all().len())
    }
}
