//! An encoder with a classification head: `BertForSequenceClassification`,
//! `DistilBertForSequenceClassification`, `RobertaForSequenceClassification`.
//!
//! Shapes: `B` sequences, `D` hidden, `C` classes.

use std::collections::BTreeSet;
use std::path::Path;

use muster_common::model::{CONFIG_FILE, DirectoryError, Dropout, ModelConfig};
use muster_common::seed::Seed;
use tch::{Device, Tensor};

use super::ModelError;
use super::batch::{TokenBatch, check, extent};
use super::dropout::dropout;
use super::encoder::{Encoder, Hidden};
use super::family::{Activation, ClassificationNames, Described};
use super::freeze::{Adaptation, Adapted, Frozen, NewModule};
use super::layer::{Linear, Wanted};
use super::lazy_table::LazyTable;
use super::load::Pretrained;
use super::parameters::{NamedTensors, ParameterSet, Scope};

/// Encoder and classification head with their parameters.
#[derive(Debug)]
pub struct Classifier {
    config: ModelConfig,
    frozen: Frozen,
    device: Device,
    labels: Vec<String>,
    parameters: ParameterSet,
    encoder: Encoder,
    head: ClassificationHead,
}

/// Dense, activation, dropout, output; read from the first token.
#[derive(Debug)]
struct ClassificationHead {
    dense: Linear,
    activation: Activation,
    dropout_first: bool,
    output: Linear,
}

impl Classifier {
    /// A model to train: frozen parameters share their memory with `pretrained`, the others are
    /// copies, and what `pretrained` lacks (the head, perhaps the pooler) is drawn from `seed`.
    pub fn to_train(
        pretrained: &Pretrained,
        labels: Vec<String>,
        adaptation: impl Into<Adaptation>,
        seed: Seed,
        device: Device,
    ) -> Result<Self, ModelError> {
        let config = pretrained.config.clone();
        let (hidden, classes) = (config.hidden_size, extent(labels.len()));
        let names = &config.family.description().classification;
        let head = [
            NewModule::Linear { name: names.dense, input: hidden, output: hidden },
            NewModule::Linear { name: names.output, input: hidden, output: classes },
        ];
        // A head in the pretrained files has learned another task.
        let given = NamedTensors::new();
        let adapted = adaptation.into().apply(pretrained, &given, &head, seed, device)?;
        Self::assemble(config, adapted, device, labels)
    }

    /// A fine-tuned model from a Hugging Face directory, to predict with.
    pub fn from_directory(directory: &Path, device: Device) -> Result<Self, ModelError> {
        let Pretrained { config, mut weights, heads, .. } = Pretrained::read(directory)?;
        let refused = |reason| {
            let path = directory.join(CONFIG_FILE).display().to_string();
            ModelError::from(DirectoryError::Config { path, reason })
        };
        let output = format!("{}.weight", config.family.description().classification.output);
        let Some(output) = heads.get(&output) else {
            let reason =
                "the weights have no classification head: this is no fine-tuned classifier";
            return Err(refused(reason.to_owned()));
        };
        let mut labels = config.labels().map_err(refused)?;
        if labels.is_empty() {
            // As transformers names the classes of a model whose file names none.
            let classes = output.size().first().copied().unwrap_or(0);
            labels = (0..classes).map(|class| format!("LABEL_{class}")).collect();
        }
        weights.extend(heads);
        for tensor in weights.values_mut() {
            *tensor = tensor.f_to_device(device)?;
        }
        let parameters = ParameterSet::new(weights, BTreeSet::new());
        let adapted = Adapted { parameters, frozen: Frozen::default() };
        Self::assemble(config, adapted, device, labels)
    }

    fn assemble(
        config: ModelConfig,
        adapted: Adapted,
        device: Device,
        labels: Vec<String>,
    ) -> Result<Self, ModelError> {
        let Adapted { parameters, frozen } = adapted;
        let encoder = Encoder::load(&config, parameters.all(), frozen)?;
        let names = &config.family.description().classification;
        let classes = extent(labels.len());
        let head = ClassificationHead::load(names, parameters.all(), config.hidden_size, classes)?;
        Ok(Self { config, frozen, device, labels, parameters, encoder, head })
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What of it, from the bottom up, is not trained. Parameters that are frozen by a pattern
    /// count where the pattern covers all of the embeddings or of a layer.
    pub fn frozen(&self) -> Frozen {
        self.frozen
    }

    /// Where its parameters lie.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Class names in the order of their numbers.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Every parameter by its Hugging Face name, in the order of the names.
    pub fn parameters(&self) -> &NamedTensors {
        self.parameters.all()
    }

    /// The parameters that are trained, in the order of their names.
    pub fn trained(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.parameters.trained()
    }

    /// Name and values of the table of the word embeddings, if it is trained: of its rows a step reads a few.
    pub(crate) fn trained_words(&self) -> Option<(&str, &Tensor)> {
        let words = self.encoder.word_embeddings().data_ptr();
        self.trained().find(|(_, tensor)| tensor.data_ptr() == words)
    }

    /// See [`Encoder::read_words_through`]. Whoever reads the parameters settles the table before.
    pub(crate) fn read_words_through(&mut self, words: Option<LazyTable>) {
        self.encoder.read_words_through(words);
    }

    /// Overwrites the trained parameters; `values` must hold exactly those.
    pub fn restore(&mut self, values: &NamedTensors) -> Result<(), ModelError> {
        self.parameters.restore(values)
    }

    /// Logits, `[B, C]`, of token sequences (special tokens included). No gradients.
    pub fn logits(&self, batch: &[Vec<u32>]) -> Result<Tensor, ModelError> {
        let sequences: Vec<&[u32]> = batch.iter().map(Vec::as_slice).collect();
        let tokens = self.batch(&sequences)?;
        tch::no_grad(|| self.forward(&tokens, Dropout::NONE))
    }

    /// Lays sequences down for this model, after checking that it can take them.
    pub fn batch(&self, sequences: &[&[u32]]) -> Result<TokenBatch, ModelError> {
        check(sequences, None, &self.config)?;
        TokenBatch::new(sequences, None, self.config.skipped_token(), self.device)
    }

    /// As [`Classifier::batch`]; of each sequence so many of the first tokens are in the first
    /// segment, the rest in the second.
    pub fn batch_of_pairs(
        &self,
        sequences: &[&[u32]],
        first_segments: &[usize],
    ) -> Result<TokenBatch, ModelError> {
        check(sequences, Some(first_segments), &self.config)?;
        let skipped = self.config.skipped_token();
        TokenBatch::new(sequences, Some(first_segments), skipped, self.device)
    }

    /// Logits, `[B, C]`. Dropout works on everything that is trained; frozen parts always compute
    /// as in evaluation, and without gradients where nothing below is trained.
    pub fn forward(
        &self,
        tokens: &TokenBatch,
        rates: impl Into<Dropout>,
    ) -> Result<Tensor, ModelError> {
        let rates = rates.into();
        self.head.forward(self.encoder.forward(tokens, Wanted::First, rates)?, rates.head)
    }

    /// What the frozen prefix (embeddings and the lowest layers) computes; every trial with the
    /// same frozen parameters gets the same. Without gradients.
    pub fn prefix(&self, tokens: &TokenBatch) -> Result<Hidden, ModelError> {
        self.encoder.prefix(tokens)
    }

    /// Logits, `[B, C]`, from what [`Classifier::prefix`] gave.
    pub fn forward_from_prefix(
        &self,
        hidden: &Hidden,
        rates: impl Into<Dropout>,
    ) -> Result<Tensor, ModelError> {
        let rates = rates.into();
        let states = self.encoder.forward_from_prefix(hidden, Wanted::First, rates)?;
        self.head.forward(states, rates.head)
    }
}

impl ClassificationHead {
    fn load(
        names: &ClassificationNames,
        tensors: &NamedTensors,
        hidden: i64,
        classes: i64,
    ) -> Result<Self, ModelError> {
        let root = Scope::root(tensors);
        Ok(Self {
            dense: Linear::load(&root.child(names.dense), hidden, hidden)?,
            activation: names.activation,
            dropout_first: names.dropout_first,
            output: Linear::load(&root.child(names.output), hidden, classes)?,
        })
    }

    /// `first` holds the first token of every sequence, `[B, D]`; `p` is the dropout probability.
    /// Returns `[B, C]`.
    fn forward(&self, first: Tensor, p: f64) -> Result<Tensor, ModelError> {
        let first = dropout(first, if self.dropout_first { p } else { 0.0 })?;
        let dense = self.dense.forward(&first)?;
        let active = match self.activation {
            Activation::Tanh => dense.f_tanh()?,
            Activation::Relu => dense.f_relu()?,
        };
        self.output.forward(&dropout(active, p)?)
    }
}
