//! Where a coordinator works that gets its workers from a cluster, and what is the same of its life on every cluster.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use anyhow::{bail, ensure};
use serde_json::Value;

use crate::cluster::{Launcher, live_through};
use crate::gang::Laboratory;
use crate::process::{Muster, program, send_signal};
use crate::sample::repository;
use crate::service::{await_checkpoints, await_words, served_address, summary};

/// Settings of one trial of many small steps.
pub const ONE: &str = "hyperparameters: {learning_rate: 1e-3, global_batch_size: 9, dropout: 0.2}
checkpoint: {every_steps: 50}
";
/// The same on two slots.
pub const GANG: &str = "hyperparameters: {learning_rate: 1e-3, global_batch_size: 9, micro_batch_size: 2, dropout: 0.2}
checkpoint: {every_steps: 50}
resources: {slots: 2}
training: {step_deadline_s: 20}
";
/// Settings of four trials, of which the better go on.
pub const SWEEP: &str = "hyperparameters:
  learning_rate: {min: 1e-4, max: 1e-2, scale: log}
  global_batch_size: 9
searcher:
  metric: loss
  max_trials: 4
  pruner: {type: asha, reduction_factor: 2, min_budget: {steps: 300}}
checkpoint: {every_steps: 50}
";

/// A credential of every coordinator here, which must not come to be where others see it.
pub const SECRET: &str = "hunter2";

/// Variables of whoever runs the tests.
const OURS: [&str; 4] =
    ["MUSTER_COORDINATOR", "MUSTER_ACCESS", "MUSTER_FINGERPRINT", "MUSTER_TOKEN"];

/// A directory with a manifest and the file of a cluster, and where the coordinator listens.
#[derive(Debug)]
pub struct Ground {
    /// Holds `gang.yaml` and `cluster.toml`.
    pub laboratory: Laboratory,
    /// Of the address 127.0.0.1.
    pub port: u16,
    environment: Vec<(&'static str, String)>,
    serve: Vec<&'static str>,
}

impl Ground {
    /// A manifest of these settings and so many steps, and a cluster of this profile.
    pub fn new(settings: &str, steps: u32, profile: &str) -> anyhow::Result<Self> {
        let model = repository().join("tests/golden/hf/families/bert-classification");
        let laboratory = Laboratory::new(&model, 60, settings)?;
        let directory = laboratory.directory.path();
        let text = laboratory.text.replace("{steps: 1000000}", &format!("{{steps: {steps}}}"));
        fs::write(directory.join("gang.yaml"), text)?;
        fs::write(directory.join("cluster.toml"), profile)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self { laboratory, port, environment: Vec::new(), serve: vec!["serve"] })
    }

    /// The same with a variable of `muster`'s environment.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: String) -> Self {
        self.environment.push((name, value));
        self
    }

    /// The same with options of `muster serve`.
    #[must_use]
    pub fn serving(mut self, options: &[&'static str]) -> Self {
        self.serve.extend(options);
        self
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        self.laboratory.directory.path()
    }

    /// `muster` in the environment of this place.
    pub fn command(&self) -> anyhow::Result<Command> {
        let mut command = Command::new(program("muster")?);
        for name in OURS {
            command.env_remove(name);
        }
        command.env("MUSTER_LISTEN", format!("127.0.0.1:{}", self.port));
        command.env("AWS_SECRET_ACCESS_KEY", SECRET);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// Starts `muster` with the cluster.
    pub fn start(&self, label: &str, arguments: &[&str]) -> anyhow::Result<Muster> {
        self.start_command(self.command()?, label, arguments)
    }

    /// The same with a command that becomes `muster`.
    pub fn start_command(
        &self,
        command: Command,
        label: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Muster> {
        let arguments = [arguments, &["--cluster", "cluster.toml"]].concat();
        Muster::start_command(command, self.directory(), label, &arguments)
    }

    /// `muster serve`, once it answers.
    pub fn serve(&self, label: &str) -> anyhow::Result<Muster> {
        let mut server = self.start(label, &self.serve)?;
        served_address(&mut server)?;
        Ok(server)
    }

    /// `muster run`, once the only trial has so many checkpoints.
    pub fn run(&self, num_checkpoints: usize) -> anyhow::Result<Muster> {
        let run = self.start("run", &["run", "gang.yaml", "--summary", "summary.json"])?;
        await_checkpoints(self.directory(), "gang-1", num_checkpoints)?;
        Ok(run)
    }

    /// Waits for the good end of [`Ground::run`]; its summary.
    pub fn complete(&self, run: Muster) -> anyhow::Result<Value> {
        run.succeed()?;
        let summary = summary(self.directory())?;
        ensure!(summary["state"] == "completed", "{summary}");
        Ok(summary)
    }

    /// What a client prints that ends well.
    pub fn ask(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let url = format!("http://127.0.0.1:{}", self.port);
        let owner = self.directory().join("muster-data/coordinator/access.json");
        let mut command = self.command()?;
        // Where there is an access file it names the address.
        let named = ["--coordinator", url.as_str()];
        let named: &[&str] = if owner.is_file() { &[] } else { &named };
        if owner.is_file() {
            command.env("MUSTER_ACCESS", owner);
        }
        let arguments = [arguments, named].concat();
        let client = Muster::start_command(command, self.directory(), "client", &arguments)?;
        Ok(client.succeed()?.0)
    }

    /// Asks until the answer says these words.
    pub fn await_words(&self, arguments: &[&str], words: &str) -> anyhow::Result<String> {
        await_words(words, || self.ask(arguments))
    }
}

/// A coordinator on a cluster, and how the processes of its workers are found, in order.
struct Life<'a, W> {
    ground: &'a Ground,
    server: Muster,
    workers: W,
}

impl<W: Fn() -> Vec<u32>> Launcher for Life<'_, W> {
    const OUTLIVES: bool = true;
    const GROWS: bool = true;

    fn laboratory(&self) -> &Laboratory {
        &self.ground.laboratory
    }

    fn ask(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.ground.ask(arguments)
    }

    fn workers(&self) -> Vec<u32> {
        (self.workers)()
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        self.server.kill()?;
        self.server = self.ground.serve("again")?;
        Ok(())
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        // What has nothing to do is given back.
        Ok(())
    }
}

/// [`live_through`] with a coordinator whose workers come from a cluster; `workers` are their processes, in order.
/// Gives the coordinator, which has nothing to do any more.
pub fn live_on(ground: &Ground, workers: impl Fn() -> Vec<u32>) -> anyhow::Result<Muster> {
    let server = ground.serve("serve")?;
    let mut life = Life { ground, server, workers };
    live_through(&mut life)?;
    Ok(life.server)
}

/// One trial, in the middle of which the coordinator is killed and started again: the worker comes back to it with
/// the run that it has, and the trial ends. `away` is done while there is no coordinator, `back` when there is one
/// again, before the run goes on. Gives the second coordinator.
pub fn come_back(
    ground: &Ground,
    runners: impl Fn() -> Vec<u32>,
    away: impl FnOnce(),
    back: impl FnOnce(),
) -> anyhow::Result<Muster> {
    let mut first = ground.serve("first")?;
    ground.ask(&["submit", "gang.yaml"])?;
    await_checkpoints(ground.directory(), "gang-1", 2)?;
    // It stands still until everybody is back, however fast this machine is.
    let runners = runners();
    let [runner] = runners.as_slice() else { bail!("one runner is wanted: {runners:?}") };
    send_signal("STOP", *runner)?;
    first.kill()?;
    away();
    let second = ground.serve("second")?;
    let is_back = || ground.await_words(&["ls"], "workers 1, at work 1");
    is_back()?;
    back();
    is_back()?;
    send_signal("CONT", *runner)?;
    ground.await_words(&["ls"], "completed")?;
    Ok(second)
}
