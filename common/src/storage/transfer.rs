//! Objects larger than memory: written and read block by block.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload, WriteMultipart};
use tokio::task::spawn_blocking;

use super::store::{Store, StoreError};

/// Bytes per part of an upload: above the least that object stores take, and 10,000 parts of it are
/// 80 GiB.
const PART_BYTES: usize = 8 << 20;

/// Parts of an upload on their way at the same time.
const PARTS_AT_ONCE: usize = 2;

/// Parts of an object in memory on their way at the same time: they take no memory of their own.
const PARTS_IN_MEMORY_AT_ONCE: usize = 4;

/// What a store knows about an object without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectNote {
    /// Size.
    pub bytes: u64,
    /// Identifies the contents, where the store has such a thing.
    pub e_tag: Option<String>,
}

impl Store {
    /// What the store knows about an object; [`StoreError::Missing`] if it is not there.
    pub async fn note(&self, key: &Path) -> Result<ObjectNote, StoreError> {
        let found = self.objects().head(key).await;
        let found = found.map_err(|error| self.explain("read", key, error))?;
        Ok(ObjectNote { bytes: found.size, e_tag: found.e_tag })
    }

    /// Writes an object whole, replacing one that is there, in parts of 8 MiB where it is larger and the
    /// store a remote one: each has a deadline and tries of its own, and nothing is copied.
    pub async fn put_large(
        &self,
        key: &Path,
        content: impl Into<PutPayload>,
    ) -> Result<(), StoreError> {
        let content = content.into();
        let num_bytes = content.content_length();
        if self.is_on_this_host() || num_bytes <= PART_BYTES {
            return self.put(key, content).await;
        }
        match self.put_parts(key, content).await {
            Ok(()) => Ok(()),
            // The answer to the last request may have been lost after the store had done what it asked,
            // and then there is no such upload any more. The object appears whole or not at all.
            Err(error) => match self.note(key).await {
                Ok(note) if note.bytes == num_bytes as u64 => Ok(()),
                _ => Err(error),
            },
        }
    }

    async fn put_parts(&self, key: &Path, content: PutPayload) -> Result<(), StoreError> {
        let failed = |error| self.explain("write", key, error);
        let mut upload = self.objects().put_multipart(key).await.map_err(failed)?;
        // The store numbers the parts in the order in which they are handed over.
        let parts: Vec<_> = parts_of(content).map(|part| upload.put_part(part)).collect();
        let sent = futures::stream::iter(parts)
            .buffer_unordered(PARTS_IN_MEMORY_AT_ONCE)
            .try_collect::<Vec<()>>()
            .await;
        let written = match sent {
            Ok(_) => upload.complete().await.map(drop),
            Err(error) => Err(error),
        };
        if written.is_err() {
            // What was begun is of no use; whether it can be removed changes nothing.
            drop(upload.abort().await);
        }
        written.map_err(failed)
    }

    /// Reads an object whole that should have `num_bytes`. In ranges of 8 MiB where it is larger and the
    /// store a remote one, each with a deadline and tries of its own. Gives what is there where it has
    /// another size.
    pub async fn get_large(&self, key: &Path, num_bytes: u64) -> Result<Bytes, StoreError> {
        let part = PART_BYTES as u64;
        if self.is_on_this_host() || num_bytes <= part || self.note(key).await?.bytes != num_bytes {
            return self.get(key).await;
        }
        let ranges = (0..num_bytes.div_ceil(part)).map(|n| n * part..num_bytes.min((n + 1) * part));
        let mut blocks = futures::stream::iter(ranges)
            .map(|range| self.objects().get_range(key, range))
            .buffered(PARTS_IN_MEMORY_AT_ONCE);
        let mut whole = BytesMut::with_capacity(usize::try_from(num_bytes).unwrap_or_default());
        while let Some(block) = blocks.next().await {
            whole.extend_from_slice(&block.map_err(|error| self.explain("read", key, error))?);
        }
        Ok(whole.freeze())
    }

    /// Writes everything that `reader` yields as one object, replacing one that is there. Holds a few
    /// parts of 8 MiB in memory. The object appears whole or not at all.
    pub async fn upload<R: Read + Send + 'static>(
        &self,
        key: &Path,
        reader: R,
    ) -> Result<(), StoreError> {
        let failed = |error| self.explain("write", key, error);
        let upload = self.objects().put_multipart(key).await.map_err(failed)?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut reader = reader;
        loop {
            let read = spawn_blocking(move || read_part(&mut reader).map(|part| (reader, part)));
            let read = read.await.map_err(io::Error::other).and_then(|result| result);
            let part = match read {
                Ok((back, part)) => {
                    reader = back;
                    part
                }
                Err(error) => {
                    let source = Box::new(error);
                    let error = object_store::Error::Generic { store: "local file", source };
                    // What was begun is of no use; whether it can be removed changes nothing.
                    drop(upload.abort().await);
                    return Err(failed(error));
                }
            };
            if part.is_empty() {
                return upload.finish().await.map(drop).map_err(failed);
            }
            upload.wait_for_capacity(PARTS_AT_ONCE).await.map_err(failed)?;
            upload.put(part);
        }
    }

    /// Reads an object into `file`, from the file's beginning, and leaves the position there. Gives
    /// the number of bytes.
    pub async fn download(&self, key: &Path, mut file: File) -> Result<u64, StoreError> {
        let failed = |error| self.explain("read", key, error);
        let write_failed = |error: io::Error| {
            let source = Box::new(error);
            failed(object_store::Error::Generic { store: "local file", source })
        };
        let mut blocks = self.objects().get(key).await.map_err(failed)?.into_stream();
        let mut num_bytes = 0;
        while let Some(block) = blocks.try_next().await.map_err(failed)? {
            num_bytes += block.len() as u64;
            let written = spawn_blocking(move || file.write_all(&block).map(|()| file)).await;
            let written = written.map_err(io::Error::other).and_then(|result| result);
            file = written.map_err(write_failed)?;
        }
        file.seek(SeekFrom::Start(0)).map_err(write_failed)?;
        Ok(num_bytes)
    }
}

/// `content` in parts of [`PART_BYTES`], the last one shorter; nothing is copied.
fn parts_of(content: PutPayload) -> impl Iterator<Item = PutPayload> {
    let mut pieces: VecDeque<Bytes> =
        content.into_iter().filter(|piece| !piece.is_empty()).collect();
    std::iter::from_fn(move || {
        let (mut part, mut free) = (Vec::new(), PART_BYTES);
        while free > 0
            && let Some(mut piece) = pieces.pop_front()
        {
            let taken = piece.split_to(piece.len().min(free));
            free -= taken.len();
            part.push(taken);
            if !piece.is_empty() {
                pieces.push_front(piece);
            }
        }
        (!part.is_empty()).then(|| part.into_iter().collect())
    })
}

/// The next part, shorter than others only at the end.
fn read_part(reader: &mut impl Read) -> io::Result<Bytes> {
    let mut part = Vec::with_capacity(PART_BYTES);
    reader.by_ref().take(PART_BYTES as u64).read_to_end(&mut part)?;
    Ok(part.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn large_objects_come_back_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap()).unwrap();
        let key = Path::from("a/large");
        for num_bytes in [0, 1, PART_BYTES - 1, 2 * PART_BYTES, 3 * PART_BYTES + 5] {
            let bytes: Vec<u8> =
                (0u32..).map(|n| n.to_le_bytes()[n as usize % 3]).take(num_bytes).collect();
            store.upload(&key, io::Cursor::new(bytes.clone())).await.unwrap();
            assert_eq!(store.note(&key).await.unwrap().bytes, num_bytes as u64);
            assert!(store.get(&key).await.unwrap() == bytes);
            let remote = Store::in_memory();
            // In pieces that begin and end anywhere, an empty one among them.
            let pieces = bytes.chunks(PART_BYTES / 3 + 1).chain([&[][..]]);
            let content: PutPayload = pieces.map(Bytes::copy_from_slice).collect();
            for store in [&store, &remote] {
                store.put_large(&key, content.clone()).await.unwrap();
                assert!(store.get_large(&key, num_bytes as u64).await.unwrap() == bytes);
                assert!(store.get_large(&key, 4 * PART_BYTES as u64).await.unwrap() == bytes);
            }
            let mut file = tempfile::tempfile().unwrap();
            let count = store.download(&key, file.try_clone().unwrap()).await.unwrap();
            let mut back = Vec::new();
            file.read_to_end(&mut back).unwrap();
            assert!((count, back) == (num_bytes as u64, bytes));
        }
    }

    #[test]
    fn all_parts_but_the_last_have_the_same_size() {
        for sizes in [vec![], vec![0, 0], vec![1], vec![PART_BYTES + 1, PART_BYTES - 1, 7]] {
            let content: PutPayload =
                sizes.iter().map(|size| Bytes::from(vec![1; *size])).collect();
            let total: usize = sizes.iter().sum();
            let parts: Vec<usize> = parts_of(content).map(|part| part.content_length()).collect();
            assert_eq!(parts.iter().sum::<usize>(), total);
            assert_eq!(parts.len(), total.div_ceil(PART_BYTES));
            let whole = parts.iter().filter(|size| **size == PART_BYTES).count();
            assert_eq!(whole, total / PART_BYTES);
        }
    }

    #[tokio::test]
    async fn an_upload_whose_reader_fails_leaves_nothing() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("no disk"))
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap()).unwrap();
        let key = Path::from("a/large");
        let reader = io::Cursor::new(vec![1; 3 * PART_BYTES]).chain(Broken);
        assert!(matches!(store.upload(&key, reader).await, Err(StoreError::Io { .. })));
        assert_eq!(store.find(&key).await.unwrap(), None);
        let missing = store.download(&key, tempfile::tempfile().unwrap()).await;
        assert!(matches!(missing, Err(StoreError::Missing { .. })));
        assert!(matches!(store.note(&key).await, Err(StoreError::Missing { .. })));
    }
}
