//! A proxy before an S3 server that does to requests what networks and servers do: each connection carries
//! one request, so that a fault is of one request alone.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;

/// Longest wait for either side: above every deadline of the client.
const PATIENCE: Duration = Duration::from_secs(60);

/// What Amazon's servers say when a signature is more than a quarter of an hour old, or of the future.
const SKEWED: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>RequestTimeTooSkewed</Code>\
    <Message>The difference between the request time and the current time is too large.</Message></Error>";

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with 503 and not passed on.
    Busy,
    /// It is answered as if it had been done, and not passed on.
    Agree,
    /// It is answered as by a server whose clock is far from the client's, and not passed on.
    Skewed,
    /// It is taken and never answered.
    Silence,
    /// The connection is reset in the middle of its body; the server hears nothing of it.
    CutRequest,
    /// The server does what is asked; the connection is reset in the middle of the answer.
    CutAnswer,
    /// The server does what is asked; the connection is reset before the answer.
    LoseAnswer,
    /// So many bytes a second go either way.
    Slow(usize),
}

/// Which requests are met.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What happens to them.
    pub fault: Fault,
    /// Their method.
    pub method: &'static str,
    /// Part of their path or options.
    pub part: &'static str,
    /// Of how many, from the first one.
    pub times: usize,
}

/// A running proxy; it listens until the program ends.
#[derive(Debug, Clone)]
pub struct Proxy {
    address: String,
    rules: Arc<Mutex<Vec<Rule>>>,
}

struct Request {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl Proxy {
    /// Listens before `upstream`, which is `HOST:PORT`.
    pub fn start(upstream: &str, rules: &[Rule]) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let proxy = Self { address, rules: Arc::new(Mutex::new(rules.to_vec())) };
        let (served, upstream) = (proxy.clone(), upstream.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (proxy, upstream) = (served.clone(), upstream.clone());
                // A side that goes away is what this is about.
                thread::spawn(move || drop(proxy.serve(client, &upstream)));
            }
        });
        Ok(proxy)
    }

    /// Its address, as `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Faults that have not happened yet.
    pub fn num_left(&self) -> usize {
        self.rules
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|rule| rule.times)
            .sum()
    }

    fn fault_for(&self, head: &str) -> Option<Fault> {
        let line = head.lines().next().unwrap_or_default();
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let is_met = |rule: &&mut Rule| {
            rule.times > 0 && line.starts_with(rule.method) && line.contains(rule.part)
        };
        let rule = rules.iter_mut().find(is_met)?;
        rule.times -= 1;
        Some(rule.fault)
    }

    fn serve(&self, mut client: TcpStream, upstream: &str) -> anyhow::Result<()> {
        client.set_read_timeout(Some(PATIENCE))?;
        let head = read_head(&mut client)?;
        let text = String::from_utf8_lossy(&head).into_owned();
        let fault = self.fault_for(&text);
        let num_bytes = content_length(&text);
        if fault == Some(Fault::CutRequest) {
            read_body(&mut client, num_bytes / 2, None)?;
            return reset(&client);
        }
        let pace = match fault {
            Some(Fault::Slow(bytes_per_second)) => Some(bytes_per_second),
            _ => None,
        };
        let body = read_body(&mut client, num_bytes, pace)?;
        match fault {
            Some(fault @ (Fault::Busy | Fault::Agree | Fault::Skewed)) => {
                let (status, body) = match fault {
                    Fault::Busy => ("503 Service Unavailable", ""),
                    Fault::Skewed => ("403 Forbidden", SKEWED),
                    _ => ("200 OK\r\netag: \"1\"", ""),
                };
                let rest = format!("content-length: {}\r\nconnection: close", body.len());
                write!(client, "HTTP/1.1 {status}\r\n{rest}\r\n\r\n{body}")?;
                return Ok(client.shutdown(Shutdown::Write)?);
            }
            Some(Fault::Silence) => {
                // Until the client leaves.
                let _end = client.read(&mut [0]);
                return Ok(());
            }
            _ => {}
        }
        let answer = ask(upstream, &Request { head, body })?;
        match fault {
            Some(Fault::LoseAnswer) => return reset(&client),
            Some(Fault::CutAnswer) => {
                client.write_all(answer.get(..answer.len() * 3 / 4).unwrap_or_default())?;
                client.flush()?;
                // What was sent must be there before the reset is.
                thread::sleep(Duration::from_millis(50));
                return reset(&client);
            }
            _ => {}
        }
        for block in answer.chunks(pace.map_or(usize::MAX, |pace| (pace / 20).max(1))) {
            client.write_all(block)?;
            if pace.is_some() {
                thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(client.shutdown(Shutdown::Write)?)
    }
}

fn read_head(client: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.extend_from_slice(&byte);
    }
    Ok(head)
}

fn content_length(head: &str) -> usize {
    let lower = head.to_ascii_lowercase();
    let value = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn read_body(client: &mut TcpStream, num: usize, pace: Option<usize>) -> anyhow::Result<Vec<u8>> {
    let mut body = vec![0; num];
    for block in body.chunks_mut(pace.map_or(num.max(1), |pace| (pace / 20).max(1))) {
        client.read_exact(block)?;
        if pace.is_some() {
            thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(body)
}

/// The whole answer of the server, which closes the connection after it.
fn ask(upstream: &str, request: &Request) -> anyhow::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream)?;
    server.set_read_timeout(Some(PATIENCE))?;
    let end = request.head.len().checked_sub(2).context("a head ends with an empty line")?;
    server.write_all(request.head.get(..end).unwrap_or_default())?;
    server.write_all(b"connection: close\r\n\r\n")?;
    server.write_all(&request.body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Closes a connection so that the other side sees a reset and not an end.
fn reset(client: &TcpStream) -> anyhow::Result<()> {
    Ok(rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO))?)
}
