//! Blocks shared by encoder layers.
//!
//! Shapes: `B` sequences, `L` tokens, `D` hidden, `H` heads, `K` head width (`D = H * K`), `F`
//! feed-forward, `Q` query tokens (`L`, or 1 where only the first token is read).

use tch::{Kind, Tensor};

use super::ModelError;
use super::parameters::Scope;
use crate::ffi;

/// `y = x W^T + b`.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor, // [out, in]
    bias: Tensor,   // [out]
}

impl Linear {
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

/// Dropout with probability `p`; the same tensor where `p` is zero.
pub(crate) fn dropout(x: Tensor, p: f64) -> Result<Tensor, ModelError> {
    if p > 0.0 { Ok(x.f_dropout(p, true)?) } else { Ok(x) }
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

/// One encoder layer with LayerNorm after the residual sums, as in BERT.
///
/// <https://github.com/huggingface/transformers/blob/v4.57.1/src/transformers/models/bert/modeling_bert.py>
/// (`BertLayer` and what it holds).
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
    pub(crate) fn load(scope: &Scope<'_>, sizes: LayerSizes) -> Result<Self, ModelError> {
        let LayerSizes { hidden, intermediate, num_heads, norm_epsilon } = sizes;
        let attention = scope.child("attention");
        let own = attention.child("self");
        let norm = |scope: &Scope<'_>| {
            LayerNorm::load(&scope.child("output").child("LayerNorm"), hidden, norm_epsilon)
        };
        let dense = |scope: &Scope<'_>, block: &str, input, output| {
            Linear::load(&scope.child(block).child("dense"), input, output)
        };
        Ok(Self {
            query: Linear::load(&own.child("query"), hidden, hidden)?,
            key: Linear::load(&own.child("key"), hidden, hidden)?,
            value: Linear::load(&own.child("value"), hidden, hidden)?,
            attention_output: dense(&attention, "output", hidden, hidden)?,
            attention_norm: norm(&attention)?,
            intermediate: dense(scope, "intermediate", hidden, intermediate)?,
            output: dense(scope, "output", intermediate, hidden)?,
            output_norm: norm(scope)?,
            num_heads,
        })
    }

    /// `hidden` is `[B, L, D]`, `mask` is `[B, 1, 1, L]` with 0 at tokens and minus infinity at
    /// padding (absent: no padding), `p` is the dropout probability (0: evaluation).
    /// Returns `[B, Q, D]`.
    pub(crate) fn forward(
        &self,
        hidden: &Tensor,
        mask: Option<&Tensor>,
        wanted: Wanted,
        p: f64,
    ) -> Result<Tensor, ModelError> {
        let residual = match wanted {
            Wanted::All => hidden.shallow_clone(),
            Wanted::First => hidden.f_narrow(1, 0, 1)?,
        };
        let context = self.attend(&residual, hidden, mask, p)?; // [B, Q, D]
        let attended = dropout(self.attention_output.forward(&context)?, p)?;
        let attended = self.attention_norm.forward(&attended.f_add(&residual)?)?;
        let inner = self.intermediate.forward(&attended)?.f_gelu("none")?; // [B, Q, F]
        let output = dropout(self.output.forward(&inner)?, p)?;
        self.output_norm.forward(&output.f_add(&attended)?)
    }

    fn attend(
        &self,
        queries: &Tensor,
        hidden: &Tensor,
        mask: Option<&Tensor>,
        p: f64,
    ) -> Result<Tensor, ModelError> {
        let query = self.heads(&self.query.forward(queries)?)?; // [B, H, Q, K]
        let key = self.heads(&self.key.forward(hidden)?)?; // [B, H, L, K]
        let value = self.heads(&self.value.forward(hidden)?)?; // [B, H, L, K]
        let context = if p > 0.0 {
            // The fused kernel of the CPU has no dropout.
            let scale = (*query.size().last().unwrap_or(&1) as f64).sqrt().recip();
            let scores = query.f_mul_scalar(scale)?.f_matmul(&key.f_transpose(2, 3)?)?;
            let scores = match mask {
                Some(mask) => scores.f_add(mask)?,
                None => scores,
            };
            let shares = dropout(scores.f_softmax(-1, Kind::Float)?, p)?; // [B, H, Q, L]
            shares.f_matmul(&value)?
        } else {
            Tensor::f_scaled_dot_product_attention(
                &query, &key, &value, mask, 0.0, false, None, false,
            )?
        };
        let size = queries.size();
        Ok(context.f_transpose(1, 2)?.f_reshape(size)?)
    }

    /// `[B, L, D]` as `[B, H, L, K]`.
    fn heads(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let (batch, length, hidden) = x.size3()?;
        let split = [batch, length, self.num_heads, hidden / self.num_heads];
        Ok(x.f_view(split)?.f_transpose(1, 2)?)
    }
}
