//! The manifest: what a user submits. [`Manifest::parse`] is the one door from text to types; behind
//! it everything is known to be legal and nobody checks again.

mod assignment;
mod budget;
mod category;
mod continuation;
mod data;
mod document;
mod edit;
mod fit;
mod goal;
mod hub;
mod label;
mod limits;
mod objective;
mod pattern;
mod population;
mod pruner;
mod reader;
mod resources;
mod rung;
mod sampler;
pub mod schema;
mod searcher;
mod section;
mod settings;
mod source;
mod space;
mod synonym;
mod training;
mod truncation;
mod validate;
mod warning;
mod workload;

pub use assignment::Assignment;
pub use budget::Budget;
pub use category::Category;
pub use continuation::{CheckpointChoice, Continuation};
pub use document::{Entry, Malformed, Node, NodeKind, parse as parse_yaml};
pub use edit::{Change, ChangeError, edited};
pub use fit::Misfit;
pub use hub::HubName;
pub use limits::Limits;
pub use objective::MaskingSettings;
pub use population::PopulationSettings;
pub use pruner::{Bracket, HalvingSettings, PatienceSettings, PercentileSettings, PrunerSettings};
pub use reader::{Issue, ManifestError};
pub use resources::{PRIORITY_MAX, Resources, Slots};
pub use rung::ladder;
pub use searcher::{CmaEsSettings, GpSettings, SamplerSettings, SearcherSettings, TpeSettings};
pub use settings::{HYPERPARAMETERS, HyperparameterKind, HyperparameterSpec, TrialSettings};
pub use source::{
    DataSettings, Delimiter, Holdout, HubSet, Hygiene, LabelRange, LabelRule, NearDuplicates,
    Policy, Source, SourceFormat, no_column,
};
pub use space::{Domain, ParameterValue, Scale, SearchSpace, grid_points, is_active, keep_active};
pub use training::{
    ClassWeights, EarlyStopping, EvaluationSettings, GradientCompression, Precision, ScheduleShape,
    TrainingSettings, Unfreezing, WeightAverage,
};
pub use truncation::Truncation;

use serde::{Deserialize, Serialize};

use crate::id::{ExperimentName, ProjectName};
use crate::seed::Seed;

/// The manifest version this build writes and reads.
pub const MANIFEST_VERSION: u32 = 1;

/// A validated manifest. Immutable once submitted; journaled as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Experiments are numbered `NAME-1`, `NAME-2`, ...
    pub name: ExperimentName,
    /// Free text for people.
    pub description: Option<String>,
    /// Whose share of the slots it uses; absent: that of the user who submits it.
    #[serde(default)]
    pub project: Option<ProjectName>,
    /// Root of every random choice.
    pub seed: Seed,
    /// What is fine-tuned.
    pub model: ModelSettings,
    /// What it learns to do.
    #[serde(default)]
    pub objective: TrainingObjective,
    /// What it learns from.
    pub data: DataSettings,
    /// Constants and searched domains, by name of [`HYPERPARAMETERS`]. What is a word there is said of trials, and
    /// counts before the section `training`; see [`Manifest::training_of`].
    pub hyperparameters: SearchSpace,
    /// Absent: one trial with constant hyperparameters.
    pub searcher: Option<SearcherSettings>,
    /// How long one trial trains at most.
    pub budget: Budget,
    /// Absent: trials begin at the pretrained weights.
    #[serde(default)]
    pub continue_from: Option<Continuation>,
    /// When trials save themselves.
    pub checkpoint: CheckpointSettings,
    /// What one trial occupies.
    pub resources: Resources,
    /// What the whole experiment may cost.
    #[serde(default)]
    pub limits: Limits,
    /// How often a trial may fail and start again from its last checkpoint.
    pub max_restarts: u32,
    /// How every trial trains.
    #[serde(default)]
    pub training: TrainingSettings,
    /// How results are read.
    #[serde(default)]
    pub evaluation: EvaluationSettings,
}

/// What a model learns to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainingObjective {
    /// The class of a text.
    #[default]
    Classification,
    /// The tokens that are hidden.
    MaskedLm,
    /// Whether the second sentence follows the first.
    NextSentence,
    /// Both at once, as BERT was pretrained.
    Pretraining,
}

impl TrainingObjective {
    /// Every objective by its name in manifests.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("classification", Self::Classification),
        ("masked_lm", Self::MaskedLm),
        ("next_sentence", Self::NextSentence),
        ("pretraining", Self::Pretraining),
    ];

    /// Name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::MaskedLm => "masked_lm",
            Self::NextSentence => "next_sentence",
            Self::Pretraining => "pretraining",
        }
    }
}

/// The pretrained model and which of it stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSettings {
    /// A directory in Hugging Face layout (`config.json`, `model.safetensors`, tokenizer files), or
    /// the name of a model on a hub; see [`ModelSettings::hub_name`].
    pub pretrained: String,
    /// Longest sequence in tokens, special tokens counted.
    pub max_length: u32,
    /// Which part of a longer text is kept.
    #[serde(default)]
    pub truncation: Truncation,
    /// The embeddings are not trained.
    pub freeze_embeddings: bool,
    /// So many of the lowest encoder layers are not trained.
    pub freeze_layers: u32,
    /// Parameters whose names fit one of these are not trained either.
    #[serde(default)]
    pub freeze_patterns: Vec<String>,
    /// So many of the highest encoder layers, and BERT's pooler, start from new random weights.
    #[serde(default)]
    pub reinitialize_layers: u32,
}

impl ModelSettings {
    /// The name on a hub that `pretrained` is, once paths are absolute; `None`: it is a path.
    pub fn hub_name(&self) -> Option<HubName> {
        if std::path::Path::new(&self.pretrained).is_absolute() {
            return None;
        }
        HubName::parse(&self.pretrained)
    }

    /// Whether anything is not trained.
    pub fn freezes(&self) -> bool {
        self.freeze_embeddings || self.freeze_layers > 0 || !self.freeze_patterns.is_empty()
    }
}

/// When a trial saves a checkpoint besides at the end of each rung, and which are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSettings {
    /// Every so many steps; absent: only at rungs.
    pub every_steps: Option<u64>,
    /// So many of the newest checkpoints of a trial are kept, at least one.
    pub keep_last: u32,
    /// Those of so many of its best results as well, at least one.
    #[serde(default = "one")]
    pub keep_best: u32,
    /// And those whose step is a multiple of this; absent: none for that reason.
    #[serde(default)]
    pub keep_every_steps: Option<u64>,
    /// Ranks share the writing, at least so many MiB each; 0: however little it is.
    #[serde(default = "default_shard_mib")]
    pub shard_mib: u32,
}

impl CheckpointSettings {
    /// Only at rungs; the newest two and the best are kept.
    pub const DEFAULT: Self = Self {
        every_steps: None,
        keep_last: 2,
        keep_best: 1,
        keep_every_steps: None,
        shard_mib: 16,
    };
}

fn default_shard_mib() -> u32 {
    CheckpointSettings::DEFAULT.shard_mib
}

/// What journals of older builds say nothing of.
fn one() -> u32 {
    1
}
