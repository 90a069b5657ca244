//! Several real runners that train one trial, and this process in the place of their supervisors and
//! of the coordinator: it speaks with them over their pipes.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use muster_common::id::{Attempt, Generation, TrialId};
use muster_common::manifest::{Assignment, Manifest};
use muster_common::metric::{MetricName, read_trial};
use muster_common::run::{Directive, Gang, RunExit, RunReport, RunSpec, Task, TrainTask};
use muster_common::seed::Seed;
use muster_common::storage::{CheckpointKey, Store};
use muster_worker::checkpoint::{self, Snapshot};
use muster_worker::model::Pretrained;
use muster_worker::pipe::{FromRunner, ToRunner};

use crate::process::{PATIENCE, program};

/// Words that the small models of all families know.
const WORDS: [&str; 14] = [
    "good", "bad", "film", "a", "and", "it", "is", "no", "nobody", "the", "of", "was", "seen", "by",
];

/// Settings of four trials that nobody compares: what becomes of each depends on nothing but itself.
pub const FOUR_TRIALS: &str = "hyperparameters:
  learning_rate: {min: 1e-4, max: 1e-2, scale: log}
  global_batch_size: 9
  dropout: 0.2
searcher: {metric: loss, max_trials: 4}
checkpoint: {every_steps: 50}
";

/// A running `muster-worker runner`.
#[derive(Debug)]
pub struct Rank {
    child: Child,
    stdin: ChildStdin,
    messages: Receiver<FromRunner>,
    log: PathBuf,
}

impl Rank {
    fn spawn(directory: &Path, label: &str) -> anyhow::Result<Self> {
        let log = directory.join(format!("{label}.log"));
        let mut child = Command::new(program("muster-worker")?)
            .arg("runner")
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()?;
        let stdin = child.stdin.take().context("no standard input")?;
        let stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        let (sender, messages) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Ok(message) = serde_json::from_str(&line)
                    && sender.send(message).is_err()
                {
                    break;
                }
            }
        });
        Ok(Self { child, stdin, messages, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn tell(&mut self, message: &ToRunner) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(message)?;
        line.push('\n');
        Ok(self.stdin.write_all(line.as_bytes())?)
    }

    /// Gives it a directive.
    pub fn direct(&mut self, generation: Generation, directive: Directive) -> anyhow::Result<()> {
        self.tell(&ToRunner::Direct { generation, directive })
    }

    /// Its next report; progress is passed over.
    pub fn report(&mut self) -> anyhow::Result<RunReport> {
        let begun = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            match self.messages.recv_timeout(left) {
                Ok(FromRunner::Report { report, .. }) => return Ok(report),
                Ok(
                    FromRunner::Ready | FromRunner::Progress { .. } | FromRunner::Measured { .. },
                ) => {}
                Err(error) => bail!("no report ({error}):\n{}", self.log()),
            }
        }
    }

    /// Waits until its progress says that a step is done.
    pub fn first_step(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            match self.messages.recv_timeout(left) {
                Ok(FromRunner::Progress { progress, .. }) if progress.step > 0 => return Ok(()),
                Ok(FromRunner::Report { report: RunReport::Ended { exit }, .. }) => {
                    bail!("it ended: {exit:?}\n{}", self.log())
                }
                Ok(_other) => {}
                Err(error) => bail!("no step ({error}):\n{}", self.log()),
            }
        }
    }

    /// The first report that `wanted` makes something of; those before it are passed over.
    pub fn wait_for<T>(
        &mut self,
        mut wanted: impl FnMut(&RunReport) -> Option<T>,
    ) -> anyhow::Result<T> {
        loop {
            let report = self.report()?;
            if let Some(found) = wanted(&report) {
                return Ok(found);
            }
            if let RunReport::Ended { exit } = report {
                bail!("it ended: {exit:?}\n{}", self.log());
            }
        }
    }

    /// How its run ended, and its reports before that.
    pub fn end(&mut self) -> anyhow::Result<(RunExit, Vec<RunReport>)> {
        let mut reports = Vec::new();
        loop {
            match self.report()? {
                RunReport::Ended { exit } => return Ok((exit, reports)),
                report => reports.push(report),
            }
        }
    }

    /// Waits until the process is gone.
    pub fn gone(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begun.elapsed() > PATIENCE {
                bail!("it does not end:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// What is trained, in a directory of its own.
#[derive(Debug)]
pub struct Laboratory {
    /// Holds the data, the store and the logs.
    pub directory: tempfile::TempDir,
    /// Of every run.
    pub manifest: Manifest,
    /// Its text.
    pub text: String,
    generation: u64,
}

impl Laboratory {
    /// Data of `rows` sentences of 3 to 11 words in three classes, 10 of which are for validation, and
    /// the manifest around `settings`, which are further lines of it.
    pub fn new(model: &Path, rows: usize, settings: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut draws = Seed(5).draws();
        let mut text = "text,label\n".to_owned();
        for row in 0..rows {
            let length = 3 + draws.below(9);
            // The first words are the row's number, so that no two are the same.
            let mut number = row;
            let mut words = Vec::new();
            for place in 0..length {
                let index = if place < 2 {
                    let digit = number % WORDS.len();
                    number /= WORDS.len();
                    digit
                } else {
                    usize::try_from(draws.below(WORDS.len() as u64))?
                };
                words.push(WORDS.get(index).copied().unwrap_or_default());
            }
            let label = ["low", "mid", "top"].get(usize::try_from(draws.below(3))?);
            writeln!(text, "{},{}", words.join(" "), label.copied().unwrap_or_default())?;
        }
        fs::write(directory.path().join("data.csv"), text)?;
        let text = format!(
            "version: 1
name: gang
seed: 9
data:
  train: {{path: {data}}}
  validation: {{examples: 10}}
  text: text
  label: {{column: label}}
budget: {{steps: 1000000}}
model:
  pretrained: {model}
  max_length: 16
{settings}",
            data = directory.path().join("data.csv").display(),
            model = model.display(),
        );
        let manifest = Manifest::parse(&text)?;
        Ok(Self { directory, manifest, text, generation: 0 })
    }

    /// The one trial.
    pub fn trial(&self) -> anyhow::Result<TrialId> {
        Ok("gang-1/t1".parse()?)
    }

    /// Names of runs count up.
    pub fn next_generation(&mut self) -> Generation {
        self.generation += 1;
        Generation(self.generation)
    }

    fn spec(&self, generation: Generation, task: Task) -> anyhow::Result<RunSpec> {
        Ok(RunSpec {
            generation,
            experiment: "gang-1".parse()?,
            task,
            manifest: self.manifest.clone().into(),
            store: self.store().display().to_string(),
            gang: None,
        })
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// Fresh runners.
    pub fn ranks(&self, world_size: u32) -> anyhow::Result<Vec<Rank>> {
        let label = |rank| format!("generation-{}-rank-{rank}", self.generation);
        (0..world_size).map(|rank| Rank::spawn(self.directory.path(), &label(rank))).collect()
    }

    /// Starts training up to `target_step`: the first rank, then the others with its address. A gang
    /// of one trains alone. The data is tokenized by whoever comes first.
    pub fn start(
        &mut self,
        ranks: &mut [Rank],
        target_step: u64,
        resume_from: Option<&CheckpointKey>,
    ) -> anyhow::Result<Generation> {
        let generation = self.next_generation();
        let manifests = vec![self.manifest.clone(); ranks.len()];
        self.start_each(ranks, generation, &manifests, target_step, resume_from)?;
        Ok(generation)
    }

    /// The same with a manifest for each rank.
    pub fn start_each(
        &self,
        ranks: &mut [Rank],
        generation: Generation,
        manifests: &[Manifest],
        target_step: u64,
        resume_from: Option<&CheckpointKey>,
    ) -> anyhow::Result<()> {
        let world_size = u32::try_from(ranks.len())?;
        let mut rendezvous = None;
        for (rank, (runner, manifest)) in (0..).zip(ranks.iter_mut().zip(manifests)) {
            let place = Gang { rank, world_size, rendezvous: rendezvous.clone() };
            let gang = (world_size > 1).then_some(place);
            self.start_rank(runner, manifest, generation, (target_step, resume_from), gang)?;
            if rank == 0 && world_size > 1 {
                rendezvous = Some(runner.wait_for(|report| match report {
                    RunReport::RendezvousOpened { address } => Some(address.clone()),
                    _ => None,
                })?);
            }
        }
        Ok(())
    }

    /// Starts one rank of a run, with its place in `gang`, up to `target_step`.
    pub fn start_rank(
        &self,
        runner: &mut Rank,
        manifest: &Manifest,
        generation: Generation,
        (target_step, resume_from): (u64, Option<&CheckpointKey>),
        gang: Option<Gang>,
    ) -> anyhow::Result<()> {
        let task = Task::Train(TrainTask {
            trial: self.trial()?,
            attempt: Attempt(u32::try_from(generation.0)?),
            assignment: Assignment::new(),
            target_step,
            total_steps: target_step.max(1000),
            resume_from: resume_from.cloned(),
            earlier: Vec::new(),
            seed_of: None,
        });
        let mut spec = self.spec(generation, task)?;
        spec.manifest = manifest.clone().into();
        spec.gang = gang;
        runner.tell(&ToRunner::Start(Box::new(spec)))
    }

    /// Trains with `world_size` fresh runners from the beginning to `target_step`; the last
    /// checkpoint, and what rank 0 reported.
    pub fn train(
        &mut self,
        world_size: u32,
        target_step: u64,
    ) -> anyhow::Result<(CheckpointKey, Vec<RunReport>)> {
        let mut ranks = self.ranks(world_size)?;
        self.start(&mut ranks, target_step, None)?;
        finish(&mut ranks)
    }

    /// Losses of the training steps as they lie in the store.
    pub fn losses(&self) -> anyhow::Result<Vec<(u64, f64)>> {
        let runtime = tokio::runtime::Runtime::new()?;
        let store = Store::open(&self.store().display().to_string())?;
        let points = runtime.block_on(read_trial(&store, &self.trial()?))?;
        let losses = points.into_iter().filter(|point| point.name == MetricName::TRAIN_LOSS);
        Ok(losses.map(|point| (point.step, point.value)).collect())
    }

    /// Names of a checkpoint's objects in order, those of parts without their ending.
    pub fn objects(&self, key: &CheckpointKey) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.store().join(key.directory().as_ref()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.push(name.trim_end_matches(".safetensors").to_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Reads a checkpoint.
    pub fn load(&self, key: &CheckpointKey) -> anyhow::Result<Snapshot> {
        let runtime = tokio::runtime::Runtime::new()?;
        let store = Store::open(&self.store().display().to_string())?;
        let pretrained = Pretrained::read(Path::new(&self.manifest.model.pretrained))?;
        Ok(checkpoint::load(runtime.handle(), &store, key, &pretrained.sha256)?)
    }
}

/// Waits until all have completed; the last checkpoint, and what rank 0 reported.
pub fn finish(ranks: &mut [Rank]) -> anyhow::Result<(CheckpointKey, Vec<RunReport>)> {
    let mut first = Vec::new();
    for (number, rank) in ranks.iter_mut().enumerate() {
        let (exit, reports) = rank.end()?;
        if exit != RunExit::Completed {
            bail!("rank {number} ended: {exit:?}\n{}", rank.log());
        }
        if number == 0 {
            first = reports;
        } else if !reports.is_empty() {
            bail!("rank {number} reported {reports:?}");
        }
    }
    let key = first.iter().rev().find_map(committed).context("no checkpoint was committed")?;
    Ok((key, first))
}

/// The checkpoint that a report is about.
pub fn committed(report: &RunReport) -> Option<CheckpointKey> {
    match report {
        RunReport::CheckpointCommitted { checkpoint } => Some(checkpoint.clone()),
        _ => None,
    }
}
