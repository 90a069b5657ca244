//! Where workers come from: [`local`] processes of this machine, or a cluster. For a cluster the pure
//! [`planner`] says what to ask for, [`keeper`] looks, asks and keeps the [`record`] of what was asked,
//! and a [`cluster::Cluster`] puts it into the words of one kind of cluster: [`slurm`], [`kubernetes`]. What a
//! cluster is like stands in a [`profile`].
//!
//! Workers dial out, wherever they run. So nothing here talks to them; what they do is known to the engine.

mod aftermath;
pub mod cluster;
pub mod keeper;
pub mod kubernetes;
pub mod local;
pub mod planner;
pub mod profile;
pub mod record;
pub mod slurm;

use std::path::{Path, PathBuf};

pub use local::{LOCAL_PREFIX, LocalLauncher};

/// No worker program.
#[derive(Debug, thiserror::Error)]
#[error(
    "no `muster-worker` beside {} and none on the PATH; \
     build it with `cargo build --release -p muster-worker` or name it with --worker-binary",
    beside.display()
)]
pub struct NoWorker {
    beside: PathBuf,
}

/// Finds the worker program: as configured, else beside this program, else on the PATH.
pub fn find_worker(configured: Option<&Path>) -> Result<PathBuf, NoWorker> {
    if let Some(path) = configured {
        return Ok(path.to_owned());
    }
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.with_file_name("muster-worker");
    if beside.is_file() {
        return Ok(beside);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("muster-worker"))
        .find(|candidate| candidate.is_file())
        .ok_or(NoWorker { beside: own })
}
