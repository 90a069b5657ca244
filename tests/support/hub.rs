//! A server that speaks the protocol of a Hugging Face hub: what a revision has, and headers and contents of its
//! files.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use muster_common::digest::ContentHash;
use serde_json::json;

use crate::process::PATIENCE;

/// The commit of every revision.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Weights are sent in so many pieces.
const NUM_PIECES: usize = 10;
/// Pause behind each of them.
const PIECE_PAUSE: Duration = Duration::from_millis(400);

/// A hub. It ends with the test program.
#[derive(Debug)]
pub struct Hub {
    /// Its URL.
    pub endpoint: String,
    sent: Arc<Mutex<BTreeMap<String, usize>>>,
    is_released: Arc<AtomicBool>,
}

impl Hub {
    /// Serves files by their place: `MODEL/FILE` and `datasets/OWNER/SET/FILE`. Weights come slowly, as over a
    /// network, and not whole before [`Hub::release`].
    pub fn start(files: BTreeMap<String, Vec<u8>>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (files, sent) = (Arc::new(files), Arc::new(Mutex::new(BTreeMap::new())));
        let is_released = Arc::<AtomicBool>::default();
        let (counts, released) = (Arc::clone(&sent), Arc::clone(&is_released));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (files, counts) = (Arc::clone(&files), Arc::clone(&counts));
                let released = Arc::clone(&released);
                thread::spawn(move || {
                    let _a_client_that_leaves = answer(&connection, &files, &counts, &released);
                });
            }
        });
        Ok(Self { endpoint, sent, is_released })
    }

    /// Lets the last pieces of weights go: whoever wanted to see a download has seen it.
    pub fn release(&self) {
        self.is_released.store(true, Ordering::Relaxed);
    }

    /// How often the contents of each file were sent.
    pub fn sent(&self) -> BTreeMap<String, usize> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer(
    mut connection: &TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    counts: &Mutex<BTreeMap<String, usize>>,
    is_released: &AtomicBool,
) -> io::Result<()> {
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
        let (head, body) = respond(files, path);
        connection.write_all(head.as_bytes())?;
        if method != "GET" {
            continue;
        }
        let Some((place, _)) = file(files, path) else {
            connection.write_all(&body)?;
            continue;
        };
        *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(place).or_default() += 1;
        if !path.ends_with(".safetensors") {
            connection.write_all(&body)?;
            continue;
        }
        let pieces = body.chunks(body.len().div_ceil(NUM_PIECES).max(1));
        let last = pieces.len().saturating_sub(1);
        let begun = Instant::now();
        for (number, piece) in pieces.enumerate() {
            while number == last
                && !is_released.load(Ordering::Relaxed)
                && begun.elapsed() < PATIENCE
            {
                thread::sleep(PIECE_PAUSE);
            }
            connection.write_all(piece)?;
            thread::sleep(PIECE_PAUSE);
        }
    }
}

/// The file that a path asks for.
fn file<'a>(files: &'a BTreeMap<String, Vec<u8>>, path: &str) -> Option<(String, &'a [u8])> {
    let (repository, rest) = path.trim_start_matches('/').split_once("/resolve/")?;
    let name = rest.strip_prefix(COMMIT)?.strip_prefix('/')?;
    let place = format!("{repository}/{name}");
    let body = files.get(&place)?;
    Some((place, body))
}

/// Head and content of the answer to a request for `path`.
fn respond(files: &BTreeMap<String, Vec<u8>>, path: &str) -> (String, Vec<u8>) {
    let head = |status: &str, headers: &str, body: &[u8]| {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len())
    };
    if let Some((_, body)) = file(files, path) {
        let etag = ContentHash::of(body);
        let headers = format!("etag: \"{}\"\r\nx-repo-commit: {COMMIT}\r\n", etag.as_str());
        return (head("200 OK", &headers, body), body.to_vec());
    }
    let asked = path.strip_prefix("/api/").and_then(|rest| rest.split_once("/revision/"));
    let folder = asked.map(|(repository, _)| {
        format!("{}/", repository.strip_prefix("models/").unwrap_or(repository))
    });
    let names: Vec<_> = folder
        .iter()
        .flat_map(|folder| files.keys().filter_map(|place| place.strip_prefix(folder.as_str())))
        .map(|name| json!({ "rfilename": name }))
        .collect();
    if names.is_empty() {
        let body = br#"{"error":"Repository not found"}"#.to_vec();
        return (head("404 Not Found", "x-error-code: RepoNotFound\r\n", &body), body);
    }
    let body = json!({ "id": "known", "sha": COMMIT, "siblings": names }).to_string().into_bytes();
    (head("200 OK", "", &body), body)
}
