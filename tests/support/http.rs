//! Plain HTTP/1.1 requests, as a script or a browser would send them, one connection each.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::process::PATIENCE;

/// Longest answer that is read.
const ANSWER_MAX: u64 = 64 << 20;

/// What was answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The code.
    pub status: u16,
    /// By name in lower case; of several of a name the last.
    pub headers: BTreeMap<String, String>,
    /// The content as it came, compressed or not.
    pub body: Vec<u8>,
}

impl Answer {
    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The content as JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| self.text())
    }

    /// A header, empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// Sends one request to `url`, which begins with `http://HOST:PORT`; `body` goes with its length.
pub fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Answer> {
    let rest = url.strip_prefix("http://").context("plain HTTP only")?;
    let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = format!("{method} /{path} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        head += &format!("host: {address}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX).read_to_end(&mut answer)?;
    read(&answer)
}

fn read(answer: &[u8]) -> anyhow::Result<Answer> {
    let end =
        answer.windows(4).position(|four| four == b"\r\n\r\n").context("no end of the head")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?;
    let status = status.parse()?;
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    if headers.contains_key("transfer-encoding") {
        bail!("bodies are whole: {head}");
    }
    Ok(Answer { status, headers, body: answer[end + 4..].to_vec() })
}
