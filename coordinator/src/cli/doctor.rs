//! `muster doctor`: whether everything is there that runs need, and how to mend what is not.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use muster_common::storage::{Store, StoreError};
use muster_common::time::Timestamp;
use serde::Serialize;
use tokio::process::Command;

use super::access_check::check_access;
use super::args::DoctorArguments;
use super::chain;
use super::exit::Exit;
use super::number::bytes;
use crate::launcher::find_worker;
use crate::machine::local_slots;
use crate::settings::{Settings, absolute};

/// Clocks further apart than this are about to be refused: stores allow fifteen minutes at most.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(60);
/// Less free disk than this is soon used up by checkpoints.
const FREE_BYTES_MIN: u64 = 2_000_000_000;
/// Longest wait for another program: loading libtorch from a cold disk takes a while.
const PROGRAM: Duration = Duration::from_secs(120);
/// Longest wait for the store.
const STORE: Duration = Duration::from_secs(60);

/// What was found out about one thing.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) ok: bool,
    pub(super) detail: String,
    /// What to do; empty where there is nothing to do.
    pub(super) mend: String,
}

impl Finding {
    pub(super) fn good(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, ok: true, detail: detail.into(), mend: String::new() }
    }

    pub(super) fn bad(
        check: &'static str,
        detail: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { check, ok: false, detail: detail.into(), mend: mend.into() }
    }
}

pub(super) async fn doctor(arguments: DoctorArguments) -> anyhow::Result<Exit> {
    let settings = Settings::load(&arguments.settings, std::env::vars())?;
    let mut findings = Vec::new();
    check_store(&settings, &mut findings).await;
    let places = [Some(absolute(&settings.state)), settings.local_store().map(absolute)];
    for (check, place) in ["state disk", "store disk"].into_iter().zip(places) {
        findings.extend(place.map(|place| check_disk(check, &place)));
    }
    findings.push(check_worker(settings.worker_binary.as_deref()).await);
    findings.push(check_gpus().await);
    findings.extend(check_slots(&settings).await);
    findings.extend(check_access(&settings, Timestamp::now()));
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        for Finding { check, ok, detail, mend } in &findings {
            let verdict = if *ok { "ok" } else { "wrong" };
            println!("{verdict:5}  {check:18}  {detail}");
            if !mend.is_empty() {
                println!("{:27}{mend}", "");
            }
        }
    }
    Ok(if findings.iter().all(|finding| finding.ok) { Exit::Done } else { Exit::Failed })
}

async fn check_store(settings: &Settings, findings: &mut Vec<Finding>) {
    let mend = "look at `store` and the keys that begin so in muster.toml, and at \"Object stores\" in \
                configs/README.md";
    let opened = async { Store::open_checked(&settings.store_url()?).await };
    let store = match within(opened).await {
        Ok(store) => store,
        Err(error) => return findings.push(Finding::bad("store", error, mend)),
    };
    findings.push(Finding::good("store", format!("{} answers", store.url())));
    let name = format!("{}-{}", Timestamp::now().0, std::process::id());
    let probed = within(store.probe(&name)).await;
    if let Some(directory) = settings.local_store() {
        // Folders of a disk stay when their objects go; these hold something only while another doctor looks.
        let folder = directory.join("doctor");
        let _kept =
            std::fs::remove_dir(folder.join(&name)).and_then(|()| std::fs::remove_dir(folder));
    }
    let found = match probed {
        Ok(found) => found,
        Err(error) => {
            let mend =
                "whoever the credentials belong to must be allowed to read, write, list and delete";
            return findings.push(Finding::bad("store rights", error, mend));
        }
    };
    let took = format!("written, read, listed, deleted; {} ms", found.round_trip.as_millis());
    findings.push(if found.reads_back {
        Finding::good("store rights", took)
    } else {
        let detail = "what is read is not what was written";
        Finding::bad("store rights", detail, "take the cache between here and the store away")
    });
    findings.push(if found.creators == 1 && found.refuses_later {
        Finding::good("conditional writes", "of 8 writers at once, one creates an object")
    } else {
        let detail = format!("{} of 8 writers at once created the same object", found.creators);
        let mend = "the store does not honor If-None-Match: use a newer release of it, or another";
        Finding::bad("conditional writes", detail, mend)
    });
    let apart = format!("{} s apart", found.clock_apart.as_secs());
    findings.push(if found.clock_apart <= CLOCKS_APART_MAX {
        Finding::good("clocks", apart)
    } else {
        let mend = "set this machine's clock (timedatectl set-ntp true), or the store's";
        Finding::bad("clocks", apart, mend)
    });
}

async fn within<T>(operation: impl Future<Output = Result<T, StoreError>>) -> Result<T, String> {
    match tokio::time::timeout(STORE, operation).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(chain(&error.into())),
        Err(_) => Err(format!("no answer within {} s", STORE.as_secs())),
    }
}

/// Free space where `place` is or will be.
fn check_disk(check: &'static str, place: &Path) -> Finding {
    let there = place.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(place);
    match rustix::fs::statvfs(there) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let detail = format!("{} free at {}", bytes(free), place.display());
            if free >= FREE_BYTES_MIN {
                return Finding::good(check, detail);
            }
            let mend = "make room, or move `state` or `store` (checkpoint.keep_last says how many are kept)";
            Finding::bad(check, detail, mend)
        }
        Err(error) => {
            let detail = format!("{}: {error}", place.display());
            Finding::bad(check, detail, "name a directory that can be read")
        }
    }
}

/// Starts the worker and lets it compute something: so libtorch is found, and is the right one.
async fn check_worker(configured: Option<&Path>) -> Finding {
    let check = "worker, libtorch";
    let program: PathBuf = match find_worker(configured) {
        Ok(program) => program,
        Err(error) => {
            return Finding::bad(check, "there is no muster-worker", error.to_string());
        }
    };
    let mut command = Command::new(&program);
    command.arg("check-collectives");
    match output_of(command).await {
        Ok((true, said)) => Finding::good(check, last_line(&said)),
        Ok((false, said)) => {
            let mend = "install libtorch 2.11.0 (deploy/setup/libtorch.sh), build against it, or set \
                        LD_LIBRARY_PATH to its lib directory";
            Finding::bad(check, format!("{}: {}", program.display(), last_line(&said)), mend)
        }
        Err(error) => Finding::bad(
            check,
            format!("{}: {error}", program.display()),
            "name it with --worker-binary",
        ),
    }
}

async fn check_gpus() -> Finding {
    let check = "GPUs";
    let has_device = Path::new("/dev/nvidia0").exists();
    let mut command = Command::new("nvidia-smi");
    command.args(["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]);
    match output_of(command).await {
        Ok((true, said)) if !said.trim().is_empty() => {
            Finding::good(check, said.trim().lines().collect::<Vec<_>>().join("; "))
        }
        _ if !has_device => Finding::good(check, "none: training runs on the CPU"),
        Ok((_, said)) => {
            let mend = "the driver does not answer: reinstall it or restart the machine";
            Finding::bad(check, last_line(&said), mend)
        }
        Err(error) => Finding::bad(
            check,
            format!("/dev/nvidia0 is there, nvidia-smi is not: {error}"),
            "install the programs of the driver",
        ),
    }
}

/// What the local slots would be here; nothing where workers come from a cluster.
async fn check_slots(settings: &Settings) -> Option<Finding> {
    let check = "local slots";
    match local_slots(settings).await {
        Ok(slots) => slots.map(|slots| Finding::good(check, slots.to_string())),
        Err(error) => {
            let mend = "look at `slots`, `device` and `slots_per_gpu` in muster.toml";
            Some(Finding::bad(check, chain(&error), mend))
        }
    }
}

/// Whether a program ends well, and what it says.
async fn output_of(mut command: Command) -> Result<(bool, String), String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(PROGRAM, command.output()).await {
        Ok(Ok(output)) => {
            let said = [output.stderr, output.stdout].concat();
            Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no end within {} s", PROGRAM.as_secs())),
    }
}

fn last_line(text: &str) -> String {
    text.trim().lines().last().unwrap_or("it says nothing").to_owned()
}
