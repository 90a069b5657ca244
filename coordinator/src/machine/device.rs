//! What local workers compute on, as a user says it.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// What local workers compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LocalDevice {
    /// GPUs where there are some and the worker can use them, else processors
    Auto,
    /// Processors
    Cpu,
    /// GPUs
    Cuda,
}

impl LocalDevice {
    /// As it stands in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

impl<'de> Deserialize<'de> for LocalDevice {
    /// Names those there are, which `config` does not.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = [Self::Auto, Self::Cpu, Self::Cuda].into_iter().find(|d| d.name() == name);
        known
            .ok_or_else(|| D::Error::custom(format!("device is `{name}`; write auto, cpu or cuda")))
    }
}
