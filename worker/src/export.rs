//! The chosen model as a Hugging Face directory, which transformers loads as it is.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use muster_common::equipment::EquipmentKind;
use muster_common::evaluation::Evaluation;
use muster_common::id::TrialId;
use muster_common::manifest::{Assignment, Manifest};
use muster_common::storage::{CheckpointKey, Layout, PROVENANCE_FILE, Store, StoreError};
use object_store::path::Path as StorePath;
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::deadline::{Overdue, beside_for};
use crate::model::{
    CONFIG_FILE, Classifier, Described, LanguageModel, ModelConfig, ModelError, TaskModel,
    WEIGHTS_FILE, serialize_tensors,
};

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
    /// What the trial was trained with, as far as that is kept: no names of machines, for models are given away.
    pub trained_with: &'a [EquipmentKind],
}

/// Writes `model` with its heads to the experiment's `best` directory and returns where that is.
/// `pretrained` is the directory whose tokenizer it uses; `dropout` is the hyperparameter it was
/// trained with. Classifiers of the family start from a language model like from any pretrained one.
pub fn export(
    runtime: &Handle,
    store: &Store,
    model: &TaskModel,
    pretrained: &Path,
    dropout: Option<f64>,
    provenance: &Provenance<'_>,
) -> Result<String, ExportError> {
    let directory = Layout::best(&provenance.trial.experiment);
    let target = Target { runtime, store, directory };
    let (config, ordered) = match model {
        TaskModel::Classifier(model) => {
            let ordered = provenance.manifest.evaluation.is_ordered(model.labels());
            (classifier_config(model, dropout), ordered)
        }
        TaskModel::Language(model) => (language_config(model, dropout), false),
    };
    target.put_model(pretrained, model, &config)?;
    // Readers of the other files ignore it.
    target.put_json(PROVENANCE_FILE, &describe(provenance, ordered))?;
    Ok(store.display(&target.directory))
}

/// Where a model is written.
struct Target<'a> {
    runtime: &'a Handle,
    store: &'a Store,
    directory: StorePath,
}

impl Target<'_> {
    fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), ExportError> {
        let (store, key) = (self.store.clone(), self.directory.clone().join(name));
        let num_bytes = bytes.len() as u64;
        // Weights of a large model take longer than one request may.
        let put = async move { store.put_large(&key, Bytes::from(bytes)).await };
        beside_for(self.runtime, num_bytes, put).wait()??;
        Ok(())
    }

    fn put_json(&self, file: &'static str, value: &Value) -> Result<(), ExportError> {
        let bytes = serde_json::to_vec_pretty(value);
        self.put(file, bytes.map_err(|source| ExportError::Json { file, source })?)
    }

    /// Tokenizer, weights, configuration.
    fn put_model(
        &self,
        pretrained: &Path,
        model: &TaskModel,
        config: &Value,
    ) -> Result<(), ExportError> {
        for name in TOKENIZER_FILES {
            let path = pretrained.join(name);
            match std::fs::read(&path) {
                Ok(bytes) => self.put(name, bytes)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(ExportError::Read { path: path.display().to_string(), source });
                }
            }
        }
        let parameters = model.parameters().iter().map(|(name, tensor)| (name.clone(), tensor));
        // transformers refuses a file that does not say which framework wrote it.
        let texts = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        self.put(WEIGHTS_FILE, serialize_tensors(parameters, texts)?)?;
        self.put_json(CONFIG_FILE, config)
    }
}

/// The pretrained `config.json` with the classification head described.
fn classifier_config(model: &Classifier, dropout: Option<f64>) -> Value {
    let labels = model.labels().iter().enumerate();
    let id2label: serde_json::Map<String, Value> =
        labels.clone().map(|(id, label)| (id.to_string(), json!(label))).collect();
    let label2id: serde_json::Map<String, Value> =
        labels.map(|(id, label)| (label.clone(), json!(id))).collect();
    let head = [
        ("architectures", json!([model.config().family.class_name("SequenceClassification")])),
        ("problem_type", json!("single_label_classification")),
        ("id2label", Value::Object(id2label)),
        ("label2id", Value::Object(label2id)),
    ];
    let fields = model.config().dropout_fields();
    let rates = dropout.map(|rate| fields.map(|field| (field, json!(rate))));
    config(model.config(), head.into_iter().chain(rates.into_iter().flatten()))
}

/// The pretrained `config.json` with the class of the model. The rate of the classification head
/// stays what it was: there is none here.
fn language_config(model: &LanguageModel, dropout: Option<f64>) -> Value {
    let [hidden, attention, _] = model.config().dropout_fields();
    let rates = dropout.map(|rate| [hidden, attention].map(|field| (field, json!(rate))));
    let architecture = [("architectures", json!([model.class_name()]))];
    config(model.config(), architecture.into_iter().chain(rates.into_iter().flatten()))
}

/// The pretrained `config.json` with these fields written over.
fn config(pretrained: &ModelConfig, fields: impl Iterator<Item = (&'static str, Value)>) -> Value {
    let mut config = pretrained.raw.clone();
    if let Value::Object(all) = &mut config {
        all.extend(fields.map(|(field, value)| (field.to_owned(), value)));
        all.insert("torch_dtype".to_owned(), json!("float32"));
        // The path it was loaded from on somebody's machine, and a second name of `torch_dtype`.
        for field in ["_name_or_path", "dtype"] {
            all.remove(field);
        }
    }
    config
}

fn describe(provenance: &Provenance<'_>, ordered: bool) -> Value {
    let Provenance { manifest, trial, assignment, checkpoint, test, trained_with } = provenance;
    let hyperparameters: serde_json::Map<String, Value> =
        assignment.iter().map(|(name, value)| (name.clone(), value.to_json())).collect();
    let scores = test.map(|test| {
        let values = test.values(ordered).into_iter();
        let named = values.map(|(metric, value)| (metric.name(), value));
        json!({
            "num_examples": test.num_examples(),
            "scores": named.collect::<BTreeMap<_, _>>(),
            "confusion": test.confusion,
            "num_masked": test.masked.map(|masked| masked.num_masked),
        })
    });
    json!({
        "muster": env!("CARGO_PKG_VERSION"),
        "manifest": manifest.name.as_str(),
        "trial": trial.to_string(),
        "step": checkpoint.step,
        "hyperparameters": hyperparameters,
        "pretrained": manifest.model.pretrained,
        "columns": {"text": manifest.data.text, "text_pair": manifest.data.text_pair},
        "test": scores,
        "trained_with": trained_with,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::model::{Dropout, Family, Frozen, LanguageObjective, Pretrained, texts_of};
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

    struct Bench {
        runtime: tokio::runtime::Runtime,
        store: Store,
        source: tempfile::TempDir,
        _directory: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let source = tempfile::tempdir().unwrap();
            std::fs::write(source.path().join("tokenizer.json"), b"{}").unwrap();
            std::fs::write(source.path().join("merges.txt"), b"#version: 0.2\n").unwrap();
            let store = Store::open(directory.path().to_str().unwrap()).unwrap();
            let runtime = tokio::runtime::Runtime::new().unwrap();
            Self { runtime, store, source, _directory: directory }
        }

        fn export(&self, model: &TaskModel, dropout: Option<f64>) -> PathBuf {
            let trial: TrialId = "sentences-1/t2".parse().unwrap();
            let confusion = vec![vec![3, 1], vec![0, 4]];
            let test = Evaluation { loss: 0.5, confusion, auc: Some(0.9), ..Evaluation::default() };
            let key = CheckpointKey { trial: trial.clone(), step: 7, generation: Generation(1) };
            let provenance = Provenance {
                manifest: &Manifest::parse(MANIFEST).unwrap(),
                trial: &trial,
                assignment: &Assignment::new(),
                checkpoint: &key,
                test: Some(&test),
                trained_with: &[crate::equipment::of_slot().kind],
            };
            let (handle, source) = (self.runtime.handle(), self.source.path());
            let exported = export(handle, &self.store, model, source, dropout, &provenance);
            PathBuf::from(exported.unwrap())
        }
    }

    fn golden(family: Family, task: &str) -> Pretrained {
        let name = format!("../tests/golden/hf/families/{}-{task}", family.model_type());
        Pretrained::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
    }

    fn json_of(path: &Path) -> Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn an_exported_model_predicts_the_same() {
        for (family, class, rate) in [
            (Family::Bert, "BertForSequenceClassification", "classifier_dropout"),
            (Family::DistilBert, "DistilBertForSequenceClassification", "seq_classif_dropout"),
            (Family::Roberta, "RobertaForSequenceClassification", "classifier_dropout"),
        ] {
            let bench = Bench::new();
            // The pretrained model is a language model: its head goes, a classifier's comes.
            let pretrained = golden(family, "masked");
            let labels = vec!["no".to_owned(), "yes".to_owned()];
            let frozen = Frozen { embeddings: true, layers: 1 };
            let model =
                Classifier::to_train(&pretrained, labels, frozen, Seed(9), Device::Cpu).unwrap();
            let whole = TaskModel::from(model);
            let TaskModel::Classifier(model) = &whole else { panic!("it is a classifier") };
            let exported = bench.export(&whole, Some(0.3));
            let again = Classifier::from_directory(&exported, Device::Cpu).unwrap();
            assert_eq!(again.labels(), model.labels());
            let batch = [vec![2, 5, 6, 3], vec![2, 9, 3]];
            assert_eq!(again.logits(&batch).unwrap(), model.logits(&batch).unwrap());
            assert_eq!(again.parameters(), model.parameters());
            assert_eq!(again.config().dropout, 0.3.into());
            let config = json_of(&exported.join(CONFIG_FILE));
            assert_eq!((&config["architectures"][0], &config[rate]), (&class.into(), &0.3.into()));
            assert_eq!(config["label2id"]["yes"], 1);
            assert_eq!(config["problem_type"], "single_label_classification");
            let provenance = json_of(&exported.join(PROVENANCE_FILE));
            assert_eq!(provenance["columns"]["text"], "text");
            assert_eq!(provenance["test"]["scores"]["accuracy"], 0.875);
            let own = crate::equipment::of_slot();
            assert_eq!(provenance["trained_with"][0]["processor"], own.kind.processor);
            assert!(provenance["trained_with"][0]["host"].is_null());
            assert!(exported.join("tokenizer.json").is_file());
            assert!(exported.join("merges.txt").is_file());
            let weights = std::fs::read(exported.join(WEIGHTS_FILE)).unwrap();
            assert_eq!(texts_of(&weights).unwrap()["format"], "pt");
            // Without the hyperparameter the rates stay the model's own.
            let own = Classifier::from_directory(&bench.export(&whole, None), Device::Cpu);
            assert_eq!(own.unwrap().config().dropout, pretrained.config.dropout);
        }
    }

    #[test]
    fn an_exported_language_model_goes_on_and_becomes_a_classifier() {
        for (family, task, objective) in [
            (Family::Bert, "both", LanguageObjective::Both),
            (Family::DistilBert, "masked", LanguageObjective::MaskedTokens),
            (Family::Roberta, "masked", LanguageObjective::MaskedTokens),
        ] {
            let bench = Bench::new();
            let pretrained = golden(family, task);
            let to_train = |pretrained: &Pretrained| {
                let frozen = Frozen::default();
                LanguageModel::to_train(pretrained, objective, frozen, Seed(4), Device::Cpu)
                    .unwrap()
            };
            let model = to_train(&pretrained);
            let class = model.class_name();
            let model = TaskModel::from(model);
            let exported = bench.export(&model, Some(0.2));
            let again = Pretrained::read(&exported).unwrap();
            assert_eq!(to_train(&again).parameters(), model.parameters());
            let rates = Dropout { head: pretrained.config.dropout.head, ..0.2.into() };
            assert_eq!(again.config.dropout, rates);
            let config = json_of(&exported.join(CONFIG_FILE));
            assert_eq!(config["architectures"][0], class);
            let labels = vec!["a".to_owned(), "b".to_owned()];
            let frozen = Frozen::default();
            assert!(Classifier::to_train(&again, labels, frozen, Seed(1), Device::Cpu).is_ok());
        }
    }
}
