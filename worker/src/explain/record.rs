//! What explanations are written as: the JSON that `muster explain --json` writes is a [`Report`], field by field, and
//! `configs/README.md` describes it for readers of other languages. A change that old readers cannot take raises
//! [`FORMAT`].

use serde::Serialize;

use super::attention::HeadSummary;
use super::attribution::Completeness;
use super::conductance::LayerConductance;
use super::curve::Faithfulness;
use super::probe::ProbeAccuracy;
use super::words::Word;

/// Version of the schema.
pub const FORMAT: u32 = 1;

/// How tokens' importance is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Along the straight way from the baseline.
    IntegratedGradients,
    /// At the text itself.
    GradientTimesInput,
    /// By taking it away.
    Occlusion,
}

impl Method {
    /// Every method, the one to look at first in front.
    pub const ALL: [Self; 3] =
        [Self::IntegratedGradients, Self::GradientTimesInput, Self::Occlusion];

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::IntegratedGradients => "integrated gradients",
            Self::GradientTimesInput => "gradient x input",
            Self::Occlusion => "occlusion",
        }
    }
}

/// What stands for a word that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// The padding token's embedding.
    Pad,
    /// The mask token's embedding.
    Mask,
    /// Zeros.
    Zero,
}

/// Everything that one call has explained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// The model.
    pub model: ModelRecord,
    /// With what it was explained.
    pub settings: SettingsRecord,
    /// Texts that were given, in their order.
    pub texts: Vec<TextExplanation>,
    /// The file that was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitExplanation>,
}

/// The model of a [`Report`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelRecord {
    /// As it was named.
    pub name: String,
    /// `model_type` of its `config.json`.
    pub family: String,
    /// Layers.
    pub num_layers: usize,
    /// Attention heads of each layer.
    pub num_heads: usize,
    /// Classes in the order of their numbers.
    pub classes: Vec<String>,
}

/// Settings of a [`Report`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SettingsRecord {
    /// Points of integrals.
    pub steps: u32,
    /// What stands for a word that is not there.
    pub baseline: Baseline,
}

/// A class and what the model gives it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassScore {
    /// Its name.
    pub name: String,
    /// Raw score.
    pub logit: f64,
    /// 0 to 1.
    pub probability: f64,
}

/// One token of a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenRecord {
    /// Number in the vocabulary.
    pub id: u32,
    /// As the vocabulary writes it.
    pub token: String,
    /// Whether it is of the text; special tokens are not.
    pub ordinary: bool,
}

/// One method's answer. Values are in logits of the explained class: above zero speaks for it, below zero against it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Importance {
    /// The method.
    pub method: Method,
    /// Per token of the sequence; special tokens have none.
    pub tokens: Vec<f64>,
    /// Per word: the sum over its tokens, but for occlusion, which takes all of them away at once.
    pub words: Vec<f64>,
    /// Whether it adds up; for integrated gradients only, which should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completeness: Option<Completeness>,
    /// Curves of its order of the words; absent where there is no word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faithfulness: Option<Faithfulness>,
}

/// How the layers come to their answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerRecord {
    /// Conductance per layer and token.
    pub conductance: Vec<LayerConductance>,
    /// Attention rollout of the first token: per layer a share of every token.
    pub rollout: Vec<Vec<f64>>,
    /// Per layer and head.
    pub heads: Vec<Vec<HeadSummary>>,
    /// Attention: layer, head, query token, key token.
    pub attentions: Vec<Vec<Vec<Vec<f32>>>>,
}

/// One text explained.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextExplanation {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
    /// Its true class, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The most probable class.
    pub predicted: String,
    /// The class that importance is about: the predicted one, unless another was asked for.
    pub explained: String,
    /// All classes in the order of their numbers.
    pub classes: Vec<ClassScore>,
    /// What the model has read.
    pub tokens: Vec<TokenRecord>,
    /// Words of the text, and of the second behind them.
    pub words: Vec<Word>,
    /// By method, in the order of [`Method::ALL`].
    pub importance: Vec<Importance>,
    /// Curves of random orders, in the mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random: Option<Faithfulness>,
    /// Absent for the mistakes of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayerRecord>,
}

/// Mean curves of a method over texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeanCurves {
    /// The method; absent for random orders.
    pub method: Option<Method>,
    /// The curves.
    pub faithfulness: Faithfulness,
}

/// The texts of a file explained together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitExplanation {
    /// The file.
    pub file: String,
    /// Its texts.
    pub num_texts: usize,
    /// Share of right predictions among those with a label, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Share of the most frequent label: what a probe that knows nothing gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub majority: Option<f64>,
    /// Texts, evenly spread over the file, whose words' importance was measured.
    pub num_attributed: usize,
    /// Mean curves by method, those of random orders last.
    pub curves: Vec<MeanCurves>,
    /// Median over these texts of the size of the completeness error of integrated gradients, as a share of the
    /// difference of scores.
    pub completeness_error: f64,
    /// Texts, evenly spread over the file, that layers were looked at with.
    pub num_analyzed: usize,
    /// Mean over these texts, per layer and head.
    pub heads: Vec<Vec<HeadSummary>>,
    /// By layer; empty where labels are missing.
    pub probes: Vec<ProbeAccuracy>,
    /// Wrong predictions, the most confident first.
    pub mistakes: Vec<TextExplanation>,
}
