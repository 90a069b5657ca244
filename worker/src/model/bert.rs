//! BERT with a classification head (`BertForSequenceClassification`).
//!
//! Shapes: `B` sequences, `L` tokens, `D` hidden, `C` classes.
//! Devlin et al. 2019, "BERT: Pre-training of Deep Bidirectional Transformers"; names and order of
//! operations follow
//! <https://github.com/huggingface/transformers/blob/v4.57.1/src/transformers/models/bert/modeling_bert.py>.

use std::path::Path;

use muster_common::manifest::ModelSettings;
use muster_common::seed::Seed;
use tch::{Device, Kind, Tensor};

use super::batch::{TokenBatch, extent};
use super::config::BertConfig;
use super::layer::{Layer, LayerNorm, LayerSizes, Linear, Wanted, dropout};
use super::load::Pretrained;
use super::parameters::{NamedTensors, Scope, duplicate, normal};
use super::{ModelError, NameList};

/// Which of a model is not trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Frozen {
    /// The embeddings.
    pub embeddings: bool,
    /// So many of the lowest encoder layers.
    pub layers: usize,
}

impl From<&ModelSettings> for Frozen {
    fn from(settings: &ModelSettings) -> Self {
        let layers = usize::try_from(settings.freeze_layers).unwrap_or(usize::MAX);
        Self { embeddings: settings.freeze_embeddings, layers }
    }
}

impl Frozen {
    /// How many layers behind the embeddings always compute the same: `None` when even the
    /// embeddings are trained.
    pub fn prefix(self) -> Option<usize> {
        self.embeddings.then_some(self.layers)
    }

    fn covers(self, name: &str) -> bool {
        if name.starts_with("bert.embeddings.") {
            return self.embeddings;
        }
        name.strip_prefix("bert.encoder.layer.")
            .and_then(|rest| rest.split('.').next())
            .and_then(|number| number.parse::<usize>().ok())
            .is_some_and(|number| number < self.layers)
    }
}

/// Hidden states on their way through the encoder.
#[derive(Debug)]
pub struct Hidden {
    /// `[B, L, D]`; what stands at padding has no meaning.
    pub states: Tensor,
    /// As [`TokenBatch::mask`].
    pub mask: Option<Tensor>,
}

#[derive(Debug)]
struct Embeddings {
    word: Tensor,     // [V, D]
    position: Tensor, // [max_position_embeddings, D]
    token_type: Tensor,
    norm: LayerNorm,
}

/// Encoder, pooler and classifier with their parameters.
#[derive(Debug)]
pub struct Classifier {
    config: BertConfig,
    frozen: Frozen,
    device: Device,
    labels: Vec<String>,
    parameters: NamedTensors,
    embeddings: Embeddings,
    layers: Vec<Layer>,
    pooler: Linear,
    head: Linear,
}

impl Classifier {
    /// A model to train: frozen parameters share their memory with `pretrained`, the others are
    /// copies, and what `pretrained` lacks (the head, perhaps the pooler) is drawn from `seed`.
    pub fn to_train(
        pretrained: &Pretrained,
        labels: Vec<String>,
        frozen: Frozen,
        seed: Seed,
        device: Device,
    ) -> Result<Self, ModelError> {
        let config = pretrained.config.clone();
        if frozen.layers > config.num_hidden_layers {
            let (wanted, layers) = (frozen.layers, config.num_hidden_layers);
            return Err(ModelError::FreezeLayers { wanted, layers });
        }
        let mut parameters = NamedTensors::new();
        for (name, tensor) in &pretrained.weights {
            let tensor = tensor.f_to_device(device)?;
            let own = if frozen.covers(name) { tensor } else { duplicate(&tensor)? };
            parameters.insert(name.clone(), own);
        }
        let (hidden, classes) = (config.hidden_size, extent(labels.len()));
        for (module, rows) in [("bert.pooler.dense", hidden), ("classifier", classes)] {
            let weight = format!("{module}.weight");
            if parameters.contains_key(&weight) {
                continue;
            }
            let drawn =
                normal(seed.child(&weight, 0), [rows, hidden], config.initializer_range, device)?;
            parameters.insert(weight, drawn);
            let zeros = Tensor::f_zeros([rows], (Kind::Float, device))?;
            parameters.insert(format!("{module}.bias"), zeros);
        }
        for (name, tensor) in &mut parameters {
            if !frozen.covers(name) {
                *tensor = tensor.f_set_requires_grad(true)?;
            }
        }
        Self::assemble(config, frozen, device, labels, parameters)
    }

    /// A fine-tuned model from a Hugging Face directory, to predict with.
    pub fn from_directory(directory: &Path, device: Device) -> Result<Self, ModelError> {
        let (pretrained, head) = Pretrained::read_with_head(directory)?;
        let Pretrained { config, weights: mut parameters, .. } = pretrained;
        parameters.extend(head);
        for tensor in parameters.values_mut() {
            *tensor = tensor.f_to_device(device)?;
        }
        let path = || directory.join(super::config::CONFIG_FILE).display().to_string();
        let labels =
            config.labels().map_err(|reason| ModelError::Config { path: path(), reason })?;
        if labels.is_empty() {
            let reason = "id2label is missing: this is no fine-tuned classifier".to_owned();
            return Err(ModelError::Config { path: path(), reason });
        }
        Self::assemble(config, Frozen::default(), device, labels, parameters)
    }

    fn assemble(
        config: BertConfig,
        frozen: Frozen,
        device: Device,
        labels: Vec<String>,
        parameters: NamedTensors,
    ) -> Result<Self, ModelError> {
        let root = Scope::root(&parameters);
        let bert = root.child("bert");
        let (hidden, epsilon) = (config.hidden_size, config.layer_norm_eps);
        let scope = bert.child("embeddings");
        let table = |name: &str, rows: i64| scope.child(name).tensor("weight", &[rows, hidden]);
        let embeddings = Embeddings {
            word: table("word_embeddings", config.vocab_size)?,
            position: table("position_embeddings", config.max_position_embeddings)?,
            token_type: table("token_type_embeddings", config.type_vocab_size)?,
            norm: LayerNorm::load(&scope.child("LayerNorm"), hidden, epsilon)?,
        };
        let sizes = LayerSizes {
            hidden,
            intermediate: config.intermediate_size,
            num_heads: config.num_attention_heads,
            norm_epsilon: epsilon,
        };
        let stack = bert.child("encoder").child("layer");
        let layers = (0..config.num_hidden_layers)
            .map(|number| Layer::load(&stack.child(&number.to_string()), sizes))
            .collect::<Result<_, _>>()?;
        let pooler = Linear::load(&bert.child("pooler").child("dense"), hidden, hidden)?;
        let head = Linear::load(&root.child("classifier"), hidden, extent(labels.len()))?;
        Ok(Self { config, frozen, device, labels, parameters, embeddings, layers, pooler, head })
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// Which of it is not trained.
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
        &self.parameters
    }

    /// The parameters that are trained, in the order of their names.
    pub fn trained(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let trained = self.parameters.iter().filter(|(name, _)| !self.frozen.covers(name));
        trained.map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Overwrites the trained parameters; `values` must hold exactly those.
    pub fn restore(&mut self, values: &NamedTensors) -> Result<(), ModelError> {
        let names: Vec<String> = self.trained().map(|(name, _)| name.to_owned()).collect();
        let unexpected: Vec<String> =
            values.keys().filter(|name| !names.contains(name)).cloned().collect();
        let missing: Vec<String> =
            names.iter().filter(|name| !values.contains_key(*name)).cloned().collect();
        if !unexpected.is_empty() || !missing.is_empty() {
            return Err(ModelError::Names {
                path: "the checkpoint".to_owned(),
                missing: NameList(missing),
                unexpected: NameList(unexpected),
            });
        }
        tch::no_grad(|| {
            for (name, value) in values {
                let Some(tensor) = self.parameters.get_mut(name) else { continue };
                let (wanted, found) = (tensor.size(), value.size());
                if wanted != found {
                    return Err(ModelError::Shape { name: name.clone(), wanted, found });
                }
                tensor.f_copy_(value)?;
            }
            Ok(())
        })
    }

    /// Logits, `[B, C]`, of token sequences (special tokens included). No gradients.
    pub fn logits(&self, batch: &[Vec<u32>]) -> Result<Tensor, ModelError> {
        let sequences: Vec<&[u32]> = batch.iter().map(Vec::as_slice).collect();
        let tokens = self.batch(&sequences)?;
        tch::no_grad(|| self.forward(&tokens, 0.0))
    }

    /// Pads sequences for this model, after checking that it can take them.
    pub fn batch(&self, sequences: &[&[u32]]) -> Result<TokenBatch, ModelError> {
        let max = self.config.max_position_embeddings;
        let lengths = sequences.iter().map(|sequence| sequence.len());
        let wrong = |tokens: &usize| *tokens == 0 || extent(*tokens) > max;
        // An empty batch has no longest sequence, so it is refused here too.
        let lengths: Vec<usize> = lengths.collect();
        if lengths.is_empty() || lengths.iter().any(wrong) {
            let tokens = lengths.into_iter().find(wrong).unwrap_or(0);
            return Err(ModelError::Length { tokens, max });
        }
        TokenBatch::new(sequences, self.config.pad_token_id, self.device)
    }

    /// Logits, `[B, C]`. `p` is the dropout probability of everything that is trained; frozen parts
    /// always compute as in evaluation, and without gradients where nothing below is trained.
    pub fn forward(&self, tokens: &TokenBatch, p: f64) -> Result<Tensor, ModelError> {
        if self.frozen.embeddings {
            return self.forward_from_prefix(&self.prefix(tokens)?, p);
        }
        let embedded = dropout(self.embed(&tokens.ids)?, p)?;
        let mask = tokens.mask.as_ref().map(Tensor::shallow_clone);
        self.climb(&Hidden { states: embedded, mask }, 0, p)
    }

    /// What the frozen prefix (embeddings and the lowest layers) computes; every trial with the
    /// same frozen parameters gets the same. Without gradients.
    pub fn prefix(&self, tokens: &TokenBatch) -> Result<Hidden, ModelError> {
        tch::no_grad(|| {
            let mask = tokens.mask.as_ref().map(Tensor::shallow_clone);
            let mut states = self.embed(&tokens.ids)?;
            for layer in self.layers.iter().take(self.frozen.layers) {
                states = layer.forward(&states, mask.as_ref(), Wanted::All, 0.0)?;
            }
            Ok(Hidden { states, mask })
        })
    }

    /// Logits, `[B, C]`, from what [`Classifier::prefix`] gave.
    pub fn forward_from_prefix(&self, hidden: &Hidden, p: f64) -> Result<Tensor, ModelError> {
        self.climb(hidden, self.frozen.layers, p)
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor, ModelError> {
        let table = &self.embeddings;
        let (_, length) = ids.size2()?;
        // Every token is of type 0: a classifier here reads one text.
        let token_type = table.token_type.f_select(0, 0)?; // [D]
        let position = table.position.f_narrow(0, 0, length)?; // [L, D]
        let pad = self.config.pad_token_id;
        let word = Tensor::f_embedding(&table.word, ids, pad, false, false)?; // [B, L, D]
        table.norm.forward(&word.f_add(&token_type)?.f_add(&position)?)
    }

    /// From the input of layer `from` to the logits.
    fn climb(&self, hidden: &Hidden, from: usize, p: f64) -> Result<Tensor, ModelError> {
        let Hidden { states, mask } = hidden;
        let mut states = states.shallow_clone();
        for (number, layer) in self.layers.iter().enumerate().skip(from) {
            let last = number + 1 == self.layers.len();
            let wanted = if last { Wanted::First } else { Wanted::All };
            let p = if number < self.frozen.layers { 0.0 } else { p };
            states = layer.forward(&states, mask.as_ref(), wanted, p)?;
        }
        let first = states.f_select(1, 0)?; // [B, D]
        let pooled = self.pooler.forward(&first)?.f_tanh()?;
        self.head.forward(&dropout(pooled, p)?)
    }
}
