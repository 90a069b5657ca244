//! The encoder that all families share: embeddings, then layers.
//!
//! Shapes: `B` sequences, `T` tokens of all of them, `D` hidden.

use muster_common::model::{Dropout, ModelConfig, TokenTypes};
use tch::Tensor;

use super::ModelError;
use super::batch::TokenBatch;
use super::dropout::dropout;
use super::family::Described;
use super::freeze::Frozen;
use super::layer::{Layer, LayerNorm, LayerSizes, Wanted};
use super::lazy_table::LazyTable;
use super::packing::Frame;
use super::parameters::{NamedTensors, Scope};

/// Hidden states on their way through the encoder.
#[derive(Debug)]
pub struct Hidden {
    /// `[T, D]`.
    pub states: Tensor,
    /// Which tokens belong together.
    pub frame: Frame,
}

#[derive(Debug)]
struct Embeddings {
    word: Tensor,               // [V, D]
    position: Tensor,           // [max_position_embeddings, D]
    token_type: Option<Tensor>, // [type_vocab_size, D]
    norm: LayerNorm,
    pad_token: i64,
    by_segment: bool,
    skipped_token: Option<i64>,
    /// The words while they are trained, where not every row is always up to date.
    lazy_words: Option<LazyTable>,
}

/// Embeddings and layers; the lowest of them may be frozen.
#[derive(Debug)]
pub(crate) struct Encoder {
    embeddings: Embeddings,
    layers: Vec<Layer>,
    frozen: Frozen,
}

impl Encoder {
    /// Picks its parameters out of `tensors` and shares their memory.
    pub(crate) fn load(
        config: &ModelConfig,
        tensors: &NamedTensors,
        frozen: Frozen,
    ) -> Result<Self, ModelError> {
        let family = config.family.description();
        let root = Scope::root(tensors);
        let sizes = LayerSizes {
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            num_heads: config.num_attention_heads,
            norm_epsilon: config.layer_norm_eps,
        };
        let layers = (0..config.num_hidden_layers)
            .map(|number| {
                Layer::load(&root.child(&config.family.layer_path(number)), family, sizes)
            })
            .collect::<Result<_, _>>()?;
        let embeddings = Embeddings::load(config, &root.child(family.encoder).child("embeddings"))?;
        Ok(Self { embeddings, layers, frozen })
    }

    /// The table of the word embeddings, `[V, D]`.
    pub(crate) fn word_embeddings(&self) -> &Tensor {
        &self.embeddings.word
    }

    /// From here on the rows of the word embeddings are brought up to date by `words` before they are read, and
    /// have sparse gradients; none: they always are.
    pub(crate) fn read_words_through(&mut self, words: Option<LazyTable>) {
        self.embeddings.lazy_words = words;
    }

    /// Hidden states of the last layer: of every token, `[T, D]` as the batch lays them down, or of
    /// the first tokens, `[B, D]` in the order of the sequences. Frozen parts always compute as in
    /// evaluation, and without gradients where nothing below is trained.
    pub(crate) fn forward(
        &self,
        tokens: &TokenBatch,
        wanted: Wanted,
        rates: Dropout,
    ) -> Result<Tensor, ModelError> {
        if self.frozen.embeddings {
            return self.forward_from_prefix(&self.prefix(tokens)?, wanted, rates);
        }
        let states = dropout(self.embeddings.forward(tokens)?, rates.hidden)?;
        self.climb(states, &tokens.frame, 0, wanted, rates)
    }

    /// What the frozen prefix (embeddings and the lowest layers) computes, without gradients.
    pub(crate) fn prefix(&self, tokens: &TokenBatch) -> Result<Hidden, ModelError> {
        tch::no_grad(|| {
            let frame = tokens.frame.share();
            let mut states = self.embeddings.forward(tokens)?;
            for layer in self.layers.iter().take(self.frozen.layers) {
                states = layer.forward(&states, &frame, Wanted::All, Dropout::NONE)?;
            }
            Ok(Hidden { states, frame })
        })
    }

    /// As [`Encoder::forward`], from what [`Encoder::prefix`] gave.
    pub(crate) fn forward_from_prefix(
        &self,
        hidden: &Hidden,
        wanted: Wanted,
        rates: Dropout,
    ) -> Result<Tensor, ModelError> {
        let Hidden { states, frame } = hidden;
        self.climb(states.shallow_clone(), frame, self.frozen.layers, wanted, rates)
    }

    /// From the input of layer `from` to the output of the last.
    fn climb(
        &self,
        mut states: Tensor,
        frame: &Frame,
        from: usize,
        wanted: Wanted,
        rates: Dropout,
    ) -> Result<Tensor, ModelError> {
        let mut reached = Wanted::All;
        for (number, layer) in self.layers.iter().enumerate().skip(from) {
            let last = number + 1 == self.layers.len();
            reached = if last { wanted } else { Wanted::All };
            let rates = if number < self.frozen.layers { Dropout::NONE } else { rates };
            states = layer.forward(&states, frame, reached, rates)?;
        }
        match (wanted, reached) {
            (Wanted::All, _) => Ok(states),
            (Wanted::First, Wanted::First) => frame.by_index(states),
            // Every layer is frozen: the states come from the prefix, of all tokens.
            (Wanted::First, Wanted::All) => frame.first_by_index(&states),
        }
    }
}

impl Embeddings {
    fn load(config: &ModelConfig, scope: &Scope<'_>) -> Result<Self, ModelError> {
        let token_types = config.family.token_types();
        let hidden = config.hidden_size;
        let table = |name: &str, rows: i64| scope.child(name).tensor("weight", &[rows, hidden]);
        let token_type = match token_types {
            TokenTypes::Absent => None,
            TokenTypes::First | TokenTypes::BySegment => {
                Some(table("token_type_embeddings", config.type_vocab_size)?)
            }
        };
        Ok(Self {
            word: table("word_embeddings", config.vocab_size)?,
            position: table("position_embeddings", config.max_position_embeddings)?,
            token_type,
            norm: LayerNorm::load(&scope.child("LayerNorm"), hidden, config.layer_norm_eps)?,
            pad_token: config.pad_token_id,
            by_segment: token_types == TokenTypes::BySegment,
            skipped_token: config.skipped_token(),
            lazy_words: None,
        })
    }

    /// `[T, D]`, before dropout.
    fn forward(&self, tokens: &TokenBatch) -> Result<Tensor, ModelError> {
        let pad = self.pad_token;
        if let Some(words) = &self.lazy_words {
            words.refresh(&tokens.ids)?;
        }
        let is_sparse = self.lazy_words.is_some();
        let word = Tensor::f_embedding(&self.word, &tokens.ids, pad, false, is_sparse)?; // [T, D]
        let sum = match self.token_type(tokens)? {
            Some(token_type) => word.f_add(&token_type)?,
            None => word,
        };
        // The token that positions are counted past has the number of its row in this table too,
        // and that row is not trained.
        let fixed = self.skipped_token.unwrap_or(-1);
        let position = Tensor::f_embedding(&self.position, &tokens.positions, fixed, false, false)?; // [T, D]
        self.norm.forward(&sum.f_add(&position)?)
    }

    /// `[T, D]`, or `[D]` where every token is of the first type.
    fn token_type(&self, tokens: &TokenBatch) -> Result<Option<Tensor>, ModelError> {
        let Some(table) = &self.token_type else { return Ok(None) };
        Ok(Some(match &tokens.token_types {
            Some(types) if self.by_segment => Tensor::f_embedding(table, types, -1, false, false)?,
            _ => table.f_select(0, 0)?,
        }))
    }
}
