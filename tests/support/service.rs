//! `muster serve` with clients and workers that dial in.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use muster_common::access::ACCESS_VARIABLE;
use serde_json::Value;

use crate::hosts::{Host, Hosts};
use crate::process::{Muster, PATIENCE, program};

/// A coordinator without workers of its own, in a directory with a store.
#[derive(Debug)]
pub struct Service {
    /// The coordinator.
    pub server: Muster,
    /// Where it is found.
    pub url: String,
    directory: PathBuf,
}

/// Where a program is started: here, or on one of two hosts.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// On this machine.
    Here,
    /// On one of two hosts.
    On(&'a Hosts, Host),
}

impl Place<'_> {
    fn command(self, name: &str) -> anyhow::Result<Command> {
        match self {
            Self::Here => Ok(Command::new(program(name)?)),
            Self::On(hosts, host) => hosts.command(host, name),
        }
    }

    fn address(self) -> &'static str {
        match self {
            Self::Here => "127.0.0.1",
            Self::On(_, host) => host.address(),
        }
    }
}

impl Service {
    /// Starts it in `directory`, at a port of the system's choice.
    pub fn start(directory: &Path, place: Place<'_>) -> anyhow::Result<Self> {
        Self::start_with(directory, place, &[])
    }

    /// The same with encrypted connections; workers get tokens, and clients find theirs in `directory`.
    pub fn start_secure(directory: &Path, place: Place<'_>) -> anyhow::Result<Self> {
        Self::start_with(directory, place, &["--tls", "auto"])
    }

    fn start_with(directory: &Path, place: Place<'_>, options: &[&str]) -> anyhow::Result<Self> {
        let listen = format!("{}:0", place.address());
        let arguments = [&["serve", "--listen", &listen, "--no-workers"], options].concat();
        let mut server =
            Muster::start_command(place.command("muster")?, directory, "serve", &arguments)?;
        let url = served_address(&mut server)?;
        Ok(Self { server, url, directory: directory.to_owned() })
    }

    /// Waits until the coordinator serves.
    pub fn await_coordinator(&mut self) -> anyhow::Result<()> {
        served_address(&mut self.server).map(drop)
    }

    /// Kills the coordinator and starts it again at the same address, where it serves a moment later.
    pub fn kill_and_start(&mut self) -> anyhow::Result<()> {
        self.server.kill()?;
        self.start_again()
    }

    /// The same with a coordinator that leaves in good order.
    pub fn stop_and_start(&mut self) -> anyhow::Result<()> {
        self.server.terminate()?;
        self.server.wait()?;
        self.start_again()
    }

    fn start_again(&mut self) -> anyhow::Result<()> {
        let listen = self.url.strip_prefix("http://").context("an address over plain HTTP")?;
        let arguments = ["serve", "--listen", listen, "--no-workers"];
        self.server = Muster::start(&self.directory, "serve", &arguments)?;
        Ok(())
    }

    /// A worker that dials in.
    pub fn worker(&self, place: Place<'_>, label: &str) -> anyhow::Result<Muster> {
        let arguments = ["supervise", "--coordinator", &self.url];
        let mut command = place.command("muster-worker")?;
        if self.url.starts_with("https://") {
            let file = format!("{label}.json");
            let token =
                ["token", "create", "--scope", "worker", "--name", label, "--output", &file];
            Muster::start(&self.directory, "token", &token)?.succeed()?;
            command.env(ACCESS_VARIABLE, file);
        }
        Muster::start_command(command, &self.directory, label, &arguments)
    }

    /// What `why` says of the first `count` trials of an experiment; nothing of those that are not there yet.
    pub fn stories(&self, place: Place<'_>, experiment: &str, count: usize) -> Vec<String> {
        let story = |number| {
            let trial = format!("{experiment}/t{number}");
            self.ask(place, &["why", &trial]).map(|(said, _)| said).unwrap_or_default()
        };
        (1..=count).map(story).collect()
    }

    /// Waits until so many workers have dialled in.
    pub fn await_workers(&self, count: usize) -> anyhow::Result<()> {
        let address = self.url.strip_prefix("http://").context("an address over plain HTTP")?;
        let wanted = format!("muster_worker_connections {count}\n");
        let begun = Instant::now();
        loop {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let request =
                format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            let mut page = String::new();
            stream.read_to_string(&mut page)?;
            if page.contains(&wanted) {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!("not {count} workers: {page}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A client of it.
    pub fn client(&self, place: Place<'_>, arguments: &[&str]) -> anyhow::Result<Muster> {
        let label = arguments.first().copied().unwrap_or("muster");
        let arguments = [arguments, &["--coordinator", &self.url]].concat();
        Muster::start_command(place.command("muster")?, &self.directory, label, &arguments)
    }

    /// What a client that ends well prints: its standard output, and its standard error.
    pub fn ask(&self, place: Place<'_>, arguments: &[&str]) -> anyhow::Result<(String, String)> {
        self.client(place, arguments)?.succeed()
    }

    /// Asks again and again until the answer says one of these words.
    pub fn wait_for(
        &self,
        place: Place<'_>,
        arguments: &[&str],
        words: &str,
    ) -> anyhow::Result<String> {
        let answered = await_words(words, || Ok(self.ask(place, arguments)?.0));
        answered.with_context(|| self.server.stderr())
    }
}

/// Asks again and again until the answer says these words, and gives it.
pub fn await_words(
    words: &str,
    ask: impl Fn() -> anyhow::Result<String>,
) -> anyhow::Result<String> {
    let begun = Instant::now();
    loop {
        let answer = ask()?;
        if answer.contains(words) {
            return Ok(answer);
        }
        if begun.elapsed() > PATIENCE {
            bail!("no `{words}`: {answer}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until a coordinator says where it serves.
pub fn served_address(server: &mut Muster) -> anyhow::Result<String> {
    server.wait_for("address", |server| {
        let line = server.stdout().lines().next()?.to_owned();
        line.strip_prefix("serving on ").map(ToOwned::to_owned)
    })
}

/// Number of whole checkpoints of the only trial of experiment `name` in the store of `directory`.
pub fn num_checkpoints(directory: &Path, name: &str) -> usize {
    let trial = format!("muster-data/experiments/{name}/trials/1/checkpoints");
    let entries = fs::read_dir(directory.join(trial)).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().join("index.json").is_file()).count()
}

/// Waits until that number is reached.
pub fn await_checkpoints(directory: &Path, name: &str, number: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    while num_checkpoints(directory, name) < number {
        if begun.elapsed() > PATIENCE {
            bail!("no {number} checkpoints of {name}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// What `muster run` has left in `summary.json` of `directory`.
pub fn summary(directory: &Path) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&fs::read_to_string(directory.join("summary.json"))?)?)
}

/// The exported weights of the manifest `gang.yaml` of `directory`, run to its end elsewhere on this machine, where
/// nobody disturbs it.
pub fn undisturbed_weights(directory: &Path, slots: &str) -> anyhow::Result<Vec<u8>> {
    let quiet = tempfile::tempdir()?;
    fs::copy(directory.join("gang.yaml"), quiet.path().join("gang.yaml"))?;
    let arguments = ["run", "gang.yaml", "--slots", slots, "--threads-per-slot", "1"];
    Muster::start(quiet.path(), "quiet", &arguments)?.succeed()?;
    exported_weights(quiet.path(), "gang-1")
}

/// The exported weights of experiment `name`.
pub fn exported_weights(directory: &Path, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut folders = vec![directory.join("muster-data/experiments").join(name)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)?.flatten() {
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.file_name() == "model.safetensors"
                && folder.join("config.json").is_file()
            {
                return fs::read(entry.path()).context("exported weights");
            }
        }
    }
    bail!("{name} has exported nothing")
}
