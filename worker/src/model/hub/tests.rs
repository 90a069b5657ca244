//! Against a local server that speaks the hub's protocol: information about a revision, headers and
//! contents of its files.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;

use super::*;
use crate::model::{Classifier, Pretrained};
use serde_json::json;
use tch::Device;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const LATER: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// What the server does with the next requests for the contents of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Half of the file, then the connection ends.
    Truncated,
    /// An error page that says so.
    Error,
    /// As many bytes as announced, but others.
    Garbled,
    /// Nothing for a long time.
    Silent,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<String, Vec<u8>>,
    commit: String,
    token: Option<String>,
    faults: Vec<Fault>,
    /// Contents sent, by file.
    sent: BTreeMap<String, usize>,
    requests: usize,
    /// Who has the contents of weights; absent: this server.
    elsewhere: Option<String>,
    /// The tokens that came with requests for what this server has for another one.
    tokens_elsewhere: Vec<Option<String>>,
}

struct Server {
    endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Serves the model `org/tiny` of these files, which is also `tiny`, and was `old/tiny` once.
    fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = State { files, commit: COMMIT.to_owned(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        // Ends with the test program.
        thread::spawn(move || {
            for connection in listener.incoming() {
                let (connection, state) = (connection.unwrap(), Arc::clone(&shared));
                thread::spawn(move || {
                    let _a_client_that_leaves = answer(&connection, &state);
                });
            }
        });
        Self { endpoint, state }
    }

    fn tiny() -> Self {
        Self::start(tiny_files())
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    fn settings(&self, cache: &Path) -> HubSettings {
        HubSettings {
            endpoint: Some(self.endpoint.clone()),
            cache: Some(cache.to_path_buf()),
            token: None,
            offline: false,
        }
    }
}

/// Directory of the tiny golden model.
fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/hf/tiny")
}

fn tiny_files() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for name in [CONFIG_FILE, WEIGHTS_FILE] {
        files.insert(name.to_owned(), std::fs::read(golden().join(name)).unwrap());
    }
    files.insert("vocab.txt".to_owned(), b"[PAD]\n[CLS]\n[SEP]\n".to_vec());
    files.insert("README.md".to_owned(), b"not wanted".to_vec());
    files
}

fn answer(connection: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut token = None;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.to_lowercase().strip_prefix("authorization: bearer ") {
                token = Some(value.to_owned());
            }
        }
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if !respond(connection, state, method, path, token.as_deref())? {
            return Ok(());
        }
    }
}

/// Status, headers and content for what is no file of `org/tiny`: what it has for another server, and what
/// has another name now.
fn aside(
    state: &mut State,
    path: &str,
    token: Option<&str>,
) -> Option<(&'static str, String, Vec<u8>)> {
    if let Some(name) = path.strip_prefix("/elsewhere/") {
        state.tokens_elsewhere.push(token.map(ToOwned::to_owned));
        let content = state.files.get(name).cloned().unwrap_or_default();
        return Some(("200 OK", String::new(), content));
    }
    let was_renamed = path.starts_with("/api/models/old/tiny/") || path.starts_with("/old/tiny/");
    was_renamed.then(|| {
        let location = format!("location: {}\r\n", path.replacen("/old/", "/org/", 1));
        ("307 Temporary Redirect", location, Vec::new())
    })
}

/// Whether the connection goes on.
fn respond(
    connection: &TcpStream,
    state: &Mutex<State>,
    method: &str,
    path: &str,
    token: Option<&str>,
) -> std::io::Result<bool> {
    let mut state = state.lock().unwrap();
    state.requests += 1;
    let send = |status: &str, headers: &str, body: &[u8]| {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n");
        let mut connection = connection;
        connection.write_all(head.as_bytes())?;
        if method == "GET" { connection.write_all(body) } else { Ok(()) }
    };
    if let Some((status, headers, body)) = aside(&mut state, path, token) {
        send(status, &headers, &body)?;
        return Ok(true);
    }
    if state.token.is_some() && state.token.as_deref() != token {
        let body = br#"{"error":"Invalid username or password."}"#;
        send("401 Unauthorized", "x-error-message: Invalid username or password.\r\n", body)?;
        return Ok(true);
    }
    let path = path.replacen("/org/", "/", 1);
    if path.starts_with("/api/models/tiny/revision/main") {
        let siblings: Vec<_> =
            state.files.keys().map(|name| json!({ "rfilename": name })).collect();
        let body = json!({ "id": "org/tiny", "sha": state.commit, "siblings": siblings });
        send("200 OK", "", body.to_string().as_bytes())?;
        return Ok(true);
    }
    let commit = state.commit.clone();
    let file = path.strip_prefix(&format!("/tiny/resolve/{commit}/"));
    let Some((name, content)) = file.and_then(|file| state.files.get_key_value(file)) else {
        let code = "x-error-code: RepoNotFound\r\n";
        send("404 Not Found", code, br#"{"error":"Repository not found"}"#)?;
        return Ok(true);
    };
    let (name, content) = (name.clone(), content.clone());
    let etag = if name.ends_with(".safetensors") {
        ContentHash::of(&content).as_str().to_owned()
    } else {
        format!("etag-of-{name}")
    };
    if let Some(server) = state.elsewhere.as_ref().filter(|_| name.ends_with(".safetensors")) {
        let length = content.len();
        let headers = format!(
            "location: {server}/elsewhere/{name}\r\netag: \"of-the-answer\"\r\nx-linked-etag: \"{etag}\"\r\n\
             x-linked-size: {length}\r\nx-repo-commit: {commit}\r\n"
        );
        send("302 Found", &headers, b"")?;
        return Ok(true);
    }
    let headers = format!("etag: \"{etag}\"\r\nx-repo-commit: {commit}\r\n");
    if method == "HEAD" {
        send("200 OK", &headers, &content)?;
        return Ok(true);
    }
    *state.sent.entry(name.clone()).or_default() += 1;
    let fault = if name.ends_with(".safetensors") { state.faults.pop() } else { None };
    // Whoever waits for a silent server must not keep the others from it.
    drop(state);
    send_content(connection, fault, &headers, &content)
}

/// Whether the connection goes on.
fn send_content(
    mut connection: &TcpStream,
    fault: Option<Fault>,
    headers: &str,
    content: &[u8],
) -> std::io::Result<bool> {
    let (status, mut body) = match fault {
        Some(Fault::Error) => ("400 Bad Request", b"this is no model".to_vec()),
        _ => ("200 OK", content.to_vec()),
    };
    let length = body.len();
    match fault {
        Some(Fault::Garbled) => *body.last_mut().unwrap() ^= 1,
        Some(Fault::Truncated) => body.truncate(length / 2),
        Some(Fault::Silent) => thread::sleep(Duration::from_secs(30)),
        Some(Fault::Error) | None => {}
    }
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n");
    connection.write_all(head.as_bytes())?;
    connection.write_all(&body)?;
    Ok(body.len() == length)
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    cache: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        Self { runtime, cache: tempfile::tempdir().unwrap() }
    }

    fn fetch(&self, name: &str, settings: &HubSettings) -> Result<PathBuf, HubError> {
        let name = HubName::parse(name).unwrap();
        let go_on = |_: &str| ControlFlow::Continue(());
        fetch(self.runtime.handle(), &name, settings, go_on).map(Option::unwrap)
    }

    fn settings(&self, server: &Server) -> HubSettings {
        server.settings(self.cache.path())
    }
}

#[test]
fn a_model_is_downloaded_once_and_stays_what_it_is() {
    let (server, bench) = (Server::tiny(), Bench::new());
    let settings = bench.settings(&server);
    let directory = bench.fetch("org/tiny", &settings).unwrap();
    assert_eq!(
        Pretrained::read(&directory).unwrap().weights,
        Pretrained::read(&golden()).unwrap().weights
    );
    assert!(directory.join("vocab.txt").is_file() && !directory.join("README.md").exists());
    let layout = format!("models--org--tiny/snapshots/{COMMIT}");
    assert_eq!(directory, bench.cache.path().join(layout));

    // The branch moves on; what is in the cache is not asked for again.
    let requests = server.with(|state| {
        LATER.clone_into(&mut state.commit);
        state.requests
    });
    assert_eq!(bench.fetch("org/tiny", &settings).unwrap(), directory);
    let offline = HubSettings { offline: true, ..settings.clone() };
    assert_eq!(bench.fetch("org/tiny", &offline).unwrap(), directory);
    let commit = format!("org/tiny@{COMMIT}");
    assert_eq!(bench.fetch(&commit, &settings).unwrap(), directory);
    assert_eq!(server.with(|state| state.requests), requests);
    let sent = server.with(|state| state.sent.clone());
    assert!(sent.values().all(|count| *count == 1), "{sent:?}");
}

#[test]
fn several_weights_files_are_downloaded_by_their_index() {
    let mut files = tiny_files();
    let whole = files.remove(WEIGHTS_FILE).unwrap();
    let index = json!({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}});
    files.insert(WEIGHTS_INDEX_FILE.to_owned(), index.to_string().into_bytes());
    files.insert("model-1.safetensors".to_owned(), whole.clone());
    files.insert("model-2.safetensors".to_owned(), b"second".to_vec());
    let (server, bench) = (Server::start(files), Bench::new());
    let directory = bench.fetch("org/tiny", &bench.settings(&server)).unwrap();
    assert_eq!(std::fs::read(directory.join("model-1.safetensors")).unwrap(), whole);
    assert!(directory.join("model-2.safetensors").is_file());
    // A part that is gone from the cache is fetched again.
    std::fs::remove_file(directory.join("model-2.safetensors")).unwrap();
    let again = bench.fetch("org/tiny", &bench.settings(&server)).unwrap();
    assert!(again.join("model-2.safetensors").is_file());
}

#[test]
fn a_tokenizer_that_another_program_did_not_want_is_fetched() {
    let (server, bench) = (Server::tiny(), Bench::new());
    let settings = bench.settings(&server);
    let directory = bench.fetch("org/tiny", &settings).unwrap();
    std::fs::remove_file(directory.join("vocab.txt")).unwrap();
    let offline = HubSettings { offline: true, ..settings.clone() };
    let error = bench.fetch("org/tiny", &offline).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
    assert_eq!(bench.fetch("org/tiny", &settings).unwrap(), directory);
    assert!(directory.join("vocab.txt").is_file());
}

#[test]
fn a_download_that_breaks_is_begun_again_and_never_taken_for_whole() {
    for fault in [Fault::Truncated, Fault::Error, Fault::Garbled] {
        let (server, bench) = (Server::tiny(), Bench::new());
        let settings = bench.settings(&server);
        server.with(|state| state.faults = vec![fault; 100]);
        let error = bench.fetch("org/tiny", &settings).unwrap_err();
        assert!(!error.is_permanent(), "{error}");
        assert!(error.to_string().contains("org/tiny"), "{error}");
        let attempts = server.with(|state| state.sent[WEIGHTS_FILE]);
        assert_eq!(attempts, ATTEMPTS as usize, "{fault:?}");
        let offline = HubSettings { offline: true, ..settings.clone() };
        assert!(bench.fetch("org/tiny", &offline).is_err(), "{fault:?} left something");
        server.with(|state| state.faults = vec![fault]);
        let directory = bench.fetch("org/tiny", &settings).unwrap();
        assert!(Classifier::from_directory(&directory, Device::Cpu).is_ok());
    }
}

#[test]
fn what_the_hub_refuses_is_said_with_its_mend() {
    let (server, bench) = (Server::tiny(), Bench::new());
    let settings = bench.settings(&server);
    let error = bench.fetch("org/other", &settings).unwrap_err();
    assert!(matches!(error, HubError::Missing { .. }) && error.is_permanent(), "{error}");
    let error = bench.fetch("org/tiny@no-such", &settings).unwrap_err();
    assert!(error.to_string().contains("no directory `org/tiny@no-such` here"), "{error}");
    let offline = HubSettings { offline: true, ..settings.clone() };
    let error = bench.fetch("org/tiny", &offline).unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE") && error.is_permanent(), "{error}");

    server.with(|state| state.token = Some("secret".to_owned()));
    let wrong = HubSettings { token: Some("wrong".to_owned()), ..settings.clone() };
    let error = bench.fetch("org/tiny", &wrong).unwrap_err();
    assert!(matches!(error, HubError::Denied { .. }) && error.is_permanent(), "{error}");
    assert!(error.to_string().contains("HF_TOKEN"), "{error}");
    let right = HubSettings { token: Some("secret".to_owned()), ..settings };
    assert!(bench.fetch("org/tiny", &right).is_ok());
}

#[test]
fn models_without_safetensors_are_refused() {
    let mut files = tiny_files();
    files.remove(WEIGHTS_FILE);
    files.insert("pytorch_model.bin".to_owned(), b"pickle".to_vec());
    let (server, bench) = (Server::start(files), Bench::new());
    let error = bench.fetch("org/tiny", &bench.settings(&server)).unwrap_err();
    assert!(error.to_string().contains("safetensors") && error.is_permanent(), "{error}");
}

#[test]
fn a_hub_that_is_not_there_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let bench = Bench::new();
    let endpoint = format!("http://{free}");
    let cache = Some(bench.cache.path().to_path_buf());
    let settings =
        HubSettings { endpoint: Some(endpoint.clone()), cache, ..HubSettings::default() };
    let error = bench.fetch("org/tiny", &settings).unwrap_err();
    assert!(error.to_string().contains(&endpoint) && !error.is_permanent(), "{error}");
}

#[test]
fn two_that_want_the_same_download_it_once() {
    let (server, bench) = (Server::tiny(), Bench::new());
    let settings = bench.settings(&server);
    let fetched: Vec<PathBuf> = thread::scope(|scope| {
        let fetch = || Bench::new().fetch("org/tiny", &settings).unwrap();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(fetch)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(fetched.iter().all(|directory| *directory == fetched[0]));
    assert_eq!(server.with(|state| state.sent[WEIGHTS_FILE]), 1);
}

#[test]
fn whoever_is_told_to_stop_does_not_wait_for_the_hub() {
    let (server, bench) = (Server::tiny(), Bench::new());
    server.with(|state| state.faults = vec![Fault::Silent]);
    let name = HubName::parse("org/tiny").unwrap();
    let stop = |_: &str| ControlFlow::Break(());
    let fetched = fetch(bench.runtime.handle(), &name, &bench.settings(&server), stop).unwrap();
    assert_eq!(fetched, None);
}

#[test]
fn a_model_without_an_owner_and_one_that_was_renamed_are_found() {
    for (name, folder) in [("tiny", "models--tiny"), ("old/tiny", "models--old--tiny")] {
        let (server, bench) = (Server::tiny(), Bench::new());
        let settings = bench.settings(&server);
        server.with(|state| state.token = Some("secret".to_owned()));
        let settings = HubSettings { token: Some("secret".to_owned()), ..settings };
        let directory = bench.fetch(name, &settings).unwrap();
        assert_eq!(directory, bench.cache.path().join(folder).join("snapshots").join(COMMIT));
        assert!(Classifier::from_directory(&directory, Device::Cpu).is_ok(), "{name}");
        let offline = HubSettings { offline: true, ..settings };
        assert_eq!(bench.fetch(name, &offline).unwrap(), directory);
    }
}

/// A hub answers where large files are, with what they are, and they are somebody else's to send.
#[test]
fn weights_that_another_server_has_come_from_there_and_it_learns_no_token() {
    let (server, other, bench) = (Server::tiny(), Server::tiny(), Bench::new());
    server.with(|state| {
        state.token = Some("secret".to_owned());
        state.elsewhere = Some(other.endpoint.clone());
    });
    let settings = HubSettings { token: Some("secret".to_owned()), ..bench.settings(&server) };
    let directory = bench.fetch("org/tiny", &settings).unwrap();
    assert!(Classifier::from_directory(&directory, Device::Cpu).is_ok());
    assert_eq!(other.with(|state| state.tokens_elsewhere.clone()), [None]);
    assert!(server.with(|state| !state.sent.contains_key(WEIGHTS_FILE)));
    let weights = directory.join(WEIGHTS_FILE).canonicalize().unwrap();
    let sha256 = ContentHash::of(&std::fs::read(&weights).unwrap());
    assert_eq!(weights.file_name().unwrap().to_str().unwrap(), sha256.as_str());

    // What it sends instead is not taken for the weights.
    let bench = Bench::new();
    other.with(|state| state.files.insert(WEIGHTS_FILE.to_owned(), b"others".to_vec()));
    let settings = HubSettings { token: Some("secret".to_owned()), ..bench.settings(&server) };
    let error = bench.fetch("org/tiny", &settings).unwrap_err();
    assert!(error.to_string().contains("came damaged") && !error.is_permanent(), "{error}");
}
