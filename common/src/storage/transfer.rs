//! Objects larger than memory: written and read block by block.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, MultipartUpload, ObjectStoreExt, PutPayload};
use tokio::task::{JoinError, JoinSet, spawn_blocking};

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
        match self.put_parts(key, content.clone()).await {
            // The answer to the last request may have been lost after the store had done what it asked,
            // and then there is no such upload any more. The object appears whole or not at all.
            Err(_) if self.holds(key, content).await => Ok(()),
            result => result,
        }
    }

    /// Whether the object is there and has this content: one of the same size may be older.
    async fn holds(&self, key: &Path, content: PutPayload) -> bool {
        let num_bytes = content.content_length() as u64;
        if !self.note(key).await.is_ok_and(|note| note.bytes == num_bytes) {
            return false;
        }
        let mut blocks = self.blocks(key, num_bytes);
        for part in parts_of(content) {
            match blocks.next().await {
                Some(Ok(block)) if block == Bytes::from(part) => {}
                _ => return false,
            }
        }
        true
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
        // On this host no answer gets lost.
        let before = if self.is_on_this_host() { None } else { self.note(key).await.ok() };
        let mut upload = self.objects().put_multipart(key).await.map_err(failed)?;
        let mut parts = JoinSet::new();
        let sent = send_parts(&mut *upload, &mut parts, reader).await;
        parts.shutdown().await;
        let written = match &sent {
            Ok(_) => upload.complete().await.map(drop),
            Err(_) => Ok(()),
        };
        let (num_bytes, error) = match (sent, written) {
            (Ok(_), Ok(())) => return Ok(()),
            (Ok(num_bytes), Err(error)) => (Some(num_bytes), error),
            (Err(error), _) => (None, error),
        };
        // What was begun is of no use; whether it can be removed changes nothing.
        drop(upload.abort().await);
        // As in `put_large`. What has another tag than before was written now.
        let is_new = |note: &ObjectNote| {
            Some(note.bytes) == num_bytes && before.is_none_or(|before| before.e_tag != note.e_tag)
        };
        if !self.is_on_this_host() && self.note(key).await.is_ok_and(|note| is_new(&note)) {
            return Ok(());
        }
        Err(failed(error))
    }

    /// Reads an object into `file`, from the file's beginning, and leaves the position there. Gives
    /// the number of bytes. From a remote store in ranges of 8 MiB, each with a deadline and tries of its own.
    pub async fn download(&self, key: &Path, mut file: File) -> Result<u64, StoreError> {
        let failed = |error| self.explain("read", key, error);
        let write_failed = |error: io::Error| {
            let source = Box::new(error);
            failed(object_store::Error::Generic { store: "local file", source })
        };
        let num_announced = self.note(key).await?.bytes;
        let mut blocks = if self.is_on_this_host() {
            self.objects().get(key).await.map_err(failed)?.into_stream()
        } else {
            self.blocks(key, num_announced)
        };
        let mut num_bytes = 0;
        while let Some(block) = blocks.try_next().await.map_err(failed)? {
            num_bytes += block.len() as u64;
            let written = spawn_blocking(move || file.write_all(&block).map(|()| file)).await;
            let written = written.map_err(io::Error::other).and_then(|result| result);
            file = written.map_err(write_failed)?;
        }
        if num_bytes != num_announced {
            let source = format!("{num_bytes} bytes instead of {num_announced}").into();
            return Err(failed(object_store::Error::Generic { store: "transfer", source }));
        }
        file.seek(SeekFrom::Start(0)).map_err(write_failed)?;
        Ok(num_bytes)
    }

    /// The `num_bytes` bytes of a remote object, which must stay the same meanwhile.
    fn blocks<'a>(
        &'a self,
        key: &'a Path,
        num_bytes: u64,
    ) -> BoxStream<'a, object_store::Result<Bytes>> {
        let part = PART_BYTES as u64;
        let ranges =
            (0..num_bytes.div_ceil(part)).map(move |n| n * part..num_bytes.min((n + 1) * part));
        let read = move |range| async move {
            let options =
                GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
            let found = self.objects().get_opts(key, options).await?;
            let tag = found.meta.e_tag.clone();
            Ok::<_, object_store::Error>((tag, found.bytes().await?))
        };
        let mut first = None;
        let same = move |block: object_store::Result<(Option<String>, Bytes)>| {
            let (tag, block) = block?;
            if *first.get_or_insert_with(|| tag.clone()) == tag {
                return Ok(block);
            }
            let source = "the object was written over while it was read".into();
            Err(object_store::Error::Generic { store: "transfer", source })
        };
        futures::stream::iter(ranges).map(read).buffered(PARTS_AT_ONCE).map(same).boxed()
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

/// Hands everything that `reader` yields over to `upload`, a few parts at a time on their way in `parts`, and waits
/// for them. Gives the number of bytes.
async fn send_parts<R: Read + Send + 'static>(
    upload: &mut dyn MultipartUpload,
    parts: &mut JoinSet<object_store::Result<()>>,
    mut reader: R,
) -> object_store::Result<u64> {
    let local = |error: io::Error| object_store::Error::Generic {
        store: "local file",
        source: Box::new(error),
    };
    let arrived = |joined: Result<object_store::Result<()>, JoinError>| {
        joined.map_err(|error| local(io::Error::other(error))).and_then(|result| result)
    };
    let mut num_bytes = 0;
    loop {
        let read = spawn_blocking(move || read_part(&mut reader).map(|part| (reader, part)));
        let read = read.await.map_err(io::Error::other).and_then(|result| result);
        let (back, part) = read.map_err(local)?;
        reader = back;
        let is_last = part.is_empty();
        let most = if is_last { 0 } else { PARTS_AT_ONCE - 1 };
        while parts.len() > most {
            parts.join_next().await.map_or(Ok(()), arrived)?;
        }
        if is_last {
            return Ok(num_bytes);
        }
        num_bytes += part.len() as u64;
        parts.spawn(upload.put_part(part.into()));
    }
}

/// The next part, shorter than others only at the end.
fn read_part(reader: &mut impl Read) -> io::Result<Bytes> {
    let mut part = Vec::with_capacity(PART_BYTES);
    reader.by_ref().take(PART_BYTES as u64).read_to_end(&mut part)?;
    Ok(part.into())
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use object_store::memory::InMemory;
    use object_store::{
        CopyOptions, GetResult, ListResult, ObjectMeta, ObjectStore, PutMultipartOptions,
        PutOptions, PutResult, Result as StoreResult, UploadPart,
    };

    use super::*;

    fn broken() -> object_store::Error {
        object_store::Error::Generic { store: "test", source: "the line is cut".into() }
    }

    /// A store to which the line is cut at one moment of every upload.
    #[derive(Debug, Clone, Default)]
    struct Faulty {
        objects: Arc<InMemory>,
        /// Parts that arrive before one does not.
        parts_before: Option<usize>,
        /// The object appears, but nobody hears of it.
        loses_answer: bool,
        /// Answers of more bytes than this break off; 0: none does.
        answer_bytes_max: u64,
        num_given_up: Arc<AtomicU32>,
    }

    #[derive(Debug)]
    struct FaultyUpload {
        store: Faulty,
        inner: Box<dyn MultipartUpload>,
    }

    #[async_trait::async_trait]
    impl MultipartUpload for FaultyUpload {
        fn put_part(&mut self, data: PutPayload) -> UploadPart {
            match &mut self.store.parts_before {
                Some(0) => return Box::pin(std::future::ready(Err(broken()))),
                Some(left) => *left -= 1,
                None => {}
            }
            self.inner.put_part(data)
        }

        async fn complete(&mut self) -> StoreResult<PutResult> {
            let done = self.inner.complete().await;
            if self.store.loses_answer { Err(broken()) } else { done }
        }

        async fn abort(&mut self) -> StoreResult<()> {
            self.store.num_given_up.fetch_add(1, Ordering::Relaxed);
            self.inner.abort().await
        }
    }

    impl fmt::Display for Faulty {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("faulty")
        }
    }

    #[async_trait::async_trait]
    impl ObjectStore for Faulty {
        async fn put_opts(
            &self,
            key: &Path,
            payload: PutPayload,
            options: PutOptions,
        ) -> StoreResult<PutResult> {
            self.objects.put_opts(key, payload, options).await
        }

        async fn put_multipart_opts(
            &self,
            key: &Path,
            options: PutMultipartOptions,
        ) -> StoreResult<Box<dyn MultipartUpload>> {
            let inner = self.objects.put_multipart_opts(key, options).await?;
            Ok(Box::new(FaultyUpload { store: self.clone(), inner }))
        }

        async fn get_opts(&self, key: &Path, options: GetOptions) -> StoreResult<GetResult> {
            let is_whole = !options.head;
            let found = self.objects.get_opts(key, options).await?;
            let num_bytes = found.range.end - found.range.start;
            let is_long = self.answer_bytes_max > 0 && num_bytes > self.answer_bytes_max;
            if is_whole && is_long { Err(broken()) } else { Ok(found) }
        }

        fn delete_stream(
            &self,
            keys: BoxStream<'static, StoreResult<Path>>,
        ) -> BoxStream<'static, StoreResult<Path>> {
            self.objects.delete_stream(keys)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
            self.objects.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
            self.objects.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
            self.objects.copy_opts(from, to, options).await
        }
    }

    #[tokio::test]
    async fn an_upload_that_fails_in_the_middle_is_given_up() {
        let key = Path::from("a/large");
        for parts_before in 0..4 {
            let faulty = Faulty { parts_before: Some(parts_before), ..Faulty::default() };
            let given_up = Arc::clone(&faulty.num_given_up);
            let store = Store::of_objects(faulty);
            let bytes = vec![1; 4 * PART_BYTES];
            let error = store.upload(&key, io::Cursor::new(bytes)).await.unwrap_err();
            let StoreError::Io { source, .. } = error else { panic!("{error}") };
            assert!(source.to_string().contains("the line is cut"), "{source}");
            assert_eq!(given_up.load(Ordering::Relaxed), 1, "after {parts_before} parts");
            assert_eq!(store.find(&key).await.unwrap(), None);
        }
    }

    #[tokio::test]
    async fn an_upload_whose_last_answer_is_lost_has_happened() {
        let key = Path::from("a/large");
        let store = Store::of_objects(Faulty { loses_answer: true, ..Faulty::default() });
        for content in [1, 2] {
            let bytes = vec![content; PART_BYTES + 5];
            store.upload(&key, io::Cursor::new(bytes.clone())).await.unwrap();
            assert!(store.get(&key).await.unwrap() == bytes);
            let bytes = vec![content + 2; PART_BYTES + 5];
            store.put_large(&key, bytes.clone()).await.unwrap();
            assert!(store.get(&key).await.unwrap() == bytes);
        }
    }

    #[tokio::test]
    async fn an_older_object_of_the_same_size_is_not_taken_for_the_new_one() {
        let key = Path::from("a/large");
        let store = Store::of_objects(Faulty { parts_before: Some(1), ..Faulty::default() });
        store.put(&key, vec![1; 2 * PART_BYTES]).await.unwrap();
        assert!(store.put_large(&key, vec![2; 2 * PART_BYTES]).await.is_err());
        assert!(store.upload(&key, io::Cursor::new(vec![2; 2 * PART_BYTES])).await.is_err());
        assert!(store.get(&key).await.unwrap() == vec![1; 2 * PART_BYTES]);
    }

    #[tokio::test]
    async fn a_download_is_not_one_request_that_takes_as_long_as_it_takes() {
        let key = Path::from("a/large");
        let answer_bytes_max = PART_BYTES as u64;
        let store = Store::of_objects(Faulty { answer_bytes_max, ..Faulty::default() });
        for num_bytes in [0, 5, 2 * PART_BYTES, 3 * PART_BYTES + 7] {
            let bytes: Vec<u8> = (0u8..251).cycle().take(num_bytes).collect();
            store.put(&key, bytes.clone()).await.unwrap();
            let mut file = tempfile::tempfile().unwrap();
            let count = store.download(&key, file.try_clone().unwrap()).await.unwrap();
            let mut back = Vec::new();
            file.read_to_end(&mut back).unwrap();
            assert!((count, back) == (num_bytes as u64, bytes), "{num_bytes}");
        }
    }

    #[tokio::test]
    async fn a_download_of_an_object_that_is_written_over_fails() {
        let key = Path::from("a/large");
        let store = Store::in_memory();
        store.put(&key, vec![1; 8 * PART_BYTES]).await.unwrap();
        let mut blocks = store.blocks(&key, 8 * PART_BYTES as u64);
        assert!(blocks.next().await.unwrap().is_ok());
        store.put(&key, vec![2; 8 * PART_BYTES]).await.unwrap();
        let rest: Vec<_> = blocks.collect().await;
        assert!(rest.iter().any(Result::is_err), "blocks of two objects");
    }

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
