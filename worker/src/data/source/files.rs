//! The files of a split: patterns, folders and URLs resolved, each file with what identifies its
//! contents. Objects of a store are fetched only when they have to be read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use glob::{MatchOptions, Pattern};
use muster_common::digest::ContentHash;
use muster_common::manifest::{Delimiter, Source, SourceFormat};
use muster_common::storage::Store;
use object_store::path::Path as Key;
use tokio::task::spawn_blocking;

use super::columns::Table;
use super::delimited::Fields;
use super::hub;
use super::json_lines::Objects;
use super::lines::{Texts, whole};
use super::{Mistake, Rows, Wanted};
use crate::data::DataError;
use crate::data::moves::moved;
use crate::model::HubSettings;

/// What a split is for; folders of data sets have a part for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::data) enum Role {
    Train,
    Validation,
    Test,
}

impl Role {
    /// Where the manifest names the files.
    fn place(self) -> &'static str {
        match self {
            Self::Train => "data.train.path",
            Self::Validation => "data.validation.path",
            Self::Test => "data.test.path",
        }
    }
}

/// One file of a split.
#[derive(Debug)]
pub(in crate::data) struct SourceFile {
    /// As messages call it.
    pub(in crate::data) shown: String,
    /// What its contents are: a digest, or the tag that its store gives them.
    pub(in crate::data) identity: ContentHash,
    place: Place,
    contents: Contents,
    compression: Option<Compression>,
    /// Size and time of change when the identity was taken.
    stamp: Option<(u64, Option<SystemTime>)>,
}

/// Where a file lies.
#[derive(Debug)]
enum Place {
    Path(PathBuf),
    Object {
        store: Store,
        key: Key,
    },
    /// A file without a name that holds what was fetched.
    Fetched(File),
}

/// How a file is read.
#[derive(Debug, Clone)]
enum Contents {
    Rows(SourceFormat),
    /// One text of the class named.
    Whole(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
}

/// The files of a source for a split, in the order of their rows. `unlabeled` takes the parts of a
/// folder that have no labels too.
pub(in crate::data) async fn find(
    source: &Source,
    role: Role,
    unlabeled: bool,
) -> Result<Vec<SourceFile>, DataError> {
    let mut files = Vec::new();
    if let Some(set) = &source.hub {
        let settings = HubSettings::from_environment();
        // Nobody says to stop, but what moves does not hang.
        let go_on = |_: &str| {
            moved();
            ControlFlow::Continue(())
        };
        let paths = Box::pin(hub::files(set, role, &settings, go_on)).await?.unwrap_or_default();
        let open = move || {
            let contents = || Contents::Rows(SourceFormat::Parquet);
            paths.into_iter().map(|path| SourceFile::of_path(path, contents())).collect()
        };
        let opened: Result<Vec<_>, DataError> =
            spawn_blocking(open).await.map_err(|error| DataError::cut_off(&error))?;
        files.extend(opened?);
    }
    for path in &source.paths {
        if Source::is_url(path) && !path.starts_with("file://") {
            Box::pin(objects(path, source, role, &mut files)).await?;
        } else {
            let (path, format) = (path.clone(), source.format.clone());
            let found = spawn_blocking(move || local(&path, &format, role, unlabeled)).await;
            files.extend(found.map_err(|error| DataError::cut_off(&error))??);
        }
    }
    if files.is_empty() {
        return Err(DataError::refused(role.place(), "no file is named"));
    }
    Ok(files)
}

/// Downloads what a source has on a hub, if that is not in the cache. `false`: `go_on`, asked a few times a
/// second with a line about how far it is, said to stop.
pub(in crate::data) async fn fetch(
    source: &Source,
    role: Role,
    settings: &HubSettings,
    go_on: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<bool, DataError> {
    let Some(set) = &source.hub else { return Ok(true) };
    Ok(Box::pin(hub::files(set, role, settings, go_on)).await?.is_some())
}

/// Files of this machine.
fn local(
    path: &str,
    format: &SourceFormat,
    role: Role,
    unlabeled: bool,
) -> Result<Vec<SourceFile>, DataError> {
    let path = path.strip_prefix("file://").unwrap_or(path);
    match format {
        SourceFormat::Glue => return glue(Path::new(path), role),
        SourceFormat::AclImdb => return acl_imdb(Path::new(path), role, unlabeled),
        _ => {}
    }
    let one = |path: PathBuf| SourceFile::of_path(path, Contents::Rows(format.clone()));
    if !Source::is_pattern(path) {
        return Ok(vec![one(path.into())?]);
    }
    let found = Source::files_of_pattern(path).map_err(|source| match source.kind() {
        io::ErrorKind::InvalidInput => DataError::refused(path, source.to_string()),
        _ => DataError::Read { path: path.to_owned(), source },
    })?;
    if found.is_empty() {
        return Err(DataError::refused(path, "no file matches the pattern"));
    }
    found.into_iter().map(one).collect()
}

/// The folder of a GLUE task. Its test split has no labels, so it can score nothing.
fn glue(folder: &Path, role: Role) -> Result<Vec<SourceFile>, DataError> {
    let name = match role {
        Role::Train => "train.tsv",
        Role::Validation => "dev.tsv",
        Role::Test => {
            let message = "the test split of GLUE has no labels: hold out {fraction: 0.1} instead";
            return Err(DataError::refused(role.place(), message));
        }
    };
    let format = SourceFormat::Delimited { delimiter: Delimiter::Tab, columns: None };
    Ok(vec![SourceFile::of_path(folder.join(name), Contents::Rows(format))?])
}

/// The folder of the Large Movie Review Dataset (Maas et al. 2011): one file per review.
fn acl_imdb(folder: &Path, role: Role, unlabeled: bool) -> Result<Vec<SourceFile>, DataError> {
    let part = match role {
        Role::Train => "train",
        Role::Test => "test",
        Role::Validation => {
            let message = "aclImdb has no validation split: write {fraction: 0.1}";
            return Err(DataError::refused(role.place(), message));
        }
    };
    let mut folders = vec!["neg", "pos"];
    if unlabeled && folder.join(part).join("unsup").is_dir() {
        folders.push("unsup");
    }
    let mut files = Vec::new();
    for class in folders {
        let folder = folder.join(part).join(class);
        let failed = |source| DataError::Read { path: folder.display().to_string(), source };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|ending| ending == "txt") {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            let message = "there are no .txt files here: is this the folder aclImdb?";
            return Err(DataError::refused(folder.display().to_string(), message));
        }
        paths.sort();
        for path in paths {
            files.push(SourceFile::of_path(path, Contents::Whole(class))?);
        }
    }
    Ok(files)
}

/// Objects of a store.
async fn objects(
    url: &str,
    source: &Source,
    role: Role,
    files: &mut Vec<SourceFile>,
) -> Result<(), DataError> {
    let (plain, options) = Source::split_options(url);
    let literal = plain.find(['*', '?', '[']).unwrap_or(plain.len());
    let folder = plain.get(..literal).and_then(|url| url.rfind('/')).unwrap_or(0);
    let (folder, name) = plain.split_at(folder);
    let name = name.trim_start_matches('/');
    if folder.ends_with(['/', ':']) || name.is_empty() {
        return Err(DataError::refused(url, "write s3://CONTAINER/FOLDER/FILE"));
    }
    objects_of(&Store::open(&format!("{folder}{options}"))?, name, &source.format, role, files)
        .await
}

/// The objects of `store` that `name`, which may be a pattern, stands for.
async fn objects_of(
    store: &Store,
    name: &str,
    format: &SourceFormat,
    role: Role,
    files: &mut Vec<SourceFile>,
) -> Result<(), DataError> {
    let url = store.url();
    let refused = |message: String| DataError::refused(role.place(), message);
    let keys = if Source::is_pattern(name) {
        let pattern = Pattern::new(name).map_err(|error| refused(format!("{name}: {error}")))?;
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
        let mut keys = store.list(&Key::default()).await?;
        keys.retain(|key| pattern.matches_with(key.as_ref(), options));
        keys
    } else {
        // As the store has it: `Key::from` would write `%23` for `#`.
        vec![Key::parse(name).map_err(|error| refused(format!("{name}: {error}")))?]
    };
    if keys.is_empty() {
        return Err(refused(format!("no object in {url} matches the pattern `{name}`")));
    }
    for key in keys {
        let shown = store.display(&key);
        let note = store.note(&key).await?;
        let identity = format!("{shown} {} {:?}", note.bytes, note.e_tag);
        let place = Place::Object { store: store.clone(), key };
        let contents = Contents::Rows(format.clone());
        let compression = Compression::of(&shown);
        let identity = ContentHash::of(identity.as_bytes());
        let mut file = SourceFile { shown, identity, place, contents, compression, stamp: None };
        if note.e_tag.is_none() {
            // Nothing but the contents tells them from others.
            file.fetch(&std::env::temp_dir()).await?;
            if let Place::Fetched(fetched) = &file.place {
                let hash = fetched.try_clone().and_then(ContentHash::of_reader);
                file.identity = hash.map_err(|source| file.failed(source))?;
            }
        }
        files.push(file);
    }
    Ok(())
}

impl Compression {
    pub(super) fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        match name.rsplit('.').next() {
            Some("gz") => Some(Self::Gzip),
            Some("zst") => Some(Self::Zstd),
            _ => None,
        }
    }
}

impl SourceFile {
    fn of_path(path: PathBuf, contents: Contents) -> Result<Self, DataError> {
        let shown = path.display().to_string();
        let failed = |source| DataError::Read { path: shown.clone(), source };
        let file = File::open(&path).map_err(failed)?;
        let stamp = stamp(&file).map_err(failed)?;
        let mut identity = ContentHash::of_reader(file).map_err(failed)?;
        if let Contents::Whole(class) = contents {
            // The folder says the class, the contents do not.
            identity = ContentHash::of(format!("{class} {}", identity.as_str()).as_bytes());
        }
        let compression = Compression::of(&shown);
        let place = Place::Path(path);
        Ok(Self { shown, identity, place, contents, compression, stamp: Some(stamp) })
    }

    fn failed(&self, source: io::Error) -> DataError {
        DataError::Read { path: self.shown.clone(), source }
    }

    /// Rows have line numbers (text formats) or row numbers (Parquet).
    pub(in crate::data) fn has_lines(&self) -> bool {
        !matches!(self.contents, Contents::Rows(SourceFormat::Parquet))
    }

    /// Brings an object of a store to this machine, into a file without a name below `folder`.
    pub(in crate::data) async fn fetch(&mut self, folder: &Path) -> Result<(), DataError> {
        let Place::Object { store, key } = &self.place else { return Ok(()) };
        let file = tempfile::tempfile_in(folder).map_err(|source| self.failed(source))?;
        let copy = file.try_clone().map_err(|source| self.failed(source))?;
        store.download(key, copy).await?;
        moved();
        self.place = Place::Fetched(file);
        Ok(())
    }

    /// The rows, from the first. One reader of a fetched file at a time.
    pub(in crate::data) fn rows(&self, wanted: &Wanted) -> Result<Rows, DataError> {
        let file = self.open()?;
        let rows = self.reader(file, wanted);
        rows.map_err(|mistake| mistake.of_file(&self.shown, self.has_lines()))
    }

    fn open(&self) -> Result<File, DataError> {
        let opened = match &self.place {
            Place::Path(path) => File::open(path),
            Place::Fetched(file) => file.try_clone().and_then(|mut file| {
                file.seek(SeekFrom::Start(0))?;
                Ok(file)
            }),
            Place::Object { .. } => Err(io::Error::other("the object was not fetched")),
        };
        opened.map_err(|source| self.failed(source))
    }

    fn reader(&self, file: File, wanted: &Wanted) -> Result<Rows, Mistake> {
        if let Contents::Rows(SourceFormat::Parquet) = self.contents {
            if self.compression.is_some() {
                return Err(Mistake::file("Parquet is compressed inside: decompress the file"));
            }
            return Ok(Box::new(Table::new(file, wanted)?));
        }
        let reader = decompressed(file, self.compression)?;
        Ok(match &self.contents {
            Contents::Whole(class) => Box::new(std::iter::once(whole(reader, class))),
            Contents::Rows(SourceFormat::JsonLines) => Box::new(Objects::new(reader, wanted)?),
            Contents::Rows(SourceFormat::Text) => Box::new(Texts::new(reader, wanted)?),
            Contents::Rows(SourceFormat::Delimited { delimiter, columns }) => {
                Box::new(Fields::new(reader, *delimiter, columns.as_deref(), wanted)?)
            }
            Contents::Rows(_) => return Err(Mistake::file("a folder cannot be read as a file")),
        })
    }

    /// Fails when the file is not the one whose identity was taken.
    pub(in crate::data) fn check_unchanged(&self) -> Result<(), DataError> {
        let (Place::Path(path), Some(before)) = (&self.place, self.stamp) else { return Ok(()) };
        let now = File::open(path).and_then(|file| stamp(&file));
        match now {
            Ok(now) if now == before => Ok(()),
            Ok(_) => Err(DataError::Changed { path: self.shown.clone() }),
            Err(source) => Err(self.failed(source)),
        }
    }
}

/// What is in a file that may be compressed.
pub(super) fn decompressed(
    file: File,
    compression: Option<Compression>,
) -> io::Result<Box<dyn Read + Send>> {
    Ok(match compression {
        None => Box::new(file),
        Some(Compression::Gzip) => {
            Box::new(flate2::read::MultiGzDecoder::new(io::BufReader::new(file)))
        }
        Some(Compression::Zstd) => Box::new(zstd::stream::read::Decoder::new(file)?),
    })
}

fn stamp(file: &File) -> io::Result<(u64, Option<SystemTime>)> {
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok((metadata.len(), metadata.modified().ok()))
}

#[cfg(test)]
pub(super) async fn objects_for_tests(
    store: &Store,
    name: &str,
    format: &SourceFormat,
) -> Result<Vec<SourceFile>, DataError> {
    let mut files = Vec::new();
    objects_of(store, name, format, Role::Train, &mut files).await?;
    Ok(files)
}

#[cfg(test)]
impl SourceFile {
    /// A file in memory.
    pub(in crate::data) fn of_bytes(shown: &str, format: SourceFormat, bytes: &[u8]) -> Self {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, bytes).unwrap();
        Self {
            shown: shown.to_owned(),
            identity: ContentHash::of(bytes),
            place: Place::Fetched(file),
            contents: Contents::Rows(format),
            compression: Compression::of(shown),
            stamp: None,
        }
    }
}
