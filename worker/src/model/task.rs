//! A model with the heads of what it learns.

use muster_common::model::{Dropout, ModelConfig};
use tch::{Device, Tensor};

use super::ModelError;
use super::classifier::Classifier;
use super::freeze::Frozen;
use super::language::LanguageModel;
use super::parameters::NamedTensors;

/// A model that can be trained, whatever it learns.
#[derive(Debug)]
pub enum TaskModel {
    /// Learns the classes of texts.
    Classifier(Classifier),
    /// Learns hidden tokens, next sentences, or both.
    Language(LanguageModel),
}

impl From<Classifier> for TaskModel {
    fn from(model: Classifier) -> Self {
        Self::Classifier(model)
    }
}

impl From<LanguageModel> for TaskModel {
    fn from(model: LanguageModel) -> Self {
        Self::Language(model)
    }
}

impl TaskModel {
    /// The configuration it was built from.
    pub fn config(&self) -> &ModelConfig {
        match self {
            Self::Classifier(model) => model.config(),
            Self::Language(model) => model.config(),
        }
    }

    /// What of it, from the bottom up, is not trained.
    pub fn frozen(&self) -> Frozen {
        match self {
            Self::Classifier(model) => model.frozen(),
            Self::Language(model) => model.frozen(),
        }
    }

    /// Where its parameters lie.
    pub fn device(&self) -> Device {
        match self {
            Self::Classifier(model) => model.device(),
            Self::Language(model) => model.device(),
        }
    }

    /// How many classes its examples are told apart by; none where only tokens are guessed.
    pub fn num_classes(&self) -> usize {
        match self {
            Self::Classifier(model) => model.labels().len(),
            Self::Language(model) if model.objective().pairs() => 2,
            Self::Language(_) => 0,
        }
    }

    /// Dropout rates of its configuration, all of them `rate` where that is given.
    pub fn rates(&self, rate: Option<f64>) -> Dropout {
        self.config().dropout.or_all(rate)
    }

    /// Every parameter by its Hugging Face name, in the order of the names.
    pub fn parameters(&self) -> &NamedTensors {
        match self {
            Self::Classifier(model) => model.parameters(),
            Self::Language(model) => model.parameters(),
        }
    }

    /// The parameters that are trained, in the order of their names.
    pub fn trained(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let (classifier, language) = match self {
            Self::Classifier(model) => (Some(model.trained()), None),
            Self::Language(model) => (None, Some(model.trained())),
        };
        classifier.into_iter().flatten().chain(language.into_iter().flatten())
    }

    /// Overwrites the trained parameters; `values` must hold exactly those.
    pub fn restore(&mut self, values: &NamedTensors) -> Result<(), ModelError> {
        match self {
            Self::Classifier(model) => model.restore(values),
            Self::Language(model) => model.restore(values),
        }
    }
}
