//! This machine, and what local slots are made of it: [`cores`] divides its processors, [`gpus`] finds the GPUs
//! that may be used, `topology` asks the kernel, and [`slots`] puts them together as the settings say ([`device`] is
//! one of these).

pub mod cores;
pub mod device;
pub mod gpus;
pub mod slots;
pub(crate) mod topology;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::launcher::find_worker;
use crate::settings::Settings;
use cores::Core;
use device::LocalDevice;
use gpus::{Gpu, VISIBLE};
use slots::{LocalSlots, SLOT_DEVICE};

/// Time for a worker program to open a GPU: libtorch's part for CUDA comes from a cold disk.
const PROBE: Duration = Duration::from_secs(120);

/// What this process may use of its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Processors that may be busy at once: those that it may run on, or fewer by a quota.
    pub num_cpus: u32,
    /// Those it may run on.
    pub cores: Vec<Core>,
    /// GPUs.
    pub gpus: Vec<Gpu>,
    /// The environment names a device for all workers.
    pub names_device: bool,
}

impl Machine {
    /// Looks at it. GPUs are looked for where somebody may want them.
    pub async fn look(device: LocalDevice) -> Self {
        let sys = Path::new(topology::SYS);
        let num_cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let names_device = std::env::var_os(SLOT_DEVICE).is_some();
        let is_wanted = match device {
            LocalDevice::Auto => !names_device,
            LocalDevice::Cpu => false,
            LocalDevice::Cuda => true,
        };
        let visible = std::env::var(VISIBLE).ok();
        Self {
            num_cpus: u32::try_from(num_cpus).unwrap_or(u32::MAX),
            cores: topology::cores(sys, &topology::allowed().unwrap_or_default()),
            gpus: if is_wanted { gpus::find(sys, visible.as_deref()).await } else { Vec::new() },
            names_device,
        }
    }
}

/// The slots that the settings make of this machine; `None`: workers come from a cluster. Where nothing is said
/// about the device and the worker's libtorch cannot use the GPUs, they are slots of the processors, and a warning
/// says so.
pub async fn local_slots(settings: &Settings) -> anyhow::Result<Option<LocalSlots>> {
    if settings.profile()?.is_some() {
        return Ok(None);
    }
    let mut machine = Machine::look(settings.device).await;
    if settings.device == LocalDevice::Auto
        && let Some(gpu) = machine.gpus.first()
        && let Err(reason) = try_gpu(settings, gpu).await
    {
        tracing::warn!(
            gpu = gpu.name,
            reason,
            "the worker cannot use the GPUs of this machine, so training runs on the CPU; device = \"cpu\" in the \
             settings says that this is meant"
        );
        machine.gpus.clear();
    }
    Ok(Some(LocalSlots::of(settings, &machine)?))
}

/// Has the worker program open a GPU.
async fn try_gpu(settings: &Settings, gpu: &Gpu) -> Result<(), String> {
    // Without a worker program nothing runs, which is said where one is started.
    let Ok(program) = find_worker(settings.worker_binary.as_deref()) else { return Ok(()) };
    let mut command = Command::new(&program);
    command.arg("check-device").env(SLOT_DEVICE, "cuda:0").env(VISIBLE, &gpu.name);
    command.stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PROBE, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(said.lines().last().unwrap_or("it says nothing").to_owned())
        }
        Ok(Err(error)) => Err(format!("{}: {error}", program.display())),
        Err(_) => Err(format!("no answer within {} s", PROBE.as_secs())),
    }
}
