//! What tells the three families apart: names of tensors, positions, token types, places of dropout,
//! heads. Everything else is one encoder.
//!
//! Sources, names unchanged:
//! <https://github.com/huggingface/transformers/blob/v4.57.1/src/transformers/models/bert/modeling_bert.py>,
//! `.../distilbert/modeling_distilbert.py` and `.../roberta/modeling_roberta.py` of the same version.

use muster_common::model::{BERT_HEADS, DISTILBERT_HEADS, Family, ROBERTA_HEADS, TokenTypes};

pub(crate) use muster_common::model::NEXT_SENTENCE;

/// Names of the modules of one encoder layer, below the layer.
#[derive(Debug)]
pub(crate) struct LayerNames {
    pub(crate) query: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: &'static str,
    pub(crate) attention_output: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) intermediate: &'static str,
    pub(crate) output: &'static str,
    pub(crate) output_norm: &'static str,
}

impl LayerNames {
    /// All of them; each has a `weight` and a `bias`.
    pub(crate) fn all(&self) -> [&'static str; 8] {
        [
            self.query,
            self.key,
            self.value,
            self.attention_output,
            self.attention_norm,
            self.intermediate,
            self.output,
            self.output_norm,
        ]
    }
}

/// How the hidden layer of a classification head is activated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Tanh,
    Relu,
}

/// The classification head: dense, activation, dropout, output.
#[derive(Debug)]
pub(crate) struct ClassificationNames {
    /// The dense layer; in BERT it is the pooler.
    pub(crate) dense: &'static str,
    pub(crate) activation: Activation,
    /// Whether the dense layer's input goes through dropout too.
    pub(crate) dropout_first: bool,
    pub(crate) output: &'static str,
}

/// The masked-language-modelling head: dense, GELU, LayerNorm, decoder. The decoder's weight is
/// that of the word embeddings.
#[derive(Debug)]
pub(crate) struct MaskedNames {
    pub(crate) dense: &'static str,
    pub(crate) norm: &'static str,
    /// The decoder's bias, as transformers names the parameter.
    pub(crate) bias: &'static str,
    /// The decoder's weight where a file holds it a second time.
    pub(crate) decoder: &'static str,
    /// The decoder's bias where a file has it under its second name.
    pub(crate) decoder_bias: &'static str,
}

/// One family.
#[derive(Debug)]
pub(crate) struct Description {
    /// In front of `ForSequenceClassification` and the like.
    pub(crate) class: &'static str,
    /// In front of the encoder's parameters.
    pub(crate) encoder: &'static str,
    /// Path of the layers below that.
    pub(crate) stack: &'static str,
    pub(crate) layer: LayerNames,
    /// Whether the output of attention goes through dropout before the residual sum.
    pub(crate) dropout_after_attention: bool,
    pub(crate) classification: ClassificationNames,
    pub(crate) masked: MaskedNames,
    /// The dense layer above the first token, and BERT's next-sentence head on it.
    pub(crate) pooler: Option<&'static str>,
    /// Beginnings of the names of every head transformers writes for this family.
    pub(crate) heads: &'static [&'static str],
}

const BERT_LAYER: LayerNames = LayerNames {
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    intermediate: "intermediate.dense",
    output: "output.dense",
    output_norm: "output.LayerNorm",
};

const BERT: Description = Description {
    class: "Bert",
    encoder: "bert",
    stack: "encoder.layer",
    layer: BERT_LAYER,
    dropout_after_attention: true,
    classification: ClassificationNames {
        dense: BERT_HEADS.dense,
        activation: Activation::Tanh,
        dropout_first: false,
        output: BERT_HEADS.output,
    },
    masked: MaskedNames {
        dense: BERT_HEADS.masked_dense,
        norm: BERT_HEADS.masked_norm,
        bias: BERT_HEADS.masked_bias,
        decoder: "cls.predictions.decoder.weight",
        decoder_bias: "cls.predictions.decoder.bias",
    },
    pooler: BERT_HEADS.pooler,
    heads: &["cls.", "classifier.", "qa_outputs."],
};

const DISTILBERT: Description = Description {
    class: "DistilBert",
    encoder: "distilbert",
    stack: "transformer.layer",
    layer: LayerNames {
        query: "attention.q_lin",
        key: "attention.k_lin",
        value: "attention.v_lin",
        attention_output: "attention.out_lin",
        attention_norm: "sa_layer_norm",
        intermediate: "ffn.lin1",
        output: "ffn.lin2",
        output_norm: "output_layer_norm",
    },
    dropout_after_attention: false,
    classification: ClassificationNames {
        dense: DISTILBERT_HEADS.dense,
        activation: Activation::Relu,
        dropout_first: false,
        output: DISTILBERT_HEADS.output,
    },
    masked: MaskedNames {
        dense: DISTILBERT_HEADS.masked_dense,
        norm: DISTILBERT_HEADS.masked_norm,
        bias: DISTILBERT_HEADS.masked_bias,
        decoder: "vocab_projector.weight",
        decoder_bias: "vocab_projector.bias",
    },
    pooler: DISTILBERT_HEADS.pooler,
    heads: &[
        "pre_classifier.",
        "classifier.",
        "vocab_transform.",
        "vocab_layer_norm.",
        "vocab_projector.",
        "qa_outputs.",
    ],
};

const ROBERTA: Description = Description {
    class: "Roberta",
    encoder: "roberta",
    stack: "encoder.layer",
    layer: BERT_LAYER,
    dropout_after_attention: true,
    classification: ClassificationNames {
        dense: ROBERTA_HEADS.dense,
        activation: Activation::Tanh,
        dropout_first: true,
        output: ROBERTA_HEADS.output,
    },
    masked: MaskedNames {
        dense: ROBERTA_HEADS.masked_dense,
        norm: ROBERTA_HEADS.masked_norm,
        bias: ROBERTA_HEADS.masked_bias,
        decoder: "lm_head.decoder.weight",
        decoder_bias: "lm_head.decoder.bias",
    },
    pooler: ROBERTA_HEADS.pooler,
    // The files of bare encoders hold a pooler that none of RoBERTa's heads reads.
    heads: &["classifier.", "lm_head.", "qa_outputs.", "roberta.pooler."],
};

/// What of a family only matters where there are tensors.
pub(crate) trait Described: Copy {
    /// Names and places of everything.
    fn description(self) -> &'static Description;

    /// The class of transformers for `task`, such as `SequenceClassification`.
    fn class_name(self, task: &str) -> String;

    /// Names of the parameters of the embeddings.
    fn embedding_names(self) -> impl Iterator<Item = String>;

    /// Path of the encoder layer `number`.
    fn layer_path(self, number: usize) -> String;

    /// Names of the parameters of the encoder layer `number`.
    fn layer_names(self, number: usize) -> impl Iterator<Item = String>;

    /// Names of the parameters of the pooler; none in families without one.
    fn pooler_names(self) -> impl Iterator<Item = String>;
}

impl Described for Family {
    fn description(self) -> &'static Description {
        match self {
            Self::Bert => &BERT,
            Self::DistilBert => &DISTILBERT,
            Self::Roberta => &ROBERTA,
        }
    }

    fn class_name(self, task: &str) -> String {
        format!("{}For{task}", self.description().class)
    }

    fn embedding_names(self) -> impl Iterator<Item = String> {
        let Description { encoder, .. } = self.description();
        let tables = ["word_embeddings", "position_embeddings", "token_type_embeddings"];
        let num_tables = if self.token_types() == TokenTypes::Absent { 2 } else { 3 };
        let tables = tables.into_iter().take(num_tables);
        tables
            .map(move |table| format!("{encoder}.embeddings.{table}.weight"))
            .chain(["weight", "bias"].map(|leaf| format!("{encoder}.embeddings.LayerNorm.{leaf}")))
    }

    fn layer_path(self, number: usize) -> String {
        let Description { encoder, stack, .. } = self.description();
        format!("{encoder}.{stack}.{number}")
    }

    fn layer_names(self, number: usize) -> impl Iterator<Item = String> {
        let path = self.layer_path(number);
        let modules = self.description().layer.all().into_iter();
        modules.flat_map(move |module| leaves(&format!("{path}.{module}")))
    }

    fn pooler_names(self) -> impl Iterator<Item = String> {
        self.description().pooler.into_iter().flat_map(leaves)
    }
}

/// The two parameters of a linear layer or of a LayerNorm.
pub(crate) fn leaves(module: &str) -> [String; 2] {
    ["weight", "bias"].map(|leaf| format!("{module}.{leaf}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Depth, is_layer_norm};

    #[test]
    fn names_of_every_family_have_their_depth() {
        for family in Family::ALL {
            assert!(family.embedding_names().all(|name| Depth::of(&name) == Depth::Embeddings));
            assert!(family.layer_names(7).all(|name| Depth::of(&name) == Depth::Layer(7)));
            assert!(family.pooler_names().all(|name| Depth::of(&name) == Depth::Pooler));
            assert_eq!(Depth::of(family.description().masked.dense), Depth::Head);
            assert_eq!(Depth::of(family.description().classification.output), Depth::Head);
        }
    }

    #[test]
    fn layer_norms_are_known_in_every_family() {
        for family in Family::ALL {
            let norms = family.layer_names(0).filter(|name| is_layer_norm(name)).count();
            assert_eq!(norms, 4, "{family:?}");
            assert!(is_layer_norm(family.description().masked.norm));
        }
    }
}
