//! The GPUs that this process may use, without any library of CUDA: those that `CUDA_VISIBLE_DEVICES` names
//! where it is set, else all that the driver shows.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// What says which GPUs a process sees, and in which order.
pub(crate) const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";
/// Time for the driver's answer: it wakes up slowly where no process keeps it awake.
const ANSWER: Duration = Duration::from_secs(20);
/// One of these is there where a driver is.
const SIGNS: [&str; 3] = ["/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg"];
/// A folder for every GPU, by its address on the bus.
const FOLDERS: &str = "/proc/driver/nvidia/gpus";

/// A GPU, or a part of one (MIG), that one process can be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its index or UUID, as `CUDA_VISIBLE_DEVICES` wants it.
    pub name: String,
    /// NUMA node that it is at, where the kernel tells.
    pub node: Option<u32>,
}

/// A device of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    uuid: String,
    /// UUID of the GPU that it is, or is a part of.
    gpu: String,
}

/// Looks for them; `visible` is the value of [`VISIBLE`].
pub(super) async fn find(sys: &Path, visible: Option<&str>) -> Vec<Gpu> {
    let may_be_some = visible.is_none_or(|visible| tokens(visible).next().is_some());
    if !may_be_some || !SIGNS.iter().any(|sign| Path::new(sign).exists()) {
        return Vec::new();
    }
    let (folders, mut listed) = (of_folders(Path::new(FOLDERS)), listing().await);
    if listed.is_empty() {
        let whole = |(uuid, _): &(String, String)| Listed { uuid: uuid.clone(), gpu: uuid.clone() };
        listed = folders.iter().map(whole).collect();
    }
    let node = |listed: &Listed| {
        let (_, address) = folders.iter().find(|(uuid, _)| *uuid == listed.gpu)?;
        let file = sys.join("bus/pci/devices").join(address).join("numa_node");
        // -1: the machine has one node, or does not say.
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    };
    let known: Vec<(String, Option<u32>)> =
        listed.iter().map(|listed| (listed.uuid.clone(), node(listed))).collect();
    choose(visible, &known)
}

/// What the driver's program lists; nothing where it does not answer.
async fn listing() -> Vec<Listed> {
    let mut command = Command::new("nvidia-smi");
    // Its answer is about the machine, whatever this process may see.
    command.arg("-L").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(ANSWER, command.output()).await {
        Ok(Ok(output)) if output.status.success() => {
            parse_listing(&String::from_utf8_lossy(&output.stdout))
        }
        _ => Vec::new(),
    }
}

/// Lines of `nvidia-smi -L`, such as `GPU 0: NVIDIA A100 (UUID: GPU-...)`, and below those the parts that one is
/// cut into: `  MIG 1g.10gb Device 0: (UUID: MIG-...)`. A GPU with parts is used by these only.
fn parse_listing(text: &str) -> Vec<Listed> {
    let mut listed: Vec<Listed> = Vec::new();
    let mut gpu = String::new();
    for line in text.lines() {
        let Some((_, rest)) = line.rsplit_once("(UUID: ") else { continue };
        let Some((uuid, _)) = rest.split_once(')') else { continue };
        if line.trim_start().starts_with("MIG ") {
            listed.retain(|listed| listed.uuid != gpu);
        } else {
            uuid.clone_into(&mut gpu);
        }
        listed.push(Listed { uuid: uuid.to_owned(), gpu: gpu.clone() });
    }
    listed
}

/// UUID and address on the bus of every GPU, by address. A driver that has not looked at one yet shows question
/// marks for its UUID; that one is left out.
fn of_folders(folders: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folders).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path().join("information")).unwrap_or_default();
        let uuid = text.lines().find_map(|line| line.strip_prefix("GPU UUID:")).map(str::trim);
        let Some(uuid) = uuid.filter(|uuid| uuid.starts_with("GPU-") && !uuid.contains('?')) else {
            continue;
        };
        let address = entry.file_name().to_string_lossy().into_owned();
        found.push((uuid.to_owned(), address));
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    found
}

/// What CUDA would make of `visible` where the `known` GPUs are, as the CUDA C++ Programming Guide describes
/// the variable: indices or UUIDs, these cut short if they are still unambiguous; the first that is none, or is
/// not there, ends the list. Where nothing is known, it is taken at its word.
fn choose(visible: Option<&str>, known: &[(String, Option<u32>)]) -> Vec<Gpu> {
    let all = |(uuid, node): &(String, Option<u32>)| Gpu { name: uuid.clone(), node: *node };
    let Some(visible) = visible else { return known.iter().map(all).collect() };
    let mut chosen: Vec<Gpu> = Vec::new();
    for token in tokens(visible) {
        let node = match (token.parse::<usize>(), known.is_empty()) {
            (_, true) => None,
            (Ok(index), false) => match known.get(index) {
                Some((_, node)) => *node,
                None => break,
            },
            (Err(_), false) => {
                let mut meant = known.iter().filter(|(uuid, _)| uuid.starts_with(token));
                match (meant.next(), meant.next()) {
                    (Some((_, node)), None) => *node,
                    _ => break,
                }
            }
        };
        // Said twice is one device.
        if !chosen.iter().any(|gpu| gpu.name == token) {
            chosen.push(Gpu { name: token.to_owned(), node });
        }
    }
    chosen
}

/// Indices and UUIDs up to the first text that is neither.
fn tokens(visible: &str) -> impl Iterator<Item = &str> {
    let is_index = |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_digit());
    let is_uuid = |token: &str| token.starts_with("GPU-") || token.starts_with("MIG-");
    visible.split(',').map(str::trim).take_while(move |token| is_index(token) || is_uuid(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(visible: Option<&str>, known: &[&str]) -> Vec<String> {
        let known: Vec<(String, Option<u32>)> =
            known.iter().map(|uuid| ((*uuid).to_owned(), Some(1))).collect();
        choose(visible, &known).into_iter().map(|gpu| gpu.name).collect()
    }

    #[test]
    fn what_is_visible_is_read_as_cuda_reads_it() {
        let two = ["GPU-aa11", "GPU-ab22"];
        assert_eq!(names(None, &two), two);
        let cases: [(&str, &[&str]); 12] = [
            ("", &[]),
            ("-1", &[]),
            ("NoDevFiles", &[]),
            ("0,1", &["0", "1"]),
            (" 1 , 0 ", &["1", "0"]),
            ("1,-1,0", &["1"]),
            ("0,2,1", &["0"]),
            ("1,1", &["1"]),
            ("GPU-ab", &["GPU-ab"]),
            ("GPU-a", &[]),
            ("GPU-ab22,GPU-cc", &["GPU-ab22"]),
            ("0,,1", &["0"]),
        ];
        for (visible, expected) in cases {
            assert_eq!(names(Some(visible), &two), expected, "{visible:?}");
        }
        // No program of the driver to ask: the variable is believed.
        assert_eq!(names(Some("3,MIG-7"), &[]), ["3", "MIG-7"]);
        assert_eq!(
            choose(Some("1"), &[("GPU-a".to_owned(), None), ("GPU-b".to_owned(), Some(1))])[0].node,
            Some(1)
        );
    }

    #[test]
    fn a_gpu_that_is_cut_into_parts_counts_as_its_parts() {
        let text = "GPU 0: NVIDIA H200 (UUID: GPU-aa)\n\
                    GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-bb)\n  \
                      MIG 3g.40gb     Device  0: (UUID: MIG-c1)\n  \
                      MIG 3g.40gb     Device  1: (UUID: MIG-c2)\n";
        let listed = |uuid: &str, gpu: &str| Listed { uuid: uuid.to_owned(), gpu: gpu.to_owned() };
        let expected =
            [listed("GPU-aa", "GPU-aa"), listed("MIG-c1", "GPU-bb"), listed("MIG-c2", "GPU-bb")];
        assert_eq!(parse_listing(text), expected);
        assert!(parse_listing("No devices found.\n").is_empty());
    }

    #[test]
    fn the_drivers_folders_tell_address_and_uuid() {
        let folders = tempfile::tempdir().unwrap();
        let gpus =
            [("0000:c1:00.0", "GPU-2"), ("0000:41:00.0", "GPU-1"), ("0000:e1:00.0", "GPU-??")];
        for (address, uuid) in gpus {
            let folder = folders.path().join(address);
            std::fs::create_dir(&folder).unwrap();
            let text = format!("Model: \t\t NVIDIA H200\nIRQ:   \t\t 42\nGPU UUID: \t {uuid}\n");
            std::fs::write(folder.join("information"), text).unwrap();
        }
        let found = of_folders(folders.path());
        let found: Vec<(&str, &str)> =
            found.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(found, [("GPU-1", "0000:41:00.0"), ("GPU-2", "0000:c1:00.0")]);
    }

    #[tokio::test]
    async fn nobody_is_asked_where_nothing_is_visible() {
        for visible in ["", "-1"] {
            assert!(find(Path::new("/sys"), Some(visible)).await.is_empty());
        }
    }
}
