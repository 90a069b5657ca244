//! What gradients on GPUs go through: NCCL where its plugin is there, else Gloo by way of the host.

use std::path::PathBuf;

use crate::ffi::{GpuCollectives, NcclPlugin};

/// `nccl` or `gloo`; without it NCCL is taken where it is there.
const VARIABLE: &str = "MUSTER_GPU_COLLECTIVES";
/// Lies beside the program; `deploy/setup/nccl_plugin.sh` builds it.
const PLUGIN: &str = "libmuster_nccl.so";

/// The setting cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum GpuCollectivesError {
    /// It is neither.
    #[error("{VARIABLE} is `{text}`; write `nccl` or `gloo`, or leave it out")]
    Name {
        /// What it holds.
        text: String,
    },
    /// NCCL is asked for and is not there.
    #[error(
        "{VARIABLE} is `nccl`, but {} cannot be opened: {reason}; deploy/setup/nccl_plugin.sh builds it, \
         and `gloo` does without",
        .file.display()
    )]
    Plugin {
        /// The plugin.
        file: PathBuf,
        /// What the loader says.
        reason: String,
    },
}

/// What this process takes. All ranks must take the same, which is compared at the rendezvous.
pub(super) fn collectives() -> Result<GpuCollectives, GpuCollectivesError> {
    chosen(std::env::var(VARIABLE).ok().as_deref(), plugin_file())
}

/// For people and for the comparison of ranks.
pub(super) fn name(collectives: GpuCollectives) -> &'static str {
    match collectives {
        GpuCollectives::Gloo => "gloo",
        GpuCollectives::Nccl(_) => "nccl",
    }
}

fn chosen(wanted: Option<&str>, file: PathBuf) -> Result<GpuCollectives, GpuCollectivesError> {
    match wanted {
        Some("gloo") => return Ok(GpuCollectives::Gloo),
        None | Some("" | "nccl") => {}
        Some(text) => return Err(GpuCollectivesError::Name { text: text.to_owned() }),
    }
    match NcclPlugin::open(&file) {
        Ok(plugin) => Ok(GpuCollectives::Nccl(plugin)),
        Err(reason) if wanted == Some("nccl") => Err(GpuCollectivesError::Plugin { file, reason }),
        Err(reason) => {
            tracing::warn!(reason, "gradients of GPUs go through the host's memory: no NCCL");
            Ok(GpuCollectives::Gloo)
        }
    }
}

fn plugin_file() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.with_file_name(PLUGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nccl_is_taken_where_it_is_there_and_refused_where_it_was_asked_for() {
        let nowhere = || PathBuf::from("/nowhere").join(PLUGIN);
        for wanted in [None, Some(""), Some("gloo")] {
            assert_eq!(chosen(wanted, nowhere()).unwrap(), GpuCollectives::Gloo, "{wanted:?}");
        }
        let error = chosen(Some("nccl"), nowhere()).unwrap_err().to_string();
        assert!(error.contains(PLUGIN) && error.contains("nccl_plugin.sh"), "{error}");
        let error = chosen(Some("mpi"), nowhere()).unwrap_err().to_string();
        assert!(error.contains("`mpi`"), "{error}");
    }
}
