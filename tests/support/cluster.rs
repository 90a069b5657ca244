//! What every kind of cluster has to keep, tried on a real one.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use muster_coordinator::launcher::cluster::{Cluster, Job, Order};
use muster_coordinator::launcher::planner::{Outcome, Stage};

use crate::process::PATIENCE;

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
