//! The chosen model as a Hugging Face directory, which transformers loads as it is.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use muster_common::evaluation::Evaluation;
use muster_common::id::TrialId;
use muster_common::manifest::{Assignment, Manifest};
use muster_common::storage::{CheckpointKey, Layout, Store, StoreError};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::deadline::{Overdue, within};
use crate::model::{CONFIG_FILE, Classifier, ModelError, WEIGHTS_FILE, serialize_tensors};

/// What of the pretrained directory belongs to its tokenizer; copied where present.
const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
];

/// Where the model comes from; readers of the other files ignore it. Written last.
const PROVENANCE_FILE: &str = "muster.json";

/// Why a model cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The weights could not be copied out.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store did not answer.
    #[error(transparent)]
    Overdue(#[from] Overdue),
    /// A tokenizer file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A document cannot be written.
    #[error("cannot write {file}")]
    Json {
        /// Its name.
        file: &'static str,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

/// What the provenance file says besides the model.
#[derive(Debug)]
pub struct Provenance<'a> {
    /// The manifest of the experiment.
    pub manifest: &'a Manifest,
    /// The chosen trial.
    pub trial: &'a TrialId,
    /// Its searched hyperparameters.
    pub assignment: &'a Assignment,
    /// What was exported.
    pub checkpoint: &'a CheckpointKey,
    /// Scores on the test split.
    pub test: Option<&'a Evaluation>,
}

/// Writes `model` to the experiment's `best` directory and returns where that is. `pretrained` is
/// the directory whose tokenizer it uses; `dropout` is the hyperparameter it was trained with.
pub fn export(
    runtime: &Handle,
    store: &Store,
    model: &Classifier,
    pretrained: &Path,
    dropout: Option<f64>,
    provenance: &Provenance<'_>,
) -> Result<String, ExportError> {
    let directory = Layout::best(&provenance.trial.experiment);
    let put = |name: &str, bytes: Vec<u8>| {
        within(runtime, store.put(&directory.clone().join(name), Bytes::from(bytes)))??;
        Ok::<_, ExportError>(())
    };
    let pretty = |file: &'static str, value: &Value| {
        serde_json::to_vec_pretty(value).map_err(|source| ExportError::Json { file, source })
    };
    for name in TOKENIZER_FILES {
        let path = pretrained.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => put(name, bytes)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(ExportError::Read { path: path.display().to_string(), source });
            }
        }
    }
    let parameters = model.parameters().iter().map(|(name, tensor)| (name.clone(), tensor));
    // transformers refuses a file that does not say which framework wrote it.
    let texts = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    put(WEIGHTS_FILE, serialize_tensors(parameters, texts)?)?;
    put(CONFIG_FILE, pretty(CONFIG_FILE, &config(model, dropout))?)?;
    let ordered = provenance.manifest.evaluation.is_ordered(model.labels());
    put(PROVENANCE_FILE, pretty(PROVENANCE_FILE, &describe(provenance, ordered))?)?;
    Ok(store.display(&directory))
}

/// The pretrained `config.json` with the head described.
fn config(model: &Classifier, dropout: Option<f64>) -> Value {
    let labels = model.labels().iter().enumerate();
    let id2label: serde_json::Map<String, Value> =
        labels.clone().map(|(id, label)| (id.to_string(), json!(label))).collect();
    let label2id: serde_json::Map<String, Value> =
        labels.map(|(id, label)| (label.clone(), json!(id))).collect();
    let class = model.config().family.class_name("SequenceClassification");
    let mut config = model.config().raw.clone();
    if let Value::Object(fields) = &mut config {
        if let Some(rate) = dropout {
            for field in model.config().dropout_fields() {
                fields.insert(field.to_owned(), json!(rate));
            }
        }
        for (field, value) in [
            ("architectures", json!([class])),
            ("problem_type", json!("single_label_classification")),
            ("id2label", Value::Object(id2label)),
            ("label2id", Value::Object(label2id)),
            ("torch_dtype", json!("float32")),
        ] {
            fields.insert(field.to_owned(), value);
        }
        // The path it was loaded from on somebody's machine, and a second name of `torch_dtype`.
        for field in ["_name_or_path", "dtype"] {
            fields.remove(field);
        }
    }
    config
}

fn describe(provenance: &Provenance<'_>, ordered: bool) -> Value {
    let Provenance { manifest, trial, assignment, checkpoint, test } = provenance;
    let hyperparameters: serde_json::Map<String, Value> =
        assignment.iter().map(|(name, value)| (name.clone(), json!(value.as_f64()))).collect();
    let scores = test.map(|test| {
        let values = test.values(ordered).into_iter();
        let named = values.map(|(metric, value)| (metric.name(), value));
        json!({
            "num_examples": test.num_examples(),
            "scores": named.collect::<BTreeMap<_, _>>(),
            "confusion": test.confusion,
        })
    });
    json!({
        "muster": env!("CARGO_PKG_VERSION"),
        "manifest": manifest.name.as_str(),
        "trial": trial.to_string(),
        "step": checkpoint.step,
        "hyperparameters": hyperparameters,
        "pretrained": manifest.model.pretrained,
        "test": scores,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Frozen, Pretrained};
    use muster_common::id::Generation;
    use muster_common::seed::Seed;
    use tch::Device;

    const MANIFEST: &str = "
version: 1
name: sentences
model: {pretrained: models/tiny}
data:
  train: {path: train.tsv, columns: [text, label]}
  validation: {fraction: 0.1}
  text: text
  label: {column: label, names: [no, yes]}
budget: {epochs: 1}
";

    #[test]
    fn an_exported_model_predicts_the_same() {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/hf/tiny");
        let pretrained = Pretrained::read(&tiny).unwrap();
        let labels = vec!["no".to_owned(), "yes".to_owned()];
        let frozen = Frozen { embeddings: true, layers: 1 };
        let model =
            Classifier::to_train(&pretrained, labels, frozen, Seed(9), Device::Cpu).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().to_str().unwrap()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let source = tempfile::tempdir().unwrap();
        std::fs::write(source.path().join("tokenizer.json"), b"{}").unwrap();
        let trial: TrialId = "sentences-1/t2".parse().unwrap();
        let test =
            Evaluation { loss: 0.5, confusion: vec![vec![3, 1], vec![0, 4]], auc: Some(0.9) };
        let provenance = Provenance {
            manifest: &Manifest::parse(MANIFEST).unwrap(),
            trial: &trial,
            assignment: &Assignment::new(),
            checkpoint: &CheckpointKey { trial: trial.clone(), step: 7, generation: Generation(1) },
            test: Some(&test),
        };
        let handle = runtime.handle();
        let exported =
            export(handle, &store, &model, source.path(), Some(0.3), &provenance).unwrap();
        let exported = Path::new(&exported);
        let again = Classifier::from_directory(exported, Device::Cpu).unwrap();
        assert_eq!(again.labels(), model.labels());
        let batch = [vec![1, 5, 6, 2], vec![1, 9, 2]];
        assert_eq!(again.logits(&batch).unwrap(), model.logits(&batch).unwrap());
        let json = |file: &str| -> Value {
            serde_json::from_slice(&std::fs::read(exported.join(file)).unwrap()).unwrap()
        };
        assert_eq!(json(CONFIG_FILE)["architectures"][0], "BertForSequenceClassification");
        assert_eq!(json(CONFIG_FILE)["label2id"]["yes"], 1);
        assert_eq!(json(PROVENANCE_FILE)["test"]["scores"]["accuracy"], 0.875);
        assert!(exported.join("tokenizer.json").is_file());
    }
}
