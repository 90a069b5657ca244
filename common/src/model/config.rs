//! `config.json` of a Hugging Face directory.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::DirectoryError;
use super::dropout::Dropout;
use super::family::{Family, TokenTypes};

/// Name of the configuration file in a model directory.
pub const CONFIG_FILE: &str = "config.json";

/// Epsilon of every LayerNorm of DistilBERT, which its `config.json` does not name.
const DISTILBERT_EPSILON: f64 = 1e-12;

/// What of `config.json` decides the computation, under BERT's names for all families. Values that
/// this build cannot honor are refused rather than ignored; the others are kept in `raw`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// By `model_type`.
    pub family: Family,
    /// Rows of the token embedding table.
    pub vocab_size: i64,
    /// Width `D` of the hidden states.
    pub hidden_size: i64,
    /// Encoder layers.
    pub num_hidden_layers: usize,
    /// Attention heads `H`.
    pub num_attention_heads: i64,
    /// Width `F` of the feed-forward block.
    pub intermediate_size: i64,
    /// Rows of the position table; see [`ModelConfig::max_tokens`] for the longest sequence.
    pub max_position_embeddings: i64,
    /// Rows of the token type table; 0 where the family has none.
    pub type_vocab_size: i64,
    /// Standard deviation of newly initialized weights.
    pub initializer_range: f64,
    /// Added to the variance in every LayerNorm.
    pub layer_norm_eps: f64,
    /// Token that fills a batch.
    pub pad_token_id: i64,
    /// What the model was made to be trained with.
    pub dropout: Dropout,
    /// Whether the decoder of a language model shares the word embeddings.
    pub tie_word_embeddings: bool,
    /// Class names by number, as written: the keys are decimal numbers.
    pub id2label: BTreeMap<String, String>,
    /// The whole file, so that an export keeps what is not listed here.
    pub raw: Value,
}

impl ModelConfig {
    /// Reads `config.json` of a model directory.
    pub fn read(directory: &Path) -> Result<Self, DirectoryError> {
        let path = directory.join(CONFIG_FILE).display().to_string();
        match std::fs::read(&path) {
            Err(source) => Err(DirectoryError::Read { path, source }),
            Ok(bytes) => {
                Self::parse(&bytes).map_err(|reason| DirectoryError::Config { path, reason })
            }
        }
    }

    /// Parses and checks; the error is a sentence for people.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let fields = Fields(raw.as_object().ok_or("the file holds no JSON object")?);
        let model_type = fields.text("model_type")?.ok_or("model_type is missing")?;
        let family = Family::ALL.into_iter().find(|family| family.model_type() == model_type);
        let family = family.ok_or_else(|| {
            let known = Family::ALL.map(Family::model_type).join("`, `");
            format!("model_type is `{model_type}`; this build knows only `{known}`")
        })?;
        let mut config = match family {
            Family::Bert | Family::Roberta => Self::of_bert(family, &fields)?,
            Family::DistilBert => Self::of_distilbert(&fields)?,
        };
        fields.refuse_what_differs(family)?;
        config.id2label = fields.labels()?;
        config.tie_word_embeddings = fields.0.get("tie_word_embeddings") != Some(&false.into());
        config.raw = raw;
        config.check()?;
        Ok(config)
    }

    fn of_bert(family: Family, fields: &Fields<'_>) -> Result<Self, String> {
        let hidden = fields.real(&["hidden_dropout_prob"], 0.1)?;
        let pad = i64::from(family == Family::Roberta);
        Ok(Self {
            family,
            vocab_size: fields.size(&["vocab_size"])?,
            hidden_size: fields.size(&["hidden_size"])?,
            num_hidden_layers: fields.layers(&["num_hidden_layers"])?,
            num_attention_heads: fields.size(&["num_attention_heads"])?,
            intermediate_size: fields.size(&["intermediate_size"])?,
            max_position_embeddings: fields.size(&["max_position_embeddings"])?,
            type_vocab_size: fields.whole(&["type_vocab_size"])?.unwrap_or(2),
            initializer_range: fields.real(&["initializer_range"], 0.02)?,
            layer_norm_eps: fields.real(&["layer_norm_eps"], 1e-12)?,
            pad_token_id: fields.whole(&["pad_token_id"])?.unwrap_or(pad),
            dropout: Dropout {
                hidden,
                attention: fields.real(&["attention_probs_dropout_prob"], 0.1)?,
                head: fields.real(&["classifier_dropout"], hidden)?,
            },
            tie_word_embeddings: true,
            id2label: BTreeMap::new(),
            raw: Value::Null,
        })
    }

    fn of_distilbert(fields: &Fields<'_>) -> Result<Self, String> {
        Ok(Self {
            family: Family::DistilBert,
            vocab_size: fields.size(&["vocab_size"])?,
            hidden_size: fields.size(&["dim", "hidden_size"])?,
            num_hidden_layers: fields.layers(&["n_layers", "num_hidden_layers"])?,
            num_attention_heads: fields.size(&["n_heads", "num_attention_heads"])?,
            intermediate_size: fields.size(&["hidden_dim"])?,
            max_position_embeddings: fields.size(&["max_position_embeddings"])?,
            type_vocab_size: 0,
            initializer_range: fields.real(&["initializer_range"], 0.02)?,
            layer_norm_eps: DISTILBERT_EPSILON,
            pad_token_id: fields.whole(&["pad_token_id"])?.unwrap_or(0),
            dropout: Dropout {
                hidden: fields.real(&["dropout"], 0.1)?,
                attention: fields.real(&["attention_dropout"], 0.1)?,
                head: fields.real(&["seq_classif_dropout"], 0.2)?,
            },
            tie_word_embeddings: true,
            id2label: BTreeMap::new(),
            raw: Value::Null,
        })
    }

    /// Width `K` of one attention head.
    pub fn head_size(&self) -> i64 {
        self.hidden_size / self.num_attention_heads
    }

    /// Longest sequence in tokens, special tokens counted: RoBERTa leaves the first rows of its
    /// position table to padding.
    pub fn max_tokens(&self) -> i64 {
        self.max_position_embeddings - self.skipped_token().map_or(0, |token| token + 1)
    }

    /// The token that positions are counted past, where the family does that.
    pub fn skipped_token(&self) -> Option<i64> {
        self.family.positions_skip_padding().then_some(self.pad_token_id)
    }

    /// Class names in the order of their numbers; empty when the file names none.
    pub fn labels(&self) -> Result<Vec<String>, String> {
        let mut numbered = Vec::with_capacity(self.id2label.len());
        for (key, name) in &self.id2label {
            let number: usize =
                key.parse().map_err(|_| format!("id2label has the key `{key}`, not a number"))?;
            numbered.push((number, name.clone()));
        }
        numbered.sort();
        if numbered.iter().enumerate().any(|(i, (number, _))| i != *number) {
            return Err("the keys of id2label are not 0, 1, 2, ...".to_owned());
        }
        Ok(numbered.into_iter().map(|(_, name)| name).collect())
    }

    /// The names under which `config.json` holds the three dropout probabilities.
    pub fn dropout_fields(&self) -> [&'static str; 3] {
        match self.family {
            Family::Bert | Family::Roberta => {
                ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"]
            }
            Family::DistilBert => ["dropout", "attention_dropout", "seq_classif_dropout"],
        }
    }

    fn check(&self) -> Result<(), String> {
        if self.hidden_size % self.num_attention_heads != 0 {
            return Err(format!(
                "hidden_size {} is no multiple of num_attention_heads {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        if !(0..self.vocab_size).contains(&self.pad_token_id) {
            return Err(format!("pad_token_id {} is not in the vocabulary", self.pad_token_id));
        }
        if self.max_tokens() < 1 {
            return Err(format!(
                "max_position_embeddings {} leave no room behind pad_token_id {}",
                self.max_position_embeddings, self.pad_token_id
            ));
        }
        let has_token_types = self.family.token_types() != TokenTypes::Absent;
        if has_token_types && !(1..=1 << 28).contains(&self.type_vocab_size) {
            return Err(format!("type_vocab_size is {}", self.type_vocab_size));
        }
        let rates = [self.dropout.hidden, self.dropout.attention, self.dropout.head];
        for (field, rate) in self.dropout_fields().into_iter().zip(rates) {
            if !(0.0..=1.0).contains(&rate) {
                return Err(format!("{field} is {rate}, not a probability"));
            }
        }
        if !(self.layer_norm_eps > 0.0 && self.initializer_range >= 0.0) {
            return Err("layer_norm_eps or initializer_range is not positive".to_owned());
        }
        Ok(())
    }
}

/// The object in the file. Null counts as absent. Where several names are given, the first that is
/// there wins: DistilBERT has two for some sizes.
struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn find(&self, names: &[&str]) -> Option<&Value> {
        names.iter().find_map(|name| self.0.get(*name)).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<Option<&str>, String> {
        let wrong = || format!("{name} is not a text");
        self.find(&[name]).map(|value| value.as_str().ok_or_else(wrong)).transpose()
    }

    fn whole(&self, names: &[&str]) -> Result<Option<i64>, String> {
        let wrong = |value| format!("{} is {value}, not a whole number", names[0]);
        self.find(names).map(|value| value.as_i64().ok_or_else(|| wrong(value))).transpose()
    }

    fn real(&self, names: &[&str], default: f64) -> Result<f64, String> {
        let wrong = |value| format!("{} is {value}, not a number", names[0]);
        let found = self.find(names).map(|value| value.as_f64().ok_or_else(|| wrong(value)));
        Ok(found.transpose()?.unwrap_or(default))
    }

    fn size(&self, names: &[&str]) -> Result<i64, String> {
        let name = names[0];
        let size = self.whole(names)?.ok_or_else(|| format!("{name} is missing"))?;
        // The bound keeps every product of two sizes far inside i64.
        if !(1..=1 << 28).contains(&size) {
            return Err(format!("{name} is {size}"));
        }
        Ok(size)
    }

    fn layers(&self, names: &[&str]) -> Result<usize, String> {
        let count = self.size(names)?;
        let legal = usize::try_from(count).ok().filter(|count| *count <= 1024);
        legal.ok_or_else(|| format!("{} is {count}", names[0]))
    }

    fn labels(&self) -> Result<BTreeMap<String, String>, String> {
        let wrong = || "id2label does not hold a name for each number".to_owned();
        let Some(value) = self.find(&["id2label"]) else { return Ok(BTreeMap::new()) };
        let entries = value.as_object().ok_or_else(wrong)?.iter();
        let named =
            |(number, name): (&String, &Value)| Some((number.clone(), name.as_str()?.to_owned()));
        entries.map(|entry| named(entry).ok_or_else(wrong)).collect()
    }

    /// Refuses what would change the computation to something this build does not know.
    fn refuse_what_differs(&self, family: Family) -> Result<(), String> {
        let activation = match family {
            Family::Bert | Family::Roberta => "hidden_act",
            Family::DistilBert => "activation",
        };
        // `gelu` is the exact form, with erf.
        for (field, wanted) in [(activation, "gelu"), ("position_embedding_type", "absolute")] {
            if let Some(found) = self.text(field)?
                && found != wanted
            {
                return Err(format!("{field} is `{found}`; this build knows only `{wanted}`"));
            }
        }
        for field in ["is_decoder", "add_cross_attention"] {
            if self.0.get(field) == Some(&Value::Bool(true)) {
                return Err(format!("{field} is true; only encoders are computed here"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(base: Value, field: &str, value: Value) -> Result<ModelConfig, String> {
        let mut raw = base;
        raw[field] = value;
        ModelConfig::parse(raw.to_string().as_bytes())
    }

    fn bert() -> Value {
        json!({
            "model_type": "bert", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 4, "intermediate_size": 64, "hidden_act": "gelu",
            "max_position_embeddings": 64,
        })
    }

    fn distilbert() -> Value {
        json!({
            "model_type": "distilbert", "vocab_size": 100, "dim": 32, "n_layers": 2, "n_heads": 4,
            "hidden_dim": 64, "activation": "gelu", "max_position_embeddings": 64,
        })
    }

    #[test]
    fn what_this_build_cannot_compute_is_refused() {
        assert!(with(bert(), "model_type", "bert".into()).is_ok());
        for (field, value) in [
            ("model_type", Value::from("electra")),
            ("model_type", Value::Null),
            ("hidden_act", "gelu_new".into()),
            ("position_embedding_type", "relative_key".into()),
            ("is_decoder", true.into()),
            ("num_attention_heads", 5.into()),
            ("hidden_size", (-1).into()),
            ("hidden_size", "wide".into()),
            ("num_hidden_layers", 5000.into()),
            ("pad_token_id", 100.into()),
            ("type_vocab_size", 0.into()),
            ("hidden_dropout_prob", 1.5.into()),
            ("id2label", json!({"0": 7})),
        ] {
            let refused = with(bert(), field, value.clone()).unwrap_err();
            assert!(refused.contains(field), "{field}: {value} gives {refused}");
        }
        assert!(with(distilbert(), "activation", "relu".into()).unwrap_err().contains("relu"));
        assert!(with(distilbert(), "n_layers", Value::Null).unwrap_err().contains("n_layers"));
    }

    #[test]
    fn every_family_has_its_own_names_and_defaults() {
        let config = with(bert(), "classifier_dropout", Value::Null).unwrap();
        assert_eq!(config.dropout, Dropout { hidden: 0.1, attention: 0.1, head: 0.1 });
        assert_eq!((config.max_tokens(), config.pad_token_id, config.type_vocab_size), (64, 0, 2));
        let own = with(bert(), "classifier_dropout", 0.3.into()).unwrap();
        assert_eq!(own.dropout, Dropout { hidden: 0.1, attention: 0.1, head: 0.3 });

        let config = with(distilbert(), "dropout", 0.05.into()).unwrap();
        assert_eq!(config.dropout, Dropout { hidden: 0.05, attention: 0.1, head: 0.2 });
        assert_eq!((config.hidden_size, config.num_hidden_layers), (32, 2));
        assert_eq!(config.type_vocab_size, 0);
        assert!((config.layer_norm_eps - 1e-12).abs() < 1e-20);

        let config = with(bert(), "model_type", "roberta".into()).unwrap();
        assert_eq!((config.max_tokens(), config.pad_token_id), (62, 1));
    }

    #[test]
    fn labels_are_ordered_by_number_not_by_text() {
        let names: Map<String, Value> =
            (0..11).map(|i| (i.to_string(), Value::from(format!("c{i}")))).collect();
        let config = with(bert(), "id2label", names.into()).unwrap();
        assert_eq!(config.labels().unwrap()[10], "c10");
        let gap = with(bert(), "id2label", json!({"0": "a", "2": "b"})).unwrap();
        assert!(gap.labels().is_err());
    }
}
