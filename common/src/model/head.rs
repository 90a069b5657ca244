//! What is put on an encoder for a task: names and shapes of its parameters.
//!
//! Sources, names unchanged:
//! <https://github.com/huggingface/transformers/blob/v4.57.1/src/transformers/models/bert/modeling_bert.py>,
//! `.../distilbert/modeling_distilbert.py` and `.../roberta/modeling_roberta.py` of the same version.

use super::config::ModelConfig;
use super::family::Family;
use super::trained::Shapes;
use crate::manifest::TrainingObjective;

/// Names of the modules of one family's heads.
#[derive(Debug)]
pub struct HeadNames {
    /// Classification: the dense layer over the first token; in BERT it is the pooler.
    pub dense: &'static str,
    /// Classification: the scores of the classes.
    pub output: &'static str,
    /// Masked tokens: the dense layer.
    pub masked_dense: &'static str,
    /// Masked tokens: the `LayerNorm`.
    pub masked_norm: &'static str,
    /// Masked tokens: the decoder's bias, a parameter. The decoder's weight is that of the word embeddings.
    pub masked_bias: &'static str,
    /// The dense layer that next sentences are told by.
    pub pooler: Option<&'static str>,
}

/// BERT's next-sentence head.
pub const NEXT_SENTENCE: &str = "cls.seq_relationship";

/// Of [`Family::Bert`].
pub const BERT_HEADS: HeadNames = HeadNames {
    dense: "bert.pooler.dense",
    output: "classifier",
    masked_dense: "cls.predictions.transform.dense",
    masked_norm: "cls.predictions.transform.LayerNorm",
    masked_bias: "cls.predictions.bias",
    pooler: Some("bert.pooler.dense"),
};

/// Of [`Family::DistilBert`].
pub const DISTILBERT_HEADS: HeadNames = HeadNames {
    dense: "pre_classifier",
    output: "classifier",
    masked_dense: "vocab_transform",
    masked_norm: "vocab_layer_norm",
    masked_bias: "vocab_projector.bias",
    pooler: None,
};

/// Of [`Family::Roberta`].
pub const ROBERTA_HEADS: HeadNames = HeadNames {
    dense: "classifier.dense",
    output: "classifier.out_proj",
    masked_dense: "lm_head.dense",
    masked_norm: "lm_head.layer_norm",
    masked_bias: "lm_head.bias",
    pooler: None,
};

impl Family {
    /// Names of its heads.
    pub fn heads(self) -> &'static HeadNames {
        match self {
            Self::Bert => &BERT_HEADS,
            Self::DistilBert => &DISTILBERT_HEADS,
            Self::Roberta => &ROBERTA_HEADS,
        }
    }
}

/// The modules that a model needs on top for what it learns, each with its parameters. `num_classes` counts only where
/// classes are learned. A family that has no such head gets none: the worker refuses it.
pub(super) fn head(
    config: &ModelConfig,
    objective: TrainingObjective,
    num_classes: u64,
) -> Vec<Shapes> {
    let names = config.family.heads();
    let (hidden, vocabulary) = (size(config.hidden_size), size(config.vocab_size));
    let linear = |name: &str, input: u64, output: u64| {
        Shapes::from([
            (format!("{name}.weight"), vec![output, input]),
            (format!("{name}.bias"), vec![output]),
        ])
    };
    let norm = |name: &str| {
        Shapes::from([
            (format!("{name}.weight"), vec![hidden]),
            (format!("{name}.bias"), vec![hidden]),
        ])
    };
    if objective == TrainingObjective::Classification {
        let dense = linear(names.dense, hidden, hidden);
        return vec![dense, linear(names.output, hidden, num_classes)];
    }
    let mut modules = Vec::new();
    if objective.masks() {
        modules.push(linear(names.masked_dense, hidden, hidden));
        modules.push(norm(names.masked_norm));
        modules.push(Shapes::from([(names.masked_bias.to_owned(), vec![vocabulary])]));
    }
    if let Some(pooler) = names.pooler.filter(|_| objective.pairs_sentences()) {
        modules.push(linear(pooler, hidden, hidden));
        modules.push(linear(NEXT_SENTENCE, hidden, 2));
    }
    modules
}

/// Sizes of a configuration are positive.
fn size(size: i64) -> u64 {
    size.unsigned_abs()
}
