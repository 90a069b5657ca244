//! The classifier computed once more with everything in view: word embeddings come in from outside, and the states
//! and the attention of every layer go out. The fused kernels that training and prediction use keep neither.
//!
//! Sequences of one call are equally long, so that there is no padding and no mask here either.
//!
//! Shapes: `B` sequences, `L` tokens of each, `D` hidden, `H` heads, `K` head width (`D = H * K`), `F` feed-forward,
//! `C` classes.

use tch::{Kind, Tensor};

use crate::model::{
    Activation, Classifier, Described, LayerNorm, Linear, ModelConfig, ModelError, Scope,
    TokenTypes, extent,
};

/// Equally long sequences, laid down for a model.
#[derive(Debug)]
pub struct Reading {
    ids: Tensor,                 // [B, L]
    positions: Tensor,           // [B, L]
    token_types: Option<Tensor>, // [B, L]
    length: usize,
}

impl Reading {
    /// Of sequences, of which there must be at least one. Of each so many of the first tokens are in the first
    /// segment, the rest in the second. Refuses sequences of different lengths, and those that the model refuses.
    pub fn new(
        model: &Classifier,
        sequences: &[&[u32]],
        first_segments: &[usize],
    ) -> Result<Self, ModelError> {
        // Checks lengths and segments, and knows how each family counts positions.
        let batch = model.batch_of_pairs(sequences, first_segments)?;
        let length = sequences.first().map_or(0, |sequence| sequence.len());
        if let Some(other) = sequences.iter().find(|sequence| sequence.len() != length) {
            return Err(ModelError::Length { tokens: other.len(), max: extent(length) });
        }
        let shape = [extent(sequences.len()), extent(length)];
        // Equally long sequences lie in their order; rows behind them belong to none.
        let blocks = |rows: &Tensor| rows.f_narrow(0, 0, shape[0] * shape[1])?.f_view(shape);
        Ok(Self {
            ids: blocks(&batch.ids)?,
            positions: blocks(&batch.positions)?,
            token_types: batch.token_types.as_ref().map(blocks).transpose()?,
            length,
        })
    }

    /// Tokens of each sequence, special tokens included.
    pub fn length(&self) -> usize {
        self.length
    }
}

/// What one pass has computed.
#[derive(Debug)]
pub struct Pass {
    /// What the first layer reads, then the output of every layer: one more than there are layers, each `[B, L, D]`.
    pub states: Vec<Tensor>,
    /// Shares of attention of every layer, each `[B, H, L, L]`: of a query (third dimension) on all keys (last); they
    /// sum to 1.
    pub attentions: Vec<Tensor>,
    /// `[B, C]`.
    pub logits: Tensor,
}

#[derive(Debug)]
struct EagerLayer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    num_heads: i64,
}

/// The weights of a [`Classifier`], whose memory they share, for passes that keep everything.
#[derive(Debug)]
pub struct Eager {
    word: Tensor,               // [V, D]
    position: Tensor,           // [max_position_embeddings, D]
    token_type: Option<Tensor>, // [type_vocab_size, D]
    by_segment: bool,
    norm: LayerNorm,
    layers: Vec<EagerLayer>,
    dense: Linear,
    activation: Activation,
    output: Linear,
}

impl Eager {
    /// Of a model to predict with.
    pub fn of(model: &Classifier) -> Result<Self, ModelError> {
        let config = model.config();
        let family = config.family.description();
        let (hidden, classes) = (config.hidden_size, extent(model.labels().len()));
        let root = Scope::root(model.parameters());
        let embeddings = root.child(family.encoder).child("embeddings");
        let table =
            |name: &str, rows: i64| embeddings.child(name).tensor("weight", &[rows, hidden]);
        let token_type = match config.family.token_types() {
            TokenTypes::Absent => None,
            TokenTypes::First | TokenTypes::BySegment => {
                Some(table("token_type_embeddings", config.type_vocab_size)?)
            }
        };
        let layers = (0..config.num_hidden_layers)
            .map(|number| EagerLayer::load(config, &root.child(&config.family.layer_path(number))))
            .collect::<Result<_, _>>()?;
        let head = &family.classification;
        Ok(Self {
            word: table("word_embeddings", config.vocab_size)?,
            position: table("position_embeddings", config.max_position_embeddings)?,
            token_type,
            by_segment: config.family.token_types() == TokenTypes::BySegment,
            norm: LayerNorm::load(&embeddings.child("LayerNorm"), hidden, config.layer_norm_eps)?,
            layers,
            dense: Linear::load(&root.child(head.dense), hidden, hidden)?,
            activation: head.activation,
            output: Linear::load(&root.child(head.output), hidden, classes)?,
        })
    }

    /// Layers of the encoder.
    pub fn num_layers(&self) -> usize {
        self.layers.len()
    }

    /// Word embeddings of a reading, `[B, L, D]`: what [`Eager::forward`] takes, before positions and token types are
    /// added.
    pub fn words(&self, reading: &Reading) -> Result<Tensor, ModelError> {
        Ok(Tensor::f_embedding(&self.word, &reading.ids, -1, false, false)?)
    }

    /// The row of one token in the table of words, `[D]`.
    pub fn word(&self, token: u32) -> Result<Tensor, ModelError> {
        Ok(self.word.f_select(0, i64::from(token))?)
    }

    /// Computes everything from word embeddings, `[B, L, D]`. The places are those of `reading`, of which there may be
    /// one for all sequences.
    pub fn forward(&self, words: &Tensor, reading: &Reading) -> Result<Pass, ModelError> {
        let sum = match (&self.token_type, &reading.token_types) {
            (Some(table), Some(types)) if self.by_segment => {
                words.f_add(&Tensor::f_embedding(table, types, -1, false, false)?)?
            }
            (Some(table), _) => words.f_add(&table.f_select(0, 0)?)?,
            (None, _) => words.shallow_clone(),
        };
        let position = Tensor::f_embedding(&self.position, &reading.positions, -1, false, false)?;
        let mut state = self.norm.forward(&sum.f_add(&position)?)?; // [B, L, D]
        let mut states = vec![state.shallow_clone()];
        let mut attentions = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let (output, attention) = layer.forward(&state)?;
            states.push(output.shallow_clone());
            attentions.push(attention);
            state = output;
        }
        let logits = self.classify(&state.f_select(1, 0)?)?;
        Ok(Pass { states, attentions, logits })
    }

    /// `[B, D]` to `[B, C]`.
    fn classify(&self, first: &Tensor) -> Result<Tensor, ModelError> {
        let dense = self.dense.forward(first)?;
        let active = match self.activation {
            Activation::Tanh => dense.f_tanh()?,
            Activation::Relu => dense.f_relu()?,
        };
        self.output.forward(&active)
    }
}

impl EagerLayer {
    fn load(config: &ModelConfig, scope: &Scope<'_>) -> Result<Self, ModelError> {
        let names = &config.family.description().layer;
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let square = |name: &str| Linear::load(&scope.child(name), hidden, hidden);
        let norm = |name: &str| LayerNorm::load(&scope.child(name), hidden, config.layer_norm_eps);
        Ok(Self {
            query: square(names.query)?,
            key: square(names.key)?,
            value: square(names.value)?,
            attention_output: square(names.attention_output)?,
            attention_norm: norm(names.attention_norm)?,
            intermediate: Linear::load(&scope.child(names.intermediate), hidden, inner)?,
            output: Linear::load(&scope.child(names.output), inner, hidden)?,
            output_norm: norm(names.output_norm)?,
            num_heads: config.num_attention_heads,
        })
    }

    /// `x` is `[B, L, D]`. Returns the same shape, and the shares of attention, `[B, H, L, L]`.
    fn forward(&self, x: &Tensor) -> Result<(Tensor, Tensor), ModelError> {
        let (count, length, width) = x.size3()?;
        let head_width = width / self.num_heads;
        let heads = |linear: &Linear| -> Result<Tensor, ModelError> {
            let split = [count, length, self.num_heads, head_width];
            Ok(linear.forward(x)?.f_view(split)?.f_transpose(1, 2)?) // [B, H, L, K]
        };
        let (query, key, value) = (heads(&self.query)?, heads(&self.key)?, heads(&self.value)?);
        let scale = (head_width as f64).sqrt().recip();
        let scores = query.f_matmul(&key.f_transpose(2, 3)?)?.f_mul_scalar(scale)?;
        let attention = scores.f_softmax(-1, Kind::Float)?; // [B, H, L, L]
        let context = attention.f_matmul(&value)?.f_transpose(1, 2)?; // [B, L, H, K]
        let context = context.f_reshape([count, length, width])?;
        let attended = self.attention_output.forward(&context)?.f_add(x)?;
        let attended = self.attention_norm.forward(&attended)?;
        let inner = self.intermediate.forward(&attended)?.f_gelu("none")?; // [B, L, F]
        let output = self.output.forward(&inner)?.f_add(&attended)?;
        Ok((self.output_norm.forward(&output)?, attention))
    }
}
