//! Blocks shared by encoder layers.
//!
//! Shapes: `T` rows of all sequences, `D` hidden, `H` heads, `K` head width (`D = H * K`), `F`
//! feed-forward, `Q` query tokens of all sequences: `T`, or one per sequence where only the first is
//! read. Of a run: `B` sequences of `L` tokens, of which `P` are queries (`L` or 1).

use muster_common::model::Dropout;
use tch::{Kind, Tensor};

use super::ModelError;
use super::dropout::dropout;
use super::family::Description;
use super::packing::{Frame, Run};
use super::parameters::Scope;
use crate::ffi;

/// `y = x W^T + b`.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor, // [out, in]
    bias: Tensor,   // [out]
}

impl Linear {
    /// `weight` is `[out, in]`, `bias` is `[out]`.
    pub(crate) fn new(weight: Tensor, bias: Tensor) -> Self {
        Self { weight, bias }
    }

    pub(crate) fn load(scope: &Scope<'_>, input: i64, output: i64) -> Result<Self, ModelError> {
        Ok(Self {
            weight: scope.tensor("weight", &[output, input])?,
            bias: scope.tensor("bias", &[output])?,
        })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        Ok(ffi::linear(x, &self.weight, &self.bias)?)
    }
}

/// Normalization over the last dimension.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor, // [D]
    bias: Tensor,   // [D]
    epsilon: f64,
}

impl LayerNorm {
    pub(crate) fn load(scope: &Scope<'_>, size: i64, epsilon: f64) -> Result<Self, ModelError> {
        let (weight, bias) = (scope.tensor("weight", &[size])?, scope.tensor("bias", &[size])?);
        Ok(Self { weight, bias, epsilon })
    }

    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let size = self.weight.size();
        Ok(x.f_layer_norm(size, Some(&self.weight), Some(&self.bias), self.epsilon, false)?)
    }
}

/// Which tokens the output of a layer is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Every token.
    All,
    /// The first token only. Its output needs the keys and values of all tokens, but only its own
    /// query, output projection and feed-forward: exact, and most of the layer's work is saved.
    First,
}

/// One encoder layer with LayerNorm after the residual sums: `BertLayer` and `RobertaLayer` of
/// transformers with what they hold, and DistilBERT's `TransformerBlock`.
#[derive(Debug)]
pub(crate) struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    num_heads: i64,
    dropout_after_attention: bool,
}

/// Sizes of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerSizes {
    pub(crate) hidden: i64,
    pub(crate) intermediate: i64,
    pub(crate) num_heads: i64,
    pub(crate) norm_epsilon: f64,
}

impl Layer {
    pub(crate) fn load(
        scope: &Scope<'_>,
        family: &Description,
        sizes: LayerSizes,
    ) -> Result<Self, ModelError> {
        let LayerSizes { hidden, intermediate, num_heads, norm_epsilon } = sizes;
        let names = &family.layer;
        let square = |name: &str| Linear::load(&scope.child(name), hidden, hidden);
        let norm = |name: &str| LayerNorm::load(&scope.child(name), hidden, norm_epsilon);
        Ok(Self {
            query: square(names.query)?,
            key: square(names.key)?,
            value: square(names.value)?,
            attention_output: square(names.attention_output)?,
            attention_norm: norm(names.attention_norm)?,
            intermediate: Linear::load(&scope.child(names.intermediate), hidden, intermediate)?,
            output: Linear::load(&scope.child(names.output), intermediate, hidden)?,
            output_norm: norm(names.output_norm)?,
            num_heads,
            dropout_after_attention: family.dropout_after_attention,
        })
    }

    /// `hidden` is `[T, D]`. Returns `[Q, D]`; where only first tokens are wanted, in the order in
    /// which the frame lays the sequences down.
    pub(crate) fn forward(
        &self,
        hidden: &Tensor,
        frame: &Frame,
        wanted: Wanted,
        rates: Dropout,
    ) -> Result<Tensor, ModelError> {
        let residual = match wanted {
            Wanted::All => hidden.shallow_clone(),
            Wanted::First => frame.first_by_place(hidden)?,
        };
        let context = self.attend(&residual, hidden, frame, wanted, rates.attention)?; // [Q, D]
        let p = if self.dropout_after_attention { rates.hidden } else { 0.0 };
        let attended = dropout(self.attention_output.forward(&context)?, p)?;
        let attended = self.attention_norm.forward(&attended.f_add(&residual)?)?;
        let inner = self.intermediate.forward(&attended)?.f_gelu("none")?; // [Q, F]
        let output = dropout(self.output.forward(&inner)?, rates.hidden)?;
        self.output_norm.forward(&output.f_add(&attended)?)
    }

    /// `p` is the dropout probability of the attention shares. Returns `[Q, D]`.
    fn attend(
        &self,
        queries: &Tensor,
        hidden: &Tensor,
        frame: &Frame,
        wanted: Wanted,
        p: f64,
    ) -> Result<Tensor, ModelError> {
        let query = self.query.forward(queries)?; // [Q, D]
        let (key, value) = (self.key.forward(hidden)?, self.value.forward(hidden)?); // [T, D]
        let (num_queries, width) = query.size2()?;
        let unused = match wanted {
            Wanted::All => frame.num_rows() - frame.num_tokens(),
            Wanted::First => 0,
        };
        let head_width = width / self.num_heads;
        let mut contexts = match frame.spans() {
            Some(spans) if ffi::has_flash_attention(query.device(), query.kind(), head_width) => {
                let heads = |x: &Tensor, rows: i64| {
                    x.f_narrow(0, 0, rows)?.f_view([rows, self.num_heads, head_width])
                };
                let (queries, rows) = match wanted {
                    Wanted::All => (&spans.tokens, frame.num_tokens()),
                    Wanted::First => (&spans.firsts, num_queries),
                };
                let query = heads(&query, rows)?; // [Q, H, K]
                let key = heads(&key, frame.num_tokens())?; // [T, H, K]
                let value = heads(&value, frame.num_tokens())?;
                let (query, key) = ((&query, queries), (&key, &spans.tokens));
                vec![ffi::flash_attention(query, key, &value, p)?.f_reshape([rows, width])?]
            }
            _ => self.attend_by_length([&query, &key, &value], frame, wanted, p)?,
        };
        if unused > 0 {
            contexts.push(Tensor::f_zeros([unused, width], (query.kind(), query.device()))?);
        }
        match contexts.as_slice() {
            [only] => Ok(only.shallow_clone()),
            several => Ok(Tensor::f_cat(several, 0)?),
        }
    }

    /// Attention run by run, `[Q', D]` of each; the query is `[Q, D]`, key and value are `[T, D]`.
    fn attend_by_length(
        &self,
        [query, key, value]: [&Tensor; 3],
        frame: &Frame,
        wanted: Wanted,
        p: f64,
    ) -> Result<Vec<Tensor>, ModelError> {
        let width = query.size2()?.1;
        let within = |run: &Run| {
            let (first_query, num_queries) = match wanted {
                Wanted::All => (run.first_row, run.length),
                Wanted::First => (run.first_place, 1),
            };
            let query = self.heads(query, first_query, run.count, num_queries)?; // [B, H, P, K]
            let key = self.heads(key, run.first_row, run.count, run.length)?; // [B, H, L, K]
            let value = self.heads(value, run.first_row, run.count, run.length)?;
            let context = context_of(&query, &key, &value, p)?; // [B, H, P, K]
            Ok(context.f_transpose(1, 2)?.f_reshape([run.count * num_queries, width])?)
        };
        frame.runs().iter().map(within).collect()
    }

    /// `count` blocks of `length` rows of `x` from row `first` on, as `[count, H, length, K]`.
    fn heads(&self, x: &Tensor, first: i64, count: i64, length: i64) -> Result<Tensor, ModelError> {
        let (_, hidden) = x.size2()?;
        let split = [count, length, self.num_heads, hidden / self.num_heads];
        Ok(x.f_narrow(0, first, count * length)?.f_view(split)?.f_transpose(1, 2)?)
    }
}

/// Scaled dot-product attention within sequences of equal length, `[B, H, P, K]`.
fn context_of(query: &Tensor, key: &Tensor, value: &Tensor, p: f64) -> Result<Tensor, ModelError> {
    if p <= 0.0 {
        let none = None::<Tensor>;
        return Ok(Tensor::f_scaled_dot_product_attention(
            query, key, value, none, 0.0, false, None, false,
        )?);
    }
    // The fused kernel of the CPU has no dropout.
    let scale = (*query.size().last().unwrap_or(&1) as f64).sqrt().recip();
    let scores = query.f_mul_scalar(scale)?.f_matmul(&key.f_transpose(2, 3)?)?;
    let shares = dropout(scores.f_softmax(-1, Kind::Float)?, p)?; // [B, H, P, L]
    Ok(shares.f_matmul(value)?)
}
