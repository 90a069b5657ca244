//! A manifest held against its pretrained model: what neither shows by itself. The same rules stand in front of a
//! submission, where the model is a directory of that machine, and in front of the first training step.

use std::fmt;
use std::path::Path;

use super::document;
use super::reader::{Field, Issues, ManifestError};
use super::validate::domain_bounds;
use super::{Budget, Domain, LabelRule, Manifest, TrainingObjective};
use crate::count::{counted, counted_are};
use crate::model::{
    CONFIG_FILE, DirectoryError, ModelConfig, TokenTypes, TokenizerKind, weights_files,
};

/// Below this share of the learning rate a layer hardly learns, and the decay was rarely meant so.
const RATE_SHARE_MIN: f64 = 1e-3;

/// What a directory must hold, for whoever names a wrong one.
const WHOLE_DIRECTORY: &str =
    "name a directory with config.json, model.safetensors and the tokenizer's files";

/// One thing that a manifest asks for and its pretrained model cannot do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Place in the manifest.
    path: &'static [&'static str],
    /// What is wrong.
    message: String,
    /// What to write instead.
    mend: String,
}

impl Misfit {
    fn new(
        path: &'static [&'static str],
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self { path, message: message.into(), mend: mend.into() }
    }

    fn of_directory(message: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::new(&["model", "pretrained"], message, mend)
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path.join("."), self.message, self.mend)
    }
}

impl ModelConfig {
    /// What is wrong with sequences of up to `max_length` tokens for this model.
    pub fn misfit_of_length(&self, max_length: u32) -> Option<Misfit> {
        self.length_misfit(&["model", "max_length"], i64::from(max_length))
    }

    fn length_misfit(&self, path: &'static [&'static str], max_length: i64) -> Option<Misfit> {
        let max = self.max_tokens();
        (max_length > max).then(|| {
            let message =
                format!("{max_length}, but the model takes at most {}", counted(max, "token"));
            Misfit::new(path, message, format!("write {max} or less"))
        })
    }
}

impl Manifest {
    /// Everything the manifest asks for that a model with this `config.json` cannot do.
    pub fn misfits(&self, config: &ModelConfig) -> Vec<Misfit> {
        let mut misfits = self.long_sequences(config);
        misfits.extend(self.wrong_layers(config));
        misfits.extend(self.wrong_segments(config));
        misfits.extend(self.wrong_objective(config));
        misfits
    }

    /// Holds the manifest against the model directory it names: what is wrong with the two, each with its line in
    /// `text`, which the manifest was read from; else one line for each thing that is rarely meant. A model that is
    /// no directory here is not looked at. Reads `config.json` and looks whether the other files are there.
    pub fn check_model(&self, text: &str) -> Result<Vec<String>, ManifestError> {
        if self.model.hub_name().is_some() {
            return Ok(Vec::new());
        }
        let directory = Path::new(&self.model.pretrained);
        let config = match ModelConfig::read(directory) {
            Ok(config) => config,
            Err(error) => return Err(placed(text, &[unreadable(directory, &error)])),
        };
        let mut misfits = missing_files(directory);
        misfits.extend(self.misfits(&config));
        if misfits.is_empty() {
            Ok(self.model_warnings(&config))
        } else {
            Err(placed(text, &misfits))
        }
    }

    fn long_sequences(&self, config: &ModelConfig) -> Vec<Misfit> {
        let domain = self.hyperparameters.get("max_length");
        let searched = domain.map(|_| {
            let (_, longest) = domain_bounds(self, "max_length");
            #[expect(
                clippy::cast_possible_truncation,
                reason = "validation keeps it a whole number within 8 to 8192"
            )]
            let longest = longest as i64;
            config.length_misfit(&["hyperparameters", "max_length"], longest)
        });
        let own = match domain {
            None | Some(Domain::When { .. }) => config.misfit_of_length(self.model.max_length),
            Some(_) => None,
        };
        searched.flatten().into_iter().chain(own).collect()
    }

    fn wrong_layers(&self, config: &ModelConfig) -> Vec<Misfit> {
        let layers = count(config.num_hidden_layers);
        let (frozen, new) = (self.model.freeze_layers, self.model.reinitialize_layers);
        let wanted: [(&'static [&'static str], u32); 2] =
            [(&["model", "freeze", "layers"], frozen), (&["model", "reinitialize_layers"], new)];
        let mut misfits: Vec<Misfit> = wanted
            .into_iter()
            .filter(|(_, wanted)| *wanted > layers)
            .map(|(path, wanted)| {
                let message = format!("{wanted}, but the model has {}", counted(layers, "layer"));
                Misfit::new(path, message, format!("write {layers} or less"))
            })
            .collect();
        if misfits.is_empty() && frozen + new > layers {
            let message = format!(
                "the highest {new} of {layers} layers are drawn anew, but the lowest {frozen} are frozen: what is \
                 both would stay random"
            );
            let mend = "freeze less or reinitialize less";
            misfits.push(Misfit::new(&["model", "reinitialize_layers"], message, mend));
        }
        misfits
    }

    fn wrong_segments(&self, config: &ModelConfig) -> Option<Misfit> {
        let by_segment = config.family.token_types() == TokenTypes::BySegment;
        if !by_segment || config.type_vocab_size >= 2 {
            return None;
        }
        let path: &'static [&'static str] = if self.data.text_pair.is_some() {
            &["data", "text_pair"]
        } else if self.objective.pairs_sentences() {
            &["objective"]
        } else {
            return None;
        };
        let message = format!(
            "the model does not tell the texts of a pair apart: type_vocab_size is {}",
            config.type_vocab_size
        );
        Some(Misfit::new(path, message, "take one made for pairs, with 2"))
    }

    fn wrong_objective(&self, config: &ModelConfig) -> Option<Misfit> {
        if self.objective == TrainingObjective::Classification {
            return None;
        }
        if self.objective.pairs_sentences() && !config.family.learns_next_sentence() {
            let message =
                format!("a {} never learns the next sentence", config.family.model_type());
            let mend = "take a BERT, or write `objective: masked_lm`";
            return Some(Misfit::new(&["objective"], message, mend));
        }
        (!config.tie_word_embeddings).then(|| {
            let message = "tie_word_embeddings is false; here a decoder shares the word embeddings";
            Misfit::of_directory(message, "take a model that shares them")
        })
    }

    /// One line for each thing that the model can do, but that is rarely meant with it.
    pub fn model_warnings(&self, config: &ModelConfig) -> Vec<String> {
        let lines =
            [self.other_classes(config), self.slow_layers(config), self.late_layers(config)];
        lines.into_iter().flatten().collect()
    }

    /// A fine-tuned head that is not gone on with, because it tells other classes apart.
    fn other_classes(&self, config: &ModelConfig) -> Option<String> {
        let wanted = match self.data.label.as_ref()? {
            LabelRule::Class { names, .. } => names.as_ref()?.len(),
            LabelRule::Ranges { ranges, .. } => ranges.len(),
        };
        let is_fine_tuned = config.raw.get("architectures")?.as_array()?.iter().any(|class| {
            class.as_str().is_some_and(|class| class.ends_with("ForSequenceClassification"))
        });
        let found = config.id2label.len();
        (is_fine_tuned && found > 0 && found != wanted).then(|| {
            format!(
                "the pretrained model tells {found} classes apart and data.label {wanted}: its head is not taken over"
            )
        })
    }

    /// Layers so far from the head that their learning rate is next to nothing.
    fn slow_layers(&self, config: &ModelConfig) -> Option<String> {
        let (decay, _) = domain_bounds(self, "layer_decay");
        let layers = count(config.num_hidden_layers);
        let (name, distance) = if !self.model.freeze_embeddings {
            ("the embeddings".to_owned(), layers + 2)
        } else if self.model.freeze_layers < layers {
            let lowest = self.model.freeze_layers;
            (format!("layer {lowest}"), layers + 1 - lowest)
        } else {
            return None;
        };
        let share = decay.powi(i32::try_from(distance).unwrap_or(i32::MAX));
        (decay < 1.0 && share < RATE_SHARE_MIN).then(|| {
            format!(
                "layer_decay goes down to {decay}, which leaves {name} {share:.0e} of the learning rate in a model of \
                 {}; under {RATE_SHARE_MIN:.0e} is rarely meant",
                counted(layers, "layer")
            )
        })
    }

    /// Layers that gradual unfreezing never comes to.
    fn late_layers(&self, config: &ModelConfig) -> Option<String> {
        let unfreezing = self.training.unfreeze?;
        let comparable = matches!(
            (unfreezing.every, self.budget),
            (Budget::Steps(_), Budget::Steps(_))
                | (Budget::Examples(_), Budget::Examples(_))
                | (Budget::Epochs(_), Budget::Epochs(_))
        );
        let layers = count(config.num_hidden_layers);
        let trained = layers.saturating_sub(self.model.freeze_layers);
        let per_group = unfreezing.layers.max(1);
        if trained > 0 && per_group > trained {
            return Some(format!(
                "training.unfreeze.layers is {per_group}, but only {} trained: all begin at once",
                counted_are(trained, "layer")
            ));
        }
        let groups = trained.div_ceil(per_group) + u32::from(!self.model.freeze_embeddings);
        let (begin, end) = (f64::from(groups) * unfreezing.every.amount(), self.budget.amount());
        (comparable && begin >= end).then(|| {
            format!(
                "training.unfreeze takes {} until the lowest of {} is trained, and the budget is {}: it \
                 never is",
                unfreezing.every.with_amount(begin),
                counted(groups, "group"),
                self.budget
            )
        })
    }
}

fn count(layers: usize) -> u32 {
    u32::try_from(layers).unwrap_or(u32::MAX)
}

/// The misfits as mistakes of the manifest, each with its line.
fn placed(text: &str, misfits: &[Misfit]) -> ManifestError {
    let issues = Issues::default();
    match document::parse(text) {
        Ok(Some(node)) => {
            let root = Field::root(&node, &issues);
            for misfit in misfits {
                root.refuse_below(misfit.path, misfit.message.as_str(), &misfit.mend);
            }
        }
        // The manifest was read from another text: without a line it is still said.
        Ok(None) | Err(_) => {
            for Misfit { path, message, mend } in misfits {
                issues.add_mend((1, &path.join(".")), message.as_str(), mend.as_str());
            }
        }
    }
    issues.into_error()
}

/// Why a directory is no model.
fn unreadable(directory: &Path, error: &DirectoryError) -> Misfit {
    match error {
        DirectoryError::Read { path, source } => {
            if source.kind() == std::io::ErrorKind::NotFound {
                let message = format!("there is no {CONFIG_FILE} in {}", directory.display());
                return Misfit::of_directory(message, WHOLE_DIRECTORY);
            }
            Misfit::of_directory(format!("cannot read {path}: {source}"), WHOLE_DIRECTORY)
        }
        DirectoryError::Config { path, reason } | DirectoryError::Index { path, reason } => {
            Misfit::of_directory(
                format!("{path}: {reason}"),
                "take an encoder of BERT's, DistilBERT's or RoBERTa's family",
            )
        }
        DirectoryError::Pickle { path } => Misfit::of_directory(
            format!("{path} is in Python's pickle format, which is not read here"),
            "convert it once with transformers: save_pretrained(DIRECTORY) writes model.safetensors",
        ),
    }
}

/// Weights and tokenizer files that are not there.
fn missing_files(directory: &Path) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    match weights_files(directory) {
        Err(DirectoryError::Index { path, reason }) => {
            let message = format!("{path} is no list of weights files: {reason}");
            misfits.push(Misfit::of_directory(message, "fetch the model again"));
        }
        Err(error) => misfits.push(unreadable(directory, &error)),
        Ok(files) => {
            let missing = files.iter().find(|file| !directory.join(file).exists());
            misfits.extend(missing.map(|file| {
                let message = format!("there is no {file} in {}", directory.display());
                Misfit::of_directory(message, WHOLE_DIRECTORY)
            }));
        }
    }
    if TokenizerKind::find(directory).is_none() {
        let message = format!("{}: {}", directory.display(), TokenizerKind::missing());
        let mend = "put the tokenizer's files there; save_pretrained of transformers writes them";
        misfits.push(Misfit::of_directory(message, mend));
    }
    misfits
}
