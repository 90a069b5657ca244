//! What this process trains with, for those who look at its results later: see `muster_common::equipment`.

use std::fs;
use std::sync::OnceLock;

use muster_common::equipment::{Equipment, EquipmentKind, Gpu};

use crate::ffi::{Nvml, libtorch_version};
use crate::machine::{gpu_of_slot, host_name};

/// Name of the worker that this process computes for; its supervisor sets it.
pub(crate) const WORKER_VARIABLE: &str = "MUSTER_SLOT_WORKER";

/// The machine and what the slot has of it, looked at once. What the kernel or a driver does not tell stays empty or
/// 0: no training fails for it.
pub(crate) fn of_slot() -> Equipment {
    static SEEN: OnceLock<Equipment> = OnceLock::new();
    SEEN.get_or_init(look).clone()
}

fn look() -> Equipment {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kind = EquipmentKind {
        processor: processor_of(&cpuinfo),
        num_processors: num_processors_of(&cpuinfo),
        memory_bytes: memory_bytes_of(&meminfo),
        threads: u32::try_from(tch::get_num_threads()).unwrap_or_default(),
        gpu: gpu_of_slot().and_then(|gpu| gpu_called(&gpu)),
        libtorch: libtorch_version(),
        muster: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let own_name = || format!("process-{}", std::process::id());
    let worker = std::env::var(WORKER_VARIABLE).unwrap_or_else(|_| own_name());
    Equipment { host: host_name(), worker, kind }
}

fn gpu_called(gpu: &str) -> Option<Gpu> {
    // Whoever measures the GPU has said already why there is none.
    Nvml::open(gpu).ok()?.identity()
}

/// The first value of a field of `/proc/cpuinfo` or `/proc/meminfo`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let of_line = |line: &'a str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    };
    text.lines().find_map(of_line).filter(|value| !value.is_empty())
}

/// The processor's model. ARM's kernel does not know names: then what its tables are searched by.
fn processor_of(cpuinfo: &str) -> String {
    if let Some(name) = field(cpuinfo, "model name").or_else(|| field(cpuinfo, "cpu")) {
        return name.to_owned();
    }
    let architecture = std::env::consts::ARCH;
    match (field(cpuinfo, "CPU implementer"), field(cpuinfo, "CPU part")) {
        (Some(implementer), Some(part)) => {
            format!("{architecture}, implementer {implementer}, part {part}")
        }
        _ => architecture.to_owned(),
    }
}

/// Logical processors, those that this process may not use included.
fn num_processors_of(cpuinfo: &str) -> u32 {
    let is_one = |line: &&str| {
        line.split_once(':')
            .is_some_and(|(key, _)| key.split_whitespace().next() == Some("processor"))
    };
    u32::try_from(cpuinfo.lines().filter(is_one).count()).unwrap_or_default()
}

fn memory_bytes_of(meminfo: &str) -> u64 {
    let kibibytes = field(meminfo, "MemTotal").and_then(|value| value.strip_suffix("kB"));
    let kibibytes: Option<u64> = kibibytes.and_then(|value| value.trim().parse().ok());
    kibibytes.unwrap_or_default().saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86: &str = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9B14\ncpu MHz\t\t: 2600\n\n\
        processor\t: 1\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9B14\n";
    const ARM: &str =
        "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n\n";
    const POWER: &str = "processor\t: 0\ncpu\t\t: POWER9, altivec supported\n";

    #[test]
    fn processors_are_called_as_the_kernel_calls_them() {
        assert_eq!((processor_of(X86).as_str(), num_processors_of(X86)), ("AMD EPYC 9B14", 2));
        assert_eq!(processor_of(POWER), "POWER9, altivec supported");
        let arm = format!("{}, implementer 0x41, part 0xd0c", std::env::consts::ARCH);
        assert_eq!((processor_of(ARM), num_processors_of(ARM)), (arm, 1));
        assert_eq!((processor_of("").as_str(), num_processors_of("")), (std::env::consts::ARCH, 0));
    }

    #[test]
    fn memory_is_that_of_the_machine() {
        assert_eq!(memory_bytes_of("MemTotal:       24740368 kB\nMemFree: 1 kB\n"), 25_334_136_832);
        assert_eq!(memory_bytes_of("MemTotal: much\n"), 0);
    }

    #[test]
    fn this_process_has_all_of_it() {
        let found = of_slot();
        let cores = std::thread::available_parallelism().unwrap().get();
        assert!(found.kind.num_processors as usize >= cores, "{found:?}");
        assert!(found.kind.memory_bytes > 256 << 20, "{found:?}");
        assert!(found.kind.threads >= 1 && !found.kind.processor.is_empty(), "{found:?}");
        let parts: Vec<&str> = found.kind.libtorch.split('.').collect();
        assert!(parts.len() >= 3 && parts[0].parse::<u32>().is_ok_and(|one| one >= 2), "{found:?}");
        assert_eq!(found.kind.muster, env!("CARGO_PKG_VERSION"));
    }
}
