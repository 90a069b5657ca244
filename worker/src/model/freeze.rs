//! What of a pretrained model stays as it is, and what of it is drawn anew.

use std::collections::BTreeSet;

use muster_common::manifest::ModelSettings;
use muster_common::model::{Depth, ModelConfig, fits, is_layer_norm};
use muster_common::seed::Seed;
use tch::{Device, Kind, Tensor};

use super::ModelError;
use super::family::{Described, leaves};
use super::load::Pretrained;
use super::parameters::{NamedTensors, ParameterSet, duplicate, normal};

/// How much of a model, from the bottom up, is not trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Frozen {
    /// The embeddings.
    pub embeddings: bool,
    /// So many of the lowest encoder layers.
    pub layers: usize,
}

impl Frozen {
    /// How many layers behind the embeddings always compute the same: `None` when even the
    /// embeddings are trained.
    pub fn prefix(self) -> Option<usize> {
        self.embeddings.then_some(self.layers)
    }

    fn covers(self, depth: Depth) -> bool {
        match depth {
            Depth::Embeddings => self.embeddings,
            Depth::Layer(number) => number < self.layers,
            Depth::Pooler | Depth::Head => false,
        }
    }

    /// The most that lies wholly inside `names`: one trained parameter ends it.
    fn of_names(config: &ModelConfig, names: &BTreeSet<String>) -> Self {
        let family = config.family;
        let whole = |number: &usize| family.layer_names(*number).all(|name| names.contains(&name));
        Self {
            embeddings: family.embedding_names().all(|name| names.contains(&name)),
            layers: (0..config.num_hidden_layers).take_while(whole).count(),
        }
    }
}

/// What is done to a pretrained model before it is trained.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Adaptation {
    /// Not trained, from the bottom up.
    pub frozen: Frozen,
    /// Pretrained parameters whose names fit one of these are not trained either. `*` stands for any
    /// number of characters, `?` for one.
    pub freeze_patterns: Vec<String>,
    /// So many of the highest encoder layers, and BERT's pooler, are drawn anew (Zhang et al. 2021,
    /// "Revisiting Few-sample BERT Fine-tuning").
    pub reinitialize_layers: usize,
}

impl From<Frozen> for Adaptation {
    fn from(frozen: Frozen) -> Self {
        Self { frozen, ..Self::default() }
    }
}

impl From<&ModelSettings> for Adaptation {
    fn from(settings: &ModelSettings) -> Self {
        let count = |layers: u32| usize::try_from(layers).unwrap_or(usize::MAX);
        let layers = count(settings.freeze_layers);
        Self {
            frozen: Frozen { embeddings: settings.freeze_embeddings, layers },
            freeze_patterns: settings.freeze_patterns.clone(),
            reinitialize_layers: count(settings.reinitialize_layers),
        }
    }
}

/// A module that a head needs, and that is drawn where it is not given.
#[derive(Debug, Clone)]
pub(crate) enum NewModule {
    /// Weight `[output, input]` and bias `[output]`.
    Linear { name: &'static str, input: i64, output: i64 },
    /// Weight and bias, `[size]`.
    LayerNorm { name: &'static str, size: i64 },
    /// A lone bias, `[size]`, by its whole name.
    Bias { name: &'static str, size: i64 },
}

impl NewModule {
    fn names(&self) -> Vec<String> {
        match self {
            Self::Linear { name, .. } | Self::LayerNorm { name, .. } => leaves(name).to_vec(),
            Self::Bias { name, .. } => vec![(*name).to_owned()],
        }
    }
}

/// A model's parameters, ready to train.
#[derive(Debug)]
pub(crate) struct Adapted {
    pub(crate) parameters: ParameterSet,
    /// What is frozen from the bottom up, patterns counted where they cover all of a layer.
    pub(crate) frozen: Frozen,
}

impl Adaptation {
    /// Frozen parameters share their memory with `pretrained`, the others are copies. Of `given`
    /// and of the pooler only what `head` names is taken; what is missing of it is drawn from `seed`.
    pub(crate) fn apply(
        &self,
        pretrained: &Pretrained,
        given: &NamedTensors,
        head: &[NewModule],
        seed: Seed,
        device: Device,
    ) -> Result<Adapted, ModelError> {
        let config = &pretrained.config;
        self.check_layers(config)?;
        let mut drawing = Drawing { seed, deviation: config.initializer_range, device };
        let first_new = config.num_hidden_layers - self.reinitialize_layers;
        let is_new = |name: &str| match Depth::of(name) {
            Depth::Layer(number) => number >= first_new,
            Depth::Pooler => self.reinitialize_layers > 0,
            Depth::Embeddings | Depth::Head => false,
        };
        let wanted: BTreeSet<String> = head.iter().flat_map(NewModule::names).collect();
        let mut drawn = NamedTensors::new();
        let mut kept = NamedTensors::new();
        for (name, tensor) in pretrained.weights.iter().chain(given) {
            let in_layers = Depth::of(name) < Depth::Pooler;
            if is_new(name) && in_layers {
                drawn.insert(name.clone(), drawing.parameter(name, &tensor.size())?);
            } else if !is_new(name) && (in_layers || wanted.contains(name)) {
                kept.insert(name.clone(), tensor.f_to_device(device)?);
            }
        }
        for module in head {
            if !module.names().iter().all(|name| kept.contains_key(name)) {
                drawing.module(module, &mut drawn)?;
            }
        }
        let frozen = self.frozen_names(&kept, &drawn)?;
        let mut tensors = drawn;
        for (name, tensor) in kept {
            let own = if frozen.contains(&name) { tensor } else { duplicate(&tensor)? };
            tensors.entry(name).or_insert(own);
        }
        for (name, tensor) in &mut tensors {
            if !frozen.contains(name) {
                *tensor = tensor.f_set_requires_grad(true)?;
            }
        }
        let prefix = Frozen::of_names(config, &frozen);
        Ok(Adapted { parameters: ParameterSet::new(tensors, frozen), frozen: prefix })
    }

    fn check_layers(&self, config: &ModelConfig) -> Result<(), ModelError> {
        let layers = config.num_hidden_layers;
        for (key, wanted) in [
            ("model.freeze.layers", self.frozen.layers),
            ("model.reinitialize_layers", self.reinitialize_layers),
        ] {
            if wanted > layers {
                return Err(ModelError::Layers { key, wanted, layers });
            }
        }
        Ok(())
    }

    /// Names of what is not trained, all of them out of `kept`: what is drawn anew is always trained.
    fn frozen_names(
        &self,
        kept: &NamedTensors,
        drawn: &NamedTensors,
    ) -> Result<BTreeSet<String>, ModelError> {
        let covers = |name: &&String| self.frozen.covers(Depth::of(name));
        if let Some(name) = drawn.keys().find(covers) {
            return Err(ModelError::FrozenNoise { name: name.clone() });
        }
        let idle = |pattern: &&String| !kept.keys().any(|name| fits(pattern, name));
        if let Some(pattern) = self.freeze_patterns.iter().find(idle) {
            return Err(ModelError::FreezePattern { pattern: pattern.clone() });
        }
        let fits = |name: &str| self.freeze_patterns.iter().any(|pattern| fits(pattern, name));
        Ok(kept.keys().filter(|name| covers(name) || fits(name)).cloned().collect())
    }
}

/// Draws new parameters as transformers does: normal weights, zero biases, LayerNorm that changes
/// nothing. Each from a seed of its own, by its name.
struct Drawing {
    seed: Seed,
    deviation: f64,
    device: Device,
}

impl Drawing {
    fn parameter(&mut self, name: &str, shape: &[i64]) -> Result<Tensor, ModelError> {
        let options = (Kind::Float, self.device);
        Ok(match shape {
            [rows, columns] => {
                let seed = self.seed.child(name, 0);
                normal(seed, [*rows, *columns], self.deviation, self.device)?
            }
            _ if is_layer_norm(name) && name.ends_with(".weight") => {
                Tensor::f_ones(shape, options)?
            }
            _ => Tensor::f_zeros(shape, options)?,
        })
    }

    fn module(&mut self, module: &NewModule, into: &mut NamedTensors) -> Result<(), ModelError> {
        let shapes: Vec<Vec<i64>> = match *module {
            NewModule::Linear { input, output, .. } => vec![vec![output, input], vec![output]],
            NewModule::LayerNorm { size, .. } => vec![vec![size], vec![size]],
            NewModule::Bias { size, .. } => vec![vec![size]],
        };
        for (name, shape) in module.names().into_iter().zip(shapes) {
            let tensor = self.parameter(&name, &shape)?;
            into.insert(name, tensor);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use muster_common::manifest::{TrainingObjective, Truncation};
    use muster_common::model::{Shapes, read_shapes, trained};

    use super::*;
    use crate::model::{Classifier, Family, LanguageModel, LanguageObjective};

    fn golden(family: Family) -> Pretrained {
        let name = format!("../tests/golden/hf/families/{}-classification", family.model_type());
        Pretrained::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
    }

    fn adapted(family: Family, adaptation: Adaptation) -> Result<Classifier, ModelError> {
        let labels = vec!["a".to_owned(), "b".to_owned()];
        Classifier::to_train(&golden(family), labels, adaptation, Seed(5), Device::Cpu)
    }

    fn patterns(patterns: &[&str]) -> Adaptation {
        let freeze_patterns = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        Adaptation { freeze_patterns, ..Adaptation::default() }
    }

    #[test]
    fn a_pattern_extends_the_prefix_only_over_whole_layers() {
        let frozen =
            |patterns_: &[&str]| adapted(Family::Bert, patterns(patterns_)).unwrap().frozen();
        let none = Frozen::default();
        assert_eq!(frozen(&["*embeddings.word*"]), none);
        assert_eq!(frozen(&["*.embeddings.*"]), Frozen { embeddings: true, layers: 0 });
        assert_eq!(frozen(&["*.bias"]), none);
        assert_eq!(frozen(&["*.layer.0.*"]), Frozen { embeddings: false, layers: 1 });
        assert_eq!(frozen(&["*.layer.1.*"]), none, "layer 0 below it is trained");
        assert_eq!(frozen(&["*.layer.0.*.weight"]), none);
        let both = ["*.layer.0.*.weight", "*.layer.0.*.bias", "*.embeddings.*"];
        assert_eq!(frozen(&both), Frozen { embeddings: true, layers: 1 });
        let mixed = Adaptation {
            frozen: Frozen { embeddings: true, layers: 1 },
            ..patterns(&["*.layer.1.*"])
        };
        let mixed = adapted(Family::Bert, mixed).unwrap();
        assert_eq!(mixed.frozen(), Frozen { embeddings: true, layers: 2 });
    }

    /// The logits behind the prefix are those of the whole model, whatever froze it, and what a
    /// pattern freezes has no gradient.
    #[test]
    fn patterns_freeze_what_they_fit_and_nothing_else() {
        for family in Family::ALL {
            let layer = format!("{}.*", family.layer_path(0));
            let whole = patterns(&["*.embeddings.*", &layer, "*.layer.1.*.bias", "*layer_norm*"]);
            let part = patterns(&["*.embeddings.*", &layer, "*.layer.1.*.bias"]);
            let model = adapted(family, if family == Family::DistilBert { whole } else { part });
            let model = model.unwrap();
            assert_eq!(model.frozen(), Frozen { embeddings: true, layers: 1 });
            let tokens = model.batch(&[&[2, 7, 9, 3], &[2, 8, 3]]).unwrap();
            let logits = model.forward(&tokens, 0.0).unwrap();
            let behind = model.prefix(&tokens).unwrap();
            assert_eq!(model.forward_from_prefix(&behind, 0.0).unwrap(), logits);
            logits.sum(Kind::Float).backward();
            let trained: Vec<&str> = model.trained().map(|(name, _)| name).collect();
            for (name, tensor) in model.parameters() {
                let is_trained = trained.contains(&name.as_str());
                assert_eq!(is_trained, tensor.requires_grad(), "{family:?}, {name}");
                assert_eq!(is_trained, tensor.grad().defined(), "{family:?}, {name}");
            }
            assert!(trained.iter().any(|name| name.contains("layer.1.")));
            assert!(
                !trained.iter().any(|name| name.contains("layer.1.") && name.ends_with("bias"))
            );
        }
    }

    #[test]
    fn patterns_that_fit_nothing_are_refused() {
        let error = adapted(Family::Roberta, patterns(&["bert.*"])).unwrap_err();
        assert!(error.to_string().contains("`bert.*`") && error.is_permanent(), "{error}");
    }

    #[test]
    fn the_highest_layers_are_drawn_anew_from_the_seed() {
        for family in Family::ALL {
            let pretrained = golden(family);
            let new = |seed: u64| {
                let adaptation = Adaptation { reinitialize_layers: 1, ..Adaptation::default() };
                let labels = vec!["a".to_owned(), "b".to_owned()];
                Classifier::to_train(&pretrained, labels, adaptation, Seed(seed), Device::Cpu)
                    .unwrap()
            };
            let (model, again, other) = (new(1), new(1), new(2));
            for (name, tensor) in model.parameters() {
                assert_eq!(tensor, &again.parameters()[name], "{name}");
                let Some(old) = pretrained.weights.get(name) else { continue };
                let is_new = matches!(Depth::of(name), Depth::Layer(1) | Depth::Pooler);
                assert_eq!(tensor != old, is_new, "{name}");
                let random = is_new && tensor.dim() == 2;
                assert_eq!(tensor != &other.parameters()[name], random, "{name}");
                if is_new && tensor.dim() == 1 {
                    let wanted = f64::from(is_layer_norm(name) && name.ends_with(".weight"));
                    assert!((tensor.mean(Kind::Float).double_value(&[]) - wanted).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn what_is_drawn_anew_cannot_be_frozen() {
        let frozen = Frozen { embeddings: true, layers: 2 };
        let both = Adaptation { reinitialize_layers: 1, ..Adaptation::from(frozen) };
        let error = adapted(Family::Bert, both).unwrap_err();
        assert!(error.to_string().contains("layer.1.") && error.is_permanent(), "{error}");
        let error = adapted(Family::DistilBert, patterns(&["classifier.*"])).unwrap_err();
        assert!(error.to_string().contains("classifier."), "{error}");
        let biases = adapted(Family::DistilBert, patterns(&["*.bias"])).unwrap();
        let trained: Vec<&str> = biases.trained().map(|(name, _)| name).collect();
        let biases: Vec<&&str> =
            trained.iter().filter(|name| name.rsplit('.').next() == Some("bias")).collect();
        assert_eq!(biases, [&"classifier.bias", &"pre_classifier.bias"], "new ones are trained");
        let many = Adaptation { reinitialize_layers: 3, ..Adaptation::default() };
        let error = adapted(Family::Bert, many).unwrap_err();
        assert!(error.to_string().contains("model.reinitialize_layers is 3"), "{error}");
    }

    /// Names and sizes of what a model trains.
    fn shapes<'a>(trained: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Shapes {
        let sizes = |tensor: &Tensor| tensor.size().into_iter().map(i64::unsigned_abs).collect();
        trained.map(|(name, tensor)| (name.to_owned(), sizes(tensor))).collect()
    }

    /// What the coordinator says of a checkpoint before there is one.
    #[test]
    fn what_is_trained_is_told_from_the_files_alone() {
        let settings = |layers: u32, patterns: &[&str], reinitialize_layers: u32| ModelSettings {
            pretrained: String::new(),
            max_length: 16,
            truncation: Truncation::default(),
            freeze_embeddings: layers > 0,
            freeze_layers: layers,
            freeze_patterns: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
            reinitialize_layers,
        };
        let all = [
            settings(0, &[], 0),
            settings(1, &[], 0),
            settings(2, &["*embeddings*"], 0),
            settings(0, &["*.bias"], 0),
            settings(0, &["*"], 1),
        ];
        let objectives = [
            ("classification", TrainingObjective::Classification),
            ("masked", TrainingObjective::MaskedLm),
            ("next_sentence", TrainingObjective::NextSentence),
            ("both", TrainingObjective::Pretraining),
        ];
        let labels = ["a", "b", "c"].map(ToOwned::to_owned).to_vec();
        let mut num_compared = 0;
        for family in Family::ALL {
            for (kind, objective) in objectives {
                let name = format!("../tests/golden/hf/families/{}-{kind}", family.model_type());
                let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
                if !directory.is_dir() {
                    assert!(objective.pairs_sentences() && family != Family::Bert, "{directory:?}");
                    continue;
                }
                let pretrained = Pretrained::read(&directory).unwrap();
                let found = read_shapes(&directory).unwrap();
                for settings in &all {
                    let told = trained(&pretrained.config, &found, settings, (objective, 3));
                    let (seed, device) = (Seed(5), Device::Cpu);
                    let wanted = match LanguageObjective::of(objective) {
                        None => {
                            let labels = labels.clone();
                            let model =
                                Classifier::to_train(&pretrained, labels, settings, seed, device);
                            shapes(model.unwrap().trained())
                        }
                        Some(what) => {
                            let model =
                                LanguageModel::to_train(&pretrained, what, settings, seed, device);
                            shapes(model.unwrap().trained())
                        }
                    };
                    assert_eq!(told, wanted, "{family:?}, {kind}, {settings:?}");
                    num_compared += 1;
                }
            }
        }
        assert_eq!(num_compared, 8 * all.len());
    }
}
