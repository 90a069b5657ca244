//! What every kind of cluster has to keep, tried on a real one, and what everything has to keep that starts workers.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use muster_coordinator::launcher::cluster::{Cluster, Gone, Job, Order};
use muster_coordinator::launcher::planner::{Outcome, Stage};

use crate::process::{PATIENCE, send_signal};
use crate::service::await_words;

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

/// A coordinator, and where its workers come from, as a whole.
pub trait Launcher {
    /// Whether workers go on without their coordinator.
    const OUTLIVES: bool;

    /// What a client prints that ends well.
    fn ask(&self, arguments: &[&str]) -> anyhow::Result<String>;

    /// Processes of the workers that there are, in order.
    fn workers(&self) -> Vec<u32>;

    /// Kills the coordinator, and starts it again.
    fn restart(&mut self) -> anyhow::Result<()>;

    /// There is no more work; whoever ends workers then is told.
    fn finish(&mut self) -> anyhow::Result<()>;
}

/// A whole life: workers come for the sweep of `gang.yaml`, as many as are wanted and no more, one of them is killed
/// from outside, the coordinator is killed, the sweep ends well all the same, and nothing is left. Fails with what is
/// not so.
pub fn live_through<L: Launcher>(launcher: &mut L, size: usize) -> anyhow::Result<()> {
    launcher.ask(&["submit", "gang.yaml"])?;
    let first = await_workers(launcher, size, |_| true)?;
    let Some((killed, others)) = first.split_first() else { bail!("no worker is wanted") };
    await_words("running", || launcher.ask(&["ls"]))?;
    send_signal("KILL", *killed)?;
    let second = await_workers(launcher, size, |now| !now.contains(killed))?;
    ensure!(others.iter().all(|pid| second.contains(pid)), "{others:?} are gone too: {second:?}");
    launcher.restart()?;
    let is_right = |now: &[u32]| {
        let num_kept = now.iter().filter(|pid| second.contains(pid)).count();
        num_kept == if L::OUTLIVES { size } else { 0 }
    };
    await_workers(launcher, size, is_right)?;
    await_words("completed", || launcher.ask(&["ls"]))?;
    launcher.finish()?;
    await_workers(launcher, 0, |_| true)?;
    Ok(())
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
        ensure!(begun.elapsed() < PATIENCE, "{count} workers are wanted: {now:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
