//! `config.json` of a Hugging Face BERT directory, field names unchanged.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::ModelError;

/// Name of the configuration file in a model directory.
pub(crate) const CONFIG_FILE: &str = "config.json";

/// What of `config.json` decides the computation. Fields that this build cannot honor are refused
/// rather than ignored; fields that do not matter to a classifier are kept in `raw`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct BertConfig {
    /// Always `bert`.
    pub model_type: String,
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
    /// Activation of the feed-forward block: `gelu`, the exact form with erf.
    pub hidden_act: String,
    /// Longest sequence in tokens.
    pub max_position_embeddings: i64,
    /// Rows of the token type table.
    #[serde(default = "default_type_vocab_size")]
    pub type_vocab_size: i64,
    /// Standard deviation of newly initialized weights.
    #[serde(default = "default_initializer_range")]
    pub initializer_range: f64,
    /// Added to the variance in every LayerNorm.
    #[serde(default = "default_layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// Token that fills a batch.
    #[serde(default)]
    pub pad_token_id: i64,
    /// How positions enter; only `absolute`.
    #[serde(default = "default_position_embedding_type")]
    pub position_embedding_type: String,
    /// A decoder attends causally; refused.
    #[serde(default)]
    pub is_decoder: bool,
    /// Class names by number, as written: the keys are decimal numbers.
    #[serde(default)]
    pub id2label: BTreeMap<String, String>,
    /// The whole file, so that an export keeps what is not listed here.
    #[serde(skip)]
    pub raw: Value,
}

fn default_type_vocab_size() -> i64 {
    2
}

fn default_initializer_range() -> f64 {
    0.02
}

fn default_layer_norm_eps() -> f64 {
    1e-12
}

fn default_position_embedding_type() -> String {
    "absolute".to_owned()
}

impl BertConfig {
    /// Reads `config.json` of a model directory.
    pub fn read(directory: &Path) -> Result<Self, ModelError> {
        let path = directory.join(CONFIG_FILE);
        let bytes = std::fs::read(&path)
            .map_err(|source| ModelError::Read { path: path.display().to_string(), source })?;
        Self::parse(&bytes)
            .map_err(|reason| ModelError::Config { path: path.display().to_string(), reason })
    }

    /// Parses and checks; the error is a sentence for people.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let raw: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let mut config = Self::deserialize(&raw).map_err(|error| error.to_string())?;
        config.raw = raw;
        config.check()?;
        Ok(config)
    }

    /// Width `K` of one attention head.
    pub fn head_size(&self) -> i64 {
        self.hidden_size / self.num_attention_heads
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

    fn check(&self) -> Result<(), String> {
        let only = |field: &str, found: &str, wanted: &str| {
            if found == wanted {
                return Ok(());
            }
            Err(format!("{field} is `{found}`; this build knows only `{wanted}`"))
        };
        only("model_type", &self.model_type, "bert")?;
        only("hidden_act", &self.hidden_act, "gelu")?;
        only("position_embedding_type", &self.position_embedding_type, "absolute")?;
        if self.is_decoder {
            return Err("is_decoder is true; only encoders can classify here".to_owned());
        }
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ];
        // The bound keeps every product of two sizes far inside i64.
        if let Some((field, size)) = sizes.into_iter().find(|(_, n)| !(1..=1 << 28).contains(n)) {
            return Err(format!("{field} is {size}"));
        }
        if !(1..=1024).contains(&self.num_hidden_layers) {
            return Err(format!("num_hidden_layers is {}", self.num_hidden_layers));
        }
        if self.hidden_size % self.num_attention_heads != 0 {
            return Err(format!(
                "hidden_size {} is no multiple of num_attention_heads {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        if !(0..self.vocab_size).contains(&self.pad_token_id) {
            return Err(format!("pad_token_id {} is not in the vocabulary", self.pad_token_id));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(field: &str, value: Value) -> Result<BertConfig, String> {
        let mut raw = serde_json::json!({
            "model_type": "bert", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 4, "intermediate_size": 64, "hidden_act": "gelu",
            "max_position_embeddings": 64,
        });
        raw[field] = value;
        BertConfig::parse(raw.to_string().as_bytes())
    }

    #[test]
    fn what_this_build_cannot_compute_is_refused() {
        assert!(with("model_type", "bert".into()).is_ok());
        for (field, value) in [
            ("model_type", Value::from("roberta")),
            ("hidden_act", "gelu_new".into()),
            ("position_embedding_type", "relative_key".into()),
            ("is_decoder", true.into()),
            ("num_attention_heads", 5.into()),
            ("hidden_size", (-1).into()),
            ("pad_token_id", 100.into()),
        ] {
            assert!(with(field, value).unwrap_err().contains(field), "{field}");
        }
    }

    #[test]
    fn labels_are_ordered_by_number_not_by_text() {
        let names: serde_json::Map<String, Value> =
            (0..11).map(|i| (i.to_string(), Value::from(format!("c{i}")))).collect();
        let config = with("id2label", names.into()).unwrap();
        assert_eq!(config.labels().unwrap()[10], "c10");
        let gap = with("id2label", serde_json::json!({"0": "a", "2": "b"})).unwrap();
        assert!(gap.labels().is_err());
    }
}
