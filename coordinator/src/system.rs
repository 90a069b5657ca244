//! Puts the parts together: journal, driver, service, leases, local workers; and takes them apart.

use std::net::SocketAddr;

use anyhow::Context;
use muster_common::id::{ExperimentId, WorkerId};
use muster_common::manifest::Slots;
use muster_common::storage::Store;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::{Guard, WorkerAccess};
use crate::alarm::ring;
use crate::capacity::Capacity;
use crate::compaction::Compactor;
use crate::driver::{Driver, DriverThread, Stopped};
use crate::effect::perform_all;
use crate::engine::{Engine, Event, LossCause, RULES};
use crate::journal::Journal;
use crate::launcher::cluster::{Cluster, Order};
use crate::launcher::keeper::Keeper;
use crate::launcher::kubernetes::profile::KubernetesProfile;
use crate::launcher::kubernetes::{Kubernetes, manifest};
use crate::launcher::profile::{ClusterProfile, Profile};
use crate::launcher::record::Record;
use crate::launcher::slurm::Slurm;
use crate::launcher::slurm::script::Start;
use crate::launcher::slurm::step::OwnAllocation;
use crate::launcher::{LOCAL_PREFIX, LocalLauncher, find_worker};
use crate::lease::watch_leases;
use crate::live::Live;
use crate::logs::Logs;
use crate::machine::slots::LocalSlots;
use crate::own_log::OwnLog;
use crate::rpc::{self, Service};
use crate::settings::{Settings, absolute};

/// Names of the access files of workers in allocations of a cluster.
const SLURM_ACCESS: &str = "slurm";
const KUBERNETES_ACCESS: &str = "kubernetes";

/// A running coordinator.
#[derive(Debug)]
pub struct System {
    /// The engine.
    pub driver: Driver,
    /// Soft state.
    pub live: Live,
    /// URL of the object store.
    pub store: String,
    /// Where the service listens.
    pub address: SocketAddr,
    /// What it asks of those who call.
    pub guard: Guard,
    /// Experiments that had not ended when the journal was opened, oldest first.
    pub unfinished: Vec<ExperimentId>,
    /// Set when the system is to stop.
    pub shutdown: CancellationToken,
    capacity: Capacity,
    compactor: Compactor,
    settings: Settings,
    logs: Logs,
    own_log: OwnLog,
    tasks: TaskTracker,
    thread: DriverThread,
}

impl System {
    /// Recovers the journal and starts everything but the local workers.
    pub async fn start(settings: &Settings, listen: SocketAddr) -> anyhow::Result<Self> {
        let state = absolute(&settings.state);
        let (journal, engine) = Journal::open(&state)?;
        let store = Store::open_checked(&settings.store_url()?).await?;
        let own_log = OwnLog::new(store.clone());
        let store = store.url().to_owned();
        let listener = rpc::listen(listen).await?;
        let address = listener.local_addr().context("the listening socket has no address")?;
        let guard = Guard::open(settings, &state, address)?;
        let unfinished = unfinished(&engine);
        let orphans = local_workers(&engine);
        let (effects, inbox) = mpsc::unbounded_channel();
        let outstanding = engine.outstanding();
        let num_outstanding = i64::try_from(outstanding.len()).unwrap_or(i64::MAX);
        for action in outstanding {
            // The receiver is ours and alive.
            let _sent = effects.send(action);
        }
        let (driver, thread) =
            Driver::start(journal, engine, effects).context("cannot start the driver thread")?;
        driver.metrics().pending("message", num_outstanding);
        driver.metrics().set_insecure(settings.is_open_to_others(address.ip()));
        adopt(&driver, settings, orphans).await?;
        let live = Live::default();
        let logs = Logs::new(state.join("logs"));
        let shutdown = CancellationToken::new();
        let capacity = Capacity::new(settings.max_slots);
        let tasks = TaskTracker::new();
        let service = Service {
            driver: driver.clone(),
            live: live.clone(),
            logs: logs.clone(),
            store: store.clone(),
            lease: settings.lease(),
            capacity: capacity.clone(),
            shutdown: shutdown.clone(),
        };
        tasks.spawn(perform_all(inbox, driver.clone(), live.clone()));
        let lease = settings.lease();
        tasks.spawn(watch_leases(driver.clone(), live.clone(), lease, shutdown.clone()));
        tasks.spawn(ring(driver.clone(), shutdown.clone()));
        let compactor = Compactor::new(driver.clone(), &state, settings.tensorboard);
        tasks.spawn(own_log.clone().keep(shutdown.clone()));
        tasks.spawn(compactor.clone().keep(shutdown.clone()));
        tasks.spawn(stop_with(driver.changes(), shutdown.clone()));
        guard.keep(&tasks, &shutdown);
        let (stop, guarded) = (shutdown.clone(), guard.clone());
        tasks.spawn(async move {
            if let Err(error) = rpc::serve(listener, service, &guarded).await {
                tracing::error!(error = &error as &dyn std::error::Error, "service failed");
                stop.cancel();
            }
        });
        Ok(Self {
            driver,
            live,
            store,
            address,
            guard,
            unfinished,
            shutdown,
            capacity,
            compactor,
            settings: settings.clone(),
            logs,
            own_log,
            tasks,
            thread,
        })
    }

    /// Refuses to go on here with an experiment that wants more slots at once than this process has.
    pub async fn check_slots(
        &self,
        id: &ExperimentId,
        local: Option<&LocalSlots>,
    ) -> anyhow::Result<()> {
        let wanted = id.clone();
        let slots = move |engine: &Engine| {
            engine.experiment(&wanted).map(|experiment| experiment.manifest.resources.slots)
        };
        let slots = self.driver.read(slots).await?.unwrap_or(Slots::Fixed(1));
        Ok(Capacity::local(&self.settings, local).check(slots, 0)?)
    }

    /// Starts workers: on the `local` slots, or inside the allocation that this process runs in if `is_own` (workers
    /// and allocations end with this process), or has them come from a cluster, as the settings say. Returns how
    /// many start at once.
    pub async fn launch(&self, is_own: bool, local: Option<LocalSlots>) -> anyhow::Result<u32> {
        if let Some(slots) = local {
            return Ok(self.launch_local(self.local_launcher()?, slots));
        }
        let Some(profile) = self.settings.profile()? else { return Ok(0) };
        let record = Record::open(&absolute(&self.settings.state))?;
        match &profile {
            ClusterProfile::Slurm(slurm) => {
                let cluster = self.slurm(slurm, &record)?;
                let variable = |name: &str| std::env::var(name).ok();
                let own = OwnAllocation::of_environment(slurm, variable).filter(|_| is_own);
                if let Some(own) = own {
                    return self.launch_in(&own, slurm, &cluster).await;
                }
                self.keep(cluster, record, &profile, is_own);
            }
            ClusterProfile::Kubernetes(kubernetes) => {
                let cluster = self.kubernetes(kubernetes, &record).await?;
                self.keep(cluster, record, &profile, is_own);
            }
        }
        Ok(0)
    }

    fn keep(&self, cluster: impl Cluster, record: Record, profile: &ClusterProfile, is_own: bool) {
        let pace = profile.pace();
        self.capacity.plan(pace.limits.max_slots());
        if self.address.ip().is_loopback() && profile.coordinator().is_none() {
            tracing::warn!("only workers on this machine reach {}; listen elsewhere", self.address);
        }
        let keeper = Keeper::new(cluster, record, pace, self.driver.clone(), self.live.clone());
        self.tasks.spawn(keeper.keep(is_own, self.shutdown.clone()));
    }

    /// Starts workers as steps of the allocation that this process runs in.
    async fn launch_in(
        &self,
        own: &OwnAllocation,
        profile: &Profile,
        slurm: &Slurm,
    ) -> anyhow::Result<u32> {
        let ends_at = match own.ends_at() {
            Some(at) => Some(at),
            None => slurm.end_of(own.job()).await,
        };
        let local = self.local_launcher()?;
        let launcher = LocalLauncher {
            worker_binary: profile.worker_binary.clone().unwrap_or(local.worker_binary),
            access: self.access_of_cluster(SLURM_ACCESS, profile.coordinator.as_deref())?,
            wrapper: own.wrapper(profile),
            environment: own.environment(profile, ends_at),
            ..local
        };
        let slots = LocalSlots::inherited(own.num_workers(), profile.cpus_per_worker);
        Ok(self.launch_local(launcher, slots))
    }

    /// A Kubernetes cluster, for workers that dial in here.
    async fn kubernetes(
        &self,
        profile: &KubernetesProfile,
        record: &Record,
    ) -> anyhow::Result<Kubernetes> {
        let access = self.access_of_cluster(KUBERNETES_ACCESS, profile.coordinator.as_deref())?;
        if self.settings.local_store().is_some() && profile.claims.is_empty() {
            let store = &self.store;
            tracing::warn!(store, "pods do not see this directory; use s3://, or claims");
        }
        let start = manifest::Start {
            access,
            log: self.settings.log.clone(),
            log_format: self.settings.log_format.name().to_owned(),
        };
        let (identity, variable) =
            (record.identity().clone(), |name: &str| std::env::var(name).ok());
        let kubernetes = Kubernetes::connect(profile.clone(), start, identity, variable).await?;
        tracing::info!(namespace = kubernetes.namespace(), "workers come from Kubernetes");
        Ok(kubernetes)
    }

    /// The cluster, for workers that dial in here.
    fn slurm(&self, profile: &Profile, record: &Record) -> anyhow::Result<Slurm> {
        let worker_binary = match &profile.worker_binary {
            Some(path) => path.clone(),
            None => absolute(&find_worker(self.settings.worker_binary.as_deref())?),
        };
        let output = if let Some(path) = &profile.output {
            path.clone()
        } else {
            let logs = self.logs.directory();
            // Slurm makes no directories, and fails a job whose output it cannot open.
            std::fs::create_dir_all(logs)
                .with_context(|| format!("cannot make {}", logs.display()))?;
            logs.to_owned()
        };
        let start = Start {
            access: self.access_of_cluster(SLURM_ACCESS, profile.coordinator.as_deref())?,
            worker_binary,
            output,
            log: self.settings.log.clone(),
            log_format: self.settings.log_format.name().to_owned(),
        };
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let slurm = Slurm::new(profile.clone(), start, record.identity().clone(), environment);
        // What cannot be written into a script is said now, not when the first one is made.
        slurm.script(Order { first: 1, count: 1 })?;
        Ok(slurm)
    }

    fn access_of_cluster(&self, name: &str, url: Option<&str>) -> anyhow::Result<WorkerAccess> {
        Ok(self.guard.remote_worker_access(name, url)?)
    }

    fn local_launcher(&self) -> anyhow::Result<LocalLauncher> {
        Ok(LocalLauncher {
            worker_binary: find_worker(self.settings.worker_binary.as_deref())?,
            wrapper: Vec::new(),
            environment: Vec::new(),
            access: self.guard.local_worker_access()?,
            log: self.settings.log.clone(),
            log_format: self.settings.log_format,
            driver: self.driver.clone(),
            live: self.live.clone(),
            logs: self.logs.clone(),
        })
    }

    /// Each keeps being started again until the end.
    fn launch_local(&self, launcher: LocalLauncher, slots: LocalSlots) -> u32 {
        let num_slots = slots.count();
        self.capacity.plan(num_slots);
        launcher.start(slots, &self.shutdown, &self.tasks);
        num_slots
    }

    /// Experiments that have not ended, oldest first.
    pub async fn unfinished_now(&self) -> anyhow::Result<Vec<ExperimentId>> {
        Ok(self.driver.read(unfinished).await?)
    }

    /// The file with what workers said while they had nothing to do, their start included.
    pub fn idle_log(&self) -> std::path::PathBuf {
        self.logs.idle_file()
    }

    /// Ends workers, service and driver, in that order; what was decided stays in the journal.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.guard.retire();
        self.compactor.finish().await;
        self.shutdown.cancel();
        self.driver.stop().await;
        self.tasks.close();
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await?;
        // The driver drops the effects channel, which ends the performer; workers say goodbye.
        let grace = std::time::Duration::from_secs(10);
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time");
        }
        self.own_log.finish().await;
        match joined {
            Ok(result) => Ok(result?),
            Err(_) => anyhow::bail!("the driver thread panicked"),
        }
    }
}

/// Tells the engine what is different since the journal was written: rules, projects, and the local workers
/// of the process before this one.
async fn adopt(
    driver: &Driver,
    settings: &Settings,
    orphans: Vec<WorkerId>,
) -> Result<(), Stopped> {
    if driver.read(Engine::rules).await? < RULES {
        driver.apply(Event::RulesAdopted { rules: RULES }).await?;
    }
    let projects = settings.projects.clone();
    if driver.read(|engine: &Engine| engine.projects().clone()).await? != projects {
        driver.apply(Event::ProjectsSet { projects }).await?;
    }
    for worker in orphans {
        let cause = LossCause::CoordinatorRestarted;
        driver.apply(Event::WorkerLost { worker, cause }).await?;
    }
    Ok(())
}

/// Stops everything when the driver is gone: without it nothing can be decided, and nobody who asks gets
/// an answer.
async fn stop_with(mut changes: watch::Receiver<u64>, shutdown: CancellationToken) {
    while changes.changed().await.is_ok() {}
    shutdown.cancel();
}

fn unfinished(engine: &Engine) -> Vec<ExperimentId> {
    engine.experiments().filter(|e| !e.is_ended()).map(|e| e.id.clone()).collect()
}

fn local_workers(engine: &Engine) -> Vec<WorkerId> {
    let is_local = |id: &&WorkerId| id.as_str().starts_with(LOCAL_PREFIX);
    engine.workers().keys().filter(is_local).cloned().collect()
}
