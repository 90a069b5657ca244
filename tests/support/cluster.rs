//! What every kind of cluster has to keep, tried on a real one, and what everything has to keep that starts workers.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use muster_coordinator::launcher::cluster::{Cluster, Gone, Job, Order};
use muster_coordinator::launcher::planner::{Outcome, Stage};

use crate::gang::Laboratory;
use crate::process::{PATIENCE, descendants, is_alive, send_signal};
use crate::service::{await_checkpoints, await_words};

/// Three coordinators of one user on one cluster: `own` asks for what never begins, `other` for nothing,
/// and what `refused` asks for cannot be had.
#[derive(Debug)]
pub struct Parties<C> {
    /// Whose jobs wait.
    pub own: C,
    /// Who must not be touched by that.
    pub other: C,
    /// Who is refused.
    pub refused: C,
}

/// Fails with what is not kept.
pub async fn conform<C: Cluster>(parties: &Parties<C>) -> anyhow::Result<()> {
    let Parties { own, other, refused } = parties;
    ensure!(own.list().await?.is_empty(), "there are jobs before anything was asked for");
    own.submit(Order { first: 1, count: 1 }).await?;
    other.submit(Order { first: 1, count: 1 }).await?;
    // What was accepted is listed from then on, and nobody else's.
    ensure!(numbers(&own.list().await?) == [1], "one is listed as {:?}", own.list().await?);
    own.submit(Order { first: 5, count: 3 }).await?;
    let listed = own.list().await?;
    ensure!(numbers(&listed) == [1, 5, 6, 7], "four are listed as {listed:?}");
    for job in &listed {
        ensure!(job.stage == Stage::Pending, "{job:?} does not wait");
    }
    // One of several that were asked for together can be ended alone.
    let sixth = listed.iter().find(|job| job.number == 6).context("it was there")?;
    own.cancel(std::slice::from_ref(sixth)).await?;
    until(own, &[1, 5, 7]).await?;
    own.cancel(&own.list().await?).await?;
    until(own, &[]).await?;
    own.cancel(&[]).await?;
    own.cancel(&listed).await.context("what is gone is ended again")?;
    if let Some(first) = listed.first() {
        recorded(own, first).await?;
    }
    ensure!(numbers(&other.list().await?) == [1], "another's job was ended");
    other.cancel(&other.list().await?).await?;
    until(other, &[]).await?;
    match refused.submit(Order { first: 1, count: 1 }).await {
        Ok(()) => bail!("the impossible was accepted"),
        Err(error) => ensure!(error.outcome == Outcome::Refused, "{error}: {:?}", error.outcome),
    }
    ensure!(refused.list().await?.is_empty(), "what was refused is there");
    Ok(())
}

/// Where records are kept, the end of what was canceled comes to stand in them.
async fn recorded<C: Cluster>(cluster: &C, job: &Job) -> anyhow::Result<()> {
    let gone = [Gone { id: job.id.clone(), since: None }];
    let begun = Instant::now();
    while let Some(ends) = cluster.ends(&gone).await? {
        if let [end] = ends.as_slice() {
            ensure!(end.id == job.id && end.is_failure, "{job:?} was canceled: {end:?}");
            return Ok(());
        }
        ensure!(ends.is_empty() && begun.elapsed() < PATIENCE, "one end is wanted: {ends:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

fn numbers(jobs: &[Job]) -> Vec<u64> {
    let there = jobs.iter().filter(|job| job.stage != Stage::Ending);
    let mut numbers: Vec<u64> = there.map(|job| job.number).collect();
    numbers.sort_unstable();
    numbers
}

async fn until<C: Cluster>(cluster: &C, wanted: &[u64]) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let listed = cluster.list().await?;
        if numbers(&listed) == wanted {
            return Ok(());
        }
        ensure!(begun.elapsed() < PATIENCE, "{wanted:?} are wanted: {listed:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A coordinator, and where its workers come from, as a whole: two of them at most.
pub trait Launcher {
    /// Whether workers go on without their coordinator.
    const OUTLIVES: bool;

    /// Whether there are as many workers as there is work for; else there are always as many as can be.
    const GROWS: bool;

    /// Where it works: what is tried there are [`FOUR_TRIALS`](crate::gang::FOUR_TRIALS).
    fn laboratory(&self) -> &Laboratory;

    /// What a client prints that ends well.
    fn ask(&self, arguments: &[&str]) -> anyhow::Result<String>;

    /// Processes of the workers that there are, in order.
    fn workers(&self) -> Vec<u32>;

    /// Kills the coordinator, and starts it again.
    fn restart(&mut self) -> anyhow::Result<()>;

    /// There is no more work; whoever ends workers then is told.
    fn finish(&mut self) -> anyhow::Result<()>;
}

/// Workers of a [`Launcher`].
const SIZE: usize = 2;
/// One trial that does not end by itself, and the sweep that comes to it.
const LONG: &str = "long.yaml";
const SWEEP: &str = "sweep.yaml";

/// A whole life. Workers come for what there is to do and no more: one for one trial, another for the sweep that is
/// submitted beside it. One is told to leave, one is killed from outside, the coordinator is killed: what they did goes
/// on, and only the kills count. The sweep ends well, who has nothing more to do leaves, and in the end nothing is
/// left. Fails with what is not so.
pub fn live_through<L: Launcher>(launcher: &mut L) -> anyhow::Result<()> {
    let directory = launcher.laboratory().directory.path().to_owned();
    prepare(launcher.laboratory())?;
    launcher.ask(&["submit", LONG])?;
    let first = await_workers(launcher, if L::GROWS { 1 } else { SIZE }, |_| true)?;
    await_checkpoints(&directory, "long-1", 1)?;
    launcher.ask(&["submit", SWEEP])?;
    let grown = await_workers(launcher, SIZE, |now| are_among(&first, now))?;
    await_checkpoints(&directory, "sweep-1", 1)?;

    let replaced = replace(launcher, &grown, "TERM")?;
    for trial in ["long-1/t1", "sweep-1/t1"] {
        let why = launcher.ask(&["why", trial])?;
        ensure!(
            !why.contains("lost with a worker"),
            "it counts that a worker was told to leave: {why}"
        );
    }
    let replaced = replace(launcher, &replaced, "KILL")?;

    let still = Still::of(&replaced)?;
    launcher.restart()?;
    let is_right = |now: &[u32]| {
        let num_kept = now.iter().filter(|pid| replaced.contains(pid)).count();
        num_kept == if L::OUTLIVES { SIZE } else { 0 }
    };
    let last = await_workers(launcher, SIZE, is_right)?;
    drop(still);

    let sweep = || {
        let ls = launcher.ask(&["ls"])?;
        let line = ls.lines().find(|line| line.starts_with("sweep-1 "));
        line.map(ToOwned::to_owned).context("the sweep is not listed")
    };
    await_words(" completed ", sweep)?;
    if L::GROWS {
        await_workers(launcher, 1, |now| are_among(now, &last))?;
    }
    launcher.ask(&["cancel", "long-1"])?;
    launcher.finish()?;
    await_workers(launcher, 0, |_| true)?;
    Ok(())
}

/// Writes what is submitted.
fn prepare(laboratory: &Laboratory) -> anyhow::Result<()> {
    let directory = laboratory.directory.path();
    let named = |name: &str| laboratory.text.replace("name: gang", &format!("name: {name}"));
    let long = named("long").replace("max_trials: 4", "max_trials: 1");
    let sweep = named("sweep").replace("{steps: 1000000}", "{steps: 600}");
    ensure!(long.contains("max_trials: 1}") && sweep.contains("max_trials: 4}"), "{sweep}");
    fs::write(directory.join(LONG), long)?;
    fs::write(directory.join(SWEEP), sweep)?;
    Ok(())
}

fn are_among(some: &[u32], all: &[u32]) -> bool {
    some.iter().all(|pid| all.contains(pid))
}

/// Sends a signal to the first worker, and waits until another one has come for it; the others stay.
fn replace(launcher: &impl Launcher, workers: &[u32], signal: &str) -> anyhow::Result<Vec<u32>> {
    let Some((leaving, others)) = workers.split_first() else { bail!("no worker is wanted") };
    let still = Still::of(others)?;
    send_signal(signal, *leaving)?;
    let is_right = |now: &[u32]| !now.contains(leaving) && are_among(others, now);
    let now = await_workers(launcher, SIZE, is_right)?;
    drop(still);
    Ok(now)
}

/// Runners that stand still until this is dropped, so that there is work left then, however fast this machine is.
struct Still(Vec<u32>);

impl Still {
    /// The runners of these workers.
    fn of(workers: &[u32]) -> anyhow::Result<Self> {
        let runners = workers.iter().flat_map(|pid| descendants(*pid, "muster-worker runner"));
        let still = Self(runners.collect());
        for pid in &still.0 {
            match send_signal("STOP", *pid) {
                Err(error) if is_alive(*pid) => return Err(error),
                // Or it has just ended.
                _ => {}
            }
        }
        Ok(still)
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        for pid in self.0.iter().filter(|pid| is_alive(**pid)) {
            let _gone = send_signal("CONT", *pid);
        }
    }
}

/// Waits for so many workers.
fn await_workers(
    launcher: &impl Launcher,
    count: usize,
    is_right: impl Fn(&[u32]) -> bool,
) -> anyhow::Result<Vec<u32>> {
    let begun = Instant::now();
    loop {
        let now = launcher.workers();
        if now.len() == count && is_right(&now) {
            return Ok(now);
        }
        if begun.elapsed() > PATIENCE {
            let said = launcher.ask(&["ls"]).unwrap_or_else(|error| format!("{error:#}"));
            bail!("{count} workers are wanted: {now:?}\n{said}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
