//! From `muster submit` to the first step of training: with a local worker that waits for work, and through
//! Kubernetes, stage by stage. `deploy/latency.sh kubernetes` runs it. API server and controller of Jobs are real;
//! the kubelet is played (`support/kubelet.rs`), so that no image is pulled and no container is made. Then from
//! the death of the worker to a slot that works again.
//! usage: latency [TRIES]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::pin::pin;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::{self, watcher};
use muster_common::metric::read_trial;
use muster_common::storage::Store;
use muster_tests::gang::Laboratory;
use muster_tests::http::request;
use muster_tests::kubelet::Kubelet;
use muster_tests::kubernetes::{ADMIN, Kubernetes, LAUNCHER};
use muster_tests::process::{Muster, PATIENCE, is_alive, processes_with, program, send_signal};
use muster_tests::sample::repository;
use muster_tests::service::{await_checkpoints, await_words, served_address};
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt;

/// One trial of a few small steps.
const TRIAL: &str = "hyperparameters: {learning_rate: 1e-3, global_batch_size: 9}\n";
const PROFILE: &str = "kind = \"kubernetes\"
image = \"worker\"
gpus_per_worker = 0
cpus_per_worker = 1
shared_memory_mib = 0
max_allocations = 1
";

/// The stage that is counted from the death of a worker.
const AGAIN: &str = "killed to slot at work";

/// Stages, and when each was reached, seconds from the begin of `muster submit`.
type Course = Vec<(&'static str, f64)>;

/// When something was seen first.
type Seen = Arc<Mutex<BTreeMap<&'static str, SystemTime>>>;

fn main() -> anyhow::Result<()> {
    let tries = std::env::args().nth(1).map_or(Ok(5), |text| text.parse::<u32>())?;
    let kubernetes = Kubernetes::shared().map_err(anyhow::Error::msg)?;
    let mut local = Vec::new();
    let mut through = Vec::new();
    for _ in 0..tries {
        local.push(locally()?);
        through.push(through_kubernetes(kubernetes)?);
    }
    show("a local worker that waits", &local);
    show("Kubernetes, no worker there", &through);
    Ok(())
}

/// Prints the median and the extremes of every stage, in the order of medians.
fn show(title: &str, courses: &[Course]) {
    println!("{title}, seconds from `muster submit`, median of {} (least to most);", courses.len());
    println!("`{AGAIN}` is counted from kill -9 of a worker:");
    let mut stages: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (stage, time) in courses.iter().flatten() {
        stages.entry(*stage).or_default().push(*time);
    }
    let mut lines = Vec::new();
    for (stage, mut times) in stages {
        times.sort_by(f64::total_cmp);
        if let (Some(least), Some(most)) = (times.first(), times.last()) {
            let median = times.get(times.len() / 2).unwrap_or(least);
            lines.push((*median, format!("{stage:<24} {median:6.2} ({least:.2} to {most:.2})")));
        }
    }
    lines.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    for (_, line) in lines {
        println!("  {line}");
    }
}

fn laboratory() -> anyhow::Result<Laboratory> {
    let model = repository().join("tests/golden/hf/families/bert-classification");
    let laboratory = Laboratory::new(&model, 60, TRIAL)?;
    let text = laboratory.text.replace("{steps: 1000000}", "{steps: 300}");
    fs::write(laboratory.directory.path().join("gang.yaml"), text)?;
    Ok(laboratory)
}

fn locally() -> anyhow::Result<Course> {
    let laboratory = laboratory()?;
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--slots", "1", "--threads-per-slot", "1"];
    let mut server = Muster::start(laboratory.directory.path(), "serve", &arguments)?;
    let url = served_address(&mut server)?;
    await_slot(&url, "free")?;
    let mut course = submit(&laboratory, &url, &Seen::default())?;
    course.push((AGAIN, again(&laboratory, &url)?));
    Ok(course)
}

fn through_kubernetes(kubernetes: &'static Kubernetes) -> anyhow::Result<Course> {
    let laboratory = laboratory()?;
    let directory = laboratory.directory.path();
    let runtime = Runtime::new()?;
    let namespace = runtime.block_on(kubernetes.namespace())?;
    fs::write(directory.join("cluster.toml"), format!("{PROFILE}namespace = \"{namespace}\"\n"))?;
    fs::create_dir(directory.join("node"))?;
    let _node = Kubelet::start(kubernetes, &namespace, &directory.join("node"))?;
    let seen = Seen::default();
    let client = runtime.block_on(kubernetes.client(ADMIN))?;
    let jobs: Api<Job> = Api::namespaced(client.clone(), &namespace);
    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    runtime.spawn(observe(jobs, Arc::clone(&seen), |_| vec!["the Job is there"]));
    runtime.spawn(observe(pods, Arc::clone(&seen), stages_of_pod));

    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new(program("muster")?);
    command.env("MUSTER_LISTEN", format!("127.0.0.1:{port}"));
    command.env("KUBECONFIG", kubernetes.kubeconfig(LAUNCHER));
    let arguments = ["serve", "--cluster", "cluster.toml"];
    let mut server = Muster::start_command(command, directory, "serve", &arguments)?;
    let url = served_address(&mut server)?;
    let mut course = submit(&laboratory, &url, &seen).with_context(|| server.stderr())?;
    course.push((AGAIN, again(&laboratory, &url).with_context(|| server.stderr())?));
    Ok(course)
}

/// Kills the worker of a trial that does not end; how long it takes until a slot works on it again, seconds.
fn again(laboratory: &Laboratory, url: &str) -> anyhow::Result<f64> {
    let directory = laboratory.directory.path();
    let long = laboratory.text.replace("name: gang", "name: long");
    fs::write(directory.join("long.yaml"), format!("{long}checkpoint: {{every_steps: 50}}\n"))?;
    let arguments = ["submit", "long.yaml", "--coordinator", url];
    Muster::start(directory, "client", &arguments)?.succeed()?;
    await_checkpoints(directory, "long-1", 1)?;
    // Workers of local slots are where the coordinator is, those of pods in the folder of the node.
    let is_own = |pid: &u32| {
        let place = fs::read_link(format!("/proc/{pid}/cwd"));
        place.is_ok_and(|place| place.starts_with(directory)) && is_alive(*pid)
    };
    let workers = processes_with("muster-worker supervise", |_| true);
    let worker = workers.into_iter().find(is_own).context("no worker")?;
    let begun = Instant::now();
    send_signal("KILL", worker)?;
    await_metric(url, "muster_workers_lost_total{", |lost| lost > 0)?;
    await_slot(url, "busy")?;
    Ok(begun.elapsed().as_secs_f64())
}

fn stages_of_pod(pod: &Pod) -> Vec<&'static str> {
    let mut stages = vec!["its pod is there"];
    if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
        stages.push("the pod has a node");
    }
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase == Some("Running") {
        stages.push("its process has begun");
    }
    stages
}

/// Notes when objects reach stages, for ever.
async fn observe<K>(api: Api<K>, seen: Seen, stages: fn(&K) -> Vec<&'static str>)
where
    K: kube::Resource<Scope = NamespaceResourceScope>,
    K: Clone + std::fmt::Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Default,
{
    let mut told = pin!(watcher(api, watcher::Config::default()));
    while let Some(event) = told.next().await {
        let Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = event else {
            continue;
        };
        let now = SystemTime::now();
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        for stage in stages(&object) {
            seen.entry(stage).or_insert(now);
        }
    }
}

/// Submits the trial and waits for its end; what was reached when.
fn submit(laboratory: &Laboratory, url: &str, seen: &Seen) -> anyhow::Result<Course> {
    let directory = laboratory.directory.path();
    let ask = |arguments: &[&str]| -> anyhow::Result<String> {
        let arguments = [arguments, &["--coordinator", url]].concat();
        Ok(Muster::start(directory, "client", &arguments)?.succeed()?.0)
    };
    let begun = SystemTime::now();
    ask(&["submit", "gang.yaml"])?;
    let answered = SystemTime::now();
    await_slot(url, "busy")?;
    let busy = SystemTime::now();
    await_words("completed", || ask(&["ls"]))?;
    let store = Store::open(&directory.join("muster-data").display().to_string())?;
    let points = Runtime::new()?.block_on(read_trial(&store, &laboratory.trial()?))?;
    let first = points.iter().map(|point| point.recorded_at).min().context("no step")?;
    let stepped = SystemTime::UNIX_EPOCH + Duration::from_millis(first.0);
    let mut stages: Vec<(&str, SystemTime)> = vec![("submit is answered", answered)];
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    stages.extend(seen.iter().map(|(stage, at)| (*stage, *at)));
    stages.extend([("its slot is at work", busy), ("the first step is done", stepped)]);
    let since = |at: SystemTime| at.duration_since(begun).unwrap_or_default().as_secs_f64();
    Ok(stages.into_iter().map(|(stage, at)| (stage, since(at))).collect())
}

/// Waits until a slot is in a state.
fn await_slot(url: &str, state: &str) -> anyhow::Result<()> {
    await_metric(url, &format!("muster_slots{{state=\"{state}\"}}"), |count| count == 1)
}

/// Waits until the sum of the samples whose names begin so is right.
fn await_metric(url: &str, name: &str, is_right: impl Fn(u64) -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let page = request("GET", &format!("{url}/metrics"), &[], "")?.text();
        let samples = page.lines().filter(|line| line.starts_with(name));
        let values = samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        if is_right(values.sum()) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("{name} is not what is waited for: {page}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
