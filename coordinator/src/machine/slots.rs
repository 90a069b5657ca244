//! What the local slots are: which device, which processors, how many threads. A pure function of settings and
//! machine.

use std::fmt;

use muster_common::count::counted;

use super::Machine;
use super::cores::{divide, list_of};
use super::device::LocalDevice;
use super::gpus::{Gpu, VISIBLE};
use crate::settings::Settings;

/// Most slots taken by default without GPUs: beyond this a laptop stops being usable.
const SLOTS_DEFAULT_MAX: u32 = 4;

/// Says which device a worker computes on.
pub(super) const SLOT_DEVICE: &str = "MUSTER_SLOT_DEVICE";
/// Tells a worker how many slots its GPU has, where that is not one: memory in use there is not its own alone.
pub(crate) const SLOTS_ON_GPU: &str = "MUSTER_SLOTS_ON_GPU";

/// What a slot computes on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SlotDevice {
    /// As the environment says that workers inherit.
    #[default]
    Inherited,
    /// The processors.
    Cpu,
    /// One GPU.
    Gpu {
        /// Its index or UUID.
        name: String,
        /// Slots that it has; at least 1.
        num_slots: u32,
    },
}

/// One slot of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalSlot {
    /// What it computes on.
    pub device: SlotDevice,
    /// Processors that its worker is pinned to, ascending; empty: it is not.
    pub cpus: Vec<u32>,
}

/// The slots of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalSlots {
    /// One for each worker.
    pub slots: Vec<LocalSlot>,
    /// Compute threads of each.
    pub threads_per_slot: u32,
}

/// Settings that do not go with this machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotsError {
    /// GPUs were asked for.
    #[error(
        "settings: device is cuda, and no GPU is visible here; look at `nvidia-smi -L` and CUDA_VISIBLE_DEVICES, or \
         write device = \"cpu\""
    )]
    NoGpu,
    /// More slots than GPUs have room for.
    #[error(
        "settings: slots is {slots}, and slots_per_gpu = {slots_per_gpu} makes room for {room} on {}; write \
         slots = {room}, slots_per_gpu = {mend}, or device = \"cpu\"",
        counted(.num_gpus, "visible GPU")
    )]
    TooMany {
        /// As asked for.
        slots: u32,
        /// As found.
        num_gpus: u32,
        /// As set.
        slots_per_gpu: u32,
        /// Slots that GPUs have.
        room: u32,
        /// The least `slots_per_gpu` with room enough.
        mend: u32,
    },
}

impl LocalSlots {
    /// Those that the settings ask for on a machine.
    pub fn of(settings: &Settings, machine: &Machine) -> Result<Self, SlotsError> {
        let gpus: &[Gpu] = match settings.device {
            LocalDevice::Auto | LocalDevice::Cuda => &machine.gpus,
            LocalDevice::Cpu => &[],
        };
        if gpus.is_empty() && settings.device == LocalDevice::Cuda {
            return Err(SlotsError::NoGpu);
        }
        let num_cpus = machine.num_cpus.max(1);
        let num_slots = num_slots(settings, gpus, num_cpus)?;
        let of_slot = |slot: u32| gpus.get(slot as usize % gpus.len().max(1));
        let near: Vec<Option<u32>> =
            (0..num_slots).map(|slot| of_slot(slot).and_then(|gpu| gpu.node)).collect();
        let groups = divide(&machine.cores, &near).filter(|_| settings.pin_cores);
        let smallest = groups.iter().flatten().map(Vec::len).min();
        let smallest = smallest.and_then(|cpus| u32::try_from(cpus).ok());
        let threads_per_slot = match settings.threads_per_slot {
            0 => (num_cpus / num_slots).max(1).min(smallest.unwrap_or(u32::MAX)),
            threads => threads,
        };
        // Threads that wait for each other on one processor take many times as long.
        let groups = groups.filter(|_| smallest >= Some(threads_per_slot));
        let mut groups = groups.into_iter().flatten();
        let slots = (0..num_slots).map(|slot| LocalSlot {
            device: match of_slot(slot) {
                Some(gpu) => on(gpu, slot, num_slots, gpus.len()),
                None if settings.device == LocalDevice::Auto && machine.names_device => {
                    SlotDevice::Inherited
                }
                None => SlotDevice::Cpu,
            },
            cpus: groups.next().unwrap_or_default(),
        });
        Ok(Self { slots: slots.collect(), threads_per_slot })
    }

    /// So many that are what the workers' environment makes of them.
    pub fn inherited(num_slots: u32, threads_per_slot: u32) -> Self {
        let slots = (0..num_slots).map(|_| LocalSlot::default()).collect();
        Self { slots, threads_per_slot }
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }
}

/// Slots by the settings, or by what there is.
fn num_slots(settings: &Settings, gpus: &[Gpu], num_cpus: u32) -> Result<u32, SlotsError> {
    let num_gpus = u32::try_from(gpus.len()).unwrap_or(u32::MAX);
    let slots_per_gpu = settings.slots_per_gpu;
    let room = num_gpus.saturating_mul(slots_per_gpu);
    match settings.slots {
        0 if room > 0 => Ok(room),
        0 => Ok(num_cpus.min(SLOTS_DEFAULT_MAX)),
        slots if room > 0 && slots > room => {
            let mend = slots.div_ceil(num_gpus);
            Err(SlotsError::TooMany { slots, num_gpus, slots_per_gpu, room, mend })
        }
        slots => Ok(slots),
    }
}

/// Slots go around the GPUs, so that none gets two while another has none.
fn on(gpu: &Gpu, slot: u32, num_slots: u32, num_gpus: usize) -> SlotDevice {
    let num_gpus = u32::try_from(num_gpus).unwrap_or(u32::MAX);
    let index = slot % num_gpus;
    SlotDevice::Gpu { name: gpu.name.clone(), num_slots: (num_slots - index).div_ceil(num_gpus) }
}

impl LocalSlot {
    /// What its worker finds in its environment.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        match &self.device {
            SlotDevice::Inherited => Vec::new(),
            SlotDevice::Cpu => vec![(SLOT_DEVICE, "cpu".to_owned())],
            SlotDevice::Gpu { name, num_slots } => {
                let mut found = vec![(SLOT_DEVICE, "cuda:0".to_owned()), (VISIBLE, name.clone())];
                if *num_slots > 1 {
                    found.push((SLOTS_ON_GPU, num_slots.to_string()));
                }
                found
            }
        }
    }
}

impl fmt::Display for LocalSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = self.threads_per_slot;
        write!(
            f,
            "{} with {threads} thread{} each",
            self.count(),
            if threads == 1 { "" } else { "s" }
        )?;
        for (separator, slot) in
            std::iter::once(": ").chain(std::iter::repeat("; ")).zip(&self.slots)
        {
            write!(f, "{separator}{slot}")?;
        }
        Ok(())
    }
}

impl fmt::Display for LocalSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.device {
            SlotDevice::Inherited => f.write_str("the device of the environment")?,
            SlotDevice::Cpu => f.write_str("CPU")?,
            SlotDevice::Gpu { name, num_slots: 1 } => write!(f, "GPU {name}")?,
            SlotDevice::Gpu { name, num_slots } => write!(f, "GPU {name} (1 of {num_slots})")?,
        }
        if self.cpus.is_empty() {
            return f.write_str(", not pinned");
        }
        write!(f, ", processors {}", list_of(&self.cpus))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cores::Core;
    use super::*;
    use crate::settings::SettingsFlags;

    fn settings(environment: &[(&str, &str)]) -> Settings {
        let pairs = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Settings::load(&SettingsFlags::default(), pairs).unwrap()
    }

    fn machine(num_cpus: u32, num_gpus: u32) -> Machine {
        let cores = (0..num_cpus).map(|cpu| Core { cpus: vec![cpu], node: 0 }).collect();
        let gpus = (0..num_gpus).map(|gpu| Gpu { name: format!("GPU-{gpu}"), node: None });
        Machine { num_cpus, cores, gpus: gpus.collect(), names_device: false }
    }

    fn shown(environment: &[(&str, &str)], machine: &Machine) -> (u32, Vec<String>) {
        let slots = LocalSlots::of(&settings(environment), machine).unwrap();
        (slots.threads_per_slot, slots.slots.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn without_gpus_there_is_a_slot_for_each_core_up_to_four() {
        let (threads, slots) = shown(&[], &machine(2, 0));
        assert_eq!((threads, slots.len(), slots[1].as_str()), (1, 2, "CPU, processors 1"));
        let (threads, slots) = shown(&[], &machine(32, 0));
        assert_eq!((threads, slots.len(), slots[3].as_str()), (8, 4, "CPU, processors 24-31"));
        // A quota of two processors on a machine of eight: few threads, and nobody sits on anybody's lap.
        let (threads, slots) = shown(&[], &Machine { num_cpus: 2, ..machine(8, 0) });
        assert_eq!((threads, slots.len(), slots[1].as_str()), (1, 2, "CPU, processors 4-7"));
    }

    #[test]
    fn threads_that_would_share_a_processor_are_not_pinned() {
        for pairs in
            [[("MUSTER_SLOTS", "2"), ("MUSTER_THREADS_PER_SLOT", "2")], [("MUSTER_SLOTS", "3"); 2]]
        {
            let (_, slots) = shown(&pairs, &machine(2, 0));
            assert_eq!(slots[0], "CPU, not pinned");
        }
        assert_eq!(shown(&[("MUSTER_PIN_CORES", "false")], &machine(2, 0)).1[0], "CPU, not pinned");
        assert_eq!(shown(&[("MUSTER_SLOTS", "3")], &machine(2, 0)).0, 1);
    }

    #[test]
    fn every_gpu_has_a_slot_or_several() {
        let (threads, slots) = shown(&[], &machine(16, 2));
        assert_eq!(threads, 8);
        assert_eq!(slots, ["GPU GPU-0, processors 0-7", "GPU GPU-1, processors 8-15"]);
        let several = [("MUSTER_SLOTS_PER_GPU", "2"), ("MUSTER_SLOTS", "3")];
        let found = LocalSlots::of(&settings(&several), &machine(16, 2)).unwrap();
        let environment = found.slots[2].environment();
        let expected = [
            ("MUSTER_SLOT_DEVICE", "cuda:0"),
            ("CUDA_VISIBLE_DEVICES", "GPU-0"),
            ("MUSTER_SLOTS_ON_GPU", "2"),
        ];
        assert_eq!(environment, expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(found.slots[1].environment().len(), 2, "the other GPU has one");
        let cpu = LocalSlots::of(&settings(&[("MUSTER_DEVICE", "cpu")]), &machine(2, 2)).unwrap();
        assert_eq!(cpu.slots[0].environment(), [("MUSTER_SLOT_DEVICE", "cpu".to_owned())]);
    }

    #[test]
    fn what_the_machine_has_not_is_refused_with_the_mend() {
        let refused = |pairs: &[(&str, &str)], machine: &Machine| {
            LocalSlots::of(&settings(pairs), machine).unwrap_err().to_string()
        };
        let text = refused(&[("MUSTER_DEVICE", "cuda")], &machine(2, 0));
        assert!(text.contains("CUDA_VISIBLE_DEVICES"), "{text}");
        let text = refused(&[("MUSTER_SLOTS", "5")], &machine(8, 2));
        assert!(text.contains("slots = 2, slots_per_gpu = 3"), "{text}");
    }

    #[test]
    fn a_device_that_the_environment_names_is_left_to_it() {
        let named = Machine { names_device: true, ..machine(2, 0) };
        let of = |pairs: &[(&str, &str)]| LocalSlots::of(&settings(pairs), &named).unwrap();
        assert!(of(&[]).slots[0].environment().is_empty());
        assert_eq!(of(&[("MUSTER_DEVICE", "cpu")]).slots[0].device, SlotDevice::Cpu);
    }

    proptest! {
        #[test]
        fn slots_are_spread_evenly_over_gpus(num_gpus in 1u32..9, per_gpu in 1u32..5, any in 0u32..32) {
            let slots = 1 + any % (num_gpus * per_gpu);
            let (slots, per_gpu) = (slots.to_string(), per_gpu.to_string());
            let pairs = [("MUSTER_SLOTS", slots.as_str()), ("MUSTER_SLOTS_PER_GPU", per_gpu.as_str())];
            let found = LocalSlots::of(&settings(&pairs), &machine(8, num_gpus)).unwrap();
            prop_assert_eq!(found.count().to_string(), slots);
            let mut counts = std::collections::BTreeMap::new();
            for slot in &found.slots {
                let SlotDevice::Gpu { name, num_slots } = &slot.device else { panic!("{slot}") };
                let (count, said) = counts.entry(name.clone()).or_insert((0, *num_slots));
                *count += 1;
                prop_assert_eq!(*said, *num_slots);
            }
            prop_assert!(counts.values().all(|(count, said)| count == said), "{:?}", counts);
            let (least, most) = (counts.values().min().unwrap().0, counts.values().max().unwrap().0);
            prop_assert!(most - least <= 1);
        }
    }
}
