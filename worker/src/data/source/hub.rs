//! Data sets of a Hugging Face hub, as Parquet files, downloaded once per machine into the cache of
//! `huggingface_hub`. Variables are those of the original: `HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`,
//! `HF_TOKEN`, `HF_HUB_OFFLINE`.
//!
//! What the cache knows as a revision's commit stays that commit, so that all splits of a sweep are
//! of one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::repository::{HFRepository, RepoTypeDataset};
use hf_hub::{HFClient, HFClientBuilder, HFError};
use muster_common::digest::ContentHash;
use muster_common::manifest::HubSet;
use muster_common::whole_file::write_whole;
use serde_json::json;

use super::Role;
use crate::data::DataError;
use crate::data::moves::moved;
use crate::model::{HubSettings, verify};

/// A download that breaks is begun so many times in all.
const ATTEMPTS: u32 = 4;
/// Between the first two of them; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest time for one file.
const FILE_DEADLINE: Duration = Duration::from_secs(60 * 60);
/// Longest time for the list of files.
const LIST_DEADLINE: Duration = Duration::from_secs(60);
/// Revision without a name.
const MAIN: &str = "main";
/// Configuration of files that lie in none.
const UNNAMED: &str = "default";
/// Folder of the cache beside the snapshots, for what `huggingface_hub` does not write down.
const LISTS: &str = "muster";
/// Deepest folder that is looked at in the cache.
const DEPTH_MAX: usize = 8;

/// The files of a split, in the order of their rows, downloaded where they are not in the cache.
pub(super) async fn files(
    set: &HubSet,
    role: Role,
    settings: &HubSettings,
) -> Result<Vec<PathBuf>, DataError> {
    let hub = Hub::new(set, role, settings)?;
    // What is not whole, or may not be, is looked for at the hub.
    if let Some(found) = hub.known_commit().and_then(|commit| hub.cached(&commit, settings.offline))
    {
        return Ok(found);
    }
    if settings.offline {
        let cache = hub.client.cache_dir().display();
        let message = format!(
            "split `{}` of `{}` is not whole in {cache}, and HF_HUB_OFFLINE forbids to download it",
            hub.split, set.name
        );
        return Err(hub.refused(message));
    }
    hub.download().await
}

struct Hub<'a> {
    set: &'a HubSet,
    role: Role,
    split: &'a str,
    client: HFClient,
    repository: HFRepository<RepoTypeDataset>,
}

impl<'a> Hub<'a> {
    fn new(set: &'a HubSet, role: Role, settings: &HubSettings) -> Result<Self, DataError> {
        // Whole files are tried again here, so the client need not be patient.
        let mut builder = HFClientBuilder::new().retry_max_attempts(1);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.endpoint(endpoint);
        }
        if let Some(cache) = &settings.cache {
            builder = builder.cache_dir(cache);
        }
        if let Some(token) = &settings.token {
            builder = builder.token(token);
        }
        let client = builder.build().map_err(|error| DataError::Hub {
            name: set.name.to_string(),
            endpoint: settings.endpoint.clone().unwrap_or_else(|| "the hub".to_owned()),
            reason: error.to_string(),
        })?;
        let owner = set.name.owner.clone().unwrap_or_default();
        let repository = client.dataset(owner, set.name.name.clone());
        let split = set.split.as_deref().unwrap_or(match role {
            Role::Train => "train",
            Role::Validation => "validation",
            Role::Test => "test",
        });
        Ok(Self { set, role, split, client, repository })
    }

    fn refused(&self, message: String) -> DataError {
        let place = match self.role {
            Role::Train => "data.train.hub",
            Role::Validation => "data.validation.hub",
            Role::Test => "data.test.hub",
        };
        DataError::refused(place, message)
    }

    fn failed(&self, reason: String) -> DataError {
        let (name, endpoint) = (self.set.name.to_string(), self.client.endpoint().to_owned());
        DataError::Hub { name, endpoint, reason }
    }

    fn revision(&self) -> &str {
        self.set.name.revision.as_deref().unwrap_or(MAIN)
    }

    /// The folder of the data set in the cache, as `huggingface_hub` names it.
    fn folder(&self) -> PathBuf {
        let repository = self.set.name.repository().replace('/', "--");
        self.client.cache_dir().join(format!("datasets--{repository}"))
    }

    /// The commit of the revision, where it is one or the cache knows it.
    fn known_commit(&self) -> Option<String> {
        let revision = self.revision();
        if revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Some(revision.to_owned());
        }
        let written = std::fs::read_to_string(self.folder().join("refs").join(revision)).ok()?;
        Some(written.trim().to_owned())
    }

    fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit)
    }

    /// Where it is written down which files the split has at `commit`, when all are downloaded.
    fn list(&self, commit: &str) -> PathBuf {
        let what = format!("{commit} {:?} {}", self.set.config, self.split);
        let name = ContentHash::of(what.as_bytes()).short().to_owned();
        self.folder().join(LISTS).join(format!("{name}.json"))
    }

    /// The files of the split in the cache, if they are all there. `trusting`: also those that may not be all, as
    /// nobody can be asked.
    fn cached(&self, commit: &str, trusting: bool) -> Option<Vec<PathBuf>> {
        let snapshot = self.snapshot(commit);
        let written = std::fs::read(self.list(commit)).ok();
        let written = written.and_then(|list| serde_json::from_slice::<Vec<String>>(&list).ok());
        let is_there = |name: &String| snapshot.join(name).is_file();
        let known = written.filter(|names| !names.is_empty() && names.iter().all(is_there));
        let names = known.or_else(|| {
            let config = self.set.config.as_deref();
            let names = choose(&listed(&snapshot), config, self.split).ok()?;
            let is_whole = names.iter().all(|name| tells_all(name, config));
            if !is_whole && trusting {
                tracing::warn!(
                    "whether all files of split `{}` of `{}` are in the cache is not known there",
                    self.split,
                    self.set.name
                );
            }
            (is_whole || trusting).then_some(names)
        })?;
        Some(names.into_iter().map(|name| snapshot.join(name)).collect())
    }

    async fn download(&self) -> Result<Vec<PathBuf>, DataError> {
        let (name, endpoint) = (&self.set.name, self.client.endpoint());
        tracing::info!("downloading split `{}` of `{name}` from {endpoint}", self.split);
        let mut attempt = 0;
        loop {
            match self.download_once().await {
                Err(error @ DataError::Hub { .. }) if attempt + 1 < ATTEMPTS => {
                    tracing::warn!("{error}; trying again");
                    tokio::time::sleep(PAUSE * 2u32.pow(attempt)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn download_once(&self) -> Result<Vec<PathBuf>, DataError> {
        let known = self.known_commit();
        let revision = known.as_deref().unwrap_or(self.revision());
        let info = self.repository.info().revision(revision).send();
        let info = tokio::time::timeout(LIST_DEADLINE, info).await;
        let info = info.map_err(|_| self.failed("the hub does not answer".to_owned()))?;
        let info = info.map_err(|error| self.explain(&error))?;
        let commit = info.sha.ok_or_else(|| self.failed("the hub names no commit".to_owned()))?;
        let listed: Vec<String> =
            info.siblings.into_iter().flatten().map(|sibling| sibling.rfilename).collect();
        let names = choose(&listed, self.set.config.as_deref(), self.split).map_err(|why| {
            self.refused(format!("`{}` at {}: {why}", self.set.name, self.client.endpoint()))
        })?;
        let mut paths = Vec::with_capacity(names.len());
        for name in &names {
            paths.push(self.file(&commit, name).await?);
            moved();
        }
        self.note_whole(&commit, &names)?;
        self.remember(&commit)?;
        Ok(paths)
    }

    async fn file(&self, commit: &str, name: &str) -> Result<PathBuf, DataError> {
        let download = self.repository.download_file().filename(name).revision(commit).send();
        let path = tokio::time::timeout(FILE_DEADLINE, download).await;
        let path = path.map_err(|_| self.failed(format!("{name} takes too long")))?;
        let path = path.map_err(|error| self.explain(&error))?;
        let checked = path.clone();
        let verified = tokio::task::spawn_blocking(move || verify(&checked, 0)).await;
        if let Err(reason) = verified.map_err(|error| DataError::cut_off(&error))? {
            // Whatever came instead of the file must not be taken for it the next time.
            let blob = path.canonicalize().unwrap_or_else(|_| path.clone());
            for path in [&blob, &path] {
                if let Err(source) = std::fs::remove_file(path)
                    && source.kind() != std::io::ErrorKind::NotFound
                {
                    return Err(DataError::Read { path: path.display().to_string(), source });
                }
            }
            return Err(self.failed(format!("{name} came damaged ({reason})")));
        }
        Ok(path)
    }

    /// Writes down which files the split has.
    fn note_whole(&self, commit: &str, names: &[String]) -> Result<(), DataError> {
        let path = self.list(commit);
        let written = std::fs::create_dir_all(path.parent().unwrap_or(&path))
            .and_then(|()| write_whole(&path, json!(names).to_string()));
        written.map_err(|source| DataError::Read { path: path.display().to_string(), source })
    }

    /// Writes down which commit the revision is, so that it is found in the cache.
    fn remember(&self, commit: &str) -> Result<(), DataError> {
        let revision = self.revision();
        if revision == commit {
            return Ok(());
        }
        let path = self.folder().join("refs").join(revision);
        let beside = path.with_extension(format!("muster-{}", std::process::id()));
        let parent = path.parent().unwrap_or(&path);
        let written = std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&beside, commit))
            // Readers see the old commit or the new one, never half of it.
            .and_then(|()| std::fs::rename(&beside, &path));
        written.map_err(|source| DataError::Read { path: path.display().to_string(), source })
    }

    fn explain(&self, error: &HFError) -> DataError {
        let (name, endpoint) = (&self.set.name, self.client.endpoint());
        match error {
            HFError::RepoNotFound { .. } | HFError::RevisionNotFound { .. } => {
                let mend = "check the name and the revision";
                self.refused(format!("there is no data set `{name}` at {endpoint}: {mend}"))
            }
            HFError::AuthRequired { .. } | HFError::Forbidden { .. } => {
                let mend = "check the name; if it is private or gated, HF_TOKEN must be allowed to read it";
                self.refused(format!("{endpoint} does not show `{name}`: {mend}"))
            }
            error => self.failed(error.to_string()),
        }
    }
}

/// Whether the name of a file says how many its split has, and belongs to the only configuration there can be: then
/// what lies in the cache shows that it is all.
fn tells_all(name: &str, config: Option<&str>) -> bool {
    let Some((found, _, count)) = read_name(name) else { return false };
    let is_one_of_many = Path::new(name)
        .file_stem()
        .is_some_and(|stem| stem.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()));
    (config.is_some() || found == UNNAMED) && (count.is_some() || !is_one_of_many)
}

/// Names of all files below a folder of the cache, relative to it.
fn listed(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut open = vec![(folder.to_path_buf(), 0)];
    while let Some((path, depth)) = open.pop() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && depth < DEPTH_MAX {
                open.push((path, depth + 1));
            } else if path.is_file()
                && let Some(name) = path.strip_prefix(folder).ok().and_then(Path::to_str)
            {
                names.push(name.to_owned());
            }
        }
    }
    names
}

/// Configuration and split of a Parquet file, and how many files the split has, by the ways in
/// which data sets are laid out: `data/train-00000-of-00002.parquet`, `CONFIG/test.parquet`, and
/// `CONFIG/train/0000.parquet` of converted ones.
fn read_name(name: &str) -> Option<(&str, &str, Option<usize>)> {
    let stem = name.strip_suffix(".parquet")?;
    let (folder, stem) = stem.rsplit_once('/').unwrap_or(("", stem));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number(stem) {
        let (config, split) = folder.rsplit_once('/').unwrap_or(("", folder));
        let config = if config.is_empty() { UNNAMED } else { config };
        return (!split.is_empty()).then_some((config, split, None));
    }
    let parts: Vec<&str> = stem.split('-').collect();
    let (split, count) = match parts.as_slice() {
        [split, index, "of", count] if is_number(index) && is_number(count) => {
            (*split, count.parse().ok())
        }
        // Newer files carry a piece of their digest as well.
        [split, index, "of", count, _] if is_number(index) && is_number(count) => {
            (*split, count.parse().ok())
        }
        [split] => (*split, None),
        _ => return None,
    };
    let config = if matches!(folder, "" | "data") { UNNAMED } else { folder };
    Some((config, split, count))
}

/// Names of the files of a split, in order; the error says what there is instead.
fn choose(listed: &[String], config: Option<&str>, split: &str) -> Result<Vec<String>, String> {
    type Files<'a> = Vec<(&'a str, Option<usize>)>;
    let mut found: BTreeMap<&str, BTreeMap<&str, Files<'_>>> = BTreeMap::new();
    for name in listed {
        if let Some((config, split, count)) = read_name(name) {
            found.entry(config).or_default().entry(split).or_default().push((name, count));
        }
    }
    if found.is_empty() {
        return Err("it has no Parquet files that are called after a split; try the revision \
                    `@refs/convert/parquet`, or download it and write `path:`"
            .to_owned());
    }
    let list = |names: BTreeSet<&str>| names.into_iter().take(20).collect::<Vec<_>>().join("`, `");
    let config = match config {
        Some(config) => config,
        None if found.len() == 1 => found.keys().next().copied().unwrap_or(UNNAMED),
        None => {
            let names = list(found.keys().copied().collect());
            return Err(format!("there are several configurations, `{names}`: add `config:`"));
        }
    };
    let Some(splits) = found.get(config) else {
        let names = list(found.keys().copied().collect());
        return Err(format!("there is no configuration `{config}`; there are `{names}`"));
    };
    let Some(files) = splits.get(split) else {
        let names = list(splits.keys().copied().collect());
        return Err(format!("there is no split `{split}`; there are `{names}`: add `split:`"));
    };
    let count = files.iter().find_map(|(_, count)| *count);
    if let Some(count) = count.filter(|count| *count != files.len()) {
        return Err(format!("{} of {count} files of split `{split}` are there", files.len()));
    }
    let mut names: Vec<String> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};
    use std::thread;

    use muster_common::manifest::HubName;
    use proptest::prelude::*;

    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn choice(names: &[&str], config: Option<&str>, split: &str) -> Result<Vec<String>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        choose(&names, config, split)
    }

    #[test]
    fn splits_are_found_in_every_layout() {
        let sst2 =
            ["README.md", "data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"];
        assert_eq!(choice(&sst2, None, "train").unwrap(), ["data/train-00000-of-00001.parquet"]);
        let told = choice(&sst2, None, "validation").unwrap_err();
        assert!(told.contains("there are `test`, `train`"), "{told}");
        let imdb =
            ["plain_text/train-00001-of-00002.parquet", "plain_text/train-00000-of-00002.parquet"];
        let found = choice(&imdb, None, "train").unwrap();
        assert_eq!(
            found,
            ["plain_text/train-00000-of-00002.parquet", "plain_text/train-00001-of-00002.parquet"]
        );
        assert!(choice(&imdb[..1], None, "train").unwrap_err().contains("1 of 2 files"));
        let glue = ["cola/train-00000-of-00001.parquet", "sst2/train-00000-of-00001.parquet"];
        assert!(
            choice(&glue, None, "train").unwrap_err().contains("`cola`, `sst2`: add `config:`")
        );
        assert_eq!(choice(&glue, Some("sst2"), "train").unwrap(), [glue[1]]);
        assert!(
            choice(&glue, Some("sst"), "train").unwrap_err().contains("no configuration `sst`")
        );
        let converted = [
            "default/train/0001.parquet",
            "default/train/0000.parquet",
            "default/test/0000.parquet",
        ];
        assert_eq!(choice(&converted, None, "train").unwrap(), [converted[1], converted[0]]);
        assert_eq!(choice(&["train.parquet"], None, "train").unwrap(), ["train.parquet"]);
        let hashed = ["data/train-00000-of-00001-0123abc.parquet"];
        assert_eq!(choice(&hashed, None, "train").unwrap(), hashed);
        assert!(
            choice(&["train.csv", "a-b-c.parquet"], None, "train").unwrap_err().contains("convert")
        );
    }

    proptest! {
        #[test]
        fn any_list_is_chosen_from_or_refused(
            names in proptest::collection::vec(r"[a-c/.\-]{0,12}(-0-of-2)?(\.parquet)?|[a-b]/[0-9]\.parquet", 0..8),
            config in proptest::option::of("[a-c]"), split in "[a-c]?",
        ) {
            if let Ok(found) = choose(&names, config.as_deref(), &split) {
                prop_assert!(!found.is_empty() && found.is_sorted());
                prop_assert!(found.iter().all(|name| names.contains(name)));
            }
        }
    }

    /// Files of the data set `org/set`, how often each was sent, and how often one is sent damaged.
    #[derive(Default)]
    struct State {
        files: BTreeMap<String, Vec<u8>>,
        sent: BTreeMap<String, usize>,
        damaged: usize,
    }

    fn serve(files: &[(&str, &[u8])]) -> (HubSettings, Arc<Mutex<State>>, tempfile::TempDir) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cache = tempfile::tempdir().unwrap();
        let settings = HubSettings {
            endpoint: Some(format!("http://{}", listener.local_addr().unwrap())),
            cache: Some(cache.path().to_path_buf()),
            token: None,
            offline: false,
        };
        let files = files.iter().map(|(name, body)| ((*name).to_owned(), body.to_vec())).collect();
        let state = Arc::new(Mutex::new(State { files, ..State::default() }));
        let shared = Arc::clone(&state);
        // Ends with the test program.
        thread::spawn(move || {
            for connection in listener.incoming() {
                let state = Arc::clone(&shared);
                thread::spawn(move || {
                    let _a_client_that_leaves = answer(&connection.unwrap(), &state);
                });
            }
        });
        (settings, state, cache)
    }

    fn answer(mut connection: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
        let mut reader = BufReader::new(connection);
        loop {
            let mut request = String::new();
            if reader.read_line(&mut request)? == 0 {
                return Ok(());
            }
            let mut header = request.clone();
            while !header.trim().is_empty() {
                header.clear();
                reader.read_line(&mut header)?;
            }
            let mut words = request.split(' ');
            let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let (head, body) = respond(&mut state.lock().unwrap(), method, path);
            connection.write_all(head.as_bytes())?;
            if method == "GET" {
                connection.write_all(&body)?;
            }
        }
    }

    fn respond(state: &mut State, method: &str, path: &str) -> (String, Vec<u8>) {
        let head = |status: &str, headers: &str, body: &[u8]| {
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len())
        };
        if path.starts_with("/api/datasets/org/set/revision/") {
            let names: Vec<_> =
                state.files.keys().map(|name| json!({ "rfilename": name })).collect();
            let body = json!({ "id": "org/set", "sha": COMMIT, "siblings": names });
            let body = body.to_string().into_bytes();
            return (head("200 OK", "", &body), body);
        }
        let name = path.strip_prefix(&format!("/datasets/org/set/resolve/{COMMIT}/"));
        let Some((name, body)) = name.and_then(|name| state.files.get_key_value(name)) else {
            let body = br#"{"error":"Repository not found"}"#.to_vec();
            return (head("404 Not Found", "x-error-code: RepoNotFound\r\n", &body), body);
        };
        let (name, mut body) = (name.clone(), body.clone());
        let etag = ContentHash::of(&body);
        let headers = format!("etag: \"{}\"\r\nx-repo-commit: {COMMIT}\r\n", etag.as_str());
        let head = head("200 OK", &headers, &body);
        if method == "GET" {
            *state.sent.entry(name).or_default() += 1;
            if state.damaged > 0 {
                state.damaged -= 1;
                body[0] ^= 1;
            }
        }
        (head, body)
    }

    fn set(name: &str) -> HubSet {
        HubSet { name: HubName::parse(name).unwrap(), config: None, split: None }
    }

    #[tokio::test]
    async fn a_split_is_downloaded_once_and_then_taken_from_the_cache() {
        let (mut settings, state, _cache) = serve(&[
            ("README.md", b"not wanted"),
            ("data/train-00000-of-00002.parquet", b"first"),
            ("data/train-00001-of-00002.parquet", b"second"),
            ("data/test-00000-of-00001.parquet", b"third"),
        ]);
        state.lock().unwrap().damaged = 1;
        let read = |paths: Vec<PathBuf>| -> Vec<String> {
            paths.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
        };
        let set = set("org/set");
        let found = files(&set, Role::Train, &settings).await.unwrap();
        assert_eq!(read(found), ["first", "second"]);
        let error = files(&set, Role::Validation, &settings).await.unwrap_err();
        assert!(
            error.is_permanent() && error.to_string().contains("no split `validation`"),
            "{error}"
        );
        settings.offline = true;
        let found = files(&set, Role::Train, &settings).await.unwrap();
        assert_eq!(read(found), ["first", "second"]);
        let error = files(&set, Role::Test, &settings).await.unwrap_err().to_string();
        assert!(
            error.starts_with("data.test.hub: ") && error.contains("HF_HUB_OFFLINE"),
            "{error}"
        );
        let sent: Vec<usize> = state.lock().unwrap().sent.values().copied().collect();
        assert_eq!(sent, [2, 1], "the first came damaged once");
    }

    #[tokio::test]
    async fn what_a_download_that_was_cut_off_has_left_is_not_the_whole_split() {
        let (settings, _state, cache) = serve(&[
            ("default/train/0000.parquet", b"first"),
            ("default/train/0001.parquet", b"second"),
            ("other/train/0000.parquet", b"third"),
        ]);
        let set = HubSet { config: Some("default".to_owned()), ..set("org/set") };
        let folder = cache.path().join("datasets--org--set");
        let snapshot = folder.join("snapshots").join(COMMIT);
        std::fs::create_dir_all(snapshot.join("default/train")).unwrap();
        std::fs::write(snapshot.join("default/train/0000.parquet"), b"first").unwrap();
        std::fs::create_dir_all(folder.join("refs")).unwrap();
        std::fs::write(folder.join("refs/main"), COMMIT).unwrap();
        assert_eq!(files(&set, Role::Train, &settings).await.unwrap().len(), 2);
        // From here on the cache knows, and nobody is asked.
        let nobody =
            HubSettings { endpoint: Some("http://127.0.0.1:1".to_owned()), ..settings.clone() };
        assert_eq!(files(&set, Role::Train, &nobody).await.unwrap().len(), 2);
        std::fs::remove_file(snapshot.join("default/train/0001.parquet")).unwrap();
        assert!(files(&set, Role::Train, &nobody).await.is_err());
        // Which of several configurations is meant does not follow from which one is there.
        let unnamed = HubSet { config: None, ..set };
        std::fs::create_dir_all(snapshot.join("other/train")).unwrap();
        std::fs::rename(snapshot.join("default"), cache.path().join("away")).unwrap();
        std::fs::write(snapshot.join("other/train/0000.parquet"), b"third").unwrap();
        let error = files(&unnamed, Role::Train, &settings).await.unwrap_err().to_string();
        assert!(error.contains("several configurations"), "{error}");
    }

    #[tokio::test]
    async fn what_the_hub_does_not_have_is_told() {
        let (settings, _state, _cache) = serve(&[("data/train.parquet", b"x")]);
        let error = files(&set("org/other"), Role::Train, &settings).await.unwrap_err();
        assert!(
            error.is_permanent() && error.to_string().contains("no data set `org/other`"),
            "{error}"
        );
        let nobody = HubSettings { endpoint: Some("http://127.0.0.1:1".to_owned()), ..settings };
        let error = files(&set("org/set"), Role::Train, &nobody).await.unwrap_err();
        assert!(!error.is_permanent(), "{error}");
    }
}
