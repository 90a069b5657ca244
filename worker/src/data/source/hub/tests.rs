//! Against a local server that speaks the hub's protocol.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;

use muster_common::manifest::HubName;

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Files of the data set `org/set`, how often each was sent, and how often one is still sent damaged.
#[derive(Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    sent: BTreeMap<String, usize>,
    damaged: usize,
    /// Contents do not come for a long time.
    is_silent: bool,
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
        if method == "GET" && path.contains("/resolve/") && state.lock().unwrap().is_silent {
            thread::sleep(Duration::from_secs(600));
        }
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
        let names: Vec<_> = state.files.keys().map(|name| json!({ "rfilename": name })).collect();
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

async fn fetched(
    set: &HubSet,
    role: Role,
    settings: &HubSettings,
) -> Result<Vec<PathBuf>, DataError> {
    files(set, role, settings, |_| ControlFlow::Continue(())).await.map(Option::unwrap)
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
    let found = fetched(&set, Role::Train, &settings).await.unwrap();
    assert_eq!(read(found), ["first", "second"]);
    let error = fetched(&set, Role::Validation, &settings).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("no split `validation`"), "{error}");
    settings.offline = true;
    let found = fetched(&set, Role::Train, &settings).await.unwrap();
    assert_eq!(read(found), ["first", "second"]);
    let error = fetched(&set, Role::Test, &settings).await.unwrap_err().to_string();
    assert!(error.starts_with("data.test.hub: ") && error.contains("HF_HUB_OFFLINE"), "{error}");
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
    assert_eq!(fetched(&set, Role::Train, &settings).await.unwrap().len(), 2);
    // From here on the cache knows, and nobody is asked.
    let nobody =
        HubSettings { endpoint: Some("http://127.0.0.1:1".to_owned()), ..settings.clone() };
    assert_eq!(fetched(&set, Role::Train, &nobody).await.unwrap().len(), 2);
    std::fs::remove_file(snapshot.join("default/train/0001.parquet")).unwrap();
    assert!(fetched(&set, Role::Train, &nobody).await.is_err());
    // Which of several configurations is meant does not follow from which one is there.
    let unnamed = HubSet { config: None, ..set };
    std::fs::create_dir_all(snapshot.join("other/train")).unwrap();
    std::fs::rename(snapshot.join("default"), cache.path().join("away")).unwrap();
    std::fs::write(snapshot.join("other/train/0000.parquet"), b"third").unwrap();
    let error = fetched(&unnamed, Role::Train, &settings).await.unwrap_err().to_string();
    assert!(error.contains("several configurations"), "{error}");
}

#[tokio::test]
async fn what_the_hub_does_not_have_is_told() {
    let (settings, _state, _cache) = serve(&[("data/train.parquet", b"x")]);
    let error = fetched(&set("org/other"), Role::Train, &settings).await.unwrap_err();
    assert!(
        error.is_permanent() && error.to_string().contains("no data set `org/other`"),
        "{error}"
    );
    let nobody = HubSettings { endpoint: Some("http://127.0.0.1:1".to_owned()), ..settings };
    let error = fetched(&set("org/set"), Role::Train, &nobody).await.unwrap_err();
    assert!(!error.is_permanent(), "{error}");
}

#[test]
fn eight_that_want_the_same_download_it_once() {
    let names = ["default/train/0000.parquet", "default/train/0001.parquet"];
    let (settings, state, _cache) = serve(&[(names[0], b"first"), (names[1], b"second")]);
    let found: Vec<Vec<PathBuf>> = thread::scope(|scope| {
        let fetch = || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(fetched(&set("org/set"), Role::Train, &settings)).unwrap()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(fetch)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(found.iter().all(|paths| paths.len() == 2 && *paths == found[0]));
    let sent = state.lock().unwrap().sent.clone();
    assert!(sent.len() == 2 && sent.values().all(|count| *count == 1), "{sent:?}");
}

#[tokio::test]
async fn whoever_is_told_to_stop_does_not_wait_for_the_hub() {
    let (settings, state, _cache) = serve(&[("data/train.parquet", b"x")]);
    state.lock().unwrap().is_silent = true;
    let (set, mut lines) = (set("org/set"), Vec::new());
    let go_on = |line: &str| {
        lines.push(line.to_owned());
        let is_downloading = line.starts_with("downloading org/set: data/train.parquet ");
        if is_downloading { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let begun = std::time::Instant::now();
    let left = files(&set, Role::Train, &settings, go_on).await.unwrap();
    assert!(left.is_none() && begun.elapsed() < Duration::from_secs(60), "{lines:?}");
    // The lock went with whoever left.
    state.lock().unwrap().is_silent = false;
    assert_eq!(fetched(&set, Role::Train, &settings).await.unwrap().len(), 1);
}
