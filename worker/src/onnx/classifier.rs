//! The graph of a classifier: embeddings, layers, head, as [`crate::model`] computes them, but with a mask where
//! batches are padded.
//!
//! Shapes: `B` sequences, `L` tokens with padding, `D` hidden, `H` heads, `K` head width (`D = H * K`), `C` classes.

use super::drawing::{Drawing, Setting, Wire};
use super::message::{FLOAT, Graph, INT64};
use crate::model::{
    Activation, Classifier, Described, ModelConfig, ModelError, NamedTensors, TokenTypes, extent,
};

/// Added to the scores of padding: its shares are zero in 32-bit floats.
const MASKED: f32 = -1e9;

/// Names of the graph's inputs and of its output, as other exporters of these models call them.
const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";
const TYPES: &str = "token_type_ids";
const LOGITS: &str = "logits";

/// Draws with the weights of one model.
struct Painter<'a> {
    drawing: Drawing,
    config: &'a ModelConfig,
    tensors: &'a NamedTensors,
}

/// The graph of `model`: token ids, mask and, for BERT, segments in; logits out.
pub(super) fn draw(model: &Classifier) -> Result<Graph, ModelError> {
    let (config, tensors) = (model.config(), model.parameters());
    let mut painter = Painter { drawing: Drawing::default(), config, tensors };
    let ids = painter.drawing.input(IDS);
    let mask = painter.drawing.input(MASK);
    let mut state = painter.embeddings(&ids)?; // [B, L, D]
    let mask = painter.scores_of_mask(&mask);
    for number in 0..config.num_hidden_layers {
        state = painter.layer(&config.family.layer_path(number), &state, &mask)?;
    }
    let logits = painter.head(&state)?;
    Ok(painter.drawing.finish(&logits, LOGITS, extent(model.labels().len())))
}

impl Painter<'_> {
    fn tensor(&self, name: &str) -> Result<&tch::Tensor, ModelError> {
        self.tensors.get(name).ok_or_else(|| ModelError::MissingParameter { name: name.to_owned() })
    }

    fn weights(&mut self, name: &str) -> Result<Wire, ModelError> {
        let tensor = self.tensor(name)?.shallow_clone();
        self.drawing.weights(name, &tensor)
    }

    fn embeddings(&mut self, ids: &Wire) -> Result<Wire, ModelError> {
        let family = self.config.family.description();
        let path = format!("{}.embeddings", family.encoder);
        let table = self.weights(&format!("{path}.word_embeddings.weight"))?;
        let mut sum = self.drawing.apply("Gather", &[&table, ids], &[]);
        let types = format!("{path}.token_type_embeddings.weight");
        let type_row = match self.config.family.token_types() {
            TokenTypes::Absent => None,
            TokenTypes::BySegment => {
                let table = self.weights(&types)?;
                let segments = self.drawing.input(TYPES);
                Some(self.drawing.apply("Gather", &[&table, &segments], &[]))
            }
            TokenTypes::First => {
                let row = self.tensor(&types)?.f_select(0, 0)?;
                Some(self.drawing.weights(&types, &row)?)
            }
        };
        if let Some(row) = type_row {
            sum = self.drawing.apply("Add", &[&sum, &row], &[]);
        }
        let table = self.weights(&format!("{path}.position_embeddings.weight"))?;
        let positions = self.positions(ids);
        let position = self.drawing.apply("Gather", &[&table, &positions], &[]);
        let sum = self.drawing.apply("Add", &[&sum, &position], &[]);
        self.norm(&format!("{path}.LayerNorm"), &sum)
    }

    /// `[L]`, or `[B, L]` where positions are counted past a token.
    fn positions(&mut self, ids: &Wire) -> Wire {
        let drawing = &mut self.drawing;
        let (zero, one) = (drawing.whole(0), drawing.whole(1));
        let Some(skipped) = self.config.skipped_token() else {
            let shape = drawing.apply("Shape", &[ids], &[]);
            let length = drawing.apply("Gather", &[&shape, &one], &[]);
            return drawing.apply("Range", &[&zero, &length, &one], &[]);
        };
        let skipped = drawing.whole(skipped);
        let is_skipped = drawing.apply("Equal", &[ids, &skipped], &[]);
        let is_counted = drawing.apply("Not", &[&is_skipped], &[]);
        let to_whole = [("to", Setting::Whole(i64::from(INT64)))];
        let is_counted = drawing.apply("Cast", &[&is_counted], &to_whole);
        let count = drawing.apply("CumSum", &[&is_counted, &one], &[]);
        let count = drawing.apply("Mul", &[&count, &is_counted], &[]);
        drawing.apply("Add", &[&count, &skipped], &[])
    }

    /// 0 for tokens and [`MASKED`] for padding, `[B, 1, 1, L]`.
    fn scores_of_mask(&mut self, mask: &Wire) -> Wire {
        let drawing = &mut self.drawing;
        let mask = drawing.apply("Cast", &[mask], &[("to", Setting::Whole(i64::from(FLOAT)))]);
        let (one, far) = (drawing.real(1.0), drawing.real(MASKED));
        let absent = drawing.apply("Sub", &[&one, &mask], &[]);
        let scores = drawing.apply("Mul", &[&absent, &far], &[]);
        let axes = drawing.list(&[1, 2]);
        drawing.apply("Unsqueeze", &[&scores, &axes], &[])
    }

    /// `x W^T + b`.
    fn linear(&mut self, path: &str, x: &Wire) -> Result<Wire, ModelError> {
        let name = format!("{path}.weight");
        let turned = self.tensor(&name)?.f_transpose(0, 1)?; // [in, out]
        let weight = self.drawing.weights(&format!("{name}.transposed"), &turned)?;
        let bias = self.weights(&format!("{path}.bias"))?;
        let product = self.drawing.apply("MatMul", &[x, &weight], &[]);
        Ok(self.drawing.apply("Add", &[&product, &bias], &[]))
    }

    fn norm(&mut self, path: &str, x: &Wire) -> Result<Wire, ModelError> {
        let weight = self.weights(&format!("{path}.weight"))?;
        let bias = self.weights(&format!("{path}.bias"))?;
        #[expect(clippy::cast_possible_truncation, reason = "the format has 32-bit floats")]
        let epsilon = Setting::Real(self.config.layer_norm_eps as f32);
        let settings = [("axis", Setting::Whole(-1)), ("epsilon", epsilon)];
        Ok(self.drawing.apply("LayerNormalization", &[x, &weight, &bias], &settings))
    }

    /// `x * (1 + erf(x / sqrt(2))) / 2`: the form with erf, which older runtimes know too.
    fn gelu(&mut self, x: &Wire) -> Wire {
        let drawing = &mut self.drawing;
        let (root, one, half) =
            (drawing.real(std::f32::consts::SQRT_2), drawing.real(1.0), drawing.real(0.5));
        let inner = drawing.apply("Div", &[x, &root], &[]);
        let inner = drawing.apply("Erf", &[&inner], &[]);
        let inner = drawing.apply("Add", &[&inner, &one], &[]);
        let product = drawing.apply("Mul", &[x, &inner], &[]);
        drawing.apply("Mul", &[&product, &half], &[])
    }

    fn layer(&mut self, path: &str, x: &Wire, mask: &Wire) -> Result<Wire, ModelError> {
        let names = &self.config.family.description().layer;
        let at = |name: &str| format!("{path}.{name}");
        let query = self.linear(&at(names.query), x)?;
        let key = self.linear(&at(names.key), x)?;
        let value = self.linear(&at(names.value), x)?;
        let query = self.heads(&query, [0, 2, 1, 3]); // [B, H, L, K]
        let key = self.heads(&key, [0, 2, 3, 1]); // [B, H, K, L]
        let value = self.heads(&value, [0, 2, 1, 3]);
        #[expect(clippy::cast_possible_truncation, reason = "the format has 32-bit floats")]
        let scale = self.drawing.real((self.config.head_size() as f64).sqrt().recip() as f32);
        let scores = self.drawing.apply("MatMul", &[&query, &key], &[]);
        let scores = self.drawing.apply("Mul", &[&scores, &scale], &[]);
        let scores = self.drawing.apply("Add", &[&scores, mask], &[]);
        let shares = self.drawing.apply("Softmax", &[&scores], &[("axis", Setting::Whole(-1))]);
        let context = self.drawing.apply("MatMul", &[&shares, &value], &[]);
        let turned = [("perm", Setting::List(&[0, 2, 1, 3]))];
        let context = self.drawing.apply("Transpose", &[&context], &turned);
        // 0 keeps a size as it is.
        let shape = self.drawing.list(&[0, 0, self.config.hidden_size]);
        let context = self.drawing.apply("Reshape", &[&context, &shape], &[]);
        let output = self.linear(&at(names.attention_output), &context)?;
        let sum = self.drawing.apply("Add", &[&output, x], &[]);
        let attended = self.norm(&at(names.attention_norm), &sum)?;
        let inner = self.linear(&at(names.intermediate), &attended)?;
        let inner = self.gelu(&inner);
        let output = self.linear(&at(names.output), &inner)?;
        let sum = self.drawing.apply("Add", &[&output, &attended], &[]);
        self.norm(&at(names.output_norm), &sum)
    }

    /// `[B, L, D]` to heads in the order `turned`.
    fn heads(&mut self, x: &Wire, turned: [i64; 4]) -> Wire {
        let sizes = [0, 0, self.config.num_attention_heads, self.config.head_size()];
        let shape = self.drawing.list(&sizes);
        let split = self.drawing.apply("Reshape", &[x, &shape], &[]);
        self.drawing.apply("Transpose", &[&split], &[("perm", Setting::List(&turned))])
    }

    /// `[B, L, D]` to `[B, C]`.
    fn head(&mut self, state: &Wire) -> Result<Wire, ModelError> {
        let names = &self.config.family.description().classification;
        let zero = self.drawing.whole(0);
        let first = self.drawing.apply("Gather", &[state, &zero], &[("axis", Setting::Whole(1))]);
        let dense = self.linear(names.dense, &first)?;
        let active = match names.activation {
            Activation::Tanh => self.drawing.apply("Tanh", &[&dense], &[]),
            Activation::Relu => self.drawing.apply("Relu", &[&dense], &[]),
        };
        self.linear(names.output, &active)
    }
}
